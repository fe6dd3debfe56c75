//! Layers: which entry is in which, and the bytes of each.
//!
//! A layer is a chain of segments: its directories, one segment for each package, and what belongs
//! to no package. A segment is compressed by itself — a gzip member or a Zstandard frame, which may
//! follow one another — and kept by the digest of its tar bytes, so that a package that did not
//! change is never compressed twice, whatever changes around it.
//!
//! Order and bytes depend on the tree and the packages alone, not on threads or on what was kept.

use super::archive::{Names, Pieces, What, Writer};
use super::base::{Below, is_whiteout};
use super::error::ImageError;
use super::request::{Compression, Layering};
use super::store::{Hashing, Store, TRAILER, touch};
use super::{Descriptor, Layer};
use crate::package::{InstalledDb, InstalledPackage};
use crate::root::tree::{EntryKind, Tree, TreeEntry};
use crate::root::{Root, split};
use flate2::GzBuilder;
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Seek, Write};
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use tempfile::NamedTempFile;

/// Layers that an image can have; engines accept no more.
const MOST_LAYERS: usize = 127;

/// The largest segment that is held in memory while it is made; there is one for each core.
const LARGEST_HELD: u64 = 4 << 20;

/// Where the content of an entry is in a finished layer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    /// Position of the layer.
    pub(super) layer: usize,
    /// Where the compressed segment begins in the blob.
    pub(super) segment: u64,
    /// Where the content begins in the segment's tar bytes.
    pub(super) offset: u64,
}

/// The layers of an image, and where each file's content is in them.
pub(super) struct Layers {
    pub(super) layers: Vec<Layer>,
    /// By the number of the node.
    pub(super) places: HashMap<u64, Place>,
}

/// The packages of a layer, by position, and the database that names only them.
type GroupWithDatabase = (Vec<usize>, Option<TreeEntry>);

/// What layers are made from.
pub(super) struct Source<'a> {
    pub(super) tree: &'a Tree,
    pub(super) root: &'a Root,
    pub(super) installed: &'a InstalledDb,
    /// Numbers of nodes that packages brought.
    pub(super) packaged: std::ops::Range<u64>,
    pub(super) layering: Layering,
    pub(super) compression: Compression,
    /// Later times are lowered to this.
    pub(super) latest: Option<u64>,
    /// Where the database is.
    pub(super) database: String,
    /// What the layer is put on; it has only what differs then, and only new packages.
    pub(super) below: Option<(&'a Below, &'a BTreeSet<String>)>,
}

/// A piece of a layer.
#[derive(Default)]
struct Segment<'a> {
    entries: Vec<(What<'a>, u64)>,
    /// It is kept for later builds.
    keep: bool,
    /// It ends the archive.
    last: bool,
}

/// A layer to be written.
struct Outline<'a> {
    segments: Vec<Segment<'a>>,
    packages: Vec<String>,
}

/// Makes the layers of a tree.
pub(super) fn make(source: &Source<'_>, store: &Store) -> Result<Layers, ImageError> {
    let entries = source.tree.entries();
    for entry in &entries {
        if split(&entry.path).1.starts_with(".wh.") {
            let path = entry.path.clone();
            return Err(ImageError::WhiteoutName { path });
        }
    }
    let entries = match source.below {
        None => entries,
        Some((below, _)) => {
            let changes = below.changes(source.tree, &source.packaged);
            changes.map_err(|error| ImageError::store(store.path(), &error))?
        }
    };
    let text = |path: &str| -> Result<String, ImageError> {
        let bytes = source.root.read(path)?.unwrap_or_default();
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    };
    let names = Names::new(&text("etc/passwd")?, &text("etc/group")?);
    let owners = owners(source, &entries);
    let partial = partial_databases(source, &entries, &owners)?;
    if entries.is_empty() && source.below.is_some() {
        return Ok(Layers {
            layers: Vec::new(),
            places: HashMap::new(),
        });
    }
    let outlines = outline(source, &entries, &owners, &partial);
    if outlines.len() > MOST_LAYERS {
        return Err(ImageError::Limit {
            what: "layers".to_owned(),
            limit: MOST_LAYERS as u64,
        });
    }
    let writing = Writing {
        source,
        names: &names,
        store,
    };
    let mut layers = Layers {
        layers: Vec::new(),
        places: HashMap::new(),
    };
    for (at, outline) in outlines.into_iter().enumerate() {
        layers
            .layers
            .push(writing.layer(at, outline, &mut layers.places)?);
    }
    Ok(layers)
}

