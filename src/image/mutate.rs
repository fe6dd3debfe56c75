//! What the configuration adds to a tree beside packages: paths, files, certificates, keys, services
//! (image.md, 3.4, 3.7, 3.10 and 3.11).

use super::error::ImageError;
use super::request::{
    BuildRequest, Certificate, FileSource, FileToAdd, NamedContent, PathKind, PathMutation, Service,
};
use super::{store::sha256_hex, tree_file};
use crate::package::{InstalledDb, glob};
use crate::root::{RelPath, Root, RootError, split};
use rustix::fs::FileType;
use std::path::Path;

const CERTIFICATES: &str = "usr/local/share/ca-certificates";

/// Files that hold all trusted certificates, where they exist.
const BUNDLES: [&str; 3] = [
    "etc/ssl/certs/ca-certificates.crt",
    "var/lib/ecs/deps/execute-command/certs/tls-ca-bundle.pem",
    "kaniko/ssl/certs/ca-certificates.crt",
];

/// Carries out the path mutations, in order.
pub(super) fn paths(root: &Root, paths: &[PathMutation]) -> Result<(), ImageError> {
    for mutation in paths {
        apply(root, mutation)?;
    }
    Ok(())
}

fn apply(root: &Root, mutation: &PathMutation) -> Result<(), ImageError> {
    let refuse = |reason: String| ImageError::Path {
        place: mutation.place.clone(),
        reason,
    };
    let path = mutation.path.as_str();
    let failed = |error: RootError| refuse(format!("/{path}: {}", error.cause()));
    RelPath::new(path).map_err(|error| refuse(format!("/{path}: {error}")))?;
    let (parent, name) = split(path);
    let parents = || root.create_directories(parent).map_err(failed);
    match &mutation.kind {
        PathKind::Directory => {
            root.create_directories(path).map_err(failed)?;
            root.forget_directories();
            root.directory(path).map_err(failed)?;
            set(root, path, mutation, Some(0o755)).map_err(failed)?;
        }
        PathKind::EmptyFile => {
            parents()?;
            tree_file(root, path, b"", 0o644).map_err(failed)?;
            set(root, path, mutation, Some(0o644)).map_err(failed)?;
        }
        PathKind::HardLink { source } => {
            parents()?;
            let source = source.trim_matches('/');
            let found = root.stat(source).map_err(failed)?;
            if !found.is_some_and(|stat| stat.kind == FileType::RegularFile) {
                let what = if found.is_some() {
                    "is no regular file"
                } else {
                    "is not there"
                };
                return Err(refuse(format!("hardlink /{path}: /{source} {what}")));
            }
            let (from, old) = root.parent(source).map_err(failed)?;
            let (directory, name) = root.parent(path).map_err(failed)?;
            directory.remove_file(name).map_err(failed)?;
            directory
                .create_hard_link(&from, old, name)
                .map_err(failed)?;
            set(root, path, mutation, None).map_err(failed)?;
        }
        PathKind::Symlink { source } => {
            parents()?;
            let directory = root.directory(parent).map_err(failed)?;
            if directory.stat(name).map_err(failed)?.is_some() {
                return Err(refuse(format!(
                    "symlink /{path}: something is already there"
                )));
            }
            directory.create_symlink(source, name).map_err(failed)?;
        }
        PathKind::Permissions => {
            if root.stat(path).map_err(failed)?.is_none() {
                return Err(refuse(format!("permissions /{path}: nothing is there")));
            }
            set(root, path, mutation, None).map_err(failed)?;
        }
    }
    if mutation.recursive && matches!(mutation.kind, PathKind::Directory | PathKind::Permissions) {
        below(root, path, mutation).map_err(failed)?;
    }
    Ok(())
}

/// Returns the owner to set: one that is given makes the other one 0.
fn owner(mutation: &PathMutation) -> Option<(u32, u32)> {
    let given = mutation.uid.is_some() || mutation.gid.is_some();
    given.then(|| (mutation.uid.unwrap_or(0), mutation.gid.unwrap_or(0)))
}

