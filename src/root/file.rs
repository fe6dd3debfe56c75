//! A file being written.

use super::RootError;
use super::fault::{self, Operation};
use rustix::fs::{FallocateFlags, Gid, Mode, Timespec, Timestamps, Uid, XattrFlags};
use rustix::io::Errno;
use std::fs::File;
use std::io::{self, Write};
use std::sync::atomic::{AtomicU64, Ordering};

/// Handles are numbered, so that what is written to one can be told from the rest.
static HANDLES: AtomicU64 = AtomicU64::new(0);

/// Returns the number of the next handle.
pub(super) fn next_handle() -> u64 {
    HANDLES.fetch_add(1, Ordering::Relaxed)
}

/// A file that was made or opened for appending, below a root.
#[derive(Debug)]
pub struct NewFile {
    file: File,
    path: String,
    handle: u64,
}

impl NewFile {
    pub(super) fn new(file: File, path: String, handle: u64) -> Self {
        Self { file, path, handle }
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
            .and_then(|()| {
                let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
                rustix::fs::fchown(&self.file, Some(uid), Some(gid))
            })
            .map_err(|errno| self.error("set the owner of", errno))
    }

    /// Sets the mode; changing the owner clears the set-id bits, so this comes after it.
    ///
    /// # Errors
    /// [`RootError`].
    pub fn set_mode(&self, mode: u32) -> Result<(), RootError> {
        fault::step(|| Operation::FileMode(self.handle, mode))
            .and_then(|()| rustix::fs::fchmod(&self.file, Mode::from_raw_mode(mode)))
            .map_err(|errno| self.error("set the mode of", errno))
    }

    /// Sets an extended attribute.
    ///
    /// # Errors
    /// [`RootError`]; whether a file system keeps it is known only by trying.
    pub fn set_attribute(&self, name: &str, value: &[u8]) -> Result<(), RootError> {
        fault::step(|| Operation::FileAttribute(self.handle, name.to_owned(), value.to_vec()))
            .and_then(|()| rustix::fs::fsetxattr(&self.file, name, value, XattrFlags::empty()))
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
            .and_then(|()| rustix::fs::futimens(&self.file, &times))
            .map_err(|errno| self.error("set the time of", errno))
    }

    /// Sets space aside, without changing the size; a file system that cannot is no error.
    ///
    /// # Errors
    /// [`RootError`] if there is not enough.
    pub fn reserve(&self, bytes: u64) -> Result<(), RootError> {
        let reserved = fault::step(|| Operation::Reserve(self.handle, bytes)).and_then(|()| {
            rustix::fs::fallocate(&self.file, FallocateFlags::KEEP_SIZE, 0, bytes.max(1))
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
        let stat = rustix::fs::fstat(&self.file).map_err(|errno| self.error("examine", errno))?;
        Ok(stat.st_size as u64)
    }

    /// Cuts it.
    ///
    /// # Errors
    /// [`RootError`].
    pub fn truncate(&self, size: u64) -> Result<(), RootError> {
        fault::step(|| Operation::Truncate(self.handle, size))
            .and_then(|()| rustix::fs::ftruncate(&self.file, size))
            .map_err(|errno| self.error("cut", errno))
    }

    /// Flushes the content.
    ///
    /// # Errors
    /// [`RootError`].
    pub fn sync(&self) -> Result<(), RootError> {
        fault::step(|| Operation::SyncFile(self.handle))
            .and_then(|()| rustix::fs::fsync(&self.file))
            .map_err(|errno| self.error("flush", errno))
    }
}

impl Write for NewFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        fault::step(|| Operation::Write(self.handle, bytes.to_vec()))?;
        // A test sees the operation as a whole, so it must happen as a whole.
        if fault::is_active() {
            return self.file.write_all(bytes).map(|()| bytes.len());
        }
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
