//! From decisions to an ordered list of changes (solver.md, 4.10).
//!
//! The rules are written as procedures that call each other. A chain of dependencies can be as
//! long as a repository, so the calls are kept on a stack of our own: each [`Task`] does one step
//! and puts what must happen next on top.

use super::ids::{NameId, PackageId, TagId};
use super::links::Links;
use super::search::{Search, meets};
use super::state::Owner;
use super::universe::{Need, Offer, Universe};
use std::collections::HashMap;

/// One package before and after.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Change {
    /// The installed package.
    pub old: Option<PackageId>,
    /// The package afterwards.
    pub new: Option<PackageId>,
    /// The tag recorded for `old`.
    pub old_tag: TagId,
    /// The tag to record for `new`.
    pub new_tag: TagId,
    /// `new` was asked to be installed again.
    pub reinstall: bool,
}

#[derive(Clone, Copy, Default)]
struct NameState {
    installed: Option<PackageId>,
    holder: Option<NameId>,
    /// apk counts in 16 bits and lets them wrap.
    keep: u16,
    done: bool,
    removed: bool,
}

/// One step. Positions count upwards through a list; the step puts its successor back first.
#[derive(Clone, Copy)]
enum Task {
    /// A dependency of a package, by position.
    Visit(PackageId, u32),
    MarkIfBad(PackageId, PackageId),
    Handle(NameId),
    HandleOwner(NameId),
    BeforeNew(PackageId, Option<PackageId>),
    Replace(PackageId, Option<PackageId>),
    Keep(PackageId, Option<PackageId>),
    Prepare(NameId),
    PrepareProvided(PackageId, u32),
    PrepareOffer(NameId, u32),
    Remove(PackageId),
    /// Among the offers of a dependent (first number) its offer (second number).
    RemoveDependents(PackageId, NameId, u32, u32),
    RemoveNames(PackageId, u32),
    Purge(PackageId),
    Release(PackageId, u32),
    CheckRemovals(PackageId, u32),
    CheckRemovalOf(NameId, u32),
    CheckInstalls(PackageId, u32),
    CheckInstallOf(NameId, u32),
}

struct Changes<'s, 'u> {
    search: &'s mut Search<'u>,
    links: &'s Links<'u>,
    universe: &'u Universe<'u>,
    /// What differs from the initial state.
    names: HashMap<NameId, NameState, foldhash::fast::RandomState>,
    scheduled: Vec<bool>,
    tasks: Vec<Task>,
    list: Vec<Change>,
}

/// Returns how a package answers a dependency of `from` (solver.md, 6.5); `None` if it is not
/// concerned.
pub(super) fn answer(
    universe: &Universe<'_>,
    need: &Need<'_>,
    from: Option<PackageId>,
    package: PackageId,
) -> Option<bool> {
    if universe.own_name(package) == need.name {
        let version = universe.version(package);
        return Some(need.accepts(version, || universe.identity(package)));
    }
    let provided = universe.provides(package).find(|p| p.name == need.name)?;
    let owner = Owner {
        package,
        version: provided.version,
    };
    Some(meets(universe, need, from, Some(owner)))
}

/// Makes the change list of a finished search.
pub(super) fn changes<'u>(search: &mut Search<'u>, links: &Links<'u>) -> Vec<Change> {
    let universe = search.universe;
    let mut changes = Changes {
        names: HashMap::default(),
        scheduled: vec![false; universe.package_count()],
        tasks: Vec::new(),
        list: Vec::new(),
        universe,
        search,
        links,
    };
    changes.run();
    changes.list
}

