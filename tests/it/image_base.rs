//! Images built on images, keys that repositories publish, and descriptions begun from what there is.

use super::image_build::walk;
use super::image_packages::{Desk, Server, copy, said};
use super::image_tools::{LocalRegistry, has};
use super::support::{data, run};
use ibex::image::read::{self, ReadImage, RowKind};
use ibex::image::store::sha256_hex;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

const KEY: &str = "alpine-devel@lists.alpinelinux.org-6165ee59.rsa.pub";

/// Writes a description of packages of Alpine, with more lines behind it.
fn describe(desk: &Desk, name: &str, packages: &str, base: &str) -> Option<()> {
    let repository = data("alpine-v3.19")?;
    let key = repository.join("keys").join(KEY);
    desk.write(
        name,
        &format!(
            "contents:\n  keyring: ['{}']\n  repositories: ['{}']\n  packages: [{packages}]\n{base}archs: [amd64]\n",
            key.display(),
            repository.display()
        ),
    );
    Some(())
}

fn one(path: &Path) -> ReadImage {
    let images = read::read(path).expect("an image");
    assert_eq!(images.len(), 1);
    images.into_iter().next().expect("it is one")
}

#[test]
fn an_image_on_an_image_is_the_image_of_both() {
    let desk = Desk::empty();
    let Some(()) = describe(&desk, "base.yaml", "alpine-base", "") else {
        return;
    };
    desk.write("base.lines", "");
    desk.run(&["build", "base.yaml", "base:1", "base/"]).good();
    let on = "  baseimage: {image: ./base}\n";
    describe(&desk, "on.yaml", "openssh", on);
    describe(&desk, "both.yaml", "alpine-base, openssh", "");
    let built = desk
        .run(&["build", "--json", "on.yaml", "on:1", "on/"])
        .good();
    desk.run(&["build", "both.yaml", "both:1", "both/"]).good();
    // An image below is looked for where included files are, too.
    describe(
        &desk,
        "else/on.yaml",
        "openssh",
        "  baseimage: {image: base}\n",
    );
    let words = [
        "build",
        "-C",
        "else",
        "on.yaml",
        "on:1",
        "../same/",
        "--sbom=no",
    ];
    assert_eq!(desk.run(&words).code, 1);
    desk.run(&[&words[..], &["--include-paths", "../nowhere,.."]].concat())
        .good();
    let same = one(&desk.path().join("same"));
    assert_eq!(same.digest, one(&desk.path().join("on")).digest);
    let (base, on, both) = (
        one(&desk.path().join("base")),
        one(&desk.path().join("on")),
        one(&desk.path().join("both")),
    );
    // The layers below are there byte for byte, and one more, of new packages only.
    let digests = |image: &ReadImage| -> Vec<String> {
        image
            .layers
            .iter()
            .map(|layer| layer.digest.clone())
            .collect()
    };
    assert_eq!(digests(&on)[..1], digests(&base)[..]);
    assert_eq!(on.layers.len(), 2);
    let value: Value = serde_json::from_str(&built).expect("JSON");
    let packages = &value["images"][0]["layers"][1]["packages"];
    let packages: Vec<&str> = (packages.as_array().expect("a list").iter())
        .map(|name| name.as_str().expect("a name"))
        .collect();
    assert!(
        packages.contains(&"openssh") && !packages.contains(&"busybox"),
        "{packages:?}"
    );
    let upper: BTreeSet<&str> = on.layers[1]
        .entries
        .iter()
        .map(|(path, _)| path.as_str())
        .collect();
    assert!(upper.contains("usr/sbin/sshd") && upper.contains("lib/apk/db/installed"));
    for path in [
        "bin/busybox",
        "etc/os-release",
        "etc/inittab",
        "dev/null",
        "bin/sh",
    ] {
        assert!(!upper.contains(path), "{path} is in the new layer");
    }
    // Together it is what one build of everything makes, but for what says how it was made, and the
    // order in which accounts were added.
    let differs: Vec<String> = on
        .files
        .keys()
        .chain(both.files.keys())
        .collect::<BTreeSet<_>>()
        .into_iter()
        .filter(|path| match (on.files.get(*path), both.files.get(*path)) {
            (Some(a), Some(b)) => {
                let mut a = a.clone();
                // What scripts make has the time of the build.
                a.mtime = b.mtime;
                !a.differences(b).is_empty()
            }
            _ => true,
        })
        .cloned()
        .collect();
    assert_eq!(differs, ["etc/apko.json"]);
    assert_eq!(on.installed.packages.len(), both.installed.packages.len());
    let world = |image: &ReadImage| image.kept["etc/apk/world"].clone();
    assert_eq!(world(&on), world(&both));
    // Configuration and history go on.
    let history = on.config["history"].as_array().expect("a history");
    assert_eq!(history.len(), 2);
    assert_eq!(history[0], base.config["history"][0]);
    assert_eq!(on.config["config"]["Env"], base.config["config"]["Env"]);
    assert_eq!(
        on.config["rootfs"]["diff_ids"][0],
        base.config["rootfs"]["diff_ids"][0]
    );
    for (word, wanted) in [
        (
            "busybox",
            "busybox-1.36.1-r15 is in the image that this one is built on\n",
        ),
        (
            "/bin/busybox",
            "/bin/busybox is in busybox-1.36.1-r15, which is in the image that this one is built on\n",
        ),
    ] {
        assert_eq!(desk.run(&["explain", "on.yaml", word]).good(), wanted);
    }
    let why = desk.run(&["explain", "on.yaml", "/usr/sbin/sshd"]).good();
    assert!(
        why.contains("the description wants openssh: openssh-"),
        "{why}"
    );
    // The same again is the same; a lock file has the new packages only.
    desk.run(&["build", "--no-cache", "on.yaml", "on:1", "again/"])
        .good();
    assert_eq!(one(&desk.path().join("again")).digest, on.digest);
    desk.run(&["lock", "on.yaml"]).good();
    let lock: Value = serde_json::from_str(&desk.read("on.lock.json")).expect("JSON");
    let locked = lock["contents"]["packages"].as_array().expect("a list");
    assert_eq!(locked.len(), packages.len());
    desk.run(&["build", "--locked", "on.yaml", "on:1", "locked/"])
        .good();
    assert_eq!(one(&desk.path().join("locked")).digest, on.digest);
    desk.run(&["verify", "on.yaml", "on.lock.json", "on"])
        .good();
    // The bill has what is below, too.
    let bill: Value = serde_json::from_str(&desk.read("on/sbom-x86_64.spdx.json")).expect("JSON");
    let text = bill.to_string();
    assert!(text.contains("pkg:apk/alpine/busybox@") && text.contains("pkg:apk/alpine/openssh@"));
    if has("umoci") && has("skopeo") && rustix::process::geteuid().is_root() {
        let bundle = desk.path().join("bundle");
        let image = format!("{}:on:1", desk.path().join("on").display());
        let copied = format!("oci:{}:x", desk.path().join("copy").display());
        let source = format!("oci:{image}");
        run(Command::new("skopeo").args(["copy", "--insecure-policy", &source, &copied])).success();
        let image = format!("{}:x", desk.path().join("copy").display());
        let bundle_text = bundle.display().to_string();
        run(Command::new("umoci").args(["unpack", "--image", &image, &bundle_text])).success();
        // The apk inside knows all packages and finds nothing to mend.
        let root = bundle.join("rootfs");
        let mut apk = Command::new("chroot");
        apk.arg(&root).args(["/sbin/apk", "info", "-q"]);
        let names = said(&mut apk).good();
        assert_eq!(
            names.lines().count(),
            both.installed.packages.len(),
            "{names}"
        );
        let mut audit = Command::new("chroot");
        audit.arg(&root).args(["/sbin/apk", "audit", "--system"]);
        let text = said(&mut audit).good();
        assert!(
            !text.contains("sshd") && !text.contains("busybox"),
            "{text}"
        );
    }
}

