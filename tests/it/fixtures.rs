//! The repositories in `fixtures/`.

#[path = "../../examples/fixtures/builder.rs"]
mod builder;

use crate::support::{self, Run, Sandbox};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures")
}

/// Every file below a folder.
fn files(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut rest = vec![folder.to_owned()];
    while let Some(next) = rest.pop() {
        for entry in fs::read_dir(next).expect("a readable folder") {
            let path = entry.expect("a readable folder").path();
            if path.is_dir() {
                rest.push(path);
            } else {
                let name = path.strip_prefix(folder).expect("it is below").to_owned();
                found.insert(name, fs::read(path).expect("a readable file"));
            }
        }
    }
    found
}

#[test]
fn a_rebuild_gives_what_is_committed() {
    let built = tempfile::tempdir().expect("a temporary directory");
    let output = built.path().join("repositories");
    let count = builder::build(&fixtures(), &output).expect("the sources are good");
    let (fresh, committed) = (files(&output), files(&fixtures().join("repositories")));
    assert_eq!(count, fresh.len());
    let names = |files: &BTreeMap<PathBuf, Vec<u8>>| files.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(&fresh), names(&committed));
    for (name, bytes) in &fresh {
        let same = committed.get(name) == Some(bytes);
        assert!(
            same,
            "{} changed: cargo run --example fixtures",
            name.display()
        );
    }
}

#[test]
fn the_builder_leaves_other_folders_alone() {
    let folder = tempfile::tempdir().expect("a temporary directory");
    let precious = folder.path().join("precious");
    fs::write(&precious, "mine").expect("a writable folder");
    builder::build(&fixtures(), folder.path()).expect_err("it was not made by the builder");
    assert_eq!(fs::read_to_string(precious).expect("still there"), "mine");
}

/// Runs the command of the README on a root, as an ordinary user.
fn demo(sandbox: &Sandbox, arch: &str, words: &[&str]) -> Run {
    let mut command = if rustix::process::geteuid().is_root() {
        let user = 65534;
        for path in [sandbox.root(), sandbox.beside("")] {
            std::os::unix::fs::chown(&path, Some(user), Some(user)).expect("root may");
        }
        // Everything the user must be able to reach lies outside of private directories.
        for (from, to) in [("keys", "keys"), ("repositories/v1", "v1")] {
            let to = sandbox.beside(to);
            if !to.exists() {
                let from = fixtures().join(from);
                support::run(Command::new("cp").arg("-r").arg(from).arg(to)).success();
            }
        }
        let program = sandbox.beside("ibex");
        if !program.exists() {
            support::copy_program(&program);
        }
        let mut command = Command::new("setpriv");
        command
            .args(["--reuid=65534", "--regid=65534", "--clear-groups"])
            .arg(program);
        command.current_dir(sandbox.beside(""));
        command
            .arg("--keys-dir")
            .arg(sandbox.beside("keys"))
            .args(["-X", "v1"]);
        command
    } else {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ibex"));
        command.current_dir(fixtures());
        command
            .arg("--keys-dir")
            .arg(fixtures().join("keys"))
            .args(["-X", "repositories/v1"]);
        command
    };
    command
        .env_clear()
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
        .env("APK_CONFIG", "/dev/null")
        .env("IBEX_CACHE_DIR", sandbox.beside("cache"));
    command
        .arg("--root")
        .arg(sandbox.root())
        .args(["--arch", arch]);
    support::run(command.args(words))
}

#[test]
fn the_first_command_of_the_readme() {
    for (arch, greeting) in [("x86_64", "for x86_64"), ("aarch64", "for aarch64")] {
        let sandbox = Sandbox::new();
        let run = demo(
            &sandbox,
            arch,
            &["--initdb", "--usermode", "add", "demo-base"],
        )
        .success();
        assert!(
            run.output.contains("Installing hello (1.0-r2)"),
            "{}",
            run.output
        );
        assert!(run.output.contains("\nOK: "), "{}", run.output);
        assert!(sandbox.read("usr/bin/hello").contains(greeting));
        assert_eq!(sandbox.read("etc/apk/arch"), format!("{arch}\n"));
        let info = demo(&sandbox, arch, &["info"]).success();
        assert_eq!(info.output.lines().count(), 5, "{}", info.output);
    }
}

