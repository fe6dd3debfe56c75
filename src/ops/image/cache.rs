//! `image cache`: what image commands keep between runs, measured, checked and removed.
//!
//! ```text
//! DIRECTORY/packages/   packages and indexes that were fetched
//! DIRECTORY/images/     compressed layers and what led to them (`image::store`)
//! DIRECTORY/bases/      manifests and layers of images to build on that came from registries
//! DIRECTORY/keys/       keys that were fetched
//! ```
//!
//! Everything here may be deleted at any time; what is missing is fetched or made again. Files that
//! were used in the last ten minutes may belong to a running build and stay, but for `clean`.

use super::{Error, disk};
use crate::fetch::cache::check_package;
use crate::format::Limits;
use crate::image::store::copy_verified;
use crate::image::{ImageError, Store};
use crate::solver::human_size;
use serde_json::{Value, json};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

/// A file that was used within this time may be in use.
const IN_USE: Duration = Duration::from_secs(600);

/// What is kept: the word for it, and its folder.
const PARTS: [(&str, &str); 4] = [
    ("packages", "packages"),
    ("layers", "images"),
    ("bases", super::base::FOLDER),
    ("keys", "keys"),
];

/// What to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CacheCommand {
    /// Tell where it is.
    Directory,
    /// Tell how large it is.
    Size,
    /// Remove what was not used for long.
    Prune {
        /// Leave at most so many bytes.
        max_size: Option<u64>,
        /// Remove everything that was not used for so long.
        max_age: Option<Duration>,
        /// Keep what was downloaded, remove what is quickly made again.
        ci: bool,
    },
    /// Remove everything.
    Clean,
    /// Check everything and remove what is damaged.
    Verify,
}

/// What there is to tell.
#[derive(Clone, Debug)]
pub struct CacheAnswer {
    /// For people.
    pub text: String,
    /// For programs.
    pub json: Value,
    /// How many files were damaged.
    pub damaged: usize,
}

struct File {
    part: usize,
    path: PathBuf,
    size: u64,
    used: SystemTime,
}

/// Does it.
///
/// # Errors
/// [`Error::Usage`] if nothing is kept, [`Error::Disk`] for a file that cannot be removed.
pub fn cache(
    directory: Option<&Path>,
    command: CacheCommand,
    limits: &Limits,
) -> Result<CacheAnswer, Error> {
    let directory = directory.ok_or_else(|| Error::Usage {
        message: "there is no directory for a cache: set IBEX_CACHE_DIR or HOME".to_owned(),
    })?;
    match command {
        CacheCommand::Directory => Ok(CacheAnswer {
            text: format!("{}\n", directory.display()),
            json: json!({ "directory": directory.display().to_string() }),
            damaged: 0,
        }),
        CacheCommand::Size => Ok(size(&files(directory))),
        CacheCommand::Prune {
            max_size,
            max_age,
            ci,
        } => prune(files(directory), max_size, max_age, ci),
        CacheCommand::Clean => remove(&files(directory)),
        CacheCommand::Verify => verify(directory, limits),
    }
}

fn files(directory: &Path) -> Vec<File> {
    let mut found = Vec::new();
    for (part, (_, folder)) in PARTS.iter().enumerate() {
        let mut folders = vec![directory.join(folder)];
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
                match entry.metadata() {
                    Ok(meta) if meta.is_dir() => folders.push(entry.path()),
                    Ok(meta) if meta.is_file() => found.push(File {
                        part,
                        path: entry.path(),
                        size: meta.len(),
                        used: meta.modified().unwrap_or(SystemTime::UNIX_EPOCH),
                    }),
                    // Nothing of ours, or somebody else removed it.
                    _ => {}
                }
            }
        }
    }
    found.sort_by(|a, b| (a.used, &a.path).cmp(&(b.used, &b.path)));
    found
}

