//! The same operations kept in memory, for images built without privileges.
//!
//! Nodes have the owner, mode, device numbers and extended attributes that were asked for, whoever
//! builds. Only names and attributes are in memory: content goes to an anonymous temporary file, or
//! stays where it is packed. Times do not pass here: whatever is made has the time that the tree was
//! given, until it is set. Links are followed as `openat2(RESOLVE_IN_ROOT)` does.
//!
//! This must never touch the disk beyond its temporary file, and never ask who runs it.

use super::{Stat, split};
use rustix::fs::FileType;
use rustix::io::Errno;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};

/// Symbolic links that are followed in one look-up, as the kernel does.
const LINKS: u32 = 40;

/// Content that can be read where it is, such as in a compressed archive.
pub trait Packed: fmt::Debug + Send + Sync {
    /// Returns `size` bytes from `offset` of what is packed.
    ///
    /// # Errors
    /// What the system said, or that the packed data is damaged or ends earlier.
    fn unpack(&self, offset: u64, size: u64) -> io::Result<Vec<u8>>;
}

/// Where the bytes of a file are.
#[derive(Clone, Debug)]
pub enum Content {
    /// In the tree's temporary file: offset and length of each piece.
    Spooled(Vec<(u64, u64)>),
    /// Elsewhere, at this offset.
    Packed {
        /// What holds it.
        source: Arc<dyn Packed>,
        /// Where it begins.
        offset: u64,
        /// Bytes.
        size: u64,
    },
}

impl Content {
    /// Returns the size in bytes.
    pub fn size(&self) -> u64 {
        match self {
            Self::Spooled(pieces) => pieces.iter().map(|(_, length)| length).sum(),
            Self::Packed { size, .. } => *size,
        }
    }
}

/// What a node is.
#[derive(Clone, Debug)]
enum Kind {
    Directory(BTreeMap<String, usize>),
    File(Content),
    Symlink(String),
    Device(FileType, u32, u32),
}

#[derive(Clone, Debug)]
struct Node {
    kind: Kind,
    mode: u32,
    uid: u32,
    gid: u32,
    mtime: u64,
    xattrs: BTreeMap<String, Vec<u8>>,
    links: u32,
}

impl Node {
    fn differs(&self, other: &Self) -> bool {
        let attributes = |node: &Self| (node.mode, node.uid, node.gid, node.mtime, node.links);
        attributes(self) != attributes(other)
            || match (&self.kind, &other.kind) {
                (Kind::Directory(a), Kind::Directory(b)) => a != b,
                // Content is only ever replaced by a new node, or written behind its end.
                (Kind::File(a), Kind::File(b)) => a.size() != b.size(),
                (Kind::Symlink(a), Kind::Symlink(b)) => a != b,
                (Kind::Device(..), Kind::Device(..)) => false,
                _ => true,
            }
    }

    fn file_type(&self) -> FileType {
        match &self.kind {
            Kind::Directory(_) => FileType::Directory,
            Kind::File(_) => FileType::RegularFile,
            Kind::Symlink(_) => FileType::Symlink,
            Kind::Device(kind, ..) => *kind,
        }
    }
}

/// What an entry of a listing is.
#[derive(Clone, Debug)]
pub enum EntryKind {
    /// A directory.
    Directory,
    /// A file with content.
    File(Content),
    /// A symbolic link and its text.
    Symlink(String),
    /// A device: is it a block device, major, minor.
    Device(bool, u32, u32),
    /// A FIFO.
    Fifo,
}

/// One name of the tree with all that it means.
#[derive(Clone, Debug)]
pub struct TreeEntry {
    /// Relative to the root, without slashes at either end.
    pub path: String,
    /// What it is.
    pub kind: EntryKind,
    /// Permission, set-id and sticky bits.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Seconds since 1970.
    pub mtime: u64,
    /// Extended attributes by name.
    pub xattrs: BTreeMap<String, Vec<u8>>,
    /// Names with the same number are one file.
    pub node: u64,
    /// How many names it has.
    pub links: u32,
}

