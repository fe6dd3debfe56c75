//! What a crash test does to the operations that change a root, or wants to know of them.
//!
//! Every changing operation of this floor passes [`step`] first. Without the feature `testing` that
//! is nothing at all, and no environment variable is read. With it, `IBEX_FAULT` says what happens:
//!
//! | value | meaning |
//! | --- | --- |
//! | `count:FILE` | the number of operations is written to FILE, after each |
//! | `stop:N` | the process kills itself before operation N, counted from 0 |
//! | `eio:N`, `enospc:N` | operation N fails so, once |
//! | `eio+:N`, `enospc+:N`, `erofs+:N` | operation N and all later ones fail so |
//! | `short:N` | operation N, if it writes, writes half of its bytes and says so |
//! | `torn:N`, `torn+:N` | it writes half, then the disk is full, once or from then on |
//! | `half:N` | it writes half, then the process kills itself |
//! | `int:N`, `term:N` | the process sends itself that signal before operation N |
//! | `record:FILE` | every operation is appended to FILE, for `read` |
//!
//! The log of an update, which nothing depends on, is no operation here.

#[cfg(not(feature = "testing"))]
mod off {
    use rustix::io::Errno;

    /// Lets the operation happen.
    #[inline(always)]
    #[expect(
        clippy::unnecessary_wraps,
        reason = "the same as the one that can fail"
    )]
    pub(crate) fn step(_: impl FnOnce() -> super::Operation) -> Result<(), Errno> {
        Ok(())
    }

    /// Lets a write happen.
    #[inline(always)]
    #[expect(
        clippy::unnecessary_wraps,
        reason = "the same as the one that can fail"
    )]
    pub(crate) fn write(
        _: usize,
        _: impl FnOnce() -> super::Operation,
    ) -> Result<Option<AfterHalf>, Errno> {
        Ok(None)
    }

    /// Nothing ever comes after half of a write.
    #[derive(Debug)]
    pub(crate) enum AfterHalf {}

    impl AfterHalf {
        pub(crate) fn end(self, _: usize) -> std::io::Result<usize> {
            match self {}
        }
    }

    /// Returns that nobody looks.
    #[inline(always)]
    pub(crate) fn is_active() -> bool {
        false
    }
}

#[cfg(not(feature = "testing"))]
pub(crate) use off::{is_active, step, write};
#[cfg(feature = "testing")]
pub use on::read;
#[cfg(feature = "testing")]
pub(crate) use on::{is_active, step, write};

use serde::{Deserialize, Serialize};

/// A changing operation, with all that is needed to do it again on a copy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(
    not(feature = "testing"),
    expect(unreachable_pub, reason = "tests alone see it")
)]
pub enum Operation {
    /// A file was made or opened for appending; what is written to it names the handle.
    Create {
        /// Number of the handle.
        handle: u64,
        /// Path.
        path: String,
        /// Permission bits.
        mode: u32,
        /// It was there before, and is written behind its end.
        append: bool,
    },
    /// Bytes were written to a file.
    Write(u64, Vec<u8>),
    /// The owner of an open file was set.
    FileOwner(u64, u32, u32),
    /// The mode of an open file was set.
    FileMode(u64, u32),
    /// An extended attribute of an open file was set.
    FileAttribute(u64, String, Vec<u8>),
    /// The times of an open file were set.
    FileTime(u64, u64),
    /// Space was set aside for a file.
    Reserve(u64, u64),
    /// A file was cut to this size.
    Truncate(u64, u64),
    /// The content of a file was flushed.
    SyncFile(u64),
    /// A directory was made.
    CreateDirectory(String, u32),
    /// A link was made: target, path.
    Symlink(String, String),
    /// A second name was made: old, new.
    HardLink(String, String),
    /// A device or FIFO was made.
    Node(String),
    /// A name was removed.
    Remove(String),
    /// A directory was removed.
    RemoveDirectory(String),
    /// A name was changed: old, new.
    Rename(String, String),
    /// The owner of a name was set.
    Owner(String, u32, u32),
    /// The mode of a name was set.
    Mode(String, u32),
    /// The times of a name were set.
    Time(String, u64),
    /// The names of a directory were flushed.
    SyncDirectory(String),
    /// The file system that holds a directory was flushed.
    SyncFileSystem(String),
    /// Another library replaced the content of a file, and flushed it if anything is flushed.
    Written(String, Vec<u8>),
    /// A program was run: its name, its text, its arguments.
    Program(String, Vec<u8>, Vec<String>),
}

#[cfg(feature = "testing")]
mod on {
    use super::Operation;
    use rustix::io::Errno;
    use std::io::Write;
    use std::path::Path;
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::sync::{Mutex, OnceLock};

    enum Fault {
        Count(std::path::PathBuf),
        Stop(u64),
        Signal(rustix::process::Signal, u64),
        Fail(Errno, u64, bool),
        Half(AfterHalf, u64),
        Record(Mutex<std::fs::File>),
    }

