//! Bytes to values and back: no policy, no paths.
//!
//! Readers take what apk takes and refuse what it refuses, with apk's words; beyond that they keep
//! to the documented [`Limits`], so that no input decides how much memory is used.

pub mod adb;
pub mod apk;
mod apk_v2;
mod apk_v3;
pub mod apkindex;
pub mod index;
pub mod index_writer;
pub mod installed;
mod limits;
pub mod package_writer;
pub mod pkginfo;
mod record;
pub mod scripts;
pub mod tar;
pub mod triggers;
pub mod unpacked;

pub use limits::{LimitError, Limits, parse_size};

use std::io;

/// Why bytes are not what they should be; the texts are apk's (cli.md, 1.16).
#[derive(Debug, thiserror::Error)]
pub enum FormatError {
    /// It ends too early.
    #[error("unexpected end of file")]
    UnexpectedEnd,
    /// Not the expected kind of file at all, or damaged compression.
    #[error("file format is invalid or inconsistent")]
    Invalid,
    /// An old form without checksums.
    #[error("file format is obsolete (e.g. missing embedded checksum)")]
    Obsolete,
    /// Another kind of file than the one asked for.
    #[error("file format not supported (in this applet)")]
    NotSupported,
    /// A line of an index or database is none.
    #[error("v2 database format error")]
    Database {
        /// The line, counted from 1.
        line: usize,
        /// Its text, cut.
        text: String,
    },
    /// The metadata of a package is wrong.
    #[error("v2 package format error")]
    Package {
        /// What is wrong.
        reason: String,
    },
    /// A name that cannot be kept as it is: names are texts here.
    #[error("names that are not UTF-8 are not supported: {name}")]
    Name {
        /// The name, with escapes.
        name: String,
    },
    /// The index archive is wrong.
    #[error("v2 index format error")]
    Index,
    /// The content is not what its digest says.
    #[error("v2 package integrity error")]
    Integrity,
    /// Something is larger than the reader accepts; apk says only `internal buffer too small`.
    #[error("{what}{}{limit}{}", TOO_LARGE.0, TOO_LARGE.1)]
    TooLarge {
        /// Which field.
        what: &'static str,
        /// The limit, in bytes if it is a size.
        limit: u64,
    },
    /// A file of the v3 form is not as it should be.
    #[error(transparent)]
    Adb(#[from] adb::AdbError),
    /// The database was written by a newer program.
    #[error("This apk-tools is too old to handle installed packages")]
    TooNew,
    /// Reading failed.
    #[error("{}", cause(.0))]
    Io(#[source] io::Error),
}

/// Makes the error for a name that is not UTF-8.
fn not_utf8(name: &[u8]) -> FormatError {
    let cut = &name[..name.len().min(200)];
    FormatError::Name {
        name: cut.escape_ascii().to_string(),
    }
}

/// What stands between what is too large and the limit in the text of [`FormatError::TooLarge`].
const TOO_LARGE: (&str, &str) = (": more than the limit of ", " (see --limits)");

/// Finds the limit that a message about something too large tells of, with what was too large.
///
/// Messages travel as text through what reports them; what is to be done about this one depends on
/// the limit.
pub fn limit_in(message: &str) -> Option<(&str, u64)> {
    let (before, rest) = message.rsplit_once(TOO_LARGE.0)?;
    let limit = rest.split_once(TOO_LARGE.1)?.0.parse().ok()?;
    let what = before.rsplit_once(": ").map_or(before, |(_, what)| what);
    Some((what, limit))
}

impl From<io::Error> for FormatError {
    fn from(error: io::Error) -> Self {
        // Readers of contents can give only errors of the system; what they mean is inside.
        let error = match error.downcast::<Self>() {
            Ok(meant) => return meant,
            Err(error) => error,
        };
        match error.kind() {
            io::ErrorKind::UnexpectedEof => Self::UnexpectedEnd,
            io::ErrorKind::InvalidInput | io::ErrorKind::InvalidData => Self::Invalid,
            _ => Self::Io(error),
        }
    }
}

/// Returns what the system says, without the number that Rust appends.
fn cause(error: &io::Error) -> String {
    let text = error.to_string();
    match text.find(" (os error ") {
        Some(at) => text[..at].to_owned(),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_is_found_in_what_tells_of_it() {
        let text = FormatError::TooLarge {
            what: "control part",
            limit: 7,
        };
        let text = format!("opening a: {text}");
        assert_eq!(limit_in(&text), Some(("control part", 7)));
        assert_eq!(limit_in("control part: more than that"), None);
    }
}
