//! The rules as clauses.
//!
//! One literal says of each candidate whether it is selected. Needs that many share get a literal
//! of their own, so the number of clauses grows with the number of dependencies and not with that
//! of pairs. For an explanation each rule is put behind a guard; assuming the guards switches the
//! rules on, and a failed search names the guards it needed.

use super::derivation::{AtomId, Derivation};
use super::model::{self, Constraint, Model, NameId, NeedId};
use super::sat::{Answer, Lit, Sat, Search};
use std::collections::{BTreeMap, HashMap, HashSet};

/// How finely rules can be switched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Grain {
    /// Not at all; what can never be chosen is left out from the start.
    Fixed,
    /// One guard for the same rule of all versions of a package.
    Group,
}

/// A shared need is worth a literal of its own from this many (answers × askers) on.
const SHARING_PAYS: usize = 12;

/// The clauses of a model.
pub(super) struct Encoding<'m> {
    model: &'m Model<'m>,
    pub sat: Sat,
    derivation: Derivation,
    /// The literal and atom of each candidate; none if it can never be chosen.
    selected: Vec<Option<(Lit, AtomId)>>,
    /// For candidates that install themselves: "something else asks for it, too".
    required: BTreeMap<usize, (Lit, AtomId)>,
    grain: Grain,
    guards: BTreeMap<Constraint, Lit>,
    met: HashMap<NeedId, Option<AtomId>>,
    /// Conflicts that each search may use up; none for no limit.
    pub budget: Option<u64>,
}

impl<'m> Encoding<'m> {
    /// Encodes the whole model.
    pub(super) fn new(model: &'m Model<'m>, grain: Grain) -> Self {
        let mut encoding = Self {
            model,
            sat: Sat::new(),
            derivation: Derivation::default(),
            selected: Vec::new(),
            required: BTreeMap::new(),
            grain,
            guards: BTreeMap::new(),
            met: HashMap::new(),
            budget: None,
        };
        encoding.select();
        encoding.world();
        encoding.depends();
        for name in model.names() {
            encoding.one_offer(name);
        }
        encoding.availability();
        encoding.asked();
        encoding.tags();
        encoding.derivation.complete(&mut encoding.sat);
        encoding
    }

    /// Returns the literal of a candidate, if it can be chosen at all.
    pub(super) fn literal(&self, candidate: usize) -> Option<Lit> {
        self.selected[candidate].map(|(literal, _)| literal)
    }

    /// Returns the selected candidates after [`Answer::Yes`].
    pub(super) fn selection(&self) -> Vec<usize> {
        let chosen = |at: &usize| self.literal(*at).is_some_and(|l| self.sat.value(l));
        (0..self.selected.len()).filter(chosen).collect()
    }

    /// Returns the switches of the rules.
    pub(super) fn guards(&self) -> &BTreeMap<Constraint, Lit> {
        &self.guards
    }

    fn literals(&self, candidates: impl IntoIterator<Item = usize>) -> Vec<Lit> {
        let all = candidates.into_iter();
        all.filter_map(|candidate| self.literal(candidate))
            .collect()
    }

    /// Returns what to put in front of the clauses of a rule.
    fn front(&mut self, constraint: Constraint) -> Vec<Lit> {
        if self.grain == Grain::Fixed {
            return Vec::new();
        }
        let sat = &mut self.sat;
        let group = self.model.group(constraint);
        let guard = (self.guards.entry(group)).or_insert_with(|| sat.literal(true));
        vec![!*guard]
    }

    /// Makes the literals of the candidates.
    fn select(&mut self) {
        let possible = match self.grain {
            Grain::Fixed => possible(self.model),
            Grain::Group => vec![true; self.model.problem.candidates.len()],
        };
        for (at, possible) in possible.into_iter().enumerate() {
            let selected = possible.then(|| {
                let front = self.front(Constraint::Unasked(at));
                let literal = self.sat.literal(false);
                let guard = front.first().map(|guard| !*guard);
                (literal, self.derivation.gated(literal, literal, guard))
            });
            self.selected.push(selected);
        }
    }

