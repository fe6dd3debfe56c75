//! The recorded operations of `data/expected`: what apk 3.0.6 printed, returned and left on disk.

use crate::support::{self, Sandbox};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

/// Cases that are not replayed, and why.
const LEFT_OUT: [(&str, &str); 1] = [(
    "v3-openwrt-missing-package",
    "nothing is changed if a file is missing; apk installs the other packages",
)];

/// Paths that are there although apk has lost them, and why.
const BETTER: [(&str, &str, &str); 3] = [
    (
        "downgrade-base-edge-to-v3.20",
        "var/lock",
        "a link of the old version becomes a directory of the new one; apk deletes it",
    ),
    (
        "downgrade-base-edge-to-v3.20",
        "var/lock/subsys",
        "as above",
    ),
    (
        "aarch64-v3.13.1-to-v3.13.4",
        "run/wpa_supplicant",
        "var/run links to /run, which is that of the root; apk makes it on the host",
    ),
];

#[test]
fn simulated_operations_print_and_return_what_apk_does() {
    replay(false);
}

#[test]
fn real_operations_print_return_and_leave_what_apk_does() {
    if support::is_root() {
        replay(true);
    }
}

fn replay(real: bool) {
    let Some(folder) = support::data("expected") else {
        return;
    };
    let text = fs::read_to_string(folder.join("cases.json")).expect("the case list");
    let cases: Vec<Value> = serde_json::from_str(&text).expect("valid JSON");
    let mut failures = Vec::new();
    let mut count = 0;
    for case in cases.iter().filter(|case| (case["tree"] == true) == real) {
        let name = case["name"].as_str().expect("a name");
        if let Some((_, reason)) = LEFT_OUT.iter().find(|(left_out, _)| *left_out == name) {
            eprintln!("left out: {name}: {reason}");
            continue;
        }
        count += 1;
        if let Err(difference) = check(case, name, &folder.join("apk-3.0.6")) {
            failures.push(format!("=== {name}\n{difference}"));
        }
    }
    assert!(count > 0, "no cases");
    assert!(
        failures.is_empty(),
        "{} of {count} differ:\n{}",
        failures.len(),
        failures.join("\n")
    );
}

fn strings(value: &Value) -> Vec<&str> {
    value
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect()
}

fn check(case: &Value, name: &str, recorded: &Path) -> Result<(), String> {
    let data = support::data("").expect("the caller found it");
    let sandbox = prepare(case, &data);
    let started = now() - 1;
    let mut text = String::new();
    for step in case["steps"].as_array().into_iter().flatten() {
        let lines: Vec<String> = strings(&step["repositories"])
            .iter()
            .map(|r| data.join(r).display().to_string())
            .collect();
        sandbox.repositories(&lines.iter().map(String::as_str).collect::<Vec<_>>());
        let arguments = strings(&step["args"]);
        let arch = case["arch"].as_str().expect("an architecture");
        let mut words = vec!["--arch", arch, "--no-network"];
        words.extend(&arguments);
        let run = sandbox.run(words);
        let output = run.output.replace(&format!("{}/", data.display()), "");
        text += &format!(
            "$ apk {}\n{output}[exit {}]\n",
            arguments.join(" "),
            run.code
        );
    }
    let wanted = fs::read_to_string(recorded.join(format!("{name}.txt"))).expect("a record");
    if text != wanted {
        return Err(format!("--- wanted\n{wanted}--- found\n{text}"));
    }
    if case["tree"] != true {
        return Ok(());
    }
    let database = recorded.join(format!("{name}.installed"));
    if database.exists() {
        let wanted = fs::read_to_string(database).expect("a record");
        let found = sandbox.read("lib/apk/db/installed");
        if wanted != found {
            return Err(format!("installed: {}", first_difference(&wanted, &found)));
        }
    }
    let wanted = read_tree(&recorded.join(format!("{name}.tree.tsv")));
    let mut found = support::tree(&sandbox.root(), started);
    for (_, path, _) in BETTER.iter().filter(|(case, ..)| *case == name) {
        assert!(
            found.remove(*path).is_some(),
            "{name}: {path} is not there any more"
        );
    }
    // apk takes no lock while it makes a database, so two of them can make the same one.
    if !wanted.contains_key("lib/apk/db/lock") {
        found.remove("lib/apk/db/lock");
        // It is made before anything is decided, and what holds it with it.
        for path in ["lib/apk/db", "lib/apk", "lib"] {
            if !wanted.contains_key(path) {
                found.remove(path);
            }
        }
    }
    let differences = support::differences(&wanted, &found);
    if differences.is_empty() {
        Ok(())
    } else {
        Err(differences.join("\n"))
    }
}

fn prepare(case: &Value, data: &Path) -> Sandbox {
    let sandbox = Sandbox::new();
    if let Some(root) = case["root"].as_str() {
        let from = data.join(root).join(".");
        support::run(
            std::process::Command::new("cp")
                .arg("-a")
                .arg(from)
                .arg(sandbox.root()),
        )
        .success();
    }
    if case["empty"] == true {
        sandbox.write("etc/apk/world", "");
        sandbox.write("lib/apk/db/installed", "");
    }
    sandbox
        .trust(&strings(&case["keys"]))
        .expect("the keys are part of the data");
    sandbox
}

fn now() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.expect("a clock after 1970").as_secs() as i64
}

fn first_difference(wanted: &str, found: &str) -> String {
    let pairs = wanted.lines().zip(found.lines()).enumerate();
    match pairs.into_iter().find(|(_, (a, b))| a != b) {
        Some((i, (a, b))) => format!("line {}: wanted {a:?}, found {b:?}", i + 1),
        None => format!(
            "{} lines wanted, {} found",
            wanted.lines().count(),
            found.lines().count()
        ),
    }
}

fn read_tree(path: &Path) -> BTreeMap<String, String> {
    let text = fs::read_to_string(path).expect("a record");
    text.lines()
        .skip(1)
        .filter_map(|line| line.split_once('\t'))
        .map(|(path, row)| (path.to_owned(), row.to_owned()))
        .collect()
}
