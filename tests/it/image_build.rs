//! Images from real packages: the tree is the one that apk makes, whoever builds, and the same bytes
//! come out every time.

use crate::support::{self, Sandbox};
use ibex::format::Limits;
use ibex::format::index::UnverifiedIndex;
use ibex::image::{
    self, BuildRequest, BuiltImage, Compression, ContainerConfig, DatabasePlace, Layering,
    NamedContent, ScriptMode, ScriptResult, Store,
};
use ibex::package::{InstalledPackage, Package, World};
use ibex::plan::{NewPackage, Source};
use ibex::progress::Silent;
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;

/// Returns the packages of a repository, by name.
fn index(repository: &Path, arch: &str) -> BTreeMap<String, Package> {
    let bytes = fs::read(repository.join(arch).join("APKINDEX.tar.gz")).expect("an index");
    let index = UnverifiedIndex::read(&bytes, &Limits::default()).expect("an index");
    let packages = index.parse().expect("an index").packages;
    packages
        .into_iter()
        .map(|package| (package.name.clone(), package))
        .collect()
}

/// Returns the names in the order in which they are installed.
fn order(repository: &Path, arch: &str, names: &[&str]) -> Vec<String> {
    let sandbox = Sandbox::new();
    let mut command = sandbox.ibex();
    let usermode = !rustix::process::geteuid().is_root();
    command.args(usermode.then_some("--usermode"));
    command.args(["--initdb", "--arch", arch, "--simulate", "--keys-dir"]);
    // Repositories that were made for tests share their keys.
    let own = repository.join("keys");
    let keys = match own.exists() {
        true => own,
        false => repository.with_file_name("keys"),
    };
    command
        .arg(keys)
        .arg("-X")
        .arg(repository)
        .arg("add")
        .args(names);
    let run = support::run(&mut command).success();
    let names = run.output.lines().filter_map(|line| {
        let (_, rest) = line.split_once(") Installing ")?;
        Some(rest.split(' ').next()?.to_owned())
    });
    names.collect()
}

/// Makes a request for packages of a repository.
pub(crate) fn request(repository: &Path, arch: &str, names: &[&str]) -> BuildRequest {
    let packages = index(repository, arch);
    let order = order(repository, arch, names);
    let new = order.iter().map(|name| {
        let package = packages[name].clone();
        let file = format!("{}-{}.apk", package.name, package.version);
        NewPackage {
            source: match package.installed_size {
                0 => Source::None,
                _ => Source::File(repository.join(arch).join(file)),
            },
            tag: None,
            package,
        }
    });
    let packages: Vec<NewPackage> = new.collect();
    let mut world = World::parse(&names.join(" ")).expect("names");
    world.sort();
    let build_time = packages
        .iter()
        .filter_map(|new| new.package.build_time)
        .max();
    BuildRequest {
        world,
        repositories: vec!["https://mirror.example/alpine/v3.19/main".to_owned()],
        keys: vec![NamedContent {
            name: "test.rsa.pub".to_owned(),
            content: b"a key\n".to_vec(),
        }],
        compression: Compression::Gzip(6),
        build_time: build_time.unwrap_or(0),
        ..request_of(arch, packages)
    }
}

/// Makes a request that says nothing but which packages there are.
pub(crate) fn request_of(arch: &str, packages: Vec<NewPackage>) -> BuildRequest {
    BuildRequest {
        base: None,
        architecture: arch.to_owned(),
        packages,
        world: World::default(),
        repositories: Vec::new(),
        keys: Vec::new(),
        runtime_keys: Vec::new(),
        groups: Vec::new(),
        users: Vec::new(),
        configuration_json: None,
        os_release: BTreeMap::new(),
        paths: Vec::new(),
        files: Vec::new(),
        certificates: Vec::new(),
        certificate_providers: Vec::new(),
        services: Vec::new(),
        remove: Vec::new(),
        database: DatabasePlace::Auto,
        ids: Vec::new(),
        scripts: ScriptMode::Emulate,
        scripts_must_run: true,
        check_scripts: false,
        scripts_warn: false,
        fail_on_skipped_script: false,
        layering: Layering::One,
        compression: Compression::None,
        build_time: 1_700_000_000,
        clamp_mtime: false,
        config: ContainerConfig::default(),
        limits: Limits::default(),
    }
}

