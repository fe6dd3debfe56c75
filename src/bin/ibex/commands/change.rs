//! `add`, `del`, `fix`, `upgrade`, `undo`, `rollback`.

use super::question::hint_at_names;
use super::settings::settings;
use crate::args::{Invocation, Values, help};
use crate::output::Console;
use ibex::config::Settings;
use ibex::ops::Error;
use ibex::ops::change::{self, Ask, ChangeOptions, Command, Explain, Outcome, SolverChoice};
use ibex::ops::history::{self, Moment};
use ibex::ops::known::Known;
use ibex::ops::query::From;
use ibex::progress::Silent;
use ibex::solver::{AddOptions, FixOptions, UpgradeOptions};
use ibex::transaction;
use std::io::{Read, Write};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::time::Duration;

/// The variables that tell a second run that the first one was a preupgrade.
const TOKENS: [&str; 2] = ["APK_PREUPGRADE_TOKEN", "APK_SELFUPGRADE_TOKEN"];
const TOKEN: &str = "laiNgeiThu6ip1Te";

/// Runs the command.
pub(crate) fn run(
    invocation: &Invocation,
    command_line: Vec<String>,
    console: &mut Console,
) -> Result<u8, Error> {
    let asks = interactive(&invocation.values, console);
    let mut answer = |question: &str| ask(question);
    let (command, settings) = (command(invocation)?, settings(invocation));
    let done = run_command(
        invocation,
        command,
        &settings,
        asks,
        command_line,
        console,
        &mut answer,
    );
    if invocation.applet.name == "del" && console.terminal && !matches!(done, Ok(0)) {
        // The hint comes behind what it is about.
        let code = done.unwrap_or_else(|error| {
            crate::report(&error, console);
            error.code()
        });
        let known = Known::open(&settings, From::Installed, true, &mut Silent);
        if let Ok(known) = known {
            hint_at_names(&known, &invocation.arguments, console);
        }
        return Ok(code);
    }
    done
}

/// Runs a change that was made up elsewhere; `summary` shows what it does and has `ask` asked.
pub(crate) fn run_command(
    invocation: &Invocation,
    command: Command,
    settings: &Settings,
    summary: bool,
    command_line: Vec<String>,
    console: &mut Console,
    ask: Ask<'_>,
) -> Result<u8, Error> {
    let values = &invocation.values;
    let diskless = values.is("initramfs-diskless-boot");
    let force = values.is("force");
    let json = values.is("json");
    if json {
        console.keep_for_data();
    }
    let options = ChangeOptions {
        command,
        create: values.is("initdb") || diskless,
        usermode: usermode(values),
        simulate: values.is("simulate"),
        verbosity: if json { 0 } else { invocation.verbosity() },
        width: console.width(),
        interactive: summary,
        show_plan: console.terminal && invocation.verbosity() == 1 && !json,
        solver: match values.last("solver") {
            Some("apk") => SolverChoice::Apk,
            Some("complete") => SolverChoice::Complete,
            _ => SolverChoice::Auto,
        },
        explain: explain(values, console),
        force_broken_world: values.is("force-broken-world") || diskless,
        force_missing_repositories: values.is("force-missing-repositories"),
        force_non_repository: values.is("force-non-repository") || force || diskless,
        force_old_apk: values.is("force-old-apk") || force || diskless,
        predownload: values.is("cache-predownload"),
        log: values.choice("logfile").unwrap_or(true),
        wait: values.number("wait").map(Duration::from_secs),
        sync: values.choice("sync"),
        history: values.choice("history").unwrap_or(!diskless).then(|| {
            let keep = values
                .number("history-keep")
                .unwrap_or(history::KEEP.into());
            u32::try_from(keep).unwrap_or(u32::MAX)
        }),
        transaction: transaction::Options {
            limits: settings.limits,
            ..transaction_options(values)?
        },
        interrupt: super::interrupt(),
        version: help::version(&command_line[0]).trim_end().to_owned(),
        command_line: command_line.clone(),
        after_preupgrade: is_second_run(),
    };
    progress(values, console);
    // Asked before the change: afterwards the system names a file that was deleted.
    let program = std::env::current_exe().ok();
    let (outcome, report) = change::run_reported(settings, &options, console, ask)?;
    if json && outcome != Outcome::RunAgain {
        let text = serde_json::to_string(&report).expect("a report is made of texts and numbers");
        console.print(&format!("{text}\n"));
    }
    match outcome {
        Outcome::Done(code) => Ok(code),
        Outcome::RunAgain => Err(run_again(program, &command_line)),
    }
}

fn command(invocation: &Invocation) -> Result<Command, Error> {
    let values = &invocation.values;
    let arguments = invocation.arguments.clone();
    Ok(match invocation.applet.name {
        "add" => Command::Add {
            arguments,
            options: AddOptions {
                upgrade: values.is("upgrade"),
                latest: values.is("latest"),
            },
            virtual_package: values.last("virtual").map(str::to_owned),
        },
        "del" => Command::Del {
            arguments,
            rdepends: values.is("rdepends"),
        },
        "fix" => Command::Fix {
            arguments,
            options: FixOptions {
                reinstall: values.is("reinstall"),
                upgrade: values.is("upgrade"),
                depends: values.is("depends"),
                xattr: values.is("xattr"),
            },
            directory_permissions: values.is("directory-permissions"),
        },
        "rollback" => Command::Return(Moment::After(match arguments.as_slice() {
            [number] => transaction_number(number)?,
            _ => return Err(usage("rollback needs the number of a transaction, or 0")),
        })),
        "undo" => Command::Return(Moment::Without(match arguments.as_slice() {
            [] => None,
            [number] => Some(transaction_number(number)?),
            _ => return Err(usage("undo takes back one transaction at a time")),
        })),
        _ => Command::Upgrade {
            arguments,
            options: UpgradeOptions {
                available: values.is("available"),
                latest: values.is("latest"),
                prune: values.is("prune"),
                ignore: values.is("ignore"),
            },
            preupgrade: values.choice("preupgrade").unwrap_or(true),
            preupgrade_only: values.is("preupgrade-only"),
            preupgrade_depends: values.all("preupgrade-depends"),
        },
    })
}

