//! The catalogue: verified indexes, parsed once and kept.
//!
//! An SQLite database in the cache directory holds each index in the flat form of
//! [`PackageTable`], by the SHA-256 of the index file, with the key that vouched for it. A later
//! command finds it by path, size and time of the index file, and neither downloads, verifies nor
//! parses it again. Trust is judged anew each time: an index whose key is gone is not trusted.
//!
//! It also remembers the newest state seen of each repository and key, so that an older index is
//! not taken for a new one.
//!
//! The catalogue may be deleted at any time; that memory is lost then. A damaged one is set aside and made anew; whatever
//! fails here costs time, never an answer.

use crate::package::{Index, PackageTable};
use crate::trust::{Freshness, TrustedBy};
use rusqlite::{Connection, MAIN_DB, OpenFlags, OptionalExtension, params};
use std::collections::HashSet;
use std::fs::Metadata;
use std::io::Read;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Raised whenever the tables or the blocks in them change; other versions are made anew.
const VERSION: i64 = 2;

/// Indexes that were not used for so long are dropped when another one is added, in seconds.
const KEEP: u64 = 60 * 24 * 3600;

/// A file younger than this may still change without a new time stamp.
const SETTLED: Duration = Duration::from_secs(2);

/// Made once and kept when the other tables are made anew.
const MEMORY: &str = "
    CREATE TABLE IF NOT EXISTS newest_index (
        repository TEXT NOT NULL,
        key_fingerprint BLOB NOT NULL,
        made INTEGER NOT NULL,
        newest_build INTEGER NOT NULL,
        PRIMARY KEY (repository, key_fingerprint)
    );
";

const SCHEMA: &str = "
    CREATE TABLE index_file (
        id INTEGER PRIMARY KEY,
        digest BLOB NOT NULL UNIQUE,
        description TEXT NOT NULL,
        key_name TEXT,
        key_fingerprint BLOB,
        made INTEGER NOT NULL,
        newest_build INTEGER NOT NULL,
        used INTEGER NOT NULL,
        searchable INTEGER NOT NULL DEFAULT 0
    );
    CREATE TABLE block (
        id INTEGER PRIMARY KEY,
        index_id INTEGER NOT NULL REFERENCES index_file (id) ON DELETE CASCADE,
        part INTEGER NOT NULL,
        checksum INTEGER NOT NULL,
        data BLOB NOT NULL,
        UNIQUE (index_id, part)
    );
    CREATE TABLE source (
        path TEXT PRIMARY KEY,
        size INTEGER NOT NULL,
        modified INTEGER NOT NULL,
        inode INTEGER NOT NULL,
        device INTEGER NOT NULL,
        index_id INTEGER NOT NULL REFERENCES index_file (id) ON DELETE CASCADE
    );
    CREATE VIRTUAL TABLE package_text USING fts5 (
        name, description, provides, origin,
        content = '', contentless_delete = 1, detail = none, tokenize = 'trigram'
    );
";

/// An index as the catalogue has it.
#[derive(Clone, Debug)]
pub struct Stored {
    /// Its number in this catalogue.
    pub id: i64,
    /// The `DESCRIPTION`.
    pub description: String,
    /// Who vouched for it; `None` if nobody did.
    pub trusted_by: Option<TrustedBy>,
    /// How new it says it is.
    pub freshness: Freshness,
}

/// An open catalogue.
#[derive(Debug)]
pub struct Catalogue {
    connection: Connection,
}

impl Catalogue {
    /// Opens the catalogue in a directory, making both if needed; `None` if that cannot be done.
    pub fn open(directory: &Path) -> Option<Self> {
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(directory)
            .ok()?;
        let path = directory.join("catalogue.sqlite");
        match Self::try_open(&path) {
            Ok(catalogue) => Some(catalogue),
            Err(error) if is_damage(&error) => {
                Self::set_aside(&path);
                Self::try_open(&path).ok()
            }
            Err(_) => None,
        }
    }

