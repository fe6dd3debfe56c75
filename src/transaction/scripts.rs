//! Running package scripts, triggers and hooks in the root (commit.md, chapter 10).
//!
//! This is the one file with `unsafe`: what a child does between fork and exec can only be said
//! through `pre_exec`. Everything that allocates is prepared before.

use super::acts::is_serious;
use super::journal::{self, Journal, Lent};
use crate::progress::{Event, Sink, Stream};
use crate::root::{Root, RootError};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{MemfdFlags, Mode, OFlags};
use std::ffi::{CString, OsString};
use std::io::{Read, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;

/// How programs are run in a root.
#[derive(Clone, Debug, Default)]
pub(super) struct Surroundings {
    /// Do not change the root directory.
    pub(super) no_chroot: bool,
    /// Pass the caller's environment on, `APK_*` aside.
    pub(super) preserve_env: bool,
    /// Become pseudo-root in a user namespace.
    pub(super) usermode: bool,
}

/// A program to run.
pub(super) struct Program<'a> {
    /// `lib/apk/exec/NAME-VERSION.TYPE` or the path of a hook.
    pub(super) name: &'a str,
    /// Its text; `None` for a hook, which is executed from its path.
    pub(super) text: Option<&'a [u8]>,
    pub(super) arguments: &'a [String],
    /// `APK_SCRIPT`.
    pub(super) kind: &'a str,
    /// `APK_PACKAGE`.
    pub(super) package: Option<&'a str>,
    /// What stands before each line of output.
    pub(super) prefix: &'a str,
}

/// Where scripts are that cannot be executed from memory.
const FOLDER: &str = "lib/apk/exec";

/// Where the start of a program is written down, by its own process (see [`super::journal`]).
pub(super) type Witness<'a> = Option<(&'a mut Journal, &'a journal::Program)>;

/// Why a program did not do what it should.
#[derive(Debug)]
pub(super) enum Failure {
    /// The disk or the system did not let it start; nothing of it happened, and another time it may.
    NotStarted(RootError),
    /// It failed, or there is no way to run it.
    Failed(String),
}

/// Runs a program and hands its output on line by line.
pub(super) fn run(
    root: &Root,
    surroundings: &Surroundings,
    program: &Program<'_>,
    witness: Witness<'_>,
    sink: &mut dyn Sink,
    mut on_output: impl FnMut(&mut dyn Sink),
) -> Result<(), Failure> {
    let refused = |error: RootError| match is_serious(&error) {
        true => Failure::NotStarted(error),
        false => Failure::Failed(error.to_string()),
    };
    let prepared = Child1::prepare(root, surroundings);
    let plan = prepared.or_else(|error| match is_serious(&error) {
        // Once more: not every error of a disk comes twice.
        true => Child1::prepare(root, surroundings),
        false => Err(error),
    });
    let mut start = Start {
        root,
        surroundings,
        program,
        plan: plan.map_err(refused)?,
        witness,
        refusal: None,
        written: false,
        made_folder: false,
    };
    let mut child = match start.start() {
        Ok(child) => child,
        Err(failure) => {
            start.clean_up();
            // Where the script would have spoken, in apk's words.
            if let Some(error) = &start.refusal {
                let cause = crate::root::cause(error);
                on_output(sink);
                let line = format!("{}execve: {cause}", program.prefix);
                sink.event(Event::ScriptLine(Stream::Stderr, line.as_bytes()));
            }
            return Err(failure);
        }
    };
    pump(&mut child, program.prefix, sink, &mut on_output);
    let failed = |text| Err(Failure::Failed(text));
    let status = match child.wait() {
        Ok(status) => status,
        Err(error) => return failed(format!("{}: {error}", program.name)),
    };
    start.clean_up();
    // A script may have changed anything.
    root.forget_directories();
    failure(program.name, status).map_or(Ok(()), failed)
}

fn failure(name: &str, status: ExitStatus) -> Option<String> {
    match (status.code(), status.signal()) {
        (Some(0), _) => None,
        (Some(code), _) => Some(format!("{name}: exited with error {code}")),
        (None, signal) => Some(format!("{name}: killed by signal {}", signal.unwrap_or(0))),
    }
}

/// All that a start needs.
struct Start<'a, 'j> {
    root: &'a Root,
    surroundings: &'a Surroundings,
    program: &'a Program<'a>,
    plan: Child1,
    witness: Witness<'j>,
    /// Why the system did not execute it.
    refusal: Option<std::io::Error>,
    /// The text is in a file of the root.
    written: bool,
    /// The folder of such files was made for it.
    made_folder: bool,
}

