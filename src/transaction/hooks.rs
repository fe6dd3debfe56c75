//! Commit hooks (commit.md, chapter 12).

use super::Options;
use super::scripts::{self, Failure, Program, Surroundings, Witness};
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

/// A file in a folder of hooks.
#[derive(Clone, Debug)]
pub(super) struct Hook {
    /// Path relative to the root.
    pub(super) path: String,
}

/// Runs the hooks in the order of their names; returns how many there are, or the message of the
/// first failure.
pub(super) fn run(
    root: &Root,
    options: &Options,
    stage: Stage,
    sink: &mut dyn Sink,
) -> Result<usize, String> {
    let hooks = all(root, options);
    let mut each = hooks.iter();
    let ran = each.try_for_each(|hook| run_one(root, options, hook, stage, None, sink));
    ran.map(|()| hooks.len()).map_err(|failure| match failure {
        Failure::NotStarted(error) => error.to_string(),
        Failure::Failed(message) => message,
    })
}

/// Runs one hook.
pub(super) fn run_one(
    root: &Root,
    options: &Options,
    hook: &Hook,
    stage: Stage,
    witness: Witness<'_>,
    sink: &mut dyn Sink,
) -> Result<(), Failure> {
    let path = &hook.path;
    if !options.commit_hooks {
        sink.info(&format!("Skipping: {path} {}", stage.name()));
        return Ok(());
    }
    // A file that is not executable is no hook; apk aborts without a word (commit.md, W37).
    let stat = root.stat(path).ok().flatten();
    if stat.is_none_or(|stat| stat.mode & 0o111 == 0) {
        sink.warning(&format!("{path}: skipped, it is not executable"));
        return Ok(());
    }
    sink.line(
        Level::Detail,
        &format!("Executing /{path} {}", stage.name()),
    );
    let program = Program {
        name: path,
        text: None,
        arguments: &[stage.name().to_owned()],
        kind: stage.name(),
        package: None,
        prefix: "* ",
    };
    let (_, name) = crate::root::split(path);
    let announce = |sink: &mut dyn Sink| {
        sink.info(&format!("Executing {} {name}", stage.name()));
    };
    let around = Surroundings {
        no_chroot: options.force_no_chroot,
        preserve_env: options.preserve_env,
        usermode: options.usermode,
    };
    scripts::run(root, &around, &program, witness, sink, announce)
}

/// Returns the hooks in the order of their names; `etc` hides the same name in `lib`.
pub(super) fn all(root: &Root, options: &Options) -> Vec<Hook> {
    if !options.scripts {
        return Vec::new();
    }
    let mut found = BTreeMap::new();
    for folder in FOLDERS {
        for name in root.list(folder).unwrap_or_default() {
            let Some(name) = name.to_str().filter(|name| !name.starts_with('.')) else {
                continue;
            };
            found.entry(name.to_owned()).or_insert_with(|| Hook {
                path: format!("{folder}/{name}"),
            });
        }
    }
    found.into_values().collect()
}
