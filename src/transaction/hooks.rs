//! Commit hooks (commit.md, chapter 12).

use super::Options;
use super::scripts::{self, Program, Surroundings};
use crate::progress::{Level, Sink};
use crate::root::Root;
use std::collections::BTreeMap;

const FOLDERS: [&str; 2] = ["etc/apk/commit_hooks.d", "lib/apk/commit_hooks.d"];

/// When a hook runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// Before any change; a failure stops the transaction.
    PreCommit,
    /// After the database was written; a failure is only told.
    PostCommit,
}

impl Stage {
    fn name(self) -> &'static str {
        match self {
            Self::PreCommit => "pre-commit",
            Self::PostCommit => "post-commit",
        }
    }
}

/// Runs the hooks in the order of their names; returns the message of the first failure.
pub(super) fn run(
    root: &Root,
    options: &Options,
    stage: Stage,
    sink: &mut dyn Sink,
) -> Result<(), String> {
    if !options.scripts {
        return Ok(());
    }
    for (name, path) in hooks(root) {
        if !options.commit_hooks {
            sink.info(&format!("Skipping: {path} {}", stage.name()));
            continue;
        }
        // A file that is not executable is no hook; apk aborts without a word (commit.md, W37).
        let executable = root
            .stat(&path)
            .ok()
            .flatten()
            .is_some_and(|s| s.mode & 0o111 != 0);
        if !executable {
            sink.warning(&format!("{path}: skipped, it is not executable"));
            continue;
        }
        sink.line(
            Level::Detail,
            &format!("Executing /{path} {}", stage.name()),
        );
        let program = Program {
            name: &path,
            text: None,
            arguments: &[stage.name().to_owned()],
            kind: stage.name(),
            package: None,
            prefix: "* ",
        };
        let announce = |sink: &mut dyn Sink| {
            sink.info(&format!("Executing {} {name}", stage.name()));
        };
        let around = Surroundings {
            no_chroot: options.force_no_chroot,
            preserve_env: options.preserve_env,
            usermode: options.usermode,
        };
        scripts::run(root, &around, &program, sink, announce)?;
    }
    Ok(())
}

/// Returns name and path of every hook; `etc` hides the same name in `lib`.
fn hooks(root: &Root) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    for folder in FOLDERS {
        for name in root.list(folder).unwrap_or_default() {
            let Some(name) = name.to_str().filter(|name| !name.starts_with('.')) else {
                continue;
            };
            found
                .entry(name.to_owned())
                .or_insert_with(|| format!("{folder}/{name}"));
        }
    }
    found
}
