//! Images in the hands of programs that others wrote: skopeo, umoci, podman, runc, a registry, tar,
//! cpio.

use crate::image_build::{build, request};
use crate::image_contents::request_for;
use crate::support::repository::{Made, directory, file, hard_link, package};
use crate::support::{self, Run, Sandbox};
use ibex::fetch::registry::{
    Blob, BlobSource, CredentialFiles, Manifest, Push, Reference, Registry,
};
use ibex::format::package_writer::EntrySpec;
use ibex::image::output::{self, Bundle, LayoutShape};
use ibex::image::{BuiltImage, Compression, Document, Layering, oci};
use ibex::ops::publish;
use ibex::package::ScriptKind;
use ibex::root::tree::EntryKind;
use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// Returns whether a program is there; in CI it must be.
pub(crate) fn has(program: &str) -> bool {
    let found = ["/usr/bin", "/usr/sbin", "/bin", "/sbin"]
        .iter()
        .any(|folder| Path::new(folder).join(program).exists());
    let ci = std::env::var_os("CI").is_some_and(|value| value == "true");
    assert!(found || !ci, "{program} is missing");
    if !found {
        eprintln!("skipped: {program} is missing");
    }
    found
}

/// Runs a program with arguments in a short notation.
fn run(program: &str, arguments: &[&str]) -> Run {
    let mut command = Command::new(program);
    command.args(arguments).env("HOME", "/nonexistent");
    support::run(&mut command)
}

/// An image with what the checks need: programs, a set-uid program, users made by scripts, links.
struct Case {
    image: BuiltImage,
    index: Document,
    folder: tempfile::TempDir,
    _store: tempfile::TempDir,
}

impl Case {
    fn new(compression: Compression, layering: Layering) -> Option<Self> {
        let repository = support::data("alpine-v3.19")?;
        let names = ["alpine-base", "busybox-suid", "chrony", "openssh", "tzdata"];
        let mut request = request(&repository, "x86_64", &names);
        request.compression = compression;
        request.layering = layering;
        request.config.cmd = vec!["/bin/sh".to_owned()];
        let (image, store) = build(&request);
        let index = oci::index(std::slice::from_ref(&image), &BTreeMap::new());
        Some(Self {
            image,
            index,
            folder: tempfile::tempdir().expect("a temporary directory"),
            _store: store,
        })
    }

