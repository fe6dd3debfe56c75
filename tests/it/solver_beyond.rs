//! Requests on which apk's search fails although there is an answer, and those on which it never
//! ends: answered, and announced.

use crate::support::solver_run::{self, Situation};
use crate::support::{self, Sandbox, scene};
use std::fmt::Write as _;

/// Packages separated by `;`, each `NAME-VERSION D: … p: … i: … k: …`; `installed` ones are only
/// in the database.
fn situation(packages: &str, world: &str, command: &str) -> Situation {
    let (mut index, mut installed) = (String::new(), String::new());
    for (number, line) in packages.split(';').enumerate() {
        let mut words = line.split_whitespace();
        let full_name = words.next().expect("a package");
        let (name, version) = full_name.rsplit_once('-').expect("NAME-VERSION");
        let mut record = format!(
            "C:{}\nP:{name}\nV:{version}\nA:noarch\nS:1\nI:1\n",
            scene::checksum(number)
        );
        let mut is_installed = false;
        let mut fields: Vec<(char, Vec<&str>)> = Vec::new();
        for word in words {
            match (word, word.strip_suffix(':')) {
                ("installed", _) => is_installed = true,
                (_, Some(field)) if field.len() == 1 => {
                    fields.push((field.chars().next().expect("a letter"), Vec::new()));
                }
                _ => fields.last_mut().expect("a field").1.push(word),
            }
        }
        for (field, words) in fields {
            let _ = writeln!(record, "{field}:{}", words.join(" "));
        }
        record.push('\n');
        if is_installed {
            &mut installed
        } else {
            &mut index
        }
        .push_str(&record);
    }
    Situation {
        world: world.replace(' ', "\n"),
        installed,
        repositories: vec![(None, index)],
        arguments: solver_run::words(command).collect(),
        ..Situation::default()
    }
}

/// Returns what is installed in the end by the complete search; apk's must fail.
fn found(packages: &str, world: &str, command: &str) -> String {
    let decision = solver_run::decide(&situation(packages, world, command)).expect("a decision");
    assert_eq!(decision.greedy, None, "apk's search finds this: {packages}");
    let Some(complete) = decision.complete else {
        return format!("nothing: {}", decision.explanation.unwrap_or_default());
    };
    let lines: Vec<&str> = packages.split(';').map(str::trim).collect();
    let mut names: Vec<&str> = complete
        .iter()
        .map(|identity| {
            let number = (0..lines.len()).find(|n| scene::checksum(*n) == identity.to_q1());
            lines[number.expect("a known package")]
                .split(' ')
                .next()
                .expect("a name")
        })
        .collect();
    names.sort_unstable();
    names.join(" ")
}

/// Packages, command, answer.
const SOLVABLE: &[(&str, &str, &str)] = &[
    ("ed-1; ed-2 D: gone", "add ed", "ed-1"),
    ("app-1; app-2 D: lib>2; lib-2", "add app", "app-1"),
    ("b-1; b-2 D: c; c-1 D: b<2", "add b", "b-1"),
    ("a-1; c-1; c-2 D: !a", "add a c", "a-1 c-1"),
    ("b-1; b-2 D: c=2 c=1; c-1; c-2", "add b", "b-1"),
    (
        "b-1; b-2 D: c; c-2 D: a p: so:x=2; a-1 p: so:x=1",
        "add b",
        "b-1",
    ),
    ("a-1 p: so:x=1; b-1 D: a p: so:x=2", "add so:x", "a-1"),
    ("c-1 p: so:x=2; c-2 D: so:x", "add c", "c-1"),
    ("a-1; b-1; t-1 D: c>1 i: a b; c-1", "add a b", "a-1 b-1"),
    ("b-2; b-3 D: !a; a-1; c-1 D: a b", "add c", "a-1 b-2 c-1"),
    (
        "a-2; d-1 D: a>2 c; a-3; c-1; c-2 D: b; b-1 D: a=2",
        "add d",
        "a-3 c-1 d-1",
    ),
    // What is triggered and cannot be had does not stand in the way of a broken world either.
    (
        "a-1; b-1; t-1 D: nosuch i: a b",
        "--force-broken-world add a b",
        "a-1 b-1",
    ),
];

