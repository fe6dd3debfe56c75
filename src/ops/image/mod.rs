//! Images: from a description to packages, a lock file, an image and what can be told about it.
//!
//! The package half is that of `add`: the same indexes, solver and downloads, for an empty root.
//! Nothing here decides which package is taken or how a tree is built; it joins who does.

mod alpine_keys;
mod base;
mod build;
mod cache;
mod compare;
mod discovery;
mod error;
mod import;
mod keys;
mod lock;
mod login;
mod parts;
mod resolve;
mod shadow;
mod verify;
mod why;

pub use build::{
    BillFormat, BuildOptions, Built, OutputFormat, build, check_reference, write_bills,
};
pub use cache::{CacheAnswer, CacheCommand, cache};
pub use compare::{
    Difference, Sizes, diff, diff_json, diff_text, sizes, sizes_html, sizes_json, sizes_text,
};
pub use error::Error;
pub use import::{Imported, import};
pub use keys::{InstalledKey, install_keys};
pub use lock::{FetchedLock, LockOutcome, fetch, lock};
pub use login::{Login, LoginOutcome, login};
pub use resolve::{Chosen, Resolution};
pub use shadow::shadow_cache;
pub use verify::{Verified, verify};
pub use why::{dot, explain};

use crate::config::image::{self, Architecture, LoadedConfig, Warning, architecture};
use crate::config::{CacheDirectory, Settings};
use crate::fetch::Session;
use crate::fetch::registry::CredentialFiles;
use crate::progress::Sink;
use crate::root::{Root, passing};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A set of defaults (image.md, 1.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Profile {
    /// Ours.
    #[default]
    Native,
    /// apko's.
    Apko,
}

impl Profile {
    /// Returns its name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Native => "native",
            Self::Apko => "apko",
        }
    }
}

/// What every image command shares.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// The defaults.
    pub profile: Profile,
    /// The description, relative to the working directory.
    pub config: PathBuf,
    /// What relative paths begin at.
    pub work_dir: PathBuf,
    /// `--include-paths`.
    pub include_paths: Vec<PathBuf>,
    /// `--arch`.
    pub architectures: Vec<String>,
    /// `-k`.
    pub keyring: Vec<String>,
    /// `-b`.
    pub build_repositories: Vec<String>,
    /// `-r`.
    pub repositories: Vec<String>,
    /// `-p`.
    pub packages: Vec<String>,
    /// Where downloads and layers are kept; a temporary place if absent.
    pub cache_dir: Option<PathBuf>,
    /// Keeps [`Self::cache_dir`] there while it is needed, if it is made for this command.
    pub cache_place: Option<Arc<tempfile::TempDir>>,
    /// `--lockfile`.
    pub lockfile: Option<PathBuf>,
    /// `--locked`.
    pub locked: bool,
    /// `--kept`: folders with copies of packages.
    pub kept: Vec<PathBuf>,
    /// `--mirror FROM=TO`.
    pub mirrors: Vec<(String, String)>,
    /// `--require-sha256`: an index that is signed over SHA-1 alone is refused.
    pub require_sha256: bool,
    /// `--arch-policy per-arch`.
    pub per_architecture: bool,
    /// What was noticed while the command line was read.
    pub notes: Vec<Warning>,
    /// `--strict`.
    pub strict: bool,
    /// Where logins to registries may be.
    pub credentials: CredentialFiles,
    /// Network and signatures: what global options of other commands decide.
    pub settings: Settings,
}

/// A description that is being worked on, with the places that this needs.
pub struct Workshop<'a> {
    /// What was asked for.
    pub options: &'a Options,
    /// The description.
    pub loaded: LoadedConfig,
    /// What was noticed so far.
    pub warnings: Vec<Warning>,
    /// Versions that must stay: by architecture and name.
    held: BTreeMap<(String, String), String>,
    /// Keys that nobody gave, but repositories publish.
    discovered: std::cell::RefCell<Vec<resolve::BuildKey>>,
    /// Indexes that were read before it is their turn: by architecture and declaration.
    read_before: std::cell::RefCell<BTreeMap<(String, String), resolve::ReadIndex>>,
    /// The images to build on, by apk's name of the architecture.
    bases: BTreeMap<String, crate::image::BaseImage>,
    session: std::cell::OnceCell<Session>,
    root: Root,
    cache: CacheDirectory,
    /// Temporary places; they go with this.
    _places: Vec<tempfile::TempDir>,
}

