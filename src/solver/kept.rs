//! Why `del` did not remove what it was asked to (solver.md, 5.3).

use super::changes::answer;
use super::ids::{NameId, PackageId};
use super::layout::Layout;
use super::links::Links;
use super::universe::Universe;
use super::{Deletion, Solution};
use crate::package::{World, order};
use std::collections::HashSet;

/// Returns the text that is printed before the plan, empty if everything goes.
///
/// `before` is the world before the command; `verbosity` must be at least 1, else there is no
/// text to print.
pub fn kept(
    universe: &Universe<'_>,
    before: &World,
    deletion: &Deletion,
    solution: &Solution,
    verbosity: u32,
    width: usize,
) -> String {
    let links = Links::new(universe);
    let positive = |entry: &&crate::package::Dependency| !entry.conflict;
    let entries = solution.world.entries.iter().filter(positive);
    let mut walk = Walk {
        universe,
        links: &links,
        world: entries.filter_map(|e| universe.find(&e.name)).collect(),
        selected: solution.selected().collect(),
        visited: HashSet::new(),
        verbosity,
        layout: Layout::new(width),
        stack: Vec::new(),
    };
    let mut names = deletion.names.clone();
    names.sort_by(|a, b| order::by_name(universe.name_text(*a), universe.name_text(*b)));
    let mut listed = false;
    for name in names {
        let text = universe.name_text(name);
        let mut entries = before.entries.iter();
        if entries.any(|entry| entry.conflict && entry.name == text) {
            continue;
        }
        let offers = universe.offers(name).iter().map(|offer| offer.package);
        let keeping: Vec<PackageId> = offers.filter(|p| walk.selected.contains(p)).collect();
        if keeping.is_empty() {
            continue;
        }
        if !std::mem::replace(&mut listed, true) {
            walk.layout
                .line("World updated, but the following packages are not removed due to:");
        }
        walk.visited.clear();
        for package in keeping {
            walk.layout.heading(&format!("  {text}:"));
            walk.from(package);
        }
        walk.layout.end();
    }
    if listed {
        walk.layout.line("");
    }
    walk.layout.finish()
}

/// One package and where the walk is within it.
struct Frame {
    package: PackageId,
    candidates: std::vec::IntoIter<Candidate>,
}

#[derive(Clone, Copy)]
enum Candidate {
    /// Has an offer of a name that depends on the package.
    Dependent(PackageId),
    /// Offers a name in the package's install_if.
    Condition(PackageId),
}

struct Walk<'w> {
    universe: &'w Universe<'w>,
    links: &'w Links<'w>,
    world: HashSet<NameId>,
    selected: HashSet<PackageId>,
    visited: HashSet<PackageId>,
    verbosity: u32,
    layout: Layout,
    stack: Vec<Frame>,
}

impl Walk<'_> {
    fn from(&mut self, package: PackageId) {
        self.enter(package);
        while let Some(frame) = self.stack.last_mut() {
            let Some(candidate) = frame.candidates.next() else {
                self.stack.pop();
                continue;
            };
            let package = frame.package;
            if let Some(next) = self.follow(package, candidate) {
                self.enter(next);
            }
        }
    }

    /// Prints what of a package is in the world, and collects where to go on.
    fn enter(&mut self, package: PackageId) {
        let universe = self.universe;
        let mut candidates = Vec::new();
        for name in universe.offered_names(package) {
            if self.world.contains(&name) {
                self.layout.item(universe.name_text(name));
            }
            for dependent in self.links.dependents(name).iter() {
                let offers = universe.offers(*dependent).iter();
                let selected = offers.filter(|offer| self.selected.contains(&offer.package));
                candidates.extend(selected.map(|offer| Candidate::Dependent(offer.package)));
            }
        }
        for name in universe.install_if_names(package) {
            let offers = universe.offers(*name).iter();
            let selected = offers.filter(|offer| self.selected.contains(&offer.package));
            candidates.extend(selected.map(|offer| Candidate::Condition(offer.package)));
        }
        self.stack.push(Frame {
            package,
            candidates: candidates.into_iter(),
        });
    }

    /// Returns the candidate if the walk goes on there.
    fn follow(&mut self, package: PackageId, candidate: Candidate) -> Option<PackageId> {
        let universe = self.universe;
        match candidate {
            Candidate::Dependent(other) => {
                if !self.visited.insert(other) {
                    return None;
                }
                let mut depends = universe.depends(other);
                depends
                    .any(|need| answer(universe, &need, Some(other), package) == Some(true))
                    .then_some(other)
            }
            Candidate::Condition(other) => {
                let goes_on = self.visited.insert(other)
                    && (self.verbosity >= 2 || self.world.contains(&universe.own_name(other)));
                goes_on.then_some(other)
            }
        }
    }
}
