//! Paths that stay inside.

use std::fmt;

/// Why a text is no path below a root.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    /// It begins with a slash.
    #[error("the path is absolute")]
    Absolute,
    /// A component is empty, `.` or `..`.
    #[error("the path has an empty or relative component")]
    Component,
    /// It has a NUL or another control character.
    #[error("the path has a control character")]
    Control,
    /// It, or a component, is longer than the system takes.
    #[error("the path is too long")]
    TooLong,
}

/// A path relative to a root, without `..` and without slashes at either end.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RelPath(String);

impl RelPath {
    /// Checks a path.
    ///
    /// # Errors
    /// [`PathError`].
    pub fn new(path: &str) -> Result<Self, PathError> {
        if path.starts_with('/') {
            return Err(PathError::Absolute);
        }
        if path.len() > 4085 || path.split('/').any(|component| component.len() > 255) {
            return Err(PathError::TooLong);
        }
        if path
            .split('/')
            .any(|component| matches!(component, "" | "." | ".."))
        {
            return Err(PathError::Component);
        }
        if path.bytes().any(|byte| byte < 0x20 || byte == 0x7f) {
            return Err(PathError::Control);
        }
        Ok(Self(path.to_owned()))
    }

    /// Returns the text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for RelPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_paths_inside_are_taken() {
        for good in ["a", "a/b", "usr/lib/..x", "a b", "ä"] {
            assert!(RelPath::new(good).is_ok(), "{good}");
        }
        for bad in [
            "", "/a", "a/", "a//b", ".", "..", "a/../b", "a/..", "a\nb", "a\0", "a\x1b",
        ] {
            assert!(RelPath::new(bad).is_err(), "{bad:?}");
        }
        assert!(RelPath::new(&"x".repeat(256)).is_err());
    }
}
