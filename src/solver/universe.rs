//! All that may be chosen: packages, names and offers of every source, merged by identity
//! (solver.md, chapters 2 and 3).
//!
//! A [`Universe`] is loaded lazily. It borrows [`PackageTable`]s and turns only those names and
//! records into ids that a question reaches, so its cost follows the question and not the size of
//! the repositories. Texts stay in the tables.
//!
//! It decides nothing and must never read a file or ask a clock: everything it judges by is in
//! [`Sources`].

use crate::package::installed::Broken;
use crate::package::name_hash::BUCKETS;
use crate::package::table::{NameRef, Record, TableDependency, hash};
use crate::package::{
    Dependency, Flaws, Identity, InstalledDb, Operator, Package, PackageTable, World,
};
use std::borrow::Cow;
use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

/// A name, valid for one [`Universe`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NameId(pub(super) u32);

/// A package, valid for one [`Universe`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PackageId(pub(super) u32);

/// A repository tag; [`TagId::DEFAULT`] stands for "untagged".
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TagId(pub(super) u8);

impl TagId {
    /// The tag of repositories and requirements that name none.
    pub const DEFAULT: Self = Self(0);
}

/// A small set of repositories or tags, by number.
///
/// apk allows 32 repositories and 15 tags; numbers above 63 are not representable and are left
/// out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct NumberSet(u64);

impl NumberSet {
    pub(super) fn single(number: usize) -> Self {
        Self(1u64.checked_shl(number as u32).unwrap_or(0))
    }

    pub(super) fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    pub(super) fn meets(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    pub(super) fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Returns the lowest number.
    pub(super) fn first(self) -> Option<u32> {
        (self.0 != 0).then(|| self.0.trailing_zeros())
    }

    pub(super) fn iter(self) -> impl Iterator<Item = usize> {
        (0..64).filter(move |number| self.0 >> number & 1 != 0)
    }
}

/// One repository, in the order of declaration.
#[derive(Clone, Debug)]
pub struct RepositoryInput {
    /// Its records.
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

#[derive(Clone, Debug)]
struct InstalledState {
    tag: Option<String>,
    broken: Broken,
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
}

/// Packages that the command line brings.
#[derive(Clone, Debug, Default)]
pub struct RegisteredInput(Option<Arc<(PackageTable, Vec<Registered>)>>);

impl RegisteredInput {
    /// Takes the packages in the order of the arguments.
    pub fn new(packages: &[(Package, Registered)]) -> Self {
        Self((!packages.is_empty()).then(|| {
            Arc::new((
                PackageTable::build_core(packages.iter().map(|(package, _)| package)),
                packages.iter().map(|(_, origin)| *origin).collect(),
            ))
        }))
    }
}

impl Sources {
    /// Returns the warnings about records that could not be read as written, in the order in
    /// which apk prints them before everything else (solver.md, 1.7).
    pub fn warnings(&self) -> Vec<&'static str> {
        let tables = std::iter::once(&self.installed.table)
            .chain(&self.remembered)
            .chain(self.repositories.iter().map(|r| &r.table));
        let mut all = Flaws::default();
        for table in tables {
            for record in 0..table.len() as u32 {
                let flaws = table.record(record).flaws();
                all.uninstallable |= flaws.uninstallable;
                all.broken_list |= flaws.broken_list;
                all.unknown_field |= flaws.unknown_field;
            }
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

/// A dependency with its name resolved.
#[derive(Clone, Copy, Debug)]
pub(super) struct Need<'a> {
    /// The name.
    pub name: NameId,
    /// Accepted outcomes.
    pub operator: Operator,
    /// `!`.
    pub conflict: bool,
    /// The version is not well-formed.
    pub broken: bool,
    /// The version text.
    pub version: &'a str,
}

impl<'a> Need<'a> {
    pub(super) fn new(name: NameId, dependency: &'a Dependency) -> Self {
        Self {
            name,
            operator: dependency.operator,
            conflict: dependency.conflict,
            broken: dependency.broken,
            version: &dependency.version,
        }
    }

    fn from_table(name: NameId, entry: TableDependency<'a>) -> Self {
        Self {
            name,
            operator: entry.operator,
            conflict: entry.conflict,
            broken: entry.broken,
            version: entry.version,
        }
    }

