//! Packages and indexes of the v3 form, made here: what is good is installed as apk does it, and
//! what is not is refused as a whole, with its reason, within the memory of every attack.

use crate::hostile::bounded;
use crate::support::repository::serve;
use crate::support::v3::{
    self, Adb, Node, Package, block, compressed, container, file, hard_link, package, special,
    symlink,
};
use crate::support::{self, Run, Sandbox};
use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::process::Command;

/// A root and a folder with an index that it trusts the key of.
struct Feed {
    sandbox: Sandbox,
    packages: Vec<(Package, Vec<u8>)>,
    /// The repository line, if it is not the index in the folder.
    line: Option<String>,
}

impl Feed {
    fn new() -> Self {
        let sandbox = Sandbox::new();
        fs::create_dir(sandbox.beside("feed")).expect("a new directory");
        let public = include_bytes!("../fixtures/test-only.rsa.pub");
        sandbox.write("etc/apk/keys/other-name.pem", public);
        sandbox.write("etc/apk/world", "");
        sandbox.write("lib/apk/db/installed", "");
        Self {
            sandbox,
            packages: Vec::new(),
            line: None,
        }
    }

    /// Adds a package as it is, under its usual name.
    fn with(self, package: &Package) -> Self {
        let file = package.build();
        self.with_file(package, file)
    }

    /// Adds a package with a file that may be something else.
    fn with_file(mut self, package: &Package, file: Vec<u8>) -> Self {
        let text = |slot| {
            let found = package.texts.iter().find(|(known, _)| *known == slot);
            String::from_utf8_lossy(&found.expect("it has one").1).into_owned()
        };
        let name = format!("{}-{}.apk", text(1), text(2));
        if !name.contains('/') {
            fs::write(self.path(&name), &file).expect("a writable folder");
        }
        self.packages.push((package.clone(), file));
        self.publish(&self.index(32, ""));
        self
    }

    fn index(&self, length: usize, package_name: &str) -> Vec<u8> {
        let listed: Vec<(&Package, &[u8])> = self
            .packages
            .iter()
            .map(|(package, file)| (package, file.as_slice()))
            .collect();
        v3::index(&listed, length, package_name, true)
    }

    fn publish(&self, index: &[u8]) {
        fs::write(self.path("packages.adb"), index).expect("a writable folder");
    }

    fn path(&self, name: &str) -> PathBuf {
        self.sandbox.beside("feed").join(name)
    }

    fn run(&self, arguments: &[&str]) -> Run {
        bounded(&self.command(arguments))
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = self.sandbox.ibex();
        let line = match &self.line {
            Some(line) => line.clone(),
            None => self.path("packages.adb").display().to_string(),
        };
        command
            .env("IBEX_CACHE_DIR", self.sandbox.beside("catalogue"))
            .args(["--arch", "x86_64", "-X", &line])
            .args(arguments);
        if !support::is_root() && !matches!(arguments[0], "verify" | "extract") {
            command.arg("--usermode");
        }
        command
    }

    fn snapshot(&self) -> BTreeMap<String, String> {
        let mut rows = support::tree(&self.sandbox.beside(""), 0);
        let changing = [
            "root/var/log",
            "root/var/lib/ibex",
            "root/var/cache",
            "root/lib/apk/db/lock",
            "catalogue",
        ];
        rows.retain(|path, _| !changing.iter().any(|prefix| path.starts_with(prefix)));
        rows
    }

    /// Runs a command that must fail with these messages and change nothing anywhere.
    #[track_caller]
    fn refused(&self, arguments: &[&str], messages: &[&str]) {
        // The directories of the log and the like.
        self.run(&["info"]);
        let before = self.snapshot();
        let run = self.run(arguments);
        for message in messages {
            assert!(
                run.output.contains(message),
                "{arguments:?}: {message:?} is not in:\n{}",
                run.output
            );
        }
        assert!(matches!(run.code, 1..100), "{arguments:?}: {}", run.output);
        assert!(!run.output.contains('\x1b'), "{:?}", run.output);
        let mut changes = support::differences(&before, &self.snapshot());
        changes.retain(|change| {
            !["root/var", "root/etc/apk/arch"]
                .iter()
                .any(|p| change.contains(p))
        });
        assert!(
            changes.is_empty(),
            "{arguments:?} changed something:\n{}",
            changes.join("\n")
        );
    }
}

