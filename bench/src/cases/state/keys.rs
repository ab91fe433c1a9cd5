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
