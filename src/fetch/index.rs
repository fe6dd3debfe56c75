//! From an index file to a verified table.

use super::catalogue::Catalogue;
use crate::format::index::{UnverifiedIndex, freshness, is_usable};
use crate::format::{FormatError, Limits};
use crate::package::{Index, PackageTable};
use crate::root::cause;
use crate::trust::{Freshness, Keyring, Older, TrustError, TrustedBy};
use sha2::{Digest, Sha256};
use std::io;
use std::path::Path;
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
    /// The `DESCRIPTION`.
    pub description: String,
    /// Its records.
    pub table: Arc<PackageTable>,
    /// Its number in the catalogue, if it is there.
    pub stored: Option<i64>,
    /// Who vouches for it; `None` if nobody does.
    pub trusted_by: Option<TrustedBy>,
    /// How new it says it is.
    pub freshness: Freshness,
}

/// What is needed to judge and keep indexes.
pub struct IndexLoader<'a> {
    /// Trusted keys.
    pub keyring: &'a Keyring,
    /// Unsigned indexes may be used, too.
    pub allow_untrusted: bool,
    /// Load what people read, not only what choosing needs.
    pub details: bool,
    /// Where parsed indexes are kept.
    pub catalogue: Option<Catalogue>,
    /// Bounds on what is read.
    pub limits: Limits,
    /// An index may be older than one seen before.
    pub allow_older: bool,
}

impl IndexLoader<'_> {
    /// Loads the index in a file.
    ///
    /// # Errors
    /// [`IndexError`].
    pub fn load_file(&mut self, path: &Path) -> Result<LoadedIndex, IndexError> {
        let meta = std::fs::metadata(path).map_err(IndexError::Io)?;
        if let Some(loaded) = self.kept(|catalogue| catalogue.by_file(path, &meta)) {
            return Ok(loaded);
        }
        if meta.len() > self.limits.index_file {
            let limit = self.limits.index_file;
            return Err(FormatError::TooLarge {
                what: "index file",
                limit,
            }
            .into());
        }
        let bytes = std::fs::read(path).map_err(IndexError::Io)?;
        let loaded = self.load_bytes(&bytes)?;
        if let (Some(catalogue), Some(id)) = (&self.catalogue, loaded.stored) {
            catalogue.remember_file(path, &meta, id);
        }
        Ok(loaded)
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
        let unverified = UnverifiedIndex::read(bytes, &self.limits)?;
        let trusted_by = match self
            .keyring
            .check(&unverified.signatures, &unverified.digests)
        {
            Ok(by) => Some(by),
            // A wrong signature of a known key is never accepted.
            Err(TrustError::Untrusted { .. }) if self.allow_untrusted => None,
            Err(error) => {
                if let TrustError::Bad { .. } = error {
                    unverified.inspect()?;
                }
                return Err(error.into());
            }
        };
        let mut index: Index = unverified.parse()?;
        index.packages.retain(is_usable);
        let freshness = freshness(&index);
        let table = PackageTable::build(&index.packages);
        let stored = self.catalogue.as_mut().and_then(|catalogue| {
            catalogue.store(&digest, &index, &table, trusted_by.as_ref(), freshness)
        });
        Ok(LoadedIndex {
            description: index.description,
            table: Arc::new(table),
            stored,
            trusted_by,
            freshness,
        })
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
        if let (Some(seen), false) = (catalogue.newest(repository, by), self.allow_older) {
            index.freshness.check(seen).map_err(IndexError::Rollback)?;
        }
        catalogue.remember_newest(repository, by, index.freshness);
        Ok(())
    }

    fn kept(
        &self,
        find: impl FnOnce(&Catalogue) -> Option<super::catalogue::Stored>,
    ) -> Option<LoadedIndex> {
        let catalogue = self.catalogue.as_ref()?;
        let stored = find(catalogue)?;
        let trusted = stored
            .trusted_by
            .as_ref()
            .is_some_and(|by| self.keyring.has(by));
        if !trusted && !self.allow_untrusted {
            return None;
        }
        let table = catalogue.load(stored.id, self.details)?;
        Some(LoadedIndex {
            description: stored.description,
            table: Arc::new(table),
            stored: Some(stored.id),
            trusted_by: stored.trusted_by.filter(|_| trusted),
            freshness: stored.freshness,
        })
    }
}
