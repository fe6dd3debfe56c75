//! Publishing to a registry that others wrote, behind a token service and a line that breaks; logins
//! and the programs that keep them; what the cache says.

use super::image_build::walk;
use super::image_packages::{Desk, Server, alpine_key, description, said};
use super::image_tools::{LocalRegistry, has};
use super::support::data;
use ibex::image::read;
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};

#[derive(Default)]
struct State {
    /// A token is good for so many requests.
    uses: u32,
    token: u32,
    used: u32,
    log: Vec<String>,
}

/// Stands before a registry: gives tokens to `me` with the password `secret`, which
/// everything needs.
struct Gate {
    port: u16,
    state: Arc<Mutex<State>>,
}

struct Head {
    first: String,
    fields: Vec<(String, String)>,
}

impl Head {
    fn read(reader: &mut impl BufRead) -> Option<Self> {
        let mut line = || {
            let mut line = String::new();
            reader.read_line(&mut line).ok()?;
            Some(line.trim_end().to_owned())
        };
        let first = line().filter(|line| !line.is_empty())?;
        let mut fields = Vec::new();
        loop {
            let line = line()?;
            let Some((name, value)) = line.split_once(':') else {
                return Some(Self { first, fields });
            };
            fields.push((name.to_ascii_lowercase(), value.trim().to_owned()));
        }
    }

    fn get(&self, name: &str) -> Option<&str> {
        let found = self.fields.iter().find(|(known, _)| known == name);
        found.map(|(_, value)| value.as_str())
    }

    fn length(&self) -> usize {
        self.get("content-length")
            .map_or(0, |text| text.parse().expect("a number"))
    }
}

impl Gate {
    fn start(upstream: u16, uses: u32) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let state = Arc::new(Mutex::new(State {
            uses,
            ..State::default()
        }));
        let shared = state.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (Ok(stream), shared) = (stream, shared.clone()) else {
                    return;
                };
                std::thread::spawn(move || pass(stream, port, upstream, &shared));
            }
        });
        Self { port, state }
    }

    fn log(&self) -> Vec<String> {
        self.state.lock().expect("the log").log.clone()
    }
}

fn respond(stream: &mut TcpStream, status: &str, headers: &str, body: &str) {
    let text = format!(
        "HTTP/1.1 {status}\r\n{headers}content-length: {}\r\nconnection: close\r\n\r\n{body}",
        body.len()
    );
    let _ = stream.write_all(text.as_bytes());
}

/// Serves one request of a connection.
fn pass(mut stream: TcpStream, port: u16, upstream: u16, state: &Mutex<State>) -> Option<()> {
    let mut reader = BufReader::new(stream.try_clone().ok()?);
    let head = Head::read(&mut reader)?;
    let login = format!("Basic {}", data_encoding::BASE64.encode(b"me:secret"));
    let path = head.first.split(' ').nth(1).unwrap_or_default().to_owned();
    if path.starts_with("/token") {
        let mut body = vec![0; head.length()];
        reader.read_exact(&mut body).ok()?;
        let body = String::from_utf8_lossy(&body).into_owned();
        let mut state = state.lock().expect("the log");
        state.log.push(format!("{} {body}", head.first));
        let known = head.get("authorization") == Some(&login);
        if !known && !body.contains("refresh_token=identity&") {
            respond(&mut stream, "401 Unauthorized", "", "");
            return Some(());
        }
        (state.token, state.used) = (state.token + 1, 0);
        let token = format!(r#"{{"access_token":"t{}"}}"#, state.token);
        respond(&mut stream, "200 OK", "", &token);
        return Some(());
    }
    {
        let mut state = state.lock().expect("the log");
        let token = format!("Bearer t{}", state.token);
        let good = head.get("authorization") == Some(&token);
        state.used += 1;
        if !good || state.used > state.uses {
            state.log.push(format!("401 {}", head.first));
            let mut rest = Vec::new();
            let _ = reader.take(head.length() as u64).read_to_end(&mut rest);
            let realm = format!(
                "www-authenticate: Bearer realm=\"http://127.0.0.1:{port}/token\",\
                 service=\"here\"\r\n"
            );
            respond(&mut stream, "401 Unauthorized", &realm, "");
            return Some(());
        }
        state.log.push(head.first.clone());
    }
    let mut server = TcpStream::connect(("127.0.0.1", upstream)).ok()?;
    let mut text = format!("{}\r\n", head.first);
    for (name, value) in &head.fields {
        if name != "authorization" && name != "connection" {
            text += &format!("{name}: {value}\r\n");
        }
    }
    server
        .write_all(format!("{text}connection: close\r\n\r\n").as_bytes())
        .ok()?;
    std::io::copy(&mut reader.take(head.length() as u64), &mut server).ok()?;
    let mut answer = BufReader::new(server);
    let head = Head::read(&mut answer)?;
    let mut text = format!("{}\r\n", head.first);
    for (name, value) in &head.fields {
        text += &format!("{name}: {value}\r\n");
    }
    stream.write_all(format!("{text}\r\n").as_bytes()).ok()?;
    std::io::copy(&mut answer, &mut stream).ok()?;
    Some(())
}

/// A desk with a small Alpine image of about a megabyte.
fn desk() -> Option<Desk> {
    let repository = data("alpine-v3.19")?;
    let key = data("alpine-v3.19/keys/alpine-devel@lists.alpinelinux.org-6165ee59.rsa.pub")?;
    let desk = Desk::empty();
    desk.write(
        "a.yaml",
        &format!(
            "contents:\n  keyring: ['{}']\n  repositories: ['{}']\n  packages: [busybox]\narchs: [amd64]\n",
            key.display(),
            repository.display()
        ),
    );
    Some(desk)
}

/// A command that finds logins in the desk's folder only.
fn command(desk: &Desk, words: &[&str]) -> Command {
    let mut command = desk.command(words);
    command
        .env("DOCKER_CONFIG", desk.path().join("docker"))
        .env_remove("REGISTRY_AUTH_FILE")
        .env_remove("XDG_RUNTIME_DIR");
    command
}

/// Logs in with a password on standard input; returns the exit code and both outputs.
fn login(desk: &Desk, registry: &str, password: &str) -> (i32, String) {
    let mut command = command(desk, &["login", registry, "-u", "me", "--password-stdin"]);
    let path = std::env::var("PATH").unwrap_or_default();
    command.env(
        "PATH",
        format!("{}:{path}", desk.path().join("bin").display()),
    );
    let child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let mut child = child.expect("the program runs");
    let mut input = child.stdin.take().expect("a pipe");
    writeln!(input, "{password}").expect("the program reads");
    drop(input);
    let output = child.wait_with_output().expect("the program ends");
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text).into_owned();
    assert!(!text.contains(password), "{text}");
    (output.status.code().unwrap_or(128), text)
}

