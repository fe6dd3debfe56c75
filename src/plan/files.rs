//! Who owns each path, and who gets it when two packages bring it (commit.md, chapter 6).

use crate::package::{Dependency, InstalledDb, Package};
use foldhash::{HashMap, HashMapExt as _};

/// A package that owns paths: an installed one or one of the plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Owner {
    /// By position in the installed database before the transaction.
    Old(usize),
    /// By position in the plan's changes.
    New(usize),
    /// The administrator's overlay.
    Overlay,
}

/// What becomes of a path that a package brings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Claim {
    /// Nobody else has it, or the newcomer takes it without a word.
    Take,
    /// The present owner keeps it; the newcomer's file is not installed.
    Keep,
    /// Both want it and no rule decides.
    Conflict(Owner),
}

/// What the rules look at in a package.
#[derive(Clone, Copy, Debug)]
pub struct Claimant<'a> {
    /// Metadata with `replaces`, `replaces_priority` and origin.
    pub package: &'a Package,
    /// It will be removed or replaced in this transaction.
    pub leaving: bool,
}

/// Paths and their owners.
#[derive(Clone, Debug, Default)]
pub struct Ownership {
    owners: HashMap<String, Owner>,
}

impl Ownership {
    /// Takes the owners from an installed database; `canonical` maps a directory to the one it
    /// really is, so that one file under two paths is one path (commit.md, W11).
    pub fn new(db: &InstalledDb, mut canonical: impl FnMut(&str) -> String) -> Self {
        let mut owners = HashMap::with_capacity(db.file_count());
        for (position, installed) in db.packages.iter().enumerate() {
            for directory in &installed.directories {
                let real = canonical(&directory.path);
                for file in &directory.files {
                    owners.insert(join(&real, &file.name), Owner::Old(position));
                }
            }
        }
        Self { owners }
    }

    /// Makes room for so many paths more.
    pub fn reserve(&mut self, paths: usize) {
        self.owners.reserve(paths);
    }

    /// Returns who owns a canonical path.
    pub fn owner(&self, path: &str) -> Option<Owner> {
        self.owners.get(path).copied()
    }

    /// Records a new owner.
    pub fn take(&mut self, path: String, owner: Owner) {
        self.owners.insert(path, owner);
    }

    /// Drops a path if this is its owner; returns whether it was.
    pub fn release(&mut self, path: &str, owner: Owner) -> bool {
        let owned = self.owner(path) == Some(owner);
        if owned {
            self.owners.remove(path);
        }
        owned
    }
}

/// Decides between the present owner and a newcomer of another name.
pub fn claim(present: Claimant<'_>, newcomer: Claimant<'_>) -> Option<Claim> {
    if present.package.name == newcomer.package.name || present.leaving {
        return Some(Claim::Take);
    }
    if newcomer.leaving {
        return Some(Claim::Keep);
    }
    let (kept, taken) = (
        priority(present.package, newcomer.package),
        priority(newcomer.package, present.package),
    );
    if kept > taken {
        return Some(Claim::Keep);
    }
    let origin = |package: &Package| package.origin.clone().filter(|origin| !origin.is_empty());
    let same_origin =
        origin(present.package).is_some() && origin(present.package) == origin(newcomer.package);
    (taken.is_some() || same_origin).then_some(Claim::Take)
}

/// Returns the priority with which `package` replaces `other`, if it does.
fn priority(package: &Package, other: &Package) -> Option<u16> {
    let replaces = |entry: &Dependency| {
        entry.name == other.name && entry.accepts(&other.version, other.identity)
    };
    package
        .replaces
        .iter()
        .any(replaces)
        .then_some(package.replaces_priority)
}

/// Joins a directory, empty for the root, and a name.
pub fn join(directory: &str, name: &str) -> String {
    if directory.is_empty() {
        name.to_owned()
    } else {
        // Asked for every file several times: `format!` would grow the text.
        [directory, "/", name].concat()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::package::DependencyList;

    fn package(name: &str, origin: &str, replaces: &str, priority: u16) -> Package {
        Package {
            name: name.into(),
            version: "1".into(),
            origin: Some(origin.into()),
            replaces: DependencyList::parse(replaces).entries,
            replaces_priority: priority,
            ..Package::default()
        }
    }

    #[test]
    fn the_first_matching_rule_decides() {
        let cases = [
            (package("a", "x", "", 0), package("b", "y", "", 0), None),
            (
                package("a", "x", "", 0),
                package("a", "y", "", 0),
                Some(Claim::Take),
            ),
            (
                package("a", "x", "", 0),
                package("b", "x", "", 0),
                Some(Claim::Take),
            ),
            (
                package("a", "x", "", 0),
                package("b", "y", "a", 0),
                Some(Claim::Take),
            ),
            (package("a", "x", "", 0), package("b", "y", "a<1", 0), None),
            (
                package("a", "x", "b", 0),
                package("b", "y", "", 0),
                Some(Claim::Keep),
            ),
            (
                package("a", "x", "b", 2),
                package("b", "y", "a", 1),
                Some(Claim::Keep),
            ),
            (
                package("a", "x", "b", 1),
                package("b", "y", "a", 1),
                Some(Claim::Take),
            ),
            (
                package("a", "x", "b", 0),
                package("b", "x", "", 0),
                Some(Claim::Keep),
            ),
        ];
        for (present, newcomer, wanted) in cases {
            let stays = |package| Claimant {
                package,
                leaving: false,
            };
            assert_eq!(claim(stays(&present), stays(&newcomer)), wanted);
            let leaves = Claimant {
                package: &present,
                leaving: true,
            };
            assert_eq!(claim(leaves, stays(&newcomer)), Some(Claim::Take));
        }
    }
}
