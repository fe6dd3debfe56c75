//! The promise on disk: what a transaction has decided, and how far it has come.
//!
//! # On disk
//!
//! ```text
//! lib/apk/db/.journal.tmp    a promise being written; means nothing
//! lib/apk/db/.journal        the promise: what is in it will be done
//! lib/apk/db/.switch         the same file, renamed: the new database counts from here on
//! lib/apk/db/.staged/N/      files that wait, under apk's temporary names
//! lib/apk/db/.staged/N/M/    all files of a directory that is not there, under their own names
//! lib/apk/db/.staged/rooms   other directories in which files wait, a line each
//! lib/apk/db/.staged/spare   space kept for the database
//! DIRECTORY/.NAME.new        a new file of the database, for DIRECTORY/NAME
//! ```
//!
//! A journal is a line that names its version, and records: length (4 bytes), the first 8 bytes of
//! the SHA-256 of the payload, payload. The first record is the [`Promise`]; it is complete before
//! the file gets its name. Records behind it are appended; a torn one at the end never happened.
//!
//! # What each step promises
//!
//! 1. *Staged.* Everything new waits, verified. A stop here is undone: whatever waits is removed.
//! 2. *Promised* (`.journal` has its name). From now on the transaction is finished, by this process
//!    or by the next one that writes. The promise holds the plan, the world, what was staged and the
//!    options, so that the package files are not needed any more.
//! 3. *Decided* ([`Record::Decided`]). What happens to the files of one package depends on what is on
//!    the disk, so it is decided once, with nothing of it done, and written down as [`Act`]s. Each act
//!    can be repeated: a file that does not wait any more is in place, and a name is removed only
//!    while it still is what was seen.
//! 4. *Done* ([`Record::Done`]). All acts up to this package have happened and need no repetition.
//! 5. *Scripts* ([`Record::Started`], [`Record::Ended`]). Its own process writes the start, as the last
//!    thing before it becomes the script: one without start had no effect and is run. One with an end
//!    is not run again. One in between was cut off: it is not run again either, but reported, and its
//!    package is marked and remembered (see [`super::cut`]) so that `fix` runs it.
//! 6. *Switched* (`.switch`). Every new file of the database is complete beside its final name; the
//!    rename of the journal makes all of them count at once, and renaming them can be repeated.
//! 7. The journal is removed. The transaction never stopped anywhere.
//!
//! With `sync` each promise is on the disk before anything that relies on it: the file systems before
//! the promise, before a script and before the switch, the journal after each record that later work
//! relies on. `Done` is then written only after a flush of the file systems; repeating the acts of
//! several packages in order is harmless, because a path that one act removed is not filled by
//! another before such a flush.
//!
//! This must never decide anything, and never be read by a program that does not hold the lock.

use super::acts::Act;
use super::database::FileDigest;
use super::interrupt::Held;
use super::stage::StagedPackage;
use super::{Decision, Options, ProtectedPaths, TransactionError};
use crate::package::{InstalledDirectory, ScriptKind};
use crate::plan::Plan;
use crate::root::{Directory, NewFile, Root, RootError, is_missing};
use foldhash::{HashMap, HashSet};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::io::Write;
use std::os::fd::OwnedFd;
use std::sync::Arc;

/// The directory of the database.
pub(super) const DIRECTORY: &str = "lib/apk/db";
const UNFINISHED: &str = ".journal.tmp";
const PROMISED: &str = ".journal";
const SWITCHED: &str = ".switch";

const HEADER: &[u8] = b"ibex journal 3\n";
/// No record is as long as this; a length beyond it is damage.
const LONGEST_RECORD: usize = 1 << 30;

/// What is promised.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Promise {
    pub(super) plan: Plan,
    /// The text of the world to store.
    pub(super) world: String,
    /// What was staged for each change.
    pub(super) packages: Vec<Option<StagedPackage>>,
    /// What becomes of each staged file.
    pub(super) decisions: Vec<Vec<Decision>>,
    pub(super) options: Options,
    pub(super) protected: ProtectedPaths,
    /// Directories that were links when the transaction began, and what they meant.
    pub(super) links: Vec<(String, String)>,
    /// A directory on each other file system in which files wait.
    pub(super) rooms: Vec<String>,
    /// Digests of the database's files when the transaction began; none for a missing one.
    pub(super) before: Vec<FileDigest>,
    /// The caller's own words.
    pub(super) note: Vec<u8>,
}

impl Promise {
    /// Returns about how many bytes it takes in the journal.
    fn bytes_about(&self) -> usize {
        const FILE: usize = 192;
        const REST: usize = 64 << 10;
        let packages = self.packages.iter().flatten();
        REST + FILE * packages.map(|package| package.files.len()).sum::<usize>()
    }

