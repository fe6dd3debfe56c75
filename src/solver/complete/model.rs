//! A [`Problem`] with numbers in place of texts: names, needs, and who answers what.
//!
//! Each distinct need is judged once against the offers of its name. The model knows what the rules
//! say of each part; it chooses nothing.

use super::problem::{Candidate, Need, Problem};
use std::collections::HashMap;

/// A name of one model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct NameId(pub u32);

/// A distinct need of one model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct NeedId(pub u32);

/// One rule that must hold for one object. Candidates and world entries are positions in the
/// problem's lists.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Constraint {
    /// The world entry is met.
    World(usize),
    /// The candidate's dependency is met, or its conflict not violated.
    Depends(usize, NeedId),
    /// The name has one owner: unless all offers are bare, one package offers it, once.
    OneOffer(NameId),
    /// The candidate can not be had.
    Unavailable(usize),
    /// The candidate lives only in tagged repositories; a requirement must bring one of the tags.
    Pinned(usize),
    /// Nothing is installed that is not asked for; a bare offer without priority is not asked for.
    Unasked(usize),
}

/// A candidate under one of the names it answers to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Offer<'p> {
    pub candidate: usize,
    /// Empty for a bare offer.
    pub version: &'p str,
}

/// A candidate that answers a need.
#[derive(Clone, Copy, Debug)]
pub(super) struct Answer {
    pub candidate: usize,
    /// The offer may be chosen for its own sake: it has a version, or its package a priority.
    pub strong: bool,
}

/// A need and everybody it concerns.
#[derive(Clone, Debug)]
pub(super) struct NeedInfo<'p> {
    pub need: Need<'p>,
    pub name: NameId,
    /// Candidates with an offer that meets it. For a conflict: that does not violate it.
    pub answers: Vec<Answer>,
    /// For a conflict: candidates with an offer that violates it.
    pub violators: Vec<usize>,
    /// Candidates that depend on it.
    pub askers: Vec<usize>,
    /// The world has it.
    pub in_world: bool,
}

/// The indexed problem.
pub(super) struct Model<'p> {
    pub problem: &'p Problem<'p>,
    texts: Vec<&'p str>,
    by_text: HashMap<&'p str, NameId>,
    /// The own name of each candidate.
    pub own: Vec<NameId>,
    /// The first candidate with the same own name.
    pub first: Vec<usize>,
    /// What each candidate depends on, without repetition.
    pub depends: Vec<Vec<NeedId>>,
    /// The conditions of each candidate, without repetition.
    pub install_if: Vec<Vec<NeedId>>,
    /// The offers of each name, in the order of candidates.
    pub offers: Vec<Vec<Offer<'p>>>,
    pub needs: Vec<NeedInfo<'p>>,
    /// The needs on each name.
    by_name: Vec<Vec<NeedId>>,
    /// The need of each world entry.
    pub world: Vec<NeedId>,
}

impl<'p> Model<'p> {
    pub(super) fn new(problem: &'p Problem<'p>) -> Self {
        let mut model = Self {
            problem,
            texts: Vec::new(),
            by_text: HashMap::new(),
            own: Vec::new(),
            first: Vec::new(),
            depends: Vec::new(),
            install_if: Vec::new(),
            offers: Vec::new(),
            needs: Vec::new(),
            by_name: Vec::new(),
            world: Vec::new(),
        };
        let mut first_of = HashMap::new();
        for (at, candidate) in problem.candidates.iter().enumerate() {
            let own = model.offer(at, candidate.name, candidate.version);
            for (name, version) in &candidate.provides {
                model.offer(at, name, version);
            }
            model.own.push(own);
            model.first.push(*first_of.entry(own).or_insert(at));
        }
        model.add_needs();
        for info in &mut model.needs {
            judge(info, problem, &model.offers);
        }
        model
    }

    fn offer(&mut self, candidate: usize, name: &'p str, version: &'p str) -> NameId {
        let name = self.name(name);
        self.offers[name.0 as usize].push(Offer { candidate, version });
        name
    }

    fn name(&mut self, text: &'p str) -> NameId {
        let next = NameId(self.texts.len() as u32);
        let name = *self.by_text.entry(text).or_insert(next);
        if name == next {
            self.texts.push(text);
            self.offers.push(Vec::new());
            self.by_name.push(Vec::new());
        }
        name
    }

