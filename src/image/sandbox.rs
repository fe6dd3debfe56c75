//! Running a script where it can do no harm (image.md, 6.5).
//!
//! The tree is unpacked into a temporary directory; the script sees that as its root, in namespaces
//! of its own: no network, no other processes, no mounts of the system but five harmless devices,
//! and without privileges outside. What it changed is taken over into the tree; what it left in
//! `/tmp`, `/run` and the caches is not.
//!
//! As an ordinary user the script is root over the ids that the system lends to that user
//! ([`super::subordinate`]); without such it is root over the files of that user alone, and cannot
//! give files to others. This, `subordinate` and `transaction::scripts` are the files with `unsafe`:
//! what a child does between fork and exec can only be said there.

use super::error::ImageError;
use super::{output, subordinate};
use crate::root::{Root, RootError, passing, split};
use rustix::fs::{FileType, Mode, OFlags};
use rustix::mount::{MountFlags, MountPropagationFlags};
use std::collections::BTreeMap;
use std::ffi::CString;
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// How long one script may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// Bytes of a script's output that are kept.
const MOST_OUTPUT: u64 = 1 << 20;

/// What is not part of an image: the script's own affairs, and the system's.
const DROPPED: [&str; 8] = [
    "dev",
    "proc",
    "sys",
    "tmp",
    "run",
    "var/cache",
    "var/tmp",
    "lib/apk/exec",
];

/// Devices that a script can use.
const DEVICES: [&str; 6] = ["null", "zero", "full", "random", "urandom", "tty"];

/// A script to run.
pub(super) struct Job<'a> {
    pub(super) package: &'a str,
    pub(super) version: &'a str,
    pub(super) kind: &'a str,
    pub(super) text: &'a [u8],
    pub(super) arguments: &'a [String],
    pub(super) build_time: u64,
}

/// Returns why scripts of an architecture cannot run on this machine.
pub(super) fn check(architecture: &str) -> Result<(), ImageError> {
    let host = std::env::consts::ARCH;
    let runs = match architecture {
        "x86" => matches!(host, "x86" | "x86_64"),
        "armhf" | "armv7" => matches!(host, "arm" | "aarch64"),
        "ppc64le" => host == "powerpc64",
        "noarch" => true,
        other => host == other,
    };
    match runs || is_translated(architecture) {
        true => Ok(()),
        false => Err(ImageError::ScriptArchitecture {
            architecture: architecture.to_owned(),
        }),
    }
}

/// Returns whether the kernel runs programs of another processor by a translator that it holds open:
/// one that it looks for by its path would not be found in the sandbox.
fn is_translated(architecture: &str) -> bool {
    let name = match architecture {
        "armhf" | "armv7" => "arm",
        "x86" => "i386",
        other => other,
    };
    let path = format!("/proc/sys/fs/binfmt_misc/qemu-{name}");
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let flags = text.lines().find_map(|line| line.strip_prefix("flags: "));
    text.starts_with("enabled") && flags.is_some_and(|flags| flags.contains('F'))
}

/// Returns the command by which a script gives files to others, which only root can make true: an
/// ordinary user without lent ids has the one user id that is root's inside.
pub(super) fn gives_away(text: &[u8]) -> Option<&'static str> {
    const COMMANDS: [&str; 2] = ["chown", "chgrp"];
    if rustix::process::geteuid().is_root() || subordinate::ranges().is_some() {
        return None;
    }
    let part = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_.".contains(byte);
    let mut words = text.split(|byte| !part(byte));
    words.find_map(|word| COMMANDS.into_iter().find(|known| known.as_bytes() == word))
}

