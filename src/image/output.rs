//! Writing an image where somebody else can use it (image.md, chapter 10).
//!
//! Everything is written beside its target and renamed: a failure leaves no part of an image under
//! its name. Blobs come from the store and are verified while they are copied.

use super::archive::{BLOCK, Names, Pieces, What, Writer, plain_directory, plain_header};
use super::error::ImageError;
use super::request::Compression;
use super::store::copy_verified;
use super::{BuiltImage, Descriptor, Document, oci, subordinate};
use crate::root::Root;
use crate::root::tree::{EntryKind, Tree, TreeEntry};
use flate2::GzBuilder;
use rustix::fs::FileType;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::Path;

const LAYOUT: &[u8] = br#"{"imageLayoutVersion":"1.0.0"}"#;

/// Whose habits an OCI layout or a docker archive follows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LayoutShape {
    /// `index.json` names the image index by its reference; configurations in a docker archive are
    /// called `HEX.json`.
    #[default]
    Named,
    /// `index.json` is the image index itself, as apko writes it; configurations in a docker archive
    /// are called `sha256:HEX`, and manifests and index come behind.
    Bare,
}

/// An image of one or more architectures, ready to be written.
#[derive(Clone, Copy, Debug)]
pub struct Bundle<'a> {
    /// One for each architecture.
    pub images: &'a [BuiltImage],
    /// What holds them together.
    pub index: &'a Document,
    /// The full reference, such as `registry/name:tag`.
    pub reference: &'a str,
}

