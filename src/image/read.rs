//! Reading images back: OCI layouts and docker archives that any tool wrote, as rows to compare.
//!
//! Nothing is unpacked. Layers are walked in order, what a later one hides is gone, and every
//! regular file is hashed on the way. Blobs of a layout are checked against their digests. Names
//! and sizes are claims of the archive: nothing is opened or allocated because of them alone.

use super::store::sha256_hex;
use crate::format::installed;
use crate::package::InstalledDb;
use rustix::fs::FileType;
use serde_json::Value;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

/// A manifest, index or configuration is far smaller than this.
const LARGEST_DOCUMENT: u64 = 16 << 20;

/// Indexes may hold indexes, but not without end.
const MOST_NESTED: usize = 4;

/// The longest name of a file in a layer.
const LONGEST_PATH: usize = 4096;

/// Small files that are kept as they are, for who makes a description of an image.
pub const KEPT: [&str; 5] = [
    "etc/apk/arch",
    "etc/apk/repositories",
    "etc/apk/world",
    "etc/group",
    "etc/passwd",
];

/// The folder of keys, which are kept, too.
pub const KEYS: &str = "etc/apk/keys/";

/// A file that is larger than this is not kept.
pub const LARGEST_KEPT: u64 = 1 << 20;

/// Where a package database can be.
pub(super) const DATABASES: [&str; 2] = ["lib/apk/db/installed", "usr/lib/apk/db/installed"];

/// Why an image cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("{cause}")]
pub struct ReadError {
    cause: String,
    mismatch: Option<Box<Mismatch>>,
}

/// A blob that is not what its name says.
#[derive(Clone, Debug)]
pub struct Mismatch {
    /// The digest that it is named by.
    pub expected: String,
    /// The digest that it has.
    pub found: String,
}

impl ReadError {
    pub(super) fn new(cause: impl Into<String>) -> Self {
        Self {
            cause: cause.into(),
            mismatch: None,
        }
    }

    pub(super) fn not_its_name(blob: &str, expected: &str, found: String) -> Self {
        Self {
            cause: format!("{blob} is not what its name says"),
            mismatch: Some(Box::new(Mismatch {
                expected: expected.to_owned(),
                found,
            })),
        }
    }

    /// Returns the blob that was changed, if that is why.
    pub fn mismatch(&self) -> Option<&Mismatch> {
        self.mismatch.as_deref()
    }
}

impl From<io::Error> for ReadError {
    fn from(error: io::Error) -> Self {
        Self::new(crate::root::cause(&error))
    }
}

/// What kind of file a row is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum RowKind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link.
    Symlink,
    /// Another name of a file.
    HardLink,
    /// A device or a FIFO.
    Special,
}

/// One path of an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// What it is.
    pub kind: RowKind,
    /// Twelve mode bits.
    pub mode: u32,
    /// Owner.
    pub uid: u64,
    /// Group.
    pub gid: u64,
    /// Seconds since 1970.
    pub mtime: u64,
    /// Bytes of a regular file.
    pub size: u64,
    /// Text of a link, SHA-256 of a regular file, or the numbers of a device.
    pub content: String,
    /// Extended attributes.
    pub attributes: BTreeMap<String, Vec<u8>>,
}

impl Row {
    /// Returns what differs from another row, in words; empty if nothing does.
    pub fn differences(&self, other: &Self) -> Vec<String> {
        let mut found = Vec::new();
        let mut note = |what: &str, a: String, b: String| {
            if a != b {
                found.push(format!("{what} {a} -> {b}"));
            }
        };
        note(
            "kind",
            format!("{:?}", self.kind),
            format!("{:?}", other.kind),
        );
        note(
            "mode",
            format!("{:04o}", self.mode),
            format!("{:04o}", other.mode),
        );
        let owner = |row: &Self| format!("{}:{}", row.uid, row.gid);
        note("owner", owner(self), owner(other));
        note("size", self.size.to_string(), other.size.to_string());
        note("time", self.mtime.to_string(), other.mtime.to_string());
        let short = |row: &Self| match row.kind {
            RowKind::File => row.content.chars().take(12).collect::<String>(),
            _ => row.content.clone(),
        };
        if self.content != other.content {
            note("content", short(self), short(other));
        }
        if self.attributes != other.attributes {
            found.push("extended attributes".to_owned());
        }
        found
    }
}