    /// Returns whether a version and identity answer the dependency (solver.md, 1.5 and 1.6).
    pub(super) fn accepts(&self, version: &str, identity: impl FnOnce() -> Identity) -> bool {
        if self.operator == Operator::CHECKSUM && !self.conflict {
            return Identity::parse(self.version) == Some(identity());
        }
        self.operator.accepts(version, self.version) != self.conflict
    }
}

/// A package under one of the names it answers to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Offer {
    /// The package.
    pub package: PackageId,
    /// Which of its provides, or [`Offer::OWN`].
    provide: u32,
}

impl Offer {
    const OWN: u32 = u32::MAX;
}

/// A repository of a universe.
#[derive(Clone, Copy, Debug)]
pub(super) struct Repository {
    pub(super) reachable: bool,
    pub(super) local: bool,
}

/// One block of records and what was made of it so far. Ids are stored plus one, 0 is "none".
struct Source<'a> {
    table: &'a PackageTable,
    kind: SourceKind,
    names: Vec<u32>,
    records: Vec<u32>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum SourceKind {
    Installed,
    Remembered,
    Repository(usize),
    Registered,
}

struct Name<'a> {
    text: Cow<'a, str>,
    hash: u32,
    /// When it was first mentioned: source in the upper half, position in the lower.
    created: u64,
    offers: Option<Range<u32>>,
    triggers: Option<Range<u32>>,
}

#[derive(Clone, Copy)]
struct PackageEntry {
    source: u16,
    record: u32,
    name: NameId,
    repositories: NumberSet,
    /// Position in the database plus one.
    installed: u32,
    remembered: bool,
    from_file: bool,
    made_virtual: bool,
    size: u64,
    lists: Option<Lists>,
}

/// Where the names of a package's lists are in [`Universe::refs`].
#[derive(Clone, Copy)]
struct Lists {
    depends: u32,
    provides: u32,
    install_if: u32,
    end: u32,
}

/// All that may be chosen.
pub struct Universe<'a> {
    input: &'a Sources,
    sources: Vec<Source<'a>>,
    names: Vec<Name<'a>>,
    /// For each name, its id in each source plus one.
    locals: Vec<u32>,
    outside: HashMap<String, NameId>,
    packages: Vec<PackageEntry>,
    offers: Vec<Offer>,
    refs: Vec<NameId>,
    trigger_lists: Vec<NameId>,
    installed: Vec<PackageId>,
    repositories: Vec<Repository>,
    tags: Vec<String>,
    tag_repositories: Vec<NumberSet>,
}

impl<'a> Universe<'a> {
    /// Makes a universe in which the names of the world and the installed packages are loaded.
    ///
    /// The world is needed because names and tags are numbered by their first mention.
    pub fn new(sources: &'a Sources, world: &World) -> Self {
        let mut tables = vec![(sources.installed.table.as_ref(), SourceKind::Installed)];
        let remembered = sources.remembered.iter();
        tables.extend(remembered.map(|table| (table.as_ref(), SourceKind::Remembered)));
        tables.extend(
            sources
                .repositories
                .iter()
                .enumerate()
                .map(|(number, r)| (r.table.as_ref(), SourceKind::Repository(number))),
        );
        if let Some(registered) = &sources.registered.0 {
            tables.push((&registered.0, SourceKind::Registered));
        }
        let mut universe = Self {
            input: sources,
            sources: tables
                .into_iter()
                .map(|(table, kind)| Source {
                    table,
                    kind,
                    names: vec![0; table.name_count()],
                    records: vec![0; table.len()],
                })
                .collect(),
            names: Vec::new(),
            locals: Vec::new(),
            outside: HashMap::new(),
            packages: Vec::new(),
            offers: Vec::new(),
            refs: Vec::new(),
            trigger_lists: Vec::new(),
            installed: Vec::new(),
            repositories: Vec::new(),
            tags: vec![String::new()],
            tag_repositories: Vec::new(),
        };
        universe.number_tags(world);
        for (position, entry) in world.entries.iter().enumerate() {
            let name = universe.intern(&entry.name);
            let created = &mut universe.names[name.0 as usize].created;
            *created = (*created).min(position as u64);
        }
        universe.load_installed();
        universe
    }

