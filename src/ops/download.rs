//! From packages to local files: cached, given, in a local repository, or downloaded.

use super::Error;
use super::refresh::LoadedRepositories;
use crate::config::{CacheDirectory, Settings};
use crate::fetch::cache::{Key, Store};
use crate::fetch::http::Remedy;
use crate::fetch::package::{Fetched, FileRequest, fetch_files};
use crate::fetch::{HttpError, Session};
use crate::package::{Identity, Package};
use crate::plan::{Plan, Source};
use crate::progress::{Event, Sink, Stage};
use crate::solver::{PackageId, Universe};
use crate::transaction::TransactionError;
use std::collections::HashMap;
use std::path::{Path, PathBuf};

/// Where package files can be.
pub struct PackageFiles<'a> {
    /// Options.
    pub settings: &'a Settings,
    /// Repositories, numbered as the solver numbers them.
    pub repositories: &'a LoadedRepositories,
    /// The package cache, if it is active.
    pub cache: Option<&'a CacheDirectory>,
    /// Files given on the command line.
    pub files: &'a HashMap<Identity, PathBuf>,
}

/// Returns the name of a package file in apk's cache directory (formats.md, 1.4).
pub fn cached_package_name(package: &Package) -> String {
    let hash = package.identity.hex();
    format!("{}-{}.{}.apk", package.name, package.version, &hash[..8])
}

impl PackageFiles<'_> {
    /// Returns where the file of a package is (commit.md, 4): cached, given, in a local
    /// repository, else in the repository with the lowest number.
    pub fn source(&self, universe: &Universe<'_>, id: PackageId) -> Source {
        let package = universe.package(id);
        if let Some(path) = self.cached(&package) {
            return Source::File(path);
        }
        match self.origin(universe, id) {
            Source::Remote(url) => self
                .stored(&package)
                .map_or(Source::Remote(url), Source::File),
            Source::Unavailable => {
                let unpacked = || self.unpacked(&package).map(Source::Unpacked);
                let stored = self.stored(&package).map(Source::File);
                stored.or_else(unpacked).unwrap_or(Source::Unavailable)
            }
            here => here,
        }
    }

    /// Returns where the file of a package comes from, caches aside: given, in a local repository,
    /// else in the repository with the lowest number.
    pub fn origin(&self, universe: &Universe<'_>, id: PackageId) -> Source {
        let package = universe.package(id);
        if let Some(path) = self.files.get(&package.identity) {
            return Source::File(path.clone());
        }
        let numbers: Vec<usize> = universe.repositories_of(id).collect();
        let all = &self.repositories.repositories;
        let of = |number: usize| all.get(number).filter(|loaded| loaded.reachable);
        let arch = package.arch.as_deref().unwrap_or_default();
        let url = |number: usize| {
            let package_of = (&*package.name, &*package.version, arch);
            Some(of(number)?.package_url(package_of, package.identity))
        };
        let local = numbers
            .iter()
            .find(|number| of(**number).is_some_and(|loaded| loaded.local));
        if let Some(path) = local.and_then(|number| url(*number)) {
            let path = crate::config::repositories::local_path(&path);
            return path.map_or(Source::Unavailable, Source::File);
        }
        let remote = numbers.iter().find_map(|number| url(*number));
        remote.map_or(Source::Unavailable, Source::Remote)
    }

    /// Returns the store, unless packages are not to be kept.
    fn store(&self) -> Option<&Store> {
        self.repositories.store(self.settings)
    }

    /// Returns the package file in the user's store.
    fn stored(&self, package: &Package) -> Option<PathBuf> {
        self.store()?.find_package(&Key::of(package), package.size)
    }

    fn unpacked(&self, package: &Package) -> Option<PathBuf> {
        self.store()?
            .find_unpacked(&Key::of(package), &self.settings.limits)
    }

    /// Returns where a package file is kept: in apk's cache directory if there is one, else in the
    /// user's store, else nowhere.
    fn target(&self, package: &Package) -> Option<PathBuf> {
        match self.cache {
            Some(cache) => Some(cache.path.join(cached_package_name(package))),
            None if self.settings.cache_packages == Some(false) => None,
            None => Some(self.store()?.package_path(&Key::of(package))),
        }
    }

    /// Returns whether a path is in a cache, so that the file may be removed if it is damaged.
    fn is_kept(&self, path: &Path) -> bool {
        let cache = self
            .cache
            .is_some_and(|cache| path.starts_with(&cache.path));
        cache
            || self
                .store()
                .is_some_and(|store| path.starts_with(store.directory()))
    }

    /// Returns every address of a package: on the mirrors of the repository it was found in, then
    /// in the other repositories that list the same package.
    fn addresses(&self, url: &str, package: &Package) -> Vec<String> {
        let mut urls = self.repositories.mirrors.addresses(url);
        for url in self.all_addresses(package) {
            if !urls.contains(&url) {
                urls.push(url);
            }
        }
        urls
    }

    /// Returns the addresses of a package in every repository that lists it.
    fn all_addresses(&self, package: &Package) -> Vec<String> {
        let mut urls = Vec::new();
        let arch = package.arch.as_deref().unwrap_or_default();
        let others = self.repositories.repositories.iter().filter(|loaded| {
            let index = loaded.index.as_ref();
            let listed = |index: &crate::fetch::LoadedIndex| {
                index.table().find_identity(package.identity).is_some()
            };
            loaded.reachable && !loaded.local && index.is_some_and(listed)
        });
        for other in others {
            let package_of = (&*package.name, &*package.version, arch);
            let url = other.package_url(package_of, package.identity);
            for url in self.repositories.mirrors.addresses(&url) {
                if !urls.contains(&url) {
                    urls.push(url);
                }
            }
        }
        urls
    }

    fn cached(&self, package: &Package) -> Option<PathBuf> {
        let path = self.cache?.path.join(cached_package_name(package));
        let meta = std::fs::metadata(&path).ok()?;
        (meta.len() == package.size).then_some(path)
    }

    /// Returns whether the package belongs into a cache directory that does not have it, although
    /// it may be in the user's store: who has such a directory counts on what is in it.
    pub fn is_to_be_cached(&self, package: &Package) -> bool {
        self.cache.is_some() && self.cached(package).is_none()
    }
}

