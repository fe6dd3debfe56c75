//! Carrying out a script on a tree, without running anything.
//!
//! The evaluator does what a shell would do with the part of the language in [`super::syntax`] and
//! the commands in [`super::commands`]. Whatever it meets beyond that ends it with the reason, and
//! the caller takes back what was done: a script is carried out as a whole or not at all.

use super::commands;
use super::syntax::{Node, Operator, Piece, Redirect, Target, Unsupported, What, Word, parse};
use crate::image::accounts::Chooser;
use crate::image::request::ChosenId;
use crate::package::glob;
use crate::root::Root;
use std::collections::{BTreeMap, HashMap};
use std::rc::Rc;

/// Commands that one script may carry out, so that every script ends.
const MOST_STEPS: u32 = 100_000;

/// Bytes that one script may write to its output.
const MOST_OUTPUT: usize = 1 << 20;

/// How deeply functions may call one another.
const DEEPEST: u32 = 50;

/// What a command did besides its exit code.
pub(super) enum Flow {
    Next(i32),
    Exit(i32),
    Return(i32),
    Break,
    Continue,
}

/// Why a script ends early.
pub(super) enum Stop {
    Unsupported(Unsupported),
    Failed(crate::root::RootError),
}

impl From<crate::root::RootError> for Stop {
    fn from(error: crate::root::RootError) -> Self {
        Self::Failed(error)
    }
}

impl From<Unsupported> for Stop {
    fn from(reason: Unsupported) -> Self {
        Self::Unsupported(reason)
    }
}

/// What came of a script.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Finished {
    pub(super) code: i32,
    /// What it printed.
    pub(super) output: String,
    /// It asked busybox to make its links.
    pub(super) busybox: bool,
    /// Numbers that accounts got.
    pub(super) ids: Vec<ChosenId>,
}

/// Where a file descriptor leads.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Output {
    /// The report.
    Report,
    /// A command substitution, by position.
    Capture(usize),
    /// A file, which has been opened.
    File(String),
    Nowhere,
}

/// A shell at work.
pub(super) struct Shell<'a> {
    pub(super) root: &'a Root,
    /// The day since 1970 that shadow lines show.
    pub(super) day: u64,
    pub(super) directory: String,
    pub(super) busybox: bool,
    pub(super) chooser: Chooser<'a>,
    variables: HashMap<String, String>,
    arguments: Vec<String>,
    functions: HashMap<String, Rc<Node>>,
    /// Old values of local variables, for each function under way.
    locals: Vec<BTreeMap<String, Option<String>>>,
    status: i32,
    steps: u32,
    exit_on_error: bool,
    outputs: [Output; 3],
    captures: Vec<Vec<u8>>,
    report: Vec<u8>,
    input: Option<Vec<u8>>,
    /// Texts of files that are being written.
    pending: Vec<(String, Vec<u8>)>,
}

/// Carries out a script.
pub(super) fn run<'a>(
    root: &'a Root,
    text: &str,
    arguments: &[String],
    variables: &[(&str, &str)],
    day: u64,
    ids: &'a [ChosenId],
) -> Result<Finished, Stop> {
    let node = parse(text)?;
    let known = variables
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    let mut shell = Shell {
        root,
        day,
        directory: String::new(),
        busybox: false,
        chooser: Chooser::new(ids),
        variables: known.collect(),
        arguments: arguments.to_vec(),
        functions: HashMap::new(),
        locals: Vec::new(),
        status: 0,
        steps: 0,
        exit_on_error: false,
        outputs: [Output::Nowhere, Output::Report, Output::Report],
        captures: Vec::new(),
        report: Vec::new(),
        input: None,
        pending: Vec::new(),
    };
    let code = match shell.node(&node, false)? {
        Flow::Next(code) | Flow::Exit(code) | Flow::Return(code) => code,
        Flow::Break | Flow::Continue => 0,
    };
    Ok(Finished {
        code,
        output: String::from_utf8_lossy(&shell.report).into_owned(),
        busybox: shell.busybox,
        ids: shell.chooser.chosen,
    })
}