/// Puts members into the configuration of the one image of a layout, with all digests right.
fn reconfigure(layout: &Path, members: &Value) {
    let blob = |digest: &Value| {
        let digest = digest.as_str().expect("a digest");
        layout
            .join("blobs/sha256")
            .join(digest.trim_start_matches("sha256:"))
    };
    let document = |path: &Path| -> Value {
        serde_json::from_slice(&fs::read(path).expect("a document")).expect("JSON")
    };
    let keep = |descriptor: &mut Value, document: &Value| {
        let bytes = serde_json::to_vec(document).expect("JSON");
        descriptor["digest"] = format!("sha256:{}", sha256_hex(&bytes)).into();
        descriptor["size"] = bytes.len().into();
        fs::write(blob(&descriptor["digest"]), bytes).expect("a writable layout");
    };
    let path = layout.join("index.json");
    let mut index = document(&path);
    // The index of the layout names that of the image.
    let mut inner = document(&blob(&index["manifests"][0]["digest"]));
    let mut manifest = document(&blob(&inner["manifests"][0]["digest"]));
    let mut config = document(&blob(&manifest["config"]["digest"]));
    for (name, value) in members.as_object().expect("members") {
        config[name] = value.clone();
    }
    keep(&mut manifest["config"], &config);
    keep(&mut inner["manifests"][0], &manifest);
    keep(&mut index["manifests"][0], &inner);
    fs::write(&path, index.to_string()).expect("a writable layout");
}

