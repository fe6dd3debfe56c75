//! From a description to the packages of each architecture: indexes, world, solution (image.md, 4).

use super::keys::CopyError;
use super::{Error, Workshop, alpine_keys, disk, parts};
use crate::config::image::{Architecture, ConfigError, Warning, without_credentials};
use crate::config::repositories::is_local;
use crate::config::{CacheDirectory, RepositorySources, Settings};
use crate::fetch::Depth;
use crate::fetch::cache::Key;
use crate::fetch::index::Rules;
use crate::fetch::package::{FileRequest, fetch_files};
use crate::fetch::{HttpError, IndexError, IndexLoader, Session};
use crate::image::ChosenId;
use crate::ops::change::solver_sources;
use crate::ops::download::PackageFiles;
use crate::ops::refresh::{self, LoadedRepositories, LoadedRepository, Purpose};
use crate::package::{Package, PackageTable, World};
use crate::plan::Source;
use crate::plan::lockfile::LockedIndex;
use crate::progress::{Collect, Event, Level, Silent, Sink};
use crate::root::{Root, RootError};
use crate::solver::{self, Hint, InstalledInput, Request, Universe};
use crate::trust::{Keyring, SignatureAlgorithm, TrustError};
use data_encoding::HEXLOWER;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::PathBuf;
use std::sync::Arc;

/// A package that was chosen.
#[derive(Clone, Debug)]
pub struct Chosen {
    /// What the index says.
    pub package: Package,
    /// The tag it was asked for with.
    pub tag: Option<String>,
    /// Its address as the description gives the repository, without credentials.
    pub url: String,
    /// Its repository, without credentials.
    pub repository: String,
    /// Where its file is.
    pub source: Source,
    /// An index of the v3 form lists it first.
    pub v3: bool,
}

/// What one architecture gets.
#[derive(Clone, Debug)]
pub struct Resolution {
    /// Which.
    pub architecture: Architecture,
    /// The packages in the order of installation.
    pub packages: Vec<Chosen>,
    /// What was asked for.
    pub world: World,
    /// The indexes that were read.
    pub indexes: Vec<LockedIndex>,
    /// The image that this one is built on; its packages are not among the others.
    pub base: Option<crate::image::BaseImage>,
    /// Numbers of accounts that a lock file has.
    pub ids: Vec<ChosenId>,
}

/// A trusted key of the build.
#[derive(Clone, Debug)]
pub(super) struct BuildKey {
    /// The entry of the description.
    pub(super) entry: String,
    /// Its file name.
    pub(super) name: String,
    /// The key.
    pub(super) pem: Vec<u8>,
}

