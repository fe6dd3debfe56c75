//! The image description: `apko.yaml` and what it includes, as values (image.md, chapter 3).
//!
//! Reading checks everything that can be known without a repository. Nothing here fetches, solves
//! or writes; errors say where in which file, and what is known instead.

pub mod architecture;
mod checks;
mod fields;
pub mod range;
pub mod words;
pub mod yaml;

pub use super::repositories::without_credentials;
pub use architecture::Architecture;
pub use checks::{Warning, lint};
pub use fields::schema;

use fields::{Notes, PLACE};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use yaml::{Position, YamlError};

/// Names with texts.
pub type Names = BTreeMap<String, String>;

/// Why a description cannot be used. The text is the first line of the report.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// A file cannot be read.
    #[error("cannot read {path}: {cause}")]
    Read {
        /// The path as given.
        path: String,
        /// What the system said.
        cause: String,
    },
    /// It is not YAML.
    #[error("{file}:{}:{}: {message}", at.line, at.column)]
    Syntax {
        /// The file.
        file: String,
        /// Where.
        at: Position,
        /// What is wrong.
        message: String,
    },
    /// It is larger than a description ever is.
    #[error("{file} is too large: {limit}")]
    Limit {
        /// The file.
        file: String,
        /// Which limit was passed.
        limit: String,
    },
    /// A key is not known.
    #[error("{file}:{}:{}: unknown field \"{key}\"{}{}", at.line, at.column, in_parent(parent), meant(*nearest))]
    Field {
        /// The file.
        file: String,
        /// Where the key stands.
        at: Position,
        /// The key.
        key: String,
        /// The path of the mapping; empty at the top.
        parent: String,
        /// The known key that looks most like it.
        nearest: Option<&'static str>,
    },
    /// A value is not what its field takes.
    #[error("{file}:{}:{}: {message}", at.line, at.column)]
    Value {
        /// The file.
        file: String,
        /// Where the value stands.
        at: Position,
        /// What is wrong.
        message: String,
    },
    /// An included file is not there, or includes itself.
    #[error("include {message}")]
    Include {
        /// What is wrong.
        message: String,
    },
    /// An entry of `paths` or `x-build.files` makes no sense.
    #[error("{list}[{}] (line {}): {message}", place.index, place.line)]
    Path {
        /// The list.
        list: &'static str,
        /// Where.
        place: Place,
        /// What is wrong.
        message: String,
    },
    /// A user or a group makes no sense.
    #[error("accounts.{list}[{}]: {message}", place.index)]
    Account {
        /// `users` or `groups`.
        list: &'static str,
        /// Where.
        place: Place,
        /// What is wrong.
        message: String,
    },
    /// A command has an unfinished quote.
    #[error("{field}: {source}")]
    Quote {
        /// The field.
        field: String,
        /// Where.
        source: words::QuoteError,
    },
    /// A certificate is unusable.
    #[error("certificates.additional[{}]: {message}", place.index)]
    Certificate {
        /// Where.
        place: Place,
        /// What is wrong.
        message: String,
    },
    /// A key is unusable.
    #[error("{message}")]
    Keyring {
        /// Which, and what is wrong.
        message: String,
    },
    /// A constraint cannot be read.
    #[error("contents.packages: \"{text}\" {message}")]
    Package {
        /// The entry.
        text: String,
        /// What is wrong.
        message: String,
    },
    /// Fields that exclude each other, or a service bundle without services.
    #[error("{message}")]
    Combination {
        /// What is wrong.
        message: String,
    },
}

fn in_parent(parent: &str) -> String {
    match parent {
        "" => String::new(),
        parent => format!(" in {parent}"),
    }
}

fn meant(nearest: Option<&'static str>) -> String {
    nearest.map_or_else(String::new, |name| format!("; did you mean \"{name}\"?"))
}