    fn bundle(&self) -> Bundle<'_> {
        Bundle {
            images: std::slice::from_ref(&self.image),
            index: &self.index,
            reference: "example.org/base:1",
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Writes an OCI layout and returns its path as text.
    fn layout(&self) -> String {
        let path = self.path("layout");
        self.bundle()
            .oci_directory(&path, LayoutShape::Named)
            .expect("a layout");
        path.display().to_string()
    }

    /// The tree as rows that `support::tree` would make of it.
    fn rows(&self) -> BTreeMap<String, String> {
        let folder = self.path("reference");
        output::rootfs_directory(&self.image, &folder, output::Ownership::default())
            .expect("a root file system");
        support::tree(&folder, i64::MAX)
    }
}

/// Leaves the times of links out, which umoci and cpio do not set.
fn timeless(rows: BTreeMap<String, String>) -> BTreeMap<String, String> {
    let row = |row: String| match row.split('\t').collect::<Vec<_>>().as_slice() {
        ["link", mode, uid, gid, _, target] => format!("link {mode} {uid} {gid} {target}"),
        _ => row,
    };
    rows.into_iter()
        .map(|(path, text)| (path, row(text)))
        .collect()
}

#[test]
fn skopeo_and_umoci_take_the_layout() {
    if !support::is_root() || !has("skopeo") || !has("umoci") {
        return;
    }
    for (compression, layering) in [
        (Compression::Gzip(6), Layering::One),
        (Compression::Gzip(6), Layering::Origin { budget: 4 }),
        (Compression::None, Layering::One),
    ] {
        let Some(case) = Case::new(compression, layering) else {
            return;
        };
        let layout = case.layout();
        let source = format!("oci:{layout}:example.org/base:1");
        let raw = run("skopeo", &["inspect", "--raw", &source])
            .success()
            .output;
        assert_eq!(raw.as_bytes(), case.index.bytes, "the index as it is");
        let manifest = run("skopeo", &["inspect", "--format", "{{.Digest}}", &source]).success();
        let digest = &case.index.descriptor.digest;
        assert_eq!(manifest.output.trim(), digest);
        let to = format!("dir:{}", case.path("copied").display());
        run(
            "skopeo",
            &["--insecure-policy", "copy", "--all", &source, &to],
        )
        .success();
        let archive = case.path("archive.oci.tar");
        output::write_file(&archive, |out| {
            case.bundle().oci_archive(out, LayoutShape::Named)
        })
        .expect("an archive");
        let source = format!("oci-archive:{}", archive.display());
        let found = run("skopeo", &["inspect", "--format", "{{.Digest}}", &source]).success();
        assert_eq!(found.output.trim(), digest);

        let unpacked = case.path("bundle").display().to_string();
        let image = format!("{layout}:example.org/base:1");
        run("umoci", &["unpack", "--image", &image, &unpacked]).success();
        let found = timeless(support::tree(&case.path("bundle/rootfs"), i64::MAX));
        let differences = support::differences(&timeless(case.rows()), &found);
        assert!(differences.is_empty(), "{}", differences.join("\n"));
    }
}

#[test]
fn zstd_layers_are_taken_by_skopeo() {
    if !has("skopeo") {
        return;
    }
    let Some(case) = Case::new(Compression::Zstd(3), Layering::One) else {
        return;
    };
    let source = format!("oci:{}:example.org/base:1", case.layout());
    let to = format!("dir:{}", case.path("copied").display());
    run("skopeo", &["--insecure-policy", "copy", &source, &to]).success();
    // Decompressed by a program of its own, it is the tar archive that the configuration names.
    let layer = &case.image.layers[0];
    let tar = case.path("layer.tar");
    run(
        "zstd",
        &[
            "-q",
            "-d",
            "-o",
            &tar.display().to_string(),
            &layer.path.display().to_string(),
        ],
    )
    .success();
    let bytes = fs::read(&tar).expect("an archive");
    assert_eq!(
        format!("sha256:{}", ibex::image::store::sha256_hex(&bytes)),
        layer.diff_id
    );
}

#[test]
fn podman_loads_and_exports_the_docker_archive() {
    if !support::is_root() || !has("podman") {
        return;
    }
    let Some(case) = Case::new(Compression::None, Layering::One) else {
        return;
    };
    let write = |name: &str, shape| {
        let archive = case.path(name);
        output::write_file(&archive, |out| {
            case.bundle().docker_archive(out, shape, "x86_64")
        })
        .expect("an archive");
        archive.display().to_string()
    };
    let archive = write("image.tar", output::LayoutShape::Named);
    // With apko's names it is the same image.
    let like_apko = write("apko.tar", output::LayoutShape::Bare);
    let inspected = run(
        "skopeo",
        &[
            "inspect",
            "--config",
            "--raw",
            &format!("docker-archive:{like_apko}"),
        ],
    )
    .success();
    assert_eq!(inspected.output.as_bytes(), case.image.config.bytes);
    let listed = run("tar", &["-t", "-f", &like_apko]).success().output;
    let wanted = [
        case.image.config.descriptor.digest.clone(),
        format!("{}.tar", case.image.layers[0].descriptor.hex()),
        "manifest.json".to_owned(),
        case.image.manifest.descriptor.digest.clone(),
        "index.json".to_owned(),
    ];
    assert_eq!(listed.lines().collect::<Vec<_>>(), wanted);
    let again = ibex::image::read::read(Path::new(&like_apko)).expect("an image");
    assert_eq!(again.len(), 1);
    assert_eq!(again[0].digest, case.image.config.descriptor.digest);
    let (root, state) = (case.path("podman"), case.path("state"));
    let podman = |arguments: &[&str]| {
        let mut command = Command::new("podman");
        command
            .arg("--root")
            .arg(&root)
            .arg("--runroot")
            .arg(&state);
        command.args(["--storage-driver", "vfs", "--cgroup-manager", "cgroupfs"]);
        support::run(command.args(arguments).env("HOME", case.folder.path()))
    };
    podman(&["load", "-q", "-i", &like_apko]).success();
    podman(&["rmi", "example.org/base:1"]).success();
    let loaded = podman(&["load", "-q", "-i", &archive]).success();
    assert!(
        loaded.output.contains("example.org/base:1"),
        "{}",
        loaded.output
    );
    let id = podman(&[
        "image",
        "inspect",
        "--format",
        "{{.Id}}",
        "example.org/base:1",
    ])
    .success();
    let digest = case.image.config.descriptor.hex();
    assert_eq!(
        id.output.trim(),
        digest,
        "the id is the digest of the configuration"
    );
    podman(&[
        "create",
        "--name",
        "c",
        "--net",
        "none",
        "example.org/base:1",
    ])
    .success();
    let exported = case.path("export.tar").display().to_string();
    podman(&["export", "-o", &exported, "c"]).success();
    let names = |text: &str| -> Vec<String> {
        let mut names: Vec<String> = text
            .lines()
            .map(|name| name.trim_matches('/').to_owned())
            .collect();
        names.sort();
        names
    };
    let listed = names(&run("tar", &["-t", "-f", &exported]).success().output);
    let entries = case.image.root.tree().expect("a tree").entries();
    let missing: Vec<&str> = entries
        .iter()
        .map(|entry| entry.path.as_str())
        .filter(|path| !listed.iter().any(|name| name == path))
        .collect();
    assert!(missing.is_empty(), "podman lost {missing:?}");
}

#[test]
fn runc_runs_what_is_inside() {
    if !support::is_root() || !has("runc") || !has("umoci") {
        return;
    }
    let Some(case) = Case::new(Compression::Gzip(6), Layering::One) else {
        return;
    };
    let image = format!("{}:example.org/base:1", case.layout());
    let bundle = case.path("bundle");
    run(
        "umoci",
        &["unpack", "--image", &image, &bundle.display().to_string()],
    )
    .success();
    let config = bundle.join("config.json");
    let original: serde_json::Value =
        serde_json::from_slice(&fs::read(&config).expect("a file")).expect("JSON");
    let inside = |user: u32, arguments: &[&str]| {
        let mut wanted = original.clone();
        wanted["process"]["terminal"] = false.into();
        wanted["process"]["args"] = arguments.into();
        wanted["process"]["user"] = serde_json::json!({"uid": user, "gid": user});
        wanted["process"]["noNewPrivileges"] = false.into();
        // Where tests run there may be no control groups to write to.
        wanted["linux"]["resources"] = serde_json::json!({});
        let mounts = wanted["mounts"].as_array_mut().expect("mounts");
        mounts.retain(|mount| mount["type"] != "cgroup" && mount["type"] != "sysfs");
        fs::write(&config, wanted.to_string()).expect("a file");
        let name = format!("ibex-test-{}-{user}", std::process::id());
        let state = case.path("runc").display().to_string();
        let bundle = bundle.display().to_string();
        let mut command = Command::new("runc");
        command.args(["--root", &state, "run", "-b", &bundle, &name]);
        support::run(&mut command)
    };
    let said = inside(0, &["busybox", "echo", "hello"]).success();
    assert_eq!(said.output, "hello\n");
    let said = inside(0, &["ssh", "-V"]).success();
    assert!(said.output.starts_with("OpenSSH_9.6p1"), "{}", said.output);
    // A user that a script made, and a program that becomes root for who runs it.
    let said = inside(0, &["id", "chrony"]).success();
    assert_eq!(
        said.output,
        "uid=100(chrony) gid=101(chrony) groups=101(chrony),101(chrony)\n"
    );
    let script = "/bin/bbsuid 2>&1; ls -ln /bin/bbsuid; id -u";
    let said = inside(1000, &["sh", "-c", script]).success();
    assert!(said.output.contains("---s--x--x"), "{}", said.output);
    assert!(said.output.ends_with("1000\n"), "{}", said.output);
    let said = inside(1000, &["su", "-c", "id -u", "nobody"]);
    assert!(
        said.output.contains("assword") || said.output.contains("incorrect"),
        "{}",
        said.output
    );
    let said = inside(1000, &["mount", "-t", "proc", "none", "/mnt"]);
    assert!(!said.output.contains("must be suid"), "{}", said.output);
}

/// A registry on the loopback address, stopped when dropped.
pub(crate) struct LocalRegistry {
    child: Child,
    pub(crate) port: u16,
    _folder: tempfile::TempDir,
}

impl LocalRegistry {
    pub(crate) fn start() -> Self {
        let folder = tempfile::tempdir().expect("a temporary directory");
        // A port that is free now; nobody else takes it so soon.
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("an address").port();
        drop(listener);
        let config = folder.path().join("config.yml");
        let data = folder.path().join("data");
        let text = format!(
            "version: 0.1\nlog: {{level: error}}\nstorage:\n  filesystem: {{rootdirectory: {}}}\n\
             http: {{addr: '127.0.0.1:{port}'}}\n",
            data.display()
        );
        fs::write(&config, text).expect("a file");
        let child = Command::new("docker-registry")
            .arg("serve")
            .arg(&config)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("a registry");
        let registry = Self {
            child,
            port,
            _folder: folder,
        };
        for _ in 0..200 {
            if std::net::TcpStream::connect(("127.0.0.1", port)).is_ok() {
                return registry;
            }
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
        panic!("the registry does not answer");
    }
}

impl Drop for LocalRegistry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Returns what is pushed for an image.
fn push_of<'a>(case: &'a Case, mount_from: Option<&'a str>) -> Push<'a> {
    let manifest = |document: &'a Document| Manifest {
        digest: &document.descriptor.digest,
        media_type: &document.descriptor.media_type,
        bytes: &document.bytes,
    };
    let layers = case.image.layers.iter().map(|layer| Blob {
        digest: &layer.descriptor.digest,
        size: layer.descriptor.size,
        source: BlobSource::File(&layer.path),
        mount_from,
    });
    let config = Blob {
        digest: &case.image.config.descriptor.digest,
        size: case.image.config.descriptor.size,
        source: BlobSource::Bytes(&case.image.config.bytes),
        mount_from: None,
    };
    Push {
        blobs: layers.chain([config]).collect(),
        manifests: vec![manifest(&case.image.manifest)],
        top: Some(manifest(&case.index)),
        referrers: Vec::new(),
    }
}

#[test]
fn a_registry_takes_the_image_and_skopeo_gets_it_back() {
    if !has("docker-registry") || !has("skopeo") {
        return;
    }
    let Some(case) = Case::new(Compression::Gzip(6), Layering::Origin { budget: 3 }) else {
        return;
    };
    let server = LocalRegistry::start();
    let reference = Reference::parse(&format!("127.0.0.1:{}/team/base:1", server.port));
    let reference = reference.expect("a reference");
    let none = CredentialFiles::default();
    let mut registry = Registry::new(&reference, &none, false).expect("a connection");
    let tags = ["1".to_owned(), "latest".to_owned()];
    let first = registry.push(&push_of(&case, None), &tags).expect("a push");
    let blobs = case.image.layers.len() as u32 + 1;
    assert_eq!((first.sent, first.present, first.mounted), (blobs, 0, 0));
    let second = registry.push(&push_of(&case, None), &tags).expect("a push");
    assert_eq!((second.sent, second.bytes, second.present), (0, 0, blobs));

    // Another repository of the same registry gets the layers without sending them.
    let other = Reference::parse(&format!("127.0.0.1:{}/other:2", server.port)).expect("one");
    let mut registry = Registry::new(&other, &none, false).expect("a connection");
    let third = registry
        .push(&push_of(&case, Some("team/base")), &tags)
        .expect("a push");
    assert_eq!((third.mounted, third.sent), (blobs - 1, 1));

    for reference in ["team/base:1", "team/base:latest", "other:1"] {
        let source = format!("docker://127.0.0.1:{}/{reference}", server.port);
        let raw = run(
            "skopeo",
            &["inspect", "--tls-verify=false", "--raw", &source],
        )
        .success();
        assert_eq!(raw.output.as_bytes(), case.index.bytes);
        let arguments = [
            "inspect",
            "--tls-verify=false",
            "--format",
            "{{.Digest}}",
            &source,
        ];
        let digest = run("skopeo", &arguments).success();
        assert_eq!(digest.output.trim(), case.index.descriptor.digest);
    }
    let source = format!("docker://127.0.0.1:{}/team/base:1", server.port);
    let back = format!("oci:{}:back", case.path("back").display());
    let arguments = [
        "--insecure-policy",
        "copy",
        "--all",
        "--src-tls-verify=false",
        &source,
        &back,
    ];
    run("skopeo", &arguments).success();
    for layer in &case.image.layers {
        let blob = case.path("back/blobs/sha256").join(layer.descriptor.hex());
        assert_eq!(
            fs::read(blob).expect("a blob"),
            fs::read(&layer.path).expect("a layer")
        );
    }

    // An SBOM that refers to the image, in a registry that keeps no lists of its own.
    let (manifest, empty, content) = oci::referrer(
        &case.index.descriptor,
        "application/spdx+json",
        b"{}\n".to_vec(),
    );
    let blob = |document: &Document| (document.descriptor.clone(), document.bytes.clone());
    let blobs = [blob(&empty), blob(&content)];
    let push = Push {
        blobs: blobs
            .iter()
            .map(|(descriptor, bytes)| Blob {
                digest: &descriptor.digest,
                size: descriptor.size,
                source: BlobSource::Bytes(bytes),
                mount_from: None,
            })
            .collect(),
        manifests: Vec::new(),
        top: None,
        referrers: vec![(
            Manifest {
                digest: &manifest.descriptor.digest,
                media_type: &manifest.descriptor.media_type,
                bytes: &manifest.bytes,
            },
            &case.index.descriptor.digest,
        )],
    };
    let mut registry = Registry::new(&reference, &none, false).expect("a connection");
    registry.push(&push, &[]).expect("a push");
    let tag = case.index.descriptor.digest.replace(':', "-");
    let source = format!("docker://127.0.0.1:{}/team/base:{tag}", server.port);
    let list = run(
        "skopeo",
        &["inspect", "--tls-verify=false", "--raw", &source],
    )
    .success();
    assert!(
        list.output.contains(&manifest.descriptor.digest),
        "{}",
        list.output
    );
}

#[test]
fn publishing_mounts_what_another_repository_has_and_attaches_documents() {
    if !has("docker-registry") || !has("skopeo") {
        return;
    }
    let Some(case) = Case::new(Compression::Gzip(6), Layering::One) else {
        return;
    };
    let server = LocalRegistry::start();
    let store = ibex::image::Store::open(&case.path("store")).expect("a store");
    let host = format!("127.0.0.1:{}", server.port);
    let references = ["a:1", "a:2", "b/c:1"].map(|name| format!("{host}/{name}"));
    let publication = publish::Publication {
        images: std::slice::from_ref(&case.image),
        index: &case.index,
        references: &references,
        credentials: &CredentialFiles::default(),
        insecure: &[],
        attachments: &[publish::Attachment {
            subject: case.index.descriptor.clone(),
            artifact_type: "application/spdx+json".to_owned(),
            content: b"{}".to_vec(),
        }],
        store: Some(&store),
    };
    let done = publish::publish(&publication).expect("it is published");
    let digest = &case.index.descriptor.digest;
    assert_eq!(
        done.digests,
        [format!("{host}/a@{digest}"), format!("{host}/b/c@{digest}")]
    );
    assert_eq!(done.references.len(), 4);
    // The layer went over the wire once; the configuration and two empty ones are small.
    assert_eq!(done.pushed.mounted, 1);
    assert!(done.pushed.bytes < case.image.layers[0].descriptor.size + 10_000);
    let again = publish::publish(&publication).expect("it is published");
    assert_eq!(
        (again.pushed.sent, again.pushed.bytes, again.pushed.mounted),
        (0, 0, 0)
    );
    for reference in &references {
        let source = format!("docker://{reference}");
        let raw = run(
            "skopeo",
            &["inspect", "--tls-verify=false", "--raw", &source],
        )
        .success();
        assert_eq!(raw.output.as_bytes(), case.index.bytes);
    }
    let bad = publish::Publication {
        references: &["Bad".to_owned()],
        ..publication
    };
    assert_eq!(
        publish::publish(&bad).expect_err("an error").code(),
        "E-USAGE"
    );
}

/// Answers each request with the next of some texts, and returns the requests.
fn scripted(answers: Vec<String>) -> (u16, std::thread::JoinHandle<Vec<String>>) {
    use std::io::{BufRead, BufReader, Read};
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("an address").port();
    let handle = std::thread::spawn(move || {
        let mut requests = Vec::new();
        for answer in answers {
            let (mut stream, _) = listener.accept().expect("a connection");
            let mut reader = BufReader::new(stream.try_clone().expect("a stream"));
            let (mut head, mut length) = (String::new(), 0);
            loop {
                let mut line = String::new();
                reader.read_line(&mut line).expect("a line");
                if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                    length = value.trim().parse().expect("a number");
                }
                if line == "\r\n" || line.is_empty() {
                    break;
                }
                head.push_str(&line);
            }
            let mut body = vec![0; length];
            reader.read_exact(&mut body).expect("a body");
            requests.push(head);
            stream.write_all(answer.as_bytes()).expect("an answer");
        }
        requests
    });
    (port, handle)
}

