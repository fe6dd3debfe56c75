//! `fetch --to`, `snapshot` and `serve`: repositories of one's own.

use super::files::time;
use super::question::give;
use super::settings::settings;
use crate::args::Invocation;
use crate::output::Console;
use ibex::config::Settings;
use ibex::fetch::serve::Server;
use ibex::ops::Error;
use ibex::ops::known::Known;
use ibex::ops::query::{Answer, Arguments, From, Selection};
use ibex::ops::snapshot::{self, Contents, KeepOptions};
use std::io::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Where `serve` listens unless told otherwise: nobody else can reach it there.
const ADDRESS: &str = "127.0.0.1:8000";

fn wrong(line: String, code: u8) -> Error {
    Error::Arguments {
        lines: vec![line],
        code,
    }
}

/// Returns the key to sign with: the one given, or this user's own, which is made when first used.
fn sign_key(given: Option<&str>) -> PathBuf {
    if let Some(path) = given {
        return path.into();
    }
    let variable = |name: &str| {
        std::env::var_os(name)
            .filter(|value| !value.is_empty())
            .map(PathBuf::from)
    };
    if rustix::process::geteuid().is_root() {
        return "/etc/ibex/ibex.rsa".into();
    }
    let folder = variable("XDG_CONFIG_HOME")
        .filter(|path| path.is_absolute())
        .or_else(|| variable("HOME").map(|home| home.join(".config")));
    folder.unwrap_or_default().join("ibex/ibex.rsa")
}

fn options(
    directory: &str,
    key: Option<&str>,
    description: &str,
    console: &Console,
) -> KeepOptions {
    KeepOptions {
        directory: directory.into(),
        sign_key: sign_key(key),
        description: description.to_owned(),
        time: time(),
        width: console.width(),
    }
}

/// Answers `fetch --to`.
pub(crate) fn fetch(
    invocation: &Invocation,
    settings: &Settings,
    selection: Selection,
    known: &Known,
    arguments: Arguments<'_>,
    directory: &str,
    console: &mut Console,
) -> Result<Answer, Error> {
    let key = invocation.values.last("to-sign-key");
    let options = options(directory, key, "kept packages", console);
    let mut answer = snapshot::keep(settings, known, selection, arguments, &options, console)?;
    if invocation.verbosity() == 0 {
        answer.text.clear();
    }
    Ok(answer)
}

/// Runs `snapshot`.
pub(crate) fn snapshot(invocation: &Invocation, console: &mut Console) -> Result<u8, Error> {
    let values = &invocation.values;
    let [directory] = invocation.arguments.as_slice() else {
        return Err(wrong("snapshot: name one directory".to_owned(), 1));
    };
    let mut settings = settings(invocation);
    let (contents, from) = match values.last("lock") {
        Some(path) => {
            // The packages are where the lock file found them, whatever this system uses.
            let more = snapshot::locked_repositories(Path::new(path))?;
            settings.sources.repositories.extend(more);
            (Contents::Lock(path.into()), From::Repositories)
        }
        None => (Contents::Installed, From::System),
    };
    let needs_database = matches!(contents, Contents::Installed);
    let known = Known::open(&settings, from, needs_database, console)?;
    known.warn(console);
    let options = options(directory, values.last("sign-key"), "snapshot", console);
    let made = snapshot::snapshot(&settings, &known, &contents, &options, console)?;
    let (answer, path) = made;
    let code = give(&answer, console);
    if let Some(path) = path {
        console.print(&format!("{}\n", path.display()));
    }
    Ok(code)
}

/// Runs `serve`, which ends only with the process.
pub(crate) fn serve(invocation: &Invocation, console: &mut Console) -> Result<u8, Error> {
    let [directory] = invocation.arguments.as_slice() else {
        return Err(wrong("serve: name one directory".to_owned(), 1));
    };
    let text = invocation.values.last("listen").unwrap_or(ADDRESS);
    let address: SocketAddr = text.parse().map_err(|_| {
        let line = format!("command line: invalid argument for option 'listen': '{text}'");
        wrong(line, 1)
    })?;
    let failed = |error: ibex::fetch::serve::ServeError| wrong(error.to_string(), 99);
    let server = Server::new(Path::new(directory), address).map_err(failed)?;
    let address = server.address().map_err(failed)?;
    let quiet = invocation.verbosity() == 0;
    if !quiet {
        console.print(&format!("Serving {directory} at http://{address}/\n"));
    }
    let verbose = invocation.verbosity() > 1;
    server
        .run(Arc::new(move |method: &str, path: &str, status: u16| {
            if verbose {
                // Lines of several connections must not mix, so each is written at once.
                let line = format!("{status} {method} {}\n", crate::output::visible(path));
                let _ = std::io::stdout().lock().write_all(line.as_bytes());
            }
        }))
        .map_err(failed)?;
    Ok(0)
}
