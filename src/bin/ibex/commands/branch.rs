//! `branch`, `mirrors`.

use super::change;
use super::question::{give, show};
use super::settings::settings;
use crate::args::Invocation;
use crate::output::Console;
use ibex::ops::Error;
use ibex::ops::branch;
use ibex::ops::change::Command;
use ibex::ops::mirrors::{self, MirrorsCommand};
use ibex::progress::Sink;
use ibex::solver::UpgradeOptions;

/// Runs `branch`.
pub(crate) fn branch(
    invocation: &Invocation,
    command_line: Vec<String>,
    console: &mut Console,
) -> Result<u8, Error> {
    let words: Vec<&str> = invocation.arguments.iter().map(String::as_str).collect();
    match words[..] {
        [] => {
            let answer = branch::show(&settings(invocation), invocation.values.is("json"))?;
            Ok(give(&answer, console))
        }
        ["switch", to] => switch(invocation, to, command_line, console),
        _ => Err(usage(
            "branch: nothing, or 'switch' and the name of a branch",
        )),
    }
}

fn usage(text: &str) -> Error {
    Error::Arguments {
        lines: vec![text.to_owned()],
        code: 1,
    }
}

/// Shows what would change, asks if that is wanted, and moves the root.
fn switch(
    invocation: &Invocation,
    to: &str,
    command_line: Vec<String>,
    console: &mut Console,
) -> Result<u8, Error> {
    let mut settings = settings(invocation);
    let edited = branch::edit(&settings, to)?;
    for file in &edited {
        for (before, after) in &file.changes {
            console.info(&format!("{}: {before} -> {after}", file.path));
        }
    }
    if invocation.values.is("simulate") {
        // A preview changes nothing, so the new indexes are not kept either.
        settings.cache = false;
    }
    let files = edited.into_iter().map(|file| (file.path, file.text));
    settings.sources.replaced = files.collect();
    let command = Command::Upgrade {
        arguments: Vec::new(),
        options: UpgradeOptions {
            available: true,
            latest: false,
            prune: false,
            ignore: false,
        },
        preupgrade: false,
        preupgrade_only: false,
        preupgrade_depends: Vec::new(),
    };
    let asks = change::interactive(&invocation.values, console);
    let mut ask = |question: &str| !asks || change::ask(question);
    // The summary is always shown; who does not want to be asked has said yes.
    change::run_command(
        invocation,
        command,
        &settings,
        true,
        command_line,
        console,
        &mut ask,
    )
}

/// Runs `mirrors`.
pub(crate) fn mirrors(invocation: &Invocation, console: &mut Console) -> Result<u8, Error> {
    let values = &invocation.values;
    let words: Vec<&str> = invocation.arguments.iter().map(String::as_str).collect();
    let command = match words[..] {
        // `-f` is what Alpine's own set-up calls it; among the global options it means force.
        [] | ["list"] if values.is("fastest") || values.is("force") => MirrorsCommand::Fastest,
        ["fastest"] => MirrorsCommand::Fastest,
        [] | ["list"] if values.is("measure") => MirrorsCommand::Measure,
        ["rank"] => MirrorsCommand::Measure,
        [] | ["list"] => MirrorsCommand::List,
        ["use", _, ..] => MirrorsCommand::Use(invocation.arguments[1..].to_vec()),
        _ => {
            return Err(usage(
                "mirrors: one of list, rank, fastest, or 'use' and addresses of mirrors",
            ));
        }
    };
    let settings = settings(invocation);
    let answer = mirrors::run(
        &settings,
        &command,
        values.is("simulate"),
        values.is("json"),
    )?;
    Ok(show(&answer, console))
}