#[test]
fn what_apk_refuses_is_found() {
    for (packages, command, wanted) in SOLVABLE {
        assert_eq!(
            &found(packages, "", command),
            wanted,
            "{packages}: {command}"
        );
    }
}

/// Packages, world, command, answer: what is installed stays, then what apk would like best.
const PREFERRED: &[(&str, &str, &str, &str)] = &[
    // Nothing installed is touched for a newer version of something else.
    (
        "lib-1 installed; lib-2; tool-1 installed; app-1 D: lib; app-2 D: gone",
        "lib tool",
        "add app",
        "app-1 lib-1 tool-1",
    ),
    // Of two ways out the one that keeps the installed provider.
    (
        "mta-1 installed p: smtp=1; post-2 p: smtp=2; app-1 D: smtp; ed-1; ed-2 D: gone",
        "mta",
        "add app ed",
        "app-1 ed-1 mta-1",
    ),
    // An upgrade goes as far as it can.
    (
        "a-1 installed; b-1 installed; a-2; b-2; b-3 D: gone",
        "a b",
        "upgrade",
        "a-2 b-2",
    ),
    // A downgrade rather than a removal.
    (
        "a-2 installed; a-1; b-1 D: !a>1; b-2 D: gone",
        "a",
        "add b",
        "a-1 b-1",
    ),
];

#[test]
fn what_is_installed_stays_first() {
    for (packages, world, command, wanted) in PREFERRED {
        assert_eq!(
            &found(packages, world, command),
            wanted,
            "{packages}: {command}"
        );
    }
}

/// Runs the binary on packages.
fn print(packages: &str, words: &[&str]) -> support::Run {
    let situation = situation(packages, "", "");
    let sandbox = Sandbox::new();
    let folder = sandbox.beside("repository/x86_64");
    std::fs::create_dir_all(&folder).expect("a new directory");
    let archive = scene::index_archive(situation.repositories[0].1.as_bytes());
    std::fs::write(folder.join("APKINDEX.tar.gz"), archive).expect("a new file");
    sandbox.repositories(&[&sandbox.beside("repository").display().to_string()]);
    sandbox.write("etc/apk/world", "");
    sandbox.write("lib/apk/db/installed", "");
    let mut command = sandbox.ibex();
    command.args([
        "--arch",
        "x86_64",
        "--allow-untrusted",
        "--no-cache",
        "--simulate",
    ]);
    support::run(command.args(words))
}

#[test]
fn an_answer_beyond_apk_is_announced_and_can_be_declined() {
    let packages = "app-1; app-2 D: lib>2; lib-2";
    let run = print(packages, &["add", "app"]).success();
    assert_eq!(
        run.output,
        "apk's search finds no solution; this one takes app-1 (--solver=apk turns it off)\n\
         (1/1) Installing app (1)\nOK: 1 B in 1 packages\n"
    );
    let run = print(packages, &["--solver=apk", "add", "app"]);
    assert_eq!(
        (run.code, run.output.lines().next()),
        (2, Some("ERROR: unable to select packages:"))
    );
}

#[test]
fn a_broken_world_that_cannot_be_mended_ends() {
    let packages = "a-1; b-1; t-1 D: nosuch i: a b";
    let words = ["--force-broken-world", "--solver=apk", "add", "a", "b"];
    let run = print(packages, &words);
    assert_eq!(run.code, 2, "{}", run.output);
    assert!(
        run.output.contains("nosuch (no such package)"),
        "{}",
        run.output
    );
    let run = print(packages, &["--force-broken-world", "add", "a", "b"]).success();
    assert!(
        run.output.contains("(2/2) Installing b (1)"),
        "{}",
        run.output
    );
    // Part of the world is broken for good, and something that installs itself cannot be had.
    let words = ["--force-broken-world", "add", "a", "b", "gone"];
    let run = print(packages, &words).success();
    assert!(
        run.output.contains("(2/2) Installing b (1)"),
        "{}",
        run.output
    );
}
