//! `search --files`: which installed or cached package has a file of a name.

use super::Answer;
use super::owner;
use super::pattern::Pattern;
use super::render::{Format, Key, Object, Value, write_objects};
use super::view::View;
use std::fmt::Write as _;

/// A package file in the cache, by what is in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CachedPackage {
    /// `NAME-VERSION`.
    pub full_name: String,
    /// The paths of its files, without a leading slash.
    pub paths: Vec<String>,
}

/// Answers `search --files`. A word with a slash is compared with whole paths, another with the
/// last part of them; `*` and `?` are wildcards. The status is the number of words that nothing
/// matched.
pub fn search_files(
    view: &View<'_>,
    cached: &[CachedPackage],
    words: &[String],
    format: Format,
) -> Answer {
    let patterns: Vec<(Pattern, bool)> = words
        .iter()
        .map(|word| {
            let whole = word.contains('/');
            (Pattern::new(word.trim_start_matches('/'), false), whole)
        })
        .collect();
    let mut hits = vec![0usize; words.len()];
    let mut matches = |path: &str| {
        let path = path.trim_start_matches('/');
        let name = path.rsplit('/').next().unwrap_or(path);
        let mut any = false;
        for ((pattern, whole), hits) in patterns.iter().zip(&mut hits) {
            if pattern.matches_text(if *whole { path } else { name }) {
                *hits += 1;
                any = true;
            }
        }
        any
    };
    // Path, package, and where that is.
    let mut found: Vec<(String, String, &'static str)> = Vec::new();
    for package in view.installed_packages() {
        let Some(installed) = view.installed_package(package) else {
            continue;
        };
        let full_name = view.get(package).full_name();
        for path in owner::paths(installed).filter(|path| matches(path)) {
            let path = format!("/{}", path.trim_start_matches('/'));
            found.push((path, full_name.clone(), "installed"));
        }
    }
    for package in cached {
        for path in package.paths.iter().filter(|path| matches(path)) {
            let is_known = |(known, name, _): &(String, String, _)| {
                known.trim_start_matches('/') == path && *name == package.full_name
            };
            if !found.iter().any(is_known) {
                found.push((format!("/{path}"), package.full_name.clone(), "cached"));
            }
        }
    }
    found.sort();
    Answer {
        text: written(&found, format),
        status: hits.iter().filter(|hits| **hits == 0).count(),
        ..Answer::default()
    }
}

fn written(found: &[(String, String, &'static str)], format: Format) -> String {
    const PATH: Key = Key {
        name: "path",
        label: "path",
    };
    const PACKAGE: Key = Key {
        name: "package",
        label: "package",
    };
    const STATE: Key = Key {
        name: "state",
        label: "state",
    };
    let mut text = String::new();
    if format == Format::Default {
        for (path, package, _) in found {
            let _ = writeln!(text, "{package}: {path}");
        }
        return text;
    }
    let objects: Vec<Object> = found
        .iter()
        .map(|(path, package, state)| {
            vec![
                (PATH, Value::Text(path.clone())),
                (PACKAGE, Value::Text(package.clone())),
                (STATE, Value::Text((*state).to_owned())),
            ]
        })
        .collect();
    write_objects(&mut text, format, &objects);
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::package::{InstalledDb, InstalledDirectory, InstalledFile, InstalledPackage};

    fn view_of(paths: &[(&str, &str)]) -> InstalledDb {
        let mut installed = InstalledPackage::default();
        installed.package.name = "tool".into();
        installed.package.version = "1-r0".into();
        installed.directories = paths
            .iter()
            .map(|(folder, name)| InstalledDirectory {
                path: (*folder).into(),
                acl: crate::package::Acl::directory_default(),
                files: vec![InstalledFile {
                    name: (*name).into(),
                    acl: crate::package::Acl::file_default(),
                    digest: None,
                }],
            })
            .collect();
        InstalledDb {
            packages: vec![installed],
        }
    }

    #[test]
    fn names_and_paths_are_found() {
        let installed = view_of(&[("usr/bin", "tool"), ("etc", "tool.conf")]);
        let view = View::new(&installed, &[]);
        let cached = [CachedPackage {
            full_name: "other-2-r0".into(),
            paths: vec!["usr/bin/tool2".into(), "usr/bin/tool".into()],
        }];
        let ask = |words: &[&str]| {
            let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
            let answer = search_files(&view, &cached, &words, Format::Default);
            (answer.text, answer.status)
        };
        for (words, text, status) in [
            (
                &["tool"][..],
                "other-2-r0: /usr/bin/tool\ntool-1-r0: /usr/bin/tool\n",
                0,
            ),
            (&["/etc/tool.conf"], "tool-1-r0: /etc/tool.conf\n", 0),
            (&["tool2", "nothing"], "other-2-r0: /usr/bin/tool2\n", 1),
            (&["*.conf"], "tool-1-r0: /etc/tool.conf\n", 0),
            (&["bin/tool"], "", 1),
        ] {
            assert_eq!(ask(words), (text.to_owned(), status), "{words:?}");
        }
        let json = search_files(&view, &cached, &["tool2".to_owned()], Format::Json).text;
        let json: serde_json::Value = serde_json::from_str(&json).unwrap();
        assert_eq!(json[0]["package"], "other-2-r0");
        assert_eq!(json[0]["state"], "cached");
    }
}
