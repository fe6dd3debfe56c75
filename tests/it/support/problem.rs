//! Small problems for the complete solver, written one package a line.
//!
//! ```text
//! app-2 D: lib>2 !old p: cmd:app=2 editor i: web doc k: 10 t: edge r: 2 installed offline
//! ```
//!
//! `D:` depends, `p:` provides, `i:` install_if, `k:` priority, `t:` tags (`-` is the default
//! repository; without `t:` that is where a package lives), `r:` number of its repository.

use ibex::package::{Dependency, Identity};
use ibex::solver::Flags;
use ibex::solver::complete::{Candidate, Need, Problem, TagSet, Unavailable, Wanted};
use std::fmt;

/// A problem with its texts.
#[derive(Clone, Debug, Default)]
pub(crate) struct Case {
    pub(crate) packages: Vec<Entry>,
    pub(crate) world: Vec<Dependency>,
    pub(crate) flags: Flags,
}

/// One package.
#[derive(Clone, Debug, Default)]
pub(crate) struct Entry {
    pub(crate) name: String,
    pub(crate) version: String,
    pub(crate) depends: Vec<Dependency>,
    pub(crate) provides: Vec<(String, String)>,
    pub(crate) install_if: Vec<Dependency>,
    pub(crate) priority: u16,
    /// Empty for the default repository.
    pub(crate) tags: Vec<String>,
    pub(crate) repository: u32,
    pub(crate) installed: bool,
    pub(crate) unavailable: Option<Unavailable>,
}

const TAGS: [&str; 3] = ["", "edge", "testing"];

impl Case {
    /// Reads packages one a line, and a world.
    pub(crate) fn new(packages: &str, world: &str) -> Self {
        let lines = packages.split(['\n', ';']).map(str::trim);
        Self {
            packages: lines.filter(|line| !line.is_empty()).map(entry).collect(),
            world: world
                .split_whitespace()
                .map(|word| Dependency::parse_world(word).expect("a world entry"))
                .collect(),
            flags: Flags::NONE,
        }
    }

    pub(crate) fn with(mut self, flags: Flags) -> Self {
        self.flags = flags;
        self
    }

    /// Returns the problem; the world is sorted first.
    pub(crate) fn problem(&self) -> Problem<'_> {
        let mut world: Vec<Wanted<'_>> = self.world.iter().map(wanted).collect();
        world.sort_by(|a, b| ibex::package::order::by_name(a.need.name, b.need.name));
        Problem {
            candidates: self
                .packages
                .iter()
                .enumerate()
                .map(|(number, entry)| candidate(number, entry))
                .collect(),
            world,
            tags: TAGS.to_vec(),
            flags: self.flags,
            preupgrade: false,
        }
    }

    /// Returns `NAME-VERSION` of some packages.
    pub(crate) fn names(&self, selection: &[usize]) -> String {
        let names = selection.iter().map(|at| {
            let entry = &self.packages[*at];
            format!("{}-{}", entry.name, entry.version)
        });
        let mut names: Vec<String> = names.collect();
        names.sort();
        names.join(" ")
    }
}

/// Returns the identity that the n-th package gets; `name><Q1…` can ask for it.
pub(crate) fn identity(number: usize) -> Identity {
    Identity([number as u8 + 1; 20])
}

fn tag_number(text: &str) -> u8 {
    let at = TAGS.iter().position(|tag| *tag == text);
    at.expect("a tag of the tests") as u8
}

fn wanted(dependency: &Dependency) -> Wanted<'_> {
    Wanted {
        need: Need::new(dependency),
        tag: dependency.tag.as_deref().map_or(0, tag_number),
    }
}

fn candidate(number: usize, entry: &Entry) -> Candidate<'_> {
    let tags = entry.tags.iter().map(|tag| match tag.as_str() {
        "-" => TagSet::DEFAULT,
        tag => TagSet::single(tag_number(tag)),
    });
    let tags = if entry.tags.is_empty() {
        TagSet::DEFAULT
    } else {
        tags.fold(TagSet::default(), TagSet::union)
    };
    Candidate {
        name: &entry.name,
        version: &entry.version,
        identity: identity(number),
        depends: entry.depends.iter().map(Need::new).collect(),
        provides: (entry.provides.iter())
            .map(|(name, version)| (name.as_str(), version.as_str()))
            .collect(),
        install_if: entry.install_if.iter().map(Need::new).collect(),
        provider_priority: entry.priority,
        installed: entry.installed,
        unavailable: entry.unavailable.clone(),
        tags,
        permitted: entry.installed,
        preferred: false,
        reachable: entry.unavailable.is_none(),
        repository: entry.repository + 1,
        flags: Flags::NONE,
        heritable: Flags::NONE,
    }
}

fn entry(line: &str) -> Entry {
    let mut words = line.split_whitespace();
    let full_name = words.next().expect("a package");
    let (name, version) = full_name.rsplit_once('-').expect("NAME-VERSION");
    let mut entry = Entry {
        name: name.to_owned(),
        version: version.to_owned(),
        ..Entry::default()
    };
    let mut field = "";
    for word in words {
        match word {
            "installed" => entry.installed = true,
            "offline" => entry.unavailable = Some(Unavailable::Network),
            "broken" => entry.unavailable = Some(Unavailable::Broken),
            "mips" => entry.unavailable = Some(Unavailable::Architecture("mips".to_owned())),
            _ if word.ends_with(':') && word.len() == 2 => field = word,
            _ => add(&mut entry, field, word),
        }
    }
    entry
}

fn add(entry: &mut Entry, field: &str, word: &str) {
    let dependency = || Dependency::parse(word).expect("a dependency");
    match field {
        "D:" => entry.depends.push(dependency()),
        "p:" => {
            let provide = dependency();
            entry.provides.push((provide.name, provide.version));
        }
        "i:" => entry.install_if.push(dependency()),
        "k:" => entry.priority = word.parse().expect("a priority"),
        "t:" => entry.tags.push(word.to_owned()),
        "r:" => entry.repository = word.parse().expect("a number"),
        _ => panic!("{word}: in no field"),
    }
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |f: &mut fmt::Formatter<'_>, field: &str, words: Vec<String>| {
            if words.is_empty() {
                return Ok(());
            }
            write!(f, " {field} {}", words.join(" "))
        };
        let texts = |list: &[Dependency]| list.iter().map(Dependency::to_string).collect();
        for entry in &self.packages {
            write!(f, "  {}-{}", entry.name, entry.version)?;
            list(f, "D:", texts(&entry.depends))?;
            let provides = entry.provides.iter().map(|(name, version)| {
                let equals = if version.is_empty() { "" } else { "=" };
                format!("{name}{equals}{version}")
            });
            list(f, "p:", provides.collect())?;
            list(f, "i:", texts(&entry.install_if))?;
            if entry.priority != 0 {
                write!(f, " k: {}", entry.priority)?;
            }
            list(f, "t:", entry.tags.clone())?;
            if entry.repository != 0 {
                write!(f, " r: {}", entry.repository)?;
            }
            f.write_str(if entry.installed { " installed" } else { "" })?;
            match &entry.unavailable {
                Some(_) => writeln!(f, " offline")?,
                None => writeln!(f)?,
            }
        }
        writeln!(f, "  world: {}", texts(&self.world).join(" "))
    }
}