#[track_caller]
fn skopeo_digest(registry: &LocalRegistry, name: &str) -> String {
    let reference = format!("docker://127.0.0.1:{}/{name}", registry.port);
    let mut command = Command::new("skopeo");
    command.args([
        "inspect",
        "--tls-verify=false",
        "--format",
        "{{.Digest}}",
        &reference,
    ]);
    let said = said(&mut command);
    assert_eq!(said.code, 0, "{}", said.err);
    said.out.trim().to_owned()
}

#[test]
fn tokens_are_asked_for_and_renewed() {
    let Some(desk) = desk() else { return };
    if !has("docker-registry") || !has("skopeo") {
        return;
    }
    let registry = LocalRegistry::start();
    let gate = Gate::start(registry.port, 4);
    let host = format!("127.0.0.1:{}", gate.port);
    let reference = format!("{host}/app:1");
    let publish = || said(&mut command(&desk, &["publish", "a.yaml", &reference]));

    // Nobody, then somebody the registry does not know: nothing is kept of that.
    publish().error(
        6,
        &format!("error[E-AUTH]: https://{host} refused access (401); credentials: none"),
    );
    let (code, text) = login(&desk, &host, "wrong");
    assert_eq!(code, 6, "{text}");
    assert!(text.contains("error[E-AUTH]"), "{text}");
    assert!(!desk.path().join("docker").exists());
    let (code, text) = login(&desk, &host, "secret");
    assert_eq!(code, 0, "{text}");
    let kept = desk.path().join("docker/config.json");
    let mode = fs::metadata(&kept).expect("the login").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);

    let before = gate.log().len();
    let line = publish().good();
    let digest = skopeo_digest(&registry, "app:1");
    assert_eq!(line, format!("{host}/app@{digest}\n"));
    let log = gate.log().split_off(before);
    let tokens: Vec<&String> = log.iter().filter(|line| line.contains("/token")).collect();
    assert!(tokens.len() >= 2, "{log:#?}");
    assert!(
        tokens[0].starts_with("GET /token?service=here&scope=repository%3Aapp%3Apull%2Cpush "),
        "{}",
        tokens[0]
    );

    // What another repository has is mounted, and its name is in what the token is for.
    let before = gate.log().len();
    let other = format!("{host}/other:1");
    let said_it = said(&mut command(&desk, &["publish", "-v", "a.yaml", &other]));
    assert!(said_it.err.contains("1 mounted"), "{}", said_it.err);
    let log = gate.log().split_off(before);
    let scopes = "scope=repository%3Aother%3Apull%2Cpush&scope=repository%3Aapp%3Apull";
    assert!(log.iter().any(|line| line.contains(scopes)), "{log:#?}");
    assert_eq!(skopeo_digest(&registry, "other:1"), digest);

    // An identity token is exchanged, not shown.
    let text = format!(r#"{{"auths":{{"{host}":{{"identitytoken":"identity"}}}}}}"#);
    fs::write(&kept, text).expect("a file");
    let before = gate.log().len();
    let said_it = said(&mut command(
        &desk,
        &["publish", "-v", "a.yaml", &reference],
    ));
    assert!(said_it.err.contains("0 blobs sent"), "{}", said_it.err);
    let log = gate.log().split_off(before);
    assert!(
        log.iter().any(
            |line| line.starts_with("POST /token HTTP/1.1 grant_type=refresh_token&")
                && line.contains("scope=repository%3Aapp%3Apull%2Cpush")
                && line.ends_with("&service=here")
        ),
        "{log:#?}"
    );
}

