//! Attacks: packages and indexes, signed or not, that try to write elsewhere, to use up memory, to
//! write on the screen, or to pass for something else.
//!
//! After each attack nothing exists outside of the root, the root is as before, the message names
//! the package and the reason, the exit code says that the work was not done, and the program got
//! by with [`MEMORY`].

use crate::support::repository::{
    Made, Repository, directory, file, gzip_fast, hard_link, package, serve, symlink,
};
use crate::support::{self, Run, Sandbox};
use ibex::format::package_writer::{EntryContent, EntrySpec, assemble, data_tar, gzip};
use ibex::package::ScriptKind;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::process::Command;

/// What every attack must get by with, in bytes of private memory. It is a limit of the kernel
/// (`RLIMIT_DATA`) on the process, so more of it is a crash and not only a number.
const MEMORY: u64 = 160 << 20;

/// Runs a command within [`MEMORY`].
pub(crate) fn bounded(command: &Command) -> Run {
    let mut limited = Command::new("sh");
    limited.args([
        "-c",
        &format!("ulimit -d {} && exec \"$@\"", MEMORY >> 10),
        "sh",
    ]);
    limited.arg(command.get_program()).args(command.get_args());
    limited.env_clear();
    for (name, value) in command.get_envs() {
        limited.env(name, value.expect("only set variables"));
    }
    support::run(&mut limited)
}

struct Attack {
    sandbox: Sandbox,
    repository: Repository,
}

impl Attack {
    /// Makes a root with an empty database, a repository it trusts, and a file outside of both.
    fn new() -> Self {
        let sandbox = Sandbox::new();
        let mut repository = Repository::new(&sandbox);
        fs::create_dir(sandbox.beside("outside")).expect("a new directory");
        fs::create_dir(sandbox.beside("destination")).expect("a new directory");
        fs::create_dir(sandbox.beside("etc-cache")).expect("a new directory");
        fs::write(sandbox.beside("outside/secret"), "secret\n").expect("a new file");
        repository.add(&package(
            "good",
            "1",
            vec![directory("usr"), file("usr/good", "good")],
        ));
        repository.publish(1);
        let attack = Self {
            sandbox,
            repository,
        };
        attack.run(&["--initdb", "add"]).success();
        attack
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = self.sandbox.ibex();
        command
            .env("IBEX_CACHE_DIR", self.sandbox.beside("catalogue"))
            .args(["--arch", "x86_64", "-X"])
            .arg(self.repository.path())
            .args(arguments);
        if !rustix::process::geteuid().is_root() && !matches!(arguments[0], "verify" | "extract") {
            command.arg("--usermode");
        }
        command
    }

    fn run(&self, arguments: &[&str]) -> Run {
        bounded(&self.command(arguments))
    }

    /// Adds a package to the repository.
    fn with(mut self, made: &Made) -> Self {
        self.repository.add(made);
        self.repository.publish(2);
        self
    }

    /// Writes down everything: the root and what is around it.
    fn snapshot(&self) -> BTreeMap<String, String> {
        let mut rows = support::tree(&self.sandbox.beside(""), 0);
        let changing = [
            "root/var/log/apk.log",
            "root/var/lib/ibex/history.sqlite",
            "root/lib/apk/db/lock",
            "catalogue",
        ];
        rows.retain(|path, _| !changing.iter().any(|prefix| path.starts_with(prefix)));
        rows
    }

    /// Runs a command that must fail with these messages and change nothing anywhere.
    #[track_caller]
    fn refused(&self, arguments: &[&str], messages: &[&str], code: i32) -> Run {
        let before = self.snapshot();
        let run = self.run(arguments);
        for message in messages {
            assert!(
                run.output.contains(message),
                "{arguments:?}: {message:?} is not in:\n{}",
                run.output
            );
        }
        assert_eq!(run.code, code, "{arguments:?}: {}", run.output);
        assert!(!run.output.contains('\x1b'), "{:?}", run.output);
        let changes = support::differences(&before, &self.snapshot());
        assert!(
            changes.is_empty(),
            "{arguments:?} changed something:\n{}\n{}",
            changes.join("\n"),
            run.output
        );
        run
    }

    /// Checks that `extract` refuses the package with these messages.
    #[track_caller]
    fn not_unpacked(&self, messages: &[&str]) {
        let destination = self.sandbox.beside("destination").display().to_string();
        let extract = ["extract", "--destination", &destination, &self.evil_file()];
        self.refused(&extract, messages, 99);
    }

