//! v2 packages: three gzip members — signature, control, data — read in one pass
//! (formats.md, chapter 2).
//!
//! The borders between members are found only by decompressing. Nothing is written to disk here,
//! and no signature is judged: the caller gets digests and decides.

use super::apk::{ControlPart, Entry, Form};
use super::tar::{self, Header};
use super::{FormatError, Limits, pkginfo};
use crate::package::{Identity, Package, ScriptKind};
use crate::trust::{Signature, SignatureAlgorithm, SignedDigests};
use flate2::bufread::GzDecoder;
use sha1::Sha1;
use sha2::{Digest, Sha256, Sha512};
use std::collections::BTreeMap;
use std::io::{self, BufRead, Read};

/// Bytes of data that are inflated at once, at most.
const WHOLE_DATA: usize = 8 << 20;

/// Hashes what is consumed.
struct Hashing<R, H> {
    inner: R,
    hash: H,
    count: u64,
}

trait Hasher {
    fn update(&mut self, bytes: &[u8]);
}

#[derive(Default)]
struct ThreeHashes {
    sha1: Sha1,
    sha256: Sha256,
    sha512: Sha512,
}

impl Hasher for ThreeHashes {
    fn update(&mut self, bytes: &[u8]) {
        Digest::update(&mut self.sha1, bytes);
        Digest::update(&mut self.sha256, bytes);
        Digest::update(&mut self.sha512, bytes);
    }
}

impl Hasher for Sha256 {
    fn update(&mut self, bytes: &[u8]) {
        Digest::update(self, bytes);
    }
}

impl<R: BufRead, H: Hasher> Read for Hashing<R, H> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let available = self.fill_buf()?;
        let count = available.len().min(buffer.len());
        buffer[..count].copy_from_slice(&available[..count]);
        self.consume(count);
        Ok(count)
    }
}

impl<R: BufRead, H: Hasher> BufRead for Hashing<R, H> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        self.inner.fill_buf()
    }

    fn consume(&mut self, count: usize) {
        // The buffer was filled before; asking again returns the same bytes without reading.
        if let Ok(bytes) = self.inner.fill_buf() {
            self.hash.update(&bytes[..count.min(bytes.len())]);
        }
        self.count += count as u64;
        self.inner.consume(count);
    }
}

/// Reads signatures and control part; the data part is left to the returned reader.
///
/// # Errors
/// [`FormatError`].
pub(super) fn open<R: BufRead>(
    source: R,
    limits: &Limits,
) -> Result<(ControlPart, DataReader<R>), FormatError> {
    let (control, data_hash, before, rest) = open_control(source, limits)?;
    let room = limits.unpacked_of(control.package.installed_size);
    let inflated = Inflated::stream(rest);
    let data = DataReader::new(inflated, data_hash, before, room, *limits);
    Ok((control, data))
}

/// As [`open`], of a file that is in memory as a whole.
///
/// # Errors
/// [`FormatError`].
pub(super) fn open_whole<'a>(
    file: &'a [u8],
    limits: &Limits,
) -> Result<(ControlPart, DataReader<&'a [u8]>), FormatError> {
    let (control, data_hash, before, rest) = open_control(file, limits)?;
    let room = limits.unpacked_of(control.package.installed_size);
    // What is not as it should be is read as a stream, which tells what is wrong, and where.
    let inflated = match inflate_whole(rest, data_hash) {
        Some(data) => Inflated::Whole {
            data: io::Cursor::new(data),
            stored: rest.len() as u64,
        },
        None => Inflated::stream(rest),
    };
    let data = DataReader::new(inflated, data_hash, before, room, *limits);
    Ok((control, data))
}

