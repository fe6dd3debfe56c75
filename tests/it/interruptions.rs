//! What disturbs a change from outside: signals, scripts that kill, other programs, full, read-only
//! and vanishing disks, a clock that jumps.

use crate::support::repository::{self, Made, Repository, directory, file};
use crate::support::{self, Run, Sandbox, run};
use ibex::format::package_writer::EntrySpec;
use ibex::package::ScriptKind;
use ibex::root::Root;
use ibex::transaction::DatabaseText;
use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

fn package(name: &str, entries: Vec<EntrySpec>) -> Made {
    repository::package(name, "1", entries).with(|p| p.arch = Some("x86_64".into()))
}

fn plain(name: &str) -> Made {
    let text = format!("of {name}");
    package(
        name,
        vec![directory("opt"), file(&format!("opt/{name}"), text)],
    )
}

/// A root with an empty database, and a repository.
struct Case {
    sandbox: Sandbox,
    options: Vec<String>,
}

impl Case {
    fn new(packages: &[Made]) -> Option<Self> {
        if !support::is_root() {
            return None;
        }
        let sandbox = Sandbox::new();
        let mut repository = Repository::new(&sandbox);
        packages.iter().for_each(|made| repository.add(made));
        repository.publish(1_700_000_000);
        let path = repository.path().display().to_string();
        let words = [
            "--arch",
            "x86_64",
            "--force-no-chroot",
            "--no-cache",
            "-X",
            &path,
        ];
        let options = words.iter().map(|word| (*word).to_owned()).collect();
        let case = Self { sandbox, options };
        case.run(&["--initdb", "add"]).success();
        Some(case)
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = self.sandbox.ibex();
        command.args(&self.options).args(words);
        command
    }

    fn run(&self, words: &[&str]) -> Run {
        run(&mut self.command(words))
    }

    /// Starts a command and waits until its script has begun.
    fn start(&self, words: &[&str]) -> Child {
        let mut command = self.command(words);
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let child = command.spawn().expect("the program starts");
        wait_for(&self.sandbox.root().join("begun"));
        child
    }

    fn go_on(&self, mut child: Child) {
        self.sandbox.write("go", "");
        let status = child.wait().expect("it was started");
        assert!(status.success(), "{status}");
    }

    fn installed(&self) -> String {
        self.sandbox.read("lib/apk/db/installed")
    }
}

