//! Reading images back: OCI layouts and docker archives that any tool wrote, as rows to compare.
//!
//! Nothing is unpacked. Layers are walked in order, what a later one hides is gone, and every
//! regular file is hashed on the way. Blobs of a layout are checked against their digests. Names
//! and sizes are claims of the archive: nothing is opened or allocated because of them alone.

use super::store::sha256_hex;
use crate::format::installed;
use crate::package::InstalledDb;
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

/// Where a package database can be.
const DATABASES: [&str; 2] = ["lib/apk/db/installed", "usr/lib/apk/db/installed"];

/// Why an image cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("{cause}")]
pub struct ReadError {
    cause: String,
}

impl ReadError {
    fn new(cause: impl Into<String>) -> Self {
        Self {
            cause: cause.into(),
        }
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
    if place.has("index.json") {
        let index = place.document("index.json")?;
        let mut images = Vec::new();
        place.index(&index, 0, &mut images)?;
        if images.is_empty() {
            return Err(ReadError::new("it holds no image"));
        }
        images.sort_by(|a, b| a.platform.cmp(&b.platform));
        return Ok(images);
    }
    if place.has("manifest.json") {
        return place.docker();
    }
    Err(ReadError::new(
        "there is neither index.json nor manifest.json",
    ))
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
        if format!("sha256:{}", sha256_hex(&bytes)) != digest {
            return Err(ReadError::new(format!("{name} is not what its name says")));
        }
        let wrong = |error| ReadError::new(format!("{name}: {error}"));
        serde_json::from_slice(&bytes).map_err(wrong)
    }

    fn index(
        &mut self,
        index: &Value,
        depth: usize,
        images: &mut Vec<ReadImage>,
    ) -> Result<(), ReadError> {
        if depth > MOST_NESTED {
            return Err(ReadError::new("indexes are nested too deeply"));
        }
        let Some(manifests) = index["manifests"].as_array() else {
            return Err(ReadError::new("an index without manifests"));
        };
        for descriptor in manifests {
            let digest = descriptor["digest"].as_str().unwrap_or_default();
            let document = self.blob(digest)?;
            if document["manifests"].is_array() {
                self.index(&document, depth + 1, images)?;
            } else if document["layers"].is_array() && document["artifactType"].is_null() {
                images.push(self.manifest(digest, &document)?);
            }
        }
        Ok(())
    }

    fn manifest(&mut self, digest: &str, manifest: &Value) -> Result<ReadImage, ReadError> {
        let config = self.blob(manifest["config"]["digest"].as_str().unwrap_or_default())?;
        let mut image = ReadImage::new(digest, config);
        if let Some(annotations) = manifest["annotations"].as_object() {
            let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
            let pairs = annotations
                .iter()
                .map(|(key, value)| (key.clone(), text(value)));
            image.annotations = pairs.collect();
        }
        for layer in manifest["layers"].as_array().into_iter().flatten() {
            let digest = layer["digest"].as_str().unwrap_or_default();
            let name = blob_name(digest)?;
            let media_type = layer["mediaType"].as_str().unwrap_or_default();
            self.layer(&name, Some(digest), media_type, &mut image)?;
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
        let mut reader = BufReader::new(Hashing {
            inner: reader,
            hash: Sha256::new(),
        });
        let mut layer = ReadLayer {
            digest: String::new(),
            size,
            media_type: media_type.to_owned(),
            entries: Vec::new(),
        };
        {
            let start = reader.fill_buf()?;
            let plain: Box<dyn Read + '_> = if start.starts_with(&[0x1f, 0x8b]) {
                Box::new(flate2::bufread::MultiGzDecoder::new(&mut reader))
            } else if start.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]) {
                Box::new(zstd::stream::read::Decoder::with_buffer(&mut reader)?)
            } else {
                Box::new(&mut reader)
            };
            image.walk(plain, &mut layer)?;
        }
        io::copy(&mut reader, &mut io::sink())?;
        let found = reader.into_inner().hash.finalize();
        let found = format!("sha256:{}", data_encoding::HEXLOWER.encode(&found));
        if digest.is_some_and(|digest| digest != found) {
            return Err(ReadError::new(format!("{name} is not what its name says")));
        }
        layer.digest = found;
        image.layers.push(layer);
        Ok(())
    }
}

struct Hashing<R> {
    inner: R,
    hash: Sha256,
}

impl<R: Read> Read for Hashing<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.hash.update(&buffer[..count]);
        Ok(count)
    }
}

fn blob_name(digest: &str) -> Result<String, ReadError> {
    let hex = digest.strip_prefix("sha256:").unwrap_or_default();
    let good = hex.len() == 64 && hex.bytes().all(|byte| byte.is_ascii_hexdigit());
    match good {
        true => Ok(format!("blobs/sha256/{hex}")),
        false => Err(ReadError::new(format!("{digest:?} is no digest"))),
    }
}

impl ReadImage {
    fn new(digest: &str, config: Value) -> Self {
        let part = |key: &str| config[key].as_str().unwrap_or_default().to_owned();
        let mut platform = part("architecture");
        if !part("variant").is_empty() {
            platform.push('/');
            platform.push_str(&part("variant"));
        }
        Self {
            platform,
            digest: digest.to_owned(),
            config,
            annotations: BTreeMap::new(),
            layers: Vec::new(),
            files: BTreeMap::new(),
            installed: InstalledDb::default(),
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
            let row = row(
                &mut entry,
                DATABASES.contains(&path.as_str()),
                &mut self.installed,
            )?;
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
        }
    }
}

fn row<R: Read>(
    entry: &mut tar::Entry<'_, R>,
    is_database: bool,
    installed: &mut InstalledDb,
) -> Result<Row, ReadError> {
    use tar::EntryType;
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
    let header = entry.header().clone();
    let link = entry
        .link_name_bytes()
        .map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    let (kind, size, content) = match header.entry_type() {
        EntryType::Directory => (RowKind::Directory, 0, String::new()),
        EntryType::Symlink => (RowKind::Symlink, 0, link.unwrap_or_default()),
        EntryType::Link => (RowKind::HardLink, 0, link.unwrap_or_default()),
        EntryType::Char | EntryType::Block | EntryType::Fifo => {
            let number = |number: io::Result<Option<u32>>| number.ok().flatten().unwrap_or(0);
            let numbers = (number(header.device_major()), number(header.device_minor()));
            (RowKind::Special, 0, format!("{}:{}", numbers.0, numbers.1))
        }
        _ => {
            let mut hash = Sha256::new();
            let mut size = 0;
            let mut kept = Vec::new();
            let mut buffer = vec![0; 64 << 10];
            loop {
                let count = entry.read(&mut buffer)?;
                if count == 0 {
                    break;
                }
                hash.update(&buffer[..count]);
                size += count as u64;
                if is_database && kept.len() as u64 <= 8 * LARGEST_DOCUMENT {
                    kept.extend_from_slice(&buffer[..count]);
                }
            }
            if is_database && let Ok(database) = installed::parse(&kept, true) {
                *installed = database;
            }
            (
                RowKind::File,
                size,
                data_encoding::HEXLOWER.encode(&hash.finalize()),
            )
        }
    };
    Ok(Row {
        kind,
        mode: header.mode()? & 0o7777,
        uid: header.uid()?,
        gid: header.gid()?,
        mtime: header.mtime()?,
        size,
        content,
        attributes,
    })
}
