//! A solution pinned by digest, used again in place of solving (image.md, chapter 12).
//!
//! The file is apko's: what it knows stands where it looks for it, in its order, and what only this
//! program knows stands under `x`, which apko ignores. Two files for the same choice are the same
//! bytes.

use crate::package::{Identity, Package};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The version that is written.
const VERSION: &str = "v1";

/// A lock file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lockfile {
    /// `v1`.
    pub version: String,
    /// What it was made from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config: Option<LockedConfig>,
    /// What was chosen.
    pub contents: LockedContents,
    /// What only this program knows.
    #[serde(default, skip_serializing_if = "LockNotes::is_empty")]
    pub x: LockNotes,
}

/// The description that a lock file was made from.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LockedConfig {
    /// Its path as given.
    pub name: String,
    /// `sha256-` and base64 of the SHA-256 over it and what it includes.
    pub checksum: String,
}

/// `contents` of a lock file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct LockedContents {
    /// Trusted keys, by name.
    pub keyring: Vec<LockedKey>,
    /// Indexes of repositories that are used for building only.
    pub build_repositories: Vec<LockedRepository>,
    /// Indexes of repositories that are in the image only.
    pub runtime_repositories: Vec<LockedRepository>,
    /// Indexes of repositories that are both.
    pub repositories: Vec<LockedRepository>,
    /// Packages in the order of installation, architecture after architecture.
    pub packages: Vec<LockedPackage>,
}

/// A trusted key.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct LockedKey {
    /// Its address without the scheme.
    pub name: String,
    /// Its address.
    pub url: String,
    /// The key as PEM.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub content: String,
}

/// The index of a repository for one architecture.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct LockedRepository {
    /// Repository and architecture, without the scheme.
    pub name: String,
    /// The index.
    pub url: String,
    /// apk's name of the architecture.
    pub architecture: String,
}

/// A part of a package file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct LockedPart {
    /// `bytes=A-B`, both inclusive.
    pub range: String,
    /// `sha1-` or `sha256-` and base64.
    pub checksum: String,
}

/// A chosen package.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct LockedPackage {
    /// Its name.
    pub name: String,
    /// Its address.
    pub url: String,
    /// Its version.
    pub version: String,
    /// apk's name of the architecture it is for.
    pub architecture: String,
    /// The signature part.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub signature: Option<LockedPart>,
    /// The control part.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub control: Option<LockedPart>,
    /// The data part.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data: Option<LockedPart>,
    /// Its identity, `Q1…`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub checksum: String,
    /// What only this program knows.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub x: Option<PackageNotes>,
}

/// What this program adds to a package.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct PackageNotes {
    /// SHA-256 of the file, in hexadecimal.
    pub sha256: String,
    /// Size of the file.
    pub size: u64,
    /// `v2` or `v3`.
    pub format: String,
    /// The repository it came from.
    pub repository: String,
    /// The architecture that the index states, if the package itself states another one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub arch: Option<String>,
    /// The tag it was asked for with.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tag: Option<String>,
}

/// What this program adds to the file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct LockNotes {
    /// Who wrote it.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub tool: String,
    /// Settings that change the result.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub settings: BTreeMap<String, String>,
    /// Ranges of the description and the constraints they became.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub ranges: BTreeMap<String, Vec<String>>,
    /// The indexes that were read.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub indexes: Vec<LockedIndex>,
    /// The image of a registry that is built on, by digest.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub baseimage: String,
    /// Numbers of users and groups that scripts of packages make without asking for one.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub accounts: Vec<LockedAccount>,
}

impl LockNotes {
    fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// The number of a user or group.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct LockedAccount {
    /// apk's name of the architecture.
    pub architecture: String,
    /// `user` or `group`.
    pub kind: String,
    /// Its name.
    pub name: String,
    /// The number.
    pub id: u32,
}

