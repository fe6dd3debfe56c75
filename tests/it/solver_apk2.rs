//! The real apk 2.14 of `data/minirootfs` decides random scenes: same changes, same order.
//!
//! Its rules are those of 3.0.6 for what most packages have; where they are not, scenes leave it out
//! (`Profile::recent`, and packages of another architecture, which it installs). Texts
//! differ in sizes and in the order of items in error reports. So the steps are compared and, where
//! there are none, that both fail.

use crate::support::scene::Scene;
use crate::support::scene_strategy::{self, ALL, Profile};
use crate::support::{self, Sandbox, solver_run};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};

const COMMON: Profile = Profile {
    odd: false,
    foreign: false,
    cache: false,
    options: false,
    verbosity: false,
    places: false,
    recent: false,
    ..ALL
};

const CASES: usize = 2_000;

/// Returns the lines that say what is done, or that nothing can be.
fn steps(output: &str, failed: bool) -> Vec<String> {
    if failed {
        return vec!["failed".to_owned()];
    }
    let lines = output.lines().filter(|line| line.starts_with('('));
    lines.map(str::to_owned).collect()
}

/// Returns the number of steps; `None` if both fail.
fn compare(scene: &Scene, home: &Sandbox) -> Result<Option<usize>, String> {
    let sandbox = Sandbox::new();
    let words = scene.lay_out(&sandbox);
    let mut command = Command::new("timeout");
    let root = home.root();
    command
        .env_clear()
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
        // It may not end when the world is broken by force.
        .args(["-s", "KILL", "2"])
        .arg(root.join("lib/ld-musl-x86_64.so.1"))
        .arg("--library-path")
        .arg(format!("{0}/lib:{0}/usr/lib", root.display()))
        .arg(root.join("sbin/apk"))
        .arg("--root")
        .arg(sandbox.root())
        .args(["--simulate", "--force-non-repository"])
        .args(&words);
    let theirs = support::run(&mut command);
    if theirs.code == 128 + 9 {
        return Ok(None);
    }
    let ours = solver_run::run(&scene.situation());
    let wanted = steps(&theirs.output, theirs.code != 0);
    let found = steps(&ours.text, ours.status != 0);
    if wanted == found {
        return Ok((theirs.code == 0).then_some(wanted.len()));
    }
    Err(format!(
        "--- wanted {}\n{}--- found {}\n{}",
        theirs.code, theirs.output, ours.status, ours.text
    ))
}

#[test]
fn random_scenes_are_decided_as_apk_2_14_does() {
    let Some(home) = Sandbox::with_minirootfs("3.20.3") else {
        return;
    };
    let (decided, busy) = (AtomicUsize::new(0), AtomicUsize::new(0));
    scene_strategy::check_all(COMMON, 0, CASES, |scene| {
        let steps = compare(scene, &home)?;
        decided.fetch_add(usize::from(steps.is_some()), Ordering::Relaxed);
        busy.fetch_add(usize::from(steps > Some(1)), Ordering::Relaxed);
        Ok(())
    });
    // The scenes must not become so strange that nothing is tried.
    let (decided, busy) = (decided.into_inner(), busy.into_inner());
    assert!(decided > CASES / 3, "{decided} decided");
    assert!(busy > CASES / 10, "{busy} with several steps");
}
