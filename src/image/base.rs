//! An image to build on: its layers become the tree that packages are installed into, and what is
//! different afterwards becomes one more layer (image.md, 7.6 and 9.7).
//!
//! The layers below are taken as they are, byte for byte. What differs from them in nothing but the
//! time, and is of no package, is no difference. Names from the layers are resolved inside the tree
//! and never leave it.
//!
//! A layer is uncompressed once and kept by its digest and the one that the configuration gives; a later
//! build hashes and lists it in one go and leaves contents where they are.

use super::error::ImageError;
use super::read::{self, Outline, ReadError, RowKind};
use super::store::Store;
use super::{Descriptor, Layer};
use crate::format::installed;
use crate::package::InstalledDb;
use crate::root::tree::{Content, EntryKind, Packed, Tree, TreeEntry};
use crate::root::{RelPath, Root, split};
use crate::transaction::DatabaseText;
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufWriter, Read};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Bytes of a file that are moved at once.
const PIECE: usize = 1 << 20;

/// The layers of the image, and all it is made of, may not be larger than this together.
const LARGEST: u64 = 64 << 30;

/// Content up to this size is read as a whole, from where it is; more is moved piece by piece.
const LARGEST_WHOLE: u64 = 16 << 20;

/// An image to build on.
#[derive(Clone, Debug)]
pub struct BaseImage {
    /// The layout that holds it.
    pub layout: PathBuf,
    /// What its configuration says.
    pub config: Value,
    /// Annotations of its manifest.
    pub annotations: BTreeMap<String, String>,
    /// What is installed in it.
    pub installed: InstalledDb,
    /// From bottom to top.
    layers: Arc<[BaseLayer]>,
}

/// A layer of an image to build on.
#[derive(Debug)]
struct BaseLayer {
    descriptor: Descriptor,
    diff_id: String,
    /// Bytes without compression.
    size: u64,
    entries: Vec<read::Entry>,
    plain: Arc<Plain>,
}

/// A layer without compression.
#[derive(Debug)]
struct Plain(File);

impl Packed for Plain {
    fn unpack(&self, offset: u64, size: u64) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; usize::try_from(size).map_err(io::Error::other)?];
        self.0.read_exact_at(&mut bytes, offset)?;
        Ok(bytes)
    }
}

impl BaseImage {
    /// Reads the layers of an image, and checks each against its digests.
    ///
    /// # Errors
    /// Why it cannot be read.
    pub fn read(layout: &Path, outline: Outline, store: &Store) -> Result<Self, ReadError> {
        let diff_ids = outline.config["rootfs"]["diff_ids"].as_array();
        let diff_ids = diff_ids.map(Vec::as_slice).unwrap_or_default();
        if diff_ids.len() != outline.layers.len() {
            return Err(ReadError::new(format!(
                "its configuration names {} layers, its manifest {}",
                diff_ids.len(),
                outline.layers.len()
            )));
        }
        let mut layers = Vec::new();
        let mut left = LARGEST;
        for (layer, diff_id) in outline.layers.into_iter().zip(diff_ids) {
            let diff_id = diff_id.as_str().unwrap_or_default();
            let layer = BaseLayer::read(layout, layer, diff_id, left, store)?;
            left = left.saturating_sub(layer.size);
            layers.push(layer);
        }
        let mut image = Self {
            layout: layout.to_owned(),
            config: outline.config,
            annotations: outline.annotations,
            installed: InstalledDb::default(),
            layers: layers.into(),
        };
        for place in read::DATABASES {
            let text = image.file(place).unwrap_or_default();
            if let Ok(found) = installed::parse(&text, true)
                && !found.packages.is_empty()
            {
                image.installed = found;
                break;
            }
        }
        Ok(image)
    }

    /// Returns whether the layers together show something at a path.
    pub fn has(&self, path: &str) -> bool {
        self.find(path).is_some()
    }

    /// Returns the content of a file; `None` if there is none, or one that is read piece by piece
    /// only.
    pub fn file(&self, path: &str) -> Option<Vec<u8>> {
        let (layer, entry) = self.find(path)?;
        let small = entry.kind == RowKind::File && entry.size <= 8 * LARGEST_WHOLE;
        small.then(|| layer.plain.unpack(entry.offset, entry.size).ok())?
    }

