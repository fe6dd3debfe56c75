//! Why there is no answer: the fewest rules that cannot hold together, and what would help.
//!
//! Every rule of the problem is a switch of the search. A failed search names switches that are
//! enough to fail; `smallest` reduces them to a set of least size. The rules that are left
//! become a graph from the world down, printed as a tree. What is advised is tried first.

use super::encode::{Encoding, Grain};
use super::model::{Constraint, Model, NeedId, NeedInfo};
use super::problem::{Need, Problem, Unavailable, Wanted};
use super::sat::{Answer, Lit, Sat, Search, Wishes};
use crate::package::{Operator, World};
use petgraph::graph::{DiGraph, NodeIndex};
use petgraph::visit::EdgeRef;
use serde::Serialize;
use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;

/// How many sets of rules are tried on the way to the smallest one.
const ROUNDS: usize = 300;
/// How many packages a line names before it counts the rest.
const NAMED: usize = 4;

/// How many contradictions are told at once.
const CONTRADICTIONS: usize = 5;

/// Why a request has no answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Explanation {
    /// Contradictions that have nothing to do with each other; at least one, not always all.
    pub contradictions: Vec<Contradiction>,
}

/// Rules that cannot hold together.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Contradiction {
    /// The rules that cannot hold together, from the world down.
    pub facts: Vec<Fact>,
    /// What would help.
    pub hints: Vec<Hint>,
}

/// One rule, below the rule that makes it matter.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Fact {
    /// 0 for what the world asks for.
    pub depth: usize,
    /// The rule.
    #[serde(flatten)]
    pub rule: Rule,
}

/// A rule of a contradiction.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "rule", rename_all = "kebab-case")]
pub enum Rule {
    /// Somebody needs something.
    Needs {
        /// The versions that need it; none for the world.
        packages: Vec<String>,
        /// What is needed.
        constraint: String,
        /// The packages that could answer.
        answers: Vec<String>,
        /// Packages that have the name in a version that does not fit.
        others: Vec<String>,
    },
    /// Somebody excludes something.
    Conflicts {
        /// The versions that exclude it; none for the world.
        packages: Vec<String>,
        /// What is excluded, with its `!`.
        constraint: String,
        /// The packages that are excluded.
        excluded: Vec<String>,
    },
    /// Only one of these can be installed, because they offer the same name.
    OnlyOne {
        /// The name.
        name: String,
        /// The packages.
        packages: Vec<String>,
    },
    /// A package cannot be had.
    Unavailable {
        /// Its versions.
        packages: Vec<String>,
        /// Why.
        reason: Unavailable,
    },
    /// A package is only in tagged repositories, and nothing asks for one of the tags.
    Tagged {
        /// Its versions.
        packages: Vec<String>,
        /// The tags, without `@`.
        tags: Vec<String>,
    },
    /// A package answers only if something asks for it by name.
    NotByItself {
        /// Its versions.
        packages: Vec<String>,
    },
}

/// A step that would help.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(tag = "action", rename_all = "kebab-case")]
pub enum Hint {
    /// A package of another name was meant.
    Rename {
        /// The name that is unknown.
        name: String,
        /// Known names that look like it, nearest first; filled in by who knows all names.
        nearest: Vec<String>,
    },
    /// Take a package from a tagged repository.
    Tag {
        /// The package.
        package: String,
        /// The tag, without `@`.
        tag: String,
    },
    /// Choose a package for a name.
    Choose {
        /// What is needed.
        constraint: String,
        /// The package that can be asked for.
        package: String,
    },
    /// Accept any version.
    Loosen {
        /// The world entry.
        entry: String,
        /// Its name.
        name: String,
    },
    /// Give up a conflict in the world.
    DropConflict {
        /// The world entry.
        entry: String,
        /// The world has it only since this command.
        new: bool,
    },
    /// Do without a package.
    Drop {
        /// The world entry.
        entry: String,
        /// The world has it only since this command.
        new: bool,
    },
    /// Allow the network.
    Network {
        /// The packages to get.
        packages: Vec<String>,
    },
    /// Add a repository.
    Repository {
        /// What it must have.
        constraint: String,
    },
}