impl ConfigError {
    /// Returns the code of the report (image.md, chapter 16).
    pub fn code(&self) -> &'static str {
        match self {
            Self::Read { .. } | Self::Syntax { .. } => "E-YAML",
            Self::Limit { .. } => "E-LIMIT",
            Self::Field { .. } | Self::Value { .. } | Self::Combination { .. } => "E-FIELD",
            Self::Package { .. } => "E-FIELD",
            Self::Include { .. } => "E-INCLUDE",
            Self::Path { .. } => "E-PATH",
            Self::Account { .. } => "E-ACCOUNT",
            Self::Quote { .. } => "E-QUOTE",
            Self::Certificate { .. } => "E-CERT",
            Self::Keyring { .. } => "E-KEYRING",
        }
    }
}

/// Where an item of a list was written.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct Place {
    /// The file.
    pub file: String,
    /// Its number in that file's list, from 0.
    pub index: usize,
    /// The line, from 1.
    pub line: usize,
}

/// An image description.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
pub struct ImageConfig {
    /// Packages and their sources.
    #[serde(skip_serializing_if = "is_default")]
    pub contents: Contents,
    /// What runs.
    #[serde(skip_serializing_if = "is_default")]
    pub entrypoint: Entrypoint,
    /// Arguments.
    #[serde(skip_serializing_if = "is_default")]
    pub cmd: String,
    /// Signal that stops.
    #[serde(skip_serializing_if = "is_default")]
    pub stop_signal: String,
    /// Working directory.
    #[serde(skip_serializing_if = "is_default")]
    pub work_dir: String,
    /// Users and groups.
    #[serde(skip_serializing_if = "is_default")]
    pub accounts: Accounts,
    /// Architectures in OCI's spelling.
    #[serde(skip_serializing_if = "is_default")]
    pub archs: Vec<String>,
    /// Environment.
    #[serde(skip_serializing_if = "is_default")]
    pub environment: Names,
    /// Path mutations, in order.
    #[serde(skip_serializing_if = "is_default")]
    pub paths: Vec<PathMutation>,
    /// `URL@COMMIT`.
    #[serde(skip_serializing_if = "is_default")]
    pub vcs_url: String,
    /// Annotations.
    #[serde(skip_serializing_if = "is_default")]
    pub annotations: Names,
    /// The file this one extends.
    #[serde(skip_serializing_if = "is_default")]
    pub include: String,
    /// Volumes.
    #[serde(skip_serializing_if = "is_default")]
    pub volumes: Vec<String>,
    /// Layering.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub layering: Option<Layering>,
    /// `tar` or `erofs`.
    #[serde(skip_serializing_if = "is_default")]
    pub format: String,
    /// Certificate authorities.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub certificates: Option<Certificates>,
    /// `/etc/os-release`, where no package brings it (IMG-027).
    #[serde(skip_serializing_if = "is_default")]
    pub os_release: Names,
    /// What only this program understands.
    #[serde(skip_serializing_if = "is_default")]
    pub x_build: Extensions,
}

/// `contents`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Contents {
    /// For building only.
    #[serde(skip_serializing_if = "is_default")]
    pub build_repositories: Vec<String>,
    /// Written into the image only.
    #[serde(skip_serializing_if = "is_default")]
    pub runtime_repositories: Vec<String>,
    /// Both.
    #[serde(skip_serializing_if = "is_default")]
    pub repositories: Vec<String>,
    /// Trusted keys: paths or URLs.
    #[serde(skip_serializing_if = "is_default")]
    pub keyring: Vec<String>,
    /// Keys for the image only.
    #[serde(skip_serializing_if = "is_default")]
    pub runtime_keyring: Vec<Named>,
    /// World constraints and ranges.
    #[serde(skip_serializing_if = "is_default")]
    pub packages: Vec<String>,
    /// An image to build on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub baseimage: Option<BaseImage>,
}

/// A name with a content: a key or a certificate.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Named {
    /// The name.
    pub name: String,
    /// The content.
    pub content: String,
    #[serde(rename = "\u{0}place", skip_serializing)]
    /// Where it was written.
    pub place: Place,
}

