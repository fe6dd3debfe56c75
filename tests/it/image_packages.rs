//! Descriptions, chosen packages, lock files and their errors, through the command line.

use super::support::{self, data, run};
use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// A folder with descriptions and a cache of its own.
pub(crate) struct Desk {
    folder: tempfile::TempDir,
}

/// What a command said on each stream.
pub(crate) struct Said {
    pub(crate) out: String,
    pub(crate) err: String,
    pub(crate) code: i32,
}

impl Said {
    /// Returns the output, or panics with what went wrong.
    #[track_caller]
    pub(crate) fn good(self) -> String {
        assert_eq!(self.code, 0, "{}{}", self.out, self.err);
        self.out
    }

    /// Checks code and first line of an error.
    #[track_caller]
    pub(crate) fn error(self, exit: i32, line: &str) -> Self {
        let first = self.err.lines().find(|line| line.starts_with("error["));
        assert_eq!(
            (self.code, first),
            (exit, Some(line)),
            "{}{}",
            self.out,
            self.err
        );
        self
    }
}

impl Desk {
    /// Makes one with apko's own packages and descriptions.
    pub(crate) fn apko() -> Option<Self> {
        let cli = data("wolfi/cli")?;
        let desk = Self::empty();
        for entry in fs::read_dir(&cli).expect("a folder") {
            let path = entry.expect("an entry").path();
            if path.is_file() {
                let name = path.file_name().expect("a name");
                fs::copy(&path, desk.path().join(name)).expect("a copy");
            }
        }
        copy(
            &cli.join("packages"),
            &desk.path().join("testdata/packages"),
        );
        let key = "melange.rsa.pub";
        fs::copy(
            cli.join("packages").join(key),
            desk.path().join("testdata").join(key),
        )
        .expect("a copy");
        Some(desk)
    }

    /// Makes an empty one.
    pub(crate) fn empty() -> Self {
        let folder = tempfile::tempdir().expect("a temporary directory");
        fs::create_dir(folder.path().join("work")).expect("a new directory");
        Self { folder }
    }

    /// Makes one with a description `a.yaml` of packages of Alpine.
    pub(crate) fn empty_with_alpine(packages: &str) -> Option<Self> {
        let repository = data("alpine-v3.19")?;
        let key = alpine_key()?;
        let desk = Self::empty();
        let repository = repository.display().to_string();
        desk.write("a.yaml", &description(&repository, &key, packages));
        Some(desk)
    }

    /// Returns where descriptions are.
    pub(crate) fn path(&self) -> PathBuf {
        self.folder.path().join("work")
    }

    /// Returns the cache.
    pub(crate) fn cache(&self) -> PathBuf {
        self.folder.path().join("cache")
    }

    /// Writes a file.
    pub(crate) fn write(&self, name: &str, text: &str) {
        let path = self.path().join(name);
        fs::create_dir_all(path.parent().expect("below the desk")).expect("directories");
        fs::write(path, text).expect("a file");
    }

    /// Reads a file.
    pub(crate) fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path().join(name)).expect("a text file")
    }

    /// Returns a command for `image`.
    pub(crate) fn command(&self, words: &[&str]) -> Command {
        let mut command = support::ibex();
        command.env("IBEX_CACHE_DIR", self.cache());
        command.current_dir(self.path()).arg("image").args(words);
        command
    }

    /// Runs `image` with these words.
    pub(crate) fn run(&self, words: &[&str]) -> Said {
        said(&mut self.command(words))
    }
}

pub(crate) fn said(command: &mut Command) -> Said {
    let output = command
        .stdin(Stdio::null())
        .output()
        .expect("the program runs");
    Said {
        out: String::from_utf8_lossy(&output.stdout).into_owned(),
        err: String::from_utf8_lossy(&output.stderr).into_owned(),
        code: output.status.code().unwrap_or(128),
    }
}

pub(crate) fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a directory");
    run(Command::new("cp").arg("-r").arg(from.join(".")).arg(to)).success();
}

/// A web server for a folder that lives as long as this.
pub(crate) struct Server {
    pub(crate) address: String,
    status: std::sync::Arc<std::sync::atomic::AtomicU16>,
}

impl Server {
    pub(crate) fn start(folder: PathBuf) -> Self {
        use std::sync::atomic::{AtomicU16, Ordering};
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = format!("http://{}", listener.local_addr().expect("an address"));
        let status = std::sync::Arc::new(AtomicU16::new(0));
        let forced = status.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let Ok(mut stream) = stream else { return };
                let mut request = [0; 4096];
                let count = stream.read(&mut request).unwrap_or(0);
                let request = String::from_utf8_lossy(&request[..count]).into_owned();
                let path = request
                    .split(' ')
                    .nth(1)
                    .unwrap_or("/")
                    .trim_start_matches('/');
                let body = fs::read(folder.join(path));
                let (status, body) = match (forced.load(Ordering::SeqCst), body) {
                    (0, Ok(body)) => (200, body),
                    (0, Err(_)) => (404, Vec::new()),
                    (code, _) => (code, Vec::new()),
                };
                let head = format!(
                    "HTTP/1.1 {status} X\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
                    body.len()
                );
                let _ = stream
                    .write_all(head.as_bytes())
                    .and_then(|()| stream.write_all(&body));
            }
        });
        Self { address, status }
    }

    pub(crate) fn answer_only(&self, status: u16) {
        self.status
            .store(status, std::sync::atomic::Ordering::SeqCst);
    }
}

