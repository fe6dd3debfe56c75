//! The tar rules of apk (formats.md, 2.6): what is read, skipped and refused.
//!
//! A general tar library honours more (base-256 numbers, GNU long links, PAX sizes) and would see
//! other files than apk does in the same bytes, so the walk over the headers is ours; the field
//! layout is that of the `tar` crate.

use super::{FormatError, Limits, not_utf8};
use crate::package::{Digest, DigestAlgorithm};
use serde::{Deserialize, Serialize};
use sha1::Sha1;
use sha2::{Digest as _, Sha256};
use std::io::{self, Read};

const BLOCK: usize = 512;

/// Zero blocks that may stand at the end of an archive; tools pad to 10 KiB, some to 1 MiB.
const ZERO_BLOCKS: u32 = 64 << 11;

/// What an entry is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Kind {
    /// A regular file.
    File,
    /// Another name for an earlier file.
    HardLink(String),
    /// A symbolic link.
    Symlink(String),
    /// A character device: major, minor.
    CharDevice(u32, u32),
    /// A block device: major, minor.
    BlockDevice(u32, u32),
    /// A directory.
    Directory,
    /// A FIFO.
    Fifo,
}

/// What the content of a file, or the target of a link, must hash to.
// The order of the variants is part of the layout of unpacked packages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Checksum {
    /// Nothing is said.
    #[default]
    None,
    /// SHA-1.
    Sha1([u8; 20]),
    /// SHA-256.
    Sha256([u8; 32]),
}

impl Checksum {
    /// Returns whether something is said.
    pub fn is_some(self) -> bool {
        self != Self::None
    }

    /// Begins to hash what this is the checksum of.
    pub fn hash(self) -> ContentHash {
        match self {
            Self::None => ContentHash::None,
            Self::Sha1(_) => ContentHash::Sha1(Sha1::new()),
            Self::Sha256(_) => ContentHash::Sha256(Sha256::new()),
        }
    }

    /// Returns whether this is the checksum of a text; true if nothing is said.
    pub fn fits(self, text: &[u8]) -> bool {
        let mut hash = self.hash();
        hash.update(text);
        hash.finish() == self
    }

    /// Returns what a database records: SHA-1, or of the others the first 20 bytes.
    pub fn recorded(self) -> Option<Digest> {
        match self {
            Self::None => None,
            Self::Sha1(bytes) => Some(Digest::sha1(bytes)),
            Self::Sha256(bytes) => {
                Some(Digest::new(DigestAlgorithm::Sha256Truncated, &bytes[..20]))
            }
        }
    }

    /// Returns it as it is.
    pub fn whole(self) -> Option<Digest> {
        match self {
            Self::Sha256(bytes) => Some(Digest::new(DigestAlgorithm::Sha256, bytes)),
            other => other.recorded(),
        }
    }
}

/// The hash that a [`Checksum`] is compared with.
#[derive(Clone, Debug)]
pub enum ContentHash {
    /// Nothing is compared.
    None,
    /// SHA-1.
    Sha1(Sha1),
    /// SHA-256.
    Sha256(Sha256),
}

impl ContentHash {
    /// Takes more bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        match self {
            Self::None => {}
            Self::Sha1(hash) => hash.update(bytes),
            Self::Sha256(hash) => hash.update(bytes),
        }
    }

    /// Returns the checksum of the bytes.
    pub fn finish(self) -> Checksum {
        match self {
            Self::None => Checksum::None,
            Self::Sha1(hash) => Checksum::Sha1(hash.finalize().into()),
            Self::Sha256(hash) => Checksum::Sha256(hash.finalize().into()),
        }
    }
}

