//! Scripts that an interruption cut off, remembered until they were run to their end.
//!
//! apk's database can say that a script of a package failed, and no more; reinstalling the package
//! runs its upgrade scripts then, from the version to itself. That is not what was cut off, so the
//! arguments are kept beside the database, in a file that is part of the set and goes with the last
//! entry:
//!
//! ```text
//! lib/apk/db/cut-scripts     a line each: NAME KIND VERSION [OLD-VERSION]
//! ```
//!
//! A trigger is run again for every directory that it watches, so its arguments are not kept.
//!
//! An entry counts only while the database says that a script of that package failed; this must
//! never be needed for anything but the choice of a script and its arguments.

use crate::package::{InstalledPackage, Package, ScriptKind};
use crate::root::{Root, RootError, split};

/// Where it is kept.
pub(super) const PATH: &str = "lib/apk/db/cut-scripts";

/// A script that is to be run again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Owed {
    name: String,
    kind: String,
    /// The version, and for an upgrade that before it; of a trigger, the version of its package.
    pub(super) arguments: Vec<String>,
}

impl Owed {
    /// Returns what is remembered of a script; nothing of those that are run anyway, or never again.
    pub(super) fn new(package: &Package, kind: ScriptKind, arguments: &[String]) -> Option<Self> {
        use ScriptKind::{PostInstall, PostUpgrade, PreInstall, PreUpgrade, Trigger};
        let arguments = match kind {
            PreInstall | PostInstall | PreUpgrade | PostUpgrade => arguments.to_vec(),
            Trigger => vec![package.version.clone()],
            _ => return None,
        };
        Some(Self {
            name: package.name.clone(),
            kind: kind.name().to_owned(),
            arguments,
        })
    }

    /// Returns which script of its package it is.
    pub(super) fn script(&self) -> Option<ScriptKind> {
        ScriptKind::from_name(&self.kind)
    }

    /// Returns whether it is a script of this kind.
    pub(super) fn is(&self, kind: ScriptKind) -> bool {
        self.kind == kind.name()
    }

    /// Returns whether it is of this package, and the package still waits for it.
    pub(super) fn is_of(&self, package: &InstalledPackage) -> bool {
        package.broken.script
            && self.name == package.package.name
            && self.arguments.first() == Some(&package.package.version)
    }
}

/// Reads what is remembered; lines that say nothing are left out.
pub(super) fn read(root: &Root) -> Result<Vec<Owed>, RootError> {
    let text = root.read(PATH)?.unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    Ok(text.lines().filter_map(parse).collect())
}

fn parse(line: &str) -> Option<Owed> {
    let mut words = line.split(' ').map(str::to_owned);
    let (name, kind) = (words.next()?, words.next()?);
    let arguments: Vec<String> = words.collect();
    (1..=2).contains(&arguments.len()).then_some(Owed {
        name,
        kind,
        arguments,
    })
}

/// Renders it.
pub(super) fn text(all: &[Owed]) -> Vec<u8> {
    let line = |owed: &Owed| format!("{} {} {}\n", owed.name, owed.kind, owed.arguments.join(" "));
    all.iter().map(line).collect::<String>().into_bytes()
}

/// Removes the file when nothing is left in it.
pub(super) fn remove_empty(root: &Root) -> Result<(), RootError> {
    let (folder, name) = split(PATH);
    let directory = root.directory(folder)?;
    match directory.stat(name)? {
        Some(stat) if stat.size == 0 => directory
            .remove_file(name)
            .or_else(|_| directory.remove_file(name)),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let words = |list: &[&str]| list.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>();
        let package = |name: &str, version: &str| Package {
            name: name.to_owned(),
            version: version.to_owned(),
            ..Package::default()
        };
        let one = Owed::new(&package("a", "1"), ScriptKind::PostInstall, &words(&["1"]));
        let two = [package("b", "2"), package("c", "3")];
        let three = Owed::new(&two[1], ScriptKind::Trigger, &words(&["/usr"]));
        let none = Owed::new(&two[1], ScriptKind::PostDeinstall, &words(&["3"]));
        let two = Owed::new(&two[0], ScriptKind::PreUpgrade, &words(&["2", "1"]));
        let all: Vec<Owed> = [one, two, three, none].into_iter().flatten().collect();
        let text = String::from_utf8(text(&all)).expect("text");
        assert_eq!(text, "a post-install 1\nb pre-upgrade 2 1\nc trigger 3\n");
        assert_eq!(text.lines().filter_map(parse).collect::<Vec<_>>(), all);
        for line in ["", "a", "a post-install", "a pre-upgrade 1 2 3"] {
            assert_eq!(parse(line), None, "{line:?}");
        }
    }
}
