//! Packages and indexes of the v3 form made for a test: written value by value, so that each can be
//! wrong in one place.

use super::repository::signing_key;
use ibex::trust::{Keyring, SignatureAlgorithm};
use sha2::{Digest, Sha256, Sha512};
use std::io::Write;

/// The payload of an ADB block in the making.
#[derive(Clone, Debug)]
pub(crate) struct Adb(pub(crate) Vec<u8>);

impl Adb {
    /// Begins with room for the root.
    pub(crate) fn new() -> Self {
        Self(vec![0; 8])
    }

    fn align(&mut self) {
        self.0.resize(self.0.len().next_multiple_of(4), 0);
    }

    /// Stores bytes; none are the value 0.
    pub(crate) fn blob(&mut self, bytes: &[u8]) -> u32 {
        let Ok(length) = u32::try_from(bytes.len()) else {
            panic!("too long for a test");
        };
        let kind = match length {
            0 => return 0,
            1..=0xff => 8,
            0x100..=0xffff => 9,
            _ => 10,
        };
        if kind == 10 {
            self.align();
        }
        let at = self.0.len() as u32;
        self.0.extend(&length.to_le_bytes()[..[1, 2, 4][kind - 8]]);
        self.0.extend(bytes);
        (kind as u32) << 28 | at
    }

    /// Stores a number.
    pub(crate) fn number(&mut self, number: u64) -> u32 {
        if number == 0 {
            return 0;
        }
        if number < 1 << 28 {
            return 1 << 28 | number as u32;
        }
        self.align();
        let at = self.0.len() as u32;
        self.0.extend(number.to_le_bytes());
        3 << 28 | at
    }

    /// Stores an object or array; an empty one is the value 0.
    pub(crate) fn slots(&mut self, values: &[u32]) -> u32 {
        let used = values.iter().rposition(|value| *value != 0);
        let Some(used) = used else { return 0 };
        self.align();
        let at = self.0.len() as u32;
        self.0.extend((used as u32 + 2).to_le_bytes());
        for value in &values[..=used] {
            self.0.extend(value.to_le_bytes());
        }
        14 << 28 | at
    }

    /// Makes a value the root.
    pub(crate) fn root(&mut self, value: u32) {
        self.0[4..8].copy_from_slice(&value.to_le_bytes());
        let least = self.0.len().max(16);
        self.0.resize(least, 0);
    }

    /// Stores dependencies: name, version and match.
    pub(crate) fn dependencies(&mut self, list: &[(&str, &str, u64)]) -> u32 {
        let entries: Vec<u32> = list
            .iter()
            .map(|(name, version, mask)| {
                let fields = [
                    self.blob(name.as_bytes()),
                    self.blob(version.as_bytes()),
                    self.number(*mask),
                ];
                self.slots(&fields)
            })
            .collect();
        self.slots(&entries)
    }
}

/// A file, link or device.
#[derive(Clone, Debug)]
pub(crate) struct Node {
    pub(crate) name: String,
    pub(crate) mode: u64,
    pub(crate) owner: String,
    pub(crate) size: u64,
    pub(crate) hash: Vec<u8>,
    pub(crate) target: Vec<u8>,
    pub(crate) content: Vec<u8>,
    pub(crate) xattrs: Vec<Vec<u8>>,
}

/// Makes a file with this content.
pub(crate) fn file(name: &str, content: impl AsRef<[u8]>) -> Node {
    let content = content.as_ref().to_vec();
    Node {
        name: name.to_owned(),
        mode: 0o644,
        owner: "root".to_owned(),
        size: content.len() as u64,
        hash: Sha256::digest(&content).to_vec(),
        target: Vec::new(),
        content,
        xattrs: Vec::new(),
    }
}

/// Makes something else; `kind` are the type bits.
pub(crate) fn special(name: &str, kind: u16, target: impl AsRef<[u8]>) -> Node {
    let mut node = file(name, "");
    node.hash.clear();
    node.target = [&kind.to_le_bytes(), target.as_ref()].concat();
    node
}

/// Makes a symbolic link.
pub(crate) fn symlink(name: &str, target: &str) -> Node {
    special(name, 0xa000, target)
}

/// Makes another name of an earlier file of that content.
pub(crate) fn hard_link(name: &str, target: &str, content: &str) -> Node {
    let mut node = special(name, 0x8000, target);
    node.hash = Sha256::digest(content).to_vec();
    node
}