#[test]
fn what_cannot_be_built_on_is_told() {
    let desk = Desk::empty();
    let Some(()) = describe(&desk, "base.yaml", "busybox", "") else {
        return;
    };
    desk.run(&["build", "base.yaml", "base:1", "base/"]).good();
    desk.run(&["build", "base.yaml", "base:1", "base.tar"])
        .good();
    let place = desk.path();
    let on = |base: &str| {
        describe(
            &desk,
            "on.yaml",
            "tzdata",
            &format!("  baseimage: {base}\n"),
        );
        desk.run(&["build", "on.yaml", "on:1", "on/"])
    };
    let no = |what: &str| format!("error[E-IMAGE]: {}/{what}", place.display());
    on("{image: ./none}").error(
        1,
        &no("none is no image that can be read: No such file or directory"),
    );
    on("{image: ./base.tar}").error(
        1,
        &no("base.tar is no image that can be read: it is a docker archive; an OCI layout is needed"),
    );
    on("{image: 'r.io/a@sha256:1'}").error(
        2,
        "error[E-USAGE]: contents.baseimage.image: `r.io/a@sha256:1` names no image: a digest is \
         `sha256:` and 64 hexadecimal digits",
    );
    desk.write(
        "stated/x86_64/APKINDEX",
        "C:Q1cs+Hlyu5sY+1mmwKPedcRWj8E24=\nP:other\nV:1-r0\nA:x86_64\nS:1\nI:1\nT:x\nU:x\nL:x\n\n",
    );
    let text = on("{image: ./base, apkindex: ./stated}").err;
    assert!(
        text.contains("stated/x86_64/APKINDEX is no image that can be read: it is not of "),
        "{text}"
    );
    // What is below does not move.
    describe(
        &desk,
        "on.yaml",
        "tzdata, busybox>9",
        "  baseimage: {image: ./base}\n",
    );
    let refused = desk.run(&["build", "on.yaml", "on:1", "on/"]);
    assert_eq!(refused.code, 4, "{}", refused.err);
    let text = desk
        .read("on.yaml")
        .replace("amd64", "arm64")
        .replace(", busybox>9", "");
    desk.write("arm.yaml", &text);
    desk.run(&["build", "arm.yaml", "on:1", "on/"]).error(
        1,
        &no("base is no image that can be read: it has no image for arm64; it has: amd64"),
    );
    assert!(!place.join("on").exists());
    // So is a configuration of the wrong shape; nothing is built on guesses about it.
    for (name, settings) in [
        ("text", json!({ "config": "text" })),
        ("labels", json!({ "config": { "Labels": 7 } })),
        ("label", json!({ "config": { "Labels": { "a": 7 } } })),
        ("history", json!({ "history": "text" })),
    ] {
        desk.run(&["build", "base.yaml", "base:1", &format!("{name}/")])
            .good();
        reconfigure(&place.join(name), &settings);
        let text = on(&format!("{{image: ./{name}}}")).err;
        let said = format!("{}/{name} cannot be built on: in its ", place.display());
        assert!(text.contains(&said), "{name}: {text}");
    }
    // A variant says nothing where there is only one.
    desk.run(&["build", "base.yaml", "base:1", "variant/"])
        .good();
    reconfigure(&place.join("variant"), &json!({ "variant": "v1" }));
    on("{image: ./variant}").good();
    // Each layer is what the configuration says, too.
    for (name, ids, said) in [
        (
            "fewer",
            json!([]),
            "its configuration names 0 layers, its manifest 1",
        ),
        (
            "short",
            json!(["sha256:../x"]),
            "\"sha256:../x\" is no digest",
        ),
        (
            "wrong",
            json!([format!("sha256:{}", "0".repeat(64))]),
            "is not what its name says",
        ),
    ] {
        desk.run(&["build", "base.yaml", "base:1", &format!("{name}/")])
            .good();
        reconfigure(
            &place.join(name),
            &json!({ "rootfs": { "type": "layers", "diff_ids": ids } }),
        );
        let text = on(&format!("{{image: ./{name}}}")).err;
        assert!(text.contains(said), "{name}: {text}");
    }
    // A damaged layer below is noticed, unless the cache has it: what is built is right then.
    on("{image: ./base}").good();
    // Though another layer of that digest is in the cache now, it is not that of this image.
    let diff_ids = one(&place.join("base")).config["rootfs"]["diff_ids"].clone();
    describe(&desk, "other.yaml", "tzdata", "");
    desk.run(&["build", "other.yaml", "other:1", "other/"])
        .good();
    reconfigure(
        &place.join("other"),
        &json!({ "rootfs": { "type": "layers", "diff_ids": diff_ids } }),
    );
    let text = on("{image: ./other}").err;
    assert!(text.contains("is not what its name says"), "{text}");
    on("{image: ./base}").good();
    let good = one(&place.join("on")).digest;
    let layer = one(&place.join("base")).layers[0].digest.clone();
    let path = place
        .join("base/blobs/sha256")
        .join(layer.trim_start_matches("sha256:"));
    let mut bytes = fs::read(&path).expect("a layer");
    let last = bytes.len() - 20;
    bytes[last] ^= 1;
    fs::write(&path, bytes).expect("a layer");
    on("{image: ./base}").good();
    assert_eq!(one(&place.join("on")).digest, good);
    let text = desk
        .run(&["build", "--no-cache", "on.yaml", "on:1", "on/"])
        .err;
    assert!(text.contains("error[E-IMAGE]"), "{text}");
}

