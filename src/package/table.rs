//! A list of package records as one flat, indexed block of bytes.
//!
//! A catalogue keeps verified indexes in this form, so that a later command reads one block instead
//! of parsing twenty thousand records. Nothing is decoded until it is asked for: the solver touches
//! only the names its question reaches.
//!
//! There are two blocks. The *core* has what choosing needs, the *details* what people read. All
//! numbers are 32-bit words in the order of the machine, so that lists are used where they lie; a
//! block of another machine is refused by its magic.
//!
//! Tables of several repositories can be joined into one ([`PackageTable::join`]), in which names
//! have one id and each package is there once.
//!
//! ```text
//! core     magic, then the number of names, slots, offers, triggered, dependents, packages,
//!          identity slots, dependencies, text bytes and distinct identities, the flaws that
//!          some record has, and the number of triggers; then the sections in this order:
//! names         3 words each: text offset, text length, hash. Ids are in order of first mention
//! name lists    4 words for each name: first offer, triggered, dependent and trigger; one more
//!               at the end closes the ranges. The upper bit of the last word says that two of
//!               the triggers are in one bucket
//! slots         name id + 1 by hash, open addressing; a power of two. The upper 8 bits are those
//!               of the hash, so that a name that is not there costs one look as a rule
//! offers        2 words each: package, index into its provides or OWN
//! triggered     packages whose install_if mentions the name, in file order
//! dependents    packages whose depends mention the name, in file order
//! triggers      names of the packages whose install_if mentions the name, each once
//! packages      16 words each
//! package lists 4 words for each package: own name, first link of depends, provides and
//!               install_if; one more at the end closes the ranges
//! identities    record + 1 by folded identity, like slots
//! links         the names of all dependencies
//! dependencies  3 words each: flags, version offset, version length
//! text          filled up to a whole word
//! details  magic, number of packages, text bytes; 16 words for each package; text
//! ```
//!
//! Reading never panics: a damaged block gives empty texts and lists. Whoever stores the bytes must
//! detect damage and rebuild them.

use super::dependency::DependencyText;
use super::name_hash::{BUCKETS, murmur3_32};
use super::{Dependency, Flaws, Identity, Operator, Package, Stated};
use bytes::Bytes;
use hashbrown::HashTable;
use std::hash::BuildHasher as _;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

const CORE_MAGIC: u32 = 0x3754_4249;
const DETAILS_MAGIC: u32 = 0x3144_4249;
const CORE_HEADER: usize = 13;
const DETAILS_HEADER: usize = 3;
const NAME_WORDS: usize = 3;
const PACKAGE_WORDS: usize = 16;
/// Of the rows that say where the lists of a name or a package are; they are apart and small
/// because a question follows the lists of most names.
const LIST_WORDS: usize = 4;
const DEPENDENCY_WORDS: usize = 3;
const DETAILS_WORDS: usize = 16;
/// The part of a slot that is an id plus one; the rest is a part of the hash.
const SLOT_IDS: u32 = 0x00ff_ffff;
/// Stands for the own name where an index into the provides is expected.
pub(crate) const OWN: u32 = u32::MAX;
/// The bit of [`PackageTable::triggers_share_a_bucket`].
const SHARED_BUCKET: u32 = 1 << 31;
const ABSENT: u32 = u32::MAX;
const HASH_SEED: u32 = 5381;

/// The lists of a package that name other packages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum List {
    /// What it needs.
    Depends,
    /// What it answers to besides its own name.
    Provides,
    /// What makes it install itself.
    InstallIf,
}

/// What is made of nothing but words, so that a list of it can be used where it lies in a block.
pub(crate) trait Plain: FromBytes + Immutable + KnownLayout {}

impl<T: FromBytes + Immutable + KnownLayout> Plain for T {}

/// The lists of a table with the ids of its user, for those who follow many of them.
#[derive(Clone, Copy)]
pub(crate) struct Lists<'a, Name, Offer> {
    names: &'a [[u32; LIST_WORDS]],
    offers: &'a [Offer],
    triggers: &'a [Name],
    packages: &'a [[u32; LIST_WORDS]],
    links: &'a [Name],
}

impl<'a, Name, Offer> Lists<'a, Name, Offer> {
    fn of_name(&self, name: u32, column: usize) -> (usize, usize) {
        let bound = |row: usize| {
            let row = self.names.get(row);
            row.map_or(0, |row| (row[column] & !SHARED_BUCKET) as usize)
        };
        (bound(name as usize), bound(name as usize + 1))
    }

    /// Returns the offers of a name in file order.
    pub(crate) fn offers(&self, name: u32) -> &'a [Offer] {
        let (from, to) = self.of_name(name, 0);
        self.offers.get(from..to).unwrap_or_default()
    }

    /// Returns the names of the packages whose install_if mentions a name: by bucket of apk's name
    /// table and the youngest first (solver.md, Appendix A), each once.
    pub(crate) fn triggers(&self, name: u32) -> &'a [Name] {
        let (from, to) = self.of_name(name, 3);
        self.triggers.get(from..to).unwrap_or_default()
    }

    /// Returns the names of one of the lists of a record, in file order.
    pub(crate) fn links(&self, record: u32, list: List) -> &'a [Name] {
        let at = record as usize;
        let Some([row, next]) = self.packages.get(at..at + 2) else {
            return &[];
        };
        let (from, to) = match list {
            List::Depends => (row[1], row[2]),
            List::Provides => (row[2], row[3]),
            List::InstallIf => (row[3], next[1]),
        };
        self.links
            .get(from as usize..to as usize)
            .unwrap_or_default()
    }

    /// Returns the own name of a record, as its number.
    pub(crate) fn own_name(&self, record: u32) -> u32 {
        self.packages.get(record as usize).map_or(0, |row| row[0])
    }
}

/// Package records in flat form.
#[derive(Clone, Debug)]
pub struct PackageTable {
    core: Bytes,
    layout: Layout,
    details: Option<Bytes>,
}