fn wait_for(path: &Path) {
    let end = Instant::now() + Duration::from_secs(60);
    while !path.exists() {
        assert!(Instant::now() < end, "{} does not come", path.display());
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A script that waits for the test.
const WAITING: &str = "touch begun; n=0; while [ ! -e go ] && [ $n -lt 3000 ]; do sleep 0.02; \
                       n=$((n + 1)); done";

#[test]
fn a_script_that_is_cut_off_is_told_and_run_again_by_fix() {
    let cut = plain("cut")
        .script(
            ScriptKind::PostInstall,
            "echo \"begun $@\" >> ran; [ -e killed ] && exit; touch killed; kill -9 $PPID",
        )
        .script(ScriptKind::PostUpgrade, "echo again >> ran");
    let Some(case) = Case::new(&[cut, plain("other")]) else {
        return;
    };
    assert_eq!(case.run(&["add", "cut", "other"]).code, 137);

    let warning = "WARNING: a transaction was interrupted and is not finished: `ibex recover` \
                   finishes it\n";
    let question = case.run(&["list", "--installed"]).success();
    assert_eq!(question.output, warning, "the old state is shown");
    let simulated = case.run(&["recover", "--simulate"]).success();
    assert_eq!(
        simulated.output,
        "1 of 2 steps of a transaction are done:\n(1/2) Installing cut (1)\n\
         (2/2) Installing other (1)\n"
    );
    let simulated = case.run(&["recover", "--simulate", "--json"]).success();
    let report: serde_json::Value = serde_json::from_str(&simulated.output).expect("JSON");
    assert_eq!(
        (&report["state"], &report["done_before"]),
        (&"due".into(), &1.into())
    );
    assert_eq!(report["cut_scripts"][0]["script"], "cut-1.post-install");

    let recovered = case.run(&["recover"]);
    let told = "ERROR: cut-1.post-install: cut off by the interruption and not run again; \
                `ibex fix cut` runs it\n";
    assert_eq!(
        recovered.output,
        format!(
            "{told}(2/2) Installing other (1)\n1 error; the interrupted transaction is finished\n"
        )
    );
    assert_eq!(recovered.code, 1);
    assert_eq!(case.sandbox.read("ran"), "begun 1\n");
    let remembered = "lib/apk/db/cut-scripts";
    assert_eq!(case.sandbox.read(remembered), "cut post-install 1\n");
    assert!(case.installed().contains("f:s"), "{}", case.installed());
    assert_eq!(
        case.run(&["list", "--installed", "-q"])
            .output
            .lines()
            .count(),
        2
    );

    // The script that was cut off, not that of an upgrade from the version to itself.
    case.run(&["fix", "cut"]).success();
    assert_eq!(case.sandbox.read("ran"), "begun 1\nbegun 1\n");
    assert!(!case.installed().contains("f:s"));
    assert!(!case.sandbox.root().join(remembered).exists());
    case.run(&["fix", "-r", "cut"]).success();
    assert_eq!(case.sandbox.read("ran"), "begun 1\nbegun 1\nagain\n");
}

/// A script that is cut off the first time, and says each time that it began.
const CUT_ONCE: &str =
    "echo \"$APK_SCRIPT $@\" >> ran; [ -e killed ] && exit; touch killed; kill -9 $PPID";

#[test]
fn fix_runs_what_was_cut_off_and_nothing_else_with_a_package_and_without() {
    for with_package in [true, false] {
        for (kind, words) in [
            (ScriptKind::PreInstall, "pre-install 1"),
            (ScriptKind::PostInstall, "post-install 1"),
            (ScriptKind::Trigger, "trigger /opt"),
        ] {
            let mut cut = plain("cut")
                .script(ScriptKind::PreInstall, "echo \"$APK_SCRIPT $@\" >> other")
                .script(ScriptKind::PostInstall, "echo \"$APK_SCRIPT $@\" >> other")
                .script(kind, CUT_ONCE);
            if kind == ScriptKind::Trigger {
                cut = cut.with(|package| package.triggers = vec!["/opt".to_owned()]);
            }
            let Some(case) = Case::new(&[cut]) else {
                return;
            };
            assert_eq!(case.run(&["add", "cut"]).code, 137);
            assert_eq!(case.run(&["recover"]).code, 1);
            let remembered = case.sandbox.read("lib/apk/db/cut-scripts");
            assert_eq!(remembered, format!("cut {} 1\n", kind.name()));
            let other = case.sandbox.read("other");
            let run = match with_package {
                true => case.run(&["fix", "cut"]),
                false => case
                    .sandbox
                    .run(["--force-no-chroot", "--no-network", "fix", "cut"]),
            };
            run.success();
            assert_eq!(case.sandbox.read("ran"), format!("{words}\n{words}\n"));
            let again = match kind {
                ScriptKind::Trigger if with_package => case.sandbox.read("other"),
                _ => other,
            };
            assert_eq!(case.sandbox.read("other"), again);
            assert!(!case.installed().contains("f:s"), "{}", case.installed());
            assert!(!case.sandbox.root().join("lib/apk/db/cut-scripts").exists());
        }
    }
}

#[test]
fn the_next_command_that_writes_finishes_first() {
    let cut = plain("cut").script(ScriptKind::PreInstall, "kill -9 $PPID");
    let Some(case) = Case::new(&[cut, plain("other")]) else {
        return;
    };
    assert_eq!(case.run(&["add", "cut"]).code, 137);
    let next = case.run(&["add", "other"]);
    let begins = "A transaction was interrupted; it is finished first:\n\
                  (1/1) Installing cut (1)\n\
                  ERROR: cut-1.pre-install: cut off";
    assert!(next.output.contains(begins), "{}", next.output);
    let goes_on = "The interrupted transaction is finished.\n(1/1) Installing other (1)\n";
    assert!(next.output.contains(goes_on), "{}", next.output);
    assert_eq!(case.sandbox.read("etc/apk/world"), "cut\nother\n");
    assert_eq!(case.sandbox.read("opt/cut"), "of cut");
    assert_eq!(case.sandbox.read("opt/other"), "of other");
}

#[test]
fn another_program_may_have_changed_the_database_meanwhile() {
    let cut = plain("cut").script(ScriptKind::PreInstall, "kill -9 $PPID");
    let Some(case) = Case::new(&[cut, plain("other")]) else {
        return;
    };
    assert_eq!(case.run(&["add", "cut"]).code, 137);
    let theirs = "C:Q1AAAAAAAAAAAAAAAAAAAAAAAAAAA=\nP:theirs\nV:1\nS:1\nI:1\nT:\nU:\nL:\n\n";
    case.sandbox.write("lib/apk/db/installed", theirs);
    case.sandbox.write("etc/apk/world", "theirs\n");
    let recovered = case.run(&["recover"]);
    assert_eq!(
        (recovered.output.as_str(), recovered.code),
        (
            "WARNING: another program changed the database after a transaction was interrupted; \
             the rest of the transaction was dropped; `ibex fix cut` makes its packages whole\n",
            1
        )
    );
    assert_eq!(case.installed(), theirs);
    assert_eq!(
        case.run(&["recover"]).success().output,
        "OK: nothing to recover\n"
    );
}

#[test]
fn leftovers_of_stopped_programs_are_removed() {
    let Some(case) = Case::new(&[plain("some")]) else {
        return;
    };
    case.run(&["add", "some"]).success();
    let gone = [
        "opt/.apk.d7661d1e0906f0a483c5fb83f5be65ce714987255778d3cf",
        "etc/apk/world.tmp.1234",
        "lib/apk/db/installed.tmp",
        "lib/apk/db/.staged/.apk.d7661d1e0906f0a483c5fb83f5be65ce714987255778d3cf",
        "lib/apk/db/.journal.tmp",
    ];
    let stays = ["opt/.apk.d7661d", "etc/apk/world.tmp.mine", "opt/some"];
    gone.iter()
        .chain(&stays)
        .for_each(|path| case.sandbox.write(path, "x"));
    let recovered = case.run(&["recover"]).success();
    assert_eq!(
        recovered.output,
        "Removed 4 files that stopped programs left\n\
         OK: no transaction was interrupted after it had begun\n"
    );
    for path in gone {
        assert!(!case.sandbox.root().join(path).exists(), "{path}");
    }
    for path in stays {
        assert!(case.sandbox.root().join(path).exists(), "{path}");
    }
}

#[test]
fn a_second_ibex_waits_or_says_who_has_the_lock() {
    let slow = plain("slow").script(ScriptKind::PreInstall, WAITING);
    let Some(case) = Case::new(&[slow, plain("other")]) else {
        return;
    };
    let child = case.start(&["add", "slow"]);
    let refused = case.run(&["add", "other"]);
    assert_eq!(refused.code, 99, "{}", refused.output);
    let holder = format!("ERROR: process {} holds the lock: ", child.id());
    let begins = "ERROR: Unable to lock database: Resource temporarily unavailable\n";
    assert!(refused.output.starts_with(begins), "{}", refused.output);
    assert!(refused.output.contains(&holder), "{}", refused.output);
    let timed_out = case.run(&["--wait", "1", "add", "other"]);
    assert_eq!(timed_out.code, 99);
    assert!(
        timed_out.output.contains("Waiting for repository lock"),
        "{}",
        timed_out.output
    );
    assert!(timed_out.output.contains(&holder), "{}", timed_out.output);
    // A question is answered from the old state, and nothing is due.
    assert_eq!(case.run(&["list", "--installed"]).success().output, "");
    let mut waiting = case.command(&["--wait", "60", "add", "other"]);
    let waiting = waiting.stdout(Stdio::null()).stderr(Stdio::null()).spawn();
    let mut waiting = waiting.expect("the program starts");
    case.go_on(child);
    assert!(waiting.wait().expect("it was started").success());
    assert_eq!(case.sandbox.read("etc/apk/world"), "other\nslow\n");
}

#[test]
fn a_second_ibex_waits_while_a_database_is_made() {
    let slow = plain("slow").script(ScriptKind::PreInstall, WAITING);
    let Some(case) = Case::new(&[slow, plain("other")]) else {
        return;
    };
    fs::remove_dir_all(case.sandbox.root().join("lib")).expect("it was made");
    let child = case.start(&["--initdb", "add", "slow"]);
    let refused = case.run(&["--initdb", "add", "other"]);
    assert_eq!(refused.code, 99, "{}", refused.output);
    assert!(
        refused.output.contains("holds the lock"),
        "{}",
        refused.output
    );
    case.go_on(child);
}

#[test]
fn the_real_apk_and_ibex_exclude_each_other() {
    if !support::is_root() {
        return;
    }
    let Some(sandbox) = Sandbox::with_minirootfs("3.20.3") else {
        return;
    };
    let mut repository = Repository::new(&sandbox);
    let slow = |name: &str| plain(name).script(ScriptKind::PreInstall, WAITING);
    for made in [slow("slow-a"), slow("slow-b"), plain("other")] {
        repository.add(&made);
        let name = format!("{}-1.apk", made.contents.package.name);
        let bytes = fs::read(repository.file(&name)).expect("it was added");
        sandbox.write(&format!("srv/{name}"), bytes);
    }
    repository.publish(1_700_000_000);
    sandbox.repositories(&[]);
    let path = repository.path().display().to_string();
    let ibex = |words: &[&str]| {
        let mut command = sandbox.ibex();
        command.args(["--no-cache", "-X", &path]).args(words);
        command
    };
    let again = || {
        for name in ["begun", "go"] {
            let _ = fs::remove_file(sandbox.root().join(name));
        }
    };
    // ibex works, apk comes.
    let mut child = ibex(&["add", "slow-a"])
        .stdout(Stdio::null())
        .spawn()
        .expect("the program starts");
    wait_for(&sandbox.root().join("begun"));
    let apk = |words: &[&str]| {
        let all = [&["/sbin/apk", "--no-network"], words].concat();
        sandbox.chroot(&all)
    };
    let refused = apk(&["add", "/srv/other-1.apk"]);
    assert_ne!(refused.code, 0);
    assert!(
        refused.output.contains("Unable to lock database"),
        "{}",
        refused.output
    );
    sandbox.write("go", "");
    assert!(child.wait().expect("it was started").success());
    // apk works, ibex comes.
    again();
    let mut inside = Command::new("chroot");
    inside
        .arg(sandbox.root())
        .args(["/sbin/apk", "--no-network", "add", "/srv/slow-b-1.apk"])
        .stdout(Stdio::null());
    let mut child = inside.spawn().expect("the program starts");
    wait_for(&sandbox.root().join("begun"));
    let refused = run(&mut ibex(&["add", "other"]));
    assert_eq!(refused.code, 99);
    let holder = format!(
        "ERROR: process {} holds the lock: /sbin/apk --no-network add /srv/slow-b-1.apk\n",
        child.id()
    );
    assert!(refused.output.contains(&holder), "{}", refused.output);
    sandbox.write("go", "");
    assert!(child.wait().expect("it was started").success());
    run(&mut ibex(&["add", "other"])).success();
    let audit = apk(&["audit", "--system"]).success();
    assert_eq!(audit.output, "");
    let world = sandbox.read("etc/apk/world");
    for name in ["other", "slow-a", "slow-b"] {
        assert!(world.contains(name), "{world}");
    }
}

#[test]
fn readers_see_one_generation() {
    let Some(case) = Case::new(&[plain("some")]) else {
        return;
    };
    let root = Root::open(&case.sandbox.root()).expect("the root");
    let done = std::sync::atomic::AtomicBool::new(false);
    let mut generations = [0, 0];
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for _ in 0..12 {
                case.run(&["add", "some"]).success();
                case.run(&["del", "some"]).success();
            }
            done.store(true, std::sync::atomic::Ordering::Relaxed);
        });
        while !done.load(std::sync::atomic::Ordering::Relaxed) {
            let text = DatabaseText::read(&root, true).expect("a database");
            let world = text.world.unwrap_or_default();
            let installed = text.installed.unwrap_or_default();
            // apk writes an empty world as an empty line.
            let empty = world.trim_ascii().is_empty();
            assert_eq!(empty, installed.is_empty());
            generations[usize::from(empty)] += 1;
        }
    });
    assert!(
        generations.iter().all(|count| *count > 0),
        "{generations:?}"
    );
}

