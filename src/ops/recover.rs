//! `recover`: finish or undo what an interruption left.

use super::Error;
use super::database::{given_up, open_root, take_lock};
use super::log::LogTee;
use crate::config::Settings;
use crate::progress::{Level, Sink};
use crate::root::Root;
use crate::transaction::{self, CutScript, DatabaseText, Recovery};
use serde::Serialize;
use std::time::Duration;

/// How recovery is made.
#[derive(Clone, Debug)]
pub struct RecoverOptions {
    /// Only say what is to be done.
    pub simulate: bool,
    /// `--wait`.
    pub wait: Option<Duration>,
    /// Write the log.
    pub log: bool,
    /// Verbosity, for the log.
    pub verbosity: u8,
    /// The version line, for the log.
    pub version: String,
    /// The command line, for the log.
    pub command_line: Vec<String>,
}

/// What was found, and what became of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// There was nothing to do.
    Clean,
    /// Files that nobody needs were removed.
    Cleaned,
    /// A transaction is to be finished (`--simulate`).
    Due,
    /// A transaction was finished.
    Finished,
    /// A transaction was dropped, because another program changed the database meanwhile.
    GivenUp,
}

/// A script that was cut off.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Cut {
    /// Its name, or the path of a hook.
    pub script: String,
    /// The package that `fix` reinstalls to run it again.
    pub package: Option<String>,
}

impl From<CutScript> for Cut {
    fn from(cut: CutScript) -> Self {
        Self {
            script: cut.name,
            package: cut.package,
        }
    }
}

/// What recovery did or would do.
#[derive(Debug, Serialize)]
pub struct Report {
    /// What was found.
    pub state: State,
    /// The steps of the interrupted transaction.
    pub steps: Vec<String>,
    /// How many of them had been done before.
    pub done_before: usize,
    /// Steps that failed.
    pub errors: u32,
    /// Scripts that were cut off; they were not run again.
    pub cut_scripts: Vec<Cut>,
    /// Files that were removed because nobody needs them.
    pub removed_files: usize,
    /// Packages that `fix` makes whole.
    pub incomplete_packages: Vec<String>,
}

impl Report {
    /// Returns the exit code.
    pub fn code(&self) -> u8 {
        match self.state {
            State::GivenUp => 1,
            _ => self.errors.min(99) as u8,
        }
    }
}

/// Finishes or undoes what an interruption left.
///
/// # Errors
/// [`enum@Error`]; it can be tried again.
pub fn run(
    settings: &Settings,
    options: &RecoverOptions,
    sink: &mut dyn Sink,
) -> Result<Report, Error> {
    let root = open_root(&settings.root, false)?;
    let mut report = describe(&root)?;
    if options.simulate {
        return Ok(report);
    }
    let missing = |error: crate::root::RootError| Error::Database {
        cause: error.cause(),
    };
    if root.stat("lib/apk/db").map_err(missing)?.is_none() {
        return Ok(report);
    }
    let log = match options.log {
        true => root.append("var/log/apk.log", 0o644).ok(),
        false => None,
    };
    let _lock = take_lock(&root, options.wait, sink)?;
    let mut tee = LogTee::begin(
        sink,
        log,
        options.verbosity,
        &options.command_line,
        &options.version,
    );
    let sink: &mut dyn Sink = &mut tee;
    let recovery = transaction::recover(&root, sink)?;
    // Other programs leave files beside their final names; only a look everywhere finds them.
    let text = DatabaseText::read(&root, false).map_err(missing)?;
    if let Ok(installed) = text.installed(true) {
        report.removed_files += transaction::sweep(&root, &installed).map_err(missing)?;
    }
    super::history::settle(&root, &recovery, sink);
    match &recovery {
        Recovery::Cleaned(count) => {
            report.removed_files += count;
            report.state = match report.removed_files {
                0 => State::Clean,
                _ => State::Cleaned,
            };
        }
        Recovery::Finished { outcome, .. } => {
            report.state = State::Finished;
            report.errors = outcome.errors;
            report.cut_scripts = outcome.cut.iter().cloned().map(Cut::from).collect();
        }
        Recovery::GivenUp { packages, .. } => {
            report.state = State::GivenUp;
            report.incomplete_packages.clone_from(packages);
            sink.warning(&given_up(packages));
        }
    }
    Ok(report)
}

/// Says what there is to do.
fn describe(root: &Root) -> Result<Report, Error> {
    let interrupted = transaction::interrupted(root)?;
    let (steps, done_before, state, cut) = match interrupted {
        Some(found) => (found.steps, found.done, State::Due, found.cut),
        None => (Vec::new(), 0, State::Clean, Vec::new()),
    };
    Ok(Report {
        state,
        steps,
        done_before,
        errors: 0,
        cut_scripts: cut.into_iter().map(Cut::from).collect(),
        removed_files: 0,
        incomplete_packages: Vec::new(),
    })
}

/// A sink that passes on what went wrong, and nothing else.
pub struct OnlyProblems<'a>(pub &'a mut dyn Sink);

impl Sink for OnlyProblems<'_> {
    fn event(&mut self, event: crate::progress::Event<'_>) {
        if let crate::progress::Event::Line(Level::Error | Level::Warning, _) = event {
            self.0.event(event);
        }
    }

    fn wants(&self, level: Level) -> bool {
        matches!(level, Level::Error | Level::Warning)
    }
}
