//! An open directory: what can be done with the names in it, never following them.

use super::fault::{self, Operation};
use super::file::{NewFile, OpenFile, next_handle};
use super::tree::Tree;
use super::{RootError, is_missing};
use rustix::fs::{
    self, AtFlags, Dev, FileType, Gid, Mode, OFlags, Timespec, Timestamps, UTIME_OMIT, Uid,
};
use rustix::io::Errno;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

/// What is at a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stat {
    /// File, directory, link, …
    pub kind: FileType,
    /// Permission, set-id and sticky bits.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Size in bytes.
    pub size: u64,
    /// Device and inode: two paths with the same pair are one file.
    pub inode: (u64, u64),
    /// Device number of a device.
    pub rdev: u64,
    /// When the content was changed: seconds since 1970, nanoseconds.
    pub modified: (i64, u32),
}

impl Stat {
    fn new(stat: &fs::Stat) -> Self {
        Self {
            kind: FileType::from_raw_mode(stat.st_mode),
            mode: stat.st_mode & 0o7777,
            uid: stat.st_uid,
            gid: stat.st_gid,
            size: stat.st_size as u64,
            inode: (stat.st_dev, stat.st_ino),
            rdev: stat.st_rdev,
            modified: (stat.st_mtime, stat.st_mtime_nsec as u32),
        }
    }

    /// Returns whether it is a directory.
    pub fn is_dir(&self) -> bool {
        self.kind == FileType::Directory
    }
}

/// Where a directory is: open on a disk, or a node of a tree in memory.
#[derive(Debug)]
enum Place {
    Disk(OwnedFd),
    Tree(Tree, usize),
}

/// An open directory below a root.
#[derive(Debug)]
pub struct Directory {
    place: Place,
    path: String,
}

impl Directory {
    pub(super) fn new(fd: OwnedFd, path: &str) -> Self {
        Self {
            place: Place::Disk(fd),
            path: path.to_owned(),
        }
    }

    pub(super) fn of_tree(tree: &Tree, node: usize, path: &str) -> Self {
        Self {
            place: Place::Tree(tree.clone(), node),
            path: path.to_owned(),
        }
    }

