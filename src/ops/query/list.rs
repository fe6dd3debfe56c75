//! `list`: one line a package (cli.md, 2.9).

use super::fields::{Field, FieldSet};
use super::object::{Wanted, object};
use super::render::{Format, Key, Value, Writer};
use super::select::{Arguments, Match, Selection, upgradable_from};
use super::view::{PackageRef, View};
use super::{Answer, Cell, Listing};
use crate::package::order;
use std::fmt::Write as _;

/// How to answer `list`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ListOptions {
    /// Which packages.
    pub selection: Selection,
    /// Patterns are compared with the origin.
    pub origin: bool,
    /// Patterns are compared with the names of dependencies.
    pub depends: bool,
    /// Patterns are compared with names and provided names, and what matched is shown.
    pub providers: bool,
    /// Only installed packages, and only `NAME VERSION`.
    pub manifest: bool,
    /// 1 is normal, `-v` adds, `-q` takes away.
    pub verbosity: u32,
    /// Something else than lines for people.
    pub format: Format,
    /// The fields of the other formats; empty for a choice of ours.
    pub fields: FieldSet,
    /// The answer shall have its listing, for who shows it as a table.
    pub listing: bool,
}

const UPGRADABLE_FROM: Key = Key {
    name: "upgradable-from",
    label: "Upgradable-From",
};

const MATCHED: Key = Key {
    name: "matched",
    label: "Matched",
};

const DEFAULT_FIELDS: FieldSet = FieldSet::of(&[
    Field::Name,
    Field::Version,
    Field::Description,
    Field::Arch,
    Field::License,
    Field::Origin,
    Field::Url,
    Field::InstalledSize,
    Field::FileSize,
    Field::Repositories,
    Field::Status,
]);

/// Answers `list`; the status is 0.
pub fn list(view: &View<'_>, options: &ListOptions, arguments: Arguments<'_>) -> Answer {
    let mut selection = options.selection;
    selection.all_matches = true;
    selection.installed |= options.manifest;
    if options.origin {
        selection.match_fields = FieldSet::of(&[Field::Origin]);
    } else if options.depends {
        selection.match_fields = FieldSet::of(&[Field::Depends]);
    } else if options.providers && selection.match_fields.is_empty() {
        selection.match_fields = FieldSet::of(&[Field::Name, Field::Provides]);
    }
    let (mut matches, _) = selection.matches(view, arguments);
    sort(view, &mut matches);
    let mut text = String::new();
    if options.format != Format::Default {
        objects(view, options, &matches, &mut text);
        return Answer::text(text);
    }
    for one in &matches {
        line(view, options, one, &mut text);
    }
    let mut answer = Answer::text(text);
    if options.listing && options.verbosity == 1 && !options.providers && !options.manifest {
        answer.listing = Listing {
            columns: &[Cell::Name, Cell::Version, Cell::State, Cell::Text],
            rows: matches.iter().map(|one| row(view, one)).collect(),
        };
    }
    answer
}

fn row(view: &View<'_>, one: &Match<'_>) -> Vec<String> {
    let entry = view.get(one.package);
    let state = match view.is_installed(one.package) {
        true => "installed".to_owned(),
        false => upgradable_from(view, one.package).map_or_else(String::new, |old| {
            format!("upgrades {}", view.get(old).version())
        }),
    };
    vec![
        entry.name().to_owned(),
        entry.version().to_owned(),
        state,
        entry.description().to_owned(),
    ]
}

/// Sorts by what matched, then in display order.
fn sort<'v>(view: &'v View<'_>, matches: &mut [Match<'v>]) {
    let mut packages: Vec<PackageRef> = matches.iter().map(|m| m.package).collect();
    if matches.iter().all(|m| view.get(m.package).name() == m.name) {
        view.sort(&mut packages);
        for (one, package) in matches.iter_mut().zip(packages) {
            *one = Match {
                name: view.get(package).name(),
                package,
            };
        }
        return;
    }
    matches.sort_by(|a, b| {
        order::by_name(a.name, b.name).then_with(|| view.display_order(a.package, b.package))
    });
}

fn line(view: &View<'_>, options: &ListOptions, one: &Match<'_>, out: &mut String) {
    let entry = view.get(one.package);
    if options.providers {
        let _ = write!(out, "<{}> ", one.name);
    }
    if options.manifest {
        let _ = writeln!(out, "{} {}", entry.name(), entry.version());
        return;
    }
    if options.verbosity == 0 {
        let _ = writeln!(out, "{}", entry.name());
        return;
    }
    let _ = write!(
        out,
        "{}-{} {} {{{}}} ({})",
        entry.name(),
        entry.version(),
        entry.arch(),
        entry.origin_or_name(),
        entry.license()
    );
    if view.is_installed(one.package) {
        out.push_str(" [installed]");
    } else if let Some(old) = upgradable_from(view, one.package) {
        let _ = write!(out, " [upgradable from: {}]", view.get(old).full_name());
    }
    out.push('\n');
    if options.verbosity > 1 {
        let _ = writeln!(out, "  {}", entry.description());
        if options.verbosity > 2 {
            let _ = writeln!(out, "  <{}>", entry.url());
        }
        out.push('\n');
    }
}

fn objects(view: &View<'_>, options: &ListOptions, matches: &[Match<'_>], out: &mut String) {
    let fields = match options.fields.is_empty() {
        true => DEFAULT_FIELDS,
        false => options.fields,
    };
    let wanted = Wanted {
        fields,
        ..Wanted::default()
    };
    let mut writer = Writer::new(out, options.format, matches.len());
    for one in matches {
        let (mut object, _) = object(view, one.package, &wanted);
        if options.providers || options.depends {
            object.insert(0, (MATCHED, Value::Text(one.name.to_owned())));
        }
        if let Some(old) = upgradable_from(view, one.package) {
            let version = view.get(old).version().to_owned();
            object.push((UPGRADABLE_FROM, Value::Text(version)));
        }
        writer.object(&object);
    }
    writer.finish();
}