fn open_control<R: BufRead>(
    mut source: R,
    limits: &Limits,
) -> Result<(ControlPart, [u8; 32], u64, R), FormatError> {
    let start = source.fill_buf()?;
    // apk looks at the first four bytes to tell what a file is.
    if start.len() >= 4 && !start.starts_with(&[0x1f, 0x8b]) {
        return Err(FormatError::Invalid);
    }
    let mut signatures = Vec::new();
    let mut before = 0;
    loop {
        let (member, rest) = read_member(source, limits, &mut signatures)?;
        source = rest;
        before += member.size;
        let Some(files) = member.control else {
            if source.fill_buf()?.is_empty() {
                return Err(FormatError::UnexpectedEnd);
            }
            continue;
        };
        let (control, data_hash) = files.finish(signatures, member.hash)?;
        return Ok((control, data_hash, before, source));
    }
}

/// Inflates a data member that has the wanted hash; `None` if it is damaged or too large for that.
///
/// The last bytes of a gzip member give its size, so something that follows it is noticed, too,
/// unless who signed the package made it end in the same four bytes.
fn inflate_whole(member: &[u8], wanted: [u8; 32]) -> Option<Vec<u8>> {
    let size = u32::from_le_bytes(*member.last_chunk()?) as usize;
    if size > WHOLE_DATA || Sha256::digest(member).as_slice() != wanted {
        return None;
    }
    let mut data = vec![0; size];
    let mut inflater = libdeflater::Decompressor::new();
    let written = inflater.gzip_decompress(member, &mut data).ok()?;
    (written == size).then_some(data)
}

/// The data part, inflated.
enum Inflated<R: BufRead> {
    /// Inflated and hashed as it is read. One buffer for headers; larger reads pass it by.
    Stream(Box<io::BufReader<GzDecoder<Hashing<R, Sha256>>>>),
    /// Inflated before, of a member that has the right hash.
    Whole {
        data: io::Cursor<Vec<u8>>,
        /// Bytes of the member.
        stored: u64,
    },
}

impl<R: BufRead> Inflated<R> {
    fn stream(source: R) -> Self {
        let hashing = Hashing {
            inner: source,
            hash: Sha256::new(),
            count: 0,
        };
        Self::Stream(Box::new(io::BufReader::with_capacity(
            32 << 10,
            GzDecoder::new(hashing),
        )))
    }
}

impl<R: BufRead> Read for Inflated<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Stream(stream) => stream.read(buffer),
            Self::Whole { data, .. } => data.read(buffer),
        }
    }
}

/// The stored parts of a package file, as lock files name them.
#[derive(Clone, Debug)]
pub struct PackageParts {
    /// Bytes of the signatures; 0 without any.
    pub signature: u64,
    /// SHA-1 of the signatures.
    pub signature_sha1: [u8; 20],
    /// Bytes of the control part.
    pub control: u64,
    /// Bytes of the data part.
    pub data: u64,
    /// SHA-256 of the data part.
    pub data_sha256: [u8; 32],
    /// SHA-256 of the whole file.
    pub file_sha256: [u8; 32],
    /// What the control part says.
    pub package: ControlPart,
}

impl PackageParts {
    /// Finds the parts of a file that is held in memory; nothing is judged but that the data part
    /// has the hash that the control part gives.
    ///
    /// # Errors
    /// [`FormatError`].
    pub fn read(file: &[u8], limits: &Limits) -> Result<Self, FormatError> {
        if file.starts_with(b"ADB") {
            return Self::of_v3(file, limits);
        }
        let mut signatures = Vec::new();
        let mut rest = file;
        let mut signature = 0;
        loop {
            let (member, after) = read_member(rest, limits, &mut signatures)?;
            rest = after;
            let Some(files) = member.control else {
                signature += member.size;
                if rest.is_empty() {
                    return Err(FormatError::UnexpectedEnd);
                }
                continue;
            };
            let (package, data_hash) = files.finish(signatures, member.hash)?;
            let data_sha256: [u8; 32] = Sha256::digest(rest).into();
            if data_sha256 != data_hash {
                return Err(FormatError::Integrity);
            }
            let signed = usize::try_from(signature).unwrap_or(usize::MAX);
            return Ok(Self {
                signature,
                signature_sha1: Sha1::digest(file.get(..signed).unwrap_or_default()).into(),
                control: member.size,
                data: rest.len() as u64,
                data_sha256,
                file_sha256: Sha256::digest(file).into(),
                package,
            });
        }
    }
}

