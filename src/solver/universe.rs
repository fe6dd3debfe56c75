//! All that may be chosen: packages, names and offers of every source, merged by identity
//! (solver.md, chapters 2 and 3).
//!
//! A [`Universe`] borrows its tables. What the repositories have is one joined table whose ids are
//! used as they are, so that nothing is made for what a question does not reach; only what is
//! installed or comes from the command line, a few hundred packages, is merged into it. Texts and
//! lists stay in the tables.
//!
//! It decides nothing and must never read a file or ask a clock: everything it judges by is in
//! [`Sources`].

use super::ids::{NameId, NumberSet, PackageId, TagId};
use super::sources::{InstalledState, Registered, Sources};
use crate::package::installed::Broken;
use crate::package::name_hash::BUCKETS;
use crate::package::table::{List, Lists, NameRef, OWN, Record, TableDependency, hash};
use crate::package::{Dependency, Identity, Operator, Package, PackageTable, World};
use std::cell::OnceCell;
use std::collections::{HashMap, HashSet};
use zerocopy::{FromBytes, Immutable, KnownLayout};

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

/// A package under one of the names it answers to; offers lie in tables in this form.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(super) struct Offer {
    /// The package.
    pub package: PackageId,
    /// Which of its provides, or [`OWN`].
    provide: u32,
}

impl Offer {
    /// Returns whether it is the package under its own name.
    pub(super) fn is_own(self) -> bool {
        self.provide == OWN
    }
}

/// A repository of a universe.
#[derive(Clone, Copy, Debug)]
pub(super) struct Repository {
    pub(super) local: bool,
}

/// A table besides the one of all repositories.
struct Side<'a> {
    table: &'a PackageTable,
    kind: SideKind,
    /// What its names are here.
    names: Vec<NameId>,
    /// The names of all its dependencies.
    links: Vec<NameId>,
    /// What its records are here.
    packages: Vec<PackageId>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum SideKind {
    Installed,
    Remembered,
    Registered,
}

/// The number of the side of installed packages; it is the first.
const INSTALLED: usize = 0;
/// There are at most so many sides.
const SIDES: usize = 3;

/// When names are first mentioned, as numbers: by the world, then by each of these.
const BY_INSTALLED: u64 = 1 << 32;
const BY_REMEMBERED: u64 = 2 << 32;
const BY_REPOSITORIES: u64 = 3 << 32;
const BY_COMMAND_LINE: u64 = 4 << 32;
const BY_NOTHING: u64 = (1 << 40) - 1;

/// What is to be known of a name besides what the repositories' table says.
struct Aside {
    name: NameId,
    /// Its id in each side plus one.
    locals: [u32; SIDES],
    /// When it is first mentioned, unless that is in the table.
    mention: Option<u64>,
    /// Its offers are others than those of the table.
    own_offers: bool,
    /// Where its offers are in [`Universe::offers`] then.
    offers: (u32, u32),
    /// Its triggers are others than those of the table, or in another order.
    own_triggers: bool,
    /// The triggers then, when they were asked for.
    triggers: OnceCell<Box<[NameId]>>,
}

/// A package that does not come from the repositories' table.
struct SidePackage {
    side: u8,
    record: u32,
    name: NameId,
    /// The record of the same package in the repositories' table.
    twin: Option<u32>,
}

/// All that may be chosen.
pub struct Universe<'a> {
    input: &'a Sources,
    /// The repositories. Their names and records have the lowest ids here.
    joined: &'a PackageTable,
    lists: Lists<'a, NameId, Offer>,
    sides: Vec<Side<'a>>,
    /// For each name its position in `asides` plus one.
    aside_slots: Vec<u32>,
    asides: Vec<Aside>,
    /// The names that the repositories do not mention.
    other_names: Vec<Box<str>>,
    other_ids: HashMap<Box<str>, NameId>,
    side_packages: Vec<SidePackage>,
    /// For each record of the repositories whether a package of a side is there in its place.
    replaced: Vec<bool>,
    offers: Vec<Offer>,
    installed: Vec<PackageId>,
    repositories: Vec<Repository>,
    reachable: NumberSet,
    tags: Vec<String>,
    tag_repositories: Vec<NumberSet>,
}

