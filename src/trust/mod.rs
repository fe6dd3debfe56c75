//! Keys and signatures: who said so (formats.md, 2.2 and chapter 8).
//!
//! A signature names its key by file name, in v3 files by id; the keys are those of the trusted
//! directories, which the floors above read. Nothing here decides that untrusted input is acceptable.

mod freshness;
mod key;
mod v3;

pub use freshness::{Freshness, Older};
pub use key::{KeyError, PublicKey, SigningKey, public_key_pem};
pub use v3::{AdbDigests, KeyId};

use sha2::{Digest, Sha512};
use std::fmt;

/// Which digest a signature is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum SignatureAlgorithm {
    /// `.SIGN.RSA.`: SHA-1.
    Rsa,
    /// `.SIGN.RSA256.`: SHA-256.
    Rsa256,
    /// `.SIGN.RSA512.`: SHA-512.
    Rsa512,
    /// A block of a v3 file: SHA-512 of a message about the payload.
    Adb,
}

impl SignatureAlgorithm {
    /// Returns the algorithm of this name in an archive.
    pub fn from_name(name: &str) -> Option<Self> {
        Some(match name {
            "RSA" => Self::Rsa,
            "RSA256" => Self::Rsa256,
            "RSA512" => Self::Rsa512,
            _ => return None,
        })
    }

    /// Returns the algorithm that [`Self::name`] gives this name.
    pub fn from_stored_name(name: &str) -> Option<Self> {
        match name {
            "ADB" => Some(Self::Adb),
            _ => Self::from_name(name),
        }
    }

    /// Returns its name in an archive.
    pub fn name(self) -> &'static str {
        match self {
            Self::Rsa => "RSA",
            Self::Rsa256 => "RSA256",
            Self::Rsa512 => "RSA512",
            Self::Adb => "ADB",
        }
    }
}

/// A claim: bytes that the owner of a key may have made.
#[derive(Clone, PartialEq, Eq)]
pub struct Signature {
    /// Over which digest.
    pub algorithm: SignatureAlgorithm,
    /// File name of the public key; in v3 files its id, in hexadecimal.
    pub key_name: String,
    /// The raw signature; in v3 files the whole block.
    pub bytes: Vec<u8>,
}

impl fmt::Debug for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} by {}", self.algorithm.name(), self.key_name)
    }
}

/// Digests of the signed bytes; only those that a signature asks for need to be there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SignedDigests {
    /// SHA-1.
    pub sha1: Option<[u8; 20]>,
    /// SHA-256.
    pub sha256: Option<[u8; 32]>,
    /// SHA-512.
    pub sha512: Option<[u8; 64]>,
    /// Those of a v3 file.
    pub adb: Option<AdbDigests>,
}

impl SignedDigests {
    fn get(&self, algorithm: SignatureAlgorithm) -> Option<&[u8]> {
        match algorithm {
            SignatureAlgorithm::Rsa => self.sha1.as_ref().map(|bytes| &bytes[..]),
            SignatureAlgorithm::Rsa256 => self.sha256.as_ref().map(|bytes| &bytes[..]),
            SignatureAlgorithm::Rsa512 => self.sha512.as_ref().map(|bytes| &bytes[..]),
            SignatureAlgorithm::Adb => None,
        }
    }
}

/// The key that vouches for something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrustedBy {
    /// File name of the key.
    pub key_name: String,
    /// SHA-256 of the key's file.
    pub fingerprint: [u8; 32],
    /// Over which digest it signed.
    pub algorithm: SignatureAlgorithm,
}

/// A value whose signature was checked. Only this module makes one.
#[derive(Clone, Debug)]
pub struct Verified<T> {
    value: T,
    by: TrustedBy,
}

impl<T> Verified<T> {
    /// Returns who vouches for it.
    pub fn by(&self) -> &TrustedBy {
        &self.by
    }

    /// Returns the value.
    pub fn into_inner(self) -> T {
        self.value
    }
}

/// Why something is not trusted. The first word group is apk's text.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TrustError {
    /// No signature of a known key.
    #[error("UNTRUSTED signature")]
    Untrusted {
        /// The keys that the signatures name; empty if there is none.
        wanted: Vec<String>,
        /// The keys there are.
        known: Vec<String>,
    },
    /// A known key's signature does not fit the bytes.
    #[error("BAD signature")]
    Bad {
        /// The key.
        key: String,
    },
}