/// Returns why there can be no sandbox on this machine, before any work is done.
///
/// # Errors
/// [`ImageError::NoSandbox`].
pub(super) fn available() -> Result<(), ImageError> {
    use rustix::thread::unshare_unsafe;
    let flags = namespaces(!rustix::process::geteuid().is_root());
    #[expect(unsafe_code, reason = "only a child can try without staying there")]
    // SAFETY: the child makes one system call and ends with _exit; the flag FILES is not given.
    let status = unsafe {
        match libc::fork() {
            -1 => return Ok(()),
            0 => {
                let code =
                    unshare_unsafe(flags).map_or_else(rustix::io::Errno::raw_os_error, |()| 0);
                libc::_exit(code & 0xff)
            }
            child => {
                let mut status = 0;
                while libc::waitpid(child, &mut status, 0) < 0 {}
                libc::WEXITSTATUS(status)
            }
        }
    };
    match status {
        0 => Ok(()),
        code => Err(ImageError::NoSandbox {
            reason: explain(&io::Error::from_raw_os_error(code)),
        }),
    }
}

/// Returns what a sandbox has of its own.
fn namespaces(of_a_user: bool) -> rustix::thread::UnshareFlags {
    use rustix::thread::UnshareFlags;
    let flags = UnshareFlags::NEWNS
        | UnshareFlags::NEWPID
        | UnshareFlags::NEWIPC
        | UnshareFlags::NEWUTS
        | UnshareFlags::NEWNET;
    match of_a_user {
        true => flags | UnshareFlags::NEWUSER,
        false => flags,
    }
}

/// Runs a script on a tree; returns what it said.
pub(super) fn run(root: &Root, job: &Job<'_>) -> Result<String, ImageError> {
    let no_sandbox = |reason: String| ImageError::NoSandbox { reason };
    let place = passing::noted(tempfile::tempdir, tempfile::TempDir::path);
    let place = place.map_err(|error| no_sandbox(crate::root::cause(&error)))?;
    let folder = place.path().join("root");
    let tree = root.tree().expect("an image is built in memory");
    output::unpack_tree(tree, &folder, false)?;
    let disk = Root::open(&folder)?;
    for name in ["dev", "proc", "tmp", "run", "lib/apk/exec"] {
        disk.create_directories(name)?;
    }
    let program = format!("lib/apk/exec/{}-{}.{}", job.package, job.version, job.kind);
    disk.replace(&program, job.text, 0o755, false)?;
    let mut before = snapshot(&folder)?;
    let ranges = subordinate::ranges();
    if let Some(ranges) = ranges {
        let entries = tree.entries();
        for entry in &entries {
            if let Some(seen) = before.get_mut(&entry.path) {
                seen.mode = entry.mode;
                (seen.uid, seen.gid) = match ranges.covers(entry.uid, entry.gid) {
                    true => (entry.uid, entry.gid),
                    false => (0, 0),
                };
            }
        }
        let failed = |error: io::Error| {
            no_sandbox(format!(
                "files cannot be given away: {}",
                crate::root::cause(&error)
            ))
        };
        ranges
            .give_away(&folder, &ranges.gifts(&entries))
            .map_err(failed)?;
    }
    let said = execute(&folder, &program, job, ranges);
    // Before anything else, and whatever came of it: only then can this user remove it all.
    let owned = ranges.map(|ranges| ranges.take_back(&folder)).transpose();
    let owned = owned.map_err(|error| {
        no_sandbox(format!(
            "files cannot be taken back: {}",
            crate::root::cause(&error)
        ))
    })?;
    // What a script did before it failed stays, as on a machine.
    let mut after = snapshot(&folder)?;
    for seen in after.values_mut() {
        if let Some(owned) = owned.as_ref().and_then(|owned| owned.get(&seen.inode)) {
            (seen.uid, seen.gid, seen.mode) = (owned.uid, owned.gid, owned.mode);
        }
    }
    take_over(root, &folder, &before, &after, job.build_time)?;
    root.forget_directories();
    said
}

/// What a path is, so that any change of it shows.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Seen {
    kind: FileType,
    mode: u32,
    uid: u32,
    gid: u32,
    size: u64,
    inode: u64,
    changed: (i64, i64),
}

