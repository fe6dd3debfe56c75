//! Unpacked packages: what a package holds, inflated and verified once, ready to be copied.
//!
//! ```text
//! contents of files │ entries │ signature and control part │ trailer
//! ```
//!
//! Contents of [`ALIGNED`] bytes and more begin on a block border, so that a file system that
//! shares blocks can share them. The entries are the tar headers with the place of each content,
//! the control part is as in the package, and the trailer says where both are. Who reads one must
//! know that nobody but the writer of the cache wrote it: [`Reader::verify`] finds damage, not
//! malice, except that identity and metadata are always those of the control part.

use super::apk::{Checksum, ControlPart, Entry, EntryKind, Form, PackageReader};
use super::tar::Header;
use super::{FormatError, Limits};
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io::{self, BufWriter, Read, Write};
use std::os::unix::fs::FileExt;

/// Contents of at least this size begin on a border of `BLOCK` bytes.
pub const ALIGNED: u64 = 16 << 10;

/// The block size of the usual file systems.
const BLOCK: u64 = 4096;

/// The last bytes of every unpacked package; the digit is the version of the layout.
const MAGIC: [u8; 8] = *b"ibexpkg1";

/// Bytes of the trailer: three numbers, a checksum, the magic.
const TRAILER: u64 = 3 * 8 + 4 + 8;

/// Bytes read and written at once.
const BUFFER: usize = 128 << 10;

/// A content of at most this size is read together with its neighbours.
const SMALL: u64 = 64 << 10;