/// A tree in memory; clones are the same tree.
#[derive(Clone, Debug)]
pub struct Tree(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    nodes: Mutex<Vec<Node>>,
    /// Made when the first content comes.
    spool: OnceLock<File>,
    /// Where the next content goes.
    next: AtomicU64,
    /// The time of everything that is made.
    now: u64,
}

/// What a tree was at some time.
#[derive(Clone, Debug)]
pub struct Saved(Vec<Node>);

/// The number of the root directory.
pub(super) const ROOT: usize = 0;

impl Tree {
    /// Makes an empty tree; what is made in it has the time `now`, in seconds since 1970.
    pub fn new(now: u64) -> Self {
        let root = Node {
            kind: Kind::Directory(BTreeMap::new()),
            mode: 0o755,
            uid: 0,
            gid: 0,
            mtime: now,
            xattrs: BTreeMap::new(),
            links: 1,
        };
        Self(Arc::new(Inner {
            nodes: Mutex::new(vec![root]),
            spool: OnceLock::new(),
            next: AtomicU64::new(0),
            now,
        }))
    }

    fn nodes(&self) -> MutexGuard<'_, Vec<Node>> {
        self.0
            .nodes
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Returns every name below the root, each directory before its content, names in byte order.
    pub fn entries(&self) -> Vec<TreeEntry> {
        fn walk(nodes: &[Node], at: usize, path: &str, entries: &mut Vec<TreeEntry>) {
            let Kind::Directory(names) = &nodes[at].kind else {
                return;
            };
            for (name, child) in names {
                let path = match path {
                    "" => name.clone(),
                    _ => format!("{path}/{name}"),
                };
                let node = &nodes[*child];
                entries.push(TreeEntry {
                    path: path.clone(),
                    kind: match &node.kind {
                        Kind::Directory(_) => EntryKind::Directory,
                        Kind::File(content) => EntryKind::File(content.clone()),
                        Kind::Symlink(target) => EntryKind::Symlink(target.clone()),
                        Kind::Device(FileType::Fifo, ..) => EntryKind::Fifo,
                        Kind::Device(kind, major, minor) => {
                            EntryKind::Device(*kind == FileType::BlockDevice, *major, *minor)
                        }
                    },
                    mode: node.mode,
                    uid: node.uid,
                    gid: node.gid,
                    mtime: node.mtime,
                    xattrs: node.xattrs.clone(),
                    node: *child as u64,
                    links: node.links,
                });
                walk(nodes, *child, &path, entries);
            }
        }
        let mut entries = Vec::new();
        walk(&self.nodes(), ROOT, "", &mut entries);
        entries
    }

    /// Opens content for reading.
    pub fn reader(&self, content: &Content) -> TreeReader {
        TreeReader {
            tree: self.clone(),
            content: content.clone(),
            piece: 0,
            done: 0,
            unpacked: None,
        }
    }

    /// Remembers what the tree is now.
    pub fn save(&self) -> Saved {
        Saved(self.nodes().clone())
    }

    /// Makes the tree what it was; directories opened since then must not be used.
    pub fn restore(&self, saved: Saved) {
        *self.nodes() = saved.0;
    }

    /// Returns whether something has changed since then.
    pub fn has_changed(&self, saved: &Saved) -> bool {
        let nodes = self.nodes();
        nodes.len() != saved.0.len() || nodes.iter().zip(&saved.0).any(|(a, b)| a.differs(b))
    }

    /// Returns how many nodes were ever made; numbers of entries below it were there by now.
    pub fn mark(&self) -> u64 {
        self.nodes().len() as u64
    }

    /// Puts bytes into the temporary file, without a name.
    ///
    /// # Errors
    /// What the system said.
    pub fn spooled(&self, bytes: &[u8]) -> io::Result<Content> {
        let length = bytes.len() as u64;
        let offset = self.0.next.fetch_add(length, Ordering::Relaxed);
        self.spool()?.write_all_at(bytes, offset)?;
        let piece = (offset, length);
        Ok(Content::Spooled(if length > 0 {
            vec![piece]
        } else {
            Vec::new()
        }))
    }

