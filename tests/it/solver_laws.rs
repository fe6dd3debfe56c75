//! Laws of the solver on random scenes, judged by rules that are written down a second time
//! (`support/oracle.rs`):
//!
//! * what is decided breaks no rule, whichever search decided;
//! * there is a decision if and only if trying everything finds one;
//! * where there is none, it is explained.

use crate::support::oracle::{self, Oracle, Selection};
use crate::support::scene::{Need, Scene, checksum};
use crate::support::scene_strategy::{self, Profile};
use crate::support::solver_run::{self, Decision};
use ibex::package::Identity;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Scenes small enough to try every selection.
const SMALL: Profile = Profile {
    names: 7,
    records: 10,
    odd: false,
    cache: true,
    verbosity: false,
    ..scene_strategy::ALL
};

const CASES: usize = 20_000;

fn check(scene: &Scene, outcomes: &[AtomicUsize; 4]) -> Result<(), String> {
    let decision = solver_run::decide(&scene.situation());
    let outcome = match &decision {
        None => 0,
        Some(decision) if decision.greedy.is_some() => 1,
        Some(decision) if decision.complete.is_some() => 2,
        Some(_) => 3,
    };
    outcomes[outcome].fetch_add(1, Ordering::Relaxed);
    let Some(decision) = decision else {
        return Ok(());
    };
    let entries = decision.world.entries.iter();
    let world = entries.map(|entry| {
        let text = entry.to_string();
        oracle::need(&text).ok_or_else(|| format!("the oracle cannot read {text}"))
    });
    let world = world.collect::<Result<Vec<Need>, String>>()?;
    let mut scene = scene.clone();
    scene.records.extend(scene.made.take());
    judge(&scene, &decision, &world)
}

fn judge(scene: &Scene, decision: &Decision, world: &[Need]) -> Result<(), String> {
    let selection = |identities: &[Identity]| select(scene, identities);
    if let Some(greedy) = &decision.greedy {
        let greedy = selection(greedy);
        // With a broken world only what holds of it counts.
        let force = scene.options.contains(&"--force-broken-world");
        let holds = |need: &&Need| {
            let alone = Oracle::new(scene, std::slice::from_ref(need));
            !force || alone.meets_world(greedy)
        };
        let world: Vec<Need> = world.iter().filter(holds).cloned().collect();
        let oracle = Oracle::new(scene, &world);
        return match oracle.broken_rule(greedy, true) {
            Some(rule) => Err(format!("apk's rules: {rule}\n")),
            None => Ok(()),
        };
    }
    let oracle = Oracle::new(scene, world);
    if let Some(complete) = &decision.complete {
        return match oracle.broken_rule(selection(complete), false) {
            Some(rule) => Err(format!("complete search: {rule}\n")),
            None => Ok(()),
        };
    }
    if let Some(found) = oracle.solve() {
        return Err(format!("not found: {}\n", oracle.names(found)));
    }
    let explained = decision.explanation.as_ref();
    match explained.is_some_and(|text| text.contains("cannot")) {
        true => Ok(()),
        false => Err("no explanation\n".to_owned()),
    }
}

fn select(scene: &Scene, identities: &[Identity]) -> Selection {
    let number = |identity: &Identity| {
        let text = identity.to_q1();
        let numbers = 0..scene.records.len();
        // Only the package of `add -t` has an identity of its own, and it comes last.
        let known = numbers.into_iter().find(|number| checksum(*number) == text);
        known.unwrap_or(scene.records.len() - 1)
    };
    identities
        .iter()
        .fold(0, |set, identity| set | 1 << number(identity))
}

#[test]
fn decisions_break_no_rule_and_none_is_missed() {
    let outcomes = [const { AtomicUsize::new(0) }; 4];
    scene_strategy::check_all(SMALL, 0, CASES, |scene| check(scene, &outcomes));
    // The scenes must not become so strange that nothing is tried.
    let [refused, greedy, complete, none] = outcomes.map(AtomicUsize::into_inner);
    assert!(refused < CASES / 10, "{refused} refused");
    assert!(greedy > CASES / 4, "{greedy} by apk's rules");
    assert!(complete > CASES / 50, "{complete} by the complete search");
    assert!(none > CASES / 10, "{none} without answer");
}
