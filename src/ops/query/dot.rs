//! `dot`: the dependency graph as Graphviz text (cli.md, 2.12).

use super::Answer;
use super::fields::{Field, FieldSet};
use super::select::{Arguments, Selection};
use super::view::{PackageRef, View, accepts};
use crate::package::table::TableDependency;
use std::collections::{HashMap, HashSet};
use std::fmt::Write as _;

/// The place of a package that is not on the stack any more.
const NOT_OPEN: usize = usize::MAX;

/// Where the walk is within one package.
struct Frame {
    package: PackageRef,
    dependency: usize,
    /// Two steps for each package that answers the dependency.
    step: usize,
    providers: Vec<PackageRef>,
    /// The lowest place on the stack of what was found to be open, itself included.
    lowest: usize,
}

struct Walk<'v> {
    view: &'v View<'v>,
    only_errors: bool,
    only_installed: bool,
    /// Where on the stack a package is.
    places: HashMap<PackageRef, usize>,
    missing: HashSet<&'v str>,
    /// The lowest place on the stack that the package looked into last leads back to.
    lowest: usize,
    text: String,
}

/// Answers `dot`: the packages and everything they need. The status is 1 if there is nothing to
/// draw.
pub fn dot(
    view: &View<'_>,
    selection: &Selection,
    only_errors: bool,
    arguments: Arguments<'_>,
) -> Answer {
    let mut selection = *selection;
    if selection.match_fields.is_empty() {
        selection.match_fields = FieldSet::of(&[Field::Name, Field::Provides]);
    }
    let selection = &selection;
    let packages = match arguments {
        Arguments::Everything => everything(view, selection),
        // In the order of installation, as the solver gives it.
        Arguments::Resolved(identities) => (identities.iter())
            .filter_map(|identity| view.find(*identity))
            .filter(|package| selection.admits(view, *package))
            .collect(),
        // In the order of the command line, and for each word in that of apk's name table.
        Arguments::Patterns(words) => (words.chunks(1))
            .flat_map(|word| {
                let mut found = selection.select(view, Arguments::Patterns(word)).packages;
                found.sort_by_key(|package| view.own_key(*package));
                found
            })
            .collect(),
    };
    let mut walk = Walk {
        view,
        only_errors,
        only_installed: selection.installed,
        places: HashMap::new(),
        missing: HashSet::new(),
        lowest: NOT_OPEN,
        text: String::new(),
    };
    for package in packages {
        walk.run(package);
    }
    if walk.text.is_empty() {
        return Answer::with_status(String::new(), 1);
    }
    Answer::text(format!(
        "digraph \"apkindex\" {{\n  rankdir=LR;\n  node [shape=box];\n{}}}\n",
        walk.text
    ))
}

/// Returns all packages that the filters let pass, in the order of apk's name table.
fn everything(view: &View<'_>, selection: &Selection) -> Vec<PackageRef> {
    let mut names: Vec<_> = view.names().collect();
    names.sort_unstable_by_key(|(source, name)| view.table_key(*source, *name));
    let packages = names.into_iter().flat_map(|(source, name)| {
        let text = view.table(source).name(name);
        view.named(text).collect::<Vec<_>>()
    });
    packages
        .filter(|package| selection.admits(view, *package))
        .collect()
}

impl<'v> Walk<'v> {
    /// Draws what a package needs, depth first; the stack is ours, since chains of dependencies can
    /// be as long as a repository.
    fn run(&mut self, start: PackageRef) {
        let mut stack = Vec::new();
        self.enter(start, &mut stack);
        while let Some(frame) = stack.last_mut() {
            let package = frame.package;
            let entry = self.view.get(package);
            let Some(dependency) = entry.record.depends().nth(frame.dependency) else {
                self.lowest = frame.lowest;
                stack.pop();
                if self.lowest >= stack.len() {
                    self.lowest = NOT_OPEN;
                }
                self.places.insert(package, NOT_OPEN);
                self.malformed_offers(package);
                continue;
            };
            if frame.step == 0 {
                frame.providers = self.open(package, &dependency);
            }
            // An even step looks into a package, the odd one after it draws the arrow to it.
            let (at, arrow) = (frame.step / 2, frame.step % 2 == 1);
            frame.step += 1;
            let Some(provider) = frame.providers.get(at).copied() else {
                frame.dependency += 1;
                frame.step = 0;
                continue;
            };
            if arrow {
                frame.lowest = frame.lowest.min(self.lowest);
                self.arrow(package, &dependency, provider);
            } else {
                self.enter(provider, &mut stack);
            }
        }
    }

