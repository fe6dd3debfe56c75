//! From a universe and a request to a [`Problem`]; and back from candidates to packages.
//!
//! What the world does not lead to by dependencies
//! and by packages that install themselves cannot be part of an answer and is left out.

use super::super::ids::{NameId, NumberSet, TagId};
use super::super::state::PackageState;
use super::super::{Flags, PackageId, Request, Universe};
use super::problem::{Candidate, Need, Problem, TagSet, Unavailable, Wanted};
use crate::package::World;
use std::collections::{HashMap, HashSet, VecDeque};

/// A problem with the packages that its candidates are.
pub(in super::super) struct Question<'u> {
    pub(in super::super) problem: Problem<'u>,
    pub(in super::super) packages: Vec<PackageId>,
}

impl<'u> Question<'u> {
    /// Takes what is loaded. `world` is the sorted world; its broken entries are left out.
    pub(in super::super) fn new(
        universe: &'u Universe<'u>,
        request: &Request,
        world: &'u World,
    ) -> Self {
        let packages = reached(universe, world);
        let places: HashMap<PackageId, usize> = packages.iter().copied().zip(0..).collect();
        let mut candidates: Vec<Candidate<'u>> = packages
            .iter()
            .map(|package| candidate(universe, *package, request.options.global))
            .collect();
        for mark in &request.marks {
            for offer in universe.offers(mark.name) {
                if let Some(at) = places.get(&offer.package) {
                    let candidate = &mut candidates[*at];
                    candidate.flags = candidate.flags | mark.flags;
                    candidate.heritable = candidate.heritable | mark.heritable;
                }
            }
        }
        let wanted = world.entries.iter().filter(|entry| !entry.broken);
        let wanted = wanted.map(|entry| Wanted {
            need: Need::new(entry),
            tag: (entry.tag.as_ref())
                .and_then(|tag| universe.find_tag(tag))
                .unwrap_or_default()
                .0,
        });
        let texts = universe.tags().map(|tag| universe.tag_text(tag));
        let problem = Problem {
            candidates,
            world: wanted.collect(),
            tags: texts.map(Option::unwrap_or_default).collect(),
            flags: request.options.global,
            preupgrade: request.options.preupgrade,
        };
        Self { problem, packages }
    }
}

/// Returns the packages that the world leads to, what is near to it first.
fn reached(universe: &Universe<'_>, world: &World) -> Vec<PackageId> {
    let mut names: HashSet<NameId> = HashSet::new();
    let mut seen: HashSet<PackageId> = HashSet::new();
    let mut packages: Vec<PackageId> = Vec::new();
    let entries = world.entries.iter().filter(|entry| !entry.broken);
    let entries = entries.filter_map(|entry| universe.find(&entry.name));
    let mut open: VecDeque<NameId> = entries.collect();
    let has_conditions = |package: &PackageId| universe.install_if(*package).next().is_some();
    let mut waiting: Vec<PackageId> = universe.packages().filter(has_conditions).collect();
    let mut offered: HashSet<NameId> = HashSet::new();
    loop {
        let mut found: Vec<PackageId> = Vec::new();
        while let Some(name) = open.pop_front() {
            if names.insert(name) {
                found.extend(universe.offers(name).iter().map(|offer| offer.package));
            }
            for package in found.drain(..) {
                if seen.insert(package) {
                    packages.push(package);
                    open.extend(universe.depend_names(package));
                    offered.insert(universe.own_name(package));
                    offered.extend(universe.provide_names(package));
                }
            }
        }
        let fulfilled = |package: &PackageId| {
            let mut needs = universe.install_if(*package).filter(|need| !need.conflict);
            needs.all(|need| offered.contains(&need.name))
        };
        let (now, later): (Vec<PackageId>, Vec<PackageId>) =
            waiting.into_iter().partition(fulfilled);
        waiting = later;
        if now.is_empty() {
            break;
        }
        for package in now {
            open.push_back(universe.own_name(package));
        }
    }
    packages
}

fn candidate<'u>(universe: &'u Universe<'u>, package: PackageId, global: Flags) -> Candidate<'u> {
    let state = PackageState::initial(universe, package, global);
    let record = universe.record(package);
    let need = |need: super::super::universe::Need<'u>| Need {
        name: universe.name_text(need.name),
        operator: need.operator,
        version: need.version,
        conflict: need.conflict,
    };
    let provides = universe.provides(package).filter(|provide| !provide.broken);
    let never_triggers = state.failed;
    Candidate {
        name: universe.package_name(package),
        version: universe.version(package),
        identity: universe.identity(package),
        depends: universe.depends(package).map(need).collect(),
        provides: provides
            .map(|provide| (universe.name_text(provide.name), provide.version))
            .collect(),
        install_if: match never_triggers {
            true => Vec::new(),
            false => universe.install_if(package).map(need).collect(),
        },
        provider_priority: record.provider_priority(),
        installed: universe.is_installed(package),
        unavailable: unavailable(universe, package, &state),
        tags: tags(universe, state.counted),
        permitted: state.permitted,
        preferred: state.preferred,
        reachable: state.reachable,
        repository: (universe.repository_set(package).first()).map_or(0, |number| number + 1),
        flags: Flags::NONE,
        heritable: Flags::NONE,
    }
}

fn unavailable(
    universe: &Universe<'_>,
    package: PackageId,
    state: &PackageState,
) -> Option<Unavailable> {
    if !universe.fits_architecture(package) {
        let arch = universe.record(package).arch().unwrap_or_default();
        Some(Unavailable::Architecture(arch.to_owned()))
    } else if universe.is_uninstallable(package) {
        Some(Unavailable::Broken)
    } else {
        (!state.live).then_some(Unavailable::Network)
    }
}

/// Returns the tags whose repositories a package counts to.
fn tags(universe: &Universe<'_>, counted: NumberSet) -> TagSet {
    let leads = |tag: &TagId| universe.repositories_of_tag(*tag).meets(counted);
    let tags = universe.tags().filter(leads);
    tags.fold(TagSet::default(), |set, tag| {
        set.union(TagSet::single(tag.0))
    })
}
