//! The name-table order of solver.md, Appendix A.
//!
//! apk keeps names in 20000 buckets and walks them in bucket order. That order is visible in
//! plans, so it is a rule here although it began as an implementation detail.

/// Number of buckets of the name table.
pub const BUCKETS: u32 = 20_000;

/// Returns the bucket of a name.
pub fn bucket(name: &str) -> u32 {
    murmur3_32(name.as_bytes(), 5381) % BUCKETS
}

/// Returns the 32-bit MurmurHash3 (x86 variant) of `bytes`.
pub fn murmur3_32(bytes: &[u8], seed: u32) -> u32 {
    let scramble = |k: u32| {
        k.wrapping_mul(0xcc9e_2d51)
            .rotate_left(15)
            .wrapping_mul(0x1b87_3593)
    };
    let mut hash = seed;
    let mut blocks = bytes.chunks_exact(4);
    for block in &mut blocks {
        let k = u32::from_le_bytes(block.try_into().expect("chunks of four bytes"));
        hash = (hash ^ scramble(k))
            .rotate_left(13)
            .wrapping_mul(5)
            .wrapping_add(0xe654_6b64);
    }
    let mut tail = 0;
    for (i, byte) in blocks.remainder().iter().enumerate() {
        tail |= u32::from(*byte) << (8 * i);
    }
    hash ^= scramble(tail);
    hash ^= bytes.len() as u32;
    hash ^= hash >> 16;
    hash = hash.wrapping_mul(0x85eb_ca6b);
    hash ^= hash >> 13;
    hash = hash.wrapping_mul(0xc2b2_ae35);
    hash ^ (hash >> 16)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn check_values_of_the_specification() {
        for (name, hash, wanted) in [
            ("a", 0x13e2_86eb, 12779),
            ("musl", 0x10b3_8e99, 2905),
            ("busybox", 0x3bf9_951f, 12383),
            ("/bin/sh", 0xf00c_ae8a, 2954),
            ("so:libc.musl-x86_64.so.1", 0x23bb_b925, 5189),
        ] {
            assert_eq!(murmur3_32(name.as_bytes(), 5381), hash, "{name}");
            assert_eq!(bucket(name), wanted, "{name}");
        }
    }
}
