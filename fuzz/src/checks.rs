//! What must hold for any input: no panic, no memory that the input decides about, and laws that
//! tie reading, writing and comparing together.
//!
//! The fuzz targets call these functions, and so does a test that replays a small corpus, without
//! any fuzzer.

use ibex::config::RepositorySources;
use ibex::format::apk::PackageReader;
use ibex::format::index::UnverifiedIndex;
use ibex::format::package_writer::gzip;
use ibex::format::{Limits, apkindex, installed, pkginfo, scripts, triggers};
use ibex::image::store::{Store, sha256_hex};
use ibex::image::{BaseImage, read};
use ibex::package::{Dependency, DependencyList, Identity, Version, World};
use ibex::plan::lockfile::Lockfile;
use ibex::progress::{Event, Sink};
use ibex::root::Root;
use std::cmp::Ordering;
use std::io::Read;

/// Bounds small enough that a fuzzer reaches them.
fn limits() -> Limits {
    let mut limits = Limits::default();
    limits
        .set("header=4K,pkginfo=16K,script=16K,control=256K,index=1M,entries=256,unpacked=1M")
        .expect("known names");
    limits
}

/// Versions: comparing is an order, whatever the texts are.
pub fn version(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let words: Vec<&str> = text.lines().take(3).collect();
    let versions: Vec<Version<'_>> = words.iter().map(|word| Version(word)).collect();
    for a in &versions {
        let _ = a.is_valid();
        assert_eq!(a.compare(*a), Ordering::Equal, "{a:?}");
        for b in &versions {
            assert_eq!(a.compare(*b), b.compare(*a).reverse(), "{a:?} {b:?}");
            let _ = a.compare_prefix(*b);
        }
    }
    // Among versions that are well-formed, the order is one.
    if let [a, b, c] = versions[..]
        && versions.iter().all(|version| version.is_valid())
        && a.compare(b) != Ordering::Greater
        && b.compare(c) != Ordering::Greater
    {
        assert_ne!(a.compare(c), Ordering::Greater, "{a:?} {b:?} {c:?}");
    }
}

/// Dependencies, lists of them and worlds: what is written is read back as the same.
pub fn dependency(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    if let Ok(entry) = Dependency::parse(&text) {
        let _ = entry.accepts("1.0-r0", Default::default());
        // Operators that accept everything, or contradict themselves, have no spelling of their own;
        // lists of packages show them as apk does.
        let is_spelt = entry.version.is_empty() || !matches!(entry.operator.as_str(), "" | "?");
        if is_spelt {
            let again = Dependency::parse(&entry.to_string());
            assert_eq!(again.as_ref(), Ok(&entry), "{text:?}");
        }
    }
    let list = DependencyList::parse(&text);
    let _ = list.has_broken();
    let _ = DependencyList::parse_world(&text);
    if let Ok(world) = World::parse(&text) {
        assert_eq!(
            World::parse(&world.to_text()),
            Ok(world.stored()),
            "{text:?}"
        );
    }
}

/// Indexes: as a file, and as the text inside of one.
pub fn index(data: &[u8]) {
    let limits = limits();
    if let Ok(unverified) = UnverifiedIndex::read(data, &limits) {
        let _ = unverified.inspect();
        let _ = unverified.parse();
    }
    if let Ok(unverified) = UnverifiedIndex::read(data, &limits) {
        let _ = unverified.into_table();
    }
    // A damaged tar inside of whole compression.
    let compressed = gzip(data);
    if let Ok(unverified) = UnverifiedIndex::read(&compressed, &limits) {
        let _ = unverified.parse();
    }
    let (packages, _) = apkindex::parse_prefix(data);
    for package in packages {
        let mut text = String::new();
        apkindex::write_record(&package, &mut text);
        if let Ok(again) = apkindex::parse(text.as_bytes()) {
            let mut second = String::new();
            again
                .iter()
                .for_each(|package| apkindex::write_record(package, &mut second));
            assert_eq!(without_empty(&text), without_empty(&second));
        }
    }
}

/// Packages: as a file, as the tar inside of the parts, and as `.PKGINFO`.
pub fn package(data: &[u8]) {
    let limits = limits();
    read_package(data, &limits);
    // The first byte says where the control part ends and the data begins.
    if let Some((at, rest)) = data.split_first() {
        let at = (usize::from(*at) * 16).min(rest.len());
        let mut parts = gzip(&rest[..at]);
        parts.extend(gzip(&rest[at..]));
        read_package(&parts, &limits);
    }
    let _ = pkginfo::parse(data);
}

fn read_package(bytes: &[u8], limits: &Limits) {
    let Ok((control, mut data)) = PackageReader::open(bytes, limits) else {
        return;
    };
    assert!(pkginfo::check_name(&control.package.name).is_ok());
    let mut unpacked = 0;
    while let Ok(Some(entry)) = data.next_entry() {
        if entry.malicious.is_none() {
            assert!(!entry.path.is_empty() && !entry.path.starts_with('/'));
            let mut parts = entry.path.split('/');
            assert!(
                parts.all(|part| !matches!(part, "" | "." | "..")),
                "{entry:?}"
            );
            assert!(!entry.path.contains(['\n', '\0', '\x1b']), "{entry:?}");
        }
        let mut content = Vec::new();
        let read = data.read_to_end(&mut content);
        unpacked += content.len() as u64;
        assert!(unpacked <= limits.unpacked, "{unpacked}");
        if read.is_err() {
            return;
        }
    }
    let _ = data.finish();
}