/// Word offsets of the sections of the core block.
#[derive(Clone, Copy, Debug)]
struct Layout {
    name_count: usize,
    slot_count: usize,
    package_count: usize,
    identity_slot_count: usize,
    identity_count: usize,
    dependency_count: usize,
    name_lists: usize,
    slots: usize,
    offers: usize,
    triggered: usize,
    dependents: usize,
    triggers: usize,
    packages: usize,
    package_lists: usize,
    identities: usize,
    links: usize,
    dependencies: usize,
    text: usize,
}

/// A name of one table; it means nothing in another table.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, FromBytes, Immutable, KnownLayout,
)]
#[repr(transparent)]
pub struct NameRef(pub u32);

/// One way in which a package answers to a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TableOffer {
    /// The offering record, counted from 0 in file order.
    pub record: u32,
    /// Index into the record's provides, or `None` for its own name.
    pub provide: Option<u32>,
}

/// What choosing needs to know of a package.
#[derive(Clone, Copy, Debug)]
pub struct Record<'a> {
    table: &'a PackageTable,
    base: usize,
    lists: usize,
}

/// A dependency of a record.
#[derive(Clone, Copy, Debug)]
pub struct TableDependency<'a> {
    /// The name, in the same table.
    pub name: NameRef,
    /// Accepted outcomes.
    pub operator: Operator,
    /// `!`.
    pub conflict: bool,
    /// The version is not well-formed.
    pub broken: bool,
    /// The version text.
    pub version: &'a str,
}

/// What people read of a package; nothing is decoded before it is asked for.
#[derive(Clone, Copy, Debug)]
pub struct Details<'a> {
    block: &'a [u8],
    base: usize,
    text_base: usize,
}

impl<'a> Details<'a> {
    fn optional(&self, at: usize) -> Option<&'a str> {
        let offset = word(self.block, self.base + at);
        let length = word(self.block, self.base + at + 1);
        (length != ABSENT).then(|| slice(self.block, self.text_base, offset, length))
    }

    fn text(&self, at: usize) -> &'a str {
        self.optional(at).unwrap_or("")
    }

    /// Returns the line of description.
    pub fn description(&self) -> &'a str {
        self.text(0)
    }

    /// Returns the web page.
    pub fn url(&self) -> &'a str {
        self.text(2)
    }

    /// Returns the licence.
    pub fn license(&self) -> &'a str {
        self.text(4)
    }

    /// Returns the source package.
    pub fn origin(&self) -> Option<&'a str> {
        self.optional(6)
    }

    /// Returns the maintainer.
    pub fn maintainer(&self) -> Option<&'a str> {
        self.optional(8)
    }

    /// Returns the commit of the recipe.
    pub fn commit(&self) -> Option<&'a str> {
        self.optional(10)
    }

    /// Returns the tags, separated by spaces.
    pub fn tags(&self) -> &'a str {
        self.text(12)
    }

    /// Returns the build time in seconds since 1970.
    pub fn build_time(&self) -> Option<u64> {
        let low = u64::from(word(self.block, self.base + 14));
        let seconds = low | u64::from(word(self.block, self.base + 15)) << 32;
        (seconds != u64::MAX).then_some(seconds)
    }
}

/// The bytes are not a table of this version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a package table of this version")]
pub struct TableError;

impl PackageTable {
    /// Builds a table, details included, from records in file order.
    pub fn build(packages: &[Package]) -> Self {
        Self::collect(Builder::with_details(), packages)
    }