/// Runs a shell script in a mount namespace of its own.
fn in_namespace(script: &str, arguments: &[&Path], command: &Command) -> Run {
    let mut shell = Command::new("unshare");
    shell
        .args(["--mount", "sh", "-c", script, "sh"])
        .args(arguments);
    shell.arg(command.get_program()).args(command.get_args());
    shell.env_clear();
    let variables = command
        .get_envs()
        .filter_map(|(name, value)| Some((name, value?)));
    shell.envs(variables);
    run(&mut shell)
}

#[test]
fn packages_can_be_deleted_from_a_full_disk() {
    delete_from_a_full_disk(None, 8);
}

#[test]
fn copies_of_indexes_make_way_on_a_full_disk() {
    delete_from_a_full_disk(Some("var/cache/apk/APKINDEX.00000000.tar.gz"), 0);
}

/// Deletes a package with less and less room left; `copy` is a copy of an index that is there, and
/// `most` how many pages may be needed.
fn delete_from_a_full_disk(copy: Option<&str>, most: u64) {
    let big = |name: &str| {
        let entries = (0..8).map(|n| file(&format!("opt/{name}-{n}"), vec![b'x'; 40_000]));
        package(
            name,
            std::iter::once(directory("opt")).chain(entries).collect(),
        )
    };
    let Some(case) = Case::new(&[big("first"), big("second")]) else {
        return;
    };
    support::run(&mut case.command(&["add", "first", "second"])).success();
    if let Some(copy) = copy {
        case.sandbox.write(copy, vec![b'x'; 60_000]);
    }
    // $1 root, $2 bytes that are left free, $3 where the result goes.
    let script = "root=$1; free=$2; result=$3; shift 3; cp -a \"$root/.\" \"$result.old\" && \
                  mount -t tmpfs -o size=16m,mode=755 none \"$root\" && \
                  cp -a \"$result.old/.\" \"$root\" || exit 77; \
                  cat /dev/zero > \"$root/fill\" 2> /dev/null; \
                  truncate -s \"-$free\" \"$root/fill\" || exit 77; \
                  \"$@\"; code=$?; rm \"$root/fill\"; cp -a \"$root\" \"$result\"; exit $code";
    let mut least = None;
    for pages in (0..64).step_by(4) {
        let folder = tempfile::tempdir().expect("a temporary directory");
        let result = folder.path().join("result");
        fs::create_dir(folder.path().join("result.old")).expect("a new directory");
        let free = format!("{}", pages * 4096);
        let run = in_namespace(
            script,
            &[&case.sandbox.root(), Path::new(&free), &result],
            &case.command(&["del", "second"]),
        );
        assert_ne!(run.code, 77, "{}", run.output);
        let world = fs::read_to_string(result.join("etc/apk/world")).unwrap_or_default();
        let there = (0..8).filter(|n| result.join(format!("opt/second-{n}")).exists());
        let (there, deleted) = (there.count(), run.code == 0);
        if deleted {
            least.get_or_insert(pages);
        } else {
            assert!(
                run.output.contains("No space left on device"),
                "{}",
                run.output
            );
            assert!(run.output.contains(" KiB"), "{}", run.output);
        }
        let wanted = if deleted {
            (0, "first\n")
        } else {
            (8, "first\nsecond\n")
        };
        assert_eq!(
            (there, world.as_str()),
            wanted,
            "{pages} pages: {}",
            run.output
        );
        if let Some(copy) = copy {
            let made_way = run.output.contains("made way");
            assert_eq!(made_way, !result.join(copy).exists(), "{}", run.output);
            // 128 KiB are enough, and something more than was asked for may be free.
            match pages {
                0..16 => assert!(made_way, "{pages} pages: {}", run.output),
                16..32 => {}
                _ => assert!(!made_way, "{pages} pages: {}", run.output),
            }
        }
        for path in ["lib/apk/db/.staged", "lib/apk/db/.journal"] {
            assert!(!result.join(path).exists(), "{pages} pages: {path}");
        }
    }
    assert!(
        least.is_some_and(|pages| pages <= most),
        "{least:?} pages were needed"
    );
}

