//! Packages that left a root, kept so that they can come back when no mirror has them any more.
//!
//! ```text
//! var/lib/ibex/kept/IDENTITY/record       the package's record, as in the installed database
//!                           /scripts.tar  its scripts, if it has any
//!                           /triggers     what its trigger watches, likewise
//!                           /0, /1, …     its files, numbered in the order of the record
//! ```
//!
//! A kept file is another name of the file that was installed: a file that a transaction replaces
//! or deletes would lose its last name, and here it keeps one. So keeping costs no copy, and a
//! package that another program installed can be kept as well. What lies on another file system is
//! copied.
//!
//! What a kept file holds is compared with its record before it is used. A file that was changed
//! in place after its installation is still the file of that time, and [`KeptPackage::changed`]
//! names it. Nothing here decides what to keep and for how long.

use super::commit::disk_digest;
use super::protect::ProtectedPaths;
use super::stage::{
    Attributes, Desk, StageError, StagedDirectory, StagedEntry, StagedFile, StagedPackage, Staging,
    temporary_name,
};
use crate::format::{FormatError, Limits, installed, scripts, triggers};
use crate::package::{Acl, Identity, InstalledDb, InstalledFile, InstalledPackage};
use crate::plan::files::join;
use crate::root::{Directory, Root, RootError};
use rustix::fs::FileType;

/// Where packages are kept, below the root.
const DIRECTORY: &str = "var/lib/ibex/kept";

/// A package that can be put back.
#[derive(Clone, Debug)]
pub struct KeptPackage {
    /// Its record at the time it left, with its scripts.
    pub record: InstalledPackage,
    /// Paths of files whose content had been changed in place since they were installed.
    pub changed: Vec<String>,
    /// Paths of files that were not there any more when the package left.
    pub missing: Vec<String>,
}

/// Keeps an installed package; one of the same identity that was kept before is replaced.
///
/// # Errors
/// [`RootError`]; nothing is kept then.
pub fn keep(root: &Root, package: &InstalledPackage) -> Result<(), RootError> {
    let name = package.package.identity.hex();
    let beside = format!("new-{name}");
    root.create_directories(DIRECTORY)?;
    let kept = root.directory(DIRECTORY)?;
    let (above, last) = root.parent(DIRECTORY)?;
    // Old set-id programs must not stay within everybody's reach.
    above.set_mode(last, 0o700)?;
    remove_named(root, &kept, &beside)?;
    kept.create_directory(&beside, 0o700)?;
    let written = fill(root, package, &join(DIRECTORY, &beside))
        .and_then(|()| remove_named(root, &kept, &name))
        .and_then(|()| kept.rename(&beside, &name));
    root.forget_directories();
    if written.is_err() {
        // The first error is the one to tell.
        let _ = remove_named(root, &kept, &beside);
    }
    written
}

/// Removes packages of which only a part was kept when the process was stopped.
///
/// # Errors
/// [`RootError`].
pub fn remove_unfinished(root: &Root) -> Result<(), RootError> {
    let Ok(kept) = root.directory(DIRECTORY) else {
        return Ok(());
    };
    for name in kept.list()? {
        if let Some(name) = name.to_str().filter(|name| name.starts_with("new-")) {
            remove_named(root, &kept, name)?;
        }
    }
    root.forget_directories();
    Ok(())
}

fn fill(root: &Root, package: &InstalledPackage, into: &str) -> Result<(), RootError> {
    let unwritable =
        |error: FormatError| RootError::new("keep", into, std::io::Error::other(error.to_string()));
    let single = InstalledDb {
        packages: vec![package.clone()],
    };
    let text = installed::write(&single).map_err(unwritable)?;
    root.replace(&join(into, "record"), &text, 0o600, false)?;
    if !package.package.triggers.is_empty() {
        let text = triggers::write(&single);
        root.replace(&join(into, "triggers"), &text, 0o600, false)?;
    }
    if !package.scripts.is_empty() {
        let archive = scripts::write(&single, false);
        root.replace(&join(into, "scripts.tar"), &archive, 0o600, false)?;
    }
    // The numbers are those of the record as it is read back.
    let single = installed::parse(&text, true).map_err(unwritable)?;
    let target = root.directory(into)?;
    for (number, (folder, file)) in files(&single.packages[0]).enumerate() {
        let Ok(directory) = root.directory(folder) else {
            continue;
        };
        if matches!(directory.stat(&file.name)?, Some(stat) if !stat.is_dir()) {
            link_or_copy(&directory, &file.name, &target, &number.to_string())?;
        }
    }
    Ok(())
}

