//! A cache that is read and never written (`--cache-readonly`): a folder for this command alone in
//! which what the cache has is linked, and into which everything new goes.
//!
//! Files of a cache are never written again once they are there: new ones are renamed in, so that a
//! link is replaced and what it leads to stays. What is changed in place, or tells by its time when
//! it was last looked at, is copied instead.

use super::{Error, disk, temporary};
use std::fs::File;
use std::path::Path;
use tempfile::TempDir;

/// What image commands read of a cache.
const READ: [&str; 5] = [super::base::FOLDER, "images", "indexes", "keys", "packages"];

/// The database of the parsed indexes.
const CATALOGUE: &str = "catalogue.sqlite";

/// Makes a folder that shows what is in a cache; it goes when it is dropped.
///
/// # Errors
/// [`Error::Disk`]; a cache that is not there is an empty one.
pub fn shadow_cache(cache: &Path) -> Result<TempDir, Error> {
    let made = temporary()?;
    let cache = match std::fs::canonicalize(cache) {
        Ok(cache) => cache,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(made),
        Err(error) => return Err(disk("read", cache, &error)),
    };
    let database = cache.join(CATALOGUE);
    if database.exists() {
        copy(&database, &made.path().join(CATALOGUE))?;
    }
    let mut folders = READ
        .map(|name| (cache.join(name), made.path().join(name)))
        .to_vec();
    while let Some((from, to)) = folders.pop() {
        let Ok(entries) = std::fs::read_dir(&from) else {
            continue;
        };
        std::fs::create_dir_all(&to).map_err(|error| disk("create", &to, &error))?;
        let mut linked = ["images", super::base::FOLDER].iter();
        let linked = linked.any(|folder| from.starts_with(cache.join(folder)));
        for entry in entries {
            let entry = entry.map_err(|error| disk("read", &from, &error))?;
            let (path, target) = (entry.path(), to.join(entry.file_name()));
            let kind = entry
                .file_type()
                .map_err(|error| disk("read", &path, &error))?;
            let stays = linked
                || path
                    .extension()
                    .is_some_and(|end| end == "apk" || end == "table");
            if kind.is_dir() {
                folders.push((path, target));
            } else if stays {
                let made = std::os::unix::fs::symlink(&path, &target);
                made.map_err(|error| disk("create", &target, &error))?;
            } else if kind.is_file() {
                copy(&path, &target)?;
            }
        }
    }
    Ok(made)
}

/// Copies a file with its time.
fn copy(from: &Path, to: &Path) -> Result<(), Error> {
    let copied = || {
        let mut source = File::open(from)?;
        let mut target = File::create(to)?;
        std::io::copy(&mut source, &mut target)?;
        target.set_modified(source.metadata()?.modified()?)
    };
    match copied() {
        // Another process renamed or removed it: it is as good as not there.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        other => other.map_err(|error| disk("copy", from, &error)),
    }
}
