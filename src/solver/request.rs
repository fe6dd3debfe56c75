//! What each command asks for: the edited world, the names it marks and the flags (solver.md,
//! chapter 5).
//!
//! These are functions of values. Reading arguments that name files, the clock and the identity of
//! a virtual package are the caller's business.

use super::changes::answer;
use super::ids::{NameId, PackageId};
use super::links::Links;
use super::universe::Universe;
use super::{Flags, Mark, Options, Request};
use crate::package::glob;
use crate::package::version::Version;
use crate::package::{
    Dependency, DependencyError, DependencyList, Identity, Operator, Package, World,
};
use std::collections::HashSet;

/// Why a command was refused before anything was solved. All but the unknown names end with
/// status 99.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// An argument of `add` is no constraint.
    #[error("'{0}' is not a valid world dependency, format is name(@tag)([<>~=]version)")]
    WorldDependency(String),
    /// An argument of `add -t` is no dependency.
    #[error("'{0}' is not a valid package dependency, format is name([<>~=]version)")]
    PackageDependency(String),
    /// The value of `add -t` does not name a package.
    #[error("{0}: bad package specifier")]
    PackageSpecifier(String),
    /// What would be added could not be found again after a reboot.
    #[error(
        "You tried to add a non-repository package to system, but it would be lost on next \
         reboot. Enable package caching (apk cache --help) or use --force-non-repository if you \
         know what you are doing."
    )]
    NonRepository,
}

/// Names that nothing mentions; the exit status is their number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnknownNames(pub Vec<String>);

impl UnknownNames {
    /// Returns the error lines of `del`.
    pub fn del_lines(&self) -> impl Iterator<Item = String> + '_ {
        self.0.iter().map(|name| format!("No such package: {name}"))
    }

    /// Returns the error lines of `fix` and `upgrade`.
    pub fn lines(&self) -> impl Iterator<Item = String> + '_ {
        self.0
            .iter()
            .map(|name| format!("Package '{name}' not found"))
    }
}

/// Reads a constraint for the world.
///
/// # Errors
/// [`RequestError::WorldDependency`] if it is malformed or has a bad version.
pub fn parse_world_argument(text: &str) -> Result<Dependency, RequestError> {
    parse_argument(text, Dependency::parse_world)
        .ok_or_else(|| RequestError::WorldDependency(text.to_owned()))
}

/// Reads a dependency for a virtual package.
///
/// # Errors
/// [`RequestError::PackageDependency`] if it is malformed, has a tag or a bad version.
pub fn parse_package_argument(text: &str) -> Result<Dependency, RequestError> {
    parse_argument(text, Dependency::parse)
        .ok_or_else(|| RequestError::PackageDependency(text.to_owned()))
}

fn parse_argument(
    text: &str,
    parse: impl Fn(&str) -> Result<Dependency, DependencyError>,
) -> Option<Dependency> {
    let word = text.trim_end_matches([' ', '\n']);
    if word.contains([' ', '\n']) {
        return None;
    }
    parse(word).ok().filter(|dependency| !dependency.broken)
}

/// Returns the constraint that pins a package file.
pub fn pin_file(package: &Package) -> Dependency {
    Dependency {
        operator: Operator::CHECKSUM,
        version: package.identity.to_q1(),
        ..Dependency::any(&package.name)
    }
}

/// The package that `add -t` makes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VirtualPackage {
    /// Its world entry, `NAME[@TAG]=VERSION`.
    pub entry: Dependency,
}

impl VirtualPackage {
    /// Reads the value of `-t`; what follows a first word is ignored. `now` is the version to take
    /// if it has none: the present time in UTC as `YYYYMMDD.HHMMSS`. `safe` is as in
    /// [`check_non_repository`]; names that begin with a dot are exempt.
    ///
    /// # Errors
    /// [`RequestError::PackageSpecifier`] or [`RequestError::NonRepository`].
    pub fn parse(text: &str, now: &str, safe: bool) -> Result<Self, RequestError> {
        let refused = || RequestError::PackageSpecifier(text.to_owned());
        let word = text.split([' ', '\n']).next().unwrap_or_default();
        let mut entry = Dependency::parse_world(word).map_err(|_| refused())?;
        if entry.conflict || entry.broken {
            return Err(refused());
        }
        check_non_repository(safe || entry.name.starts_with('.'))?;
        match entry.operator {
            Operator::EQ => {}
            Operator::ANY => {
                entry.operator = Operator::EQ;
                entry.version = now.to_owned();
            }
            _ => return Err(refused()),
        }
        Ok(Self { entry })
    }

