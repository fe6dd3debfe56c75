//! Bad input: each ends with a clear message and apk's exit code, and the root is as before.

use crate::support::{self, Run, Sandbox};
use std::fs;
use std::path::{Path, PathBuf};

/// The package that the cases ask for; it needs nothing else.
const MUSL: &str = "musl-1.2.4_git20230717-r4.apk";

/// A private copy of a small part of the real repository, to be damaged.
struct Case {
    sandbox: Sandbox,
    repository: PathBuf,
    keys: PathBuf,
}

impl Case {
    fn new() -> Option<Self> {
        let origin = support::data("alpine-v3.19")?;
        let sandbox = Sandbox::new();
        let repository = sandbox.beside("repository");
        fs::create_dir_all(repository.join("x86_64")).expect("a new directory");
        for name in ["APKINDEX.tar.gz", MUSL] {
            let name = format!("x86_64/{name}");
            fs::copy(origin.join(&name), repository.join(&name)).expect("a copy");
        }
        Some(Self {
            sandbox,
            repository,
            keys: origin.join("keys"),
        })
    }

    fn file(&self, name: &str) -> PathBuf {
        self.repository.join("x86_64").join(name)
    }

    fn alter(&self, name: &str, at: usize) {
        let path = self.file(name);
        let mut bytes = fs::read(&path).expect("a file");
        bytes[at] ^= 0x55;
        fs::write(path, bytes).expect("a private copy");
    }

    fn run(&self, arguments: &[&str]) -> Run {
        let mut command = self.sandbox.ibex();
        command
            .args(["--arch", "x86_64", "--no-scripts", "--keys-dir"])
            .arg(&self.keys);
        command.arg("-X").arg(&self.repository).args(arguments);
        if !rustix::process::geteuid().is_root() {
            command.arg("--usermode");
        }
        support::run(&mut command)
    }

    /// Adds musl to a root with an empty database; checks message, code, and that nothing changed.
    #[track_caller]
    fn refused(&self, arguments: &[&str], messages: &[&str], code: i32) {
        self.run(&["--initdb", "add"]).success();
        let before = snapshot(&self.sandbox.root());
        let run = self.run(arguments);
        for message in messages {
            assert!(
                run.output.contains(message),
                "{message:?} is not in:\n{}",
                run.output
            );
        }
        assert_eq!(run.code, code, "{}", run.output);
        let changes = support::differences(&before, &snapshot(&self.sandbox.root()));
        assert!(
            changes.is_empty(),
            "the root changed:\n{}",
            changes.join("\n")
        );
    }
}

fn snapshot(root: &Path) -> std::collections::BTreeMap<String, String> {
    let mut rows = support::tree(root, 0);
    // The log tells of the attempt, and the lock stays wherever one was taken, as with apk.
    rows.remove("var/log/apk.log");
    rows.remove("lib/apk/db/lock");
    rows
}

#[test]
fn an_unknown_key() {
    let Some(mut case) = Case::new() else { return };
    case.keys = support::data("alpine-branches/keys").expect("present");
    case.refused(
        &["add", "musl"],
        &["UNTRUSTED signature", "musl (no such package)"],
        1,
    );
}

#[test]
fn no_keys_at_all() {
    let Some(mut case) = Case::new() else { return };
    case.keys = case.sandbox.beside("no-keys");
    fs::create_dir(&case.keys).expect("a new directory");
    case.refused(&["add", "musl"], &["UNTRUSTED signature"], 1);
}

#[test]
fn an_altered_index() {
    let Some(case) = Case::new() else { return };
    for at in [300, 9_000] {
        case.alter("APKINDEX.tar.gz", at);
        case.refused(
            &["add", "musl"],
            &["WARNING: opening ", "APKINDEX.tar.gz: "],
            1,
        );
    }
}

#[test]
fn an_altered_package_in_each_of_its_parts() {
    let Some(origin) = support::data("alpine-v3.19/x86_64") else {
        return;
    };
    let bytes = fs::read(origin.join(MUSL)).expect("a package");
    let starts: Vec<usize> = bytes
        .windows(10)
        .enumerate()
        .filter(|(_, window)| *window == [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 2, 3])
        .map(|(at, _)| at)
        .collect();
    assert_eq!(starts.len(), 3, "signature, control and data members");
    for start in starts {
        let case = Case::new().expect("present");
        case.alter(MUSL, start + 60);
        case.refused(&["add", "musl"], &["ERROR: musl-1.2.4_git20230717-r4: "], 1);
    }
}

#[test]
fn a_truncated_package() {
    let Some(case) = Case::new() else { return };
    let path = case.file(MUSL);
    let bytes = fs::read(&path).expect("a package");
    for length in [0, 100, 700, 3_000, bytes.len() - 1] {
        fs::write(&path, &bytes[..length]).expect("a private copy");
        case.refused(&["add", "musl"], &["ERROR: musl-1.2.4_git20230717-r4: "], 1);
    }
}

#[test]
fn a_missing_package() {
    let Some(case) = Case::new() else { return };
    fs::remove_file(case.file(MUSL)).expect("a private copy");
    let message = "ERROR: musl-1.2.4_git20230717-r4: package mentioned in index not found";
    case.refused(&["add", "musl"], &[message], 1);
}