impl Workshop<'_> {
    /// Chooses the packages of every architecture.
    ///
    /// # Errors
    /// [`enum@Error`].
    pub fn resolve(&mut self, sink: &mut dyn Sink) -> Result<Vec<Resolution>, Error> {
        self.resolve_world(&self.world()?, sink)
    }

    /// Returns what is asked for.
    ///
    /// # Errors
    /// [`Error::Config`].
    pub fn world(&self) -> Result<World, Error> {
        Ok(self.loaded.config.world(&self.options.packages)?)
    }

    /// Chooses the packages that answer another world.
    pub(super) fn resolve_world(
        &mut self,
        world: &World,
        sink: &mut dyn Sink,
    ) -> Result<Vec<Resolution>, Error> {
        let architectures = self.architectures()?;
        self.read_bases(&architectures)?;
        let keyring = self.keyring()?;
        self.read_ahead(&architectures, &keyring);
        let mut loaded = Vec::new();
        for architecture in &architectures {
            let mut indexes = self.indexes(architecture, &keyring, sink)?;
            self.hold(architecture, &mut indexes);
            loaded.push(indexes);
        }
        let solve = |loaded: &[LoadedRepositories]| -> Result<Vec<Resolution>, Error> {
            let pairs = architectures.iter().zip(loaded);
            let solved =
                pairs.map(|(architecture, loaded)| self.solve(architecture, world, loaded));
            solved.collect()
        };
        let first = solve(&loaded)?;
        let differing = differing(&first);
        if differing.is_empty() {
            return Ok(first);
        }
        if self.options.per_architecture {
            for name in differing {
                let versions = versions_line(&name, &first);
                let text = format!("{name} differs per architecture: {versions}");
                self.warnings.push(Warning::new("W-ARCH-DIFF", text));
            }
            return Ok(first);
        }
        let named: Vec<String> = world
            .entries
            .iter()
            .map(|entry| entry.name.clone())
            .collect();
        let stop = |found: &[Resolution], names: Vec<String>| Error::ArchitectureVersion {
            table: names
                .iter()
                .map(|name| format!("{name}: {}", versions_line(name, found)))
                .collect(),
            names,
        };
        keep_common(&mut loaded);
        let Ok(second) = solve(&loaded) else {
            let mut names: Vec<String> = differing.into_iter().collect();
            if names.iter().any(|name| named.contains(name)) {
                names.retain(|name| named.contains(name));
            }
            return Err(stop(&first, names));
        };
        let mut still: Vec<String> = super::resolve::differing(&second).into_iter().collect();
        still.retain(|name| named.contains(name));
        match still.is_empty() {
            true => Ok(second),
            false => Err(stop(&second, still)),
        }
    }

    /// Returns the repositories to build from: the sorted union (IMG-030).
    pub(super) fn build_repositories(&self) -> Vec<String> {
        let contents = &self.loaded.config.contents;
        let all = contents
            .build_repositories
            .iter()
            .chain(&contents.repositories);
        let all = all
            .chain(&self.options.build_repositories)
            .chain(&self.options.repositories);
        let all = all.map(|line| line.trim().trim_end_matches('/').to_owned());
        all.collect::<BTreeSet<_>>().into_iter().collect()
    }

    /// Returns the repositories that the image names, without credentials.
    pub(super) fn image_repositories(&self) -> Vec<String> {
        let contents = &self.loaded.config.contents;
        let all = contents
            .repositories
            .iter()
            .chain(&contents.runtime_repositories);
        let all = all.chain(&self.options.repositories);
        let all = all.map(|line| without_credentials(line.trim().trim_end_matches('/')));
        all.collect::<BTreeSet<_>>().into_iter().collect()
    }

    /// Reads the keys of the description and of `-k`.
    pub(super) fn build_keys(&self) -> Result<Vec<BuildKey>, Error> {
        let contents = &self.loaded.config.contents;
        let entries = contents.keyring.iter().chain(&self.options.keyring);
        let mut keys: Vec<BuildKey> = Vec::new();
        for entry in entries {
            if keys.iter().any(|key| key.entry == *entry) {
                continue;
            }
            let name = entry.rsplit('/').next().unwrap_or_default();
            let wrong = |message: String| Error::Keyring { message };
            if name.is_empty() || name.starts_with('.') {
                return Err(wrong(format!(
                    "\"{}\" has no file name",
                    without_credentials(entry)
                )));
            }
            let pem = match is_local(entry) {
                true => {
                    let path = self
                        .options
                        .work_dir
                        .join(entry.trim_start_matches("file://"));
                    std::fs::read(&path).map_err(|error| {
                        wrong(format!(
                            "cannot read \"{entry}\": {}",
                            crate::root::cause(&error)
                        ))
                    })?
                }
                false => self.remote_key(entry)?,
            };
            keys.push(BuildKey {
                entry: entry.clone(),
                name: name.to_owned(),
                pem,
            });
        }
        for found in self.discovered.borrow().iter() {
            if !keys.iter().any(|key| key.name == found.name) {
                keys.push(found.clone());
            }
        }
        Ok(keys)
    }

    /// Fetches a key, or takes the copy in the cache.
    fn remote_key(&self, url: &str) -> Result<Vec<u8>, Error> {
        let failed = |error: &HttpError| {
            self.fetch_error(url, &without_credentials(url), &error.to_string())
        };
        let (copy, answer) = self.renew_copy(url).map_err(|error| match error {
            CopyError::Disk(folder, error) => disk("create", &folder, &error),
            CopyError::Fetch(error) => failed(&error),
        })?;
        if let Some(error) = answer
            && !copy.exists()
        {
            return Err(failed(&error));
        }
        std::fs::read(&copy).map_err(|_| self.offline_miss(vec![without_credentials(url)]))
    }

    /// Returns an empty keyring that accepts the signatures that are wanted.
    fn new_keyring(&self) -> Keyring {
        let mut keyring = Keyring::new();
        keyring.accept_sha1(!self.options.require_sha256);
        keyring
    }

    pub(super) fn keyring(&self) -> Result<Keyring, Error> {
        let mut keyring = self.new_keyring();
        for key in self.build_keys()? {
            let added = keyring.add(&key.name, &key.pem);
            added.map_err(|error| Error::Keyring {
                message: error.to_string(),
            })?;
        }
        Ok(keyring)
    }

    pub(super) fn settings(&self) -> &Settings {
        &self.options.settings
    }

    pub(super) fn offline_miss(&self, files: Vec<String>) -> Error {
        Error::OfflineMiss {
            files,
            config: self.config_name(),
        }
    }

    /// Returns where an address may be fetched from, best first: its mirrors, then itself.
    pub(super) fn mirrored(&self, url: &str) -> Vec<String> {
        let flags = self.options.mirrors.iter();
        let mut pairs: Vec<(&str, &str)> = flags.map(|(from, to)| (&**from, &**to)).collect();
        for (from, to) in &self.loaded.config.x_build.mirrors {
            pairs.extend(to.iter().map(|to| (&**from, &**to)));
        }
        let mut found = Vec::new();
        for (from, to) in pairs {
            let rest = url.strip_prefix(from.trim_end_matches('/'));
            if let Some(rest) = rest.filter(|rest| rest.is_empty() || rest.starts_with('/')) {
                found.push(format!("{}{rest}", to.trim_end_matches('/')));
            }
        }
        found.push(url.to_owned());
        found
    }

    /// Turns what went wrong with a download into an error.
    pub(super) fn fetch_error(&self, url: &str, shown: &str, cause: &str) -> Error {
        if let Some(status) = ["401", "403"]
            .into_iter()
            .find(|s| cause.contains(&format!("HTTP {s}")))
        {
            let host = match url.split_once("://") {
                Some((scheme, rest)) => {
                    let host = rest.split('/').next().unwrap_or_default();
                    format!("{scheme}://{}", host.rsplit('@').next().unwrap_or_default())
                }
                None => shown.to_owned(),
            };
            let in_url = without_credentials(url) != url;
            let name = host.rsplit('/').next().unwrap_or_default();
            let known = self.settings().transport.credentials_for(name);
            return Error::Access {
                credentials: match known {
                    _ if in_url => "the URL",
                    Some((_, source)) => source,
                    None => "none",
                },
                host,
                status: status.to_owned(),
            };
        }
        Error::of_limit(shown, cause).unwrap_or_else(|| Error::Fetch {
            file: shown.to_owned(),
            cause: cause.to_owned(),
        })
    }

    /// Loads the indexes of one architecture.
    pub(super) fn indexes(
        &self,
        architecture: &Architecture,
        keyring: &Keyring,
        sink: &mut dyn Sink,
    ) -> Result<LoadedRepositories, Error> {
        let declared = self.build_repositories();
        let mut all = LoadedRepositories::default();
        for line in &declared {
            let (tag, url) = tag_and_url(line);
            let mut failure = None;
            for place in self.places(url) {
                let tagged = tagged(tag, &place);
                let known = built_in(keyring, url, architecture);
                let extended = with_keys(keyring, &known);
                let mut answer = self.load_index(&tagged, architecture, &extended, sink);
                if let Ok(loaded) = &answer {
                    self.trust_signers(loaded, known, sink);
                }
                if let Err(Error::UnknownKey { .. }) = answer {
                    let found = self.discover(url, architecture, sink);
                    answer = self.with_more_keys(answer, found, &tagged, architecture, sink);
                }
                match answer {
                    Ok(mut loaded) => {
                        if let Some(tag) = tag.filter(|tag| !all.tag_order.iter().any(|t| t == tag))
                        {
                            all.tag_order.push(tag.to_owned());
                        }
                        all.repositories.append(&mut loaded.repositories);
                        failure = None;
                        break;
                    }
                    Err(error) => failure = Some(error),
                }
            }
            if let Some(error) = failure {
                return Err(error);
            }
        }
        Ok(all)
    }

    /// Loads an index again that is signed by a key nobody gave, with those that are built in or
    /// that its repository publishes; returns what was known before if that does not help.
    fn with_more_keys(
        &self,
        before: Result<LoadedRepositories, Error>,
        found: Vec<BuildKey>,
        tagged: &str,
        architecture: &Architecture,
        sink: &mut dyn Sink,
    ) -> Result<LoadedRepositories, Error> {
        let mut more = self.new_keyring();
        for key in &found {
            // What is no key is no help.
            let _ = more.add(&key.name, &key.pem);
        }
        if more.names().is_empty() {
            return before;
        }
        let loaded = match self.load_index(tagged, architecture, &more, sink) {
            Ok(loaded) => loaded,
            Err(error @ Error::WeakSignature { .. }) => return Err(error),
            Err(_) => return before,
        };
        self.trust_signers(&loaded, found, sink);
        Ok(loaded)
    }

    /// Makes those of some keys that signed an index keys of the build.
    fn trust_signers(&self, loaded: &LoadedRepositories, keys: Vec<BuildKey>, sink: &mut dyn Sink) {
        let signers = loaded
            .repositories
            .iter()
            .filter_map(|one| one.index.as_ref());
        let signers = signers.filter_map(|index| index.trusted_by.as_ref());
        let signers: BTreeSet<&str> = signers.map(|by| by.key_name.as_str()).collect();
        let mut discovered = self.discovered.borrow_mut();
        for key in keys {
            let new = !discovered.iter().any(|known| known.name == key.name);
            // Only who signed is trusted from now on, and gets into the image.
            if new && signers.contains(key.name.as_str()) {
                sink.event(Event::Note(&format!(
                    "trusting {} of {}",
                    key.name, key.entry
                )));
                discovered.push(key);
            }
        }
    }

    /// Returns where a repository may be read, best first.
    fn places(&self, url: &str) -> Vec<String> {
        let place = |candidate: String| match is_local(&candidate) {
            true => {
                let path = candidate.trim_start_matches("file://");
                self.options.work_dir.join(path).display().to_string()
            }
            false => candidate,
        };
        self.mirrored(url).into_iter().map(place).collect()
    }

    /// Reads the first place of every repository for every architecture, several at a time; what
    /// comes of it is left for [`Self::try_index`].
    fn read_ahead(&self, architectures: &[Architecture], keyring: &Keyring) {
        /// Each waits for a server most of the time.
        const AT_ONCE: usize = 8;
        let declared = self.build_repositories();
        let mut tasks: Vec<(&Architecture, String, Keyring)> = Vec::new();
        for architecture in architectures {
            for line in &declared {
                let (tag, url) = tag_and_url(line);
                let Some(place) = self.places(url).into_iter().next() else {
                    continue;
                };
                let known = built_in(keyring, url, architecture);
                let keyring = with_keys(keyring, &known);
                tasks.push((architecture, tagged(tag, &place), keyring));
            }
        }
        if tasks.len() < 2 {
            return;
        }
        let (settings, root, cache) = (self.settings(), &self.root, &self.cache);
        let read = |at: usize| {
            let (architecture, declared, keyring) = &tasks[at];
            read_index(declared, architecture, keyring, (settings, root, cache))
        };
        let found = parts::in_order(tasks.len(), AT_ONCE, read);
        let keys = (tasks.iter())
            .map(|(architecture, declared, _)| (architecture.apk.clone(), declared.clone()));
        *self.read_before.borrow_mut() = keys.zip(found).collect();
    }

    /// Leaves only the version that is held of each name that has one.
    fn hold(&self, architecture: &Architecture, loaded: &mut LoadedRepositories) {
        if self.held.is_empty() {
            return;
        }
        keep(loaded, |name, version| {
            let key = (architecture.apk.clone(), name.to_owned());
            self.held.get(&key).is_none_or(|held| held == version)
        });
    }

    /// Loads the index of a repository, and tells whose signature is over SHA-1 alone.
    fn load_index(
        &self,
        declared: &str,
        architecture: &Architecture,
        keyring: &Keyring,
        sink: &mut dyn Sink,
    ) -> Result<LoadedRepositories, Error> {
        let answer = self.try_index(declared, architecture, keyring, sink);
        if self.options.require_sha256
            && let Err(Error::UnknownKey { url, .. }) = &answer
        {
            let mut lenient = keyring.clone();
            lenient.accept_sha1(true);
            let weak = self.try_index(declared, architecture, &lenient, &mut Silent);
            if let Some((_, key)) = weak.ok().and_then(|weak| sha1_signers(&weak).next()) {
                return Err(Error::WeakSignature {
                    url: url.clone(),
                    key,
                });
            }
        }
        let loaded = answer?;
        for (url, key) in sha1_signers(&loaded) {
            let url = without_credentials(&self.as_declared(&url));
            let text = format!("index {url}: the signature of {key} is over SHA-1");
            sink.line(Level::Info, &text);
        }
        Ok(loaded)
    }

    fn try_index(
        &self,
        declared: &str,
        architecture: &Architecture,
        keyring: &Keyring,
        sink: &mut dyn Sink,
    ) -> Result<LoadedRepositories, Error> {
        let key = (architecture.apk.clone(), declared.to_owned());
        let before = self.read_before.borrow_mut().remove(&key);
        let place = (self.settings(), &self.root, &self.cache);
        let read = before.unwrap_or_else(|| read_index(declared, architecture, keyring, place));
        let (loaded, told) = read;
        let loaded = loaded.map_err(|error| disk("read", self.root.path(), &error.source))?;
        let Some(failed) = loaded.repositories.iter().find(|one| one.index.is_none()) else {
            for (level, line) in told.lines {
                sink.line(level, &line);
            }
            return Ok(loaded);
        };
        let error = self.index_error(failed, architecture, keyring, &told);
        // A repository may have an index of the v3 form only.
        let (tag, url) = tag_and_url(declared);
        let newer = format!(
            "{}/{}/{V3_INDEX}",
            failed.repository.base(),
            architecture.apk
        );
        if failed.repository.index_url.ends_with("/APKINDEX.tar.gz")
            && !url.ends_with(".tar.gz")
            && is_absent(failed, &told)
        {
            let newer = tagged(tag, &newer);
            return match self.try_index(&newer, architecture, keyring, sink) {
                // What is asked for first is what is told to be missing.
                Err(Error::Index { .. } | Error::Fetch { .. }) => Err(error),
                answer => answer,
            };
        }
        Err(error)
    }

    /// Says why an index is not there.
    fn index_error(
        &self,
        failed: &LoadedRepository,
        architecture: &Architecture,
        keyring: &Keyring,
        told: &Collect,
    ) -> Error {
        let url = without_credentials(&self.as_declared(failed.repository.index_path_text()));
        if let Some(path) = failed.repository.index_path() {
            let rules = Rules {
                keyring,
                allow_untrusted: self.settings().allow_untrusted,
                allow_older: true,
                depth: Depth::Records,
                limits: self.settings().limits,
            };
            let mut loader = IndexLoader::new(rules, None);
            return match loader.load_file(&path) {
                Err(IndexError::Trust(TrustError::Untrusted { wanted, known })) => {
                    Error::UnknownKey {
                        url,
                        keys: wanted,
                        known,
                    }
                }
                Err(IndexError::Trust(TrustError::Bad { key })) => Error::BadSignature {
                    url,
                    key: Some(key),
                },
                Err(error) => Error::of_limit(&url, &error.to_string()).unwrap_or(Error::Index {
                    has: other_architectures(&failed.repository.url, &architecture.apk),
                    url,
                    cause: error.to_string(),
                }),
                Ok(_) => Error::Index {
                    url,
                    cause: "it changed while it was read".to_owned(),
                    has: Vec::new(),
                },
            };
        }
        let lines = || told.lines.iter().map(|(_, line)| line);
        if let Some(error) = lines().find_map(|line| Error::of_limit(&url, line)) {
            return error;
        }
        let cause = told
            .lines
            .iter()
            .rev()
            .find(|(_, line)| line.contains(": "));
        let cause = cause.map_or("no answer", |(_, line)| {
            line.rsplit_once(": ")
                .map_or(line.as_str(), |(_, cause)| cause)
        });
        let status = told
            .lines
            .iter()
            .find_map(|(_, line)| line.find("HTTP ").map(|at| &line[at..]));
        let cause = status.unwrap_or(cause);
        if cause.contains("UNTRUSTED") {
            return Error::UnknownKey {
                url,
                keys: Vec::new(),
                known: keyring.names(),
            };
        }
        if cause.contains("BAD signature") {
            return Error::BadSignature { url, key: None };
        }
        if !self.settings().network {
            return self.offline_miss(vec![url]);
        }
        match self.fetch_error(&failed.repository.index_url, &url, cause) {
            Error::Fetch { file, cause } => Error::Index {
                url: file,
                cause,
                has: Vec::new(),
            },
            other => other,
        }
    }

    /// Returns an address as the description gives it: relative where it is relative there.
    pub(super) fn as_declared(&self, url: &str) -> String {
        let mut declared = self.build_repositories();
        // A longer one is a better answer.
        declared.sort_by_key(|line| std::cmp::Reverse(line.len()));
        for line in declared {
            let plain = line.rsplit(' ').next().unwrap_or_default();
            for candidate in self.mirrored(plain) {
                let place = match is_local(&candidate) {
                    true => {
                        let path = candidate.trim_start_matches("file://");
                        self.options.work_dir.join(path).display().to_string()
                    }
                    false => candidate,
                };
                if let Some(rest) = url.strip_prefix(&place) {
                    return format!("{plain}{rest}");
                }
            }
        }
        url.to_owned()
    }

    /// Solves for one architecture.
    fn solve(
        &self,
        architecture: &Architecture,
        world: &World,
        loaded: &LoadedRepositories,
    ) -> Result<Resolution, Error> {
        let mut sources = solver_sources(loaded, std::slice::from_ref(&architecture.apk));
        // Without a network the choice is the same; what cannot be had is told as a whole.
        for repository in &mut sources.repositories {
            repository.reachable = true;
        }
        let asked = self.image_world(architecture, world);
        let base = self.bases.get(&architecture.apk);
        if let Some(base) = base {
            sources.installed = InstalledInput::from_db(&base.installed);
        }
        let pinned = self.pinned_world(architecture, world);
        let world = &pinned;
        let mut universe = Universe::new(&sources, world);
        let request = Request {
            world: world.clone(),
            ..Request::default()
        };
        if let Some(text) = solver::missing_tags(&universe, world).into_iter().next() {
            return Err(Error::Config(ConfigError::Combination { message: text }));
        }
        let mut solution = solver::solve(&mut universe, &request);
        if solution.errors > 0 {
            match solver::solve_completely(&mut universe, &request) {
                Some(complete) => solution = complete,
                None => return Err(unsolvable(&mut universe, &request, architecture, loaded)),
            }
        }
        let files = HashMap::new();
        let place = PackageFiles {
            settings: self.settings(),
            repositories: loaded,
            cache: Some(&self.cache),
            files: &files,
        };
        let is_below = |id: &crate::solver::PackageId| {
            let package = universe.package(*id);
            let same = |one: &crate::package::InstalledPackage| {
                one.package.name == package.name && one.package.version == package.version
            };
            base.is_some_and(|base| base.installed.packages.iter().any(same))
        };
        let chosen = solution.selected().filter(|id| !is_below(id)).map(|id| {
            let mut package = universe.package(id);
            package.build_time = package.build_time.filter(|time| *time > 0);
            let source = place.source(&universe, id);
            let source = match (source, self.settings().network) {
                // A package without data is not read for installing.
                _ if universe.installed_size(id) == 0 => Source::None,
                (Source::Remote(_), false) => Source::Unavailable,
                (other, _) => other,
            };
            // A cached copy is as good, but says nothing about where the package is.
            let url = match place.origin(&universe, id) {
                Source::File(path) | Source::Unpacked(path) => path.display().to_string(),
                Source::Remote(url) => url,
                Source::None | Source::Kept | Source::Unavailable => {
                    let number = universe.repositories_of(id).next();
                    let repository = number.and_then(|number| loaded.repositories.get(number));
                    repository.map_or_else(String::new, |one| {
                        let arch = architecture.apk.as_str();
                        let named = (&*package.name, &*package.version, arch);
                        one.package_url(named, package.identity)
                    })
                }
            };
            let url = without_credentials(&self.as_declared(&url));
            let repository = url.rsplitn(3, '/').nth(2).unwrap_or_default().to_owned();
            let entry = world
                .entries
                .iter()
                .find(|entry| entry.name == package.name);
            let number = universe.repositories_of(id).next();
            let v3 = number.and_then(|number| loaded.repositories.get(number));
            let v3 = v3.is_some_and(|one| one.repository.index_url.ends_with(".adb"));
            Chosen {
                v3,
                tag: entry.and_then(|entry| entry.tag.clone()),
                package,
                url,
                repository,
                source,
            }
        });
        let packages = chosen.collect();
        let index = |one: &LoadedRepository| {
            let url = without_credentials(&self.as_declared(one.repository.index_path_text()));
            let Some(index) = &one.index else {
                return LockedIndex {
                    url,
                    ..LockedIndex::default()
                };
            };
            LockedIndex {
                url,
                description: index.description.trim().to_owned(),
                sha256: HEXLOWER.encode(&index.digest),
                signer: (index.trusted_by.as_ref())
                    .map_or_else(String::new, |by| by.key_name.clone()),
            }
        };
        Ok(Resolution {
            architecture: architecture.clone(),
            packages,
            world: asked,
            indexes: loaded.repositories.iter().map(index).collect(),
            base: base.cloned(),
            ids: Vec::new(),
        })
    }

    /// Brings every package of a resolution onto this machine.
    ///
    /// # Errors
    /// [`enum@Error`] naming what cannot be had.
    pub fn bring(&self, resolution: &mut Resolution, sink: &mut dyn Sink) -> Result<(), Error> {
        let missing = |source: &Source| matches!(source, Source::Unavailable);
        let missing = resolution
            .packages
            .iter()
            .filter(|one| missing(&one.source));
        let missing: Vec<String> = missing.map(|one| file_name(&one.package)).collect();
        if !missing.is_empty() {
            return Err(self.offline_miss(missing));
        }
        let remote = resolution.packages.iter().enumerate();
        let remote: Vec<(usize, String)> = remote
            .filter_map(|(at, one)| match &one.source {
                Source::Remote(url) => Some((at, url.clone())),
                _ => None,
            })
            .collect();
        let wanted: Vec<(&Package, Vec<String>)> = (remote.iter())
            .map(|(at, url)| {
                let chosen = &resolution.packages[*at];
                // First where its index is from, then where else it may be.
                let mut urls = vec![url.clone()];
                for other in self.mirrored(&chosen.url) {
                    if !is_local(&other) && without_credentials(url) != other {
                        urls.push(other);
                    }
                }
                (&chosen.package, urls)
            })
            .collect();
        let paths = self.download(&wanted, sink);
        for ((at, _), path) in remote.into_iter().zip(paths) {
            resolution.packages[at].source = Source::File(path?);
        }
        Ok(())
    }

    /// Fetches packages into the cache, each from the first address that has it, several at a time.
    pub(super) fn download(
        &self,
        wanted: &[(&Package, Vec<String>)],
        sink: &mut dyn Sink,
    ) -> Vec<Result<PathBuf, Error>> {
        if wanted.is_empty() {
            return Vec::new();
        }
        let requests = wanted.iter().map(|(package, urls)| FileRequest {
            urls: urls.clone(),
            target: Some(self.cached_file(package)),
            size: package.size,
            package: Some(Key::of(package)),
            unpack: false,
            on_disk: None,
        });
        let requests: Vec<FileRequest> = requests.collect();
        for (_, urls) in wanted {
            if let Some(url) = urls.first() {
                sink.event(Event::Note(&format!("fetch {}", without_credentials(url))));
            }
        }
        let answers = match self.fetch_all(&requests) {
            Ok(answers) => answers,
            Err(error) => requests.iter().map(|_| Err(error.clone())).collect(),
        };
        let pairs = wanted.iter().zip(answers);
        let results = pairs.map(|((package, urls), answer)| match answer {
            Ok(()) => Ok(self.cached_file(package)),
            Err(error) if error.is_missing() => Err(Error::Fetch {
                file: file_name(package),
                cause: MISSING.to_owned(),
            }),
            Err(error) => {
                let url = urls.first().map_or("", String::as_str);
                Err(self.fetch_error(url, &file_name(package), &error.to_string()))
            }
        });
        results.collect()
    }

    pub(super) fn fetch_all(
        &self,
        requests: &[FileRequest],
    ) -> Result<Vec<Result<(), HttpError>>, HttpError> {
        if self.session.get().is_none() {
            let session = Session::new(self.settings())?;
            let _ = self.session.set(session);
        }
        let session = self.session.get().expect("it was just begun");
        Ok(fetch_files(session, None, requests, &mut |_| {}).results)
    }

    /// Returns where the file of a package is in the cache.
    pub(super) fn cached_file(&self, package: &Package) -> PathBuf {
        // The name that packages have for all commands of the user.
        self.cache.path.join(Key::of(package).file_name())
    }
}