/// A blob: its bytes, or where they are.
enum Blob<'a> {
    Bytes(&'a [u8]),
    File(&'a Path),
}

impl<'a> Bundle<'a> {
    /// Returns every blob once, by digest.
    fn blobs(&self) -> BTreeMap<&'a str, (&'a Descriptor, Blob<'a>)> {
        let mut blobs = BTreeMap::new();
        let mut document = |document: &'a Document| {
            let descriptor = &document.descriptor;
            blobs.insert(descriptor.hex(), (descriptor, Blob::Bytes(&document.bytes)));
        };
        document(self.index);
        for image in self.images {
            document(&image.manifest);
            document(&image.config);
        }
        for layer in self.images.iter().flat_map(|image| &image.layers) {
            let descriptor = &layer.descriptor;
            blobs.insert(descriptor.hex(), (descriptor, Blob::File(&layer.path)));
        }
        blobs
    }

    fn entry(&self, shape: LayoutShape) -> Vec<u8> {
        match shape {
            LayoutShape::Named => oci::named_index(&self.index.descriptor, self.reference).bytes,
            LayoutShape::Bare => self.index.bytes.clone(),
        }
    }

    /// Writes an OCI layout into a directory, which is made if it is missing.
    ///
    /// # Errors
    /// [`ImageError`]; `index.json` is as before then.
    pub fn oci_directory(&self, path: &Path, shape: LayoutShape) -> Result<(), ImageError> {
        let failed = |error: io::Error| ImageError::output(path, &error);
        let blobs = path.join("blobs/sha256");
        fs::create_dir_all(&blobs).map_err(failed)?;
        for (hex, (descriptor, blob)) in self.blobs() {
            let target = blobs.join(hex);
            let there = |target: &Path| copy_verified(target, &mut io::sink(), hex);
            let same = fs::metadata(&target).is_ok_and(|found| found.len() == descriptor.size);
            if same && there(&target).unwrap_or(false) {
                continue;
            }
            write_file(&target, |out| self.copy(&blob, hex, out))?;
        }
        write_file(&path.join("oci-layout"), |out| plain(out, LAYOUT))?;
        write_file(&path.join("index.json"), |out| {
            plain(out, &self.entry(shape))
        })
    }

    fn copy(&self, blob: &Blob<'_>, hex: &str, out: &mut dyn Write) -> Result<(), ImageError> {
        match blob {
            Blob::Bytes(bytes) => plain(out, bytes),
            Blob::File(path) => {
                let mut watched = Watched { out, failed: false };
                match copy_verified(path, &mut watched, hex) {
                    Ok(true) => Ok(()),
                    Ok(false) => {
                        let damaged = io::Error::new(io::ErrorKind::InvalidData, "it is damaged");
                        Err(ImageError::store(path, &damaged))
                    }
                    Err(error) if watched.failed => {
                        Err(ImageError::output(Path::new("the output"), &error))
                    }
                    Err(error) => Err(ImageError::store(path, &error)),
                }
            }
        }
    }

    /// Writes an OCI layout as a tar archive.
    ///
    /// # Errors
    /// [`ImageError`].
    pub fn oci_archive(&self, out: &mut dyn Write, shape: LayoutShape) -> Result<(), ImageError> {
        for directory in ["blobs", "blobs/sha256"] {
            plain(out, &plain_directory(directory))?;
        }
        for (hex, (descriptor, blob)) in self.blobs() {
            let name = format!("blobs/sha256/{hex}");
            self.archived(out, &name, descriptor.size, &blob, hex)?;
        }
        let entry = self.entry(shape);
        for (name, bytes) in [("index.json", entry.as_slice()), ("oci-layout", LAYOUT)] {
            self.archived(out, name, bytes.len() as u64, &Blob::Bytes(bytes), "")?;
        }
        plain(out, &[0; 2 * BLOCK])
    }

    fn archived(
        &self,
        out: &mut dyn Write,
        name: &str,
        size: u64,
        blob: &Blob<'_>,
        hex: &str,
    ) -> Result<(), ImageError> {
        plain(out, &plain_header(name, size))?;
        self.copy(blob, hex, out)?;
        plain(
            out,
            &[0; BLOCK][..(size.wrapping_neg() % BLOCK as u64) as usize],
        )
    }

    /// Writes what `docker load` and `podman load` read.
    ///
    /// With several architectures each image is tagged `REFERENCE-ARCHITECTURE`, and that of `host`
    /// (apk's name) has the plain reference, too.
    ///
    /// # Errors
    /// [`ImageError`].
    pub fn docker_archive(
        &self,
        out: &mut dyn Write,
        shape: LayoutShape,
        host: &str,
    ) -> Result<(), ImageError> {
        #[derive(serde::Serialize)]
        #[serde(rename_all = "PascalCase")]
        struct Item {
            config: String,
            repo_tags: Vec<String>,
            layers: Vec<String>,
        }
        let mut items = Vec::new();
        let mut written = BTreeSet::new();
        for image in self.images {
            let document = &image.config;
            let name = match shape {
                LayoutShape::Named => format!("{}.json", document.descriptor.hex()),
                LayoutShape::Bare => document.descriptor.digest.clone(),
            };
            if written.insert(name.clone()) {
                let size = document.descriptor.size;
                self.archived(out, &name, size, &Blob::Bytes(&document.bytes), "")?;
            }
            let repo_tags = match self.images.len() {
                1 => vec![self.reference.to_owned()],
                _ => {
                    let tagged = format!("{}-{}", self.reference, image.platform.architecture);
                    let host = image.architecture == host;
                    let plain = host.then(|| self.reference.to_owned());
                    plain.into_iter().chain([tagged]).collect()
                }
            };
            items.push(Item {
                config: name,
                repo_tags,
                layers: image
                    .layers
                    .iter()
                    .map(|layer| layer_file(&layer.descriptor))
                    .collect(),
            });
        }
        for layer in self.images.iter().flat_map(|image| &image.layers) {
            let name = layer_file(&layer.descriptor);
            if written.insert(name.clone()) {
                let (size, hex) = (layer.descriptor.size, layer.descriptor.hex());
                self.archived(out, &name, size, &Blob::File(&layer.path), hex)?;
            }
        }
        let text = serde_json::to_vec(&items).expect("texts are always JSON");
        let mut last = vec![("manifest.json", text.as_slice())];
        if shape == LayoutShape::Bare {
            let manifests = self.images.iter().map(|image| &image.manifest);
            last.extend(manifests.map(|one| (&*one.descriptor.digest, one.bytes.as_slice())));
            last.push(("index.json", &self.index.bytes));
        }
        for (name, bytes) in last {
            self.archived(out, name, bytes.len() as u64, &Blob::Bytes(bytes), "")?;
        }
        plain(out, &[0; 2 * BLOCK])
    }
}

fn layer_file(descriptor: &Descriptor) -> String {
    let suffix = match descriptor.media_type.rsplit_once('+') {
        Some((_, "gzip")) => ".tar.gz",
        Some((_, "zstd")) => ".tar.zst",
        _ => ".tar",
    };
    format!("{}{suffix}", descriptor.hex())
}

/// Remembers that writing failed, to tell it from reading.
struct Watched<'w> {
    out: &'w mut dyn Write,
    failed: bool,
}

impl Write for Watched<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.out.write(bytes);
        let interrupted = |error: &io::Error| error.kind() == io::ErrorKind::Interrupted;
        self.failed |= written.as_ref().is_err_and(|error| !interrupted(error));
        written
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

fn plain(out: &mut dyn Write, bytes: &[u8]) -> Result<(), ImageError> {
    out.write_all(bytes)
        .map_err(|error| ImageError::output(Path::new("the output"), &error))
}

