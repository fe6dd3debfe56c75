//! The names of architectures: OCI's and apk's (image.md, 3.6).

use crate::config::ARCH;

/// One architecture under its three names.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Architecture {
    /// OCI's spelling with its variant, as `arm64` or `arm/v7`.
    pub oci: String,
    /// apk's name, as `aarch64`.
    pub apk: String,
    /// It is in the list below; others pass through for private distributions.
    pub known: bool,
}

/// OCI's spelling and apk's name of each.
const KNOWN: [(&str, &str); 9] = [
    ("386", "x86"),
    ("amd64", "x86_64"),
    ("arm/v6", "armhf"),
    ("arm/v7", "armv7"),
    ("arm64", "aarch64"),
    ("loong64", "loongarch64"),
    ("ppc64le", "ppc64le"),
    ("riscv64", "riscv64"),
    ("s390x", "s390x"),
];

impl Architecture {
    /// Reads either spelling.
    pub fn parse(text: &str) -> Self {
        let known = KNOWN.iter().find(|(oci, apk)| text == *oci || text == *apk);
        match known {
            Some((oci, apk)) => Self {
                oci: (*oci).to_owned(),
                apk: (*apk).to_owned(),
                known: true,
            },
            None => Self {
                oci: text.to_owned(),
                apk: text.to_owned(),
                known: false,
            },
        }
    }

    /// Returns the architecture of this machine.
    pub fn host() -> Self {
        Self::parse(ARCH)
    }

    /// Returns OCI's architecture, without the variant.
    pub fn architecture(&self) -> &str {
        self.oci.split('/').next().unwrap_or_default()
    }

    /// Returns OCI's variant.
    pub fn variant(&self) -> Option<&str> {
        self.oci.split_once('/').map(|(_, variant)| variant)
    }
}

/// Returns all known ones, sorted by OCI's spelling.
pub fn all() -> Vec<Architecture> {
    KNOWN
        .iter()
        .map(|(oci, _)| Architecture::parse(oci))
        .collect()
}

/// Reads a list: `host` and `all` count when alone; the result is sorted by OCI's spelling and has
/// nothing twice.
pub fn parse_list(names: &[String]) -> Vec<Architecture> {
    match names {
        [one] if one == "all" => return all(),
        [one] if one == "host" => return vec![Architecture::host()],
        _ => {}
    }
    let mut list: Vec<Architecture> = names.iter().map(|name| Architecture::parse(name)).collect();
    list.sort();
    list.dedup();
    list
}

/// Returns the spellings to show for an unknown one.
pub fn known_names() -> String {
    KNOWN.map(|(oci, _)| oci).join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists() {
        for (names, wanted) in [
            (&["x86_64", "amd64"][..], "amd64"),
            (&["aarch64", "x86_64", "386"], "386 amd64 arm64"),
            (&["armv7"], "arm/v7"),
            (&["mine"], "mine"),
        ] {
            let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
            let found: Vec<String> = parse_list(&names).into_iter().map(|a| a.oci).collect();
            assert_eq!(found.join(" "), wanted);
        }
        assert_eq!(parse_list(&["all".to_owned()]).len(), 9);
        let arm = Architecture::parse("armhf");
        assert_eq!((arm.architecture(), arm.variant()), ("arm", Some("v6")));
    }
}
