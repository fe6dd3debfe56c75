//! `image import`: a root or an image that exists becomes the beginning of a description.
//!
//! What the description can say is taken from the package manager's own files (world, repositories,
//! keys, architecture), from users that an earlier description made, and from the image's
//! configuration. Files that somebody added by hand are in no description; the first lines say so.

use super::{Error, disk};
use crate::config::image::{Architecture, Group, ImageConfig, User, architecture};
use crate::format::installed;
use crate::image::read::{self, ReadImage};
use crate::package::{InstalledDb, World};
use crate::root::Root;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// What stands in the comment field of users that a description made.
const OURS: &str = "Account created by apko";

/// Where a package database can be.
const DATABASES: [&str; 2] = ["lib/apk/db/installed", "usr/lib/apk/db/installed"];

/// Variables that every image gets.
const ALWAYS: [(&str, &str); 2] = [
    (
        "PATH",
        "/usr/local/sbin:/usr/local/bin:/usr/bin:/usr/sbin:/sbin:/bin",
    ),
    ("SSL_CERT_FILE", "/etc/ssl/certs/ca-certificates.crt"),
];

/// A description that was begun.
#[derive(Clone, Debug)]
pub struct Imported {
    /// The description.
    pub yaml: String,
    /// Keys that were found: file name and content.
    pub keys: Vec<(String, Vec<u8>)>,
}

/// What was found.
#[derive(Default)]
struct Found {
    /// Small files by path.
    files: BTreeMap<String, Vec<u8>>,
    installed: InstalledDb,
    architectures: Vec<String>,
    config: Value,
    annotations: BTreeMap<String, String>,
}

/// Reads a root directory, an archive of a root, or an image; `keys` is the folder that the
/// description shall name for the keys.
///
/// # Errors
/// [`Error::Unreadable`] if it is none of these, or has neither a world nor a package database.
pub fn import(path: &Path, keys: &str) -> Result<Imported, Error> {
    let unreadable = |cause: String| Error::Unreadable {
        image: path.display().to_string(),
        cause,
    };
    let layout = path.join("index.json").is_file() || path.join("manifest.json").is_file();
    let found = match path.is_dir() && !layout {
        true => of_root(path)?,
        false => {
            let images = read::read(path).or_else(|error| match path.is_file() {
                true => read::read_root(path).map(|image| vec![image]),
                false => Err(error),
            });
            of_images(images.map_err(|error| unreadable(error.to_string()))?)
        }
    };
    if !found.files.contains_key("etc/apk/world") && found.installed.packages.is_empty() {
        let cause = "there is neither /etc/apk/world nor a package database in it";
        return Err(unreadable(cause.to_owned()));
    }
    Ok(describe(&found, path, keys))
}

fn of_root(path: &Path) -> Result<Found, Error> {
    let root = Root::open(path).map_err(|error| disk("open", path, &error.source))?;
    let failed =
        |error: crate::root::RootError| disk("read", &path.join(&error.path), &error.source);
    let mut found = Found::default();
    let mut take = |name: &str| -> Result<(), Error> {
        let usable = root.stat(name).map_err(failed)?;
        if usable.is_some_and(|stat| stat.size <= read::LARGEST_KEPT)
            && let Some(bytes) = root.read(name).map_err(failed)?
        {
            found.files.insert(name.to_owned(), bytes);
        }
        Ok(())
    };
    for name in read::KEPT {
        take(name)?;
    }
    let keys = root
        .stat(read::KEYS.trim_end_matches('/'))
        .map_err(failed)?;
    if keys.is_some_and(|keys| keys.is_dir()) {
        for name in root
            .list(read::KEYS.trim_end_matches('/'))
            .map_err(failed)?
        {
            take(&format!("{}{}", read::KEYS, name.to_string_lossy()))?;
        }
    }
    for name in DATABASES {
        if let Some(bytes) = root.read(name).map_err(failed)?
            && let Ok(database) = installed::parse(&bytes, true)
        {
            found.installed = database;
        }
    }
    Ok(found)
}

