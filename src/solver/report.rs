//! Why there is no answer, in apk's words (solver.md, chapter 6).

use super::changes::{Change, answer};
use super::ids::{NameId, PackageId, TagId};
use super::layout::Layout;
use super::links::Links;
use super::universe::{Need, Offer, Universe};
use super::{Solution, universe};
use crate::package::{Dependency, Operator, Version, order};
use std::cmp::Ordering;

/// The first line, to be printed as an error.
pub const TITLE: &str = "unable to select packages:";

/// Returns what follows the first line: blocks of indented lists, each line ending in a newline.
///
/// `width` comes from [`output_width`](super::output_width).
pub fn report(universe: &Universe<'_>, solution: &Solution, width: usize) -> String {
    let mut report = Report::new(universe, solution, width);
    report.mark_all();
    report.world_names();
    for change in &solution.changes {
        if let Some(package) = change.new {
            report.package(package, change);
            report.missing_of(package);
        }
    }
    if !report.printed {
        return "Huh? Error reporter did not find the broken constraints.\n".to_owned();
    }
    report.layout.finish()
}

/// Why something is present; also used as a set.
#[derive(Clone, Copy, Default)]
struct Marks {
    present: bool,
    triggered: bool,
    bare: bool,
    missing: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Present,
    Triggered,
    Bare,
}

impl Marks {
    fn has(&mut self, kind: Kind) -> &mut bool {
        match kind {
            Kind::Present => &mut self.present,
            Kind::Triggered => &mut self.triggered,
            Kind::Bare => &mut self.bare,
        }
    }
}

/// A dependency and who has it; nobody is the world.
#[derive(Clone, Copy)]
struct Asked<'u> {
    from: Option<PackageId>,
    need: Need<'u>,
    tag: TagId,
}

enum Task {
    /// Marks the offers of a name, from a position on.
    Mark(NameId, Kind, usize),
    MarkDepends(PackageId, u32),
    Wake(NameId),
    WakeOffers(NameId, usize, usize),
}

struct Report<'r> {
    universe: &'r Universe<'r>,
    world: Vec<Asked<'r>>,
    selected: Vec<bool>,
    names: Vec<Marks>,
    packages: Vec<Marks>,
    tasks: Vec<Task>,
    layout: Layout,
    label: Option<String>,
    printed: bool,
}

impl<'r> Report<'r> {
    fn new(universe: &'r Universe<'r>, solution: &'r Solution, width: usize) -> Self {
        let mut selected = vec![false; universe.package_count()];
        for package in solution.selected() {
            selected[package.0 as usize] = true;
        }
        let entries = solution.world.entries.iter();
        let world = entries.filter_map(|entry| {
            let tag = entry.tag.as_ref().and_then(|tag| universe.find_tag(tag));
            Some(Asked {
                from: None,
                need: Need::new(universe.find(&entry.name)?, entry),
                tag: tag.unwrap_or_default(),
            })
        });
        Self {
            universe,
            world: world.collect(),
            selected,
            names: vec![Marks::default(); universe.name_count()],
            packages: vec![Marks::default(); universe.package_count()],
            tasks: Vec::new(),
            layout: Layout::new(width),
            label: None,
            printed: false,
        }
    }

    fn is_selected(&self, package: PackageId) -> bool {
        self.selected[package.0 as usize]
    }

    /// Marks what the world brings in (6.3).
    fn mark_all(&mut self) {
        for at in 0..self.world.len() {
            let need = self.world[at].need;
            if !need.conflict {
                self.tasks.push(Task::Mark(need.name, Kind::Present, 0));
                while let Some(task) = self.tasks.pop() {
                    self.step(task);
                }
            }
        }
    }

    fn step(&mut self, task: Task) {
        match task {
            Task::Mark(name, kind, at) => {
                if let Some(offer) = self.universe.offers(name).get(at) {
                    self.tasks.push(Task::Mark(name, kind, at + 1));
                    self.mark(*offer, name, kind);
                }
            }
            Task::MarkDepends(package, at) => {
                if let Some(need) = self.universe.depend_at(package, at) {
                    self.tasks.push(Task::MarkDepends(package, at + 1));
                    if !need.conflict {
                        self.tasks.push(Task::Mark(need.name, Kind::Present, 0));
                    }
                }
            }
            Task::Wake(name) => self.tasks.push(Task::WakeOffers(name, 0, 0)),
            Task::WakeOffers(name, triggered, offer) => self.wake(name, triggered, offer),
        }
    }

