//! Which keys a row touches: numbers of keys, drawn or dealt, and the 8 bytes of each.

use tidemill::platform::Random;

/// Keys that are updated with one call.
pub(super) const BATCH: usize = 4096;

/// The key with this number. Odd multipliers are one to one, and spread the numbers over all 64 bits.
#[inline]
pub(super) fn key(number: u64) -> u64 {
    (number + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

/// Numbers below a bound, evenly at random, with repetitions.
pub(super) struct Uniform {
    random: Random,
    keys: u64,
}

impl Uniform {
    pub(super) fn new(keys: u64, seed: u64) -> Self {
        Self { random: Random::from_seed(seed), keys }
    }

    pub(super) fn number(&mut self) -> u64 {
        self.random.below(self.keys)
    }

    /// Fills a batch with keys.
    pub(super) fn fill(&mut self, batch: &mut [u64]) {
        batch.iter_mut().for_each(|next| *next = key(self.number()));
    }
}

/// Numbers below a bound by Zipf's law, those that are frequent scattered over all.
///
/// The method is that of Gray et al. 1994, as in YCSB.
pub(super) struct Zipf {
    random: Random,
    keys: u64,
    zeta: f64,
    alpha: f64,
    eta: f64,
    half: f64,
}

/// A prime: multiplying by it modulo the number of keys is one to one.
const SCATTER: u64 = 2_654_435_761;
/// Terms of the sum that are added one by one; the rest is an integral.
const ZETA_EXACT: u64 = 1_000;

impl Zipf {
    pub(super) fn new(keys: u64, theta: f64, seed: u64) -> Self {
        let zeta = |keys: u64| {
            let exact: f64 = (1..=keys.min(ZETA_EXACT)).map(|rank| (rank as f64).powf(-theta)).sum();
            let power = |x: f64| (x + 0.5).powf(1.0 - theta) / (1.0 - theta);
            exact + power(keys as f64) - power(keys.min(ZETA_EXACT) as f64)
        };
        let (all, two) = (zeta(keys), zeta(2));
        Self {
            random: Random::from_seed(seed),
            keys,
            zeta: all,
            alpha: 1.0 / (1.0 - theta),
            eta: (1.0 - (2.0 / keys as f64).powf(1.0 - theta)) / (1.0 - two / all),
            half: 1.0 + 0.5_f64.powf(theta),
        }
    }

    /// From 0, the most frequent.
    fn rank(&mut self) -> u64 {
        let even = (self.random.next_u64() >> 11) as f64 / (1_u64 << 53) as f64;
        match even * self.zeta {
            up if up < 1.0 => 0,
            up if up < self.half => 1,
            _ => {
                let rank = self.keys as f64 * (self.eta * even - self.eta + 1.0).powf(self.alpha);
                (rank as u64).min(self.keys - 1)
            }
        }
    }

    pub(super) fn number(&mut self) -> u64 {
        (u128::from(self.rank()) * u128::from(SCATTER) % u128::from(self.keys)) as u64
    }
}

/// All numbers below a bound once, in an order that says nothing about memory.
pub(super) struct Deck {
    numbers: Vec<u32>,
    random: Random,
}

impl Deck {
    pub(super) fn new(keys: u32, seed: u64) -> Self {
        Self { numbers: (0..keys).collect(), random: Random::from_seed(seed) }
    }

    pub(super) fn len(&self) -> usize {
        self.numbers.len()
    }

    /// Another order, by Fisher and Yates.
    pub(super) fn shuffle(&mut self) {
        for last in (1..self.numbers.len()).rev() {
            self.numbers.swap(last, self.random.below(last as u64 + 1) as usize);
        }
    }

    /// The keys, in pieces of at most `len`.
    pub(super) fn batches(&self, len: usize) -> impl Iterator<Item = impl Iterator<Item = u64>> {
        self.numbers.chunks(len).map(|numbers| numbers.iter().map(|number| key(u64::from(*number))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zipf_draws_the_first_of_a_million_keys_once_in_fifteen() {
        // 1 / (1 + 1/2^0.99 + … + 1/10^(6 · 0.99)) = 1 / 15.39.
        let mut zipf = Zipf::new(1_000_000, 0.99, 1);
        assert!((zipf.zeta - 15.39).abs() < 0.01, "{}", zipf.zeta);
        let firsts = (0..100_000).filter(|_| zipf.rank() == 0).count();
        assert!((6_200..6_800).contains(&firsts), "{firsts}");
    }

    #[test]
    fn a_deck_holds_each_key_once_in_changing_order() {
        let mut deck = Deck::new(1_000, 1);
        let deal = |deck: &Deck| deck.batches(64).flatten().collect::<Vec<_>>();
        let first = deal(&deck);
        deck.shuffle();
        let mut second = deal(&deck);
        assert_ne!(first, second);
        second.sort_unstable();
        let mut all: Vec<_> = (0..1_000).map(key).collect();
        all.sort_unstable();
        assert_eq!(second, all);
    }
}
