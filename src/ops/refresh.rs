//! From declared repositories to loaded indexes, with apk's warnings (cli.md, 1.11).

use crate::config::repositories::{self, masked};
use crate::config::{CacheDirectory, Repository, Settings};
use crate::fetch::catalogue::Catalogue;
use crate::fetch::{IndexLoader, LoadedIndex};
use crate::progress::{Event, Sink};
use crate::root::{Root, RootError};
use crate::trust::Keyring;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

/// What the indexes are needed for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// Cached indexes are used as they are.
    Read,
    /// Indexes older than the maximum age are refreshed.
    Write,
    /// All indexes are refreshed.
    Update,
}

/// A repository and its index.
#[derive(Clone, Debug)]
pub struct LoadedRepository {
    /// The declaration.
    pub repository: Repository,
    /// Its index; `None` if it cannot be used.
    pub index: Option<LoadedIndex>,
    /// Its packages can be had.
    pub reachable: bool,
    /// It is on this machine.
    pub local: bool,
}

/// All repositories of a root.
#[derive(Debug, Default)]
pub struct LoadedRepositories {
    /// In the order of declaration.
    pub repositories: Vec<LoadedRepository>,
    /// Tags in the order in which lines name them.
    pub tag_order: Vec<String>,
    /// Remote indexes that could not be refreshed, but an older copy is used.
    pub stale: u32,
    /// Remote indexes of which there is no copy.
    pub unavailable: u32,
    /// The catalogue the indexes came from.
    pub catalogue: Option<Catalogue>,
}

/// What indexes are loaded with.
#[derive(Clone, Copy, Debug)]
pub struct Context<'a> {
    /// The tree whose repositories are meant.
    pub root: &'a Root,
    /// Sources, and how the network may be used.
    pub settings: &'a Settings,
    /// What `$arch` and the last folder of a repository are.
    pub arch: &'a str,
    /// Who is trusted.
    pub keyring: &'a Keyring,
    /// Where copies of remote indexes are kept.
    pub cache: Option<&'a CacheDirectory>,
}

/// Loads the index of every declared repository; what cannot be used is told as a warning.
///
/// # Errors
/// [`RootError`] if the root's own files cannot be read.
pub fn load(
    context: Context<'_>,
    purpose: Purpose,
    details: bool,
    sink: &mut dyn Sink,
) -> Result<LoadedRepositories, RootError> {
    let Context {
        root,
        settings,
        arch,
        keyring,
        cache,
    } = context;
    let declared = repositories::load(root, &settings.sources, arch, sink)?;
    let catalogue = settings
        .cache
        .then_some(settings.catalogue_dir.as_deref())
        .flatten();
    let mut loader = IndexLoader {
        keyring,
        allow_untrusted: settings.allow_untrusted,
        details,
        catalogue: catalogue.and_then(Catalogue::open),
        limits: settings.limits,
        allow_older: settings.force_index_rollback,
    };
    let mut loaded = LoadedRepositories {
        tag_order: declared.tag_order,
        ..Default::default()
    };
    let remote = RemoteIndexes::new(settings, cache, purpose);
    let fetched = remote.refresh(&declared.repositories, &mut loader, sink);
    for (repository, fetched) in declared.repositories.into_iter().zip(fetched) {
        let local = repository.is_local();
        let (index, warning) = match repository.index_path() {
            Some(path) => match loader.load_file(&path) {
                Ok(index) => (Some(index), None),
                Err(error) => (None, Some(("opening", error.to_string()))),
            },
            None => remote.open(&repository, fetched, &mut loader, &mut loaded),
        };
        if let Some((what, why)) = warning {
            let shown = masked(repository.index_path_text());
            sink.warning(&format!("{what} {shown}: {why}"));
        }
        let reachable = index.is_some() && (local || settings.network);
        loaded.repositories.push(LoadedRepository {
            repository,
            index,
            reachable,
            local,
        });
    }
    loaded.catalogue = loader.catalogue;
    Ok(loaded)
}

/// The copies of remote indexes.
struct RemoteIndexes<'a> {
    settings: &'a Settings,
    cache: Option<&'a CacheDirectory>,
    purpose: Purpose,
}

/// What became of a refresh.
enum Refresh {
    /// None was tried.
    None,
    /// The copy is current.
    Done,
    /// The index was fetched, and there is no cache to keep it in.
    Bytes(Vec<u8>),
    /// It failed.
    Failed(String),
}

impl<'a> RemoteIndexes<'a> {
    fn new(settings: &'a Settings, cache: Option<&'a CacheDirectory>, purpose: Purpose) -> Self {
        Self {
            settings,
            cache,
            purpose,
        }
    }

    fn copy_path(&self, repository: &Repository) -> Option<PathBuf> {
        Some(
            self.cache?
                .path
                .join(cached_index_name(&repository.index_url)),
        )
    }