/// Builds with a store of its own.
pub(crate) fn build(request: &BuildRequest) -> (BuiltImage, tempfile::TempDir) {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let store = Store::open(directory.path()).expect("a store");
    let image = image::build(request, &store, &mut Silent).expect("an image");
    (image, directory)
}

/// Unpacks the layers of an image, one over the other, by GNU tar.
fn unpack(image: &BuiltImage, folder: &Path) {
    for layer in &image.layers {
        let decompress = match layer.descriptor.media_type.rsplit_once('+') {
            Some((_, "gzip")) => "--gzip",
            Some((_, "zstd")) => "--zstd",
            _ => "--no-auto-compress",
        };
        let mut tar = Command::new("tar");
        tar.args([
            "-x",
            "-p",
            "--numeric-owner",
            "--overwrite",
            "--xattrs",
            "--xattrs-include=*",
        ]);
        tar.arg(decompress)
            .arg("-f")
            .arg(&layer.path)
            .arg("-C")
            .arg(folder);
        support::run(&mut tar).success();
    }
}

/// What an image has beside what apk makes of the same packages: the lock, the plain script archive
/// (which apk 2 writes compressed or not as it finds it), devices, empty homes of users, the
/// digest of the certificate bundle, and what the builder gave.
const BESIDE: [&str; 12] = [
    "dev/console",
    "dev/null",
    "dev/random",
    "dev/urandom",
    "dev/zero",
    "etc/apk/arch",
    "etc/apk/keys/TEST-ONLY.rsa.pub",
    "etc/apk/keys/test.rsa.pub",
    "etc/apk/repositories",
    "etc/ssl/certs/.ca-certificates.crt.sha256",
    "lib/apk/db/lock",
    "proc",
];

/// Compares an image with the root that the real apk makes, scripts included.
fn compare(repository: &Path, names: &[&str], image: &BuiltImage) -> Vec<String> {
    let theirs = Sandbox::new();
    let program = Sandbox::with_minirootfs("3.20.3").expect("the data is there");
    let home = program.root();
    let libraries = format!("{0}/lib:{0}/usr/lib", home.display());
    let mut apk = Command::new(home.join("lib/ld-musl-x86_64.so.1"));
    apk.env_clear()
        .arg("--library-path")
        .arg(libraries)
        .arg(home.join("sbin/apk"));
    apk.arg("--root")
        .arg(theirs.root())
        .args(["--initdb", "--arch", "x86_64", "--keys-dir"]);
    apk.arg(repository.join("keys"))
        .arg("-X")
        .arg(repository)
        .arg("add")
        .args(names);
    support::run(&mut apk).success();
    let mut differences = against(support::tree(&theirs.root(), STARTED), image);
    let database = |path: &Path| {
        let bytes = fs::read(path.join("lib/apk/db/installed")).expect("a database");
        ibex::format::installed::parse(&bytes, false).expect("a database")
    };
    // The old one writes other texts of the same database: what they say is compared.
    let ours = Sandbox::new();
    unpack(image, &ours.root());
    let records = |path: &Path| -> BTreeMap<String, String> {
        let packages = database(path).packages.into_iter();
        let record = |mut package: InstalledPackage| {
            // The new one does not write down that a package replaces itself.
            let name = package.package.name.clone();
            package.package.replaces.retain(|entry| entry.name != name);
            (name, format!("{package:#?}"))
        };
        packages.map(record).collect()
    };
    differences.extend(support::differences(
        &records(&theirs.root()),
        &records(&ours.root()),
    ));
    differences
}

/// When no package was made yet; what has a later time was made by scripts.
const STARTED: i64 = 1_730_000_000;

