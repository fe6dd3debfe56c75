//! Mirrors and branches: the same repositories at several addresses.
//!
//! A mirror is the address below which a distribution's branches lie:
//! `MIRROR/BRANCH/COMPONENT/ARCH/APKINDEX.tar.gz`. Mirrors stand in for each other: what one of
//! them does not give is asked of the next. `--mirror` names them, or the root's
//! `etc/apk/mirrors.list`: one address a line, the preferred one first, `#` begins a comment.
//! A file of that name means nothing to apk, which goes on reading its own repository files.

use super::{RepositorySources, Settings};
use crate::root::{Root, RootError};

/// Where the order of mirrors is kept, below the root.
pub const LIST: &str = "etc/apk/mirrors.list";

/// The list that Alpine's own tools ship, below the root: mirrors that may be measured.
pub const KNOWN: &str = "usr/share/alpine-mirrors/MIRRORS.txt";

/// The mirror that Alpine names where none is chosen.
pub const DEFAULT: &str = "https://dl-cdn.alpinelinux.org/alpine";

/// Components of a root that does not say: those that Alpine's own set-up turns on.
pub const COMPONENTS: [&str; 2] = ["main", "community"];

/// Mirrors in order of preference.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mirrors {
    bases: Vec<String>,
}

impl Mirrors {
    /// Makes a set; trailing slashes do not matter, nor does naming one twice.
    pub fn new<S: AsRef<str>>(bases: impl IntoIterator<Item = S>) -> Self {
        let mut mirrors = Self::default();
        for base in bases {
            let base = base.as_ref().trim().trim_end_matches('/');
            if !base.is_empty() && !mirrors.bases.iter().any(|known| known == base) {
                mirrors.bases.push(base.to_owned());
            }
        }
        mirrors
    }

    /// Reads what a root and the command line name, the command line first.
    ///
    /// # Errors
    /// [`RootError`].
    pub fn load(root: &Root, sources: &RepositorySources) -> Result<Self, RootError> {
        let text = root.read(LIST)?.unwrap_or_default();
        let text = String::from_utf8_lossy(&text).into_owned();
        let given = sources.mirrors.iter().map(String::as_str);
        Ok(Self::new(given.chain(lines(&text))))
    }

    /// Returns the mirrors, the preferred one first.
    pub fn bases(&self) -> &[String] {
        &self.bases
    }

    /// Returns the part of an address below the mirror it is on.
    pub fn below<'u>(&self, url: &'u str) -> Option<&'u str> {
        self.bases.iter().find_map(|base| {
            let rest = url.strip_prefix(base.as_str())?;
            rest.starts_with('/').then_some(rest)
        })
    }

    /// Returns where else the same file is, the preferred address first; at least `url` itself.
    pub fn addresses(&self, url: &str) -> Vec<String> {
        match self.below(url) {
            None => vec![url.to_owned()],
            Some(rest) => self
                .bases
                .iter()
                .map(|base| format!("{base}{rest}"))
                .collect(),
        }
    }

    /// Returns whether two addresses mean the same file.
    pub fn same(&self, a: &str, b: &str) -> bool {
        a == b
            || self
                .below(a)
                .is_some_and(|rest| self.below(b) == Some(rest))
    }

    /// Names what an address is of, whichever mirror it is on and without credentials.
    pub fn name(&self, url: &str) -> String {
        match self.below(url) {
            Some(rest) => format!("mirrors{rest}"),
            None => super::repositories::without_credentials(url),
        }
    }
}

/// Returns whether a text can be the address of a mirror: of a web server, or a path.
pub fn is_address(text: &str) -> bool {
    let plain = !text.contains(|c: char| c.is_whitespace() || c.is_control() || c == '#');
    let host = ["http://", "https://"]
        .iter()
        .find_map(|scheme| text.strip_prefix(scheme));
    let host = host.map(|rest| rest.split('/').next().unwrap_or_default());
    plain && (text.starts_with('/') || host.is_some_and(|host| !host.is_empty()))
}

