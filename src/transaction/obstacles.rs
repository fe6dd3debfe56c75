//! What stands in the way of staged files, found before anything is changed (commit.md, W9, W10).
//!
//! A file cannot replace a directory that holds something else, and no directory can be made where
//! a file of somebody else stands. Only what leaves in the same transaction makes way.

use super::Decision;
use super::protect::ProtectedPaths;
use super::stage::StagedPackage;
use crate::plan::files::join;
use crate::root::{Root, RootError, split};
use foldhash::{HashMap, HashSet};
use rustix::fs::FileType;
use std::cell::RefCell;

/// Links followed while a target is looked up; the kernel has the same bound.
const MOST_LINKS: usize = 40;

/// The paths of one transaction, and the tree they go to.
pub(super) struct Obstacles<'a> {
    root: &'a Root,
    protected: &'a ProtectedPaths,
    /// Files and links of packages that leave or change.
    leaving: &'a HashMap<String, ()>,
    /// Directories of packages that leave or change.
    leaving_directories: &'a HashSet<&'a str>,
    /// Directories that the transaction brings.
    directories: HashSet<&'a str>,
    /// Files that the transaction brings; a link with its target.
    files: HashMap<String, Option<Vec<u8>>>,
    /// Whether directories asked for are there; most packages ask for the same ones.
    present: RefCell<HashMap<&'a str, bool>>,
}

impl<'a> Obstacles<'a> {
    /// Collects what the staged packages bring.
    pub(super) fn new(
        root: &'a Root,
        protected: &'a ProtectedPaths,
        leaving: &'a HashMap<String, ()>,
        leaving_directories: &'a HashSet<&'a str>,
        staged: &'a [Option<StagedPackage>],
        decisions: &[Vec<Decision>],
    ) -> Self {
        let mut directories = HashSet::default();
        let mut files = HashMap::default();
        for (package, decisions) in staged.iter().zip(decisions) {
            let Some(package) = package else { continue };
            directories.extend(package.directories.iter().map(|d| d.path.as_str()));
            for (file, decision) in package.files.iter().zip(decisions) {
                let Some(waiting) = &file.staged else {
                    continue;
                };
                if *decision == Decision::Leave {
                    continue;
                }
                let target = file.is_link.then(|| {
                    let target = root.parent(waiting).and_then(|(d, name)| d.read_link(name));
                    target.unwrap_or_default()
                });
                files.insert(package.path(file), target);
            }
        }
        Self {
            root,
            protected,
            leaving,
            leaving_directories,
            directories,
            files,
            present: RefCell::default(),
        }
    }

    /// Returns whether a directory is there now.
    fn is_present(&self, path: &'a str) -> bool {
        if let Some(known) = self.present.borrow().get(path) {
            return *known;
        }
        let parent = split(path).0;
        // Below a directory that is not there nothing is.
        let present =
            (parent.is_empty() || self.is_present(parent)) && self.root.directory(path).is_ok();
        self.present.borrow_mut().insert(path, present);
        present
    }

    /// Returns why files or directories of a package cannot be put in place, a line for each.
    ///
    /// # Errors
    /// [`RootError`] if the tree cannot be read.
    pub(super) fn of(
        &self,
        package: &'a StagedPackage,
        decisions: &[Decision],
    ) -> Result<Vec<String>, RootError> {
        let mut found = Vec::new();
        let mut present = Vec::with_capacity(package.directories.len());
        for directory in &package.directories {
            let path = directory.path.as_str();
            let on_the_way = path.match_indices('/').map(|(at, _)| &path[..at]);
            let unlisted = on_the_way.filter(|path| !self.directories.contains(path));
            for path in unlisted.chain([path]) {
                if let Some(what) = self.instead_of_directory(path)? {
                    found.push(format!("cannot make the directory {path}: {what}"));
                }
            }
            // Below a directory that is not there nothing can be in the way.
            present.push(self.is_present(path));
        }
        for (file, decision) in package.files.iter().zip(decisions) {
            let folder = &package.directories[file.directory].path;
            if *decision == Decision::Leave || file.staged.is_none() {
                continue;
            }
            let path = join(folder, &file.name);
            if self.directories.contains(path.as_str()) && !file.is_link {
                found.push(format!(
                    "cannot place {path}: a package makes a directory there"
                ));
                continue;
            }
            if !present[file.directory] || self.protected.is_protected(folder) {
                continue;
            }
            let (directory, name) = self.root.parent(&path)?;
            if directory.stat(name)?.is_some_and(|stat| stat.is_dir()) && !self.goes_away(&path)? {
                found.push(format!(
                    "cannot place {path}: a directory with other files is there"
                ));
            }
        }
        Ok(found)
    }