fn snapshot(folder: &Path) -> Result<BTreeMap<String, Seen>, ImageError> {
    fn walk(
        folder: &Path,
        path: &str,
        seen: &mut BTreeMap<String, Seen>,
    ) -> Result<(), ImageError> {
        let here = folder.join(path);
        let failed = |error: io::Error| RootError::new("list", path, error);
        for entry in std::fs::read_dir(&here).map_err(failed)? {
            let name = entry.map_err(failed)?.file_name();
            let Some(name) = name.to_str() else { continue };
            let path = crate::plan::files::join(path, name);
            if DROPPED.contains(&path.as_str()) {
                continue;
            }
            let found = std::fs::symlink_metadata(folder.join(&path)).map_err(failed)?;
            let kind = found.file_type();
            let kind = match () {
                () if kind.is_dir() => FileType::Directory,
                () if kind.is_symlink() => FileType::Symlink,
                () if kind.is_file() => FileType::RegularFile,
                () if kind.is_fifo() => FileType::Fifo,
                // Sockets and devices are no part of an image.
                () => continue,
            };
            let is_dir = kind == FileType::Directory;
            let row = Seen {
                kind,
                mode: found.mode() & 0o7777,
                uid: found.uid(),
                gid: found.gid(),
                size: if is_dir { 0 } else { found.size() },
                inode: found.ino(),
                // A directory changes with everything in it.
                changed: if is_dir {
                    (0, 0)
                } else {
                    (found.mtime(), found.mtime_nsec())
                },
            };
            seen.insert(path.clone(), row);
            if is_dir {
                walk(folder, &path, seen)?;
            }
        }
        Ok(())
    }
    let mut seen = BTreeMap::new();
    walk(folder, "", &mut seen)?;
    Ok(seen)
}

/// Brings what changed in the directory into the tree.
fn take_over(
    root: &Root,
    folder: &Path,
    before: &BTreeMap<String, Seen>,
    after: &BTreeMap<String, Seen>,
    time: u64,
) -> Result<(), ImageError> {
    let privileged = rustix::process::geteuid().is_root() || subordinate::ranges().is_some();
    // The deepest first, so that directories are empty when their turn comes.
    for path in before
        .keys()
        .rev()
        .filter(|path| !after.contains_key(*path))
    {
        let (directory, name) = root.parent(path)?;
        if directory.has_directory(name) {
            directory.remove_directory(name);
        } else {
            directory.remove_file(name)?;
        }
        root.forget_directories();
    }
    for (path, seen) in after {
        let old = before.get(path);
        if old == Some(seen) {
            continue;
        }
        let (parent, name) = split(path);
        let directory = root.directory(parent)?;
        let known = directory.stat(name)?;
        let same_kind = known.is_some_and(|known| known.kind == seen.kind);
        if !same_kind && known.is_some() {
            match known.is_some_and(|known| known.is_dir()) {
                true => drop(directory.remove_directory(name)),
                false => directory.remove_file(name)?,
            }
            root.forget_directories();
        }
        let failed = |error: io::Error| RootError::new("read", path, error);
        let from = folder.join(path);
        match seen.kind {
            FileType::Directory => directory.create_directory(name, seen.mode)?,
            FileType::Symlink => {
                let target = std::fs::read_link(&from).map_err(failed)?;
                let Some(target) = target.to_str() else {
                    continue;
                };
                directory.remove_file(name)?;
                directory.create_symlink(target, name)?;
            }
            FileType::RegularFile => {
                let content = |seen: &Seen| (seen.size, seen.inode, seen.changed);
                if !same_kind || old.map(content) != Some(content(seen)) {
                    let mut file = std::fs::File::open(&from).map_err(failed)?;
                    directory.remove_file(name)?;
                    let mut new = directory.create_file(name, seen.mode)?;
                    io::copy(&mut file, &mut new).map_err(failed)?;
                    new.set_time(time)?;
                }
            }
            _ => {
                directory.remove_file(name)?;
                directory.create_node(name, FileType::Fifo, seen.mode, 0, 0)?;
            }
        }
        // An ordinary user's files are those of root inside; owners in the tree stay.
        let (uid, gid) = match (privileged, known) {
            (true, _) => (seen.uid, seen.gid),
            (false, Some(known)) => (known.uid, known.gid),
            (false, None) => (0, 0),
        };
        directory.set_owner(name, uid, gid)?;
        if seen.kind != FileType::Symlink {
            directory.set_mode(name, seen.mode)?;
        }
    }
    Ok(())
}