/// A package with one of everything that a user can install.
fn everything() -> Package {
    let mut listed = file("listed", "content\n");
    listed.owner = "nobody-knows".to_owned();
    listed.mode = 0o4750;
    listed.xattrs = vec![b"user.ibex\0value".to_vec()];
    // Another name of a file has the attributes of that file.
    let mut hard = hard_link("hard", "usr/share/all/listed", "content\n");
    (hard.owner, hard.mode) = (listed.owner.clone(), listed.mode);
    hard.xattrs.clone_from(&listed.xattrs);
    let more = package(
        "all",
        "1.0-r0",
        &[
            ("", &[file("top", "top\n")]),
            ("etc", &[file("empty", ""), symlink("link", "empty")]),
            ("usr/share/all", &[listed, file("large", vec![7; 300_000])]),
            ("usr/share/other", &[hard]),
        ],
    );
    let mut more = more
        .text(9, "http://example.org")
        .text(8, "Somebody <s@example.org>");
    more.provides = vec![("so:all.so.1", "1", 1), ("anything", "", 0)];
    more.depends = vec![("never", "", 23), ("all", "1.0", 5)];
    more.triggers = vec!["/usr/share/*".to_owned(), "/opt /srv".to_owned()];
    more
}

#[test]
fn a_package_of_every_compression_is_installed() {
    let wanted_owner = "65534:65534:4750";
    for way in ["none", "ADBd", "none, said", "deflate", "zstd"] {
        let made = everything().script(3, "echo done > made-by-script");
        let packed = compressed(&made.build(), way);
        let feed = Feed::new().with_file(&made, packed);
        feed.publish(&compressed(&feed.index(32, ""), way));
        let file = feed.path("all-1.0-r0.apk").display().to_string();
        let index = feed.path("packages.adb").display().to_string();
        let verified = feed.run(&["verify", &file, &index]);
        assert_eq!(
            verified.output,
            format!("{file}: OK\n{index}: OK\n"),
            "{way}"
        );
        feed.run(&["add", "--no-scripts", "all"]).success();
        let installed = feed.sandbox.read("lib/apk/db/installed");
        for line in [
            "P:all\nV:1.0-r0\nA:x86_64\n",
            "T:the package all\nU:http://example.org\nL:MIT\nm:Somebody <s@example.org>\n",
            "D:!never all>=1.0\np:so:all.so.1=1 anything\nf:S\nF:\nR:top\nZ:Q1",
            "F:etc\nR:empty\nZ:Q147DEQpj8HBSa+/TImW+5JCeuQeQ=\nR:link\nZ:Q1",
            &format!("R:listed\na:{wanted_owner}:Q1"),
            "F:usr/share/other\nR:hard\n",
        ] {
            assert!(
                installed.contains(line),
                "{way}: {line:?} is not in:\n{installed}"
            );
        }
        assert_eq!(feed.sandbox.read("usr/share/other/hard"), "content\n");
        assert_eq!(
            feed.sandbox.read("lib/apk/db/triggers").split(' ').count(),
            4
        );
        let audit = feed.run(&["audit", "--system"]);
        assert!(
            !audit.output.contains("usr/share"),
            "{way}: {}",
            audit.output
        );
        feed.sandbox.write("usr/share/all/large", "changed");
        let audit = feed.run(&["audit", "--system"]);
        assert!(
            audit.output.contains("U usr/share/all/large"),
            "{way}: {}",
            audit.output
        );
        feed.run(&["fix", "--no-scripts", "all"]).success();
        assert_eq!(feed.sandbox.read("usr/share/all/large").len(), 300_000);
        feed.run(&["del", "all"]).success();
        assert!(!feed.sandbox.root().join("usr").exists(), "{way}");
        // The file by itself is the same package.
        feed.run(&["add", "--no-scripts", &file]).success();
        let identity = |text: &str| {
            text.lines()
                .find(|l| l.starts_with("C:"))
                .map(str::to_owned)
        };
        assert_eq!(
            identity(&installed),
            identity(&feed.sandbox.read("lib/apk/db/installed"))
        );
    }
}

