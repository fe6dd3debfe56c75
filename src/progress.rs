//! What the library tells while it works.
//!
//! The library never prints: it hands [`Event`]s to a [`Sink`]. The binary draws them, tests
//! collect them.

/// How important a line is and where it belongs (cli.md, 1.9).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Level {
    /// `ERROR: …`, standard error, always.
    Error,
    /// `WARNING: …`, standard error, always.
    Warning,
    /// Standard output, always.
    Always,
    /// Standard error at verbosity 1.
    Notice,
    /// Standard output at verbosity 1.
    Info,
    /// Standard output at verbosity 2.
    Detail,
    /// Standard output at verbosity 3.
    Trace,
}

/// Which stream a script wrote to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// What the done and total amounts of [`Event::Progress`] are about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Packages are unpacked and committed.
    Install,
    /// Packages are downloaded ahead of the commit.
    Download,
    /// Package files are fetched for the user.
    Fetch,
}

/// What happens to a package.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum PlannedKind {
    /// It is removed.
    Remove,
    /// An older version replaces it.
    Downgrade,
    /// It is new.
    Install,
    /// A newer version, or another build, replaces it.
    Upgrade,
    /// It is installed again.
    Reinstall,
}

/// One change that is about to be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlannedChange {
    /// What happens.
    pub kind: PlannedKind,
    /// The package's name, with `@tag` if the world pins it.
    pub name: String,
    /// The version that is there.
    pub old: Option<String>,
    /// The version that comes.
    pub new: Option<String>,
    /// The repository it comes from, as people name it; empty if it comes from none.
    pub repository: String,
    /// Bytes to download; 0 if the file is at hand.
    pub download: u64,
    /// Bytes that the disk has less of afterwards; negative if space is freed.
    pub growth: i64,
}

/// Something that happened.
#[derive(Clone, Copy, Debug)]
pub enum Event<'a> {
    /// A line for people, without prefix (`ERROR: ` is added by whoever prints).
    Line(Level, &'a str),
    /// Lines of an explanation that belong to the error before them; standard error, always.
    Text(&'a str),
    /// A line that a script or hook wrote, already prefixed (`  * …`); always shown.
    ScriptLine(Stream, &'a [u8]),
    /// A note that only an interactive display shows, such as `fetch URL`.
    Note(&'a str),
    /// What is about to be changed, in the order of kinds and names; for displays that asked for
    /// it.
    Plan(&'a [PlannedChange]),
    /// Work done so far, in bytes.
    Progress {
        /// Bytes done.
        done: u64,
        /// Bytes in all.
        total: u64,
        /// What is being done.
        stage: Stage,
    },
}

/// Receives events.
pub trait Sink {
    /// Takes one event.
    fn event(&mut self, event: Event<'_>);

    /// Returns whether anybody sees lines of a level: asked before many are made.
    fn wants(&self, _: Level) -> bool {
        true
    }

    /// Sends a line.
    fn line(&mut self, level: Level, text: &str) {
        self.event(Event::Line(level, text));
    }

    /// Sends an error line.
    fn error(&mut self, text: &str) {
        self.line(Level::Error, text);
    }

    /// Sends a warning line.
    fn warning(&mut self, text: &str) {
        self.line(Level::Warning, text);
    }

    /// Sends an ordinary message.
    fn info(&mut self, text: &str) {
        self.line(Level::Info, text);
    }
}

/// Drops every event.
#[derive(Clone, Copy, Debug, Default)]
pub struct Silent;

impl Sink for Silent {
    fn event(&mut self, _: Event<'_>) {}

    fn wants(&self, _: Level) -> bool {
        false
    }
}

/// Keeps the lines, for tests.
#[derive(Clone, Debug, Default)]
pub struct Collect {
    /// The lines with their levels, script output as [`Level::Info`].
    pub lines: Vec<(Level, String)>,
}

impl Sink for Collect {
    fn event(&mut self, event: Event<'_>) {
        match event {
            Event::Line(level, text) => self.lines.push((level, text.to_owned())),
            Event::Text(text) => {
                self.lines
                    .extend(text.lines().map(|line| (Level::Error, line.to_owned())));
            }
            Event::ScriptLine(_, bytes) => {
                self.lines
                    .push((Level::Info, String::from_utf8_lossy(bytes).into_owned()));
            }
            Event::Note(_) | Event::Plan(_) | Event::Progress { .. } => {}
        }
    }
}