#[test]
fn programs_keep_logins() {
    let Some(desk) = desk() else { return };
    if !has("docker-registry") || !has("skopeo") {
        return;
    }
    let registry = LocalRegistry::start();
    let gate = Gate::start(registry.port, 100);
    let host = format!("127.0.0.1:{}", gate.port);
    let kept = desk.path().join("kept");
    for (name, field) in [
        ("all", r#""credsStore":"all""#.to_owned()),
        (
            "one",
            format!(r#""credsStore":"none","credHelpers":{{"{host}":"one"}}"#),
        ),
    ] {
        // As Docker's own: JSON on standard input is kept, a server's name gets it back.
        let script = format!(
            "#!/bin/sh\ncase $1 in\nstore) cat > {0};;\nget) cat > /dev/null; cat {0};;\nesac\n",
            kept.display()
        );
        desk.write(&format!("bin/docker-credential-{name}"), &script);
        let program = desk.path().join(format!("bin/docker-credential-{name}"));
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).expect("a mode");
        desk.write("docker/config.json", &format!("{{{field}}}"));
        let (code, text) = login(&desk, &host, "secret");
        assert_eq!(code, 0, "{text}");
        assert!(
            text.contains(&format!("the login is in docker-credential-{name}")),
            "{text}"
        );
        let stored: Value = serde_json::from_slice(&fs::read(&kept).expect("it")).expect("JSON");
        assert_eq!(stored["ServerURL"], host.as_str());
        assert_eq!(stored["Secret"], "secret");
        assert!(!desk.read("docker/config.json").contains("auths"));
        let mut publish = command(&desk, &["publish", "a.yaml", &format!("{host}/{name}:1")]);
        let path = std::env::var("PATH").unwrap_or_default();
        publish.env(
            "PATH",
            format!("{}:{path}", desk.path().join("bin").display()),
        );
        let line = said(&mut publish).good();
        assert_eq!(
            line,
            format!(
                "{host}/{name}@{}\n",
                skopeo_digest(&registry, &format!("{name}:1"))
            )
        );
        fs::remove_file(&kept).expect("it was there");
    }
    // A program that fails, one that is missing.
    desk.write(
        "bin/docker-credential-bad",
        "#!/bin/sh\necho no room\nexit 1\n",
    );
    let program = desk.path().join("bin/docker-credential-bad");
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).expect("a mode");
    for (name, wanted) in [("bad", "no room"), ("absent", "No such file")] {
        desk.write(
            "docker/config.json",
            &format!(r#"{{"credsStore":"{name}"}}"#),
        );
        let (code, text) = login(&desk, &host, "secret");
        assert_eq!(code, 6, "{text}");
        let line =
            format!("error[E-AUTH]: docker-credential-{name} does not take the login: {wanted}");
        assert!(text.contains(&line), "{text}");
    }
    for (words, wanted) in [
        (
            &["login", "x/y", "-u", "me", "-p", "x"][..],
            "\"x/y\" is no registry",
        ),
        (&["login", "r.io"], "login needs --username"),
        (
            &["login", "r.io", "-u", "me"],
            "login needs --password-stdin",
        ),
        (&["login", "r.io", "-u", "a:b", "-p", "x"], "has no `:`"),
    ] {
        let said = said(&mut command(&desk, words));
        assert_eq!(said.code, 2, "{}", said.err);
        assert!(said.err.contains(wanted), "{}", said.err);
    }
}

/// A registry with as much of the distribution API as a push and a pull need, where an upload that
/// broke off can go on.
#[derive(Default)]
struct Shelf {
    uploads: BTreeMap<String, Vec<u8>>,
    content: BTreeMap<String, Vec<u8>>,
    log: Vec<String>,
    /// So many bodies in a row break off.
    breaks: u32,
    least: Option<u64>,
    /// Nothing is known of an upload after it broke off.
    forgets: bool,
}

/// After how many bytes the line breaks.
const BREAK: usize = 200_000;

fn shelf(breaks: u32, least: Option<u64>, forgets: bool) -> (u16, Arc<Mutex<Shelf>>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("an address").port();
    let shelf = Arc::new(Mutex::new(Shelf {
        breaks,
        least,
        forgets,
        ..Shelf::default()
    }));
    let shared = shelf.clone();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let (Ok(stream), shared) = (stream, shared.clone()) else {
                return;
            };
            std::thread::spawn(move || serve(stream, &shared));
        }
    });
    (port, shelf)
}

fn serve(mut stream: TcpStream, shelf: &Mutex<Shelf>) -> Option<()> {
    let mut reader = BufReader::new(stream.try_clone().ok()?);
    let head = Head::read(&mut reader)?;
    let (method, target) = head.first.split_once(' ')?;
    let target = target.split(' ').next()?;
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let length = head.length();
    let range = head.get("content-range").unwrap_or_default().to_owned();
    let broken = {
        let mut shelf = shelf.lock().expect("the shelf");
        shelf.log.push(format!("{method} {path} {length} {range}"));
        let breaks = shelf.breaks > 0 && length > BREAK;
        shelf.breaks -= u32::from(breaks);
        breaks
    };
    let mut body = vec![0; if broken { BREAK } else { length }];
    reader.read_exact(&mut body).ok()?;
    let mut shelf = shelf.lock().expect("the shelf");
    let shelf = &mut *shelf;
    let upload = path.contains("/uploads/");
    if upload && method == "PATCH" {
        let have = shelf.uploads.get(path).map_or(0, Vec::len);
        let end = have + length - 1;
        if range != format!("{have}-{end}") {
            let text = format!("range: 0-{}\r\n", have.saturating_sub(1));
            respond(&mut stream, "416 Range Not Satisfiable", &text, "");
            return Some(());
        }
    }
    if upload && method != "POST" {
        shelf.uploads.get_mut(path)?.extend(&body);
    }
    if broken {
        if shelf.forgets {
            shelf.uploads.remove(path);
        }
        let _ = stream.shutdown(Shutdown::Both);
        return Some(());
    }
    let place = |path: &str, have: usize| {
        // The place of an upload may move; only the last one is good.
        format!(
            "location: {path}?at={have}\r\nrange: 0-{}\r\n",
            have.saturating_sub(1)
        )
    };
    match method {
        "POST" => {
            let path = format!("{path}{}", shelf.log.len());
            shelf.uploads.insert(path.clone(), Vec::new());
            let mut text = place(&path, 0);
            if let Some(least) = shelf.least {
                text += &format!("oci-chunk-min-length: {least}\r\n");
            }
            respond(&mut stream, "202 Accepted", &text, "");
        }
        "GET" if upload => match shelf.uploads.get(path) {
            Some(bytes) => respond(&mut stream, "204 No Content", &place(path, bytes.len()), ""),
            None => respond(&mut stream, "404 Not Found", "", ""),
        },
        "PATCH" => {
            let text = place(path, shelf.uploads[path].len());
            respond(&mut stream, "202 Accepted", &text, "");
        }
        "PUT" if upload => {
            let bytes = shelf.uploads.remove(path)?;
            let digest = query
                .split('&')
                .find_map(|pair| pair.strip_prefix("digest="))?;
            let digest = digest.replace("%3A", ":");
            if digest != sha256(&bytes) {
                respond(&mut stream, "400 Bad Request", "", "");
                return Some(());
            }
            shelf.content.insert(digest, bytes);
            respond(&mut stream, "201 Created", "", "");
        }
        "PUT" => {
            let name = path.rsplit('/').next()?.to_owned();
            let digest = sha256(&body);
            shelf.content.insert(name, body.clone());
            shelf.content.insert(digest, body);
            respond(&mut stream, "201 Created", "", "");
        }
        _ => {
            let name = path.rsplit('/').next()?;
            match shelf.content.get(name) {
                Some(bytes) => {
                    let value: Value = serde_json::from_slice(bytes).unwrap_or_default();
                    let kind = value["mediaType"]
                        .as_str()
                        .unwrap_or("application/octet-stream");
                    let text = format!(
                        "HTTP/1.1 200 OK\r\ncontent-type: {kind}\r\ncontent-length: {}\r\n\
                         connection: close\r\n\r\n",
                        bytes.len()
                    );
                    stream.write_all(text.as_bytes()).ok()?;
                    if method == "GET" {
                        stream.write_all(bytes).ok()?;
                    }
                }
                None if path == "/v2/" => respond(&mut stream, "200 OK", "", "{}"),
                None => respond(&mut stream, "404 Not Found", "", ""),
            }
        }
    }
    Some(())
}