/// Writes a file beside its name and renames it; a device or a pipe is written to.
///
/// # Errors
/// [`ImageError`]; what was there is still there then.
pub fn write_file(
    path: &Path,
    write: impl FnOnce(&mut dyn Write) -> Result<(), ImageError>,
) -> Result<(), ImageError> {
    let failed = |error: io::Error| ImageError::output(path, &error);
    crate::root::write_output(path, failed, |out| {
        write(out).map_err(|error| match error {
            // The name that the user knows is the one to tell.
            ImageError::Output { cause, .. } => ImageError::Output {
                path: path.to_owned(),
                cause,
            },
            other => other,
        })
    })
}

/// Returns the tree of an image, and the names of its users and groups.
fn tree_of(image: &BuiltImage) -> Result<(&Tree, Names, Vec<TreeEntry>), ImageError> {
    let text = |path: &str| -> Result<String, ImageError> {
        let bytes = image.root.read(path)?.unwrap_or_default();
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    };
    let names = Names::new(&text("etc/passwd")?, &text("etc/group")?);
    let tree = image.root.tree().expect("an image is built in memory");
    Ok((tree, names, tree.entries()))
}

/// Writes the root file system of an image as one archive.
///
/// # Errors
/// [`ImageError`].
pub fn rootfs_archive(
    image: &BuiltImage,
    out: &mut dyn Write,
    compression: Compression,
) -> Result<(), ImageError> {
    let failed = |error: io::Error| ImageError::output(Path::new("the output"), &error);
    let (tree, names, entries) = tree_of(image)?;
    let archive = |out: &mut dyn Write| -> io::Result<()> {
        let mut writer = Writer::new(out, tree, &names);
        let mut first: HashMap<u64, &str> = HashMap::new();
        for entry in &entries {
            let what = match first.get(&entry.node) {
                Some(target) => What::Link(entry, target),
                None => What::Tree(entry),
            };
            if entry.links > 1 && !matches!(entry.kind, EntryKind::Directory) {
                first.entry(entry.node).or_insert(&entry.path);
            }
            writer.entry(&what, entry.mtime)?;
        }
        writer.end()
    };
    match compression {
        Compression::None => archive(out).map_err(failed),
        Compression::Gzip(level) => {
            let builder = GzBuilder::new().mtime(0).operating_system(255);
            let encoder = builder.write(out, flate2::Compression::new(level));
            let mut pieces = Pieces::new(encoder);
            archive(&mut pieces).map_err(failed)?;
            let encoder = pieces.finish().map_err(failed)?;
            encoder.finish().map(drop).map_err(failed)
        }
        Compression::Zstd(level) => {
            let encoder = zstd::stream::write::Encoder::new(out, level).map_err(failed)?;
            let mut pieces = Pieces::new(encoder);
            archive(&mut pieces).map_err(failed)?;
            let encoder = pieces.finish().map_err(failed)?;
            encoder.finish().map(drop).map_err(failed)
        }
    }
}

/// What becomes of owners when an ordinary user unpacks; root gives everything its own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ownership {
    /// Files belong to the ids that the system lends to the user, as in a container of that user.
    pub lent: bool,
    /// They are written down beside each file and directory, in the attribute that umoci uses.
    pub recorded: bool,
}

/// The attribute with the owner that a file would have.
const RECORD: &str = "user.rootlesscontainers";

/// Returns the value of that attribute: a protocol buffer with uid and gid, of which what is 0 is
/// left out.
fn record(uid: u32, gid: u32) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (tag, mut number) in [(0x08, uid), (0x10, gid)] {
        if number == 0 {
            continue;
        }
        bytes.push(tag);
        while number > 0x7f {
            bytes.push(number as u8 | 0x80);
            number >>= 7;
        }
        bytes.push(number as u8);
    }
    bytes
}

/// What unpacking left out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LeftOut {
    /// Devices, which only root can make.
    pub devices: Vec<String>,
    /// Owners are the builder's own.
    pub owners: bool,
}