/// Returns for each entry the installed package whose content it is, by position.
fn owners(source: &Source<'_>, entries: &[TreeEntry]) -> Vec<Option<usize>> {
    let mut by_path: HashMap<String, usize> = HashMap::new();
    for (at, package) in source.installed.packages.iter().enumerate() {
        for directory in package.directories.iter().filter(|d| !d.files.is_empty()) {
            let Some(real) = source.tree.real_path(&directory.path) else {
                continue;
            };
            for file in &directory.files {
                by_path.insert(crate::plan::files::join(&real, &file.name), at);
            }
        }
    }
    let mut owners: Vec<Option<usize>> = entries
        .iter()
        .map(|entry| {
            let packaged = source.packaged.contains(&entry.node);
            let is_directory = matches!(entry.kind, EntryKind::Directory);
            let owner = by_path.get(&entry.path).copied();
            owner.filter(|_| packaged && !is_directory)
        })
        .collect();
    // All names of a file are in one layer; where they are not of one package, in the last.
    let mut of_node: HashMap<u64, Option<usize>> = HashMap::new();
    let shared = |entry: &TreeEntry| entry.links > 1 && !matches!(entry.kind, EntryKind::Directory);
    for (entry, owner) in entries
        .iter()
        .zip(&owners)
        .filter(|(entry, _)| shared(entry))
    {
        of_node
            .entry(entry.node)
            .and_modify(|known| *known = known.filter(|_| *known == *owner))
            .or_insert(*owner);
    }
    for (entry, owner) in entries
        .iter()
        .zip(&mut owners)
        .filter(|(entry, _)| shared(entry))
    {
        *owner = of_node[&entry.node];
    }
    owners
}

/// Returns the packages of each layer but the last, by position (image.md, 7.2).
fn groups(installed: &InstalledDb, budget: usize) -> Vec<Vec<usize>> {
    let packages = &installed.packages;
    let origin = |package: &InstalledPackage| {
        let package = &package.package;
        package
            .origin
            .clone()
            .unwrap_or_else(|| package.name.clone())
    };
    let mut group: Vec<usize> = (0..packages.len()).collect();
    fn find(group: &mut [usize], mut at: usize) -> usize {
        while group[at] != at {
            group[at] = group[group[at]];
            at = group[at];
        }
        at
    }
    let mut first: BTreeMap<String, usize> = BTreeMap::new();
    let join = |group: &mut [usize], a: usize, b: usize| {
        let (a, b) = (find(group, a), find(group, b));
        // The smaller number leads, so that the order of joining does not matter.
        group[a.max(b)] = a.min(b);
    };
    for (at, package) in packages.iter().enumerate() {
        let known = *first.entry(origin(package)).or_insert(at);
        join(&mut group, known, at);
        for (other, present) in packages.iter().enumerate() {
            let replaced = package.package.replaces.iter().any(|entry| {
                let present = &present.package;
                entry.name == present.name && entry.accepts(&present.version, present.identity)
            });
            if replaced && other != at {
                join(&mut group, at, other);
            }
        }
    }
    let mut members: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    for at in 0..packages.len() {
        let leader = find(&mut group, at);
        members.entry(leader).or_default().push(at);
    }
    let mut groups: Vec<Vec<usize>> = members.into_values().collect();
    let name = |at: &usize| packages[*at].package.name.clone();
    let weight = |group: &Vec<usize>| -> u64 {
        group
            .iter()
            .map(|at| packages[*at].package.installed_size)
            .sum()
    };
    groups.sort_by_key(|group| {
        let greatest = group.iter().map(name).max();
        (std::cmp::Reverse(weight(group)), greatest)
    });
    if groups.len() > budget {
        let rest: Vec<usize> = groups.split_off(budget.saturating_sub(1)).concat();
        groups.push(rest);
    }
    for group in &mut groups {
        group.sort_by_key(name);
    }
    groups
}

