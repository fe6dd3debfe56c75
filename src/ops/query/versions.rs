//! `version`: installed packages beside the newest ones that are available (cli.md, 2.14).

use super::Answer;
use super::pattern::Pattern;
use super::view::{PackageRef, View};
use crate::package::Version;
use std::cmp::Ordering;
use std::fmt::Write as _;

/// How to answer `version`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VersionOptions {
    /// Look at tagged repositories, too.
    pub all_tags: bool,
    /// Only rows with one of these operators; `None` is a choice that depends on the rest.
    pub limit: Option<String>,
    /// 1 is normal, `-v` adds, `-q` takes away.
    pub verbosity: u32,
}

/// Answers `version -t`: how the first version compares with the second. The status is 1 unless
/// there are exactly two valid versions.
pub fn compare(versions: &[String]) -> Answer {
    let [a, b] = versions else {
        return Answer::with_status(String::new(), 1);
    };
    let (a, b) = (Version(a), Version(b));
    if !a.is_valid() || !b.is_valid() {
        return Answer::with_status(String::new(), 1);
    }
    Answer::text(format!("{}\n", operator(a.compare(b))))
}

/// Answers `version -c`: what is no valid version. The status is their number.
pub fn check(versions: &[String], verbosity: u32) -> Answer {
    let invalid = versions.iter().filter(|text| !Version(text).is_valid());
    let (mut text, mut status) = (String::new(), 0);
    for version in invalid {
        status += 1;
        if verbosity > 0 {
            let _ = writeln!(text, "{version}");
        }
    }
    Answer::with_status(text, status)
}

/// Answers `version -I`: the repositories with the descriptions of their indexes.
pub fn indexes(view: &View<'_>) -> Answer {
    let mut text = String::new();
    for repository in view.repositories() {
        let _ = writeln!(text, "{} [{}]", repository.description, repository.url);
    }
    Answer::text(text)
}

/// Answers `version`; the status is 0.
///
/// Names that are not installed are passed over in silence. As soon as one word has a `*`, all are
/// patterns.
pub fn versions(view: &View<'_>, options: &VersionOptions, words: &[String]) -> Answer {
    let default_limit = match options.verbosity {
        1 if words.is_empty() => "<",
        _ => "",
    };
    let limit = options.limit.as_deref().unwrap_or(default_limit);
    let names = InstalledNames::new(words);
    let mut packages: Vec<PackageRef> = (view.installed_packages())
        .filter(|package| words.is_empty() || names.contains(view.get(*package).name()))
        .collect();
    view.sort(&mut packages);
    let width = packages.iter().map(|p| view.get(*p).full_name().len());
    let width = width.max().unwrap_or(0).max(39);
    let mut text = String::new();
    if options.verbosity > 0 {
        let _ = writeln!(text, "{:width$}   Available:", "Installed:");
    }
    for package in packages {
        let entry = view.get(package);
        let latest = latest(view, package, options.all_tags);
        let newest = view.get(latest);
        let operator = operator(entry.parsed_version().compare(newest.parsed_version()));
        if !limit.is_empty() && !limit.contains(operator) {
            continue;
        }
        if options.verbosity == 0 {
            let _ = writeln!(text, "{}", entry.name());
            continue;
        }
        let tag = tag(view, latest).map_or_else(String::new, |tag| format!("@{tag}"));
        let _ = writeln!(
            text,
            "{:width$} {operator} {} {tag}",
            entry.full_name(),
            newest.version()
        );
    }
    Answer::text(text)
}

fn operator(order: Ordering) -> &'static str {
    match order {
        Ordering::Less => "<",
        Ordering::Equal => "=",
        Ordering::Greater => ">",
    }
}

/// Returns the newest package of the same name in the repositories that count for it: those
/// without tag, and those of the tag it is pinned to.
fn latest(view: &View<'_>, installed: PackageRef, all_tags: bool) -> PackageRef {
    let pinned = view.installed_package(installed);
    let pinned = pinned.and_then(|package| package.pinned_tag.as_deref());
    let counts = |package: PackageRef| {
        let mut numbers = view.repositories_of(package);
        numbers.any(|number| {
            let mut tags = view.repositories()[number].tags.iter();
            all_tags || tags.any(|tag| tag.is_none() || tag.as_deref() == pinned)
        })
    };
    let mut latest = installed;
    for package in view.named(view.get(installed).name()) {
        let (found, best) = (view.get(package), view.get(latest));
        let order = found.parsed_version().compare(best.parsed_version());
        if order == Ordering::Greater && counts(package) {
            latest = package;
        }
    }
    latest
}

/// Returns the first tag under which a package is to be had; apk tells it although the package may
/// be had without, too.
fn tag<'v>(view: &'v View<'_>, package: PackageRef) -> Option<&'v str> {
    if view.is_installed(package) {
        return None;
    }
    let mut repositories = view.repositories_of(package);
    repositories.find_map(|number| {
        let mut tags = view.repositories()[number].tags.iter();
        tags.find_map(Option::as_deref)
    })
}

/// Words that name installed packages, as `version`, `manifest`, `fix` and `del` take them: exact
/// names, or patterns as soon as one has a `*` (cli.md, 1.15).
pub(super) struct InstalledNames<'w> {
    words: &'w [String],
    patterns: Option<Vec<Pattern>>,
}

impl<'w> InstalledNames<'w> {
    pub(super) fn new(words: &'w [String]) -> Self {
        let are_patterns = words.iter().any(|word| word.contains('*'));
        Self {
            words,
            patterns: are_patterns.then(|| words.iter().map(|word| Pattern::glob(word)).collect()),
        }
    }

    pub(super) fn contains(&self, name: &str) -> bool {
        match &self.patterns {
            Some(patterns) => patterns.iter().any(|pattern| pattern.matches_text(name)),
            None => self.words.iter().any(|word| word == name),
        }
    }
}
