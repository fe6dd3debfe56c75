//! The weak points that were found in apk (W1 to W37): each case is one that apk gets wrong. Those
//! that are shown elsewhere are named in the table of `src/security.md`.

use crate::support::repository::{Made, Repository, directory, file, package, serve, symlink};
use crate::support::{self, Run, Sandbox};
use ibex::format::package_writer::{EntrySpec, data_tar, gzip};
use ibex::package::{DependencyList, ScriptKind};
use sha2::{Digest, Sha256};
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};

struct Case {
    sandbox: Sandbox,
    repository: Repository,
}

impl Case {
    fn new(packages: &[Made]) -> Self {
        Self::on(Sandbox::new(), packages)
    }

    fn with_shell(packages: &[Made]) -> Option<Self> {
        if !support::is_root() {
            return None;
        }
        Some(Self::on(Sandbox::with_minirootfs("3.19.4")?, packages))
    }

    fn on(sandbox: Sandbox, packages: &[Made]) -> Self {
        let repository = Repository::new(&sandbox);
        let mut case = Self {
            sandbox,
            repository,
        };
        case.add(packages);
        if !case.sandbox.root().join("lib/apk/db/installed").exists() {
            case.run(&["--initdb", "add"]).success();
        }
        case
    }

    fn add(&mut self, packages: &[Made]) {
        for made in packages {
            self.repository.add(made);
        }
        self.repository.publish(1);
    }

    fn run(&self, arguments: &[&str]) -> Run {
        let mut command = self.sandbox.ibex();
        command
            .args(["--arch", "x86_64", "--no-network", "--no-cache"])
            .args(["--repositories-file", "/dev/null", "-X"])
            .arg(self.repository.path())
            .args(arguments);
        if !rustix::process::geteuid().is_root() {
            command.arg("--usermode");
        }
        support::run(&mut command)
    }

    fn file(&self, name: &str) -> String {
        self.repository.file(name).display().to_string()
    }

    fn exists(&self, path: &str) -> bool {
        fs::symlink_metadata(self.sandbox.root().join(path)).is_ok()
    }
}

fn simple(name: &str, version: &str) -> Made {
    let entries = vec![directory("usr"), file(&format!("usr/{name}"), version)];
    package(name, version, entries)
}

/// W1: texts with line breaks neither break the database nor add lines to it.
#[test]
fn line_breaks_in_metadata() {
    // What the writers refuse is made by hand: a carriage return, and a field after it.
    let good = simple("evil", "1");
    let data = gzip(&data_tar(&good.contents.entries).expect("a tar"));
    let hash = data_encoding::HEXLOWER.encode(&Sha256::digest(&data));
    for text in ["two\rlines", "nul\0inside"] {
        let info = format!(
            "pkgname = evil\npkgver = 1\npkgdesc = {text}\narch = x86_64\nsize = 1\ndatahash = {hash}\n"
        );
        let mut control = data_tar(&[file(".PKGINFO", info)]).expect("a tar");
        control.truncate(control.len() - 1024);
        let mut bytes = gzip(&control);
        bytes.extend_from_slice(&data);
        let case = Case::new(&[good.clone().bytes(bytes)]);
        let run = case.run(&["--allow-untrusted", "add", &case.file("evil-1.apk")]);
        assert_ne!(run.code, 0, "{}", run.output);
        assert!(run.output.contains("evil-1.apk"), "{}", run.output);
        assert!(!case.exists("usr/evil"));
        let index = "C:Q1AAAAAAAAAAAAAAAAAAAAAAAAAAA=\nP:other\nV:1\nS:1\nI:1\n";
        case.repository.publish_raw(&format!("{index}T:{text}\n\n"));
        case.run(&["info"]).success();
    }
}

/// W2 and W3: nothing is too long for the world or the database.
#[test]
fn long_names_and_texts() {
    let name = "n".repeat(235);
    let long = simple(&name, "1");
    let talkative = simple("talkative", "1").with(|p| {
        p.description = "d".repeat(3000);
        p.url = format!("https://example.org/{}", "u".repeat(2100));
        let many: Vec<String> = (0..900).map(|n| format!("old{n}")).collect();
        p.replaces = DependencyList::parse(&many.join(" ")).entries;
        p.provides = DependencyList::parse(&format!("p{}", "p".repeat(300))).entries;
    });
    let mut case = Case::new(&[long, talkative, simple("a", "1"), simple("z", "1")]);
    case.run(&["add", "a", "z"]).success();
    let path = case.file(&format!("{name}-1.apk"));
    case.run(&["add", &path]).success();
    let constraint = format!("!{}", "c".repeat(300));
    case.run(&["add", "talkative", &constraint]).success();
    let world = case.sandbox.read("etc/apk/world");
    let mut entries: Vec<&str> = world.lines().collect();
    entries.retain(|entry| !entry.starts_with(&name));
    entries.sort_unstable();
    assert_eq!(entries, [&constraint, "a", "talkative", "z"]);
    assert_eq!(world.lines().count(), 5);
    assert_eq!(case.run(&["info"]).success().output.lines().count(), 4);
    // And the next change finds everything as it was.
    case.add(&[simple("a", "2")]);
    case.run(&["upgrade"]).success();
    case.run(&["del", "talkative"]).success();
    assert_eq!(case.sandbox.read("etc/apk/world").lines().count(), 4);
}

