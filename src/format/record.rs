//! The lines that indexes and the installed database have in common (formats.md, 3.2).

use super::FormatError;
use crate::package::dependency::join;
use crate::package::{Dependency, DependencyList, Identity, Package};

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

/// Splits a line `X:value`.
///
/// # Errors
/// [`FormatError::Database`] if the second character is no colon.
pub(super) fn split(line: &[u8], number: usize) -> Result<(u8, &[u8]), FormatError> {
    match line {
        [letter, b':', value @ ..] => Ok((*letter, value)),
        _ => Err(bad_line(line, number)),
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
pub(super) fn store(
    package: &mut Package,
    letter: u8,
    value: &[u8],
) -> Result<Field, InvalidIdentity> {
    let text = || String::from_utf8_lossy(value).into_owned();
    match letter {
        b'C' => {
            let identity = std::str::from_utf8(value).ok().and_then(Identity::parse);
            package.identity = identity.ok_or(InvalidIdentity)?;
        }
        b'P' => package.name = text(),
        b'V' => package.version = text(),
        b'A' => package.arch = Some(text()),
        b'S' => package.size = number(value),
        b'I' => package.installed_size = number(value),
        b'T' => package.description = text(),
        b'U' => package.url = text(),
        b'L' => package.license = text(),
        b'o' => package.origin = Some(text()),
        b'm' => package.maintainer = Some(text()),
        b't' => package.build_time = Some(number(value)),
        b'c' => package.commit = Some(text()),
        // A 16-bit field: 65536 becomes 0, as in apk.
        b'k' => package.provider_priority = number(value) as u16,
        b'D' => {
            let list = DependencyList::parse(&text());
            if list.malformed || list.has_broken() {
                package.flaws.uninstallable = true;
                package.flaws.broken_list = true;
            }
            append(&mut package.depends, list.entries);
        }
        b'p' => {
            let list = DependencyList::parse(&text());
            package.flaws.broken_list |= list.malformed || list.has_broken();
            append(&mut package.provides, list.entries);
        }
        b'i' => {
            let list = DependencyList::parse(&text());
            if list.malformed || list.has_broken() {
                package.flaws.broken_list = true;
                let dropped = package.install_if.drain(..).chain(list.entries);
                package.mentions.extend(dropped.map(|entry| entry.name));
            } else {
                append(&mut package.install_if, list.entries);
            }
        }
        b'F' | b'M' | b'R' | b'Z' | b'r' | b'q' | b'a' | b's' | b'f' | b'g' => {
            return Ok(Field::Installed);
        }
        other => {
            package.flaws.unknown_field = true;
            package.flaws.uninstallable |= !other.is_ascii_lowercase();
            return Ok(Field::Unknown);
        }
    }
    Ok(Field::Package)
}

/// The value of `C` is no digest.
#[derive(Clone, Copy, Debug)]
pub(super) struct InvalidIdentity;

fn append(list: &mut Vec<Dependency>, more: Vec<Dependency>) {
    if list.is_empty() {
        *list = more
    } else {
        list.extend(more)
    }
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
