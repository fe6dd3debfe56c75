//! Names that look like one that nothing has.

use super::view::View;

/// How alike two names must be, from 0 to 1.
const SIMILAR: f64 = 0.72;
/// How many names are worth reading.
const SHOWN: usize = 5;

/// Returns the names of packages that look most like a word, nearest first. Paths, libraries and
/// commands are no answer to a misspelt name.
pub fn nearest(view: &View<'_>, word: &str) -> Vec<String> {
    let length = word.chars().count();
    let close = |name: &str| {
        // More missing or added letters than this cannot be similar enough.
        let difference = name.len().abs_diff(length);
        let possible = difference * 3 <= length.max(name.len()) && !name.contains(['/', ':']);
        let similarity = possible.then(|| strsim::normalized_damerau_levenshtein(name, word));
        similarity.filter(|similarity| *similarity >= SIMILAR)
    };
    let names = view.names_beginning("", false);
    let mut near: Vec<(f64, &str)> = names
        .filter_map(|(name, _)| close(name).map(|similarity| (similarity, name)))
        .collect();
    near.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(b.1)));
    near.dedup_by(|a, b| a.1 == b.1);
    near.truncate(SHOWN);
    near.into_iter().map(|(_, name)| name.to_owned()).collect()
}