#[test]
fn a_full_disk_leaves_the_old_root() {
    let big = |name: &str, size: usize| {
        let entries = (0..8).map(|n| file(&format!("opt/{name}-{n}"), vec![b'x'; size / 8]));
        let entries = std::iter::once(directory("opt")).chain(entries).collect();
        // It says less than it is, or it would be refused before the disk is full.
        package(name, entries).with(|p| p.installed_size = 1000)
    };
    let Some(case) = Case::new(&[big("first", 60_000), big("second", 100_000)]) else {
        return;
    };
    // $1 root, $2 size, $3 where the result goes; ibex sees the root where it always is.
    let script = "root=$1; size=$2; result=$3; shift 3; cp -a \"$root/.\" \"$result.old\" && \
                  mount -t tmpfs -o size=\"$size\",mode=755 none \"$root\" && \
                  cp -a \"$result.old/.\" \"$root\" && cp -a \"$root\" \"$result.before\" || exit 77; \
                  \"$@\"; code=$?; cp -a \"$root\" \"$result\"; exit $code";
    let (mut failed, mut done) = (0, 0);
    for pages in (40..130).step_by(3) {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let result = directory.path().join("result");
        fs::create_dir(directory.path().join("result.old")).expect("a new directory");
        let size = format!("{}", pages * 4096);
        let run = in_namespace(
            script,
            &[&case.sandbox.root(), Path::new(&size), &result],
            &case.command(&["add", "first", "second"]),
        );
        assert_ne!(run.code, 77, "{}", run.output);
        let text = |name: &str| fs::read_to_string(result.join(name)).unwrap_or_default();
        let complete = |name: &str| (0..8).all(|n| result.join(format!("opt/{name}-{n}")).exists());
        if run.code == 0 {
            done += 1;
            assert!(complete("first") && complete("second"));
            assert_eq!(text("etc/apk/world"), "first\nsecond\n");
        } else {
            failed += 1;
            assert!(
                run.output.contains("No space left on device"),
                "{}",
                run.output
            );
            assert!(
                !result.join("opt").exists(),
                "{pages} pages: {}",
                run.output
            );
            assert_eq!(text("etc/apk/world").trim(), "");
            let waiting = ["lib/apk/db/.staged", "lib/apk/db/.journal"];
            for path in waiting {
                assert!(!result.join(path).exists(), "{pages} pages: {path}");
            }
        }
    }
    assert!(failed > 3 && done > 3, "{failed} failed, {done} done");
}