impl Start<'_, '_> {
    /// Starts from an anonymous file, or from a real one where that cannot work.
    fn start(&mut self) -> Result<Child, Failure> {
        let program = self.program;
        let Some(text) = program.text else {
            // The child's working directory is the root; without chroot an absolute path would
            // be one of the host.
            let child = self.spawn(program.name.into(), true)?;
            return child.map_err(|error| self.unable(error));
        };
        let mut first = true;
        if let Ok(file) = anonymous(program.name, text) {
            let path = format!("/proc/self/fd/{}", file.as_raw_fd());
            match self.spawn(path.into(), first)? {
                // Without /proc, or where such files must not be executed, a real file is used.
                Err(error) if matches!(error.raw_os_error(), Some(1 | 2 | 13)) => {}
                other => return other.map_err(|error| self.unable(error)),
            }
            first = false;
        }
        let written = self.write(text).or_else(|error| match is_serious(&error) {
            true => self.write(text),
            false => Err(error),
        });
        let path = written.map_err(|error| match is_serious(&error) {
            true => Failure::NotStarted(error),
            false => self.unable(error.source),
        })?;
        let child = self.spawn(path, first)?;
        child.map_err(|error| self.unable(error))
    }

    fn unable(&mut self, error: std::io::Error) -> Failure {
        self.refusal = Some(error);
        Failure::Failed(format!("{}: exited with error 127", self.program.name))
    }

    /// Removes the file that was made for the program, and its folder.
    fn clean_up(&self) {
        if !self.written {
            return;
        }
        if let Ok((directory, name)) = self.root.parent(self.program.name) {
            // What is left over goes with the next script of this name.
            let _ = directory.remove_file(name);
        }
        if self.made_folder
            && let Ok((directory, name)) = self.root.parent(FOLDER)
        {
            let _ = directory.remove_directory(name);
        }
    }

    /// Writes the text into a file of the root; returns its path as the child will see it.
    fn write(&mut self, text: &[u8]) -> Result<OsString, RootError> {
        let name = self.program.name;
        if self.root.stat(FOLDER)?.is_none() {
            self.made_folder = true;
            self.root.create_directories(FOLDER)?;
        }
        self.written = true;
        let (directory, file_name) = self.root.parent(name)?;
        directory.remove_file(file_name)?;
        let mut file = directory.create_file(file_name, 0o755)?;
        file.write_all(text)
            .map_err(|error| RootError::new("write", name, error))?;
        Ok(match self.plan.chroot {
            Some(_) => format!("/{name}").into(),
            None => self.root.path().join(name).into(),
        })
    }

    /// Starts the process; the inner error is what the system said of this program.
    fn spawn(&mut self, path: OsString, first: bool) -> Result<std::io::Result<Child>, Failure> {
        let lent = match &self.witness {
            Some((journal, program)) => Some(Arc::new(
                journal.lend(program).map_err(Failure::NotStarted)?,
            )),
            None => None,
        };
        if first {
            let program = self.program;
            self.root
                .note_program(program.name, program.text, program.arguments);
        }
        let child = spawn(
            self.surroundings,
            self.program,
            &self.plan,
            path,
            lent.clone(),
        );
        if let (Some((journal, _)), Some(lent)) = (&mut self.witness, &lent) {
            let taken = journal.take_back(lent, child.is_ok());
            taken.map_err(Failure::NotStarted)?;
        }
        match child {
            Err(error) if error.raw_os_error() > Some(UNWITNESSED) => {
                let errno = error.raw_os_error().unwrap_or(UNWITNESSED) - UNWITNESSED;
                let source = std::io::Error::from_raw_os_error(errno);
                let error = RootError::new("write", "lib/apk/db/.journal", source);
                Err(Failure::NotStarted(error))
            }
            other => Ok(other),
        }
    }
}

/// Makes a file in memory that a child can execute.
fn anonymous(name: &str, text: &[u8]) -> rustix::io::Result<OwnedFd> {
    let flags = MemfdFlags::ALLOW_SEALING;
    let short = name.rsplit('/').next().unwrap_or(name);
    let short = &short[..short.len().min(200)];
    let fd = rustix::fs::memfd_create(short, flags)?;
    let mut rest = text;
    while !rest.is_empty() {
        let count = rustix::io::write(&fd, rest)?;
        rest = &rest[count..];
    }
    rustix::fs::fchmod(&fd, Mode::from_raw_mode(0o755))?;
    let seals = rustix::fs::SealFlags::WRITE
        | rustix::fs::SealFlags::SHRINK
        | rustix::fs::SealFlags::GROW
        | rustix::fs::SealFlags::SEAL;
    rustix::fs::fcntl_add_seals(&fd, seals)?;
    Ok(fd)
}

/// What the child does before it executes anything, with all texts made.
struct Child1 {
    chroot: Option<CString>,
    directory: CString,
    /// Mount `/proc` and `/dev` of the system into the root, in a namespace of its own.
    mounts: Vec<(CString, CString, bool)>,
    /// Texts for the id maps of a user namespace.
    identity: Option<(Vec<u8>, Vec<u8>)>,
}