    /// Where the package file of `evil` is.
    fn evil_file(&self) -> String {
        let path = self.repository.file("evil-1.apk");
        path.display().to_string()
    }
}

/// Checks that a package called `evil` is neither installed nor unpacked, with its name and this
/// reason.
#[track_caller]
fn refused_everywhere(made: &Made, reason: &str) {
    let attack = Attack::new().with(made);
    let from_index = format!("ERROR: evil-1: {reason}");
    attack.refused(&["add", "evil"], &[&from_index, "nothing was changed"], 1);
    attack.not_unpacked(&["evil-1.apk: ", reason]);
}

/// A package called `evil`, with a file that is all right, and more.
fn evil(entries: Vec<EntrySpec>) -> Made {
    let mut all = vec![directory("usr"), file("usr/first", "first")];
    all.extend(entries);
    package("evil", "1", all).with(|package| package.installed_size = 4096)
}

#[test]
fn every_way_a_package_comes_in() {
    let attack = Attack::new().with(&evil(vec![file("../escaped", "x")]));
    let reason = "malicious file ../escaped: relative component";
    let from_index = format!("ERROR: evil-1: {reason}");
    attack.refused(&["add", "good", "evil"], &[&from_index], 1);
    attack.refused(&["add", &attack.evil_file()], &["evil", reason], 1);
    attack.run(&["add", "good"]).success();
    attack.refused(&["add", "evil"], &[&from_index], 1);
    attack.not_unpacked(&[reason]);
}

#[test]
fn names_that_lead_out_of_the_root() {
    let absolute = std::env::temp_dir().join("ibex-attack-absolute");
    let absolute = absolute.to_str().expect("text");
    let too_long = format!("usr/{}", "x".repeat(256));
    for (entry, reason) in [
        (
            file("../escaped", "x"),
            "malicious file ../escaped: relative component",
        ),
        (
            file("usr/../../escaped", "x"),
            "malicious file usr/../../escaped: relative component",
        ),
        (
            file("usr/..", "x"),
            "malicious file usr/..: relative component",
        ),
        (directory(".."), "malicious file ..: relative component"),
        (
            file("./usr/x", "x"),
            "malicious file ./usr/x: relative component",
        ),
        (
            file("usr/./x", "x"),
            "malicious file usr/./x: relative component",
        ),
        (
            file("usr//x", "x"),
            "malicious file usr//x: empty component",
        ),
        (
            file(absolute, "x"),
            &format!("malicious file {absolute}: absolute path"),
        ),
        (directory("/opt"), "malicious file /opt: absolute path"),
        (
            symlink("/escaped", "x"),
            "malicious file /escaped: absolute path",
        ),
        (
            file(&too_long, "x"),
            &format!("malicious file {too_long}: component too long"),
        ),
    ] {
        refused_everywhere(&evil(vec![entry]), reason);
    }
    assert!(!std::path::Path::new(absolute).exists());
}

#[test]
fn names_with_line_breaks_or_terminal_escapes() {
    for (name, shown) in [
        ("usr/a\nF:etc\nR:passwd", r"usr/a\nF:etc\nR:passwd"),
        ("usr/\x1b[2J\x1b[31mred", r"usr/\u{1b}[2J\u{1b}[31mred"),
        ("usr/a\rb", r"usr/a\rb"),
        ("usr/\x7f", r"usr/\u{7f}"),
    ] {
        let reason = format!("malicious file {shown}: control character");
        refused_everywhere(&evil(vec![file(name, "x")]), &reason);
        refused_everywhere(&evil(vec![directory(name)]), &reason);
    }
}

#[test]
fn links_followed_by_a_write_through_them() {
    let outside = "../../../outside";
    for target in [outside, "/", "../..", "usr", "first"] {
        // Without a directory of its own, the file has no place.
        let through = vec![symlink("usr/esc", target), file("usr/esc/secret", "evil")];
        refused_in_root(&evil(through), "v2 package format error: usr/esc/secret: ");
        // A directory of the same name contradicts the link.
        let twice = vec![
            symlink("usr/esc", target),
            directory("usr/esc"),
            file("usr/esc/secret", "evil"),
        ];
        let reason = "v2 package format error: usr/esc: the name comes twice";
        refused_everywhere(&evil(twice), reason);
        let below = vec![
            symlink("usr/esc", target),
            directory("usr/esc/below"),
            file("usr/esc/below/secret", "evil"),
        ];
        let attack = Attack::new().with(&evil(below));
        let before = outside_of(&attack);
        attack.run(&["add", "evil"]);
        assert_eq!(before, outside_of(&attack), "{target}");
        attack.not_unpacked(&["usr/esc is no directory"]);
    }
}

