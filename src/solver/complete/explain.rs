//! Why there is no answer: the fewest rules that cannot hold together, and what would help.
//!
//! Every rule of the problem is a switch of the search. A failed search names switches that are
//! enough to fail; [`smallest`] reduces them to a set of least size. The rules that are left
//! become a graph from the world down, printed as a tree. What is advised is tried first.

use super::encode::{Encoding, Grain};
use super::model::{Constraint, Model, NeedId, NeedInfo};
use super::problem::{Need, Problem, Unavailable, Wanted};
use super::sat::{Answer, Lit, Sat, Search, Wishes};
use crate::package::Operator;
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

/// Why a request has no answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Explanation {
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
        /// The packages that can be asked for.
        packages: Vec<String>,
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
    },
    /// Do without a package.
    Drop {
        /// The world entry.
        entry: String,
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
    /// Returns it as one line of JSON.
    pub fn to_json(&self) -> String {
        let text = serde_json::to_string(self).unwrap_or_default();
        format!("{text}\n")
    }
}

/// Explains why there is no answer; `None` if there is one.
pub fn explain(problem: &Problem<'_>) -> Option<Explanation> {
    let model = Model::new(problem);
    let core = smallest(&model)?;
    let tree = Tree::new(&model, &core);
    let hints = hints(&model, &core);
    Some(Explanation {
        facts: tree.facts(),
        hints,
    })
}