/// `contents.baseimage`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct BaseImage {
    /// The OCI layout.
    pub image: String,
    /// Folder of `ARCH/APKINDEX`.
    #[serde(skip_serializing_if = "is_default")]
    pub apkindex: String,
}

/// `entrypoint`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
pub struct Entrypoint {
    /// `service-bundle` or nothing.
    #[serde(rename = "type", skip_serializing_if = "is_default")]
    pub kind: String,
    /// The command.
    #[serde(skip_serializing_if = "is_default")]
    pub command: String,
    /// Text for a shell.
    #[serde(skip_serializing_if = "is_default")]
    pub shell_fragment: String,
    /// Services: name to command.
    #[serde(skip_serializing_if = "is_default")]
    pub services: Names,
}

/// `accounts`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
pub struct Accounts {
    /// Who runs.
    #[serde(skip_serializing_if = "is_default")]
    pub run_as: String,
    /// Users.
    #[serde(skip_serializing_if = "is_default")]
    pub users: Vec<User>,
    /// Groups.
    #[serde(skip_serializing_if = "is_default")]
    pub groups: Vec<Group>,
}

/// A user to add.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct User {
    /// Name.
    pub username: String,
    /// Number.
    pub uid: Option<u32>,
    /// Primary group.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gid: Option<u32>,
    /// Shell.
    #[serde(skip_serializing_if = "is_default")]
    pub shell: String,
    /// Home.
    #[serde(skip_serializing_if = "is_default")]
    pub homedir: String,
    /// Where it was written.
    #[serde(rename = "\u{0}place", skip_serializing)]
    pub place: Place,
}

/// A group to add.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Group {
    /// Name.
    pub groupname: String,
    /// Number.
    pub gid: Option<u32>,
    /// Members.
    #[serde(skip_serializing_if = "is_default")]
    pub members: Vec<String>,
    /// Where it was written.
    #[serde(rename = "\u{0}place", skip_serializing)]
    pub place: Place,
}

/// An entry of `paths`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct PathMutation {
    /// The path.
    pub path: String,
    /// What to do.
    #[serde(rename = "type")]
    pub kind: String,
    /// Owner.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uid: Option<u32>,
    /// Group.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gid: Option<u32>,
    /// Mode.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub permissions: Option<u32>,
    /// What a link points to.
    #[serde(skip_serializing_if = "is_default")]
    pub source: String,
    /// Everything below, too.
    #[serde(skip_serializing_if = "is_default")]
    pub recursive: bool,
    /// Where it was written.
    #[serde(rename = "\u{0}place", skip_serializing)]
    pub place: Place,
}

/// `layering`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Layering {
    /// `origin`, or nothing for one layer.
    #[serde(skip_serializing_if = "is_default")]
    pub strategy: String,
    /// Most package layers.
    #[serde(skip_serializing_if = "is_default")]
    pub budget: u32,
}

/// `certificates`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Certificates {
    /// Certificates.
    #[serde(skip_serializing_if = "is_default")]
    pub additional: Vec<Named>,
    /// Names that packages with certificates provide.
    #[serde(skip_serializing_if = "is_default")]
    pub providers: Vec<String>,
}

/// `x-build`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
pub struct Extensions {
    /// What becomes of scripts.
    #[serde(skip_serializing_if = "is_default")]
    pub scripts: String,
    /// Local files and texts.
    #[serde(skip_serializing_if = "is_default")]
    pub files: Vec<ExtraFile>,
    /// `requested` or `locked`.
    #[serde(skip_serializing_if = "is_default")]
    pub world: String,
    /// `gzip`, `zstd`, `none`, with `:LEVEL`.
    #[serde(skip_serializing_if = "is_default")]
    pub compression: String,
    /// How to see that a container works.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub healthcheck: Option<HealthCheck>,
    /// Ports.
    #[serde(skip_serializing_if = "is_default")]
    pub expose: Vec<String>,
    /// Labels.
    #[serde(skip_serializing_if = "is_default")]
    pub labels: Names,
    /// Patterns of paths left out.
    #[serde(skip_serializing_if = "is_default")]
    pub remove: Vec<String>,
    /// Lower later times to the build time.
    #[serde(skip_serializing_if = "is_default")]
    pub clamp_mtime: bool,
    /// Where to fetch instead.
    #[serde(skip_serializing_if = "is_default")]
    pub mirrors: BTreeMap<String, Vec<String>>,
    /// Where the database is.
    #[serde(skip_serializing_if = "is_default")]
    pub db: String,
}

