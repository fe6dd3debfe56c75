//! `var/log/apk.log`: what writing commands did (cli.md, 1.13; formats.md, 9.8).
//!
//! Unlike apk it masks passwords in the command line.

use crate::config::repositories::masked;
use crate::progress::{Event, Level, Sink};
use std::fs::File;
use std::io::Write;

/// Writes the lines that were shown also to the log.
pub struct LogTee<'a> {
    inner: &'a mut dyn Sink,
    file: Option<File>,
    /// Lines above this verbosity are not shown, so they are not logged either.
    verbosity: u8,
}

impl<'a> LogTee<'a> {
    /// Begins an entry: an empty line, the command, the version.
    ///
    /// `command_line` is shown with passwords in URLs replaced by `*`.
    pub fn begin(
        inner: &'a mut dyn Sink,
        mut file: Option<File>,
        verbosity: u8,
        command_line: &[String],
        version: &str,
    ) -> Self {
        if let Some(file) = &mut file {
            let words: Vec<String> = command_line.iter().map(|word| masked(word)).collect();
            let now = jiff::Timestamp::now().strftime("%Y-%m-%d %H:%M:%S");
            // A log that cannot be written any more must not stop a transaction half-way.
            let _ = write!(
                file,
                "\nRunning `{}` at {now}\n{version}\n",
                words.join(" ")
            );
        }
        Self {
            inner,
            file,
            verbosity,
        }
    }
}

impl Sink for LogTee<'_> {
    fn event(&mut self, event: Event<'_>) {
        if let Some(file) = &mut self.file {
            let _ = match event {
                Event::Line(level, text) if shown(level, self.verbosity) => {
                    let prefix = match level {
                        Level::Error => "ERROR: ",
                        Level::Warning => "WARNING: ",
                        _ => "",
                    };
                    // A line is one write: there are as many of them as packages.
                    file.write_all(format!("{prefix}{text}\n").as_bytes())
                }
                Event::Text(text) => file.write_all(text.as_bytes()),
                Event::ScriptLine(_, bytes) => file.write_all(bytes).and_then(|()| writeln!(file)),
                _ => Ok(()),
            };
        }
        self.inner.event(event);
    }

    fn wants(&self, level: Level) -> bool {
        shown(level, self.verbosity)
    }
}

/// Returns whether a line is shown at a verbosity (cli.md, 1.9).
pub fn shown(level: Level, verbosity: u8) -> bool {
    match level {
        Level::Error | Level::Warning | Level::Always => true,
        Level::Notice | Level::Info => verbosity >= 1,
        Level::Detail => verbosity >= 2,
        Level::Trace => verbosity >= 3,
    }
}
