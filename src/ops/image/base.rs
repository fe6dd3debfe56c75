//! Images to build on: read from a layout, or brought from a registry first (image.md, 7.6).
//!
//! What is installed in the image counts as installed, at its version: nothing of it moves. What came
//! from a registry is kept in the cache by digest, so that it is fetched once, whichever descriptions
//! build on it, and is there with `--offline`.

use super::{Error, Workshop, disk};
use crate::config::image::Architecture;
use crate::fetch::registry::{Reference, Registry};
use crate::format::installed;
use crate::image::store::{copy_verified, sha256_hex, touch};
use crate::image::{self as engine, read};
use crate::ops::publish::PublishError;
use crate::package::{Dependency, InstalledDb, World};
use crate::root::passing;
use serde_json::Value;
use std::cell::OnceCell;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// The largest layer that is brought.
const LARGEST_LAYER: u64 = 16 << 30;

/// Where in the cache is what came from registries.
pub(super) const FOLDER: &str = "bases";

impl Workshop<'_> {
    /// Reads the image that the description builds on, if there is one, for some architectures.
    ///
    /// # Errors
    /// [`Error::Unreadable`] for an image that cannot be built on, or why it cannot be brought.
    pub(super) fn read_bases(&mut self, architectures: &[Architecture]) -> Result<(), Error> {
        let Some(described) = self.loaded.config.contents.baseimage.clone() else {
            return Ok(());
        };
        for architecture in architectures {
            if self.bases.contains_key(&architecture.apk) {
                continue;
            }
            let base = match described.image.contains('@') {
                true => self.pulled(&described.image, architecture)?,
                false => self.found(&self.find(&described.image), architecture)?,
            };
            let base = self.stated(base, &described.apkindex, architecture)?;
            self.bases.insert(architecture.apk.clone(), base);
        }
        Ok(())
    }

    /// Reads the image of one architecture that is in a layout.
    fn found(
        &self,
        layout: &Path,
        architecture: &Architecture,
    ) -> Result<engine::BaseImage, Error> {
        let unreadable = |cause: String| Error::Unreadable {
            image: layout.display().to_string(),
            cause,
        };
        let images = read::outlines(layout).map_err(|error| unreadable(error.to_string()))?;
        let has: BTreeSet<String> = images.iter().map(|image| image.platform.clone()).collect();
        let image = images
            .into_iter()
            .find(|image| is_for(&image.platform, architecture));
        let image = image.ok_or_else(|| {
            let has = has.into_iter().collect::<Vec<_>>().join(", ");
            let wanted = &architecture.oci;
            unreadable(format!("it has no image for {wanted}; it has: {has}"))
        })?;
        let store = self.base_store()?;
        let base = engine::BaseImage::read(layout, image, &store);
        base.map_err(|error| unreadable(error.to_string()))
    }

    /// Where uncompressed layers are kept; it stays as long as the workshop does.
    fn base_store(&self) -> Result<engine::Store, Error> {
        Ok(engine::Store::open(&self.cache_path().join("images"))?)
    }

    /// Takes what a description says is installed in an image that has no database, or compares.
    fn stated(
        &self,
        mut base: engine::BaseImage,
        apkindex: &str,
        architecture: &Architecture,
    ) -> Result<engine::BaseImage, Error> {
        if !apkindex.is_empty() {
            let path = self.find(apkindex).join(&architecture.apk).join("APKINDEX");
            let mut text = std::fs::read(&path).map_err(|error| disk("read", &path, &error))?;
            // A database whose last line has no end was cut off; a file from people was not.
            text.push(b'\n');
            let unreadable = |cause: String| Error::Unreadable {
                image: path.display().to_string(),
                cause,
            };
            let stated =
                installed::parse(&text, true).map_err(|error| unreadable(error.to_string()))?;
            let found = std::mem::take(&mut base.installed);
            base.installed = agreed(found, stated).map_err(|name| {
                unreadable(format!(
                    "it is not of {}: {name} differs",
                    base.layout.display()
                ))
            })?;
        }
        Ok(base)
    }

    /// Reads the image of one architecture from the cache, after what is missing there was brought
    /// from its registry.
    fn pulled(&self, text: &str, architecture: &Architecture) -> Result<engine::BaseImage, Error> {
        let (reference, digest) =
            Reference::parse_with_digest(text).map_err(|error| Error::Usage {
                message: format!("contents.baseimage.image: {error}"),
            })?;
        let shelf = Shelf {
            workshop: self,
            text,
            reference,
            folder: self.cache_path().join(FOLDER),
            registry: OnceCell::new(),
        };
        let mut name = digest;
        let mut manifest = shelf.document(&name)?;
        if let Some(list) = manifest["manifests"].as_array() {
            let fits = |entry: &&Value| platform(&entry["platform"]) == architecture.oci;
            let found = list
                .iter()
                .find(fits)
                .and_then(|entry| entry["digest"].as_str());
            let missing = || shelf.wrong("it has no image for this architecture");
            name = found.ok_or_else(missing)?.to_owned();
            manifest = shelf.document(&name)?;
        }
        let layers = manifest["layers"].as_array();
        let layers = layers.ok_or_else(|| shelf.wrong("it has no layers"))?;
        for blob in [&manifest["config"]].into_iter().chain(layers) {
            let digest = blob["digest"].as_str().unwrap_or_default();
            shelf.blob(digest, blob["size"].as_u64().unwrap_or(0))?;
        }
        let outline = read::outline(&shelf.folder, &name);
        let outline = outline.map_err(|error| shelf.wrong(&error.to_string()))?;
        if !is_for(&outline.platform, architecture) {
            let (wanted, has) = (&architecture.oci, &outline.platform);
            return Err(shelf.wrong(&format!("it has no image for {wanted}; it has: {has}")));
        }
        let base = engine::BaseImage::read(&shelf.folder, outline, &self.base_store()?);
        base.map_err(|error| shelf.wrong(&error.to_string()))
    }

    /// Returns the world to choose for: with an image to build on, that has every package of it at
    /// its version, too (image.md, 4.2).
    pub(super) fn pinned_world(&self, architecture: &Architecture, world: &World) -> World {
        let mut pinned = world.clone();
        if let Some(base) = self.bases.get(&architecture.apk) {
            for one in &base.installed.packages {
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
        let text = base.and_then(|base| base.file("etc/apk/world"));
        let text = text.map(|text| String::from_utf8_lossy(&text).into_owned());
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

/// What is kept of registries: `blobs/sha256/HEX`, manifests and indexes among them.
///
/// Everything there is checked against its name before it is used; what is damaged is brought again.
struct Shelf<'a> {
    workshop: &'a Workshop<'a>,
    /// The image as the description names it.
    text: &'a str,
    reference: Reference,
    folder: PathBuf,
    registry: OnceCell<Registry>,
}

impl Shelf<'_> {
    fn wrong(&self, cause: &str) -> Error {
        Error::Unreadable {
            image: self.text.to_owned(),
            cause: cause.to_owned(),
        }
    }

    /// Returns where a blob is or would be, and its digest in hexadecimal.
    fn place<'d>(&self, digest: &'d str) -> Result<(PathBuf, &'d str), Error> {
        let hex = digest.strip_prefix("sha256:").unwrap_or_default();
        let plain = hex.len() == 64 && hex.bytes().all(|byte| byte.is_ascii_hexdigit());
        match plain {
            true => Ok((self.folder.join("blobs/sha256").join(hex), hex)),
            false => Err(self.wrong("its manifest names something that cannot be read")),
        }
    }

    fn registry(&self) -> Result<&Registry, Error> {
        if let Some(registry) = self.registry.get() {
            return Ok(registry);
        }
        if !self.workshop.settings().network {
            return Err(self.workshop.offline_miss(vec![self.text.to_owned()]));
        }
        let credentials = &self.workshop.options.credentials;
        let registry = Registry::reader(&self.reference, credentials, false);
        let registry = registry.map_err(PublishError::Registry)?;
        Ok(self.registry.get_or_init(|| registry))
    }

    /// Returns a manifest or an index.
    fn document(&self, digest: &str) -> Result<Value, Error> {
        let (path, hex) = self.place(digest)?;
        let known = std::fs::read(&path).ok();
        let bytes = match known.filter(|bytes| sha256_hex(bytes) == hex) {
            Some(bytes) => {
                touch(&path);
                bytes
            }
            None => {
                let bytes = self.registry()?.pull_manifest(digest);
                let bytes = bytes.map_err(PublishError::Registry)?;
                let stored = crate::fetch::cache::store(&path, &bytes);
                stored.map_err(|error| disk("write", &path, &error))?;
                bytes
            }
        };
        serde_json::from_slice(&bytes).map_err(|_| self.wrong("its manifest is no JSON"))
    }

    /// Brings a configuration or a layer, if it is not there.
    fn blob(&self, digest: &str, size: u64) -> Result<(), Error> {
        let (path, hex) = self.place(digest)?;
        if copy_verified(&path, &mut std::io::sink(), hex).unwrap_or(false) {
            touch(&path);
            return Ok(());
        }
        if size > LARGEST_LAYER {
            return Err(self.wrong("its manifest names something that cannot be read"));
        }
        let registry = self.registry()?;
        let folder = path.parent().unwrap_or(&self.folder);
        let failed = |error: &std::io::Error| disk("write", folder, error);
        std::fs::create_dir_all(folder).map_err(|error| disk("create", folder, &error))?;
        let make = || tempfile::Builder::new().prefix(".new.").tempfile_in(folder);
        let made = passing::noted(make, tempfile::NamedTempFile::path);
        let mut file = made.map_err(|error| failed(&error))?;
        let pulled = registry.pull_blob(digest, size, &mut file);
        pulled.map_err(PublishError::Registry)?;
        let kept = file.persist(&path);
        kept.map(drop).map_err(|error| failed(&error.error))
    }
}

/// Returns whether a platform is an architecture; only those of `arm` differ by variant, but others
/// may have one, as `arm64/v8`.
fn is_for(platform: &str, architecture: &Architecture) -> bool {
    let without = platform.split('/').next();
    platform == architecture.oci || without == Some(&architecture.oci)
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
