//! What an event stream depends on beside the event's number.

/// The stream's parameters. Two equal configurations give equal events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    /// Chooses one of many streams with the same statistics.
    pub seed: u64,
    /// Event time of event 0, milliseconds since 1970.
    pub base_ms: i64,
    rate_per_s: u64,
    /// Whole milliseconds from one event to the next.
    step_ms: u64,
    /// The rest of that step, as a fraction of 2^64, rounded up.
    step_fraction: u64,
}

impl Config {
    /// The rate at which results are quoted, in events per second of event time.
    pub const RATE_PER_S: u64 = 100_000;
    /// 2015-07-15 00:00 UTC, where the public benchmark starts.
    pub const BASE_MS: i64 = 1_436_918_400_000;
    const SEED: u64 = 0x7469_6465_6d69_6c6c;

    /// A stream whose events are `1 / rate_per_s` apart in event time.
    ///
    /// # Panics
    /// When `rate_per_s` is 0.
    pub fn with_rate(rate_per_s: u64) -> Self {
        assert!(rate_per_s > 0, "events need a rate above zero");
        let rest = u128::from(1000 % rate_per_s);
        Self {
            seed: Self::SEED,
            base_ms: Self::BASE_MS,
            rate_per_s,
            step_ms: 1000 / rate_per_s,
            step_fraction: (rest << 64).div_ceil(u128::from(rate_per_s)) as u64,
        }
    }

    /// Events per second of event time.
    pub fn rate_per_s(&self) -> u64 {
        self.rate_per_s
    }

    /// Event time of event `n`: `base + n / rate`, in milliseconds.
    ///
    /// A product instead of a division, and exact: the fraction is too large by less than 2^-64, which
    /// `n < 2^64 / rate` multiplies to less than the smallest gap below the next millisecond, `1 / rate`.
    #[inline]
    pub fn time_ms(&self, n: u64) -> i64 {
        debug_assert!(u128::from(n) * u128::from(self.rate_per_s) < 1 << 64, "event number out of range");
        let fraction = (u128::from(n) * u128::from(self.step_fraction)) >> 64;
        self.base_ms + (n * self.step_ms + fraction as u64) as i64
    }
}

impl Default for Config {
    fn default() -> Self {
        Self::with_rate(Self::RATE_PER_S)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_equal_those_of_a_division() {
        for rate in [1, 3, 7, 999, 1000, 1001, 1500, 100_000, 10_000_000] {
            let config = Config::with_rate(rate);
            for n in (0..100_000).chain((0..100_000).map(|i| i * 1_000_003)) {
                assert_eq!(config.time_ms(n) - config.base_ms, (n * 1000 / rate) as i64, "{n} at {rate}/s");
            }
        }
    }
}
