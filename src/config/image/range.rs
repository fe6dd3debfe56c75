//! Version ranges as other package managers write them, turned into apk's constraints.
//!
//! `nodejs@^20.10` means `nodejs>=20.10` and `nodejs<21_alpha`: apk's order puts `21_alpha` before
//! every other version that begins with 21, so that no pre-release of the next major version gets in.

use semver::{Comparator, Op, VersionReq};

/// A range that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{range}` is no version range: {cause}")]
pub struct RangeError {
    /// The range.
    pub range: String,
    /// What is wrong.
    pub cause: String,
}

/// Splits `NAME@RANGE`; `None` if what follows the `@` is no range but a repository tag.
///
/// A range begins with an operator or a digit, or is `*`. `tags` are those that repositories
/// declare; a word that is one of them is a tag.
pub fn split<'t>(text: &'t str, tags: &[String]) -> Option<(&'t str, &'t str)> {
    let (name, range) = text.split_once('@')?;
    let range = range.trim();
    let tag = tags.iter().any(|tag| tag == range);
    let looks = range.starts_with(['^', '~', '>', '<', '=', '*']) || starts_with_digit(range);
    (!name.is_empty() && looks && !tag).then_some((name, range))
}

fn starts_with_digit(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_digit())
}

/// Returns the constraints that a range on a name means; none at all for `*`.
///
/// # Errors
/// [`RangeError`].
pub fn constraints(name: &str, range: &str) -> Result<Vec<String>, RangeError> {
    let wrong = |cause: String| RangeError {
        range: range.to_owned(),
        cause,
    };
    if range.contains("||") {
        return Err(wrong("alternatives (||) cannot be expressed".to_owned()));
    }
    let request = VersionReq::parse(range).map_err(|error| wrong(error.to_string()))?;
    let mut constraints = Vec::new();
    for comparator in &request.comparators {
        if !comparator.pre.is_empty() {
            return Err(wrong("pre-releases have other names in apk".to_owned()));
        }
        let (lower, upper) = bounds(comparator);
        constraints.extend(lower.map(|version| format!("{name}>={version}")));
        constraints.extend(upper.map(|version| format!("{name}<{version}_alpha")));
    }
    if constraints.is_empty() {
        constraints.push(name.to_owned());
    }
    Ok(constraints)
}

/// Returns the first version that a comparator accepts, and the first behind it.
fn bounds(comparator: &Comparator) -> (Option<String>, Option<String>) {
    let Comparator {
        major,
        minor,
        patch,
        ..
    } = *comparator;
    let text = match (minor, patch) {
        (None, _) => major.to_string(),
        (Some(minor), None) => format!("{major}.{minor}"),
        (Some(minor), Some(patch)) => format!("{major}.{minor}.{patch}"),
    };
    let next_major = || (major + 1).to_string();
    let next_minor = |minor: u64| format!("{major}.{}", minor + 1);
    // The first version that does not begin with what is written.
    let next = match (minor, patch) {
        (None, _) => next_major(),
        (Some(minor), None) => next_minor(minor),
        (Some(minor), Some(patch)) => format!("{major}.{minor}.{}", patch + 1),
    };
    match comparator.op {
        Op::Exact | Op::Wildcard => (Some(text), Some(next)),
        Op::Greater => (Some(next), None),
        Op::GreaterEq => (Some(text), None),
        Op::Less => (None, Some(text)),
        Op::LessEq => (None, Some(next)),
        Op::Tilde => {
            let next = minor.map_or_else(next_major, next_minor);
            (Some(text), Some(next))
        }
        Op::Caret => {
            let next = match (major, minor, patch) {
                (1.., ..) | (0, None, _) => next_major(),
                (0, Some(minor @ 1..), _) | (0, Some(minor), None) => next_minor(minor),
                (0, Some(minor), Some(patch)) => format!("{major}.{minor}.{}", patch + 1),
            };
            (Some(text), Some(next))
        }
        _ => (Some(text), None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::package::Dependency;

    #[test]
    fn ranges_become_constraints() {
        for (range, wanted) in [
            ("^20.10", "n>=20.10 n<21_alpha"),
            ("20", "n>=20 n<21_alpha"),
            ("~1.2.3", "n>=1.2.3 n<1.3_alpha"),
            ("~1", "n>=1 n<2_alpha"),
            ("^0.3.1", "n>=0.3.1 n<0.4_alpha"),
            ("^0.0.3", "n>=0.0.3 n<0.0.4_alpha"),
            (">=1.2, <2", "n>=1.2 n<2_alpha"),
            (">1.2", "n>=1.3"),
            ("<=1.2", "n<1.3_alpha"),
            ("=1.2", "n>=1.2 n<1.3_alpha"),
            ("1.*", "n>=1 n<2_alpha"),
            ("*", "n"),
        ] {
            assert_eq!(
                constraints("n", range).expect(range).join(" "),
                wanted,
                "{range}"
            );
        }
        for range in ["^1 || ^2", "^x", "^1.2.3-rc1", "^"] {
            assert!(constraints("n", range).is_err(), "{range}");
        }
    }

    #[test]
    fn apk_agrees_on_what_is_in_a_range() {
        for (range, version, inside) in [
            ("^20.10", "20.10.0-r0", true),
            ("^20.10", "20.15.1-r2", true),
            ("^20.10", "20.9.0-r0", false),
            ("^20.10", "21.0.0_rc1-r0", false),
            ("^20.10", "21_alpha1-r0", false),
            ("^20.10", "21.0.0-r0", false),
            ("~1.2.3", "1.2.9_p1-r0", true),
            ("~1.2.3", "1.3.0_beta1-r0", false),
            ("=1.2", "1.2.7-r3", true),
            (">1.2", "1.2.9-r0", false),
        ] {
            let accepts = |text: &String| {
                let dependency = Dependency::parse_world(text).expect("a constraint");
                dependency.accepts(version, Default::default())
            };
            let all = constraints("n", range).expect(range).iter().all(accepts);
            assert_eq!(all, inside, "{range} {version}");
        }
    }

    #[test]
    fn tags_are_no_ranges() {
        let tags = ["3.19".to_owned()];
        assert_eq!(split("n@^1", &tags), Some(("n", "^1")));
        assert_eq!(split("n@1.2", &tags), Some(("n", "1.2")));
        for text in ["n@edge", "n@3.19", "n", "@^1", "n=1"] {
            assert_eq!(split(text, &tags), None, "{text}");
        }
    }
}
