//! Which installed package a path belongs to (cli.md, 2.8).

use super::view::{PackageRef, View};
use crate::package::{InstalledDirectory, InstalledPackage};

/// Returns the paths of a package's files without leading slash, in package order.
pub fn paths(installed: &InstalledPackage) -> impl Iterator<Item = String> + '_ {
    let directories = installed.directories.iter();
    directories.flat_map(|directory| {
        let files = directory.files.iter();
        files.map(|file| join(directory, &file.name))
    })
}

pub(super) fn join(directory: &InstalledDirectory, name: &str) -> String {
    match directory.path.as_str() {
        "" => name.to_owned(),
        path => format!("{path}/{name}"),
    }
}

/// Returns the package that a file or directory belongs to; slashes at either end of the path do
/// not matter. A directory belongs to the first package that has it.
pub fn owner(view: &View<'_>, path: &str) -> Option<PackageRef> {
    let path = path.trim_matches('/');
    if path.is_empty() {
        return None;
    }
    let (folder, name) = path.rsplit_once('/').unwrap_or(("", path));
    let find = |wanted: &dyn Fn(&InstalledDirectory) -> bool| {
        view.installed_packages().find(|package| {
            let installed = view.installed_package(*package);
            installed.is_some_and(|p| p.directories.iter().any(wanted))
        })
    };
    find(&|directory| directory.path == folder && directory.files.iter().any(|f| f.name == name))
        .or_else(|| find(&|directory| directory.path == path))
}
