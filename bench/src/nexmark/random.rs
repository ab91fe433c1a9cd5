//! Random numbers that are a pure function of where they are used: one multiplication each.
//!
//! [`Draw::word`] is position `n * LANES + lane` of the wyrand sequence, so nothing has to be remembered
//! between events, and any event can be made first.

use std::array;

const LANES: u64 = 8;
const WEYL: u64 = 0xa076_1d64_78bd_642f;
const MIX: u64 = 0xe703_7ed1_a0b4_28db;

/// The two halves of a 128-bit product, folded.
#[inline]
pub(crate) const fn fold(a: u64, b: u64) -> u64 {
    let product = (a as u128) * (b as u128);
    product as u64 ^ (product >> 64) as u64
}

/// A number in `0..bound`, evenly spread to within `bound / 2^32`.
#[inline]
pub(crate) const fn below(random: u32, bound: u64) -> u64 {
    debug_assert!(bound <= 1 << 32);
    (random as u64 * bound) >> 32
}

/// The upper half of a word.
#[inline]
pub(crate) const fn high(word: u64) -> u32 {
    (word >> 32) as u32
}

/// The lower half of a word.
#[inline]
pub(crate) const fn low(word: u64) -> u32 {
    word as u32
}

/// The random words of one event.
#[derive(Clone, Copy)]
pub(crate) struct Draw(u64);

impl Draw {
    #[inline]
    pub(crate) fn new(seed: u64, n: u64) -> Self {
        Self(seed.wrapping_add(n.wrapping_mul(LANES.wrapping_mul(WEYL))))
    }

    /// One of the event's `LANES` words; words of different lanes are independent.
    #[inline]
    pub(crate) fn word(self, lane: u64) -> u64 {
        debug_assert!(lane < LANES);
        let state = self.0.wrapping_add(lane.wrapping_mul(WEYL));
        fold(state, state ^ MIX)
    }
}

/// Prices: `round(100 * 10^(6u))` for a `u` evenly spread over `[0, 1)`.
///
/// The exponent of two is split in whole octaves (a shift), 512ths (a table) and a rest whose series is
/// short, all in fixed point: `powf`, or the same series in floats, takes longer than the rest of an event.
pub(crate) struct Prices {
    /// `100/128 * 2^(k / 512)` as a fraction of 2^62: below two, so that products fit.
    powers: [u64; 1 << Self::STEP_BITS],
}

impl Prices {
    const STEP_BITS: u32 = 9;
    /// Bits of the fraction in an exponent below 32.
    const FRACTION_BITS: u32 = 59;
    /// log2(10^6).
    const OCTAVES: u64 = (6.0 * std::f64::consts::LOG2_10 * (1u64 << Self::FRACTION_BITS) as f64) as u64;
    /// The natural logarithm of one step, as a fraction of 2^64.
    const LN_STEP: u64 =
        (std::f64::consts::LN_2 / (1u64 << Self::STEP_BITS) as f64 * 2.0 * (1u64 << 63) as f64) as u64;

    pub(crate) fn new() -> Self {
        let steps = f64::from(1u32 << Self::STEP_BITS);
        let power = |k| 100.0 / 128.0 * (k as f64 / steps).exp2() * (1u64 << 62) as f64;
        Self { powers: array::from_fn(|k| power(k) as u64) }
    }

    /// The price for `u = word / 2^64`.
    #[inline]
    pub(crate) fn price(&self, word: u64) -> i64 {
        let exponent = high_product(word, Self::OCTAVES);
        let octave = exponent >> Self::FRACTION_BITS;
        let fraction = exponent << (64 - Self::FRACTION_BITS);
        let power = self.powers[(fraction >> (64 - Self::STEP_BITS)) as usize];
        let rest = high_product(fraction << Self::STEP_BITS, Self::LN_STEP);
        let series = rest + high_product(rest, rest) / 2;
        let shift = 62 - 7 - octave;
        ((power + high_product(power, series) + (1 << (shift - 1))) >> shift) as i64
    }
}

/// The upper half of a product: that of two fractions of 2^64, as one.
#[inline]
const fn high_product(a: u64, b: u64) -> u64 {
    ((a as u128 * b as u128) >> 64) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prices_are_those_of_powf() {
        let prices = Prices::new();
        for n in 0..200_000 {
            let word = Draw::new(1, n).word(0);
            let u = word as f64 / 2f64.powi(64);
            let expected = (100.0 * 10f64.powf(6.0 * u)).round();
            // Where the exact value lies on a half, the two may round to different sides.
            assert!((prices.price(word) as f64 - expected).abs() <= 1.0, "{u} gives {}", prices.price(word));
        }
        assert_eq!(prices.price(0), 100);
        assert_eq!(prices.price(u64::MAX), 100_000_000);
    }

    #[test]
    fn words_are_evenly_spread_and_lanes_differ() {
        let mean = |lane| (0..100_000).map(|n| Draw::new(7, n).word(lane) as f64).sum::<f64>() / 1e5;
        for lane in 0..LANES {
            let relative = mean(lane) / u64::MAX as f64;
            assert!((relative - 0.5).abs() < 0.005, "lane {lane} has mean {relative}");
        }
        assert_ne!(Draw::new(7, 1).word(0), Draw::new(7, 1).word(1));
        assert_eq!((0..8).map(|_| below(u32::MAX, 10)).max(), Some(9));
    }
}