/// Returns the files of a record in the order in which they are numbered, with their directories.
fn files(record: &InstalledPackage) -> impl Iterator<Item = (&str, &InstalledFile)> {
    let directories = record.directories.iter();
    directories.flat_map(|directory| {
        let files = directory.files.iter();
        files.map(|file| (directory.path.as_str(), file))
    })
}

/// Returns a kept package; `None` if it is not kept, or what is kept cannot be read.
///
/// # Errors
/// [`RootError`] if a file of it cannot be read.
pub fn find(root: &Root, identity: Identity) -> Result<Option<KeptPackage>, RootError> {
    let folder = join(DIRECTORY, &identity.hex());
    let Some(record) = read_record(root, &folder, identity)? else {
        return Ok(None);
    };
    let (mut changed, mut missing) = (Vec::new(), Vec::new());
    for (number, (directory, file)) in files(&record).enumerate() {
        match is_original(root, &folder, number, file)? {
            None => missing.push(join(directory, &file.name)),
            Some(false) => changed.push(join(directory, &file.name)),
            Some(true) => {}
        }
    }
    Ok(Some(KeptPackage {
        record,
        changed,
        missing,
    }))
}

fn read_record(
    root: &Root,
    folder: &str,
    identity: Identity,
) -> Result<Option<InstalledPackage>, RootError> {
    let Some(text) = root.read(&join(folder, "record"))? else {
        return Ok(None);
    };
    let Ok(mut db) = installed::parse(&text, true) else {
        return Ok(None);
    };
    if let Some(archive) = root.read(&join(folder, "scripts.tar"))?
        && scripts::read(&mut db, archive.as_slice(), false, &Limits::default()).is_err()
    {
        return Ok(None);
    }
    if let Some(text) = root.read(&join(folder, "triggers"))? {
        triggers::read(&mut db, &text);
    }
    Ok(db
        .packages
        .pop()
        .filter(|record| record.package.identity == identity))
}

/// Returns whether a kept file is what its record says; `None` if it is not there.
fn is_original(
    root: &Root,
    folder: &str,
    number: usize,
    file: &InstalledFile,
) -> Result<Option<bool>, RootError> {
    let path = join(folder, &number.to_string());
    let found = disk_digest(root, &path, file.digest.as_ref())?;
    Ok(found.map(|found| file.digest.as_ref().is_none_or(|wanted| *wanted == found)))
}

/// Returns the identities of all kept packages.
///
/// # Errors
/// [`RootError`] if the directory cannot be read.
pub fn list(root: &Root) -> Result<Vec<Identity>, RootError> {
    let names = root.list(DIRECTORY)?;
    let names = names.iter().filter_map(|name| name.to_str());
    Ok(names
        .filter(|name| name.len() == 40)
        .filter_map(|name| Identity::parse(&format!("X1{name}")))
        .collect())
}

/// Stops keeping a package.
///
/// # Errors
/// [`RootError`].
pub fn remove(root: &Root, identity: Identity) -> Result<(), RootError> {
    match root.directory(DIRECTORY) {
        Ok(kept) => {
            remove_named(root, &kept, &identity.hex())?;
            let (above, name) = root.parent(DIRECTORY)?;
            // It goes with the last package.
            if above.remove_directory(name) {
                root.forget_directories();
            }
            Ok(())
        }
        Err(error) if Directory::is_missing(&error) => Ok(()),
        Err(error) => Err(error),
    }
}

fn remove_named(root: &Root, kept: &Directory, name: &str) -> Result<(), RootError> {
    if !kept.has_directory(name) {
        return Ok(());
    }
    let folder = root.directory(&kept.join(name))?;
    for file in folder.list()? {
        if let Some(file) = file.to_str() {
            folder.remove_file(file)?;
        }
    }
    kept.remove_directory(name);
    root.forget_directories();
    Ok(())
}

/// Gives a file a second name; across file systems it is copied with its attributes.
fn link_or_copy(
    from: &Directory,
    name: &str,
    to: &Directory,
    new_name: &str,
) -> Result<(), RootError> {
    match to.create_hard_link(from, name, new_name) {
        Err(error)
            if error.source.raw_os_error() == Some(rustix::io::Errno::XDEV.raw_os_error()) =>
        {
            copy(from, name, to, new_name)
        }
        other => other,
    }
}