/// Returns a description of one repository.
pub(crate) fn description(repository: &str, key: &Path, packages: &str) -> String {
    format!(
        "contents:\n  keyring: ['{}']\n  repositories: ['{repository}']\n  packages: [{packages}]\n\
         archs: [amd64]\n",
        key.display()
    )
}

pub(crate) fn alpine_key() -> Option<PathBuf> {
    data("alpine-v3.19/keys/alpine-devel@lists.alpinelinux.org-6165ee59.rsa.pub")
}

fn test_key() -> Option<PathBuf> {
    data("alpine-branches/keys/TEST-ONLY.rsa.pub")
}

/// Returns two branches, the older one 3.19, and the key of both.
fn branches(newer: &str) -> Option<(PathBuf, PathBuf, PathBuf)> {
    let old = data("alpine-branches/v3.19.4")?;
    let new = data(&format!("alpine-branches/{newer}"))?;
    Some((old, new, test_key()?))
}

#[test]
fn the_lock_file_is_apkos() {
    let Some(desk) = Desk::apko() else { return };
    let theirs: serde_json::Value =
        serde_json::from_str(&desk.read("apko.lock.json")).expect("JSON");
    desk.run(&["lock", "apko.yaml"]).good();
    let text = desk.read("apko.lock.json");
    let mut ours: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    let object = ours.as_object_mut().expect("an object");
    assert!(object.remove("x").is_some());
    for package in ours["contents"]["packages"].as_array_mut().expect("a list") {
        let package = package.as_object_mut().expect("an object");
        assert!(package.remove("x").is_some());
    }
    // The order of keys counts, too.
    let pretty = |json: &serde_json::Value| serde_json::to_string_pretty(json).expect("JSON");
    assert_eq!(pretty(&ours), pretty(&theirs));
    desk.run(&["lock", "--check", "apko.yaml"]).good();
    desk.run(&["lock", "apko.yaml"]).good();
    assert_eq!(desk.read("apko.lock.json"), text, "the same bytes again");
}

#[test]
fn apkos_own_lock_files_are_read() {
    let Some(desk) = Desk::apko() else { return };
    let locked = ["show-packages", "--locked", "apko.yaml", "--arch", "arm64"];
    assert_eq!(
        desk.run(&locked).good(),
        "pretend-baselayout 1.0.0-r0\nreplayout 1.0.0-r0\n"
    );
    let old = [
        "show-packages",
        "--lockfile",
        "apko.pre-0.13.lock.json",
        "apko.yaml",
    ];
    desk.run(&old).error(
        2,
        "error[E-LOCK]: apko.pre-0.13.lock.json: package pretend-baselayout-1.0.0-r0 has no checksum",
    );
}

#[test]
fn packages_are_listed_in_every_form() {
    let Some(desk) = Desk::apko() else { return };
    let url = "./testdata/packages/x86_64/replayout-1.0.0-r0.apk";
    for (format, last) in [
        ("name-version", "replayout 1.0.0-r0".to_owned()),
        ("name=version", "replayout=1.0.0-r0".to_owned()),
        (
            "name-(version)-source",
            format!("replayout (1.0.0-r0) {url}"),
        ),
        (
            "packagelock-source",
            format!("- replayout=1.0.0-r0 # {url}"),
        ),
        (
            "{{ .Name }}~{{.Version}}!",
            "replayout~1.0.0-r0!".to_owned(),
        ),
    ] {
        let list = [
            "show-packages",
            "apko.yaml",
            "--arch",
            "x86_64",
            "--format",
            format,
        ];
        let said = desk.run(&list).good();
        assert_eq!(said.lines().last(), Some(last.as_str()), "{format}");
    }
    let json = desk.run(&["show-packages", "apko.yaml", "--json"]).good();
    let json: serde_json::Value = serde_json::from_str(&json).expect("JSON");
    assert_eq!(json[1]["packages"][0]["name"], "pretend-baselayout");
}

#[test]
fn show_config_lint_and_schema() {
    let Some(desk) = Desk::apko() else { return };
    let shown = desk.run(&["show-config", "layering.yaml"]).good();
    assert!(
        shown.contains("  runtime_repositories:\n    - apk.cgr.dev/runtime-only-repo\n"),
        "{shown}"
    );
    assert!(
        shown.contains("layering:\n  strategy: origin\n  budget: 2\n"),
        "{shown}"
    );
    desk.write("again.yaml", &shown);
    assert_eq!(desk.run(&["show-config", "again.yaml"]).good(), shown);
    desk.write(
        "odd.yaml",
        "paths: [{path: /a, type: directory}]\nx-build: {scripts: skip}\nos-release: {id: x}\n\
         accounts: {run-as: ghost}\n",
    );
    let found = desk.run(&["lint", "--apko", "odd.yaml"]).good();
    for code in [
        "W-OLD-FIELD",
        "W-NO-REPOSITORY",
        "W-RUNAS-UNKNOWN",
        "W-APKO: x-build",
        "W-APKO: paths[0]",
    ] {
        assert!(found.contains(code), "{code} in {found}");
    }
    assert_eq!(desk.run(&["lint", "--strict", "odd.yaml"]).code, 1);
    let schema: serde_json::Value =
        serde_json::from_str(&desk.run(&["schema"]).good()).expect("JSON");
    assert_eq!(
        schema["properties"]["contents"]["additionalProperties"],
        false
    );
}

