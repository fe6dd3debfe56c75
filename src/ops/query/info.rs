//! `info`: details of packages in the classic layout, tests and owners (cli.md, 2.8).

use super::Answer;
use super::fields::{Field, FieldSet, Reverse};
use super::object::{Wanted, reverse_names, whole_size, written};
use super::owner::{owner, paths};
use super::query_fields::write_packages;
use super::render::{Format, Object, Value, write_objects};
use super::select::{Arguments, Selection};
use super::view::{PackageRef, View};
use crate::package::{Dependency, order};
use std::fmt::Write as _;

/// How to answer `info NAME…`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct InfoOptions {
    /// Which packages.
    pub selection: Selection,
    /// The fields asked for; empty for apk's choice.
    pub fields: FieldSet,
    /// All fields are asked for.
    pub all: bool,
    /// 1 is normal, `-v` adds, `-q` takes away.
    pub verbosity: u32,
    /// How fields are written if not in the classic layout.
    pub format: Format,
    /// Fields are written as `query` writes them (`--no-legacy-info`); other formats imply it.
    pub as_query: bool,
    /// Sizes and times are written for people where they are not anyway.
    pub pretty: bool,
}

/// The blocks of the classic layout in their order, with their headings.
const BLOCKS: [(Field, &str); 12] = [
    (Field::Description, "description"),
    (Field::Url, "webpage"),
    (Field::InstalledSize, "installed size"),
    (Field::Depends, "depends on"),
    (Field::Provides, "provides"),
    (Field::ReverseDepends, "is required by"),
    (Field::Contents, "contains"),
    (Field::Triggers, "triggers"),
    (Field::InstallIf, "has auto-install rule"),
    (Field::ReverseInstallIf, "affects auto-installation of"),
    (Field::Replaces, "replaces"),
    (Field::License, "license"),
];

const DEFAULT_FIELDS: FieldSet =
    FieldSet::of(&[Field::Description, Field::Url, Field::InstalledSize]);

/// Answers `info` with words: the status counts unknown names, and is 1 more if a wanted field
/// does not exist for some package.
pub fn info(view: &View<'_>, options: &InfoOptions, arguments: Arguments<'_>) -> Answer {
    let mut selection = options.selection;
    selection.all_matches = true;
    if selection.match_fields.is_empty() {
        selection.match_fields = FieldSet::of(&[Field::Name, Field::Provides]);
    }
    if matches!(arguments, Arguments::Everything) {
        selection.installed = true;
    }
    let selected = selection.select(view, arguments);
    let mut fields = match (options.all, options.fields.is_empty()) {
        (true, _) => FieldSet::ALL,
        (false, true) => DEFAULT_FIELDS,
        (false, false) => options.fields,
    };
    let mut text = String::new();
    if options.as_query || options.format != Format::Default {
        fields = fields.union(FieldSet::of(&[Field::Name, Field::Version]));
        let wanted = Wanted {
            fields,
            reverse: Reverse::Package,
            reverse_installed: true,
            pretty: options.pretty,
        };
        let packages = &selected.packages;
        let missing = write_packages(&mut text, options.format, view, packages, &wanted);
        return Answer::with_status(text, usize::from(missing && !options.all));
    }
    let mut missing = false;
    for package in &selected.packages {
        for (field, heading) in BLOCKS {
            if fields.contains(field) {
                missing |= !block(view, *package, field, heading, options.verbosity, &mut text);
            }
        }
    }
    let unknown = selected.missed.len();
    Answer::with_status(text, unknown + usize::from(missing && options.all))
}

/// Writes one block; returns false if the package is not installed and cannot have it.
fn block(
    view: &View<'_>,
    package: PackageRef,
    field: Field,
    heading: &str,
    verbosity: u32,
    out: &mut String,
) -> bool {
    let entry = view.get(package);
    let value = match field {
        Field::Description => entry.description().to_owned(),
        Field::Url => entry.url().to_owned(),
        Field::License => entry.license().to_owned(),
        Field::InstalledSize => whole_size(entry.installed_size()),
        _ => match entries(view, package, field) {
            Some(entries) => {
                list_block(&entry, field, heading, &entries, verbosity, out);
                return true;
            }
            None => return false,
        },
    };
    if verbosity > 1 {
        let _ = writeln!(out, "{}: {value}", entry.name());
    } else {
        let _ = writeln!(out, "{} {heading}:\n{value}\n", entry.full_name());
    }
    true
}

/// Returns the entries of a list field; `None` if only installed packages have it.
fn entries(view: &View<'_>, package: PackageRef, field: Field) -> Option<Vec<String>> {
    let entry = view.get(package);
    let installed = view.installed_package(package);
    let wanted = Wanted {
        reverse: Reverse::Package,
        reverse_installed: true,
        ..Wanted::default()
    };
    Some(match field {
        Field::Depends => entry.depends(),
        Field::Provides => entry.provides(),
        Field::InstallIf => entry.install_if(),
        Field::ReverseDepends => {
            installed?;
            reverse_names(view, view.dependants(package), &wanted)
        }
        Field::ReverseInstallIf => {
            installed?;
            reverse_names(view, view.install_if_dependants(package), &wanted)
        }
        Field::Contents => paths(installed?).collect(),
        Field::Triggers => installed?.package.triggers.clone(),
        Field::Replaces => written(&installed?.package.replaces),
        _ => Vec::new(),
    })
}

