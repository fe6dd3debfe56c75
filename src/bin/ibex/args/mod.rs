//! apk's command line grammar over the definitions of [`options`] (cli.md, 1.1, 1.2 and 1.4).
//!
//! A general parser would reject what apk accepts (options anywhere, abbreviations over several
//! groups, `--no-NAME`, an applet in any place), so the scan is ours; the help is rendered by clap
//! from the same definitions.

pub(crate) mod complete;
pub(crate) mod help;
pub(crate) mod image;
pub(crate) mod man;
pub(crate) mod options;

use options::{APPLETS, Applet, GLOBAL, Opt, Takes};
use std::collections::HashMap;

/// The values given for options, by id.
#[derive(Clone, Debug, Default)]
pub(crate) struct Values {
    given: HashMap<&'static str, Vec<String>>,
    /// The ids in the order in which they were given.
    order: Vec<&'static str>,
    /// The name or letter by which an option was given last, for messages.
    names: HashMap<&'static str, String>,
}

impl Values {
    /// Returns whether a flag was given, or a yes-or-no option says yes.
    pub(crate) fn is(&self, id: &str) -> bool {
        self.last(id).is_some_and(|value| value != "no")
    }

    /// Returns yes or no if an option was given; `auto` counts as not given.
    pub(crate) fn choice(&self, id: &str) -> Option<bool> {
        match self.last(id)? {
            "yes" => Some(true),
            "no" => Some(false),
            _ => None,
        }
    }

    /// Returns the value that counts.
    pub(crate) fn last(&self, id: &str) -> Option<&str> {
        self.given
            .get(id)
            .and_then(|values| values.last())
            .map(String::as_str)
    }

    /// Returns which of these options was given last.
    pub(crate) fn last_of(&self, ids: &[&'static str]) -> Option<&'static str> {
        self.order.iter().rev().find(|id| ids.contains(id)).copied()
    }

    /// Returns which options were given after the last one of this id; all, if it was not given.
    pub(crate) fn since(&self, id: &str) -> &[&'static str] {
        let last = self.order.iter().rposition(|given| *given == id);
        &self.order[last.map_or(0, |at| at + 1)..]
    }

    /// Returns all values.
    pub(crate) fn all(&self, id: &str) -> Vec<String> {
        self.given.get(id).cloned().unwrap_or_default()
    }

    /// Returns how often a flag was given.
    pub(crate) fn count(&self, id: &str) -> usize {
        self.given.get(id).map_or(0, Vec::len)
    }

    /// Returns a number that was checked when it was read.
    pub(crate) fn number(&self, id: &str) -> Option<u64> {
        self.last(id).and_then(|value| value.parse().ok())
    }

    /// Returns how an option was written on the command line.
    pub(crate) fn typed<'a>(&'a self, id: &'a str) -> &'a str {
        self.names.get(id).map_or(id, String::as_str)
    }

    fn add(&mut self, id: &'static str, name: &str, value: &str) {
        self.names.insert(id, name.to_owned());
        self.given.entry(id).or_default().push(value.to_owned());
        self.order.push(id);
    }
}

/// What was typed, understood.
#[derive(Clone, Debug)]
pub(crate) struct Invocation {
    /// The command; `None` with what [`Stop`] does not cover.
    pub(crate) applet: &'static Applet,
    /// What `image` is to do.
    pub(crate) subcommand: Option<&'static Applet>,
    /// Options.
    pub(crate) values: Values,
    /// Arguments, in order.
    pub(crate) arguments: Vec<String>,
}

impl Invocation {
    /// Returns the verbosity: 1, more with `-v`, less with `-q`, not below 0.
    pub(crate) fn verbosity(&self) -> u8 {
        let level = 1 + self.values.count("verbose") as i64 - self.values.count("quiet") as i64;
        level.clamp(0, 9) as u8
    }
}

/// Why nothing is run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Stop {
    /// Print this to standard output and exit with the code.
    Output(String, u8),
    /// Print this behind `ERROR: `, the hint for people after it, and exit with 1.
    Error(String, Option<String>),
    /// The same for `image`, which exits with 2.
    Usage(String),
}

fn not_a_command(called: &str, word: &str) -> String {
    let (kind, name) = match called.starts_with("apk") || called.is_empty() {
        true => ("an apk command", "apk"),
        false => ("a command", called),
    };
    format!("'{word}' is not {kind}. See '{name} --help'.")
}

/// Understands a command line. `program` is the name it was called by; `config` is the text of the
/// configuration file, and `warnings` is what is wrong with that.
pub(crate) fn parse(
    program: &str,
    words: &[String],
    config: Option<&str>,
    warnings: &mut Vec<String>,
) -> Result<Invocation, Stop> {
    let called = program.rsplit('/').next().unwrap_or(program);
    let by_name = called.strip_prefix("apk_").and_then(find_applet);
    let applet = by_name.or_else(|| scan_for_applet(words));
    if called == "apko" || applet.is_some_and(|applet| applet.name == "image") {
        return image::parse(called, words);
    }
    let scope = Scope::new(applet);
    let mut values = Values::default();
    if let Some(text) = config {
        read_config(text, &scope, &mut values, warnings);
    }
    let mut parser = Parser {
        scope,
        called,
        values,
        arguments: Vec::new(),
    };
    parser.run(words)?;
    let Parser {
        values,
        mut arguments,
        ..
    } = parser;
    let Some(applet) = applet else {
        return Err(match arguments.first() {
            Some(word) => Stop::Error(
                not_a_command(called, word),
                did_you_mean(word, "", APPLETS.iter().map(|applet| applet.name)),
            ),
            None => Stop::Output(help::overview(called), 1),
        });
    };
    if by_name.is_none()
        && let Some(at) = arguments.iter().position(|word| word == applet.name)
    {
        arguments.remove(at);
    }
    Ok(Invocation {
        applet,
        subcommand: None,
        values,
        arguments,
    })
}

fn find_applet(name: &str) -> Option<&'static Applet> {
    APPLETS.iter().find(|applet| applet.name == name)
}

