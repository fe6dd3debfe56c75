//! Unpacking packages where nobody looks, on the file system where their files will be
//! (commit.md, 4).
//!
//! apk unpacks one package at a time, beside the final names. Here all packages wait before the
//! first one is committed, and scripts of the first run while the last still waits: busybox's
//! removes every link in `bin` that it does not know. So files wait in a private directory; only
//! what belongs on another file system waits beside its final name, under apk's temporary name.
//!
//! Nothing that staging does is visible under a final name; [`Staging`] remembers all of it, so that
//! it can be taken back. Every package is verified to its last byte before anything is committed.

use super::accounts::Accounts;
use super::links::Links;
use crate::format::adb::AdbError;
use crate::format::apk::{
    Checksum, ControlPart, DataReader, Entry, EntryKind, PackageReader, WHOLE,
};
use crate::format::unpacked;
use crate::format::{FormatError, Limits};
use crate::package::installed::Broken;
use crate::package::{
    Acl, Dependency, Digest, DigestAlgorithm, InstalledDirectory, InstalledFile, InstalledPackage,
    Package, ScriptKind,
};
use crate::plan::files::join;
use crate::root::{Directory, NewFile, Root, RootError, is_missing, split};
use foldhash::{HashMap, HashSet};
use rustix::fs::FileType;
use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use sha1::Sha1;
use sha2::{Digest as _, Sha256};
use std::collections::BTreeMap;
use std::fs::File;
use std::hash::BuildHasher;
use std::io::{BufReader, Read, Write};
use std::path::Path;
use std::sync::{Arc, Mutex, OnceLock};

/// Bytes moved at once from a package into a file.
const COPY_BUFFER: usize = 128 << 10;
/// Bytes read at once from a package file.
const READ_BUFFER: usize = 256 << 10;

/// Where files wait.
pub(super) const PRIVATE: &str = "lib/apk/db/.staged";
/// Lists other directories in which files wait.
const ROOMS: &str = "rooms";
/// Directories whose rooms are known at a time.
const ROOMS_KNOWN: usize = 1024;
/// Space kept for the database.
pub(super) const SPARE: &str = "spare";

/// Why a package could not be staged.
#[derive(Debug, thiserror::Error)]
pub enum StageError {
    /// The package file is damaged or not the one that is wanted.
    #[error(transparent)]
    Format(#[from] FormatError),
    /// The root could not be written.
    #[error(transparent)]
    Root(#[from] RootError),
    /// One file could not be extracted.
    #[error("failed to extract {path}: {cause}")]
    Extract {
        /// The final path.
        path: String,
        /// What the system said.
        cause: String,
    },
    /// A file is not what its checksum says.
    #[error("v2 package integrity error: {path} is not what its checksum says")]
    Checksum {
        /// The path.
        path: String,
    },
    /// A name that no package may bring; the text is escaped.
    #[error("malicious file {path}: {reason}")]
    Malicious {
        /// The name, control characters made visible.
        path: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The archive contradicts itself.
    #[error("v2 package format error: {path}: {reason}")]
    Contradiction {
        /// The name, control characters made visible.
        path: String,
        /// What is wrong.
        reason: String,
    },
    /// The file holds another package than the index said.
    #[error("v2 package integrity error: the file holds {found}")]
    OtherPackage {
        /// Name and version found.
        found: String,
    },
}

/// Numbers, names and mode as the archive has them.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Attributes {
    pub(super) mode: u32,
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) uname: String,
    pub(super) gname: String,
    pub(super) xattrs: Option<Digest>,
}

/// A directory of a staged package.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct StagedDirectory {
    pub(super) path: String,
    /// Where all its files wait, and nothing else, under their own names: it can become the
    /// directory itself.
    pub(super) folder: Option<String>,
    pub(super) attributes: Attributes,
}

/// A file of a staged package.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct StagedFile {
    /// Position in [`StagedPackage::directories`].
    pub(super) directory: usize,
    pub(super) name: String,
    pub(super) attributes: Attributes,
    /// What the database records.
    pub(super) digest: Option<Digest>,
    /// Where it waits; `None` if it is recorded but was not extracted (devices in usermode).
    pub(super) staged: Option<String>,
    pub(super) is_link: bool,
    /// Ids that the waiting file has.
    pub(super) ids: (u32, u32),
}

