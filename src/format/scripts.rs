//! The scripts archive, `lib/apk/db/scripts.tar[.gz]` (formats.md, 9.4).

use super::tar::{self, Kind};
use super::{FormatError, Limits};
use crate::package::{Identity, InstalledDb, InstalledPackage, ScriptKind};
use flate2::Compression;
use flate2::bufread::MultiGzDecoder;
use foldhash::HashMap;
use std::io::{BufRead, BufReader, Read, Write};

/// Reads the archive and hands each script to its package; scripts of unknown packages are
/// ignored.
///
/// # Errors
/// [`FormatError`] if the archive is damaged.
pub fn read(
    db: &mut InstalledDb,
    archive: impl BufRead,
    gzip: bool,
    limits: &Limits,
) -> Result<(), FormatError> {
    if gzip {
        read_tar(db, BufReader::new(MultiGzDecoder::new(archive)), limits)
    } else {
        read_tar(db, archive, limits)
    }
}

fn read_tar(db: &mut InstalledDb, archive: impl Read, limits: &Limits) -> Result<(), FormatError> {
    let owners: HashMap<Identity, usize> = db
        .packages
        .iter()
        .enumerate()
        .map(|(i, p)| (p.package.identity, i))
        .collect();
    let mut reader = tar::Reader::new(archive, *limits);
    while let Some(header) = reader.next_entry()? {
        let Some((identity, kind)) = parse_name(&header.path) else {
            continue;
        };
        let Some(owner) = owners.get(&identity) else {
            continue;
        };
        if !matches!(header.kind, Kind::File) {
            continue;
        }
        let content = reader.read_content(limits.script, "script")?;
        db.packages[*owner].scripts.insert(kind, content);
    }
    Ok(())
}

/// Takes `NAME-VERSION.DIGEST.TYPE` apart.
fn parse_name(name: &str) -> Option<(Identity, ScriptKind)> {
    let (rest, kind) = name.rsplit_once('.')?;
    let (_, digest) = rest.rsplit_once('.')?;
    Some((Identity::parse(digest)?, ScriptKind::from_name(kind)?))
}

fn entry_name(installed: &InstalledPackage, kind: ScriptKind) -> String {
    let package = &installed.package;
    format!(
        "{}.{}.{}",
        package.full_name(),
        package.identity.to_x1(),
        kind.name()
    )
}

/// Refuses names that the archive cannot hold, instead of losing the script (commit.md, W13).
pub(super) fn check_names(installed: &InstalledPackage) -> Result<(), FormatError> {
    match installed
        .scripts
        .keys()
        .find(|kind| entry_name(installed, **kind).len() > 255)
    {
        Some(kind) => Err(FormatError::Package {
            reason: format!(
                "{}: the name is too long to keep {}",
                installed.package.name,
                kind.name()
            ),
        }),
        None => Ok(()),
    }
}

/// Writes the archive: mode 0755, root, the time of the package's build.
pub fn write(db: &InstalledDb, gzip: bool) -> Vec<u8> {
    let mut order: Vec<&InstalledPackage> = db.packages.iter().collect();
    order.sort_by(|a, b| crate::package::order::by_name(&a.package.name, &b.package.name));
    let mut out = Vec::new();
    for installed in order {
        for (kind, script) in &installed.scripts {
            tar::write_gnu_entry(
                &mut out,
                &entry_name(installed, *kind),
                script,
                0o755,
                installed.package.build_time.unwrap_or(0),
            );
        }
    }
    out.extend_from_slice(&[0; 1024]);
    if !gzip {
        return out;
    }
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), Compression::default());
    encoder
        .write_all(&out)
        .and_then(|()| encoder.finish())
        .expect("memory takes everything")
}