/// Gives a path its owner and mode; a link to something has them applied to what it leads to.
fn set(
    root: &Root,
    path: &str,
    mutation: &PathMutation,
    default: Option<u32>,
) -> Result<(), RootError> {
    let (directory, name) = root.parent(path)?;
    if let Some((uid, gid)) = owner(mutation) {
        directory.set_owner(name, uid, gid)?;
    }
    let is_link = directory
        .stat(name)?
        .is_some_and(|stat| stat.kind == FileType::Symlink);
    match mutation.mode.or(default) {
        Some(mode) if !is_link => directory.set_mode(name, mode),
        _ => Ok(()),
    }
}

fn below(root: &Root, path: &str, mutation: &PathMutation) -> Result<(), RootError> {
    let Ok(directory) = root.directory(path) else {
        return Ok(());
    };
    for name in directory.list()? {
        let Some(name) = name.to_str() else { continue };
        let Some(stat) = directory.stat(name)? else {
            continue;
        };
        if let Some((uid, gid)) = owner(mutation) {
            directory.set_owner(name, uid, gid)?;
        }
        if let Some(mode) = mutation.mode.filter(|_| stat.kind != FileType::Symlink) {
            directory.set_mode(name, mode)?;
        }
        if stat.is_dir() {
            below(root, &format!("{path}/{name}"), mutation)?;
        }
    }
    Ok(())
}

/// Adds the user's own files.
pub(super) fn files(root: &Root, files: &[FileToAdd]) -> Result<(), ImageError> {
    for file in files {
        let refuse = |reason: String| ImageError::Path {
            place: file.place.clone(),
            reason,
        };
        RelPath::new(&file.path).map_err(|error| refuse(format!("/{}: {error}", file.path)))?;
        match &file.source {
            FileSource::Inline(content) => add(root, file, &file.path, content, 0o644)?,
            FileSource::Local(source) => local(root, file, source, &file.path)?,
        }
    }
    Ok(())
}

/// Copies a file, or the files of a directory; links are copied as links, other things refused.
fn local(root: &Root, file: &FileToAdd, source: &Path, path: &str) -> Result<(), ImageError> {
    use std::os::unix::fs::PermissionsExt;
    let refuse = |reason: String| ImageError::Path {
        place: file.place.clone(),
        reason: format!("{}: {reason}", source.display()),
    };
    let failed = |error: std::io::Error| refuse(crate::root::cause(&error));
    let metadata = std::fs::symlink_metadata(source).map_err(failed)?;
    let kind = metadata.file_type();
    // What the file was given as may be a link itself; inside a directory links stay links.
    let given = matches!(&file.source, FileSource::Local(given) if given == source);
    if kind.is_symlink() && !given {
        let target = std::fs::read_link(source).map_err(failed)?;
        let target = target
            .to_str()
            .ok_or_else(|| refuse("its target is no text".into()))?;
        let (parent, name) = split(path);
        root.create_directories(parent)?;
        let directory = root.directory(parent)?;
        directory.remove_file(name)?;
        directory.create_symlink(target, name)?;
        return Ok(directory.set_owner(name, file.uid, file.gid)?);
    }
    let metadata = std::fs::metadata(source).map_err(failed)?;
    if metadata.is_file() {
        let content = std::fs::read(source).map_err(failed)?;
        // Only whether it can be executed is taken over: the rest is the builder's own mask.
        let mode = if metadata.permissions().mode() & 0o111 != 0 {
            0o755
        } else {
            0o644
        };
        return add(root, file, path, &content, mode);
    }
    if !metadata.is_dir() {
        return Err(refuse("it is neither a file nor a directory".into()));
    }
    root.create_directories(path)?;
    let mut names = Vec::new();
    for entry in std::fs::read_dir(source).map_err(failed)? {
        names.push(entry.map_err(failed)?.file_name());
    }
    names.sort();
    for name in names {
        let text = name
            .to_str()
            .ok_or_else(|| refuse("a name is no text".into()))?;
        local(root, file, &source.join(text), &format!("{path}/{text}"))?;
    }
    Ok(())
}

