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

/// Where a login was put.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stored {
    /// Into a file, where whoever may read that file can read it.
    File(PathBuf),
    /// A program keeps it.
    Program(String),
}

/// Why a login could not be kept.
#[derive(Debug, thiserror::Error)]
pub enum CredentialError {
    /// There is no place for it.
    #[error(
        "there is no place for logins: none of REGISTRY_AUTH_FILE, DOCKER_CONFIG and HOME is set"
    )]
    NoPlace,
    /// The file cannot be read or written.
    #[error("cannot use {path}: {cause}")]
    File {
        /// Which.
        path: PathBuf,
        /// What is wrong.
        cause: String,
    },
    /// The program that the file names does not take it.
    #[error("{program} does not take the login: {cause}")]
    Program {
        /// Which.
        program: String,
        /// What it said.
        cause: String,
    },
}

impl CredentialFiles {
    /// Keeps a login for a registry where [`CredentialFiles::find`] will find it first: in the
    /// first file that has one for the registry, else in the last of the places, by way of the
    /// program that the file names, if it names one. Everything else in the file stays.
    ///
    /// # Errors
    /// [`CredentialError`]; the file is as before then.
    pub fn keep(&self, registry: &str, login: &Login) -> Result<Stored, CredentialError> {
        let key = match registry {
            "docker.io" | "index.docker.io" => "https://index.docker.io/v1/",
            other => other,
        };
        let has_one = |path: &&PathBuf| {
            let text = std::fs::read(path).unwrap_or_default();
            let file: File = serde_json::from_slice(&text).unwrap_or_default();
            file.auths.contains_key(key) || file.helpers.contains_key(key)
        };
        let path = self.0.iter().find(has_one).or(self.preferred());
        let path = path.ok_or(CredentialError::NoPlace)?;
        let wrong = |cause: String| CredentialError::File {
            path: path.clone(),
            cause,
        };
        let text = match std::fs::read(path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => b"{}".to_vec(),
            Err(error) => return Err(wrong(crate::root::cause(&error))),
        };
        let not_json = |error: serde_json::Error| wrong(error.to_string());
        let known: File = serde_json::from_slice(&text).map_err(not_json)?;
        let mut all: serde_json::Value = serde_json::from_slice(&text).map_err(not_json)?;
        // An empty list reads as a file without members, too.
        if !all.is_object() {
            return Err(wrong("it is not a JSON object".to_owned()));
        }
        let helper = known.helpers.get(key).or(known.store.as_ref());
        if let Some(helper) = helper.filter(|name| !name.is_empty()) {
            return give(helper, key, login).map(Stored::Program);
        }
        let auth = format!("{}:{}", login.user, login.password);
        all["auths"][key] = serde_json::json!({
            "auth": data_encoding::BASE64.encode(auth.as_bytes()),
        });
        let text = format!("{all:#}\n");
        private_file(path, text.as_bytes()).map_err(|error| wrong(crate::root::cause(&error)))?;
        Ok(Stored::File(path.clone()))
    }

    /// Returns where a new login goes: the file that `REGISTRY_AUTH_FILE` names, else that of
    /// Docker; the one of the session does not outlive it.
    fn preferred(&self) -> Option<&PathBuf> {
        let of_session = |path: &&PathBuf| path.ends_with("containers/auth.json");
        let lasting = self.0.iter().find(|path| !of_session(path));
        lasting.or(self.0.first())
    }
}

/// Writes a file that only its owner may read, whole or not at all.
fn private_file(path: &Path, content: &[u8]) -> std::io::Result<()> {
    let folder = path.parent().filter(|folder| *folder != Path::new(""));
    let folder = folder.unwrap_or(Path::new("."));
    std::fs::create_dir_all(folder)?;
    // Temporary files are private from the beginning.
    let mut file = tempfile::Builder::new()
        .prefix(".ibex-login.")
        .tempfile_in(folder)?;
    file.write_all(content)?;
    file.as_file().sync_all()?;
    file.persist(path)?;
    std::fs::File::open(folder)?.sync_all()
}

/// Gives a login to a program `docker-credential-NAME`.
fn give(name: &str, server: &str, login: &Login) -> Result<String, CredentialError> {
    let program = format!("docker-credential-{name}");
    let wrong = |cause: String| CredentialError::Program {
        program: program.clone(),
        cause,
    };
    if name.contains(['/', '\0']) {
        return Err(wrong("that is no name of a program".to_owned()));
    }
    let object = serde_json::json!({
        "ServerURL": server, "Username": login.user, "Secret": login.password,
    });
    let started = Command::new(&program)
        .arg("store")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn();
    let mut child = started.map_err(|error| wrong(crate::root::cause(&error)))?;
    if let Some(mut input) = child.stdin.take() {
        let _ = input.write_all(object.to_string().as_bytes());
    }
    let ended = child.wait_with_output();
    let output = ended.map_err(|error| wrong(crate::root::cause(&error)))?;
    match output.status.success() {
        true => Ok(program),
        false => {
            let text = String::from_utf8_lossy(&output.stdout);
            let line = text.lines().next().unwrap_or("it failed");
            // Whatever it says, the password is not repeated.
            Err(wrong(line.replace(&login.password, "…")))
        }
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
    fn a_login_is_kept_privately_beside_others() {
        use std::os::unix::fs::PermissionsExt;
        let directory = tempfile::tempdir().unwrap();
        let folder = directory.path().join("new");
        let path = folder.join("config.json");
        let session = directory.path().join("containers/auth.json");
        let files = CredentialFiles(vec![session.clone(), path.clone()]);
        let login = |password: &str| Login {
            user: "me".to_owned(),
            password: password.to_owned(),
            source: String::new(),
        };
        let kept = files.keep("r.io", &login("one")).unwrap();
        assert_eq!(kept, Stored::File(path.clone()));
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let text = std::fs::read_to_string(&path).unwrap();
        let mut all: serde_json::Value = serde_json::from_str(&text).unwrap();
        all["psFormat"] = "x".into();
        private_file(&path, all.to_string().as_bytes()).unwrap();
        files.keep("docker.io", &login("two")).unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.contains("psFormat") && !text.contains("one"), "{text}");
        assert_eq!(files.find("r.io", "a").unwrap().password, "one");
        assert_eq!(
            files.find("docker.io", "library/a").unwrap().password,
            "two"
        );
        // A place that is looked at earlier and has one is where the new one goes.
        private_file(&session, br#"{"auths":{"r.io":{"auth":"bWU6eA=="}}}"#).unwrap();
        let kept = files.keep("r.io", &login("three")).unwrap();
        assert_eq!(kept, Stored::File(session));
        assert_eq!(files.find("r.io", "a").unwrap().password, "three");
        private_file(&path, b"no json").unwrap();
        let error = files.keep("s.io", &login("four")).unwrap_err().to_string();
        assert!(
            error.contains("config.json") && !error.contains("four"),
            "{error}"
        );
        assert_eq!(std::fs::read(&path).unwrap(), b"no json");
        private_file(&path, b"[]").unwrap();
        let error = files.keep("s.io", &login("four")).unwrap_err().to_string();
        assert!(error.contains("not a JSON object"), "{error}");
        assert_eq!(std::fs::read(&path).unwrap(), b"[]");
        let none = CredentialFiles::default().keep("r.io", &login("five"));
        assert!(matches!(none, Err(CredentialError::NoPlace)));
    }

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
