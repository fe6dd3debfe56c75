//! History, undo and rollback on real packages: what was there comes back, also when no repository
//! has it any more, and what cannot come back is named.

use crate::support::repository::{Repository, package};
use crate::support::{self, Run, Sandbox, data, differences, run, tree};
use std::collections::BTreeMap;
use std::fs;

/// A root with `alpine-base` of 3.19, then `openssh`, then everything of 3.20.
struct Case {
    sandbox: Sandbox,
    /// The tree after each transaction.
    trees: Vec<BTreeMap<String, String>>,
}

impl Case {
    fn new() -> Option<Self> {
        let (old, new) = (data("alpine-v3.19")?, data("alpine-branches/v3.20")?);
        if !support::is_root() {
            return None;
        }
        let sandbox = Sandbox::new();
        sandbox.trust(&["alpine-v3.19/keys", "alpine-branches/keys"])?;
        sandbox.repositories(&[&old.display().to_string()]);
        let mut case = Self {
            sandbox,
            trees: Vec::new(),
        };
        case.step(&["--initdb", "--arch", "x86_64", "add", "alpine-base"]);
        case.step(&["add", "openssh"]);
        case.sandbox.repositories(&[&new.display().to_string()]);
        case.step(&["upgrade", "--available"]);
        // From here on no repository has anything.
        case.sandbox.repositories(&[]);
        Some(case)
    }

    fn run(&self, arguments: &[&str]) -> Run {
        run(self.sandbox.ibex().args(arguments))
    }

    fn step(&mut self, arguments: &[&str]) {
        self.run(arguments).success();
        self.trees.push(self.tree());
    }

    /// Files that scripts write anew with every transaction are left out: they are what
    /// `history show` names.
    fn tree(&self) -> BTreeMap<String, String> {
        let mut tree = tree(&self.sandbox.root(), 1_600_000_000);
        tree.remove("lib/apk/db/lock");
        for path in ["group", "group-", "passwd", "passwd-", "shadow", "shadow-"] {
            tree.remove(&format!("etc/{path}"));
        }
        tree
    }

    #[track_caller]
    fn is_as_after(&self, transaction: usize) {
        let found = differences(&self.trees[transaction - 1], &self.tree());
        // An upgrade leaves the new version of changed configuration beside it.
        let found: Vec<String> = found
            .into_iter()
            .filter(|line| !line.contains(".apk-new\t"))
            .collect();
        assert_eq!(found, Vec::<String>::new(), "after {transaction}");
    }

    fn json(&self, arguments: &[&str]) -> serde_json::Value {
        let mut command = self.sandbox.ibex();
        let output = command.args(arguments).output().expect("it runs");
        assert!(output.status.success(), "{output:?}");
        serde_json::from_slice(&output.stdout).expect("standard output is JSON")
    }
}

