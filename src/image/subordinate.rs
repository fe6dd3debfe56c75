//! User and group ids that the system lends to an ordinary user (`/etc/subuid`, `/etc/subgid`), so
//! that a sandbox has more than one of each (image.md, 6.5).
//!
//! The caller is root inside; 1 and the numbers after it are lent ones. Only `newuidmap` and
//! `newgidmap` may say so to the kernel. Files that belong to lent ids cannot be read, or removed,
//! from outside: they are given away before a script runs, and taken back after it, by a child that
//! is root over all of them.
//!
//! Between fork and exec or exit there are system calls only, on memory that was there before.

use crate::root::tree::{EntryKind, TreeEntry};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, RawDir, Uid};
use rustix::io::Errno;
use rustix::thread::UnshareFlags;
use std::collections::HashMap;
use std::ffi::{CStr, CString};
use std::fs::File;
use std::io::{self, Read, Seek};
use std::mem::MaybeUninit;
use std::path::Path;
use std::sync::OnceLock;

/// Where the programs may be.
const FOLDERS: [&str; 4] = ["/usr/bin", "/bin", "/usr/sbin", "/usr/local/bin"];

/// Ranges of one kind that are used.
const MOST_RANGES: usize = 8;

/// Ids inside a sandbox, but root.
const IDS: u32 = 65535;

/// Directories within each other that are walked.
const DEEPEST: u32 = 128;

/// Bytes of a row: inode, uid, gid, mode.
const ROW: usize = 8 + 3 * 4;

/// Maps of users and of groups.
#[derive(Debug)]
pub(super) struct Ranges {
    users: Map,
    groups: Map,
}

#[derive(Debug)]
struct Map {
    program: CString,
    /// Triples of numbers for the program, which come after that of the process.
    triples: Vec<CString>,
    /// The greatest id that is inside.
    greatest: u32,
}

/// What somebody else's file is, and whose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Owned {
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) mode: u32,
}

/// Something to be given away.
#[derive(Debug)]
pub(super) struct Gift {
    pub(super) path: CString,
    pub(super) owned: Owned,
    pub(super) is_link: bool,
}

/// Returns the ranges of this user, if there are any and they can be used.
pub(super) fn ranges() -> Option<&'static Ranges> {
    static FOUND: OnceLock<Option<Ranges>> = OnceLock::new();
    let found = FOUND.get_or_init(|| {
        let (uid, gid) = (rustix::process::geteuid(), rustix::process::getegid());
        if uid.is_root() {
            return None;
        }
        let text = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
        let name = user_name(&text("/etc/passwd"), uid.as_raw());
        let map = |program: &str, table: &str, own: u32| {
            let lent = lent(&text(table), name.as_deref(), uid.as_raw());
            Map::new(program, own, &lent)
        };
        let ranges = Ranges {
            users: map("newuidmap", "/etc/subuid", uid.as_raw())?,
            groups: map("newgidmap", "/etc/subgid", gid.as_raw())?,
        };
        // What is written there need not be what the kernel or the programs allow.
        let works = ranges.inside(|| Ok(())).is_ok();
        works.then_some(ranges)
    });
    found.as_ref()
}

fn user_name(passwd: &str, uid: u32) -> Option<String> {
    let uid = uid.to_string();
    let mut lines = passwd.lines().map(|line| line.split(':'));
    lines.find_map(|mut fields| {
        let name = fields.next()?;
        (fields.nth(1)? == uid).then(|| name.to_owned())
    })
}

/// Returns first id and count of each range that a table has for a user, by name or number.
fn lent(table: &str, name: Option<&str>, uid: u32) -> Vec<(u32, u32)> {
    let uid = uid.to_string();
    let row = |line: &str| {
        let mut fields = line.trim().split(':');
        let owner = fields.next()?;
        let first: u32 = fields.next()?.parse().ok()?;
        let count: u32 = fields.next()?.parse().ok()?;
        let own = Some(owner) == name || owner == uid;
        (own && count > 0 && first.checked_add(count).is_some()).then_some((first, count))
    };
    table.lines().filter_map(row).take(MOST_RANGES).collect()
}

