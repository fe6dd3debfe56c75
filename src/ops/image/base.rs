//! Images to build on: read from a layout, or brought from a registry first (image.md, 7.6).
//!
//! What is installed in the image counts as installed, at its version: nothing of it moves.

use super::{Error, Workshop, disk};
use crate::config::image::Architecture;
use crate::fetch::registry::{Reference, Registry};
use crate::format::installed;
use crate::image::{self as engine, read};
use crate::ops::publish::PublishError;
use crate::package::{Dependency, InstalledDb, World};
use crate::root::passing;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The largest layer that is brought.
const LARGEST_LAYER: u64 = 16 << 30;

impl Workshop<'_> {
    /// Reads the image that the description builds on, if there is one, for every architecture.
    ///
    /// # Errors
    /// [`Error::Unreadable`] for an image that cannot be built on, or why it cannot be brought.
    pub(super) fn read_bases(&mut self) -> Result<(), Error> {
        let Some(described) = self.loaded.config.contents.baseimage.clone() else {
            return Ok(());
        };
        for architecture in self.architectures()? {
            if self.bases.contains_key(&architecture.apk) {
                continue;
            }
            let layout = match described.image.contains('@') {
                true => self.pulled(&described.image, &architecture)?,
                false => self.find(&described.image),
            };
            let base = self.read_base(&layout, &described.apkindex, &architecture)?;
            self.bases.insert(architecture.apk, base);
        }
        Ok(())
    }

    fn read_base(
        &self,
        layout: &Path,
        apkindex: &str,
        architecture: &Architecture,
    ) -> Result<engine::BaseImage, Error> {
        let unreadable = |cause: String| Error::Unreadable {
            image: layout.display().to_string(),
            cause,
        };
        let images = read::read(layout).map_err(|error| unreadable(error.to_string()))?;
        let has: Vec<String> = images.iter().map(|image| image.platform.clone()).collect();
        let image = images
            .into_iter()
            .find(|image| image.platform == architecture.oci);
        let mut image = image.ok_or_else(|| {
            let (wanted, has) = (&architecture.oci, has.join(", "));
            unreadable(format!("it has no image for {wanted}; it has: {has}"))
        })?;
        if image.layers.iter().any(|layer| layer.media_type.is_empty()) {
            let cause = "it is a docker archive; an OCI layout is needed";
            return Err(unreadable(cause.to_owned()));
        }
        if !apkindex.is_empty() {
            let path = self.find(apkindex).join(&architecture.apk).join("APKINDEX");
            let mut text = std::fs::read(&path).map_err(|error| disk("read", &path, &error))?;
            // A database whose last line has no end was cut off; a file from people was not.
            text.push(b'\n');
            let stated = installed::parse(&text, true).map_err(|error| Error::Unreadable {
                image: path.display().to_string(),
                cause: error.to_string(),
            })?;
            let found = std::mem::take(&mut image.installed);
            image.installed = agreed(found, stated).map_err(|name| Error::Unreadable {
                image: path.display().to_string(),
                cause: format!("it is not of {}: {name} differs", layout.display()),
            })?;
        }
        Ok(engine::BaseImage {
            layout: layout.to_owned(),
            image: Arc::new(image),
        })
    }

    /// Brings the image of one architecture from a registry; returns the layout it is in.
    fn pulled(&self, text: &str, architecture: &Architecture) -> Result<PathBuf, Error> {
        let (reference, digest) =
            Reference::parse_with_digest(text).map_err(|error| Error::Usage {
                message: format!("contents.baseimage.image: {error}"),
            })?;
        let hex = digest.trim_start_matches("sha256:");
        let layout = self.cache_path().join("images/bases").join(hex);
        let layout = layout.join(&architecture.apk);
        // It is written last, and says that everything is there.
        let entry = layout.join("index.json");
        if entry.is_file() {
            return Ok(layout);
        }
        if !self.settings().network {
            return Err(self.offline_miss(vec![text.to_owned()]));
        }
        let wrong = |cause: &str| Error::Unreadable {
            image: text.to_owned(),
            cause: cause.to_owned(),
        };
        let registry = Registry::reader(&reference, &self.options.credentials, false);
        let registry = registry.map_err(PublishError::Registry)?;
        let manifest = |digest: &str| -> Result<(Vec<u8>, Value), Error> {
            let bytes = registry
                .pull_manifest(digest)
                .map_err(PublishError::Registry)?;
            let value = serde_json::from_slice(&bytes);
            let value = value.map_err(|_| wrong("its manifest is no JSON"))?;
            Ok((bytes, value))
        };
        let (mut bytes, mut value) = manifest(&digest)?;
        let mut name = digest.clone();
        if let Some(list) = value["manifests"].as_array() {
            let fits = |entry: &&Value| platform(&entry["platform"]) == architecture.oci;
            let found = list
                .iter()
                .find(fits)
                .and_then(|entry| entry["digest"].as_str());
            let found = found.ok_or_else(|| wrong("it has no image for this architecture"))?;
            name = found.to_owned();
            (bytes, value) = manifest(&name)?;
        }
        let blobs = layout.join("blobs/sha256");
        std::fs::create_dir_all(&blobs).map_err(|error| disk("create", &blobs, &error))?;
        let layers = value["layers"]
            .as_array()
            .ok_or_else(|| wrong("it has no layers"))?;
        for blob in [&value["config"]].into_iter().chain(layers) {
            let digest = blob["digest"].as_str().unwrap_or_default();
            let size = blob["size"].as_u64().unwrap_or(0);
            let hex = digest.strip_prefix("sha256:").unwrap_or_default();
            let plain = hex.len() == 64 && hex.bytes().all(|byte| byte.is_ascii_hexdigit());
            if !plain || size > LARGEST_LAYER {
                return Err(wrong("its manifest names something that cannot be read"));
            }
            let failed = |error: &std::io::Error| disk("write", &blobs, error);
            let make = || tempfile::NamedTempFile::new_in(&blobs);
            let made = passing::noted(make, tempfile::NamedTempFile::path);
            let mut file = made.map_err(|e| failed(&e))?;
            let pulled = registry.pull_blob(digest, size, &mut file);
            pulled.map_err(PublishError::Registry)?;
            file.persist(blobs.join(hex))
                .map_err(|error| failed(&error.error))?;
        }
        let index = json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.index.v1+json",
            "manifests": [{
                "mediaType": value["mediaType"], "digest": name, "size": bytes.len(),
            }],
        });
        let name = name.trim_start_matches("sha256:").to_owned();
        for (path, content) in [
            (blobs.join(name), bytes),
            (
                layout.join("oci-layout"),
                br#"{"imageLayoutVersion":"1.0.0"}"#.to_vec(),
            ),
            (entry, index.to_string().into_bytes()),
        ] {
            let stored = crate::fetch::cache::store(&path, &content);
            stored.map_err(|error| disk("write", &path, &error))?;
        }
        Ok(layout)
    }

    /// Returns the world to choose for: with an image to build on, that has every package of it at
    /// its version, too (image.md, 4.2).
    pub(super) fn pinned_world(&self, architecture: &Architecture, world: &World) -> World {
        let mut pinned = world.clone();
        if let Some(base) = self.bases.get(&architecture.apk) {
            for one in &base.image.installed.packages {
                let (name, version) = (&one.package.name, &one.package.version);
                pinned.entries.push(Dependency::exact(name, version));
            }
        }
        pinned
    }

    /// Returns what the image's world says: what was asked for here, and in the image below.
    pub(super) fn image_world(&self, architecture: &Architecture, world: &World) -> World {
        let mut all = world.clone();
        let base = self.bases.get(&architecture.apk);
        let text = base.and_then(|base| base.image.kept.get("etc/apk/world"));
        let text = text.map(|text| String::from_utf8_lossy(text).into_owned());
        if let Some(below) = text.and_then(|text| World::parse(&text).ok()) {
            let known: BTreeSet<&str> = world.entries.iter().map(|one| one.name.as_str()).collect();
            let more = below.entries.into_iter();
            all.entries
                .extend(more.filter(|one| !known.contains(one.name.as_str())));
        }
        all.sort();
        all
    }
}

/// Returns a platform as OCI spells it, with the variant where that matters.
fn platform(value: &Value) -> String {
    let architecture = value["architecture"].as_str().unwrap_or_default();
    match (architecture, value["variant"].as_str()) {
        ("arm", Some(variant)) => format!("arm/{variant}"),
        (architecture, _) => architecture.to_owned(),
    }
}

/// Returns what is installed, by the image or else as stated; or the name of what differs.
fn agreed(found: InstalledDb, stated: InstalledDb) -> Result<InstalledDb, String> {
    if found.packages.is_empty() {
        return Ok(stated);
    }
    let list = |db: &InstalledDb| -> BTreeSet<String> {
        let packages = db.packages.iter().map(|one| &one.package);
        packages
            .map(|one| format!("{}-{}", one.name, one.version))
            .collect()
    };
    match list(&found).symmetric_difference(&list(&stated)).next() {
        Some(name) => Err(name.clone()),
        None => Ok(found),
    }
}