/// Compares an image with rows of a tree that apk made, but for what is beside.
fn against(mut wanted: BTreeMap<String, String>, image: &BuiltImage) -> Vec<String> {
    let ours = Sandbox::new();
    unpack(image, &ours.root());
    let mut found = support::tree(&ours.root(), STARTED);
    // What scripts make has the time of the build in an image, the time of the run elsewhere.
    for (path, row) in &mut found {
        if let Some(other) = wanted.get(path) {
            let (ours, theirs): (Vec<&str>, Vec<&str>) =
                (row.split('\t').collect(), other.split('\t').collect());
            if theirs[4] == "-" || ours[0] == "link" {
                let mut fields = ours.clone();
                fields[4] = theirs[4];
                *row = fields.join("\t");
            }
        }
    }
    let homes: Vec<String> = fs::read_to_string(ours.root().join("etc/passwd"))
        .expect("users")
        .lines()
        .filter_map(|line| {
            line.split(':')
                .nth(5)
                .map(|home| home.trim_matches('/').to_owned())
        })
        .collect();
    let beside = |path: &str| {
        BESIDE.contains(&path)
            || path.starts_with("lib/apk/db/scripts.tar")
            || path.starts_with("lib/apk/db/installed")
            || path.starts_with("lib/apk/exec")
            || path.starts_with("var/cache/")
            || path.starts_with("var/log/apk.log")
    };
    wanted.retain(|path, _| !beside(path));
    let home = |path: &str| {
        homes
            .iter()
            .any(|home| home == path || home.starts_with(&format!("{path}/")))
    };
    found.retain(|path, row| {
        let extra_home = home(path) && !wanted.contains_key(path) && row.starts_with("dir");
        !beside(path) && !extra_home
    });
    support::differences(&wanted, &found)
}

#[test]
fn an_image_is_the_root_that_apk_makes_with_scripts_run() {
    let (Some(repository), true) = (support::data("alpine-v3.19"), support::is_root()) else {
        return;
    };
    let names = support::all_names(&repository);
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let request = request(&repository, "x86_64", &names);
    let (image, _store) = build(&request);
    assert_eq!(image.installed.packages.len(), 98);
    let outcome = |outcome: &image::ScriptOutcome| {
        let image::ScriptOutcome {
            package,
            script,
            result,
            detail,
        } = outcome;
        format!(
            "{package} {script}: {}{}{detail}",
            result.as_str(),
            if detail.is_empty() { "" } else { ": " }
        )
    };
    let scripts: Vec<String> = image.scripts.iter().map(outcome).collect();
    assert!(
        image
            .scripts
            .iter()
            .all(|outcome| outcome.result != ScriptResult::NotRun),
        "{}",
        scripts.join("\n")
    );
    let differences = compare(&repository, &names, &image);
    assert!(differences.is_empty(), "{}", differences.join("\n"));
}

#[test]
fn an_image_is_the_root_that_apk_3_made() {
    let (Some(recorded), true) = (support::data("expected/apk-3.0.6"), support::is_root()) else {
        return;
    };
    let base = [
        "alpine-baselayout",
        "alpine-keys",
        "apk-tools",
        "busybox",
        "libc-utils",
    ];
    let most = ["alpine-base", "openssh", "chrony"];
    for (case, repository, arch, names) in [
        ("install-base-v3.19", "alpine-v3.19", "x86_64", &base[..]),
        ("install-alpine-base-v3.19", "alpine-v3.19", "x86_64", &most),
        (
            "install-base-v3.19.4",
            "alpine-branches/v3.19.4",
            "x86_64",
            &base,
        ),
        (
            "install-base-v3.20",
            "alpine-branches/v3.20",
            "x86_64",
            &base,
        ),
        ("install-base-edge", "alpine-branches/edge", "x86_64", &base),
        ("aarch64-v3.20", "alpine-branches/v3.20", "aarch64", &base),
    ] {
        let repository = support::data(repository).expect("it is part of the data");
        let mut request = request(&repository, arch, names);
        if arch == "aarch64" {
            // They could not run where that was recorded.
            request.scripts = ScriptMode::Skip;
        }
        let (image, _store) = build(&request);
        let database = fs::read_to_string(recorded.join(format!("{case}.installed")));
        let ours = image.root.read("lib/apk/db/installed").expect("a tree");
        let ours = String::from_utf8(ours.expect("a database")).expect("a text");
        assert_eq!(ours, database.expect("a record"), "{case}");
        let rows = fs::read_to_string(recorded.join(format!("{case}.tree.tsv")));
        let rows = rows.expect("a record");
        let rows = rows
            .lines()
            .skip(1)
            .filter_map(|line| line.split_once('\t'));
        let rows = rows.map(|(path, row)| (path.to_owned(), row.to_owned()));
        let differences = against(rows.collect(), &image);
        assert!(differences.is_empty(), "{case}: {}", differences.join("\n"));
    }
}

