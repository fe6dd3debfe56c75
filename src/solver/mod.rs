//! Choosing: which packages answer a world, and in which order to change to them.

mod changes;
mod discovery;
mod flags;
mod ids;
mod kept;
mod layout;
mod links;
mod report;
mod request;
mod search;
mod sources;
mod state;
mod summary;
mod universe;

pub use changes::Change;
pub use flags::Flags;
pub use ids::{NameId, PackageId, TagId};
pub use kept::kept;
pub use layout::output_width;
pub use report::{TITLE, report};
pub use request::{
    AddOptions, Deletion, FixOptions, Preupgrade, RequestError, UnknownNames, UpgradeOptions,
    VirtualPackage, add, check_non_repository, del, dependencies, fix, missing_tags,
    parse_package_argument, parse_world_argument, pin_file, preupgrade, upgrade,
};
pub use sources::{InstalledInput, Registered, RegisteredInput, RepositoryInput, Sources};
pub use summary::{Summary, SummaryStyle, Totals, human_size, summary};
pub use universe::Universe;

use crate::package::World;
use links::Links;
use search::{Search, Wanted};

/// How a question is to be answered, apart from the world.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// Flags that reach packages through world entries.
    pub global: Flags,
    /// The run is a preupgrade: what is not asked to be upgraded stays (solver.md, 5.5).
    pub preupgrade: bool,
    /// Conflicts do not count (recursive fetching and the cache commands).
    pub ignore_conflicts: bool,
    /// World entries that can not be had are left aside (`--force-broken-world`).
    pub force_broken_world: bool,
}

/// A name that the command line gives flags to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark {
    /// The name; all packages that offer it get the flags.
    pub name: NameId,
    /// Flags of these packages.
    pub flags: Flags,
    /// Flags that flow on to acceptable packages of their dependencies.
    pub heritable: Flags,
}

/// What to solve.
#[derive(Clone, Debug, Default)]
pub struct Request {
    /// The wanted constraints; they are also what is stored after success.
    pub world: World,
    /// Names given on the command line, and those marked earlier in the same run.
    pub marks: Vec<Mark>,
    /// How to answer.
    pub options: Options,
}

/// The answer to a [`Request`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Solution {
    /// The number of errors; the changes must only be carried out if it is 0.
    pub errors: u32,
    /// All packages of the old and the new state, unchanged ones included, in the order in which
    /// to change them.
    pub changes: Vec<Change>,
    /// The world, sorted; it is what to store.
    pub world: World,
}

impl Solution {
    /// Returns the packages of the new state in plan order.
    pub fn selected(&self) -> impl Iterator<Item = PackageId> + '_ {
        self.changes.iter().filter_map(|change| change.new)
    }
}

/// Answers a request by the rules of apk (solver.md, chapter 4).
pub fn solve(universe: &mut Universe<'_>, request: &Request) -> Solution {
    let mut world = request.world.clone();
    world.sort();
    let mut dropped: Vec<bool> = world.entries.iter().map(|entry| entry.broken).collect();
    for entry in &world.entries {
        universe.intern(&entry.name);
        if let Some(tag) = &entry.tag {
            universe.tag(tag);
        }
    }
    let marked: Vec<NameId> = request.marks.iter().map(|mark| mark.name).collect();
    for name in &marked {
        universe.load_offers(*name);
    }
    let mut marks = request.marks.as_slice();
    loop {
        let (errors, changes, failed) =
            solve_once(universe, &world, &dropped, &marked, marks, request.options);
        let progress = failed
            .iter()
            .zip(&dropped)
            .any(|(now, before)| *now && !before);
        if errors == 0 || !request.options.force_broken_world || !progress {
            return Solution {
                errors,
                changes,
                world,
            };
        }
        // Each round drops at least one more entry, so there are at most as many as entries.
        for (before, now) in dropped.iter_mut().zip(failed) {
            *before |= now;
        }
        marks = &[];
    }
}

/// Solves without the dropped entries; also returns which entries could not be had.
fn solve_once(
    universe: &mut Universe<'_>,
    world: &World,
    dropped: &[bool],
    marked: &[NameId],
    marks: &[Mark],
    options: Options,
) -> (u32, Vec<Change>, Vec<bool>) {
    let names: Vec<NameId> = (world.entries.iter())
        .map(|entry| universe.intern(&entry.name))
        .collect();
    let start = names.iter().zip(dropped).filter(|(_, dropped)| !**dropped);
    let start = start.map(|(name, _)| *name);
    let ranks = discovery::discover(universe, start, marked);
    let universe = &*universe;
    let links = Links::new(universe);
    let wanted = world.entries.iter().zip(&names).zip(dropped);
    let wanted = wanted
        .map(|((entry, name), dropped)| Wanted {
            need: universe::Need::new(*name, entry),
            tag: entry
                .tag
                .as_ref()
                .and_then(|tag| universe.find_tag(tag))
                .unwrap_or_default(),
            dropped: *dropped,
        })
        .collect();
    let mut search = Search::new(universe, wanted, ranks, marks, options);
    search.run();
    let changes = changes::changes(&mut search, &links);
    let failed = names.iter().map(|name| match search.owner(*name) {
        Some(owner) => search.is_bad(owner.package),
        None => true,
    });
    let failed = failed.collect();
    (search.errors(), changes, failed)
}