fn sha256(bytes: &[u8]) -> String {
    use sha2::{Digest, Sha256};
    format!(
        "sha256:{}",
        data_encoding::HEXLOWER.encode(&Sha256::digest(bytes))
    )
}

#[test]
fn an_upload_goes_on_where_it_broke_off() {
    let Some(desk) = desk() else { return };
    if !has("skopeo") {
        return;
    }
    // Broken once; again while it is resumed; with a piece that may be large; larger than is held in
    // memory, or forgotten: then all is sent again.
    for (name, breaks, least, forgets, resumed) in [
        ("once", 1, None, false, 1),
        ("twice", 2, None, false, 2),
        ("large", 1, Some(9 << 20), false, 1),
        ("huge", 1, Some(1 << 30), false, 0),
        ("forgotten", 1, None, true, 0),
    ] {
        let (port, shelf) = shelf(breaks, least, forgets);
        let reference = format!("127.0.0.1:{port}/{name}:1");
        let line = said(&mut command(
            &desk,
            &["publish", "-v", "a.yaml", &reference],
        ))
        .good();
        let digest = line.trim().rsplit('@').next().expect("a digest");
        let log = shelf.lock().expect("the shelf").log.clone();
        let starts = |what: &str| log.iter().filter(|line| line.starts_with(what)).count();
        assert_eq!(starts("PATCH "), resumed, "{log:#?}");
        if resumed > 0 {
            let first = log
                .iter()
                .find(|line| line.starts_with("PATCH "))
                .expect("a piece");
            let range = first.rsplit(' ').next().expect("a range");
            assert!(range.starts_with(&format!("{BREAK}-")), "{range}");
        }
        assert_eq!(pulled(port, name), digest, "{name}");
    }
}

/// Pulls an image back as a whole, which verifies every blob.
fn pulled(port: u16, name: &str) -> String {
    let folder = tempfile::tempdir().expect("a temporary directory");
    let from = format!("docker://127.0.0.1:{port}/{name}:1");
    let to = format!("dir:{}", folder.path().display());
    let mut command = Command::new("skopeo");
    command.args([
        "copy",
        "--all",
        "--src-tls-verify=false",
        "--insecure-policy",
        &from,
        &to,
    ]);
    let done = said(&mut command);
    assert_eq!(done.code, 0, "{}", done.err);
    sha256(&fs::read(folder.path().join("manifest.json")).expect("the index"))
}

#[test]
fn what_a_registry_refuses_is_told() {
    let Some(desk) = desk() else { return };
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("an address").port();
    let server = std::thread::spawn(move || {
        // Two blobs are asked for at the same time; neither is there, neither is taken.
        for _ in 0..4 {
            let (mut stream, _) = listener.accept().expect("a connection");
            let mut reader = BufReader::new(stream.try_clone().expect("a stream"));
            let head = Head::read(&mut reader).expect("a request");
            let body = r#"{"errors":[{"code":"NAME_INVALID","message":"no such place"}]}"#;
            match head.first.starts_with("HEAD ") {
                true => respond(&mut stream, "404 Not Found", "", ""),
                false => respond(&mut stream, "400 Bad Request", "", body),
            }
        }
        listener
    });
    let reference = format!("127.0.0.1:{port}/app:1");
    let publish = || said(&mut command(&desk, &["publish", "a.yaml", &reference]));
    let refused = publish();
    refused.error(
        1,
        &format!(
            "error[E-REGISTRY]: POST http://127.0.0.1:{port}/v2/app/blobs/uploads/: 400: \
             NAME_INVALID: no such place"
        ),
    );
    drop(server.join().expect("the server ends"));
    let gone = publish();
    assert_eq!(gone.code, 1, "{}", gone.err);
    let line = format!("error[E-REGISTRY]: HEAD http://127.0.0.1:{port}/v2/app/blobs/sha256:");
    assert!(gone.err.contains(&line), "{}", gone.err);
    assert!(gone.err.contains("Connection refused"), "{}", gone.err);
    let wrong = said(&mut command(&desk, &["publish", "a.yaml", "x.io/A:1"]));
    assert_eq!(wrong.code, 2, "{}", wrong.err);
}

