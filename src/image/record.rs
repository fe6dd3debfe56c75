//! What a request led to, kept so that the same request need not be carried out again
//! (image.md, 18, P5).
//!
//! A record names the layers by digest and lists the tree; contents stay in the layers. It is
//! believed only if every layer is there and has its digest.

use super::error::ImageError;
use super::layer::{PackedSegment, Place};
use super::request::{AccountKind, BuildRequest, ChosenId, Compression, FileSource};
use super::store::{Store, copy_verified, sha256_hex, touch};
use super::{
    BuiltImage, Descriptor, Document, Layer, Platform, ScriptOutcome, ScriptResult, Warning, oci,
};
use crate::format::{installed, triggers};
use crate::plan::Source;
use crate::root::tree::{Content, EntryKind, Tree, TreeEntry};
use crate::root::{Root, split};
use rustix::fs::FileType;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

/// It changes with everything that makes other bytes of the same request.
const VERSION: u32 = 3;

/// Returns the key of a request: a digest of everything that decides.
pub(super) fn key(request: &BuildRequest) -> Result<String, ImageError> {
    let mut request = request.clone();
    for new in &mut request.packages {
        // The identity says what is in the file, wherever it is.
        if let Source::File(_) = new.source {
            new.source = Source::File(Default::default());
        }
    }
    for file in &mut request.files {
        if let FileSource::Local(path) = &file.source {
            let digest = super::mutate::digest_local(path).map_err(|error| ImageError::Path {
                place: file.place.clone(),
                reason: format!("{}: {}", path.display(), crate::root::cause(&error)),
            })?;
            file.source = FileSource::Inline(digest.into_bytes());
            file.path.push_str(" (local)");
        }
    }
    // The debugging text has every field by name, so that a new one cannot be forgotten here.
    let program = env!("CARGO_PKG_VERSION");
    Ok(sha256_hex(
        format!("{VERSION} {program} {request:?}").as_bytes(),
    ))
}

#[derive(Serialize, Deserialize)]
pub(super) struct Record {
    layers: Vec<LayerRecord>,
    config: String,
    manifest: String,
    installed: String,
    triggers: String,
    scripts: Vec<(String, String, u8, String)>,
    warnings: Vec<(String, String)>,
    tree: Vec<NodeRecord>,
}

#[derive(Serialize, Deserialize)]
struct LayerRecord {
    media_type: String,
    digest: String,
    size: u64,
    diff_id: String,
    uncompressed_size: u64,
    packages: Vec<String>,
}

/// One name: path, kind, mode, uid, gid, mtime, node, and what belongs to the kind.
#[derive(Serialize, Deserialize)]
struct NodeRecord {
    p: String,
    k: char,
    a: (u32, u32, u32, u64, u64),
    #[serde(default, skip_serializing_if = "String::is_empty")]
    t: String,
    /// Size, layer, segment, offset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    c: Option<(u64, usize, u64, u64)>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    x: BTreeMap<String, Vec<u8>>,
}

/// Keeps a record, with its own digest in front: one that was cut off is none.
fn keep(store: &Store, key: &str, record: &impl Serialize) -> Result<(), ImageError> {
    let text = serde_json::to_vec(record).expect("texts and numbers are always JSON");
    let mut bytes = sha256_hex(&text).into_bytes();
    bytes.push(b'\n');
    bytes.extend_from_slice(&text);
    store.keep_image(key, &bytes)
}

/// Returns a record that is whole.
fn kept<T: serde::de::DeserializeOwned>(store: &Store, key: &str) -> Option<T> {
    let bytes = store.image(key)?;
    let (digest, text) = bytes.split_at_checked(65)?;
    let whole = digest[..64] == *sha256_hex(text).as_bytes();
    serde_json::from_slice(text).ok().filter(|_| whole)
}

/// The key of the numbers of accounts that a request leads to.
fn ids_key(key: &str) -> String {
    sha256_hex(format!("ids {key}").as_bytes())
}