/// The database of a layer of packages: only their records (image.md, 7.4).
fn partial_databases(
    source: &Source<'_>,
    entries: &[TreeEntry],
    owners: &[Option<usize>],
) -> Result<Vec<GroupWithDatabase>, ImageError> {
    let Layering::Origin { budget } = source.layering else {
        return Ok(Vec::new());
    };
    let template = entries.iter().find(|entry| entry.path == source.database);
    let mut layers = Vec::new();
    for group in groups(source.installed, budget) {
        // A group without files would be a layer with nothing but a database.
        if !owners.iter().flatten().any(|owner| group.contains(owner)) {
            continue;
        }
        let record = |at: &usize| source.installed.packages[*at].clone();
        let mut part = InstalledDb {
            packages: group.iter().map(record).collect(),
        };
        part.sort();
        let text = crate::format::installed::write(&part).map_err(|error| {
            ImageError::Install(crate::transaction::TransactionError::Database {
                cause: error.to_string(),
            })
        })?;
        let store = |error: io::Error| ImageError::store(source.root.path(), &error);
        let entry = match template {
            Some(entry) => Some(TreeEntry {
                kind: EntryKind::File(source.tree.spooled(&text).map_err(store)?),
                ..entry.clone()
            }),
            None => None,
        };
        layers.push((group, entry));
    }
    Ok(layers)
}

/// Decides what is in which layer, in which order.
fn outline<'a>(
    source: &Source<'_>,
    entries: &'a [TreeEntry],
    owners: &[Option<usize>],
    partial: &'a [GroupWithDatabase],
) -> Vec<Outline<'a>> {
    // What hides names below comes before everything else.
    let leads =
        |entry: &TreeEntry| matches!(entry.kind, EntryKind::Directory) || is_whiteout(entry);
    let time = |entry: &TreeEntry| match source.latest {
        Some(latest) => entry.mtime.min(latest),
        None => entry.mtime,
    };
    let by_path: HashMap<&str, &TreeEntry> = entries
        .iter()
        .map(|entry| (entry.path.as_str(), entry))
        .collect();
    let mut of_package: BTreeMap<Option<usize>, Vec<&TreeEntry>> = BTreeMap::new();
    for (entry, owner) in entries.iter().zip(owners) {
        if !leads(entry) {
            of_package.entry(*owner).or_default().push(entry);
        }
    }
    // The first name of a file is the file, the others are links to it.
    let named = |list: &[&'a TreeEntry]| {
        let mut first: HashMap<u64, &str> = HashMap::new();
        let entry = |entry: &&'a TreeEntry| {
            let what = match first.get(&entry.node) {
                Some(target) => What::Link(entry, target),
                None => What::Tree(entry),
            };
            if entry.links > 1 {
                first.entry(entry.node).or_insert(&entry.path);
            }
            (what, time(entry))
        };
        list.iter().map(entry).collect::<Vec<_>>()
    };
    let directories = entries.iter().filter(|entry| leads(entry));
    let directories: Vec<_> = directories
        .map(|entry| (What::Tree(entry), time(entry)))
        .collect();
    let name = |at: usize| source.installed.packages[at].package.name.clone();
    let package = |at: &usize| Segment {
        entries: of_package
            .get(&Some(*at))
            .map(|list| named(list))
            .unwrap_or_default(),
        keep: true,
        last: false,
    };
    let rest = of_package
        .get(&None)
        .map(|list| named(list))
        .unwrap_or_default();
    let last = Segment {
        entries: rest,
        keep: false,
        last: true,
    };
    let head = |entries| Segment {
        entries,
        ..Segment::default()
    };
    if source.layering == Layering::One {
        let mut all: Vec<usize> = (0..source.installed.packages.len()).collect();
        all.sort_by_key(|at| name(*at));
        let packages = all.iter().map(|at| name(*at));
        let new = |name: &String| source.below.is_none_or(|(_, new)| new.contains(name));
        let packages = packages.filter(new).collect();
        let mut segments = vec![head(directories)];
        segments.extend(
            all.iter()
                .map(package)
                .filter(|segment| !segment.entries.is_empty()),
        );
        segments.push(last);
        return vec![Outline { segments, packages }];
    }
    let mut outlines = Vec::new();
    for (group, database) in partial {
        let packages: Vec<Segment<'a>> = group.iter().map(package).collect();
        // A directory has the time of the first file that needs it, so that a layer depends on
        // its own packages only.
        let mut needed: BTreeMap<&str, u64> = BTreeMap::new();
        let files = packages.iter().flat_map(|segment| &segment.entries);
        let files = files.map(|(what, time)| match what {
            What::Tree(entry) | What::Link(entry, _) => (entry.path.as_str(), *time),
        });
        let database_file = database.as_ref().map(|entry| (entry.path.as_str(), 0));
        for (path, time) in files.chain(database_file) {
            let mut path = split(path).0;
            while !path.is_empty() {
                needed.entry(path).or_insert(time);
                path = split(path).0;
            }
        }
        let directories = entries.iter().filter(|entry| leads(entry));
        let directories = directories.filter_map(|entry| {
            let time = needed.get(entry.path.as_str())?;
            Some((What::Tree(by_path[entry.path.as_str()]), *time))
        });
        let mut segments = vec![head(directories.collect())];
        segments.extend(
            packages
                .into_iter()
                .filter(|segment| !segment.entries.is_empty()),
        );
        segments.push(Segment {
            entries: database
                .iter()
                .map(|entry| (What::Tree(entry), 0))
                .collect(),
            keep: false,
            last: true,
        });
        outlines.push(Outline {
            segments,
            packages: group.iter().map(|at| name(*at)).collect(),
        });
    }
    outlines.push(Outline {
        segments: vec![head(directories), last],
        packages: Vec::new(),
    });
    outlines
}

