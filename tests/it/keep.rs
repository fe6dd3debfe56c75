//! Repositories of one's own: `fetch --to`, `snapshot`, `serve`, and work without a network.

use crate::support::{self, Run, Sandbox};
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// A server that ends with the test.
struct Server {
    child: Child,
    address: String,
}

impl Server {
    fn start(directory: &Path) -> Self {
        let mut child = support::ibex()
            .args(["serve", "--listen", "127.0.0.1:0"])
            .arg(directory)
            .stdout(Stdio::piped())
            .spawn()
            .expect("the program starts");
        let mut line = String::new();
        let stdout = child.stdout.as_mut().expect("a pipe");
        BufReader::new(stdout).read_line(&mut line).expect("a line");
        let address = line.trim().rsplit("http://").next().expect("an address");
        Self {
            child,
            address: address.trim_end_matches('/').to_owned(),
        }
    }

    /// Asks for a path as it is; returns status, headers in lower case, and body.
    fn ask(&self, method: &str, path: &str, headers: &[(&str, &str)]) -> (u16, String, Vec<u8>) {
        let mut stream = TcpStream::connect(&self.address).expect("a connection");
        let mut request = format!("{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n");
        for (name, value) in headers {
            request += &format!("{name}: {value}\r\n");
        }
        request += "\r\n";
        stream.write_all(request.as_bytes()).expect("a request");
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).expect("an answer");
        let end = answer
            .windows(4)
            .position(|w| w == b"\r\n\r\n")
            .expect("a head");
        let head = String::from_utf8_lossy(&answer[..end]).to_lowercase();
        let status = head.split(' ').nth(1).and_then(|code| code.parse().ok());
        (status.expect("a status"), head, answer.split_off(end + 4))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended; then there is nothing left to do.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn header<'h>(head: &'h str, name: &str) -> &'h str {
    let mut lines = head.lines().filter_map(|line| line.split_once(": "));
    lines
        .find(|(known, _)| *known == name)
        .map_or("", |line| line.1)
}

#[test]
fn a_directory_is_served() {
    let sandbox = Sandbox::new();
    let folder = sandbox.beside("served");
    fs::create_dir_all(folder.join("x86_64")).expect("directories");
    let content: Vec<u8> = (0..300_000u32).map(|n| (n % 251) as u8).collect();
    fs::write(folder.join("x86_64/a+b.apk"), &content).expect("a file");
    fs::write(sandbox.beside("secret"), "secret").expect("a file");
    std::os::unix::fs::symlink("../secret", folder.join("out")).expect("a link");
    std::os::unix::fs::symlink("x86_64", folder.join("latest")).expect("a link");
    let server = Server::start(&folder);
    let path = "/x86_64/a%2Bb.apk";
    let (status, head, body) = server.ask("GET", path, &[]);
    assert_eq!((status, body.len()), (200, content.len()), "{head}");
    assert_eq!(body, content);
    assert_eq!(header(&head, "accept-ranges"), "bytes");
    let tag = header(&head, "etag").to_owned();
    let date = header(&head, "last-modified").to_owned();
    let (status, head, body) = server.ask("HEAD", path, &[]);
    assert_eq!(
        (status, header(&head, "content-length"), body.len()),
        (200, "300000", 0)
    );
    for (headers, wanted, range) in [
        (&[("Range", "bytes=0-9")][..], 206, 0..10),
        (&[("Range", "bytes=299990-")], 206, 299_990..300_000),
        (&[("Range", "bytes=-5")], 206, 299_995..300_000),
        (
            &[("Range", "bytes=100000-100002"), ("If-Range", &tag)],
            206,
            100_000..100_003,
        ),
        (
            &[("Range", "bytes=5-6"), ("If-Range", "\"other\"")],
            200,
            0..300_000,
        ),
        (&[("Range", "bytes=300000-")], 416, 0..0),
        (&[("If-None-Match", &tag)], 304, 0..0),
        (&[("If-None-Match", "\"other\"")], 200, 0..300_000),
        (
            &[("If-Modified-Since", "Thu, 01 Jan 1970 00:00:01 GMT")],
            200,
            0..300_000,
        ),
    ] {
        let (status, head, body) = server.ask("GET", path, headers);
        assert_eq!(status, wanted, "{headers:?}\n{head}");
        assert!(
            body == content[range.clone()],
            "{headers:?}: {} bytes",
            body.len()
        );
    }
    // The header was written down in lower case, dates are not.
    let date = httpdate::parse_http_date(&capitals(&date)).expect("a date");
    let date = httpdate::fmt_http_date(date);
    assert_eq!(
        server.ask("GET", path, &[("If-Modified-Since", &date)]).0,
        304
    );
    assert_eq!(server.ask("GET", "/latest/a+b.apk", &[]).0, 200);
    for bad in [
        "/",
        "/x86_64",
        "/nothing",
        "/out",
        "/../secret",
        "/%2e%2e/secret",
        "/x86_64/../../secret",
    ] {
        let (status, _, body) = server.ask("GET", bad, &[]);
        assert_eq!((status, body.len()), (404, 0), "{bad}");
    }
    assert_eq!(server.ask("POST", path, &[]).0, 405);
    // Many at once.
    std::thread::scope(|scope| {
        for _ in 0..32 {
            scope.spawn(|| assert!(server.ask("GET", path, &[]).2 == content));
        }
    });
}

