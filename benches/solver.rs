//! The time of a decision, reading and printing excluded: a real branch upgrade, and made-up
//! distributions of growing size, as a table.
//!
//! `cargo bench --bench solver`. A decision is what follows on tables that are in memory: the
//! universe, the request, apk's search, the plan. `SOLVER_RUNS` sets the number of counted runs
//! (default 15).

#![allow(clippy::disallowed_methods, clippy::print_stdout, missing_docs)]

use ibex::format::{Limits, index, installed};
use ibex::package::{
    Dependency, Identity, InstalledDb, InstalledPackage, Operator, Package, PackageTable, World,
};
use ibex::plan::{Plan, Source};
use ibex::solver::{
    self, AddOptions, InstalledInput, RepositoryInput, Sources, Universe, UpgradeOptions,
};
use sha1::{Digest, Sha1};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

const SIZES: [usize; 8] = [
    1_000, 2_000, 5_000, 10_000, 20_000, 50_000, 100_000, 150_000,
];

fn main() {
    desktop();
    println!();
    println!(
        "{:>9} {:>9} {:>14} {:>14} {:>14} {:>14}",
        "packages", "installed", "upgrade -a", "add one", "install 1/10", "per package"
    );
    for size in SIZES {
        row(size);
    }
}

/// The median of several runs.
fn median(mut work: impl FnMut()) -> Duration {
    let runs = std::env::var("SOLVER_RUNS")
        .ok()
        .and_then(|n| n.parse().ok());
    let runs: usize = runs.unwrap_or(15);
    let mut times: Vec<Duration> = Vec::with_capacity(runs);
    work();
    for _ in 0..runs {
        let start = Instant::now();
        work();
        times.push(start.elapsed());
    }
    times.sort();
    times[runs / 2]
}

fn repository(table: PackageTable) -> RepositoryInput {
    RepositoryInput {
        table: Arc::new(table),
        tags: vec![None],
        loaded: true,
        reachable: true,
        local: true,
        url: String::new(),
    }
}

/// `upgrade --available` of a desktop of v3.18 to v3.19.
fn desktop() {
    let data = std::env::var_os("IBEX_TEST_DATA").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/data"),
        PathBuf::from,
    );
    let root = data.join("installed/v3.18-x86_64-desktop");
    let Ok(text) = std::fs::read(root.join("lib/apk/db/installed")) else {
        println!("{} is missing: set IBEX_TEST_DATA", root.display());
        return;
    };
    let world = std::fs::read_to_string(root.join("etc/apk/world")).expect("a world");
    let world = World::parse(&world).expect("a good world");
    let database = installed::parse(&text, true).expect("a good database");
    let tables = ["main", "community"].map(|part| {
        let path = format!("index/alpine/v3.19/{part}/x86_64/APKINDEX.tar.gz");
        let file = std::fs::read(data.join(path)).expect("an index");
        let index = index::UnverifiedIndex::read(&file, &Limits::default()).expect("a good index");
        index.into_table().expect("a good index").table
    });
    let count: usize = tables.iter().map(PackageTable::len).sum();
    let sources = Sources {
        installed: InstalledInput::from_db(&database),
        repositories: tables.into_iter().map(repository).collect(),
        architectures: vec!["x86_64".to_owned()],
        ..Sources::default()
    };
    let mut steps = 0;
    let time = median(|| steps = upgrade(&sources, &world));
    let solving = median(|| {
        let mut universe = Universe::new(&sources, &world);
        let request = available(&mut universe, &world);
        let solution = solver::solve(&mut universe, &request);
        assert_eq!(solution.errors, 0, "an answer");
    });
    println!(
        "upgrade --available of {} packages against {count}: {:.2} ms, {:.2} ms of it solving, \
         {steps} steps",
        database.packages.len(),
        time.as_secs_f64() * 1e3,
        solving.as_secs_f64() * 1e3
    );
}

fn upgrade(sources: &Sources, world: &World) -> usize {
    let mut universe = Universe::new(sources, world);
    let request = available(&mut universe, world);
    decide(&mut universe, &request)
}

fn available(universe: &mut Universe<'_>, world: &World) -> solver::Request {
    let options = UpgradeOptions {
        available: true,
        ..UpgradeOptions::default()
    };
    solver::upgrade(universe, world, &[], options, &[]).expect("no names")
}