#[test]
fn the_same_request_is_the_same_image() {
    let Some(repository) = support::data("alpine-v3.19") else {
        return;
    };
    let mut request = request(&repository, "x86_64", &["busybox", "openssl", "musl"]);
    let (first, store) = build(&request);
    let (second, _other) = build(&request);
    assert_eq!(first.manifest, second.manifest);
    // From what the first build left: the same documents, layers, database and tree.
    let kept = Store::open(store.path()).expect("a store");
    let third = image::build(&request, &kept, &mut Silent).expect("an image");
    assert_eq!(first.manifest, third.manifest);
    assert_eq!(first.config, third.config);
    assert_eq!(first.layers, third.layers);
    assert_eq!(first.scripts, third.scripts);
    let tree = |image: &BuiltImage| {
        let entries = image.root.tree().expect("a tree").entries().into_iter();
        let row = |entry: ibex::root::tree::TreeEntry| {
            let content = match entry.kind {
                ibex::root::tree::EntryKind::File(content) => {
                    let mut bytes = Vec::new();
                    let tree = image.root.tree().expect("a tree");
                    std::io::Read::read_to_end(&mut tree.reader(&content), &mut bytes)
                        .expect("content");
                    image::store::sha256_hex(&bytes)
                }
                other => format!("{other:?}"),
            };
            let owner = (entry.mode, entry.uid, entry.gid, entry.mtime, entry.links);
            (entry.path, owner, content)
        };
        entries.map(row).collect::<Vec<_>>()
    };
    assert_eq!(tree(&first), tree(&third));
    // A damaged layer is made again, and so is a damaged segment.
    let damage = |folder: &str| {
        for entry in walk(&store.path().join(folder)) {
            let mut bytes = fs::read(&entry).expect("a file");
            let middle = bytes.len() / 2;
            bytes[middle] ^= 1;
            fs::write(&entry, bytes).expect("a file");
        }
    };
    damage("blobs");
    damage("segments");
    let fourth = image::build(&request, &kept, &mut Silent).expect("an image");
    assert_eq!(first.layers, fourth.layers);
    // Another wish is another image.
    request.clamp_mtime = true;
    request.build_time = 1_600_000_000;
    let other = image::build(&request, &kept, &mut Silent).expect("an image");
    assert_ne!(first.manifest, other.manifest);
    let late = |image: &BuiltImage| {
        let entries = image.root.tree().expect("a tree").entries();
        entries
            .iter()
            .filter(|entry| entry.mtime > 1_600_000_000)
            .count()
    };
    assert!(late(&first) > 0);
}

/// Returns the files below a folder.
pub(crate) fn walk(folder: &Path) -> Vec<std::path::PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("a readable folder").path();
        match path.is_dir() {
            true => files.extend(walk(&path)),
            false => files.push(path),
        }
    }
    files
}