/// A layer as it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReadLayer {
    /// `sha256:HEX` of the blob.
    pub digest: String,
    /// Its bytes.
    pub size: u64,
    /// Its media type.
    pub media_type: String,
    /// Paths in the order of the archive.
    pub entries: Vec<(String, Row)>,
}

/// An image of one platform.
#[derive(Clone, Debug)]
pub struct ReadImage {
    /// As OCI spells it, with the variant.
    pub platform: String,
    /// `sha256:HEX` of the manifest; of the configuration in a docker archive.
    pub digest: String,
    /// The configuration.
    pub config: Value,
    /// Annotations of the manifest.
    pub annotations: BTreeMap<String, String>,
    /// From bottom to top.
    pub layers: Vec<ReadLayer>,
    /// What all layers together show.
    pub files: BTreeMap<String, Row>,
    /// The package database, empty if there is none.
    pub installed: InstalledDb,
    /// The files of [`KEPT`] and [`KEYS`], by path.
    pub kept: BTreeMap<String, Vec<u8>>,
}

impl ReadImage {
    /// Returns the bytes of all regular files, hard links counted once.
    pub fn size(&self) -> u64 {
        self.files.values().map(|row| row.size).sum()
    }

    /// Returns the bytes of the blobs.
    pub fn stored_size(&self) -> u64 {
        self.layers.iter().map(|layer| layer.size).sum()
    }

    /// Returns which package has each path.
    pub fn owners(&self) -> BTreeMap<String, &str> {
        let mut owners = BTreeMap::new();
        for package in &self.installed.packages {
            for directory in &package.directories {
                for file in &directory.files {
                    let path = match directory.path.as_str() {
                        "" => file.name.clone(),
                        folder => format!("{folder}/{}", file.name),
                    };
                    owners.insert(path, package.package.name.as_str());
                }
            }
        }
        owners
    }
}

/// Reads every platform of an image: a layout directory, or an archive of a layout or of docker's.
///
/// # Errors
/// [`ReadError`].
pub fn read(path: &Path) -> Result<Vec<ReadImage>, ReadError> {
    let mut place = Place::open(path)?;
    // apko puts an index behind a docker archive, too.
    let docker = place.has("manifest.json") && !place.has("oci-layout");
    if place.has("index.json") && !docker {
        let index = place.document("index.json")?;
        let mut images = Vec::new();
        for (digest, manifest) in place.manifests(&index, 0)? {
            images.push(place.manifest(&digest, &manifest)?);
        }
        if images.is_empty() {
            return Err(ReadError::new("it holds no image"));
        }
        images.sort_by(|a, b| a.platform.cmp(&b.platform));
        return Ok(images);
    }
    if docker {
        return place.docker();
    }
    Err(ReadError::new(
        "there is neither index.json nor manifest.json",
    ))
}

/// Reads an archive of a root file system as if it were the only layer of an image.
///
/// # Errors
/// [`ReadError`].
pub fn read_root(path: &Path) -> Result<ReadImage, ReadError> {
    let mut image = ReadImage::new("", Value::Null);
    let mut layer = ReadLayer {
        digest: String::new(),
        size: 0,
        media_type: String::new(),
        entries: Vec::new(),
    };
    let mut reader = BufReader::new(File::open(path)?);
    image.walk(plain(&mut reader)?, &mut layer)?;
    if layer.entries.is_empty() {
        return Err(ReadError::new("it is no archive of files"));
    }
    image.layers.push(layer);
    Ok(image)
}

/// Undoes gzip or Zstandard, whichever it is.
fn plain<'r, R: BufRead>(reader: &'r mut R) -> io::Result<Box<dyn Read + 'r>> {
    let start = reader.fill_buf()?;
    Ok(if start.starts_with(&[0x1f, 0x8b]) {
        Box::new(flate2::bufread::MultiGzDecoder::new(reader))
    } else if start.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]) {
        Box::new(zstd::stream::read::Decoder::with_buffer(reader)?)
    } else {
        Box::new(reader)
    })
}

