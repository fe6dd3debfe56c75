//! The installed database as a value (formats.md, chapter 9).

use super::{Digest, Identity, Package, order};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// What is in a root now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct InstalledDb {
    /// The packages in database order.
    pub packages: Vec<InstalledPackage>,
}

/// One installed package with its files.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct InstalledPackage {
    /// Its metadata; `replaces`, `replaces_priority` and `triggers` are filled.
    pub package: Package,
    /// `s`: the repository tag it was pinned to, without `@`.
    pub pinned_tag: Option<String>,
    /// `f` flags.
    pub broken: Broken,
    /// `f:S`: digests of this record are truncated SHA-256 (the package is v3).
    pub sha256_160: bool,
    /// Directories in package order.
    pub directories: Vec<InstalledDirectory>,
    /// Its scripts, as the scripts archive keeps them.
    pub scripts: BTreeMap<ScriptKind, Vec<u8>>,
}

/// What was left undone when the package was installed (`f` letters).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Broken {
    /// `f`: some files could not be installed.
    pub files: bool,
    /// `s`: a script failed.
    pub script: bool,
    /// `x`: extended attributes could not be set.
    pub xattrs: bool,
}

impl Broken {
    /// Returns whether later commands count the package as an error (files or script).
    pub fn counts(self) -> bool {
        self.files || self.script
    }
}

/// Owner, mode and the digest of extended attributes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Acl {
    /// Numeric owner.
    pub uid: u32,
    /// Numeric group.
    pub gid: u32,
    /// Permission bits, set-id and sticky bits.
    pub mode: u32,
    /// Digest of the extended attributes (formats.md, 2.10).
    pub xattrs: Option<Digest>,
}

impl Acl {
    /// Makes an ACL without extended attributes.
    pub fn new(uid: u32, gid: u32, mode: u32) -> Self {
        Self {
            uid,
            gid,
            mode,
            xattrs: None,
        }
    }

    /// What a directory has when its record has no `M` line: 0:0:755.
    pub fn directory_default() -> Self {
        Self::new(0, 0, 0o755)
    }

    /// What a file has when its record has no `a` line: 0:0:644.
    pub fn file_default() -> Self {
        Self::new(0, 0, 0o644)
    }
}

/// A directory of a package.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InstalledDirectory {
    /// Path relative to the root without slashes at either end; empty for the root directory.
    pub path: String,
    /// What the package asks for.
    pub acl: Acl,
    /// Its files, sorted by name.
    pub files: Vec<InstalledFile>,
}

/// A file, link or device of a package.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InstalledFile {
    /// Last path component.
    pub name: String,
    /// What the package asks for.
    pub acl: Acl,
    /// `Z`: digest of the content or of the link target; none for devices and FIFOs.
    pub digest: Option<Digest>,
}

/// The scripts a package can bring, in the order of the v3 schema.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum ScriptKind {
    /// Run when a watched directory changed.
    Trigger,
    /// Before a first installation.
    PreInstall,
    /// After a first installation.
    PostInstall,
    /// Before removal.
    PreDeinstall,
    /// After removal.
    PostDeinstall,
    /// Before an upgrade, downgrade or reinstallation.
    PreUpgrade,
    /// After an upgrade, downgrade or reinstallation.
    PostUpgrade,
}

impl ScriptKind {
    /// All kinds, in order.
    pub const ALL: [Self; 7] = [
        Self::Trigger,
        Self::PreInstall,
        Self::PostInstall,
        Self::PreDeinstall,
        Self::PostDeinstall,
        Self::PreUpgrade,
        Self::PostUpgrade,
    ];

    /// Returns the name used in files, messages and `APK_SCRIPT`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Trigger => "trigger",
            Self::PreInstall => "pre-install",
            Self::PostInstall => "post-install",
            Self::PreDeinstall => "pre-deinstall",
            Self::PostDeinstall => "post-deinstall",
            Self::PreUpgrade => "pre-upgrade",
            Self::PostUpgrade => "post-upgrade",
        }
    }

    /// Returns the kind of this name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }
}

impl InstalledDb {
    /// Returns the installed package of this own name.
    pub fn find(&self, name: &str) -> Option<&InstalledPackage> {
        self.packages
            .iter()
            .find(|installed| installed.package.name == name)
    }

    /// Returns the package with this identity.
    pub fn by_identity(&self, identity: Identity) -> Option<&InstalledPackage> {
        self.packages
            .iter()
            .find(|installed| installed.package.identity == identity)
    }

    /// Sorts the records in display order, as 3.x writes them.
    pub fn sort(&mut self) {
        self.packages
            .sort_by(|a, b| order::by_name(&a.package.name, &b.package.name));
    }

    /// Returns the sum of the installed sizes in bytes.
    pub fn installed_size(&self) -> u64 {
        self.packages
            .iter()
            .map(|p| p.package.installed_size)
            .fold(0, u64::saturating_add)
    }

    /// Returns the number of files.
    pub fn file_count(&self) -> usize {
        self.packages
            .iter()
            .flat_map(|p| &p.directories)
            .map(|d| d.files.len())
            .sum()
    }

    /// Returns the number of distinct directories; what contains them counts, too, up to the
    /// root directory.
    pub fn directory_count(&self) -> usize {
        let mut paths = std::collections::HashSet::new();
        for directory in self.packages.iter().flat_map(|p| &p.directories) {
            let mut path = directory.path.as_str();
            while paths.insert(path) && !path.is_empty() {
                path = path.rsplit_once('/').map_or("", |(parent, _)| parent);
            }
        }
        paths.len()
    }
}