    fn try_open(path: &Path) -> rusqlite::Result<Self> {
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE
            | OpenFlags::SQLITE_OPEN_CREATE
            | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(path, flags)?;
        connection.busy_timeout(Duration::from_secs(10))?;
        connection.pragma_update(None, "mmap_size", 1_i64 << 30)?;
        let version: i64 = connection.query_row("PRAGMA user_version", [], |row| row.get(0))?;
        if version != VERSION {
            Self::make(&connection)?;
        }
        Ok(Self { connection })
    }

    /// Makes the tables; another process may be doing the same.
    fn make(connection: &Connection) -> rusqlite::Result<()> {
        // Large pages keep the chains of large blocks short.
        connection.pragma_update(None, "page_size", 32768)?;
        connection.pragma_update(None, "journal_mode", "WAL")?;
        connection.execute_batch("BEGIN IMMEDIATE")?;
        let version: i64 = connection.query_row("PRAGMA user_version", [], |row| row.get(0))?;
        if version != VERSION {
            connection.execute_batch(
                "DROP TABLE IF EXISTS source; DROP TABLE IF EXISTS block;
                 DROP TABLE IF EXISTS index_file; DROP TABLE IF EXISTS package_text;",
            )?;
            connection.execute_batch(SCHEMA)?;
            connection.execute_batch(MEMORY)?;
            connection.pragma_update(None, "user_version", VERSION)?;
        }
        connection.execute_batch("COMMIT")
    }

    /// Takes a damaged database out of the way.
    fn set_aside(path: &Path) {
        for suffix in ["", "-wal", "-shm"] {
            let mut name = path.as_os_str().to_owned();
            name.push(suffix);
            // If it cannot be removed, opening fails again and there is no catalogue this time.
            let _ = std::fs::remove_file(PathBuf::from(name));
        }
    }

    /// Finds the index that a file held when it had this size, time and inode.
    pub fn by_file(&self, path: &Path, file: &Metadata) -> Option<Stored> {
        let mut statement = self
            .connection
            .prepare_cached(
                "SELECT f.id, f.description, f.key_name, f.key_fingerprint, f.made,
                        f.newest_build
                 FROM source s JOIN index_file f ON f.id = s.index_id
                 WHERE s.path = ? AND s.size = ? AND s.modified = ? AND s.inode = ?
                   AND s.device = ?",
            )
            .ok()?;
        let key = params![
            path.to_str()?,
            file.size() as i64,
            modified(file),
            file.ino() as i64,
            file.dev() as i64
        ];
        statement.query_row(key, stored).optional().ok()?
    }

    /// Finds an index by the SHA-256 of its file.
    pub fn by_digest(&self, digest: &[u8; 32]) -> Option<Stored> {
        let query = "SELECT id, description, key_name, key_fingerprint, made, newest_build
                     FROM index_file
                     WHERE digest = ?";
        self.connection
            .query_row(query, [digest.as_slice()], stored)
            .optional()
            .ok()?
    }

    /// Notes that a file holds an index, so that it is found without reading the file.
    pub fn remember_file(&self, path: &Path, file: &Metadata, index: i64) {
        let settled = file.modified().ok().and_then(|at| at.elapsed().ok());
        let (Some(path), true) = (path.to_str(), settled.is_some_and(|age| age > SETTLED)) else {
            return;
        };
        let values = params![
            path,
            file.size() as i64,
            modified(file),
            file.ino() as i64,
            file.dev() as i64,
            index
        ];
        // A full or read-only disk costs the next command a little time, nothing else.
        let _ = self.connection.execute(
            "INSERT OR REPLACE INTO source VALUES (?, ?, ?, ?, ?, ?)",
            values,
        );
    }

