//! Who depends on a name (solver.md, 2.4), made on demand.
//!
//! The lists have only names whose offers are loaded; the others can neither be discovered nor
//! installed, so no rule looks at them.

use super::universe::{NameId, PackageId, Universe};
use crate::package::name_hash::BUCKETS;
use std::cell::OnceCell;

/// The dependents lists of a universe that is no longer being loaded.
pub(super) struct Links<'u> {
    universe: &'u Universe<'u>,
    lists: Vec<OnceCell<Box<[NameId]>>>,
    order: OnceCell<Order>,
}

/// Dense positions of names in the order of the name table.
struct Order {
    position: Vec<u32>,
    names: Vec<NameId>,
}

/// Above this many names, sorting by a bitmap over the whole order is cheaper.
const SORT_LIMIT: usize = 512;

impl<'u> Links<'u> {
    pub(super) fn new(universe: &'u Universe<'u>) -> Self {
        Self {
            universe,
            lists: (0..universe.name_count())
                .map(|_| OnceCell::new())
                .collect(),
            order: OnceCell::new(),
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
        let (mut list, mut late) = (Vec::new(), Vec::new());
        for (package, is_late) in universe.mentioning(name) {
            if is_late {
                late.extend(loaded(package));
            } else {
                list.extend(loaded(package));
            }
        }
        let mut list = if list.len() > SORT_LIMIT {
            self.order.get_or_init(|| Order::new(universe)).sort(&list)
        } else {
            list.sort_unstable_by_key(|name| universe.table_key(*name));
            list.dedup();
            list
        };
        for name in late {
            if !list.contains(&name) {
                list.push(name);
            }
        }
        list.into_boxed_slice()
    }
}

impl Order {
    fn new(universe: &Universe<'_>) -> Self {
        let mut starts = vec![0u32; BUCKETS as usize + 1];
        for name in universe.names() {
            starts[universe.table_key(name).0 as usize + 1] += 1;
        }
        for bucket in 1..starts.len() {
            starts[bucket] += starts[bucket - 1];
        }
        let mut next = starts.clone();
        let mut names = vec![NameId(0); universe.name_count()];
        for name in universe.names() {
            let slot = &mut next[universe.table_key(name).0 as usize];
            names[*slot as usize] = name;
            *slot += 1;
        }
        for bucket in starts.windows(2).filter(|w| w[1] - w[0] > 1) {
            names[bucket[0] as usize..bucket[1] as usize]
                .sort_unstable_by_key(|name| universe.table_key(*name));
        }
        let mut position = vec![0; names.len()];
        for (at, name) in names.iter().enumerate() {
            position[name.0 as usize] = at as u32;
        }
        Self { position, names }
    }

    /// Returns the names sorted, each once.
    fn sort(&self, list: &[NameId]) -> Vec<NameId> {
        let mut bits = vec![0u64; self.names.len().div_ceil(64)];
        for name in list {
            let at = self.position[name.0 as usize];
            bits[at as usize / 64] |= 1 << (at % 64);
        }
        let mut sorted = Vec::new();
        for (word, mut rest) in bits.into_iter().enumerate() {
            while rest != 0 {
                sorted.push(self.names[word * 64 + rest.trailing_zeros() as usize]);
                rest &= rest - 1;
            }
        }
        sorted
    }
}
