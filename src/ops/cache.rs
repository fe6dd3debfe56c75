//! `cache`: fill and tidy the package cache (cli.md, 2.6).
//!
//! Only what is in the cache directory itself is ever deleted, and only what no later command could
//! use.

use super::change::solver_sources;
use super::database::{Database, OpenOptions};
use super::download::{self, PackageFiles, Want};
use super::refresh::{self, LoadedRepositories, Purpose, cached_index_name};
use super::{Error, query::Answer};
use crate::config::{CacheDirectory, Settings};
use crate::fetch::Depth;
use crate::package::World;
use crate::plan::{Change, NewPackage, Plan, Source};
use crate::progress::{Event, Level, Sink};
use crate::solver::{self, Flags, InstalledInput, Solution, Universe};
use std::collections::{HashMap, HashSet};
use std::path::Path;

/// What to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CacheCommand {
    /// Delete what no repository mentions.
    Clean,
    /// Delete packages, too.
    Purge,
    /// Fetch what is needed and not there.
    Download,
    /// Clean, then download.
    Sync,
}

impl CacheCommand {
    /// Reads the word of the command line.
    pub fn from_name(name: &str) -> Option<Self> {
        Some(match name {
            "clean" => Self::Clean,
            "purge" => Self::Purge,
            "download" => Self::Download,
            "sync" => Self::Sync,
            _ => return None,
        })
    }
}

/// How to do it.
#[derive(Clone, Debug)]
pub struct CacheOptions {
    /// What to do.
    pub command: CacheCommand,
    /// What to download for; nothing stands for the world.
    pub constraints: Vec<String>,
    /// The world counts, too.
    pub add_dependencies: bool,
    /// Flags of all packages.
    pub flags: Flags,
    /// Conflicts do not count.
    pub ignore_conflicts: bool,
    /// Change nothing.
    pub simulate: bool,
    /// Go on although indexes are stale or unavailable.
    pub force_missing_repositories: bool,
    /// `clean` deletes packages, too.
    pub purge: bool,
    /// Columns of the display.
    pub width: usize,
}

/// Tidies or fills the cache; the status is the number of packages that could not be had.
///
/// # Errors
/// [`enum@Error`]; what was done so far stays.
pub fn run(
    settings: &Settings,
    options: &CacheOptions,
    sink: &mut dyn Sink,
) -> Result<Answer, Error> {
    let unreadable = |error: crate::root::RootError| Error::Database {
        cause: error.cause(),
    };
    let database = Database::open(&settings.root, &OpenOptions::default(), sink)?;
    let root = &database.root;
    let architectures = settings.architectures(root, true).map_err(unreadable)?;
    let keyring = settings.keyring(root).map_err(unreadable)?;
    let cache = settings
        .cache_directory(root)
        .map_err(|error| Error::Cache {
            cause: error.cause(),
        })?;
    let context = refresh::Context {
        root,
        settings,
        arch: &architectures.list[0],
        keyring: &keyring,
        cache: cache.as_ref(),
    };
    let loaded = refresh::load(context, Purpose::Read, Depth::Records, sink).map_err(unreadable)?;
    let mut sources = solver_sources(&loaded, &architectures.list);
    sources.installed = InstalledInput::from_db(&database.installed);
    for warning in sources.warnings() {
        sink.warning(warning);
    }
    let all_there = loaded
        .repositories
        .iter()
        .all(|loaded| loaded.index.is_some());
    let chooses = options.flags != Flags::default() || options.ignore_conflicts;
    if chooses && !all_there && !options.force_missing_repositories {
        return Err(Error::Arguments {
            lines: vec![
                "Not continuing due to stale/unavailable repositories. Use \
                 --force-missing-repositories to continue."
                    .into(),
            ],
            code: 3,
        });
    }
    let work = Work {
        settings,
        options,
        database: &database,
        loaded: &loaded,
        cache: cache.as_ref(),
    };
    let command = options.command;
    if matches!(
        command,
        CacheCommand::Clean | CacheCommand::Purge | CacheCommand::Sync
    ) {
        work.clean(command == CacheCommand::Purge || options.purge, sink)?;
    }
    if matches!(command, CacheCommand::Download | CacheCommand::Sync) {
        let world = work.world()?;
        let mut universe = Universe::new(&sources, &world);
        return work.download(&mut universe, world, sink);
    }
    Ok(Answer::default())
}

struct Work<'a> {
    settings: &'a Settings,
    options: &'a CacheOptions,
    database: &'a Database,
    loaded: &'a LoadedRepositories,
    cache: Option<&'a CacheDirectory>,
}