    fn add_needs(&mut self) {
        let mut known = HashMap::new();
        for wanted in &self.problem.world {
            let need = self.need(wanted.need, &mut known);
            self.needs[need.0 as usize].in_world = true;
            self.world.push(need);
        }
        for (at, candidate) in self.problem.candidates.iter().enumerate() {
            let depends = self.need_list(&candidate.depends, &mut known);
            for need in &depends {
                self.needs[need.0 as usize].askers.push(at);
            }
            let install_if = self.need_list(&candidate.install_if, &mut known);
            self.depends.push(depends);
            self.install_if.push(install_if);
        }
    }

    fn need_list(
        &mut self,
        list: &[Need<'p>],
        known: &mut HashMap<Need<'p>, NeedId>,
    ) -> Vec<NeedId> {
        let mut ids = Vec::with_capacity(list.len());
        for need in list {
            let id = self.need(*need, known);
            if !ids.contains(&id) {
                ids.push(id);
            }
        }
        ids
    }

    fn need(&mut self, need: Need<'p>, known: &mut HashMap<Need<'p>, NeedId>) -> NeedId {
        let next = NeedId(self.needs.len() as u32);
        let id = *known.entry(need).or_insert(next);
        if id == next {
            let name = self.name(need.name);
            self.by_name[name.0 as usize].push(id);
            self.needs.push(NeedInfo {
                need,
                name,
                answers: Vec::new(),
                violators: Vec::new(),
                askers: Vec::new(),
                in_world: false,
            });
        }
        id
    }

    pub(super) fn need_info(&self, need: NeedId) -> &NeedInfo<'p> {
        &self.needs[need.0 as usize]
    }

    /// Returns the needs on any of these names.
    pub(super) fn needs_on(&self, names: &[&str]) -> Vec<NeedId> {
        let ids = names.iter().filter_map(|name| self.by_text.get(name));
        let needs = ids.flat_map(|name| self.by_name[name.0 as usize].iter().copied());
        needs.collect()
    }

    pub(super) fn candidate(&self, at: usize) -> &'p Candidate<'p> {
        &self.problem.candidates[at]
    }

    pub(super) fn offers_of(&self, name: NameId) -> &[Offer<'p>] {
        &self.offers[name.0 as usize]
    }

    pub(super) fn text(&self, name: NameId) -> &'p str {
        self.texts[name.0 as usize]
    }

    pub(super) fn names(&self) -> impl Iterator<Item = NameId> + use<> {
        (0..self.texts.len() as u32).map(NameId)
    }

    /// Returns whether an offer counts as versioned: it has a version or is the own name.
    pub(super) fn versioned(&self, name: NameId, offer: &Offer<'_>) -> bool {
        !offer.version.is_empty() || self.own[offer.candidate] == name
    }

    /// Returns the name that the candidate offers twice without all of it being bare, if any.
    pub(super) fn clashes_with_itself(&self, candidate: usize) -> bool {
        let provides = &self.candidate(candidate).provides;
        provides.iter().enumerate().any(|(at, (name, version))| {
            *name == self.candidate(candidate).name
                || provides[..at].iter().any(|(other, other_version)| {
                    other == name && !(version.is_empty() && other_version.is_empty())
                })
        })
    }

    /// Returns the constraint that stands for this one among all versions of the package.
    pub(super) fn group(&self, constraint: Constraint) -> Constraint {
        match constraint {
            Constraint::Depends(at, need) => {
                // The first version with this need; others of the name may not have it.
                let own = self.own[at];
                let askers = &self.need_info(need).askers;
                let first = askers.iter().find(|asker| self.own[**asker] == own);
                Constraint::Depends(first.copied().unwrap_or(at), need)
            }
            Constraint::Unavailable(at) => Constraint::Unavailable(self.first[at]),
            Constraint::Pinned(at) => Constraint::Pinned(self.first[at]),
            Constraint::Unasked(at) => Constraint::Unasked(self.first[at]),
            Constraint::World(_) | Constraint::OneOffer(_) => constraint,
        }
    }
}

/// Fills in who answers a need.
fn judge<'p>(info: &mut NeedInfo<'p>, problem: &'p Problem<'p>, offers: &[Vec<Offer<'p>>]) {
    let need = info.need;
    for offer in &offers[info.name.0 as usize] {
        let candidate = &problem.candidates[offer.candidate];
        if need.accepts(offer.version, candidate.identity) {
            let strong = !offer.version.is_empty() || candidate.provider_priority != 0;
            match info.answers.last_mut() {
                Some(last) if last.candidate == offer.candidate => last.strong |= strong,
                _ => info.answers.push(Answer {
                    candidate: offer.candidate,
                    strong,
                }),
            }
        } else if need.conflict && info.violators.last() != Some(&offer.candidate) {
            info.violators.push(offer.candidate);
        }
    }
}
