//! Images through the command line: built, locked, verified, compared, measured, and their bills.

use super::image_packages::{Desk, said};
use super::support::{data, run};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Where the validators of bills are installed.
const VALIDATORS: &str = "/opt/sbom-validators/bin";

/// Returns a validator, or `None` (with a message) where it is not installed.
fn validator(name: &str) -> Option<PathBuf> {
    let path = Path::new(VALIDATORS).join(name);
    if path.exists() {
        return Some(path);
    }
    assert!(
        std::env::var_os("CI").is_none_or(|value| value != "true"),
        "{} is missing",
        path.display()
    );
    eprintln!("skipped: {} is missing; see .ci/run", path.display());
    None
}

/// A description of an Alpine image with a bit of everything.
fn alpine(desk: &Desk) -> Option<()> {
    let repository = data("alpine-v3.19")?;
    let key = data("alpine-v3.19/keys/alpine-devel@lists.alpinelinux.org-6165ee59.rsa.pub")?;
    desk.write("motd", "hello\n");
    desk.write(
        "a.yaml",
        &format!(
            "contents:\n  keyring: ['{}']\n  repositories: ['{}']\n  packages: [alpine-base, openssh]\n\
             entrypoint: {{command: /bin/sh -c \"echo hi\"}}\ncmd: -l\nwork-dir: /srv\narchs: [amd64]\n\
             accounts:\n  users: [{{username: web, uid: 10000}}]\n  groups: [{{groupname: web, gid: 10000}}]\n\
             \x20 run-as: web\n\
             paths:\n  - {{path: /srv/data, type: directory, uid: 10000, gid: 10000, permissions: 0o750}}\n\
             environment: {{TZ: Etc/UTC}}\nannotations: {{org.opencontainers.image.title: web}}\n\
             x-build:\n  files:\n    - {{path: /etc/motd, source: motd}}\n    \
             - {{path: /etc/inline, content: \"text\\n\", mode: 0600}}\n",
            key.display(),
            repository.display()
        ),
    );
    Some(())
}

fn json(path: &Path) -> Value {
    serde_json::from_slice(&fs::read(path).expect("a file")).expect("JSON")
}

/// Returns the only image configuration of a layout.
fn image_config(layout: &Path) -> Value {
    let blob = |digest: &Value| {
        let hex = digest
            .as_str()
            .expect("a digest")
            .trim_start_matches("sha256:")
            .to_owned();
        json(&layout.join("blobs/sha256").join(hex))
    };
    let named = json(&layout.join("index.json"));
    let index = blob(&named["manifests"][0]["digest"]);
    let manifest = blob(&index["manifests"][0]["digest"]);
    blob(&manifest["config"]["digest"])
}