/// As [`refused_everywhere`], where only installing has the reason.
#[track_caller]
fn refused_in_root(made: &Made, reason: &str) {
    let attack = Attack::new().with(made);
    attack.refused(&["add", "evil"], &[&format!("ERROR: evil-1: {reason}")], 1);
    attack.not_unpacked(&["evil-1.apk: "]);
}

fn outside_of(attack: &Attack) -> BTreeMap<String, String> {
    let mut rows = attack.snapshot();
    rows.retain(|path, _| !path.starts_with("root/"));
    rows
}

#[test]
fn a_link_of_one_package_and_a_file_of_another() {
    for (target, inside) in [
        ("OUTSIDE", None),
        ("../../../../../outside", None),
        ("/target", Some("target/secret")),
        ("../target", Some("target/secret")),
    ] {
        let attack = Attack::new();
        let outside = attack.sandbox.beside("outside").display().to_string();
        let target = target.replace("OUTSIDE", &outside);
        let link = vec![directory("usr"), symlink("usr/esc", &target)];
        let through = vec![directory("usr/esc"), file("usr/esc/secret", "evil")];
        let attack = attack
            .with(&package("link", "1", link))
            .with(&package("through", "1", through));
        let before = outside_of(&attack);
        let Some(path) = inside else {
            let reason = "ERROR: through-1: cannot make the directory usr/esc: ";
            attack.refused(&["add", "link", "through"], &[reason], 1);
            attack.run(&["add", "link"]).success();
            attack.refused(&["add", "through"], &[reason], 1);
            attack.run(&["del", "link"]).success();
            assert_eq!(before, outside_of(&attack));
            continue;
        };
        fs::create_dir(attack.sandbox.root().join("target")).expect("a new directory");
        for install in [&["add", "link", "through"][..], &["add", "link"]] {
            attack.run(install).success();
            attack.run(&["add", "through"]).success();
            assert_eq!(attack.sandbox.read(path), "evil");
            attack.run(&["del", "through", "link"]).success();
            assert_eq!(attack.sandbox.read(path), "");
        }
        assert_eq!(before, outside_of(&attack));
    }
}

#[test]
fn links_that_were_in_the_root_before() {
    let attack = Attack::new().with(&package(
        "daemon",
        "1",
        vec![
            directory("var"),
            directory("var/run"),
            file("var/run/secret", "inside"),
        ],
    ));
    let outside = attack.sandbox.beside("outside");
    let root = attack.sandbox.root();
    std::os::unix::fs::symlink(&outside, root.join("var/run")).expect("a new link");
    let reason = "ERROR: daemon-1: cannot make the directory var/run: a link is there that leads \
                  to no directory";
    attack.refused(&["add", "daemon"], &[reason], 1);
    // The same path inside of the root is what the link means.
    let inside = root.join(outside.strip_prefix("/").expect("absolute"));
    fs::create_dir_all(&inside).expect("a new directory");
    attack.run(&["add", "daemon"]).success();
    assert_eq!(
        fs::read_to_string(inside.join("secret")).expect("installed"),
        "inside"
    );
    assert_eq!(
        fs::read_to_string(outside.join("secret")).expect("there"),
        "secret\n"
    );
    attack.run(&["del", "daemon"]).success();
    assert!(!inside.join("secret").exists());
    assert_eq!(
        fs::read_to_string(outside.join("secret")).expect("there"),
        "secret\n"
    );
}

#[test]
fn hard_links_out_of_the_root() {
    for target in [
        "../outside/secret",
        "usr/../../outside/secret",
        "/etc/passwd",
        "etc/passwd",
        "usr",
        "usr/later",
        "",
        "usr/\x1b[31m",
    ] {
        let entries = vec![hard_link("usr/link", target), file("usr/later", "x")];
        let reason = format!(
            "v2 package format error: usr/link: no hard link target ({}) in archive",
            target.escape_debug()
        );
        refused_everywhere(&evil(entries), &reason);
    }
}

