//! A package file, whichever form it has: what comes before the data, then the entries, in one pass.
//!
//! The first bytes tell the forms apart. Readers above see one kind of entry and of checksum; what
//! is special to a form stays in `apk_v2` and `apk_v3`. Nothing is written to disk
//! here, and no signature is judged: the caller gets digests and decides.

use super::adb::AdbError;
use super::adb::reader::Head;
use super::tar::Header;
use super::{FormatError, Limits, apk_v2, apk_v3};
use crate::package::{Identity, Package, ScriptKind};
use crate::trust::{Signature, SignedDigests};
use std::collections::BTreeMap;
use std::io::{self, BufRead, Read};

pub use super::apk_v2::PackageParts;
pub use super::tar::{Checksum, ContentHash, Kind as EntryKind};

/// Bytes up to which a package file is worth holding in memory as a whole.
pub const WHOLE: u64 = 4 << 20;

/// What comes before the data.
#[derive(Clone, Debug)]
pub struct ControlPart {
    /// The signatures, in order.
    pub signatures: Vec<Signature>,
    /// Digests of what is signed.
    pub digests: SignedDigests,
    /// SHA-1 of the control member, or the beginning of the SHA-256 of the ADB payload.
    pub identity: Identity,
    /// What the package says of itself, with the identity; the file size is not known.
    pub package: Package,
    /// What is special to the form.
    pub form: Form,
    /// The scripts.
    pub scripts: BTreeMap<ScriptKind, Vec<u8>>,
}

/// What a package file has in its form only.
#[derive(Clone, Debug)]
pub enum Form {
    /// Three gzip members.
    V2 {
        /// SHA-256 that the data member must have.
        data_hash: [u8; 32],
    },
    /// An ADB.
    V3 {
        /// SHA-256 of the ADB payload; the identity is its beginning.
        sha256: [u8; 32],
        /// The file up to its data.
        head: Head,
    },
}

impl Form {
    /// Returns whether it is an ADB.
    pub fn is_v3(&self) -> bool {
        matches!(self, Self::V3 { .. })
    }

    /// Makes the error for a package that is another one than it should be.
    pub fn other_identity(&self) -> FormatError {
        match self {
            Self::V2 { .. } => FormatError::Integrity,
            Self::V3 { .. } => AdbError::Integrity.into(),
        }
    }
}

/// An entry of the data part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Path relative to the root, without slashes at either end.
    pub path: String,
    /// The header, with the name as in the archive.
    pub header: Header,
    /// Why the name must not be used, if so.
    pub malicious: Option<&'static str>,
}

impl Entry {
    /// Makes an entry and judges its name.
    pub(super) fn new(path: String, header: Header) -> Self {
        let malicious = malicious(&path);
        Self {
            path,
            header,
            malicious,
        }
    }
}

/// Opens packages.
pub struct PackageReader;

impl PackageReader {
    /// Reads signatures and metadata; the data part is left to the returned reader.
    ///
    /// # Errors
    /// [`FormatError`].
    pub fn open<R: BufRead>(
        mut source: R,
        limits: &Limits,
    ) -> Result<(ControlPart, DataReader<R>), FormatError> {
        if is_v3(source.fill_buf()?)? {
            let (control, data) = apk_v3::open(source, limits)?;
            return Ok((control, DataReader(Data::V3(Box::new(data)))));
        }
        let (control, data) = apk_v2::open(source, limits)?;
        Ok((control, DataReader(Data::V2(Box::new(data)))))
    }

    /// As [`open`](Self::open), of a file that is in memory as a whole: data of a moderate size is
    /// checked against its hash and inflated at once, which takes less than half the time.
    ///
    /// # Errors
    /// [`FormatError`].
    pub fn open_whole<'a>(
        file: &'a [u8],
        limits: &Limits,
    ) -> Result<(ControlPart, DataReader<&'a [u8]>), FormatError> {
        if is_v3(file)? {
            return Self::open(file, limits);
        }
        let (control, data) = apk_v2::open_whole(file, limits)?;
        Ok((control, DataReader(Data::V2(Box::new(data)))))
    }
}

fn is_v3(start: &[u8]) -> Result<bool, FormatError> {
    match start.is_empty() {
        true => Err(FormatError::UnexpectedEnd),
        false => Ok(start.starts_with(b"ADB")),
    }
}

/// Walks over the data part; `Read` gives the content of the current entry.
pub struct DataReader<R: BufRead>(Data<R>);

enum Data<R: BufRead> {
    V2(Box<apk_v2::DataReader<R>>),
    V3(Box<apk_v3::DataReader<R>>),
}

impl<R: BufRead> DataReader<R> {
    /// Moves to the next entry. In v2 packages names that begin with a dot are skipped, as apk
    /// does.
    ///
    /// # Errors
    /// [`FormatError`].
    pub fn next_entry(&mut self) -> Result<Option<Entry>, FormatError> {
        match &mut self.0 {
            Data::V2(data) => data.next_entry(),
            Data::V3(data) => data.next_entry(),
        }
    }

    /// Reads to the end and checks that all is what the package promises, and that nothing follows.
    ///
    /// Returns the size of the package file in bytes.
    ///
    /// # Errors
    /// [`FormatError`].
    pub fn finish(self) -> Result<u64, FormatError> {
        match self.0 {
            Data::V2(data) => data.finish(),
            Data::V3(data) => data.finish(),
        }
    }
}

impl<R: BufRead> Read for DataReader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match &mut self.0 {
            Data::V2(data) => data.read(buffer),
            Data::V3(data) => data.read(buffer),
        }
    }
}

/// Returns why a path must not be used (formats.md, 2.8; commit.md, W21 and W31).
pub fn malicious(path: &str) -> Option<&'static str> {
    if path.starts_with('/') {
        return Some("absolute path");
    }
    if path.bytes().any(|byte| byte < 0x20 || byte == 0x7f) {
        return Some("control character");
    }
    for component in path.split('/') {
        match component {
            "" => return Some("empty component"),
            "." | ".." => return Some("relative component"),
            long if long.len() > 255 => return Some("component too long"),
            _ => {}
        }
    }
    None
}