impl Explanation {
    /// Tells which world entries come from the command and not from the world as it was: those
    /// need not be deleted, only left out.
    pub fn compare(&mut self, before: &World) {
        let known: BTreeSet<String> = before.entries.iter().map(|e| e.to_string()).collect();
        for hint in self.contradictions.iter_mut().flat_map(|c| &mut c.hints) {
            if let Hint::DropConflict { entry, new } | Hint::Drop { entry, new } = hint {
                *new = !known.contains(entry);
            }
        }
    }
}

/// Explains why there is no answer; `None` if there is one.
pub fn explain(problem: &Problem<'_>) -> Option<Explanation> {
    let model = Model::new(problem);
    let mut rules = Rules::new(&model);
    let mut cores: Vec<BTreeSet<Constraint>> = Vec::new();
    while cores.len() < CONTRADICTIONS {
        let Some(core) = rules.smallest() else { break };
        // What this one needs of the world is set aside to look for the next.
        let before = rules.all.len();
        let world = |rule: &Constraint| matches!(rule, Constraint::World(_));
        rules
            .all
            .retain(|rule| !(world(rule) && core.contains(rule)));
        cores.push(core);
        if rules.all.len() == before {
            break;
        }
    }
    let contradictions = cores.iter().enumerate().map(|(number, core)| {
        let others = cores
            .iter()
            .enumerate()
            .filter(|(other, _)| *other != number);
        let others = others.flat_map(|(_, core)| world_entries(core)).collect();
        Contradiction {
            facts: Tree::new(&model, core).facts(),
            hints: hints(&model, core, &others),
        }
    });
    let contradictions: Vec<Contradiction> = contradictions.collect();
    (!contradictions.is_empty()).then_some(Explanation { contradictions })
}

/// Returns the world entries among rules.
fn world_entries(rules: &BTreeSet<Constraint>) -> BTreeSet<usize> {
    let entries = rules.iter().filter_map(|rule| match rule {
        Constraint::World(at) => Some(*at),
        _ => None,
    });
    entries.collect()
}

/// The rules of a problem, each of which can be switched off.
struct Rules<'m> {
    encoding: Encoding<'m>,
    guards: BTreeMap<Constraint, Lit>,
    /// The rules that are in question.
    all: BTreeSet<Constraint>,
}

impl<'m> Rules<'m> {
    fn new(model: &'m Model<'m>) -> Self {
        let encoding = Encoding::new(model, Grain::Group);
        let guards = encoding.guards().clone();
        let all = guards.keys().copied().collect();
        Self {
            encoding,
            guards,
            all,
        }
    }

    /// Returns the fewest rules that cannot hold together; `None` if all can.
    ///
    /// Each set of rules that can hold together leaves out a set of which every contradiction has
    /// a member. The smallest set that meets all of these either is a contradiction, then there is
    /// no smaller one, or leads to one more of them (Ignatiev et al., 2015). If that takes too
    /// long, what is returned is a contradiction from which nothing can be left out.
    fn smallest(&mut self) -> Option<BTreeSet<Constraint>> {
        let all = self.all.clone();
        let first = self.contradiction(&all)?;
        let minimal = self.reduce(first);
        let mut hitting = Sat::new();
        let mut picked: BTreeMap<Constraint, Lit> = BTreeMap::new();
        for _ in 0..ROUNDS {
            let wishes = picked.values().map(|picked| !*picked).collect();
            let mut wishes = Wishes::new(wishes);
            if wishes.fulfil(&mut hitting, &[]) != Answer::Yes || wishes.broken >= minimal.len() {
                return Some(minimal);
            }
            let members = picked.iter().filter(|(_, lit)| hitting.value(**lit));
            let members: BTreeSet<Constraint> = members.map(|(rule, _)| *rule).collect();
            let Some(missing) = self.complement(&members) else {
                return Some(members);
            };
            let mut clause = Vec::new();
            for rule in missing {
                let literal = picked.entry(rule).or_insert_with(|| hitting.literal(false));
                clause.push(*literal);
            }
            hitting.clause(clause);
        }
        Some(minimal)
    }