#[test]
fn names_that_come_twice() {
    for entries in [
        vec![file("usr/x", "one"), file("usr/x", "two")],
        vec![file("usr/x", "one"), directory("usr/x")],
        vec![directory("usr/x"), file("usr/x", "one")],
        vec![directory("usr/x"), symlink("usr/x", "/etc")],
        vec![file("usr/x", "one"), symlink("usr/x", "/etc/shadow")],
        vec![symlink("usr/x", "/etc/shadow"), file("usr/x", "one")],
        vec![file("usr/x", "one"), hard_link("usr/x", "usr/first")],
    ] {
        let reason = "v2 package format error: usr/x: the name comes twice";
        refused_everywhere(&evil(entries), reason);
    }
}

#[test]
fn a_file_where_a_directory_stands_and_the_other_way_round() {
    let attack = Attack::new().with(&evil(vec![file("usr/share", "x")]));
    attack.sandbox.write("usr/share/of-the-user", "mine");
    let reason = "ERROR: evil-1: cannot place usr/share: a directory with other files is there";
    attack.refused(&["add", "evil"], &[reason], 1);

    let attack = Attack::new().with(&evil(vec![
        directory("usr/share"),
        file("usr/share/x", "x"),
    ]));
    attack.sandbox.write("usr/share", "mine");
    let reason = "ERROR: evil-1: cannot make the directory usr/share: a file is there";
    attack.refused(&["add", "evil"], &[reason], 1);

    let other = package("other", "1", vec![directory("usr"), file("usr/share", "x")]);
    let attack = Attack::new()
        .with(&evil(vec![
            directory("usr/share"),
            file("usr/share/x", "x"),
        ]))
        .with(&other);
    let reason = "cannot make the directory usr/share: a package brings a file there";
    attack.refused(&["add", "evil", "other"], &[reason], 2);
    attack.run(&["add", "other"]).success();
    let reason = "cannot make the directory usr/share: a file is there";
    attack.refused(&["add", "evil"], &[reason], 1);
}

#[test]
fn devices_as_a_user_and_as_root() {
    let device = |path: &str| EntrySpec {
        mode: 0o666,
        ..EntrySpec::new(path, EntryContent::CharDevice(1, 3))
    };
    let fifo = EntrySpec::new("usr/fifo", EntryContent::Fifo);
    let made = evil(vec![device("usr/null"), fifo]);
    let attack = Attack::new().with(&made);
    if rustix::process::geteuid().is_root() {
        // A user has the root; the program and all that it reads must be within reach.
        let program = attack.sandbox.beside("ibex");
        fs::copy(env!("CARGO_BIN_EXE_ibex"), &program).expect("a copy");
        let chown = |path: PathBuf| {
            std::os::unix::fs::chown(path, Some(65534), Some(65534)).expect("root may");
        };
        let root = attack.sandbox.beside("user-root");
        fs::create_dir(&root).expect("a new directory");
        chown(root.clone());
        chown(attack.sandbox.beside(""));
        let mut command = Command::new("setpriv");
        command
            .args(["--reuid=65534", "--regid=65534", "--clear-groups"])
            .arg(&program)
            .env_clear()
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .env("APK_CONFIG", "/dev/null")
            .env("IBEX_CACHE_DIR", attack.sandbox.beside("user-cache"))
            .arg("--root")
            .arg(&root)
            .args(["--initdb", "--usermode", "--arch", "x86_64", "-X"])
            .arg(attack.repository.path())
            .arg("--keys-dir")
            .arg(attack.sandbox.root().join("etc/apk/keys"))
            .args(["add", "evil"]);
        bounded(&command).success();
        assert!(root.join("usr/first").exists());
        assert!(fs::symlink_metadata(root.join("usr/null")).is_err());
        assert!(fs::symlink_metadata(root.join("usr/fifo")).is_err());
        // Root gets what the package says, as with apk.
        attack.run(&["add", "evil"]).success();
        assert!(fs::symlink_metadata(attack.sandbox.root().join("usr/null")).is_ok());
    }
}

