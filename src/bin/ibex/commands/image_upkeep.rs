//! Subcommands of `image` that build nothing: `cache`, `import`, `install-keys` and `login`.

use super::image::{ToStderr, credentials, options, seen, usage};
use crate::args::Invocation;
use crate::output::Console;
use ibex::fetch::registry::Stored;
use ibex::ops::image::{self, CacheCommand, Error, Login};
use ibex::progress::Sink;
use std::io::{BufRead, IsTerminal, Write};
use std::path::Path;
use std::time::Duration;

/// The longest password that is read.
const LONGEST_PASSWORD: usize = 64 << 10;

/// Runs `image cache`.
pub(super) fn cache(invocation: &Invocation, console: &mut Console) -> Result<u8, Error> {
    let values = &invocation.values;
    let command = match invocation.arguments[0].as_str() {
        "dir" => CacheCommand::Directory,
        "size" => CacheCommand::Size,
        "clean" => CacheCommand::Clean,
        "verify" => CacheCommand::Verify,
        "prune" => {
            let max_size = values.last("max-size").map(|text| {
                ibex::format::parse_size(text)
                    .ok_or_else(|| usage(format!("--max-size: \"{text}\" is no size, such as 5G")))
            });
            let max_age = values.last("max-age").map(|text| {
                age(text)
                    .ok_or_else(|| usage(format!("--max-age: \"{text}\" is no time, such as 30d")))
            });
            let command = CacheCommand::Prune {
                max_size: max_size.transpose()?,
                max_age: max_age.transpose()?,
                ci: values.is("ci"),
            };
            let nothing = CacheCommand::Prune {
                max_size: None,
                max_age: None,
                ci: false,
            };
            if command == nothing {
                return Err(usage("cache prune needs --max-size, --max-age or --ci"));
            }
            command
        }
        other => {
            return Err(usage(format!(
                "cache: \"{other}\" is none of dir, size, prune, clean, verify"
            )));
        }
    };
    let options = options(invocation)?;
    let limits = &options.settings.limits;
    let answer = image::cache(options.cache_dir.as_deref(), command, limits)?;
    match values.is("json") {
        true => console.print(&format!("{}\n", answer.json)),
        false => console.print(&answer.text),
    }
    Ok(if answer.damaged > 0 { 3 } else { 0 })
}

/// Reads a time such as `90s`, `12h` or `30d`.
fn age(text: &str) -> Option<Duration> {
    let unit = match text.chars().last()? {
        's' => 1,
        'm' => 60,
        'h' => 3600,
        'd' => 24 * 3600,
        _ => return None,
    };
    let number: u64 = text[..text.len() - 1].parse().ok()?;
    Some(Duration::from_secs(number.checked_mul(unit)?))
}

/// Runs `image login`.
pub(super) fn login(invocation: &Invocation, console: &mut Console) -> Result<u8, Error> {
    let values = &invocation.values;
    let registry = invocation.arguments[0].clone();
    let user = match values.last("username") {
        Some(user) => user.to_owned(),
        None => return Err(usage("login needs --username")),
    };
    let given = values.last("password");
    let password = match (given, values.is("password-stdin")) {
        (Some(_), true) => {
            return Err(usage("--password and --password-stdin exclude each other"));
        }
        (Some(password), false) => password.to_owned(),
        (None, true) => read_line().map_err(usage)?,
        (None, false) if std::io::stdin().is_terminal() => {
            let prompt = format!("Password of {user} at {registry}: ");
            unseen(&prompt).map_err(usage)?
        }
        (None, false) => {
            return Err(usage(
                "login needs --password-stdin, or a terminal to ask at",
            ));
        }
    };
    if password.is_empty() {
        return Err(usage("the password is empty"));
    }
    let insecure = values.all("insecure-registry").contains(&registry);
    let outcome = image::login(
        &Login {
            registry: registry.clone(),
            user,
            password,
            insecure,
        },
        &credentials(),
    )?;
    let place = match outcome.stored {
        Stored::File(path) => path.display().to_string(),
        Stored::Program(program) => program,
    };
    match values.is("json") {
        true => {
            let object = serde_json::json!({ "registry": registry, "stored": place });
            console.print(&format!("{object}\n"));
        }
        false => console.print(&format!(
            "logged in at {registry}; the login is in {place}\n"
        )),
    }
    Ok(0)
}