#[test]
fn apkos_image_on_an_image() {
    let Some(desk) = Desk::apko() else { return };
    let cli = data("wolfi/cli").expect("it was there");
    copy(&cli, &desk.path().join("testdata"));
    let key = "melange.rsa.pub";
    fs::copy(
        cli.join("packages").join(key),
        desk.path().join("testdata").join(key),
    )
    .expect("a copy");
    // apko's own test builds the one on the other, and keeps this lock file of it.
    desk.run(&[
        "build",
        "-C",
        "testdata",
        "base_image.apko.yaml",
        "base:1",
        "base_image/",
        "--sbom=no",
    ])
    .good();
    let lock: Value =
        serde_json::from_str(&desk.read("testdata/image_on_top.apko.lock.json")).expect("JSON");
    desk.run(&[
        "lock",
        "image_on_top.apko.yaml",
        "--output",
        "mine.lock.json",
    ])
    .good();
    let mine: Value = serde_json::from_str(&desk.read("mine.lock.json")).expect("JSON");
    let strip = |lock: &Value| -> Vec<Value> {
        let list = lock["contents"]["packages"].as_array().expect("a list");
        let mut list: Vec<Value> = list.clone();
        for package in &mut list {
            package.as_object_mut().expect("an object").remove("x");
        }
        list.sort_by_key(Value::to_string);
        list
    };
    assert_eq!(strip(&mine), strip(&lock));
    desk.run(&[
        "build",
        "image_on_top.apko.yaml",
        "on:1",
        "on/",
        "--lockfile",
        "testdata/image_on_top.apko.lock.json",
    ])
    .good();
    let images = read::read(&desk.path().join("on")).expect("an image");
    assert_eq!(images.len(), 2);
    for image in images {
        let names: BTreeSet<&str> = image
            .installed
            .packages
            .iter()
            .map(|one| one.package.name.as_str())
            .collect();
        assert!(names.contains("replayout") && names.len() > 1, "{names:?}");
        assert_eq!(image.layers.len(), 2);
    }
}

#[test]
fn an_image_in_a_registry_is_built_on() {
    let desk = Desk::empty();
    let Some(()) = describe(&desk, "base.yaml", "busybox", "") else {
        return;
    };
    if !has("docker-registry") {
        return;
    }
    let registry = LocalRegistry::start();
    let reference = format!("127.0.0.1:{}/base:1", registry.port);
    let line = desk.run(&["publish", "base.yaml", &reference]).good();
    let base = format!("  baseimage: {{image: '{}'}}\n", line.trim());
    describe(&desk, "on.yaml", "tzdata", &base);
    let offline = desk.run(&["build", "--offline", "on.yaml", "on:1", "on/"]);
    offline.error(
        1,
        "error[E-OFFLINE-MISS]: offline: 1 file is not in the cache",
    );
    desk.run(&["build", "on.yaml", "on:1", "on/"]).good();
    let image = one(&desk.path().join("on"));
    assert!(
        image.files.contains_key("bin/busybox")
            && image.files.contains_key("usr/share/zoneinfo/UTC")
    );
    let first = image.digest;
    // What was brought is kept by digest, and counted; what is damaged is brought again.
    let kept = desk.cache().join("bases/blobs/sha256");
    let blobs = || -> BTreeSet<String> {
        let entries = fs::read_dir(&kept).expect("a folder").flatten();
        entries
            .map(|entry| {
                let bytes = fs::read(entry.path()).expect("a file");
                let name = entry.file_name().into_string().expect("a name");
                assert_eq!(sha256_hex(&bytes), name);
                name
            })
            .collect()
    };
    let names = blobs();
    // An index, a manifest, a configuration and a layer.
    assert_eq!(names.len(), 4);
    let size: Value =
        serde_json::from_str(&desk.run(&["cache", "size", "--json"]).good()).expect("JSON");
    assert_eq!(size["bases"]["files"], 4);
    for name in &names {
        fs::write(kept.join(name), b"damaged").expect("a file");
    }
    desk.run(&["build", "on.yaml", "on:1", "on/"]).good();
    assert_eq!(one(&desk.path().join("on")).digest, first);
    assert_eq!(blobs(), names);
    // An image of another architecture is none for this one, whether an index says so or not.
    let hex = |value: &Value| {
        let digest = value["manifests"][0]["digest"].as_str().expect("a digest");
        digest.trim_start_matches("sha256:").to_owned()
    };
    let inner = fs::read(kept.join(line.trim().rsplit(':').next().expect("a digest")));
    let inner = serde_json::from_slice::<Value>(&inner.expect("the index")).expect("JSON");
    let alone = line.trim().rsplit_once(':').expect("a digest").0;
    let alone = format!("{alone}:{}", hex(&inner));
    let text = desk
        .read("on.yaml")
        .replace("archs: [amd64]", "archs: [arm64]");
    for reference in [line.trim(), &alone] {
        desk.write("arm.yaml", &text.replace(line.trim(), reference));
        let refused = desk.run(&["build", "arm.yaml", "on:1", "arm/"]).err;
        assert!(refused.contains("it has no image for "), "{refused}");
    }
    // A layer that is kept without compression is no exception.
    let plain = desk.cache().join("images/plain/sha256");
    let plain = walk(&plain).pop().expect("the layer");
    fs::write(&plain, b"damaged").expect("a file");
    fs::write(kept.join(names.first().expect("a blob")), b"damaged").expect("a file");
    let verified = desk.run(&["cache", "verify"]);
    assert!(verified.out.ends_with(" 2 damaged\n"), "{}", verified.out);
    assert!(!plain.exists());
    // A lock file alone says what to bring.
    desk.run(&["lock", "on.yaml"]).good();
    desk.run(&["fetch", "on.lock.json"]).good();
    assert_eq!(blobs(), names);
    desk.run(&["cache", "clean"]).good();
    desk.run(&["fetch", "on.lock.json"]).good();
    assert_eq!(blobs(), names);
    // That it can be brought again is no reason to drop it.
    desk.run(&["cache", "prune", "--ci"]).good();
    drop(registry);
    let offline = ["build", "--offline", "--locked", "on.yaml", "on:1", "on/"];
    for more in [&["--cache-readonly"][..], &[]] {
        desk.run(&[&offline, more].concat()).good();
        assert_eq!(one(&desk.path().join("on")).digest, first);
    }
    desk.run(&["cache", "clean"]).good();
    let offline = ["build", "--offline", "on.yaml", "on:1", "on/"];
    desk.run(&offline).error(
        1,
        "error[E-OFFLINE-MISS]: offline: 1 file is not in the cache",
    );
}

