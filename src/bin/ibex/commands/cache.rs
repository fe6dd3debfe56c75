//! `cache`.

use super::question::{give, show};
use super::settings::settings;
use crate::args::Invocation;
use crate::output::Console;
use ibex::ops::Error;
use ibex::ops::cache::{self, CacheCommand, CacheOptions};
use ibex::ops::store::{self, StoreCommand};
use ibex::solver::Flags;

/// What follows `cache`.
const COMMANDS: &str = "clean, dir, download, list, prune, purge, size, sync, verify";

/// Runs the command.
pub(crate) fn run(invocation: &Invocation, console: &mut Console) -> Result<u8, Error> {
    let values = &invocation.values;
    let (name, constraints) = match invocation.arguments.split_first() {
        Some((name, constraints)) => (name.as_str(), constraints),
        None => ("", &[][..]),
    };
    if let Some(command) = StoreCommand::from_name(name, values.is("ci")) {
        let answer = store::run(&settings(invocation), command, values.is("json"))?;
        return Ok(show(&answer, console));
    }
    let Some(command) = CacheCommand::from_name(name) else {
        return Err(Error::Arguments {
            lines: vec![match name {
                "" => format!("cache: name one of {COMMANDS}"),
                name => format!("cache: '{name}' is none of {COMMANDS}"),
            }],
            code: 99,
        });
    };
    let flags = Flags::AVAILABLE.when(values.is("available"))
        | Flags::LATEST.when(values.is("latest"))
        | Flags::UPGRADE.when(values.is("upgrade"));
    let options = CacheOptions {
        command,
        constraints: constraints.to_vec(),
        add_dependencies: values.is("add-dependencies"),
        flags,
        ignore_conflicts: values.is("ignore-conflict"),
        simulate: values.is("simulate"),
        force_missing_repositories: values.is("force-missing-repositories"),
        purge: values.is("purge"),
        width: console.width(),
    };
    let answer = cache::run(&settings(invocation), &options, console)?;
    Ok(give(&answer, console))
}
