//! From declared repositories to loaded indexes, with apk's warnings (cli.md, 1.11).

use crate::config::repositories::{self, masked, without_credentials};
use crate::config::{CacheDirectory, Mirrors, Repository, Settings};
use crate::fetch::cache::Store;
use crate::fetch::catalogue::Catalogue;
use crate::fetch::remote_index::{IndexAnswer, IndexRequest, drop_copy, fetch_indexes, seed};
use crate::fetch::{Depth, HttpError, IndexLoader, LoadedIndex, Rules, Session};
use crate::package::{Identity, PackageTable};
use crate::progress::{Event, Sink};
use crate::root::{Root, RootError};
use crate::trust::Keyring;
use std::cell::OnceCell;
use std::path::PathBuf;
use std::sync::Arc;
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

impl LoadedRepository {
    /// Returns the address of the file of a package: name, version and architecture.
    pub fn package_url(&self, package: (&str, &str, &str), identity: Identity) -> String {
        let named = self.index.as_ref();
        let named = named.and_then(|index| index.package_name.as_ref());
        self.repository.package_url(named, package, identity)
    }
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
    /// The mirrors that stand in for each other.
    pub mirrors: Mirrors,
    /// Remote indexes that there is none of because no mirror gave one: address and cause.
    pub failed: Vec<(String, String)>,
    joined: Option<Arc<PackageTable>>,
    session: OnceCell<Session>,
    store: OnceCell<Option<Store>>,
}

impl LoadedRepositories {
    /// Returns the tables of all repositories as one, if it is worth keeping; it is from the
    /// catalogue or goes there.
    pub fn joined(&self) -> Option<Arc<PackageTable>> {
        /// So many records are joined in less time than it takes to map a file.
        const FEW: usize = 2000;
        if self.joined.is_some() {
            return self.joined.clone();
        }
        let catalogue = self.catalogue.as_ref()?;
        let digests = self.digests()?;
        let indexes = self.repositories.iter().map(|one| one.index.as_ref());
        let empty = || Arc::new(PackageTable::build(&[]));
        let tables = indexes.map(|index| index.map_or_else(empty, LoadedIndex::table));
        let tables: Vec<Arc<PackageTable>> = tables.collect();
        let records: usize = tables.iter().map(|table| table.len()).sum();
        if tables.len() < 2 || records < FEW {
            return None;
        }
        let joined = catalogue.find_joined(&digests).unwrap_or_else(|| {
            let tables: Vec<&PackageTable> = tables.iter().map(AsRef::as_ref).collect();
            let joined = PackageTable::join(&tables);
            catalogue.keep_joined(&digests, &joined);
            joined
        });
        Some(Arc::new(joined))
    }

    /// Returns the digest of each index, zeros for one that there is none of; `None` if the records
    /// of one are not those of a file.
    fn digests(&self) -> Option<Vec<[u8; 32]>> {
        let indexes = self.repositories.iter().map(|one| one.index.as_ref());
        indexes
            .map(|index| match index {
                Some(index) => index.whole.then_some(index.digest),
                None => Some([0; 32]),
            })
            .collect()
    }

    /// Loads what stands in for records that were left in the catalogue: the joined table, or if
    /// there is none, the records of each index.
    fn join(
        &mut self,
        loader: &mut IndexLoader<'_>,
        path: impl Fn(&Repository) -> Option<PathBuf>,
        sink: &mut dyn Sink,
    ) {
        let left = |one: &LoadedRepository| one.index.as_ref().is_some_and(|i| i.table.is_none());
        if !self.repositories.iter().any(left) {
            return;
        }
        if self.repositories.len() > 1 {
            let digests = self.digests().unwrap_or_default();
            self.joined = loader.find_joined(&digests).map(Arc::new);
        }
        if self.joined.is_some() {
            return;
        }
        loader.deepen();
        for one in self.repositories.iter_mut().filter(|one| left(one)) {
            let known = one.index.as_ref().and_then(|index| loader.records(index));
            if let (Some(table), Some(index)) = (known, &mut one.index) {
                index.table = Some(Arc::new(table));
                continue;
            }
            // The table is damaged: the index is read again, if it is a file.
            let path = path(&one.repository);
            one.index = path.and_then(|path| loader.load_file(&path).ok());
            one.reachable &= one.index.is_some();
            if one.index.is_none() {
                let shown = masked(one.repository.index_path_text());
                sink.warning(&format!(
                    "opening {shown}: its records are lost (try 'apk update')"
                ));
            }
        }
    }