/// `x-build.healthcheck`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
pub struct HealthCheck {
    /// The test.
    pub test: Vec<String>,
    /// Time between checks.
    #[serde(skip_serializing_if = "is_default")]
    pub interval: String,
    /// Time one check may take.
    #[serde(skip_serializing_if = "is_default")]
    pub timeout: String,
    /// Time to start up.
    #[serde(skip_serializing_if = "is_default")]
    pub start_period: String,
    /// Failures in a row that count.
    #[serde(skip_serializing_if = "is_default")]
    pub retries: u32,
}

/// An entry of `x-build.files`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ExtraFile {
    /// The path in the image.
    pub path: String,
    /// The local file.
    #[serde(skip_serializing_if = "is_default")]
    pub source: String,
    /// The text instead.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub content: Option<String>,
    /// Mode.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mode: Option<u32>,
    /// Owner.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uid: Option<u32>,
    /// Group.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gid: Option<u32>,
    /// Where it was written.
    #[serde(rename = "\u{0}place", skip_serializing)]
    pub place: Place,
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// A description with what it was read from.
#[derive(Clone, Debug, Default)]
pub struct LoadedConfig {
    /// The merged description.
    pub config: ImageConfig,
    /// The files, in the order in which they were read.
    pub files: Vec<PathBuf>,
    /// SHA-256 over the bytes of the files in that order: what a lock file records.
    pub checksum: [u8; 32],
    /// The same with all line breaks turned into LF, and into CR LF.
    pub other_checksums: [[u8; 32]; 2],
    /// What was noticed.
    pub warnings: Vec<Warning>,
}

/// Reads a description and what it includes, merges and checks it.
///
/// Relative paths are looked up in `work_dir`, then in each of `include_paths`, then beside the
/// including file.
///
/// # Errors
/// [`ConfigError`].
pub fn load(
    path: &Path,
    work_dir: &Path,
    include_paths: &[PathBuf],
) -> Result<LoadedConfig, ConfigError> {
    let mut loader = Loader {
        work_dir,
        include_paths,
        chain: Vec::new(),
        files: Vec::new(),
        plain: Sha256::new(),
        unix: Sha256::new(),
        dos: Sha256::new(),
        warnings: Vec::new(),
    };
    let mut config = loader.file(&work_dir.join(path), &path.display().to_string())?;
    checks::check(&mut config)?;
    Ok(LoadedConfig {
        config,
        files: loader.files,
        checksum: loader.plain.finalize().into(),
        other_checksums: [loader.unix.finalize().into(), loader.dos.finalize().into()],
        warnings: loader.warnings,
    })
}