/// Returns the addresses in a list of mirrors.
pub fn lines(text: &str) -> impl Iterator<Item = &str> {
    text.lines()
        .map(|line| line.split('#').next().unwrap_or_default().trim())
        .filter(|line| !line.is_empty())
}

/// An address taken apart at its branch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// What comes before the branch, without a slash at the end.
    pub mirror: String,
    /// `edge`, `latest-stable`, `v3.20`, …
    pub branch: String,
    /// What follows: `main`, `community`, `testing`, …
    pub component: String,
}

impl Place {
    /// Takes the address of a repository apart; `None` if it has no branch in it.
    pub fn of(url: &str) -> Option<Self> {
        let mut start = url.find("://").map_or(0, |at| at + 3);
        while let Some(slash) = url[start..].find('/') {
            let at = start + slash;
            let rest = &url[at + 1..];
            let (branch, component) = rest.split_once('/').unwrap_or((rest, ""));
            if is_branch(branch) && !component.is_empty() {
                return Some(Self {
                    mirror: url[..at].to_owned(),
                    branch: branch.to_owned(),
                    component: component.to_owned(),
                });
            }
            start = at + 1;
        }
        None
    }

    /// Returns the address.
    pub fn url(&self) -> String {
        format!("{}/{}/{}", self.mirror, self.branch, self.component)
    }
}

/// Returns whether a word is the name of a branch: `edge`, `latest-stable` or `v` and a version.
pub fn is_branch(word: &str) -> bool {
    let version = |text: &str| {
        let mut parts = text.split('.');
        let digits = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
        parts.clone().count() >= 2 && parts.all(digits)
    };
    matches!(word, "edge" | "latest-stable") || word.strip_prefix('v').is_some_and(version)
}

/// Returns whether a word can be part of the path of a repository: a branch that a distribution calls as
/// it likes, or a component.
pub fn is_folder(word: &str) -> bool {
    let plain = |c: char| !(c.is_whitespace() || c.is_control() || matches!(c, '#' | '?' | '\\'));
    !word.is_empty()
        && word.chars().all(plain)
        && word.split('/').all(|part| !matches!(part, "" | "." | ".."))
}

/// Returns whether `--mirror`, `--branch` or `--component` was given.
pub fn stand_for_repositories(sources: &RepositorySources) -> bool {
    !sources.mirrors.is_empty() || sources.branch.is_some() || !sources.components.is_empty()
}

/// Returns the repository lines that `--mirror`, `--branch` and `--component` stand for; empty if
/// none of them was given.
///
/// What is not given comes from `declared`, the places that the root's own files name, else from
/// the kept mirrors and Alpine's defaults.
pub fn repository_lines(
    sources: &RepositorySources,
    mirrors: &Mirrors,
    declared: &[Place],
) -> Vec<String> {
    if !stand_for_repositories(sources) {
        return Vec::new();
    }
    let first = declared.first();
    let mirror = mirrors
        .bases()
        .first()
        .cloned()
        .or_else(|| first.map(|place| place.mirror.clone()))
        .unwrap_or_else(|| DEFAULT.to_owned());
    let branch = sources
        .branch
        .clone()
        .or_else(|| first.map(|place| place.branch.clone()))
        .unwrap_or_else(|| "latest-stable".to_owned());
    let mut components: Vec<String> = sources
        .components
        .iter()
        .flat_map(|list| list.split(','))
        .filter(|word| !word.is_empty())
        .map(str::to_owned)
        .collect();
    if components.is_empty() {
        let own = declared
            .iter()
            .filter(|place| first.is_some_and(|f| f.branch == place.branch));
        for place in own {
            if !components.contains(&place.component) {
                components.push(place.component.clone());
            }
        }
    }
    if components.is_empty() {
        components = COMPONENTS.map(str::to_owned).to_vec();
    }
    components
        .into_iter()
        .map(|component| format!("{mirror}/{branch}/{component}"))
        .collect()
}

