//! Installing ten thousand small files, as a whole process into an empty root in memory:
//! `cargo bench --bench install`. The roots are made below `/dev/shm`.

#![allow(clippy::disallowed_methods, reason = "scratch files")]

mod made;

use divan::Bencher;
use std::path::Path;
use std::process::{Command, Stdio};

/// How many packages share the files.
const PACKAGES: usize = 20;
const FILES: usize = 10_000;

fn main() {
    divan::main();
}

fn ibex(scratch: &Path, words: &[&str]) {
    let status = Command::new(env!("CARGO_BIN_EXE_ibex"))
        .args(words)
        .current_dir(scratch)
        .env("APK_CONFIG", "/dev/null")
        .env("IBEX_CACHE_DIR", scratch.join("cache"))
        .stdout(Stdio::null())
        .status();
    assert!(status.expect("it starts").success(), "{words:?}");
}

#[divan::bench(sample_count = 20, sample_size = 1)]
fn ten_thousand_files(bencher: Bencher<'_, '_>) {
    let scratch = tempfile::tempdir_in("/dev/shm").expect("a scratch directory");
    let folder = scratch.path().join("x86_64");
    std::fs::create_dir(&folder).expect("a scratch directory");
    let names: Vec<String> = (0..PACKAGES).map(|at| format!("many{at}")).collect();
    let mut files = Vec::new();
    for name in &names {
        let file = format!("x86_64/{name}-1-r0.apk");
        let bytes = made::package(name, FILES / PACKAGES);
        std::fs::write(scratch.path().join(&file), bytes).expect("a scratch directory");
        files.push(file);
    }
    let mut words = vec!["--allow-untrusted", "index", "-o", "x86_64/APKINDEX.tar.gz"];
    words.extend(files.iter().map(String::as_str));
    ibex(scratch.path(), &words);
    let repository = scratch.path().display().to_string();
    let root = scratch.path().join("root");
    bencher
        .with_inputs(|| {
            let _ = std::fs::remove_dir_all(&root);
        })
        .bench_values(|()| {
            let mut words = vec![
                "--root",
                "root",
                "--initdb",
                "--usermode=auto",
                "--arch",
                "x86_64",
            ];
            words.extend(["--allow-untrusted", "--no-cache", "-X", &repository, "add"]);
            words.extend(names.iter().map(String::as_str));
            ibex(scratch.path(), &words);
        });
}