#[test]
fn layers_add_up_to_the_same_tree() {
    let (Some(repository), true) = (support::data("alpine-v3.19"), support::is_root()) else {
        return;
    };
    let mut request = request(&repository, "x86_64", &["alpine-base", "openssh", "tzdata"]);
    let (one, _store) = build(&request);
    let whole = Sandbox::new();
    unpack(&one, &whole.root());
    let whole = support::tree(&whole.root(), i64::MAX);
    for (budget, compression) in [
        (0, Compression::Gzip(1)),
        (1, Compression::None),
        (2, Compression::Zstd(3)),
        (10, Compression::Gzip(6)),
        (1000, Compression::Zstd(1)),
    ] {
        request.layering = Layering::Origin { budget };
        request.compression = compression;
        let (image, _store) = build(&request);
        assert!(
            image.layers.len() <= budget.max(1) + 1,
            "{}",
            image.layers.len()
        );
        let folder = Sandbox::new();
        unpack(&image, &folder.root());
        let found = support::tree(&folder.root(), i64::MAX);
        let differences = support::differences(&whole, &found);
        assert!(
            differences.is_empty(),
            "{budget}: {}",
            differences.join("\n")
        );
        for layer in &image.layers {
            let mut names = Vec::new();
            let open = image::output::open_layer(&layer.path, &layer.descriptor.media_type);
            let mut archive = tar::Archive::new(open.expect("a layer"));
            for entry in archive.entries().expect("an archive") {
                let entry = entry.expect("an entry");
                if entry.header().entry_type().is_hard_link() {
                    let target = entry.link_name_bytes().expect("a target").into_owned();
                    assert!(names.contains(&target), "a link before its target");
                }
                names.push(entry.path_bytes().into_owned());
            }
            let count = names.len();
            names.sort();
            names.dedup();
            assert_eq!(names.len(), count, "a name is twice in one layer");
        }
    }
}

#[test]
fn a_second_name_of_a_file_that_another_package_replaces_stays_what_it_was() {
    use support::repository::{Repository, directory, file, hard_link, package};
    if !support::is_root() {
        return;
    }
    let sandbox = Sandbox::new();
    let mut repository = Repository::new(&sandbox);
    let one = |name: &str| {
        let folder = directory("etc");
        let linked =
            ["b", "c"].map(|end| hard_link(&format!("etc/{name}-{end}"), &format!("etc/{name}-a")));
        let first = file(&format!("etc/{name}-a"), format!("of {name}\n"));
        [vec![folder, first], linked.to_vec()].concat()
    };
    let other = |name: &str| {
        vec![
            directory("etc"),
            file(&format!("etc/{name}-a"), "another\n"),
        ]
    };
    let replaces = |name: &str| vec![ibex::package::Dependency::parse(name).expect("a name")];
    for made in [
        package(
            "base",
            "1-r0",
            vec![
                directory("etc"),
                file("etc/passwd", "root:x:0:0::/root:/bin/sh\n"),
                // What every image has.
                directory("etc/apk"),
                directory("etc/apk/keys"),
                directory("opt"),
                directory("usr"),
            ],
        ),
        package("early", "1-r0", one("early")),
        // It takes a name of what is there.
        package("taker", "1-r0", other("early")).with(|package| {
            package.replaces = replaces("early");
            package.depends = replaces("early");
        }),
        // It keeps a name that comes later.
        package("keeper", "1-r0", other("late")).with(|package| {
            package.replaces = replaces("late");
            package.replaces_priority = 5;
        }),
        package("late", "1-r0", one("late")).with(|package| {
            package.depends = replaces("keeper");
        }),
    ] {
        repository.add(&made);
    }
    repository.publish(1);
    let keys = repository.path().join("keys");
    fs::create_dir(&keys).expect("a new directory");
    let key = include_bytes!("../fixtures/test-only.rsa.pub");
    fs::write(keys.join("test-only.rsa.pub"), key).expect("a key");
    let build = |names: &[&str]| build(&request(repository.path(), "x86_64", names));
    let (image, _store) = build(&["base", "taker", "late"]);
    for (path, content) in [
        ("etc/early-a", "another\n"),
        ("etc/early-b", "of early\n"),
        ("etc/late-a", "another\n"),
        ("etc/late-c", "of late\n"),
    ] {
        let found = image.root.read(path).expect("a tree").expect("it is there");
        assert_eq!(String::from_utf8_lossy(&found), content, "{path}");
    }
    let inode = |path: &str| image.root.stat(path).expect("a tree").expect("it").inode;
    assert_eq!(inode("etc/early-b"), inode("etc/early-c"));
    assert_eq!(inode("etc/late-b"), inode("etc/late-c"));
    assert_ne!(inode("etc/early-a"), inode("etc/early-b"));
    // As in the root that apk makes; it refuses `late`, whose first name is left out.
    let names = ["base", "taker"];
    let (image, _store) = build(&names);
    let differences = compare(repository.path(), &names, &image);
    assert!(differences.is_empty(), "{}", differences.join("\n"));
}