impl PackageParts {
    /// Takes a file of the v3 form for data as a whole, and reads it to its end.
    fn of_v3(file: &[u8], limits: &Limits) -> Result<Self, FormatError> {
        let (package, data) = super::apk_v3::open(file, limits)?;
        data.finish()?;
        let file_sha256 = Sha256::digest(file).into();
        Ok(Self {
            signature: 0,
            signature_sha1: Sha1::digest([]).into(),
            control: 0,
            data: file.len() as u64,
            data_sha256: file_sha256,
            file_sha256,
            package,
        })
    }
}

/// The entries of the control member.
#[derive(Default)]
struct ControlFiles {
    pkginfo: Option<Vec<u8>>,
    scripts: BTreeMap<ScriptKind, Vec<u8>>,
}

struct Member {
    hash: ThreeHashes,
    size: u64,
    /// `None` if it held only signatures.
    control: Option<ControlFiles>,
}

fn read_member<R: BufRead>(
    source: R,
    limits: &Limits,
    signatures: &mut Vec<Signature>,
) -> Result<(Member, R), FormatError> {
    let hashing = Hashing {
        inner: source,
        hash: ThreeHashes::default(),
        count: 0,
    };
    let bounded = GzDecoder::new(hashing).take(limits.control);
    let mut reader = tar::Reader::new(bounded, *limits);
    let mut control = None;
    let read = read_entries(&mut reader, limits, signatures, &mut control);
    let mut bounded = reader.into_inner();
    // At the limit the archive seems to end, too.
    let rest = read.and_then(|()| Ok(io::copy(&mut bounded, &mut io::sink())?));
    if bounded.limit() == 0 {
        return Err(FormatError::TooLarge {
            what: "control part",
            limit: limits.control,
        });
    }
    rest?;
    let Hashing { inner, hash, count } = bounded.into_inner().into_inner();
    Ok((
        Member {
            hash,
            size: count,
            control,
        },
        inner,
    ))
}

fn read_entries<R: Read>(
    reader: &mut tar::Reader<R>,
    limits: &Limits,
    signatures: &mut Vec<Signature>,
    control: &mut Option<ControlFiles>,
) -> Result<(), FormatError> {
    while let Some(header) = reader.next_entry()? {
        if let Some(name) = header.path.strip_prefix(".SIGN.") {
            read_signature(name, reader, limits, signatures)?;
        } else {
            let files = control.get_or_insert_with(ControlFiles::default);
            files.take(&header, reader, limits)?;
        }
    }
    Ok(())
}

pub(super) fn read_signature<R: Read>(
    name: &str,
    reader: &mut tar::Reader<R>,
    limits: &Limits,
    signatures: &mut Vec<Signature>,
) -> Result<(), FormatError> {
    let Some((algorithm, key_name)) = name.split_once('.') else {
        return Ok(());
    };
    let Some(algorithm) = SignatureAlgorithm::from_name(algorithm) else {
        return Ok(());
    };
    if key_name.contains('/') || signatures.len() as u64 >= limits.signatures {
        return Ok(());
    }
    match reader.read_content(limits.signature, "signature") {
        Ok(bytes) => signatures.push(Signature {
            algorithm,
            key_name: key_name.into(),
            bytes,
        }),
        Err(FormatError::TooLarge { .. }) => {}
        Err(error) => return Err(error),
    }
    Ok(())
}

impl ControlFiles {
    fn take<R: Read>(
        &mut self,
        header: &Header,
        reader: &mut tar::Reader<R>,
        limits: &Limits,
    ) -> Result<(), FormatError> {
        let Some(name) = header.path.strip_prefix('.') else {
            return Err(FormatError::NotSupported);
        };
        if name == "PKGINFO" {
            self.pkginfo = Some(reader.read_content(limits.pkginfo, ".PKGINFO")?);
        } else if name == "INSTALL" {
            return Err(FormatError::Package {
                reason: ".INSTALL is not supported".into(),
            });
        } else if let Some(kind) = ScriptKind::from_name(name) {
            self.scripts
                .insert(kind, reader.read_content(limits.script, "script")?);
        }
        Ok(())
    }

