//! Runs ibex and a given apk binary on the same work in turns, as whole processes, and prints the
//! ratio of the medians and both peak memories.
//!
//! `APK_PEER=/path/to/apk cargo bench --bench peer`. The data is that of the tests; roots are made
//! below `$PEER_TMP` (default `/dev/shm`), with a warm page cache. `PEER_RUNS` sets the number of
//! counted runs (default 15).

#![allow(clippy::disallowed_methods, clippy::print_stdout, missing_docs)]

mod compared;

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use wait4::Wait4;

/// What one command cost over its runs.
#[derive(Default)]
struct Cost {
    times: Vec<Duration>,
    peak: u64,
}

impl Cost {
    fn median(&mut self) -> Duration {
        self.times.sort();
        self.times[self.times.len() / 2]
    }
}

fn main() {
    let Some(place) = compared::place() else {
        return;
    };
    let bench = Bench {
        ibex: env!("CARGO_BIN_EXE_ibex").into(),
        peer: place.peer,
        data: place.data,
        scratch: place.scratch.path().into(),
    };
    println!(
        "{:<44} {:>9} {:>9} {:>7} {:>9} {:>9}",
        "work", "ibex", "apk", "ratio", "ibex MiB", "apk MiB"
    );
    bench.install();
    bench.questions();
}

struct Bench {
    ibex: PathBuf,
    peer: PathBuf,
    data: PathBuf,
    scratch: PathBuf,
}

impl Bench {
    /// All packages that can live together into an empty root, scripts included when root.
    fn install(&self) {
        let repository = self.data.join("alpine-v3.19");
        let names = compared::names(&repository);
        for (label, extra) in [
            ("add 98 packages, no scripts", Some("--no-scripts")),
            ("add 98 packages", None),
        ] {
            self.compare(label, |program, root| {
                let mut command = Command::new(program);
                command.arg("--root").arg(root).args([
                    "--initdb",
                    "--arch",
                    "x86_64",
                    "--no-cache",
                ]);
                command
                    .arg("--keys-dir")
                    .arg(repository.join("keys"))
                    .arg("-X")
                    .arg(&repository);
                command.args(extra).arg("add").args(&names);
                command
            });
        }
    }

    /// Questions to 23,030 packages; the roots hold an empty database.
    fn questions(&self) {
        let root = self.scratch.join("questions");
        std::fs::create_dir_all(root.join("lib/apk/db")).expect("a scratch directory");
        std::fs::create_dir_all(root.join("etc/apk")).expect("a scratch directory");
        std::fs::write(root.join("lib/apk/db/installed"), "").expect("a scratch directory");
        std::fs::write(root.join("etc/apk/world"), "").expect("a scratch directory");
        let index = self.data.join("index/alpine/v3.19");
        let keys = self.data.join("index/keys");
        for words in [
            &["add", "--simulate", "firefox", "nginx", "python3"][..],
            &["search", "-d", "http"],
            &["info", "-a", "nginx"],
            &["list", "-I"],
            &["policy", "nginx"],
        ] {
            self.compare(&words.join(" "), |program, _| {
                let mut command = Command::new(program);
                command
                    .arg("--root")
                    .arg(&root)
                    .args(["--arch", "x86_64", "--no-network"]);
                command.arg("--keys-dir").arg(&keys);
                command
                    .arg("-X")
                    .arg(index.join("main"))
                    .arg("-X")
                    .arg(index.join("community"));
                command.args(words);
                command
            });
        }
    }

    fn compare(&self, label: &str, make: impl Fn(&Path, &Path) -> Command) {
        let runs = compared::number("PEER_RUNS", 15) as usize;
        let mut costs = [Cost::default(), Cost::default()];
        for run in 0..=runs {
            for (program, cost) in [&self.ibex, &self.peer].into_iter().zip(&mut costs) {
                let root = compared::fresh(&self.scratch, "root");
                let (time, peak) = self.measure(make(program, &root));
                // The first run warms the caches and is not counted.
                if run > 0 {
                    cost.times.push(time);
                    cost.peak = cost.peak.max(peak);
                }
            }
        }
        let [mut ours, mut theirs] = costs;
        let (a, b) = (ours.median(), theirs.median());
        println!(
            "{label:<44} {:>6.1} ms {:>6.1} ms {:>6.1}x {:>9.1} {:>9.1}",
            a.as_secs_f64() * 1e3,
            b.as_secs_f64() * 1e3,
            b.as_secs_f64() / a.as_secs_f64(),
            ours.peak as f64 / 1048576.0,
            theirs.peak as f64 / 1048576.0,
        );
    }

    fn measure(&self, mut command: Command) -> (Duration, u64) {
        command
            .env("IBEX_CACHE_DIR", self.scratch.join("cache"))
            .env("APK_CONFIG", "/dev/null");
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let start = Instant::now();
        let mut child = command.spawn().expect("the program starts");
        let usage = child.wait4().expect("the child was started");
        (start.elapsed(), usage.rusage.maxrss)
    }
}
