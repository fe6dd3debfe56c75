//! What a build keeps for the next one: compressed segments, finished layers, finished images.
//!
//! ```text
//! DIRECTORY/segments/COMPRESSION/AA/HEX   a compressed piece of a layer by the SHA-256 of its tar
//!                                         bytes; the SHA-256 of what is stored comes behind it
//! DIRECTORY/blobs/sha256/HEX              a finished layer by its own digest
//! DIRECTORY/plain/sha256/HEX.HEX          a layer of an image that was built on, without compression,
//!                                         by its own digest and that of its tar bytes
//! DIRECTORY/images/HEX.json               what a request led to, by the request
//! DIRECTORY/pushed/REGISTRY/HEX           a repository that was given a layer
//! ```
//!
//! Files are written beside and renamed in, so that several processes and a stop at any moment leave
//! whole files only. What is damaged all the same is made again. The directory may be deleted at any
//! time.

use super::error::ImageError;
use crate::root::passing;
use sha2::{Digest, Sha256};
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::time::SystemTime;
use tempfile::NamedTempFile;

/// Bytes of the digest behind a kept segment.
pub(super) const TRAILER: u64 = 32;

/// Bytes moved at once.
const BUFFER: usize = 256 << 10;

/// A directory with what earlier builds made.
#[derive(Clone, Debug)]
pub struct Store {
    directory: PathBuf,
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

    /// Returns where a layer without compression is or would be.
    pub(super) fn plain_path(&self, stored: &str, plain: &str) -> PathBuf {
        let folder = self.directory.join("plain/sha256");
        folder.join(format!("{stored}.{plain}"))
    }

    /// Begins a file that will be renamed in.
    pub(super) fn temporary(&self) -> Result<NamedTempFile, ImageError> {
        let folder = self.directory.join("blobs");
        let make = || {
            tempfile::Builder::new()
                .prefix(".new.")
                .tempfile_in(&folder)
        };
        let made = passing::noted(make, NamedTempFile::path);
        made.map_err(|error| ImageError::store(&folder, &error))
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

    /// Reads every layer and segment; returns how many there are, and those that are not what they
    /// should be.
    ///
    /// # Errors
    /// [`ImageError::Store`] for a file that is there but cannot be read.
    pub fn damaged(&self) -> Result<(usize, Vec<PathBuf>), ImageError> {
        let mut wrong = Vec::new();
        let mut count = 0;
        for (path, metadata) in self.files() {
            let inner = path.strip_prefix(&self.directory).unwrap_or(&path);
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            let whole = match inner.iter().next().and_then(|first| first.to_str()) {
                Some("blobs" | "plain") if inner.iter().nth(1) == Some("sha256".as_ref()) => {
                    let digest = name.rsplit('.').next().unwrap_or_default();
                    copy_verified(&path, &mut io::sink(), digest)
                }
                Some("segments") => has_its_trailer(&path, metadata.len()),
                _ => continue,
            };
            match whole {
                Ok(true) => {}
                Ok(false) => wrong.push(path),
                // Somebody else removed it.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(ImageError::store(&path, &error)),
            }
            count += 1;
        }
        wrong.sort();
        Ok((count, wrong))
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

/// Returns whether a segment is what the digest behind it says.
fn has_its_trailer(path: &Path, length: u64) -> io::Result<bool> {
    let Some(size) = length.checked_sub(TRAILER) else {
        return Ok(false);
    };
    let mut file = File::open(path)?;
    let mut hashing = Hashing::new(io::sink());
    io::copy(&mut (&mut file).take(size), &mut hashing)?;
    let mut trailer = Vec::new();
    file.take(TRAILER).read_to_end(&mut trailer)?;
    Ok(hashing.finish().1 == data_encoding::HEXLOWER.encode(&trailer))
}

/// Tells the age of a file by its last use.
pub fn touch(path: &Path) {
    if path.is_symlink() {
        // It is in a cache that is only read.
        return;
    }
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