/// One entry, PAX records applied.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    /// Name as in the archive.
    pub path: String,
    /// What it is.
    pub kind: Kind,
    /// Permission, set-id and sticky bits.
    pub mode: u32,
    /// Numeric owner.
    pub uid: u32,
    /// Numeric group.
    pub gid: u32,
    /// Owner's name, may be empty.
    pub uname: String,
    /// Group's name, may be empty.
    pub gname: String,
    /// Seconds since 1970.
    pub mtime: u64,
    /// Bytes of content that follow.
    pub size: u64,
    /// Of content or link target: `APK-TOOLS.checksum.SHA1`, or what a v3 package has.
    pub checksum: Checksum,
    /// `SCHILY.xattr.*` without the prefix.
    pub xattrs: Vec<(String, Vec<u8>)>,
}

/// What a PAX or GNU record says about the next entry.
#[derive(Default)]
struct Extended {
    path: Option<String>,
    link: Option<String>,
    checksum: Checksum,
    xattrs: Vec<(String, Vec<u8>)>,
    /// Bytes of all records before the entry.
    size: u64,
}

/// Walks over an archive.
pub struct Reader<R> {
    inner: R,
    limits: Limits,
    /// Content bytes of the current entry that were not read yet.
    remaining: u64,
    /// Zero bytes after the content.
    padding: u64,
    zero_blocks: u32,
    entries: u64,
    /// Bytes of names and link targets so far.
    names: u64,
}

impl<R: Read> Reader<R> {
    /// Begins at the start of an archive.
    pub fn new(inner: R, limits: Limits) -> Self {
        Self {
            inner,
            limits,
            remaining: 0,
            padding: 0,
            zero_blocks: 0,
            entries: 0,
            names: 0,
        }
    }

    /// Returns the source; what follows the current entry is unread.
    pub fn into_inner(self) -> R {
        self.inner
    }

    /// Moves to the next entry; `None` at the end of the archive or of the source.
    ///
    /// # Errors
    /// [`FormatError`].
    pub fn next_entry(&mut self) -> Result<Option<Header>, FormatError> {
        let mut extended = Extended::default();
        loop {
            self.skip(self.remaining + self.padding)?;
            (self.remaining, self.padding) = (0, 0);
            let Some(block) = self.block()? else {
                return Ok(None);
            };
            if block[0] == 0 {
                self.zero_blocks += 1;
                if self.zero_blocks > ZERO_BLOCKS {
                    return Err(too_large("padding", u64::from(ZERO_BLOCKS) * 512));
                }
                continue;
            }
            if self.zero_blocks >= 2 {
                return Err(FormatError::Invalid);
            }
            self.entries += 1;
            if self.entries > self.limits.entries {
                return Err(too_large("number of entries", self.limits.entries));
            }
            if let Some(header) = self.header(&block, &mut extended)? {
                return Ok(Some(header));
            }
        }
    }

    /// Reads the content of the current entry into memory.
    ///
    /// # Errors
    /// [`FormatError::TooLarge`] beyond `limit` bytes.
    pub fn read_content(&mut self, limit: u64, what: &'static str) -> Result<Vec<u8>, FormatError> {
        if self.remaining > limit {
            return Err(too_large(what, limit));
        }
        let mut content = Vec::new();
        let wanted = self.remaining;
        self.by_ref().take(wanted).read_to_end(&mut content)?;
        if self.remaining > 0 {
            Err(FormatError::UnexpectedEnd)
        } else {
            Ok(content)
        }
    }

