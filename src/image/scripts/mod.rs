//! Package scripts without running them (image.md, chapter 6).
//!
//! Each script that is due comes here in apk's order, and has one outcome in the report. What is
//! known is done by code of our own, on the tree, for any architecture; what the evaluator in
//! [`shell`] understands is carried out there, wholly or not at all. Nothing of a package is
//! executed but in the sandbox, and only if that is asked for.

mod busybox;
mod commands;
mod shell;
mod syntax;
mod text;

use super::error::ImageError;
use super::request::{BuildRequest, ScriptMode};
use super::{ScriptOutcome, ScriptResult, Warning, sandbox};
use crate::package::ScriptKind;
use crate::root::Root;
use crate::transaction::{ScriptCall, ScriptRunner};
use shell::Stop;
use std::cell::RefCell;

/// Triggers that need the program they come with: caches that it alone can make.
const NEED_PROGRAM: [(&str, &str); 7] = [
    ("gdk-pixbuf-query-loaders", "the list of image loaders"),
    ("glib-compile-schemas", "the compiled settings"),
    ("gtk-update-icon-cache", "the icon cache"),
    ("update-mime-database", "the shared MIME database"),
    ("update-desktop-database", "the desktop database"),
    ("fc-cache", "the font cache"),
    ("mkfontscale", "the font lists"),
];

/// A script that waits until the tree is otherwise finished.
#[derive(Clone, Debug)]
struct Waiting {
    package: String,
    version: String,
    /// Position of its outcome.
    outcome: usize,
    text: Vec<u8>,
    arguments: Vec<String>,
}

/// A script whose turn it is.
struct Due<'a> {
    package: &'a str,
    version: &'a str,
    kind: &'a str,
    text: &'a [u8],
    arguments: &'a [String],
}

#[derive(Debug, Default)]
struct State {
    outcomes: Vec<ScriptOutcome>,
    triggers: Vec<Waiting>,
    failure: Option<ImageError>,
}

/// The scripts of one build.
pub(super) struct Scripts<'a> {
    request: &'a BuildRequest,
    state: RefCell<State>,
}

impl<'a> Scripts<'a> {
    pub(super) fn new(request: &'a BuildRequest) -> Self {
        Self {
            request,
            state: RefCell::default(),
        }
    }

    /// Returns the error of a script that failed.
    pub(super) fn failure(&self) -> Result<(), ImageError> {
        self.state.borrow_mut().failure.take().map_or(Ok(()), Err)
    }

    /// Carries out the triggers, and returns what became of every script.
    ///
    /// They come after everything else that makes files, so that what a configuration puts at a path
    /// is not in the way of a link of busybox, but the other way round.
    pub(super) fn finish(
        &self,
        root: &Root,
        warnings: &mut Vec<Warning>,
    ) -> Result<Vec<ScriptOutcome>, ImageError> {
        let mut state = self.state.take();
        let mode = self.request.scripts;
        if mode >= ScriptMode::Builtin {
            busybox::install(root)?;
        }
        for trigger in &state.triggers {
            let outcome = &mut state.outcomes[trigger.outcome];
            if mode == ScriptMode::Skip {
                continue;
            }
            (outcome.result, outcome.detail) = match trigger.package.as_str() {
                "busybox" => (ScriptResult::BuiltIn, modules(&trigger.arguments)),
                _ if mode == ScriptMode::Builtin => continue,
                package => {
                    let script = Due {
                        package,
                        version: &trigger.version,
                        kind: "trigger",
                        text: &trigger.text,
                        arguments: &trigger.arguments,
                    };
                    self.carry_out(root, &script)?
                }
            };
        }
        let skipped = state
            .outcomes
            .iter()
            .filter(|o| o.result == ScriptResult::NotRun);
        let mut names = Vec::new();
        for outcome in skipped {
            let ScriptOutcome {
                package,
                script,
                detail,
                ..
            } = outcome;
            warnings.push(Warning {
                code: "W-SCRIPT-SKIPPED",
                text: format!("{package} {script}: {detail}"),
            });
            names.push(format!("{package} {script}"));
        }
        if self.request.fail_on_skipped_script && !names.is_empty() {
            let scripts = names.join(", ");
            return Err(ImageError::ScriptsSkipped { scripts });
        }
        Ok(state.outcomes)
    }

    /// Carries a script out on the tree, or runs it if that is wanted and the only way.
    fn carry_out(
        &self,
        root: &Root,
        script: &Due<'_>,
    ) -> Result<(ScriptResult, String), ImageError> {
        let emulated = self.emulate(root, script);
        if emulated.0 != ScriptResult::NotRun || self.request.scripts != ScriptMode::Run {
            return Ok(emulated);
        }
        sandbox::check(&self.request.architecture)?;
        // Where scripts run, the programs they use must be there.
        busybox::install(root)?;
        let job = sandbox::Job {
            package: script.package,
            version: script.version,
            kind: script.kind,
            text: script.text,
            arguments: script.arguments,
            build_time: self.request.build_time,
        };
        Ok((ScriptResult::Ran, sandbox::run(root, &job)?))
    }