    fn mark(&mut self, offer: Offer, name: NameId, kind: Kind) {
        let (universe, package) = (self.universe, offer.package);
        if !self.is_selected(package) {
            return;
        }
        let stands_for_itself = universe.record(package).provider_priority() != 0
            || universe.own_name(package) == name
            || (universe.provides(package)).any(|p| p.name == name && !p.version.is_empty());
        let kind = if stands_for_itself { kind } else { Kind::Bare };
        if std::mem::replace(self.packages[package.0 as usize].has(kind), true) {
            return;
        }
        let own = universe.own_name(package);
        *self.names[own.0 as usize].has(kind) = true;
        for provided in universe.provides(package) {
            let kind = match kind {
                Kind::Triggered if provided.version.is_empty() => Kind::Bare,
                kind => kind,
            };
            *self.names[provided.name.0 as usize].has(kind) = true;
        }
        if kind != Kind::Bare {
            let provides = universe.provide_names(package).iter().rev();
            self.tasks.extend(provides.map(|name| Task::Wake(*name)));
            self.tasks.push(Task::Wake(own));
        }
        self.tasks.push(Task::MarkDepends(package, 0));
    }

    fn wake(&mut self, name: NameId, triggered: usize, offer: usize) {
        let universe = self.universe;
        let Some(other) = universe.triggers(name).get(triggered) else {
            return;
        };
        let Some(found) = universe.offers(*other).get(offer) else {
            self.tasks.push(Task::WakeOffers(name, triggered + 1, 0));
            return;
        };
        self.tasks
            .push(Task::WakeOffers(name, triggered, offer + 1));
        let package = found.package;
        if !self.is_selected(package) || universe.install_if_names(package).is_empty() {
            return;
        }
        let holds = universe.install_if(package).all(|need| {
            let marks = self.names[need.name.0 as usize];
            (marks.present || marks.triggered) != need.conflict
        });
        if holds {
            let names = universe.provide_names(package).iter().rev().copied();
            let names = names.chain([universe.own_name(package)]);
            self.tasks
                .extend(names.map(|name| Task::Mark(name, Kind::Triggered, 0)));
        }
    }

    fn world_names(&mut self) {
        for at in 0..self.world.len() {
            let need = self.world[at].need;
            self.missing(need);
        }
    }

    fn missing_of(&mut self, package: PackageId) {
        let universe = self.universe;
        for need in universe.depends(package) {
            self.missing(need);
        }
    }

    /// Reports a name that nothing stands for (6.4).
    fn missing(&mut self, need: Need<'_>) {
        let marks = &mut self.names[need.name.0 as usize];
        if need.conflict || marks.present || marks.triggered || marks.missing {
            return;
        }
        marks.missing = true;
        let text = self.universe.name_text(need.name);
        if self.universe.offers(need.name).is_empty() {
            self.begin(format!("{text} (no such package)"));
        } else {
            self.begin(format!("{text} (virtual)"));
            for word in "please select one of the 'provided by' packages explicitly".split(' ') {
                self.entry("note:", word);
            }
            self.layout.end();
            self.providers(need.name);
            self.layout.end();
        }
        self.required_by(need.name);
        self.layout.end();
    }

    fn providers(&mut self, name: NameId) {
        let universe = self.universe;
        let offers = universe.offers(name);
        let mut counts = std::collections::HashMap::new();
        for offer in offers {
            *counts.entry(universe.own_name(offer.package)).or_insert(0) += 1;
        }
        for offer in offers {
            let own = universe.own_name(offer.package);
            let Some(count) = counts.get_mut(&own) else {
                continue;
            };
            if *count == universe.offers(own).len() {
                *count = 0;
                self.entry("provided by:", universe.package_name(offer.package));
            } else if *count > 0 {
                *count -= 1;
                self.entry("provided by:", &universe.full_name(offer.package));
            }
        }
    }

