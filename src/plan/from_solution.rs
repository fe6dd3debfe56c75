//! A plan made of what the solver decided.

use super::{Change, NewPackage, OldPackage, Plan, Source};
use crate::package::{InstalledDb, Package};
use crate::solver::{self, PackageId, Solution, Universe};

impl Plan {
    /// Takes over the changes of a solution, in order.
    ///
    /// `source` says where the file of a package is; it is only asked for packages that must be
    /// read. A reinstallation whose file can not be had becomes [`Source::Unavailable`], which is
    /// skipped (solver.md, 7.1).
    pub fn from_solution(
        universe: &Universe<'_>,
        solution: &Solution,
        mut source: impl FnMut(PackageId) -> Source,
    ) -> Self {
        let tag = |tag| universe.tag_text(tag).map(str::to_owned);
        let new_side = |change: &solver::Change, package: PackageId, source: Source| NewPackage {
            package: universe.package(package),
            tag: tag(change.new_tag),
            source,
        };
        let changes = solution.changes.iter().map(|change| Change {
            old: change.old.map(|package| OldPackage {
                identity: universe.identity(package),
                name: universe.package_name(package).to_owned(),
                version: universe.version(package).to_owned(),
                tag: tag(change.old_tag),
            }),
            new: change.new.map(|package| {
                let unchanged = change.old == Some(package);
                let place = if unchanged && !change.reinstall {
                    Source::None
                } else if unchanged && !universe.is_available(package) {
                    Source::Unavailable
                } else if universe.installed_size(package) == 0 {
                    Source::None
                } else {
                    source(package)
                };
                new_side(change, package, place)
            }),
            reinstall: change.reinstall,
        });
        Self {
            changes: changes.collect(),
        }
    }

    /// Gives packages that stay, or are installed again, the metadata that the database has of
    /// them; choosing needs less of it. The size is the one just read.
    pub fn restate(&mut self, installed: &InstalledDb) {
        for new in self.changes.iter_mut().filter_map(|c| c.new.as_mut()) {
            if let Some(known) = installed.by_identity(new.package.identity) {
                new.package = Package {
                    size: new.package.size,
                    ..known.package.clone()
                };
            }
        }
    }
}
