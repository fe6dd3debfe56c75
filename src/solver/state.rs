//! What a run knows of names and packages (solver.md, 4.1).
//!
//! A question discovers many more names than it ever looks at, so states are made when they are
//! first written to; until then the initial state is computed.

use super::flags::Flags;
use super::ids::{NameId, NumberSet, PackageId, TagId};
use super::universe::Universe;
use std::collections::HashSet;

/// A package under the version it offers a name with.
#[derive(Clone, Copy)]
pub(super) struct Owner<'u> {
    pub(super) package: PackageId,
    pub(super) version: &'u str,
}

#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Queue {
    #[default]
    None,
    Now,
    Auto,
    Rest,
}

/// What is known of a name.
#[derive(Clone, Copy, Default)]
pub(super) struct NameState<'u> {
    pub(super) owner: Option<Owner<'u>>,
    pub(super) wanted: u32,
    /// The tick of the last examination: what was nudged later makes its dependencies worth
    /// checking again.
    pub(super) examined: u32,
    pub(super) settled: bool,
    /// No live offer can be triggered any more; computed when first asked for.
    pub(super) hopeless: Option<bool>,
    pub(super) recheck_trig: bool,
    pub(super) multi: bool,
    pub(super) auto: bool,
    pub(super) ready: bool,
    pub(super) triggered: bool,
    pub(super) probe: bool,
    pub(super) urgent: bool,
    pub(super) queue: Queue,
    /// It is on the worklist.
    pub(super) listed: bool,
    /// It was entered in the lists of whom to nudge.
    pub(super) active: bool,
    /// How many candidates share it while that is counted, else 0.
    pub(super) shared: u32,
    /// The set of names that it was seen in last.
    pub(super) seen: u32,
    /// The same for names seen without a version.
    pub(super) bare: u32,
}

/// What is known of a package.
#[derive(Clone, Copy)]
pub(super) struct PackageState {
    pub(super) live: bool,
    pub(super) reachable: bool,
    pub(super) permitted: bool,
    pub(super) preferred: bool,
    pub(super) grouped: bool,
    pub(super) fulfilled: bool,
    pub(super) failed: bool,
    pub(super) bad: bool,
    pub(super) flags: Flags,
    pub(super) heritable: Flags,
    pub(super) strikes: u32,
    pub(super) tags: NumberSet,
    /// The repositories it counts to; they never change.
    pub(super) counted: NumberSet,
}

impl PackageState {
    pub(super) fn initial(universe: &Universe<'_>, package: PackageId, global: Flags) -> Self {
        let listed = universe.repository_set(package);
        let from_file = universe.is_from_file(package);
        let reachable = from_file || listed.meets(universe.reachable_repositories());
        let installed = universe.is_installed(package);
        let data_less = universe.installed_size(package) == 0;
        let counted = universe.counted_repositories(package, listed);
        let default = universe.repositories_of_tag(TagId::DEFAULT);
        let remembered = universe.is_remembered(package);
        let preferred = from_file || data_less || counted.meets(default);
        Self {
            live: !universe.is_uninstallable(package)
                && (reachable
                    || data_less
                    || installed
                    || remembered
                    || universe.is_cached(package)),
            reachable,
            permitted: preferred || remembered || installed,
            preferred,
            grouped: false,
            fulfilled: false,
            failed: universe.install_if_names(package).is_empty()
                || (global.contains(Flags::AVAILABLE) && !reachable),
            bad: false,
            flags: Flags::NONE,
            heritable: Flags::NONE,
            strikes: 0,
            tags: NumberSet::single(TagId::DEFAULT.0 as usize),
            counted,
        }
    }
}

/// Returns whether install_if can not make a package wanted in this run.
pub(super) fn never_triggers(universe: &Universe<'_>, package: PackageId, global: Flags) -> bool {
    universe.install_if_names(package).is_empty()
        || (global.contains(Flags::AVAILABLE) && !universe.is_reachable(package))
}

/// The states of one run.
pub(super) struct States<'u> {
    universe: &'u Universe<'u>,
    global: Flags,
    /// If given, nothing else can be chosen.
    only: Option<HashSet<PackageId>>,
    /// Positions in the vectors below plus one.
    name_slots: Vec<u32>,
    package_slots: Vec<u32>,
    names: Vec<NameState<'u>>,
    packages: Vec<PackageState>,
}

impl<'u> States<'u> {
    pub(super) fn new(universe: &'u Universe<'u>, global: Flags) -> Self {
        Self {
            universe,
            global,
            only: None,
            name_slots: vec![0; universe.name_count()],
            package_slots: vec![0; universe.package_count()],
            names: Vec::new(),
            packages: Vec::new(),
        }
    }

