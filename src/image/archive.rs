//! Tar archives as layers need them (image.md, 8.1 and 8.2).
//!
//! ustar, and a pax header only for an entry that needs one; owners by number and by the names that
//! the image itself gives them; whole seconds; nothing of the machine that writes. The same entries
//! are the same bytes.

use crate::root::tree::{EntryKind, Tree, TreeEntry};
use std::collections::HashMap;
use std::io::{self, Read, Write};

pub(super) const BLOCK: usize = 512;

/// The largest number that eleven octal digits hold.
const LARGEST: u64 = 0o777_7777_7777;

/// Names of users and groups by number, as the image has them.
#[derive(Clone, Debug, Default)]
pub(super) struct Names {
    users: HashMap<u32, String>,
    groups: HashMap<u32, String>,
}

impl Names {
    /// Reads the texts of `etc/passwd` and `etc/group`; the first name of a number counts.
    pub(super) fn new(passwd: &str, group: &str) -> Self {
        let table = |text: &str| {
            let mut names = HashMap::new();
            for line in text.lines() {
                let mut fields = line.split(':');
                let (name, number) = (fields.next().unwrap_or_default(), fields.nth(1));
                if let Some(number) = number.and_then(|number| number.parse().ok()) {
                    names.entry(number).or_insert_with(|| name.to_owned());
                }
            }
            names
        };
        Self {
            users: table(passwd),
            groups: table(group),
        }
    }

    fn user(&self, uid: u32) -> &str {
        self.users.get(&uid).map_or("", String::as_str)
    }

    fn group(&self, gid: u32) -> &str {
        self.groups.get(&gid).map_or("", String::as_str)
    }
}

/// What an entry is in an archive.
#[derive(Clone, Debug)]
pub(super) enum What<'a> {
    /// What the tree says.
    Tree(&'a TreeEntry),
    /// Another name for a file that came before.
    Link(&'a TreeEntry, &'a str),
}

/// Writes entries.
pub(super) struct Writer<'a, W> {
    out: W,
    tree: &'a Tree,
    names: &'a Names,
    /// Bytes written so far.
    position: u64,
}

impl<'a, W: Write> Writer<'a, W> {
    pub(super) fn new(out: W, tree: &'a Tree, names: &'a Names) -> Self {
        Self {
            out,
            tree,
            names,
            position: 0,
        }
    }

    /// Writes one entry with its content; returns where the content begins.
    pub(super) fn entry(&mut self, what: &What<'_>, mtime: u64) -> io::Result<u64> {
        let (entry, link) = match what {
            What::Tree(entry) => (*entry, None),
            What::Link(entry, target) => (*entry, Some(*target)),
        };
        let content = match (&entry.kind, link) {
            (EntryKind::File(content), None) => Some(content),
            _ => None,
        };
        let size = content.map_or(0, crate::root::tree::Content::size);
        let (head, _) = self.head(entry, link, size, mtime);
        self.put(&head)?;
        let start = self.position;
        if let Some(content) = content.filter(|_| size > 0) {
            let mut reader = self.tree.reader(content).take(size);
            let copied = io::copy(&mut reader, &mut self.out)?;
            if copied != size {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            self.position += size;
            let padding = (size.wrapping_neg() % BLOCK as u64) as usize;
            self.put(&[0; BLOCK][..padding])?;
        }
        Ok(start)
    }

    /// Writes what ends an archive.
    pub(super) fn end(&mut self) -> io::Result<()> {
        self.put(&[0; 2 * BLOCK])
    }

    pub(super) fn into_inner(self) -> W {
        self.out
    }

    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.position += bytes.len() as u64;
        self.out.write_all(bytes)
    }