/// What was made ready for a plan; temporary files go when this is dropped.
#[derive(Debug, Default)]
pub struct Downloads {
    temporary: Option<Store>,
    cached: HashMap<Identity, PathBuf>,
}

impl Downloads {
    /// Removes files from the caches that turned out not to be what they should be, so that the
    /// next attempt fetches them again (commit.md, W22). Returns whether there was one.
    pub fn drop_damaged(&self, error: &TransactionError) -> bool {
        let TransactionError::Refused { damaged, .. } = error else {
            return false;
        };
        let mut dropped = false;
        let found = damaged
            .iter()
            .filter_map(|identity| self.cached.get(identity));
        for path in found {
            // It stays what it was if it cannot be removed; then it is refused again.
            dropped |= std::fs::remove_file(path).is_ok() || !path.exists();
        }
        dropped
    }
}

/// What is wanted of package files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Want {
    /// Their contents, to be installed now.
    Contents,
    /// The files, in the cache.
    Files,
}

/// Makes the packages of a plan ready to be installed: what is not on this machine is fetched,
/// what is in a cache is taken from there, and both are unpacked into the store.
///
/// # Errors
/// [`Error::Transaction`] or [`Error::Outdated`] naming every package that cannot be had; nothing
/// was changed.
pub fn fetch_missing(
    plan: Plan,
    packages: &PackageFiles<'_>,
    sink: &mut dyn Sink,
) -> Result<(Plan, Downloads), Error> {
    make_ready(plan, packages, Want::Contents, sink)
}