impl<'a> Workshop<'a> {
    /// Reads the description and prepares the places.
    ///
    /// # Errors
    /// [`enum@Error`].
    pub fn open(options: &'a Options) -> Result<Self, Error> {
        let nothing = options.config.as_os_str().is_empty();
        let loaded = match nothing || options.config.extension().is_some_and(|end| end == "json") {
            // A lock file alone says everything that fetching needs.
            true => LoadedConfig::default(),
            false => image::load(&options.config, &options.work_dir, &options.include_paths)?,
        };
        let empty = temporary()?;
        let root =
            Root::open(empty.path()).map_err(|error| disk("open", empty.path(), &error.source))?;
        let mut places = vec![empty];
        let path = match &options.cache_dir {
            Some(path) => path.join("packages"),
            None => {
                let place = temporary()?;
                let path = place.path().join("packages");
                places.push(place);
                path
            }
        };
        std::fs::create_dir_all(&path).map_err(|error| disk("create", &path, &error))?;
        let mut warnings = options.notes.clone();
        warnings.extend(loaded.warnings.iter().cloned());
        warnings.extend(
            image::lint(&loaded.config, false)
                .into_iter()
                .filter(|warning| {
                    // What a person asked `lint` for is not what every build must say.
                    matches!(warning.code, "W-ARCH" | "W-SECRET-URL" | "W-NO-TAG")
                }),
        );
        if options.settings.allow_untrusted {
            let text = "the signatures of indexes are not checked (--ignore-signatures)";
            warnings.push(Warning::new("W-UNSIGNED", text));
        }
        Ok(Self {
            options,
            loaded,
            warnings,
            held: BTreeMap::new(),
            discovered: std::cell::RefCell::default(),
            read_before: std::cell::RefCell::default(),
            bases: BTreeMap::new(),
            session: std::cell::OnceCell::new(),
            root,
            cache: CacheDirectory {
                path,
                packages: true,
            },
            _places: places,
        })
    }

    /// Finds a file or directory that a description names: from the working directory, else in those
    /// for included files.
    fn find(&self, name: &str) -> PathBuf {
        let mut places = self.options.include_paths.iter();
        let usual = self.options.work_dir.join(name);
        let found = match usual.exists() {
            true => None,
            false => places.find_map(|place| {
                let path = self.options.work_dir.join(place).join(name);
                path.exists().then_some(path)
            }),
        };
        // Without `.` in it: it is shown to people.
        found.unwrap_or(usual).components().collect()
    }

    /// Returns the name of the description as it was given.
    pub fn config_name(&self) -> String {
        self.options.config.display().to_string()
    }

    /// Returns the architectures to work for: the flag's, else the description's, else the
    /// profile's.
    ///
    /// # Errors
    /// [`Error::Architecture`] for an unknown one given by flag.
    pub fn architectures(&self) -> Result<Vec<Architecture>, Error> {
        let flag = architecture::parse_list(&self.options.architectures);
        if let Some(unknown) = flag.iter().find(|arch| !arch.known) {
            return Err(Error::Architecture {
                name: unknown.oci.clone(),
            });
        }
        if !flag.is_empty() {
            return Ok(flag);
        }
        let file = architecture::parse_list(&self.loaded.config.archs);
        Ok(match (file.is_empty(), self.options.profile) {
            (false, _) => file,
            (true, Profile::Native) => vec![Architecture::host()],
            (true, Profile::Apko) => architecture::all(),
        })
    }

    /// Returns the folder for everything that is kept between runs, if there is one.
    pub fn cache_path(&self) -> &Path {
        self.cache.path.parent().unwrap_or(&self.cache.path)
    }

    /// Returns what is known of the parts of package files.
    fn parts(&self) -> parts::PartsShelf {
        parts::PartsShelf::new(self.cache_path())
    }

    /// Tells what was noticed, or fails because of it with `--strict`.
    ///
    /// # Errors
    /// [`Error::Strict`].
    pub fn tell_warnings(&mut self, sink: &mut dyn Sink) -> Result<(), Error> {
        let warnings = std::mem::take(&mut self.warnings);
        if self.options.strict && !warnings.is_empty() {
            return Err(Error::Strict(warnings));
        }
        for warning in warnings {
            sink.warning(&format!("{}: {}", warning.code, warning.text));
        }
        Ok(())
    }
}

fn temporary() -> Result<tempfile::TempDir, Error> {
    let make = || tempfile::Builder::new().prefix("ibex-image.").tempdir();
    let made = passing::noted(make, tempfile::TempDir::path);
    made.map_err(|error| disk("create", &std::env::temp_dir(), &error))
}

fn disk(action: &'static str, path: &Path, error: &std::io::Error) -> Error {
    Error::Disk {
        action,
        path: path.display().to_string(),
        cause: crate::root::cause(error),
    }
}

/// Writes an output that is in memory.
fn write_text(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    let failed = |error: std::io::Error| output_error(path, &error);
    crate::root::write_output(path, failed, |out| out.write_all(bytes).map_err(failed))
}

/// Says why an output cannot be written, and who is who where that is the reason.
fn output_error(path: &Path, error: &std::io::Error) -> Error {
    use std::os::unix::fs::MetadataExt;
    let mut cause = crate::root::cause(error);
    let folder = path
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty());
    let folder = folder.unwrap_or(Path::new("."));
    if let (std::io::ErrorKind::PermissionDenied, Ok(meta)) = (error.kind(), folder.metadata()) {
        let (uid, mode) = (rustix::process::geteuid().as_raw(), meta.mode() & 0o7777);
        let owner = meta.uid();
        cause.push_str(&format!(
            " (running as uid {uid}; directory owned by {owner}, mode {mode:04o})"
        ));
    }
    Error::Output {
        path: path.display().to_string(),
        cause,
    }
}
