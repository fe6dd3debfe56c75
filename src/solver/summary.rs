//! What is printed around a plan: the summary before it and the line after it (solver.md, 7.2
//! and 7.3).

use super::ids::PackageId;
use super::layout::Layout;
use super::universe::Universe;
use super::{Change, Solution};
use crate::package::{Version, order};
use std::cmp::Ordering;

/// Returns a size as people read it: `9999 B`, `9 KiB`, `9.8 MiB`.
pub fn human_size(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    // apk computes in 32-bit floats, which shows in rounding.
    let mut value = bytes as f32;
    let mut unit = 0;
    while unit + 1 < UNITS.len() && value >= 10000.0 {
        value /= 1024.0;
        unit += 1;
    }
    if unit < 2 {
        format!("{} {}", bytes >> (10 * unit), UNITS[unit])
    } else {
        format!("{value:.1} {}", UNITS[unit])
    }
}

/// What the line after a commit or a simulation counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Steps that failed; in a simulation, old packages marked as broken.
    pub errors: u32,
    /// Packages installed afterwards.
    pub packages: usize,
    /// Their installed size in bytes.
    pub installed_size: u64,
}

impl Totals {
    /// Predicts the totals of a solution that is not carried out.
    pub fn of_simulation(universe: &Universe<'_>, solution: &Solution) -> Self {
        let mut totals = Self {
            errors: 0,
            packages: universe.installed().len(),
            installed_size: (universe.installed().iter())
                .map(|package| universe.installed_size(*package))
                .fold(0, u64::wrapping_add),
        };
        for change in &solution.changes {
            if let Some(old) = change.old {
                totals.errors += u32::from(universe.broken(old).counts());
                totals.packages = totals.packages.saturating_sub(1);
                let size = universe.installed_size(old);
                totals.installed_size = totals.installed_size.wrapping_sub(size);
            }
            if let Some(new) = change.new {
                totals.packages += 1;
                let size = universe.installed_size(new);
                totals.installed_size = totals.installed_size.wrapping_add(size);
            }
        }
        totals
    }

    fn verdict(&self) -> String {
        match self.errors {
            0 => "OK:".to_owned(),
            1 => "1 error;".to_owned(),
            errors => format!("{errors} errors;"),
        }
    }

    /// Returns the last line at verbosity 1.
    pub fn line(&self) -> String {
        format!(
            "{} {} in {} packages",
            self.verdict(),
            human_size(self.installed_size),
            self.packages
        )
    }

    /// Returns the last line at verbosity 2 and above.
    pub fn detailed_line(&self, directories: usize, files: usize) -> String {
        format!(
            "{} {} packages, {directories} dirs, {files} files, {}",
            self.verdict(),
            self.packages,
            human_size(self.installed_size)
        )
    }
}

/// How the summary is to be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SummaryStyle {
    /// 1 is normal, `-v` adds.
    pub verbosity: u32,
    /// Someone will be asked.
    pub interactive: bool,
    /// Width to fill, see [`output_width`](super::output_width).
    pub width: usize,
}

/// What is to be shown before a plan.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// The text, each line ending in a newline; it may be empty.
    pub text: String,
    /// Something would change that one could be asked about.
    pub changes: bool,
}

/// Which list of the summary an entry belongs to.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Section {
    Removed,
    Downgraded,
    New,
    Upgraded,
    Reinstalled,
}

/// Returns the summary before a plan; it is only printed when `verbosity` is above 1 or the mode
/// is interactive.
pub fn summary(universe: &Universe<'_>, solution: &Solution, style: SummaryStyle) -> Summary {
    let mut entries: Vec<&Change> = solution.changes.iter().collect();
    let name = |change: &Change| {
        let package = change.old.or(change.new);
        package.map_or("", |package| universe.package_name(package))
    };
    entries.sort_by(|a, b| order::by_name(name(a), name(b)));
    let mut writer = Writer {
        universe,
        entries,
        style,
        layout: Layout::new(style.width),
        changes: false,
    };
    writer.unavailable();
    let mut serious = writer.section(Section::Removed);
    serious |= writer.section(Section::Downgraded);
    if serious || style.interactive || style.verbosity > 2 {
        writer.section(Section::New);
        writer.section(Section::Upgraded);
        writer.section(Section::Reinstalled);
        writer.sizes();
    }
    Summary {
        text: writer.layout.finish(),
        changes: writer.changes,
    }
}

/// One change of a plan that is not "nothing".
#[derive(Clone, Copy, Debug)]
pub struct Difference<'s> {
    /// The change.
    pub change: &'s Change,
    /// What it is.
    pub kind: DifferenceKind,
    /// Bytes to download, if none of its repositories is local.
    pub download: u64,
    /// Bytes that the disk has less of afterwards.
    pub growth: i64,
}

/// What a [`Difference`] is, in the order in which the summary names them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[allow(missing_docs, reason = "the words say it")]
pub enum DifferenceKind {
    Remove,
    Downgrade,
    Install,
    Upgrade,
    Reinstall,
}

/// Returns what a plan changes, by kind and name.
pub fn differences<'s>(universe: &Universe<'_>, solution: &'s Solution) -> Vec<Difference<'s>> {
    let name = |change: &Change| {
        let package = change.old.or(change.new);
        package.map_or("", |package| universe.package_name(package))
    };
    let all = solution.changes.iter().filter_map(|change| {
        let kind = match section_of(universe, change) {
            _ if change.reinstall => DifferenceKind::Reinstall,
            Some(Section::Removed) => DifferenceKind::Remove,
            Some(Section::Downgraded) => DifferenceKind::Downgrade,
            Some(Section::New) => DifferenceKind::Install,
            Some(Section::Upgraded) => DifferenceKind::Upgrade,
            _ => return None,
        };
        let size = |package: Option<PackageId>| {
            package.map_or(0, |package| universe.installed_size(package) as i64)
        };
        let fetched = change.new.filter(|new| {
            change.old != Some(*new) && !is_local(universe, *new) && !universe.is_cached(*new)
        });
        Some(Difference {
            change,
            kind,
            download: fetched.map_or(0, |new| universe.size(new)),
            growth: size(change.new).wrapping_sub(size(change.old)),
        })
    });
    let mut all: Vec<Difference<'s>> = all.collect();
    all.sort_by(|a, b| {
        let names = || order::by_name(name(a.change), name(b.change));
        a.kind.cmp(&b.kind).then_with(names)
    });
    all
}