fn of_images(images: Vec<ReadImage>) -> Found {
    let mut found = Found::default();
    for image in images {
        if !image.platform.is_empty() {
            found.architectures.push(image.platform);
        }
        if found.config.is_null() {
            found.files = image.kept;
            found.installed = image.installed;
            found.annotations = image.annotations;
            found.config = image.config;
        }
    }
    found
}

fn describe(found: &Found, path: &Path, keys_folder: &str) -> Imported {
    let text = |name: &str| {
        let bytes = found.files.get(name).map(Vec::as_slice).unwrap_or_default();
        String::from_utf8_lossy(bytes).into_owned()
    };
    let mut config = ImageConfig::default();
    let contents = &mut config.contents;
    let repositories = text("etc/apk/repositories");
    let lines = repositories.lines().map(str::trim);
    contents.repositories = lines
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .map(str::to_owned)
        .collect();
    let mut keys = Vec::new();
    for (name, content) in &found.files {
        if let Some(name) = name
            .strip_prefix(read::KEYS)
            .filter(|name| !name.contains('/'))
        {
            contents
                .keyring
                .push(format!("{}/{name}", keys_folder.trim_end_matches('/')));
            keys.push((name.to_owned(), content.clone()));
        }
    }
    contents.packages = packages(&text("etc/apk/world"), &found.installed);
    config.archs = match found.architectures.is_empty() {
        false => found.architectures.clone(),
        true => {
            let names: Vec<String> = text("etc/apk/arch").lines().map(str::to_owned).collect();
            let parsed: Vec<Architecture> = architecture::parse_list(&names);
            parsed.into_iter().map(|one| one.oci).collect()
        }
    };
    accounts(&mut config, &text("etc/passwd"), &text("etc/group"));
    of_config(&mut config, &found.config["config"]);
    for (key, value) in &found.annotations {
        let name = key.strip_prefix("org.opencontainers.image.");
        if !matches!(name, Some("created" | "source" | "revision")) {
            config.annotations.insert(key.clone(), value.clone());
        }
    }
    let origin = |name: &str| {
        found
            .annotations
            .get(&format!("org.opencontainers.image.{name}"))
    };
    if let (Some(source), Some(revision)) = (origin("source"), origin("revision")) {
        config.vcs_url = format!("{source}@{revision}");
    }
    let name = path
        .file_name()
        .unwrap_or(path.as_os_str())
        .to_string_lossy();
    // A name is one line, whatever is in it.
    let name: String = name.chars().filter(|c| !c.is_control()).collect();
    let yaml = format!(
        "# Begun from {name}. Files that no package and no field below brings are not described;\n\
         # `ibex image diff` shows them.\n{}",
        config.to_yaml()
    );
    Imported { yaml, keys }
}

/// Returns what was asked for: the world, unless it is the whole list of what is installed.
fn packages(world: &str, installed: &InstalledDb) -> Vec<String> {
    let asked: Vec<String> = World::parse(world)
        .map(|world| world.entries.iter().map(ToString::to_string).collect())
        .unwrap_or_else(|_| world.split_whitespace().map(str::to_owned).collect());
    let exact: BTreeSet<String> = installed
        .packages
        .iter()
        .map(|one| format!("{}={}", one.package.name, one.package.version))
        .collect();
    let list = !exact.is_empty() && asked.iter().cloned().collect::<BTreeSet<_>>() == exact;
    if !asked.is_empty() && !list {
        return asked;
    }
    // Nobody said what was asked for: what no other package needs.
    let needed = |name: &str, provides: &[crate::package::Dependency]| {
        installed.packages.iter().any(|other| {
            other.package.name != name
                && other.package.depends.iter().any(|wanted| {
                    wanted.name == name || provides.iter().any(|one| one.name == wanted.name)
                })
        })
    };
    let free = installed.packages.iter().map(|one| &one.package);
    let mut names: Vec<String> = free
        .filter(|package| !needed(&package.name, &package.provides))
        .map(|package| package.name.clone())
        .collect();
    names.sort();
    names
}