    /// Returns the path of a directory without links; `None` if it is not there.
    pub fn real_path(&self, path: &str) -> Option<String> {
        let (nodes, mut names) = (self.follow(path).ok()?, Vec::new());
        let all = self.nodes();
        for pair in nodes.windows(2) {
            let Kind::Directory(children) = &all[pair[0]].kind else {
                return None;
            };
            let name = children.iter().find(|(_, child)| **child == pair[1])?.0;
            names.push(name.clone());
        }
        Some(names.join("/"))
    }

    /// Follows a path from the root to a node, through links.
    pub(super) fn resolve(&self, path: &str) -> Result<usize, Errno> {
        let nodes = self.follow(path)?;
        Ok(*nodes.last().expect("the root is among them"))
    }

    /// Follows a path through links; returns the nodes from the root on.
    fn follow(&self, path: &str) -> Result<Vec<usize>, Errno> {
        let nodes = self.nodes();
        let mut at = vec![ROOT];
        let mut rest: Vec<String> = path.split('/').rev().map(str::to_owned).collect();
        let mut links = 0;
        while let Some(name) = rest.pop() {
            let here = *at.last().expect("the root stays");
            match name.as_str() {
                "" | "." => continue,
                ".." => {
                    if at.len() > 1 {
                        at.pop();
                    }
                    continue;
                }
                _ => {}
            }
            let Kind::Directory(names) = &nodes[here].kind else {
                return Err(Errno::NOTDIR);
            };
            let child = *names.get(&name).ok_or(Errno::NOENT)?;
            let Kind::Symlink(target) = &nodes[child].kind else {
                at.push(child);
                continue;
            };
            links += 1;
            if links > LINKS {
                return Err(Errno::LOOP);
            }
            if target.starts_with('/') {
                at.truncate(1);
            }
            rest.extend(target.split('/').rev().map(str::to_owned));
        }
        Ok(at)
    }

    /// Follows a path to a directory.
    pub(super) fn resolve_directory(&self, path: &str) -> Result<usize, Errno> {
        let at = self.resolve(path)?;
        match self.nodes()[at].kind {
            Kind::Directory(_) => Ok(at),
            _ => Err(Errno::NOTDIR),
        }
    }

    fn child(nodes: &[Node], directory: usize, name: &str) -> Result<usize, Errno> {
        let Kind::Directory(names) = &nodes[directory].kind else {
            return Err(Errno::NOTDIR);
        };
        names.get(name).copied().ok_or(Errno::NOENT)
    }

    fn attach(nodes: &mut [Node], directory: usize, name: &str, child: usize) -> Result<(), Errno> {
        if matches!(name, "" | "." | "..") || name.contains('/') {
            return Err(Errno::INVAL);
        }
        // A directory that was removed takes no new names.
        if nodes[directory].links == 0 {
            return Err(Errno::NOENT);
        }
        let Kind::Directory(names) = &mut nodes[directory].kind else {
            return Err(Errno::NOTDIR);
        };
        if names.contains_key(name) {
            return Err(Errno::EXIST);
        }
        names.insert(name.to_owned(), child);
        nodes[child].links += 1;
        Ok(())
    }

    fn detach(nodes: &mut [Node], directory: usize, name: &str) -> Result<usize, Errno> {
        let child = Self::child(nodes, directory, name)?;
        if let Kind::Directory(names) = &mut nodes[directory].kind {
            names.remove(name);
        }
        nodes[child].links -= 1;
        Ok(child)
    }

    fn make(&self, directory: usize, name: &str, kind: Kind, mode: u32) -> Result<usize, Errno> {
        let mut nodes = self.nodes();
        nodes.push(Node {
            kind,
            mode: mode & 0o7777,
            uid: 0,
            gid: 0,
            mtime: self.0.now,
            xattrs: BTreeMap::new(),
            links: 0,
        });
        let child = nodes.len() - 1;
        let attached = Self::attach(&mut nodes, directory, name, child);
        if attached.is_err() {
            nodes.pop();
        }
        attached.map(|()| child)
    }

    fn stat_node(node: &Node, number: usize) -> Stat {
        Stat {
            kind: node.file_type(),
            mode: node.mode,
            uid: node.uid,
            gid: node.gid,
            size: match &node.kind {
                Kind::File(content) => content.size(),
                Kind::Symlink(target) => target.len() as u64,
                _ => 0,
            },
            inode: (0, number as u64),
            rdev: match &node.kind {
                Kind::Device(_, major, minor) => rustix::fs::makedev(*major, *minor),
                _ => 0,
            },
            modified: (node.mtime as i64, 0),
        }
    }