#[test]
fn a_description_becomes_an_image() {
    let desk = Desk::empty();
    if alpine(&desk).is_none() {
        return;
    }
    let line = desk
        .run(&["build", "a.yaml", "example.com/web:1", "out/", "-q"])
        .good();
    assert!(line.starts_with("example.com/web@sha256:"), "{line}");
    assert_eq!(line.lines().count(), 1);
    let config = image_config(&desk.path().join("out"));
    let config = &config["config"];
    assert_eq!(
        config["Entrypoint"],
        serde_json::json!(["/bin/sh", "-c", "echo hi"])
    );
    assert_eq!(config["Cmd"], serde_json::json!(["-l"]));
    assert_eq!(config["User"], "10000");
    assert_eq!(config["WorkingDir"], "/srv");
    assert_eq!(config["Labels"]["org.opencontainers.image.title"], "web");
    desk.run(&["rootfs", "a.yaml", "root.tar", "-q"]).good();
    let list = run(Command::new("tar")
        .arg("-tvf")
        .arg(desk.path().join("root.tar")))
    .success()
    .output;
    for (path, start) in [
        ("etc/motd", "-rw-r--r--"),
        ("etc/inline", "-rw-------"),
        ("srv/data", "drwxr-x---"),
    ] {
        let row = list
            .lines()
            .find(|row| row.ends_with(&format!(" {path}")))
            .expect(path);
        assert!(row.starts_with(start), "{row}");
    }
    // The same image whoever asks, whatever is cached, from the lock file or not.
    desk.run(&["lock", "a.yaml"]).good();
    for (umask, zone, more) in [
        ("077", "Asia/Tokyo", &[][..]),
        ("022", "UTC", &["--no-cache"]),
        ("000", "UTC", &["--locked", "--no-cache"]),
    ] {
        let words = [
            &["build", "a.yaml", "example.com/web:1", "again/", "-q"],
            more,
        ]
        .concat();
        let command = desk.command(&words);
        let mut shell = Command::new("sh");
        shell
            .current_dir(desk.path())
            .env("TZ", zone)
            .env("IBEX_CACHE_DIR", desk.cache());
        shell
            .arg("-c")
            .arg(format!("umask {umask}; exec \"$0\" \"$@\""));
        shell.arg(command.get_program()).args(command.get_args());
        assert_eq!(said(&mut shell).good(), line, "{umask} {zone} {more:?}");
    }
    let verified = desk
        .run(&["verify", "a.yaml", "a.lock.json", "out", "-q"])
        .good();
    assert!(
        verified.starts_with("amd64 sha256:") && verified.ends_with(": the same\n"),
        "{verified}"
    );
    // Something else is not the same.
    desk.write("motd", "good bye\n");
    desk.run(&[
        "build",
        "a.yaml",
        "example.com/web:1",
        "other.oci.tar",
        "-q",
    ])
    .good();
    let line = format!(
        "error[E-DIFFERS]: {} is not what a.lock.json gives: amd64: layer 1: etc/motd: size 9 -> 6, \
         content ",
        desk.path().join("out").display()
    );
    let differs = desk.run(&["verify", "a.yaml", "a.lock.json", "out", "-q"]);
    assert_eq!(differs.code, 3);
    assert!(differs.err.contains(&line), "{}", differs.err);
    let diff = desk.run(&["diff", "out", "other.oci.tar"]).good();
    assert!(
        diff.contains("  files\n    ~ etc/motd: size 6 -> 9, content "),
        "{diff}"
    );
    assert!(!diff.contains("packages"), "{diff}");
    assert_eq!(desk.run(&["diff", "out", "out"]).good(), "");
    let diff: Value =
        serde_json::from_str(&desk.run(&["diff", "out", "other.oci.tar", "--json"]).good())
            .expect("JSON");
    assert_eq!(diff[0]["changed"][0]["path"], "etc/motd");
}

#[test]
fn packages_that_differ() {
    let Some(key) = data("alpine-branches/keys/TEST-ONLY.rsa.pub") else {
        return;
    };
    let (Some(old), Some(new)) = (
        data("alpine-branches/v3.19.4"),
        data("alpine-branches/edge"),
    ) else {
        return;
    };
    let desk = Desk::empty();
    for (name, repository, packages) in [
        ("old", &old, "zlib, libssl3"),
        ("new", &new, "zlib, scanelf"),
    ] {
        desk.write(
            &format!("{name}.yaml"),
            &format!(
                "contents:\n  keyring: ['{}']\n  repositories: ['{}']\n  packages: [{packages}]\n\
                 archs: [amd64]\nlayering: {{strategy: origin, budget: 2}}\n",
                key.display(),
                repository.display()
            ),
        );
        desk.run(&[
            "build",
            &format!("{name}.yaml"),
            "t:1",
            &format!("{name}.tar"),
            "-q",
        ])
        .good();
    }
    let diff = desk.run(&["diff", "old.tar", "new.tar"]).good();
    for line in [
        "    - libssl3 3.1.7-r0\n",
        "    ~ zlib 1.3.1-r0 -> 1.3.1-r2\n",
        "    + scanelf ",
    ] {
        assert!(diff.contains(line), "{line} in {diff}");
    }
    let sizes = desk.run(&["size", "old.tar"]).good();
    assert!(sizes.contains("libcrypto3 3.1.7-r0"), "{sizes}");
    assert!(sizes.contains("  layers\n"), "{sizes}");
    let sizes: Value =
        serde_json::from_str(&desk.run(&["size", "old.tar", "--json"]).good()).expect("JSON");
    assert_eq!(sizes[0]["packages"][0]["name"], "libcrypto3");
    desk.run(&["size", "old.tar", "--html", "size.html"]).good();
    let page = desk.read("size.html");
    assert!(page.contains("usr/lib/libcrypto.so.3") || page.contains("lib/libcrypto.so.3"));
    assert!(
        !page.contains("http://") && !page.contains("https://"),
        "it needs nothing else"
    );
    assert!(!page.contains("@DATA@") && !page.contains("@TITLE@"));
}

