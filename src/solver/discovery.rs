//! Which names a question reaches, and in which order (solver.md, 4.3).
//!
//! The walk is depth first over names that may be hundreds of thousands deep, so it keeps its own
//! stack. It loads the universe as it goes and must touch nothing that the question does not
//! reach.

use super::flags::Flags;
use super::universe::{NameId, PackageId, Universe};

/// What the walk found out.
#[derive(Default)]
pub(super) struct Discovery {
    /// For each name its rank, 0 if it was not discovered; the higher ranks are decided first.
    pub(super) ranks: Vec<u64>,
    /// For each name whether all packages that offer it can never be triggered.
    pub(super) hopeless: Vec<bool>,
    /// For each package whether it was reached.
    pub(super) reached: Vec<bool>,
}

const MARKED: u64 = 1 << 33;
const OFFERS_ITSELF: u64 = 1 << 32;

/// Where the walk is within one name.
#[derive(Clone, Copy)]
enum Stage {
    Depends,
    Triggers,
    Provides,
    InstallIf,
}

#[derive(Clone, Copy)]
struct Frame {
    name: NameId,
    stage: Stage,
    offer: u32,
    at: u32,
}

struct Walk<'w, 'a> {
    universe: &'w mut Universe<'a>,
    marked: &'w [NameId],
    global: Flags,
    seen: Vec<bool>,
    counter: u64,
    found: Discovery,
    stack: Vec<Frame>,
}

/// Discovers everything that the given names reach, in order. `marked` are the names that the
/// command line gives flags to.
pub(super) fn discover(
    universe: &mut Universe<'_>,
    start: impl Iterator<Item = NameId>,
    marked: &[NameId],
    global: Flags,
) -> Discovery {
    let mut walk = Walk {
        universe,
        marked,
        global,
        seen: Vec::new(),
        counter: 0,
        found: Discovery::default(),
        stack: Vec::new(),
    };
    for name in start {
        walk.enter(name);
        while let Some(frame) = walk.stack.pop() {
            walk.advance(frame);
        }
    }
    let Walk {
        universe,
        mut found,
        ..
    } = walk;
    found.ranks.resize(universe.name_count(), 0);
    found.hopeless.resize(universe.name_count(), false);
    found.reached.resize(universe.package_count(), false);
    found
}

impl Walk<'_, '_> {
    /// Starts a name unless it is already discovered; returns whether it did.
    fn enter(&mut self, name: NameId) -> bool {
        let at = name.0 as usize;
        if at >= self.seen.len() {
            self.seen
                .resize(self.universe.name_count().max(at + 1), false);
        }
        if std::mem::replace(&mut self.seen[at], true) {
            return false;
        }
        self.universe.load_offers(name);
        self.stack.push(Frame {
            name,
            stage: Stage::Depends,
            offer: 0,
            at: 0,
        });
        true
    }

