//! `info`, `list`, `search`, `policy`, `query`: options to questions, answers to the console.

use super::settings::settings;
use super::{files, keep};
use crate::args::{Invocation, Values};
use crate::output::{Console, colour};
use crate::table::{Column, Table};
use ibex::config::Settings;
use ibex::ops::Error;
use ibex::ops::known::Known;
use ibex::ops::query::{
    self, Answer, Arguments, Cell, Field, FieldList, FieldSet, Format, From, InfoOptions,
    ListOptions, OwnerStyle, QueryOptions, Reverse, SearchOptions, Selection, VersionOptions,
};

/// The `info` options that choose a field.
const INFO_FIELDS: [(&str, Field); 12] = [
    ("description", Field::Description),
    ("webpage", Field::Url),
    ("size", Field::InstalledSize),
    ("depends", Field::Depends),
    ("provides", Field::Provides),
    ("rdepends", Field::ReverseDepends),
    ("contents", Field::Contents),
    ("triggers", Field::Triggers),
    ("install-if", Field::InstallIf),
    ("rinstall-if", Field::ReverseInstallIf),
    ("replaces", Field::Replaces),
    ("license", Field::License),
];

/// What the query group's options say.
struct QueryGroup {
    selection: Selection,
    fields: Option<FieldList>,
    format: Format,
    summarize: Option<(Field, Reverse)>,
    from: Option<From>,
    pretty: bool,
}

impl QueryGroup {
    fn new(values: &Values) -> Result<Self, Error> {
        let field_list = |id| parsed(values, id, FieldList::parse);
        Ok(Self {
            selection: Selection {
                match_fields: parsed(values, "match", FieldList::parse_match)?.unwrap_or_default(),
                search: values.is("query-search"),
                all_matches: values.is("all-matches"),
                available: values.is("query-available"),
                installed: values.is("query-installed"),
                orphaned: values.is("query-orphaned"),
                upgradable: values.is("query-upgradable"),
            },
            fields: field_list("fields")?,
            format: match values.is("query-json") {
                true => Format::Json,
                false => parsed(values, "format", Format::from_key)?.unwrap_or_default(),
            },
            summarize: parsed(values, "summarize", FieldList::parse_summary)?,
            from: {
                let from = parsed(values, "from", From::from_key)?;
                match values.last_of(&["from", "query-installed"]) {
                    Some("query-installed") => Some(From::Installed),
                    _ => from,
                }
            },
            pretty: false,
        })
    }
}

fn parsed<T>(
    values: &Values,
    id: &str,
    parse: impl Fn(&str) -> Option<T>,
) -> Result<Option<T>, Error> {
    let Some(text) = values.last(id) else {
        return Ok(None);
    };
    parse(text).map(Some).ok_or_else(|| Error::Arguments {
        lines: vec![format!(
            "command line: invalid argument for option '{}': '{text}'",
            values.typed(id)
        )],
        code: 1,
    })
}

/// Runs the command.
pub(crate) fn run(invocation: &Invocation, console: &mut Console) -> Result<u8, Error> {
    let values = &invocation.values;
    if let Some(answer) = version_texts(invocation) {
        return Ok(give(&answer, console));
    }
    if invocation.applet.name == "fetch" && invocation.arguments == ["coffee"] {
        console.print("Go and fetch your own coffee.\n");
        return Ok(0);
    }
    let mut group = QueryGroup::new(values)?;
    let pretty = match values.last("pretty-print") {
        Some("yes") => true,
        Some("no") => false,
        _ => console.terminal,
    };
    // JSON is for programs, which want the numbers.
    group.pretty = pretty && group.format != Format::Json;
    let settings = settings(invocation);
    let applet = invocation.applet.name;
    let from = group.from.unwrap_or_else(|| default_source(invocation));
    let needs_database = !matches!(applet, "search" | "fetch" | "dot") || values.is("query-world");
    let known = Known::open(&settings, from, needs_database, console)?;
    // apk's tests of the installed database look at nothing else.
    if applet != "info" || info_test(values).is_none() {
        known.warn(console);
    }
    let answer = answer(invocation, &settings, &group, &known, console)?;
    if console.terminal && group.format == Format::Default {
        for_people(invocation, &known, &answer, console);
        return Ok(answer.status.min(99) as u8);
    }
    Ok(give(&answer, console))
}

/// Gives an answer to a terminal: listings as tables, and where nothing was found what might have
/// been meant.
fn for_people(invocation: &Invocation, known: &Known, answer: &Answer, console: &mut Console) {
    let applet = invocation.applet.name;
    show(answer, console);
    let asks = matches!(
        applet,
        "fetch" | "info" | "list" | "policy" | "query" | "search" | "why"
    );
    // `fetch` has something to say about each word.
    let found = match applet {
        "fetch" => answer.status == 0,
        _ => !answer.text.is_empty(),
    };
    if asks && !found {
        hint_at_names(known, &invocation.arguments, console);
    }
}