fn answer(status: &str, headers: &str, body: &str) -> String {
    let length = body.len();
    format!(
        "HTTP/1.1 {status}\r\n{headers}content-length: {length}\r\nconnection: close\r\n\r\n{body}"
    )
}

#[test]
fn a_registry_asks_who_we_are_and_errors_are_told() {
    let folder = tempfile::tempdir().expect("a temporary directory");
    let manifest = Manifest {
        digest: "sha256:aa",
        media_type: oci::MANIFEST,
        bytes: b"{}",
    };
    let push = Push {
        top: Some(manifest),
        ..Push::default()
    };
    let login = |port: u16| {
        let path = folder.path().join("auth.json");
        let auth = data_encoding::BASE64.encode(b"me:secret");
        let text = format!(r#"{{"auths":{{"127.0.0.1:{port}":{{"auth":"{auth}"}}}}}}"#);
        fs::write(&path, text).expect("a file");
        CredentialFiles(vec![path])
    };
    let basic = format!("Basic {}", data_encoding::BASE64.encode(b"me:secret"));
    let registry = |port: u16, files: &CredentialFiles| {
        let reference = Reference::parse(&format!("127.0.0.1:{port}/a/b:1")).expect("a reference");
        Registry::new(&reference, files, false).expect("a connection")
    };

    // A token service, which must be at the same port here: the challenge names a path of it.
    let (port, server) = scripted(vec![
        answer(
            "401 Unauthorized",
            "www-authenticate: Basic realm=\"x\"\r\n",
            "",
        ),
        answer("201 Created", "docker-content-digest: sha256:aa\r\n", ""),
        answer("429 Too Many Requests", "retry-after: 0\r\n", ""),
        answer("201 Created", "", ""),
    ]);
    registry(port, &login(port))
        .push(&push, &["1".to_owned()])
        .expect("a push");
    let requests = server.join().expect("the server ends");
    assert!(
        requests[0].starts_with("PUT /v2/a/b/manifests/sha256:aa "),
        "{}",
        requests[0]
    );
    assert!(!requests[0].contains("authorization"));
    assert!(requests[1].contains(&basic), "{}", requests[1]);
    assert!(
        requests[3].starts_with("PUT /v2/a/b/manifests/1 "),
        "{}",
        requests[3]
    );

    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let closed = listener.local_addr().expect("an address").port();
    drop(listener);
    for (answers, wanted) in [
        (
            vec![answer(
                "401 Unauthorized",
                "www-authenticate: Basic realm=\"x\"\r\n",
                "",
            )],
            "refused access (401); credentials: none",
        ),
        (
            vec![answer("403 Forbidden", "", "")],
            "refused access (403); credentials: none",
        ),
        (
            vec![answer(
                "400 Bad Request",
                "",
                r#"{"errors":[{"code":"MANIFEST_INVALID","message":"no"}]}"#,
            )],
            "/v2/a/b/manifests/sha256:aa: 400: MANIFEST_INVALID: no",
        ),
        (
            vec![answer(
                "201 Created",
                "docker-content-digest: sha256:bb\r\n",
                "",
            )],
            "the registry says sha256:bb, not sha256:aa",
        ),
    ] {
        let (port, server) = scripted(answers);
        let error = registry(port, &CredentialFiles::default()).push(&push, &[]);
        let text = error.expect_err("an error").to_string();
        assert!(text.contains(wanted), "{text}");
        assert!(!text.contains("secret"));
        server.join().expect("the server ends");
    }
    let error = registry(closed, &CredentialFiles::default()).push(&push, &[]);
    let text = error.expect_err("an error").to_string();
    assert!(text.contains("Connection refused"), "{text}");
}

/// Packages with everything that some reader is strict about: capabilities, names of one file of
/// which the link comes first, directories that all packages have, special bits, a user made by a
/// script.
fn strict_packages() -> Vec<Made> {
    let mut packages = vec![
        package(
            "base",
            "1-r0",
            vec![
                directory("etc"),
                file("etc/passwd", "root:x:0:0:root:/root:/bin/sh\n"),
                file("etc/group", "root:x:0:\n"),
                file("etc/os-release", "ID=demo\nVERSION_ID=1\n"),
            ],
        ),
        package(
            "special",
            "1-r0",
            vec![
                directory("srv"),
                EntrySpec {
                    mode: 0o2755,
                    uname: "demo".to_owned(),
                    gname: "demo".to_owned(),
                    ..directory("srv/shared")
                },
                EntrySpec {
                    mode: 0o1777,
                    ..directory("srv/open")
                },
                EntrySpec {
                    mode: 0o640,
                    uname: "demo".to_owned(),
                    gname: "demo".to_owned(),
                    ..file("srv/shared/own", "own\n")
                },
                file("srv/zzz", "one file\n"),
                hard_link("srv/aaa", "srv/zzz"),
                EntrySpec {
                    mode: 0o755,
                    // Version 2, effective; cap_net_raw is the thirteenth bit.
                    xattrs: BTreeMap::from([(
                        "security.capability".to_owned(),
                        [&[1, 0, 0, 2, 0, 0x20][..], &[0; 14]].concat(),
                    )]),
                    ..file("srv/capable", "#!/bin/sh\n")
                },
            ],
        )
        .script(
            ScriptKind::PreInstall,
            "addgroup -S demo\nadduser -S -D -H -G demo demo",
        ),
    ];
    packages.extend((0..24).map(|number| {
        let path = format!("srv/parts/{number}");
        let entries = vec![
            directory("srv"),
            directory("srv/parts"),
            file(&path, path.clone()),
        ];
        package(&format!("part-{number:02}"), "1-r0", entries)
    }));
    packages
}

#[test]
fn strict_readers_take_layers() {
    if !support::is_root()
        || !["skopeo", "podman", "umoci", "getcap", "bsdtar", "python3"]
            .into_iter()
            .all(has)
    {
        return;
    }
    let folder = tempfile::tempdir().expect("a temporary directory");
    for (name, compression) in [
        ("gzip", Compression::Gzip(6)),
        ("zstd", Compression::Zstd(3)),
    ] {
        let place = folder.path().join(name);
        fs::create_dir(&place).expect("a new directory");
        let path = |name: &str| place.join(name).display().to_string();
        let request = ibex::image::BuildRequest {
            compression,
            layering: Layering::Origin { budget: 4 },
            ..request_for(&place, &strict_packages())
        };
        let (image, _store) = build(&request);
        assert_eq!(image.layers.len(), 5);
        let images = std::slice::from_ref(&image);
        let bundle = Bundle {
            images,
            index: &oci::index(images, &BTreeMap::new()),
            reference: "example.org/strict:1",
        };
        let shape = LayoutShape::Named;
        bundle
            .oci_directory(&place.join("oci"), shape)
            .expect("a layout");
        // Every tar reader lists the same, and Python reads all of it.
        let python = "import sys, tarfile\nfor entry in tarfile.open(sys.argv[1]):\n \
                      print(entry.name.rstrip('/'))\n entry.isreg() and \
                      tarfile.open(sys.argv[1]).extractfile(entry.name).read()";
        for layer in &image.layers {
            let tar = path("layer.tar");
            let mut plain =
                output::open_layer(&layer.path, &layer.descriptor.media_type).expect("a layer");
            let mut out = fs::File::create(&tar).expect("a file");
            std::io::copy(&mut plain, &mut out).expect("a layer");
            let lines = |run: Run| {
                let text = run.success().output;
                text.lines()
                    .map(|line| line.trim_end_matches('/').to_owned())
                    .collect::<Vec<_>>()
            };
            let gnu = lines(run("tar", &["-tf", &tar]));
            assert_eq!(lines(run("bsdtar", &["-tf", &tar])), gnu);
            assert_eq!(lines(run("python3", &["-c", python, &tar])), gnu);
        }
        // containers/storage refuses names that come twice and links that come before their target.
        let podman = |arguments: &[&str]| {
            let mut command = Command::new("podman");
            command
                .arg("--root")
                .arg(place.join("podman"))
                .arg("--runroot")
                .arg(place.join("state"));
            command.args(["--storage-driver", "vfs", "--cgroup-manager", "cgroupfs"]);
            support::run(command.args(arguments).env("HOME", &place))
                .success()
                .output
        };
        let source = format!("oci:{}:example.org/strict:1", path("oci"));
        let storage = format!("[vfs@{}+{}]", path("podman"), path("state"));
        let target = format!("containers-storage:{storage}example.org/strict:1");
        run(
            "skopeo",
            &["--insecure-policy", "copy", "-q", &source, &target],
        )
        .success();
        let id = podman(&[
            "image",
            "inspect",
            "--format",
            "{{.Id}}",
            "example.org/strict:1",
        ]);
        assert_eq!(id.trim(), image.config.descriptor.hex());
        podman(&["create", "--name", "c", "--net", "none", id.trim(), "/x"]);
        podman(&["export", "-o", &path("export.tar"), "c"]);
        let unpacked = place.join("unpacked");
        fs::create_dir(&unpacked).expect("a new directory");
        run(
            "tar",
            &[
                "-xpf",
                &path("export.tar"),
                "--numeric-owner",
                "--xattrs",
                "--xattrs-include=*",
                "-C",
                &path("unpacked"),
            ],
        )
        .success();
        let mut trees = vec![unpacked];
        // umoci 0.4 does not read Zstandard.
        if name == "gzip" {
            let named = format!("{}:example.org/strict:1", path("oci"));
            run("umoci", &["unpack", "--image", &named, &path("bundle")]).success();
            trees.push(place.join("bundle/rootfs"));
        }
        for tree in trees {
            use std::os::unix::fs::MetadataExt;
            let is = |path: &str| {
                let meta = fs::symlink_metadata(tree.join(path)).expect(path);
                (meta.mode() & 0o7777, meta.uid(), meta.gid(), meta.nlink())
            };
            let (mode, uid, gid, _) = is("srv/shared");
            assert_eq!((mode, uid, gid), (0o2755, 100, 100), "{}", tree.display());
            assert_eq!(is("srv/open").0, 0o1777);
            assert_eq!(is("srv/shared/own"), (0o640, 100, 100, 1));
            assert_eq!(is("srv/aaa").3, 2);
            assert_eq!(
                fs::read(tree.join("srv/aaa")).expect("a file"),
                b"one file\n"
            );
            let capable = tree.join("srv/capable").display().to_string();
            let said = run("getcap", &[&capable]).success().output;
            assert_eq!(said.trim(), format!("{capable} cap_net_raw=ep"));
        }
    }
}

#[test]
fn bubblewrap_runs_an_unpacked_root() {
    use std::os::unix::process::CommandExt;
    if !support::is_root() || !has("bwrap") {
        return;
    }
    let Some(case) = Case::new(Compression::None, Layering::One) else {
        return;
    };
    let root = case.path("root");
    output::rootfs_directory(&case.image, &root, output::Ownership::default()).expect("a root");
    fs::set_permissions(case.folder.path(), fs::Permissions::from_mode(0o755)).expect("our own");
    // As somebody who owns nothing here: the shell, and what the dynamic linker finds.
    let mut command = Command::new("bwrap");
    command.args(["--unshare-user", "--uid", "0", "--gid", "0", "--ro-bind"]);
    command
        .arg(&root)
        .args(["/", "--proc", "/proc", "--dev", "/dev"]);
    command.args([
        "sh",
        "-c",
        "id -u; ssh -V 2>&1; apk info -q 2>&1 | head -n 1",
    ]);
    command
        .uid(65534)
        .gid(65534)
        .env_clear()
        .env("PATH", "/usr/bin:/bin");
    let said = support::run(&mut command);
    let text = format!("{}{}", said.output, said.code);
    if text.contains("No permissions to create new namespace") && std::env::var_os("CI").is_none() {
        eprintln!("skipped: {text}");
        return;
    }
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines[0], "0", "{text}");
    assert!(lines[1].starts_with("OpenSSH_"), "{text}");
}

