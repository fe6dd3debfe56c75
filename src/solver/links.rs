//! Who depends on a name (solver.md, 2.4), made on demand.
//!
//! The lists have only names whose offers are loaded; the others can neither be discovered nor
//! installed, so no rule looks at them.

use super::ids::{NameId, PackageId};
use super::universe::Universe;
use std::cell::OnceCell;

/// The dependents lists of a universe that is no longer being loaded.
///
/// A list can have thousands of names, so this is for what is asked rarely: removals and reports.
pub(super) struct Links<'u> {
    universe: &'u Universe<'u>,
    lists: Vec<OnceCell<Box<[NameId]>>>,
}

impl<'u> Links<'u> {
    pub(super) fn new(universe: &'u Universe<'u>) -> Self {
        Self {
            universe,
            lists: (0..universe.name_count())
                .map(|_| OnceCell::new())
                .collect(),
        }
    }

    /// Returns the names that have an offer whose package mentions `name` in its depends.
    pub(super) fn dependents(&self, name: NameId) -> &[NameId] {
        self.lists[name.0 as usize].get_or_init(|| self.collect(name))
    }

    fn collect(&self, name: NameId) -> Box<[NameId]> {
        let universe = self.universe;
        let loaded = |package: PackageId| {
            let names = universe.offered_names(package);
            names.filter(|name| universe.has_offers_loaded(*name))
        };
        let mentioning = universe.mentioning(name);
        let (late, early): (Vec<_>, Vec<_>) = mentioning.partition(|p| universe.is_late(*p));
        let mut list: Vec<NameId> = early.into_iter().flat_map(loaded).collect();
        list.sort_by_cached_key(|name| universe.table_key(*name));
        list.dedup();
        for name in late.into_iter().flat_map(loaded) {
            if !list.contains(&name) {
                list.push(name);
            }
        }
        list.into_boxed_slice()
    }
}
