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

/// The process that has the lock, as far as the system tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    /// Its number.
    pub process: u32,
    /// Its command line, if it may be seen.
    pub command: Option<String>,
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

    /// Returns who holds the lock; `None` if nobody does, or nobody that this process can see.
    ///
    /// The system's list of locks is read, so that looking never keeps another process from taking
    /// the lock.
    pub fn holder(root: &Root) -> Option<Holder> {
        let stat = root.stat(PATH).ok()??;
        let (device, inode) = stat.inode;
        let text = std::fs::read_to_string("/proc/locks").ok()?;
        let process = find_holder(&text, device, inode)?;
        let command = std::fs::read(format!("/proc/{process}/cmdline")).ok();
        let command = command.filter(|bytes| !bytes.is_empty()).map(|bytes| {
            let words = bytes
                .split(|byte| *byte == 0)
                .filter(|word| !word.is_empty());
            let words = words.map(|word| String::from_utf8_lossy(word).into_owned());
            words.collect::<Vec<_>>().join(" ")
        });
        Some(Holder { process, command })
    }

    /// Returns whether a process that can be seen holds the lock.
    pub fn is_held(root: &Root) -> bool {
        Self::holder(root).is_some()
    }
}

/// Finds the owner of an exclusive `flock` in the text of `/proc/locks`.
///
/// Some file systems number their devices differently there; then the inode alone decides.
fn find_holder(text: &str, device: u64, inode: u64) -> Option<u32> {
    let mut likely = None;
    for line in text.lines() {
        // `1: FLOCK  ADVISORY  WRITE 1234 00:2f:5678 0 EOF`; waiting ones have `->` in between.
        let mut words = line.split_ascii_whitespace().skip(1);
        if words.next() != Some("FLOCK") {
            continue;
        }
        let (Some(_), Some("WRITE"), Some(process), Some(file)) =
            (words.next(), words.next(), words.next(), words.next())
        else {
            continue;
        };
        let mut numbers = file.split(':');
        let mut hex = || u32::from_str_radix(numbers.next()?, 16).ok();
        let (Some(major), Some(minor)) = (hex(), hex()) else {
            continue;
        };
        if numbers.next().and_then(|text| text.parse().ok()) != Some(inode) {
            continue;
        }
        let Ok(process) = process.parse() else {
            continue;
        };
        if rustix::fs::makedev(major, minor) == device {
            return Some(process);
        }
        likely = Some(process);
    }
    likely
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_holder_is_found_in_the_list_of_locks() {
        let text = "1: POSIX  ADVISORY  WRITE 7 00:2f:55 0 EOF\n\
                    2: FLOCK  ADVISORY  WRITE 8 00:30:55 0 EOF\n\
                    3: FLOCK  ADVISORY  WRITE 9 00:2f:55 0 EOF\n\
                    3: -> FLOCK  ADVISORY  WRITE 10 00:2f:55 0 EOF\n\
                    4: FLOCK  ADVISORY  READ 11 00:2f:56 0 EOF\n\
                    garbage\n";
        let device = rustix::fs::makedev(0, 0x2f);
        assert_eq!(find_holder(text, device, 55), Some(9));
        assert_eq!(find_holder(text, rustix::fs::makedev(8, 1), 55), Some(9));
        assert_eq!(find_holder(text, device, 56), None);
        assert_eq!(find_holder("", device, 55), None);
    }
}
