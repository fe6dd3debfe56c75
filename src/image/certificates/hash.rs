//! The name by which OpenSSL finds the certificate of an issuer: a hash of its subject in a form
//! that is the same however it was written.

use sha1::{Digest, Sha1};

pub(super) const SEQUENCE: u8 = 0x30;
const SET: u8 = 0x31;
const UTF8: u8 = 0x0c;

/// Takes one element of DER apart: tag, content, and what follows.
pub(super) fn element(bytes: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&tag, rest) = bytes.split_first()?;
    // Tags of more than one byte are in no certificate's outer parts.
    if tag & 0x1f == 0x1f {
        return None;
    }
    let (&first, rest) = rest.split_first()?;
    let (length, rest) = match first {
        0..=0x7f => (usize::from(first), rest),
        0x81..=0x84 => {
            let (digits, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
            let length = digits
                .iter()
                .fold(0_u64, |all, byte| all << 8 | u64::from(*byte));
            (usize::try_from(length).ok()?, rest)
        }
        _ => return None,
    };
    let (content, rest) = rest.split_at_checked(length)?;
    Some((tag, content, rest))
}

/// Writes one element of DER.
fn write(tag: u8, content: &[u8], out: &mut Vec<u8>) {
    out.push(tag);
    let length = content.len();
    if length < 0x80 {
        out.push(length as u8);
    } else {
        let digits = length.to_be_bytes();
        let digits = &digits[digits.iter().take_while(|byte| **byte == 0).count()..];
        out.push(0x80 | digits.len() as u8);
        out.extend_from_slice(digits);
    }
    out.extend_from_slice(content);
}

/// Returns the hash of the subject of a certificate; `None` if it has not the form of one.
pub(super) fn of_subject(certificate: &[u8]) -> Option<u32> {
    const VERSION: u8 = 0xa0;
    let (SEQUENCE, certificate, _) = element(certificate)? else {
        return None;
    };
    let (SEQUENCE, mut fields, _) = element(certificate)? else {
        return None;
    };
    if element(fields)?.0 == VERSION {
        fields = element(fields)?.2;
    }
    // Serial number, algorithm, issuer, validity.
    for _ in 0..4 {
        fields = element(fields)?.2;
    }
    let (SEQUENCE, subject, _) = element(fields)? else {
        return None;
    };
    let digest = Sha1::digest(canonical(subject)?);
    Some(u32::from_le_bytes(digest[..4].try_into().ok()?))
}

/// Writes a name the way it is compared: texts in UTF-8, small letters, single blanks.
fn canonical(mut name: &[u8]) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    while !name.is_empty() {
        let (SET, mut set, rest) = element(name)? else {
            return None;
        };
        name = rest;
        let mut members = Vec::new();
        while !set.is_empty() {
            let (SEQUENCE, attribute, rest) = element(set)? else {
                return None;
            };
            set = rest;
            let (tag, kind, value) = element(attribute)?;
            let mut content = Vec::new();
            write(tag, kind, &mut content);
            let (tag, value, _) = element(value)?;
            match text(tag, value) {
                Some(text) => write(UTF8, folded(&text).as_bytes(), &mut content),
                None => write(tag, value, &mut content),
            }
            let mut member = Vec::new();
            write(SEQUENCE, &content, &mut member);
            members.push(member);
        }
        members.sort();
        write(SET, &members.concat(), &mut out);
    }
    Some(out)
}

/// Returns the text of a value that is one.
fn text(tag: u8, value: &[u8]) -> Option<String> {
    match tag {
        UTF8 => String::from_utf8(value.to_vec()).ok(),
        // PrintableString, T61String, IA5String, VisibleString: a byte a letter.
        0x13 | 0x14 | 0x16 | 0x1a => Some(value.iter().map(|byte| char::from(*byte)).collect()),
        // BMPString.
        0x1e => {
            let units = value
                .chunks_exact(2)
                .map(|pair| u16::from_be_bytes([pair[0], pair[1]]));
            char::decode_utf16(units).collect::<Result<_, _>>().ok()
        }
        // UniversalString.
        0x1c => value
            .chunks_exact(4)
            .map(|unit| char::from_u32(u32::from_be_bytes([unit[0], unit[1], unit[2], unit[3]])))
            .collect(),
        _ => None,
    }
}

/// Only letters of ASCII are made small, only its blanks count as blanks.
fn folded(text: &str) -> String {
    let blank = |c: char| matches!(c, ' ' | '\t' | '\n' | '\u{b}' | '\u{c}' | '\r');
    let words: Vec<String> = text
        .split(blank)
        .filter(|word| !word.is_empty())
        .map(str::to_ascii_lowercase)
        .collect();
    words.join(" ")
}

/// Returns whether a name is one that such a hash gives: eight digits and a number.
pub(super) fn is_link_name(name: &str) -> bool {
    let Some((hash, number)) = name.split_once('.') else {
        return false;
    };
    let hexadecimal = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    let number = number.strip_prefix('r').unwrap_or(number);
    hash.len() == 8
        && hash.bytes().all(hexadecimal)
        && !number.is_empty()
        && number.bytes().all(|byte| byte.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elements_are_taken_apart() {
        assert_eq!(
            element(b"\x30\x01a?"),
            Some((SEQUENCE, &b"a"[..], &b"?"[..]))
        );
        assert_eq!(
            element(b"\x0c\x81\x02ab"),
            Some((UTF8, &b"ab"[..], &b""[..]))
        );
        for wrong in [
            &b""[..],
            b"\x30",
            b"\x30\x02a",
            b"\x30\x80",
            b"\x30\x85\0\0\0\0\x01a",
            b"\x30\x84\xff\xff\xff\xff",
            b"\x1f\x01a",
        ] {
            assert_eq!(element(wrong), None, "{wrong:?}");
        }
        let mut long = Vec::new();
        write(UTF8, &[b'x'; 300], &mut long);
        assert_eq!(element(&long), Some((UTF8, &[b'x'; 300][..], &b""[..])));
    }

    #[test]
    fn names_are_compared_without_regard_to_letters_and_blanks() {
        for (tag, value, wanted) in [
            (UTF8, &b" Two  Words\t"[..], Some("two words")),
            (0x13, b"ABC", Some("abc")),
            (0x14, b"\xc4", Some("\u{c4}")),
            (0x1e, b"\0A\0b", Some("ab")),
            (0x1c, b"\0\0\0A", Some("a")),
            (0x04, b"A", None),
        ] {
            let found = text(tag, value).map(|text| folded(&text));
            assert_eq!(found.as_deref(), wanted, "{tag}");
        }
        for (name, wanted) in [
            ("0123abcd.0", true),
            ("0123abcd.r10", true),
            ("0123ABCD.0", false),
            ("0123abc.0", false),
            ("0123abcd.", false),
            ("ca-certificates.crt", false),
        ] {
            assert_eq!(is_link_name(name), wanted, "{name}");
        }
    }
}
