//! Dependency expressions: `[!]name[@tag][op version]` (solver.md, 1.4 to 1.6).

use super::{Identity, Version};
use serde::{Deserialize, Serialize};
use std::cmp::Ordering;
use std::fmt;

/// A set of accepted outcomes of a comparison, with apk's bit values.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Operator(u8);

impl Operator {
    const EQUAL: u8 = 1;
    const LESS: u8 = 2;
    const GREATER: u8 = 4;
    const PREFIX: u8 = 8;

    /// Any version.
    pub const ANY: Self = Self(7);
    /// `=`: exactly this version.
    pub const EQ: Self = Self(1);
    /// `><`: exactly this identity.
    pub const CHECKSUM: Self = Self(6);

    /// Makes an operator from apk's mask (formats.md, 1.3); other bits are dropped.
    pub fn from_mask(mask: u8) -> Self {
        Self(mask & 15)
    }

    /// Returns apk's mask: 1 equal, 2 less, 4 greater, 8 prefix.
    pub fn mask(self) -> u8 {
        self.0
    }

    /// Reads a run of `<`, `=`, `>` and `~` in any order.
    fn parse(text: &str) -> Self {
        Self(text.bytes().fold(0, |mask, byte| {
            mask | match byte {
                b'<' => Self::LESS,
                b'>' => Self::GREATER,
                b'=' => Self::EQUAL,
                _ => Self::EQUAL | Self::PREFIX,
            }
        }))
    }

    /// Returns the canonical spelling.
    pub fn as_str(self) -> &'static str {
        match self.0 {
            1 => "=",
            2 => "<",
            3 => "<=",
            4 => ">",
            5 => ">=",
            6 => "><",
            8 | 9 => "~",
            11 => "<~",
            13 => ">~",
            7 => "",
            _ => "?",
        }
    }

    /// Returns whether the outcome does not depend on the version text being one.
    pub fn ignores_order(self) -> bool {
        self.0 & (Self::LESS | Self::GREATER) == Self::LESS | Self::GREATER
    }

    /// Returns whether every outcome of a comparison is accepted.
    fn accepts_all(self) -> bool {
        self.0 & 7 == 7
    }

    /// Returns whether a provided version satisfies this operator with `wanted`.
    pub fn accepts(self, provided: &str, wanted: &str) -> bool {
        if self.accepts_all() {
            return true;
        }
        let (provided, wanted) = (Version(provided), Version(wanted));
        let order = if self.0 & Self::PREFIX != 0 {
            provided.compare_prefix(wanted)
        } else {
            provided.compare(wanted)
        };
        let bit = match order {
            Ordering::Less => Self::LESS,
            Ordering::Equal => Self::EQUAL,
            Ordering::Greater => Self::GREATER,
        };
        self.0 & bit != 0
    }
}

/// One dependency, provided name, condition or world entry.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Dependency {
    /// The name; its characters are not restricted by the format.
    pub name: String,
    /// Which outcomes are accepted.
    pub operator: Operator,
    /// The version text, empty with [`Operator::ANY`].
    pub version: String,
    /// `!`: the name must not be answered this way.
    pub conflict: bool,
    /// `@tag`, legal only in the world and in `add` arguments.
    pub tag: Option<String>,
    /// The version is not well-formed; the entry was read but cannot be relied on.
    pub broken: bool,
}

/// A dependency without tag, borrowed from the text that states it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DependencyText<'a> {
    /// The name.
    pub name: &'a str,
    /// Which outcomes are accepted.
    pub operator: Operator,
    /// The version text, empty with [`Operator::ANY`].
    pub version: &'a str,
    /// `!`.
    pub conflict: bool,
    /// The version is not well-formed.
    pub broken: bool,
}

impl<'a> DependencyText<'a> {
    /// Reads one expression without tag, as in packages.
    ///
    /// # Errors
    /// [`DependencyError::Format`]; a bad version is not an error here but sets `broken`.
    pub fn parse(text: &'a str) -> Result<Self, DependencyError> {
        let dependency = Self::split(text)?;
        if memchr::memchr(b'@', dependency.name.as_bytes()).is_some() {
            return Err(DependencyError::Format);
        }
        Ok(dependency)
    }

    fn split(text: &'a str) -> Result<Self, DependencyError> {
        let conflict = text.starts_with('!');
        let text = if conflict { &text[1..] } else { text };
        let is_operator = |c: char| matches!(c, '<' | '=' | '>' | '~');
        let bytes = text.bytes();
        let Some(at) = bytes.enumerate().find(|(_, b)| is_operator(char::from(*b))) else {
            return Ok(Self {
                name: text,
                operator: Operator::ANY,
                version: "",
                conflict,
                broken: false,
            });
        };
        let (name, rest) = text.split_at(at.0);
        let version = rest.trim_start_matches(is_operator);
        if version.is_empty() {
            return Err(DependencyError::Format);
        }
        let operator = Operator::parse(&rest[..rest.len() - version.len()]);
        Ok(Self {
            name,
            operator,
            version,
            conflict,
            broken: !operator.ignores_order() && !Version(version).is_valid(),
        })
    }