impl Child1 {
    fn prepare(root: &Root, surroundings: &Surroundings) -> Result<Self, RootError> {
        let text = |path: &Path| {
            use std::os::unix::ffi::OsStrExt;
            CString::new(path.as_os_str().as_bytes())
                .map_err(|error| RootError::new("use", &path.display().to_string(), error))
        };
        let is_system = root.is_system();
        let chroot = !is_system && !surroundings.no_chroot;
        let mut plan = Self {
            chroot: chroot.then(|| text(root.path())).transpose()?,
            directory: if chroot {
                c"/".into()
            } else {
                text(root.path())?
            },
            mounts: Vec::new(),
            identity: None,
        };
        if !chroot {
            return Ok(plan);
        }
        if surroundings.usermode {
            let (uid, gid) = (rustix::process::geteuid(), rustix::process::getegid());
            plan.identity = Some((
                format!("0 {} 1", uid.as_raw()).into_bytes(),
                format!("0 {} 1", gid.as_raw()).into_bytes(),
            ));
        }
        let works = root.path().join("proc/self").exists() && root.path().join("dev/null").exists();
        if surroundings.usermode || !works {
            for (name, read_only) in [("proc", false), ("dev", true)] {
                root.create_directories(name)?;
                let from = CString::new(format!("/{name}")).expect("no NUL");
                plan.mounts
                    .push((from, text(&root.path().join(name))?, read_only));
            }
        }
        Ok(plan)
    }

    /// Runs in the child: only system calls, nothing that allocates.
    fn enter(&self) -> rustix::io::Result<()> {
        use rustix::mount::{
            MountFlags, MountPropagationFlags, mount_bind_recursive, mount_change,
        };
        use rustix::thread::{UnshareFlags, unshare_unsafe};
        if !self.mounts.is_empty() {
            let mut flags = UnshareFlags::NEWNS;
            if self.identity.is_some() {
                flags |= UnshareFlags::NEWUSER;
            }
            #[expect(
                unsafe_code,
                reason = "the call is unsafe for its flag FILES, not given here"
            )]
            // SAFETY: the child has one thread, and its descriptor table is not unshared.
            let unshared = unsafe { unshare_unsafe(flags) };
            if let (Ok(()), Some((uids, gids))) = (unshared, &self.identity) {
                write_file(c"/proc/self/setgroups", b"deny")?;
                write_file(c"/proc/self/uid_map", uids)?;
                write_file(c"/proc/self/gid_map", gids)?;
            }
            // Without the right to namespaces the script runs all the same, as in apk.
            if unshared.is_ok() {
                let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
                mount_change(c"/", private)?;
                for (from, to, read_only) in &self.mounts {
                    mount_bind_recursive(from.as_c_str(), to.as_c_str())?;
                    if *read_only {
                        let flags = MountFlags::BIND | MountFlags::RDONLY;
                        // A locked mount of a user namespace may refuse; then it stays writable.
                        let _ = rustix::mount::mount_remount(to.as_c_str(), flags, c"");
                    }
                }
            }
        }
        if let Some(path) = &self.chroot {
            rustix::process::chroot(path.as_c_str())?;
        }
        rustix::process::chdir(self.directory.as_c_str())?;
        rustix::process::umask(Mode::from_raw_mode(0o022));
        Ok(())
    }
}

fn write_file(path: &std::ffi::CStr, content: &[u8]) -> rustix::io::Result<()> {
    let file = rustix::fs::open(path, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())?;
    rustix::io::write(&file, content).map(drop)
}

/// What a child adds to the number of an error that kept it from writing down its start; the system
/// has no such numbers.
const UNWITNESSED: i32 = 1 << 16;

