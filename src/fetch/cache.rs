//! Files in apk's cache directory: written beside, then renamed in, so that several processes and
//! a stop at any moment leave whole files only.

use std::fs::{DirBuilder, File};
use std::io::{self, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

/// Replaces a file of the cache; the directory is made if it is missing.
///
/// # Errors
/// What the system said; the old file is still there then.
pub fn store(path: &Path, content: &[u8]) -> io::Result<()> {
    let (mut file, temporary) = begin(path)?;
    let written = file.write_all(content);
    finish(written, &temporary, path)
}

/// Opens a temporary file beside `path`.
///
/// # Errors
/// What the system said.
pub fn begin(path: &Path) -> io::Result<(File, PathBuf)> {
    if let Some(directory) = path.parent() {
        DirBuilder::new()
            .recursive(true)
            .mode(0o755)
            .create(directory)?;
    }
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".tmp.{}", std::process::id()));
    let temporary = path.with_file_name(name);
    Ok((File::create(&temporary)?, temporary))
}

/// Renames a finished temporary file in, or removes it if writing failed.
///
/// # Errors
/// The first error.
pub fn finish(written: io::Result<()>, temporary: &Path, path: &Path) -> io::Result<()> {
    let result = written.and_then(|()| rustix::fs::rename(temporary, path).map_err(Into::into));
    if result.is_err() {
        let _ = std::fs::remove_file(temporary);
    }
    result
}
