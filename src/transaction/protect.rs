//! Which directories hold configuration (formats.md, 10.2; commit.md, chapter 8).

use crate::package::glob;
use crate::root::{Root, RootError};
use serde::{Deserialize, Serialize};

/// How a path is protected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Protection {
    /// Not at all.
    Ignore,
    /// Changed files are kept.
    Changed,
    /// Only symbolic links are reported by `audit`.
    Symlinks,
    /// Everything is reported by `audit`.
    All,
}

/// The rules, built-in ones first; the last match wins.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ProtectedPaths {
    rules: Vec<(Protection, Vec<String>)>,
}

impl Default for ProtectedPaths {
    /// `+etc`, `@etc/init.d`, `!etc/apk`.
    fn default() -> Self {
        let mut paths = Self { rules: Vec::new() };
        for line in ["+etc", "@etc/init.d", "!etc/apk"] {
            paths.add_line(line);
        }
        paths
    }
}

impl ProtectedPaths {
    /// Reads the built-in rules and `etc/apk/protected_paths.d/*.list` of a root, sorted by name.
    ///
    /// # Errors
    /// [`RootError`] if a list cannot be read.
    pub fn load(root: &Root) -> Result<Self, RootError> {
        const FOLDER: &str = "etc/apk/protected_paths.d";
        let mut paths = Self::default();
        for name in root.list(FOLDER)? {
            let Some(name) = name.to_str() else { continue };
            if name.starts_with('.') || !name.ends_with(".list") {
                continue;
            }
            let text = root.read(&format!("{FOLDER}/{name}"))?.unwrap_or_default();
            paths.add_lines(&String::from_utf8_lossy(&text));
        }
        Ok(paths)
    }

    /// Makes rules from the text of one list, without the built-in ones.
    pub fn from_text(text: &str) -> Self {
        let mut paths = Self { rules: Vec::new() };
        paths.add_lines(text);
        paths
    }

    fn add_lines(&mut self, text: &str) {
        for line in text.lines() {
            self.add_line(line);
        }
    }

    fn add_line(&mut self, line: &str) {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            return;
        }
        let (mode, pattern) = match line.as_bytes()[0] {
            b'-' => (Protection::Ignore, &line[1..]),
            b'+' => (Protection::Changed, &line[1..]),
            b'@' => (Protection::Symlinks, &line[1..]),
            b'!' => (Protection::All, &line[1..]),
            _ => (Protection::Changed, line),
        };
        let pattern = pattern.trim_matches('/');
        if !pattern.is_empty() {
            self.rules
                .push((mode, pattern.split('/').map(str::to_owned).collect()));
        }
    }

    /// Returns the mode of a path; without a rule it is not protected.
    pub fn mode(&self, path: &str) -> Protection {
        self.rule(path).unwrap_or(Protection::Ignore)
    }

    /// Returns whether some rule is about a path below this one.
    pub fn has_rules_below(&self, path: &str) -> bool {
        let components: Vec<&str> = path.split('/').collect();
        let below = |pattern: &[String]| {
            pattern.len() > components.len() && matches(&pattern[..components.len()], &components)
        };
        self.rules.iter().any(|(_, pattern)| below(pattern))
    }

    /// Adds the rules of a text; they come after those that are there.
    pub fn extend(&mut self, text: &str) {
        self.add_lines(text);
    }

    /// Returns what the last rule says that matches a path or its nearest ancestor.
    pub fn rule(&self, path: &str) -> Option<Protection> {
        let components: Vec<&str> = path.split('/').collect();
        for length in (1..=components.len()).rev() {
            let prefix = &components[..length];
            let rule = self
                .rules
                .iter()
                .rev()
                .find(|(_, pattern)| matches(pattern, prefix));
            if let Some((mode, _)) = rule {
                return Some(*mode);
            }
        }
        None
    }

    /// Returns whether files directly in this directory are configuration.
    pub fn is_protected(&self, directory: &str) -> bool {
        self.mode(directory) != Protection::Ignore
    }
}

fn matches(pattern: &[String], path: &[&str]) -> bool {
    let options = glob::Options {
        pathname: true,
        ignore_case: false,
    };
    pattern.len() == path.len()
        && pattern
            .iter()
            .zip(path)
            .all(|(glob, name)| glob::matches(glob, name, options))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_matching_rule_wins() {
        let mut paths = ProtectedPaths::default();
        paths.add_lines("# text\n\n-etc/ssl/certs/\nvar/lib/*/conf\n@opt\n");
        for (path, mode) in [
            ("", Protection::Ignore),
            ("usr", Protection::Ignore),
            ("etc", Protection::Changed),
            ("etc/conf.d", Protection::Changed),
            ("etc/init.d", Protection::Symlinks),
            ("etc/apk/keys", Protection::All),
            ("etc/ssl/certs", Protection::Ignore),
            ("etc/ssl", Protection::Changed),
            ("var/lib/x/conf", Protection::Changed),
            ("var/lib/x/y", Protection::Ignore),
            ("opt/a", Protection::Symlinks),
        ] {
            assert_eq!(paths.mode(path), mode, "{path}");
        }
    }
}