/// Makes a package of nothing but a script, beside the others.
fn scripted(folder: &Path, name: &str, script: &str) -> NewPackage {
    use ibex::format::apk::PackageReader;
    use ibex::format::package_writer::{self, EntryContent, EntrySpec, PackageContents};
    use ibex::package::ScriptKind;
    let contents = PackageContents {
        package: Package {
            name: name.to_owned(),
            version: "1-r0".to_owned(),
            arch: Some("x86_64".to_owned()),
            installed_size: 1,
            ..Package::default()
        },
        scripts: BTreeMap::from([(ScriptKind::PostInstall, script.as_bytes().to_vec())]),
        entries: vec![
            EntrySpec::new("etc", EntryContent::Directory),
            EntrySpec::new(
                format!("etc/{name}"),
                EntryContent::File(b"text\n".to_vec()),
            ),
        ],
    };
    let bytes = package_writer::write(&contents, None).expect("a package");
    let path = folder.join(format!("{name}.apk"));
    fs::write(&path, &bytes).expect("a file");
    let (control, _) =
        PackageReader::open(bytes.as_slice(), &Limits::default()).expect("a package");
    NewPackage {
        package: Package {
            installed_size: 1,
            ..control.package
        },
        tag: None,
        source: Source::File(path),
    }
}

#[test]
fn scripts_that_cannot_be_read_run_in_a_sandbox() {
    let (Some(repository), true) = (support::data("alpine-v3.19"), support::is_root()) else {
        return;
    };
    let folder = tempfile::tempdir().expect("a temporary directory");
    let mut request = request(&repository, "x86_64", &["busybox", "busybox-binsh"]);
    // A pipe is nothing that is carried out without running.
    let script = "#!/bin/sh\n\
        echo abc | tr a-c x-z > /etc/made\n\
        chown 12:34 /etc/made\n\
        rm /etc/own\n\
        grep -c : /proc/net/dev > /etc/interfaces\n\
        echo $$ > /etc/pid\n\
        echo x > /tmp/lost\n\
        ls /work /home/builder 2>/dev/null | cat\n\
        echo \"$APK_PACKAGE $APK_SCRIPT $1 $(id -u) ${HOME-none}\"\n";
    request
        .packages
        .push(scripted(folder.path(), "own", script));
    let (image, _store) = build(&request);
    let outcome = image
        .scripts
        .iter()
        .find(|o| o.package == "own")
        .expect("an outcome");
    assert_eq!(outcome.result, ScriptResult::NotRun);
    assert_eq!(outcome.detail, "it has a pipe");
    assert!(
        image
            .warnings
            .iter()
            .any(|warning| warning.code == "W-SCRIPT-SKIPPED")
    );
    assert_eq!(image.root.read("etc/made").expect("a tree"), None);
    request.fail_on_skipped_script = true;
    let store = tempfile::tempdir().expect("a temporary directory");
    let store = Store::open(store.path()).expect("a store");
    let error = image::build(&request, &store, &mut Silent).expect_err("an error");
    assert_eq!((error.code(), error.hints().len()), ("E-SCRIPT-SKIPPED", 1));
    let text = "scripts were not run: own post-install";
    assert!(error.to_string().starts_with(text), "{error}");

    request.scripts = ScriptMode::Run;
    let image = match image::build(&request, &store, &mut Silent) {
        // Where tests run, namespaces may be forbidden altogether.
        Err(image::ImageError::NoSandbox { reason }) if std::env::var_os("CI").is_none() => {
            eprintln!("skipped: {reason}");
            return;
        }
        other => other.expect("an image"),
    };
    let outcome = image
        .scripts
        .iter()
        .find(|o| o.package == "own")
        .expect("an outcome");
    assert_eq!(
        (outcome.result, outcome.detail.as_str()),
        (ScriptResult::Ran, "own post-install 1-r0 0 none")
    );
    let read = |path: &str| {
        let bytes = image.root.read(path).expect("a tree");
        bytes.map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
    };
    assert_eq!(read("etc/made").as_deref(), Some("xyz\n"));
    let made = image
        .root
        .stat("etc/made")
        .expect("a tree")
        .expect("it is there");
    assert_eq!((made.uid, made.gid, made.mode), (12, 34, 0o644));
    assert_eq!(read("etc/own"), None, "what the script removed is gone");
    assert_eq!(
        read("etc/interfaces").as_deref(),
        Some("1\n"),
        "only the loopback is there"
    );
    assert_eq!(
        read("etc/pid").as_deref(),
        Some("1\n"),
        "no other process is seen"
    );
    assert_eq!(read("tmp/lost"), None);
    let entries = image.root.tree().expect("a tree").entries();
    let made = entries
        .iter()
        .find(|entry| entry.path == "etc/made")
        .expect("it is there");
    assert_eq!(made.mtime, request.build_time);
    assert!(
        !entries
            .iter()
            .any(|entry| entry.path.starts_with("lib/apk/exec/"))
    );

    // A script that fails, and one for another processor.
    request.packages.pop();
    let script = "#!/bin/sh\necho why | cat\nexit 3\n";
    request
        .packages
        .push(scripted(folder.path(), "bad", script));
    let error = image::build(&request, &store, &mut Silent).expect_err("an error");
    assert_eq!(error.code(), "E-SCRIPT-FAILED");
    let text = "post-install of bad failed: exit code 3\nwhy";
    assert_eq!(error.to_string(), text);
    request.architecture = "s390x".to_owned();
    let error = image::build(&request, &store, &mut Silent).expect_err("an error");
    assert_eq!(error.code(), "E-SCRIPT-ARCH");
}

