//! What is kept of packages: package files, and the same unpacked, for all roots of a user.
//!
//! ```text
//! packages/NAME-VERSION.IDENTITY.apk     as a mirror gave it
//! unpacked/NAME-VERSION.IDENTITY         its contents, inflated and verified (format::unpacked)
//! unpacked/NAME-VERSION.IDENTITY.links/  its files, where roots asked to share them
//! unpacked/NAME-VERSION.IDENTITY.seal    which file it was that was verified
//! indexes/HASH.tar.gz                    the last index of an address; HASH is of the address
//! locks/IDENTITY                         held while a process makes one of them
//! ```
//!
//! The identity is a digest over a control part that has the digest of the data in it, so it is
//! the address of the content. Files are written beside their names and renamed in: any number of
//! processes may do this at the same time, be stopped at any moment, and delete what they like.
//!
//! A *seal* says which inode was verified, and when it last changed. A file that is no longer that
//! one is verified again before it is used, and dropped if it is damaged. What was used longest ago
//! is dropped first; the time of the seal, or the access time of a package file, says when.
//!
//! Where a root has `etc/apk/cache`, package files are kept there, under apk's names.

use crate::format::apk::{Entry, EntryKind, PackageReader};
use crate::format::unpacked::Reader;
use crate::format::{FormatError, Limits};
use crate::package::Identity;
use rustix::fs::{
    AtFlags, CWD, FlockOperation, Timespec, Timestamps, UTIME_OMIT, flock, utimensat,
};
use std::collections::{HashMap, HashSet};
use std::ffi::OsString;
use std::fs::{DirBuilder, File, Metadata};
use std::io::{self, Read as _, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

/// What was used within this time is not dropped to make room: somebody may be about to copy it.
const IN_USE: Duration = Duration::from_secs(600);

/// A temporary file older than this belongs to no living process.
const ABANDONED: Duration = Duration::from_secs(24 * 3600);

/// How exact times of use are: one write a minute at most.
const EXACT: Duration = Duration::from_secs(60);

/// How often the size is looked at by commands that add to the store.
const LOOK_AFTER: Duration = Duration::from_secs(24 * 3600);

/// Replaces a file of a cache; the directory is made if it is missing.
///
/// # Errors
/// What the system said; the old file is still there then.
pub fn store(path: &Path, content: &[u8]) -> io::Result<()> {
    let (mut file, temporary) = begin(path)?;
    let written = file.write_all(content);
    finish(written, &temporary, path)
}

/// Opens a temporary file beside `path`.
///
/// # Errors
/// What the system said.
pub fn begin(path: &Path) -> io::Result<(File, PathBuf)> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".tmp.{}", std::process::id()));
    let temporary = path.with_file_name(name);
    let create = || {
        if let Some(directory) = path.parent() {
            make_directory(directory, 0o755)?;
        }
        File::create(&temporary)
    };
    // Who deletes the cache may do so just between the two.
    let create = || match create() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => create(),
        other => other,
    };
    let make = || Ok((create()?, temporary.clone()));
    crate::root::passing::noted(make, |(_, path)| path.as_path())
}

/// Renames a finished temporary file in, or removes it if writing failed.
///
/// # Errors
/// The first error.
pub fn finish(written: io::Result<()>, temporary: &Path, path: &Path) -> io::Result<()> {
    let result = written.and_then(|()| rustix::fs::rename(temporary, path).map_err(Into::into));
    if result.is_err() {
        let _ = std::fs::remove_file(temporary);
    }
    result
}

fn make_directory(path: &Path, mode: u32) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(mode).create(path)
}

/// Names a package in the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key {
    stem: String,
    identity: Identity,
}

impl Key {
    /// Makes the name of a package.
    pub fn new(name: &str, version: &str, identity: Identity) -> Self {
        let hex = identity.hex();
        // Indexes are read with names checked; a file of that name is made, so once more.
        let fits = |text: &str| !text.is_empty() && !text.contains(['/', '\0']) && text.len() < 100;
        let stem = match fits(name) && fits(version) && !name.starts_with('.') {
            true => format!("{name}-{version}.{hex}"),
            false => hex,
        };
        Self { stem, identity }
    }

