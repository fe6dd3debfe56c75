//! What the benches that run ibex and a given apk next to each other have in common.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

/// The other program, the data, and a scratch directory that goes when this is dropped.
pub(crate) struct Place {
    pub(crate) peer: PathBuf,
    pub(crate) data: PathBuf,
    pub(crate) scratch: tempfile::TempDir,
}

/// Makes a directory in another that no run had before. Nothing is removed between runs: ext4 takes
/// many times as long to make a file for a minute after many were deleted.
pub(crate) fn fresh(parent: &Path, name: &str) -> PathBuf {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let directory = parent.join(format!("{name}-{number}"));
    std::fs::create_dir(&directory).expect("a scratch directory");
    directory
}

/// Finds what is needed; says what is missing.
pub(crate) fn place() -> Option<Place> {
    let Some(peer) = std::env::var_os("APK_PEER").map(PathBuf::from) else {
        println!("APK_PEER is not set: nothing to compare with");
        return None;
    };
    let data = std::env::var_os("IBEX_TEST_DATA").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/data"),
        PathBuf::from,
    );
    let Ok(data) = data.canonicalize() else {
        println!("{} is missing: set IBEX_TEST_DATA", data.display());
        return None;
    };
    let base = std::env::var_os("PEER_TMP").map_or_else(|| "/dev/shm".into(), PathBuf::from);
    Some(Place {
        peer,
        data,
        scratch: tempfile::tempdir_in(base).expect("a scratch directory"),
    })
}

/// Returns a number from the environment.
pub(crate) fn number(name: &str, default: u64) -> u64 {
    let value = std::env::var(name).ok();
    value.and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// Returns the packages of the test repository that can live together.
pub(crate) fn names(repository: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(repository.join("x86_64")).expect("a repository");
    let names = entries.filter_map(|entry| {
        let file = entry.ok()?.file_name().to_string_lossy().into_owned();
        let name = file
            .strip_suffix(".apk")?
            .rsplitn(3, '-')
            .nth(2)?
            .to_owned();
        (!matches!(name.as_str(), "vlan" | "network-extras")).then_some(name)
    });
    let mut names: Vec<String> = names.collect();
    names.sort();
    names
}
