//! One file a command: from what was typed to an operation, and its result to the console.

mod audit;
mod branch;
mod cache;
mod change;
mod complete;
mod files;
mod history;
mod image;
mod image_upkeep;
mod keep;
mod question;
mod recover;
mod settings;
mod update;

pub(crate) use image::report_usage;

use crate::args::Invocation;
use crate::output::Console;
use ibex::ops::Error;
use ibex::transaction::Interrupt;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

/// Runs the command; returns the exit code.
pub(crate) fn run(
    invocation: &Invocation,
    command_line: Vec<String>,
    console: &mut Console,
) -> Result<u8, Error> {
    if invocation.applet.planned {
        return Err(not_implemented(invocation.applet.name));
    }
    if invocation.applet.name != "image" {
        hint_at_keys(invocation, console);
    }
    match invocation.applet.name {
        "add" | "del" | "fix" | "rollback" | "undo" | "upgrade" => {
            change::run(invocation, command_line, console)
        }
        "audit" => audit::run(invocation, console),
        "branch" => branch::branch(invocation, command_line, console),
        "mirrors" => branch::mirrors(invocation, console),
        "cache" => cache::run(invocation, console),
        "completions" => complete::completions(invocation, &command_line[0], console),
        "man" => complete::man(invocation, console),
        "serve" => keep::serve(invocation, console),
        "snapshot" => keep::snapshot(invocation, console),
        "extract" => files::extract(invocation, console),
        "image" => Ok(image::run(invocation, console)),
        "history" => history::run(invocation, console),
        "index" => files::index(invocation, console),
        "verify" => files::verify(invocation, console),
        "dot" | "fetch" | "info" | "list" | "manifest" | "policy" | "query" | "search"
        | "stats" | "version" | "why" => question::run(invocation, console),
        "recover" => recover::run(invocation, command_line, console),
        "update" => update::run(invocation, command_line, console),
        name => Err(not_implemented(name)),
    }
}

/// Says so if `--keys-dir` names nothing: the signatures that are then not trusted do not tell why.
fn hint_at_keys(invocation: &Invocation, console: &mut Console) {
    let settings = settings::settings(invocation);
    let Some(folder) = settings.keys_dir.as_deref() else {
        return;
    };
    let path = settings.root.join(folder);
    if !path.is_dir() {
        let path = path.display();
        let why = match folder.is_relative() {
            true => "; a relative --keys-dir is below the root",
            false => "",
        };
        console.hint(&format!(
            "there is no directory {path}, so no key is trusted{why}"
        ));
    }
}

/// Lets signals that end a process wait while a transaction must not end.
fn interrupt() -> Interrupt {
    let interrupt = Interrupt::default();
    for signal in [SIGHUP, SIGINT, SIGTERM] {
        let number = signal as usize;
        // Without handlers a signal ends the process at once, and recovery has more to do.
        let _ = signal_hook::flag::register_conditional_default(signal, interrupt.idle())
            .and_then(|_| signal_hook::flag::register_usize(signal, interrupt.flag(), number));
    }
    interrupt
}

/// Removes temporary files when a signal ends the process, which it does as if nobody had waited for
/// it. What is ignored stays ignored.
fn clean_up_on_signals() {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let ignored = ignored.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    let is_ignored = |signal: &i32| ignored.unwrap_or(0) >> (signal - 1) & 1 == 1;
    let wanted = [SIGHUP, SIGINT, SIGTERM]
        .into_iter()
        .filter(|signal| !is_ignored(signal));
    // Without it a signal ends the process all the same.
    let Ok(mut signals) = signal_hook::iterator::Signals::new(wanted) else {
        return;
    };
    std::thread::spawn(move || {
        for signal in signals.forever() {
            ibex::root::passing::remove_all();
            let _ = signal_hook::low_level::emulate_default_handler(signal);
        }
    });
}

fn not_implemented(what: &str) -> Error {
    Error::Arguments {
        lines: vec![format!("not implemented yet: {what}")],
        code: 1,
    }
}