/// An index that was read, and what there was to tell about it.
pub(super) type ReadIndex = (Result<LoadedRepositories, RootError>, Collect);

/// Reads one index.
fn read_index(
    declared: &str,
    architecture: &Architecture,
    keyring: &Keyring,
    (settings, root, cache): (&Settings, &Root, &CacheDirectory),
) -> ReadIndex {
    let settings = Settings {
        sources: RepositorySources {
            repositories: vec![declared.to_owned()],
            only_arguments: true,
            ..RepositorySources::default()
        },
        ..settings.clone()
    };
    let context = refresh::Context {
        root,
        settings: &settings,
        arch: &architecture.apk,
        keyring,
        cache: Some(cache),
    };
    let purpose = match settings.network {
        true => Purpose::Update,
        false => Purpose::Read,
    };
    let mut told = Collect::default();
    let loaded = refresh::load(context, purpose, Depth::Details, &mut told);
    (loaded, told)
}

/// Takes a line of repositories apart.
fn tag_and_url(line: &str) -> (Option<&str>, &str) {
    match line.strip_prefix('@').and_then(|rest| rest.split_once(' ')) {
        Some((tag, url)) => (Some(tag), url.trim()),
        None => (None, line),
    }
}

fn tagged(tag: Option<&str>, place: &str) -> String {
    match tag {
        Some(tag) => format!("@{tag} {place}"),
        None => place.to_owned(),
    }
}

