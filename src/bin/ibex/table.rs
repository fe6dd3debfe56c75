//! Tables that fit the width of a terminal.
//!
//! A table has no lines, only aligned columns. If it is too wide, the columns that may shrink are
//! cut, the widest first, with an ellipsis. Cells are text without control characters; colours are
//! put around them afterwards and do not count.

use crate::output::visible;
use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

/// How a column behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Column {
    /// Left-aligned, never cut unless nothing else is left.
    Left,
    /// Right-aligned, never cut unless nothing else is left.
    Right,
    /// Left-aligned, cut if there is no room.
    Flexible,
}

/// What stands between columns.
const GAP: usize = 2;
/// No column is cut below this.
const LEAST: usize = 8;

/// A table in the making.
pub(crate) struct Table {
    columns: Vec<Column>,
    rows: Vec<Vec<(String, &'static str)>>,
}

impl Table {
    /// Makes an empty table.
    pub(crate) fn new(columns: &[Column]) -> Self {
        Self {
            columns: columns.to_vec(),
            rows: Vec::new(),
        }
    }

    /// Adds a row of cells, each with the code of its colour; empty for none.
    pub(crate) fn row(&mut self, cells: Vec<(String, &'static str)>) {
        let clean = |(text, code): (String, _)| (visible(&text).replace(['\n', '\t'], " "), code);
        self.rows.push(cells.into_iter().map(clean).collect());
    }

    /// Returns the text, no line of which is wider than `width`.
    pub(crate) fn text(&self, indent: usize, width: usize, colour: bool) -> String {
        let widths = self.widths(width.saturating_sub(indent));
        let mut out = String::new();
        for row in &self.rows {
            out.extend(std::iter::repeat_n(' ', indent));
            let mut line = String::new();
            let last = row.iter().rposition(|(text, _)| !text.is_empty());
            for (at, (text, code)) in row.iter().enumerate().take(last.map_or(0, |at| at + 1)) {
                let cut = cut(text, widths[at]);
                let padding = " ".repeat(widths[at].saturating_sub(cut.width()));
                let shown = crate::output::paint(&cut, code, colour);
                if at > 0 {
                    line.push_str(&" ".repeat(GAP));
                }
                match self.columns[at] {
                    Column::Right => line.extend([padding, shown]),
                    // Spaces at the end of a line help nobody.
                    _ if Some(at) == last => line.push_str(&shown),
                    _ => line.extend([shown, padding]),
                }
            }
            out.push_str(&line);
            out.push('\n');
        }
        out
    }

    fn widths(&self, width: usize) -> Vec<usize> {
        let widest = |at: usize| {
            let cells = self.rows.iter().filter_map(|row| row.get(at));
            cells.map(|(text, _)| text.width()).max().unwrap_or(0)
        };
        let mut widths: Vec<usize> = (0..self.columns.len()).map(widest).collect();
        let gaps = GAP * self.columns.len().saturating_sub(1);
        let mut excess = (widths.iter().sum::<usize>() + gaps).saturating_sub(width);
        for only_flexible in [true, false] {
            while excess > 0 {
                let may_shrink = |at: &usize| {
                    widths[*at] > LEAST && (!only_flexible || self.columns[*at] == Column::Flexible)
                };
                let Some(at) = (0..widths.len())
                    .filter(may_shrink)
                    .max_by_key(|at| widths[*at])
                else {
                    break;
                };
                widths[at] -= 1;
                excess -= 1;
            }
        }
        widths
    }
}

/// Cuts a text to a width, with an ellipsis if something is missing.
fn cut(text: &str, width: usize) -> String {
    if text.width() <= width {
        return text.to_owned();
    }
    let mut out = String::new();
    let mut used = 1;
    for c in text.chars() {
        used += c.width().unwrap_or(0);
        if used > width {
            break;
        }
        out.push(c);
    }
    out.push('\u{2026}');
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Table {
        let mut table = Table::new(&[Column::Left, Column::Right, Column::Flexible]);
        for (name, size, text) in [
            ("musl", "9 B", "the C library"),
            ("firefox", "70.2 MiB", "a web browser that everybody knows"),
            ("\u{4e2d}\u{6587}", "", "two\x1b[31m wide letters\n"),
        ] {
            let plain = |text: &str| (text.to_owned(), "");
            table.row(vec![plain(name), plain(size), plain(text)]);
        }
        table
    }

    #[test]
    fn columns_are_aligned_and_fit() {
        let wide = sample().text(2, 80, false);
        assert_eq!(
            wide,
            "  musl          9 B  the C library\n  \
             firefox  70.2 MiB  a web browser that everybody knows\n  \
             \u{4e2d}\u{6587}               two\\u{1b}[31m wide letters \n"
        );
        for width in 20..60 {
            let text = sample().text(0, width, false);
            // Three columns of eight and two gaps are the least there is.
            assert!(
                text.lines().all(|line| line.width() <= width.max(28)),
                "{width}:\n{text}"
            );
        }
        let narrow = sample().text(0, 40, true);
        assert!(narrow.contains("a web browser that e\u{2026}"), "{narrow}");
    }
}
