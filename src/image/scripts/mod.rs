//! Package scripts without running them (image.md, chapter 6).
//!
//! Each script that is due comes here in apk's order, and has one outcome in the report. What is
//! known is done by code of our own, on the tree, for any architecture; what the evaluator in
//! [`shell`] understands is carried out there, wholly or not at all. Nothing of a package is
//! executed but in the sandbox, and only if that is asked for.

mod busybox;
mod commands;
mod known;
mod shell;
mod syntax;
mod text;

use super::error::ImageError;
use super::request::{BuildRequest, ChosenId, ScriptMode};
use super::store::sha256_hex;
use super::{ScriptOutcome, ScriptResult, Warning, sandbox};
use crate::package::ScriptKind;
use crate::root::tree::{EntryKind, Tree};
use crate::root::{Root, RootError};
use crate::transaction::{ScriptCall, ScriptRunner};
use shell::Stop;
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;

/// Triggers that need the program they come with: caches that it alone can make.
const NEED_PROGRAM: [(&str, &str); 12] = [
    ("gdk-pixbuf-query-loaders", "the list of image loaders"),
    ("glib-compile-schemas", "the compiled settings"),
    ("gtk-update-icon-cache", "the icon cache"),
    ("update-mime-database", "the shared MIME database"),
    ("update-desktop-database", "the desktop database"),
    ("depmod", "the dependencies of kernel modules"),
    ("fc-cache", "the font cache"),
    ("gtk-query-immodules-2.0", "the list of input methods"),
    ("gtk-query-immodules-3.0", "the list of input methods"),
    ("pango-querymodules", "the list of scripts of Pango"),
    ("mkfontdir", "the font lists"),
    ("mkfontscale", "the font lists"),
];

/// A script that waits until the tree is otherwise finished.
#[derive(Clone, Debug)]
struct Waiting {
    package: String,
    origin: String,
    version: String,
    /// Position of its outcome.
    outcome: usize,
    text: Vec<u8>,
    arguments: Vec<String>,
}

/// A script whose turn it is.
struct Due<'a> {
    package: &'a str,
    origin: &'a str,
    version: &'a str,
    kind: &'a str,
    text: &'a [u8],
    arguments: &'a [String],
}

#[derive(Debug, Default)]
struct State {
    outcomes: Vec<ScriptOutcome>,
    triggers: Vec<Waiting>,
    warnings: Vec<Warning>,
    failure: Option<ImageError>,
    /// Numbers that accounts got.
    ids: Vec<ChosenId>,
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

    /// Returns the numbers that accounts got so far.
    pub(super) fn ids(&self) -> Vec<ChosenId> {
        self.state.borrow().ids.clone()
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
                        origin: &trigger.origin,
                        version: &trigger.version,
                        kind: "trigger",
                        text: &trigger.text,
                        arguments: &trigger.arguments,
                    };
                    self.carry_out(root, &script)?
                }
            };
        }
        warnings.append(&mut state.warnings);
        let mut more = self.state.take();
        warnings.append(&mut more.warnings);
        state.ids.append(&mut more.ids);
        self.state.borrow_mut().ids = state.ids;
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
        if let Some(reason) = known::find(script.origin, script.text) {
            return Ok((ScriptResult::BuiltIn, reason.to_owned()));
        }
        let emulated = self.emulate(root, script);
        if emulated.0 != ScriptResult::NotRun || self.request.scripts != ScriptMode::Run {
            return Ok(emulated);
        }
        match sandbox::check(&self.request.architecture) {
            Err(error) if !self.request.scripts_must_run => {
                return Ok((ScriptResult::NotRun, error.to_string()));
            }
            other => other?,
        }
        if let Some(command) = sandbox::gives_away(script.text) {
            let reason = format!("it uses `{command}`, and this user has one user id to give");
            return Ok((ScriptResult::NotRun, reason));
        }
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
        let done = match self.request.check_scripts {
            true => twice(root, &job),
            false => sandbox::run(root, &job),
        };
        match done {
            Ok(said) => Ok((ScriptResult::Ran, said)),
            Err(ImageError::ScriptFailed { reason, .. }) if self.request.scripts_warn => {
                let text = format!("{} {}: {reason}", script.package, script.kind);
                self.state.borrow_mut().warnings.push(Warning {
                    code: "W-SCRIPT-FAILED",
                    text: text.replace('\n', "; "),
                });
                Ok((ScriptResult::Ran, format!("it failed: {reason}")))
            }
            Err(error) => Err(error),
        }
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
        let text = match first.ends_with(" -e") {
            true => format!("set -e\n{text}"),
            false => text.to_owned(),
        };
        let tree = root.tree().expect("an image is built in memory");
        let before = tree.save();
        let variables = [("APK_PACKAGE", package), ("APK_SCRIPT", kind)];
        let day = self.request.build_time / 86400;
        let done = shell::run(root, &text, arguments, &variables, day, &self.request.ids);
        root.forget_directories();
        let reason = match done {
            Ok(done) if done.code == 0 => {
                let said = done.output.trim().to_owned();
                let quiet = !done.busybox && !tree.has_changed(&before);
                self.state.borrow_mut().ids.extend(done.ids);
                return match quiet && !said.is_empty() {
                    true => (ScriptResult::MessageOnly, said),
                    false => (ScriptResult::Emulated, said),
                };
            }
            Ok(done) => match done.output.trim() {
                "" => format!("it would fail with exit code {}", done.code),
                said => format!("it would fail with exit code {}: {said}", done.code),
            },
            Err(Stop::Unsupported(reason)) => need_program(reason),
            Err(Stop::Failed(error)) => format!("it would fail: {error}"),
        };
        tree.restore(before);
        root.forget_directories();
        not_run(reason)
    }
}

