//! The one place that prints.
//!
//! Off a terminal the bytes are exactly apk's. On a terminal, foreign text has its control
//! characters made visible, so that no package or server can write to the screen what it likes.

use crate::progress::Display;
use crate::table::{Column, Table};
use ibex::ops::log::shown;
use ibex::progress::{Event, Level, PlannedChange, PlannedKind, Sink, Stream};
use ibex::solver::human_size;
use std::fmt::Write as _;
use std::io::{self, IsTerminal, Write};
use std::sync::OnceLock;

/// Colours of a terminal; the theme of the terminal says what they look like.
pub(crate) mod colour {
    /// Errors, removals.
    pub(crate) const BAD: &str = "1;31";
    /// Warnings, downgrades.
    pub(crate) const WARN: &str = "33";
    /// Success, new packages.
    pub(crate) const GOOD: &str = "32";
    /// Upgrades, hints.
    pub(crate) const NOTE: &str = "36";
    /// Headings and names.
    pub(crate) const STRONG: &str = "1";
    /// What is beside the point.
    pub(crate) const DIM: &str = "2";
}

/// Puts a colour around a text.
pub(crate) fn paint(text: &str, code: &str, colour: bool) -> String {
    if colour && !code.is_empty() && !text.is_empty() {
        format!("\x1b[{code}m{text}\x1b[0m")
    } else {
        text.to_owned()
    }
}

/// When to colour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Colours {
    /// On a terminal, unless the environment says otherwise.
    Auto,
    /// Always.
    Yes,
    /// Never.
    No,
}

impl Colours {
    fn on(self, terminal: bool) -> bool {
        let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
        match self {
            Self::Yes => true,
            Self::No => false,
            Self::Auto => {
                terminal
                    && set("NO_COLOR").is_none()
                    && set("TERM").is_none_or(|terminal| terminal != "dumb")
            }
        }
    }
}

/// The two standard streams.
pub(crate) struct Console {
    verbosity: u8,
    /// Standard output is a terminal.
    pub(crate) terminal: bool,
    error_terminal: bool,
    /// Standard output is coloured.
    pub(crate) colour: bool,
    error_colour: bool,
    progress: Option<Progress>,
    display: Option<Display>,
    /// Where `--progress-fd` wants numbers.
    machine: Option<std::fs::File>,
    /// Standard output is for data alone.
    data_only: bool,
}

/// A bar on the last line, as apk draws it (cli.md, 1.10): for who wants progress in a file.
struct Progress {
    columns: usize,
    cell: String,
    shown: Option<(usize, usize)>,
    last: (u64, u64),
}

impl Console {
    pub(crate) fn new(verbosity: u8, colours: Colours) -> Self {
        let terminal = io::stdout().is_terminal();
        let error_terminal = io::stderr().is_terminal();
        Self {
            verbosity,
            terminal,
            error_terminal,
            colour: colours.on(terminal),
            error_colour: colours.on(error_terminal),
            progress: None,
            display: None,
            machine: None,
            data_only: false,
        }
    }

    /// Keeps standard output free for data: messages are silenced, output of scripts goes to
    /// standard error.
    pub(crate) fn keep_for_data(&mut self) {
        self.verbosity = 0;
        self.data_only = true;
    }

    /// Turns the progress bar on, with the text of one filled cell.
    pub(crate) fn show_progress(&mut self, cell: String) {
        if self.terminal {
            self.display = Some(Display::new(&cell, self.colour));
        } else {
            self.progress = Some(Progress {
                columns: 80,
                cell,
                shown: None,
                last: (0, 0),
            });
        }
    }

    /// Writes progress in numbers to a file.
    pub(crate) fn machine_progress(&mut self, file: std::fs::File) {
        self.machine = Some(file);
    }

    /// Returns the width to wrap at: the terminal's if it is wider than 25, else 50.
    pub(crate) fn width(&self) -> usize {
        let columns = if self.terminal {
            terminal_columns()
        } else {
            None
        };
        columns.filter(|columns| *columns > 25).unwrap_or(50)
    }

    /// Returns the columns of the terminal.
    pub(crate) fn columns(&self) -> usize {
        terminal_columns().unwrap_or(80).max(26)
    }

    /// Prints text to standard output as it is.
    pub(crate) fn print(&mut self, text: &str) {
        if self.terminal {
            self.write_out(visible(text).as_bytes());
        } else {
            self.write_out(text.as_bytes());
        }
    }