impl<'a> Universe<'a> {
    /// Makes a universe of what the sources have.
    ///
    /// The world is needed because names and tags are numbered by their first mention.
    pub fn new(sources: &'a Sources, world: &World) -> Self {
        let joined = sources.joined();
        let mut universe = Self {
            input: sources,
            joined,
            lists: joined.lists(),
            sides: Vec::with_capacity(SIDES),
            aside_slots: vec![0; joined.name_count()],
            asides: Vec::new(),
            other_names: Vec::new(),
            other_ids: HashMap::new(),
            side_packages: Vec::new(),
            replaced: vec![false; joined.len()],
            offers: Vec::new(),
            installed: Vec::new(),
            repositories: Vec::new(),
            reachable: NumberSet::default(),
            tags: vec![String::new()],
            tag_repositories: Vec::new(),
        };
        universe.number_tags(world);
        for (number, entry) in (0..).zip(&world.entries) {
            let name = universe.intern(&entry.name);
            universe.aside(name).mention.get_or_insert(number);
        }
        universe.add_side(sources.installed.table(), SideKind::Installed);
        if let Some(table) = &sources.remembered {
            universe.add_side(table, SideKind::Remembered);
        }
        if let Some(table) = sources.registered.table() {
            universe.add_side(table, SideKind::Registered);
        }
        universe.find_reordered_triggers();
        universe.collect_own_offers();
        // Records of one identity are one package, at the place of the first.
        let mut seen = HashSet::new();
        let installed = universe.sides[INSTALLED].packages.iter().copied();
        universe.installed = installed.filter(|package| seen.insert(*package)).collect();
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

    /// Takes in the names and packages of a side.
    fn add_side(&mut self, table: &'a PackageTable, kind: SideKind) {
        let number = self.sides.len();
        let first = match kind {
            SideKind::Installed => BY_INSTALLED,
            SideKind::Remembered => BY_REMEMBERED,
            SideKind::Registered => BY_COMMAND_LINE,
        };
        let mut names = Vec::with_capacity(table.name_count());
        for local in table.names() {
            let name = match self.joined.find_name_of(table, local) {
                Some(found) => NameId(found.0),
                None => self.other_name(table.name(local)),
            };
            names.push(name);
            let in_joined = (name.0 as usize) < self.joined.name_count();
            let aside = self.aside(name);
            aside.locals[number] = local.0 + 1;
            if kind != SideKind::Registered || !in_joined {
                aside.mention.get_or_insert(first | u64::from(local.0));
            }
            aside.own_offers |= table.offers(local).next().is_some();
            aside.own_triggers |= table.triggered(local).next().is_some();
        }
        let links = table.links().iter();
        let links = links.map(|local| names[local.0 as usize]).collect();
        self.sides.push(Side {
            table,
            kind,
            names,
            links,
            packages: Vec::with_capacity(table.len()),
        });
        for record in 0..table.len() as u32 {
            let package = self.package_of(number, record);
            self.sides[number].packages.push(package);
        }
    }

    /// Returns the package of a side's record, which is made if it is new. All records of one
    /// identity are one package, whatever their names; the first supplies the metadata.
    fn package_of(&mut self, side: usize, record: u32) -> PackageId {
        let Side { table, kind, .. } = self.sides[side];
        let identity = table.record(record).identity();
        let known = self.sides.iter().find_map(|side| {
            let first = side.table.find_identity(identity)?;
            side.packages.get(first as usize).copied()
        });
        if let Some(known) = known {
            return known;
        }
        let twin = self.joined.find_identity(identity);
        if let (SideKind::Registered, Some(twin)) = (kind, twin) {
            return PackageId(twin);
        }
        let package = PackageId((self.joined.len() + self.side_packages.len()) as u32);
        let own = table.record(record).name_ref();
        self.side_packages.push(SidePackage {
            side: side as u8,
            record,
            name: self.sides[side].names[own.0 as usize],
            twin,
        });
        if let Some(twin) = twin {
            self.replaced[twin as usize] = true;
            let lists = self.lists;
            self.aside(NameId(lists.own_name(twin))).own_offers = true;
            for name in lists.links(twin, List::Provides) {
                self.aside(*name).own_offers = true;
            }
            for name in lists.links(twin, List::InstallIf) {
                self.aside(*name).own_triggers = true;
            }
        }
        package
    }

    /// Finds the names whose triggers are in another order than in the table, because something
    /// else mentions some of them before.
    fn find_reordered_triggers(&mut self) {
        let (joined, lists) = (self.joined, self.lists);
        let early = self.asides.iter().filter(|aside| aside.mention.is_some());
        let early: Vec<NameId> = early.map(|aside| aside.name).collect();
        for name in early {
            for offer in lists.offers(name.0) {
                for condition in lists.links(offer.package.0, List::InstallIf) {
                    if joined.triggers_share_a_bucket(NameRef(condition.0)) {
                        self.aside(*condition).own_triggers = true;
                    }
                }
            }
        }
    }

    /// Collects the offers of the names that have others than the table's: of what is installed,
    /// of the repositories, of what the command line brings.
    fn collect_own_offers(&mut self) {
        let mut offers = Vec::new();
        for at in 0..self.asides.len() {
            let Aside {
                name,
                locals,
                own_offers,
                ..
            } = self.asides[at];
            if !own_offers {
                continue;
            }
            let start = offers.len() as u32;
            let mut of_repositories = Some(self.lists.offers(name.0));
            for (number, side) in self.sides.iter().enumerate() {
                if side.kind == SideKind::Registered {
                    let list = of_repositories.take().unwrap_or_default().iter();
                    offers.extend(list.filter(|offer| !self.is_replaced(offer.package)));
                }
                let Some(local) = locals[number].checked_sub(1) else {
                    continue;
                };
                let lists = side.table.lists::<NameRef, Offer>();
                for offer in lists.offers(local) {
                    let record = offer.package.0;
                    // Later records of an identity offer nothing.
                    if let Some(package) = self.made_by(number, record) {
                        let provide = offer.provide;
                        offers.push(Offer { package, provide });
                    }
                }
            }
            let list = of_repositories.take().unwrap_or_default().iter();
            offers.extend(list.filter(|offer| !self.is_replaced(offer.package)));
            self.asides[at].offers = (start, offers.len() as u32);
        }
        self.offers = offers;
    }

    /// Returns the package that a side's record supplies the metadata of.
    fn made_by(&self, side: usize, record: u32) -> Option<PackageId> {
        let package = *self.sides[side].packages.get(record as usize)?;
        let made = self.side_package(package)?;
        ((usize::from(made.side), made.record) == (side, record)).then_some(package)
    }

    fn is_replaced(&self, package: PackageId) -> bool {
        self.replaced[package.0 as usize]
    }

    fn side_package(&self, package: PackageId) -> Option<&SidePackage> {
        let at = (package.0 as usize).checked_sub(self.joined.len())?;
        self.side_packages.get(at)
    }

    fn find_aside(&self, name: NameId) -> Option<&Aside> {
        let at = self.aside_slots[name.0 as usize].checked_sub(1)?;
        self.asides.get(at as usize)
    }

    fn aside(&mut self, name: NameId) -> &mut Aside {
        let slot = &mut self.aside_slots[name.0 as usize];
        if *slot == 0 {
            self.asides.push(Aside {
                name,
                locals: [0; SIDES],
                mention: None,
                own_offers: false,
                offers: (0, 0),
                own_triggers: false,
                triggers: OnceCell::new(),
            });
            *slot = self.asides.len() as u32;
        }
        &mut self.asides[*slot as usize - 1]
    }

    /// Returns the name in the repositories' table.
    fn in_joined(&self, name: NameId) -> Option<NameRef> {
        ((name.0 as usize) < self.joined.name_count()).then_some(NameRef(name.0))
    }

    /// Returns the id of a name, which is made if it is new.
    pub fn intern(&mut self, text: &str) -> NameId {
        match self.joined.find_name(text, hash(text)) {
            Some(found) => NameId(found.0),
            None => self.other_name(text),
        }
    }

    /// Returns the id of a name that the repositories do not mention.
    fn other_name(&mut self, text: &str) -> NameId {
        if let Some(known) = self.other_ids.get(text) {
            return *known;
        }
        let name = NameId(self.aside_slots.len() as u32);
        self.aside_slots.push(0);
        self.other_names.push(text.into());
        self.other_ids.insert(text.into(), name);
        name
    }

    /// Returns the id of a name, if there is one.
    pub(super) fn find(&self, text: &str) -> Option<NameId> {
        let found = self.joined.find_name(text, hash(text));
        let found = found.map(|found| NameId(found.0));
        found.or_else(|| self.other_ids.get(text).copied())
    }

    /// Returns the name if any source mentions it (solver.md, 5.3 "known").
    pub fn known(&mut self, text: &str) -> Option<NameId> {
        let known = self.find(text).is_some()
            || self.input.installed.mentions(text)
            || self.input.cached_names().any(|name| name == text);
        known.then(|| self.intern(text))
    }

    /// Returns every known name that satisfies `wanted`, in the order of the name table.
    pub fn known_matching(&mut self, wanted: impl Fn(&str) -> bool) -> Vec<NameId> {
        let joined = self.joined;
        let all = joined.names().map(|name| joined.name(name));
        let all = all.chain(self.other_names.iter().map(AsRef::as_ref));
        let all = all.chain(self.input.installed.mentioned());
        let all = all.chain(self.input.cached_names());
        let texts = all.filter(|text| wanted(text)).map(str::to_owned);
        let texts: Vec<String> = texts.collect();
        let mut names: Vec<NameId> = texts.iter().map(|text| self.intern(text)).collect();
        names.sort_by_cached_key(|name| self.table_key(*name));
        names.dedup();
        names
    }

    /// Returns the names that a name may trigger (solver.md, 2.4).
    pub(super) fn triggers(&self, name: NameId) -> &[NameId] {
        if let Some(aside) = self.find_aside(name).filter(|aside| aside.own_triggers) {
            return aside.triggers.get_or_init(|| self.collect_triggers(aside));
        }
        self.lists.triggers(name.0)
    }

    fn collect_triggers(&self, aside: &Aside) -> Box<[NameId]> {
        let (mut list, mut late) = (Vec::new(), Vec::new());
        for (number, side) in self.sides.iter().enumerate() {
            let Some(local) = aside.locals[number].checked_sub(1) else {
                continue;
            };
            let records = side.table.triggered(NameRef(local));
            for package in records.filter_map(|record| self.made_by(number, record)) {
                let names = self.offered_names(package);
                match side.kind {
                    SideKind::Registered => late.extend(names),
                    SideKind::Installed | SideKind::Remembered => list.extend(names),
                }
            }
        }
        if let Some(name) = self.in_joined(aside.name) {
            let packages = self.joined.triggered(name).map(PackageId);
            let packages = packages.filter(|package| !self.is_replaced(*package));
            list.extend(packages.flat_map(|package| self.offered_names(package)));
        }
        list.sort_by_cached_key(|name| self.table_key(*name));
        list.dedup();
        for name in late {
            if !list.contains(&name) {
                list.push(name);
            }
        }
        list.into_boxed_slice()
    }

    /// Returns the key that sorts names in the order of apk's name table: by bucket, and the
    /// youngest name first (solver.md, Appendix A). It is below 2⁶³.
    pub(super) fn table_key(&self, name: NameId) -> u64 {
        let own = || match self.in_joined(name) {
            Some(name) => BY_REPOSITORIES | u64::from(name.0),
            None => BY_NOTHING,
        };
        let aside = self.find_aside(name);
        let mention = aside.and_then(|aside| aside.mention).unwrap_or_else(own);
        u64::from(self.bucket(name)) << 40 | (BY_NOTHING - mention)
    }

    /// Returns the bucket of a name in apk's name table.
    pub(super) fn bucket(&self, name: NameId) -> u32 {
        let hash = match self.in_joined(name) {
            Some(name) => self.joined.name_hash(name),
            None => hash(self.name_text(name)),
        };
        hash % BUCKETS
    }

    /// Returns the number of names.
    pub(super) fn name_count(&self) -> usize {
        self.aside_slots.len()
    }

    /// Returns the number of packages.
    pub(super) fn package_count(&self) -> usize {
        self.joined.len() + self.side_packages.len()
    }

    /// Returns the text of a name.
    pub fn name_text(&self, name: NameId) -> &str {
        match self.in_joined(name) {
            Some(name) => self.joined.name(name),
            None => &self.other_names[name.0 as usize - self.joined.name_count()],
        }
    }

    /// Returns all packages.
    pub(super) fn packages(&self) -> impl Iterator<Item = PackageId> + '_ {
        let all = (0..self.package_count() as u32).map(PackageId);
        all.filter(|package| self.replaced.get(package.0 as usize) != Some(&true))
    }

