//! Details of installing that apk 3.0.6 was asked about: records, triggers, hooks, audit.

use crate::support::repository::{Made, Repository, directory, file, package, symlink};
use crate::support::{self, Run, Sandbox};
use ibex::package::{DependencyList, ScriptKind};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

/// A root that can run scripts, and a repository.
struct Case {
    sandbox: Sandbox,
    repository: Repository,
}

impl Case {
    fn new(packages: &[Made]) -> Self {
        Self::on(Sandbox::new(), packages)
    }

    /// Makes one with a shell.
    fn with_shell(packages: &[Made]) -> Option<Self> {
        if !support::is_root() {
            return None;
        }
        Some(Self::on(Sandbox::with_minirootfs("3.19.4")?, packages))
    }

    fn on(sandbox: Sandbox, packages: &[Made]) -> Self {
        let mut repository = Repository::new(&sandbox);
        for made in packages {
            repository.add(made);
        }
        repository.publish(1);
        let case = Self {
            sandbox,
            repository,
        };
        if !case.sandbox.root().join("lib/apk/db/installed").exists() {
            case.run(&["--initdb", "add"]).success();
        }
        case
    }

    fn run(&self, arguments: &[&str]) -> Run {
        let mut command = self.sandbox.ibex();
        command
            .args([
                "--arch",
                "x86_64",
                "--no-network",
                "--no-cache",
                "--repositories-file",
                "/dev/null",
                "-X",
            ])
            .arg(self.repository.path())
            .args(arguments);
        if !rustix::process::geteuid().is_root() {
            command.arg("--usermode");
        }
        support::run(&mut command)
    }

    /// Returns the record of a package in the installed database.
    fn record(&self, name: &str) -> String {
        let text = self.sandbox.read("lib/apk/db/installed");
        let records = text.split("\n\n");
        let line = format!("P:{name}");
        let mut found = records.filter(|record| record.lines().any(|l| l == line));
        found.next().unwrap_or_default().to_owned()
    }
}

#[test]
fn a_reinstalled_package_keeps_its_record() {
    let full = package("full", "1", vec![directory("usr"), file("usr/x", "x")]).with(|p| {
        p.url = "https://example.org".into();
        p.maintainer = Some("Somebody <somebody@example.org>".into());
        p.commit = Some("0123456789012345678901234567890123456789".into());
    });
    let case = Case::new(&[full]);
    case.run(&["add", "full"]).success();
    let before = case.record("full");
    assert!(before.contains("\nm:Somebody "), "{before}");
    for options in [
        &["fix", "-r", "full"][..],
        &["fix", "-u", "full"],
        &["add", "full"],
    ] {
        case.run(options).success();
        assert_eq!(before, case.record("full"), "{options:?}");
    }
}

#[test]
fn what_the_command_line_brings_is_recorded_in_full() {
    let made = package("given", "1", vec![directory("usr"), file("usr/x", "x")]).with(|p| {
        p.url = "https://example.org".into();
        p.maintainer = Some("Somebody <somebody@example.org>".into());
    });
    let mut case = Case::new(&[made]);
    let path = case.sandbox.beside("given-1.apk");
    fs::rename(case.repository.file("given-1.apk"), &path).expect("it was published");
    case.repository = Repository::named(&case.sandbox, "empty");
    case.repository.publish(1);
    // A root in memory, where that needs to be allowed.
    let add = [
        "add",
        "--force-non-repository",
        path.to_str().expect("text"),
    ];
    case.run(&add).success();
    let record = case.record("given");
    for line in [
        "T:the package given",
        "U:https://example.org",
        "o:given",
        "m:Somebody ",
    ] {
        assert!(record.contains(&format!("\n{line}")), "{record}");
    }
    case.run(&["add", "--force-non-repository", "-t", "virtual=1", "given"])
        .success();
    let record = case.record("virtual");
    assert!(record.contains("\nT:virtual meta package\n"), "{record}");
}