#[test]
fn the_bill_of_materials_comes_back() {
    let Some(desk) = desk() else { return };
    if !has("docker-registry") || !has("skopeo") {
        return;
    }
    let registry = LocalRegistry::start();
    let reference = format!("127.0.0.1:{}/app:1", registry.port);
    let words = [
        "publish",
        "--attach-sbom",
        "--sbom-formats",
        "spdx,cyclonedx",
        "--sbom-path",
        "bills",
        "--image-refs",
        "refs",
        "a.yaml",
        &reference,
    ];
    let line = said(&mut command(&desk, &words)).good();
    let raw = |reference: &str| -> Value {
        let mut command = Command::new("skopeo");
        let place = format!("docker://127.0.0.1:{}/app{reference}", registry.port);
        command.args(["inspect", "--raw", "--tls-verify=false", &place]);
        serde_json::from_str(&said(&mut command).good()).expect("JSON")
    };
    let digest = line.trim().rsplit('@').next().expect("a digest").to_owned();
    let index = raw(&format!("@{digest}"));
    let image = index["manifests"][0]["digest"]
        .as_str()
        .expect("a digest")
        .to_owned();
    let name = line.trim().split('@').next().expect("a name");
    assert_eq!(
        desk.read("refs"),
        format!("{name}@{image}\n{name}@{digest}\n")
    );
    let mut found = Vec::new();
    for subject in [&digest, &image] {
        // This registry has no list of referrers, so that the tag has it.
        let list = raw(&format!(":{}", subject.replace(':', "-")));
        for entry in list["manifests"].as_array().expect("a list") {
            let manifest = raw(&format!("@{}", entry["digest"].as_str().expect("a digest")));
            assert_eq!(manifest["subject"]["digest"], subject.as_str());
            assert_eq!(manifest["artifactType"], entry["artifactType"]);
            let folder = tempfile::tempdir().expect("a temporary directory");
            let from = format!(
                "docker://127.0.0.1:{}/app@{}",
                registry.port,
                entry["digest"].as_str().expect("it")
            );
            let to = format!("oci:{}:x", folder.path().display());
            let mut command = Command::new("skopeo");
            command.args([
                "copy",
                "--src-tls-verify=false",
                "--insecure-policy",
                &from,
                &to,
            ]);
            let _ = said(&mut command);
            let blob = manifest["layers"][0]["digest"].as_str().expect("a digest");
            found.push(blob.trim_start_matches("sha256:").to_owned());
        }
    }
    // What the registry gives for these digests are the very files that were written here.
    let mut written: Vec<String> = fs::read_dir(desk.path().join("bills"))
        .expect("the bills")
        .map(|entry| {
            let path = entry.expect("an entry").path();
            let sum = said(Command::new("sha256sum").arg(path)).good();
            sum.split(' ').next().expect("a sum").to_owned()
        })
        .collect();
    written.sort();
    found.sort();
    assert_eq!(found, written);
    for hex in found {
        let text = get(registry.port, &format!("/v2/app/blobs/sha256:{hex}"));
        let bill: Value = serde_json::from_slice(&text).expect("JSON");
        assert!(
            bill.get("spdxVersion").or(bill.get("bomFormat")).is_some(),
            "{bill}"
        );
    }
}

/// Gets a path of a server on this machine.
fn get(port: u16, path: &str) -> Vec<u8> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).expect("a connection");
    let text = format!("GET {path} HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: close\r\n\r\n");
    stream.write_all(text.as_bytes()).expect("a request");
    let mut reader = BufReader::new(stream);
    let head = Head::read(&mut reader).expect("an answer");
    assert!(head.first.contains(" 200 "), "{}", head.first);
    let mut body = vec![0; head.length()];
    reader.read_exact(&mut body).expect("a body");
    body
}

#[test]
fn the_cache_is_measured_checked_and_emptied() {
    let Some(desk) = desk() else { return };
    let cache = |words: &[&str]| desk.run(&[&["cache"], words].concat());
    assert_eq!(
        cache(&["dir"]).good(),
        format!("{}\n", desk.cache().display())
    );
    desk.run(&["build", "a.yaml", "app:1", "a/"]).good();
    let number = |path: &[&str]| -> u64 {
        let text = cache(&["size", "--json"]).good();
        let mut value: Value = serde_json::from_str(&text).expect("JSON");
        for key in path {
            value = value[*key].take();
        }
        value.as_u64().expect("a number")
    };
    assert!(number(&["layers", "files"]) > 2);
    let said_it = cache(&["verify"]).good();
    assert!(said_it.ends_with("verified, 0 damaged\n"), "{said_it}");
    // Damage in a layer and in a segment is found and removed; the next build makes them again.
    let find = |folder: &str| {
        let all = walk(&desk.cache().join("images").join(folder));
        all.into_iter()
            .max_by_key(|path| fs::metadata(path).expect("it").len())
            .expect("a file")
    };
    let damaged = [find("blobs/sha256"), find("segments")];
    for path in &damaged {
        let mut bytes = fs::read(path).expect("a file");
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        fs::write(path, bytes).expect("a file");
    }
    let said_it = cache(&["verify"]);
    assert_eq!(said_it.code, 3, "{}", said_it.out);
    assert!(said_it.out.ends_with(" 2 damaged\n"), "{}", said_it.out);
    for path in &damaged {
        assert!(!path.exists());
        assert!(
            said_it
                .out
                .contains(&format!("{}: damaged, removed\n", path.display()))
        );
    }
    let first = desk.run(&["build", "a.yaml", "app:1", "b/"]).good();
    assert_eq!(first, desk.run(&["build", "a.yaml", "app:1", "c/"]).good());
    // What was used just now stays; what was used long ago goes, the oldest first.
    let everything = number(&["bytes"]);
    let said_it = cache(&["prune", "--max-size", "0"]).good();
    assert_eq!(said_it, "0 files removed, 0 B freed\n");
    let long_ago = std::time::SystemTime::now() - std::time::Duration::from_secs(3600);
    let age = || {
        for path in walk(&desk.cache()) {
            let file = fs::File::options().append(true).open(path).expect("a file");
            file.set_modified(long_ago).expect("a time");
        }
    };
    age();
    cache(&["prune", "--max-age", "2h"]).good();
    assert_eq!(number(&["bytes"]), everything);
    cache(&["prune", "--max-size", &(everything - 1).to_string()]).good();
    assert!(number(&["bytes"]) < everything && number(&["bytes"]) > 0);
    let packages = number(&["packages", "bytes"]);
    cache(&["prune", "--ci"]).good();
    assert_eq!(number(&["layers", "bytes"]), 0);
    assert_eq!(number(&["packages", "bytes"]), packages);
    desk.run(&["build", "a.yaml", "app:1", "d/"]).good();
    cache(&["clean"]).good();
    assert_eq!(number(&["bytes"]), 0);
    for (words, wanted) in [
        (&["prune"][..], "cache prune needs"),
        (&["prune", "--max-age", "3"], "is no time"),
        (&["prune", "--max-size", "x"], "is no size"),
        (&["throw"], "is none of dir"),
    ] {
        let said_it = cache(words);
        assert_eq!(said_it.code, 2, "{}", said_it.err);
        assert!(said_it.err.contains(wanted), "{}", said_it.err);
    }
    assert!(desk.cache().exists());
}

