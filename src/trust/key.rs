//! Keys: PEM in, verify and sign. RSA, and for verifying ECDSA over P-256.

use super::{KeyId, Signature, SignatureAlgorithm};
use p256::ecdsa::signature::hazmat::PrehashVerifier;
use rsa::pkcs1::DecodeRsaPrivateKey;
use rsa::pkcs8::der::{Decode, Document, pem::PemLabel};
use rsa::pkcs8::{
    DecodePrivateKey, EncodePrivateKey, EncodePublicKey, ObjectIdentifier, SubjectPublicKeyInfoRef,
};
use rsa::{Pkcs1v15Sign, RsaPrivateKey, RsaPublicKey};
use sha1::Sha1;
use sha2::{Digest, Sha256, Sha512};
use std::fmt;

/// `id-ecPublicKey`.
const EC_PUBLIC_KEY: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.2.1");
/// `secp256r1`.
const P256: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.3.1.7");

/// Why a text is not a usable key.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// It is not PEM text.
    #[error("{name}: not a PEM file")]
    NotPem {
        /// File name.
        name: String,
    },
    /// It is PEM, but no key of a kind that is known.
    #[error("{name}: cryptographic key format not recognized")]
    Unsupported {
        /// File name.
        name: String,
    },
    /// Signing failed.
    #[error("{name}: signing failure")]
    Signing {
        /// File name.
        name: String,
    },
}

/// A trusted key.
#[derive(Clone)]
pub struct PublicKey {
    name: String,
    fingerprint: [u8; 32],
    id: KeyId,
    key: Scheme,
}

/// The key itself.
#[derive(Clone)]
enum Scheme {
    Rsa(RsaPublicKey),
    P256(p256::ecdsa::VerifyingKey),
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("PublicKey").field(&self.name).finish()
    }
}

impl PublicKey {
    pub(super) fn from_pem(name: &str, pem: &[u8]) -> Result<Self, KeyError> {
        let text = std::str::from_utf8(pem).map_err(|_| KeyError::NotPem { name: name.into() })?;
        let (id, key) = parse(text).ok_or_else(|| KeyError::Unsupported { name: name.into() })?;
        Ok(Self {
            name: name.into(),
            fingerprint: Sha256::digest(pem).into(),
            id,
            key,
        })
    }

    /// Returns the file name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns the SHA-256 of the key's file.
    pub fn fingerprint(&self) -> [u8; 32] {
        self.fingerprint
    }

    /// Returns what v3 files call it.
    pub fn id(&self) -> KeyId {
        self.id
    }

    pub(super) fn verify(
        &self,
        algorithm: SignatureAlgorithm,
        digest: &[u8],
        signature: &[u8],
    ) -> bool {
        // The kind of key decides, whatever the signature is called (formats.md, 2.2).
        match &self.key {
            Scheme::Rsa(key) => key.verify(scheme(algorithm), digest, signature).is_ok(),
            Scheme::P256(key) => p256::ecdsa::DerSignature::try_from(signature)
                .is_ok_and(|signature| key.verify_prehash(digest, &signature).is_ok()),
        }
    }
}

/// Reads a public key. Its id is over the key as the file has it: a point that is written in
/// another way is another key for v3 files.
fn parse(text: &str) -> Option<(KeyId, Scheme)> {
    let (label, document) = Document::from_pem(text).ok()?;
    SubjectPublicKeyInfoRef::validate_pem_label(label).ok()?;
    let info = SubjectPublicKeyInfoRef::from_der(document.as_bytes()).ok()?;
    let bytes = info.subject_public_key.as_bytes()?;
    let id = *Sha512::digest(bytes).first_chunk()?;
    let key = match RsaPublicKey::try_from(info.clone()) {
        Ok(key) => Scheme::Rsa(key),
        Err(_) => {
            let curve = info.algorithm.parameters_oid().ok()?;
            if (info.algorithm.oid, curve) != (EC_PUBLIC_KEY, P256) {
                return None;
            }
            Scheme::P256(p256::ecdsa::VerifyingKey::from_sec1_bytes(bytes).ok()?)
        }
    };
    Some((KeyId(id), key))
}