/// Gives a date in lower case its capitals back.
fn capitals(date: &str) -> String {
    let word = |word: &str| match word {
        "gmt" => "GMT".to_owned(),
        word => {
            let (first, rest) = word.split_at(word.len().min(1));
            first.to_uppercase() + rest
        }
    };
    date.split(' ').map(word).collect::<Vec<_>>().join(" ")
}

/// A root with a few packages of a repository.
struct Case {
    sandbox: Sandbox,
    repository: PathBuf,
    key: PathBuf,
}

impl Case {
    fn new() -> Option<Self> {
        let repository = support::data("alpine-v3.19")?;
        let key = support::data("alpine-branches/keys/TEST-ONLY.rsa")?;
        let sandbox = Sandbox::new();
        sandbox.trust(&["alpine-v3.19/keys"])?;
        Some(Self {
            sandbox,
            repository,
            key,
        })
    }

    fn path(&self, name: &str) -> String {
        self.sandbox
            .beside(name)
            .to_str()
            .expect("a plain path")
            .to_owned()
    }

    fn run(&self, words: &[&str]) -> Run {
        let repository = self.repository.to_str().expect("a plain path");
        let base = ["--arch", "x86_64", "-X", repository];
        self.sandbox.run(base.iter().chain(words))
    }

    fn install(&self, packages: &[&str]) {
        let words = ["--no-scripts", "--initdb", "--usermode=auto", "add"];
        let words: Vec<&str> = words.iter().chain(packages).copied().collect();
        self.run(&words).success();
    }
}

#[test]
fn fetch_keeps_a_set_with_an_index_of_its_own() {
    let Some(case) = Case::new() else { return };
    let kept = case.path("kept");
    let key = case.key.to_str().expect("a plain path");
    let words = ["fetch", "-R", "--to", &kept, "--sign-key", key, "wget"];
    let run = case.run(&words).success();
    assert!(run.output.contains("Downloading wget-"), "{}", run.output);
    // Again, with more: what is there stays, the index has all.
    case.run(&[
        "fetch",
        "-q",
        "-R",
        "--to",
        &kept,
        "--sign-key",
        key,
        "zlib",
    ])
    .success();
    let public = Path::new(&kept).join("keys/TEST-ONLY.rsa.pub");
    let shipped = case.key.with_extension("rsa.pub");
    assert!(public.exists());
    assert_eq!(
        fs::read_to_string(public).expect("a key").replace('\n', ""),
        fs::read_to_string(shipped)
            .expect("a key")
            .replace('\n', "")
    );
    // Another root that trusts this key alone cannot take packages of unknown builders by file,
    // but by this index.
    let other = Sandbox::new();
    other.trust(&["alpine-branches/keys"]).expect("keys");
    let words = [
        "--arch",
        "x86_64",
        "-X",
        &kept,
        "--no-scripts",
        "--initdb",
        "--usermode=auto",
        "add",
        "wget",
        "zlib",
    ];
    let run = other.run(words).success();
    assert!(run.output.contains("Installing wget"), "{}", run.output);
}