    /// Returns rules among these that cannot hold together; `None` if all can.
    fn contradiction(&mut self, rules: &BTreeSet<Constraint>) -> Option<BTreeSet<Constraint>> {
        let assumed: Vec<Lit> = rules.iter().map(|rule| self.guards[rule]).collect();
        if self.encoding.search(&assumed) == Answer::Yes {
            return None;
        }
        let core: BTreeSet<Lit> = self.encoding.sat.core(&assumed).into_iter().collect();
        let needed = rules
            .iter()
            .filter(|rule| core.contains(&self.guards[*rule]));
        Some(needed.copied().collect())
    }

    /// Leaves out what a contradiction does not need, rules that are hard to read first.
    fn reduce(&mut self, mut rules: BTreeSet<Constraint>) -> BTreeSet<Constraint> {
        let mut order: Vec<Constraint> = rules.iter().copied().collect();
        order.sort_by_key(|rule| std::cmp::Reverse(weight(*rule)));
        for rule in order {
            if rules.remove(&rule) {
                match self.contradiction(&rules) {
                    Some(fewer) => rules = fewer,
                    None => {
                        rules.insert(rule);
                    }
                }
            }
        }
        rules
    }

    /// Returns rules without which all others, these among them, hold together; `None` if these
    /// alone cannot.
    fn complement(&mut self, rules: &BTreeSet<Constraint>) -> Option<Vec<Constraint>> {
        let fixed: Vec<Lit> = rules.iter().map(|rule| self.guards[rule]).collect();
        let others = self.all.difference(rules);
        // Each failed search names rules of which one is left out; rules that are in no
        // contradiction never are.
        let mut kept: BTreeSet<Lit> = others.map(|rule| self.guards[rule]).collect();
        let mut out: BTreeSet<Lit> = BTreeSet::new();
        loop {
            let assumed: Vec<Lit> = fixed.iter().chain(&kept).copied().collect();
            if self.encoding.search(&assumed) == Answer::Yes {
                break;
            }
            let core = self.encoding.sat.core(&assumed);
            let left = *core.iter().find(|guard| kept.contains(guard))?;
            kept.remove(&left);
            out.insert(left);
        }
        // What can come back does.
        for guard in out.clone() {
            let assumed = fixed.iter().chain(&kept).copied().chain([guard]);
            let assumed: Vec<Lit> = assumed.collect();
            if self.encoding.search(&assumed) == Answer::Yes {
                out.remove(&guard);
                kept.insert(guard);
            }
        }
        let out = self.guards.iter().filter(|(_, guard)| out.contains(guard));
        Some(out.map(|(rule, _)| *rule).collect())
    }
}

/// Returns how hard a rule is to read.
fn weight(rule: Constraint) -> u8 {
    match rule {
        Constraint::World(_) => 0,
        Constraint::Depends(..) => 1,
        Constraint::OneOffer(_) => 2,
        Constraint::Unavailable(_) => 3,
        Constraint::Pinned(_) => 4,
        Constraint::Unasked(_) => 5,
    }
}

/// The rules as a graph: each points at those that exclude its answers.
struct Tree<'m> {
    model: &'m Model<'m>,
    graph: DiGraph<Constraint, ()>,
}

