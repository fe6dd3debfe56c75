//! What things are: packages, versions, dependencies, digests, the world and the installed
//! database, as values.
//!
//! This floor knows no file system, no network, no byte format beyond the one-line text forms that
//! name its values (`Q1…`, `name>=1.2`). It must never print, open or fetch anything.

pub mod dependency;
pub mod digest;
pub mod file_name;
pub mod glob;
pub mod installed;
pub mod name_hash;
pub mod order;
pub mod stated;
pub mod table;
pub mod version;
pub mod world;

pub use dependency::{Dependency, DependencyError, DependencyList, Operator};
pub use digest::{Digest, DigestAlgorithm, Identity};
pub use file_name::FileName;
pub use installed::{
    Acl, InstalledDb, InstalledDirectory, InstalledFile, InstalledPackage, ScriptKind,
};
pub use stated::Stated;
pub use table::PackageTable;
pub use version::Version;
pub use world::World;

use serde::{Deserialize, Serialize};

/// A package as an index, a package file or the installed database states it.
///
/// The letters are those of APKINDEX records (formats.md, 3.2).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Package {
    /// `C`: what identifies this build; two records with equal identity are one package.
    pub identity: Identity,
    /// `P`: the package's own name.
    pub name: String,
    /// `V`: the version as written; it may be ill-formed and is compared by [`Version`]'s rules.
    pub version: String,
    /// `A`: the architecture; `None` when the record has no such line.
    pub arch: Option<String>,
    /// `S`: size of the package file in bytes.
    pub size: u64,
    /// `I`: size of the installed files in bytes; 0 marks a package without data.
    pub installed_size: u64,
    /// `T`: one line of description.
    pub description: String,
    /// `U`: the project's web page.
    pub url: String,
    /// `L`: the licence.
    pub license: String,
    /// `o`: the source package.
    pub origin: Option<String>,
    /// `m`: who maintains it.
    pub maintainer: Option<String>,
    /// `t`: build time in seconds since 1970.
    pub build_time: Option<u64>,
    /// `c`: commit of the build recipe, as text.
    pub commit: Option<String>,
    /// `k`: provider priority; absent is 0.
    pub provider_priority: u16,
    /// `D`: what it needs and what it conflicts with.
    pub depends: Vec<Dependency>,
    /// `p`: what it offers besides its own name.
    pub provides: Vec<Dependency>,
    /// `i`: the conditions under which it installs itself.
    pub install_if: Vec<Dependency>,
    /// Names from lists that were dropped as malformed: they count as known, nothing more.
    pub mentions: Vec<String>,
    /// `g`: tags (3.x).
    pub tags: Vec<String>,
    /// `r`: packages whose files it may take over; installed packages and package files only.
    pub replaces: Vec<Dependency>,
    /// `q`: priority among packages that replace each other.
    pub replaces_priority: u16,
    /// `triggers`: directory patterns; package files and installed packages only.
    pub triggers: Vec<String>,
    /// What reading the record found wrong with it.
    pub flaws: Flaws,
}

impl Package {
    /// Returns `NAME-VERSION`.
    pub fn full_name(&self) -> String {
        format!("{}-{}", self.name, self.version)
    }

    /// Returns whether the package answers a dependency, by its own name or by what it provides.
    ///
    /// A conflict is answered by nothing, and an unversioned provide by no version.
    pub fn answers(&self, dependency: &Dependency) -> bool {
        if dependency.conflict {
            return false;
        }
        let any = dependency.operator == Operator::ANY;
        let own = self.name == dependency.name;
        let own = own && dependency.accepts(&self.version, self.identity);
        let provided = |provided: &Dependency| {
            let versioned = !provided.version.is_empty();
            provided.name == dependency.name
                && (any || versioned && dependency.accepts(&provided.version, self.identity))
        };
        own || self.provides.iter().any(provided)
    }
}

/// What is wrong with a record, found while reading it (solver.md, 1.7).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Flaws {
    /// It must not be installed: a broken `D` list or an unknown upper-case field.
    pub uninstallable: bool,
    /// A list could not be read as written (`WARNING: The indexes contain broken packages …`).
    pub broken_list: bool,
    /// A field letter is unknown (`WARNING: This apk-tools is OLD! …`).
    pub unknown_field: bool,
}

/// An index: its description and its records in file order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Index {
    /// The `DESCRIPTION` text, empty when there is none.
    pub description: String,
    /// When it was made, in seconds since 1970, as its entries in the archive say; 0 if they do
    /// not. This part is signed.
    pub made: u64,
    /// The records, in file order.
    pub packages: Vec<Package>,
}
