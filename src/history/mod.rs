//! What was done to a root: each transaction with its time, its command, the world before and
//! after, its changes and its outcome, in an SQLite database below the root.
//!
//! ```text
//! var/lib/ibex/history.sqlite
//! ```
//!
//! It is a record, not a part of the package database: a root without it, or with a damaged one,
//! works as before. It never decides anything, and it never holds the root back: a history that
//! cannot be written is a warning, not a failure.
//!
//! A transaction is entered before its first change ([`History::begin`]) and completed after its
//! last ([`History::finish`]), while its journal is still there. One that was interrupted stays open:
//! if it had promised something, its journal names it and recovery completes it; if not, it is
//! deleted by the next command that changes the root ([`History::settle`]).

mod watch;

pub use watch::{ChangedFile, FileChange, Watch};

use crate::package::{Identity, InstalledDb, Package, World};
use crate::root::{Root, RootError};
use rusqlite::{Connection, OpenFlags, OptionalExtension, Row, params};
use serde::Serialize;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Where the history is, below the root.
pub const PATH: &str = "var/lib/ibex/history.sqlite";
const DIRECTORY: &str = "var/lib/ibex";
const FILE: &str = "history.sqlite";

/// Raised whenever the tables change; [`migrate`] knows the way from each older one.
const VERSION: i64 = 2;

/// What version 2 has and version 1 has not.
const WRITTEN_FILES: &str = "
    CREATE TABLE written_file (
        entry_id INTEGER NOT NULL REFERENCES entry (id) ON DELETE CASCADE,
        path TEXT NOT NULL,
        before BLOB,
        after BLOB NOT NULL,
        PRIMARY KEY (entry_id, path)
    ) WITHOUT ROWID;
";

const SCHEMA: &str = "
    CREATE TABLE entry (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        time INTEGER NOT NULL,
        command TEXT NOT NULL,
        world_before TEXT NOT NULL,
        world_after TEXT NOT NULL,
        outcome TEXT NOT NULL,
        errors INTEGER NOT NULL DEFAULT 0
    );
    CREATE TABLE package (
        id INTEGER PRIMARY KEY,
        identity BLOB NOT NULL,
        name TEXT NOT NULL,
        version TEXT NOT NULL,
        UNIQUE (identity, name, version)
    );
    CREATE TABLE change (
        entry_id INTEGER NOT NULL REFERENCES entry (id) ON DELETE CASCADE,
        position INTEGER NOT NULL,
        verb TEXT NOT NULL,
        old_package INTEGER REFERENCES package (id),
        old_tag TEXT,
        new_package INTEGER REFERENCES package (id),
        new_tag TEXT,
        PRIMARY KEY (entry_id, position)
    ) WITHOUT ROWID;
    CREATE TABLE member (
        entry_id INTEGER NOT NULL REFERENCES entry (id) ON DELETE CASCADE,
        package_id INTEGER NOT NULL REFERENCES package (id),
        tag TEXT,
        PRIMARY KEY (entry_id, package_id)
    ) WITHOUT ROWID;
    CREATE TABLE changed_file (
        entry_id INTEGER NOT NULL REFERENCES entry (id) ON DELETE CASCADE,
        path TEXT NOT NULL,
        change TEXT NOT NULL,
        PRIMARY KEY (entry_id, path)
    ) WITHOUT ROWID;
";

/// Why the history cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum HistoryError {
    /// The directory cannot be used.
    #[error(transparent)]
    Root(#[from] RootError),
    /// The database cannot be used.
    #[error("cannot use {PATH}: {0}")]
    Database(#[from] rusqlite::Error),
    /// It was written by a newer version.
    #[error("{PATH} was written by a newer version of this program")]
    TooNew,
}

/// How a transaction ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// It began, and its end is not known yet.
    Started,
    /// Everything was done.
    Done,
    /// It was done, but steps of it failed.
    Errors,
    /// It was interrupted, and finished afterwards.
    Recovered,
    /// It was interrupted, and what is installed is neither what was before nor what was wanted.
    Interrupted,
}

