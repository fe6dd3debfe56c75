//! Installs over a network with latency, and again from a warm cache, next to a given apk binary,
//! as whole processes.
//!
//! `APK_PEER=/path/to/apk cargo bench --bench network`. A server on the loopback lets every request
//! wait 30 ms (`PEER_LATENCY_MS`). Roots are made below `$PEER_TMP` (default `/dev/shm`).
//! `PEER_RUNS` sets the number of counted runs (default 7).

#![allow(clippy::disallowed_methods, clippy::print_stdout, missing_docs)]

#[allow(dead_code)]
#[path = "../tests/it/support/mirror.rs"]
mod mirror;

use mirror::{Does, Mirror};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

fn main() {
    let Some(peer) = std::env::var_os("APK_PEER").map(PathBuf::from) else {
        println!("APK_PEER is not set: nothing to compare with");
        return;
    };
    let data = std::env::var_os("IBEX_TEST_DATA").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/data"),
        PathBuf::from,
    );
    let Ok(repository) = data.join("alpine-v3.19").canonicalize() else {
        println!("{} is missing: set IBEX_TEST_DATA", data.display());
        return;
    };
    let base = std::env::var_os("PEER_TMP").map_or_else(|| "/dev/shm".into(), PathBuf::from);
    let scratch = tempfile::tempdir_in(base).expect("a scratch directory");
    let latency = Duration::from_millis(number("PEER_LATENCY_MS", 30));
    let mirror = Mirror::slow(&repository, latency, |_| Does::Serve);
    let bench = Bench {
        programs: [env!("CARGO_BIN_EXE_ibex").into(), peer],
        names: names(&repository),
        repository,
        url: mirror.url(),
        scratch: scratch.path().into(),
    };
    println!("{:<44} {:>9} {:>9} {:>7}", "work", "ibex", "apk", "ratio");
    bench.compare("98 packages, nothing cached", true, false);
    bench.compare("98 packages, warm cache of one's own", false, false);
    bench.compare("98 packages, warm etc/apk/cache", false, true);
}

fn number(name: &str, default: u64) -> u64 {
    let value = std::env::var(name).ok();
    value.and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// The packages that can live together.
fn names(repository: &Path) -> Vec<String> {
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

struct Bench {
    programs: [PathBuf; 2],
    names: Vec<String>,
    repository: PathBuf,
    url: String,
    scratch: PathBuf,
}

impl Bench {
    /// Runs both in turns. `cold` begins each run without a cache; `apk_cache` gives ibex the cache
    /// directory of apk, which apk always has here.
    fn compare(&self, label: &str, cold: bool, apk_cache: bool) {
        let runs = number("PEER_RUNS", 7) as usize;
        let mut times = [Vec::new(), Vec::new()];
        for which in 0..2 {
            let _ = std::fs::remove_dir_all(self.cache(which));
        }
        for run in 0..=runs {
            for (which, times) in times.iter_mut().enumerate() {
                if cold {
                    let _ = std::fs::remove_dir_all(self.cache(which));
                }
                let time = self.install(which, apk_cache || which == 1 && !cold);
                // The first run fills the caches and is not counted.
                if run > 0 {
                    times.push(time);
                }
            }
        }
        let [a, b] = times.map(|mut times| {
            times.sort();
            times[times.len() / 2].as_secs_f64()
        });
        let ratio = b / a;
        println!(
            "{label:<44} {:>6.1} ms {:>6.1} ms {ratio:>6.1}x",
            a * 1e3,
            b * 1e3
        );
    }

    fn cache(&self, which: usize) -> PathBuf {
        self.scratch.join(format!("cache-{which}"))
    }

    fn install(&self, which: usize, with_cache: bool) -> Duration {
        let root = self.scratch.join("root");
        let _ = std::fs::remove_dir_all(&root);
        std::fs::create_dir_all(root.join("etc/apk")).expect("a scratch directory");
        if with_cache {
            let cache = self.cache(which).join("apk");
            std::fs::create_dir_all(&cache).expect("a scratch directory");
            std::os::unix::fs::symlink(cache, root.join("etc/apk/cache")).expect("a link");
        }
        let mut command = Command::new(&self.programs[which]);
        command
            .arg("--root")
            .arg(&root)
            .args(["--initdb", "--arch", "x86_64"]);
        command.arg("--keys-dir").arg(self.repository.join("keys"));
        if with_cache {
            // Links of a root are not followed out of it; this is the same directory.
            command
                .arg("--cache-dir")
                .arg(self.cache(which).join("apk"));
        }
        command
            .arg("-X")
            .arg(&self.url)
            .args(["--no-scripts", "add"]);
        command.args(&self.names);
        command
            .env("IBEX_CACHE_DIR", self.cache(which).join("ibex"))
            .env("APK_CONFIG", "/dev/null");
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let start = Instant::now();
        let status = command.status().expect("the program starts");
        let time = start.elapsed();
        assert!(status.success(), "{command:?}");
        time
    }
}
