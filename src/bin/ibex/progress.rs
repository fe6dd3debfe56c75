//! Draws how far the work is, on a terminal.
//!
//! One line at the bottom of the screen: what is being done, how much of it, how fast and how long
//! it will take. It is taken away whenever something else is printed. It must never be drawn where
//! nobody watches: whoever asks for progress in a file gets apk's own bar or its numbers.

use crate::output::visible;
use ibex::progress::Stage;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::time::Duration;

/// The line.
pub(crate) struct Display {
    bar: ProgressBar,
    /// Text of a filled and of an empty cell.
    cells: String,
    stage: Option<Stage>,
    colour: bool,
}

impl Display {
    /// Makes a line that is not shown yet.
    pub(crate) fn new(cell: &str, colour: bool) -> Self {
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::hidden());
        let first = cell.chars().next().unwrap_or('#');
        let empty = if first.is_ascii() { '-' } else { '\u{2591}' };
        Self {
            bar,
            cells: format!("{first}{first}{empty}"),
            stage: None,
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

    /// Shows work of which the amount is known.
    pub(crate) fn progress(&mut self, done: u64, total: u64, stage: Stage) {
        if self.stage != Some(stage) {
            self.hide();
            let (verb, template) = match stage {
                Stage::Install => (
                    "installing",
                    "{spinner:.cyan} {msg} [{wide_bar:.cyan/dim}] {percent:>3}%  {elapsed}",
                ),
                Stage::Download | Stage::Fetch => (
                    "downloading",
                    "{spinner:.cyan} {msg} [{wide_bar:.cyan/dim}] {bytes}/{total_bytes}  \
                     {bytes_per_sec}  {eta} left",
                ),
            };
            self.bar = ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::stdout());
            self.bar.set_style(self.style(template));
            self.bar.set_message(verb);
            self.bar.enable_steady_tick(Duration::from_millis(120));
            self.stage = Some(stage);
        }
        self.bar.set_length(total);
        self.bar.set_position(done);
        if done >= total {
            self.hide();
        }
    }

    /// Shows what is being done, without an amount.
    pub(crate) fn activity(&mut self, text: &str) {
        if self.stage.is_none() && self.bar.is_hidden() {
            self.bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stdout());
            self.bar.set_style(self.style("{spinner:.cyan} {wide_msg}"));
            self.bar.enable_steady_tick(Duration::from_millis(120));
        }
        self.bar.set_message(visible(text));
    }

    /// Takes the line away for good; the next progress begins a new one.
    pub(crate) fn hide(&mut self) {
        self.bar.finish_and_clear();
        self.bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::hidden());
        self.stage = None;
    }

    /// Prints something while the line is out of the way.
    pub(crate) fn suspend<R>(&self, print: impl FnOnce() -> R) -> R {
        self.bar.suspend(print)
    }
}
