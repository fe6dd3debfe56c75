//! Why a package is in an image: the graph of what was chosen (`explain`, `dot`).

use super::resolve::{Chosen, Resolution};
use super::{Error, Workshop, disk};
use crate::format::Limits;
use crate::format::apk::PackageReader;
use crate::package::{Dependency, World};
use crate::plan::Source;
use crate::progress::Sink;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt::Write as _;
use std::fs::File;
use std::io::BufReader;

/// One arrow: who asks (`None` is the description), with which words, and who answers.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Arrow {
    from: Option<usize>,
    constraint: String,
    /// The answer installs itself.
    by_itself: bool,
    to: usize,
}

/// Returns every arrow among chosen packages, in a fixed order.
fn arrows(packages: &[Chosen], world: &World) -> Vec<Arrow> {
    let mut by_name: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    for (at, one) in packages.iter().enumerate() {
        by_name.entry(&one.package.name).or_default().push(at);
        for provided in &one.package.provides {
            let known = by_name.entry(&provided.name).or_default();
            if known.last() != Some(&at) {
                known.push(at);
            }
        }
    }
    let answering = |dependency: &Dependency| -> Vec<usize> {
        let known = by_name.get(dependency.name.as_str());
        let known = known.into_iter().flatten().copied();
        known
            .filter(|at| packages[*at].package.answers(dependency))
            .collect()
    };
    let mut arrows = Vec::new();
    let mut add = |from, constraint: &str, by_itself, to: Vec<usize>| {
        for to in to {
            arrows.push(Arrow {
                from,
                constraint: constraint.to_owned(),
                by_itself,
                to,
            });
        }
    };
    for entry in &world.entries {
        add(None, &entry.to_string(), false, answering(entry));
    }
    for (at, one) in packages.iter().enumerate() {
        for dependency in &one.package.depends {
            let to = answering(dependency)
                .into_iter()
                .filter(|to| *to != at)
                .collect();
            add(Some(at), &dependency.to_string(), false, to);
        }
    }
    for (at, one) in packages.iter().enumerate() {
        let conditions = &one.package.install_if;
        let met = !conditions.is_empty()
            && conditions
                .iter()
                .all(|condition| !answering(condition).is_empty());
        if met {
            let words = crate::package::dependency::join(conditions);
            for condition in conditions {
                for from in answering(condition) {
                    add(Some(from), &words, true, vec![at]);
                }
            }
        }
    }
    arrows
}

/// Returns the names of everything that some packages need, themselves included.
pub(super) fn needed_by(packages: &[Chosen], names: &[String]) -> BTreeSet<String> {
    let arrows = arrows(packages, &World::default());
    let start = packages
        .iter()
        .enumerate()
        .filter(|(_, one)| names.contains(&one.package.name));
    let mut open: VecDeque<usize> = start.map(|(at, _)| at).collect();
    let mut seen: BTreeSet<usize> = open.iter().copied().collect();
    while let Some(at) = open.pop_front() {
        for arrow in arrows.iter().filter(|arrow| arrow.from == Some(at)) {
            if seen.insert(arrow.to) {
                open.push_back(arrow.to);
            }
        }
    }
    seen.into_iter()
        .map(|at| packages[at].package.name.clone())
        .collect()
}

/// Returns the shortest chain from the description to a package.
fn chain(arrows: &[Arrow], target: usize) -> Vec<&Arrow> {
    let mut came: BTreeMap<usize, &Arrow> = BTreeMap::new();
    let mut open: VecDeque<Option<usize>> = VecDeque::from([None]);
    while let Some(from) = open.pop_front() {
        for arrow in arrows.iter().filter(|arrow| arrow.from == from) {
            if let std::collections::btree_map::Entry::Vacant(free) = came.entry(arrow.to) {
                free.insert(arrow);
                open.push_back(Some(arrow.to));
            }
        }
    }
    let mut chain = Vec::new();
    let mut at = Some(target);
    while let Some(package) = at {
        let Some(arrow) = came.get(&package) else {
            return Vec::new();
        };
        chain.push(*arrow);
        at = arrow.from;
    }
    chain.reverse();
    chain
}

/// Tells which package brings a path or a name into the image, and why.
///
/// # Errors
/// [`enum@Error`]; [`Error::NoSuch`] if nothing does.
pub fn explain(
    workshop: &mut Workshop<'_>,
    word: &str,
    sink: &mut dyn Sink,
) -> Result<String, Error> {
    let resolutions = workshop.packages(sink)?;
    workshop.tell_warnings(sink)?;
    let mut text = String::new();
    let mut found_any = false;
    let several = resolutions.len() > 1;
    for resolution in &resolutions {
        let mut lines = String::new();
        let found = explain_one(workshop, resolution, word, &mut lines)?;
        let found = found || explain_below(resolution, word, &mut lines);
        found_any |= found;
        if several && found {
            let _ = writeln!(text, "{}:", resolution.architecture.oci);
        }
        text.push_str(&lines);
    }
    match found_any {
        true => Ok(text),
        false => Err(Error::Other(format!(
            "nothing brings \"{word}\" into the image: no package of that name, none that provides \
             it, and no file at that path"
        ))),
    }
}

