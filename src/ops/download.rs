//! From packages to local files: cached, given, in a local repository, or downloaded.

use super::Error;
use super::refresh::LoadedRepositories;
use crate::config::{CacheDirectory, Settings};
use crate::fetch::package::{Fetched, FileRequest, fetch_files};
use crate::fetch::{HttpError, Session};
use crate::package::{Identity, Package};
use crate::plan::{Plan, Source};
use crate::progress::{Event, Sink, Stage};
use crate::solver::{PackageId, Universe};
use crate::transaction::TransactionError;
use std::collections::HashMap;
use std::path::PathBuf;

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
        if let Some(path) = self.files.get(&package.identity) {
            return Source::File(path.clone());
        }
        let numbers: Vec<usize> = universe.repositories_of(id).collect();
        let all = &self.repositories.repositories;
        let of = |number: usize| all.get(number).filter(|loaded| loaded.reachable);
        let arch = package.arch.as_deref().unwrap_or_default();
        let url = |number: usize| {
            let repository = &of(number)?.repository;
            Some(repository.package_url(arch, &package.name, &package.version))
        };
        let local = numbers
            .iter()
            .find(|number| of(**number).is_some_and(|loaded| loaded.local));
        if let Some(path) = local.and_then(|number| url(*number)) {
            let path = crate::config::repositories::local_path(&path);
            return path.map_or(Source::Unavailable, Source::File);
        }
        match numbers.iter().find_map(|number| url(*number)) {
            Some(url) => Source::Remote(url),
            None => Source::Unavailable,
        }
    }

    /// Returns every address of a package: on the mirrors of the repository it was found in, then
    /// in the other repositories that list the same package.
    fn addresses(&self, url: &str, package: &Package) -> Vec<String> {
        let mut urls = self.repositories.mirrors.addresses(url);
        let arch = package.arch.as_deref().unwrap_or_default();
        let others = self.repositories.repositories.iter().filter(|loaded| {
            let index = loaded.index.as_ref();
            let listed = |index: &crate::fetch::LoadedIndex| {
                index.table.find_identity(package.identity).is_some()
            };
            loaded.reachable && !loaded.local && index.is_some_and(listed)
        });
        for other in others {
            let url = other
                .repository
                .package_url(arch, &package.name, &package.version);
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
}

/// The files that were fetched for a plan; temporary ones go when this is dropped.
#[derive(Debug, Default)]
pub struct Downloads {
    directory: Option<tempfile::TempDir>,
    cached: HashMap<Identity, PathBuf>,
}

impl Downloads {
    /// Removes files from the cache that turned out not to be what they should be, so that the
    /// next attempt fetches them again (commit.md, W22).
    pub fn drop_damaged(&self, error: &TransactionError) {
        if let TransactionError::Refused { damaged, .. } = error {
            for path in damaged
                .iter()
                .filter_map(|identity| self.cached.get(identity))
            {
                // It stays what it was if it cannot be removed; then it is refused again.
                let _ = std::fs::remove_file(path);
            }
        }
    }
}

/// Fetches what a plan needs from remote repositories, and puts local paths in their place.
///
/// # Errors
/// [`Error::Transaction`] naming every package that cannot be had; nothing was changed.
pub fn fetch_missing(
    mut plan: Plan,
    packages: &PackageFiles<'_>,
    sink: &mut dyn Sink,
) -> Result<(Plan, Downloads), Error> {
    let mut downloads = Downloads::default();
    if let Some(cache) = packages.cache {
        let used = plan.changes.iter().filter_map(|change| change.new.as_ref());
        let used = used.filter_map(|new| match &new.source {
            Source::File(path) if path.starts_with(&cache.path) => {
                Some((new.package.identity, path.clone()))
            }
            _ => None,
        });
        downloads.cached = used.collect();
    }
    let mut wanted = Vec::new();
    for (index, change) in plan.changes.iter().enumerate() {
        let Some(new) = &change.new else { continue };
        if let Source::Remote(url) = &new.source {
            wanted.push((index, url.clone(), new.package.clone()));
        }
    }
    if wanted.is_empty() {
        return Ok((plan, downloads));
    }
    let folder = match packages.cache {
        Some(cache) => cache.path.clone(),
        None => {
            let made = tempfile::Builder::new().prefix("ibex-").tempdir();
            let made = made.map_err(|error| {
                refused(vec![format!(
                    "cannot make a temporary directory: {}",
                    crate::root::cause(&error)
                )])
            })?;
            downloads.directory.insert(made).path().to_owned()
        }
    };
    let requests: Vec<FileRequest> = wanted
        .iter()
        .map(|(_, url, package)| FileRequest {
            urls: packages.addresses(url, package),
            target: folder.join(cached_package_name(package)),
            size: package.size,
            identity: Some(package.identity),
        })
        .collect();
    let session = packages.repositories.session(packages.settings);
    let session = session.map_err(|error| refused(vec![error.to_string()]))?;
    let answers = fetch(session, &requests, sink).results;
    let mut failures = Vec::new();
    for (((index, _, package), request), answer) in wanted.iter().zip(&requests).zip(answers) {
        match answer {
            Ok(()) => {
                let new = plan.changes[*index]
                    .new
                    .as_mut()
                    .expect("it was wanted for a package");
                new.source = Source::File(request.target.clone());
                if packages.cache.is_some() {
                    downloads
                        .cached
                        .insert(package.identity, request.target.clone());
                }
            }
            Err(error) => failures.push(format!("{}: {}", package.full_name(), describe(&error))),
        }
    }
    if failures.is_empty() {
        Ok((plan, downloads))
    } else {
        Err(refused(failures))
    }
}

/// Fetches files, and tells how it goes and which mirrors failed.
pub(super) fn fetch(session: &Session, requests: &[FileRequest], sink: &mut dyn Sink) -> Fetched {
    for request in requests {
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
    let fetched = fetch_files(session, requests, &mut progress);
    for (trouble, count) in &fetched.troubles {
        let files = if *count == 1 { "file" } else { "files" };
        let (mirror, cause) = (&trouble.mirror, &trouble.cause);
        sink.warning(&match &trouble.instead {
            Some(other) => format!("{mirror}: {cause}; {count} {files} came from {other} instead"),
            None => format!("{mirror}: {cause}; {count} {files} could not be had"),
        });
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
        target: path.clone(),
        size: 0,
        identity: None,
    };
    let session = Session::new(settings).map_err(|error| error.to_string())?;
    let fetched = fetch_files(&session, &[request], &mut |_| {});
    let results: Result<Vec<()>, HttpError> = fetched.results.into_iter().collect();
    results.map_err(|error| describe(&error))?;
    Ok(LocalFile {
        path,
        _directory: Some(directory),
    })
}