impl Map {
    fn new(program: &str, own: u32, lent: &[(u32, u32)]) -> Option<Self> {
        let mut places = FOLDERS.iter().map(|folder| Path::new(folder).join(program));
        let program = places.find(|place| place.is_file())?;
        let mut triples = vec![[0, own, 1]];
        let mut next = 1;
        for (first, count) in lent {
            let count = (*count).min(IDS + 1 - next);
            if count > 0 {
                triples.push([next, *first, count]);
                next += count;
            }
        }
        let text = |text: String| CString::new(text).ok();
        let numbers = triples.iter().flatten();
        (next > 1).then_some(Self {
            program: text(program.to_str()?.to_owned())?,
            triples: numbers
                .map(|n| text(n.to_string()))
                .collect::<Option<_>>()?,
            greatest: next - 1,
        })
    }

    /// Becomes the program that tells the kernel about the ids of a process.
    fn exec(&self, process: &CStr) -> ! {
        // The programs complain on standard error, which may be where a script speaks.
        let null = rustix::fs::open(c"/dev/null", OFlags::RDWR, Mode::empty());
        if let Ok(null) = null {
            let _ = rustix::stdio::dup2_stdout(&null);
            let _ = rustix::stdio::dup2_stderr(&null);
        }
        let mut arguments = [std::ptr::null(); 2 + 3 * (MOST_RANGES + 1) + 1];
        arguments[0] = self.program.as_ptr();
        arguments[1] = process.as_ptr();
        for (slot, triple) in arguments[2..].iter_mut().zip(&self.triples) {
            *slot = triple.as_ptr();
        }
        let environment = [std::ptr::null()];
        #[expect(unsafe_code, reason = "exec, and ending without running anything else")]
        // SAFETY: both lists end with a null pointer, and their texts live until the call.
        unsafe {
            libc::execve(arguments[0], arguments.as_ptr(), environment.as_ptr());
            libc::_exit(1)
        }
    }
}

impl Ranges {
    /// Returns whether files of this owner can be there.
    pub(super) fn covers(&self, uid: u32, gid: u32) -> bool {
        uid <= self.users.greatest && gid <= self.groups.greatest
    }

    /// Returns what of a tree is not root's. Who is not among the lent ids has nothing inside: the file
    /// is root's there.
    pub(super) fn gifts(&self, entries: &[TreeEntry]) -> Vec<Gift> {
        let there = entries.iter().filter(|entry| {
            let left_out = matches!(entry.kind, EntryKind::Device(..) | EntryKind::Fifo);
            let roots = (entry.uid, entry.gid) == (0, 0);
            !left_out && !roots && self.covers(entry.uid, entry.gid)
        });
        let gift = |entry: &TreeEntry| Gift {
            path: CString::new(entry.path.as_str()).expect("a tree has no NUL in names"),
            owned: Owned {
                uid: entry.uid,
                gid: entry.gid,
                mode: entry.mode,
            },
            is_link: matches!(entry.kind, EntryKind::Symlink(_)),
        };
        there.map(gift).collect()
    }