impl Outcome {
    /// Returns the word for people and for the database.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Started => "started",
            Self::Done => "done",
            Self::Errors => "errors",
            Self::Recovered => "recovered",
            Self::Interrupted => "interrupted",
        }
    }

    fn from_text(text: &str) -> Self {
        let all = [Self::Done, Self::Errors, Self::Recovered, Self::Interrupted];
        all.into_iter()
            .find(|outcome| outcome.as_str() == text)
            .unwrap_or(Self::Started)
    }
}

/// One package of a state of the root.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Member {
    /// Which build.
    #[serde(serialize_with = "as_q1")]
    pub identity: Identity,
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// The repository tag recorded for it.
    pub tag: Option<String>,
}

fn as_q1<S: serde::Serializer>(identity: &Identity, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&identity.to_q1())
}

impl Member {
    /// Returns `NAME-VERSION`.
    pub fn full_name(&self) -> String {
        format!("{}-{}", self.name, self.version)
    }
}

/// One package before and after.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Changed {
    /// What happened to it, in lower case.
    pub verb: String,
    /// What was there.
    pub old: Option<Member>,
    /// What is there now.
    pub new: Option<Member>,
}

/// A file that is no package's and that a transaction wrote itself: a repository file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct WrittenFile {
    /// Its path below the root.
    pub path: String,
    /// What it held; `None` if it was not there.
    #[serde(skip)]
    pub before: Option<Vec<u8>>,
    /// What it was given.
    #[serde(skip)]
    pub after: Vec<u8>,
}

/// One transaction.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Entry {
    /// Its number.
    pub id: i64,
    /// When it began, in seconds since 1970.
    pub time: i64,
    /// The command line, passwords masked.
    pub command: String,
    /// How it ended.
    pub outcome: Outcome,
    /// Steps that failed.
    pub errors: u32,
    /// The entries of the world before.
    pub world_before: Vec<String>,
    /// The entries of the world after.
    pub world_after: Vec<String>,
    /// The packages that changed, in the order of the change.
    pub changes: Vec<Changed>,
    /// Files that were changed, made or deleted by scripts, not by packages.
    pub changed_files: Vec<ChangedFile>,
    /// Files that the transaction wrote itself, such as those that name repositories.
    pub written_files: Vec<WrittenFile>,
}

/// What is known of a transaction when it begins.
#[derive(Clone, Debug)]
pub struct NewEntry<'a> {
    /// The command line, passwords masked.
    pub command: String,
    /// The world before.
    pub world_before: &'a World,
    /// The world that is wanted.
    pub world_after: &'a World,
    /// The packages that change.
    pub changes: Vec<Changed>,
    /// When it begins, in seconds since 1970.
    pub time: i64,
    /// Files that it will write itself.
    pub written_files: &'a [WrittenFile],
}

/// The open history of a root.
#[derive(Debug)]
pub struct History {
    connection: Connection,
    /// Directories that were made for it, the deepest first.
    made: Vec<String>,
    /// Where the copy is that is read in its stead.
    _copy: Option<tempfile::TempDir>,
}

/// A root as it is, to see what became of transactions whose end nobody wrote down.
#[derive(Clone, Copy, Debug)]
pub struct Now<'a> {
    /// What is installed.
    pub installed: &'a InstalledDb,
    /// What is asked for.
    pub world: &'a World,
    /// What recovery made of the transaction that had promised something, and its failed steps. All
    /// others promised nothing, unless their end could not be written.
    pub finished: Option<(i64, Outcome, u32)>,
}

