//! Signatures of v3 files: the key is named by its id, and signs a message about the digest of the
//! ADB payload (formats.md, 4.8).

use super::{Signature, SignatureAlgorithm};
use std::fmt;

/// Bytes before the signature: version, algorithm of the digest, id of the key.
const HEAD: usize = 18;

/// What names a key in v3 files: the first bytes of the SHA-512 of the public key.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct KeyId(pub [u8; 16]);

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&data_encoding::HEXLOWER.encode(&self.0))
    }
}

impl fmt::Debug for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Digests of the payload of an ADB block, and what kind of file it is in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AdbDigests {
    /// The schema of the file.
    pub schema: [u8; 4],
    /// SHA-256 of the payload.
    pub sha256: [u8; 32],
    /// SHA-512 of the payload.
    pub sha512: [u8; 64],
}

impl AdbDigests {
    /// Returns what is signed: the schema, the beginning of the signature block, the digest that it
    /// asks for. `None` if it is none that we know.
    pub(super) fn message(&self, head: &[u8]) -> Option<Vec<u8>> {
        let digest: &[u8] = match head.get(1)? {
            3 => &self.sha256,
            4 => &self.sha512,
            5 => &self.sha256[..20],
            _ => return None,
        };
        Some([&self.schema, head, digest].concat())
    }
}

impl Signature {
    /// Reads the payload of a signature block; `None` if it is of a version that we do not know.
    pub fn adb(payload: Vec<u8>) -> Option<Self> {
        let (0, Some(id)) = (*payload.first()?, payload.get(2..HEAD)) else {
            return None;
        };
        let id = KeyId(id.try_into().ok()?);
        Some(Self {
            algorithm: SignatureAlgorithm::Adb,
            key_name: id.to_string(),
            bytes: payload,
        })
    }

    /// Returns the part of an ADB signature that is signed with the digest, and the signature.
    pub(super) fn adb_parts(&self) -> Option<(&[u8], &[u8])> {
        self.bytes.split_at_checked(HEAD)
    }
}
