//! Why there is no image.

use crate::root::RootError;
use crate::transaction::TransactionError;
use std::io;
use std::path::{Path, PathBuf};

/// Why there is no image. Nothing was written where the image should be.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// Packages that cannot be installed.
    #[error(transparent)]
    Install(#[from] TransactionError),
    /// The tree cannot be changed.
    #[error(transparent)]
    Root(#[from] RootError),
    /// A path mutation or an added file is not possible.
    #[error("{place}: {reason}")]
    Path {
        /// Where it was asked for.
        place: String,
        /// What is wrong, with the path.
        reason: String,
    },
    /// A certificate cannot be used.
    #[error("certificate `{name}`: {reason}")]
    Certificate {
        /// Its name.
        name: String,
        /// What is wrong.
        reason: String,
    },
    /// A key cannot be written.
    #[error("key `{name}`: {reason}")]
    Key {
        /// Its name.
        name: String,
        /// What is wrong.
        reason: String,
    },
    /// A user or group cannot be added.
    #[error("account `{name}`: {reason}")]
    Account {
        /// Its name.
        name: String,
        /// What is wrong.
        reason: String,
    },
    /// A script ended badly.
    #[error("{script} of {package} failed: {reason}")]
    ScriptFailed {
        /// Name of the package.
        package: String,
        /// Which script.
        script: String,
        /// How it ended, and the last lines of what it said.
        reason: String,
    },
    /// A script makes something else each time.
    #[error("{script} of {package} makes something else each time: {}", files.join(", "))]
    ScriptNotReproducible {
        /// Name of the package.
        package: String,
        /// Which script.
        script: String,
        /// The paths that differ.
        files: Vec<String>,
    },
    /// Scripts that were not run, and that is an error.
    #[error("scripts were not run: {scripts}")]
    ScriptsSkipped {
        /// Their names.
        scripts: String,
    },
    /// Scripts cannot run here.
    #[error("scripts cannot be run in a sandbox: {reason}")]
    NoSandbox {
        /// What forbids it.
        reason: String,
    },
    /// Scripts of another processor cannot run here.
    #[error("scripts of {architecture} cannot be run here")]
    ScriptArchitecture {
        /// apk's name of the architecture.
        architecture: String,
    },
    /// A name that means a deletion in a layer.
    #[error("{path}: a name that begins with `.wh.` cannot be in a layer")]
    WhiteoutName {
        /// The path.
        path: String,
    },
    /// A bound is exceeded.
    #[error("{what}: more than {limit}")]
    Limit {
        /// Of what.
        what: String,
        /// The bound.
        limit: u64,
    },
    /// The image to build on cannot be used.
    #[error("{image} cannot be built on: {cause}")]
    Base {
        /// Where it is.
        image: String,
        /// What is wrong.
        cause: String,
    },
    /// The output cannot be written.
    #[error("cannot create {path}: {cause}")]
    Output {
        /// Where.
        path: PathBuf,
        /// What the system said.
        cause: String,
    },
    /// The store of layers cannot be used.
    #[error("cannot use the cache {path}: {cause}")]
    Store {
        /// Where.
        path: PathBuf,
        /// What the system said.
        cause: String,
    },
}

impl ImageError {
    /// Returns the code that names the kind of error (image.md, chapter 16).
    pub fn code(&self) -> &'static str {
        match self {
            Self::Install(TransactionError::Refused { damaged, .. }) if damaged.is_empty() => {
                "E-FILE-CONFLICT"
            }
            Self::Install(TransactionError::Refused { .. }) => "E-HASH",
            Self::Install(_) | Self::Root(_) => "E-BUILD",
            Self::Path { .. } => "E-PATH",
            Self::Certificate { .. } => "E-CERT",
            Self::Key { .. } => "E-KEYRING",
            Self::Account { .. } => "E-ACCOUNT",
            Self::ScriptFailed { .. } => "E-SCRIPT-FAILED",
            Self::ScriptNotReproducible { .. } => "E-SCRIPT-NONDET",
            Self::ScriptsSkipped { .. } => "E-SCRIPT-SKIPPED",
            Self::NoSandbox { .. } => "E-NO-USERNS",
            Self::ScriptArchitecture { .. } => "E-SCRIPT-ARCH",
            Self::WhiteoutName { .. } => "E-WHITEOUT-NAME",
            Self::Limit { .. } => "E-LIMIT",
            Self::Base { .. } => "E-IMAGE",
            Self::Output { .. } => "E-OUTPUT",
            Self::Store { .. } => "E-CACHE",
        }
    }

    /// Returns what can be done about it.
    pub fn hints(&self) -> Vec<String> {
        let hint = match self {
            Self::ScriptFailed { .. } => {
                "`--scripts-warn` goes on; `--scripts emulate` does what it can without running"
            }
            Self::ScriptNotReproducible { .. } => {
                "put what it makes into the image another way, such as x-build.files or x-build.remove"
            }
            Self::ScriptsSkipped { .. } => "`--scripts run` executes them in a sandbox",
            Self::NoSandbox { .. } | Self::ScriptArchitecture { .. } => {
                "use `--scripts emulate`, or build as root on that architecture"
            }
            Self::Install(TransactionError::Refused { damaged, .. }) if damaged.is_empty() => {
                "leave one of the packages out, or take versions that agree"
            }
            Self::Limit { .. } => "other tools add layers on top; take a smaller budget",
            _ => return Vec::new(),
        };
        vec![hint.to_owned()]
    }

    /// Makes an error of the output.
    pub fn output(path: &Path, error: &io::Error) -> Self {
        let mut cause = crate::root::cause(error);
        let folder = path
            .parent()
            .filter(|folder| !folder.as_os_str().is_empty());
        if error.kind() == io::ErrorKind::PermissionDenied
            && let Ok(found) = std::fs::metadata(folder.unwrap_or(Path::new(".")))
        {
            use std::os::unix::fs::MetadataExt;
            let uid = rustix::process::geteuid().as_raw();
            let (owner, mode) = (found.uid(), found.mode() & 0o7777);
            cause.push_str(&format!(
                " (running as uid {uid}; directory owned by {owner}, mode {mode:04o})"
            ));
        }
        Self::Output {
            path: path.to_owned(),
            cause,
        }
    }

    /// Makes an error of the store.
    pub fn store(path: &Path, error: &io::Error) -> Self {
        Self::Store {
            path: path.to_owned(),
            cause: crate::root::cause(error),
        }
    }
}
