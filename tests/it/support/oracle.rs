//! What an answer must hold, and whether there is one: the rules of packages written down once more,
//! as plainly as possible, for scenes. Nothing of the library is used.
//!
//! A selection is a set of records as bits of a number, so that all of them can be tried.

use super::scene::{Bound, NAMES, Need, OPERATORS, PREFIX, Record, Scene, TAGS, VERSIONS};

/// A set of records.
pub(crate) type Selection = u32;

/// A scene as masks of records.
pub(crate) struct Oracle<'s> {
    scene: &'s Scene,
    /// What can be had at all.
    available: Selection,
    /// For each record those that it can not live with; itself, if it can not live at all.
    clashes: Vec<Selection>,
    /// For each record, what answers each of its dependencies.
    depends: Vec<Vec<Answers>>,
    /// For each record with conditions, what answers each of them, and what must be absent.
    conditions: Vec<(Vec<Answers>, Selection)>,
    world: Vec<(Answers, usize)>,
    /// Records that the world forbids.
    forbidden: Selection,
    /// For each conflict of the world, what has the name and is not forbidden by it; and its tag.
    spared: Vec<(Selection, usize)>,
    /// For each record, what has a name of its conflicts.
    conflicts: Vec<Selection>,
    /// For each tag, the records that count to its repositories.
    tagged: Vec<Selection>,
    /// What needs no tag.
    free: Selection,
}

/// What answers a need.
#[derive(Clone, Copy, Debug, Default)]
struct Answers {
    all: Selection,
    /// Those that may be chosen for the sake of the need: by an offer with a version, or by priority.
    strong: Selection,
}

/// Offers of a record: its own name, then what it provides.
fn offers(record: &Record) -> impl Iterator<Item = (usize, Option<usize>)> + '_ {
    let own = (record.name, Some(record.version));
    std::iter::once(own).chain(record.provides.iter().copied())
}

/// Returns whether a need, taken as a positive one, accepts a version. No version at all is less than
/// any.
fn accepts(bound: &Bound, version: Option<usize>, record: usize) -> bool {
    match bound {
        Bound::Any => true,
        Bound::Build(wanted) => *wanted == record,
        Bound::Version(operator, wanted) => {
            let operator = OPERATORS[*operator];
            let prefix = |version: usize| operator.contains('~') && PREFIX[version][*wanted];
            match version {
                None => operator.contains('<'),
                Some(version) if version == *wanted || prefix(version) => {
                    operator.contains(['=', '~'])
                }
                Some(version) if version < *wanted => operator.contains('<'),
                Some(_) => operator.contains('>'),
            }
        }
        Bound::Odd(_) => panic!("not in scenes for the oracle"),
    }
}

/// Returns whether a need that is a conflict is violated by an offer. The identity is not looked at
/// in conflicts: its text is a version that every version differs from.
fn violates(bound: &Bound, version: Option<usize>, record: usize) -> bool {
    match bound {
        Bound::Build(_) => version.is_some(),
        _ => accepts(bound, version, record),
    }
}