#[test]
fn apkos_descriptions_build_unchanged() {
    let Some(desk) = Desk::apko() else { return };
    for name in ["apko.yaml", "empty-layering.yaml"] {
        let line = desk.run(&["build", name, "t:1", "out/", "-q"]).good();
        let locked = match name {
            "apko.yaml" => "apko.lock.json",
            _ => continue,
        };
        // apko's own lock file gives apko's own packages.
        let by_lock = desk
            .run(&["build", name, "t:1", "out2/", "-q", "--lockfile", locked])
            .good();
        assert_eq!(line, by_lock);
        let index = json(&desk.path().join("out/index.json"));
        let hex = index["manifests"][0]["digest"].as_str().expect("a digest")[7..].to_owned();
        let index = json(&desk.path().join("out/blobs/sha256").join(hex));
        let platforms: Vec<&Value> = (index["manifests"].as_array().expect("a list").iter())
            .map(|one| &one["platform"]["architecture"])
            .collect();
        assert_eq!(platforms, ["amd64", "arm64"]);
    }
    // One whose second repository is a folder beside it.
    let to = desk.path().join("packages");
    run(Command::new("cp")
        .arg("-r")
        .arg(desk.path().join("testdata/packages"))
        .arg(&to))
    .success();
    desk.run(&["build", "layering.yaml", "t:1", "layered/", "-q"])
        .good();
    let sizes = desk.run(&["size", "layered"]).good();
    assert!(sizes.contains("replayout 1.0.0-r0"), "{sizes}");
}

