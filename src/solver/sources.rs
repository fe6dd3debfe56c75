//! Everything a universe is made of, as values (solver.md, chapters 2 and 3).

use crate::package::installed::Broken;
use crate::package::{Flaws, InstalledDb, Package, PackageTable};
use std::collections::HashMap;
use std::sync::{Arc, OnceLock};

/// One repository, in the order of declaration.
#[derive(Clone, Debug)]
pub struct RepositoryInput {
    /// Its records. They are not looked at where [`Sources::joined`] is given, but for the details
    /// of packages.
    pub table: Arc<PackageTable>,
    /// The tags it is declared with; `None` is the default tag.
    pub tags: Vec<Option<String>>,
    /// The index was read to its end. A repository that was not belongs to no tag and is not
    /// reachable, but the records read so far are known.
    pub loaded: bool,
    /// Its packages can be had: it is local or the network may be used (solver.md, 3.3).
    pub reachable: bool,
    /// It is a local path; nothing needs to be downloaded from it.
    pub local: bool,
    /// How to name it to people.
    pub url: String,
}

/// The installed packages as the solver sees them.
#[derive(Clone, Debug)]
pub struct InstalledInput {
    table: Arc<PackageTable>,
    states: Vec<InstalledState>,
    mentioned: Vec<String>,
}

/// What the database says of a package apart from its metadata.
#[derive(Clone, Debug)]
pub(super) struct InstalledState {
    pub(super) tag: Option<String>,
    pub(super) broken: Broken,
}

impl InstalledInput {
    /// Takes what choosing needs from an installed database, in its order.
    pub fn from_db(db: &InstalledDb) -> Self {
        let replaced = db.packages.iter().flat_map(|p| &p.package.replaces);
        Self {
            table: Arc::new(PackageTable::build_core(
                db.packages.iter().map(|p| &p.package),
            )),
            states: db
                .packages
                .iter()
                .map(|p| InstalledState {
                    tag: p.pinned_tag.clone(),
                    broken: p.broken,
                })
                .collect(),
            mentioned: replaced.map(|dependency| dependency.name.clone()).collect(),
        }
    }

    /// Returns the packages as a table.
    pub fn table(&self) -> &Arc<PackageTable> {
        &self.table
    }

    pub(super) fn state(&self, record: u32) -> Option<&InstalledState> {
        self.states.get(record as usize)
    }

    pub(super) fn tags(&self) -> impl Iterator<Item = &String> {
        self.states.iter().filter_map(|state| state.tag.as_ref())
    }

    /// The names that only `replaces` mentions.
    pub(super) fn mentioned(&self) -> impl Iterator<Item = &str> {
        self.mentioned.iter().map(String::as_str)
    }

    pub(super) fn mentions(&self, name: &str) -> bool {
        self.mentioned().any(|mentioned| mentioned == name)
    }
}

impl Default for InstalledInput {
    fn default() -> Self {
        Self::from_db(&InstalledDb::default())
    }
}

/// How a package came to be known other than from the database or a repository.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Registered {
    /// A package file on the command line.
    File,
    /// The virtual package that `add -t` makes.
    Virtual,
}

/// Everything a universe is made of.
#[derive(Clone, Default)]
pub struct Sources {
    /// What is installed.
    pub installed: InstalledInput,
    /// The cache's own `installed` index; only given on a tmpfs root with an active cache.
    pub remembered: Option<Arc<PackageTable>>,
    /// The repositories in the order of declaration.
    pub repositories: Vec<RepositoryInput>,
    /// Tags in the order in which repository lines name them, lines that could not be used
    /// included. Tags of [`RepositoryInput::tags`] that are missing here follow.
    pub tag_order: Vec<String>,
    /// Architectures whose packages may be installed, besides `noarch` and none.
    pub architectures: Vec<String>,
    /// Name and length of the files in the active package cache (solver.md, 2.2 "cached").
    pub cache_files: HashMap<String, u64>,
    /// The packages that the command line brings.
    pub registered: RegisteredInput,
    /// The tables of the repositories joined in their order, if somebody has that already.
    pub joined: OnceLock<Arc<PackageTable>>,
}

/// Packages that the command line brings.
#[derive(Clone, Debug, Default)]
pub struct RegisteredInput(Option<Arc<(PackageTable, Vec<Registered>)>>);

impl RegisteredInput {
    /// Takes the packages in the order of the arguments.
    pub fn new(packages: &[(Package, Registered)]) -> Self {
        let owned: Vec<Package> = packages
            .iter()
            .map(|(package, _)| package.clone())
            .collect();
        Self((!packages.is_empty()).then(|| {
            Arc::new((
                // What is installed from here is recorded with its details.
                PackageTable::build(&owned),
                packages.iter().map(|(_, origin)| *origin).collect(),
            ))
        }))
    }

    pub(super) fn table(&self) -> Option<&PackageTable> {
        self.0.as_ref().map(|registered| &registered.0)
    }

    pub(super) fn origin(&self, record: u32) -> Option<Registered> {
        let registered = self.0.as_ref()?;
        registered.1.get(record as usize).copied()
    }
}

impl Sources {
    /// Returns the tables of all repositories as one ([`PackageTable::join`]).
    pub fn joined(&self) -> &PackageTable {
        self.joined.get_or_init(|| {
            let tables: Vec<&PackageTable> =
                self.repositories.iter().map(|r| r.table.as_ref()).collect();
            match self.repositories.as_slice() {
                [only] if only.table.has_distinct_identities() => only.table.clone(),
                _ => Arc::new(PackageTable::join(&tables)),
            }
        })
    }

    /// Scanning the cache makes names of what stands before each `-` of a file name.
    pub(super) fn cached_names(&self) -> impl Iterator<Item = &str> {
        let files = self.cache_files.keys();
        files.flat_map(|file| file.match_indices('-').map(|(at, _)| &file[..at]))
    }

    /// Returns the warnings about records that could not be read as written, in the order in
    /// which apk prints them before everything else (solver.md, 1.7).
    pub fn warnings(&self) -> Vec<&'static str> {
        // Where there is a joined table, the others may not have been loaded.
        let tables = std::iter::once(&self.installed.table)
            .chain(&self.remembered)
            .chain(self.repositories.iter().map(|r| &r.table))
            .chain(self.joined.get());
        let mut all = Flaws::default();
        for table in tables {
            let flaws = table.flaws();
            all.uninstallable |= flaws.uninstallable;
            all.broken_list |= flaws.broken_list;
            all.unknown_field |= flaws.unknown_field;
        }
        // One uninstallable package decides the words of both.
        let (old, broken) = if all.uninstallable {
            (
                "This apk-tools is OLD! Some packages are not installable.",
                "The indexes contain broken packages which are not installable.",
            )
        } else {
            (
                "This apk-tools is OLD! Some packages might not function properly.",
                "The indexes contain broken packages which might not function properly.",
            )
        };
        let old = all.unknown_field.then_some(old);
        let broken = all.broken_list.then_some(broken);
        old.into_iter().chain(broken).collect()
    }
}