impl<'s> Oracle<'s> {
    pub(crate) fn new(scene: &'s Scene, world: &[Need]) -> Self {
        let count = scene.records.len();
        let mut oracle = Self {
            scene,
            available: 0,
            clashes: vec![0; count],
            depends: Vec::new(),
            conditions: Vec::new(),
            world: Vec::new(),
            forbidden: 0,
            spared: Vec::new(),
            conflicts: vec![0; count],
            tagged: Vec::new(),
            free: 0,
        };
        for tag in 0..TAGS.len() {
            let of_tag = |record: &&Record| oracle.counts_to(record, tag);
            let set = oracle.select(&of_tag);
            oracle.tagged.push(set);
        }
        oracle.available = oracle.select(&|record| oracle.is_available(record));
        let free = |record: &&Record| {
            let known = record.remembered && oracle.has("--root-tmpfs=yes");
            oracle.counts_to(record, 0)
                || record.installed_size == 0
                || record.installed.is_some()
                || known
        };
        oracle.free = oracle.select(&free);
        oracle.add_clashes();
        for (number, record) in scene.records.iter().enumerate() {
            let depends = effective_depends(record);
            let positive = depends.iter().filter(|need| !need.conflict);
            let answers = positive.map(|need| oracle.answers(need));
            let answers = answers.collect();
            oracle.depends.push(answers);
            for need in depends.iter().filter(|need| need.conflict) {
                let violators = oracle.violators(need) & !(1 << number);
                oracle.clash(number, violators);
                oracle.conflicts[number] |= oracle.named(need.name);
            }
            let positive = record.install_if.iter().filter(|need| !need.conflict);
            let answers = positive.map(|need| oracle.answers(need)).collect();
            let negative = record.install_if.iter().filter(|need| need.conflict);
            let absent = negative.map(|need| oracle.violators(need));
            let absent = absent.fold(0, |all, one| all | one) & !(1 << number);
            oracle.conditions.push((answers, absent));
        }
        for need in world {
            if need.conflict {
                let violators = oracle.violators(need);
                oracle.forbidden |= violators;
                oracle
                    .spared
                    .push((oracle.named(need.name) & !violators, need.tag));
            } else {
                let answers = oracle.answers(need);
                oracle.world.push((answers, need.tag));
            }
        }
        oracle
    }

    fn has(&self, option: &str) -> bool {
        self.scene.options.contains(&option)
    }

    fn select(&self, holds: &dyn Fn(&&Record) -> bool) -> Selection {
        let all = self.scene.records.iter().enumerate();
        let chosen = all.filter(|(_, record)| holds(record));
        chosen.fold(0, |set, (number, _)| set | 1 << number)
    }

    /// Its repositories or, if it is installed, those of the tag it was installed with.
    fn counts_to(&self, record: &Record, tag: usize) -> bool {
        let of_tag = |number: &usize| self.scene.repositories[*number].tag == tag;
        if record.repositories.iter().any(of_tag) {
            return true;
        }
        let installed = record.installed.as_ref();
        let repositories = 0..self.scene.repositories.len();
        installed.is_some_and(|how| how.tag == tag) && repositories.into_iter().any(|n| of_tag(&n))
    }

    fn is_available(&self, record: &Record) -> bool {
        let foreign = record.odd_line == Some("A:mips");
        let reachable = !self.has("--no-network") && !record.repositories.is_empty();
        let remembered = record.remembered && self.has("--root-tmpfs=yes");
        let had = reachable
            || record.cached
            || remembered
            || record.installed_size == 0
            || record.installed.is_some();
        // What only the cache's index lists is not known while that is not read.
        let only_remembered =
            record.remembered && record.installed.is_none() && record.repositories.is_empty();
        (remembered || !only_remembered) && !foreign && had
    }

    fn answers(&self, need: &Need) -> Answers {
        let mut answers = Answers::default();
        for (number, record) in self.scene.records.iter().enumerate() {
            for (name, version) in offers(record) {
                if name == need.name && accepts(&need.bound, version, number) {
                    answers.all |= 1 << number;
                    if version.is_some() || record.priority != 0 {
                        answers.strong |= 1 << number;
                    }
                }
            }
        }
        answers
    }

    /// Returns the records that offer a name.
    fn named(&self, name: usize) -> Selection {
        self.select(&|record| offers(record).any(|(other, _)| other == name))
    }

    fn violators(&self, need: &Need) -> Selection {
        let mut violators = 0;
        for (number, record) in self.scene.records.iter().enumerate() {
            let violates = |(name, version): (usize, Option<usize>)| {
                name == need.name && violates(&need.bound, version, number)
            };
            if offers(record).any(violates) {
                violators |= 1 << number;
            }
        }
        violators
    }

    fn clash(&mut self, number: usize, others: Selection) {
        self.clashes[number] |= others;
        for (other, clashes) in self.clashes.iter_mut().enumerate() {
            if others & 1 << other != 0 {
                *clashes |= 1 << number;
            }
        }
    }