#[test]
fn bills_say_what_is_in_the_image() {
    let desk = Desk::empty();
    if alpine(&desk).is_none() {
        return;
    }
    let words = [
        "build",
        "a.yaml",
        "example.com/web:1",
        "out/",
        "-q",
        "--sbom-formats",
        "spdx,cyclonedx",
    ];
    desk.run(&words).good();
    let bill = |name: &str| desk.path().join("out").join(name);
    let spdx = json(&bill("sbom-x86_64.spdx.json"));
    let packages = spdx["packages"].as_array().expect("a list");
    let musl = packages
        .iter()
        .find(|one| one["name"] == "musl" && one["primaryPackagePurpose"] == "INSTALL")
        .expect("musl");
    assert_eq!(musl["licenseDeclared"], "MIT");
    assert_eq!(
        musl["externalRefs"][0]["referenceLocator"],
        "pkg:apk/alpine/musl@1.2.4_git20230717-r4?arch=x86_64&distro=alpine-3.19.1"
    );
    assert_eq!(musl["checksums"].as_array().expect("a list").len(), 2);
    let list = desk
        .run(&["show-packages", "a.yaml", "--format", "{{.Name}}"])
        .good();
    for name in list.lines() {
        assert!(
            packages.iter().any(|one| one["name"] == name),
            "{name} is in no bill"
        );
    }
    let files = spdx["files"].as_array().expect("a list");
    assert!(files.iter().any(|file| file["fileName"] == "./etc/motd"));
    assert!(!files.iter().any(|file| file["fileName"] == "./bin/busybox"));
    // Identifiers are unique, and every end of a relation exists.
    let mut ids: Vec<&str> = packages
        .iter()
        .chain(files)
        .filter_map(|one| one["SPDXID"].as_str())
        .collect();
    let count = ids.len();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), count);
    for relation in spdx["relationships"].as_array().expect("a list") {
        for end in ["spdxElementId", "relatedSpdxElement"] {
            let id = relation[end].as_str().expect("an id");
            assert!(
                id == "SPDXRef-DOCUMENT" || ids.binary_search(&id).is_ok(),
                "{id}"
            );
        }
    }
    let cyclonedx = json(&bill("sbom-x86_64.cdx.json"));
    let components = cyclonedx["components"].as_array().expect("a list");
    assert!(components.iter().any(|one| one["name"] == "openssh"));
    // The same again.
    let bytes = fs::read(bill("sbom-x86_64.spdx.json")).expect("a bill");
    let again = [
        "build",
        "a.yaml",
        "example.com/web:1",
        "out2/",
        "-q",
        "--no-cache",
    ];
    desk.run(&again).good();
    assert_eq!(
        fs::read(desk.path().join("out2/sbom-x86_64.spdx.json")).expect("a bill"),
        bytes
    );
    if let Some(tool) = validator("pyspdxtools") {
        for name in ["sbom-x86_64.spdx.json", "sbom-index.spdx.json"] {
            run(Command::new(&tool).arg("-i").arg(bill(name))).success();
        }
    }
    if let Some(python) = validator("python") {
        let script = "import sys\n\
                      from cyclonedx.schema import SchemaVersion\n\
                      from cyclonedx.validation.json import JsonStrictValidator\n\
                      wrong = JsonStrictValidator(SchemaVersion.V1_6).validate_str(open(sys.argv[1]).read())\n\
                      sys.exit(str(wrong) if wrong else 0)\n";
        run(Command::new(&python)
            .arg("-c")
            .arg(script)
            .arg(bill("sbom-x86_64.cdx.json")))
        .success();
    }
}

#[test]
fn errors_of_building() {
    let desk = Desk::empty();
    if alpine(&desk).is_none() {
        return;
    }
    let text = desk.read("a.yaml");
    let mut command = desk.command(&["build", "a.yaml", "t:1", "out/"]);
    said(command.env("SOURCE_DATE_EPOCH", "yesterday")).error(
        2,
        "error[E-SDE]: SOURCE_DATE_EPOCH=\"yesterday\" is not an integer",
    );
    for output in ["no/where/x.tar", "no/where/"] {
        desk.run(&["build", "a.yaml", "t:1", output]).error(
            1,
            &format!(
                "error[E-OUTPUT]: cannot create {}: No such file or directory",
                desk.path().join(output).display()
            ),
        );
    }
    desk.run(&["build", "a.yaml", "t:1", "strange"]).error(
        2,
        "error[E-USAGE]: \"strange\" does not say what to write: an existing folder, or a name that \
         ends in /, .oci.tar, .tar or .tar.gz; or give --output-format",
    );
    desk.write(
        "b.yaml",
        &text.replace(
            "/srv/data, type: directory",
            "/etc/motd, type: symlink, source: x",
        ),
    );
    let taken = desk.run(&["build", "b.yaml", "t:1", "out/"]);
    assert_eq!(taken.code, 1, "{}", taken.err);
    assert!(
        taken.err.contains("error[E-PATH]: paths[0] (line 14): "),
        "{}",
        taken.err
    );
    let many = ["a:1", "a:2"].map(|pair| format!("--annotations={pair}"));
    let words = ["build", "a.yaml", "t:1", "out/", &many[0], &many[1]];
    desk.run(&words)
        .error(2, "error[E-USAGE]: --annotations: \"a:2\" is given twice");
    let lost = desk.run(&["size", "nowhere"]);
    lost.error(
        1,
        "error[E-IMAGE]: nowhere is no image that can be read: No such file or directory",
    );
    desk.write("no-image/index.json", "{}");
    desk.run(&["diff", "no-image", "no-image"]).error(
        1,
        "error[E-IMAGE]: no-image is no image that can be read: an index without manifests",
    );
}

