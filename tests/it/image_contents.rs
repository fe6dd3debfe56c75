//! What happens inside a build: scripts, certificates, the cache of the dynamic linker, services,
//! one directory for libraries, limits; and that every error code has a case.

use super::image_build::{build, request, request_of};
use super::image_packages::{Desk, said};
use super::support::repository::{Made, Repository, directory, file, package, symlink};
use super::support::{self, Sandbox, data, run};
use ibex::format::Limits;
use ibex::format::apk::PackageReader;
use ibex::format::package_writer::EntrySpec;
use ibex::image::{
    self, BuildRequest, BuiltImage, Certificate, ScriptMode, ScriptResult, Store, output,
};
use ibex::package::{Dependency, ScriptKind, World};
use ibex::plan::{NewPackage, Source};
use ibex::progress::Silent;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Returns whether a program of Debian is there; in CI it must be.
fn has(program: &str) -> bool {
    let found = ["/usr/bin", "/usr/sbin", "/sbin"]
        .iter()
        .any(|folder| Path::new(folder).join(program).exists());
    let ci = std::env::var_os("CI").is_some_and(|value| value == "true");
    assert!(found || !ci, "{program} is missing");
    if !found {
        eprintln!("skipped: {program} is missing");
    }
    found
}

/// Makes a request for packages made here, in this order.
pub(crate) fn request_for(folder: &Path, packages: &[Made]) -> BuildRequest {
    let new = packages.iter().map(|made| {
        let bytes = made.build();
        let (control, _) =
            PackageReader::open(bytes.as_slice(), &Limits::default()).expect("a package");
        let path = folder.join(format!("{}.apk", made.contents.package.name));
        fs::write(&path, &bytes).expect("a file");
        NewPackage {
            package: control.package,
            tag: None,
            source: Source::File(path),
        }
    });
    request_of("x86_64", new.collect())
}

fn text(image: &BuiltImage, path: &str) -> Option<String> {
    let bytes = image.root.read(path).expect("a tree");
    bytes.map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
}

/// Returns the outcome of a package's only script.
fn outcome(image: &BuiltImage, package: &str) -> (ScriptResult, String) {
    let found = image.scripts.iter().find(|one| one.package == package);
    let found = found.expect("it has a script");
    (found.result, found.detail.clone())
}

/// Makes a certificate that signs itself; returns it as PEM.
fn certificate(folder: &Path, name: &str, subject: &str) -> String {
    let (key, path) = (folder.join("key.pem"), folder.join(format!("{name}.pem")));
    let mut openssl = Command::new("openssl");
    openssl.args(["req", "-x509", "-newkey", "ec", "-pkeyopt"]);
    openssl.args([
        "ec_paramgen_curve:P-256",
        "-nodes",
        "-utf8",
        "-multivalue-rdn",
    ]);
    openssl.args(["-days", "9000", "-subj", subject, "-keyout"]);
    openssl.arg(&key).arg("-out").arg(&path);
    run(&mut openssl).success();
    fs::read_to_string(path).expect("a certificate")
}

const UPDATE: &str = "/usr/sbin/update-ca-certificates --fresh  &> /dev/null\nexit 0";

#[test]
fn certificates_are_found_by_hash_as_openssl_finds_them() {
    if !has("openssl") {
        return;
    }
    let folder = tempfile::tempdir().expect("a temporary directory");
    let mut certificates: BTreeMap<String, String> = BTreeMap::new();
    for (name, subject) in [
        ("One Two.crt", "/C=DE/O=A  Name with   Blanks /CN=one"),
        ("two(2).crt", "/C=DE/O=a name with blanks/CN=ONE"),
        ("grün.crt", "/C=DE/O=Grün & Söhne/CN=Über"),
        ("multi.crt", "/C=DE/O=x+OU=y+CN=z/L=w"),
        ("japan.crt", "/C=JP/O=日本/CN=root"),
    ] {
        certificates.insert(name.to_owned(), certificate(folder.path(), "c", subject));
    }
    let one = certificates["One Two.crt"].clone();
    certificates.insert("again.crt".to_owned(), one.clone());
    certificates.insert("both.crt".to_owned(), format!("{one}{one}"));
    certificates.insert("none.crt".to_owned(), "no certificate\n".to_owned());
    // Authorities of the world, in every form that they have used.
    for entry in fs::read_dir("/usr/share/ca-certificates/mozilla")
        .into_iter()
        .flatten()
    {
        let path = entry.expect("an entry").path();
        let name = path
            .file_name()
            .expect("a name")
            .to_string_lossy()
            .into_owned();
        certificates.insert(name, fs::read_to_string(&path).expect("a certificate"));
    }
    let shared = "usr/share/ca-certificates";
    let mut entries = vec![
        directory("etc"),
        directory("usr"),
        directory("usr/share"),
        directory(shared),
    ];
    for (name, pem) in &certificates {
        entries.push(file(&format!("{shared}/{name}"), pem));
    }
    let names: String = certificates
        .keys()
        .map(|name| format!("{name}\n"))
        .collect();
    let chosen = format!(
        "# a comment\n!japan.crt\nlost.crt\n{}",
        names.replace("japan.crt\n", "")
    );
    entries.push(file("etc/ca-certificates.conf", chosen));
    let authorities =
        package("ca-certificates", "1-r0", entries).script(ScriptKind::PostInstall, UPDATE);
    let mut request = request_for(folder.path(), &[authorities]);
    request.certificates = vec![Certificate {
        name: "mine".to_owned(),
        pem: certificate(folder.path(), "mine", "/CN=mine"),
    }];
    let (image, _store) = build(&request);
    assert_eq!(
        outcome(&image, "ca-certificates"),
        (ScriptResult::Emulated, String::new())
    );
    let trusted = "etc/ssl/certs";
    let bundle = text(&image, &format!("{trusted}/ca-certificates.crt")).expect("a bundle");
    let chosen: String = certificates
        .iter()
        .filter(|(name, _)| *name != "japan.crt")
        .map(|(_, pem)| pem.as_str())
        .collect();
    // What the description adds stands after what the distribution has.
    let rest = bundle
        .strip_prefix(&chosen)
        .expect("the distribution's come first");
    assert_eq!(rest.trim_end(), request.certificates[0].pem.trim_end());
    let sum = image::store::sha256_hex(bundle.as_bytes());
    assert_eq!(
        text(&image, &format!("{trusted}/.ca-certificates.crt.sha256")).as_deref(),
        Some(format!("{sum}  ca-certificates.crt\n").as_str())
    );
    // The same files under the same names, hashed by the real one.
    let theirs = folder.path().join("theirs");
    fs::create_dir(&theirs).expect("a folder");
    let directory = image.root.directory(trusted).expect("a directory");
    let (mut ours, mut links) = (BTreeSet::new(), 0);
    for name in directory.list().expect("a directory") {
        let name = name.into_string().expect("a text");
        let Ok(target) = directory.read_link(&name) else {
            continue;
        };
        let target = String::from_utf8(target).expect("a text");
        match target.strip_prefix("/") {
            Some(target) => {
                let content = text(&image, target).expect("what a link leads to");
                fs::write(theirs.join(&name), content).expect("a file");
                links += 1;
            }
            None => {
                ours.insert((name[..8].to_owned(), target));
            }
        }
    }
    assert_eq!(links, certificates.len() - 1);
    assert!(
        directory
            .stat("ca-cert-two=2=.pem")
            .expect("a tree")
            .is_some()
    );
    assert!(
        directory
            .stat("ca-cert-One_Two.pem")
            .expect("a tree")
            .is_some()
    );
    run(Command::new("openssl").arg("rehash").arg(&theirs)).success();
    let mut wanted = BTreeSet::new();
    for entry in fs::read_dir(&theirs).expect("a folder") {
        let path = entry.expect("an entry").path();
        if let Ok(target) = fs::read_link(&path) {
            let name = path
                .file_name()
                .expect("a name")
                .to_string_lossy()
                .into_owned();
            wanted.insert((name[..8].to_owned(), target.display().to_string()));
        }
    }
    // Of two files with one certificate, which has the link is up to the order of a directory.
    for set in [&mut ours, &mut wanted] {
        let again = |(_, name): &(String, String)| {
            matches!(name.as_str(), "ca-cert-again.pem" | "ca-cert-One_Two.pem")
        };
        let hash = set
            .iter()
            .find(|pair| again(pair))
            .expect("one of them")
            .0
            .clone();
        set.retain(|pair| !again(pair));
        set.insert((hash, "one of two".to_owned()));
    }
    assert_eq!(ours, wanted);
}

#[test]
fn hooks_that_are_not_known_are_not_passed_over() {
    let folder = tempfile::tempdir().expect("a temporary directory");
    let entries = vec![
        directory("etc"),
        directory("etc/ca-certificates"),
        directory("etc/ca-certificates/update.d"),
        file("etc/ca-certificates/update.d/certhash", "#!/bin/sh\n"),
        file("etc/ca-certificates/update.d/java-cacerts", "#!/bin/sh\n"),
    ];
    let made = package("java-cacerts", "1-r0", entries).script(ScriptKind::PostInstall, UPDATE);
    let (image, _store) = build(&request_for(folder.path(), &[made]));
    let reason = "`update-ca-certificates` would run java-cacerts".to_owned();
    assert_eq!(
        outcome(&image, "java-cacerts"),
        (ScriptResult::NotRun, reason)
    );
    assert_eq!(text(&image, "etc/ssl/certs/ca-certificates.crt"), None);
}

/// Reads a trust store of Java: names with dates and certificates.
fn java_store(bytes: &[u8]) -> Vec<(String, u64, Vec<u8>)> {
    let mut at = 8;
    let mut take = |count: usize| {
        at += count;
        &bytes[at - count..at]
    };
    let number = |bytes: &[u8]| {
        bytes
            .iter()
            .fold(0_u64, |all, byte| all << 8 | u64::from(*byte))
    };
    let count = number(take(4));
    let mut entries = Vec::new();
    for _ in 0..count {
        assert_eq!(number(take(4)), 2, "a certificate");
        let length = number(take(2)) as usize;
        let alias = String::from_utf8(take(length).to_vec()).expect("a name");
        let date = number(take(8));
        let length = number(take(2)) as usize;
        assert_eq!(take(length), b"X.509");
        let length = number(take(4)) as usize;
        entries.push((alias, date, take(length).to_vec()));
    }
    assert_eq!(at + 20, bytes.len());
    entries
}

