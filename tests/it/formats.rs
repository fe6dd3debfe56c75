//! Every real package, index and database is read, verified, and written back.

use crate::support;
use ibex::format::apk::{EntryKind, PackageReader};
use ibex::format::index::UnverifiedIndex;
use ibex::format::{Limits, installed, scripts, triggers};
use ibex::trust::Keyring;

use std::fs;
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};

/// Returns the files below a folder whose name ends in `suffix`.
fn files(folder: &Path, suffix: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).expect("a folder of the data") {
        let path = entry.expect("a readable folder").path();
        if path.is_dir() {
            found.extend(files(&path, suffix));
        } else if path.to_string_lossy().ends_with(suffix) {
            found.push(path);
        }
    }
    found.sort();
    found
}

fn keyring(folders: &[&str]) -> Keyring {
    let mut keyring = Keyring::new();
    for folder in folders {
        let folder = support::data(folder).expect("present");
        for file in [files(&folder, ".pub"), files(&folder, ".pem")].concat() {
            let name = file
                .file_name()
                .expect("a file")
                .to_string_lossy()
                .into_owned();
            keyring
                .add(&name, &fs::read(&file).expect("a key"))
                .expect("a public key");
        }
    }
    keyring
}

/// Reads a package to its end; returns the number of files whose checksum was compared.
fn check_package(path: &Path, keyring: &Keyring) -> Result<usize, String> {
    let file = fs::File::open(path).expect("a package");
    let length = file.metadata().expect("an open file").len();
    let limits = Limits::default();
    let (control, mut data) = PackageReader::open(BufReader::with_capacity(1 << 16, file), &limits)
        .map_err(|error| error.to_string())?;
    keyring
        .check(&control.signatures, &control.digests)
        .map_err(|error| error.to_string())?;
    let mut compared = 0;
    while let Some(entry) = data.next_entry().map_err(|error| error.to_string())? {
        assert_eq!(entry.malicious, None, "{}", path.display());
        let content = match &entry.header.kind {
            EntryKind::File => {
                let mut content = Vec::new();
                data.read_to_end(&mut content)
                    .map_err(|error| error.to_string())?;
                content
            }
            EntryKind::Symlink(target) => target.clone().into_bytes(),
            _ => continue,
        };
        let wanted = entry.header.checksum;
        if !wanted.is_some() || !wanted.fits(&content) {
            return Err(format!("checksum of {}", entry.path));
        }
        compared += 1;
    }
    assert_eq!(data.finish().map_err(|error| error.to_string())?, length);
    Ok(compared)
}

#[test]
fn every_real_package_is_what_it_says() {
    let keys = [
        "alpine-v3.19/keys",
        "alpine-v3.13-aarch64/keys",
        "alpine-branches/keys",
        "index/keys",
    ];
    if support::data("alpine-v3.19").is_none() {
        return;
    }
    let keyring = keyring(&keys);
    let mut compared = 0;
    for set in [
        "alpine-v3.19",
        "alpine-v3.19-cache",
        "alpine-v3.13-aarch64",
        "alpine-branches",
    ] {
        let packages = files(&support::data(set).expect("present"), ".apk");
        assert!(packages.len() > 50, "{set}");
        for package in packages {
            compared += check_package(&package, &keyring)
                .unwrap_or_else(|error| panic!("{}: {error}", package.display()));
        }
    }
    assert!(compared > 8_000, "{compared} checksums compared");
}

