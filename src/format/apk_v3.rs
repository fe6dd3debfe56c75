//! v3 packages: an ADB with paths and metadata, then a data block for each file (formats.md,
//! chapter 6).
//!
//! The identity is the SHA-256 of the ADB payload, which has the hash of every file in it. The order
//! of the data blocks and their sizes follow from the paths; whatever differs is an error, and the
//! content of each file is compared with its hash while it is read, also when nobody wants it.

use super::adb::AdbError;
use super::adb::block::{Block, BlockKind, Container};
use super::adb::reader::{self, Head};
use super::adb::schema::{self, Acl};
use super::adb::value::{Payload, Slots};
use super::apk::{ControlPart, Entry, EntryKind, Form};
use super::tar::{Checksum, ContentHash, Header};
use super::{FormatError, Limits, pkginfo, record};
use crate::package::{Identity, Package};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::io::{self, BufRead, Read};
use std::ops::Range;

/// Who owns what names nobody that the root knows.
const NOBODY: u32 = 65534;
/// Bytes of a link target; apk's bound.
const TARGET: usize = 4095;

/// Reads metadata and signatures; the data blocks are left to the returned reader.
///
/// # Errors
/// [`FormatError`].
pub(super) fn open<R: BufRead>(
    source: R,
    limits: &Limits,
) -> Result<(ControlPart, DataReader<R>), FormatError> {
    let mut container = Container::open(source)?;
    if container.schema() != schema::PACKAGE {
        return Err(FormatError::NotSupported);
    }
    let (head, claims, next) = reader::head(&mut container, limits)?;
    let payload = Payload::new(head.payload(), limits.control.saturating_mul(4))?;
    let root = payload.root()?;
    let identity = Identity(*claims.sha256.first_chunk().expect("it has 32 bytes"));
    let package = Package {
        identity,
        ..package(root)?
    };
    let mut scripts = BTreeMap::new();
    schema::scripts(root.slots(3)?, |kind, text| {
        if text.len() as u64 > limits.script {
            let (what, limit) = ("script", limits.script);
            return Err(FormatError::TooLarge { what, limit });
        }
        scripts.insert(kind, text.to_vec());
        Ok(())
    })?;
    let room = limits.unpacked_of(package.installed_size);
    let (paths, left) = (root.slots(2)?.place(), payload.left());
    let data = DataReader {
        container,
        next,
        head: head.clone(),
        left,
        paths,
        directory: 0,
        name: String::new(),
        files: 0..0,
        file: 0,
        content: None,
        room,
        most: room,
        entries: 0,
        names: 0,
        limits: *limits,
    };
    let control = ControlPart {
        signatures: claims.signatures,
        digests: claims.digests,
        identity,
        package,
        form: Form::V3 {
            sha256: claims.sha256,
            head,
        },
        scripts,
    };
    Ok((control, data))
}

/// Reads the metadata; what the database or a file name could not hold is refused.
fn package(root: Slots<'_>) -> Result<Package, FormatError> {
    let mut package = schema::package_info(root.slots(1)?)?.package;
    package.replaces_priority = root.number(5)? as u16;
    package.triggers = schema::triggers(root.slots(4)?)?;
    let refused = |reason: String| Err(FormatError::from(AdbError::Schema { reason }));
    let (name, version) = (&package.name, &package.version);
    if pkginfo::check_name(name).is_err() || version.is_empty() {
        return refused(format!("{name:?} is no package name, or lacks a version"));
    }
    let words = [Some(&package.version), package.arch.as_ref()];
    let plain = |text: &String| record::fits_a_line(text) && !text.contains('/');
    let lines = [&package.origin, &package.commit];
    if let Some(text) = (words.into_iter().flatten().find(|text| !plain(text))).or_else(|| {
        lines
            .into_iter()
            .flatten()
            .find(|t| !record::fits_a_line(t))
    }) {
        return refused(format!("control characters in {text:?}"));
    }
    // The size of a file is not for the file to say.
    package.size = 0;
    Ok(package)
}

/// Walks over the paths; `Read` gives the content of the current file.
pub(super) struct DataReader<R: BufRead> {
    container: Container<R>,
    /// A data block that was met and not asked for yet.
    next: Option<Block>,
    head: Head,
    /// What may still be followed in the metadata.
    left: u64,
    /// Where the directories are; the number of the current one, and its name.
    paths: Range<usize>,
    directory: usize,
    name: String,
    /// Where the files of the current directory are, and the number of the current one.
    files: Range<usize>,
    file: usize,
    content: Option<Content>,
    /// Bytes of content that may still come, and all that might have come.
    room: u64,
    most: u64,
    entries: u64,
    names: u64,
    limits: Limits,
}

