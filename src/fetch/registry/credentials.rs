//! Who we are to a registry: the files of Docker and Podman, and the programs they name
//! (image.md, 11.4).
//!
//! Passwords are in no message and no `Debug` text.

use serde::Deserialize;
use std::collections::BTreeMap;
use std::fmt;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// A user and a password, or a token that stands for both.
#[derive(Clone, PartialEq, Eq)]
pub struct Login {
    /// The user; empty with an identity token.
    pub user: String,
    /// The password or identity token.
    pub password: String,
    /// Where it came from, for messages.
    pub source: String,
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Login of {} from {}", self.user, self.source)
    }
}

#[derive(Default, Deserialize)]
struct File {
    #[serde(default)]
    auths: BTreeMap<String, Entry>,
    #[serde(default, rename = "credsStore")]
    store: Option<String>,
    #[serde(default, rename = "credHelpers")]
    helpers: BTreeMap<String, String>,
}

#[derive(Default, Deserialize)]
struct Entry {
    #[serde(default)]
    auth: Option<String>,
    #[serde(default)]
    username: Option<String>,
    #[serde(default)]
    password: Option<String>,
    #[serde(default)]
    identitytoken: Option<String>,
}

/// Where credentials may be, in the order in which they are looked at.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CredentialFiles(pub Vec<PathBuf>);

impl CredentialFiles {
    /// Takes the usual places from an environment: `REGISTRY_AUTH_FILE`, the folder of the session,
    /// `DOCKER_CONFIG`, the home.
    pub fn usual(variable: impl Fn(&str) -> Option<String>) -> Self {
        let set = |name: &str| variable(name).filter(|value| !value.is_empty());
        let mut files = Vec::new();
        files.extend(set("REGISTRY_AUTH_FILE").map(PathBuf::from));
        files.extend(set("XDG_RUNTIME_DIR").map(|d| Path::new(&d).join("containers/auth.json")));
        match (set("DOCKER_CONFIG"), set("HOME")) {
            (Some(folder), _) => files.push(Path::new(&folder).join("config.json")),
            (None, Some(home)) => files.push(Path::new(&home).join(".docker/config.json")),
            (None, None) => {}
        }
        Self(files)
    }

    /// Returns what there is for a repository of a registry; a file that cannot be read counts as
    /// none.
    pub fn find(&self, registry: &str, repository: &str) -> Option<Login> {
        self.0.iter().find_map(|path| {
            let text = std::fs::read(path).ok()?;
            let file: File = serde_json::from_slice(&text).ok()?;
            in_file(&file, path, registry, repository)
        })
    }
}

fn in_file(file: &File, path: &Path, registry: &str, repository: &str) -> Option<Login> {
    // The most exact key first: the repository, the folders above it, the registry.
    let mut keys = vec![format!("{registry}/{repository}")];
    let mut rest = repository;
    while let Some((folder, _)) = rest.rsplit_once('/') {
        keys.push(format!("{registry}/{folder}"));
        rest = folder;
    }
    keys.extend([
        registry.to_owned(),
        format!("https://{registry}"),
        format!("https://{registry}/v1/"),
        format!("https://{registry}/v2/"),
    ]);
    if registry == "docker.io" {
        keys.push("https://index.docker.io/v1/".to_owned());
        keys.push("index.docker.io".to_owned());
    }
    let source = path.display().to_string();
    for key in &keys {
        if let Some(login) = file.helpers.get(key).and_then(|helper| ask(helper, key)) {
            return Some(login);
        }
        if let Some(login) = file.auths.get(key).and_then(|entry| login(entry, &source)) {
            return Some(login);
        }
    }
    let store = file.store.as_deref().filter(|store| !store.is_empty())?;
    let server = match registry {
        "docker.io" => "https://index.docker.io/v1/",
        other => other,
    };
    ask(store, server)
}

fn login(entry: &Entry, source: &str) -> Option<Login> {
    let source = source.to_owned();
    if let Some(token) = entry
        .identitytoken
        .clone()
        .filter(|token| !token.is_empty())
    {
        return Some(Login {
            user: String::new(),
            password: token,
            source,
        });
    }
    let (user, password) = match (&entry.auth, &entry.username) {
        (Some(auth), _) if !auth.is_empty() => {
            let bytes = data_encoding::BASE64.decode(auth.as_bytes()).ok()?;
            let text = String::from_utf8(bytes).ok()?;
            let (user, password) = text.split_once(':')?;
            (user.to_owned(), password.to_owned())
        }
        (_, Some(user)) => (user.clone(), entry.password.clone()?),
        _ => return None,
    };
    Some(Login {
        user,
        password,
        source,
    })
}

/// Asks a program `docker-credential-NAME` for the login of a server.
fn ask(name: &str, server: &str) -> Option<Login> {
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Answer {
        username: String,
        secret: String,
    }
    // The name becomes part of a program's name.
    if name.contains(['/', '\0']) {
        return None;
    }
    let program = format!("docker-credential-{name}");
    let mut child = Command::new(&program)
        .arg("get")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .ok()?;
    // A program that does not read its input says what it has to say all the same.
    let _ = child.stdin.take()?.write_all(server.as_bytes());
    let output = child.wait_with_output().ok()?;
    let answer: Answer = serde_json::from_slice(&output.stdout).ok()?;
    let token = answer.username == "<token>";
    Some(Login {
        user: if token {
            String::new()
        } else {
            answer.username
        },
        password: answer.secret,
        source: program,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_most_exact_entry_counts() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("auth.json");
        let auth = |text: &str| data_encoding::BASE64.encode(text.as_bytes());
        let text = format!(
            r#"{{"auths":{{"r.io":{{"auth":"{}"}},"r.io/a/b":{{"auth":"{}"}},
                "https://index.docker.io/v1/":{{"username":"d","password":"secret"}},
                "t.io":{{"identitytoken":"secret"}},"bad.io":{{"auth":"%"}}}}}}"#,
            auth("one:pass:word"),
            auth("two:secret"),
        );
        std::fs::File::create(&path)
            .unwrap()
            .write_all(text.as_bytes())
            .unwrap();
        let missing = directory.path().join("no.json");
        let files = CredentialFiles(vec![missing, path]);
        let find = |registry: &str, repository: &str| {
            let login = files.find(registry, repository)?;
            assert!(!format!("{login:?}").contains(&login.password));
            Some(format!("{} {}", login.user, login.password))
        };
        for (registry, repository, wanted) in [
            ("r.io", "a", Some("one pass:word")),
            ("r.io", "a/b", Some("two secret")),
            ("r.io", "a/b/c", Some("two secret")),
            ("r.io", "a/bc", Some("one pass:word")),
            ("docker.io", "library/x", Some("d secret")),
            ("t.io", "x", Some(" secret")),
            ("bad.io", "x", None),
            ("other.io", "x", None),
        ] {
            assert_eq!(
                find(registry, repository).as_deref(),
                wanted,
                "{registry}/{repository}"
            );
        }
    }
}
