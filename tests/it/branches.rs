//! Branches and the choice among mirrors: what a root follows, the move to another branch, and
//! measuring mirrors.

use crate::support::mirror::{Does, Mirror};
use crate::support::{Run, Sandbox, data, run};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// A mirror with three branches.
fn tree() -> Option<tempfile::TempDir> {
    let tree = tempfile::tempdir().expect("a temporary directory");
    for (branch, set) in [
        ("v3.19", "alpine-v3.19"),
        ("v3.20", "alpine-branches/v3.20"),
        ("edge", "alpine-branches/edge"),
    ] {
        std::fs::create_dir(tree.path().join(branch)).expect("a directory");
        symlink(data(set)?, tree.path().join(branch).join("main")).expect("a link");
    }
    Some(tree)
}

/// A root of v3.19 on a mirror.
struct System {
    sandbox: Sandbox,
}

impl System {
    fn on(url: &str) -> Self {
        let sandbox = Sandbox::new();
        let keys = ["alpine-v3.19/keys", "alpine-branches/keys"];
        sandbox
            .trust(&keys)
            .expect("the keys are beside the packages");
        sandbox.write(
            "etc/apk/repositories",
            format!("# mine\n{url}/v3.19/main\n@edge {url}/edge/main\n"),
        );
        let system = Self { sandbox };
        let words = [
            "--arch",
            "x86_64",
            "add",
            "--initdb",
            "--no-scripts",
            "busybox",
            "apk-tools",
        ];
        system.ibex(&words).success();
        system
    }

    fn ibex(&self, words: &[&str]) -> Run {
        let mut command = self.sandbox.ibex();
        command.env("IBEX_CACHE_DIR", self.sandbox.beside("cache"));
        run(command.args(["--timeout", "1"]).args(words))
    }

    fn state(&self) -> [String; 3] {
        [
            "etc/apk/repositories",
            "etc/apk/world",
            "lib/apk/db/installed",
        ]
        .map(|path| self.sandbox.read(path))
    }
}

#[test]
fn a_root_moves_to_another_branch_or_stays_where_it_was() {
    let Some(folder) = tree() else { return };
    let broken = Arc::new(AtomicBool::new(false));
    let breaks = Arc::clone(&broken);
    let mirror = Mirror::with(folder.path(), move |asked| {
        let package = asked.path.contains("/v3.20/") && !asked.is_index();
        match package && breaks.load(Ordering::Relaxed) {
            true => Does::Status(503),
            false => Does::Serve,
        }
    });
    let url = mirror.url();
    let system = System::on(&url);
    let shown = system.ibex(&["branch"]).success().output;
    let wanted = format!(
        "branch: v3.19\ncomponents: main\nmirror: {url}\nbranch: edge\ncomponents: main@edge\n\
         mirror: {url}\narchitecture: x86_64\n"
    );
    assert_eq!(shown, wanted);

    // A preview says what would happen and changes nothing.
    let before = system.state();
    let preview = system
        .ibex(&["branch", "switch", "v3.20", "--simulate"])
        .success()
        .output;
    let line = format!("etc/apk/repositories: {url}/v3.19/main -> {url}/v3.20/main\n");
    for text in [
        &line,
        "will be upgraded",
        "busybox",
        "Need to download",
        "disk space",
    ] {
        assert!(preview.contains(text), "{text}:\n{preview}");
    }
    assert_eq!(system.state(), before);

    // A failure leaves the old files.
    broken.store(true, Ordering::Relaxed);
    let failed = system.ibex(&["branch", "switch", "v3.20", "--no-scripts"]);
    assert_ne!(failed.code, 0, "{}", failed.output);
    assert_eq!(system.state(), before, "{}", failed.output);
    for wrong in [
        &["branch", "switch", "v3.99"][..],
        &["branch", "switch", "v3.19"],
        &["branch", "switch", "nonsense"],
        &["branch", "away"],
    ] {
        let failed = system.ibex(wrong);
        assert_ne!(failed.code, 0, "{}", failed.output);
        assert_eq!(system.state(), before, "{}", failed.output);
    }

    // The move, and the line of another branch is left alone.
    broken.store(false, Ordering::Relaxed);
    system
        .ibex(&["branch", "switch", "v3.20", "--no-scripts"])
        .success();
    let [repositories, world, installed] = system.state();
    assert_eq!(
        repositories,
        format!("# mine\n{url}/v3.20/main\n@edge {url}/edge/main\n")
    );
    assert_eq!(world, before[1]);
    assert!(
        installed.contains("P:busybox\nV:1.36.1-r29\n"),
        "{installed}"
    );
    let again = system.ibex(&["upgrade", "--no-scripts"]).success().output;
    assert!(again.starts_with("OK: "), "{again}");
}