/// A package that was unpacked and verified.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct StagedPackage {
    /// What its own metadata says of files that it may take over.
    pub(super) replaces: Vec<Dependency>,
    pub(super) replaces_priority: u16,
    pub(super) triggers: Vec<String>,
    pub(super) scripts: BTreeMap<ScriptKind, Vec<u8>>,
    pub(super) directories: Vec<StagedDirectory>,
    pub(super) files: Vec<StagedFile>,
    pub(super) broken: Broken,
    /// The package is of the v3 form: its digests are truncated SHA-256.
    pub(super) sha256_160: bool,
    /// The entries of the archive in its order. They are only told, so the journal has none.
    #[serde(skip)]
    pub(super) entries: Vec<StagedEntry>,
}

/// An entry of the archive, by its position among the directories or files.
#[derive(Clone, Copy, Debug)]
pub(super) enum StagedEntry {
    Directory(u32),
    File(u32),
}

impl StagedPackage {
    /// Returns the records as the package has them, before owners are looked up.
    pub(super) fn records(&self) -> Vec<InstalledDirectory> {
        let acl = |attributes: &Attributes| Acl {
            uid: attributes.uid,
            gid: attributes.gid,
            mode: attributes.mode,
            xattrs: attributes.xattrs.clone(),
        };
        let mut records: Vec<InstalledDirectory> = (self.directories.iter())
            .map(|directory| InstalledDirectory {
                path: directory.path.clone(),
                acl: acl(&directory.attributes),
                files: Vec::new(),
            })
            .collect();
        for file in &self.files {
            records[file.directory].files.push(InstalledFile {
                name: file.name.clone(),
                acl: acl(&file.attributes),
                digest: file.digest.clone(),
            });
        }
        records
    }

    /// Returns the positions and final paths of the waiting files of a directory.
    pub(super) fn files_of(&self, directory: u32) -> impl Iterator<Item = (u32, String)> {
        let files = self.files.iter().enumerate();
        files
            .filter(move |(_, file)| file.directory == directory as usize && file.staged.is_some())
            .map(|(at, file)| (at as u32, self.path(file)))
    }

    /// Returns what is told of the entries.
    pub(super) fn entry_lines(&self) -> impl Iterator<Item = String> {
        self.entries.iter().map(|entry| match *entry {
            StagedEntry::Directory(at) => format!("{}/ (dir)", self.directories[at as usize].path),
            StagedEntry::File(at) => self.path(&self.files[at as usize]),
        })
    }

    /// Returns the final path of a file.
    pub(super) fn path(&self, file: &StagedFile) -> String {
        join(&self.directories[file.directory].path, &file.name)
    }
}

/// What staging did to the tree.
pub(super) struct Staging<'a> {
    pub(super) root: &'a Root,
    pub(super) accounts: &'a Accounts,
    pub(super) usermode: bool,
    pub(super) hard_links: bool,
    pub(super) limits: Limits,
    /// Flush what says where files wait.
    pub(super) sync: bool,
    /// Signals that ask to stop.
    pub(super) interrupt: Option<&'a super::Interrupt>,
    /// What waits where others can see it, under a temporary name.
    pub(super) waiting: Mutex<Vec<String>>,
    pub(super) rooms: Mutex<Rooms>,
    /// The mount of the private directory.
    pub(super) own_mount: OnceLock<u64>,
    /// The rooms of directories asked for of late: staging changes no directory that counts.
    pub(super) room_of: Mutex<HashMap<String, Room>>,
    /// Hashes of the directories that have a folder, and the number of the next folder.
    pub(super) folders: Mutex<(HashSet<u64>, u32)>,
    /// Paths where a link or file of an old package stands that a new package wants as directory.
    pub(super) blocked: &'a HashMap<String, ()>,
}

