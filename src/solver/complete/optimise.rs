//! Choosing the best answer: fewest changes to what is installed, then apk's ranking, then fewest
//! new packages.
//!
//! Each preference is settled before the next is looked at. Whether there is an answer at all is
//! decided without limit; each step towards a better one has a budget, so the whole ends.

use super::super::Flags;
use super::encode::Encoding;
use super::model::{Model, NeedId};
use super::rank::Ranking;
use super::sat::{Answer, Lit, Search, Wishes};
use crate::package::Version;
use std::collections::{HashMap, HashSet, VecDeque};

/// Conflicts that one step towards a better answer may use up.
const STEP_BUDGET: u64 = 2_000;
/// Conflicts that all steps together may use up.
const TOTAL_BUDGET: u64 = 60_000;

/// Finds the preferred selection; `None` if there is none at all.
pub(super) fn best(model: &Model<'_>, mut encoding: Encoding<'_>) -> Option<Vec<usize>> {
    if encoding.search(&[]) != Answer::Yes {
        return None;
    }
    let selection = encoding.selection();
    let mut optimiser = Optimiser {
        model,
        end: encoding.sat.conflicts() + TOTAL_BUDGET,
        encoding,
        ranking: Ranking::new(model),
        fixed: Vec::new(),
        selected: selection.into_iter().collect(),
        chosen: HashSet::new(),
        refuted: HashSet::new(),
    };
    optimiser.keep_installed();
    optimiser.rank();
    optimiser.drop_idle();
    let mut selection: Vec<usize> = optimiser.selected.into_iter().collect();
    selection.sort_unstable();
    Some(selection)
}

/// Needs that wait for a decision, each once.
#[derive(Default)]
struct Queue {
    seen: HashSet<NeedId>,
    /// On names that have a package of their own.
    concrete: Vec<NeedId>,
    virtuals: VecDeque<NeedId>,
}

impl Queue {
    fn add(&mut self, model: &Model<'_>, needs: &[NeedId]) {
        for need in needs {
            if !self.seen.insert(*need) {
                continue;
            }
            let name = model.need_info(*need).name;
            let mut offers = model.offers_of(name).iter();
            if offers.any(|offer| model.own[offer.candidate] == name) {
                self.concrete.push(*need);
            } else {
                self.virtuals.push_back(*need);
            }
        }
    }
}

struct Optimiser<'m> {
    model: &'m Model<'m>,
    encoding: Encoding<'m>,
    ranking: Ranking<'m>,
    /// The conflict count at which no better answer is sought any more.
    end: u64,
    /// What was decided so far.
    fixed: Vec<Lit>,
    /// The best answer so far; it agrees with `fixed`.
    selected: HashSet<usize>,
    /// Candidates that were decided for.
    chosen: HashSet<usize>,
    /// Candidates that were decided against.
    refuted: HashSet<usize>,
}

