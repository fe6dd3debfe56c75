//! `history`: the transactions of a root, as a table, in detail, or as JSON.

use super::change::transaction_number;
use super::settings::settings;
use crate::args::Invocation;
use crate::output::{Console, colour};
use crate::table::{Column, Table};
use ibex::history::{Changed, Entry, Outcome};
use ibex::ops::{Error, history};

/// Runs the command.
pub(crate) fn run(invocation: &Invocation, console: &mut Console) -> Result<u8, Error> {
    let settings = settings(invocation);
    let json = invocation.values.is("json");
    let words: Vec<&str> = invocation.arguments.iter().map(String::as_str).collect();
    let text = match words.as_slice() {
        [] | ["list"] => {
            let entries = history::list(&settings)?;
            if json {
                to_json(&entries)
            } else if console.terminal {
                let text = fitted(&entries).text(0, console.columns(), console.colour);
                console.print_made(&text);
                return Ok(0);
            } else {
                table(&entries)
            }
        }
        ["show", number] => {
            let entry = history::show(&settings, transaction_number(number)?)?;
            if json {
                to_json(&entry)
            } else {
                details(&entry)
            }
        }
        _ => {
            return Err(Error::Arguments {
                lines: vec!["history takes `list` or `show NUMBER`".to_owned()],
                code: 1,
            });
        }
    };
    console.print(&text);
    Ok(0)
}

fn to_json(value: &impl serde::Serialize) -> String {
    let text = serde_json::to_string(value).expect("entries are made of texts and numbers");
    format!("{text}\n")
}

/// One line a transaction: number, time, outcome, counts, command.
fn table(entries: &[Entry]) -> String {
    let counts: Vec<String> = entries.iter().map(count).collect();
    let widest = |texts: &mut dyn Iterator<Item = usize>| texts.max().unwrap_or(0);
    let number = widest(&mut entries.iter().map(|entry| entry.id.to_string().len()));
    let outcome = widest(&mut entries.iter().map(|entry| entry.outcome.as_str().len()));
    let changes = widest(&mut counts.iter().map(String::len));
    let lines = entries.iter().zip(&counts).map(|(entry, count)| {
        format!(
            "{:>number$}  {}  {:outcome$}  {count:changes$}  {}\n",
            entry.id,
            time(entry.time),
            entry.outcome.as_str(),
            entry.command
        )
    });
    lines.collect()
}

/// The same for a terminal, where a long command is cut.
fn fitted(entries: &[Entry]) -> Table {
    let mut table = Table::new(&[
        Column::Right,
        Column::Left,
        Column::Left,
        Column::Left,
        Column::Flexible,
    ]);
    for entry in entries {
        let code = match entry.outcome {
            Outcome::Done => colour::GOOD,
            _ => colour::WARN,
        };
        table.row(vec![
            (entry.id.to_string(), colour::STRONG),
            (time(entry.time), colour::DIM),
            (entry.outcome.as_str().to_owned(), code),
            (count(entry), ""),
            (entry.command.clone(), ""),
        ]);
    }
    table
}

/// `+3 ^1 -2`: came, changed, left.
fn count(entry: &Entry) -> String {
    let of = |keep: &dyn Fn(&Changed) -> bool| entry.changes.iter().filter(|c| keep(c)).count();
    let parts = [
        ('+', of(&|c| c.old.is_none())),
        ('^', of(&|c| c.old.is_some() && c.new.is_some())),
        ('-', of(&|c| c.new.is_none())),
    ];
    let parts = parts.iter().filter(|(_, count)| *count > 0);
    let parts: Vec<String> = parts
        .map(|(sign, count)| format!("{sign}{count}"))
        .collect();
    parts.join(" ")
}

fn details(entry: &Entry) -> String {
    let mut text = format!(
        "Transaction: {}\nTime:        {}\nCommand:     {}\nOutcome:     {}\n",
        entry.id,
        time(entry.time),
        entry.command,
        outcome(entry)
    );
    let world = |sign, from: &[String], other: &[String]| {
        let lines = from.iter().filter(|word| !other.contains(word));
        lines
            .map(|word| format!("  {sign} {word}\n"))
            .collect::<String>()
    };
    let world = world('-', &entry.world_before, &entry.world_after)
        + &world('+', &entry.world_after, &entry.world_before);
    let changes: String = entry.changes.iter().map(change).collect();
    let files = entry.changed_files.iter();
    let files: String = files
        .map(|file| format!("  {} ({})\n", file.path, file.change.as_str()))
        .collect();
    let written = entry.written_files.iter().map(|file| {
        let lines = history::written_lines(file).into_iter();
        let lines = lines.map(|line| format!("    {line}\n"));
        format!("  {}\n{}", file.path, lines.collect::<String>())
    });
    let written: String = written.collect();
    for (title, lines) in [
        ("World", world),
        ("Packages", changes),
        ("Files changed by scripts", files),
        ("Files that name repositories", written),
    ] {
        if !lines.is_empty() {
            text += &format!("{title}:\n{lines}");
        }
    }
    text
}

fn outcome(entry: &Entry) -> String {
    match entry.outcome {
        Outcome::Errors => format!("done with {} errors", entry.errors),
        other => other.as_str().to_owned(),
    }
}

fn change(change: &Changed) -> String {
    let versions = match (&change.old, &change.new) {
        (Some(old), Some(new)) if old.version != new.version => {
            format!("{} -> {}", old.version, new.version)
        }
        (Some(member), _) | (None, Some(member)) => member.version.clone(),
        (None, None) => String::new(),
    };
    let member = change.new.as_ref().or(change.old.as_ref());
    let name = member
        .map(|member| member.name.as_str())
        .unwrap_or_default();
    format!("  {} {name} ({versions})\n", change.verb)
}

/// Local time, to the second.
fn time(seconds: i64) -> String {
    let at = jiff::Timestamp::from_second(seconds).unwrap_or_default();
    let zoned = at.to_zoned(jiff::tz::TimeZone::system());
    zoned.strftime("%Y-%m-%d %H:%M:%S").to_string()
}