#[test]
fn a_root_in_memory_is_remembered_in_its_cache() {
    let made = package("a", "1", vec![directory("usr"), file("usr/x", "x")]);
    let case = Case::new(&[made]);
    case.sandbox.write("etc/apk/cache/.keep", "");
    for (choice, wanted) in [("--root-tmpfs=no", false), ("--root-tmpfs=yes", true)] {
        let mut command = case.sandbox.ibex();
        command
            .args(["--arch", "x86_64", "--no-network", choice])
            .args(["--repositories-file", "/dev/null", "-X"])
            .arg(case.repository.path())
            .args(["add", "a"]);
        if !rustix::process::geteuid().is_root() {
            command.arg("--usermode");
        }
        support::run(&mut command).success();
        let kept = case.sandbox.read("etc/apk/cache/installed");
        assert_eq!(kept.contains("\nP:a\nV:1\n"), wanted, "{choice}: {kept}");
        assert_eq!(kept.ends_with("\n\n"), wanted);
    }
}

#[test]
fn an_empty_world_is_an_empty_line() {
    let case = Case::new(&[package("a", "1", vec![directory("usr")])]);
    assert_eq!(case.sandbox.read("etc/apk/world"), "\n");
    case.run(&["add", "a"]).success();
    assert_eq!(case.sandbox.read("etc/apk/world"), "a\n");
    case.run(&["del", "a"]).success();
    assert_eq!(case.sandbox.read("etc/apk/world"), "\n");
}

#[test]
fn a_path_that_another_package_took_is_not_in_two_records() {
    let with = |name: &str, replaces: &str| {
        let entries = vec![
            directory("usr"),
            file("usr/shared", name),
            file(&format!("usr/{name}"), "x"),
        ];
        package(name, "1", entries).with(|p| p.replaces = DependencyList::parse(replaces).entries)
    };
    for together in [true, false] {
        let case = Case::new(&[with("a", ""), with("b", "a")]);
        if together {
            case.run(&["add", "a", "b"]).success();
        } else {
            case.run(&["add", "a"]).success();
            case.run(&["add", "b"]).success();
        }
        assert!(
            !case.record("a").contains("R:shared"),
            "{}",
            case.record("a")
        );
        assert!(
            case.record("b").contains("R:shared"),
            "{}",
            case.record("b")
        );
        assert_eq!(case.sandbox.read("usr/shared"), "b");
        case.run(&["del", "a"]).success();
        assert_eq!(case.sandbox.read("usr/shared"), "b");
    }
}

const TELL: &str = "echo \"$APK_PACKAGE $*\" >> /told";

#[test]
fn a_directory_is_modified_when_a_package_brings_or_loses_it() {
    let plain = package(
        "plain",
        "1",
        vec![directory("opt"), directory("opt/a"), file("opt/a/x", "x")],
    );
    let bare = package("bare", "1", vec![directory("opt"), directory("opt/a")]);
    let watcher = package("watcher", "1", vec![directory("usr"), file("usr/w", "w")])
        .with(|p| p.triggers = ["/opt", "/opt/*", "+/usr"].map(String::from).to_vec())
        .script(ScriptKind::Trigger, TELL);
    let Some(case) = Case::with_shell(&[plain, bare, watcher]) else {
        return;
    };
    case.run(&["add", "plain", "watcher"]).success();
    assert_eq!(case.sandbox.read("told"), "watcher /opt /opt/a /usr\n");
    for (arguments, wanted) in [
        (&["add", "bare"][..], "watcher /opt /opt/a\n"),
        (&["del", "bare"], "watcher /opt /opt/a\n"),
        (&["del", "plain"], "watcher /opt /opt/a\n"),
        (&["add", "watcher"], ""),
    ] {
        case.sandbox.write("told", "");
        case.run(arguments).success();
        assert_eq!(case.sandbox.read("told"), wanted, "{arguments:?}");
    }
}