    fn number_tags(&mut self, world: &World) {
        let input = self.input;
        let lines = &input.repositories;
        let of_world = world.entries.iter().filter_map(|e| e.tag.as_ref());
        let of_installed = input.installed.states.iter().filter_map(|s| s.tag.as_ref());
        let of_lines = lines.iter().flat_map(|r| r.tags.iter().flatten());
        let all = of_world
            .chain(of_installed)
            .chain(&input.tag_order)
            .chain(of_lines);
        for tag in all {
            self.tag(tag);
        }
        self.tag_repositories = vec![NumberSet::default(); self.tags.len()];
        for (number, line) in lines.iter().enumerate() {
            self.repositories.push(Repository {
                reachable: line.loaded && line.reachable,
                local: line.local,
            });
            for tag in line.tags.iter().filter(|_| line.loaded) {
                let tag = tag.as_ref().map_or(TagId::DEFAULT, |tag| self.tag(tag));
                let set = &mut self.tag_repositories[tag.0 as usize];
                *set = set.union(NumberSet::single(number));
            }
        }
    }

    /// Returns the number of a tag, which is made if it is new.
    pub fn tag(&mut self, text: &str) -> TagId {
        let known = self.tags.iter().skip(1).position(|tag| tag == text);
        let number = known.map_or(self.tags.len(), |at| at + 1);
        if known.is_none() && number < 64 {
            self.tags.push(text.to_owned());
            self.tag_repositories.push(NumberSet::default());
        }
        TagId(number.min(64) as u8)
    }

    /// Returns the number of a known tag.
    pub(super) fn find_tag(&self, text: &str) -> Option<TagId> {
        let at = self.tags.iter().skip(1).position(|tag| tag == text)?;
        Some(TagId(at as u8 + 1))
    }

    /// Returns the text of a tag, without `@`; `None` for the default tag.
    pub fn tag_text(&self, tag: TagId) -> Option<&str> {
        match tag {
            TagId::DEFAULT => None,
            TagId(number) => self.tags.get(number as usize).map(String::as_str),
        }
    }

    /// Returns all tags in order, the default tag first.
    pub(super) fn tags(&self) -> impl Iterator<Item = TagId> + use<> {
        (0..self.tags.len() as u8).map(TagId)
    }

    /// Returns the loaded repositories that are declared with a tag.
    pub(super) fn repositories_of_tag(&self, tag: TagId) -> NumberSet {
        let set = self.tag_repositories.get(tag.0 as usize);
        set.copied().unwrap_or_default()
    }

    /// Returns the loaded repositories that are declared with any of the tags.
    pub(super) fn repositories_of_tags(&self, tags: NumberSet) -> NumberSet {
        let sets = self.tag_repositories.iter().enumerate();
        sets.filter(|(tag, _)| tags.0 >> tag & 1 != 0)
            .fold(NumberSet::default(), |all, (_, set)| all.union(*set))
    }

    fn load_installed(&mut self) {
        for record in 0..self.sources[0].table.len() as u32 {
            let package = self.package_of(0, record);
            let entry = &mut self.packages[package.0 as usize];
            if entry.installed == 0 {
                entry.installed = record + 1;
                self.installed.push(package);
            }
        }
        for at in 0..self.installed.len() {
            let package = self.installed[at];
            self.load_lists(package);
            for name in self.offered_names(package).collect::<Vec<_>>() {
                self.load_rivals(name);
                self.load_triggers(name);
            }
        }
    }

    /// Loads the offers of a name and the lists of the packages that make them. Reports and
    /// `del -r` look at what they depend on even if the question does not reach them.
    pub(super) fn load_rivals(&mut self, name: NameId) {
        for at in self.load_offers(name) {
            self.load_lists(self.offers[at as usize].package);
        }
    }

    /// Returns the id of a name, which is made if it is new.
    pub fn intern(&mut self, text: &str) -> NameId {
        if let Some(name) = self.find(text) {
            return name;
        }
        let text_hash = hash(text);
        for source in 0..self.sources.len() {
            if let Some(local) = self.sources[source].table.find_name(text, text_hash) {
                return self.intern_local(source, local);
            }
        }
        let name = self.push_name(Cow::Owned(text.to_owned()), text_hash, usize::MAX, 0);
        self.outside.insert(text.to_owned(), name);
        name
    }

