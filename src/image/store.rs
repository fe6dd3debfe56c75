//! What a build keeps for the next one: compressed segments, finished layers, finished images.
//!
//! ```text
//! DIRECTORY/segments/COMPRESSION/AA/HEX   a compressed piece of a layer by the SHA-256 of its tar
//!                                         bytes; the SHA-256 of what is stored comes behind it
//! DIRECTORY/blobs/sha256/HEX              a finished layer by its own digest
//! DIRECTORY/images/HEX.json               what a request led to, by the request
//! DIRECTORY/pushed/REGISTRY/HEX           a repository that was given a layer
//! ```
//!
//! Files are written beside and renamed in, so that several processes and a stop at any moment leave
//! whole files only. What is damaged all the same is made again. The directory may be deleted at any
//! time.

use super::error::ImageError;
use sha2::{Digest, Sha256};
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};
use tempfile::NamedTempFile;

/// Bytes moved at once.
const BUFFER: usize = 256 << 10;

/// A directory with what earlier builds made.
#[derive(Clone, Debug)]
pub struct Store {
    directory: PathBuf,
}

/// What is in a store.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StoreSize {
    /// Number of files.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
}

impl Store {
    /// Opens a store; the directory is made if it is missing.
    ///
    /// # Errors
    /// [`ImageError::Store`].
    pub fn open(directory: &Path) -> Result<Self, ImageError> {
        for folder in ["segments", "blobs/sha256", "images"] {
            let path = directory.join(folder);
            fs::create_dir_all(&path).map_err(|error| ImageError::store(&path, &error))?;
        }
        Ok(Self {
            directory: directory.to_owned(),
        })
    }

    /// Returns where the store is.
    pub fn path(&self) -> &Path {
        &self.directory
    }

    /// Returns where a layer is or would be.
    pub fn blob_path(&self, hex: &str) -> PathBuf {
        self.directory.join("blobs/sha256").join(hex)
    }

    /// Begins a file that will be renamed in.
    pub(super) fn temporary(&self) -> Result<NamedTempFile, ImageError> {
        let folder = self.directory.join("blobs");
        tempfile::Builder::new()
            .prefix(".new.")
            .tempfile_in(&folder)
            .map_err(|error| ImageError::store(&folder, &error))
    }