    /// Stores a parsed index; returns its number, `None` if it could not be stored.
    pub fn store(
        &mut self,
        digest: &[u8; 32],
        index: &Index,
        table: &PackageTable,
        trusted_by: Option<&TrustedBy>,
        freshness: Freshness,
    ) -> Option<i64> {
        let transaction = self
            .connection
            .transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)
            .ok()?;
        let now = seconds_now();
        let drop_old = "DELETE FROM index_file WHERE used < ?";
        transaction
            .execute(drop_old, [now.saturating_sub(KEEP) as i64])
            .ok()?;
        transaction
            .execute(
                "DELETE FROM index_file WHERE digest = ?",
                [digest.as_slice()],
            )
            .ok()?;
        transaction
            .execute(
                "INSERT INTO index_file (digest, description, key_name, key_fingerprint, used,
                                         made, newest_build)
                 VALUES (?, ?, ?, ?, ?, ?, ?)",
                params![
                    digest.as_slice(),
                    index.description,
                    trusted_by.map(|by| by.key_name.as_str()),
                    trusted_by.map(|by| by.fingerprint.as_slice()),
                    now as i64,
                    freshness.made as i64,
                    freshness.newest_build as i64
                ],
            )
            .ok()?;
        let id = transaction.last_insert_rowid();
        let parts = [Some(table.core_bytes()), table.details_bytes()];
        for (part, data) in parts.into_iter().enumerate() {
            let Some(data) = data else { continue };
            transaction
                .execute(
                    "INSERT INTO block (index_id, part, checksum, data) VALUES (?, ?, ?, ?)",
                    params![id, part as i64, checksum(data), data],
                )
                .ok()?;
        }
        transaction.commit().ok()?;
        Some(id)
    }

    /// Returns the newest state seen of a repository under a key.
    pub fn newest(&self, repository: &str, by: &TrustedBy) -> Option<Freshness> {
        let query = "SELECT made, newest_build FROM newest_index
                     WHERE repository = ? AND key_fingerprint = ?";
        let key = params![repository, by.fingerprint.as_slice()];
        self.connection
            .query_row(query, key, |row| freshness(row, 0))
            .optional()
            .ok()?
    }

    /// Remembers a state as the newest one; one in the future only as far as the clock has come.
    pub fn remember_newest(&self, repository: &str, by: &TrustedBy, found: Freshness) {
        let found = found.remembered(seconds_now());
        let values = params![
            repository,
            by.fingerprint.as_slice(),
            found.made as i64,
            found.newest_build as i64
        ];
        // Without room for it the next rollback is not noticed; that is no reason to stop here.
        let _ = self.connection.execute(
            "INSERT OR REPLACE INTO newest_index VALUES (?, ?, ?, ?)",
            values,
        );
    }

    /// Loads an index; `None` if a block is missing or damaged, and then it is dropped.
    pub fn load(&self, index: i64, details: bool) -> Option<PackageTable> {
        let core = self.block(index, 0);
        let details = if details {
            Some(self.block(index, 1))
        } else {
            None
        };
        let table = core.and_then(|core| match details {
            None => PackageTable::from_bytes(core, None).ok(),
            Some(details) => PackageTable::from_bytes(core, Some(details?)).ok(),
        });
        if table.is_none() {
            let _ = self
                .connection
                .execute("DELETE FROM index_file WHERE id = ?", [index]);
        }
        table
    }

    fn block(&self, index: i64, part: i64) -> Option<Vec<u8>> {
        let query = "SELECT id, checksum FROM block WHERE index_id = ? AND part = ?";
        let (id, wanted): (i64, i64) = self
            .connection
            .query_row(query, [index, part], |row| Ok((row.get(0)?, row.get(1)?)))
            .ok()?;
        let mut blob = self
            .connection
            .blob_open(MAIN_DB, "block", "data", id, true)
            .ok()?;
        let mut data = Vec::with_capacity(blob.size() as usize);
        blob.read_to_end(&mut data).ok()?;
        (checksum(&data) == wanted).then_some(data)
    }

    /// Returns the records of an index whose name, description, provides or origin contain a
    /// text of at least three characters, case ignored; `None` if the catalogue cannot tell.
    pub fn containing(&self, index: i64, table: &PackageTable, text: &str) -> Option<HashSet<u32>> {
        if text.chars().count() < 3 || text.contains(['"', '*', '?', '[', '\0']) {
            return None;
        }
        self.make_searchable(index, table)?;
        let mut statement = self
            .connection
            .prepare_cached(
                "SELECT rowid FROM package_text WHERE package_text MATCH ?
                 AND rowid BETWEEN ? AND ?",
            )
            .ok()?;
        // Without positions a phrase is not kept as one: each trigram must occur, and the caller
        // looks at the text itself.
        let trigrams: Vec<String> = trigrams(text).map(|t| format!("\"{t}\"")).collect();
        let range = row_range(index);
        let rows = statement
            .query_map(params![trigrams.join(" AND "), range.0, range.1], |row| {
                row.get(0)
            })
            .ok()?;
        rows.map(|row: rusqlite::Result<i64>| row.map(|row| row as u32))
            .collect::<Result<_, _>>()
            .ok()
    }

    /// Fills the full-text table for an index when it is first asked for.
    fn make_searchable(&self, index: i64, table: &PackageTable) -> Option<()> {
        let query = "SELECT searchable FROM index_file WHERE id = ?";
        let done: bool = self
            .connection
            .query_row(query, [index], |row| row.get(0))
            .ok()?;
        if done {
            return Some(());
        }
        self.connection.execute_batch("BEGIN IMMEDIATE").ok()?;
        let filled = self.fill_text(index, table);
        let end = if filled.is_some() {
            "COMMIT"
        } else {
            "ROLLBACK"
        };
        self.connection.execute_batch(end).ok()?;
        filled
    }

    fn fill_text(&self, index: i64, table: &PackageTable) -> Option<()> {
        let (first, last) = row_range(index);
        let range = [first, last];
        self.connection
            .execute(
                "DELETE FROM package_text WHERE rowid BETWEEN ? AND ?",
                range,
            )
            .ok()?;
        let mut insert = self
            .connection
            .prepare(
                "INSERT INTO package_text (rowid, name, description, provides, origin)
                 VALUES (?, ?, ?, ?, ?)",
            )
            .ok()?;
        for number in 0..table.len() as u32 {
            let (record, details) = (table.record(number), table.details(number)?);
            let provides: Vec<&str> = record.provides().map(|p| table.name(p.name)).collect();
            insert
                .execute(params![
                    first + i64::from(number),
                    record.name(),
                    details.description,
                    provides.join(" "),
                    details.origin
                ])
                .ok()?;
        }
        let mark = "UPDATE index_file SET searchable = 1 WHERE id = ?";
        self.connection.execute(mark, [index]).ok()?;
        Some(())
    }
}

