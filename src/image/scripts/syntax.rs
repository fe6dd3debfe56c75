//! Reading shell scripts: the part of POSIX that package scripts use.
//!
//! What is not understood is an error, never skipped: a script is carried out as a whole or not at
//! all. Pipes, background commands, arithmetic and process ids are among what is not understood.

use std::rc::Rc;

/// Why a script cannot be carried out, in words for the report.
pub(super) type Unsupported = String;

/// How deeply commands may be nested.
const DEEPEST: usize = 64;

/// A command.
#[derive(Clone, Debug)]
pub(super) enum Node {
    /// Assignments, words, redirections.
    Simple(Vec<(String, Word)>, Vec<Word>, Vec<Redirect>),
    And(Box<Node>, Box<Node>),
    Or(Box<Node>, Box<Node>),
    Not(Box<Node>),
    Sequence(Vec<Node>),
    /// Conditions with bodies, and the `else`.
    If(Vec<(Node, Node)>, Option<Box<Node>>),
    Case(Word, Vec<(Vec<Word>, Node)>),
    /// Without words it is over the arguments.
    For(String, Option<Vec<Word>>, Box<Node>),
    /// Until instead of while, condition, body.
    While(bool, Box<Node>, Box<Node>),
    Function(String, Rc<Node>),
    Subshell(Box<Node>),
    Redirected(Box<Node>, Vec<Redirect>),
}

/// A redirection of a file descriptor.
#[derive(Clone, Debug)]
pub(super) struct Redirect {
    pub(super) fd: u32,
    pub(super) to: Target,
}

#[derive(Clone, Debug)]
pub(super) enum Target {
    /// Write, after emptying or at the end.
    File(Word, bool),
    Read(Word),
    /// As another descriptor.
    Same(u32),
    /// A text that follows.
    Here(Word),
}

/// A word is pieces that are joined.
pub(super) type Word = Vec<Piece>;

#[derive(Clone, Debug)]
pub(super) struct Piece {
    pub(super) quoted: bool,
    pub(super) what: What,
}

#[derive(Clone, Debug)]
pub(super) enum What {
    Text(String),
    Variable(String, Option<Operator>),
    Command(Rc<Node>),
}

/// What is done to the value of a variable.
#[derive(Clone, Debug)]
pub(super) enum Operator {
    /// `:-`, `-`: another value if it is empty (with colon) or unset.
    Default(bool, Word),
    /// `:+`, `+`.
    Alternative(bool, Word),
    /// `:=`, `=`.
    Assign(bool, Word),
    /// `#`, `##`: cut off in front, the longest match.
    Prefix(bool, Word),
    /// `%`, `%%`.
    Suffix(bool, Word),
    Length,
}

/// Reads a script.
pub(super) fn parse(text: &str) -> Result<Node, Unsupported> {
    let mut parser = Parser {
        chars: text.chars().collect(),
        at: 0,
        depth: 0,
        pending: None,
    };
    let node = parser.list(&[])?;
    match parser.at == parser.chars.len() {
        true => Ok(node),
        false => Err(parser.unexpected()),
    }
}

struct Parser {
    chars: Vec<char>,
    at: usize,
    depth: usize,
    /// The second half of `&>`, which is two redirections.
    pending: Option<Redirect>,
}

/// Words that end a list.
const CLOSING: [&str; 8] = ["then", "else", "elif", "fi", "do", "done", "esac", "}"];

impl Parser {
    fn peek(&self) -> Option<char> {
        self.chars.get(self.at).copied()
    }

    fn next_is(&self, text: &str) -> bool {
        let mut at = self.at;
        text.chars().all(|c| {
            at += 1;
            self.chars.get(at - 1) == Some(&c)
        })
    }

    fn take(&mut self, text: &str) -> bool {
        let found = self.next_is(text);
        if found {
            self.at += text.chars().count();
        }
        found
    }

