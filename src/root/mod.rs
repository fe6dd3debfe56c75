//! A directory tree nobody can climb out of.
//!
//! Every access goes through an open directory with `openat2(RESOLVE_IN_ROOT)`: symbolic links
//! inside the tree keep working, absolute ones are taken relative to it, and nothing reaches
//! outside. Only the last component of a path is then handled by the `*at` calls, which do not
//! follow it. Nothing here knows what a package is.

mod atomic;
mod directory;
#[cfg(feature = "testing")]
pub mod fault;
#[cfg(not(feature = "testing"))]
pub(crate) mod fault;
mod file;
mod lock;
mod mounts;
mod output;
pub mod passing;
mod path;
pub mod tree;

pub use directory::{Directory, Stat};
pub use file::{NewFile, OpenFile};
pub use lock::{Holder, RootLock};
pub use output::{is_special, write_output};
pub use path::{PathError, RelPath};
pub use tree::Tree;

use foldhash::HashMap;
use rustix::fs::{CWD, FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

/// An action on a path below a root failed.
#[derive(Debug, thiserror::Error)]
#[error("cannot {action} {path}: {}", cause(.source))]
pub struct RootError {
    /// What was tried.
    pub action: &'static str,
    /// On what, relative to the root.
    pub path: String,
    /// What the system said.
    #[source]
    pub source: io::Error,
}

impl RootError {
    /// Makes an error from a system call's result.
    pub fn new(action: &'static str, path: &str, source: impl Into<io::Error>) -> Self {
        Self {
            action,
            path: path.to_owned(),
            source: source.into(),
        }
    }

    /// Returns the system's words alone, as apk prints them behind a colon.
    pub fn cause(&self) -> String {
        cause(&self.source)
    }
}

/// Returns what the system says, without the number that Rust appends.
pub fn cause(error: &io::Error) -> String {
    let text = error.to_string();
    match text.find(" (os error ") {
        Some(at) => text[..at].to_owned(),
        None => text,
    }
}

/// Directories that are open at the same time; a process may have 1024 files.
const OPEN_DIRECTORIES: usize = 256;

/// Where a root is: an open directory of a disk, or a tree in memory.
#[derive(Debug)]
enum Place {
    Disk(OwnedFd),
    Tree(Tree),
}

/// An open root directory.
#[derive(Debug)]
pub struct Root {
    place: Place,
    path: PathBuf,
    /// Open directories by path; they are dropped when the tree's shape changes.
    open: Mutex<HashMap<String, Arc<Directory>>>,
}

impl Root {
    /// Opens an existing directory as a root.
    ///
    /// # Errors
    /// [`RootError`].
    pub fn open(path: &Path) -> Result<Self, RootError> {
        let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC;
        let name = || path.display().to_string();
        let fd = rustix::fs::openat(CWD, path, flags, Mode::empty())
            .map_err(|errno| RootError::new("open", &name(), errno))?;
        let path =
            std::fs::canonicalize(path).map_err(|error| RootError::new("open", &name(), error))?;
        Ok(Self {
            place: Place::Disk(fd),
            path,
            open: Mutex::new(HashMap::default()),
        })
    }

    /// Makes a root of a tree in memory; it has no path.
    pub fn of_tree(tree: &Tree) -> Self {
        Self {
            place: Place::Tree(tree.clone()),
            path: PathBuf::new(),
            open: Mutex::new(HashMap::default()),
        }
    }

    /// Returns the tree of a root in memory.
    pub fn tree(&self) -> Option<&Tree> {
        match &self.place {
            Place::Disk(_) => None,
            Place::Tree(tree) => Some(tree),
        }
    }

    /// Opens a root and creates the directory first if it is missing (not its parents).
    ///
    /// # Errors
    /// [`RootError`].
    pub fn create(path: &Path) -> Result<Self, RootError> {
        match rustix::fs::mkdirat(CWD, path, Mode::from_raw_mode(0o755)) {
            Ok(()) | Err(Errno::EXIST) => Self::open(path),
            Err(errno) => Err(RootError::new("create", &path.display().to_string(), errno)),
        }
    }

    /// Returns the path the root was opened by, made absolute.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns whether this is the root of the running system.
    pub fn is_system(&self) -> bool {
        self.path == Path::new("/")
    }

    /// Opens a directory below the root, following links inside of it.
    ///
    /// # Errors
    /// [`RootError`].
    pub fn directory(&self, path: &str) -> Result<Arc<Directory>, RootError> {
        if let Some(open) = self.cache().get(path) {
            return Ok(Arc::clone(open));
        }
        let opened = match &self.place {
            Place::Disk(fd) => resolve(fd, path, OFlags::DIRECTORY | OFlags::RDONLY)
                .map(|fd| Directory::new(fd, path)),
            Place::Tree(tree) => tree
                .resolve_directory(path)
                .map(|node| Directory::of_tree(tree, node, path)),
        };
        let directory = opened.map_err(|errno| RootError::new("open", path, errno))?;
        let directory = Arc::new(directory);
        let mut cache = self.cache();
        if cache.len() >= OPEN_DIRECTORIES {
            cache.clear();
        }
        cache.insert(path.to_owned(), Arc::clone(&directory));
        Ok(directory)
    }

    /// Forgets open directories; call it when directories were removed, replaced or renamed.
    pub fn forget_directories(&self) {
        self.cache().clear();
    }

    fn cache(&self) -> std::sync::MutexGuard<'_, HashMap<String, Arc<Directory>>> {
        self.open
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Opens the directory that holds a path, and returns it with the last component.
    ///
    /// # Errors
    /// [`RootError`].
    pub fn parent<'p>(&self, path: &'p str) -> Result<(Arc<Directory>, &'p str), RootError> {
        let (parent, name) = split(path);
        Ok((self.directory(parent)?, name))
    }

    /// Opens a file for reading, following links inside the root; `None` if it is not there.
    ///
    /// # Errors
    /// [`RootError`].
    pub fn open_file(&self, path: &str) -> Result<Option<OpenFile>, RootError> {
        let opened = match &self.place {
            Place::Disk(fd) => resolve(fd, path, OFlags::RDONLY | OFlags::NONBLOCK)
                .map(|fd| OpenFile::of_disk(File::from(fd))),
            Place::Tree(tree) => tree
                .resolve(path)
                .and_then(|node| tree.open_node(node))
                .map(OpenFile::of_tree),
        };
        match opened {
            Ok(file) => Ok(Some(file)),
            Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
            Err(errno) => Err(RootError::new("open", path, errno)),
        }
    }

    /// Reads a file; `None` if it is not there.
    ///
    /// # Errors
    /// [`RootError`].
    pub fn read(&self, path: &str) -> Result<Option<Vec<u8>>, RootError> {
        let Some(mut file) = self.open_file(path)? else {
            return Ok(None);
        };
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)
            .map_err(|error| RootError::new("read", path, error))?;
        Ok(Some(bytes))
    }

    /// Reads a file that must be a regular one, following links inside the root; `None` if it is not
    /// there. A FIFO or a device would be read as an empty file.
    ///
    /// # Errors
    /// [`RootError`], of the kind `InvalidInput` if it is something else.
    pub fn read_regular(&self, path: &str) -> Result<Option<Vec<u8>>, RootError> {
        let Some(mut file) = self.open_file(path)? else {
            return Ok(None);
        };
        let kind = file.fd().map(rustix::fs::fstat).transpose();
        let kind = kind.map_err(|errno| RootError::new("examine", path, errno))?;
        let kind = kind.map(|stat| FileType::from_raw_mode(stat.st_mode));
        // The system itself refuses to read a directory.
        let read = [FileType::RegularFile, FileType::Directory];
        if kind.is_some_and(|kind| !read.contains(&kind)) {
            let wrong = io::Error::new(io::ErrorKind::InvalidInput, "it is not a regular file");
            return Err(RootError::new("read", path, wrong));
        }
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)
            .map_err(|error| RootError::new("read", path, error))?;
        Ok(Some(bytes))
    }

    /// Opens a file for appending, with its parents; it is created with `mode`.
    ///
    /// # Errors
    /// [`RootError`].
    pub fn append(&self, path: &str, mode: u32) -> Result<File, RootError> {
        let (parent, name) = split(path);
        self.create_directories(parent)?;
        self.directory(parent)?.append(name, mode)
    }

    /// Returns what is at a path, without following the last component; `None` if nothing is.
    ///
    /// # Errors
    /// [`RootError`].
    pub fn stat(&self, path: &str) -> Result<Option<Stat>, RootError> {
        if path.is_empty() {
            return self.directory("")?.stat_self().map(Some);
        }
        match self.parent(path) {
            Ok((directory, name)) => directory.stat(name),
            Err(error) if is_missing(&error.source) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Returns the entries of a directory, sorted; empty if it is not there.
    ///
    /// # Errors
    /// [`RootError`].
    pub fn list(&self, path: &str) -> Result<Vec<OsString>, RootError> {
        match self.directory(path) {
            Ok(directory) => directory.list(),
            Err(error) if is_missing(&error.source) => Ok(Vec::new()),
            Err(error) => Err(error),
        }
    }

    /// Creates a directory and its parents with mode 0755; existing ones are left alone.
    ///
    /// # Errors
    /// [`RootError`].
    pub fn create_directories(&self, path: &str) -> Result<(), RootError> {
        if path.is_empty() || self.directory(path).is_ok() {
            return Ok(());
        }
        let (parent, name) = split(path);
        self.create_directories(parent)?;
        self.directory(parent)?.create_directory(name, 0o755)
    }

    /// Replaces a file as a whole, with its parents: a temporary name beside it, then a rename.
    ///
    /// With `sync` the content is flushed before the rename and the directory after it.
    ///
    /// # Errors
    /// [`RootError`]; the old file is still there then.
    pub fn replace(
        &self,
        path: &str,
        content: &[u8],
        mode: u32,
        sync: bool,
    ) -> Result<(), RootError> {
        let (parent, name) = split(path);
        self.create_directories(parent)?;
        atomic::replace(&*self.directory(parent)?, name, content, mode, sync)
    }

    /// Returns whether the root is a file system in memory.
    pub fn is_tmpfs(&self) -> bool {
        const TMPFS_MAGIC: u64 = 0x0102_1994;
        const RAMFS_MAGIC: u64 = 0x8584_58f6;
        let Place::Disk(fd) = &self.place else {
            return false;
        };
        rustix::fs::fstatfs(fd)
            .is_ok_and(|fs| matches!(fs.f_type as u64, TMPFS_MAGIC | RAMFS_MAGIC))
    }

    /// Returns the bytes that can still be written, and the number of files.
    pub fn free_space(&self) -> Option<(u64, u64)> {
        let Place::Disk(fd) = &self.place else {
            return None;
        };
        let fs = rustix::fs::fstatvfs(fd).ok()?;
        let files = if fs.f_files == 0 {
            u64::MAX
        } else {
            fs.f_favail
        };
        Some((fs.f_bavail.saturating_mul(fs.f_frsize), files))
    }

    /// Returns the bytes that can still be written on the file systems of the root and of the
    /// directories in it, all together.
    pub fn free_space_everywhere(&self) -> u64 {
        let (Ok(top), Place::Disk(_)) = (self.directory(""), &self.place) else {
            return u64::MAX;
        };
        let mut seen = Vec::new();
        let mut free = 0u64;
        let names = top.list().unwrap_or_default();
        let folders = names.iter().filter_map(|name| name.to_str());
        for path in std::iter::once("").chain(folders) {
            let stat = match path {
                "" => top.stat_self().ok(),
                name => top.stat(name).ok().flatten(),
            };
            let Some(stat) = stat.filter(Stat::is_dir) else {
                continue;
            };
            if seen.contains(&stat.inode.0) {
                continue;
            }
            seen.push(stat.inode.0);
            let open = self.directory(path).ok();
            let space = open.and_then(|open| rustix::fs::fstatvfs(open.fd()?).ok());
            // What says nothing about itself is not what stops us.
            let space = space.map_or(u64::MAX, |fs| fs.f_bavail.saturating_mul(fs.f_frsize));
            free = free.saturating_add(space);
        }
        free
    }

    /// Returns the directories below the root on which other file systems are mounted, those aside
    /// that the kernel makes up; none where the system does not tell.
    pub fn mounts(&self) -> Vec<String> {
        let (Ok(root), Place::Disk(_)) = (self.path.canonicalize(), &self.place) else {
            return Vec::new();
        };
        let text = std::fs::read("/proc/self/mountinfo").unwrap_or_default();
        mounts::below(&root, &text)
    }

    /// Says that a program is about to run in the root, for those who count what changes it.
    pub fn note_program(&self, name: &str, text: Option<&[u8]>, arguments: &[String]) {
        // It is not for a test to keep a program from running.
        let _ = fault::step(|| {
            let text = text.unwrap_or_default().to_vec();
            fault::Operation::Program(name.to_owned(), text, arguments.to_vec())
        });
    }

    /// Says that a library wrote a file of the root by itself, for those who count what changes it.
    pub fn note_written(&self, path: &str) {
        let _ = fault::step(|| {
            let content = self.read(path).ok().flatten().unwrap_or_default();
            fault::Operation::Written(path.to_owned(), content)
        });
    }

    /// Flushes the file system of the root.
    ///
    /// # Errors
    /// [`RootError`].
    pub fn sync(&self) -> Result<(), RootError> {
        self.directory("")?.sync_file_system()
    }
}

/// Opens a path below a directory of a disk.
fn resolve(root: &OwnedFd, path: &str, flags: OFlags) -> Result<OwnedFd, Errno> {
    let path = if path.is_empty() { "." } else { path };
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let flags = flags | OFlags::CLOEXEC;
    loop {
        match rustix::fs::openat2(root, path, flags, Mode::empty(), resolve) {
            Err(Errno::AGAIN | Errno::INTR) => {}
            other => return other,
        }
    }
}

/// Returns whether a test watches the operations that change a root.
pub fn is_watched() -> bool {
    fault::is_active()
}

/// Splits a path into the directory and the last component.
pub fn split(path: &str) -> (&str, &str) {
    path.rsplit_once('/').unwrap_or(("", path))
}

/// Returns whether an error says that there is no space left.
pub fn is_full(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
    )
}

/// Returns whether an error says that nothing is at the path.
pub fn is_missing(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
    )
}
