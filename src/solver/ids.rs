//! Small numbers that stand for names, packages, tags and repositories.

use zerocopy::{FromBytes, Immutable, KnownLayout};

/// A name, valid for one [`Universe`](super::Universe).
#[derive(FromBytes, Immutable, KnownLayout)]
#[repr(transparent)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NameId(pub(super) u32);

/// A package, valid for one [`Universe`](super::Universe).
#[derive(FromBytes, Immutable, KnownLayout)]
#[repr(transparent)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PackageId(pub(super) u32);

/// A repository tag; [`TagId::DEFAULT`] stands for "untagged".
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TagId(pub(super) u8);

impl TagId {
    /// The tag of repositories and requirements that name none.
    pub const DEFAULT: Self = Self(0);
}

/// A small set of repositories or tags, by number.
///
/// apk allows 32 repositories and 15 tags; numbers above 63 are not representable and are left
/// out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct NumberSet(u64);

impl NumberSet {
    pub(super) fn single(number: usize) -> Self {
        Self(1u64.checked_shl(number as u32).unwrap_or(0))
    }

    /// Takes a set whose numbers are the positions of bits.
    pub(super) fn from_bits(bits: u64) -> Self {
        Self(bits)
    }

    pub(super) fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    pub(super) fn meets(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    pub(super) fn contains(self, number: usize) -> bool {
        self.meets(Self::single(number))
    }

    pub(super) fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Returns the lowest number.
    pub(super) fn first(self) -> Option<u32> {
        (self.0 != 0).then(|| self.0.trailing_zeros())
    }

    pub(super) fn iter(self) -> impl Iterator<Item = usize> {
        (0..64).filter(move |number| self.contains(*number))
    }
}

impl Default for TagId {
    fn default() -> Self {
        Self::DEFAULT
    }
}