    /// Prints text that was made for a terminal: what is foreign in it is clean, and the rest may
    /// have colours.
    pub(crate) fn print_made(&mut self, text: &str) {
        self.write_out(text.as_bytes());
    }

    /// Prints text to standard error as it is.
    pub(crate) fn print_error(&mut self, text: &str) {
        if self.error_terminal {
            self.write_error(visible(text).as_bytes());
        } else {
            self.write_error(text.as_bytes());
        }
    }

    /// Prints a line to standard error that begins with a coloured word.
    pub(crate) fn print_labelled(&mut self, label: &str, code: &str, text: &str) {
        let shown = if self.error_terminal {
            visible(text)
        } else {
            text.to_owned()
        };
        let label = paint(label, code, self.error_colour);
        self.write_error(format!("{label} {shown}\n").as_bytes());
    }

    /// Prints an error line.
    pub(crate) fn error_line(&mut self, text: &str) {
        self.print_labelled("ERROR:", colour::BAD, text);
    }

    /// Tells what to do next, to people only.
    pub(crate) fn hint(&mut self, text: &str) {
        if self.error_terminal {
            self.print_labelled("hint:", colour::NOTE, text);
        }
    }

    /// Writes bytes to standard output as they are.
    pub(crate) fn bytes(&mut self, bytes: &[u8]) {
        write_to_stdout(bytes);
    }

    fn write_out(&mut self, bytes: &[u8]) {
        self.make_way();
        write_to_stdout(bytes);
    }

    fn write_error(&mut self, bytes: &[u8]) {
        self.make_way();
        write(io::stderr().lock(), bytes);
    }

    fn make_way(&mut self) {
        self.clear_bar();
        if let Some(display) = &mut self.display {
            display.make_way();
        }
    }

    /// Prints an ordinary line, with colours if wanted.
    fn line(&mut self, text: &str) {
        if !self.terminal {
            return self.print(&format!("{text}\n"));
        }
        if let Some(display) = &mut self.display {
            display.heard(text);
        }
        let shown = visible(text);
        self.print_made(&format!("{}\n", styled(&shown, self.colour)));
    }

    fn plan(&mut self, changes: &[PlannedChange]) {
        if let Some(display) = &mut self.display {
            display.hide();
        }
        let text = plan_text(changes, self.columns(), self.colour);
        self.print_made(&text);
    }

    fn clear_bar(&mut self) {
        if let Some(progress) = &mut self.progress
            && progress.shown.take().is_some()
        {
            write_to_stdout(b"\x1b[0K");
        }
    }

    fn draw_bar(&mut self) {
        let Some(progress) = &mut self.progress else {
            return;
        };
        let (done, total) = progress.last;
        if total == 0 {
            return;
        }
        let cells = progress.columns.saturating_sub(6);
        let part =
            |of: usize| (u128::from(done.min(total)) * of as u128 / u128::from(total)) as usize;
        let state = (part(100), part(cells));
        if progress.shown == Some(state) {
            return;
        }
        progress.shown = Some(state);
        let bar = progress.cell.repeat(state.1) + &" ".repeat(cells - state.1);
        let text = format!("\x1b7{:3}% {bar}\x1b8\x1b[0K", state.0);
        write_to_stdout(text.as_bytes());
    }
}