    /// Makes the package. The identity must differ from every other package's.
    pub fn package(&self, depends: &[Dependency], identity: Identity) -> Package {
        let mut list = World::default();
        for dependency in depends {
            list.add(dependency.clone());
        }
        Package {
            identity,
            name: self.entry.name.clone(),
            version: self.entry.version.clone(),
            arch: Some("noarch".to_owned()),
            description: "virtual meta package".to_owned(),
            depends: list.entries,
            ..Package::default()
        }
    }
}

/// Refuses a package file that would be lost on a tmpfs root (5.2). `safe` says that the root is
/// no tmpfs, that the cache is active or that `--force-non-repository` was given.
///
/// # Errors
/// [`RequestError::NonRepository`].
pub fn check_non_repository(safe: bool) -> Result<(), RequestError> {
    safe.then_some(()).ok_or(RequestError::NonRepository)
}

/// Returns the warnings about world entries whose tag has no loaded repository (3.2); if there
/// are any, nothing must be done unless the broken world is forced.
pub fn missing_tags(universe: &Universe<'_>, world: &World) -> Vec<String> {
    let lost = |entry: &&Dependency| {
        entry.tag.as_ref().is_some_and(|tag| {
            let tag = universe.find_tag(tag);
            tag.is_none_or(|tag| universe.repositories_of_tag(tag).is_empty())
        })
    };
    let lost = world.entries.iter().filter(lost);
    lost.map(|entry| {
        let tag = entry.tag.as_deref().unwrap_or_default();
        format!(
            "The repository tag for world dependency '{}@{tag}' does not exist",
            entry.name
        )
    })
    .collect()
}

/// Options of `add`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AddOptions {
    /// `-u`: upgrade what is given and what it needs.
    pub upgrade: bool,
    /// `-l`: newest versions first.
    pub latest: bool,
}

/// `add`: the entries come into the world, and their names get the flags (5.2).
///
/// With `-t` the only entry is that of the virtual package.
pub fn add(
    universe: &mut Universe<'_>,
    world: &World,
    entries: &[Dependency],
    options: AddOptions,
) -> Request {
    let flags = Flags::UPGRADE.when(options.upgrade) | Flags::LATEST.when(options.latest);
    let mut request = Request {
        world: world.clone(),
        ..Request::default()
    };
    request.world.add_all(entries);
    for entry in entries {
        if let Some(tag) = &entry.tag {
            universe.tag(tag);
        }
        request.marks.push(Mark {
            name: universe.intern(&entry.name),
            flags,
            heritable: flags,
        });
    }
    request
}

/// What `del` asks for, and which names it was given.
#[derive(Clone, Debug)]
pub struct Deletion {
    /// What to solve.
    pub request: Request,
    /// The names given, patterns resolved.
    pub names: Vec<NameId>,
}

/// `del`: the names leave the world and being installed is no advantage for them (5.3). With
/// `rdepends`, everything installed that depends on them goes the same way.
///
/// # Errors
/// [`UnknownNames`]; nothing is to be done then.
pub fn del(
    universe: &mut Universe<'_>,
    world: &World,
    arguments: &[String],
    rdepends: bool,
) -> Result<Deletion, UnknownNames> {
    let names = match_names(universe, arguments)?;
    let universe = &*universe;
    let links = Links::new(universe);
    let mut deletion = Deleting {
        universe,
        world: world.clone(),
        marks: Vec::new(),
        seen: HashSet::new(),
    };
    for name in &names {
        let mut installed = universe.installed().iter();
        match installed.rfind(|package| universe.own_name(**package) == *name) {
            Some(package) if rdepends => deletion.package_and_dependents(*package, &links),
            Some(package) => deletion.package(*package),
            None => deletion.world.remove(universe.name_text(*name)),
        }
    }
    Ok(Deletion {
        request: Request {
            world: deletion.world,
            marks: deletion.marks,
            options: Options::default(),
        },
        names,
    })
}

struct Deleting<'u> {
    universe: &'u Universe<'u>,
    world: World,
    marks: Vec<Mark>,
    seen: HashSet<PackageId>,
}