fn copy(from: &Directory, name: &str, to: &Directory, new_name: &str) -> Result<(), RootError> {
    let path = to.join(new_name);
    let failed = |error: std::io::Error| RootError::new("copy", &path, error);
    let Some(stat) = from.stat(name)? else {
        return Ok(());
    };
    match stat.kind {
        FileType::Symlink => {
            let target = from.read_link(name)?;
            let target = String::from_utf8(target)
                .map_err(|_| failed(std::io::ErrorKind::InvalidData.into()))?;
            to.create_symlink(&target, new_name)?;
            // An ordinary user owns what it makes.
            let _ = to.set_owner(new_name, stat.uid, stat.gid);
            Ok(())
        }
        FileType::RegularFile => {
            let mut source = from.open_file(name)?;
            let (modified, _) = from.modified(name)?;
            let mut file = to.create_file(new_name, 0o600)?;
            std::io::copy(&mut source, &mut file).map_err(failed)?;
            // An ordinary user owns what it makes.
            let _ = file.set_owner(stat.uid, stat.gid);
            file.set_mode(stat.mode)?;
            file.set_time(u64::try_from(modified / 1_000_000_000).unwrap_or(0))
        }
        _ => Err(failed(std::io::ErrorKind::Unsupported.into())),
    }
}

impl Staging<'_> {
    /// Stages a kept package: its files get a waiting name again.
    ///
    /// A file that had been changed in place is put back as it was then, except where
    /// configuration is protected: there what stands now stays.
    pub(super) fn unpack_kept(
        &self,
        identity: Identity,
        protected: &ProtectedPaths,
        desk: &Desk,
    ) -> Result<StagedPackage, StageError> {
        let folder = join(DIRECTORY, &identity.hex());
        let Some(record) = read_record(self.root, &folder, identity)? else {
            let gone = std::io::Error::from(std::io::ErrorKind::NotFound);
            return Err(RootError::new("open", &folder, gone).into());
        };
        let mut staged = StagedPackage {
            replaces: record.package.replaces.clone(),
            replaces_priority: record.package.replaces_priority,
            triggers: record.package.triggers.clone(),
            scripts: record.scripts.clone(),
            sha256_160: record.sha256_160,
            ..StagedPackage::default()
        };
        let mut number = 0;
        for (position, directory) in record.directories.iter().enumerate() {
            let room = self.waiting_room(&directory.path, desk)?;
            staged.directories.push(StagedDirectory {
                path: directory.path.clone(),
                folder: None,
                attributes: attributes(&directory.acl),
            });
            let told = StagedEntry::Directory(position as u32);
            staged.entries.push(told);
            for file in &directory.files {
                staged.entries.push(StagedEntry::File(number as u32));
                let path = join(&directory.path, &file.name);
                let original = is_original(self.root, &folder, number, file)?;
                let usable = match original {
                    None => false,
                    Some(true) => true,
                    Some(false) => {
                        !protected.is_protected(&directory.path) || self.root.stat(&path)?.is_none()
                    }
                };
                let mut waiting = None;
                let mut is_link = false;
                if usable {
                    let temporary = temporary_name(&record.package.name, &path);
                    let source = self.root.directory(&folder)?;
                    let target = self.root.directory(&room)?;
                    let name = number.to_string();
                    is_link = matches!(source.stat(&name)?, Some(s) if s.kind == FileType::Symlink);
                    let at = join(&room, &temporary);
                    self.waiting
                        .lock()
                        .unwrap_or_else(std::sync::PoisonError::into_inner)
                        .push(at.clone());
                    target.remove_file(&temporary)?;
                    link_or_copy(&source, &name, &target, &temporary)?;
                    waiting = Some(at);
                }
                staged.files.push(StagedFile {
                    directory: position,
                    name: file.name.clone(),
                    attributes: attributes(&file.acl),
                    digest: file.digest.clone(),
                    staged: waiting,
                    is_link,
                    ids: (file.acl.uid, file.acl.gid),
                });
                number += 1;
            }
        }
        Ok(staged)
    }
}

/// Returns recorded attributes; names are unknown, so the numbers stay.
fn attributes(acl: &Acl) -> Attributes {
    Attributes {
        mode: acl.mode,
        uid: acl.uid,
        gid: acl.gid,
        uname: String::new(),
        gname: String::new(),
        xattrs: acl.xattrs.clone(),
    }
}
