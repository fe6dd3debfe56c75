//! What a word of the command line matches (cli.md, 1.15 and 3.4).
//!
//! A pattern is an exact text, a shell pattern (as soon as it contains `*` or `?`) or, when
//! searching, a shell pattern with `*` at both ends. Texts are compared as a whole; names may be
//! followed by an operator and a version, which the version that the name comes with must satisfy.

use crate::package::{Operator, glob};
use std::borrow::Cow;

/// A compiled pattern.
#[derive(Clone, Debug)]
pub struct Pattern {
    written: String,
    whole: Matcher,
    constraint: Option<Constraint>,
}

/// `NAME OP VERSION`, taken apart.
#[derive(Clone, Debug)]
struct Constraint {
    name: Matcher,
    operator: Operator,
    version: String,
}

#[derive(Clone, Debug)]
enum Matcher {
    /// The whole text, case included.
    Exact(String),
    /// A part of the text; ASCII case is ignored.
    Contains(Part),
    /// A shell pattern; ASCII case is ignored.
    Glob(String),
}

impl Pattern {
    /// Compiles a word; with `search` it is looked for inside texts.
    pub fn new(word: &str, search: bool) -> Self {
        let dependency = crate::package::Dependency::parse(word).ok();
        let constraint = dependency
            .filter(|d| !d.version.is_empty() && !d.conflict && !d.name.is_empty())
            .map(|d| Constraint {
                name: Matcher::new(&d.name, search),
                operator: d.operator,
                version: d.version,
            });
        Self {
            written: word.to_owned(),
            whole: Matcher::new(word, search),
            constraint,
        }
    }

    /// Makes a shell pattern that ignores case, whatever the word has in it.
    pub(super) fn glob(word: &str) -> Self {
        Self {
            written: word.to_owned(),
            whole: Matcher::Glob(word.to_owned()),
            constraint: None,
        }
    }

    /// Returns the word as it was given.
    pub fn as_str(&self) -> &str {
        &self.written
    }

    /// Returns the one text that the pattern can match, unless it has wildcards.
    pub fn exact(&self) -> Option<&str> {
        match &self.whole {
            Matcher::Exact(text) => Some(text),
            Matcher::Contains(_) | Matcher::Glob(_) => None,
        }
    }

    /// Returns the one name that the pattern can match, unless it has wildcards.
    pub fn exact_name(&self) -> Option<&str> {
        match self.constraint.as_ref().map_or(&self.whole, |c| &c.name) {
            Matcher::Exact(text) => Some(text),
            Matcher::Contains(_) | Matcher::Glob(_) => None,
        }
    }

    /// Returns whether a text matches as a whole.
    pub fn matches_text(&self, text: &str) -> bool {
        self.whole.matches(text)
    }

    /// Returns whether a name matches, whatever its version.
    pub fn matches_name(&self, name: &str) -> bool {
        match &self.constraint {
            Some(constraint) => constraint.name.matches(name),
            None => self.whole.matches(name),
        }
    }

    /// Returns whether a version satisfies the pattern; without an operator every version does.
    pub fn accepts_version(&self, version: &str) -> bool {
        self.constraint
            .as_ref()
            .is_none_or(|constraint| constraint.operator.accepts(version, &constraint.version))
    }

    /// Returns whether a name and the version it comes with match.
    pub fn matches_offer(&self, name: &str, version: &str) -> bool {
        self.matches_name(name) && self.accepts_version(version)
    }

    /// Returns whether a dependency matches: its name and, if the pattern states them, exactly
    /// this operator and version.
    pub fn matches_dependency(&self, name: &str, operator: Operator, version: &str) -> bool {
        match &self.constraint {
            Some(wanted) => {
                wanted.operator == operator
                    && wanted.version == version
                    && wanted.name.matches(name)
            }
            None => self.whole.matches(name),
        }
    }
}