fn size(files: &[File]) -> CacheAnswer {
    let mut text = String::new();
    let mut values = serde_json::Map::new();
    let sum = |files: &mut dyn Iterator<Item = &File>| {
        files.fold((0_u64, 0_u64), |(n, size), file| (n + 1, size + file.size))
    };
    for (part, (name, _)) in PARTS.iter().enumerate() {
        let (count, bytes) = sum(&mut files.iter().filter(|file| file.part == part));
        let word = if count == 1 { "file" } else { "files" };
        text += &format!(
            "{name:<10} {count:>6} {word:<5} {:>10}\n",
            human_size(bytes)
        );
        values.insert((*name).into(), json!({ "files": count, "bytes": bytes }));
    }
    let (_, bytes) = sum(&mut files.iter());
    text += &format!("{:<23} {:>10}\n", "total", human_size(bytes));
    values.insert("bytes".into(), bytes.into());
    CacheAnswer {
        text,
        json: values.into(),
        damaged: 0,
    }
}

fn remove(files: &[File]) -> Result<CacheAnswer, Error> {
    let mut bytes = 0;
    for file in files {
        match std::fs::remove_file(&file.path) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                return Err(disk("remove", &file.path, &error));
            }
            _ => bytes += file.size,
        }
    }
    let count = files.len();
    let word = if count == 1 { "file" } else { "files" };
    Ok(CacheAnswer {
        text: format!("{count} {word} removed, {} freed\n", human_size(bytes)),
        json: json!({ "files": count, "bytes": bytes }),
        damaged: 0,
    })
}

/// Removes what was used longest ago; `files` come in that order.
fn prune(
    files: Vec<File>,
    max_size: Option<u64>,
    max_age: Option<Duration>,
    ci: bool,
) -> Result<CacheAnswer, Error> {
    let now = SystemTime::now();
    let age = |file: &File| now.duration_since(file.used).unwrap_or_default();
    let mut left: u64 = files.iter().map(|file| file.size).sum();
    let mut goes = Vec::new();
    for file in files {
        let cheap = ci && PARTS[file.part].0 == "layers";
        let old = max_age.is_some_and(|limit| age(&file) > limit);
        let too_much = max_size.is_some_and(|limit| left > limit);
        if age(&file) > IN_USE && (cheap || old || too_much) {
            left -= file.size;
            goes.push(file);
        }
    }
    remove(&goes)
}

fn verify(directory: &Path, limits: &Limits) -> Result<CacheAnswer, Error> {
    let packages = files(directory).into_iter().filter(|file| {
        let ends = file.path.extension().is_some_and(|end| end == "apk");
        ends && PARTS[file.part].0 == "packages"
    });
    let mut count = 0;
    let mut damaged = Vec::new();
    for file in packages {
        count += 1;
        let stem = file.path.file_stem().unwrap_or_default().to_string_lossy();
        // The first digits of the identity at least are in the name.
        let start = stem
            .rsplit_once('.')
            .map_or("", |(_, start)| start)
            .to_owned();
        let found = check_package(&file.path, limits);
        if found.is_some_and(|found| found.hex().starts_with(&start)) {
            continue;
        }
        damaged.push(file.path);
    }
    let is_base = |file: &File| {
        let name = file.path.file_name().unwrap_or_default().to_string_lossy();
        PARTS[file.part].0 == "bases" && name.len() == 64
    };
    for file in files(directory).into_iter().filter(is_base) {
        let name = file.path.file_name().unwrap_or_default().to_string_lossy();
        match copy_verified(&file.path, &mut std::io::sink(), &name) {
            Ok(true) => {}
            Ok(false) => damaged.push(file.path),
            // Somebody else removed it.
            Err(error) if error.kind() == ErrorKind::NotFound => continue,
            Err(error) => return Err(disk("read", &file.path, &error)),
        }
        count += 1;
    }
    let layers = directory.join("images");
    if layers.is_dir() {
        let store = Store::open(&layers)?;
        let (checked, wrong) = store.damaged().map_err(|error| match error {
            ImageError::Store { path, cause } => Error::Disk {
                action: "read",
                path: path.display().to_string(),
                cause,
            },
            other => Error::Image(other),
        })?;
        count += checked;
        damaged.extend(wrong);
    }
    let mut text = String::new();
    for path in &damaged {
        match std::fs::remove_file(path) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                return Err(disk("remove", path, &error));
            }
            _ => text += &format!("{}: damaged, removed\n", path.display()),
        }
    }
    text += &format!("{count} verified, {} damaged\n", damaged.len());
    let names: Vec<String> = damaged.iter().map(|p| p.display().to_string()).collect();
    Ok(CacheAnswer {
        text,
        json: json!({ "verified": count, "damaged": names }),
        damaged: damaged.len(),
    })
}