impl Optimiser<'_> {
    /// Looks for an answer that also has these; takes it if there is one.
    fn attempt(&mut self, wishes: &[Lit]) -> bool {
        let mut assumptions = self.fixed.clone();
        assumptions.extend(wishes);
        let left = self.end.saturating_sub(self.encoding.sat.conflicts());
        self.encoding.budget = Some(left.min(STEP_BUDGET));
        let found = self.encoding.search(&assumptions) == Answer::Yes;
        if found {
            self.fixed = assumptions;
            self.selected = self.encoding.selection().into_iter().collect();
        }
        found
    }

    /// Keeps what is installed: as few removals as possible, then as few downgrades, then as few
    /// other changes of version.
    fn keep_installed(&mut self) {
        let moving = self.moving();
        let installed: Vec<usize> = (0..self.model.problem.candidates.len())
            .filter(|at| self.model.candidate(*at).installed)
            .collect();
        let mut removals = Vec::new();
        let mut downgrades = Vec::new();
        let mut changes = Vec::new();
        for at in installed {
            let flags = self.model.candidate(at).flags | self.model.problem.flags;
            if !flags.contains(Flags::REMOVE) {
                removals.extend(self.no_removal(at));
            }
            let gone = flags.contains(Flags::AVAILABLE) && !self.model.candidate(at).reachable;
            if !gone {
                downgrades.extend(self.no_other_version(at, &|order| order.is_lt()));
                let stays = !moving[at];
                let counts = |order: std::cmp::Ordering| order.is_gt() && stays || order.is_eq();
                changes.extend(self.no_other_version(at, &counts));
            }
        }
        for wishes in [removals, downgrades, changes] {
            self.fulfil(wishes);
        }
    }

    /// Breaks as few of these wishes as possible.
    fn fulfil(&mut self, wishes: Vec<Lit>) {
        if wishes.is_empty() {
            return;
        }
        let mut group = Wishes::new(wishes.clone());
        let left = self.end.saturating_sub(self.encoding.sat.conflicts());
        self.encoding.budget = Some(left.min(STEP_BUDGET));
        if group.fulfil(&mut self.encoding, &self.fixed) == Answer::Yes {
            self.fixed.extend(group.assumed);
            self.selected = self.encoding.selection().into_iter().collect();
            return;
        }
        // Too hard to do as well as possible: one after the other.
        for wish in wishes {
            self.attempt(&[wish]);
        }
    }

    /// Returns which installed packages are asked to change, by name or through what needs them.
    fn moving(&self) -> Vec<bool> {
        let newest = |flags: Flags| flags.contains(Flags::UPGRADE) || flags.contains(Flags::LATEST);
        let problem = self.model.problem;
        let count = problem.candidates.len();
        if newest(problem.flags) {
            return vec![true; count];
        }
        let flagged = |at: &usize| newest(self.model.candidate(*at).flags);
        let mut moving: Vec<bool> = (0..count).map(|at| flagged(&at)).collect();
        let mut handing: Vec<bool> = vec![false; count];
        let mut open: Vec<usize> = (0..count)
            .filter(|at| newest(self.model.candidate(*at).heritable))
            .collect();
        while let Some(at) = open.pop() {
            if std::mem::replace(&mut handing[at], true) {
                continue;
            }
            moving[at] = true;
            let needs = self.model.depends[at].iter();
            let answers = needs.flat_map(|need| &self.model.need_info(*need).answers);
            open.extend(answers.map(|answer| answer.candidate));
        }
        moving
    }

    /// Returns a wish: as long as something that the package answers is asked for, a package of
    /// its name stays. (What nothing asks for any more may go.)
    fn no_removal(&mut self, at: usize) -> Option<Lit> {
        let model = self.model;
        let own = model.own[at];
        let same = |candidate: usize| model.own[candidate] == own;
        let versions = model.offers_of(own).iter().map(|offer| offer.candidate);
        let versions: Vec<Lit> = versions
            .filter(|candidate| same(*candidate))
            .filter_map(|candidate| self.encoding.literal(candidate))
            .collect();
        if versions.is_empty() {
            return None;
        }
        let removed = self.encoding.sat.literal(false);
        let mut counts = false;
        let mut names: Vec<_> = vec![model.candidate(at).name];
        names.extend(model.candidate(at).provides.iter().map(|(name, _)| *name));
        for need in model.needs_on(&names) {
            let info = model.need_info(need);
            let answered = info.answers.iter().any(|answer| answer.candidate == at);
            if info.need.conflict
                || !answered
                || info.answers.iter().all(|answer| same(answer.candidate))
            {
                continue;
            }
            let askers = info.askers.iter().filter(|asker| !same(**asker));
            let askers: Vec<Lit> = askers
                .filter_map(|asker| self.encoding.literal(*asker))
                .collect();
            for front in askers
                .into_iter()
                .map(|asker| vec![!asker])
                .chain(info.in_world.then(Vec::new))
            {
                let clause = front.into_iter().chain(versions.iter().copied());
                self.encoding.sat.clause(clause.chain([removed]));
                counts = true;
            }
        }
        if let Some(unmet) = self.unmet_conditions(at) {
            let clause = unmet.into_iter().chain(versions.iter().copied());
            self.encoding.sat.clause(clause.chain([removed]));
            counts = true;
        }
        counts.then_some(!removed)
    }

    /// Returns literals of which one is true unless the install_if of a package is fulfilled;
    /// `None` if it never is.
    fn unmet_conditions(&mut self, at: usize) -> Option<Vec<Lit>> {
        let model = self.model;
        if model.install_if[at].is_empty() {
            return None;
        }
        let mut unmet = Vec::new();
        for need in &model.install_if[at] {
            let info = model.need_info(*need);
            let answers = info.answers.iter().map(|answer| answer.candidate);
            let literals = |list: &mut dyn Iterator<Item = usize>| -> Vec<Lit> {
                list.filter_map(|at| self.encoding.literal(at)).collect()
            };
            if info.need.conflict {
                unmet.extend(literals(
                    &mut info.violators.iter().copied().filter(|v| *v != at),
                ));
            } else {
                let answers = literals(&mut answers.into_iter());
                if answers.is_empty() {
                    return None;
                }
                unmet.push(!self.encoding.sat.any_of(&answers));
            }
        }
        Some(unmet)
    }

    /// Returns a wish: no other package of the same name whose version compares as given.
    fn no_other_version(
        &mut self,
        at: usize,
        counts: &dyn Fn(std::cmp::Ordering) -> bool,
    ) -> Option<Lit> {
        let model = self.model;
        let own = model.own[at];
        let installed = Version(model.candidate(at).version);
        let others = model.offers_of(own).iter().map(|offer| offer.candidate);
        let others = others.filter(|other| *other != at && model.own[*other] == own);
        let others = others
            .filter(|other| counts(Version(model.candidate(*other).version).compare(installed)));
        let others: Vec<Lit> = others
            .filter_map(|other| self.encoding.literal(other))
            .collect();
        (!others.is_empty()).then(|| !self.encoding.sat.any_of(&others))
    }

    /// Goes through what is asked for, from the world down, and takes the best candidate that
    /// leaves an answer. Names without a package of their own come when nothing else is open, so
    /// that what is asked for by name can answer them too.
    fn rank(&mut self) {
        let mut queue = Queue::default();
        queue.add(self.model, &self.model.world);
        loop {
            let chosen = if !queue.concrete.is_empty() {
                self.decide(std::mem::take(&mut queue.concrete))
            } else if let Some(need) = queue.virtuals.pop_front() {
                self.decide(vec![need])
            } else if let Some(triggered) = self.triggered() {
                vec![triggered]
            } else {
                return;
            };
            for at in chosen {
                self.ranking.inherit(at);
                queue.add(self.model, &self.model.depends[at]);
            }
        }
    }

    /// Chooses for a list of needs, earlier ones first; returns the new choices.
    ///
    /// The best candidates of many needs are tried at once; when they do not fit together, fewer
    /// are, until the one that must be decided differently is found.
    fn decide(&mut self, mut needs: Vec<NeedId>) -> Vec<usize> {
        let mut new = Vec::new();
        let mut width = needs.len();
        while !needs.is_empty() {
            let mut tops: Vec<(usize, usize)> = Vec::new();
            let mut settled = 0;
            for (position, need) in needs.iter().enumerate() {
                if tops.len() >= width {
                    break;
                }
                match self.top(*need, &tops) {
                    Some(top) => tops.push((position, top)),
                    None if tops.is_empty() => settled = position + 1,
                    None => {}
                }
            }
            if tops.is_empty() {
                needs.drain(..settled.max(1));
                continue;
            }
            // What the present answer has needs no search.
            let held = tops
                .iter()
                .take_while(|(_, top)| self.selected.contains(top));
            let held = held.count();
            let wishes = |list: &[(usize, usize)], encoding: &Encoding<'_>| -> Vec<Lit> {
                let literals = list.iter().filter_map(|(_, top)| encoding.literal(*top));
                literals.collect()
            };
            let taken = if held > 0 {
                self.fixed.extend(wishes(&tops[..held], &self.encoding));
                held
            } else if self.attempt(&wishes(&tops, &self.encoding)) {
                tops.len()
            } else {
                0
            };
            if taken > 0 {
                new.extend(tops[..taken].iter().map(|(_, top)| *top));
                self.chosen
                    .extend(tops[..taken].iter().map(|(_, top)| *top));
                needs.drain(..=tops[taken - 1].0);
                width = width.saturating_mul(2).max(1);
            } else if let [(_, only)] = tops[..] {
                self.refuted.insert(only);
            } else {
                width = tops.len() / 2;
            }
        }
        new
    }

    /// Returns the best candidate for a need that is not answered yet.
    fn top(&self, need: NeedId, tops: &[(usize, usize)]) -> Option<usize> {
        let info = self.model.need_info(need);
        let answers = info.answers.iter().map(|answer| answer.candidate);
        let answered =
            |at: usize| self.chosen.contains(&at) || tops.iter().any(|(_, top)| *top == at);
        if info.need.conflict || answers.clone().any(answered) {
            return None;
        }
        let free = |at: &usize| self.encoding.literal(*at).is_some() && !self.refuted.contains(at);
        // A bare offer without priority answers only if something else asks for its package.
        let strong = info.answers.iter().filter(|answer| answer.strong);
        let strong = strong.map(|answer| answer.candidate).filter(free);
        let best = self.ranking.best(info.name, &strong.collect::<Vec<_>>());
        best.or_else(|| {
            self.ranking
                .best(info.name, &answers.filter(free).collect::<Vec<_>>())
        })
    }

    /// Adds packages whose install_if is fulfilled by what was chosen, if they fit in.
    fn triggered(&mut self) -> Option<usize> {
        let model = self.model;
        let mut waiting: Vec<(usize, Vec<usize>)> = Vec::new();
        let mut position = HashMap::new();
        for at in 0..model.problem.candidates.len() {
            if self.encoding.literal(at).is_none() || !self.fulfilled(at) {
                continue;
            }
            let slot = *position.entry(model.own[at]).or_insert_with(|| {
                waiting.push((at, Vec::new()));
                waiting.len() - 1
            });
            waiting[slot].1.push(at);
        }
        for (first, candidates) in waiting {
            let name = model.own[first];
            let taken = |at: &usize| self.chosen.contains(at);
            if candidates.iter().any(taken) {
                continue;
            }
            let mut left: Vec<usize> = candidates;
            left.retain(|at| !self.refuted.contains(at));
            while let Some(best) = self.ranking.best(name, &left) {
                let literal = self.encoding.literal(best);
                let wish: Vec<Lit> = literal.into_iter().collect();
                if self.attempt(&wish) {
                    self.chosen.insert(best);
                    return Some(best);
                }
                self.refuted.insert(best);
                left.retain(|at| *at != best);
            }
        }
        None
    }

    /// Returns whether what was chosen so far fulfils the install_if of a candidate.
    fn fulfilled(&self, at: usize) -> bool {
        let conditions = &self.model.install_if[at];
        let holds = |need: &NeedId| {
            let info = self.model.need_info(*need);
            if info.need.conflict {
                let mut violators = info.violators.iter().filter(|v| **v != at);
                !violators.any(|v| self.chosen.contains(v))
            } else {
                let mut answers = info.answers.iter();
                answers.any(|answer| self.chosen.contains(&answer.candidate))
            }
        };
        !conditions.is_empty() && conditions.iter().all(holds)
    }

    /// Leaves out what answers nothing that is not answered already.
    fn drop_idle(&mut self) {
        let mut idle: Vec<usize> = self.selected.difference(&self.chosen).copied().collect();
        idle.sort_unstable();
        let without = |list: &[usize], encoding: &Encoding<'_>| -> Vec<Lit> {
            let literals = list.iter().filter_map(|at| encoding.literal(*at));
            literals.map(|literal| !literal).collect()
        };
        let all = without(&idle, &self.encoding);
        if idle.is_empty() || self.attempt(&all) {
            return;
        }
        for at in idle {
            let wish = without(&[at], &self.encoding);
            self.attempt(&wish);
        }
    }
}