    /// What comes after half of a write.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub(crate) enum AfterHalf {
        /// The number of bytes is told.
        Short,
        /// The disk is full; from then on if so.
        Full(bool),
        /// The process is killed.
        Killed,
    }

    impl AfterHalf {
        /// Ends a write of which so many bytes happened.
        pub(crate) fn end(self, count: usize) -> std::io::Result<usize> {
            match self {
                Self::Short => Ok(count),
                Self::Full(_) => Err(Errno::NOSPC.into()),
                Self::Killed => kill(),
            }
        }
    }

    static FAULT: OnceLock<Option<Fault>> = OnceLock::new();
    static NUMBER: AtomicU64 = AtomicU64::new(0);

    fn fault() -> Option<&'static Fault> {
        let fault = FAULT.get_or_init(|| {
            let text = std::env::var_os("IBEX_FAULT")?.into_string().ok()?;
            let (kind, value) = text.split_once(':')?;
            let number = || value.parse().expect("IBEX_FAULT has a number");
            Some(match kind {
                "count" => Fault::Count(value.into()),
                "stop" => Fault::Stop(number()),
                "int" => Fault::Signal(rustix::process::Signal::INT, number()),
                "term" => Fault::Signal(rustix::process::Signal::TERM, number()),
                "erofs+" => Fault::Fail(Errno::ROFS, number(), true),
                "eio" => Fault::Fail(Errno::IO, number(), false),
                "enospc" => Fault::Fail(Errno::NOSPC, number(), false),
                "eio+" => Fault::Fail(Errno::IO, number(), true),
                "enospc+" => Fault::Fail(Errno::NOSPC, number(), true),
                "short" => Fault::Half(AfterHalf::Short, number()),
                "torn" => Fault::Half(AfterHalf::Full(false), number()),
                "torn+" => Fault::Half(AfterHalf::Full(true), number()),
                "half" => Fault::Half(AfterHalf::Killed, number()),
                "record" => {
                    let file = std::fs::File::create(value).expect("IBEX_FAULT names a file");
                    Fault::Record(Mutex::new(file))
                }
                other => panic!("IBEX_FAULT: {other} is unknown"),
            })
        });
        fault.as_ref()
    }

    /// Returns whether operations are looked at; their order must be the same each time then.
    pub(crate) fn is_active() -> bool {
        fault().is_some()
    }

    /// Lets the operation happen, or not.
    pub(crate) fn step(operation: impl FnOnce() -> Operation) -> Result<(), Errno> {
        let Some(fault) = fault() else { return Ok(()) };
        let number = NUMBER.fetch_add(1, Ordering::SeqCst);
        match fault {
            Fault::Count(path) => {
                #[expect(clippy::disallowed_methods, reason = "a note for the test, not a root")]
                std::fs::write(path, (number + 1).to_string()).expect("the count can be written");
            }
            Fault::Stop(at) if *at == number => {
                kill();
            }
            Fault::Half(AfterHalf::Full(true), at) if number > *at => {
                return Err(Errno::NOSPC);
            }
            Fault::Fail(errno, at, all) if number == *at || (*all && number > *at) => {
                return Err(*errno);
            }
            Fault::Signal(signal, at) if *at == number => {
                let _ = rustix::process::kill_process(rustix::process::getpid(), *signal);
            }
            Fault::Stop(_) | Fault::Fail(..) | Fault::Signal(..) | Fault::Half(..) => {}
            Fault::Record(file) => {
                let bytes = postcard::to_stdvec(&operation()).expect("memory takes everything");
                let mut file = file.lock().expect("no thread panics with it");
                let written = file
                    .write_all(&(bytes.len() as u64).to_le_bytes())
                    .and_then(|()| file.write_all(&bytes));
                written.expect("the record can be written");
            }
        }
        Ok(())
    }

    /// Lets a write of so many bytes happen, or not, or only half of it.
    pub(crate) fn write(
        length: usize,
        operation: impl FnOnce() -> Operation,
    ) -> Result<Option<AfterHalf>, Errno> {
        let next = NUMBER.load(Ordering::SeqCst);
        step(operation)?;
        Ok(match fault() {
            Some(Fault::Half(after, at)) if *at == next && length > 1 => Some(*after),
            _ => None,
        })
    }

    /// Ends the process at once.
    fn kill() -> ! {
        let me = rustix::process::getpid();
        let _ = rustix::process::kill_process(me, rustix::process::Signal::KILL);
        // The signal may take a moment; nothing must happen in it.
        loop {
            std::thread::park();
        }
    }

    /// Reads what `record` wrote.
    ///
    /// # Errors
    /// What the system said.
    pub fn read(path: &Path) -> std::io::Result<Vec<Operation>> {
        let bytes = std::fs::read(path)?;
        let mut rest = bytes.as_slice();
        let mut operations = Vec::new();
        while let Some((length, tail)) = rest.split_first_chunk::<8>() {
            let length = u64::from_le_bytes(*length) as usize;
            let operation = postcard::from_bytes(&tail[..length]);
            operations.push(operation.map_err(std::io::Error::other)?);
            rest = &tail[length..];
        }
        Ok(operations)
    }
}
