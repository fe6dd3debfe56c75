//! A file that is open: being written, or being read.

use super::RootError;
use super::fault::{self, Operation};
use super::tree::{TreeFile, TreeReader};
use rustix::fs::{FallocateFlags, Gid, Mode, Timespec, Timestamps, Uid, XattrFlags};
use rustix::io::Errno;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicU64, Ordering};

/// Fewer bytes than this are copied faster by reading and writing them.
const FEW: u64 = 64 << 10;

/// Handles are numbered, so that what is written to one can be told from the rest.
static HANDLES: AtomicU64 = AtomicU64::new(0);

/// Returns the number of the next handle.
pub(super) fn next_handle() -> u64 {
    HANDLES.fetch_add(1, Ordering::Relaxed)
}

/// Where a file is that is written.
#[derive(Debug)]
enum Place {
    Disk(File),
    Tree(TreeFile),
}

/// A file that was made or opened for appending, below a root.
#[derive(Debug)]
pub struct NewFile {
    place: Place,
    path: String,
    handle: u64,
}

impl NewFile {
    pub(super) fn new(file: File, path: String, handle: u64) -> Self {
        let place = Place::Disk(file);
        Self {
            place,
            path,
            handle,
        }
    }

    pub(super) fn of_tree(file: TreeFile, path: String, handle: u64) -> Self {
        let place = Place::Tree(file);
        Self {
            place,
            path,
            handle,
        }
    }

    fn error(&self, action: &'static str, source: impl Into<io::Error>) -> RootError {
        RootError::new(action, &self.path, source)
    }

    /// Sets the owner.
    ///
    /// # Errors
    /// [`RootError`].
    pub fn set_owner(&self, uid: u32, gid: u32) -> Result<(), RootError> {
        fault::step(|| Operation::FileOwner(self.handle, uid, gid))
            .and_then(|()| match &self.place {
                Place::Disk(file) => {
                    let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
                    rustix::fs::fchown(file, Some(uid), Some(gid))
                }
                Place::Tree(file) => file.set_owner(uid, gid),
            })
            .map_err(|errno| self.error("set the owner of", errno))
    }

    /// Sets the mode; changing the owner clears the set-id bits, so this comes after it.
    ///
    /// # Errors
    /// [`RootError`].
    pub fn set_mode(&self, mode: u32) -> Result<(), RootError> {
        fault::step(|| Operation::FileMode(self.handle, mode))
            .and_then(|()| match &self.place {
                Place::Disk(file) => rustix::fs::fchmod(file, Mode::from_raw_mode(mode)),
                Place::Tree(file) => file.set_mode(mode),
            })
            .map_err(|errno| self.error("set the mode of", errno))
    }

    /// Sets an extended attribute.
    ///
    /// # Errors
    /// [`RootError`]; whether a file system keeps it is known only by trying.
    pub fn set_attribute(&self, name: &str, value: &[u8]) -> Result<(), RootError> {
        fault::step(|| Operation::FileAttribute(self.handle, name.to_owned(), value.to_vec()))
            .and_then(|()| match &self.place {
                Place::Disk(file) => rustix::fs::fsetxattr(file, name, value, XattrFlags::empty()),
                Place::Tree(file) => file.set_attribute(name, value),
            })
            .map_err(|errno| self.error("set an attribute of", errno))
    }

    /// Sets access and modification time, in seconds since 1970.
    ///
    /// # Errors
    /// [`RootError`].
    pub fn set_time(&self, seconds: u64) -> Result<(), RootError> {
        let at = Timespec {
            tv_sec: seconds as i64,
            tv_nsec: 0,
        };
        let times = Timestamps {
            last_access: at,
            last_modification: at,
        };
        fault::step(|| Operation::FileTime(self.handle, seconds))
            .and_then(|()| match &self.place {
                Place::Disk(file) => rustix::fs::futimens(file, &times),
                Place::Tree(file) => file.set_time(seconds),
            })
            .map_err(|errno| self.error("set the time of", errno))
    }

    /// Sets space aside, without changing the size; a file system that cannot is no error.
    ///
    /// # Errors
    /// [`RootError`] if there is not enough.
    pub fn reserve(&self, bytes: u64) -> Result<(), RootError> {
        let reserved = fault::step(|| Operation::Reserve(self.handle, bytes)).and_then(|()| {
            match &self.place {
                Place::Disk(file) => {
                    rustix::fs::fallocate(file, FallocateFlags::KEEP_SIZE, 0, bytes.max(1))
                }
                Place::Tree(_) => Ok(()),
            }
        });
        match reserved {
            Err(Errno::OPNOTSUPP | Errno::NOSYS) | Ok(()) => Ok(()),
            Err(errno) => Err(self.error("set space aside in", errno)),
        }
    }