#[test]
fn tar_and_cpio_list_what_the_tree_has() {
    let Some(case) = Case::new(Compression::Gzip(1), Layering::One) else {
        return;
    };
    let entries = case.image.root.tree().expect("a tree").entries();
    let mut wanted: Vec<String> = entries.iter().map(|entry| entry.path.clone()).collect();
    wanted.sort();
    let sorted = |text: String| {
        let names = text.lines().map(|name| name.trim_matches('/').to_owned());
        let mut names: Vec<String> = names.filter(|name| !name.ends_with(" blocks")).collect();
        names.sort();
        names
    };
    for (name, compression) in [
        ("root.tar", Compression::None),
        ("root.tar.gz", Compression::Gzip(6)),
        ("root.tar.zst", Compression::Zstd(3)),
    ] {
        let path = case.path(name);
        output::write_file(&path, |out| {
            output::rootfs_archive(&case.image, out, compression)
        })
        .expect("an archive");
        let list = run("tar", &["-t", "-a", "-f", &path.display().to_string()]).success();
        assert_eq!(sorted(list.output), wanted, "{name}");
    }
    if !has("cpio") {
        return;
    }
    let path = case.path("root.cpio");
    output::write_file(&path, |out| output::cpio(&case.image, out, false)).expect("an archive");
    let mut command = Command::new("cpio");
    command.args(["-i", "-t", "--quiet", "-F"]).arg(&path);
    assert_eq!(sorted(support::run(&mut command).success().output), wanted);
    if !support::is_root() {
        return;
    }
    let folder = Sandbox::new();
    let mut command = Command::new("cpio");
    command
        .args(["-i", "-d", "-m", "--quiet", "--no-absolute-filenames", "-F"])
        .arg(&path);
    support::run(command.current_dir(folder.root())).success();
    let found = timeless(support::tree(&folder.root(), i64::MAX));
    let differences = support::differences(&timeless(case.rows()), &found);
    assert!(differences.is_empty(), "{}", differences.join("\n"));
    let links = entries
        .iter()
        .filter(|entry| entry.links > 1 && matches!(entry.kind, EntryKind::File(_)));
    assert!(links.count() > 0, "there are hard links to be checked");
}

