use crate::support::{self, Sandbox};
use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

/// Where repositories and keys of the cases are, below the shared data.
const KEYS: [&str; 3] = ["alpine-v3.19/keys", "alpine-branches/keys", "index/keys"];

/// Runs one case of `explanations.txt`: lines `@ REPOSITORY` and `$ ARGUMENTS`.
fn explain(data: &Path, repositories: &[&str], arguments: &str) -> Option<String> {
    let sandbox = Sandbox::new();
    sandbox.trust(&KEYS)?;
    sandbox
        .run(["--initdb", "--arch", "x86_64", "--usermode=auto", "add"])
        .success();
    let lines = repositories.iter().map(|line| match line.split_once(' ') {
        Some((tag, path)) => format!("{tag} {}", data.join(path).display()),
        None => data.join(line).display().to_string(),
    });
    let lines: Vec<String> = lines.collect();
    sandbox.repositories(&lines.iter().map(String::as_str).collect::<Vec<_>>());
    let mut command = sandbox.ibex();
    command.args(["--arch", "x86_64", "--simulate"]);
    if let Some(arguments) = arguments.strip_prefix("--json ") {
        command.arg("--json").args(arguments.split(' '));
        return Some(as_data(&mut command));
    }
    command.arg("--explain");
    let output = support::run(command.args(arguments.split(' '))).output;
    // Only the explanation; apk's own report is covered elsewhere.
    let start = output.find("These cannot").or(output.find("This cannot"));
    Some(match start {
        Some(start) => output[start..].to_owned(),
        None => output,
    })
}

/// Returns what a program that reads the answer gets: one value on standard output.
fn as_data(command: &mut Command) -> String {
    let output = command.stdin(Stdio::null()).output().expect("it starts");
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).expect("one value");
    let code = output.status.code().expect("an exit code");
    assert_eq!(report["errors"], code, "{report}");
    assert_eq!(report["changes"], serde_json::json!([]), "{report}");
    let text = serde_json::to_string_pretty(&report["contradictions"]).expect("data");
    // Only the report of apk goes to standard error.
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(
        told.starts_with("ERROR: unable to select packages:\n"),
        "{told}"
    );
    assert!(!told.contains("contradictions"), "{told}");
    text + "\n"
}

#[test]
fn worked_conflicts_of_real_packages() {
    let Some(data) = support::data(".") else {
        return;
    };
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/explanations.txt");
    let wanted = fs::read_to_string(&path).expect("the snapshots");
    let mut found = String::new();
    let mut repositories: Vec<&str> = Vec::new();
    let mut last = "";
    let mut count = 0;
    for line in wanted.lines() {
        if let Some(repository) = line.strip_prefix("@ ") {
            if !last.starts_with("@ ") {
                repositories.clear();
            }
            repositories.push(repository);
        }
        let comment = line.starts_with('#');
        if comment || line.starts_with("@ ") || line.starts_with("$ ") {
            let gap = last.starts_with(' ') && !found.is_empty();
            found.push_str(if gap { "\n" } else { "" });
            let _ = writeln!(found, "{line}");
            last = line;
        }
        if let Some(arguments) = line.strip_prefix("$ ") {
            let Some(text) = explain(&data, &repositories, arguments) else {
                return;
            };
            found.push_str(&text);
            last = "  ";
            count += 1;
        }
    }
    if std::env::var_os("IBEX_UPDATE_SNAPSHOTS").is_some() {
        fs::write(&path, &found).expect("a writable source tree");
    }
    assert!(count >= 20, "only {count} cases");
    similar(&wanted, &found);
}

/// Compares texts; says where they part.
fn similar(wanted: &str, found: &str) {
    let mut pairs = wanted.lines().zip(found.lines()).enumerate();
    if let Some((number, (a, b))) = pairs.find(|(_, (a, b))| a != b) {
        panic!("line {}:\nwanted {a}\nfound  {b}", number + 1);
    }
    assert_eq!(wanted.lines().count(), found.lines().count());
}
