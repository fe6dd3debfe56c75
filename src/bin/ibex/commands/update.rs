//! `update`.

use super::settings::settings;
use crate::args::{Invocation, help};
use crate::output::Console;
use ibex::ops::{Error, update};
use std::time::Duration;

/// Runs the command.
pub(crate) fn run(
    invocation: &Invocation,
    command_line: Vec<String>,
    console: &mut Console,
) -> Result<u8, Error> {
    let values = &invocation.values;
    let options = update::UpdateOptions {
        wait: values.number("wait").map(Duration::from_secs),
        log: values.choice("logfile").unwrap_or(true),
        force_old_apk: values.is("force-old-apk") || values.is("force"),
        verbosity: invocation.verbosity(),
        version: help::version(&command_line[0]).trim_end().to_owned(),
        command_line,
    };
    update::run(&settings(invocation), &options, console)
}
