//! Draws how far the work is, on a terminal.
//!
//! One line at the bottom of the screen: what is being done, how much of it, how fast and how long
//! it will take. It is taken away whenever something else is printed. It must never be drawn where
//! nobody watches: whoever asks for progress in a file gets apk's own bar or its numbers.

use crate::output::visible;
use ibex::progress::Stage;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::time::{Duration, Instant};

/// On narrower terminals there is nothing to see.
const NARROWEST: usize = 20;

/// Below this width only the share is shown.
const NARROW: usize = 72;

/// Work that takes less than this is not worth a line.
const PATIENCE: Duration = Duration::from_millis(300);

/// While other lines come faster than this, they tell enough.
const PAUSE: Duration = Duration::from_millis(150);

/// How often the line is drawn in a second, at most.
const FRAMES: u8 = 8;

/// The line.
pub(crate) struct Display {
    bar: ProgressBar,
    /// Text of a filled and of an empty cell.
    cells: String,
    stage: Option<Stage>,
    /// What is being done, as the last line said.
    verb: &'static str,
    /// When the stage began.
    begun: Instant,
    /// When something else was printed.
    printed: Option<Instant>,
    colour: bool,
}

impl Display {
    /// Makes a line that is not shown yet.
    pub(crate) fn new(cell: &str, colour: bool) -> Self {
        let first = cell.chars().next().unwrap_or('#');
        let empty = if first.is_ascii() { '-' } else { '\u{2591}' };
        Self {
            bar: ProgressBar::hidden(),
            cells: format!("{first}{first}{empty}"),
            stage: None,
            verb: "installing",
            begun: Instant::now(),
            printed: None,
            colour,
        }
    }

    fn style(&self, template: &str) -> ProgressStyle {
        let plain = template.replace(".cyan/dim", "").replace(".cyan", "");
        let template = if self.colour { template } else { &plain };
        ProgressStyle::with_template(template)
            .expect("the templates are ours")
            .progress_chars(&self.cells)
            .tick_strings(match self.cells.is_ascii() {
                true => &["-", "\\", "|", "/", " "],
                false => &[
                    "\u{280b}", "\u{2819}", "\u{2838}", "\u{2834}", "\u{2826}", " ",
                ],
            })
    }

    /// Shows the line if the time for it has come.
    fn show(&mut self, columns: usize, total: Option<u64>, template: &str) {
        let now = Instant::now();
        let early = now.duration_since(self.begun) < PATIENCE;
        let busy = (self.printed).is_some_and(|at| now.duration_since(at) < PAUSE);
        if columns < NARROWEST || early || busy || !self.bar.is_hidden() {
            return;
        }
        let target = ProgressDrawTarget::stdout_with_hz(FRAMES);
        self.bar = ProgressBar::with_draw_target(total, target).with_elapsed(now - self.begun);
        self.bar.set_style(self.style(template));
        self.bar.enable_steady_tick(PAUSE);
    }

    /// Shows work of which the amount is known.
    pub(crate) fn progress(&mut self, done: u64, total: u64, stage: Stage, columns: usize) {
        if self.stage != Some(stage) {
            self.hide();
            self.begun = Instant::now();
            self.stage = Some(stage);
        }
        if done >= total {
            self.bar.finish_and_clear();
            self.bar = ProgressBar::hidden();
            return;
        }
        let template = match stage {
            _ if columns < NARROW => "{spinner:.cyan} {msg} {percent:>3}%",
            Stage::Install => {
                "{spinner:.cyan} {msg} [{wide_bar:.cyan/dim}] {percent:>3}%  {elapsed}"
            }
            Stage::Download | Stage::Fetch => {
                "{spinner:.cyan} {msg} [{wide_bar:.cyan/dim}] {bytes}/{total_bytes}  \
                 {bytes_per_sec}  {eta} left"
            }
        };
        self.show(columns, Some(total), template);
        self.bar.set_message(match stage {
            Stage::Install => self.verb,
            Stage::Download | Stage::Fetch => "downloading",
        });
        self.bar.set_length(total);
        self.bar.set_position(done);
    }

    /// Learns from a line that is printed what is being done.
    pub(crate) fn heard(&mut self, line: &str) {
        let step = line
            .strip_prefix('(')
            .and_then(|rest| rest.split_once(") "));
        let verb = step.and_then(|(_, rest)| rest.split_once(' '));
        self.verb = match verb.map(|(verb, _)| verb) {
            Some("Installing") => "installing",
            Some("Purging") => "removing",
            Some("Upgrading") => "upgrading",
            Some("Downgrading") => "downgrading",
            Some("Reinstalling") => "reinstalling",
            Some("Replacing" | "Updating") => "replacing",
            _ => return,
        };
    }

    /// Shows what is being done, without an amount.
    pub(crate) fn activity(&mut self, text: &str, columns: usize) {
        if self.stage.is_none() {
            self.show(columns, None, "{spinner:.cyan} {wide_msg}");
            self.bar.set_message(visible(text));
        }
    }

    /// Takes the line away for good; the next progress begins a new one.
    pub(crate) fn hide(&mut self) {
        self.bar.finish_and_clear();
        self.bar = ProgressBar::hidden();
        self.stage = None;
        self.begun = Instant::now();
    }

    /// Takes the line away for something else that is printed now.
    pub(crate) fn make_way(&mut self) {
        if !self.bar.is_hidden() {
            self.bar.finish_and_clear();
            self.bar = ProgressBar::hidden();
        }
        self.printed = Some(Instant::now());
    }
}
