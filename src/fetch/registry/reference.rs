//! The name of an image in a registry: `[HOST[:PORT]/]NAME[:TAG]`.

use std::fmt;

/// Where an image is, or shall be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reference {
    /// Host and port.
    pub registry: String,
    /// The repository in the registry.
    pub repository: String,
    /// The tag; `latest` if none is given.
    pub tag: String,
}

/// Why a text names no image.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` names no image: {reason}")]
pub struct ReferenceError {
    /// The text.
    pub text: String,
    /// What is wrong with it.
    pub reason: &'static str,
}

impl Reference {
    /// Reads a reference; without a host it is one of Docker's own registry.
    ///
    /// # Errors
    /// [`ReferenceError`].
    pub fn parse(text: &str) -> Result<Self, ReferenceError> {
        let error = |reason| ReferenceError {
            text: text.to_owned(),
            reason,
        };
        if text.contains('@') {
            return Err(error(
                "a digest follows from the content and cannot be given",
            ));
        }
        let (first, rest) = text.split_once('/').unwrap_or(("", text));
        let is_host = first.contains(['.', ':']) || first == "localhost";
        let (registry, path) = match is_host {
            true => (first, rest),
            false => ("docker.io", text),
        };
        let plain = |c: char| c.is_ascii_alphanumeric() || ".-_:[]".contains(c);
        if !registry.chars().all(plain) || !registry.contains(|c: char| c.is_ascii_alphanumeric()) {
            return Err(error("a registry is a host, and a port behind `:`"));
        }
        let (repository, tag) = match path.rsplit_once(':') {
            Some((repository, tag)) => (repository, tag),
            None => (path, "latest"),
        };
        let part = |part: &str| {
            let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "._-".contains(c);
            let edge = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
            part.chars().all(plain) && edge(part.chars().next()) && edge(part.chars().last())
        };
        if repository.len() > 255 || !repository.split('/').all(part) {
            return Err(error(
                "a repository is lower-case letters, digits, `.`, `_`, `-` and `/`",
            ));
        }
        let plain = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
        if tag.is_empty()
            || tag.len() > 128
            || !tag.chars().all(plain)
            || tag.starts_with(['.', '-'])
        {
            return Err(error(
                "a tag is up to 128 letters, digits, `.`, `_` and `-`",
            ));
        }
        let repository = match registry {
            "docker.io" if !repository.contains('/') => format!("library/{repository}"),
            _ => repository.to_owned(),
        };
        Ok(Self {
            registry: registry.to_owned(),
            repository,
            tag: tag.to_owned(),
        })
    }

    /// Reads `[HOST[:PORT]/]NAME[:TAG]@sha256:HEX`: a reference, and the digest of what it means.
    ///
    /// # Errors
    /// [`ReferenceError`] if either is missing or malformed.
    pub fn parse_with_digest(text: &str) -> Result<(Self, String), ReferenceError> {
        let error = |reason| ReferenceError {
            text: text.to_owned(),
            reason,
        };
        let (name, digest) = text
            .split_once('@')
            .ok_or_else(|| error("it has no digest"))?;
        let hex = digest.strip_prefix("sha256:").unwrap_or_default();
        if hex.len() != 64 || !hex.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
            return Err(error("a digest is `sha256:` and 64 hexadecimal digits"));
        }
        Ok((Self::parse(name)?, digest.to_owned()))
    }

    /// Returns the host that is really asked.
    pub(super) fn host(&self) -> &str {
        match self.registry.as_str() {
            "docker.io" | "index.docker.io" => "registry-1.docker.io",
            other => other,
        }
    }

    /// Returns whether the registry is on this machine.
    pub(super) fn is_loopback(&self) -> bool {
        let host = self
            .registry
            .rsplit_once(':')
            .map_or(self.registry.as_str(), |(host, _)| host);
        host == "localhost" || host == "[::1]" || host.starts_with("127.")
    }

    /// Returns `REGISTRY/REPOSITORY`, without the tag.
    pub fn name(&self) -> String {
        format!("{}/{}", self.registry, self.repository)
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}:{}", self.registry, self.repository, self.tag)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_are_read() {
        for (text, wanted) in [
            ("127.0.0.1:5000/a/b:1", "127.0.0.1:5000/a/b:1"),
            ("localhost/a", "localhost/a:latest"),
            ("ghcr.io/x/y_z:v1.2", "ghcr.io/x/y_z:v1.2"),
            ("alpine", "docker.io/library/alpine:latest"),
            ("me/app:2", "docker.io/me/app:2"),
        ] {
            assert_eq!(Reference::parse(text).unwrap().to_string(), wanted);
        }
        let hex = "0".repeat(64);
        let (reference, digest) =
            Reference::parse_with_digest(&format!("127.0.0.1:5000/a@sha256:{hex}")).unwrap();
        assert_eq!(reference.name(), "127.0.0.1:5000/a");
        assert_eq!(digest, format!("sha256:{hex}"));
        for text in ["a", "a@sha256:1", "a@md5:1", "A@sha256:1"] {
            assert!(Reference::parse_with_digest(text).is_err(), "{text}");
        }
        for text in [
            "",
            "a@sha256:1",
            "x.io/",
            "x.io/A",
            "Bad Ref",
            "bad host.io/a",
            ".:/a",
            "x.io/a:",
            "x.io/a:-b",
            "x.io/a//b",
        ] {
            assert!(Reference::parse(text).is_err(), "{text}");
        }
    }
}
