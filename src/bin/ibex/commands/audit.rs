//! `audit`.

use super::settings::settings;
use crate::args::Invocation;
use crate::output::Console;
use ibex::ops::Error;
use ibex::ops::audit::{self, AuditOptions, Mode};

/// Runs the command.
pub(crate) fn run(invocation: &Invocation, console: &mut Console) -> Result<u8, Error> {
    let values = &invocation.values;
    let mode = if values.is("full") {
        Mode::Full
    } else if values.is("system") {
        Mode::System
    } else {
        Mode::Backup
    };
    let options = AuditOptions {
        mode,
        check_permissions: values.is("check-permissions"),
        details: values.is("details"),
        ignore_busybox_symlinks: values.is("ignore-busybox-symlinks"),
        packages: values.is("packages"),
        protected_paths: values.last("protected-paths").map(Into::into),
        recursive: values.is("recursive"),
        quiet: invocation.verbosity() == 0,
        directories: invocation.arguments.clone(),
    };
    let text = audit::run(&settings(invocation), &options, console)?;
    console.print(&text);
    Ok(0)
}