impl Settings {
    /// Reads the mirrors of a root and of the command line.
    ///
    /// # Errors
    /// [`RootError`].
    pub fn mirrors(&self, root: &Root) -> Result<Mirrors, RootError> {
        Mirrors::load(root, &self.sources)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_taken_apart_at_the_branch() {
        for (url, wanted) in [
            (
                "https://h/alpine/v3.20/main",
                Some(("https://h/alpine", "v3.20", "main")),
            ),
            (
                "http://h/edge/testing",
                Some(("http://h", "edge", "testing")),
            ),
            ("/media/v3.19/main", Some(("/media", "v3.19", "main"))),
            (
                "http://h/latest-stable/a/b",
                Some(("http://h", "latest-stable", "a/b")),
            ),
            ("http://v3.20/x/main", None),
            ("http://h/vnext/main", None),
            ("http://h/edge", None),
        ] {
            let found = Place::of(url);
            let found = found.as_ref().map(|place| {
                (
                    place.mirror.as_str(),
                    place.branch.as_str(),
                    place.component.as_str(),
                )
            });
            assert_eq!(found, wanted, "{url}");
        }
    }

    #[test]
    fn addresses_of_mirrors_are_told_from_other_texts() {
        for good in ["http://a", "https://u:p@a:80/alpine/", "/media/x"] {
            assert!(is_address(good), "{good}");
        }
        for bad in [
            "",
            "notaurl",
            "not a url",
            "http://",
            "http:///x",
            "ftp://a",
            "http://a b",
        ] {
            assert!(!is_address(bad), "{bad}");
        }
    }

    #[test]
    fn mirrors_stand_in_for_each_other() {
        let mirrors = Mirrors::new(["http://b/", "http://a/alpine", "http://b"]);
        assert_eq!(
            mirrors.addresses("http://a/alpine/v3.20/main/x"),
            ["http://b/v3.20/main/x", "http://a/alpine/v3.20/main/x"]
        );
        assert_eq!(mirrors.addresses("http://bc/x"), ["http://bc/x"]);
        assert!(mirrors.same("http://b/x", "http://a/alpine/x"));
        assert_eq!(mirrors.name("http://a/alpine/x"), "mirrors/x");
        assert_eq!(mirrors.name("http://u:p@c/x"), "http://c/x");
        let list: Vec<&str> = lines("# c\nhttp://a # the near one\n\n http://b\n").collect();
        assert_eq!(list, ["http://a", "http://b"]);
    }

    #[test]
    fn options_stand_for_repositories() {
        let declared = [
            Place::of("http://d/v3.19/main").expect("a place"),
            Place::of("http://d/v3.19/testing").expect("a place"),
        ];
        let lines = |mirror: &[&str], branch: Option<&str>, components: &[&str], own: &[Place]| {
            let sources = RepositorySources {
                mirrors: mirror.iter().map(|&m| m.to_owned()).collect(),
                branch: branch.map(str::to_owned),
                components: components.iter().map(|&c| c.to_owned()).collect(),
                ..RepositorySources::default()
            };
            repository_lines(&sources, &Mirrors::new(mirror), own)
        };
        assert!(lines(&[], None, &[], &declared).is_empty());
        assert_eq!(
            lines(&["http://m", "http://n"], None, &[], &declared),
            ["http://m/v3.19/main", "http://m/v3.19/testing"]
        );
        assert_eq!(
            lines(&["http://m"], Some("edge"), &["main,testing"], &[]),
            ["http://m/edge/main", "http://m/edge/testing"]
        );
        assert_eq!(
            lines(&[], Some("edge"), &["main"], &declared),
            ["http://d/edge/main"]
        );
        let defaults = lines(&["http://m"], None, &[], &[]);
        assert_eq!(
            defaults,
            [
                "http://m/latest-stable/main",
                "http://m/latest-stable/community"
            ]
        );
    }
}