impl Staging<'_> {
    /// Unpacks one package; the cache may have it unpacked already.
    pub(super) fn unpack(
        &self,
        package: &Package,
        file: &Path,
        unpacked: bool,
        desk: &Desk,
    ) -> Result<StagedPackage, StageError> {
        let named = |error| RootError::new("open", &file.display().to_string(), error);
        let source = File::open(file).map_err(named)?;
        if unpacked {
            let (control, data) = unpacked::Reader::open(source, &self.limits)?;
            let links = self.hard_links.then(|| Links::of(file, self.usermode));
            return self.place(package, control, data, links, desk);
        }
        let size = source.metadata().map_err(named)?.len();
        if size <= WHOLE {
            let mut whole = Vec::with_capacity(size as usize);
            (source.take(size).read_to_end(&mut whole)).map_err(FormatError::from)?;
            let (control, data) = PackageReader::open_whole(&whole, &self.limits)?;
            return self.place(package, control, data, None, desk);
        }
        let source = BufReader::with_capacity(READ_BUFFER, source);
        let (control, data) = PackageReader::open(source, &self.limits)?;
        self.place(package, control, data, None, desk)
    }

    /// Places the files of a package where they wait.
    fn place(
        &self,
        package: &Package,
        control: ControlPart,
        data: impl Contents,
        links: Option<Links>,
        desk: &Desk,
    ) -> Result<StagedPackage, StageError> {
        if control.identity != package.identity {
            return Err(control.form.other_identity().into());
        }
        if control.package.name != package.name || control.package.version != package.version {
            let found = control.package.full_name();
            return Err(StageError::OtherPackage { found });
        }
        let mut unpacking = Unpacking {
            staging: self,
            package,
            directories: HashMap::default(),
            rooms: Vec::new(),
            current: None,
            by_path: HashMap::default(),
            staged: StagedPackage {
                replaces: control.package.replaces,
                replaces_priority: control.package.replaces_priority,
                triggers: control.package.triggers,
                scripts: control.scripts,
                sha256_160: control.form.is_v3(),
                ..StagedPackage::default()
            },
            buffer: vec![0; COPY_BUFFER],
            links,
            desk,
        };
        unpacking.run(data)?;
        // What the database cannot hold is refused now, not when everything is in place.
        crate::format::installed::check(&InstalledPackage {
            package: package.clone(),
            scripts: unpacking.staged.scripts.clone(),
            ..InstalledPackage::default()
        })?;
        Ok(unpacking.staged)
    }

    /// Makes the private directory; what an interrupted transaction left there is removed.
    pub(super) fn prepare(&self) -> Result<(), RootError> {
        remove_leftovers(self.root)?;
        self.root.create_directories(PRIVATE)?;
        let (directory, name) = self.root.parent(PRIVATE)?;
        directory.set_mode(name, 0o700)
    }

    /// Makes the place below the private directory where one thread lets its files wait: threads
    /// that make files in one directory wait for each other.
    pub(super) fn desk(&self, number: usize) -> Result<Desk, RootError> {
        let path = join(PRIVATE, &number.to_string());
        self.root.create_directories(&path)?;
        let made = match self.root.tree() {
            None => Some(self.root.directory(&path)?.stat_self()?),
            Some(_) => None,
        };
        Ok(Desk {
            ids: made.map(|made| (made.uid, made.gid)),
            path,
        })
    }

    /// Sets space aside for what is written when everything waits (commit.md, W15).
    pub(super) fn spare(&self, bytes: u64) -> Result<(), RootError> {
        let directory = self.root.directory(PRIVATE)?;
        let reserved = directory.create_file(SPARE, 0o600)?.reserve(bytes);
        if reserved.is_err() {
            // Some of it may be there.
            directory.remove_file(SPARE)?;
        }
        reserved
    }

    /// Notes that files wait in a directory of another file system, before the first one does.
    fn open_room(&self, room: &str) -> Result<(), RootError> {
        let mut rooms = self.rooms.lock().expect("no thread panics with it");
        if !rooms.known.insert(room.to_owned()) {
            return Ok(());
        }
        if rooms.list.is_none() {
            let directory = self.root.directory(PRIVATE)?;
            rooms.list = Some(directory.create_file(ROOMS, 0o600)?);
        }
        let list = rooms.list.as_mut().expect("it was just made");
        list.write_all(format!("{room}\n").as_bytes())
            .map_err(|error| RootError::new("write", ROOMS, error))?;
        if self.sync { list.sync() } else { Ok(()) }
    }

    /// Returns the directories outside of the private one in which files wait.
    pub(super) fn rooms(&self) -> Vec<String> {
        let rooms = self.rooms.lock().expect("no thread panics with it");
        let mut known: Vec<String> = rooms.known.iter().cloned().collect();
        known.sort();
        known
    }

    /// Returns where a file for a directory can wait: privately, at the desk of the one who asks, or
    /// in the nearest directory of another file system that is there and stays.
    ///
    /// No directory is made before packages are committed in their order: one of them may bring a
    /// link of the same name first, as `var/run` is.
    pub(super) fn waiting_room(&self, path: &str, desk: &Desk) -> Result<String, RootError> {
        match self.room(path)?.elsewhere {
            None => Ok(desk.path.clone()),
            Some(room) => self.open_room(&room).map(|()| room),
        }
    }

    fn room(&self, path: &str) -> Result<Room, RootError> {
        let mut table = self.room_of.lock().expect("no thread panics with it");
        self.find_room(path, &mut table)
    }

    /// Returns where a file for a directory can wait, as `known` has it or gets it.
    fn find_room(&self, path: &str, known: &mut HashMap<String, Room>) -> Result<Room, RootError> {
        if let Some(room) = known.get(path) {
            return Ok(room.clone());
        }
        let above = match path.is_empty() {
            true => None,
            false => Some(self.find_room(split(path).0, known)?),
        };
        let found = match &above {
            // Below a directory that is not there nothing is.
            Some(above) if above.missing || self.blocked.contains_key(path) => None,
            _ => match self.root.directory(path) {
                Ok(directory) => Some(directory.mount()?),
                Err(error) if above.is_some() && is_missing(&error.source) => None,
                Err(error) => return Err(error),
            },
        };
        let room = match (found, above) {
            (Some(mount), _) => Room {
                elsewhere: (mount != self.mount()?).then(|| path.to_owned()),
                missing: false,
            },
            (None, Some(above)) => Room {
                missing: true,
                ..above
            },
            (None, None) => unreachable!("the root was found or is an error"),
        };
        // Packages may have many and long names; those that follow each other share their directory.
        if known.len() >= ROOMS_KNOWN {
            known.clear();
        }
        known.insert(path.to_owned(), room.clone());
        Ok(room)
    }

    /// Returns the mount of the private directory.
    fn mount(&self) -> Result<u64, RootError> {
        if let Some(mount) = self.own_mount.get() {
            return Ok(*mount);
        }
        let mount = self.root.directory(PRIVATE)?.mount()?;
        Ok(*self.own_mount.get_or_init(|| mount))
    }

    /// Makes a folder for the files of a directory that is not there, if its first package asks; it
    /// may become the directory itself.
    fn folder(&self, path: &str, desk: &Desk) -> Result<Option<String>, RootError> {
        let room = self.room(path)?;
        if room.elsewhere.is_some() || !room.missing {
            return Ok(None);
        }
        let number = {
            let mut folders = self.folders.lock().expect("no thread panics with it");
            let (known, next) = &mut *folders;
            let hash = foldhash::fast::FixedState::default().hash_one(path);
            if !known.insert(hash) {
                return Ok(None);
            }
            *next += 1;
            next.to_string()
        };
        self.root
            .directory(&desk.path)?
            .create_directory(&number, 0o755)?;
        Ok(Some(join(&desk.path, &number)))
    }

    /// Removes everything that waits.
    pub(super) fn undo(&self) {
        let waiting = self
            .waiting
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        for path in waiting.iter() {
            if let Ok((directory, name)) = self.root.parent(path) {
                // What cannot be removed now is found as stale by the next transaction.
                let _ = directory.remove_file(name);
            }
        }
        let _ = remove_private(self.root);
    }
}