    /// Returns what keeps a directory from being made or used.
    fn instead_of_directory(&self, path: &'a str) -> Result<Option<&'static str>, RootError> {
        match self.files.get(path) {
            Some(None) => return Ok(Some("a package brings a file there")),
            Some(Some(target)) if !self.leads_to_directory(path, target) => {
                return Ok(Some(
                    "a package brings a link there that leads to no directory",
                ));
            }
            Some(Some(_)) => return Ok(None),
            None => {}
        }
        if path.is_empty() || self.leaving.contains_key(path) {
            return Ok(None);
        }
        let parent = split(path).0;
        if self.is_present(path) || !parent.is_empty() && !self.is_present(parent) {
            return Ok(None);
        }
        Ok(match self.root.stat(path)?.map(|stat| stat.kind) {
            None | Some(FileType::Directory) => None,
            Some(FileType::Symlink) => {
                let (directory, name) = self.root.parent(path)?;
                let target = directory.read_link(name)?;
                let leads = self.leads_to_directory(path, &target);
                (!leads).then_some("a link is there that leads to no directory")
            }
            Some(_) => Some("a file is there"),
        })
    }

    /// Returns whether a link will lead to a directory inside the root.
    fn leads_to_directory(&self, link: &str, target: &[u8]) -> bool {
        let (mut path, mut target) = (link.to_owned(), target.to_vec());
        for _ in 0..MOST_LINKS {
            let Ok(text) = std::str::from_utf8(&target) else {
                return false;
            };
            path = resolve(split(&path).0, text);
            match self.files.get(&path) {
                Some(Some(next)) => target.clone_from(next),
                Some(None) => return false,
                None => {
                    return self.directories.contains(path.as_str())
                        || self.root.directory(&path).is_ok();
                }
            }
        }
        false
    }

    /// Returns whether everything in a directory belongs to packages that leave or change.
    fn goes_away(&self, path: &str) -> Result<bool, RootError> {
        if !self.leaving_directories.contains(path) {
            return Ok(false);
        }
        let directory = self.root.directory(path)?;
        for name in directory.list()? {
            let Some(name) = name.to_str() else {
                return Ok(false);
            };
            let child = join(path, name);
            let is_dir = directory.stat(name)?.is_some_and(|stat| stat.is_dir());
            let goes = if is_dir {
                self.goes_away(&child)?
            } else {
                self.leaving.contains_key(&child)
            };
            if !goes {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

/// Returns where a link's text leads from a directory; `..` never leads out of the root.
fn resolve(directory: &str, target: &str) -> String {
    let mut path: Vec<&str> = match target.starts_with('/') {
        true => Vec::new(),
        false => directory.split('/').filter(|c| !c.is_empty()).collect(),
    };
    for component in target.split('/') {
        match component {
            "" | "." => {}
            ".." => drop(path.pop()),
            name => path.push(name),
        }
    }
    path.join("/")
}

#[cfg(test)]
mod tests {
    use super::resolve;

    #[test]
    fn links_lead_inside_the_root() {
        for (directory, target, wanted) in [
            ("var", "../run", "run"),
            ("var", "/run", "run"),
            ("usr/lib", "../../../../etc/./x", "etc/x"),
            ("", "a//b/..", "a"),
            ("a", "..", ""),
        ] {
            assert_eq!(resolve(directory, target), wanted, "{directory} {target}");
        }
    }
}
