//! Opening a root: its lock, its world, its installed database (commit.md, chapter 2).

use super::Error;
use crate::format::{FormatError, Limits, installed, scripts, triggers};
use crate::package::{DependencyError, InstalledDb, World};
use crate::progress::{Level, Sink};
use crate::root::{Root, RootError, RootLock, cause};
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
        let lock = match options.write && !created {
            true => Some(take_lock(&root, options.wait, sink)?),
            false => None,
        };
        let (installed, world) = if created {
            (InstalledDb::default(), World::default())
        } else {
            (
                read_installed(&root, options)?,
                read_world(&root, options.create)?,
            )
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

fn open_log(root: &Root) -> Result<File, Error> {
    root.append("var/log/apk.log", 0o644)
        .map_err(|error| Error::Log {
            cause: error.cause(),
        })
}

fn take_lock(root: &Root, wait: Option<Duration>, sink: &mut dyn Sink) -> Result<RootLock, Error> {
    let mut on_wait = || sink.line(Level::Notice, "Waiting for repository lock");
    RootLock::take(root, wait, &mut on_wait).map_err(|error| Error::Lock {
        cause: error.cause(),
    })
}

fn unreadable(error: &RootError) -> Error {
    Error::Database {
        cause: error.cause(),
    }
}

fn read_world(root: &Root, create: bool) -> Result<World, Error> {
    let text = root
        .read("etc/apk/world")
        .map_err(|error| unreadable(&error))?;
    let Some(text) = text else {
        if create {
            return Ok(World::default());
        }
        let missing = std::io::Error::from(rustix::io::Errno::NOENT);
        return Err(Error::Database {
            cause: cause(&missing),
        });
    };
    World::parse(&String::from_utf8_lossy(&text)).map_err(|(word, error)| {
        let text = match error {
            DependencyError::Format => "dependency format is invalid",
            DependencyError::Version => "package version is invalid",
        };
        Error::Database {
            cause: format!("{text}\netc/apk/world: '{word}'"),
        }
    })
}

fn read_installed(root: &Root, options: &OpenOptions) -> Result<InstalledDb, Error> {
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
    let read = |name: &str| {
        root.read(&format!("{DIRECTORY}/{name}"))
            .map_err(|error| unreadable(&error))
    };
    let bad = |name: &'static str| {
        move |error: FormatError| {
            let detail = match &error {
                FormatError::Database { line, text } => {
                    format!("\n{DIRECTORY}/{name}:{line}: '{text}'")
                }
                _ => format!("\n{DIRECTORY}/{name} cannot be read"),
            };
            Error::Database {
                cause: format!("{error}{detail}"),
            }
        }
    };
    let text = read("installed")?.unwrap_or_default();
    let mut db = installed::parse(&text, options.force_old_apk).map_err(bad("installed"))?;
    if let Some(text) = read("triggers")? {
        triggers::read(&mut db, &text);
    }
    if options.scripts {
        // What the root holds was accepted once, under whatever limits; scripts may be large.
        let limits = Limits {
            script: u64::MAX,
            entries: u64::MAX,
            ..Limits::default()
        };
        if let Some(archive) = read("scripts.tar")? {
            scripts::read(&mut db, archive.as_slice(), false, &limits)
                .map_err(bad("scripts.tar"))?;
        } else if let Some(archive) = read("scripts.tar.gz")? {
            scripts::read(&mut db, archive.as_slice(), true, &limits)
                .map_err(bad("scripts.tar.gz"))?;
        }
    }
    Ok(db)
}
