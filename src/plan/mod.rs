//! From here to there: an ordered list of changes, as a value.
//!
//! A plan is made by the solver and carried out by a transaction. It knows where package files
//! are, but opens none.

pub mod files;
mod from_solution;
pub mod lockfile;

use crate::package::{Identity, Package};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// The changes of one transaction, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// One entry for every package of the old and the new state, unchanged ones included.
    pub changes: Vec<Change>,
}

/// One package, before and after.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// The installed package, by identity.
    pub old: Option<OldPackage>,
    /// What shall be there afterwards.
    pub new: Option<NewPackage>,
    /// The package is installed again although it is the same.
    pub reinstall: bool,
}

/// The installed side of a change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OldPackage {
    /// Which installed package.
    pub identity: Identity,
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// The tag recorded for it.
    pub tag: Option<String>,
}

/// The new side of a change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewPackage {
    /// Metadata as the index (or the file, or the database) states it.
    pub package: Package,
    /// The tag to record, without `@`.
    pub tag: Option<String>,
    /// Where its file is.
    pub source: Source,
}

/// Where a package file comes from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Source {
    /// Nothing needs to be read (no data, or unchanged).
    None,
    /// A local file: repository folder, cache, command line or finished download.
    File(PathBuf),
    /// A package that the cache holds unpacked; nobody but the cache may say so.
    Unpacked(PathBuf),
    /// It must be fetched from this address first.
    Remote(String),
    /// The root itself kept it when it left after an earlier transaction.
    Kept,
    /// It can not be had; a reinstallation is skipped.
    Unavailable,
}

/// What a step line says of a change (solver.md, 7.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    /// Nothing was there.
    Installing,
    /// Nothing will be there.
    Purging,
    /// To a higher version.
    Upgrading,
    /// To a lower version.
    Downgrading,
    /// To another build of an equal version.
    Replacing,
    /// The same again.
    Reinstalling,
    /// The same again, but no file can be had.
    SkippedReinstalling,
    /// Only the repository tag changes.
    UpdatingPinning,
}

impl Verb {
    /// Returns the words that a step line shows.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Installing => "Installing",
            Self::Purging => "Purging",
            Self::Upgrading => "Upgrading",
            Self::Downgrading => "Downgrading",
            Self::Replacing => "Replacing",
            Self::Reinstalling => "Reinstalling",
            Self::SkippedReinstalling => "[APK unavailable, skipped] Reinstalling",
            Self::UpdatingPinning => "Updating pinning",
        }
    }
}

impl Change {
    /// Returns what the step line says; `None` for an entry that changes nothing.
    pub fn verb(&self) -> Option<Verb> {
        use crate::package::Version;
        use std::cmp::Ordering;
        match (&self.old, &self.new) {
            (None, None) => None,
            (None, Some(_)) => Some(Verb::Installing),
            (Some(_), None) => Some(Verb::Purging),
            (Some(old), Some(new)) if old.identity == new.package.identity => {
                if self.reinstall {
                    Some(match new.source {
                        Source::Unavailable => Verb::SkippedReinstalling,
                        _ => Verb::Reinstalling,
                    })
                } else {
                    (old.tag != new.tag).then_some(Verb::UpdatingPinning)
                }
            }
            (Some(old), Some(new)) => Some(
                match Version(&new.package.version).compare(Version(&old.version)) {
                    Ordering::Greater => Verb::Upgrading,
                    Ordering::Less => Verb::Downgrading,
                    Ordering::Equal => Verb::Replacing,
                },
            ),
        }
    }

    /// Returns the step line without its counter: `VERB NAME[@TAG] (VERSION)` or
    /// `(OLD -> NEW)`.
    pub fn line(&self) -> Option<String> {
        let verb = self.verb()?.as_str();
        Some(match (&self.old, &self.new) {
            (Some(old), None) => format!("{verb} {} ({})", old.name, old.version),
            (old, Some(new)) => {
                let tag = new
                    .tag
                    .as_ref()
                    .map(|tag| format!("@{tag}"))
                    .unwrap_or_default();
                let name = &new.package.name;
                match old {
                    Some(old) if old.identity != new.package.identity => {
                        format!(
                            "{verb} {name}{tag} ({} -> {})",
                            old.version, new.package.version
                        )
                    }
                    _ => format!("{verb} {name}{tag} ({})", new.package.version),
                }
            }
            (None, None) => return None,
        })
    }
}

impl Plan {
    /// Returns the step lines with their counters, padded to the width of the total.
    pub fn step_lines(&self) -> Vec<String> {
        let lines: Vec<String> = self.changes.iter().filter_map(Change::line).collect();
        let total = lines.len();
        let width = total.to_string().len();
        let numbered = lines.iter().enumerate();
        numbered
            .map(|(i, line)| format!("({:>width$}/{total}) {line}", i + 1))
            .collect()
    }
}
