//! What people see on a terminal: tables that fit it, colours unless they are not wanted; and that
//! programs, which read from a pipe, get apk's lines instead.

use crate::support::repository::{Repository, file, package};
use crate::support::{Sandbox, run};
use std::process::Command;
use unicode_width::UnicodeWidthStr;

/// Long enough that no line with it fits a narrow terminal.
const LONG: &str = "a description of more words than a terminal of sixty columns has room for";

/// A root with two packages, one of which can be upgraded, and a history; none without the program
/// that makes terminals.
fn sandbox() -> Option<Sandbox> {
    let there = Command::new("script").arg("--version").output();
    if !there.is_ok_and(|told| String::from_utf8_lossy(&told.stdout).contains("util-linux")) {
        assert!(
            std::env::var_os("CI").is_none(),
            "script of util-linux is missing"
        );
        eprintln!("skipped: script of util-linux is missing");
        return None;
    }
    let sandbox = Sandbox::new();
    let mut repository = Repository::new(&sandbox);
    for (name, version) in [
        ("alder", "1.0-r0"),
        ("birch", "2.5.1-r3"),
        ("cedar", "3-r1"),
    ] {
        let made = package(name, version, vec![file(&format!("{name}.txt"), name)]);
        repository.add(&made.with(|package| package.description = LONG.to_owned()));
    }
    repository.publish(1_700_000_000);
    sandbox.repositories(&[&repository.path().display().to_string()]);
    sandbox
        .run(["--initdb", "--arch", "x86_64", "add", "alder", "birch"])
        .success();
    let newer = package("birch", "2.6-r0", Vec::new());
    repository.add(&newer.with(|package| package.description = LONG.to_owned()));
    repository.publish(1_700_000_001);
    Some(sandbox)
}

/// Runs a command on a terminal of so many columns; returns the lines that it shows.
fn on_terminal(sandbox: &Sandbox, columns: u32, colour: bool, words: &[&str]) -> Vec<String> {
    let mut command = sandbox.ibex();
    command.args(words);
    let quoted = |word: &std::ffi::OsStr| format!("'{}'", word.to_str().expect("plain words"));
    let program = quoted(command.get_program());
    let line: Vec<String> = command.get_args().map(quoted).collect();
    let line = format!("stty cols {columns} && exec {program} {}", line.join(" "));
    let mut terminal = Command::new("script");
    terminal.args(["-q", "-e", "-c", &line, "/dev/null"]);
    for (key, value) in command.get_envs() {
        if let Some(value) = value {
            terminal.env(key, value);
        }
    }
    terminal.env("TERM", "xterm-256color");
    terminal.env_remove("NO_COLOR");
    if !colour {
        terminal.env("NO_COLOR", "1");
    }
    let shown = run(&mut terminal).success().output;
    shown.replace('\r', "").lines().map(str::to_owned).collect()
}

/// Takes colours out of a line.
fn plain(line: &str) -> String {
    let mut parts = line.split("\x1b[");
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |text, part| {
        let (code, rest) = part.split_once('m').expect("only colours");
        assert!(
            code.bytes().all(|b| b.is_ascii_digit() || b == b';'),
            "{line:?}"
        );
        text + rest
    })
}

#[test]
fn listings_are_tables_that_fit() {
    let Some(sandbox) = sandbox() else { return };
    for (words, cut, rows) in [
        (
            &["list"][..],
            true,
            &["alder", "birch", "birch", "cedar"][..],
        ),
        (&["list", "-I"], true, &["alder", "birch"]),
        (&["search", "ce*"], true, &["cedar"]),
        (&["history"], true, &["1"]),
    ] {
        for columns in [60, 200] {
            let lines = on_terminal(&sandbox, columns, true, words);
            assert!(lines.iter().any(|line| line.contains('\x1b')), "{lines:?}");
            let lines: Vec<String> = lines.iter().map(|line| plain(line)).collect();
            let first = |line: &String| line.split_whitespace().next().map(str::to_owned);
            let found: Vec<_> = lines.iter().filter_map(first).collect();
            assert_eq!(found, rows, "{words:?}: {lines:#?}");
            let widest = lines.iter().map(|line| line.width()).max();
            assert!(widest <= Some(columns as usize), "{words:?}: {lines:#?}");
            let is_cut = lines.iter().any(|line| line.ends_with('\u{2026}'));
            assert_eq!(
                is_cut,
                cut && columns == 60,
                "{words:?} {columns}: {lines:#?}"
            );
        }
        let lines = on_terminal(&sandbox, 60, false, words);
        assert!(!lines.iter().any(|line| line.contains('\x1b')), "{lines:?}");
    }
}

#[test]
fn what_is_installed_and_what_upgrades_it_is_marked() {
    let Some(sandbox) = sandbox() else { return };
    let lines = on_terminal(&sandbox, 120, false, &["list"]);
    let marks = |line: &String| {
        let words: Vec<&str> = line.split_whitespace().skip(1).take(3).collect();
        words.join(" ")
    };
    let marks: Vec<String> = lines.iter().map(marks).collect();
    assert_eq!(
        marks,
        [
            "1.0-r0 installed a",
            "2.5.1-r3 installed a",
            "2.6-r0 upgrades 2.5.1-r3",
            "3-r1 a description",
        ]
    );
}

#[test]
fn a_pipe_gets_the_lines_of_apk() {
    let Some(sandbox) = sandbox() else { return };
    let listed = sandbox.run(["list", "alder"]).success().output;
    assert_eq!(listed, "alder-1.0-r0 x86_64 {alder} (MIT) [installed]\n");
    assert_eq!(
        sandbox.run(["search", "alder"]).success().output,
        "alder-1.0-r0\n"
    );
}

#[test]
fn a_change_is_shown_before_it_is_made() {
    let Some(sandbox) = sandbox() else { return };
    let lines = on_terminal(&sandbox, 60, true, &["add", "cedar"]);
    let lines: Vec<String> = lines.iter().map(|line| plain(line)).collect();
    assert!(lines.contains(&"To install (1):".to_owned()), "{lines:#?}");
    assert!(
        lines.iter().any(|line| line.contains("on disk")),
        "{lines:#?}"
    );
    assert!(
        lines
            .iter()
            .any(|line| line.contains("Installing cedar (3-r1)")),
        "{lines:#?}"
    );
    assert!(lines.iter().all(|line| line.width() <= 60), "{lines:#?}");
}
