//! The same description is the same image: whoever builds, wherever, whenever, with how many cores,
//! from whatever is in the cache; and `image verify` names the first thing that is not.

use super::image_build::walk;
use super::image_packages::{Desk, Said, Server, copy, description, said};
use super::support::repository::{Repository, directory, file, package};
use super::support::{self, Sandbox, data};
use ibex::package::ScriptKind;
use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::Command;

const KEY: &str = "alpine-devel@lists.alpinelinux.org-6165ee59.rsa.pub";

/// Somebody who owns nothing here.
const NOBODY: u32 = 65534;

/// One way to build.
#[derive(Clone, Copy)]
struct Way {
    name: &'static str,
    /// Words that the command stands behind.
    before: &'static [&'static str],
    variables: &'static [(&'static str, &'static str)],
    /// The name of a cache; an empty one is new.
    cache: &'static str,
    nobody: bool,
}

const WAYS: [Way; 9] = [
    Way {
        name: "cold",
        before: &[],
        variables: &[],
        cache: "",
        nobody: false,
    },
    Way {
        name: "first of two",
        before: &[],
        variables: &[],
        cache: "kept",
        nobody: false,
    },
    Way {
        name: "warm",
        before: &[],
        variables: &[],
        cache: "kept",
        nobody: false,
    },
    Way {
        name: "one core",
        before: &["taskset", "-c", "0"],
        variables: &[],
        cache: "",
        nobody: false,
    },
    Way {
        name: "umask 077",
        before: &["sh", "-c", "umask 077; exec \"$@\"", "sh"],
        variables: &[],
        cache: "",
        nobody: false,
    },
    Way {
        name: "umask 000",
        before: &["sh", "-c", "umask 000; exec \"$@\"", "sh"],
        variables: &[],
        cache: "",
        nobody: false,
    },
    Way {
        name: "elsewhere in the world",
        before: &[],
        variables: &[
            ("LC_ALL", "tr_TR.UTF-8"),
            ("LANG", "tr_TR.UTF-8"),
            ("TZ", "Pacific/Kiritimati"),
            ("HOSTNAME", "elsewhere"),
            ("USER", "somebody"),
        ],
        cache: "",
        nobody: false,
    },
    Way {
        name: "nobody",
        before: &[],
        variables: &[],
        cache: "",
        nobody: true,
    },
    Way {
        name: "nobody, warm, one core",
        before: &["taskset", "-c", "0"],
        variables: &[("TZ", "America/Los_Angeles")],
        cache: "nobody",
        nobody: true,
    },
];

fn open(path: &Path) {
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).expect("a mode");
}

/// A folder that everybody may enter, with the program, a mirror and a description.
struct Place {
    folder: tempfile::TempDir,
    program: PathBuf,
    _server: Server,
    address: String,
}

impl Place {
    fn new() -> Option<Self> {
        let repository = data("alpine-v3.19")?;
        let folder = tempfile::tempdir().expect("a temporary directory");
        open(folder.path());
        let program = folder.path().join("ibex");
        fs::copy(support::ibex().get_program(), &program).expect("a copy");
        open(&program);
        let web = folder.path().join("web");
        copy(&repository.join("x86_64"), &web.join("main/x86_64"));
        fs::copy(repository.join("keys").join(KEY), folder.path().join(KEY)).expect("a copy");
        let server = Server::start(web);
        Some(Self {
            address: format!("{}/main", server.address),
            program,
            folder,
            _server: server,
        })
    }

    /// Makes a folder to build in, each time another one.
    fn desk(&self, name: &str, nobody: bool) -> PathBuf {
        let path = self.folder.path().join(name.replace([' ', ','], "-"));
        fs::create_dir(&path).expect("a new folder");
        let text = format!(
            "contents:\n  keyring: ['{}']\n  repositories: ['{}']\n  packages: [alpine-base, openssh, tzdata]\n\
             archs: [amd64]\nlayering: {{strategy: origin, budget: 3}}\n\
             accounts:\n  users: [{{username: web, uid: 10000}}]\n  run-as: web\n\
             paths: [{{path: /srv/x, type: directory, uid: 10000, permissions: 0o750}}]\n",
            self.folder.path().join(KEY).display(),
            self.address
        );
        fs::write(path.join("a.yaml"), text).expect("a file");
        if nobody {
            for path in [path.join("a.yaml"), path.clone()] {
                chown(path, Some(NOBODY), Some(NOBODY)).expect("another owner");
            }
        }
        path
    }

