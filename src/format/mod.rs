//! Bytes to values and back; no policy, no paths.
