//! Why an image operation did not happen: codes, first lines, facts and hints (image.md, 16).

use crate::config::image::{ConfigError, Warning, architecture};
use crate::image::ImageError;
use crate::ops::publish::PublishError;
use crate::plan::lockfile::LockError;

/// Why an image operation did not happen. The text is the first line of the report.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The description.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The lock file.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// The image.
    #[error(transparent)]
    Image(#[from] ImageError),
    /// The registry, or the container engine.
    #[error(transparent)]
    Publish(#[from] PublishError),
    /// A login cannot be kept.
    #[error(transparent)]
    Credentials(#[from] crate::fetch::registry::CredentialError),
    /// An architecture nobody knows.
    #[error(
        "unknown architecture \"{name}\"; known: {}",
        architecture::known_names()
    )]
    Architecture {
        /// The word.
        name: String,
    },
    /// A package is not the same on all architectures.
    #[error("{} different versions per architecture", several(names))]
    ArchitectureVersion {
        /// The packages.
        names: Vec<String>,
        /// A line for each package and architecture.
        table: Vec<String>,
    },
    /// A name is in no index.
    #[error("no package or provider named \"{name}\" in {repositories} {} for {architecture}{}", if *repositories == 1 { "repository" } else { "repositories" }, similar_text(similar))]
    NoSuch {
        /// The name.
        name: String,
        /// How many repositories were looked at.
        repositories: usize,
        /// apk's name of the architecture.
        architecture: String,
        /// Known names that look like it.
        similar: Vec<String>,
    },
    /// There is no solution.
    #[error("cannot satisfy: {reason}")]
    Solve {
        /// The rule at the end of the chain.
        reason: String,
        /// The chain of reasons; the shortest one.
        chain: Vec<String>,
        /// Other chains that have to be broken, too, one after the other.
        more: Vec<String>,
        /// What would help.
        hints: Vec<String>,
    },
    /// An index cannot be had.
    #[error("cannot read {url}: {cause}{}", has_text(has))]
    Index {
        /// The index.
        url: String,
        /// What went wrong.
        cause: String,
        /// Architectures that the repository has.
        has: Vec<String>,
    },
    /// An index is signed by a key that is not known.
    #[error("index {url} is {}, which is not in the keyring", signed_text(keys))]
    UnknownKey {
        /// The index.
        url: String,
        /// Keys that its signatures name.
        keys: Vec<String>,
        /// Keys there are.
        known: Vec<String>,
    },
    /// An index has a bad signature.
    #[error("index {url} has a bad signature{}", key.as_ref().map_or_else(String::new, |key| format!(" by {key}")))]
    BadSignature {
        /// The index.
        url: String,
        /// The key.
        key: Option<String>,
    },
    /// An index is signed over SHA-1 only, which is not wanted.
    #[error("index {url} is signed by \"{key}\" over SHA-1 only")]
    WeakSignature {
        /// The index.
        url: String,
        /// The key.
        key: String,
    },
    /// A package file is not what the index or the lock says.
    #[error("{file} does not match the {by}: expected {expected}, got {found}")]
    Hash {
        /// The file name.
        file: String,
        /// `index` or `lock`.
        by: &'static str,
        /// The hash there.
        expected: String,
        /// The hash of the file.
        found: String,
    },
    /// A locked package is no longer where it was.
    #[error("{file} is no longer at {place}")]
    Gone {
        /// The file name.
        file: String,
        /// The folder it was in.
        place: String,
        /// The package.
        name: String,
        /// The newest version that is offered there now.
        newest: Option<String>,
    },
    /// A package cannot be fetched.
    #[error("cannot fetch {file}: {cause}")]
    Fetch {
        /// The file name.
        file: String,
        /// What went wrong.
        cause: String,
    },
    /// Something is larger than is accepted.
    #[error("{file}: {what}: more than the limit of {limit}")]
    Limit {
        /// The file.
        file: String,
        /// What of it.
        what: String,
        /// The limit, in bytes if it is a size.
        limit: u64,
    },
    /// Files that are not in the cache.
    #[error("offline: {} {} not in the cache", files.len(), if files.len() == 1 { "file is" } else { "files are" })]
    OfflineMiss {
        /// Their names.
        files: Vec<String>,
        /// The description.
        config: String,
    },
    /// A server refuses access.
    #[error("{host} refused access ({status}); credentials: {credentials}")]
    Access {
        /// The server.
        host: String,
        /// The HTTP status.
        status: String,
        /// Where they came from.
        credentials: &'static str,
    },
    /// The lock file belongs to another description.
    #[error("{lock} was made from a different {config}")]
    LockStale {
        /// The lock file.
        lock: String,
        /// The description.
        config: String,
        /// Only the line endings differ.
        line_endings: bool,
    },
    /// There is no lock file.
    #[error("no lock file beside {config}")]
    LockMissing {
        /// The description.
        config: String,
    },
    /// The lock file is not what would be written now.
    #[error("{lock} is not what would be written now")]
    LockDiffers {
        /// The lock file.
        lock: String,
        /// The differences.
        changes: Vec<String>,
    },
    /// A key cannot be used.
    #[error("keyring: {message}")]
    Keyring {
        /// Which, and what is wrong.
        message: String,
    },
    /// The date of a build is no number.
    #[error("SOURCE_DATE_EPOCH=\"{text}\" is not an integer")]
    SourceDateEpoch {
        /// The value.
        text: String,
    },
    /// A file or directory cannot be used.
    #[error("cannot {action} {path}: {cause}")]
    Disk {
        /// What was tried.
        action: &'static str,
        /// Where.
        path: String,
        /// What the system said.
        cause: String,
    },
    /// The output cannot be written.
    #[error("cannot create {path}: {cause}")]
    Output {
        /// Where.
        path: String,
        /// What the system said, and who is who.
        cause: String,
    },
    /// An image cannot be read.
    #[error("{image} is no image that can be read: {cause}")]
    Unreadable {
        /// The image.
        image: String,
        /// What is wrong.
        cause: String,
    },
    /// Two images differ where they must not.
    #[error("{image} is not what {lock} gives: {first}")]
    Differs {
        /// The image.
        image: String,
        /// The lock file.
        lock: String,
        /// The first difference.
        first: String,
        /// More of them.
        more: Vec<String>,
    },
    /// Something that is not done.
    #[error("{what} is not supported")]
    Unsupported {
        /// What.
        what: String,
    },
    /// The command line or a flag.
    #[error("{message}")]
    Usage {
        /// What is wrong.
        message: String,
    },
    /// Warnings that are errors by `--strict`.
    #[error("{}", .0.first().map_or_else(String::new, |w| w.text.clone()))]
    Strict(Vec<Warning>),
    /// A tool of another part of the library.
    #[error("{0}")]
    Other(String),
}

