//! A set of mirrors on the loopback, most of them bad: each run ends with the right package from
//! another mirror or with a clear error, in bounded time, and leaves nothing half-done.

use crate::support::mirror::{Asked, Does, Mirror};
use crate::support::{Run, Sandbox, data};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

/// No case may take longer: three rounds of a time-out of one second, with waits between them, for
/// the index and again for packages, on a busy machine.
const BOUND: Duration = Duration::from_secs(30);

/// A folder as mirrors have it, and a root that trusts it.
struct Bench {
    sandbox: Sandbox,
    tree: tempfile::TempDir,
}

impl Bench {
    fn new() -> Option<Self> {
        let real = data("alpine-v3.19")?;
        let tree = tempfile::tempdir().expect("a temporary directory");
        std::fs::create_dir(tree.path().join("v3.19")).expect("a directory");
        symlink(real, tree.path().join("v3.19/main")).expect("a link");
        let sandbox = Sandbox::new();
        sandbox.trust(&["alpine-v3.19/keys"])?;
        Some(Self { sandbox, tree })
    }

    fn folder(&self) -> &Path {
        self.tree.path()
    }

    /// Returns the path of a package file.
    fn package(&self, name: &str) -> PathBuf {
        let folder = self.folder().join("v3.19/main/x86_64");
        let entries = std::fs::read_dir(folder).expect("a repository");
        let mut paths = entries.map(|entry| entry.expect("an entry").path());
        let found = paths.find(|path| {
            let file = path.file_name().expect("a name").to_string_lossy();
            file.starts_with(&format!("{name}-1"))
        });
        found.expect("the package is in the set")
    }

    fn command(&self, mirrors: &[String]) -> Command {
        let mut command = self.sandbox.ibex();
        command.env("IBEX_CACHE_DIR", self.sandbox.beside("cache"));
        command.args(["--arch", "x86_64", "--timeout", "1", "--branch", "v3.19"]);
        command.args(["--component", "main"]);
        for mirror in mirrors {
            command.args(["--mirror", mirror]);
        }
        command
    }

    /// Adds zlib, which brings musl, to a new root.
    fn add(&self, mirrors: &[String]) -> (Run, Duration) {
        let started = Instant::now();
        let mut command = self.command(mirrors);
        command.args(["add", "--initdb", "--no-scripts", "zlib"]);
        let run = crate::support::run(&mut command);
        (run, started.elapsed())
    }

    /// Panics unless both packages are there, whole.
    #[track_caller]
    fn assert_done(&self, run: &Run) {
        assert_eq!(run.code, 0, "{}", run.output);
        let installed = self.sandbox.read("lib/apk/db/installed");
        for name in ["P:zlib\n", "P:musl\n"] {
            assert!(installed.contains(name), "{}", run.output);
        }
        let library = self.sandbox.root().join("lib/ld-musl-x86_64.so.1");
        assert!(library.exists(), "{}", run.output);
        self.assert_tidy(run);
    }

    /// Panics unless nothing was installed, for a reason that names the network.
    #[track_caller]
    fn assert_refused(&self, run: &Run) {
        assert_ne!(run.code, 0, "{}", run.output);
        assert!(run.output.contains("ERROR: "), "{}", run.output);
        assert!(!run.output.contains("unable to select"), "{}", run.output);
        let installed = self.sandbox.read("lib/apk/db/installed");
        assert_eq!(installed, "", "{}", run.output);
        assert!(!self.sandbox.root().join("lib/ld-musl-x86_64.so.1").exists());
        self.assert_tidy(run);
    }

    /// Panics if a temporary file was left in the root or in a cache.
    #[track_caller]
    fn assert_tidy(&self, run: &Run) {
        for folder in [self.sandbox.root(), self.sandbox.beside("cache")] {
            let mut open = vec![folder];
            while let Some(folder) = open.pop() {
                let Ok(entries) = std::fs::read_dir(folder) else {
                    continue;
                };
                for entry in entries.flatten() {
                    let name = entry.file_name().to_string_lossy().into_owned();
                    let left =
                        name.contains(".tmp") || name.contains(".apk.") && !name.ends_with(".apk");
                    assert!(!left, "{name} was left\n{}", run.output);
                    assert_ne!(name, ".staged", "{}", run.output);
                    if entry.file_type().expect("a type").is_dir() {
                        open.push(entry.path());
                    }
                }
            }
        }
    }
}

