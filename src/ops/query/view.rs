//! What is known: the installed database and the loaded repositories as one set of packages.
//!
//! A [`View`] borrows [`PackageTable`]s and copies nothing. A package is named by the record that
//! supplies its metadata: the first one with its identity, the installed database before the
//! repositories and those in order (solver.md, 2.1). Names are looked up by hash in every table, so
//! a question about one name costs the same on a small index and on a large one.
//!
//! It must never read a file; what it is made of was loaded and verified by others.

use crate::config::repositories::locate;
use crate::package::installed::InstalledPackage;
use crate::package::name_hash::BUCKETS;
use crate::package::table::{Details, List, NameRef, Record, TableDependency, hash};
use crate::package::{FileName, Identity, InstalledDb, Operator, PackageTable, order};
use std::cmp::Reverse;
use std::collections::HashSet;
use std::sync::Arc;

/// What a repository is called among the sources of an installed package.
pub const INSTALLED_SOURCE: &str = "lib/apk/db/installed";

/// A loaded repository, in the order of declaration.
#[derive(Clone, Debug)]
pub struct RepositoryView {
    /// The repository as people name it: without architecture and index name.
    pub url: String,
    /// The location of its index.
    pub index_url: String,
    /// What stands before `ARCH/NAME-VERSION.apk` in the location of a package.
    pub base: String,
    /// How they go on.
    pub file: FileName,
    /// The tags it is declared with; `None` is the default tag.
    pub tags: Vec<Option<String>>,
    /// The description of its index.
    pub description: String,
    /// Its records, details included.
    pub table: Arc<PackageTable>,
    /// Its packages can be had now.
    pub reachable: bool,
    /// It is a directory of this machine.
    pub local: bool,
}

/// A package of one [`View`], ordered by source and position in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PackageRef {
    source: u16,
    record: u32,
}

/// One way in which a package answers to a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Offer {
    /// The package.
    pub package: PackageRef,
    /// Index into its provides, or `None` for its own name.
    pub provide: Option<u32>,
}

/// The installed database and the loaded repositories.
pub struct View<'a> {
    installed: &'a InstalledDb,
    installed_table: PackageTable,
    repositories: &'a [RepositoryView],
}

impl<'a> View<'a> {
    /// Joins an installed database with repositories; either may be empty.
    pub fn new(installed: &'a InstalledDb, repositories: &'a [RepositoryView]) -> Self {
        Self {
            installed,
            installed_table: PackageTable::build_core(
                installed
                    .packages
                    .iter()
                    .map(|installed| &installed.package),
            ),
            repositories,
        }
    }