#[test]
fn an_upgrade_that_is_killed_leaves_one_version() {
    if !support::is_root() {
        return;
    }
    let (old, new) = (everything(), everything().text(2, "2.0-r0"));
    let mut states = [0, 0];
    // Not every operation: `crash` does that, with packages of v2.
    for number in (0..).step_by(5) {
        let mut feed = Feed::new().with(&old);
        feed.run(&["add", "--no-scripts", "all"]).success();
        feed.packages.clear();
        let feed = feed.with(&new);
        let mut upgrade = feed.command(&["upgrade", "--no-scripts"]);
        let stopped = bounded(upgrade.env("IBEX_FAULT", format!("stop:{number}")));
        feed.run(&["recover"]);
        let installed = feed.sandbox.read("lib/apk/db/installed");
        let after = installed.contains("V:2.0-r0\n");
        assert_eq!(
            installed.contains("V:1.0-r0\n"),
            !after,
            "{number}: {installed}"
        );
        assert!(installed.contains("f:S\n"), "{number}: {installed}");
        assert_eq!(
            feed.run(&["audit", "--system"]).success().output,
            "",
            "{number}"
        );
        if stopped.code != 137 {
            break;
        }
        states[usize::from(after)] += 1;
    }
    assert!(states[0] > 4 && states[1] > 2, "{states:?}");
}

#[test]
fn indexes_name_files_and_have_short_identities() {
    let feed = Feed::new().with(&everything());
    fs::create_dir_all(feed.path("x86_64/a")).expect("a new directory");
    let odd = feed.path("x86_64/a/all_1.0-r0");
    fs::rename(feed.path("all-1.0-r0.apk"), &odd).expect("it was made");
    for length in [20, 32] {
        feed.publish(&feed.index(length, "${arch}/${name:1}/${name}_${version}"));
        let location = feed.run(&["fetch", "--url", "--simulate", "all"]).success();
        assert_eq!(location.output, format!("{}\n", odd.display()));
        feed.run(&["add", "--no-scripts", "all"]).success();
        feed.run(&["del", "all"]).success();
    }
    // Neither a digest of this length nor a name like that can be used.
    feed.publish(&feed.index(16, ""));
    feed.refused(&["add", "all"], &["all (no such package)"]);
    feed.publish(&feed.index(32, "${nothing}"));
    feed.refused(&["add", "all"], &["ADB schema error"]);
}

#[test]
fn packages_from_a_server_are_kept_for_other_roots() {
    let feed = Feed::new().with(&everything());
    let packed = compressed(&everything().build(), "zstd");
    let mut feed = feed.with_file(&everything(), packed);
    feed.packages.remove(0);
    feed.publish(&feed.index(32, ""));
    let url = serve(&feed.sandbox.beside("feed"));
    feed.line = Some(format!("{url}/packages.adb"));
    feed.run(&["add", "--no-scripts", "all"]).success();
    feed.run(&["audit", "--system"]).success();
    feed.run(&["del", "all"]).success();
    fs::remove_file(feed.path("all-1.0-r0.apk")).expect("it was made");
    for _ in 0..2 {
        feed.run(&["add", "--no-network", "--no-scripts", "all"])
            .success();
        assert_eq!(feed.sandbox.read("usr/share/other/hard"), "content\n");
        feed.run(&["del", "all"]).success();
        // From the package file that is kept, then from what it was unpacked to.
        let unpacked = feed.sandbox.beside("catalogue/unpacked");
        let _ = fs::remove_dir_all(unpacked);
    }
}

#[test]
fn indexes_of_v2_take_no_package_of_v3() {
    let feed = Feed::new().with(&everything());
    let file = feed.path("all-1.0-r0.apk").display().to_string();
    let index = feed.path("packages.adb").display().to_string();
    let out = feed.path("APKINDEX.tar.gz").display().to_string();
    let reason = "file format not supported (in this applet)";
    feed.refused(
        &["index", "-o", &out, &file],
        &[&format!("{file}: {reason}")],
    );
    feed.refused(
        &["index", "-o", &out, "-x", &index, &file],
        &[&format!("{index}: {reason}")],
    );
}