/// Tells people which names look like words that are none.
pub(super) fn hint_at_names(known: &Known, words: &[String], console: &mut Console) {
    let view = known.view();
    for word in words {
        let near = query::nearest(&view, word);
        if !near.is_empty() && !near.contains(word) {
            console.hint(&format!(
                "nothing matches `{word}`; near it: {}",
                near.join(", ")
            ));
        }
    }
}

/// Gives an answer to whoever is there: a terminal gets a listing as a table; returns the exit code.
pub(super) fn show(answer: &Answer, console: &mut Console) -> u8 {
    let listing = &answer.listing;
    if !console.terminal || listing.rows.is_empty() {
        return give(answer, console);
    }
    // A column in which nothing stands only takes room.
    let used = |at: &usize| listing.rows.iter().any(|row| !row[*at].is_empty());
    let columns: Vec<usize> = (0..listing.columns.len()).filter(used).collect();
    let kinds = columns.iter().map(|at| match listing.columns[*at] {
        Cell::Amount => Column::Right,
        Cell::Text => Column::Flexible,
        Cell::Name | Cell::Version | Cell::Word | Cell::State => Column::Left,
    });
    let mut table = Table::new(&kinds.collect::<Vec<_>>());
    for row in &listing.rows {
        let cells = columns.iter().map(|at| {
            let code = match listing.columns[*at] {
                Cell::Name => colour::STRONG,
                Cell::Version => colour::NOTE,
                Cell::State => colour::GOOD,
                Cell::Amount | Cell::Word | Cell::Text => "",
            };
            (row[*at].clone(), code)
        });
        table.row(cells.collect());
    }
    console.print_made(&table.text(0, console.columns(), console.colour));
    tell(answer, console)
}

/// Prints an answer; returns the exit code.
pub(super) fn give(answer: &Answer, console: &mut Console) -> u8 {
    console.print(&answer.text);
    tell(answer, console)
}

/// Tells what does not belong on standard output; returns the exit code.
fn tell(answer: &Answer, console: &mut Console) -> u8 {
    for line in &answer.notes {
        console.print_error(&format!("{line}\n"));
    }
    for line in &answer.errors {
        console.error_line(line);
    }
    answer.status.min(99) as u8
}

/// Answers the forms of `version` that are about texts and need no root.
fn version_texts(invocation: &Invocation) -> Option<Answer> {
    let values = &invocation.values;
    let words = &invocation.arguments;
    match values.last_of(&["test", "check", "indexes"]) {
        Some("test") => Some(query::compare(words)),
        Some("check") => Some(query::check(words, u32::from(invocation.verbosity()))),
        _ => None,
    }
}

fn default_source(invocation: &Invocation) -> From {
    let values = &invocation.values;
    match invocation.applet.name {
        "search" if values.is("files") => From::Installed,
        "search" | "fetch" | "dot" => From::Repositories,
        "list" if values.is("list-installed") || values.is("manifest") => From::Installed,
        "why" => From::Installed,
        "info" if info_test(values).is_some() => From::Installed,
        _ => From::System,
    }
}

/// Returns whether `info` tests existence or looks for owners: the last of its options counts.
fn info_test(values: &Values) -> Option<&'static str> {
    let ids: Vec<&'static str> = INFO_FIELDS
        .iter()
        .map(|(id, _)| *id)
        .chain(["all", "exists", "who-owns"])
        .collect();
    values
        .last_of(&ids)
        .filter(|id| matches!(*id, "exists" | "who-owns"))
}

