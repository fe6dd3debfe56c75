//! All that may be chosen: packages, names and offers of every source, merged by identity
//! (solver.md, chapters 2 and 3).
//!
//! A [`Universe`] is loaded lazily. It borrows [`PackageTable`]s and turns only those names and
//! records into ids that a question reaches, so its cost follows the question and not the size of
//! the repositories. Texts stay in the tables.
//!
//! It decides nothing and must never read a file or ask a clock: everything it judges by is in
//! [`Sources`].

use super::ids::{NameId, NumberSet, PackageId, TagId};
use super::sources::{InstalledState, Registered, Sources};
use crate::package::installed::Broken;
use crate::package::name_hash::BUCKETS;
use crate::package::table::{NameRef, Record, TableDependency, hash};
use crate::package::{Dependency, Identity, Operator, Package, PackageTable, World};
use std::collections::HashMap;
use std::ops::Range;

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

/// The number of the source of installed packages; it is the first.
const INSTALLED: u16 = 0;
/// Stands for the source of names that no table has.
const OUTSIDE: u16 = u16::MAX;
/// What is not loaded has a range that begins here.
const NOT_LOADED: u32 = u32::MAX;

/// The fields are few and small because a question can reach most names of all repositories.
#[derive(Clone, Copy)]
struct Name {
    /// The first source that mentions it, and its id there.
    source: u16,
    local: u32,
    offers: (u32, u32),
    triggers: (u32, u32),
}

#[derive(Clone, Copy)]
struct PackageEntry {
    /// The first record with its identity.
    source: u16,
    record: u32,
    name: NameId,
    /// Where the names of its lists are in [`Universe::refs`].
    depends: u32,
    provides: u32,
    install_if: u32,
    end: u32,
}

/// All that may be chosen.
pub struct Universe<'a> {
    input: &'a Sources,
    sources: Vec<Source<'a>>,
    names: Vec<Name>,
    /// For each name, its id in each source plus one.
    locals: Vec<u32>,
    outside: Vec<Box<str>>,
    outside_ids: HashMap<Box<str>, NameId>,
    /// The number of names that the world mentions; they come first.
    world_names: u32,
    packages: Vec<PackageEntry>,
    offers: Vec<Offer>,
    refs: Vec<NameId>,
    trigger_lists: Vec<NameId>,
    installed: Vec<PackageId>,
    repositories: Vec<Repository>,
    reachable: NumberSet,
    tags: Vec<String>,
    tag_repositories: Vec<NumberSet>,
}