/// A segment that is compressed.
struct Packed {
    file: PackedFile,
    /// Compressed bytes.
    size: u64,
    /// Where contents begin in its tar bytes, by node.
    offsets: Vec<(u64, u64)>,
}

enum PackedFile {
    /// Kept in the store, with its digest behind it.
    Kept(PathBuf),
    /// The same, made by this build.
    New(PathBuf),
    /// Only for this layer.
    Passing(NamedTempFile),
}

/// What writing layers needs.
struct Writing<'a> {
    source: &'a Source<'a>,
    names: &'a Names,
    store: &'a Store,
}

impl Writing<'_> {
    fn layer(
        &self,
        at: usize,
        outline: Outline<'_>,
        places: &mut HashMap<u64, Place>,
    ) -> Result<Layer, ImageError> {
        let media_type = super::oci::layer_type(self.source.compression);
        // The whole is hashed while its parts are compressed.
        let (diff, packed) = self.in_parallel(&outline.segments)?;
        let (diff_id, uncompressed_size) = diff;
        let blob = self.store.temporary()?;
        let path = blob.path().to_owned();
        let failed = |error: io::Error| ImageError::store(&path, &error);
        let mut out = Hashing::new(BufWriter::with_capacity(256 << 10, blob));
        let mut position = 0;
        for (segment, packed) in outline.segments.iter().zip(packed) {
            let packed = match self.append(&packed, &mut out).map_err(failed)? {
                true => packed,
                // What was kept is damaged; nothing of it was written.
                false => {
                    let again = self.pack(segment, true, &mut Vec::new())?;
                    if !self.append(&again, &mut out).map_err(failed)? {
                        return Err(failed(io::ErrorKind::InvalidData.into()));
                    }
                    again
                }
            };
            for (node, offset) in packed.offsets {
                let place = Place {
                    layer: at,
                    segment: position,
                    offset,
                };
                places.insert(node, place);
            }
            position += packed.size;
        }
        let (file, hex, size) = out.finish();
        let file = file
            .into_inner()
            .map_err(|error| failed(error.into_error()))?;
        let path = self.store.blob_path(&hex);
        self.store.keep(file, &path)?;
        Ok(Layer {
            descriptor: Descriptor {
                media_type,
                digest: format!("sha256:{hex}"),
                size,
            },
            diff_id: format!("sha256:{diff_id}"),
            uncompressed_size,
            path,
            packages: outline.packages,
        })
    }

    /// Compresses every segment and hashes the whole archive, on as many threads as there are cores.
    fn in_parallel(
        &self,
        segments: &[Segment<'_>],
    ) -> Result<((String, u64), Vec<Packed>), ImageError> {
        let slots: Vec<Mutex<Option<Result<Packed, ImageError>>>> =
            segments.iter().map(|_| Mutex::new(None)).collect();
        let whole = Mutex::new(None);
        // The whole first, then the largest segments: what takes longest must not come last.
        let mut order: Vec<usize> = (0..segments.len()).collect();
        order.sort_by_key(|at| std::cmp::Reverse(segments[*at].weight()));
        let next = AtomicUsize::new(0);
        let work = || {
            let mut room = Vec::new();
            loop {
                let turn = next.fetch_add(1, Ordering::Relaxed);
                if turn == 0 {
                    let hashed = self.hash(segments);
                    *whole.lock().expect("no thread panics with it") = Some(hashed);
                    continue;
                }
                let Some(at) = order.get(turn - 1) else { break };
                let packed = self.pack(&segments[*at], false, &mut room);
                *slots[*at].lock().expect("no thread panics with it") = Some(packed);
            }
        };
        let threads = std::thread::available_parallelism()
            .map_or(1, usize::from)
            .min(16);
        if threads < 2 {
            work();
        } else {
            std::thread::scope(|scope| (0..threads).for_each(|_| drop(scope.spawn(work))));
        }
        let take = |slot: Mutex<Option<Result<Packed, ImageError>>>| {
            let packed = slot.into_inner().expect("all threads ended");
            packed.expect("every segment has its turn")
        };
        let packed: Result<Vec<Packed>, ImageError> = slots.into_iter().map(take).collect();
        let whole = whole.into_inner().expect("all threads ended");
        Ok((whole.expect("the whole has its turn")?, packed?))
    }

    fn spool_error(&self, error: &io::Error) -> ImageError {
        ImageError::store(self.store.path(), error)
    }

    /// Writes the tar bytes of a segment; returns where contents begin.
    fn tar<W: Write>(&self, segment: &Segment<'_>, out: W) -> io::Result<(W, Vec<(u64, u64)>)> {
        let mut writer = Writer::new(out, self.source.tree, self.names);
        let mut offsets = Vec::new();
        for (what, mtime) in &segment.entries {
            let offset = writer.entry(what, *mtime)?;
            if let What::Tree(entry) = what
                && matches!(entry.kind, EntryKind::File(_))
            {
                offsets.push((entry.node, offset));
            }
        }
        if segment.last {
            writer.end()?;
        }
        Ok((writer.into_inner(), offsets))
    }

    /// Hashes the archive without compression.
    fn hash(&self, segments: &[Segment<'_>]) -> Result<(String, u64), ImageError> {
        let mut out = Hashing::new(io::sink());
        for segment in segments {
            let written = self.tar(segment, out);
            (out, _) = written.map_err(|error| self.spool_error(&error))?;
        }
        let (_, hex, size) = out.finish();
        Ok((hex, size))
    }

    /// Writes the tar bytes of a segment, which may be held, in pieces that do not depend on that.
    fn feed<W: Write>(&self, segment: &Segment<'_>, held: Option<&[u8]>, out: W) -> io::Result<W> {
        let mut pieces = Pieces::new(out);
        match held {
            Some(bytes) => pieces.write_all(bytes)?,
            None => (pieces, _) = self.tar(segment, pieces)?,
        }
        pieces.finish()
    }

    /// Compresses a segment, or finds it compressed.
    ///
    /// `room` is memory to be used again by who does this several times.
    fn pack(
        &self,
        segment: &Segment<'_>,
        again: bool,
        room: &mut Vec<u8>,
    ) -> Result<Packed, ImageError> {
        let failed = |error: io::Error| self.spool_error(&error);
        // What is small is made once and looked at in memory.
        let (held, key, length, offsets) = if segment.weight() <= LARGEST_HELD {
            room.clear();
            let (_, offsets) = self.tar(segment, &mut *room).map_err(failed)?;
            let key = match segment.keep {
                true => super::store::sha256_hex(room),
                false => String::new(),
            };
            let length = room.len() as u64;
            (Some(room.as_slice()), key, length, offsets)
        } else {
            let hashing = Hashing::new(io::sink());
            let (out, offsets) = self.tar(segment, hashing).map_err(failed)?;
            let (_, key, length) = out.finish();
            (None, key, length, offsets)
        };
        let (name, path);
        if segment.keep {
            name = match self.source.compression {
                Compression::Gzip(level) => format!("gzip-{level}"),
                Compression::Zstd(level) => format!("zstd-{level}"),
                Compression::None => "tar".to_owned(),
            };
            path = self.store.segment_path(&name, &key);
            let known = std::fs::metadata(&path).ok().filter(|_| !again);
            if let Some(size) = known.and_then(|known| known.len().checked_sub(TRAILER)) {
                touch(&path);
                return Ok(Packed {
                    file: PackedFile::Kept(path),
                    size,
                    offsets,
                });
            }
        } else {
            path = PathBuf::new();
        }
        let file = self.store.temporary()?;
        let mut out = Hashing::new(BufWriter::with_capacity(128 << 10, file));
        match self.source.compression {
            Compression::Gzip(level) => {
                let builder = GzBuilder::new().mtime(0).operating_system(255);
                let encoder = builder.write(&mut out, flate2::Compression::new(level));
                let encoder = self.feed(segment, held, encoder).map_err(failed)?;
                encoder.finish().map_err(failed)?;
            }
            Compression::Zstd(level) => {
                let mut encoder =
                    zstd::stream::write::Encoder::new(&mut out, level).map_err(failed)?;
                encoder.include_checksum(false).map_err(failed)?;
                encoder.set_pledged_src_size(Some(length)).map_err(failed)?;
                let encoder = self.feed(segment, held, encoder).map_err(failed)?;
                encoder.finish().map_err(failed)?;
            }
            Compression::None => {
                self.feed(segment, held, &mut out).map_err(failed)?;
            }
        }
        let (file, hex, size) = out.finish();
        let mut file = file
            .into_inner()
            .map_err(|error| failed(error.into_error()))?;
        let file = if segment.keep && self.source.compression != Compression::None {
            let digest = data_encoding::HEXLOWER.decode(hex.as_bytes());
            let digest = digest.expect("it was encoded here");
            file.write_all(&digest).map_err(failed)?;
            self.store.keep(file, &path)?;
            PackedFile::New(path)
        } else {
            PackedFile::Passing(file)
        };
        Ok(Packed {
            file,
            size,
            offsets,
        })
    }

    /// Appends a compressed segment; returns `false`, and writes nothing, if it is damaged.
    fn append(&self, packed: &Packed, out: &mut impl Write) -> io::Result<bool> {
        match &packed.file {
            PackedFile::Passing(file) => {
                io::copy(&mut buffered(file.reopen()?), out)?;
            }
            PackedFile::New(path) => {
                let Ok(file) = File::open(path) else {
                    return Ok(false);
                };
                let copied = io::copy(&mut buffered(file.take(packed.size)), out)?;
                if copied != packed.size {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
            }
            PackedFile::Kept(path) => {
                let Ok(mut file) = File::open(path) else {
                    return Ok(false);
                };
                let mut hash = Sha256::new();
                let mut reader = buffered((&mut file).take(packed.size));
                io::copy(&mut reader, &mut hash)?;
                let mut trailer = Vec::new();
                file.read_to_end(&mut trailer)?;
                if hash.finalize().as_slice() != trailer {
                    return Ok(false);
                }
                file.rewind()?;
                io::copy(&mut buffered(file.take(packed.size)), out)?;
            }
        }
        Ok(true)
    }
}

/// Reads more at once than what copying asks for.
fn buffered<R: Read>(reader: R) -> BufReader<R> {
    BufReader::with_capacity(128 << 10, reader)
}

impl Segment<'_> {
    fn weight(&self) -> u64 {
        let size = |(what, _): &(What<'_>, u64)| match what {
            What::Tree(entry) => match &entry.kind {
                EntryKind::File(content) => content.size() + 512,
                _ => 512,
            },
            What::Link(..) => 512,
        };
        self.entries.iter().map(size).sum()
    }
}

/// A compressed segment of a finished layer.
pub(super) struct PackedSegment {
    path: PathBuf,
    compression: Compression,
    offset: u64,
    /// A reader that stands somewhere: what is asked for is mostly in order.
    open: Mutex<Option<(u64, Box<dyn Read + Send>)>>,
}

impl std::fmt::Debug for PackedSegment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} from {}", self.path.display(), self.offset)
    }
}