/// What a bad mirror does to the files of one kind.
type Fault = fn() -> Does;

const FAULTS: [(&str, Fault); 19] = [
    ("silence", || Does::Silence),
    ("stalls", || Does::Stall(1000)),
    ("trickles", || Does::Trickle),
    ("truncates", || Does::Truncate(1000)),
    ("resets", || Does::Reset(700)),
    ("resets at once", || Does::Reset(0)),
    ("says it is longer", || Does::Lie(100)),
    ("says it is shorter", || Does::Lie(-100)),
    ("404", || Does::Status(404)),
    ("500", || Does::Status(500)),
    ("503", || Does::Status(503)),
    ("403", || Does::Status(403)),
    ("wants a password", || Does::Ask),
    ("sends a page", || {
        Does::Bytes(b"<html>please log in</html>".to_vec())
    }),
    ("sends a page without its length", || {
        Does::Unsized(b"<html>captive ".repeat(600))
    }),
    ("begins another file", || {
        let other = include_bytes!("../../fixtures/repositories/v1/x86_64/libhello-1.2.3-r0.apk");
        Does::Other(other[..600].to_vec())
    }),
    ("sends too much without saying so", || Does::More(5000)),
    ("says that nothing changed", || Does::Status(304)),
    ("redirects in a circle", || {
        Does::Redirect(302, "/v3.19/main/x86_64/round".into())
    }),
];

fn bad(folder: &Path, index: bool, fault: Fault) -> Mirror {
    let round = "/v3.19/main/x86_64/round";
    Mirror::with(folder, move |asked: &Asked<'_>| {
        let concerned = asked.is_index() == index || asked.path == round;
        if concerned { fault() } else { Does::Serve }
    })
}

/// Runs a check for every fault of an index and of a package, a few at a time.
fn each(check: impl Fn(&str, bool, Fault) + Sync) {
    let cases: Vec<(&str, bool, Fault)> = FAULTS
        .into_iter()
        .flat_map(|(name, fault)| [(name, true, fault), (name, false, fault)])
        .collect();
    let next = std::sync::atomic::AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                loop {
                    let at = next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                    let Some((name, index, fault)) = cases.get(at) else {
                        break;
                    };
                    check(name, *index, *fault);
                }
            });
        }
    });
}

#[test]
fn another_mirror_helps() {
    if data("alpine-v3.19").is_none() {
        return;
    }
    each(|name, index, fault| {
        let bench = Bench::new().expect("the data was there");
        let bad = bad(bench.folder(), index, fault);
        let good = Mirror::of(bench.folder());
        let (run, took) = bench.add(&[bad.url(), good.url()]);
        bench.assert_done(&run);
        assert!(took < BOUND, "{name}: {took:?}");
        // The summary says who failed and who helped.
        assert!(run.output.contains("WARNING: "), "{name}: {}", run.output);
        assert!(run.output.contains(&good.url()), "{name}: {}", run.output);
        assert!(run.output.contains(&bad.url()), "{name}: {}", run.output);
    });
}

#[test]
fn without_another_mirror_the_error_is_clear() {
    if data("alpine-v3.19").is_none() {
        return;
    }
    each(|name, index, fault| {
        let bench = Bench::new().expect("the data was there");
        let bad = bad(bench.folder(), index, fault);
        let (run, took) = bench.add(&[bad.url()]);
        bench.assert_refused(&run);
        assert!(took < BOUND, "{name}: {took:?}");
    });
}

#[test]
fn a_mirror_that_always_breaks_off_gives_the_whole_piece_by_piece() {
    let Some(bench) = Bench::new() else { return };
    let size = std::fs::metadata(bench.package("musl"))
        .expect("a file")
        .len();
    let piece = size as usize / 10;
    let only = Mirror::with(bench.folder(), move |asked| match asked.is_index() {
        true => Does::Serve,
        false => Does::Part(piece),
    });
    let (run, took) = bench.add(&[only.url()]);
    bench.assert_done(&run);
    assert!(took < BOUND, "{took:?}");
}

