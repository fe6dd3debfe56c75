//! Details that random scenes found: what apk 3.0.6 prints, byte for byte.

use crate::support::oracle::need;
use crate::support::scene::{Bound, Installed, Need, Record, Repository, Scene};
use crate::support::{self, Sandbox};

/// Returns constraints; a word that the tables can not spell is odd.
fn needs(words: &str) -> Vec<Need> {
    let word = |word: &str| {
        need(word).unwrap_or_else(|| {
            let (name, odd) = word.split_at(1);
            Need {
                bound: Bound::Odd(String::leak(odd.to_owned())),
                ..need(name).expect("a name")
            }
        })
    };
    words.split_whitespace().map(word).collect()
}

/// Reads `NAME VERSION-NUMBER | depends | provides | install_if | what else`.
fn record(line: &str) -> Record {
    let mut fields = line.split('|').map(str::trim);
    let mut next = || fields.next().unwrap_or_default();
    let own = needs(next());
    let (depends, provides, install_if) = (needs(next()), needs(next()), needs(next()));
    let rest = next();
    let version = |need: &Need| match need.bound {
        Bound::Version(_, version) => Some(version),
        _ => None,
    };
    let installed = rest.contains("installed");
    Record {
        name: own[0].name,
        version: version(&own[0]).expect("a version"),
        depends,
        provides: provides
            .iter()
            .map(|need| (need.name, version(need)))
            .collect(),
        install_if,
        size: 1,
        installed_size: 1,
        repositories: if installed { Vec::new() } else { vec![0] },
        installed: installed.then(Installed::default),
        odd_line: rest.contains("foreign").then_some("A:mips"),
        ..Record::default()
    }
}

/// Runs a command on packages, one a line, and a world.
fn print(tag: usize, packages: &str, world: &str, command: &str) -> String {
    let lines = packages.lines().map(str::trim);
    let scene = Scene {
        repositories: vec![Repository {
            tag,
            ..Repository::default()
        }],
        records: lines.filter(|line| !line.is_empty()).map(record).collect(),
        world: needs(world),
        command: command.split_whitespace().map(str::to_owned).collect(),
        ..Scene::default()
    };
    let sandbox = Sandbox::new();
    let words = scene.lay_out(&sandbox);
    let mut command = sandbox.ibex();
    command.args(["--simulate", "--solver=apk"]).args(words);
    support::run(&mut command).output
}

#[track_caller]
fn check(found: &str, wanted: &str) {
    let wanted: Vec<&str> = wanted
        .lines()
        .map(|line| line.trim_start_matches('.'))
        .collect();
    assert_eq!(found.lines().collect::<Vec<_>>(), wanted, "{found}");
}

#[test]
fn del_looks_for_missing_tags_after_it_has_solved() {
    check(
        &print(0, "b=1", "c@e", "del"),
        "ERROR: unable to select packages:\n.  c (no such package):\n.    required by: world[c@e]",
    );
    check(
        &print(0, "a=1 || c", "a a a@e", "del c"),
        "World updated, but the following packages are not removed due to:\n.  c: a\n\n\
         WARNING: The repository tag for world dependency 'a@e' does not exist\n\
         ERROR: Not committing changes due to missing repository tags.",
    );
    // By then the world is sorted.
    check(
        &print(0, "c=1 |||| installed", "!d@e c@e", "del"),
        "WARNING: The repository tag for world dependency 'c@e' does not exist\n\
         WARNING: The repository tag for world dependency 'd@e' does not exist\n\
         ERROR: Not committing changes due to missing repository tags.",
    );
}

#[test]
fn names_in_a_dropped_condition_are_known() {
    check(
        &print(0, "a=1 ||| d a@e", "", "fix d"),
        "WARNING: The indexes contain broken packages which might not function properly.\n\
         OK: 0 B in 0 packages",
    );
}

#[test]
fn upgrade_available_keeps_the_build_in_a_conflict() {
    check(
        &print(
            0,
            "a=1",
            "a !a><Q1AQEBAQEBAQEBAQEBAQEBAQEBAQE=",
            "upgrade -a",
        ),
        "ERROR: unable to select packages:\n.  a-1:\n\
         .    breaks: world[!a><Q1AQEBAQEBAQEBAQEBAQEBAQEBAQE=]\n.    satisfies: world[a]",
    );
}

#[test]
fn builds_of_one_version_are_reported_in_the_order_they_are_looked_at() {
    let packages = "e=1
        a=3 | a !c | lib
        a=3 | so:x | d
        d=1 || c
        b=1 || so:x a || foreign";
    check(
        &print(1, packages, "d b lib", "del"),
        "ERROR: unable to select packages:\n.  b-1:\n.    error: uninstallable\n.    arch: mips\n\
         .    masked in: @e\n.    conflicts: a-3[a] a-3[a]\n\
         .    satisfies: world[b] a-3[a] a-3[so:x]\n.  a-3:\n.    masked in: @e\n\
         .    conflicts: a-3 b-1\n.    satisfies: world[d] a-3[a]\n.  a-3:\n.    masked in: @e\n\
         .    conflicts: a-3 b-1\n.    satisfies: world[lib] a-3[a]",
    );
}

#[test]
fn a_preupgrade_has_no_names_and_heeds_a_broken_world() {
    check(
        &print(0, "a=1", "a", "upgrade --preupgrade-only nosuch"),
        "",
    );
    let packages = "c=1 || c || installed
        a=2_rc1 || c";
    let world = "a><Q1AQEBAQEBAQEBAQEBAQEBAQEBAQE=";
    check(
        &print(
            0,
            packages,
            world,
            "--force-broken-world upgrade --preupgrade-only",
        ),
        "Preupgrading:\n(1/1) Purging c (1)\nOK: 0 B in 0 packages",
    );
}