/// Writes down, in the child, that it becomes a program now.
fn witness(lent: &Lent) -> rustix::io::Result<()> {
    let mut rest = lent.text.as_slice();
    while !rest.is_empty() {
        match rustix::io::write(&lent.file, rest) {
            Ok(count) => rest = rest.get(count..).unwrap_or_default(),
            Err(rustix::io::Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
    }
    match lent.sync {
        true => rustix::fs::fdatasync(&lent.file),
        false => Ok(()),
    }
}

fn spawn(
    surroundings: &Surroundings,
    program: &Program<'_>,
    plan: &Child1,
    path: OsString,
    lent: Option<Arc<Lent>>,
) -> std::io::Result<Child> {
    let mut command = Command::new(path);
    command.arg0(program.name).args(program.arguments);
    // At its end already, and there even where the system has no `/dev/null`.
    let (standard_input, _) = std::io::pipe()?;
    command
        .stdin(standard_input)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command.env_clear();
    if surroundings.preserve_env {
        let apk = |name: &OsString| name.to_string_lossy().starts_with("APK_");
        command.envs(std::env::vars_os().filter(|(name, _)| !apk(name)));
    } else {
        command.env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
    }
    command.env("APK_SCRIPT", program.kind);
    if let Some(package) = program.package {
        command.env("APK_PACKAGE", package);
    }
    let plan = Child1 {
        chroot: plan.chroot.clone(),
        directory: plan.directory.clone(),
        mounts: plan.mounts.clone(),
        identity: plan.identity.clone(),
    };
    #[expect(
        unsafe_code,
        reason = "namespaces and chroot belong between fork and exec"
    )]
    // SAFETY: `enter` makes system calls only; all memory it uses was allocated before the fork.
    unsafe {
        command.pre_exec(move || {
            plan.enter()?;
            let written = lent.as_deref().map_or(Ok(()), witness);
            written.map_err(|errno| {
                std::io::Error::from_raw_os_error(UNWITNESSED + errno.raw_os_error())
            })
        });
    }
    command.spawn()
}

/// One output stream of a child: the bytes of an unfinished line.
struct Lines<R> {
    source: Option<R>,
    stream: Stream,
    pending: Vec<u8>,
}

/// A longer line is passed on in parts, so that a script cannot use up memory.
const LONGEST_LINE: usize = 64 << 10;

impl<R: Read + AsFd> Lines<R> {
    fn new(source: Option<R>, stream: Stream) -> Self {
        Self {
            source,
            stream,
            pending: Vec::new(),
        }
    }

    /// Reads what is there; hands complete lines on.
    fn read(&mut self, prefix: &str, emit: &mut dyn FnMut(Stream, &[u8])) {
        let mut buffer = [0; 4096];
        let count = match self.source.as_mut().map(|source| source.read(&mut buffer)) {
            Some(Ok(count)) => count,
            Some(Err(error)) if error.kind() == std::io::ErrorKind::Interrupted => return,
            _ => 0,
        };
        if count == 0 {
            self.source = None;
            self.flush(prefix, emit);
            return;
        }
        for byte in &buffer[..count] {
            if *byte == b'\n' || self.pending.len() >= LONGEST_LINE {
                self.line(prefix, emit);
            }
            if *byte != b'\n' {
                self.pending.push(*byte);
            }
        }
    }

    fn flush(&mut self, prefix: &str, emit: &mut dyn FnMut(Stream, &[u8])) {
        if !self.pending.is_empty() {
            self.line(prefix, emit);
        }
    }

    fn line(&mut self, prefix: &str, emit: &mut dyn FnMut(Stream, &[u8])) {
        let text = std::mem::take(&mut self.pending);
        let text = text.strip_prefix(b"* ").unwrap_or(&text);
        let mut line = prefix.as_bytes().to_vec();
        line.extend_from_slice(text);
        emit(self.stream, &line);
    }
}

/// Passes the output on until the child has ended and its pipes are empty.
fn pump(
    child: &mut Child,
    prefix: &str,
    sink: &mut dyn Sink,
    on_output: &mut dyn FnMut(&mut dyn Sink),
) {
    let mut out = Lines::new(child.stdout.take(), Stream::Stdout);
    let mut err = Lines::new(child.stderr.take(), Stream::Stderr);
    let mut first = true;
    let mut emit = |stream: Stream, line: &[u8]| {
        if first {
            first = false;
            on_output(sink);
        }
        sink.event(Event::ScriptLine(stream, line));
    };
    while out.source.is_some() || err.source.is_some() {
        let (ready_out, ready_err) = {
            let mut fds = Vec::with_capacity(2);
            fds.extend(out.source.as_ref().map(|s| PollFd::new(s, PollFlags::IN)));
            let has_out = fds.len() == 1;
            fds.extend(err.source.as_ref().map(|s| PollFd::new(s, PollFlags::IN)));
            // A daemon that a script started may hold the pipes; the script's end is enough.
            let wait = rustix::event::Timespec {
                tv_sec: 0,
                tv_nsec: 100_000_000,
            };
            match poll(&mut fds, Some(&wait)) {
                Ok(0) | Err(_) => {
                    if matches!(child.try_wait(), Ok(Some(_))) {
                        break;
                    }
                    continue;
                }
                Ok(_) => {}
            }
            let ready: Vec<bool> = fds.iter().map(|fd| !fd.revents().is_empty()).collect();
            if has_out {
                (ready[0], ready.get(1).copied().unwrap_or(false))
            } else {
                (false, ready.first().copied().unwrap_or(false))
            }
        };
        if ready_out {
            out.read(prefix, &mut emit);
        }
        if ready_err {
            err.read(prefix, &mut emit);
        }
    }
    out.flush(prefix, &mut emit);
    err.flush(prefix, &mut emit);
}