    /// Makes the name of a package from `NAME-VERSION` and its identity.
    pub fn named(full_name: &str, identity: Identity) -> Self {
        // Where the version begins does not matter for the name of a file.
        let (name, version) = full_name.split_once('-').unwrap_or((full_name, ""));
        Self::new(name, version, identity)
    }

    /// Makes the name of a package.
    pub fn of(package: &crate::package::Package) -> Self {
        Self::new(&package.name, &package.version, package.identity)
    }

    /// Returns the name of the package file.
    pub fn file_name(&self) -> String {
        format!("{}.apk", self.stem)
    }

    /// Returns the identity.
    pub fn identity(&self) -> Identity {
        self.identity
    }
}

impl From<Identity> for Key {
    /// Names a package by its identity alone.
    fn from(identity: Identity) -> Self {
        let stem = identity.hex();
        Self { stem, identity }
    }
}

/// The user's store of packages.
#[derive(Debug)]
pub struct Store {
    directory: PathBuf,
    /// It is made for one command and goes with it.
    temporary: Option<tempfile::TempDir>,
}

/// The right to make the files of one package; it ends when this is dropped.
#[derive(Debug)]
pub struct Lock {
    path: PathBuf,
    _file: File,
}

impl Drop for Lock {
    fn drop(&mut self) {
        // While it is held, so that nobody holds a file that is gone without noticing.
        let _ = std::fs::remove_file(&self.path);
    }
}

/// What kind of thing an [`Item`] is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// A package file.
    Package,
    /// An unpacked package.
    Unpacked,
}

/// Something in the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item {
    /// Name and version, as far as the file name says.
    pub name: String,
    /// What it is.
    pub kind: Kind,
    /// Bytes on disk.
    pub size: u64,
    /// When it was last used.
    pub used: SystemTime,
    path: PathBuf,
}

/// What was dropped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Dropped {
    /// How many files.
    pub count: usize,
    /// How many bytes.
    pub size: u64,
}

impl Store {
    /// Opens the store in a directory; its folders are made when something is put there.
    ///
    /// # Errors
    /// What the system said; then it cannot be written.
    pub fn open(directory: &Path) -> io::Result<Self> {
        make_directory(directory, 0o700)?;
        for folder in ["packages", "unpacked", "locks"] {
            make_directory(&directory.join(folder), 0o755)?;
        }
        rustix::fs::access(directory, rustix::fs::Access::WRITE_OK)?;
        Ok(Self {
            directory: directory.to_owned(),
            temporary: None,
        })
    }

    /// Makes a store that goes when it is dropped.
    ///
    /// # Errors
    /// What the system said.
    pub fn temporary() -> io::Result<Self> {
        let made = tempfile::Builder::new().prefix("ibex-").tempdir()?;
        let mut store = Self::open(made.path())?;
        store.temporary = Some(made);
        Ok(store)
    }

    /// Returns whether it goes when it is dropped.
    pub fn is_temporary(&self) -> bool {
        self.temporary.is_some()
    }

    /// Returns where it is.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Returns where the index at an address belongs that all roots share.
    pub fn index_path(&self, url: &str) -> PathBuf {
        use sha2::{Digest, Sha256};
        let hash = data_encoding::HEXLOWER.encode(&Sha256::digest(url)[..16]);
        self.directory
            .join("indexes")
            .join(format!("{hash}.tar.gz"))
    }

    /// Returns where a package file belongs.
    pub fn package_path(&self, key: &Key) -> PathBuf {
        self.directory.join("packages").join(key.file_name())
    }

    /// Returns where an unpacked package belongs.
    pub fn unpacked_path(&self, key: &Key) -> PathBuf {
        self.directory.join("unpacked").join(&key.stem)
    }

    /// Returns a package file of the right size; it counts as used.
    pub fn find_package(&self, key: &Key, size: u64) -> Option<PathBuf> {
        let path = self.package_path(key);
        let meta = std::fs::metadata(&path).ok()?;
        if meta.len() != size {
            return None;
        }
        let used = meta.accessed().unwrap_or(SystemTime::UNIX_EPOCH);
        if is_older(used, EXACT) {
            touch_access(&path);
        }
        Some(path)
    }