    /// Returns the directories that were links, and what they meant.
    pub(super) fn links(&self) -> HashMap<&str, &str> {
        let links = self.links.iter();
        links
            .map(|(path, real)| (path.as_str(), real.as_str()))
            .collect()
    }
}

/// What was decided for the files of one change, before any of it was done.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Decided {
    /// What the database will record.
    pub(super) directories: Vec<InstalledDirectory>,
    /// What is done, in order.
    pub(super) acts: Vec<Act>,
    /// Directories that get another owner or mode.
    pub(super) modified: Vec<String>,
    /// Directories that were looked up, and what they are if they are links.
    pub(super) learned: Vec<(String, Option<String>)>,
    /// Some file cannot be put in place.
    pub(super) broken: bool,
    /// Names change their kind, so this must not mix with what came before.
    pub(super) reshapes: bool,
}

/// A program that runs in the root.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(super) enum Program {
    /// A script of the package of a change.
    Script(u32, ScriptKind),
    /// A hook after the commit, by path.
    Hook(String),
}

/// What is appended to a promise.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) enum Record {
    /// The files of a change.
    Decided(u32, Decided),
    /// The directories that were to get their modes back have them.
    Fixed,
    /// An act of a change that cannot be done: change, position.
    Failed(u32, u32),
    /// The acts of all changes before this number were done.
    Done(u32),
    /// A program runs.
    Started(Program),
    /// It ended, well or not.
    Ended(Program, bool),
    /// The new files of the database, with their digests.
    Database(Vec<(String, [u8; 32])>),
    /// The number of failed steps, for whoever finishes.
    Errors(u32),
}

/// How far a promise was kept.
#[derive(Debug, Default)]
pub(super) struct Progress {
    pub(super) decided: HashMap<u32, Decided>,
    pub(super) failed: HashSet<(u32, u32)>,
    pub(super) done: u32,
    /// Directories have their modes back.
    pub(super) fixed: bool,
    /// Whether a program ended well; `None` if it was cut off.
    pub(super) programs: HashMap<Program, Option<bool>>,
    pub(super) database: Option<Vec<(String, [u8; 32])>>,
    pub(super) errors: u32,
}

impl Progress {
    fn add(&mut self, record: Record) {
        match record {
            Record::Decided(change, decided) => drop(self.decided.insert(change, decided)),
            Record::Failed(change, act) => drop(self.failed.insert((change, act))),
            Record::Fixed => self.fixed = true,
            Record::Done(count) => self.done = self.done.max(count),
            Record::Started(program) => drop(self.programs.insert(program, None)),
            Record::Ended(program, well) => drop(self.programs.insert(program, Some(well))),
            Record::Database(files) => self.database = Some(files),
            Record::Errors(errors) => self.errors = errors,
        }
    }
}

/// What a journal says of a root.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// There is none.
    None,
    /// A transaction must be finished.
    Promised,
    /// Its database counts already.
    Switched,
}

/// Returns what the journal's name says.
pub(super) fn state(root: &Root) -> Result<State, RootError> {
    let directory = match root.directory(DIRECTORY) {
        Ok(directory) => directory,
        Err(error) if is_missing(&error.source) => return Ok(State::None),
        Err(error) => return Err(error),
    };
    Ok(if directory.stat(SWITCHED)?.is_some() {
        State::Switched
    } else if directory.stat(PROMISED)?.is_some() {
        State::Promised
    } else {
        State::None
    })
}

/// Removes a promise that was never made.
pub(super) fn remove_unfinished(root: &Root) -> Result<(), RootError> {
    root.directory(DIRECTORY)?.remove_file(UNFINISHED)
}

/// Why a journal cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// It cannot be read.
    #[error(transparent)]
    Root(#[from] RootError),
    /// It is not what was written.
    #[error("{path} is damaged: {reason}")]
    Damaged {
        /// Its path.
        path: String,
        /// What is wrong.
        reason: &'static str,
    },
}

/// An open journal.
#[derive(Debug)]
pub(super) struct Journal {
    file: NewFile,
    /// Bytes that hold complete records.
    length: u64,
    sync: bool,
}

