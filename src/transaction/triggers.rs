//! Which triggers fire, and with which directories (commit.md, chapter 11).

use crate::package::glob;
use std::collections::BTreeSet;

/// Returns the directories to pass to a package's trigger, or `None` if it does not fire.
///
/// `all` are the known directories, `modified` those that changed in this run; a package that was
/// itself installed in this run (`fresh`) looks at all of them. The arguments are sorted.
pub(super) fn arguments(
    globs: &[String],
    all: &BTreeSet<String>,
    modified: &BTreeSet<String>,
    fresh: bool,
) -> Option<Vec<String>> {
    let options = glob::Options {
        pathname: true,
        ignore_case: false,
    };
    let globs: Vec<(&str, bool)> = globs
        .iter()
        .map(|text| match text.strip_prefix('+') {
            Some(pattern) => (pattern, true),
            None => (text.as_str(), false),
        })
        .filter_map(|(pattern, only_modified)| Some((pattern.strip_prefix('/')?, only_modified)))
        .collect();
    let mut fires = false;
    let mut passed = Vec::new();
    let among = if fresh { all } else { modified };
    for directory in among {
        // The slash before both matches itself.
        let mut matching = globs
            .iter()
            .filter(|(pattern, _)| glob::matches(pattern, directory, options));
        let Some((_, only_modified)) = matching.next() else {
            continue;
        };
        let changed = !fresh || modified.contains(directory);
        if !fresh && !all.contains(directory) {
            continue;
        }
        fires = true;
        if changed || !only_modified {
            passed.push(format!("/{directory}"));
        }
    }
    fires.then_some(passed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn globs_choose_directories() {
        let set = |list: &[&str]| {
            list.iter()
                .map(|s| (*s).to_owned())
                .collect::<BTreeSet<_>>()
        };
        let all = set(&["bin", "usr/bin", "lib/modules/5", "etc"]);
        let modified = set(&["usr/bin"]);
        let globs = |list: &[&str]| list.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>();
        for (patterns, fresh, wanted) in [
            (
                &["/bin", "/usr/bin"][..],
                true,
                Some(vec!["/bin", "/usr/bin"]),
            ),
            (&["/bin", "/usr/bin"], false, Some(vec!["/usr/bin"])),
            (&["/lib/modules/*"], true, Some(vec!["/lib/modules/5"])),
            (&["/lib/*"], true, None),
            (&["+/bin", "+/usr/bin"], true, Some(vec!["/usr/bin"])),
            (&["+/bin"], true, Some(vec![])),
            (&["bin"], true, None),
        ] {
            let found = arguments(&globs(patterns), &all, &modified, fresh);
            let wanted = wanted.map(|list: Vec<&str>| globs(&list));
            assert_eq!(found, wanted, "{patterns:?}");
        }
    }
}