impl Deleting<'_> {
    fn package(&mut self, package: PackageId) {
        let name = self.universe.own_name(package);
        self.world.remove(self.universe.name_text(name));
        self.marks.push(Mark {
            name,
            flags: Flags::REMOVE,
            heritable: Flags::NONE,
        });
    }

    fn package_and_dependents(&mut self, package: PackageId, links: &Links<'_>) {
        let universe = self.universe;
        // Depth first, as the order in which duplicate world entries go depends on it.
        let mut stack = vec![(package, Vec::new().into_iter())];
        stack[0].1 = self.with_provides(package, links);
        while let Some((package, candidates)) = stack.last_mut() {
            let Some(other) = candidates.next() else {
                stack.pop();
                continue;
            };
            let package = *package;
            if !self.seen.insert(other) {
                continue;
            }
            let depends = universe
                .depends(other)
                .any(|need| answer(universe, &need, Some(other), package) == Some(true));
            if depends {
                let candidates = self.with_provides(other, links);
                stack.push((other, candidates));
            }
        }
    }

    /// Deletes a package and what it provides; returns who may depend on it.
    fn with_provides(
        &mut self,
        package: PackageId,
        links: &Links<'_>,
    ) -> std::vec::IntoIter<PackageId> {
        self.package(package);
        let universe = self.universe;
        for name in universe.provide_names(package) {
            self.world.remove(universe.name_text(*name));
        }
        let mut candidates = Vec::new();
        for name in universe.offered_names(package) {
            for dependent in links.dependents(name).iter() {
                let offers = universe.offers(*dependent).iter();
                let installed = offers.filter(|offer| universe.is_installed(offer.package));
                candidates.extend(installed.map(|offer| offer.package));
            }
        }
        candidates.into_iter()
    }
}

/// Options of `upgrade`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct UpgradeOptions {
    /// `-a`: what the repositories have, even if older.
    pub available: bool,
    /// `-l`: newest versions first.
    pub latest: bool,
    /// `--prune`: drop world entries that no repository offers.
    pub prune: bool,
    /// `--ignore`: the names are the ones not to upgrade.
    pub ignore: bool,
}

impl UpgradeOptions {
    fn flags(self) -> Flags {
        Flags::AVAILABLE.when(self.available) | Flags::LATEST.when(self.latest)
    }
}

/// `upgrade` (5.4). `earlier` are the marks of a preupgrade in the same run; only their rank
/// counts.
///
/// # Errors
/// [`UnknownNames`].
pub fn upgrade(
    universe: &mut Universe<'_>,
    world: &World,
    arguments: &[String],
    options: UpgradeOptions,
    earlier: &[Mark],
) -> Result<Request, UnknownNames> {
    let names = match_names(universe, arguments)?;
    let no_names = arguments.is_empty();
    let mut request = Request {
        world: world.clone(),
        marks: earlier
            .iter()
            .map(|mark| Mark {
                flags: Flags::NONE,
                heritable: Flags::NONE,
                ..*mark
            })
            .collect(),
        options: Options::default(),
    };
    request.options.global = options.flags() | Flags::UPGRADE.when(no_names || options.ignore);
    let flags = if options.ignore {
        Flags::INSTALLED
    } else {
        Flags::UPGRADE
    };
    request.marks.extend(names.into_iter().map(|name| Mark {
        name,
        flags,
        heritable: Flags::NONE,
    }));
    if options.available {
        for entry in &mut request.world.entries {
            if entry.operator == Operator::CHECKSUM && !entry.conflict {
                entry.operator = Operator::ANY;
                entry.version.clear();
            }
        }
    }
    if options.prune {
        request.world.entries.retain(|entry| {
            let name = universe.intern(&entry.name);
            let mut offers = universe.offers(name).iter();
            offers.any(|offer| universe.in_reachable_repository(offer.package))
        });
    }
    Ok(request)
}

/// Whether the program itself is to be upgraded first (5.5).
#[derive(Clone, Debug, Default)]
pub struct Preupgrade {
    /// What to solve first; `None` if nothing newer is there.
    pub request: Option<Request>,
    /// Warnings about dependencies that are none.
    pub warnings: Vec<String>,
}

