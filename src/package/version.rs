//! apk's version order and its prefix match (solver.md, 1.1 to 1.3).
//!
//! Comparing never fails: text that is not a version becomes a token of its own that sorts last
//! among kinds, so two ill-formed versions can be equal. Use [`Version::is_valid`] to reject it.

use std::cmp::Ordering;

/// A version text, compared by apk's rules.
#[derive(Clone, Copy, Debug)]
pub struct Version<'a>(pub &'a str);

/// What a token is; the discriminants are the numbers of solver.md, 1.1.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Kind {
    First = 0,
    Number = 1,
    Letter = 2,
    Suffix = 3,
    SuffixNumber = 4,
    Hash = 5,
    Revision = 6,
    End = 7,
    Bad = 8,
}

const SUFFIXES: [&[u8]; 9] = [
    b"alpha", b"beta", b"pre", b"rc", b"cvs", b"svn", b"git", b"hg", b"p",
];
/// Suffixes below this index sort before the plain version.
const PRE_RELEASES: u64 = 4;

/// Walks the tokens of a version text.
struct Tokens<'a> {
    rest: &'a [u8],
    kind: Kind,
    number: u64,
    text: &'a [u8],
}

impl<'a> Tokens<'a> {
    fn new(text: &'a str) -> Self {
        let mut tokens = Self {
            rest: text.as_bytes(),
            kind: Kind::Bad,
            number: 0,
            text: b"",
        };
        if tokens.rest.first().is_some_and(u8::is_ascii_digit) {
            tokens.digits(Kind::First);
        }
        tokens
    }

    fn take(&mut self, wanted: impl Fn(&u8) -> bool) -> &'a [u8] {
        let length = self
            .rest
            .iter()
            .position(|b| !wanted(b))
            .unwrap_or(self.rest.len());
        let (taken, rest) = self.rest.split_at(length);
        self.rest = rest;
        taken
    }

    fn digits(&mut self, kind: Kind) {
        self.text = self.take(u8::is_ascii_digit);
        self.kind = if self.text.is_empty() {
            Kind::Bad
        } else {
            kind
        };
        self.number = self.text.iter().fold(0u64, |n, d| {
            n.wrapping_mul(10).wrapping_add(u64::from(d - b'0'))
        });
    }

    /// Moves to the next token.
    fn advance(&mut self) {
        let Some(&next) = self.rest.first() else {
            if self.kind != Kind::Bad {
                self.kind = Kind::End;
            }
            return;
        };
        let kind = self.kind;
        match next {
            b'.' if kind <= Kind::Number => {
                self.rest = &self.rest[1..];
                self.digits(Kind::Number);
            }
            b'0'..=b'9' if kind == Kind::Suffix => self.digits(Kind::SuffixNumber),
            b'a'..=b'z' if kind <= Kind::Number => {
                self.rest = &self.rest[1..];
                self.kind = Kind::Letter;
                self.number = u64::from(next);
            }
            b'_' if kind <= Kind::SuffixNumber => {
                self.rest = &self.rest[1..];
                let word = self.take(u8::is_ascii_lowercase);
                match SUFFIXES.iter().position(|suffix| *suffix == word) {
                    Some(index) => {
                        self.kind = Kind::Suffix;
                        self.number = index as u64;
                    }
                    None => self.kind = Kind::Bad,
                }
            }
            b'~' if kind <= Kind::SuffixNumber => {
                self.rest = &self.rest[1..];
                self.text = self.take(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
                self.kind = if self.text.is_empty() {
                    Kind::Bad
                } else {
                    Kind::Hash
                };
            }
            b'-' if kind <= Kind::Hash && self.rest.get(1) == Some(&b'r') => {
                self.rest = &self.rest[2..];
                self.digits(Kind::Revision);
            }
            _ => self.kind = Kind::Bad,
        }
    }

    fn is_pre_release(&self) -> bool {
        self.kind == Kind::Suffix && self.number < PRE_RELEASES
    }
}