#[test]
fn every_real_v3_package_and_index_is_what_it_says() {
    if support::data("apk-v3").is_none() {
        return;
    }
    // One key signs with ECDSA, the other with RSA.
    let keyring = keyring(&["apk-v3/mossdef", "alpine-branches/keys"]);
    let limits = Limits::default();
    let mut compared = 0;
    for (set, records) in [("melmac", 13), ("mossdef", 15), ("standins", 21)] {
        let folder = support::data("apk-v3").expect("present").join(set);
        let bytes = fs::read(folder.join("packages.adb")).expect("an index");
        let index = UnverifiedIndex::read(&bytes, &limits).expect("an index");
        let by = keyring.check(&index.signatures, &index.digests);
        assert!(by.is_ok(), "{set}: {by:?}");
        let index = index.parse().expect("an index");
        assert_eq!(index.packages.len(), records, "{set}");
        let unknown = Keyring::new();
        for listed in &index.packages {
            let path = folder.join(format!("{}.apk", listed.full_name()));
            if listed.name == "pia-wg-monitor" {
                assert!(!path.exists());
                continue;
            }
            compared += check_package(&path, &keyring)
                .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            let file = fs::read(&path).expect("a package");
            let (control, _) = PackageReader::open(file.as_slice(), &limits).expect("a package");
            assert_eq!(control.identity, listed.identity, "{}", path.display());
            assert_eq!(listed.size, file.len() as u64);
            let untrusted = unknown.check(&control.signatures, &control.digests);
            assert!(untrusted.is_err());
        }
    }
    assert!(compared > 150, "{compared} checksums compared");
}

#[test]
fn every_real_index_is_verified_and_parsed() {
    let Some(folder) = support::data("index") else {
        return;
    };
    let keyring = keyring(&["index/keys"]);
    let limits = Limits::default();
    let mut packages = 0;
    for set in ["alpine", "snapshots"] {
        for path in files(&folder.join(set), ".tar.gz") {
            let bytes = fs::read(&path).expect("an index");
            let index = UnverifiedIndex::read(&bytes, &limits).expect("an index");
            keyring
                .check(&index.signatures, &index.digests)
                .unwrap_or_else(|error| panic!("{}: {}", path.display(), error.explanation()));
            packages += index.parse().expect("records").packages.len();
        }
    }
    assert!(packages > 100_000, "{packages} records");
    for path in files(&folder.join("broken"), ".tar.gz") {
        let bytes = fs::read(&path).expect("an index");
        let accepted = UnverifiedIndex::read(&bytes, &limits)
            .is_ok_and(|index| keyring.check(&index.signatures, &index.digests).is_ok());
        assert!(!accepted, "{}", path.display());
    }
}

#[test]
fn real_databases_are_written_back_as_they_were() {
    let Some(folder) = support::data("expected/apk-3.0.6") else {
        return;
    };
    for path in files(&folder, ".installed") {
        let text = fs::read(&path).expect("a database");
        let db = installed::parse(&text, false).expect("a database of apk 3.0.6");
        let written = installed::write(&db).expect("it came from a database");
        assert_eq!(
            String::from_utf8_lossy(&text),
            String::from_utf8_lossy(&written),
            "{}",
            path.display()
        );
    }
    for path in files(&support::data("installed").expect("present"), "installed") {
        let text = fs::read(&path).expect("a database");
        let db =
            installed::parse(&text, true).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        let again =
            installed::parse(&installed::write(&db).expect("writable"), true).expect("ours");
        assert_eq!(db.packages.len(), again.packages.len());
        let mut sorted = db;
        sorted.sort();
        for package in &mut sorted.packages {
            for directory in &mut package.directories {
                directory.files.sort_by(|a, b| a.name.cmp(&b.name));
            }
        }
        assert!(sorted == again, "{}", path.display());
    }
}

#[test]
fn scripts_and_triggers_survive() {
    let Some(folder) = support::data("installed/v3.18-x86_64-desktop/lib/apk/db") else {
        return;
    };
    let mut db = installed::parse(&fs::read(folder.join("installed")).expect("present"), false)
        .expect("a database");
    let limits = Limits::default();
    let archive = fs::read(folder.join("scripts.tar")).expect("present");
    scripts::read(&mut db, archive.as_slice(), false, &limits).expect("an archive");
    triggers::read(
        &mut db,
        &fs::read(folder.join("triggers")).expect("present"),
    );
    assert!(db.packages.iter().filter(|p| !p.scripts.is_empty()).count() > 10);
    assert!(
        db.packages
            .iter()
            .filter(|p| !p.package.triggers.is_empty())
            .count()
            > 5
    );
    for gzip in [true, false] {
        let mut again = db.clone();
        for package in &mut again.packages {
            package.scripts.clear();
        }
        let written = scripts::write(&db, gzip);
        scripts::read(&mut again, written.as_slice(), gzip, &limits).expect("ours");
        assert!(again == db, "gzip {gzip}");
    }
}