#[test]
fn certificates_of_a_description_and_of_providers() {
    if !has("openssl") || !has("trust") {
        return;
    }
    let folder = tempfile::tempdir().expect("a temporary directory");
    // A store that another program made.
    let store = folder.path().join("cacerts");
    let mut trust = Command::new("trust");
    trust.args(["extract", "--format=java-cacerts", "--filter=ca-anchors"]);
    run(trust.arg(&store)).success();
    let store = fs::read(store).expect("a store");
    let before = java_store(&store);
    let local = "usr/local/share/ca-certificates";
    let provided = certificate(folder.path(), "p", "/CN=provided");
    let layout = [
        "etc",
        "etc/ssl",
        "etc/ssl/certs",
        "etc/ssl/certs/java",
        "usr",
        "usr/local",
        "usr/local/share",
        local,
    ];
    let mut entries: Vec<EntrySpec> = layout.iter().map(|path| directory(path)).collect();
    entries.push(file("etc/ssl/certs/ca-certificates.crt", "the bundle"));
    entries.push(file("etc/ssl/certs/java/cacerts", &store));
    let base = package("base", "1-r0", entries);
    let company = package(
        "company-ca",
        "1-r0",
        vec![
            directory("usr"),
            directory("usr/local"),
            directory("usr/local/share"),
            directory(local),
            file(&format!("{local}/company.crt"), &provided),
            file(&format!("{local}/README"), "nothing\n"),
        ],
    )
    .with(|package| {
        package.provides = vec![Dependency::exact("our-certificates", "1")];
    });
    let mut request = request_for(folder.path(), &[base, company]);
    let mine = certificate(folder.path(), "m", "/CN=mine");
    request.certificates = vec![Certificate {
        name: "Mine".to_owned(),
        pem: mine.clone(),
    }];
    let (image, _store) = build(&request);
    let bundle = text(&image, "etc/ssl/certs/ca-certificates.crt").expect("a bundle");
    assert_eq!(
        bundle,
        format!("the bundle\n{mine}\n"),
        "nobody asked for providers"
    );
    request.certificate_providers = vec!["our-certificates".to_owned()];
    let (image, _store) = build(&request);
    assert!(
        image
            .warnings
            .iter()
            .all(|warning| warning.code != "W-JAVA-STORE")
    );
    let bundle = text(&image, "etc/ssl/certs/ca-certificates.crt").expect("a bundle");
    assert_eq!(bundle, format!("the bundle\n{mine}\n{provided}\n"));
    let found = image.root.list(local).expect("a directory");
    let written = found
        .iter()
        .filter_map(|name| name.to_str()?.strip_prefix("Mine-")?.strip_suffix(".crt"));
    let digests: Vec<&str> = written.collect();
    assert_eq!(digests.len(), 1, "{found:?}");
    let bytes = image
        .root
        .read("etc/ssl/certs/java/cacerts")
        .expect("a tree");
    let after = java_store(&bytes.clone().expect("a store"));
    assert_eq!(after.len(), before.len() + 2);
    let names: Vec<&str> = after.iter().map(|(name, ..)| name.as_str()).collect();
    assert!(names.is_sorted());
    let mine = after
        .iter()
        .find(|(name, ..)| name == "mine")
        .expect("it was added");
    assert_eq!(mine.1, request.build_time * 1000);
    assert_eq!(image::store::sha256_hex(&mine.2), digests[0]);
    let package = after.iter().find(|(name, ..)| name.starts_with("pkg-"));
    let package = package.expect("it was added");
    assert_eq!(
        package.0,
        format!("pkg-{}", image::store::sha256_hex(&package.2))
    );
    for known in &before {
        assert!(after.contains(known), "{} was lost", known.0);
    }
    // What seals the store is checked by who reads it: read again and added to again.
    let sealed = text(&image, "etc/ssl/certs/java/.cacerts.sha256").expect("a digest");
    let sum = image::store::sha256_hex(&bytes.expect("a store"));
    assert_eq!(sealed, format!("{sum}  cacerts\n"));
    // A store in another form is told of and left as it is.
    let other = package_with_store(b"\x30\x82 PKCS #12");
    request.packages = request_for(folder.path(), &[other]).packages;
    let (image, _store) = build(&request);
    assert_eq!(
        image
            .root
            .read("etc/ssl/certs/java/cacerts")
            .expect("a tree")
            .as_deref(),
        Some(&b"\x30\x82 PKCS #12"[..])
    );
    assert!(
        image
            .warnings
            .iter()
            .any(|warning| warning.code == "W-JAVA-STORE")
    );
}

fn package_with_store(bytes: &[u8]) -> Made {
    let layout = ["etc", "etc/ssl", "etc/ssl/certs", "etc/ssl/certs/java"];
    let mut entries: Vec<EntrySpec> = layout.iter().map(|path| directory(path)).collect();
    entries.push(file("etc/ssl/certs/java/cacerts", bytes));
    package("other", "1-r0", entries)
}

/// Returns a shared library of this machine, through links.
fn library(name: &str) -> Option<PathBuf> {
    let found = [
        "/lib/x86_64-linux-gnu",
        "/usr/lib/x86_64-linux-gnu",
        "/lib64",
    ]
    .iter()
    .map(|folder| Path::new(folder).join(name))
    .find(|path| path.exists());
    if found.is_none() {
        eprintln!("skipped: no {name} on this machine");
    }
    found
}

#[test]
fn the_cache_of_the_dynamic_linker_is_that_of_ldconfig() {
    let names = [
        "libz.so.1",
        "libc.so.6",
        "libm.so.6",
        "libcrypt.so.1",
        "ld-linux-x86-64.so.2",
    ];
    let found: Option<Vec<Vec<u8>>> = names
        .iter()
        .map(|name| library(name).map(|path| fs::read(path).expect("a library")))
        .collect();
    let (Some(libraries), true) = (found, has("ldconfig")) else {
        return;
    };
    let [z, c, m, crypt, linker] = libraries.as_slice() else {
        unreachable!("five names were given");
    };
    let program = |path: &str, bytes: &[u8]| EntrySpec {
        mode: 0o755,
        ..file(path, bytes)
    };
    let folders = [
        "bin",
        "etc",
        "etc/ld.so.conf.d",
        "lib",
        "lib64",
        "opt",
        "opt/first",
        "opt/second",
        "usr",
        "usr/lib",
    ];
    let mut entries: Vec<EntrySpec> = folders.iter().map(|path| directory(path)).collect();
    entries.extend([
        program("bin/true", &fs::read("/bin/true").expect("a program")),
        file(
            "etc/ld.so.conf",
            "# where\ninclude /etc/ld.so.conf.d/*.conf\n/opt/second # last\n",
        ),
        file("etc/ld.so.conf.d/a.conf", "/opt/first\n/no/where\n/lib/\n"),
        file("etc/ld.so.conf.d/b.txt", "/opt/never\n"),
        program("lib64/ld-linux-x86-64.so.2", linker),
        // Two of one name in two directories, links, one for who links programs, no libraries.
        program("opt/first/libz.so.1.9.9", z),
        symlink("opt/first/libz.so.1", "libz.so.1.9.9"),
        symlink("opt/first/libz.so", "libz.so.1"),
        program("opt/first/libplugin.so", m),
        symlink("opt/first/libm.so.6", "libplugin.so"),
        program("opt/second/libz.so.1", z),
        program("opt/second/libc.so.6", c),
        program("lib/libcrypt.so.1", crypt),
        file("lib/libtext.so", "INPUT(libm.so.6)\n"),
        symlink("lib/libdangling.so.1", "nowhere"),
        symlink("usr/lib/libcrypt.so", "../../lib/libcrypt.so.1"),
        file("usr/lib/other.so", "not a library\n"),
    ]);
    let folder = tempfile::tempdir().expect("a temporary directory");
    let (image, _store) = build(&request_for(
        folder.path(),
        &[package("glibc", "1-r0", entries)],
    ));
    let root = folder.path().join("root");
    output::rootfs_directory(&image, &root, output::Ownership::default())
        .expect("a root file system");
    let listed = |cache: &Path| {
        let mut command = Command::new("ldconfig");
        let said = run(command.arg("-p").arg("-C").arg(cache)).success().output;
        let lines = said.lines().filter(|line| line.starts_with('\t'));
        lines.map(str::to_owned).collect::<Vec<_>>()
    };
    let ours = listed(&root.join("etc/ld.so.cache"));
    let mut command = Command::new("ldconfig");
    command
        .arg("-X")
        .arg("-r")
        .arg(&root)
        .args(["-C", "/etc/theirs"]);
    run(&mut command).success();
    let mut theirs = listed(&root.join("etc/theirs"));
    // Debian's has no /lib64 among its own directories; other distributions' have.
    theirs.push("\tld-linux-x86-64.so.2 (libc6,x86-64) => /lib64/ld-linux-x86-64.so.2".to_owned());
    assert_eq!(ours, theirs);
    // The dynamic linker finds what only the cache tells of.
    if support::is_root() {
        let mut command = Command::new("chroot");
        run(command.arg(&root).arg("/bin/true")).success();
    }
    // Where there is no glibc there is no cache.
    let (image, _store) = build(&request_for(
        folder.path(),
        &[package("musl", "1-r0", vec![])],
    ));
    assert_eq!(text(&image, "etc/ld.so.cache"), None);
}

/// What becomes of the scripts of real systems; a line each.
const REAL_SCRIPTS: &str = include_str!("image_scripts.txt");

#[test]
fn scripts_of_real_systems() {
    let Some(folder) = data("installed") else {
        return;
    };
    let mut scripts: BTreeMap<String, Vec<u8>> = BTreeMap::new();
    let mut systems: Vec<PathBuf> = fs::read_dir(&folder)
        .expect("a folder")
        .map(|entry| entry.expect("an entry").path())
        .collect();
    systems.sort();
    for system in systems {
        for name in ["lib/apk/db/scripts.tar", "lib/apk/db/scripts.tar.gz"] {
            let Ok(bytes) = fs::read(system.join(name)) else {
                continue;
            };
            let plain: Box<dyn std::io::Read> = match name.ends_with(".gz") {
                true => Box::new(flate2::read::MultiGzDecoder::new(bytes.as_slice())),
                false => Box::new(bytes.as_slice()),
            };
            let mut archive = tar::Archive::new(plain);
            for entry in archive.entries().expect("an archive") {
                let mut entry = entry.expect("an entry");
                let path = entry.path().expect("a name").display().to_string();
                let kind = path.rsplit('.').next().unwrap_or_default().to_owned();
                if !["pre-install", "post-install", "trigger"].contains(&kind.as_str()) {
                    continue;
                }
                let mut text = Vec::new();
                std::io::Read::read_to_end(&mut entry, &mut text).expect("a script");
                // `NAME-VERSION.HASH.KIND`, and a version begins with a digit after the last dash
                // but one.
                let full = path.split(".Q1").next().unwrap_or_default();
                let full = full.split(".X1").next().unwrap_or_default();
                scripts.insert(format!("{full} {kind}"), text);
            }
        }
    }
    let place = tempfile::tempdir().expect("a temporary directory");
    let layout = ["bin", "etc", "etc/runlevels", "run", "usr", "usr/share"];
    let mut entries: Vec<EntrySpec> = layout.iter().map(|path| directory(path)).collect();
    entries.push(file("etc/passwd", "root:x:0:0:root:/root:/bin/sh\n"));
    entries.push(file("etc/group", "root:x:0:\n"));
    entries.push(file("etc/shells", "/bin/sh\n"));
    let mut packages = vec![package("base", "1-r0", entries)];
    for (number, (name, text)) in scripts.iter().enumerate() {
        let mut made = package(&format!("p{number}"), "1-r0", Vec::new()).with(|package| {
            let stem = name.split(' ').next().unwrap_or_default();
            let mut parts = stem.rsplitn(3, '-');
            package.origin = parts.nth(2).map(str::to_owned);
        });
        made.contents
            .scripts
            .insert(ScriptKind::PostInstall, text.clone());
        packages.push(made);
    }
    let (image, _store) = build(&request_for(place.path(), &packages));
    let mut found = String::new();
    for (number, name) in scripts.keys().enumerate() {
        let (result, detail) = outcome(&image, &format!("p{number}"));
        let detail = match result {
            ScriptResult::NotRun | ScriptResult::BuiltIn => {
                format!(": {}", detail.replace('\n', "; "))
            }
            _ => String::new(),
        };
        found.push_str(&format!("{name}: {}{detail}\n", result.as_str()));
    }
    // What was found is left there, to be looked at and taken over.
    let left = Path::new(env!("CARGO_TARGET_TMPDIR")).join("image_scripts.txt");
    fs::write(left, &found).expect("a file");
    assert_eq!(found, REAL_SCRIPTS);
}