    /// Reads a list as [`DependencyList::parse`] does, and appends what could be read; returns
    /// whether an entry was malformed.
    pub fn parse_list(text: &'a str, entries: &mut Vec<Self>) -> bool {
        words(text).any(|word| match Self::parse(word) {
            Ok(dependency) => {
                entries.push(dependency);
                false
            }
            Err(_) => true,
        })
    }

    /// Returns the dependency with texts of its own.
    pub fn to_owned(self) -> Dependency {
        Dependency {
            name: self.name.to_owned(),
            operator: self.operator,
            version: self.version.to_owned(),
            conflict: self.conflict,
            tag: None,
            broken: self.broken,
        }
    }
}

impl<'a> From<&'a Dependency> for DependencyText<'a> {
    fn from(dependency: &'a Dependency) -> Self {
        Self {
            name: &dependency.name,
            operator: dependency.operator,
            version: &dependency.version,
            conflict: dependency.conflict,
            broken: dependency.broken,
        }
    }
}

/// Splits a list at runs of spaces and newlines. A leading separator produces an empty word.
fn words(text: &str) -> impl Iterator<Item = &str> {
    let separator = |c| c == ' ' || c == '\n';
    let mut rest = text.trim_end_matches(separator);
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let end = memchr::memchr2(b' ', b'\n', rest.as_bytes()).unwrap_or(rest.len());
        let word = &rest[..end];
        rest = rest[end..].trim_start_matches(separator);
        Some(word)
    })
}

/// Why a text is not a dependency.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DependencyError {
    /// An operator without version, or a tag where none is allowed.
    #[error("dependency format is invalid")]
    Format,
    /// The version is not well-formed.
    #[error("package version is invalid")]
    Version,
}

impl Dependency {
    /// Returns what the world file keeps of it: `a>=<1` says no more than `a`. apk stores it as
    /// `a1`, which is another package.
    pub fn stored(&self) -> Self {
        let mut stored = self.clone();
        if stored.operator.accepts_all() {
            stored.operator = Operator::ANY;
            stored.version.clear();
        }
        stored
    }

    /// Makes an unversioned dependency.
    pub fn any(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            operator: Operator::ANY,
            version: String::new(),
            conflict: false,
            tag: None,
            broken: false,
        }
    }

    /// Makes `name=version`.
    pub fn exact(name: impl Into<String>, version: impl Into<String>) -> Self {
        Self {
            operator: Operator::EQ,
            version: version.into(),
            ..Self::any(name)
        }
    }

    /// Reads one expression with a tag allowed, as in the world.
    ///
    /// # Errors
    /// [`DependencyError::Format`]; a bad version is not an error here but sets `broken`.
    pub fn parse_world(text: &str) -> Result<Self, DependencyError> {
        let written = DependencyText::split(text)?;
        if written.operator.accepts_all() && written.name.split('@').next() == Some("") {
            // Nothing of it would be left in the world file.
            return Err(DependencyError::Format);
        }
        let (name, tag) = match written.name.split_once('@') {
            Some((name, tag)) => (name, Some(tag.to_owned())),
            None => (written.name, None),
        };
        Ok(Self {
            tag,
            ..DependencyText { name, ..written }.to_owned()
        })
    }

    /// Reads one expression without tag, as in packages.
    ///
    /// # Errors
    /// [`DependencyError::Format`]; a bad version is not an error here but sets `broken`.
    pub fn parse(text: &str) -> Result<Self, DependencyError> {
        DependencyText::parse(text).map(DependencyText::to_owned)
    }

    /// Returns whether an offer with this version and identity answers the dependency.
    pub fn accepts(&self, version: &str, identity: Identity) -> bool {
        if self.operator == Operator::CHECKSUM && !self.conflict {
            return Identity::parse(&self.version) == Some(identity);
        }
        self.operator.accepts(version, &self.version) != self.conflict
    }

    /// Returns whether the written form would be read as one with a tag or another operator, and end
    /// the list it stands in: an operator that accepts everything stands for nothing there, and the
    /// version remains.
    fn would_end_a_list(&self) -> bool {
        self.operator.accepts_all() && self.version.contains(['@', '<', '=', '>', '~'])
    }

    /// Returns the expression without its tag, as error reports and databases print it.
    pub fn without_tag(&self) -> String {
        format!(
            "{}{}{}{}",
            if self.conflict { "!" } else { "" },
            self.name,
            self.operator.as_str(),
            self.version
        )
    }
}

impl fmt::Display for Dependency {
    /// Writes the expression as the world file has it, tag after the name.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.conflict { "!" } else { "" })?;
        f.write_str(&self.name)?;
        if let Some(tag) = &self.tag {
            write!(f, "@{tag}")?;
        }
        write!(f, "{}{}", self.operator.as_str(), self.version)
    }
}