/// Finds the applet with only the global options known.
fn scan_for_applet(words: &[String]) -> Option<&'static Applet> {
    let scope = Scope::new(None);
    let mut rest = words.iter();
    let mut only_arguments = false;
    while let Some(word) = rest.next() {
        if !only_arguments && word == "--" {
            only_arguments = true;
        } else if only_arguments || !word.starts_with('-') || word == "-" {
            if let Some(applet) = find_applet(word) {
                return Some(applet);
            }
        } else if scope.swallows_next(word) {
            rest.next();
        }
    }
    None
}

/// The options that can be looked up, in order.
struct Scope {
    groups: Vec<&'static [Opt]>,
    applet: Option<&'static Applet>,
}

/// A long name that was looked up.
enum Found {
    Option(Opt, bool),
    Ambiguous,
    Unknown,
}

impl Scope {
    fn new(applet: Option<&'static Applet>) -> Self {
        let mut groups = vec![GLOBAL];
        if let Some(applet) = applet {
            groups.push(applet.options);
            groups.extend(applet.groups.iter().map(|group| group.options()));
        }
        Self { groups, applet }
    }

    /// Makes one of these groups alone.
    fn of(groups: Vec<&'static [Opt]>, applet: Option<&'static Applet>) -> Self {
        Self { groups, applet }
    }

    fn options(&self) -> impl Iterator<Item = Opt> + '_ {
        self.groups.iter().flat_map(|group| group.iter().copied())
    }

    fn short(&self, letter: char) -> Option<Opt> {
        self.options().find(|option| option.short == Some(letter))
    }

    fn exact(&self, name: &str) -> Option<(Opt, bool)> {
        let plain = self
            .options()
            .find(|option| !name.is_empty() && option.long == name);
        let negated = || {
            let positive = name.strip_prefix("no-")?;
            let option = self.options().find(|option| option.long == positive)?;
            matches!(option.takes, Takes::Bool | Takes::Auto).then_some((option, true))
        };
        plain.map(|option| (option, false)).or_else(negated)
    }

    fn long(&self, name: &str) -> Found {
        if let Some((option, negated)) = self.exact(name) {
            return Found::Option(option, negated);
        }
        let mut found: Vec<(Opt, bool, &str)> = Vec::new();
        let mut add = |option: Opt, negated: bool| {
            // The same name in two groups is one name; the first group has it.
            if !found
                .iter()
                .any(|(_, n, long)| *n == negated && *long == option.long)
            {
                found.push((option, negated, option.long));
            }
        };
        for option in self.options().filter(|option| !option.long.is_empty()) {
            if !name.is_empty() && option.long.starts_with(name) {
                add(option, false);
            }
            let negatable = matches!(option.takes, Takes::Bool | Takes::Auto);
            if let (true, Some(positive)) = (negatable, name.strip_prefix("no-"))
                && option.long.starts_with(positive)
            {
                add(option, true);
            }
        }
        // What apk does not have must not make one of its abbreviations ambiguous.
        if found.iter().any(|(option, ..)| !is_own(option)) {
            found.retain(|(option, ..)| !is_own(option));
        }
        match found.as_slice() {
            [] => Found::Unknown,
            [(option, negated, _)] => Found::Option(*option, *negated),
            _ => Found::Ambiguous,
        }
    }

    /// Returns whether a word takes the next one as its value.
    fn swallows_next(&self, word: &str) -> bool {
        if let Some(long) = word.strip_prefix("--") {
            return !long.contains('=')
                && matches!(self.long(long), Found::Option(option, _) if needs_value(option));
        }
        let letters: Vec<char> = word.chars().skip(1).collect();
        for (at, letter) in letters.iter().enumerate() {
            match self.short(*letter) {
                Some(option) if needs_value(option) => return at + 1 == letters.len(),
                Some(_) => {}
                None => return false,
            }
        }
        false
    }
}