#[test]
fn questions_are_answered_from_an_index() {
    let listed = everything().text(7, "source").text(10, [0xab; 20]);
    let feed = Feed::new().with(&listed);
    for (arguments, wanted) in [
        (
            &["search", "-v", "all"][..],
            "all-1.0-r0 - the package all\n",
        ),
        (&["search", "so:all.so.1"], "all-1.0-r0\n"),
        (&["info", "-w", "all"], "http://example.org"),
        (&["query", "--fields", "all", "all"], "abababababababab"),
        (
            &["add", "--simulate", "all"],
            "(1/1) Installing all (1.0-r0)",
        ),
    ] {
        let run = feed.run(arguments).success();
        assert!(run.output.contains(wanted), "{arguments:?}: {}", run.output);
    }
    let policy = feed.run(&["policy", "all"]).success();
    let shown = feed.path("packages.adb").display().to_string();
    assert_eq!(
        policy.output,
        format!("all policy:\n  1.0-r0:\n    {shown}\n")
    );
}

/// A package called `evil` with one directory of these files.
fn evil(nodes: &[Node]) -> Package {
    package("evil", "1", &[("usr", nodes)])
}

/// Checks that a package is refused with this reason, however it comes in.
#[track_caller]
fn refused_everywhere(feed: Feed, reason: &str) {
    fs::create_dir(feed.sandbox.beside("destination")).expect("a new directory");
    fs::write(feed.sandbox.beside("secret"), "secret").expect("a new file");
    feed.refused(
        &["add", "evil"],
        &["evil-1: ", reason, "nothing was changed"],
    );
    let file = feed.path("evil-1.apk").display().to_string();
    feed.refused(&["add", &file], &[reason]);
    let destination = feed.sandbox.beside("destination").display().to_string();
    feed.refused(
        &["extract", "--destination", &destination, &file],
        &[reason],
    );
}

#[test]
fn names_that_lead_elsewhere() {
    let good = || file("good", "good");
    let long = "x".repeat(256);
    for (directory, node, reason) in [
        ("..", good(), "malicious file ..: relative component"),
        (
            "usr/..",
            good(),
            "malicious file usr/..: relative component",
        ),
        (
            "../outside",
            good(),
            "malicious file ../outside: relative component",
        ),
        ("/tmp", good(), "malicious file /tmp: absolute path"),
        ("usr//x", good(), "malicious file usr//x: empty component"),
        ("usr/", good(), "malicious file usr/: empty component"),
        (
            "usr/./x",
            good(),
            "malicious file usr/./x: relative component",
        ),
        (
            "usr",
            file("..", "x"),
            "malicious file usr/..: relative component",
        ),
        ("usr", file("", "x"), "malicious file usr/: empty component"),
        ("usr", file(&long, "x"), "component too long"),
        (
            "usr",
            file("a\nF:etc\nR:passwd", "x"),
            r"usr/a\nF:etc\nR:passwd: control character",
        ),
        ("usr\nF:etc", good(), r"usr\nF:etc: control character"),
        (
            "usr",
            file("\x1b[2J", "x"),
            r"usr/\u{1b}[2J: control character",
        ),
        ("lib/apk/db", file("installed", "x"), ""),
    ] {
        let made = package("evil", "1", &[(directory, &[node])]);
        let feed = Feed::new().with(&made);
        if reason.is_empty() {
            feed.refused(&["add", "evil"], &["malicious file lib/apk/db/installed"]);
            continue;
        }
        refused_everywhere(feed, reason);
    }
    for name in ["a/b", "../x", "/tmp/x"] {
        let feed = Feed::new().with(&evil(&[file(name, "x")]));
        refused_everywhere(feed, "ADB schema error");
    }
}