/// The file whose content is being read.
struct Content {
    path: String,
    left: u64,
    hash: ContentHash,
    wanted: Checksum,
}

impl<R: BufRead> DataReader<R> {
    /// Moves to the next entry. The root directory is none: it is not a package's to make.
    ///
    /// # Errors
    /// [`FormatError`].
    pub(super) fn next_entry(&mut self) -> Result<Option<Entry>, FormatError> {
        // What nobody read is still compared with its hash.
        io::copy(self, &mut io::sink())?;
        self.content = None;
        let head = self.head.clone();
        let payload = Payload::resume(head.payload(), self.left);
        let paths = payload.slots_at(self.paths.clone());
        let entry = loop {
            let files = payload.slots_at(self.files.clone());
            if self.file < files.len() {
                self.file += 1;
                break Some(self.entry_of_file(files.slots(self.file)?)?);
            }
            if self.directory >= paths.len() {
                break None;
            }
            self.directory += 1;
            let directory = self.entry_of_directory(paths.slots(self.directory)?)?;
            self.count(&directory)?;
            if !directory.path.is_empty() {
                break Some(directory);
            }
        };
        self.left = payload.left();
        if let Some(entry) = entry
            .as_ref()
            .filter(|e| e.header.kind != EntryKind::Directory)
        {
            self.count(entry)?;
        }
        Ok(entry)
    }

    /// Counts an entry against the bounds.
    fn count(&mut self, entry: &Entry) -> Result<(), FormatError> {
        let target = match &entry.header.kind {
            EntryKind::HardLink(target) | EntryKind::Symlink(target) => target.len(),
            _ => 0,
        };
        self.entries += 1;
        self.names += (entry.path.len() + target) as u64;
        let limits = &self.limits;
        for (found, limit, what) in [
            (self.entries, limits.entries, "number of entries"),
            (entry.path.len().max(target) as u64, limits.path, "path"),
            (self.names, limits.names, "names"),
        ] {
            if found > limit {
                return Err(FormatError::TooLarge { what, limit });
            }
        }
        let (what, limit) = ("unpacked content", self.most);
        let room = self.room.checked_sub(entry.header.size);
        self.room = room.ok_or(FormatError::TooLarge { what, limit })?;
        Ok(())
    }

    fn entry_of_directory(&mut self, directory: Slots<'_>) -> Result<Entry, FormatError> {
        self.name = schema::exact(directory.blob(1)?)?;
        self.files = directory.slots(3)?.place();
        self.file = 0;
        let acl = schema::acl(directory.slots(2)?)?;
        let path = self.name.clone();
        let header = header(&path, EntryKind::Directory, acl);
        Ok(Entry::new(path, header))
    }

    fn entry_of_file(&mut self, file: Slots<'_>) -> Result<Entry, FormatError> {
        let name = schema::exact(file.blob(1)?)?;
        let path = match self.name.as_str() {
            "" => name.clone(),
            directory => format!("{directory}/{name}"),
        };
        if name.contains('/') {
            // It would be a file of another directory.
            return Err(AdbError::schema(format!("{path}: a slash in a name")).into());
        }
        let hash = checksum(file.blob(5)?, &path)?;
        let kind = kind(file.blob(6)?, &path)?;
        let mut header = header(&path, kind, schema::acl(file.slots(2)?)?);
        header.mtime = file.number(4)?;
        match &header.kind {
            EntryKind::File => {
                if !hash.is_some() {
                    return Err(AdbError::schema(format!("{path} has no hash")).into());
                }
                header.size = file.number(3)?;
                header.checksum = hash;
                self.begin(&path, header.size, hash)?;
            }
            EntryKind::HardLink(_) => header.checksum = hash,
            EntryKind::Symlink(target) => {
                header.checksum = Checksum::Sha256(Sha256::digest(target).into());
            }
            _ => {}
        }
        Ok(Entry::new(path, header))
    }