#[test]
fn a_snapshot_serves_apk_and_ibex() {
    let Some(case) = Case::new() else { return };
    case.install(&["alpine-keys", "zlib", "wget"]);
    let place = case.path("snapshots");
    let key = case.key.to_str().expect("a plain path");
    let mut command = case.sandbox.ibex();
    command
        .env("SOURCE_DATE_EPOCH", "1700000000")
        .args(["--arch", "x86_64", "-X"])
        .arg(&case.repository)
        .args(["snapshot", "--sign-key", key, &place]);
    let run = support::run(&mut command).success();
    let target = format!("{place}/20231114T221320Z");
    assert!(
        run.output.ends_with(&format!("{target}\n")),
        "{}",
        run.output
    );
    let latest = fs::read_link(format!("{place}/latest")).expect("a link");
    assert_eq!(latest, Path::new("20231114T221320Z"));
    // The same second again is another snapshot, and nothing else is left of it.
    let again = support::run(&mut command).success();
    assert!(
        again.output.ends_with(&format!("{target}-2\n")),
        "{}",
        again.output
    );
    let latest = fs::read_link(format!("{place}/latest")).expect("a link");
    assert_eq!(latest, Path::new("20231114T221320Z-2"));
    let names = fs::read_dir(&place).expect("a directory").count();
    assert_eq!(names, 3, "only the snapshots and their link are there");

    // A lock file names the same packages.
    let packages: Vec<serde_json::Value> = support_installed(&case.sandbox)
        .into_iter()
        .map(|(name, version, checksum)| {
            serde_json::json!({
                "name": name, "version": version, "architecture": "x86_64", "checksum": checksum,
            })
        })
        .collect();
    // It also names the repository, which the root does not know.
    let index = case.repository.join("x86_64/APKINDEX.tar.gz");
    let lock = serde_json::json!({"version": "v1", "contents": {
        "packages": packages,
        "repositories": [{"name": "r", "url": index, "architecture": "x86_64"}],
    }});
    let lock_path = case.path("image.lock.json");
    fs::write(&lock_path, lock.to_string()).expect("a file");
    let locked = case.path("locked");
    let words = ["--arch", "x86_64", "snapshot", "--lock", &lock_path];
    let words = words.iter().copied();
    (case.sandbox.run(words.chain(["--sign-key", key, &locked]))).success();
    let count = |folder: &str| {
        fs::read_dir(format!("{folder}/x86_64"))
            .expect("a folder")
            .count()
    };
    assert_eq!(count(&format!("{locked}/latest")), count(&target));

    // The real apk installs from it over HTTP-less and from ibex's own server.
    if support::is_root()
        && let Some(real) = Sandbox::with_minirootfs("3.19.4")
    {
        let inside = real.root().join("srv");
        fs::create_dir_all(&inside).expect("a directory");
        support::run(
            Command::new("cp")
                .args(["-a", &target])
                .arg(inside.join("repo")),
        )
        .success();
        real.trust(&["alpine-branches/keys"]).expect("keys");
        let words = [
            "/sbin/apk",
            "--no-network",
            "--repositories-file",
            "/dev/null",
        ];
        let words: Vec<&str> = words
            .iter()
            .copied()
            .chain(["-X", "/srv/repo", "add", "wget"])
            .collect();
        let run = real.chroot(&words).success();
        assert!(run.output.contains("Installing wget"), "{}", run.output);
    }
    let server = Server::start(Path::new(&place));
    let other = Sandbox::new();
    other.trust(&["alpine-branches/keys"]).expect("keys");
    let url = format!("http://{}/latest", server.address);
    let words = [
        "--arch",
        "x86_64",
        "-X",
        &url,
        "--no-scripts",
        "--initdb",
        "--usermode=auto",
    ];
    let words: Vec<&str> = words.iter().copied().chain(["add", "wget"]).collect();
    let run = other.run(words).success();
    assert!(run.output.contains("Installing wget"), "{}", run.output);
}