#[test]
fn explain_and_dot() {
    let Some(desk) = Desk::apko() else { return };
    let why = desk
        .run(&[
            "explain",
            "apko.yaml",
            "pretend-baselayout",
            "--arch",
            "amd64",
        ])
        .good();
    assert_eq!(
        why,
        "pretend-baselayout-1.0.0-r0 is in the image because\n  \
         the description wants replayout: replayout-1.0.0-r0\n  \
         replayout-1.0.0-r0 needs pretend-baselayout: pretend-baselayout-1.0.0-r0\n"
    );
    let dot = desk.run(&["dot", "apko.yaml", "--arch", "amd64"]).good();
    assert!(
        dot.contains(
            "\"replayout-1.0.0-r0\" -> \"pretend-baselayout-1.0.0-r0\" [label=dependency];"
        )
    );
}

#[test]
fn a_path_is_explained() {
    let (Some(repository), Some(key)) = (data("alpine-v3.19"), alpine_key()) else {
        return;
    };
    let desk = Desk::empty();
    let text = description(&repository.display().to_string(), &key, "alpine-base");
    desk.write(
        "a.yaml",
        &format!("{text}paths:\n- {{path: /etc/passwd, type: permissions}}\n"),
    );
    let why = desk.run(&["explain", "a.yaml", "/etc/passwd"]).good();
    assert!(
        why.starts_with("/etc/passwd is changed by paths[0] (line 7): permissions\n"),
        "{why}"
    );
    assert!(
        why.contains("/etc/passwd is in alpine-baselayout-data-"),
        "{why}"
    );
    assert!(
        why.contains("  the description wants alpine-base: alpine-base-"),
        "{why}"
    );
    let lost = desk.run(&["explain", "a.yaml", "/no/where"]);
    assert_eq!(lost.code, 1);
}

#[test]
fn builds_go_on_when_the_mirror_has_moved() {
    let Some((old, new, key)) = branches("edge") else {
        return;
    };
    let desk = Desk::empty();
    let mirror = desk.path().join("mirror");
    copy(&old.join("x86_64"), &mirror.join("x86_64"));
    let server = Server::start(mirror.clone());
    desk.write(
        "a.yaml",
        &description(&server.address, &key, "busybox-binsh"),
    );
    desk.run(&["lock", "a.yaml"]).good();
    let locked = desk.read("a.lock.json");
    let list = desk.run(&["show-packages", "a.yaml"]).good();
    assert!(list.contains("busybox 1.36.1-r19"), "{list}");
    desk.run(&["fetch", "a.lock.json", "--to", "kept"]).good();
    // The mirror moves on.
    fs::remove_dir_all(mirror.join("x86_64")).expect("a folder");
    copy(&new.join("x86_64"), &mirror.join("x86_64"));
    assert!(
        desk.run(&["show-packages", "a.yaml"])
            .good()
            .contains("busybox 1.36.1-r32")
    );
    // The cache has the locked files, with and without a network.
    for more in [&[][..], &["--offline"]] {
        let words = [&["show-packages", "--locked", "a.yaml"], more].concat();
        assert_eq!(desk.run(&words).good(), list);
    }
    // So has the folder of copies.
    fs::remove_dir_all(desk.cache()).expect("a cache");
    let kept = ["show-packages", "--locked", "a.yaml", "--kept", "kept"];
    assert_eq!(desk.run(&kept).good(), list);
    let repository = fs::read(desk.path().join("kept/x86_64/APKINDEX.tar.gz")).expect("an index");
    assert!(!repository.is_empty());
    // And a mirror that still has them.
    let copies = Server::start(desk.path().join("kept"));
    fs::remove_dir_all(desk.cache()).ok();
    let mirrored = format!("{}={}", server.address, copies.address);
    let words = ["show-packages", "--locked", "a.yaml", "--mirror", &mirrored];
    assert_eq!(desk.run(&words).good(), list);
    // Without any of them it is told what to do.
    fs::remove_dir_all(desk.cache()).ok();
    let lost = desk.run(&["show-packages", "--locked", "a.yaml"]);
    let line = format!(
        "error[E-PKG-GONE]: {} is no longer at {}/x86_64",
        first_file(&locked),
        server.address
    );
    let lost = lost.error(1, &line);
    assert!(
        lost.err.contains("hint: move it: ibex image lock --update"),
        "{}",
        lost.err
    );
    // A damaged copy in a folder is not taken.
    let file = desk.path().join("kept/x86_64").join(first_file(&locked));
    let mut bytes = fs::read(&file).expect("a copy");
    bytes[700] ^= 1;
    fs::write(&file, bytes).expect("a file");
    fs::remove_dir_all(desk.path().join("kept/sha256")).expect("a folder");
    let damaged = desk.run(&kept);
    assert!(
        damaged.err.contains("does not match the lock"),
        "{}",
        damaged.err
    );
    assert_eq!(damaged.code, 5);
}

