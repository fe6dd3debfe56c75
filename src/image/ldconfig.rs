//! The cache of glibc's dynamic linker, `etc/ld.so.cache`: which name of a library is which file.
//!
//! ```text
//! "glibc-ld.so.cache1.1", number of entries, bytes of texts, byte order, reserved   48 bytes
//! one entry: kind, offset of the name, offset of the path, reserved                 24 bytes
//! texts, each with a NUL
//! ```
//!
//! Entries are in the falling order in which the linker searches; of two with one name the
//! directory that is searched first comes first. Libraries for particular processors
//! (`glibc-hwcaps`) are left out: the linker takes the ones for all processors then.

use crate::root::{Root, RootError, split};
use elf::ElfBytes;
use elf::abi;
use elf::endian::AnyEndian;
use elf::file::Class;
use rustix::fs::FileType;
use std::cmp::Ordering;
use std::collections::BTreeSet;

const CONFIGURATION: &str = "etc/ld.so.conf";
const CACHE: &str = "etc/ld.so.cache";

/// Searched after what is configured.
const USUAL: [&str; 4] = ["lib", "usr/lib", "lib64", "usr/lib64"];

/// How deep files may include each other.
const DEEPEST: u32 = 8;

/// Bytes of a library that are looked at; where names are is never behind them.
const MOST: u64 = 512 << 20;

const MAGIC: &[u8] = b"glibc-ld.so.cache1.1";
const HEADER: usize = 48;
const ENTRY: usize = 24;
const LITTLE: u8 = 2;
const BIG: u8 = 3;

/// A library by the name that programs ask for.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Library {
    name: String,
    path: String,
    kind: u32,
    big: bool,
}

/// Writes the cache, if the tree has a dynamic linker that reads one.
///
/// # Errors
/// [`RootError`].
pub(super) fn update(root: &Root) -> Result<(), RootError> {
    if root.read(CONFIGURATION)?.is_none() {
        return Ok(());
    }
    let tree = root.tree().expect("an image is built in memory");
    let mut folders = Vec::new();
    configured(root, CONFIGURATION, 0, &mut folders)?;
    folders.extend(USUAL.map(str::to_owned));
    let mut seen = BTreeSet::new();
    let mut libraries = Vec::new();
    for folder in folders {
        // A directory that is reached in two ways is searched once.
        let Some(real) = tree.real_path(&folder) else {
            continue;
        };
        if seen.insert(real) {
            search(root, &folder, &mut libraries)?;
        }
    }
    root.replace(CACHE, &write(libraries), 0o644, false)
}

/// Reads the directories of a configuration file and of those it includes.
fn configured(
    root: &Root,
    path: &str,
    depth: u32,
    folders: &mut Vec<String>,
) -> Result<(), RootError> {
    let Some(text) = root.read(path)?.filter(|_| depth < DEEPEST) else {
        return Ok(());
    };
    for line in String::from_utf8_lossy(&text).lines() {
        let line = line.split('#').next().unwrap_or_default().trim();
        if let Some(rest) = line
            .strip_prefix("include")
            .filter(|r| r.starts_with([' ', '\t']))
        {
            for pattern in rest.split_whitespace() {
                for path in matching(root, split(path).0, pattern)? {
                    configured(root, &path, depth + 1, folders)?;
                }
            }
            continue;
        }
        // What kind of library a directory has is seen in the libraries.
        let folder = line.split('=').next().unwrap_or_default().trim();
        let folder = folder.trim_end_matches('/');
        if let Some(folder) = folder.strip_prefix('/')
            && !folder.is_empty()
        {
            folders.push(folder.to_owned());
        }
    }
    Ok(())
}

/// Returns the files that a pattern names, sorted; it may have wild cards in its last part.
fn matching(root: &Root, beside: &str, pattern: &str) -> Result<Vec<String>, RootError> {
    let pattern = match pattern.strip_prefix('/') {
        Some(absolute) => absolute.to_owned(),
        None => format!("{beside}/{pattern}"),
    };
    let (folder, last) = split(&pattern);
    let options = crate::package::glob::Options {
        pathname: true,
        ignore_case: false,
    };
    let mut found = Vec::new();
    for name in root.list(folder)? {
        if let Some(name) = name.to_str()
            && crate::package::glob::matches(last, name, options)
        {
            found.push(format!("{folder}/{name}"));
        }
    }
    found.sort();
    Ok(found)
}