/// A list as read from a text: the entries up to the first that is no dependency.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DependencyList {
    /// What could be read.
    pub entries: Vec<Dependency>,
    /// An entry was malformed; it and what follows were dropped.
    pub malformed: bool,
}

impl DependencyList {
    /// Reads a list separated by runs of spaces and newlines (a tab is an ordinary character).
    ///
    /// A leading separator produces one entry with an empty name, as in apk.
    pub fn parse(text: &str) -> Self {
        Self::parse_with(text, Dependency::parse)
    }

    /// Reads a list in which tags are allowed.
    pub fn parse_world(text: &str) -> Self {
        Self::parse_with(text, Dependency::parse_world)
    }

    fn parse_with(text: &str, parse: impl Fn(&str) -> Result<Dependency, DependencyError>) -> Self {
        let mut list = Self::default();
        for word in words(text) {
            match parse(word) {
                Ok(dependency) => list.entries.push(dependency),
                Err(_) => {
                    list.malformed = true;
                    break;
                }
            }
        }
        list
    }

    /// Returns whether some entry has a version that is not one.
    pub fn has_broken(&self) -> bool {
        self.entries.iter().any(|entry| entry.broken)
    }
}

/// Writes a list the way databases and indexes have it.
pub fn join(list: &[Dependency]) -> String {
    let text = |dependency: &Dependency| match dependency.would_end_a_list() {
        true if dependency.conflict => format!("!{}", dependency.name),
        true => dependency.name.clone(),
        false => dependency.to_string(),
    };
    list.iter().map(text).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spelling() {
        for (written, printed) in [
            ("a", "a"),
            ("!a", "!a"),
            ("a=1", "a=1"),
            ("a=>1", "a>=1"),
            ("a~=1", "a~1"),
            ("a<>Q1x", "a><Q1x"),
            ("a<~1", "a<~1"),
            ("a~~1", "a~1"),
            ("a==1", "a=1"),
            ("so:x.so.1", "so:x.so.1"),
            ("a>=<1", "a1"),
            ("a<>~1", "a?1"),
        ] {
            assert_eq!(
                Dependency::parse(written).unwrap().to_string(),
                printed,
                "{written}"
            );
        }
        assert_eq!(Dependency::parse("a="), Err(DependencyError::Format));
        assert_eq!(Dependency::parse("a@t"), Err(DependencyError::Format));
        assert!(Dependency::parse("a=x").unwrap().broken);
        let pinned = Dependency::parse_world("x@e>1").unwrap();
        assert_eq!(
            (pinned.name.as_str(), pinned.tag.as_deref()),
            ("x", Some("e"))
        );
        assert_eq!(pinned.to_string(), "x@e>1");
        let nothing = Dependency::parse_world(">=<1");
        assert_eq!(nothing, Err(DependencyError::Format));
        // What accepts everything is shown as apk shows it, and stored so that it is read back as
        // the same.
        for (written, printed, stored) in [
            ("a>=<1", "a1", "a"),
            ("!a=><1", "!a1", "!a"),
            ("a@t~><1", "a@t?1", "a@t"),
        ] {
            let entry = Dependency::parse_world(written).unwrap();
            assert_eq!(entry.to_string(), printed, "{written}");
            let kept = entry.stored();
            assert_eq!(kept.to_string(), stored, "{written}");
            assert_eq!(Dependency::parse_world(stored), Ok(kept), "{written}");
        }
    }

    #[test]
    fn satisfaction() {
        for (version, expression, wanted) in [
            ("3.6.0", "~3.6", true),
            ("3.6_pre1", "~3.6", true),
            ("3.6a", "~3.6", true),
            ("3.60", "~3.6", false),
            ("3.6", "~3.6.0", false),
            ("3.6-r10", "~3.6-r1", false),
            ("3.6_p1", "~3.6_p", true),
            ("3.6~ffa", "~3.6~ff", false),
            ("3.5.9", "<~3.6", true),
            ("3.6.9", "<~3.6", true),
            ("3.6.9", "<=3.6", false),
            ("3.6_rc1", ">~3.6", true),
            ("3.6_rc1", ">=3.6", false),
            ("3.6-r1", "=3.6", false),
            ("bogus", "<0", true),
            ("", "<2", true),
            ("", "=2", false),
        ] {
            let dependency = Dependency::parse(&format!("x{expression}")).unwrap();
            assert_eq!(
                dependency.accepts(version, Identity::default()),
                wanted,
                "{version} {expression}"
            );
        }
    }

    #[test]
    fn lists() {
        let list = DependencyList::parse(" a  b\nc= d");
        let names: Vec<_> = list.entries.iter().map(|d| d.name.as_str()).collect();
        assert_eq!(names, ["", "a", "b"]);
        assert!(list.malformed);
        for written in ["a><=1@2 b", "a~<>1= b"] {
            let list = DependencyList::parse(written);
            assert_eq!(join(&list.entries), "a b", "{written}");
        }
    }
}
