//! The one place that prints.
//!
//! Off a terminal the bytes are exactly apk's. On a terminal, foreign text has its control
//! characters made visible, so that no package or server can write to the screen what it likes.

use ibex::ops::log::shown;
use ibex::progress::{Event, Level, Sink, Stream};
use std::io::{self, IsTerminal, Write};

/// The two standard streams.
pub(crate) struct Console {
    verbosity: u8,
    /// Standard output is a terminal.
    pub(crate) terminal: bool,
    error_terminal: bool,
    progress: Option<Progress>,
    /// Where `--progress-fd` wants numbers.
    machine: Option<std::fs::File>,
    /// Standard output is for data alone.
    data_only: bool,
}

/// A bar on the last line of the terminal (cli.md, 1.10).
struct Progress {
    columns: usize,
    cell: String,
    shown: Option<(usize, usize)>,
    last: (u64, u64),
}

impl Console {
    pub(crate) fn new(verbosity: u8) -> Self {
        Self {
            verbosity,
            terminal: io::stdout().is_terminal(),
            error_terminal: io::stderr().is_terminal(),
            progress: None,
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
        let columns = terminal_columns().unwrap_or(80);
        self.progress = Some(Progress {
            columns,
            cell,
            shown: None,
            last: (0, 0),
        });
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

    /// Prints text to standard output as it is.
    pub(crate) fn print(&mut self, text: &str) {
        self.clear_bar();
        let text = if self.terminal {
            visible(text)
        } else {
            text.to_owned()
        };
        write(io::stdout().lock(), text.as_bytes());
    }

    /// Prints text to standard error as it is.
    pub(crate) fn print_error(&mut self, text: &str) {
        self.clear_bar();
        let text = if self.error_terminal {
            visible(text)
        } else {
            text.to_owned()
        };
        write(io::stderr().lock(), text.as_bytes());
    }

    /// Writes bytes to standard output as they are.
    pub(crate) fn bytes(&mut self, bytes: &[u8]) {
        write(io::stdout().lock(), bytes);
    }

    fn clear_bar(&mut self) {
        if let Some(progress) = &mut self.progress
            && progress.shown.take().is_some()
        {
            write(io::stdout().lock(), b"\x1b[0K");
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
        write(io::stdout().lock(), text.as_bytes());
    }
}

impl Sink for Console {
    fn event(&mut self, event: Event<'_>) {
        match event {
            Event::Line(level, text) if shown(level, self.verbosity) => match level {
                Level::Error => self.print_error(&format!("ERROR: {text}\n")),
                Level::Warning => self.print_error(&format!("WARNING: {text}\n")),
                Level::Notice => self.print_error(&format!("{text}\n")),
                Level::Always | Level::Info | Level::Detail | Level::Trace => {
                    self.print(&format!("{text}\n"));
                }
            },
            Event::Line(..) => {}
            Event::Text(text) => self.print_error(text),
            Event::ScriptLine(stream, line) => {
                self.clear_bar();
                let mut line = line.to_vec();
                line.push(b'\n');
                match stream {
                    Stream::Stdout if self.data_only => write(io::stderr().lock(), &line),
                    Stream::Stdout => write(io::stdout().lock(), &line),
                    Stream::Stderr => write(io::stderr().lock(), &line),
                }
            }
            Event::Note(text) => {
                if let Some(progress) = &self.progress {
                    let note: String = visible(text).chars().take(progress.columns - 4).collect();
                    let text = format!("\x1b7[{note}]\x1b8\x1b[0K");
                    write(io::stdout().lock(), text.as_bytes());
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
            }
        }
        self.draw_bar();
    }
}

/// Writes and flushes; whoever closed the stream does not want the rest.
fn write(mut stream: impl Write, bytes: &[u8]) {
    let _ = stream.write_all(bytes).and_then(|()| stream.flush());
}

/// Makes control characters visible, line breaks aside.
fn visible(text: &str) -> String {
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
    fn foreign_text_cannot_control_a_terminal() {
        assert_eq!(visible("a\x1b[31mb\nc\r"), "a\\u{1b}[31mb\nc\\r");
    }
}