/// An index that was read.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct LockedIndex {
    /// Its address.
    pub url: String,
    /// What its `DESCRIPTION` says, such as the release.
    pub description: String,
    /// SHA-256 of its file, in hexadecimal.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub sha256: String,
    /// The key that signed it.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub signer: String,
}

/// Why a lock file cannot be used. The text is the first line of the report.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LockError {
    /// It is not what a lock file is.
    #[error("{file}: {cause}")]
    Format {
        /// The file.
        file: String,
        /// What is wrong.
        cause: String,
    },
    /// A package is not pinned.
    #[error("{file}: package {package} has no checksum")]
    NoChecksum {
        /// The file.
        file: String,
        /// The package.
        package: String,
    },
    /// It has nothing for an architecture.
    #[error("{file} has no packages for {architecture}")]
    Architecture {
        /// The file.
        file: String,
        /// apk's name of the architecture.
        architecture: String,
    },
}

impl Lockfile {
    /// Makes an empty one.
    pub fn new(config: LockedConfig, x: LockNotes) -> Self {
        Self {
            version: VERSION.to_owned(),
            config: Some(config),
            contents: LockedContents::default(),
            x,
        }
    }

    /// Reads a lock file, also one that apko wrote; keys it does not know are left aside.
    ///
    /// # Errors
    /// [`LockError`].
    pub fn parse(file: &str, text: &[u8]) -> Result<Self, LockError> {
        let wrong = |cause: String| LockError::Format {
            file: file.to_owned(),
            cause,
        };
        let lock: Self = serde_json::from_slice(text).map_err(|error| wrong(error.to_string()))?;
        if lock.version != VERSION {
            return Err(wrong(format!("version {:?} is not known", lock.version)));
        }
        for package in &lock.contents.packages {
            if package.identity().is_none() {
                return Err(LockError::NoChecksum {
                    file: file.to_owned(),
                    package: package.full_name(),
                });
            }
            let plain = |text: &str| !text.is_empty() && !text.contains(['/', '\0', ' ']);
            if !plain(&package.name) || !plain(&package.version) || !plain(&package.architecture) {
                return Err(wrong(format!("{:?} is no package", package.full_name())));
            }
        }
        Ok(lock)
    }

    /// Returns the text of the file.
    pub fn to_text(&self) -> String {
        let mut text = serde_json::to_string_pretty(self).expect("every field can be written");
        text.push('\n');
        text
    }

    /// Returns the packages of an architecture, in order.
    pub fn packages_of<'l>(
        &'l self,
        architecture: &str,
    ) -> impl Iterator<Item = &'l LockedPackage> {
        let packages = self.contents.packages.iter();
        let architecture = architecture.to_owned();
        packages.filter(move |package| package.architecture == architecture)
    }

    /// Returns what differs from another one: a line for each package, versions first old then new.
    pub fn changes(&self, new: &Self) -> Vec<String> {
        let list = |lock: &Self| -> BTreeMap<(String, String), String> {
            let packages = lock.contents.packages.iter();
            let pair =
                |p: &LockedPackage| ((p.name.clone(), p.architecture.clone()), p.version.clone());
            packages.map(pair).collect()
        };
        let (before, after) = (list(self), list(new));
        let mut lines = Vec::new();
        for ((name, arch), version) in &before {
            match after.get(&(name.clone(), arch.clone())) {
                None => lines.push(format!("{name} ({arch}): {version} -> removed")),
                Some(other) if other != version => {
                    lines.push(format!("{name} ({arch}): {version} -> {other}"));
                }
                Some(_) => {}
            }
        }
        for ((name, arch), version) in &after {
            if !before.contains_key(&(name.clone(), arch.clone())) {
                lines.push(format!("{name} ({arch}): added {version}"));
            }
        }
        lines.sort();
        lines
    }
}

impl LockedPackage {
    /// Returns `NAME-VERSION`.
    pub fn full_name(&self) -> String {
        format!("{}-{}", self.name, self.version)
    }