#[test]
fn packages_that_fight_for_a_file() {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures");
    let desk = Desk::empty();
    desk.write(
        "a.yaml",
        &format!(
            "contents:\n  keyring: ['{0}/keys/TEST-ONLY.rsa.pub']\n  \
             repositories: ['{0}/repositories/v1', '{0}/repositories/hostile']\n  \
             packages: [demo-layout, thief]\narchs: [amd64]\n",
            fixtures.display()
        ),
    );
    desk.run(&["build", "a.yaml", "t:1", "out/"]).error(
        1,
        "error[E-FILE-CONFLICT]: thief-1.0-r0: trying to overwrite etc/os-release owned by \
         demo-layout-1.0-r0.",
    );
}

#[test]
fn a_package_that_changed_behind_the_index() {
    let Some(key) = data("alpine-branches/keys/TEST-ONLY.rsa.pub") else {
        return;
    };
    let Some(branch) = data("alpine-branches/v3.20") else {
        return;
    };
    let desk = Desk::empty();
    let folder = desk.path().join("r");
    fs::create_dir(&folder).expect("a folder");
    run(Command::new("cp")
        .arg("-r")
        .arg(branch.join("x86_64"))
        .arg(&folder))
    .success();
    let file = folder.join("x86_64/zlib-1.3.1-r1.apk");
    fs::copy(folder.join("x86_64/musl-1.2.5-r0.apk"), &file).expect("a copy");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).expect("our own file");
    let text = format!(
        "contents:\n  keyring: ['{}']\n  repositories: [./r]\n  packages: [zlib]\narchs: [amd64]\n",
        key.display()
    );
    desk.write("a.yaml", &text);
    let said = desk.run(&["build", "a.yaml", "t:1", "out/"]);
    assert_eq!(said.code, 5, "{}", said.err);
    assert!(said.err.contains("error[E-HASH]: "), "{}", said.err);
    assert!(!desk.path().join("out").exists());
}

/// Devices, pipes and what an open file is seen by are written to: they stay what they are.
#[test]
fn outputs_are_written_into_pipes_and_devices() {
    let Some(desk) = Desk::empty_with_alpine("alpine-keys") else {
        return;
    };
    let at = |name: &str| desk.path().join(name);
    desk.run(&["build", "a.yaml", "a/b:1", "i/"]).good();
    type Words = &'static [&'static str];
    let commands: [(Words, Words); 5] = [
        (&["cpio", "a.yaml"], &[]),
        (&["rootfs", "a.yaml"], &[]),
        (&["size", "i", "--html"], &[]),
        (&["lock", "--output"], &["a.yaml"]),
        (
            &["build", "--output-format", "oci-archive", "a.yaml", "a/b:1"],
            &[],
        ),
    ];
    let all =
        |(first, last): (Words, Words), output: &'static str| [first, &[output], last].concat();
    let mode = rustix::fs::Mode::from_raw_mode(0o600);
    let node = |name: &str, kind, device| {
        rustix::fs::mknodat(rustix::fs::CWD, at(name), kind, mode, device).expect("a node");
    };
    node("pipe", rustix::fs::FileType::Fifo, 0);
    std::os::unix::fs::symlink("/proc/self/fd/1", at("out")).expect("a link");
    for command in commands {
        let words = all(command, "regular.tar");
        desk.run(&words).good();
        let wanted = fs::read(at("regular.tar")).expect("an output");
        fs::remove_file(at("regular.tar")).expect("it is there");
        assert!(!wanted.is_empty(), "{words:?}");

        let pipe = at("pipe");
        let reader = std::thread::spawn(move || fs::read(pipe).expect("what was written"));
        desk.run(&all(command, "pipe")).good();
        assert!(reader.join().expect("it reads") == wanted, "{words:?}");
        let kind = fs::symlink_metadata(at("pipe")).expect("it stays");
        let kind = kind.file_type();
        assert!(std::os::unix::fs::FileTypeExt::is_fifo(&kind), "{words:?}");

        let output = desk
            .command(&all(command, "out"))
            .output()
            .expect("it runs");
        assert!(output.status.success(), "{words:?}");
        // What the command says itself comes behind what it writes.
        assert!(output.stdout.starts_with(&wanted), "{words:?}");
        assert!(at("out").is_symlink(), "{words:?}");
    }

    if !super::support::is_root() {
        return;
    }
    // Nodes of its own: nothing of the system is at stake.
    let kind = rustix::fs::FileType::CharacterDevice;
    let (null, full) = (rustix::fs::makedev(1, 3), rustix::fs::makedev(1, 7));
    node("null", kind, null);
    node("full", kind, full);
    if fs::File::options().write(true).open(at("null")).is_err() {
        eprintln!("skipped: no devices on the file system of temporary files");
        return;
    }
    for command in commands {
        desk.run(&all(command, "null")).good();
        let full_up = desk.run(&all(command, "full"));
        let told = full_up.err.contains("error[E-OUTPUT]: cannot create ")
            && full_up.err.contains("full: No space left on device\n");
        assert!(full_up.code == 1 && told, "{}", full_up.err);
        for (name, device) in [("null", null), ("full", full)] {
            let meta = fs::symlink_metadata(at(name)).expect("it stays");
            assert_eq!(std::os::unix::fs::MetadataExt::rdev(&meta), device);
        }
    }
}

