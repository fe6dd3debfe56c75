//! Where the parts of package files are and which hashes they have, kept from one command to the next.
//!
//! ```text
//! DIRECTORY/images/parts/AA/HEX.json   by the package's identity
//! ```
//!
//! An entry is of one file as it was: device, number, size and times, so that another file of the same
//! package, or the same one after any change, is read again. It has its own digest in front. Everything
//! here may be deleted at any time. Whether a file is the package that is wanted is not decided here.

use super::lock::damaged;
use super::{Error, disk};
use crate::fetch::cache::seal_of;
use crate::format::Limits;
use crate::format::apk::PackageParts;
use crate::image::store::sha256_hex;
use crate::package::Package;
use data_encoding::{BASE64, HEXLOWER};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::fs::{File, Metadata};
use std::io::BufReader;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

/// A file that was changed within this time may be changed again without a trace in its times.
const SETTLED: Duration = Duration::from_millis(100);

/// More do not help: each holds a package in memory.
pub(super) const MOST_THREADS: usize = 4;

/// What a package file consists of; checksums are as lock files have them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Parts {
    /// Bytes of the signatures; 0 without any.
    pub(super) signature: u64,
    /// `sha1-` and base64.
    pub(super) signature_checksum: String,
    /// Bytes of the control part.
    pub(super) control: u64,
    /// Bytes of the data part.
    pub(super) data: u64,
    /// `sha256-` and base64.
    pub(super) data_checksum: String,
    /// SHA-256 of the file, in hexadecimal.
    pub(super) sha256: String,
    /// The architecture that the package itself states.
    pub(super) arch: Option<String>,
    /// It is of the v3 form, whose parts are not told apart: all of it counts as data.
    #[serde(default)]
    pub(super) v3: bool,
}

impl Parts {
    /// Returns the bytes of the file.
    pub(super) fn size(&self) -> u64 {
        self.signature + self.control + self.data
    }
}

#[derive(Serialize, Deserialize)]
struct Entry {
    seal: String,
    /// SHA-256 of the file, in hexadecimal.
    sha256: String,
    /// Absent where nobody asked for more.
    parts: Option<Parts>,
}

/// The place where they are kept.
#[derive(Clone, Debug)]
pub(super) struct PartsShelf {
    directory: PathBuf,
}

impl PartsShelf {
    /// Uses a cache.
    pub(super) fn new(cache: &Path) -> Self {
        Self {
            directory: cache.join("images/parts"),
        }
    }

    /// Returns the parts of a file, which must be the package.
    ///
    /// # Errors
    /// [`Error::Disk`], or [`Error::Hash`] for another or a damaged file.
    pub(super) fn of(
        &self,
        path: &Path,
        package: &Package,
        limits: &Limits,
    ) -> Result<Parts, Error> {
        let failed = |error: std::io::Error| disk("read", path, &error);
        let meta = std::fs::metadata(path).map_err(failed)?;
        let seal = seal_of(&meta);
        let place = self.place(package);
        let known = read(&place).filter(|known| known.seal == seal);
        if let Some(parts) = known.and_then(|known| known.parts) {
            return Ok(parts);
        }
        let bytes = std::fs::read(path).map_err(failed)?;
        let read = PackageParts::read(&bytes, limits);
        let read = read.map_err(|error| damaged(package, &error.to_string()))?;
        if read.package.identity != package.identity {
            return Err(damaged(package, &read.package.identity.to_q1()));
        }
        let parts = Parts {
            signature: read.signature,
            signature_checksum: format!("sha1-{}", BASE64.encode(&read.signature_sha1)),
            control: read.control,
            data: read.data,
            data_checksum: format!("sha256-{}", BASE64.encode(&read.data_sha256)),
            sha256: HEXLOWER.encode(&read.file_sha256),
            arch: read.package.package.arch,
            v3: read.package.form.is_v3(),
        };
        if parts.size() == meta.len() {
            let entry = Entry {
                seal,
                sha256: parts.sha256.clone(),
                parts: Some(parts.clone()),
            };
            keep(&place, &entry, &meta);
        }
        Ok(parts)
    }

    /// Returns the SHA-256 of a file of a package, in hexadecimal.
    ///
    /// # Errors
    /// [`Error::Disk`].
    pub(super) fn sha256(&self, path: &Path, package: &Package) -> Result<String, Error> {
        let failed = |error: std::io::Error| disk("read", path, &error);
        let file = File::open(path).map_err(failed)?;
        let meta = file.metadata().map_err(failed)?;
        let seal = seal_of(&meta);
        let place = self.place(package);
        if let Some(known) = read(&place).filter(|known| known.seal == seal) {
            return Ok(known.sha256);
        }
        let mut hash = Sha256::new();
        let mut reader = BufReader::with_capacity(128 << 10, file);
        std::io::copy(&mut reader, &mut hash).map_err(failed)?;
        let sha256 = HEXLOWER.encode(&hash.finalize());
        let entry = Entry {
            seal,
            sha256: sha256.clone(),
            parts: None,
        };
        keep(&place, &entry, &meta);
        Ok(sha256)
    }

    fn place(&self, package: &Package) -> PathBuf {
        let hex = package.identity.hex();
        let folder = self.directory.join(&hex[..2]);
        folder.join(format!("{hex}.json"))
    }
}

/// Returns the parts of several files, read on as many threads as there are cores.
pub(super) fn of_all(
    shelf: &PartsShelf,
    files: &[(&PathBuf, &Package)],
    limits: &Limits,
) -> Vec<Result<Parts, Error>> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    in_order(files.len(), cores.min(MOST_THREADS), |at| {
        let (path, package) = files[at];
        shelf.of(path, package, limits)
    })
}

/// Does something for each of some numbers, several at a time; results come in their order.
pub(super) fn in_order<T: Send>(
    count: usize,
    at_once: usize,
    work: impl Fn(usize) -> T + Sync,
) -> Vec<T> {
    let threads = at_once.min(count);
    if threads < 2 {
        return (0..count).map(work).collect();
    }
    let next = AtomicUsize::new(0);
    let (next, work) = (&next, &work);
    let take = || {
        let mut done = Vec::new();
        loop {
            let at = next.fetch_add(1, Ordering::Relaxed);
            if at >= count {
                return done;
            }
            done.push((at, work(at)));
        }
    };
    let mut all: Vec<(usize, T)> = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(take)).collect();
        let joined = workers.into_iter().map(|worker| {
            let done = worker.join();
            done.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        });
        joined.flatten().collect()
    });
    all.sort_by_key(|(at, _)| *at);
    all.into_iter().map(|(_, done)| done).collect()
}

fn read(place: &Path) -> Option<Entry> {
    let bytes = std::fs::read(place).ok()?;
    let (digest, text) = bytes.split_at_checked(64)?;
    let whole = digest == sha256_hex(text).as_bytes();
    serde_json::from_slice(text).ok().filter(|_| whole)
}

/// Keeps an entry, unless the file was changed just now; it is only a help for later, so that failing is
/// no error.
fn keep(place: &Path, entry: &Entry, meta: &Metadata) {
    let seconds = u64::try_from(meta.ctime()).unwrap_or(0);
    let changed = SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
    let changed = changed + Duration::from_nanos(meta.ctime_nsec().unsigned_abs());
    let age = SystemTime::now().duration_since(changed);
    if age.is_ok_and(|age| age > SETTLED) {
        let text = serde_json::to_vec(entry).expect("texts and numbers are always JSON");
        let mut bytes = sha256_hex(&text).into_bytes();
        bytes.extend_from_slice(&text);
        let _ = crate::fetch::cache::store(place, &bytes);
    }
}
