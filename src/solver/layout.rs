//! Headed lists that wrap (solver.md, 6.2).

/// Writes headed lists of words into a text, filling lines up to a width.
pub(super) struct Layout {
    text: String,
    width: usize,
    column: usize,
    hanging: usize,
}

impl Layout {
    pub(super) fn new(width: usize) -> Self {
        Self {
            text: String::new(),
            width,
            column: 0,
            hanging: 0,
        }
    }

    /// Writes a line of its own.
    pub(super) fn line(&mut self, text: &str) {
        self.text.push_str(text);
        self.text.push('\n');
    }

    /// Sets the column at which the items of a list without heading begin.
    pub(super) fn indent(&mut self, column: usize) {
        self.hanging = column;
    }

    /// Writes a heading, unless a list is open: then its items follow.
    pub(super) fn heading(&mut self, text: &str) {
        if self.column == 0 {
            self.text.push_str(text);
            self.column = text.len();
            self.hanging = self.column + 1;
        }
    }

    /// Writes an item, on the next line if it does not fit.
    pub(super) fn item(&mut self, text: &str) {
        if self.column <= self.hanging {
            self.pad(self.hanging - self.column);
            self.column = self.hanging + text.len();
        } else if self.column + text.len() + 1 >= self.width {
            self.text.push('\n');
            self.pad(self.hanging);
            self.column = self.hanging + text.len();
        } else {
            self.text.push(' ');
            self.column += text.len() + 1;
        }
        self.text.push_str(text);
    }

    /// Ends the open list, if there is one.
    pub(super) fn end(&mut self) {
        if self.column != 0 {
            self.text.push('\n');
        }
        self.column = 0;
        self.hanging = 0;
    }

    pub(super) fn finish(mut self) -> String {
        self.end();
        self.text
    }

    fn pad(&mut self, count: usize) {
        self.text.extend(std::iter::repeat_n(' ', count));
    }
}

/// Returns the width to fill: that of a terminal with more than 25 columns, else 50.
pub fn output_width(terminal_columns: Option<usize>) -> usize {
    match terminal_columns {
        Some(columns) if columns > 25 => columns,
        _ => 50,
    }
}