/// Finds the libraries of one directory.
fn search(root: &Root, folder: &str, libraries: &mut Vec<Library>) -> Result<(), RootError> {
    let tree = root.tree().expect("an image is built in memory");
    let mut names = root.list(folder)?;
    names.sort();
    let mut here: Vec<Library> = Vec::new();
    for name in names.iter().filter_map(|name| name.to_str()) {
        let library = name.starts_with("lib") || name.starts_with("ld-");
        if !library || !name.contains(".so") {
            continue;
        }
        let path = format!("{folder}/{name}");
        let Some(real) = tree.real_path(&path) else {
            continue;
        };
        let Some(stat) = root.stat(&real)? else {
            continue;
        };
        if stat.kind != FileType::RegularFile || stat.size > MOST {
            continue;
        }
        let bytes = root.read(&real)?.unwrap_or_default();
        let Some((kind, big, given)) = look_at(&bytes) else {
            continue;
        };
        let given = given.unwrap_or_else(|| name.to_owned());
        // `libx.so` that leads to `libx.so.1` is for who links programs, and has a name of its own.
        let is_link = path != real && split(&real).1 != name;
        let for_linking = is_link && name.ends_with(".so") && given.starts_with(name);
        let asked = if for_linking { name } else { given.as_str() };
        let new = Library {
            path: format!("/{path}"),
            name: asked.to_owned(),
            kind,
            big,
        };
        let known = here
            .iter_mut()
            .find(|known| known.name == new.name && known.kind == kind);
        match known {
            // The file of that very name is the one; else the last, which has the highest number.
            Some(known) if split(&known.path).1 == known.name => {}
            Some(known) => *known = new,
            None => here.push(new),
        }
    }
    libraries.append(&mut here);
    Ok(())
}

/// Returns what kind of library a file is, whether its numbers begin with the big end, and the name
/// it says it has; `None` if it is none.
fn look_at(bytes: &[u8]) -> Option<(u32, bool, Option<String>)> {
    let file = ElfBytes::<AnyEndian>::minimal_parse(bytes).ok()?;
    let header = file.ehdr;
    if header.e_type != abi::ET_DYN {
        return None;
    }
    let kind = kind(header.e_machine, header.class, header.e_flags)?;
    let segments = file.segments()?;
    let (mut name, mut texts) = (None, None);
    for entry in file.dynamic().ok()??.iter() {
        match entry.d_tag {
            abi::DT_SONAME => name = Some(entry.d_val()),
            abi::DT_STRTAB => texts = Some(entry.d_ptr()),
            _ => {}
        }
    }
    let named = name.and_then(|name| {
        let address = texts?;
        let segment = segments.iter().find(|segment| {
            segment.p_type == abi::PT_LOAD
                && address
                    .checked_sub(segment.p_vaddr)
                    .is_some_and(|at| at < segment.p_filesz)
        })?;
        let at = (address - segment.p_vaddr)
            .checked_add(segment.p_offset)?
            .checked_add(name)?;
        let rest = bytes.get(usize::try_from(at).ok()?..)?;
        let text = rest.split(|byte| *byte == 0).next()?;
        let text = std::str::from_utf8(text).ok()?;
        // It becomes part of a path.
        (!text.is_empty() && !text.contains('/') && text.len() < 256).then(|| text.to_owned())
    });
    Some((kind, header.endianness == AnyEndian::Big, named))
}

/// Returns the number of a kind of library: for glibc, and for a processor and its conventions.
fn kind(machine: u16, class: Class, flags: u32) -> Option<u32> {
    const GLIBC: u32 = 3;
    let wide = class == Class::ELF64;
    let processor = match machine {
        abi::EM_386 => 0,
        abi::EM_X86_64 if wide => 0x0300,
        abi::EM_X86_64 => 0x0800,
        abi::EM_S390 if wide => 0x0400,
        abi::EM_PPC64 => 0x0500,
        abi::EM_ARM if flags & abi::EF_ARM_ABI_FLOAT_HARD != 0 => 0x0900,
        abi::EM_ARM => 0x0b00,
        abi::EM_AARCH64 => 0x0a00,
        // Only numbers with double precision in registers are in use.
        abi::EM_RISCV if wide && flags & abi::EF_RISCV_FLOAT_ABI_DOUBLE != 0 => 0x1000,
        _ => return None,
    };
    Some(GLIBC | processor)
}