/// Returns an image, or `None` where the system allows no sandbox outside of CI.
fn in_sandbox(request: &BuildRequest) -> Option<Result<BuiltImage, image::ImageError>> {
    let store = tempfile::tempdir().expect("a temporary directory");
    let store = Store::open(store.path()).expect("a store");
    match image::build(request, &store, &mut Silent) {
        Err(image::ImageError::NoSandbox { reason }) if std::env::var_os("CI").is_none() => {
            eprintln!("skipped: {reason}");
            None
        }
        other => Some(other),
    }
}

#[test]
fn scripts_that_differ_and_scripts_that_fail() {
    let (Some(repository), true) = (data("alpine-v3.19"), support::is_root()) else {
        return;
    };
    let folder = tempfile::tempdir().expect("a temporary directory");
    let mut request = request(&repository, "x86_64", &["busybox", "busybox-binsh"]);
    request.scripts = ScriptMode::Run;
    let base = request.packages.clone();
    let with = |request: &mut BuildRequest, script: &str| {
        let made =
            package("own", "1-r0", vec![directory("etc")]).script(ScriptKind::PostInstall, script);
        request.packages = base.clone();
        request
            .packages
            .append(&mut request_for(folder.path(), &[made]).packages);
    };
    with(
        &mut request,
        "echo same | cat > /etc/same\nhead -c 9 /dev/urandom | od > /etc/luck",
    );
    request.check_scripts = true;
    let Some(result) = in_sandbox(&request) else {
        return;
    };
    let error = result.expect_err("it differs");
    assert_eq!((error.code(), error.hints().len()), ("E-SCRIPT-NONDET", 1));
    let text_of = "post-install of own makes something else each time: /etc/luck";
    assert_eq!(error.to_string(), text_of);
    with(&mut request, "echo same | cat > /etc/same");
    let image = in_sandbox(&request)
        .expect("it worked before")
        .expect("an image");
    assert_eq!(text(&image, "etc/same").as_deref(), Some("same\n"));
    assert_eq!(outcome(&image, "own").0, ScriptResult::Ran);

    with(
        &mut request,
        "echo half | cat > /etc/half\necho why\nexit 4",
    );
    request.check_scripts = false;
    let error = in_sandbox(&request)
        .expect("it worked before")
        .expect_err("it fails");
    assert_eq!(error.code(), "E-SCRIPT-FAILED");
    request.scripts_warn = true;
    let image = in_sandbox(&request)
        .expect("it worked before")
        .expect("an image");
    assert_eq!(text(&image, "etc/half").as_deref(), Some("half\n"));
    let warning = image
        .warnings
        .iter()
        .find(|one| one.code == "W-SCRIPT-FAILED");
    let warning = warning.expect("a warning");
    assert_eq!(warning.text, "own post-install: exit code 4; why");

    // Another processor: an error if it was asked for by an option, else told like any other.
    request.architecture = "s390x".to_owned();
    let error = in_sandbox(&request)
        .expect("it worked before")
        .expect_err("foreign");
    assert_eq!(error.code(), "E-SCRIPT-ARCH");
    assert_eq!(error.to_string(), "scripts of s390x cannot be run here");
    request.scripts_must_run = false;
    let image = in_sandbox(&request)
        .expect("it worked before")
        .expect("an image");
    let reason = "scripts of s390x cannot be run here".to_owned();
    assert_eq!(outcome(&image, "own"), (ScriptResult::NotRun, reason));
}

/// A repository of packages made here, and a desk with descriptions of images of them.
struct Shop {
    desk: Desk,
    sandbox: Sandbox,
}

impl Shop {
    fn new(packages: &[Made]) -> Self {
        let shop = Self {
            desk: Desk::empty(),
            sandbox: Sandbox::new(),
        };
        shop.offer("repository", packages);
        shop
    }

    /// Makes a repository; returns its place.
    fn offer(&self, name: &str, packages: &[Made]) -> String {
        let mut repository = Repository::named(&self.sandbox, name);
        for made in packages {
            repository.add(made);
        }
        repository.publish(1);
        repository.path().display().to_string()
    }

    fn repository(&self) -> String {
        self.sandbox.beside("repository").display().to_string()
    }

    /// Writes a description with some more lines.
    fn describe(&self, name: &str, packages: &str, more: &str) {
        let (key, repository) = (key(), self.repository());
        self.desk.write(
            name,
            &format!(
                "contents:\n  keyring: ['{key}']\n  repositories: ['{repository}']\n  \
                 packages: [{packages}]\narchs: [amd64]\n{more}"
            ),
        );
    }

    /// Returns the rows that GNU tar lists of the root file system.
    fn rows(&self, name: &str) -> Vec<String> {
        self.desk.run(&["rootfs", name, "root.tar", "-q"]).good();
        list(&self.desk.path().join("root.tar"))
    }

    /// Returns the file with this path in what [`Shop::rows`] wrote.
    fn content(&self, path: &str) -> String {
        let archive = self.desk.path().join("root.tar");
        let mut tar = Command::new("tar");
        run(tar.arg("-xOf").arg(archive).arg(path)).success().output
    }
}

/// Returns the key of the repositories made here.
fn key() -> String {
    concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/tests/fixtures/test-only.rsa.pub"
    )
    .to_owned()
}

/// Returns mode and path of each entry of an archive, and where links lead.
fn list(archive: &Path) -> Vec<String> {
    let mut tar = Command::new("tar");
    tar.args(["--numeric-owner", "-tvf"]).arg(archive);
    let text = run(&mut tar).success().output;
    let row = |line: &str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        format!("{} {}", fields[0], fields[5..].join(" "))
    };
    text.lines().map(row).collect()
}

fn base() -> Made {
    package(
        "demo-base",
        "1-r0",
        vec![
            directory("etc"),
            file("etc/passwd", "root:x:0:0:root:/root:/bin/sh\n"),
            file("etc/group", "root:x:0:\n"),
            file("etc/os-release", "ID=demo\nVERSION_ID=1\n"),
        ],
    )
}

#[test]
fn one_directory_for_libraries_has_the_database() {
    let layout = package(
        "demo-baselayout",
        "1-r0",
        vec![
            symlink("bin", "usr/bin"),
            symlink("lib", "usr/lib"),
            directory("usr"),
            directory("usr/bin"),
            directory("usr/lib"),
        ],
    );
    // A package that has not heard of it: its files land where the link leads.
    let old = package(
        "old",
        "1-r0",
        vec![directory("lib"), file("lib/old.so", "x")],
    );
    let shop = Shop::new(&[base(), layout, old]);
    shop.describe("a.yaml", "demo-base, demo-baselayout, old", "");
    let rows = shop.rows("a.yaml");
    for row in [
        "lrwxrwxrwx lib -> usr/lib",
        "drwxr-xr-x usr/lib/apk/db",
        "-rw-r--r-- usr/lib/apk/db/installed",
        "-rw-r--r-- usr/lib/old.so",
    ] {
        let found = rows.iter().any(|one| one.trim_end_matches('/') == row);
        assert!(found, "{row} in {rows:#?}");
    }
    assert!(!rows.iter().any(|row| row.contains(" lib/")), "{rows:#?}");
    assert!(shop.content("usr/lib/apk/db/installed").contains("P:old\n"));
    // Each layer has the records of its packages at that place.
    shop.describe(
        "b.yaml",
        "demo-base, demo-baselayout, old",
        "layering: {strategy: origin, budget: 3}\nx-build: {compression: none}\n",
    );
    shop.desk
        .run(&["build", "b.yaml", "t:1", "out/", "-q"])
        .good();
    let mut layers = 0;
    for entry in fs::read_dir(shop.desk.path().join("out/blobs/sha256")).expect("blobs") {
        let path = entry.expect("a blob").path();
        if fs::read(&path).expect("a blob").starts_with(b"{") {
            continue;
        }
        layers += 1;
        let rows = list(&path);
        let database = "-rw-r--r-- usr/lib/apk/db/installed";
        assert!(rows.iter().any(|row| row == database), "{rows:#?}");
    }
    assert_eq!(layers, 4);
}

/// Returns path, mode, owner and time of each directory of a layer, by another tool's reading.
fn directories_of(layer: &image::Layer) -> BTreeMap<String, (u32, u64, u64)> {
    let open = output::open_layer(&layer.path, &layer.descriptor.media_type);
    let mut archive = tar::Archive::new(open.expect("a layer"));
    let mut found = BTreeMap::new();
    for entry in archive.entries().expect("an archive") {
        let entry = entry.expect("an entry");
        let header = entry.header();
        if header.entry_type().is_dir() {
            let path = String::from_utf8(entry.path_bytes().into_owned()).expect("text");
            let row = (
                header.mode().expect("octal"),
                header.uid().expect("octal"),
                header.mtime().expect("octal"),
            );
            found.insert(path.trim_end_matches('/').to_owned(), row);
        }
    }
    found
}

#[test]
fn a_layer_of_packages_depends_on_its_own_packages_only() {
    let folder = tempfile::tempdir().expect("a temporary directory");
    let dated = |mtime: u64, entry: EntrySpec| EntrySpec { mtime, ..entry };
    let shared = || EntrySpec {
        mode: 0o2750,
        uid: 7,
        uname: "nobody-knows".to_owned(),
        ..dated(1_650_000_000, directory("srv/shared"))
    };
    let own = |name: &str, time: u64, text: &str| {
        let entries = vec![
            dated(1_640_000_000, directory("srv")),
            shared(),
            dated(time, file(&format!("srv/shared/{name}"), text)),
            dated(time + 1, file(&format!("srv/shared/{name}.z"), text)),
        ];
        package(name, "1-r0", entries)
    };
    let layers = |other: u64, text: &str| {
        let first = own("first", 1_500_000_000, "first");
        let made = [base(), first, own("second", other, text)];
        let request = BuildRequest {
            layering: image::Layering::Origin { budget: 9 },
            ..request_for(folder.path(), &made)
        };
        let (image, store) = build(&request);
        assert_eq!(image.layers.len(), 4);
        (image, store)
    };
    let of = |image: &BuiltImage, name: &str| {
        let named = |layer: &&image::Layer| layer.packages == [name];
        image.layers.iter().find(named).expect("a layer").clone()
    };
    let (before, _store) = layers(1_600_000_000, "second");
    let (after, _other_store) = layers(1_400_000_000, "another text");
    assert_ne!(of(&before, "second").diff_id, of(&after, "second").diff_id);
    for name in ["first", "demo-base"] {
        assert_eq!(of(&before, name), {
            let layer = of(&after, name);
            image::Layer {
                path: of(&before, name).path,
                ..layer
            }
        });
    }
    // The time is that of the first file that needs the directory; mode and owner are its own, and
    // the layer on top has everything as it is.
    let rows = directories_of(&of(&before, "first"));
    assert_eq!(rows["srv"].2, 1_500_000_000);
    assert_eq!(rows["srv/shared"], (0o2750, 7, 1_500_000_000));
    assert_eq!(rows["lib/apk/db"].2, 0);
    let rows = directories_of(&of(&before, "second"));
    assert_eq!(rows["srv/shared"], (0o2750, 7, 1_600_000_000));
    let top = before.layers.last().expect("the layer on top");
    let rows = directories_of(top);
    for entry in before.root.tree().expect("a tree").entries() {
        if matches!(entry.kind, ibex::root::tree::EntryKind::Directory) {
            let row = (entry.mode, u64::from(entry.uid), entry.mtime);
            assert_eq!(rows[&entry.path], row, "{}", entry.path);
        }
    }
}

