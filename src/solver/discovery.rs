//! Which names a question reaches, and in which order (solver.md, 4.3).
//!
//! The walk is depth first over names that may be hundreds of thousands deep, so it keeps its own
//! stack. It must touch nothing that the question does not reach.

use super::ids::{NameId, PackageId};
use super::universe::{Offer, Universe};

/// For each name its rank, 0 if it was not discovered; the higher ranks are decided first. Names
/// beyond the end were not discovered, either.
pub(super) type Ranks = Vec<u32>;

const MARKED: u32 = 1 << 31;
const OFFERS_ITSELF: u32 = 1 << 30;
/// What a name has between being entered and being numbered.
const ENTERED: u32 = 1 << 29;

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

/// What was done with a package, as bits.
const REACHED: u8 = 1;
/// All that it offers was entered, and what its own name triggers.
const OFFERS_ENTERED: u8 = 2;
/// All its install_if conditions were entered.
const CONDITIONS_ENTERED: u8 = 4;

struct Walk<'w, 'a> {
    universe: &'w Universe<'a>,
    counter: u32,
    ranks: Ranks,
    /// What was done with each package: a name is never left, so once is enough.
    done: Vec<u8>,
    stack: Vec<Frame>,
}

/// Discovers everything that the given names reach, in order. `marked` are the names that the
/// command line gives flags to.
pub(super) fn discover(
    universe: &Universe<'_>,
    start: impl Iterator<Item = NameId>,
    marked: &[NameId],
) -> Ranks {
    let mut walk = Walk {
        ranks: vec![0; universe.name_count()],
        done: vec![0; universe.package_count()],
        universe,
        counter: 0,
        stack: Vec::new(),
    };
    for name in marked {
        walk.ranks[name.0 as usize] = MARKED;
    }
    for name in start {
        walk.enter(name);
        while let Some(frame) = walk.stack.pop() {
            walk.advance(frame);
        }
    }
    for name in marked {
        let rank = &mut walk.ranks[name.0 as usize];
        if *rank == MARKED {
            *rank = 0;
        }
    }
    walk.ranks
}

impl Walk<'_, '_> {
    /// Starts a name unless it is already discovered; returns whether it did.
    fn enter(&mut self, name: NameId) -> bool {
        let rank = &mut self.ranks[name.0 as usize];
        if *rank & !MARKED != 0 {
            return false;
        }
        *rank |= ENTERED;
        self.stack.push(Frame {
            name,
            stage: Stage::Depends,
            offer: 0,
            at: 0,
        });
        true
    }

    /// Enters the next undiscovered one of the names from a position on, which it moves; returns
    /// whether there was one.
    fn enter_next(&mut self, names: &[NameId], at: &mut u32) -> bool {
        let rest = names.get(*at as usize..).unwrap_or_default();
        for name in rest {
            *at += 1;
            if self.enter(*name) {
                return true;
            }
        }
        false
    }

    /// Continues one name until it needs another one first, which is then on top of the stack.
    fn advance(&mut self, mut frame: Frame) {
        let universe = self.universe;
        let offers = universe.offers(frame.name);
        let base = self.stack.len();
        self.stack.push(frame);
        if matches!(frame.stage, Stage::Depends) {
            while let Some(offer) = offers.get(frame.offer as usize) {
                let package = offer.package;
                // A package that is continued is reached already.
                if (frame.at != 0 || self.is_new(package, REACHED))
                    && self.enter_next(universe.depend_names(package), &mut frame.at)
                {
                    self.stack[base] = frame;
                    return;
                }
                frame.offer += 1;
                frame.at = 0;
            }
            (frame.stage, frame.offer, frame.at) = (Stage::Triggers, 0, 0);
        }
        if matches!(frame.stage, Stage::Triggers) {
            if self.enter_next(universe.triggers(frame.name), &mut frame.at) {
                self.stack[base] = frame;
                return;
            }
            (frame.stage, frame.offer, frame.at) = (Stage::Provides, 0, 0);
        }
        if matches!(frame.stage, Stage::Provides) {
            while let Some(offer) = offers.get(frame.offer as usize) {
                let package = offer.package;
                if self.done[package.0 as usize] & OFFERS_ENTERED == 0 {
                    if self.enter_offered(package, &mut frame.at) {
                        self.stack[base] = frame;
                        return;
                    }
                    self.is_new(package, OFFERS_ENTERED);
                }
                frame.offer += 1;
                frame.at = 0;
            }
            self.number(frame.name, offers);
            (frame.stage, frame.offer, frame.at) = (Stage::InstallIf, 0, 0);
        }
        while let Some(offer) = offers.get(frame.offer as usize) {
            let package = offer.package;
            if self.done[package.0 as usize] & CONDITIONS_ENTERED == 0 {
                if self.enter_next(universe.install_if_names(package), &mut frame.at) {
                    self.stack[base] = frame;
                    return;
                }
                self.is_new(package, CONDITIONS_ENTERED);
            }
            frame.offer += 1;
            frame.at = 0;
        }
        self.stack.truncate(base);
    }

    /// Enters the next undiscovered name that the package's own name may trigger or that it
    /// provides.
    fn enter_offered(&mut self, package: PackageId, at: &mut u32) -> bool {
        let universe = self.universe;
        let triggers = universe.triggers(universe.own_name(package));
        if self.enter_next(triggers, at) {
            return true;
        }
        let mut provided = *at - triggers.len() as u32;
        let entered = self.enter_next(universe.provide_names(package), &mut provided);
        *at = provided + triggers.len() as u32;
        entered
    }

    /// Notes what is done with a package; returns whether it was not before.
    fn is_new(&mut self, package: PackageId, what: u8) -> bool {
        let done = &mut self.done[package.0 as usize];
        let before = *done;
        *done |= what;
        before & what == 0
    }

    fn number(&mut self, name: NameId, offers: &[Offer]) {
        self.counter += 1;
        let rank = &mut self.ranks[name.0 as usize];
        *rank = (*rank & MARKED) | self.counter;
        if offers.iter().any(|offer| offer.is_own()) {
            *rank |= OFFERS_ITSELF;
        }
    }
}
