//! Files and directories that are only there while something is done.
//!
//! Whoever makes one removes it again, or gives it its name. A signal that ends the process leaves
//! no time for that: the binary asks for [`remove_all`] then.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

static NOTED: Mutex<BTreeSet<PathBuf>> = Mutex::new(BTreeSet::new());

/// Makes something with a name that nobody but this process uses, and notes it.
///
/// Once it is renamed or removed there is nothing to be taken back: names are not used twice.
pub(crate) fn noted<T, E>(
    make: impl FnOnce() -> Result<T, E>,
    path: impl FnOnce(&T) -> &Path,
) -> Result<T, E> {
    let mut noted = NOTED.lock().unwrap_or_else(PoisonError::into_inner);
    let made = make()?;
    let path = path(&made);
    noted.insert(std::path::absolute(path).unwrap_or_else(|_| path.to_owned()));
    Ok(made)
}

/// Removes everything that was noted and is still there. The process must end then: other threads
/// still use it, and whoever wants to make something more waits for ever.
pub fn remove_all() {
    let noted = NOTED.lock().unwrap_or_else(PoisonError::into_inner);
    for path in noted.iter() {
        // Most are gone; what cannot be removed stays.
        let _ = match path.is_dir() {
            true => std::fs::remove_dir_all(path),
            false => std::fs::remove_file(path),
        };
    }
    std::mem::forget(noted);
}
