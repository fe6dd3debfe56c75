//! The bodies of the fuzz targets on a small corpus and on simple mutations of it, without a
//! fuzzer: what was found once must not come back.

use crate::support::repository::{directory, file, package, symlink};
use crate::support::v3;
use ibex::package::ScriptKind;
use std::fs;
use std::path::Path;

#[path = "../../fuzz/src/checks.rs"]
#[allow(unreachable_pub, reason = "it is a library where the fuzzer uses it")]
mod checks;

/// The body of a fuzz target.
type Target = fn(&[u8]);

const TARGETS: [(&str, Target); 9] = [
    ("version", checks::version),
    ("dependency", checks::dependency),
    ("index", checks::index),
    ("package", checks::package),
    ("installed", checks::installed),
    ("repositories", checks::repositories),
    ("description", checks::description),
    ("lockfile", checks::lockfile),
    ("image", checks::image),
];

/// Inputs made here: real enough to get past the first check.
fn made() -> Vec<Vec<u8>> {
    let entries = vec![
        directory("usr"),
        file("usr/file", "content"),
        symlink("usr/link", "file"),
    ];
    let script = package("made", "1.0-r0", entries).script(ScriptKind::PostInstall, "exit 0");
    let package = script.build();
    let mut index = String::new();
    ibex::format::apkindex::write_record(&script.contents.package, &mut index);
    let compressed = ibex::format::package_writer::gzip(index.as_bytes());
    let nodes = [
        v3::file("file", "content"),
        v3::symlink("link", "file"),
        v3::hard_link("hard", "usr/file", "content"),
    ];
    let newer = v3::package("made", "1.0-r0", &[("usr", &nodes)]).script(3, "exit 0");
    let packed = newer.build();
    let newer_index = v3::index(&[(&newer, &packed)], 32, "${name}-${version}.apk", true);
    vec![package, index.into_bytes(), compressed, packed, newer_index]
}

/// Returns an input with one thing wrong: cut, a bit changed, a part twice, a number grown.
fn mutated(input: &[u8], number: usize) -> Vec<u8> {
    let mut bytes = input.to_vec();
    if bytes.is_empty() {
        return vec![number as u8];
    }
    let at = number.wrapping_mul(0x9e37_79b9) % bytes.len();
    match number % 5 {
        0 => bytes.truncate(at),
        1 => bytes[at] ^= 1 << (number % 8),
        2 => bytes[at] = [0, 0xff, b'\n', b':', b'/', b'='][number % 6],
        3 => {
            let part = bytes[at..bytes.len().min(at + 40)].to_vec();
            bytes.splice(at..at, part);
        }
        _ => bytes.insert(at, b'9'),
    }
    bytes
}

#[test]
fn every_target_takes_every_input() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds");
    for (name, check) in TARGETS {
        let mut inputs = made();
        let seeds = fs::read_dir(folder.join(name)).expect("each target has seeds");
        let mut seeds: Vec<_> = seeds.flatten().map(|entry| entry.path()).collect();
        seeds.sort();
        assert!(!seeds.is_empty(), "{name}");
        inputs.extend(seeds.iter().map(|path| fs::read(path).expect("a seed")));
        for input in &inputs {
            check(input);
            (0..60).for_each(|number| check(&mutated(input, number)));
        }
    }
}