impl Now<'_> {
    /// Returns what became of a transaction, by what is there; `None` if it did not happen.
    fn judge(&self, entry: &Entry) -> Option<Outcome> {
        let has = |member: &Member| self.installed.by_identity(member.identity).is_some();
        let stays = |change: &Changed| {
            change.old.as_ref().map(|m| m.identity) == change.new.as_ref().map(|m| m.identity)
        };
        let is_new = |change: &Changed| {
            let gone = change.old.as_ref().is_none_or(|old| !has(old));
            change.new.as_ref().is_none_or(has) && (gone || stays(change))
        };
        let is_old = |change: &Changed| {
            let absent = change.new.as_ref().is_none_or(|new| !has(new));
            change.old.as_ref().is_none_or(has) && (absent || stays(change))
        };
        let world = self.world.entries.iter().map(ToString::to_string);
        let is_asked =
            entry.world_before != entry.world_after && world.eq(entry.world_after.iter().cloned());
        match (
            entry.changes.iter().all(is_new),
            entry.changes.iter().all(is_old),
        ) {
            // Where the packages say nothing, the world does.
            (true, true) => is_asked.then_some(Outcome::Recovered),
            (true, false) => Some(Outcome::Recovered),
            (false, true) => None,
            (false, false) => Some(Outcome::Interrupted),
        }
    }
}

impl History {
    /// Opens the history of a root and makes it if there is none.
    ///
    /// With `sync` each entry is flushed to disk.
    ///
    /// # Errors
    /// [`HistoryError`].
    pub fn open(root: &Root, sync: bool) -> Result<Self, HistoryError> {
        let mut made = Vec::new();
        let mut path = DIRECTORY;
        while !path.is_empty() && root.stat(path)?.is_none() {
            made.push(path.to_owned());
            path = crate::root::split(path).0;
        }
        root.create_directories(DIRECTORY)?;
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE
            | OpenFlags::SQLITE_OPEN_CREATE
            | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(file(root)?, flags)?;
        connection.busy_timeout(Duration::from_secs(10))?;
        // A process that is killed loses nothing either way; only a power cut needs the flush.
        connection.pragma_update(None, "synchronous", if sync { "FULL" } else { "OFF" })?;
        connection.pragma_update(None, "foreign_keys", true)?;
        migrate(&connection)?;
        Ok(Self {
            connection,
            made,
            _copy: None,
        })
    }

    /// Opens the history of a root to read it; `None` if there is none.
    ///
    /// What a process that was killed had half written is taken back first: in the root by those
    /// who may write there, in a copy by all others.
    ///
    /// # Errors
    /// [`HistoryError`].
    pub fn read(root: &Root) -> Result<Option<Self>, HistoryError> {
        if root.stat(PATH)?.is_none() {
            return Ok(None);
        }
        let path = file(root)?;
        let opened = present(&path, OpenFlags::SQLITE_OPEN_READ_ONLY);
        let (connection, version, copy) = match opened {
            Err(error) if is_half_written(&error) => half_written(root, &path)?,
            opened => opened.map(|(connection, version)| (connection, version, None))?,
        };
        match version {
            1..=VERSION => Ok(Some(Self {
                connection,
                made: Vec::new(),
                _copy: copy,
            })),
            0 => Ok(None),
            _ => Err(HistoryError::TooNew),
        }
    }

    /// Makes the history unreadable to everybody but its owner: it is about to hold the text of a
    /// file that is.
    ///
    /// # Errors
    /// [`RootError`].
    pub fn make_private(root: &Root) -> Result<(), RootError> {
        root.directory(DIRECTORY)?.set_mode(FILE, 0o600)
    }

    /// Enters a transaction that is about to begin; returns its number.
    ///
    /// # Errors
    /// [`HistoryError`].
    pub fn begin(&mut self, entry: &NewEntry<'_>) -> Result<i64, HistoryError> {
        let all = self.connection.transaction()?;
        all.execute(
            "INSERT INTO entry (time, command, world_before, world_after, outcome)
             VALUES (?1, ?2, ?3, ?4, ?5)",
            params![
                entry.time,
                entry.command,
                entry.world_before.to_text(),
                entry.world_after.to_text(),
                Outcome::Started.as_str()
            ],
        )?;
        let id = all.last_insert_rowid();
        for (position, change) in entry.changes.iter().enumerate() {
            let old = change.old.as_ref().map(|old| intern(&all, old));
            let new = change.new.as_ref().map(|new| intern(&all, new));
            let tag = |member: &Option<Member>| member.as_ref().and_then(|m| m.tag.clone());
            let mut insert =
                all.prepare_cached("INSERT INTO change VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)")?;
            insert.execute(params![
                id,
                position as i64,
                change.verb,
                old.transpose()?,
                tag(&change.old),
                new.transpose()?,
                tag(&change.new)
            ])?;
        }
        for file in entry.written_files {
            all.execute(
                "INSERT INTO written_file VALUES (?1, ?2, ?3, ?4)",
                params![id, file.path, file.before, file.after],
            )?;
        }
        all.commit()?;
        Ok(id)
    }