    /// Looks into a package unless that was done; notes whether that closes a circle.
    fn enter(&mut self, package: PackageRef, stack: &mut Vec<Frame>) {
        match self.places.get(&package) {
            Some(place) => self.lowest = *place,
            None => {
                self.places.insert(package, stack.len());
                stack.push(Frame {
                    package,
                    dependency: 0,
                    step: 0,
                    providers: Vec::new(),
                    lowest: NOT_OPEN,
                });
            }
        }
    }

    /// Starts a dependency: draws it if something is wrong with it; returns what answers it.
    fn open(&mut self, package: PackageRef, need: &TableDependency<'v>) -> Vec<PackageRef> {
        if need.conflict {
            return Vec::new();
        }
        let entry = self.view.get(package);
        let name = entry.name_text(need.name);
        let nothing = self.view.offers(name).next().is_none();
        if need.broken {
            self.malformed(package, need, "normal");
        } else if nothing {
            self.missing(name);
            let full = entry.full_name();
            let _ = writeln!(self.text, "  \"{full}\" -> \"{name}\" [color=red];");
        }
        self.providers(package, need)
    }

    fn missing(&mut self, name: &'v str) {
        if self.missing.insert(name) {
            let _ = writeln!(
                self.text,
                "  \"{name}\" [style=dashed, color=red, fontcolor=red, shape=octagon];"
            );
        }
    }

    fn malformed(&mut self, package: PackageRef, need: &TableDependency<'v>, head: &str) {
        let entry = self.view.get(package);
        let name = entry.name_text(need.name);
        self.missing(name);
        let (full, label) = (entry.full_name(), entry.spell(need));
        let _ = writeln!(
            self.text,
            "  \"{full}\" -> \"{name}\" [arrowhead={head},style=dashed,color=red,\
             fontcolor=red,label=\"{label}\"];"
        );
    }

    /// Draws the malformed entries of the lists that are not followed.
    fn malformed_offers(&mut self, package: PackageRef) {
        let record = self.view.get(package).record;
        for offer in record.provides().filter(|offer| offer.broken) {
            self.malformed(package, &offer, "inv");
        }
        for condition in record.install_if().filter(|need| need.broken) {
            self.malformed(package, &condition, "diamond");
        }
    }

    fn providers(&self, package: PackageRef, need: &TableDependency<'v>) -> Vec<PackageRef> {
        let name = self.view.get(package).name_text(need.name);
        let mut providers = Vec::new();
        for offer in self.view.offers(name) {
            let identity = self.view.get(offer.package).record.identity();
            let version = self.view.offered_version(offer);
            let hidden = self.only_installed && !self.view.is_installed(offer.package);
            if !hidden && accepts(need, version, identity) {
                providers.push(offer.package);
            }
        }
        providers
    }

    fn arrow(&mut self, package: PackageRef, need: &TableDependency<'v>, provider: PackageRef) {
        let circle = self.lowest != NOT_OPEN;
        if self.only_errors && !circle {
            return;
        }
        let (from, to) = (self.view.get(package), self.view.get(provider));
        let name = from.name_text(need.name);
        let mut style = String::new();
        if circle {
            style.push_str("color=red,");
        }
        if name != to.name() {
            let _ = write!(style, "arrowhead=inv,label=\"{name}\",");
        }
        let (from, to) = (from.full_name(), to.full_name());
        let _ = writeln!(self.text, "  \"{from}\" -> \"{to}\"[{style}];");
    }
}
