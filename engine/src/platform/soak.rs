//! Wakes a parked worker from foreign threads at random gaps, and proves that every wake-up arrives.
//!
//! Used by the tests with thousands of cycles and by the benchmarks with millions. Give the platform a `park_ms_max`
//! beyond the watchdog: a bounded park would otherwise hide a lost wake-up behind its own end.

use super::{Clock, Drive, DriveFactory, Nanos, Platform, PlatformError, Random, Turn, Wake};
use hdrhistogram::Histogram;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

/// What to put a worker through.
#[derive(Clone, Copy, Debug)]
pub struct Soak {
    /// Threads that wake the worker.
    pub senders: usize,
    /// Wake-ups per sender; each is sent when the one before it has been seen.
    pub cycles: u64,
    /// A sender pauses for a random time below this between two wake-ups, spinning, in nanoseconds.
    pub gap_ns_max: u64,
    /// A wake-up that takes longer is lost.
    pub watchdog: Duration,
    /// Seed of the gaps.
    pub seed: u64,
}

/// What became of it.
#[derive(Clone, Debug)]
pub struct SoakReport {
    /// Wake-ups that were sent.
    pub sent: u64,
    /// Wake-ups that took longer than the watchdog allows; each ends its sender.
    pub lost: u64,
    /// Turns with work that came after two idle ones in a row. If the platform spins for `0` µs, the second of those was
    /// the last look before a park, so this is the number of parks.
    pub parks: u64,
    /// Nanoseconds from before the wake-up to the start of the turn that saw it.
    pub latency_ns: Histogram<u64>,
}

/// One sender's mailbox. Two cache lines of its own.
#[repr(align(128))]
#[derive(Default)]
struct Slot {
    sent: AtomicU64,
    sent_at: AtomicU64,
    seen: AtomicU64,
}

struct Mailboxes {
    slots: Vec<Slot>,
    stop: AtomicBool,
}

impl Soak {
    /// Runs it on one worker of `platform`, to the end.
    ///
    /// # Errors
    /// Those of the platform. A lost wake-up is not an error but a figure of the report.
    pub fn run(&self, platform: &dyn Platform) -> Result<SoakReport, PlatformError> {
        let boxes = Arc::new(Mailboxes {
            slots: (0..self.senders).map(|_| Slot::default()).collect(),
            stop: AtomicBool::new(false),
        });
        let fleet = platform.prepare(1)?;
        let waker = Arc::clone(&fleet.wakers()[0]);
        let (tell, told) = std::sync::mpsc::channel();
        let theirs = Arc::clone(&boxes);
        let factory: DriveFactory = Box::new(move || Box::new(Counter::new(theirs, tell)));
        let running = fleet.start(vec![factory], None)?;
        let machine_clock = platform.clock();
        let (slots, clock, waker_now) = (&boxes.slots, &*machine_clock, &*waker);
        let outcomes: Vec<(u64, bool)> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..self.senders)
                .map(|sender| scope.spawn(move || self.send(sender, &slots[sender], clock, waker_now)))
                .collect();
            threads.into_iter().filter_map(|thread| thread.join().ok()).collect()
        });
        boxes.stop.store(true, Ordering::Release);
        waker.wake();
        running.join()?;
        let (parks, latency_ns) = told.try_iter().next().unwrap_or_else(|| (0, latencies()));
        Ok(SoakReport {
            sent: outcomes.iter().map(|outcome| outcome.0).sum(),
            lost: outcomes.iter().filter(|outcome| outcome.1).count() as u64,
            parks,
            latency_ns,
        })
    }

    /// One sender: how many it sent, and whether the last of them was lost.
    fn send(&self, sender: usize, slot: &Slot, clock: &dyn Clock, waker: &dyn Wake) -> (u64, bool) {
        let mut random = Random::from_seed(self.seed ^ (sender as u64).rotate_left(32));
        for cycle in 1..=self.cycles {
            let pause = random.below(self.gap_ns_max.max(1));
            let start = clock.now();
            while clock.now() - start < pause {
                std::hint::spin_loop();
            }
            let sent_at = clock.now();
            slot.sent_at.store(sent_at, Ordering::Relaxed);
            slot.sent.store(cycle, Ordering::Release);
            waker.wake();
            let patience = Nanos::try_from(self.watchdog.as_nanos()).unwrap_or(Nanos::MAX);
            while slot.seen.load(Ordering::Acquire) != cycle {
                if clock.now() - sent_at > patience {
                    return (cycle, true);
                }
                // Lets the worker in where the two share a core.
                std::thread::yield_now();
            }
        }
        (self.cycles, false)
    }
}

