//! `policy`: the versions of a package and where they come from (cli.md, 2.11).
//!
//! apk lists a repository once for every tag of any repository that has the package; here each
//! repository is shown with its own tags.

use super::Answer;
use super::fields::Field;
use super::render::{Format, Key, Object, Value, write_objects};
use super::select::{Arguments, Selection};
use super::view::{INSTALLED_SOURCE, PackageRef, View};
use std::fmt::Write as _;

const SOURCES: Key = Key {
    name: "sources",
    label: "Sources",
};

/// Answers `policy`; the status is 0. Without words there is nothing to answer.
pub fn policy(
    view: &View<'_>,
    selection: &Selection,
    format: Format,
    arguments: Arguments<'_>,
) -> Answer {
    let mut selection = *selection;
    selection.all_matches = true;
    let packages = selection.select(view, arguments).packages;
    let mut text = String::new();
    if format != Format::Default {
        let objects: Vec<Object> = packages.iter().map(|p| as_object(view, *p)).collect();
        write_objects(&mut text, format, &objects);
        return Answer::text(text);
    }
    let mut last = None;
    for package in packages {
        let entry = view.get(package);
        if last != Some(entry.name()) {
            let _ = writeln!(text, "{} policy:", entry.name());
            last = Some(entry.name());
        }
        let _ = writeln!(text, "  {}:", entry.version());
        for source in sources(view, package) {
            let _ = writeln!(text, "    {source}");
        }
    }
    Answer::text(text)
}

/// Returns where a package comes from, repositories with their tags.
fn sources(view: &View<'_>, package: PackageRef) -> Vec<String> {
    let mut sources = Vec::new();
    if view.is_installed(package) {
        sources.push(INSTALLED_SOURCE.to_owned());
    }
    for number in view.repositories_of(package) {
        let repository = &view.repositories()[number];
        let lines = repository.tags.iter().map(|tag| match tag {
            None => repository.url.clone(),
            Some(tag) => format!("@{tag} {}", repository.url),
        });
        sources.extend(lines);
    }
    sources
}

fn as_object(view: &View<'_>, package: PackageRef) -> Object {
    let entry = view.get(package);
    vec![
        (Field::Name.into(), Value::Text(entry.name().to_owned())),
        (
            Field::Version.into(),
            Value::Text(entry.version().to_owned()),
        ),
        (SOURCES, Value::Stream(sources(view, package))),
    ]
}