    /// Puts a finished file at its place.
    pub(super) fn keep(&self, file: NamedTempFile, path: &Path) -> Result<(), ImageError> {
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder).map_err(|error| ImageError::store(folder, &error))?;
        }
        file.persist(path)
            .map(drop)
            .map_err(|error| ImageError::store(path, &error.error))
    }

    /// Returns where a segment is or would be.
    pub(super) fn segment_path(&self, compression: &str, key: &str) -> PathBuf {
        let folder = self.directory.join("segments").join(compression);
        folder.join(&key[..2]).join(key)
    }

    /// Reads what a request led to.
    pub(super) fn image(&self, key: &str) -> Option<Vec<u8>> {
        fs::read(self.image_path(key)).ok()
    }

    /// Keeps what a request led to.
    pub(super) fn keep_image(&self, key: &str, text: &[u8]) -> Result<(), ImageError> {
        let path = self.image_path(key);
        let mut file = self.temporary()?;
        file.write_all(text)
            .map_err(|error| ImageError::store(&path, &error))?;
        self.keep(file, &path)
    }

    fn image_path(&self, key: &str) -> PathBuf {
        self.directory.join("images").join(format!("{key}.json"))
    }

    /// Returns a repository of a registry that was given a layer.
    pub fn pushed_to(&self, registry: &str, hex: &str) -> Option<String> {
        let text = fs::read_to_string(self.push_path(registry, hex)).ok()?;
        Some(text.trim_end().to_owned()).filter(|text| !text.is_empty())
    }

    /// Remembers that a repository of a registry has a layer; it is only a help for later pushes,
    /// so that failing to write it down is no error.
    pub fn remember_push(&self, registry: &str, hex: &str, repository: &str) {
        if let Ok(mut file) = self.temporary()
            && writeln!(file, "{repository}").is_ok()
        {
            let _ = self.keep(file, &self.push_path(registry, hex));
        }
    }

    fn push_path(&self, registry: &str, hex: &str) -> PathBuf {
        let folder = sha256_hex(registry.as_bytes());
        self.directory.join("pushed").join(folder).join(hex)
    }

    /// Returns how much is kept.
    pub fn size(&self) -> StoreSize {
        let mut size = StoreSize::default();
        for (_, metadata) in self.files() {
            size.files += 1;
            size.bytes += metadata.len();
        }
        size
    }

    /// Removes what was not used for longer than `age`, then the oldest until at most `bytes`
    /// remain; returns what was removed.
    ///
    /// # Errors
    /// [`ImageError::Store`] for the first file that cannot be removed.
    pub fn prune(
        &self,
        age: Option<Duration>,
        bytes: Option<u64>,
    ) -> Result<StoreSize, ImageError> {
        let mut files: Vec<(SystemTime, u64, PathBuf)> = self
            .files()
            .into_iter()
            .map(|(path, metadata)| {
                let used = metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH);
                (used, metadata.len(), path)
            })
            .collect();
        files.sort();
        let mut left: u64 = files.iter().map(|(_, size, _)| size).sum();
        let oldest = age.and_then(|age| SystemTime::now().checked_sub(age));
        let mut removed = StoreSize::default();
        for (used, size, path) in files {
            let old = oldest.is_some_and(|oldest| used < oldest);
            if !old && bytes.is_none_or(|bytes| left <= bytes) {
                continue;
            }
            match fs::remove_file(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(ImageError::store(&path, &error));
                }
                _ => {}
            }
            left -= size;
            removed.files += 1;
            removed.bytes += size;
        }
        Ok(removed)
    }

    fn files(&self) -> Vec<(PathBuf, fs::Metadata)> {
        let mut found = Vec::new();
        let mut folders = vec![self.directory.clone()];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
                match entry.metadata() {
                    Ok(metadata) if metadata.is_dir() => folders.push(entry.path()),
                    Ok(metadata) => found.push((entry.path(), metadata)),
                    // Somebody else removed it.
                    Err(_) => {}
                }
            }
        }
        found
    }
}

/// Tells the age of a file by its last use.
pub(super) fn touch(path: &Path) {
    if let Ok(file) = File::options().append(true).open(path) {
        // Only pruning looks at it.
        let _ = file.set_modified(SystemTime::now());
    }
}

/// Hashes what is written through it.
pub(super) struct Hashing<W> {
    inner: W,
    hash: Sha256,
    count: u64,
}

impl<W> Hashing<W> {
    pub(super) fn new(inner: W) -> Self {
        Self {
            inner,
            hash: Sha256::new(),
            count: 0,
        }
    }

    /// Returns what was written to, the digest in hexadecimal, and the number of bytes.
    pub(super) fn finish(self) -> (W, String, u64) {
        let hex = data_encoding::HEXLOWER.encode(&self.hash.finalize());
        (self.inner, hex, self.count)
    }
}

impl<W: Write> Write for Hashing<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.inner.write(bytes)?;
        self.hash.update(&bytes[..count]);
        self.count += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

/// Copies a file of a known digest; returns whether it has that digest.
///
/// # Errors
/// What the system said.
pub fn copy_verified(from: &Path, to: &mut dyn Write, hex: &str) -> io::Result<bool> {
    let mut source = File::open(from)?;
    let mut hashing = Hashing::new(to);
    let mut buffer = vec![0; BUFFER];
    loop {
        match source.read(&mut buffer)? {
            0 => break,
            count => hashing.write_all(&buffer[..count])?,
        }
    }
    Ok(hashing.finish().1 == hex)
}

/// Returns the SHA-256 of some bytes in hexadecimal.
pub fn sha256_hex(bytes: &[u8]) -> String {
    data_encoding::HEXLOWER.encode(&Sha256::digest(bytes))
}