#[test]
fn a_move_to_another_branch_is_taken_back_with_its_repository_files() {
    let Some(folder) = tree() else { return };
    let mirror = Mirror::of(folder.path());
    let system = System::on(&mirror.url());
    let root = system.sandbox.root();
    let file = root.join("etc/apk/repositories");
    let set_mode = |mode| {
        let mode = std::fs::Permissions::from_mode(mode);
        std::fs::set_permissions(&file, mode).expect("a mode");
    };
    let mode = || std::fs::metadata(&file).expect("the file").mode() & 0o7777;
    // A file that nobody else may read stays so, and so does what remembers it.
    set_mode(0o600);
    let history = root.join("var/lib/ibex/history.sqlite");
    let before = system.state();
    let switch = ["branch", "switch", "v3.20", "--no-scripts"];
    system.ibex(&switch).success();
    let after = system.state();
    assert_ne!(after[0], before[0]);
    assert_eq!(mode(), 0o600);
    let recorded = std::fs::metadata(history).expect("a history").mode();
    assert_eq!(recorded & 0o077, 0);
    let shown = system.ibex(&["history", "show", "2"]).success().output;
    let lines = format!(
        "Files that name repositories:\n  etc/apk/repositories\n    - {url}/v3.19/main\n    \
         + {url}/v3.20/main\n",
        url = mirror.url()
    );
    assert!(shown.contains(&lines), "{shown}");
    assert!(!shown.contains("changed by scripts"), "{shown}");

    // There, back, there again, and back to the beginning in one step.
    let preview = system.ibex(&["undo", "--simulate"]).success().output;
    assert_eq!(system.state(), after, "{preview}");
    for (words, wanted) in [
        (&["undo", "--no-scripts"][..], &before),
        (&["undo", "--no-scripts"], &after),
        (&["rollback", "--no-scripts", "1"], &before),
        (&["rollback", "--no-scripts", "2"], &after),
        (&["undo", "2", "--no-scripts"], &before),
    ] {
        let said = system.ibex(words).success().output;
        assert_eq!(&system.state(), wanted, "{words:?}: {said}");
        assert!(!said.contains("stay as they are"), "{words:?}: {said}");
        assert_eq!(mode(), 0o600);
    }

    // Somebody edited the file since: it stays, and that is said.
    system.ibex(&switch).success();
    let edited = system.state()[0].clone() + "# a line\n";
    system.sandbox.write("etc/apk/repositories", &edited);
    let said = system.ibex(&["undo", "--no-scripts"]).success().output;
    assert_eq!(system.state()[0], edited);
    assert_eq!(system.state()[2], before[2]);
    let remark = "These files were changed since; they stay as they are:\n  etc/apk/repositories\n";
    assert!(said.contains(remark), "{said}");
}