#[test]
fn packages_are_kept_for_images_and_roots_alike() {
    let (Some(repository), Some(key)) = (data("alpine-v3.19"), alpine_key()) else {
        return;
    };
    let desk = Desk::empty();
    let server = Server::start(repository.clone());
    desk.write("a.yaml", &description(&server.address, &key, "busybox"));
    desk.run(&["build", "a.yaml", "app:1", "out/"]).good();
    let root = desk.path().join("root");
    fs::create_dir(&root).expect("a new directory");
    let plain = |words: &[&str]| {
        let mut command = super::support::ibex();
        command.env("IBEX_CACHE_DIR", desk.cache());
        command.arg("--root").arg(&root);
        command
            .arg("--keys-dir")
            .arg(key.parent().expect("a folder"));
        said(command.args(words))
    };
    // Not only whole names: apk has the first digits in its own.
    let packages = desk.cache().join("packages");
    let musl = fs::read_dir(&packages).expect("a folder").flatten();
    let musl = musl.map(|entry| entry.path());
    let mut musl = musl.filter(|path| path.to_string_lossy().contains("/musl-1."));
    let musl = musl.next().expect("it was fetched");
    let name = musl
        .file_name()
        .expect("a name")
        .to_string_lossy()
        .into_owned();
    let (stem, digits) = name
        .trim_end_matches(".apk")
        .rsplit_once('.')
        .expect("a name");
    assert_eq!(digits.len(), 40, "{name}");
    let short = packages.join(format!("{stem}.{}.apk", &digits[..8]));
    fs::copy(&musl, &short).expect("a copy");
    let other = packages.join(format!("{stem}.00000000.apk"));
    fs::copy(&musl, &other).expect("a copy");
    let verified = plain(&["cache", "verify"]);
    assert!(
        verified.out.ends_with(" verified, 1 damaged\n"),
        "{}{}",
        verified.out,
        verified.err
    );
    assert!(!other.exists() && short.exists() && musl.exists());
    let verified = desk.run(&["cache", "verify"]).good();
    assert!(verified.ends_with(" verified, 0 damaged\n"), "{verified}");
    // A root takes what was fetched for an image, and the other way round, with no server.
    desk.write("b.yaml", &description(&server.address, &key, "tzdata"));
    let repository = ["-X", &server.address];
    plain(
        &[
            &["--initdb", "--usermode=auto"],
            &repository[..],
            &["add", "tzdata"],
        ]
        .concat(),
    )
    .good();
    desk.run(&["show-packages", "b.yaml"]).good();
    server.answer_only(500);
    let offline = ["--no-network", "--usermode=auto", "add", "busybox"];
    plain(&[&repository[..], &offline].concat()).good();
    desk.run(&["build", "--offline", "b.yaml", "app:1", "out/"])
        .good();
}

/// Returns what every file of a folder is: content, mode and time.
fn state(folder: &Path) -> Vec<(PathBuf, u32, std::time::SystemTime, Vec<u8>)> {
    let mut files = walk(folder);
    files.sort();
    let row = |path: PathBuf| {
        let meta = fs::metadata(&path).expect("it is there");
        let content = fs::read(&path).expect("a file");
        let modified = meta.modified().expect("a time");
        (path, meta.permissions().mode(), modified, content)
    };
    files.into_iter().map(row).collect()
}

