//! Input for the benches: made here, the same every time, as large as a distribution.

#![allow(dead_code, reason = "each bench uses its part")]

use ibex::format::index_writer;
use ibex::format::package_writer::{self, EntryContent, EntrySpec, PackageContents};
use ibex::package::{Dependency, Identity, Index, Package};

/// About as many packages as a release of Alpine has.
pub(crate) const PACKAGES: usize = 20_000;

/// A chain of numbers without pattern.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        ((self.0 >> 33) as usize) % limit.max(1)
    }
}

/// Records whose dependencies point to earlier ones: five each, by name, version or provided name.
pub(crate) fn packages() -> Vec<Package> {
    let mut numbers = Numbers(1);
    (0..PACKAGES)
        .map(|at| {
            let mut identity = [0; 20];
            identity[..8].copy_from_slice(&(at as u64 + 1).to_le_bytes());
            let needs = (0..if at < 10 { 0 } else { 5 }).map(|_| {
                let other = numbers.below(at);
                let text = match numbers.below(3) {
                    0 => name(other),
                    1 => format!("{}>=1.{}", name(other), other % 50),
                    _ => format!("so:lib{other}.so.1"),
                };
                Dependency::parse(&text).expect("a dependency")
            });
            Package {
                identity: Identity(identity),
                name: name(at),
                version: format!("1.{}.{}-r{}", at % 50, at % 7, at % 4),
                arch: Some("x86_64".into()),
                size: 10_000 + at as u64,
                installed_size: 50_000,
                description: format!("What number {at} is good for, in one line of usual length"),
                url: format!("https://example.org/{}", name(at)),
                license: "MIT".into(),
                origin: Some(name(at - at % 4)),
                maintainer: Some("Ada Example <ada@example.org>".into()),
                build_time: Some(1_700_000_000),
                commit: Some("0123456789abcdef0123456789abcdef01234567".into()),
                depends: needs.collect(),
                provides: vec![
                    Dependency::parse(&format!("so:lib{at}.so.1=1.{}", at % 50)).expect("an offer"),
                    Dependency::parse(&format!("cmd:tool{at}=1.{}", at % 50)).expect("an offer"),
                ],
                ..Package::default()
            }
        })
        .collect()
}

/// The name of a package.
pub(crate) fn name(at: usize) -> String {
    const WORDS: [&str; 8] = [
        "lib", "py3-", "perl-", "ruby-", "font-", "", "kernel-", "go-",
    ];
    format!("{}package{at}", WORDS[at % WORDS.len()])
}

/// The bytes of an index of [`packages`].
pub(crate) fn index() -> Vec<u8> {
    let index = Index {
        packages: packages(),
        ..Index::default()
    };
    index_writer::write(&index, 0, None).expect("a good index")
}

/// A package with many small files.
pub(crate) fn package(name: &str, files: usize) -> Vec<u8> {
    let mut entries = Vec::new();
    for folder in ["usr", "usr/share"] {
        entries.push(EntrySpec::new(folder, EntryContent::Directory));
    }
    let base = format!("usr/share/{name}");
    entries.push(EntrySpec::new(base.clone(), EntryContent::Directory));
    for folder in 0..files.div_ceil(100) {
        let folder_path = format!("{base}/{folder:03}");
        entries.push(EntrySpec::new(folder_path.clone(), EntryContent::Directory));
        for file in (folder * 100)..files.min(folder * 100 + 100) {
            let content = format!("file {file} of {name}\n").repeat(file % 40 + 1);
            let path = format!("{folder_path}/{file:05}");
            entries.push(EntrySpec::new(
                path,
                EntryContent::File(content.into_bytes()),
            ));
        }
    }
    let package = Package {
        name: name.into(),
        version: "1-r0".into(),
        arch: Some("x86_64".into()),
        installed_size: 1,
        license: "MIT".into(),
        ..Package::default()
    };
    let contents = PackageContents {
        package,
        entries,
        ..PackageContents::default()
    };
    package_writer::write(&contents, None).expect("a good package")
}
