//! apk's own solver cases and version comparisons, byte for byte.

use crate::support::solver_run::{self, Situation};
use std::fs;
use std::path::{Path, PathBuf};

fn test_data() -> Option<PathBuf> {
    let set = std::env::var_os("IBEX_TEST_DATA").map(PathBuf::from);
    let folder =
        set.unwrap_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/data"));
    if folder.join("solver/tests").is_dir() {
        return Some(folder.join("solver"));
    }
    assert!(
        std::env::var_os("CI").is_none(),
        "no test data at {}",
        folder.display()
    );
    eprintln!("skipped: no test data at {}", folder.display());
    None
}

fn read(folder: &Path, file: &str) -> String {
    fs::read_to_string(folder.join(file)).unwrap_or_else(|error| panic!("{file}: {error}"))
}

/// Reads a `.test` file; returns the situation and the expected output.
fn load(path: &Path) -> (Situation, String) {
    let folder = path.parent().expect("a file in a folder");
    let text = fs::read_to_string(path).expect("a readable case");
    let mut situation = Situation::default();
    let mut lines = text.lines();
    for line in lines.by_ref() {
        let (directive, value) = line.split_once(' ').unwrap_or((line, ""));
        match directive {
            "@ARGS" => situation.arguments.extend(solver_run::words(value)),
            "@WORLD" => situation.world = value.split_whitespace().collect::<Vec<_>>().join("\n"),
            "@INSTALLED" => situation.installed = read(folder, value),
            "@CACHE" => situation.cache = Some(read(folder, value)),
            "@REPO" => {
                let (tag, file) = match value.strip_prefix('@') {
                    Some(tagged) => {
                        let (tag, file) = tagged.split_once(' ').expect("TAG FILE");
                        (Some(tag.to_owned()), file)
                    }
                    None => (None, value),
                };
                situation.repositories.push((tag, read(folder, file)));
            }
            "@EXPECT" => break,
            other => assert!(!other.starts_with('@'), "{}: {other}", path.display()),
        }
    }
    let expected = lines.map(|line| format!("{line}\n")).collect();
    (situation, expected)
}

#[test]
fn cases_print_what_apk_prints() {
    let Some(data) = test_data() else { return };
    let mut wrong = Vec::new();
    let mut count = 0;
    let mut files: Vec<PathBuf> = fs::read_dir(data.join("tests"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|e| e == "test"))
        .collect();
    files.sort();
    for path in files {
        let (situation, expected) = load(&path);
        let printed = solver_run::run(&situation);
        count += 1;
        if printed.text != expected {
            wrong.push(format!(
                "{}\n--- expected\n{expected}--- printed\n{}",
                path.file_name().unwrap().to_string_lossy(),
                printed.text
            ));
        }
    }
    assert!(count > 0, "no cases found");
    assert!(
        wrong.is_empty(),
        "{} of {count}:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
}

#[test]
fn versions_compare_as_in_apk() {
    let Some(data) = test_data() else { return };
    let text = fs::read_to_string(data.join("version.data")).unwrap();
    let lines = text
        .lines()
        .map(|line| line.split('#').next().unwrap_or_default().trim())
        .filter(|line| !line.is_empty());
    let wrong: Vec<&str> = lines
        .filter(|line| !solver_run::version_line_holds(line))
        .collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
}