    /// Returns the installed packages in database order.
    pub fn installed(&self) -> &[PackageId] {
        &self.installed
    }

    /// Returns the offers of a name.
    pub(super) fn offers(&self, name: NameId) -> &[Offer] {
        match self.find_aside(name) {
            Some(aside) if aside.own_offers => {
                let (start, end) = aside.offers;
                &self.offers[start as usize..end as usize]
            }
            _ => self.lists.offers(name.0),
        }
    }

    /// Returns the packages whose depends mention a name.
    pub(super) fn mentioning(&self, name: NameId) -> impl Iterator<Item = PackageId> + '_ {
        let of_side = move |(number, side): (usize, &'_ Side<'a>)| {
            let local = self
                .find_aside(name)
                .map_or(0, |aside| aside.locals[number]);
            let local = local.checked_sub(1).map(NameRef);
            let table = side.table;
            let records = local.into_iter().flat_map(|local| table.dependents(local));
            records.filter_map(move |record| self.made_by(number, record))
        };
        let sides = || self.sides.iter().enumerate();
        let early = sides().filter(|(_, side)| side.kind != SideKind::Registered);
        let late = sides().filter(|(_, side)| side.kind == SideKind::Registered);
        let joined = self.joined;
        let own = self.in_joined(name).into_iter();
        let own = own.flat_map(|name| joined.dependents(name)).map(PackageId);
        let own = own.filter(|package| !self.is_replaced(*package));
        early
            .flat_map(of_side)
            .chain(own)
            .chain(late.flat_map(of_side))
    }

    /// Returns whether a package became known only after all sources were read; its names are
    /// then at the end of the dependents and triggers lists (solver.md, 2.4).
    pub(super) fn is_late(&self, package: PackageId) -> bool {
        self.is_of_side(package, SideKind::Registered)
    }

    fn is_of_side(&self, package: PackageId, kind: SideKind) -> bool {
        self.side_package(package)
            .is_some_and(|made| self.sides[usize::from(made.side)].kind == kind)
    }

    /// Returns the key that sorts a name in the dependents lists it enters by a late package:
    /// behind all others, in order of registration.
    pub(super) fn late_key(&self, package: PackageId, name: NameId) -> u64 {
        let record = self.side_package(package).map_or(0, |made| made.record);
        let at = self
            .offered_names(package)
            .position(|offered| offered == name);
        1 << 63 | u64::from(record) << 32 | at.unwrap_or_default() as u64
    }

    fn list(&self, package: PackageId, list: List) -> &[NameId] {
        match self.side_package(package) {
            None => self.lists.links(package.0, list),
            Some(made) => {
                let side = &self.sides[usize::from(made.side)];
                &side.links[side.table.record(made.record).link_range(list)]
            }
        }
    }

    pub(super) fn depend_names(&self, package: PackageId) -> &[NameId] {
        self.list(package, List::Depends)
    }

    pub(super) fn provide_names(&self, package: PackageId) -> &[NameId] {
        self.list(package, List::Provides)
    }

    pub(super) fn install_if_names(&self, package: PackageId) -> &[NameId] {
        self.list(package, List::InstallIf)
    }

    /// Returns the own name and then the provided names of a package.
    pub(super) fn offered_names(&self, package: PackageId) -> impl Iterator<Item = NameId> + '_ {
        std::iter::once(self.own_name(package)).chain(self.provide_names(package).iter().copied())
    }

    /// Returns the record that supplies a package's metadata.
    pub(super) fn record(&self, package: PackageId) -> Record<'a> {
        match self.side_package(package) {
            None => self.joined.record(package.0),
            Some(made) => self.sides[usize::from(made.side)].table.record(made.record),
        }
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
        if offer.is_own() {
            return record.version();
        }
        record.provide(offer.provide).map_or("", |p| p.version)
    }

    /// Returns the own name of a package.
    pub fn own_name(&self, package: PackageId) -> NameId {
        match self.side_package(package) {
            None => NameId(self.lists.own_name(package.0)),
            Some(made) => made.name,
        }
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
        let listed = self.listed(package);
        listed.unwrap_or_else(|| self.record(package)).size()
    }

    /// Returns the record of a package in the repositories' table.
    fn listed(&self, package: PackageId) -> Option<Record<'a>> {
        let record = match self.side_package(package) {
            None => package.0,
            Some(made) => made.twin?,
        };
        Some(self.joined.record(record))
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
        let identity = self.identity(package);
        // The installed packages and the joined repositories are here without descriptions; the
        // first other table that has the same package knows them.
        let own = self.side_package(package);
        let own = own.map(|made| self.sides[usize::from(made.side)].table);
        let remembered = self.input.remembered.as_deref();
        let repositories = self.input.repositories.iter().map(|r| r.table.as_ref());
        let tables = own.into_iter().chain(remembered).chain(repositories);
        let known = tables
            .chain(self.input.registered.table())
            .filter(|table| table.has_details())
            .find_map(|table| Some(table.package(table.find_identity(identity)?)));
        let mut owned = known.unwrap_or_else(|| self.record(package).to_package());
        owned.size = self.size(package);
        owned
    }

    /// Returns the numbers of the repositories that list a package, lowest first.
    pub fn repositories_of(&self, package: PackageId) -> impl Iterator<Item = usize> + use<> {
        self.repository_set(package).iter()
    }

    pub(super) fn repository_set(&self, package: PackageId) -> NumberSet {
        let listed = self.listed(package);
        listed.map_or_else(NumberSet::default, |record| {
            NumberSet::from_bits(record.tables())
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
        self.is_of_side(package, SideKind::Installed)
    }

    fn installed_state(&self, package: PackageId) -> Option<&'a InstalledState> {
        let made = self.side_package(package)?;
        let state = || self.input.installed.state(made.record);
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
        self.is_of_side(package, SideKind::Remembered)
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