    /// Builds a table without details, for packages whose descriptions nobody will ask for.
    pub fn build_core<'p>(packages: impl IntoIterator<Item = &'p Package>) -> Self {
        Self::collect(Builder::default(), packages)
    }

    fn collect<'p>(mut builder: Builder, packages: impl IntoIterator<Item = &'p Package>) -> Self {
        for package in packages {
            builder.add(&Stated::of(package));
        }
        builder.finish()
    }

    /// Joins tables: what is first in one of them is before what is first in a later one, and of the
    /// records of one identity the first is kept. There are no details in it.
    ///
    /// Nothing is parsed or hashed again, so it costs a small part of what building them did.
    pub fn join(tables: &[&PackageTable]) -> Self {
        let mut parts = Parts::default();
        // For each table its names and records as the whole has them.
        let mut places: Vec<[Vec<u32>; 2]> = Vec::with_capacity(tables.len());
        for (number, table) in tables.iter().enumerate() {
            let earlier = &tables[..number];
            let text_base = parts.text.len() as u32;
            let text_from = table.layout.text * 4;
            let text_to = text_from + table.word(9) as usize;
            parts
                .text
                .extend_from_slice(table.core.get(text_from..text_to).unwrap_or_default());
            let names: Vec<u32> = table
                .names()
                .map(|name| {
                    let mut known = earlier.iter().zip(&places);
                    let known = known.find_map(|(other, [names, _])| {
                        Some(names[other.find_name_of(table, name)?.0 as usize])
                    });
                    known.unwrap_or_else(|| {
                        let base = CORE_HEADER + name.0 as usize * NAME_WORDS;
                        let text = [table.word(base) + text_base, table.word(base + 1)];
                        parts.names.push((text, table.name_hash(name)));
                        parts.names.len() as u32 - 1
                    })
                })
                .collect();
            let bit = 1u64.checked_shl(number as u32).unwrap_or(0);
            let mut records: Vec<u32> = Vec::with_capacity(table.len());
            let mut is_first = Vec::with_capacity(table.len());
            for record in 0..table.len() as u32 {
                let package = table.record(record);
                let identity = package.identity();
                let mut known = earlier.iter().zip(&places);
                let known = known.find_map(|(other, [_, records])| {
                    Some(records[other.find_identity(identity)? as usize])
                });
                let own = || {
                    let first = table
                        .find_identity(identity)
                        .filter(|first| *first < record)?;
                    Some(records[first as usize])
                };
                let known = known.or_else(own);
                is_first.push(known.is_none());
                records.push(match known {
                    Some(known) => {
                        let base = known as usize * PACKAGE_WORDS + 14;
                        parts.packages[base] |= bit as u32;
                        parts.packages[base + 1] |= (bit >> 32) as u32;
                        known
                    }
                    None => {
                        parts.take_record(&package, identity, &names, text_base, bit);
                        parts.identities.len() as u32 - 1
                    }
                });
            }
            let lists = table.lists::<u32, [u32; 2]>();
            for name in table.names() {
                let (id, place) = (names[name.0 as usize], |record: u32| {
                    records[record as usize]
                });
                let first = |record: &u32| is_first[*record as usize];
                let offers = lists.offers(name.0).iter();
                let offers = offers.filter(|[record, _]| first(record));
                let offers = offers.map(|[record, provide]| [id, place(*record), *provide]);
                parts.offers.extend(offers);
                let triggered = table.triggered(name).filter(first);
                parts
                    .triggered
                    .extend(triggered.map(|record| [id, place(record)]));
                let dependents = table.dependents(name).filter(first);
                parts
                    .dependents
                    .extend(dependents.map(|record| [id, place(record)]));
            }
            parts.flaws |= table.word(11);
            places.push([names, records]);
        }
        parts.assemble(None)
    }

    /// Takes a table from stored blocks. Texts are not looked at before they are asked for.
    ///
    /// # Errors
    /// [`TableError`] if a header is not of this version.
    pub fn from_bytes(core: Bytes, details: Option<Bytes>) -> Result<Self, TableError> {
        let core = aligned(core);
        let layout = Layout::read(&core).ok_or(TableError)?;
        if let Some(block) = &details {
            let count = word(block, 1) as usize;
            let text = (DETAILS_HEADER + count.saturating_mul(DETAILS_WORDS)).saturating_mul(4);
            if word(block, 0) != DETAILS_MAGIC
                || count != layout.package_count
                || block.len() < text
            {
                return Err(TableError);
            }
        }
        let table = Self {
            core,
            layout,
            details,
        };
        table.has_valid_ids().then_some(table).ok_or(TableError)
    }

    /// Returns whether all lists name only what is there. Their users go by it without looking.
    fn has_valid_ids(&self) -> bool {
        let Layout {
            name_count,
            package_count,
            offers,
            triggered,
            triggers,
            packages,
            links,
            dependencies,
            ..
        } = self.layout;
        let below = |from: usize, to: usize, limit: usize| {
            let all = self.list::<u32>(from..to).iter();
            all.fold(0, |most, id| most.max(*id)) < limit.max(1) as u32
        };
        let offered = self.list::<[u32; 2]>(offers..triggered).iter();
        let records = offered.fold(0, |most, [record, _]| most.max(*record));
        below(triggered, triggers, package_count)
            && (records as usize) < package_count.max(1)
            && below(triggers, packages, name_count)
            && below(links, dependencies, name_count)
            && (0..package_count as u32)
                .all(|record| (self.record(record).name_ref().0 as usize) < name_count)
    }

    /// Returns a part of the core, given in words.
    fn list<T: Plain>(&self, range: std::ops::Range<usize>) -> &[T] {
        let bytes = self.core.get(range.start * 4..range.end * 4);
        bytes
            .and_then(|bytes| <[T]>::ref_from_bytes(bytes).ok())
            .unwrap_or_default()
    }

    /// Returns what reading found wrong with any of the records.
    pub fn flaws(&self) -> Flaws {
        flaws(self.word(11))
    }

    /// Returns the core block for storing.
    pub fn core_bytes(&self) -> &[u8] {
        &self.core
    }

    /// Returns the details block for storing, if it was loaded.
    pub fn details_bytes(&self) -> Option<&[u8]> {
        self.details.as_deref()
    }

    /// Returns the number of records.
    pub fn len(&self) -> usize {
        self.layout.package_count
    }

    /// Returns whether there are no records.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns the number of names, mentioned ones included.
    pub fn name_count(&self) -> usize {
        self.layout.name_count
    }

    /// Finds a name, given its [`hash`].
    pub fn find_name(&self, name: &str, hash: u32) -> Option<NameRef> {
        let Layout {
            slots, slot_count, ..
        } = self.layout;
        self.find(slots, slot_count, hash, |id| {
            let found = NameRef(id);
            self.name_hash(found) == hash && self.name(found) == name
        })
        .map(NameRef)
    }

    /// Finds the name that another table has under `name`.
    ///
    /// It is what [`Self::find_name`] finds, but does not read the text if it can be avoided.
    pub fn find_name_of(&self, other: &PackageTable, name: NameRef) -> Option<NameRef> {
        let Layout {
            slots, slot_count, ..
        } = self.layout;
        let hash = other.name_hash(name);
        self.find(slots, slot_count, hash, |id| {
            let found = NameRef(id);
            self.name_hash(found) == hash && self.name_bytes(found) == other.name_bytes(name)
        })
        .map(NameRef)
    }

    /// Returns whether no two records have the same identity.
    pub fn has_distinct_identities(&self) -> bool {
        self.layout.identity_count == self.layout.package_count
    }

    /// Finds the first record with an identity.
    pub fn find_identity(&self, identity: Identity) -> Option<u32> {
        let Layout {
            identities,
            identity_slot_count,
            ..
        } = self.layout;
        self.find(identities, identity_slot_count, fold(identity), |record| {
            (record as usize) < self.len() && self.record(record).identity() == identity
        })
    }

    /// Looks for the id under which a hash is filed.
    fn find(
        &self,
        slots: usize,
        slot_count: usize,
        hash: u32,
        is_it: impl Fn(u32) -> bool,
    ) -> Option<u32> {
        let mask = slot_count.checked_sub(1)?;
        let mut slot = hash as usize & mask;
        for _ in 0..slot_count {
            let word = self.word(slots + slot);
            let id = (word & SLOT_IDS).checked_sub(1)?;
            if (word ^ hash) & !SLOT_IDS == 0 && is_it(id) {
                return Some(id);
            }
            slot = (slot + 1) & mask;
        }
        None
    }

    /// Returns the text of a name.
    pub fn name(&self, name: NameRef) -> &str {
        let base = CORE_HEADER + name.0 as usize * NAME_WORDS;
        self.text(self.word(base), self.word(base + 1))
    }

    fn name_bytes(&self, name: NameRef) -> &[u8] {
        let base = CORE_HEADER + name.0 as usize * NAME_WORDS;
        let from = self.layout.text * 4 + self.word(base) as usize;
        let length = self.word(base + 1) as usize;
        self.core.get(from..from + length).unwrap_or_default()
    }

    /// Returns the stored hash of a name.
    pub fn name_hash(&self, name: NameRef) -> u32 {
        self.word(CORE_HEADER + name.0 as usize * NAME_WORDS + 2)
    }

    /// Returns the lists with names and offers of the caller's: a name is a number, an offer a
    /// record and an index into its provides, or [`OWN`].
    pub(crate) fn lists<Name: Plain, Offer: Plain>(&self) -> Lists<'_, Name, Offer> {
        let layout = &self.layout;
        Lists {
            names: self.list(layout.name_lists..layout.slots),
            offers: self.list(layout.offers..layout.triggered),
            triggers: self.list(layout.triggers..layout.packages),
            packages: self.list(layout.package_lists..layout.identities),
            links: self.list(layout.links..layout.dependencies),
        }
    }

    /// Returns whether two of the triggers of a name are in one bucket, so that their order is
    /// another one if something before this table mentions one of them.
    pub(crate) fn triggers_share_a_bucket(&self, name: NameRef) -> bool {
        let base = self.layout.name_lists + name.0 as usize * LIST_WORDS;
        self.word(base + 3) & SHARED_BUCKET != 0
    }

    /// Returns the names of all dependencies, one package after the other.
    pub(crate) fn links(&self) -> &[NameRef] {
        self.list(self.layout.links..self.layout.dependencies)
    }

    /// Returns all names in order of first mention.
    pub fn names(&self) -> impl Iterator<Item = NameRef> {
        (0..self.layout.name_count as u32).map(NameRef)
    }

    /// Returns the offers of a name in file order.
    pub fn offers(&self, name: NameRef) -> impl Iterator<Item = TableOffer> + '_ {
        self.range(name, 0).map(move |i| {
            let base = self.layout.offers + i * 2;
            let provide = self.word(base + 1);
            TableOffer {
                record: self.word(base),
                provide: (provide != OWN).then_some(provide),
            }
        })
    }

    /// Returns the records whose install_if mentions a name, in file order.
    pub fn triggered(&self, name: NameRef) -> impl Iterator<Item = u32> + '_ {
        self.range(name, 1)
            .map(move |i| self.word(self.layout.triggered + i))
    }

    /// Returns the records whose depends mention a name (conflicts count), in file order.
    pub fn dependents(&self, name: NameRef) -> impl Iterator<Item = u32> + '_ {
        self.range(name, 2)
            .map(move |i| self.word(self.layout.dependents + i))
    }

    fn range(&self, name: NameRef, column: usize) -> std::ops::Range<usize> {
        let base = self.layout.name_lists + name.0 as usize * LIST_WORDS + column;
        let limit = self.core.len() / 4;
        let bound = |at: usize| ((self.word(at) & !SHARED_BUCKET) as usize).min(limit);
        let start = bound(base);
        start..bound(base + LIST_WORDS).max(start)
    }

    /// Returns a record by its position in the file.
    pub fn record(&self, index: u32) -> Record<'_> {
        Record {
            table: self,
            base: self.layout.packages + index as usize * PACKAGE_WORDS,
            lists: self.layout.package_lists + index as usize * LIST_WORDS,
        }
    }

    /// Returns whether the details block was loaded.
    pub fn has_details(&self) -> bool {
        self.details.is_some()
    }

    /// Returns the details of a record, if the block was loaded.
    pub fn details(&self, index: u32) -> Option<Details<'_>> {
        Some(Details {
            block: self.details.as_deref()?,
            base: DETAILS_HEADER + index as usize * DETAILS_WORDS,
            text_base: (DETAILS_HEADER + self.len() * DETAILS_WORDS) * 4,
        })
    }

    /// Returns a record as an owned [`Package`]; details are empty if they were not loaded.
    pub fn package(&self, index: u32) -> Package {
        let mut package = self.record(index).to_package();
        if let Some(details) = self.details(index) {
            package.description = details.description().to_owned();
            package.url = details.url().to_owned();
            package.license = details.license().to_owned();
            package.origin = details.origin().map(str::to_owned);
            package.maintainer = details.maintainer().map(str::to_owned);
            package.build_time = details.build_time();
            package.commit = details.commit().map(str::to_owned);
            let tags = details.tags().split_whitespace();
            package.tags = tags.map(str::to_owned).collect();
        }
        package
    }

    /// Returns a table dependency as an owned one.
    pub fn dependency(&self, dependency: TableDependency<'_>) -> Dependency {
        Dependency {
            name: self.name(dependency.name).to_owned(),
            operator: dependency.operator,
            version: dependency.version.to_owned(),
            conflict: dependency.conflict,
            tag: None,
            broken: dependency.broken,
        }
    }

    fn entry(&self, index: usize) -> TableDependency<'_> {
        let base = self.layout.dependencies + index * DEPENDENCY_WORDS;
        let flags = self.word(base);
        TableDependency {
            name: NameRef(self.word(self.layout.links + index)),
            operator: Operator::from_mask(flags as u8),
            conflict: flags & 16 != 0,
            broken: flags & 32 != 0,
            version: self.text(self.word(base + 1), self.word(base + 2)),
        }
    }

    fn word(&self, index: usize) -> u32 {
        word(&self.core, index)
    }

    fn text(&self, offset: u32, length: u32) -> &str {
        slice(&self.core, self.layout.text * 4, offset, length)
    }
}

