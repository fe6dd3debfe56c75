//! What can stand at the end of a command line, for the shells.
//!
//! The shells' scripts know nothing: they ask this program, which answers from the definitions of
//! [`options`]. Names of packages are asked of whoever calls; this file must never read anything.

use super::options::{APPLETS, Applet, Opt, Takes};
use super::{Scope, image, needs_value, scan_for_applet};

/// A shell that scripts can be made for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shell {
    Bash,
    Zsh,
    Fish,
}

impl Shell {
    /// Reads a shell's name.
    pub(crate) fn from_key(key: &str) -> Option<Self> {
        match key {
            "bash" => Some(Self::Bash),
            "zsh" => Some(Self::Zsh),
            "fish" => Some(Self::Fish),
            _ => None,
        }
    }

    /// Returns the script that completes the command lines of `program`.
    pub(crate) fn script(self, program: &str) -> String {
        let text = match self {
            Self::Bash => include_str!("shells/completion.bash"),
            Self::Zsh => include_str!("shells/completion.zsh"),
            Self::Fish => include_str!("shells/completion.fish"),
        };
        let function: String = program
            .chars()
            .map(|c| if c.is_ascii_alphanumeric() { c } else { '_' })
            .collect();
        text.replace("@NAME@", program)
            .replace("@FUNCTION@", &function)
    }
}

/// One thing that can stand there.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Candidate {
    /// The whole word.
    pub(crate) text: String,
    /// What it is; may be empty.
    pub(crate) about: String,
}

/// Where the words for an argument come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Names {
    /// Packages of the repositories.
    Available,
    /// Installed packages.
    Installed,
}

/// What can stand in place of the last word.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Completion {
    /// One of these. `open` ones are not finished with a space.
    Words {
        candidates: Vec<Candidate>,
        open: bool,
    },
    /// A path; only of a directory if `directories`.
    Path { directories: bool },
    /// A package's name.
    Names(Names),
    /// Something nobody can guess.
    Nothing,
}

/// Completes a command line; the last word is the one to complete and may be empty.
pub(crate) fn complete(words: &[String]) -> Completion {
    let (last, before) = match words.split_last() {
        Some((last, before)) => (last.as_str(), before),
        None => ("", words),
    };
    let applet = scan_for_applet(before);
    let of_image = applet.is_some_and(|applet| applet.name == "image");
    let subcommand = before.iter().find_map(|word| image::find(word));
    let subcommand = subcommand.filter(|_| of_image);
    let scope = subcommand.map_or_else(|| Scope::new(applet), image::scope);
    let only_arguments = before.iter().any(|word| word == "--");
    if !only_arguments && let Some(option) = waiting(&scope, before) {
        return value(option, "", last);
    }
    if !only_arguments && last.starts_with('-') {
        return match last.split_once('=') {
            Some((name, typed)) => match scope.exact(name.trim_start_matches("--")) {
                Some((option, false)) => value(option, &format!("{name}="), typed),
                _ => Completion::Nothing,
            },
            None => options(&scope, last),
        };
    }
    match applet {
        None => words_of(
            APPLETS
                .iter()
                .filter(|applet| !applet.planned)
                .map(|applet| (applet.name.to_owned(), applet.about)),
            last,
        ),
        Some(_) if of_image && subcommand.is_none() => words_of(
            image::SUBCOMMANDS
                .iter()
                .map(|one| (one.applet.name.to_owned(), one.applet.about)),
            last,
        ),
        Some(_) if of_image => match subcommand {
            Some(one) if one.applet.arguments.starts_with(char::is_lowercase) => {
                argument(&one.applet, before, last)
            }
            _ => Completion::Path { directories: false },
        },
        Some(applet) => argument(applet, before, last),
    }
}

/// Returns the option whose value the next word is.
fn waiting(scope: &Scope, before: &[String]) -> Option<Opt> {
    let mut rest = before.iter();
    while let Some(word) = rest.next() {
        if word.len() > 1 && word.starts_with('-') && scope.swallows_next(word) {
            let taken = rest.next();
            if taken.is_none() {
                let long = word.strip_prefix("--");
                let letter = || scope.short(word.chars().last()?);
                return long.map_or_else(letter, |long| scope.exact(long).map(|found| found.0));
            }
        }
    }
    None
}

fn words_of<'a>(all: impl Iterator<Item = (String, &'a str)>, typed: &str) -> Completion {
    let fitting = all.filter(|(text, _)| text.starts_with(typed));
    let mut candidates: Vec<Candidate> = fitting
        .map(|(text, about)| Candidate {
            text,
            about: about.to_owned(),
        })
        .collect();
    candidates.sort();
    candidates.dedup_by(|a, b| a.text == b.text);
    let open = !candidates.is_empty() && candidates.iter().all(|c| c.text.ends_with('='));
    Completion::Words { candidates, open }
}

fn options(scope: &Scope, typed: &str) -> Completion {
    let negative = typed.starts_with("--no");
    let shown = scope.options().filter(|option| !option.help.is_empty());
    let all = shown.flat_map(|option| {
        let long = (!option.long.is_empty()).then(|| match needs_value(option) {
            true => format!("--{}=", option.long),
            false => format!("--{}", option.long),
        });
        let negatable = negative && matches!(option.takes, Takes::Bool | Takes::Auto);
        let no = negatable.then(|| format!("--no-{}", option.long));
        let short = option
            .short
            .filter(|letter| {
                typed.len() < 2 && scope.short(*letter).is_some_and(|o| o.id == option.id)
            })
            .map(|letter| format!("-{letter}"));
        let all = [long, no, short];
        all.into_iter()
            .flatten()
            .map(move |text| (text, option.help))
    });
    words_of(all, typed)
}

