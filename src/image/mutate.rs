//! What the configuration adds to a tree beside packages: paths, files, keys, services
//! (image.md, 3.4, 3.7 and 3.11).

use super::error::ImageError;
use super::request::{FileSource, FileToAdd, NamedContent, PathKind, PathMutation, Service};
use super::{store::sha256_hex, tree_file};
use crate::package::glob;
use crate::root::{RelPath, Root, RootError, split};
use rustix::fs::FileType;
use std::collections::BTreeMap;
use std::path::Path;

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

/// Writes `/etc/os-release` of what a description says, where no package brings it.
pub(super) fn os_release(root: &Root, fields: &BTreeMap<String, String>) -> Result<(), RootError> {
    const PATH: &str = "etc/os-release";
    if fields.is_empty() || root.stat(PATH)?.is_some() {
        return Ok(());
    }
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    let mut text = String::new();
    for (name, value) in fields {
        let name = name.to_ascii_uppercase().replace('-', "_");
        // Whoever reads it may be a shell.
        let value = match value.chars().all(plain) {
            true => value.clone(),
            false => {
                let mut quoted = String::from('"');
                for c in value.chars().filter(|c| !c.is_control()) {
                    if matches!(c, '"' | '$' | '`' | '\\') {
                        quoted.push('\\');
                    }
                    quoted.push(c);
                }
                quoted + "\""
            }
        };
        text.push_str(&format!("{name}={value}\n"));
    }
    root.replace(PATH, text.as_bytes(), 0o644, false)
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