    /// Gives the calling process namespaces of its own, with the ids of these ranges. It must have
    /// one thread.
    pub(super) fn enter(&self, flags: UnshareFlags) -> rustix::io::Result<()> {
        let pipe = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
        let (reader, writer) = pipe;
        let mut digits = [0; 12];
        let process = decimal(
            rustix::process::getpid().as_raw_nonzero().get(),
            &mut digits,
        );
        // The programs must be outside: they may do what this process may not.
        #[expect(unsafe_code, reason = "fork, and ending without running anything else")]
        // SAFETY: this process has one thread; the children make system calls only and end with
        // exec or _exit.
        let helper = unsafe {
            match libc::fork() {
                -1 => return Err(Errno::AGAIN),
                0 => {
                    drop(writer);
                    if rustix::io::read(&reader, &mut [0_u8]) != Ok(1) {
                        libc::_exit(1);
                    }
                    match libc::fork() {
                        -1 => libc::_exit(1),
                        0 => self.users.exec(process),
                        first if wait(first) != 0 => libc::_exit(1),
                        _ => self.groups.exec(process),
                    }
                }
                helper => helper,
            }
        };
        drop(reader);
        #[expect(
            unsafe_code,
            reason = "the call is unsafe for its flag FILES, not given here"
        )]
        // SAFETY: this process has one thread, and its descriptor table is not unshared.
        let alone = unsafe { rustix::thread::unshare_unsafe(flags | UnshareFlags::NEWUSER) };
        let told = alone.and_then(|()| rustix::io::write(&writer, &[1]).map(drop));
        drop(writer);
        let mapped = wait(helper) == 0;
        told?;
        match mapped {
            true => Ok(()),
            false => Err(Errno::PERM),
        }
    }

    /// Does something in a child that is root over these ids.
    fn inside(&self, work: impl FnOnce() -> rustix::io::Result<()>) -> io::Result<()> {
        #[expect(unsafe_code, reason = "only a child can be somebody else for a while")]
        // SAFETY: the child makes system calls only, and ends with _exit.
        let child = unsafe {
            match libc::fork() {
                -1 => return Err(io::Error::last_os_error()),
                0 => {
                    let done = self.enter(UnshareFlags::empty()).and_then(|()| work());
                    libc::_exit(done.map_or_else(|errno| errno.raw_os_error() & 0xff, |()| 0));
                }
                child => child,
            }
        };
        match wait(child) {
            0 => Ok(()),
            code => Err(io::Error::from_raw_os_error(code)),
        }
    }

    /// Gives files of this user to whom they belong inside.
    pub(super) fn give_away(&self, folder: &Path, gifts: &[Gift]) -> io::Result<()> {
        let folder = File::open(folder)?;
        self.inside(|| {
            // Who may not look into a directory gives away what is in it all the same.
            for gift in gifts {
                let Owned { uid, gid, mode } = gift.owned;
                let (path, nofollow) = (gift.path.as_c_str(), AtFlags::SYMLINK_NOFOLLOW);
                let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
                rustix::fs::chownat(&folder, path, Some(uid), Some(gid), nofollow)?;
                if !gift.is_link {
                    // Whoever changes the owner loses the bits that go with it.
                    let mode = Mode::from_raw_mode(mode);
                    rustix::fs::chmodat(&folder, path, mode, AtFlags::empty())?;
                }
            }
            Ok(())
        })
    }

    /// Takes everything below a folder back, so that this user can read it; returns whose it was and
    /// with which mode, by inode.
    pub(super) fn take_back(&self, folder: &Path) -> io::Result<HashMap<u64, Owned>> {
        let mut rows = tempfile::tempfile()?;
        let folder: OwnedFd = File::open(folder)?.into();
        self.inside(|| walk(folder.as_fd(), rows.as_fd(), DEEPEST))?;
        rows.rewind()?;
        let mut bytes = Vec::new();
        rows.read_to_end(&mut bytes)?;
        let mut owned = HashMap::new();
        for row in bytes.chunks_exact(ROW) {
            let number = |at: usize| {
                let bytes = row[at..at + 4].try_into().expect("four bytes");
                u32::from_ne_bytes(bytes)
            };
            let inode = u64::from_ne_bytes(row[..8].try_into().expect("eight bytes"));
            // The second name of a file was met when it was taken back already.
            owned.entry(inode).or_insert(Owned {
                uid: number(8),
                gid: number(12),
                mode: number(16),
            });
        }
        Ok(owned)
    }
}