/// W7: a new mode of a directory is applied, unless an administrator chose another one.
#[test]
fn new_modes_of_directories() {
    let version = |version, mode| {
        let folder = EntrySpec {
            mode,
            ..directory("opt/x")
        };
        package(
            "p",
            version,
            vec![directory("opt"), folder, file("opt/x/f", version)],
        )
    };
    for chosen in [None, Some(0o711)] {
        let mut case = Case::new(&[version("1", 0o755)]);
        case.run(&["add", "p"]).success();
        let path = case.sandbox.root().join("opt/x");
        if let Some(mode) = chosen {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("ours");
        }
        case.add(&[version("2", 0o700)]);
        case.run(&["upgrade"]).success();
        let mode = fs::metadata(path).expect("installed").mode() & 0o7777;
        assert_eq!(mode, chosen.unwrap_or(0o700));
    }
}

/// W9: what was a directory, a file or a link may become another of them.
#[test]
fn changes_of_file_type() {
    let forms: [(&str, Vec<EntrySpec>); 3] = [
        ("directory", vec![directory("opt/x"), file("opt/x/f", "f")]),
        ("file", vec![file("opt/x", "content")]),
        ("link", vec![symlink("opt/x", "elsewhere")]),
    ];
    for (before, old) in &forms {
        for (after, new) in &forms {
            let make = |version, entries: &Vec<EntrySpec>| {
                let mut all = vec![directory("opt"), directory("opt/elsewhere")];
                all.extend(entries.clone());
                package("p", version, all)
            };
            let mut case = Case::new(&[make("1", old)]);
            case.run(&["add", "p"]).success();
            case.add(&[make("2", new)]);
            case.run(&["upgrade"]).success();
            let path = case.sandbox.root().join("opt/x");
            let meta = fs::symlink_metadata(&path).expect("there");
            let found = match meta.file_type() {
                kind if kind.is_dir() => "directory",
                kind if kind.is_symlink() => "link",
                _ => "file",
            };
            assert_eq!(found, *after, "from {before}");
            assert_eq!(
                case.exists("opt/x/f"),
                *after == "directory",
                "from {before}"
            );
            assert!(!case.exists("opt/elsewhere/f"), "from {before} to {after}");
        }
    }
}

/// W10: conflicts are found before anything is changed; a replaced file is not forgotten.
#[test]
fn conflicts_and_replaced_files() {
    let with = |name: &str, replaces: &str| {
        let entries = vec![
            directory("usr"),
            file("usr/shared", name),
            file(&format!("usr/{name}"), "x"),
        ];
        package(name, "1", entries).with(|p| p.replaces = DependencyList::parse(replaces).entries)
    };
    let case = Case::new(&[with("a", ""), with("b", ""), with("c", "a")]);
    case.run(&["add", "a"]).success();
    let run = case.run(&["add", "b"]);
    assert_eq!(run.code, 1, "{}", run.output);
    let line = "ERROR: b-1: trying to overwrite usr/shared owned by a-1.";
    assert!(run.output.contains(line), "{}", run.output);
    assert!(!case.exists("usr/b"));
    assert_eq!(case.sandbox.read("etc/apk/world"), "a\n");
    case.run(&["add", "c"]).success();
    let run = case.run(&["del", "c"]).success();
    let hint = "WARNING: c-1 may have had files of a-1, which stays: ibex fix --reinstall a";
    assert!(run.output.contains(hint), "{}", run.output);
    case.run(&["fix", "--reinstall", "a"]).success();
    assert_eq!(case.sandbox.read("usr/shared"), "a");
}

