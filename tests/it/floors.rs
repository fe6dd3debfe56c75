//! Imports point down: every `crate::` path in `src` must be one that its module may use.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Each module with what it may import, from the bottom floor up.
const MAY_IMPORT: [(&str, &[&str]); 14] = [
    ("package", &[]),
    ("progress", &[]),
    ("format", &["package", "progress", "trust"]),
    ("trust", &["package"]),
    ("root", &["package"]),
    (
        "config",
        &["package", "progress", "root", "format", "trust"],
    ),
    ("solver", &["package"]),
    ("plan", &["package", "solver"]),
    (
        "fetch",
        &["package", "progress", "root", "format", "trust", "config"],
    ),
    (
        "transaction",
        &["package", "progress", "root", "format", "trust", "plan"],
    ),
    ("history", &["package", "root", "plan"]),
    (
        "image",
        &[
            "package",
            "progress",
            "root",
            "format",
            "plan",
            "transaction",
        ],
    ),
    (
        "ops",
        &[
            "history",
            "image",
            "package",
            "progress",
            "root",
            "format",
            "trust",
            "plan",
            "solver",
            "config",
            "fetch",
            "transaction",
        ],
    ),
    ("bin", &[]),
];

#[test]
fn imports_point_down() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut wrong = Vec::new();
    let mut seen = BTreeSet::new();
    for file in rust_files(&source) {
        let relative = file.strip_prefix(&source).expect("below src").to_path_buf();
        let first = relative
            .iter()
            .next()
            .expect("a file name")
            .to_string_lossy();
        let module = first.trim_end_matches(".rs").to_owned();
        if module == "lib" || module == "bin" {
            continue;
        }
        let Some((_, allowed)) = MAY_IMPORT.iter().find(|(name, _)| *name == module) else {
            wrong.push(format!("{}: the module is on no floor", relative.display()));
            continue;
        };
        seen.insert(module.clone());
        let text = fs::read_to_string(&file).expect("a source file");
        for target in imports(&text) {
            if target != module && !allowed.contains(&target.as_str()) {
                wrong.push(format!(
                    "{}: {module} must not import {target}",
                    relative.display()
                ));
            }
        }
    }
    assert!(
        seen.len() >= 10,
        "the floors are not where the test looks: {seen:?}"
    );
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Returns the top-level modules that a source text names, comments aside.
fn imports(text: &str) -> BTreeSet<String> {
    let code = text
        .lines()
        .filter(|line| !line.trim_start().starts_with("//"));
    let code: String = code.flat_map(|line| [line, "\n"]).collect();
    let mut found = BTreeSet::new();
    for (at, _) in code.match_indices("crate::") {
        let rest = &code[at + "crate::".len()..];
        let group = rest
            .strip_prefix('{')
            .map(|inner| inner.split_once('}').map_or(inner, |p| p.0));
        let paths: Vec<&str> = group.map_or_else(|| vec![rest], |inner| inner.split(',').collect());
        for path in paths {
            let word = |c: char| c.is_ascii_lowercase() || c == '_';
            let name: String = path.trim_start().chars().take_while(|c| word(*c)).collect();
            found.insert(name);
        }
    }
    found.remove("");
    found
}

fn rust_files(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).expect("a source folder") {
        let path = entry.expect("a readable folder").path();
        if path.is_dir() {
            files.extend(rust_files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files
}
