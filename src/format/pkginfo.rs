//! `.PKGINFO` (formats.md, 2.5).

use super::{FormatError, record};
use crate::package::{Dependency, DependencyList, Package};

/// What `.PKGINFO` says, `datahash` apart from the package.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PkgInfo {
    /// The package; identity and file size are not known here.
    pub package: Package,
    /// SHA-256 of the data member.
    pub data_hash: Option<[u8; 32]>,
}

/// Lines with texts for people.
const FREE_TEXTS: [&[u8]; 4] = [b"pkgdesc = ", b"url = ", b"license = ", b"maintainer = "];

/// Reads the text.
///
/// # Errors
/// [`FormatError::Package`] if a name, version or text cannot be used, [`FormatError::Name`] for one
/// that is not UTF-8.
pub fn parse(bytes: &[u8]) -> Result<PkgInfo, FormatError> {
    let mut info = PkgInfo::default();
    for line in bytes.split(|byte| *byte == b'\n') {
        let line = match std::str::from_utf8(line) {
            Ok(line) => line.into(),
            // Nothing depends on these: what is wrong in them is replaced.
            Err(_) if FREE_TEXTS.iter().any(|key| line.starts_with(key)) => {
                String::from_utf8_lossy(line)
            }
            Err(_) => return Err(super::not_utf8(line)),
        };
        let line = line.as_ref();
        if line.starts_with('#') {
            continue;
        }
        if !record::fits_a_line(line) {
            return Err(FormatError::Package {
                reason: format!("control characters in {line:?}"),
            });
        }
        if let Some((key, value)) = line.split_once(" = ") {
            store(&mut info, key, value);
        }
    }
    let package = &info.package;
    if package.name.is_empty() || package.version.is_empty() {
        return Err(FormatError::Package {
            reason: ".PKGINFO lacks pkgname or pkgver".into(),
        });
    }
    check_name(&package.name)?;
    Ok(info)
}

/// Refuses names that cannot be file names (commit.md, W20).
///
/// # Errors
/// [`FormatError::Package`].
pub fn check_name(name: &str) -> Result<(), FormatError> {
    let bad = name.is_empty()
        || name.starts_with(['.', '-']) && name.trim_start_matches(['.', '-']).is_empty()
        || name
            .bytes()
            .any(|byte| byte == b'/' || byte.is_ascii_control())
        // It stands for bytes that were no text: the name was another one.
        || name.contains(char::REPLACEMENT_CHARACTER);
    if bad {
        return Err(FormatError::Package {
            reason: format!("{name:?} is no package name"),
        });
    }
    Ok(())
}

fn store(info: &mut PkgInfo, key: &str, value: &str) {
    let package = &mut info.package;
    let owned = || value.to_owned();
    match key {
        "pkgname" => package.name = owned(),
        "pkgver" => package.version = owned(),
        "pkgdesc" => package.description = owned(),
        "url" => package.url = owned(),
        "builddate" => package.build_time = Some(record::number(value.as_bytes())),
        "size" => package.installed_size = record::number(value.as_bytes()),
        "arch" => package.arch = Some(owned()),
        "origin" => package.origin = Some(owned()),
        "commit" => package.commit = Some(owned()),
        "maintainer" => package.maintainer = Some(owned()),
        "license" => package.license = owned(),
        "depend" => {
            let broken = add(&mut package.depends, value);
            package.flaws.uninstallable |= broken;
            package.flaws.broken_list |= broken;
        }
        "provides" => package.flaws.broken_list |= add(&mut package.provides, value),
        "install_if" => {
            let broken = add(&mut package.install_if, value);
            package.flaws.broken_list |= broken;
            // Half a condition would trigger too often.
            package.install_if.retain(|_| !broken);
        }
        "replaces" => {
            add(&mut package.replaces, value);
        }
        "provider_priority" => package.provider_priority = record::number(value.as_bytes()) as u16,
        "replaces_priority" => package.replaces_priority = record::number(value.as_bytes()) as u16,
        "triggers" => {
            package.triggers = value
                .split(' ')
                .filter(|glob| !glob.is_empty())
                .map(str::to_owned)
                .collect();
        }
        "datahash" => {
            let bytes = data_encoding::HEXLOWER_PERMISSIVE
                .decode(value.as_bytes())
                .ok();
            info.data_hash = bytes.and_then(|bytes| bytes.try_into().ok());
        }
        _ => {}
    }
}

/// Appends a list; returns whether something in it is broken.
fn add(list: &mut Vec<Dependency>, value: &str) -> bool {
    let more = DependencyList::parse(value);
    let broken = more.malformed || more.has_broken();
    list.extend(more.entries);
    broken
}
