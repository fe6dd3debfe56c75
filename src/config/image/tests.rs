//! Reading whole descriptions.

use super::*;

fn read(text: &str) -> Result<ImageConfig, ConfigError> {
    let (mut config, _) = parse("apko.yaml", text)?;
    checks::check(&mut config)?;
    Ok(config)
}

#[track_caller]
fn refused(text: &str, code: &str, line: &str) {
    let error = read(text).expect_err(text);
    assert_eq!(
        (error.code(), error.to_string().as_str()),
        (code, line),
        "{text}"
    );
}

/// A file that uses every field.
const EVERYTHING: &str = r#"
contents:
  build_repositories: [https://mirror.example/community/]
  runtime_repositories: [https://example.com/community]
  repositories: [https://example.com/main, "@local ./packages"]
  keyring: [./keys/local.rsa.pub]
  runtime_keyring: []
  packages: [busybox, nginx~1.28, ours@local, "!apache2", "nodejs@^20.10"]
entrypoint:
  type: ~
  command: /usr/sbin/nginx -g "daemon off;"
  shell-fragment: ""
  services: {}
cmd: -q
stop-signal: SIGQUIT
work-dir: /var/www
accounts:
  run-as: 10000
  users: [{username: web, uid: 10000, gid: 0, shell: /bin/sh, homedir: /var/www}]
  groups: [{groupname: web, gid: 10000, members: [web]}]
archs: [386, x86_64]
environment: {DEBUG: 1, FLAG: true, EMPTY: }
paths:
  - {path: /run/nginx, type: directory, uid: 10000, gid: 10000, permissions: 0o755, recursive: yes}
  - {path: /var/log/access.log, type: symlink, source: /dev/stdout}
vcs-url: https://example.com/x@abc
annotations: {a.b: c}
volumes: [/var/www]
layering: {strategy: origin, budget: 8}
format: tar
certificates:
  additional: []
  providers: [certs]
x-build:
  scripts: emulate
  files: [{path: /etc/motd, content: "hi\n", mode: 0600}]
  world: requested
  compression: zstd:3
  healthcheck: {test: [CMD, true], interval: 1m30s, timeout: 5s, start-period: 1s, retries: 3}
  expose: [80/tcp]
  labels: {l: m}
  remove: [usr/share/man]
  clamp-mtime: true
  mirrors: {https://a: [https://b], https://c: https://d}
  db: auto
"#;

#[test]
fn every_field_is_read() {
    let config = read(EVERYTHING).expect("a good file");
    assert_eq!(config.archs, ["386", "x86_64"]);
    assert_eq!(config.accounts.run_as, "10000");
    assert_eq!(config.environment["DEBUG"], "1");
    assert_eq!(config.environment["FLAG"], "true");
    assert_eq!(config.environment["EMPTY"], "");
    assert_eq!(config.accounts.users[0].gid, Some(0));
    assert_eq!(config.paths[0].permissions, Some(0o755));
    assert!(config.paths[0].recursive);
    assert_eq!(config.paths[1].place.line, 25);
    assert_eq!(
        config.contents.build_repositories,
        ["https://mirror.example/community"]
    );
    assert_eq!(config.x_build.files[0].mode, Some(0o600));
    assert_eq!(config.x_build.mirrors["https://c"], ["https://d"]);
    assert!(config.layering.is_some());
    let world = config.world(&[]).expect("constraints").to_text();
    assert_eq!(
        world,
        "!apache2\nbusybox\nnginx~1.28\nnodejs<21_alpha\nnodejs>=20.10\nours@local\n"
    );
}

#[test]
fn what_is_shown_reads_back() {
    let config = read(EVERYTHING).expect("a good file");
    let again = read(&config.to_yaml()).expect("our own text");
    let without_places = |mut config: ImageConfig| {
        config
            .paths
            .iter_mut()
            .for_each(|path| path.place = Place::default());
        config
            .x_build
            .files
            .iter_mut()
            .for_each(|file| file.place = Place::default());
        config
            .accounts
            .users
            .iter_mut()
            .for_each(|user| user.place = Place::default());
        config
            .accounts
            .groups
            .iter_mut()
            .for_each(|group| group.place = Place::default());
        config
    };
    assert_eq!(without_places(again), without_places(config));
    assert_eq!(read("").expect("empty").to_yaml(), "{}\n");
}

#[test]
fn errors_name_the_place_and_the_nearest_key() {
    for (text, code, line) in [
        (
            "contents:\n  pacakges: [a]\n",
            "E-FIELD",
            "apko.yaml:2:3: unknown field \"pacakges\" in contents; did you mean \"packages\"?",
        ),
        (
            "zzz: 1\n",
            "E-FIELD",
            "apko.yaml:1:1: unknown field \"zzz\"",
        ),
        (
            "contents: [a]\n",
            "E-FIELD",
            "apko.yaml:1:11: contents must be a mapping, not a list",
        ),
        (
            "archs: amd64\n",
            "E-FIELD",
            "apko.yaml:1:8: archs must be a list, not a scalar",
        ),
        (
            "accounts: {users: [{username: a, uid: -1}]}\n",
            "E-FIELD",
            "apko.yaml:1:39: accounts.users[0].uid: \"-1\" is no whole number of 32 bits",
        ),
        (
            "paths: [{path: /a, type: dir}]\n",
            "E-FIELD",
            "apko.yaml:1:26: paths[0].type: unknown value \"dir\"; known: directory, empty-file, \
             hardlink, symlink, permissions",
        ),
        (
            "cmd: a\ncmd: b\n",
            "E-YAML",
            "apko.yaml:2:1: key \"cmd\" is given twice, first in line 1",
        ),
        (
            "paths:\n- {path: /x, type: hardlink}\n",
            "E-PATH",
            "paths[0] (line 2): hardlink /x: source is missing",
        ),
        (
            "paths:\n- {path: /a/../../b, type: directory}\n",
            "E-PATH",
            "paths[0] (line 2): /a/../../b leaves the root",
        ),
        (
            "accounts:\n  users:\n  - {username: a, uid: 0}\n",
            "E-ACCOUNT",
            "accounts.users[0]: uid is 0; use run-as: 0 to run as root",
        ),
        (
            "accounts:\n  users: [{username: a, uid: 1}, {username: b, uid: 1}]\n",
            "E-ACCOUNT",
            "accounts.users[1]: uid 1 is that of \"a\" already",
        ),
        (
            "entrypoint: {command: 'sh -c \"echo'}\n",
            "E-QUOTE",
            "entrypoint.command: unfinished double quote at column 7",
        ),
        (
            "certificates: {additional: [{name: a, content: x}]}\n",
            "E-CERT",
            "certificates.additional[0]: \"a\" holds 0 PEM blocks, not one certificate",
        ),
        (
            "contents: {runtime_keyring: [{name: ../k, content: x}]}\n",
            "E-KEYRING",
            "contents.runtime_keyring: name \"../k\" must match [A-Za-z0-9_-][A-Za-z0-9_.-]*",
        ),
        (
            "contents: {packages: ['a b']}\n",
            "E-FIELD",
            "contents.packages: \"a b\" is no constraint: NAME, NAME=1, NAME~1, NAME@TAG, !NAME",
        ),
        (
            "contents: {packages: ['a=..']}\n",
            "E-FIELD",
            "contents.packages: \"a=..\" has a version that apk cannot read",
        ),
        (
            "format: erofs\nlayering: {strategy: origin}\n",
            "E-FIELD",
            "format: erofs and layering exclude each other",
        ),
        (
            "contents: {baseimage: {image: ./b}}\ncmd: x\n",
            "E-FIELD",
            "with contents.baseimage only contents, archs and include can be set",
        ),
    ] {
        refused(text, code, line);
    }
}

#[test]
fn a_service_bundle_brings_its_own() {
    let config = read("entrypoint: {type: service-bundle, services: {a: /bin/a}}\n");
    let config = config.expect("a bundle");
    assert_eq!(config.entrypoint.command, "/bin/s6-svscan /sv");
    assert_eq!(config.contents.packages, ["s6"]);
}

#[test]
fn includes_are_merged_and_cycles_told() {
    let folder = tempfile::tempdir().expect("a folder");
    let write = |name: &str, text: &str| {
        rustix::fs::mkdirat(rustix::fs::CWD, folder.path().join("conf"), 0o755.into()).ok();
        #[expect(clippy::disallowed_methods, reason = "a test")]
        std::fs::write(folder.path().join(name), text).expect("a file");
    };
    write(
        "conf/base.yaml",
        "contents: {packages: [a]}\nenvironment: {A: 1, B: 1}\ncmd: base\nvcs-url: x@y\n\
         archs: [arm64]\n",
    );
    write(
        "top.yaml",
        "include: base.yaml\ncontents: {packages: [b]}\nenvironment: {B: 2}\n",
    );
    write("one.yaml", "include: two.yaml\n");
    write("two.yaml", "include: one.yaml\n");
    write("lost.yaml", "include: nowhere.yaml\n");
    let load = |name: &str, paths: &[PathBuf]| super::load(Path::new(name), folder.path(), paths);
    let loaded = load("top.yaml", &["conf".into()]).expect("an include");
    let config = loaded.config;
    assert_eq!(config.contents.packages, ["a", "b"]);
    assert_eq!(config.environment["A"], "1");
    assert_eq!(config.environment["B"], "2");
    assert_eq!((config.cmd.as_str(), config.vcs_url.as_str()), ("base", ""));
    assert_eq!(loaded.files.len(), 2);
    for (name, paths, line) in [
        (
            "one.yaml",
            &[][..],
            "include cycle: one.yaml -> two.yaml -> one.yaml",
        ),
        (
            "lost.yaml",
            &["conf".into()],
            "include \"nowhere.yaml\" not found (looked in ., conf)",
        ),
    ] {
        let error = load(name, paths).expect_err(name);
        assert_eq!(
            (error.code(), error.to_string().as_str()),
            ("E-INCLUDE", line)
        );
    }
    let error = load("missing.yaml", &[]).expect_err("missing");
    assert_eq!(
        error.to_string(),
        "cannot read missing.yaml: No such file or directory"
    );
}

#[test]
fn secrets_stay_out() {
    let text = "contents: {repositories: ['https://u:p@h/x', '@t https://u@h/y']}\n";
    let json = read(text).expect("good").to_json();
    assert_eq!(
        json,
        r#"{"contents":{"repositories":["https://h/x","@t https://h/y"]}}"#
    );
}

#[test]
fn times() {
    for (text, wanted) in [
        ("", Some(0)),
        ("30s", Some(30_000_000_000)),
        ("1m30s", Some(90_000_000_000)),
        ("500ms", Some(500_000_000)),
        ("30", None),
        ("x", None),
    ] {
        assert_eq!(nanoseconds(text), wanted, "{text}");
    }
}

#[test]
fn the_schema_knows_every_field() {
    let schema = schema();
    let config = read(EVERYTHING).expect("a good file");
    let json = serde_json::to_value(&config).expect("every field can be written");
    for key in json.as_object().expect("a mapping").keys() {
        assert!(schema["properties"].get(key).is_some(), "{key}");
    }
}