/// Returns the file name of the first package of a lock file.
fn first_file(lock: &str) -> String {
    let lock: serde_json::Value = serde_json::from_str(lock).expect("JSON");
    let url = lock["contents"]["packages"][0]["url"]
        .as_str()
        .expect("a URL")
        .to_owned();
    url.rsplit('/').next().expect("a name").to_owned()
}

#[test]
fn update_moves_only_what_is_named() {
    let Some((old, new, key)) = branches("v3.20") else {
        return;
    };
    let desk = Desk::empty();
    desk.write(
        "a.yaml",
        &description(
            &old.display().to_string(),
            &key,
            "zlib, musl, ca-certificates-bundle",
        ),
    );
    desk.run(&["lock", "a.yaml"]).good();
    let versions = |desk: &Desk| -> BTreeMap<String, String> {
        let lock: serde_json::Value =
            serde_json::from_str(&desk.read("a.lock.json")).expect("JSON");
        let packages = lock["contents"]["packages"].as_array().expect("a list");
        let pair = |p: &serde_json::Value| {
            (
                p["name"].as_str().expect("a name").to_owned(),
                p["version"].as_str().expect("one").to_owned(),
            )
        };
        packages.iter().map(pair).collect()
    };
    let before = versions(&desk);
    let both = format!(
        "contents:\n  keyring: ['{}']\n  repositories: ['{}', '{}']\n  \
         packages: [zlib, musl, ca-certificates-bundle]\narchs: [amd64]\n",
        key.display(),
        old.display(),
        new.display()
    );
    desk.write("a.yaml", &both);
    desk.run(&["lock", "--update", "zlib", "a.yaml"]).good();
    let after = versions(&desk);
    assert_eq!(after["zlib"], "1.3.1-r1");
    assert_eq!(after["musl"], before["musl"]);
    assert_eq!(
        after["ca-certificates-bundle"],
        before["ca-certificates-bundle"]
    );
    desk.run(&["lock", "--check", "a.yaml"]).error(
        3,
        "error[E-LOCK-DIFFERS]: a.lock.json is not what would be written now",
    );
    desk.run(&["lock", "--update", "nothing", "a.yaml"]).error(
        2,
        "error[E-USAGE]: --update: \"nothing\" is not in the lock file",
    );
}

#[test]
fn ranges_are_chosen_and_recorded() {
    let Some((old, new, key)) = branches("edge") else {
        return;
    };
    let desk = Desk::empty();
    let repositories = format!("{}', '{}", old.display(), new.display());
    let text = description(&repositories, &key, "'libcrypto3@^3.1', 'zlib@~1.3.1'");
    desk.write("a.yaml", &text.replace("@^3.1", "@>=3.1, <3.2"));
    desk.run(&["lock", "a.yaml"]).good();
    let lock: serde_json::Value = serde_json::from_str(&desk.read("a.lock.json")).expect("JSON");
    assert_eq!(
        lock["x"]["ranges"]["libcrypto3@>=3.1, <3.2"],
        serde_json::json!(["libcrypto3>=3.1", "libcrypto3<3.2_alpha"])
    );
    let list = desk.run(&["show-packages", "--locked", "a.yaml"]).good();
    assert!(list.contains("libcrypto3 3.1.7-r0\n"), "{list}");
    desk.write("b.yaml", &text);
    let list = desk.run(&["show-packages", "b.yaml"]).good();
    assert!(list.contains("libcrypto3 3.3.2-r1\n"), "{list}");
}

#[test]
fn architectures_get_the_same_versions() {
    let Some(key) = test_key() else { return };
    let (Some(branch), Some(newer)) = (data("alpine-branches/v3.20"), data("alpine-branches/edge"))
    else {
        return;
    };
    let desk = Desk::empty();
    // x86_64 has a newer zlib in a second repository that aarch64 has in the old version only.
    let second = desk.path().join("second");
    copy(&newer.join("x86_64"), &second.join("x86_64"));
    copy(&branch.join("aarch64"), &second.join("aarch64"));
    let text = description(&format!("{}', './second", branch.display()), &key, "zlib");
    let text = text.replace("[amd64]", "[amd64, arm64]");
    desk.write("a.yaml", &text);
    let list = desk.run(&["show-packages", "a.yaml"]).good();
    assert_eq!(list.matches("zlib 1.3.1-r1\n").count(), 2, "{list}");
    let each = desk.run(&["show-packages", "--arch-policy", "per-arch", "a.yaml"]);
    assert!(
        each.err
            .contains("W-ARCH-DIFF: zlib differs per architecture: "),
        "{}",
        each.err
    );
    assert!(each.good().contains("zlib 1.3.1-r2\n"));
    desk.write(
        "b.yaml",
        &text.replace(&format!("'{}', ", branch.display()), ""),
    );
    desk.run(&["show-packages", "b.yaml"]).error(
        4,
        "error[E-ARCH-VERSION]: zlib resolves to different versions per architecture",
    );
}

/// What provokes an error, and what it says first.
struct Case {
    text: String,
    words: &'static [&'static str],
    exit: i32,
    line: String,
}