    /// Returns the identity; older files have only the control part's checksum.
    pub fn identity(&self) -> Option<Identity> {
        match self.checksum.as_str() {
            "" => None,
            text => Identity::parse(text),
        }
    }

    /// Returns what is known of the package without its file.
    pub fn package(&self) -> Package {
        Package {
            identity: self.identity().unwrap_or_default(),
            name: self.name.clone(),
            version: self.version.clone(),
            arch: Some(self.architecture.clone()),
            size: self.file_size(),
            // Not 0: the package has data that must be read.
            installed_size: 1,
            ..Package::default()
        }
    }

    /// Returns the size of the file, 0 if it is not known.
    pub fn file_size(&self) -> u64 {
        if let Some(notes) = &self.x {
            return notes.size;
        }
        let last = self
            .data
            .as_ref()
            .and_then(|part| part.range.rsplit_once('-'));
        let last = last.and_then(|(_, end)| end.parse::<u64>().ok());
        last.and_then(|end| end.checked_add(1)).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const APKO: &str = r#"{
  "version": "v1",
  "config": { "name": "apko.yaml", "checksum": "sha256-x" },
  "contents": {
    "keyring": [], "build_repositories": [], "runtime_repositories": [],
    "repositories": [{ "name": "h/x86_64", "url": "https://h/x86_64/APKINDEX.tar.gz", "architecture": "x86_64" }],
    "packages": [{
      "name": "a", "url": "https://h/x86_64/a-1-r0.apk", "version": "1-r0", "architecture": "x86_64",
      "signature": { "range": "bytes=0-9", "checksum": "sha1-S+THz+JYZxcNzNCw2jI9YlnDnE4=" },
      "control": { "range": "bytes=10-19", "checksum": "sha1-m6wB0UFePGN8Drz82pC8y2uAiu8=" },
      "data": { "range": "bytes=20-29", "checksum": "sha256-ckBapsaMu5EOb/e4Ei1s2l/+dZMEamHhUmaoJ8yeZwg=" },
      "checksum": "Q1m6wB0UFePGN8Drz82pC8y2uAiu8=", "future": 1
    }]
  }
}"#;

    #[test]
    fn apkos_file_is_read_and_written() {
        let lock = Lockfile::parse("l", APKO.as_bytes()).expect("apko's file");
        let package = &lock.contents.packages[0];
        assert_eq!(package.file_size(), 30);
        assert_eq!(package.package().identity.to_q1(), package.checksum);
        let again = Lockfile::parse("l", lock.to_text().as_bytes()).expect("our own");
        assert_eq!(again, lock);
        assert!(!lock.to_text().contains("\"x\""));
    }

    #[test]
    fn what_is_no_lock_file() {
        let without = APKO.replace("\"checksum\": \"Q1m6wB0UFePGN8Drz82pC8y2uAiu8=\",", "");
        for (text, wanted) in [
            ("{", "l: EOF while parsing an object at line 1 column 1"),
            (
                &APKO.replace("\"v1\"", "\"v9\""),
                "l: version \"v9\" is not known",
            ),
            (&without, "l: package a-1-r0 has no checksum"),
            (
                &APKO.replace("\"name\": \"a\"", "\"name\": \"../a\""),
                "l: \"../a-1-r0\" is no package",
            ),
        ] {
            let error = Lockfile::parse("l", text.as_bytes()).expect_err(wanted);
            assert_eq!(error.to_string(), wanted);
        }
    }

    #[test]
    fn changes_are_told() {
        let old = Lockfile::parse("l", APKO.as_bytes()).expect("apko's file");
        let mut new = old.clone();
        "2-r0".clone_into(&mut new.contents.packages[0].version);
        let mut more = new.contents.packages[0].clone();
        "b".clone_into(&mut more.name);
        new.contents.packages.push(more);
        assert_eq!(
            old.changes(&new),
            ["a (x86_64): 1-r0 -> 2-r0", "b (x86_64): added 2-r0"]
        );
        assert!(old.changes(&old).is_empty());
    }
}