/// What is wrong with the name of an image is told before anything is built.
#[test]
fn names_of_images_are_checked() {
    let Some(desk) = Desk::empty_with_alpine("alpine-keys") else {
        return;
    };
    for (name, reason) in [
        (
            "Bad Ref",
            "a repository is lower-case letters, digits, `.`, `_`, `-` and `/`",
        ),
        (
            "",
            "a repository is lower-case letters, digits, `.`, `_`, `-` and `/`",
        ),
        (
            "UPPER/b:1",
            "a repository is lower-case letters, digits, `.`, `_`, `-` and `/`",
        ),
        (
            "a/b@sha256:abc",
            "a digest follows from the content and cannot be given",
        ),
        (
            "bad host.io/a",
            "a registry is a host, and a port behind `:`",
        ),
    ] {
        let line = format!("error[E-USAGE]: `{name}` names no image: {reason}");
        desk.run(&["build", "a.yaml", name, "x.tar"])
            .error(2, &line);
        desk.run(&["publish", "a.yaml", name]).error(2, &line);
        assert!(!desk.path().join("x.tar").exists());
    }
    assert!(!desk.cache().join("packages").exists(), "nothing was begun");
}

/// The files of a layer that are not links, as a scanner that reads one layer after the other gets
/// them.
fn contents(layer: &Path) -> BTreeMap<String, Vec<u8>> {
    let file = fs::File::open(layer).expect("a layer");
    let mut archive = tar::Archive::new(flate2::read::MultiGzDecoder::new(file));
    let mut found = BTreeMap::new();
    for entry in archive.entries().expect("an archive") {
        let mut entry = entry.expect("an entry");
        let path = entry.path().expect("a name").display().to_string();
        let mut content = Vec::new();
        entry.read_to_end(&mut content).expect("its content");
        if entry.header().entry_type().is_file() {
            found.insert(path, content);
        }
    }
    found
}

/// Reads a package database as scanners do: a record ends at an empty line, and what they show is
/// among these fields.
fn records(database: &[u8]) -> BTreeMap<String, BTreeMap<char, String>> {
    let text = String::from_utf8(database.to_vec()).expect("UTF-8");
    assert!(
        text.is_empty() || text.ends_with("\n\n"),
        "the last record has no end"
    );
    let mut found = BTreeMap::new();
    for record in text.split("\n\n").filter(|record| !record.is_empty()) {
        let mut fields: BTreeMap<char, String> = BTreeMap::new();
        for line in record.lines() {
            let (letter, value) = line.split_once(':').expect("a field");
            assert_eq!(letter.len(), 1, "{line}");
            let letter = letter.chars().next().expect("a letter");
            fields.entry(letter).or_insert_with(|| value.to_owned());
        }
        for letter in "PVAoLCTSI".chars() {
            let value = fields.get(&letter);
            assert!(
                value.is_some_and(|value| !value.is_empty()),
                "{letter} in {record}"
            );
        }
        assert!(fields[&'C'].starts_with("Q1"));
        found.insert(fields[&'P'].clone(), fields);
    }
    found
}