impl Work<'_> {
    fn world(&self) -> Result<World, Error> {
        let constraints = &self.options.constraints;
        let mut world = match constraints.is_empty() || self.options.add_dependencies {
            true => self.database.world.clone(),
            false => World::default(),
        };
        for text in constraints {
            let bad = |_| Error::Arguments {
                lines: vec![format!("bad dependency: {text}")],
                code: 99,
            };
            world.add(solver::parse_world_argument(text).map_err(bad)?);
        }
        Ok(world)
    }

    /// Deletes what is of no use in the cache directory. The packages that are kept for all roots
    /// of a user go only if the root has no package cache of its own and all shall go.
    fn clean(&self, purge: bool, sink: &mut dyn Sink) -> Result<(), Error> {
        let own = self.cache.is_some_and(|cache| cache.packages);
        if let (true, false, false, Some(store)) = (
            purge,
            own,
            self.options.simulate,
            self.loaded.store(self.settings),
        ) {
            store.clear(None);
        }
        let Some(cache) = self.cache else {
            return Ok(());
        };
        let keep = self.useful_names(purge);
        let entries = match std::fs::read_dir(&cache.path) {
            Ok(entries) => entries,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(self.failed(&cache.path, &error)),
        };
        let mut names: Vec<_> = entries.flatten().map(|entry| entry.file_name()).collect();
        names.sort();
        for name in names {
            let shown = name.to_string_lossy();
            if keep.contains(shown.as_ref()) {
                continue;
            }
            sink.line(Level::Detail, &format!("deleting {shown}"));
            if self.options.simulate {
                continue;
            }
            let path = cache.path.join(&name);
            let is_directory = std::fs::symlink_metadata(&path).is_ok_and(|meta| meta.is_dir());
            let removed = match is_directory {
                true => std::fs::remove_dir_all(&path),
                false => std::fs::remove_file(&path),
            };
            removed.map_err(|error| self.failed(&path, &error))?;
        }
        Ok(())
    }

    fn failed(&self, path: &Path, error: &std::io::Error) -> Error {
        let cause = crate::root::cause(error);
        Error::Arguments {
            lines: vec![format!("{}: {cause}", path.display())],
            code: 99,
        }
    }

    /// Returns the names that a later command could use.
    fn useful_names(&self, purge: bool) -> HashSet<String> {
        let mut names = HashSet::new();
        let on_tmpfs = self.settings.is_tmpfs(&self.database.root);
        if on_tmpfs {
            names.insert("installed".to_owned());
        }
        let remote = self
            .loaded
            .repositories
            .iter()
            .filter(|loaded| !loaded.local);
        for loaded in remote {
            let index = cached_index_name(&loaded.repository.index_url);
            names.insert(format!(".{index}.validators"));
            names.insert(index);
            let Some(index) = loaded.index.as_ref().filter(|_| !purge) else {
                continue;
            };
            let table = index.table();
            for number in 0..table.len() as u32 {
                let record = table.record(number);
                let hash = record.identity().hex();
                let (name, version) = (record.name(), record.version());
                names.insert(format!("{name}-{version}.{}.apk", &hash[..8]));
            }
        }
        // What a system in memory needs at its next start must stay.
        if !purge || on_tmpfs {
            let packages = self.database.installed.packages.iter();
            let packages = packages.filter(|_| on_tmpfs);
            names.extend(packages.map(|p| download::cached_package_name(&p.package)));
        }
        names
    }

    /// Downloads what the solution needs and the cache lacks.
    fn download(
        &self,
        universe: &mut Universe<'_>,
        world: World,
        sink: &mut dyn Sink,
    ) -> Result<Answer, Error> {
        let cache = self.cache.filter(|cache| cache.packages);
        if cache.is_none() && self.loaded.store(self.settings).is_none() {
            // apk says nothing; `sync` of a script that also runs without a cache goes on.
            return match self.options.command {
                CacheCommand::Sync => Ok(Answer::default()),
                _ => Err(Error::Arguments {
                    lines: vec![
                        "there is no package cache: make etc/apk/cache, or name one with \
                         --cache-dir"
                            .to_owned(),
                    ],
                    code: 1,
                }),
            };
        }
        let request = solver::dependencies(
            world.entries,
            self.options.flags,
            self.options.ignore_conflicts,
        );
        let solution = solver::solve(universe, &request);
        if solution.errors > 0 {
            sink.error("Unable to select packages. Run apk fix.");
            let report = solver::report(universe, &solution, self.options.width);
            sink.event(Event::Text(&report));
            return Ok(Answer {
                status: solution.errors as usize,
                ..Answer::default()
            });
        }
        let files = HashMap::new();
        let packages = PackageFiles {
            settings: self.settings,
            repositories: self.loaded,
            cache,
            files: &files,
        };
        let plan = plan(universe, &solution, &packages);
        let count = plan.changes.len();
        if count == 0 {
            return Ok(Answer::default());
        }
        sink.info(&format!("Downloading {count} packages..."));
        let digits = count.to_string().len();
        for (at, change) in plan.changes.iter().enumerate() {
            let name = change.new.as_ref().map(|new| new.package.full_name());
            let name = name.unwrap_or_default();
            sink.info(&format!("({:>digits$}/{count}) Downloading {name}", at + 1));
        }
        if !self.options.simulate {
            download::make_ready(plan, &packages, Want::Files, sink)?;
        }
        Ok(Answer::default())
    }
}

/// Returns a plan of the packages that have to be downloaded, in the order of installation.
fn plan(universe: &Universe<'_>, solution: &Solution, packages: &PackageFiles<'_>) -> Plan {
    let missing = solution.selected().filter_map(|package| {
        let new = NewPackage {
            package: universe.package(package),
            tag: None,
            source: packages.source(universe, package),
        };
        let missing = match new.source {
            Source::Remote(_) => true,
            // In the user's store, but not in the root's own cache.
            Source::File(_) => {
                let local = matches!(packages.origin(universe, package), Source::File(_));
                !local && packages.is_to_be_cached(&new.package)
            }
            _ => false,
        };
        missing.then_some(new)
    });
    let changes = missing.map(|new| Change {
        old: None,
        new: Some(new),
        reinstall: false,
    });
    Plan {
        changes: changes.collect(),
    }
}