#[test]
fn mirrors_are_measured_ranked_and_kept() {
    let Some(folder) = tree() else { return };
    let quick = Mirror::of(folder.path());
    let slow = Mirror::slow(folder.path(), Duration::from_millis(150), |_| Does::Serve);
    let dead = Mirror::with(folder.path(), |_| Does::Status(503));
    let other = Mirror::with(folder.path(), |_| Does::Bytes(b"welcome".to_vec()));
    let system = System::on(&slow.url());
    let list = format!(
        "{}\n{}\n# the near one\n{}\n",
        dead.url(),
        other.url(),
        quick.url()
    );
    system.sandbox.write("etc/apk/mirrors.list", list);

    let shown = system.ibex(&["mirrors", "list"]).success().output;
    let wanted = format!(
        "{} (kept)\n{} (kept)\n{} (kept)\n{} (1 repository)\n",
        dead.url(),
        other.url(),
        quick.url(),
        slow.url()
    );
    assert_eq!(shown, wanted);
    let before = system.state();
    let measured = system.ibex(&["mirrors", "rank", "--json"]).success().output;
    let measured: serde_json::Value = serde_json::from_str(&measured).expect("JSON");
    let names: Vec<&str> = (0..2)
        .map(|at| measured[at]["mirror"].as_str().expect("a name"))
        .collect();
    assert_eq!(names, [quick.url(), slow.url()], "{measured}");
    assert!(
        measured[1]["latency_ms"].as_f64() > Some(149.0),
        "{measured}"
    );
    assert!(
        measured[0]["bytes_per_second"].as_f64() > Some(0.0),
        "{measured}"
    );
    assert!(
        measured[0]["index_age_seconds"].as_u64() > Some(0),
        "{measured}"
    );
    let failures = (2..4).filter(|at| measured[*at]["failure"].is_string());
    assert_eq!(failures.count(), 2, "{measured}");
    assert_eq!(system.state(), before);

    system.ibex(&["mirrors", "-f"]).success();
    let kept = system.sandbox.read("etc/apk/mirrors.list");
    // Who fails today stays, at the end.
    let order = [&quick, &slow, &dead, &other].map(|mirror| mirror.url() + "\n");
    assert_eq!(kept, order.concat());
    let repositories = system.sandbox.read("etc/apk/repositories");
    let url = quick.url();
    assert_eq!(
        repositories,
        format!("# mine\n{url}/v3.19/main\n@edge {url}/edge/main\n")
    );

    // The kept ones stand in for each other without any option.
    drop(quick);
    let run = system.ibex(&["--update-cache", "add", "--no-scripts", "zlib"]);
    assert_eq!(run.code, 0, "{}", run.output);
    assert!(run.output.contains(&slow.url()), "{}", run.output);

    for wrong in [
        "notaurl",
        "not a url",
        "",
        "http://me:sesame@127.0.0.1/alpine",
    ] {
        let refused = system.ibex(&["mirrors", "use", wrong]);
        assert_eq!(refused.code, 1, "{}", refused.output);
        assert!(!refused.output.contains("sesame"), "{}", refused.output);
        assert_eq!(system.sandbox.read("etc/apk/mirrors.list"), kept);
    }
    system.ibex(&["mirrors", "use", &dead.url()]).success();
    // Questions go on with the index that there is.
    let list = system.ibex(&["list", "zlib"]).success().output;
    assert!(!list.contains("WARNING"), "{list}");
    assert!(list.starts_with("zlib-"), "{list}");
    assert_eq!(
        system.sandbox.read("etc/apk/mirrors.list"),
        format!("{}\n", dead.url())
    );
    let none = system.ibex(&["mirrors", "--fastest"]);
    assert_ne!(none.code, 0, "{}", none.output);
    assert_eq!(
        system.sandbox.read("etc/apk/mirrors.list"),
        format!("{}\n", dead.url())
    );
}

#[test]
fn a_repository_file_that_is_a_link_is_left_alone() {
    let sandbox = Sandbox::new();
    sandbox
        .run(["--initdb", "--arch", "x86_64", "add"])
        .success();
    let text = "http://127.0.0.1:1/v3.19/main\n";
    sandbox.write("etc/apk/real", text);
    let link = sandbox.root().join("etc/apk/repositories");
    std::os::unix::fs::symlink("real", &link).expect("a link");
    let run = sandbox.run(["branch", "switch", "v3.20"]);
    assert_eq!(run.code, 1, "{}", run.output);
    assert!(
        run.output
            .contains("etc/apk/repositories is a symbolic link"),
        "{}",
        run.output
    );
    assert_eq!(
        std::fs::read_link(&link).expect("the link"),
        Path::new("real")
    );
    assert_eq!(sandbox.read("etc/apk/real"), text);
}
