//! Which packages a command is about: sources, filters, patterns (cli.md, 3.1 and 3.4).

use super::fields::{Field, FieldSet};
use super::pattern::Pattern;
use super::view::{Entry, PackageRef, View};
use crate::package::table::hash;
use crate::package::{Identity, Version};
use std::cmp::Ordering;
use std::collections::HashSet;

/// Which sources to load before a view is made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum From {
    /// The installed database and the configured repositories.
    #[default]
    System,
    /// The configured repositories.
    Repositories,
    /// The installed database.
    Installed,
    /// Neither. Repositories of the command line are loaded in every case.
    None,
}

impl From {
    /// Reads the value of `--from`.
    pub fn from_key(key: &str) -> Option<Self> {
        match key {
            "system" => Some(Self::System),
            "repositories" => Some(Self::Repositories),
            "installed" => Some(Self::Installed),
            "none" => Some(Self::None),
            _ => None,
        }
    }

    /// Returns whether the installed database is to be read.
    pub fn has_installed(self) -> bool {
        matches!(self, Self::System | Self::Installed)
    }

    /// Returns whether the configured repositories are to be read.
    pub fn has_configured_repositories(self) -> bool {
        matches!(self, Self::System | Self::Repositories)
    }
}

/// What narrows a selection down, and what patterns are compared with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Selection {
    /// The fields that patterns are compared with; empty means the name.
    pub match_fields: FieldSet,
    /// Patterns are looked for inside the fields.
    pub search: bool,
    /// Every version counts, not only the best of each name.
    pub all_matches: bool,
    /// Only what a usable repository offers.
    pub available: bool,
    /// Only installed packages.
    pub installed: bool,
    /// Only installed packages whose name no repository offers.
    pub orphaned: bool,
    /// Only newer versions of installed packages.
    pub upgradable: bool,
}

/// What a selection starts from.
#[derive(Clone, Copy, Debug)]
pub enum Arguments<'a> {
    /// Everything.
    Everything,
    /// What matches one of these words.
    Patterns(&'a [String]),
    /// The result of the solver.
    Resolved(&'a [Identity]),
}

impl<'a> Arguments<'a> {
    /// Returns the words as patterns, or everything if there are none.
    pub fn or_everything(words: &'a [String]) -> Self {
        match words {
            [] => Self::Everything,
            words => Self::Patterns(words),
        }
    }
}

/// A selected package.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Match<'v> {
    /// The name, provided name or dependency name that matched; else the own name.
    pub name: &'v str,
    /// The package.
    pub package: PackageRef,
}

/// Selected packages.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selected {
    /// The packages in display order, each once.
    pub packages: Vec<PackageRef>,
    /// The words without wildcards that nothing matched, in the order of the command line.
    pub missed: Vec<String>,
}

impl Selection {
    fn fields(&self) -> FieldSet {
        match self.match_fields.is_empty() {
            true => FieldSet::of(&[Field::Name]),
            false => self.match_fields,
        }
    }

    /// Returns the selected packages.
    pub fn select(&self, view: &View<'_>, arguments: Arguments<'_>) -> Selected {
        let (matches, missed) = self.matches(view, arguments);
        let mut packages: Vec<PackageRef> = matches.into_iter().map(|m| m.package).collect();
        packages.sort_unstable();
        packages.dedup();
        view.sort(&mut packages);
        if !self.all_matches && !matches!(arguments, Arguments::Everything) {
            packages = best(view, packages);
        }
        Selected { packages, missed }
    }