    fn world(&mut self) {
        for (at, need) in self.model.world.iter().enumerate() {
            let front = self.front(Constraint::World(at));
            let info = self.model.need_info(*need);
            if info.need.conflict {
                for violator in self.literals(info.violators.iter().copied()) {
                    self.sat.clause(front.iter().copied().chain([!violator]));
                }
            } else {
                let answers = self.answers(*need);
                self.sat.clause(front.into_iter().chain(answers));
            }
        }
    }

    fn depends(&mut self) {
        for (at, needs) in self.model.depends.iter().enumerate() {
            let Some(literal) = self.literal(at) else {
                continue;
            };
            for need in needs {
                let mut front = self.front(Constraint::Depends(at, *need));
                front.push(!literal);
                if self.model.need_info(*need).need.conflict {
                    self.conflict(at, *need, &front);
                } else {
                    self.dependency(at, *need, &front);
                }
            }
        }
    }

    fn dependency(&mut self, at: usize, need: NeedId, front: &[Lit]) {
        let info = self.model.need_info(need);
        if info.answers.iter().any(|answer| answer.candidate == at) {
            return;
        }
        let shared = info.answers.len() > 1
            && info.answers.len() * info.askers.len() > SHARING_PAYS
            && !info
                .answers
                .iter()
                .any(|answer| self.must_be_required(answer));
        let answers = if shared {
            let met = self.met(need);
            let met = met.map(|atom| self.derivation.literal(atom));
            met.into_iter().collect()
        } else {
            self.answers(need)
        };
        self.sat.clause(front.iter().copied().chain(answers));
    }

    /// Returns whether a need counts an answer only if something else asks for it.
    ///
    /// What installs itself does not choose for a name that only bare offers without priority
    /// have: apk wants such a choice from the user.
    fn must_be_required(&self, answer: &model::Answer) -> bool {
        !answer.strong && !self.model.install_if[answer.candidate].is_empty()
    }

    /// Returns the literals of what answers a need.
    fn answers(&mut self, need: NeedId) -> Vec<Lit> {
        let model = self.model;
        let mut literals = Vec::new();
        for answer in &model.need_info(need).answers {
            if self.must_be_required(answer) {
                literals.extend(self.required(answer.candidate));
            } else {
                literals.extend(self.literal(answer.candidate));
            }
        }
        literals
    }

    fn required(&mut self, at: usize) -> Option<Lit> {
        if let Some((literal, _)) = self.required.get(&at) {
            return Some(*literal);
        }
        let selected = self.literal(at)?;
        let front = self.front(Constraint::Unasked(at));
        let literal = self.sat.literal(false);
        self.sat.clause([!literal, selected]);
        let guard = front.first().map(|guard| !*guard);
        let atom = self.derivation.gated(literal, selected, guard);
        self.required.insert(at, (literal, atom));
        Some(literal)
    }

    fn conflict(&mut self, at: usize, need: NeedId, front: &[Lit]) {
        // A package never conflicts with itself (solver.md, 4.2).
        let violators = &self.model.need_info(need).violators;
        for violator in self.literals(violators.iter().copied().filter(|v| *v != at)) {
            self.sat.clause(front.iter().copied().chain([!violator]));
        }
    }

    /// Returns the atom "something selected answers this need", none if nothing can.
    fn met(&mut self, need: NeedId) -> Option<AtomId> {
        if let Some(known) = self.met.get(&need) {
            return *known;
        }
        let answers = self.model.need_info(need).answers.iter();
        let atoms = answers.filter_map(|a| self.selected[a.candidate].map(|(_, atom)| atom));
        let atoms: Vec<AtomId> = atoms.collect();
        let met = self.either(&atoms);
        self.met.insert(need, met);
        met
    }

    /// Returns an atom that follows from each of the given ones, none if there are none.
    fn either(&mut self, atoms: &[AtomId]) -> Option<AtomId> {
        match atoms {
            [] => None,
            [one] => Some(*one),
            several => {
                let literal = self.sat.literal(false);
                let either = self.derivation.open(literal);
                for atom in several {
                    self.derivation.follows(either, *atom);
                }
                Some(either)
            }
        }
    }

