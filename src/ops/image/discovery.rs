//! Keys that nobody gave: distributions publish theirs at places that a repository's address tells
//! (image.md, 13.3).
//!
//! * `…/alpine/RELEASE/REPOSITORY`: the keys that Alpine's list of releases names for the release and
//!   architecture, unless they are deprecated by now;
//! * `REPOSITORY/apk-configuration` names a set of JSON web keys, of which the RSA keys count.
//!
//! What is found is trusted as far as the way to it: a repository that is read over TLS has no key
//! that came without. Only a repository whose signature names a key nobody gave is asked about.

use crate::trust::public_key_pem;
use serde::Deserialize;
use std::collections::BTreeMap;

/// Alpine's list of releases and their keys.
pub(super) const RELEASES: &str = "https://alpinelinux.org/releases.json";

/// Keys of one release and architecture; there are two or three.
const MOST_KEYS: usize = 64;

/// A key that was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct FoundKey {
    /// Its file name.
    pub(super) name: String,
    /// Where it was.
    pub(super) url: String,
    /// The key.
    pub(super) pem: Vec<u8>,
}

/// Gets a file: `None` if there is no such file, or why it cannot be had.
pub(super) type Get<'a> = &'a dyn Fn(&str) -> Result<Option<Vec<u8>>, String>;

#[derive(Deserialize)]
struct Releases {
    #[serde(default)]
    latest_stable: String,
    #[serde(default)]
    release_branches: Vec<Branch>,
}

#[derive(Deserialize)]
struct Branch {
    #[serde(default)]
    rel_branch: String,
    #[serde(default)]
    keys: BTreeMap<String, Vec<BranchKey>>,
}

#[derive(Deserialize)]
struct BranchKey {
    #[serde(default)]
    url: String,
    #[serde(default)]
    deprecated_since: Option<String>,
}

#[derive(Deserialize)]
struct Configuration {
    #[serde(default)]
    jwks_uri: String,
}

#[derive(Deserialize)]
struct KeySet {
    #[serde(default)]
    keys: Vec<WebKey>,
}

#[derive(Deserialize)]
struct WebKey {
    #[serde(default)]
    kty: String,
    #[serde(default)]
    kid: String,
    #[serde(default)]
    n: String,
    #[serde(default)]
    e: String,
}

/// Returns the keys that are published for a repository; `today` is `YYYY-MM-DD`.
///
/// # Errors
/// What went wrong, with the address; that there are none is no error.
pub(super) fn keys(
    repository: &str,
    architecture: &str,
    today: &str,
    get: Get<'_>,
) -> Result<Vec<FoundKey>, String> {
    let repository = repository.trim_end_matches('/');
    if !repository.starts_with("https://") && !repository.starts_with("http://") {
        return Ok(Vec::new());
    }
    if let Some(release) = alpine_release(repository) {
        let found = of_alpine(release, architecture, today, get)?;
        if !found.is_empty() {
            return Ok(found);
        }
    }
    of_configuration(repository, get)
}

/// Returns the release that an address of Alpine's repositories names.
pub(super) fn alpine_release(repository: &str) -> Option<&str> {
    let parts: Vec<&str> = repository.split('/').collect();
    let [.., "alpine", release, name] = parts.as_slice() else {
        return None;
    };
    let numbered = release.strip_prefix('v').is_some_and(|number| {
        let mut parts = number.split('.');
        parts.all(|part| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit()))
    });
    let known = numbered || matches!(*release, "edge" | "latest-stable");
    (known && !name.is_empty()).then_some(release)
}

fn of_alpine(
    release: &str,
    architecture: &str,
    today: &str,
    get: Get<'_>,
) -> Result<Vec<FoundKey>, String> {
    let Some(text) = get(RELEASES)? else {
        return Ok(Vec::new());
    };
    let releases: Releases =
        serde_json::from_slice(&text).map_err(|error| format!("{RELEASES}: {error}"))?;
    let release = match release {
        "latest-stable" => releases.latest_stable.as_str(),
        other => other,
    };
    let branch = releases
        .release_branches
        .iter()
        .find(|branch| branch.rel_branch == release);
    let listed = branch.and_then(|branch| branch.keys.get(architecture));
    let mut found = Vec::new();
    for key in listed.into_iter().flatten().take(MOST_KEYS) {
        // Days are compared as they are written: year, month, day.
        let deprecated = key
            .deprecated_since
            .as_deref()
            .filter(|day| !day.is_empty());
        if deprecated.is_some_and(|day| day <= today) {
            continue;
        }
        // Some addresses were published with a blank where there is an `@`.
        let url = key.url.replace("%20", "%40").replace(' ', "%40");
        if !url.starts_with("https://") {
            return Err(format!(
                "{RELEASES} names a key that is not at an https address: {url}"
            ));
        }
        let last = url.rsplit('/').next().unwrap_or_default();
        let name = percent_encoding::percent_decode_str(last).decode_utf8_lossy();
        let name = plain(&name).ok_or_else(|| format!("{url} has no file name"))?;
        if let Some(pem) = get(&url)? {
            found.push(FoundKey { name, url, pem });
        }
    }
    Ok(found)
}

