//! Lock files: written from a solution, used in place of one, and the copies that keep them usable
//! (image.md, chapter 12).

use super::parts::{self, Parts};
use super::resolve::{Chosen, MISSING, Resolution, file_name};
use super::{Error, Profile, Workshop, disk};
use crate::config::image::{Architecture, Warning, range, without_credentials};
use crate::config::repositories::is_local;
use crate::format::Limits;
use crate::format::apk::{Form, PackageParts, PackageReader};
use crate::format::index_writer;
use crate::image::{AccountKind, ChosenId};
use crate::package::{Identity, Index, Package, Version};
use crate::plan::Source;
use crate::plan::lockfile::{
    LockError, LockNotes, LockedAccount, LockedConfig, LockedIndex, LockedKey, LockedPackage,
    LockedPart, LockedRepository, Lockfile, PackageNotes,
};
use crate::progress::{Silent, Sink};
use data_encoding::{BASE64, HEXLOWER};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::BufReader;
use std::path::{Path, PathBuf};

/// What `lock` did.
#[derive(Clone, Debug)]
pub struct LockOutcome {
    /// The lock file.
    pub path: PathBuf,
    /// What differs from the one before, if there was one.
    pub changes: Vec<String>,
    /// How many packages it pins.
    pub packages: usize,
}

/// What `fetch` brought.
#[derive(Clone, Copy, Debug)]
pub struct FetchedLock {
    /// Packages, over all architectures.
    pub packages: usize,
    /// Their bytes.
    pub bytes: u64,
}