impl Version<'_> {
    /// Returns whether the text is a well-formed version.
    pub fn is_valid(self) -> bool {
        let mut tokens = Tokens::new(self.0);
        while !matches!(tokens.kind, Kind::End | Kind::Bad) {
            tokens.advance();
        }
        tokens.kind == Kind::End
    }

    /// Compares two versions completely.
    pub fn compare(self, other: Version<'_>) -> Ordering {
        compare(self.0, other.0, false)
    }

    /// Compares with `other`, which counts as equal when it ends first (`~`).
    pub fn compare_prefix(self, other: Version<'_>) -> Ordering {
        compare(self.0, other.0, true)
    }
}

fn compare(a: &str, b: &str, prefix: bool) -> Ordering {
    if a == b {
        return Ordering::Equal;
    }
    let (mut a, mut b) = (Tokens::new(a), Tokens::new(b));
    while a.kind == b.kind && !matches!(a.kind, Kind::End | Kind::Bad) {
        let order = match a.kind {
            Kind::Number if a.text[0] == b'0' || b.text[0] == b'0' => a.text.cmp(b.text),
            Kind::Hash => a.text.cmp(b.text),
            _ => a.number.cmp(&b.number),
        };
        if order.is_ne() {
            return order;
        }
        a.advance();
        b.advance();
    }
    if a.kind == b.kind || (prefix && b.kind == Kind::End) {
        Ordering::Equal
    } else if a.is_pre_release() {
        Ordering::Less
    } else if b.is_pre_release() {
        Ordering::Greater
    } else {
        b.kind.cmp(&a.kind)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn validity() {
        for valid in [
            "1",
            "0",
            "00.00",
            "1a",
            "1.2.3.4.5",
            "1_rc1_p2",
            "0.1_git20240101_pre1",
            "1a_p1~0-r3",
        ] {
            assert!(Version(valid).is_valid(), "{valid}");
        }
        for wrong in [
            "", ".1", "1.", "1..2", "v1", "1ab", "1a1", "1.a", "1a.1", "1_", "1__p", "1_P1",
            "1_post1", "1_p1a", "1_p1.2", "1~", "1~g", "1~AB", "1~ab_p1", "1~ab~cd", "1-r", "1-1",
            "1-rc1", "1-r1a", "1-r1-r2", "1-r1~ab", "1.0-r0.1", "1.0+1", "1:2",
        ] {
            assert!(!Version(wrong).is_valid(), "{wrong}");
        }
    }

    #[test]
    fn order() {
        use Ordering::{Equal, Greater, Less};
        for (a, order, b) in [
            ("1.2", Less, "1.10"),
            ("2", Equal, "02"),
            ("0010", Equal, "10"),
            ("1.2", Greater, "1.02"),
            ("1.02", Greater, "1.010"),
            ("1.0", Less, "1.00"),
            ("3.09", Less, "3.1"),
            ("1.18446744073709551617", Equal, "1.1"),
            ("1.5a", Greater, "1.5"),
            ("1.5a", Less, "1.5.1"),
            ("1.5a_rc1", Less, "1.5a"),
            ("4.0_alpha", Less, "4.0_beta"),
            ("4.0_rc9", Less, "4.0"),
            ("4.0", Less, "4.0_cvs"),
            ("4.0_p", Less, "4.0_p0"),
            ("4.0_p", Less, "4.0_p00"),
            ("4.0_p07", Equal, "4.0_p7"),
            ("4.0_rc1_alpha", Less, "4.0_rc1"),
            ("4.0_git1", Less, "4.0_git_p"),
            ("4.0_p1", Less, "4.0.1"),
            ("4.0_p1", Less, "4.0a"),
            ("4.0_p1", Greater, "4.0~ff-r9"),
            ("4.0~ff", Greater, "4.0"),
            ("4.0~10", Less, "4.0~9"),
            ("4.0~a-r1", Less, "4.0~b-r0"),
            ("4.0-r0", Greater, "4.0"),
            ("4.0-r02", Equal, "4.0-r2"),
            ("4.0-r1", Less, "4.0.0"),
            ("1.0bc", Greater, "1.0"),
            ("1.0bc", Equal, "1.0bd"),
            ("", Less, "1"),
            ("", Equal, "x"),
        ] {
            assert_eq!(Version(a).compare(Version(b)), order, "{a} {b}");
            assert_eq!(Version(b).compare(Version(a)), order.reverse(), "{b} {a}");
        }
    }
}