    fn unexpected(&self) -> Unsupported {
        let line = self.chars[..self.at.min(self.chars.len())]
            .iter()
            .filter(|c| **c == '\n')
            .count()
            + 1;
        format!("line {line} is not understood")
    }

    /// Passes blanks, continued lines and a comment.
    fn blanks(&mut self) {
        loop {
            match self.peek() {
                Some(' ' | '\t' | '\r') => self.at += 1,
                Some('\\') if self.chars.get(self.at + 1) == Some(&'\n') => self.at += 2,
                Some('#') => {
                    while self.peek().is_some_and(|c| c != '\n') {
                        self.at += 1;
                    }
                }
                _ => return,
            }
        }
    }

    /// Passes blanks and line breaks.
    fn lines(&mut self) {
        loop {
            self.blanks();
            if self.peek() != Some('\n') {
                return;
            }
            self.at += 1;
        }
    }

    /// Returns the plain word that comes next, without passing it.
    fn keyword(&self) -> String {
        let rest = &self.chars[self.at..];
        let end = rest
            .iter()
            .position(|c| !(c.is_ascii_alphanumeric() || "_{}!".contains(*c)));
        let word = &rest[..end.unwrap_or(rest.len())];
        // `{` and `!` are words by themselves only; `}` closes.
        let ends = rest
            .get(word.len())
            .is_none_or(|c| " \t\n;&|()<>".contains(*c));
        if ends {
            word.iter().collect()
        } else {
            String::new()
        }
    }

    fn word_is(&mut self, word: &str) -> bool {
        let found = self.keyword() == word;
        if found {
            self.at += word.chars().count();
        }
        found
    }

    fn expect(&mut self, word: &str) -> Result<(), Unsupported> {
        self.lines();
        match self.word_is(word) {
            true => Ok(()),
            false => Err(self.unexpected()),
        }
    }

    /// Reads commands until a closing word or character.
    fn list(&mut self, ends: &[char]) -> Result<Node, Unsupported> {
        self.depth += 1;
        if self.depth > DEEPEST {
            return Err("it is nested too deeply".to_owned());
        }
        let mut all = Vec::new();
        loop {
            self.lines();
            match self.peek() {
                None => break,
                Some(c) if ends.contains(&c) => break,
                _ if CLOSING.contains(&self.keyword().as_str()) => break,
                _ if self.next_is(";;") => break,
                _ => {}
            }
            all.push(self.and_or()?);
            self.blanks();
            match self.peek() {
                Some(';') if !self.next_is(";;") => self.at += 1,
                Some('\n') | None => {}
                Some(';') => {}
                Some(c) if ends.contains(&c) => {}
                _ if CLOSING.contains(&self.keyword().as_str()) => {}
                _ => return Err(self.unexpected()),
            }
        }
        self.depth -= 1;
        Ok(match all.len() {
            1 => all.remove(0),
            _ => Node::Sequence(all),
        })
    }

    fn and_or(&mut self) -> Result<Node, Unsupported> {
        let mut node = self.pipeline()?;
        loop {
            self.blanks();
            let and = self.take("&&");
            if !and && !self.take("||") {
                return Ok(node);
            }
            self.lines();
            let right = Box::new(self.pipeline()?);
            node = match and {
                true => Node::And(Box::new(node), right),
                false => Node::Or(Box::new(node), right),
            };
        }
    }

    fn pipeline(&mut self) -> Result<Node, Unsupported> {
        self.blanks();
        let not = self.word_is("!");
        self.blanks();
        let node = self.command()?;
        self.blanks();
        if self.next_is("|") && !self.next_is("||") {
            return Err("it has a pipe".to_owned());
        }
        if self.next_is("&") && !self.next_is("&&") {
            return Err("it has a background command".to_owned());
        }
        Ok(if not { Node::Not(Box::new(node)) } else { node })
    }

