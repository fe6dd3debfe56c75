//! Which names a question reaches, and in which order (solver.md, 4.3).
//!
//! The walk is depth first over names that may be hundreds of thousands deep, so it keeps its own
//! stack. It loads the universe as it goes and must touch nothing that the question does not
//! reach.

use super::ids::{NameId, PackageId};
use super::universe::Universe;

/// For each name its rank, 0 if it was not discovered; the higher ranks are decided first. Names
/// beyond the end were not discovered, either.
pub(super) type Ranks = Vec<u64>;

const MARKED: u64 = 1 << 33;
const OFFERS_ITSELF: u64 = 1 << 32;
/// What a name has between being entered and being numbered.
const ENTERED: u64 = 1 << 34;

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
    counter: u64,
    ranks: Ranks,
    reached: Vec<bool>,
    stack: Vec<Frame>,
}

/// Discovers everything that the given names reach, in order. `marked` are the names that the
/// command line gives flags to.
pub(super) fn discover(
    universe: &mut Universe<'_>,
    start: impl Iterator<Item = NameId>,
    marked: &[NameId],
) -> Ranks {
    let mut walk = Walk {
        ranks: vec![0; universe.name_limit()],
        reached: vec![false; universe.package_limit()],
        universe,
        marked,
        counter: 0,
        stack: Vec::new(),
    };
    for name in start {
        walk.enter(name);
        while let Some(frame) = walk.stack.pop() {
            walk.advance(frame);
        }
    }
    walk.ranks
}

impl Walk<'_, '_> {
    /// Starts a name unless it is already discovered; returns whether it did.
    fn enter(&mut self, name: NameId) -> bool {
        let at = name.0 as usize;
        if at >= self.ranks.len() {
            self.ranks.resize(at + 1, 0);
        }
        if self.ranks[at] != 0 {
            return false;
        }
        self.ranks[at] = ENTERED;
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
        if std::mem::replace(&mut self.reached[package.0 as usize], true) {
            return false;
        }
        self.universe.load_lists(package);
        // Decisions and reports look at what else answers to the own name.
        self.universe.load_rivals(self.universe.own_name(package));
        true
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
        self.ranks[name.0 as usize] = rank;
    }
}