/// The installed database with its scripts and triggers: what is written is read back as the same.
pub fn installed(data: &[u8]) {
    for lax in [false, true] {
        let Ok(mut db) = installed::parse(data, lax) else {
            continue;
        };
        let _ = scripts::read(&mut db, data, false, &limits());
        triggers::read(&mut db, data);
        let Ok(text) = installed::write(&db) else {
            continue;
        };
        let again = installed::parse(&text, lax).expect("what was written can be read");
        let second = installed::write(&again).expect("and written again");
        let (text, second) = (
            String::from_utf8_lossy(&text),
            String::from_utf8_lossy(&second),
        );
        assert_eq!(without_empty(&text), without_empty(&second));
        let _ = triggers::write(&db);
    }
}

/// Leaves out entries without a name: a blank in front of a list makes one, as in apk, and in the
/// middle of a list, or alone, there is nothing of it to read back.
fn without_empty(text: &str) -> String {
    let words = |line: &str| {
        line.split(' ')
            .filter(|word| !word.is_empty())
            .collect::<Vec<_>>()
            .join(" ")
    };
    let lines = text.lines().map(words);
    let has_entries = |line: &String| !["D:", "p:", "i:", "r:"].contains(&line.as_str());
    lines.filter(has_entries).collect::<Vec<_>>().join("\n")
}

/// The lines of repositories files, with variables, tags and whatever else stands there.
pub fn repositories(data: &[u8]) {
    struct Nobody;
    impl Sink for Nobody {
        fn event(&mut self, _: Event<'_>) {}
    }
    thread_local! {
        static ROOT: (tempfile::TempDir, Root) = {
            let folder = tempfile::tempdir().expect("a temporary directory");
            let root = Root::open(folder.path()).expect("a root");
            (folder, root)
        };
    }
    let sources = RepositorySources {
        config: vec![String::from_utf8_lossy(data).into_owned()],
        file: Some("/dev/null".into()),
        ..RepositorySources::default()
    };
    ROOT.with(|(_, root)| {
        let declared = ibex::config::repositories::load(root, &sources, "x86_64", &mut Nobody);
        let declared = declared.expect("nothing is read from the disk");
        for repository in declared.repositories {
            let _ = repository.index_path();
            let _ = ibex::config::repositories::masked(&repository.url);
            let package = ("name", "1.0-r0", "x86_64");
            let _ = repository.package_url(None, package, Identity::default());
        }
    });
}

/// Descriptions of images: what is shown is read back as the same.
pub fn description(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let Ok((config, _)) = ibex::config::image::parse("fuzz.yaml", &text) else {
        return;
    };
    let _ = ibex::config::image::lint(&config, true);
    let _ = config.world(&[]);
    let _ = config.to_json();
    let shown = config.to_yaml();
    let (again, _) = ibex::config::image::parse("again.yaml", &shown).expect("our own text");
    assert_eq!(again.to_yaml(), shown, "{text:?}");
}

/// Lock files: what is written is read back as the same.
pub fn lockfile(data: &[u8]) {
    let Ok(lock) = Lockfile::parse("fuzz.json", data) else {
        return;
    };
    for locked in &lock.contents.packages {
        assert!(!locked.name.contains('/'), "{locked:?}");
        let _ = (locked.package(), locked.file_size());
    }
    let again = Lockfile::parse("again.json", lock.to_text().as_bytes());
    assert_eq!(again.as_ref(), Ok(&lock));
    assert!(lock.changes(&lock).is_empty());
}

/// Images of anybody: archives of layouts, of docker and of root file systems, and a layer to build
/// on.
pub fn image(data: &[u8]) {
    let folder = tempfile::tempdir().expect("a temporary directory");
    let digest = sha256_hex(data);
    let blobs = folder.path().join("blobs/sha256");
    std::fs::create_dir_all(&blobs).expect("a directory");
    let path = blobs.join(&digest);
    std::fs::write(&path, data).expect("a file");
    let _ = read::read(&path);
    if let Ok(image) = read::read_root(&path) {
        let _ = (image.size(), image.owners());
    }
    let digest = format!("sha256:{digest}");
    let outline = read::Outline {
        platform: String::new(),
        config: serde_json::json!({ "rootfs": { "diff_ids": [digest] } }),
        annotations: Default::default(),
        layers: vec![read::ReadLayer {
            digest,
            size: data.len() as u64,
            media_type: String::new(),
            entries: Vec::new(),
        }],
    };
    let store = Store::open(&folder.path().join("store")).expect("a store");
    if let Ok(base) = BaseImage::read(folder.path(), outline, &store) {
        let _ = (base.has("etc/passwd"), base.owner("etc/passwd"));
        let _ = base.file("etc/apk/world");
    }
}
