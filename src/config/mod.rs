//! Where everything is: what options, files and environment say, resolved once.
//!
//! The command line fills [`Settings`]; nothing here parses options or prints.

pub mod image;
pub mod keys;
pub mod mirrors;
pub mod repositories;
pub mod transport;

pub use mirrors::Mirrors;
pub use repositories::{Repository, RepositoryKind, RepositorySources};
pub use transport::{HostCredentials, Transport};

use crate::format::Limits;
use crate::root::{Root, RootError};
use std::path::PathBuf;

/// The architecture this program was built for, in Alpine's words.
pub const ARCH: &str = match std::env::consts::ARCH.as_bytes() {
    b"x86" => "x86",
    b"arm" => "armv7",
    b"powerpc64" => "ppc64le",
    _ => std::env::consts::ARCH,
};

/// Everything that global options decide.
#[derive(Clone, Debug)]
pub struct Settings {
    /// `--root`.
    pub root: PathBuf,
    /// `--root` was given.
    pub root_given: bool,
    /// `--arch`, in order.
    pub arch: Vec<String>,
    /// `--keys-dir`.
    pub keys_dir: Option<PathBuf>,
    /// Where repositories are declared, the root's files aside.
    pub sources: RepositorySources,
    /// `--allow-untrusted`.
    pub allow_untrusted: bool,
    /// `--no-network` makes it false.
    pub network: bool,
    /// `--no-cache` makes it false.
    pub cache: bool,
    /// `--cache-dir`.
    pub cache_dir: Option<PathBuf>,
    /// `--cache-packages`, if given.
    pub cache_packages: Option<bool>,
    /// `--cache-max-age` in minutes.
    pub cache_max_age: u64,
    /// `--force-refresh`.
    pub force_refresh: bool,
    /// `--force-index-rollback`.
    pub force_index_rollback: bool,
    /// Bounds on what is read, with what `--limits` says.
    pub limits: Limits,
    /// `--check-certificate`.
    pub check_certificate: bool,
    /// `--timeout` in seconds.
    pub timeout: u64,
    /// Proxies, credentials and certificates.
    pub transport: Transport,
    /// `--root-tmpfs`: yes, no, or found out.
    pub root_tmpfs: Option<bool>,
    /// Bytes that the store of packages may grow to.
    pub store_limit: u64,
    /// Where ibex keeps what it may lose: parsed indexes, packages.
    pub catalogue_dir: Option<PathBuf>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            root: "/".into(),
            root_given: false,
            arch: Vec::new(),
            keys_dir: None,
            sources: RepositorySources::default(),
            allow_untrusted: false,
            network: true,
            cache: true,
            cache_dir: None,
            cache_packages: None,
            cache_max_age: 240,
            force_refresh: false,
            force_index_rollback: false,
            limits: Limits::default(),
            check_certificate: true,
            timeout: 60,
            transport: Transport::default(),
            root_tmpfs: None,
            store_limit: 10 << 30,
            catalogue_dir: None,
        }
    }
}

/// The architectures of a root.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Architectures {
    /// The first is the one of index paths.
    pub list: Vec<String>,
    /// `etc/apk/arch` must be written.
    pub write: bool,
}

impl Settings {
    /// Decides on the architectures: `--arch` with another root, `etc/apk/arch`, or our own.
    ///
    /// `always` honours `--arch` even for the running system (queries and `update`).
    ///
    /// # Errors
    /// [`RootError`].
    pub fn architectures(&self, root: &Root, always: bool) -> Result<Architectures, RootError> {
        if !self.arch.is_empty() && (self.root_given && !root.is_system() || always) {
            return Ok(Architectures {
                list: self.arch.clone(),
                write: self.root_given,
            });
        }
        let text = root.read("etc/apk/arch")?;
        let text = text.as_deref().map(String::from_utf8_lossy);
        let lines = text.iter().flat_map(|text| text.lines()).map(str::trim);
        let list: Vec<String> = lines.filter(|l| !l.is_empty()).map(str::to_owned).collect();
        if list.is_empty() {
            return Ok(Architectures {
                list: vec![ARCH.to_owned()],
                write: true,
            });
        }
        Ok(Architectures { list, write: false })
    }

    /// Returns whether the root counts as a file system in memory.
    pub fn is_tmpfs(&self, root: &Root) -> bool {
        self.root_tmpfs.unwrap_or_else(|| root.is_tmpfs())
    }
}

/// Where indexes and packages of a root are kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CacheDirectory {
    /// Its path on this machine.
    pub path: PathBuf,
    /// Packages are kept, too; else only indexes.
    pub packages: bool,
}

impl Settings {
    /// Finds the cache directory (formats.md, 11.5); `None` with `--no-cache`.
    ///
    /// # Errors
    /// [`RootError`] if `--cache-dir` is missing.
    pub fn cache_directory(&self, root: &Root) -> Result<Option<CacheDirectory>, RootError> {
        if !self.cache {
            return Ok(None);
        }
        if let Some(directory) = &self.cache_dir {
            let path = root.path().join(directory);
            return match std::fs::metadata(&path) {
                Ok(_) => Ok(Some(CacheDirectory {
                    path,
                    packages: self.cache_packages.unwrap_or(true),
                })),
                Err(error) => Err(RootError::new("open", &path.display().to_string(), error)),
            };
        }
        if let Ok(directory) = root.directory("etc/apk/cache") {
            let path = real_path(root, &directory, "etc/apk/cache");
            let packages = self.cache_packages.unwrap_or(true);
            return Ok(Some(CacheDirectory { path, packages }));
        }
        let path = root.path().join("var/cache/apk");
        Ok(Some(CacheDirectory {
            path,
            packages: self.cache_packages.unwrap_or(false),
        }))
    }
}

/// Returns where an open directory really is, so that a link of the root is not followed outside.
fn real_path(root: &Root, directory: &crate::root::Directory, plain: &str) -> PathBuf {
    use std::os::fd::AsRawFd;
    let link = directory
        .fd()
        .map(|fd| format!("/proc/self/fd/{}", fd.as_raw_fd()));
    link.and_then(|link| std::fs::read_link(link).ok())
        .unwrap_or_else(|| root.path().join(plain))
}
