//! The store of packages that all roots of a user share: made once, used by every root, and never
//! a reason to fail.

use crate::support::mirror::{Does, Mirror};
use crate::support::{Run, Sandbox, data, differences, run, tree};
use std::path::{Path, PathBuf};

/// Several roots over one store and one mirror.
struct Roots {
    shared: tempfile::TempDir,
    mirror: Mirror,
    repository: PathBuf,
}

impl Roots {
    fn new() -> Option<Self> {
        let repository = data("alpine-v3.19")?;
        Some(Self {
            shared: tempfile::tempdir().expect("a temporary directory"),
            mirror: Mirror::of(&repository),
            repository,
        })
    }

    fn store(&self) -> PathBuf {
        self.shared.path().join("store")
    }

    /// Returns the only file of a folder of the store whose name begins so.
    fn file(&self, folder: &str, name: &str) -> PathBuf {
        let entries = std::fs::read_dir(self.store().join(folder)).expect("a folder");
        let mut paths = entries.map(|entry| entry.expect("an entry").path());
        let found = paths.find(|path| {
            let file = path.file_name().expect("a name").to_string_lossy();
            file.starts_with(name) && !file.ends_with(".seal")
        });
        found.unwrap_or_else(|| panic!("{name} is not in {folder}"))
    }

    fn root(&self) -> Sandbox {
        let sandbox = Sandbox::new();
        sandbox
            .trust(&["alpine-v3.19/keys"])
            .expect("the keys are beside the packages");
        sandbox
    }

    fn ibex(&self, sandbox: &Sandbox, words: &[&str]) -> Run {
        let mut command = sandbox.ibex();
        command.env("IBEX_CACHE_DIR", self.store());
        command.args(["--arch", "x86_64", "-X", &self.mirror.url()]);
        run(command.args(words))
    }

    fn add(&self, sandbox: &Sandbox, more: &[&str]) -> Run {
        let words = ["add", "--initdb", "--no-scripts", "zlib"];
        self.ibex(sandbox, &[&words, more].concat())
    }
}

fn flip(path: &Path, at: usize) {
    let mut bytes = std::fs::read(path).expect("a file");
    bytes[at] ^= 0x10;
    std::fs::write(path, bytes).expect("a file");
}

#[test]
fn the_next_root_downloads_nothing_and_is_the_same() {
    let Some(roots) = Roots::new() else { return };
    let names = [
        "zlib",
        "alpine-baselayout",
        "openssh",
        "tzdata",
        "busybox-suid",
    ];
    let words = [&["add", "--initdb", "--no-scripts"], &names[..]].concat();
    let mut trees = Vec::new();
    for more in [&["--no-cache"][..], &[], &[]] {
        let root = roots.root();
        let asked = roots.mirror.packages_asked();
        roots.ibex(&root, &[&words, more].concat()).success();
        let found = tree(&root.root(), 1_700_000_000 + 10_000_000);
        trees.push((
            found,
            roots.mirror.packages_asked() - asked,
            root.read("lib/apk/db/installed"),
        ));
    }
    let [plain, first, second] = trees.try_into().expect("three roots");
    assert!(plain.1 > 5, "{}", plain.1);
    assert_eq!((first.1, second.1), (plain.1, 0));
    for other in [&first, &second] {
        let differ = differences(&plain.0, &other.0);
        let caches = |line: &&String| !line.contains("var/cache/apk");
        let differ: Vec<&String> = differ.iter().filter(caches).collect();
        assert!(differ.is_empty(), "{differ:#?}");
        assert_eq!(plain.2, other.2);
    }
    // The index was not asked for again, either.
    let indexes = roots
        .mirror
        .log()
        .into_iter()
        .filter(|path| path.contains("INDEX"));
    assert_eq!(indexes.count(), 2);

    // Without a network what is kept is enough.
    let root = roots.root();
    roots.add(&root, &[]).success();
    let cut_off = roots.ibex(&root, &["--no-network", "add", "--no-scripts", "openssh"]);
    cut_off.success();
}