/// Keeps the numbers of accounts that a request led to.
pub(super) fn keep_ids(store: &Store, key: &str, ids: &[ChosenId]) -> Result<(), ImageError> {
    let rows = ids
        .iter()
        .map(|one| (one.kind == AccountKind::User, &one.name, one.id));
    keep(store, &ids_key(key), &rows.collect::<Vec<_>>())
}

/// Returns the numbers of accounts that a request led to before.
pub(super) fn known_ids(store: &Store, key: &str) -> Option<Vec<ChosenId>> {
    let rows: Vec<(bool, String, u32)> = kept(store, &ids_key(key))?;
    let ids = rows.into_iter().map(|(is_user, name, id)| ChosenId {
        kind: match is_user {
            true => AccountKind::User,
            false => AccountKind::Group,
        },
        name,
        id,
    });
    Some(ids.collect())
}

const RESULTS: [ScriptResult; 5] = [
    ScriptResult::BuiltIn,
    ScriptResult::Emulated,
    ScriptResult::Ran,
    ScriptResult::MessageOnly,
    ScriptResult::NotRun,
];

const WARNINGS: [&str; 9] = [
    "W-ACCOUNT-REPLACED",
    "W-JAVA-STORE",
    "W-NO-DB",
    "W-NO-GROUP",
    "W-NO-OSRELEASE",
    "W-NO-PASSWD",
    "W-RUNAS-UNKNOWN",
    "W-SCRIPT-FAILED",
    "W-SCRIPT-SKIPPED",
];

impl Record {
    /// Keeps a finished image.
    pub(super) fn keep(
        store: &Store,
        key: &str,
        image: &BuiltImage,
        tree: &Tree,
        places: &HashMap<u64, Place>,
    ) -> Result<(), ImageError> {
        let text = |document: &Document| String::from_utf8_lossy(&document.bytes).into_owned();
        let Ok(database) = installed::write(&image.installed) else {
            return Ok(());
        };
        let record = Self {
            layers: image.layers.iter().map(LayerRecord::new).collect(),
            config: text(&image.config),
            manifest: text(&image.manifest),
            installed: String::from_utf8_lossy(&database).into_owned(),
            triggers: String::from_utf8_lossy(&triggers::write(&image.installed)).into_owned(),
            scripts: image
                .scripts
                .iter()
                .map(|outcome| {
                    let at = RESULTS.iter().position(|result| *result == outcome.result);
                    let result = at.unwrap_or(0) as u8;
                    let (package, script) = (outcome.package.clone(), outcome.script.clone());
                    (package, script, result, outcome.detail.clone())
                })
                .collect(),
            warnings: image
                .warnings
                .iter()
                .map(|warning| (warning.code.to_owned(), warning.text.clone()))
                .collect(),
            tree: tree
                .entries()
                .into_iter()
                .map(|entry| NodeRecord::new(entry, places))
                .collect(),
        };
        keep(store, key, &record)
    }

    /// Returns the image that a request led to, if all of it is still there.
    pub(super) fn load(store: &Store, key: &str, request: &BuildRequest) -> Option<BuiltImage> {
        let record: Self = kept(store, key)?;
        let mut layers = Vec::new();
        for layer in record.layers {
            let hex = layer.digest.strip_prefix("sha256:")?;
            let path = store.blob_path(hex);
            if !copy_verified(&path, &mut std::io::sink(), hex).unwrap_or(false) {
                return None;
            }
            touch(&path);
            layers.push(Layer {
                descriptor: Descriptor {
                    media_type: layer.media_type,
                    digest: layer.digest.clone(),
                    size: layer.size,
                },
                diff_id: layer.diff_id,
                uncompressed_size: layer.uncompressed_size,
                path,
                packages: layer.packages,
            });
        }
        let tree = Tree::new(request.build_time);
        let root = Root::of_tree(&tree);
        restore(&root, &tree, record.tree, &layers, request.compression)?;
        let mut db = installed::parse(record.installed.as_bytes(), false).ok()?;
        triggers::read(&mut db, record.triggers.as_bytes());
        let scripts = record
            .scripts
            .into_iter()
            .map(|(package, script, result, detail)| {
                Some(ScriptOutcome {
                    package,
                    script,
                    result: *RESULTS.get(usize::from(result))?,
                    detail,
                })
            });
        let warnings = record.warnings.into_iter().map(|(code, text)| {
            let code = WARNINGS.iter().find(|known| **known == code)?;
            Some(Warning { code, text })
        });
        Some(BuiltImage {
            architecture: request.architecture.clone(),
            platform: Platform::of_apk(&request.architecture),
            layers,
            config: oci::known_document(oci::CONFIG, record.config.into_bytes()),
            manifest: oci::known_document(oci::MANIFEST, record.manifest.into_bytes()),
            build_time: request.build_time,
            installed: db,
            scripts: scripts.collect::<Option<_>>()?,
            warnings: warnings.collect::<Option<_>>()?,
            root,
        })
    }
}