fn add(sources: &Sources, world: &World, entries: &[Dependency]) -> usize {
    let mut universe = Universe::new(sources, world);
    let request = solver::add(&mut universe, world, entries, AddOptions::default());
    decide(&mut universe, &request)
}

fn decide(universe: &mut Universe<'_>, request: &solver::Request) -> usize {
    let solution = solver::solve(universe, request);
    assert_eq!(solution.errors, 0, "an answer");
    Plan::from_solution(universe, &solution, |_| Source::None)
        .step_lines()
        .len()
}

/// Makes a distribution of so many packages: each needs a few that came before it, most by a library
/// that it provides, some in two versions; documentation installs itself.
fn distribution(size: usize, release: &str) -> Vec<Package> {
    let mut seed = 1u64;
    let mut random = move |below: usize| {
        // Knuth's linear congruential generator; the low bits are the bad ones.
        seed = seed
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        ((seed >> 33) as usize) % below.max(1)
    };
    let mut packages = Vec::with_capacity(size);
    for number in 0..size {
        // A digest, as real ones are: numbers alone would all fall into one slot of the table.
        let identity = Sha1::digest(format!("{number} {release}")).into();
        let mut package = Package {
            identity: Identity(identity),
            name: format!("package-{number}"),
            version: format!("{}.{release}-r{}", number % 7, number % 3),
            arch: Some("x86_64".to_owned()),
            installed_size: 1000,
            size: 1000,
            ..Package::default()
        };
        for _ in 0..random(5) {
            // Few packages are needed by many, most by few.
            let depth = random(number);
            let target = random(depth);
            let name = match random(4) {
                0 => format!("package-{target}"),
                _ => format!("so:lib{target}.so.1"),
            };
            if target < number {
                package.depends.push(Dependency::any(name));
            }
        }
        package.provides.push(Dependency {
            operator: Operator::EQ,
            version: release.to_owned(),
            ..Dependency::any(format!("so:lib{number}.so.1"))
        });
        if number % 10 == 9 {
            package.install_if = vec![
                Dependency::any("package-0"),
                Dependency::any(format!("package-{}", number - 1)),
            ];
        }
        packages.push(package);
    }
    packages
}

fn row(size: usize) {
    let (old, new) = (distribution(size, "1"), distribution(size, "2"));
    // What 100 wanted packages bring along is installed.
    let wanted = |step: usize| -> Vec<Dependency> {
        let numbers = (1..size).step_by(step);
        numbers
            .map(|n| Dependency::any(format!("package-{n}")))
            .collect()
    };
    let world = World {
        entries: wanted(size / 100),
    };
    let before = Sources {
        repositories: vec![repository(PackageTable::build(&old))],
        architectures: vec!["x86_64".to_owned()],
        ..Sources::default()
    };
    let mut universe = Universe::new(&before, &world);
    let request = solver::add(&mut universe, &world, &[], AddOptions::default());
    let solution = solver::solve(&mut universe, &request);
    let installed = solution.selected().map(|package| InstalledPackage {
        package: universe.package(package),
        ..InstalledPackage::default()
    });
    let database = InstalledDb {
        packages: installed.collect(),
    };
    let sources = Sources {
        installed: InstalledInput::from_db(&database),
        repositories: vec![repository(PackageTable::build(&new))],
        architectures: vec!["x86_64".to_owned()],
        ..Sources::default()
    };
    let whole = median(|| {
        upgrade(&sources, &world);
    });
    let one = [Dependency::any(format!("package-{}", size / 2))];
    let one = median(|| {
        add(&sources, &world, &one);
    });
    let tenth = wanted(10);
    let mut steps = 0;
    let empty = World::default();
    let many = median(|| steps = add(&before, &empty, &tenth));
    let milliseconds = |time: Duration| time.as_secs_f64() * 1e3;
    println!(
        "{size:>9} {:>9} {:>11.2} ms {:>11.2} ms {:>11.2} ms {:>11.2} µs",
        database.packages.len(),
        milliseconds(whole),
        milliseconds(one),
        milliseconds(many),
        milliseconds(many) * 1e3 / steps as f64
    );
}