    /// Returns an unpacked package that is as it was when it was verified; it counts as used.
    ///
    /// One that is not is verified again, and dropped if it is damaged.
    pub fn find_unpacked(&self, key: &Key, limits: &Limits) -> Option<PathBuf> {
        let path = self.unpacked_path(key);
        let seal = seal_path(&path);
        let found = std::fs::metadata(&path).ok()?;
        let sealed = read_seal(&seal);
        let is_sealed = |(text, _): &(Vec<u8>, _)| *text == seal_of(&found).as_bytes();
        let Some((_, sealed_at)) = sealed.filter(is_sealed) else {
            let whole = File::open(&path)
                .map_err(FormatError::from)
                .and_then(|file| {
                    let (control, reader) = Reader::open(file, limits)?;
                    let right = control.identity == key.identity;
                    Ok(right && reader.verify().is_ok())
                });
            if !matches!(whole, Ok(true)) {
                // If it stays it is verified and refused again.
                let _ = std::fs::remove_file(&path);
                let _ = std::fs::remove_file(&seal);
                return None;
            }
            self.seal(&path).ok()?;
            return Some(path);
        };
        if is_older(sealed_at, EXACT) {
            touch(&seal);
        }
        Some(path)
    }

    /// Notes that an unpacked package under its final name was verified just now.
    ///
    /// # Errors
    /// What the system said; then it is verified again when it is used.
    pub fn seal(&self, path: &Path) -> io::Result<()> {
        let found = std::fs::metadata(path)?;
        store(&seal_path(path), seal_of(&found).as_bytes())
    }