/// An image of one platform as its documents say; its layers were not looked into.
#[derive(Clone, Debug)]
pub struct Outline {
    /// As OCI spells it, with the variant.
    pub platform: String,
    /// The configuration.
    pub config: Value,
    /// Annotations of the manifest.
    pub annotations: BTreeMap<String, String>,
    /// From bottom to top, without their entries.
    pub layers: Vec<ReadLayer>,
}

/// Reads what the documents of a layout say of every platform.
///
/// # Errors
/// [`ReadError`]; a docker archive, which has no such documents, is an error, too.
pub fn outlines(path: &Path) -> Result<Vec<Outline>, ReadError> {
    let mut place = Place::open(path)?;
    if place.has("manifest.json") && !place.has("oci-layout") {
        let cause = "it is a docker archive; an OCI layout is needed";
        return Err(ReadError::new(cause));
    }
    if !place.has("index.json") {
        return Err(ReadError::new("there is no index.json"));
    }
    let index = place.document("index.json")?;
    let mut found = Vec::new();
    for (_, manifest) in place.manifests(&index, 0)? {
        found.push(place.outline(&manifest)?);
    }
    match found.is_empty() {
        true => Err(ReadError::new("it holds no image")),
        false => Ok(found),
    }
}

/// Reads what the documents of the image of a manifest say, whatever the layout's index has.
///
/// # Errors
/// [`ReadError`].
pub fn outline(layout: &Path, manifest: &str) -> Result<Outline, ReadError> {
    let mut place = Place::open(layout)?;
    let document = place.blob(manifest)?;
    place.outline(&document)
}

/// One entry of a layer. Where its content is, is a position in the layer's archive.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    /// Without slashes at either end.
    pub(super) path: String,
    pub(super) kind: RowKind,
    pub(super) mode: u32,
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) mtime: u64,
    /// Text of a link.
    pub(super) link: String,
    pub(super) device: (FileType, u32, u32),
    pub(super) attributes: BTreeMap<String, Vec<u8>>,
    pub(super) offset: u64,
    pub(super) size: u64,
}

/// Lists the entries of an archive that is not compressed, and reads it to its end; returns its
/// bytes and their digest in hexadecimal, too.
pub(super) fn entries(archive: &File) -> Result<(Vec<Entry>, u64, String), ReadError> {
    let mut reader = Hashing::new(BufReader::with_capacity(256 << 10, archive));
    let mut found = Vec::new();
    let mut archive = tar::Archive::new(&mut reader);
    for entry in archive.entries()? {
        if let Some(entry) = self::entry(entry?)? {
            found.push(entry);
        }
    }
    io::copy(&mut reader, &mut io::sink())?;
    let digest = data_encoding::HEXLOWER.encode(&reader.hash.finalize());
    Ok((found, reader.count, digest))
}

/// Reads one entry; the root itself is none.
fn entry<R: Read>(mut entry: tar::Entry<'_, R>) -> Result<Option<Entry>, ReadError> {
    let text = |bytes: &[u8]| {
        let text = String::from_utf8(bytes.to_vec());
        text.map_err(|_| ReadError::new("a name in a layer is not UTF-8"))
    };
    let path = text(&entry.path_bytes())?;
    let path = path.trim_start_matches("./").trim_matches('/').to_owned();
    if path.is_empty() || path == "." {
        return Ok(None);
    }
    if path.len() > LONGEST_PATH {
        return Err(ReadError::new("a name in a layer is too long"));
    }
    let attributes = attributes(&mut entry)?;
    let link = entry
        .link_name_bytes()
        .map(|bytes| text(&bytes))
        .transpose()?;
    let header = entry.header();
    if header.entry_type() == tar::EntryType::GNUSparse {
        return Err(ReadError::new(format!("{path}: a sparse file")));
    }
    let number = |number: io::Result<u64>| {
        let number = number.ok().and_then(|number| u32::try_from(number).ok());
        number.ok_or_else(|| ReadError::new(format!("{path}: an owner that is no number")))
    };
    let device = |number: io::Result<Option<u32>>| number.ok().flatten().unwrap_or(0);
    let kind = kind(header.entry_type());
    Ok(Some(Entry {
        kind,
        mode: header.mode()? & 0o7777,
        uid: number(header.uid())?,
        gid: number(header.gid())?,
        mtime: header.mtime()?,
        link: link.unwrap_or_default(),
        device: (
            match header.entry_type() {
                tar::EntryType::Block => FileType::BlockDevice,
                tar::EntryType::Char => FileType::CharacterDevice,
                _ => FileType::Fifo,
            },
            device(header.device_major()),
            device(header.device_minor()),
        ),
        attributes,
        offset: entry.raw_file_position(),
        size: match kind {
            RowKind::File => entry.size(),
            _ => 0,
        },
        path,
    }))
}

