//! Image builds as whole processes: nothing kept, everything kept, one package changed; against
//! `apk add` into a directory, `tar` and `gzip -6` on the same packages.
//!
//! `cargo bench --bench image`. The 98 packages are those of the tests' data. `APK_PEER` is the apk
//! to compare with (without it only ibex is measured), `PEER_TMP` where files go (default
//! `/dev/shm`), `PEER_RUNS` the number of counted runs (default 5).

#![allow(clippy::disallowed_methods, clippy::print_stdout, missing_docs)]

use ibex::format::Limits;
use ibex::format::index::UnverifiedIndex;
use ibex::image::output::{Bundle, LayoutShape};
use ibex::image::{
    self, BuildRequest, Compression, ContainerConfig, DatabasePlace, Layering, ScriptMode, Store,
    oci,
};
use ibex::package::World;
use ibex::plan::{NewPackage, Source};
use ibex::progress::Silent;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use wait4::Wait4;

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    // The same program is what is measured: it builds one image and ends.
    if let [_, word, repository, store, output, changed] = arguments.as_slice()
        && word == "--build"
    {
        build(
            repository.as_ref(),
            store.as_ref(),
            output.as_ref(),
            changed == "changed",
        );
        return;
    }
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
    let (store, output) = (scratch.path().join("store"), scratch.path().join("out"));
    let program = std::env::current_exe().expect("a path");
    let ours = |changed: &str| {
        let mut command = Command::new(&program);
        command
            .arg("--build")
            .args([&repository, &store, &output])
            .arg(changed);
        measure(&mut command)
    };
    let clean = |path: &Path| drop(std::fs::remove_dir_all(path));
    let cold = median(runs, || {
        clean(&store);
        clean(&output);
        ours("same")
    });
    let warm = median(runs, || {
        clean(&output);
        ours("same")
    });
    // What another build made of the changed package must not be there.
    let kept = scratch.path().join("kept");
    copy(&store, &kept);
    let changed = median(runs, || {
        clean(&output);
        clean(&store);
        copy(&kept, &store);
        ours("changed")
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
    let Some(peer) = std::env::var_os("APK_PEER").map(PathBuf::from) else {
        return;
    };
    let root = scratch.path().join("root");
    let names: Vec<String> = names(&repository);
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

/// The packages that can live together.
fn names(repository: &Path) -> Vec<String> {
    let packages = index(repository).into_keys();
    packages
        .filter(|name| !matches!(name.as_str(), "vlan" | "network-extras"))
        .collect()
}

fn index(repository: &Path) -> BTreeMap<String, ibex::package::Package> {
    let bytes = std::fs::read(repository.join("x86_64/APKINDEX.tar.gz")).expect("an index");
    let index = UnverifiedIndex::read(&bytes, &Limits::default()).expect("an index");
    let packages = index.parse().expect("an index").packages;
    packages
        .into_iter()
        .map(|package| (package.name.clone(), package))
        .collect()
}

fn build(repository: &Path, store: &Path, output: &Path, changed: bool) {
    let mut packages = index(repository);
    let names = names(repository);
    // The base comes first, as it does when it is solved; the rest in any order.
    let first = [
        "alpine-baselayout-data",
        "musl",
        "busybox",
        "busybox-binsh",
        "alpine-baselayout",
    ];
    let rest = names
        .iter()
        .map(String::as_str)
        .filter(|name| !first.contains(name));
    let new = first.into_iter().chain(rest).map(|name| {
        let package = packages.remove(name).expect("it is in the index");
        let file = format!("x86_64/{}-{}.apk", package.name, package.version);
        NewPackage {
            source: match package.installed_size {
                0 => Source::None,
                _ => Source::File(repository.join(file)),
            },
            tag: None,
            package,
        }
    });
    let mut packages: Vec<NewPackage> = new.collect();
    if changed {
        // One package fewer changes the rest as a new version of it would.
        packages.retain(|new| new.package.name != "zlib");
    }
    let build_time = packages
        .iter()
        .filter_map(|new| new.package.build_time)
        .max();
    let request = BuildRequest {
        architecture: "x86_64".to_owned(),
        packages,
        world: World::parse(&names.join(" ")).expect("names"),
        repositories: Vec::new(),
        keys: Vec::new(),
        runtime_keys: Vec::new(),
        groups: Vec::new(),
        users: Vec::new(),
        configuration_json: None,
        os_release: BTreeMap::new(),
        paths: Vec::new(),
        files: Vec::new(),
        certificates: Vec::new(),
        certificate_providers: Vec::new(),
        services: Vec::new(),
        remove: Vec::new(),
        database: DatabasePlace::Auto,
        scripts: ScriptMode::Emulate,
        scripts_must_run: true,
        check_scripts: false,
        scripts_warn: false,
        fail_on_skipped_script: false,
        layering: Layering::One,
        compression: Compression::Gzip(6),
        build_time: build_time.unwrap_or(0),
        clamp_mtime: false,
        config: ContainerConfig::default(),
        limits: Limits::default(),
    };
    let store = Store::open(store).expect("a store");
    let image = image::build(&request, &store, &mut Silent).expect("an image");
    let index = oci::index(std::slice::from_ref(&image), &BTreeMap::new());
    let bundle = Bundle {
        images: std::slice::from_ref(&image),
        index: &index,
        reference: "bench:latest",
    };
    bundle
        .oci_directory(output, LayoutShape::Named)
        .expect("a layout");
}