/// A package.
#[derive(Clone, Debug)]
pub(crate) struct Package {
    /// Texts of the package info by slot: 1 name, 2 version, 4 description, 5 architecture, …
    pub(crate) texts: Vec<(usize, Vec<u8>)>,
    pub(crate) depends: Vec<(&'static str, &'static str, u64)>,
    pub(crate) provides: Vec<(&'static str, &'static str, u64)>,
    pub(crate) installed_size: u64,
    pub(crate) directories: Vec<(String, Vec<Node>)>,
    /// Scripts by slot: 2 pre-install, 3 post-install, …
    pub(crate) scripts: Vec<(usize, String)>,
    pub(crate) triggers: Vec<String>,
    pub(crate) signed: bool,
}

/// Begins a package; directories come in the order given.
pub(crate) fn package(name: &str, version: &str, directories: &[(&str, &[Node])]) -> Package {
    let nodes = directories.iter().flat_map(|(_, nodes)| *nodes);
    let size: u64 = nodes.map(|node| node.size).sum();
    let text = |slot, text: &str| (slot, text.as_bytes().to_vec());
    Package {
        texts: vec![
            text(1, name),
            text(2, version),
            text(4, &format!("the package {name}")),
            text(5, "x86_64"),
            text(6, "MIT"),
        ],
        depends: Vec::new(),
        provides: Vec::new(),
        installed_size: size.max(1),
        directories: directories
            .iter()
            .map(|(path, nodes)| ((*path).to_owned(), nodes.to_vec()))
            .collect(),
        scripts: Vec::new(),
        triggers: Vec::new(),
        signed: true,
    }
}

impl Package {
    /// Sets a text of the package info.
    pub(crate) fn text(mut self, slot: usize, text: impl AsRef<[u8]>) -> Self {
        self.texts.retain(|(known, _)| *known != slot);
        self.texts.push((slot, text.as_ref().to_vec()));
        self
    }

    /// Adds a script for `/bin/sh`.
    pub(crate) fn script(mut self, slot: usize, text: &str) -> Self {
        self.scripts.push((slot, format!("#!/bin/sh\n{text}\n")));
        self
    }

    fn info(&self, adb: &mut Adb, hashes: &[u8], file_size: u64) -> u32 {
        let mut slots = [0; 21];
        for (slot, text) in &self.texts {
            slots[slot - 1] = adb.blob(text);
        }
        // The bytes of the unique id are shared with nothing.
        slots[2] = adb.blob(hashes);
        slots[11] = adb.number(self.installed_size);
        slots[12] = adb.number(file_size);
        slots[14] = adb.dependencies(&self.depends);
        slots[15] = adb.dependencies(&self.provides);
        adb.slots(&slots)
    }

    /// Returns the payload of the ADB block.
    pub(crate) fn payload(&self) -> Vec<u8> {
        let mut adb = Adb::new();
        let directories: Vec<u32> = self
            .directories
            .iter()
            .map(|(path, nodes)| {
                let files: Vec<u32> = nodes
                    .iter()
                    .map(|node| node_slots(&mut adb, node))
                    .collect();
                let acl = acl(&mut adb, 0o755, "root", &[]);
                let fields = [adb.blob(path.as_bytes()), acl, adb.slots(&files)];
                adb.slots(&fields)
            })
            .collect();
        let paths = adb.slots(&directories);
        let mut scripts = [0; 7];
        for (slot, text) in &self.scripts {
            scripts[slot - 1] = adb.blob(text.as_bytes());
        }
        let scripts = adb.slots(&scripts);
        let globs: Vec<u32> = self
            .triggers
            .iter()
            .map(|glob| adb.blob(glob.as_bytes()))
            .collect();
        let triggers = adb.slots(&globs);
        let info = self.info(&mut adb, &[0; 20], 0);
        let root = adb.slots(&[info, paths, scripts, triggers]);
        adb.root(root);
        adb.0
    }

    /// Returns the data blocks: the numbers of directory and file, and the content.
    pub(crate) fn data(&self) -> Vec<Vec<u8>> {
        let mut blocks = Vec::new();
        for (at, (_, nodes)) in self.directories.iter().enumerate() {
            for (number, node) in nodes.iter().enumerate() {
                if node.target.is_empty() && !node.content.is_empty() {
                    let mut block = Vec::new();
                    block.extend((at as u32 + 1).to_le_bytes());
                    block.extend((number as u32 + 1).to_le_bytes());
                    block.extend(&node.content);
                    blocks.push(block);
                }
            }
        }
        blocks
    }

