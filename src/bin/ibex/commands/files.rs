//! Commands about package files: `extract`, `fetch`, `index`, `verify`.

use super::question::give;
use super::settings::settings;
use crate::args::Invocation;
use crate::output::Console;
use ibex::config::Settings;
use ibex::ops::Error;
use ibex::ops::extract::{self, ExtractOptions};
use ibex::ops::fetch::{self, FetchOptions, FileName};
use ibex::ops::index::{self, IndexOptions};
use ibex::ops::known::Known;
use ibex::ops::query::{Answer, Arguments, Selection};
use ibex::ops::verify;
use std::path::PathBuf;

/// Runs `verify`.
pub(crate) fn verify(invocation: &Invocation, console: &mut Console) -> Result<u8, Error> {
    let quiet = invocation.verbosity() == 0;
    let answer = verify::verify(&settings(invocation), &invocation.arguments, quiet)?;
    Ok(give(&answer, console))
}

/// Runs `extract`.
pub(crate) fn extract(invocation: &Invocation, console: &mut Console) -> Result<u8, Error> {
    let values = &invocation.values;
    let options = ExtractOptions {
        destination: values.last("destination").unwrap_or(".").into(),
        no_chown: values.is("no-chown"),
        force_overwrite: values.is("force-overwrite") || values.is("force"),
        files: invocation.arguments.clone(),
    };
    extract::run(&settings(invocation), &options, console)?;
    Ok(0)
}

/// Runs `index`.
pub(crate) fn index(invocation: &Invocation, console: &mut Console) -> Result<u8, Error> {
    let values = &invocation.values;
    let path = |id: &str| values.last(id).map(PathBuf::from);
    let output = path("output");
    let binary = values.is("force-binary-stdout") || values.is("force");
    if output.is_none() && console.terminal && !binary {
        return Err(Error::Arguments {
            lines: vec![
                "Will not write binary index to console. Use --force-binary-stdout to override."
                    .to_owned(),
            ],
            code: 99,
        });
    }
    let options = IndexOptions {
        output,
        old: path("index"),
        description: values.last("description").unwrap_or_default().to_owned(),
        merge: values.is("merge"),
        prune_origin: values.is("prune-origin"),
        rewrite_arch: values.last("rewrite-arch").map(str::to_owned),
        warnings: !values.is("no-warnings"),
        sign_key: path("sign-key"),
        files: invocation.arguments.iter().map(PathBuf::from).collect(),
        width: console.width(),
        time: time(),
    };
    let bytes = index::run(&settings(invocation), &options, console)?;
    console.bytes(&bytes);
    Ok(0)
}

/// Returns the time that written files carry: `$SOURCE_DATE_EPOCH`, or now.
pub(super) fn time() -> u64 {
    let fixed = std::env::var_os("SOURCE_DATE_EPOCH").and_then(|text| text.into_string().ok());
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    fixed
        .and_then(|text| text.parse().ok())
        .unwrap_or_else(|| now.map_or(0, |now| now.as_secs()))
}

/// Answers `fetch`.
pub(crate) fn fetch(
    invocation: &Invocation,
    settings: &Settings,
    selection: Selection,
    known: &Known,
    arguments: Arguments<'_>,
    console: &mut Console,
) -> Result<Answer, Error> {
    let values = &invocation.values;
    let invalid = |id: &str, text: &str| Error::Arguments {
        lines: vec![format!(
            "command line: invalid argument for option '{}': '{text}'",
            values.typed(id)
        )],
        code: 1,
    };
    let built_after = match values.last("built-after") {
        Some(text) => Some(seconds(text).ok_or_else(|| invalid("built-after", text))?),
        None => None,
    };
    let name = match values.last("pkgname-spec") {
        Some(text) => FileName::parse(text).ok_or_else(|| invalid("pkgname-spec", text))?,
        None => FileName::default(),
    };
    let to_stdout = values.is("stdout");
    let options = FetchOptions {
        selection,
        built_after,
        link: values.is("link"),
        output: values.last("output").unwrap_or(".").into(),
        name,
        simulate: values.is("simulate"),
        to_stdout,
        urls: values.is("url"),
        purge: values.is("purge"),
    };
    let mut stdout = std::io::stdout();
    let mut answer = fetch::run(settings, known, &options, arguments, &mut stdout, console)?;
    if to_stdout || invocation.verbosity() == 0 {
        answer.text.clear();
    }
    Ok(answer)
}

/// Reads `YYYY-MM-DD HH:MM:SS` in local time, or seconds since 1970.
fn seconds(text: &str) -> Option<u64> {
    if let Ok(number) = text.parse() {
        return Some(number);
    }
    let time = jiff::civil::DateTime::strptime("%Y-%m-%d %H:%M:%S", text).ok()?;
    let time = time.to_zoned(jiff::tz::TimeZone::system()).ok()?;
    u64::try_from(time.timestamp().as_second()).ok()
}
