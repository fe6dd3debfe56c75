//! Writes v2 packages (formats.md, chapter 2): the same contents give the same bytes.
//!
//! Nothing of the machine enters: gzip headers carry no time, owners and times are those of the
//! entries, and the order is the one given. A package that readers would refuse or take for
//! malicious is refused here; [`data_tar`] and [`assemble`] are the parts without that check, for
//! whoever needs bad packages to test with.

use super::{FormatError, apk, pkginfo, record, tar};
use crate::package::dependency::join;
use crate::package::{Dependency, Package, ScriptKind};
use crate::trust::{KeyError, SignatureAlgorithm, SigningKey};
use flate2::{Compression, GzBuilder};
use sha1::{Digest, Sha1};
use sha2::Sha256;
use std::collections::{BTreeMap, HashMap};
use std::fmt::Write as _;
use std::io::Write as _;

const BLOCK: usize = 512;

/// The digest that signatures are over: 2.14 and 3.x know it, and it is not SHA-1.
const ALGORITHM: SignatureAlgorithm = SignatureAlgorithm::Rsa256;

/// Why a package or an index cannot be written.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// The format cannot hold it, or readers would refuse it.
    #[error("{what}: {reason}")]
    Unfit {
        /// The field or the path.
        what: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// It cannot be signed.
    #[error(transparent)]
    Key(#[from] KeyError),
}

/// Makes the error for something that cannot be written.
pub(super) fn unfit(what: impl Into<String>, reason: &'static str) -> WriteError {
    WriteError::Unfit {
        what: what.into(),
        reason,
    }
}

/// A package to write.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PackageContents {
    /// The fields of `.PKGINFO`; identity, file size and tags are not part of it.
    pub package: Package,
    /// The scripts.
    pub scripts: BTreeMap<ScriptKind, Vec<u8>>,
    /// The entries of the data part: a directory before what is in it, a file before its links.
    pub entries: Vec<EntrySpec>,
}

/// What an entry is, with its content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EntryContent {
    /// A regular file.
    File(Vec<u8>),
    /// Another name for an earlier file, given relative to the root.
    HardLink(String),
    /// A symbolic link.
    Symlink(String),
    /// A character device: major, minor.
    CharDevice(u32, u32),
    /// A block device: major, minor.
    BlockDevice(u32, u32),
    /// A directory.
    Directory,
    /// A FIFO.
    Fifo,
}

/// An entry of the data part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EntrySpec {
    /// Path relative to the root, without slashes at either end.
    pub path: String,
    /// What it is.
    pub content: EntryContent,
    /// Permission, set-id and sticky bits.
    pub mode: u32,
    /// Owner's name; may be empty.
    pub uname: String,
    /// Group's name; may be empty.
    pub gname: String,
    /// Numeric owner, used where the name is unknown.
    pub uid: u32,
    /// Numeric group, used where the name is unknown.
    pub gid: u32,
    /// Seconds since 1970.
    pub mtime: u64,
    /// Extended attributes by full name, such as `user.comment`.
    pub xattrs: BTreeMap<String, Vec<u8>>,
}

impl EntrySpec {
    /// Makes an entry of root with the usual mode of its kind and time 0.
    pub fn new(path: impl Into<String>, content: EntryContent) -> Self {
        let mode = match &content {
            EntryContent::Directory => 0o755,
            EntryContent::Symlink(_) => 0o777,
            _ => 0o644,
        };
        Self {
            path: path.into(),
            content,
            mode,
            uname: "root".into(),
            gname: "root".into(),
            uid: 0,
            gid: 0,
            mtime: 0,
            xattrs: BTreeMap::new(),
        }
    }
}

/// Writes a package, signed if there is a key.
///
/// # Errors
/// [`WriteError`] if the format cannot hold something, readers would refuse it, or signing fails.
pub fn write(contents: &PackageContents, key: Option<&SigningKey>) -> Result<Vec<u8>, WriteError> {
    check(contents)?;
    let data = gzip(&data_tar(&contents.entries)?);
    assemble(contents, &data, Sha256::digest(&data).into(), key)
}

