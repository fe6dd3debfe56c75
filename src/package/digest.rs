//! Digests and their text forms (formats.md, 1.1 and 1.2).
//!
//! SHA-1 appears here as an identity that the formats prescribe; it is never the only safeguard.

use data_encoding::{BASE64, Encoding, HEXLOWER, HEXLOWER_PERMISSIVE};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::sync::LazyLock;

/// Base64 whose last character may have bits that belong to no byte; apk reads it so.
static BASE64_PERMISSIVE: LazyLock<Encoding> = LazyLock::new(|| {
    let mut specification = BASE64.specification();
    specification.check_trailing_bits = false;
    specification
        .encoding()
        .expect("it differs from a valid one in what it checks only")
});

/// How a digest was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum DigestAlgorithm {
    /// SHA-1, 20 bytes.
    Sha1,
    /// SHA-256, 32 bytes.
    Sha256,
    /// SHA-512, 64 bytes.
    Sha512,
    /// The first 20 bytes of a SHA-256; only a storage form.
    Sha256Truncated,
}

impl DigestAlgorithm {
    /// Returns the name that `manifest` prints.
    pub fn name(self) -> &'static str {
        match self {
            Self::Sha1 => "sha1",
            Self::Sha256 => "sha256",
            Self::Sha512 => "sha512",
            Self::Sha256Truncated => "sha256-160",
        }
    }
}

/// A digest with its algorithm.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Digest {
    algorithm: DigestAlgorithm,
    bytes: Vec<u8>,
}

impl Digest {
    /// Makes a digest from raw bytes.
    pub fn new(algorithm: DigestAlgorithm, bytes: impl Into<Vec<u8>>) -> Self {
        Self {
            algorithm,
            bytes: bytes.into(),
        }
    }

    /// Makes a SHA-1 digest.
    pub fn sha1(bytes: [u8; 20]) -> Self {
        Self::new(DigestAlgorithm::Sha1, bytes)
    }

    /// Returns the algorithm.
    pub fn algorithm(&self) -> DigestAlgorithm {
        self.algorithm
    }

    /// Returns the raw bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Returns the bytes in lower-case hexadecimal.
    pub fn hex(&self) -> String {
        HEXLOWER.encode(&self.bytes)
    }

    /// Returns `Q1` and the first 20 bytes in base64, as databases and indexes store digests.
    pub fn to_q1(&self) -> String {
        let cut = self.bytes.len().min(20);
        format!("Q1{}", BASE64.encode(&self.bytes[..cut]))
    }

    /// Reads the `Q1…`, `Q2…`, `X1…` and `X2…` forms; a 20-byte value is taken as SHA-1.
    pub fn parse(text: &str) -> Option<Self> {
        let bytes = decode(text)?;
        let algorithm = match bytes.len() {
            20 => DigestAlgorithm::Sha1,
            32 => DigestAlgorithm::Sha256,
            _ => return None,
        };
        Some(Self { algorithm, bytes })
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.algorithm.name(), self.hex())
    }
}

/// Decodes a prefixed digest text to 20 or 32 bytes.
fn decode(text: &str) -> Option<Vec<u8>> {
    let body = text.get(2..)?;
    let (encoding, short, long) = match text.as_bytes()[0] {
        b'Q' => (&*BASE64_PERMISSIVE, 28, 44),
        b'X' => (&HEXLOWER_PERMISSIVE, 40, 64),
        _ => return None,
    };
    let wanted = match text.as_bytes()[1] {
        b'1' if body.len() == short => 20,
        b'1' | b'2' if body.len() == long => 32,
        _ => return None,
    };
    let bytes = encoding.decode(body.as_bytes()).ok()?;
    (bytes.len() == wanted).then_some(bytes)
}

/// What identifies a package: the first 20 bytes of its checksum (solver.md, 2.1).
///
/// For a v2 package that is the SHA-1 of its control member, for a v3 package the beginning of a
/// SHA-256. All zero bytes stand for "unknown".
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Identity(pub [u8; 20]);

impl Identity {
    /// Reads any text form of [`Digest::parse`], cut to 20 bytes.
    pub fn parse(text: &str) -> Option<Self> {
        let bytes = decode(text)?;
        Some(Self(
            bytes[..20]
                .try_into()
                .expect("decode returns at least 20 bytes"),
        ))
    }

    /// Returns `Q1` and base64.
    pub fn to_q1(self) -> String {
        format!("Q1{}", BASE64.encode(&self.0))
    }

    /// Returns `X1` and hexadecimal, as script archives name packages.
    pub fn to_x1(self) -> String {
        format!("X1{}", HEXLOWER.encode(&self.0))
    }

    /// Returns the 40 hexadecimal digits.
    pub fn hex(self) -> String {
        HEXLOWER.encode(&self.0)
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.to_q1())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_forms_agree() {
        let q1 = "Q1qvTGHdzF6KLavt4PO0gs2a6pQ00=";
        let identity = Identity::parse(q1).unwrap();
        assert_eq!(identity.to_q1(), q1);
        assert_eq!(Identity::parse(&identity.to_x1()), Some(identity));
        assert_eq!(Digest::parse(q1).unwrap().to_q1(), q1);
        let loose = Identity::parse("Q1qvTGHdzF6KLavt4PO0gs2a6pQ03=");
        assert_eq!(loose, Some(identity), "the last two bits are dropped");
        for wrong in [
            "",
            "Q",
            "Q1",
            "Q1short",
            "Z1qvTGHdzF6KLavt4PO0gs2a6pQ00=",
            "X1zz",
        ] {
            assert_eq!(Digest::parse(wrong), None, "{wrong}");
        }
    }
}