/// Returns the fewest rules that cannot hold together; `None` if all can.
///
/// Each set of rules that can hold together leaves out a set of which every contradiction has a
/// member. The smallest set that meets all of these either is a contradiction, then there is no
/// smaller one, or leads to one more of them (Ignatiev et al., 2015). If that takes too long, what
/// is returned is a contradiction from which nothing can be left out.
fn smallest(model: &Model<'_>) -> Option<BTreeSet<Constraint>> {
    let mut encoding = Encoding::new(model, Grain::Group);
    let guards = encoding.guards().clone();
    let all: BTreeSet<Constraint> = guards.keys().copied().collect();
    let first = contradiction(&mut encoding, &guards, &all)?;
    let minimal = reduce(&mut encoding, &guards, first);
    // Members are looked for among the rules near the contradiction that is known already; rules
    // elsewhere hold anyway.
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
        let Some(missing) = complement(&mut encoding, &guards, &members) else {
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
fn contradiction(
    encoding: &mut Encoding<'_>,
    guards: &BTreeMap<Constraint, Lit>,
    rules: &BTreeSet<Constraint>,
) -> Option<BTreeSet<Constraint>> {
    let assumed: Vec<Lit> = rules.iter().map(|rule| guards[rule]).collect();
    if encoding.search(&assumed) == Answer::Yes {
        return None;
    }
    let core: BTreeSet<Lit> = encoding.sat.core(&assumed).into_iter().collect();
    let needed = rules.iter().filter(|rule| core.contains(&guards[*rule]));
    Some(needed.copied().collect())
}

/// Leaves out what a contradiction does not need, rules that are hard to read first.
fn reduce(
    encoding: &mut Encoding<'_>,
    guards: &BTreeMap<Constraint, Lit>,
    mut rules: BTreeSet<Constraint>,
) -> BTreeSet<Constraint> {
    let mut order: Vec<Constraint> = rules.iter().copied().collect();
    order.sort_by_key(|rule| std::cmp::Reverse(weight(*rule)));
    for rule in order {
        if rules.remove(&rule) {
            match contradiction(encoding, guards, &rules) {
                Some(fewer) => rules = fewer,
                None => {
                    rules.insert(rule);
                }
            }
        }
    }
    rules
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

/// Returns rules without which all others, these among them, hold together; `None` if these alone
/// cannot.
fn complement(
    encoding: &mut Encoding<'_>,
    guards: &BTreeMap<Constraint, Lit>,
    rules: &BTreeSet<Constraint>,
) -> Option<Vec<Constraint>> {
    let fixed: Vec<Lit> = rules.iter().map(|rule| guards[rule]).collect();
    let others = guards.iter().filter(|(rule, _)| !rules.contains(*rule));
    // Each failed search names rules of which one is left out; rules that are in no contradiction
    // never are.
    let mut kept: BTreeSet<Lit> = others.map(|(_, guard)| *guard).collect();
    let mut out: BTreeSet<Lit> = BTreeSet::new();
    loop {
        let assumed: Vec<Lit> = fixed.iter().chain(&kept).copied().collect();
        if encoding.search(&assumed) == Answer::Yes {
            break;
        }
        let core = encoding.sat.core(&assumed);
        let left = *core.iter().find(|guard| kept.contains(guard))?;
        kept.remove(&left);
        out.insert(left);
    }
    // What can come back does.
    for guard in out.clone() {
        let assumed: Vec<Lit> = fixed.iter().chain(&kept).copied().chain([guard]).collect();
        if encoding.search(&assumed) == Answer::Yes {
            out.remove(&guard);
            kept.insert(guard);
        }
    }
    let out = guards.iter().filter(|(_, guard)| out.contains(guard));
    Some(out.map(|(rule, _)| *rule).collect())
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

/// Returns what would help. What gives an answer at once is all that is told, if there is such.
fn hints(model: &Model<'_>, core: &BTreeSet<Constraint>) -> Vec<Hint> {
    let mut tried: Vec<(Hint, Option<Problem<'_>>)> = Vec::new();
    for constraint in core {
        if let Some(info) = need_of(model, *constraint) {
            missing(model, info, &mut tried);
        }
        match *constraint {
            Constraint::World(at) => entry_hints(model, at, &mut tried),
            Constraint::Pinned(_) => tag_hints(model, *constraint, &mut tried),
            Constraint::Unavailable(_) => network_hint(model, *constraint, &mut tried),
            Constraint::Unasked(at) => choose_hint(model, core, at, &mut tried),
            Constraint::Depends(..) | Constraint::OneOffer(_) => {}
        }
    }
    let mut seen = BTreeSet::new();
    tried.retain(|(hint, _)| seen.insert(hint.clone()));
    let helps = |problem: &Problem<'_>| {
        let model = Model::new(problem);
        Encoding::new(&model, Grain::Fixed).search(&[]) == Answer::Yes
    };
    let (mut sure, mut maybe) = (Vec::new(), Vec::new());
    for (hint, problem) in tried {
        match problem {
            Some(problem) if !helps(&problem) => maybe.push((1, hint)),
            Some(_) => sure.push((1, hint)),
            None => {
                sure.push((0, hint.clone()));
                maybe.push((0, hint));
            }
        }
    }
    // With more than one contradiction no single step gives an answer; each is still needed.
    let mut hints = match sure.iter().any(|(rank, _)| *rank > 0) {
        true => sure,
        false => maybe,
    };
    let loosened: BTreeSet<String> = (hints.iter())
        .filter_map(|(_, hint)| match hint {
            Hint::Loosen { entry, .. } => Some(entry.clone()),
            _ => None,
        })
        .collect();
    hints.retain(|(_, hint)| !matches!(hint, Hint::Drop { entry } if loosened.contains(entry)));
    hints.sort();
    hints.into_iter().map(|(_, hint)| hint).collect()
}

/// A need that nothing answers: a wrong name, or a repository that is not there.
fn missing<'p>(
    model: &Model<'p>,
    info: &NeedInfo<'_>,
    tried: &mut Vec<(Hint, Option<Problem<'p>>)>,
) {
    if !info.answers.is_empty() {
        return;
    }
    if model.offers_of(info.name).is_empty() {
        tried.push((
            Hint::Rename {
                name: info.need.name.to_owned(),
                nearest: Vec::new(),
            },
            None,
        ));
    }
    tried.push((
        Hint::Repository {
            constraint: info.need.to_string(),
        },
        None,
    ));
}

fn entry_hints<'p>(model: &Model<'p>, at: usize, tried: &mut Vec<(Hint, Option<Problem<'p>>)>) {
    let wanted = model.problem.world[at];
    let entry = world_entry(model, at);
    let mut without = model.problem.clone();
    without.world.remove(at);
    if wanted.need.conflict {
        tried.push((Hint::DropConflict { entry }, Some(without)));
        return;
    }
    if !wanted.need.version.is_empty() {
        let mut loose = model.problem.clone();
        loose.world[at].need = any_version(wanted.need.name);
        let name = wanted.need.name.to_owned();
        let entry = entry.clone();
        tried.push((Hint::Loosen { entry, name }, Some(loose)));
    }
    tried.push((Hint::Drop { entry }, Some(without)));
}

fn any_version(name: &str) -> Need<'_> {
    Need {
        name,
        operator: Operator::ANY,
        version: "",
        conflict: false,
    }
}

fn tag_hints<'p>(
    model: &Model<'p>,
    constraint: Constraint,
    tried: &mut Vec<(Hint, Option<Problem<'p>>)>,
) {
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
        let hint = Hint::Tag {
            package: package.to_owned(),
            tag: (*text).to_owned(),
        };
        tried.push((hint, Some(allowed)));
    }
}

fn network_hint<'p>(
    model: &Model<'p>,
    constraint: Constraint,
    tried: &mut Vec<(Hint, Option<Problem<'p>>)>,
) {
    let offline = |at: &usize| model.candidate(*at).unavailable == Some(Unavailable::Network);
    let about: Vec<usize> = subjects(model, constraint)
        .into_iter()
        .filter(offline)
        .collect();
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
    tried.push((Hint::Network { packages }, Some(online)));
}

/// A name that several packages offer without any of them being chosen by itself.
fn choose_hint<'p>(
    model: &Model<'p>,
    core: &BTreeSet<Constraint>,
    at: usize,
    tried: &mut Vec<(Hint, Option<Problem<'p>>)>,
) {
    let own = model.own[at];
    let needs = core.iter().filter_map(|rule| need_of(model, *rule));
    for info in needs {
        let answers = info.answers.iter().filter(|answer| !answer.strong);
        let answers: Vec<usize> = answers.map(|answer| answer.candidate).collect();
        if !answers.iter().any(|answer| model.own[*answer] == own) {
            continue;
        }
        let names = answers.iter().map(|at| model.candidate(*at).name);
        let names: BTreeSet<&'p str> = names.collect();
        let mut good = Vec::new();
        for name in names {
            let mut chosen = model.problem.clone();
            chosen.world.push(Wanted {
                need: any_version(name),
                tag: 0,
            });
            let helps = {
                let model = Model::new(&chosen);
                Encoding::new(&model, Grain::Fixed).search(&[]) == Answer::Yes
            };
            if helps {
                good.push(name.to_owned());
            }
        }
        let Some(first) = good.first() else { continue };
        let mut chosen = model.problem.clone();
        if let Some(candidate) = chosen.candidates.iter().find(|c| c.name == first) {
            let need = any_version(candidate.name);
            chosen.world.push(Wanted { need, tag: 0 });
        }
        let hint = Hint::Choose {
            constraint: info.need.to_string(),
            packages: good,
        };
        tried.push((hint, Some(chosen)));
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
                    ([], others) => write!(f, "there is only {}", join(others, "and")),
                    ([answer], _) => write!(f, "only {answer} answers that"),
                    (answers, _) => write!(f, "one of {}", join(answers, "or")),
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
                let packages = join(packages, "and");
                write!(f, "{packages} all offer {name}: only one can be installed")
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
                write!(
                    f,
                    "instead of {name}, did you mean {}?",
                    join(nearest, "or")
                )
            }
            Self::Tag { package, tag } => {
                write!(f, "take {package} from @{tag}: add {package}@{tag}")
            }
            Self::Choose {
                constraint,
                packages,
            } => write!(f, "choose for {constraint}: add {}", join(packages, "or")),
            Self::Loosen { entry, name } => {
                write!(f, "accept any version instead of {entry}: add {name}")
            }
            Self::DropConflict { entry } => {
                let name = entry.trim_start_matches('!');
                write!(
                    f,
                    "give up the conflict {entry} in world: del '{entry}' or add {name}"
                )
            }
            Self::Drop { entry } => write!(f, "do without {entry}"),
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
        writeln!(f, "These cannot all hold:")?;
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