impl LayerRecord {
    fn new(layer: &Layer) -> Self {
        Self {
            media_type: layer.descriptor.media_type.clone(),
            digest: layer.descriptor.digest.clone(),
            size: layer.descriptor.size,
            diff_id: layer.diff_id.clone(),
            uncompressed_size: layer.uncompressed_size,
            packages: layer.packages.clone(),
        }
    }
}

impl NodeRecord {
    fn new(entry: TreeEntry, places: &HashMap<u64, Place>) -> Self {
        let (mut target, mut content) = (String::new(), None);
        let kind = match entry.kind {
            EntryKind::Directory => 'd',
            EntryKind::File(file) => {
                content = places
                    .get(&entry.node)
                    .map(|place| (file.size(), place.layer, place.segment, place.offset));
                'f'
            }
            EntryKind::Symlink(text) => {
                target = text;
                'l'
            }
            EntryKind::Device(block, major, minor) => {
                target = format!("{major} {minor}");
                if block { 'b' } else { 'c' }
            }
            EntryKind::Fifo => 'p',
        };
        Self {
            p: entry.path,
            k: kind,
            a: (entry.mode, entry.uid, entry.gid, entry.mtime, entry.node),
            t: target,
            c: content,
            x: entry.xattrs,
        }
    }
}

/// Makes the tree again, its contents in the layers.
fn restore(
    root: &Root,
    tree: &Tree,
    nodes: Vec<NodeRecord>,
    layers: &[Layer],
    compression: Compression,
) -> Option<()> {
    let mut segments: HashMap<(usize, u64), Arc<PackedSegment>> = HashMap::new();
    let mut first: HashMap<u64, String> = HashMap::new();
    for node in nodes {
        let (mode, uid, gid, mtime, number) = node.a;
        let (parent, name) = split(&node.p);
        let directory = root.directory(parent).ok()?;
        if let Some(known) = first.get(&number) {
            let (from, old) = root.parent(known).ok()?;
            directory.create_hard_link(&from, old, name).ok()?;
            continue;
        }
        match node.k {
            'd' => directory.create_directory(name, mode).ok()?,
            'f' => {
                let (size, layer, segment, offset) = node.c?;
                let path = layers.get(layer)?.path.clone();
                let source = segments
                    .entry((layer, segment))
                    .or_insert_with(|| Arc::new(PackedSegment::new(path, compression, segment)));
                let content = Content::Packed {
                    source: source.clone(),
                    offset,
                    size,
                };
                tree.put(&node.p, content, mode).ok()?;
                for (key, value) in &node.x {
                    tree.set_attribute(&node.p, key, value).ok()?;
                }
            }
            'l' => directory.create_symlink(&node.t, name).ok()?,
            kind => {
                let (major, minor) = match node.t.split_once(' ') {
                    Some((major, minor)) => (major.parse().ok()?, minor.parse().ok()?),
                    None => (0, 0),
                };
                let kind = match kind {
                    'b' => FileType::BlockDevice,
                    'c' => FileType::CharacterDevice,
                    'p' => FileType::Fifo,
                    _ => return None,
                };
                directory.create_node(name, kind, mode, major, minor).ok()?;
            }
        }
        if !matches!(node.k, 'd') {
            first.insert(number, node.p.clone());
        }
        directory.set_owner(name, uid, gid).ok()?;
        directory.set_time(name, mtime).ok()?;
    }
    Some(())
}