/// What the child does before the script begins, with all texts made.
struct Cage {
    root: CString,
    proc: CString,
    temporary: Vec<CString>,
    devices: Vec<(CString, CString)>,
    /// Who the script is.
    identity: Identity,
}

/// Who a script is inside, and outside.
enum Identity {
    /// Root, without a user namespace.
    Root,
    /// Root over one user and group id; texts for the maps.
    One(Vec<u8>, Vec<u8>),
    /// Root over lent ids.
    Lent(&'static subordinate::Ranges),
}

impl Cage {
    fn new(folder: &Path, ranges: Option<&'static subordinate::Ranges>) -> Self {
        let text = |path: &Path| {
            CString::new(path.as_os_str().as_bytes()).expect("a path of the system has no NUL")
        };
        let (uid, gid) = (rustix::process::geteuid(), rustix::process::getegid());
        let devices = DEVICES.iter().map(|name| {
            let system = Path::new("/dev").join(name);
            (text(&system), text(&folder.join("dev").join(name)))
        });
        Self {
            root: text(folder),
            proc: text(&folder.join("proc")),
            temporary: ["dev", "tmp", "run"]
                .iter()
                .map(|name| text(&folder.join(name)))
                .collect(),
            devices: devices.collect(),
            identity: match ranges {
                _ if uid.is_root() => Identity::Root,
                Some(ranges) => Identity::Lent(ranges),
                None => {
                    let map = |id: u32| format!("0 {id} 1").into_bytes();
                    Identity::One(map(uid.as_raw()), map(gid.as_raw()))
                }
            },
        }
    }

    /// Runs in the child: system calls only.
    fn enter(&self) -> rustix::io::Result<()> {
        use rustix::thread::unshare_unsafe;
        let flags = namespaces(!matches!(self.identity, Identity::Root));
        let alone = || {
            #[expect(
                unsafe_code,
                reason = "the call is unsafe for its flag FILES, not given here"
            )]
            // SAFETY: the child has one thread, and its descriptor table is not unshared.
            unsafe {
                unshare_unsafe(flags)
            }
        };
        match &self.identity {
            Identity::Root => alone()?,
            Identity::One(uids, gids) => {
                alone()?;
                write_file(c"/proc/self/setgroups", b"deny")?;
                write_file(c"/proc/self/uid_map", uids)?;
                write_file(c"/proc/self/gid_map", gids)?;
            }
            Identity::Lent(ranges) => {
                ranges.enter(flags)?;
                // The groups of who builds are nobody's inside.
                let _ = rustix::thread::set_thread_groups(&[]);
            }
        }
        become_first_process()?;
        self.mounts()?;
        rustix::process::umask(Mode::from_raw_mode(0o022));
        Ok(())
    }

    fn mounts(&self) -> rustix::io::Result<()> {
        use rustix::mount::{mount, mount_bind, mount_bind_recursive, mount_change, unmount};
        let quiet = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
        mount_change(
            c"/",
            MountPropagationFlags::PRIVATE | MountPropagationFlags::REC,
        )?;
        mount_bind_recursive(self.root.as_c_str(), self.root.as_c_str())?;
        // In a container that hides part of /proc the kernel allows no other one; scripts mostly do
        // without.
        let _ = mount(c"proc", self.proc.as_c_str(), c"proc", quiet, None);
        for place in &self.temporary {
            mount(
                c"tmpfs",
                place.as_c_str(),
                c"tmpfs",
                MountFlags::NOSUID,
                None,
            )?;
        }
        for (system, place) in &self.devices {
            let flags = OFlags::CREATE | OFlags::WRONLY | OFlags::CLOEXEC;
            drop(rustix::fs::open(
                place.as_c_str(),
                flags,
                Mode::from_raw_mode(0o666),
            )?);
            // A system may lack one of them.
            let _ = mount_bind(system.as_c_str(), place.as_c_str());
        }
        rustix::process::chdir(self.root.as_c_str())?;
        rustix::process::pivot_root(c".", c".")?;
        unmount(c".", rustix::mount::UnmountFlags::DETACH)?;
        rustix::process::chdir(c"/")
    }
}