#[test]
fn a_package_that_cannot_fit_is_refused_at_once() {
    let huge = plain("huge").with(|p| p.installed_size = 1 << 50);
    let Some(case) = Case::new(&[huge]) else {
        return;
    };
    let refused = case.run(&["add", "huge"]);
    assert_eq!(refused.code, 1);
    assert!(
        refused
            .output
            .contains("the new packages need 1073741824 MiB\n"),
        "{}",
        refused.output
    );
    assert!(!case.sandbox.root().join("opt").exists());
}

#[test]
fn a_read_only_root_is_left_alone() {
    let Some(case) = Case::new(&[plain("some")]) else {
        return;
    };
    let script = "mount --bind \"$1\" \"$1\" && mount -o remount,ro,bind \"$1\" || exit 77; shift; \
                  exec \"$@\"";
    for words in [
        &["add", "some"][..],
        &["recover"],
        &["--no-logfile", "add", "some"],
    ] {
        let run = in_namespace(script, &[&case.sandbox.root()], &case.command(words));
        assert_ne!(run.code, 77, "{}", run.output);
        assert_ne!(run.code, 0, "{words:?}: {}", run.output);
        assert!(
            run.output.contains("Read-only file system"),
            "{}",
            run.output
        );
    }
    let script = "mount --bind \"$1\" \"$1\" && mount -o remount,ro,bind \"$1\" || exit 77; shift; \
                  exec \"$@\"";
    let question = case.command(&["list", "--installed"]);
    in_namespace(script, &[&case.sandbox.root()], &question).success();
    assert_eq!(case.sandbox.read("etc/apk/world").trim(), "");
}