/// Reads a single text without includes; for tests and for what other programs wrote.
///
/// # Errors
/// [`ConfigError`].
pub fn parse(file: &str, text: &str) -> Result<(ImageConfig, Vec<Warning>), ConfigError> {
    let document = yaml::read(text).map_err(|error| match error {
        YamlError::Syntax(at, message) => ConfigError::Syntax {
            file: file.to_owned(),
            at,
            message,
        },
        YamlError::Limit(limit) => ConfigError::Limit {
            file: file.to_owned(),
            limit,
        },
    })?;
    let mut warnings = Vec::new();
    if document.more {
        let text = format!("{file}: only the first document is used");
        warnings.push(Warning::new("W-DOCUMENTS", text));
    }
    let Some(root) = document.root else {
        return Ok((ImageConfig::default(), warnings));
    };
    let mut notes = Notes::default();
    let json = fields::read(file, &root, &mut notes)?;
    for (field, at) in notes.old {
        let effect = match field.as_str() {
            "os-release" => "is only used where no package brings /etc/os-release",
            _ => "has no effect",
        };
        let text = format!("{file}:{}:{}: `{field}` {effect}", at.line, at.column);
        warnings.push(Warning::new("W-OLD-FIELD", text));
    }
    let mut config: ImageConfig =
        serde_json::from_value(json).expect("the table and the types agree, as a test checks");
    let contents = &mut config.contents;
    for list in [
        &mut contents.build_repositories,
        &mut contents.runtime_repositories,
        &mut contents.repositories,
    ] {
        for repository in list {
            repository.truncate(repository.trim_end_matches('/').len());
        }
    }
    Ok((config, warnings))
}

struct Loader<'a> {
    work_dir: &'a Path,
    include_paths: &'a [PathBuf],
    /// The files that are being read, outermost first.
    chain: Vec<(PathBuf, String)>,
    files: Vec<PathBuf>,
    plain: Sha256,
    unix: Sha256,
    dos: Sha256,
    warnings: Vec<Warning>,
}

impl Loader<'_> {
    fn file(&mut self, path: &Path, shown: &str) -> Result<ImageConfig, ConfigError> {
        let unreadable = |error: &std::io::Error| ConfigError::Read {
            path: shown.to_owned(),
            cause: crate::root::cause(error),
        };
        let real = std::fs::canonicalize(path).map_err(|error| unreadable(&error))?;
        if self.chain.iter().any(|(known, _)| *known == real) {
            let names = self.chain.iter().map(|(_, name)| name.as_str());
            let chain: Vec<&str> = names.chain([shown]).collect();
            return Err(ConfigError::Include {
                message: format!("cycle: {}", chain.join(" -> ")),
            });
        }
        let size = std::fs::metadata(&real).map_err(|error| unreadable(&error))?;
        if size.len() > yaml::MAX_SIZE as u64 {
            return Err(ConfigError::Limit {
                file: shown.to_owned(),
                limit: format!("more than {} bytes", yaml::MAX_SIZE),
            });
        }
        let bytes = std::fs::read(&real).map_err(|error| unreadable(&error))?;
        self.hash(&bytes);
        let text = String::from_utf8(bytes).map_err(|error| {
            let before = &error.as_bytes()[..error.utf8_error().valid_up_to()];
            let line = before.iter().filter(|byte| **byte == b'\n').count() + 1;
            ConfigError::Syntax {
                file: shown.to_owned(),
                at: Position { line, column: 1 },
                message: "not UTF-8".to_owned(),
            }
        })?;
        let (mut config, warnings) = parse(shown, &text)?;
        self.warnings.extend(warnings);
        self.files.push(real.clone());
        if !config.include.is_empty() {
            let (path, shown_include) = self.find(&config.include, &real)?;
            self.chain.push((real, shown.to_owned()));
            let included = self.file(&path, &shown_include)?;
            self.chain.pop();
            config.inherit(included);
        }
        Ok(config)
    }

    fn hash(&mut self, bytes: &[u8]) {
        self.plain.update(bytes);
        let text = bytes
            .split(|byte| *byte == b'\n')
            .map(|line| line.strip_suffix(b"\r"));
        let text: Vec<&[u8]> = (text.zip(bytes.split(|byte| *byte == b'\n')))
            .map(|(short, line)| short.unwrap_or(line))
            .collect();
        self.unix.update(text.join(&b'\n'));
        self.dos.update(text.join(&b"\r\n"[..]));
    }

    /// Finds an included file.
    fn find(&self, include: &str, including: &Path) -> Result<(PathBuf, String), ConfigError> {
        let remote = include.contains("://")
            || include.split_once('/').is_some_and(|(host, rest)| {
                host.contains('.') && !host.starts_with('.') && rest.contains('@')
            });
        if remote {
            let message = format!(
                "\"{include}\" is a remote file: that form was removed; copy it beside this one"
            );
            return Err(ConfigError::Include { message });
        }
        let mut looked = vec![".".to_owned()];
        let mut folders = vec![self.work_dir.to_owned()];
        for path in self.include_paths {
            looked.push(path.display().to_string());
            folders.push(self.work_dir.join(path));
        }
        folders.extend(including.parent().map(Path::to_owned));
        let found = folders.iter().map(|folder| folder.join(include));
        match found.into_iter().find(|path| path.is_file()) {
            Some(path) => Ok((path, include.to_owned())),
            None => Err(ConfigError::Include {
                message: format!("\"{include}\" not found (looked in {})", looked.join(", ")),
            }),
        }
    }
}

