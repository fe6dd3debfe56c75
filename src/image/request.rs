//! What an image is made from: values only, everything resolved and read.

use crate::format::Limits;
use crate::package::World;
use crate::plan::NewPackage;
use std::collections::BTreeMap;
use std::path::PathBuf;

/// How package scripts are treated (image.md, 6.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ScriptMode {
    /// Nothing is done.
    Skip,
    /// busybox links, `ld.so.cache` and certificates.
    Builtin,
    /// Recognised scripts are carried out without running them.
    #[default]
    Emulate,
    /// Scripts run in a sandbox; those that can be emulated are.
    Run,
}

/// How the bytes of a layer are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Compression {
    /// gzip with a deflate level from 1 to 9.
    Gzip(u32),
    /// Zstandard with a level from 1 to 19.
    Zstd(i32),
    /// A plain tar archive.
    None,
}

impl Default for Compression {
    fn default() -> Self {
        Self::Gzip(6)
    }
}

/// How packages are spread over layers (image.md, chapter 7).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Layering {
    /// Everything in one.
    #[default]
    One,
    /// Packages grouped by origin, at most `budget` layers, and one for the rest.
    Origin {
        /// Package layers at most.
        budget: usize,
    },
}

/// Where the package database is (image.md, 5.3).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum DatabasePlace {
    /// `usr/lib/apk/db` if `/lib` is a link there, else `lib/apk/db`.
    #[default]
    Auto,
    /// `lib/apk/db`.
    Lib,
    /// `usr/lib/apk/db`, with a link from `lib/apk`.
    Usr,
    /// No database, world, keys or repositories in the image.
    None,
}

/// A name with content: a key, a certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamedContent {
    /// A plain file name.
    pub name: String,
    /// The file.
    pub content: Vec<u8>,
}

/// A certificate to trust.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificate {
    /// A plain name.
    pub name: String,
    /// One PEM certificate.
    pub pem: String,
}

/// A group to have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// Its name.
    pub name: String,
    /// Its number.
    pub gid: u32,
    /// Names of users.
    pub members: Vec<String>,
}

/// A user to have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    /// Its name.
    pub name: String,
    /// Its number.
    pub uid: u32,
    /// The number of its group.
    pub gid: u32,
    /// What logs in.
    pub shell: String,
    /// Its home.
    pub home: String,
}

/// What a path mutation does (image.md, 3.7).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PathKind {
    /// Makes the directory and its parents.
    Directory,
    /// Creates the file, or empties it.
    EmptyFile,
    /// Another name for the file `source`.
    HardLink {
        /// An existing regular file.
        source: String,
    },
    /// A link with the text `source`.
    Symlink {
        /// The text.
        source: String,
    },
    /// Changes mode and owner of what is there.
    Permissions,
}

/// A change to one path, in the order of the configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PathMutation {
    /// Relative to the image's root, without slashes at either end.
    pub path: String,
    /// What is done.
    pub kind: PathKind,
    /// The mode, if one is given.
    pub mode: Option<u32>,
    /// The owner, if one is given.
    pub uid: Option<u32>,
    /// The group, if one is given.
    pub gid: Option<u32>,
    /// Everything below, too.
    pub recursive: bool,
    /// Where it was asked for, such as `paths[3] (line 41)`; errors begin with it.
    pub place: String,
}

/// Where the content of an added file is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FileSource {
    /// In this request.
    Inline(Vec<u8>),
    /// In a file, or the files of a directory.
    Local(PathBuf),
}

/// A file of the user's own (`x-build.files`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileToAdd {
    /// Relative to the image's root.
    pub path: String,
    /// Its content.
    pub source: FileSource,
    /// Its mode; 0644 if absent.
    pub mode: Option<u32>,
    /// Its owner.
    pub uid: u32,
    /// Its group.
    pub gid: u32,
    /// Where it was asked for; errors begin with it.
    pub place: String,
}

/// What a number is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum AccountKind {
    /// A user.
    User,
    /// A group.
    Group,
}

/// The number of an account whose script asks for none in particular.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ChosenId {
    /// Of what.
    pub kind: AccountKind,
    /// Its name.
    pub name: String,
    /// The number.
    pub id: u32,
}

/// A supervised service of a service bundle.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// `/sv/NAME/run`.
    pub name: String,
    /// The command.
    pub command: String,
}

