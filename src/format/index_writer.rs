//! Writes `APKINDEX.tar.gz` (formats.md, 3.1) as `apk index` does.

use super::package_writer::{WriteError, gzip, signature_member, unfit};
use super::{apkindex, record, tar};
use crate::package::{Index, Package};
use crate::trust::SigningKey;

/// Writes an index: the description if it has one, the records in order, and a signature in front
/// if there is a key. `mtime` is the time that the entries carry.
///
/// # Errors
/// [`WriteError`] if a field does not fit a line, or signing fails.
pub fn write(index: &Index, mtime: u64, key: Option<&SigningKey>) -> Result<Vec<u8>, WriteError> {
    let member = gzip(&tar(index, mtime)?);
    let mut file = match key {
        Some(key) => signature_member(key, &member)?,
        None => Vec::new(),
    };
    file.extend_from_slice(&member);
    Ok(file)
}

/// Returns the tar inside the index.
fn tar(index: &Index, mtime: u64) -> Result<Vec<u8>, WriteError> {
    let mut records = String::new();
    for package in &index.packages {
        check(package)?;
        apkindex::write_record(package, &mut records);
    }
    let mut out = Vec::new();
    if !index.description.is_empty() {
        let description = index.description.as_bytes();
        tar::write_gnu_entry(&mut out, "DESCRIPTION", description, 0o644, mtime);
    }
    tar::write_gnu_entry(&mut out, "APKINDEX", records.as_bytes(), 0o644, mtime);
    out.extend_from_slice(&[0; 1024]);
    Ok(out)
}

/// Refuses a record that would be read back as something else (commit.md, W1).
fn check(package: &Package) -> Result<(), WriteError> {
    let texts = [
        Some(&package.name),
        Some(&package.version),
        package.arch.as_ref(),
        Some(&package.description),
        Some(&package.url),
        Some(&package.license),
        package.origin.as_ref(),
        package.maintainer.as_ref(),
        package.commit.as_ref(),
    ];
    let lists = [&package.depends, &package.provides, &package.install_if];
    let mut words = lists.iter().flat_map(|list| list.iter());
    let fits = texts.into_iter().flatten().all(|t| record::fits_a_line(t))
        && words.all(|word| record::fits_a_line(&word.to_string()));
    if fits && !package.name.is_empty() && !package.version.is_empty() {
        Ok(())
    } else {
        let name = package.full_name().escape_debug().to_string();
        Err(unfit(name, "a field does not fit a line of an index"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::Limits;
    use crate::format::index::UnverifiedIndex;
    use crate::package::Identity;

    #[test]
    fn what_is_written_is_read() {
        let package = Package {
            identity: Identity([7; 20]),
            name: "a".into(),
            version: "1-r0".into(),
            arch: Some("noarch".into()),
            size: 5,
            description: "ä: b".into(),
            ..Package::default()
        };
        let index = Index {
            made: 0,
            description: "test".into(),
            packages: vec![package],
        };
        let file = write(&index, 0, None).unwrap();
        assert_eq!(file[..10], [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 2, 3]);
        let read = UnverifiedIndex::read(&file, &Limits::default()).unwrap();
        assert_eq!(read.parse().unwrap(), index);
        let mut bad = index;
        bad.packages[0].description = "x\nC:y".into();
        assert!(write(&bad, 0, None).is_err());
    }
}