/// Writes a layer of a layout without compression, and checks the digest of what is stored.
///
/// More than `limit` bytes are not written.
pub(super) fn uncompress(
    layout: &Path,
    digest: &str,
    limit: u64,
    out: &mut dyn io::Write,
) -> Result<u64, ReadError> {
    let mut place = Place::open(layout)?;
    let (reader, _) = place.member(&blob_name(digest)?)?;
    let mut reader = BufReader::with_capacity(64 << 10, Hashing::new(reader));
    let count = io::copy(&mut plain(&mut reader)?.take(limit), out)?;
    io::copy(&mut reader, &mut io::sink())?;
    reader.into_inner().check(digest)?;
    Ok(count)
}

/// Copies a blob of a layout, and checks it.
pub(super) fn copy_blob(
    layout: &Path,
    digest: &str,
    out: &mut dyn io::Write,
) -> Result<(), ReadError> {
    let mut place = Place::open(layout)?;
    let (reader, _) = place.member(&blob_name(digest)?)?;
    let mut reader = Hashing::new(reader);
    io::copy(&mut reader, out)?;
    reader.check(digest)
}

/// Where blobs are.
enum Place {
    Directory(PathBuf),
    /// An archive, and where the content of each member is in it.
    Archive(File, BTreeMap<String, (u64, u64)>),
}

impl Place {
    fn open(path: &Path) -> Result<Self, ReadError> {
        if path.is_dir() {
            return Ok(Self::Directory(path.to_owned()));
        }
        let mut file = File::open(path)?;
        let mut start = [0; 2];
        let _ = file.read(&mut start)?;
        file.seek(SeekFrom::Start(0))?;
        if start == [0x1f, 0x8b] {
            // Members are needed in another order than they come.
            let mut plain = tempfile::tempfile()?;
            io::copy(&mut flate2::read::MultiGzDecoder::new(file), &mut plain)?;
            plain.seek(SeekFrom::Start(0))?;
            file = plain;
        }
        let mut members = BTreeMap::new();
        let mut archive = tar::Archive::new(BufReader::new(&mut file));
        for entry in archive.entries()? {
            let entry = entry?;
            let name = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
            let at = (entry.raw_file_position(), entry.size());
            members.insert(name.trim_start_matches("./").to_owned(), at);
        }
        Ok(Self::Archive(file, members))
    }

    fn has(&self, name: &str) -> bool {
        match self {
            Self::Directory(path) => path.join(name).is_file(),
            Self::Archive(_, members) => members.contains_key(name),
        }
    }

    fn member(&mut self, name: &str) -> Result<(Box<dyn Read + '_>, u64), ReadError> {
        let missing = || ReadError::new(format!("{name} is missing"));
        match self {
            Self::Directory(path) => {
                let file = File::open(path.join(name)).map_err(|_| missing())?;
                let size = file.metadata()?.len();
                Ok((Box::new(file), size))
            }
            Self::Archive(file, members) => {
                let (at, size) = *members.get(name).ok_or_else(missing)?;
                file.seek(SeekFrom::Start(at))?;
                Ok((Box::new(file.take(size)), size))
            }
        }
    }

