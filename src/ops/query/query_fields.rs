//! `query`: any fields of any packages (cli.md, chapter 3).

use super::Answer;
use super::fields::{Field, FieldList, FieldSet, Reverse};
use super::object::{Wanted, object};
use super::render::{Format, Writer, write_list};
use super::select::{Arguments, Selection};
use super::view::{PackageRef, View};
use crate::package::order;

/// How to answer `query`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QueryOptions {
    /// Which packages.
    pub selection: Selection,
    /// Which fields; `None` for apk's choice.
    pub fields: Option<FieldList>,
    /// How they are written.
    pub format: Format,
    /// One list of this field over all packages instead of objects.
    pub summarize: Option<(Field, Reverse)>,
    /// Sizes and times are written for people.
    pub pretty: bool,
}

/// What is shown when no fields are asked for.
const DEFAULT_FIELDS: FieldSet = FieldSet::of(&[
    Field::Name,
    Field::Version,
    Field::Description,
    Field::Arch,
    Field::License,
    Field::Origin,
    Field::Url,
    Field::Tags,
    Field::FileSize,
]);

/// Answers `query`. The status is 1 if a wanted field does not exist for some package; for a
/// summary it is the number of words that nothing matched.
pub fn query(view: &View<'_>, options: &QueryOptions, arguments: Arguments<'_>) -> Answer {
    let selected = options.selection.select(view, arguments);
    let mut text = String::new();
    if let Some((field, reverse)) = options.summarize {
        let items = summary(view, &selected.packages, field, reverse);
        write_list(&mut text, options.format, &items);
        return Answer::with_status(text, selected.missed.len());
    }
    let list = options.fields.unwrap_or(FieldList {
        fields: DEFAULT_FIELDS,
        ..FieldList::default()
    });
    let wanted = Wanted {
        fields: list.fields,
        reverse: list.reverse,
        reverse_installed: false,
        pretty: options.pretty,
    };
    let missing = write_packages(&mut text, options.format, view, &selected.packages, &wanted);
    Answer::with_status(text, usize::from(missing && !list.all))
}

/// Writes the fields of packages; returns whether a wanted field does not exist for some.
pub(super) fn write_packages(
    out: &mut String,
    format: Format,
    view: &View<'_>,
    packages: &[PackageRef],
    wanted: &Wanted,
) -> bool {
    let mut any_missing = false;
    let mut writer = Writer::new(out, format, packages.len());
    for package in packages {
        let (object, missing) = object(view, *package, wanted);
        any_missing |= missing;
        writer.object(&object);
    }
    writer.finish();
    any_missing
}

/// Returns the sorted, distinct values of a field.
fn summary(
    view: &View<'_>,
    packages: &[PackageRef],
    field: Field,
    reverse: Reverse,
) -> Vec<String> {
    if field == Field::Package {
        return packages.iter().map(|p| view.get(*p).full_name()).collect();
    }
    let related = |package: &PackageRef| match field {
        Field::ReverseDepends => view.dependants(*package),
        Field::ReverseInstallIf => view.install_if_dependants(*package),
        _ => Vec::new(),
    };
    let mut related: Vec<PackageRef> = packages.iter().flat_map(related).collect();
    related.sort_unstable();
    related.dedup();
    view.sort(&mut related);
    if reverse == Reverse::Package && !related.is_empty() {
        return related.iter().map(|p| view.get(*p).full_name()).collect();
    }
    let mut items: Vec<&str> = related
        .iter()
        .map(|package| match reverse {
            Reverse::Origin => view.get(*package).origin(),
            Reverse::Name | Reverse::Package => view.get(*package).name(),
        })
        .collect();
    for package in packages {
        let entry = view.get(*package);
        let installed = view.installed_package(*package);
        match field {
            Field::Name => items.push(entry.name()),
            Field::Origin => items.push(entry.origin()),
            Field::Depends => {
                let wanted = entry.record.depends().filter(|d| !d.conflict);
                items.extend(wanted.map(|d| entry.name_text(d.name)));
            }
            Field::Provides => {
                items.extend(entry.record.provides().map(|d| entry.name_text(d.name)));
            }
            Field::InstallIf => {
                items.extend(entry.record.install_if().map(|d| entry.name_text(d.name)));
            }
            Field::Replaces => {
                let replaces = installed.into_iter().flat_map(|p| &p.package.replaces);
                items.extend(replaces.map(|d| d.name.as_str()));
            }
            _ => {}
        }
    }
    items.retain(|item| !item.is_empty());
    items.sort_by(|a, b| order::by_name(a, b));
    items.dedup();
    items.into_iter().map(str::to_owned).collect()
}