impl<'a> Record<'a> {
    fn word(&self, at: usize) -> u32 {
        self.table.word(self.base + at)
    }

    fn long(&self, at: usize) -> u64 {
        u64::from(self.word(at)) | u64::from(self.word(at + 1)) << 32
    }

    /// Returns it as an owned [`Package`] without details.
    pub fn to_package(&self) -> Package {
        let owned = |list: &mut dyn Iterator<Item = TableDependency<'_>>| {
            list.map(|d| self.table.dependency(d)).collect::<Vec<_>>()
        };
        Package {
            identity: self.identity(),
            name: self.name().to_owned(),
            version: self.version().to_owned(),
            arch: self.arch().map(str::to_owned),
            size: self.size(),
            installed_size: self.installed_size(),
            provider_priority: self.provider_priority(),
            depends: owned(&mut self.depends()),
            provides: owned(&mut self.provides()),
            install_if: owned(&mut self.install_if()),
            flaws: self.flaws(),
            ..Package::default()
        }
    }

    /// Returns the own name's id.
    pub fn name_ref(&self) -> NameRef {
        NameRef(self.table.word(self.lists))
    }

    /// Returns the own name.
    pub fn name(&self) -> &'a str {
        self.table.name(self.name_ref())
    }

    /// Returns the version text.
    pub fn version(&self) -> &'a str {
        self.table.text(self.word(0), self.word(1))
    }

    /// Returns the architecture, if the record states one.
    pub fn arch(&self) -> Option<&'a str> {
        let length = self.word(3);
        (length != ABSENT).then(|| self.table.text(self.word(2), length))
    }

    /// Returns the identity.
    pub fn identity(&self) -> Identity {
        let mut bytes = [0; 20];
        for (i, part) in bytes.chunks_exact_mut(4).enumerate() {
            part.copy_from_slice(&self.word(4 + i).to_le_bytes());
        }
        Identity(bytes)
    }

    /// Returns the size of the package file in bytes.
    pub fn size(&self) -> u64 {
        self.long(9)
    }

    /// Returns the installed size in bytes.
    pub fn installed_size(&self) -> u64 {
        self.long(11)
    }

    /// Returns the provider priority.
    pub fn provider_priority(&self) -> u16 {
        self.word(13) as u16
    }

    /// Returns what reading found wrong.
    pub fn flaws(&self) -> Flaws {
        flaws(self.word(13) >> 16)
    }

    /// Returns the dependencies in file order.
    pub fn depends(&self) -> impl ExactSizeIterator<Item = TableDependency<'a>> + use<'a> {
        self.list(List::Depends)
    }

    /// Returns the provided names in file order.
    pub fn provides(&self) -> impl ExactSizeIterator<Item = TableDependency<'a>> + use<'a> {
        self.list(List::Provides)
    }

    /// Returns the install_if conditions in file order.
    pub fn install_if(&self) -> impl ExactSizeIterator<Item = TableDependency<'a>> + use<'a> {
        self.list(List::InstallIf)
    }

    /// Returns one dependency by its position in the list.
    pub fn depend(&self, index: u32) -> Option<TableDependency<'a>> {
        self.one(List::Depends, index)
    }

    /// Returns one provided name by its position in the list.
    pub fn provide(&self, index: u32) -> Option<TableDependency<'a>> {
        self.one(List::Provides, index)
    }

    fn one(&self, list: List, index: u32) -> Option<TableDependency<'a>> {
        let range = self.link_range(list);
        let at = range.start.checked_add(index as usize)?;
        (at < range.end).then(|| self.table.entry(at))
    }

    /// Returns the names of one of the lists in file order.
    pub(crate) fn names(&self, list: List) -> &'a [NameRef] {
        let range = self.link_range(list);
        let base = self.table.layout.links;
        self.table.list(base + range.start..base + range.end)
    }

    /// Returns where the names of one of the lists are among all links of the table.
    pub(crate) fn link_range(&self, list: List) -> std::ops::Range<usize> {
        let limit = self.table.layout.dependency_count;
        let bound = |at: usize| (self.table.word(self.lists + at) as usize).min(limit);
        let (from, to) = match list {
            List::Depends => (bound(1), bound(2)),
            List::Provides => (bound(2), bound(3)),
            List::InstallIf => (bound(3), bound(LIST_WORDS + 1)),
        };
        from..to.max(from)
    }

    /// Returns which of the joined tables have the package, as bits; those above 63 are left out.
    pub(crate) fn tables(&self) -> u64 {
        self.long(14)
    }

    fn list(&self, list: List) -> impl ExactSizeIterator<Item = TableDependency<'a>> + use<'a> {
        let table = self.table;
        self.link_range(list).map(move |i| table.entry(i))
    }
}