    /// Completes a transaction with what is installed after it.
    ///
    /// # Errors
    /// [`HistoryError`].
    pub fn finish(
        &mut self,
        id: i64,
        outcome: Outcome,
        errors: u32,
        installed: &InstalledDb,
        changed_files: &[ChangedFile],
    ) -> Result<(), HistoryError> {
        let all = self.connection.transaction()?;
        all.execute(
            "UPDATE entry SET outcome = ?2, errors = ?3 WHERE id = ?1",
            params![id, outcome.as_str(), errors],
        )?;
        for package in &installed.packages {
            let member = Member::of(&package.package, package.pinned_tag.as_deref());
            let mut insert =
                all.prepare_cached("INSERT OR REPLACE INTO member VALUES (?1, ?2, ?3)")?;
            insert.execute(params![id, intern(&all, &member)?, member.tag])?;
        }
        for file in changed_files {
            all.execute(
                "INSERT OR REPLACE INTO changed_file VALUES (?1, ?2, ?3)",
                params![id, file.path, file.change.as_str()],
            )?;
        }
        all.commit()?;
        Ok(())
    }

    /// Deletes a transaction that did not happen.
    ///
    /// # Errors
    /// [`HistoryError`].
    pub fn discard(&mut self, id: i64) -> Result<(), HistoryError> {
        self.connection
            .execute("DELETE FROM entry WHERE id = ?1", [id])?;
        Ok(())
    }

    /// Removes the history if it was made for a transaction that did not happen.
    ///
    /// # Errors
    /// [`HistoryError`].
    pub fn remove_if_new(self, root: &Root) -> Result<(), HistoryError> {
        let Some(deepest) = self.made.first().cloned() else {
            return Ok(());
        };
        drop(self.connection);
        root.directory(&deepest)?.remove_file(FILE)?;
        root.forget_directories();
        for path in &self.made {
            let (parent, name) = root.parent(path)?;
            parent.remove_directory(name);
            root.forget_directories();
        }
        Ok(())
    }

    /// Returns whether there are transactions whose end nobody wrote down.
    ///
    /// # Errors
    /// [`HistoryError`].
    pub fn has_open(&self) -> Result<bool, HistoryError> {
        let open = "SELECT EXISTS (SELECT 1 FROM entry WHERE outcome = ?1)";
        let started = [Outcome::Started.as_str()];
        Ok(self.connection.query_row(open, started, |row| row.get(0))?)
    }

    /// Decides what became of transactions that were interrupted.
    ///
    /// # Errors
    /// [`HistoryError`].
    pub fn settle(&mut self, now: &Now<'_>) -> Result<(), HistoryError> {
        let open: Vec<i64> = self
            .connection
            .prepare("SELECT id FROM entry WHERE outcome = ?1")?
            .query_map([Outcome::Started.as_str()], |row| row.get(0))?
            .collect::<Result<_, _>>()?;
        for id in open {
            let Some(entry) = self.entry(id)? else {
                continue;
            };
            let (outcome, errors) = match now.finished {
                Some((finished, outcome, errors)) if finished == id => (outcome, errors),
                _ => match now.judge(&entry) {
                    Some(outcome) => (outcome, 0),
                    None => {
                        self.discard(id)?;
                        continue;
                    }
                },
            };
            self.finish(id, outcome, errors, now.installed, &[])?;
        }
        Ok(())
    }