#[test]
fn a_damaged_copy_of_an_index_is_fetched_again() {
    let Some(bench) = Bench::new() else { return };
    let mirror = Mirror::of(bench.folder());
    let (run, _) = bench.add(&[mirror.url()]);
    bench.assert_done(&run);
    let copies = |folder: PathBuf| {
        let entries = std::fs::read_dir(folder).expect("a cache");
        let paths = entries.map(|entry| entry.expect("an entry").path());
        paths.filter(|path| path.extension().is_some_and(|end| end == "gz"))
    };
    let own = bench.sandbox.root().join("var/cache/apk");
    let shared = bench.sandbox.beside("cache/indexes");
    for folders in [vec![&own], vec![&own, &shared]] {
        for words in [
            &["add", "scanelf"][..],
            &["-U", "add", "scanelf"],
            &["update"],
        ] {
            for path in folders
                .iter()
                .flat_map(|folder| copies(folder.to_path_buf()))
            {
                let file = std::fs::File::options().write(true).open(path);
                file.and_then(|file| file.set_len(300)).expect("a copy");
            }
            let mut command = bench.command(&[mirror.url()]);
            let run = crate::support::run(command.args(words));
            assert_eq!(run.code, 0, "{words:?}: {}", run.output);
            assert!(!run.output.contains("WARNING"), "{words:?}: {}", run.output);
            let mut command = bench.command(&[mirror.url()]);
            command.args(["--no-scripts", "add", "scanelf"]);
            let run = crate::support::run(&mut command);
            assert_eq!(run.code, 0, "{words:?}: {}", run.output);
            assert!(!run.output.contains("WARNING"), "{words:?}: {}", run.output);
            let mut command = bench.command(&[mirror.url()]);
            crate::support::run(command.args(["--no-scripts", "del", "scanelf"])).success();
        }
    }
}

#[test]
fn a_cache_that_is_deleted_during_a_download_is_made_again() {
    let Some(bench) = Bench::new() else { return };
    let cache = bench.sandbox.beside("cache");
    let only = Mirror::with(bench.folder(), move |asked| {
        if !asked.is_index() && asked.before == 0 {
            let _ = std::fs::remove_dir_all(&cache);
        }
        Does::Serve
    });
    let (run, _) = bench.add(&[only.url()]);
    bench.assert_done(&run);
}