/// The same for what is wanted of the packages.
///
/// # Errors
/// [`Error::Transaction`] or [`Error::Outdated`] naming every package that cannot be had.
pub fn make_ready(
    mut plan: Plan,
    packages: &PackageFiles<'_>,
    want: Want,
    sink: &mut dyn Sink,
) -> Result<(Plan, Downloads), Error> {
    let mut downloads = Downloads::default();
    let mut wanted: Vec<Wanted> = Vec::new();
    for (index, change) in plan.changes.iter_mut().enumerate() {
        let Some(new) = &mut change.new else { continue };
        let (urls, on_disk) = match &new.source {
            Source::Remote(url) => (packages.addresses(url, &new.package), None),
            Source::File(path) if packages.is_kept(path) => {
                (packages.all_addresses(&new.package), Some(path.clone()))
            }
            _ => continue,
        };
        let mut on_disk = on_disk;
        let mut unpack = want == Want::Contents;
        if unpack && let Some(path) = packages.unpacked(&new.package) {
            downloads.cached.insert(new.package.identity, path.clone());
            new.source = Source::Unpacked(path);
            if !packages.is_to_be_cached(&new.package) {
                continue;
            }
            on_disk = on_disk.or_else(|| packages.stored(&new.package));
            unpack = false;
        }
        wanted.push(Wanted {
            index,
            package: new.package.clone(),
            urls,
            on_disk,
            unpack,
        });
    }
    if wanted.is_empty() {
        return Ok((plan, downloads));
    }
    let store = match packages.store() {
        Some(store) => store,
        None => {
            let made = Store::temporary().map_err(|error| {
                let cause = crate::root::cause(&error);
                refused(vec![format!("cannot make a temporary directory: {cause}")])
            })?;
            downloads.temporary.insert(made)
        }
    };
    let requests: Vec<FileRequest> = wanted
        .iter()
        .map(|wanted| FileRequest {
            urls: wanted.urls.clone(),
            target: packages.target(&wanted.package),
            size: wanted.package.size,
            package: Some(Key::of(&wanted.package)),
            unpack: wanted.unpack,
            on_disk: wanted.on_disk.clone(),
        })
        .collect();
    let session = packages.repositories.session(packages.settings);
    let session = session.map_err(|error| refused(vec![error.to_string()]))?;
    let mut answers = fetch(session, Some(store), &requests, sink).results;
    // Somebody may have deleted the cache while the last ones came.
    for _ in 0..LOST {
        let is_there = |request: &FileRequest| match (&request.package, &request.target) {
            (Some(key), _) if request.unpack => store.unpacked_path(key).exists(),
            (_, target) => target.as_ref().is_none_or(|target| target.exists()),
        };
        let all = answers.iter().zip(&requests).enumerate();
        let lost = all.filter(|(_, (answer, request))| answer.is_ok() && !is_there(request));
        let lost: Vec<usize> = lost.map(|(at, _)| at).collect();
        if lost.is_empty() {
            break;
        }
        let again: Vec<FileRequest> = lost.iter().map(|at| requests[*at].clone()).collect();
        let given = fetch(session, Some(store), &again, sink).results;
        for (at, answer) in lost.into_iter().zip(given) {
            answers[at] = answer;
        }
    }
    let mut failures = Vec::new();
    let mut outdated = false;
    for ((wanted, request), answer) in wanted.iter().zip(&requests).zip(answers) {
        let package = &wanted.package;
        let new = plan.changes[wanted.index].new.as_mut();
        let new = new.expect("it was wanted for a package");
        match (answer, want) {
            (answer, Want::Contents) if !wanted.unpack => {
                // It can be installed all the same.
                if let Err(error) = answer {
                    let (name, why) = (package.full_name(), describe(&error));
                    sink.warning(&format!("{name}: not put into the cache directory: {why}"));
                }
            }
            (Ok(()), Want::Contents) => {
                let path = store.unpacked_path(&Key::of(package));
                new.source = Source::Unpacked(path.clone());
                downloads.cached.insert(package.identity, path);
            }
            (Ok(()), Want::Files) => {
                if let Some(path) = &request.target {
                    new.source = Source::File(path.clone());
                }
            }
            (Err(error), _) => {
                outdated |= error.is_missing() || error.remedy() == Remedy::Afresh;
                failures.push(format!("{}: {}", package.full_name(), describe(&error)));
            }
        }
    }
    store.look_after(packages.settings.store_limit);
    match (failures.is_empty(), outdated) {
        (true, _) => Ok((plan, downloads)),
        (false, true) => Err(Error::Outdated { lines: failures }),
        (false, false) => Err(refused(failures)),
    }
}