/// Joins the metadata and scripts of a package with a ready data member.
///
/// Neither the entries of `contents` nor the agreement of `data_hash` with `data` are looked at.
///
/// # Errors
/// [`WriteError`] if a field does not fit a line, or signing fails.
pub fn assemble(
    contents: &PackageContents,
    data: &[u8],
    data_hash: [u8; 32],
    key: Option<&SigningKey>,
) -> Result<Vec<u8>, WriteError> {
    let info = pkginfo_text(&contents.package, data_hash)?;
    let mut control = Vec::new();
    let mtime = contents.package.build_time.unwrap_or(0);
    let mut file = |name: String, content: &[u8], mode| {
        let spec = EntrySpec {
            mode,
            mtime,
            ..EntrySpec::new(name, EntryContent::File(Vec::new()))
        };
        write_entry(&mut control, &spec, content)
    };
    file(".PKGINFO".into(), info.as_bytes(), 0o644)?;
    for (kind, script) in &contents.scripts {
        file(format!(".{}", kind.name()), script, 0o755)?;
    }
    let control = gzip(&control);
    let mut package = match key {
        Some(key) => signature_member(key, &control)?,
        None => Vec::new(),
    };
    package.extend_from_slice(&control);
    package.extend_from_slice(data);
    Ok(package)
}

/// Returns the signature member for signed bytes: one entry, no zero blocks.
///
/// # Errors
/// [`WriteError`] if signing fails or the key's name cannot be used.
pub fn signature_member(key: &SigningKey, signed: &[u8]) -> Result<Vec<u8>, WriteError> {
    let signature = key.sign(ALGORITHM, signed)?;
    let name = signature.key_name;
    if name.is_empty() || name.contains('/') || !record::fits_a_line(&name) {
        return Err(unfit(name, "cannot be the name of a key"));
    }
    let mut member = Vec::new();
    let entry = format!(".SIGN.{}.{name}", ALGORITHM.name());
    tar::write_gnu_entry(&mut member, &entry, &signature.bytes, 0o644, 0);
    Ok(gzip(&member))
}

/// Compresses into one gzip member whose header tells no time and no name.
pub fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzBuilder::new()
        .mtime(0)
        .operating_system(3)
        .write(Vec::new(), Compression::best());
    encoder
        .write_all(bytes)
        .and_then(|()| encoder.finish())
        .expect("memory takes everything")
}

/// Refuses what readers refuse.
fn check(contents: &PackageContents) -> Result<(), WriteError> {
    let mut seen: HashMap<&str, &EntryContent> = HashMap::new();
    for entry in &contents.entries {
        let path = entry.path.as_str();
        let wrong = |reason| Err(unfit(path.escape_debug().to_string(), reason));
        if let Some(reason) = apk::malicious(path) {
            return wrong(reason);
        }
        if path.starts_with('.') {
            return wrong("readers skip names that begin with a dot");
        }
        if let Some((parent, _)) = path.rsplit_once('/')
            && seen.get(parent) != Some(&&EntryContent::Directory)
        {
            return wrong("its directory does not come before it");
        }
        match &entry.content {
            EntryContent::HardLink(target)
                if !matches!(seen.get(target.as_str()), Some(EntryContent::File(_))) =>
            {
                return wrong("the file it links to does not come before it");
            }
            EntryContent::Symlink(target) if target.is_empty() || target.contains('\0') => {
                return wrong("it has no usable target");
            }
            _ => {}
        }
        if seen.insert(path, &entry.content).is_some() {
            return wrong("the name comes twice");
        }
    }
    Ok(())
}