impl Journal {
    /// Makes a promise. When this returns, the transaction will be finished.
    ///
    /// `room` is by how many bytes it will grow, if that is known.
    pub(super) fn promise(
        root: &Root,
        promise: &Promise,
        room: Option<u64>,
    ) -> Result<Self, RootError> {
        let directory = root.directory(DIRECTORY)?;
        directory.remove_file(UNFINISHED)?;
        let mut text = Vec::with_capacity(promise.bytes_about());
        text.extend_from_slice(HEADER);
        append(&mut text, promise);
        let sync = promise.options.sync;
        let write = || -> Result<Self, RootError> {
            let mut file = directory.create_file(UNFINISHED, 0o600)?;
            // What is appended is about as long as what is promised; a full disk must not stop us.
            let length = text.len() as u64;
            let wanted = room.map_or(length * 2 + (64 << 10), |room| length + room);
            file.reserve(wanted).map_err(|error| {
                let cause = error.cause();
                let kib = wanted.div_ceil(1 << 10);
                let cause = format!("{cause}, and the journal takes {kib} KiB");
                let kind = error.source.kind();
                RootError::new(
                    "set space aside in",
                    &error.path,
                    std::io::Error::new(kind, cause),
                )
            })?;
            file.write_all(&text)
                .map_err(|error| RootError::new("write", &directory.join(UNFINISHED), error))?;
            if sync {
                file.sync()?;
            }
            directory.rename(UNFINISHED, PROMISED)?;
            let length = text.len() as u64;
            Ok(Self { file, length, sync })
        };
        let journal = write().inspect_err(|_| {
            // The first error is the one to tell; the next transaction removes the rest.
            let _ = directory.remove_file(UNFINISHED);
        })?;
        if sync {
            // The name is there, and a stop would find it: an error now must not undo anything.
            directory.sync().or_else(|_| directory.sync())?;
        }
        Ok(journal)
    }

    /// Opens the journal of an interrupted transaction, to go on with it.
    pub(super) fn resume(root: &Root) -> Result<(Self, Promise, Progress), JournalError> {
        let (name, promise, progress, length) = read_all(root)?;
        let file = root.directory(DIRECTORY)?.continue_file(name)?;
        file.truncate(length)?;
        let sync = promise.options.sync;
        Ok((Self { file, length, sync }, promise, progress))
    }

    /// Appends a record.
    pub(super) fn append(&mut self, record: &Record) -> Result<(), RootError> {
        let mut text = Vec::new();
        append(&mut text, record);
        let mut written = self.file.write_all(&text);
        if written.is_err() {
            // Half a record would hide all that follow.
            self.file.truncate(self.length)?;
            written = self.file.write_all(&text);
        }
        written.map_err(|error| RootError::new("write", "lib/apk/db/.journal", error))?;
        self.length += text.len() as u64;
        Ok(())
    }

    /// Appends a record that later work relies on.
    pub(super) fn append_firmly(&mut self, record: &Record) -> Result<(), RootError> {
        self.append(record)?;
        if self.sync {
            self.file.sync().or_else(|_| self.file.sync())?;
        }
        Ok(())
    }

    /// Hands the start of a program to the process that will be it.
    pub(super) fn lend(&self, program: &Program) -> Result<Lent, RootError> {
        let mut text = Vec::new();
        append(&mut text, &Record::Started(program.clone()));
        let lent = self.file.lend(&text, self.sync);
        let file = lent.or_else(|_| self.file.lend(&text, self.sync))?;
        let sync = self.sync;
        Ok(Lent { file, text, sync })
    }

    /// Takes it back: the program has started, or nothing of it happened.
    pub(super) fn take_back(&mut self, lent: &Lent, started: bool) -> Result<(), RootError> {
        match started {
            true => self.length += lent.text.len() as u64,
            false => self
                .file
                .truncate(self.length)
                .or_else(|_| self.file.truncate(self.length))?,
        }
        Ok(())
    }

    /// Makes the new database count.
    pub(super) fn switch(&self, root: &Root) -> Result<(), RootError> {
        let directory = root.directory(DIRECTORY)?;
        directory
            .rename(PROMISED, SWITCHED)
            .or_else(|_| directory.rename(PROMISED, SWITCHED))?;
        if self.sync {
            directory.sync().or_else(|_| directory.sync())?;
        }
        Ok(())
    }
}

/// What a new process writes before it becomes a program.
#[derive(Debug)]
pub(super) struct Lent {
    /// The journal; both processes share the place at which is written.
    pub(super) file: OwnedFd,
    /// The record.
    pub(super) text: Vec<u8>,
    /// It must be on the disk, too.
    pub(super) sync: bool,
}

/// Reads the journal of an interrupted transaction.
pub(super) fn read(root: &Root) -> Result<(Promise, Progress), JournalError> {
    let (_, promise, progress, _) = read_all(root)?;
    Ok((promise, progress))
}