/// How often packages are fetched again that were lost with the cache.
const LOST: usize = 3;

/// A package that has to be made ready.
struct Wanted {
    /// Its place in the plan.
    index: usize,
    package: Package,
    urls: Vec<String>,
    on_disk: Option<PathBuf>,
    /// Its contents are wanted, too.
    unpack: bool,
}

/// Fetches files, and tells how it goes and which mirrors failed.
pub(super) fn fetch(
    session: &Session,
    store: Option<&Store>,
    requests: &[FileRequest],
    sink: &mut dyn Sink,
) -> Fetched {
    for request in requests.iter().filter(|request| request.on_disk.is_none()) {
        let shown = request.urls.first().map_or("", String::as_str);
        let shown = crate::config::repositories::masked(shown);
        sink.event(Event::Note(&format!("fetch {shown}")));
    }
    let total = requests.iter().map(|request| request.size).sum();
    let mut done = 0;
    let mut progress = |count: u64| {
        done += count;
        sink.event(Event::Progress {
            done,
            total,
            stage: Stage::Download,
        });
    };
    let fetched = fetch_files(session, store, requests, &mut progress);
    for (trouble, count) in &fetched.troubles {
        let files = if *count == 1 { "file" } else { "files" };
        let (mirror, cause) = (&trouble.mirror, &trouble.cause);
        sink.warning(&match &trouble.instead {
            Some(other) => format!("{mirror}: {cause}; {count} {files} came from {other} instead"),
            None => format!("{mirror}: {cause}; {count} {files} could not be had"),
        });
    }
    for path in &fetched.damaged {
        sink.warning(&format!(
            "{}: damaged, removed from the cache",
            path.display()
        ));
    }
    fetched
}

pub(super) fn describe(error: &HttpError) -> String {
    match error.is_missing() {
        true => "package mentioned in index not found (try 'apk update')".to_owned(),
        false => error.to_string(),
    }
}

fn refused(lines: Vec<String>) -> Error {
    let packages = lines.len() as u32;
    Error::Transaction(TransactionError::Refused {
        lines,
        packages,
        damaged: Vec::new(),
    })
}

/// A package file on this machine; a downloaded one goes when this is dropped.
pub(super) struct LocalFile {
    path: PathBuf,
    _directory: Option<tempfile::TempDir>,
}

impl LocalFile {
    pub(super) fn path(&self) -> &std::path::Path {
        &self.path
    }
}

/// Returns the file that a path or an address means; what is remote is downloaded.
///
/// # Errors
/// The cause in apk's words.
pub(super) fn to_local_file(settings: &Settings, location: &str) -> Result<LocalFile, String> {
    if let Some(path) = crate::config::repositories::local_path(location) {
        return Ok(LocalFile {
            path,
            _directory: None,
        });
    }
    if !settings.network {
        return Err("Network is unreachable".to_owned());
    }
    let directory = tempfile::Builder::new().prefix("ibex-").tempdir();
    let directory = directory.map_err(|error| crate::root::cause(&error))?;
    let path = directory.path().join("package.apk");
    let request = FileRequest {
        urls: vec![location.to_owned()],
        target: Some(path.clone()),
        size: 0,
        package: None,
        unpack: false,
        on_disk: None,
    };
    let session = Session::new(settings).map_err(|error| error.to_string())?;
    let fetched = fetch_files(&session, None, &[request], &mut |_| {});
    let results: Result<Vec<()>, HttpError> = fetched.results.into_iter().collect();
    results.map_err(|error| describe(&error))?;
    Ok(LocalFile {
        path,
        _directory: Some(directory),
    })
}