#[test]
fn files_of_the_package_manager_itself() {
    for (path, whose) in [
        ("lib/apk/db/installed", "apk"),
        ("lib/apk/db/.journal", "apk"),
        ("lib/apk/exec/x", "apk"),
        ("var/lib/ibex/history.sqlite", "ibex"),
        ("var/lib/ibex/kept", "ibex"),
    ] {
        let folders = path
            .match_indices('/')
            .map(|(at, _)| directory(&path[..at]));
        let mut entries: Vec<EntrySpec> = folders.collect();
        entries.push(file(path, "x"));
        let attack = Attack::new().with(&evil(entries));
        let reason = format!("ERROR: evil-1: malicious file {path}: {whose}'s own files");
        attack.refused(&["add", "evil"], &[&reason], 1);
    }
}

#[test]
fn a_database_that_is_no_regular_file_is_not_an_empty_one() {
    use rustix::fs::{CWD, FileType, Mode, mknodat};
    for path in ["etc/apk/world", "lib/apk/db/installed"] {
        let attack = Attack::new().with(&evil(Vec::new()));
        attack.run(&["add", "evil"]).success();
        let root = attack.sandbox.root();
        let whole = attack.sandbox.read("lib/apk/db/installed");
        fs::remove_file(root.join(path)).expect("it is there");
        let mode = Mode::from_raw_mode(0o644);
        // Directly, and where a link in the root leads.
        for fifo in [path, "opt-fifo"] {
            mknodat(CWD, root.join(fifo), FileType::Fifo, mode, 0).expect("a FIFO");
            let run = attack.run(&["add"]);
            let told = format!(
                "ERROR: Unable to read database: cannot read {path}: it is not a regular file\n"
            );
            assert!(run.output.contains(&told), "{}", run.output);
            assert_eq!(run.code, 99);
            if path != "lib/apk/db/installed" {
                assert_eq!(attack.sandbox.read("lib/apk/db/installed"), whole);
            }
            fs::remove_file(root.join(fifo)).expect("it is there");
            let _ = fs::remove_file(root.join(path));
            std::os::unix::fs::symlink("/opt-fifo", root.join(path)).expect("a link");
        }
    }
}

/// Returns zeros, which compress a hundredfold and more.
fn zeros(mebibytes: usize) -> Vec<u8> {
    vec![0; mebibytes << 20]
}

#[test]
fn sizes_that_lie() {
    // 100 MiB of content behind an announcement of one byte.
    let bomb = evil(vec![file("usr/bomb", zeros(100))]).with(|p| p.installed_size = 1);
    refused_everywhere(
        &bomb,
        "unpacked content: more than the limit of 67108880 (see --limits)",
    );
    let attack = Attack::new().with(&bomb);
    attack
        .run(&["add", "--limits", "excess=200M", "evil"])
        .success();

    // Headers that claim what does not follow.
    let claims = |flag: u8, size: &str| {
        let mut tar = data_tar(&[file("usr", "")]).expect("a tar");
        let header = &mut tar[1024..1536];
        header[156] = flag;
        header[124..136].copy_from_slice(format!("{size:0>11}\0").as_bytes());
        // Enough for what the headers claim, and less than what is free.
        evil(vec![]).with(|p| p.installed_size = 1 << 29).tar(tar)
    };
    let gib = "10000000000";
    for (flag, size, reason) in [
        (b'x', gib, "extended header: more than the limit of 262144"),
        (b'L', gib, "long name: more than the limit of 262144"),
        (b'0', gib, "unexpected end of file"),
        (b'0', "77777777777", "unexpected end of file"),
        (b'5', gib, "unexpected end of file"),
        (
            b'0',
            "777777z7777",
            "file format is invalid or inconsistent",
        ),
    ] {
        refused_in_root(&claims(flag, size), reason);
    }
}

#[test]
fn bombs() {
    let attack = Attack::new();
    let contents = &evil(vec![]).contents;
    let tar = data_tar(&contents.entries).expect("a tar");
    // Endless padding behind the data.
    let mut padded = tar.clone();
    padded.extend(zeros(200));
    refused_in_root(
        &evil(vec![]).tar(padded),
        "padding: more than the limit of 67108864",
    );
    // Metadata and scripts.
    let data = gzip(&tar);
    let control = |name: &str, size: usize| {
        let entry = file(name, vec![b'a'; size]);
        let mut bytes = gzip_fast(&data_tar(&[entry]).expect("a tar"));
        bytes.extend_from_slice(&data);
        evil(vec![]).bytes(bytes)
    };
    for (made, reason) in [
        (
            control(".PKGINFO", 200 << 20),
            ".PKGINFO: more than the limit of 4194304",
        ),
        (
            control(".post-install", 200 << 20),
            "script: more than the limit of 4194304",
        ),
        (
            control(".other", 200 << 20),
            "control part: more than the limit",
        ),
    ] {
        refused_in_root(&made, reason);
        let verify = ["verify", &attack.evil_file()];
        fs::write(attack.evil_file(), made.build()).expect("a writable folder");
        attack.refused(&verify, &["evil-1.apk: "], 1);
    }
    // A signature of 1 GiB is skipped, as any other that is too large; then nothing follows.
    let mut tar = data_tar(&[file(".SIGN.RSA256.test-only.rsa.pub", "x")]).expect("a tar");
    tar[1024 + 124..1024 + 136].copy_from_slice(b"10000000000\0");
    let made = evil(vec![]).bytes(gzip(&tar));
    refused_in_root(&made, "");
}

