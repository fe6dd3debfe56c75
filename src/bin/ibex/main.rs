//! The command line of ibex: understand, run, report, exit.

mod args;
mod commands;
mod output;
mod progress;
mod table;

use args::{Invocation, Stop};
use output::{Colours, Console};
use std::ffi::OsString;
use std::process::ExitCode;

fn main() -> ExitCode {
    let mut code = work();
    if let Some(cause) = output::unwritten() {
        let text = format!("cannot write to standard output: {cause}");
        Console::new(1, Colours::Auto).error_line(&text);
        code = code.max(1);
    }
    ExitCode::from(code)
}

/// Does what the command line says; returns the exit code.
fn work() -> u8 {
    let mut words = std::env::args_os();
    let program = words.next().unwrap_or_default();
    let program = program.to_string_lossy().into_owned();
    let words = words.map(OsString::into_string);
    let words: Vec<String> = match words.collect::<Result<_, _>>() {
        Ok(words) => words,
        Err(word) => {
            // Another name than the one that was meant would be worse than none.
            let word = word.as_encoded_bytes().escape_ascii();
            let text = format!("command line: '{word}' is not UTF-8, which is not supported");
            Console::new(1, Colours::Auto).error_line(&text);
            return 1;
        }
    };
    let config = read_config();
    let mut warnings = Vec::new();
    let parsed = args::parse(&program, &words, config.as_deref(), &mut warnings);
    let colours = parsed.as_ref().map_or(Colours::Auto, colours);
    // Before whatever comes of the words, as apk tells them.
    for warning in &warnings {
        let mut console = Console::new(1, colours);
        console.print_labelled("WARNING:", output::colour::WARN, warning);
    }
    match parsed {
        Err(Stop::Output(text, code)) => {
            Console::new(1, Colours::Auto).print(&text);
            code
        }
        Err(Stop::Error(text, hint)) => {
            let mut console = Console::new(1, Colours::Auto);
            console.error_line(&text);
            if let Some(hint) = hint {
                console.hint(&hint);
            }
            1
        }
        Err(Stop::Usage(text)) => {
            let json = words.iter().take_while(|word| *word != "--");
            let json = json.into_iter().any(|word| word == "--json");
            commands::report_usage(&text, json, &mut Console::new(1, Colours::Auto));
            2
        }
        Ok(invocation) => run(&program, &words, &invocation),
    }
}

fn colours(invocation: &Invocation) -> Colours {
    match invocation.values.last("color") {
        Some("yes") => Colours::Yes,
        Some("no") => Colours::No,
        _ => Colours::Auto,
    }
}

fn run(program: &str, words: &[String], invocation: &Invocation) -> u8 {
    let mut console = Console::new(invocation.verbosity(), colours(invocation));
    let called = std::iter::once(program.to_owned())
        .chain(words.iter().cloned())
        .collect();
    match commands::run(invocation, called, &mut console) {
        Ok(code) => code,
        Err(error) => {
            report(&error, &mut console);
            if invocation.values.is("json") {
                let lines = error.lines();
                let object = serde_json::json!({ "error": lines, "code": error.code() });
                console.print(&format!("{object}\n"));
            }
            error.code()
        }
    }
}

/// Prints why something did not happen, and to people what to do next.
fn report(error: &ibex::ops::Error, console: &mut Console) {
    for line in error.lines() {
        console.error_line(&line);
    }
    for hint in error.hints() {
        console.hint(&hint);
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