/// Returns the hash under which tables file a name; modulo 20000 it is apk's bucket.
pub fn hash(name: &str) -> u32 {
    murmur3_32(name.as_bytes(), HASH_SEED)
}

/// Identities are digests, so any part of them is spread evenly.
fn fold(identity: Identity) -> u32 {
    let words = identity.0.chunks_exact(4);
    words.fold(0, |all, part| {
        all.rotate_left(5) ^ u32::from_le_bytes(part.try_into().expect("chunks of four"))
    })
}

fn word(bytes: &[u8], index: usize) -> u32 {
    match bytes.get(index * 4..index * 4 + 4) {
        Some(four) => u32::from_ne_bytes(four.try_into().expect("a slice of four bytes")),
        None => 0,
    }
}

fn slice(bytes: &[u8], base: usize, offset: u32, length: u32) -> &str {
    let from = base + offset as usize;
    let part = bytes.get(from..from + length as usize).unwrap_or_default();
    std::str::from_utf8(part).unwrap_or_default()
}

impl Layout {
    fn read(core: &[u8]) -> Option<Self> {
        if word(core, 0) != CORE_MAGIC {
            return None;
        }
        let count = |i: usize| word(core, i) as usize;
        let name_lists = CORE_HEADER + count(1) * NAME_WORDS;
        let slots = name_lists + (count(1) + 1) * LIST_WORDS;
        let offers = slots + count(2);
        let triggered = offers + count(3) * 2;
        let dependents = triggered + count(4);
        let triggers = dependents + count(5);
        let packages = triggers + count(12);
        let package_lists = packages + count(6) * PACKAGE_WORDS;
        let identities = package_lists + (count(6) + 1) * LIST_WORDS;
        let links = identities + count(7);
        let dependencies = links + count(8);
        let text = dependencies + count(8) * DEPENDENCY_WORDS;
        let whole = (text + count(9).div_ceil(4)).checked_mul(4)?;
        let valid = |slots: usize| slots == 0 || slots.is_power_of_two();
        (whole == core.len() && valid(count(2)) && valid(count(7))).then_some(Self {
            name_count: count(1),
            slot_count: count(2),
            package_count: count(6),
            identity_slot_count: count(7),
            identity_count: count(10),
            dependency_count: count(8),
            name_lists,
            slots,
            offers,
            triggered,
            dependents,
            triggers,
            packages,
            package_lists,
            identities,
            links,
            dependencies,
            text,
        })
    }
}