    /// Makes the headers of an entry.
    fn head(
        &self,
        entry: &TreeEntry,
        link: Option<&str>,
        size: u64,
        mtime: u64,
    ) -> (Vec<u8>, usize) {
        let target = match (&entry.kind, link) {
            (_, Some(target)) => target,
            (EntryKind::Symlink(target), None) => target,
            _ => "",
        };
        let (flag, device) = match (&entry.kind, link) {
            (_, Some(_)) => (b'1', None),
            (EntryKind::File(_), None) => (b'0', None),
            (EntryKind::Symlink(_), None) => (b'2', None),
            (EntryKind::Directory, None) => (b'5', None),
            (EntryKind::Fifo, None) => (b'6', Some((0, 0))),
            (EntryKind::Device(block, major, minor), None) => {
                (if *block { b'4' } else { b'3' }, Some((*major, *minor)))
            }
        };
        let (user, group) = (self.names.user(entry.uid), self.names.group(entry.gid));
        // Sorted by key, so that the same entry is the same bytes.
        let mut records: Vec<(String, Vec<u8>)> = Vec::new();
        if matches!(entry.kind, EntryKind::File(_) | EntryKind::Directory) && link.is_none() {
            for (name, value) in &entry.xattrs {
                records.push((format!("SCHILY.xattr.{name}"), value.clone()));
            }
        }
        if group.len() > 31 || !group.is_ascii() {
            records.push(("gname".into(), group.into()));
        }
        if u64::from(entry.gid) > 0o777_7777 {
            records.push(("gid".into(), entry.gid.to_string().into_bytes()));
        }
        if target.len() > 100 || !target.is_ascii() {
            records.push(("linkpath".into(), target.into()));
        }
        let split = split_name(&entry.path);
        if split.is_none() || !entry.path.is_ascii() {
            records.push(("path".into(), entry.path.clone().into_bytes()));
        }
        if size > LARGEST {
            records.push(("size".into(), size.to_string().into_bytes()));
        }
        if u64::from(entry.uid) > 0o777_7777 {
            records.push(("uid".into(), entry.uid.to_string().into_bytes()));
        }
        if user.len() > 31 || !user.is_ascii() {
            records.push(("uname".into(), user.into()));
        }
        records.sort();
        let mut head = Vec::with_capacity(BLOCK);
        if !records.is_empty() {
            let mut text = Vec::new();
            for (key, value) in &records {
                push_record(&mut text, key, value);
            }
            let base = entry.path.rsplit('/').next().unwrap_or_default();
            let mut name = format!("PaxHeaders.0/{base}");
            while name.len() > 100 {
                name.pop();
            }
            let fields = Fields {
                name: ("", &name),
                mode: 0o644,
                flag: b'x',
                size: text.len() as u64,
                ..Fields::default()
            };
            head.extend_from_slice(&fields.block());
            head.extend_from_slice(&text);
            head.resize(head.len().next_multiple_of(BLOCK), 0);
        }
        let plain = |text: &'_ str, most: usize| text.is_ascii() && text.len() <= most;
        let fields = Fields {
            name: split.unwrap_or_else(|| ("", cut(&entry.path, 100))),
            mode: entry.mode,
            uid: entry.uid,
            gid: entry.gid,
            user: if plain(user, 31) { user } else { "" },
            group: if plain(group, 31) { group } else { "" },
            size,
            mtime,
            flag,
            target: cut(target, 100),
            device: device.unwrap_or_default(),
        };
        head.extend_from_slice(&fields.block());
        let length = head.len();
        (head, length)
    }
}

/// Passes bytes on in pieces of one size, but the last.
///
/// What a compressor makes of the same bytes depends on how many it gets at once, and that depends
/// on how content happens to lie in a temporary file.
pub(super) struct Pieces<W> {
    inner: W,
    piece: Vec<u8>,
}

const PIECE: usize = 128 << 10;

impl<W: Write> Pieces<W> {
    pub(super) fn new(inner: W) -> Self {
        Self {
            inner,
            piece: Vec::with_capacity(PIECE),
        }
    }

    /// Passes the last piece on.
    pub(super) fn finish(mut self) -> io::Result<W> {
        self.inner.write_all(&self.piece)?;
        Ok(self.inner)
    }
}

impl<W: Write> Write for Pieces<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = bytes.len().min(PIECE - self.piece.len());
        self.piece.extend_from_slice(&bytes[..count]);
        if self.piece.len() == PIECE {
            self.inner.write_all(&self.piece)?;
            self.piece.clear();
        }
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Cuts a text to at most so many bytes.
fn cut(text: &str, most: usize) -> &str {
    let mut end = text.len().min(most);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

/// Splits a path into the prefix and name of a ustar header; `None` if it does not fit.
fn split_name(path: &str) -> Option<(&str, &str)> {
    if path.len() <= 100 {
        return Some(("", path));
    }
    let from = path.len() - 101;
    let slash = from
        + path.as_bytes()[from..]
            .iter()
            .position(|byte| *byte == b'/')?;
    (slash <= 155 && slash > 0 && slash + 1 < path.len())
        .then(|| (&path[..slash], &path[slash + 1..]))
}

/// Appends `LENGTH KEY=VALUE` with a line break.
fn push_record(out: &mut Vec<u8>, key: &str, value: &[u8]) {
    let rest = key.len() + value.len() + 3;
    let mut length = rest + 1;
    while length.to_string().len() + rest != length {
        length = length.to_string().len() + rest;
    }
    out.extend_from_slice(format!("{length} {key}=").as_bytes());
    out.extend_from_slice(value);
    out.push(b'\n');
}

/// The fields of a ustar header.
#[derive(Default)]
struct Fields<'a> {
    name: (&'a str, &'a str),
    mode: u32,
    uid: u32,
    gid: u32,
    user: &'a str,
    group: &'a str,
    size: u64,
    mtime: u64,
    flag: u8,
    target: &'a str,
    device: (u32, u32),
}