#[test]
fn every_error_of_the_package_half() {
    let (Some(alpine), Some(key)) = (data("alpine-v3.19"), alpine_key()) else {
        return;
    };
    let Some(wolfi) = data("wolfi") else { return };
    let desk = Desk::empty();
    let good = |packages: &str| description(&alpine.display().to_string(), &key, packages);
    let list: &[&str] = &["show-packages", "a.yaml"];
    let alpine = alpine.display();
    // An index whose signer has the name of another key.
    let hello = desk.path().join("hello/aarch64");
    fs::create_dir_all(&hello).expect("directories");
    fs::copy(
        wolfi.join("index-aarch64/APKINDEX.tar.gz"),
        hello.join("APKINDEX.tar.gz"),
    )
    .expect("a copy");
    let cases = [
        Case {
            text: "a: [\n".to_owned(),
            words: list,
            exit: 2,
            line: "error[E-YAML]: a.yaml:2:1: while parsing a node, did not find expected node content".into(),
        },
        Case {
            text: "contents: {pacakges: []}\n".to_owned(),
            words: list,
            exit: 2,
            line: "error[E-FIELD]: a.yaml:1:12: unknown field \"pacakges\" in contents; did you mean \
                   \"packages\"?"
                .into(),
        },
        Case {
            text: "include: base.yaml\n".to_owned(),
            words: list,
            exit: 2,
            line: "error[E-INCLUDE]: include \"base.yaml\" not found (looked in .)".into(),
        },
        Case {
            text: good("musl"),
            words: &["show-packages", "--arch", "amd65", "a.yaml"],
            exit: 2,
            line: "error[E-ARCH]: unknown architecture \"amd65\"; known: 386, amd64, arm/v6, arm/v7, \
                   arm64, loong64, ppc64le, riscv64, s390x"
                .into(),
        },
        Case {
            text: good("busybux"),
            words: list,
            exit: 4,
            line: "error[E-NOSUCH]: no package or provider named \"busybux\" in 1 repository for \
                   x86_64; similar: busybox"
                .into(),
        },
        Case {
            text: good("alpine-base, '!musl'"),
            words: list,
            exit: 4,
            line: "error[E-SOLVE]: cannot satisfy: alpine-conf-3.17.2-r0 needs \
                   so:libc.musl-x86_64.so.1: only musl-1.2.4_git20230717-r4 answers that"
                .into(),
        },
        Case {
            text: good("musl").replace("[amd64]", "[arm64]"),
            words: list,
            exit: 1,
            line: format!(
                "error[E-INDEX]: cannot read {alpine}/aarch64/APKINDEX.tar.gz: No such file or \
                 directory; this repository has: x86_64"
            ),
        },
        Case {
            text: good("musl").replace(&format!("'{}'", key.display()), ""),
            words: list,
            exit: 5,
            line: format!(
                "error[E-SIG-KEY]: index {alpine}/x86_64/APKINDEX.tar.gz is signed by \
                 \"alpine-devel@lists.alpinelinux.org-6165ee59.rsa.pub\", which is not in the keyring"
            ),
        },
        Case {
            text: description("./hello", &wolfi.join("keys/melange.rsa.pub"), "a").replace("amd64", "arm64"),
            words: list,
            exit: 5,
            line: "error[E-SIG-BAD]: index ./hello/aarch64/APKINDEX.tar.gz has a bad signature by \
                   melange.rsa.pub"
                .into(),
        },
        Case {
            text: good("musl").replace("alpine-devel", "nobody"),
            words: list,
            exit: 2,
            line: format!(
                "error[E-KEYRING]: keyring: cannot read \"{}\": No such file or directory",
                key.display().to_string().replace("alpine-devel", "nobody")
            ),
        },
        Case {
            text: good("musl"),
            words: &["show-packages", "--locked", "a.yaml"],
            exit: 3,
            line: "error[E-LOCK-MISSING]: no lock file beside a.yaml".into(),
        },
        Case {
            text: description("http://127.0.0.1:9", &key, "musl"),
            words: &["show-packages", "--offline", "a.yaml"],
            exit: 1,
            line: "error[E-OFFLINE-MISS]: offline: 1 file is not in the cache".into(),
        },
        Case {
            text: good("musl") + "paths: [{path: a, type: symlink}]\n",
            words: list,
            exit: 2,
            line: "error[E-PATH]: paths[0] (line 6): symlink a: source is missing".into(),
        },
        Case {
            text: good("musl") + "accounts: {users: [{username: a, uid: 0}]}\n",
            words: list,
            exit: 2,
            line: "error[E-ACCOUNT]: accounts.users[0]: uid is 0; use run-as: 0 to run as root".into(),
        },
        Case {
            text: good("musl") + "entrypoint: {command: '/bin/sh -c \"x'}\n",
            words: list,
            exit: 2,
            line: "error[E-QUOTE]: entrypoint.command: unfinished double quote at column 12".into(),
        },
        Case {
            text: good("musl") + "certificates: {additional: [{name: .x, content: ''}]}\n",
            words: list,
            exit: 2,
            line: "error[E-CERT]: certificates.additional[0]: name \".x\" must match \
                   [A-Za-z0-9_-][A-Za-z0-9_.-]*"
                .into(),
        },
        Case {
            text: format!("cmd: '{}'\n", "x".repeat(5 << 20)),
            words: list,
            exit: 1,
            line: "error[E-LIMIT]: a.yaml is too large: more than 4194304 bytes".into(),
        },
        Case {
            text: "contents: {repositories: ['http://u:p@h']}\n".to_owned(),
            words: &["lint", "--strict", "a.yaml"],
            exit: 2,
            line: "error[E-SECRET-URL]: contents.repositories: http://h carries credentials".into(),
        },
    ];
    for case in cases {
        desk.write("a.yaml", &case.text);
        let said = desk.run(case.words).error(case.exit, &case.line);
        assert!(said.out.is_empty(), "{}", said.out);
    }
}