    fn required_by(&mut self, name: NameId) {
        for at in 0..self.world.len() {
            let asked = self.world[at];
            if asked.need.name == name && !asked.need.conflict {
                let text = self.asked_text(&asked);
                self.entry("required by:", &text);
            }
        }
        let universe = self.universe;
        let mut used = std::collections::HashSet::new();
        for dependent in self.dependents(name) {
            for offer in universe.offers(dependent) {
                let package = offer.package;
                if !self.is_selected(package) || !used.insert(package) {
                    continue;
                }
                let wanting = |need: &Need<'_>| need.name == name && !need.conflict;
                if let Some(need) = universe.depends(package).find(wanting) {
                    let text = self.asked_text(&Asked {
                        from: Some(package),
                        need,
                        tag: TagId::DEFAULT,
                    });
                    self.entry("required by:", &text);
                    break;
                }
            }
        }
    }

    /// Returns the dependents of a name, as far as selected packages make them so. The others
    /// would only be passed over.
    fn dependents(&self, name: NameId) -> Vec<NameId> {
        let universe = self.universe;
        let mentioning = universe.mentioning(name).filter(|p| self.is_selected(*p));
        let (late, early): (Vec<_>, Vec<_>) = mentioning.partition(|p| universe.is_late(*p));
        let names = |package| universe.offered_names(package);
        let mut list: Vec<NameId> = early.into_iter().flat_map(names).collect();
        list.sort_by_cached_key(|name| universe.table_key(*name));
        list.dedup();
        for name in late.into_iter().flat_map(names) {
            if !list.contains(&name) {
                list.push(name);
            }
        }
        list
    }

    /// Reports what is wrong with a selected package (6.6).
    fn package(&mut self, package: PackageId, change: &Change) {
        let universe = self.universe;
        self.begin(universe.full_name(package));
        self.uninstallable(package);
        if !universe.is_installed(package) {
            self.masked(package, change.new_tag);
            self.layout.end();
        }
        self.conflicts(package);
        self.layout.end();
        let asked = self.collect_asked(package);
        for (asked, _) in asked.iter().filter(|(_, positive)| !positive) {
            let text = self.asked_text(asked);
            self.entry("breaks:", &text);
        }
        self.layout.end();
        if self.label.is_none() {
            for (asked, _) in asked.iter().filter(|(_, positive)| *positive) {
                let text = self.asked_text(asked);
                self.entry("satisfies:", &text);
            }
        }
        self.layout.end();
    }

