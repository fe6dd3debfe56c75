//! Splitting a command into words as a POSIX shell does, without any expansion (image.md, 3.4).

/// A quote that is not closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unfinished {} at column {column}", match quote { '\'' => "single quote", '"' => "double quote", _ => "backslash" })]
pub struct QuoteError {
    /// The quote, or a backslash.
    pub quote: char,
    /// Where it stands, in characters from 1.
    pub column: usize,
}

/// Splits a text into words.
///
/// # Errors
/// [`QuoteError`].
pub fn split(text: &str) -> Result<Vec<String>, QuoteError> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut rest = text.chars().zip(1..).peekable();
    while let Some((c, column)) = rest.next() {
        let unfinished = QuoteError { quote: c, column };
        match c {
            ' ' | '\t' | '\n' | '\r' => words.extend(word.take()),
            '#' if word.is_none() => while rest.next_if(|(c, _)| *c != '\n').is_some() {},
            '\'' => {
                let word = word.get_or_insert_default();
                loop {
                    match rest.next().ok_or(unfinished)?.0 {
                        '\'' => break,
                        other => word.push(other),
                    }
                }
            }
            '"' => {
                let word = word.get_or_insert_default();
                loop {
                    match rest.next().ok_or(unfinished)?.0 {
                        '"' => break,
                        '\\' => match rest.next().ok_or(unfinished)?.0 {
                            '\n' => {}
                            special @ ('$' | '`' | '"' | '\\') => word.push(special),
                            other => word.extend(['\\', other]),
                        },
                        other => word.push(other),
                    }
                }
            }
            '\\' => match rest.next().ok_or(unfinished)?.0 {
                '\n' => {}
                other => word.get_or_insert_default().push(other),
            },
            other => word.get_or_insert_default().push(other),
        }
    }
    words.extend(word);
    Ok(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_of_a_shell() {
        for (text, wanted) in [
            ("", &[][..]),
            ("  /bin/sh  -l ", &["/bin/sh", "-l"]),
            ("nginx -g \"daemon off;\"", &["nginx", "-g", "daemon off;"]),
            ("a'b c'd", &["ab cd"]),
            ("a\\ b", &["a b"]),
            ("\"a\\\"b\\n\"", &["a\"b\\n"]),
            ("'' \"\"", &["", ""]),
            ("a # rest\nb#c", &["a", "b#c"]),
            ("$HOME *", &["$HOME", "*"]),
        ] {
            assert_eq!(split(text).expect(text), wanted, "{text}");
        }
    }

    #[test]
    fn unfinished_quotes() {
        for (text, wanted) in [
            ("/bin/sh -c \"x", "unfinished double quote at column 12"),
            ("'a", "unfinished single quote at column 1"),
            ("a\\", "unfinished backslash at column 2"),
        ] {
            assert_eq!(split(text).unwrap_err().to_string(), wanted, "{text}");
        }
    }
}
