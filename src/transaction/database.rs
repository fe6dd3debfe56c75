//! The database: arch, world, installed, scripts and triggers, read and written as a set
//! (commit.md, chapter 13).
//!
//! New files wait beside the old ones as `.NAME.new`. They count from the moment at which the
//! journal gets its last name (see [`super::journal`]); a reader that sees that name takes a waiting
//! file before the old one, so that it has one generation whatever moment it comes at.

use super::cut;
use super::journal::{self, DIRECTORY, State};
use super::stage::{PRIVATE, SPARE};
use super::{Options, TransactionError};
use crate::format::{FormatError, Limits, installed, scripts, triggers};
use crate::package::{InstalledDb, InstalledPackage, World};
use crate::root::{Root, RootError, RootLock, Stat, is_missing, split};
use rustix::fs::FileType;
use sha2::{Digest, Sha256};
use std::collections::BTreeSet;
use std::time::Duration;

const WORLD: &str = "etc/apk/world";
const INSTALLED: &str = "lib/apk/db/installed";
const TRIGGERS: &str = "lib/apk/db/triggers";
const SCRIPTS: &str = "lib/apk/db/scripts.tar";
const SCRIPTS_GZ: &str = "lib/apk/db/scripts.tar.gz";

/// Every file that belongs to the set.
pub(super) const FILES: [&str; 6] = [
    "etc/apk/arch",
    WORLD,
    INSTALLED,
    SCRIPTS,
    SCRIPTS_GZ,
    TRIGGERS,
];

/// A file of the database and the SHA-256 of its content; none if it is missing.
pub(super) type FileDigest = (String, Option<[u8; 32]>);

/// Every file of the database, made in memory before the first one is written.
pub(super) struct DatabaseFiles {
    files: Vec<(String, Vec<u8>)>,
    /// How many of them, at the beginning, are not the database's own.
    others: usize,
}

impl DatabaseFiles {
    /// Renders the database.
    pub(super) fn render(
        root: &Root,
        db: &InstalledDb,
        world: &str,
        owed: Option<Vec<u8>>,
        options: &Options,
    ) -> Result<Self, TransactionError> {
        let wrong = |error: FormatError| TransactionError::Database {
            cause: error.to_string(),
        };
        let mut files = options.files.clone();
        let others = files.len();
        if let Some(architectures) = &options.write_arch {
            let text: String = architectures
                .iter()
                .map(|arch| format!("{arch}\n"))
                .collect();
            files.push(("etc/apk/arch".to_owned(), text.into_bytes()));
        }
        files.push((WORLD.to_owned(), world.as_bytes().to_vec()));
        files.push((INSTALLED.to_owned(), installed::write(db).map_err(wrong)?));
        let plain = root.stat(SCRIPTS)?.is_some();
        let name = if plain { SCRIPTS } else { SCRIPTS_GZ };
        files.push((name.to_owned(), scripts::write(db, !plain)));
        files.push((TRIGGERS.to_owned(), triggers::write(db)));
        files.extend(owed.map(|text| (cut::PATH.to_owned(), text)));
        Ok(Self { files, others })
    }

    /// Replaces the files one by one, each as a whole; for a tree that nobody else sees.
    pub(super) fn write(self, root: &Root, sync: bool) -> Result<(), RootError> {
        for (path, content) in self.files {
            root.replace(&path, &content, 0o644, sync)?;
        }
        Ok(())
    }

    /// Writes the files beside those that count; returns them with their digests.
    pub(super) fn write_beside(self, root: &Root) -> Result<Vec<(String, [u8; 32])>, RootError> {
        if let Ok(private) = root.directory(PRIVATE) {
            private.remove_file(SPARE)?;
        }
        let mut written = Vec::new();
        for (position, (path, content)) in self.files.into_iter().enumerate() {
            // What somebody made unreadable to others may hold a password.
            let present = match position < self.others {
                true => root
                    .stat(&path)?
                    .filter(|stat| stat.kind == FileType::RegularFile),
                false => None,
            };
            let once = || -> Result<(), RootError> {
                let (parent, _) = split(&path);
                root.create_directories(parent)?;
                let beside = beside(&path);
                let (directory, name) = root.parent(&beside)?;
                directory.remove_file(name)?;
                let mode = present.as_ref().map_or(0o644, |_| 0o600);
                let mut file = directory.create_file(name, mode)?;
                std::io::Write::write_all(&mut file, &content)
                    .map_err(|error| RootError::new("write", &beside, error))?;
                let Some(stat) = &present else { return Ok(()) };
                // An ordinary user owns what it makes.
                let _ = file.set_owner(stat.uid, stat.gid);
                file.set_mode(stat.mode & 0o7777)
            };
            once().or_else(|_| once())?;
            written.push((path, Sha256::digest(&content).into()));
        }
        Ok(written)
    }
}

