//! The order in which apk shows and sorts names: ASCII case ignored first, raw bytes second
//! (solver.md, 3.5).

use std::cmp::Ordering;

/// Compares two names in display order.
pub fn by_name(a: &str, b: &str) -> Ordering {
    let fold = |byte: &u8| byte.to_ascii_lowercase();
    a.as_bytes()
        .iter()
        .map(fold)
        .cmp(b.as_bytes().iter().map(fold))
        .then_with(|| a.cmp(b))
}