#[test]
fn links_and_devices_that_cannot_be() {
    for (node, reason) in [
        (
            hard_link("x", "../secret", "secret"),
            "no hard link target (../secret) in archive",
        ),
        (
            hard_link("x", "etc/shadow", ""),
            "no hard link target (etc/shadow) in archive",
        ),
        (
            hard_link("x", "usr/x", ""),
            "no hard link target (usr/x) in archive",
        ),
        (symlink("x", ""), "ADB schema error"),
        (symlink("x", "a\0b"), "ADB schema error"),
        (symlink("x", &"y".repeat(5000)), "ADB schema error"),
        (special("x", 0x2000, [0; 7]), "ADB schema error"),
        (special("x", 0x4000, "y"), "ADB schema error"),
        (special("x", 0xc000, [0; 8]), "ADB schema error"),
    ] {
        let made = evil(&[file("first", "first"), node]);
        refused_everywhere(Feed::new().with(&made), reason);
    }
    // The target is there, and not what it must be.
    let made = evil(&[file("first", "first"), hard_link("x", "usr/first", "other")]);
    let feed = Feed::new().with(&made);
    feed.refused(
        &["add", "evil"],
        &["file integrity error: usr/x is not what its hash says"],
    );
}

#[test]
fn names_that_come_twice() {
    let twice = "the name comes twice";
    let (one, other) = (file("x", "1"), file("x", "2"));
    refused_everywhere(
        Feed::new().with(&evil(&[one.clone(), other.clone()])),
        twice,
    );
    let below = package("evil", "1", &[("usr", &[one]), ("usr/x", &[other])]);
    refused_everywhere(Feed::new().with(&below), twice);
}

#[test]
fn contents_that_are_not_what_they_should_be() {
    let mut wrong = file("x", "right");
    wrong.content = b"wrong".to_vec();
    let mut unhashed = file("x", "right");
    unhashed.hash.clear();
    let mut weak = file("x", "right");
    weak.hash.truncate(20);
    let mut empty = file("x", "");
    empty.hash = file("x", "other").hash;
    for (node, reason) in [
        (wrong, "file integrity error"),
        (empty, "file integrity error"),
        (unhashed, "ADB schema error"),
        (weak, "ADB schema error"),
    ] {
        refused_everywhere(Feed::new().with(&evil(&[node])), reason);
    }
}

#[test]
fn blocks_that_are_missing_or_too_many() {
    let made = evil(&[file("a", "first"), file("b", "second")]);
    let (payload, data) = (made.payload(), made.data());
    let build = |data: &[Vec<u8>]| container(*b"pckg", &payload, true, data);
    let extra = [data.clone(), vec![data[1].clone()]].concat();
    let swapped = vec![data[1].clone(), data[0].clone()];
    let longer = vec![[&data[0][..], b"x"].concat(), data[1].clone()];
    let whole = made.build();
    let cut = |bytes: usize| whole[..whole.len() - bytes].to_vec();
    let late = [&whole[..], &block(1, &v3::signature(*b"pckg", &payload))].concat();
    for (bytes, reason) in [
        (build(&[]), "ADB block error"),
        (build(&data[..1]), "ADB block error"),
        (build(&data[1..]), "ADB block error"),
        (build(&extra), "ADB block error"),
        (build(&swapped), "ADB block error"),
        (build(&longer), "ADB block error"),
        (late, "ADB block error"),
        (cut(1), "unexpected end of file"),
        (cut(9), "unexpected end of file"),
        ([&whole[..], &[0]].concat(), "unexpected end of file"),
        (compressed(&build(&data[..1]), "zstd"), "ADB block error"),
        (
            [&compressed(&whole, "ADBd")[..], b"more"].concat(),
            "invalid or inconsistent",
        ),
        (
            [&compressed(&whole, "zstd")[..], b"more"].concat(),
            "invalid or inconsistent",
        ),
    ] {
        refused_everywhere(Feed::new().with_file(&made, bytes), reason);
    }
}

