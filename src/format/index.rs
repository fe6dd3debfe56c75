//! `APKINDEX.tar.gz` (formats.md, 3.1): verified first, parsed afterwards.

use super::apk_v2::{self};
use super::{FormatError, Limits, apkindex, tar};
use crate::package::table::Builder;
use crate::package::{Index, PackageTable, Stated};
use crate::trust::{Signature, SignatureAlgorithm, SignedDigests};
use flate2::bufread::GzDecoder;
use sha1::Sha1;
use sha2::{Digest, Sha256, Sha512};
use std::io::{self, Read};

/// An index whose signature was not judged yet; its records cannot be reached from here.
pub struct UnverifiedIndex {
    /// The signatures, in order.
    pub signatures: Vec<Signature>,
    /// Digests of the signed bytes, as far as the signatures ask for them.
    pub digests: SignedDigests,
    description: String,
    text: Vec<u8>,
}

impl UnverifiedIndex {
    /// Takes an index file apart.
    ///
    /// # Errors
    /// [`FormatError`].
    pub fn read(file: &[u8], limits: &Limits) -> Result<Self, FormatError> {
        if file.is_empty() {
            return Err(FormatError::UnexpectedEnd);
        }
        if file.starts_with(b"ADB") {
            return Err(FormatError::NotSupported);
        }
        let mut signatures = Vec::new();
        let mut rest = file;
        loop {
            let (content, after) = read_member(rest, limits, &mut signatures)?;
            let Some((description, text)) = content else {
                if after.is_empty() {
                    return Err(FormatError::UnexpectedEnd);
                }
                rest = after;
                continue;
            };
            if !after.is_empty() {
                return Err(FormatError::Invalid);
            }
            let digests = digests(rest, &signatures);
            return Ok(Self {
                signatures,
                digests,
                description,
                text,
            });
        }
    }

    /// Parses all records, as they are. Call it only for what was verified, or may be used
    /// unverified.
    ///
    /// # Errors
    /// [`FormatError::Database`].
    pub fn parse(self) -> Result<Index, FormatError> {
        let packages = apkindex::parse(&self.text)?;
        Ok(Index {
            description: self.description,
            packages,
        })
    }

    /// Parses the records that can be used, and returns them with the description. Call it only
    /// for what was verified, or may be used unverified.
    ///
    /// # Errors
    /// [`FormatError::Database`].
    pub fn into_table(self) -> Result<(String, PackageTable), FormatError> {
        let mut builder = Builder::with_details();
        apkindex::each(&self.text, |stated| {
            if is_usable(stated) {
                builder.add(stated);
            }
        })?;
        Ok((self.description, builder.finish()))
    }
}

type Content = Option<(String, Vec<u8>)>;

fn read_member<'a>(
    file: &'a [u8],
    limits: &Limits,
    signatures: &mut Vec<Signature>,
) -> Result<(Content, &'a [u8]), FormatError> {
    let mut reader = tar::Reader::new(GzDecoder::new(file), *limits);
    let mut content: Content = None;
    while let Some(header) = reader.next_entry()? {
        if let Some(name) = header.path.strip_prefix(".SIGN.") {
            apk_v2::read_signature(name, &mut reader, limits, signatures)?;
        } else if header.path.starts_with('.') {
            // A package: an index has no entries of this kind.
            return Err(FormatError::NotSupported);
        } else {
            let (description, text) = content.get_or_insert_default();
            match header.path.as_str() {
                "DESCRIPTION" if text.is_empty() && header.size <= limits.description => {
                    let bytes = reader.read_content(limits.description, "DESCRIPTION")?;
                    *description = String::from_utf8_lossy(&bytes).into_owned();
                }
                "APKINDEX" => text.extend(reader.read_content(limits.index, "APKINDEX")?),
                _ => {}
            }
        }
    }
    let mut decoder = reader.into_inner();
    io::copy(&mut decoder.by_ref().take(limits.index), &mut io::sink())?;
    Ok((content, decoder.into_inner()))
}

fn digests(signed: &[u8], signatures: &[Signature]) -> SignedDigests {
    let wanted = |algorithm| signatures.iter().any(|s| s.algorithm == algorithm);
    SignedDigests {
        sha1: wanted(SignatureAlgorithm::Rsa).then(|| Sha1::digest(signed).into()),
        sha256: wanted(SignatureAlgorithm::Rsa256).then(|| Sha256::digest(signed).into()),
        sha512: wanted(SignatureAlgorithm::Rsa512).then(|| Sha512::digest(signed).into()),
    }
}

/// Returns whether a record's texts can be used as file names and lines (commit.md, W1 and W20).
fn is_usable(stated: &Stated<'_>) -> bool {
    let file_name = |text: &str| !text.bytes().any(|b| b == b'/' || b.is_ascii_control());
    super::pkginfo::check_name(stated.name).is_ok()
        && file_name(stated.version)
        && stated.arch.is_none_or(file_name)
}