    /// Makes packages that are not selected impossible to choose.
    pub(super) fn restrict(&mut self, selected: &[PackageId]) {
        let only: HashSet<PackageId> = selected.iter().copied().collect();
        for (package, slot) in (0..).map(PackageId).zip(&self.package_slots) {
            if let Some(slot) = slot.checked_sub(1) {
                self.packages[slot as usize].live &= only.contains(&package);
            }
        }
        self.only = Some(only);
    }

    fn initial(&self, package: PackageId) -> PackageState {
        let mut state = PackageState::initial(self.universe, package, self.global);
        if let Some(only) = &self.only {
            state.live &= only.contains(&package);
        }
        state
    }

    /// Returns the states of all packages that have one.
    pub(super) fn packages_mut(&mut self) -> impl Iterator<Item = &mut PackageState> {
        self.packages.iter_mut()
    }

    pub(super) fn name(&self, name: NameId) -> NameState<'u> {
        match self.name_slots[name.0 as usize].checked_sub(1) {
            Some(slot) => self.names[slot as usize],
            None => NameState::default(),
        }
    }

    pub(super) fn name_mut(&mut self, name: NameId) -> &mut NameState<'u> {
        let slot = &mut self.name_slots[name.0 as usize];
        if *slot == 0 {
            self.names.push(NameState::default());
            *slot = self.names.len() as u32;
        }
        &mut self.names[*slot as usize - 1]
    }

    pub(super) fn package(&self, package: PackageId) -> PackageState {
        match self.package_slots[package.0 as usize].checked_sub(1) {
            Some(slot) => self.packages[slot as usize],
            None => self.initial(package),
        }
    }

    pub(super) fn package_mut(&mut self, package: PackageId) -> &mut PackageState {
        if self.package_slots[package.0 as usize] == 0 {
            self.packages.push(self.initial(package));
            self.package_slots[package.0 as usize] = self.packages.len() as u32;
        }
        &mut self.packages[self.package_slots[package.0 as usize] as usize - 1]
    }
}

/// Whom to tell that something happened to a name: the names that depend on it and are looked at
/// at all, in the order of the dependents lists.
///
/// A name enters when it first gets wanted or triggered. Telling the others would have no effect
/// but a mark, and that is replaced by comparing ticks.
pub(super) struct Watchers {
    slots: Vec<u32>,
    lists: Vec<Watching>,
    /// For each name when it was last nudged.
    nudged: Vec<u32>,
    tick: u32,
}

#[derive(Default)]
struct Watching {
    entries: Vec<(u64, NameId)>,
    sorted: bool,
}

impl Watchers {
    pub(super) fn new(names: usize) -> Self {
        Self {
            slots: vec![0; names],
            lists: Vec::new(),
            nudged: vec![0; names],
            tick: 0,
        }
    }

    /// Enters a name in the lists of everything that its offers depend on.
    pub(super) fn enter(&mut self, universe: &Universe<'_>, name: NameId) {
        let early_key = universe.table_key(name);
        for offer in universe.offers(name) {
            let package = offer.package;
            let key = if universe.is_late(package) {
                universe.late_key(package, name)
            } else {
                early_key
            };
            for depend in universe.depend_names(package) {
                let slot = &mut self.slots[depend.0 as usize];
                if *slot == 0 {
                    self.lists.push(Watching::default());
                    *slot = self.lists.len() as u32;
                }
                let list = &mut self.lists[*slot as usize - 1];
                // One name enters at a time, so it can only be the last.
                if list.entries.last().map(|(_, last)| *last) != Some(name) {
                    list.sorted = false;
                    list.entries.push((key, name));
                }
            }
        }
    }

    /// Notes that something happened to a name; returns the list of whom to tell, to be given
    /// back.
    pub(super) fn nudge(&mut self, name: NameId) -> Vec<(u64, NameId)> {
        self.tick += 1;
        self.nudged[name.0 as usize] = self.tick;
        let Some(slot) = self.slots[name.0 as usize].checked_sub(1) else {
            return Vec::new();
        };
        let list = &mut self.lists[slot as usize];
        if !std::mem::replace(&mut list.sorted, true) {
            // New names came to the end of what is sorted, which a merge sort is good at.
            list.entries.sort_by_key(|(key, _)| *key);
        }
        std::mem::take(&mut list.entries)
    }

    /// Gives the list of a nudge back.
    pub(super) fn restore(&mut self, name: NameId, entries: Vec<(u64, NameId)>) {
        if let Some(slot) = self.slots[name.0 as usize].checked_sub(1) {
            self.lists[slot as usize].entries = entries;
        }
    }

    /// Returns the present tick.
    pub(super) fn now(&self) -> u32 {
        self.tick
    }

    /// Returns whether something happened since a tick to what a name's offers depend on.
    pub(super) fn changed_since(&self, tick: u32, universe: &Universe<'_>, name: NameId) -> bool {
        let offers = universe.offers(name).iter();
        let mut depends = offers.flat_map(|offer| universe.depend_names(offer.package));
        depends.any(|depend| self.nudged[depend.0 as usize] > tick)
    }
}
