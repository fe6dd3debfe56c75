//! From an index file to a verified table.

use super::catalogue::{Catalogue, Stored, TableFiles};
use crate::format::index::{IndexTable, UnverifiedIndex};
use crate::format::{FormatError, Limits};
use crate::package::{FileName, PackageTable};
use crate::root::cause;
use crate::trust::{Freshness, Keyring, Older, TrustError, TrustedBy};
use sha2::{Digest, Sha256};
use std::collections::HashMap;
use std::fs::{File, Metadata};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Why an index cannot be used; the texts are apk's.
#[derive(Debug, thiserror::Error)]
pub enum IndexError {
    /// It cannot be read.
    #[error("{}", cause(.0))]
    Io(#[source] io::Error),
    /// It is damaged.
    #[error(transparent)]
    Format(#[from] FormatError),
    /// It is not signed by a known key.
    #[error(transparent)]
    Trust(#[from] TrustError),
    /// A newer one of the same repository and key was seen before.
    #[error(
        "the index of {} is older than the one of {} seen before (--force-index-rollback accepts it)",
        day(.0.found), day(.0.seen)
    )]
    Rollback(Older),
}

/// Writes a time as a day, or as it is if there is no such day.
fn day(seconds: u64) -> String {
    i64::try_from(seconds)
        .ok()
        .and_then(|seconds| jiff::Timestamp::from_second(seconds).ok())
        .map_or_else(
            || format!("second {seconds}"),
            |at| at.strftime("%Y-%m-%d %H:%M:%S").to_string(),
        )
}

/// An index that may be used.
#[derive(Clone, Debug)]
pub struct LoadedIndex {
    /// The SHA-256 of its file.
    pub digest: [u8; 32],
    /// The `DESCRIPTION`.
    pub description: String,
    /// How its package files are named; `None` for the usual way.
    pub package_name: Option<FileName>,
    /// Its records; `None` if they are to be had in a joined table only ([`Depth::Choice`]).
    pub table: Option<Arc<PackageTable>>,
    /// The records are those of the file, none left out.
    pub whole: bool,
    /// Its number in the catalogue, if it is there.
    pub stored: Option<i64>,
    /// Who vouches for it; `None` if nobody does.
    pub trusted_by: Option<TrustedBy>,
    /// How new it says it is.
    pub freshness: Freshness,
}

/// How much of the indexes a command needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Depth {
    /// What choosing needs, of all repositories together.
    Choice,
    /// That of each repository.
    Records,
    /// Also what people read.
    Details,
}

impl LoadedIndex {
    /// Returns its records; none if they were not loaded.
    pub fn table(&self) -> Arc<PackageTable> {
        let empty = || Arc::new(PackageTable::build(&[]));
        self.table.clone().unwrap_or_else(empty)
    }
}

/// What an [`IndexLoader`] goes by.
#[derive(Clone, Copy)]
pub struct Rules<'a> {
    /// Trusted keys.
    pub keyring: &'a Keyring,
    /// Unsigned indexes may be used, too.
    pub allow_untrusted: bool,
    /// An index may be older than one seen before.
    pub allow_older: bool,
    /// What is needed of the indexes.
    pub depth: Depth,
    /// Bounds on what is read.
    pub limits: Limits,
}

/// Loads indexes, from the catalogue where it has them.
pub struct IndexLoader<'a> {
    judge: Judge<'a>,
    catalogue: Option<Catalogue>,
    ready: HashMap<PathBuf, LoadedIndex>,
}

impl<'a> IndexLoader<'a> {
    /// Makes a loader.
    pub fn new(rules: Rules<'a>, catalogue: Option<Catalogue>) -> Self {
        let tables = catalogue.as_ref().map(|c| c.tables().clone());
        Self {
            judge: Judge { rules, tables },
            catalogue,
            ready: HashMap::new(),
        }
    }

    /// Returns the joined table of indexes, if the catalogue has it.
    pub fn find_joined(&self, indexes: &[[u8; 32]]) -> Option<PackageTable> {
        self.catalogue.as_ref()?.find_joined(indexes)
    }

    /// Returns the records of an index that the catalogue has.
    pub fn records(&self, index: &LoadedIndex) -> Option<PackageTable> {
        self.catalogue.as_ref()?.records(&index.digest)
    }