impl PackedSegment {
    pub(super) fn new(path: PathBuf, compression: Compression, offset: u64) -> Self {
        Self {
            path,
            compression,
            offset,
            open: Mutex::new(None),
        }
    }

    fn start(&self) -> io::Result<Box<dyn Read + Send>> {
        let mut file = File::open(&self.path)?;
        file.seek(io::SeekFrom::Start(self.offset))?;
        let file = BufReader::with_capacity(64 << 10, file);
        Ok(match self.compression {
            Compression::Gzip(_) => Box::new(flate2::bufread::GzDecoder::new(file)),
            Compression::Zstd(_) => {
                Box::new(zstd::stream::read::Decoder::with_buffer(file)?.single_frame())
            }
            Compression::None => Box::new(file),
        })
    }
}

impl crate::root::tree::Packed for PackedSegment {
    fn unpack(&self, offset: u64, size: u64) -> io::Result<Vec<u8>> {
        let mut open = self
            .open
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        let (at, mut reader) = match open.take() {
            Some((at, reader)) if at <= offset => (at, reader),
            _ => (0, self.start()?),
        };
        io::copy(&mut (&mut reader).take(offset - at), &mut io::sink())?;
        let mut bytes = Vec::new();
        (&mut reader).take(size).read_to_end(&mut bytes)?;
        if bytes.len() as u64 != size {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        *open = Some((offset + size, reader));
        Ok(bytes)
    }
}
