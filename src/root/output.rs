//! Files that the user names as output, outside of any root.
//!
//! A regular file is written beside its name and renamed: a failure leaves what was there. A device,
//! a pipe, or what an open file of a process is seen by (such as `/dev/stdout`) is written to; it is
//! never replaced, and never read.

use super::passing;
use rustix::fs::OFlags;
use std::fs::{File, OpenOptions, Permissions};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// Bytes that are gathered before they are written.
const BUFFER: usize = 256 << 10;

/// Symbolic links that are followed.
const MOST_LINKS: usize = 40;

/// Writes an output; `failed` makes the caller's error of one of the system.
///
/// # Errors
/// Those of `write`, and of the system; a regular file is as it was then.
pub fn write_output<E>(
    path: &Path,
    failed: impl Fn(io::Error) -> E,
    write: impl FnOnce(&mut dyn Write) -> Result<(), E>,
) -> Result<(), E> {
    let place = resolve(path).map_err(&failed)?;
    let target = match place {
        Place::Open(file) => {
            let mut out = BufWriter::with_capacity(BUFFER, file);
            write(&mut out)?;
            return out.flush().map_err(failed);
        }
        Place::Regular(target) => target,
    };
    let folder = match target.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    let make = || {
        tempfile::Builder::new()
            .prefix(".new.")
            .permissions(Permissions::from_mode(0o644))
            .tempfile_in(folder)
    };
    let file = passing::noted(make, tempfile::NamedTempFile::path).map_err(&failed)?;
    let mut out = BufWriter::with_capacity(BUFFER, file);
    write(&mut out)?;
    let file = out
        .into_inner()
        .map_err(|error| failed(error.into_error()))?;
    file.persist(&target).map_err(|error| failed(error.error))?;
    Ok(())
}

/// Returns whether an output is written to in place, so that there is nothing in it to compare with.
pub fn is_special(path: &Path) -> bool {
    matches!(follow(path), Ok((_, true)))
}

/// How an output is written.
enum Place {
    /// Into what is open.
    Open(File),
    /// Beside this name.
    Regular(PathBuf),
}

fn resolve(path: &Path) -> io::Result<Place> {
    let (target, special) = follow(path)?;
    if !special {
        return Ok(Place::Regular(target));
    }
    // What is behind an open file may be a regular one, with something in it already.
    let file = OpenOptions::new()
        .append(true)
        .custom_flags(OFlags::NOCTTY.bits() as i32)
        .open(&target)?;
    Ok(Place::Open(file))
}

/// Follows symbolic links to the last name, which need not exist; returns whether what it names is
/// not to be replaced.
fn follow(path: &Path) -> io::Result<(PathBuf, bool)> {
    let mut target = path.to_owned();
    for _ in 0..MOST_LINKS {
        let meta = match std::fs::symlink_metadata(&target) {
            Ok(meta) => meta,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok((target, false)),
            Err(error) => return Err(error),
        };
        if !meta.is_symlink() {
            return Ok((target, !meta.is_file() && !meta.is_dir()));
        }
        let folder = target.parent().unwrap_or(Path::new("")).to_owned();
        if is_process_folder(&folder) {
            return Ok((target, true));
        }
        target = folder.join(std::fs::read_link(&target)?);
    }
    Err(rustix::io::Errno::LOOP.into())
}

/// Returns whether links in a folder are those of `/proc/PID/fd`: their text is not where they lead.
fn is_process_folder(folder: &Path) -> bool {
    let folder = std::fs::canonicalize(folder).unwrap_or_default();
    folder.file_name().is_some_and(|name| name == "fd")
        && rustix::fs::statfs(&folder)
            .is_ok_and(|found| found.f_type == rustix::fs::PROC_SUPER_MAGIC)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(path: &Path, text: &str) -> io::Result<()> {
        write_output(path, |error| error, |out| out.write_all(text.as_bytes()))
    }

    #[test]
    fn links_stay_and_what_they_name_is_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        std::os::unix::fs::symlink("file", at("link")).unwrap();
        for text in ["one", "two"] {
            write(&at("link"), text).unwrap();
            assert_eq!(std::fs::read_to_string(at("file")).unwrap(), text);
            assert!(at("link").is_symlink());
        }
        std::os::unix::fs::symlink("loop", at("loop")).unwrap();
        assert!(write(&at("loop"), "x").is_err());
        assert!(!is_special(&at("link")) && !is_special(&at("nothing")));
    }

    #[test]
    fn what_fails_leaves_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        write(&path, "old").unwrap();
        let failed = write_output(
            &path,
            |error| error,
            |out| {
                out.write_all(b"new")?;
                Err(io::ErrorKind::Other.into())
            },
        );
        assert!(failed.is_err());
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "old");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn an_open_file_is_written_to() {
        use std::os::fd::AsRawFd;
        let folder = tempfile::tempdir().unwrap();
        let mut file = File::create_new(folder.path().join("file")).unwrap();
        file.write_all(b"before ").unwrap();
        let link = folder.path().join("stdout");
        let number = format!("/proc/self/fd/{}", file.as_raw_fd());
        std::os::unix::fs::symlink(number, &link).unwrap();
        assert!(is_special(&link));
        write(&link, "after").unwrap();
        assert!(link.is_symlink());
        let text = std::fs::read_to_string(folder.path().join("file")).unwrap();
        assert_eq!(text, "before after");
    }
}