impl Shell<'_> {
    /// Carries out a command; `tested` is it where its failure is an answer.
    fn node(&mut self, node: &Node, tested: bool) -> Result<Flow, Stop> {
        self.steps += 1;
        if self.steps > MOST_STEPS {
            return Err("it does not end".to_owned().into());
        }
        let flow = match node {
            Node::Simple(assignments, words, redirects) => {
                let flow = self.simple(assignments, words, redirects)?;
                if let Flow::Next(code) = flow
                    && code != 0
                    && self.exit_on_error
                    && !tested
                {
                    return Ok(Flow::Exit(code));
                }
                flow
            }
            Node::And(left, right) => match self.node(left, true)? {
                Flow::Next(0) => self.node(right, tested)?,
                other => other,
            },
            Node::Or(left, right) => match self.node(left, true)? {
                Flow::Next(code) if code != 0 => self.node(right, tested)?,
                other => other,
            },
            Node::Not(inner) => match self.node(inner, true)? {
                Flow::Next(code) => Flow::Next(i32::from(code == 0)),
                other => other,
            },
            Node::Sequence(all) => {
                let mut last = Flow::Next(0);
                for node in all {
                    last = self.node(node, tested)?;
                    match last {
                        Flow::Next(code) => self.status = code,
                        other => return Ok(other),
                    }
                }
                last
            }
            Node::If(arms, otherwise) => {
                for (condition, body) in arms {
                    match self.node(condition, true)? {
                        Flow::Next(0) => return self.node(body, tested),
                        Flow::Next(_) => {}
                        other => return Ok(other),
                    }
                }
                match otherwise {
                    Some(body) => self.node(body, tested)?,
                    None => Flow::Next(0),
                }
            }
            Node::Case(word, arms) => {
                let value = self.text(word)?;
                for (patterns, body) in arms {
                    for pattern in patterns {
                        let pattern = self.pattern(pattern)?;
                        if glob::matches(&pattern, &value, glob::Options::default()) {
                            return self.node(body, tested);
                        }
                    }
                }
                Flow::Next(0)
            }
            Node::For(name, words, body) => {
                let values = match words {
                    Some(words) => self.fields(words)?,
                    None => self.arguments.clone(),
                };
                let mut last = Flow::Next(0);
                for value in values {
                    self.variables.insert(name.clone(), value);
                    match self.node(body, tested)? {
                        Flow::Continue => {}
                        Flow::Break => break,
                        flow @ Flow::Next(_) => last = flow,
                        other => return Ok(other),
                    }
                }
                last
            }
            Node::While(until, condition, body) => {
                let mut last = Flow::Next(0);
                loop {
                    match self.node(condition, true)? {
                        Flow::Next(code) if (code == 0) != *until => {}
                        Flow::Next(_) => return Ok(last),
                        other => return Ok(other),
                    }
                    match self.node(body, tested)? {
                        Flow::Continue => {}
                        Flow::Break => return Ok(last),
                        flow @ Flow::Next(_) => last = flow,
                        other => return Ok(other),
                    }
                }
            }
            Node::Function(name, body) => {
                self.functions.insert(name.clone(), body.clone());
                Flow::Next(0)
            }
            Node::Subshell(inner) => {
                let variables = self.variables.clone();
                let directory = self.directory.clone();
                let flow = self.node(inner, tested)?;
                (self.variables, self.directory) = (variables, directory);
                match flow {
                    Flow::Exit(code) => Flow::Next(code),
                    other => other,
                }
            }
            Node::Redirected(inner, redirects) => {
                let saved = self.redirect(redirects)?;
                let flow = match &saved {
                    Some(_) => self.node(inner, tested)?,
                    None => Flow::Next(1),
                };
                self.restore(saved)?;
                flow
            }
        };
        if let Flow::Next(code) = flow {
            self.status = code;
        }
        Ok(flow)
    }

    fn simple(
        &mut self,
        assignments: &[(String, Word)],
        words: &[Word],
        redirects: &[Redirect],
    ) -> Result<Flow, Stop> {
        let mut words = self.fields(words)?;
        let mut before = Vec::new();
        self.status = 0;
        for (name, word) in assignments {
            let value = self.text(word)?;
            let old = self.variables.insert(name.clone(), value);
            before.push((name.clone(), old));
        }
        if words.is_empty() && redirects.is_empty() {
            // The exit code is that of the last command substitution.
            return Ok(Flow::Next(self.status));
        }
        let saved = self.redirect(redirects)?;
        if saved.is_none() {
            self.restore(saved)?;
            return Ok(Flow::Next(1));
        }
        let flow = if words.is_empty() {
            Flow::Next(0)
        } else {
            let name = words.remove(0);
            self.command(&name, words)?
        };
        self.restore(saved)?;
        for (name, old) in before {
            match old {
                Some(value) => self.variables.insert(name, value),
                None => self.variables.remove(&name),
            };
        }
        Ok(flow)
    }

    fn command(&mut self, name: &str, arguments: Vec<String>) -> Result<Flow, Stop> {
        if let Some(body) = self.functions.get(name).cloned() {
            return self.call(&body, arguments);
        }
        let first = arguments.first().map(String::as_str);
        let number = |default: i32| match first {
            Some(text) => text
                .parse()
                .map_err(|_| format!("`{name} {text}` is not understood")),
            None => Ok(default),
        };
        Ok(match name {
            ":" | "true" => Flow::Next(0),
            "false" => Flow::Next(1),
            "exit" => Flow::Exit(number(self.status)? & 255),
            "return" => Flow::Return(number(self.status)? & 255),
            "break" if first.is_none() => Flow::Break,
            "continue" if first.is_none() => Flow::Continue,
            "set" => match first {
                Some("-e") if arguments.len() == 1 => {
                    self.exit_on_error = true;
                    Flow::Next(0)
                }
                Some("+e") if arguments.len() == 1 => {
                    self.exit_on_error = false;
                    Flow::Next(0)
                }
                Some("-u" | "-f") if arguments.len() == 1 => Flow::Next(0),
                Some("-eu" | "-ue") if arguments.len() == 1 => {
                    self.exit_on_error = true;
                    Flow::Next(0)
                }
                Some("--") => {
                    self.arguments = arguments[1..].to_vec();
                    Flow::Next(0)
                }
                _ => return Err("it changes how the shell works".to_owned().into()),
            },
            "shift" => {
                let count = number(1)?.max(0) as usize;
                let enough = count <= self.arguments.len();
                if enough {
                    self.arguments.drain(..count);
                }
                Flow::Next(i32::from(!enough))
            }
            "local" | "export" | "readonly" => {
                for argument in &arguments {
                    let (name, value) = match argument.split_once('=') {
                        Some((name, value)) => (name, Some(value)),
                        None => (argument.as_str(), None),
                    };
                    if name.starts_with('-') {
                        return Err(format!("`{name}` of a declaration is not known").into());
                    }
                    let old = self.variables.get(name).cloned();
                    if let Some(value) = value {
                        self.variables.insert(name.to_owned(), value.to_owned());
                    }
                    if let Some(frame) = self.locals.last_mut() {
                        frame.entry(name.to_owned()).or_insert(old);
                    }
                }
                Flow::Next(0)
            }
            "unset" => {
                for argument in &arguments {
                    self.variables.remove(argument);
                    self.functions.remove(argument);
                }
                Flow::Next(0)
            }
            "cd" => {
                let wanted = self.path(first.unwrap_or("/"));
                let found = self.root.directory(&wanted).is_ok();
                if found {
                    self.directory = wanted;
                }
                Flow::Next(i32::from(!found))
            }
            "exec" if !arguments.is_empty() => {
                let (name, rest) = (arguments[0].clone(), arguments[1..].to_vec());
                match self.command(&name, rest)? {
                    Flow::Next(code) => Flow::Exit(code),
                    other => other,
                }
            }
            "command" if first == Some("-v") => {
                let wanted = arguments.get(1).map(String::as_str).unwrap_or_default();
                let found = commands::find(self, wanted)?;
                if let Some(path) = &found {
                    self.print(&format!("{path}\n"))?;
                }
                Flow::Next(i32::from(found.is_none()))
            }
            _ => Flow::Next(commands::run(self, name, &arguments)?),
        })
    }

    fn call(&mut self, body: &Node, arguments: Vec<String>) -> Result<Flow, Stop> {
        if self.locals.len() as u32 >= DEEPEST {
            return Err("its functions call one another without end"
                .to_owned()
                .into());
        }
        let saved = std::mem::replace(&mut self.arguments, arguments);
        self.locals.push(BTreeMap::new());
        let flow = self.node(body, false);
        self.arguments = saved;
        for (name, old) in self.locals.pop().unwrap_or_default() {
            match old {
                Some(value) => self.variables.insert(name, value),
                None => self.variables.remove(&name),
            };
        }
        Ok(match flow? {
            Flow::Return(code) => Flow::Next(code),
            Flow::Break | Flow::Continue => Flow::Next(0),
            other => other,
        })
    }

    /// Returns a path of the script relative to the root.
    pub(super) fn path(&self, path: &str) -> String {
        let mut parts: Vec<&str> = match path.starts_with('/') {
            true => Vec::new(),
            false => self.directory.split('/').collect(),
        };
        for part in path.split('/') {
            match part {
                "" | "." => {}
                ".." => drop(parts.pop()),
                part => parts.push(part),
            }
        }
        parts.retain(|part| !part.is_empty());
        parts.join("/")
    }

    /// Writes to standard output.
    pub(super) fn print(&mut self, text: &str) -> Result<(), Stop> {
        self.write(1, text.as_bytes())
    }

    /// Writes to standard error.
    pub(super) fn complain(&mut self, text: &str) -> Result<(), Stop> {
        self.write(2, format!("{text}\n").as_bytes())
    }

    pub(super) fn write(&mut self, fd: usize, bytes: &[u8]) -> Result<(), Stop> {
        let out = match &self.outputs[fd] {
            Output::Report => &mut self.report,
            Output::Capture(at) => &mut self.captures[*at],
            Output::File(path) => {
                let found = self
                    .pending
                    .iter_mut()
                    .rev()
                    .find(|(known, _)| known == path);
                &mut found.expect("it was opened by a redirection").1
            }
            Output::Nowhere => return Ok(()),
        };
        if out.len() + bytes.len() > MOST_OUTPUT {
            return Err("it writes too much".to_owned().into());
        }
        out.extend_from_slice(bytes);
        Ok(())
    }

    /// Returns standard input, if something was given.
    pub(super) fn input(&self) -> &[u8] {
        self.input.as_deref().unwrap_or_default()
    }

    /// Opens redirections; `None` if one of them cannot be opened.
    #[expect(clippy::type_complexity, reason = "what was there before")]
    fn redirect(
        &mut self,
        redirects: &[Redirect],
    ) -> Result<Option<([Output; 3], Option<Vec<u8>>, usize)>, Stop> {
        let saved = (self.outputs.clone(), self.input.clone(), self.pending.len());
        for redirect in redirects {
            let fd = redirect.fd as usize;
            if fd > 2 {
                return Err("it uses more files than input and output".to_owned().into());
            }
            match &redirect.to {
                Target::Same(other) => {
                    let other = *other as usize;
                    if other > 2 {
                        return Err("it uses more files than input and output".to_owned().into());
                    }
                    self.outputs[fd] = self.outputs[other].clone();
                }
                Target::Here(word) => self.input = Some(self.text(word)?.into_bytes()),
                Target::Read(word) => {
                    let path = self.text(word)?;
                    let content = match path.as_str() {
                        "/dev/null" => Some(Vec::new()),
                        path => self.root.read(&self.path(path))?,
                    };
                    let Some(content) = content else {
                        self.restore(Some(saved))?;
                        self.complain(&format!("can't open {path}: no such file"))?;
                        return Ok(None);
                    };
                    self.input = Some(content);
                }
                Target::File(word, append) => {
                    let given = self.text(word)?;
                    self.outputs[fd] = match given.as_str() {
                        "/dev/null" => Output::Nowhere,
                        "/dev/stdout" => self.outputs[1].clone(),
                        "/dev/stderr" => self.outputs[2].clone(),
                        given if given.starts_with("/dev/") => {
                            return Err(format!("it writes to {given}").into());
                        }
                        given => {
                            let path = self.path(given);
                            let there = self.root.directory(crate::root::split(&path).0).is_ok();
                            if !there || self.root.directory(&path).is_ok() {
                                self.restore(Some(saved))?;
                                self.complain(&format!("can't create {given}"))?;
                                return Ok(None);
                            }
                            let old = match append {
                                true => self.root.read(&path)?.unwrap_or_default(),
                                false => Vec::new(),
                            };
                            self.pending.push((path.clone(), old));
                            Output::File(path)
                        }
                    };
                }
            }
        }
        Ok(Some(saved))
    }

    /// Closes redirections; the files they wrote to get their content.
    fn restore(
        &mut self,
        saved: Option<([Output; 3], Option<Vec<u8>>, usize)>,
    ) -> Result<(), Stop> {
        let Some((outputs, input, count)) = saved else {
            return Ok(());
        };
        (self.outputs, self.input) = (outputs, input);
        for (path, content) in self.pending.split_off(count) {
            commands::write_through(self.root, &path, &content)?;
        }
        Ok(())
    }

    /// Expands a word to one text.
    fn text(&mut self, word: &Word) -> Result<String, Stop> {
        let mut text = String::new();
        for piece in word {
            text.push_str(&self.value(piece)?);
        }
        Ok(text)
    }

    /// Expands a word to a pattern: what is quoted stands for itself.
    fn pattern(&mut self, word: &Word) -> Result<String, Stop> {
        let mut pattern = String::new();
        for piece in word {
            let value = self.value(piece)?;
            match piece.quoted {
                true => pattern.push_str(&escape(&value)),
                false => pattern.push_str(&value),
            }
        }
        Ok(pattern)
    }

    /// Expands words to arguments: variables, splitting, file names.
    fn fields(&mut self, words: &[Word]) -> Result<Vec<String>, Stop> {
        let mut fields = Vec::new();
        for word in words {
            // Each field as text and as pattern; the last one is open.
            let mut open: Option<(String, String)> = None;
            let mut done: Vec<(String, String)> = Vec::new();
            for piece in word {
                if let What::Variable(name, None) = &piece.what
                    && (name == "@" || name == "*" && !piece.quoted)
                {
                    for (at, argument) in self.arguments.iter().enumerate() {
                        if at > 0 {
                            done.extend(open.take());
                        }
                        let (text, pattern) = open.get_or_insert_default();
                        text.push_str(argument);
                        pattern.push_str(&escape(argument));
                    }
                    continue;
                }
                let value = self.value(piece)?;
                if piece.quoted {
                    let (text, pattern) = open.get_or_insert_default();
                    text.push_str(&value);
                    pattern.push_str(&escape(&value));
                    continue;
                }
                if matches!(piece.what, What::Text(_)) {
                    let (text, pattern) = open.get_or_insert_default();
                    text.push_str(&value);
                    pattern.push_str(&value);
                    continue;
                }
                let blank = |c: char| matches!(c, ' ' | '\t' | '\n');
                if value.starts_with(blank) {
                    done.extend(open.take());
                }
                let ends = value.ends_with(blank);
                for (at, part) in value
                    .split(blank)
                    .filter(|part| !part.is_empty())
                    .enumerate()
                {
                    if at > 0 {
                        done.extend(open.take());
                    }
                    let (text, pattern) = open.get_or_insert_default();
                    text.push_str(part);
                    pattern.push_str(part);
                }
                if ends {
                    done.extend(open.take());
                }
            }
            done.extend(open);
            for (text, pattern) in done {
                let names = match has_wildcard(&pattern) {
                    true => self.file_names(&pattern)?,
                    false => Vec::new(),
                };
                match names.is_empty() {
                    true => fields.push(text),
                    false => fields.extend(names),
                }
            }
        }
        Ok(fields)
    }

    /// Returns the names that match a pattern, sorted.
    fn file_names(&self, pattern: &str) -> Result<Vec<String>, Stop> {
        let absolute = pattern.starts_with('/');
        let mut found = vec![if absolute {
            "/".to_owned()
        } else {
            String::new()
        }];
        for part in pattern.split('/').filter(|part| !part.is_empty()) {
            let mut next = Vec::new();
            for folder in &found {
                let join = |name: &str| match folder.as_str() {
                    "" => name.to_owned(),
                    folder if folder.ends_with('/') => format!("{folder}{name}"),
                    folder => format!("{folder}/{name}"),
                };
                if !has_wildcard(part) {
                    let path = join(&part.replace('\\', ""));
                    if self.root.stat(&self.path(&path))?.is_some() {
                        next.push(path);
                    }
                    continue;
                }
                for name in self.root.list(&self.path(folder))? {
                    let Some(name) = name.to_str() else { continue };
                    let hidden = name.starts_with('.') && !part.starts_with('.');
                    if !hidden && glob::matches(part, name, glob::Options::default()) {
                        next.push(join(name));
                    }
                }
            }
            found = next;
        }
        Ok(found)
    }

    fn variable(&self, name: &str) -> Option<String> {
        match name {
            "?" => Some(self.status.to_string()),
            "#" => Some(self.arguments.len().to_string()),
            "@" | "*" => (!self.arguments.is_empty()).then(|| self.arguments.join(" ")),
            "0" => Some("script".to_owned()),
            name => match name.parse::<usize>() {
                Ok(number) => self.arguments.get(number - 1).cloned(),
                Err(_) => self.variables.get(name).cloned(),
            },
        }
    }

    fn value(&mut self, piece: &Piece) -> Result<String, Stop> {
        let (name, operator) = match &piece.what {
            What::Text(text) => return Ok(text.clone()),
            What::Command(node) => return self.substitute(node),
            What::Variable(name, operator) => (name, operator),
        };
        let value = self.variable(name);
        let usable = |colon: bool| value.as_ref().filter(|value| !(colon && value.is_empty()));
        Ok(match operator {
            None => value.unwrap_or_default(),
            Some(Operator::Length) => value.unwrap_or_default().chars().count().to_string(),
            Some(Operator::Default(colon, word)) => match usable(*colon) {
                Some(value) => value.clone(),
                None => self.text(word)?,
            },
            Some(Operator::Assign(colon, word)) => match usable(*colon) {
                Some(value) => value.clone(),
                None => {
                    let text = self.text(word)?;
                    self.variables.insert(name.clone(), text.clone());
                    text
                }
            },
            Some(Operator::Alternative(colon, word)) => match usable(*colon) {
                Some(_) => self.text(word)?,
                None => String::new(),
            },
            Some(Operator::Prefix(longest, word)) => {
                let pattern = self.pattern(word)?;
                let value = value.unwrap_or_default();
                let mut cuts: Vec<usize> = value.char_indices().map(|(at, _)| at).collect();
                cuts.push(value.len());
                if *longest {
                    cuts.reverse();
                }
                let fits =
                    |cut: &usize| glob::matches(&pattern, &value[..*cut], Default::default());
                let cut = cuts.into_iter().find(fits).unwrap_or(0);
                value[cut..].to_owned()
            }
            Some(Operator::Suffix(longest, word)) => {
                let pattern = self.pattern(word)?;
                let value = value.unwrap_or_default();
                let mut cuts: Vec<usize> = value.char_indices().map(|(at, _)| at).collect();
                cuts.push(value.len());
                if !*longest {
                    cuts.reverse();
                }
                let fits =
                    |cut: &usize| glob::matches(&pattern, &value[*cut..], Default::default());
                let cut = cuts.into_iter().find(fits).unwrap_or(value.len());
                value[..cut].to_owned()
            }
        })
    }

    fn substitute(&mut self, node: &Node) -> Result<String, Stop> {
        self.captures.push(Vec::new());
        let at = self.captures.len() - 1;
        let saved = std::mem::replace(&mut self.outputs[1], Output::Capture(at));
        let (variables, directory) = (self.variables.clone(), self.directory.clone());
        let flow = self.node(node, true)?;
        (self.variables, self.directory) = (variables, directory);
        self.outputs[1] = saved;
        self.status = match flow {
            Flow::Next(code) | Flow::Exit(code) | Flow::Return(code) => code,
            Flow::Break | Flow::Continue => 0,
        };
        let text = self.captures.pop().unwrap_or_default();
        let text = String::from_utf8_lossy(&text).into_owned();
        Ok(text.trim_end_matches('\n').to_owned())
    }
}