#[test]
fn sizes_that_lie_and_bombs() {
    // A size that the data block does not have, and one that nobody has.
    for size in [4, 1 << 29, u64::MAX - 7] {
        let mut lying = file("x", "right");
        lying.size = size;
        let mut made = evil(&[lying]);
        made.installed_size = size;
        let feed = Feed::new().with(&made);
        let file = feed.path("evil-1.apk").display().to_string();
        feed.refused(&["verify", &file], &[""]);
        feed.refused(&["add", "evil"], &["nothing was changed"]);
    }
    let header = |word: u32| [&b"ADB.pckg"[..], &word.to_le_bytes(), &[0; 100]].concat();
    let extended = |size: u64| {
        let long = [
            &(3_u32 << 30).to_le_bytes()[..],
            &[0; 4],
            &size.to_le_bytes(),
            &[0; 100],
        ];
        [&b"ADB.pckg"[..], &long.concat()].concat()
    };
    let huge = [&b"ADB.pckg"[..], &block(0, &vec![0; 70 << 20])].concat();
    let feed = Feed::new();
    for (bytes, reason) in [
        (header(0x3fff_ffff), "control part"),
        (header(3), "ADB block error"),
        (header(1 << 30 | 50), "ADB block error"),
        (header(8), "ADB block error"),
        (extended(1 << 40), "control part"),
        (extended(15), "ADB block error"),
        (extended(u64::MAX), "control part"),
        (compressed(&huge, "ADBd"), "control part"),
        (compressed(&huge, "zstd"), "control part"),
        (b"ADBc\x03\0".to_vec(), "ADB compression not supported"),
        (b"ADBx".to_vec(), "ADB header error"),
        (b"ADB".to_vec(), "unexpected end of file"),
        (b"ADBdxxxxxxxxxxxx".to_vec(), "invalid"),
        (b"ADBc\x02\0xxxxxxxxxxxx".to_vec(), "invalid"),
        (b"ADB.pckg".to_vec(), "ADB block error"),
    ] {
        fs::write(feed.path("bad.apk"), bytes).expect("a writable folder");
        let path = feed.path("bad.apk").display().to_string();
        feed.refused(&["verify", &path], &[&path, reason]);
    }
    // An index that inflates without end is hashed, and not kept, before its signature is judged.
    for way in ["ADBd", "zstd"] {
        let mut payload = vec![0; 400 << 20];
        payload[4..8].copy_from_slice(&(14_u32 << 28 | 8).to_le_bytes());
        let bomb = [&b"ADB.indx"[..], &block(0, &payload)].concat();
        feed.publish(&compressed(&bomb, way));
        feed.refused(&["add", "x"], &["UNTRUSTED signature"]);
    }
}

#[test]
fn values_that_lead_nowhere() {
    let feed = Feed::new();
    let word = |kind: u32, at: u32| kind << 28 | at;
    let root = |value: u32| {
        let mut adb = Adb::new();
        adb.root(value);
        adb.0
    };
    // An object at 8 whose first slots are given.
    let object = |slots: &[u32]| {
        let mut adb = Adb::new();
        let value = adb.slots(slots);
        adb.root(value);
        adb.0
    };
    let mut endless = Adb::new();
    endless.0.extend(u32::MAX.to_le_bytes());
    endless.root(word(14, 8));
    let mut none = Adb::new();
    none.0.extend([0; 8]);
    none.root(word(14, 8));
    let mut other = object(&[word(14, 8)]);
    other[0] = 1;
    // Lists of lists that are all the same: four million dependencies of four million.
    let mut many = Adb::new();
    let name = many.blob(b"x");
    let dependency = many.slots(&[name]);
    let list = many.slots(&vec![dependency; 1 << 18]);
    let mut info = [0; 21];
    info[14] = list;
    let info = many.slots(&info);
    let packages = many.slots(&vec![info; 1 << 18]);
    let all = many.slots(&[0, packages]);
    many.root(all);
    for payload in [
        root(word(14, 0x0fff_fffc)),
        root(word(14, 9)),
        root(word(8, 8)),
        root(word(15, 8)),
        object(&[0, word(14, 8)]),
        object(&[0, word(13, 0x0fff_0000)]),
        object(&[word(8, 0x0fff_ffff)]),
        object(&[word(10, 0x0fff_fff0)]),
        object(&[word(9, 15)]),
        object(&[word(1, 1)]),
        endless.0,
        none.0,
        other,
        many.0,
    ] {
        for schema in [*b"indx", *b"pckg"] {
            let bytes = container(schema, &payload, true, &[]);
            fs::write(feed.path("bad"), compressed(&bytes, "ADBd")).expect("a writable folder");
            let path = feed.path("bad").display().to_string();
            feed.refused(&["verify", &path], &[&path]);
        }
    }
}