/// Returns the keys that are built in for a repository, but for names that somebody gave a key for.
fn built_in(keyring: &Keyring, url: &str, architecture: &Architecture) -> Vec<BuildKey> {
    let given = keyring.names();
    let known = alpine_keys::of(url, &architecture.apk).into_iter();
    known
        .filter(|key| !given.contains(&key.name))
        .map(BuildKey::from)
        .collect()
}

/// Returns a keyring with more keys.
fn with_keys(keyring: &Keyring, more: &[BuildKey]) -> Keyring {
    let mut all = keyring.clone();
    for key in more {
        // What is no key is no help.
        let _ = all.add(&key.name, &key.pem);
    }
    all
}

/// Returns the indexes that are trusted by a signature over SHA-1, and whose it is.
fn sha1_signers(loaded: &LoadedRepositories) -> impl Iterator<Item = (String, String)> {
    let signers = loaded.repositories.iter().filter_map(|one| {
        let by = one.index.as_ref()?.trusted_by.as_ref()?;
        let url = one.repository.index_path_text().to_owned();
        (by.algorithm == SignatureAlgorithm::Rsa).then(|| (url, by.key_name.clone()))
    });
    signers.collect::<Vec<_>>().into_iter()
}

/// Returns whether the place of an index has none, as far as it says.
fn is_absent(failed: &LoadedRepository, told: &Collect) -> bool {
    match failed.repository.index_path() {
        Some(path) => !path.exists(),
        None => (told.lines.iter())
            .any(|(_, line)| ["HTTP 404", "HTTP 403"].iter().any(|s| line.contains(s))),
    }
}

