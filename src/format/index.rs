//! Indexes, verified first, parsed afterwards: `APKINDEX.tar.gz` (formats.md, 3.1), and those of the
//! v3 form (7.2).

use super::adb::block::Container;
use super::adb::value::Payload;
use super::adb::{AdbError, reader, schema};
use super::apk_v2::{self};
use super::{FormatError, Limits, apkindex, tar};
use crate::package::table::Builder;
use crate::package::{FileName, Identity, Index, Package, PackageTable, Stated};
use crate::trust::{Freshness, Signature, SignatureAlgorithm, SignedDigests};
use flate2::bufread::GzDecoder;
use sha1::Sha1;
use sha2::{Digest, Sha256, Sha512};
use std::io::{self, Read};

/// An index whose signature was not judged yet; its records cannot be reached from here.
///
/// What is signed is still compressed: whoever has no trusted key cannot make us inflate it.
pub struct UnverifiedIndex<'a> {
    /// The signatures, in order.
    pub signatures: Vec<Signature>,
    /// Digests of the signed bytes, as far as the signatures ask for them.
    pub digests: SignedDigests,
    signed: Signed<'a>,
    limits: Limits,
}

/// The signed part of an index.
enum Signed<'a> {
    /// The members of an archive behind the signatures.
    V2(&'a [u8]),
    /// The whole ADB.
    V3(&'a [u8]),
}

impl<'a> UnverifiedIndex<'a> {
    /// Takes an index file apart.
    ///
    /// # Errors
    /// [`FormatError`].
    pub fn read(file: &'a [u8], limits: &Limits) -> Result<Self, FormatError> {
        if file.is_empty() {
            return Err(FormatError::UnexpectedEnd);
        }
        if file.starts_with(b"ADB") {
            let mut container = open_adb(file)?;
            let claims = reader::claims(&mut container, limits)?;
            container.finish()?;
            return Ok(Self {
                signatures: claims.signatures,
                digests: claims.digests,
                signed: Signed::V3(file),
                limits: *limits,
            });
        }
        let mut signatures = Vec::new();
        let mut signed = file;
        while let Some(after) = skip_signatures(signed, limits, &mut signatures)? {
            signed = after;
            if signed.is_empty() {
                return Err(FormatError::UnexpectedEnd);
            }
        }
        Ok(Self {
            digests: digests(signed, &signatures),
            signatures,
            signed: Signed::V2(signed),
            limits: *limits,
        })
    }

    /// Looks for damage without keeping anything. A file that was cut off has a wrong signature,
    /// too; this tells which it is.
    ///
    /// # Errors
    /// [`FormatError`].
    pub fn inspect(&self) -> Result<(), FormatError> {
        // An ADB was read to its end before.
        let Signed::V2(signed) = self.signed else {
            return Ok(());
        };
        let mut decoder = GzDecoder::new(signed).take(self.limits.index.saturating_mul(2));
        io::copy(&mut decoder, &mut io::sink())?;
        Ok(())
    }

    /// Inflates and parses the records. Call it only for what was verified, or may be used
    /// unverified.
    ///
    /// # Errors
    /// [`FormatError`].
    pub fn parse(self) -> Result<Index, FormatError> {
        let signed = match self.signed {
            Signed::V2(signed) => signed,
            Signed::V3(file) => {
                let mut packages = Vec::new();
                let (description, _) = each_of_adb(file, &self.limits, |package| {
                    packages.push(package);
                })?;
                return Ok(Index {
                    description,
                    made: 0,
                    packages,
                });
            }
        };
        let content = self.content(signed)?;
        let packages = apkindex::parse(&content.text)?;
        Ok(Index {
            description: content.description,
            made: content.made,
            packages,
        })
    }

    /// The same into a table, without records that cannot be used.
    ///
    /// # Errors
    /// [`FormatError`].
    pub fn into_table(self) -> Result<IndexTable, FormatError> {
        let mut builder = Builder::with_details();
        let mut newest_build = 0;
        let mut take = |stated: &Stated<'_>| {
            if is_usable(stated) {
                newest_build = newest_build.max(stated.build_time.unwrap_or(0));
                builder.add(stated);
            }
        };
        let (content, package_name) = match self.signed {
            Signed::V2(signed) => {
                let content = self.content(signed)?;
                apkindex::each(&content.text, take)?;
                (content, None)
            }
            Signed::V3(file) => {
                let take = |package: Package| take(&Stated::of(&package));
                let (description, package_name) = each_of_adb(file, &self.limits, take)?;
                let content = Content {
                    description,
                    ..Content::default()
                };
                (content, package_name)
            }
        };
        Ok(IndexTable {
            description: content.description,
            package_name,
            freshness: Freshness {
                made: content.made,
                newest_build,
            },
            table: builder.finish(),
        })
    }

    fn content(&self, signed: &[u8]) -> Result<Content, FormatError> {
        let limits = &self.limits;
        let mut reader = tar::Reader::new(GzDecoder::new(signed), *limits);
        let mut content = Content::default();
        while let Some(header) = reader.next_entry()? {
            if header.path.starts_with(".SIGN.") {
                continue;
            }
            content.made = content.made.max(header.mtime);
            match header.path.as_str() {
                "DESCRIPTION" if content.text.is_empty() && header.size <= limits.description => {
                    let bytes = reader.read_content(limits.description, "DESCRIPTION")?;
                    content.description = String::from_utf8_lossy(&bytes).into_owned();
                }
                "APKINDEX" => {
                    let room = limits.index.saturating_sub(content.text.len() as u64);
                    let text = reader.read_content(room, "index")?;
                    if content.text.is_empty() {
                        content.text = text;
                    } else {
                        content.text.extend(text);
                    }
                }
                name if name.starts_with('.') => return Err(FormatError::NotSupported),
                _ => {}
            }
        }
        let mut decoder = reader.into_inner();
        io::copy(&mut decoder.by_ref().take(limits.index), &mut io::sink())?;
        if decoder.into_inner().is_empty() {
            Ok(content)
        } else {
            Err(FormatError::Invalid)
        }
    }
}

