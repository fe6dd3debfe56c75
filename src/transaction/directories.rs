//! Which directory a path really means.

use crate::root::{Root, split};
use rustix::fs::FileType;
use std::collections::HashMap;

/// Resolves directory paths through the symbolic links of a root, once each (commit.md, W11).
pub(super) struct Canonical<'a> {
    root: &'a Root,
    known: HashMap<String, String>,
}

impl<'a> Canonical<'a> {
    pub(super) fn new(root: &'a Root) -> Self {
        Self {
            root,
            known: HashMap::new(),
        }
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
        real
    }

    fn follow(&mut self, parent: &str, name: &str, depth: u32) -> Option<String> {
        let directory = self.root.directory(parent).ok()?;
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