/// Looks for a word in the image that is built on.
fn explain_below(resolution: &Resolution, word: &str, lines: &mut String) -> bool {
    let Some(base) = &resolution.base else {
        return false;
    };
    let name = |name: &str| {
        let package = &base.installed.find(name)?.package;
        Some(format!("{}-{}", package.name, package.version))
    };
    const WHERE: &str = "in the image that this one is built on";
    if let Some(full) = name(word) {
        let _ = writeln!(lines, "{full} is {WHERE}");
        return true;
    }
    let path = word.trim_matches('/');
    if !base.has(path) {
        return false;
    }
    let owner = base.owner(path).and_then(name);
    let _ = match owner {
        Some(full) => writeln!(lines, "{word} is in {full}, which is {WHERE}"),
        None => writeln!(lines, "{word} is {WHERE}; no package has it"),
    };
    true
}

fn explain_one(
    workshop: &Workshop<'_>,
    resolution: &Resolution,
    word: &str,
    text: &mut String,
) -> Result<bool, Error> {
    let packages = &resolution.packages;
    let arrows = arrows(packages, &resolution.world);
    let named = Dependency::any(word);
    let mut targets: Vec<usize> = Vec::new();
    for (at, one) in packages.iter().enumerate() {
        if one.package.name == word {
            targets = vec![at];
            break;
        }
        if one.package.answers(&named) {
            targets.push(at);
        }
    }
    if !targets.is_empty() {
        for target in targets {
            tell(packages, &arrows, target, text);
        }
        return Ok(true);
    }
    let path = word.trim_matches('/');
    if path.is_empty() {
        return Ok(false);
    }
    let mut found = false;
    for (list, line, kind) in configured(workshop, path) {
        let _ = writeln!(text, "/{path} is changed by {list} (line {line}): {kind}");
        found = true;
    }
    for (at, one) in packages.iter().enumerate() {
        if ships(one, path, &workshop.settings().limits)? {
            let _ = writeln!(text, "/{path} is in {}", one.package.full_name());
            tell(packages, &arrows, at, text);
            found = true;
        }
    }
    if !found && let Some(by) = generated(path) {
        let _ = writeln!(text, "/{path} is made by the builder: {by}");
        found = true;
    }
    Ok(found)
}

/// Entries of the description that are about a path: list and index, line, and what they do.
fn configured(workshop: &Workshop<'_>, path: &str) -> Vec<(String, usize, String)> {
    let config = &workshop.loaded.config;
    let mut found = Vec::new();
    for entry in &config.paths {
        let own = entry.path.trim_matches('/');
        let below = entry.recursive && path.strip_prefix(own).is_some_and(|r| r.starts_with('/'));
        if own == path || below {
            let place = &entry.place;
            found.push((
                format!("paths[{}]", place.index),
                place.line,
                entry.kind.clone(),
            ));
        }
    }
    for file in &config.x_build.files {
        if file.path.trim_matches('/') == path {
            let place = &file.place;
            let from = match file.content {
                Some(_) => "inline text".to_owned(),
                None => format!("copy of {}", file.source),
            };
            found.push((format!("x-build.files[{}]", place.index), place.line, from));
        }
    }
    found
}

/// What the builder itself makes (image.md, 5.2).
fn generated(path: &str) -> Option<&'static str> {
    Some(match path {
        "etc/apk/world" => "what the description asks for",
        "etc/apk/repositories" => "contents.repositories and contents.runtime_repositories",
        "etc/apk/arch" => "the architecture",
        "etc/apko.json" => "the merged description",
        _ if path.starts_with("etc/apk/keys/") => "contents.keyring and contents.runtime_keyring",
        _ if path.contains("lib/apk/db/") => "the package database",
        _ if path.starts_with("sv/") => "entrypoint.services",
        "etc/ld.so.cache" => "the index of shared libraries",
        "dev/zero" | "dev/urandom" | "dev/null" | "dev/random" | "dev/console" => "a device",
        _ => return None,
    })
}

/// Returns whether the file of a package has a path.
fn ships(chosen: &Chosen, path: &str, limits: &Limits) -> Result<bool, Error> {
    let Source::File(file) = &chosen.source else {
        return Ok(false);
    };
    let opened = File::open(file).map_err(|error| disk("read", file, &error))?;
    let source = BufReader::with_capacity(128 << 10, opened);
    let unreadable = |cause: String| Error::Unreadable {
        image: file.display().to_string(),
        cause,
    };
    let opened = PackageReader::open(source, limits);
    let (_, mut data) = opened.map_err(|error| unreadable(error.to_string()))?;
    while let Some(entry) = data
        .next_entry()
        .map_err(|error| unreadable(error.to_string()))?
    {
        if entry.path == path {
            return Ok(true);
        }
    }
    Ok(false)
}