impl Sink for Console {
    fn event(&mut self, event: Event<'_>) {
        match event {
            Event::Line(level, text) if shown(level, self.verbosity) => match level {
                Level::Error => self.error_line(text),
                Level::Warning => self.print_labelled("WARNING:", colour::WARN, text),
                Level::Notice => self.print_error(&format!("{text}\n")),
                Level::Always | Level::Info | Level::Detail | Level::Trace => self.line(text),
            },
            Event::Line(..) => {}
            Event::Text(text) => self.print_error(text),
            Event::ScriptLine(stream, line) => {
                let mut line = line.to_vec();
                line.push(b'\n');
                match stream {
                    Stream::Stdout if !self.data_only => self.write_out(&line),
                    Stream::Stdout | Stream::Stderr => self.write_error(&line),
                }
            }
            Event::Plan(changes) => {
                if self.verbosity > 0 {
                    self.plan(changes);
                }
            }
            Event::Note(text) => {
                if let Some(progress) = &self.progress {
                    let note: String = visible(text).chars().take(progress.columns - 4).collect();
                    let text = format!("\x1b7[{note}]\x1b8\x1b[0K");
                    write_to_stdout(text.as_bytes());
                }
                if let Some(display) = &mut self.display {
                    display.activity(text, terminal_columns().unwrap_or(80));
                }
            }
            Event::Progress { done, total, stage } => {
                if let Some(file) = &mut self.machine {
                    let stage = match stage {
                        ibex::progress::Stage::Install => "install",
                        ibex::progress::Stage::Download => "download",
                        ibex::progress::Stage::Fetch => "fetch",
                    };
                    if writeln!(file, "{done}/{total} {stage}").is_err() {
                        self.machine = None;
                    }
                }
                if let Some(progress) = &mut self.progress {
                    progress.last = (done, total);
                }
                if let Some(display) = &mut self.display {
                    display.progress(done, total, stage, terminal_columns().unwrap_or(80));
                }
            }
        }
        self.draw_bar();
    }
}

impl Drop for Console {
    fn drop(&mut self) {
        if let Some(display) = &mut self.display {
            display.hide();
        }
    }
}

/// Colours the words that an ordinary line is known to begin with.
fn styled(line: &str, colour: bool) -> String {
    if !colour {
        return line.to_owned();
    }
    if let Some(rest) = line.strip_prefix("OK:") {
        return paint("OK:", colour::GOOD, true) + rest;
    }
    if line.contains(" error")
        && line.contains("; ")
        && line.starts_with(|c: char| c.is_ascii_digit())
    {
        return paint(line, colour::BAD, true);
    }
    let step = line
        .strip_prefix('(')
        .and_then(|rest| rest.split_once(") "));
    if let Some((number, rest)) = step
        && let Some((verb, what)) = rest.split_once(' ')
    {
        let code = match verb {
            "Installing" => colour::GOOD,
            "Purging" => colour::BAD,
            "Downgrading" => colour::WARN,
            "Upgrading" | "Replacing" | "Reinstalling" | "Updating" => colour::NOTE,
            _ => "",
        };
        let number = paint(&format!("({number})"), colour::DIM, true);
        return format!("{number} {} {what}", paint(verb, code, true));
    }
    if line.trim_start().starts_with("Executing ") {
        return paint(line, colour::DIM, true);
    }
    line.to_owned()
}

/// Writes a plan for people: a block for each kind of change, and what it costs.
fn plan_text(changes: &[PlannedChange], columns: usize, colour: bool) -> String {
    let mut out = String::new();
    for (kind, heading, code) in [
        (PlannedKind::Remove, "remove", colour::BAD),
        (PlannedKind::Downgrade, "downgrade", colour::WARN),
        (PlannedKind::Install, "install", colour::GOOD),
        (PlannedKind::Upgrade, "upgrade", colour::NOTE),
        (PlannedKind::Reinstall, "reinstall", colour::NOTE),
    ] {
        let block: Vec<&PlannedChange> = changes.iter().filter(|c| c.kind == kind).collect();
        if block.is_empty() {
            continue;
        }
        let heading = format!("To {heading} ({}):", block.len());
        let _ = writeln!(out, "{}", paint(&heading, colour::STRONG, colour));
        let mut table = Table::new(&[Column::Left, Column::Flexible, Column::Left, Column::Right]);
        for change in block {
            let version = match (&change.old, &change.new) {
                (Some(old), Some(new)) if old != new => format!("{old} -> {new}"),
                (old, new) => old.as_ref().or(new.as_ref()).cloned().unwrap_or_default(),
            };
            let size = match change.download {
                0 => signed_size(change.growth),
                download => human_size(download),
            };
            table.row(vec![
                (change.name.clone(), code),
                (version, ""),
                (change.repository.clone(), colour::DIM),
                (size, ""),
            ]);
        }
        out.push_str(&table.text(2, columns, colour));
    }
    let download = changes.iter().map(|change| change.download).sum();
    let growth: i64 = changes.iter().map(|change| change.growth).sum();
    let download = match download {
        0 => String::new(),
        bytes => format!("{} to download, ", human_size(bytes)),
    };
    let disk = human_size(growth.unsigned_abs());
    let disk = match growth {
        0 => "no change on disk".to_owned(),
        1.. => format!("{disk} more on disk"),
        _ => format!("{disk} less on disk"),
    };
    let _ = writeln!(
        out,
        "{}",
        paint(&format!("{download}{disk}"), colour::STRONG, colour)
    );
    out
}

