//! `why`: the shortest chain from the world to an installed package.
//!
//! apk has no such command; `info --rdepends` answers one step of it. The graph has a node for the
//! world and one for each installed package; an arrow says "asks for", or "makes it install
//! itself" for install_if. The chain with the fewest arrows is shown, of several the one that asks
//! first.

use super::Answer;
use super::view::{PackageRef, View, accepts};
use crate::package::{Operator, World};
use petgraph::graph::{DiGraph, EdgeIndex, NodeIndex};
use petgraph::visit::EdgeRef;
use std::collections::{HashMap, VecDeque};
use std::fmt::Write as _;

/// One arrow of a chain.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Link {
    /// `NAME-VERSION` of what asks; `None` is the world.
    pub from: Option<String>,
    /// The constraint, or the whole list of conditions of an install_if.
    pub constraint: String,
    /// `NAME-VERSION` of what answers.
    pub to: String,
    /// The answer installs itself because of `from` and its other conditions.
    pub install_if: bool,
}

struct Arrow {
    constraint: String,
    install_if: bool,
}

struct Graph<'v> {
    view: &'v View<'v>,
    graph: DiGraph<Option<PackageRef>, Arrow>,
    nodes: HashMap<PackageRef, NodeIndex>,
    world: NodeIndex,
}

/// Returns for each word the installed packages that it names, each with its chain; the chain is
/// empty if nothing in the world leads to the package. A word that names nothing has an empty list.
pub fn chains(
    view: &View<'_>,
    world: &World,
    words: &[String],
) -> Vec<Vec<(PackageRef, Vec<Link>)>> {
    let graph = Graph::new(view, world);
    let arrows = graph.arrows_from_world();
    let of_word = |word: &String| {
        let mut found: Vec<PackageRef> = view.find_installed(word).into_iter().collect();
        if found.is_empty() {
            let offers = view.offers(word).map(|offer| offer.package);
            found = offers.filter(|p| view.is_installed(*p)).collect();
            found.dedup();
        }
        let chain = |package| (package, graph.chain(&arrows, package));
        found.into_iter().map(chain).collect()
    };
    words.iter().map(of_word).collect()
}

/// Answers `why`; the status is the number of words that name no installed package.
pub fn why(view: &View<'_>, world: &World, words: &[String], json: bool) -> Answer {
    let mut answer = Answer::default();
    let mut objects = Vec::new();
    for (word, found) in words.iter().zip(chains(view, world, words)) {
        if found.is_empty() {
            answer.errors.push(format!("{word}: not installed"));
            answer.status += 1;
        }
        for (package, chain) in found {
            let name = view.get(package).full_name();
            if json {
                objects.push(serde_json::json!({ "package": name, "chain": chain }));
            } else {
                tell(&name, &chain, &mut answer.text);
            }
        }
    }
    if json {
        let list = serde_json::Value::Array(objects);
        let _ = writeln!(answer.text, "{list:#}");
    }
    answer
}

fn tell(name: &str, chain: &[Link], out: &mut String) {
    if chain.is_empty() {
        let _ = writeln!(
            out,
            "{name} is installed, but nothing in the world needs it"
        );
        return;
    }
    let _ = writeln!(out, "{name} is installed because");
    for link in chain {
        let Link { constraint, to, .. } = link;
        let _ = match (&link.from, link.install_if) {
            (None, _) => writeln!(out, "  the world wants {constraint}: {to}"),
            (Some(from), false) => writeln!(out, "  {from} needs {constraint}: {to}"),
            (Some(from), true) => writeln!(
                out,
                "  {from} is there, and {to} installs itself with {constraint}"
            ),
        };
    }
}

impl<'v> Graph<'v> {
    fn new(view: &'v View<'v>, world: &World) -> Self {
        let mut graph = DiGraph::new();
        let top = graph.add_node(None);
        let nodes = view.installed_packages();
        let nodes = nodes.map(|package| (package, graph.add_node(Some(package))));
        let nodes = nodes.collect();
        let mut this = Self {
            view,
            graph,
            nodes,
            world: top,
        };
        for entry in world.entries.iter().filter(|entry| !entry.conflict) {
            for offer in view.offers(&entry.name) {
                let identity = view.get(offer.package).record.identity();
                let version = view.offered_version(offer);
                let met = match entry.operator {
                    Operator::CHECKSUM => entry.version == identity.to_q1(),
                    operator => operator.accepts(version, &entry.version),
                };
                if met {
                    this.arrow(top, offer.package, entry.to_string(), false);
                }
            }
        }
        for package in view.installed_packages() {
            this.arrows_of(package);
        }
        this
    }

    fn arrows_of(&mut self, package: PackageRef) {
        let view = self.view;
        let entry = view.get(package);
        let here = self.nodes[&package];
        for need in entry.record.depends().filter(|need| !need.conflict) {
            for answer in self.answers(package, &need) {
                self.arrow(here, answer, entry.spell(&need), false);
            }
        }
        let conditions = entry.install_if().join(" ");
        for need in entry.record.install_if().filter(|need| !need.conflict) {
            for answer in self.answers(package, &need) {
                let from = self.nodes[&answer];
                self.arrow(from, package, conditions.clone(), true);
            }
        }
    }

    fn answers(
        &self,
        package: PackageRef,
        need: &crate::package::table::TableDependency<'_>,
    ) -> Vec<PackageRef> {
        let view = self.view;
        let offers = view.offers(view.get(package).name_text(need.name));
        let offers = offers.filter(|offer| view.is_installed(offer.package));
        let answers = offers.filter(|offer| {
            let identity = view.get(offer.package).record.identity();
            accepts(need, view.offered_version(*offer), identity)
        });
        answers.map(|offer| offer.package).collect()
    }

    fn arrow(&mut self, from: NodeIndex, to: PackageRef, constraint: String, install_if: bool) {
        if let Some(to) = self.nodes.get(&to) {
            let arrow = Arrow {
                constraint,
                install_if,
            };
            self.graph.add_edge(from, *to, arrow);
        }
    }

    /// Returns for each node the last arrow of a shortest way from the world.
    fn arrows_from_world(&self) -> HashMap<NodeIndex, EdgeIndex> {
        let mut arrows = HashMap::new();
        let mut open = VecDeque::from([self.world]);
        while let Some(node) = open.pop_front() {
            // A graph lists its newest arrows first.
            let mut edges: Vec<_> = self.graph.edges(node).collect();
            edges.reverse();
            for edge in edges {
                if edge.target() != self.world && !arrows.contains_key(&edge.target()) {
                    arrows.insert(edge.target(), edge.id());
                    open.push_back(edge.target());
                }
            }
        }
        arrows
    }

    fn chain(&self, arrows: &HashMap<NodeIndex, EdgeIndex>, package: PackageRef) -> Vec<Link> {
        let mut chain = Vec::new();
        let mut node = self.nodes[&package];
        while let Some(edge) = arrows.get(&node) {
            let Some((from, to)) = self.graph.edge_endpoints(*edge) else {
                break;
            };
            let arrow = &self.graph[*edge];
            let name = |package: PackageRef| self.view.get(package).full_name();
            chain.push(Link {
                from: self.graph[from].map(name),
                constraint: arrow.constraint.clone(),
                to: self.graph[to].map(name).unwrap_or_default(),
                install_if: arrow.install_if,
            });
            node = from;
        }
        chain.reverse();
        chain
    }
}