/// One nanosecond to an hour, three digits.
fn latencies() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 3_600_000_000_000, 3).expect("the bounds are valid")
}

/// Sees the senders' numbers and tells them so.
struct Counter {
    boxes: Arc<Mailboxes>,
    seen: Vec<u64>,
    latency_ns: Histogram<u64>,
    idle_turns: u64,
    parks: u64,
    tell: std::sync::mpsc::Sender<(u64, Histogram<u64>)>,
}

impl Counter {
    fn new(boxes: Arc<Mailboxes>, tell: std::sync::mpsc::Sender<(u64, Histogram<u64>)>) -> Self {
        let seen = vec![0; boxes.slots.len()];
        Self { boxes, seen, latency_ns: latencies(), idle_turns: 0, parks: 0, tell }
    }
}

impl Drive for Counter {
    fn turn(&mut self, now: Nanos) -> Turn {
        let mut turn = Turn::Idle { wake_at: None };
        for (slot, seen) in self.boxes.slots.iter().zip(&mut self.seen) {
            let sent = slot.sent.load(Ordering::Acquire);
            if sent != *seen {
                self.latency_ns.saturating_record(now.saturating_sub(slot.sent_at.load(Ordering::Relaxed)));
                *seen = sent;
                slot.seen.store(sent, Ordering::Release);
                turn = Turn::Busy { until: now };
            }
        }
        if self.boxes.stop.load(Ordering::Acquire) {
            let _ = self.tell.send((self.parks, self.latency_ns.clone()));
            return Turn::Done;
        }
        if matches!(turn, Turn::Busy { .. }) {
            self.parks += u64::from(self.idle_turns >= 2);
            self.idle_turns = 0;
        } else {
            self.idle_turns += 1;
        }
        turn
    }
}

#[cfg(test)]
mod tests {
    use super::super::{GlommioPlatform, SimPlatform};
    use super::*;

    fn soak(platform: &dyn Platform, senders: usize, cycles: u64, gap_ns_max: u64) {
        let watchdog = Duration::from_secs(60);
        let report = Soak { senders, cycles, gap_ns_max, watchdog, seed: 11 }.run(platform).unwrap();
        assert_eq!((report.sent, report.lost), (senders as u64 * cycles, 0));
        let seen = report.latency_ns.len();
        assert_eq!(seen, report.sent, "every number is seen once: the sender waits for it");
    }

    fn never_by_timeout() -> GlommioPlatform {
        GlommioPlatform::new().park_ms_max(600_000)
    }

    #[test]
    fn no_wake_up_is_lost_when_the_worker_parks_at_once() {
        soak(&never_by_timeout().spin_us_max(0), 1, 10_000, 15_000);
    }

    #[test]
    fn no_wake_up_is_lost_between_spinning_and_parking() {
        soak(&never_by_timeout().spin_us_max(5), 1, 5_000, 15_000);
    }

    #[test]
    fn no_wake_up_is_lost_among_many_wakers() {
        soak(&never_by_timeout().spin_us_max(0).pin(false), 4, 2_000, 5_000);
    }

    #[test]
    fn threads_outside_wake_an_open_simulation() {
        // Its clock is virtual and moves only with its turns, so neither gaps nor the watchdog can be used.
        let soak = Soak { senders: 2, cycles: 500, gap_ns_max: 0, watchdog: Duration::MAX, seed: 3 };
        let report = soak.run(&SimPlatform::new(3).open_world()).unwrap();
        assert_eq!((report.sent, report.lost), (1_000, 0));
    }
}