#[test]
fn what_passes_is_survived() {
    if data("alpine-v3.19").is_none() {
        return;
    }
    type Once = fn(&Asked<'_>) -> Does;
    let cases: [(&str, Once); 8] = [
        ("one 503", |_| Does::Status(503)),
        ("one truncated answer", |_| Does::Truncate(1500)),
        ("one reset", |_| Does::Reset(10)),
        ("one stall", |_| Does::Stall(2000)),
        ("one wrong file", |_| Does::Bytes(vec![0; 4000])),
        ("one lie", |_| Does::Lie(7)),
        ("a relative 307", |asked| {
            Does::Redirect(307, relative(asked.path))
        }),
        ("a 308", |asked| {
            Does::Redirect(308, format!("/{}", real(asked.path)))
        }),
    ];
    for (name, once) in cases {
        let bench = Bench::new().expect("the data was there");
        let only = Mirror::with(bench.folder(), move |asked| match asked.before {
            0 if !asked.path.contains("/moved/") => once(asked),
            _ => Does::Serve,
        });
        let (run, took) = bench.add(&[only.url()]);
        bench.assert_done(&run);
        assert!(took < BOUND, "{name}: {took:?}");
        assert!(!run.output.contains("WARNING"), "{name}: {}", run.output);
    }
}

/// The same file below a folder, relative to the one it is asked in.
fn relative(path: &str) -> String {
    let name = path.rsplit_once('/').map_or(path, |(_, name)| name);
    format!("../x86_64/{name}")
}

fn real(path: &str) -> String {
    path.trim_start_matches('/').to_owned()
}

#[test]
fn a_transfer_that_broke_goes_on_where_it_was() {
    let Some(bench) = Bench::new() else { return };
    let size = std::fs::metadata(bench.package("musl"))
        .expect("a file")
        .len();
    let half = size as usize / 2;
    let only = Mirror::with(bench.folder(), move |asked| {
        if asked.path.contains("/musl-1") && asked.before == 0 {
            return Does::Truncate(half);
        }
        if asked.path.contains("/musl-1") {
            let range = format!("bytes={half}-");
            assert_eq!(asked.header("range"), Some(range.as_str()));
        }
        Does::Serve
    });
    let (run, _) = bench.add(&[only.url()]);
    bench.assert_done(&run);
    assert_eq!(only.packages_asked(), 3, "{:?}", only.log());
}

#[test]
fn credentials_go_to_their_server_and_into_no_text() {
    let Some(bench) = Bench::new() else { return };
    let secret = "s3cret";
    let locked = |asked: &Asked<'_>| match asked.header("authorization") {
        // user:s3cret
        Some("Basic dXNlcjpzM2NyZXQ=") => Does::Serve,
        _ => Does::Ask,
    };
    let free = Mirror::with(bench.folder(), |asked| {
        assert_eq!(asked.header("authorization"), None, "{}", asked.path);
        Does::Serve
    });
    let elsewhere = free.url();
    let mirror = Mirror::with(bench.folder(), move |asked| match locked(asked) {
        // The packages are somewhere else, where the password must not go.
        Does::Serve if !asked.is_index() => {
            Does::Redirect(302, format!("{elsewhere}{}", asked.path))
        }
        other => other,
    });
    let (run, _) = bench.add(&[mirror.url_for("user", secret)]);
    bench.assert_done(&run);
    let mut told = run.output;

    // The same from a netrc file, then from a variable.
    let host = "127.0.0.1";
    let netrc = bench.sandbox.beside("netrc");
    let text = format!(
        "machine other login a password b\nmachine {host}\n login user\n password {secret}\n"
    );
    std::fs::write(&netrc, text).expect("a file");
    for (name, value) in [
        ("NETRC", netrc.display().to_string()),
        ("HTTP_AUTH", format!("basic:*:user:{secret}")),
    ] {
        let bench = Bench::new().expect("the data was there");
        let mut command = bench.command(&[mirror.url()]);
        command
            .env(name, value)
            .args(["add", "--initdb", "--no-scripts", "zlib"]);
        let run = crate::support::run(&mut command);
        bench.assert_done(&run);
        told.push_str(&run.output);
        told.push_str(&bench.sandbox.read("var/log/apk.log"));
    }

    // Wrong ones are an error, and no secret either.
    let wrong = Bench::new().expect("the data was there");
    let (run, _) = wrong.add(&[mirror.url_for("user", "wr0ng")]);
    wrong.assert_refused(&run);
    assert!(
        run.output.contains("HTTP 401: Unauthorized"),
        "{}",
        run.output
    );
    told.push_str(&run.output);
    told.push_str(&wrong.sandbox.read("var/log/apk.log"));
    told.push_str(&bench.sandbox.read("var/log/apk.log"));
    for word in [secret, "wr0ng", "dXNlcjp"] {
        assert!(!told.contains(word), "{word}:\n{told}");
    }
    // Nor is there one in any file of the cache or the root.
    for folder in [bench.sandbox.root(), bench.sandbox.beside("cache")] {
        let found =
            crate::support::run(Command::new("grep").args(["-r", "-l", secret]).arg(folder));
        assert_ne!(found.code, 0, "{}", found.output);
    }
}