    fn command(&mut self) -> Result<Node, Unsupported> {
        let node = match self.keyword().as_str() {
            "if" => self.if_command()?,
            "case" => self.case_command()?,
            "for" => self.for_command()?,
            word @ ("while" | "until") => {
                let until = word == "until";
                self.at += 5;
                let condition = self.list(&[])?;
                Node::While(until, Box::new(condition), Box::new(self.body()?))
            }
            "{" => {
                self.at += 1;
                let node = self.list(&[])?;
                self.expect("}")?;
                node
            }
            _ if self.peek() == Some('(') => {
                if self.next_is("((") {
                    return Err("it has arithmetic".to_owned());
                }
                self.at += 1;
                let node = self.list(&[')'])?;
                if !self.take(")") {
                    return Err(self.unexpected());
                }
                Node::Subshell(Box::new(node))
            }
            _ => return self.simple(),
        };
        let mut redirects = Vec::new();
        loop {
            self.blanks();
            match self.redirect()? {
                Some(redirect) => redirects.push(redirect),
                None if redirects.is_empty() => return Ok(node),
                None => return Ok(Node::Redirected(Box::new(node), redirects)),
            }
        }
    }

    fn body(&mut self) -> Result<Node, Unsupported> {
        self.expect("do")?;
        let body = self.list(&[])?;
        self.expect("done")?;
        Ok(body)
    }

    fn if_command(&mut self) -> Result<Node, Unsupported> {
        self.at += 2;
        let mut arms = Vec::new();
        loop {
            let condition = self.list(&[])?;
            self.expect("then")?;
            arms.push((condition, self.list(&[])?));
            self.lines();
            if self.word_is("elif") {
                continue;
            }
            let otherwise = match self.word_is("else") {
                true => Some(Box::new(self.list(&[])?)),
                false => None,
            };
            self.expect("fi")?;
            return Ok(Node::If(arms, otherwise));
        }
    }

    fn case_command(&mut self) -> Result<Node, Unsupported> {
        self.at += 4;
        self.blanks();
        let word = self.word()?.ok_or_else(|| self.unexpected())?;
        self.expect("in")?;
        let mut arms = Vec::new();
        loop {
            self.lines();
            if self.word_is("esac") {
                return Ok(Node::Case(word, arms));
            }
            self.take("(");
            let mut patterns = Vec::new();
            loop {
                self.blanks();
                patterns.push(self.word()?.ok_or_else(|| self.unexpected())?);
                self.blanks();
                if !self.take("|") {
                    break;
                }
            }
            if !self.take(")") {
                return Err(self.unexpected());
            }
            let body = self.list(&[])?;
            self.lines();
            self.take(";;");
            arms.push((patterns, body));
        }
    }

    fn for_command(&mut self) -> Result<Node, Unsupported> {
        self.at += 3;
        self.blanks();
        let name = self.name().ok_or_else(|| self.unexpected())?;
        self.lines();
        let mut words = None;
        if self.word_is("in") {
            let mut list = Vec::new();
            loop {
                self.blanks();
                match self.word()? {
                    Some(word) => list.push(word),
                    None => break,
                }
            }
            words = Some(list);
        }
        self.blanks();
        self.take(";");
        Ok(Node::For(name, words, Box::new(self.body()?)))
    }

    fn name(&mut self) -> Option<String> {
        let rest = &self.chars[self.at..];
        let end = rest
            .iter()
            .position(|c| !(c.is_ascii_alphanumeric() || *c == '_'));
        let name: String = rest[..end.unwrap_or(rest.len())].iter().collect();
        let first = name.chars().next()?;
        (!first.is_ascii_digit()).then(|| {
            self.at += name.len();
            name
        })
    }

