//! Opening a root: its lock, its world, its installed database (commit.md, chapter 2).

use super::Error;
use crate::format::FormatError;
use crate::package::{DependencyError, InstalledDb, World};
use crate::progress::{Level, Sink};
use crate::root::{Root, RootError, RootLock, cause};
use crate::transaction::{self, DatabaseText, Pending, Recovery};
use std::fs::File;
use std::path::Path;
use std::time::Duration;

const DIRECTORY: &str = "lib/apk/db";

/// How a root is opened.
#[derive(Clone, Debug, Default)]
pub struct OpenOptions {
    /// `--initdb`: make what is missing.
    pub create: bool,
    /// `--usermode`.
    pub usermode: bool,
    /// The root will be changed: take the lock, open the log.
    pub write: bool,
    /// `--wait`.
    pub wait: Option<Duration>,
    /// Write the log.
    pub log: bool,
    /// Letters of newer programs are no reason to stop (`--force-old-apk`).
    pub force_old_apk: bool,
    /// Read the scripts archive, too.
    pub scripts: bool,
}

/// An open root with what is installed in it.
#[derive(Debug)]
pub struct Database {
    /// The tree.
    pub root: Root,
    /// What is installed.
    pub installed: InstalledDb,
    /// What the user asked for.
    pub world: World,
    /// The root belongs to an ordinary user.
    pub usermode: bool,
    /// The database did not exist before.
    pub created: bool,
    /// The open log.
    pub log: Option<File>,
    _lock: Option<RootLock>,
}

/// Opens a root without its database.
///
/// # Errors
/// [`Error::Root`].
pub fn open_root(path: &Path, create: bool) -> Result<Root, Error> {
    let opened = if create {
        Root::create(path)
    } else {
        Root::open(path)
    };
    opened.map_err(|error| Error::Root {
        cause: error.cause(),
    })
}

impl Database {
    /// Opens a root and reads its database.
    ///
    /// # Errors
    /// [`enum@Error`].
    pub fn open(path: &Path, options: &OpenOptions, sink: &mut dyn Sink) -> Result<Self, Error> {
        let is_root = rustix::process::geteuid().is_root();
        if options.create {
            if options.usermode && is_root {
                return Err(Error::UsermodeAsRoot);
            }
            if !options.usermode && !is_root {
                return Err(Error::UsermodeNeeded);
            }
        }
        let root = open_root(path, options.create)?;
        let log = if options.write && options.log {
            Some(open_log(&root)?)
        } else {
            None
        };
        let present = root.stat(DIRECTORY).ok().flatten();
        let created = options.create && present.is_none();
        if created && options.write {
            let made = root
                .create_directories(DIRECTORY)
                .and_then(|()| root.create_directories("etc/apk"));
            made.map_err(|error| Error::Database {
                cause: error.cause(),
            })?;
        }
        let lock = match options.write {
            true => Some(take_lock(&root, options.wait, sink)?),
            false => None,
        };
        match options.write {
            true => recover_first(&root, sink)?,
            false => tell_of_interruption(&root, sink),
        }
        let (installed, world) = if created {
            (InstalledDb::default(), World::default())
        } else {
            read(&root, options)?
        };
        let owner = present.map_or(0, |stat| stat.uid);
        let usermode = (options.create && options.usermode) || owner != 0 && !is_root;
        Ok(Self {
            root,
            installed,
            world,
            usermode,
            created,
            log,
            _lock: lock,
        })
    }
}

/// Finishes what an interrupted transaction left, before anything else changes the root.
fn recover_first(root: &Root, sink: &mut dyn Sink) -> Result<(), Error> {
    let pending = transaction::pending(root).map_err(|error| unreadable(&error))?;
    if pending == Pending::Transaction {
        let text = "A transaction was interrupted; it is finished first:";
        sink.line(Level::Notice, text);
    }
    let recovery = transaction::recover(root, sink)?;
    match &recovery {
        Recovery::Cleaned(0) => return Ok(()),
        Recovery::Cleaned(_) => {
            let text = "Removed what an interrupted transaction left";
            sink.line(Level::Detail, text);
        }
        Recovery::Finished { .. } => {
            sink.line(Level::Notice, "The interrupted transaction is finished.");
        }
        Recovery::GivenUp { packages, .. } => sink.warning(&given_up(packages)),
    }
    super::history::settle(root, &recovery, sink);
    // Its journal goes now: the transaction that follows has one of its own.
    if let Recovery::Finished { outcome, .. } = recovery {
        outcome.ending.close()?;
    }
    Ok(())
}