    pub(super) fn stat(&self, directory: usize, name: &str) -> Result<Stat, Errno> {
        let nodes = self.nodes();
        let child = Self::child(&nodes, directory, name)?;
        Ok(Self::stat_node(&nodes[child], child))
    }

    pub(super) fn stat_self(&self, at: usize) -> Stat {
        Self::stat_node(&self.nodes()[at], at)
    }

    pub(super) fn list(&self, directory: usize) -> Result<Vec<OsString>, Errno> {
        match &self.nodes()[directory].kind {
            Kind::Directory(names) => Ok(names.keys().map(OsString::from).collect()),
            _ => Err(Errno::NOTDIR),
        }
    }

    pub(super) fn create_file(
        &self,
        directory: usize,
        name: &str,
        mode: u32,
    ) -> Result<TreeFile, Errno> {
        let kind = Kind::File(Content::Spooled(Vec::new()));
        let node = self.make(directory, name, kind, mode)?;
        Ok(TreeFile {
            tree: self.clone(),
            node,
        })
    }

    /// Opens a file to write behind its end.
    pub(super) fn continue_file(&self, directory: usize, name: &str) -> Result<TreeFile, Errno> {
        let nodes = self.nodes();
        let node = Self::child(&nodes, directory, name)?;
        match &nodes[node].kind {
            Kind::File(Content::Spooled(_)) => Ok(TreeFile {
                tree: self.clone(),
                node,
            }),
            Kind::File(Content::Packed { .. }) => Err(Errno::ROFS),
            _ => Err(Errno::INVAL),
        }
    }

    pub(super) fn open_file(&self, directory: usize, name: &str) -> Result<TreeReader, Errno> {
        let at = Self::child(&self.nodes(), directory, name)?;
        self.open_node(at)
    }

    pub(super) fn open_node(&self, at: usize) -> Result<TreeReader, Errno> {
        match &self.nodes()[at].kind {
            Kind::File(content) => Ok(self.reader(content)),
            Kind::Directory(_) => Err(Errno::ISDIR),
            Kind::Symlink(_) => Err(Errno::LOOP),
            Kind::Device(..) => Err(Errno::NXIO),
        }
    }

    pub(super) fn read_link(&self, directory: usize, name: &str) -> Result<Vec<u8>, Errno> {
        let nodes = self.nodes();
        match &nodes[Self::child(&nodes, directory, name)?].kind {
            Kind::Symlink(target) => Ok(target.clone().into_bytes()),
            _ => Err(Errno::INVAL),
        }
    }

    pub(super) fn create_directory(
        &self,
        directory: usize,
        name: &str,
        mode: u32,
    ) -> Result<(), Errno> {
        let kind = Kind::Directory(BTreeMap::new());
        self.make(directory, name, kind, mode).map(drop)
    }

    pub(super) fn create_symlink(
        &self,
        directory: usize,
        target: &str,
        name: &str,
    ) -> Result<(), Errno> {
        let kind = Kind::Symlink(target.to_owned());
        self.make(directory, name, kind, 0o777).map(drop)
    }

    pub(super) fn create_hard_link(
        &self,
        from: usize,
        old: &str,
        directory: usize,
        name: &str,
    ) -> Result<(), Errno> {
        let mut nodes = self.nodes();
        let child = Self::child(&nodes, from, old)?;
        if matches!(nodes[child].kind, Kind::Directory(_)) {
            return Err(Errno::PERM);
        }
        Self::attach(&mut nodes, directory, name, child)
    }

    pub(super) fn create_node(
        &self,
        directory: usize,
        name: &str,
        kind: FileType,
        mode: u32,
        (major, minor): (u32, u32),
    ) -> Result<(), Errno> {
        self.make(directory, name, Kind::Device(kind, major, minor), mode)
            .map(drop)
    }

