//! Shell patterns with the rules of POSIX `fnmatch`, which apk uses everywhere (cli.md, 1.15).

/// How a pattern is matched.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// A wildcard does not match `/` (protected paths, triggers).
    pub pathname: bool,
    /// ASCII case is ignored (names on the command line).
    pub ignore_case: bool,
}

/// Returns whether `text` as a whole matches `pattern`.
///
/// `*`, `?` and `[…]` are wildcards and `\` quotes the next character. Time is bounded by the
/// product of both lengths.
pub fn matches(pattern: &str, text: &str, options: Options) -> bool {
    let (pattern, text) = (pattern.as_bytes(), text.as_bytes());
    let (mut p, mut t) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    loop {
        let step = match pattern.get(p) {
            None if t == text.len() => return true,
            None => None,
            Some(b'*') => {
                star = Some((p + 1, t));
                p += 1;
                continue;
            }
            Some(_) => text.get(t).and_then(|byte| one(pattern, p, *byte, options)),
        };
        if let Some(next) = step {
            p = next;
            t += 1;
            continue;
        }
        let Some((after, from)) = star else {
            return false;
        };
        if from >= text.len() || (options.pathname && text[from] == b'/') {
            return false;
        }
        star = Some((after, from + 1));
        (p, t) = (after, from + 1);
    }
}

/// Matches one character at `pattern[p]`; returns where the pattern continues.
fn one(pattern: &[u8], p: usize, byte: u8, options: Options) -> Option<usize> {
    let fold = |b: u8| {
        if options.ignore_case {
            b.to_ascii_lowercase()
        } else {
            b
        }
    };
    match pattern[p] {
        b'?' => (!(options.pathname && byte == b'/')).then_some(p + 1),
        b'[' => match bracket(pattern, p, byte, options) {
            Some((hit, next)) => (hit && !(options.pathname && byte == b'/')).then_some(next),
            None => (byte == b'[').then_some(p + 1),
        },
        b'\\' if p + 1 < pattern.len() => (fold(pattern[p + 1]) == fold(byte)).then_some(p + 2),
        literal => (fold(literal) == fold(byte)).then_some(p + 1),
    }
}

/// Matches a bracket expression; `None` if it is not closed.
fn bracket(pattern: &[u8], start: usize, byte: u8, options: Options) -> Option<(bool, usize)> {
    let mut i = start + 1;
    let negate = matches!(pattern.get(i), Some(b'!' | b'^'));
    if negate {
        i += 1;
    }
    let mut hit = false;
    let mut first = true;
    loop {
        let low = *pattern.get(i)?;
        if low == b']' && !first {
            return Some((hit != negate, i + 1));
        }
        first = false;
        if pattern.get(i + 1) == Some(&b'-') && pattern.get(i + 2).is_some_and(|b| *b != b']') {
            let high = pattern[i + 2];
            hit |= within(low, high, byte, options);
            i += 3;
        } else {
            hit |= within(low, low, byte, options);
            i += 1;
        }
    }
}

fn within(low: u8, high: u8, byte: u8, options: Options) -> bool {
    let plain = (low..=high).contains(&byte);
    if !options.ignore_case {
        return plain;
    }
    plain
        || (low..=high).contains(&byte.to_ascii_lowercase())
        || (low..=high).contains(&byte.to_ascii_uppercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fnmatch_rules() {
        let path = Options {
            pathname: true,
            ignore_case: false,
        };
        let fold = Options {
            pathname: false,
            ignore_case: true,
        };
        let plain = Options::default();
        for (pattern, text, options, wanted) in [
            ("*", "", plain, true),
            ("a*c", "abbc", plain, true),
            ("a*c", "abbd", plain, false),
            ("*", "a/b", plain, true),
            ("*", "a/b", path, false),
            ("/usr/*/bin", "/usr/x/bin", path, true),
            ("/usr/*/bin", "/usr/x/y/bin", path, false),
            ("?", "/", path, false),
            ("[a-c]x", "bx", plain, true),
            ("[!a-c]x", "bx", plain, false),
            ("[]]", "]", plain, true),
            ("[a", "[a", plain, true),
            ("MUS*", "musl", fold, true),
            ("\\*", "*", plain, true),
            ("\\*", "a", plain, false),
            ("a**b", "ab", plain, true),
            ("*a*b*c", "xxaxxbxxc", plain, true),
            ("", "", plain, true),
            ("", "a", plain, false),
        ] {
            assert_eq!(matches(pattern, text, options), wanted, "{pattern} {text}");
        }
    }
}