/// Takes over the users that a description made, and their groups.
fn accounts(config: &mut ImageConfig, passwd: &str, group: &str) {
    for line in passwd.lines() {
        let fields: Vec<&str> = line.split(':').collect();
        let [name, _, uid, gid, comment, home, shell] = fields.as_slice() else {
            continue;
        };
        let (Ok(uid), Ok(gid)) = (uid.parse::<u32>(), gid.parse::<u32>()) else {
            continue;
        };
        if *comment != OURS {
            continue;
        }
        config.accounts.users.push(User {
            username: (*name).to_owned(),
            uid: Some(uid),
            gid: (gid != uid).then_some(gid),
            shell: if *shell == "/bin/sh" {
                String::new()
            } else {
                (*shell).to_owned()
            },
            homedir: match *home == format!("/home/{name}") {
                true => String::new(),
                false => (*home).to_owned(),
            },
            ..User::default()
        });
        for line in group.lines() {
            let fields: Vec<&str> = line.split(':').collect();
            let [group, _, number, members] = fields.as_slice() else {
                continue;
            };
            let known = config
                .accounts
                .groups
                .iter()
                .any(|one| one.groupname == *group);
            // Groups of packages have numbers below those of people.
            if number.parse() == Ok(gid) && gid >= 1000 && !known {
                config.accounts.groups.push(Group {
                    groupname: (*group).to_owned(),
                    gid: Some(gid),
                    members: members
                        .split(',')
                        .filter(|m| !m.is_empty())
                        .map(str::to_owned)
                        .collect(),
                    ..Group::default()
                });
            }
        }
    }
}

/// Takes over what an image says to who runs it.
fn of_config(config: &mut ImageConfig, run: &Value) {
    let list = |key: &str| -> Vec<&str> {
        let list = run[key].as_array().map(Vec::as_slice).unwrap_or_default();
        list.iter().filter_map(Value::as_str).collect()
    };
    let text = |key: &str| run[key].as_str().unwrap_or_default().to_owned();
    match list("Entrypoint").as_slice() {
        ["/bin/sh", "-c", fragment] => config.entrypoint.shell_fragment = (*fragment).to_owned(),
        words => config.entrypoint.command = command(words),
    }
    config.cmd = command(&list("Cmd"));
    config.work_dir = text("WorkingDir");
    config.stop_signal = text("StopSignal");
    config.accounts.run_as = text("User");
    for pair in list("Env") {
        if let Some((key, value)) = pair.split_once('=')
            && !ALWAYS.contains(&(key, value))
        {
            config.environment.insert(key.to_owned(), value.to_owned());
        }
    }
    if let Some(volumes) = run["Volumes"].as_object() {
        config.volumes = volumes.keys().cloned().collect();
    }
    if let Some(ports) = run["ExposedPorts"].as_object() {
        config.x_build.expose = ports.keys().cloned().collect();
    }
}

/// Writes words so that a shell's rules take them apart again.
fn command(words: &[&str]) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-=:,+@%".contains(c);
    let quoted = words
        .iter()
        .map(|word| match word.chars().all(plain) && !word.is_empty() {
            true => (*word).to_owned(),
            false => format!("'{}'", word.replace('\'', r"'\''")),
        });
    quoted.collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::image::words;

    #[test]
    fn commands_come_back() {
        for words in [
            &["/usr/sbin/nginx", "-g", "daemon off;"][..],
            &["it's", "", "a\"b", "$x `y` \\"],
            &[],
        ] {
            assert_eq!(words::split(&command(words)).unwrap(), words);
        }
    }
}