    /// Returns the session that fetched the indexes, so that its connections serve again; begins
    /// one if there is none.
    ///
    /// # Errors
    /// [`HttpError`].
    pub fn session(&self, settings: &Settings) -> Result<&Session, HttpError> {
        if let Some(session) = self.session.get() {
            return Ok(session);
        }
        let session = Session::new(settings)?;
        Ok(self.session.get_or_init(|| session))
    }

    /// Returns the user's store of packages; `None` if there is none that can be written, or none
    /// is wanted.
    pub fn store(&self, settings: &Settings) -> Option<&Store> {
        let wanted = settings.cache && settings.cache_packages != Some(false);
        let open = || Store::open(settings.catalogue_dir.as_deref().filter(|_| wanted)?).ok();
        self.store.get_or_init(open).as_ref()
    }
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
    depth: Depth,
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
    let rules = Rules {
        keyring,
        allow_untrusted: settings.allow_untrusted,
        allow_older: settings.force_index_rollback,
        depth,
        limits: settings.limits,
    };
    let mut loader = IndexLoader::new(rules, catalogue.and_then(Catalogue::open));
    let mut loaded = LoadedRepositories {
        tag_order: declared.tag_order,
        mirrors: declared.mirrors,
        ..Default::default()
    };
    let remote = RemoteIndexes::new(settings, cache, purpose);
    let fetched = remote.refresh(&declared.repositories, &loaded, &mut loader, sink);
    let paths = declared.repositories.iter().filter_map(|repository| {
        let path = repository.index_path();
        path.or_else(|| remote.copy_path(repository))
    });
    loader.prepare(&paths.collect::<Vec<_>>());
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
    let path = |repository: &Repository| {
        let path = repository.index_path();
        path.or_else(|| remote.copy_path(repository))
    };
    loaded.join(&mut loader, path, sink);
    loaded.catalogue = loader.into_catalogue();
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

    /// Gives a root without a copy the one that another root of the user left; a question changes
    /// no root.
    fn seed(&self, repository: &Repository, loaded: &LoadedRepositories) {
        if self.purpose != Purpose::Write || self.settings.force_refresh {
            return;
        }
        if let (Some(copy), Some(store)) = (
            self.copy_path(repository).filter(|copy| !copy.exists()),
            loaded.store(self.settings),
        ) {
            seed(&copy, &store.index_path(&repository.index_url));
        }
    }

