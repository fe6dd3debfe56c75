//! apk's ranking of two candidates for one name (solver.md, 4.7), for packages that can be chosen.
//!
//! It is not an order: it may be cyclic. So the best of a list is found by going through it, as apk
//! does, and never by sorting.

use super::super::Flags;
use super::model::{Model, NameId};
use crate::package::Version;
use std::cmp::Ordering;

/// What the ranking knows besides the candidates.
pub(super) struct Ranking<'m> {
    model: &'m Model<'m>,
    /// Flags that each candidate has by now, inherited ones included.
    flags: Vec<Flags>,
    heritable: Vec<Flags>,
    /// The tag of the last world entry that each candidate meets.
    wanted_tag: Vec<Option<u8>>,
}

impl<'m> Ranking<'m> {
    pub(super) fn new(model: &'m Model<'m>) -> Self {
        let problem = model.problem;
        let all = problem.candidates.iter();
        let mut wanted_tag = vec![None; problem.candidates.len()];
        for (wanted, need) in problem.world.iter().zip(&model.world) {
            for answer in &model.need_info(*need).answers {
                wanted_tag[answer.candidate] = Some(wanted.tag);
            }
        }
        Self {
            model,
            flags: all.clone().map(|c| c.flags | problem.flags).collect(),
            heritable: all.map(|c| c.heritable | problem.flags).collect(),
            wanted_tag,
        }
    }

    /// Hands the flags of a selected package on to what answers its dependencies.
    pub(super) fn inherit(&mut self, from: usize) {
        let heritable = self.heritable[from];
        for need in &self.model.depends[from] {
            for answer in &self.model.need_info(*need).answers {
                let at = answer.candidate;
                self.flags[at] = self.flags[at] | heritable;
                self.heritable[at] = self.heritable[at] | heritable;
            }
        }
    }

    /// Returns the best of some candidates for a name; a tie keeps the earlier.
    pub(super) fn best(&self, name: NameId, candidates: &[usize]) -> Option<usize> {
        let mut candidates = candidates.iter().copied();
        let first = candidates.next()?;
        Some(candidates.fold(first, |best, other| {
            if self.compare(name, other, best).is_gt() {
                other
            } else {
                best
            }
        }))
    }

    /// Compares two candidates for a name; greater is better.
    fn compare(&self, name: NameId, a: usize, b: usize) -> Ordering {
        let flags = self.flags[a] | self.flags[b];
        let has = |flag| flags.contains(flag);
        let by = |judge: &dyn Fn(usize) -> bool| judge(a).cmp(&judge(b));
        let problem = self.model.problem;
        let installed = |at: usize| self.model.candidate(at).installed;
        let reachable = |at: usize| self.model.candidate(at).reachable;
        let same_name = self.model.own[a] == self.model.own[b];
        let (offered_a, offered_b) = (self.offered(name, a), self.offered(name, b));
        let bare = offered_a.is_empty() && offered_b.is_empty();
        let mut order = by(&|at| self.model.candidate(at).needs_no_tag());
        if has(Flags::LATEST) {
            order = order.then_with(|| by(&|at| has(Flags::AVAILABLE) && reachable(at)));
        } else {
            let preupgrade = problem.preupgrade && !has(Flags::UPGRADE);
            let stay = preupgrade || has(Flags::INSTALLED);
            order = by(&|at| stay && installed(at))
                .then(order)
                .then_with(|| by(&|at| has(Flags::AVAILABLE) && reachable(at)))
                .then_with(|| by(&|at| self.preferred(at)));
            let keep = !has(Flags::REMOVE) && !has(Flags::UPGRADE) && (same_name || !bare);
            order = order.then_with(|| by(&|at| keep && installed(at)));
        }
        let (a, b) = (self.model.candidate(a), self.model.candidate(b));
        order
            .then_with(|| Version(offered_a).compare(Version(offered_b)))
            .then_with(|| {
                let versions = Version(a.version).compare(Version(b.version));
                if same_name { versions } else { Ordering::Equal }
            })
            .then(a.provider_priority.cmp(&b.provider_priority))
            .then_with(|| {
                let keep = !has(Flags::REMOVE);
                (keep && a.installed).cmp(&(keep && b.installed))
            })
            .then(b.repository.cmp(&a.repository))
    }

    /// Returns the version under which a candidate offers the name.
    fn offered(&self, name: NameId, candidate: usize) -> &str {
        let mut offers = self.model.offers_of(name).iter();
        let offer = offers.find(|offer| offer.candidate == candidate);
        offer.map_or("", |offer| offer.version)
    }

    /// Returns whether the asked-for tag speaks for a candidate (solver.md, 3.4).
    fn preferred(&self, at: usize) -> bool {
        let candidate = self.model.candidate(at);
        match self.wanted_tag[at] {
            Some(tag) => candidate.tags.contains(tag),
            None => candidate.preferred || candidate.tags.contains(0),
        }
    }
}