/// Compares as the linker does: digits are numbers, and more than other characters.
fn compare(a: &str, b: &str) -> Ordering {
    let (mut a, mut b) = (a.as_bytes(), b.as_bytes());
    let number = |text: &mut &[u8]| {
        let mut value = 0_u64;
        while let Some((digit, rest)) = text.split_first().filter(|(c, _)| c.is_ascii_digit()) {
            value = value
                .saturating_mul(10)
                .saturating_add(u64::from(digit - b'0'));
            *text = rest;
        }
        value
    };
    loop {
        let digits = |text: &[u8]| text.first().is_some_and(u8::is_ascii_digit);
        match (digits(a), digits(b)) {
            (true, true) => match number(&mut a).cmp(&number(&mut b)) {
                Ordering::Equal => {}
                other => return other,
            },
            (true, false) => return Ordering::Greater,
            (false, true) => return Ordering::Less,
            _ => match (a.split_first(), b.split_first()) {
                (Some((first, rest_a)), Some((second, rest_b))) if first == second => {
                    (a, b) = (rest_a, rest_b);
                }
                (first, second) => {
                    return first.map(|(c, _)| c).cmp(&second.map(|(c, _)| c));
                }
            },
        }
    }
}

/// Writes the file.
fn write(mut libraries: Vec<Library>) -> Vec<u8> {
    // The sort keeps the order of directories.
    libraries.sort_by(|a, b| compare(&b.name, &a.name).then(b.kind.cmp(&a.kind)));
    let big = libraries.first().is_some_and(|library| library.big);
    libraries.retain(|library| library.big == big);
    let mut texts = Vec::new();
    let start = HEADER + ENTRY * libraries.len();
    let number = |number: usize| match (number as u32, big) {
        (number, true) => number.to_be_bytes(),
        (number, false) => number.to_le_bytes(),
    };
    let mut entries = Vec::new();
    for library in &libraries {
        // The name is the end of the path, mostly.
        let path = start + texts.len();
        texts.extend_from_slice(library.path.as_bytes());
        texts.push(0);
        let name = if split(&library.path).1 == library.name {
            path + library.path.len() - library.name.len()
        } else {
            let name = start + texts.len();
            texts.extend_from_slice(library.name.as_bytes());
            texts.push(0);
            name
        };
        entries.extend_from_slice(&number(library.kind as usize));
        entries.extend_from_slice(&number(name));
        entries.extend_from_slice(&number(path));
        entries.extend_from_slice(&[0; ENTRY - 12]);
    }
    let mut out = MAGIC.to_vec();
    out.extend_from_slice(&number(libraries.len()));
    out.extend_from_slice(&number(texts.len()));
    out.push(if big { BIG } else { LITTLE });
    out.resize(HEADER, 0);
    out.extend(entries);
    out.extend(texts);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_in_the_order_of_the_linker() {
        let mut names = [
            "libz.so.1",
            "liba.so.10",
            "liba.so.9",
            "liba.so",
            "libb-2.so",
            "libb2.so",
            "ld-x.so.2",
        ];
        names.sort_by(|a, b| compare(b, a));
        let wanted = [
            "libz.so.1",
            "libb2.so",
            "libb-2.so",
            "liba.so.10",
            "liba.so.9",
            "liba.so",
            "ld-x.so.2",
        ];
        assert_eq!(names, wanted);
        assert_eq!(compare("lib1", "lib01"), Ordering::Equal);
    }

    #[test]
    fn an_empty_cache_is_a_header() {
        let bytes = write(Vec::new());
        assert_eq!(bytes.len(), HEADER);
        assert_eq!((&bytes[..20], bytes[28]), (MAGIC, LITTLE));
    }

    #[test]
    fn what_is_no_library_is_passed_over() {
        for bytes in [&b""[..], b"\x7fELF", b"#!/bin/sh\n", &[0x7f; 100]] {
            assert!(look_at(bytes).is_none());
        }
    }
}
