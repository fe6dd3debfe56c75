//! `stats`: how much is known (cli.md, 2.15).

use super::Answer;
use super::view::View;
use crate::package::Dependency;
use std::collections::HashSet;
use std::fmt::Write as _;

/// Texts that apk keeps before it reads anything.
const BUILT_IN_TEXTS: usize = 4;

/// Answers `stats`; the status is 0.
///
/// `atoms` is the number of distinct texts that apk would hold. Ours are not held that way; the
/// line is there for whoever parses it.
pub fn stats(view: &View<'_>, arch: &str) -> Answer {
    let installed = view.installed();
    let (mut files, mut bytes, mut triggers) = (0, 0, 0);
    for package in &installed.packages {
        bytes += package.package.installed_size;
        triggers += usize::from(!package.package.triggers.is_empty());
        for directory in &package.directories {
            files += directory.files.len();
        }
    }
    let mut text = String::new();
    let _ = writeln!(text, "installed:");
    let _ = writeln!(text, "  packages: {}", installed.packages.len());
    let _ = writeln!(text, "  dirs: {}", installed.directory_count());
    let _ = writeln!(text, "  files: {files}");
    let _ = writeln!(text, "  bytes: {bytes}");
    let _ = writeln!(text, "  triggers: {triggers}");
    let _ = writeln!(text, "available:");
    let _ = writeln!(text, "  names: {}", names(view));
    let _ = writeln!(text, "  packages: {}", view.packages().count());
    let _ = writeln!(text, "atoms:");
    let _ = writeln!(text, "  num: {}\n", texts(view, arch));
    Answer::text(text)
}

/// Counts the names that anything mentions; what packages replace is mentioned, too.
fn names(view: &View<'_>) -> usize {
    let mut names: HashSet<&str> = HashSet::new();
    for table in view.tables() {
        names.extend(table.names().map(|name| table.name(name)));
    }
    let packages = view.installed().packages.iter();
    let replaced = packages.flat_map(|package| &package.package.replaces);
    names.extend(replaced.map(|replaced| replaced.name.as_str()));
    names.len()
}

fn texts(view: &View<'_>, arch: &str) -> usize {
    let mut texts: HashSet<&str> = HashSet::new();
    for package in view.packages() {
        let entry = view.get(package);
        let record = entry.record;
        texts.extend([
            entry.version(),
            entry.arch(),
            entry.license(),
            entry.origin(),
            entry.maintainer(),
            entry.url(),
            entry.description(),
            entry.commit(),
        ]);
        texts.extend(entry.tags());
        let lists = record.depends().chain(record.provides());
        texts.extend(lists.chain(record.install_if()).map(|word| word.version));
    }
    for package in &view.installed().packages {
        let versions = package.package.replaces.iter();
        texts.extend(versions.map(|Dependency { version, .. }| version.as_str()));
        texts.extend(package.pinned_tag.as_deref());
    }
    let tags = view.repositories().iter().flat_map(|r| &r.tags);
    texts.extend(tags.flatten().map(String::as_str));
    for known in ["", "noarch", arch] {
        texts.remove(known);
    }
    texts.len() + BUILT_IN_TEXTS
}