/// Returns the option that moves a limit.
fn limit_flag(what: &str) -> &'static str {
    match what {
        "answer" | "index file" => "--max-http-response-size",
        "index" | "description" => "--max-apkindex-decompressed-size",
        ".PKGINFO" | "script" | "control part" => "--max-apk-control-size",
        _ => "--max-apk-data-size",
    }
}

impl Error {
    /// Makes the error of a limit, if that is what a message tells of.
    pub(super) fn of_limit(file: &str, message: &str) -> Option<Self> {
        let (what, limit) = crate::format::limit_in(message)?;
        Some(Self::Limit {
            file: file.to_owned(),
            what: what.to_owned(),
            limit,
        })
    }
}

fn several(names: &[String]) -> String {
    match names {
        [one] => format!("{one} resolves to"),
        names => format!("{} resolve to", names.join(", ")),
    }
}

fn similar_text(similar: &[String]) -> String {
    match similar {
        [] => String::new(),
        names => format!("; similar: {}", names.join(", ")),
    }
}

fn has_text(has: &[String]) -> String {
    match has {
        [] => String::new(),
        names => format!("; this repository has: {}", names.join(", ")),
    }
}

fn signed_text(keys: &[String]) -> String {
    match keys {
        [] => "not signed by a key".to_owned(),
        keys => {
            let keys: Vec<String> = keys.iter().map(|key| format!("\"{key}\"")).collect();
            format!("signed by {}", keys.join(" and "))
        }
    }
}