    /// Drops copies of an index that are damaged, if a whole one can be had.
    fn drop_damaged(
        &self,
        repository: &Repository,
        loaded: &LoadedRepositories,
        loader: &mut IndexLoader<'_>,
    ) {
        let Some(copy) = self.copy_path(repository) else {
            return;
        };
        if !self.settings.network || self.purpose == Purpose::Read || !loader.is_damaged(&copy) {
            return;
        }
        drop_copy(&copy);
        let Some(store) = loaded.store(self.settings) else {
            return;
        };
        let shared = store.index_path(&repository.index_url);
        match loader.is_damaged(&shared) {
            true => drop_copy(&shared),
            false => self.seed(repository, loaded),
        }
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

    /// Fetches the indexes that are due, at the same time; each is verified before it replaces the
    /// copy.
    fn refresh(
        &self,
        repositories: &[Repository],
        loaded: &LoadedRepositories,
        loader: &mut IndexLoader<'_>,
        sink: &mut dyn Sink,
    ) -> Vec<Refresh> {
        let due: Vec<bool> = repositories
            .iter()
            .map(|repository| {
                repository.index_path().is_none() && {
                    self.seed(repository, loaded);
                    self.drop_damaged(repository, loaded, loader);
                    self.is_due(repository)
                }
            })
            .collect();
        if !due.contains(&true) {
            return repositories.iter().map(|_| Refresh::None).collect();
        }
        let open = repositories.iter().zip(&due).filter(|(_, due)| **due);
        let open: Vec<&Repository> = open.map(|(repository, _)| repository).collect();
        for repository in &open {
            let shown = masked(&repository.index_url);
            sink.event(Event::Note(&format!("fetch {shown}")));
        }
        let requests = open.iter().map(|repository| IndexRequest {
            urls: loaded.mirrors.addresses(&repository.index_url),
            copy: self.copy_path(repository),
            shared: loaded
                .store(self.settings)
                .map(|store| store.index_path(&repository.index_url)),
        });
        let requests: Vec<IndexRequest> = requests.collect();
        let mut fetched = self.fetch(&requests, loaded, loader, sink).into_iter();
        due.iter()
            .map(|due| match due.then(|| fetched.next()).flatten() {
                None => Refresh::None,
                Some(refresh) => refresh,
            })
            .collect()
    }

    fn fetch(
        &self,
        requests: &[IndexRequest],
        loaded: &LoadedRepositories,
        loader: &mut IndexLoader<'_>,
        sink: &mut dyn Sink,
    ) -> Vec<Refresh> {
        let session = match loaded.session(self.settings) {
            Ok(session) => session,
            Err(error) => {
                let failed = || Refresh::Failed(error.to_string());
                return requests.iter().map(|_| failed()).collect();
            }
        };
        let names = requests.iter().map(|request| {
            let declared = request.urls.first().map_or("", String::as_str);
            loaded.mirrors.name(declared)
        });
        let names: Vec<String> = names.collect();
        let mut kept: Vec<Option<Vec<u8>>> = vec![None; requests.len()];
        let mut take = |number: usize, bytes: &[u8]| -> Result<(), String> {
            let index = loader.load_bytes(bytes);
            // Whichever mirror answered, the repository is one: no mirror may lag behind another.
            index
                .and_then(|index| loader.accept(&names[number], &index))
                .map_err(|error| error.to_string())?;
            match &requests[number].copy {
                None => kept[number] = Some(bytes.to_vec()),
                Some(copy) => crate::fetch::cache::store(copy, bytes)
                    .map_err(|error| crate::root::cause(&error))?,
            }
            Ok(())
        };
        let force = self.settings.force_refresh;
        let limit = self.settings.limits.index_file;
        let answers = fetch_indexes(session, requests, force, limit, &mut take);
        let mut refreshed = Vec::new();
        for ((answer, request), kept) in answers.into_iter().zip(requests).zip(kept) {
            tell(&answer, &request.urls, sink);
            refreshed.push(match (answer.result, kept) {
                (Err(error), _) => Refresh::Failed(error.to_string()),
                (Ok(_), Some(bytes)) => Refresh::Bytes(bytes),
                (Ok(_), None) => Refresh::Done,
            });
        }
        refreshed
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
                let url = without_credentials(&repository.index_url);
                loaded.failed.push((url, why.clone()));
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

/// Tells what servers said besides giving an index: that it moved, and which mirrors failed.
fn tell(answer: &IndexAnswer, urls: &[String], sink: &mut dyn Sink) {
    if let Some(moved) = &answer.moved {
        sink.warning(&format!("Permanently redirected to {moved}"));
    }
    let good = answer.result.as_ref().ok().map(|given| given.number);
    let mut told = Vec::new();
    for (number, error) in answer.failures.iter().rev() {
        // The first address is told of by the caller if none was any good.
        let other = good.map_or(*number != 0, |good| good != *number);
        if !other || told.contains(number) {
            continue;
        }
        told.push(*number);
        let shown = without_credentials(&urls[*number]);
        sink.warning(&match good {
            Some(good) => {
                let instead = without_credentials(&urls[good]);
                format!("updating {shown}: {error}; used {instead} instead")
            }
            None => format!("updating {shown}: {error}"),
        });
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