fn of_configuration(repository: &str, get: Get<'_>) -> Result<Vec<FoundKey>, String> {
    let place = format!("{repository}/apk-configuration");
    let Some(text) = get(&place)? else {
        return Ok(Vec::new());
    };
    let configuration: Configuration =
        serde_json::from_slice(&text).map_err(|error| format!("{place}: {error}"))?;
    let uri = configuration.jwks_uri;
    let safe = uri.starts_with("https://") || repository.starts_with("http://");
    if uri.is_empty() || !safe {
        return Err(format!("{place}: jwks_uri is not an https address"));
    }
    let Some(text) = get(&uri)? else {
        return Err(format!("{uri}, which {place} names, is not there"));
    };
    let set: KeySet = serde_json::from_slice(&text).map_err(|error| format!("{uri}: {error}"))?;
    let mut found = Vec::new();
    for key in set.keys.iter().take(MOST_KEYS) {
        let id = plain(&key.kid).ok_or_else(|| format!("{uri}: a key without a plain `kid`"))?;
        if key.kty != "RSA" {
            return Err(format!("{uri}: the key {id} is not of type RSA"));
        }
        let number = |text: &str| {
            data_encoding::BASE64URL_NOPAD
                .decode(text.trim_end_matches('=').as_bytes())
                .ok()
        };
        let pem = number(&key.n).zip(number(&key.e));
        let pem = pem.and_then(|(n, e)| public_key_pem(&n, &e));
        let pem = pem.ok_or_else(|| format!("{uri}: the key {id} cannot be read"))?;
        let name = format!("{id}.rsa.pub");
        found.push(FoundKey {
            url: format!("{repository}/{name}"),
            name,
            pem: pem.into_bytes(),
        });
    }
    Ok(found)
}

/// Returns a name that is that of a file in one folder, and nothing else.
fn plain(name: &str) -> Option<String> {
    let good = |c: char| c.is_ascii_alphanumeric() || "._-@+".contains(c);
    let plain = !name.is_empty() && name.len() <= 200 && !name.starts_with('.');
    (plain && name.chars().all(good)).then(|| name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases_are_told_by_addresses() {
        for (address, wanted) in [
            (
                "https://dl-cdn.alpinelinux.org/alpine/v3.19/main",
                Some("v3.19"),
            ),
            (
                "https://mirror.example/pub/alpine/edge/community",
                Some("edge"),
            ),
            ("http://m/alpine/latest-stable/main", Some("latest-stable")),
            ("https://m/alpine/v3.19", None),
            ("https://m/alpine/vx/main", None),
            ("https://m/other/v3.19/main", None),
        ] {
            assert_eq!(alpine_release(address), wanted, "{address}");
        }
    }

    #[test]
    fn what_is_published_is_found() {
        let releases = r#"{"latest_stable":"v3.22","release_branches":[{"rel_branch":"v3.22","keys":{
            "x86_64":[
                {"url":"https://alpinelinux.org/keys/a%40b.rsa.pub"},
                {"url":"https://alpinelinux.org/keys/old.rsa.pub","deprecated_since":"2020-01-01"},
                {"url":"https://alpinelinux.org/keys/c%20d.rsa.pub","deprecated_since":"2030-01-01"}],
            "x86":[{"url":"http://alpinelinux.org/keys/a.rsa.pub"}],
            "armv7":[{"url":"https://alpinelinux.org/keys/..%2fa"}]}}]}"#;
        // The example key of RFC 7517, A.1.
        let set = r#"{"keys":[{"kty":"RSA","kid":"one","n":"0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRXjBZCiFV4n3oknjhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6qMQvRL5hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8awapJzKnqDKgw","e":"AQAB"}]}"#;
        let get = |url: &str| -> Result<Option<Vec<u8>>, String> {
            Ok(match url {
                RELEASES => Some(releases.as_bytes().to_vec()),
                "https://r/apk-configuration" => Some(br#"{"jwks_uri":"https://r/keys"}"#.to_vec()),
                "https://s/apk-configuration" => Some(br#"{"jwks_uri":"http://r/keys"}"#.to_vec()),
                "https://r/keys" => Some(set.as_bytes().to_vec()),
                "https://t/apk-configuration" => Some(b"<html>".to_vec()),
                "https://u/apk-configuration" => return Err("no answer".to_owned()),
                url if url.contains("/keys/") => Some(url.as_bytes().to_vec()),
                _ => None,
            })
        };
        let names = |repository: &str, architecture: &str| {
            let found = keys(repository, architecture, "2025-06-01", &get)?;
            Ok::<_, String>(found.into_iter().map(|key| key.name).collect::<Vec<_>>())
        };
        for release in ["v3.22", "latest-stable"] {
            let address = format!("https://m/alpine/{release}/main");
            assert_eq!(
                names(&address, "x86_64").unwrap(),
                ["a@b.rsa.pub", "c@d.rsa.pub"]
            );
            assert!(names(&address, "riscv64").unwrap().is_empty());
            assert!(names(&address, "x86").unwrap_err().contains("https"));
            assert!(
                names(&address, "armv7")
                    .unwrap_err()
                    .contains("no file name")
            );
        }
        let found = keys("https://r/", "x86_64", "2025-06-01", &get).unwrap();
        assert_eq!(found[0].url, "https://r/one.rsa.pub");
        let pem = String::from_utf8(found[0].pem.clone()).unwrap();
        assert!(pem.starts_with("-----BEGIN PUBLIC KEY-----\n"), "{pem}");
        assert!(
            names("https://s", "x86_64")
                .unwrap_err()
                .contains("jwks_uri")
        );
        assert!(
            names("https://t", "x86_64")
                .unwrap_err()
                .contains("https://t/apk-conf")
        );
        assert_eq!(names("https://u", "x86_64").unwrap_err(), "no answer");
        assert!(names("https://v", "x86_64").unwrap().is_empty());
        assert!(
            names("/a/local/alpine/v3.22/main", "x86_64")
                .unwrap()
                .is_empty()
        );
    }
}