/// Removes the private directory with what is left in it, when nothing waits any more.
pub(super) fn remove_private(root: &Root) -> Result<(), RootError> {
    root.forget_directories();
    let removed = remove_leftovers(root).and_then(|()| {
        let (directory, name) = root.parent(PRIVATE)?;
        directory.try_remove_directory(name)
    });
    root.forget_directories();
    removed.map(drop)
}

/// Returns whether something waits, or waited.
pub(super) fn has_private(root: &Root) -> bool {
    matches!(root.stat(PRIVATE), Ok(Some(_)))
}

/// Returns how many files wait privately.
pub(super) fn waiting(root: &Root) -> Result<usize, RootError> {
    fn count(root: &Root, path: &str) -> Result<usize, RootError> {
        let mut files = 0;
        for name in root.list(path)? {
            let Some(name) = name.to_str() else { continue };
            let path = join(path, name);
            let is_dir = root.stat(&path)?.is_some_and(|stat| stat.is_dir());
            files += if is_dir { count(root, &path)? } else { 1 };
        }
        Ok(files)
    }
    count(root, PRIVATE)
}

/// Removes what waits: in the private directory, and in those that it lists.
fn remove_leftovers(root: &Root) -> Result<(), RootError> {
    let names = root.list(PRIVATE)?;
    if names.is_empty() {
        return Ok(());
    }
    let list = root.read(&join(PRIVATE, ROOMS))?.unwrap_or_default();
    for room in String::from_utf8_lossy(&list).lines() {
        remove_temporary(root, room)?;
    }
    // The list goes last: it says where to look.
    for name in names.iter().filter_map(|name| name.to_str()) {
        if name != ROOMS {
            remove_tree(root, PRIVATE, name)?;
        }
    }
    match list.is_empty() && !names.iter().any(|name| name == ROOMS) {
        true => Ok(()),
        false => root.directory(PRIVATE)?.remove_file(ROOMS),
    }
}

