//! `image install-keys`, and the keys that a build finds by itself: those that repositories publish.

use super::discovery::{self, FoundKey};
use super::resolve::BuildKey;
use super::{Error, Options, Workshop, disk};
use crate::config::image::{Architecture, without_credentials};
use crate::config::repositories::is_local;
use crate::fetch::HttpError;
use crate::fetch::package::FileRequest;
use crate::progress::Sink;
use crate::root::Root;
use sha2::{Digest, Sha256};
use std::path::{Path, PathBuf};

/// Where the keys of a root are.
const KEYS: &str = "etc/apk/keys";

/// A key that a repository publishes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InstalledKey {
    /// Its file name.
    pub name: String,
    /// Where it was found.
    pub url: String,
    /// It was not there before.
    pub new: bool,
}

/// Finds the keys of a root's repositories and puts those it does not have among its keys.
///
/// # Errors
/// [`enum@Error`]; a key with a known name and another content is [`Error::Keyring`], and nothing is
/// written then.
pub fn install_keys(
    root: &Path,
    architecture: Option<&str>,
    options: &Options,
    sink: &mut dyn Sink,
) -> Result<Vec<InstalledKey>, Error> {
    let workshop = Workshop::open(options)?;
    let at = Root::open(root).map_err(|error| disk("open", root, &error.source))?;
    let failed =
        |error: crate::root::RootError| disk("use", &root.join(&error.path), &error.source);
    let text = |name: &str| -> Result<String, Error> {
        let bytes = at.read(name).map_err(failed)?.unwrap_or_default();
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    };
    let architecture = match architecture {
        Some(name) => Architecture::parse(name),
        None => match text("etc/apk/arch")?.lines().next().map(str::trim) {
            Some(name) if !name.is_empty() => Architecture::parse(name),
            _ => Architecture::host(),
        },
    };
    let mut found: Vec<FoundKey> = Vec::new();
    for line in text("etc/apk/repositories")?.lines() {
        let url = line.trim().rsplit(' ').next().unwrap_or_default();
        if line.trim().starts_with('#') || url.is_empty() || is_local(url) {
            continue;
        }
        let keys = workshop.published_keys(url, &architecture)?;
        if keys.is_empty() {
            let shown = crate::config::image::without_credentials(url);
            sink.warning(&format!("W-NO-KEYS: {shown} publishes no keys"));
        }
        for key in keys {
            if !found.iter().any(|known| known.name == key.name) {
                found.push(key);
            }
        }
    }
    let mut done = Vec::new();
    for key in &found {
        let known = at.read(&format!("{KEYS}/{}", key.name)).map_err(failed)?;
        if known.as_ref().is_some_and(|known| *known != key.pem) {
            return Err(Error::Keyring {
                message: format!("{KEYS}/{} is there with another content", key.name),
            });
        }
        done.push(InstalledKey {
            name: key.name.clone(),
            url: key.url.clone(),
            new: known.is_none(),
        });
    }
    for (key, _) in found.iter().zip(&done).filter(|(_, done)| done.new) {
        at.create_directories(KEYS).map_err(failed)?;
        let path = format!("{KEYS}/{}", key.name);
        at.replace(&path, &key.pem, 0o644, true).map_err(failed)?;
    }
    Ok(done)
}

/// Why a copy could not even be asked for.
pub(super) enum CopyError {
    /// Its folder in the cache cannot be made.
    Disk(PathBuf, std::io::Error),
    /// There is no way to the network.
    Fetch(HttpError),
}

impl From<FoundKey> for BuildKey {
    fn from(key: FoundKey) -> Self {
        Self {
            entry: key.url,
            name: key.name,
            pem: key.pem,
        }
    }
}

impl Workshop<'_> {
    /// Returns the keys that are published for a repository.
    pub(super) fn published_keys(
        &self,
        repository: &str,
        architecture: &Architecture,
    ) -> Result<Vec<FoundKey>, Error> {
        let today = jiff::Timestamp::now().strftime("%Y-%m-%d").to_string();
        let get = |url: &str| self.published(url);
        let keys = discovery::keys(repository, &architecture.apk, &today, &get);
        keys.map_err(|cause| Error::Keyring {
            message: format!("keys cannot be looked for: {cause}"),
        })
    }

    /// Gets a file that a server may have; with no network, the copy of an earlier time.
    fn published(&self, url: &str) -> Result<Option<Vec<u8>>, String> {
        let (copy, answer) = self.renew_copy(url).map_err(|error| match error {
            CopyError::Disk(_, error) => crate::root::cause(&error),
            CopyError::Fetch(error) => format!("{}: {error}", without_credentials(url)),
        })?;
        match answer {
            Some(error) if error.is_missing() => Ok(None),
            Some(error) => Err(format!("{}: {error}", without_credentials(url))),
            None => Ok(std::fs::read(&copy).ok()),
        }
    }

    /// Brings the copy of a file in the cache up to date, unless there is no network; returns where
    /// it is, and why it is not newer.
    pub(super) fn renew_copy(&self, url: &str) -> Result<(PathBuf, Option<HttpError>), CopyError> {
        let digest = data_encoding::HEXLOWER.encode(&Sha256::digest(url.as_bytes()));
        let folder = self.cache_path().join("keys");
        let copy = folder.join(digest);
        if !self.settings().network {
            return Ok((copy, None));
        }
        let made = std::fs::create_dir_all(&folder);
        made.map_err(|error| CopyError::Disk(folder, error))?;
        let request = FileRequest {
            urls: self.mirrored(url),
            target: Some(copy.clone()),
            size: 0,
            package: None,
            unpack: false,
            on_disk: None,
        };
        let answers = self.fetch_all(&[request]).map_err(CopyError::Fetch)?;
        Ok((copy, answers.into_iter().next().and_then(Result::err)))
    }

    /// Looks for the keys of a repository whose signature nobody here knows; returns them as keys of
    /// the build. What goes wrong is told, but is not the reason why the index is not trusted.
    pub(super) fn discover(
        &self,
        repository: &str,
        architecture: &Architecture,
        sink: &mut dyn Sink,
    ) -> Vec<BuildKey> {
        let found = match self.published_keys(repository, architecture) {
            Ok(found) => found,
            Err(error) => {
                sink.warning(&format!("W-NO-KEYS: {error}"));
                return Vec::new();
            }
        };
        found.into_iter().map(BuildKey::from).collect()
    }
}