/// Completes the value of an option, which `before` stands in front of.
fn value(option: Opt, before: &str, typed: &str) -> Completion {
    let choices = |choices: &str| {
        let all = choices
            .split('|')
            .map(|choice| (format!("{before}{choice}"), ""));
        words_of(all, &format!("{before}{typed}"))
    };
    match option.takes {
        Takes::Bool => choices("yes|no"),
        Takes::Auto => choices("yes|no|auto"),
        Takes::Value(name) | Takes::List(name) | Takes::Number(name) => match name {
            "DIR" | "ROOT" => Completion::Path { directories: true },
            "FILE" | "KEY" | "PATH" | "REPO" => Completion::Path { directories: false },
            _ if name.contains('|') && !name.contains('[') => choices(name),
            _ => Completion::Nothing,
        },
        Takes::Nothing => Completion::Nothing,
    }
}

/// Completes an argument by what the applet takes.
fn argument(applet: &Applet, before: &[String], typed: &str) -> Completion {
    let first = applet
        .arguments
        .split_whitespace()
        .next()
        .unwrap_or_default();
    let first = first.trim_matches(['[', ']', '.']);
    let is_path = typed.starts_with(['.', '/', '~']);
    // Each way to go on begins with a word of its own: `list | show NUMBER`.
    let ways = applet.arguments.split('|').filter_map(|way| {
        let way = way.trim_matches([' ', '[', ']', '.']);
        way.split_whitespace().next()
    });
    let ways: Vec<&str> = ways.collect();
    let is_word = |way: &&str| way.chars().all(|c| c.is_ascii_lowercase());
    match (applet.name, first) {
        _ if ways.iter().all(is_word) && !ways.is_empty() => {
            // Only the first argument is one of the words.
            if before.iter().any(|word| ways.iter().any(|way| way == word)) {
                return Completion::Nothing;
            }
            words_of(ways.iter().map(|way| ((*way).to_owned(), "")), typed)
        }
        ("del" | "fix" | "upgrade" | "manifest" | "version" | "why", _) => {
            Completion::Names(Names::Installed)
        }
        (_, "DIR" | "/DIRECTORY") => Completion::Path { directories: true },
        (_, "FILE" | "FILE|URL" | "PACKAGE") => Completion::Path { directories: false },
        (_, "CONSTRAINT|FILE") if is_path => Completion::Path { directories: false },
        (_, "") => Completion::Nothing,
        _ if is_path => Completion::Path { directories: false },
        _ => Completion::Names(Names::Available),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<String> {
        text.split(' ').map(str::to_owned).collect()
    }

    fn texts(line: &str) -> Vec<String> {
        match complete(&words(line)) {
            Completion::Words { candidates, .. } => {
                candidates.into_iter().map(|c| c.text).collect()
            }
            other => panic!("{line}: {other:?}"),
        }
    }

    #[test]
    fn the_last_word_decides() {
        assert_eq!(texts("up"), ["update", "upgrade"]);
        assert_eq!(texts("-p /r ad"), ["add"]);
        assert_eq!(texts("add --sim"), ["--simulate"]);
        assert_eq!(texts("--no-net"), ["--no-network"]);
        assert_eq!(texts("add --cache-d"), ["--cache-dir="]);
        assert_eq!(texts("query --format j"), ["json"]);
        assert_eq!(
            texts("query --format="),
            ["--format=default", "--format=json", "--format=yaml"]
        );
        assert_eq!(texts("--progress=a"), ["--progress=auto"]);
        assert_eq!(texts("cache d"), ["dir", "download"]);
        assert_eq!(texts("completions z"), ["zsh"]);
        assert_eq!(texts("history "), ["list", "show"]);
        assert_eq!(texts("image show-"), ["show-config", "show-packages"]);
        assert_eq!(texts("image lock --upd"), ["--update="]);
        assert_eq!(
            texts("image login --pass"),
            ["--password-stdin", "--password="]
        );
        assert_eq!(texts("image cache p"), ["prune"]);
        assert_eq!(
            texts("image cache prune --max"),
            ["--max-age=", "--max-size="]
        );
        // A letter means what the applet's own options say first.
        let info = texts("info -");
        assert_eq!(info.iter().filter(|text| *text == "-R").count(), 1);
        for (line, wanted) in [
            ("add fire", Completion::Names(Names::Available)),
            ("add ./x", Completion::Path { directories: false }),
            ("del b", Completion::Names(Names::Installed)),
            ("--root ", Completion::Path { directories: true }),
            ("-p ", Completion::Path { directories: true }),
            ("add -t ", Completion::Nothing),
            ("verify x", Completion::Path { directories: false }),
            ("search -- -x", Completion::Names(Names::Available)),
            ("update ", Completion::Nothing),
        ] {
            assert_eq!(complete(&words(line)), wanted, "{line}");
        }
    }

    #[test]
    fn every_option_of_every_applet_is_offered() {
        for applet in APPLETS.iter().filter(|applet| !applet.planned) {
            let offered = texts(&format!("{} --", applet.name));
            for option in Scope::new(Some(applet)).options() {
                if !option.long.is_empty() && !option.help.is_empty() {
                    let text = format!("--{}", option.long);
                    let found = offered.iter().any(|o| o.trim_end_matches('=') == text);
                    assert!(found, "{}: {text}", applet.name);
                }
            }
        }
    }
}