/// An index whose records are in a table.
pub struct IndexTable {
    /// The `DESCRIPTION`.
    pub description: String,
    /// How its package files are named; `None` for the usual way.
    pub package_name: Option<FileName>,
    /// How new it says it is: its own time, and the newest of its packages.
    pub freshness: Freshness,
    /// The records that can be used.
    pub table: PackageTable,
}

/// The entries that are not signatures.
#[derive(Default)]
struct Content {
    description: String,
    text: Vec<u8>,
    made: u64,
}

/// Reads a member that holds only signatures, and returns what follows it; `None` if it is the
/// signed one.
fn skip_signatures<'a>(
    file: &'a [u8],
    limits: &Limits,
    signatures: &mut Vec<Signature>,
) -> Result<Option<&'a [u8]>, FormatError> {
    let bounded = GzDecoder::new(file).take(limits.control);
    let mut reader = tar::Reader::new(bounded, *limits);
    while let Some(header) = reader.next_entry()? {
        if let Some(name) = header.path.strip_prefix(".SIGN.") {
            apk_v2::read_signature(name, &mut reader, limits, signatures)?;
        } else if header.path.starts_with('.') {
            // A package: an index has no entries of this kind.
            return Err(FormatError::NotSupported);
        } else {
            return Ok(None);
        }
    }
    let mut bounded = reader.into_inner();
    io::copy(&mut bounded, &mut io::sink())?;
    if bounded.limit() == 0 {
        return Err(FormatError::TooLarge {
            what: "signature part",
            limit: limits.control,
        });
    }
    Ok(Some(bounded.into_inner().into_inner()))
}

fn digests(signed: &[u8], signatures: &[Signature]) -> SignedDigests {
    let wanted = |algorithm| signatures.iter().any(|s| s.algorithm == algorithm);
    SignedDigests {
        sha1: wanted(SignatureAlgorithm::Rsa).then(|| Sha1::digest(signed).into()),
        sha256: wanted(SignatureAlgorithm::Rsa256).then(|| Sha256::digest(signed).into()),
        sha512: wanted(SignatureAlgorithm::Rsa512).then(|| Sha512::digest(signed).into()),
        adb: None,
    }
}

fn open_adb(file: &[u8]) -> Result<Container<&[u8]>, FormatError> {
    let container = Container::open(file)?;
    match container.schema() {
        schema::INDEX => Ok(container),
        _ => Err(FormatError::NotSupported),
    }
}

/// Calls `take` with each package of an index of the v3 form that has a usable hash; returns the
/// description, and how package files are named.
fn each_of_adb(
    file: &[u8],
    limits: &Limits,
    mut take: impl FnMut(Package),
) -> Result<(String, Option<FileName>), FormatError> {
    let mut container = open_adb(file)?;
    container.next_block()?;
    let payload = container.payload(limits.index, "index")?;
    let payload = Payload::new(&payload, limits.index.saturating_mul(2))?;
    let root = payload.root()?;
    let packages = root.slots(2)?;
    for number in 1..=packages.len() {
        let info = schema::package_info(packages.slots(number)?)?;
        // SHA-256 of a v3 package, or what fits into an identity of one of either form.
        if !matches!(info.hashes.len(), 20 | 32) {
            continue;
        }
        let identity = Identity(*info.hashes.first_chunk().expect("it is long enough"));
        take(Package {
            identity,
            ..info.package
        });
    }
    let description = root.blob(1)?;
    let description = String::from_utf8_lossy(description).replace(['\n', '\r', '\0'], " ");
    let name = schema::exact(root.blob(3)?)?;
    let name = match name.is_empty() {
        true => None,
        false => {
            let unknown = || AdbError::schema(format!("pkgname-spec {name:?}"));
            Some(FileName::parse(&name).ok_or_else(unknown)?)
        }
    };
    Ok((description, name))
}

/// Returns whether a record's texts can be used as file names and lines (commit.md, W1 and W20).
fn is_usable(stated: &Stated<'_>) -> bool {
    let file_name = |text: &str| !text.bytes().any(|b| b == b'/' || b.is_ascii_control());
    let optional = [stated.origin, stated.maintainer, stated.commit];
    let texts = [stated.description, stated.url, stated.license];
    let mut lines = texts.into_iter().chain(optional.into_iter().flatten());
    super::pkginfo::check_name(stated.name).is_ok()
        && lines.all(super::record::fits_a_line)
        && file_name(stated.version)
        && stated.arch.is_none_or(file_name)
}
