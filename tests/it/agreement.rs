//! Agreement with apk 3.0.6: the cases in `agreement/` replayed on the fixtures and on real data.
//!
//! A case is what a user would type and what apk answered:
//!
//! ```text
//! # why the case is there
//! % needs alpine-v3.19            a set of the shared data, reachable as $DATA
//! % root 3.19.4                   starts with what apk made: an archive of data/minirootfs
//! % write etc/x some text         appends a line to a file of the root
//! % remove PATH | mkdir PATH | link PATH TARGET | mode PATH OCTAL
//! % cut PATH BYTES                keeps that many bytes of a file
//! % inside PATH                   puts the program and a shell there; the root is `/` to them
//! % outside                       ends that
//! $ -X $FIXTURES/v1 add demo-base the program, on the root of the case
//! standard output
//! 2> standard error
//! [0]                             the exit code
//! $- …                            the same, but standard error is not told: a difference on purpose
//! % cat PATH                      a file of the root
//! % tree                          every path: kind, mode, owner, content
//! ```
//!
//! `APK_PEER=/path/to/apk cargo test --test it agreement` runs that apk instead and writes its answers
//! into the cases, so a case is recorded, never written by hand. Differences on purpose are not
//! here: they have tests of their own, and a place in the README.

use crate::support::{self, Sandbox};
use std::cell::RefCell;
use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