/// Returns the text of a world.
///
/// # Errors
/// [`TransactionError::Database`] if it would not be read back as it is: it would ask for something
/// else (commit.md, W2).
pub(super) fn world_text(world: &World) -> Result<String, TransactionError> {
    let text = world.to_text();
    match World::parse(&text).ok() == Some(world.stored()) {
        true => Ok(text),
        false => Err(TransactionError::Database {
            cause: "the world would not be read back as it is".to_owned(),
        }),
    }
}

/// Returns why the database could not hold a package (commit.md, W1 and W3).
pub(super) fn check(package: InstalledPackage) -> Result<(), FormatError> {
    let packages = vec![package];
    installed::write(&InstalledDb { packages }).map(drop)
}

fn beside(path: &str) -> String {
    let (directory, name) = split(path);
    format!("{directory}/.{name}.new")
}

/// Gives waiting files their final names; those that do not wait any more have them.
pub(super) fn rename_all(
    root: &Root,
    files: &[(String, [u8; 32])],
    sync: bool,
) -> Result<(), RootError> {
    for (path, _) in files {
        let waiting = beside(path);
        let (directory, from) = root.parent(&waiting)?;
        let (_, to) = split(path);
        if directory.stat(from)?.is_some() {
            directory
                .rename(from, to)
                .or_else(|_| directory.rename(from, to))?;
        }
    }
    if sync {
        self::sync(root)?;
        let known = folders();
        let others: BTreeSet<&str> = files.iter().map(|(path, _)| split(path).0).collect();
        for directory in others.into_iter().filter(|other| !known.contains(other)) {
            let directory = root.directory(directory)?;
            directory.sync().or_else(|_| directory.sync())?;
        }
    }
    Ok(())
}

