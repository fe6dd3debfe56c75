//! apk's own solver cases (`data/solver`), byte for byte through the real binary.

use crate::support::{self, Sandbox};
use flate2::{Compression, write::GzEncoder};
use std::fs;
use std::io::Write;
use std::path::Path;

/// What a case file says (`data/solver/README.md`).
#[derive(Default)]
struct Case {
    arguments: Vec<String>,
    world: Vec<String>,
    installed: Option<String>,
    repositories: Vec<(Option<String>, String)>,
    cache: Option<String>,
    expected: String,
}

impl Case {
    fn parse(text: &str) -> Self {
        let mut case = Self::default();
        let mut lines = text.lines();
        while let Some(line) = lines.next() {
            let Some(directive) = line.strip_prefix('@') else {
                continue;
            };
            let mut words = directive.split_whitespace();
            let keyword = words.next().unwrap_or_default();
            let words: Vec<String> = words.map(str::to_owned).collect();
            let file = words.last().cloned();
            match keyword {
                "ARGS" => case.arguments.extend(words),
                "WORLD" => case.world = words,
                "INSTALLED" => case.installed = file,
                "CACHE" => case.cache = file,
                "REPO" => {
                    let tag = words.first().filter(|word| word.starts_with('@')).cloned();
                    case.repositories
                        .push((tag, file.expect("a repository file")));
                }
                "EXPECT" => {
                    case.expected = lines.by_ref().map(|line| format!("{line}\n")).collect();
                }
                other => panic!("unknown directive {other}"),
            }
        }
        case
    }

    /// Lays the root out as the reference harness does, and runs the binary.
    fn run(&self, folder: &Path) -> String {
        let sandbox = Sandbox::new();
        for directory in ["etc/apk/cache", "tmp", "var/log"] {
            fs::create_dir_all(sandbox.root().join(directory)).expect("a new directory");
        }
        let read = |file: &String| fs::read(folder.join(file)).expect("a file of the case");
        sandbox.write(
            "etc/apk/world",
            self.world
                .iter()
                .map(|w| format!("{w}\n"))
                .collect::<String>(),
        );
        sandbox.write(
            "lib/apk/db/installed",
            self.installed.as_ref().map(read).unwrap_or_default(),
        );
        if let Some(file) = &self.cache {
            sandbox.write("etc/apk/cache/installed", read(file));
        }
        let mut lines = Vec::new();
        for (tag, file) in &self.repositories {
            let archive = sandbox.beside(&format!("{file}.tar.gz"));
            fs::write(&archive, index_archive(&read(file))).expect("a new file");
            let tag = tag
                .as_ref()
                .map(|tag| format!("{tag} "))
                .unwrap_or_default();
            lines.push(format!("{tag}test:{}", archive.display()));
        }
        sandbox.repositories(&lines.iter().map(String::as_str).collect::<Vec<_>>());
        let mut command = sandbox.ibex();
        command.current_dir(sandbox.root().join("tmp"));
        command.args(["--allow-untrusted", "--simulate", "--root-tmpfs=no"]);
        if self.cache.is_none() {
            command.arg("--no-cache");
        }
        support::run(command.args(&self.arguments)).output
    }
}

/// Packs the text of an index the way repositories have it, unsigned.
fn index_archive(text: &[u8]) -> Vec<u8> {
    let mut archive = tar::Builder::new(GzEncoder::new(Vec::new(), Compression::fast()));
    let mut header = tar::Header::new_ustar();
    header.set_size(text.len() as u64);
    header.set_entry_type(tar::EntryType::Regular);
    header.set_mode(0o644);
    header.set_cksum();
    archive
        .append_data(&mut header, "APKINDEX", text)
        .expect("memory takes it");
    let mut encoder = archive.into_inner().expect("memory takes it");
    encoder.flush().expect("memory takes it");
    encoder.finish().expect("memory takes it")
}

#[test]
fn every_case_is_byte_identical() {
    let Some(folder) = support::data("solver/tests") else {
        return;
    };
    let mut failures = Vec::new();
    let mut count = 0;
    let mut files: Vec<_> = fs::read_dir(&folder)
        .expect("a folder")
        .map(|entry| entry.expect("an entry").path())
        .collect();
    files.sort();
    for file in files
        .iter()
        .filter(|file| file.extension().is_some_and(|e| e == "test"))
    {
        count += 1;
        let case = Case::parse(&fs::read_to_string(file).expect("a case"));
        let found = case.run(&folder);
        if found != case.expected {
            let name = file.file_name().expect("a file").to_string_lossy();
            failures.push(format!(
                "=== {name}: {}\n--- wanted\n{}--- found\n{found}",
                case.arguments.join(" "),
                case.expected
            ));
        }
    }
    assert!(count > 0, "no cases");
    assert!(
        failures.is_empty(),
        "{} of {count} differ:\n{}",
        failures.len(),
        failures.join("\n")
    );
}