/// Row numbers of the records of one index.
fn row_range(index: i64) -> (i64, i64) {
    (index << 32, (index << 32) | i64::from(u32::MAX))
}

fn trigrams(text: &str) -> impl Iterator<Item = String> {
    let characters: Vec<char> = text.to_lowercase().chars().collect();
    (0..characters.len().saturating_sub(2))
        .map(move |at| characters[at..at + 3].iter().collect::<String>())
        .collect::<Vec<_>>()
        .into_iter()
}

fn freshness(row: &rusqlite::Row<'_>, first: usize) -> rusqlite::Result<Freshness> {
    let seconds = |column| {
        row.get::<_, i64>(column)
            .map(|n| u64::try_from(n).unwrap_or(0))
    };
    Ok(Freshness {
        made: seconds(first)?,
        newest_build: seconds(first + 1)?,
    })
}

fn stored(row: &rusqlite::Row<'_>) -> rusqlite::Result<Stored> {
    let key_name: Option<String> = row.get(2)?;
    let fingerprint: Option<Vec<u8>> = row.get(3)?;
    let fingerprint = fingerprint.and_then(|bytes| bytes.try_into().ok());
    Ok(Stored {
        id: row.get(0)?,
        description: row.get(1)?,
        trusted_by: key_name
            .zip(fingerprint)
            .map(|(key_name, fingerprint)| TrustedBy {
                key_name,
                fingerprint,
            }),
        freshness: freshness(row, 4)?,
    })
}

fn is_damage(error: &rusqlite::Error) -> bool {
    use rusqlite::ErrorCode::{DatabaseCorrupt, NotADatabase, Unknown};
    match error.sqlite_error_code() {
        Some(code) => matches!(code, DatabaseCorrupt | NotADatabase | Unknown),
        None => false,
    }
}

fn checksum(data: &[u8]) -> i64 {
    let mut crc = flate2::Crc::new();
    crc.update(data);
    i64::from(crc.sum())
}

fn modified(file: &Metadata) -> i64 {
    file.mtime()
        .wrapping_mul(1_000_000_000)
        .wrapping_add(file.mtime_nsec())
}

fn seconds_now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}