#[test]
fn what_scanners_look_for_is_there() {
    let desk = Desk::empty();
    let Some(repository) = data("alpine-v3.19") else {
        return;
    };
    // At the address that says the release, as scanners expect it.
    let official = "https://dl-cdn.alpinelinux.org/alpine/v3.19/main";
    let mirror = format!("{official}={}", repository.display());
    for (layering, wanted) in [("", 1), ("layering: {strategy: origin, budget: 4}\n", 5)] {
        desk.write(
            "a.yaml",
            &format!(
                "contents:\n  repositories: ['{official}']\n  packages: [alpine-base, openssh, tzdata]\n\
                 archs: [amd64]\n{layering}"
            ),
        );
        let _ = fs::remove_dir_all(desk.path().join("out"));
        desk.run(&["build", "--mirror", &mirror, "a.yaml", "a:1", "out/"])
            .good();
        let shown = desk
            .run(&["show-packages", "--mirror", &mirror, "a.yaml"])
            .good();
        let shown: BTreeSet<String> = shown.lines().map(str::to_owned).collect();
        let image = ibex::image::read::read(&desk.path().join("out"))
            .expect("an image")
            .remove(0);
        assert_eq!(image.layers.len(), wanted);
        let blob = |digest: &str| {
            let hex = digest.trim_start_matches("sha256:");
            desk.path().join("out/blobs/sha256").join(hex)
        };
        let mut merged: BTreeMap<String, Vec<u8>> = BTreeMap::new();
        let mut by_layer = BTreeSet::new();
        for layer in &image.layers {
            let files = contents(&blob(&layer.digest));
            // One of the two places that scanners look at by name, with links not followed.
            let places = ["lib/apk/db/installed", "usr/lib/apk/db/installed"];
            let databases: Vec<&str> = (places.into_iter())
                .filter(|place| files.contains_key(*place))
                .collect();
            let [place] = databases.as_slice() else {
                panic!("{databases:?}");
            };
            for (name, fields) in records(&files[*place]) {
                by_layer.insert(format!("{name} {}", fields[&'V']));
            }
            merged.extend(files);
        }
        let whole = records(&merged["lib/apk/db/installed"]);
        let whole: BTreeSet<String> = whole
            .iter()
            .map(|(name, fields)| format!("{name} {}", fields[&'V']))
            .collect();
        assert_eq!(whole, shown);
        assert_eq!(by_layer, shown);
        // A package in a layer of its own is told there alone.
        if wanted > 1 {
            let files = contents(&blob(&image.layers[0].digest));
            let first = records(&files["lib/apk/db/installed"]);
            assert!(first.len() < whole.len() / 2, "{}", first.len());
        }
        let text = |path: &str| {
            let bytes = merged.get(path).unwrap_or_else(|| panic!("no {path}"));
            String::from_utf8(bytes.clone()).expect("UTF-8")
        };
        let release = merged
            .get("etc/os-release")
            .or(merged.get("usr/lib/os-release"))
            .expect("a release");
        let release = String::from_utf8(release.clone()).expect("UTF-8");
        assert!(release.lines().any(|line| line == "ID=alpine"), "{release}");
        let version = release
            .lines()
            .find_map(|line| line.strip_prefix("VERSION_ID="))
            .expect("a version");
        assert_eq!(text("etc/alpine-release").trim(), version);
        assert_eq!(text("etc/apk/repositories"), format!("{official}\n"));
    }
}
