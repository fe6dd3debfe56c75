//! What the tests share: where the data is, roots to work in, the programs to run, and how a tree
//! is written down for comparison.

pub(crate) mod mirror;
pub(crate) mod oracle;
pub(crate) mod repository;
pub(crate) mod scene;
pub(crate) mod scene_strategy;
pub(crate) mod solver_run;
pub(crate) mod v3;

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::io::Read;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Returns a path below the shared test data, or `None` (with a message) where there is none.
///
/// The data is not part of the repository. Where it is, a missing set is a failure with `CI=true`,
/// so that a run can not pass by skipping.
pub(crate) fn data(path: &str) -> Option<PathBuf> {
    let given = std::env::var_os("IBEX_TEST_DATA").map(PathBuf::from);
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/data");
    let base = given.clone().unwrap_or(beside);
    let found = base.join(path);
    if found.exists() {
        return Some(found.canonicalize().expect("it exists"));
    }
    let is_ci = std::env::var_os("CI").is_some_and(|value| value == "true");
    assert!(
        !is_ci || given.is_none() && !base.exists(),
        "the test data {} is missing",
        found.display()
    );
    eprintln!(
        "skipped: there is no {}; set IBEX_TEST_DATA",
        found.display()
    );
    None
}

/// Returns whether the test runs as root; tells that it is skipped otherwise.
pub(crate) fn is_root() -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        eprintln!("skipped: needs root");
    }
    root
}

/// What a command left.
#[derive(Debug)]
pub(crate) struct Run {
    /// Standard output and standard error, in the order written.
    pub(crate) output: String,
    /// Exit code; 128 and the signal's number if it was killed.
    pub(crate) code: i32,
}

impl Run {
    /// Panics unless the command succeeded.
    #[track_caller]
    pub(crate) fn success(self) -> Self {
        assert_eq!(self.code, 0, "{}", self.output);
        self
    }
}

/// Runs a command with both output streams in one pipe.
pub(crate) fn run(command: &mut Command) -> Run {
    use std::os::unix::process::ExitStatusExt;
    let (mut reader, writer) = std::io::pipe().expect("a pipe");
    command
        .stdin(Stdio::null())
        .stdout(writer.try_clone().expect("a pipe end"))
        .stderr(writer);
    let mut child = command
        .spawn()
        .unwrap_or_else(|error| panic!("{command:?}: {error}"));
    // The command holds the write ends until new ones take their place.
    command.stdout(Stdio::null()).stderr(Stdio::null());
    let mut bytes = Vec::new();
    reader
        .read_to_end(&mut bytes)
        .expect("the pipe is readable");
    let status = child.wait().expect("the child was started");
    Run {
        output: String::from_utf8_lossy(&bytes).into_owned(),
        code: status
            .code()
            .unwrap_or_else(|| 128 + status.signal().unwrap_or(0)),
    }
}

/// Returns a command for the built binary, in an environment without surprises.
pub(crate) fn ibex() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ibex"));
    command
        .env_clear()
        .env("APK_CONFIG", "/dev/null")
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
    command
}

/// Copies the built binary. Another process does it: a child forked meanwhile by another test would
/// hold the copy open for writing, and it could not be run ("text file busy").
pub(crate) fn copy_program(to: &Path) {
    run(Command::new("cp").arg(env!("CARGO_BIN_EXE_ibex")).arg(to)).success();
}

/// Returns where parsed indexes are kept: all tests share them, as all roots of a user do.
fn shared_catalogue() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join("catalogue")
}

/// A temporary directory with a root and a private cache.
pub(crate) struct Sandbox {
    directory: tempfile::TempDir,
}