    /// Returns the installed database.
    pub fn installed(&self) -> &'a InstalledDb {
        self.installed
    }

    /// Returns the repositories in the order of declaration.
    pub fn repositories(&self) -> &'a [RepositoryView] {
        self.repositories
    }

    /// Returns the tables in the order of reading, the installed database first.
    pub(super) fn tables(&self) -> impl DoubleEndedIterator<Item = &PackageTable> {
        let of_repositories = self.repositories.iter().map(|r| r.table.as_ref());
        std::iter::once(&self.installed_table).chain(of_repositories)
    }

    /// Returns the table of a source; 0 is the installed database.
    pub(super) fn table(&self, source: usize) -> &PackageTable {
        match source.checked_sub(1) {
            None => &self.installed_table,
            Some(number) => &self.repositories[number].table,
        }
    }

    /// Returns the number of sources.
    pub(super) fn source_count(&self) -> usize {
        self.repositories.len() + 1
    }

    /// Returns a package by what can be read of it.
    pub fn get(&self, package: PackageRef) -> Entry<'_> {
        let table = self.table(package.source.into());
        Entry {
            table,
            record: table.record(package.record),
            at: package.record,
            installed: self.installed_package(package).map(|p| &p.package),
        }
    }

    /// Returns the installed side of a package.
    pub fn installed_package(&self, package: PackageRef) -> Option<&'a InstalledPackage> {
        match package.source {
            0 => self.installed.packages.get(package.record as usize),
            _ => None,
        }
    }

    /// Returns whether a package is installed.
    pub fn is_installed(&self, package: PackageRef) -> bool {
        package.source == 0
    }

    /// Returns the package with an identity.
    pub fn find(&self, identity: Identity) -> Option<PackageRef> {
        let found = self.tables().enumerate();
        let mut found = found.filter_map(|(source, table)| {
            table
                .find_identity(identity)
                .map(|record| reference(source, record))
        });
        found.next()
    }

    /// Returns the package that a record states, unless an earlier record states it too.
    pub(super) fn first(&self, source: usize, record: u32) -> Option<PackageRef> {
        let this = reference(source, record);
        let identity = self.table(source).record(record).identity();
        (self.find(identity) == Some(this)).then_some(this)
    }

    /// Returns every record in the order of reading, those included that state an earlier
    /// package again.
    pub(super) fn records(&self) -> impl Iterator<Item = PackageRef> + '_ {
        (0..self.source_count()).flat_map(move |source| {
            let records = 0..self.table(source).len() as u32;
            records.map(move |record| reference(source, record))
        })
    }

    /// Returns whether no earlier record states the package of this one.
    pub(super) fn is_first(&self, record: PackageRef) -> bool {
        self.first(record.source.into(), record.record).is_some()
    }

    /// Returns every package in the order of reading.
    pub fn packages(&self) -> impl Iterator<Item = PackageRef> + '_ {
        (0..self.source_count()).flat_map(move |source| {
            let records = 0..self.table(source).len() as u32;
            records.filter_map(move |record| self.first(source, record))
        })
    }

    /// Returns the installed packages in database order.
    pub fn installed_packages(&self) -> impl Iterator<Item = PackageRef> + '_ {
        let records = 0..self.installed_table.len() as u32;
        records.filter_map(|record| self.first(0, record))
    }

    /// Returns the installed package of this own name.
    pub fn find_installed(&self, name: &str) -> Option<PackageRef> {
        let offers = self.offers_in(0, name, hash(name));
        let mut own = offers.filter(|offer| offer.provide.is_none());
        own.next().map(|offer| offer.package)
    }

    /// Returns who offers a name, in the order of reading.
    pub fn offers<'n>(&'n self, name: &'n str) -> impl Iterator<Item = Offer> + 'n {
        let name_hash = hash(name);
        (0..self.source_count()).flat_map(move |source| self.offers_in(source, name, name_hash))
    }

    fn offers_in<'n>(
        &'n self,
        source: usize,
        name: &'n str,
        name_hash: u32,
    ) -> impl Iterator<Item = Offer> + 'n {
        let table = self.table(source);
        let name = table.find_name(name, name_hash);
        name.into_iter().flat_map(move |name| {
            table.offers(name).filter_map(move |offer| {
                Some(Offer {
                    package: self.first(source, offer.record)?,
                    provide: offer.provide,
                })
            })
        })
    }

    /// Returns the packages of this own name, in the order of reading.
    pub fn named<'n>(&'n self, name: &'n str) -> impl Iterator<Item = PackageRef> + 'n {
        let offers = self.offers(name).filter(|offer| offer.provide.is_none());
        offers.map(|offer| offer.package)
    }

    /// Returns the version that an offer offers; it is empty for a bare name.
    pub fn offered_version(&self, offer: Offer) -> &str {
        let entry = self.get(offer.package);
        match offer.provide {
            None => entry.record.version(),
            Some(index) => entry.record.provide(index).map_or("", |p| p.version),
        }
    }

    /// Returns the numbers of the repositories that list a package.
    pub fn repositories_of(&self, package: PackageRef) -> impl Iterator<Item = usize> + '_ {
        let identity = self.get(package).record.identity();
        let numbered = self.repositories.iter().enumerate();
        numbered.filter_map(move |(number, repository)| {
            let found = repository.table.find_identity(identity);
            found.map(|_| number)
        })
    }

    /// Returns whether a repository whose packages can be had lists a package.
    pub fn is_available(&self, package: PackageRef) -> bool {
        self.repositories_of(package)
            .any(|number| self.repositories[number].reachable)
    }

    /// Returns where the file of a package can be read or downloaded, if anywhere.
    pub fn location(&self, package: PackageRef) -> Option<String> {
        let number = self.repositories_of(package).next()?;
        let entry = self.get(package);
        let repository = &self.repositories[number];
        let (name, version) = (entry.name(), entry.version());
        let file = (repository.file).of(name, version, entry.arch(), entry.identity());
        Some(locate(&repository.base, file))
    }

    /// Compares two packages by name, then version; packages of one version keep their order.
    pub fn display_order(&self, a: PackageRef, b: PackageRef) -> std::cmp::Ordering {
        let (x, y) = (self.get(a), self.get(b));
        order::by_name(x.name(), y.name())
            .then_with(|| x.parsed_version().compare(y.parsed_version()))
            .then(a.cmp(&b))
    }

    /// Sorts packages as listings show them.
    pub fn sort(&self, packages: &mut [PackageRef]) {
        // Comparing names means reading them from the table, so most pairs are told apart by a
        // number made of the first letters.
        let prefix = |name: &str| {
            let mut letters = [0; 16];
            for (letter, byte) in letters.iter_mut().zip(name.bytes()) {
                *letter = byte.to_ascii_lowercase();
            }
            u128::from_be_bytes(letters)
        };
        let mut keyed: Vec<(u128, PackageRef)> = packages
            .iter()
            .map(|package| (prefix(self.get(*package).name()), *package))
            .collect();
        keyed.sort_unstable_by(|a, b| a.0.cmp(&b.0).then_with(|| self.display_order(a.1, b.1)));
        for (slot, (_, package)) in packages.iter_mut().zip(keyed) {
            *slot = package;
        }
    }

    /// Returns every distinct name that a source mentions, in the order of first mention.
    pub(super) fn names(&self) -> impl Iterator<Item = (usize, NameRef)> + '_ {
        (0..self.source_count()).flat_map(move |source| {
            let table = self.table(source);
            table.names().filter_map(move |name| {
                let (text, text_hash) = (table.name(name), table.name_hash(name));
                let mut earlier = (0..source).map(|s| self.table(s));
                let known = earlier.any(|t| t.find_name(text, text_hash).is_some());
                (!known).then_some((source, name))
            })
        })
    }

    /// Returns each name that begins with `prefix` and that a package has, or provides if
    /// `provided`, with the first package that does.
    pub fn names_beginning<'v>(
        &'v self,
        prefix: &'v str,
        provided: bool,
    ) -> impl Iterator<Item = (&'v str, PackageRef)> + 'v {
        let fitting = self.names().filter_map(move |(source, name)| {
            let text = self.table(source).name(name);
            text.starts_with(prefix).then_some(text)
        });
        fitting.filter_map(move |text| {
            let mut offers = self.offers(text);
            let offer = offers.find(|offer| provided || offer.provide.is_none())?;
            Some((text, offer.package))
        })
    }

    /// Returns the place of a name in apk's name table (solver.md, Appendix A): its bucket, and
    /// within a bucket the newest name first.
    pub(super) fn table_key(&self, source: usize, name: NameRef) -> (u32, Reverse<(usize, u32)>) {
        let table = self.table(source);
        let (text, text_hash) = (table.name(name), table.name_hash(name));
        let first = (0..source).find_map(|earlier| {
            let found = self.table(earlier).find_name(text, text_hash)?;
            Some((earlier, found.0))
        });
        (
            text_hash % BUCKETS,
            Reverse(first.unwrap_or((source, name.0))),
        )
    }

    /// Returns the place of a package's own name in apk's name table.
    pub(super) fn own_key(&self, package: PackageRef) -> (u32, Reverse<(usize, u32)>) {
        let name = self.get(package).record.name_ref();
        self.table_key(package.source.into(), name)
    }

    /// Returns the packages with a dependency that `package` satisfies, in apk's order: by own
    /// name and provided names, below each by the names under which those who mention it can be had,
    /// and below these whoever is offered under them.
    pub fn dependants(&self, package: PackageRef) -> Vec<PackageRef> {
        self.dependants_unseen(package, &mut HashSet::new())
    }

    /// The same, without the records that were looked at before.
    pub(super) fn dependants_unseen(
        &self,
        package: PackageRef,
        seen: &mut HashSet<PackageRef>,
    ) -> Vec<PackageRef> {
        let asked = usize::MAX;
        self.mentions(package, asked, PackageTable::dependents, Entry::needs, seen)
    }

    /// Returns the packages whose `install_if` names `package` and has a condition that it fulfils;
    /// apk asks for no provided name here.
    pub fn install_if_dependants(&self, package: PackageRef) -> Vec<PackageRef> {
        let mut seen = HashSet::new();
        self.mentions(
            package,
            1,
            PackageTable::triggered,
            Entry::conditions,
            &mut seen,
        )
    }

    /// Returns who mentions one of the first `asked` names that `package` offers.
    fn mentions<'v, I>(
        &'v self,
        package: PackageRef,
        asked: usize,
        list: impl Fn(&'v PackageTable, NameRef) -> I,
        needs: impl Fn(&Entry<'v>) -> Vec<TableDependency<'v>>,
        seen: &mut HashSet<PackageRef>,
    ) -> Vec<PackageRef>
    where
        I: Iterator<Item = u32>,
    {
        let entry = self.get(package);
        let identity = entry.record.identity();
        let sources = 0..self.source_count();
        let offered: Vec<(&str, &str, u32)> = (entry.offered())
            .map(|(name, version)| (name, version, hash(name)))
            .collect();
        // Where each table has the offered names.
        let known: Vec<Vec<(NameRef, &str)>> = (sources.clone())
            .map(|source| {
                let find = |(name, version, hash): &(&str, &'v str, u32)| {
                    Some((self.table(source).find_name(name, *hash)?, *version))
                };
                offered.iter().filter_map(find).collect()
            })
            .collect();
        let answers = |source: usize, need: &TableDependency<'_>| {
            let mut offers = known[source].iter().filter(|offer| offer.0 == need.name);
            offers.any(|(_, version)| accepts(need, version, identity))
        };
        let mut all = Vec::new();
        for (name, _, name_hash) in offered.iter().take(asked) {
            let mut names = Vec::new();
            for source in sources.clone() {
                let table = self.table(source);
                let Some(local) = table.find_name(name, *name_hash) else {
                    continue;
                };
                for record in list(table, local).map(|at| table.record(at)) {
                    let under = std::iter::once(record.name_ref())
                        .chain(record.names(List::Provides).iter().copied());
                    names.extend(under.map(|name| (self.table_key(source, name), source, name)));
                }
            }
            names.sort_unstable();
            names.dedup_by_key(|(key, ..)| *key);
            for (_, source, name) in names {
                let table = self.table(source);
                let (text, text_hash) = (table.name(name), table.name_hash(name));
                for at in sources.clone() {
                    let table = self.table(at);
                    let Some(local) = table.find_name(text, text_hash) else {
                        continue;
                    };
                    for offer in table.offers(local) {
                        if !seen.insert(reference(at, offer.record)) {
                            continue;
                        }
                        let needs = needs(&self.get(reference(at, offer.record)));
                        if needs.iter().any(|need| answers(at, need))
                            && let Some(found) = self.first(at, offer.record)
                        {
                            all.push(found);
                        }
                    }
                }
            }
        }
        all
    }
}