/// Removes a name in the private directory, with all that is in it.
fn remove_tree(root: &Root, parent: &str, name: &str) -> Result<(), RootError> {
    let directory = root.directory(parent)?;
    if !directory.stat(name)?.is_some_and(|stat| stat.is_dir()) {
        return directory.remove_file(name);
    }
    let path = join(parent, name);
    for name in root.list(&path)?.iter().filter_map(|name| name.to_str()) {
        remove_tree(root, &path, name)?;
    }
    directory.try_remove_directory(name).map(drop)
}

/// Removes files with apk's temporary names from a directory; returns how many (commit.md, W34).
pub(super) fn remove_temporary(root: &Root, path: &str) -> Result<usize, RootError> {
    let mut count = 0;
    for name in root.list(path)? {
        let Some(name) = name.to_str() else { continue };
        let hex = |digits: &str| {
            let digit = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
            digits.len() == 48 && digits.bytes().all(digit)
        };
        if name.strip_prefix(".apk.").is_some_and(hex) {
            root.directory(path)?.remove_file(name)?;
            count += 1;
        }
    }
    Ok(count)
}

/// The place where one thread lets files wait.
pub(super) struct Desk {
    path: String,
    /// Whose it is. It was made a moment ago, so what is made in it belongs to the same user and
    /// group: all that decides that was the same.
    ids: Option<(u32, u32)>,
}

/// Where the files of a directory can wait.
#[derive(Clone, Debug)]
pub(super) struct Room {
    /// A directory of another file system.
    elsewhere: Option<String>,
    /// Whether the directory is not there now.
    missing: bool,
}

/// Directories of other file systems in which files wait.
#[derive(Debug, Default)]
pub(super) struct Rooms {
    known: HashSet<String>,
    list: Option<NewFile>,
}

/// Returns apk's temporary name for a path of a package (commit.md, 4.1).
pub(super) fn temporary_name(package: &str, path: &str) -> String {
    let mut hash = Sha256::new();
    hash.update(package.as_bytes());
    hash.update([0]);
    hash.update(path.as_bytes());
    let hex = data_encoding::HEXLOWER.encode(&hash.finalize());
    format!(".apk.{}", &hex[..48])
}

/// What a package holds, entry by entry; `Read` gives the content of the current one.
trait Contents: Read {
    fn next_entry(&mut self) -> Result<Option<Entry>, FormatError>;

    /// Returns where the content of the current entry is stored as it is: file, place and bytes.
    /// It was compared with its checksum when it was put there.
    fn stored(&self) -> Option<(&File, u64, u64)>;

    /// Returns the content of the current entry if it is stored as it is, and small.
    fn small(&mut self) -> std::io::Result<Option<&[u8]>>;

    /// Checks that everything was right.
    fn finish(self) -> Result<(), FormatError>;
}

impl<R: std::io::BufRead> Contents for DataReader<R> {
    fn next_entry(&mut self) -> Result<Option<Entry>, FormatError> {
        DataReader::next_entry(self)
    }

    fn stored(&self) -> Option<(&File, u64, u64)> {
        None
    }

    fn small(&mut self) -> std::io::Result<Option<&[u8]>> {
        Ok(None)
    }

    fn finish(self) -> Result<(), FormatError> {
        DataReader::finish(self).map(drop)
    }
}

impl Contents for unpacked::Reader {
    fn next_entry(&mut self) -> Result<Option<Entry>, FormatError> {
        Ok(unpacked::Reader::next_entry(self))
    }

    fn stored(&self) -> Option<(&File, u64, u64)> {
        Some(unpacked::Reader::stored(self))
    }

    fn small(&mut self) -> std::io::Result<Option<&[u8]>> {
        unpacked::Reader::small(self)
    }

    fn finish(self) -> Result<(), FormatError> {
        Ok(())
    }
}

/// Where the files of a directory wait.
struct Waiting {
    room: String,
    /// Nobody else looks there.
    private: bool,
}

/// One package being unpacked.
struct Unpacking<'a, 's> {
    staging: &'a Staging<'s>,
    package: &'a Package,
    /// Final directory → its position.
    directories: HashMap<String, usize>,
    /// Where the files of each directory wait, once it has any.
    rooms: Vec<Option<Waiting>>,
    /// The directory whose files came last, open.
    current: Option<(usize, Arc<Directory>)>,
    /// Final path → position of the file.
    by_path: HashMap<String, usize>,
    staged: StagedPackage,
    buffer: Vec<u8>,
    /// Files that may be shared with the cache.
    links: Option<Links>,
    desk: &'a Desk,
}

