//! The real apk judges roots that ibex made, and the other way round.
//!
//! The real apk is the one inside the archives of `data/minirootfs`: it runs in a chroot, or on
//! another root through its own loader.

use crate::support::{self, Sandbox};
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;

/// The real apk of a minirootfs, to be run on other roots.
struct RealApk(Sandbox);

impl RealApk {
    fn new() -> Option<Self> {
        Sandbox::with_minirootfs("3.20.3").map(Self)
    }

    /// Returns a command that runs it on `root`.
    fn on(&self, root: &Path) -> Command {
        let home = self.0.root();
        let mut command = Command::new(home.join("lib/ld-musl-x86_64.so.1"));
        let libraries = format!("{0}/lib:{0}/usr/lib", home.display());
        command
            .env_clear()
            .arg("--library-path")
            .arg(libraries)
            .arg(home.join("sbin/apk"))
            .arg("--root")
            .arg(root);
        command
    }
}

fn initialise(sandbox: &Sandbox, repository: &Path, names: &[&str]) -> support::Run {
    let keys = repository.join("keys");
    let mut command = sandbox.ibex();
    command
        .args(["--initdb", "--arch", "x86_64", "--keys-dir"])
        .arg(keys);
    command.arg("-X").arg(repository).arg("add").args(names);
    support::run(&mut command)
}

/// What the real apk inside the root must say of it.
fn judge(sandbox: &Sandbox, packages: usize) {
    let audit = sandbox
        .chroot(&["/sbin/apk", "audit", "--system"])
        .success();
    assert_eq!(audit.output, "", "audit of the real apk");
    let fix = sandbox
        .chroot(&[
            "/sbin/apk",
            "fix",
            "--simulate",
            "--repositories-file",
            "/dev/null",
        ])
        .success();
    let (steps, last) = fix
        .output
        .trim_end()
        .rsplit_once('\n')
        .unwrap_or(("", &fix.output));
    assert_eq!(steps, "", "fix of the real apk finds work");
    assert!(last.contains(&format!("in {packages} packages")), "{last}");
    let theirs = sandbox
        .chroot(&["/sbin/apk", "info", "--repositories-file", "/dev/null"])
        .success()
        .output;
    let ours = sandbox.run(["info"]).success().output;
    let sorted = |text: &str| {
        let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
        lines.sort();
        lines
    };
    assert_eq!(sorted(&theirs), sorted(&ours));
}

#[test]
fn alpine_base_runs_and_is_accepted() {
    let Some(repository) = support::data("alpine-v3.19") else {
        return;
    };
    if !support::is_root() {
        return;
    }
    let sandbox = Sandbox::new();
    initialise(&sandbox, &repository, &["alpine-base", "openssh"]).success();
    sandbox.chroot(&["/bin/busybox", "true"]).success();
    let ssh = sandbox.chroot(&["/usr/bin/ssh", "-V"]).success();
    assert!(ssh.output.starts_with("OpenSSH_"), "{}", ssh.output);
    let packages = sandbox.run(["info"]).success().output.lines().count();
    judge(&sandbox, packages);
}

/// Paths in which a root made by 2.14 differs by design from one in the manner of 3.0.6.
fn is_apks_own(path: &str) -> bool {
    matches!(
        path,
        "lib/apk/db/scripts.tar"
            | "lib/apk/db/scripts.tar.gz"
            | "lib/apk/db/installed"
            | "lib/apk/db/triggers"
            | "lib/apk/db/lock"
            | "lib/apk/exec"
            | "var/cache/misc"
            | "var/log/apk.log"
            | "etc/apk/arch"
    ) || MADE_BY_INITDB.contains(&path)
}

/// What 2.14 makes with `--initdb` and 3.x no longer does: device nodes, and `proc` with mode 555.
const MADE_BY_INITDB: [&str; 6] = [
    "dev/console",
    "dev/null",
    "dev/random",
    "dev/urandom",
    "dev/zero",
    "proc",
];

#[test]
fn the_98_packages_give_the_tree_that_apk_makes() {
    let (Some(repository), true) = (support::data("alpine-v3.19"), support::is_root()) else {
        return;
    };
    let Some(apk) = RealApk::new() else { return };
    let names = support::all_names(&repository);
    assert_eq!(names.len(), 98);
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let (ours, theirs) = (Sandbox::new(), Sandbox::new());
    let started = 1_700_000_000 + 30_000_000;
    initialise(&ours, &repository, &names).success();
    let mut command = apk.on(&theirs.root());
    command
        .args(["--initdb", "--arch", "x86_64", "--keys-dir"])
        .arg(repository.join("keys"));
    support::run(command.arg("-X").arg(&repository).arg("add").args(&names)).success();

    let keep = |tree: BTreeMap<String, String>| -> BTreeMap<String, String> {
        tree.into_iter()
            .filter(|(path, _)| !is_apks_own(path))
            .collect()
    };
    let wanted = keep(support::tree(&theirs.root(), started));
    let found = keep(support::tree(&ours.root(), started));
    let differences = support::differences(&wanted, &found);
    assert!(differences.is_empty(), "{}", differences.join("\n"));
    let differences = support::differences(&records(&theirs), &records(&ours));
    assert!(differences.is_empty(), "{}", differences.join("\n"));
    let version = ours.chroot(&["/usr/bin/openssl", "version"]).success();
    assert!(
        version.output.starts_with("OpenSSL 3."),
        "{}",
        version.output
    );
    judge(&ours, names.len());
}

