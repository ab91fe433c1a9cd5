//! Rounds of a measurement, and two sides measured in turn.
//!
//! The machine is shared: its speed drifts from one second to the next. Two sides of a ratio therefore
//! alternate, A B A B, and what is quoted is the median of each and the spread of the rounds' ratios.

use std::time::Duration;

/// The figures of several rounds, one each.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Rounds(Vec<f64>);

impl From<Vec<f64>> for Rounds {
    fn from(values: Vec<f64>) -> Self {
        Self(values)
    }
}

impl Rounds {
    /// Runs `round` so many times; the first failure ends it.
    ///
    /// # Errors
    /// What `round` fails with.
    pub fn measure<E>(rounds: usize, mut round: impl FnMut() -> Result<f64, E>) -> Result<Self, E> {
        (0..rounds).map(|_| round()).collect::<Result<_, E>>().map(Self)
    }

    /// The values in the order of the rounds.
    pub fn values(&self) -> &[f64] {
        &self.0
    }

    /// The middle value; of an even number, the mean of the middle two.
    ///
    /// # Panics
    /// When there was no round.
    pub fn median(&self) -> f64 {
        assert!(!self.0.is_empty(), "a median needs a round");
        let mut sorted = self.0.clone();
        sorted.sort_unstable_by(f64::total_cmp);
        let middle = sorted.len() / 2;
        if sorted.len().is_multiple_of(2) {
            (sorted[middle - 1] + sorted[middle]) / 2.0
        } else {
            sorted[middle]
        }
    }

    /// The smallest and the largest value.
    pub fn spread(&self) -> [f64; 2] {
        let fold = |pick: fn(f64, f64) -> f64| self.0.iter().copied().reduce(pick).unwrap_or(f64::NAN);
        [fold(f64::min), fold(f64::max)]
    }
}

/// Two sides of a ratio, higher being better.
#[derive(Clone, Debug, PartialEq)]
pub struct Versus {
    /// Our rounds.
    pub ours: Rounds,
    /// The peer's rounds, each taken right after ours of the same place.
    pub peer: Rounds,
}

impl Versus {
    /// Runs both sides in turn, after one round of each that does not count: it pays for tables, for the
    /// allocator's first pages and for the clock speed.
    ///
    /// # Errors
    /// What either side fails with.
    pub fn alternate<E>(
        rounds: usize,
        mut ours: impl FnMut() -> Result<f64, E>,
        mut peer: impl FnMut() -> Result<f64, E>,
    ) -> Result<Self, E> {
        let _ = (ours()?, peer()?);
        let mut result = Self { ours: Rounds::default(), peer: Rounds::default() };
        for _ in 0..rounds {
            result.ours.0.push(ours()?);
            result.peer.0.push(peer()?);
        }
        Ok(result)
    }

    /// Our median over the peer's.
    pub fn ratio(&self) -> f64 {
        self.ours.median() / self.peer.median()
    }

    /// The ratio of every round.
    pub fn ratios(&self) -> Rounds {
        Rounds(self.ours.0.iter().zip(&self.peer.0).map(|(ours, peer)| ours / peer).collect())
    }
}

/// So many things in this time, per second.
pub fn per_second(count: u64, elapsed: Duration) -> f64 {
    count as f64 / elapsed.as_secs_f64()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sides_alternate_after_a_round_that_does_not_count() {
        let order = std::cell::RefCell::new(String::new());
        let side = |name, value: f64| {
            let order = &order;
            move || {
                order.borrow_mut().push(name);
                Ok::<_, ()>(value)
            }
        };
        let versus = Versus::alternate(3, side('a', 6.0), side('b', 2.0)).unwrap();
        assert_eq!(*order.borrow(), "abababab");
        assert_eq!((versus.ratio(), versus.ratios().spread()), (3.0, [3.0, 3.0]));
    }

    #[test]
    fn medians_and_spreads() {
        assert_eq!(Rounds::from(vec![3.0, 1.0, 2.0]).median(), 2.0);
        assert_eq!(Rounds::from(vec![4.0, 1.0, 2.0, 3.0]).median(), 2.5);
        assert_eq!(Rounds::from(vec![3.0, 1.0, 2.0]).spread(), [1.0, 3.0]);
    }
}