#[test]
fn a_cache_can_be_read_only() {
    let (Some(repository), Some(key)) = (data("alpine-v3.19"), alpine_key()) else {
        return;
    };
    let desk = Desk::empty();
    let server = Server::start(repository);
    let describe = |packages: &str| {
        desk.write("a.yaml", &description(&server.address, &key, packages));
    };
    let build = |more: &[&str]| {
        let words = ["build", "a.yaml", "app:1", "out/"];
        desk.run(&[&words, more].concat())
    };
    // What there is not, is fetched, and not kept.
    describe("busybox, tzdata");
    build(&["--cache-readonly"]).good();
    assert!(!desk.cache().exists());
    describe("busybox");
    build(&[]).good();
    let before = state(&desk.cache());
    let catalogue = desk.cache().join("catalogue.sqlite");
    assert!(before.iter().any(|(path, ..)| *path == catalogue));
    // Nothing of what a build does gets in: nothing new, no times of use, no repair.
    let same = build(&["--cache-readonly", "--offline"]).good();
    let zstd = ["--layer-compression", "zstd"];
    build(&[&["--cache-readonly", "--offline"], &zstd[..]].concat()).good();
    describe("busybox, tzdata");
    let more = build(&["--cache-readonly"]).good();
    desk.run(&["lock", "a.yaml", "--cache-readonly"]).good();
    assert_eq!(state(&desk.cache()), before);
    // The same with a disk that takes nothing, and as a build that keeps what it makes.
    if rustix::process::geteuid().is_root() {
        let command = desk.command(&["build", "a.yaml", "app:1", "out/", "--cache-readonly"]);
        let mut alone = Command::new("unshare");
        alone.args(["--mount", "sh", "-ec"]).arg(
            "mount --bind \"$0\" \"$0\"; mount -o remount,ro,bind \"$0\" \"$0\"; ! touch \"$0/x\"; exec \"$@\"",
        );
        alone
            .arg(desk.cache())
            .arg(command.get_program())
            .args(command.get_args());
        alone
            .current_dir(desk.path())
            .env("IBEX_CACHE_DIR", desk.cache());
        assert_eq!(said(&mut alone).good(), more);
    }
    assert_eq!(build(&[]).good(), more);
    assert_ne!(state(&desk.cache()), before);
    describe("busybox");
    assert_eq!(build(&["--offline"]).good(), same);
    // A damaged layer is made again, beside.
    let blobs = walk(&desk.cache().join("images/blobs/sha256"));
    for path in &blobs {
        fs::write(path, b"damaged").expect("a file");
    }
    let before = state(&desk.cache());
    assert_eq!(build(&["--offline", "--cache-readonly"]).good(), same);
    assert_eq!(state(&desk.cache()), before);
}

#[test]
fn repositories_get_the_credentials_that_are_for_them() {
    let Some(repository) = data("alpine-v3.19") else {
        return;
    };
    let Some(desk) = desk() else { return };
    // A web server that wants to know who asks.
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("an address").port();
    let asked: Arc<Mutex<Vec<String>>> = Arc::default();
    let seen = asked.clone();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            let mut reader = BufReader::new(stream.try_clone().expect("a stream"));
            let Some(head) = Head::read(&mut reader) else {
                continue;
            };
            let who = head.get("authorization").unwrap_or_default().to_owned();
            let good = format!("Basic {}", data_encoding::BASE64.encode(b"me:secret"));
            let known = who == good || who == "Bearer token";
            seen.lock().expect("the list").push(who);
            let path = head.first.split(' ').nth(1).unwrap_or_default();
            match fs::read(repository.join(path.trim_start_matches('/'))) {
                _ if !known => respond(&mut stream, "401 Unauthorized", "", ""),
                Ok(body) => {
                    let length = body.len();
                    let text = format!(
                        "HTTP/1.1 200 OK\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n"
                    );
                    let _ = stream.write_all(&[text.into_bytes(), body].concat());
                }
                Err(_) => respond(&mut stream, "404 Not Found", "", ""),
            }
        }
    });
    let text = desk.read("a.yaml");
    let local = text
        .split("repositories: ['")
        .nth(1)
        .and_then(|rest| rest.split('\'').next());
    let address = format!("http://127.0.0.1:{port}");
    desk.write(
        "b.yaml",
        &text.replace(local.expect("the repository"), &address),
    );
    desk.write("program", "#!/bin/sh\necho me\necho secret\n");
    let program = desk.path().join("program");
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).expect("a mode");
    desk.write("netrc", "machine 127.0.0.1 login me password secret\n");
    let build = |name: &str, value: &str| {
        let mut command = desk.command(&["build", "--no-cache", "b.yaml", "b:1", "b/"]);
        command.env("HOME", desk.path()).env(name, value);
        said(&mut command)
    };
    let host = format!("127.0.0.1:{port}");
    for (name, value) in [
        (
            "HTTP_AUTH",
            format!("basic:other:me:wrong\nbasic:{host}:me:secret"),
        ),
        ("HTTP_AUTH", "bearer:127.0.0.1:token".to_owned()),
        ("NETRC", desk.path().join("netrc").display().to_string()),
        ("APK_AUTH_COMMAND", program.display().to_string()),
    ] {
        build(name, &value).good();
    }
    for (name, value, source) in [
        ("HTTP_AUTH", "basic:elsewhere:me:secret", "none"),
        ("HTTP_AUTH", "basic:127.0.0.1:me:wrong-word", "HTTP_AUTH"),
        ("APK_AUTH_COMMAND", "/nonexistent", "none"),
    ] {
        asked.lock().expect("the list").clear();
        let refused = build(name, value);
        let line = format!("error[E-AUTH]: {address} refused access (401); credentials: {source}");
        let refused = refused.error(6, &line);
        assert!(!refused.err.contains("wrong-word") && !refused.err.contains("secret"));
        // What is for another host is not even tried here.
        let asked = asked.lock().expect("the list");
        assert!(
            source != "none" || asked.iter().all(String::is_empty),
            "{asked:?}"
        );
    }
    // A key at an address is asked for as packages are; what an address carries gets nowhere else.
    let key = alpine_key().expect("it is there");
    let key = key.file_name().expect("a name").to_string_lossy();
    for (name, user) in [("d.yaml", ""), ("e.yaml", "me:secret@")] {
        let inside = format!("http://{user}{host}");
        let key = format!("{inside}/keys/{key}");
        desk.write(
            name,
            &description(&inside, Path::new(&key), "busybox, alpine-release"),
        );
        let run = |words: &[&str]| {
            let mut command = desk.command(words);
            if user.is_empty() {
                command.env("HTTP_AUTH", format!("basic:{host}:me:secret"));
            }
            let done = said(&mut command);
            assert!(!done.err.contains("secret"), "{}", done.err);
            done.good()
        };
        let _ = fs::remove_dir_all(desk.path().join("out"));
        let sbom = ["--sbom-formats", "spdx,cyclonedx", "--no-cache", "-vvv"];
        let layers = ["--layer-compression", "none"];
        run(&[&["build", name, "c:1", "out/"], &sbom[..], &layers].concat());
        run(&["lock", name, "--no-cache"]);
        let lock = desk.path().join(name).with_extension("lock.json");
        for path in walk(&desk.path().join("out")).into_iter().chain([lock]) {
            let bytes = fs::read(&path).expect("a file");
            let has = |word: &[u8]| bytes.windows(word.len()).any(|part| part == word);
            assert!(!has(b"secret"), "{}", path.display());
        }
        let image = read::read(&desk.path().join("out")).expect("an image");
        let repositories = &image[0].kept["etc/apk/repositories"];
        assert_eq!(*repositories, format!("http://{host}\n").into_bytes());
    }
}

