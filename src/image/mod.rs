//! A root as an image: the packages of a solution become layers, a configuration and a manifest.
//!
//! ```text
//! BuildRequest ─▶ root in memory ◀─ transaction (the code that installs on a disk, too)
//!                      │  accounts, paths, generated files, scripts without running them
//!                      ▼
//!                 layers (tar segments of packages, compressed once) ─▶ config, manifest
//!                      ▼
//!                 BuiltImage ─▶ OCI layout, docker archive, root file system, registry
//! ```
//!
//! Everything that decides is in the [`BuildRequest`]: the same request gives the same bytes,
//! whoever builds, wherever, on however many cores, with whatever the cache holds. Nothing here
//! reads a configuration file, a clock, an environment variable or a network, and nothing here
//! chooses packages.

mod accounts;
mod archive;
mod base;
mod build;
mod certificates;
mod error;
mod layer;
mod ldconfig;
mod mutate;
pub mod oci;
pub mod output;
pub mod read;
mod record;
mod request;
mod sandbox;
pub mod sbom;
mod scripts;
pub mod store;
mod subordinate;

pub use base::BaseImage;
pub use build::{build, choose_ids};
pub use error::ImageError;
pub use request::{
    Account, AccountKind, BuildRequest, Certificate, ChosenId, Compression, ContainerConfig,
    DatabasePlace, FileSource, FileToAdd, Group, HealthCheck, Layering, NamedContent, PathKind,
    PathMutation, ScriptMode, Service,
};
pub use store::Store;

use crate::package::InstalledDb;
use crate::root::{Root, RootError};
use std::path::PathBuf;

/// An operating system and processor, as OCI spells them.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Platform {
    /// `amd64`, `arm64`, …
    pub architecture: String,
    /// `v6`, `v7`, … of arm.
    pub variant: Option<String>,
}

impl Platform {
    /// Returns the platform of an apk architecture; an unknown one keeps its name.
    pub fn of_apk(architecture: &str) -> Self {
        let (architecture, variant) = match architecture {
            "x86" => ("386", None),
            "x86_64" => ("amd64", None),
            "aarch64" => ("arm64", None),
            "armhf" => ("arm", Some("v6")),
            "armv7" => ("arm", Some("v7")),
            "loongarch64" => ("loong64", None),
            other => (other, None),
        };
        Self {
            architecture: architecture.to_owned(),
            variant: variant.map(str::to_owned),
        }
    }
}

/// What a blob is, by digest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Descriptor {
    /// OCI media type.
    pub media_type: String,
    /// `sha256:HEX`.
    pub digest: String,
    /// Bytes.
    pub size: u64,
}

impl Descriptor {
    /// Returns the hexadecimal digits of the digest.
    pub fn hex(&self) -> &str {
        self.digest.strip_prefix("sha256:").unwrap_or(&self.digest)
    }
}

/// A small blob that is held as it is: a configuration, a manifest, an index.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Document {
    /// What it is.
    pub descriptor: Descriptor,
    /// Its exact bytes.
    pub bytes: Vec<u8>,
}

/// A layer, finished and stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layer {
    /// The blob as it is pushed.
    pub descriptor: Descriptor,
    /// `sha256:HEX` of the tar archive without compression.
    pub diff_id: String,
    /// Bytes of the tar archive without compression.
    pub uncompressed_size: u64,
    /// Where the blob is; it belongs to the store and stays as long as that.
    pub path: PathBuf,
    /// Names of the packages whose files it holds, sorted; empty for the layer of generated files
    /// when there are several.
    pub packages: Vec<String>,
}

/// What became of one script (image.md, IMG-080).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ScriptResult {
    /// Its effect is made by code of our own for this very script.
    BuiltIn,
    /// It was read and carried out on the tree.
    Emulated,
    /// It was executed.
    Ran,
    /// It only prints something.
    MessageOnly,
    /// Nothing was done.
    NotRun,
}

impl ScriptResult {
    /// Returns the words of a report.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::BuiltIn => "done (built in)",
            Self::Emulated => "done (emulated)",
            Self::Ran => "ran",
            Self::MessageOnly => "message only",
            Self::NotRun => "not run",
        }
    }
}

/// One script of one package, and what became of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScriptOutcome {
    /// Name of the package.
    pub package: String,
    /// `pre-install`, `post-install` or `trigger`.
    pub script: String,
    /// What became of it.
    pub result: ScriptResult,
    /// Why it was not run, or what it said.
    pub detail: String,
}

/// Something that the person who builds should know; `--strict` makes it an error.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Warning {
    /// `W-SCRIPT-SKIPPED`, `W-NO-OSRELEASE`, …
    pub code: &'static str,
    /// One line.
    pub text: String,
}

/// An image of one architecture.
#[derive(Debug)]
pub struct BuiltImage {
    /// apk's name of the architecture.
    pub architecture: String,
    /// What the index says of it.
    pub platform: Platform,
    /// From bottom to top.
    pub layers: Vec<Layer>,
    /// The image configuration.
    pub config: Document,
    /// The manifest.
    pub manifest: Document,
    /// Seconds since 1970; what `created` says.
    pub build_time: u64,
    /// The packages with their files, in database order.
    pub installed: InstalledDb,
    /// Every script, in the order in which they would run.
    pub scripts: Vec<ScriptOutcome>,
    /// What should be known.
    pub warnings: Vec<Warning>,
    /// The finished tree.
    pub root: Root,
}

/// Replaces the content of a file, which keeps its owner and mode; a new one gets `mode`.
fn tree_file(root: &Root, path: &str, content: &[u8], mode: u32) -> Result<(), RootError> {
    let known = root.stat(path)?;
    let known = known.filter(|stat| stat.kind == rustix::fs::FileType::RegularFile);
    let mode = known.map_or(mode, |stat| stat.mode);
    root.replace(path, content, mode, false)?;
    let (directory, name) = root.parent(path)?;
    if let Some(stat) = known {
        directory.set_owner(name, stat.uid, stat.gid)?;
    }
    directory.set_mode(name, mode)
}
