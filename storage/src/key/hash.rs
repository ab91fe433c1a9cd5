//! The two frozen hash functions: a bijection for narrow keys, XXH3 for wide ones.

use xxhash_rust::xxh3::xxh3_64;

/// SplitMix64: what is added, the two multipliers, and the multipliers' inverses modulo 2^64.
const GAMMA: u64 = 0x9e37_79b9_7f4a_7c15;
const MULTIPLY_1: u64 = 0xbf58_476d_1ce4_e5b9;
const MULTIPLY_2: u64 = 0x94d0_49bb_1331_11eb;
const INVERSE_1: u64 = 0x96de_1b17_3f11_9089;
const INVERSE_2: u64 = 0x3196_42b2_d24d_8ec3;

// An odd multiplier is a bijection, undone by its inverse.
const _: () = assert!(MULTIPLY_1.wrapping_mul(INVERSE_1) == 1);
const _: () = assert!(MULTIPLY_2.wrapping_mul(INVERSE_2) == 1);

/// Hash of a narrow key's bits: the first output of SplitMix64 seeded with them (Steele, Lea, Flood 2014). A
/// bijection, undone by [`bits_of_hash`]; every input bit changes each output bit with a probability near 1/2.
#[inline]
pub const fn hash_bits(bits: u64) -> u64 {
    let mut x = bits.wrapping_add(GAMMA);
    x = (x ^ (x >> 30)).wrapping_mul(MULTIPLY_1);
    x = (x ^ (x >> 27)).wrapping_mul(MULTIPLY_2);
    x ^ (x >> 31)
}

/// The bits whose [`hash_bits`] is `hash`.
#[inline]
pub const fn bits_of_hash(hash: u64) -> u64 {
    // `x ^ (x >> s)` is undone by `y ^ (y >> s) ^ (y >> 2s)` as long as 3s ≥ 64.
    let mut x = hash ^ (hash >> 31) ^ (hash >> 62);
    x = x.wrapping_mul(INVERSE_2);
    x = x ^ (x >> 27) ^ (x >> 54);
    x = x.wrapping_mul(INVERSE_1);
    x = x ^ (x >> 30) ^ (x >> 60);
    x.wrapping_sub(GAMMA)
}

/// Hash of a wide key's canonical bytes: XXH3-64, seed 0, default secret.
#[inline]
pub fn hash_bytes(bytes: &[u8]) -> u64 {
    xxh3_64(bytes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn hashes_are_frozen() {
        // The first two are the published first outputs of SplitMix64 for these seeds.
        assert_eq!(hash_bits(0), 0xe220_a839_7b1d_cdaf);
        assert_eq!(hash_bits(1234567), 6_457_827_717_110_365_317);
        assert_eq!(bits_of_hash(hash_bits(u64::MAX)), u64::MAX);
        // The first is the published XXH3-64 of no bytes.
        assert_eq!(hash_bytes(b""), 0x2d06_8005_38d3_94c2);
    }

    proptest! {
        #[test]
        fn bits_and_hashes_are_one_to_one(x: u64) {
            prop_assert_eq!(bits_of_hash(hash_bits(x)), x);
            prop_assert_eq!(hash_bits(bits_of_hash(x)), x);
        }
    }
}