/// What scripts of packages do, by the commands that are carried out without running anything; each
/// in its own directory, but for what is everybody's.
const FORMS: [&str; 24] = [
    "addgroup -S one; addgroup -g 77 -S two; adduser -S -D -H -h /var/one -s /sbin/nologin -G one -g One one",
    "adduser -S -D -H three; adduser -D -u 1234 -h /srv/four -g Four four; adduser four two; addgroup three two",
    "adduser -D five; passwd -u five; addgroup -S one 2>/dev/null; adduser -S one 2>/dev/null; exit 0",
    "adduser -S -D -H -u 300 -G nogroup six; adduser -D -H -s /bin/ash -G users seven || true",
    "mkdir -p a/b/c; mkdir -m 2750 d; mkdir -p -m 1777 e/f; install -d -m 0710 -o 12 -g 34 g/h",
    "echo x > f; install -m 0640 -o daemon -g bin f i; install -D -m 755 f j/k/l; cp -p i m",
    "touch a b; mkdir -p d/e; touch d/e/f; chown daemon a; chown 5:6 b; chown -R bin:daemon d; chgrp mail a",
    "touch a b c; chmod 4755 a; chmod u=rw,g=r,o= b; chmod a+x,g-w,+t c; mkdir d; touch d/e; chmod -R go-rwx d",
    "touch a; ln -s a b; ln -sf /etc/none b; ln a c; ln -s ../x d; mkdir e; ln -s a e; ln -snf q e/a; readlink d",
    "touch a b c; rm -f a nothing; mkdir -p d/e/f; rm -rf d/e; rmdir d; rm b || true; mkdir x; rmdir x",
    "echo 1 > a; mv a b; mkdir d; mv b d; cp d/b c; cp -p d/b f; mkdir g; cp d/b c g; echo 2 > d/b; mv -f d/b c",
    "printf '%s-%s\\n' a 7 > p; printf 'a\\tb\\n' >> p; echo -n end >> p; echo 'x\\ty' >> p",
    "cat > h <<EOF\n$1 `basename /a/b.c .c` $(dirname /a/b)\nEOF\ncat h >> h2; cat - < h > h3",
    "printf 'a=1\\nb=2\\n#c=3\\n' > s; sed -i 's/^a=.*/a=9/' s; sed -i -E -e 's/^(b)=/\\1\\1=/' s; sed -i 's|^#||' s; sed 's/c/C/g' s > t",
    "printf 'one\\ntwo\\n' > g; grep -q two g && echo yes > y; grep -v one g > z; grep -qx on g || echo no > n",
    "for i in 1 2 3; do [ $i -eq 2 ] && continue; echo $i >> f; done; i=a; while [ ${#i} -lt 4 ]; do i=$i$i; echo $i >> w; done",
    "case \"$1\" in 1-*) echo first > f;; *) echo other > f;; esac; v=${1%-r*}; echo \"$v ${v:-n} ${#v}\" >> f",
    "f() { local x=$1; echo \"$x $#\" > \"$x\"; return 3; }; f a b || echo $? > rc; set -- q r; echo \"$@\" > args",
    "if [ ! -e none ] && [ -d . ] && [ -n \"$1\" ] && test -f /etc/passwd; then echo in > i; else echo out > o; fi; [ -L i ] || [ -s i ] && echo s > s",
    "add-shell /bin/own; add-shell /bin/own /bin/ash; remove-shell /bin/ash; true",
    "touch a.conf b.conf c; for f in *.conf; do mv $f ${f%.conf}.cfg; done; echo *.cfg none* > l",
    "umask 022; echo x > u; mkdir v; echo y > w; : > empty; true && echo z >> w; false || echo q >> w",
    "set -e; mkdir a; cd a; echo x > b; cd ..; (cd a; echo y >> b); [ -e a/b ]; exit 0",
    "mkdir -p /var/lib/own; ln -sf /var/lib/own /usr/own; rm -f /etc/motd; sed -i 's/^root/root/' /etc/group; echo 'x y' >> /etc/profile.own",
];