    /// Takes the right to make the files of a package; `None` if another process has it.
    ///
    /// # Errors
    /// What the system said.
    pub fn try_lock(&self, key: &Key) -> io::Result<Option<Lock>> {
        let path = self.directory.join("locks").join(key.identity.hex());
        let file = File::options().create(true).append(true).open(&path)?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => return Ok(None),
            Err(errno) => return Err(errno.into()),
        }
        // Whoever held it before may have removed the file that was opened above.
        let held = file.metadata()?;
        let named = std::fs::metadata(&path);
        let same = named.is_ok_and(|named| (named.ino(), named.dev()) == (held.ino(), held.dev()));
        Ok(same.then_some(Lock { path, _file: file }))
    }

    /// Lists what is kept, by name.
    pub fn items(&self) -> Vec<Item> {
        let mut items = Vec::new();
        for (folder, kind) in [("packages", Kind::Package), ("unpacked", Kind::Unpacked)] {
            let Ok(entries) = std::fs::read_dir(self.directory.join(folder)) else {
                continue;
            };
            for entry in entries.flatten() {
                let file = entry.file_name().to_string_lossy().into_owned();
                let stem = match kind {
                    Kind::Package => file.strip_suffix(".apk"),
                    Kind::Unpacked => Some(file.as_str())
                        .filter(|name| !name.ends_with(".seal") && !name.ends_with(".links")),
                };
                let (Some(stem), false) = (stem, file.contains(".tmp.")) else {
                    continue;
                };
                let Ok(meta) = entry.metadata() else { continue };
                let path = entry.path();
                items.push(Item {
                    name: stem
                        .rsplit_once('.')
                        .map_or(stem, |(name, _)| name)
                        .to_owned(),
                    kind,
                    size: meta.blocks() * 512,
                    used: last_use(&path, &meta, kind),
                    path,
                });
            }
        }
        items.sort_by(|a, b| (&a.name, a.kind).cmp(&(&b.name, b.kind)));
        items
    }

    /// Returns which files are in the packages that are kept: name and version, and the paths.
    ///
    /// It is for looking things up: what is damaged is left out, and nothing is verified.
    pub fn contents(&self, limits: &Limits) -> Vec<(String, Vec<String>)> {
        let mut found: Vec<(String, Vec<String>)> = Vec::new();
        let mut seen = HashSet::new();
        let mut items = self.items();
        // Unpacked, the names are at hand; a package file has to be inflated for them.
        items.sort_by_key(|item| item.kind == Kind::Package);
        for item in items {
            let file = item.path.file_name().unwrap_or_default().to_string_lossy();
            let stem = file.strip_suffix(".apk").unwrap_or(&file).to_owned();
            if seen.contains(&stem) {
                continue;
            }
            if let Some(paths) = item.paths(limits) {
                seen.insert(stem);
                found.push((item.name, paths));
            }
        }
        found
    }

    /// Returns the package files under the names that they have in apk's cache directory, with
    /// their sizes.
    pub fn apk_names(&self) -> HashMap<String, u64> {
        let Ok(entries) = std::fs::read_dir(self.directory.join("packages")) else {
            return HashMap::new();
        };
        let names = entries.flatten().filter_map(|entry| {
            let file = entry.file_name().into_string().ok()?;
            let (name, hex) = file.strip_suffix(".apk")?.rsplit_once('.')?;
            let size = entry.metadata().ok()?.len();
            Some((format!("{name}.{}.apk", hex.get(..8)?), size))
        });
        names.collect()
    }

    /// Drops what was used longest ago until no more than `limit` bytes are left, and files that
    /// were abandoned. What is in use stays.
    pub fn prune(&self, limit: u64) -> Dropped {
        self.drop_abandoned();
        let mut items = self.items();
        let mut left: u64 = items.iter().map(|item| item.size).sum();
        items.sort_by_key(|item| item.used);
        let mut dropped = Dropped::default();
        for item in items.iter().filter(|item| is_older(item.used, IN_USE)) {
            if left <= limit {
                break;
            }
            left -= item.size;
            dropped.add(item);
        }
        dropped
    }

    /// Drops everything of a kind, or everything.
    pub fn clear(&self, kind: Option<Kind>) -> Dropped {
        self.drop_abandoned();
        let mut dropped = Dropped::default();
        let items = self.items();
        for item in items
            .iter()
            .filter(|item| kind.is_none_or(|kind| kind == item.kind))
        {
            dropped.add(item);
        }
        dropped
    }

    /// Prunes if nobody has done so for a day.
    pub fn look_after(&self, limit: u64) {
        let stamp = self.directory.join("pruned");
        let done = std::fs::metadata(&stamp).and_then(|meta| meta.modified());
        if self.is_temporary() || done.is_ok_and(|at| !is_older(at, LOOK_AFTER)) {
            return;
        }
        if store(&stamp, b"").is_ok() {
            self.prune(limit);
        }
    }

    /// Verifies everything and drops what is damaged; returns the names of that. What roots share
    /// by hard links is compared with its checksums when it is used next.
    pub fn verify(&self, limits: &Limits) -> Vec<Item> {
        let damaged = self.items().into_iter().filter(|item| {
            // The note that it was compared; there is none if nothing is shared.
            let _ = std::fs::remove_file(links_path(&item.path).join("checked"));
            let wanted = item.path.file_name().unwrap_or_default().to_string_lossy();
            let wanted = wanted.trim_end_matches(".apk");
            let wanted = wanted
                .rsplit_once('.')
                .map_or(wanted, |(_, hex)| hex)
                .to_owned();
            !item.is_whole(&wanted, limits)
        });
        let damaged: Vec<Item> = damaged.collect();
        let mut dropped = Dropped::default();
        for item in &damaged {
            dropped.add(item);
        }
        damaged
    }

    fn drop_abandoned(&self) {
        for folder in ["packages", "unpacked", "indexes", "locks"] {
            let Ok(entries) = std::fs::read_dir(self.directory.join(folder)) else {
                continue;
            };
            for entry in entries.flatten() {
                let name = entry.file_name().to_string_lossy().into_owned();
                let lone_seal = || {
                    let data = entry.path().with_extension("");
                    name.ends_with(".seal") && !data.exists()
                };
                let passing = name.contains(".tmp.") || folder == "locks" || lone_seal();
                let old = || {
                    let meta = entry.metadata().and_then(|meta| meta.modified());
                    meta.is_ok_and(|at| is_older(at, ABANDONED))
                };
                if passing && old() {
                    let _ = std::fs::remove_file(entry.path());
                }
            }
        }
    }
}

impl Item {
    /// Returns the paths of the files in it; `None` if it is damaged.
    fn paths(&self, limits: &Limits) -> Option<Vec<String>> {
        let file = File::open(&self.path).ok()?;
        let mut paths = Vec::new();
        let mut note = |entry: Entry| {
            if entry.header.kind == EntryKind::File && entry.malicious.is_none() {
                paths.push(entry.path);
            }
        };
        match self.kind {
            Kind::Unpacked => {
                let (_, mut reader) = Reader::open(file, limits).ok()?;
                while let Some(entry) = reader.next_entry() {
                    note(entry);
                }
            }
            Kind::Package => {
                let source = io::BufReader::with_capacity(128 << 10, file);
                let (_, mut data) = PackageReader::open(source, limits).ok()?;
                while let Some(entry) = data.next_entry().ok()? {
                    note(entry);
                }
            }
        }
        Some(paths)
    }