#[test]
fn the_database_is_where_the_description_wants_it() {
    let shop = Shop::new(&[base()]);
    for (place, there, not_there) in [
        (
            "lib",
            &["-rw-r--r-- lib/apk/db/installed"][..],
            "usr/lib/apk",
        ),
        (
            "usr",
            &[
                "-rw-r--r-- usr/lib/apk/db/installed",
                "lrwxrwxrwx lib/apk -> ../usr/lib/apk",
            ],
            "lib/apk/db",
        ),
        ("none", &["-rw-r--r-- etc/passwd"], "etc/apk/"),
    ] {
        let more = format!("x-build: {{db: {place}}}\n");
        shop.describe("a.yaml", "demo-base", &more);
        let rows = shop.rows("a.yaml");
        for row in there {
            assert!(rows.iter().any(|one| one == row), "{row} in {rows:#?}");
        }
        let wrong = format!(" {not_there}");
        assert!(
            !rows.iter().any(|row| row.contains(&wrong)),
            "{place}: {rows:#?}"
        );
    }
    let said = shop.desk.run(&["rootfs", "a.yaml", "again.tar"]);
    assert!(said.err.contains("W-NO-DB"), "{}", said.err);
}

#[test]
fn accounts_keep_their_numbers_by_the_lock_file() {
    let with_account = |name: &str, extra: &str| {
        let script =
            format!("addgroup -S {name} 2>/dev/null\nadduser -S -D -H -G {name} {extra} {name}");
        package(
            name,
            "1-r0",
            vec![directory("srv"), file(&format!("srv/{name}"), name)],
        )
        .script(ScriptKind::PreInstall, &script)
    };
    let shop = Shop::new(&[
        base(),
        with_account("alpha", ""),
        with_account("beta", ""),
        with_account("fixed", "-u 55"),
    ]);
    let numbers = |words: &[&str]| -> Vec<String> {
        let rootfs = ["rootfs", "a.yaml", "root.tar", "-q"];
        shop.desk.run(&[&rootfs, words].concat()).good();
        let text = ["etc/passwd", "etc/group"]
            .map(|path| shop.content(path))
            .concat();
        let row = |line: &str| {
            let fields: Vec<&str> = line.split(':').collect();
            format!("{} {}", fields[0], fields[2])
        };
        let rows = text.lines().map(row);
        rows.filter(|row| !row.starts_with("root")).collect()
    };
    let lock = || -> Vec<String> {
        shop.desk.run(&["lock", "a.yaml", "-q"]).good();
        let text = shop.desk.read("a.lock.json");
        let lock: serde_json::Value = serde_json::from_str(&text).expect("JSON");
        let accounts = lock["x"]["accounts"]
            .as_array()
            .cloned()
            .unwrap_or_default();
        let row = |one: &serde_json::Value| {
            let text = |key: &str| one[key].as_str().expect("text").to_owned();
            assert_eq!(text("architecture"), "x86_64");
            format!("{} {} {}", text("kind"), text("name"), one["id"])
        };
        accounts.iter().map(row).collect()
    };
    shop.describe("a.yaml", "demo-base, fixed, beta", "");
    let first = ["user beta 100", "group beta 100", "group fixed 101"];
    assert_eq!(lock(), first);
    let wanted = ["beta 100", "fixed 55", "beta 100", "fixed 101"];
    for words in [&[][..], &["--locked"]] {
        assert_eq!(numbers(words), wanted);
    }
    // One that is installed before the others changes nothing for those.
    shop.describe("a.yaml", "demo-base, alpha, fixed, beta", "");
    let kept = [
        "user alpha 101",
        "user beta 100",
        "group alpha 102",
        "group beta 100",
        "group fixed 101",
    ];
    assert_eq!(lock(), kept);
    let text = shop.desk.read("a.lock.json");
    shop.desk.run(&["lock", "--check", "a.yaml"]).good();
    assert_eq!(lock(), kept);
    assert_eq!(shop.desk.read("a.lock.json"), text);
    let locked = numbers(&["--locked"]);
    let wanted = [
        "alpha 101",
        "beta 100",
        "fixed 55",
        "alpha 102",
        "beta 100",
        "fixed 101",
    ];
    assert_eq!(locked, wanted);
    // Without a lock file they are counted as they come.
    let free = [
        "alpha 100",
        "beta 101",
        "fixed 55",
        "alpha 100",
        "beta 101",
        "fixed 102",
    ];
    assert_eq!(numbers(&[]), free);
    fs::remove_file(shop.desk.path().join("a.lock.json")).expect("it is there");
    assert_eq!(lock()[..2], ["user alpha 100", "user beta 101"]);
    // A number that something else has by now is not forced on anybody.
    let taken = shop
        .desk
        .read("a.lock.json")
        .replace("\"id\": 101", "\"id\": 55");
    shop.desk.write("a.lock.json", &taken);
    assert!(numbers(&["--locked"]).contains(&"beta 101".to_owned()));
    // With scripts left alone there is nobody to count.
    shop.describe(
        "a.yaml",
        "demo-base, alpha",
        "x-build: {scripts: builtin}\n",
    );
    assert_eq!(lock(), [""; 0]);
}

#[test]
fn what_should_be_known_is_told_and_refused_by_strict() {
    let with = |name: &str, path: &str, text: &str| {
        let parts: Vec<&str> = path.split('/').collect();
        let folders = (1..parts.len()).map(|end| directory(&parts[..end].join("/")));
        let entries = folders.chain([file(path, text)]).collect();
        package(name, "1-r0", entries)
    };
    let adds = |made: Made| made.script(ScriptKind::PreInstall, "adduser -S -D -H x");
    let shop = Shop::new(&[
        base(),
        with(
            "users",
            "etc/passwd",
            "root:x:0:0::/:/bin/sh\ndemo:x:7:7::/srv:/bin/sh\n",
        ),
        adds(with("mine", "etc/same", "mine")),
        adds(with("yours", "etc/same", "yours")),
        with(
            "billed",
            "var/lib/db/sbom/billed-1-r0.spdx.json",
            "{ no JSON",
        ),
    ]);
    let digits = "0123456789abcdef0123456789abcdef01234567";
    let told = |words: &[&str], code: &str, text: &str| {
        let line = format!("warning: {code}: {text}");
        let said = shop.desk.run(words);
        let count = said
            .err
            .lines()
            .filter(|one| one.starts_with(&line))
            .count();
        assert_eq!(count, 1, "{code}: {}", said.err);
        said.good();
        // Only what is noticed before anything is written can stop it.
        if !matches!(code, "W-SBOM" | "W-LOCK-ACCOUNTS") {
            let strict = shop.desk.run(&[words, &["--strict"]].concat());
            assert_ne!(strict.code, 0, "{code}");
            let codes = format!("{}{}", strict.err, strict.out);
            assert!(codes.contains(code), "{code}: {codes}");
        }
    };
    let build = ["build", "a.yaml", "t:1", "out/"];
    shop.describe(
        "a.yaml",
        "users",
        "accounts: {users: [{username: demo, uid: 8}]}\n",
    );
    told(
        &build,
        "W-ACCOUNT-REPLACED",
        "user `demo:x:7:7::/srv:/bin/sh` of a package is now `demo:x:8:8:Account created by apko:/home/demo:/bin/sh`",
    );
    told(
        &build,
        "W-NO-GROUP",
        "there is no /etc/group; add a base layout",
    );
    told(
        &build,
        "W-NO-OSRELEASE",
        "there is no /etc/os-release; add `alpine-release`",
    );
    shop.describe("a.yaml", "", "");
    told(
        &build,
        "W-NO-PASSWD",
        "there is no /etc/passwd; add a base layout",
    );
    shop.describe("a.yaml", "demo-base", "");
    let zstd = [&build[..], &["--layer-compression", "zstd"]].concat();
    told(
        &zstd,
        "W-ZSTD-COMPAT",
        "umoci 0.4 and Docker engines before 23",
    );
    shop.describe("a.yaml", "demo-base, billed", "");
    told(&build, "W-SBOM", "");
    // Where the description comes from: nobody asked for it, but apko says it.
    shop.describe("a.yaml", "demo-base", "");
    shop.desk.write(".git/HEAD", "ref: refs/heads/main\n");
    shop.desk
        .write(".git/refs/heads/main", &format!("{digits}\n"));
    let remote = "[core]\n\tbare = false\n[remote \"origin\"]\n\turl = https://me:secret@example.com/x.git\n";
    shop.desk.write(".git/config", remote);
    shop.desk
        .run(&["lock", "a.yaml", "--profile", "apko"])
        .good();
    let as_apko = [&build[..], &["--profile", "apko", "--locked"]].concat();
    told(
        &as_apko,
        "W-VCS-REPRO",
        "the digest changes with every commit",
    );
    let quiet = shop.desk.run(&[&as_apko[..], &["--vcs=no"]].concat());
    assert!(!quiet.err.contains("W-VCS-REPRO"), "{}", quiet.err);
    quiet.good();
    let annotations = |more: &[&str]| {
        shop.desk
            .run(&[&["build", "a.yaml", "t:1", "vcs.oci.tar", "-q"], more].concat())
            .good();
        let mut tar = Command::new("tar");
        tar.arg("-xOf")
            .arg(shop.desk.path().join("vcs.oci.tar"))
            .args(["--wildcards", "blobs/sha256/*"]);
        run(&mut tar).success().output
    };
    let found = annotations(&["--vcs"]);
    for wanted in [
        "\"org.opencontainers.image.source\":\"https://example.com/x.git\"",
        &format!("\"org.opencontainers.image.revision\":\"{digits}\""),
    ] {
        assert!(found.contains(wanted), "{wanted}");
    }
    assert!(!found.contains("secret") && !annotations(&[]).contains(digits));
    // A lock file that does not say what it was made from; one of packages that fight for a file.
    let lock = shop.desk.read("a.lock.json");
    let mut lock: serde_json::Value = serde_json::from_str(&lock).expect("JSON");
    lock.as_object_mut().expect("an object").remove("config");
    shop.desk.write("old.json", &lock.to_string());
    let old = [&build[..], &["--lockfile", "old.json"]].concat();
    told(
        &old,
        "W-LOCK-OLD",
        "old.json does not say what it was made from",
    );
    shop.describe("a.yaml", "demo-base, mine, yours", "");
    told(
        &["lock", "a.yaml"],
        "W-LOCK-ACCOUNTS",
        "the ids of accounts are not known: ",
    );
}

#[test]
fn every_warning_has_a_case() {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let codes = |text: &str| -> BTreeSet<String> {
        let starts = text
            .match_indices("W-")
            .filter(|(at, _)| text[..*at].ends_with('"'));
        let code = |(at, _)| {
            let rest: &str = &text[at..];
            let end = rest
                .find(|c: char| !c.is_ascii_uppercase() && c != '-')
                .unwrap_or(rest.len());
            rest[..end].trim_end_matches('-').to_owned()
        };
        starts.map(code).collect()
    };
    let mut folders = vec![here.join("src")];
    let mut known = BTreeSet::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|end| end == "rs") && !path.ends_with("tests.rs")
            {
                known.extend(codes(&fs::read_to_string(&path).expect("a source file")));
            }
        }
    }
    assert!(known.len() > 25, "{known:?}");
    let mut tests = fs::read_to_string(here.join("src/config/image/tests.rs")).expect("tests");
    for entry in fs::read_dir(here.join("tests/it")).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path
            .file_name()
            .is_some_and(|name| name.to_string_lossy().starts_with("image_"))
        {
            tests.push_str(&fs::read_to_string(path).expect("a source file"));
        }
    }
    let missing: Vec<&String> = known
        .iter()
        .filter(|code| !tests.contains(code.as_str()))
        .collect();
    assert!(missing.is_empty(), "no case for {missing:?}");
}