#[test]
fn damage_is_found_dropped_and_made_good() {
    let Some(roots) = Roots::new() else { return };
    roots.add(&roots.root(), &[]).success();
    let good = std::fs::read(roots.file("unpacked", "musl-1")).expect("a file");
    let limits = |end: &Path| std::fs::metadata(end).expect("a file").len() as usize;
    type Damage = fn(&Roots);
    let cases: [(&str, usize, Damage); 6] = [
        // The unpacked package goes; the package file is still there.
        ("a flipped bit in unpacked contents", 0, |roots| {
            flip(&roots.file("unpacked", "musl-1"), 5000);
        }),
        ("cut contents", 0, |roots| {
            let path = roots.file("unpacked", "musl-1");
            let file = std::fs::File::options()
                .write(true)
                .open(path)
                .expect("a file");
            file.set_len(100).expect("a file");
        }),
        ("no seal", 0, |roots| {
            let mut path = roots.file("unpacked", "musl-1").into_os_string();
            path.push(".seal");
            std::fs::remove_file(path).expect("a seal");
        }),
        (
            "a flipped bit in the package file, and nothing unpacked",
            1,
            |roots| {
                flip(&roots.file("packages", "musl-1"), 200_000);
                std::fs::remove_file(roots.file("unpacked", "musl-1")).expect("a file");
            },
        ),
        ("everything gone", 2, |roots| {
            std::fs::remove_dir_all(roots.store()).expect("a directory");
        }),
        ("a directory in the place of a file", 0, |roots| {
            let path = roots.file("unpacked", "zlib-1");
            std::fs::remove_file(&path).expect("a file");
            let mut seal = path.into_os_string();
            seal.push(".seal");
            std::fs::remove_file(&seal).expect("a seal");
            std::fs::write(seal, "0 0 0 0.0 0.0\n").expect("a file");
        }),
    ];
    for (name, fetched, damage) in cases {
        damage(&roots);
        let asked = roots.mirror.packages_asked();
        let root = roots.root();
        let run = roots.add(&root, &[]);
        assert_eq!(run.code, 0, "{name}: {}", run.output);
        assert_eq!(
            roots.mirror.packages_asked() - asked,
            fetched,
            "{name}: {}",
            run.output
        );
        let library = std::fs::read(root.root().join("lib/ld-musl-x86_64.so.1")).expect("a file");
        assert!(library.len() > 500_000, "{name}");
        let again = std::fs::read(roots.file("unpacked", "musl-1")).expect("a file");
        assert!(again == good, "{name}");
    }
    assert!(limits(&roots.file("packages", "musl-1")) > 300_000);
}

#[test]
fn a_damaged_file_in_apks_own_cache_is_fetched_again() {
    let Some(roots) = Roots::new() else { return };
    let first = roots.root();
    let cache = first.beside("apk-cache");
    std::fs::create_dir(&cache).expect("a directory");
    let directory = cache.display().to_string();
    let words = ["--cache-dir", &directory];
    roots.add(&first, &words).success();
    let entries = std::fs::read_dir(&cache).expect("a directory");
    let mut packages = entries
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| {
            path.file_name()
                .expect("a name")
                .to_string_lossy()
                .starts_with("zlib-1")
        });
    let zlib = packages.next().expect("it was kept under apk's name");
    let length = zlib.file_name().expect("a name").len();
    assert_eq!(length, "zlib-1.3.1-r0.12345678.apk".len());
    // Not in both places.
    let store = std::fs::read_dir(roots.store().join("packages")).expect("a folder");
    assert_eq!(store.count(), 0);

    flip(&zlib, 30_000);
    std::fs::remove_dir_all(roots.store().join("unpacked")).expect("a directory");
    let asked = roots.mirror.packages_asked();
    let second = roots.root();
    let run = roots.add(&second, &words).success();
    assert_eq!(roots.mirror.packages_asked() - asked, 1, "{}", run.output);
    assert!(run.output.contains("damaged"), "{}", run.output);
    let third = roots.root();
    let run = roots.add(&third, &words).success();
    assert!(!run.output.contains("damaged"), "{}", run.output);

    // Without a mirror it is an error that says why.
    flip(&zlib, 30_000);
    std::fs::remove_dir_all(roots.store().join("unpacked")).expect("a directory");
    let run = roots.add(&roots.root(), &["--no-network", "--cache-dir", &directory]);
    assert_ne!(run.code, 0);
    assert!(run.output.contains("damaged"), "{}", run.output);
}