    fn command(&self, way: &Way, desk: &Path, words: &[&str]) -> Command {
        use std::os::unix::process::CommandExt;
        let program = self.program.display().to_string();
        let mut all: Vec<&str> = way.before.to_vec();
        all.extend([program.as_str(), "image"]);
        all.extend(words);
        let mut command = Command::new(all[0]);
        let cache = match way.cache {
            "" => desk.join("cache"),
            // It belongs to who made it first.
            name => self.folder.path().join(format!("cache of {name}")),
        };
        command
            .args(&all[1..])
            .current_dir(desk)
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOME", desk)
            .env("IBEX_CACHE_DIR", cache)
            .envs(way.variables.iter().copied());
        if way.nobody {
            command.uid(NOBODY).gid(NOBODY);
        }
        command
    }

    fn build(&self, way: &Way, desk: &Path) -> Said {
        said(&mut self.command(way, desk, &["build", "a.yaml", "web:1", "out/"]))
    }
}

#[test]
fn who_where_when_and_how_make_no_difference() {
    let Some(place) = Place::new() else { return };
    let root = rustix::process::geteuid().is_root();
    let shared = place.folder.path().join("cache of nobody");
    fs::create_dir(&shared).expect("a new folder");
    if root {
        chown(&shared, Some(NOBODY), Some(NOBODY)).expect("another owner");
    }
    let mut first: Option<(String, Vec<u8>)> = None;
    for way in WAYS {
        if way.nobody && !root {
            eprintln!("skipped: only root can build as somebody else");
            continue;
        }
        let desk = place.desk(way.name, way.nobody);
        let line = place.build(&way, &desk).good();
        let index = fs::read(desk.join("out/index.json")).expect("an index");
        let bill = fs::read(desk.join("out/sbom-x86_64.spdx.json")).expect("a bill");
        let all = [index, bill].concat();
        match &first {
            None => first = Some((line, all)),
            Some((known, bytes)) => {
                assert_eq!(&line, known, "{}", way.name);
                assert!(*bytes == all, "{}: index or bill differ", way.name);
            }
        }
    }
}

#[test]
fn verify_names_the_first_difference() {
    let desk = Desk::empty();
    let Some(repository) = data("alpine-v3.19") else {
        return;
    };
    let describe = |packages: &str, more: &str| {
        desk.write(
            "a.yaml",
            &format!(
                "contents:\n  keyring: ['{}']\n  repositories: ['{}']\n  packages: [{packages}]\narchs: [amd64]\n{more}",
                repository.join("keys").join(KEY).display(),
                repository.display()
            ),
        );
        desk.run(&["lock", "a.yaml"]).good();
    };
    describe("busybox, alpine-baselayout", "");
    let line = desk
        .run(&["build", "--locked", "a.yaml", "a:1", "out/"])
        .good();
    desk.run(&["build", "--locked", "a.yaml", "a:1", "out.tar"])
        .good();
    let verify = |image: &str| desk.run(&["verify", "a.yaml", "a.lock.json", image]);
    let same = verify("out").good();
    assert!(
        same.starts_with("amd64 sha256:") && same.ends_with(": the same\n"),
        "{same}"
    );
    assert!(verify("out.tar").good().ends_with(": the same\n"));
    let json = desk
        .run(&["verify", "--json", "a.yaml", "a.lock.json", "out"])
        .good();
    assert!(
        json.contains(line.trim().rsplit('@').next().expect("a digest")),
        "{json}"
    );
    // Each time one thing is different: a path, a mode, an owner, a variable, a package.
    let place = desk.path();
    for (packages, more, wanted) in [
        (
            "busybox, alpine-baselayout",
            "paths: [{path: /srv/new, type: directory}]\n",
            "srv/new",
        ),
        (
            "busybox, alpine-baselayout",
            "paths: [{path: /bin/busybox, type: permissions, permissions: 0o700}]\n",
            "bin/busybox",
        ),
        (
            "busybox, alpine-baselayout",
            "paths: [{path: /etc/fstab, type: permissions, uid: 7, permissions: 0o644}]\n",
            "etc/fstab",
        ),
        ("busybox, alpine-baselayout", "environment: {A: b}\n", "A=b"),
        ("busybox, alpine-baselayout, tzdata", "", "tzdata"),
    ] {
        describe(packages, more);
        let said = verify("out");
        assert_eq!(said.code, 3, "{}", said.err);
        let first = said
            .err
            .lines()
            .find(|line| line.starts_with("error["))
            .expect("an error");
        let start = format!(
            "error[E-DIFFERS]: {}/out is not what a.lock.json gives: ",
            place.display()
        );
        assert!(first.starts_with(&start), "{first}");
        assert!(said.err.contains(wanted), "{wanted}: {}", said.err);
    }
}

