//! What a question is asked about: the installed database and the loaded repositories.

use super::Error;
use super::change::{plain_sources, solver_sources};
use super::database::{Database, OpenOptions, open_root};
use super::package_file;
use super::query::{CachedPackage, From, Links, ManifestFile, PackageRef, RepositoryView, View};
use super::refresh::{self, LoadedRepositories, LoadedRepository, Purpose};
use crate::config::{Architectures, CacheDirectory, Settings};
use crate::fetch::Depth;
use crate::fetch::cache::Key;
use crate::format::apk::EntryKind;
use crate::package::{Dependency, Identity, InstalledDb, World};
use crate::progress::{Event, Sink};
use crate::root::Root;
use crate::solver::{self, Flags, InstalledInput, Universe};
use std::path::{Path, PathBuf};

/// What is known about packages, from the sources that a question allows.
#[derive(Debug)]
pub struct Known {
    /// The tree.
    pub root: Root,
    /// What is installed; empty if the question does not want it.
    pub installed: InstalledDb,
    /// The world; empty if there is no database.
    pub world: World,
    /// The repositories, as questions see them.
    pub repositories: Vec<RepositoryView>,
    /// The architectures.
    pub architectures: Architectures,
    loaded: LoadedRepositories,
    cache: Option<CacheDirectory>,
}

impl Known {
    /// Reads the sources. `-X` repositories are loaded in every case, the root's own if `from`
    /// says so. Indexes are used as they are, however old.
    ///
    /// # Errors
    /// [`enum@Error`].
    pub fn open(
        settings: &Settings,
        from: From,
        needs_database: bool,
        sink: &mut dyn Sink,
    ) -> Result<Self, Error> {
        let (root, installed, world) = if needs_database || from.has_installed() {
            let options = OpenOptions {
                scripts: true,
                ..OpenOptions::default()
            };
            let database = Database::open(&settings.root, &options, sink)?;
            let installed = match from.has_installed() {
                true => database.installed,
                false => InstalledDb::default(),
            };
            (database.root, installed, database.world)
        } else {
            let root = open_root(&settings.root, false)?;
            (root, InstalledDb::default(), World::default())
        };
        let unreadable = |error: crate::root::RootError| Error::Database {
            cause: error.cause(),
        };
        let architectures = settings.architectures(&root, true).map_err(unreadable)?;
        let keyring = settings.keyring(&root).map_err(unreadable)?;
        let cache = settings
            .cache_directory(&root)
            .map_err(|error| Error::Cache {
                cause: error.cause(),
            })?;
        let mut settings = settings.clone();
        settings.sources.only_arguments = !from.has_configured_repositories();
        let context = refresh::Context {
            root: &root,
            settings: &settings,
            arch: &architectures.list[0],
            keyring: &keyring,
            cache: cache.as_ref(),
        };
        let loaded =
            refresh::load(context, Purpose::Read, Depth::Details, sink).map_err(unreadable)?;
        let repositories = loaded.repositories.iter().filter_map(|loaded| {
            let index = loaded.index.as_ref()?;
            let repository = &loaded.repository;
            Some(RepositoryView {
                url: crate::config::repositories::masked(&repository.url),
                index_url: repository.index_url.clone(),
                base: crate::config::repositories::masked(repository.base()),
                file: repository.file_name(index.package_name.as_ref()),
                tags: repository.tags.clone(),
                description: index.description.clone(),
                table: index.table(),
                reachable: loaded.reachable,
                local: loaded.local,
            })
        });
        let repositories = repositories.collect();
        Ok(Self {
            root,
            installed,
            world,
            repositories,
            architectures,
            loaded,
            cache,
        })
    }

    /// Tells of records that could not be understood.
    pub fn warn(&self, sink: &mut dyn Sink) {
        let mut sources = plain_sources(&self.loaded, &self.architectures.list);
        sources.installed = InstalledInput::from_db(&self.installed);
        for warning in sources.warnings() {
            sink.warning(warning);
        }
    }