fn flaws(bits: u32) -> Flaws {
    Flaws {
        uninstallable: bits & 1 != 0,
        broken_list: bits & 2 != 0,
        unknown_field: bits & 4 != 0,
    }
}

fn flaw_bits(flaws: Flaws) -> u32 {
    u32::from(flaws.uninstallable)
        | u32::from(flaws.broken_list) << 1
        | u32::from(flaws.unknown_field) << 2
}

/// Collects texts, each stored once.
#[derive(Default)]
struct Pool {
    bytes: Vec<u8>,
    /// Offset and length of each text.
    known: HashTable<[u32; 2]>,
    hasher: foldhash::fast::RandomState,
}

impl Pool {
    fn add(&mut self, text: &str) -> [u32; 2] {
        let (bytes, hasher) = (&mut self.bytes, &self.hasher);
        let hash_of = |text: &[u8]| hasher.hash_one(text);
        let at = |place: &[u32; 2]| place[0] as usize..(place[0] + place[1]) as usize;
        let hash = hash_of(text.as_bytes());
        if let Some(place) = self
            .known
            .find(hash, |place| &bytes[at(place)] == text.as_bytes())
        {
            return *place;
        }
        let place = [bytes.len() as u32, text.len() as u32];
        bytes.extend_from_slice(text.as_bytes());
        self.known
            .insert_unique(hash, place, |place| hash_of(&bytes[at(place)]));
        place
    }

    fn add_option(&mut self, text: Option<&str>) -> [u32; 2] {
        text.map_or([0, ABSENT], |text| self.add(text))
    }
}

struct BuilderName {
    text: [u32; 2],
    hash: u32,
    /// One more than the last record that depends on the name, and that is triggered by it.
    last: [u32; 2],
}

/// Makes a table, one record after the other in file order.
#[derive(Default)]
pub struct Builder {
    pool: Pool,
    ids: HashTable<u32>,
    names: Vec<BuilderName>,
    /// Name, record, index into the provides or [`OWN`].
    offers: Vec<[u32; 3]>,
    /// Name and record.
    triggered: Vec<[u32; 2]>,
    /// Name and record.
    dependents: Vec<[u32; 2]>,
    packages: Vec<u32>,
    lists: Vec<[u32; LIST_WORDS]>,
    identities: Vec<Identity>,
    links: Vec<u32>,
    dependencies: Vec<u32>,
    flaws: u32,
    count: u32,
    details: Option<DetailsBuilder>,
}

impl Builder {
    /// Makes a builder of a table that people can read.
    pub fn with_details() -> Self {
        Self {
            details: Some(DetailsBuilder::default()),
            ..Self::default()
        }
    }

    fn name(&mut self, text: &str) -> u32 {
        let hash = hash(text);
        let (names, bytes) = (&self.names, &self.pool.bytes);
        let found = self.ids.find(hash.into(), |id| {
            let name: &BuilderName = &names[*id as usize];
            let [offset, length] = name.text.map(|part| part as usize);
            name.hash == hash && &bytes[offset..offset + length] == text.as_bytes()
        });
        if let Some(id) = found {
            return *id;
        }
        let id = self.names.len() as u32;
        self.names.push(BuilderName {
            text: self.pool.add(text),
            hash,
            last: [0; 2],
        });
        let names = &self.names;
        self.ids
            .insert_unique(hash.into(), id, |id| names[*id as usize].hash.into());
        id
    }

    /// Adds a record.
    pub fn add(&mut self, stated: &Stated<'_>) {
        let record = self.count;
        self.count += 1;
        let own = self.name(stated.name);
        self.offers.push([own, record, OWN]);
        let starts = [
            self.list(&stated.depends, |builder, name, _| {
                if std::mem::replace(&mut builder.names[name as usize].last[0], record + 1)
                    != record + 1
                {
                    builder.dependents.push([name, record]);
                }
            }),
            self.list(&stated.provides, |builder, name, i| {
                builder.offers.push([name, record, i]);
            }),
            self.list(&stated.install_if, |builder, name, _| {
                if std::mem::replace(&mut builder.names[name as usize].last[1], record + 1)
                    != record + 1
                {
                    builder.triggered.push([name, record]);
                }
            }),
        ];
        for name in &stated.mentions {
            self.name(name);
        }
        let bits = flaw_bits(stated.flaws);
        self.flaws |= bits;
        let version = self.pool.add(stated.version);
        let arch = self.pool.add_option(stated.arch);
        self.identities.push(stated.identity);
        self.packages.extend(version);
        self.packages.extend(arch);
        for part in stated.identity.0.chunks_exact(4) {
            self.packages
                .push(u32::from_le_bytes(part.try_into().expect("chunks of four")));
        }
        for long in [stated.size, stated.installed_size] {
            self.packages.extend([long as u32, (long >> 32) as u32]);
        }
        self.packages
            .push(u32::from(stated.provider_priority) | bits << 16);
        self.packages.extend([1, 0]);
        self.lists.push([own, starts[0], starts[1], starts[2]]);
        debug_assert_eq!(self.packages.len(), self.count as usize * PACKAGE_WORDS);
        if let Some(details) = &mut self.details {
            details.add(stated);
        }
    }