impl<'m> Tree<'m> {
    fn new(model: &'m Model<'m>, core: &BTreeSet<Constraint>) -> Self {
        let mut graph = DiGraph::new();
        let nodes: Vec<NodeIndex> = core.iter().map(|rule| graph.add_node(*rule)).collect();
        for from in &nodes {
            let Some(need) = need_of(model, graph[*from]) else {
                continue;
            };
            for to in &nodes {
                let about = subjects(model, graph[*to]);
                let excludes = need.answers.iter().any(|a| about.contains(&a.candidate));
                if excludes && from != to {
                    graph.add_edge(*from, *to, ());
                }
            }
        }
        Self { model, graph }
    }

    /// Returns the rules, each below the one that leads to it on the shortest way from the world.
    fn facts(&self) -> Vec<Fact> {
        let graph = &self.graph;
        let world = |node: &NodeIndex| matches!(graph[*node], Constraint::World(_));
        let mut parents: BTreeMap<NodeIndex, Option<NodeIndex>> = BTreeMap::new();
        let mut roots = Vec::new();
        let mut open = VecDeque::new();
        for root in graph.node_indices().filter(world) {
            parents.insert(root, None);
            open.push_back(root);
            roots.push(root);
        }
        self.spread(&mut open, &mut parents);
        // Rules that nothing leads to come last.
        for node in graph.node_indices() {
            if let Entry::Vacant(entry) = parents.entry(node) {
                entry.insert(None);
                open.push_back(node);
                roots.push(node);
                self.spread(&mut open, &mut parents);
            }
        }
        let mut facts = Vec::new();
        for root in roots {
            self.print(root, 0, &parents, &mut facts);
        }
        facts
    }

    fn spread(
        &self,
        open: &mut VecDeque<NodeIndex>,
        parents: &mut BTreeMap<NodeIndex, Option<NodeIndex>>,
    ) {
        while let Some(node) = open.pop_front() {
            let mut next: Vec<NodeIndex> = self.graph.edges(node).map(|e| e.target()).collect();
            next.sort_unstable();
            for child in next {
                parents.entry(child).or_insert_with(|| {
                    open.push_back(child);
                    Some(node)
                });
            }
        }
    }

    fn print(
        &self,
        node: NodeIndex,
        depth: usize,
        parents: &BTreeMap<NodeIndex, Option<NodeIndex>>,
        facts: &mut Vec<Fact>,
    ) {
        let parent = parents.get(&node).copied().flatten();
        let parent = parent.and_then(|parent| need_of(self.model, self.graph[parent]));
        facts.push(Fact {
            depth,
            rule: rule(self.model, self.graph[node], parent),
        });
        let children = parents.iter().filter(|(_, parent)| **parent == Some(node));
        for (child, _) in children {
            self.print(*child, depth + 1, parents, facts);
        }
    }
}

/// Returns the positive need that a rule states.
fn need_of<'m, 'p>(model: &'m Model<'p>, rule: Constraint) -> Option<&'m NeedInfo<'p>> {
    let need = match rule {
        Constraint::World(at) => model.world[at],
        Constraint::Depends(_, need) => need,
        _ => return None,
    };
    let info = model.need_info(need);
    (!info.need.conflict).then_some(info)
}

/// Returns the candidates that a rule is about.
fn subjects(model: &Model<'_>, rule: Constraint) -> Vec<usize> {
    let all = 0..model.problem.candidates.len();
    match rule {
        Constraint::Depends(at, need) => {
            let askers = model.need_info(need).askers.iter().copied();
            askers
                .filter(|asker| model.own[*asker] == model.own[at])
                .collect()
        }
        Constraint::Unavailable(at) => all
            .filter(|c| model.own[*c] == model.own[at])
            .filter(|c| model.candidate(*c).unavailable.is_some())
            .collect(),
        Constraint::Pinned(at) => all
            .filter(|c| model.own[*c] == model.own[at])
            .filter(|c| !model.candidate(*c).needs_no_tag())
            .collect(),
        Constraint::Unasked(at) => all.filter(|c| model.own[*c] == model.own[at]).collect(),
        Constraint::World(_) | Constraint::OneOffer(_) => Vec::new(),
    }
}

