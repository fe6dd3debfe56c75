//! One operation a file; joins the floors below and knows no byte format.
//!
//! Every operation takes typed options and a [`crate::progress::Sink`], and returns values. Nothing
//! here prints, asks or exits: questions are a callback, and an [`enum@Error`] carries what the binary
//! turns into text and exit code.

pub mod audit;
pub mod branch;
pub mod cache;
pub mod change;
pub mod database;
pub mod download;
pub mod extract;
pub mod fetch;
pub mod history;
pub mod image;
pub mod index;
pub mod known;
pub mod log;
pub mod mirrors;
mod package_file;
pub mod publish;
pub mod query;
pub mod recover;
pub mod refresh;
pub mod snapshot;
pub mod store;
pub mod update;
pub mod verify;

use crate::transaction::TransactionError;
use thiserror::Error;

/// Why an operation did not happen, with apk's exit code (cli.md, 1.9).
#[derive(Debug, Error)]
pub enum Error {
    /// The root directory cannot be used.
    #[error("Unable to open root: {cause}")]
    Root {
        /// What the system said.
        cause: String,
    },
    /// `--usermode` was given by root.
    #[error("--usermode not allowed as root")]
    UsermodeAsRoot,
    /// A user creates a database without `--usermode`.
    #[error("Use --usermode to allow creating database as non-root")]
    UsermodeNeeded,
    /// The log cannot be written.
    #[error("Unable to open log: {cause}")]
    Log {
        /// What the system said.
        cause: String,
    },
    /// The database is locked by somebody else, or the lock cannot be taken.
    #[error("Unable to lock database: {cause}")]
    Lock {
        /// What the system said, and who holds it where known.
        cause: String,
    },
    /// The database or the world cannot be read.
    #[error("Unable to read database: {cause}")]
    Database {
        /// What is wrong; the first line is apk's text.
        cause: String,
    },
    /// The cache directory cannot be used.
    #[error("Unable to setup the cache: {cause}")]
    Cache {
        /// What the system said.
        cause: String,
    },
    /// The history cannot be read.
    #[error("Unable to read history: {cause}")]
    History {
        /// What is wrong.
        cause: String,
    },
    /// Arguments that cannot be understood or found; each line is an error of its own.
    #[error("{}", lines.join("\n"))]
    Arguments {
        /// The lines to show.
        lines: Vec<String>,
        /// apk's exit code.
        code: u8,
    },
    /// The user said no; nothing is printed.
    #[error("cancelled")]
    Cancelled,
    /// Packages are not on the mirrors as the index lists them: the index may be outdated. Each
    /// line names a package and the cause; nothing was changed.
    #[error("{}", lines.join("\n"))]
    Outdated {
        /// The lines to show.
        lines: Vec<String>,
    },
    /// The transaction did not happen or failed.
    #[error(transparent)]
    Transaction(#[from] TransactionError),
}

impl Error {
    /// Returns the lines to show behind `ERROR: `, in order.
    pub fn lines(&self) -> Vec<String> {
        let mut lines: Vec<String> = match self {
            Self::Cancelled => Vec::new(),
            other => other.to_string().lines().map(str::to_owned).collect(),
        };
        if let Self::Lock { cause } | Self::Database { cause } | Self::Cache { cause } = self {
            let first = cause.lines().next().unwrap_or_default();
            lines.push(format!("Failed to open apk database: {first}"));
        }
        lines
    }

    /// Returns what the user can do next, for people only: apk says nothing of the kind.
    pub fn hints(&self) -> Vec<String> {
        let missing = |cause: &str| cause.contains("No such file or directory");
        let hint = match self {
            Self::Root { cause } if missing(cause) => {
                "`--root DIR` must exist; `add --initdb` makes its last part"
            }
            Self::Lock { cause } if cause.contains("temporarily unavailable") => {
                "something else is changing this root; `--wait SECONDS` waits for it"
            }
            Self::Log { cause } | Self::Lock { cause } if cause.contains("Permission denied") => {
                "only root may change this system; another root needs `--root DIR --usermode`"
            }
            Self::Database { cause } if missing(cause) => {
                "there is no package database in this root; `add --initdb` makes one"
            }
            Self::Cancelled => "nothing was changed",
            _ => return Vec::new(),
        };
        vec![hint.to_owned()]
    }

    /// Returns apk's exit code: 99 for everything that fails before or outside of a count.
    pub fn code(&self) -> u8 {
        match self {
            Self::Arguments { code, .. } => *code,
            Self::Transaction(
                error @ (TransactionError::Interrupted { .. } | TransactionError::Signal(_)),
            ) => error.code(),
            _ => 99,
        }
    }
}
