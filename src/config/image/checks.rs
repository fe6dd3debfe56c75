//! What can be known to be wrong before anything is fetched.

use super::range;
use super::{ConfigError, ImageConfig, Place, architecture, words};
use crate::package::{Dependency, World};
use rsa::pkcs8::DecodePublicKey;
use std::collections::BTreeMap;

/// Something that should be known; `--strict` makes it an error.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Warning {
    /// `W-OLD-FIELD`, …
    pub code: &'static str,
    /// One line.
    pub text: String,
}

impl Warning {
    /// Makes one.
    pub fn new(code: &'static str, text: impl Into<String>) -> Self {
        Self {
            code,
            text: text.into(),
        }
    }
}

/// Checks a merged description and fills in what follows from it (a service bundle's command).
pub(super) fn check(config: &mut ImageConfig) -> Result<(), ConfigError> {
    entrypoint(config)?;
    accounts(config)?;
    paths(config)?;
    certificates(config)?;
    runtime_keys(config)?;
    combinations(config)?;
    world(config)?;
    Ok(())
}

fn combination(message: &str) -> ConfigError {
    ConfigError::Combination {
        message: message.to_owned(),
    }
}

fn entrypoint(config: &mut ImageConfig) -> Result<(), ConfigError> {
    if config.entrypoint.kind == "service-bundle" {
        "/bin/s6-svscan /sv".clone_into(&mut config.entrypoint.command);
        if !config.contents.packages.iter().any(|entry| entry == "s6") {
            config.contents.packages.push("s6".to_owned());
        }
    }
    for (field, text) in [
        ("entrypoint.command", &config.entrypoint.command),
        ("cmd", &config.cmd),
    ] {
        words::split(text).map_err(|source| ConfigError::Quote {
            field: field.to_owned(),
            source,
        })?;
    }
    for (name, command) in &config.entrypoint.services {
        if name.is_empty() || name.contains('/') || name.starts_with('.') {
            return Err(combination(&format!(
                "entrypoint.services: \"{name}\" is no plain name"
            )));
        }
        words::split(command).map_err(|source| ConfigError::Quote {
            field: format!("entrypoint.services.{name}"),
            source,
        })?;
    }
    Ok(())
}

fn accounts(config: &ImageConfig) -> Result<(), ConfigError> {
    let wrong = |list, place: &Place, message: String| {
        Err(ConfigError::Account {
            list,
            place: place.clone(),
            message,
        })
    };
    let field = |text: &str| text.contains([':', '\n', '\r', '\0']);
    let mut uids = BTreeMap::new();
    let mut names = BTreeMap::new();
    for user in &config.accounts.users {
        let place = &user.place;
        if user.username.is_empty() {
            return wrong("users", place, "username is missing".to_owned());
        }
        if [&user.username, &user.shell, &user.homedir]
            .iter()
            .any(|text| field(text))
        {
            let text = "a colon or line break cannot be in /etc/passwd".to_owned();
            return wrong("users", place, text);
        }
        match user.uid {
            None => return wrong("users", place, "uid is missing".to_owned()),
            Some(0) => {
                let text = "uid is 0; use run-as: 0 to run as root".to_owned();
                return wrong("users", place, text);
            }
            Some(uid) => {
                if let Some(other) = uids.insert(uid, user.username.clone()) {
                    let text = format!("uid {uid} is that of \"{other}\" already");
                    return wrong("users", place, text);
                }
            }
        }
        if names.insert(user.username.clone(), ()).is_some() {
            return wrong(
                "users",
                place,
                format!("\"{}\" is there twice", user.username),
            );
        }
    }
    let mut names = BTreeMap::new();
    for group in &config.accounts.groups {
        let place = &group.place;
        if group.groupname.is_empty() {
            return wrong("groups", place, "groupname is missing".to_owned());
        }
        if field(&group.groupname)
            || group
                .members
                .iter()
                .any(|name| field(name) || name.contains(','))
        {
            let text = "a colon, comma or line break cannot be in /etc/group".to_owned();
            return wrong("groups", place, text);
        }
        if group.gid.is_none() {
            return wrong("groups", place, "gid is missing".to_owned());
        }
        if names.insert(group.groupname.clone(), ()).is_some() {
            return wrong(
                "groups",
                place,
                format!("\"{}\" is there twice", group.groupname),
            );
        }
    }
    Ok(())
}