/// Returns name, version and checksum of what is installed.
fn support_installed(sandbox: &Sandbox) -> Vec<(String, String, String)> {
    let text = sandbox.read("lib/apk/db/installed");
    let records = text
        .split("\n\n")
        .filter(|record| !record.trim().is_empty());
    let field = |record: &str, letter: &str| {
        let mut lines = record.lines().filter_map(|line| line.strip_prefix(letter));
        lines.next().expect("a field").to_owned()
    };
    records
        .map(|r| (field(r, "P:"), field(r, "V:"), field(r, "C:")))
        .collect()
}

#[test]
fn a_package_that_vanished_is_named() {
    // What is in this root is newer than the repository.
    let (Some(case), Some(real)) = (Case::new(), Sandbox::with_minirootfs("3.19.4")) else {
        return;
    };
    let place = case.path("snapshots");
    let repository = case.repository.to_str().expect("a plain path");
    let key = case.key.to_str().expect("a plain path");
    real.repositories(&[]);
    let run = real.run(["-X", repository, "snapshot", "--sign-key", key, &place]);
    let wanted = "no repository that can be reached has it any more";
    assert!(run.output.contains(wanted), "{}", run.output);
    assert_ne!(run.code, 0);
    assert!(!Path::new(&place).exists());
}

#[test]
fn a_key_is_made_when_there_is_none() {
    let Some(case) = Case::new() else { return };
    let key = case.path("own/new.rsa");
    let kept = case.path("kept");
    case.run(&["fetch", "-q", "--to", &kept, "--sign-key", &key, "zlib"])
        .success();
    use std::os::unix::fs::PermissionsExt;
    let mode = fs::metadata(&key).expect("a key").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let other = Sandbox::new();
    let keys = other.root().join("etc/apk/keys");
    fs::create_dir_all(&keys).expect("directories");
    fs::copy(format!("{kept}/keys/new.rsa.pub"), keys.join("new.rsa.pub")).expect("a copy");
    let run = other
        .run(["--arch", "x86_64", "-X", &kept, "search", "zlib"])
        .success();
    assert!(run.output.contains("zlib-"), "{}", run.output);
}

#[test]
fn without_a_network_the_cache_is_enough() {
    let Some(case) = Case::new() else { return };
    if !support::is_root() {
        return;
    }
    let server = Server::start(&case.repository);
    let url = format!("http://{}", server.address);
    let cache = case.path("cache");
    fs::create_dir(&cache).expect("a new directory");
    let add = |root: &Sandbox, offline: bool, extra: &[&str], package: &str| {
        let mut command = match offline {
            true => {
                let mut command = Command::new("unshare");
                command.args(["--net", env!("CARGO_BIN_EXE_ibex")]);
                command.arg("--root").arg(root.root()).arg("--no-network");
                command
            }
            false => root.ibex(),
        };
        // The packages must come from this cache, not from the one that the tests share.
        command.env("IBEX_CACHE_DIR", case.sandbox.beside("catalogue"));
        command.args(["--arch", "x86_64", "--cache-dir", &cache, "-X", &url]);
        command
            .args(["--no-scripts", "--initdb", "add"])
            .args(extra)
            .arg(package);
        support::run(&mut command)
    };
    add(&case.sandbox, false, &[], "zlib").success();
    let fresh = || {
        let sandbox = Sandbox::new();
        sandbox.trust(&["alpine-v3.19/keys"]).expect("keys");
        sandbox
    };
    let run = add(&fresh(), true, &[], "zlib").success();
    assert!(run.output.contains("Installing zlib"), "{}", run.output);
    // What is not in the cache is refused with a reason, and nothing waits for a network.
    let other = fresh();
    let run = add(&other, true, &[], "wget");
    assert_ne!(run.code, 0, "{}", run.output);
    assert!(!other.root().join("usr/bin/wget").exists());
    let run = add(&fresh(), true, &["--no-cache"], "zlib");
    assert_ne!(run.code, 0, "{}", run.output);
}