#[test]
fn services_run_under_s6() {
    let shop = Shop::new(&[base(), package("s6", "2-r0", vec![directory("bin")])]);
    shop.describe(
        "a.yaml",
        "demo-base",
        "entrypoint:\n  type: service-bundle\n  services:\n    web: /usr/sbin/nginx -g 'daemon off;'\n    \
         log: /sbin/syslogd -n\n",
    );
    let rows = shop.rows("a.yaml");
    for row in ["-rwxr-xr-x sv/log/run", "-rwxr-xr-x sv/web/run"] {
        assert!(rows.iter().any(|one| one == row), "{rows:#?}");
    }
    assert_eq!(
        shop.content("sv/web/run"),
        "#!/bin/execlineb\n/usr/sbin/nginx -g 'daemon off;'\n"
    );
    assert!(shop.content("lib/apk/db/installed").contains("P:s6\n"));
    shop.desk
        .run(&["build", "a.yaml", "t:1", "out.tar", "-q"])
        .good();
    let config = docker_config(&shop.desk.path().join("out.tar"));
    let entrypoint = &config["config"]["Entrypoint"];
    assert_eq!(*entrypoint, serde_json::json!(["/bin/s6-svscan", "/sv"]));
    shop.describe("a.yaml", "demo-base", "entrypoint: {services: {.x: a}}\n");
    let line = "error[E-FIELD]: entrypoint.services: \".x\" is no plain name";
    shop.desk
        .run(&["rootfs", "a.yaml", "root.tar"])
        .error(2, line);
}

/// Returns the first image configuration of a docker archive.
fn docker_config(archive: &Path) -> serde_json::Value {
    let extract = |name: &str| {
        let mut tar = Command::new("tar");
        run(tar.arg("-xOf").arg(archive).arg(name)).success().output
    };
    let manifest: serde_json::Value =
        serde_json::from_str(&extract("manifest.json")).expect("JSON");
    let name = manifest[0]["Config"].as_str().expect("a name").to_owned();
    serde_json::from_str(&extract(&name)).expect("JSON")
}

#[test]
fn one_command_builds_for_several_processors() {
    let (Some(branch), Some(key)) = (
        data("alpine-branches/v3.20"),
        data("alpine-branches/keys/TEST-ONLY.rsa.pub"),
    ) else {
        return;
    };
    let desk = Desk::empty();
    let text = format!(
        "contents:\n  keyring: ['{}']\n  repositories: ['{}']\n  \
         packages: [alpine-baselayout, busybox, apk-tools]\narchs: [arm64, x86_64]\n",
        key.display(),
        branch.display()
    );
    desk.write("a.yaml", &text);
    let line = desk.run(&["build", "a.yaml", "t:1", "out/", "-q"]).good();
    let blob = |digest: &str| -> serde_json::Value {
        let path = desk.path().join("out/blobs/sha256").join(&digest[7..]);
        serde_json::from_slice(&fs::read(path).expect("a blob")).expect("JSON")
    };
    let named: serde_json::Value =
        serde_json::from_str(&desk.read("out/index.json")).expect("JSON");
    let digest = named["manifests"][0]["digest"].as_str().expect("a digest");
    assert_eq!(line, format!("t@{digest}\n"));
    let index = blob(digest);
    let manifests = index["manifests"].as_array().expect("a list");
    let mut layers = BTreeSet::new();
    let mut platforms = Vec::new();
    for manifest in manifests {
        let platform = manifest["platform"]["architecture"]
            .as_str()
            .expect("a name");
        let manifest = blob(manifest["digest"].as_str().expect("a digest"));
        let config = blob(manifest["config"]["digest"].as_str().expect("a digest"));
        assert_eq!(config["architecture"], platform);
        layers.insert(
            manifest["layers"][0]["digest"]
                .as_str()
                .expect("a digest")
                .to_owned(),
        );
        platforms.push(platform.to_owned());
        let bill = if platform == "amd64" {
            "x86_64"
        } else {
            "aarch64"
        };
        assert!(
            desk.path()
                .join(format!("out/sbom-{bill}.spdx.json"))
                .exists()
        );
    }
    assert_eq!(platforms, ["amd64", "arm64"]);
    assert_eq!(layers.len(), 2);
    // At the same time, or one after the other: the same image, told in the same order; and the same
    // error, of the first one that has one.
    let cores = |cores: &str, words: &[&str]| {
        let build = desk.command(&[&["build", "a.yaml", "t:1"], words].concat());
        let mut command = Command::new("taskset");
        command
            .args(["-c", cores])
            .arg(build.get_program())
            .args(build.get_args());
        command.current_dir(desk.path());
        said(&mut command)
    };
    let both = std::thread::available_parallelism().map_or(1, usize::from) > 1;
    if has("taskset") && both {
        let told = ["0", "0,1"].map(|number| {
            let built = cores(number, &["cores/", "-vv", "--no-cache"]);
            assert_eq!(built.code, 0, "{}", built.err);
            (built.out, built.err)
        });
        assert_eq!(told[0].0, line);
        assert!(
            told[0].1.contains("aarch64: busybox trigger"),
            "{}",
            told[0].1
        );
        assert_eq!(told[0], told[1]);
        let wrong = "paths: [{path: /bin/busybox, type: symlink, source: x}]\n";
        desk.write("a.yaml", &format!("{text}{wrong}"));
        for number in ["0", "0,1"] {
            cores(number, &["cores/", "-q"]).error(
                1,
                "error[E-PATH]: paths[0] (line 6): symlink /bin/busybox: something is already there",
            );
        }
        desk.write("a.yaml", &text);
    }
    // Both have the links of their busybox, although one could not be run here.
    for (arch, interpreter) in [("amd64", "x86_64"), ("arm64", "aarch64")] {
        desk.run(&["rootfs", "a.yaml", "root.tar", "-q", "--build-arch", arch])
            .good();
        let rows = list(&desk.path().join("root.tar"));
        let musl = format!("-rwxr-xr-x lib/ld-musl-{interpreter}.so.1");
        for row in [
            "lrwxrwxrwx bin/sh -> /bin/busybox",
            "lrwxrwxrwx usr/bin/awk -> /bin/busybox",
            &musl,
        ] {
            assert!(rows.iter().any(|one| one == row), "{arch}: {row}");
        }
    }
    if has("skopeo") {
        let source = format!("oci:{}:t:1", desk.path().join("out").display());
        for (arch, wanted) in [("amd64", "amd64"), ("arm64", "arm64")] {
            let mut skopeo = Command::new("skopeo");
            skopeo.args([
                "--override-arch",
                arch,
                "inspect",
                "--format",
                "{{.Architecture}}",
            ]);
            let said = run(skopeo.arg(&source).env("HOME", "/nonexistent")).success();
            assert_eq!(said.output.trim(), wanted);
        }
    }
    // In an archive for Docker each has a tag, and the machine's own the plain one.
    desk.run(&["build", "a.yaml", "t:1", "out.tar", "-q"])
        .good();
    let mut tar = Command::new("tar");
    tar.arg("-xOf")
        .arg(desk.path().join("out.tar"))
        .arg("manifest.json");
    let manifest: serde_json::Value =
        serde_json::from_str(&run(&mut tar).success().output).expect("JSON");
    let tags: BTreeSet<String> = manifest
        .as_array()
        .expect("a list")
        .iter()
        .flat_map(|one| one["RepoTags"].as_array().expect("a list"))
        .map(|tag| tag.as_str().expect("a tag").to_owned())
        .collect();
    assert!(
        tags.contains("t:1-amd64") && tags.contains("t:1-arm64"),
        "{tags:?}"
    );
    if ["x86_64", "aarch64"].contains(&std::env::consts::ARCH) {
        assert!(tags.contains("t:1"), "{tags:?}");
    }
}

#[test]
fn an_image_is_loaded_into_the_engine_of_this_machine() {
    if !support::is_root() || !has("podman") {
        return;
    }
    let shop = Shop::new(&[base()]);
    shop.describe("a.yaml", "demo-base", "cmd: /bin/sh\n");
    let place = tempfile::tempdir().expect("a temporary directory");
    let settings = place.path().join("storage.conf");
    let text = format!(
        "[storage]\ndriver = \"vfs\"\ngraphroot = \"{0}/graph\"\nrunroot = \"{0}/run\"\n",
        place.path().display()
    );
    fs::write(&settings, text).expect("a file");
    let mut command = shop
        .desk
        .command(&["publish", "--local", "a.yaml", "example.com/demo:7"]);
    command.env("CONTAINERS_STORAGE_CONF", &settings);
    let line = said(command.env("HOME", place.path())).good();
    assert!(line.starts_with("example.com/demo@sha256:"), "{line}");
    let mut podman = Command::new("podman");
    podman.args([
        "image",
        "inspect",
        "--format",
        "{{.Config.Cmd}}",
        "example.com/demo:7",
    ]);
    podman
        .env("CONTAINERS_STORAGE_CONF", &settings)
        .env("HOME", place.path());
    assert_eq!(run(&mut podman).success().output.trim(), "[/bin/sh]");
    // Without an engine it says so.
    let mut command = shop
        .desk
        .command(&["publish", "--local", "a.yaml", "example.com/demo:7"]);
    let said = said(command.env("PATH", "/nonexistent"));
    assert_eq!(said.code, 1, "{}", said.err);
    assert!(said.err.starts_with("error[E-"), "{}", said.err);
}

#[test]
fn limits_are_told_with_the_option_that_moves_them() {
    let large = package("large", "1-r0", vec![file("large", vec![b'x'; 200_000])]);
    let scripted = package("scripted", "1-r0", vec![directory("etc")])
        .script(ScriptKind::PostInstall, &"# a comment\n".repeat(2000));
    let shop = Shop::new(&[large, scripted]);
    let served = support::repository::serve(&shop.sandbox.beside("repository"));
    let local = shop.repository();
    for (packages, repository, option, size, file, what) in [
        (
            "large",
            &local,
            "--max-apkindex-decompressed-size",
            "100",
            "APKINDEX.tar.gz",
            "index",
        ),
        (
            "large",
            &served,
            "--max-apkindex-decompressed-size",
            "100",
            "APKINDEX.tar.gz",
            "index",
        ),
        (
            "scripted",
            &local,
            "--max-apk-control-size",
            "9000",
            "scripted-1-r0",
            "control part",
        ),
        (
            "scripted",
            &served,
            "--max-apk-control-size",
            "9000",
            "scripted-1-r0.apk",
            "control part",
        ),
        (
            "large",
            &local,
            "--max-apk-data-size",
            "100000",
            "large-1-r0",
            "unpacked content",
        ),
        (
            "large",
            &served,
            "--max-apk-data-size",
            "100000",
            "large-1-r0.apk",
            "unpacked content",
        ),
        (
            "large",
            &served,
            "--max-http-response-size",
            "100",
            "APKINDEX.tar.gz",
            "answer",
        ),
    ] {
        shop.describe("a.yaml", packages, "");
        let text = shop.desk.read("a.yaml").replace(&local, repository);
        shop.desk.write("a.yaml", &text);
        let path = match file {
            "APKINDEX.tar.gz" => format!("{repository}/x86_64/{file}"),
            file => file.to_owned(),
        };
        let line = format!("error[E-LIMIT]: {path}: {what}: more than the limit of {size}");
        let build = [
            "build",
            "a.yaml",
            "t:1",
            "out/",
            "-q",
            "--no-cache",
            option,
            size,
        ];
        let said = shop.desk.run(&build).error(1, &line);
        let hint = format!("hint: if it is right that it is so large: {option} BYTES\n");
        assert!(said.err.ends_with(&hint), "{}", said.err);
        for enough in ["0", "-1", "1G"] {
            let build = [
                "build",
                "a.yaml",
                "t:1",
                "out/",
                "-q",
                "--no-cache",
                option,
                enough,
            ];
            shop.desk.run(&build).good();
        }
        let wrong = ["build", "a.yaml", "t:1", "out/", option, "many"];
        let line = format!("error[E-USAGE]: {option}: \"many\" is no number of bytes");
        shop.desk.run(&wrong).error(2, &line);
    }
}