/// Returns what is wrong with a path of the image; it may begin with a slash.
fn path_problem(path: &str) -> Option<String> {
    if path.trim_matches('/').is_empty() {
        return Some("path is missing".to_owned());
    }
    let mut depth = 0_i32;
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => depth -= 1,
            _ => depth += 1,
        }
        if depth < 0 {
            return Some(format!("{path} leaves the root"));
        }
        if part.len() > 255 {
            return Some("a name has more than 255 bytes".to_owned());
        }
    }
    let bad = path.contains('\0') || path.len() > 4096;
    bad.then(|| "no usable path".to_owned())
}

fn paths(config: &ImageConfig) -> Result<(), ConfigError> {
    let wrong = |list, place: &Place, message: String| {
        Err(ConfigError::Path {
            list,
            place: place.clone(),
            message,
        })
    };
    for entry in &config.paths {
        let place = &entry.place;
        if let Some(message) = path_problem(&entry.path) {
            return wrong("paths", place, message);
        }
        let kind = entry.kind.as_str();
        let message = match kind {
            "" => "type is missing".to_owned(),
            "hardlink" | "symlink" if entry.source.is_empty() => {
                format!("{kind} {}: source is missing", entry.path)
            }
            _ => match entry.permissions.filter(|mode| *mode > 0o7777) {
                Some(mode) => format!(
                    "{kind} {}: permissions {mode:#o} have too many bits",
                    entry.path
                ),
                None => continue,
            },
        };
        return wrong("paths", place, message);
    }
    for file in &config.x_build.files {
        let place = &file.place;
        let list = "x-build.files";
        if let Some(message) = path_problem(&file.path) {
            return wrong(list, place, message);
        }
        let message = match (file.source.is_empty(), &file.content) {
            (true, None) => format!("{}: neither source nor content", file.path),
            (false, Some(_)) => format!("{}: both source and content", file.path),
            _ => match file.mode.filter(|mode| *mode > 0o7777) {
                Some(mode) => format!("{}: mode {mode:#o} has too many bits", file.path),
                None => continue,
            },
        };
        return wrong(list, place, message);
    }
    Ok(())
}

/// Returns whether a name may become a file name: `[A-Za-z0-9_-][A-Za-z0-9_.-]*`.
fn is_file_name(name: &str) -> bool {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-');
    !name.is_empty() && !name.starts_with('.') && name.bytes().all(allowed)
}

/// Returns the PEM blocks of a text: label and bytes.
fn pem_blocks(text: &str) -> Result<Vec<(String, Vec<u8>)>, String> {
    let mut blocks = Vec::new();
    let mut open: Option<(String, String)> = None;
    for line in text.lines().map(str::trim) {
        let between = |begin: &str| line.strip_prefix(begin)?.strip_suffix("-----");
        if let Some(label) = between("-----BEGIN ") {
            open = Some((label.to_owned(), String::new()));
        } else if let Some(end) = between("-----END ") {
            let (label, body) = open.take().ok_or("an end without a beginning")?;
            if label != end {
                return Err(format!("{label} ends as {end}"));
            }
            let bytes = data_encoding::BASE64.decode(body.as_bytes());
            blocks.push((
                label,
                bytes.map_err(|error| format!("bad base64: {error}"))?,
            ));
        } else if let Some((_, body)) = &mut open {
            body.push_str(line);
        }
    }
    match open {
        Some((label, _)) => Err(format!("{label} does not end")),
        None => Ok(blocks),
    }
}

/// Writes a PEM block.
fn pem(label: &str, bytes: &[u8]) -> String {
    let body = data_encoding::BASE64.encode(bytes);
    let mut text = format!("-----BEGIN {label}-----\n");
    for line in body.as_bytes().chunks(64) {
        text.extend(line.iter().map(|byte| char::from(*byte)));
        text.push('\n');
    }
    text.push_str(&format!("-----END {label}-----\n"));
    text
}

fn certificates(config: &ImageConfig) -> Result<(), ConfigError> {
    let Some(certificates) = &config.certificates else {
        return Ok(());
    };
    for certificate in &certificates.additional {
        let wrong = |message: String| {
            Err(ConfigError::Certificate {
                place: certificate.place.clone(),
                message,
            })
        };
        let name = &certificate.name;
        if !is_file_name(name) {
            return wrong(format!(
                "name \"{name}\" must match [A-Za-z0-9_-][A-Za-z0-9_.-]*"
            ));
        }
        let blocks = match pem_blocks(&certificate.content) {
            Ok(blocks) => blocks,
            Err(cause) => return wrong(format!("\"{name}\" is no PEM: {cause}")),
        };
        match blocks.as_slice() {
            [(label, bytes)] if label == "CERTIFICATE" && is_der_sequence(bytes) => {}
            [(label, _)] if label == "CERTIFICATE" => {
                return wrong(format!("\"{name}\" holds no certificate: bad DER"));
            }
            [(label, _)] => return wrong(format!("\"{name}\" holds a {label}, not a CERTIFICATE")),
            blocks => {
                return wrong(format!(
                    "\"{name}\" holds {} PEM blocks, not one certificate",
                    blocks.len()
                ));
            }
        }
    }
    Ok(())
}

