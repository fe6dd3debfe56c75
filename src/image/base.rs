//! An image to build on: its layers become the tree that packages are installed into, and what is
//! different afterwards becomes one more layer (image.md, 7.6 and 9.7).
//!
//! The layers below are taken as they are, byte for byte. What differs from them in nothing but the
//! time, and is of no package, is no difference. Names from the layers are resolved inside the tree
//! and never leave it.

use super::error::ImageError;
use super::read::{self, ReadImage};
use super::store::Store;
use super::{Descriptor, Layer};
use crate::package::InstalledDb;
use crate::root::tree::{Content, EntryKind, Tree, TreeEntry};
use crate::root::{RelPath, Root, split};
use crate::transaction::DatabaseText;
use serde_json::Value;
use std::collections::BTreeMap;
use std::io::{self, Read};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Bytes of a file that are moved at once.
const PIECE: usize = 1 << 20;

/// The layers of the image, and all it is made of, may not be larger than this together.
const LARGEST: u64 = 64 << 30;

/// An image to build on.
#[derive(Clone, Debug)]
pub struct BaseImage {
    /// The layout that holds it.
    pub layout: PathBuf,
    /// What was read of it.
    pub image: Arc<ReadImage>,
}

/// What is below the new layer.
pub(super) struct Below {
    /// Every name.
    entries: Vec<TreeEntry>,
    /// From bottom to top.
    pub(super) layers: Vec<Layer>,
}

/// Checks that a configuration has the shape that what is added to it relies on; anybody may have
/// written it (OCI image specification, config.md).
fn check(config: &Value) -> Result<(), String> {
    let labels = &config["config"]["Labels"];
    let fits = |value: &Value, is_it: fn(&Value) -> bool| value.is_null() || is_it(value);
    let texts = |value: &Value| {
        let members = value.as_object();
        members.is_some_and(|members| members.values().all(Value::is_string))
    };
    let wrong = [
        (config.is_object(), "the whole", "an object"),
        (config["rootfs"].is_object(), "rootfs", "an object"),
        (
            fits(&config["config"], Value::is_object),
            "config",
            "an object",
        ),
        (fits(labels, texts), "config.Labels", "an object of texts"),
        (
            fits(&config["history"], Value::is_array),
            "history",
            "a list",
        ),
    ];
    match wrong.iter().find(|(fits, _, _)| !fits) {
        Some((_, what, wanted)) => Err(format!("in its configuration, {what} is not {wanted}")),
        None => Ok(()),
    }
}

/// Makes the tree of an image.
pub(super) fn unpack(
    base: &BaseImage,
    tree: &Tree,
    root: &Root,
    store: &Store,
) -> Result<Below, ImageError> {
    let refuse = |cause: String| ImageError::Base {
        image: base.layout.display().to_string(),
        cause,
    };
    check(&base.image.config).map_err(refuse)?;
    let diff_ids = base.image.config["rootfs"]["diff_ids"].as_array();
    let diff_ids = diff_ids.map(Vec::as_slice).unwrap_or_default();
    if diff_ids.len() != base.image.layers.len() {
        return Err(refuse(format!(
            "its configuration names {} layers, its manifest {}",
            diff_ids.len(),
            base.image.layers.len()
        )));
    }
    let mut layers: Vec<Layer> = Vec::new();
    let mut total = 0;
    for (read, diff_id) in base.image.layers.iter().zip(diff_ids) {
        let mut each = |entry: &mut read::Entry<'_>| apply(entry, tree, root);
        let size = read::layer(&base.layout, &read.digest, &mut each);
        let size = size.map_err(|error| refuse(error.to_string()))?;
        total += size;
        if total > LARGEST {
            return Err(ImageError::Limit {
                what: format!("bytes in the layers of {}", base.layout.display()),
                limit: LARGEST,
            });
        }
        let descriptor = Descriptor {
            media_type: layer_type(&read.media_type),
            digest: read.digest.clone(),
            size: read.size,
        };
        let path = store.blob_path(descriptor.hex());
        keep(&base.layout, &descriptor, &path, store)?;
        layers.push(Layer {
            path,
            descriptor,
            diff_id: diff_id.as_str().unwrap_or_default().to_owned(),
            uncompressed_size: size,
            packages: Vec::new(),
        });
    }
    // Which layer brought which package is not told; the last one has the database of all.
    if let Some(last) = layers.last_mut() {
        let installed = base.image.installed.packages.iter();
        last.packages = installed.map(|one| one.package.name.clone()).collect();
        last.packages.sort();
    }
    Ok(Below {
        entries: tree.entries(),
        layers,
    })
}