    /// Returns whether an index is to be fetched now.
    fn is_due(&self, repository: &Repository) -> bool {
        if !self.settings.network {
            return false;
        }
        let Some(path) = self.copy_path(repository) else {
            return true;
        };
        match self.purpose {
            Purpose::Read => false,
            Purpose::Update => true,
            Purpose::Write if self.settings.force_refresh => true,
            Purpose::Write => {
                let modified = std::fs::metadata(path).and_then(|meta| meta.modified());
                let most = Duration::from_secs(self.settings.cache_max_age.saturating_mul(60));
                // A time in the future is no reason to trust the copy for ever.
                let age = modified
                    .ok()
                    .and_then(|at| SystemTime::now().duration_since(at).ok());
                age.is_none_or(|age| age >= most)
            }
        }
    }

    /// Fetches the indexes that are due, several at a time.
    fn refresh(
        &self,
        repositories: &[Repository],
        loader: &mut IndexLoader<'_>,
        sink: &mut dyn Sink,
    ) -> Vec<Refresh> {
        let due: Vec<bool> = repositories
            .iter()
            .map(|repository| repository.index_path().is_none() && self.is_due(repository))
            .collect();
        if !due.contains(&true) {
            return repositories.iter().map(|_| Refresh::None).collect();
        }
        for (repository, _) in repositories.iter().zip(&due).filter(|(_, due)| **due) {
            sink.event(Event::Note(&format!(
                "fetch {}",
                masked(&repository.index_url)
            )));
        }
        let urls = repositories.iter().zip(&due).filter(|(_, due)| **due);
        let requests = urls.map(|(repository, _)| crate::fetch::http::IndexRequest {
            url: repository.index_url.clone(),
            copy: self.copy_path(repository),
        });
        let answers = crate::fetch::http::fetch_indexes(
            self.settings,
            requests.collect(),
            self.settings.limits.index_file,
        );
        let asked = repositories.iter().zip(&due).filter(|(_, due)| **due);
        let mut answers = asked.map(|(repository, _)| repository).zip(answers);
        due.iter()
            .map(|due| match due.then(|| answers.next()).flatten() {
                None => Refresh::None,
                Some((repository, answer)) => self.take(repository, answer, loader),
            })
            .collect()
    }

    /// Verifies what was fetched before it replaces the copy.
    fn take(
        &self,
        repository: &Repository,
        answer: crate::fetch::http::IndexAnswer,
        loader: &mut IndexLoader<'_>,
    ) -> Refresh {
        use crate::fetch::http::IndexAnswer;
        match answer {
            IndexAnswer::Unchanged => Refresh::Done,
            IndexAnswer::Failed(why) => Refresh::Failed(why),
            IndexAnswer::New { bytes, copy } => {
                let accepted = loader.load_bytes(&bytes).and_then(|index| {
                    // Whichever mirror answered, the repository is the declared one.
                    loader.accept(&masked(&repository.index_url), &index)
                });
                match (accepted, copy) {
                    (Err(error), _) => Refresh::Failed(error.to_string()),
                    (Ok(()), None) => Refresh::Bytes(bytes),
                    (Ok(()), Some(copy)) => match crate::fetch::cache::store(&copy, &bytes) {
                        Ok(()) => Refresh::Done,
                        Err(error) => Refresh::Failed(crate::root::cause(&error)),
                    },
                }
            }
        }
    }

    fn open(
        &self,
        repository: &Repository,
        refresh: Refresh,
        loader: &mut IndexLoader<'_>,
        loaded: &mut LoadedRepositories,
    ) -> (Option<LoadedIndex>, Option<(&'static str, String)>) {
        let opened = match (&refresh, self.copy_path(repository)) {
            (Refresh::Bytes(bytes), _) => loader.load_bytes(bytes).map_err(|e| e.to_string()),
            (_, Some(path)) => loader.load_file(&path).map_err(|e| e.to_string()),
            (Refresh::Failed(why), None) => Err(why.clone()),
            (_, None) => Err("cache not available".to_owned()),
        };
        match (refresh, opened) {
            (Refresh::Failed(why), Ok(index)) => {
                loaded.stale += 1;
                (Some(index), Some(("updating", why)))
            }
            (Refresh::Failed(why), Err(_)) => {
                loaded.unavailable += 1;
                let cached = self.cache.is_some();
                let what = if cached {
                    "updating and opening"
                } else {
                    "fetching"
                };
                (None, Some((what, why)))
            }
            (_, Ok(index)) => (Some(index), None),
            (_, Err(why)) => {
                loaded.unavailable += u32::from(self.purpose != Purpose::Read);
                (None, Some(("opening from cache", why)))
            }
        }
    }
}

/// Returns the file name of an index in apk's cache directory (formats.md, 11.5).
pub fn cached_index_name(url: &str) -> String {
    use sha2::{Digest, Sha256};
    let hash = Sha256::digest(url.as_bytes());
    format!(
        "APKINDEX.{}.tar.gz",
        data_encoding::HEXLOWER.encode(&hash[..4])
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cached_name_is_apks() {
        let url = "https://dl-cdn.alpinelinux.org/alpine/v3.20/main/x86_64/APKINDEX.tar.gz";
        assert_eq!(cached_index_name(url), "APKINDEX.7ad9cf74.tar.gz");
    }
}
