//! Which directory a path really means.

use crate::root::{Root, split};
use foldhash::{HashMap, HashSet};
use rustix::fs::FileType;

/// Resolves directory paths through the symbolic links of a root, once each (commit.md, W11).
pub(super) struct Canonical<'a> {
    root: &'a Root,
    known: HashMap<String, String>,
    /// Paths that were looked up since the last question for them.
    learned: Vec<String>,
    /// Directories that were not there since then.
    missing: HashSet<String>,
}

impl<'a> Canonical<'a> {
    pub(super) fn new(root: &'a Root) -> Self {
        Self {
            root,
            known: HashMap::default(),
            learned: Vec::new(),
            missing: HashSet::default(),
        }
    }

    /// Takes over answers that were given before.
    pub(super) fn learn(&mut self, answers: &[(String, Option<String>)]) {
        self.missing.clear();
        for (path, real) in answers {
            let real = real.as_ref().unwrap_or(path).clone();
            self.known.insert(path.clone(), real);
        }
    }

    /// Begins a new list of answers.
    pub(super) fn forget_learned(&mut self) {
        self.learned.clear();
        self.missing.clear();
    }

    /// Returns the answers given since then; none for a path that stands for itself.
    pub(super) fn learned(&mut self) -> Vec<(String, Option<String>)> {
        let paths = std::mem::take(&mut self.learned).into_iter();
        paths
            .map(|path| {
                let real = self.known.get(&path).filter(|real| **real != path).cloned();
                (path, real)
            })
            .collect()
    }

    /// Returns the paths that do not stand for themselves, and what they mean.
    pub(super) fn links(&self) -> Vec<(String, String)> {
        let links = self.known.iter().filter(|(path, real)| path != real);
        let mut links: Vec<_> = links
            .map(|(path, real)| (path.clone(), real.clone()))
            .collect();
        links.sort();
        links
    }

    /// Returns the path of the directory itself; a path that does not exist stands for itself.
    pub(super) fn of(&mut self, path: &str) -> String {
        self.resolve(path, 0)
    }

    fn resolve(&mut self, path: &str, depth: u32) -> String {
        if path.is_empty() {
            return String::new();
        }
        if let Some(known) = self.known.get(path) {
            return known.clone();
        }
        let (parent, name) = split(path);
        let parent = self.resolve(parent, depth);
        let plain = crate::plan::files::join(&parent, name);
        // As many links as the kernel follows.
        let real = if depth < 40 {
            self.follow(&parent, name, depth)
        } else {
            None
        };
        let real = real.unwrap_or(plain);
        self.known.insert(path.to_owned(), real.clone());
        self.learned.push(path.to_owned());
        real
    }

    fn follow(&mut self, parent: &str, name: &str, depth: u32) -> Option<String> {
        if self.missing.contains(parent) {
            return None;
        }
        let Ok(directory) = self.root.directory(parent) else {
            self.missing.insert(parent.to_owned());
            return None;
        };
        let stat = directory.stat(name).ok()??;
        if stat.kind != FileType::Symlink {
            return None;
        }
        let target = String::from_utf8(directory.read_link(name).ok()?).ok()?;
        let mut components: Vec<&str> = if target.starts_with('/') {
            Vec::new()
        } else {
            parent.split('/').collect()
        };
        for component in target.split('/') {
            match component {
                "" | "." => {}
                ".." => drop(components.pop()),
                other => components.push(other),
            }
        }
        components.retain(|component| !component.is_empty());
        let path = components.join("/");
        Some(self.resolve(&path, depth + 1))
    }
}