/// The name of an index of the v3 format.
const V3_INDEX: &str = "packages.adb";

/// What is said of a file that a server does not have.
pub(super) const MISSING: &str = "no server has it";

/// Returns the usual name of a package file.
pub(super) fn file_name(package: &Package) -> String {
    format!("{}-{}.apk", package.name, package.version)
}

/// Returns the architectures of a local repository.
fn other_architectures(repository: &str, wanted: &str) -> Vec<String> {
    let path = repository.strip_prefix("file://").unwrap_or(repository);
    let Ok(entries) = std::fs::read_dir(path) else {
        return Vec::new();
    };
    let names = entries
        .flatten()
        .filter(|entry| entry.path().join("APKINDEX.tar.gz").exists());
    let names = names.filter_map(|entry| entry.file_name().into_string().ok());
    let names: BTreeSet<String> = names.filter(|name| name != wanted).collect();
    names.into_iter().collect()
}

/// Says why there is no solution.
fn unsolvable(
    universe: &mut Universe<'_>,
    request: &Request,
    architecture: &Architecture,
    loaded: &LoadedRepositories,
) -> Error {
    let Some(explanation) = solver::explain(universe, request) else {
        return Error::Solve {
            reason: "the solver finds no answer".to_owned(),
            chain: Vec::new(),
            more: Vec::new(),
            hints: Vec::new(),
        };
    };
    let mut hints = explanation.contradictions.iter().flat_map(|one| &one.hints);
    let unknown = hints.find_map(|hint| match hint {
        Hint::Rename { name, nearest } => Some((name.clone(), nearest.clone())),
        _ => None,
    });
    if let Some((name, similar)) = unknown {
        return Error::NoSuch {
            name,
            repositories: loaded.repositories.len(),
            architecture: architecture.apk.clone(),
            similar,
        };
    }
    let first = explanation.contradictions.first();
    let deepest = first.and_then(|one| one.facts.iter().max_by_key(|fact| fact.depth));
    let mut chains: Vec<Vec<String>> = Vec::new();
    let mut hints = Vec::new();
    for contradiction in &explanation.contradictions {
        let facts = contradiction.facts.iter();
        let line =
            |fact: &solver::complete::Fact| format!("{:1$}{2}", "", 2 * fact.depth, fact.rule);
        chains.push(facts.map(line).collect());
        hints.extend(contradiction.hints.iter().map(ToString::to_string));
    }
    let mut chains = chains.into_iter();
    let chain = chains.next().unwrap_or_default();
    Error::Solve {
        reason: deepest.map_or_else(String::new, |fact| fact.rule.to_string()),
        chain,
        more: chains.flatten().collect(),
        hints,
    }
}

