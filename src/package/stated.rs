//! A package as a line of text after another states it, borrowed from that text.
//!
//! Reading twenty thousand records must not mean a million small allocations: a [`Stated`] is
//! filled, handed to a [`super::table::Builder`] and cleared again. It holds what indexes and the
//! installed database have in common; it must never decide whether a package is wanted.

use super::dependency::DependencyText;
use super::{Flaws, Identity, Package};
use std::borrow::Cow;

/// The fields of [`Package`] that an index record has, borrowed.
#[derive(Clone, Debug, Default)]
pub struct Stated<'a> {
    /// `C`.
    pub identity: Identity,
    /// `P`.
    pub name: &'a str,
    /// `V`.
    pub version: &'a str,
    /// `A`.
    pub arch: Option<&'a str>,
    /// `S`, in bytes.
    pub size: u64,
    /// `I`, in bytes.
    pub installed_size: u64,
    /// `T`.
    pub description: &'a str,
    /// `U`.
    pub url: &'a str,
    /// `L`.
    pub license: &'a str,
    /// `o`.
    pub origin: Option<&'a str>,
    /// `m`.
    pub maintainer: Option<&'a str>,
    /// `t`, in seconds since 1970.
    pub build_time: Option<u64>,
    /// `c`.
    pub commit: Option<&'a str>,
    /// `k`.
    pub provider_priority: u16,
    /// `D`.
    pub depends: Vec<DependencyText<'a>>,
    /// `p`.
    pub provides: Vec<DependencyText<'a>>,
    /// `i`.
    pub install_if: Vec<DependencyText<'a>>,
    /// Names from lists that were dropped.
    pub mentions: Vec<&'a str>,
    /// `g`, separated by spaces; the installed database reads them itself.
    pub tags: Cow<'a, str>,
    /// What reading found wrong.
    pub flaws: Flaws,
}

impl<'a> Stated<'a> {
    /// Forgets everything but the room for lists.
    pub fn clear(&mut self) {
        let lists = [&mut self.depends, &mut self.provides, &mut self.install_if];
        let [depends, provides, install_if] = lists.map(|list| {
            list.clear();
            std::mem::take(list)
        });
        *self = Self {
            depends,
            provides,
            install_if,
            ..Self::default()
        };
    }

    /// Writes what is stated into a package and leaves its other fields, tags included, alone.
    pub fn fill(&self, package: &mut Package) {
        let owned = |text: Option<&str>| text.map(str::to_owned);
        let list = |list: &[DependencyText<'_>]| {
            list.iter().map(|d| DependencyText::to_owned(*d)).collect()
        };
        package.identity = self.identity;
        package.name = self.name.to_owned();
        package.version = self.version.to_owned();
        package.arch = owned(self.arch);
        package.size = self.size;
        package.installed_size = self.installed_size;
        package.description = self.description.to_owned();
        package.url = self.url.to_owned();
        package.license = self.license.to_owned();
        package.origin = owned(self.origin);
        package.maintainer = owned(self.maintainer);
        package.build_time = self.build_time;
        package.commit = owned(self.commit);
        package.provider_priority = self.provider_priority;
        package.depends = list(&self.depends);
        package.provides = list(&self.provides);
        package.install_if = list(&self.install_if);
        let names = self.mentions.iter();
        package.mentions = names.map(|name| (*name).to_owned()).collect();
        package.flaws = self.flaws;
    }

    /// Borrows what a package states.
    pub fn of(package: &'a Package) -> Self {
        let list = |list: &'a [super::Dependency]| list.iter().map(DependencyText::from).collect();
        Self {
            identity: package.identity,
            name: &package.name,
            version: &package.version,
            arch: package.arch.as_deref(),
            size: package.size,
            installed_size: package.installed_size,
            description: &package.description,
            url: &package.url,
            license: &package.license,
            origin: package.origin.as_deref(),
            maintainer: package.maintainer.as_deref(),
            build_time: package.build_time,
            commit: package.commit.as_deref(),
            provider_priority: package.provider_priority,
            depends: list(&package.depends),
            provides: list(&package.provides),
            install_if: list(&package.install_if),
            mentions: package.mentions.iter().map(String::as_str).collect(),
            tags: package.tags.join(" ").into(),
            flaws: package.flaws,
        }
    }
}