/// Unpacks the root file system of an image into a directory that is empty or missing.
///
/// An ordinary user gets the modes and has no devices; `ownership` says who owns what.
///
/// # Errors
/// [`ImageError`].
pub fn rootfs_directory(
    image: &BuiltImage,
    path: &Path,
    ownership: Ownership,
) -> Result<LeftOut, ImageError> {
    let tree = image.root.tree().expect("an image is built in memory");
    let lent = ownership.lent && !rustix::process::geteuid().is_root();
    if !lent {
        return unpack_tree(tree, path, ownership.recorded);
    }
    let refuse = |reason: String| ImageError::NoSandbox { reason };
    let ranges = subordinate::ranges().ok_or_else(|| {
        refuse(
            "no ids are lent: /etc/subuid and /etc/subgid have none for this user, or newuidmap and \
             newgidmap are missing"
                .to_owned(),
        )
    })?;
    let mut left = unpack_tree(tree, path, ownership.recorded)?;
    let given = ranges.give_away(path, &ranges.gifts(&tree.entries()));
    given.map_err(|error| {
        refuse(format!(
            "files cannot be given away: {}",
            crate::root::cause(&error)
        ))
    })?;
    left.owners = false;
    Ok(left)
}

/// Unpacks a tree into a directory that is empty or missing.
pub(super) fn unpack_tree(tree: &Tree, path: &Path, recorded: bool) -> Result<LeftOut, ImageError> {
    let failed = |error: io::Error| ImageError::output(path, &error);
    match fs::read_dir(path).map(|mut entries| entries.next().is_none()) {
        Ok(true) => {}
        Ok(false) => return Err(failed(rustix::io::Errno::NOTEMPTY.into())),
        Err(_) => fs::create_dir(path).map_err(failed)?,
    }
    let entries = tree.entries();
    let root = Root::open(path)?;
    let privileged = rustix::process::geteuid().is_root();
    let mut left = LeftOut {
        owners: !privileged,
        ..LeftOut::default()
    };
    let mut first: HashMap<u64, &str> = HashMap::new();
    for entry in &entries {
        let way = Way {
            privileged,
            recorded,
        };
        unpack(tree, &root, entry, way, &mut first, &mut left)?;
    }
    // From the deepest directory up: writing below one changes its time and needs its mode.
    for entry in entries.iter().rev() {
        if matches!(entry.kind, EntryKind::Directory) {
            let (directory, name) = root.parent(&entry.path)?;
            if recorded && (entry.uid, entry.gid) != (0, 0) {
                let at = path.join(&entry.path);
                let flags = rustix::fs::XattrFlags::empty();
                let value = record(entry.uid, entry.gid);
                let noted = rustix::fs::lsetxattr(&at, RECORD, &value, flags);
                noted.map_err(|errno| ImageError::output(&at, &errno.into()))?;
            }
            directory.set_mode(name, entry.mode)?;
            directory.set_time(name, entry.mtime)?;
        }
    }
    Ok(left)
}

/// How a tree is unpacked.
#[derive(Clone, Copy)]
struct Way {
    /// By root.
    privileged: bool,
    /// Owners are written down.
    recorded: bool,
}

fn unpack<'e>(
    tree: &Tree,
    root: &Root,
    entry: &'e TreeEntry,
    Way {
        privileged,
        recorded,
    }: Way,
    first: &mut HashMap<u64, &'e str>,
    left: &mut LeftOut,
) -> Result<(), ImageError> {
    let (directory, name) = root.parent(&entry.path)?;
    if let Some(known) = first.get(&entry.node) {
        let (from, old) = root.parent(known)?;
        return Ok(directory.create_hard_link(&from, old, name)?);
    }
    match &entry.kind {
        EntryKind::Directory => directory.create_directory(name, 0o700)?,
        EntryKind::Symlink(target) => directory.create_symlink(target, name)?,
        EntryKind::File(content) => {
            let mut file = directory.create_file(name, 0o600)?;
            io::copy(&mut tree.reader(content), &mut file)
                .map_err(|error| ImageError::output(&root.path().join(&entry.path), &error))?;
            if privileged {
                file.set_owner(entry.uid, entry.gid)?;
            }
            for (key, value) in &entry.xattrs {
                if privileged || key.starts_with("user.") {
                    file.set_attribute(key, value)?;
                }
            }
            if recorded && (entry.uid, entry.gid) != (0, 0) {
                file.set_attribute(RECORD, &record(entry.uid, entry.gid))?;
            }
            // Attributes can be set only as long as the file can be written.
            file.set_mode(entry.mode)?;
        }
        EntryKind::Device(..) | EntryKind::Fifo if !privileged => {
            left.devices.push(entry.path.clone());
            return Ok(());
        }
        EntryKind::Device(block, major, minor) => {
            let kind = match block {
                true => FileType::BlockDevice,
                false => FileType::CharacterDevice,
            };
            directory.create_node(name, kind, entry.mode, *major, *minor)?;
        }
        EntryKind::Fifo => directory.create_node(name, FileType::Fifo, entry.mode, 0, 0)?,
    }
    if privileged && !matches!(entry.kind, EntryKind::File(_)) {
        directory.set_owner(name, entry.uid, entry.gid)?;
    }
    // The mask of the process is not ours to change: other threads make files, too.
    if matches!(entry.kind, EntryKind::Device(..) | EntryKind::Fifo) {
        directory.set_mode(name, entry.mode)?;
    }
    if !matches!(entry.kind, EntryKind::Directory) {
        if entry.links > 1 {
            first.insert(entry.node, &entry.path);
        }
        directory.set_time(name, entry.mtime)?;
    }
    Ok(())
}