#[test]
fn endless_headers() {
    // Many small entries, and many extended headers before one entry.
    let tar = data_tar(&[directory("usr")]).expect("a tar");
    let many: Vec<u8> = tar[..512].repeat(600_000);
    let made = evil(vec![]).tar(many);
    refused_in_root(&made, "number of entries: more than the limit of 524288");

    let mut extended = file("usr/x", "");
    let value = vec![b'v'; 60_000];
    extended.xattrs.insert("user.x".into(), value);
    let tar = data_tar(&[extended]).expect("a tar");
    let record = 512 + 60_000_usize.next_multiple_of(512) + 512;
    let many = tar[..record.min(tar.len() - 1536)].repeat(2_000);
    refused_in_root(
        &evil(vec![]).tar(many),
        "extended header: more than the limit of 262144",
    );

    // Names that add up.
    let names: Vec<EntrySpec> = (0..20_000)
        .map(|number| {
            let deep = "d".repeat(250);
            let path: Vec<&str> = std::iter::repeat_n(deep.as_str(), 15).collect();
            directory(&format!("usr/{number}/{}", path.join("/")))
        })
        .collect();
    let tar = data_tar(&names).expect("a tar");
    refused_in_root(
        &evil(vec![]).tar(tar),
        "names: more than the limit of 67108864",
    );
}

/// What is not UTF-8 never becomes another name.
#[test]
fn names_that_are_no_text() {
    use std::os::unix::ffi::OsStrExt;
    let reason = r"names that are not UTF-8 are not supported: usr/caf\xe9";
    let mut tar = data_tar(&evil(vec![file("usr/caf_", "x")]).contents.entries).expect("a tar");
    let at = tar.windows(8).position(|w| w == b"usr/caf_");
    tar[at.expect("it is there") + 7] = 0xe9;
    refused_everywhere(&evil(vec![]).tar(tar), reason);
    // In the database of a root.
    let attack = Attack::new();
    attack.run(&["add", "good"]).success();
    let path = attack.sandbox.root().join("lib/apk/db/installed");
    let mut text = fs::read(&path).expect("a database");
    let at = text.windows(6).position(|w| w == b"R:good");
    text[at.expect("it is there") + 5] = 0xe9;
    fs::write(&path, text).expect("a database");
    let reason = r"names that are not UTF-8 are not supported: R:goo\xe9";
    attack.refused(&["info"], &[reason, "lib/apk/db/installed"], 99);
    // On the command line.
    let mut command = attack.sandbox.ibex();
    command.args(["--initdb", "add", "--root"]);
    command.arg(
        attack
            .sandbox
            .beside("")
            .join(std::ffi::OsStr::from_bytes(b"w\xe9")),
    );
    let run = support::run(&mut command);
    assert_eq!(run.code, 1, "{}", run.output);
    assert!(
        run.output.contains(r"w\xe9' is not UTF-8"),
        "{}",
        run.output
    );
}