    fn simple(&mut self) -> Result<Node, Unsupported> {
        let (mut assignments, mut words, mut redirects) = (Vec::new(), Vec::new(), Vec::new());
        loop {
            self.blanks();
            if let Some(redirect) = self.redirect()? {
                redirects.push(redirect);
                continue;
            }
            let start = self.at;
            if words.is_empty()
                && let Some(name) = self.name()
            {
                if self.take("=") {
                    assignments.push((name, self.word()?.unwrap_or_default()));
                    continue;
                }
                self.blanks();
                if assignments.is_empty() && self.take("(") {
                    self.blanks();
                    if !self.take(")") {
                        return Err(self.unexpected());
                    }
                    self.lines();
                    let body = Rc::new(self.command()?);
                    return Ok(Node::Function(name, body));
                }
            }
            self.at = start;
            match self.word()? {
                Some(word) => words.push(word),
                None => break,
            }
        }
        if assignments.is_empty() && words.is_empty() && redirects.is_empty() {
            return Err(self.unexpected());
        }
        Ok(Node::Simple(assignments, words, redirects))
    }

    fn redirect(&mut self) -> Result<Option<Redirect>, Unsupported> {
        if let Some(pending) = self.pending.take() {
            return Ok(Some(pending));
        }
        let start = self.at;
        if self.take("&>") {
            self.blanks();
            let word = self.word()?.ok_or_else(|| self.unexpected())?;
            self.pending = Some(Redirect {
                fd: 2,
                to: Target::Same(1),
            });
            let to = Target::File(word, false);
            return Ok(Some(Redirect { fd: 1, to }));
        }
        let digit = self.peek().filter(char::is_ascii_digit);
        if digit.is_some() {
            self.at += 1;
        }
        let fd = digit.and_then(|digit| digit.to_digit(10));
        if self.take("<<") {
            let tabs = self.take("-");
            self.blanks();
            let word = self.word()?.ok_or_else(|| self.unexpected())?;
            let expand = !word.iter().any(|piece| piece.quoted);
            let mut end = String::new();
            for piece in word {
                match piece.what {
                    What::Text(text) => end.push_str(&text),
                    _ => return Err(self.unexpected()),
                }
            }
            // The text begins with the next line; it is taken out of there.
            let text = self.here_text(&end, tabs, expand)?;
            return Ok(Some(Redirect {
                fd: fd.unwrap_or(0),
                to: Target::Here(text),
            }));
        }
        let append = self.take(">>");
        if append || self.take(">") {
            let fd = fd.unwrap_or(1);
            if !append && self.take("&") {
                let other = self.peek().and_then(|c| c.to_digit(10));
                let other = other.ok_or_else(|| self.unexpected())?;
                self.at += 1;
                let to = Target::Same(other);
                return Ok(Some(Redirect { fd, to }));
            }
            self.take("|");
            self.blanks();
            let word = self.word()?.ok_or_else(|| self.unexpected())?;
            let to = Target::File(word, append);
            return Ok(Some(Redirect { fd, to }));
        }
        if self.take("<") {
            self.blanks();
            let word = self.word()?.ok_or_else(|| self.unexpected())?;
            let to = Target::Read(word);
            return Ok(Some(Redirect {
                fd: fd.unwrap_or(0),
                to,
            }));
        }
        self.at = start;
        Ok(None)
    }

    /// Takes the lines of a text out of what is still to be read.
    fn here_text(&mut self, end: &str, tabs: bool, expand: bool) -> Result<Word, Unsupported> {
        let rest = &self.chars[self.at..];
        let Some(line) = rest.iter().position(|c| *c == '\n') else {
            return Err(self.unexpected());
        };
        let start = self.at + line + 1;
        let (mut text, mut at) = (String::new(), start);
        loop {
            if at >= self.chars.len() {
                return Err("a text in it has no end".to_owned());
            }
            let length = self.chars[at..].iter().position(|c| *c == '\n');
            let stop = length.map_or(self.chars.len(), |length| at + length);
            let line: String = self.chars[at..stop].iter().collect();
            at = (stop + 1).min(self.chars.len());
            let line = if tabs {
                line.trim_start_matches('\t')
            } else {
                &line
            };
            if line == end {
                break;
            }
            text.push_str(line);
            text.push('\n');
        }
        self.chars.drain(start..at);
        if !expand {
            let what = What::Text(text);
            return Ok(vec![Piece { quoted: true, what }]);
        }
        let mut inner = Parser {
            chars: text.chars().collect(),
            at: 0,
            depth: self.depth,
            pending: None,
        };
        inner.double_quoted(None)
    }