    /// A name has one owner, unless all that is offered is bare.
    fn add_clashes(&mut self) {
        let records = &self.scene.records;
        for (a, first) in records.iter().enumerate() {
            for (b, second) in records.iter().enumerate().skip(a) {
                let hit = offers(first).enumerate().any(|(i, (name, version))| {
                    offers(second)
                        .enumerate()
                        .any(|(j, (other, other_version))| {
                            let itself = a == b && i == j;
                            let bare = version.is_none() && other_version.is_none();
                            !itself && name == other && !bare
                        })
                });
                if hit {
                    self.clashes[a] |= 1 << b;
                    self.clashes[b] |= 1 << a;
                }
            }
        }
    }

    /// Returns the rule that a selection breaks, if any.
    ///
    /// `lenient` allows what happens by apk's rules but is not worth finding: a package that offers
    /// a name only bare is chosen for it because it also needs itself.
    pub(crate) fn broken_rule(&self, selection: Selection, lenient: bool) -> Option<String> {
        let records = &self.scene.records;
        let name = |number: usize| format!("{number}: {}", records[number].full_name());
        for number in bits(selection) {
            if self.available & 1 << number == 0 {
                return Some(format!("{} cannot be had", name(number)));
            }
            if self.clashes[number] & selection != 0 {
                let other = bits(self.clashes[number] & selection).next();
                let other = other.map(name).unwrap_or_default();
                return Some(format!("{} cannot live with {other}", name(number)));
            }
            if self.depends[number]
                .iter()
                .any(|need| need.all & selection == 0)
            {
                return Some(format!("a dependency of {} is not met", name(number)));
            }
        }
        if selection & self.forbidden != 0 {
            return Some("a conflict of the world is violated".to_owned());
        }
        if self.world.iter().any(|(need, _)| need.all & selection == 0) {
            return Some("an entry of the world is not met".to_owned());
        }
        let stray = selection & !self.reached(selection, lenient);
        if let Some(number) = bits(stray).next() {
            return Some(format!("nothing asks for {}", name(number)));
        }
        if !lenient && let Some(text) = self.unchosen(selection) {
            return Some(text);
        }
        let pinned = selection & !self.free & !self.carried(selection);
        let number = bits(pinned).next()?;
        Some(format!("{} needs its tag", name(number)))
    }

    /// A name that only bare offers without priority have is a choice for the user: a package that
    /// installs itself does not make it, unless something asks for that package, too.
    fn unchosen(&self, selection: Selection) -> Option<String> {
        let reached = self.reached(selection, false);
        let needs = bits(reached).flat_map(|number| &self.depends[number]);
        let needs = needs.chain(self.world.iter().map(|(need, _)| need));
        let needs: Vec<&Answers> = needs.collect();
        let asked = needs.iter().fold(0, |all, need| all | need.strong);
        let silent = |number: &usize| {
            self.scene.records[*number].install_if.is_empty() || asked & 1 << number != 0
        };
        let counts = bits(selection).filter(silent);
        let counts = counts.fold(0, |set, number| set | 1 << number);
        let met = |need: &Answers| (need.strong | need.all & counts) & selection != 0;
        let all_met = needs.into_iter().all(met);
        (!all_met).then(|| "what installs itself is taken for a choice".to_owned())
    }

    /// Returns whether a selection has what the world wants.
    pub(crate) fn meets_world(&self, selection: Selection) -> bool {
        let met = |need: &Answers| need.all & selection != 0;
        selection & self.forbidden == 0 && self.world.iter().all(|(need, _)| met(need))
    }

    /// Returns the records of a selection as text.
    pub(crate) fn names(&self, selection: Selection) -> String {
        let names = bits(selection).map(|number| self.scene.records[number].full_name());
        names.collect::<Vec<_>>().join(" ")
    }

    /// Returns what of a selection the world leads to.
    fn reached(&self, selection: Selection, lenient: bool) -> Selection {
        let mut reached = 0;
        let asked = |need: &Answers| selection & if lenient { need.all } else { need.strong };
        for (need, _) in &self.world {
            reached |= asked(need);
        }
        loop {
            let before = reached;
            for number in bits(selection) {
                if before & 1 << number != 0 {
                    for need in &self.depends[number] {
                        reached |= asked(need);
                    }
                }
                if self.is_triggered(number, selection, reached) {
                    reached |= 1 << number;
                }
            }
            if reached == before {
                return reached;
            }
        }
    }

