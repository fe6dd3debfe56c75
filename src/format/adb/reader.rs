//! A v3 file up to its data: the payload of the ADB block, and the signatures over it.

use super::AdbError;
use super::block::{Block, BlockKind, Container, push_header};
use crate::format::{FormatError, Limits};
use crate::trust::{AdbDigests, Signature, SignedDigests};
use sha2::{Digest, Sha256, Sha512};
use std::io::{BufRead, Read};
use std::ops::Range;
use std::sync::Arc;

/// Bytes hashed at once.
const BUFFER: usize = 64 << 10;

/// Signatures, and digests of what they are over.
pub struct Claims {
    /// The signatures, in order.
    pub signatures: Vec<Signature>,
    /// Digests of the payload.
    pub digests: SignedDigests,
    /// SHA-256 of the payload: the identity of a package.
    pub sha256: [u8; 32],
}

/// The beginning of a package file, uncompressed: it can be read again as a file without data.
#[derive(Clone, PartialEq, Eq)]
pub struct Head {
    bytes: Arc<[u8]>,
    payload: Range<usize>,
}

impl std::fmt::Debug for Head {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} bytes", self.bytes.len())
    }
}

impl Head {
    /// Returns header, ADB block and signatures.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Returns the payload of the ADB block.
    pub fn payload(&self) -> &[u8] {
        &self.bytes[self.payload.clone()]
    }
}

/// Reads up to the first data block, which is returned if there is one.
///
/// # Errors
/// [`FormatError`].
pub fn head<R: BufRead>(
    container: &mut Container<R>,
    limits: &Limits,
) -> Result<(Head, Claims, Option<Block>), FormatError> {
    let block = container.next_block()?.ok_or(AdbError::Block)?;
    let payload = container.payload(limits.control, "control part")?;
    let mut bytes = Vec::with_capacity(payload.len() + 64);
    bytes.extend(b"ADB.");
    bytes.extend(container.schema());
    let padding = push_header(&mut bytes, 0, block.size);
    let start = bytes.len();
    bytes.extend_from_slice(&payload);
    let end = bytes.len();
    bytes.resize(end + padding, 0);
    let sha256: [u8; 32] = Sha256::digest(&payload).into();
    let sha512 = Sha512::digest(&payload).into();
    drop(payload);
    let mut keep = |signature: &[u8]| {
        let padding = push_header(&mut bytes, 1, signature.len() as u64);
        bytes.extend_from_slice(signature);
        bytes.resize(bytes.len() + padding, 0);
    };
    let (signatures, data) = signatures(container, limits, &mut keep)?;
    let claims = Claims {
        signatures,
        digests: digests(container.schema(), sha256, sha512),
        sha256,
    };
    let head = Head {
        bytes: bytes.into(),
        payload: start..end,
    };
    Ok((head, claims, data))
}

/// Reads the signatures of an index, and computes the digests of its payload without keeping it:
/// who has no trusted key cannot make us hold what it inflates to.
///
/// # Errors
/// [`FormatError`].
pub fn claims<R: BufRead>(
    container: &mut Container<R>,
    limits: &Limits,
) -> Result<Claims, FormatError> {
    let block = container.next_block()?.ok_or(AdbError::Block)?;
    if block.size > limits.index {
        return Err(FormatError::TooLarge {
            what: "index",
            limit: limits.index,
        });
    }
    let (mut sha256, mut sha512) = (Sha256::new(), Sha512::new());
    let mut buffer = vec![0; BUFFER];
    loop {
        let count = container.read(&mut buffer)?;
        if count == 0 {
            break;
        }
        sha256.update(&buffer[..count]);
        sha512.update(&buffer[..count]);
    }
    let sha256: [u8; 32] = sha256.finalize().into();
    let (signatures, data) = signatures(container, limits, &mut |_| ())?;
    if data.is_some() {
        return Err(AdbError::Block.into());
    }
    Ok(Claims {
        signatures,
        digests: digests(container.schema(), sha256, sha512.finalize().into()),
        sha256,
    })
}

fn digests(schema: [u8; 4], sha256: [u8; 32], sha512: [u8; 64]) -> SignedDigests {
    SignedDigests {
        adb: Some(AdbDigests {
            schema,
            sha256,
            sha512,
        }),
        ..SignedDigests::default()
    }
}

/// Reads signature blocks, and returns what comes after them.
fn signatures<R: BufRead>(
    container: &mut Container<R>,
    limits: &Limits,
    keep: &mut dyn FnMut(&[u8]),
) -> Result<(Vec<Signature>, Option<Block>), FormatError> {
    let mut signatures = Vec::new();
    loop {
        let Some(block) = container.next_block()? else {
            return Ok((signatures, None));
        };
        if block.kind == BlockKind::Data {
            return Ok((signatures, Some(block)));
        }
        if block.size > limits.signature {
            return Err(AdbError::Signature.into());
        }
        if signatures.len() as u64 >= limits.signatures {
            continue;
        }
        let payload = container.payload(limits.signature, "signature")?;
        keep(&payload);
        signatures.extend(Signature::adb(payload));
    }
}