#[test]
fn many_roots_at_once_download_each_package_once() {
    let Some(roots) = Roots::new() else { return };
    let count = 200;
    let sandboxes: Vec<Sandbox> = (0..count).map(|_| roots.root()).collect();
    // A server that takes a moment, so that they really meet.
    let slow = std::time::Duration::from_millis(100);
    let mirror = Mirror::slow(&roots.repository, slow, |_| Does::Serve);
    let url = mirror.url();
    let mut children: Vec<std::process::Child> = sandboxes
        .iter()
        .map(|sandbox| {
            let mut command = sandbox.ibex();
            command.env("IBEX_CACHE_DIR", roots.store());
            command.args([
                "--arch",
                "x86_64",
                "-X",
                &url,
                "add",
                "--initdb",
                "--no-scripts",
            ]);
            command.arg("zlib").stdin(std::process::Stdio::null());
            let log = std::fs::File::create(sandbox.beside("log")).expect("a file");
            command.stdout(log.try_clone().expect("a file")).stderr(log);
            command.spawn().expect("it starts")
        })
        .collect();
    for (child, sandbox) in children.iter_mut().zip(&sandboxes) {
        let status = child.wait().expect("it ran");
        let log = std::fs::read_to_string(sandbox.beside("log")).expect("a log");
        assert!(status.success(), "{log}");
    }
    let first = tree(&sandboxes[0].root(), 1_710_000_000);
    for sandbox in &sandboxes {
        let found = tree(&sandbox.root(), 1_710_000_000);
        let differ = differences(&first, &found);
        let matter = |line: &&String| !line.contains("var/cache") && !line.contains("var/log");
        let differ: Vec<&String> = differ.iter().filter(matter).collect();
        assert!(differ.is_empty(), "{differ:#?}");
        assert!(sandbox.read("lib/apk/db/installed").contains("P:zlib\n"));
    }
    assert_eq!(mirror.packages_asked(), 2, "{:?}", mirror.log());
    let left = std::fs::read_dir(roots.store().join("locks")).expect("a folder");
    assert_eq!(left.count(), 0);
}

#[test]
fn the_store_can_be_looked_at_verified_and_pruned() {
    let Some(roots) = Roots::new() else { return };
    roots.add(&roots.root(), &[]).success();
    let root = roots.root();
    let shown = roots.ibex(&root, &["cache", "dir"]).success().output;
    assert_eq!(shown.trim(), roots.store().display().to_string());
    let listed = roots.ibex(&root, &["cache", "list"]).success().output;
    assert_eq!(listed.lines().count(), 4, "{listed}");
    assert!(listed.contains("zlib-1"), "{listed}");
    let size = roots
        .ibex(&root, &["cache", "--json", "size"])
        .success()
        .output;
    let size: serde_json::Value = serde_json::from_str(&size).expect("JSON");
    assert_eq!(size["packages"]["files"], 2, "{size}");
    assert_eq!(size["unpacked"]["files"], 2, "{size}");

    flip(&roots.file("packages", "zlib-1"), 20_000);
    flip(&roots.file("unpacked", "musl-1"), 20_000);
    let verified = roots.ibex(&root, &["cache", "verify"]);
    assert_eq!(verified.code, 2, "{}", verified.output);
    assert!(
        verified.output.ends_with("4 verified, 2 damaged\n"),
        "{}",
        verified.output
    );
    let verified = roots.ibex(&root, &["cache", "verify"]).success().output;
    assert_eq!(verified, "2 verified, 0 damaged\n");

    // What somebody uses just now is not pruned to make room.
    let pruned = roots
        .ibex(&root, &["--cache-limit", "0", "cache", "prune"])
        .success()
        .output;
    assert!(pruned.starts_with("0 files"), "{pruned}");
    let pruned = roots
        .ibex(&root, &["cache", "prune", "--ci"])
        .success()
        .output;
    assert!(pruned.starts_with("1 file "), "{pruned}");
    let long_ago = std::time::SystemTime::now() - std::time::Duration::from_secs(9000);
    let package = std::fs::File::options()
        .append(true)
        .open(roots.file("packages", "musl-1"))
        .expect("a file");
    let times = std::fs::FileTimes::new()
        .set_accessed(long_ago)
        .set_modified(long_ago);
    package.set_times(times).expect("a file");
    let pruned = roots
        .ibex(&root, &["--cache-limit", "1K", "cache", "prune"])
        .success()
        .output;
    assert!(pruned.starts_with("1 file "), "{pruned}");
    let wrong = roots.ibex(&root, &["--cache-limit", "lots", "cache", "prune"]);
    assert_eq!(wrong.code, 1, "{}", wrong.output);
}

