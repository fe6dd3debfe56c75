//! How new an index says it is, and whether one must not replace a newer one.
//!
//! The formats have no version and no expiry for an index; what is signed is the time that its
//! entries carry in the archive, and the build times of its packages. Who remembers the newest
//! state of each repository and key can refuse what an attacker kept from earlier (a rollback).
//! Everything here is a function of values: storage and clock belong to the caller.

/// The furthest into the future that is remembered, in seconds: clocks differ, but a time of next
/// year would make all true indexes of this year look old (fast-forward).
const LEEWAY: u64 = 24 * 3600;

/// How new an index says it is; times in seconds since 1970, 0 if it does not say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Freshness {
    /// When the index was made: the time of its entries in the archive.
    pub made: u64,
    /// The latest build time of a package in it.
    pub newest_build: u64,
}

/// An index is older than one that was seen before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Older {
    /// Its time.
    pub found: u64,
    /// The time of the newest one.
    pub seen: u64,
}

impl Freshness {
    /// Checks an index against the newest one seen of the same repository and key.
    ///
    /// The time of making decides where both have one. Repositories that are built reproducibly
    /// often leave it out; then the newest package decides.
    ///
    /// # Errors
    /// [`Older`].
    pub fn check(self, seen: Self) -> Result<(), Older> {
        let (found, seen) = if self.made > 0 && seen.made > 0 {
            (self.made, seen.made)
        } else {
            (self.newest_build, seen.newest_build)
        };
        if found < seen {
            Err(Older { found, seen })
        } else {
            Ok(())
        }
    }

    /// Returns what to remember of an accepted index: no time that has not come yet.
    #[must_use]
    pub fn remembered(self, now: u64) -> Self {
        let latest = now.saturating_add(LEEWAY);
        Self {
            made: self.made.min(latest),
            newest_build: self.newest_build.min(latest),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(made: u64, newest_build: u64) -> Freshness {
        Freshness { made, newest_build }
    }

    #[test]
    fn an_older_index_is_told_from_a_newer_one() {
        let older = |found, seen| Err(Older { found, seen });
        for (found, seen, wanted) in [
            (at(5, 1), at(5, 1), Ok(())),
            (at(6, 1), at(5, 3), Ok(())),
            (at(4, 9), at(5, 1), older(4, 5)),
            (at(0, 7), at(0, 7), Ok(())),
            (at(0, 6), at(0, 7), older(6, 7)),
            (at(0, 6), at(9, 7), older(6, 7)),
            (at(9, 7), at(0, 7), Ok(())),
            (at(0, 0), at(0, 0), Ok(())),
        ] {
            assert_eq!(found.check(seen), wanted, "{found:?} after {seen:?}");
        }
    }

    #[test]
    fn a_time_that_has_not_come_is_not_remembered() {
        let now = 1_000_000;
        assert_eq!(at(now - 5, 3).remembered(now), at(now - 5, 3));
        let far = at(now * 2, now * 3).remembered(now);
        assert_eq!(far, at(now + LEEWAY, now + LEEWAY));
        // What comes two days later is newer again.
        let later = now + 2 * LEEWAY;
        assert_eq!(at(later, later).check(far), Ok(()));
    }
}