/// Decides on the preupgrade. `program` is the package that owns the running program, `depends`
/// the values of `--preupgrade-depends`.
pub fn preupgrade(
    universe: &mut Universe<'_>,
    world: &World,
    program: Option<&str>,
    depends: &[String],
    options: UpgradeOptions,
) -> Preupgrade {
    let mut result = Preupgrade::default();
    let mut list = World::default();
    if let Some(name) = program {
        list.add(Dependency::any(name));
    }
    for text in depends {
        let read = DependencyList::parse(text);
        if read.malformed {
            result.warnings.push(format!(
                "Ignored invalid preupgrade dependencies from: {text}"
            ));
        }
        for entry in read.entries {
            list.add(entry);
        }
    }
    let flags = options.flags() | Flags::UPGRADE;
    let mut marks = Vec::new();
    for entry in &list.entries {
        let name = universe.intern(&entry.name);
        if has_newer(universe, name, entry) {
            marks.push(Mark {
                name,
                flags,
                heritable: Flags::NONE,
            });
        }
    }
    result.request = (!marks.is_empty()).then(|| Request {
        world: world.clone(),
        marks,
        options: Options {
            preupgrade: true,
            ..Options::default()
        },
    });
    result
}

/// Returns whether the installed package of this name matches and a repository has a newer one.
fn has_newer(universe: &mut Universe<'_>, name: NameId, entry: &Dependency) -> bool {
    let universe = &*universe;
    let mut installed = universe.installed().iter();
    let own = installed.rfind(|package| universe.own_name(**package) == name);
    let Some(own) = own else {
        return false;
    };
    let present = universe.version(*own);
    if !entry.accepts(present, universe.identity(*own)) {
        return false;
    }
    universe.offers(name).iter().any(|offer| {
        let newer = Version(universe.version(offer.package)).compare(Version(present));
        !universe.repository_set(offer.package).is_empty() && newer.is_gt()
    })
}

/// Options of `fix`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FixOptions {
    /// `-r`.
    pub reinstall: bool,
    /// `-u`.
    pub upgrade: bool,
    /// `-d`: what the names depend on, too.
    pub depends: bool,
    /// `-x`: without names, also packages whose extended attributes could not be set.
    pub xattr: bool,
}

/// `fix` (5.6).
///
/// # Errors
/// [`UnknownNames`].
pub fn fix(
    universe: &mut Universe<'_>,
    world: &World,
    arguments: &[String],
    options: FixOptions,
) -> Result<Request, UnknownNames> {
    let names = if arguments.is_empty() {
        let universe = &*universe;
        let broken = |package: &&PackageId| {
            let broken = universe.broken(**package);
            broken.counts() || (options.xattr && broken.xattrs)
        };
        let broken = universe.installed().iter().filter(broken);
        broken.map(|package| universe.own_name(*package)).collect()
    } else {
        match_names(universe, arguments)?
    };
    let reinstall = options.reinstall || !options.upgrade;
    let flags = Flags::REINSTALL.when(reinstall) | Flags::UPGRADE.when(options.upgrade);
    let heritable = flags.when(options.depends);
    Ok(Request {
        world: world.clone(),
        marks: names
            .into_iter()
            .map(|name| Mark {
                name,
                flags,
                heritable,
            })
            .collect(),
        options: Options::default(),
    })
}

/// Solves given dependencies instead of a world, as `cache download`, `fetch --recursive` and
/// `query --recursive` do (5.8).
pub fn dependencies(entries: Vec<Dependency>, global: Flags, ignore_conflicts: bool) -> Request {
    Request {
        world: World { entries },
        marks: Vec::new(),
        options: Options {
            global,
            ignore_conflicts,
            ..Options::default()
        },
    }
}

/// Resolves names, or patterns if any argument has a `*` (5.7).
fn match_names(
    universe: &mut Universe<'_>,
    arguments: &[String],
) -> Result<Vec<NameId>, UnknownNames> {
    if arguments.iter().any(|argument| argument.contains('*')) {
        let options = glob::Options {
            pathname: false,
            ignore_case: true,
        };
        let wanted = |name: &str| {
            let mut patterns = arguments.iter();
            patterns.any(|pattern| glob::matches(pattern, name, options))
        };
        return Ok(universe.known_matching(wanted));
    }
    let (mut names, mut unknown) = (Vec::new(), Vec::new());
    for argument in arguments {
        match universe.known(argument) {
            Some(name) => names.push(name),
            None => unknown.push(argument.clone()),
        }
    }
    if unknown.is_empty() {
        Ok(names)
    } else {
        Err(UnknownNames(unknown))
    }
}
