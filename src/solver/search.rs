//! The decision loop: a propagating procedure that never goes back (solver.md, 4.1 to 4.9).
//!
//! Requirements are pushed down, impossible packages are struck out, and when nothing more follows
//! a name is decided for good. The order of every effect is part of the behaviour: it fixes the
//! order of the worklist and thereby the result.

use super::discovery::Ranks;
use super::flags::Flags;
use super::ids::{NameId, NumberSet, PackageId, TagId};
use super::state::{NameState, Owner, PackageState, Queue, States, Watchers, never_triggers};
use super::universe::{Need, Offer, Universe};
use super::{Mark, Options};
use std::collections::{BTreeMap, HashSet, VecDeque};

/// One entry of the world in this run.
#[derive(Clone, Copy)]
pub(super) struct Wanted<'u> {
    pub(super) need: Need<'u>,
    pub(super) tag: TagId,
    /// The entry is left aside (`--force-broken-world`).
    pub(super) dropped: bool,
}

/// Who passes flags and tags on.
#[derive(Clone, Copy)]
enum Giver {
    Package(PackageId),
    World(TagId),
    Nobody,
}

/// One run.
pub(super) struct Search<'u> {
    pub(super) universe: &'u Universe<'u>,
    pub(super) world: Vec<Wanted<'u>>,
    options: Options,
    ranks: Ranks,
    states: States<'u>,
    watchers: Watchers,
    worklist: VecDeque<NameId>,
    now: VecDeque<NameId>,
    auto: BTreeMap<u32, NameId>,
    rest: BTreeMap<u32, NameId>,
    errors: u32,
    /// The last number given to [`NameState::seen`] and [`NameState::bare`].
    mark: u32,
}

impl<'u> Search<'u> {
    pub(super) fn new(
        universe: &'u Universe<'u>,
        world: Vec<Wanted<'u>>,
        ranks: Ranks,
        marks: &[Mark],
        options: Options,
    ) -> Self {
        let mut states = States::new(universe, options.global);
        for mark in marks {
            for offer in universe.offers(mark.name) {
                let state = states.package_mut(offer.package);
                state.flags = state.flags | mark.flags;
                state.heritable = state.heritable | mark.heritable;
            }
        }
        Self {
            universe,
            world,
            options,
            ranks,
            states,
            watchers: Watchers::new(universe.name_count()),
            worklist: VecDeque::new(),
            now: VecDeque::new(),
            auto: BTreeMap::new(),
            rest: BTreeMap::new(),
            errors: 0,
            mark: 0,
        }
    }

    /// Imposes the world and decides every name (solver.md, 4.9 steps 3 and 4).
    pub(super) fn run(&mut self) {
        for at in 0..self.world.len() {
            let Wanted { need, tag, dropped } = self.world[at];
            if !dropped {
                self.impose(need, Giver::World(tag));
            }
        }
        loop {
            if let Some(name) = self.worklist.pop_front() {
                if std::mem::take(&mut self.name_mut(name).listed) {
                    self.examine(name);
                }
            } else if let Some(name) = self.next_in_queues() {
                self.choose(name);
            } else {
                return;
            }
        }
    }

    /// Lets only these packages be chosen; call it before [`Self::run`].
    pub(super) fn restrict(&mut self, selected: &[PackageId]) {
        self.states.restrict(selected);
    }

    /// Makes these packages the answer, whatever was decided; flags and tags stay as the run has
    /// handed them on. What is wrong with the answer shows when the change list is made.
    pub(super) fn select(&mut self, selected: &[PackageId]) {
        let universe = self.universe;
        let is_selected: HashSet<PackageId> = selected.iter().copied().collect();
        self.errors = 0;
        for state in self.states.packages_mut() {
            state.bad = false;
        }
        for name in (0..universe.name_count() as u32).map(NameId) {
            let owner = self.name(name).owner;
            if owner.is_some_and(|owner| !is_selected.contains(&owner.package)) {
                self.name_mut(name).owner = None;
            }
        }
        for package in selected.iter().copied() {
            let version = universe.version(package);
            let own = universe.own_name(package);
            self.name_mut(own).owner = Some(Owner { package, version });
            for provided in universe.provides(package).filter(|p| !p.broken) {
                let version = provided.version;
                let state = self.name_mut(provided.name);
                let bare = state.owner.is_none_or(|owner| owner.version.is_empty());
                if state.owner.is_none() || (bare && !version.is_empty()) {
                    state.owner = Some(Owner { package, version });
                }
            }
        }
    }