    fn block(&mut self) -> Result<Option<[u8; BLOCK]>, FormatError> {
        let mut block = [0; BLOCK];
        let mut filled = 0;
        while filled < BLOCK {
            match self.inner.read(&mut block[filled..]) {
                Ok(0) if filled == 0 => return Ok(None),
                Ok(0) => return Err(FormatError::UnexpectedEnd),
                Ok(n) => filled += n,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(Some(block))
    }

    fn skip(&mut self, count: u64) -> Result<(), FormatError> {
        let skipped = io::copy(&mut (&mut self.inner).take(count), &mut io::sink())?;
        if skipped < count {
            Err(FormatError::UnexpectedEnd)
        } else {
            Ok(())
        }
    }

    /// Reads a record about the next entry; all that come before one entry share the limit.
    fn extended(
        &mut self,
        extended: &mut Extended,
        what: &'static str,
    ) -> Result<Vec<u8>, FormatError> {
        let room = self.limits.header.saturating_sub(extended.size);
        extended.size += self.remaining;
        if self.remaining > room {
            return Err(too_large(what, self.limits.header));
        }
        self.read_content(room, what)
    }

    fn header(
        &mut self,
        block: &[u8; BLOCK],
        extended: &mut Extended,
    ) -> Result<Option<Header>, FormatError> {
        if !block[257..].starts_with(b"ustar") {
            return Err(FormatError::Invalid);
        }
        let size = octal(&block[124..136])?;
        self.remaining = size;
        self.padding = size.wrapping_neg() % BLOCK as u64;
        let link = || exact(&block[157..257]);
        let kind = match block[156] {
            b'0' | b'7' => Kind::File,
            b'1' => Kind::HardLink(extended.link.take().map_or_else(link, Ok)?),
            b'2' => Kind::Symlink(extended.link.take().map_or_else(link, Ok)?),
            b'3' => Kind::CharDevice(device(&block[329..337])?, device(&block[337..345])?),
            b'4' => Kind::BlockDevice(device(&block[329..337])?, device(&block[337..345])?),
            b'5' => Kind::Directory,
            b'6' => Kind::Fifo,
            b'x' => {
                let records = self.extended(extended, "extended header")?;
                pax(&records, extended)?;
                return Ok(None);
            }
            b'L' => {
                let name = self.extended(extended, "long name")?;
                extended.path = Some(exact(&name)?);
                return Ok(None);
            }
            _ => {
                *extended = Extended::default();
                return Ok(None);
            }
        };
        // Links, directories and devices have no content whatever their size field says of it;
        // the bytes are still there to be skipped.
        let extended = std::mem::take(extended);
        let path = extended.path.map_or_else(|| name(block), Ok)?;
        let target = match &kind {
            Kind::HardLink(target) | Kind::Symlink(target) => target.len(),
            _ => 0,
        };
        if path.len().max(target) as u64 > self.limits.path {
            return Err(too_large("path", self.limits.path));
        }
        self.names += (path.len() + target) as u64;
        if self.names > self.limits.names {
            return Err(too_large("names", self.limits.names));
        }
        Ok(Some(Header {
            path,
            kind,
            mode: octal(&block[100..108])? as u32 & 0o7777,
            uid: octal(&block[108..116])? as u32,
            gid: octal(&block[116..124])? as u32,
            uname: text(&block[265..297]),
            gname: text(&block[297..329]),
            mtime: octal(&block[136..148])?,
            size,
            checksum: extended.checksum,
            xattrs: extended.xattrs,
        }))
    }
}

impl<R: Read> Read for Reader<R> {
    /// Reads content of the current entry; an early end of the source is an error.
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = usize::try_from(self.remaining)
            .unwrap_or(usize::MAX)
            .min(buffer.len());
        if most == 0 {
            return Ok(0);
        }
        let count = self.inner.read(&mut buffer[..most])?;
        if count == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.remaining -= count as u64;
        Ok(count)
    }
}

fn too_large(what: &'static str, limit: u64) -> FormatError {
    FormatError::TooLarge { what, limit }
}

/// Reads a text that is of no consequence.
fn text(field: &[u8]) -> String {
    let end = memchr::memchr(0, field).unwrap_or(field.len());
    String::from_utf8_lossy(&field[..end]).into_owned()
}

/// Reads a name, which must not become another one.
fn exact(field: &[u8]) -> Result<String, FormatError> {
    let end = memchr::memchr(0, field).unwrap_or(field.len());
    let name = std::str::from_utf8(&field[..end]).map_err(|_| not_utf8(&field[..end]))?;
    Ok(name.to_owned())
}

fn name(block: &[u8; BLOCK]) -> Result<String, FormatError> {
    let (name, prefix) = (exact(&block[..100])?, exact(&block[345..500])?);
    Ok(if prefix.is_empty() {
        name
    } else {
        format!("{prefix}/{name}")
    })
}

/// Reads octal digits, then only NUL or space.
fn octal(field: &[u8]) -> Result<u64, FormatError> {
    let digits = field
        .iter()
        .take_while(|b| matches!(b, b'0'..=b'7'))
        .count();
    if field[digits..].iter().any(|b| !matches!(b, 0 | b' ')) {
        return Err(FormatError::Invalid);
    }
    Ok(field[..digits]
        .iter()
        .fold(0u64, |n, d| (n << 3) | u64::from(d - b'0')))
}

fn device(field: &[u8]) -> Result<u32, FormatError> {
    Ok(octal(field)? as u32)
}

/// Applies the records `LEN SP KEY = VALUE LF` that apk honours.
fn pax(mut records: &[u8], extended: &mut Extended) -> Result<(), FormatError> {
    while !records.is_empty() {
        let space = memchr::memchr(b' ', records).ok_or(FormatError::Invalid)?;
        let length = std::str::from_utf8(&records[..space])
            .ok()
            .and_then(|t| t.parse().ok());
        let length: usize = length.ok_or(FormatError::Invalid)?;
        if length <= space + 1 || length > records.len() || records[length - 1] != b'\n' {
            return Err(FormatError::Invalid);
        }
        let (record, rest) = records.split_at(length);
        records = rest;
        let body = &record[space + 1..length - 1];
        let equals = memchr::memchr(b'=', body).ok_or(FormatError::Invalid)?;
        let (key, value) = (&body[..equals], &body[equals + 1..]);
        match key {
            b"path" => extended.path = Some(exact(value)?),
            b"linkpath" => extended.link = Some(exact(value)?),
            b"APK-TOOLS.checksum.SHA1" => {
                let digest = data_encoding::HEXLOWER_PERMISSIVE.decode(value).ok();
                let sha1 = digest.and_then(|bytes| bytes.try_into().ok());
                extended.checksum = sha1.map_or(Checksum::None, Checksum::Sha1);
            }
            _ => {
                if let Some(name) = key.strip_prefix(b"SCHILY.xattr.") {
                    extended.xattrs.push((exact(name)?, value.to_vec()));
                }
            }
        }
    }
    Ok(())
}

/// Appends an entry the way apk writes indexes and script archives: magic `ustar␠␠\0`, owner
/// root, 12-digit size and time without terminator, a GNU `L` entry for long names.
pub(super) fn write_gnu_entry(
    out: &mut Vec<u8>,
    name: &str,
    content: &[u8],
    mode: u32,
    mtime: u64,
) {
    if name.len() > 99 {
        let mut long = name.as_bytes().to_vec();
        long.push(0);
        out.extend_from_slice(&gnu_header(
            "././@LongLink",
            long.len() as u64,
            0o644,
            0,
            b'L',
        ));
        push_padded(out, &long);
    }
    out.extend_from_slice(&gnu_header(name, content.len() as u64, mode, mtime, b'0'));
    push_padded(out, content);
}

fn gnu_header(name: &str, size: u64, mode: u32, mtime: u64, flag: u8) -> [u8; BLOCK] {
    let mut header = [0u8; BLOCK];
    let cut = name.len().min(99);
    header[..cut].copy_from_slice(&name.as_bytes()[..cut]);
    let mut put = |at: usize, text: String| {
        header[at..at + text.len()].copy_from_slice(text.as_bytes());
    };
    put(100, format!("{mode:07o}"));
    put(108, format!("{:07o}", 0));
    put(116, format!("{:07o}", 0));
    put(124, format!("{size:012o}"));
    put(136, format!("{mtime:012o}"));
    put(257, "ustar  ".into());
    put(265, "root".into());
    put(297, "root".into());
    header[156] = flag;
    header[148..156].fill(b' ');
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    header[148..154].copy_from_slice(format!("{sum:06o}").as_bytes());
    header[154] = 0;
    header
}

fn push_padded(out: &mut Vec<u8>, content: &[u8]) {
    out.extend_from_slice(content);
    out.resize(out.len().next_multiple_of(BLOCK), 0);
}