#[test]
fn builds_that_are_killed_leave_nothing_wrong() {
    use std::time::{Duration, Instant};
    let desk = Desk::empty();
    let Some(repository) = data("alpine-v3.19") else {
        return;
    };
    desk.write(
        "a.yaml",
        &format!(
            "contents:\n  keyring: ['{}']\n  repositories: ['{}']\n  packages: [alpine-base, openssh]\narchs: [amd64]\n",
            repository.join("keys").join(KEY).display(),
            repository.display()
        ),
    );
    let words = ["build", "a.yaml", "a:1", "out/", "-q"];
    let begun = Instant::now();
    let wanted = desk.run(&words).good();
    let whole = begun.elapsed();
    fs::remove_dir_all(desk.path().join("out")).expect("it was made");
    fs::remove_dir_all(desk.cache()).expect("it was made");
    // Killed at every twelfth of the time that a whole build takes, each time with what the one
    // before left.
    for part in 0..12 {
        let mut command = desk.command(&words);
        let quiet = || std::process::Stdio::null();
        let mut child = command
            .stdout(quiet())
            .stderr(quiet())
            .spawn()
            .expect("it runs");
        let until = Instant::now() + whole.mul_f64(f64::from(part) / 12.0);
        while Instant::now() < until && child.try_wait().expect("it is ours").is_none() {
            std::thread::sleep(Duration::from_millis(2));
        }
        child.kill().expect("it is ours");
        child.wait().expect("it ends");
        let out = desk.path().join("out");
        if out.join("index.json").exists() {
            // Whatever is under the name is whole.
            ibex::image::read::read(&out).expect("an image");
        }
    }
    let checked = desk.run(&["cache", "verify"]).good();
    assert!(checked.ends_with(" 0 damaged\n"), "{checked}");
    assert_eq!(desk.run(&words).good(), wanted);
    ibex::image::read::read(&desk.path().join("out")).expect("an image");
}

#[test]
fn whatever_is_killed_at_any_moment_leaves_whole_files_or_none() {
    use std::collections::BTreeMap;
    use std::time::{Duration, Instant};
    let desk = Desk::empty();
    let packages = [
        package("one", "1-r0", vec![directory("etc"), file("etc/one", "1")])
            .script(ScriptKind::PreInstall, "adduser -S -D -H one"),
        package(
            "two",
            "1-r0",
            vec![directory("etc"), file("etc/two", vec![7; 300_000])],
        ),
    ];
    let sandbox = Sandbox::new();
    let mut repository = Repository::new(&sandbox);
    packages.iter().for_each(|made| repository.add(made));
    repository.publish(1);
    let server = Server::start(repository.path().to_owned());
    let key = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/tests/fixtures/test-only.rsa.pub"
    );
    let text = description(&server.address, Path::new(key), "one, two");
    desk.write(
        "a.yaml",
        &(text + "layering: {strategy: origin, budget: 2}\n"),
    );
    let commands: [&[&str]; 4] = [
        &["build", "a.yaml", "a:1", "out/", "-q"],
        &["build", "a.yaml", "a:1", "made/out.tar", "-q"],
        &["lock", "a.yaml", "-q"],
        &["fetch", "a.yaml", "--to", "kept"],
    ];
    // Everything that a command leaves under a name that somebody else may look at.
    let left = || -> BTreeMap<PathBuf, Vec<u8>> {
        let named = walk(&desk.path()).into_iter().filter(|path| {
            let name = path
                .file_name()
                .expect("a name")
                .to_string_lossy()
                .into_owned();
            !name.starts_with(".new.") && !name.contains(".tmp.")
        });
        named
            .map(|path| (path.clone(), fs::read(path).expect("a file")))
            .collect()
    };
    let clear = || {
        for name in ["out", "made", "kept"] {
            let _ = fs::remove_dir_all(desk.path().join(name));
        }
        let _ = fs::remove_file(desk.path().join("a.lock.json"));
        fs::create_dir(desk.path().join("made")).expect("a new directory");
    };
    clear();
    let mut times = Vec::new();
    for words in commands {
        let begun = Instant::now();
        desk.run(words).good();
        times.push(begun.elapsed());
    }
    let wanted = left();
    let _ = fs::remove_dir_all(desk.cache());
    // A few hundred times, at moments that are spread over all that a command does: what the ones
    // before left is sometimes there, and sometimes not.
    let mut random = 1_u32;
    for turn in 0..240 {
        random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let share = f64::from(random >> 8) / f64::from(1 << 24);
        let kind = turn % commands.len();
        if turn % 9 < 4 {
            clear();
        }
        if turn % 17 == 0 {
            let _ = fs::remove_dir_all(desk.cache());
        }
        let quiet = std::process::Stdio::null;
        let mut command = desk.command(commands[kind]);
        let mut child = command
            .stdout(quiet())
            .stderr(quiet())
            .spawn()
            .expect("it runs");
        let until = Instant::now() + times[kind].mul_f64(share * 1.1);
        while Instant::now() < until && child.try_wait().expect("it is ours").is_none() {
            std::thread::sleep(Duration::from_micros(300));
        }
        child.kill().expect("it is ours");
        child.wait().expect("it ends");
        for (path, content) in left() {
            let whole = wanted.get(&path).is_some_and(|wanted| *wanted == content);
            assert!(whole, "turn {turn}: {} is not whole", path.display());
        }
        // An entry of a layout is there only with all that it names.
        let out = desk.path().join("out");
        if out.join("index.json").exists() {
            ibex::image::read::read(&out).expect("an image");
        }
    }
    let checked = desk.run(&["cache", "verify"]).good();
    assert!(checked.ends_with(" 0 damaged\n"), "{checked}");
    clear();
    commands
        .iter()
        .for_each(|words| drop(desk.run(words).good()));
    assert!(left() == wanted, "what was left over makes a difference");
}

