//! Alpine's own keys, for its own repositories: a description that names one of those needs no
//! keyring, with a network or without (image.md, 13.2).
//!
//! They are the public keys of Alpine's package `alpine-keys` (MIT), the same bytes, and each is
//! believed for the architectures for which that package installs it, and for the releases that it
//! signs. A repository is Alpine's if its address says so, as `…/alpine/RELEASE/REPOSITORY`; that alone
//! proves nothing, but what is signed by one of these keys was made by Alpine, wherever it is read
//! from.
//!
//! Alpine made a new key for each architecture in October 2021. Branches that were there by then stay
//! with their old keys to the end (v3.12 in August 2022, v3.10 to v3.14 before), later ones have the
//! new key from their beginning (v3.16 to v3.22), as the signatures of published indexes show. v3.15
//! is the branch between: both are believed there.

use super::discovery::{self, FoundKey};
use std::ops::RangeInclusive;

/// What all their file names begin with.
const OWNER: &str = "alpine-devel@lists.alpinelinux.org";

macro_rules! keys {
    ($($id:literal for $($architecture:literal)+ in $releases:ident),* $(,)?) => {
        &[$((
            $id,
            include_bytes!(concat!("alpine_keys/", $id, ".rsa.pub")).as_slice(),
            &[$($architecture),+],
            $releases,
        )),*]
    };
}

/// A release `v3.N`; what is numbered otherwise is older than `v3.0`.
const BETWEEN: u32 = 15;

/// The end of the file name, the key, apk's names of the architectures, the first and the last
/// release `v3.N` that it signs. The releases `edge` and `latest-stable` are after all others.
type Key = (
    &'static str,
    &'static [u8],
    &'static [&'static str],
    RangeInclusive<u32>,
);

const OLD: RangeInclusive<u32> = 0..=BETWEEN;
const NEW: RangeInclusive<u32> = BETWEEN..=u32::MAX;

const KEYS: &[Key] = keys![
    "4a6a0840" for "x86" "x86_64" in OLD,
    "5243ef4b" for "x86" in OLD,
    "524d27bb" for "armhf" "armv7" in OLD,
    "5261cecb" for "x86_64" in OLD,
    "58199dcc" for "aarch64" in OLD,
    "58cbb476" for "ppc64le" in OLD,
    "58e4f17d" for "s390x" in OLD,
    "60ac2099" for "riscv64" in OLD,
    "6165ee59" for "x86_64" in NEW,
    "61666e3f" for "x86" in NEW,
    "616a9724" for "armhf" in NEW,
    "616abc23" for "ppc64le" in NEW,
    "616ac3bc" for "s390x" in NEW,
    "616adfeb" for "armv7" in NEW,
    "616ae350" for "aarch64" in NEW,
    "616db30d" for "riscv64" in NEW,
    "66ba20fe" for "loongarch64" in NEW,
];

/// Returns the number of a release among those of `v3`.
fn number(release: &str) -> u32 {
    match release.strip_prefix('v') {
        // `edge` and `latest-stable`.
        None => u32::MAX,
        Some(version) => match version.split_once('.') {
            Some(("3", minor)) => {
                let minor = minor.split('.').next().unwrap_or_default();
                minor.parse().unwrap_or(u32::MAX)
            }
            Some((major, _)) if major.parse::<u32>().is_ok_and(|major| major < 3) => 0,
            _ => u32::MAX,
        },
    }
}

/// Returns the keys that may have signed a repository; none if it is not one of Alpine's.
pub(super) fn of(repository: &str, architecture: &str) -> Vec<FoundKey> {
    let Some(release) = discovery::alpine_release(repository.trim_end_matches('/')) else {
        return Vec::new();
    };
    let number = number(release);
    let fits = |(_, _, architectures, releases): &&Key| {
        architectures.contains(&architecture) && releases.contains(&number)
    };
    let found = KEYS.iter().filter(fits).map(|(id, pem, ..)| FoundKey {
        name: format!("{OWNER}-{id}.rsa.pub"),
        // Where Alpine publishes it.
        url: format!(
            "https://alpinelinux.org/keys/{}-{id}.rsa.pub",
            OWNER.replace('@', "%40")
        ),
        pem: pem.to_vec(),
    });
    found.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::image::architecture;
    use crate::trust::Keyring;

    #[test]
    fn each_release_has_its_own_keys() {
        let names = |release: &str, architecture: &str| {
            let found = of(
                &format!("https://mirror.example/alpine/{release}/main"),
                architecture,
            );
            let name = |key: FoundKey| {
                let name = key.name.trim_end_matches(".rsa.pub");
                name.rsplit('-').next().expect("an end").to_owned()
            };
            found.into_iter().map(name).collect::<Vec<_>>().join(" ")
        };
        for (release, architecture, wanted) in [
            ("v2.7", "x86_64", "4a6a0840 5261cecb"),
            ("v3.0", "x86", "4a6a0840 5243ef4b"),
            ("v3.10", "armv7", "524d27bb"),
            ("v3.14", "x86_64", "4a6a0840 5261cecb"),
            ("v3.15", "aarch64", "58199dcc 616ae350"),
            ("v3.16", "x86_64", "6165ee59"),
            ("v3.17", "aarch64", "616ae350"),
            ("v3.22", "armhf", "616a9724"),
            ("v3.22.1", "s390x", "616ac3bc"),
            ("v4.0", "x86", "61666e3f"),
            ("edge", "riscv64", "616db30d"),
            ("latest-stable", "ppc64le", "616abc23"),
            ("v3.14", "loongarch64", ""),
        ] {
            assert_eq!(
                names(release, architecture),
                wanted,
                "{release} {architecture}"
            );
        }
    }

    #[test]
    fn every_architecture_has_keys_that_can_be_used() {
        for known in architecture::all() {
            let found = of("https://mirror.example/alpine/v3.22/main/", &known.apk);
            assert!(!found.is_empty(), "{}", known.apk);
            let mut keyring = Keyring::new();
            for key in found {
                keyring.add(&key.name, &key.pem).expect("a key");
            }
        }
        assert!(of("https://mirror.example/other/v3.22/main", "x86_64").is_empty());
        assert!(of("https://mirror.example/alpine/v3.22/main", "pdp11").is_empty());
    }
}