    /// Loads the records of each index from now on.
    pub fn deepen(&mut self) {
        self.judge.rules.depth = self.judge.rules.depth.max(Depth::Records);
        self.ready.clear();
    }

    /// Returns the catalogue.
    pub fn into_catalogue(self) -> Option<Catalogue> {
        self.catalogue
    }

    /// Loads the indexes in several files at once, for [`Self::load_file`] to give them out.
    ///
    /// What the catalogue has is left to that; parsing the rest is worth a thread for each.
    pub fn prepare(&mut self, paths: &[PathBuf]) {
        let mut missing = Vec::new();
        for path in paths {
            let meta = std::fs::metadata(path).ok();
            match meta.and_then(|meta| self.kept(|catalogue| catalogue.by_file(path, &meta))) {
                Some(loaded) => {
                    self.ready.insert(path.clone(), loaded);
                }
                None => missing.push(path),
            }
        }
        if missing.len() < 2 {
            return;
        }
        // The processor bounds the speed, and each holds an index in memory.
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        for group in missing.chunks(threads.min(8)) {
            let judge = &self.judge;
            let read: Vec<_> = std::thread::scope(|scope| {
                let workers: Vec<_> = group
                    .iter()
                    .map(|path| scope.spawn(|| judge.read(path)))
                    .collect();
                let results = workers
                    .into_iter()
                    .map(|worker| worker.join().ok().flatten());
                results.collect()
            });
            for (path, (meta, parsed)) in group.iter().zip(read).filter_map(|(p, r)| Some((p, r?)))
            {
                let loaded = self.keep(parsed);
                self.remember(path, &meta, &loaded);
                self.ready.insert((*path).clone(), loaded);
            }
        }
    }

    /// Loads the index in a file.
    ///
    /// # Errors
    /// [`IndexError`].
    pub fn load_file(&mut self, path: &Path) -> Result<LoadedIndex, IndexError> {
        if let Some(loaded) = self.ready.get(path) {
            return Ok(loaded.clone());
        }
        let meta = std::fs::metadata(path).map_err(IndexError::Io)?;
        if let Some(loaded) = self.kept(|catalogue| catalogue.by_file(path, &meta)) {
            return Ok(loaded);
        }
        let (meta, bytes) = self.judge.bytes_of(path)?;
        let loaded = self.load_bytes(&bytes)?;
        self.remember(path, &meta, &loaded);
        Ok(loaded)
    }

    /// Returns whether a file is there that is no whole index. What nobody trusts is whole.
    pub fn is_damaged(&mut self, path: &Path) -> bool {
        let Ok(meta) = std::fs::metadata(path) else {
            return false;
        };
        let known = self.catalogue.as_ref();
        // What is in the catalogue was whole, and is not loaded for this alone.
        let known = known.and_then(|catalogue| catalogue.by_file(path, &meta));
        known.is_none() && matches!(self.load_file(path), Err(IndexError::Format(_)))
    }

    fn remember(&self, path: &Path, meta: &Metadata, loaded: &LoadedIndex) {
        if let (Some(catalogue), Some(id)) = (&self.catalogue, loaded.stored) {
            catalogue.remember_file(path, meta, id);
        }
    }

    /// Loads an index from memory.
    ///
    /// # Errors
    /// [`IndexError`].
    pub fn load_bytes(&mut self, bytes: &[u8]) -> Result<LoadedIndex, IndexError> {
        let digest: [u8; 32] = Sha256::digest(bytes).into();
        if let Some(loaded) = self.kept(|catalogue| catalogue.by_digest(&digest)) {
            return Ok(loaded);
        }
        let parsed = self.judge.parse(bytes, digest)?;
        Ok(self.keep(parsed))
    }

    fn keep(&mut self, parsed: Parsed) -> LoadedIndex {
        let catalogue = self.catalogue.as_mut().filter(|_| parsed.written);
        let stored = catalogue.and_then(|catalogue| {
            catalogue.note(
                &parsed.digest,
                &parsed.index.description,
                parsed.index.package_name.as_ref(),
                parsed.trusted_by.as_ref(),
                parsed.index.freshness,
            )
        });
        LoadedIndex {
            digest: parsed.digest,
            description: parsed.index.description,
            package_name: parsed.index.package_name,
            table: Some(Arc::new(parsed.index.table)),
            whole: true,
            stored,
            trusted_by: parsed.trusted_by,
            freshness: parsed.index.freshness,
        }
    }