/// Reads the number of a transaction.
pub(super) fn transaction_number(text: &str) -> Result<i64, Error> {
    let number = text.parse().ok().filter(|number| *number >= 0);
    number.ok_or_else(|| usage(&format!("'{text}' is not the number of a transaction")))
}

fn usage(line: &str) -> Error {
    Error::Arguments {
        lines: vec![line.to_owned()],
        code: 1,
    }
}

fn explain(values: &Values, console: &Console) -> Explain {
    match values.choice("explain") {
        Some(false) => Explain::No,
        _ if values.is("json") => Explain::Json,
        Some(true) => Explain::Text,
        None if console.terminal => Explain::Text,
        None => Explain::No,
    }
}

fn usermode(values: &Values) -> bool {
    match values.last("usermode") {
        Some("auto") => !rustix::process::geteuid().is_root(),
        Some(choice) => choice == "yes",
        None => false,
    }
}

pub(crate) fn interactive(values: &Values, console: &Console) -> bool {
    match values.last("interactive") {
        Some("yes") => true,
        Some("auto") => console.terminal,
        Some(_) => false,
        None => console.terminal && std::path::Path::new("/etc/apk/interactive").exists(),
    }
}

fn transaction_options(values: &Values) -> Result<transaction::Options, Error> {
    let diskless = values.is("initramfs-diskless-boot");
    Ok(transaction::Options {
        scripts: values.choice("scripts").unwrap_or(true),
        commit_hooks: values.choice("commit-hooks").unwrap_or(!diskless),
        clean_protected: values.is("clean-protected"),
        purge: values.is("purge"),
        force_overwrite: values.is("force-overwrite") || values.is("force") || diskless,
        force_no_chroot: values.is("force-no-chroot"),
        preserve_env: values.is("preserve-env"),
        hard_links: values.is("link-files"),
        overlay: if values.is("overlay-from-stdin") {
            read_overlay()?
        } else {
            Vec::new()
        },
        ..transaction::Options::default()
    })
}

/// Reads the list of overlay files; a line without slash ends it (commit.md, 15.2).
fn read_overlay() -> Result<Vec<String>, Error> {
    let mut text = String::new();
    std::io::stdin()
        .read_to_string(&mut text)
        .map_err(|error| Error::Arguments {
            lines: vec![format!("cannot read the overlay list: {error}")],
            code: 99,
        })?;
    let lines = text.lines().take_while(|line| line.contains('/'));
    Ok(lines
        .filter(|line| !line.ends_with('/'))
        .map(str::to_owned)
        .collect())
}

fn progress(values: &Values, console: &mut Console) {
    let variable = |name: &str| std::env::var_os(name).map(|v| v.to_string_lossy().into_owned());
    let wanted = match values.last("progress") {
        Some("yes") => true,
        Some("no") => false,
        _ => console.terminal && variable("TERM").as_deref() != Some("dumb"),
    };
    if wanted {
        let unicode = variable("LANG").is_some_and(|lang| lang.contains("UTF-8"));
        let cell = if unicode { "\u{2588}" } else { "#" };
        console.show_progress(variable("APK_PROGRESS_CHAR").unwrap_or_else(|| cell.to_owned()));
    }
    if let Some(fd) = values.number("progress-fd") {
        // The descriptor is opened anew, so that a wrong number is an error and not a mishap.
        let path = format!("/proc/self/fd/{fd}");
        if let Ok(file) = std::fs::File::options().append(true).open(path) {
            console.machine_progress(file);
        }
    }
}

/// Asks on the terminal; end of file counts as yes, as in apk.
pub(crate) fn ask(question: &str) -> bool {
    let mut out = std::io::stdout();
    let _ = out
        .write_all(question.as_bytes())
        .and_then(|()| out.flush());
    let mut answer = [0];
    match std::io::stdin().read(&mut answer) {
        Ok(0) => true,
        Ok(_) => matches!(answer[0], b'y' | b'Y' | b'\n'),
        Err(_) => false,
    }
}

fn is_second_run() -> bool {
    TOKENS
        .iter()
        .any(|name| std::env::var_os(name).is_some_and(|value| value == TOKEN))
}

/// Replaces this process by the new program; returns only if that fails.
fn run_again(program: Option<PathBuf>, command_line: &[String]) -> Error {
    let program = program.filter(|path| path.exists());
    let mut command =
        std::process::Command::new(program.unwrap_or_else(|| command_line[0].clone().into()));
    command
        .arg0(&command_line[0])
        .args(&command_line[1..])
        .arg("--no-self-upgrade");
    for name in TOKENS {
        command.env(name, TOKEN);
    }
    let _ = command.exec();
    Error::Arguments {
        lines: vec!["PANIC! Failed to re-execute new apk-tools!".into()],
        code: 1,
    }
}