impl TrustError {
    /// Returns what to tell a person: which keys are wanted and which there are.
    pub fn explanation(&self) -> String {
        let list = |keys: &[String]| match keys {
            [] => "none".to_owned(),
            keys => keys.join(", "),
        };
        match self {
            Self::Untrusted { wanted, known } if wanted.is_empty() => {
                format!("it is not signed; known keys: {}", list(known))
            }
            Self::Untrusted { wanted, known } => {
                format!("signed by {}; known keys: {}", list(wanted), list(known))
            }
            Self::Bad { key } => format!("the signature of {key} does not fit: it was altered"),
        }
    }
}

/// The trusted public keys, by file name.
#[derive(Clone, Debug, Default)]
pub struct Keyring {
    keys: Vec<PublicKey>,
    /// Signatures over SHA-1 do not count.
    refuses_sha1: bool,
}

impl Keyring {
    /// Makes an empty keyring.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a key under its file name.
    ///
    /// # Errors
    /// [`KeyError`] if the text is no public key of a kind that can be used.
    pub fn add(&mut self, file_name: &str, pem: &[u8]) -> Result<(), KeyError> {
        let key = PublicKey::from_pem(file_name, pem)?;
        self.keys.retain(|known| known.name() != file_name);
        self.keys.push(key);
        Ok(())
    }

    /// Says whether signatures over SHA-1 count; if not, they are as good as not there.
    pub fn accept_sha1(&mut self, accept: bool) {
        self.refuses_sha1 = !accept;
    }

    /// Returns whether a signature of this kind counts.
    fn accepts(&self, algorithm: SignatureAlgorithm) -> bool {
        !(self.refuses_sha1 && algorithm == SignatureAlgorithm::Rsa)
    }

    /// Returns the file names of the keys, sorted.
    pub fn names(&self) -> Vec<String> {
        let mut names: Vec<String> = self.keys.iter().map(|key| key.name().to_owned()).collect();
        names.sort();
        names
    }

    /// Returns the key of this file name.
    pub fn find(&self, name: &str) -> Option<&PublicKey> {
        self.keys.iter().find(|key| key.name() == name)
    }

    /// Returns whether a key of this name and content is in the keyring, and what it signed counts.
    pub fn has(&self, by: &TrustedBy) -> bool {
        let known = self.find(&by.key_name);
        self.accepts(by.algorithm) && known.is_some_and(|key| key.fingerprint() == by.fingerprint)
    }

    /// Checks signatures. In v2 files the first one of a known key decides (formats.md, 2.2), in v3
    /// files one good one is enough, and the others do not count (4.8).
    ///
    /// # Errors
    /// [`TrustError`].
    pub fn check(
        &self,
        signatures: &[Signature],
        digests: &SignedDigests,
    ) -> Result<TrustedBy, TrustError> {
        let counting = signatures.iter().filter(|one| self.accepts(one.algorithm));
        for signature in counting {
            if signature.algorithm == SignatureAlgorithm::Adb {
                match self.check_adb(signature, digests) {
                    Some(by) => return Ok(by),
                    None => continue,
                }
            }
            let Some(key) = self.find(&signature.key_name) else {
                continue;
            };
            let good = digests
                .get(signature.algorithm)
                .is_some_and(|digest| key.verify(signature.algorithm, digest, &signature.bytes));
            return if good {
                Ok(TrustedBy {
                    key_name: key.name().into(),
                    fingerprint: key.fingerprint(),
                    algorithm: signature.algorithm,
                })
            } else {
                Err(TrustError::Bad {
                    key: key.name().into(),
                })
            };
        }
        let wanted = signatures.iter().map(|s| s.key_name.clone()).collect();
        Err(TrustError::Untrusted {
            wanted,
            known: self.names(),
        })
    }

    fn check_adb(&self, signature: &Signature, digests: &SignedDigests) -> Option<TrustedBy> {
        let (head, bytes) = signature.adb_parts()?;
        let message = digests.adb.as_ref()?.message(head)?;
        let digest = Sha512::digest(message);
        // One key may be there under several names.
        let mut named = (self.keys.iter()).filter(|key| key.id().to_string() == signature.key_name);
        let key = named.find(|key| key.verify(signature.algorithm, &digest, bytes))?;
        Some(TrustedBy {
            key_name: key.name().into(),
            fingerprint: key.fingerprint(),
            algorithm: signature.algorithm,
        })
    }

    /// Checks signatures and hands the value out as verified.
    ///
    /// # Errors
    /// [`TrustError`].
    pub fn verify<T>(
        &self,
        value: T,
        signatures: &[Signature],
        digests: &SignedDigests,
    ) -> Result<Verified<T>, TrustError> {
        Ok(Verified {
            value,
            by: self.check(signatures, digests)?,
        })
    }
}