#[test]
fn an_engine_of_this_machine_takes_the_image() {
    let Some(desk) = desk() else { return };
    if !has("podman") || !rustix::process::geteuid().is_root() {
        return;
    }
    // The real one, with a store of its own.
    let store = desk.path().join("store");
    let podman = format!(
        "podman --root {0}/root --runroot {0}/run --tmpdir {0}/tmp --storage-driver vfs",
        store.display()
    );
    desk.write(
        "bin/podman",
        &format!("#!/bin/sh\nexec /usr/bin/{podman} \"$@\"\n"),
    );
    let program = desk.path().join("bin/podman");
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).expect("a mode");
    let publish = |path: &str| {
        let mut publish = command(
            &desk,
            &["publish", "--local", "a.yaml", "example.org/app:1"],
        );
        said(publish.env("PATH", path))
    };
    let line = publish(&desk.path().join("bin").display().to_string()).good();
    assert!(line.starts_with("example.org/app@sha256:"), "{line}");
    let mut inspect = Command::new(&program);
    inspect.args([
        "image",
        "inspect",
        "example.org/app:1",
        "--format",
        "{{.Id}}",
    ]);
    let id = said(&mut inspect).good();
    // Its identity is that of the configuration of the same image on disk.
    desk.run(&[
        "build",
        "--layer-compression",
        "none",
        "a.yaml",
        "app:1",
        "out/",
    ])
    .good();
    let image = ibex::image::read::read(&desk.path().join("out")).expect("an image");
    let blobs = desk.path().join("out/blobs/sha256");
    let manifest = image[0].digest.trim_start_matches("sha256:");
    let manifest: Value =
        serde_json::from_slice(&fs::read(blobs.join(manifest)).expect("it")).expect("JSON");
    assert_eq!(
        manifest["config"]["digest"],
        format!("sha256:{}", id.trim())
    );
    let none = publish("/nonexistent");
    assert_eq!(none.code, 1, "{}", none.err);
    assert!(
        none.err.contains("error[E-OUTPUT]: no container engine takes the image: docker is not installed; podman is not installed"),
        "{}",
        none.err
    );
}

#[test]
fn under_apkos_name_it_is_apko() {
    let Some(desk) = desk() else { return };
    let apko = desk.path().join("apko");
    std::os::unix::fs::symlink(super::support::ibex().get_program(), &apko).expect("a link");
    let run = |words: &[&str]| {
        let mut command = Command::new(&apko);
        command
            .current_dir(desk.path())
            .args(words)
            .env("IBEX_CACHE_DIR", desk.cache());
        said(&mut command)
    };
    assert!(
        run(&["show-config", "a.yaml"])
            .good()
            .starts_with("# profile: apko\n")
    );
    run(&["resolve", "a.yaml"]).good();
    assert!(desk.read("a.resolved.json").contains("busybox"));
    run(&["lock", "a.yaml"]).good();
    assert_eq!(
        desk.read("a.lock.json"),
        desk.read("a.resolved.json").replace("a.resolved", "a.lock")
    );
    // A lock file that nobody named is nothing to apko.
    let built = run(&["build", "a.yaml", "app:1", "app.tar"]);
    assert!(!built.err.contains("W-LOCK-UNUSED"), "{}", built.err);
    built.good();
    let mut list = Command::new("tar");
    list.arg("-xOf")
        .arg(desk.path().join("app.tar"))
        .arg("manifest.json");
    let text = said(&mut list).good();
    assert!(text.contains("\"app:1-amd64\""), "{text}");
    let mut list = Command::new("tar");
    list.arg("-tf").arg(desk.path().join("app.tar"));
    let text = said(&mut list).good();
    let names: Vec<&str> = text.lines().collect();
    let digest = |name: &&str| name.starts_with("sha256:");
    assert_eq!(
        names.iter().filter(|name| digest(name)).count(),
        2,
        "{text}"
    );
    assert_eq!(names.last(), Some(&"index.json"));
    // The whole list of packages is what was asked for.
    let image = &ibex::image::read::read(&desk.path().join("app.tar")).expect("an image")[0];
    let world = String::from_utf8_lossy(&image.kept["etc/apk/world"]).into_owned();
    assert!(
        world.contains("musl=") && world.contains("busybox="),
        "{world}"
    );
    assert!(image.files.contains_key("usr/lib/apk/db/installed"));
    run(&["clean"]).good();
    assert_eq!(run(&["login"]).code, 2);
}
