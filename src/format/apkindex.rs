//! The text of an APKINDEX (formats.md, 3.2).

use super::FormatError;
use super::record;
use crate::package::{Identity, Package, Stated};

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
    let error = each(text, |stated| {
        let mut package = Package::default();
        stated.fill(&mut package);
        packages.push(package);
    });
    (packages, error.err())
}

/// Calls `take` with each record up to the first error.
///
/// # Errors
/// Those of [`parse`].
pub fn each(text: &[u8], mut take: impl FnMut(&Stated<'_>)) -> Result<(), FormatError> {
    let utf8 = record::utf8(text);
    let mut stated = Stated::default();
    let mut number = 0;
    for (line, raw) in record::lines(&utf8, text) {
        number += 1;
        if raw.len() < 2 {
            finish(&mut stated, number, &mut take)?;
            continue;
        }
        let (letter, value) = record::split(line, raw, number)?;
        record::store(&mut stated, letter, value)
            .map_err(|record::InvalidIdentity| record::bad_line(raw, number))?;
    }
    finish(&mut stated, number, &mut take)
}

fn finish(
    stated: &mut Stated<'_>,
    line: usize,
    take: &mut impl FnMut(&Stated<'_>),
) -> Result<(), FormatError> {
    if !stated.name.is_empty() {
        if stated.identity == Identity::default() || stated.version.is_empty() {
            let text = format!("the record of {} lacks C or V", stated.name);
            return Err(FormatError::Database { line, text });
        }
        take(stated);
    }
    stated.clear();
    Ok(())
}

/// Writes one record with the empty line that ends it.
pub fn write_record(package: &Package, out: &mut String) {
    record::write_head(package, out);
    out.push('\n');
}