    /// "Unless all offers of a name are bare, one package offers it, once."
    ///
    /// Versions of one package exclude each other under their own name already, so under other
    /// names only different packages are compared.
    fn one_offer(&mut self, name: NameId) {
        let model = self.model;
        let offers = model.offers_of(name);
        if offers.len() < 2 {
            return;
        }
        let mut members: BTreeMap<usize, (usize, bool)> = BTreeMap::new();
        for offer in offers {
            let (count, versioned) = members.entry(offer.candidate).or_default();
            *count += 1;
            *versioned |= model.versioned(name, offer);
        }
        if !members.values().any(|(_, versioned)| *versioned) {
            return;
        }
        let front = self.front(Constraint::OneOffer(name));
        let mut groups: BTreeMap<NameId, (Vec<Lit>, Vec<Lit>)> = BTreeMap::new();
        for (at, (count, versioned)) in members {
            let Some(literal) = self.literal(at) else {
                continue;
            };
            if count > 1 && versioned {
                self.sat.clause(front.iter().copied().chain([!literal]));
            }
            let (with_version, bare) = groups.entry(model.own[at]).or_default();
            if versioned { with_version } else { bare }.push(literal);
        }
        if let Some((versions, _)) = groups.get(&name) {
            self.sat.at_most_one(versions, &front);
        }
        self.exclude_groups(&groups.into_values().collect::<Vec<_>>(), &front);
    }

    /// Excludes versioned offers of one package with all offers of the other packages.
    fn exclude_groups(&mut self, groups: &[(Vec<Lit>, Vec<Lit>)], front: &[Lit]) {
        const PAIRWISE: usize = 8;
        if groups.len() < 2 {
            return;
        }
        let mut any = |literals: &[Lit]| (!literals.is_empty()).then(|| self.sat.any_of(literals));
        let groups: Vec<(Option<Lit>, Option<Lit>)> = groups
            .iter()
            .map(|(versioned, bare)| (any(versioned), any(bare)))
            .collect();
        let mixed = groups
            .iter()
            .any(|group| matches!(group, (Some(_), Some(_))));
        let versioned: Vec<Lit> = groups.iter().filter_map(|(v, _)| *v).collect();
        self.sat.at_most_one(&versioned, front);
        if mixed || groups.len() <= PAIRWISE {
            for (a, (versioned, _)) in groups.iter().enumerate() {
                for (b, (_, bare)) in groups.iter().enumerate() {
                    if let (Some(versioned), Some(bare)) = (versioned, bare)
                        && a != b
                    {
                        let pair = [!*versioned, !*bare];
                        self.sat.clause(front.iter().copied().chain(pair));
                    }
                }
            }
        } else {
            let owned = self.sat.any_of(&versioned);
            for bare in groups.iter().filter_map(|(_, bare)| *bare) {
                let pair = [!owned, !bare];
                self.sat.clause(front.iter().copied().chain(pair));
            }
        }
    }

    fn availability(&mut self) {
        for at in 0..self.selected.len() {
            let unavailable = self.model.candidate(at).unavailable.is_some();
            if let (true, Some(literal)) = (unavailable, self.literal(at)) {
                let front = self.front(Constraint::Unavailable(at));
                self.sat.clause(front.into_iter().chain([!literal]));
            }
        }
    }

    /// Derives each selected package from the world.
    fn asked(&mut self) {
        for (number, info) in self.model.needs.iter().enumerate() {
            if info.need.conflict || (info.askers.is_empty() && !info.in_world) {
                continue;
            }
            let strong = info.answers.iter().filter(|answer| answer.strong);
            let strong = strong.filter_map(|answer| self.selected[answer.candidate]);
            let mut answers: Vec<AtomId> = strong.map(|(_, atom)| atom).collect();
            if answers.is_empty() {
                continue;
            }
            let strong = info.answers.iter().filter(|answer| answer.strong);
            let required = strong.filter_map(|answer| self.required.get(&answer.candidate));
            answers.extend(required.map(|(_, atom)| *atom));
            if info.in_world {
                for atom in answers {
                    self.derivation.fact(atom);
                }
                continue;
            }
            let askers = &self.model.needs[number].askers;
            let askers = askers.iter().filter_map(|asker| self.selected[*asker]);
            let askers: Vec<AtomId> = askers.map(|(_, atom)| atom).collect();
            if let Some(asked) = self.either(&askers) {
                for atom in answers {
                    self.derivation.follows(atom, asked);
                }
            }
        }
        for at in 0..self.selected.len() {
            if let Some((_, atom)) = self.selected[at]
                && let Some((parts, conditions)) = self.trigger(at)
            {
                let sat = &mut self.sat;
                self.derivation.follows_all(sat, atom, parts, conditions);
            }
        }
    }