/// Chooses packages and writes them down; with `check`, only compares with what is written.
///
/// `update` names packages that may move; all others stay as they are locked if that is possible.
///
/// # Errors
/// [`enum@Error`]; the old lock file is untouched then.
pub fn lock(
    workshop: &mut Workshop<'_>,
    update: Option<&[String]>,
    check: bool,
    output: Option<&Path>,
    sink: &mut dyn Sink,
) -> Result<LockOutcome, Error> {
    let path = workshop.options.work_dir.join(match output {
        Some(path) => path.to_owned(),
        None => workshop.lock_path(),
    });
    // A pipe would wait for who writes into it, which is this process.
    let special = crate::root::is_special(&path);
    let before = match special {
        true => workshop.options.work_dir.join(workshop.lock_path()),
        false => path.clone(),
    };
    let shown = before.display().to_string();
    let old = match std::fs::read(&before) {
        Ok(text) => Some((Lockfile::parse(&shown, &text), text)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
        Err(error) => return Err(disk("read", &before, &error)),
    };
    let known = old.as_ref().and_then(|(lock, _)| lock.as_ref().ok());
    let resolutions = match (update, known) {
        (Some(names), Some(known)) => workshop.resolve_holding(known, names, sink)?,
        (Some(_), None) => {
            let config = workshop.config_name();
            return Err(Error::LockMissing { config });
        }
        (None, _) => workshop.resolve(sink)?,
    };
    workshop.tell_warnings(sink)?;
    let accounts = known.map(|known| known.x.accounts.as_slice());
    let new = workshop.write_down(resolutions, accounts.unwrap_or_default(), sink)?;
    let text = new.to_text();
    let changes = known.map(|known| known.changes(&new)).unwrap_or_default();
    let packages = new.contents.packages.len();
    let same = old.is_some_and(|(_, old)| old == text.as_bytes());
    if check {
        let name = workshop.lock_path().display().to_string();
        return match same {
            true => Ok(LockOutcome {
                path,
                changes,
                packages,
            }),
            false => Err(Error::LockDiffers {
                lock: name,
                changes,
            }),
        };
    }
    if special || !same {
        super::write_text(&path, text.as_bytes())?;
    }
    Ok(LockOutcome {
        path,
        changes,
        packages,
    })
}

/// Brings everything that an offline build needs into the cache, and copies into a folder.
///
/// # Errors
/// [`enum@Error`].
pub fn fetch(
    workshop: &mut Workshop<'_>,
    to: Option<&Path>,
    sink: &mut dyn Sink,
) -> Result<FetchedLock, Error> {
    let mut outcome = FetchedLock {
        packages: 0,
        bytes: 0,
    };
    for resolution in workshop.packages(sink)? {
        let mut index = Index::default();
        for chosen in &resolution.packages {
            let path = &match &chosen.source {
                Source::File(path) => path.clone(),
                _ => workshop.file_of(chosen, sink)?,
            };
            let size = std::fs::metadata(path)
                .map_err(|error| disk("read", path, &error))?
                .len();
            outcome.packages += 1;
            outcome.bytes += size;
            let Some(folder) = to else { continue };
            let folder = workshop.options.work_dir.join(folder);
            let bytes = std::fs::read(path).map_err(|error| disk("read", path, &error))?;
            let parts = PackageParts::read(&bytes, &workshop.settings().limits);
            let parts = parts.map_err(|error| damaged(&chosen.package, &error.to_string()))?;
            let by_digest = folder
                .join("sha256")
                .join(HEXLOWER.encode(&parts.file_sha256));
            let by_name = folder
                .join(&resolution.architecture.apk)
                .join(file_name(&chosen.package));
            for target in [by_digest, by_name] {
                crate::fetch::cache::store(&target, &bytes)
                    .map_err(|error| disk("write", &target, &error))?;
            }
            index.packages.push(Package {
                size,
                ..parts.package.package
            });
        }
        if let Some(folder) = to {
            let target = workshop
                .options
                .work_dir
                .join(folder)
                .join(&resolution.architecture.apk);
            let target = target.join("APKINDEX.tar.gz");
            let bytes = index_writer::write(&index, 0, None)
                .map_err(|error| Error::Other(error.to_string()))?;
            crate::fetch::cache::store(&target, &bytes)
                .map_err(|error| disk("write", &target, &error))?;
        }
    }
    workshop.tell_warnings(sink)?;
    Ok(outcome)
}

pub(super) fn damaged(package: &Package, cause: &str) -> Error {
    let file = file_name(package);
    Error::of_limit(&file, cause).unwrap_or_else(|| Error::Hash {
        file: file.clone(),
        by: "index",
        expected: package.identity.to_q1(),
        found: cause.to_owned(),
    })
}

impl Workshop<'_> {
    /// Returns the usual place of the lock file: beside the description, with its name.
    pub fn lock_path(&self) -> PathBuf {
        self.options.config.with_extension("lock.json")
    }

    /// Returns the packages of every architecture with their files on this machine: those of the
    /// lock file if one is used, else newly chosen ones.
    ///
    /// # Errors
    /// [`enum@Error`].
    pub fn packages(&mut self, sink: &mut dyn Sink) -> Result<Vec<Resolution>, Error> {
        let mut resolutions = match self.lock_in_use()? {
            Some((name, lock)) => {
                let mut resolutions = Vec::new();
                let architectures = self.locked_architectures(&lock)?;
                let contents = &mut self.loaded.config.contents;
                if contents.baseimage.is_none() && !lock.x.baseimage.is_empty() {
                    // A lock file alone: what it was made for is built on the same.
                    contents.baseimage = Some(crate::config::image::BaseImage {
                        image: lock.x.baseimage.clone(),
                        ..Default::default()
                    });
                }
                self.read_bases(&architectures)?;
                for architecture in architectures {
                    resolutions.push(self.locked(&name, &lock, architecture, sink)?);
                }
                return Ok(resolutions);
            }
            None => self.resolve(sink)?,
        };
        for resolution in &mut resolutions {
            self.bring(resolution, sink)?;
        }
        Ok(resolutions)
    }

    /// With a lock file and no word on architectures, those of the lock are meant.
    fn locked_architectures(&self, lock: &Lockfile) -> Result<Vec<Architecture>, Error> {
        let said = !self.options.architectures.is_empty() || !self.loaded.config.archs.is_empty();
        if said {
            return self.architectures();
        }
        let names = lock
            .contents
            .packages
            .iter()
            .map(|package| &package.architecture);
        let names: BTreeSet<&String> = names.collect();
        let mut found: Vec<Architecture> =
            names.into_iter().map(|n| Architecture::parse(n)).collect();
        found.sort();
        Ok(found)
    }

    /// Returns the lock file that the build must follow, with its name.
    ///
    /// # Errors
    /// [`Error::LockMissing`], [`Error::LockStale`], or why it cannot be read.
    pub fn lock_in_use(&mut self) -> Result<Option<(String, Lockfile)>, Error> {
        let beside = self.options.work_dir.join(self.lock_path());
        let name = match &self.options.lockfile {
            Some(path) => path.clone(),
            None if self.options.locked => self.lock_path(),
            None => {
                if beside.exists() && self.options.profile == Profile::Native {
                    let text = format!(
                        "{} is there but not used; give --locked or --lockfile",
                        self.lock_path().display()
                    );
                    self.warnings.push(Warning::new("W-LOCK-UNUSED", text));
                }
                return Ok(None);
            }
        };
        let path = self.options.work_dir.join(&name);
        let name = name.display().to_string();
        let text = match std::fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Err(match self.options.lockfile {
                    Some(_) => disk("read", &path, &error),
                    None => Error::LockMissing {
                        config: self.config_name(),
                    },
                });
            }
            Err(error) => return Err(disk("read", &path, &error)),
        };
        let lock = Lockfile::parse(&name, &text)?;
        match &lock.config {
            None => {
                let text = format!("{name} does not say what it was made from");
                self.warnings.push(Warning::new("W-LOCK-OLD", text));
            }
            Some(_) if self.options.config == Path::new(&name) => {}
            Some(config) => {
                let checksum = |bytes: &[u8; 32]| format!("sha256-{}", BASE64.encode(bytes));
                let stale = config.checksum != checksum(&self.loaded.checksum);
                if stale {
                    let others = &self.loaded.other_checksums;
                    return Err(Error::LockStale {
                        lock: name,
                        config: self.config_name(),
                        line_endings: others
                            .iter()
                            .any(|other| checksum(other) == config.checksum),
                    });
                }
            }
        }
        Ok(Some((name, lock)))
    }

    /// Takes the packages of one architecture from a lock file and finds their files.
    fn locked(
        &self,
        name: &str,
        lock: &Lockfile,
        architecture: Architecture,
        sink: &mut dyn Sink,
    ) -> Result<Resolution, Error> {
        self.prefetch(lock, &architecture, sink);
        let mut packages = Vec::new();
        for locked in lock.packages_of(&architecture.apk) {
            let (path, package) = self.locked_file(lock, locked, &architecture, sink)?;
            let url = without_credentials(&locked.url);
            packages.push(Chosen {
                v3: (locked.x.as_ref()).is_some_and(|notes| notes.format == "v3"),
                tag: locked.x.as_ref().and_then(|notes| notes.tag.clone()),
                repository: url.rsplitn(3, '/').nth(2).unwrap_or_default().to_owned(),
                url,
                source: match package.installed_size {
                    0 => Source::None,
                    _ => Source::File(path),
                },
                package,
            });
        }
        if packages.is_empty() && !lock.contents.packages.is_empty() {
            return Err(Error::Lock(LockError::Architecture {
                file: name.to_owned(),
                architecture: architecture.apk,
            }));
        }
        let ids = ids_of(&lock.x.accounts, &architecture.apk);
        Ok(Resolution {
            base: self.bases.get(&architecture.apk).cloned(),
            world: self.image_world(&architecture, &self.world()?),
            architecture,
            packages,
            indexes: lock.x.indexes.clone(),
            ids,
        })
    }

    /// Brings what is certain to be needed from the network, several at a time. What fails is left
    /// to [`Self::locked_file`], which knows where else to look.
    fn prefetch(&self, lock: &Lockfile, architecture: &Architecture, sink: &mut dyn Sink) {
        if !self.settings().network || !self.options.kept.is_empty() {
            return;
        }
        let packages = lock
            .packages_of(&architecture.apk)
            .map(|one| (one.package(), &one.url));
        let missing =
            packages.filter(|(package, url)| !is_local(url) && !self.cached_file(package).exists());
        let missing: Vec<(Package, Vec<String>)> = missing
            .map(|(package, url)| (package, self.mirrored(url)))
            .filter(|(_, urls)| !urls.iter().any(|url| is_local(url)))
            .collect();
        let wanted: Vec<(&Package, Vec<String>)> = (missing.iter())
            .map(|(package, urls)| (package, urls.clone()))
            .collect();
        drop(self.download(&wanted, sink));
    }

    /// Finds the file of a locked package: in the cache, kept, where it was, on a mirror, or in
    /// another repository of the lock (image.md, 12.5).
    fn locked_file(
        &self,
        lock: &Lockfile,
        locked: &LockedPackage,
        architecture: &Architecture,
        sink: &mut dyn Sink,
    ) -> Result<(PathBuf, Package), Error> {
        let wanted = locked.package();
        let file = file_name(&wanted);
        let size = locked.file_size();
        let mut places = vec![self.cached_file(&wanted)];
        for folder in &self.options.kept {
            let folder = self.options.work_dir.join(folder);
            places.push(folder.join(&architecture.apk).join(&file));
            if let Some(notes) = &locked.x {
                places.push(folder.join("sha256").join(&notes.sha256));
            }
        }
        let mut remote = Vec::new();
        let mut urls = self.mirrored(&locked.url);
        let contents = &lock.contents;
        for repository in contents
            .repositories
            .iter()
            .chain(&contents.build_repositories)
        {
            if repository.architecture == architecture.apk
                && let Some((folder, _)) = repository.url.rsplit_once('/')
            {
                urls.extend(self.mirrored(&format!("{folder}/{file}")));
            }
        }
        for url in urls {
            match is_local(&url) {
                true => places.push(
                    self.options
                        .work_dir
                        .join(url.trim_start_matches("file://")),
                ),
                false if !remote.contains(&url) => remote.push(url),
                false => {}
            }
        }
        let mut wrong = None;
        for place in places {
            let right_size =
                std::fs::metadata(&place).is_ok_and(|meta| size == 0 || meta.len() == size);
            if !right_size {
                continue;
            }
            match check_locked(&place, locked, &self.settings().limits) {
                Ok(package) => return Ok((place, package)),
                // What the cache has wrong is fetched again; elsewhere it is somebody's mistake.
                Err(error) if !place.starts_with(&self.cache.path) => {
                    wrong.get_or_insert(error);
                }
                Err(_) => {}
            }
        }
        if remote.is_empty() {
            return Err(wrong.unwrap_or_else(|| self.gone(locked, architecture)));
        }
        if !self.settings().network {
            return Err(self.offline_miss(vec![file]));
        }
        match self.download_one(&wanted, remote, sink) {
            Ok(path) => {
                let package =
                    check_locked(&path, locked, &self.settings().limits).inspect_err(|_| {
                        // What is wrong must not be found again.
                        let _ = std::fs::remove_file(&path);
                    })?;
                Ok((path, package))
            }
            Err(Error::Fetch { cause, .. }) if cause == MISSING => {
                Err(wrong.unwrap_or_else(|| self.gone(locked, architecture)))
            }
            Err(error) => Err(wrong.unwrap_or(error)),
        }
    }

    /// Says that a locked package is nowhere, and what is there instead.
    fn gone(&self, locked: &LockedPackage, architecture: &Architecture) -> Error {
        let place = without_credentials(&locked.url);
        let place = place.rsplit_once('/').map_or("", |(folder, _)| folder);
        Error::Gone {
            file: format!("{}.apk", locked.full_name()),
            place: place.to_owned(),
            name: locked.name.clone(),
            newest: self.newest(&locked.name, architecture),
        }
    }

    /// Returns the newest version of a name that the repositories offer now.
    fn newest(&self, name: &str, architecture: &Architecture) -> Option<String> {
        let keyring = self.keyring().ok()?;
        let loaded = self.indexes(architecture, &keyring, &mut Silent).ok()?;
        let mut newest: Option<String> = None;
        for index in loaded
            .repositories
            .iter()
            .filter_map(|one| one.index.as_ref())
        {
            let table = index.table();
            let records = (0..table.len() as u32).map(|at| table.record(at));
            for record in records.filter(|record| record.name() == name) {
                let better = newest.as_ref().is_none_or(|known| {
                    Version(record.version()).compare(Version(known)) == std::cmp::Ordering::Greater
                });
                if better {
                    newest = Some(record.version().to_owned());
                }
            }
        }
        newest
    }

    /// Chooses again, but leaves locked what need not move.
    fn resolve_holding(
        &mut self,
        lock: &Lockfile,
        names: &[String],
        sink: &mut dyn Sink,
    ) -> Result<Vec<Resolution>, Error> {
        let known: BTreeSet<&str> = lock
            .contents
            .packages
            .iter()
            .map(|p| p.name.as_str())
            .collect();
        if let Some(unknown) = names.iter().find(|name| !known.contains(name.as_str())) {
            let message = format!("--update: \"{unknown}\" is not in the lock file");
            return Err(Error::Usage { message });
        }
        self.held = lock.contents.packages.iter().map(held_version).collect();
        self.held.retain(|(_, name), _| !names.contains(name));
        let world = self.world()?;
        if let Ok(found) = self.resolve_world(&world, sink) {
            return Ok(found);
        }
        // Whatever the moving packages need may move, too.
        let held = std::mem::take(&mut self.held);
        let free = self.resolve_world(&world, sink)?;
        let mut moving: BTreeSet<String> = names.iter().cloned().collect();
        for resolution in &free {
            moving.extend(super::why::needed_by(&resolution.packages, names));
        }
        self.held = held;
        self.held.retain(|(_, name), _| !moving.contains(name));
        if let Ok(found) = self.resolve_world(&world, sink) {
            return Ok(found);
        }
        self.held.clear();
        Ok(free)
    }

    /// Makes the lock file of a solution.
    ///
    /// Accounts keep the numbers that they are `known` by.
    fn write_down(
        &mut self,
        mut resolutions: Vec<Resolution>,
        known: &[LockedAccount],
        sink: &mut dyn Sink,
    ) -> Result<Lockfile, Error> {
        let config = LockedConfig {
            name: self.config_name(),
            checksum: format!("sha256-{}", BASE64.encode(&self.loaded.checksum)),
        };
        let mut lock = Lockfile::new(config, self.lock_notes(&resolutions)?);
        let (contents, notes) = (&mut lock.contents, &mut lock.x);
        for key in self.build_keys()? {
            let url = without_credentials(&key.entry);
            contents.keyring.push(LockedKey {
                name: without_scheme(&url).to_owned(),
                url,
                content: String::from_utf8_lossy(&key.pem).into_owned(),
            });
        }
        contents.keyring.sort_by(|a, b| a.name.cmp(&b.name));
        let described = self.loaded.config.contents.clone();
        let build: Vec<String> = (described.build_repositories.iter())
            .chain(&self.options.build_repositories)
            .cloned()
            .collect();
        let both: Vec<String> = (described.repositories.iter())
            .chain(&self.options.repositories)
            .cloned()
            .collect();
        for resolution in &mut resolutions {
            let arch = resolution.architecture.apk.clone();
            contents
                .build_repositories
                .extend(locked_repositories(&build, &arch));
            contents
                .runtime_repositories
                .extend(locked_repositories(&described.runtime_repositories, &arch));
            contents
                .repositories
                .extend(locked_repositories(&both, &arch));
            self.bring(resolution, sink)?;
            let mut paths = Vec::new();
            for chosen in &resolution.packages {
                paths.push(match &chosen.source {
                    Source::File(path) => path.clone(),
                    // Packages without data are not read for installing, but they are for pinning.
                    _ => self.file_of(chosen, sink)?,
                });
            }
            resolution.ids = ids_of(known, &arch);
            let (shelf, limits) = (self.parts(), self.settings().limits);
            // The files are read while their packages are installed for the numbers of accounts.
            let (read, ids) = std::thread::scope(|scope| {
                let packages = resolution.packages.iter().map(|one| &one.package);
                let files: Vec<(&PathBuf, &Package)> = paths.iter().zip(packages).collect();
                let read = scope.spawn(move || parts::of_all(&shelf, &files, &limits));
                let ids = self.chosen_ids(resolution, sink);
                (read.join(), ids)
            });
            match ids {
                Ok(ids) => notes
                    .accounts
                    .extend(ids.into_iter().map(|one| locked_id(one, &arch))),
                // Such an image cannot be built, which is told who does.
                Err(error) => {
                    let text =
                        format!("W-LOCK-ACCOUNTS: the ids of accounts are not known: {error}");
                    sink.warning(&text);
                }
            }
            let read = read.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            let all = resolution.packages.iter().zip(&paths).zip(read);
            for ((chosen, path), read) in all {
                let parts = self.parts_of(chosen, path, read, sink)?;
                contents.packages.push(pinned(chosen, &arch, parts));
            }
        }
        Ok(lock)
    }

    fn lock_notes(&self, resolutions: &[Resolution]) -> Result<LockNotes, Error> {
        let mut notes = LockNotes {
            tool: concat!("ibex ", env!("CARGO_PKG_VERSION")).to_owned(),
            ..LockNotes::default()
        };
        let mut set = |name: &str, value: &str| {
            notes.settings.insert(name.to_owned(), value.to_owned());
        };
        set("profile", self.options.profile.as_str());
        if self.options.per_architecture {
            set("arch-policy", "per-arch");
        }
        if !self.options.packages.is_empty() {
            set("packages", &self.options.packages.join(" "));
        }
        let tags = self.loaded.config.repository_tags();
        let entries = self
            .loaded
            .config
            .contents
            .packages
            .iter()
            .chain(&self.options.packages);
        for entry in entries {
            if let Some((name, text)) = range::split(entry, &tags) {
                let constraints = range::constraints(name, text).unwrap_or_default();
                notes.ranges.insert(entry.clone(), constraints);
            }
        }
        let indexes: BTreeMap<&String, &LockedIndex> = (resolutions.iter())
            .flat_map(|resolution| &resolution.indexes)
            .map(|index| (&index.url, index))
            .collect();
        notes.indexes = indexes.into_values().cloned().collect();
        let base = self.loaded.config.contents.baseimage.as_ref();
        let base = base.filter(|base| base.image.contains('@'));
        notes.baseimage = base.map_or_else(String::new, |base| base.image.clone());
        Ok(notes)
    }

    /// Reads the parts of a package, whose damaged copy in the cache is replaced.
    fn parts_of(
        &self,
        chosen: &Chosen,
        path: &Path,
        read: Result<Parts, Error>,
        sink: &mut dyn Sink,
    ) -> Result<Parts, Error> {
        if read.is_ok() || !path.starts_with(&self.cache.path) {
            return read;
        }
        let _ = std::fs::remove_file(path);
        let path = self.file_of(chosen, sink)?;
        self.parts()
            .of(&path, &chosen.package, &self.settings().limits)
    }

    /// Finds the file of a package that need not be read for installing.
    fn file_of(&self, chosen: &Chosen, sink: &mut dyn Sink) -> Result<PathBuf, Error> {
        let cached = self.cached_file(&chosen.package);
        if std::fs::metadata(&cached).is_ok_and(|meta| meta.len() == chosen.package.size) {
            return Ok(cached);
        }
        let mut remote = Vec::new();
        for url in self.mirrored(&chosen.url) {
            match is_local(&url) {
                true => {
                    let path = self
                        .options
                        .work_dir
                        .join(url.trim_start_matches("file://"));
                    if path.exists() {
                        return Ok(path);
                    }
                }
                false => remote.push(url),
            }
        }
        if !self.settings().network {
            return Err(self.offline_miss(vec![file_name(&chosen.package)]));
        }
        self.download_one(&chosen.package, remote, sink)
    }

    fn download_one(
        &self,
        package: &Package,
        urls: Vec<String>,
        sink: &mut dyn Sink,
    ) -> Result<PathBuf, Error> {
        let mut paths = self.download(&[(package, urls)], sink);
        paths.pop().unwrap_or_else(|| {
            Err(Error::Fetch {
                file: file_name(package),
                cause: MISSING.to_owned(),
            })
        })
    }
}

