//! What a command asks of packages (solver.md, 5.1).

use std::ops::BitOr;

/// A set of wishes; they act on the ranking and on the change list.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flags(u8);

impl Flags {
    /// No wish.
    pub const NONE: Self = Self(0);
    /// Newest instead of installed.
    pub const UPGRADE: Self = Self(1);
    /// What a reachable repository has, instead of what is installed.
    pub const AVAILABLE: Self = Self(2);
    /// Install again what stays the same.
    pub const REINSTALL: Self = Self(4);
    /// Highest version first, even if dependencies then fail.
    pub const LATEST: Self = Self(8);
    /// Installed instead of newest.
    pub const INSTALLED: Self = Self(16);
    /// Being installed is no advantage.
    pub const REMOVE: Self = Self(32);

    /// Returns whether all of `other` is in this set.
    pub fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Returns this set if `condition`, else nothing.
    pub fn when(self, condition: bool) -> Self {
        if condition { self } else { Self::NONE }
    }
}

impl BitOr for Flags {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}
