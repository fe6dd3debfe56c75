//! `search`: looking in repositories (cli.md, 2.10).

use super::fields::{Field, FieldSet, Reverse};
use super::object::Wanted;
use super::query_fields::write_packages;
use super::render::Format;
use super::select::{Arguments, Selection};
use super::view::{PackageRef, View};
use super::{Answer, Cell, Listing};
use std::collections::HashSet;
use std::fmt::Write as _;

/// How to answer `search`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SearchOptions {
    /// Which packages; names and provided names are always compared with.
    pub selection: Selection,
    /// All versions count.
    pub all: bool,
    /// The source package is shown instead of the package.
    pub origin: bool,
    /// What needs the packages is shown.
    pub rdepends: bool,
    /// 1 is normal, `-v` adds, `-q` takes away.
    pub verbosity: u32,
    /// Something else than lines for people.
    pub format: Format,
    /// The fields of the other formats; empty for a choice of ours.
    pub fields: FieldSet,
    /// The answer shall have its listing, for who shows it as a table.
    pub listing: bool,
}

const DEFAULT_FIELDS: FieldSet = FieldSet::of(&[
    Field::Name,
    Field::Version,
    Field::Description,
    Field::Arch,
    Field::License,
    Field::Origin,
    Field::Url,
    Field::FileSize,
    Field::Repositories,
]);

/// Answers `search`. The status is the number of whole words that nothing matched.
pub fn search(view: &View<'_>, options: &SearchOptions, arguments: Arguments<'_>) -> Answer {
    let mut selection = options.selection;
    selection.all_matches |= options.all;
    // Whatever else is looked at, names always are.
    let names = FieldSet::of(&[Field::Name, Field::Provides]);
    selection.match_fields = selection.match_fields.union(names);
    let selected = selection.select(view, arguments);
    let mut text = String::new();
    if options.format != Format::Default {
        let mut wanted = Wanted {
            fields: options.fields,
            reverse: Reverse::Package,
            reverse_installed: false,
            pretty: false,
        };
        if wanted.fields.is_empty() {
            wanted.fields = DEFAULT_FIELDS;
        }
        if options.rdepends {
            wanted.fields.insert(Field::ReverseDepends);
        }
        write_packages(&mut text, options.format, view, &selected.packages, &wanted);
    } else if options.rdepends {
        dependants(view, options, &selected.packages, &mut text);
    } else {
        for package in &selected.packages {
            line(view, options, *package, &mut text);
        }
    }
    let mut answer = Answer::with_status(text, selected.missed.len());
    if options.listing
        && options.format == Format::Default
        && !options.rdepends
        && !options.origin
        && options.verbosity == 1
    {
        let row = |package: &PackageRef| {
            let entry = view.get(*package);
            [entry.name(), entry.version(), entry.description()]
                .map(str::to_owned)
                .to_vec()
        };
        answer.listing = Listing {
            columns: &[Cell::Name, Cell::Version, Cell::Text],
            rows: selected.packages.iter().map(row).collect(),
        };
    }
    answer
}

fn dependants(view: &View<'_>, options: &SearchOptions, packages: &[PackageRef], out: &mut String) {
    // Without headings nobody is named twice.
    let mut seen = HashSet::new();
    for package in packages {
        if options.verbosity > 0 {
            seen.clear();
            let _ = writeln!(out, "{} is required by:", view.get(*package).full_name());
        }
        for dependant in view.dependants_unseen(*package, &mut seen) {
            line(view, options, dependant, out);
        }
    }
}

fn line(view: &View<'_>, options: &SearchOptions, package: PackageRef, out: &mut String) {
    let entry = view.get(package);
    let _ = match (options.verbosity, options.origin) {
        (0, false) => writeln!(out, "{}", entry.name()),
        (0, true) => writeln!(out, "{}", entry.origin_or_name()),
        (_, true) => writeln!(out, "{}-{}", entry.origin_or_name(), entry.version()),
        (1, false) => writeln!(out, "{}-{}", entry.name(), entry.version()),
        (_, false) => writeln!(
            out,
            "{}-{} - {}",
            entry.name(),
            entry.version(),
            entry.description()
        ),
    };
}
