//! The machine's clock.

use super::{Clock, Nanos};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// The monotonic clock since its own making, and the wall clock.
pub(super) struct MachineClock {
    start: Instant,
}

impl MachineClock {
    pub(super) fn new() -> Self {
        Self { start: Instant::now() }
    }
}

impl Clock for MachineClock {
    #[inline]
    fn now(&self) -> Nanos {
        // 2^64 ns are 584 years.
        self.start.elapsed().as_nanos() as Nanos
    }

    fn wall_millis(&self) -> i64 {
        match SystemTime::now().duration_since(UNIX_EPOCH) {
            Ok(after) => i64::try_from(after.as_millis()).unwrap_or(i64::MAX),
            Err(before) => i64::try_from(before.duration().as_millis()).map_or(i64::MIN, |millis| -millis),
        }
    }
}
