//! The question as plain values: candidates, what is wanted, and what makes one candidate better.
//!
//! A problem borrows its texts, so making one costs little. It needs only what the world can reach;
//! more is allowed and makes no difference to the answer.

use super::super::Flags;
use crate::package::{Dependency, Identity, Operator};
use std::fmt;

/// Everything that may be chosen and everything that is wanted.
#[derive(Clone, Debug, Default)]
pub struct Problem<'a> {
    /// What may be chosen, in the order in which ties are kept (sources in reading order).
    pub candidates: Vec<Candidate<'a>>,
    /// The world, sorted as apk sorts it; broken entries are left out.
    pub world: Vec<Wanted<'a>>,
    /// The repository tags by number; number 0 is the default tag and has an empty text.
    pub tags: Vec<&'a str>,
    /// What the command asks for; it reaches every package.
    pub flags: Flags,
    /// The run is a preupgrade: what is not asked to be upgraded stays (solver.md, 4.7 N4).
    pub preupgrade: bool,
}

/// One package.
///
/// An install_if that must not fire (an unreachable package with `upgrade -a`) is left out by the
/// caller.
#[derive(Clone, Debug, Default)]
pub struct Candidate<'a> {
    /// Its own name.
    pub name: &'a str,
    /// Its version.
    pub version: &'a str,
    /// What identifies this build; `name><Q1…` asks for it.
    pub identity: Identity,
    /// What it needs and what it conflicts with.
    pub depends: Vec<Need<'a>>,
    /// What it offers besides its own name, with an empty version for a bare offer.
    pub provides: Vec<(&'a str, &'a str)>,
    /// The conditions under which it installs itself.
    pub install_if: Vec<Need<'a>>,
    /// `k`: priority among providers; with 0 a bare offer can not be chosen on its own.
    pub provider_priority: u16,
    /// It is in the installed database.
    pub installed: bool,
    /// Why it can not be chosen, if so.
    pub unavailable: Option<Unavailable>,
    /// The tags of the repositories that have it, and of its installation (solver.md, 3.4 R(P)).
    pub tags: TagSet,
    /// It may be chosen whatever its tags: installed, remembered, from a file or without data.
    pub permitted: bool,
    /// It is from the command line or has no data, so no tag makes it less welcome.
    pub preferred: bool,
    /// A repository that can be reached has it, or it is a file.
    pub reachable: bool,
    /// 0 for a package in no repository, else 1 + the number of its first repository.
    pub repository: u32,
    /// Flags given to it by name.
    pub flags: Flags,
    /// Flags that it hands on to what answers its dependencies.
    pub heritable: Flags,
}

/// A dependency, a condition or a wanted constraint, without tag.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Need<'a> {
    /// The name.
    pub name: &'a str,
    /// Accepted outcomes.
    pub operator: Operator,
    /// The version text.
    pub version: &'a str,
    /// `!`.
    pub conflict: bool,
}

/// One entry of the world.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wanted<'a> {
    /// What is wanted, or not wanted.
    pub need: Need<'a>,
    /// The number of its tag; 0 without tag.
    pub tag: u8,
}

/// A set of tag numbers; numbers above 63 are not representable and are left out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct TagSet(pub u64);

/// Why a package that is known can not be chosen.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Unavailable {
    /// Its repositories are remote, the network must not be used and it is not in the cache.
    Network,
    /// It is for this other architecture.
    Architecture(String),
    /// Its record is broken or needs a newer program.
    Broken,
}

impl TagSet {
    /// The default tag alone.
    pub const DEFAULT: Self = Self(1);

    /// Makes a set of one tag.
    pub fn single(tag: u8) -> Self {
        Self(1u64.checked_shl(u32::from(tag)).unwrap_or(0))
    }

    /// Returns whether a tag is in the set.
    pub fn contains(self, tag: u8) -> bool {
        self.0 & Self::single(tag).0 != 0
    }

    /// Returns all that is in either.
    #[must_use]
    pub fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Returns the numbers, lowest first.
    pub fn iter(self) -> impl Iterator<Item = u8> {
        (0..64).filter(move |tag| self.contains(*tag))
    }
}

impl Candidate<'_> {
    /// Returns `NAME-VERSION`.
    pub fn full_name(&self) -> String {
        format!("{}-{}", self.name, self.version)
    }

    /// Returns whether it may be chosen without a tag that leads to it.
    pub(super) fn needs_no_tag(&self) -> bool {
        self.permitted || self.preferred || self.tags.contains(0)
    }
}

impl<'a> Need<'a> {
    /// Takes a dependency; its tag is not part of a need.
    pub fn new(dependency: &'a Dependency) -> Self {
        Self {
            name: &dependency.name,
            operator: dependency.operator,
            version: &dependency.version,
            conflict: dependency.conflict,
        }
    }

    /// Returns whether an offer answers it, without the exception for a package's own offers
    /// (solver.md, 1.5 and 1.6).
    pub fn accepts(&self, version: &str, identity: Identity) -> bool {
        if self.operator == Operator::CHECKSUM && !self.conflict {
            return Identity::parse(self.version) == Some(identity);
        }
        self.operator.accepts(version, self.version) != self.conflict
    }

    /// Returns it as an owned dependency, with a tag.
    pub(super) fn to_dependency(self, tag: Option<&str>) -> Dependency {
        Dependency {
            name: self.name.to_owned(),
            operator: self.operator,
            version: self.version.to_owned(),
            conflict: self.conflict,
            tag: tag.map(str::to_owned),
            broken: false,
        }
    }
}

impl fmt::Display for Need<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.conflict { "!" } else { "" })?;
        f.write_str(self.name)?;
        f.write_str(self.operator.as_str())?;
        f.write_str(self.version)
    }
}