fn full_names(model: &Model<'_>, candidates: impl IntoIterator<Item = usize>) -> Vec<String> {
    let names = candidates
        .into_iter()
        .map(|at| model.candidate(at).full_name());
    let mut seen = BTreeSet::new();
    names.filter(|name| seen.insert(name.clone())).collect()
}

fn rule(model: &Model<'_>, constraint: Constraint, parent: Option<&NeedInfo<'_>>) -> Rule {
    let mut about = subjects(model, constraint);
    if let Some(parent) = parent {
        about.retain(|at| parent.answers.iter().any(|answer| answer.candidate == *at));
    }
    let packages = full_names(model, about.iter().copied());
    match constraint {
        Constraint::World(at) => {
            of_need(model, Vec::new(), model.world[at], world_entry(model, at))
        }
        Constraint::Depends(_, need) => {
            let text = model.need_info(need).need.to_string();
            of_need(model, packages, need, text)
        }
        Constraint::OneOffer(name) => {
            let offers = model.offers_of(name).iter().map(|offer| offer.candidate);
            Rule::OnlyOne {
                name: model.text(name).to_owned(),
                packages: full_names(model, offers),
            }
        }
        Constraint::Unavailable(at) => {
            let mut reasons = about.iter().chain([&at]);
            let reason = reasons.find_map(|at| model.candidate(*at).unavailable.clone());
            Rule::Unavailable {
                packages,
                reason: reason.unwrap_or(Unavailable::Broken),
            }
        }
        Constraint::Pinned(at) => Rule::Tagged {
            packages,
            tags: tags_of(model, if about.is_empty() { vec![at] } else { about }),
        },
        Constraint::Unasked(_) => Rule::NotByItself { packages },
    }
}

fn of_need(model: &Model<'_>, packages: Vec<String>, need: NeedId, constraint: String) -> Rule {
    let info = model.need_info(need);
    if info.need.conflict {
        return Rule::Conflicts {
            packages,
            constraint,
            excluded: full_names(model, info.violators.iter().copied()),
        };
    }
    let answers = full_names(model, info.answers.iter().map(|answer| answer.candidate));
    let offers = model
        .offers_of(info.name)
        .iter()
        .map(|offer| offer.candidate);
    let others = match answers.is_empty() {
        true => full_names(model, offers),
        false => Vec::new(),
    };
    Rule::Needs {
        packages,
        constraint,
        answers,
        others,
    }
}

fn world_entry(model: &Model<'_>, at: usize) -> String {
    let wanted = &model.problem.world[at];
    let tag = model.problem.tags.get(usize::from(wanted.tag));
    let tag = tag.copied().filter(|tag| !tag.is_empty());
    wanted.need.to_dependency(tag).to_string()
}

fn tags_of(model: &Model<'_>, candidates: Vec<usize>) -> Vec<String> {
    let numbers = candidates
        .iter()
        .flat_map(|at| model.candidate(*at).tags.iter());
    let numbers: BTreeSet<u8> = numbers.collect();
    let texts = numbers
        .iter()
        .filter_map(|tag| model.problem.tags.get(usize::from(*tag)));
    texts.map(|tag| (*tag).to_owned()).collect()
}

/// A step to try.
struct Trial<'p> {
    hint: Hint,
    /// The problem after the step; `None` if that cannot be known.
    problem: Option<Problem<'p>>,
    /// The world entry that the step gives up.
    without: Option<usize>,
}

impl<'p> Trial<'p> {
    fn untested(hint: Hint) -> Self {
        Self {
            hint,
            problem: None,
            without: None,
        }
    }

    fn of(hint: Hint, problem: Problem<'p>) -> Self {
        Self {
            hint,
            problem: Some(problem),
            without: None,
        }
    }

    /// Returns whether there is an answer after the step, other contradictions apart.
    fn helps(&self, aside: &BTreeSet<usize>) -> bool {
        let Some(mut problem) = self.problem.clone() else {
            return false;
        };
        let mut number = 0..;
        problem.world.retain(|_| {
            let at = number.next();
            !at.is_some_and(|at| aside.contains(&at) || self.without == Some(at))
        });
        has_answer(&problem)
    }
}