#[test]
fn the_cache_can_be_filled_ahead() {
    let Some(roots) = Roots::new() else { return };
    let root = roots.root();
    roots.add(&root, &["--no-cache"]).success();
    roots.ibex(&root, &["update"]).success();
    let asked = roots.mirror.packages_asked();
    roots
        .ibex(&root, &["cache", "download", "openssh"])
        .success();
    let fetched = roots.mirror.packages_asked() - asked;
    assert!(fetched > 3, "{fetched}");
    roots
        .ibex(&root, &["--no-network", "add", "--no-scripts", "openssh"])
        .success();
    assert_eq!(roots.mirror.packages_asked() - asked, fetched);
}

#[test]
fn roots_that_ask_for_it_share_files_and_spoil_no_other() {
    use std::os::unix::fs::MetadataExt;
    let Some(roots) = Roots::new() else { return };
    let library = "lib/ld-musl-x86_64.so.1";
    let inode = |root: &Sandbox| {
        let meta = std::fs::metadata(root.root().join(library)).expect("a file");
        meta.ino()
    };
    let [first, second, third, plain] = [(); 4].map(|()| roots.root());
    roots.add(&first, &["--link-files"]).success();
    roots.add(&second, &["--link-files"]).success();
    assert_eq!(inode(&first), inode(&second));
    roots.add(&plain, &[]).success();
    assert_ne!(inode(&first), inode(&plain));
    let started = 1_710_000_000;
    let differ = differences(
        &tree(&plain.root(), started),
        &tree(&second.root(), started),
    );
    let matter = |line: &&String| !line.contains("var/");
    let differ: Vec<&String> = differ.iter().filter(matter).collect();
    assert!(differ.is_empty(), "{differ:#?}");

    // Somebody writes to a root after all: a later one gets the true content.
    let good = std::fs::read(plain.root().join(library)).expect("a file");
    std::fs::write(first.root().join(library), "spoilt").expect("a file");
    roots.add(&third, &["--link-files"]).success();
    assert!(std::fs::read(third.root().join(library)).expect("a file") == good);
    assert_ne!(inode(&first), inode(&third));

    // The same with the time set back: found when all are compared, at the latest a day later.
    let path = third.root().join(library);
    let time = std::fs::metadata(&path).and_then(|meta| meta.modified());
    flip(&path, 4000);
    let file = std::fs::File::options().append(true).open(&path);
    let time = time.expect("a time");
    file.and_then(|file| file.set_modified(time))
        .expect("a file");
    roots.ibex(&plain, &["cache", "verify"]).success();
    let fourth = roots.root();
    roots.add(&fourth, &["--link-files"]).success();
    assert!(std::fs::read(fourth.root().join(library)).expect("a file") == good);
}

/// Returns the package files in a directory, by name.
fn package_files(directory: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(directory).expect("a directory");
    let paths = entries.map(|entry| entry.expect("an entry").path());
    let mut files: Vec<PathBuf> = paths
        .filter(|path| path.extension().is_some_and(|extension| extension == "apk"))
        .collect();
    files.sort();
    files
}

#[test]
fn a_cache_directory_is_filled_whatever_the_store_has() {
    let Some(roots) = Roots::new() else { return };
    roots.add(&roots.root(), &[]).success();
    let stored = package_files(&roots.store().join("packages"));
    assert_eq!(stored.len(), 2);
    let same = |directory: &Path| {
        let found = package_files(directory);
        let bytes = |paths: &[PathBuf]| -> Vec<Vec<u8>> {
            let read = |path| std::fs::read(path).expect("a file");
            paths.iter().map(read).collect()
        };
        bytes(&found) == bytes(&stored)
    };
    let with = |root: &Sandbox, name: &str| {
        let directory = root.beside(name);
        std::fs::create_dir(&directory).expect("a directory");
        directory
    };
    let option = |directory: &Path| format!("--cache-dir={}", directory.display());

    // The store has the package files: nothing is fetched.
    let asked = roots.mirror.packages_asked();
    let root = roots.root();
    let directory = with(&root, "filled");
    roots.add(&root, &[&option(&directory)]).success();
    assert_eq!(roots.mirror.packages_asked(), asked);
    assert!(same(&directory));
    // The time is that of the mirror.
    let time = |path: &Path| {
        let meta = std::fs::metadata(path).expect("a file");
        meta.modified().expect("a time")
    };
    assert_eq!(time(&package_files(&directory)[0]), time(&stored[0]));

    // `cache download` does the same.
    let directory = with(&root, "downloaded");
    let cache = option(&directory);
    roots.ibex(&root, &[&cache, "update"]).success();
    roots.ibex(&root, &[&cache, "cache", "download"]).success();
    assert_eq!(roots.mirror.packages_asked(), asked);
    assert!(same(&directory));

    // It has them unpacked only: they are fetched for the directory.
    let packages = roots.store().join("packages");
    std::fs::rename(&packages, root.beside("away")).expect("a directory");
    let root = roots.root();
    let directory = with(&root, "fetched");
    roots.add(&root, &[&option(&directory)]).success();
    assert_eq!(roots.mirror.packages_asked() - asked, 2);
    assert_eq!(package_files(&directory).len(), 2);

    // They cannot be had: the root is made all the same, and it is told.
    let gone = Mirror::with(&roots.repository, |asked| match asked.is_index() {
        true => Does::Serve,
        false => Does::Status(404),
    });
    let root = roots.root();
    let directory = with(&root, "unfilled");
    let mut command = root.ibex();
    command.env("IBEX_CACHE_DIR", roots.store());
    command.args(["--arch", "x86_64", "-X", &gone.url(), "add", "--initdb"]);
    command.args(["--no-scripts", &option(&directory), "zlib"]);
    let run = run(&mut command).success();
    let told = "zlib-1.3.1-r0: not put into the cache directory: package mentioned in index";
    assert!(run.output.contains(told), "{}", run.output);
    assert!(root.read("lib/apk/db/installed").contains("P:zlib\n"));
}

