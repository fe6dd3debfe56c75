//! `lib/apk/db/installed` (formats.md, 9.3).

use super::record::{self, Field, bad_line};
use super::{FormatError, scripts};
use crate::package::dependency::join;
use crate::package::{
    Acl, DependencyList, Digest, DigestAlgorithm, InstalledDb, InstalledDirectory, InstalledFile,
    InstalledPackage, Stated,
};
use std::fmt::Write as _;

/// Reads the database text.
///
/// A text that ends within a line was cut off while it was written; as in apk the record that it
/// ends in is not there then, and the next change installs that package again.
///
/// # Errors
/// [`FormatError::Database`] with the line, or [`FormatError::TooNew`] for unknown letters after
/// the first line that only installed packages have, unless `allow_unknown`.
pub fn parse(text: &[u8], allow_unknown: bool) -> Result<InstalledDb, FormatError> {
    let mut db = InstalledDb::default();
    let utf8 = record::utf8(text);
    let mut current = Reader::default();
    let mut number = 0;
    let is_cut = text.last().is_some_and(|last| *last != b'\n');
    let mut lines = record::lines(&utf8, text).peekable();
    while let Some((line, raw)) = lines.next() {
        number += 1;
        if is_cut && lines.peek().is_none() {
            return Ok(db);
        }
        if raw.len() < 2 {
            current.finish(&mut db, number)?;
        } else {
            current.line(line, raw, number, allow_unknown)?;
        }
    }
    current.finish(&mut db, number)?;
    Ok(db)
}

/// The record being read.
#[derive(Default)]
struct Reader<'a> {
    stated: Stated<'a>,
    installed: InstalledPackage,
    in_files: bool,
}

impl<'a> Reader<'a> {
    fn line(
        &mut self,
        line: &'a str,
        raw: &[u8],
        number: usize,
        lax: bool,
    ) -> Result<(), FormatError> {
        let (letter, text) = record::split(line, raw, number)?;
        let bad = || bad_line(raw, number);
        match record::store(&mut self.stated, letter, text).map_err(|_| bad())? {
            Field::Package => return Ok(()),
            Field::Unknown if self.in_files && !lax => return Err(FormatError::TooNew),
            Field::Unknown => return Ok(()),
            Field::Installed => self.in_files = true,
        }
        // A path must be what it is on disk; only texts for people may have replacements.
        if line.as_bytes() != raw {
            return Err(super::not_utf8(raw));
        }
        let package = &mut self.installed.package;
        match letter {
            b'g' => package.tags = text.split(' ').map(str::to_owned).collect(),
            b'r' => package.replaces.extend(DependencyList::parse(text).entries),
            b'q' => package.replaces_priority = record::number(text.as_bytes()) as u16,
            b's' => self.installed.pinned_tag = Some(text.to_owned()),
            b'f' => self.flags(text, lax)?,
            b'F' => self.installed.directories.push(InstalledDirectory {
                path: text.to_owned(),
                acl: Acl::directory_default(),
                files: Vec::new(),
            }),
            b'M' => self.directory().ok_or_else(bad)?.acl = self::acl(text).ok_or_else(bad)?,
            b'R' => self.directory().ok_or_else(bad)?.files.push(InstalledFile {
                name: text.to_owned(),
                acl: Acl::file_default(),
                digest: None,
            }),
            b'a' => self.file().ok_or_else(bad)?.acl = self::acl(text).ok_or_else(bad)?,
            _ => {
                let digest = Digest::parse(text).ok_or_else(bad)?;
                self.file().ok_or_else(bad)?.digest = Some(digest);
            }
        }
        Ok(())
    }

    fn directory(&mut self) -> Option<&mut InstalledDirectory> {
        self.installed.directories.last_mut()
    }

    fn file(&mut self) -> Option<&mut InstalledFile> {
        self.directory()?.files.last_mut()
    }

    fn flags(&mut self, text: &str, lax: bool) -> Result<(), FormatError> {
        for letter in text.chars() {
            match letter {
                'f' => self.installed.broken.files = true,
                's' => self.installed.broken.script = true,
                'x' => self.installed.broken.xattrs = true,
                'S' => self.installed.sha256_160 = true,
                _ if lax => {}
                _ => return Err(FormatError::TooNew),
            }
        }
        Ok(())
    }

    fn finish(&mut self, db: &mut InstalledDb, number: usize) -> Result<(), FormatError> {
        let mut installed = std::mem::take(&mut self.installed);
        self.in_files = false;
        self.stated.fill(&mut installed.package);
        self.stated.clear();
        let package = &installed.package;
        if package.name.is_empty() {
            return Ok(());
        }
        if package.version.is_empty() || package.identity == Default::default() {
            let text = format!("the record of {} lacks C or V", package.name);
            return Err(FormatError::Database { line: number, text });
        }
        if installed.sha256_160 {
            let files = installed.directories.iter_mut().flat_map(|d| &mut d.files);
            for digest in files.filter_map(|file| file.digest.as_mut()) {
                *digest = Digest::new(DigestAlgorithm::Sha256Truncated, digest.as_bytes());
            }
        }
        db.packages.push(installed);
        Ok(())
    }
}

