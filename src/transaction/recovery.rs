//! What an interruption left, and how it is finished or undone.
//!
//! Recovery is the normal code run again: see [`super::journal`] for what each state promises. The
//! caller holds the lock of the root.

use super::accounts::Accounts;
use super::commit::{self, Start};
use super::database::{self, DatabaseText, FileDigest};
use super::journal::{self, Journal, JournalError, Progress, Promise, State};
use super::stage;
use super::{CutScript, Outcome, TransactionError};
use crate::package::InstalledDb;
use crate::plan::files::Ownership;
use crate::progress::Sink;
use crate::root::{Root, RootError};

/// What an interruption left in a root.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pending {
    /// Nothing.
    Nothing,
    /// Files of a transaction that had promised nothing: they can go.
    Leftovers,
    /// A transaction that must be finished.
    Transaction,
}

/// Returns what an interruption left; a look from outside, without the lock.
///
/// # Errors
/// [`RootError`].
pub fn pending(root: &Root) -> Result<Pending, RootError> {
    Ok(match journal::state(root)? {
        State::Promised | State::Switched => Pending::Transaction,
        State::None if stage::has_private(root) => Pending::Leftovers,
        State::None => Pending::Nothing,
    })
}

/// An interrupted transaction as its journal describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interrupted {
    /// Its step lines, as they were shown.
    pub steps: Vec<String>,
    /// How many of the changes were put in place completely.
    pub done: usize,
    /// The database counts already; only the end is missing.
    pub switched: bool,
    /// Scripts of it that were cut off.
    pub cut: Vec<CutScript>,
}

/// Returns what an interrupted transaction was about, without touching it.
///
/// # Errors
/// [`TransactionError::Journal`].
pub fn interrupted(root: &Root) -> Result<Option<Interrupted>, TransactionError> {
    let state = journal::state(root)?;
    if state == State::None {
        return Ok(None);
    }
    let (promise, progress) = journal::read(root)?;
    let done = promise.plan.changes.iter().take(progress.done as usize);
    Ok(Some(Interrupted {
        steps: promise.plan.step_lines(),
        done: done.filter(|change| change.verb().is_some()).count(),
        switched: state == State::Switched,
        cut: commit::cut_scripts(&promise, &progress),
    }))
}

/// What recovery did.
#[derive(Debug)]
pub enum Recovery {
    /// Nothing was left but files that nobody needs; so many were removed.
    Cleaned(usize),
    /// A transaction was finished.
    Finished {
        /// What became of it.
        outcome: Outcome,
        /// What the caller of the transaction wrote down.
        note: Vec<u8>,
    },
    /// Another program changed the database meanwhile, so the rest of the transaction was dropped.
    GivenUp {
        /// Packages that may be incomplete; `fix` makes them whole.
        packages: Vec<String>,
        /// What the caller of the transaction wrote down.
        note: Vec<u8>,
    },
}

/// Finishes or undoes what an interruption left.
///
/// # Errors
/// [`TransactionError`]; recovery can be tried again.
pub fn recover(root: &Root, sink: &mut dyn Sink) -> Result<Recovery, TransactionError> {
    // Modes are those that packages ask for, whatever the caller's mask.
    let mask = rustix::process::umask(rustix::fs::Mode::empty());
    let result = recover_unmasked(root, sink);
    rustix::process::umask(mask);
    result
}

fn recover_unmasked(root: &Root, sink: &mut dyn Sink) -> Result<Recovery, TransactionError> {
    let state = journal::state(root)?;
    if state == State::None {
        return Ok(Recovery::Cleaned(clean(root)?));
    }
    // Whatever keeps it from being finished now, it stays promised.
    finish(root, state, sink).map_err(|error| match error {
        TransactionError::Root(error) => TransactionError::Interrupted {
            cause: error.to_string(),
        },
        other => other,
    })
}