#[test]
fn every_case_gives_apks_answers() {
    if !support::is_root() {
        return;
    }
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/agreement");
    let mut paths: Vec<PathBuf> = fs::read_dir(folder)
        .expect("the folder of cases")
        .map(|entry| entry.expect("a readable folder").path())
        .collect();
    paths.sort();
    assert!(!paths.is_empty(), "no cases");
    let peer = std::env::var_os("APK_PEER").map(PathBuf::from);
    let mut failures = Vec::new();
    for path in paths {
        let text = fs::read_to_string(&path).expect("a case");
        let Some(found) = Case::new(peer.as_deref(), &text).map(|case| case.replay(&text)) else {
            continue;
        };
        if peer.is_some() {
            fs::write(&path, found).expect("a case can be written");
        } else if found != text {
            failures.push(format!(
                "=== {}\n{}",
                path.display(),
                lines_that_differ(&text, &found)
            ));
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

struct Case<'a> {
    sandbox: Sandbox,
    peer: Option<&'a Path>,
    data: Option<PathBuf>,
    /// Files of the case that are younger are not told by their time.
    started: i64,
    /// Where the program is in the root that it takes for the system's.
    inside: RefCell<Option<String>>,
}

impl<'a> Case<'a> {
    /// Returns `None` if the data that the case needs is not here.
    fn new(peer: Option<&'a Path>, text: &str) -> Option<Self> {
        let needs = text.lines().find_map(|line| line.strip_prefix("% needs "));
        let data = match needs {
            Some(needs) => {
                support::data(needs)?;
                support::data("")
            }
            None => None,
        };
        Some(Self {
            sandbox: Sandbox::new(),
            peer,
            data,
            started: 1_750_000_000,
            inside: RefCell::default(),
        })
    }

    /// Runs every step and returns the case with the answers that came.
    fn replay(&self, text: &str) -> String {
        let mut out = String::new();
        let mut head = true;
        for line in text.lines() {
            head &= line.starts_with('#');
            if head {
                let _ = writeln!(out, "{line}");
            } else if let Some(words) = line.strip_prefix("$ ") {
                let _ = writeln!(out, "{line}");
                out += &self.run(words);
            } else if let Some(words) = line.strip_prefix("$- ") {
                let _ = writeln!(out, "{line}");
                let answer = self.run(words);
                let told = answer.lines().filter(|line| !line.starts_with("2> "));
                out.extend(told.flat_map(|line| [line, "\n"]));
            } else if let Some(step) = line.strip_prefix("% ") {
                let _ = writeln!(out, "{line}");
                out += &self.step(step);
            }
        }
        out
    }

    fn run(&self, words: &str) -> String {
        let inside = self.inside.borrow();
        let mut command = match (inside.as_deref(), self.peer) {
            (Some(path), _) => self.chroot(path),
            (None, Some(peer)) => Command::new(peer),
            (None, None) => self.sandbox.ibex(),
        };
        if inside.is_none() && self.peer.is_some() {
            command
                .env_clear()
                .env("APK_CONFIG", "/dev/null")
                .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
                .arg("--root")
                .arg(self.sandbox.root());
        }
        command.current_dir(self.sandbox.beside(""));
        command.args(["--arch", "x86_64"]);
        if self.data.is_none() {
            let keys = match inside.is_some() {
                true => Path::new(INSIDE).join("keys"),
                false => fixtures().join("keys"),
            };
            command.arg("--keys-dir").arg(keys);
        }
        command.arg("--no-network");
        if self.data.is_none() {
            // The scripts of the fixtures need a shell, and only leave a line below the root.
            command.arg("--force-no-chroot");
        }
        command.args(split(words).iter().map(|word| self.fill(word)));
        let run = command.stdin(Stdio::null()).output().expect("it starts");
        let mut answer = String::new();
        for (prefix, bytes) in [("", &run.stdout), ("2> ", &run.stderr)] {
            let text = self.hide(&String::from_utf8_lossy(bytes));
            for line in text.lines() {
                let _ = writeln!(answer, "{prefix}{line}");
            }
            if !text.is_empty() && !text.ends_with('\n') {
                answer += "\\\n";
            }
        }
        let _ = writeln!(answer, "[{}]", run.status.code().unwrap_or(-1));
        answer
    }

    /// Starts the program in the root, with the libraries that it is linked to and the fixtures.
    fn chroot(&self, program: &str) -> Command {
        // The mounts are seen by this process alone; the places for them stay.
        const SCRIPT: &str = "root=$1; fixtures=$2; program=$3; shift 3; \
            bind() { mkdir -p \"$2\" && mount --bind \"$1\" \"$2\" || exit 125; }; \
            for d in proc lib64 lib/x86_64-linux-gnu; do bind \"/$d\" \"$root/$d\"; done; \
            bind \"$fixtures\" \"$root$INSIDE\"; unset INSIDE; \
            exec chroot \"$root\" \"$program\" \"$@\"";
        let mut command = Command::new("unshare");
        command
            .env_clear()
            .env("INSIDE", INSIDE)
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .args(["--mount", "sh", "-c", SCRIPT, "sh"])
            .args([&self.sandbox.root(), &fixtures()])
            .arg(Path::new("/").join(program));
        command
    }

    fn step(&self, step: &str) -> String {
        let mut words = step.splitn(3, ' ');
        let (verb, path) = (
            words.next().unwrap_or_default(),
            words.next().unwrap_or_default(),
        );
        let rest = words.next().unwrap_or_default();
        let full = self.sandbox.root().join(path);
        match verb {
            "needs" => {}
            "root" => {
                let data = self.data.as_ref().expect("a case that needs data");
                let archive = format!("minirootfs/alpine-minirootfs-{path}-x86_64.tar.gz");
                let mut tar = Command::new("tar");
                tar.args(["-x", "-z", "--numeric-owner", "-p", "-f"]);
                support::run(
                    tar.arg(data.join(archive))
                        .arg("-C")
                        .arg(self.sandbox.root()),
                )
                .success();
                self.sandbox
                    .trust(&["index/keys", "alpine-branches/keys"])
                    .expect("it is here");
            }
            "write" => {
                let mut text = self.sandbox.read(path);
                text += &self.fill(rest);
                self.sandbox.write(path, text + "\n");
            }
            "inside" => {
                let ours = Path::new(env!("CARGO_BIN_EXE_ibex"));
                let mut copy = Command::new("cp");
                copy.arg(self.peer.unwrap_or(ours)).arg(full);
                support::run(&mut copy).success();
                // Scripts are run here, too.
                self.sandbox.write("bin/sh", "");
                let mut copy = Command::new("cp");
                let shell = self.sandbox.root().join("bin/sh");
                copy.args(["--preserve=mode", "/bin/sh"]).arg(shell);
                support::run(&mut copy).success();
                *self.inside.borrow_mut() = Some(path.to_owned());
            }
            "outside" => *self.inside.borrow_mut() = None,
            "cut" => {
                let file = fs::OpenOptions::new().write(true).open(full);
                let length = rest.parse().expect("a length");
                file.and_then(|file| file.set_len(length))
                    .expect("a file to cut");
            }
            "remove" => fs::remove_file(full).expect("a file to remove"),
            "mkdir" => fs::create_dir_all(full).expect("a writable root"),
            "link" => std::os::unix::fs::symlink(rest, full).expect("a writable root"),
            "mode" => {
                let mode = u32::from_str_radix(rest, 8).expect("an octal mode");
                fs::set_permissions(full, fs::Permissions::from_mode(mode)).expect("a file");
            }
            "cat" => {
                let text = self.hide(&self.sandbox.read(path));
                return match text.ends_with('\n') || text.is_empty() {
                    true => text,
                    false => text + "\\\n",
                };
            }
            "tree" => {
                let tree = support::tree(&self.sandbox.root(), self.started);
                // What carries the program's own name or time, and what `cat` shows line by line.
                let own = |path: &str| path == "var/log/apk.log" || path.starts_with("lib/apk/db/");
                let rows = tree.iter().filter(|(path, _)| !own(path));
                let row = |(path, row)| {
                    let attributes = attributes(&self.sandbox.root().join(path));
                    format!("{path}\t{row}{attributes}\n")
                };
                return rows.map(row).collect();
            }
            other => panic!("no such step: {other}"),
        }
        String::new()
    }

    fn places(&self) -> Vec<(&'static str, String)> {
        let text = |path: PathBuf| path.display().to_string();
        let repositories = match self.inside.borrow().is_some() {
            true => Path::new(INSIDE).join("repositories"),
            false => fixtures().join("repositories"),
        };
        let mut places = vec![
            ("$ROOT", text(self.sandbox.root())),
            ("$FIXTURES", text(repositories)),
        ];
        if let Some(data) = &self.data {
            places.push(("$DATA", text(data.clone())));
        }
        places
    }

    fn fill(&self, text: &str) -> String {
        let places = self.places().into_iter();
        places.fold(text.to_owned(), |text, (word, path)| {
            text.replace(word, &path)
        })
    }

    fn hide(&self, text: &str) -> String {
        let places = self.places().into_iter();
        places.fold(text.to_owned(), |text, (word, path)| {
            text.replace(&path, word)
        })
    }
}

/// The extended attributes of a file that people set, as one more column.
fn attributes(path: &Path) -> String {
    let mut names = [0; 4096];
    let length = rustix::fs::llistxattr(path, &mut names).unwrap_or(0);
    let names = names[..length].split(|byte| *byte == 0);
    let mut column = String::new();
    for name in names.filter(|name| name.starts_with(b"user.")) {
        let mut value = [0; 4096];
        let length = rustix::fs::lgetxattr(path, name, &mut value).expect("it was listed");
        let value = String::from_utf8_lossy(&value[..length]).into_owned();
        let _ = write!(column, "\t{}={value}", String::from_utf8_lossy(name));
    }
    column
}

/// Where the fixtures are in a root that is `/` to the program.
const INSIDE: &str = "/srv/fixtures";

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures")
}

/// Splits at blanks outside of single quotes.
fn split(line: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let (mut quoted, mut any) = (false, false);
    for letter in line.chars() {
        match letter {
            '\'' => (quoted, any) = (!quoted, true),
            ' ' if !quoted => {
                if any {
                    words.push(String::new());
                }
                any = false;
            }
            letter => {
                words.last_mut().expect("never empty").push(letter);
                any = true;
            }
        }
    }
    words
}

fn lines_that_differ(wanted: &str, found: &str) -> String {
    let mut command = "";
    let pairs = wanted.lines().zip(found.lines());
    for (at, (a, b)) in pairs.enumerate() {
        if a.starts_with(['$', '%']) {
            command = a;
        }
        if a != b {
            let rest: Vec<&str> = found.lines().skip(at).take(12).collect();
            let wanted: Vec<&str> = wanted.lines().skip(at).take(12).collect();
            return format!(
                "line {}, after `{command}`\n--- wanted\n{}\n--- found\n{}\n",
                at + 1,
                wanted.join("\n"),
                rest.join("\n")
            );
        }
    }
    format!(
        "{} lines wanted, {} found",
        wanted.lines().count(),
        found.lines().count()
    )
}