/// Returns the tar of the data part: a PAX record before each entry that needs one, two zero
/// blocks at the end. Names are not judged.
///
/// # Errors
/// [`WriteError`] if a header field cannot hold its value.
pub fn data_tar(entries: &[EntrySpec]) -> Result<Vec<u8>, WriteError> {
    let mut out = Vec::new();
    for entry in entries {
        let content = match &entry.content {
            EntryContent::File(content) => content.as_slice(),
            _ => &[],
        };
        let records = pax_records(entry);
        if !records.is_empty() {
            let spec = EntrySpec::new("././@PaxHeader", EntryContent::File(Vec::new()));
            out.extend_from_slice(&header(&spec, records.len(), Some(b'x'))?);
            push_padded(&mut out, &records);
        }
        write_entry(&mut out, entry, content)?;
    }
    out.extend_from_slice(&[0; 2 * BLOCK]);
    Ok(out)
}

fn pax_records(entry: &EntrySpec) -> Vec<u8> {
    let mut records = Vec::new();
    let name = header_name(entry);
    if name.len() > 100 {
        push_record(&mut records, "path", name.as_bytes());
    }
    let (checked, target) = match &entry.content {
        EntryContent::File(content) => (Some(content.as_slice()), ""),
        EntryContent::Symlink(target) => (Some(target.as_bytes()), target.as_str()),
        EntryContent::HardLink(target) => (None, target.as_str()),
        _ => (None, ""),
    };
    if target.len() > 100 {
        push_record(&mut records, "linkpath", target.as_bytes());
    }
    for (name, value) in &entry.xattrs {
        push_record(&mut records, &format!("SCHILY.xattr.{name}"), value);
    }
    if let Some(content) = checked {
        let digest = data_encoding::HEXLOWER.encode(&Sha1::digest(content));
        push_record(&mut records, "APK-TOOLS.checksum.SHA1", digest.as_bytes());
    }
    records
}

/// Appends `LEN SP KEY = VALUE LF`; LEN counts its own digits.
fn push_record(out: &mut Vec<u8>, key: &str, value: &[u8]) {
    let rest = key.len() + value.len() + 3;
    let mut length = rest + 1;
    while rest + length.to_string().len() != length {
        length = rest + length.to_string().len();
    }
    out.extend_from_slice(format!("{length} {key}=").as_bytes());
    out.extend_from_slice(value);
    out.push(b'\n');
}

fn write_entry(out: &mut Vec<u8>, entry: &EntrySpec, content: &[u8]) -> Result<(), WriteError> {
    out.extend_from_slice(&header(entry, content.len(), None)?);
    push_padded(out, content);
    Ok(())
}

fn header_name(entry: &EntrySpec) -> String {
    match entry.content {
        EntryContent::Directory => format!("{}/", entry.path),
        _ => entry.path.clone(),
    }
}