    /// Returns the view that questions are asked to.
    pub fn view(&self) -> View<'_> {
        View::new(&self.installed, &self.repositories)
    }

    /// Returns the mirrors that stand in for each other.
    pub fn mirrors(&self) -> &crate::config::Mirrors {
        &self.loaded.mirrors
    }

    /// Returns a session with the servers that the indexes came from.
    ///
    /// # Errors
    /// [`crate::fetch::HttpError`].
    pub fn session(
        &self,
        settings: &Settings,
    ) -> Result<&crate::fetch::Session, crate::fetch::HttpError> {
        self.loaded.session(settings)
    }

    /// Returns a package file that a cache has: that of the root, or the user's store. It is the
    /// caller who looks whether it is what its name says.
    pub fn kept(
        &self,
        settings: &Settings,
        view: &View<'_>,
        package: PackageRef,
    ) -> Option<PathBuf> {
        let entry = view.get(package);
        let (name, version, identity) = (entry.name(), entry.version(), entry.identity());
        if let Some(cache) = self.cache.as_ref().filter(|cache| cache.packages) {
            let file = format!("{name}-{version}.{}.apk", &identity.hex()[..8]);
            let path = cache.path.join(file);
            if std::fs::metadata(&path).is_ok_and(|meta| meta.len() == entry.size()) {
                return Some(path);
            }
        }
        let store = self.loaded.store(settings)?;
        store.find_package(&Key::new(name, version, identity), entry.size())
    }

    /// Returns a package file of the user's store that no repository need list any more: it was read
    /// to its end and is the package with this identity. `None` if the name is no file name.
    pub fn kept_file(
        &self,
        settings: &Settings,
        full_name: &str,
        identity: Identity,
    ) -> Option<PathBuf> {
        if full_name.contains(['/', '\0']) || full_name.starts_with('.') {
            return None;
        }
        let store = self.loaded.store(settings)?;
        let path = store.package_path(&Key::named(full_name, identity));
        let found = crate::fetch::cache::check_package(&path, &settings.limits)?;
        (found == identity).then_some(path)
    }

    /// Returns the address of a package's file in the first repository that can be reached;
    /// without the network only local ones can.
    pub fn url(&self, view: &View<'_>, package: PackageRef, network: bool) -> Option<String> {
        let entry = view.get(package);
        let usable: Vec<&LoadedRepository> = (self.loaded.repositories.iter())
            .filter(|loaded| loaded.index.is_some())
            .collect();
        let found = view.repositories_of(package).map(|number| usable[number]);
        let mut found = found.filter(|loaded| loaded.reachable && (loaded.local || network));
        let named = (entry.name(), entry.version(), entry.arch());
        Some(found.next()?.package_url(named, entry.identity()))
    }

    /// Returns the files of a package file, for `manifest`.
    ///
    /// # Errors
    /// The cause; further lines tell more.
    pub fn manifest(&self, settings: &Settings, file: &str) -> Result<Vec<ManifestFile>, String> {
        let keyring = super::verify::keyring(settings, &self.root).map_err(|e| e.to_string())?;
        let mut files = Vec::new();
        package_file::open(Path::new(file), &keyring, settings)
            .and_then(|(control, data)| {
                let is_v3 = control.form.is_v3();
                package_file::read(data, |entry, _| {
                    // What apk tells of packages of either form.
                    if entry.header.kind == EntryKind::File
                        || is_v3 && entry.header.kind != EntryKind::Directory
                    {
                        let link = matches!(entry.header.kind, EntryKind::Symlink(_));
                        let digest = entry.header.checksum.whole().filter(|_| !link);
                        files.push(ManifestFile {
                            path: entry.path.clone(),
                            digest,
                        });
                    }
                    Ok(())
                })
            })
            .map_err(|error| error.lines())?;
        Ok(files)
    }

    /// Reads what is in the packages that are cached, by the root and for all roots of the user;
    /// files that cannot be read are left out.
    pub fn cached_packages(&self, settings: &Settings) -> Vec<CachedPackage> {
        let mut found = Vec::new();
        if let Some(store) = self.loaded.store(settings) {
            let contents = store.contents(&settings.limits).into_iter();
            found.extend(contents.map(|(full_name, paths)| CachedPackage { full_name, paths }));
        }
        let own = self.cache.as_ref().filter(|cache| cache.packages);
        let entries = own.and_then(|cache| std::fs::read_dir(&cache.path).ok());
        for path in entries
            .into_iter()
            .flatten()
            .flatten()
            .map(|entry| entry.path())
        {
            // NAME-VERSION.HASH.apk
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            let full_name = name
                .strip_suffix(".apk")
                .and_then(|stem| stem.rsplit_once('.'));
            let Some((full_name, _)) = full_name else {
                continue;
            };
            // In the user's store as well; reading it again would tell the same.
            if found.iter().any(|known| known.full_name == full_name) {
                continue;
            }
            if let Ok(files) = self.manifest(settings, &path.to_string_lossy()) {
                found.push(CachedPackage {
                    full_name: full_name.to_owned(),
                    paths: files.into_iter().map(|file| file.path).collect(),
                });
            }
        }
        found.sort_by(|a, b| a.full_name.cmp(&b.full_name));
        found
    }

    /// Solves constraints, conflicts aside, and returns what is selected (cli.md, 3.1).
    ///
    /// # Errors
    /// [`Error::Arguments`] for a word that is no constraint; an unsolvable request is explained
    /// to `sink`, and the error has the number of its causes as code.
    pub fn resolve(
        &self,
        words: &[String],
        with_world: bool,
        available: bool,
        width: usize,
        sink: &mut dyn Sink,
    ) -> Result<Vec<Identity>, Error> {
        let mut sources = solver_sources(&self.loaded, &self.architectures.list);
        sources.installed = InstalledInput::from_db(&self.installed);
        let mut world = if with_world {
            self.world.clone()
        } else {
            World::default()
        };
        for word in words {
            world.add(parse(word)?);
        }
        let mut universe = Universe::new(&sources, &world);
        let flags = Flags::AVAILABLE.when(available);
        let request = solver::dependencies(world.entries, flags, true);
        let solution = solver::solve(&mut universe, &request);
        if solution.errors > 0 {
            sink.error(solver::TITLE);
            sink.event(Event::Text(&solver::report(&universe, &solution, width)));
            let code = solution.errors.min(99) as u8;
            return Err(Error::Arguments {
                lines: Vec::new(),
                code,
            });
        }
        Ok(solution
            .selected()
            .map(|package| universe.identity(package))
            .collect())
    }
}

fn parse(word: &str) -> Result<Dependency, Error> {
    solver::parse_world_argument(word).map_err(|error| Error::Arguments {
        lines: vec![
            error.to_string(),
            "query failed: dependency format is invalid".to_owned(),
        ],
        code: 99,
    })
}

impl Links for Known {
    fn target(&self, path: &str) -> Option<String> {
        let (directory, name) = self.root.parent(path).ok()?;
        String::from_utf8(directory.read_link(name).ok()?).ok()
    }
}