/// Writes an RSA key of these numbers, most significant byte first, as PEM; `None` if that is no key
/// that would be used.
pub fn public_key_pem(modulus: &[u8], exponent: &[u8]) -> Option<String> {
    let number = rsa::BigUint::from_bytes_be;
    let key = RsaPublicKey::new(number(modulus), number(exponent)).ok()?;
    key.to_public_key_pem(rsa::pkcs8::LineEnding::LF).ok()
}

fn scheme(algorithm: SignatureAlgorithm) -> Pkcs1v15Sign {
    match algorithm {
        SignatureAlgorithm::Rsa => Pkcs1v15Sign::new::<Sha1>(),
        SignatureAlgorithm::Rsa256 => Pkcs1v15Sign::new::<Sha256>(),
        SignatureAlgorithm::Rsa512 | SignatureAlgorithm::Adb => Pkcs1v15Sign::new::<Sha512>(),
    }
}

/// A private key to sign with.
pub struct SigningKey {
    public_name: String,
    key: RsaPrivateKey,
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("SigningKey")
            .field(&self.public_name)
            .finish()
    }
}

impl SigningKey {
    /// Makes a private key and returns it as PKCS#8 PEM.
    ///
    /// # Errors
    /// [`KeyError::Signing`] if the system gives no random numbers.
    pub fn generate() -> Result<String, KeyError> {
        // What abuild-keygen makes; larger ones make every `apk update` slower.
        const BITS: usize = 2048;
        let failed = || KeyError::Signing {
            name: "a new key".to_owned(),
        };
        let key = RsaPrivateKey::new(&mut rsa::rand_core::OsRng, BITS).map_err(|_| failed())?;
        let pem = key.to_pkcs8_pem(rsa::pkcs8::LineEnding::LF);
        pem.map(|pem| pem.to_string()).map_err(|_| failed())
    }

    /// Returns the public half as PEM.
    ///
    /// # Errors
    /// [`KeyError::Signing`] if it cannot be written down.
    pub fn public_pem(&self) -> Result<String, KeyError> {
        let public = self.key.to_public_key();
        let pem = public.to_public_key_pem(rsa::pkcs8::LineEnding::LF);
        pem.map_err(|_| KeyError::Signing {
            name: self.public_name.clone(),
        })
    }

    /// Reads a private key (PKCS#1 or PKCS#8 PEM); signatures name `public_name`.
    ///
    /// # Errors
    /// [`KeyError`].
    pub fn from_pem(public_name: &str, pem: &[u8]) -> Result<Self, KeyError> {
        let name = || public_name.to_owned();
        let text = std::str::from_utf8(pem).map_err(|_| KeyError::NotPem { name: name() })?;
        let key = RsaPrivateKey::from_pkcs8_pem(text)
            .or_else(|_| RsaPrivateKey::from_pkcs1_pem(text))
            .map_err(|_| KeyError::Unsupported { name: name() })?;
        Ok(Self {
            public_name: name(),
            key,
        })
    }

    /// Signs bytes. The result is the same every time (PKCS#1 v1.5 has no randomness).
    ///
    /// # Errors
    /// [`KeyError::Signing`].
    pub fn sign(&self, algorithm: SignatureAlgorithm, bytes: &[u8]) -> Result<Signature, KeyError> {
        let digest = match algorithm {
            SignatureAlgorithm::Rsa => Sha1::digest(bytes).to_vec(),
            SignatureAlgorithm::Rsa256 => Sha256::digest(bytes).to_vec(),
            SignatureAlgorithm::Rsa512 | SignatureAlgorithm::Adb => Sha512::digest(bytes).to_vec(),
        };
        let bytes = self
            .key
            .sign(scheme(algorithm), &digest)
            .map_err(|_| KeyError::Signing {
                name: self.public_name.clone(),
            })?;
        Ok(Signature {
            algorithm,
            key_name: self.public_name.clone(),
            bytes,
        })
    }
}
