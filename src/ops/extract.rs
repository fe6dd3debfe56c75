//! `extract`: packages unpacked into a directory, without database (cli.md, 2.18).
//!
//! Every path is resolved beneath the destination, so a package cannot write anywhere else. Nothing
//! that is there is overwritten unless the user says so.

use super::package_file::{self, PackageFileError};
use super::verify::keyring;
use super::{Error, download};
use crate::config::{Settings, repositories};
use crate::format::FormatError;
use crate::format::apk::{Entry, EntryKind};
use crate::progress::{Level, Sink};
use crate::root::{Directory, Root, RootError, split};
use crate::trust::Keyring;
use std::collections::{HashMap, HashSet};
use std::io::Read;
use std::path::{Path, PathBuf};

/// What to unpack and where.
#[derive(Clone, Debug)]
pub struct ExtractOptions {
    /// The directory, which must exist.
    pub destination: PathBuf,
    /// Files keep the owner who unpacks them.
    pub no_chown: bool,
    /// Files that are there are replaced.
    pub force_overwrite: bool,
    /// Package files, or locations to download them from.
    pub files: Vec<String>,
}

/// Unpacks packages, one after the other.
///
/// # Errors
/// [`enum@Error`] of the first package that fails; the ones before are unpacked.
pub fn run(
    settings: &Settings,
    options: &ExtractOptions,
    sink: &mut dyn Sink,
) -> Result<(), Error> {
    let failed = |line: String| Error::Arguments {
        lines: vec![line],
        code: 99,
    };
    let keyring = keyring(
        settings,
        &super::database::open_root(&settings.root, false)?,
    )?;
    let destination = Root::open(&options.destination).map_err(|error| {
        let shown = options.destination.display();
        failed(format!(
            "Error opening destination '{shown}': {}",
            error.cause()
        ))
    })?;
    for file in &options.files {
        sink.line(Level::Always, &format!("Extracting {file}..."));
        let extract = Extract {
            root: &destination,
            options,
            chown: !options.no_chown && rustix::process::geteuid().is_root(),
        };
        let local = download::to_local_file(settings, file)
            .map_err(|cause| failed(format!("{file}: {cause}")))?;
        extract
            .package(local.path(), &keyring, settings, sink)
            .map_err(|error| {
                let shown = repositories::masked(file);
                failed(format!("{shown}: {}", error.lines()))
            })?;
    }
    Ok(())
}

struct Extract<'a> {
    root: &'a Root,
    options: &'a ExtractOptions,
    chown: bool,
}

/// The names of a package so far; finds what must not be unpacked.
#[derive(Default)]
struct Survey {
    /// Whether each is a directory.
    names: HashMap<String, bool>,
    files: HashSet<String>,
}

impl Survey {
    fn entry(&mut self, entry: &Entry, extract: &Extract<'_>) -> Result<(), PackageFileError> {
        let path = entry.path.as_str();
        let shown = path.escape_debug();
        if let Some(reason) = entry.malicious {
            let text = format!("malicious file {shown}: {reason}");
            return Err(PackageFileError::Other(text));
        }
        let wrong = |reason: String| {
            let text = format!("v2 package format error: {shown}: {reason}");
            Err(PackageFileError::Other(text))
        };
        let mut above = path.match_indices('/').map(|(at, _)| &path[..at]);
        if let Some(above) = above.find(|above| self.names.get(*above) == Some(&false)) {
            return wrong(format!("{} is no directory", above.escape_debug()));
        }
        let is_dir = entry.header.kind == EntryKind::Directory;
        match self.names.insert(path.to_owned(), is_dir) {
            Some(before) if !before || !is_dir => return wrong("the name comes twice".into()),
            _ => {}
        }
        match &entry.header.kind {
            EntryKind::Directory => return Ok(()),
            EntryKind::HardLink(target) if !self.files.contains(target) => {
                let target = target.escape_debug();
                return wrong(format!("no hard link target ({target}) in archive"));
            }
            EntryKind::File | EntryKind::HardLink(_) => drop(self.files.insert(path.to_owned())),
            _ => {}
        }
        if !extract.options.force_overwrite && extract.root.stat(path)?.is_some() {
            return Err(PackageFileError::Other("File exists".into()));
        }
        Ok(())
    }
}

impl From<RootError> for PackageFileError {
    fn from(error: RootError) -> Self {
        Self::Other(error.cause())
    }
}

impl Extract<'_> {
    fn package(
        &self,
        path: &Path,
        keyring: &Keyring,
        settings: &Settings,
        sink: &mut dyn Sink,
    ) -> Result<(), PackageFileError> {
        // Verified and looked through to the last byte before the first file is written.
        let (_, data) = package_file::open(path, keyring, settings)?;
        let mut survey = Survey::default();
        package_file::read(data, |entry, _| survey.entry(entry, self))?;
        let (_, data) = package_file::open(path, keyring, settings)?;
        package_file::read(data, |entry, content| {
            let slash = match entry.header.kind {
                EntryKind::Directory => "/",
                _ => "",
            };
            sink.line(Level::Trace, &format!("{}{slash}", entry.path));
            self.entry(entry, content)
        })
    }

    fn entry(&self, entry: &Entry, content: &mut dyn Read) -> Result<(), PackageFileError> {
        let header = &entry.header;
        let (parent, name) = split(&entry.path);
        self.root.create_directories(parent)?;
        let directory = self.root.directory(parent)?;
        if header.kind == EntryKind::Directory {
            if !directory.has_directory(name) {
                directory.create_directory(name, header.mode)?;
                self.attributes(&directory, name, entry)?;
            }
            return Ok(());
        }
        if self.options.force_overwrite {
            directory.remove_file(name)?;
        } else if directory.stat(name)?.is_some() {
            return Err(PackageFileError::Other("File exists".into()));
        }
        match &header.kind {
            EntryKind::File => {
                let mut file = directory.create_file(name, 0o600)?;
                std::io::copy(content, &mut file).map_err(FormatError::from)?;
                for (key, value) in &header.xattrs {
                    // Whether a file system keeps them is known only by trying.
                    let _ = file.set_attribute(key, value);
                }
                if self.chown {
                    file.set_owner(header.uid, header.gid)?;
                }
                file.set_mode(header.mode)?;
            }
            EntryKind::HardLink(target) => {
                let (from, first) = self.root.parent(target)?;
                directory.create_hard_link(&from, first, name)?;
                return Ok(());
            }
            EntryKind::Symlink(target) => directory.create_symlink(target, name)?,
            kind => {
                if !self.chown {
                    return Ok(());
                }
                crate::transaction::create_node(&directory, name, kind, header.mode)?;
            }
        }
        self.attributes(&directory, name, entry)
    }

    fn attributes(
        &self,
        directory: &Directory,
        name: &str,
        entry: &Entry,
    ) -> Result<(), PackageFileError> {
        let header = &entry.header;
        if self.chown {
            directory.set_owner(name, header.uid, header.gid)?;
        }
        if !matches!(header.kind, EntryKind::Symlink(_)) {
            // Changing the owner clears the set-id bits.
            directory.set_mode(name, header.mode)?;
        }
        directory.set_time(name, header.mtime)?;
        Ok(())
    }
}