/// Returns whether bytes are exactly one DER sequence, as every certificate is.
fn is_der_sequence(bytes: &[u8]) -> bool {
    let [0x30, first, rest @ ..] = bytes else {
        return false;
    };
    let count = usize::from(first & 0x7f);
    match first & 0x80 {
        0 => count == rest.len(),
        _ if count == 0 || count > 4 || rest.len() < count => false,
        _ => {
            let (length, body) = rest.split_at(count);
            let length = length
                .iter()
                .fold(0, |all, byte| all << 8 | usize::from(*byte));
            length == body.len()
        }
    }
}

/// Checks the keys for the image, and leaves only the key itself in each (IMG-031).
fn runtime_keys(config: &mut ImageConfig) -> Result<(), ConfigError> {
    let mut names = BTreeMap::new();
    for key in &mut config.contents.runtime_keyring {
        let wrong = |message: String| {
            Err(ConfigError::Keyring {
                message: format!("contents.runtime_keyring: {message}"),
            })
        };
        let name = key.name.clone();
        if !is_file_name(&name) {
            return wrong(format!(
                "name \"{name}\" must match [A-Za-z0-9_-][A-Za-z0-9_.-]*"
            ));
        }
        if names.insert(name.clone(), ()).is_some() {
            return wrong(format!("\"{name}\" is there twice"));
        }
        let blocks = match pem_blocks(&key.content) {
            Ok(blocks) => blocks,
            Err(cause) => return wrong(format!("\"{name}\" is no PEM: {cause}")),
        };
        match blocks.as_slice() {
            [(label, bytes)] if label == "PUBLIC KEY" => {
                if rsa::RsaPublicKey::from_public_key_der(bytes).is_err() {
                    return wrong(format!("\"{name}\" holds no RSA key"));
                }
                key.content = pem(label, bytes);
            }
            [(label, _)] => return wrong(format!("\"{name}\" holds a {label}, not a PUBLIC KEY")),
            blocks => {
                return wrong(format!(
                    "\"{name}\" holds {} PEM blocks, not one PUBLIC KEY",
                    blocks.len()
                ));
            }
        }
    }
    Ok(())
}

fn combinations(config: &ImageConfig) -> Result<(), ConfigError> {
    if config.format == "erofs" {
        return Err(combination(match config.layering {
            Some(_) => "format: erofs and layering exclude each other",
            None => "format: erofs is not supported; use tar",
        }));
    }
    if let Some(base) = &config.contents.baseimage {
        let only = ImageConfig {
            contents: config.contents.clone(),
            archs: config.archs.clone(),
            include: config.include.clone(),
            ..ImageConfig::default()
        };
        if base.image.is_empty() {
            return Err(combination("contents.baseimage: image is missing"));
        }
        if *config != only {
            return Err(combination(
                "with contents.baseimage only contents, archs and include can be set",
            ));
        }
    }
    super::compression_parts(&config.x_build.compression)
        .ok_or_else(|| combination("x-build.compression must be gzip, zstd or none, and :LEVEL"))?;
    if let Some(check) = &config.x_build.healthcheck {
        for (field, text) in [
            ("interval", &check.interval),
            ("timeout", &check.timeout),
            ("start-period", &check.start_period),
        ] {
            super::nanoseconds(text).ok_or_else(|| {
                combination(&format!(
                    "x-build.healthcheck.{field}: \"{text}\" is no time, as 30s"
                ))
            })?;
        }
    }
    Ok(())
}

fn world(config: &ImageConfig) -> Result<World, ConfigError> {
    config.world(&[])
}