impl<'u> Changes<'_, 'u> {
    fn run(&mut self) {
        let universe = self.universe;
        let installed = universe.installed();
        for package in installed {
            let own = universe.own_name(*package);
            self.name(own).installed = Some(*package);
            self.name(own).holder = Some(own);
            for provided in universe.provides(*package) {
                if !provided.version.is_empty() {
                    self.name(provided.name).holder = Some(own);
                }
            }
        }
        for package in installed {
            self.keep(*package);
        }
        for package in installed {
            let own = universe.own_name(*package);
            if self.name(own).keep == 0 && self.owner(own).is_none() {
                self.perform(Task::Remove(*package));
            }
        }
        for at in 0..self.search.world.len() {
            let need = self.search.world[at].need;
            if !(need.conflict && self.search.ignores_conflicts()) {
                self.perform(Task::Handle(need.name));
            }
        }
        for package in installed {
            self.perform(Task::Handle(universe.own_name(*package)));
        }
    }

    fn name(&mut self, name: NameId) -> &mut NameState {
        self.names.entry(name).or_default()
    }

    fn owner(&self, name: NameId) -> Option<PackageId> {
        self.search.owner(name).map(|owner| owner.package)
    }

    fn offer(&self, name: NameId, at: u32) -> Option<Offer> {
        self.universe.offers(name).get(at as usize).copied()
    }

    /// The own name and then the provided names, by position.
    fn offered(&self, package: PackageId, at: u32) -> Option<NameId> {
        match at.checked_sub(1) {
            None => Some(self.universe.own_name(package)),
            Some(at) => self
                .universe
                .provide_names(package)
                .get(at as usize)
                .copied(),
        }
    }

    /// Performs a task and everything that follows from it.
    fn perform(&mut self, task: Task) {
        self.tasks.push(task);
        while let Some(task) = self.tasks.pop() {
            self.step(task);
        }
    }

    fn step(&mut self, task: Task) {
        match task {
            Task::Visit(from, at) => self.visit(from, at),
            Task::MarkIfBad(package, from) => {
                if self.search.is_bad(package) {
                    self.search.mark_bad(Some(from));
                }
            }
            Task::Handle(name) => {
                if !self.name(name).done {
                    self.tasks
                        .extend([Task::HandleOwner(name), Task::Prepare(name)]);
                }
            }
            Task::HandleOwner(name) => self.handle_owner(name),
            Task::BeforeNew(new, old) => {
                self.tasks
                    .extend([Task::Replace(new, old), Task::Visit(new, 0)]);
                if let Some(old) = old {
                    self.tasks.push(Task::CheckRemovals(old, 0));
                }
            }
            Task::Replace(new, old) => {
                self.record(old, Some(new));
                self.tasks
                    .extend([Task::Keep(new, old), Task::CheckInstalls(new, 0)]);
            }
            Task::Keep(new, old) => {
                self.keep(new);
                if let Some(old) = old {
                    self.tasks.push(Task::Release(old, 0));
                }
            }
            Task::Prepare(name) => self.prepare(name),
            Task::PrepareProvided(package, at) => {
                if let Some(name) = self.universe.provide_names(package).get(at as usize) {
                    self.tasks.push(Task::PrepareProvided(package, at + 1));
                    self.tasks.push(Task::Prepare(*name));
                }
            }
            Task::PrepareOffer(name, at) => self.prepare_offer(name, at),
            Task::Remove(package) => self.remove(package),
            Task::RemoveNames(package, at) => {
                if let Some(name) = self.offered(package, at) {
                    self.tasks.push(Task::RemoveNames(package, at + 1));
                    self.tasks.push(Task::RemoveDependents(package, name, 0, 0));
                }
            }
            Task::RemoveDependents(package, name, dependent, offer) => {
                self.remove_dependents(package, name, dependent, offer);
            }
            Task::Purge(package) => {
                self.record(Some(package), None);
                self.tasks.push(Task::Release(package, 0));
            }
            Task::Release(package, at) => self.release(package, at),
            Task::CheckRemovals(package, at) => {
                if let Some(name) = self.offered(package, at) {
                    self.tasks.push(Task::CheckRemovals(package, at + 1));
                    self.tasks.push(Task::CheckRemovalOf(name, 0));
                }
            }
            Task::CheckRemovalOf(name, at) => {
                if let Some(triggered) = self.universe.triggers(name).get(at as usize) {
                    self.tasks.push(Task::CheckRemovalOf(name, at + 1));
                    self.check_removal(*triggered);
                }
            }
            Task::CheckInstalls(package, at) => {
                if let Some(name) = self.offered(package, at) {
                    self.tasks.push(Task::CheckInstalls(package, at + 1));
                    self.tasks.push(Task::CheckInstallOf(name, 0));
                }
            }
            Task::CheckInstallOf(name, at) => {
                if let Some(triggered) = self.universe.triggers(name).get(at as usize) {
                    self.tasks.push(Task::CheckInstallOf(name, at + 1));
                    self.check_install(*triggered);
                }
            }
        }
    }

    fn visit(&mut self, from: PackageId, at: u32) {
        let Some(need) = self.universe.depend_at(from, at) else {
            return;
        };
        self.tasks.push(Task::Visit(from, at + 1));
        if need.conflict && self.search.ignores_conflicts() {
            return;
        }
        let owner = self.search.owner(need.name);
        if !self.search.meets(&need, Some(from), owner) {
            self.search.mark_bad(Some(from));
        }
        if let Some(owner) = owner {
            self.tasks.push(Task::MarkIfBad(owner.package, from));
        }
        self.tasks.push(Task::Handle(need.name));
    }

    fn handle_owner(&mut self, name: NameId) {
        let Some(package) = self.owner(name) else {
            return;
        };
        if std::mem::replace(&mut self.scheduled[package.0 as usize], true) {
            return;
        }
        let own = self.universe.own_name(package);
        // What is installed under a name never changes during the pass.
        let old = self.name(own).installed;
        self.tasks.extend([
            Task::BeforeNew(package, old),
            Task::PrepareProvided(package, 0),
            Task::Prepare(own),
        ]);
    }

    fn prepare(&mut self, name: NameId) {
        if std::mem::replace(&mut self.name(name).done, true) {
            return;
        }
        self.tasks.push(Task::PrepareOffer(name, 0));
        if let Some(installed) = self.name(name).installed {
            let own_name_stays = self
                .owner(name)
                .is_some_and(|package| self.universe.own_name(package) == name);
            if !own_name_stays {
                self.tasks.push(Task::Remove(installed));
            }
        }
    }

    fn prepare_offer(&mut self, name: NameId, at: u32) {
        let Some(offer) = self.offer(name, at) else {
            return;
        };
        self.tasks.push(Task::PrepareOffer(name, at + 1));
        let own = self.universe.own_name(offer.package);
        if self.name(own).installed == Some(offer.package) && self.owner(own).is_none() {
            self.tasks.push(Task::Remove(offer.package));
        }
    }

    fn remove(&mut self, package: PackageId) {
        let own = self.universe.own_name(package);
        let own_name_stays = self
            .owner(own)
            .is_some_and(|owner| self.universe.own_name(owner) == own);
        if self.scheduled[package.0 as usize] || own_name_stays {
            return;
        }
        self.name(own).removed = true;
        self.scheduled[package.0 as usize] = true;
        self.tasks.extend([
            Task::Purge(package),
            Task::CheckRemovals(package, 0),
            Task::RemoveNames(package, 0),
        ]);
    }

    fn remove_dependents(&mut self, package: PackageId, name: NameId, dependent: u32, offer: u32) {
        let universe = self.universe;
        let dependents = self.links.dependents(name);
        let Some(other) = dependents.get(dependent as usize) else {
            return;
        };
        let Some(found) = self.offer(*other, offer) else {
            self.tasks
                .push(Task::RemoveDependents(package, name, dependent + 1, 0));
            return;
        };
        self.tasks
            .push(Task::RemoveDependents(package, name, dependent, offer + 1));
        let holder = found.package;
        let depends_on_it =
            |need: Need<'_>| answer(universe, &need, Some(holder), package) == Some(true);
        if universe.is_installed(holder) && universe.depends(holder).any(depends_on_it) {
            self.tasks.push(Task::Remove(holder));
        }
    }

    fn release(&mut self, package: PackageId, at: u32) {
        let Some(need) = self.universe.depend_at(package, at) else {
            return;
        };
        self.tasks.push(Task::Release(package, at + 1));
        let Some(holder) = self.name(need.name).holder.filter(|_| !need.conflict) else {
            return;
        };
        let state = self.name(holder);
        state.keep = state.keep.wrapping_sub(1);
        if state.keep == 0
            && let Some(installed) = self.name(need.name).installed
        {
            self.tasks.push(Task::Remove(installed));
        }
    }

    fn keep(&mut self, package: PackageId) {
        let universe = self.universe;
        for need in universe.depends(package) {
            let holder = self.name(need.name).holder.filter(|_| !need.conflict);
            if let Some(holder) = holder {
                let state = self.name(holder);
                state.keep = state.keep.wrapping_add(1);
            }
        }
    }

    fn check_install(&mut self, name: NameId) {
        let universe = self.universe;
        let Some(package) = self.owner(name) else {
            return;
        };
        if !self.search.is_discovered(name) || self.name(name).done {
            return;
        }
        for need in universe.install_if(package) {
            let waits = !need.conflict && !self.name(need.name).done;
            let owner = self.search.owner(need.name);
            if waits || !self.search.meets(&need, Some(package), owner) {
                return;
            }
        }
        self.tasks.push(Task::Handle(name));
    }

    fn check_removal(&mut self, name: NameId) {
        let universe = self.universe;
        let state = *self.name(name);
        let Some(package) = state.installed else {
            return;
        };
        if self.owner(name).is_some() || state.done || state.removed {
            return;
        }
        for need in universe.install_if(package) {
            if self.name(need.name).removed && self.owner(need.name).is_none() {
                if state.keep == 0 {
                    self.tasks.push(Task::Remove(package));
                }
                return;
            }
        }
    }

    fn record(&mut self, old: Option<PackageId>, new: Option<PackageId>) {
        let (universe, search) = (self.universe, &*self.search);
        self.list.push(Change {
            old,
            new,
            old_tag: old.map_or(TagId::DEFAULT, |p| universe.installed_tag(p)),
            new_tag: new.map_or(TagId::DEFAULT, |p| search.resulting_tag(p)),
            reinstall: new.is_some_and(|p| search.is_reinstall(p)),
        });
    }
}