fn add(
    root: &Root,
    file: &FileToAdd,
    path: &str,
    content: &[u8],
    mode: u32,
) -> Result<(), ImageError> {
    let failed = |error: RootError| ImageError::Path {
        place: file.place.clone(),
        reason: format!("/{path}: {}", error.cause()),
    };
    root.replace(path, content, 0o644, false).map_err(failed)?;
    let (directory, name) = root.parent(path).map_err(failed)?;
    directory
        .set_owner(name, file.uid, file.gid)
        .map_err(failed)?;
    directory
        .set_mode(name, file.mode.unwrap_or(mode))
        .map_err(failed)
}

/// Writes public keys to `etc/apk/keys`.
pub(super) fn keys(root: &Root, keys: &[NamedContent], fresh: bool) -> Result<(), ImageError> {
    for key in keys {
        let refuse = |reason: &str| ImageError::Key {
            name: key.name.clone(),
            reason: reason.to_owned(),
        };
        if key.name.is_empty() || key.name.starts_with('.') || key.name.contains(['/', '\0']) {
            return Err(refuse("it is no plain file name"));
        }
        let path = format!("etc/apk/keys/{}", key.name);
        if fresh && root.stat(&path)?.is_some() {
            return Err(refuse("a key of this name is already there"));
        }
        root.replace(&path, &key.content, 0o644, false)?;
    }
    Ok(())
}

/// Writes the services of a service bundle.
pub(super) fn services(root: &Root, services: &[Service]) -> Result<(), ImageError> {
    for service in services {
        let refuse = |reason: String| ImageError::Path {
            place: format!("entrypoint.services.{}", service.name),
            reason,
        };
        let path = format!("sv/{}/run", service.name);
        RelPath::new(&path).map_err(|error| refuse(error.to_string()))?;
        let text = format!("#!/bin/execlineb\n{}\n", service.command);
        root.replace(&path, text.as_bytes(), 0o755, false)?;
    }
    Ok(())
}

/// Removes what a configuration leaves out; returns the paths, sorted.
pub(super) fn remove(root: &Root, patterns: &[String]) -> Result<Vec<String>, ImageError> {
    let Some(tree) = root.tree().filter(|_| !patterns.is_empty()) else {
        return Ok(Vec::new());
    };
    let options = glob::Options {
        pathname: true,
        ignore_case: false,
    };
    let matches = |path: &str| {
        let pattern = |pattern: &String| glob::matches(pattern.trim_matches('/'), path, options);
        patterns.iter().any(pattern)
    };
    let mut removed = Vec::new();
    let entries = tree.entries();
    // What is below a match goes with it; deeper names first, so that directories are empty.
    let mut inside: Option<&str> = None;
    for entry in &entries {
        let below = inside.is_some_and(|above| {
            entry
                .path
                .strip_prefix(above)
                .is_some_and(|rest| rest.starts_with('/'))
        });
        if below || matches(&entry.path) {
            if !below {
                inside = Some(&entry.path);
            }
            removed.push(entry.path.clone());
        }
    }
    for path in removed.iter().rev() {
        let (directory, name) = root.parent(path)?;
        if directory.has_directory(name) {
            directory.remove_directory(name);
        } else {
            directory.remove_file(name)?;
        }
        root.forget_directories();
    }
    Ok(removed)
}

/// Adds certificates to the bundles of an image (image.md, 3.10).
pub(super) fn certificates(
    root: &Root,
    request: &BuildRequest,
    installed: &InstalledDb,
) -> Result<(), ImageError> {
    let mut added: Vec<(String, Vec<u8>)> = Vec::new();
    for certificate in &request.certificates {
        let (der, pem) = one_certificate(certificate)?;
        let name = format!("{}-{}.crt", certificate.name, sha256_hex(&der));
        let path = format!("{CERTIFICATES}/{name}");
        root.replace(&path, &pem, 0o644, false)?;
        added.push((certificate.name.clone(), pem));
    }
    added.extend(provided(root, request, installed)?);
    for bundle in BUNDLES {
        let Some(mut text) = root.read(bundle)?.filter(|_| is_file(root, bundle)) else {
            continue;
        };
        if !added.is_empty() {
            for (_, pem) in &added {
                if !text.is_empty() && !text.ends_with(b"\n") {
                    text.push(b'\n');
                }
                text.extend_from_slice(pem);
                text.push(b'\n');
            }
            tree_file(root, bundle, &text, 0o644)?;
        }
        let (folder, name) = split(bundle);
        let line = format!("{}  {name}\n", sha256_hex(&text));
        let path = format!("{folder}/.{name}.sha256");
        root.replace(&path, line.as_bytes(), 0o444, false)?;
    }
    Ok(())
}