    fn finish(
        self,
        signatures: Vec<Signature>,
        hash: ThreeHashes,
    ) -> Result<(ControlPart, [u8; 32]), FormatError> {
        let missing = || FormatError::Package {
            reason: ".PKGINFO is missing".into(),
        };
        let info = pkginfo::parse(&self.pkginfo.ok_or_else(missing)?)?;
        let identity = Identity(hash.sha1.finalize().into());
        let data_hash = info.data_hash.ok_or(FormatError::Obsolete)?;
        let control = ControlPart {
            signatures,
            digests: SignedDigests {
                sha1: Some(identity.0),
                sha256: Some(hash.sha256.finalize().into()),
                sha512: Some(hash.sha512.finalize().into()),
                adb: None,
            },
            identity,
            package: Package {
                identity,
                ..info.package
            },
            form: Form::V2 { data_hash },
            scripts: self.scripts,
        };
        Ok((control, data_hash))
    }
}

/// Walks over the data part; `Read` gives the content of the current entry.
pub(super) struct DataReader<R: BufRead> {
    reader: tar::Reader<Inflated<R>>,
    data_hash: [u8; 32],
    before: u64,
    /// Bytes of content that may still come, and all that might have come.
    room: u64,
    most: u64,
}

impl<R: BufRead> DataReader<R> {
    fn new(
        inflated: Inflated<R>,
        data_hash: [u8; 32],
        before: u64,
        room: u64,
        limits: Limits,
    ) -> Self {
        Self {
            reader: tar::Reader::new(inflated, limits),
            data_hash,
            before,
            room,
            most: room,
        }
    }

    /// Moves to the next entry. Names that begin with a dot are skipped, as apk does.
    ///
    /// # Errors
    /// [`FormatError`].
    pub(super) fn next_entry(&mut self) -> Result<Option<Entry>, FormatError> {
        while let Some(header) = self.next_header()? {
            if is_skipped(&header.path) {
                continue;
            }
            let path = header
                .path
                .strip_suffix('/')
                .unwrap_or(&header.path)
                .to_owned();
            return Ok(Some(Entry::new(path, header)));
        }
        Ok(None)
    }

    /// Counts what an entry unpacks to against what the package announced.
    fn next_header(&mut self) -> Result<Option<Header>, FormatError> {
        let header = self.reader.next_entry()?;
        if let Some(header) = &header {
            let room = self.room.checked_sub(header.size);
            self.room = room.ok_or(FormatError::TooLarge {
                what: "unpacked content",
                limit: self.most,
            })?;
        }
        Ok(header)
    }

    /// Reads to the end and checks the data hash, and that nothing follows.
    ///
    /// Returns the size of the package file in bytes.
    ///
    /// # Errors
    /// [`FormatError::Integrity`] if the data is not what `.PKGINFO` promises.
    pub(super) fn finish(mut self) -> Result<u64, FormatError> {
        while self.next_header()?.is_some() {}
        let mut buffered = match self.reader.into_inner() {
            Inflated::Stream(buffered) => buffered,
            Inflated::Whole { stored, .. } => return Ok(self.before + stored),
        };
        io::copy(&mut buffered, &mut io::sink())?;
        let Hashing {
            mut inner,
            hash,
            count,
        } = buffered.into_inner().into_inner();
        if !inner.fill_buf()?.is_empty() {
            return Err(FormatError::Invalid);
        }
        if hash.finalize().as_slice() != self.data_hash {
            return Err(FormatError::Integrity);
        }
        Ok(self.before + count)
    }
}

impl<R: BufRead> Read for DataReader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.reader.read(buffer)
    }
}

/// Returns whether readers pass over a name of the data part: one that begins with a dot is for
/// the package manager. `./usr` and `../usr` are no such names; whoever wrote them meant files,
/// and leaving them out without a word is no help (commit.md, W31).
fn is_skipped(name: &str) -> bool {
    let first = name.split('/').next().unwrap_or_default();
    first.starts_with('.') && (!matches!(first, "." | "..") || matches!(name, "." | "./"))
}