fn reference(source: usize, record: u32) -> PackageRef {
    PackageRef {
        source: source as u16,
        record,
    }
}

/// Returns whether an offer answers a dependency as written, conflicts included.
pub(super) fn accepts(need: &TableDependency<'_>, version: &str, identity: Identity) -> bool {
    if need.operator == Operator::CHECKSUM && !need.conflict {
        return Identity::parse(need.version) == Some(identity);
    }
    need.operator.accepts(version, need.version) != need.conflict
}

/// What can be read of a package.
#[derive(Clone, Copy)]
pub struct Entry<'v> {
    table: &'v PackageTable,
    pub(super) record: Record<'v>,
    at: u32,
    installed: Option<&'v crate::package::Package>,
}

impl<'v> Entry<'v> {
    /// Returns the own name.
    pub fn name(&self) -> &'v str {
        self.record.name()
    }

    /// Returns what identifies the package.
    pub fn identity(&self) -> Identity {
        self.record.identity()
    }

    /// Returns the version text.
    pub fn version(&self) -> &'v str {
        self.record.version()
    }

    /// Returns the version for comparing.
    pub fn parsed_version(&self) -> crate::package::Version<'v> {
        crate::package::Version(self.version())
    }

    /// Returns `NAME-VERSION`.
    pub fn full_name(&self) -> String {
        format!("{}-{}", self.name(), self.version())
    }

    /// Returns the architecture, empty if none is stated.
    pub fn arch(&self) -> &'v str {
        self.record.arch().unwrap_or("")
    }

    fn details(&self) -> Option<Details<'v>> {
        self.table.details(self.at)
    }

    fn text(
        &self,
        of_installed: impl Fn(&'v crate::package::Package) -> Option<&'v str>,
        of_details: impl Fn(Details<'v>) -> Option<&'v str>,
    ) -> &'v str {
        match self.installed {
            Some(package) => of_installed(package),
            None => self.details().and_then(of_details),
        }
        .unwrap_or("")
    }

    /// Returns the line of description.
    pub fn description(&self) -> &'v str {
        self.text(|p| Some(&p.description), |d| Some(d.description()))
    }

    /// Returns the web page.
    pub fn url(&self) -> &'v str {
        self.text(|p| Some(&p.url), |d| Some(d.url()))
    }

    /// Returns the licence.
    pub fn license(&self) -> &'v str {
        self.text(|p| Some(&p.license), |d| Some(d.license()))
    }

    /// Returns the source package, empty if none is stated.
    pub fn origin(&self) -> &'v str {
        self.text(|p| p.origin.as_deref(), |d| d.origin())
    }

    /// Returns the source package, or the own name if none is stated.
    pub fn origin_or_name(&self) -> &'v str {
        match self.origin() {
            "" => self.name(),
            origin => origin,
        }
    }

    /// Returns the maintainer, empty if none is stated.
    pub fn maintainer(&self) -> &'v str {
        self.text(|p| p.maintainer.as_deref(), |d| d.maintainer())
    }

    /// Returns the commit of the recipe, empty if none is stated.
    pub fn commit(&self) -> &'v str {
        self.text(|p| p.commit.as_deref(), |d| d.commit())
    }

    /// Returns the time of the build in seconds since 1970, 0 if none is stated.
    pub fn build_time(&self) -> u64 {
        match self.installed {
            Some(package) => package.build_time,
            None => self.details().and_then(|details| details.build_time()),
        }
        .unwrap_or(0)
    }

    /// Returns the tags of the package (not of its repository).
    pub fn tags(&self) -> Vec<&'v str> {
        match self.installed {
            Some(package) => package.tags.iter().map(String::as_str).collect(),
            None => {
                let details = self.details();
                details
                    .map_or("", |d| d.tags())
                    .split_whitespace()
                    .collect()
            }
        }
    }

    /// Returns the size of the package file in bytes.
    pub fn size(&self) -> u64 {
        self.record.size()
    }

    /// Returns the installed size in bytes.
    pub fn installed_size(&self) -> u64 {
        self.record.installed_size()
    }

    /// Returns the provider priority.
    pub fn provider_priority(&self) -> u16 {
        self.record.provider_priority()
    }

    /// Returns the dependencies as written.
    pub fn depends(&self) -> Vec<String> {
        self.written(self.record.depends())
    }

    /// Returns the provided names as written.
    pub fn provides(&self) -> Vec<String> {
        self.written(self.record.provides())
    }

    /// Returns the conditions of automatic installation as written.
    pub fn install_if(&self) -> Vec<String> {
        self.written(self.record.install_if())
    }

    fn written(&self, list: impl Iterator<Item = TableDependency<'v>>) -> Vec<String> {
        list.map(|dependency| self.spell(&dependency)).collect()
    }

    /// Writes a dependency of this package.
    pub(super) fn spell(&self, dependency: &TableDependency<'_>) -> String {
        format!(
            "{}{}{}{}",
            if dependency.conflict { "!" } else { "" },
            self.table.name(dependency.name),
            dependency.operator.as_str(),
            dependency.version
        )
    }

    /// Returns the text of a name of this package's lists.
    pub(super) fn name_text(&self, name: NameRef) -> &'v str {
        self.table.name(name)
    }

    /// Returns the names under which the package can be had, its own first, with their versions.
    pub fn offered(&self) -> impl Iterator<Item = (&'v str, &'v str)> + use<'v> {
        let table = self.table;
        let provided = self
            .record
            .provides()
            .map(move |provide| (table.name(provide.name), provide.version));
        std::iter::once((self.name(), self.version())).chain(provided)
    }

    fn needs(&self) -> Vec<TableDependency<'v>> {
        self.record.depends().collect()
    }

    fn conditions(&self) -> Vec<TableDependency<'v>> {
        self.record.install_if().collect()
    }
}