#[test]
fn a_root_that_vanishes_is_an_error() {
    let vanishing = plain("vanishing").script(ScriptKind::PostInstall, "rm -rf \"$PWD\"");
    let Some(case) = Case::new(&[vanishing, plain("other")]) else {
        return;
    };
    let run = case.run(&["add", "vanishing", "other"]);
    assert_eq!(run.code, 3, "{}", run.output);
    assert!(run.output.contains("ERROR: cannot"), "{}", run.output);
    assert!(
        run.output.contains("the transaction is not finished"),
        "{}",
        run.output
    );
}

#[test]
fn a_clock_that_jumped_back_changes_nothing() {
    let cut = plain("cut").script(ScriptKind::PreInstall, "kill -9 $PPID");
    let Some(case) = Case::new(&[cut, plain("other")]) else {
        return;
    };
    let into_the_future = || {
        let root = case.sandbox.root();
        let find = ["-exec", "touch", "-h", "-d", "2090-01-01", "{}", "+"];
        run(Command::new("find").arg(root).args(find)).success();
    };
    into_the_future();
    assert_eq!(case.run(&["add", "cut"]).code, 137);
    into_the_future();
    assert_eq!(case.run(&["recover"]).code, 1);
    assert_eq!(case.sandbox.read("opt/cut"), "of cut");
    into_the_future();
    case.run(&["add", "other"]);
    assert_eq!(case.sandbox.read("etc/apk/world"), "cut\nother\n");
}