/// Removes new files that will not count; for those that are not known by their names.
pub(super) fn remove_waiting(root: &Root, files: &[(String, Vec<u8>)]) -> Result<(), RootError> {
    for (path, _) in files {
        match root.parent(&beside(path)) {
            Ok((directory, name)) => directory.remove_file(name)?,
            Err(error) if is_missing(&error.source) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Flushes the names in the directories of the database.
pub(super) fn sync(root: &Root) -> Result<(), RootError> {
    for directory in folders() {
        let directory = root.directory(directory)?;
        directory.sync().or_else(|_| directory.sync())?;
    }
    Ok(())
}

fn folders() -> BTreeSet<&'static str> {
    FILES.iter().map(|path| split(path).0).collect()
}

/// Removes new files that do not count, and what stopped writers left (commit.md, W34); returns how
/// many.
pub(super) fn remove_leftovers(root: &Root) -> Result<usize, RootError> {
    let mut count = 0;
    for folder in folders() {
        for name in root.list(folder)? {
            let Some(name) = name.to_str() else { continue };
            let leftover = FILES.iter().chain(&[cut::PATH]).any(|path| {
                let (parent, file) = split(path);
                let temporary = |rest: &str| {
                    let number = rest.strip_prefix('.').unwrap_or("0");
                    !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit())
                };
                parent == folder
                    && (name.strip_prefix(file).and_then(|n| n.strip_prefix(".tmp")))
                        .is_some_and(temporary)
                    || beside(path) == format!("{folder}/{name}")
            });
            if leftover {
                root.directory(folder)?.remove_file(name)?;
                count += 1;
            }
        }
    }
    Ok(count)
}

/// Returns the digests of the files as they are, to see later whether somebody else changed them.
pub(super) fn digests(root: &Root) -> Result<Vec<FileDigest>, RootError> {
    let digest = |path: &&str| {
        let text = root.read_regular(path)?;
        let digest = text.map(|text| Sha256::digest(text).into());
        Ok(((*path).to_owned(), digest))
    };
    FILES.iter().map(digest).collect()
}

/// The database as it was on the disk at one moment.
#[derive(Clone, Debug, Default)]
pub struct DatabaseText {
    /// `etc/apk/world`.
    pub world: Option<Vec<u8>>,
    /// `lib/apk/db/installed`.
    pub installed: Option<Vec<u8>>,
    /// `lib/apk/db/triggers`.
    pub triggers: Option<Vec<u8>>,
    /// The scripts archive, and whether it is compressed.
    pub scripts: Option<(Vec<u8>, bool)>,
}

/// A file of the database cannot be understood.
#[derive(Debug)]
pub struct DatabaseError {
    /// Its name below `lib/apk/db`.
    pub name: &'static str,
    /// What is wrong with it.
    pub error: FormatError,
}

impl DatabaseText {
    /// Reads the files so that all are of one generation, whatever is written meanwhile
    /// (commit.md, W35).
    ///
    /// # Errors
    /// [`RootError`].
    pub fn read(root: &Root, with_scripts: bool) -> Result<Self, RootError> {
        // More changes than this in a row mean that the reader is starved, not unlucky.
        const ATTEMPTS: usize = 20;
        // apk renames its files one after another without a sign; when it holds the lock, nothing
        // may change for this long.
        const QUIET: Duration = Duration::from_millis(20);
        let mut attempt = 0;
        loop {
            attempt += 1;
            let before = Stamp::take(root)?;
            let text = Self::read_once(root, before.state == State::Switched, with_scripts)?;
            let ours = before.state != State::None;
            if !ours && RootLock::is_held(root) && attempt < ATTEMPTS {
                std::thread::sleep(QUIET);
            }
            if attempt >= ATTEMPTS || Stamp::take(root)? == before {
                return Ok(text);
            }
        }
    }

    fn read_once(root: &Root, switched: bool, with_scripts: bool) -> Result<Self, RootError> {
        let read = |path: &str| -> Result<Option<Vec<u8>>, RootError> {
            let waiting = match switched {
                true => root.read_regular(&beside(path))?,
                false => None,
            };
            match waiting {
                Some(text) => Ok(Some(text)),
                None => root.read_regular(path),
            }
        };
        let scripts = match with_scripts {
            false => None,
            true => match read(SCRIPTS)? {
                Some(text) => Some((text, false)),
                None => read(SCRIPTS_GZ)?.map(|text| (text, true)),
            },
        };
        Ok(Self {
            world: read(WORLD)?,
            installed: read(INSTALLED)?,
            triggers: read(TRIGGERS)?,
            scripts,
        })
    }

    /// Understands what is installed; a missing file is an empty one.
    ///
    /// # Errors
    /// [`DatabaseError`].
    pub fn installed(&self, allow_unknown: bool) -> Result<InstalledDb, DatabaseError> {
        let bad = |name| move |error| DatabaseError { name, error };
        let text = self.installed.as_deref().unwrap_or_default();
        let mut db = installed::parse(text, allow_unknown).map_err(bad("installed"))?;
        if let Some(text) = &self.triggers {
            triggers::read(&mut db, text);
        }
        if let Some((archive, gzip)) = &self.scripts {
            let name = if *gzip {
                "scripts.tar.gz"
            } else {
                "scripts.tar"
            };
            // What the root holds was accepted once, under whatever limits; scripts may be large.
            let limits = Limits {
                script: u64::MAX,
                entries: u64::MAX,
                ..Limits::default()
            };
            scripts::read(&mut db, archive.as_slice(), *gzip, &limits).map_err(bad(name))?;
        }
        Ok(db)
    }
}

/// What changes whenever a file of the database does.
#[derive(PartialEq, Eq)]
struct Stamp {
    state: State,
    files: Vec<Option<Stat>>,
}

impl Stamp {
    fn take(root: &Root) -> Result<Self, RootError> {
        let paths = FILES
            .iter()
            .flat_map(|path| [(*path).to_owned(), beside(path)]);
        let files = paths
            .map(|path| root.stat(&path))
            .collect::<Result<_, _>>()?;
        Ok(Self {
            state: journal::state(root)?,
            files,
        })
    }
}

/// Returns whether there is a database at all.
pub(super) fn is_present(root: &Root) -> Result<bool, RootError> {
    Ok(root.stat(DIRECTORY)?.is_some())
}
