//! Certificate authorities of an image: what a description adds (image.md, 3.10), and what
//! `update-ca-certificates` would make of what is installed (image.md, 6.4).
//!
//! Only the form of certificates is read here. Whether one is to be trusted is decided by who put it
//! into the package or the description.

mod hash;
mod java;

use super::error::ImageError;
use super::request::{BuildRequest, Certificate};
use super::{Warning, store::sha256_hex, tree_file};
use crate::package::InstalledDb;
use crate::root::{Root, RootError, split};
use rustix::fs::FileType;
use std::collections::{BTreeMap, BTreeSet};

/// Where an administrator puts certificates.
const LOCAL: &str = "usr/local/share/ca-certificates";

/// Where the distribution's are, by the names in [`CHOSEN`].
const SHARED: &str = "usr/share/ca-certificates";

/// Which of the distribution's are trusted, a line each.
const CHOSEN: &str = "etc/ca-certificates.conf";

/// Where programs look.
const TRUSTED: &str = "etc/ssl/certs";

/// Programs that run after the bundle was made; one of them makes the links that are made here.
const HOOKS: &str = "etc/ca-certificates/update.d";
const KNOWN_HOOK: &str = "certhash";

/// Files that hold all trusted certificates, where they exist.
const BUNDLES: [&str; 3] = [
    BUNDLE,
    "var/lib/ecs/deps/execute-command/certs/tls-ca-bundle.pem",
    "kaniko/ssl/certs/ca-certificates.crt",
];
const BUNDLE: &str = "etc/ssl/certs/ca-certificates.crt";

/// The trust store of Java, where it exists.
const JAVA: &str = "etc/ssl/certs/java/cacerts";

/// A certificate that a description adds.
struct Added {
    alias: String,
    der: Vec<u8>,
    pem: Vec<u8>,
}

/// Adds certificates to the bundles of an image, and to its trust store of Java.
pub(super) fn add(
    root: &Root,
    request: &BuildRequest,
    installed: &InstalledDb,
    warnings: &mut Vec<Warning>,
) -> Result<(), ImageError> {
    let mut added = Vec::new();
    for certificate in &request.certificates {
        let (der, pem) = one(certificate)?;
        let path = format!("{LOCAL}/{}-{}.crt", certificate.name, sha256_hex(&der));
        root.replace(&path, &pem, 0o644, false)?;
        let alias = certificate.name.to_lowercase();
        added.push(Added { alias, der, pem });
    }
    added.extend(provided(root, request, installed)?);
    if added.is_empty() {
        return Ok(());
    }
    for bundle in BUNDLES {
        let Some(mut text) = content(root, bundle)? else {
            continue;
        };
        for certificate in &added {
            if !text.is_empty() && !text.ends_with(b"\n") {
                text.push(b'\n');
            }
            text.extend_from_slice(&certificate.pem);
            text.push(b'\n');
        }
        tree_file(root, bundle, &text, 0o644)?;
    }
    let Some(bytes) = content(root, JAVA)? else {
        return Ok(());
    };
    let Some(mut store) = java::Store::read(&bytes) else {
        warnings.push(Warning {
            code: "W-JAVA-STORE",
            text: format!(
                "/{JAVA} is no store of the form JKS with the password `changeit`; nothing was \
                 added to it"
            ),
        });
        return Ok(());
    };
    for certificate in added {
        store.add(certificate.alias, certificate.der, request.build_time);
    }
    Ok(tree_file(root, JAVA, &store.write(), 0o644)?)
}

/// Writes the digest of each bundle and store beside it.
pub(super) fn seal(root: &Root) -> Result<(), ImageError> {
    for path in BUNDLES.into_iter().chain([JAVA]) {
        let Some(bytes) = content(root, path)? else {
            continue;
        };
        let (folder, name) = split(path);
        let line = format!("{}  {name}\n", sha256_hex(&bytes));
        let path = format!("{folder}/.{name}.sha256");
        root.replace(&path, line.as_bytes(), 0o444, false)?;
    }
    Ok(())
}