/// Writes the root file system of an image as a `newc` cpio archive (image.md, 10.5).
///
/// # Errors
/// [`ImageError`].
pub fn cpio(image: &BuiltImage, out: &mut dyn Write, gzip: bool) -> Result<(), ImageError> {
    let failed = |error: io::Error| ImageError::output(Path::new("the output"), &error);
    if gzip {
        let builder = GzBuilder::new().mtime(0).operating_system(255);
        let mut pieces = Pieces::new(builder.write(out, flate2::Compression::new(6)));
        cpio(image, &mut pieces, false)?;
        let encoder = pieces.finish().map_err(failed)?;
        return encoder.finish().map(drop).map_err(failed);
    }
    let (tree, _, entries) = tree_of(image)?;
    let mut last: HashMap<u64, usize> = HashMap::new();
    for (at, entry) in entries.iter().enumerate() {
        last.insert(entry.node, at);
    }
    let mut numbers: HashMap<u64, u32> = HashMap::new();
    for (at, entry) in entries.iter().enumerate() {
        let next = numbers.len() as u32 + 1;
        let inode = *numbers.entry(entry.node).or_insert(next);
        let (kind, device) = match &entry.kind {
            EntryKind::Directory => (0o040_000, (0, 0)),
            EntryKind::File(_) => (0o100_000, (0, 0)),
            EntryKind::Symlink(_) => (0o120_000, (0, 0)),
            EntryKind::Device(true, major, minor) => (0o060_000, (*major, *minor)),
            EntryKind::Device(false, major, minor) => (0o020_000, (*major, *minor)),
            EntryKind::Fifo => (0o010_000, (0, 0)),
        };
        let size = match &entry.kind {
            // The data is with the last of several names.
            EntryKind::File(content) if last[&entry.node] == at => content.size(),
            EntryKind::Symlink(target) => target.len() as u64,
            _ => 0,
        };
        let size = u32::try_from(size).map_err(|_| ImageError::Limit {
            what: format!("size of {} in a cpio archive", entry.path),
            limit: u64::from(u32::MAX),
        })?;
        let links = match entry.kind {
            EntryKind::Directory => 2,
            _ => entry.links,
        };
        let fields = [
            inode,
            kind | entry.mode,
            entry.uid,
            entry.gid,
            links,
            entry.mtime as u32,
            size,
            0,
            0,
            device.0,
            device.1,
        ];
        cpio_header(out, &entry.path, &fields).map_err(failed)?;
        match &entry.kind {
            EntryKind::File(content) if size > 0 => {
                io::copy(&mut tree.reader(content).take(u64::from(size)), out).map_err(failed)?;
            }
            EntryKind::Symlink(target) => out.write_all(target.as_bytes()).map_err(failed)?,
            _ => {}
        }
        pad(out, size as usize).map_err(failed)?;
    }
    cpio_header(out, "TRAILER!!!", &[0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0]).map_err(failed)
}

fn cpio_header(out: &mut dyn Write, name: &str, fields: &[u32; 11]) -> io::Result<()> {
    out.write_all(b"070701")?;
    for field in fields {
        write!(out, "{field:08X}")?;
    }
    write!(out, "{:08X}{:08X}{name}\0", name.len() + 1, 0)?;
    pad(out, 110 + name.len() + 1)
}

fn pad(out: &mut dyn Write, length: usize) -> io::Result<()> {
    out.write_all(&[0; 4][..length.wrapping_neg() % 4])
}

/// Opens a finished layer for reading without its compression.
///
/// # Errors
/// What the system said.
pub fn open_layer(path: &Path, media_type: &str) -> io::Result<Box<dyn Read>> {
    let file = io::BufReader::with_capacity(256 << 10, File::open(path)?);
    Ok(match media_type.rsplit_once('+') {
        Some((_, "gzip")) => Box::new(flate2::bufread::MultiGzDecoder::new(file)),
        Some((_, "zstd")) => Box::new(zstd::stream::read::Decoder::with_buffer(file)?),
        _ => Box::new(file),
    })
}