impl Unpacking<'_, '_> {
    fn run(&mut self, mut data: impl Contents) -> Result<(), StageError> {
        while let Some(entry) = data.next_entry()? {
            let reason = entry.malicious.or_else(|| own_files(&entry.path));
            if let Some(reason) = reason {
                let path = entry.path.escape_debug().to_string();
                return Err(StageError::Malicious { path, reason });
            }
            if entry.header.kind == EntryKind::Directory {
                let position = self.directory(&entry.path, attributes(&entry))?;
                let told = StagedEntry::Directory(position as u32);
                self.staged.entries.push(told);
            } else {
                let told = StagedEntry::File(self.staged.files.len() as u32);
                self.file(&entry, &mut data)?;
                self.staged.entries.push(told);
            }
        }
        data.finish()?;
        if let Some(links) = &self.links {
            links.finish();
        }
        Ok(())
    }

    /// Returns the position of a directory that has these attributes now.
    fn directory(&mut self, path: &str, attributes: Attributes) -> Result<usize, StageError> {
        if let Some(position) = self.directories.get(path) {
            self.staged.directories[*position].attributes = attributes;
            return Ok(*position);
        }
        if self.by_path.contains_key(path) {
            return Err(self.contradiction(path, "the name comes twice"));
        }
        let position = self.staged.directories.len();
        self.directories.insert(path.to_owned(), position);
        self.rooms.push(None);
        self.staged.directories.push(StagedDirectory {
            path: path.to_owned(),
            folder: None,
            attributes,
        });
        Ok(position)
    }

    /// Returns where the files of a directory wait.
    fn room(&mut self, position: usize) -> Result<(Arc<Directory>, bool), RootError> {
        let root = self.staging.root;
        let waiting = match &mut self.rooms[position] {
            Some(waiting) => waiting,
            none => {
                let staged = &mut self.staged.directories[position];
                staged.folder = self.staging.folder(&staged.path, self.desk)?;
                let room = match &staged.folder {
                    Some(folder) => folder.clone(),
                    None => self.staging.waiting_room(&staged.path, self.desk)?,
                };
                let private = staged.folder.is_some() || room == self.desk.path;
                none.insert(Waiting { room, private })
            }
        };
        let open = match &self.current {
            Some((at, open)) if *at == position => Arc::clone(open),
            _ => root.directory(&waiting.room)?,
        };
        self.current = Some((position, Arc::clone(&open)));
        Ok((open, waiting.private))
    }