    fn list(
        &mut self,
        list: &[DependencyText<'_>],
        mut link: impl FnMut(&mut Self, u32, u32),
    ) -> u32 {
        let start = self.links.len() as u32;
        for (i, dependency) in list.iter().enumerate() {
            let name = self.name(dependency.name);
            link(self, name, i as u32);
            let flags = u32::from(dependency.operator.mask())
                | u32::from(dependency.conflict) << 4
                | u32::from(dependency.broken) << 5;
            let version = self.pool.add(dependency.version);
            self.links.push(name);
            self.dependencies.push(flags);
            self.dependencies.extend(version);
        }
        start
    }

    /// Returns the table.
    pub fn finish(self) -> PackageTable {
        let names = self.names.iter().map(|name| (name.text, name.hash));
        Parts {
            names: names.collect(),
            offers: self.offers,
            triggered: self.triggered,
            dependents: self.dependents,
            packages: self.packages,
            lists: self.lists,
            identities: self.identities,
            links: self.links,
            dependencies: self.dependencies,
            flaws: self.flaws,
            text: self.pool.bytes,
        }
        .assemble(self.details.map(DetailsBuilder::finish))
    }
}

/// What a core is made of, in the order of the records.
#[derive(Default)]
struct Parts {
    /// Place of the text, and hash.
    names: Vec<([u32; 2], u32)>,
    /// Name, record, index into the provides or [`OWN`].
    offers: Vec<[u32; 3]>,
    /// Name and record.
    triggered: Vec<[u32; 2]>,
    /// Name and record.
    dependents: Vec<[u32; 2]>,
    packages: Vec<u32>,
    lists: Vec<[u32; LIST_WORDS]>,
    identities: Vec<Identity>,
    links: Vec<u32>,
    dependencies: Vec<u32>,
    flaws: u32,
    text: Vec<u8>,
}

impl Parts {
    /// Takes over a record of a table whose names and text are here already.
    fn take_record(
        &mut self,
        package: &Record<'_>,
        identity: Identity,
        names: &[u32],
        text_base: u32,
        tables: u64,
    ) {
        let base = self.packages.len();
        let words = (0..PACKAGE_WORDS).map(|at| package.word(at));
        self.packages.extend(words);
        let row = &mut self.packages[base..];
        row[0] += text_base;
        // The place of an architecture that is not stated does not matter.
        row[2] = row[2].wrapping_add(text_base);
        row[14] = tables as u32;
        row[15] = (tables >> 32) as u32;
        let mut lists = [names[package.name_ref().0 as usize], 0, 0, 0];
        for (column, list) in [List::Depends, List::Provides, List::InstallIf]
            .iter()
            .enumerate()
        {
            lists[1 + column] = self.links.len() as u32;
            for at in package.link_range(*list) {
                let table = package.table;
                let dependency = table.layout.dependencies + at * DEPENDENCY_WORDS;
                self.links
                    .push(names[table.word(table.layout.links + at) as usize]);
                self.dependencies.extend([
                    table.word(dependency),
                    table.word(dependency + 1).wrapping_add(text_base),
                    table.word(dependency + 2),
                ]);
            }
        }
        self.lists.push(lists);
        self.identities.push(identity);
    }

    fn assemble(self, details: Option<Bytes>) -> PackageTable {
        let slots = fill_slots(self.names.iter().map(|(_, hash)| *hash), |_, _| false);
        let hashes = self.identities.iter().map(|identity| fold(*identity));
        let identities = fill_slots(hashes, |a, b| self.identities[a] == self.identities[b]);
        let count = self.names.len();
        let (offers, offer_starts) = by_name(count, &self.offers, |[name, ..]| *name);
        let (triggered, triggered_starts) = by_name(count, &self.triggered, |[name, _]| *name);
        let (dependents, dependent_starts) = by_name(count, &self.dependents, |[name, _]| *name);
        let (triggers, trigger_starts) = self.triggers(&triggered);
        let mut core = Words(Vec::with_capacity(
            CORE_HEADER
                + count * NAME_WORDS
                + (count + 1) * LIST_WORDS
                + slots.len()
                + offers.len() * 2
                + triggered.len()
                + dependents.len()
                + triggers.len()
                + self.packages.len()
                + (self.lists.len() + 1) * LIST_WORDS
                + identities.len()
                + self.links.len()
                + self.dependencies.len()
                + self.text.len().div_ceil(4),
        ));
        core.extend([
            CORE_MAGIC,
            count as u32,
            slots.len() as u32,
            offers.len() as u32,
            triggered.len() as u32,
            dependents.len() as u32,
            self.identities.len() as u32,
            identities.len() as u32,
            self.links.len() as u32,
            self.text.len() as u32,
            identities.iter().filter(|slot| **slot != 0).count() as u32,
            self.flaws,
            triggers.len() as u32,
        ]);
        for ([offset, length], hash) in &self.names {
            core.extend([*offset, *length, *hash]);
        }
        for i in 0..=count {
            core.extend([
                offer_starts[i],
                triggered_starts[i],
                dependent_starts[i],
                trigger_starts[i],
            ]);
        }
        core.extend(slots);
        let offers = offers.into_iter();
        core.extend(offers.flat_map(|[_, record, provide]| [record, provide]));
        core.extend(triggered.into_iter().map(|[_, record]| record));
        core.extend(dependents.into_iter().map(|[_, record]| record));
        core.extend(triggers);
        core.extend(self.packages);
        let end = self.links.len() as u32;
        core.extend(self.lists.into_iter().flatten());
        core.extend([0, end, end, end]);
        core.extend(identities);
        core.extend(self.links);
        core.extend(self.dependencies);
        let core = core.followed_by(&self.text);
        PackageTable {
            layout: Layout::read(&core).expect("the builder writes a valid header"),
            core,
            details,
        }
    }

    /// Lists the names of what each name triggers; returns where each list begins, and the end.
    fn triggers(&self, triggered: &[[u32; 2]]) -> (Vec<u32>, Vec<u32>) {
        let mut starts = vec![0; self.names.len() + 1];
        let (mut all, mut list) = (Vec::new(), Vec::<u32>::new());
        // A name that triggers nothing has an empty list at the end of the one before.
        let mut next = 0;
        let bucket = |name: u32| self.names[name as usize].1 % BUCKETS;
        for group in triggered.chunk_by(|[a, _], [b, _]| a == b) {
            list.clear();
            for [_, record] in group {
                let [own, _, from, to] = self.lists[*record as usize];
                list.push(own);
                list.extend(&self.links[from as usize..to as usize]);
            }
            // The younger of two names of a bucket comes first.
            list.sort_unstable_by_key(|name| (bucket(*name), std::cmp::Reverse(*name)));
            list.dedup();
            let mut neighbours = list.windows(2);
            let shared = neighbours.any(|pair| bucket(pair[0]) == bucket(pair[1]));
            let name = group[0][0] as usize;
            starts[next..=name].fill(all.len() as u32);
            starts[name] |= if shared { SHARED_BUCKET } else { 0 };
            next = name + 1;
            all.extend_from_slice(&list);
        }
        starts[next..].fill(all.len() as u32);
        (all, starts)
    }
}

/// Sorts entries by name, keeping the order of those of one name; returns where each name's
/// entries begin, and the end.
fn by_name<T: Copy + Default>(
    names: usize,
    entries: &[T],
    name: impl Fn(&T) -> u32,
) -> (Vec<T>, Vec<u32>) {
    let mut starts = vec![0u32; names + 2];
    for entry in entries {
        starts[name(entry) as usize + 2] += 1;
    }
    for i in 2..starts.len() {
        starts[i] += starts[i - 1];
    }
    let mut sorted = vec![T::default(); entries.len()];
    for entry in entries {
        let next = &mut starts[name(entry) as usize + 1];
        sorted[*next as usize] = *entry;
        *next += 1;
    }
    starts.pop();
    (sorted, starts)
}

/// A block in the making.
struct Words(Vec<u32>);

impl Words {
    fn extend(&mut self, words: impl IntoIterator<Item = u32>) {
        self.0.extend(words);
    }