/// Pins a package by what its file is.
fn pinned(chosen: &Chosen, arch: &str, parts: Parts) -> LockedPackage {
    let package = &chosen.package;
    let part = |from: u64, length: u64, checksum: String| LockedPart {
        range: format!("bytes={from}-{}", (from + length).saturating_sub(1)),
        checksum,
    };
    let identity: Identity = package.identity;
    let size = parts.size();
    let control = format!("sha1-{}", BASE64.encode(&identity.0));
    let data = parts.signature + parts.control;
    let v2 = !parts.v3;
    LockedPackage {
        name: package.name.clone(),
        url: chosen.url.clone(),
        version: package.version.clone(),
        architecture: arch.to_owned(),
        signature: (parts.signature > 0)
            .then(|| part(0, parts.signature, parts.signature_checksum)),
        control: v2.then(|| part(parts.signature, parts.control, control)),
        data: v2.then(|| part(data, parts.data, parts.data_checksum)),
        checksum: identity.to_q1(),
        x: Some(PackageNotes {
            sha256: parts.sha256,
            size,
            format: if v2 { "v2" } else { "v3" }.to_owned(),
            repository: chosen.repository.clone(),
            arch: (package.arch.clone()).filter(|_| parts.arch != package.arch),
            tag: chosen.tag.clone(),
        }),
    }
}

