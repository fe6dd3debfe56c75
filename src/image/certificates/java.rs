//! The trust store of Java, in its own form: JKS.
//!
//! ```text
//! FEEDFEED, version, count (u32 each)
//! one entry: kind (u32; 2 is a certificate), alias, date (u64), type of certificate, length, bytes
//! SHA-1 of the password, a phrase and everything above
//! ```
//!
//! The password protects nothing: it is the same in every installation.

use sha1::{Digest, Sha1};

const MAGIC: u32 = 0xfeed_feed;
const VERSION: u32 = 2;
const CERTIFICATE: u32 = 2;
const PASSWORD: &str = "changeit";
const PHRASE: &[u8] = b"Mighty Aphrodite";
const TYPE: &str = "X.509";

/// A certificate with its name.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Entry {
    alias: String,
    /// Milliseconds since 1970.
    date: u64,
    der: Vec<u8>,
}

/// A store of certificates.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Store(Vec<Entry>);

/// Takes numbers and texts from the front of bytes.
struct Cursor<'b>(&'b [u8]);

impl<'b> Cursor<'b> {
    fn take(&mut self, count: usize) -> Option<&'b [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    fn u32(&mut self) -> Option<u32> {
        Some(u32::from_be_bytes(self.take(4)?.try_into().ok()?))
    }

    fn text(&mut self) -> Option<&'b str> {
        let length = u16::from_be_bytes(self.take(2)?.try_into().ok()?);
        std::str::from_utf8(self.take(usize::from(length))?).ok()
    }
}

fn digest(body: &[u8]) -> [u8; 20] {
    let mut hash = Sha1::new();
    for unit in PASSWORD.encode_utf16() {
        hash.update(unit.to_be_bytes());
    }
    hash.update(PHRASE);
    hash.update(body);
    hash.finalize().into()
}

impl Store {
    /// Reads a store; `None` if it is in another form, damaged, or holds more than certificates.
    pub(super) fn read(bytes: &[u8]) -> Option<Self> {
        let (body, end) = bytes.split_at_checked(bytes.len().checked_sub(20)?)?;
        if digest(body) != end {
            return None;
        }
        let mut cursor = Cursor(body);
        if (cursor.u32()?, cursor.u32()?) != (MAGIC, VERSION) {
            return None;
        }
        let mut entries = Vec::new();
        for _ in 0..cursor.u32()? {
            if cursor.u32()? != CERTIFICATE {
                return None;
            }
            let alias = cursor.text()?.to_owned();
            let date = u64::from_be_bytes(cursor.take(8)?.try_into().ok()?);
            if cursor.text()? != TYPE {
                return None;
            }
            let length = usize::try_from(cursor.u32()?).ok()?;
            let der = cursor.take(length)?.to_vec();
            entries.push(Entry { alias, date, der });
        }
        cursor.0.is_empty().then_some(Self(entries))
    }

    /// Adds a certificate; one of this name is replaced. `time` is in seconds since 1970.
    pub(super) fn add(&mut self, alias: String, der: Vec<u8>, time: u64) {
        self.0.retain(|entry| entry.alias != alias);
        let date = time.saturating_mul(1000);
        self.0.push(Entry { alias, date, der });
    }

    /// Returns the file, names in order.
    pub(super) fn write(mut self) -> Vec<u8> {
        self.0.sort_by(|a, b| a.alias.cmp(&b.alias));
        let mut out = Vec::new();
        let number = |out: &mut Vec<u8>, number: usize| {
            out.extend_from_slice(&(number as u32).to_be_bytes());
        };
        let text = |out: &mut Vec<u8>, text: &str| {
            out.extend_from_slice(&(text.len() as u16).to_be_bytes());
            out.extend_from_slice(text.as_bytes());
        };
        number(&mut out, MAGIC as usize);
        number(&mut out, VERSION as usize);
        number(&mut out, self.0.len());
        for entry in &self.0 {
            number(&mut out, CERTIFICATE as usize);
            text(&mut out, &entry.alias);
            out.extend_from_slice(&entry.date.to_be_bytes());
            text(&mut out, TYPE);
            number(&mut out, entry.der.len());
            out.extend_from_slice(&entry.der);
        }
        let end = digest(&out);
        out.extend_from_slice(&end);
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_store_is_read_as_it_was_written() {
        let mut store = Store(Vec::new());
        store.add("b".to_owned(), b"two".to_vec(), 7);
        store.add("a".to_owned(), b"one".to_vec(), 8);
        store.add("b".to_owned(), b"three".to_vec(), 9);
        let bytes = store.clone().write();
        let again = Store::read(&bytes).expect("a store");
        let names: Vec<&str> = again.0.iter().map(|entry| entry.alias.as_str()).collect();
        assert_eq!(names, ["a", "b"]);
        assert_eq!(
            (again.0[1].date, again.0[1].der.as_slice()),
            (9000, &b"three"[..])
        );
        for at in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[at] ^= 1;
            assert_eq!(Store::read(&damaged), None, "byte {at}");
            assert_eq!(Store::read(&bytes[..at]), None, "cut at {at}");
        }
        assert_eq!(Store::read(b"\x30\x82"), None, "PKCS #12");
    }
}