    /// Returns the number of errors counted.
    pub(super) fn errors(&self) -> u32 {
        self.errors
    }

    /// Returns who was decided to answer to a name.
    pub(super) fn owner(&self, name: NameId) -> Option<Owner<'u>> {
        self.name(name).owner
    }

    /// Returns whether a name was discovered.
    pub(super) fn is_discovered(&self, name: NameId) -> bool {
        self.rank(name) != 0
    }

    pub(super) fn ignores_conflicts(&self) -> bool {
        self.options.ignore_conflicts
    }

    pub(super) fn is_bad(&self, package: PackageId) -> bool {
        self.package(package).bad
    }

    pub(super) fn is_reinstall(&self, package: PackageId) -> bool {
        self.package(package).flags.contains(Flags::REINSTALL)
    }

    /// Returns the tag to record for a package (solver.md, 3.4).
    pub(super) fn resulting_tag(&self, package: PackageId) -> TagId {
        let PackageState { counted, tags, .. } = self.package(package);
        let mut tags = tags.iter().map(|tag| TagId(tag as u8));
        let found = tags.find(|tag| self.universe.repositories_of_tag(*tag).meets(counted));
        found.unwrap_or_default()
    }

    /// Counts a package as part of an error, once.
    pub(super) fn mark_bad(&mut self, package: Option<PackageId>) {
        if let Some(package) = package {
            let state = self.package_mut(package);
            if !std::mem::replace(&mut state.bad, true) {
                self.errors += 1;
            }
        }
    }

    /// Returns whether an owner answers a dependency of `from` (solver.md, 4.2).
    pub(super) fn meets(
        &self,
        need: &Need<'_>,
        from: Option<PackageId>,
        owner: Option<Owner<'_>>,
    ) -> bool {
        meets(self.universe, need, from, owner)
    }

    fn name(&self, name: NameId) -> NameState<'u> {
        self.states.name(name)
    }

    fn name_mut(&mut self, name: NameId) -> &mut NameState<'u> {
        self.states.name_mut(name)
    }

    fn package(&self, package: PackageId) -> PackageState {
        self.states.package(package)
    }

    fn package_mut(&mut self, package: PackageId) -> &mut PackageState {
        self.states.package_mut(package)
    }

    fn rank(&self, name: NameId) -> u32 {
        self.ranks.get(name.0 as usize).copied().unwrap_or_default()
    }

    /// Returns a number that marks a new set of names.
    fn next_mark(&mut self) -> u32 {
        self.mark += 1;
        self.mark
    }

    fn is_hopeless(&mut self, name: NameId) -> bool {
        let (universe, global) = (self.universe, self.options.global);
        *self.name_mut(name).hopeless.get_or_insert_with(|| {
            let mut offers = universe.offers(name).iter();
            offers.all(|offer| never_triggers(universe, offer.package, global))
        })
    }

    /// Lets a name be told of what happens to its dependencies from now on.
    fn activate(&mut self, name: NameId) {
        if !std::mem::replace(&mut self.name_mut(name).active, true) {
            self.watchers.enter(self.universe, name);
        }
    }

    fn offered_as(&self, offer: Offer) -> Owner<'u> {
        Owner {
            package: offer.package,
            version: self.universe.offer_version(offer),
        }
    }

    fn put_on_worklist(&mut self, name: NameId) {
        let state = self.name_mut(name);
        if state.listed || state.settled || (state.wanted == 0 && !state.recheck_trig) {
            return;
        }
        state.listed = true;
        self.worklist.push_back(name);
    }

    fn nudge_dependents(&mut self, name: NameId) {
        let dependents = self.watchers.nudge(name);
        for (_, dependent) in &dependents {
            self.put_on_worklist(*dependent);
        }
        self.watchers.restore(name, dependents);
    }

    fn nudge_triggers(&mut self, name: NameId) {
        let universe = self.universe;
        for triggered in universe.triggers(name) {
            if self.is_discovered(*triggered) && !self.is_hopeless(*triggered) {
                self.name_mut(*triggered).recheck_trig = true;
                self.activate(*triggered);
                self.put_on_worklist(*triggered);
            }
        }
    }

    fn nudge_triggers_of_package(&mut self, package: PackageId) {
        let universe = self.universe;
        for name in universe.offered_names(package) {
            self.nudge_triggers(name);
        }
    }

    fn strike_out(&mut self, package: PackageId) {
        self.package_mut(package).live = false;
        let universe = self.universe;
        for name in universe.offered_names(package) {
            self.nudge_dependents(name);
        }
        self.nudge_triggers_of_package(package);
    }

    fn became_wanted(&mut self, name: NameId) {
        self.activate(name);
        self.enqueue(name, false);
        self.nudge_triggers(name);
        self.put_on_worklist(name);
    }

    fn inherit(&mut self, package: PackageId, from: Giver) {
        let counted = self.package(package).counted;
        let global = self.options.global;
        match from {
            Giver::Package(giver) => {
                let PackageState {
                    heritable, tags, ..
                } = self.package(giver);
                let state = self.package_mut(package);
                state.flags = state.flags | heritable;
                state.heritable = state.heritable | heritable;
                state.tags = state.tags.union(tags);
            }
            Giver::World(tag) => {
                let preferred = counted.meets(self.universe.repositories_of_tag(tag));
                let state = self.package_mut(package);
                state.flags = state.flags | global;
                state.heritable = state.heritable | global;
                state.tags = state.tags.union(NumberSet::single(tag.0 as usize));
                state.preferred = preferred;
            }
            Giver::Nobody => self.package_mut(package).preferred = false,
        }
        let allowed = self
            .universe
            .repositories_of_tags(self.package(package).tags);
        self.package_mut(package).permitted |= counted.meets(allowed);
    }

    fn impose(&mut self, need: Need<'u>, from: Giver) {
        if self.options.ignore_conflicts && need.conflict {
            return;
        }
        if !need.conflict {
            let state = self.name_mut(need.name);
            state.wanted = state.wanted.saturating_add(1);
            if state.wanted == 1 {
                self.became_wanted(need.name);
            }
        }
        let universe = self.universe;
        let package = match from {
            Giver::Package(package) => Some(package),
            Giver::World(_) | Giver::Nobody => None,
        };
        for offer in universe.offers(need.name) {
            if self.meets(&need, package, Some(self.offered_as(*offer))) {
                self.inherit(offer.package, from);
                continue;
            }
            let state = self.package_mut(offer.package);
            state.strikes = state.strikes.saturating_add(1);
            if state.live {
                self.strike_out(offer.package);
            }
        }
    }

    fn narrow(&mut self, other: NameId, name: NameId, bare_seen: bool) {
        if other == name || self.options.ignore_conflicts {
            return;
        }
        let universe = self.universe;
        for offer in universe.offers(other) {
            let package = offer.package;
            if !self.package(package).live {
                continue;
            }
            let survives = universe.offered_names(package).any(|n| n == name)
                || (bare_seen
                    && (universe.offer_version(*offer).is_empty()
                        || universe.provides(package).any(|p| p.version.is_empty())));
            if !survives {
                self.strike_out(package);
            }
        }
    }

    fn enqueue(&mut self, name: NameId, refresh: bool) {
        let state = self.name(name);
        if state.settled {
            return;
        }
        let urges = state.ready && state.wanted > 0 && state.auto && !state.multi;
        if state.queue == Queue::None {
            if state.wanted == 0 && !state.triggered && !state.probe {
                return;
            }
            self.name_mut(name).urgent = urges;
        } else if state.urgent {
            return;
        } else if urges {
            self.name_mut(name).urgent = true;
        } else if !refresh {
            return;
        }
        self.take_from_queue(name);
        let rank = self.rank(name);
        let state = self.name_mut(name);
        state.queue = match (state.urgent, state.auto) {
            (true, _) => Queue::Now,
            (false, true) => Queue::Auto,
            (false, false) => Queue::Rest,
        };
        match state.queue {
            Queue::Now => self.now.push_back(name),
            Queue::Auto => drop(self.auto.insert(rank, name)),
            Queue::Rest | Queue::None => drop(self.rest.insert(rank, name)),
        }
    }

    fn take_from_queue(&mut self, name: NameId) {
        let rank = self.rank(name);
        match std::mem::take(&mut self.name_mut(name).queue) {
            Queue::Auto => drop(self.auto.remove(&rank)),
            Queue::Rest => drop(self.rest.remove(&rank)),
            // What is no longer marked as queued is passed over when its turn comes.
            Queue::Now | Queue::None => {}
        }
    }

    fn next_in_queues(&mut self) -> Option<NameId> {
        while let Some(name) = self.now.pop_front() {
            if self.name(name).queue == Queue::Now {
                self.take_from_queue(name);
                return Some(name);
            }
        }
        let (_, name) = self.auto.last_key_value().or(self.rest.last_key_value())?;
        let name = *name;
        self.take_from_queue(name);
        Some(name)
    }

    /// Examines a name that something happened to (solver.md, 4.6).
    fn examine(&mut self, name: NameId) {
        let universe = self.universe;
        let examined = self.name(name).examined;
        let recheck_deps = self.watchers.changed_since(examined, universe, name);
        let now = self.watchers.now();
        let state = self.name_mut(name);
        state.examined = now;
        let recheck_trig = std::mem::take(&mut state.recheck_trig);
        let (wanted, old_auto) = (state.wanted, state.auto);
        let (mut triggered, mut hopeless, mut auto) = (false, true, false);
        let mut candidates: Vec<Offer> = Vec::new();
        let mut unpermitted = 0;
        for offer in universe.offers(name) {
            let package = offer.package;
            if recheck_deps
                && self.package(package).live
                && !universe
                    .depends(package)
                    .all(|need| self.satisfiable(&need, package))
            {
                self.strike_out(package);
            }
            if !self.package(package).live {
                continue;
            }
            if recheck_trig {
                self.check_install_if(package);
            }
            let state = self.package(package);
            triggered |= state.fulfilled;
            hopeless &= state.failed;
            auto |= state.fulfilled;
            if wanted == 0 {
                continue;
            }
            if !state.permitted {
                unpermitted += 1;
            }
            auto |= self.is_eligible(*offer);
            candidates.push(*offer);
        }
        let state = self.name_mut(name);
        state.multi = candidates.len() > 1 || unpermitted > 0;
        state.triggered = triggered;
        state.hopeless = Some(hopeless);
        state.auto = auto;
        if !candidates.is_empty() {
            for offer in universe.offers(name) {
                self.package_mut(offer.package).grouped = false;
            }
            for offer in &candidates {
                self.package_mut(offer.package).grouped = true;
            }
            self.merge_dependencies(&candidates);
            self.merge_provides(name, &candidates);
        }
        // Whether it is ready only matters to what may be decided by picking something.
        let ready = auto
            && !universe.mentioning(name).any(|package| {
                let mut names = universe.offered_names(package);
                names.any(|name| self.is_discovered(name) && !self.name(name).settled)
            });
        self.name_mut(name).ready = ready;
        self.enqueue(name, auto != old_auto);
    }

    /// Tests the install_if conditions of a package and passes flags and tags on if they hold.
    fn check_install_if(&mut self, package: PackageId) {
        let universe = self.universe;
        let state = self.package(package);
        if !state.fulfilled && !state.failed {
            let mut verdict = Some(true);
            for need in universe.install_if(package) {
                let state = self.name(need.name);
                if !state.settled {
                    verdict = None;
                    if need.conflict {
                        self.name_mut(need.name).probe = true;
                        self.enqueue(need.name, false);
                    }
                    break;
                }
                if !self.meets(&need, Some(package), state.owner) {
                    verdict = Some(false);
                    break;
                }
            }
            let state = self.package_mut(package);
            match verdict {
                Some(true) => state.fulfilled = true,
                Some(false) => state.failed = true,
                None => {}
            }
        }
        if self.package(package).fulfilled {
            for name in universe.install_if_names(package) {
                let giver = match self.name(*name).owner {
                    Some(owner) => Giver::Package(owner.package),
                    None => Giver::Nobody,
                };
                self.inherit(package, giver);
            }
        }
    }

    /// Pushes down what all candidates depend on.
    fn merge_dependencies(&mut self, candidates: &[Offer]) {
        let universe = self.universe;
        let lead = candidates[0].package;
        let mut common = Common::default();
        for offer in candidates {
            let needs = universe.depends(offer.package).filter(|n| !n.conflict);
            common.add(&mut self.states, needs.map(|need| need.name));
        }
        let mut shared = common.finish(&mut self.states);
        for need in universe.depends(lead) {
            if !shared.take(need.name) {
                continue;
            }
            if candidates.len() == 1 {
                self.impose(need, Giver::Package(lead));
            } else if self.name(need.name).wanted == 0 {
                self.name_mut(need.name).wanted = 1;
                self.became_wanted(need.name);
                for offer in universe.offers(need.name) {
                    self.inherit(offer.package, Giver::Package(lead));
                }
            }
        }
    }

    /// Strikes out what can not coexist with any of the candidates.
    fn merge_provides(&mut self, name: NameId, candidates: &[Offer]) {
        let universe = self.universe;
        let mut common = Common::default();
        let bare_mark = self.next_mark();
        for offer in candidates {
            common.add(&mut self.states, universe.offered_names(offer.package));
            let is_bare = universe.offer_version(*offer).is_empty();
            let own = (universe.own_name(offer.package), is_bare);
            let provides = universe.provides(offer.package);
            let provides = provides.map(|p| (p.name, p.version.is_empty()));
            let seen_mark = self.next_mark();
            for (provided, is_bare) in std::iter::once(own).chain(provides) {
                let state = self.name_mut(provided);
                if std::mem::replace(&mut state.seen, seen_mark) != seen_mark && is_bare {
                    state.bare = bare_mark;
                }
            }
        }
        let mut shared = common.finish(&mut self.states);
        for other in universe.offered_names(candidates[0].package) {
            if shared.take(other) {
                let bare_seen = self.name(other).bare == bare_mark;
                self.narrow(other, name, bare_seen);
            }
        }
    }

    /// Returns whether a dependency can still be met (solver.md, 4.6).
    fn satisfiable(&self, need: &Need<'_>, from: PackageId) -> bool {
        if self.options.ignore_conflicts && need.conflict {
            return true;
        }
        let state = self.name(need.name);
        if state.settled {
            return self.meets(need, Some(from), state.owner);
        }
        if state.wanted == 0 && need.conflict {
            return true;
        }
        self.universe.offers(need.name).iter().any(|offer| {
            self.package(offer.package).live
                && self.meets(need, Some(from), Some(self.offered_as(*offer)))
        })
    }

    fn is_eligible(&self, offer: Offer) -> bool {
        let universe = self.universe;
        !universe.offer_version(offer).is_empty()
            || universe.record(offer.package).provider_priority() != 0
            || self.name(universe.own_name(offer.package)).wanted > 0
    }

    /// Decides a name (solver.md, 4.7).
    fn choose(&mut self, name: NameId) {
        let universe = self.universe;
        let state = self.name(name);
        let wanted = state.wanted > 0;
        let mut best: Option<Offer> = None;
        if wanted || state.triggered {
            for offer in universe.offers(name) {
                let state = self.package(offer.package);
                let triggers = state.fulfilled && state.permitted && state.live;
                if !wanted && !triggers {
                    continue;
                }
                if self.is_eligible(*offer) && best.is_none_or(|best| self.beats(*offer, best)) {
                    best = Some(*offer);
                }
            }
        }
        let Some(offer) = best else {
            self.settle(name, None);
            if wanted {
                self.errors += 1;
            }
            return;
        };
        let package = offer.package;
        let state = self.package(package);
        if !state.live || !state.permitted {
            self.mark_bad(Some(package));
        }
        let version = universe.version(package);
        self.settle(universe.own_name(package), Some(Owner { package, version }));
        for provided in universe.provides(package) {
            let version = provided.version;
            self.settle(provided.name, Some(Owner { package, version }));
        }
        for need in universe.depends(package) {
            self.impose(need, Giver::Package(package));
        }
    }

    fn settle(&mut self, name: NameId, owner: Option<Owner<'u>>) {
        let state = self.name(name);
        if state.settled {
            let is_bare = |owner: Option<Owner<'_>>| owner.is_none_or(|o| o.version.is_empty());
            if (is_bare(owner) && is_bare(state.owner)) || self.options.ignore_conflicts {
                return;
            }
            let settled = state.owner.map(|owner| owner.package);
            self.mark_bad(owner.map(|owner| owner.package));
            self.mark_bad(settled);
            return;
        }
        let state = self.name_mut(name);
        state.settled = true;
        state.owner = owner;
        state.listed = false;
        self.take_from_queue(name);
        let universe = self.universe;
        if !self.options.ignore_conflicts {
            let version = owner.map_or("", |owner| owner.version);
            for offer in universe.offers(name) {
                let both_bare = version.is_empty() && universe.offer_version(*offer).is_empty();
                if Some(offer.package) != owner.map(|owner| owner.package) && !both_bare {
                    self.strike_out(offer.package);
                }
            }
        }
        self.nudge_dependents(name);
        match owner {
            Some(owner) => self.nudge_triggers_of_package(owner.package),
            None => self.nudge_triggers(name),
        }
    }

    /// Returns whether one offer ranks strictly above another (solver.md, 4.7).
    fn beats(&self, a: Offer, b: Offer) -> bool {
        self.compare(a, b).is_gt()
    }

    fn compare(&self, a: Offer, b: Offer) -> std::cmp::Ordering {
        use crate::package::Version;
        let universe = self.universe;
        let (of_a, of_b) = (self.package(a.package), self.package(b.package));
        let flags = of_a.flags | of_b.flags;
        let installed = |offer: Offer| universe.is_installed(offer.package);
        let by_installed = || installed(a).cmp(&installed(b));
        let untagged = NumberSet::single(TagId::DEFAULT.0 as usize);
        let same_name = universe.own_name(a.package) == universe.own_name(b.package);
        let (version_a, version_b) = (universe.offer_version(a), universe.offer_version(b));
        let latest =
            flags.contains(Flags::LATEST) && of_a.tags == untagged && of_b.tags == untagged;
        let mut order = if latest {
            let order = of_a.permitted.cmp(&of_b.permitted);
            if flags.contains(Flags::AVAILABLE) {
                order.then(of_a.reachable.cmp(&of_b.reachable))
            } else if flags.contains(Flags::REINSTALL) {
                order.then(of_a.live.cmp(&of_b.live))
            } else {
                order
            }
        } else {
            let mut order = of_a
                .live
                .cmp(&of_b.live)
                .then(of_a.grouped.cmp(&of_b.grouped))
                .then(of_b.strikes.cmp(&of_a.strikes));
            let kept = self.options.preupgrade && !flags.contains(Flags::UPGRADE);
            if kept || flags.contains(Flags::INSTALLED) {
                order = order.then_with(by_installed);
            }
            order = order.then(of_a.permitted.cmp(&of_b.permitted));
            if flags.contains(Flags::AVAILABLE) {
                order = order.then(of_a.reachable.cmp(&of_b.reachable));
            }
            order = order.then(of_a.preferred.cmp(&of_b.preferred));
            if !flags.contains(Flags::REMOVE)
                && !flags.contains(Flags::UPGRADE)
                && (same_name || !version_a.is_empty() || !version_b.is_empty())
            {
                order = order.then_with(by_installed);
            }
            order
        };
        order = order.then_with(|| Version(version_a).compare(Version(version_b)));
        if same_name {
            order = order.then_with(|| {
                Version(universe.version(a.package)).compare(Version(universe.version(b.package)))
            });
        }
        let priority = |offer: Offer| universe.record(offer.package).provider_priority();
        order = order.then_with(|| priority(a).cmp(&priority(b)));
        if !flags.contains(Flags::REMOVE) {
            order = order.then_with(by_installed);
        }
        let place = |offer: Offer| {
            let first = universe.repository_set(offer.package).first();
            first.map_or(0, |number| number + 1)
        };
        order
            .then(of_a.live.cmp(&of_b.live))
            .then_with(|| place(b).cmp(&place(a)))
    }
}