    /// Returns when the install_if of a candidate is fulfilled; `None` if never.
    pub(super) fn trigger(&mut self, at: usize) -> Option<(Vec<AtomId>, Vec<Lit>)> {
        let model = self.model;
        if model.install_if[at].is_empty() {
            return None;
        }
        let mut parts = Vec::new();
        let mut conditions = Vec::new();
        for need in &model.install_if[at] {
            let info = model.need_info(*need);
            if info.need.conflict {
                // Once its name is settled as absent, it is too late for the package.
                if info.violators.contains(&at) {
                    return None;
                }
                let violators = info.violators.iter().copied();
                conditions.extend(self.literals(violators).into_iter().map(|l| !l));
            } else {
                parts.push(self.met(*need)?);
            }
        }
        Some((parts, conditions))
    }

    /// "A package of tagged repositories needs a requirement that brings its tag."
    fn tags(&mut self) {
        let pinned: Vec<usize> = (0..self.selected.len())
            .filter(|at| self.selected[*at].is_some() && !self.model.candidate(*at).needs_no_tag())
            .collect();
        if pinned.is_empty() {
            return;
        }
        let mut carried: HashMap<usize, Vec<Lit>> = HashMap::new();
        let mut tags: Vec<u8> = self.model.problem.world.iter().map(|w| w.tag).collect();
        tags.sort_unstable();
        tags.dedup();
        for tag in tags.into_iter().filter(|tag| *tag != 0) {
            let wanted = pinned.iter().copied();
            let wanted: Vec<usize> = wanted
                .filter(|at| self.model.candidate(*at).tags.contains(tag))
                .collect();
            if !wanted.is_empty() {
                let carriers = self.carriers(tag);
                for at in wanted {
                    let literal = carriers.get(&at).map(|atom| self.derivation.literal(*atom));
                    carried.entry(at).or_default().extend(literal);
                }
            }
        }
        for at in pinned {
            if let Some(literal) = self.literal(at) {
                let front = self.front(Constraint::Pinned(at));
                let carried = carried.remove(&at).unwrap_or_default();
                self.sat
                    .clause(front.into_iter().chain([!literal]).chain(carried));
            }
        }
    }

    /// Makes an atom "selected and reached by the tag" for each candidate that the tag can reach
    /// (solver.md, 3.4: tags flow from the world entry down the dependencies).
    fn carriers(&mut self, tag: u8) -> HashMap<usize, AtomId> {
        let model = self.model;
        let entries = model.problem.world.iter().zip(&model.world);
        let entries: HashSet<NeedId> = entries
            .filter(|(wanted, _)| wanted.tag == tag)
            .map(|(_, need)| *need)
            .collect();
        let mut carriers: BTreeMap<usize, AtomId> = BTreeMap::new();
        let answers = |need: NeedId| model.need_info(need).answers.iter().map(|a| a.candidate);
        let mut open: Vec<usize> = entries.iter().flat_map(|need| answers(*need)).collect();
        let triggered = self.triggered_by();
        while let Some(at) = open.pop() {
            let Some((selected, _)) = self.selected[at] else {
                continue;
            };
            if carriers.contains_key(&at) {
                continue;
            }
            let literal = self.sat.literal(false);
            self.sat.clause([!literal, selected]);
            carriers.insert(at, self.derivation.gated(literal, selected, None));
            open.extend(model.depends[at].iter().flat_map(|need| answers(*need)));
            open.extend(triggered.get(&at).into_iter().flatten());
        }
        for need in &entries {
            for at in answers(*need) {
                if let Some(atom) = carriers.get(&at) {
                    self.derivation.fact(*atom);
                }
            }
        }
        for info in &model.needs {
            let askers = info.askers.iter().filter_map(|at| carriers.get(at));
            let askers: Vec<AtomId> = askers.copied().collect();
            let answering: Vec<AtomId> = (info.answers.iter())
                .filter_map(|answer| carriers.get(&answer.candidate).copied())
                .collect();
            if answering.is_empty() {
                continue;
            }
            if let Some(asked) = self.either(&askers) {
                for atom in answering {
                    self.derivation.follows(atom, asked);
                }
            }
        }
        self.inherit_by_trigger(&carriers);
        carriers.into_iter().collect()
    }