fn is_file(root: &Root, path: &str) -> bool {
    matches!(root.stat(path), Ok(Some(stat)) if stat.kind == FileType::RegularFile)
}

/// Returns the certificates of packages that provide one of the wanted names.
fn provided(
    root: &Root,
    request: &BuildRequest,
    installed: &InstalledDb,
) -> Result<Vec<(String, Vec<u8>)>, ImageError> {
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
        for directory in directories.filter(|directory| directory.path == CERTIFICATES) {
            for file in &directory.files {
                let path = format!("{CERTIFICATES}/{}", file.name);
                let pem = root.read(&path)?.unwrap_or_default();
                let certificate = Certificate {
                    name: file.name.clone(),
                    pem: String::from_utf8_lossy(&pem).into_owned(),
                };
                // Files that hold something else are not for us.
                if let Ok((_, pem)) = one_certificate(&certificate) {
                    found.push((file.name.clone(), pem));
                }
            }
        }
    }
    Ok(found)
}

/// Checks that a text is exactly one PEM certificate; returns its bytes and the text to write.
fn one_certificate(certificate: &Certificate) -> Result<(Vec<u8>, Vec<u8>), ImageError> {
    const BEGIN: &str = "-----BEGIN CERTIFICATE-----";
    const END: &str = "-----END CERTIFICATE-----";
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
    if text.matches("-----BEGIN ").count() != 1 {
        return Err(refuse("its content must be exactly one certificate"));
    }
    let body = text
        .strip_prefix(BEGIN)
        .and_then(|rest| rest.strip_suffix(END));
    let body = body.ok_or_else(|| refuse("its content is no PEM certificate"))?;
    let digits: String = body.split_whitespace().collect();
    let der = data_encoding::BASE64
        .decode(digits.as_bytes())
        .map_err(|_| refuse("its content is no base64"))?;
    // A certificate is one DER sequence and nothing behind it.
    let length = match der.get(..4) {
        Some(&[0x30, 0x82, high, low]) => 4 + (usize::from(high) << 8 | usize::from(low)),
        Some(&[0x30, 0x81, length, _]) => 3 + usize::from(length),
        _ => return Err(refuse("its content is no certificate")),
    };
    if length != der.len() {
        return Err(refuse("its content is cut off, or something follows it"));
    }
    Ok((der, format!("{text}\n").into_bytes()))
}

/// Returns a digest of everything that copying a file or directory takes over.
///
/// # Errors
/// What the system said.
pub(super) fn digest_local(path: &Path) -> std::io::Result<String> {
    use std::os::unix::ffi::OsStrExt;
    use std::os::unix::fs::PermissionsExt;
    let metadata = std::fs::metadata(path)?;
    if metadata.is_file() {
        let executable = metadata.permissions().mode() & 0o111 != 0;
        let digest = sha256_hex(&std::fs::read(path)?);
        return Ok(format!("file {executable} {digest}"));
    }
    let mut names = Vec::new();
    for entry in std::fs::read_dir(path)? {
        names.push(entry?.file_name());
    }
    names.sort();
    let mut text = String::from("directory");
    for name in names {
        let below = path.join(&name);
        let digest = match std::fs::read_link(&below) {
            Ok(target) => format!("link {}", sha256_hex(target.as_os_str().as_bytes())),
            Err(_) => digest_local(&below)?,
        };
        text.push_str(&format!(" {} {digest}", sha256_hex(name.as_bytes())));
    }
    Ok(format!("directory {}", sha256_hex(text.as_bytes())))
}