    /// Decides whether a fetched index may replace the copy: not if a newer one of the same
    /// repository and key was seen before. What is accepted is remembered.
    ///
    /// `repository` names what the index is of, whichever mirror it came from. Without a catalogue
    /// there is no memory, and nobody vouches for the time of an untrusted index: both pass.
    ///
    /// # Errors
    /// [`IndexError::Rollback`].
    pub fn accept(&self, repository: &str, index: &LoadedIndex) -> Result<(), IndexError> {
        let (Some(catalogue), Some(by)) = (&self.catalogue, &index.trusted_by) else {
            return Ok(());
        };
        if let (Some(seen), false) = (
            catalogue.newest(repository, by),
            self.judge.rules.allow_older,
        ) {
            index.freshness.check(seen).map_err(IndexError::Rollback)?;
        }
        catalogue.remember_newest(repository, by, index.freshness);
        Ok(())
    }

    fn kept(&self, find: impl FnOnce(&Catalogue) -> Option<Stored>) -> Option<LoadedIndex> {
        let catalogue = self.catalogue.as_ref()?;
        let stored = find(catalogue)?;
        let trusted = stored
            .trusted_by
            .as_ref()
            .is_some_and(|by| self.judge.rules.keyring.has(by));
        if !trusted && !self.judge.rules.allow_untrusted {
            return None;
        }
        let table = match self.judge.rules.depth {
            Depth::Choice => None,
            depth => Some(Arc::new(catalogue.load(&stored, depth == Depth::Details)?)),
        };
        Some(LoadedIndex {
            digest: stored.digest,
            description: stored.description,
            package_name: stored.package_name,
            table,
            whole: true,
            stored: Some(stored.id),
            trusted_by: stored.trusted_by.filter(|_| trusted),
            freshness: stored.freshness,
        })
    }
}

/// What is needed to judge an index, on any thread.
struct Judge<'a> {
    rules: Rules<'a>,
    tables: Option<TableFiles>,
}

impl Judge<'_> {
    /// Reads and judges one file; what fails is told when it is asked for.
    fn read(&self, path: &Path) -> Option<(Metadata, Parsed)> {
        let (meta, bytes) = self.bytes_of(path).ok()?;
        let parsed = self.parse(&bytes, Sha256::digest(&bytes).into()).ok()?;
        Some((meta, parsed))
    }

    fn bytes_of(&self, path: &Path) -> Result<(Metadata, Vec<u8>), IndexError> {
        let mut file = File::open(path).map_err(IndexError::Io)?;
        let meta = file.metadata().map_err(IndexError::Io)?;
        let limit = self.rules.limits.index_file;
        let mut bytes = Vec::with_capacity(meta.len().min(limit) as usize + 1);
        let read = file
            .by_ref()
            .take(limit.saturating_add(1))
            .read_to_end(&mut bytes);
        read.map_err(IndexError::Io)?;
        if bytes.len() as u64 > limit {
            return Err(FormatError::TooLarge {
                what: "index file",
                limit,
            }
            .into());
        }
        Ok((meta, bytes))
    }

    /// Verifies an index, parses it and writes its table into the catalogue.
    fn parse(&self, bytes: &[u8], digest: [u8; 32]) -> Result<Parsed, IndexError> {
        let unverified = UnverifiedIndex::read(bytes, &self.rules.limits)?;
        let rules = &self.rules;
        let trusted_by = match rules
            .keyring
            .check(&unverified.signatures, &unverified.digests)
        {
            Ok(by) => Some(by),
            // A wrong signature of a known key is never accepted.
            Err(TrustError::Untrusted { .. }) if rules.allow_untrusted => None,
            Err(error) => {
                if let TrustError::Bad { .. } = error {
                    unverified.inspect()?;
                }
                return Err(error.into());
            }
        };
        let index = unverified.into_table()?;
        let tables = self.tables.as_ref();
        Ok(Parsed {
            digest,
            written: tables.is_some_and(|tables| tables.write(&digest, &index.table)),
            index,
            trusted_by,
        })
    }
}

/// An index that was verified and parsed.
struct Parsed {
    digest: [u8; 32],
    written: bool,
    index: IndexTable,
    trusted_by: Option<TrustedBy>,
}
