//! The catalogue: verified indexes, parsed once and kept.
//!
//! A later command finds an index by path, size and time of its file, and neither downloads,
//! verifies nor parses it again. Trust is judged anew each time: an index whose key is gone is not
//! trusted.
//!
//! ```text
//! catalogue.sqlite      which file held which index, which key vouched for it
//! indexes/SHA256.table  that index in the flat form of [`PackageTable`], by the digest of its file,
//!                       or several indexes joined, by a digest of theirs:
//!                       "ibex tbl", then length of core and details (64 bit), CRC-32 of both,
//!                       the core, the details; numbers are little endian
//! ```
//!
//! Tables are mapped, not read, so they are written beside and renamed in, and never changed.
//! Nothing of it is flushed to disk: the catalogue may be deleted at any time, and one that a power
//! cut or anything else damaged is made anew. Whatever fails here costs time, never an answer.
//!
//! The database also remembers the newest state seen of each repository and key, so that an older
//! index is not taken for a new one. That memory is lost with it.

use super::mapped;
use crate::package::{FileName, PackageTable};
use crate::trust::{Freshness, SignatureAlgorithm, TrustedBy};
use rusqlite::{
    Connection, OpenFlags, OptionalExtension, Transaction, TransactionBehavior, params,
};
use sha2::{Digest, Sha256};
use std::fs::{File, Metadata};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Raised whenever the tables or the files beside them change; other versions are made anew.
const VERSION: i64 = 6;

/// Indexes that were not used for so long are dropped when another one is added, in seconds.
const KEEP: u64 = 60 * 24 * 3600;

/// A file younger than this may still change without a new time stamp.
const SETTLED: Duration = Duration::from_secs(2);

const MAGIC: &[u8; 8] = b"ibex tbl";
const HEADER: usize = 32;

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
        key_algorithm TEXT,
        made INTEGER NOT NULL,
        newest_build INTEGER NOT NULL,
        used INTEGER NOT NULL,
        package_name TEXT
    );
    CREATE TABLE source (
        path TEXT PRIMARY KEY,
        size INTEGER NOT NULL,
        modified INTEGER NOT NULL,
        inode INTEGER NOT NULL,
        device INTEGER NOT NULL,
        index_id INTEGER NOT NULL REFERENCES index_file (id) ON DELETE CASCADE
    );
";

/// An index as the catalogue has it.
#[derive(Clone, Debug)]
pub struct Stored {
    /// Its number in this catalogue.
    pub id: i64,
    /// The SHA-256 of its file.
    pub digest: [u8; 32],
    /// The `DESCRIPTION`.
    pub description: String,
    /// How its package files are named; `None` for the usual way.
    pub package_name: Option<FileName>,
    /// Who vouched for it; `None` if nobody did.
    pub trusted_by: Option<TrustedBy>,
    /// How new it says it is.
    pub freshness: Freshness,
}