#[test]
fn a_browser_draws_where_the_space_goes() {
    let Some(desk) = crate::image_packages::Desk::empty_with_alpine("alpine-base, openssh") else {
        return;
    };
    if !has("chromium") {
        return;
    }
    desk.run(&["build", "a.yaml", "a:1", "out/"]).good();
    desk.run(&["size", "out", "--html", "size.html"]).good();
    let page = desk.read("size.html");
    for outside in ["http://", "https://", "src=", "@import"] {
        assert!(!page.contains(outside), "the page needs {outside}");
    }
    // What stands on the page after it was drawn, as it is and after a click.
    let drawn = |name: &str, click: &str| {
        let script = format!("<script>window.addEventListener('load',()=>{{{click}}})</script>");
        desk.write(name, &format!("{page}{script}"));
        let profile = tempfile::tempdir().expect("a temporary directory");
        let mut browser = Command::new("chromium");
        browser
            .args([
                "--headless",
                "--no-sandbox",
                "--disable-gpu",
                "--disable-dev-shm-usage",
            ])
            .args([
                "--window-size=1280,900",
                "--virtual-time-budget=2000",
                "--dump-dom",
            ])
            .arg(format!("--user-data-dir={}", profile.path().display()))
            .arg(format!("file://{}", desk.path().join(name).display()))
            .env("HOME", profile.path());
        crate::image_packages::said(&mut browser).good()
    };
    let cells = |page: &str| page.matches("class=\"cell").count();
    let packages = drawn("packages.html", "");
    assert!(cells(&packages) > 15, "{packages}");
    for name in ["libcrypto3", "openssh-client-common", "busybox"] {
        assert!(packages.contains(&format!("<b>{name}</b>")), "{name}");
    }
    let directories = drawn(
        "directories.html",
        "document.getElementById('by-directory').click()",
    );
    assert!(
        cells(&directories) > 2 && directories.contains("<b>usr/</b>"),
        "{directories}"
    );
    let inside = drawn(
        "inside.html",
        "document.querySelector('.cell.open').click()",
    );
    let names: Vec<&str> = (inside.split("<b>").skip(1))
        .filter_map(|rest| rest.split("</b>").next())
        .collect();
    assert!(
        names.contains(&"lib") && !names.contains(&"busybox"),
        "{names:?}"
    );
}