/// Says what only a program can make, if that is why a script cannot be carried out.
fn need_program(reason: String) -> String {
    let path = reason
        .strip_prefix("it runs `")
        .and_then(|rest| rest.strip_suffix('`'));
    let name = path.map(|path| path.rsplit('/').next().unwrap_or(path));
    match NEED_PROGRAM.iter().find(|(known, _)| Some(*known) == name) {
        Some((program, what)) => format!("{what} can only be made by `{program}`"),
        None => reason,
    }
}

/// Runs a script twice from the same state, and fails if it makes something else the second time.
fn twice(root: &Root, job: &sandbox::Job<'_>) -> Result<String, ImageError> {
    let tree = root.tree().expect("an image is built in memory");
    let before = tree.save();
    let first_said = sandbox::run(root, job);
    let first = rows(tree)?;
    tree.restore(before);
    root.forget_directories();
    let said = sandbox::run(root, job);
    let second = rows(tree)?;
    let names: BTreeSet<&String> = first.keys().chain(second.keys()).collect();
    let differing: Vec<&str> = names
        .into_iter()
        .filter(|path| first.get(*path) != second.get(*path))
        .map(String::as_str)
        .collect();
    if !differing.is_empty() || first_said.is_ok() != said.is_ok() {
        return Err(ImageError::ScriptNotReproducible {
            package: job.package.to_owned(),
            script: job.kind.to_owned(),
            files: differing.iter().map(|path| format!("/{path}")).collect(),
        });
    }
    said
}

/// Returns what each path of a tree is, contents by digest.
fn rows(tree: &Tree) -> Result<BTreeMap<String, String>, ImageError> {
    let mut rows = BTreeMap::new();
    for entry in tree.entries() {
        let what = match &entry.kind {
            EntryKind::File(content) => {
                let mut bytes = Vec::new();
                tree.reader(content)
                    .read_to_end(&mut bytes)
                    .map_err(|error| RootError::new("read", &entry.path, error))?;
                sha256_hex(&bytes)
            }
            other => format!("{other:?}"),
        };
        let (mode, uid, gid) = (entry.mode, entry.uid, entry.gid);
        rows.insert(entry.path, format!("{mode:o} {uid} {gid} {what}"));
    }
    Ok(rows)
}

/// Returns the origin of a script's package; one without is its own.
fn origin<'s>(script: &ScriptCall<'s>) -> &'s str {
    let package = &script.package.package;
    package.origin.as_deref().unwrap_or(&package.name)
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
                    origin: origin(script),
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
                origin: origin(script).to_owned(),
                version: script.package.package.version.clone(),
                outcome,
                text: script.text.to_vec(),
                arguments: script.arguments.to_vec(),
            });
        }
        true
    }
}