/// Reads the package database of a tree that was unpacked, and makes its directories where the
/// installer expects them.
pub(super) fn database(base: &BaseImage, root: &Root) -> Result<InstalledDb, ImageError> {
    const PLACE: &str = "lib/apk";
    const OTHER: &str = "usr/lib/apk";
    if root.stat(PLACE)?.is_none() && root.stat(&format!("{OTHER}/db/installed"))?.is_some() {
        root.create_directories("lib")?;
        root.directory("lib")?
            .create_symlink(&format!("../{OTHER}"), "apk")?;
    }
    for path in ["etc/apk/keys", "lib/apk/db", "lib/apk/exec"] {
        root.create_directories(path)?;
    }
    let text = DatabaseText::read(root, true)?;
    if text.installed.is_none() {
        // Given from outside: an image without a database gets one now.
        return Ok(base.image.installed.clone());
    }
    text.installed(true).map_err(|error| ImageError::Base {
        image: base.layout.display().to_string(),
        cause: format!("its package database: {}: {}", error.name, error.error),
    })
}

/// Copies a layer into the store, where the rest of the image finds it.
fn keep(layout: &Path, layer: &Descriptor, path: &Path, store: &Store) -> Result<(), ImageError> {
    let known = super::store::copy_verified(path, &mut io::sink(), layer.hex());
    if known.unwrap_or(false) {
        super::store::touch(path);
        return Ok(());
    }
    let mut file = store.temporary()?;
    read::copy_blob(layout, &layer.digest, &mut file).map_err(|error| ImageError::Base {
        image: layout.display().to_string(),
        cause: error.to_string(),
    })?;
    store.keep(file, path)
}

/// Returns OCI's name for a kind of layer that Docker named otherwise.
fn layer_type(media_type: &str) -> String {
    match media_type {
        "application/vnd.docker.image.rootfs.diff.tar.gzip" => {
            "application/vnd.oci.image.layer.v1.tar+gzip".to_owned()
        }
        "application/vnd.docker.image.rootfs.diff.tar" => {
            "application/vnd.oci.image.layer.v1.tar".to_owned()
        }
        other => other.to_owned(),
    }
}

/// Enters one entry of a layer into the tree.
fn apply(entry: &mut read::Entry<'_>, tree: &Tree, root: &Root) -> Result<(), String> {
    let path = entry.path.clone();
    let failed = |error: crate::root::RootError| format!("{path}: {}", error.cause());
    let system = |error: io::Error| format!("{path}: {}", crate::root::cause(&error));
    RelPath::new(&path).map_err(|error| format!("{path:?}: {error}"))?;
    let (parent, name) = split(&path);
    if let Some(hidden) = name.strip_prefix(".wh.") {
        match hidden {
            ".wh..opq" => {
                for name in root.list(parent).map_err(failed)? {
                    remove(root, parent, &name.to_string_lossy()).map_err(failed)?;
                }
            }
            hidden => remove(root, parent, hidden).map_err(failed)?,
        }
        return Ok(());
    }
    if !parent.is_empty() && root.stat(parent).map_err(failed)?.is_none() {
        root.create_directories(parent).map_err(failed)?;
    }
    let directory = root.directory(parent).map_err(failed)?;
    let there = directory.stat(name).map_err(failed)?;
    let is_directory = entry.kind == read::RowKind::Directory;
    let stays = is_directory && there.is_some_and(|there| there.is_dir());
    if there.is_some() && !stays {
        remove(root, parent, name).map_err(failed)?;
    }
    match entry.kind {
        read::RowKind::Directory if stays => {
            directory.set_mode(name, entry.mode).map_err(failed)?;
        }
        read::RowKind::Directory => {
            directory
                .create_directory(name, entry.mode)
                .map_err(failed)?;
        }
        read::RowKind::File => {
            let content = spool(entry.content, tree).map_err(system)?;
            let put = tree.put(&path, content, entry.mode);
            put.map_err(|errno| format!("{path}: {errno}"))?;
        }
        read::RowKind::Symlink => directory
            .create_symlink(&entry.link, name)
            .map_err(failed)?,
        read::RowKind::HardLink => {
            let target = entry.link.trim_start_matches("./").trim_matches('/');
            RelPath::new(target).map_err(|error| format!("{target:?}: {error}"))?;
            let (from, old) = root.parent(target).map_err(failed)?;
            // Owner, mode and time are those of the file.
            return directory.create_hard_link(&from, old, name).map_err(failed);
        }
        read::RowKind::Special => {
            let (kind, major, minor) = entry.device;
            let node = directory.create_node(name, kind, entry.mode, major, minor);
            node.map_err(failed)?;
        }
    }
    for (key, value) in &entry.attributes {
        let set = tree.set_attribute(&path, key, value);
        set.map_err(|errno| format!("{path}: {errno}"))?;
    }
    directory
        .set_owner(name, entry.uid, entry.gid)
        .map_err(failed)?;
    directory.set_time(name, entry.mtime).map_err(failed)
}

