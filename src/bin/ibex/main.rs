//! The command line of ibex: understand, run, report, exit.

mod args;
mod commands;
mod output;

use args::{Invocation, Stop};
use output::Console;
use std::process::ExitCode;

fn main() -> ExitCode {
    let mut words = std::env::args_os().map(|word| word.to_string_lossy().into_owned());
    let program = words.next().unwrap_or_default();
    let words: Vec<String> = words.collect();
    let config = read_config();
    match args::parse(&program, &words, config.as_deref()) {
        Err(Stop::Output(text, code)) => {
            Console::new(1).print(&text);
            ExitCode::from(code)
        }
        Err(Stop::Error(text)) => {
            Console::new(1).print_error(&format!("ERROR: {text}\n"));
            ExitCode::from(1)
        }
        Err(Stop::Usage(text)) => {
            Console::new(1).print_error(&format!("ERROR: {text}\n"));
            ExitCode::from(2)
        }
        Ok(invocation) => run(&program, &words, &invocation),
    }
}

fn run(program: &str, words: &[String], invocation: &Invocation) -> ExitCode {
    let mut console = Console::new(invocation.verbosity());
    for warning in &invocation.warnings {
        console.print_error(&format!("WARNING: {warning}\n"));
    }
    let called = std::iter::once(program.to_owned())
        .chain(words.iter().cloned())
        .collect();
    match commands::run(invocation, called, &mut console) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            for line in error.lines() {
                console.print_error(&format!("ERROR: {line}\n"));
            }
            ExitCode::from(error.code())
        }
    }
}

/// Returns the text of the configuration file: `$APK_CONFIG`, else the first of two that exists.
fn read_config() -> Option<String> {
    if let Some(path) = std::env::var_os("APK_CONFIG") {
        return std::fs::read_to_string(path).ok();
    }
    let mut files = ["/etc/apk/config", "/lib/apk/config"].into_iter();
    files.find_map(|path| std::fs::read_to_string(path).ok())
}