/// Returns a regular file.
fn content(root: &Root, path: &str) -> Result<Option<Vec<u8>>, RootError> {
    let is_file = matches!(root.stat(path), Ok(Some(stat)) if stat.kind == FileType::RegularFile);
    match is_file {
        true => root.read(path),
        false => Ok(None),
    }
}

/// Returns the certificates of packages that provide one of the wanted names.
fn provided(
    root: &Root,
    request: &BuildRequest,
    installed: &InstalledDb,
) -> Result<Vec<Added>, ImageError> {
    let mut found = Vec::new();
    if request.certificate_providers.is_empty() {
        return Ok(found);
    }
    for package in &installed.packages {
        let provides = package.package.provides.iter().map(|entry| &entry.name);
        let mut names = provides.chain([&package.package.name]);
        if !names.any(|name| request.certificate_providers.contains(name)) {
            continue;
        }
        let directories = package.directories.iter();
        for directory in directories.filter(|directory| directory.path == LOCAL) {
            for file in &directory.files {
                let text = root.read(&format!("{LOCAL}/{}", file.name))?;
                let certificate = Certificate {
                    name: file.name.clone(),
                    pem: String::from_utf8_lossy(&text.unwrap_or_default()).into_owned(),
                };
                // Files that hold something else are not for us.
                if let Ok((der, pem)) = one(&certificate) {
                    let alias = format!("pkg-{}", sha256_hex(&der));
                    found.push(Added { alias, der, pem });
                }
            }
        }
    }
    Ok(found)
}

/// Checks that a text is exactly one PEM certificate; returns its bytes and the text to write.
fn one(certificate: &Certificate) -> Result<(Vec<u8>, Vec<u8>), ImageError> {
    let refuse = |reason: &str| ImageError::Certificate {
        name: certificate.name.clone(),
        reason: reason.to_owned(),
    };
    let name = certificate.name.as_str();
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
    if name.is_empty() || name.starts_with('.') || !name.chars().all(plain) {
        return Err(refuse("its name must be letters, digits, `_`, `-` and `.`"));
    }
    let text = certificate.pem.trim();
    let der = of_pem(text).map_err(refuse)?;
    Ok((der, format!("{text}\n").into_bytes()))
}

/// Returns the bytes of a text that is one PEM certificate and nothing else.
fn of_pem(text: &str) -> Result<Vec<u8>, &'static str> {
    const BEGIN: &str = "-----BEGIN CERTIFICATE-----";
    const END: &str = "-----END CERTIFICATE-----";
    if text.matches("-----BEGIN ").count() != 1 {
        return Err("its content must be exactly one certificate");
    }
    let body = text
        .trim()
        .strip_prefix(BEGIN)
        .and_then(|rest| rest.strip_suffix(END))
        .ok_or("its content is no PEM certificate")?;
    let digits: String = body.split_whitespace().collect();
    let der = data_encoding::BASE64
        .decode(digits.as_bytes())
        .map_err(|_| "its content is no base64")?;
    match hash::element(&der) {
        Some((hash::SEQUENCE, _, b"")) => Ok(der),
        Some((hash::SEQUENCE, ..)) => Err("its content is cut off, or something follows it"),
        _ => Err("its content is no certificate"),
    }
}

