//! Alpine's own keys, for its own repositories: a description that names one of those needs no
//! keyring, with a network or without (image.md, 13.2).
//!
//! They are the public keys of Alpine's package `alpine-keys` (MIT), the same bytes, and each is
//! believed for the architectures for which that package installs it. A repository is Alpine's if
//! its address says so, as `…/alpine/RELEASE/REPOSITORY`; that alone proves nothing, but what is
//! signed by one of these keys was made by Alpine, wherever it is read from.

use super::discovery::{self, FoundKey};

/// What all their file names begin with.
const OWNER: &str = "alpine-devel@lists.alpinelinux.org";

macro_rules! keys {
    ($($id:literal for $($architecture:literal)+),* $(,)?) => {
        &[$((
            $id,
            include_bytes!(concat!("alpine_keys/", $id, ".rsa.pub")).as_slice(),
            &[$($architecture),+],
        )),*]
    };
}

/// The end of the file name, the key, apk's names of the architectures.
type Key = (&'static str, &'static [u8], &'static [&'static str]);

const KEYS: &[Key] = keys![
    "4a6a0840" for "x86" "x86_64",
    "5243ef4b" for "x86",
    "524d27bb" for "armhf" "armv7",
    "5261cecb" for "x86_64",
    "58199dcc" for "aarch64",
    "58cbb476" for "ppc64le",
    "58e4f17d" for "s390x",
    "60ac2099" for "riscv64",
    "6165ee59" for "x86_64",
    "61666e3f" for "x86",
    "616a9724" for "armhf",
    "616abc23" for "ppc64le",
    "616ac3bc" for "s390x",
    "616adfeb" for "armv7",
    "616ae350" for "aarch64",
    "616db30d" for "riscv64",
    "66ba20fe" for "loongarch64",
];

/// Returns the keys that may have signed a repository; none if it is not one of Alpine's.
pub(super) fn of(repository: &str, architecture: &str) -> Vec<FoundKey> {
    if discovery::alpine_release(repository.trim_end_matches('/')).is_none() {
        return Vec::new();
    }
    let fits = |(_, _, architectures): &&Key| architectures.contains(&architecture);
    let found = KEYS.iter().filter(fits).map(|(id, pem, _)| FoundKey {
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
