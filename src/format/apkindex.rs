//! The text of an APKINDEX (formats.md, 3.2).

use super::FormatError;
use super::record::{self, Field};
use crate::package::{Identity, Package};

/// Reads the records of an index text.
///
/// A last record that is not followed by an empty line is still taken if the text ends with it;
/// the reference drops it without a word.
///
/// # Errors
/// [`FormatError::Database`] for a line without colon, or a record without identity or version.
pub fn parse(text: &[u8]) -> Result<Vec<Package>, FormatError> {
    let (packages, error) = parse_prefix(text);
    error.map_or(Ok(packages), Err)
}

/// Reads records up to the first error, and returns both.
pub fn parse_prefix(text: &[u8]) -> (Vec<Package>, Option<FormatError>) {
    let mut packages = Vec::with_capacity(text.len() / 512);
    let mut package = Package::default();
    let mut number = 0;
    let mut rest = text;
    while !rest.is_empty() {
        let end = memchr::memchr(b'\n', rest).unwrap_or(rest.len());
        let line = &rest[..end];
        rest = rest.get(end + 1..).unwrap_or_default();
        number += 1;
        if line.len() < 2 {
            if let Err(error) = finish(&mut package, &mut packages, number) {
                return (packages, Some(error));
            }
            continue;
        }
        let stored = record::split(line, number).and_then(|(letter, value)| {
            record::store(&mut package, letter, value)
                .map_err(|record::InvalidIdentity| record::bad_line(line, number))
        });
        match stored {
            Ok(Field::Package | Field::Installed | Field::Unknown) => {}
            Err(error) => return (packages, Some(error)),
        }
    }
    let error = finish(&mut package, &mut packages, number).err();
    (packages, error)
}

fn finish(
    package: &mut Package,
    packages: &mut Vec<Package>,
    line: usize,
) -> Result<(), FormatError> {
    let package = std::mem::take(package);
    if package.name.is_empty() {
        return Ok(());
    }
    if package.identity == Identity::default() || package.version.is_empty() {
        let text = format!("the record of {} lacks C or V", package.name);
        return Err(FormatError::Database { line, text });
    }
    packages.push(package);
    Ok(())
}

/// Writes one record with the empty line that ends it.
pub fn write_record(package: &Package, out: &mut String) {
    record::write_head(package, out);
    out.push('\n');
}