    fn bytes(&mut self, name: &str) -> Result<Vec<u8>, ReadError> {
        let (reader, size) = self.member(name)?;
        if size > LARGEST_DOCUMENT {
            return Err(ReadError::new(format!(
                "{name} is larger than any document"
            )));
        }
        let mut bytes = Vec::new();
        reader.take(LARGEST_DOCUMENT).read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    fn document(&mut self, name: &str) -> Result<Value, ReadError> {
        let bytes = self.bytes(name)?;
        let wrong = |error| ReadError::new(format!("{name}: {error}"));
        serde_json::from_slice(&bytes).map_err(wrong)
    }

    /// Reads a document by its digest, and checks it.
    fn blob(&mut self, digest: &str) -> Result<Value, ReadError> {
        let name = blob_name(digest)?;
        let bytes = self.bytes(&name)?;
        let found = format!("sha256:{}", sha256_hex(&bytes));
        if found != digest {
            return Err(ReadError::not_its_name(&name, digest, found));
        }
        let wrong = |error| ReadError::new(format!("{name}: {error}"));
        serde_json::from_slice(&bytes).map_err(wrong)
    }

    /// Finds the manifests of images, with their digests.
    fn manifests(
        &mut self,
        index: &Value,
        depth: usize,
    ) -> Result<Vec<(String, Value)>, ReadError> {
        if depth > MOST_NESTED {
            return Err(ReadError::new("indexes are nested too deeply"));
        }
        let Some(manifests) = index["manifests"].as_array() else {
            return Err(ReadError::new("an index without manifests"));
        };
        let mut found = Vec::new();
        for descriptor in manifests {
            let digest = descriptor["digest"].as_str().unwrap_or_default();
            let document = self.blob(digest)?;
            if document["manifests"].is_array() {
                found.append(&mut self.manifests(&document, depth + 1)?);
            } else if document["layers"].is_array() && document["artifactType"].is_null() {
                found.push((digest.to_owned(), document));
            }
        }
        Ok(found)
    }

    fn outline(&mut self, manifest: &Value) -> Result<Outline, ReadError> {
        let config = self.blob(manifest["config"]["digest"].as_str().unwrap_or_default())?;
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let annotations = manifest["annotations"].as_object().into_iter().flatten();
        let layers = manifest["layers"].as_array().into_iter().flatten();
        Ok(Outline {
            platform: platform(&config),
            config,
            annotations: annotations
                .map(|(key, value)| (key.clone(), text(value)))
                .collect(),
            layers: layers
                .map(|layer| ReadLayer {
                    digest: text(&layer["digest"]),
                    size: layer["size"].as_u64().unwrap_or(0),
                    media_type: text(&layer["mediaType"]),
                    entries: Vec::new(),
                })
                .collect(),
        })
    }

    fn manifest(&mut self, digest: &str, manifest: &Value) -> Result<ReadImage, ReadError> {
        let outline = self.outline(manifest)?;
        let mut image = ReadImage::new(digest, outline.config);
        image.annotations = outline.annotations;
        for layer in &outline.layers {
            let name = blob_name(&layer.digest)?;
            self.layer(&name, Some(&layer.digest), &layer.media_type, &mut image)?;
        }
        Ok(image)
    }

    fn docker(&mut self) -> Result<Vec<ReadImage>, ReadError> {
        let manifest = self.document("manifest.json")?;
        let mut images = Vec::new();
        for one in manifest.as_array().into_iter().flatten() {
            let name = one["Config"].as_str().unwrap_or_default();
            let bytes = self.bytes(name)?;
            let config = serde_json::from_slice(&bytes)
                .map_err(|error| ReadError::new(format!("{name}: {error}")))?;
            let digest = format!("sha256:{}", sha256_hex(&bytes));
            let mut image = ReadImage::new(&digest, config);
            for layer in one["Layers"].as_array().into_iter().flatten() {
                let name = layer.as_str().unwrap_or_default().to_owned();
                self.layer(&name, None, "", &mut image)?;
            }
            images.push(image);
        }
        if images.is_empty() {
            return Err(ReadError::new("it holds no image"));
        }
        images.sort_by(|a, b| a.platform.cmp(&b.platform));
        Ok(images)
    }

    fn layer(
        &mut self,
        name: &str,
        digest: Option<&str>,
        media_type: &str,
        image: &mut ReadImage,
    ) -> Result<(), ReadError> {
        let (reader, size) = self.member(name)?;
        let mut reader = BufReader::new(Hashing::new(reader));
        let mut layer = ReadLayer {
            digest: String::new(),
            size,
            media_type: media_type.to_owned(),
            entries: Vec::new(),
        };
        {
            image.walk(plain(&mut reader)?, &mut layer)?;
        }
        io::copy(&mut reader, &mut io::sink())?;
        let found = reader.into_inner().finish();
        if let Some(digest) = digest.filter(|digest| *digest != found) {
            return Err(ReadError::not_its_name(name, digest, found));
        }
        layer.digest = found;
        image.layers.push(layer);
        Ok(())
    }
}

/// Hashes and counts what is read through it.
struct Hashing<R> {
    inner: R,
    hash: Sha256,
    count: u64,
}

impl<R> Hashing<R> {
    fn new(inner: R) -> Self {
        Self {
            inner,
            hash: Sha256::new(),
            count: 0,
        }
    }