#[test]
fn signatures_over_sha1_are_told_and_can_be_refused() {
    let Some(desk) = Desk::empty_with_alpine("musl") else {
        return;
    };
    let alpine = data("alpine-v3.19").expect("it is there");
    let index = format!("index {}/x86_64/APKINDEX.tar.gz", alpine.display());
    let signer = "alpine-devel@lists.alpinelinux.org-6165ee59.rsa.pub";
    let list = |more: &[&str]| desk.run(&[&["show-packages", "a.yaml"], more].concat());
    let told = format!("{index}: the signature of {signer} is over SHA-1\n");
    let refused = format!("error[E-SIG-SHA1]: {index} is signed by \"{signer}\" over SHA-1 only");
    // Whether the index is read for the first time, or was kept parsed.
    for _ in 0..2 {
        list(&["--require-sha256"]).error(5, &refused);
        let said = list(&["--log-level", "info"]);
        assert!(said.err.contains(&told), "{}", said.err);
        let quiet = list(&[]);
        assert!(!quiet.err.contains("SHA-1"), "{}", quiet.err);
        quiet.good();
    }
    // The lock file says what the index was, and whose.
    desk.run(&["lock", "a.yaml"]).good();
    let lock: serde_json::Value = serde_json::from_str(&desk.read("a.lock.json")).expect("JSON");
    let mut sum = Command::new("sha256sum");
    let sum = run(sum.arg(alpine.join("x86_64/APKINDEX.tar.gz"))).success();
    let locked = &lock["x"]["indexes"][0];
    assert_eq!(locked["signer"], signer);
    assert_eq!(locked["sha256"].as_str(), sum.output.split(' ').next());
    // Others sign over SHA-256 today.
    let Some(apko) = Desk::apko() else { return };
    let said = apko.run(&["show-packages", "--require-sha256", "apko.yaml", "-v"]);
    assert!(!said.err.contains("SHA-1"), "{}", said.err);
    said.good();
}

#[test]
fn lint_names_every_problem() {
    let desk = Desk::empty();
    desk.write(
        "a.yaml",
        "contents:\n  repositories: ['https://me:secret@h.example/a', b, b]\n  \
         packages: [x, x, y@edge]\nentrypoint: {type: service-bundle}\n---\nmore: 1\n",
    );
    let said = desk.run(&["lint", "a.yaml"]).good();
    let wanted = [
        "W-DOCUMENTS: a.yaml: only the first document is used",
        "W-SECRET-URL: contents.repositories: https://h.example/a carries credentials",
        "W-TWICE: contents.repositories: b is there twice",
        "W-TWICE: contents.packages: x is there twice",
        "W-NO-TAG: contents.packages: no repository has the tag @edge of y@edge",
        "W-NO-SERVICES: a service bundle without services",
    ];
    assert_eq!(said.lines().collect::<Vec<_>>(), wanted);
    desk.write("b.yaml", "contents: {repositories: [a], packages: [x]}\n");
    let said = desk.run(&["lint", "b.yaml"]).good();
    assert_eq!(said, "W-NO-COMMAND: neither entrypoint nor cmd\n");
}