    fn file(&mut self, entry: &Entry, data: &mut impl Contents) -> Result<(), StageError> {
        let (parent, name) = split(&entry.path);
        if parent.is_empty() && !self.directories.contains_key("") {
            let root = Attributes {
                mode: 0o755,
                uid: 0,
                gid: 0,
                uname: "root".into(),
                gname: "root".into(),
                xattrs: None,
            };
            self.directory("", root)?;
        }
        let Some(position) = self.directories.get(parent).copied() else {
            return Err(self.contradiction(&entry.path, "no dirent in archive"));
        };
        if self.by_path.contains_key(&entry.path) || self.directories.contains_key(&entry.path) {
            return Err(self.contradiction(&entry.path, "the name comes twice"));
        }
        let header = &entry.header;
        let (uid, gid) =
            self.staging
                .accounts
                .ids(&header.uname, header.uid, &header.gname, header.gid);
        let attributes = attributes(entry);
        let (directory, private) = self.room(position)?;
        let made_for = self.desk.ids.filter(|_| private);
        let temporary = match self.staged.directories[position].folder {
            Some(_) => name.to_owned(),
            None => temporary_name(&self.package.name, &entry.path),
        };
        let waiting = directory.join(&temporary);
        let mut staged = StagedFile {
            directory: position,
            name: name.to_owned(),
            attributes,
            digest: header.checksum.recorded(),
            staged: Some(waiting.clone()),
            is_link: false,
            ids: (uid, gid),
        };
        let fail = |error: RootError| StageError::Extract {
            path: entry.path.clone(),
            cause: error.cause(),
        };
        if !private {
            let mut elsewhere = self.staging.waiting.lock();
            let elsewhere = elsewhere.as_mut().expect("no thread panics with it");
            elsewhere.push(waiting);
        }
        match &header.kind {
            EntryKind::File => {
                if !header.checksum.is_some() {
                    return Err(FormatError::Obsolete.into());
                }
                let links = self.links.as_ref().zip(data.stored());
                let shared = links.is_some_and(|(links, content)| {
                    links.share(&entry.path, header, content, &directory, &temporary)
                });
                if !shared {
                    let create = || directory.create_file(&temporary, header.mode);
                    let mut file = replacing(&directory, &temporary, create).map_err(fail)?;
                    self.fill(&mut file, entry, data)?;
                    let owner = Some((uid, gid)).filter(|owner| made_for != Some(*owner));
                    self.attributes_of_file(&file, entry, owner).map_err(fail)?;
                }
            }
            EntryKind::HardLink(target) => {
                let Some(first) = self.by_path.get(target.as_str()) else {
                    let target = target.escape_debug();
                    let reason = format!("no hard link target ({target}) in archive");
                    return Err(self.contradiction(&entry.path, &reason));
                };
                let first = &self.staged.files[*first];
                // A v3 package may say what the target must be; what it does not say is not recorded.
                let said = staged.digest.is_some() && self.staged.sha256_160;
                if said && staged.digest != first.digest {
                    let path = entry.path.clone();
                    return Err(FormatError::from(AdbError::Content { path }).into());
                }
                if !self.staged.sha256_160 {
                    staged.digest.clone_from(&first.digest);
                }
                let from = first.staged.clone().unwrap_or_default();
                let (from_directory, from_name) = self.staging.root.parent(&from)?;
                let link = || directory.create_hard_link(&from_directory, from_name, &temporary);
                replacing(&directory, &temporary, link).map_err(fail)?;
            }
            EntryKind::Symlink(target) => {
                staged.is_link = true;
                if !header.checksum.fits(target.as_bytes()) {
                    return Err(StageError::Checksum {
                        path: entry.path.clone(),
                    });
                }
                let link = || directory.create_symlink(target, &temporary);
                replacing(&directory, &temporary, link).map_err(fail)?;
                if !self.staging.usermode && made_for != Some((uid, gid)) {
                    directory.set_owner(&temporary, uid, gid).map_err(fail)?;
                }
            }
            kind => {
                staged.digest = None;
                if self.staging.usermode {
                    staged.staged = None;
                } else {
                    let node = || create_node(&directory, &temporary, kind, header.mode);
                    replacing(&directory, &temporary, node).map_err(fail)?;
                    directory.set_owner(&temporary, uid, gid).map_err(fail)?;
                    directory.set_mode(&temporary, header.mode).map_err(fail)?;
                    directory.set_time(&temporary, header.mtime).map_err(fail)?;
                }
            }
        }
        self.by_path
            .insert(entry.path.clone(), self.staged.files.len());
        self.staged.files.push(staged);
        Ok(())
    }

    /// Makes the error for entries that contradict each other.
    fn contradiction(&self, path: &str, reason: &str) -> StageError {
        let path = path.escape_debug().to_string();
        if self.staged.sha256_160 {
            let reason = format!("{path}: {reason}");
            return FormatError::from(AdbError::Schema { reason }).into();
        }
        let reason = reason.to_owned();
        StageError::Contradiction { path, reason }
    }

    /// Gives a file the content of the current entry.
    fn fill(
        &mut self,
        file: &mut NewFile,
        entry: &Entry,
        data: &mut impl Contents,
    ) -> Result<(), StageError> {
        let path = || entry.path.clone();
        let fail = |error: std::io::Error| StageError::Extract {
            path: path(),
            cause: crate::root::cause(&error),
        };
        if let Some(content) = data.small().map_err(fail)? {
            return file.write_all(content).map_err(fail);
        }
        if let Some((source, at, count)) = data.stored() {
            return file.append_from(source, at, count).map_err(fail);
        }
        let hash = self.copy(file, data, entry)?;
        match hash == entry.header.checksum {
            true => Ok(()),
            false => Err(StageError::Checksum { path: path() }),
        }
    }

    /// Copies the content of the current entry and returns its checksum.
    fn copy(
        &mut self,
        file: &mut NewFile,
        data: &mut impl Contents,
        entry: &Entry,
    ) -> Result<Checksum, StageError> {
        let mut hash = entry.header.checksum.hash();
        loop {
            let interrupt = self.staging.interrupt;
            if interrupt.and_then(super::Interrupt::wanted).is_some() {
                return Err(
                    FormatError::from(std::io::Error::from(rustix::io::Errno::CANCELED)).into(),
                );
            }
            let count = data.read(&mut self.buffer).map_err(FormatError::from)?;
            if count == 0 {
                return Ok(hash.finish());
            }
            hash.update(&self.buffer[..count]);
            file.write_all(&self.buffer[..count])
                .map_err(|error| StageError::Extract {
                    path: entry.path.clone(),
                    cause: crate::root::cause(&error),
                })?;
        }
    }