#[test]
fn a_signal_leaves_no_temporary_files() {
    use std::os::unix::process::ExitStatusExt;
    use std::time::{Duration, Instant};
    let Some(desk) = Desk::empty_with_alpine("busybox, tzdata") else {
        return;
    };
    let temporary = desk.path().join("temporary");
    fs::create_dir(&temporary).expect("a new directory");
    let words = ["build", "a.yaml", "a:1", "out/", "-q"];
    let begun = Instant::now();
    desk.run(&words).good();
    let whole = begun.elapsed();
    let mut stopped = 0;
    for turn in 0..9 {
        for folder in [desk.cache(), desk.path().join("out")] {
            let _ = fs::remove_dir_all(folder);
        }
        let mut command = desk.command(&words);
        command.env("TMPDIR", &temporary);
        let quiet = std::process::Stdio::null;
        let mut child = command
            .stdout(quiet())
            .stderr(quiet())
            .spawn()
            .expect("it runs");
        std::thread::sleep(
            whole
                .mul_f64(f64::from(turn + 1) / 10.0)
                .max(Duration::from_millis(20)),
        );
        let (signal, name) = [(2, "INT"), (15, "TERM"), (1, "HUP")][turn as usize % 3];
        let mut kill = Command::new("kill");
        kill.arg(format!("-{name}")).arg(child.id().to_string());
        let _ = said(&mut kill);
        let status = child.wait().expect("it ends");
        // Whoever waits sees that it was the signal; a shell says 130.
        assert!(
            status.success() || status.signal() == Some(signal),
            "{status}"
        );
        stopped += u32::from(status.signal() == Some(signal));
        let left: Vec<PathBuf> = [desk.cache(), desk.path()]
            .iter()
            .flat_map(|folder| walk(folder))
            .collect();
        let passing = left.iter().filter(|path| {
            let name = path
                .file_name()
                .expect("a name")
                .to_string_lossy()
                .into_owned();
            path.starts_with(&temporary) || name.starts_with(".new.") || name.contains(".tmp")
        });
        assert_eq!(passing.collect::<Vec<_>>(), [""; 0], "turn {turn}");
        assert_eq!(
            fs::read_dir(&temporary).expect("a folder").count(),
            0,
            "turn {turn}"
        );
    }
    assert!(stopped > 3, "{stopped}");
    // What is ignored stays ignored, as under nohup.
    let command = desk.command(&words);
    let mut ignoring = Command::new("sh");
    ignoring.args(["-c", "trap '' HUP; \"$@\" & kill -HUP $!; wait $!", "sh"]);
    ignoring.arg(command.get_program()).args(command.get_args());
    ignoring
        .current_dir(desk.path())
        .env("IBEX_CACHE_DIR", desk.cache());
    said(&mut ignoring).good();
}

#[test]
fn what_was_fetched_is_enough_without_a_network() {
    let Some(place) = Place::new() else { return };
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: only root can take the network away");
        return;
    }
    let way = Way {
        cache: "kept",
        ..WAYS[0]
    };
    let desk = place.desk("fetched", false);
    said(&mut place.command(&way, &desk, &["fetch", "a.yaml"])).good();
    let online = place.build(&way, &desk).good();
    // No interface at all: not even one to this machine.
    let alone = Way {
        before: &["unshare", "--net"],
        ..way
    };
    let words = ["build", "--offline", "a.yaml", "web:1", "alone/"];
    let offline = said(&mut place.command(&alone, &desk, &words)).good();
    assert_eq!(offline, online);
    // Without it having been fetched, all that is missing is told at once.
    let empty = Way { cache: "", ..alone };
    let missing = said(&mut place.command(&empty, &desk, &words));
    missing.error(
        1,
        "error[E-OFFLINE-MISS]: offline: 1 file is not in the cache",
    );
}