/// Says that the rest of an interrupted transaction was dropped.
pub(super) fn given_up(packages: &[String]) -> String {
    let mut text = "another program changed the database after a transaction was interrupted; the \
                    rest of the transaction was dropped"
        .to_owned();
    if !packages.is_empty() {
        let names = packages.join(" ");
        text.push_str(&format!("; `ibex fix {names}` makes its packages whole"));
    }
    text
}

fn tell_of_interruption(root: &Root, sink: &mut dyn Sink) {
    // A root that cannot be looked at is told of when its database is read.
    let due = transaction::pending(root).is_ok_and(|pending| pending == Pending::Transaction);
    if due && !RootLock::is_held(root) {
        sink.warning(
            "a transaction was interrupted and is not finished: `ibex recover` finishes it",
        );
    }
}

fn open_log(root: &Root) -> Result<File, Error> {
    root.append("var/log/apk.log", 0o644)
        .map_err(|error| Error::Log {
            cause: error.cause(),
        })
}

/// Takes the lock; a failure says who has it.
pub(super) fn take_lock(
    root: &Root,
    wait: Option<Duration>,
    sink: &mut dyn Sink,
) -> Result<RootLock, Error> {
    let mut on_wait = || sink.line(Level::Notice, "Waiting for repository lock");
    RootLock::take(root, wait, &mut on_wait).map_err(|error| {
        let mut cause = error.cause();
        let busy = error.source.kind() == std::io::ErrorKind::WouldBlock;
        if let Some(holder) = RootLock::holder(root).filter(|_| busy) {
            let process = holder.process;
            cause.push_str(&match holder.command {
                Some(command) => format!("\nprocess {process} holds the lock: {command}"),
                None => format!("\nprocess {process} holds the lock"),
            });
        }
        Error::Lock { cause }
    })
}

fn unreadable(error: &RootError) -> Error {
    let cause = match error.source.kind() {
        // The system's words would not say which file is meant.
        std::io::ErrorKind::InvalidInput => error.to_string(),
        _ => error.cause(),
    };
    Error::Database { cause }
}

/// Reads installed database and world, both of one generation.
fn read(root: &Root, options: &OpenOptions) -> Result<(InstalledDb, World), Error> {
    if root
        .stat(DIRECTORY)
        .map_err(|error| unreadable(&error))?
        .is_none()
    {
        let missing = std::io::Error::from(rustix::io::Errno::NOENT);
        return Err(Error::Database {
            cause: cause(&missing),
        });
    }
    let text = DatabaseText::read(root, options.scripts).map_err(|error| unreadable(&error))?;
    let installed = text.installed(options.force_old_apk).map_err(|bad| {
        let (name, error) = (bad.name, bad.error);
        let detail = match &error {
            FormatError::Database { line, text } => {
                format!("\n{DIRECTORY}/{name}:{line}: '{text}'")
            }
            _ => format!("\n{DIRECTORY}/{name} cannot be read"),
        };
        Error::Database {
            cause: format!("{error}{detail}"),
        }
    })?;
    Ok((installed, world(text.world.as_deref(), options.create)?))
}

fn world(text: Option<&[u8]>, create: bool) -> Result<World, Error> {
    let Some(text) = text else {
        if create {
            return Ok(World::default());
        }
        let missing = std::io::Error::from(rustix::io::Errno::NOENT);
        return Err(Error::Database {
            cause: cause(&missing),
        });
    };
    let text = std::str::from_utf8(text).map_err(|error| {
        let word = text[error.valid_up_to()..].split(u8::is_ascii_whitespace);
        let word = word.into_iter().next().unwrap_or_default().escape_ascii();
        Error::Database {
            cause: format!("names that are not UTF-8 are not supported\netc/apk/world: '{word}'"),
        }
    })?;
    World::parse(text).map_err(|(word, error)| {
        let text = match error {
            DependencyError::Format => "dependency format is invalid",
            DependencyError::Version => "package version is invalid",
        };
        Error::Database {
            cause: format!("{text}\netc/apk/world: '{word}'"),
        }
    })
}