fn is_own(option: &Opt) -> bool {
    options::OWN.contains(&option.id)
}

fn needs_value(option: Opt) -> bool {
    matches!(
        option.takes,
        Takes::Value(_) | Takes::List(_) | Takes::Number(_)
    )
}

struct Parser<'a> {
    scope: Scope,
    called: &'a str,
    values: Values,
    arguments: Vec<String>,
}

impl Parser<'_> {
    fn run(&mut self, words: &[String]) -> Result<(), Stop> {
        let mut rest = words.iter();
        let mut only_arguments = false;
        while let Some(word) = rest.next() {
            if only_arguments || !word.starts_with('-') || word == "-" {
                self.arguments.push(word.clone());
            } else if word == "--" {
                only_arguments = true;
            } else if let Some(long) = word.strip_prefix("--") {
                self.long(long, &mut rest)?;
            } else {
                self.bundle(&word[1..], &mut rest)?;
            }
        }
        Ok(())
    }

    fn long<'w>(
        &mut self,
        text: &str,
        rest: &mut impl Iterator<Item = &'w String>,
    ) -> Result<(), Stop> {
        let (name, value) = match text.split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (text, None),
        };
        let (option, negated) = match self.scope.long(name) {
            Found::Option(option, negated) => (option, negated),
            Found::Ambiguous => return Err(wrong(format!("ambiguous option '{name}'"))),
            Found::Unknown => {
                let known = self
                    .scope
                    .options()
                    .filter(|option| !option.help.is_empty());
                let hint = did_you_mean(name, "--", known.map(|option| option.long));
                let text = format!("command line: unrecognized option '{name}'");
                return Err(Stop::Error(text, hint));
            }
        };
        if needs_value(option) {
            let value = match value {
                Some(value) => value.to_owned(),
                None => rest
                    .next()
                    .cloned()
                    .ok_or_else(|| wrong(format!("option '{name}' expects an argument")))?,
            };
            return self.set(option, name, &value);
        }
        match (value, negated) {
            (None, false) => self.set(option, name, "yes"),
            (None, true) => self.set(option, name, "no"),
            (Some(value), false) if option.takes != Takes::Nothing => self.set(option, name, value),
            (Some(value), _) => Err(wrong(format!(
                "option '{name}' does not expect argument (got '{value}')"
            ))),
        }
    }

    fn bundle<'w>(
        &mut self,
        letters: &str,
        rest: &mut impl Iterator<Item = &'w String>,
    ) -> Result<(), Stop> {
        for (at, letter) in letters.char_indices() {
            let name = letter.to_string();
            let Some(option) = self.scope.short(letter) else {
                return Err(wrong(format!("unrecognized option '{name}'")));
            };
            if !needs_value(option) {
                self.set(option, &name, "yes")?;
                continue;
            }
            let after = &letters[at + letter.len_utf8()..];
            let value = if after.is_empty() {
                rest.next()
                    .cloned()
                    .ok_or_else(|| wrong(format!("option '{name}' expects an argument")))?
            } else {
                after.to_owned()
            };
            return self.set(option, &name, &value);
        }
        Ok(())
    }

    fn set(&mut self, option: Opt, name: &str, value: &str) -> Result<(), Stop> {
        if !is_valid(option, value) {
            return Err(wrong(format!(
                "invalid argument for option '{name}': '{value}'"
            )));
        }
        match option.id {
            "help" => return Err(Stop::Output(help::text(self.called, self.scope.applet), 1)),
            "version" => return Err(Stop::Output(help::version(self.called), 0)),
            "print-arch" => return Err(Stop::Output(format!("{}\n", ibex::config::ARCH), 0)),
            _ => {}
        }
        self.values.add(option.id, name, value);
        Ok(())
    }
}

