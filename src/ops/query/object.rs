//! The fields of a package as values.

use super::fields::{Field, FieldSet, Reverse};
use super::owner;
use super::render::{Object, Value};
use super::view::{INSTALLED_SOURCE, PackageRef, View};
use crate::package::ScriptKind;
use std::collections::HashSet;

/// What is wanted of packages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// The fields.
    pub fields: FieldSet,
    /// How reverse fields show packages.
    pub reverse: Reverse,
    /// Reverse fields list installed packages only.
    pub reverse_installed: bool,
    /// Sizes and times are written for people.
    pub pretty: bool,
}

/// Returns the fields of a package, and whether a wanted one does not exist for it.
pub fn object(view: &View<'_>, package: PackageRef, wanted: &Wanted) -> (Object, bool) {
    let mut object = Object::new();
    let mut missing = false;
    let installed = view.is_installed(package);
    for field in wanted.fields.iter() {
        if field == Field::Hash || (field.is_installed_only() && !installed) {
            missing = true;
        } else if let Some(value) = value(view, package, field, wanted) {
            let value = match (wanted.pretty, value) {
                (true, Value::Number(number)) => for_people(field, number),
                (_, value) => value,
            };
            object.push((field.into(), value));
        }
    }
    (object, missing)
}

fn value(view: &View<'_>, package: PackageRef, field: Field, wanted: &Wanted) -> Option<Value> {
    let entry = view.get(package);
    let text = |text: &str| (!text.is_empty()).then(|| Value::Text(text.to_owned()));
    let number = |number: u64| (number != 0).then_some(Value::Number(number));
    let list = |list: Vec<String>| (!list.is_empty()).then_some(Value::List(list));
    let installed = view.installed_package(package);
    match field {
        Field::Package => text(&entry.full_name()),
        Field::Name => text(entry.name()),
        Field::Version => text(entry.version()),
        Field::Description => text(entry.description()),
        Field::Arch => text(entry.arch()),
        Field::License => text(entry.license()),
        Field::Origin => text(entry.origin()),
        Field::Maintainer => text(entry.maintainer()),
        Field::Url => text(entry.url()),
        Field::Commit => text(entry.commit()),
        Field::BuildTime => number(entry.build_time()),
        Field::InstalledSize => number(entry.installed_size()),
        Field::FileSize => number(entry.size()),
        Field::ProviderPriority => number(entry.provider_priority().into()),
        Field::Depends => list(entry.depends()),
        Field::Provides => list(entry.provides()),
        Field::InstallIf => list(entry.install_if()),
        Field::Tags => list(entry.tags().into_iter().map(str::to_owned).collect()),
        Field::Repositories => Some(Value::Stream(sources(view, package))),
        Field::DownloadUrl => view.location(package).map(Value::Text),
        Field::ReverseDepends => {
            let packages = view.dependants(package);
            Some(Value::Stream(reverse_names(view, packages, wanted)))
        }
        Field::ReverseInstallIf => {
            let packages = view.install_if_dependants(package);
            Some(Value::Stream(reverse_names(view, packages, wanted)))
        }
        Field::Contents => Some(Value::Stream(owner::paths(installed?).collect())),
        Field::Triggers => list(installed?.package.triggers.clone()),
        Field::Scripts => list(scripts(installed?)),
        Field::ReplacesPriority => number(installed?.package.replaces_priority.into()),
        Field::Replaces => list(written(&installed?.package.replaces)),
        Field::Status => Some(Value::Stream(status(installed?))),
        Field::Query
        | Field::PathTarget
        | Field::Error
        | Field::Hash
        | Field::Recommends
        | Field::Layer
        | Field::Owner => None,
    }
}

/// Writes a size as `info` shows it: whole numbers in every unit.
pub(super) fn whole_size(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let (mut value, mut unit) = (bytes, 0);
    while unit + 1 < UNITS.len() && value >= 10000 {
        value /= 1024;
        unit += 1;
    }
    format!("{value} {}", UNITS[unit])
}

/// Writes a number as apk does with `--pretty-print`: sizes in units, times by the calendar, in UTC.
fn for_people(field: Field, number: u64) -> Value {
    let time = || jiff::Timestamp::from_second(i64::try_from(number).ok()?).ok();
    match field {
        Field::InstalledSize | Field::FileSize => Value::Text(whole_size(number)),
        Field::BuildTime => time().map_or(Value::Number(number), |time| {
            Value::Text(time.strftime("%Y-%m-%d %H:%M:%S").to_string())
        }),
        _ => Value::Number(number),
    }
}

/// Writes dependencies, a tag left out.
pub(super) fn written(list: &[crate::package::Dependency]) -> Vec<String> {
    list.iter().map(|d| d.without_tag()).collect()
}

/// Returns where a package is known from.
pub(super) fn sources(view: &View<'_>, package: PackageRef) -> Vec<String> {
    let installed = view
        .is_installed(package)
        .then(|| INSTALLED_SOURCE.to_owned());
    let repositories = view.repositories_of(package);
    let urls = repositories.map(|number| view.repositories()[number].url.clone());
    installed.into_iter().chain(urls).collect()
}

/// Returns what reverse fields show of packages, each text once.
pub(super) fn reverse_names(
    view: &View<'_>,
    packages: Vec<PackageRef>,
    wanted: &Wanted,
) -> Vec<String> {
    let mut seen = HashSet::new();
    packages
        .into_iter()
        .filter(|package| !wanted.reverse_installed || view.is_installed(*package))
        .filter_map(|package| {
            let entry = view.get(package);
            match wanted.reverse {
                Reverse::Package => Some(entry.full_name()),
                Reverse::Name => seen.insert(entry.name()).then(|| entry.name().to_owned()),
                Reverse::Origin => {
                    let origin = entry.origin();
                    (!origin.is_empty() && seen.insert(origin)).then(|| origin.to_owned())
                }
            }
        })
        .collect()
}

/// Returns the kinds of a package's scripts.
fn scripts(installed: &crate::package::InstalledPackage) -> Vec<String> {
    let (triggers, others): (Vec<&ScriptKind>, Vec<&ScriptKind>) = installed
        .scripts
        .keys()
        .partition(|kind| **kind == ScriptKind::Trigger);
    let kinds = others.into_iter().chain(triggers);
    kinds.map(|kind| kind.name().to_owned()).collect()
}

fn status(installed: &crate::package::InstalledPackage) -> Vec<String> {
    let broken = installed.broken;
    [
        (true, "installed"),
        (broken.files, "broken-files"),
        (broken.script, "broken-script"),
        (broken.xattrs, "broken-xattr"),
    ]
    .into_iter()
    .filter(|(is_so, _)| *is_so)
    .map(|(_, word)| word.to_owned())
    .collect()
}
