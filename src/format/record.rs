//! The lines that indexes and the installed database have in common (formats.md, 3.2).

use super::FormatError;
use crate::package::dependency::{DependencyText, join};
use crate::package::{Identity, Package, Stated};
use std::borrow::Cow;

/// What a line was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Field {
    /// A field of the package; it was stored.
    Package,
    /// A letter of the installed database.
    Installed,
    /// Another letter.
    Unknown,
}

/// Splits a line `X:value`; `raw` is what the file has in its place.
///
/// # Errors
/// [`FormatError::Database`] if the second character is no colon.
pub(super) fn split<'a>(
    line: &'a str,
    raw: &[u8],
    number: usize,
) -> Result<(u8, &'a str), FormatError> {
    match (raw, line.split_once(':')) {
        ([letter, b':', ..], Some((_, value))) => Ok((*letter, value)),
        _ => Err(bad_line(raw, number)),
    }
}

/// The lines of a text that should be UTF-8: as text, and as the file has them.
///
/// What is no UTF-8 becomes U+FFFD; no line break is gained or lost by that.
pub(super) fn lines<'a>(text: &'a str, raw: &'a [u8]) -> impl Iterator<Item = (&'a str, &'a [u8])> {
    let (mut text, mut raw) = (text, raw);
    std::iter::from_fn(move || {
        if text.is_empty() {
            return None;
        }
        let end = memchr::memchr(b'\n', text.as_bytes()).unwrap_or(text.len());
        // Where nothing was replaced both are the same bytes, and the second search is short.
        let raw_end = match raw.get(end) {
            Some(b'\n') if raw.len() == text.len() => end,
            _ => memchr::memchr(b'\n', raw).unwrap_or(raw.len()),
        };
        let line = (&text[..end], &raw[..raw_end]);
        text = text.get(end + 1..).unwrap_or_default();
        raw = raw.get(raw_end + 1..).unwrap_or_default();
        Some(line)
    })
}

/// Returns a text as UTF-8.
pub(super) fn utf8(text: &[u8]) -> Cow<'_, str> {
    match std::str::from_utf8(text) {
        Ok(text) => text.into(),
        Err(_) => String::from_utf8_lossy(text),
    }
}

/// Makes the error for a line that cannot be read.
pub(super) fn bad_line(line: &[u8], number: usize) -> FormatError {
    let cut = &line[..line.len().min(120)];
    FormatError::Database {
        line: number,
        text: cut.escape_ascii().to_string(),
    }
}

/// Stores a field of a package; lists accumulate over several lines.
pub(super) fn store<'a>(
    stated: &mut Stated<'a>,
    letter: u8,
    value: &'a str,
) -> Result<Field, InvalidIdentity> {
    let amount = || number(value.as_bytes());
    match letter {
        b'C' => stated.identity = Identity::parse(value).ok_or(InvalidIdentity)?,
        b'P' => stated.name = value,
        b'V' => stated.version = value,
        b'A' => stated.arch = Some(value),
        b'S' => stated.size = amount(),
        b'I' => stated.installed_size = amount(),
        b'T' => stated.description = value,
        b'U' => stated.url = value,
        b'L' => stated.license = value,
        b'o' => stated.origin = Some(value),
        b'm' => stated.maintainer = Some(value),
        b't' => stated.build_time = Some(amount()),
        b'c' => stated.commit = Some(value),
        // A 16-bit field: 65536 becomes 0, as in apk.
        b'k' => stated.provider_priority = amount() as u16,
        b'D' => {
            let broken = append(&mut stated.depends, value);
            stated.flaws.uninstallable |= broken;
            stated.flaws.broken_list |= broken;
        }
        b'p' => stated.flaws.broken_list |= append(&mut stated.provides, value),
        b'i' => {
            if append(&mut stated.install_if, value) {
                stated.flaws.broken_list = true;
                let dropped = stated.install_if.drain(..);
                stated.mentions.extend(dropped.map(|entry| entry.name));
            }
        }
        b'F' | b'M' | b'R' | b'Z' | b'r' | b'q' | b'a' | b's' | b'f' | b'g' => {
            return Ok(Field::Installed);
        }
        other => {
            stated.flaws.unknown_field = true;
            stated.flaws.uninstallable |= !other.is_ascii_lowercase();
            return Ok(Field::Unknown);
        }
    }
    Ok(Field::Package)
}

/// The value of `C` is no digest.
#[derive(Clone, Copy, Debug)]
pub(super) struct InvalidIdentity;

/// Appends a list; returns whether something in it is broken.
fn append<'a>(list: &mut Vec<DependencyText<'a>>, text: &'a str) -> bool {
    let before = list.len();
    let malformed = DependencyText::parse_list(text, list);
    malformed || list[before..].iter().any(|entry| entry.broken)
}

/// Reads leading decimal digits; overflow saturates.
pub(super) fn number(value: &[u8]) -> u64 {
    value
        .iter()
        .take_while(|byte| byte.is_ascii_digit())
        .fold(0u64, |n, digit| {
            n.saturating_mul(10).saturating_add(u64::from(digit - b'0'))
        })
}

/// Writes the lines that an index record and an installed record begin with.
pub(super) fn write_head(package: &Package, out: &mut String) {
    let mut line = |letter: char, value: &str| {
        out.push(letter);
        out.push(':');
        out.push_str(value);
        out.push('\n');
    };
    line('C', &package.identity.to_q1());
    line('P', &package.name);
    line('V', &package.version);
    if let Some(arch) = &package.arch {
        line('A', arch);
    }
    line('S', &package.size.to_string());
    line('I', &package.installed_size.to_string());
    line('T', &package.description);
    line('U', &package.url);
    line('L', &package.license);
    if let Some(origin) = &package.origin {
        line('o', origin);
    }
    if let Some(maintainer) = &package.maintainer {
        line('m', maintainer);
    }
    if let Some(time) = package.build_time {
        line('t', &time.to_string());
    }
    if let Some(commit) = &package.commit {
        line('c', commit);
    }
    if package.provider_priority != 0 {
        line('k', &package.provider_priority.to_string());
    }
    for (letter, list) in [
        ('D', &package.depends),
        ('p', &package.provides),
        ('i', &package.install_if),
    ] {
        if !list.is_empty() {
            line(letter, &join(list));
        }
    }
}

/// Returns whether a text can stand in a line: no line break, no NUL (commit.md, W1).
pub(super) fn fits_a_line(text: &str) -> bool {
    !text.bytes().any(|byte| matches!(byte, b'\n' | b'\r' | 0))
}