#[test]
fn errors_that_need_something_made_for_them() {
    let shop = Shop::new(&[base()]);
    shop.describe("a.yaml", "demo-base", "");
    let build = ["build", "a.yaml", "t:1", "out/", "-q"];
    // A cache that cannot be one.
    let cache = shop.desk.path().join("cache");
    fs::create_dir(&cache).expect("a folder");
    fs::write(cache.join("images"), "").expect("a file");
    let text = cache.display().to_string();
    let words = [&build[..], &["--cache-dir", &text]].concat();
    let line = format!("error[E-CACHE]: cannot use the cache {text}/images: Not a directory");
    let said = shop.desk.run(&words);
    assert!(
        said.err
            .starts_with(line.split("/images").next().expect("a line")),
        "{}",
        said.err
    );
    assert_eq!(said.code, 1);
    let words = [&build[..], &["--cache-dir", "/dev/null/x"]].concat();
    let line = "error[E-IO]: cannot create /dev/null/x/packages: Not a directory";
    shop.desk.run(&words).error(1, line);
    // A name that would delete something.
    let files = "x-build: {files: [{path: /etc/.wh.passwd, content: x}]}\n";
    shop.describe("b.yaml", "demo-base", files);
    let line = "error[E-WHITEOUT-NAME]: etc/.wh.passwd: a name that begins with `.wh.` cannot be in a \
                layer";
    shop.desk
        .run(&["build", "b.yaml", "t:1", "out/", "-q"])
        .error(1, line);
    // A registry that is not there.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("an address").port();
    drop(listener);
    let reference = format!("127.0.0.1:{port}/a:1");
    let said = shop.desk.run(&["publish", "a.yaml", &reference]);
    assert!(said.err.contains("error[E-REGISTRY]: "), "{}", said.err);
    assert!(said.err.contains("Connection refused"), "{}", said.err);
    assert!(said.out.is_empty(), "{}", said.out);
    // What may be built without proof is not built by who is strict.
    let words = ["show-packages", "a.yaml", "--ignore-signatures"];
    let said = shop.desk.run(&words);
    assert!(
        said.err
            .contains("warning: W-UNSIGNED: the signatures of indexes"),
        "{}",
        said.err
    );
    let said = shop.desk.run(&[&words[..], &["--strict"]].concat());
    assert!(said.err.starts_with("error[W-UNSIGNED]: "), "{}", said.err);
    let said = shop.desk.run(&[
        "show-packages",
        "a.yaml",
        "--profile=apko",
        "--log-level=debug",
    ]);
    assert!(said.err.contains("profile: apko\n"), "{}", said.err);
    // A path that nothing brings.
    let said = shop.desk.run(&["explain", "a.yaml", "/no/where"]);
    assert!(said.err.starts_with("error[E-BUILD]: "), "{}", said.err);
    // A package that the server has no more.
    let served = support::repository::serve(&shop.sandbox.beside("repository"));
    fs::remove_file(shop.sandbox.beside("repository/x86_64/demo-base-1-r0.apk")).expect("a file");
    let text = shop
        .desk
        .read("a.yaml")
        .replace(&shop.repository(), &served);
    shop.desk.write("c.yaml", &text);
    let line = "error[E-FETCH]: cannot fetch demo-base-1-r0.apk: no server has it";
    shop.desk
        .run(&["build", "c.yaml", "t:1", "out/", "-q"])
        .error(1, line);
    assert!(!shop.desk.path().join("out").exists(), "nothing was left");
}

/// A copy of the program and of a description that somebody else may use.
fn desk_of_nobody(shop: &Shop, folder: &Path) -> Command {
    let program = folder.join("ibex");
    support::copy_program(&program);
    fs::copy(shop.desk.path().join("a.yaml"), folder.join("a.yaml")).expect("a copy");
    fs::set_permissions(folder, fs::Permissions::from_mode(0o777)).expect("our own folder");
    Command::new(program)
}

#[test]
fn an_ordinary_user_runs_scripts_as_root_of_a_sandbox() {
    if !support::is_root() || !has("unshare") {
        return;
    }
    let (Some(alpine), Some(key)) = (
        data("alpine-v3.19"),
        data("alpine-v3.19/keys/alpine-devel@lists.alpinelinux.org-6165ee59.rsa.pub"),
    ) else {
        return;
    };
    let script = "id -u | cat > /etc/id\nls -ln /etc/own | cat >> /etc/id\nmkdir -p /var/lib/own\n\
                  chmod 700 /var/lib/own";
    let own = package("own", "1-r0", vec![directory("etc"), file("etc/own", "x")])
        .script(ScriptKind::PostInstall, script)
        .with(|package| package.depends = World::parse("busybox-binsh").expect("a name").entries);
    let gives = package(
        "gives",
        "1-r0",
        vec![
            directory("etc"),
            EntrySpec {
                uid: 7,
                gid: 8,
                uname: "nobody-knows".to_owned(),
                gname: "nobody-knows".to_owned(),
                mode: 0o2600,
                ..file("etc/given", "x")
            },
        ],
    )
    .script(
        ScriptKind::PostInstall,
        "echo x | cat > /etc/x\nchown 33:44 /etc/x\nchmod 4755 /etc/x\n\
         mkdir -p /var/lib/gives/deep\necho secret | cat > /var/lib/gives/deep/file\n\
         ln /var/lib/gives/deep/file /var/lib/gives/other\nln -s file /var/lib/gives/deep/link\n\
         chown -R 1000:65000 /var/lib/gives\nchown -h 7 /var/lib/gives/deep/link\n\
         chmod 0 /var/lib/gives/deep/file\nchmod 700 /var/lib/gives/deep /var/lib/gives\n\
         stat -c '%u %g %a' /etc/given /etc/x | cat > /etc/seen\nid | cat >> /etc/seen",
    )
    .with(|package| package.depends = World::parse("busybox-binsh").expect("a name").entries);
    let fails = package("fails", "1-r0", vec![directory("etc")])
        .script(
            ScriptKind::PostInstall,
            "mkdir -p /srv/a/b\nchown -R 5:5 /srv/a\nchmod 0 /srv/a/b /srv/a\necho | cat\nexit 3",
        )
        .with(|package| package.depends = World::parse("busybox-binsh").expect("a name").entries);
    let shop = Shop::new(&[own, gives, fails]);
    shop.describe("a.yaml", "own", "x-build: {scripts: run}\n");
    // What Alpine has is used by somebody who may not look into every folder here.
    let place = tempfile::tempdir().expect("a temporary directory");
    let copy = place.path().join("alpine");
    run(Command::new("cp").arg("-r").arg(&alpine).arg(&copy)).success();
    let made = place.path().join("made");
    run(Command::new("cp")
        .arg("-r")
        .arg(shop.repository())
        .arg(&made))
    .success();
    fs::copy(self::key(), place.path().join("test-only.rsa.pub")).expect("a copy");
    fs::copy(&key, place.path().join(key.file_name().expect("a name"))).expect("a copy");
    let text = format!(
        "contents:\n  keyring: [test-only.rsa.pub, {}]\n  repositories: [./alpine, ./made]\n  \
         packages: [own, gives]\narchs: [amd64]\nx-build: {{scripts: run}}\n",
        key.file_name().expect("a name").to_string_lossy()
    );
    shop.desk.write("a.yaml", &text);
    let program = desk_of_nobody(&shop, place.path());
    run(Command::new("chmod").args(["-R", "a+rX"]).arg(place.path())).success();
    fs::set_permissions(place.path(), fs::Permissions::from_mode(0o777)).expect("our own");
    let as_nobody = |words: &[&str]| {
        use std::os::unix::process::CommandExt;
        let mut command = Command::new(program.get_program());
        command
            .env_clear()
            .env("PATH", "/usr/bin:/bin")
            .env("APK_CONFIG", "/dev/null");
        command
            .current_dir(place.path())
            .uid(65534)
            .gid(65534)
            .arg("image")
            .args(words);
        command
    };
    let words = [
        "rootfs",
        "a.yaml",
        "root.tar",
        "--cache-dir",
        "cache",
        "-vv",
    ];
    let built = said(&mut as_nobody(&words));
    if built.err.contains("E-NO-USERNS") && std::env::var_os("CI").is_none() {
        eprintln!("skipped: {}", built.err);
        return;
    }
    let script = built
        .err
        .lines()
        .find(|line| line.contains("own post-install"))
        .map(str::to_owned);
    assert!(
        script
            .as_deref()
            .is_some_and(|line| line.ends_with(": ran")),
        "{}",
        built.err
    );
    let reason =
        "gives post-install: not run (it uses `chown`, and this user has one user id to give)";
    assert!(built.err.contains(reason), "{}", built.err);
    built.good();
    let mut tar = Command::new("tar");
    tar.arg("-xOf")
        .arg(place.path().join("root.tar"))
        .arg("etc/id");
    let id = run(&mut tar).success().output;
    let lines: Vec<&str> = id.lines().collect();
    assert_eq!(lines[0], "0");
    assert!(lines[1].starts_with("-rw-r--r--    1 0        0 "), "{id}");
    let rows = list(&place.path().join("root.tar"));
    assert!(
        rows.iter()
            .any(|row| row.starts_with("drwx------ var/lib/own")),
        "{rows:#?}"
    );

    // With ids that the system lends, it is as if root built it.
    if has("newuidmap") && has("setpriv") && has("getfattr") {
        fs::write(place.path().join("lent"), "nobody:200000:65536\n").expect("a file");
        let temporary = place.path().join("temporary");
        fs::create_dir(&temporary).expect("a new directory");
        fs::set_permissions(&temporary, fs::Permissions::from_mode(0o777)).expect("our own");
        let build = |output: &'static str| {
            let build = ["image", "rootfs", "a.yaml", output, "-vv", "--no-cache"];
            let mut command = Command::new("unshare");
            command.args(["--mount", "sh", "-ec"]).arg(
                "mount --bind lent /etc/subuid; mount --bind lent /etc/subgid; \
                 exec setpriv --reuid=65534 --regid=65534 --clear-groups \"$@\"",
            );
            command.arg("sh").arg(program.get_program()).args(build);
            command.current_dir(place.path()).env_clear();
            command.env("TMPDIR", &temporary);
            command
                .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
                .env("APK_CONFIG", "/dev/null");
            command
        };
        let lent = said(&mut build("lent.tar"));
        assert!(
            lent.err.contains("gives post-install: ran\n"),
            "{}",
            lent.err
        );
        lent.good();
        let rows = run(Command::new("tar")
            .args(["--numeric-owner", "-tvf"])
            .arg(place.path().join("lent.tar")))
        .success()
        .output;
        let row = |path: &str| {
            let line = rows
                .lines()
                .find(|line| line.ends_with(path) || line.contains(&format!("{path} -> ")));
            let fields: Vec<&str> = line.unwrap_or_default().split_whitespace().collect();
            format!("{} {}", fields[0], fields[1])
        };
        assert_eq!(row(" etc/x"), "-rwsr-xr-x 33/44");
        assert_eq!(row(" etc/given"), "-rw---S--- 7/8");
        assert_eq!(row(" var/lib/gives/deep/file"), "---------- 1000/65000");
        assert_eq!(row(" var/lib/gives/deep/link"), "lrwxrwxrwx 7/65000");
        assert_eq!(row(" var/lib/gives"), "drwx------ 1000/65000");
        let seen = run(Command::new("tar")
            .arg("-xOf")
            .arg(place.path().join("lent.tar"))
            .arg("etc/seen"));
        assert_eq!(seen.success().output, "7 8 2600\n33 44 4755\nuid=0 gid=0\n");
        let root = ["image", "rootfs", "a.yaml", "root.tar", "--no-cache", "-q"];
        let mut command = Command::new(program.get_program());
        said(command.args(root).current_dir(place.path())).good();
        let archives = ["root.tar", "lent.tar"]
            .map(|name| fs::read(place.path().join(name)).expect("an archive"));
        assert!(
            archives[0] == archives[1],
            "root and an ordinary user made different trees"
        );
        // A folder can have those owners, or what umoci reads as such; neither needs root.
        let unpack = |option: &str| {
            let folder = place.path().join(option.trim_start_matches('-'));
            let mut command = build("lent.tar");
            command.arg(option);
            let words: Vec<_> = command.get_args().map(|word| word.to_owned()).collect();
            let words = words.into_iter().map(|word| match word.to_str() {
                Some("lent.tar") => folder.clone().into(),
                _ => word,
            });
            let mut again = Command::new("unshare");
            again.args(words).current_dir(place.path()).env_clear();
            again
                .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
                .env("APK_CONFIG", "/dev/null");
            said(&mut again).good();
            folder
        };
        let folder = unpack("--userns");
        let owner = |path: &str| {
            use std::os::unix::fs::MetadataExt;
            let meta = fs::symlink_metadata(folder.join(path)).expect(path);
            (meta.uid(), meta.gid(), meta.mode() & 0o7777)
        };
        assert_eq!(owner("etc/x"), (200_032, 200_043, 0o4755));
        assert_eq!(owner("etc/given"), (200_006, 200_007, 0o2600));
        assert_eq!(owner("var/lib/gives/deep/link").0, 200_006);
        assert_eq!(owner("var/lib/gives"), (200_999, 264_999, 0o700));
        assert_eq!(owner("bin"), (65534, 65534, 0o755));
        let folder = unpack("--record-ownership");
        let records = run(Command::new("getfattr")
            .args([
                "-R",
                "-h",
                "-d",
                "-e",
                "hex",
                "-m",
                "user.rootlesscontainers",
            ])
            .arg("var/lib/gives")
            .arg("etc")
            .current_dir(&folder))
        .success()
        .output;
        // Field 1 is the uid, field 2 the gid, as protocol buffers write numbers.
        for (path, value) in [
            ("etc/x", "0821102c"),
            ("etc/given", "08071008"),
            ("var/lib/gives/deep", "08e80710e8fb03"),
        ] {
            let row = format!("# file: {path}\nuser.rootlesscontainers=0x{value}\n");
            assert!(records.contains(&row), "{row} in {records}");
        }
        assert!(!records.contains("etc/seen"), "{records}");
        // Nothing is left that this user could not remove, also after a failure.
        shop.desk
            .write("fails.yaml", &text.replace("own, gives", "fails"));
        let from = shop.desk.path().join("fails.yaml");
        fs::copy(from, place.path().join("a.yaml")).expect("a copy");
        said(&mut build("fails.tar")).error(
            1,
            "error[E-SCRIPT-FAILED]: post-install of fails failed: exit code 3",
        );
        fs::write(place.path().join("a.yaml"), &text).expect("a file");
        let left = fs::read_dir(&temporary).expect("a folder").count();
        assert_eq!(left, 0);
    }

    // Where the kernel allows no namespaces, the setting is named before anything is done.
    let mut unshare = Command::new("unshare");
    unshare.args([
        "--user",
        "--map-user=1000",
        "--map-group=1000",
        "--keep-caps",
        "sh",
        "-c",
    ]);
    unshare.arg(
        "echo 0 > /proc/sys/user/max_user_namespaces && exec \"$0\" image rootfs a.yaml b.tar \
         --cache-dir cache2",
    );
    unshare.arg(program.get_program()).current_dir(place.path());
    unshare
        .env_clear()
        .env("PATH", "/usr/bin:/bin")
        .env("APK_CONFIG", "/dev/null");
    let said = said(&mut unshare);
    let line = said
        .err
        .lines()
        .find(|line| line.starts_with("error["))
        .unwrap_or_default();
    assert!(
        line.starts_with("error[E-NO-USERNS]: scripts cannot be run in a sandbox: "),
        "{}",
        said.err
    );
    assert!(
        line.ends_with("/proc/sys/user/max_user_namespaces is 0"),
        "{line}"
    );
    assert!(
        said.err.contains("hint: use `--scripts emulate`"),
        "{}",
        said.err
    );
    assert_eq!(said.code, 1);
}