    /// Returns the id of a name that is already loaded.
    pub(super) fn find(&self, text: &str) -> Option<NameId> {
        if let Some(name) = self.outside.get(text) {
            return Some(*name);
        }
        let text_hash = hash(text);
        self.sources.iter().find_map(|source| {
            let local = source.table.find_name(text, text_hash)?;
            let name = source.names.get(local.0 as usize)?.checked_sub(1)?;
            Some(NameId(name))
        })
    }

    /// Returns the name if any source mentions it (solver.md, 5.3 "known").
    pub fn known(&mut self, text: &str) -> Option<NameId> {
        let text_hash = hash(text);
        let tables = self.sources.iter();
        let known = self.outside.contains_key(text)
            || tables
                .map(|source| source.table)
                .any(|table| table.find_name(text, text_hash).is_some())
            || self
                .input
                .installed
                .mentioned
                .iter()
                .any(|name| name == text)
            || self.cached_names().any(|name| name == text);
        known.then(|| self.intern(text))
    }

    /// Returns every known name that satisfies `wanted`, in the order of the name table.
    pub fn known_matching(&mut self, wanted: impl Fn(&str) -> bool) -> Vec<NameId> {
        let mut texts: Vec<String> = Vec::new();
        for source in &self.sources {
            let all = source.table.names().map(|name| source.table.name(name));
            texts.extend(all.filter(|text| wanted(text)).map(str::to_owned));
        }
        let others = self.outside.keys().map(String::as_str);
        let others = others.chain(self.input.installed.mentioned.iter().map(String::as_str));
        let others = others.chain(self.cached_names());
        texts.extend(others.filter(|text| wanted(text)).map(str::to_owned));
        let mut names: Vec<NameId> = texts.iter().map(|text| self.intern(text)).collect();
        names.sort_by_key(|name| self.table_key(*name));
        names.dedup();
        names
    }