impl Fields<'_> {
    fn block(&self) -> [u8; BLOCK] {
        let mut block = [0; BLOCK];
        let mut text = |at: usize, text: &str| {
            block[at..at + text.len()].copy_from_slice(text.as_bytes());
        };
        text(0, self.name.1);
        text(100, &format!("{:07o}", self.mode & 0o7777));
        // What does not fit is in a pax record.
        let id = |id: u32| if id > 0o777_7777 { 0 } else { id };
        text(108, &format!("{:07o}", id(self.uid)));
        text(116, &format!("{:07o}", id(self.gid)));
        let size = if self.size > LARGEST { 0 } else { self.size };
        text(124, &format!("{size:011o}"));
        text(136, &format!("{:011o}", self.mtime.min(LARGEST)));
        text(157, self.target);
        text(257, "ustar");
        text(263, "00");
        text(265, self.user);
        text(297, self.group);
        text(329, &format!("{:07o}", self.device.0));
        text(337, &format!("{:07o}", self.device.1));
        text(345, self.name.0);
        block[156] = self.flag;
        block[148..156].fill(b' ');
        let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
        block[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
        block
    }
}

/// A header for a file of an archive that is no layer: owner 0:0, mode 0644, time 0.
pub(super) fn plain_header(name: &str, size: u64) -> Vec<u8> {
    let fields = Fields {
        name: ("", name),
        mode: 0o644,
        size,
        flag: b'0',
        ..Fields::default()
    };
    fields.block().to_vec()
}

/// A header for a directory of such an archive.
pub(super) fn plain_directory(name: &str) -> Vec<u8> {
    let fields = Fields {
        name: ("", name),
        mode: 0o755,
        flag: b'5',
        ..Fields::default()
    };
    fields.block().to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::root::Root;

    #[test]
    fn what_the_tar_crate_reads_is_what_was_meant() {
        let tree = Tree::new(7);
        let root = Root::of_tree(&tree);
        let long = format!("{}/{}", "d".repeat(90), "n".repeat(90));
        let longer = format!("{}/{}", "e".repeat(160), "m".repeat(120));
        for path in ["a", "ä", &long, &longer] {
            root.replace(path, b"content", 0o4755, false)
                .expect("a tree takes it");
        }
        let top = root.directory("").expect("the root");
        top.set_owner("a", 3_000_000, 12).expect("it is there");
        top.create_symlink(&"t".repeat(120), "z")
            .expect("a tree takes it");
        let names = Names::new("x:x:5:\n", "audio:x:12:\n");
        let mut writer = Writer::new(Vec::new(), &tree, &names);
        let entries = tree.entries();
        for entry in &entries {
            writer
                .entry(&What::Tree(entry), entry.mtime)
                .expect("memory");
        }
        writer.end().expect("memory");
        let bytes = writer.into_inner();
        let mut archive = tar::Archive::new(bytes.as_slice());
        let mut seen = Vec::new();
        for entry in archive.entries().expect("an archive") {
            let entry = entry.expect("an entry");
            let header = entry.header();
            let path = String::from_utf8(entry.path_bytes().into_owned()).expect("text");
            seen.push((
                path,
                header.mode().expect("octal"),
                header.mtime().expect("octal"),
                entry.link_name_bytes().map(|link| link.len()),
                header.groupname().ok().flatten().map(str::to_owned),
            ));
        }
        let wanted: Vec<_> = entries
            .iter()
            .map(|entry| {
                let link = matches!(entry.kind, EntryKind::Symlink(_)).then_some(120);
                let group = if entry.gid == 12 { "audio" } else { "" };
                (
                    entry.path.clone(),
                    entry.mode,
                    7,
                    link,
                    Some(group.to_owned()),
                )
            })
            .collect();
        assert_eq!(seen, wanted);
        let text = String::from_utf8_lossy(&bytes);
        assert!(text.contains("15 uid=3000000\n"));
    }

    #[test]
    fn a_record_counts_its_own_length() {
        for length in 0..1100 {
            let mut out = Vec::new();
            push_record(&mut out, "k", &vec![b'v'; length]);
            let text = String::from_utf8(out).expect("ascii");
            let said: usize = text
                .split(' ')
                .next()
                .expect("a length")
                .parse()
                .expect("a number");
            assert_eq!(said, text.len());
        }
    }
}