    /// Returns all transactions, the newest first.
    ///
    /// # Errors
    /// [`HistoryError`].
    pub fn entries(&self) -> Result<Vec<Entry>, HistoryError> {
        let ids: Vec<i64> = self
            .connection
            .prepare("SELECT id FROM entry ORDER BY id DESC")?
            .query_map([], |row| row.get(0))?
            .collect::<Result<_, _>>()?;
        let entries = ids.into_iter().map(|id| self.entry(id));
        entries.filter_map(Result::transpose).collect()
    }

    /// Returns one transaction.
    ///
    /// # Errors
    /// [`HistoryError`].
    pub fn entry(&self, id: i64) -> Result<Option<Entry>, HistoryError> {
        let words = |text: String| text.split_whitespace().map(str::to_owned).collect();
        let entry = self
            .connection
            .query_row(
                "SELECT time, command, outcome, errors, world_before, world_after
                 FROM entry WHERE id = ?1",
                [id],
                |row| {
                    Ok(Entry {
                        id,
                        time: row.get(0)?,
                        command: row.get(1)?,
                        outcome: Outcome::from_text(&row.get::<_, String>(2)?),
                        errors: row.get(3)?,
                        world_before: words(row.get(4)?),
                        world_after: words(row.get(5)?),
                        changes: Vec::new(),
                        changed_files: Vec::new(),
                        written_files: Vec::new(),
                    })
                },
            )
            .optional()?;
        let Some(mut entry) = entry else {
            return Ok(None);
        };
        let mut changes = self.connection.prepare_cached(
            "SELECT change.verb, o.identity, o.name, o.version, old_tag,
                    n.identity, n.name, n.version, new_tag
             FROM change LEFT JOIN package o ON o.id = old_package
                         LEFT JOIN package n ON n.id = new_package
             WHERE entry_id = ?1 ORDER BY position",
        )?;
        let rows = changes.query_map([id], |row| {
            Ok(Changed {
                verb: row.get(0)?,
                old: member(row, 1)?,
                new: member(row, 5)?,
            })
        })?;
        entry.changes = rows.collect::<Result<_, _>>()?;
        let mut files = self.connection.prepare_cached(
            "SELECT path, change FROM changed_file WHERE entry_id = ?1 ORDER BY path",
        )?;
        let rows = files.query_map([id], |row| {
            Ok(ChangedFile {
                path: row.get(0)?,
                change: FileChange::from_text(&row.get::<_, String>(1)?),
            })
        })?;
        entry.changed_files = rows.collect::<Result<_, _>>()?;
        if version(&self.connection)? > 1 {
            let mut files = self.connection.prepare_cached(
                "SELECT path, before, after FROM written_file WHERE entry_id = ?1 ORDER BY path",
            )?;
            let rows = files.query_map([id], |row| {
                Ok(WrittenFile {
                    path: row.get(0)?,
                    before: row.get(1)?,
                    after: row.get(2)?,
                })
            })?;
            entry.written_files = rows.collect::<Result<_, _>>()?;
        }
        Ok(Some(entry))
    }

    /// Returns the packages that were installed after a transaction.
    ///
    /// # Errors
    /// [`HistoryError`].
    pub fn members(&self, id: i64) -> Result<Vec<Member>, HistoryError> {
        let mut members = self.connection.prepare_cached(
            "SELECT identity, name, version, tag FROM member
             JOIN package ON package.id = package_id WHERE entry_id = ?1 ORDER BY name",
        )?;
        let rows = members.query_map([id], |row| member(row, 0))?;
        let all: Vec<Option<Member>> = rows.collect::<Result<_, _>>()?;
        Ok(all.into_iter().flatten().collect())
    }

    /// Returns the packages that left in the newest `count` transactions.
    ///
    /// # Errors
    /// [`HistoryError`].
    pub fn recently_left(&self, count: u32) -> Result<Vec<Identity>, HistoryError> {
        let mut left = self.connection.prepare(
            "SELECT DISTINCT identity FROM change JOIN package ON package.id = old_package
             WHERE entry_id IN (SELECT id FROM entry ORDER BY id DESC LIMIT ?1)",
        )?;
        let rows = left.query_map([count], |row| row.get::<_, Vec<u8>>(0))?;
        let all: Vec<Vec<u8>> = rows.collect::<Result<_, _>>()?;
        Ok(all.into_iter().filter_map(identity).collect())
    }
}