fn has_answer(problem: &Problem<'_>) -> bool {
    let model = Model::new(problem);
    Encoding::new(&model, Grain::Fixed).search(&[]) == Answer::Yes
}

/// Returns what would help. `aside` are world entries of other contradictions.
///
/// Steps that give an answer are all that is told, if there are any.
fn hints(model: &Model<'_>, core: &BTreeSet<Constraint>, aside: &BTreeSet<usize>) -> Vec<Hint> {
    let mut trials: Vec<Trial<'_>> = Vec::new();
    for constraint in core {
        if let Some(info) = need_of(model, *constraint) {
            missing(model, info, &mut trials);
            choose(model, info, core, &mut trials);
        }
        match *constraint {
            Constraint::World(at) => entry_hints(model, at, &mut trials),
            Constraint::Pinned(_) => tag_hints(model, *constraint, &mut trials),
            Constraint::Unavailable(_) => network_hint(model, *constraint, &mut trials),
            _ => {}
        }
    }
    let mut seen = BTreeSet::new();
    trials.retain(|trial| seen.insert(trial.hint.clone()));
    let (helping, others): (Vec<Trial<'_>>, Vec<Trial<'_>>) =
        trials.into_iter().partition(|trial| trial.helps(aside));
    let untested = |trial: &Trial<'_>| trial.problem.is_none();
    let told = |trial: &Trial<'_>| untested(trial) || helping.is_empty();
    let mut hints: Vec<Hint> = (others.iter().filter(|trial| told(trial)))
        .chain(&helping)
        .map(|trial| trial.hint.clone())
        .collect();
    // Another version is less of a loss than none.
    let loosened: BTreeSet<String> = (hints.iter())
        .filter_map(|hint| match hint {
            Hint::Loosen { entry, .. } => Some(entry.clone()),
            _ => None,
        })
        .collect();
    hints.retain(|hint| !matches!(hint, Hint::Drop { entry, .. } if loosened.contains(entry)));
    hints.sort();
    hints
}

/// A need that nothing answers: a wrong name, or a repository that is not there.
fn missing(model: &Model<'_>, info: &NeedInfo<'_>, trials: &mut Vec<Trial<'_>>) {
    if !info.answers.is_empty() {
        return;
    }
    // Libraries and commands are not typed by people.
    if model.offers_of(info.name).is_empty() && !info.need.name.contains(':') {
        let name = info.need.name.to_owned();
        let nearest = Vec::new();
        trials.push(Trial::untested(Hint::Rename { name, nearest }));
    }
    let constraint = info.need.to_string();
    trials.push(Trial::untested(Hint::Repository { constraint }));
}

fn entry_hints<'p>(model: &Model<'p>, at: usize, trials: &mut Vec<Trial<'p>>) {
    let wanted = model.problem.world[at];
    let entry = world_entry(model, at);
    let without = |hint| Trial {
        hint,
        problem: Some(model.problem.clone()),
        without: Some(at),
    };
    if wanted.need.conflict {
        trials.push(without(Hint::DropConflict { entry, new: false }));
        return;
    }
    if !wanted.need.version.is_empty() {
        let mut loose = model.problem.clone();
        loose.world[at].need = any_version(wanted.need.name);
        let name = wanted.need.name.to_owned();
        let entry = entry.clone();
        trials.push(Trial::of(Hint::Loosen { entry, name }, loose));
    }
    trials.push(without(Hint::Drop { entry, new: false }));
}

fn any_version(name: &str) -> Need<'_> {
    Need {
        name,
        operator: Operator::ANY,
        version: "",
        conflict: false,
    }
}