impl ImageConfig {
    /// Takes over from an included description what this one does not say (image.md, 3.8).
    fn inherit(&mut self, base: ImageConfig) {
        fn text(own: &mut String, base: String) {
            if own.is_empty() {
                *own = base;
            }
        }
        fn list<T>(own: &mut Vec<T>, mut base: Vec<T>) {
            base.append(own);
            *own = base;
        }
        fn names<T>(own: &mut BTreeMap<String, T>, base: BTreeMap<String, T>) {
            for (name, value) in base {
                own.entry(name).or_insert(value);
            }
        }
        if is_default(&self.entrypoint) {
            self.entrypoint = base.entrypoint;
        }
        text(&mut self.cmd, base.cmd);
        text(&mut self.stop_signal, base.stop_signal);
        text(&mut self.work_dir, base.work_dir);
        text(&mut self.format, base.format);
        self.layering = self.layering.take().or(base.layering);
        self.certificates = self.certificates.take().or(base.certificates);
        if self.archs.is_empty() {
            self.archs = base.archs;
        }
        text(&mut self.accounts.run_as, base.accounts.run_as);
        list(&mut self.accounts.users, base.accounts.users);
        list(&mut self.accounts.groups, base.accounts.groups);
        names(&mut self.environment, base.environment);
        names(&mut self.annotations, base.annotations);
        names(&mut self.os_release, base.os_release);
        list(&mut self.paths, base.paths);
        list(&mut self.volumes, base.volumes);
        let (own, base_contents) = (&mut self.contents, base.contents);
        list(
            &mut own.build_repositories,
            base_contents.build_repositories,
        );
        list(
            &mut own.runtime_repositories,
            base_contents.runtime_repositories,
        );
        list(&mut own.repositories, base_contents.repositories);
        list(&mut own.keyring, base_contents.keyring);
        list(&mut own.runtime_keyring, base_contents.runtime_keyring);
        list(&mut own.packages, base_contents.packages);
        own.baseimage = own.baseimage.take().or(base_contents.baseimage);
        let (own, base) = (&mut self.x_build, base.x_build);
        text(&mut own.scripts, base.scripts);
        list(&mut own.files, base.files);
        text(&mut own.world, base.world);
        text(&mut own.compression, base.compression);
        own.healthcheck = own.healthcheck.take().or(base.healthcheck);
        list(&mut own.expose, base.expose);
        names(&mut own.labels, base.labels);
        list(&mut own.remove, base.remove);
        own.clamp_mtime |= base.clamp_mtime;
        names(&mut own.mirrors, base.mirrors);
        text(&mut own.db, base.db);
    }

    /// Returns the tags that repositories declare.
    pub fn repository_tags(&self) -> Vec<String> {
        let contents = &self.contents;
        let all = contents.build_repositories.iter();
        let all = all
            .chain(&contents.repositories)
            .chain(&contents.runtime_repositories);
        let tags = all.filter_map(|line| line.strip_prefix('@')?.split_whitespace().next());
        tags.map(str::to_owned).collect()
    }