/// Makes a text a pattern that matches only itself.
fn escape(text: &str) -> String {
    let mut pattern = String::with_capacity(text.len());
    for c in text.chars() {
        if "*?[]\\".contains(c) {
            pattern.push('\\');
        }
        pattern.push(c);
    }
    pattern
}

fn has_wildcard(pattern: &str) -> bool {
    let mut escaped = false;
    pattern.chars().any(|c| {
        let wild = !escaped && "*?[".contains(c);
        escaped = !escaped && c == '\\';
        wild
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::root::Tree;

    /// Runs a script on a small tree; returns its output and code, or why it is not understood.
    fn answer(script: &str) -> String {
        let tree = Tree::new(0);
        let root = Root::of_tree(&tree);
        for path in [
            "etc/passwd",
            "etc/group",
            "etc/a.conf",
            "etc/b.conf",
            "bin/busybox",
        ] {
            root.replace(path, b"root:x:0:0::/root:/bin/sh\n", 0o755, false)
                .expect("a tree");
        }
        let arguments = ["1.2".to_owned(), "x y".to_owned()];
        match run(&root, script, &arguments, &[("APK_PACKAGE", "p")], 3, &[]) {
            Ok(done) => format!("{}{}", done.output, done.code),
            Err(Stop::Unsupported(reason)) => reason,
            Err(Stop::Failed(error)) => error.to_string(),
        }
    }

    #[test]
    fn scripts_do_what_a_shell_does() {
        for (script, wanted) in [
            ("", "0"),
            ("#!/bin/sh\n# text\nexit 3\necho no\n", "3"),
            ("echo a  'b  c' \"$1\"", "a b  c 1.2\n0"),
            ("for i in \"$@\"; do echo \"<$i>\"; done", "<1.2>\n<x y>\n0"),
            ("for i in $2 z; do echo $i; done", "x\ny\nz\n0"),
            ("for i; do :; done; echo $i $#", "x y 2\n0"),
            (
                "echo /etc/*.conf /no/*.conf",
                "/etc/a.conf /etc/b.conf /no/*.conf\n0",
            ),
            (
                "cd /etc; echo [ab].co*; cd /no || echo $?",
                "a.conf b.conf\n1\n0",
            ),
            ("echo '*' \"/etc/*\"", "* /etc/*\n0"),
            (
                "x=a.b.c; echo ${x%.*} ${x%%.*} ${x#*.} ${x##*.} ${#x}",
                "a.b a b.c c 5\n0",
            ),
            ("echo ${y:-d} ${y-e} ${y:+no}. ${y:=f} $y", "d e . f f\n0"),
            (
                "if [ -e /etc/passwd ]; then echo yes; else echo no; fi",
                "yes\n0",
            ),
            (
                "if [ -d /etc/passwd ] || ! [ -d /etc ]; then echo 1; elif true; then echo 2; fi",
                "2\n0",
            ),
            (
                "case \"$1\" in 2*) echo no;; 1.?|z) echo yes;; *) echo other;; esac",
                "yes\n0",
            ),
            ("case x in (x) echo a ;; esac", "a\n0"),
            (
                "f() { local v=$1; echo $v; return 4; }; v=o; f i; echo $? $v",
                "i\n4 o\n0",
            ),
            ("v=$(echo one; echo two); echo \"$v\"", "one\ntwo\n0"),
            ("echo a >/dev/null; echo b >&2; echo c 2>&1", "b\nc\n0"),
            ("cat <<EOF\nx $1\n\t\\$y\nEOF\necho z", "x 1.2\n\t$y\nz\n0"),
            ("cat <<-'EOF'\n\tx $1\n\tEOF\n", "x $1\n0"),
            (
                "echo one > /etc/n; echo two >> /etc/n; cat /etc/n",
                "one\ntwo\n0",
            ),
            ("set -e\nfalse\necho no", "1"),
            (
                "set -e\nfalse || true\nif false; then :; fi\n! true\necho yes",
                "yes\n0",
            ),
            ("(exit 3); echo $?", "3\n0"),
            (
                "i=a; while [ ${#i} -lt 4 ]; do i=$i$i; done; echo $i",
                "aaaa\n0",
            ),
            ("[ \"$1\" = 1.2 -a ! -e /no ] && echo y", "y\n0"),
            ("true && false || echo c", "c\n0"),
            ("exec /bin/busybox echo b\necho no", "b\n0"),
            ("echo $APK_PACKAGE ${1}x", "p 1.2x\n0"),
            ("printf '%s-%s\\n' a b", "a-b\n0"),
            ("echo a | cat", "it has a pipe"),
            ("sleep 1 &", "it has a background command"),
            ("echo $((1+1))", "it has arithmetic"),
            ("frobnicate x", "it runs `frobnicate`"),
            ("if [ -e /no ]; then frobnicate; fi", "0"),
            ("while :; do :; done", "it does not end"),
            (
                "f() { f; }; f",
                "its functions call one another without end",
            ),
            ("echo 'open", "a quote in it has no end"),
            ("fi", "line 1 is not understood"),
        ] {
            assert_eq!(answer(script), wanted, "{script}");
        }
    }
}