    /// Returns `sha256:HEX` of what was read.
    fn finish(self) -> String {
        format!(
            "sha256:{}",
            data_encoding::HEXLOWER.encode(&self.hash.finalize())
        )
    }

    /// Checks that what was read has the digest that it is named by.
    fn check(self, digest: &str) -> Result<(), ReadError> {
        let found = self.finish();
        match found == digest {
            true => Ok(()),
            false => Err(ReadError::not_its_name(digest, digest, found)),
        }
    }
}

impl<R: Read> Read for Hashing<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.hash.update(&buffer[..count]);
        self.count += count as u64;
        Ok(count)
    }
}

/// Returns the platform of a configuration as OCI spells it, with the variant.
fn platform(config: &Value) -> String {
    let part = |key: &str| config[key].as_str().unwrap_or_default();
    match part("variant") {
        "" => part("architecture").to_owned(),
        variant => format!("{}/{variant}", part("architecture")),
    }
}

fn blob_name(digest: &str) -> Result<String, ReadError> {
    Ok(format!("blobs/sha256/{}", hexadecimal(digest)?))
}

/// Returns the digits of a digest, which are good for the name of a file.
pub(super) fn hexadecimal(digest: &str) -> Result<&str, ReadError> {
    let hex = digest.strip_prefix("sha256:").unwrap_or_default();
    let good = hex.len() == 64 && hex.bytes().all(|byte| byte.is_ascii_hexdigit());
    match good {
        true => Ok(hex),
        false => Err(ReadError::new(format!("{digest:?} is no digest"))),
    }
}

impl ReadImage {
    fn new(digest: &str, config: Value) -> Self {
        Self {
            platform: platform(&config),
            digest: digest.to_owned(),
            config,
            annotations: BTreeMap::new(),
            layers: Vec::new(),
            files: BTreeMap::new(),
            installed: InstalledDb::default(),
            kept: BTreeMap::new(),
        }
    }

