//! `recover`.

use super::settings::settings;
use crate::args::{Invocation, help};
use crate::output::Console;
use ibex::ops::Error;
use ibex::ops::recover::{self, OnlyProblems, RecoverOptions, Report, State};
use ibex::progress::Sink;
use std::time::Duration;

/// Runs the command.
pub(crate) fn run(
    invocation: &Invocation,
    command_line: Vec<String>,
    console: &mut Console,
) -> Result<u8, Error> {
    let values = &invocation.values;
    if let Some(word) = invocation.arguments.first() {
        return Err(Error::Arguments {
            lines: vec![format!("recover: '{word}' is one argument too many")],
            code: 1,
        });
    }
    let options = RecoverOptions {
        simulate: values.is("simulate"),
        wait: values.number("wait").map(Duration::from_secs),
        log: values.choice("logfile").unwrap_or(true),
        verbosity: invocation.verbosity(),
        version: help::version(&command_line[0]).trim_end().to_owned(),
        command_line,
    };
    let settings = settings(invocation);
    let json = values.is("json");
    let report = match json {
        true => recover::run(&settings, &options, &mut OnlyProblems(console))?,
        false => recover::run(&settings, &options, console)?,
    };
    if json {
        let text = serde_json::to_string_pretty(&report).expect("a report is plain data");
        console.print(&format!("{text}\n"));
    } else {
        for line in lines(&report) {
            console.info(&line);
        }
    }
    Ok(report.code())
}

fn lines(report: &Report) -> Vec<String> {
    let files = match report.removed_files {
        0 => None,
        1 => Some("Removed 1 file that a stopped program left".to_owned()),
        count => Some(format!("Removed {count} files that stopped programs left")),
    };
    let mut lines = Vec::new();
    match report.state {
        State::Clean => lines.push("OK: nothing to recover".to_owned()),
        State::Cleaned => {
            lines.extend(files);
            lines.push("OK: no transaction was interrupted after it had begun".to_owned());
        }
        State::Due => {
            let (done, all) = (report.done_before, report.steps.len());
            lines.push(format!("{done} of {all} steps of a transaction are done:"));
            lines.extend(report.steps.iter().cloned());
        }
        State::Finished => {
            lines.extend(files);
            lines.push(match report.errors {
                0 => "OK: the interrupted transaction is finished".to_owned(),
                1 => "1 error; the interrupted transaction is finished".to_owned(),
                count => format!("{count} errors; the interrupted transaction is finished"),
            });
        }
        State::GivenUp => lines.extend(files),
    }
    lines
}
