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
    let mut fires = false;
    let mut passed = Vec::new();
    for directory in all {
        let changed = modified.contains(directory);
        if !fresh && !changed {
            continue;
        }
        let path = format!("/{directory}");
        for text in globs {
            let only_modified = text.starts_with('+');
            let pattern = text.strip_prefix('+').unwrap_or(text);
            if !pattern.starts_with('/') || !glob::matches(pattern, &path, options) {
                continue;
            }
            fires = true;
            if changed || !only_modified {
                passed.push(path);
            }
            break;
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