    /// Returns every match, unsorted and not yet reduced to the best versions, and the words that
    /// nothing matched.
    pub fn matches<'v>(
        &self,
        view: &'v View<'_>,
        arguments: Arguments<'_>,
    ) -> (Vec<Match<'v>>, Vec<String>) {
        let filter = |package: &PackageRef| self.admits(view, *package);
        match arguments {
            Arguments::Everything => {
                let packages: Vec<PackageRef> = match self.installed || self.orphaned {
                    true => view.installed_packages().collect(),
                    false => view.packages().collect(),
                };
                (own(view, packages.into_iter().filter(filter)), Vec::new())
            }
            Arguments::Resolved(identities) => {
                let found = identities.iter().filter_map(|i| view.find(*i));
                (own(view, found.filter(filter)), Vec::new())
            }
            Arguments::Patterns(words) => self.matches_of(view, words),
        }
    }

    fn matches_of<'v>(
        &self,
        view: &'v View<'_>,
        words: &[String],
    ) -> (Vec<Match<'v>>, Vec<String>) {
        let mut seen: HashSet<Match<'v>> = HashSet::new();
        let mut matches = Vec::new();
        let mut missed = Vec::new();
        for word in words {
            let pattern = Pattern::new(word, self.search);
            let mut found = false;
            let mut take = |name: &'v str, package: PackageRef| {
                if self.admits(view, package) {
                    found = true;
                    let one = Match { name, package };
                    if seen.insert(one) {
                        matches.push(one);
                    }
                }
            };
            self.each_match(view, &pattern, &mut take);
            if !found && pattern.exact().is_some() {
                missed.push(word.clone());
            }
        }
        (matches, missed)
    }

    /// Calls `take` with whatever matches, perhaps several times.
    fn each_match<'v>(
        &self,
        view: &'v View<'_>,
        pattern: &Pattern,
        take: &mut dyn FnMut(&'v str, PackageRef),
    ) {
        let fields = self.fields();
        let (own, provided) = (
            fields.contains(Field::Name),
            fields.contains(Field::Provides),
        );
        if own || provided {
            each_offer(view, pattern, own, provided, take);
        }
        if fields.contains(Field::Depends) {
            each_dependant(view, pattern, take);
        }
        if fields.contains(Field::Owner)
            && pattern.as_str().starts_with('/')
            && let Some(owner) = super::owner::owner(view, pattern.as_str())
        {
            take(view.get(owner).name(), owner);
        }
        let texts: Vec<Field> = fields
            .iter()
            .filter(|field| {
                !matches!(
                    field,
                    Field::Name | Field::Provides | Field::Depends | Field::Owner
                )
            })
            .collect();
        if texts.is_empty() {
            return;
        }
        let only_installed = self.installed || texts.iter().all(|f| f.is_installed_only());
        let mut check = |package: PackageRef| {
            let entry = view.get(package);
            // Few match, so whether a record counts at all is asked afterwards.
            if texts
                .iter()
                .any(|f| field_matches(view, package, &entry, *f, pattern))
                && view.is_first(package)
            {
                take(entry.name(), package);
            }
        };
        match only_installed {
            true => view.installed_packages().for_each(&mut check),
            false => view.records().for_each(&mut check),
        }
    }

    /// Returns whether the filters let a package pass.
    pub fn admits(&self, view: &View<'_>, package: PackageRef) -> bool {
        (!self.installed || view.is_installed(package))
            && (!self.available || view.is_available(package))
            && (!self.orphaned || is_orphaned(view, package))
            && (!self.upgradable || upgradable_from(view, package).is_some())
    }
}

fn own<'v>(view: &'v View<'_>, packages: impl Iterator<Item = PackageRef>) -> Vec<Match<'v>> {
    packages
        .map(|package| Match {
            name: view.get(package).name(),
            package,
        })
        .collect()
}

fn each_offer<'v>(
    view: &'v View<'_>,
    pattern: &Pattern,
    own: bool,
    provided: bool,
    take: &mut dyn FnMut(&'v str, PackageRef),
) {
    let mut offers_of = |source: usize, name: crate::package::table::NameRef| {
        let table = view.table(source);
        let text = table.name(name);
        for offer in table.offers(name) {
            let wanted = match offer.provide {
                None => own,
                Some(_) => provided,
            };
            if !wanted {
                continue;
            }
            let record = table.record(offer.record);
            let version = match offer.provide {
                None => record.version(),
                Some(index) => record.provide(index).map_or("", |p| p.version),
            };
            if pattern.accepts_version(version)
                && let Some(package) = view.first(source, offer.record)
            {
                take(text, package);
            }
        }
    };
    for source in 0..view.source_count() {
        let table = view.table(source);
        match pattern.exact_name() {
            Some(name) => {
                if let Some(name) = table.find_name(name, hash(name)) {
                    offers_of(source, name);
                }
            }
            None => {
                let names = table.names();
                names
                    .filter(|name| pattern.matches_name(table.name(*name)))
                    .for_each(|name| offers_of(source, name));
            }
        }
    }
}