#[test]
fn a_missing_repository() {
    let Some(case) = Case::new() else { return };
    fs::remove_dir_all(&case.repository).expect("a private copy");
    case.refused(
        &["add", "musl"],
        &["WARNING: opening ", "No such file or directory"],
        1,
    );
}

#[test]
fn an_unknown_package_with_the_nearest_names() {
    let Some(case) = Case::new() else { return };
    let plain = "ERROR: unable to select packages:\n  musll (no such package):\n    required by: world[musll]\n";
    case.refused(&["add", "musll"], &[plain], 1);
    let explained = case.run(&["add", "--explain", "musll"]);
    assert!(explained.output.contains("musl"), "{}", explained.output);
    assert!(
        explained.output.contains("did you mean"),
        "{}",
        explained.output
    );
}

#[test]
fn an_unreadable_database() {
    let Some(case) = Case::new() else { return };
    let none = case.run(&["add", "musl"]);
    assert_eq!(none.code, 99, "{}", none.output);
    assert!(
        none.output.contains("ERROR: Failed to open apk database: "),
        "{}",
        none.output
    );
    case.run(&["--initdb", "add"]).success();
    case.sandbox.write("lib/apk/db/installed", "garbage\n");
    let before = snapshot(&case.sandbox.root());
    let bad = case.run(&["add", "musl"]);
    assert_eq!(bad.code, 99, "{}", bad.output);
    assert!(
        bad.output.contains("ERROR: Unable to read database: "),
        "{}",
        bad.output
    );
    assert_eq!(before, snapshot(&case.sandbox.root()));
}

#[test]
fn a_full_disk() {
    let Some(mut case) = Case::new() else { return };
    if !support::is_root() {
        return;
    }
    // A package of 650 KiB on a file system of 300 KiB, in a mount namespace of its own.
    case.keys = case.keys.canonicalize().expect("present");
    let root = case.sandbox.root();
    let script = format!(
        "mount -t tmpfs -o size=300k tmpfs '{root}' && \
         '{ibex}' --root '{root}' --initdb --arch x86_64 --no-scripts add && \
         find '{root}' ! -name lock | sort > '{beside}/before' && \
         '{ibex}' --root '{root}' --keys-dir '{keys}' -X '{repository}' --no-scripts add musl; \
         echo \"exit $?\"; find '{root}' ! -name lock | sort > '{beside}/after'; umount '{root}'",
        root = root.display(),
        ibex = env!("CARGO_BIN_EXE_ibex"),
        beside = case.sandbox.beside("").display(),
        keys = case.keys.display(),
        repository = case.repository.display(),
    );
    let mut command = std::process::Command::new("unshare");
    command.args(["--mount", "sh", "-c", &script]).env_clear();
    command
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
        .env("APK_CONFIG", "/dev/null");
    command.env("IBEX_CACHE_DIR", case.sandbox.beside("cache"));
    let run = support::run(&mut command);
    assert!(run.output.contains("exit 1\n"), "{}", run.output);
    assert!(
        run.output.contains("o space left on device") || run.output.contains("free"),
        "{}",
        run.output
    );
    let list = |name: &str| fs::read_to_string(case.sandbox.beside(name)).expect("written");
    assert_eq!(list("before"), list("after"), "{}", run.output);
}

#[test]
fn a_bad_configuration_file_is_told_of_whatever_is_asked() {
    let folder = tempfile::tempdir().expect("a temporary directory");
    let config = folder.path().join("config");
    std::fs::write(&config, "nonsense\nquiet extra\n").expect("a file");
    let warnings = "WARNING: config: unrecognized option 'nonsense'\n\
                    WARNING: config: option 'quiet' does not expect argument (got 'extra')\n";
    for (words, wanted) in [
        (&["--version"][..], ""),
        (&["--print-arch"], ""),
        (&["--help"], ""),
        (
            &["--nope"],
            "ERROR: command line: unrecognized option 'nope'\n",
        ),
        (
            &["nope"],
            "ERROR: 'nope' is not a command. See 'ibex --help'.\n",
        ),
    ] {
        let output = crate::support::ibex()
            .env("APK_CONFIG", &config)
            .args(words)
            .output()
            .expect("it starts");
        let told = String::from_utf8_lossy(&output.stderr);
        assert_eq!(told, format!("{warnings}{wanted}"), "{words:?}");
    }
}

#[test]
fn a_full_standard_output_and_a_failure_with_json_are_told() {
    let sandbox = Sandbox::new();
    let full = std::fs::OpenOptions::new().write(true).open("/dev/full");
    let mut command = sandbox.ibex();
    let output = command.arg("--version").stdout(full.expect("a device"));
    let output = output.output().expect("it runs");
    let told = String::from_utf8_lossy(&output.stderr);
    assert_eq!(
        (told.as_ref(), output.status.code()),
        (
            "ERROR: cannot write to standard output: No space left on device\n",
            Some(1)
        )
    );
    sandbox.run(["--initdb", "add"]).success();
    for words in [
        "history show 99",
        "undo 99",
        "undo 99 --simulate",
        "rollback 99",
        "del nosuch",
    ] {
        let words = words.split(' ').chain(["--json"]);
        let output = sandbox.ibex().args(words).output().expect("it runs");
        let object: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
        assert_eq!(
            (&object["code"], output.status.code()),
            (&1.into(), Some(1))
        );
        assert!(object["error"][0].is_string(), "{object}");
    }
}