#[test]
fn packages_of_both_forms_make_one_image() {
    let (Some(v3), Some(alpine), Some(key)) = (data("apk-v3"), data("alpine-v3.19"), alpine_key())
    else {
        return;
    };
    let desk = Desk::empty();
    copy(&v3.join("melmac"), &desk.path().join("new/x86_64"));
    copy(&v3.join("standins"), &desk.path().join("standins"));
    let served = Server::start(desk.path());
    // Without an `APKINDEX.tar.gz`, and named; from the disk, and from a server.
    let mut images = Vec::new();
    for (repository, standins) in [
        ("./new".to_owned(), "./standins/packages.adb".to_owned()),
        (
            format!("{}/new", served.address),
            format!("{}/standins/packages.adb", served.address),
        ),
    ] {
        let keys = [
            key.clone(),
            v3.join("melmac/apk.mossdef.org.pem"),
            test_key().expect("a key"),
        ];
        let lines = |texts: &[String]| {
            texts
                .iter()
                .map(|t| format!("    - {t}\n"))
                .collect::<String>()
        };
        let text = format!(
            "contents:\n  repositories:\n{}  keyring:\n{}  packages: [zlib, moci, sunwait]\n\
             archs: [x86_64]\nentrypoint: {{command: /bin/true}}\n",
            lines(&[alpine.display().to_string(), repository.clone(), standins]),
            lines(&keys.map(|key| key.display().to_string())),
        );
        desk.write("a.yaml", &text);
        desk.run(&["lock", "a.yaml"]).good();
        let lock: serde_json::Value =
            serde_json::from_str(&desk.read("a.lock.json")).expect("JSON");
        let packages = lock["contents"]["packages"].as_array().expect("packages");
        assert_eq!(packages.len(), 7);
        for package in packages {
            let old = matches!(package["name"].as_str(), Some("zlib" | "musl"));
            assert_eq!(
                package["x"]["format"],
                if old { "v2" } else { "v3" },
                "{package}"
            );
            assert_eq!(package["control"].is_object(), old, "{package}");
            assert_eq!(package["data"].is_object(), old, "{package}");
            assert_eq!(
                package["x"]["sha256"].as_str().map(str::len),
                Some(64),
                "{package}"
            );
        }
        let index = format!("{repository}/x86_64/packages.adb");
        assert!(lock["x"]["indexes"].to_string().contains(&index), "{lock}");
        for words in [&["--locked"][..], &[]] {
            let words = [&["build", "a.yaml", "both:1", "both.tar"], words].concat();
            images.push(desk.run(&words).good());
            let bill = desk.read("sbom-x86_64.spdx.json");
            let bill: serde_json::Value = serde_json::from_str(&bill).expect("JSON");
            for package in bill["packages"].as_array().expect("packages") {
                let kinds: Vec<&str> = (package["checksums"].as_array().into_iter().flatten())
                    .filter_map(|sum| sum["algorithm"].as_str())
                    .collect();
                match package["name"].as_str() {
                    Some("moci" | "sunwait") => assert_eq!(kinds, ["SHA256"], "{package}"),
                    Some("zlib") => assert_eq!(kinds, ["SHA1", "SHA256"], "{package}"),
                    Some("libc" | "rpcd") => assert!(kinds.is_empty(), "{package}"),
                    _ => {}
                }
            }
        }
    }
    assert_eq!(images[0], images[1]);
    assert_eq!(images[2], images[3]);
    // Which of the two indexes is missing is told.
    fs::remove_file(desk.path().join("new/x86_64/packages.adb")).expect("it was copied");
    desk.write("a.yaml", &description("./new", &key, "moci"));
    let said = desk.run(&["show-packages", "a.yaml"]);
    assert!(said.err.contains("APKINDEX.tar.gz"), "{}", said.err);
}

#[test]
fn a_mirror_that_lacks_a_package_is_helped_by_the_next() {
    let (Some(alpine), Some(key)) = (data("alpine-v3.19"), alpine_key()) else {
        return;
    };
    let desk = Desk::empty();
    let only_index = desk.path().join("only-index/x86_64");
    fs::create_dir_all(&only_index).expect("directories");
    let index = alpine.join("x86_64/APKINDEX.tar.gz");
    fs::copy(index, only_index.join("APKINDEX.tar.gz")).expect("a copy");
    let first = Server::start(desk.path().join("only-index"));
    let second = Server::start(alpine);
    let original = "https://mirror.invalid/alpine/v3.19/main";
    desk.write("a.yaml", &description(original, &key, "musl"));
    let mirrors = [&first, &second].map(|server| format!("--mirror={original}={}", server.address));
    let build = |mirrors: &[String]| {
        let mut command = desk.command(&["rootfs", "a.yaml", "out.tar", "--no-cache"]);
        said(command.args(mirrors))
    };
    assert_eq!(build(&mirrors[..1]).code, 1);
    build(&mirrors).good();
    // A server in trouble is no better than one without the file.
    first.answer_only(503);
    build(&mirrors).good();
}

#[test]
fn without_a_place_for_a_cache_nothing_is_kept() {
    let Some(desk) = Desk::empty_with_alpine("musl") else {
        return;
    };
    let run = |place: &str, words: &[&str]| {
        let mut command = desk.command(words);
        said(command.env("IBEX_CACHE_DIR", place))
    };
    let build = ["rootfs", "a.yaml", "out.tar"];
    let built = run("/proc/nowhere", &build);
    let warning = "warning: W-NO-CACHE: there is no place for a cache, so nothing is kept: \
                   /proc/nowhere: ";
    assert!(built.err.contains(warning), "{}", built.err);
    built.good();
    // What was asked for by name must be there; what nobody wants is not missed.
    let asked = run(
        "/proc/nowhere",
        &[&build[..], &["--cache-dir", "/proc/nowhere"]].concat(),
    );
    assert_eq!(asked.code, 1, "{}", asked.err);
    let unwanted = run("/proc/nowhere", &[&build[..], &["--no-cache"]].concat());
    assert!(!unwanted.err.contains("W-NO-CACHE"), "{}", unwanted.err);
    unwanted.good();
}

#[test]
fn stale_locks_are_refused() {
    let Some(desk) = Desk::apko() else { return };
    desk.run(&["lock", "apko.yaml"]).good();
    let text = desk.read("apko.yaml");
    desk.write("apko.yaml", &text.replace('\n', "\r\n"));
    let list = ["show-packages", "--locked", "apko.yaml"];
    let stale = desk.run(&list);
    let line = "error[E-LOCK-STALE]: apko.lock.json was made from a different apko.yaml";
    let stale = stale.error(3, line);
    assert!(
        stale.err.contains("only the line endings differ"),
        "{}",
        stale.err
    );
    desk.write("apko.yaml", &format!("{text}\ncmd: x\n"));
    let stale = desk.run(&list).error(3, line);
    assert!(
        stale.err.contains("hint: ibex image lock apko.yaml"),
        "{}",
        stale.err
    );
}