fn finish(root: &Root, state: State, sink: &mut dyn Sink) -> Result<Recovery, TransactionError> {
    let (journal, promise, progress) = Journal::resume(root)?;
    if is_foreign(root, &promise, &progress, state)? {
        return give_up(root, promise);
    }
    let outcome = match state {
        State::Switched => {
            let installed = installed(root)?;
            commit::finish_switched(root, &promise, progress, journal, installed, sink)?
        }
        _ => {
            let installed = installed(root)?;
            let links = promise.links();
            let real = |path: &str| links.get(path).copied().unwrap_or(path).to_owned();
            let mut owners = Ownership::new(&installed, real);
            super::add_overlay(&mut owners, &promise.options);
            let start = Start {
                root,
                owners,
                installed,
                accounts: Accounts::load(root)?,
                progress,
                journal: Some(journal),
                runner: None,
            };
            commit::carry_out(start, &promise, true, sink)?
        }
    };
    let note = promise.note;
    Ok(Recovery::Finished { outcome, note })
}

fn installed(root: &Root) -> Result<InstalledDb, TransactionError> {
    let text = DatabaseText::read(root, true)?;
    text.installed(true)
        .map_err(|bad| TransactionError::Database {
            cause: format!("lib/apk/db/{}: {}", bad.name, bad.error),
        })
}

/// Removes everything that was never promised; returns how many files went.
pub(super) fn clean(root: &Root) -> Result<usize, RootError> {
    if !database::is_present(root)? {
        return Ok(0);
    }
    journal::remove_unfinished(root)?;
    let waiting = stage::waiting(root)?;
    if stage::has_private(root) {
        stage::remove_private(root)?;
    }
    Ok(waiting + database::remove_leftovers(root)?)
}

/// Removes files with apk's temporary names from the directories of all installed packages; returns
/// how many (commit.md, W34).
///
/// # Errors
/// [`RootError`].
pub fn sweep(root: &Root, installed: &InstalledDb) -> Result<usize, RootError> {
    let packages = installed.packages.iter();
    let mut paths: Vec<&str> = packages
        .flat_map(|package| package.directories.iter().map(|d| d.path.as_str()))
        .collect();
    paths.sort_unstable();
    paths.dedup();
    let mut count = 0;
    for path in paths {
        count += stage::remove_temporary(root, path)?;
    }
    Ok(count)
}

/// Returns whether another program wrote the database since the promise: what was decided then is
/// about packages that may not be there any more.
fn is_foreign(
    root: &Root,
    promise: &Promise,
    progress: &Progress,
    state: State,
) -> Result<bool, RootError> {
    let new = match state {
        State::Switched => progress.database.as_deref().unwrap_or_default(),
        _ => &[],
    };
    let now = database::digests(root)?;
    let is_known = |(path, digest): &FileDigest| {
        // The world is one list that people edit; the new one is what was asked for last.
        path.starts_with("etc/")
            || promise.before.contains(&(path.clone(), *digest))
            || digest.is_some_and(|digest| new.contains(&(path.clone(), digest)))
    };
    Ok(!now.iter().all(is_known))
}

fn give_up(root: &Root, promise: Promise) -> Result<Recovery, TransactionError> {
    for waiting in promise.packages.iter().flatten().flat_map(|p| &p.files) {
        if let Some(waiting) = &waiting.staged
            && let Ok((directory, name)) = root.parent(waiting)
        {
            directory.remove_file(name)?;
        }
    }
    let changes = promise.plan.changes.iter();
    let changed = changes.filter(|change| change.verb().is_some());
    let packages = changed
        .filter_map(|change| change.new.as_ref())
        .map(|new| new.package.name.clone());
    let packages = packages.collect();
    database::remove_waiting(root, &promise.options.files)?;
    clean(root)?;
    journal::remove(root)?;
    let note = promise.note;
    Ok(Recovery::GivenUp { packages, note })
}

impl From<JournalError> for TransactionError {
    fn from(error: JournalError) -> Self {
        match error {
            JournalError::Root(error) => Self::Root(error),
            damaged => Self::Journal(damaged),
        }
    }
}