fn tell(packages: &[Chosen], arrows: &[Arrow], target: usize, text: &mut String) {
    let name = |at: usize| packages[at].package.full_name();
    let chain = chain(arrows, target);
    let _ = writeln!(text, "{} is in the image because", name(target));
    if chain.is_empty() {
        let _ = writeln!(
            text,
            "  the lock file says so; nothing that is asked for needs it"
        );
    }
    for arrow in chain {
        let (to, constraint) = (name(arrow.to), &arrow.constraint);
        let _ = match (arrow.from, arrow.by_itself) {
            (None, _) => writeln!(text, "  the description wants {constraint}: {to}"),
            (Some(from), false) => writeln!(text, "  {} needs {constraint}: {to}", name(from)),
            (Some(from), true) => writeln!(
                text,
                "  {} is there, and {to} installs itself with {constraint}",
                name(from)
            ),
        };
    }
    let users = arrows
        .iter()
        .filter(|arrow| arrow.to == target && !arrow.by_itself);
    let users: BTreeSet<String> = users.filter_map(|arrow| arrow.from.map(name)).collect();
    if users.len() > 1 {
        let users: Vec<String> = users.into_iter().collect();
        let _ = writeln!(text, "  needed by {}", users.join(", "));
    }
}

/// Returns the graph of what was chosen in Graphviz' language; on an unsolvable description the
/// reasons are its nodes.
///
/// `only` leaves the packages that these need; `single` keeps one arrow to each node.
///
/// # Errors
/// [`enum@Error`].
pub fn dot(
    workshop: &mut Workshop<'_>,
    only: &[String],
    single: bool,
    sink: &mut dyn Sink,
) -> Result<String, Error> {
    let resolved = match workshop.lock_in_use()? {
        Some(_) => workshop.packages(sink),
        None => workshop.resolve(sink),
    };
    let mut text = "digraph image {\n  rankdir=LR;\n  node [shape=box];\n".to_owned();
    match resolved {
        Err(Error::Solve { chain, .. }) => {
            for (at, reason) in chain.iter().enumerate() {
                let label = quoted(reason.trim());
                let _ = writeln!(text, "  reason{at} [label={label}, color=red];");
                let depth = |line: &String| line.len() - line.trim_start().len();
                let parent = (0..at)
                    .rev()
                    .find(|before| depth(&chain[*before]) < depth(reason));
                if let Some(parent) = parent {
                    let _ = writeln!(text, "  reason{parent} -> reason{at};");
                }
            }
        }
        Err(error) => return Err(error),
        Ok(resolutions) => {
            workshop.tell_warnings(sink)?;
            let several = resolutions.len() > 1;
            for resolution in &resolutions {
                let prefix = match several {
                    true => format!("{}/", resolution.architecture.oci),
                    false => String::new(),
                };
                graph(resolution, only, single, &prefix, &mut text);
            }
        }
    }
    text.push_str("}\n");
    Ok(text)
}

fn graph(resolution: &Resolution, only: &[String], single: bool, prefix: &str, text: &mut String) {
    let packages = &resolution.packages;
    let wanted = match only {
        [] => None,
        names => Some(needed_by(packages, names)),
    };
    let shown = |at: usize| {
        let name = &packages[at].package.name;
        wanted.as_ref().is_none_or(|wanted| wanted.contains(name))
    };
    let node = |at: usize| quoted(&format!("{prefix}{}", packages[at].package.full_name()));
    for at in (0..packages.len()).filter(|at| shown(*at)) {
        let _ = writeln!(text, "  {};", node(at));
    }
    let mut written = BTreeSet::new();
    let mut reached = BTreeSet::new();
    let mut edge = |text: &mut String, from: &str, to: String, kind: &str| {
        let new = written.insert(format!("{from}\0{to}\0{kind}"));
        let first = reached.insert(to.clone());
        if new && (!single || first) {
            let _ = writeln!(text, "  {from} -> {to} [label={kind}];");
        }
    };
    for arrow in arrows(packages, &resolution.world) {
        let from = match arrow.from {
            None => quoted(&format!("{prefix}image")),
            Some(at) if shown(at) => node(at),
            Some(_) => continue,
        };
        if !shown(arrow.to) {
            continue;
        }
        let kind = match (arrow.from, arrow.by_itself) {
            (None, _) => "required",
            (_, true) => "install_if",
            _ => "dependency",
        };
        let word = Dependency::parse_world(&arrow.constraint).map_or(String::new(), |d| d.name);
        let to = &packages[arrow.to].package;
        if arrow.by_itself || word == to.name {
            edge(text, &from, node(arrow.to), kind);
        } else {
            // A virtual name stands between who asks and who answers.
            let name = quoted(&format!("{prefix}{word}"));
            let _ = writeln!(text, "  {name} [shape=ellipse];");
            edge(text, &from, name.clone(), kind);
            edge(text, &name, node(arrow.to), "provides");
        }
    }
}

fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}