#[test]
fn a_proxy_is_used_and_one_that_cannot_be_is_refused() {
    let Some(bench) = Bench::new() else { return };
    let proxy = Mirror::of(bench.folder());
    // A proxy gets the whole address; this one serves its path. Nobody listens at the mirror.
    let mirror = "http://mirror.invalid".to_owned();
    let mut command = bench.command(std::slice::from_ref(&mirror));
    command.env("http_proxy", proxy.url());
    command.args(["add", "--initdb", "--no-scripts", "zlib"]);
    let run = crate::support::run(&mut command);
    bench.assert_done(&run);

    let other = Bench::new().expect("the data was there");
    let mut command = other.command(&[proxy.url()]);
    command.env("HTTP_PROXY", "gopher://user:s3cret@127.0.0.1:1");
    command.args(["add", "--initdb", "--no-scripts", "zlib"]);
    let run = crate::support::run(&mut command);
    other.assert_refused(&run);
    assert!(
        run.output
            .contains("cannot use the proxy gopher://127.0.0.1:1"),
        "{}",
        run.output
    );
    assert!(!run.output.contains("s3cret"), "{}", run.output);

    let dead = Bench::new().expect("the data was there");
    let mut command = dead.command(&[proxy.url()]);
    command.env("HTTP_PROXY", "http://user:s3cret@127.0.0.1:1");
    command.args(["add", "--initdb", "--no-scripts", "zlib"]);
    let run = crate::support::run(&mut command);
    dead.assert_refused(&run);
    let named = "Connection refused (by way of the proxy http://127.0.0.1:1)";
    assert!(run.output.contains(named), "{}", run.output);
    assert!(!run.output.contains("s3cret"), "{}", run.output);

    // What is exempt goes round it.
    let direct = Bench::new().expect("the data was there");
    let mut command = direct.command(&[proxy.url()]);
    command.env("HTTP_PROXY", "http://127.0.0.1:1");
    command.env("NO_PROXY", "example.org, 127.0.0.0/8");
    command.args(["add", "--initdb", "--no-scripts", "zlib"]);
    let run = crate::support::run(&mut command);
    direct.assert_done(&run);
}

#[test]
fn an_index_is_fetched_again_only_if_it_changed() {
    let Some(bench) = Bench::new() else { return };
    let mirror = Mirror::of(bench.folder());
    let (run, _) = bench.add(&[mirror.url()]);
    bench.assert_done(&run);
    let shown = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
    let seen = std::sync::Arc::clone(&shown);
    let second = Mirror::with(bench.folder(), move |asked| {
        let condition = asked.header("if-none-match").is_some();
        seen.lock().expect("no panic").push(condition);
        Does::Serve
    });
    // Another server's tags say nothing about this one's.
    for conditional in [false, true] {
        let mut command = bench.command(&[second.url()]);
        let run = crate::support::run(command.arg("update"));
        assert_eq!(run.code, 0, "{}", run.output);
        let last = shown.lock().expect("no panic").pop();
        assert_eq!(last, Some(conditional));
    }
}

#[test]
fn a_package_that_changed_after_the_index_is_not_taken() {
    let Some(bench) = Bench::new() else { return };
    // The same name and size, but another file.
    let other = {
        let mut bytes = std::fs::read(bench.package("zlib")).expect("a package");
        let last = bytes.len() - 1000;
        bytes[last] ^= 1;
        bytes
    };
    let changed = other.clone();
    let ahead = Mirror::with(bench.folder(), move |asked| {
        match asked.path.contains("/zlib-1") {
            true => Does::Bytes(changed.clone()),
            false => Does::Serve,
        }
    });
    let good = Mirror::of(bench.folder());
    let (run, _) = bench.add(&[ahead.url(), good.url()]);
    bench.assert_done(&run);

    let alone = Bench::new().expect("the data was there");
    let (run, _) = alone.add(&[ahead.url()]);
    alone.assert_refused(&run);
    assert!(run.output.contains("zlib-1"), "{}", run.output);
}

#[test]
fn the_same_package_in_two_repositories_has_two_sources() {
    let Some(bench) = Bench::new() else { return };
    let bad = bad(bench.folder(), false, || Does::Status(503));
    let good = Mirror::of(bench.folder());
    let mut command = bench.sandbox.ibex();
    command.env("IBEX_CACHE_DIR", bench.sandbox.beside("cache"));
    command.args(["--arch", "x86_64", "--timeout", "1"]);
    for mirror in [&bad, &good] {
        command
            .arg("-X")
            .arg(format!("{}/v3.19/main", mirror.url()));
    }
    command.args(["add", "--initdb", "--no-scripts", "zlib"]);
    let run = crate::support::run(&mut command);
    bench.assert_done(&run);
}