/// Returns the words in a text that look like codes of errors.
fn codes(text: &str) -> BTreeSet<String> {
    let part = |c: char| c.is_ascii_uppercase() || c == '-';
    let words = text
        .split(|c: char| !part(c))
        .map(|word| word.trim_end_matches('-'));
    let codes = words.filter(|word| word.starts_with("E-") && word.len() > 3);
    codes.map(str::to_owned).collect()
}

#[test]
fn every_error_code_has_a_case() {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let read = |path: &str| fs::read_to_string(here.join(path)).expect("a source file");
    let mut known = BTreeSet::new();
    for path in [
        "src/config/image/mod.rs",
        "src/image/error.rs",
        "src/ops/image/error.rs",
        "src/ops/publish.rs",
    ] {
        // The codes are what the functions named `code` return.
        let text = read(path);
        for line in text
            .lines()
            .map(str::trim)
            .filter(|line| line.contains("\"E-"))
        {
            known.extend(codes(line));
        }
    }
    assert!(known.len() > 35, "{known:?}");
    let mut tested = BTreeSet::new();
    for entry in fs::read_dir(here.join("tests/it")).expect("a folder") {
        let path = entry.expect("an entry").path();
        let name = path
            .file_name()
            .expect("a name")
            .to_string_lossy()
            .into_owned();
        if name.starts_with("image_") && name.ends_with(".rs") {
            let text = read(&format!("tests/it/{name}"));
            // A case compares the first line of the report, or the code of the error.
            for (at, _) in text.match_indices("E-") {
                let before = &text[..at];
                if before.ends_with("error[") || before.ends_with('"') {
                    tested.extend(
                        codes(&text[at..text.len().min(at + 40)])
                            .into_iter()
                            .take(1),
                    );
                }
            }
        }
    }
    let missing: Vec<&String> = known.difference(&tested).collect();
    assert!(missing.is_empty(), "no case for {missing:?}");
}

#[test]
fn all_reasons_are_told_to_who_asks_for_them() {
    let needs = |names: &'static str| {
        move |package: &mut ibex::package::Package| {
            package.depends = World::parse(names).expect("names").entries;
        }
    };
    let shop = Shop::new(&[
        package("a", "1-r0", vec![]).with(needs("b")),
        package("b", "1-r0", vec![]),
        package("c", "1-r0", vec![]).with(needs("d")),
        package("d", "1-r0", vec![]),
    ]);
    shop.describe("a.yaml", "a, c, '!b', '!d'", "");
    let short = shop.desk.run(&["show-packages", "a.yaml"]);
    assert_eq!(short.code, 4, "{}", short.err);
    assert!(
        short
            .err
            .ends_with("hint: `--explain` tells what else is in the way\n"),
        "{}",
        short.err
    );
    let long = shop.desk.run(&["show-packages", "a.yaml", "--explain"]);
    assert!(
        long.err.contains("a-1-r0") && long.err.contains("c-1-r0"),
        "{}",
        long.err
    );
    let both = |text: &str| text.contains("a-1-r0") && text.contains("c-1-r0");
    assert!(!both(&short.err), "{}", short.err);
    let json = shop.desk.run(&["show-packages", "a.yaml", "--json"]);
    assert!(both(&json.out), "{}", json.out);
}