/// Puts what is read into the tree's temporary file.
fn spool(content: &mut dyn Read, tree: &Tree) -> io::Result<Content> {
    let mut pieces = Vec::new();
    let mut buffer = Vec::new();
    loop {
        buffer.clear();
        content.take(PIECE as u64).read_to_end(&mut buffer)?;
        if buffer.is_empty() {
            return Ok(Content::Spooled(pieces));
        }
        if let Content::Spooled(piece) = tree.spooled(&buffer)? {
            pieces.extend(piece);
        }
    }
}

/// Removes a name with everything below it; one that is not there is as good.
fn remove(root: &Root, parent: &str, name: &str) -> Result<(), crate::root::RootError> {
    if root.stat(parent)?.is_none() {
        return Ok(());
    }
    let directory = root.directory(parent)?;
    match directory.stat(name)? {
        None => return Ok(()),
        Some(found) if found.is_dir() => {
            let path = directory.join(name);
            for inner in root.list(&path)? {
                remove(root, &path, &inner.to_string_lossy())?;
            }
            directory.try_remove_directory(name)?;
        }
        Some(_) => directory.remove_file(name)?,
    }
    root.forget_directories();
    Ok(())
}

impl Below {
    /// Returns what is in the tree now and differs from what is below, and an empty file `.wh.NAME`
    /// for each name that is gone. `packaged` are the nodes that packages brought.
    pub(super) fn changes(&self, tree: &Tree, packaged: &Range<u64>) -> io::Result<Vec<TreeEntry>> {
        let mut before: BTreeMap<&str, &TreeEntry> = BTreeMap::new();
        for entry in &self.entries {
            before.insert(&entry.path, entry);
        }
        let mut changed = Vec::new();
        for entry in tree.entries() {
            let old = before.remove(entry.path.as_str());
            let same = match old {
                Some(old) => is_same(tree, old, &entry, packaged)?,
                None => false,
            };
            if !same {
                changed.push(entry);
            }
        }
        let mut gone: Option<&str> = None;
        for (path, old) in before {
            // What was in a directory goes with it.
            let below = gone.is_some_and(|gone| {
                path.strip_prefix(gone)
                    .is_some_and(|rest| rest.starts_with('/'))
            });
            // A directory that became something else hides what was in it, too.
            let hidden = changed.iter().any(|new| {
                let rest = path.strip_prefix(&new.path);
                !matches!(new.kind, EntryKind::Directory)
                    && rest.is_some_and(|rest| rest.starts_with('/'))
            });
            if below || hidden {
                continue;
            }
            gone = Some(path);
            let (parent, name) = split(path);
            let name = format!(".wh.{name}");
            changed.push(TreeEntry {
                path: match parent {
                    "" => name,
                    parent => format!("{parent}/{name}"),
                },
                kind: EntryKind::File(Content::Spooled(Vec::new())),
                mode: 0o644,
                uid: 0,
                gid: 0,
                mtime: 0,
                xattrs: BTreeMap::new(),
                node: u64::MAX - old.node,
                links: 1,
            });
        }
        changed.sort_by(|a, b| a.path.split('/').cmp(b.path.split('/')));
        Ok(changed)
    }
}

/// Returns whether an entry hides one below.
pub(super) fn is_whiteout(entry: &TreeEntry) -> bool {
    split(&entry.path).1.starts_with(".wh.")
}

fn is_same(
    tree: &Tree,
    old: &TreeEntry,
    new: &TreeEntry,
    packaged: &Range<u64>,
) -> io::Result<bool> {
    let attributes = |entry: &TreeEntry| (entry.mode, entry.uid, entry.gid);
    if attributes(old) != attributes(new) || old.xattrs != new.xattrs {
        return Ok(false);
    }
    let is_directory = matches!(new.kind, EntryKind::Directory);
    if old.mtime != new.mtime && packaged.contains(&new.node) && !is_directory {
        return Ok(false);
    }
    Ok(match (&old.kind, &new.kind) {
        (EntryKind::Directory, EntryKind::Directory) | (EntryKind::Fifo, EntryKind::Fifo) => true,
        (EntryKind::Symlink(old), EntryKind::Symlink(new)) => old == new,
        (EntryKind::Device(a, b, c), EntryKind::Device(d, e, f)) => (a, b, c) == (d, e, f),
        (EntryKind::File(a), EntryKind::File(b)) => {
            let untouched = old.node == new.node && a.size() == b.size();
            untouched || (a.size() == b.size() && same_content(tree, a, b)?)
        }
        _ => false,
    })
}

fn same_content(tree: &Tree, a: &Content, b: &Content) -> io::Result<bool> {
    let (mut a, mut b) = (tree.reader(a), tree.reader(b));
    let (mut left, mut right) = (Vec::new(), Vec::new());
    loop {
        left.clear();
        right.clear();
        (&mut a).take(PIECE as u64).read_to_end(&mut left)?;
        (&mut b).take(PIECE as u64).read_to_end(&mut right)?;
        if left != right {
            return Ok(false);
        }
        if left.is_empty() {
            return Ok(true);
        }
    }
}