#[test]
fn commands_of_scripts_do_what_busybox_does() {
    let (Some(repository), true) = (support::data("alpine-v3.19"), support::is_root()) else {
        return;
    };
    let folder = tempfile::tempdir().expect("a temporary directory");
    let names = ["alpine-baselayout-data", "busybox", "busybox-binsh"];
    let mut request = request(&repository, "x86_64", &names);
    let mut scripts = Vec::new();
    for (number, form) in FORMS.iter().enumerate() {
        let name = format!("form{number:02}");
        let script =
            format!("#!/bin/sh\nmkdir -p /opt/{name} && cd /opt/{name} || exit 9\n{form}\n");
        request
            .packages
            .push(scripted(folder.path(), &name, &script));
        scripts.push((name, script));
    }
    let (emulated, _store) = build(&request);
    let outcomes = emulated.scripts.iter();
    let other = outcomes
        .filter(|one| one.package.starts_with("form") && one.result != ScriptResult::Emulated);
    let other: Vec<String> = other.map(|one| format!("{one:?}")).collect();
    assert!(other.is_empty(), "{}", other.join("\n"));
    // The same packages with nothing of the scripts done, which the shell inside then runs.
    request.scripts = ScriptMode::Builtin;
    let (plain, _store) = build(&request);
    let theirs = Sandbox::new();
    unpack(&plain, &theirs.root());
    for (name, script) in &scripts {
        fs::write(theirs.root().join("script"), script).expect("a file");
        let mut shell = Command::new("chroot");
        shell
            .env_clear()
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
        shell
            .arg(theirs.root())
            .args(["/bin/busybox", "sh", "/script", "1-r0"]);
        let ran = support::run(&mut shell);
        assert_eq!(ran.code, 0, "{name}: {}", ran.output);
    }
    fs::remove_file(theirs.root().join("script")).expect("it is there");
    let differences = against(support::tree(&theirs.root(), STARTED), &emulated);
    assert!(differences.is_empty(), "{}", differences.join("\n"));
    // The day is that of the build, and elsewhere today.
    let without_day = |text: &[u8]| -> Vec<String> {
        let text = String::from_utf8_lossy(text).into_owned();
        let fields = text.lines().map(|line| line.split(':').enumerate());
        let others = fields.map(|fields| fields.filter(|(at, _)| *at != 2));
        others
            .map(|fields| fields.map(|(_, field)| field).collect::<Vec<_>>().join(":"))
            .collect()
    };
    let wanted = fs::read(theirs.root().join("etc/shadow")).expect("a file");
    let found = emulated.root.read("etc/shadow").expect("a tree");
    assert_eq!(without_day(&found.expect("a file")), without_day(&wanted));
}
