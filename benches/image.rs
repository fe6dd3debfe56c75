//! `ibex image build` as a whole process: nothing kept, everything kept, one package changed; against
//! `apk add` into a directory, `tar` and `gzip -6` on the same packages.
//!
//! `cargo bench --bench image`. The 98 packages are those of the tests' data. `APK_PEER` is the apk
//! to compare with (without it only ibex is measured), `PEER_TMP` where files go (default
//! `/dev/shm`), `PEER_RUNS` the number of counted runs (default 5).

#![allow(clippy::disallowed_methods, clippy::print_stdout, missing_docs)]

use ibex::format::Limits;
use ibex::format::index::UnverifiedIndex;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use wait4::Wait4;

/// Nothing needs it, so that an image with it differs from one without it in one package.
const CHANGED: &str = "tzdata";

fn main() {
    let data = std::env::var_os("IBEX_TEST_DATA").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/data"),
        PathBuf::from,
    );
    let Ok(repository) = data.join("alpine-v3.19").canonicalize() else {
        println!("the data is missing: set IBEX_TEST_DATA");
        return;
    };
    let base = std::env::var_os("PEER_TMP").map_or_else(|| "/dev/shm".into(), PathBuf::from);
    let scratch = tempfile::tempdir_in(base).expect("a scratch directory");
    let runs = std::env::var("PEER_RUNS")
        .ok()
        .and_then(|text| text.parse().ok());
    let runs: usize = runs.unwrap_or(5);
    let names = names(&repository);
    let less: Vec<String> = names
        .iter()
        .filter(|name| *name != CHANGED)
        .cloned()
        .collect();
    for (file, names) in [("all.yaml", &names), ("less.yaml", &less)] {
        let text = describe(&repository, names);
        std::fs::write(scratch.path().join(file), text).expect("a file");
    }
    let (cache, output) = (scratch.path().join("cache"), scratch.path().join("out"));
    let ours = |description: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ibex"));
        command.args(["image", "build", description, "bench:latest", "out/", "-q"]);
        command
            .arg("--cache-dir")
            .arg(&cache)
            .current_dir(scratch.path());
        measure(&mut command)
    };
    let clean = |path: &Path| drop(std::fs::remove_dir_all(path));
    let cold = median(runs, || {
        clean(&cache);
        clean(&output);
        ours("all.yaml")
    });
    let warm = median(runs, || {
        clean(&output);
        ours("all.yaml")
    });
    // What the cache has after an image without the package, and what is made anew with it.
    clean(&cache);
    ours("less.yaml");
    let kept = scratch.path().join("kept");
    copy(&cache, &kept);
    let before = segments(&cache);
    let mut made = 0;
    let changed = median(runs, || {
        clean(&output);
        clean(&cache);
        copy(&kept, &cache);
        let measured = ours("all.yaml");
        made = segments(&cache) - before;
        measured
    });
    for (what, (time, memory)) in [
        ("cold", cold),
        ("warm", warm),
        ("one package changed", changed),
    ] {
        println!(
            "{what:<24} {:>8.1} ms {:>6.1} MiB",
            time.as_secs_f64() * 1e3,
            mib(memory)
        );
    }
    println!("one package changed: {made} segments made, {before} were kept");
    let Some(peer) = std::env::var_os("APK_PEER").map(PathBuf::from) else {
        return;
    };
    let root = scratch.path().join("root");
    let theirs = median(runs, || {
        clean(&root);
        let script = "\"$0\" --root \"$1\" --initdb --arch x86_64 --no-cache --keys-dir \"$2/keys\" \
            -X \"$2\" add $3 >/dev/null && tar -C \"$1\" -cf - . | gzip -6 > \"$1.tar.gz\"";
        let mut command = Command::new("sh");
        command
            .args(["-c", script])
            .arg(&peer)
            .arg(&root)
            .arg(&repository)
            .arg(names.join(" "));
        measure(&mut command)
    });
    println!(
        "{:<24} {:>8.1} ms",
        "apk add, tar, gzip -6",
        theirs.0.as_secs_f64() * 1e3
    );
    println!(
        "cold is {:.1} times faster",
        theirs.0.as_secs_f64() / cold.0.as_secs_f64()
    );
}

fn mib(kilobytes: u64) -> f64 {
    kilobytes as f64 / 1024.0
}

fn measure(command: &mut Command) -> (Duration, u64) {
    let start = Instant::now();
    let mut child = command.stdout(Stdio::null()).spawn().expect("a program");
    let ended = child.wait4().expect("it was started");
    assert!(ended.status.success(), "{command:?}");
    (start.elapsed(), ended.rusage.maxrss / 1024)
}

fn median(runs: usize, mut run: impl FnMut() -> (Duration, u64)) -> (Duration, u64) {
    let mut all: Vec<(Duration, u64)> = (0..runs).map(|_| run()).collect();
    all.sort();
    let peak = all.iter().map(|(_, memory)| *memory).max().unwrap_or(0);
    (all[runs / 2].0, peak)
}

fn copy(from: &Path, to: &Path) {
    let mut command = Command::new("cp");
    measure(command.arg("-a").arg(from).arg(to));
}

/// Counts the compressed pieces of packages in a cache.
fn segments(cache: &Path) -> usize {
    fn files(folder: &Path) -> usize {
        let entries = std::fs::read_dir(folder).expect("a folder");
        let paths = entries.map(|entry| entry.expect("an entry").path());
        paths
            .map(|path| if path.is_dir() { files(&path) } else { 1 })
            .sum()
    }
    files(&cache.join("images/segments"))
}

/// The packages that can live together.
fn names(repository: &Path) -> Vec<String> {
    let bytes = std::fs::read(repository.join("x86_64/APKINDEX.tar.gz")).expect("an index");
    let index = UnverifiedIndex::read(&bytes, &Limits::default()).expect("an index");
    let packages = index.parse().expect("an index").packages.into_iter();
    packages
        .map(|package| package.name)
        .filter(|name| !matches!(name.as_str(), "vlan" | "network-extras"))
        .collect()
}

fn describe(repository: &Path, names: &[String]) -> String {
    let keys = std::fs::read_dir(repository.join("keys")).expect("keys");
    let keys = keys.map(|entry| format!("'{}'", entry.expect("a key").path().display()));
    format!(
        "contents:\n  keyring: [{}]\n  repositories: ['{}']\n  packages: [{}]\narchs: [amd64]\n",
        keys.collect::<Vec<_>>().join(", "),
        repository.display(),
        names.join(", ")
    )
}
