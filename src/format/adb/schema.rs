//! What the slots of packages and indexes mean (formats.md, chapter 5).
//!
//! Names and versions must be what they are; in texts for people what does not fit a line is
//! replaced, so that they cannot become lines of a database (commit.md, W1).

use super::AdbError;
use super::value::Slots;
use crate::format::{FormatError, record};
use crate::package::{Dependency, Operator, Package, ScriptKind, Version};

/// `pckg`: a package file.
pub const PACKAGE: [u8; 4] = *b"pckg";
/// `indx`: an index.
pub const INDEX: [u8; 4] = *b"indx";

/// Bytes of memory that a dependency takes, about.
const DEPENDENCY: u64 = 128;
/// Bytes of a description that are used; apk's bound.
const DESCRIPTION: usize = 512;

/// What is told of a package: in its file, and in an index.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PackageInfo {
    /// The package; the identity is not set.
    pub package: Package,
    /// The unique id in a package file, the identity in an index.
    pub hashes: Vec<u8>,
}

/// Reads a package info object.
///
/// # Errors
/// [`FormatError`] if a value is out of place, or a name or version is not UTF-8.
pub fn package_info(info: Slots<'_>) -> Result<PackageInfo, FormatError> {
    let optional = |number| -> Result<Option<String>, FormatError> {
        let text = exact(info.blob(number)?)?;
        Ok(Some(text).filter(|text| !text.is_empty()))
    };
    let mut description = free_text(info.blob(4)?);
    if description.len() > DESCRIPTION {
        let cut = (0..=DESCRIPTION).rfind(|at| description.is_char_boundary(*at));
        description.truncate(cut.unwrap_or(0));
    }
    let maintainer = free_text(info.blob(8)?);
    let commit = data_encoding::HEXLOWER.encode(info.blob(10)?);
    let mut package = Package {
        name: exact(info.blob(1)?)?,
        version: exact(info.blob(2)?)?,
        description,
        arch: optional(5)?,
        license: free_text(info.blob(6)?),
        origin: optional(7)?,
        maintainer: Some(maintainer).filter(|text| !text.is_empty()),
        url: free_text(info.blob(9)?),
        commit: Some(commit).filter(|text| !text.is_empty()),
        build_time: Some(info.number(11)?).filter(|time| *time != 0),
        installed_size: info.number(12)?,
        size: info.number(13)?,
        // A 16-bit field, as in the text formats.
        provider_priority: info.number(14)? as u16,
        ..Package::default()
    };
    let flaws = &mut package.flaws;
    let broken = dependencies(info.slots(15)?, &mut package.depends)?;
    flaws.uninstallable |= broken;
    flaws.broken_list |= broken;
    flaws.broken_list |= dependencies(info.slots(16)?, &mut package.provides)?;
    dependencies(info.slots(17)?, &mut package.replaces)?;
    if dependencies(info.slots(18)?, &mut package.install_if)? {
        flaws.broken_list = true;
        // Half a condition would trigger too often.
        let dropped = package.install_if.drain(..);
        package.mentions = dropped.map(|dependency| dependency.name).collect();
    }
    package.tags = strings(info.slots(21)?)?;
    let hashes = info.blob(3)?.to_vec();
    Ok(PackageInfo { package, hashes })
}

/// Reads a list of dependencies; returns whether one of them is broken. One that could not be
/// written down and read back as the same is left out.
fn dependencies(list: Slots<'_>, found: &mut Vec<Dependency>) -> Result<bool, FormatError> {
    let mut broken = false;
    for number in 1..=list.len() {
        let entry = list.slots(number)?;
        list.charge(DEPENDENCY)?;
        let (name, version) = (exact(entry.blob(1)?)?, exact(entry.blob(2)?)?);
        let mask = entry.number(3)?;
        let conflict = mask & 16 != 0;
        let operator = match (version.is_empty(), mask & 15) {
            (true, _) => Operator::ANY,
            (false, 0) => Operator::EQ,
            (false, mask) => Operator::from_mask(mask as u8),
        };
        let dependency = Dependency {
            operator,
            conflict,
            broken: !operator.ignores_order() && !Version(&version).is_valid(),
            version,
            ..Dependency::any(name)
        };
        let dependency = dependency.stored();
        let written = dependency.to_string();
        let separates = |byte: u8| matches!(byte, b' ' | b'\n');
        if written.bytes().any(separates)
            || dependency.name.is_empty()
            || !record::fits_a_line(&written)
            || Dependency::parse(&written).as_ref() != Ok(&dependency)
        {
            broken = true;
            continue;
        }
        broken |= dependency.broken;
        found.push(dependency);
    }
    Ok(broken)
}