    /// What installs itself gets the tags of what its conditions found (solver.md, 4.6).
    fn inherit_by_trigger(&mut self, carriers: &BTreeMap<usize, AtomId>) {
        let model = self.model;
        for (at, atom) in carriers {
            let owners = model.install_if[*at].iter();
            let owners = owners.filter(|need| !model.need_info(**need).need.conflict);
            let owners = owners.flat_map(|need| &model.need_info(*need).answers);
            let owners = owners.filter_map(|answer| carriers.get(&answer.candidate));
            let owners: Vec<AtomId> = owners.copied().collect();
            let Some(owner) = self.either(&owners) else {
                continue;
            };
            if let Some((mut parts, conditions)) = self.trigger(*at) {
                parts.push(owner);
                let sat = &mut self.sat;
                self.derivation.follows_all(sat, *atom, parts, conditions);
            }
        }
    }

    /// For each candidate, those whose positive conditions it can meet.
    fn triggered_by(&self) -> HashMap<usize, Vec<usize>> {
        let model = self.model;
        let mut triggered: HashMap<usize, Vec<usize>> = HashMap::new();
        for (at, conditions) in model.install_if.iter().enumerate() {
            for need in conditions {
                let info = model.need_info(*need);
                for answer in info.answers.iter().filter(|_| !info.need.conflict) {
                    triggered.entry(answer.candidate).or_default().push(at);
                }
            }
        }
        triggered
    }
}

impl Search for Encoding<'_> {
    /// Searches until the answer needs no circle of packages that only ask for each other.
    fn search(&mut self, assumptions: &[Lit]) -> Answer {
        let end = self.budget.map(|budget| self.sat.conflicts() + budget);
        loop {
            let left = end.map(|end| end.saturating_sub(self.sat.conflicts()));
            let answer = self.sat.solve(assumptions, left);
            if answer != Answer::Yes {
                return answer;
            }
            let clauses = self.derivation.unfounded(&self.sat);
            if clauses.is_empty() {
                return Answer::Yes;
            }
            for clause in clauses {
                self.sat.clause(clause);
            }
        }
    }

    fn sat(&mut self) -> &mut Sat {
        &mut self.sat
    }
}

/// Returns what the world can reach at all among what can be had.
fn possible(model: &Model<'_>) -> Vec<bool> {
    let count = model.problem.candidates.len();
    let mut possible = vec![false; count];
    let allowed =
        |at: usize| model.candidate(at).unavailable.is_none() && !model.clashes_with_itself(at);
    let strong = |need: &NeedId| {
        let info = model.need_info(*need);
        let answers = info.answers.iter();
        answers
            .filter(|answer| answer.strong && !info.need.conflict)
            .map(|answer| answer.candidate)
            .collect::<Vec<_>>()
    };
    let mut open: Vec<usize> = model.world.iter().flat_map(strong).collect();
    let mut waiting: Vec<usize> = (0..count)
        .filter(|at| !model.install_if[*at].is_empty())
        .collect();
    loop {
        while let Some(at) = open.pop() {
            if !possible[at] && allowed(at) {
                possible[at] = true;
                open.extend(model.depends[at].iter().flat_map(strong));
            }
        }
        let fulfilled = |at: &usize| {
            model.install_if[*at].iter().all(|need| {
                let info = model.need_info(*need);
                info.need.conflict || info.answers.iter().any(|a| possible[a.candidate])
            })
        };
        let (now, later) = waiting.iter().partition(|at| fulfilled(at));
        waiting = later;
        open = now;
        if open.is_empty() {
            return possible;
        }
    }
}