#[test]
fn what_vanished_comes_from_the_cache() {
    use crate::support::mirror::Mirror;
    use crate::support::repository::{Repository, file, package};
    let sandbox = Sandbox::new();
    let made = |version: &str| package("tool", version, vec![file("tool", version)]);
    let mut repository = Repository::new(&sandbox);
    repository.add(&made("1.0-r0"));
    repository.publish(1_600_000_000);
    let mirror = Mirror::of(repository.path());
    let ibex = |words: &[&str]| {
        let mut command = sandbox.ibex();
        command.env("IBEX_CACHE_DIR", sandbox.beside("store"));
        command.args(["--arch", "x86_64", "-X", &mirror.url()]);
        support::run(command.args(words))
    };
    ibex(&["add", "--initdb", "--no-scripts", "tool"]).success();
    // The mirror has only the next version now.
    let mut next = Repository::new(&sandbox);
    next.add(&made("1.1-r0"));
    next.publish(1_600_000_100);
    fs::remove_file(next.file("tool-1.0-r0.apk")).expect("a file");
    ibex(&["update"]).success();
    let place = sandbox.beside("snapshots").display().to_string();
    let key = sandbox.beside("own.rsa").display().to_string();
    ibex(&["snapshot", "--sign-key", &key, &place]).success();
    let kept = sandbox.beside("snapshots").join("latest/x86_64");
    assert!(kept.join("tool-1.0-r0.apk").exists());
    // A lock file may name what is not installed; a name cannot lead out of the snapshot.
    let installed = support_installed(&sandbox);
    let (name, version, checksum) = installed.first().expect("a package");
    ibex(&["del", "--no-scripts", "tool"]).success();
    let lock = |name: &str| {
        let package = serde_json::json!({
            "name": name, "version": version, "architecture": "x86_64", "checksum": checksum,
        });
        let lock = serde_json::json!({"version": "v1", "contents": {"packages": [package]}});
        let path = sandbox.beside("image.lock.json");
        fs::write(&path, lock.to_string()).expect("a file");
        path.display().to_string()
    };
    let locked = sandbox.beside("locked").display().to_string();
    let words = [
        "snapshot",
        "--sign-key",
        &key,
        "--lock",
        &lock(name),
        &locked,
    ];
    ibex(&words).success();
    let kept = sandbox.beside("locked").join("latest/x86_64");
    assert!(kept.join("tool-1.0-r0.apk").exists());
    let outside = sandbox.beside("outside").display().to_string();
    let words = [
        "snapshot",
        "--sign-key",
        &key,
        "--lock",
        &lock("../tool"),
        &outside,
    ];
    assert_ne!(ibex(&words).code, 0);
    // Without the cache it is an error that names the package.
    let words = [
        "snapshot",
        "--sign-key",
        &key,
        "--lock",
        &lock(name),
        &place,
    ];
    let run = ibex(&[&["--no-cache"], &words[..]].concat());
    let wanted = "tool-1.0-r0: no repository that can be reached has it any more, and no cache";
    assert!(run.output.contains(wanted), "{}", run.output);
}

#[test]
fn packages_of_every_architecture_are_found_in_a_kept_repository() {
    // In Alpine's files they say noarch, in its indexes the architecture of the folder.
    let Some(repository) = support::data("alpine-v3.19") else {
        return;
    };
    let sandbox = Sandbox::new();
    sandbox.trust(&["alpine-v3.19/keys"]).expect("keys");
    let ibex = |source: &str, words: &[&str]| {
        let mut command = sandbox.ibex();
        command.env("IBEX_CACHE_DIR", sandbox.beside("store"));
        command.args(["--arch", "x86_64", "-X", source]);
        support::run(command.args(words))
    };
    let kept = sandbox.beside("kept").display().to_string();
    let key = sandbox.beside("own.rsa").display().to_string();
    let names = ["alpine-baselayout-data", "tzdata"];
    let source = repository.to_str().expect("a plain path");
    let words = ["fetch", "--to", &kept, "--sign-key", &key];
    ibex(source, &[&words[..], &names].concat()).success();
    let public = format!("{kept}/keys/own.rsa.pub");
    fs::copy(public, sandbox.root().join("etc/apk/keys/own.rsa.pub")).expect("a copy");
    let add = ["add", "--initdb", "--no-scripts"];
    ibex(&kept, &[&add[..], &names].concat()).success();
    assert!(sandbox.root().join("etc/services").exists());
}