#[test]
fn an_image_of_somebody_else_is_built_on() {
    let Some(mini) = data("minirootfs/alpine-minirootfs-3.19.4-x86_64.tar.gz") else {
        return;
    };
    if !has("umoci") || !has("skopeo") || !rustix::process::geteuid().is_root() {
        return;
    }
    // Alpine's own root as an image that umoci makes, of two layers, the second of which takes a file
    // away.
    let desk = Desk::empty();
    let at = |name: &str| desk.path().join(name).display().to_string();
    let umoci = |words: &[&str]| {
        run(Command::new("umoci").args(words).current_dir(desk.path())).success();
    };
    umoci(&["init", "--layout", "theirs"]);
    umoci(&["new", "--image", "theirs:x"]);
    umoci(&["unpack", "--image", "theirs:x", "bundle"]);
    let mut tar = Command::new("tar");
    run(tar
        .arg("-xzf")
        .arg(&mini)
        .args(["-C", &at("bundle/rootfs")]))
    .success();
    umoci(&[
        "repack",
        "--refresh-bundle",
        "--image",
        "theirs:x",
        "bundle",
    ]);
    fs::remove_file(desk.path().join("bundle/rootfs/etc/issue")).expect("it was there");
    umoci(&["repack", "--image", "theirs:x", "bundle"]);
    umoci(&[
        "config",
        "--image",
        "theirs:x",
        "--config.cmd",
        "/bin/sh",
        "--config.label",
        "who=them",
    ]);
    let tagged = format!("oci:{}:x", at("theirs"));
    let only = format!("oci:{}:x", at("base"));
    run(Command::new("skopeo").args(["copy", "--insecure-policy", &tagged, &only])).success();
    describe(
        &desk,
        "on.yaml",
        "openssh, chrony",
        "  baseimage: {image: base}\n",
    );
    desk.run(&["build", "on.yaml", "on:1", "on/"]).good();
    let (base, on) = (one(&desk.path().join("base")), one(&desk.path().join("on")));
    assert_eq!((base.layers.len(), on.layers.len()), (2, 3));
    assert_eq!(on.layers[1].digest, base.layers[1].digest);
    assert_eq!(on.config["config"]["Cmd"], base.config["config"]["Cmd"]);
    assert_eq!(on.config["config"]["Labels"]["who"], "them");
    assert!(!on.files.contains_key("etc/issue"));
    // What they have is as it was, but for what packages and their scripts change.
    let changed: Vec<&String> = (base.files.iter())
        .filter(|(path, row)| on.files.get(*path) != Some(row))
        .map(|(path, _)| path)
        .collect();
    let wanted = [
        "etc/apk/repositories",
        "etc/apk/world",
        "etc/group",
        "etc/passwd",
        "etc/shadow",
        "lib/apk/db/installed",
        "lib/apk/db/scripts.tar",
    ];
    assert_eq!(changed, wanted);
    // The apk inside takes it for its own.
    let tagged = format!("oci:{}:on:1", at("on"));
    let copied = format!("oci:{}:x", at("copy"));
    run(Command::new("skopeo").args(["copy", "--insecure-policy", &tagged, &copied])).success();
    umoci(&["unpack", "--image", "copy:x", "result"]);
    let inside = |words: &[&str]| {
        let mut command = Command::new("chroot");
        said(command.arg(at("result/rootfs")).args(words)).good()
    };
    let names = inside(&["/sbin/apk", "info", "-q"]);
    assert_eq!(
        names.lines().count(),
        on.installed.packages.len(),
        "{names}"
    );
    assert!(inside(&["/usr/bin/id", "chrony"]).contains("(chrony)"));
    // What differs from its package differed below, too.
    let audit = inside(&["/sbin/apk", "audit", "--packages"]);
    for package in ["openssh", "chrony", "gnutls"] {
        assert!(!audit.contains(package), "{audit}");
    }
}