#[test]
fn fetch_takes_what_the_store_has() {
    let Some(roots) = Roots::new() else { return };
    let root = roots.root();
    roots.add(&root, &[]).success();
    let asked = roots.mirror.packages_asked();
    let published = |name: &str| {
        let path = roots.repository.join("x86_64").join(name);
        std::fs::read(path).expect("a package")
    };
    let name = "zlib-1.3.1-r0.apk";
    let fetch = |folder: &str, more: &[&str]| {
        let folder = root.beside(folder);
        std::fs::create_dir(&folder).expect("a directory");
        let output = folder.display().to_string();
        let words = [&["fetch", "-o", &output, "zlib"], more].concat();
        let run = roots.ibex(&root, &words).success();
        assert!(
            run.output.contains("Downloading zlib-1.3.1-r0\n"),
            "{}",
            run.output
        );
        std::fs::read(folder.join(name)).expect("a package")
    };
    assert!(fetch("first", &[]) == published(name));
    assert_eq!(roots.mirror.packages_asked(), asked);
    // Without a network it is enough.
    assert!(fetch("second", &["--no-network"]) == published(name));
    // What is damaged there is fetched, and a user who wants no cache gets it from the mirror.
    flip(&roots.file("packages", "zlib-1"), 20_000);
    assert!(fetch("third", &[]) == published(name));
    assert_eq!(roots.mirror.packages_asked() - asked, 1);
    assert!(fetch("fourth", &["--no-cache"]) == published(name));
    assert_eq!(roots.mirror.packages_asked() - asked, 2);
}

#[test]
fn the_size_limit_acts_on_its_own_once_a_day() {
    let Some(roots) = Roots::new() else { return };
    let root = roots.root();
    roots.add(&root, &["--cache-limit", "1K"]).success();
    // What somebody uses just now stays, whatever the limit.
    let files = |folder: &str| {
        let entries = std::fs::read_dir(roots.store().join(folder)).expect("a folder");
        let names = entries.map(|entry| entry.expect("an entry").file_name());
        names
            .filter(|name| !name.to_string_lossy().ends_with(".seal"))
            .count()
    };
    assert_eq!((files("packages"), files("unpacked")), (2, 2));
    let long_ago = std::time::SystemTime::now() - std::time::Duration::from_secs(30 * 3600);
    let age = |path: &Path| {
        let times = std::fs::FileTimes::new()
            .set_accessed(long_ago)
            .set_modified(long_ago);
        let file = std::fs::File::options().append(true).open(path);
        file.and_then(|file| file.set_times(times)).expect("a file");
    };
    for folder in ["packages", "unpacked"] {
        for entry in std::fs::read_dir(roots.store().join(folder)).expect("a folder") {
            age(&entry.expect("an entry").path());
        }
    }
    // Looked at today already.
    let more = ["--cache-limit", "1K", "add", "--no-scripts"];
    roots
        .ibex(&root, &[&more[..], &["scanelf"]].concat())
        .success();
    assert_eq!((files("packages"), files("unpacked")), (3, 3));
    // The next day; a limit with room for all drops nothing.
    age(&roots.store().join("pruned"));
    let room = ["--cache-limit", "1G", "add", "--no-scripts", "libcap2"];
    roots.ibex(&root, &room).success();
    assert_eq!((files("packages"), files("unpacked")), (4, 4));
    age(&roots.store().join("pruned"));
    roots
        .ibex(&root, &[&more[..], &["tzdata"]].concat())
        .success();
    let (packages, unpacked) = (files("packages"), files("unpacked"));
    assert_eq!((packages, unpacked), (3, 3), "those of today are left");
}