fn write_file(path: &std::ffi::CStr, content: &[u8]) -> rustix::io::Result<()> {
    let file = rustix::fs::open(path, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())?;
    rustix::io::write(&file, content).map(drop)
}

/// Forks once more: a namespace of processes begins with the next child. The one that stays waits,
/// and ends as the child did.
fn become_first_process() -> rustix::io::Result<()> {
    #[expect(unsafe_code, reason = "fork, and ending without running anything else")]
    // SAFETY: this process has one thread; the parent makes system calls only and ends with _exit.
    unsafe {
        match libc::fork() {
            -1 => Err(rustix::io::Errno::AGAIN),
            0 => {
                // Who waits may be killed; the script must not go on alone then.
                libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
                Ok(())
            }
            child => {
                // Whoever waits for this one may be killed, too.
                libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
                // Somebody waits for these to close.
                libc::syscall(libc::SYS_close_range, 3u32, u32::MAX, 0u32);
                let mut status = 0;
                while libc::waitpid(child, &mut status, 0) < 0 {}
                libc::_exit(match libc::WIFEXITED(status) {
                    true => libc::WEXITSTATUS(status),
                    false => 128 + libc::WTERMSIG(status),
                })
            }
        }
    }
}

/// Runs the script; returns what it said.
fn execute(
    folder: &Path,
    program: &str,
    job: &Job<'_>,
    ranges: Option<&'static subordinate::Ranges>,
) -> Result<String, ImageError> {
    let failed = |reason: String| ImageError::ScriptFailed {
        package: job.package.to_owned(),
        script: job.kind.to_owned(),
        reason,
    };
    let no_sandbox = |error: io::Error| ImageError::NoSandbox {
        reason: explain(&error),
    };
    let (mut reader, writer) = io::pipe().map_err(no_sandbox)?;
    let cage = Cage::new(folder, ranges);
    let mut command = Command::new(format!("/{program}"));
    command
        .args(job.arguments)
        .env_clear()
        .env(
            "PATH",
            "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        )
        .env("APK_PACKAGE", job.package)
        .env("APK_SCRIPT", job.kind)
        .env("SOURCE_DATE_EPOCH", job.build_time.to_string())
        .stdin(Stdio::null())
        .stdout(writer.try_clone().map_err(no_sandbox)?)
        .stderr(writer);
    #[expect(
        unsafe_code,
        reason = "namespaces and mounts belong between fork and exec"
    )]
    // SAFETY: `enter` makes system calls only; all memory it uses was allocated before the fork.
    unsafe {
        command.pre_exec(move || cage.enter().map_err(io::Error::from));
    }
    let spawned = command.spawn();
    // The command holds the write ends.
    drop(command);
    let mut child = match spawned {
        Ok(child) => child,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(failed("its interpreter is not in the image".to_owned()));
        }
        Err(error) => return Err(no_sandbox(error)),
    };
    let listener = std::thread::spawn(move || {
        let mut said = Vec::new();
        // What a script says beyond the bound is read and forgotten, so that it does not wait.
        let kept = (&mut reader).take(MOST_OUTPUT).read_to_end(&mut said);
        drop(kept.and_then(|_| io::copy(&mut reader, &mut io::sink())));
        said
    });
    let deadline = Instant::now() + PATIENCE;
    let status = loop {
        match child.try_wait() {
            Ok(Some(status)) => break Ok(status),
            Ok(None) if Instant::now() > deadline => {
                let _ = child.kill();
                let _ = child.wait();
                break Err(format!("it took longer than {} s", PATIENCE.as_secs()));
            }
            Ok(None) => std::thread::sleep(Duration::from_millis(3)),
            Err(error) => break Err(crate::root::cause(&error)),
        }
    };
    let said = listener.join().unwrap_or_default();
    let said = String::from_utf8_lossy(&said).into_owned();
    let reason = match status {
        Ok(status) if status.success() => return Ok(said.trim().to_owned()),
        Ok(status) => match (status.code(), status.signal()) {
            (Some(code), _) => format!("exit code {code}"),
            (None, signal) => format!("signal {}", signal.unwrap_or(0)),
        },
        Err(reason) => reason,
    };
    let lines: Vec<&str> = said.lines().collect();
    let last = lines[lines.len().saturating_sub(20)..].join("\n");
    Err(failed(match last.is_empty() {
        true => reason,
        false => format!("{reason}\n{last}"),
    }))
}