fn signed_size(bytes: i64) -> String {
    let size = human_size(bytes.unsigned_abs());
    match bytes {
        0 => String::new(),
        1.. => format!("+{size}"),
        _ => format!("-{size}"),
    }
}

/// Writes and flushes; whoever closed the stream does not want the rest.
fn write(mut stream: impl Write, bytes: &[u8]) {
    let _ = stream.write_all(bytes).and_then(|()| stream.flush());
}

/// Why standard output could not be written, the first time.
static UNWRITTEN: OnceLock<String> = OnceLock::new();

/// Writes to standard output; what fails is told at the end, by [`unwritten`].
pub(crate) fn write_to_stdout(bytes: &[u8]) {
    let mut stream = io::stdout().lock();
    let written = stream.write_all(bytes).and_then(|()| stream.flush());
    if let Err(error) = written
        && error.kind() != io::ErrorKind::BrokenPipe
    {
        let _ = UNWRITTEN.set(ibex::root::cause(&error));
    }
}

/// Returns why standard output lacks something that nobody who reads it has refused.
pub(crate) fn unwritten() -> Option<&'static str> {
    UNWRITTEN.get().map(String::as_str)
}

/// Makes control characters visible, line breaks aside.
pub(crate) fn visible(text: &str) -> String {
    text.chars()
        .flat_map(|c| {
            let foreign = c.is_control() && c != '\n' && c != '\t';
            let escaped = foreign.then(|| c.escape_default());
            escaped.into_iter().flatten().chain((!foreign).then_some(c))
        })
        .collect()
}

fn terminal_columns() -> Option<usize> {
    let size = rustix::termios::tcgetwinsize(io::stdout()).ok()?;
    (size.ws_col > 0).then_some(size.ws_col.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plans_name_what_they_cost() {
        let change = |kind, name: &str, old: Option<&str>, new: Option<&str>, download, growth| {
            PlannedChange {
                kind,
                name: name.into(),
                old: old.map(Into::into),
                new: new.map(Into::into),
                repository: if new.is_some() {
                    "main".into()
                } else {
                    String::new()
                },
                download,
                growth,
            }
        };
        let plan = [
            change(
                PlannedKind::Remove,
                "old\x1b[31m",
                Some("1-r0"),
                None,
                0,
                -2048,
            ),
            change(
                PlannedKind::Install,
                "nginx",
                None,
                Some("1.24-r1"),
                500_000,
                1_500_000,
            ),
            change(
                PlannedKind::Upgrade,
                "musl",
                Some("1.2-r1"),
                Some("1.2-r2"),
                20_000,
                0,
            ),
        ];
        assert_eq!(
            plan_text(&plan, 80, false),
            "To remove (1):\n  old\\u{1b}[31m  1-r0    -2048 B\n\
             To install (1):\n  nginx  1.24-r1  main  488 KiB\n\
             To upgrade (1):\n  musl  1.2-r1 -> 1.2-r2  main  19 KiB\n\
             507 KiB to download, 1462 KiB more on disk\n"
        );
        let narrow = plan_text(&plan, 30, true);
        assert!(narrow.contains("\x1b[1mTo install (1):\x1b[0m"), "{narrow}");
    }

    #[test]
    fn lines_keep_their_words() {
        for line in [
            "OK: 10.2 MiB in 25 packages",
            "( 1/25) Installing musl (1.2.4-r2)",
            "2 errors; 10.2 MiB in 30 packages",
            "  Executing script-1-r0.post-install",
            "something else",
            "(broken",
        ] {
            let coloured = styled(line, true);
            let plain: String = coloured.split("\x1b[").enumerate().fold(
                String::new(),
                |all, (at, part)| match at {
                    0 => part.to_owned(),
                    _ => all + part.split_once('m').map_or(part, |split| split.1),
                },
            );
            assert_eq!(plain, line);
            assert_eq!(styled(line, false), line);
        }
    }

    #[test]
    fn foreign_text_cannot_control_a_terminal() {
        assert_eq!(visible("a\x1b[31mb\nc\r"), "a\\u{1b}[31mb\nc\\r");
    }
}