    pub(super) fn remove_file(&self, directory: usize, name: &str) -> Result<(), Errno> {
        let mut nodes = self.nodes();
        let child = Self::child(&nodes, directory, name)?;
        if matches!(nodes[child].kind, Kind::Directory(_)) {
            return Err(Errno::ISDIR);
        }
        Self::detach(&mut nodes, directory, name).map(drop)
    }

    pub(super) fn remove_directory(&self, directory: usize, name: &str) -> Result<(), Errno> {
        let mut nodes = self.nodes();
        let child = Self::child(&nodes, directory, name)?;
        match &nodes[child].kind {
            Kind::Directory(names) if names.is_empty() => {}
            Kind::Directory(_) => return Err(Errno::NOTEMPTY),
            _ => return Err(Errno::NOTDIR),
        }
        Self::detach(&mut nodes, directory, name).map(drop)
    }

    pub(super) fn rename(&self, from: (usize, &str), to: (usize, &str)) -> Result<(), Errno> {
        let mut nodes = self.nodes();
        let moved = Self::child(&nodes, from.0, from.1)?;
        let is_directory = matches!(nodes[moved].kind, Kind::Directory(_));
        if let Ok(present) = Self::child(&nodes, to.0, to.1) {
            if present == moved {
                return Ok(());
            }
            match (&nodes[present].kind, is_directory) {
                (Kind::Directory(_), false) => return Err(Errno::ISDIR),
                (Kind::Directory(names), true) if !names.is_empty() => {
                    return Err(Errno::NOTEMPTY);
                }
                (Kind::Directory(_), true) | (_, false) => {}
                (_, true) => return Err(Errno::NOTDIR),
            }
            Self::detach(&mut nodes, to.0, to.1)?;
        }
        Self::attach(&mut nodes, to.0, to.1, moved)?;
        Self::detach(&mut nodes, from.0, from.1).map(drop)
    }

    /// Changes a node in place.
    fn change(&self, at: usize, change: impl FnOnce(&mut Node)) {
        change(&mut self.nodes()[at]);
    }

    fn change_child(
        &self,
        directory: usize,
        name: &str,
        change: impl FnOnce(&mut Node) -> Result<(), Errno>,
    ) -> Result<(), Errno> {
        let mut nodes = self.nodes();
        let child = Self::child(&nodes, directory, name)?;
        change(&mut nodes[child])
    }

    pub(super) fn set_owner(
        &self,
        directory: usize,
        name: &str,
        uid: u32,
        gid: u32,
    ) -> Result<(), Errno> {
        self.change_child(directory, name, |node| {
            (node.uid, node.gid) = (uid, gid);
            Ok(())
        })
    }

    pub(super) fn set_mode(&self, directory: usize, name: &str, mode: u32) -> Result<(), Errno> {
        self.change_child(directory, name, |node| {
            if matches!(node.kind, Kind::Symlink(_)) {
                return Err(Errno::LOOP);
            }
            node.mode = mode & 0o7777;
            Ok(())
        })
    }

    pub(super) fn set_time(&self, directory: usize, name: &str, time: u64) -> Result<(), Errno> {
        self.change_child(directory, name, |node| {
            node.mtime = time;
            Ok(())
        })
    }

    /// Sets the mode of the root directory itself.
    pub fn set_root_mode(&self, mode: u32) {
        self.change(ROOT, |node| node.mode = mode & 0o7777);
    }

    /// Puts a file with content that is packed elsewhere, with its parents, or replaces the content
    /// of the file that is there.
    ///
    /// # Errors
    /// What a file system would say.
    pub fn put(&self, path: &str, content: Content, mode: u32) -> Result<(), Errno> {
        let (parent, name) = split(path);
        let directory = self.resolve_directory(parent)?;
        self.make(directory, name, Kind::File(content), mode)
            .map(drop)
    }

    /// Sets an extended attribute of a file.
    ///
    /// # Errors
    /// What a file system would say.
    pub fn set_attribute(&self, path: &str, name: &str, value: &[u8]) -> Result<(), Errno> {
        let (parent, file) = split(path);
        let directory = self.resolve_directory(parent)?;
        self.change_child(directory, file, |node| {
            node.xattrs.insert(name.to_owned(), value.to_vec());
            Ok(())
        })
    }