    /// Continues one name until it needs another one first, which is then on top of the stack.
    fn advance(&mut self, mut frame: Frame) {
        let offers = self.universe.load_offers(frame.name);
        let base = self.stack.len();
        self.stack.push(frame);
        if matches!(frame.stage, Stage::Depends) {
            while frame.offer < offers.len() as u32 {
                let package = self.universe.offer_at(offers.start + frame.offer).package;
                if frame.at == 0 && !self.reach(package) {
                    frame.offer += 1;
                    continue;
                }
                // `at` is one more than the position, so that 0 means "not begun".
                frame.at = frame.at.max(1);
                while let Some(name) = self
                    .universe
                    .depend_names(package)
                    .get(frame.at as usize - 1)
                    .copied()
                {
                    frame.at += 1;
                    if self.enter(name) {
                        self.stack[base] = frame;
                        return;
                    }
                }
                frame.offer += 1;
                frame.at = 0;
            }
            self.note_hopeless(frame.name);
            (frame.stage, frame.offer, frame.at) = (Stage::Triggers, 0, 0);
        }
        if matches!(frame.stage, Stage::Triggers) {
            if self.enter_triggers(frame.name, &mut frame.at) {
                self.stack[base] = frame;
                return;
            }
            (frame.stage, frame.offer, frame.at) = (Stage::Provides, 0, 0);
        }
        if matches!(frame.stage, Stage::Provides) {
            while frame.offer < offers.len() as u32 {
                let package = self.universe.offer_at(offers.start + frame.offer).package;
                if self.enter_offered(package, &mut frame.at) {
                    self.stack[base] = frame;
                    return;
                }
                frame.offer += 1;
                frame.at = 0;
            }
            self.number(frame.name);
            (frame.stage, frame.offer, frame.at) = (Stage::InstallIf, 0, 0);
        }
        while frame.offer < offers.len() as u32 {
            let package = self.universe.offer_at(offers.start + frame.offer).package;
            while let Some(name) = self
                .universe
                .install_if_names(package)
                .get(frame.at as usize)
                .copied()
            {
                frame.at += 1;
                if self.enter(name) {
                    self.stack[base] = frame;
                    return;
                }
            }
            frame.offer += 1;
            frame.at = 0;
        }
        self.stack.truncate(base);
    }

    /// Enters the next undiscovered name that `name` may trigger.
    fn enter_triggers(&mut self, name: NameId, at: &mut u32) -> bool {
        let list = self.universe.load_triggers(name);
        while *at < list.len() as u32 {
            let triggered = self.universe.trigger_at(list.start + *at);
            *at += 1;
            if self.enter(triggered) {
                return true;
            }
        }
        false
    }

    /// Enters the next undiscovered name that the package's own name may trigger or that it
    /// provides.
    fn enter_offered(&mut self, package: PackageId, at: &mut u32) -> bool {
        let own = self.universe.own_name(package);
        let list = self.universe.load_triggers(own);
        if *at < list.len() as u32 && self.enter_triggers(own, at) {
            return true;
        }
        while let Some(name) = self
            .universe
            .provide_names(package)
            .get(*at as usize - list.len())
            .copied()
        {
            *at += 1;
            if self.enter(name) {
                return true;
            }
        }
        false
    }

    /// Marks a package as reached; returns whether it was not before.
    fn reach(&mut self, package: PackageId) -> bool {
        let at = package.0 as usize;
        if at >= self.found.reached.len() {
            let count = self.universe.package_count();
            self.found.reached.resize(count, false);
        }
        if std::mem::replace(&mut self.found.reached[at], true) {
            return false;
        }
        self.universe.load_lists(package);
        // Decisions and reports look at what else answers to the own name.
        self.universe.load_rivals(self.universe.own_name(package));
        true
    }

    fn note_hopeless(&mut self, name: NameId) {
        let universe = &*self.universe;
        let mut offers = universe.offers(name).iter();
        let hopeless = offers.all(|offer| never_triggers(universe, offer.package, self.global));
        let at = name.0 as usize;
        if at >= self.found.hopeless.len() {
            self.found.hopeless.resize(universe.name_count(), false);
        }
        self.found.hopeless[at] = hopeless;
    }

    fn number(&mut self, name: NameId) {
        self.counter += 1;
        let universe = &*self.universe;
        let mut rank = self.counter;
        if self.marked.contains(&name) {
            rank |= MARKED;
        }
        let mut offers = universe.offers(name).iter();
        if offers.any(|offer| universe.own_name(offer.package) == name) {
            rank |= OFFERS_ITSELF;
        }
        let at = name.0 as usize;
        if at >= self.found.ranks.len() {
            self.found.ranks.resize(universe.name_count(), 0);
        }
        self.found.ranks[at] = rank;
    }
}

/// Returns whether install_if can not make a package wanted in this run.
pub(super) fn never_triggers(universe: &Universe<'_>, package: PackageId, global: Flags) -> bool {
    universe.record(package).install_if_names().len() == 0
        || (global.contains(Flags::AVAILABLE) && !universe.is_reachable(package))
}