    /// Reads a word; `None` if none begins here.
    fn word(&mut self) -> Result<Option<Word>, Unsupported> {
        let mut word = Word::new();
        let mut text = String::new();
        let mut any = false;
        let flush = |text: &mut String, word: &mut Word| {
            if !text.is_empty() {
                let what = What::Text(std::mem::take(text));
                word.push(Piece {
                    quoted: false,
                    what,
                });
            }
        };
        while let Some(c) = self.peek() {
            match c {
                ' ' | '\t' | '\n' | '\r' | ';' | '&' | '|' | '(' | ')' | '<' | '>' => break,
                '\'' => {
                    flush(&mut text, &mut word);
                    self.at += 1;
                    let mut quoted = String::new();
                    loop {
                        match self.peek() {
                            None => return Err("a quote in it has no end".to_owned()),
                            Some('\'') => break,
                            Some(c) => quoted.push(c),
                        }
                        self.at += 1;
                    }
                    self.at += 1;
                    let what = What::Text(quoted);
                    word.push(Piece { quoted: true, what });
                }
                '"' => {
                    flush(&mut text, &mut word);
                    self.at += 1;
                    let quoted = self.double_quoted(Some('"'))?;
                    // Even an empty one is a word.
                    let what = What::Text(String::new());
                    word.push(Piece { quoted: true, what });
                    word.extend(quoted);
                }
                '\\' => {
                    self.at += 1;
                    match self.peek() {
                        Some('\n') => {}
                        Some(c) => {
                            flush(&mut text, &mut word);
                            let what = What::Text(c.to_string());
                            word.push(Piece { quoted: true, what });
                        }
                        None => return Err(self.unexpected()),
                    }
                    self.at += 1;
                }
                '$' | '`' => {
                    flush(&mut text, &mut word);
                    let piece = self.dollar(false)?;
                    word.push(piece);
                }
                c => {
                    text.push(c);
                    self.at += 1;
                }
            }
            any = true;
        }
        flush(&mut text, &mut word);
        Ok(any.then_some(word))
    }

    /// Reads to the closing quote, or to the end of a text.
    fn double_quoted(&mut self, end: Option<char>) -> Result<Word, Unsupported> {
        let mut word = Word::new();
        let mut text = String::new();
        let flush = |text: &mut String, word: &mut Word| {
            let what = What::Text(std::mem::take(text));
            word.push(Piece { quoted: true, what });
        };
        loop {
            match self.peek() {
                None if end.is_none() => break,
                None => return Err("a quote in it has no end".to_owned()),
                c if c == end => {
                    self.at += 1;
                    break;
                }
                Some('\\') => {
                    let next = self.chars.get(self.at + 1).copied();
                    match next {
                        Some('\n') => {}
                        Some(c @ ('$' | '`' | '\\')) => text.push(c),
                        Some('"') if end == Some('"') => text.push('"'),
                        Some(c) => text.extend(['\\', c]),
                        None => return Err(self.unexpected()),
                    }
                    self.at += 2;
                }
                Some('$' | '`') => {
                    flush(&mut text, &mut word);
                    let piece = self.dollar(true)?;
                    word.push(piece);
                }
                Some(c) => {
                    text.push(c);
                    self.at += 1;
                }
            }
        }
        flush(&mut text, &mut word);
        Ok(word)
    }