/// Returns whether an owner answers a dependency of `from` (solver.md, 4.2).
pub(super) fn meets(
    universe: &Universe<'_>,
    need: &Need<'_>,
    from: Option<PackageId>,
    owner: Option<Owner<'_>>,
) -> bool {
    let Some(owner) = owner else {
        return need.conflict;
    };
    if need.conflict && from == Some(owner.package) {
        return true;
    }
    need.accepts(owner.version, || universe.identity(owner.package))
}

/// Finds the names that all candidates share.
#[derive(Default)]
struct Common {
    touched: Vec<NameId>,
    rounds: u32,
}

impl Common {
    /// Counts the names of one candidate, each once.
    fn add(&mut self, states: &mut States<'_>, names: impl Iterator<Item = NameId>) {
        for name in names {
            let count = &mut states.name_mut(name).shared;
            // A name only counts while every candidate before had it, too.
            if *count == self.rounds {
                if *count == 0 {
                    self.touched.push(name);
                }
                *count += 1;
            }
        }
        self.rounds += 1;
    }

    /// Returns the shared names and clears the counts.
    fn finish(self, states: &mut States<'_>) -> Shared {
        let mut names = self.touched;
        names.retain(|name| std::mem::take(&mut states.name_mut(*name).shared) == self.rounds);
        names.sort_unstable();
        Shared {
            handled: vec![false; names.len()],
            names,
        }
    }
}

/// Names of which each is to be handled once.
struct Shared {
    names: Vec<NameId>,
    handled: Vec<bool>,
}

impl Shared {
    /// Returns whether a name is among them and was not taken before.
    fn take(&mut self, name: NameId) -> bool {
        match self.names.binary_search(&name) {
            Ok(at) => !std::mem::replace(&mut self.handled[at], true),
            Err(_) => false,
        }
    }
}