#[test]
fn what_left_comes_back_without_any_repository() {
    let Some(case) = Case::new() else { return };
    let simulated = case.run(&["undo", "--simulate"]).success();
    case.is_as_after(3);
    let done = case.run(&["undo"]).success();
    let steps = |text: &str| {
        let lines = text.lines().filter(|line| line.starts_with('('));
        lines.map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(steps(&simulated.output), steps(&done.output));
    assert!(done.output.contains("Downgrading musl"), "{}", done.output);
    case.is_as_after(2);
    let audit = case.run(&["audit", "--system", "--check-permissions"]);
    assert_eq!(audit.success().output, "");

    // Taking the undo back is going forward again.
    case.run(&["undo"]).success();
    case.is_as_after(3);
    case.run(&["rollback", "1"]).success();
    case.is_as_after(1);
    let names = case.run(&["info"]).success().output;
    assert!(!names.contains("openssh"), "{names}");
    assert_eq!(case.sandbox.read("etc/apk/world"), "alpine-base\n");
}

#[test]
fn a_transaction_in_the_middle_is_undone_or_says_why_not() {
    let Some(case) = Case::new() else { return };
    let before = case.tree();
    let refused = case.run(&["undo", "1"]);
    assert_eq!(refused.code, 1, "{}", refused.output);
    for part in [
        "ERROR: transaction 1 cannot be undone alone:",
        "musl-1.2.5-r0 is installed now: transaction 3 changed it since",
        "the root is unchanged; `rollback 0` takes back everything since",
    ] {
        assert!(refused.output.contains(part), "{part}:\n{}", refused.output);
    }
    assert_eq!(differences(&before, &case.tree()), Vec::<String>::new());
    // What 2 brought is there still, as it was, so it can go although 3 came after.
    case.run(&["undo", "2"]).success();
    assert_eq!(case.sandbox.read("etc/apk/world"), "alpine-base\n");
    let names = case.run(&["info"]).success().output;
    assert!(!names.contains("openssh"), "{names}");
}

#[test]
fn nothing_and_everything() {
    let Some(case) = Case::new() else { return };
    let all = case.run(&["rollback", "0"]).success();
    assert!(
        all.output.contains("OK: 0 B in 0 packages"),
        "{}",
        all.output
    );
    assert_eq!(case.sandbox.read("etc/apk/world").trim(), "");
    case.run(&["undo"]).success();
    case.is_as_after(3);
    for (arguments, text) in [
        (&["undo", "77"][..], "there is no transaction 77"),
        (&["undo", "x"], "'x' is not the number of a transaction"),
        (&["undo", "1", "2"], "one transaction at a time"),
        (&["rollback"], "needs the number of a transaction"),
        (&["history", "show", "77"], "there is no transaction 77"),
    ] {
        let run = case.run(arguments);
        assert_eq!(run.code, 1, "{arguments:?}");
        assert!(run.output.contains(text), "{arguments:?}: {}", run.output);
    }
}

#[test]
fn the_history_tells_people_and_programs() {
    let Some(case) = Case::new() else { return };
    let list = case.run(&["history"]).success().output;
    let lines: Vec<&str> = list.lines().collect();
    assert_eq!(lines.len(), 3, "{list}");
    assert!(
        lines[0].starts_with("3  ") && lines[0].contains("  done  "),
        "{list}"
    );
    assert!(lines[0].ends_with("upgrade --available"), "{list}");
    assert!(lines[1].contains("+11 "), "{list}");

    let show = case.run(&["history", "show", "2"]).success().output;
    for part in [
        "World:\n  + openssh\n",
        "  install openssh-server (9.6_p1-r0)\n",
    ] {
        assert!(show.contains(part), "{part}:\n{show}");
    }
    // A script of the new release makes groups.
    let show = case.run(&["history", "show", "3"]).success().output;
    let title = "Files changed by scripts:\n";
    let (_, files) = show.split_once(title).expect("files are named");
    assert!(files.contains("  etc/group (changed)\n"), "{show}");
    let entries = case.json(&["history", "--json"]);
    assert_eq!(entries.as_array().map(Vec::len), Some(3));
    assert_eq!(entries[1]["world_after"][1], "openssh");
    let entry = case.json(&["history", "show", "2", "--json"]);
    assert_eq!(entry, entries[1]);

    let plan = case.json(&["rollback", "2", "--simulate", "--json"]);
    assert_eq!(plan["simulated"], true);
    let musl = plan["changes"].as_array().expect("a list").iter();
    let musl = musl.clone().find(|change| change["new"]["name"] == "musl");
    assert_eq!(musl.expect("musl changes")["verb"], "downgrade");
    let done = case.json(&["rollback", "1", "--json"]);
    let left = done["left_as_they_are"].as_array().expect("a list");
    assert!(
        left.iter().any(|file| file["path"] == "etc/group"),
        "{left:?}"
    );
}

#[test]
fn what_was_changed_in_place_is_named() {
    let Some(case) = Case::new() else { return };
    case.sandbox.write("usr/bin/ssh-keygen", "edited\n");
    case.run(&["del", "openssh"]).success();
    let undone = case.run(&["undo"]).success().output;
    let title = "These files had been changed in place before they left:\n";
    let (_, files) = undone.split_once(title).expect("the remark");
    assert!(files.contains("  usr/bin/ssh-keygen\n"), "{undone}");
    assert_eq!(case.sandbox.read("usr/bin/ssh-keygen"), "edited\n");
}

#[test]
fn a_package_that_is_nowhere_is_named_and_nothing_is_done() {
    let Some(case) = Case::new() else { return };
    fs::remove_dir_all(case.sandbox.root().join("var/lib/ibex/kept")).expect("kept packages");
    let refused = case.run(&["undo"]);
    assert_eq!(refused.code, 1, "{}", refused.output);
    assert!(
        refused
            .output
            .contains("neither kept nor in a repository any more:")
            && refused.output.contains("musl-1.2.4_git20230717-r4"),
        "{}",
        refused.output
    );
    case.is_as_after(3);
    // Only so many transactions are kept.
    let old = data("alpine-v3.19").expect("it was there before");
    case.sandbox.repositories(&[&old.display().to_string()]);
    case.run(&["del", "--history-keep", "0", "openssh"])
        .success();
    assert!(!case.sandbox.root().join("var/lib/ibex/kept/0").exists());
    case.run(&["add", "--no-history", "openssh"]).success();
    let list = case.run(&["history"]).success().output;
    assert_eq!(list.lines().count(), 4, "{list}");
}

#[test]
fn a_damaged_history_holds_nothing_back() {
    let Some(case) = Case::new() else { return };
    case.sandbox
        .write("var/lib/ibex/history.sqlite", "no database");
    let run = case.run(&["del", "openssh"]).success();
    assert!(
        run.output
            .contains("WARNING: this transaction is not recorded: cannot use var/lib/ibex"),
        "{}",
        run.output
    );
    let history = case.run(&["history"]);
    assert_eq!(history.code, 99);
    assert!(
        history.output.contains("Unable to read history"),
        "{}",
        history.output
    );
}

#[test]
fn an_interrupted_transaction_is_settled_by_what_is_installed() {
    let Some(case) = Case::new() else { return };
    let database = case.sandbox.root().join("var/lib/ibex/history.sqlite");
    let reopen = |id: i64| {
        let connection = rusqlite::Connection::open(&database).expect("the history");
        let changed =
            connection.execute("UPDATE entry SET outcome = 'started' WHERE id = ?1", [id]);
        assert_eq!(changed, Ok(1));
    };
    // Finished, but its end was never written.
    reopen(3);
    case.run(&["del", "openssh"]).success();
    let list = case.run(&["history"]).success().output;
    assert!(
        list.lines().nth(1).expect("3").contains("recovered"),
        "{list}"
    );
    // Undone: nothing of it is there.
    reopen(4);
    case.run(&["undo", "3", "--no-history"]).success();
    case.run(&["add", "openssh"]);
    let list = case.run(&["history"]).success().output;
    assert!(
        list.contains("interrupted") || list.contains("recovered"),
        "{list}"
    );
}

/// Leaves the history as a process does that is killed in the middle of a transaction.
fn cut_off_in_the_history(sandbox: &Sandbox) {
    let path = sandbox.root().join("var/lib/ibex/history.sqlite");
    let connection = rusqlite::Connection::open(&path).expect("the history");
    // Pages go to the file before the end of the transaction.
    connection
        .pragma_update(None, "cache_size", 1)
        .expect("it is taken");
    connection
        .execute_batch("BEGIN; UPDATE entry SET command = hex(randomblob(100000)), outcome = 'x'")
        .expect("it is written");
    let journal = path.with_file_name("history.sqlite-journal");
    let texts = [&path, &journal].map(|path| fs::read(path).expect("it is there"));
    connection.execute_batch("ROLLBACK").expect("it ends");
    drop(connection);
    for (path, text) in [&path, &journal].into_iter().zip(texts) {
        fs::write(path, text).expect("a writable root");
    }
}

#[test]
fn a_history_that_was_being_written_is_read_by_everybody() {
    use std::os::unix::fs::PermissionsExt;
    use std::os::unix::process::CommandExt;
    if !support::is_root() {
        return;
    }
    let sandbox = Sandbox::new();
    let mut repository = Repository::new(&sandbox);
    repository.add(&package("a", "1", Vec::new()));
    repository.publish(1);
    sandbox.repositories(&[&repository.path().display().to_string()]);
    sandbox
        .run(["--initdb", "--arch", "x86_64", "add", "a"])
        .success();
    let whole = sandbox.run(["history"]).success().output;
    let journal = sandbox.root().join("var/lib/ibex/history.sqlite-journal");
    cut_off_in_the_history(&sandbox);
    // Somebody who can write nothing there.
    let program = sandbox.beside("ibex");
    support::copy_program(&program);
    let folder = program.parent().expect("the sandbox");
    fs::set_permissions(folder, fs::Permissions::from_mode(0o755)).expect("it is ours");
    let mut other = std::process::Command::new(&program);
    other
        .env_clear()
        .env("APK_CONFIG", "/dev/null")
        .uid(65534)
        .gid(65534)
        .arg("--root")
        .arg(sandbox.root())
        .arg("history");
    assert_eq!(run(&mut other).success().output, whole);
    assert!(journal.exists(), "it is not theirs to end it");
    assert_eq!(sandbox.run(["history"]).success().output, whole);
    assert!(!journal.exists(), "it was ended");
    for words in [&["recover"][..], &["history", "show", "1"], &["undo"]] {
        cut_off_in_the_history(&sandbox);
        let run = sandbox.run(words).success();
        assert!(!run.output.contains("WARNING"), "{}", run.output);
    }
}
