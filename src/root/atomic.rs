//! The only way to replace a small file: beside it, flushed on demand, renamed over it.

use super::{Directory, RootError};
use std::io::Write;

/// Replaces `name` in `directory`; the old file stays until the new one is complete.
pub(super) fn replace(
    directory: &Directory,
    name: &str,
    content: &[u8],
    mode: u32,
    sync: bool,
) -> Result<(), RootError> {
    let temporary = format!("{name}.tmp.{}", rustix::process::getpid().as_raw_nonzero());
    directory.remove_file(&temporary)?;
    let path = directory.join(name);
    let written = directory
        .create_file(&temporary, mode)
        .and_then(|mut file| {
            file.write_all(content)
                .map_err(|error| RootError::new("write", &path, error))?;
            if sync { file.sync() } else { Ok(()) }
        });
    let renamed = written.and_then(|()| directory.rename(&temporary, name));
    if renamed.is_err() {
        // The first error is the one to tell; the temporary file is ours to remove.
        let _ = directory.remove_file(&temporary);
    } else if sync {
        directory.sync()?;
    }
    renamed
}