fn wrong(text: String) -> Stop {
    Stop::Error(format!("command line: {text}"), None)
}

/// Names what was probably meant; each candidate is shown behind `prefix`.
fn did_you_mean<'a>(
    typed: &str,
    prefix: &str,
    candidates: impl Iterator<Item = &'a str>,
) -> Option<String> {
    const SIMILAR: f64 = 0.6;
    let rated = candidates.map(|name| (strsim::normalized_damerau_levenshtein(typed, name), name));
    let near = rated.filter(|(similarity, _)| *similarity >= SIMILAR);
    let nearest = near.max_by(|a, b| a.0.total_cmp(&b.0).then(b.1.cmp(a.1)))?;
    Some(format!("did you mean `{prefix}{}`?", nearest.1))
}

fn is_valid(option: Opt, value: &str) -> bool {
    match option.takes {
        Takes::Nothing => true,
        Takes::Bool => matches!(value, "yes" | "no"),
        Takes::Auto => matches!(value, "yes" | "no" | "auto"),
        Takes::Number(_) => value.parse::<u64>().is_ok(),
        Takes::Value(_) if option.id == "solver" => matches!(value, "auto" | "apk" | "complete"),
        Takes::Value(_) if option.id == "format" => {
            matches!(value, "default" | "json" | "yaml")
        }
        Takes::Value(_) if option.id == "from" => {
            matches!(value, "system" | "repositories" | "installed" | "none")
        }
        Takes::List(_) if option.id == "limits" => {
            ibex::format::Limits::default().set(value).is_ok()
        }
        Takes::List("URL") if option.id == "mirror" => ibex::config::mirrors::is_address(value),
        Takes::Value(_) if option.id == "branch" => ibex::config::mirrors::is_folder(value),
        Takes::List(_) if option.id == "component" => {
            value.split(',').all(ibex::config::mirrors::is_folder)
        }
        Takes::Value(_) if option.id == "cache-limit" => ibex::format::parse_size(value).is_some(),
        Takes::Value(_) | Takes::List(_) => true,
    }
}