fn answer(
    invocation: &Invocation,
    settings: &Settings,
    group: &QueryGroup,
    known: &Known,
    console: &mut Console,
) -> Result<Answer, Error> {
    let values = &invocation.values;
    let words = &invocation.arguments;
    let view = known.view();
    let verbosity = u32::from(invocation.verbosity());
    let world = values.is("query-world");
    let resolved = match values.is("recursive") || world {
        true => {
            let width = console.width();
            Some(known.resolve(words, world, group.selection.available, width, console)?)
        }
        false => None,
    };
    // Without words these are about everything, whatever `--world` says.
    let lists_all = words.is_empty()
        && match invocation.applet.name {
            "dot" | "list" | "search" => true,
            name => name == "info" && !world,
        };
    let everything = match &resolved {
        Some(identities) if !lists_all => Arguments::Resolved(identities),
        _ => Arguments::or_everything(words),
    };
    let given = match &resolved {
        Some(identities) => Arguments::Resolved(identities),
        None => Arguments::Patterns(words),
    };
    let fields = group.fields.map(|list| list.fields).unwrap_or_default();
    Ok(match invocation.applet.name {
        "list" => query::list(
            &view,
            &list_options(values, group, fields, verbosity, console.terminal),
            everything,
        ),
        "search" if values.is("files") => {
            let cached = known.cached_packages(settings);
            query::search_files(&view, &cached, words, group.format)
        }
        "search" => {
            let options = SearchOptions {
                selection: Selection {
                    match_fields: match values.last_of(&["match", "description", "has-origin"]) {
                        Some("description") => FieldSet::of(&[Field::Description]),
                        Some("has-origin") => FieldSet::of(&[Field::Origin]),
                        _ => group.selection.match_fields,
                    },
                    search: matches!(
                        values.last_of(&["description", "exact", "has-origin", "query-search"]),
                        None | Some("description" | "query-search")
                    ),
                    ..group.selection
                },
                all: values.is("all") || values.is("description") || values.is("has-origin"),
                origin: values.is("origin"),
                rdepends: values.is("rdepends"),
                verbosity,
                format: group.format,
                fields,
                listing: console.terminal,
            };
            query::search(&view, &options, everything)
        }
        "fetch" if values.last("to").is_some() => {
            let directory = values.last("to").unwrap_or_default();
            keep::fetch(
                invocation,
                settings,
                group.selection,
                known,
                given,
                directory,
                console,
            )?
        }
        "fetch" => files::fetch(invocation, settings, group.selection, known, given, console)?,
        "dot" => query::dot(&view, &group.selection, values.is("errors"), everything),
        "manifest" => query::manifest(&view, words, verbosity > 1, |file| {
            known.manifest(settings, file)
        }),
        "stats" => query::stats(&view, &known.architectures.list[0]),
        "version" if values.is("indexes") => query::indexes(&view),
        "version" => {
            let options = VersionOptions {
                all_tags: values.is("all"),
                limit: values.last("limit").map(str::to_owned),
                verbosity,
            };
            query::versions(&view, &options, words)
        }
        "why" => query::why(&view, &known.world, words, values.is("json")),
        "policy" => query::policy(&view, &group.selection, group.format, given),
        "info" => info(invocation, group, known, everything),
        _ => {
            let options = QueryOptions {
                selection: group.selection,
                fields: group.fields,
                format: group.format,
                summarize: group.summarize,
                pretty: group.pretty,
            };
            query::query(&view, &options, given)
        }
    })
}

fn list_options(
    values: &Values,
    group: &QueryGroup,
    fields: FieldSet,
    verbosity: u32,
    listing: bool,
) -> ListOptions {
    let mut selection = group.selection;
    selection.installed |= values.is("list-installed");
    selection.available |= values.is("list-available");
    selection.orphaned |= values.is("list-orphaned");
    selection.upgradable |= values.is("list-upgradable");
    // The last one says what patterns are compared with.
    let matched = values.last_of(&["match", "origin", "depends", "providers"]);
    if matched == Some("providers") {
        selection.match_fields = FieldSet::default();
    }
    ListOptions {
        listing,
        selection,
        origin: matched == Some("origin"),
        depends: matched == Some("depends"),
        providers: values.is("providers"),
        manifest: values.is("manifest"),
        verbosity,
        format: group.format,
        fields,
    }
}

fn info(
    invocation: &Invocation,
    group: &QueryGroup,
    known: &Known,
    arguments: Arguments<'_>,
) -> Answer {
    let values = &invocation.values;
    let words = &invocation.arguments;
    let view = known.view();
    let verbosity = u32::from(invocation.verbosity());
    let as_query = values.choice("legacy-info") == Some(false);
    match info_test(values) {
        Some("exists") => return query::exists(&view, verbosity, words),
        Some(_) => {
            let style = if group.format != Format::Default {
                OwnerStyle::Objects(group.format)
            } else if verbosity == 0 {
                OwnerStyle::Names
            } else {
                OwnerStyle::Sentences
            };
            return query::who_owns(&view, style, known, &absolute(words));
        }
        None => {}
    }
    if words.is_empty() && group.format == Format::Default {
        return query::installed_list(&view, &group.selection, verbosity);
    }
    let mut fields = group.fields.map(|list| list.fields).unwrap_or_default();
    // `--fields` replaces what was asked for before it.
    let asked = values.since("fields");
    for (id, field) in INFO_FIELDS {
        if asked.contains(&id) {
            fields.insert(field);
        }
    }
    let options = InfoOptions {
        selection: group.selection,
        fields,
        all: asked.contains(&"all") || fields == FieldSet::ALL,
        verbosity,
        format: group.format,
        as_query,
        pretty: group.pretty,
    };
    query::info(&view, &options, arguments)
}

/// Turns relative paths that exist into absolute ones, as apk does.
fn absolute(words: &[String]) -> Vec<String> {
    let resolve = |word: &String| match (word.starts_with('/'), std::path::absolute(word)) {
        (false, Ok(path)) if path.exists() => path.display().to_string(),
        _ => word.clone(),
    };
    words.iter().map(resolve).collect()
}