#[test]
fn texts_with_line_breaks() {
    let made = || evil(&[file("x", "x")]);
    // A text for people is made one line.
    let text = "one\nF:etc\nR:victim\r\0end";
    let mut harmless = made()
        .text(4, text)
        .text(6, text)
        .text(8, text)
        .text(9, text);
    harmless.scripts.clear();
    let feed = Feed::new().with(&harmless);
    feed.run(&["add", "evil"]).success();
    let installed = feed.sandbox.read("lib/apk/db/installed");
    assert!(
        installed.contains("T:one F:etc R:victim  end\n"),
        "{installed}"
    );
    assert!(!installed.contains("\nR:victim"), "{installed}");
    feed.run(&["info", "-a", "evil"]).success();
    // Names are what they are: the record is not used, and the file is refused.
    for slot in [1, 2, 5, 7] {
        let made = made().text(slot, "evil\nF:etc");
        let feed = Feed::new().with(&made);
        feed.refused(&["add", "evil"], &["evil (no such package)"]);
        fs::write(feed.path("bad.apk"), made.build()).expect("a writable folder");
        let path = feed.path("bad.apk").display().to_string();
        feed.refused(&["add", &path], &["ADB schema error"]);
    }
    // In lists they would become entries of their own.
    let mut listed = made();
    listed.depends = vec![("x\nF:etc", "", 0)];
    Feed::new()
        .with(&listed)
        .refused(&["add", "evil"], &["evil"]);
    let mut trigger = made();
    trigger.triggers = vec!["/x\nQ1".to_owned()];
    refused_everywhere(Feed::new().with(&trigger), "ADB schema error");
}

#[test]
fn signatures_that_are_wrong_or_missing() {
    let mut unsigned = evil(&[file("x", "x")]);
    unsigned.signed = false;
    let feed = Feed::new().with(&unsigned);
    let path = feed.path("evil-1.apk").display().to_string();
    feed.refused(&["add", &path], &["UNTRUSTED signature"]);
    feed.refused(&["verify", &path], &["UNTRUSTED signature"]);
    // Listed by a signed index it needs none of its own.
    feed.run(&["add", "evil"]).success();
    feed.run(&["del", "evil"]).success();
    let payload = unsigned.payload();
    let good = v3::signature(*b"pckg", &payload);
    let altered = |at: usize| {
        let mut bytes = good.clone();
        bytes[at] ^= 1;
        bytes
    };
    let with = |signatures: &[Vec<u8>]| {
        let mut file = container(*b"pckg", &payload, false, &[]);
        signatures.iter().for_each(|one| file.extend(block(1, one)));
        unsigned
            .data()
            .iter()
            .for_each(|data| file.extend(block(2, data)));
        file
    };
    let of_index = v3::signature(*b"indx", &payload);
    for (signatures, trusted) in [
        (vec![good.clone()], true),
        (vec![altered(30)], false),
        (vec![altered(1)], false),
        (vec![altered(5)], false),
        (vec![altered(0)], false),
        (vec![of_index], false),
        (vec![vec![]], false),
        (vec![good[..18].to_vec()], false),
        // One good one is enough, whatever the others are.
        (vec![altered(30), vec![0], good.clone()], true),
        (vec![vec![0; 70_000]], false),
    ] {
        fs::write(&path, with(&signatures)).expect("a writable folder");
        let verified = feed.run(&["verify", &path]);
        assert_eq!(verified.code == 0, trusted, "{}", verified.output);
    }
    // The index itself.
    let listed: Vec<(&Package, &[u8])> = vec![(&unsigned, b"x")];
    feed.publish(&v3::index(&listed, 32, "", false));
    feed.refused(
        &["add", "evil"],
        &["UNTRUSTED signature", "evil (no such package)"],
    );
    let mut altered = feed.index(32, "");
    let end = altered.len() - 20;
    altered[end] ^= 1;
    feed.publish(&altered);
    feed.refused(
        &["add", "evil"],
        &["UNTRUSTED signature", "evil (no such package)"],
    );
}

#[test]
fn another_package_than_the_index_lists() {
    let listed = evil(&[file("x", "x")]);
    let other = package("other", "1", &[("usr", &[file("x", "x")])]);
    for length in [20, 32] {
        let feed = Feed::new().with_file(&listed, other.build());
        feed.publish(&feed.index(length, ""));
        feed.refused(&["add", "evil"], &["evil-1: ADB integrity error"]);
    }
}