fn tag_hints<'p>(model: &Model<'p>, constraint: Constraint, trials: &mut Vec<Trial<'p>>) {
    let about = subjects(model, constraint);
    let Some(first) = about.first() else { return };
    let package = model.candidate(*first).name;
    for tag in about.iter().flat_map(|at| model.candidate(*at).tags.iter()) {
        let Some(text) = model.problem.tags.get(usize::from(tag)) else {
            continue;
        };
        let mut allowed = model.problem.clone();
        let same = allowed.world.iter_mut();
        let mut same = same.filter(|wanted| wanted.need.name == package && !wanted.need.conflict);
        match same.next() {
            Some(wanted) => wanted.tag = tag,
            None => allowed.world.push(Wanted {
                need: any_version(package),
                tag,
            }),
        }
        let package = package.to_owned();
        let tag = (*text).to_owned();
        trials.push(Trial::of(Hint::Tag { package, tag }, allowed));
    }
}

fn network_hint<'p>(model: &Model<'p>, constraint: Constraint, trials: &mut Vec<Trial<'p>>) {
    let offline = |at: &usize| model.candidate(*at).unavailable == Some(Unavailable::Network);
    let mut about = subjects(model, constraint);
    about.retain(offline);
    if about.is_empty() {
        return;
    }
    let mut online = model.problem.clone();
    for candidate in &mut online.candidates {
        if candidate.unavailable == Some(Unavailable::Network) {
            candidate.unavailable = None;
        }
    }
    let packages = full_names(model, about);
    trials.push(Trial::of(Hint::Network { packages }, online));
}

/// A name that packages offer without any of them being chosen by itself.
fn choose<'p>(
    model: &Model<'p>,
    info: &NeedInfo<'_>,
    core: &BTreeSet<Constraint>,
    trials: &mut Vec<Trial<'p>>,
) {
    let unasked = |at: usize| core.contains(&Constraint::Unasked(model.first[at]));
    let answers = info.answers.iter().filter(|answer| !answer.strong);
    let answers = answers.filter(|answer| unasked(answer.candidate));
    let names: BTreeSet<&'p str> = answers.map(|a| model.candidate(a.candidate).name).collect();
    for name in names {
        let mut chosen = model.problem.clone();
        chosen.world.push(Wanted {
            need: any_version(name),
            tag: 0,
        });
        let hint = Hint::Choose {
            constraint: info.need.to_string(),
            package: name.to_owned(),
        };
        trials.push(Trial::of(hint, chosen));
    }
}

/// Joins names: `a`, `a or b`, `a, b or 3 more`.
fn join(names: &[String], word: &str) -> String {
    let shown = match names.len() {
        count if count > NAMED + 1 => NAMED,
        count => count,
    };
    let mut parts: Vec<String> = names[..shown].to_vec();
    if shown < names.len() {
        parts.push(format!("{} more", names.len() - shown));
    }
    match parts.split_last() {
        Some((last, [])) => last.clone(),
        Some((last, others)) => format!("{} {word} {last}", others.join(", ")),
        None => String::new(),
    }
}

