//! The page on attacks and weak points: complete, and each test it names exists.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

const PAGE: &str = include_str!("../../src/security.md");

/// The rows of a table, by the first cell, under a heading.
fn rows(heading: &str) -> BTreeMap<String, Vec<String>> {
    let (_, after) = PAGE
        .split_once(&format!("\n# {heading}\n"))
        .expect("the heading");
    let section = after.split("\n# ").next().unwrap_or_default();
    let lines = section.lines().filter(|line| line.starts_with("| "));
    let rows = lines.skip(2).map(|line| {
        let cells = line.trim_matches('|').split(" | ");
        let mut cells: Vec<String> = cells.map(|cell| cell.trim().to_owned()).collect();
        (cells.remove(0), cells)
    });
    rows.collect()
}

/// The tests that a cell names.
fn tests(cell: &str) -> impl Iterator<Item = &str> {
    cell.split('`').skip(1).step_by(2)
}

fn exists(test: &str) -> bool {
    let (place, function) = test.rsplit_once("::").expect("file::function");
    let path = match place.ends_with(".rs") {
        true => place.to_owned(),
        false => format!("tests/it/{place}.rs"),
    };
    let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path));
    let wanted = format!("#[test]\nfn {function}()");
    let indented = format!("#[test]\n    fn {function}()");
    text.is_ok_and(|text| text.contains(&wanted) || text.contains(&indented))
}

#[test]
fn every_attack_and_weak_point_has_a_test() {
    let sections = [
        ("Attacks on updates", 11),
        ("Attacks by packages", 12),
        ("The weak points of apk", 37),
    ];
    for (heading, count) in sections {
        let rows = rows(heading);
        assert_eq!(rows.len(), count, "{heading}: {:?}", rows.keys());
        for (name, cells) in &rows {
            let shown = cells.last().expect("the last cell names the tests");
            let mut named = 0;
            for test in tests(shown) {
                assert!(exists(test), "{name}: there is no test {test}");
                named += 1;
            }
            // What only a reader can judge is marked, so that it is seen.
            assert!(named > 0 || shown == "—", "{name}: no test is named");
        }
    }
    let weak = rows("The weak points of apk");
    let missing = (1..=37)
        .map(|n| format!("W{n}"))
        .find(|name| !weak.contains_key(name));
    assert_eq!(missing, None);
}
