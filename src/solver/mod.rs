//! Choosing: which packages answer a world, and in which order to change to them.

mod changes;
pub mod complete;
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
pub use summary::{
    Difference, DifferenceKind, Summary, SummaryStyle, Totals, differences, human_size, summary,
};
pub use universe::Universe;

use crate::package::World;
pub use complete::{Contradiction, Explanation, Hint};
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

impl Request {
    /// Returns whether anything shall be the newest version or nothing.
    pub fn wants_latest(&self) -> bool {
        let mut flags = self.marks.iter().map(|mark| mark.flags | mark.heritable);
        self.options.global.contains(Flags::LATEST) || flags.any(|f| f.contains(Flags::LATEST))
    }
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
    solve_by_rules(universe, request).0
}

/// Also returns which entries of the sorted world are given up.
fn solve_by_rules(universe: &mut Universe<'_>, request: &Request) -> (Solution, Vec<bool>) {
    let mut world = request.world.clone();
    world.sort();
    let mut dropped: Vec<bool> = world.entries.iter().map(|entry| entry.broken).collect();
    let mut marks = request.marks.as_slice();
    loop {
        let (wanted, ranks) = prepare(universe, &world, &dropped, request);
        let universe = &*universe;
        let links = Links::new(universe);
        let mut search = Search::new(universe, wanted, ranks, marks, request.options);
        search.run();
        let changes = changes::changes(&mut search, &links);
        let errors = search.errors();
        let names = world.entries.iter().map(|entry| universe.find(&entry.name));
        let failed = names.map(|name| match name.and_then(|name| search.owner(name)) {
            Some(owner) => search.is_bad(owner.package),
            None => true,
        });
        let failed: Vec<bool> = failed.collect();
        let progress = failed
            .iter()
            .zip(&dropped)
            .any(|(now, before)| *now && !before);
        if errors == 0 || !request.options.force_broken_world || !progress {
            let solution = Solution {
                errors,
                changes,
                world,
            };
            return (solution, dropped);
        }
        // Each round drops at least one more entry, so there are at most as many as entries.
        for (before, now) in dropped.iter_mut().zip(failed) {
            *before |= now;
        }
        marks = &[];
    }
}

/// Answers a request that [`solve`] found no answer to, if there is one at all.
///
/// Where the world may be broken by force, as much of it is kept as apk would keep, if that has an
/// answer, else what can be kept entry by entry. The changes are ordered as apk orders them.
pub fn solve_completely(universe: &mut Universe<'_>, request: &Request) -> Option<Solution> {
    let mut world = request.world.clone();
    world.sort();
    let broken: Vec<bool> = world.entries.iter().map(|entry| entry.broken).collect();
    let whole = solve_without(universe, request, &world, &broken);
    if whole.is_some() || !request.options.force_broken_world {
        return whole;
    }
    let (_, dropped) = solve_by_rules(universe, request);
    if let Some(solution) = solve_without(universe, request, &world, &dropped) {
        return Some(solution);
    }
    let mut dropped = vec![true; broken.len()];
    let mut best = None;
    for at in (0..broken.len()).filter(|at| !broken[*at]) {
        dropped[at] = false;
        match solve_without(universe, request, &world, &dropped) {
            Some(solution) => best = Some(solution),
            None => dropped[at] = true,
        }
    }
    best
}

/// Searches completely for what is left of a sorted world without some entries.
fn solve_without(
    universe: &mut Universe<'_>,
    request: &Request,
    world: &World,
    dropped: &[bool],
) -> Option<Solution> {
    let mut kept = world.clone();
    for (entry, dropped) in kept.entries.iter_mut().zip(dropped) {
        entry.broken = *dropped;
    }
    let (wanted, ranks) = prepare(universe, world, dropped, request);
    let universe = &*universe;
    let question = complete::Question::new(universe, request, &kept);
    let selection = complete::solve(&question.problem)?;
    let selection = selection.iter().map(|at| question.packages[*at]);
    let mut selection: Vec<PackageId> = selection.collect();
    selection.sort_unstable();
    let links = Links::new(universe);
    let mut search = Search::new(universe, wanted, ranks, &request.marks, request.options);
    search.restrict(&selection);
    search.run();
    search.select(&selection);
    let changes = changes::changes(&mut search, &links);
    let mut new: Vec<PackageId> = changes.iter().filter_map(|change| change.new).collect();
    new.sort_unstable();
    let agrees = search.errors() == 0 && new == selection;
    agrees.then(|| Solution {
        errors: 0,
        changes,
        world: world.clone(),
    })
}

/// Explains why a request has no answer; `None` if it has one.
///
/// For names that nothing has, the nearest known ones are looked for.
pub fn explain(universe: &mut Universe<'_>, request: &Request) -> Option<Explanation> {
    let mut world = request.world.clone();
    world.sort();
    let dropped: Vec<bool> = world.entries.iter().map(|entry| entry.broken).collect();
    prepare(universe, &world, &dropped, request);
    let question = complete::Question::new(universe, request, &world);
    let mut explanation = complete::explain(&question.problem)?;
    let all = explanation.contradictions.iter_mut();
    for hint in all.flat_map(|contradiction| &mut contradiction.hints) {
        if let Hint::Rename { name, nearest } = hint {
            *nearest = nearest_names(universe, name);
        }
    }
    Some(explanation)
}

/// Returns the names of known packages that look most like one that is not known, nearest first.
pub fn nearest_names(universe: &mut Universe<'_>, unknown: &str) -> Vec<String> {
    const SIMILAR: f64 = 0.75;
    const SHOWN: usize = 3;
    let similarity = |text: &str| strsim::normalized_damerau_levenshtein(text, unknown);
    let close = |text: &str| {
        // Package names only: paths, libraries and commands are no answer to a misspelt name.
        !text.contains(['/', ':']) && similarity(text) >= SIMILAR
    };
    let ids = universe.known_matching(close);
    let mut names: Vec<String> = Vec::new();
    for name in ids {
        if !universe.offers(name).is_empty() {
            names.push(universe.name_text(name).to_owned());
        }
    }
    names.sort_by(|a, b| similarity(b).total_cmp(&similarity(a)).then(a.cmp(b)));
    names.truncate(SHOWN);
    names
}

/// Loads what the request reaches.
fn prepare<'w>(
    universe: &mut Universe<'_>,
    world: &'w World,
    dropped: &[bool],
    request: &Request,
) -> (Vec<Wanted<'w>>, discovery::Ranks) {
    let marked: Vec<NameId> = request.marks.iter().map(|mark| mark.name).collect();
    let names: Vec<NameId> = (world.entries.iter())
        .map(|entry| universe.intern(&entry.name))
        .collect();
    for tag in world.entries.iter().filter_map(|entry| entry.tag.as_ref()) {
        universe.tag(tag);
    }
    let start = names.iter().zip(dropped).filter(|(_, dropped)| !**dropped);
    let start = start.map(|(name, _)| *name);
    let ranks = discovery::discover(universe, start, &marked);
    let wanted = world.entries.iter().zip(&names).zip(dropped);
    let wanted = wanted.map(|((entry, name), dropped)| Wanted {
        need: universe::Need::new(*name, entry),
        tag: (entry.tag.as_ref())
            .and_then(|tag| universe.find_tag(tag))
            .unwrap_or_default(),
        dropped: *dropped,
    });
    (wanted.collect(), ranks)
}