fn each_dependant<'v>(
    view: &'v View<'_>,
    pattern: &Pattern,
    take: &mut dyn FnMut(&'v str, PackageRef),
) {
    for source in 0..view.source_count() {
        let table = view.table(source);
        let names: Vec<_> = match pattern.exact_name() {
            Some(name) => table.find_name(name, hash(name)).into_iter().collect(),
            None => {
                let names = table.names();
                names
                    .filter(|name| pattern.matches_name(table.name(*name)))
                    .collect()
            }
        };
        for name in names {
            let text = table.name(name);
            for record in table.dependents(name) {
                let mut depends = table.record(record).depends();
                let hit = depends.any(|d| {
                    d.name == name && pattern.matches_dependency(text, d.operator, d.version)
                });
                if let Some(package) = view.first(source, record).filter(|_| hit) {
                    take(text, package);
                }
            }
        }
    }
}

fn field_matches(
    view: &View<'_>,
    package: PackageRef,
    entry: &Entry<'_>,
    field: Field,
    pattern: &Pattern,
) -> bool {
    let text = |text: &str| !text.is_empty() && pattern.matches_text(text);
    let installed = || view.installed_package(package);
    match field {
        Field::Package => text(&entry.full_name()),
        Field::Version => text(entry.version()),
        Field::Description => text(entry.description()),
        Field::Arch => text(entry.arch()),
        Field::License => text(entry.license()),
        Field::Origin => text(entry.origin()),
        Field::Maintainer => text(entry.maintainer()),
        Field::Url => text(entry.url()),
        Field::InstallIf => entry
            .record
            .install_if()
            .any(|d| pattern.matches_dependency(entry.name_text(d.name), d.operator, d.version)),
        Field::Tags => entry.tags().into_iter().any(text),
        Field::Replaces => installed().is_some_and(|p| {
            let replaces = &p.package.replaces;
            replaces
                .iter()
                .any(|d| pattern.matches_dependency(&d.name, d.operator, &d.version))
        }),
        Field::Contents => installed()
            .is_some_and(|p| super::owner::paths(p).any(|path| pattern.matches_text(&path))),
        _ => false,
    }
}

/// Returns whether a package is installed and no repository has a package of its name.
pub fn is_orphaned(view: &View<'_>, package: PackageRef) -> bool {
    let name = view.get(package).name();
    view.is_installed(package)
        && view
            .named(name)
            .all(|p| view.repositories_of(p).next().is_none())
}

/// Returns the installed package of which `package` is a newer version, if the repositories of
/// the tag it was installed from offer it.
pub fn upgradable_from(view: &View<'_>, package: PackageRef) -> Option<PackageRef> {
    if view.is_installed(package) {
        return None;
    }
    let entry = view.get(package);
    let old = view.find_installed(entry.name())?;
    let installed = view.installed_package(old)?;
    let newer = entry
        .parsed_version()
        .compare(Version(&installed.package.version));
    if newer != Ordering::Greater {
        return None;
    }
    let tag = &installed.pinned_tag;
    let mut repositories = view.repositories_of(package);
    repositories
        .any(|number| view.repositories()[number].tags.contains(tag))
        .then_some(old)
}

/// Keeps the best version of each name, the first one among equals; the list is sorted.
fn best(view: &View<'_>, packages: Vec<PackageRef>) -> Vec<PackageRef> {
    let mut kept: Vec<PackageRef> = Vec::with_capacity(packages.len());
    for package in packages {
        let entry = view.get(package);
        match kept.last_mut() {
            Some(last) if view.get(*last).name() == entry.name() => {
                let order = entry
                    .parsed_version()
                    .compare(view.get(*last).parsed_version());
                if order == Ordering::Greater {
                    *last = package;
                }
            }
            _ => kept.push(package),
        }
    }
    kept
}