/// A field of a description, and two descriptions that differ in it alone. `B` stands for the lines
/// that all have, `K` for a key.
const FIELDS: &[(&str, &str, &str)] = &[
    ("contents.repositories", "B", "B, repositories: ['R', 'S']"),
    (
        "contents.build_repositories",
        "B, packages: [extra]",
        "B, packages: [extra], build_repositories: ['S']",
    ),
    (
        "contents.runtime_repositories",
        "B",
        "B, runtime_repositories: ['https://example.com/x']",
    ),
    ("contents.keyring", "B, keyring: []", "B"),
    (
        "contents.runtime_keyring",
        "B",
        "B, runtime_keyring: [{name: a, content: \"K\"}]",
    ),
    (
        "contents.runtime_keyring.name",
        "B, runtime_keyring: [{name: a, content: \"K\"}]",
        "B, runtime_keyring: [{name: b, content: \"K\"}]",
    ),
    (
        "contents.runtime_keyring.content",
        "B, runtime_keyring: [{name: a, content: \"K\"}]",
        "B, runtime_keyring: [{name: a, content: \"L\"}]",
    ),
    ("contents.packages", "B", "B, packages: [demo-base, tool]"),
    ("entrypoint.command", "", "entrypoint: {command: /bin/x}"),
    (
        "entrypoint.shell-fragment",
        "",
        "entrypoint: {shell-fragment: 'exec /bin/x'}",
    ),
    ("entrypoint.type", "", "entrypoint: {type: service-bundle}"),
    (
        "entrypoint.services",
        "entrypoint: {type: service-bundle}",
        "entrypoint: {type: service-bundle, services: {a: /bin/x}}",
    ),
    ("cmd", "", "cmd: -q"),
    ("stop-signal", "", "stop-signal: SIGQUIT"),
    ("work-dir", "", "work-dir: /srv"),
    ("accounts.run-as", "", "accounts: {run-as: 7}"),
    (
        "accounts.users",
        "",
        "accounts: {users: [{username: u, uid: 7}]}",
    ),
    (
        "accounts.users.username",
        "accounts: {users: [{username: u, uid: 7, homedir: /h}]}",
        "accounts: {users: [{username: v, uid: 7, homedir: /h}]}",
    ),
    (
        "accounts.users.uid",
        "accounts: {users: [{username: u, uid: 7, gid: 1}]}",
        "accounts: {users: [{username: u, uid: 8, gid: 1}]}",
    ),
    (
        "accounts.users.gid",
        "accounts: {users: [{username: u, uid: 7}]}",
        "accounts: {users: [{username: u, uid: 7, gid: 0}]}",
    ),
    (
        "accounts.users.shell",
        "accounts: {users: [{username: u, uid: 7}]}",
        "accounts: {users: [{username: u, uid: 7, shell: /bin/x}]}",
    ),
    (
        "accounts.users.homedir",
        "accounts: {users: [{username: u, uid: 7}]}",
        "accounts: {users: [{username: u, uid: 7, homedir: /x}]}",
    ),
    (
        "accounts.groups",
        "",
        "accounts: {groups: [{groupname: g, gid: 7}]}",
    ),
    (
        "accounts.groups.groupname",
        "accounts: {groups: [{groupname: g, gid: 7}]}",
        "accounts: {groups: [{groupname: h, gid: 7}]}",
    ),
    (
        "accounts.groups.gid",
        "accounts: {groups: [{groupname: g, gid: 7}]}",
        "accounts: {groups: [{groupname: g, gid: 8}]}",
    ),
    (
        "accounts.groups.members",
        "accounts: {groups: [{groupname: g, gid: 7}]}",
        "accounts: {groups: [{groupname: g, gid: 7, members: [root]}]}",
    ),
    ("archs", "", "archs: [arm64]"),
    ("environment", "", "environment: {A: b}"),
    ("paths", "", "paths: [{path: /a, type: directory}]"),
    (
        "paths.path",
        "paths: [{path: /a, type: directory}]",
        "paths: [{path: /b, type: directory}]",
    ),
    (
        "paths.type",
        "paths: [{path: /a, type: directory}]",
        "paths: [{path: /a, type: empty-file}]",
    ),
    (
        "paths.uid",
        "paths: [{path: /a, type: directory}]",
        "paths: [{path: /a, type: directory, uid: 7}]",
    ),
    (
        "paths.gid",
        "paths: [{path: /a, type: directory}]",
        "paths: [{path: /a, type: directory, gid: 7}]",
    ),
    (
        "paths.permissions",
        "paths: [{path: /a, type: directory}]",
        "paths: [{path: /a, type: directory, permissions: 0o700}]",
    ),
    (
        "paths.source",
        "paths: [{path: /a, type: symlink, source: x}]",
        "paths: [{path: /a, type: symlink, source: y}]",
    ),
    (
        "paths.recursive",
        "paths: [{path: /etc, type: permissions, uid: 7}]",
        "paths: [{path: /etc, type: permissions, uid: 7, recursive: true}]",
    ),
    ("vcs-url", "", "vcs-url: https://example.com/r@1234"),
    ("annotations", "", "annotations: {a: b}"),
    ("include", "", "include: included.yaml"),
    ("volumes", "", "volumes: [/srv]"),
    ("layering", "", "layering: {strategy: origin, budget: 1}"),
    (
        "layering.strategy",
        "layering: {budget: 1}",
        "layering: {strategy: origin, budget: 1}",
    ),
    (
        "layering.budget",
        "layering: {strategy: origin, budget: 1}",
        "layering: {strategy: origin, budget: 2}",
    ),
    ("format", "", "format: erofs"),
    (
        "certificates.additional",
        "",
        "certificates: {additional: [{name: a, content: \"C\"}]}",
    ),
    (
        "certificates.additional.name",
        "certificates: {additional: [{name: a, content: \"C\"}]}",
        "certificates: {additional: [{name: b, content: \"C\"}]}",
    ),
    (
        "certificates.additional.content",
        "certificates: {additional: [{name: a, content: \"C\"}]}",
        "certificates: {additional: [{name: a, content: \"D\"}]}",
    ),
    (
        "certificates.providers",
        "",
        "certificates: {providers: [demo-base]}",
    ),
    (
        "os-release",
        "B, packages: [tool]",
        "B, packages: [tool]\nos-release: {id: x}",
    ),
    ("x-build.scripts", "", "x-build: {X, scripts: skip}"),
    (
        "x-build.files",
        "",
        "x-build: {X, files: [{path: /a, content: x}]}",
    ),
    (
        "x-build.files.path",
        "x-build: {X, files: [{path: /a, content: x}]}",
        "x-build: {X, files: [{path: /b, content: x}]}",
    ),
    (
        "x-build.files.source",
        "x-build: {X, files: [{path: /a, source: included.yaml}]}",
        "x-build: {X, files: [{path: /a, source: a.yaml}]}",
    ),
    (
        "x-build.files.content",
        "x-build: {X, files: [{path: /a, content: x}]}",
        "x-build: {X, files: [{path: /a, content: y}]}",
    ),
    (
        "x-build.files.mode",
        "x-build: {X, files: [{path: /a, content: x}]}",
        "x-build: {X, files: [{path: /a, content: x, mode: 0600}]}",
    ),
    (
        "x-build.files.uid",
        "x-build: {X, files: [{path: /a, content: x}]}",
        "x-build: {X, files: [{path: /a, content: x, uid: 7}]}",
    ),
    (
        "x-build.files.gid",
        "x-build: {X, files: [{path: /a, content: x}]}",
        "x-build: {X, files: [{path: /a, content: x, gid: 7}]}",
    ),
    ("x-build.world", "", "x-build: {X, world: locked}"),
    (
        "x-build.compression",
        "",
        "x-build: {X, compression: 'zstd:1'}",
    ),
    (
        "x-build.healthcheck.test",
        "",
        "x-build: {X, healthcheck: {test: [CMD, x]}}",
    ),
    (
        "x-build.healthcheck.interval",
        "x-build: {X, healthcheck: {test: [CMD, x]}}",
        "x-build: {X, healthcheck: {test: [CMD, x], interval: 3s}}",
    ),
    (
        "x-build.healthcheck.timeout",
        "x-build: {X, healthcheck: {test: [CMD, x]}}",
        "x-build: {X, healthcheck: {test: [CMD, x], timeout: 3s}}",
    ),
    (
        "x-build.healthcheck.start-period",
        "x-build: {X, healthcheck: {test: [CMD, x]}}",
        "x-build: {X, healthcheck: {test: [CMD, x], start-period: 3s}}",
    ),
    (
        "x-build.healthcheck.retries",
        "x-build: {X, healthcheck: {test: [CMD, x]}}",
        "x-build: {X, healthcheck: {test: [CMD, x], retries: 3}}",
    ),
    ("x-build.expose", "", "x-build: {X, expose: [80/tcp]}"),
    ("x-build.labels", "", "x-build: {X, labels: {a: b}}"),
    (
        "x-build.remove",
        "",
        "x-build: {remove: [/etc/apko.json, /etc/late]}",
    ),
    ("x-build.clamp-mtime", "", "x-build: {X, clamp-mtime: true}"),
    (
        "x-build.mirrors",
        "B, repositories: ['http://127.0.0.1:9/r']",
        "B, repositories: ['http://127.0.0.1:9/r']\nx-build: {X, mirrors: {'http://127.0.0.1:9/r': ['R']}}",
    ),
    ("x-build.db", "", "x-build: {X, db: usr}"),
];

/// What is tested elsewhere, or only accepted.
const OTHER_FIELDS: [&str; 4] = [
    "contents.baseimage.image",
    "contents.baseimage.apkindex",
    "contents.options",
    "options",
];

/// Returns the paths of the fields of a schema; of mappings, those inside.
fn fields(schema: &serde_json::Value, path: &str, found: &mut BTreeSet<String>) {
    for (name, field) in schema["properties"].as_object().into_iter().flatten() {
        let path = if path.is_empty() {
            name.clone()
        } else {
            format!("{path}.{name}")
        };
        let items = &field["items"];
        match (
            field["properties"].is_object(),
            items["properties"].is_object(),
        ) {
            (true, _) => fields(field, &path, found),
            (_, true) => {
                fields(items, &path, found);
                found.insert(path);
            }
            _ => drop(found.insert(path)),
        }
    }
}

#[test]
fn every_field_of_a_description_has_an_effect() {
    if !has("openssl") {
        return;
    }
    let script = "mkdir -p /etc/made";
    let tool = package(
        "tool",
        "2-r0",
        vec![
            directory("etc"),
            EntrySpec {
                mtime: 1_650_000_000,
                ..file("etc/late", "x")
            },
        ],
    )
    .script(ScriptKind::PostInstall, script);
    let local = "usr/local/share/ca-certificates";
    let place = tempfile::tempdir().expect("a temporary directory");
    let certificates =
        ["c", "d"].map(|name| certificate(place.path(), name, &format!("/CN={name}")));
    let layout = [
        "usr",
        "usr/local",
        "usr/local/share",
        local,
        "etc/ssl",
        "etc/ssl/certs",
    ];
    let mut base = base();
    base.contents
        .entries
        .extend(layout.iter().map(|path| directory(path)));
    base.contents.entries.extend([
        file(&format!("{local}/own.crt"), &certificates[0]),
        file("etc/ssl/certs/ca-certificates.crt", ""),
    ]);
    let base = base.with(|package| package.depends = World::parse("tool").expect("a name").entries);
    let extra = package("extra", "1-r0", vec![]);
    let s6 = package("s6", "1-r0", vec![]);
    let shop = Shop::new(&[base, tool, s6]);
    let second = shop.offer("second", &[extra]);
    let escaped = |text: &str| text.replace('\n', "\\n");
    let keys = [
        fs::read_to_string(key()).expect("a key"),
        fs::read_to_string(
            Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/keys/TEST-ONLY.rsa.pub"),
        )
        .expect("a key"),
    ];
    // A description says each thing once: what a case gives takes the place of what all have.
    let write = |case: &str| {
        let (contents, rest) = match case.strip_prefix('B') {
            Some(case) => case.split_once('\n').unwrap_or((case, "")),
            None => ("", case),
        };
        let mut lines = BTreeMap::from([
            ("keyring".to_owned(), format!("['{}']", key())),
            ("repositories".to_owned(), "['R']".to_owned()),
            ("packages".to_owned(), "[demo-base]".to_owned()),
        ]);
        for part in contents
            .split(", ")
            .filter(|part| part.contains(": ") && !part.starts_with('['))
        {
            let part = part.trim();
            let whole = &contents[contents.find(part).expect("it is there")..];
            let (name, value) = whole.split_once(": ").expect("it was asked");
            let known = [
                "build_repositories",
                "runtime_repositories",
                "repositories",
                "keyring",
                "runtime_keyring",
                "packages",
            ];
            if known.contains(&name) {
                let end = value.find(']').expect("a list") + 1;
                lines.insert(name.to_owned(), value[..end].to_owned());
            }
        }
        let mut text = "contents:\n".to_owned();
        for (name, value) in lines {
            text.push_str(&format!("  {name}: {value}\n"));
        }
        if !rest.contains("archs: ") {
            text.push_str("archs: [amd64]\n");
        }
        if !rest.contains("x-build: ") {
            text.push_str("x-build: {X}\n");
        }
        text.push_str(&format!("{rest}\n"));
        let text = text
            .replace("'R'", &format!("'{}'", shop.repository()))
            .replace("'S'", &format!("'{second}'"))
            .replace("{X", "{remove: [/etc/apko.json]")
            .replace("\"K\"", &format!("\"{}\"", escaped(&keys[0])))
            .replace("\"L\"", &format!("\"{}\"", escaped(&keys[1])))
            .replace("\"C\"", &format!("\"{}\"", escaped(&certificates[0])))
            .replace("\"D\"", &format!("\"{}\"", escaped(&certificates[1])));
        shop.desk.write("a.yaml", &text);
        text
    };
    shop.desk.write("included.yaml", "cmd: included\n");
    let outcome = |text: &str| {
        let said = shop
            .desk
            .run(&["build", "a.yaml", "t:1", "out/", "-q", "--sbom=no"]);
        let error = said
            .err
            .lines()
            .find(|line| line.starts_with("error["))
            .unwrap_or_default();
        assert!(!error.starts_with("error[E-YAML]"), "{error}\n{text}");
        // Only a field that is not there may be unknown.
        assert!(!error.contains("unknown"), "{error}\n{text}");
        format!("{}{error}", said.out)
    };
    let plain = outcome(&write(""));
    assert!(plain.starts_with("t@sha256:"), "{plain}");
    let mut tested: BTreeSet<String> = OTHER_FIELDS.map(str::to_owned).into();
    for (field, without, with) in FIELDS {
        let before = match *without {
            "" | "B" => plain.clone(),
            without => outcome(&write(without)),
        };
        let text = write(with);
        let after = outcome(&text);
        assert_ne!(before, after, "{field} has no effect:\n{text}");
        assert!(
            after.starts_with("t@")
                || before.starts_with("t@")
                || *field == "x-build.mirrors"
                || ["format"].contains(field),
            "{field}: {before} {after}\n{text}"
        );
        tested.insert((*field).to_owned());
    }
    let schema = shop.desk.run(&["schema"]).good();
    let mut known = BTreeSet::new();
    fields(
        &serde_json::from_str(&schema).expect("JSON"),
        "",
        &mut known,
    );
    let missing: Vec<&String> = known.difference(&tested).collect();
    assert!(known.len() > 60, "{known:?}");
    assert!(missing.is_empty(), "no case for {missing:?}");
}
