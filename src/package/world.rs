//! The world: the constraints the user asked for (solver.md, 3.5; formats.md, 9.6).
//!
//! It is not the installed set. Reading it from a file and writing it back is the business of the
//! floors above.

use super::{Dependency, DependencyError, order};
use std::collections::HashMap;

/// The list of wanted constraints, in the order of the file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct World {
    /// The entries; duplicates are kept.
    pub entries: Vec<Dependency>,
}

impl World {
    /// Reads the text of a world file.
    ///
    /// # Errors
    /// The first entry that is malformed or has a bad version, with its text.
    pub fn parse(text: &str) -> Result<Self, (String, DependencyError)> {
        let mut entries = Vec::new();
        for word in text.split([' ', '\n']).filter(|word| !word.is_empty()) {
            let entry = Dependency::parse_world(word).map_err(|error| (word.to_owned(), error))?;
            if entry.broken {
                return Err((word.to_owned(), DependencyError::Version));
            }
            entries.push(entry);
        }
        Ok(Self { entries })
    }

    /// Returns the text of the world file, one entry a line; an empty world is an empty line, as
    /// apk writes it, so that a file without any byte is one that was lost.
    pub fn to_text(&self) -> String {
        if self.entries.is_empty() {
            return "\n".to_owned();
        }
        self.entries
            .iter()
            .map(|entry| format!("{}\n", entry.stored()))
            .collect()
    }

    /// Returns the world as its file gives it back.
    pub fn stored(&self) -> Self {
        Self {
            entries: self.entries.iter().map(Dependency::stored).collect(),
        }
    }

    /// Sorts the entries in display order of their names, stably.
    pub fn sort(&mut self) {
        self.entries
            .sort_by(|a, b| order::by_name(&a.name, &b.name));
    }

    /// Replaces the first entry of the same name, or appends.
    pub fn add(&mut self, dependency: Dependency) {
        match self
            .entries
            .iter_mut()
            .find(|entry| entry.name == dependency.name)
        {
            Some(entry) => *entry = dependency,
            None => self.entries.push(dependency),
        }
    }

    /// Does [`Self::add`] for each of many; the time it takes grows with their number only.
    pub fn add_all(&mut self, dependencies: &[Dependency]) {
        let mut places: HashMap<String, usize> = HashMap::new();
        for (at, entry) in self.entries.iter().enumerate() {
            places.entry(entry.name.clone()).or_insert(at);
        }
        for dependency in dependencies {
            match places.get(&dependency.name) {
                Some(at) => self.entries[*at] = dependency.clone(),
                None => {
                    places.insert(dependency.name.clone(), self.entries.len());
                    self.entries.push(dependency.clone());
                }
            }
        }
    }

    /// Deletes the first entry of this name; the last entry takes its place.
    pub fn remove(&mut self, name: &str) {
        if let Some(at) = self.entries.iter().position(|entry| entry.name == name) {
            self.entries.swap_remove(at);
        }
    }

    /// Returns the first entry of this name.
    pub fn find(&self, name: &str) -> Option<&Dependency> {
        self.entries.iter().find(|entry| entry.name == name)
    }
}