    /// Returns the size in bytes.
    ///
    /// # Errors
    /// [`RootError`].
    pub fn size(&self) -> Result<u64, RootError> {
        match &self.place {
            Place::Disk(file) => rustix::fs::fstat(file)
                .map(|stat| stat.st_size as u64)
                .map_err(|errno| self.error("examine", errno)),
            Place::Tree(file) => Ok(file.size()),
        }
    }

    /// Cuts it; what is written next comes behind the new end.
    ///
    /// # Errors
    /// [`RootError`].
    pub fn truncate(&self, size: u64) -> Result<(), RootError> {
        fault::step(|| Operation::Truncate(self.handle, size))
            .and_then(|()| match &self.place {
                Place::Disk(file) => rustix::fs::ftruncate(file, size).and_then(|()| {
                    rustix::fs::seek(file, rustix::fs::SeekFrom::Start(size)).map(drop)
                }),
                Place::Tree(_) => Err(Errno::OPNOTSUPP),
            })
            .map_err(|errno| self.error("cut", errno))
    }

    /// Returns a second descriptor, through which another process is about to write this, and to
    /// flush it if it shall.
    ///
    /// # Errors
    /// [`RootError`].
    pub fn lend(&self, text: &[u8], sync: bool) -> Result<OwnedFd, RootError> {
        fault::step(|| Operation::Write(self.handle, text.to_vec()))
            .and_then(|()| match sync {
                true => fault::step(|| Operation::SyncFile(self.handle)),
                false => Ok(()),
            })
            .and_then(|()| match &self.place {
                Place::Disk(file) => rustix::io::fcntl_dupfd_cloexec(file, 0),
                Place::Tree(_) => Err(Errno::OPNOTSUPP),
            })
            .map_err(|errno| self.error("write", errno))
    }

    /// Flushes the content.
    ///
    /// # Errors
    /// [`RootError`].
    pub fn sync(&self) -> Result<(), RootError> {
        fault::step(|| Operation::SyncFile(self.handle))
            .and_then(|()| match &self.place {
                Place::Disk(file) => rustix::fs::fsync(file),
                Place::Tree(_) => Ok(()),
            })
            .map_err(|errno| self.error("flush", errno))
    }
}

impl NewFile {
    /// Appends bytes of another file, without moving them through this process where the system
    /// can do that: it shares their blocks, or copies them by itself.
    ///
    /// # Errors
    /// What the system said, also if the other file is shorter.
    pub fn append_from(&mut self, source: &File, mut at: u64, mut count: u64) -> io::Result<()> {
        if let (Place::Disk(file), false) = (&self.place, fault::is_active() || count < FEW) {
            while count > 0 {
                let most = usize::try_from(count).unwrap_or(usize::MAX);
                match rustix::fs::copy_file_range(source, Some(&mut at), file, None, most) {
                    Ok(0) => break,
                    Ok(copied) => count -= copied as u64,
                    Err(Errno::INTR) => {}
                    // Between file systems, or where it is not known: by hand.
                    Err(Errno::XDEV | Errno::INVAL | Errno::OPNOTSUPP | Errno::NOSYS) => break,
                    Err(errno) => return Err(errno.into()),
                }
            }
        }
        let mut buffer = vec![0; count.min(FEW) as usize];
        while count > 0 {
            let most = count.min(FEW) as usize;
            source.read_exact_at(&mut buffer[..most], at)?;
            self.write_all(&buffer[..most])?;
            at += most as u64;
            count -= most as u64;
        }
        Ok(())
    }
}

impl Write for NewFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let after_half = fault::write(bytes.len(), || {
            Operation::Write(self.handle, bytes.to_vec())
        })?;
        let file = match &mut self.place {
            Place::Disk(file) => file,
            Place::Tree(file) => return file.write(bytes),
        };
        if let Some(after) = after_half {
            let half = &bytes[..bytes.len() / 2];
            file.write_all(half)?;
            return after.end(half.len());
        }
        // A test sees the operation as a whole, so it must happen as a whole.
        if fault::is_active() {
            return file.write_all(bytes).map(|()| bytes.len());
        }
        file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Where a file is that is read.
#[derive(Debug)]
enum Source {
    Disk(File),
    Tree(TreeReader),
}

/// A file that is open for reading, below a root.
#[derive(Debug)]
pub struct OpenFile(Source);

impl OpenFile {
    pub(super) fn of_disk(file: File) -> Self {
        Self(Source::Disk(file))
    }

    pub(super) fn of_tree(reader: TreeReader) -> Self {
        Self(Source::Tree(reader))
    }

    /// Returns the descriptor of a file on a disk.
    pub fn fd(&self) -> Option<BorrowedFd<'_>> {
        match &self.0 {
            Source::Disk(file) => Some(file.as_fd()),
            Source::Tree(_) => None,
        }
    }
}

impl Read for OpenFile {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match &mut self.0 {
            Source::Disk(file) => file.read(buffer),
            Source::Tree(reader) => reader.read(buffer),
        }
    }
}