    fn spool(&self) -> io::Result<&File> {
        if let Some(file) = self.0.spool.get() {
            return Ok(file);
        }
        let file = tempfile::tempfile()?;
        Ok(self.0.spool.get_or_init(|| file))
    }

    fn write(&self, at: usize, bytes: &[u8]) -> io::Result<()> {
        let length = bytes.len() as u64;
        let offset = self.0.next.fetch_add(length, Ordering::Relaxed);
        self.spool()?.write_all_at(bytes, offset)?;
        self.change(at, |node| {
            let Kind::File(Content::Spooled(pieces)) = &mut node.kind else {
                return;
            };
            match pieces.last_mut() {
                Some((start, size)) if *start + *size == offset => *size += length,
                _ => pieces.push((offset, length)),
            }
        });
        Ok(())
    }
}

/// A file of a tree that is being written.
#[derive(Debug)]
pub struct TreeFile {
    tree: Tree,
    node: usize,
}

impl TreeFile {
    pub(super) fn write(&self, bytes: &[u8]) -> io::Result<usize> {
        if !bytes.is_empty() {
            self.tree.write(self.node, bytes)?;
        }
        Ok(bytes.len())
    }

    pub(super) fn set_owner(&self, uid: u32, gid: u32) -> Result<(), Errno> {
        self.tree
            .change(self.node, |node| (node.uid, node.gid) = (uid, gid));
        Ok(())
    }

    pub(super) fn set_mode(&self, mode: u32) -> Result<(), Errno> {
        self.tree
            .change(self.node, |node| node.mode = mode & 0o7777);
        Ok(())
    }

    pub(super) fn set_time(&self, time: u64) -> Result<(), Errno> {
        self.tree.change(self.node, |node| node.mtime = time);
        Ok(())
    }

    pub(super) fn set_attribute(&self, name: &str, value: &[u8]) -> Result<(), Errno> {
        self.tree.change(self.node, |node| {
            node.xattrs.insert(name.to_owned(), value.to_vec());
        });
        Ok(())
    }

    pub(super) fn size(&self) -> u64 {
        self.tree.stat_self(self.node).size
    }
}

/// Content of a tree that is being read.
#[derive(Debug)]
pub struct TreeReader {
    tree: Tree,
    content: Content,
    /// The piece that is read, and how much of it (or of packed content) was.
    piece: usize,
    done: u64,
    /// Content that was packed, as a whole: it can only be read from its start.
    unpacked: Option<io::Cursor<Vec<u8>>>,
}