/// Asks for a hostile package on a root that has `demo-layout`, with a folder beside the root that
/// must not be touched.
fn attack(words: &[&str]) -> (Sandbox, Run) {
    let sandbox = Sandbox::new();
    let outside = sandbox.beside("outside");
    fs::create_dir(&outside).expect("a new directory");
    fs::write(outside.join("secret"), "secret\n").expect("a new file");
    let ibex = |repository: &str, words: &[&str]| {
        let mut command = sandbox.ibex();
        command.args(["--arch", "x86_64", "--no-scripts", "--keys-dir"]);
        command.arg(fixtures().join("keys"));
        command
            .arg("-X")
            .arg(fixtures().join("repositories").join(repository));
        if !rustix::process::geteuid().is_root() {
            command.arg("--usermode");
        }
        support::run(command.args(words))
    };
    ibex("v1", &["--initdb", "add", "demo-layout"]).success();
    let before = support::tree(&sandbox.beside("outside"), i64::MAX);
    let run = ibex("hostile", words);
    assert_eq!(
        before,
        support::tree(&sandbox.beside("outside"), i64::MAX),
        "{}",
        run.output
    );
    assert!(!sandbox.beside("escaped").exists(), "{}", run.output);
    assert!(!Path::new("/tmp/ibex-escaped").exists(), "{}", run.output);
    assert!(
        sandbox
            .read("lib/apk/db/installed")
            .contains("P:demo-layout\n"),
        "{}",
        run.output
    );
    assert!(
        sandbox.read("etc/os-release").contains("ID=ibex-demo"),
        "{}",
        run.output
    );
    (sandbox, run)
}

/// Package, exit code, and what the answer says.
const HOSTILE: [(&str, i32, &str); 10] = [
    ("absolute", 1, "malicious file /tmp/ibex-escaped"),
    ("bad-name", 1, "bad-name (no such package)"),
    ("climbs", 1, "malicious file usr/../../escaped"),
    // Links are resolved inside of the root, where there is nothing to steal.
    ("hardlink-out", 0, ""),
    ("impostor", 1, "impostor-1.0-r0: v2 package integrity error"),
    ("owns-database", 1, "malicious file lib/apk/db/installed"),
    (
        "thief",
        1,
        "trying to overwrite etc/os-release owned by demo-layout-1.0-r0",
    ),
    ("through-link", 0, ""),
    ("truncated", 1, "truncated-1.0-r0: unexpected end of file"),
    (
        "wrong-hash",
        1,
        "wrong-hash-1.0-r0: v2 package integrity error",
    ),
];

#[test]
fn hostile_packages_harm_neither_the_root_nor_what_is_outside() {
    for (package, code, message) in HOSTILE {
        let (sandbox, run) = attack(&["add", package]);
        assert_eq!(run.code, code, "{package}: {}", run.output);
        assert!(run.output.contains(message), "{package}: {}", run.output);
        if code != 0 {
            let database = sandbox.read("lib/apk/db/installed");
            assert!(!database.contains(&format!("P:{package}\n")), "{package}");
        }
    }
}

#[test]
fn every_good_package_is_accepted_by_verify_and_every_bad_one_is_not() {
    let verify = |path: &Path| {
        let mut command = support::ibex();
        command
            .arg("--keys-dir")
            .arg(fixtures().join("keys"))
            .arg("verify");
        support::run(command.arg(path))
    };
    for release in ["v1", "v2", "edge"] {
        for arch in ["x86_64", "aarch64"] {
            let folder = fixtures().join("repositories").join(release).join(arch);
            for (name, _) in files(&folder) {
                verify(&folder.join(name)).success();
            }
        }
    }
    let folder = fixtures().join("repositories/hostile/x86_64");
    for name in ["wrong-hash-1.0-r0.apk", "truncated-1.0-r0.apk"] {
        assert_ne!(verify(&folder.join(name)).code, 0, "{name}");
    }
}