    /// Carries a script out on the tree, or leaves the tree as it is.
    fn emulate(&self, root: &Root, script: &Due<'_>) -> (ScriptResult, String) {
        let Due {
            package,
            kind,
            text,
            arguments,
            ..
        } = *script;
        let not_run = |reason: String| (ScriptResult::NotRun, reason);
        let Ok(text) = std::str::from_utf8(text) else {
            return not_run("it is no text".to_owned());
        };
        let first = text.lines().next().unwrap_or_default();
        let interpreter = first.strip_prefix("#!").map(str::trim);
        let is_shell = matches!(
            interpreter,
            Some("/bin/sh" | "/bin/sh -e" | "/bin/ash" | "/bin/busybox sh" | "/bin/ash -e")
        );
        if !is_shell {
            return not_run(match interpreter {
                Some(name) => format!("it is for `{name}`"),
                None => "it does not say what it is for".to_owned(),
            });
        }
        let commands = text.split(|c: char| !(c.is_ascii_alphanumeric() || "-_".contains(c)));
        let commands: Vec<&str> = commands.collect();
        if let Some((program, what)) = NEED_PROGRAM.iter().find(|(p, _)| commands.contains(p)) {
            return not_run(format!("{what} can only be made by `{program}`"));
        }
        let text = match first.ends_with(" -e") {
            true => format!("set -e\n{text}"),
            false => text.to_owned(),
        };
        let tree = root.tree().expect("an image is built in memory");
        let before = tree.save();
        let variables = [("APK_PACKAGE", package), ("APK_SCRIPT", kind)];
        let day = self.request.build_time / 86400;
        let done = shell::run(root, &text, arguments, &variables, day);
        root.forget_directories();
        let reason = match done {
            Ok(done) if done.code == 0 => {
                let said = done.output.trim().to_owned();
                let quiet = !done.busybox && !tree.has_changed(&before);
                return match quiet && !said.is_empty() {
                    true => (ScriptResult::MessageOnly, said),
                    false => (ScriptResult::Emulated, said),
                };
            }
            Ok(done) => match done.output.trim() {
                "" => format!("it would fail with exit code {}", done.code),
                said => format!("it would fail with exit code {}: {said}", done.code),
            },
            Err(Stop::Unsupported(reason)) => reason,
            Err(Stop::Failed(error)) => format!("it would fail: {error}"),
        };
        tree.restore(before);
        root.forget_directories();
        not_run(reason)
    }
}

/// What remains to be said of busybox's trigger.
fn modules(directories: &[String]) -> String {
    let modules = directories
        .iter()
        .any(|directory| directory.contains("/lib/modules/"));
    match modules {
        true => "links; dependencies of kernel modules are not made".to_owned(),
        false => String::new(),
    }
}

impl ScriptRunner for Scripts<'_> {
    fn script(&self, root: &Root, script: &ScriptCall<'_>) -> bool {
        let name = script.package.package.name.clone();
        let kind = script.kind.name();
        let (result, detail) = match self.request.scripts {
            ScriptMode::Skip => (ScriptResult::NotRun, "scripts are skipped".to_owned()),
            _ if script.kind == ScriptKind::Trigger => {
                (ScriptResult::NotRun, "it is not known".to_owned())
            }
            ScriptMode::Builtin => match name.as_str() {
                "busybox" => (ScriptResult::BuiltIn, String::new()),
                _ => (
                    ScriptResult::NotRun,
                    "only what is built in is done".to_owned(),
                ),
            },
            _ => {
                let due = Due {
                    package: &name,
                    version: &script.package.package.version,
                    kind,
                    text: script.text,
                    arguments: script.arguments,
                };
                match self.carry_out(root, &due) {
                    Ok(done) => done,
                    Err(error) => {
                        let mut state = self.state.borrow_mut();
                        // The first failure is the one to tell.
                        state.failure.get_or_insert(error);
                        return false;
                    }
                }
            }
        };
        let mut state = self.state.borrow_mut();
        state.outcomes.push(ScriptOutcome {
            package: name.clone(),
            script: kind.to_owned(),
            result,
            detail,
        });
        if script.kind == ScriptKind::Trigger {
            let outcome = state.outcomes.len() - 1;
            state.triggers.push(Waiting {
                package: name,
                version: script.package.package.version.clone(),
                outcome,
                text: script.text.to_vec(),
                arguments: script.arguments.to_vec(),
            });
        }
        true
    }
}