impl ImageConfig {
    /// Returns the world: the packages of the description and `more`, sorted, without doubles;
    /// ranges are constraints now.
    ///
    /// # Errors
    /// [`ConfigError::Package`].
    pub fn world(&self, more: &[String]) -> Result<World, ConfigError> {
        let tags = self.repository_tags();
        let mut texts = Vec::new();
        for entry in self.contents.packages.iter().chain(more) {
            let text = entry.trim();
            let wrong = |message: String| ConfigError::Package {
                text: entry.clone(),
                message,
            };
            match range::split(text, &tags) {
                Some((name, range)) => {
                    let constraints = range::constraints(name, range);
                    texts.extend(constraints.map_err(|error| wrong(error.cause))?);
                }
                None => texts.push(text.to_owned()),
            }
        }
        texts.sort_unstable();
        texts.dedup();
        let mut world = World::default();
        for text in texts {
            let wrong = |message: &str| ConfigError::Package {
                text: text.clone(),
                message: message.to_owned(),
            };
            if text.is_empty() || text.contains([' ', '\n', '\t', '\0']) {
                return Err(wrong(
                    "is no constraint: NAME, NAME=1, NAME~1, NAME@TAG, !NAME",
                ));
            }
            let entry = Dependency::parse_world(&text);
            let entry = entry.map_err(|_| wrong("is no constraint"))?;
            if entry.name.is_empty() {
                return Err(wrong("has no name"));
            }
            if entry.broken {
                return Err(wrong("has a version that apk cannot read"));
            }
            world.entries.push(entry);
        }
        Ok(world)
    }
}

/// Returns what would go wrong, or what another program would not take.
///
/// `for_apko` names what apko rejects or does otherwise.
pub fn lint(config: &ImageConfig, for_apko: bool) -> Vec<Warning> {
    let mut found = Vec::new();
    let mut warn = |code, text: String| found.push(Warning::new(code, text));
    let contents = &config.contents;
    for name in &config.archs {
        if !matches!(name.as_str(), "host" | "all")
            && !architecture::Architecture::parse(name).known
        {
            let known = architecture::known_names();
            warn(
                "W-ARCH",
                format!("archs: \"{name}\" is not known ({known})"),
            );
        }
    }
    let lists = [
        ("build_repositories", &contents.build_repositories),
        ("repositories", &contents.repositories),
        ("runtime_repositories", &contents.runtime_repositories),
        ("keyring", &contents.keyring),
    ];
    for (list, entries) in lists {
        for (at, entry) in entries.iter().enumerate() {
            let public = super::without_credentials(entry);
            if public != *entry {
                warn(
                    "W-SECRET-URL",
                    format!("contents.{list}: {public} carries credentials"),
                );
            }
            if entries[..at].contains(entry) {
                warn(
                    "W-TWICE",
                    format!("contents.{list}: {public} is there twice"),
                );
            }
        }
    }
    if contents.build_repositories.is_empty() && contents.repositories.is_empty() {
        warn("W-NO-REPOSITORY", "no repository to build from".to_owned());
    }
    for (at, entry) in contents.packages.iter().enumerate() {
        if contents.packages[..at].contains(entry) {
            warn(
                "W-TWICE",
                format!("contents.packages: {entry} is there twice"),
            );
        }
    }
    let tags = config.repository_tags();
    if let Ok(world) = config.world(&[]) {
        for entry in &world.entries {
            if let Some(tag) = entry.tag.as_ref().filter(|tag| !tags.contains(tag)) {
                warn(
                    "W-NO-TAG",
                    format!("contents.packages: no repository has the tag @{tag} of {entry}"),
                );
            }
        }
    }
    if config.entrypoint.kind == "service-bundle" && config.entrypoint.services.is_empty() {
        warn(
            "W-NO-SERVICES",
            "a service bundle without services".to_owned(),
        );
    }
    if config.entrypoint == super::Entrypoint::default() && config.cmd.is_empty() {
        warn("W-NO-COMMAND", "neither entrypoint nor cmd".to_owned());
    }
    let run_as = config.accounts.run_as.split(':').next().unwrap_or_default();
    let known = config
        .accounts
        .users
        .iter()
        .any(|user| user.username == run_as);
    if !run_as.is_empty() && run_as.parse::<u32>().is_err() && !known && run_as != "root" {
        warn(
            "W-RUNAS-UNKNOWN",
            format!("accounts.run-as: no user \"{run_as}\" here; a package must add it"),
        );
    }
    if for_apko {
        if config.x_build != super::Extensions::default() {
            warn(
                "W-APKO",
                "x-build: apko does not know this field".to_owned(),
            );
        }
        for entry in &contents.packages {
            if range::split(entry, &tags).is_some() {
                warn(
                    "W-APKO",
                    format!("contents.packages: apko does not read the range {entry}"),
                );
            }
        }
        for path in &config.paths {
            let link = path.kind == "symlink";
            if path.permissions.is_none() && !link {
                let (at, line) = (path.place.index, path.place.line);
                warn(
                    "W-APKO",
                    format!("paths[{at}] (line {line}): apko takes absent permissions as mode 0"),
                );
            }
        }
    }
    found
}