#[test]
fn a_directory_is_modified_when_it_gets_its_mode_back() {
    let plain = package(
        "plain",
        "1",
        vec![directory("opt"), directory("opt/a"), file("opt/a/x", "x")],
    );
    let watcher = package("watcher", "1", vec![directory("usr"), file("usr/w", "w")])
        .with(|p| p.triggers = ["/opt", "/opt/*", "/usr"].map(String::from).to_vec())
        .script(ScriptKind::Trigger, TELL);
    let Some(case) = Case::with_shell(&[plain, watcher]) else {
        return;
    };
    case.run(&["add", "plain", "watcher"]).success();
    let path = case.sandbox.root().join("opt/a");
    let mode = || fs::metadata(&path).expect("installed").permissions().mode() & 0o7777;
    let fix = ["fix", "--directory-permissions"];
    for (arguments, changed, wanted) in [
        (&["--simulate"][..], Some(0o700), ""),
        (&[], None, "watcher /opt/a\n"),
        (&[], None, ""),
        // What is missing comes back, and is no change.
        (&["watcher"], Some(0), ""),
    ] {
        match changed {
            Some(0) => fs::remove_dir_all(&path).expect("installed"),
            Some(mode) => fs::set_permissions(&path, fs::Permissions::from_mode(mode))
                .expect("our own directory"),
            None => {}
        }
        case.sandbox.write("told", "");
        let output = case.run(&[&fix, arguments].concat()).success().output;
        let told = case.sandbox.read("told");
        // A package that is itself reinstalled looks at all directories.
        match arguments.contains(&"watcher") {
            true => assert_eq!(told, "watcher /opt /opt/a /usr\n", "{output}"),
            false => assert_eq!(told, wanted, "{arguments:?} {changed:?}: {output}"),
        }
        let kept = arguments.contains(&"--simulate");
        assert_eq!(mode(), if kept { 0o700 } else { 0o755 }, "{arguments:?}");
    }
}

/// Cases that apk 3.0.6 was asked about: which records stay where a list of the administrator's own
/// files comes to a root that has packages.
#[test]
fn files_of_the_overlay_leave_the_records_of_packages_that_are_installed() {
    let with = |version: &str, own: bool| {
        let mut entries = vec![
            directory("etc"),
            file("etc/b.conf", "b"),
            directory("usr"),
            directory("usr/x"),
            file("usr/x/b", "b"),
        ];
        entries.extend(own.then(|| file("usr/x/only", "only")));
        package("b", version, entries)
    };
    let a = package("a", "1", vec![directory("usr"), file("usr/f", "a")]);
    let records = |case: &Case| {
        let lines = |name| {
            let text = case.record(name);
            let files = text.lines().filter_map(|line| line.strip_prefix("R:"));
            files.map(str::to_owned).collect::<Vec<_>>().join(" ")
        };
        format!("{} | {}", lines("a"), lines("b"))
    };
    for (list, command, wanted) in [
        ("usr/x/b\n", &["add"][..], "f | b.conf only"),
        ("usr/f\netc/b.conf\nusr/x/only\n", &["add"], " | b"),
        ("usr/x/\n", &["add"], "f | b.conf b only"),
        ("usr/x/b\n", &["fix", "-r", "a"], "f | b.conf only"),
        // What comes in this run is recorded, whoever's content is there.
        ("usr/x/b\n", &["fix", "-r", "b"], "f | b.conf b only"),
        ("usr/f\nusr/x/b\n", &["upgrade"], " | b.conf b"),
    ] {
        let mut case = Case::new(&[a.clone(), with("1", true)]);
        case.run(&["add", "a", "b"]).success();
        if command == ["upgrade"] {
            case.repository.add(&with("2", false));
            case.repository.publish(2);
        }
        case.sandbox.write("usr/x/b", "mine");
        let list_file = case.sandbox.beside("list");
        fs::write(&list_file, list).expect("a writable directory");
        let mut command_line = std::process::Command::new("sh");
        let user = match support::is_root() {
            true => "",
            false => "--usermode",
        };
        let script = "list=$1; shift; exec \"$@\" < \"$list\"";
        command_line
            .args(["-c", script, "sh"])
            .arg(&list_file)
            .arg(env!("CARGO_BIN_EXE_ibex"))
            .arg("--root")
            .arg(case.sandbox.root())
            .args(["--arch", "x86_64", "--no-network", "--no-cache"])
            .args(["--repositories-file", "/dev/null", "--overlay-from-stdin"])
            .args((!user.is_empty()).then_some(user))
            .arg("-X")
            .arg(case.repository.path())
            .args(command);
        support::run(&mut command_line).success();
        assert_eq!(records(&case), wanted, "{list:?} {command:?}");
        assert_eq!(
            case.sandbox.read("usr/x/b"),
            if list.contains("x/b") || command == ["add"] {
                "mine"
            } else {
                "b"
            }
        );
    }
}

