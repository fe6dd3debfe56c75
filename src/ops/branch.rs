//! `branch`: which branch of the distribution a root follows, and the move to another one.
//!
//! A move is an upgrade to what the other branch has, with repository files that say so. The new
//! files count for the decision, and are written with the change: where it fails or is refused,
//! the root keeps the old ones.

use super::Error;
use super::database::open_root;
use super::query::Answer;
use crate::config::Settings;
use crate::config::mirrors::{Place, is_branch};
use crate::config::repositories::{self, without_credentials};
use crate::progress::Silent;
use crate::root::Root;
use serde_json::json;

/// What a root follows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Follows {
    /// Branches with their components and mirrors, in the order of declaration.
    pub branches: Vec<Branch>,
    /// Architectures; the first one is that of the repositories.
    pub architectures: Vec<String>,
}

/// One branch of a root.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Branch {
    /// `v3.20`, `edge`, …
    pub name: String,
    /// `main`, `community`, …; those of tagged repositories with `@TAG`.
    pub components: Vec<String>,
    /// Where they come from, without credentials.
    pub mirrors: Vec<String>,
}

/// A repository file as it shall be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Edited {
    /// Its path below the root.
    pub path: String,
    /// Its new text.
    pub text: String,
    /// Lines that change, before and after, without credentials.
    pub changes: Vec<(String, String)>,
}

/// Tells what the root follows; `json` asks for one JSON value.
///
/// # Errors
/// [`enum@Error`] if the root cannot be read, or none of its repositories is on a branch.
pub fn show(settings: &Settings, json: bool) -> Result<Answer, Error> {
    let root = open_root(&settings.root, false)?;
    let follows = follows(settings, &root)?;
    if follows.branches.is_empty() {
        return Err(on_no_branch());
    }
    let value = json!({
        "branches": follows.branches.iter().map(|branch| json!({
            "branch": branch.name,
            "components": branch.components,
            "mirrors": branch.mirrors,
        })).collect::<Vec<_>>(),
        "architectures": follows.architectures,
    });
    if json {
        return Ok(Answer::text(format!("{value}\n")));
    }
    let mut text = String::new();
    for branch in &follows.branches {
        text += &format!("branch: {}\n", branch.name);
        text += &format!("components: {}\n", branch.components.join(" "));
        for mirror in &branch.mirrors {
            text += &format!("mirror: {mirror}\n");
        }
    }
    text += &format!("architecture: {}\n", follows.architectures.join(" "));
    Ok(Answer::text(text))
}

fn on_no_branch() -> Error {
    Error::Arguments {
        lines: vec![
            "no repository of this root is on a branch (…/edge/main, …/v3.20/main); see \
             etc/apk/repositories"
                .to_owned(),
        ],
        code: 1,
    }
}

fn unreadable(error: &crate::root::RootError) -> Error {
    Error::Database {
        cause: error.cause(),
    }
}

/// Returns what the declared repositories of a root are on.
///
/// # Errors
/// [`enum@Error`] if the root cannot be read.
pub fn follows(settings: &Settings, root: &Root) -> Result<Follows, Error> {
    let architectures = settings
        .architectures(root, true)
        .map_err(|e| unreadable(&e))?;
    let arch = architectures
        .list
        .first()
        .map_or(crate::config::ARCH, String::as_str);
    let declared = repositories::load(root, &settings.sources, arch, &mut Silent);
    let declared = declared.map_err(|error| unreadable(&error))?;
    let mut branches: Vec<Branch> = Vec::new();
    for repository in &declared.repositories {
        let Some(place) = Place::of(&without_credentials(&repository.url)) else {
            continue;
        };
        let at = branches
            .iter()
            .position(|branch| branch.name == place.branch);
        let at = at.unwrap_or_else(|| {
            branches.push(Branch {
                name: place.branch.clone(),
                components: Vec::new(),
                mirrors: Vec::new(),
            });
            branches.len() - 1
        });
        let branch = &mut branches[at];
        let tag = repository.tags.iter().flatten().next();
        let component = match tag.filter(|_| !repository.tags.contains(&None)) {
            Some(tag) => format!("{}@{tag}", place.component),
            None => place.component,
        };
        if !branch.components.contains(&component) {
            branch.components.push(component);
        }
        if !branch.mirrors.contains(&place.mirror) {
            branch.mirrors.push(place.mirror);
        }
    }
    Ok(Follows {
        branches,
        architectures: architectures.list,
    })
}