/// W11: one file under two paths has one owner.
#[test]
fn one_file_under_two_paths() {
    let a = package("a", "1", vec![directory("lib"), file("lib/same", "a")]);
    let b = package(
        "b",
        "1",
        vec![
            directory("usr"),
            directory("usr/lib"),
            file("usr/lib/same", "b"),
        ],
    );
    let case = Case::new(&[a, b]);
    fs::create_dir_all(case.sandbox.root().join("usr/lib")).expect("a new directory");
    fs::remove_dir_all(case.sandbox.root().join("lib/same")).ok();
    // The database is below lib, so the link takes it along.
    let root = case.sandbox.root();
    fs::rename(root.join("lib/apk"), root.join("usr/lib/apk")).expect("moved");
    fs::remove_dir_all(root.join("lib")).expect("empty");
    std::os::unix::fs::symlink("usr/lib", root.join("lib")).expect("a new link");
    case.run(&["add", "a"]).success();
    let run = case.run(&["add", "b"]);
    assert_eq!(run.code, 1, "{}", run.output);
    assert!(
        run.output.contains("usr/lib/same owned by a-1"),
        "{}",
        run.output
    );
    assert_eq!(case.sandbox.read("usr/lib/same"), "a");
}

/// W13: large scripts and scripts of long names are kept, or refused before anything is changed.
#[test]
fn scripts_are_never_lost() {
    let text = format!("exit 0\n{}", "# a long comment\n".repeat(70_000));
    let large = simple("large", "1").script(ScriptKind::PostInstall, &text);
    let name = "n".repeat(230);
    let long = simple(&name, "1").script(ScriptKind::PostInstall, "exit 0");
    let case = Case::new(&[large, long, simple("other", "1")]);
    case.run(&["--no-scripts", "add", "large"]).success();
    let stored = || {
        let archive = fs::read(case.sandbox.root().join("lib/apk/db/scripts.tar.gz"));
        let mut text = Vec::new();
        let archive = archive.expect("written");
        let mut decoder = flate2::read::GzDecoder::new(archive.as_slice());
        std::io::Read::read_to_end(&mut decoder, &mut text).expect("gzip");
        text.len()
    };
    assert!(stored() > 1_100_000);
    case.run(&["--no-scripts", "add", "other"]).success();
    assert!(stored() > 1_100_000);
    let run = case.run(&["--no-scripts", "add", &name]);
    assert_ne!(run.code, 0, "{}", run.output);
    assert!(
        run.output.contains("the name is too long to keep"),
        "{}",
        run.output
    );
    assert!(!case.exists(&format!("usr/{name}")), "{}", run.output);
    assert!(!case.sandbox.read("etc/apk/world").contains(&name));
}

/// W16: an old failure of a script does not spoil the exit code of later commands.
#[test]
fn results_of_scripts() {
    let failing = simple("failing", "1").script(ScriptKind::PostInstall, "exit 7");
    let mut lost = simple("lost", "1");
    let text = b"#!/no/such/interpreter\n".to_vec();
    (lost.contents.scripts).insert(ScriptKind::PostInstall, text);
    let Some(case) = Case::with_shell(&[failing, simple("other", "1"), lost]) else {
        return;
    };
    let run = case.run(&["add", "failing"]);
    assert_eq!(run.code, 1, "{}", run.output);
    let line = "ERROR: lib/apk/exec/failing-1.post-install: exited with error 7";
    assert!(run.output.contains(line), "{}", run.output);
    case.run(&["add", "other"]).success();
    // A script that the system does not execute is told with the reason, and leaves no file.
    let run = case.run(&["add", "lost"]);
    assert_eq!(run.code, 1, "{}", run.output);
    let lines = "  * execve: No such file or directory\n\
                 ERROR: lib/apk/exec/lost-1.post-install: exited with error 127\n";
    assert!(run.output.contains(lines), "{}", run.output);
    assert!(!case.exists("lib/apk/exec/lost-1.post-install"));
    assert!(
        case.sandbox
            .read("lib/apk/db/installed")
            .contains("\nf:s\n")
    );
}

/// W19: owner, mode and time are set on the thing itself, never through a link.
#[test]
fn attributes_never_go_through_links() {
    let folder = tempfile::tempdir().expect("a temporary directory");
    let victim = folder.path().join("victim");
    fs::create_dir(folder.path().join("root")).expect("a new directory");
    fs::write(&victim, "").expect("a new file");
    fs::set_permissions(&victim, fs::Permissions::from_mode(0o600)).expect("ours");
    std::os::unix::fs::symlink(&victim, folder.path().join("root/link")).expect("a new link");
    let before = fs::metadata(&victim).expect("there");
    let root = ibex::root::Root::open(&folder.path().join("root")).expect("a root");
    let directory = root.directory("").expect("it is open");
    directory
        .set_mode("link", 0o777)
        .expect_err("a link has no mode");
    directory.set_time("link", 1).expect("the link's own time");
    if support::is_root() {
        directory
            .set_owner("link", 1, 1)
            .expect("the link's own owner");
    }
    directory
        .open_file("link")
        .expect_err("links are not followed");
    let after = fs::metadata(&victim).expect("there");
    let state = |m: &fs::Metadata| (m.mode(), m.uid(), m.gid(), m.mtime());
    assert_eq!(state(&before), state(&after));
}