/// Reads a list of texts that must be what they are and fit into a list.
fn strings(list: Slots<'_>) -> Result<Vec<String>, FormatError> {
    let mut found = Vec::new();
    for number in 1..=list.len() {
        let text = exact(list.blob(number)?)?;
        if text.is_empty() || text.contains(' ') || !record::fits_a_line(&text) {
            return Err(AdbError::schema(format!("{text:?} in a list")).into());
        }
        found.push(text);
    }
    Ok(found)
}

/// Reads the triggers of a package.
///
/// # Errors
/// [`FormatError`].
pub fn triggers(list: Slots<'_>) -> Result<Vec<String>, FormatError> {
    let mut found = Vec::new();
    for number in 1..=list.len() {
        // `mkpkg --trigger` takes several at once.
        let text = exact(list.blob(number)?)?;
        found.extend(
            text.split(' ')
                .filter(|glob| !glob.is_empty())
                .map(str::to_owned),
        );
    }
    match found.iter().find(|glob| !record::fits_a_line(glob)) {
        Some(glob) => Err(AdbError::schema(format!("trigger {glob:?}")).into()),
        None => Ok(found),
    }
}

/// Reads a scripts object; `take` gets each script that is there.
///
/// # Errors
/// [`FormatError`].
pub fn scripts(
    scripts: Slots<'_>,
    mut take: impl FnMut(ScriptKind, &[u8]) -> Result<(), FormatError>,
) -> Result<(), FormatError> {
    // The slots are in the order of the kinds.
    for (at, kind) in ScriptKind::ALL.into_iter().enumerate() {
        let text = scripts.blob(at + 1)?;
        if !text.is_empty() {
            take(kind, text)?;
        }
    }
    Ok(())
}

/// Who owns a file or directory, and who may do what with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Acl {
    /// Permission, set-id and sticky bits.
    pub mode: u32,
    /// Owner's name, may be empty.
    pub user: String,
    /// Group's name, may be empty.
    pub group: String,
    /// Extended attributes.
    pub xattrs: Vec<(String, Vec<u8>)>,
}

/// Reads an ACL object; one that is missing gives nobody any right.
///
/// # Errors
/// [`FormatError`].
pub fn acl(acl: Slots<'_>) -> Result<Acl, FormatError> {
    let list = acl.slots(4)?;
    let mut xattrs = Vec::new();
    for number in 1..=list.len() {
        let bytes = list.blob(number)?;
        let end = memchr::memchr(0, bytes);
        let end = end.ok_or_else(|| AdbError::schema("an extended attribute without name"))?;
        xattrs.push((exact(&bytes[..end])?, bytes[end + 1..].to_vec()));
    }
    Ok(Acl {
        mode: acl.number(1)? as u32 & 0o7777,
        user: exact(acl.blob(2)?)?,
        group: exact(acl.blob(3)?)?,
        xattrs,
    })
}

/// Returns a text that must not become another one.
///
/// # Errors
/// [`FormatError::Name`].
pub fn exact(bytes: &[u8]) -> Result<String, FormatError> {
    let text = std::str::from_utf8(bytes).map_err(|_| crate::format::not_utf8(bytes))?;
    Ok(text.to_owned())
}

/// Returns a text for people, as one line.
fn free_text(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    match record::fits_a_line(&text) {
        true => text.into_owned(),
        false => text.replace(['\n', '\r', '\0'], " "),
    }
}