    fn dollar(&mut self, quoted: bool) -> Result<Piece, Unsupported> {
        let piece = |what| Ok(Piece { quoted, what });
        if self.take("`") {
            let rest = &self.chars[self.at..];
            let end = rest
                .iter()
                .position(|c| *c == '`')
                .ok_or_else(|| self.unexpected())?;
            let inner: String = rest[..end].iter().collect();
            self.at += end + 1;
            if inner.contains('\\') {
                return Err("it has nested backquotes".to_owned());
            }
            return piece(What::Command(Rc::new(parse(&inner)?)));
        }
        self.at += 1;
        if self.next_is("((") {
            return Err("it has arithmetic".to_owned());
        }
        if self.take("(") {
            let node = self.list(&[')'])?;
            if !self.take(")") {
                return Err(self.unexpected());
            }
            return piece(What::Command(Rc::new(node)));
        }
        if self.take("{") {
            return self.braced(quoted);
        }
        if let Some(name) = self.name() {
            return piece(What::Variable(name, None));
        }
        match self.peek() {
            Some(c @ ('0'..='9' | '@' | '*' | '#' | '?')) => {
                self.at += 1;
                piece(What::Variable(c.to_string(), None))
            }
            Some('$' | '!' | '-') => Err("it uses a process id or shell flags".to_owned()),
            _ => piece(What::Text("$".to_owned())),
        }
    }

    /// Reads the inside of `${…}`.
    fn braced(&mut self, quoted: bool) -> Result<Piece, Unsupported> {
        let length = self.next_is("#") && !self.next_is("#}");
        if length {
            self.at += 1;
        }
        let name = match self.name() {
            Some(name) => name,
            None => {
                let digits: String = self.chars[self.at..]
                    .iter()
                    .take_while(|c| c.is_ascii_digit())
                    .collect();
                match (digits.is_empty(), self.peek()) {
                    (false, _) => {
                        self.at += digits.len();
                        digits
                    }
                    (true, Some(c @ ('@' | '*' | '#' | '?'))) => {
                        self.at += 1;
                        c.to_string()
                    }
                    _ => return Err(self.unexpected()),
                }
            }
        };
        let colon = self.take(":");
        let operator = match self.peek() {
            _ if length => Some(Operator::Length),
            Some('}') if !colon => None,
            Some('-') => {
                self.at += 1;
                Some(Operator::Default(colon, self.braced_word(quoted)?))
            }
            Some('+') => {
                self.at += 1;
                Some(Operator::Alternative(colon, self.braced_word(quoted)?))
            }
            Some('=') => {
                self.at += 1;
                Some(Operator::Assign(colon, self.braced_word(quoted)?))
            }
            Some(c @ ('#' | '%')) if !colon => {
                self.at += 1;
                let longest = self.take(&c.to_string());
                let word = self.braced_word(false)?;
                Some(match c {
                    '#' => Operator::Prefix(longest, word),
                    _ => Operator::Suffix(longest, word),
                })
            }
            _ => return Err(self.unexpected()),
        };
        if !self.take("}") {
            return Err(self.unexpected());
        }
        let what = What::Variable(name, operator);
        Ok(Piece { quoted, what })
    }

    /// Reads a word up to the closing brace.
    fn braced_word(&mut self, quoted: bool) -> Result<Word, Unsupported> {
        let mut word = Word::new();
        loop {
            match self.peek() {
                None => return Err(self.unexpected()),
                Some('}') => return Ok(word),
                Some('"') => {
                    self.at += 1;
                    word.extend(self.double_quoted(Some('"'))?);
                }
                Some('\'') if !quoted => {
                    if let Some(piece) = self.word()? {
                        word.extend(piece);
                    }
                }
                Some('$' | '`') => {
                    let piece = self.dollar(quoted)?;
                    word.push(piece);
                }
                Some(c) => {
                    self.at += 1;
                    let (c, escaped) = match c {
                        '\\' => {
                            let next = self.peek().ok_or_else(|| self.unexpected())?;
                            self.at += 1;
                            (next, true)
                        }
                        c => (c, quoted),
                    };
                    let what = What::Text(c.to_string());
                    word.push(Piece {
                        quoted: escaped,
                        what,
                    });
                }
            }
        }
    }
}