/// A mirror of Alpine's with its list of keys; the last line of defence is the key of `signer`.
fn mirror(desk: &Desk) -> Option<Server> {
    let repository = data("alpine-v3.19")?;
    let web = desk.path().join("web");
    copy(
        &repository.join("x86_64"),
        &web.join("alpine/v3.19/main/x86_64"),
    );
    copy(&repository.join("x86_64"), &web.join("own/x86_64"));
    // One that is not signed by any key of Alpine's.
    let newer = data("alpine-branches/v3.20/x86_64")?;
    copy(&newer, &web.join("alpine/v3.20/main/x86_64"));
    desk.write(
        "web/releases.json",
        r#"{"latest_stable":"v3.19","release_branches":[{"rel_branch":"v3.19","keys":{"x86_64":[
            {"url":"https://alpinelinux.org/keys/old.rsa.pub","deprecated_since":"2001-01-01"},
            {"url":"https://alpinelinux.org/keys/alpine-devel%40lists.alpinelinux.org-6165ee59.rsa.pub"}]}},
            {"rel_branch":"v3.20","keys":{"x86_64":[
            {"url":"https://alpinelinux.org/keys/TEST-ONLY.rsa.pub"}]}}]}"#,
    );
    let key = data("alpine-branches/keys/TEST-ONLY.rsa.pub")?;
    fs::create_dir_all(web.join("keys")).expect("a directory");
    fs::copy(key, web.join("keys/TEST-ONLY.rsa.pub")).expect("a copy");
    let key = fs::read_to_string(repository.join("keys").join(KEY)).expect("the key");
    desk.write(
        "web/keys/alpine-devel%40lists.alpinelinux.org-6165ee59.rsa.pub",
        &key,
    );
    Some(Server::start(web))
}