/// An open catalogue.
#[derive(Debug)]
pub struct Catalogue {
    connection: Connection,
    tables: TableFiles,
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
        let tables = TableFiles(directory.join("indexes"));
        match Self::try_open(&path, &tables) {
            Ok(catalogue) => Some(catalogue),
            Err(error) if is_damage(&error) => {
                Self::set_aside(&path);
                Self::try_open(&path, &tables).ok()
            }
            Err(_) => None,
        }
    }

    fn try_open(path: &Path, tables: &TableFiles) -> rusqlite::Result<Self> {
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE
            | OpenFlags::SQLITE_OPEN_CREATE
            | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(path, flags)?;
        connection.busy_timeout(Duration::from_secs(10))?;
        connection.pragma_update(None, "synchronous", "OFF")?;
        let version: i64 = connection.query_row("PRAGMA user_version", [], |row| row.get(0))?;
        if version != VERSION {
            Self::make(&connection, tables)?;
        }
        Ok(Self {
            connection,
            tables: tables.clone(),
        })
    }

    /// Makes the tables; another process may be doing the same.
    fn make(connection: &Connection, tables: &TableFiles) -> rusqlite::Result<()> {
        connection.pragma_update(None, "journal_mode", "DELETE")?;
        connection.execute_batch("BEGIN IMMEDIATE")?;
        let version: i64 = connection.query_row("PRAGMA user_version", [], |row| row.get(0))?;
        if version != VERSION {
            connection.execute_batch(
                "DROP TABLE IF EXISTS source; DROP TABLE IF EXISTS block;
                 DROP TABLE IF EXISTS index_file; DROP TABLE IF EXISTS package_text;",
            )?;
            connection.execute_batch(SCHEMA)?;
            connection.execute_batch(MEMORY)?;
            tables.clear();
            connection.pragma_update(None, "user_version", VERSION)?;
        }
        connection.execute_batch("COMMIT")
    }

    /// Takes a damaged database out of the way.
    fn set_aside(path: &Path) {
        for suffix in ["", "-journal", "-wal", "-shm"] {
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
                "SELECT f.id, f.digest, f.description, f.key_name, f.key_fingerprint, f.made,
                        f.newest_build, f.key_algorithm, f.package_name
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
        let query = "SELECT id, digest, description, key_name, key_fingerprint, made, newest_build,
                            key_algorithm, package_name
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

    /// Returns where tables are kept.
    pub fn tables(&self) -> &TableFiles {
        &self.tables
    }

    /// Notes an index whose table was written with [`TableFiles::write`]; returns its number,
    /// `None` if it could not be noted.
    pub fn note(
        &self,
        digest: &[u8; 32],
        description: &str,
        package_name: Option<&FileName>,
        trusted_by: Option<&TrustedBy>,
        freshness: Freshness,
    ) -> Option<i64> {
        let behavior = TransactionBehavior::Immediate;
        let transaction = Transaction::new_unchecked(&self.connection, behavior).ok()?;
        let now = seconds_now();
        let old = now.saturating_sub(KEEP) as i64;
        let unused: Vec<[u8; 32]> = transaction
            .prepare("DELETE FROM index_file WHERE used < ? AND digest != ? RETURNING digest")
            .and_then(|mut delete| {
                delete
                    .query_map(params![old, digest.as_slice()], |row| row.get(0))?
                    .collect()
            })
            .ok()?;
        transaction
            .execute(
                "INSERT OR REPLACE INTO index_file
                 (digest, description, key_name, key_fingerprint, used, made, newest_build,
                  key_algorithm, package_name)
                 VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                params![
                    digest.as_slice(),
                    description,
                    trusted_by.map(|by| by.key_name.as_str()),
                    trusted_by.map(|by| by.fingerprint.as_slice()),
                    now as i64,
                    freshness.made as i64,
                    freshness.newest_build as i64,
                    trusted_by.map(|by| by.algorithm.name()),
                    package_name.map(FileName::to_string)
                ],
            )
            .ok()?;
        let id = transaction.last_insert_rowid();
        transaction.commit().ok()?;
        for digest in unused {
            self.tables.remove(&digest);
        }
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
        // Unlike the rest, this cannot be made anew.
        let _ = self.connection.pragma_update(None, "synchronous", "NORMAL");
        // Without room for it the next rollback is not noticed; that is no reason to stop here.
        let _ = self.connection.execute(
            "INSERT OR REPLACE INTO newest_index VALUES (?, ?, ?, ?)",
            values,
        );
    }

    /// Returns the records of an index without details, given the digest of its file.
    pub fn records(&self, digest: &[u8; 32]) -> Option<PackageTable> {
        self.tables.load(digest, false)
    }

    /// Returns the joined table of several indexes, given their digests in order.
    pub fn find_joined(&self, indexes: &[[u8; 32]]) -> Option<PackageTable> {
        self.tables.load(&digest_of_joined(indexes), false)
    }

    /// Keeps the joined table of several indexes.
    pub fn keep_joined(&self, indexes: &[[u8; 32]], table: &PackageTable) {
        let digest = digest_of_joined(indexes);
        if self.tables.write(&digest, table) {
            // Noted so that it is dropped some day.
            self.note(&digest, "joined", None, None, Freshness::default());
        }
    }

    /// Loads an index; `None` if its table is missing or damaged, and then it is dropped.
    pub fn load(&self, index: &Stored, details: bool) -> Option<PackageTable> {
        let table = self.tables.load(&index.digest, details);
        if table.is_none() {
            self.tables.remove(&index.digest);
            let _ = self
                .connection
                .execute("DELETE FROM index_file WHERE id = ?", [index.id]);
        }
        table
    }
}

fn digest_of_joined(indexes: &[[u8; 32]]) -> [u8; 32] {
    let mut digest = Sha256::new_with_prefix(b"joined\0");
    indexes.iter().for_each(|index| digest.update(index));
    digest.finalize().into()
}

/// The tables beside the database.
#[derive(Clone, Debug)]
pub struct TableFiles(PathBuf);

impl TableFiles {
    fn path(&self, digest: &[u8; 32]) -> PathBuf {
        let name = data_encoding::HEXLOWER.encode(digest);
        self.0.join(format!("{name}.table"))
    }

    /// Writes the table of an index; returns whether it is there now.
    pub fn write(&self, digest: &[u8; 32], table: &PackageTable) -> bool {
        let write = || {
            std::fs::DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(&self.0)?;
            let (core, details) = (table.core_bytes(), table.details_bytes());
            let details = details.unwrap_or_default();
            let mut header = [0; HEADER];
            header[..8].copy_from_slice(MAGIC);
            header[8..16].copy_from_slice(&(core.len() as u64).to_le_bytes());
            header[16..24].copy_from_slice(&(details.len() as u64).to_le_bytes());
            header[24..28].copy_from_slice(&crc32fast::hash(core).to_le_bytes());
            header[28..].copy_from_slice(&crc32fast::hash(details).to_le_bytes());
            let make = || tempfile::NamedTempFile::new_in(&self.0);
            let mut file = crate::root::passing::noted(make, tempfile::NamedTempFile::path)?;
            for part in [&header, core, details] {
                file.write_all(part)?;
            }
            file.persist(self.path(digest)).map_err(|error| error.error)
        };
        // A full disk costs the next command the time that this one took.
        write().is_ok()
    }

    fn load(&self, digest: &[u8; 32], details: bool) -> Option<PackageTable> {
        let file = File::open(self.path(digest)).ok()?;
        let bytes = mapped::map(&file).ok()?;
        let header = bytes.get(..HEADER).filter(|h| h.starts_with(MAGIC))?;
        let long = |at: usize| {
            let number = u64::from_le_bytes(header[at..at + 8].try_into().ok()?);
            usize::try_from(number).ok()
        };
        let sum = |at: usize| Some(u32::from_le_bytes(header[at..at + 4].try_into().ok()?));
        let core_end = long(8)?.checked_add(HEADER)?;
        let end = core_end.checked_add(long(16)?)?;
        if end != bytes.len() {
            return None;
        }
        let part = |range: std::ops::Range<usize>, wanted: u32| {
            (crc32fast::hash(&bytes[range.clone()]) == wanted).then(|| bytes.slice(range))
        };
        let core = part(HEADER..core_end, sum(24)?)?;
        let details = match details {
            true => Some(part(core_end..end, sum(28)?)?),
            false => None,
        };
        PackageTable::from_bytes(core, details).ok()
    }

    fn remove(&self, digest: &[u8; 32]) {
        // What cannot be removed is written over, or ignored.
        let _ = std::fs::remove_file(self.path(digest));
    }

    fn clear(&self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
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
    let key_name: Option<String> = row.get(3)?;
    let fingerprint: Option<Vec<u8>> = row.get(4)?;
    let fingerprint = fingerprint.and_then(|bytes| bytes.try_into().ok());
    let algorithm: Option<String> = row.get(7)?;
    let algorithm = algorithm.and_then(|name| SignatureAlgorithm::from_stored_name(&name));
    let package_name: Option<String> = row.get(8)?;
    Ok(Stored {
        id: row.get(0)?,
        digest: row.get(1)?,
        description: row.get(2)?,
        package_name: package_name.and_then(|text| FileName::parse(&text)),
        trusted_by: key_name.zip(fingerprint).zip(algorithm).map(
            |((key_name, fingerprint), algorithm)| TrustedBy {
                key_name,
                fingerprint,
                algorithm,
            },
        ),
        freshness: freshness(row, 5)?,
    })
}

fn is_damage(error: &rusqlite::Error) -> bool {
    use rusqlite::ErrorCode::{DatabaseCorrupt, NotADatabase, Unknown};
    match error.sqlite_error_code() {
        Some(code) => matches!(code, DatabaseCorrupt | NotADatabase | Unknown),
        None => false,
    }
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