/// Reads the configuration file: one long option a line, problems are warnings.
fn read_config(text: &str, scope: &Scope, values: &mut Values, warnings: &mut Vec<String>) {
    for line in text.lines() {
        let line = line.split('#').next().unwrap_or_default().trim_end();
        if line.is_empty() {
            continue;
        }
        let (name, value) = match line.split_once(' ') {
            Some((name, value)) => (name, Some(value.trim_start())),
            None => (line, None),
        };
        let mut warn = |text: String| warnings.push(format!("config: {text}"));
        let Some((option, negated)) = scope.exact(name) else {
            warn(format!("unrecognized option '{name}'"));
            continue;
        };
        if matches!(option.id, "help" | "version" | "print-arch") {
            warn(format!("setting option '{name}' failed"));
            continue;
        }
        let takes_none = option.takes == Takes::Nothing || negated;
        match value {
            Some(value) if takes_none => {
                warn(format!(
                    "option '{name}' does not expect argument (got '{value}')"
                ));
            }
            None if needs_value(option) => warn(format!("option '{name}' expects an argument")),
            _ => {
                let value = value.unwrap_or(if negated { "no" } else { "yes" });
                if is_valid(option, value) {
                    values.add(option.id, name, value);
                } else {
                    warn(format!("invalid argument for option '{name}': '{value}'"));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<String> {
        text.split_whitespace().map(str::to_owned).collect()
    }

    fn error(text: &str) -> String {
        match parse("apk", &words(text), None, &mut Vec::new()) {
            Err(Stop::Error(text, _)) => text,
            other => panic!("{text}: {other:?}"),
        }
    }

    #[test]
    fn options_stand_anywhere() {
        for (text, applet, arguments) in [
            ("add foo", "add", &["foo"][..]),
            ("-p R --arch x86_64 add -t .v foo", "add", &["foo"]),
            ("-t .v add foo", "add", &["foo"]),
            ("foo add -q bar", "add", &["foo", "bar"]),
            ("list list", "list", &["list"]),
            ("-- list alpine-base", "list", &["alpine-base"]),
            ("--root=R -qq info -e zlib", "info", &["zlib"]),
            ("add -- -x", "add", &["-x"]),
            ("--no-logf stats -", "stats", &["-"]),
            // `--color` is not apk's.
            ("info --co x", "info", &["x"]),
            ("--colo=no info x", "info", &["x"]),
        ] {
            let parsed = parse("apk", &words(text), None, &mut Vec::new())
                .unwrap_or_else(|e| panic!("{text}: {e:?}"));
            assert_eq!(parsed.applet.name, applet, "{text}");
            assert_eq!(parsed.arguments, arguments, "{text}");
        }
        assert_eq!(
            parse("/bin/apk_list", &words("-q musl"), None, &mut Vec::new())
                .unwrap()
                .applet
                .name,
            "list"
        );
    }

    #[test]
    fn groups_are_searched_in_order() {
        let info = parse("apk", &words("info -R x"), None, &mut Vec::new()).unwrap();
        assert!(info.values.is("depends") && !info.values.is("recursive"));
        let fetch = parse("apk", &words("fetch -s -R x"), None, &mut Vec::new()).unwrap();
        assert!(fetch.values.is("stdout") && fetch.values.is("recursive"));
        let values = parse(
            "apk",
            &words("-vv -q --no-cache --cache-max-age 5 stats"),
            None,
            &mut Vec::new(),
        )
        .unwrap();
        assert_eq!(values.verbosity(), 2);
        assert_eq!(values.values.choice("cache"), Some(false));
        assert_eq!(values.values.number("cache-max-age"), Some(5));
    }

    #[test]
    fn errors_are_apks() {
        for (text, wanted) in [
            ("--nosuch", "command line: unrecognized option 'nosuch'"),
            ("--ver", "command line: ambiguous option 'ver'"),
            (
                "--cache=maybe stats",
                "command line: invalid argument for option 'cache': 'maybe'",
            ),
            (
                "--quiet=yes stats",
                "command line: option 'quiet' does not expect argument (got 'yes')",
            ),
            ("--arch", "command line: option 'arch' expects an argument"),
            ("-Z stats", "command line: unrecognized option 'Z'"),
            (
                "--no-quiet stats",
                "command line: unrecognized option 'no-quiet'",
            ),
            (
                "--wait abc stats",
                "command line: invalid argument for option 'wait': 'abc'",
            ),
            (
                "--branch ../../x update",
                "command line: invalid argument for option 'branch': '../../x'",
            ),
            (
                "--component main,a/../b update",
                "command line: invalid argument for option 'component': 'main,a/../b'",
            ),
            (
                "--mirror mirror.example update",
                "command line: invalid argument for option 'mirror': 'mirror.example'",
            ),
            ("foo", "'foo' is not an apk command. See 'apk --help'."),
        ] {
            assert_eq!(error(text), wanted, "{text}");
        }
    }

    #[test]
    fn typos_get_a_suggestion() {
        for (text, wanted) in [
            ("instal", None),
            ("upgarde", Some("did you mean `upgrade`?")),
            ("serach x", Some("did you mean `search`?")),
            ("add --simluate x", Some("did you mean `--simulate`?")),
            ("--no-netwrok add", Some("did you mean `--network`?")),
            ("--zzzz", None),
        ] {
            match parse("apk", &words(text), None, &mut Vec::new()) {
                Err(Stop::Error(_, hint)) => assert_eq!(hint.as_deref(), wanted, "{text}"),
                other => panic!("{text}: {other:?}"),
            }
        }
    }

    #[test]
    fn the_configuration_file_is_overridden() {
        let config = "no-cache # text\ntimeout 120\nquiet yes\ninteractive=auto\ntimeout\nhelp\n";
        let mut warnings = Vec::new();
        let parsed = parse(
            "apk",
            &words("--timeout 5 stats"),
            Some(config),
            &mut warnings,
        );
        let parsed = parsed.unwrap();
        assert_eq!(parsed.values.choice("cache"), Some(false));
        assert_eq!(parsed.values.number("timeout"), Some(5));
        assert_eq!(
            warnings,
            [
                "config: option 'quiet' does not expect argument (got 'yes')",
                "config: unrecognized option 'interactive=auto'",
                "config: option 'timeout' expects an argument",
                "config: setting option 'help' failed",
            ]
        );
    }
}