    /// Returns whether it is what the digits of its name say; there may be only the first of them,
    /// as in the names of apk's cache.
    fn is_whole(&self, digits: &str, limits: &Limits) -> bool {
        let is_it = |found: Identity| digits.len() >= 8 && found.hex().starts_with(digits);
        let Ok(file) = File::open(&self.path) else {
            return false;
        };
        match self.kind {
            Kind::Unpacked => Reader::open(file, limits)
                .is_ok_and(|(control, reader)| is_it(control.identity) && reader.verify().is_ok()),
            Kind::Package => check_package(&self.path, limits).is_some_and(is_it),
        }
    }
}

/// Reads a package file to its end and checks all that it says of itself; returns its identity,
/// `None` if it is damaged.
pub fn check_package(path: &Path, limits: &Limits) -> Option<Identity> {
    let source = io::BufReader::with_capacity(128 << 10, File::open(path).ok()?);
    super::package::check(source, limits).ok()
}

impl Dropped {
    /// Removes an item; its seal goes first, so that nothing stays that only looks verified.
    fn add(&mut self, item: &Item) {
        if item.kind == Kind::Unpacked {
            let _ = std::fs::remove_file(seal_path(&item.path));
            // Roots that share the files keep them.
            let _ = std::fs::remove_dir_all(links_path(&item.path));
        }
        if std::fs::remove_file(&item.path).is_ok() {
            self.count += 1;
            self.size += item.size;
        }
    }
}

fn seal_path(path: &Path) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(".seal");
    name.into()
}

/// Where files of an unpacked package are that roots share by hard links.
fn links_path(path: &Path) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(".links");
    name.into()
}

/// Returns a seal and when it was written or used last; asked for each package of an install, so with as
/// few system calls as there can be.
fn read_seal(path: &Path) -> Option<(Vec<u8>, SystemTime)> {
    /// Longer than any seal.
    const MOST: usize = 256;
    let mut file = File::open(path).ok()?;
    let at = file.metadata().ok()?.modified().ok()?;
    let mut text = vec![0; MOST];
    let count = file.read(&mut text).ok()?;
    text.truncate(count);
    Some((text, at))
}

/// What tells a file from every later one of its name.
pub(crate) fn seal_of(meta: &Metadata) -> String {
    format!(
        "{} {} {} {}.{} {}.{}\n",
        meta.dev(),
        meta.ino(),
        meta.len(),
        meta.mtime(),
        meta.mtime_nsec(),
        meta.ctime(),
        meta.ctime_nsec()
    )
}

fn last_use(path: &Path, meta: &Metadata, kind: Kind) -> SystemTime {
    let of_file = match kind {
        Kind::Package => meta.accessed(),
        Kind::Unpacked => std::fs::metadata(seal_path(path)).and_then(|meta| meta.modified()),
    };
    of_file
        .or_else(|_| meta.modified())
        .unwrap_or(SystemTime::UNIX_EPOCH)
}

fn is_older(at: SystemTime, age: Duration) -> bool {
    // A time in the future is no reason to keep something for ever.
    SystemTime::now()
        .duration_since(at)
        .map_or(true, |passed| passed >= age)
}

/// Sets the modification time to now; a read-only store is used without being told so.
fn touch(path: &Path) {
    let now = || {
        File::options()
            .append(true)
            .open(path)?
            .set_modified(SystemTime::now())
    };
    let _: io::Result<()> = now();
}

/// Sets the access time to now and leaves the modification time, which is the server's.
fn touch_access(path: &Path) {
    let times = Timestamps {
        last_access: Timespec {
            tv_sec: 0,
            tv_nsec: rustix::fs::UTIME_NOW,
        },
        last_modification: Timespec {
            tv_sec: 0,
            tv_nsec: UTIME_OMIT,
        },
    };
    let _ = utimensat(CWD, path, &times, AtFlags::empty());
}