#[test]
fn servers_that_refuse() {
    let (Some(alpine), Some(key)) = (data("alpine-v3.19"), alpine_key()) else {
        return;
    };
    let desk = Desk::empty();
    let server = Server::start(alpine);
    desk.write("a.yaml", &description(&server.address, &key, "musl"));
    server.answer_only(401);
    let list = ["show-packages", "a.yaml"];
    let host = &server.address;
    desk.run(&list).error(
        6,
        &format!("error[E-AUTH]: {host} refused access (401); credentials: none"),
    );
    server.answer_only(0);
    desk.run(&list).good();
    let json = desk.run(&["show-packages", "--json", "--arch", "arm64", "a.yaml"]);
    let object: serde_json::Value = serde_json::from_str(&json.out).expect("JSON");
    assert_eq!(object["code"], "E-INDEX", "{}", json.out);
    assert_eq!(json.code, 1);
}

#[test]
fn a_package_that_is_not_what_the_index_says() {
    let (Some(branch), Some(key)) = (data("alpine-branches/v3.20"), test_key()) else {
        return;
    };
    let desk = Desk::empty();
    copy(&branch.join("x86_64"), &desk.path().join("r/x86_64"));
    let file = desk.path().join("r/x86_64/zlib-1.3.1-r1.apk");
    fs::copy(desk.path().join("r/x86_64/musl-1.2.5-r0.apk"), file).expect("a copy");
    desk.write("a.yaml", &description("./r", &key, "zlib"));
    let said = desk.run(&["lock", "a.yaml"]);
    assert_eq!(said.code, 5, "{}", said.err);
    assert!(
        said.err
            .contains("error[E-HASH]: zlib-1.3.1-r1.apk does not match the index: expected Q1"),
        "{}",
        said.err
    );
}

#[test]
fn wrong_command_lines() {
    let desk = Desk::empty();
    for (words, second) in [
        (
            &["lock", "--bad", "x"][..],
            "  usage: ibex image lock [OPTION]... CONFIG",
        ),
        (&["lock"], "  usage: ibex image lock [OPTION]... CONFIG"),
        (&["schema", "x"], "  usage: ibex image schema [OPTION]..."),
        (
            &["explain", "a"],
            "  usage: ibex image explain [OPTION]... CONFIG PATH-or-PACKAGE",
        ),
    ] {
        let said = desk.run(words);
        assert_eq!(
            (said.code, said.err.lines().nth(1)),
            (2, Some(second)),
            "{}",
            said.err
        );
    }
    desk.run(&["build", "a.yaml", "a:1", "a/", "--format", "erofs"])
        .error(2, "error[E-UNSUPPORTED]: --format erofs is not supported");
    assert_eq!(desk.run(&["nonsense"]).code, 2);
    assert_eq!(desk.run(&["show-packages", "--profile", "x", "a"]).code, 2);
    assert!(desk.run(&["lock", "--help"]).good().contains("--update"));
}

#[test]
fn what_is_known_of_a_file_is_not_believed_of_another() {
    let Some(repository) = data("alpine-v3.19") else {
        return;
    };
    let desk = Desk::empty();
    let key = alpine_key().expect("it is there");
    let own = desk.path().join("repository/x86_64");
    copy(&repository.join("x86_64"), &own);
    desk.write("a.yaml", &description("./repository", &key, "busybox"));
    let lock = || {
        desk.run(&["lock", "a.yaml"]).good();
        desk.read("a.lock.json")
    };
    // What was changed just now is not kept, but soon it is old enough.
    let first = lock();
    let packages = first.matches("\"checksum\": \"Q1").count();
    let parts = desk.cache().join("images/parts");
    let kept = (0..100).find_map(|_| {
        assert_eq!(lock(), first);
        let kept = parts.exists().then(|| super::image_build::walk(&parts))?;
        (kept.len() == packages).then_some(kept)
    });
    let kept = kept.expect("files grow old");
    assert_eq!(lock(), first);
    // What is damaged of it is read again.
    for path in &kept {
        let text = fs::read_to_string(path).expect("an entry");
        fs::write(path, text.replace("sha256", "sha265")).expect("an entry");
    }
    assert_eq!(lock(), first);
    // So is a file that was changed, though neither its size nor its time tells.
    let changed = own.join(first_file(&first));
    let time = fs::metadata(&changed)
        .and_then(|meta| meta.modified())
        .expect("a time");
    let mut bytes = fs::read(&changed).expect("a package");
    *bytes.last_mut().expect("it is not empty") ^= 1;
    fs::write(&changed, bytes).expect("a package");
    let file = fs::File::options().append(true).open(&changed);
    file.and_then(|file| file.set_modified(time))
        .expect("a time");
    let refused = desk.run(&["lock", "a.yaml"]);
    assert_eq!(refused.code, 5, "{}", refused.err);
    assert!(refused.err.contains("error[E-HASH]"), "{}", refused.err);
}