impl Error {
    /// Returns the code of the report.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Config(error) => error.code(),
            Self::Lock(LockError::NoChecksum { .. } | LockError::Format { .. }) => "E-LOCK",
            Self::Lock(LockError::Architecture { .. }) => "E-LOCK-STALE",
            Self::Image(error) => error.code(),
            Self::Publish(error) => error.code(),
            Self::Credentials(_) => "E-AUTH",
            Self::Architecture { .. } => "E-ARCH",
            Self::ArchitectureVersion { .. } => "E-ARCH-VERSION",
            Self::NoSuch { .. } => "E-NOSUCH",
            Self::Solve { .. } => "E-SOLVE",
            Self::Index { .. } => "E-INDEX",
            Self::UnknownKey { .. } => "E-SIG-KEY",
            Self::BadSignature { .. } => "E-SIG-BAD",
            Self::WeakSignature { .. } => "E-SIG-SHA1",
            Self::Hash { .. } => "E-HASH",
            Self::Gone { .. } => "E-PKG-GONE",
            Self::Fetch { .. } => "E-FETCH",
            Self::Limit { .. } => "E-LIMIT",
            Self::OfflineMiss { .. } => "E-OFFLINE-MISS",
            Self::Access { .. } => "E-AUTH",
            Self::LockStale { .. } => "E-LOCK-STALE",
            Self::LockMissing { .. } => "E-LOCK-MISSING",
            Self::LockDiffers { .. } => "E-LOCK-DIFFERS",
            Self::Keyring { .. } => "E-KEYRING",
            Self::SourceDateEpoch { .. } => "E-SDE",
            Self::Disk { .. } => "E-IO",
            Self::Output { .. } => "E-OUTPUT",
            Self::Unreadable { .. } => "E-IMAGE",
            Self::Differs { .. } => "E-DIFFERS",
            Self::Unsupported { .. } => "E-UNSUPPORTED",
            Self::Usage { .. } => "E-USAGE",
            Self::Strict(warnings) if warnings.iter().any(|one| one.code == "W-SECRET-URL") => {
                "E-SECRET-URL"
            }
            Self::Strict(warnings) => warnings.first().map_or("E-USAGE", |warning| warning.code),
            Self::Other(_) => "E-BUILD",
        }
    }

    /// Returns the exit code.
    pub fn exit_code(&self) -> u8 {
        match self.code() {
            "E-YAML" | "E-FIELD" | "E-INCLUDE" | "E-ARCH" | "E-ACCOUNT" | "E-QUOTE" | "E-CERT"
            | "E-KEYRING" | "E-SDE" | "E-USAGE" | "E-UNSUPPORTED" | "E-LOCK" | "E-SECRET-URL" => 2,
            "E-PATH" => match self {
                Self::Config(_) => 2,
                _ => 1,
            },
            "E-LOCK-STALE" | "E-LOCK-MISSING" | "E-LOCK-DIFFERS" | "E-DIFFERS" => 3,
            "E-SOLVE" | "E-NOSUCH" | "E-ARCH-VERSION" => 4,
            "E-SIG-KEY" | "E-SIG-BAD" | "E-SIG-SHA1" | "E-HASH" => 5,
            "E-AUTH" => 6,
            _ => 1,
        }
    }

    /// Returns the reasons that are only told who asks for all of them, a line each.
    pub fn more_facts(&self) -> &[String] {
        match self {
            Self::Solve { more, .. } => more,
            _ => &[],
        }
    }

    /// Returns what else is known, a line each.
    pub fn facts(&self) -> Vec<String> {
        match self {
            Self::ArchitectureVersion { table, .. } => table.clone(),
            Self::Solve { chain, .. } => chain.clone(),
            Self::UnknownKey { known, .. } if !known.is_empty() => {
                vec![format!("keys in the keyring: {}", known.join(", "))]
            }
            Self::UnknownKey { .. } => vec!["the keyring is empty".to_owned()],
            Self::Hash { by: "index", .. } => vec![
                "the mirror may be changing right now: index and packages arrive one after the other"
                    .to_owned(),
            ],
            Self::Gone {
                newest: Some(newest),
                name,
                ..
            } => vec![format!("the newest {name} there is {newest}")],
            Self::OfflineMiss { files, .. } => files.clone(),
            Self::LockDiffers { changes, .. } => changes.clone(),
            Self::Differs { more, .. } => more.clone(),
            Self::LockStale {
                line_endings: true, ..
            } => vec!["only the line endings differ".to_owned()],
            Self::Strict(warnings) => {
                let more = warnings.iter().skip(1);
                more.map(|warning| format!("{}: {}", warning.code, warning.text)).collect()
            }
            Self::Image(ImageError::Install(error)) => {
                error.to_string().lines().skip(1).map(str::to_owned).collect()
            }
            _ => Vec::new(),
        }
    }

    /// Returns what to do next, a line each.
    pub fn hints(&self) -> Vec<String> {
        let one = |text: &str| vec![text.to_owned()];
        match self {
            Self::Image(error) => error.hints(),
            Self::ArchitectureVersion { .. } => vec![
                "`--arch-policy per-arch` takes the newest of each".to_owned(),
                "or constrain the version, or drop an architecture".to_owned(),
            ],
            Self::Solve { hints, .. } => hints.clone(),
            Self::UnknownKey { .. } => one("add it under contents.keyring"),
            Self::BadSignature { .. } => {
                one("the index was altered, or another key has the same name; do not use it")
            }
            Self::WeakSignature { .. } => one(
                "Alpine signs its indexes that way; without --require-sha256 they are accepted",
            ),
            Self::Gone { name, .. } => vec![
                format!("move it: ibex image lock --update {name} CONFIG"),
                "or keep copies: ibex image fetch LOCK --to DIR, and build with --mirror or --kept DIR"
                    .to_owned(),
            ],
            Self::OfflineMiss { config, .. } => one(&format!("ibex image fetch {config}")),
            Self::Limit { what, .. } => one(&format!(
                "if it is right that it is so large: {} BYTES",
                limit_flag(what)
            )),
            Self::Publish(PublishError::Registry(error)) if error.is_denied() => {
                one("ibex image login REGISTRY")
            }
            Self::Access { .. } => {
                one("set HTTP_AUTH=basic:HOST:USER:PASSWORD, or add the host to ~/.netrc")
            }
            Self::LockStale {
                line_endings: true, ..
            } => one("put `*.yaml text eol=lf` into .gitattributes"),
            Self::LockStale { config, .. }
            | Self::LockMissing { config }
            | Self::LockDiffers { lock: config, .. } => {
                let config = config.replace(".lock.json", ".yaml");
                one(&format!("ibex image lock {config}"))
            }
            Self::Lock(LockError::NoChecksum { .. }) => {
                one("it was written by an old program; write it anew: ibex image lock CONFIG")
            }
            _ => Vec::new(),
        }
    }
}