#[test]
fn an_index_older_than_the_one_seen_is_left_to_the_mirror_that_lags() {
    let Some(bench) = Bench::new() else { return };
    let Some(newer) = data("index/alpine/v3.19/main/x86_64/APKINDEX.tar.gz") else {
        return;
    };
    let newer = move |asked: &Asked<'_>| match asked.is_index() {
        true => Does::ServeFrom(newer.clone()),
        false => Does::Serve,
    };
    let current = Mirror::with(bench.folder(), newer);
    let lagging = Mirror::of(bench.folder());
    let update = |mirrors: &[String]| {
        let mut command = bench.command(mirrors);
        crate::support::run(command.args(["update", "--force-refresh"]))
    };
    bench.sandbox.write("lib/apk/db/installed", "");
    bench.sandbox.write("etc/apk/world", "");
    assert_eq!(update(&[current.url()]).code, 0);

    // The next one is asked, and who lags is told.
    let run = update(&[lagging.url(), current.url()]);
    assert_eq!(run.code, 0, "{}", run.output);
    assert!(run.output.contains("older"), "{}", run.output);
    assert!(run.output.contains("OK: 5"), "{}", run.output);

    // Alone it is refused with the reason, and the mirror that was there before lags no more.
    let run = update(&[lagging.url()]);
    assert_eq!(run.code, 1, "{}", run.output);
    assert!(run.output.contains("older"), "{}", run.output);
    bench.assert_tidy(&run);
}

#[test]
fn a_mirror_that_changes_meanwhile_is_asked_for_its_new_index_once() {
    use crate::support::repository::{Repository, file, package};
    let sandbox = Sandbox::new();
    let made = |version: &str| package("tool", version, vec![file("tool", version)]);
    let mut old = Repository::named(&sandbox, "old");
    old.add(&made("1.0-r0"));
    old.publish(1_600_000_000);
    let mut new = Repository::named(&sandbox, "new");
    new.add(&made("1.1-r0"));
    new.publish(1_600_000_100);
    let index = old.file("APKINDEX.tar.gz");
    // Whoever asks for the index the first `count` times gets the old one; packages are the new.
    let mirror = |count: usize| {
        let index = index.clone();
        Mirror::with(new.path(), move |asked| {
            match asked.is_index() && asked.before < count {
                true => Does::ServeFrom(index.clone()),
                false => Does::Serve,
            }
        })
    };
    let add = |mirror: &Mirror, store: &str, more: &[&str]| {
        let mut command = sandbox.ibex();
        command.env("IBEX_CACHE_DIR", sandbox.beside(store));
        command.args(["--arch", "x86_64", "-X", &mirror.url(), "--timeout", "1"]);
        command.args(["add", "--initdb", "--no-scripts", "tool"]);
        crate::support::run(command.args(more))
    };
    let indexes = |mirror: &Mirror| {
        let log = mirror.log();
        log.iter().filter(|path| path.contains("INDEX")).count()
    };

    // It never comes right: one more look, then an error that says what is the matter.
    let stuck = mirror(usize::MAX);
    let run = add(&stuck, "stuck", &[]);
    assert_eq!(run.code, 1, "{}", run.output);
    for line in [
        "ERROR: tool-1.0-r0: package mentioned in index not found (try 'apk update')\n",
        "read again just now: try later, or name another mirror with --mirror\n",
        "ERROR: nothing was changed: the root is as before\n",
    ] {
        assert!(run.output.contains(line), "{}", run.output);
    }
    assert_eq!(indexes(&stuck), 2);
    let told = run.output.matches("once more").count();
    assert_eq!(told, 1, "{}", run.output);
    assert!(!sandbox.root().join("tool").exists());

    // It has changed: the new version is chosen and installed.
    let changed = mirror(1);
    let run = add(&changed, "changed", &[]).success();
    assert!(
        run.output.contains("Installing tool (1.1-r0)"),
        "{}",
        run.output
    );
    assert_eq!(indexes(&changed), 2);
    assert_eq!(sandbox.read("tool"), "1.1-r0");

    // A mirror that is down is no reason to read the index again.
    let sandbox_index = new.file("APKINDEX.tar.gz");
    let down = Mirror::with(new.path(), move |asked| match asked.is_index() {
        true => Does::ServeFrom(sandbox_index.clone()),
        false => Does::Status(503),
    });
    std::fs::remove_dir_all(sandbox.root().join("lib/apk")).expect("a database");
    let run = add(&down, "down", &[]);
    assert_eq!(run.code, 1, "{}", run.output);
    assert_eq!(indexes(&down), 1, "{}", run.output);
}