/// Does what `update-ca-certificates` does: the bundle of all trusted certificates, a link to each,
/// and links by the hash of its subject.
///
/// Returns why it cannot be done here, if so; nothing was changed then.
///
/// # Errors
/// [`RootError`].
pub(super) fn update(root: &Root) -> Result<Option<String>, RootError> {
    for hook in root.list(HOOKS)? {
        if hook != KNOWN_HOOK && !hook.to_string_lossy().starts_with('.') {
            let hook = hook.to_string_lossy();
            return Ok(Some(format!("`update-ca-certificates` would run {hook}")));
        }
    }
    let mut bundle = Vec::new();
    let mut links = BTreeMap::new();
    for path in trusted(root)? {
        // A name without a file is told by the real one, too, and passed over.
        let Some(text) = through(root, &path)? else {
            continue;
        };
        bundle.extend_from_slice(&text);
        let name = split(&path).1;
        let stem = name.strip_suffix(".crt").filter(|stem| !stem.is_empty());
        let stem = stem.unwrap_or(name);
        let stem = stem.replace([',', ' '], "_").replace(['(', ')'], "=");
        links.insert(format!("ca-cert-{stem}.pem"), (format!("/{path}"), text));
    }
    root.create_directories(TRUSTED)?;
    let directory = root.directory(TRUSTED)?;
    for name in directory.list()? {
        let Some(name) = name.to_str() else { continue };
        let is_link = directory
            .stat(name)?
            .is_some_and(|stat| stat.kind == FileType::Symlink);
        let ours = is_link && {
            let target = directory.read_link(name)?;
            let target = String::from_utf8_lossy(&target).into_owned();
            let below = |folder: &str| target.starts_with(&format!("/{folder}/"));
            below(SHARED) || below(LOCAL)
        };
        if ours || is_link && hash::is_link_name(name) {
            directory.remove_file(name)?;
        }
    }
    for (name, (target, _)) in &links {
        directory.remove_file(name)?;
        directory.create_symlink(target, name)?;
    }
    tree_file(root, BUNDLE, &bundle, 0o644)?;
    // Other files there with one certificate each have links by hash, too.
    let mut named: BTreeMap<String, Vec<u8>> = links
        .into_iter()
        .map(|(name, (_, text))| (name, text))
        .collect();
    for name in directory.list()? {
        let Some(name) = name.to_str() else { continue };
        let extension = name.rsplit_once('.').map_or("", |(_, end)| end);
        if named.contains_key(name) || !["pem", "crt", "cer"].contains(&extension) {
            continue;
        }
        if let Some(text) = through(root, &format!("{TRUSTED}/{name}"))? {
            named.insert(name.to_owned(), text);
        }
    }
    let mut taken: BTreeMap<u32, BTreeSet<String>> = BTreeMap::new();
    for (name, text) in named {
        let text = String::from_utf8_lossy(&text);
        let Ok(der) = of_pem(from_begin(&text)) else {
            continue;
        };
        let Some(hash) = hash::of_subject(&der) else {
            continue;
        };
        let known = taken.entry(hash).or_default();
        let number = known.len();
        // The same certificate needs no second link.
        if known.insert(sha256_hex(&der)) {
            directory.create_symlink(&name, &format!("{hash:08x}.{number}"))?;
        }
    }
    Ok(None)
}

/// Leaves out what stands before the certificate itself.
fn from_begin(text: &str) -> &str {
    let at = text.find("-----BEGIN ").unwrap_or(0);
    text[at..].trim_end()
}

/// Returns the paths of the certificates to trust, the distribution's first.
fn trusted(root: &Root) -> Result<Vec<String>, RootError> {
    let mut paths: Vec<String> = match root.read(CHOSEN)? {
        Some(text) => String::from_utf8_lossy(&text)
            .lines()
            .filter(|line| !line.is_empty() && !line.starts_with(['#', '!']))
            .map(|line| format!("{SHARED}/{line}"))
            .filter(|path| crate::root::RelPath::new(path).is_ok())
            .collect(),
        None => below(root, SHARED)?,
    };
    let mut local = Vec::new();
    for name in root.list(LOCAL)? {
        if let Some(name) = name.to_str().filter(|name| !name.starts_with('.')) {
            local.push(format!("{LOCAL}/{name}"));
        }
    }
    local.sort();
    paths.extend(local);
    Ok(paths)
}

/// Returns the certificates below a directory, sorted.
fn below(root: &Root, folder: &str) -> Result<Vec<String>, RootError> {
    let mut found = Vec::new();
    for name in root.list(folder)? {
        let Some(name) = name.to_str() else { continue };
        let path = format!("{folder}/{name}");
        let kind = root.stat(&path)?.map(|stat| stat.kind);
        if kind == Some(FileType::Directory) {
            found.extend(below(root, &path)?);
        } else if name.ends_with(".crt") {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

/// Returns the file that a path means, through links.
fn through(root: &Root, path: &str) -> Result<Option<Vec<u8>>, RootError> {
    let tree = root.tree().expect("an image is built in memory");
    match tree.real_path(path) {
        Some(real) => content(root, &real),
        None => Ok(None),
    }
}