    /// Returns the descriptor of a directory on a disk.
    pub fn fd(&self) -> Option<BorrowedFd<'_>> {
        match &self.place {
            Place::Disk(fd) => Some(fd.as_fd()),
            Place::Tree(..) => None,
        }
    }

    /// Returns the path of a name in this directory, relative to the root.
    pub fn join(&self, name: &str) -> String {
        if self.path.is_empty() {
            name.to_owned()
        } else {
            format!("{}/{name}", self.path)
        }
    }

    fn error(&self, action: &'static str, name: &str, errno: Errno) -> RootError {
        RootError::new(action, &self.join(name), errno)
    }

    /// Returns what has a name; `None` if nothing.
    ///
    /// # Errors
    /// [`RootError`].
    pub fn stat(&self, name: &str) -> Result<Option<Stat>, RootError> {
        let found = match &self.place {
            Place::Disk(fd) => {
                fs::statat(fd, name, AtFlags::SYMLINK_NOFOLLOW).map(|stat| Stat::new(&stat))
            }
            Place::Tree(tree, at) => tree.stat(*at, name),
        };
        match found {
            Ok(stat) => Ok(Some(stat)),
            Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
            Err(errno) => Err(self.error("examine", name, errno)),
        }
    }

    /// Returns what the directory itself is.
    ///
    /// # Errors
    /// [`RootError`].
    pub fn stat_self(&self) -> Result<Stat, RootError> {
        match &self.place {
            Place::Disk(fd) => fs::fstat(fd)
                .map(|stat| Stat::new(&stat))
                .map_err(|errno| RootError::new("examine", &self.path, errno)),
            Place::Tree(tree, at) => Ok(tree.stat_self(*at)),
        }
    }

    /// Returns the number of the mount that the directory is on. Names move between directories of one
    /// mount only, also where two mounts show the same file system.
    ///
    /// # Errors
    /// [`RootError`].
    pub fn mount(&self) -> Result<u64, RootError> {
        if let Some(fd) = self.fd() {
            let wanted = fs::StatxFlags::MNT_ID;
            match fs::statx(fd, "", AtFlags::EMPTY_PATH, wanted) {
                Ok(found) if found.stx_mask & wanted.bits() != 0 => return Ok(found.stx_mnt_id),
                // Older than Linux 5.8, or forbidden: the device says nearly the same.
                Ok(_) | Err(Errno::NOSYS | Errno::PERM) => {}
                Err(errno) => return Err(RootError::new("examine", &self.path, errno)),
            }
        }
        Ok(self.stat_self()?.inode.0)
    }

    /// Returns the bytes that removing a file gives back: none if it has other names.
    pub fn gives_back(&self, name: &str) -> u64 {
        let stat = self
            .fd()
            .and_then(|fd| fs::statat(fd, name, AtFlags::SYMLINK_NOFOLLOW).ok());
        let alone = stat.filter(|stat| {
            FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile && stat.st_nlink == 1
        });
        alone.map_or(0, |stat| (stat.st_blocks as u64).saturating_mul(512))
    }

    /// Returns when what has a name was changed last: its content, then its attributes, in
    /// nanoseconds since 1970.
    ///
    /// # Errors
    /// [`RootError`]; a tree in memory keeps no such times.
    pub fn modified(&self, name: &str) -> Result<(i64, i64), RootError> {
        self.stat_and_times(name).map(|(_, times)| times)
    }

    /// Returns what has a name, with the times of [`Directory::modified`].
    ///
    /// # Errors
    /// [`RootError`], also if nothing has the name; a tree in memory keeps no such times.
    pub fn stat_and_times(&self, name: &str) -> Result<(Stat, (i64, i64)), RootError> {
        let Some(fd) = self.fd() else {
            return Err(self.error("examine", name, Errno::OPNOTSUPP));
        };
        let stat = fs::statat(fd, name, AtFlags::SYMLINK_NOFOLLOW)
            .map_err(|errno| self.error("examine", name, errno))?;
        let of = |seconds: i64, fraction: i64| {
            seconds
                .saturating_mul(1_000_000_000)
                .saturating_add(fraction)
        };
        let times = (
            of(stat.st_mtime, stat.st_mtime_nsec as i64),
            of(stat.st_ctime, stat.st_ctime_nsec as i64),
        );
        Ok((Stat::new(&stat), times))
    }

    /// Returns the names, sorted by bytes, without `.` and `..`.
    ///
    /// # Errors
    /// [`RootError`].
    pub fn list(&self) -> Result<Vec<OsString>, RootError> {
        let error = |errno: Errno| RootError::new("list", &self.path, errno);
        let fd = match &self.place {
            Place::Disk(fd) => fd,
            Place::Tree(tree, at) => return tree.list(*at).map_err(error),
        };
        let mut names = Vec::new();
        for entry in fs::Dir::read_from(fd).map_err(error)? {
            let entry = entry.map_err(error)?;
            let name = entry.file_name().to_bytes();
            if !matches!(name, b"." | b"..") {
                names.push(OsStr::from_bytes(name).to_owned());
            }
        }
        names.sort();
        Ok(names)
    }

    /// Creates a new file for writing; an existing name is an error.
    ///
    /// # Errors
    /// [`RootError`].
    pub fn create_file(&self, name: &str, mode: u32) -> Result<NewFile, RootError> {
        self.write_file(name, mode, OFlags::EXCL)
    }

    /// Opens a file to write behind its end; it must be there.
    ///
    /// # Errors
    /// [`RootError`].
    pub fn continue_file(&self, name: &str) -> Result<NewFile, RootError> {
        self.write_file(name, 0, OFlags::APPEND)
    }

    fn write_file(&self, name: &str, mode: u32, how: OFlags) -> Result<NewFile, RootError> {
        let append = how.contains(OFlags::APPEND);
        let create = if append {
            OFlags::empty()
        } else {
            OFlags::CREATE
        };
        let flags = how | create | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let (path, handle) = (self.join(name), next_handle());
        fault::step(|| Operation::Create {
            handle,
            path: path.clone(),
            mode,
            append,
        })
        .and_then(|()| match &self.place {
            Place::Disk(fd) => fs::openat(fd, name, flags, Mode::from_raw_mode(mode))
                .map(|fd| NewFile::new(fd.into(), path.clone(), handle)),
            Place::Tree(tree, at) => {
                let file = match append {
                    true => tree.continue_file(*at, name),
                    false => tree.create_file(*at, name, mode),
                };
                file.map(|file| NewFile::of_tree(file, path.clone(), handle))
            }
        })
        .map_err(|errno| self.error(if append { "open" } else { "create" }, name, errno))
    }

    /// Opens a file for appending, created with `mode` if missing.
    ///
    /// # Errors
    /// [`RootError`].
    pub fn append(&self, name: &str, mode: u32) -> Result<File, RootError> {
        let flags = OFlags::CREATE | OFlags::APPEND | OFlags::WRONLY | OFlags::CLOEXEC;
        // A tree in memory keeps no log.
        let fd = self
            .fd()
            .ok_or_else(|| self.error("open", name, Errno::OPNOTSUPP))?;
        // A link is followed: `var/log/apk.log` may well point to /dev/null of the system.
        fs::openat(fd, name, flags, Mode::from_raw_mode(mode))
            .map(File::from)
            .map_err(|errno| self.error("open", name, errno))
    }

    /// Opens a file for reading, not following a link.
    ///
    /// # Errors
    /// [`RootError`].
    pub fn open_file(&self, name: &str) -> Result<OpenFile, RootError> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let opened = match &self.place {
            Place::Disk(fd) => fs::openat(fd, name, flags, Mode::empty())
                .map(|fd| OpenFile::of_disk(File::from(fd))),
            Place::Tree(tree, at) => tree.open_file(*at, name).map(OpenFile::of_tree),
        };
        opened.map_err(|errno| self.error("open", name, errno))
    }

    /// Opens what has a name only to refer to it, or to set its attributes.
    fn open_node(&self, fd: &OwnedFd, name: &str) -> Result<OwnedFd, RootError> {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        fs::openat(fd, name, flags, Mode::empty()).map_err(|errno| self.error("open", name, errno))
    }

    /// Returns the target of a symbolic link.
    ///
    /// # Errors
    /// [`RootError`].
    pub fn read_link(&self, name: &str) -> Result<Vec<u8>, RootError> {
        let target = match &self.place {
            Place::Disk(fd) => {
                fs::readlinkat(fd, name, Vec::new()).map(std::ffi::CString::into_bytes)
            }
            Place::Tree(tree, at) => tree.read_link(*at, name),
        };
        target.map_err(|errno| self.error("read", name, errno))
    }

    /// Creates a directory; an existing one is left as it is.
    ///
    /// # Errors
    /// [`RootError`].
    pub fn create_directory(&self, name: &str, mode: u32) -> Result<(), RootError> {
        let made =
            fault::step(|| Operation::CreateDirectory(self.join(name), mode)).and_then(|()| {
                match &self.place {
                    Place::Disk(fd) => fs::mkdirat(fd, name, Mode::from_raw_mode(mode)),
                    Place::Tree(tree, at) => tree.create_directory(*at, name, mode),
                }
            });
        match made {
            Ok(()) | Err(Errno::EXIST) => Ok(()),
            Err(errno) => Err(self.error("create", name, errno)),
        }
    }

    /// Creates a symbolic link.
    ///
    /// # Errors
    /// [`RootError`].
    pub fn create_symlink(&self, target: &str, name: &str) -> Result<(), RootError> {
        fault::step(|| Operation::Symlink(target.to_owned(), self.join(name)))
            .and_then(|()| match &self.place {
                Place::Disk(fd) => fs::symlinkat(target, fd, name),
                Place::Tree(tree, at) => tree.create_symlink(*at, target, name),
            })
            .map_err(|errno| self.error("create", name, errno))
    }

    /// Gives a file another name, in this directory.
    ///
    /// # Errors
    /// [`RootError`].
    pub fn create_hard_link(
        &self,
        from: &Directory,
        old: &str,
        name: &str,
    ) -> Result<(), RootError> {
        fault::step(|| Operation::HardLink(from.join(old), self.join(name)))
            .and_then(|()| match (&from.place, &self.place) {
                (Place::Disk(from), Place::Disk(to)) => {
                    fs::linkat(from, old, to, name, AtFlags::empty())
                }
                (Place::Tree(tree, from), Place::Tree(_, to)) => {
                    tree.create_hard_link(*from, old, *to, name)
                }
                _ => Err(Errno::XDEV),
            })
            .map_err(|errno| self.error("link", name, errno))
    }

    /// Gives a file outside of the root a second name, in this directory; its folder is open, and
    /// has this path.
    ///
    /// # Errors
    /// [`RootError`], also if the file is on another file system.
    pub fn link_from(
        &self,
        folder: BorrowedFd<'_>,
        path: &std::path::Path,
        file: &str,
        name: &str,
    ) -> Result<(), RootError> {
        let shown = || path.join(file).display().to_string();
        fault::step(|| Operation::HardLink(shown(), self.join(name)))
            .and_then(|()| match &self.place {
                Place::Disk(to) => fs::linkat(folder, file, to, name, AtFlags::empty()),
                Place::Tree(..) => Err(Errno::XDEV),
            })
            .map_err(|errno| self.error("link", name, errno))
    }

    /// Creates a device or FIFO.
    ///
    /// # Errors
    /// [`RootError`].
    pub fn create_node(
        &self,
        name: &str,
        kind: FileType,
        mode: u32,
        major: u32,
        minor: u32,
    ) -> Result<(), RootError> {
        let device: Dev = fs::makedev(major, minor);
        fault::step(|| Operation::Node(self.join(name)))
            .and_then(|()| match &self.place {
                Place::Disk(fd) => fs::mknodat(fd, name, kind, Mode::from_raw_mode(mode), device),
                Place::Tree(tree, at) => tree.create_node(*at, name, kind, mode, (major, minor)),
            })
            .map_err(|errno| self.error("create", name, errno))
    }

    /// Removes a name that is no directory; a missing one is fine.
    ///
    /// # Errors
    /// [`RootError`].
    pub fn remove_file(&self, name: &str) -> Result<(), RootError> {
        let removed =
            fault::step(|| Operation::Remove(self.join(name))).and_then(|()| match &self.place {
                Place::Disk(fd) => fs::unlinkat(fd, name, AtFlags::empty()),
                Place::Tree(tree, at) => tree.remove_file(*at, name),
            });
        match removed {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(errno) => Err(self.error("remove", name, errno)),
        }
    }

    /// Removes an empty directory; returns whether it is gone.
    pub fn remove_directory(&self, name: &str) -> bool {
        self.try_remove_directory(name).unwrap_or(false)
    }

    /// Removes an empty directory; returns whether it is gone.
    ///
    /// # Errors
    /// [`RootError`] unless the reason is that it is not empty, no directory, or in use.
    pub fn try_remove_directory(&self, name: &str) -> Result<bool, RootError> {
        let removed =
            fault::step(|| Operation::RemoveDirectory(self.join(name))).and_then(|()| match &self
                .place
            {
                Place::Disk(fd) => fs::unlinkat(fd, name, AtFlags::REMOVEDIR),
                Place::Tree(tree, at) => tree.remove_directory(*at, name),
            });
        match removed {
            Ok(()) | Err(Errno::NOENT) => Ok(true),
            Err(Errno::NOTEMPTY | Errno::EXIST | Errno::NOTDIR | Errno::BUSY) => Ok(false),
            Err(errno) => Err(self.error("remove", name, errno)),
        }
    }

    /// Renames within this directory, replacing what is there.
    ///
    /// # Errors
    /// [`RootError`].
    pub fn rename(&self, from: &str, to: &str) -> Result<(), RootError> {
        self.rename_to(from, self, to)
    }

    /// Renames into another directory of the same file system, replacing what is there.
    ///
    /// # Errors
    /// [`RootError`].
    pub fn rename_to(&self, from: &str, directory: &Self, to: &str) -> Result<(), RootError> {
        fault::step(|| Operation::Rename(self.join(from), directory.join(to)))
            .and_then(|()| match (&self.place, &directory.place) {
                (Place::Disk(old), Place::Disk(new)) => fs::renameat(old, from, new, to),
                (Place::Tree(tree, old), Place::Tree(_, new)) => {
                    tree.rename((*old, from), (*new, to))
                }
                _ => Err(Errno::XDEV),
            })
            .map_err(|errno| directory.error("rename", to, errno))
    }

    /// Sets the owner of what has a name, links included.
    ///
    /// # Errors
    /// [`RootError`].
    pub fn set_owner(&self, name: &str, uid: u32, gid: u32) -> Result<(), RootError> {
        fault::step(|| Operation::Owner(self.join(name), uid, gid))
            .and_then(|()| match &self.place {
                Place::Disk(fd) => {
                    let (uid, gid) = (Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)));
                    fs::chownat(fd, name, uid, gid, AtFlags::SYMLINK_NOFOLLOW)
                }
                Place::Tree(tree, at) => tree.set_owner(*at, name, uid, gid),
            })
            .map_err(|errno| self.error("set the owner of", name, errno))
    }

    /// Sets the mode of what has a name and is no link.
    ///
    /// # Errors
    /// [`RootError`].
    pub fn set_mode(&self, name: &str, mode: u32) -> Result<(), RootError> {
        fault::step(|| Operation::Mode(self.join(name), mode))
            .map_err(|errno| self.error("set the mode of", name, errno))?;
        let fd = match &self.place {
            Place::Disk(fd) => fd,
            Place::Tree(tree, at) => {
                let changed = tree.set_mode(*at, name, mode);
                return changed.map_err(|errno| self.error("set the mode of", name, errno));
            }
        };
        let node = self.open_node(fd, name)?;
        let stat = fs::fstat(&node).map_err(|errno| self.error("examine", name, errno))?;
        if FileType::from_raw_mode(stat.st_mode) == FileType::Symlink {
            return Err(self.error("set the mode of", name, Errno::LOOP));
        }
        // An O_PATH descriptor cannot be changed itself; its /proc link names the same inode,
        // whatever the name means by now.
        let link = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&node));
        let changed = match fs::chmodat(fs::CWD, link, Mode::from_raw_mode(mode), AtFlags::empty())
        {
            Err(Errno::NOENT) => fs::chmodat(fd, name, Mode::from_raw_mode(mode), AtFlags::empty()),
            other => other,
        };
        changed.map_err(|errno| self.error("set the mode of", name, errno))
    }

    /// Sets access and modification time of what has a name.
    ///
    /// # Errors
    /// [`RootError`].
    pub fn set_time(&self, name: &str, seconds: u64) -> Result<(), RootError> {
        fault::step(|| Operation::Time(self.join(name), seconds))
            .and_then(|()| match &self.place {
                Place::Disk(fd) => {
                    fs::utimensat(fd, name, &times(seconds), AtFlags::SYMLINK_NOFOLLOW)
                }
                Place::Tree(tree, at) => tree.set_time(*at, name, seconds),
            })
            .map_err(|errno| self.error("set the time of", name, errno))
    }

    /// Flushes the directory's names.
    ///
    /// # Errors
    /// [`RootError`].
    pub fn sync(&self) -> Result<(), RootError> {
        fault::step(|| Operation::SyncDirectory(self.path.clone()))
            .and_then(|()| match &self.place {
                Place::Disk(fd) => fs::fsync(fd),
                Place::Tree(..) => Ok(()),
            })
            .map_err(|errno| RootError::new("flush", &self.path, errno))
    }

    /// Flushes the file system that holds the directory.
    ///
    /// # Errors
    /// [`RootError`].
    pub fn sync_file_system(&self) -> Result<(), RootError> {
        fault::step(|| Operation::SyncFileSystem(self.path.clone()))
            .and_then(|()| match &self.place {
                Place::Disk(fd) => fs::syncfs(fd),
                Place::Tree(..) => Ok(()),
            })
            .map_err(|errno| RootError::new("flush", &self.path, errno))
    }

    /// Returns whether a name is a directory that can be entered without following a link.
    pub fn has_directory(&self, name: &str) -> bool {
        matches!(self.stat(name), Ok(Some(stat)) if stat.is_dir())
    }

    /// Returns whether an error means that nothing is there.
    pub fn is_missing(error: &RootError) -> bool {
        is_missing(&error.source)
    }
}

/// Makes the pair of times that apk sets: both the package's, without fractions.
fn times(seconds: u64) -> Timestamps {
    let at = Timespec {
        tv_sec: seconds as i64,
        tv_nsec: 0,
    };
    debug_assert!(at.tv_nsec != UTIME_OMIT);
    Timestamps {
        last_access: at,
        last_modification: at,
    }
}
