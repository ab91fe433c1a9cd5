//! How many records a task behind an exchange takes before it looks at the clock: many where they are cheap, one where a record
//! takes as long as a step may. So a slow function holds up the other tasks of its core, and barriers, for a step and no longer.

use std::sync::Arc;

use crate::platform::{Clock, Nanos};

/// Records between two looks at the clock at least, where they are cheap: a look costs as much as a dozen of them.
const STRIDE: u64 = 256;
/// Records that are taken as long as nothing is known of their cost.
const FIRST_STRIDE: u64 = 64;
/// Looks in a step that takes all its time.
const LOOKS: Nanos = 4;

/// The pace of one task.
pub(super) struct Pace {
    clock: Arc<dyn Clock>,
    step_time_max: Nanos,
    /// What a record has cost lately.
    record_time: Nanos,
    /// The last look, and the records since.
    looked_at: Nanos,
    since: u64,
}

impl Pace {
    pub(super) fn new(clock: Arc<dyn Clock>, step_time_max: Nanos) -> Self {
        let record_time = step_time_max / LOOKS / FIRST_STRIDE;
        Self { clock, step_time_max, record_time, looked_at: 0, since: 0 }
    }

    /// A step begins.
    pub(super) fn begin(&mut self, now: Nanos) {
        (self.looked_at, self.since) = (now, 0);
    }

    /// How many of `left` records to take at once.
    #[inline]
    pub(super) fn stride(&self, left: usize) -> usize {
        let quarter = self.step_time_max / LOOKS;
        let most = quarter.checked_div(self.record_time).unwrap_or(u64::MAX).max(1);
        left.min(usize::try_from(most).unwrap_or(usize::MAX))
    }

    /// Notes that so many records were taken in the step that began at `began`; whether its time is up.
    #[inline]
    pub(super) fn note(&mut self, records: usize, began: Nanos) -> bool {
        self.since += records as u64;
        let is_due = self.since >= STRIDE || self.since * self.record_time >= self.step_time_max / LOOKS;
        is_due && self.since > 0 && self.look(began)
    }

    fn look(&mut self, began: Nanos) -> bool {
        let now = self.clock.now();
        self.record_time = now.saturating_sub(self.looked_at) / self.since;
        (self.looked_at, self.since) = (now, 0);
        now.saturating_sub(began) >= self.step_time_max
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;

    /// A clock that is set by hand.
    #[derive(Default)]
    struct ByHand(AtomicU64);

    impl Clock for ByHand {
        fn now(&self) -> Nanos {
            self.0.load(Ordering::Relaxed)
        }

        fn wall_millis(&self) -> i64 {
            0
        }
    }

    /// Records that a step takes when each takes so long, once the pace is known, and the time that they took.
    fn step(record_time: Nanos) -> (u64, Nanos) {
        let clock = Arc::new(ByHand::default());
        let mut pace = Pace::new(Arc::clone(&clock) as Arc<dyn Clock>, 200_000);
        let mut last = (0, 0);
        for _ in 0..3 {
            let began = clock.now();
            pace.begin(began);
            let mut records = 0;
            loop {
                let stride = pace.stride(1024);
                clock.0.fetch_add(stride as u64 * record_time, Ordering::Relaxed);
                records += stride as u64;
                if pace.note(stride, began) {
                    break;
                }
            }
            last = (records, clock.now() - began);
        }
        last
    }

    #[test]
    fn cheap_records_are_taken_in_whole_batches_and_dear_ones_one_by_one() {
        for (record_time, most) in [(10, 20_000 + 1024), (1_000, 250), (60_000, 4), (1_000_000, 1)] {
            let (records, took) = step(record_time);
            assert!(records <= most, "{records} records of {record_time} ns");
            assert!(took >= 200_000 && took <= 250_000.max(record_time), "{records} records took {took} ns");
        }
    }
}