/// Writes down whose everything is, and takes it.
fn walk(directory: BorrowedFd<'_>, rows: BorrowedFd<'_>, depth: u32) -> rustix::io::Result<()> {
    if depth == 0 {
        return Err(Errno::NAMETOOLONG);
    }
    let mut buffer = [MaybeUninit::<u8>::uninit(); 4096];
    let mut entries = RawDir::new(directory, &mut buffer);
    while let Some(entry) = entries.next() {
        let entry = entry?;
        let name = entry.file_name();
        if matches!(name.to_bytes(), b"." | b"..") {
            continue;
        }
        let nofollow = AtFlags::SYMLINK_NOFOLLOW;
        let found = rustix::fs::statat(directory, name, nofollow)?;
        let kind = FileType::from_raw_mode(found.st_mode);
        let mode = found.st_mode & 0o7777;
        let mut row = [0; ROW];
        row[..8].copy_from_slice(&found.st_ino.to_ne_bytes());
        row[8..12].copy_from_slice(&found.st_uid.to_ne_bytes());
        row[12..16].copy_from_slice(&found.st_gid.to_ne_bytes());
        row[16..20].copy_from_slice(&mode.to_ne_bytes());
        if rustix::io::write(rows, &row)? != ROW {
            return Err(Errno::NOSPC);
        }
        rustix::fs::chownat(directory, name, Some(Uid::ROOT), Some(Gid::ROOT), nofollow)?;
        let readable = match kind {
            FileType::Symlink => continue,
            FileType::Directory => mode | 0o700,
            _ => mode | 0o600,
        };
        let readable = Mode::from_raw_mode(readable);
        rustix::fs::chmodat(directory, name, readable, AtFlags::empty())?;
        if kind == FileType::Directory {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let below = rustix::fs::openat(directory, name, flags, Mode::empty())?;
            walk(below.as_fd(), rows, depth - 1)?;
        }
    }
    Ok(())
}

/// Waits for a child; returns its exit code, and something else than 0 if it has none.
fn wait(child: libc::pid_t) -> i32 {
    let mut status = 0;
    #[expect(unsafe_code, reason = "a child that was forked here")]
    // SAFETY: the call writes to one number.
    while unsafe { libc::waitpid(child, &mut status, 0) } < 0 {
        if io::Error::last_os_error().kind() != io::ErrorKind::Interrupted {
            return libc::EIO;
        }
    }
    match libc::WIFEXITED(status) {
        true => libc::WEXITSTATUS(status),
        false => libc::EIO,
    }
}

/// Writes a number where there is room for it, without taking memory.
fn decimal(mut number: i32, digits: &mut [u8; 12]) -> &CStr {
    let mut at = digits.len() - 1;
    digits[at] = 0;
    while at > 0 {
        at -= 1;
        digits[at] = b'0' + (number % 10).unsigned_abs() as u8;
        number /= 10;
        if number == 0 {
            break;
        }
    }
    CStr::from_bytes_with_nul(&digits[at..]).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_are_read() {
        let passwd = "root:x:0:0::/root:/bin/sh\nme:x:1000:1000::/home/me:/bin/sh\n";
        assert_eq!(user_name(passwd, 1000).as_deref(), Some("me"));
        assert_eq!(user_name(passwd, 1), None);
        let table =
            "other:1:5\nme:100000:65536\n\nme:x:7\n1000:300000:10\nme:4294967295:2\nme:5:0\n";
        let found = lent(table, Some("me"), 1000);
        assert_eq!(found, [(100_000, 65536), (300_000, 10)]);
        assert!(lent(table, None, 7).is_empty());
    }

    #[test]
    fn maps_cover_what_a_sandbox_has() {
        let Some(map) = Map::new("sh", 1000, &[(100_000, 40_000), (300_000, 40_000), (9, 9)])
        else {
            panic!("there is a shell");
        };
        let words: Vec<&str> = map
            .triples
            .iter()
            .map(|t| t.to_str().expect("text"))
            .collect();
        let wanted = [
            "0", "1000", "1", "1", "100000", "40000", "40001", "300000", "25535",
        ];
        assert_eq!(words, wanted);
        assert_eq!(map.greatest, 65535);
        assert!(Map::new("sh", 1000, &[]).is_none());
        assert!(Map::new("no-such-program", 1000, &[(1, 1)]).is_none());
    }

    #[test]
    fn numbers_are_written_without_memory() {
        for number in [0, 7, 10, 4_194_304, i32::MAX] {
            let mut digits = [0; 12];
            assert_eq!(
                decimal(number, &mut digits).to_str(),
                Ok(number.to_string().as_str())
            );
        }
    }
}