impl Sandbox {
    /// Makes an empty one.
    pub(crate) fn new() -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        fs::create_dir(directory.path().join("root")).expect("a new directory");
        Self { directory }
    }

    /// Unpacks an archive of `data/minirootfs` as the root.
    pub(crate) fn with_minirootfs(release: &str) -> Option<Self> {
        let archive = data(&format!(
            "minirootfs/alpine-minirootfs-{release}-x86_64.tar.gz"
        ))?;
        let sandbox = Self::new();
        run(Command::new("tar")
            .args(["-x", "-z", "--numeric-owner", "-p", "-f"])
            .arg(archive)
            .arg("-C")
            .arg(sandbox.root()))
        .success();
        Some(sandbox)
    }

    /// Returns the path of the root.
    pub(crate) fn root(&self) -> PathBuf {
        self.directory.path().join("root")
    }

    /// Returns a path beside the root.
    pub(crate) fn beside(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Writes a file below the root, with its parents.
    pub(crate) fn write(&self, path: &str, content: impl AsRef<[u8]>) {
        let path = self.root().join(path);
        fs::create_dir_all(path.parent().expect("a path below the root")).expect("directories");
        fs::write(path, content).expect("a writable root");
    }

    /// Reads a file below the root as text; empty if it is not there.
    pub(crate) fn read(&self, path: &str) -> String {
        let bytes = fs::read(self.root().join(path)).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Copies the public keys of folders of the shared data to `etc/apk/keys`.
    pub(crate) fn trust(&self, folders: &[&str]) -> Option<()> {
        let keys = self.root().join("etc/apk/keys");
        fs::create_dir_all(&keys).expect("directories");
        for folder in folders {
            for entry in fs::read_dir(data(folder)?).expect("a folder of keys") {
                let path = entry.expect("a readable folder").path();
                if matches!(
                    path.extension().and_then(OsStr::to_str),
                    Some("pub" | "pem")
                ) {
                    let key = fs::read(&path).expect("a key");
                    let name = path.file_name().expect("a file");
                    fs::write(keys.join(name), key).expect("a writable root");
                }
            }
        }
        Some(())
    }

    /// Writes `etc/apk/repositories`.
    pub(crate) fn repositories(&self, lines: &[&str]) {
        self.write(
            "etc/apk/repositories",
            lines.iter().map(|l| format!("{l}\n")).collect::<String>(),
        );
    }

    /// Returns a command for the built binary that works on this root.
    pub(crate) fn ibex(&self) -> Command {
        let mut command = ibex();
        command
            .env("IBEX_CACHE_DIR", shared_catalogue())
            .arg("--root")
            .arg(self.root());
        command
    }

    /// Runs the built binary on this root.
    pub(crate) fn run<S: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = S>) -> Run {
        run(self.ibex().args(arguments))
    }

    /// Runs a program inside the root, with `/dev` and `/proc` of the system in a mount namespace.
    pub(crate) fn chroot(&self, arguments: &[&str]) -> Run {
        const SCRIPT: &str = "for d in dev proc; do \
            [ ! -d \"$0/$d\" ] || mount --rbind \"/$d\" \"$0/$d\" || exit 125; done; \
            exec chroot \"$0\" \"$@\"";
        let mut command = Command::new("unshare");
        command
            .args(["--mount", "sh", "-c", SCRIPT])
            .arg(self.root())
            .args(arguments);
        run(command
            .env_clear()
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin"))
    }
}

/// All packages of the repository that can live together: `vlan`, which `network-extras` needs,
/// conflicts with `ifupdown-ng`.
pub(crate) fn all_names(repository: &Path) -> Vec<String> {
    let mut names = Vec::new();
    for entry in fs::read_dir(repository.join("x86_64")).expect("a repository") {
        let file = entry
            .expect("a readable folder")
            .file_name()
            .to_string_lossy()
            .into_owned();
        let Some(stem) = file.strip_suffix(".apk") else {
            continue;
        };
        let name = stem.rsplitn(3, '-').nth(2).expect("NAME-VERSION-rN");
        if !matches!(name, "vlan" | "network-extras") {
            names.push(name.to_owned());
        }
    }
    names.sort();
    names
}

/// Writes a tree down: path → type, mode, owner, group, time, and content or target.
///
/// Times of files younger than `started` and of anything but files are left out, and so is the
/// history, which no other program has.
pub(crate) fn tree(root: &Path, started: i64) -> BTreeMap<String, String> {
    let mut rows = BTreeMap::new();
    walk(root, root, started, &mut rows);
    rows.retain(|path, _| path != HISTORY && !path.starts_with("var/lib/ibex/"));
    for parent in ["var/lib/", "var/"] {
        // Directories that were made only for it.
        if !rows.keys().any(|path| path.starts_with(parent)) {
            rows.remove(parent.trim_end_matches('/'));
        }
    }
    rows
}

/// Where ibex keeps the history of a root.
const HISTORY: &str = "var/lib/ibex";

/// Files whose content depends on the day, on paths, or on the log of the run.
const VOLATILE: [&str; 6] = [
    "etc/shadow",
    "etc/shadow-",
    "etc/apk/repositories",
    "var/log/apk.log",
    "lib/apk/db/scripts.tar",
    "lib/apk/db/scripts.tar.gz",
];

fn walk(root: &Path, folder: &Path, started: i64, rows: &mut BTreeMap<String, String>) {
    for entry in fs::read_dir(folder).expect("a readable directory") {
        let path = entry.expect("a readable directory").path();
        let relative = path
            .strip_prefix(root)
            .expect("below the root")
            .to_string_lossy()
            .into_owned();
        let meta = fs::symlink_metadata(&path).expect("it was just listed");
        let kind = meta.file_type();
        let mode = format!("{:o}", meta.mode() & 0o7777);
        let mut time = if meta.mtime() < started {
            meta.mtime().to_string()
        } else {
            "-".into()
        };
        let (kind, mode, detail) = if kind.is_dir() {
            time = "-".into();
            ("dir", mode, "-".into())
        } else if kind.is_symlink() {
            (
                "link",
                "-".into(),
                fs::read_link(&path)
                    .expect("a link")
                    .to_string_lossy()
                    .into_owned(),
            )
        } else if kind.is_file() {
            let volatile = VOLATILE.contains(&relative.as_str());
            (
                "file",
                mode,
                if volatile { "-".into() } else { sha1(&path) },
            )
        } else {
            time = "-".into();
            let device = meta.rdev();
            let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
            assert!(kind.is_char_device() || kind.is_block_device() || kind.is_fifo());
            ("char", mode, format!("{major}:{minor}"))
        };
        rows.insert(
            relative,
            format!(
                "{kind}\t{mode}\t{}\t{}\t{time}\t{detail}",
                meta.uid(),
                meta.gid()
            ),
        );
        if kind == "dir" {
            walk(root, &path, started, rows);
        }
    }
}

fn sha1(path: &Path) -> String {
    use sha1::{Digest, Sha1};
    data_encoding::HEXLOWER.encode(&Sha1::digest(fs::read(path).expect("a readable file")))
}

/// Lists what differs between two trees, a line for each path.
pub(crate) fn differences(
    wanted: &BTreeMap<String, String>,
    found: &BTreeMap<String, String>,
) -> Vec<String> {
    let mut lines = Vec::new();
    for (path, row) in wanted {
        match found.get(path) {
            None => lines.push(format!("missing {path}\t{row}")),
            Some(other) if other != row => {
                lines.push(format!("wanted {path}\t{row}\nfound  {path}\t{other}"));
            }
            Some(_) => {}
        }
    }
    let extra = found.iter().filter(|(path, _)| !wanted.contains_key(*path));
    lines.extend(extra.map(|(path, row)| format!("extra {path}\t{row}")));
    lines
}