/// Returns the numbers of accounts that a lock file has for an architecture.
fn ids_of(accounts: &[LockedAccount], architecture: &str) -> Vec<ChosenId> {
    let accounts = accounts
        .iter()
        .filter(|one| one.architecture == architecture);
    let ids = accounts.map(|one| ChosenId {
        kind: match one.kind.as_str() {
            "group" => AccountKind::Group,
            _ => AccountKind::User,
        },
        name: one.name.clone(),
        id: one.id,
    });
    ids.collect()
}

fn locked_id(one: ChosenId, architecture: &str) -> LockedAccount {
    LockedAccount {
        architecture: architecture.to_owned(),
        kind: match one.kind {
            AccountKind::Group => "group".to_owned(),
            AccountKind::User => "user".to_owned(),
        },
        name: one.name,
        id: one.id,
    }
}

fn held_version(package: &LockedPackage) -> ((String, String), String) {
    let key = (package.architecture.clone(), package.name.clone());
    (key, package.version.clone())
}

/// Checks that a file is the locked package, as far as its control part says; the data part is
/// checked against that while it is installed.
fn check_locked(path: &Path, locked: &LockedPackage, limits: &Limits) -> Result<Package, Error> {
    let file = format!("{}.apk", locked.full_name());
    let wrong = |expected: String, found: String| Error::Hash {
        file: file.clone(),
        by: "lock",
        expected,
        found,
    };
    let opened = File::open(path).map_err(|error| disk("read", path, &error))?;
    let size = opened
        .metadata()
        .map_err(|error| disk("read", path, &error))?
        .len();
    let source = BufReader::with_capacity(64 << 10, opened);
    let control = match PackageReader::open(source, limits) {
        Ok((control, _)) => control,
        Err(error) => {
            let error = error.to_string();
            let wrong = || wrong(locked.checksum.clone(), error.clone());
            return Err(Error::of_limit(&file, &error).unwrap_or_else(wrong));
        }
    };
    if Some(control.identity) != locked.identity() {
        return Err(wrong(locked.checksum.clone(), control.identity.to_q1()));
    }
    if let Form::V2 { data_hash } = control.form {
        let data = format!("sha256-{}", BASE64.encode(&data_hash));
        if let Some(part) = locked.data.as_ref().filter(|part| part.checksum != data) {
            return Err(wrong(part.checksum.clone(), data));
        }
    }
    // What an index would say: the same image with and without a lock file.
    let package = control.package;
    let arch = match &locked.x {
        Some(notes) => notes.arch.clone().or(package.arch),
        // apko does not say; indexes as a rule put the architecture in place of `noarch`.
        None => Some(locked.architecture.clone()),
    };
    Ok(Package {
        size,
        arch,
        build_time: package.build_time.filter(|time| *time > 0),
        replaces: Vec::new(),
        replaces_priority: 0,
        triggers: Vec::new(),
        ..package
    })
}

fn locked_repositories(lines: &[String], arch: &str) -> Vec<LockedRepository> {
    let urls = lines.iter().map(|line| {
        let url = line.rsplit(' ').next().unwrap_or_default();
        without_credentials(url.trim_end_matches('/'))
    });
    let urls: BTreeSet<String> = urls.collect();
    let repository = |url: String| {
        // Some name the index itself.
        let (folder, url) = match [".adb", ".tar.gz"].iter().any(|end| url.ends_with(end)) {
            true => (
                url.rsplit_once('/')
                    .map_or("", |(folder, _)| folder)
                    .to_owned(),
                url,
            ),
            false => (
                format!("{url}/{arch}"),
                format!("{url}/{arch}/APKINDEX.tar.gz"),
            ),
        };
        LockedRepository {
            name: without_scheme(&folder).to_owned(),
            url,
            architecture: arch.to_owned(),
        }
    };
    urls.into_iter().map(repository).collect()
}

fn without_scheme(url: &str) -> &str {
    url.split_once("://").map_or(url, |(_, rest)| rest)
}