/// The key as a set of JSON web keys.
fn web_keys(pem: &str, kid: &str) -> String {
    use rsa::pkcs8::DecodePublicKey;
    use rsa::traits::PublicKeyParts;
    let key = rsa::RsaPublicKey::from_public_key_pem(pem).expect("a key");
    let text = |number: &rsa::BigUint| data_encoding::BASE64URL_NOPAD.encode(&number.to_bytes_be());
    let (n, e) = (text(key.n()), text(key.e()));
    format!(r#"{{"keys":[{{"kty":"RSA","kid":"{kid}","n":"{n}","e":"{e}"}}]}}"#)
}

#[test]
fn keys_that_are_published_are_found() {
    let desk = Desk::empty();
    let Some(server) = mirror(&desk) else { return };
    let address = &server.address;
    let elsewhere = format!("https://alpinelinux.org={address}");
    let write = |repository: &str| {
        desk.write(
            "a.yaml",
            &format!("contents:\n  repositories: ['{address}/{repository}']\n  packages: [busybox]\narchs: [amd64]\n"),
        );
    };
    write("alpine/v3.20/main");
    let build = |more: &[&str]| {
        desk.run(
            &[
                &["build", "a.yaml", "a:1", "a/", "--mirror", &elsewhere],
                more,
            ]
            .concat(),
        )
    };
    build(&[]).good();
    let key = one(&desk.path().join("a"));
    let key = key
        .kept
        .get("etc/apk/keys/TEST-ONLY.rsa.pub")
        .expect("the key is in the image");
    let test_only = fs::read(data("alpine-branches/keys/TEST-ONLY.rsa.pub").expect("it"));
    let test_only = test_only.expect("the key");
    assert_eq!(*key, test_only);
    // Once found it is known without a network; the lock file has it.
    build(&["--offline"]).good();
    desk.run(&["lock", "a.yaml", "--mirror", &elsewhere]).good();
    let lock: Value = serde_json::from_str(&desk.read("a.lock.json")).expect("JSON");
    let locked = &lock["contents"]["keyring"][0];
    assert_eq!(locked["name"], "alpinelinux.org/keys/TEST-ONLY.rsa.pub");
    let content = locked["content"].as_str().expect("text");
    assert_eq!(content.as_bytes(), test_only);
    desk.run(&["build", "--locked", "a.yaml", "a:1", "b/"])
        .good();
    assert_eq!(
        one(&desk.path().join("a")).digest,
        one(&desk.path().join("b")).digest
    );

    let real = fs::read(data("alpine-v3.19").expect("it").join("keys").join(KEY)).expect("the key");
    // A repository that says so itself; one that publishes another key; one that publishes none.
    write("own");
    let none = build(&[]);
    assert_eq!(none.code, 5, "{}", none.err);
    assert!(
        none.err.contains("error[E-SIG-KEY]: index "),
        "{}",
        none.err
    );
    desk.write(
        "web/own/apk-configuration",
        &format!(r#"{{"jwks_uri":"{address}/jwks"}}"#),
    );
    let gone = build(&[]);
    assert_eq!(gone.code, 5, "{}", gone.err);
    assert!(
        gone.err.contains("W-NO-KEYS") && gone.err.contains("/jwks, which "),
        "{}",
        gone.err
    );
    let text = String::from_utf8(real.clone()).expect("PEM");
    desk.write("web/jwks", &web_keys(&text, "somebody-else"));
    assert_eq!(build(&[]).code, 5);
    desk.write(
        "web/jwks",
        &web_keys(&text, KEY.trim_end_matches(".rsa.pub")),
    );
    build(&[]).good();
    let image = one(&desk.path().join("a"));
    let keys: Vec<&String> = image
        .kept
        .keys()
        .filter(|path| path.starts_with(read::KEYS))
        .collect();
    assert_eq!(keys, [&format!("etc/apk/keys/{KEY}")]);
    // Somebody else's key under the right name is no help.
    let other = String::from_utf8(test_only).expect("PEM");
    desk.write(
        "web/jwks",
        &web_keys(&other, KEY.trim_end_matches(".rsa.pub")),
    );
    let wrong = desk.run(&[
        "build",
        "--no-cache",
        "a.yaml",
        "a:1",
        "c/",
        "--mirror",
        &elsewhere,
    ]);
    assert_eq!(wrong.code, 5, "{}", wrong.err);
}

#[test]
fn alpines_own_keys_are_known() {
    let (Some(repository), Some(indexes)) = (data("alpine-v3.19"), data("index/alpine")) else {
        return;
    };
    let desk = Desk::empty();
    let describe = |repository: &str, arch: &str, packages: &str| {
        desk.write(
            "a.yaml",
            &format!("contents:\n  repositories: ['{repository}']\n  packages: [{packages}]\narchs: [{arch}]\n"),
        );
    };
    // Real indexes, old and new, with no keyring and no network.
    for (release, arch) in [
        ("v3.0", "x86"),
        ("v3.10", "armv7"),
        ("v3.14", "x86_64"),
        ("v3.16", "x86_64"),
        ("v3.18", "aarch64"),
        ("v3.22", "x86_64"),
    ] {
        let repository = indexes.join(release).join("main");
        describe(&repository.display().to_string(), arch, "");
        desk.run(&["show-packages", "--offline", "a.yaml"]).good();
    }
    // A key of one release is none of another one.
    for (release, of) in [("v3.14", "v3.19"), ("v3.19", "v3.14")] {
        let repository = format!("other/alpine/{release}/main");
        copy(
            &indexes.join(of).join("main/x86_64"),
            &desk.path().join(&repository).join("x86_64"),
        );
        describe(&repository, "x86_64", "");
        let refused = desk.run(&["show-packages", "--offline", "a.yaml"]);
        assert!(refused.err.contains("error[E-SIG-KEY]"), "{}", refused.err);
    }
    let main = "alpine/v3.19/main";
    copy(
        &repository.join("x86_64"),
        &desk.path().join(main).join("x86_64"),
    );
    describe(main, "amd64", "busybox");
    let build = |words: &[&str], output: &str| {
        desk.run(&[&["build", "a.yaml", "a:1", output, "--offline"], words].concat())
    };
    build(&[], "a/").good();
    // Who signed is known in the image, and in the lock file.
    let image = one(&desk.path().join("a"));
    let keys = image
        .kept
        .keys()
        .filter(|path| path.starts_with(read::KEYS));
    let path = format!("etc/apk/keys/{KEY}");
    assert_eq!(keys.collect::<Vec<_>>(), [&path]);
    let real = fs::read(repository.join("keys").join(KEY)).expect("the key");
    assert_eq!(image.kept[&path], real);
    desk.run(&["lock", "a.yaml", "--offline"]).good();
    build(&["--locked"], "b/").good();
    assert_eq!(one(&desk.path().join("b")).digest, image.digest);
    // A description for the real repository, unchanged, with the packages from elsewhere.
    let official = "https://dl-cdn.alpinelinux.org/alpine/v3.19/main";
    describe(official, "amd64", "alpine-base");
    let mirror = format!("{official}={}", repository.display());
    build(&["--mirror", &mirror], "official/").good();
    let image = one(&desk.path().join("official"));
    let said = String::from_utf8_lossy(&image.kept["etc/apk/repositories"]).into_owned();
    assert_eq!(said, format!("{official}\n"));
    assert_eq!(image.kept[&path], real);
    // Signed by somebody else, at an address like Alpine's; Alpine's, at another address.
    let newer = data("alpine-branches/v3.20/x86_64").expect("it is there");
    copy(&newer, &desk.path().join("alpine/v3.20/main/x86_64"));
    describe("alpine/v3.20/main", "amd64", "busybox");
    build(&[], "c/").error(
        5,
        "error[E-SIG-KEY]: index alpine/v3.20/main/x86_64/APKINDEX.tar.gz is signed by \
         \"TEST-ONLY.rsa.pub\", which is not in the keyring",
    );
    copy(
        &repository.join("x86_64"),
        &desk.path().join("mine/main/x86_64"),
    );
    describe("mine/main", "amd64", "busybox");
    assert_eq!(build(&[], "c/").code, 5);
    // Alpine's signatures are over SHA-1.
    describe(main, "amd64", "busybox");
    build(&["--require-sha256"], "c/").error(
        5,
        &format!("error[E-SIG-SHA1]: index {main}/x86_64/APKINDEX.tar.gz is signed by \"{KEY}\" over SHA-1 only"),
    );
}

#[test]
fn keys_of_a_root_are_installed() {
    let desk = Desk::empty();
    let Some(server) = mirror(&desk) else { return };
    let elsewhere = format!("https://alpinelinux.org={}", server.address);
    desk.write(
        "root/etc/apk/repositories",
        &format!(
            "# a comment\n{}/alpine/v3.19/main\n@x {}/own\n/local\n",
            server.address, server.address
        ),
    );
    desk.write("root/etc/apk/arch", "x86_64\n");
    let install = || desk.run(&["install-keys", "--root", "root", "--mirror", &elsewhere]);
    let first = install();
    let own = format!("W-NO-KEYS: {}/own publishes no keys", server.address);
    assert!(first.err.contains(&own), "{}", first.err);
    let url = "https://alpinelinux.org/keys/alpine-devel%40lists.alpinelinux.org-6165ee59.rsa.pub";
    assert_eq!(first.good(), format!("{KEY} installed from {url}\n"));
    let path = format!("root/etc/apk/keys/{KEY}");
    assert!(desk.read(&path).starts_with("-----BEGIN PUBLIC KEY-----"));
    assert_eq!(install().good(), format!("{KEY} was there; {url}\n"));
    desk.write(&path, "another\n");
    install().error(
        2,
        &format!("error[E-KEYRING]: keyring: etc/apk/keys/{KEY} is there with another content"),
    );
    assert_eq!(desk.read(&path), "another\n");
}

#[test]
fn descriptions_begin_with_what_there_is() {
    let desk = Desk::empty();
    let Some(repository) = data("alpine-v3.19") else {
        return;
    };
    desk.write(
        "a.yaml",
        &format!(
            "contents:\n  keyring: ['{}']\n  repositories: ['{}']\n  packages: [alpine-base, 'tzdata>2020']\n\
             entrypoint: {{command: /usr/sbin/httpd -f -h '/srv/my files'}}\ncmd: -v\nwork-dir: /srv\n\
             stop-signal: SIGQUIT\nenvironment: {{TZ: Etc/UTC}}\nvolumes: [/srv]\narchs: [amd64]\n\
             annotations: {{org.opencontainers.image.title: web}}\n\
             accounts:\n  users: [{{username: web, uid: 10000, shell: /sbin/nologin}}]\n\
             \x20 groups: [{{groupname: web, gid: 10000}}]\n  run-as: web\n",
            repository.join("keys").join(KEY).display(),
            repository.display()
        ),
    );
    desk.run(&["build", "a.yaml", "a:1", "a/"]).good();
    desk.run(&["build", "a.yaml", "a:1", "a.tar"]).good();
    desk.run(&["rootfs", "a.yaml", "root.tar.gz"]).good();
    fs::create_dir(desk.path().join("root")).expect("a folder");
    let unpack = ["-xf", "root.tar.gz", "-C", "root", "--exclude=dev"];
    run(Command::new("tar").args(unpack).current_dir(desk.path())).success();
    let packages = |config: &str| {
        let found = desk.run(&["show-packages", config]);
        assert!(found.code == 0, "{}", found.err);
        found.out
    };
    for (from, is_image) in [
        ("a", true),
        ("a.tar", true),
        ("root.tar.gz", false),
        ("root", false),
    ] {
        let yaml = desk.run(&["import", from, "--keys", "found"]).good();
        desk.write("again.yaml", &yaml);
        assert!(desk.path().join("found").join(KEY).is_file());
        assert_eq!(packages("again.yaml"), packages("a.yaml"), "{yaml}");
        for line in ["tzdata>2020", "username: web", "/sbin/nologin"] {
            assert!(yaml.contains(line), "{from}: {line}\n{yaml}");
        }
        if !is_image {
            continue;
        }
        // The image of it is the same but for the description that it holds.
        desk.run(&["build", "again.yaml", "a:1", "again/"]).good();
        let (first, again) = (one(&desk.path().join("a")), one(&desk.path().join("again")));
        let mut config = again.config.clone();
        config["rootfs"] = first.config["rootfs"].clone();
        // A docker archive has no annotations of its own.
        if from == "a" {
            assert_eq!(config, first.config, "{yaml}");
        }
        for (path, row) in &first.files {
            // Keys of packages are keys of the description now, and have the time of those.
            if path != "etc/apko.json" && !path.starts_with(read::KEYS) {
                assert_eq!(Some(row), again.files.get(path), "{path}");
            }
        }
    }
    // Alpine's own root, whatever made it.
    let mini = fs::read_dir(data("minirootfs").expect("it")).expect("a folder");
    let mini = mini.flatten().map(|entry| entry.path()).find(|path| {
        path.to_string_lossy().contains("x86_64") && path.to_string_lossy().ends_with(".tar.gz")
    });
    let mini = mini.expect("an archive");
    let said_it = desk.run(&["import", mini.to_str().expect("a path")]);
    assert!(said_it.err.contains("W-KEYS"), "{}", said_it.err);
    let yaml = said_it.good();
    assert!(
        yaml.contains("- alpine-baselayout") && yaml.contains("/main"),
        "{yaml}"
    );
    let none = desk.run(&["import", "a.yaml"]);
    assert_eq!(none.code, 1, "{}", none.err);
    assert!(
        none.err
            .contains("error[E-IMAGE]: a.yaml is no image that can be read"),
        "{}",
        none.err
    );
    assert!(matches!(
        one(&desk.path().join("a")).files["srv"].kind,
        RowKind::Directory
    ));
}