    /// Returns the description as YAML, its own order, empty fields left out.
    pub fn to_yaml(&self) -> String {
        let json = serde_json::to_value(self).expect("every field can be written");
        to_yaml(&json)
    }

    /// Returns the description as one line of JSON without credentials, for `/etc/apko.json`.
    pub fn to_json(&self) -> String {
        let mut public = self.clone();
        let contents = &mut public.contents;
        let urls = contents.build_repositories.iter_mut();
        let urls = urls.chain(&mut contents.runtime_repositories);
        let urls = urls
            .chain(&mut contents.repositories)
            .chain(&mut contents.keyring);
        for url in urls.chain([&mut public.vcs_url]) {
            *url = without_credentials(url);
        }
        public.x_build.mirrors.clear();
        serde_json::to_string(&public).expect("every field can be written")
    }
}

/// Splits `gzip`, `zstd` or `none` with an optional `:LEVEL`; empty is gzip. `None` if it is
/// neither, or the level does not exist.
pub fn compression_parts(text: &str) -> Option<(&str, Option<u32>)> {
    let (name, level) = match text.split_once(':') {
        Some((name, level)) => (name, Some(level.parse().ok()?)),
        None => (text, None),
    };
    match (name, level) {
        ("" | "gzip", None | Some(1..=9)) => Some(("gzip", level)),
        ("zstd", None | Some(1..=19)) | ("none", None) => Some((name, level)),
        _ => None,
    }
}

/// Reads a time as Go writes it: `30s`, `1m30s`, `500ms`; empty is 0. `None` if it is none.
pub fn nanoseconds(text: &str) -> Option<u64> {
    const UNITS: [(&str, u64); 6] = [
        ("ns", 1),
        ("us", 1_000),
        ("ms", 1_000_000),
        ("s", 1_000_000_000),
        ("m", 60_000_000_000),
        ("h", 3_600_000_000_000),
    ];
    let mut total = 0_u64;
    let mut rest = text;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit())?;
        let (number, after) = rest.split_at(digits);
        let end = after
            .find(|c: char| c.is_ascii_digit())
            .unwrap_or(after.len());
        let (unit, after) = after.split_at(end);
        let (_, size) = UNITS.iter().find(|(name, _)| *name == unit)?;
        total = total.checked_add(number.parse::<u64>().ok()?.checked_mul(*size)?)?;
        rest = after;
    }
    Some(total)
}

/// Writes a JSON value as YAML that reads back as the same value.
pub fn to_yaml(json: &serde_json::Value) -> String {
    let mut text = String::new();
    if json.as_object().is_some_and(serde_json::Map::is_empty) {
        return "{}\n".to_owned();
    }
    let node = to_node(json);
    let mut emitter = saphyr::YamlEmitter::new(&mut text);
    emitter.multiline(true);
    emitter.dump(&node).expect("writing to a string succeeds");
    let mut text = text.strip_prefix("---\n").unwrap_or(&text).to_owned();
    if !text.ends_with('\n') {
        let _ = writeln!(text);
    }
    text
}

fn to_node(json: &serde_json::Value) -> saphyr::Yaml<'static> {
    use saphyr::{Scalar, Yaml};
    use serde_json::Value;
    match json {
        Value::Null => Yaml::Value(Scalar::Null),
        Value::Bool(flag) => Yaml::Value(Scalar::Boolean(*flag)),
        Value::Number(number) => Yaml::Value(Scalar::Integer(number.as_i64().unwrap_or_default())),
        Value::String(text) => Yaml::Value(Scalar::String(text.clone().into())),
        Value::Array(items) => Yaml::Sequence(items.iter().map(to_node).collect()),
        Value::Object(object) => {
            let key = |key: &String| Yaml::Value(Scalar::String(key.clone().into()));
            Yaml::Mapping(object.iter().map(|(k, v)| (key(k), to_node(v))).collect())
        }
    }
}

// The place of an item travels under a key that no document can have.
const _: () = assert!(PLACE.as_bytes()[0] == 0);

#[cfg(test)]
mod tests;
