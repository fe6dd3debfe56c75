//! Installs over a network with latency, and again from a warm cache, next to a given apk binary,
//! as whole processes.
//!
//! `APK_PEER=/path/to/apk cargo bench --bench network`. A server on the loopback lets every request
//! wait 30 ms (`PEER_LATENCY_MS`). Roots are made below `$PEER_TMP` (default `/dev/shm`).
//! `PEER_RUNS` sets the number of counted runs (default 7).

#![allow(clippy::disallowed_methods, clippy::print_stdout, missing_docs)]

mod compared;
#[allow(dead_code)]
#[path = "../tests/it/support/mirror.rs"]
mod mirror;

use compared::number;
use mirror::{Does, Mirror};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

fn main() {
    let Some(place) = compared::place() else {
        return;
    };
    let Ok(repository) = place.data.join("alpine-v3.19").canonicalize() else {
        println!("there is no alpine-v3.19 in {}", place.data.display());
        return;
    };
    let latency = Duration::from_millis(number("PEER_LATENCY_MS", 30));
    let mirror = Mirror::slow(&repository, latency, |_| Does::Serve);
    let bench = Bench {
        programs: [env!("CARGO_BIN_EXE_ibex").into(), place.peer],
        names: compared::names(&repository),
        repository,
        url: mirror.url(),
        scratch: place.scratch.path().into(),
    };
    println!("{:<44} {:>9} {:>9} {:>7}", "work", "ibex", "apk", "ratio");
    bench.compare("98 packages, nothing cached", Cache::Cold);
    bench.compare("98 packages, warm cache of one's own", Cache::Own);
    bench.compare("98 packages, warm etc/apk/cache", Cache::Apk);
    bench.compare("98 packages, warm cache, --link-files", Cache::Links);
}

/// What an install finds.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Cache {
    /// Nothing.
    Cold,
    /// For ibex the user's store, for apk its cache directory.
    Own,
    /// For both apk's cache directory.
    Apk,
    /// As `Own`; ibex shares files by hard links.
    Links,
}

struct Bench {
    programs: [PathBuf; 2],
    names: Vec<String>,
    repository: PathBuf,
    url: String,
    scratch: PathBuf,
}

impl Bench {
    /// Runs both in turns.
    fn compare(&self, label: &str, cache: Cache) {
        let runs = number("PEER_RUNS", 7) as usize;
        let mut times = [Vec::new(), Vec::new()];
        let new = || compared::fresh(&self.scratch, "cache");
        let mut caches = [new(), new()];
        for run in 0..=runs {
            for (which, times) in times.iter_mut().enumerate() {
                if cache == Cache::Cold {
                    caches[which] = new();
                }
                let time = self.install(which, cache, &caches[which]);
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

    fn install(&self, which: usize, cache: Cache, kept: &Path) -> Duration {
        let is_apk = which == 1;
        let with_cache = cache == Cache::Apk || is_apk && cache != Cache::Cold;
        let root = compared::fresh(&self.scratch, "root");
        std::fs::create_dir_all(root.join("etc/apk")).expect("a scratch directory");
        if with_cache {
            let cache = kept.join("apk");
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
            command.arg("--cache-dir").arg(kept.join("apk"));
        }
        command
            .arg("-X")
            .arg(&self.url)
            .args(["--no-scripts", "add"]);
        if cache == Cache::Links && !is_apk {
            command.arg("--link-files");
        }
        command.args(&self.names);
        command
            .env("IBEX_CACHE_DIR", kept.join("ibex"))
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