fn list_block(
    entry: &super::view::Entry<'_>,
    field: Field,
    heading: &str,
    entries: &[String],
    verbosity: u32,
    out: &mut String,
) {
    if verbosity == 1 {
        let _ = writeln!(out, "{} {heading}:", entry.full_name());
    }
    let name = entry.name();
    match (verbosity > 1, field) {
        (true, Field::Contents) => {
            for path in entries {
                let _ = writeln!(out, "{name}: {path}");
            }
        }
        (true, Field::Triggers) => {
            for pattern in entries {
                let _ = writeln!(out, "{name}: trigger {pattern}");
            }
        }
        (true, _) => {
            let _ = write!(out, "{name}: ");
            for entry in entries {
                let _ = write!(out, "{entry} ");
            }
        }
        (false, _) => {
            for entry in entries {
                let _ = writeln!(out, "{entry}");
            }
        }
    }
    out.push('\n');
}

/// Answers `info` without words: the installed packages that the filters let pass, one a line.
pub fn installed_list(view: &View<'_>, selection: &Selection, verbosity: u32) -> Answer {
    let mut packages: Vec<PackageRef> = view
        .installed_packages()
        .filter(|package| selection.admits(view, *package))
        .collect();
    view.sort(&mut packages);
    let mut text = String::new();
    for package in packages {
        package_line(view, package, verbosity, &mut text);
    }
    Answer::text(text)
}

fn package_line(view: &View<'_>, package: PackageRef, verbosity: u32, out: &mut String) {
    let entry = view.get(package);
    let _ = match verbosity {
        0 | 1 => writeln!(out, "{}", entry.name()),
        2 => writeln!(out, "{}", entry.full_name()),
        _ => writeln!(out, "{} - {}", entry.full_name(), entry.description()),
    };
}

/// Answers `info -e`: the status is the number of constraints that the installed packages do not
/// satisfy.
pub fn exists(view: &View<'_>, verbosity: u32, words: &[String]) -> Answer {
    let mut answer = Answer::default();
    for word in words {
        let Ok(constraint) = Dependency::parse_world(word) else {
            answer.status += 1;
            continue;
        };
        let installed = view
            .offers(&constraint.name)
            .find(|offer| view.is_installed(offer.package));
        let satisfied = match installed {
            None => constraint.conflict,
            Some(offer) => {
                let identity = view.get(offer.package).record.identity();
                constraint.accepts(view.offered_version(offer), identity)
            }
        };
        match (satisfied, installed) {
            (true, Some(offer)) if verbosity > 0 => {
                package_line(view, offer.package, verbosity, &mut answer.text);
            }
            (true, _) => {}
            (false, _) => answer.status += 1,
        }
    }
    answer
}

/// Where symbolic links of the root lead.
pub trait Links {
    /// Returns the target of the link at a path relative to the root, as it is written; `None`
    /// if there is no link.
    fn target(&self, path: &str) -> Option<String>;
}

/// A root without links.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoLinks;

impl Links for NoLinks {
    fn target(&self, _: &str) -> Option<String> {
        None
    }
}

/// How owners are shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OwnerStyle {
    /// Sentences, one a path.
    Sentences,
    /// Only package names, sorted, each once (`-q`).
    Names,
    /// Objects.
    Objects(Format),
}

/// Answers `info -W`: who owns each path. A path without owner that is a symbolic link with an
/// absolute target is followed one step, inside the root. The status counts what has no owner.
pub fn who_owns(view: &View<'_>, style: OwnerStyle, links: &dyn Links, words: &[String]) -> Answer {
    let mut answer = Answer::default();
    let mut names = Vec::new();
    let mut objects = Vec::new();
    for path in words {
        let mut target = None;
        let mut found = owner(view, path);
        if found.is_none() {
            target = links
                .target(path.trim_start_matches('/'))
                .filter(|target| target.starts_with('/'));
            found = target.as_deref().and_then(|target| owner(view, target));
        }
        if let OwnerStyle::Objects(_) = style {
            objects.push(owner_object(view, path, target, found));
            continue;
        }
        let Some(package) = found else {
            let error = format!("{path}: Could not find owner package");
            answer.errors.push(error);
            answer.status += 1;
            continue;
        };
        let entry = view.get(package);
        names.push(entry.name());
        if style == OwnerStyle::Sentences {
            let via = if target.is_some() {
                "symlink target "
            } else {
                ""
            };
            let name = entry.full_name();
            let _ = writeln!(answer.text, "{path} {via}is owned by {name}");
        }
    }
    match style {
        OwnerStyle::Sentences => {}
        OwnerStyle::Objects(format) => write_objects(&mut answer.text, format, &objects),
        OwnerStyle::Names => {
            names.sort_by(|a, b| order::by_name(a, b));
            names.dedup();
            for name in names {
                let _ = writeln!(answer.text, "{name}");
            }
        }
    }
    answer
}

fn owner_object(
    view: &View<'_>,
    path: &str,
    target: Option<String>,
    owner: Option<PackageRef>,
) -> Object {
    let mut object: Object = vec![(Field::Query.into(), Value::Text(path.to_owned()))];
    if let Some(target) = target {
        object.push((Field::PathTarget.into(), Value::Text(target)));
    }
    object.push(match owner {
        Some(package) => {
            let name = view.get(package).name().to_owned();
            (Field::Name.into(), Value::Text(name))
        }
        None => {
            let error = "owner not found".to_owned();
            (Field::Error.into(), Value::Text(error))
        }
    });
    object
}