impl Member {
    /// Makes a member of a package.
    pub fn of(package: &Package, tag: Option<&str>) -> Self {
        Self {
            identity: package.identity,
            name: package.name.clone(),
            version: package.version.clone(),
            tag: tag.map(str::to_owned),
        }
    }
}

impl Entry {
    /// Returns the packages before this transaction, given those after it.
    pub fn before(&self, after: Vec<Member>) -> Vec<Member> {
        let mut members: HashMap<String, Member> = after
            .into_iter()
            .map(|member| (member.name.clone(), member))
            .collect();
        for change in &self.changes {
            if let Some(new) = &change.new {
                members.remove(&new.name);
            }
        }
        for old in self.changes.iter().filter_map(|change| change.old.as_ref()) {
            members.insert(old.name.clone(), old.clone());
        }
        let mut members: Vec<Member> = members.into_values().collect();
        members.sort_by(|a, b| a.name.cmp(&b.name));
        members
    }
}

/// Returns where the database is. The directory is opened below the root, so that no link of the
/// root leads out of it.
fn file(root: &Root) -> Result<PathBuf, RootError> {
    use std::os::fd::AsRawFd;
    let directory = root.directory(DIRECTORY)?;
    if matches!(directory.stat(FILE)?, Some(stat) if stat.kind != rustix::fs::FileType::RegularFile)
    {
        let wrong = std::io::Error::from(std::io::ErrorKind::InvalidInput);
        return Err(RootError::new("open", &directory.join(FILE), wrong));
    }
    let link = directory
        .fd()
        .map(|fd| format!("/proc/self/fd/{}", fd.as_raw_fd()));
    let folder = link.and_then(|link| std::fs::read_link(link).ok());
    let folder = folder.unwrap_or_else(|| root.path().join(DIRECTORY));
    Ok(folder.join(FILE))
}