    /// Finds the data block of a file, which must be the next one.
    fn begin(&mut self, path: &str, size: u64, wanted: Checksum) -> Result<(), FormatError> {
        let mut content = Content {
            path: path.to_owned(),
            left: size,
            hash: wanted.hash(),
            wanted,
        };
        if size == 0 {
            content.check()?;
            self.content = Some(content);
            return Ok(());
        }
        let block = match self.next.take() {
            Some(block) => Some(block),
            None => self.container.next_block()?,
        };
        let wanted = size.checked_add(8);
        let right = block.is_some_and(|b| b.kind == BlockKind::Data && Some(b.size) == wanted);
        if !right {
            return Err(AdbError::Block.into());
        }
        let mut numbers = [0; 8];
        self.container.read_exact(&mut numbers)?;
        let number = |at: usize| {
            let bytes = numbers[at..at + 4].try_into().expect("four bytes");
            u32::from_le_bytes(bytes) as usize
        };
        if (number(0), number(4)) != (self.directory, self.file) {
            return Err(AdbError::Block.into());
        }
        self.content = Some(content);
        Ok(())
    }

    /// Reads to the end and checks that nothing follows; returns the size of the file in bytes.
    ///
    /// # Errors
    /// [`FormatError`].
    pub(super) fn finish(mut self) -> Result<u64, FormatError> {
        while self.next_entry()?.is_some() {}
        match self.next {
            Some(_) => Err(AdbError::Block.into()),
            None => self.container.finish(),
        }
    }
}

impl<R: BufRead> Read for DataReader<R> {
    /// Reads content of the current file. With its last byte it is compared with its hash; what does
    /// not fit is an error that holds a [`FormatError`].
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let Some(content) = &mut self.content else {
            return Ok(0);
        };
        let left = usize::try_from(content.left).unwrap_or(usize::MAX);
        let most = left.min(buffer.len());
        if most == 0 {
            return Ok(0);
        }
        let count = self.container.read(&mut buffer[..most])?;
        content.hash.update(&buffer[..count]);
        content.left -= count as u64;
        content.check().map_err(io::Error::other)?;
        Ok(count)
    }
}

impl Content {
    /// Compares the content with its hash if all of it was read.
    fn check(&mut self) -> Result<(), FormatError> {
        if self.left > 0 {
            return Ok(());
        }
        let hash = std::mem::replace(&mut self.hash, self.wanted.hash());
        match hash.finish() == self.wanted {
            true => Ok(()),
            false => Err(AdbError::Content {
                path: self.path.clone(),
            }
            .into()),
        }
    }
}

fn header(path: &str, kind: EntryKind, acl: Acl) -> Header {
    let id = |name: &str| if name == "root" { 0 } else { NOBODY };
    Header {
        path: path.to_owned(),
        kind,
        mode: acl.mode,
        uid: id(&acl.user),
        gid: id(&acl.group),
        uname: acl.user,
        gname: acl.group,
        mtime: 0,
        size: 0,
        checksum: Checksum::None,
        xattrs: acl.xattrs,
    }
}

/// Reads the hash of a file. apk takes SHA-1 and SHA-512, too, and records what `audit` then takes
/// for the beginning of a SHA-256.
fn checksum(hash: &[u8], path: &str) -> Result<Checksum, FormatError> {
    if hash.is_empty() {
        return Ok(Checksum::None);
    }
    let wrong = |_| AdbError::schema(format!("the hash of {path} is no SHA-256"));
    Ok(Checksum::Sha256(hash.try_into().map_err(wrong)?))
}

/// Reads what an entry is (formats.md, 6.2).
fn kind(target: &[u8], path: &str) -> Result<EntryKind, FormatError> {
    let wrong = || FormatError::from(AdbError::schema(format!("{path} is of no known type")));
    if target.is_empty() {
        return Ok(EntryKind::File);
    }
    let (kind, rest) = target.split_first_chunk().ok_or_else(wrong)?;
    let text = || match rest.len() < TARGET && !rest.is_empty() && !rest.contains(&0) {
        true => schema::exact(rest),
        false => Err(AdbError::schema(format!("the target of {path} cannot be one")).into()),
    };
    let device = || {
        let number = u64::from_le_bytes(rest.try_into().map_err(|_| wrong())?);
        let major = (number >> 8 & 0xfff) | (number >> 32 & 0xffff_f000);
        let minor = (number & 0xff) | (number >> 12 & 0xffff_ff00);
        Ok::<_, FormatError>((major as u32, minor as u32))
    };
    Ok(match u16::from_le_bytes(*kind) {
        0xa000 => EntryKind::Symlink(text()?),
        0x8000 => EntryKind::HardLink(text()?),
        0x6000 => {
            let (major, minor) = device()?;
            EntryKind::BlockDevice(major, minor)
        }
        0x2000 => {
            let (major, minor) = device()?;
            EntryKind::CharDevice(major, minor)
        }
        0x1000 => device().map(|_| EntryKind::Fifo)?,
        _ => return Err(wrong()),
    })
}
