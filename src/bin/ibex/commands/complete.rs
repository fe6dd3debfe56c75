//! `completions` and `man`: what a shell and `man` know of this program.

use super::settings::settings;
use crate::args::complete::{Completion, Names, Shell, complete};
use crate::args::{Invocation, man, parse};
use crate::output::Console;
use ibex::ops::Error;
use ibex::ops::known::Known;
use ibex::ops::query::{From, PackageRef, View};
use ibex::progress::{Event, Sink};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

/// More names than this are no help.
const MOST_NAMES: usize = 2000;

/// Runs `completions`.
pub(crate) fn completions(
    invocation: &Invocation,
    program: &str,
    console: &mut Console,
) -> Result<u8, Error> {
    if invocation.values.is("candidates") {
        console.print(&candidates(program, &invocation.arguments));
        return Ok(0);
    }
    let shell = match invocation.arguments.as_slice() {
        [name] => Shell::from_key(name),
        _ => None,
    };
    let Some(shell) = shell else {
        return Err(wrong(
            "completions: name one shell: bash, zsh or fish".into(),
        ));
    };
    let name = program.rsplit('/').next().unwrap_or(program);
    console.print(&shell.script(name));
    Ok(0)
}

/// Runs `man`.
pub(crate) fn man(invocation: &Invocation, console: &mut Console) -> Result<u8, Error> {
    let [directory] = invocation.arguments.as_slice() else {
        return Err(wrong(
            "man: name one directory to write the pages to".into(),
        ));
    };
    let failed = |path: &Path, error: std::io::Error| Error::Arguments {
        lines: vec![format!("{}: {error}", path.display())],
        code: 99,
    };
    let directory = Path::new(directory);
    std::fs::create_dir_all(directory).map_err(|error| failed(directory, error))?;
    let pages = man::pages();
    for (name, page) in &pages {
        let path = directory.join(name);
        // Nobody reads a page before this program has ended; it can be made again.
        let written = std::fs::File::create(&path)
            .and_then(|mut file| std::io::Write::write_all(&mut file, page));
        written.map_err(|error| failed(&path, error))?;
    }
    if invocation.verbosity() > 0 {
        console.print(&format!(
            "{} pages in {}\n",
            pages.len(),
            directory.display()
        ));
    }
    Ok(0)
}

fn wrong(line: String) -> Error {
    Error::Arguments {
        lines: vec![line],
        code: 1,
    }
}

/// Returns the kind of the answer on one line and a candidate with what it is on each that follows.
fn candidates(program: &str, words: &[String]) -> String {
    let mut out = String::new();
    match complete(words) {
        Completion::Words { candidates, open } => {
            out.push_str(if open { "open\n" } else { "words\n" });
            for candidate in candidates {
                let _ = writeln!(out, "{}\t{}", candidate.text, candidate.about);
            }
        }
        Completion::Path { directories: false } => out.push_str("files\n"),
        Completion::Path { directories: true } => out.push_str("directories\n"),
        Completion::Nothing => out.push_str("words\n"),
        Completion::Names(which) => {
            out.push_str("words\n");
            let typed = words.last().map_or("", String::as_str);
            for (name, about) in names(program, words, which, typed).unwrap_or_default() {
                let _ = writeln!(out, "{name}\t{about}");
            }
        }
    }
    out
}

/// Returns names that begin like `typed`, with what they are. The options before it say which root
/// and repositories are meant; the names may be incomplete, but never a reason to fail.
fn names(
    program: &str,
    words: &[String],
    which: Names,
    typed: &str,
) -> Option<BTreeMap<String, String>> {
    let before = &words[..words.len().saturating_sub(1)];
    let invocation = parse(program, before, None, &mut Vec::new()).ok()?;
    let from = match which {
        Names::Available => From::System,
        Names::Installed => From::Installed,
    };
    let needs_database = which == Names::Installed;
    let known = Known::open(&settings(&invocation), from, needs_database, &mut Silent).ok()?;
    let view = known.view();
    let mut found = BTreeMap::new();
    if let Some((name, tag)) = typed.split_once('@') {
        let tags = view.repositories().iter().flat_map(|r| &r.tags);
        for known in tags.flatten().filter(|known| known.starts_with(tag)) {
            found.insert(format!("{name}@{known}"), "repository tag".to_owned());
        }
        return Some(found);
    }
    // Libraries and commands are names, too, but only for who asks for them.
    let provided = typed.contains(':') || typed.starts_with('/');
    for (name, package) in view.names_beginning(typed, provided) {
        found.insert(name.to_owned(), about(&view, package, name));
        if found.len() == MOST_NAMES {
            break;
        }
    }
    Some(found)
}

fn about(view: &View<'_>, package: PackageRef, name: &str) -> String {
    let entry = view.get(package);
    match entry.name() == name {
        true => entry
            .description()
            .chars()
            .filter(|c| !c.is_control())
            .collect(),
        false => entry.name().to_owned(),
    }
}

/// Hears nothing: a shell's line is no place for warnings.
struct Silent;

impl Sink for Silent {
    fn event(&mut self, _: Event<'_>) {}
}