/// Runs `image import`.
pub(super) fn import(invocation: &Invocation, console: &mut Console) -> Result<u8, Error> {
    let folder = invocation.values.last("keys");
    let imported = image::import(&seen(invocation, 0), folder.unwrap_or("keys"))?;
    match folder {
        Some(folder) => {
            let place = invocation.values.last("workdir").unwrap_or_default();
            image::write_bills(&Path::new(place).join(folder), &imported.keys)?;
        }
        None if !imported.keys.is_empty() => {
            let mut sink = ToStderr::new(invocation, console);
            let count = imported.keys.len();
            let word = if count == 1 { "key" } else { "keys" };
            sink.warning(&format!(
                "W-KEYS: {count} {word} of it would be in `keys`; --keys DIR writes them"
            ));
        }
        None => {}
    }
    console.print(&imported.yaml);
    Ok(0)
}

/// Runs `image install-keys`.
pub(super) fn install_keys(invocation: &Invocation, console: &mut Console) -> Result<u8, Error> {
    let values = &invocation.values;
    let options = options(invocation)?;
    let root = Path::new(values.last("into").unwrap_or("/"));
    let root = options.work_dir.join(root);
    let mut sink = ToStderr::new(invocation, console);
    let done = image::install_keys(&root, values.last("build-arch"), &options, &mut sink)?;
    if values.is("json") {
        let list: Vec<_> = (done.iter())
            .map(|key| serde_json::json!({ "name": key.name, "url": key.url, "new": key.new }))
            .collect();
        console.print(&format!("{:#}\n", serde_json::Value::from(list)));
        return Ok(0);
    }
    for key in &done {
        let what = if key.new {
            "installed from"
        } else {
            "was there;"
        };
        console.print(&format!("{} {what} {}\n", key.name, key.url));
    }
    Ok(0)
}

/// Reads one line of standard input.
fn read_line() -> Result<String, String> {
    let mut line = Vec::new();
    let mut input = std::io::Read::take(std::io::stdin().lock(), LONGEST_PASSWORD as u64);
    let read = input.read_until(b'\n', &mut line);
    read.map_err(|error| format!("cannot read the password: {error}"))?;
    let line = String::from_utf8(line).map_err(|_| "the password is not UTF-8".to_owned())?;
    Ok(line.trim_end_matches(['\r', '\n']).to_owned())
}

/// Asks at the terminal, which does not show the answer.
fn unseen(prompt: &str) -> Result<String, String> {
    use rustix::termios::{LocalModes, OptionalActions, tcgetattr, tcsetattr};
    let failed = |errno: rustix::io::Errno| format!("cannot ask at the terminal: {errno}");
    let stdin = std::io::stdin();
    let before = tcgetattr(&stdin).map_err(failed)?;
    let mut silent = before.clone();
    silent.local_modes -= LocalModes::ECHO;
    let mut error = std::io::stderr();
    // Nobody has to see the question to answer it.
    let _ = error
        .write_all(prompt.as_bytes())
        .and_then(|()| error.flush());
    tcsetattr(&stdin, OptionalActions::Flush, &silent).map_err(failed)?;
    let line = read_line();
    let _ = error.write_all(b"\n");
    tcsetattr(&stdin, OptionalActions::Flush, &before).map_err(failed)?;
    line
}

#[cfg(test)]
mod tests {
    use super::age;

    #[test]
    fn ages() {
        for (text, wanted) in [
            ("30d", Some(30 * 24 * 3600)),
            ("12h", Some(12 * 3600)),
            ("5m", Some(300)),
            ("90s", Some(90)),
            ("5", None),
            ("d", None),
            ("", None),
            ("99999999999999999999d", None),
        ] {
            assert_eq!(age(text).map(|age| age.as_secs()), wanted, "{text}");
        }
    }
}