#[test]
fn checksums_that_do_not_match() {
    // A file that is not what its own checksum says, in a package that is otherwise in order.
    let mut tar =
        data_tar(&evil(vec![file("usr/x", "good content")]).contents.entries).expect("ok");
    let at = tar
        .windows(12)
        .position(|w| w == b"good content")
        .expect("it is there");
    tar[at..at + 4].copy_from_slice(b"evil");
    refused_everywhere(&evil(vec![]).tar(tar), "v2 package integrity error");
    // A link whose target was exchanged.
    let mut tar = data_tar(&evil(vec![symlink("usr/x", "good")]).contents.entries).expect("ok");
    let at = tar
        .windows(5)
        .position(|w| w == b"good\0")
        .expect("it is there");
    tar[at..at + 4].copy_from_slice(b"evil");
    refused_everywhere(&evil(vec![]).tar(tar), "v2 package integrity error");
    // Data that is not what the signed part says.
    let made = evil(vec![file("usr/x", "x")]);
    let data = gzip(&data_tar(&made.contents.entries).expect("a tar"));
    let key = crate::support::repository::signing_key();
    let other = Sha256::digest(b"something else").into();
    let bytes = assemble(&made.contents, &data, other, Some(&key)).expect("a package");
    refused_everywhere(&made.clone().bytes(bytes), "v2 package integrity error");
    // Bytes after the end.
    let mut bytes = made.build();
    bytes.extend_from_slice(b"more");
    refused_everywhere(
        &made.clone().bytes(bytes),
        "file format is invalid or inconsistent",
    );
    // Another package, or another build, under the name in the index.
    for other in [
        package("other", "1", vec![directory("usr"), file("usr/x", "x")]),
        made.clone()
            .with(|p| p.description = "another build".into()),
    ] {
        let attack = Attack::new().with(&made);
        fs::write(attack.evil_file(), other.build()).expect("a writable folder");
        let reason = "ERROR: evil-1: v2 package integrity error";
        attack.refused(&["add", "evil"], &[reason], 1);
    }
    // Unsigned.
    let bytes = assemble(&made.contents, &data, Sha256::digest(&data).into(), None).expect("ok");
    let attack = Attack::new().with(&made.bytes(bytes));
    let file = attack.evil_file();
    attack.refused(
        &["add", &file],
        &["UNTRUSTED signature", "it is not signed"],
        99,
    );
}

#[test]
fn records_that_are_no_file_names() {
    let identity = ibex::package::Identity([9; 20]).to_q1();
    for name in [
        "../evil",
        "/evil",
        "a/b",
        "..",
        ".",
        "e\x1b[31mvil",
        "e\rvil",
    ] {
        for version in ["1", "1/../../2", "1\x1b[31m"] {
            let attack = Attack::new();
            let record = format!("C:{identity}\nP:{name}\nV:{version}\nA:x86_64\nS:10\nI:10\n\n");
            attack.repository.publish_raw(&record);
            for command in [
                &["add", name][..],
                &["fetch", "-o", ".", name],
                &["search", "-v"],
            ] {
                let before = attack.snapshot();
                let run = attack.run(command);
                let changes = support::differences(&before, &attack.snapshot());
                assert!(changes.is_empty(), "{command:?}: {}", changes.join("\n"));
                // What was typed comes back as it was; what the index says does not.
                let typed = command[0] != "search" && name.contains('\x1b');
                assert!(typed || !run.output.contains('\x1b'), "{:?}", run.output);
                // The good package is still there; what was asked for is not.
                assert_eq!(run.code == 0, command[0] == "search", "{}", run.output);
            }
            let found = attack.run(&["search"]).success().output;
            assert_eq!(found, "good-1\n", "{name:?} {version:?}");
        }
    }
}

#[test]
fn an_index_of_somebody_else() {
    // Unsigned, with or without a bomb inside: nothing of it is used, nothing of it is inflated.
    for text in [Vec::new(), vec![b'a'; 200 << 20]] {
        let attack = Attack::new();
        let identity = ibex::package::Identity([9; 20]).to_q1();
        let mut records = format!("C:{identity}\nP:evil\nV:1\nS:1\nI:1\n\nT:").into_bytes();
        records.extend(text);
        let member = gzip_fast(&data_tar(&[file("APKINDEX", records)]).expect("a tar"));
        fs::write(attack.repository.file("APKINDEX.tar.gz"), &member).expect("a writable folder");
        let warning = "APKINDEX.tar.gz: UNTRUSTED signature";
        attack.refused(&["add", "evil"], &[warning, "evil (no such package)"], 1);
        let found = attack.run(&["search", "evil"]).output;
        assert!(!found.contains("evil-1"), "{found}");
    }
}