    /// Returns the package file.
    pub(crate) fn build(&self) -> Vec<u8> {
        container(*b"pckg", &self.payload(), self.signed, &self.data())
    }
}

fn node_slots(adb: &mut Adb, node: &Node) -> u32 {
    let acl = acl(adb, node.mode, &node.owner, &node.xattrs);
    let fields = [
        adb.blob(node.name.as_bytes()),
        acl,
        adb.number(node.size),
        adb.number(1_600_000_000),
        adb.blob(&node.hash),
        adb.blob(&node.target),
    ];
    adb.slots(&fields)
}

fn acl(adb: &mut Adb, mode: u64, owner: &str, xattrs: &[Vec<u8>]) -> u32 {
    let xattrs: Vec<u32> = xattrs.iter().map(|xattr| adb.blob(xattr)).collect();
    let owner = adb.blob(owner.as_bytes());
    let fields = [adb.number(mode), owner, owner, adb.slots(&xattrs)];
    adb.slots(&fields)
}

/// Returns a block; type 0 is an ADB, 1 a signature, 2 data.
pub(crate) fn block(kind: u32, payload: &[u8]) -> Vec<u8> {
    let raw = payload.len() as u32 + 4;
    let mut block = (kind << 30 | raw).to_le_bytes().to_vec();
    block.extend(payload);
    block.resize(block.len().next_multiple_of(8), 0);
    block
}

/// Returns the payload of a signature block by the key of the tests.
pub(crate) fn signature(schema: [u8; 4], payload: &[u8]) -> Vec<u8> {
    let mut keyring = Keyring::new();
    let public = include_bytes!("../../fixtures/test-only.rsa.pub");
    keyring.add("key", public).expect("a key");
    let id = keyring.find("key").expect("it was just added").id();
    let head = [&[0, 4][..], &id.0].concat();
    let message = [&schema[..], &head, &Sha512::digest(payload)].concat();
    let signed = signing_key().sign(SignatureAlgorithm::Rsa512, &message);
    [head, signed.expect("a signature").bytes].concat()
}

/// Returns a file, not compressed.
pub(crate) fn container(
    schema: [u8; 4],
    payload: &[u8],
    signed: bool,
    data: &[Vec<u8>],
) -> Vec<u8> {
    let mut file = [*b"ADB.", schema].concat();
    file.extend(block(0, payload));
    if signed {
        file.extend(block(1, &signature(schema, payload)));
    }
    data.iter()
        .for_each(|content| file.extend(block(2, content)));
    file
}

/// Returns an index of packages with the bytes of their files; `length` bytes of each identity.
pub(crate) fn index(
    packages: &[(&Package, &[u8])],
    length: usize,
    package_name: &str,
    signed: bool,
) -> Vec<u8> {
    let mut adb = Adb::new();
    let infos: Vec<u32> = packages
        .iter()
        .map(|(package, file)| {
            let identity = Sha256::digest(package.payload());
            package.info(&mut adb, &identity[..length], file.len() as u64)
        })
        .collect();
    let fields = [
        adb.blob(b"test"),
        adb.slots(&infos),
        adb.blob(package_name.as_bytes()),
    ];
    let root = adb.slots(&fields);
    adb.root(root);
    container(*b"indx", &adb.0, signed, &[])
}

/// Compresses a file in one of the ways there are.
pub(crate) fn compressed(file: &[u8], way: &str) -> Vec<u8> {
    let deflate = || {
        let mut encoder =
            flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::default());
        encoder.write_all(file).expect("memory takes everything");
        encoder.finish().expect("memory takes everything")
    };
    match way {
        "none" => file.to_vec(),
        "ADBd" => [b"ADBd".to_vec(), deflate()].concat(),
        "none, said" => [b"ADBc\0\0", file].concat(),
        "deflate" => [b"ADBc\x01\x06".to_vec(), deflate()].concat(),
        "zstd" => {
            let stream = zstd::encode_all(file, 3).expect("memory takes everything");
            [b"ADBc\x02\x03".to_vec(), stream].concat()
        }
        other => panic!("there is no compression {other}"),
    }
}