/// A btrfs in a file, which is unmounted when this is dropped.
struct Btrfs(PathBuf);

impl Btrfs {
    /// `None`, with a message, where this user or this system mounts no file.
    fn mount(folder: &Path) -> Option<Self> {
        use std::process::Command;
        let tool = Path::new("/usr/sbin/mkfs.btrfs").exists();
        let ci = std::env::var_os("CI").is_some_and(|value| value == "true");
        assert!(tool || !ci, "mkfs.btrfs is missing: see .ci/run");
        let (image, place) = (folder.join("image"), folder.join("btrfs"));
        let file = std::fs::File::create(&image).expect("a file");
        file.set_len(256 << 20).expect("a sparse file");
        std::fs::create_dir(&place).expect("a directory");
        let made = tool && run(Command::new("mkfs.btrfs").arg("-q").arg(&image)).code == 0;
        let mut mount = Command::new("mount");
        mount.args(["-o", "loop"]).arg(&image).arg(&place);
        if !made || run(&mut mount).code != 0 {
            eprintln!("skipped: no btrfs can be mounted here");
            return None;
        }
        Some(Self(place))
    }
}

impl Drop for Btrfs {
    fn drop(&mut self) {
        run(std::process::Command::new("umount").arg(&self.0));
    }
}

#[test]
fn the_next_root_shares_blocks_where_the_file_system_can() {
    let Some(mut roots) = Roots::new() else {
        return;
    };
    let folder = tempfile::tempdir().expect("a temporary directory");
    let Some(btrfs) = Btrfs::mount(folder.path()) else {
        return;
    };
    // Store and root on the same file system.
    roots.shared = tempfile::tempdir_in(&btrfs.0).expect("a temporary directory");
    let keys = roots.repository.join("keys").display().to_string();
    let library = |name: &str, more: &[&str]| {
        let root = btrfs.0.join(name);
        std::fs::create_dir(&root).expect("a directory");
        let mut command = crate::support::ibex();
        command.env("IBEX_CACHE_DIR", roots.store());
        command.arg("--root").arg(&root).args(["--keys-dir", &keys]);
        command.args(["--arch", "x86_64", "-X", &roots.mirror.url()]);
        command.args(["add", "--initdb", "--no-scripts", "zlib"]);
        run(command.args(more)).success();
        root.join("lib/ld-musl-x86_64.so.1")
    };
    let shared = |path: &Path| {
        run(std::process::Command::new("sync").arg("-f").arg(path)).success();
        let map = run(std::process::Command::new("filefrag").arg("-v").arg(path)).success();
        map.output.contains("shared")
    };
    let (first, second) = (library("first", &[]), library("second", &[]));
    let alone = library("alone", &["--no-cache"]);
    assert!(shared(&first) && shared(&second));
    assert!(!shared(&alone));
    let [first, second, alone] = [first, second, alone].map(|p| std::fs::read(p).expect("a file"));
    assert!(first == alone && second == alone);
    drop(roots);
    drop(btrfs);
}

#[test]
fn files_of_cached_packages_are_found() {
    let Some(roots) = Roots::new() else { return };
    roots.add(&roots.root(), &[]).success();
    let other = roots.root();
    roots
        .ibex(&other, &["add", "--initdb", "--no-scripts", "--no-cache"])
        .success();
    let search = || {
        let run = roots.ibex(&other, &["search", "--files", "libz.so.1.3.1"]);
        run.success().output
    };
    let found = "zlib-1.3.1-r0: /lib/libz.so.1.3.1\n";
    let unpacked = search();
    assert!(unpacked.contains(found), "{unpacked}");
    // The package file alone is enough.
    let away = other.beside("away");
    std::fs::rename(roots.store().join("unpacked"), away).expect("a directory");
    assert_eq!(search(), unpacked);
    std::fs::remove_dir_all(roots.store().join("packages")).expect("a directory");
    let nothing = roots.ibex(&other, &["search", "--files", "libz.so.1.3.1"]);
    assert!(!nothing.output.contains("zlib"), "{}", nothing.output);
}