/// How a container is found to be well.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HealthCheck {
    /// `["CMD", …]` or `["CMD-SHELL", …]`.
    pub test: Vec<String>,
    /// Nanoseconds; 0 is the engine's own.
    pub interval: u64,
    /// Nanoseconds.
    pub timeout: u64,
    /// Nanoseconds.
    pub start_period: u64,
    /// Failures in a row.
    pub retries: u32,
}

/// What the image says to who runs it (image.md, 9.4).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ContainerConfig {
    /// OCI `Entrypoint`.
    pub entrypoint: Vec<String>,
    /// OCI `Cmd`.
    pub cmd: Vec<String>,
    /// OCI `WorkingDir`.
    pub working_directory: Option<String>,
    /// `run-as`: a name, a number or `user:group`; a name the image knows becomes its number.
    pub run_as: Option<String>,
    /// OCI `StopSignal`.
    pub stop_signal: Option<String>,
    /// OCI `Volumes`.
    pub volumes: Vec<String>,
    /// OCI `ExposedPorts`.
    pub exposed_ports: Vec<String>,
    /// The environment; `PATH` and `SSL_CERT_FILE` are added when absent.
    pub environment: BTreeMap<String, String>,
    /// Annotations of manifest and index, and labels of the configuration; what is computed from
    /// the version control is among them. `org.opencontainers.image.created` is added.
    pub annotations: BTreeMap<String, String>,
    /// Labels that are no annotations.
    pub labels: BTreeMap<String, String>,
    /// OCI `Healthcheck`, which Docker reads.
    pub health_check: Option<HealthCheck>,
    /// Who made it.
    pub author: String,
    /// What `created_by` says in the history.
    pub created_by: String,
}

/// Everything that decides what an image of one architecture is.
#[derive(Clone, Debug)]
pub struct BuildRequest {
    /// apk's name of the architecture.
    pub architecture: String,
    /// The image that this one is built on; then everything but packages, world, repositories and
    /// keys is as it is there.
    pub base: Option<super::BaseImage>,
    /// What is installed, dependencies first; each [`NewPackage::source`] that has data is a local
    /// file.
    pub packages: Vec<NewPackage>,
    /// What the image's `etc/apk/world` says.
    pub world: World,
    /// Lines of the image's `etc/apk/repositories`, without credentials.
    pub repositories: Vec<String>,
    /// Files of the image's `etc/apk/keys`.
    pub keys: Vec<NamedContent>,
    /// Keys written after the packages; a name that is there already is an error.
    pub runtime_keys: Vec<NamedContent>,
    /// Groups to have.
    pub groups: Vec<Group>,
    /// Users to have.
    pub users: Vec<Account>,
    /// `/etc/apko.json`, if it shall be there: one line.
    pub configuration_json: Option<String>,
    /// Fields of `/etc/os-release`, which is written where no package brings it.
    pub os_release: BTreeMap<String, String>,
    /// Changes of paths.
    pub paths: Vec<PathMutation>,
    /// Files of the user's own.
    pub files: Vec<FileToAdd>,
    /// Certificates to trust.
    pub certificates: Vec<Certificate>,
    /// Names whose providers' certificates are trusted.
    pub certificate_providers: Vec<String>,
    /// Services of a service bundle.
    pub services: Vec<Service>,
    /// Patterns of paths that are left out.
    pub remove: Vec<String>,
    /// Where the database is.
    pub database: DatabasePlace,
    /// Numbers that accounts of scripts had before, and get again where that is possible.
    pub ids: Vec<ChosenId>,
    /// How scripts are treated.
    pub scripts: ScriptMode,
    /// Scripts of a processor that this machine does not have are an error, not left out.
    pub scripts_must_run: bool,
    /// Scripts that run do so twice; making something else the second time is an error.
    pub check_scripts: bool,
    /// A script that fails is no error.
    pub scripts_warn: bool,
    /// Scripts that cannot be run are errors.
    pub fail_on_skipped_script: bool,
    /// Layers.
    pub layering: Layering,
    /// How they are stored.
    pub compression: Compression,
    /// Seconds since 1970 (image.md, 8.6): `SOURCE_DATE_EPOCH`, else the greatest of `--build-date`
    /// and the packages' build dates.
    pub build_time: u64,
    /// Lower the times of newer package files to the build time.
    pub clamp_mtime: bool,
    /// What the image says to who runs it.
    pub config: ContainerConfig,
    /// Bounds on what packages may make us read.
    pub limits: Limits,
}