    /// Sets the owner unless it is right, mode, extended attributes and times through the open file
    /// (commit.md, W19).
    fn attributes_of_file(
        &mut self,
        file: &NewFile,
        entry: &Entry,
        owner: Option<(u32, u32)>,
    ) -> Result<(), RootError> {
        let header = &entry.header;
        if !self.staging.usermode {
            if let Some((uid, gid)) = owner {
                file.set_owner(uid, gid)?;
            }
            // Changing the owner clears the set-id bits, and so does writing.
            if header.mode & 0o7000 != 0 {
                file.set_mode(header.mode)?;
            }
        }
        for (name, value) in &header.xattrs {
            if self.staging.usermode && !name.starts_with("user.") {
                continue;
            }
            // Once more: a full disk and a value that does not fit give the same error.
            let set = || file.set_attribute(name, value);
            match set().or_else(|_| set()) {
                Err(error) if error.source.raw_os_error() == Some(Errno::IO.raw_os_error()) => {
                    return Err(error);
                }
                Err(_) => self.staged.broken.xattrs = true,
                Ok(()) => {}
            }
        }
        file.set_time(header.mtime)
    }
}

/// Makes something under a temporary name; a leftover of an earlier attempt is replaced.
fn replacing<T>(
    directory: &Directory,
    name: &str,
    make: impl Fn() -> Result<T, RootError>,
) -> Result<T, RootError> {
    match make() {
        Err(error) if error.source.kind() == std::io::ErrorKind::AlreadyExists => {
            directory.remove_file(name)?;
            make()
        }
        other => other,
    }
}

/// Makes a device or FIFO.
///
/// # Errors
/// [`RootError`].
pub fn create_node(
    directory: &Directory,
    name: &str,
    kind: &EntryKind,
    mode: u32,
) -> Result<(), RootError> {
    let (kind, major, minor) = match kind {
        EntryKind::CharDevice(major, minor) => (FileType::CharacterDevice, *major, *minor),
        EntryKind::BlockDevice(major, minor) => (FileType::BlockDevice, *major, *minor),
        _ => (FileType::Fifo, 0, 0),
    };
    directory.create_node(name, kind, mode, major, minor)
}

fn attributes(entry: &Entry) -> Attributes {
    let header = &entry.header;
    Attributes {
        mode: header.mode,
        uid: header.uid,
        gid: header.gid,
        uname: header.uname.clone(),
        gname: header.gname.clone(),
        xattrs: xattr_digest(&header.xattrs),
    }
}

/// Returns the digest that the database records for extended attributes (formats.md, 2.10).
pub fn xattr_digest(xattrs: &[(String, Vec<u8>)]) -> Option<Digest> {
    if xattrs.is_empty() {
        return None;
    }
    // The last value of a name counts, names in byte order.
    let sorted: BTreeMap<&str, &[u8]> = xattrs
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_slice()))
        .collect();
    let mut hash = Sha1::new();
    for (name, value) in sorted {
        hash.update((name.len() as u32).to_be_bytes());
        hash.update(name);
        hash.update((value.len() as u32).to_be_bytes());
        hash.update(value);
    }
    Some(Digest::new(DigestAlgorithm::Sha1, hash.finalize().to_vec()))
}

/// Where the history and the kept packages of a root are.
const OURS: &str = "var/lib/ibex";

/// Returns why a package must not bring a path: apk's own state is not a package's business
/// (commit.md, W29).
fn own_files(path: &str) -> Option<&'static str> {
    let inside = |folder: &str| {
        path.strip_prefix(folder)
            .is_some_and(|rest| rest.starts_with('/'))
    };
    match inside("lib/apk/db") || inside("lib/apk/exec") {
        true => Some("apk's own files"),
        false => inside(OURS).then_some("ibex's own files"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_digests_are_those_of_the_specification() {
        assert_eq!(
            temporary_name("p", "etc/a"),
            ".apk.d7661d1e0906f0a483c5fb83f5be65ce714987255778d3cf"
        );
        let digest = xattr_digest(&[("user.foo".into(), b"bar".to_vec())]).unwrap();
        assert_eq!(digest.to_q1(), "Q1PRtF90e/MH8X0tNudu5SuM6PFR4=");
    }
}