    /// Reads the entries of a layer, and applies them.
    fn walk(&mut self, reader: impl Read, layer: &mut ReadLayer) -> Result<(), ReadError> {
        let mut archive = tar::Archive::new(reader);
        for entry in archive.entries()? {
            let mut entry = entry?;
            let path = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
            let path = path.trim_start_matches("./").trim_matches('/').to_owned();
            if path.is_empty() || path == "." || path.len() > LONGEST_PATH {
                continue;
            }
            let (folder, name) = crate::root::split(&path);
            if let Some(hidden) = name.strip_prefix(".wh.") {
                match (hidden, folder) {
                    (".wh..opq", folder) => self.hide_below(folder),
                    (hidden, "") => self.hide(hidden),
                    (hidden, folder) => self.hide(&format!("{folder}/{hidden}")),
                }
                continue;
            }
            let is_database = DATABASES.contains(&path.as_str());
            let is_kept = KEPT.contains(&path.as_str()) || path.starts_with(KEYS);
            let most = match (is_database, is_kept) {
                (true, _) => 8 * LARGEST_DOCUMENT,
                (false, true) => LARGEST_KEPT,
                (false, false) => 0,
            };
            let (row, content) = row(&mut entry, most)?;
            self.kept.remove(&path);
            if is_database && let Ok(database) = installed::parse(&content, true) {
                self.installed = database;
            } else if is_kept && row.kind == RowKind::File && row.size <= LARGEST_KEPT {
                self.kept.insert(path.clone(), content);
            }
            if row.kind != RowKind::Directory {
                self.hide_below(&path);
            }
            layer.entries.push((path.clone(), row.clone()));
            self.files.insert(path, row);
        }
        Ok(())
    }

    fn hide(&mut self, path: &str) {
        self.files.remove(path);
        self.kept.remove(path);
        self.hide_below(path);
    }

    fn hide_below(&mut self, folder: &str) {
        let start = format!("{folder}/");
        let below = self.files.range(start.clone()..).map(|(path, _)| path);
        let below: Vec<String> = below
            .take_while(|path| path.starts_with(&start))
            .cloned()
            .collect();
        for path in below {
            self.files.remove(&path);
            self.kept.remove(&path);
        }
    }
}

/// Returns the extended attributes of an entry.
fn attributes<R: Read>(entry: &mut tar::Entry<'_, R>) -> io::Result<BTreeMap<String, Vec<u8>>> {
    let mut attributes = BTreeMap::new();
    if let Some(extensions) = entry.pax_extensions()? {
        for extension in extensions {
            let extension = extension?;
            let key = String::from_utf8_lossy(extension.key_bytes()).into_owned();
            if let Some(name) = key.strip_prefix("SCHILY.xattr.") {
                attributes.insert(name.to_owned(), extension.value_bytes().to_vec());
            }
        }
    }
    Ok(attributes)
}

fn kind(entry: tar::EntryType) -> RowKind {
    use tar::EntryType;
    match entry {
        EntryType::Directory => RowKind::Directory,
        EntryType::Symlink => RowKind::Symlink,
        EntryType::Link => RowKind::HardLink,
        EntryType::Char | EntryType::Block | EntryType::Fifo => RowKind::Special,
        _ => RowKind::File,
    }
}

/// Reads an entry; the first `most` bytes of a file are returned, too.
fn row<R: Read>(entry: &mut tar::Entry<'_, R>, most: u64) -> Result<(Row, Vec<u8>), ReadError> {
    let attributes = attributes(entry)?;
    let mut kept = Vec::new();
    let header = entry.header().clone();
    let link = entry
        .link_name_bytes()
        .map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    let kind = kind(header.entry_type());
    let (size, content) = match kind {
        RowKind::Directory => (0, String::new()),
        RowKind::Symlink | RowKind::HardLink => (0, link.unwrap_or_default()),
        RowKind::Special => {
            let number = |number: io::Result<Option<u32>>| number.ok().flatten().unwrap_or(0);
            let numbers = (number(header.device_major()), number(header.device_minor()));
            (0, format!("{}:{}", numbers.0, numbers.1))
        }
        RowKind::File => {
            let mut hash = Sha256::new();
            let mut size = 0;
            let mut buffer = vec![0; 64 << 10];
            loop {
                let count = entry.read(&mut buffer)?;
                if count == 0 {
                    break;
                }
                hash.update(&buffer[..count]);
                size += count as u64;
                let room = most.saturating_sub(kept.len() as u64).min(count as u64);
                kept.extend_from_slice(&buffer[..room as usize]);
            }
            (size, data_encoding::HEXLOWER.encode(&hash.finalize()))
        }
    };
    let row = Row {
        kind,
        mode: header.mode()? & 0o7777,
        uid: header.uid()?,
        gid: header.gid()?,
        mtime: header.mtime()?,
        size,
        content,
        attributes,
    };
    Ok((row, kept))
}