    fn is_triggered(&self, number: usize, selection: Selection, reached: Selection) -> bool {
        let (positive, absent) = &self.conditions[number];
        !self.scene.records[number].install_if.is_empty()
            && positive.iter().all(|need| need.all & reached != 0)
            && absent & selection == 0
    }

    /// Returns what of a selection is reached by a requirement with a tag of its repositories.
    fn carried(&self, selection: Selection) -> Selection {
        let mut carried = 0;
        for tag in 1..TAGS.len() {
            let mut reached = 0;
            for (need, _) in self.world.iter().filter(|(_, of)| *of == tag) {
                reached |= need.all & selection;
            }
            for (named, _) in self.spared.iter().filter(|(_, of)| *of == tag) {
                reached |= named & selection;
            }
            loop {
                let before = reached;
                for number in bits(selection) {
                    if before & 1 << number != 0 {
                        for need in &self.depends[number] {
                            reached |= need.all & selection;
                        }
                        // A conflict, too, hands tags on to what does not violate it.
                        reached |= self.conflicts[number] & selection;
                    }
                    // What installs itself has the tags of what its conditions found.
                    let (positive, _) = &self.conditions[number];
                    let owners = positive.iter().fold(0, |all, need| all | need.all);
                    if owners & selection & before != 0
                        && self.is_triggered(number, selection, selection)
                    {
                        reached |= 1 << number;
                    }
                }
                if reached == before {
                    break;
                }
            }
            carried |= reached & self.tagged[tag];
        }
        carried
    }

    /// Tries every selection; returns one that breaks no rule.
    pub(crate) fn solve(&self) -> Option<Selection> {
        let usable = bits(self.available & !self.forbidden);
        let usable: Vec<usize> = usable
            .filter(|number| self.clashes[*number] & 1 << number == 0)
            .collect();
        self.extend(&usable, 0, 0)
    }

    fn extend(&self, open: &[usize], chosen: Selection, out: Selection) -> Option<Selection> {
        let Some((next, rest)) = open.split_first() else {
            return self.broken_rule(chosen, false).is_none().then_some(chosen);
        };
        // A need that only what was left out answers is never met.
        let lost = |need: &Answers| need.all & !out & self.available == 0;
        if self.world.iter().any(|(need, _)| lost(need)) {
            return None;
        }
        if self.clashes[*next] & chosen == 0
            && !self.depends[*next].iter().any(lost)
            && let Some(found) = self.extend(rest, chosen | 1 << next, out)
        {
            return Some(found);
        }
        self.extend(rest, chosen, out | 1 << next)
    }
}

/// Returns what a record depends on: what the installed database says, where it is installed.
fn effective_depends(record: &Record) -> &[Need] {
    match &record.installed {
        Some(how) if how.altered => &record.depends[..record.depends.len().saturating_sub(1)],
        _ => &record.depends,
    }
}

fn bits(set: Selection) -> impl Iterator<Item = usize> {
    (0..32).filter(move |number| set & 1 << number != 0)
}

/// Reads a constraint that the tables can spell.
pub(crate) fn need(text: &str) -> Option<Need> {
    let (conflict, rest) = match text.strip_prefix('!') {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let end = rest.find(['<', '=', '>', '~']).unwrap_or(rest.len());
    let (name, bound) = rest.split_at(end);
    let (name, tag) = name.split_once('@').unwrap_or((name, ""));
    let at = |table: &[&str], text: &str| table.iter().position(|word| *word == text);
    let bound = match bound {
        "" => Bound::Any,
        bound => match bound.strip_prefix("><") {
            Some(build) => Bound::Build((0..32).find(|n| super::scene::checksum(*n) == build)?),
            None => {
                let version = bound.trim_start_matches(['<', '=', '>', '~']);
                let operator = &bound[..bound.len() - version.len()];
                Bound::Version(at(&OPERATORS, operator)?, at(&VERSIONS, version)?)
            }
        },
    };
    Some(Need {
        conflict,
        name: at(&NAMES, name)?,
        bound,
        tag: at(&TAGS, tag)?,
    })
}