/// What is no regular file is written to; a name in its place would take a device or a pipe away
/// from all others.
#[test]
fn an_index_is_written_into_a_pipe_or_a_device() {
    let sandbox = Sandbox::new();
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures");
    let package = fixtures.join("repositories/v1/x86_64/libhello-1.2.3-r0.apk");
    let index = |output: &Path| {
        let mut command = sandbox.ibex();
        command.arg("--keys-dir").arg(fixtures.join("keys"));
        command.env("SOURCE_DATE_EPOCH", "1704067200");
        command
            .args(["index", "-o"])
            .arg(output)
            .arg(&package)
            .stdin(Stdio::null());
        support::run(&mut command)
    };
    let regular = sandbox.beside("APKINDEX.tar.gz");
    let told = index(&regular).success().output;
    let wanted = fs::read(&regular).expect("an index");
    assert!(!wanted.is_empty());

    let pipe = sandbox.beside("pipe");
    let mode = rustix::fs::Mode::from_raw_mode(0o600);
    let make = |path: &Path, kind, device| {
        rustix::fs::mknodat(rustix::fs::CWD, path, kind, mode, device).expect("a node")
    };
    make(&pipe, rustix::fs::FileType::Fifo, 0);
    let link = sandbox.beside("link");
    std::os::unix::fs::symlink("pipe", &link).expect("a link");
    for path in [&pipe, &link] {
        let reader = std::thread::spawn({
            let pipe = pipe.clone();
            move || fs::read(pipe).expect("what was written")
        });
        let run = index(path).success();
        assert_eq!(run.output, told);
        assert_eq!(reader.join().expect("it reads"), wanted);
        let kind = fs::symlink_metadata(&pipe).expect("it stays").file_type();
        assert!(std::os::unix::fs::FileTypeExt::is_fifo(&kind));
        let meta = fs::symlink_metadata(&link).expect("it stays");
        assert!(meta.is_symlink());
    }

    if !support::is_root() {
        return;
    }
    // Nodes of its own: nothing of the system is at stake.
    let node = |name: &str, minor: u32| {
        let path = sandbox.beside(name);
        let device = rustix::fs::makedev(1, minor);
        make(&path, rustix::fs::FileType::CharacterDevice, device);
        (path, device)
    };
    let (null, null_device) = node("null", 3);
    let (full, full_device) = node("full", 7);
    if fs::File::options().write(true).open(&null).is_err() {
        eprintln!("skipped: no devices on the file system of temporary files");
        return;
    }
    assert_eq!(index(&null).success().output, told);
    let run = index(&full);
    assert_eq!(run.code, 99, "{}", run.output);
    let reason = format!(
        "ERROR: Index generation failed: {}: No space left on device\n",
        full.display()
    );
    assert!(run.output.ends_with(&reason), "{}", run.output);
    for (path, device) in [(null, null_device), (full, full_device)] {
        let meta = fs::symlink_metadata(path).expect("it stays");
        assert_eq!(std::os::unix::fs::MetadataExt::rdev(&meta), device);
    }
    let left = fs::read_dir(sandbox.beside("")).expect("a directory");
    let hidden = left.filter(|entry| {
        let name = entry.as_ref().expect("an entry").file_name();
        name.to_string_lossy().starts_with('.')
    });
    assert_eq!(hidden.count(), 0, "nothing is left beside");
}
