//! Which files scripts changed: configuration before and after a transaction.
//!
//! Packages replace files by renaming; what a script writes keeps its inode or has no package. So
//! a look at the attributes of the files below `etc`, before and after, tells what a transaction
//! changed there besides the packages' own files. Contents are not read.

use super::WrittenFile;
use crate::package::{InstalledDb, InstalledPackage};
use crate::root::{Root, Stat};
use rustix::fs::FileType;
use serde::Serialize;
use std::collections::{BTreeMap, HashSet};

/// The directory that is watched: what scripts change for good is configuration.
const WATCHED: &str = "etc";

/// Files looked at; more are not watched, so that a huge tree costs no time.
const LIMIT: usize = 20_000;

/// Files that change with every transaction.
const IGNORED: [&str; 2] = ["etc/apk/world", "etc/apk/arch"];

/// What happened to a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum FileChange {
    /// It has another content, owner or mode.
    Changed,
    /// It is new.
    Made,
    /// It is gone.
    Deleted,
}

impl FileChange {
    /// Returns the word for people and for the database.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Changed => "changed",
            Self::Made => "made",
            Self::Deleted => "deleted",
        }
    }

    pub(super) fn from_text(text: &str) -> Self {
        match text {
            "made" => Self::Made,
            "deleted" => Self::Deleted,
            _ => Self::Changed,
        }
    }
}

/// A file that a script changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ChangedFile {
    /// Its path, relative to the root.
    pub path: String,
    /// What happened to it.
    pub change: FileChange,
}

/// The files as they were at one time.
#[derive(Clone, Debug, Default)]
pub struct Watch {
    files: BTreeMap<String, (Stat, (i64, i64))>,
    /// When it was looked, in nanoseconds since 1970.
    time: i64,
}

impl Watch {
    /// Looks at the files.
    pub fn look(root: &Root) -> Self {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        let mut watch = Self {
            files: BTreeMap::new(),
            time: now.map_or(0, |now| now.as_nanos() as i64),
        };
        watch.enter(root, WATCHED);
        watch
    }

    fn enter(&mut self, root: &Root, path: &str) {
        // What cannot be read now cannot be compared; the transaction itself will say so.
        let Ok(directory) = root.directory(path) else {
            return;
        };
        for name in directory.list().unwrap_or_default() {
            let Some(name) = name.to_str() else { continue };
            if self.files.len() >= LIMIT {
                return;
            }
            let below = directory.join(name);
            match directory.stat_and_times(name) {
                Ok((stat, _)) if stat.is_dir() => self.enter(root, &below),
                Ok(seen) => {
                    self.files.insert(below, seen);
                }
                Err(_) => {}
            }
        }
    }

    /// Returns what changed since, apart from the files of packages that came or left.
    ///
    /// `before` and `after` are the databases around the transaction; `written` are the files that
    /// it wrote itself.
    pub fn changed(
        &self,
        root: &Root,
        before: &InstalledDb,
        after: &InstalledDb,
        written: &[WrittenFile],
    ) -> Vec<ChangedFile> {
        let now = Self::look(root);
        let touched: HashSet<String> = differing(before, after)
            .chain(differing(after, before))
            .flat_map(|package| &package.directories)
            .filter(|directory| directory.path.split('/').next() == Some(WATCHED))
            .flat_map(|directory| {
                directory
                    .files
                    .iter()
                    .map(|file| crate::plan::files::join(&directory.path, &file.name))
            })
            .collect();
        let packaged = |path: &str| touched.contains(path.strip_suffix(".apk-new").unwrap_or(path));
        // Packages bring their own times, links aside; a file of theirs that is younger than the
        // beginning was written to after it was put in place.
        let by_package = |path: &String, (new, times): &(Stat, (i64, i64))| {
            let old = self.files.get(path).map(|(old, _)| old.inode);
            IGNORED.contains(&path.as_str())
                || written.iter().any(|file| file.path == *path)
                || packaged(path)
                    && old != Some(new.inode)
                    && (times.0 < self.time || new.kind == FileType::Symlink)
        };
        let of = |path: &String, change| ChangedFile {
            path: path.clone(),
            change,
        };
        let deleted = self
            .files
            .keys()
            .filter(|path| !now.files.contains_key(*path) && !packaged(path))
            .map(|path| of(path, FileChange::Deleted));
        let others = now.files.iter().filter_map(|(path, new)| {
            let change = match self.files.get(path) {
                None => FileChange::Made,
                Some(old) if old != new => FileChange::Changed,
                Some(_) => return None,
            };
            (!by_package(path, new)).then(|| of(path, change))
        });
        let mut all: Vec<ChangedFile> = deleted.chain(others).collect();
        all.sort_by(|a, b| a.path.cmp(&b.path));
        all
    }
}

/// Returns the packages of one database that the other does not have in the same build.
fn differing<'a>(
    of: &'a InstalledDb,
    other: &'a InstalledDb,
) -> impl Iterator<Item = &'a InstalledPackage> {
    let same: HashSet<_> = other.packages.iter().map(|p| p.package.identity).collect();
    let all = of.packages.iter();
    all.filter(move |package| !same.contains(&package.package.identity))
}
