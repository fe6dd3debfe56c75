//! `lib/apk/db/triggers` (formats.md, 9.5).

use crate::package::{Identity, InstalledDb};

/// Stores the trigger patterns of each line with its package; unknown packages are ignored.
pub fn read(db: &mut InstalledDb, text: &[u8]) {
    for line in String::from_utf8_lossy(text).lines() {
        let mut words = line.split(' ').filter(|word| !word.is_empty());
        let Some(identity) = words.next().and_then(Identity::parse) else {
            continue;
        };
        let globs: Vec<String> = words.map(str::to_owned).collect();
        let owner = db
            .packages
            .iter_mut()
            .find(|p| p.package.identity == identity);
        if let Some(installed) = owner {
            installed.package.triggers = globs;
        }
    }
}

/// Writes a line for each package that has triggers, in the order of the written database.
pub fn write(db: &InstalledDb) -> Vec<u8> {
    let mut order: Vec<_> = db
        .packages
        .iter()
        .map(|installed| &installed.package)
        .collect();
    order.sort_by(|a, b| crate::package::order::by_name(&a.name, &b.name));
    let with_triggers = order
        .into_iter()
        .filter(|package| !package.triggers.is_empty());
    let lines = with_triggers.map(|package| {
        format!(
            "{} {}\n",
            package.identity.to_q1(),
            package.triggers.join(" ")
        )
    });
    lines.collect::<String>().into_bytes()
}
