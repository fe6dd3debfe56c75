//! `verify`: signatures and checksums of package files and indexes (cli.md, 2.17).

use super::package_file::{self, PackageFileError};
use super::{Error, query::Answer};
use crate::config::Settings;
use crate::format::{FormatError, index::UnverifiedIndex};
use crate::root::Root;
use crate::trust::{Keyring, TrustError};
use std::fmt::Write as _;
use std::path::Path;

/// Checks files; the status is the number of bad ones. With `quiet` only their names are given.
///
/// # Errors
/// [`enum@Error`] if the keys cannot be read.
pub fn verify(settings: &Settings, files: &[String], quiet: bool) -> Result<Answer, Error> {
    let root = super::database::open_root(&settings.root, false)?;
    let keyring = keyring(settings, &root)?;
    let mut answer = Answer::default();
    for file in files {
        let result = check(Path::new(file), &keyring, settings);
        let _ = match (&result, quiet) {
            (Ok(()), true) => Ok(()),
            (Ok(()), false) => writeln!(answer.text, "{file}: OK"),
            (Err(_), true) => writeln!(answer.text, "{file}"),
            (Err(error), false) => writeln!(answer.text, "{file}: {error}"),
        };
        if let Err(error) = result {
            answer.status += 1;
            let more = error.explanation().filter(|_| !quiet);
            answer
                .notes
                .extend(more.map(|more| format!("{file}: {more}")));
        }
    }
    Ok(answer)
}

/// Reads the trusted keys.
pub(super) fn keyring(settings: &Settings, root: &Root) -> Result<Keyring, Error> {
    settings.keyring(root).map_err(|error| Error::Database {
        cause: error.cause(),
    })
}

fn check(path: &Path, keyring: &Keyring, settings: &Settings) -> Result<(), PackageFileError> {
    match package_file::open(path, keyring, settings) {
        Ok((_, data)) => package_file::read(data, |_, _| Ok(())),
        // What is no package may be an index.
        Err(PackageFileError::Format(FormatError::NotSupported)) => {
            check_index(path, keyring, settings)
        }
        Err(error) => Err(error),
    }
}

fn check_index(
    path: &Path,
    keyring: &Keyring,
    settings: &Settings,
) -> Result<(), PackageFileError> {
    let limits = settings.limits;
    let bytes = read_bounded(path, limits.index_file)?;
    let index = UnverifiedIndex::read(&bytes, &limits)?;
    let trusted = package_file::check_trust(keyring, settings, &index.signatures, &index.digests);
    if let Err(error) = trusted {
        if let TrustError::Bad { .. } = error {
            index.inspect()?;
        }
        return Err(error.into());
    }
    index.parse()?;
    Ok(())
}

/// Reads a file that may be as long as a limit.
pub(super) fn read_bounded(path: &Path, limit: u64) -> Result<Vec<u8>, PackageFileError> {
    use std::io::Read as _;
    let mut bytes = Vec::new();
    let file = std::fs::File::open(path)?;
    file.take(limit.saturating_add(1)).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > limit {
        return Err(FormatError::TooLarge {
            what: "index",
            limit,
        }
        .into());
    }
    Ok(bytes)
}