/// Why a package could not be unpacked.
#[derive(Debug, thiserror::Error)]
pub enum UnpackError {
    /// The package is damaged, or cannot be read.
    #[error(transparent)]
    Format(#[from] FormatError),
    /// A file is not what its checksum says.
    #[error("v2 package integrity error: {path} is not what its checksum says")]
    Checksum {
        /// Its path.
        path: String,
    },
    /// The result could not be written.
    #[error("{}", super::cause(.0))]
    Write(#[source] io::Error),
}

/// An entry with the place of its content.
#[derive(Debug, Serialize, Deserialize)]
struct Stored {
    path: String,
    header: Header,
    at: u64,
}

/// Writes an unpacked package.
#[derive(Debug)]
pub struct Writer {
    file: BufWriter<File>,
    at: u64,
    entries: Vec<Stored>,
    buffer: Vec<u8>,
}

impl Writer {
    /// Begins with an empty file.
    pub fn new(file: File) -> Self {
        Self {
            file: BufWriter::with_capacity(BUFFER, file),
            at: 0,
            entries: Vec::new(),
            buffer: vec![0; BUFFER],
        }
    }

    /// Adds an entry; `content` is read to its end and compared with its checksum.
    ///
    /// # Errors
    /// [`UnpackError`].
    pub fn add(&mut self, mut entry: Entry, content: &mut impl Read) -> Result<(), UnpackError> {
        if entry.malicious.is_some() {
            // Nobody will want what is in it.
            (entry.header.size, entry.header.checksum) = (0, Checksum::None);
            self.entries.push(Stored {
                path: entry.path,
                header: entry.header,
                at: 0,
            });
            return Ok(());
        }
        let at = match entry.header.kind {
            EntryKind::File => self.content(&entry, content)?,
            _ => self.at,
        };
        if let EntryKind::Symlink(target) = &entry.header.kind
            && !entry.header.checksum.fits(target.as_bytes())
        {
            return Err(UnpackError::Checksum { path: entry.path });
        }
        self.entries.push(Stored {
            path: entry.path,
            header: entry.header,
            at,
        });
        Ok(())
    }

    fn content(&mut self, entry: &Entry, content: &mut impl Read) -> Result<u64, UnpackError> {
        let wanted = entry.header.checksum;
        if !wanted.is_some() {
            return Err(FormatError::Obsolete.into());
        }
        if entry.header.size >= ALIGNED {
            let gap = self.at.next_multiple_of(BLOCK) - self.at;
            self.write_zeros(gap)?;
        }
        let at = self.at;
        let mut hash = wanted.hash();
        loop {
            let count = content.read(&mut self.buffer).map_err(FormatError::from)?;
            if count == 0 {
                break;
            }
            hash.update(&self.buffer[..count]);
            self.file
                .write_all(&self.buffer[..count])
                .map_err(UnpackError::Write)?;
            self.at += count as u64;
        }
        if hash.finish() != wanted {
            let path = entry.path.clone();
            return Err(UnpackError::Checksum { path });
        }
        if self.at - at != entry.header.size {
            return Err(FormatError::UnexpectedEnd.into());
        }
        Ok(at)
    }

    fn write_zeros(&mut self, count: u64) -> Result<(), UnpackError> {
        let zeros = [0; BLOCK as usize];
        self.at += count;
        self.file
            .write_all(&zeros[..count as usize])
            .map_err(UnpackError::Write)
    }

    /// Ends with the bytes of the package up to its data: signatures and control part.
    ///
    /// # Errors
    /// [`UnpackError::Write`].
    pub fn finish(mut self, control: &[u8]) -> Result<(), UnpackError> {
        let other =
            |error: postcard::Error| UnpackError::Write(io::Error::other(error.to_string()));
        let entries = postcard::to_stdvec(&self.entries).map_err(other)?;
        let mut trailer = Vec::with_capacity(TRAILER as usize);
        for number in [self.at, entries.len() as u64, control.len() as u64] {
            trailer.extend(number.to_le_bytes());
        }
        trailer.extend(crc32fast::hash(&entries).to_le_bytes());
        trailer.extend(MAGIC);
        [&entries, control, &trailer]
            .into_iter()
            .try_for_each(|part| self.file.write_all(part))
            .and_then(|()| self.file.flush())
            .map_err(UnpackError::Write)
    }
}

/// Reads an unpacked package entry by entry, as [`super::apk::DataReader`] reads a packed one.
#[derive(Debug)]
pub struct Reader {
    file: File,
    entries: std::vec::IntoIter<Stored>,
    /// What is left of the current content: place and bytes.
    content: (u64, u64),
    /// Bytes of the file that were read ahead, and where they begin.
    ahead: (u64, Vec<u8>),
}

impl Reader {
    /// Opens one.
    ///
    /// # Errors
    /// [`FormatError`] if it is none, or damaged.
    pub fn open(file: File, limits: &Limits) -> Result<(ControlPart, Self), FormatError> {
        let size = file.metadata()?.len();
        let trailer_at = size.checked_sub(TRAILER).ok_or(FormatError::Invalid)?;
        let mut trailer = [0; TRAILER as usize];
        file.read_exact_at(&mut trailer, trailer_at)?;
        let number = |at: usize| {
            let bytes = trailer[at..at + 8].try_into().expect("eight bytes");
            u64::from_le_bytes(bytes)
        };
        let [contents, entries, control] = [0, 8, 16].map(number);
        let whole = [contents, entries, control, TRAILER]
            .into_iter()
            .try_fold(0_u64, u64::checked_add);
        if trailer[28..] != MAGIC || whole != Some(size) {
            return Err(FormatError::Invalid);
        }
        let mut bytes = vec![0; (entries + control) as usize];
        file.read_exact_at(&mut bytes, contents)?;
        let (entries, control) = bytes.split_at(entries as usize);
        if crc32fast::hash(entries).to_le_bytes() != trailer[24..28] {
            return Err(FormatError::Integrity);
        }
        let entries: Vec<Stored> =
            postcard::from_bytes(entries).map_err(|_| FormatError::Integrity)?;
        let inside = |stored: &Stored| {
            let end = stored.at.checked_add(stored.header.size);
            end.is_some_and(|end| end <= contents) || stored.header.kind != EntryKind::File
        };
        if !entries.iter().all(inside) {
            return Err(FormatError::Integrity);
        }
        let (control, _) = PackageReader::open(control, limits)?;
        let reader = Self {
            file,
            entries: entries.into_iter(),
            content: (0, 0),
            ahead: (0, Vec::new()),
        };
        Ok((control, reader))
    }

    /// Moves to the next entry.
    pub fn next_entry(&mut self) -> Option<Entry> {
        let stored = self.entries.next()?;
        self.content = match stored.header.kind {
            EntryKind::File => (stored.at, stored.header.size),
            _ => (0, 0),
        };
        Some(Entry::new(stored.path, stored.header))
    }

    /// Returns where the content of the current entry is: file, place, bytes.
    pub fn stored(&self) -> (&File, u64, u64) {
        (&self.file, self.content.0, self.content.1)
    }

    /// Returns the content of the current entry if it is small; that of small entries which follow
    /// is read with it, as most packages have many such files.
    ///
    /// # Errors
    /// What the system said.
    pub fn small(&mut self) -> io::Result<Option<&[u8]>> {
        let (at, count) = self.content;
        if count > SMALL {
            return Ok(None);
        }
        let end = at + count;
        let (begin, bytes) = &mut self.ahead;
        if at < *begin || end > *begin + bytes.len() as u64 {
            let mut until = end;
            for next in self.entries.as_slice() {
                if next.header.kind != EntryKind::File {
                    continue;
                }
                let next_end = next.at.saturating_add(next.header.size);
                let follows = next.at >= until && next.at - until < BLOCK;
                if !follows || next.header.size > SMALL || next_end - at > BUFFER as u64 {
                    break;
                }
                until = next_end;
            }
            *begin = at;
            bytes.resize((until - at) as usize, 0);
            if let Err(error) = self.file.read_exact_at(bytes, at) {
                bytes.clear();
                return Err(error);
            }
        }
        let from = (at - *begin) as usize;
        Ok(Some(&bytes[from..from + count as usize]))
    }

    /// Reads everything and compares it with its checksums.
    ///
    /// # Errors
    /// [`UnpackError`].
    pub fn verify(mut self) -> Result<(), UnpackError> {
        let mut buffer = vec![0; BUFFER];
        while let Some(entry) = self.next_entry() {
            let file = entry.header.kind == EntryKind::File;
            let wanted = entry.header.checksum;
            if !file || !wanted.is_some() {
                continue;
            }
            let mut hash = wanted.hash();
            loop {
                let count = self.read(&mut buffer).map_err(FormatError::from)?;
                if count == 0 {
                    break;
                }
                hash.update(&buffer[..count]);
            }
            if hash.finish() != wanted {
                return Err(UnpackError::Checksum { path: entry.path });
            }
        }
        Ok(())
    }
}

impl Read for Reader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let (at, left) = self.content;
        let most = usize::try_from(left)
            .unwrap_or(usize::MAX)
            .min(buffer.len());
        if most == 0 {
            return Ok(0);
        }
        let count = self.file.read_at(&mut buffer[..most], at)?;
        if count == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.content = (at + count as u64, left - count as u64);
        Ok(count)
    }
}