/// Returns the repository files of a root as they must be to follow another branch.
///
/// Only what is on the branch that the root's untagged repositories follow is changed. `testing`
/// exists in `edge` alone: a line for it becomes a comment on the way to another branch.
///
/// # Errors
/// [`enum@Error`] if the root cannot be read, is on no branch, or is on that one already.
pub fn edit(settings: &Settings, to: &str) -> Result<Vec<Edited>, Error> {
    let refused = |line: String| Error::Arguments {
        lines: vec![line],
        code: 1,
    };
    if !is_branch(to) {
        return Err(refused(format!(
            "'{to}' is no branch: name one like v3.20, edge or latest-stable"
        )));
    }
    let root = open_root(&settings.root, false)?;
    let follows = follows(settings, &root)?;
    let untagged = |branch: &&Branch| branch.components.iter().any(|name| !name.contains('@'));
    let from = follows
        .branches
        .iter()
        .find(untagged)
        .ok_or_else(on_no_branch)?;
    if from.name == to {
        return Err(refused(format!("the root follows {to} already")));
    }
    let mut edited = Vec::new();
    for path in repositories::files(&root).map_err(|error| unreadable(&error))? {
        let text = root.read(&path).map_err(|error| unreadable(&error))?;
        let text = text.unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let mut changes = Vec::new();
        let mut new = String::new();
        for line in text.split_inclusive('\n') {
            let (content, end) = match line.strip_suffix('\n') {
                Some(content) => (content, "\n"),
                None => (line, ""),
            };
            let changed = edit_line(content, &from.name, to);
            if changed != content {
                changes.push((masked_line(content), masked_line(&changed)));
            }
            new += &changed;
            new += end;
        }
        if !changes.is_empty() {
            let stat = root.stat(&path).map_err(|error| unreadable(&error))?;
            if stat.is_some_and(|stat| stat.kind == rustix::fs::FileType::Symlink) {
                return Err(refused(format!(
                    "{path} is a symbolic link, in whose place there would be a file: change the \
                     branch where it leads, or put the file itself there"
                )));
            }
            edited.push(Edited {
                path,
                text: new,
                changes,
            });
        }
    }
    if edited.is_empty() {
        return Err(refused(format!(
            "no repository file of the root names {}: its repositories are options of this command",
            from.name
        )));
    }
    Ok(edited)
}

/// Moves one line of a repository file to another branch.
fn edit_line(line: &str, from: &str, to: &str) -> String {
    let word = line.split([' ', '\t']).find(|word| !word.is_empty());
    let Some(word) = word.filter(|word| !word.starts_with(['#', '@'])) else {
        return line.to_owned();
    };
    if word == "set" {
        let Some((key, value)) = line.split_once('=') else {
            return line.to_owned();
        };
        return format!("{key}={}", segments(value, from, to));
    }
    let mut words = line.split([' ', '\t']).filter(|word| !word.is_empty());
    if words
        .clone()
        .nth(1)
        .is_some_and(|second| second.starts_with('@'))
    {
        return line.to_owned();
    }
    let testing = words.any(|word| word == "testing" || word.ends_with("/testing"));
    let moved = segments(line, from, to);
    match testing && moved != line && from == "edge" {
        true => format!("#{line}"),
        false => moved,
    }
}

/// Replaces a branch where it is a whole part of a path.
fn segments(text: &str, from: &str, to: &str) -> String {
    let mut out = String::new();
    let mut part = String::new();
    let flush = |part: &mut String, out: &mut String| {
        out.push_str(if part == from { to } else { part });
        part.clear();
    };
    for character in text.chars() {
        if matches!(character, '/' | ' ' | '\t') {
            flush(&mut part, &mut out);
            out.push(character);
        } else {
            part.push(character);
        }
    }
    flush(&mut part, &mut out);
    out
}

fn masked_line(line: &str) -> String {
    let words = line.split(' ').map(repositories::masked);
    words.collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::edit_line;

    #[test]
    fn lines_move_to_another_branch() {
        for (line, from, to, wanted) in [
            (
                "https://h/a/v3.19/main",
                "v3.19",
                "edge",
                "https://h/a/edge/main",
            ),
            (
                "v2 http://h/v3.19 main community",
                "v3.19",
                "v3.20",
                "v2 http://h/v3.20 main community",
            ),
            (
                "@edge http://h/edge/testing",
                "edge",
                "v3.20",
                "@edge http://h/edge/testing",
            ),
            (
                "v2 @x http://h/v3.19 main",
                "v3.19",
                "edge",
                "v2 @x http://h/v3.19 main",
            ),
            (
                "http://h/edge/testing",
                "edge",
                "v3.20",
                "#http://h/edge/testing",
            ),
            (
                "http://h/edge/community",
                "edge",
                "v3.20",
                "http://h/v3.20/community",
            ),
            ("set branch=v3.19", "v3.19", "edge", "set branch=edge"),
            (
                "set -default base=http://h/v3.19",
                "v3.19",
                "edge",
                "set -default base=http://h/edge",
            ),
            (
                "#http://h/v3.19/main",
                "v3.19",
                "edge",
                "#http://h/v3.19/main",
            ),
            (
                "http://h/v3.190/main",
                "v3.19",
                "edge",
                "http://h/v3.190/main",
            ),
            ("", "v3.19", "edge", ""),
        ] {
            assert_eq!(edit_line(line, from, to), wanted, "{line}");
        }
    }
}
