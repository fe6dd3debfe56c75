//! Who depends on a name (solver.md, 2.4), made on demand.
//!
//! A list can have thousands of names, so this is for what is asked rarely: removals and reports.

use super::ids::NameId;
use super::universe::Universe;
use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;

/// The dependents lists of a universe.
pub(super) struct Links<'u> {
    universe: &'u Universe<'u>,
    lists: RefCell<HashMap<NameId, Rc<[NameId]>>>,
}

impl<'u> Links<'u> {
    pub(super) fn new(universe: &'u Universe<'u>) -> Self {
        Self {
            universe,
            lists: RefCell::default(),
        }
    }

    /// Returns the names that have an offer whose package mentions `name` in its depends.
    pub(super) fn dependents(&self, name: NameId) -> Rc<[NameId]> {
        let mut lists = self.lists.borrow_mut();
        lists
            .entry(name)
            .or_insert_with(|| self.collect(name))
            .clone()
    }

    fn collect(&self, name: NameId) -> Rc<[NameId]> {
        let universe = self.universe;
        let mentioning = universe.mentioning(name);
        let (late, early): (Vec<_>, Vec<_>) = mentioning.partition(|p| universe.is_late(*p));
        let names = |package| universe.offered_names(package);
        let mut list: Vec<NameId> = early.into_iter().flat_map(names).collect();
        list.sort_by_cached_key(|name| universe.table_key(*name));
        list.dedup();
        for name in late.into_iter().flat_map(names) {
            if !list.contains(&name) {
                list.push(name);
            }
        }
        list.into()
    }
}