fn is_local(universe: &Universe<'_>, package: PackageId) -> bool {
    let mut numbers = universe.repositories_of(package);
    numbers.any(|number| universe.repository(number).is_some_and(|r| r.local))
}

struct Writer<'w> {
    universe: &'w Universe<'w>,
    entries: Vec<&'w Change>,
    style: SummaryStyle,
    layout: Layout,
    changes: bool,
}

impl Writer<'_> {
    fn unavailable(&mut self) {
        let universe = self.universe;
        let gone = |package: PackageId| {
            let mut offers = universe.offers(universe.own_name(package)).iter();
            let name = universe.package_name(package);
            !offers.any(|offer| !universe.repository_set(offer.package).is_empty())
                && (self.style.verbosity > 1 || !name.starts_with('.'))
        };
        let new = self.entries.iter().filter_map(|change| change.new);
        let names: Vec<&str> = new
            .filter(|package| gone(*package))
            .map(|package| universe.package_name(package))
            .collect();
        if names.is_empty() {
            return;
        }
        self.layout
            .line("NOTE: Consider running apk upgrade with --prune and/or --available.");
        self.layout
            .line("The following packages are no longer available from a repository:");
        self.names(&names);
    }

    fn names(&mut self, names: &[&str]) {
        self.layout.indent(2);
        for name in names {
            self.layout.item(name);
        }
        self.layout.end();
    }

    /// Writes one list; returns whether it has entries.
    fn section(&mut self, section: Section) -> bool {
        let universe = self.universe;
        let changes: Vec<&Change> = (self.entries.iter())
            .filter(|change| match section {
                Section::Reinstalled => change.reinstall,
                _ => section_of(universe, change) == Some(section),
            })
            .copied()
            .collect();
        if changes.is_empty() {
            return false;
        }
        self.changes = true;
        self.layout.line(match section {
            Section::Removed => "The following packages will be REMOVED:",
            Section::Downgraded => "The following packages will be DOWNGRADED:",
            Section::New => "The following NEW packages will be installed:",
            Section::Upgraded => "The following packages will be upgraded:",
            Section::Reinstalled => "The following packages will be reinstalled:",
        });
        if self.style.verbosity > 1 {
            for change in changes {
                let line = self.detail(change);
                self.layout.line(&line);
            }
        } else {
            let packages = changes
                .iter()
                .filter_map(|change| change.new.or(change.old));
            let names: Vec<&str> = packages.map(|p| universe.package_name(p)).collect();
            self.names(&names);
        }
        true
    }

    fn detail(&self, change: &Change) -> String {
        let universe = self.universe;
        let tag = universe.tag_text(change.new_tag);
        let tag = tag.map(|tag| format!("@{tag}")).unwrap_or_default();
        let package = change.new.or(change.old);
        let name = package.map_or("", |package| universe.package_name(package));
        match (change.old, change.new) {
            (Some(old), Some(new)) if old != new && !change.reinstall => format!(
                "  {name}{tag} ({} -> {})",
                universe.version(old),
                universe.version(new)
            ),
            (old, new) => {
                let version = old.or(new).map_or("", |p| universe.version(p));
                format!("  {name}{tag} ({version})")
            }
        }
    }

    fn sizes(&mut self) {
        let universe = self.universe;
        let (mut download, mut growth) = (0u64, 0i64);
        for change in &self.entries {
            if let Some(old) = change.old {
                growth = growth.wrapping_sub(universe.installed_size(old) as i64);
            }
            if let Some(new) = change.new {
                growth = growth.wrapping_add(universe.installed_size(new) as i64);
                if change.old != Some(new) && !is_local(universe, new) {
                    download = download.wrapping_add(universe.size(new));
                }
            }
        }
        if download != 0 {
            let size = human_size(download);
            self.layout
                .line(&format!("Need to download {size} of packages."));
        }
        let size = human_size(growth.unsigned_abs());
        let what = if growth < 0 {
            "disk space will be freed"
        } else {
            "additional disk space will be used"
        };
        self.layout
            .line(&format!("After this operation, {size} of {what}."));
    }
}

fn section_of(universe: &Universe<'_>, change: &Change) -> Option<Section> {
    match (change.old, change.new) {
        (Some(_), None) => Some(Section::Removed),
        (None, Some(_)) => Some(Section::New),
        (Some(old), Some(new)) if old != new => {
            let (old, new) = (universe.version(old), universe.version(new));
            Some(match Version(new).compare(Version(old)) {
                Ordering::Less => Section::Downgraded,
                _ => Section::Upgraded,
            })
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        for (bytes, wanted) in [
            (9, "9 B"),
            (9999, "9999 B"),
            (10000, "9 KiB"),
            (10_239_999, "9999 KiB"),
            (10_240_000, "9.8 MiB"),
            (10_715_136, "10.2 MiB"),
            (5_000_000_000, "4768.4 MiB"),
            (10_000_000_000_000_000, "9094.9 TiB"),
        ] {
            assert_eq!(human_size(bytes), wanted);
        }
    }
}