fn header(entry: &EntrySpec, size: usize, flag: Option<u8>) -> Result<[u8; BLOCK], WriteError> {
    let (kind, target, device) = match &entry.content {
        EntryContent::File(_) => (b'0', "", None),
        EntryContent::HardLink(target) => (b'1', target.as_str(), None),
        EntryContent::Symlink(target) => (b'2', target.as_str(), None),
        EntryContent::CharDevice(major, minor) => (b'3', "", Some((*major, *minor))),
        EntryContent::BlockDevice(major, minor) => (b'4', "", Some((*major, *minor))),
        EntryContent::Directory => (b'5', "", None),
        EntryContent::Fifo => (b'6', "", None),
    };
    let mut block = [0u8; BLOCK];
    let wrong = |reason| unfit(entry.path.escape_debug().to_string(), reason);
    let mut put = |at: usize, bytes: &[u8]| block[at..at + bytes.len()].copy_from_slice(bytes);
    let name = header_name(entry);
    put(0, &name.as_bytes()[..name.len().min(100)]);
    let mut numbers = vec![
        (100, 7, u64::from(entry.mode & 0o7777)),
        (108, 7, entry.uid.into()),
        (116, 7, entry.gid.into()),
        (124, 11, size as u64),
        (136, 11, entry.mtime),
    ];
    if let Some((major, minor)) = device {
        numbers.extend([(329, 7, major.into()), (337, 7, minor.into())]);
    }
    for (at, digits, value) in numbers {
        let text = format!("{value:0digits$o}");
        if text.len() > digits {
            return Err(wrong("a number is too large for its header"));
        }
        put(at, text.as_bytes());
    }
    put(156, &[flag.unwrap_or(kind)]);
    put(157, &target.as_bytes()[..target.len().min(100)]);
    put(257, b"ustar\x0000");
    for (at, name) in [(265, &entry.uname), (297, &entry.gname)] {
        if name.len() > 31 || name.contains('\0') {
            return Err(wrong("an owner's name does not fit its header"));
        }
        put(at, name.as_bytes());
    }
    block[148..156].fill(b' ');
    let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
    block[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
    Ok(block)
}

fn push_padded(out: &mut Vec<u8>, content: &[u8]) {
    out.extend_from_slice(content);
    out.resize(out.len().next_multiple_of(BLOCK), 0);
}

/// Returns the text of `.PKGINFO`; fields that are not set are left out.
fn pkginfo_text(package: &Package, data_hash: [u8; 32]) -> Result<String, WriteError> {
    pkginfo::check_name(&package.name).map_err(|error| match error {
        FormatError::Package { .. } => unfit("pkgname", "it is no package name"),
        _ => unfit("pkgname", "it cannot be used"),
    })?;
    if package.version.is_empty() {
        return Err(unfit("pkgver", "it is missing"));
    }
    let mut text = String::new();
    let mut line = |key: &'static str, value: &str| {
        if !record::fits_a_line(value) {
            return Err(unfit(key, "it does not fit a line"));
        }
        if !value.is_empty() {
            let _ = writeln!(text, "{key} = {value}");
        }
        Ok(())
    };
    let optional = |value: &Option<String>| value.clone().unwrap_or_default();
    let number = |value: u64| value.to_string();
    let priority = |value: u16| match value {
        0 => String::new(),
        value => value.to_string(),
    };
    line("pkgname", &package.name)?;
    line("pkgver", &package.version)?;
    line("pkgdesc", &package.description)?;
    line("url", &package.url)?;
    line(
        "builddate",
        &package.build_time.map(number).unwrap_or_default(),
    )?;
    line("size", &number(package.installed_size))?;
    line("arch", &optional(&package.arch))?;
    line("origin", &optional(&package.origin))?;
    line("commit", &optional(&package.commit))?;
    line("maintainer", &optional(&package.maintainer))?;
    line("replaces_priority", &priority(package.replaces_priority))?;
    line("provider_priority", &priority(package.provider_priority))?;
    line("license", &package.license)?;
    for (key, list) in [
        ("replaces", &package.replaces),
        ("depend", &package.depends),
        ("provides", &package.provides),
    ] {
        for dependency in list {
            line(key, &word(key, dependency)?)?;
        }
    }
    for dependency in &package.install_if {
        word("install_if", dependency)?;
    }
    line("install_if", &join(&package.install_if))?;
    if package
        .triggers
        .iter()
        .any(|glob| glob.is_empty() || glob.contains(' '))
    {
        return Err(unfit("triggers", "a pattern is empty or has spaces"));
    }
    line("triggers", &package.triggers.join(" "))?;
    line("datahash", &data_encoding::HEXLOWER.encode(&data_hash))?;
    Ok(text)
}

/// Returns a dependency as text, if it is one word.
fn word(key: &'static str, dependency: &Dependency) -> Result<String, WriteError> {
    let text = dependency.to_string();
    if dependency.name.is_empty() || text.contains([' ', '@']) {
        return Err(unfit(key, "a name is empty or has spaces or a tag"));
    }
    Ok(text)
}