/// W22: a damaged file in the cache is dropped and fetched again.
#[test]
fn a_damaged_cache_entry() {
    let case = Case::new(&[simple("a", "1")]);
    let address = serve(case.repository.path());
    let cache = case.sandbox.beside("cache");
    fs::create_dir(&cache).expect("a new directory");
    let run = |arguments: &[&str]| {
        let mut command = case.sandbox.ibex();
        command
            .env("IBEX_CACHE_DIR", case.sandbox.beside("catalogue"))
            .args(["--arch", "x86_64", "--cache-packages", "--cache-dir"])
            .arg(&cache)
            .args(["-X", &address])
            .args(arguments);
        if !rustix::process::geteuid().is_root() {
            command.arg("--usermode");
        }
        support::run(&mut command)
    };
    run(&["add", "a"]).success();
    run(&["del", "a"]).success();
    let entries = fs::read_dir(&cache).expect("a folder").flatten();
    let copy = entries
        .map(|entry| entry.path())
        .find(|path| path.extension().is_some_and(|e| e == "apk"))
        .expect("it is cached");
    let mut bytes = fs::read(&copy).expect("cached");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0xff;
    fs::write(&copy, bytes).expect("writable");
    let first = run(&["add", "a"]);
    let second = run(&["add", "a"]);
    assert_eq!(second.code, 0, "{}{}", first.output, second.output);
    assert_eq!(case.sandbox.read("usr/a"), "1");
}

/// W24: `fetch --purge` keeps what it just fetched.
#[test]
fn fetch_with_purge() {
    let case = Case::new(&[simple("a", "1"), simple("b", "1"), simple("c", "1")]);
    let output = case.sandbox.beside("output");
    fs::create_dir(&output).expect("a new directory");
    let folder = output.to_str().expect("text");
    case.run(&["fetch", "-o", folder, "c"]).success();
    case.run(&["fetch", "-o", folder, "--purge", "a", "b"])
        .success();
    let entries = fs::read_dir(&output).expect("a folder").flatten();
    let mut names: Vec<_> = entries.map(|entry| entry.file_name()).collect();
    names.sort();
    assert_eq!(names, ["a-1.apk", "b-1.apk"]);
}

/// W27: a database whose directories lack their parents is no reason to crash.
#[test]
fn directories_without_an_owner() {
    let case = Case::new(&[simple("a", "1")]);
    case.run(&["add", "a"]).success();
    let text = case.sandbox.read("lib/apk/db/installed");
    let text = text.replace("F:usr\n", "F:usr/deep/down\nR:x\nF:usr\n");
    case.sandbox.write("lib/apk/db/installed", text);
    if support::is_root() {
        for options in ["--system", "--full", "--backup"] {
            case.run(&["audit", options, "--check-permissions"])
                .success();
        }
    }
    case.run(&["fix", "--directory-permissions"]).success();
    case.run(&["del", "a"]).success();
}

/// W30: passwords in addresses are in no log and in no message.
#[test]
fn secrets_are_not_logged() {
    let case = Case::new(&[]);
    let mut command = case.sandbox.ibex();
    command.args([
        "--no-network",
        "-X",
        "http://user:hunter2@127.0.0.1:9/r",
        "add",
    ]);
    if !rustix::process::geteuid().is_root() {
        command.arg("--usermode");
    }
    let run = support::run(&mut command);
    assert!(!run.output.contains("hunter2"), "{}", run.output);
    let log = case.sandbox.read("var/log/apk.log");
    assert!(!log.is_empty() && !log.contains("hunter2"), "{log}");
}

/// W33: a bad line in a repositories file is told, and hides no other line.
#[test]
fn a_bad_line_among_repositories() {
    let case = Case::new(&[simple("a", "1")]);
    let line = case.repository.path().display().to_string();
    let lines = format!("@\n  /with/blanks\n{line}\nhttp://[broken\n");
    case.sandbox.write("etc/apk/repositories", lines);
    let run = support::run(
        case.sandbox
            .ibex()
            .args(["--arch", "x86_64", "search", "a"]),
    );
    assert!(run.output.contains("a-1\n"), "{}", run.output);
    assert!(
        run.output.contains("etc/apk/repositories:1"),
        "{}",
        run.output
    );
}

/// W37: a file in the hooks' directory that is no program is named and skipped.
#[test]
fn a_text_among_the_hooks() {
    let case = Case::new(&[simple("a", "1")]);
    case.sandbox.write("etc/apk/commit_hooks.d/README", "text");
    let run = case.run(&["add", "a"]).success();
    let warning = "WARNING: etc/apk/commit_hooks.d/README: skipped, it is not executable";
    assert!(run.output.contains(warning), "{}", run.output);
}