    /// Scanning the cache makes names of what stands before each `-` of a file name.
    fn cached_names(&self) -> impl Iterator<Item = &'a str> {
        self.input
            .cache_files
            .keys()
            .flat_map(|file| file.match_indices('-').map(|(at, _)| &file[..at]))
    }

    fn push_name(&mut self, text: Cow<'a, str>, hash: u32, source: usize, local: u32) -> NameId {
        let id = NameId(self.names.len() as u32);
        let source = (source as u64).saturating_add(1).min(u64::from(u32::MAX));
        self.names.push(Name {
            text,
            hash,
            created: source << 32 | u64::from(local),
            offers: None,
            triggers: None,
        });
        self.locals.resize(self.names.len() * self.sources.len(), 0);
        id
    }

    fn intern_local(&mut self, source: usize, local: NameRef) -> NameId {
        match self.sources[source].names.get(local.0 as usize) {
            Some(0) => {}
            Some(known) => return NameId(known - 1),
            // Only a damaged table names what it does not have.
            None => return self.intern(""),
        }
        let table = self.sources[source].table;
        let (text, text_hash) = (table.name(local), table.name_hash(local));
        let row = self.locals.len();
        let mut first = None;
        let id = self.names.len() as u32 + 1;
        self.locals.resize(row + self.sources.len(), 0);
        for (number, other) in self.sources.iter_mut().enumerate() {
            let found = if number == source {
                Some(local)
            } else {
                other.table.find_name(text, text_hash)
            };
            let Some(found) = found else { continue };
            let Some(slot) = other.names.get_mut(found.0 as usize) else {
                continue;
            };
            *slot = id;
            self.locals[row + number] = found.0 + 1;
            first = first.or(Some((number, found.0)));
        }
        let (first, position) = first.unwrap_or((source, local.0));
        self.push_name(Cow::Borrowed(text), text_hash, first, position)
    }

    fn local(&self, name: NameId, source: usize) -> Option<NameRef> {
        let row = name.0 as usize * self.sources.len();
        self.locals[row + source].checked_sub(1).map(NameRef)
    }

    /// Returns the package of a record, which is made if it is new. All records of one identity
    /// are one package, whatever their names; the first supplies the metadata.
    fn package_of(&mut self, source: usize, record: u32) -> PackageId {
        let known = self.sources[source].records[record as usize];
        if known != 0 {
            return PackageId(known - 1);
        }
        let identity = self.sources[source].table.record(record).identity();
        let mut sources = self.sources[..source].iter().enumerate();
        let first = sources.find_map(|(number, other)| {
            let found = other.table.find_identity(identity)?;
            Some((number, found))
        });
        let first = first.or_else(|| {
            let found = self.sources[source].table.find_identity(identity);
            found.map(|found| (source, found))
        });
        let (first_source, first_record) = first.unwrap_or((source, record));
        let known = self.sources[first_source].records[first_record as usize];
        let package = match known.checked_sub(1) {
            Some(known) => PackageId(known),
            None => self.push_package(first_source, first_record, identity),
        };
        self.sources[source].records[record as usize] = package.0 + 1;
        package
    }

    fn push_package(&mut self, source: usize, record: u32, identity: Identity) -> PackageId {
        let package = PackageId(self.packages.len() as u32);
        let first = self.sources[source].table.record(record);
        let mut entry = PackageEntry {
            source: source as u16,
            record,
            name: self.intern_local(source, first.name_ref()),
            repositories: NumberSet::default(),
            installed: 0,
            remembered: self.sources[source].kind == SourceKind::Remembered,
            from_file: false,
            made_virtual: false,
            size: first.size(),
            lists: None,
        };
        for other in &self.sources[source..] {
            let Some(record) = other.table.find_identity(identity) else {
                continue;
            };
            match other.kind {
                SourceKind::Repository(number) => {
                    if entry.repositories.is_empty() {
                        entry.size = other.table.record(record).size();
                    }
                    entry.repositories = entry.repositories.union(NumberSet::single(number));
                }
                SourceKind::Registered => {
                    let registered = self.input.registered.0.as_ref();
                    match registered.and_then(|r| r.1.get(record as usize)) {
                        Some(Registered::File) => entry.from_file = true,
                        Some(Registered::Virtual) => entry.made_virtual = true,
                        None => {}
                    }
                }
                SourceKind::Installed | SourceKind::Remembered => {}
            }
        }
        self.packages.push(entry);
        self.sources[source].records[record as usize] = package.0 + 1;
        package
    }

    /// Loads the offers of a name.
    pub(super) fn load_offers(&mut self, name: NameId) -> Range<u32> {
        if let Some(range) = &self.names[name.0 as usize].offers {
            return range.clone();
        }
        let start = self.offers.len() as u32;
        for source in 0..self.sources.len() {
            let Some(local) = self.local(name, source) else {
                continue;
            };
            let table = self.sources[source].table;
            for offer in table.offers(local) {
                if offer.record as usize >= self.sources[source].records.len() {
                    continue;
                }
                let package = self.package_of(source, offer.record);
                let entry = &self.packages[package.0 as usize];
                // Later records of an identity offer nothing.
                if (entry.source as usize, entry.record) == (source, offer.record) {
                    self.offers.push(Offer {
                        package,
                        provide: offer.provide.unwrap_or(Offer::OWN),
                    });
                }
            }
        }
        let range = start..self.offers.len() as u32;
        self.names[name.0 as usize].offers = Some(range.clone());
        range
    }

    /// Loads the names of a package's lists.
    pub(super) fn load_lists(&mut self, package: PackageId) {
        let entry = self.packages[package.0 as usize];
        if entry.lists.is_some() {
            return;
        }
        let source = entry.source as usize;
        let record = self.sources[source].table.record(entry.record);
        let depends = self.refs.len() as u32;
        for local in record.depend_names() {
            let name = self.intern_local(source, local);
            self.refs.push(name);
        }
        let provides = self.refs.len() as u32;
        for local in record.provide_names() {
            let name = self.intern_local(source, local);
            self.refs.push(name);
        }
        let install_if = self.refs.len() as u32;
        for local in record.install_if_names() {
            let name = self.intern_local(source, local);
            self.refs.push(name);
        }
        self.packages[package.0 as usize].lists = Some(Lists {
            depends,
            provides,
            install_if,
            end: self.refs.len() as u32,
        });
    }

    /// Loads the names that a name may trigger (solver.md, 2.4).
    pub(super) fn load_triggers(&mut self, name: NameId) -> Range<u32> {
        if let Some(range) = &self.names[name.0 as usize].triggers {
            return range.clone();
        }
        let (mut list, mut late) = (Vec::new(), Vec::new());
        for source in 0..self.sources.len() {
            let Some(local) = self.local(name, source) else {
                continue;
            };
            let table = self.sources[source].table;
            for record in table.triggered(local) {
                if record as usize >= self.sources[source].records.len() {
                    continue;
                }
                let package = self.package_of(source, record);
                let entry = &self.packages[package.0 as usize];
                if (entry.source as usize, entry.record) != (source, record) {
                    continue;
                }
                self.load_lists(package);
                let names = self.offered_names(package);
                if self.sources[source].kind == SourceKind::Registered {
                    late.extend(names);
                } else {
                    list.extend(names);
                }
            }
        }
        list.sort_unstable_by_key(|name| self.table_key(*name));
        list.dedup();
        for name in late {
            if !list.contains(&name) {
                list.push(name);
            }
        }
        let start = self.trigger_lists.len() as u32;
        self.trigger_lists.extend(list);
        let range = start..self.trigger_lists.len() as u32;
        self.names[name.0 as usize].triggers = Some(range.clone());
        range
    }

    /// Returns the key that sorts names in the order of apk's name table (solver.md, Appendix A).
    pub(super) fn table_key(&self, name: NameId) -> (u32, std::cmp::Reverse<u64>) {
        let name = &self.names[name.0 as usize];
        (name.hash % BUCKETS, std::cmp::Reverse(name.created))
    }

    /// Returns the number of names so far.
    pub(super) fn name_count(&self) -> usize {
        self.names.len()
    }

    /// Returns the number of packages so far.
    pub(super) fn package_count(&self) -> usize {
        self.packages.len()
    }

    /// Returns all packages loaded so far.
    pub(super) fn packages(&self) -> impl Iterator<Item = PackageId> + use<> {
        (0..self.packages.len() as u32).map(PackageId)
    }

    /// Returns all names loaded so far.
    pub(super) fn names(&self) -> impl Iterator<Item = NameId> + use<> {
        (0..self.names.len() as u32).map(NameId)
    }

    /// Returns the text of a name.
    pub fn name_text(&self, name: NameId) -> &str {
        &self.names[name.0 as usize].text
    }

    /// Returns the installed packages in database order.
    pub fn installed(&self) -> &[PackageId] {
        &self.installed
    }

    /// Returns the offers of a name; none if they were not loaded.
    pub(super) fn offers(&self, name: NameId) -> &[Offer] {
        match &self.names[name.0 as usize].offers {
            Some(range) => &self.offers[range.start as usize..range.end as usize],
            None => &[],
        }
    }

    pub(super) fn offer_at(&self, at: u32) -> Offer {
        self.offers[at as usize]
    }

    /// Returns whether the offers of a name were loaded.
    pub(super) fn has_offers_loaded(&self, name: NameId) -> bool {
        self.names[name.0 as usize].offers.is_some()
    }

    /// Returns the names that a name may trigger; none if they were not loaded.
    pub(super) fn triggers(&self, name: NameId) -> &[NameId] {
        match &self.names[name.0 as usize].triggers {
            Some(range) => &self.trigger_lists[range.start as usize..range.end as usize],
            None => &[],
        }
    }

    pub(super) fn trigger_at(&self, at: u32) -> NameId {
        self.trigger_lists[at as usize]
    }

    /// Returns the loaded packages whose depends mention a name, as (package, late) where late
    /// says that the package was registered after the sources were read.
    pub(super) fn mentioning(&self, name: NameId) -> impl Iterator<Item = (PackageId, bool)> + '_ {
        let sources = self.sources.iter().enumerate();
        sources.flat_map(move |(number, source)| {
            let local = self.local(name, number);
            let records = local.into_iter().flat_map(|l| source.table.dependents(l));
            records.filter_map(move |record| {
                let known = source.records.get(record as usize)?.checked_sub(1)?;
                let entry = &self.packages[known as usize];
                let first = (entry.source as usize, entry.record) == (number, record);
                let late = source.kind == SourceKind::Registered;
                (first && entry.lists.is_some()).then_some((PackageId(known), late))
            })
        })
    }

    fn refs(&self, range: Range<u32>) -> &[NameId] {
        &self.refs[range.start as usize..range.end as usize]
    }

    pub(super) fn depend_names(&self, package: PackageId) -> &[NameId] {
        match self.packages[package.0 as usize].lists {
            Some(lists) => self.refs(lists.depends..lists.provides),
            None => &[],
        }
    }

    pub(super) fn provide_names(&self, package: PackageId) -> &[NameId] {
        match self.packages[package.0 as usize].lists {
            Some(lists) => self.refs(lists.provides..lists.install_if),
            None => &[],
        }
    }

    pub(super) fn install_if_names(&self, package: PackageId) -> &[NameId] {
        match self.packages[package.0 as usize].lists {
            Some(lists) => self.refs(lists.install_if..lists.end),
            None => &[],
        }
    }

    /// Returns the own name and then the provided names of a package.
    pub(super) fn offered_names(&self, package: PackageId) -> impl Iterator<Item = NameId> + '_ {
        std::iter::once(self.own_name(package)).chain(self.provide_names(package).iter().copied())
    }

    /// Returns the record that supplies a package's metadata.
    pub(super) fn record(&self, package: PackageId) -> Record<'a> {
        let entry = &self.packages[package.0 as usize];
        self.sources[entry.source as usize]
            .table
            .record(entry.record)
    }

    /// Returns the dependencies of a package in order.
    pub(super) fn depends(&self, package: PackageId) -> impl Iterator<Item = Need<'a>> + '_ {
        let names = self.depend_names(package).iter();
        names
            .zip(self.record(package).depends())
            .map(|(name, entry)| Need::from_table(*name, entry))
    }

    /// Returns one dependency of a package by position.
    pub(super) fn depend_at(&self, package: PackageId, at: u32) -> Option<Need<'a>> {
        let name = self.depend_names(package).get(at as usize)?;
        let entry = self.record(package).depend(at)?;
        Some(Need::from_table(*name, entry))
    }

    /// Returns what a package provides besides its own name, in order.
    pub(super) fn provides(&self, package: PackageId) -> impl Iterator<Item = Need<'a>> + '_ {
        let names = self.provide_names(package).iter();
        names
            .zip(self.record(package).provides())
            .map(|(name, entry)| Need::from_table(*name, entry))
    }

    /// Returns the install_if conditions of a package in order.
    pub(super) fn install_if(&self, package: PackageId) -> impl Iterator<Item = Need<'a>> + '_ {
        let names = self.install_if_names(package).iter();
        names
            .zip(self.record(package).install_if())
            .map(|(name, entry)| Need::from_table(*name, entry))
    }

    /// Returns the version under which an offer stands, empty for a bare one.
    pub(super) fn offer_version(&self, offer: Offer) -> &'a str {
        let record = self.record(offer.package);
        if offer.provide == Offer::OWN {
            return record.version();
        }
        record.provide(offer.provide).map_or("", |p| p.version)
    }

    /// Returns the own name of a package.
    pub fn own_name(&self, package: PackageId) -> NameId {
        self.packages[package.0 as usize].name
    }

    /// Returns the own name of a package as text.
    pub fn package_name(&self, package: PackageId) -> &'a str {
        self.record(package).name()
    }

    /// Returns the version of a package.
    pub fn version(&self, package: PackageId) -> &'a str {
        self.record(package).version()
    }

    /// Returns the identity of a package.
    pub fn identity(&self, package: PackageId) -> Identity {
        self.record(package).identity()
    }

    /// Returns `NAME-VERSION`.
    pub fn full_name(&self, package: PackageId) -> String {
        let record = self.record(package);
        format!("{}-{}", record.name(), record.version())
    }

    /// Returns the size of the package file in bytes.
    pub fn size(&self, package: PackageId) -> u64 {
        self.packages[package.0 as usize].size
    }

    /// Returns the size of the installed files in bytes.
    pub fn installed_size(&self, package: PackageId) -> u64 {
        self.record(package).installed_size()
    }

    /// Returns the metadata as an owned value. What only package files and the database state
    /// (replaces, triggers) is not in it.
    pub fn package(&self, package: PackageId) -> Package {
        let entry = &self.packages[package.0 as usize];
        let source = &self.sources[entry.source as usize];
        let mut owned = source.table.package(entry.record);
        owned.size = entry.size;
        owned
    }

    /// Returns the numbers of the repositories that list a package, lowest first.
    pub fn repositories_of(&self, package: PackageId) -> impl Iterator<Item = usize> + use<> {
        self.packages[package.0 as usize].repositories.iter()
    }

    pub(super) fn repository_set(&self, package: PackageId) -> NumberSet {
        self.packages[package.0 as usize].repositories
    }

    pub(super) fn repository(&self, number: usize) -> Option<&Repository> {
        self.repositories.get(number)
    }

    /// Returns the repositories a package counts to: those that list it and, if it is installed,
    /// all of its recorded tag (solver.md, 3.4).
    pub(super) fn counted_repositories(&self, package: PackageId) -> NumberSet {
        let listed = self.repository_set(package);
        if !self.is_installed(package) {
            return listed;
        }
        listed.union(self.repositories_of_tag(self.installed_tag(package)))
    }

    /// Returns whether a package is in the installed database.
    pub fn is_installed(&self, package: PackageId) -> bool {
        self.packages[package.0 as usize].installed != 0
    }

    fn installed_state(&self, package: PackageId) -> Option<&'a InstalledState> {
        let record = self.packages[package.0 as usize].installed.checked_sub(1)?;
        self.input.installed.states.get(record as usize)
    }

    /// Returns the tag recorded for an installed package.
    pub(super) fn installed_tag(&self, package: PackageId) -> TagId {
        let state = self.installed_state(package);
        let tag = state.and_then(|state| state.tag.as_deref());
        tag.and_then(|tag| self.find_tag(tag)).unwrap_or_default()
    }

    /// Returns what is broken about an installed package.
    pub fn broken(&self, package: PackageId) -> Broken {
        self.installed_state(package)
            .map_or_else(Broken::default, |state| state.broken)
    }

    /// Returns whether a package was given as a file on the command line.
    pub fn is_from_file(&self, package: PackageId) -> bool {
        self.packages[package.0 as usize].from_file
    }

    pub(super) fn is_remembered(&self, package: PackageId) -> bool {
        self.packages[package.0 as usize].remembered
    }

    /// Returns whether a package was made by `add -t` in this run; it has no file.
    pub fn is_virtual(&self, package: PackageId) -> bool {
        self.packages[package.0 as usize].made_virtual
    }

    /// Returns whether a package's file lies in the active cache.
    pub fn is_cached(&self, package: PackageId) -> bool {
        if self.packages[package.0 as usize].made_virtual {
            return true;
        }
        if self.input.cache_files.is_empty() {
            return false;
        }
        let record = self.record(package);
        let identity = record.identity().hex();
        let file = format!(
            "{}-{}.{}.apk",
            record.name(),
            record.version(),
            &identity[..8]
        );
        self.input.cache_files.get(&file) == Some(&self.size(package))
    }

    /// Returns whether one of a package's repositories is reachable.
    pub(super) fn in_reachable_repository(&self, package: PackageId) -> bool {
        let reachable = |number| self.repository(number).is_some_and(|r| r.reachable);
        self.repository_set(package).iter().any(reachable)
    }

    /// Returns whether a package can be had other than from the cache (solver.md, 3.3).
    pub(super) fn is_reachable(&self, package: PackageId) -> bool {
        self.is_from_file(package) || self.in_reachable_repository(package)
    }

    /// Returns whether a package file can be had: cached, from the command line or reachable.
    pub fn is_available(&self, package: PackageId) -> bool {
        self.is_reachable(package) || self.is_cached(package)
    }

    /// Returns whether the architecture of a package is accepted.
    pub(super) fn fits_architecture(&self, package: PackageId) -> bool {
        match self.record(package).arch() {
            None | Some("" | "noarch") => true,
            Some(arch) => self.input.architectures.iter().any(|known| known == arch),
        }
    }

    /// Returns whether a package must not be installed whatever happens.
    pub(super) fn is_uninstallable(&self, package: PackageId) -> bool {
        self.record(package).flaws().uninstallable || !self.fits_architecture(package)
    }
}

impl Default for TagId {
    fn default() -> Self {
        Self::DEFAULT
    }
}