    /// Returns the package that has a path.
    pub fn owner(&self, path: &str) -> Option<&str> {
        let (folder, name) = split(path);
        let has = |package: &&crate::package::InstalledPackage| {
            let mut folders = package.directories.iter().filter(|one| one.path == folder);
            folders.any(|one| one.files.iter().any(|file| file.name == name))
        };
        let package = self.installed.packages.iter().find(has)?;
        Some(&package.package.name)
    }

    /// Finds what the layers together show at a path.
    fn find(&self, path: &str) -> Option<(&BaseLayer, &read::Entry)> {
        let is_at_or_above = |other: &str| {
            let rest = path.strip_prefix(other);
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        for layer in self.layers.iter().rev() {
            let last = layer.entries.iter().rev().find(|one| one.path == path);
            if let Some(entry) = last {
                return Some((layer, entry));
            }
            let hides = |entry: &read::Entry| {
                let (folder, name) = split(&entry.path);
                match name.strip_prefix(".wh.") {
                    Some(".wh..opq") => folder.is_empty() || is_at_or_above(folder),
                    Some(hidden) if folder.is_empty() => is_at_or_above(hidden),
                    Some(hidden) => is_at_or_above(&format!("{folder}/{hidden}")),
                    None => entry.kind != RowKind::Directory && is_at_or_above(&entry.path),
                }
            };
            if layer.entries.iter().any(hides) {
                return None;
            }
        }
        None
    }
}

impl BaseLayer {
    fn read(
        layout: &Path,
        layer: read::ReadLayer,
        diff_id: &str,
        most: u64,
        store: &Store,
    ) -> Result<Self, ReadError> {
        let own = read::hexadecimal(&layer.digest)?;
        let hex = read::hexadecimal(diff_id)?;
        let wrong = |found: &str| ReadError::not_its_name(&layer.digest, hex, found.to_owned());
        // A layer that is not compressed is what it is kept as.
        let stored = layout.join("blobs/sha256").join(hex);
        let is_plain = layer.digest == diff_id && stored.is_file();
        let path = match is_plain {
            true => stored,
            // By both: only what was made from this very layer is taken for it.
            false => store.plain_path(own, hex),
        };
        let mut known = None;
        if let Ok(file) = File::open(&path) {
            // What is damaged is made again.
            let listed = read::entries(&file).ok();
            known = listed
                .filter(|(_, _, found)| found == hex)
                .map(|listed| (file, listed));
        }
        let (file, (entries, size, _)) = match known {
            Some(known) => {
                if !is_plain {
                    super::store::touch(&path);
                }
                known
            }
            None => {
                let failed = |error: ImageError| ReadError::new(error.to_string());
                let mut out = BufWriter::with_capacity(PIECE, store.temporary().map_err(failed)?);
                let size = read::uncompress(layout, &layer.digest, most + 1, &mut out)?;
                if size > most {
                    let cause = format!("its layers are larger than {LARGEST} bytes");
                    return Err(ReadError::new(cause));
                }
                let temporary = out.into_inner().map_err(io::IntoInnerError::into_error)?;
                let file = temporary.reopen()?;
                let listed = read::entries(&file)?;
                if listed.2 != hex {
                    return Err(wrong(&listed.2));
                }
                store.keep(temporary, &path).map_err(failed)?;
                (file, listed)
            }
        };
        Ok(Self {
            descriptor: Descriptor {
                media_type: layer_type(&layer.media_type),
                digest: layer.digest,
                size: layer.size,
            },
            diff_id: diff_id.to_owned(),
            size,
            entries,
            plain: Arc::new(Plain(file)),
        })
    }
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
    check(&base.config).map_err(refuse)?;
    let keep_all = || {
        let keep = |layer: &BaseLayer| {
            let path = store.blob_path(layer.descriptor.hex());
            keep(&base.layout, &layer.descriptor, &path, store)?;
            Ok(Layer {
                path,
                descriptor: layer.descriptor.clone(),
                diff_id: layer.diff_id.clone(),
                uncompressed_size: layer.size,
                packages: Vec::new(),
            })
        };
        let kept: Result<Vec<Layer>, ImageError> = base.layers.iter().map(keep).collect();
        kept
    };
    // What is stored is hashed while the tree is made.
    let (applied, kept) = std::thread::scope(|scope| {
        let kept = scope.spawn(keep_all);
        let mut entries = (base.layers.iter())
            .flat_map(|layer| layer.entries.iter().map(move |entry| (layer, entry)));
        let applied = entries.try_for_each(|(layer, entry)| apply(entry, layer, tree, root));
        (applied, kept.join())
    });
    applied.map_err(refuse)?;
    let mut layers = kept.unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
    // Which layer brought which package is not told; the last one has the database of all.
    if let Some(last) = layers.last_mut() {
        let installed = base.installed.packages.iter();
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
        return Ok(base.installed.clone());
    }
    text.installed(true).map_err(|error| ImageError::Base {
        image: base.layout.display().to_string(),
        cause: format!("its package database: {}: {}", error.name, error.error),
    })
}

/// Puts a layer into the store, where the rest of the image finds it.
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
fn apply(entry: &read::Entry, layer: &BaseLayer, tree: &Tree, root: &Root) -> Result<(), String> {
    let path = &entry.path;
    let failed = |error: crate::root::RootError| format!("{path}: {}", error.cause());
    let system = |error: io::Error| format!("{path}: {}", crate::root::cause(&error));
    RelPath::new(path).map_err(|error| format!("{path:?}: {error}"))?;
    let (parent, name) = split(path);
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
    let is_directory = entry.kind == RowKind::Directory;
    let stays = is_directory && there.is_some_and(|there| there.is_dir());
    if there.is_some() && !stays {
        remove(root, parent, name).map_err(failed)?;
    }
    match entry.kind {
        RowKind::Directory if stays => {
            directory.set_mode(name, entry.mode).map_err(failed)?;
        }
        RowKind::Directory => {
            directory
                .create_directory(name, entry.mode)
                .map_err(failed)?;
        }
        RowKind::File => {
            let content = content(entry, layer, tree).map_err(system)?;
            let put = tree.put(path, content, entry.mode);
            put.map_err(|errno| format!("{path}: {errno}"))?;
        }
        RowKind::Symlink => directory
            .create_symlink(&entry.link, name)
            .map_err(failed)?,
        RowKind::HardLink => {
            let target = entry.link.trim_start_matches("./").trim_matches('/');
            RelPath::new(target).map_err(|error| format!("{target:?}: {error}"))?;
            let (from, old) = root.parent(target).map_err(failed)?;
            // Owner, mode and time are those of the file.
            return directory.create_hard_link(&from, old, name).map_err(failed);
        }
        RowKind::Special => {
            let (kind, major, minor) = entry.device;
            let node = directory.create_node(name, kind, entry.mode, major, minor);
            node.map_err(failed)?;
        }
    }
    for (key, value) in &entry.attributes {
        let set = tree.set_attribute(path, key, value);
        set.map_err(|errno| format!("{path}: {errno}"))?;
    }
    directory
        .set_owner(name, entry.uid, entry.gid)
        .map_err(failed)?;
    directory.set_time(name, entry.mtime).map_err(failed)
}

/// Returns where the content of a file is; large content is put into the tree's temporary file.
fn content(entry: &read::Entry, layer: &BaseLayer, tree: &Tree) -> io::Result<Content> {
    if entry.size <= LARGEST_WHOLE {
        return Ok(Content::Packed {
            source: layer.plain.clone(),
            offset: entry.offset,
            size: entry.size,
        });
    }
    let mut pieces = Vec::new();
    let mut done = 0;
    while done < entry.size {
        let count = (entry.size - done).min(PIECE as u64);
        let bytes = layer.plain.unpack(entry.offset + done, count)?;
        if let Content::Spooled(piece) = tree.spooled(&bytes)? {
            pieces.extend(piece);
        }
        done += count;
    }
    Ok(Content::Spooled(pieces))
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