impl Read for TreeReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match &self.content {
            Content::Spooled(pieces) => {
                let Some((offset, length)) = pieces.get(self.piece) else {
                    return Ok(0);
                };
                let most = buffer
                    .len()
                    .min(usize::try_from(length - self.done).unwrap_or(usize::MAX));
                let count = self
                    .tree
                    .spool()?
                    .read_at(&mut buffer[..most], offset + self.done)?;
                if count == 0 && most > 0 {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
                self.done += count as u64;
                if self.done == *length {
                    (self.piece, self.done) = (self.piece + 1, 0);
                }
                Ok(count)
            }
            Content::Packed {
                source,
                offset,
                size,
            } => {
                if self.unpacked.is_none() {
                    self.unpacked = Some(io::Cursor::new(source.unpack(*offset, *size)?));
                }
                self.unpacked
                    .as_mut()
                    .map_or(Ok(0), |whole| whole.read(buffer))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::root::{Root, RootError};
    use std::io::Write;

    /// Does the same to a root and writes down every answer.
    fn script(root: &Root) -> Vec<String> {
        let mut said = Vec::new();
        let mut say = |what: &str, result: Result<(), RootError>| {
            said.push(match result {
                Ok(()) => format!("{what}: ok"),
                Err(error) => format!("{what}: {error}"),
            });
        };
        let top = root.directory("").unwrap();
        say("mkdir", top.create_directory("usr", 0o755));
        say("mkdir again", top.create_directory("usr", 0o700));
        say("deep", root.create_directories("usr/lib/a"));
        say("link", top.create_symlink("usr/lib", "lib"));
        say("absolute", top.create_symlink("/usr/lib/../lib", "lib64"));
        say("loop", top.create_symlink("loop", "loop"));
        say("outside", top.create_symlink("../../..", "up"));
        say("write", root.replace("lib/x", b"one", 0o644, false));
        say("rewrite", root.replace("lib64/x", b"two", 0o600, false));
        let lib = root.directory("lib").unwrap();
        say("new", lib.create_file("x", 0o644).map(drop));
        let mut file = lib.create_file("y", 0o4755).unwrap();
        file.write_all(b"con").unwrap();
        file.write_all(b"tent").unwrap();
        file.set_time(7).unwrap();
        say("hard", top.create_hard_link(&lib, "y", "z"));
        say("hard again", top.create_hard_link(&lib, "y", "z"));
        say("rename onto itself", lib.rename_to("y", &top, "z"));
        say("rename onto directory", lib.rename("y", "a"));
        say("rename directory onto file", lib.rename("a", "x"));
        say("mode", lib.set_mode("y", 0o2711));
        say("mode of link", top.set_mode("lib", 0o700));
        say("rename", lib.rename("y", "x"));
        say("no file", lib.remove_file("nothing"));
        say("file is directory", lib.remove_file("a"));
        for path in ["loop", "up/usr", "lib/x/y", "nothing/x", "up/up/lib"] {
            say(path, root.directory(path).map(drop));
        }
        said.push(format!("{}", top.remove_directory("usr")));
        said.push(format!("{}", lib.remove_directory("a")));
        said.push(format!("{:?}", root.list("lib64")));
        said.push(format!("{:?}", root.read("up/lib/x").unwrap()));
        said.push(format!("{:?}", root.read("nothing").unwrap()));
        for path in [
            "usr/lib/x",
            "lib64",
            "z",
            "loop/x",
            "nothing",
            "usr/lib/x/y",
        ] {
            said.push(match root.stat(path) {
                Ok(Some(stat)) => format!("{path}: {:?} {:o} {}", stat.kind, stat.mode, stat.size),
                Ok(None) => format!("{path}: nothing"),
                Err(error) => format!("{path}: {error}"),
            });
        }
        let same =
            root.stat("z").unwrap().unwrap().inode == root.stat("lib/x").unwrap().unwrap().inode;
        said.push(format!("{same}"));
        said
    }

    #[test]
    fn a_tree_answers_as_a_disk_does() {
        let directory = tempfile::tempdir().unwrap();
        let disk = script(&Root::open(directory.path()).unwrap());
        let tree = Tree::new(5);
        assert_eq!(script(&Root::of_tree(&tree)), disk);
        let entries = tree.entries();
        let paths: Vec<&str> = entries.iter().map(|entry| entry.path.as_str()).collect();
        assert_eq!(
            paths,
            [
                "lib",
                "lib64",
                "loop",
                "up",
                "usr",
                "usr/lib",
                "usr/lib/x",
                "z"
            ]
        );
        let last = &entries[7];
        assert_eq!((last.links, last.mtime, last.node), (2, 7, entries[6].node));
        assert_eq!(entries[5].mtime, 5);
    }

    #[test]
    fn content_can_be_packed_elsewhere() {
        #[derive(Debug)]
        struct Letters;
        impl Packed for Letters {
            fn unpack(&self, offset: u64, size: u64) -> io::Result<Vec<u8>> {
                let end = (offset + size) as usize;
                let bytes = b"abcdefghij".get(offset as usize..end);
                Ok(bytes.ok_or(io::ErrorKind::UnexpectedEof)?.to_vec())
            }
        }
        let tree = Tree::new(0);
        let packed = |offset, size| Content::Packed {
            source: Arc::new(Letters),
            offset,
            size,
        };
        tree.put("a", packed(2, 4), 0o644).unwrap();
        tree.put("b", packed(8, 4), 0o644).unwrap();
        assert_eq!(tree.put("a", packed(0, 1), 0o644), Err(Errno::EXIST));
        let root = Root::of_tree(&tree);
        assert_eq!(root.read("a").unwrap().unwrap(), b"cdef");
        // Fewer bytes than were promised are an error, not a shorter file.
        assert!(root.read("b").is_err());
    }
}