impl<'a> Universe<'a> {
    /// Makes a universe in which the names of the world and the installed packages are loaded.
    ///
    /// The world is needed because names and tags are numbered by their first mention.
    pub fn new(sources: &'a Sources, world: &World) -> Self {
        let mut tables = vec![(sources.installed.table().as_ref(), SourceKind::Installed)];
        let remembered = sources.remembered.iter();
        tables.extend(remembered.map(|table| (table.as_ref(), SourceKind::Remembered)));
        tables.extend(
            sources
                .repositories
                .iter()
                .enumerate()
                .map(|(number, r)| (r.table.as_ref(), SourceKind::Repository(number))),
        );
        if let Some(table) = sources.registered.table() {
            tables.push((table, SourceKind::Registered));
        }
        let name_limit: usize = tables.iter().map(|(table, _)| table.name_count()).sum();
        let record_limit: usize = tables.iter().map(|(table, _)| table.len()).sum();
        let source_count = tables.len();
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
            // Room that is not used costs nothing; growing would mean copying.
            names: Vec::with_capacity(name_limit),
            locals: Vec::with_capacity(name_limit * source_count),
            outside: Vec::new(),
            outside_ids: HashMap::new(),
            world_names: 0,
            packages: Vec::with_capacity(record_limit),
            offers: Vec::with_capacity(record_limit * 2),
            refs: Vec::with_capacity(record_limit * 4),
            trigger_lists: Vec::new(),
            installed: Vec::new(),
            repositories: Vec::new(),
            reachable: NumberSet::default(),
            tags: vec![String::new()],
            tag_repositories: Vec::new(),
        };
        universe.number_tags(world);
        for entry in &world.entries {
            universe.intern(&entry.name);
        }
        universe.world_names = universe.names.len() as u32;
        universe.load_installed();
        universe
    }

    fn number_tags(&mut self, world: &World) {
        let input = self.input;
        let lines = &input.repositories;
        let of_world = world.entries.iter().filter_map(|e| e.tag.as_ref());
        let of_installed = input.installed.tags();
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
            self.repositories.push(Repository { local: line.local });
            if line.loaded && line.reachable {
                self.reachable = self.reachable.union(NumberSet::single(number));
            }
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
        sets.filter(|(tag, _)| tags.contains(*tag))
            .fold(NumberSet::default(), |all, (_, set)| all.union(*set))
    }

    fn load_installed(&mut self) {
        let count = self.sources[INSTALLED as usize].table.len() as u32;
        let mut packages: Vec<PackageId> = (0..count)
            .map(|record| self.package_of(INSTALLED as usize, record))
            .collect();
        // Records of one identity are one package, at the place of the first.
        let mut seen = vec![false; self.packages.len()];
        packages.retain(|package| !std::mem::replace(&mut seen[package.0 as usize], true));
        for package in &packages {
            self.load_lists(*package);
            let own = self.own_name(*package);
            self.load_rivals(own);
            self.load_triggers(own);
            for at in 0..self.provide_names(*package).len() {
                let provided = self.provide_names(*package)[at];
                self.load_rivals(provided);
                self.load_triggers(provided);
            }
        }
        self.installed = packages;
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
        let text_hash = hash(text);
        for source in 0..self.sources.len() {
            if let Some(local) = self.sources[source].table.find_name(text, text_hash) {
                return self.intern_local(source, local);
            }
        }
        if let Some(name) = self.outside_ids.get(text) {
            return *name;
        }
        let name = NameId(self.names.len() as u32);
        self.push_name(OUTSIDE, self.outside.len() as u32);
        let row = self.locals.len() + self.sources.len();
        self.locals.resize(row, 0);
        self.outside.push(text.into());
        self.outside_ids.insert(text.into(), name);
        name
    }

    /// Returns the id of a name that is already loaded.
    pub(super) fn find(&self, text: &str) -> Option<NameId> {
        let text_hash = hash(text);
        let mut sources = self.sources.iter();
        let found = sources.find_map(|source| {
            let local = source.table.find_name(text, text_hash)?;
            let name = source.names.get(local.0 as usize)?.checked_sub(1)?;
            Some(NameId(name))
        });
        found.or_else(|| self.outside_ids.get(text).copied())
    }

    /// Returns the name if any source mentions it (solver.md, 5.3 "known").
    pub fn known(&mut self, text: &str) -> Option<NameId> {
        let text_hash = hash(text);
        let mut tables = self.sources.iter().map(|source| source.table);
        let known = tables.any(|table| table.find_name(text, text_hash).is_some())
            || self.outside_ids.contains_key(text)
            || self.input.installed.mentions(text)
            || self.input.cached_names().any(|name| name == text);
        known.then(|| self.intern(text))
    }

    /// Returns every known name that satisfies `wanted`, in the order of the name table.
    pub fn known_matching(&mut self, wanted: impl Fn(&str) -> bool) -> Vec<NameId> {
        let mut texts: Vec<String> = Vec::new();
        for source in &self.sources {
            let all = source.table.names().map(|name| source.table.name(name));
            texts.extend(all.filter(|text| wanted(text)).map(str::to_owned));
        }
        let others = self.outside.iter().map(AsRef::as_ref);
        let others = others.chain(self.input.installed.mentioned());
        let others = others.chain(self.input.cached_names());
        texts.extend(others.filter(|text| wanted(text)).map(str::to_owned));
        let mut names: Vec<NameId> = texts.iter().map(|text| self.intern(text)).collect();
        names.sort_by_cached_key(|name| self.table_key(*name));
        names.dedup();
        names
    }

    fn push_name(&mut self, source: u16, local: u32) {
        self.names.push(Name {
            source,
            local,
            offers: (NOT_LOADED, 0),
            triggers: (NOT_LOADED, 0),
        });
    }

    fn intern_local(&mut self, source: usize, local: NameRef) -> NameId {
        match self.sources[source].names.get(local.0 as usize) {
            Some(0) => {}
            Some(known) => return NameId(known - 1),
            // Only a damaged table names what it does not have.
            None => return self.intern(""),
        }
        let table = self.sources[source].table;
        let id = NameId(self.names.len() as u32);
        let mut first = None;
        for (number, other) in self.sources.iter_mut().enumerate() {
            let found = if number == source {
                Some(local)
            } else {
                other.table.find_name_of(table, local)
            };
            let slot = found.and_then(|found| other.names.get_mut(found.0 as usize));
            let (Some(found), Some(slot)) = (found, slot) else {
                self.locals.push(0);
                continue;
            };
            *slot = id.0 + 1;
            self.locals.push(found.0 + 1);
            first = first.or(Some((number, found.0)));
        }
        let (first, position) = first.unwrap_or((source, local.0));
        self.push_name(first as u16, position);
        id
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
        let table = self.sources[source].table;
        let identity = table.record(record).identity();
        // A table that has no identity twice need not be asked about its own.
        let end = source + usize::from(!table.has_distinct_identities());
        let mut sources = self.sources[..end].iter().enumerate();
        let first = sources.find_map(|(number, other)| {
            let found = other.table.find_identity(identity)?;
            Some((number, found))
        });
        let (first_source, first_record) = first.unwrap_or((source, record));
        let known = self.sources[first_source].records[first_record as usize];
        let package = match known.checked_sub(1) {
            Some(known) => PackageId(known),
            None => self.push_package(first_source, first_record),
        };
        self.sources[source].records[record as usize] = package.0 + 1;
        package
    }

    fn push_package(&mut self, source: usize, record: u32) -> PackageId {
        let package = PackageId(self.packages.len() as u32);
        self.sources[source].records[record as usize] = package.0 + 1;
        let own = self.sources[source].table.record(record).name_ref();
        let name = self.intern_local(source, own);
        self.packages.push(PackageEntry {
            source: source as u16,
            record,
            name,
            depends: NOT_LOADED,
            provides: 0,
            install_if: 0,
            end: 0,
        });
        package
    }

    /// Loads the offers of a name.
    pub(super) fn load_offers(&mut self, name: NameId) -> Range<u32> {
        let (start, end) = self.names[name.0 as usize].offers;
        if start != NOT_LOADED {
            return start..end;
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
        let end = self.offers.len() as u32;
        self.names[name.0 as usize].offers = (start, end);
        start..end
    }

    /// Returns whether the lists of a package are loaded: something reaches it.
    pub(super) fn has_lists_loaded(&self, package: PackageId) -> bool {
        self.packages[package.0 as usize].depends != NOT_LOADED
    }

    /// Loads the names of a package's lists.
    pub(super) fn load_lists(&mut self, package: PackageId) {
        let entry = self.packages[package.0 as usize];
        if entry.depends != NOT_LOADED {
            return;
        }
        let source = entry.source as usize;
        let record = self.sources[source].table.record(entry.record);
        let depends = self.load_names(source, record.depend_names());
        let provides = self.load_names(source, record.provide_names());
        let install_if = self.load_names(source, record.install_if_names());
        self.packages[package.0 as usize] = PackageEntry {
            depends,
            provides,
            install_if,
            end: self.refs.len() as u32,
            ..entry
        };
    }

    fn load_names(&mut self, source: usize, list: impl Iterator<Item = NameRef>) -> u32 {
        let start = self.refs.len() as u32;
        for local in list {
            let name = self.intern_local(source, local);
            self.refs.push(name);
        }
        start
    }

    /// Loads the names that a name may trigger (solver.md, 2.4).
    pub(super) fn load_triggers(&mut self, name: NameId) -> Range<u32> {
        let (start, end) = self.names[name.0 as usize].triggers;
        if start != NOT_LOADED {
            return start..end;
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
        list.sort_by_cached_key(|name| self.table_key(*name));
        list.dedup();
        for name in late {
            if !list.contains(&name) {
                list.push(name);
            }
        }
        let start = self.trigger_lists.len() as u32;
        self.trigger_lists.extend(list);
        let end = self.trigger_lists.len() as u32;
        self.names[name.0 as usize].triggers = (start, end);
        start..end
    }

    /// Returns the key that sorts names in the order of apk's name table: by bucket, and the
    /// youngest name first (solver.md, Appendix A). It is below 2⁶³.
    pub(super) fn table_key(&self, name: NameId) -> u64 {
        const AGE: u64 = (1 << 40) - 1;
        let entry = &self.names[name.0 as usize];
        let mention = match entry.source {
            _ if name.0 < self.world_names => u64::from(name.0),
            OUTSIDE => AGE,
            source => u64::from(source + 1) << 32 | u64::from(entry.local),
        };
        u64::from(self.bucket(name)) << 40 | (AGE - mention)
    }

    /// Returns the bucket of a name in apk's name table.
    pub(super) fn bucket(&self, name: NameId) -> u32 {
        let entry = &self.names[name.0 as usize];
        let hash = match self.sources.get(entry.source as usize) {
            Some(source) => source.table.name_hash(NameRef(entry.local)),
            None => hash(self.name_text(name)),
        };
        hash % BUCKETS
    }

    /// Returns the number of names so far.
    pub(super) fn name_count(&self) -> usize {
        self.names.len()
    }

    /// Returns how many names there can be unless more are asked for by text.
    pub(super) fn name_limit(&self) -> usize {
        let tables = self.sources.iter().map(|source| source.names.len());
        tables.sum::<usize>() + self.outside.len()
    }

    /// Returns the number of packages so far.
    pub(super) fn package_count(&self) -> usize {
        self.packages.len()
    }

    /// Returns how many packages there can be.
    pub(super) fn package_limit(&self) -> usize {
        self.sources.iter().map(|source| source.records.len()).sum()
    }

    /// Returns the text of a name.
    pub fn name_text(&self, name: NameId) -> &str {
        let entry = &self.names[name.0 as usize];
        match self.sources.get(entry.source as usize) {
            Some(source) => source.table.name(NameRef(entry.local)),
            None => &self.outside[entry.local as usize],
        }
    }

    /// Returns all packages known so far.
    pub(super) fn packages(&self) -> impl Iterator<Item = PackageId> + use<> {
        (0..self.packages.len() as u32).map(PackageId)
    }

    /// Returns the installed packages in database order.
    pub fn installed(&self) -> &[PackageId] {
        &self.installed
    }

    /// Returns the offers of a name; none if they were not loaded.
    pub(super) fn offers(&self, name: NameId) -> &[Offer] {
        match self.names[name.0 as usize].offers {
            (NOT_LOADED, _) => &[],
            (start, end) => &self.offers[start as usize..end as usize],
        }
    }

    pub(super) fn offer_at(&self, at: u32) -> Offer {
        self.offers[at as usize]
    }

    /// Returns whether the offers of a name were loaded.
    pub(super) fn has_offers_loaded(&self, name: NameId) -> bool {
        self.names[name.0 as usize].offers.0 != NOT_LOADED
    }

    /// Returns the names that a name may trigger; none if they were not loaded.
    pub(super) fn triggers(&self, name: NameId) -> &[NameId] {
        match self.names[name.0 as usize].triggers {
            (NOT_LOADED, _) => &[],
            (start, end) => &self.trigger_lists[start as usize..end as usize],
        }
    }

    pub(super) fn trigger_at(&self, at: u32) -> NameId {
        self.trigger_lists[at as usize]
    }

    /// Returns the loaded packages whose depends mention a name.
    pub(super) fn mentioning(&self, name: NameId) -> impl Iterator<Item = PackageId> + '_ {
        let sources = self.sources.iter().enumerate();
        sources.flat_map(move |(number, source)| {
            let local = self.local(name, number);
            let records = local.into_iter().flat_map(|l| source.table.dependents(l));
            records.filter_map(move |record| {
                let known = source.records.get(record as usize)?.checked_sub(1)?;
                let entry = &self.packages[known as usize];
                let first = (entry.source as usize, entry.record) == (number, record);
                (first && entry.depends != NOT_LOADED).then_some(PackageId(known))
            })
        })
    }

    /// Returns whether a package became known only after all sources were read; its names are
    /// then at the end of the dependents and triggers lists (solver.md, 2.4).
    pub(super) fn is_late(&self, package: PackageId) -> bool {
        let entry = &self.packages[package.0 as usize];
        self.sources[entry.source as usize].kind == SourceKind::Registered
    }

    /// Returns the key that sorts a name in the dependents lists it enters by a late package:
    /// behind all others, in order of registration.
    pub(super) fn late_key(&self, package: PackageId, name: NameId) -> u64 {
        let record = u64::from(self.packages[package.0 as usize].record);
        let at = self
            .offered_names(package)
            .position(|offered| offered == name);
        1 << 63 | record << 32 | at.unwrap_or_default() as u64
    }

    fn refs(&self, range: Range<u32>) -> &[NameId] {
        &self.refs[range.start as usize..range.end as usize]
    }

    pub(super) fn depend_names(&self, package: PackageId) -> &[NameId] {
        let entry = &self.packages[package.0 as usize];
        match entry.depends {
            NOT_LOADED => &[],
            depends => self.refs(depends..entry.provides),
        }
    }

    pub(super) fn provide_names(&self, package: PackageId) -> &[NameId] {
        let entry = &self.packages[package.0 as usize];
        self.refs(entry.provides..entry.install_if)
    }

    pub(super) fn install_if_names(&self, package: PackageId) -> &[NameId] {
        let entry = &self.packages[package.0 as usize];
        self.refs(entry.install_if..entry.end)
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

    /// Returns the size of the package file in bytes: what the first repository that lists it
    /// says, else the first record.
    pub fn size(&self, package: PackageId) -> u64 {
        let mut listings = self.listings(package);
        let listing = listings.find(|(kind, _)| matches!(kind, SourceKind::Repository(_)));
        listing.map_or_else(|| self.record(package).size(), |(_, record)| record.size())
    }

    /// Returns the first record of each source that has a package.
    fn listings(&self, package: PackageId) -> impl Iterator<Item = (SourceKind, Record<'a>)> {
        let identity = self.identity(package);
        let first = self.packages[package.0 as usize].source as usize;
        self.sources[first..].iter().filter_map(move |source| {
            let record = source.table.find_identity(identity)?;
            Some((source.kind, source.table.record(record)))
        })
    }

    fn was_registered_as(&self, package: PackageId, origin: Registered) -> bool {
        let Some(table) = self.input.registered.table() else {
            return false;
        };
        let record = table.find_identity(self.identity(package));
        record.is_some_and(|record| self.input.registered.origin(record) == Some(origin))
    }

    /// Returns the size of the installed files in bytes.
    pub fn installed_size(&self, package: PackageId) -> u64 {
        self.record(package).installed_size()
    }

    /// Returns the metadata as an owned value. What only package files and the database state
    /// (replaces, triggers) is not in it.
    pub fn package(&self, package: PackageId) -> Package {
        let entry = &self.packages[package.0 as usize];
        let first = &self.sources[entry.source as usize];
        // The installed packages are here without descriptions; a repository that has the same
        // package knows them.
        let complete = || {
            let identity = self.identity(package);
            let later = self.sources[entry.source as usize..].iter();
            later
                .filter(|source| source.table.has_details())
                .find_map(|source| Some((source, source.table.find_identity(identity)?)))
        };
        let (source, record) = match first.table.has_details() {
            true => (first, entry.record),
            false => complete().unwrap_or((first, entry.record)),
        };
        let mut owned = source.table.package(record);
        owned.size = self.size(package);
        owned
    }

    /// Returns the numbers of the repositories that list a package, lowest first.
    pub fn repositories_of(&self, package: PackageId) -> impl Iterator<Item = usize> + use<> {
        self.repository_set(package).iter()
    }

    pub(super) fn repository_set(&self, package: PackageId) -> NumberSet {
        let listings = self.listings(package);
        listings.fold(NumberSet::default(), |all, (kind, _)| match kind {
            SourceKind::Repository(number) => all.union(NumberSet::single(number)),
            _ => all,
        })
    }

    pub(super) fn repository(&self, number: usize) -> Option<&Repository> {
        self.repositories.get(number)
    }

    /// Returns the repositories a package counts to, given those that list it: if it is installed,
    /// all of its recorded tag are added (solver.md, 3.4).
    pub(super) fn counted_repositories(&self, package: PackageId, listed: NumberSet) -> NumberSet {
        if !self.is_installed(package) {
            return listed;
        }
        listed.union(self.repositories_of_tag(self.installed_tag(package)))
    }

    /// Returns whether a package is in the installed database.
    pub fn is_installed(&self, package: PackageId) -> bool {
        self.packages[package.0 as usize].source == INSTALLED
    }

    fn installed_state(&self, package: PackageId) -> Option<&'a InstalledState> {
        let entry = &self.packages[package.0 as usize];
        let state = || self.input.installed.state(entry.record);
        self.is_installed(package).then(state).flatten()
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
        self.was_registered_as(package, Registered::File)
    }

    /// Returns whether a package was made by `add -t` in this run; it has no file.
    pub fn is_virtual(&self, package: PackageId) -> bool {
        self.was_registered_as(package, Registered::Virtual)
    }

    pub(super) fn is_remembered(&self, package: PackageId) -> bool {
        let entry = &self.packages[package.0 as usize];
        self.sources[entry.source as usize].kind == SourceKind::Remembered
    }

    /// Returns whether a package's file lies in the active cache.
    pub fn is_cached(&self, package: PackageId) -> bool {
        if self.is_virtual(package) {
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
        self.repository_set(package).meets(self.reachable)
    }

    /// Returns the repositories that are reachable.
    pub(super) fn reachable_repositories(&self) -> NumberSet {
        self.reachable
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