    fn followed_by(mut self, text: &[u8]) -> Bytes {
        let start = self.0.len();
        self.0.resize(start + text.len().div_ceil(4), 0);
        self.0[start..].as_mut_bytes()[..text.len()].copy_from_slice(text);
        Bytes::from_owner(self)
    }
}

impl AsRef<[u8]> for Words {
    fn as_ref(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

/// Returns bytes that lie as words do, copied if need be.
fn aligned(bytes: Bytes) -> Bytes {
    match bytes.as_ptr().cast::<u32>().is_aligned() {
        true => bytes,
        false => Words(Vec::new()).followed_by(&bytes),
    }
}

#[derive(Default)]
struct DetailsBuilder {
    pool: Pool,
    words: Vec<u32>,
}

impl DetailsBuilder {
    fn add(&mut self, stated: &Stated<'_>) {
        let Self { pool, words } = self;
        words.extend(pool.add(stated.description));
        words.extend(pool.add(stated.url));
        words.extend(pool.add(stated.license));
        words.extend(pool.add_option(stated.origin));
        words.extend(pool.add_option(stated.maintainer));
        words.extend(pool.add_option(stated.commit));
        words.extend(pool.add(&stated.tags));
        let seconds = stated.build_time.unwrap_or(u64::MAX);
        words.extend([seconds as u32, (seconds >> 32) as u32]);
    }

    fn finish(self) -> Bytes {
        let text = &self.pool.bytes;
        let capacity = DETAILS_HEADER + self.words.len() + text.len().div_ceil(4);
        let mut block = Words(Vec::with_capacity(capacity));
        let count = self.words.len() / DETAILS_WORDS;
        block.extend([DETAILS_MAGIC, count as u32, text.len() as u32]);
        block.extend(self.words);
        block.followed_by(text)
    }
}

/// Files ids by hash; of equal ones only the first. Ids that a slot can not hold are not found.
fn fill_slots(
    hashes: impl ExactSizeIterator<Item = u32>,
    equal: impl Fn(usize, usize) -> bool,
) -> Vec<u32> {
    let mut slots = vec![0u32; (hashes.len() * 2).next_power_of_two()];
    let mask = slots.len() - 1;
    for (id, hash) in hashes.enumerate().take(SLOT_IDS as usize) {
        let mut slot = hash as usize & mask;
        let mut known = false;
        while slots[slot] != 0 && !known {
            known = equal((slots[slot] & SLOT_IDS) as usize - 1, id);
            slot = (slot + 1) & mask;
        }
        if !known {
            slots[slot] = (hash & !SLOT_IDS) | (id as u32 + 1);
        }
    }
    slots
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::package::DependencyList;

    fn package(name: &str, version: &str, depends: &str, provides: &str, when: &str) -> Package {
        Package {
            identity: Identity([name.len() as u8; 20]),
            name: name.into(),
            version: version.into(),
            size: 1 << 40,
            description: format!("the {name}"),
            depends: DependencyList::parse(depends).entries,
            provides: DependencyList::parse(provides).entries,
            install_if: DependencyList::parse(when).entries,
            ..Package::default()
        }
    }

    #[test]
    fn a_table_gives_back_what_it_was_built_from() {
        let packages = [
            package("app", "2", "lib>1 !old lib<3", "cmd:app=2 app", ""),
            package("lib", "1", "", "", ""),
            package("app-doc", "2", "", "", "app docs"),
        ];
        let built = PackageTable::build(&packages);
        let stored = PackageTable::from_bytes(built.core.clone(), built.details.clone()).unwrap();
        for (i, wanted) in packages.iter().enumerate() {
            assert_eq!(&stored.package(i as u32), wanted);
        }
        let find = |name: &str| stored.find_name(name, hash(name)).unwrap();
        let offers: Vec<_> = stored
            .offers(find("app"))
            .map(|o| (o.record, o.provide))
            .collect();
        assert_eq!(offers, [(0, None), (0, Some(1))]);
        assert_eq!(stored.dependents(find("lib")).collect::<Vec<_>>(), [0]);
        assert_eq!(stored.triggered(find("docs")).collect::<Vec<_>>(), [2]);
        assert_eq!(stored.find_name("nosuch", hash("nosuch")), None);
        for (i, package) in packages.iter().enumerate() {
            let first = packages.iter().position(|p| p.identity == package.identity);
            let found = stored.find_identity(packages[i].identity);
            assert_eq!(found.map(|record| record as usize), first);
        }
        assert_eq!(stored.find_identity(Identity([77; 20])), None);
    }

    #[test]
    fn damage_is_refused_or_harmless() {
        let core = PackageTable::build(&[package("a", "1", "b", "c", "d")])
            .core_bytes()
            .to_vec();
        for cut in 0..core.len() {
            assert!(PackageTable::from_bytes(core[..cut].to_vec().into(), None).is_err());
        }
        for at in 0..core.len() {
            let mut changed = core.clone();
            changed[at] ^= 0xff;
            if let Ok(table) = PackageTable::from_bytes(changed.into(), None) {
                let _ = table.package(0);
                let _ = table.find_name("a", hash("a"));
                let _ = table.find_identity(Identity([1; 20]));
            }
        }
    }
}