/// Unpacks a package that must have this identity; the package is read and verified to its end.
///
/// # Errors
/// [`UnpackError`]; the file is of no use then.
pub fn unpack<R: io::BufRead>(
    source: R,
    identity: crate::package::Identity,
    limits: &Limits,
    file: File,
) -> Result<(), UnpackError> {
    let kept = std::rc::Rc::new(std::cell::RefCell::new(Some(Vec::new())));
    let source = Keeping {
        inner: source,
        kept: kept.clone(),
    };
    let (control, mut data) = PackageReader::open(source, limits)?;
    let before = kept.borrow_mut().take().unwrap_or_default();
    if control.identity != identity {
        return Err(control.form.other_identity().into());
    }
    let mut writer = Writer::new(file);
    while let Some(entry) = data.next_entry()? {
        writer.add(entry, &mut data)?;
    }
    data.finish()?;
    match &control.form {
        Form::V2 { .. } => writer.finish(&before),
        // Where its data begins is not to be told from the stored bytes.
        Form::V3 { head, .. } => writer.finish(head.as_bytes()),
    }
}

/// Keeps what is consumed until somebody takes it.
struct Keeping<R> {
    inner: R,
    kept: std::rc::Rc<std::cell::RefCell<Option<Vec<u8>>>>,
}

impl<R: io::BufRead> Read for Keeping<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = {
            let available = io::BufRead::fill_buf(self)?;
            let count = available.len().min(buffer.len());
            buffer[..count].copy_from_slice(&available[..count]);
            count
        };
        io::BufRead::consume(self, count);
        Ok(count)
    }
}

impl<R: io::BufRead> io::BufRead for Keeping<R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        self.inner.fill_buf()
    }

    fn consume(&mut self, count: usize) {
        if let Some(kept) = self.kept.borrow_mut().as_mut() {
            // The buffer was filled before; asking again returns the same bytes without reading.
            if let Ok(bytes) = self.inner.fill_buf() {
                kept.extend_from_slice(&bytes[..count.min(bytes.len())]);
            }
        }
        self.inner.consume(count);
    }
}