#[test]
fn hooks_are_those_of_the_root() {
    let Some(case) = Case::with_shell(&[package("a", "1", vec![directory("opt")])]) else {
        return;
    };
    let hook = "etc/apk/commit_hooks.d/hook";
    let text = "#!/bin/sh\necho \"$0 $* in $(pwd)\" >> told\n";
    case.sandbox.write(hook, text);
    let path = case.sandbox.root().join(hook);
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).expect("our own file");
    case.run(&["add", "a"]).success();
    let told = "etc/apk/commit_hooks.d/hook pre-commit in /\n\
                etc/apk/commit_hooks.d/hook post-commit in /\n";
    assert_eq!(case.sandbox.read("told"), told);
    // Without chroot the working directory is the root, and so the hook is still its own.
    case.sandbox.write("told", "");
    case.run(&["del", "--force-no-chroot", "a"]).success();
    let told = case.sandbox.read("told");
    let root = case.sandbox.root().display().to_string();
    assert!(
        told.ends_with(&format!(" post-commit in {root}\n")),
        "{told}"
    );
}

/// Directories of the audit case, with the rules of the root's own list.
const AUDITED: [&str; 13] = [
    "etc",
    "etc/init.d",
    "etc/apk",
    "opt/plus",
    "opt/minus",
    "opt/at",
    "opt/bang",
    "usr",
    "etc/sub",
    "etc/minus",
    "var/x",
    "home/u",
    "lib/apk/x",
];

fn audited_package() -> Made {
    let mut entries = Vec::new();
    let mut made = Vec::new();
    let mut sorted = AUDITED;
    sorted.sort_unstable();
    for folder in sorted {
        let mut path = String::new();
        for part in folder.split('/') {
            path = if path.is_empty() {
                part.into()
            } else {
                format!("{path}/{part}")
            };
            if !made.contains(&path) {
                made.push(path.clone());
                entries.push(directory(&path));
            }
        }
        for name in ["edit", "gone", "keep", "mode", "tolink"] {
            entries.push(file(&format!("{folder}/{name}"), name));
        }
        for name in ["ledit", "lgone", "lkeep"] {
            entries.push(symlink(&format!("{folder}/{name}"), "t"));
        }
    }
    package("p", "1", entries)
}