/// Returns the names of packages that are on several architectures, but not in one version.
fn differing(resolutions: &[Resolution]) -> BTreeSet<String> {
    let mut versions: BTreeMap<&str, &str> = BTreeMap::new();
    let mut differing = BTreeSet::new();
    for one in resolutions
        .iter()
        .flat_map(|resolution| &resolution.packages)
    {
        let known = *versions
            .entry(&one.package.name)
            .or_insert(&one.package.version);
        if known != one.package.version {
            differing.insert(one.package.name.clone());
        }
    }
    differing
}

fn versions_line(name: &str, resolutions: &[Resolution]) -> String {
    let version = |resolution: &Resolution| {
        let mut packages = resolution.packages.iter();
        let found = packages.find(|one| one.package.name == name)?;
        Some(format!(
            "{} {}",
            resolution.architecture.oci, found.package.version
        ))
    };
    resolutions
        .iter()
        .filter_map(version)
        .collect::<Vec<_>>()
        .join(", ")
}

/// Leaves only the versions that every architecture has of a name, for names that all have.
fn keep_common(loaded: &mut [LoadedRepositories]) {
    type Versions = BTreeMap<String, BTreeSet<String>>;
    let versions = |one: &LoadedRepositories| -> Versions {
        let mut versions = Versions::new();
        for table in one.repositories.iter().filter_map(|r| r.index.as_ref()) {
            let records = table.table();
            for record in (0..records.len() as u32).map(|at| records.record(at)) {
                let known = versions.entry(record.name().to_owned()).or_default();
                known.insert(record.version().to_owned());
            }
        }
        versions
    };
    let all: Vec<Versions> = loaded.iter().map(versions).collect();
    for one in loaded {
        keep(one, |name, version| {
            let mut others = all.iter().filter_map(|versions| versions.get(name));
            others.all(|versions| versions.contains(version))
        });
    }
}

/// Leaves only the records that are wanted.
fn keep(loaded: &mut LoadedRepositories, wanted: impl Fn(&str, &str) -> bool) {
    for index in loaded
        .repositories
        .iter_mut()
        .filter_map(|one| one.index.as_mut())
    {
        let table = index.table();
        let kept = (0..table.len() as u32).filter(|at| {
            let record = table.record(*at);
            wanted(record.name(), record.version())
        });
        let kept: Vec<Package> = kept.map(|at| table.package(at)).collect();
        index.table = Some(Arc::new(PackageTable::build(&kept)));
        index.whole = false;
    }
}