impl Matcher {
    fn new(word: &str, search: bool) -> Self {
        let has_wildcard = word.contains(['*', '?']);
        if !search {
            return match has_wildcard {
                true => Self::Glob(word.to_owned()),
                false => Self::Exact(word.to_owned()),
            };
        }
        if has_wildcard || word.contains(['[', '\\']) {
            Self::Glob(format!("*{word}*"))
        } else {
            Self::Contains(Part::new(word))
        }
    }

    fn matches(&self, text: &str) -> bool {
        match self {
            Self::Exact(wanted) => wanted == text,
            Self::Contains(wanted) => wanted.is_in(text.as_bytes()),
            Self::Glob(pattern) => glob::matches(
                pattern,
                text,
                glob::Options {
                    pathname: false,
                    ignore_case: true,
                },
            ),
        }
    }
}

/// A text to look for inside others.
#[derive(Clone, Debug)]
struct Part {
    /// In lower case.
    text: Vec<u8>,
    /// Where its rarest byte is.
    rarest: usize,
}

impl Part {
    fn new(word: &str) -> Self {
        // Letters in the order of their frequency in English; what is not among them is rarer.
        const FREQUENT: &[u8] = b"etaoinsrhldcumfpgwybvk -.";
        let text = word.to_ascii_lowercase().into_bytes();
        let frequency = |byte: &u8| FREQUENT.iter().rev().position(|f| f == byte);
        let rarest = (0..text.len()).min_by_key(|at| frequency(&text[*at]));
        Self {
            rarest: rarest.unwrap_or(0),
            text,
        }
    }

    /// Returns whether a text has it, whatever the case of ASCII letters.
    fn is_in(&self, text: &[u8]) -> bool {
        let Some(rare) = self.text.get(self.rarest) else {
            return true;
        };
        let Some(last_start) = text.len().checked_sub(self.text.len()) else {
            return false;
        };
        let places = &text[self.rarest..=self.rarest + last_start];
        let is_here = |at: usize| text[at..at + self.text.len()].eq_ignore_ascii_case(&self.text);
        match rare.is_ascii_alphabetic() {
            true => memchr::memchr2_iter(*rare, rare.to_ascii_uppercase(), places).any(is_here),
            false => memchr::memchr_iter(*rare, places).any(is_here),
        }
    }
}

/// Returns text in which control characters cannot reach a terminal.
pub fn printable(text: &str) -> Cow<'_, str> {
    if text.chars().any(char::is_control) {
        Cow::Owned(text.escape_debug().to_string())
    } else {
        Cow::Borrowed(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_match_names_and_texts() {
        for (word, search, text, wanted) in [
            ("zlib", false, "zlib", true),
            ("zlib", false, "Zlib", false),
            ("[z]lib", false, "zlib", false),
            ("[z]li?", false, "ZLIB", true),
            ("z*", false, "ZLIB", true),
            ("LI", true, "zlib", true),
            ("", true, "zlib", true),
            ("zlibb", true, "zlib", false),
            ("z?i", true, "zlib-dev", true),
            ("b", true, "zlib", true),
            ("bb", true, "abBa", true),
            ("p-k", true, "APP-Kit", true),
            ("kit", true, "APP-Kit", true),
            ("app", true, "APP-Kit", true),
            ("app-kit!", true, "APP-Kit", false),
        ] {
            let pattern = Pattern::new(word, search);
            assert_eq!(pattern.matches_name(text), wanted, "{word} {text}");
        }
    }

    #[test]
    fn constraints_have_their_plain_meaning() {
        let newer = Pattern::new("musl>1.2", false);
        assert!(newer.matches_offer("musl", "1.2.4"));
        assert!(!newer.matches_offer("musl", "1.1"));
        assert!(!newer.matches_offer("musl-dev", "1.2.4"));
        let glob = Pattern::new("mus*<2", false);
        assert!(glob.matches_offer("musl-dev", "1.2.4"));
        assert_eq!(newer.exact_name(), Some("musl"));
        assert_eq!(newer.exact(), Some("musl>1.2"));
        assert!(newer.matches_dependency("musl", Operator::from_mask(4), "1.2"));
        assert!(!newer.matches_dependency("musl", Operator::from_mask(4), "1.3"));
    }
}