#[test]
fn audit_says_in_every_mode_what_apk_says() {
    if !support::is_root() {
        return;
    }
    let case = Case::new(&[audited_package()]);
    let root = case.sandbox.root();
    let rules = "+opt/plus\n-opt/minus\n@opt/at\n!opt/bang\n-etc/minus\n";
    case.sandbox
        .write("etc/apk/protected_paths.d/x.list", rules);
    // The key is beside the root, so that nothing but the case is in it.
    let keys = case.sandbox.beside("keys");
    fs::rename(root.join("etc/apk/keys"), &keys).expect("it is there");
    let add = ["--keys-dir", keys.to_str().expect("text"), "add", "p"];
    case.run(&add).success();
    let link = |target: &str, path| std::os::unix::fs::symlink(target, path).expect("a new link");
    for folder in AUDITED {
        let at = |name: &str| root.join(folder).join(name);
        fs::write(at("edit"), "changed").expect("writable");
        for name in ["gone", "tolink", "ledit", "lgone"] {
            fs::remove_file(at(name)).expect("installed");
        }
        link("x", at("tolink"));
        link("u", at("ledit"));
        link("y", at("lnew"));
        fs::set_permissions(at("mode"), fs::Permissions::from_mode(0o600)).expect("ours");
        fs::write(at("new"), "new").expect("writable");
        fs::write(at("new.apk-new"), "n").expect("writable");
        fs::create_dir_all(at("nd/nnd")).expect("writable");
        fs::write(at("nd/f"), "n").expect("writable");
        fs::write(at("nd/nnd/f"), "n").expect("writable");
    }
    for folder in ["opt/plus", "usr", "etc/sub"] {
        let private = fs::Permissions::from_mode(0o700);
        fs::set_permissions(root.join(folder), private).expect("ours");
    }
    // What ibex keeps of its own is not the matter here.
    let _ = fs::remove_dir_all(root.join("var/lib"));
    case.sandbox.write("rules", "+usr\n-usr/nd\n!opt\n");
    let recorded = include_str!("../fixtures/audit/modes.txt");
    let mut blocks = 0;
    for block in recorded.split("## ").filter(|block| !block.is_empty()) {
        let (options, wanted) = block.split_once('\n').expect("a line of options");
        let options = options.replace("ROOT", &root.display().to_string());
        let mut arguments = vec!["audit"];
        arguments.extend(options.split_whitespace());
        let run = support::run(case.sandbox.ibex().args(&arguments));
        let mut lines: Vec<&str> = run.output.lines().collect();
        lines.sort_unstable();
        let code = format!("rc {}", run.code);
        lines.insert(0, &code);
        let wanted: Vec<&str> = wanted.lines().collect();
        assert_eq!(lines, wanted, "audit {options}");
        blocks += 1;
    }
    assert_eq!(blocks, 22);
}

/// `--pretty-print` is for people: off a terminal it must be asked for, and JSON keeps its numbers.
#[test]
fn sizes_and_times_for_people() {
    let sandbox = Sandbox::new();
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures");
    let repository = fixtures.join("repositories/v1").display().to_string();
    let keys = fixtures.join("keys").display().to_string();
    let ask = |words: &[&str]| {
        let options = ["--arch", "x86_64", "--keys-dir", &keys, "-X", &repository];
        let all = [&options, words].concat();
        sandbox.run(all).success().output
    };
    ask(&["--initdb", "--usermode=auto", "add"]);
    let fields = "name,build-time,installed-size,file-size";
    let query = ["query", "--fields", fields];
    let with = |options: &[&str]| ask(&[&query[..], options, &["encyclopedia"]].concat());
    let plain = "Name: encyclopedia\nBuild-Time: 1704067200\nInstalled-Size: 3680000\n\
                 File-Size: 19873\n";
    let pretty = "Name: encyclopedia\nBuild-Time: 2024-01-01 00:00:00\n\
                  Installed-Size: 3593 KiB\nFile-Size: 19 KiB\n";
    assert_eq!(with(&[]), plain);
    assert_eq!(with(&["--pretty-print=auto"]), plain, "no terminal");
    assert_eq!(with(&["--pretty-print=no"]), plain);
    assert_eq!(with(&["--pretty-print"]), pretty);
    let yaml = with(&["--pretty-print", "--format", "yaml"]);
    assert!(yaml.contains("  installed-size: 3593 KiB\n"), "{yaml}");
    let json = with(&["--pretty-print", "--format", "json"]);
    assert!(json.contains("\"build-time\": 1704067200"), "{json}");
    let info = ["info", "--format", "yaml", "--pretty-print", "-s"];
    let info = ask(&[&info[..], &["encyclopedia"]].concat());
    assert!(info.contains("  installed-size: 3593 KiB\n"), "{info}");
}