/// Puts packages in front of a verb; the world is nobody's package.
fn subject(packages: &[String], one: &str, several: &str) -> String {
    match packages {
        [] => format!("world {one}"),
        [package] => format!("{package} {one}"),
        _ => format!("{} {several}", join(packages, "and")),
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Needs {
                packages,
                constraint,
                answers,
                others,
            } => {
                write!(f, "{} {constraint}: ", subject(packages, "needs", "need"))?;
                match (answers.as_slice(), others.as_slice()) {
                    ([], []) => f.write_str("no package has that name or provides it"),
                    ([], [other]) => write!(f, "there is only {other}"),
                    ([], others) => write!(f, "there are only {}", join(others, "and")),
                    (answers, _) => write!(f, "only {} answers that", join(answers, "or")),
                }
            }
            Self::Conflicts {
                packages,
                constraint,
                excluded,
            } => {
                let excluded = match excluded.as_slice() {
                    [] => constraint.trim_start_matches('!').to_owned(),
                    some => join(some, "and"),
                };
                let verb = subject(packages, "excludes", "exclude");
                write!(f, "{verb} {excluded} ({constraint})")
            }
            Self::OnlyOne { name, packages } => {
                let count = packages.len();
                let versions = |text: &String| {
                    let rest = text.strip_prefix(name.as_str());
                    rest.is_some_and(|rest| rest.starts_with('-'))
                };
                if packages.iter().all(versions) {
                    let packages = join(packages, "or");
                    return write!(f, "only one {name} can be installed: {packages}");
                }
                let packages = join(packages, "and");
                let all = if count == 2 { "both" } else { "all" };
                write!(
                    f,
                    "{packages} {all} offer {name}: only one can be installed"
                )
            }
            Self::Unavailable { packages, reason } => {
                let packages = subject(packages, "is", "are");
                match reason {
                    Unavailable::Network => {
                        write!(f, "{packages} not in the cache, and the network is off")
                    }
                    Unavailable::Architecture(arch) => {
                        write!(f, "{packages} for another architecture ({arch})")
                    }
                    Unavailable::Broken => write!(f, "{packages} broken in the index"),
                }
            }
            Self::Tagged { packages, tags } => {
                let tags: Vec<String> = tags.iter().map(|tag| format!("@{tag}")).collect();
                let packages = subject(packages, "is", "are");
                write!(
                    f,
                    "{packages} only in {}, which nothing asks for",
                    join(&tags, "and")
                )
            }
            Self::NotByItself { packages } => {
                let verb = subject(packages, "is", "are");
                write!(f, "{verb} not chosen unless asked for by name")
            }
        }
    }
}

/// Returns the name in a world entry.
fn name_of(entry: &str) -> &str {
    let entry = entry.trim_start_matches('!');
    let end = entry.find(['@', '<', '=', '>', '~']);
    &entry[..end.unwrap_or(entry.len())]
}

impl fmt::Display for Hint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rename { name, nearest } if nearest.is_empty() => {
                write!(
                    f,
                    "check the spelling of {name}; nothing is called like that"
                )
            }
            Self::Rename { name, nearest } => {
                write!(f, "did you mean {} instead of {name}?", join(nearest, "or"))
            }
            Self::Tag { package, tag } => {
                write!(f, "take {package} from @{tag}: add {package}@{tag}")
            }
            Self::Choose {
                constraint,
                package,
            } => write!(f, "choose {package} for {constraint}: add {package}"),
            Self::Loosen { entry, name } => {
                write!(f, "accept any version instead of {entry}: add {name}")
            }
            Self::DropConflict { entry, new: true } | Self::Drop { entry, new: true } => {
                write!(f, "leave out {entry}")
            }
            Self::DropConflict { entry, new: false } => {
                write!(f, "give up the conflict {entry}: del {}", name_of(entry))
            }
            Self::Drop { entry, new: false } => {
                write!(f, "do without {entry}: del {}", name_of(entry))
            }
            Self::Network { packages } => {
                write!(f, "allow the network, to get {}", join(packages, "and"))
            }
            Self::Repository { constraint } => {
                write!(f, "add a repository that has {constraint}")
            }
        }
    }
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for contradiction in &self.contradictions {
            write!(f, "{contradiction}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Contradiction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let single = self.facts.len() == 1;
        let title = if single {
            "This cannot be:"
        } else {
            "These cannot all hold:"
        };
        writeln!(f, "{title}")?;
        for fact in &self.facts {
            writeln!(
                f,
                "{:indent$}{}",
                "",
                fact.rule,
                indent = 2 + 2 * fact.depth
            )?;
        }
        if !self.hints.is_empty() {
            let one = self.hints.len() == 1;
            let title = if one {
                "What helps:"
            } else {
                "What helps, one of:"
            };
            writeln!(f, "{title}")?;
        }
        for hint in &self.hints {
            writeln!(f, "  {hint}")?;
        }
        Ok(())
    }
}
