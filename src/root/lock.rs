//! apk's lock on the database: an exclusive `flock` (formats.md, 9.2).

use super::{Root, RootError};
use rustix::fs::{FlockOperation, Mode, OFlags, flock, openat};
use rustix::io::Errno;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

/// Where the lock is.
const PATH: &str = "lib/apk/db/lock";

/// How often a held lock is tried again; `flock` itself has no time limit.
const RETRY: Duration = Duration::from_millis(50);

/// The right to change a root. It ends when this is dropped, or with the process.
#[derive(Debug)]
pub struct RootLock {
    _file: OwnedFd,
}

impl RootLock {
    /// Takes the lock; waits up to `wait` if another process has it.
    ///
    /// `on_wait` is called once before waiting. The directory of the database must exist.
    ///
    /// # Errors
    /// [`RootError`] with "Resource temporarily unavailable" if somebody else holds it.
    pub fn take(
        root: &Root,
        wait: Option<Duration>,
        on_wait: &mut dyn FnMut(),
    ) -> Result<Self, RootError> {
        let error = |errno: Errno| RootError::new("lock", PATH, errno);
        let directory = root.directory("lib/apk/db")?;
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let fd = directory.fd().ok_or_else(|| error(Errno::OPNOTSUPP))?;
        let file = openat(fd, "lock", flags, Mode::from_raw_mode(0o600)).map_err(error)?;
        let deadline = wait.map(|wait| Instant::now() + wait);
        let mut told = false;
        loop {
            match flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => return Ok(Self { _file: file }),
                Err(Errno::INTR) => {}
                Err(Errno::WOULDBLOCK) if deadline.is_some_and(|end| Instant::now() < end) => {
                    if !told {
                        told = true;
                        on_wait();
                    }
                    std::thread::sleep(RETRY);
                }
                Err(errno) => return Err(error(errno)),
            }
        }
    }
}
