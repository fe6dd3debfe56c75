//! `sed` and `grep`, as far as scripts use them: substitution, and whether something is there.

use super::shell::{Shell, Stop};
use regex_lite::{Regex, RegexBuilder};

fn unknown(command: &str, what: &str) -> Stop {
    Stop::Unsupported(format!("`{what}` of `{command}` is not known"))
}

/// Makes an expression of a POSIX one, basic or extended.
fn expression(text: &str, extended: bool, ignore_case: bool) -> Result<Regex, Stop> {
    let mut out = String::new();
    let mut chars = text.chars().peekable();
    let mut in_bracket = false;
    while let Some(c) = chars.next() {
        if in_bracket {
            match c {
                ']' => in_bracket = false,
                '\\' => out.push('\\'),
                _ => {}
            }
            out.push(c);
            continue;
        }
        match c {
            '[' => {
                in_bracket = true;
                out.push(c);
                if chars.peek() == Some(&'^') {
                    out.extend(chars.next());
                }
                if chars.peek() == Some(&']') {
                    chars.next();
                    out.push_str("\\]");
                }
            }
            '\\' => {
                let next = chars.next().ok_or_else(|| unknown("sed", text))?;
                match next {
                    // In a basic expression these are special with the backslash only.
                    '(' | ')' | '{' | '}' | '+' | '?' | '|' if !extended => out.push(next),
                    '1'..='9' => return Err(unknown("sed", text)),
                    'n' => out.push_str("\\n"),
                    't' => out.push_str("\\t"),
                    c if c.is_ascii_alphanumeric() => return Err(unknown("sed", text)),
                    c => out.extend(['\\', c]),
                }
            }
            '(' | ')' | '{' | '}' | '+' | '?' | '|' if !extended => out.extend(['\\', c]),
            c => out.push(c),
        }
    }
    let built = RegexBuilder::new(&out)
        .case_insensitive(ignore_case)
        .build();
    built.map_err(|_| unknown("sed", text))
}

/// `s/EXPRESSION/REPLACEMENT/g`.
struct Substitution {
    expression: Regex,
    replacement: String,
    all: bool,
}

impl Substitution {
    fn parse(text: &str, extended: bool) -> Result<Self, Stop> {
        let bad = || unknown("sed", text);
        let mut chars = text.trim().chars();
        if chars.next() != Some('s') {
            return Err(bad());
        }
        let delimiter = chars
            .next()
            .filter(|c| !c.is_alphanumeric())
            .ok_or_else(bad)?;
        let mut parts = vec![String::new()];
        let mut rest = chars;
        while let Some(c) = rest.next() {
            if c == '\\' {
                match rest.next().ok_or_else(bad)? {
                    next if next == delimiter => parts.last_mut().ok_or_else(bad)?.push(next),
                    next => parts.last_mut().ok_or_else(bad)?.extend(['\\', next]),
                }
            } else if c == delimiter && parts.len() < 3 {
                parts.push(String::new());
            } else {
                parts.last_mut().ok_or_else(bad)?.push(c);
            }
        }
        let [pattern, replacement, flags] = parts.as_slice() else {
            return Err(bad());
        };
        let (mut all, mut ignore_case) = (false, false);
        for flag in flags.chars() {
            match flag {
                'g' => all = true,
                'i' | 'I' => ignore_case = true,
                _ => return Err(bad()),
            }
        }
        // `&` and `\1` become what the expression library calls `${0}` and `${1}`.
        let mut made = String::new();
        let mut chars = replacement.chars();
        while let Some(c) = chars.next() {
            match c {
                '&' => made.push_str("${0}"),
                '$' => made.push_str("$$"),
                '\\' => match chars.next().ok_or_else(bad)? {
                    digit @ '0'..='9' => made.push_str(&format!("${{{digit}}}")),
                    'n' => made.push('\n'),
                    't' => made.push('\t'),
                    c if c.is_ascii_alphanumeric() => return Err(bad()),
                    '$' => made.push_str("$$"),
                    c => made.push(c),
                },
                c => made.push(c),
            }
        }
        Ok(Self {
            expression: expression(pattern, extended, ignore_case)?,
            replacement: made,
            all,
        })
    }

    fn apply(&self, line: &str) -> String {
        let most = usize::from(!self.all);
        let replaced = self
            .expression
            .replacen(line, most, self.replacement.as_str());
        replaced.into_owned()
    }
}

