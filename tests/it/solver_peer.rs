//! Random scenes, byte for byte against another apk: output of both streams and exit code.
//!
//! Set `APK_PEER` to an apk 3 to compare with; `APK_PEER_CASES` and `APK_PEER_SEED` choose
//! how many scenes and which. Without it there is nothing to compare with and the test says so.

use crate::support::scene::Scene;
use crate::support::scene_strategy::{self, ALL};
use crate::support::{self, Sandbox};
use std::process::{Command, Stdio};

/// How the output of a program that did not end or crashed begins.
const KILLED: &str = "exit code None";

/// Runs both programs on a scene.
fn compare(scene: &Scene, peer: &str) -> Result<(), String> {
    let sandbox = Sandbox::new();
    let words = scene.lay_out(&sandbox);
    let mut ours = support::ibex();
    ours.env("IBEX_CACHE_DIR", sandbox.beside("catalogue"))
        .args(["--simulate", "--solver=apk"]);
    // apk may not end when it breaks the world.
    let force = scene.options.contains(&"--force-broken-world");
    let mut theirs = Command::new(if force { "timeout" } else { peer });
    if force {
        theirs.args(["-s", "KILL", "1", peer]);
    }
    theirs
        .env_clear()
        .env("APK_CONFIG", "/dev/null")
        .arg("--simulate");
    let outputs = [ours, theirs].map(|mut command| {
        command
            .current_dir(sandbox.root().join("tmp"))
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .arg("--root")
            .arg(sandbox.root())
            .args(&words)
            .stdin(Stdio::null());
        let output = command.output().expect("the program starts");
        let errors = String::from_utf8_lossy(&output.stderr);
        // Which entry of the world is invalid is told by one of the two only.
        let errors = errors
            .lines()
            .filter(|l| !l.starts_with("ERROR: etc/apk/world: "));
        format!(
            "exit code {:?}\n{}--- errors\n{}\n",
            output.status.code(),
            String::from_utf8_lossy(&output.stdout),
            errors.collect::<Vec<_>>().join("\n")
        )
    });
    let [ours, theirs] = outputs;
    if ours == theirs || theirs.starts_with(KILLED) && !ours.starts_with(KILLED) {
        return Ok(());
    }
    Err(format!("--- wanted\n{theirs}--- found\n{ours}"))
}

#[test]
fn random_scenes_print_what_apk_prints() {
    let variable = |name: &str| std::env::var(name).ok();
    let Some(peer) = variable("APK_PEER") else {
        eprintln!("skipped: APK_PEER names no apk to compare with");
        return;
    };
    let number = |name, default| {
        variable(name)
            .and_then(|n| n.parse().ok())
            .unwrap_or(default)
    };
    let cases = number("APK_PEER_CASES", 1_000);
    let seed = number("APK_PEER_SEED", 0);
    scene_strategy::check_all(ALL, seed as u64, cases, |scene| compare(scene, &peer));
}