/// Says which setting forbids namespaces.
fn explain(error: &io::Error) -> String {
    let cause = crate::root::cause(error);
    let read = |path: &str| {
        std::fs::read_to_string(path)
            .unwrap_or_default()
            .trim()
            .to_owned()
    };
    let settings = [
        ("/proc/sys/kernel/unprivileged_userns_clone", "0"),
        ("/proc/sys/user/max_user_namespaces", "0"),
        (
            "/proc/sys/kernel/apparmor_restrict_unprivileged_userns",
            "1",
        ),
    ];
    for (path, value) in settings {
        if read(path) == value {
            return format!("{cause}; {path} is {value}");
        }
    }
    cause
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::root::Tree;
    use std::io::Write;

    #[test]
    fn changes_are_taken_over() {
        let tree = Tree::new(7);
        let root = Root::of_tree(&tree);
        for (path, text) in [
            ("a", "one"),
            ("d/b", "two"),
            ("d/c", "three"),
            ("e/f", "four"),
        ] {
            root.replace(path, text.as_bytes(), 0o644, false)
                .expect("a tree");
        }
        let place = tempfile::tempdir().expect("a directory");
        let folder = place.path().join("root");
        output::unpack_tree(&tree, &folder, false).expect("unpacked");
        let before = snapshot(&folder).expect("a snapshot");
        let mut file = std::fs::File::create(folder.join("a")).expect("a file");
        file.write_all(b"changed").expect("a file");
        std::fs::remove_file(folder.join("d/b")).expect("it is there");
        std::fs::remove_dir_all(folder.join("e")).expect("it is there");
        std::os::unix::fs::symlink("a", folder.join("e")).expect("a link");
        std::fs::create_dir_all(folder.join("n/m")).expect("directories");
        std::fs::create_dir_all(folder.join("var/cache/x")).expect("directories");
        let after = snapshot(&folder).expect("a snapshot");
        take_over(&root, &folder, &before, &after, 99).expect("taken over");
        let paths: Vec<String> = tree.entries().into_iter().map(|entry| entry.path).collect();
        assert_eq!(paths, ["a", "d", "d/c", "e", "n", "n/m", "var"]);
        assert_eq!(
            root.read("a").expect("a tree").as_deref(),
            Some(b"changed".as_slice())
        );
        let times: Vec<u64> = tree
            .entries()
            .into_iter()
            .map(|entry| entry.mtime)
            .collect();
        assert_eq!((times[0], times[2]), (99, 7));
    }
}