#[test]
fn a_signed_index_that_is_a_bomb() {
    let attack = Attack::new();
    let records = vec![b'a'; 200 << 20];
    let member = gzip_fast(&data_tar(&[file("APKINDEX", records)]).expect("a tar"));
    attack.repository.publish_member(&member);
    let warning = "APKINDEX.tar.gz: index: more than the limit of 67108864 (see --limits)";
    attack.refused(&["add", "--limits", "index=64M", "evil"], &[warning], 1);
    // A file that is too large is not read at all.
    let large = fs::File::create(attack.repository.file("APKINDEX.tar.gz")).expect("writable");
    large.set_len(1 << 40).expect("a sparse file");
    let warning = "APKINDEX.tar.gz: index file: more than the limit of 67108864 (see --limits)";
    let run = attack.run(&["add", "evil"]);
    assert_eq!(run.code, 1, "{}", run.output);
    assert!(run.output.contains(warning), "{}", run.output);
}

#[test]
fn a_server_that_sends_more_than_it_should() {
    let attack = Attack::new().with(&evil(vec![file("usr/x", "x")]));
    let address = serve(attack.repository.path());
    let cache = attack.sandbox.beside("etc-cache").display().to_string();
    let options = ["--cache-dir", &cache, "--repositories-file", "/dev/null"];
    let run = |arguments: &[&str]| {
        let mut command = attack.sandbox.ibex();
        command
            .env("IBEX_CACHE_DIR", attack.sandbox.beside("catalogue"))
            .args(["--arch", "x86_64", "-X", &address])
            .args(options)
            .args(arguments);
        if !rustix::process::geteuid().is_root() {
            command.arg("--usermode");
        }
        bounded(&command)
    };
    run(&["update"]).success();
    // An index larger than any index, and a package larger than the index says.
    let index = fs::read(attack.repository.file("APKINDEX.tar.gz")).expect("published");
    let huge = fs::File::create(attack.repository.file("APKINDEX.tar.gz")).expect("writable");
    huge.set_len(70 << 20).expect("a sparse file");
    let refused = run(&["update"]);
    assert_eq!(refused.code, 1, "{}", refused.output);
    assert!(
        refused.output.contains("WARNING: updating "),
        "{}",
        refused.output
    );
    fs::write(attack.repository.file("APKINDEX.tar.gz"), index).expect("writable");
    let package = fs::read(attack.evil_file()).expect("published");
    let longer = [package.as_slice(), &zeros(80)].concat();
    fs::write(attack.evil_file(), longer).expect("writable");
    let root = || {
        let mut rows = attack.snapshot();
        rows.retain(|path, _| path.starts_with("root/"));
        rows
    };
    let before = root();
    let refused = run(&["add", "evil"]);
    assert_eq!(refused.code, 1, "{}", refused.output);
    assert!(refused.output.contains("evil-1"), "{}", refused.output);
    assert_eq!(before, root());
}

#[test]
fn texts_that_would_control_a_terminal() {
    let attack = Attack::new().with(
        &package("evil", "1", vec![directory("usr"), file("usr/evil", "x")])
            .with(|package| package.description = "\x1b]0;title\x07\x1b[2Jclean".into()),
    );
    let search = attack.command(&["search", "--description", "-v", "clean"]);
    // A terminal of its own.
    let quoted: Vec<String> = std::iter::once(search.get_program())
        .chain(search.get_args())
        .map(|word| format!("'{}'", word.to_str().expect("text")))
        .collect();
    let mut command = Command::new("script");
    command
        .args(["-q", "-e", "-c", &quoted.join(" "), "/dev/null"])
        .env_clear();
    for (name, value) in search.get_envs() {
        command.env(name, value.expect("only set variables"));
    }
    let run = support::run(&mut command).success();
    assert!(
        run.output.contains(r"\u{1b}]0;title\u{7}\u{1b}[2Jclean"),
        "{:?}",
        run.output
    );
    assert!(!run.output.contains('\x1b'), "{:?}", run.output);
}

#[test]
fn a_script_cannot_be_smuggled_in() {
    // Only the signed control part has scripts; what looks like one in the data is skipped.
    if !support::is_root() {
        return;
    }
    let marker = |name: &str| format!("echo {name} > /usr/marker");
    let attack = Attack::new().with(
        &evil(vec![file(
            ".post-install",
            format!("#!/bin/sh\n{}\n", marker("data")),
        )])
        .script(ScriptKind::PreInstall, "exit 0"),
    );
    attack.run(&["add", "--no-scripts", "evil"]).success();
    let stored = attack.sandbox.read("lib/apk/db/scripts.tar");
    assert!(!stored.contains("marker"), "{stored}");
}