    fn uninstallable(&mut self, package: PackageId) {
        let universe = self.universe;
        if !universe.is_uninstallable(package) {
            return;
        }
        self.entry("error:", "uninstallable");
        self.layout.end();
        if !universe.fits_architecture(package) {
            let arch = universe.record(package).arch().unwrap_or_default();
            self.entry("arch:", arch);
            self.layout.end();
        }
        let lists: [(&str, Vec<Need<'_>>); 3] = [
            ("depends:", universe.depends(package).collect()),
            ("provides:", universe.provides(package).collect()),
            ("install_if:", universe.install_if(package).collect()),
        ];
        for (heading, list) in lists {
            for need in list.iter().filter(|need| need.broken) {
                self.entry(heading, &expression(universe, need));
            }
            self.layout.end();
        }
    }

    fn masked(&mut self, package: PackageId, new_tag: TagId) {
        let universe = self.universe;
        let listed = universe.repository_set(package);
        if !universe.is_available(package) {
            self.entry("masked in:", "--no-network");
        } else if listed.is_empty() && universe.is_cached(package) {
            self.entry("masked in:", "cache");
        } else if !listed.is_empty()
            && ![TagId::DEFAULT, new_tag]
                .iter()
                .any(|tag| listed.meets(universe.repositories_of_tag(*tag)))
        {
            for tag in universe.tags() {
                if listed.meets(universe.repositories_of_tag(tag)) {
                    let text = universe.tag_text(tag).unwrap_or_default();
                    self.entry("masked in:", &format!("@{text}"));
                }
            }
        }
    }

    fn conflicts(&mut self, package: PackageId) {
        let universe = self.universe;
        let own = universe.own_name(package);
        for offer in universe.offers(own) {
            if offer.package != package && self.is_selected(offer.package) {
                let text = universe.full_name(offer.package);
                self.entry("conflicts:", &text);
            }
        }
        for provided in universe.provides(package) {
            let mut is_own_first = true;
            for offer in universe.offers(provided.name) {
                if !self.is_selected(offer.package) {
                    continue;
                }
                let version = universe.offer_version(*offer);
                if version.is_empty() && provided.version.is_empty() {
                    continue;
                }
                if offer.package == package && is_own_first && version == provided.version {
                    is_own_first = false;
                    continue;
                }
                let text = format!(
                    "{}[{}]",
                    universe.full_name(offer.package),
                    expression(universe, &provided)
                );
                self.entry("conflicts:", &text);
            }
        }
    }

    /// Returns who asks something of a package, and whether it answers positively.
    fn collect_asked(&self, package: PackageId) -> Vec<(Asked<'r>, bool)> {
        let universe = self.universe;
        let mut all = Vec::new();
        for asked in &self.world {
            if let Some(positive) = answer(universe, &asked.need, None, package) {
                all.push((*asked, positive));
            }
        }
        all.sort_by(|(a, _), (b, _)| compare_asked(universe, a, b));
        let mut used = std::collections::HashSet::new();
        let mut of_packages = Vec::new();
        let links = Links::new(universe);
        for name in universe.offered_names(package) {
            // Whoever has a name that somebody with it depends under is looked at, too: that
            // decides the order among packages with equal names and versions.
            let dependents = links.dependents(name);
            let offers = dependents
                .iter()
                .flat_map(|dependent| universe.offers(*dependent));
            for from in offers.map(|offer| offer.package) {
                if !self.is_selected(from) || !used.insert(from) {
                    continue;
                }
                for need in universe.depends(from) {
                    if let Some(positive) = answer(universe, &need, Some(from), package) {
                        let asked = Asked {
                            from: Some(from),
                            need,
                            tag: TagId::DEFAULT,
                        };
                        of_packages.push((asked, positive));
                    }
                }
            }
        }
        of_packages.sort_by(|(a, _), (b, _)| compare_asked(universe, a, b));
        all.extend(of_packages);
        all
    }

    fn asked_text(&self, asked: &Asked<'_>) -> String {
        let universe = self.universe;
        let expression = expression(universe, &asked.need);
        match asked.from {
            Some(package) => format!("{}[{expression}]", universe.full_name(package)),
            None => {
                let tag = universe.tag_text(asked.tag);
                let tag = tag.map(|tag| format!("@{tag}")).unwrap_or_default();
                format!("world[{expression}{tag}]")
            }
        }
    }

    /// Sets the label of a block; it is printed together with its first heading.
    fn begin(&mut self, label: String) {
        self.label = Some(label);
    }

    fn entry(&mut self, heading: &str, item: &str) {
        if let Some(label) = self.label.take() {
            self.layout.line(&format!("  {label}:"));
            self.printed = true;
        }
        self.layout.heading(&format!("    {heading}"));
        self.layout.item(item);
    }
}

fn expression(universe: &universe::Universe<'_>, need: &Need<'_>) -> String {
    Dependency {
        name: universe.name_text(need.name).to_owned(),
        operator: need.operator,
        version: need.version.to_owned(),
        conflict: need.conflict,
        tag: None,
        broken: need.broken,
    }
    .without_tag()
}

fn compare_asked(universe: &Universe<'_>, a: &Asked<'_>, b: &Asked<'_>) -> Ordering {
    let by_package = match (a.from, b.from) {
        (Some(a), Some(b)) => order::by_name(universe.package_name(a), universe.package_name(b))
            .then_with(|| Version(universe.version(a)).compare(Version(universe.version(b)))),
        _ => Ordering::Equal,
    };
    by_package.then_with(|| operator_code(&a.need).cmp(&operator_code(&b.need)))
}

fn operator_code(need: &Need<'_>) -> u8 {
    let code = if need.operator == Operator::ANY {
        7
    } else {
        need.operator.mask()
    };
    code + if need.conflict { 16 } else { 0 }
}