/// Opens a database that is there, and reads its version.
fn present(path: &Path, access: OpenFlags) -> rusqlite::Result<(Connection, i64)> {
    let connection = Connection::open_with_flags(path, access | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
    connection.busy_timeout(Duration::from_secs(10))?;
    let version = version(&connection)?;
    Ok((connection, version))
}

/// Returns whether a database cannot be read before a transaction in it is taken back.
fn is_half_written(error: &rusqlite::Error) -> bool {
    // That it is not possible to see whether there is one is told as "cannot open".
    let code = error.sqlite_error_code();
    matches!(
        code,
        Some(rusqlite::ErrorCode::ReadOnly | rusqlite::ErrorCode::CannotOpen)
    )
}

/// Opens a database that a killed process left in the middle of a transaction.
fn half_written(
    root: &Root,
    path: &Path,
) -> Result<(Connection, i64, Option<tempfile::TempDir>), HistoryError> {
    let error = match present(path, OpenFlags::SQLITE_OPEN_READ_WRITE) {
        Ok((connection, version)) => return Ok((connection, version, None)),
        Err(error) if is_half_written(&error) => error,
        Err(error) => return Err(error.into()),
    };
    let journal = format!("{FILE}-journal");
    let directory = root.directory(DIRECTORY)?;
    let wrong = |error: std::io::Error| RootError::new("copy", PATH, error);
    // A process that writes meanwhile would leave halves of two states in the copy.
    for _ in 0..3 {
        let state = || -> Result<_, RootError> {
            let stats = [directory.stat(FILE)?, directory.stat(&journal)?];
            Ok(stats.map(|stat| stat.map(|stat| (stat.inode, stat.size, stat.modified))))
        };
        let before = state()?;
        let folder = tempfile::Builder::new().prefix("ibex-").tempdir();
        let folder = folder.map_err(wrong)?;
        let copy = Root::open(folder.path())?;
        for name in [FILE, &journal] {
            let text = root.read(&format!("{DIRECTORY}/{name}"))?;
            copy.replace(name, &text.unwrap_or_default(), 0o600, false)?;
        }
        if state()? == before {
            let access = OpenFlags::SQLITE_OPEN_READ_WRITE;
            let (connection, version) = present(&folder.path().join(FILE), access)?;
            return Ok((connection, version, Some(folder)));
        }
    }
    Err(error.into())
}

fn version(connection: &Connection) -> rusqlite::Result<i64> {
    connection.query_row("PRAGMA user_version", [], |row| row.get(0))
}

/// Brings the tables to the present version.
fn migrate(connection: &Connection) -> Result<(), HistoryError> {
    match version(connection)? {
        VERSION => return Ok(()),
        0 | 1 => {}
        _ => return Err(HistoryError::TooNew),
    }
    connection.execute_batch("BEGIN IMMEDIATE")?;
    // Another process may have been quicker.
    let present = version(connection)?;
    if present == 0 {
        connection.execute_batch(SCHEMA)?;
    }
    if present < VERSION {
        connection.execute_batch(WRITTEN_FILES)?;
        connection.pragma_update(None, "user_version", VERSION)?;
    }
    connection.execute_batch("COMMIT")?;
    Ok(())
}

/// Returns the number of a package, entering it if it is new.
fn intern(connection: &Connection, member: &Member) -> rusqlite::Result<i64> {
    let key = params![&member.identity.0[..], member.name, member.version];
    let find = "SELECT id FROM package WHERE identity = ?1 AND name = ?2 AND version = ?3";
    let mut find = connection.prepare_cached(find)?;
    if let Some(id) = find.query_row(key, |row| row.get(0)).optional()? {
        return Ok(id);
    }
    connection
        .prepare_cached("INSERT INTO package (identity, name, version) VALUES (?1, ?2, ?3)")?
        .execute(params![&member.identity.0[..], member.name, member.version])?;
    Ok(connection.last_insert_rowid())
}

/// Reads a package from four columns; `None` if there is none.
fn member(row: &Row<'_>, first: usize) -> rusqlite::Result<Option<Member>> {
    let Some(bytes) = row.get::<_, Option<Vec<u8>>>(first)? else {
        return Ok(None);
    };
    Ok(Some(Member {
        identity: identity(bytes).unwrap_or_default(),
        name: row.get(first + 1)?,
        version: row.get(first + 2)?,
        tag: row.get(first + 3)?,
    }))
}

fn identity(bytes: Vec<u8>) -> Option<Identity> {
    bytes.try_into().ok().map(Identity)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_history_of_the_first_version_is_read_and_brought_to_the_present_one() {
        let folder = tempfile::tempdir().expect("a temporary directory");
        let root = Root::open(folder.path()).expect("a root");
        root.create_directories(DIRECTORY).expect("writable");
        let old = Connection::open(folder.path().join(PATH)).expect("a database");
        old.execute_batch(SCHEMA).expect("the first version");
        old.execute_batch(
            "INSERT INTO entry VALUES (1, 5, 'ibex add a', '', 'a', 'done', 0);
             PRAGMA user_version = 1;",
        )
        .expect("an entry");
        drop(old);
        let read = History::read(&root).expect("readable").expect("a history");
        let entry = read.entry(1).expect("readable").expect("an entry");
        assert!(entry.written_files.is_empty());
        drop(read);
        let mut history = History::open(&root, false).expect("it is brought up");
        let file = WrittenFile {
            path: "etc/x".to_owned(),
            before: None,
            after: b"\xff".to_vec(),
        };
        let new = NewEntry {
            command: "ibex".to_owned(),
            world_before: &World::default(),
            world_after: &World::default(),
            changes: Vec::new(),
            time: 6,
            written_files: std::slice::from_ref(&file),
        };
        let id = history.begin(&new).expect("an entry");
        let ids: Vec<_> = history.entries().expect("readable");
        let files: Vec<_> = ids
            .into_iter()
            .map(|entry| (entry.id, entry.written_files))
            .collect();
        assert_eq!(files, [(id, vec![file]), (1, Vec::new())]);
    }
}