/// Reads `uid:gid:mode[:digest]`.
fn acl(text: &str) -> Option<Acl> {
    let mut parts = text.splitn(4, ':');
    Some(Acl {
        uid: parts.next()?.parse().ok()?,
        gid: parts.next()?.parse().ok()?,
        mode: u32::from_str_radix(parts.next()?, 8).ok()?,
        xattrs: parts
            .next()
            .map(Digest::parse)
            .map_or(Some(None), |digest| digest.map(Some))?,
    })
}

/// Writes the database the way 3.0.6 does: records sorted by name, files sorted in directories.
///
/// # Errors
/// [`FormatError::Package`] if a text would not fit a line; such a database must not be written.
pub fn write(db: &InstalledDb) -> Result<Vec<u8>, FormatError> {
    let mut order: Vec<&InstalledPackage> = db.packages.iter().collect();
    order.sort_by(|a, b| crate::package::order::by_name(&a.package.name, &b.package.name));
    // About what a record and a file of it take.
    let mut out = String::with_capacity(512 * order.len() + 64 * db.file_count());
    for installed in order {
        write_package(installed, &mut out)?;
    }
    Ok(out.into_bytes())
}

fn write_package(installed: &InstalledPackage, out: &mut String) -> Result<(), FormatError> {
    check(installed)?;
    let package = &installed.package;
    record::write_head(package, out);
    let write = |out: &mut String, text: std::fmt::Arguments<'_>| {
        out.write_fmt(text).expect("a String takes everything");
    };
    if !package.tags.is_empty() {
        write(out, format_args!("g:{}\n", package.tags.join(" ")));
    }
    if !package.replaces.is_empty() {
        write(out, format_args!("r:{}\n", join(&package.replaces)));
    }
    if package.replaces_priority != 0 {
        write(out, format_args!("q:{}\n", package.replaces_priority));
    }
    if let Some(tag) = &installed.pinned_tag {
        write(out, format_args!("s:{tag}\n"));
    }
    let letters = [
        (installed.broken.files, 'f'),
        (installed.broken.script, 's'),
        (installed.broken.xattrs, 'x'),
        (installed.sha256_160, 'S'),
    ];
    let flags: String = letters
        .iter()
        .filter(|(set, _)| *set)
        .map(|(_, letter)| *letter)
        .collect();
    if !flags.is_empty() {
        write(out, format_args!("f:{flags}\n"));
    }
    for directory in &installed.directories {
        write(out, format_args!("F:{}\n", directory.path));
        if directory.acl != Acl::directory_default() {
            write(out, format_args!("M:{}\n", acl_text(&directory.acl)));
        }
        let mut files: Vec<&InstalledFile> = directory.files.iter().collect();
        files.sort_by(|a, b| a.name.cmp(&b.name));
        for file in files {
            write(out, format_args!("R:{}\n", file.name));
            if file.acl != Acl::file_default() {
                write(out, format_args!("a:{}\n", acl_text(&file.acl)));
            }
            if let Some(digest) = &file.digest {
                write(out, format_args!("Z:{}\n", digest.to_q1()));
            }
        }
    }
    out.push('\n');
    Ok(())
}

fn acl_text(acl: &Acl) -> String {
    let digest = acl
        .xattrs
        .as_ref()
        .map(|d| format!(":{}", d.to_q1()))
        .unwrap_or_default();
    format!("{}:{}:{:o}{digest}", acl.uid, acl.gid, acl.mode)
}

/// Refuses what would make the database unreadable (commit.md, W1).
///
/// # Errors
/// [`FormatError::Package`] with the reason.
pub fn check(installed: &InstalledPackage) -> Result<(), FormatError> {
    let package = &installed.package;
    let optional = [
        &package.arch,
        &package.origin,
        &package.maintainer,
        &package.commit,
    ];
    let texts = [
        &package.name,
        &package.version,
        &package.description,
        &package.url,
        &package.license,
    ];
    let names = installed.directories.iter().flat_map(|directory| {
        std::iter::once(&directory.path).chain(directory.files.iter().map(|file| &file.name))
    });
    let all = texts
        .into_iter()
        .chain(optional.into_iter().flatten())
        .chain(names);
    for text in all.chain(&package.tags).chain(&installed.pinned_tag) {
        if !record::fits_a_line(text) {
            let reason = format!("{}: control characters in {text:?}", package.name);
            return Err(FormatError::Package { reason });
        }
    }
    scripts::check_names(installed)
}
