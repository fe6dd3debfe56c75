//! The catalogue: whatever is done to it, answers stay the same.

use crate::support::{self, Run, Sandbox};
use std::fs;
use std::path::{Path, PathBuf};

struct Case {
    sandbox: Sandbox,
    catalogue: PathBuf,
    repository: PathBuf,
}

impl Case {
    fn new() -> Option<Self> {
        let origin = support::data("alpine-v3.19")?;
        let sandbox = Sandbox::new();
        sandbox.trust(&["alpine-v3.19/keys"])?;
        let repository = sandbox.beside("repository");
        fs::create_dir_all(repository.join("x86_64")).expect("a new directory");
        let index = repository.join("x86_64/APKINDEX.tar.gz");
        fs::copy(origin.join("x86_64/APKINDEX.tar.gz"), &index).expect("a copy");
        age(&index);
        let catalogue = sandbox.beside("catalogue");
        Some(Self {
            sandbox,
            catalogue,
            repository,
        })
    }

    fn search(&self) -> Run {
        let mut command = self.sandbox.ibex();
        command
            .env("IBEX_CACHE_DIR", &self.catalogue)
            .arg("-X")
            .arg(&self.repository)
            .args(["--arch", "x86_64", "search", "-v", "-d", "musl"]);
        support::run(&mut command)
    }

    /// Searches twice: once to make the catalogue, once to use it.
    fn filled(&self) -> String {
        let first = self.search().success().output;
        assert!(first.contains("musl-1.2.4"), "{first}");
        assert_eq!(self.search().success().output, first);
        first
    }

    fn files(&self) -> Vec<PathBuf> {
        let folder = fs::read_dir(self.catalogue.join("indexes")).expect("a catalogue");
        folder
            .map(|entry| entry.expect("an entry").path())
            .collect()
    }
}

/// Makes a file look as if it had been there for a while; a new one is not relied on.
fn age(path: &Path) {
    let file = fs::File::options().append(true).open(path).expect("a file");
    let then = std::time::SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(1_700_000_000);
    file.set_modified(then).expect("a private file");
}

#[test]
fn it_may_be_deleted_or_damaged_at_any_time() {
    let Some(case) = Case::new() else { return };
    let wanted = case.filled();
    let tables = case.files();
    assert_eq!(tables.len(), 1, "{tables:?}");
    let whole = fs::read(&tables[0]).expect("a table");
    let again = |what: &str| {
        assert_eq!(case.search().success().output, wanted, "{what}");
        assert_eq!(case.search().success().output, wanted, "after {what}");
        assert_eq!(fs::read(&tables[0]).expect("a table"), whole, "{what}");
    };
    // Every part of the file: header, core, details.
    for at in [0, 9, 17, 25, 29, 40, whole.len() / 3, whole.len() - 1] {
        let mut bytes = whole.clone();
        bytes[at] ^= 0x10;
        fs::write(&tables[0], bytes).expect("a private file");
        again(&format!("byte {at} changed"));
    }
    for length in [0, 8, 31, 32, whole.len() / 2, whole.len() - 1] {
        fs::write(&tables[0], &whole[..length]).expect("a private file");
        again(&format!("cut to {length} bytes"));
    }
    fs::remove_file(&tables[0]).expect("a private file");
    again("a table removed");
    fs::write(case.catalogue.join("catalogue.sqlite"), b"no database").expect("a private file");
    again("the database overwritten");
    fs::remove_file(case.catalogue.join("catalogue.sqlite")).expect("a private file");
    again("the database removed");
    fs::remove_dir_all(&case.catalogue).expect("a private directory");
    again("everything removed");
}

#[test]
fn an_index_that_changed_is_read_again() {
    let Some(case) = Case::new() else { return };
    case.filled();
    let Some(other) = support::data("alpine-branches/v3.20/x86_64/APKINDEX.tar.gz") else {
        return;
    };
    let index = case.repository.join("x86_64/APKINDEX.tar.gz");
    fs::copy(other, &index).expect("a private file");
    age(&index);
    let keys = &["alpine-branches/keys"];
    let untrusted = case.search().success().output;
    assert!(untrusted.contains("UNTRUSTED signature"), "{untrusted}");
    case.sandbox.trust(keys).expect("the keys are data, too");
    let found = case.search().success().output;
    assert!(found.contains("musl-1.2.5"), "{found}");
    assert!(!found.contains("UNTRUSTED"), "{found}");
}

#[test]
fn trust_is_judged_anew() {
    let Some(case) = Case::new() else { return };
    case.filled();
    fs::remove_dir_all(case.sandbox.root().join("etc/apk/keys")).expect("a private directory");
    let found = case.search().output;
    assert!(found.contains("UNTRUSTED signature"), "{found}");
    assert!(!found.contains("musl-1.2.4"), "{found}");
}