/// Returns the journal's name, what it says, and how many bytes of it count.
fn read_all(root: &Root) -> Result<(&'static str, Promise, Progress, u64), JournalError> {
    let name = match state(root)? {
        State::Switched => SWITCHED,
        _ => PROMISED,
    };
    let path = format!("{DIRECTORY}/{name}");
    let damaged = |reason| JournalError::Damaged {
        path: path.clone(),
        reason,
    };
    let text = root.read(&path)?.ok_or_else(|| damaged("it disappeared"))?;
    let mut rest = text
        .strip_prefix(HEADER)
        .ok_or_else(|| damaged("another version of the program wrote it"))?;
    let promise = next(&mut rest).ok_or_else(|| damaged("the promise is incomplete"))?;
    let promise: Promise =
        postcard::from_bytes(promise).map_err(|_| damaged("the promise cannot be read"))?;
    let mut progress = Progress::default();
    loop {
        let before = rest;
        let Some(record) = next(&mut rest).and_then(|record| postcard::from_bytes(record).ok())
        else {
            rest = before;
            break;
        };
        progress.add(record);
    }
    let length = (text.len() - rest.len()) as u64;
    Ok((name, promise, progress, length))
}

/// Removes the journal: nothing is promised any more.
pub(super) fn remove(root: &Root) -> Result<(), RootError> {
    Ending::new(root)?.remove()
}

/// The last moment of a transaction: its journal is there until this is closed or dropped, so that
/// what belongs to it can be written down, and is done by recovery otherwise.
#[derive(Debug)]
pub struct Ending {
    directory: Option<Arc<Directory>>,
    held: Option<Held>,
}

impl Ending {
    pub(super) fn new(root: &Root) -> Result<Self, RootError> {
        let directory = Some(root.directory(DIRECTORY)?);
        let held = None;
        Ok(Self { directory, held })
    }

    /// Makes signals wait until this is over.
    pub(super) fn hold(&mut self, held: Option<Held>) {
        self.held = held;
    }

    /// Removes the journal.
    ///
    /// # Errors
    /// [`TransactionError::Interrupted`]; the next command that writes removes it.
    pub fn close(mut self) -> Result<(), TransactionError> {
        self.remove()
            .map_err(|error| TransactionError::Interrupted {
                cause: error.to_string(),
            })
    }

    fn remove(&mut self) -> Result<(), RootError> {
        let Some(directory) = self.directory.take() else {
            return Ok(());
        };
        for name in [SWITCHED, PROMISED] {
            if directory.stat(name)?.is_some() {
                directory
                    .remove_file(name)
                    .or_else(|_| directory.remove_file(name))?;
            }
        }
        Ok(())
    }
}

impl Drop for Ending {
    fn drop(&mut self) {
        // What stays is found by the next command that writes, and costs nothing but its time.
        let _ = self.remove();
    }
}

fn append(text: &mut Vec<u8>, record: &impl Serialize) {
    let head = text.len();
    // Length and checksum, once they are known.
    text.extend_from_slice(&[0; 12]);
    let payload = text.len();
    *text = postcard::to_extend(record, std::mem::take(text)).expect("memory takes everything");
    let length = (text.len() - payload) as u32;
    let sum = Sha256::digest(&text[payload..]);
    text[head..head + 4].copy_from_slice(&length.to_le_bytes());
    text[head + 4..payload].copy_from_slice(&sum[..8]);
}

/// Takes the next complete record.
fn next<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let (length, tail) = rest.split_first_chunk::<4>()?;
    let (sum, tail) = tail.split_first_chunk::<8>()?;
    let length = u32::from_le_bytes(*length) as usize;
    if length > LONGEST_RECORD {
        return None;
    }
    let (payload, tail) = tail.split_at_checked(length)?;
    if Sha256::digest(payload)[..8] != *sum {
        return None;
    }
    *rest = tail;
    Some(payload)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_torn_record_never_happened() {
        let mut text = Vec::new();
        append(&mut text, &Record::Done(1));
        let first = text.len();
        append(&mut text, &Record::Done(2));
        for end in 0..=text.len() {
            let mut rest = &text[..end];
            let complete = std::iter::from_fn(|| next(&mut rest)).count();
            let wanted = usize::from(end >= first) + usize::from(end == text.len());
            assert_eq!(complete, wanted, "{end} bytes");
        }
        for at in 0..text.len() {
            let mut damaged = text.clone();
            damaged[at] ^= 0x40;
            let mut rest = damaged.as_slice();
            let complete = std::iter::from_fn(|| next(&mut rest)).count();
            assert!(complete < 2, "byte {at} is not covered");
        }
    }
}