/// The records of the installed database by package; 2.14 keeps them unsorted, and it records that
/// a package replaces itself, which 3.x does not.
fn records(sandbox: &Sandbox) -> BTreeMap<String, String> {
    let text = sandbox.read("lib/apk/db/installed");
    let records = text.split("\n\n").filter(|record| !record.is_empty());
    records
        .map(|record| {
            let name = record.lines().find_map(|line| line.strip_prefix("P:"));
            let name = name.expect("every record has a name");
            let itself = format!("r:{name}");
            let lines = record.lines().filter(|line| *line != itself);
            (name.to_owned(), lines.collect::<Vec<_>>().join("\n"))
        })
        .collect()
}

#[test]
fn roots_made_by_apk_can_be_changed_and_apk_agrees() {
    let (Some(branches), true) = (support::data("alpine-branches"), support::is_root()) else {
        return;
    };
    let Some(sandbox) = Sandbox::with_minirootfs("3.19.4") else {
        return;
    };
    sandbox
        .trust(&["alpine-v3.19/keys", "alpine-branches/keys"])
        .expect("present");
    let old = support::data("alpine-v3.19")
        .expect("present")
        .display()
        .to_string();
    sandbox.repositories(&[&old]);
    sandbox
        .run(["add", "--no-network", "openssh", "wget"])
        .success();
    let ssh = sandbox.chroot(&["/usr/bin/ssh", "-V"]).success();
    assert!(ssh.output.starts_with("OpenSSH_"), "{}", ssh.output);
    sandbox.run(["del", "openssh", "wget"]).success();
    assert!(!sandbox.root().join("usr/bin/ssh").exists());
    sandbox.run(["fix", "busybox"]);
    for branch in ["v3.20", "edge"] {
        sandbox.repositories(&[&branches.join(branch).display().to_string()]);
        sandbox
            .run(["upgrade", "--available", "--no-network"])
            .success();
        let audit = sandbox
            .chroot(&["/sbin/apk", "audit", "--system"])
            .success();
        assert_eq!(audit.output, "", "{branch}");
    }
    judge(&sandbox, sandbox.run(["info"]).output.lines().count());
}

#[test]
fn another_architecture_is_built_without_scripts() {
    let (Some(branches), true) = (support::data("alpine-branches"), support::is_root()) else {
        return;
    };
    let sandbox = Sandbox::new();
    let mut command = sandbox.ibex();
    command.args([
        "--initdb",
        "--arch",
        "aarch64",
        "--no-scripts",
        "--keys-dir",
    ]);
    command
        .arg(branches.join("keys"))
        .arg("-X")
        .arg(branches.join("v3.20"));
    support::run(command.args(["add", "busybox", "apk-tools"])).success();
    assert_eq!(sandbox.read("etc/apk/arch"), "aarch64\n");
    let program = fs::read(sandbox.root().join("bin/busybox")).expect("installed");
    assert_eq!(program[18..20], [0xb7, 0], "an ELF file for AArch64");
}

#[test]
fn a_user_without_privileges_builds_a_root() {
    let (Some(repository), true) = (support::data("alpine-v3.19"), support::is_root()) else {
        return;
    };
    let sandbox = Sandbox::new();
    let user = 65534;
    for path in [sandbox.root(), sandbox.beside("")] {
        std::os::unix::fs::chown(&path, Some(user), Some(user)).expect("root may");
    }
    // Everything the user must be able to reach lies outside of private directories.
    let program = sandbox.beside("ibex");
    support::copy_program(&program);
    let mut command = Command::new("setpriv");
    command
        .args(["--reuid=65534", "--regid=65534", "--clear-groups"])
        .arg(&program);
    command
        .env_clear()
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
    command
        .env("APK_CONFIG", "/dev/null")
        .env("IBEX_CACHE_DIR", sandbox.beside("cache"));
    command.arg("--root").arg(sandbox.root());
    command.args(["--initdb", "--usermode", "--arch", "x86_64", "--keys-dir"]);
    command
        .arg(repository.join("keys"))
        .arg("-X")
        .arg(&repository);
    let run = support::run(command.args(["add", "--no-scripts", "alpine-base"])).success();
    assert!(run.output.contains("OK: "), "{}", run.output);
    sandbox.chroot(&["/bin/busybox", "true"]).success();
}