/// Substitutes in lines of files or of the input.
pub(super) fn sed(shell: &mut Shell<'_>, words: &[&str]) -> Result<i32, Stop> {
    let (mut extended, mut in_place) = (false, false);
    let (mut scripts, mut files): (Vec<&str>, Vec<&str>) = (Vec::new(), Vec::new());
    let mut given = false;
    let mut words = words.iter();
    while let Some(word) = words.next() {
        match word.strip_prefix('-').filter(|letters| !letters.is_empty()) {
            Some(letters) => {
                for (at, letter) in letters.char_indices() {
                    match letter {
                        'E' | 'r' => extended = true,
                        'i' => in_place = true,
                        'e' => {
                            let rest = &letters[at + 1..];
                            let script = match rest {
                                "" => words.next().copied(),
                                rest => Some(rest),
                            };
                            scripts.push(script.ok_or_else(|| unknown("sed", word))?);
                            given = true;
                            break;
                        }
                        _ => return Err(unknown("sed", word)),
                    }
                }
            }
            None if !given => {
                scripts.push(word);
                given = true;
            }
            None => files.push(word),
        }
    }
    let lines = scripts.iter().flat_map(|script| script.split(['\n']));
    let lines = lines.map(str::trim).filter(|line| !line.is_empty());
    let substitutions: Vec<Substitution> = lines
        .map(|line| Substitution::parse(line, extended))
        .collect::<Result<_, _>>()?;
    let edit = |content: &[u8]| {
        let text = String::from_utf8_lossy(content);
        let mut out = String::new();
        for line in text.split_inclusive('\n') {
            let (line, end) = match line.strip_suffix('\n') {
                Some(line) => (line, "\n"),
                None => (line, ""),
            };
            let edited = substitutions
                .iter()
                .fold(line.to_owned(), |line, s| s.apply(&line));
            out.push_str(&edited);
            out.push_str(end);
        }
        out
    };
    if files.is_empty() {
        let edited = edit(shell.input());
        shell.print(&edited)?;
        return Ok(0);
    }
    let mut code = 0;
    for file in files {
        let path = shell.path(file);
        let Some(content) = shell.root.read(&path)? else {
            shell.complain(&format!("sed: {file}: No such file or directory"))?;
            code = 1;
            continue;
        };
        let edited = edit(&content);
        match in_place {
            true => super::commands::write_through(shell.root, &path, edited.as_bytes())?,
            false => shell.print(&edited)?,
        }
    }
    Ok(code)
}

/// Prints the lines that match, or only says whether there are some.
pub(super) fn grep(shell: &mut Shell<'_>, words: &[&str]) -> Result<i32, Stop> {
    let (mut extended, mut fixed, mut quiet, mut ignore_case, mut not, mut whole) =
        (false, false, false, false, false, false);
    let (mut pattern, mut files) = (None, Vec::new());
    for word in words {
        match word.strip_prefix('-').filter(|letters| !letters.is_empty()) {
            Some(letters) => {
                for letter in letters.chars() {
                    match letter {
                        'E' => extended = true,
                        'F' => fixed = true,
                        'q' => quiet = true,
                        's' => {}
                        'i' => ignore_case = true,
                        'v' => not = true,
                        'x' => whole = true,
                        _ => return Err(unknown("grep", word)),
                    }
                }
            }
            None if pattern.is_none() => pattern = Some(*word),
            None => files.push(*word),
        }
    }
    let pattern = pattern.ok_or_else(|| unknown("grep", ""))?;
    if pattern.contains('\n') {
        return Err(unknown("grep", pattern));
    }
    let regex = match fixed {
        true => expression(&regex_lite::escape(pattern), true, ignore_case)?,
        false => expression(pattern, extended, ignore_case)?,
    };
    let mut contents = Vec::new();
    for file in &files {
        match shell.root.read(&shell.path(file))? {
            Some(content) => contents.push(content),
            None => {
                shell.complain(&format!("grep: {file}: No such file or directory"))?;
                return Ok(2);
            }
        }
    }
    if files.is_empty() {
        contents.push(shell.input().to_vec());
    }
    let mut found = false;
    for content in contents {
        for line in String::from_utf8_lossy(&content).lines() {
            let hit = regex
                .find_iter(line)
                .any(|hit| !whole || hit.len() == line.len());
            if hit != not {
                found = true;
                if !quiet {
                    shell.print(&format!("{line}\n"))?;
                }
            }
        }
    }
    Ok(i32::from(!found))
}
