//! Package files given by path: opened, trusted or refused, read to the end.
//!
//! Nothing is unpacked here; whoever wants contents gets them entry by entry, and must not use
//! them before [`read`] has returned without error.

use crate::config::Settings;
use crate::format::FormatError;
use crate::format::apk::{ContentHash, ControlPart, DataReader, Entry, EntryKind, PackageReader};
use crate::package::Package;
use crate::trust::{Keyring, Signature, SignedDigests, TrustError};
use std::fs::File;
use std::io::{BufReader, Read};
use std::path::Path;

/// Bytes read at once from a package file.
const READ_BUFFER: usize = 128 << 10;

/// Why a package file is not accepted. The first line of the text is apk's.
#[derive(Debug, thiserror::Error)]
pub(super) enum PackageFileError {
    /// The system does not give it.
    #[error("{}", crate::root::cause(.0))]
    Read(#[from] std::io::Error),
    /// It is damaged, or no v2 package.
    #[error(transparent)]
    Format(#[from] FormatError),
    /// It is not signed by a trusted key.
    #[error(transparent)]
    Trust(#[from] TrustError),
    /// A file in it is not what its checksum says.
    #[error("v2 package integrity error")]
    Checksum {
        /// Its path.
        path: String,
    },
    /// It has no use for one of its entries.
    #[error("{0}")]
    Other(String),
}

impl PackageFileError {
    /// Returns more than apk says, where there is more.
    pub(super) fn explanation(&self) -> Option<String> {
        match self {
            Self::Trust(error) => Some(error.explanation()),
            Self::Checksum { path } => Some(format!("{path} is not what its checksum says")),
            Self::Format(FormatError::Adb(error)) => error.explanation(),
            _ => None,
        }
    }

    /// Returns apk's text and, on a line of its own, what there is more to say.
    pub(super) fn lines(&self) -> String {
        match self.explanation() {
            Some(more) => format!("{self}\n{more}"),
            None => self.to_string(),
        }
    }
}

/// The data part of a package file.
pub(super) type Data = DataReader<BufReader<File>>;

/// Checks signatures; a missing or unknown one passes if the user allows it, a bad one never.
pub(super) fn check_trust(
    keyring: &Keyring,
    settings: &Settings,
    signatures: &[Signature],
    digests: &SignedDigests,
) -> Result<(), TrustError> {
    match keyring.check(signatures, digests) {
        Err(TrustError::Untrusted { .. }) if settings.allow_untrusted => Ok(()),
        checked => checked.map(drop),
    }
}

/// Opens a package file and checks who signed it; its size is filled in.
///
/// # Errors
/// [`PackageFileError`].
pub(super) fn open(
    path: &Path,
    keyring: &Keyring,
    settings: &Settings,
) -> Result<(ControlPart, Data), PackageFileError> {
    let file = File::open(path)?;
    let size = file.metadata()?.len();
    let source = BufReader::with_capacity(READ_BUFFER, file);
    let (mut control, data) = PackageReader::open(source, &settings.limits)?;
    check_trust(keyring, settings, &control.signatures, &control.digests)?;
    control.package.size = size;
    Ok((control, data))
}

/// Returns the metadata of a package file.
///
/// # Errors
/// [`PackageFileError`]; the data part is not looked at.
pub(super) fn metadata(
    path: &Path,
    keyring: &Keyring,
    settings: &Settings,
) -> Result<Package, PackageFileError> {
    open(path, keyring, settings).map(|(control, _)| control.package)
}

/// Reads the data part to its end and checks every checksum; `visit` gets each entry and a reader
/// of its content, which it may leave unread.
///
/// # Errors
/// [`PackageFileError`], also from `visit`.
pub(super) fn read(
    mut data: Data,
    mut visit: impl FnMut(&Entry, &mut dyn Read) -> Result<(), PackageFileError>,
) -> Result<(), PackageFileError> {
    while let Some(entry) = data.next_entry()? {
        let mut content = Hashed {
            inner: &mut data,
            hash: entry.header.checksum.hash(),
        };
        visit(&entry, &mut content)?;
        std::io::copy(&mut content, &mut std::io::sink()).map_err(FormatError::from)?;
        let wanted = entry.header.checksum;
        let right = match &entry.header.kind {
            EntryKind::File if !wanted.is_some() => return Err(FormatError::Obsolete.into()),
            EntryKind::File => content.hash.finish() == wanted,
            EntryKind::Symlink(target) => wanted.fits(target.as_bytes()),
            _ => true,
        };
        if !right {
            return Err(PackageFileError::Checksum { path: entry.path });
        }
    }
    data.finish()?;
    Ok(())
}

struct Hashed<'d> {
    inner: &'d mut Data,
    hash: ContentHash,
}

impl Read for Hashed<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.hash.update(&buffer[..count]);
        Ok(count)
    }
}
