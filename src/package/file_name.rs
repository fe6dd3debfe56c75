//! How package files are named (formats.md, 1.4).

use super::Identity;
use std::fmt;

/// A name with `${name}`, `${version}`, `${arch}` and `${hash}` in it, each with `:N` for its first N
/// characters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileName {
    text: String,
    parts: Vec<Part>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Text(String),
    Variable(Variable, Option<usize>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Variable {
    Name,
    Version,
    Arch,
    Hash,
}

impl Default for FileName {
    fn default() -> Self {
        Self::parse("${name}-${version}.apk").expect("it is well-formed")
    }
}

impl fmt::Display for FileName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl FileName {
    /// Reads a specification; `None` if a variable is unknown or malformed.
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once("${") {
            let (variable, after) = after.split_once('}')?;
            let (name, length) = match variable.split_once(':') {
                Some((name, length)) => (name, Some(length.parse().ok()?)),
                None => (variable, None),
            };
            let variable = match name {
                "name" => Variable::Name,
                "version" => Variable::Version,
                "arch" => Variable::Arch,
                "hash" => Variable::Hash,
                _ => return None,
            };
            parts.push(Part::Text(before.to_owned()));
            parts.push(Part::Variable(variable, length));
            rest = after;
        }
        parts.push(Part::Text(rest.to_owned()));
        let text = text.to_owned();
        Some(Self { text, parts })
    }

    /// Returns the name of a package's file.
    pub fn of(&self, name: &str, version: &str, arch: &str, identity: Identity) -> String {
        let mut file = String::new();
        for part in &self.parts {
            match part {
                Part::Text(text) => file.push_str(text),
                Part::Variable(variable, length) => {
                    let hash;
                    let value = match variable {
                        Variable::Name => name,
                        Variable::Version => version,
                        Variable::Arch => arch,
                        Variable::Hash => {
                            hash = identity.hex();
                            &hash
                        }
                    };
                    file.extend(value.chars().take(length.unwrap_or(usize::MAX)));
                }
            }
        }
        file
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn specifications_are_read() {
        for (text, wanted) in [
            ("${name}-${version}.apk", Some("p-1.apk")),
            ("${name:3}/x", Some("p/x")),
            ("${arch}/${hash:8}", Some("noarch/00000000")),
            ("bad$", Some("bad$")),
            ("${nothing}", None),
            ("${name:x}", None),
            ("${name", None),
        ] {
            let name = FileName::parse(text);
            let found = name.map(|name| name.of("p", "1", "noarch", Identity::default()));
            assert_eq!(found.as_deref(), wanted, "{text}");
        }
    }
}
