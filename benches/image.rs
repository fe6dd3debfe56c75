//! `ibex image build` as a whole process: nothing kept, everything kept, one package changed; against
//! `apk add` into a directory, `tar` and `gzip -6` on the same packages.
//!
//! `cargo bench --bench image`. The 98 packages are those of the tests' data. `APK_PEER` is the apk
//! to compare with (without it only ibex is measured), `PEER_TMP` where files go (default
//! `/dev/shm`), `PEER_RUNS` the number of counted runs (default 5). On a machine that does something
//! else, too, only the processor times can be compared.

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
    for (what, measured) in [
        ("cold", cold),
        ("warm", warm),
        ("one package changed", changed),
    ] {
        tell(what, &measured);
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
    tell("apk add, tar, gzip -6", &theirs);
    let ratio = |a: Duration, b: Duration| a.as_secs_f64() / b.as_secs_f64();
    println!(
        "cold is {:.1} times faster, with {:.1} times less processor time",
        ratio(theirs.elapsed, cold.elapsed),
        ratio(theirs.processor, cold.processor)
    );
}

/// What one run took; of several runs, medians, and the greatest memory.
#[derive(Clone, Copy, Debug)]
struct Measured {
    elapsed: Duration,
    processor: Duration,
    /// KiB.
    memory: u64,
}

fn tell(what: &str, measured: &Measured) {
    let ms = |time: Duration| time.as_secs_f64() * 1e3;
    println!(
        "{what:<24} {:>8.1} ms {:>8.1} ms processor {:>6.1} MiB",
        ms(measured.elapsed),
        ms(measured.processor),
        measured.memory as f64 / 1024.0
    );
}

fn measure(command: &mut Command) -> Measured {
    let start = Instant::now();
    let mut child = command.stdout(Stdio::null()).spawn().expect("a program");
    let ended = child.wait4().expect("it was started");
    assert!(ended.status.success(), "{command:?}");
    Measured {
        elapsed: start.elapsed(),
        processor: ended.rusage.utime + ended.rusage.stime,
        memory: ended.rusage.maxrss / 1024,
    }
}

fn median(runs: usize, run: impl FnMut() -> Measured) -> Measured {
    let all: Vec<Measured> = std::iter::repeat_with(run).take(runs).collect();
    let middle = |time: fn(&Measured) -> Duration| {
        let mut times: Vec<Duration> = all.iter().map(time).collect();
        times.sort();
        times[runs / 2]
    };
    Measured {
        elapsed: middle(|one| one.elapsed),
        processor: middle(|one| one.processor),
        memory: all.iter().map(|one| one.memory).max().unwrap_or(0),
    }
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
