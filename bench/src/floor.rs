//! The machine's own noise: what a latency would be if the program did nothing.
//!
//! In the manner of jHiccup: one thread per core spins towards ticks at fixed times and records how late it
//! sees each. A stall delays all ticks that fall into it, and each counts from its own time, so the
//! distribution is that of events which arrive regardless of the machine. A tail latency is quoted
//! beside this floor; a run whose floor is above its target says nothing.

use std::{
    hint, thread,
    time::{Duration, Instant},
};

use hdrhistogram::Histogram;

/// Time from one tick to the next.
pub const PERIOD: Duration = Duration::from_micros(10);

/// A histogram of nanoseconds with three significant digits, up to a minute.
pub fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 60_000_000_000, 3).expect("the bounds are constants that fit together")
}

/// Measures the floor on `cores` cores at once, in nanoseconds.
pub fn measure(cores: usize, duration: Duration) -> Histogram<u64> {
    // Read before any thread is pinned: afterwards the mask is that of one core.
    let ids = core_affinity::get_core_ids().unwrap_or_default();
    let ticks = (duration.as_nanos() / PERIOD.as_nanos()) as u32;
    let threads: Vec<_> = (0..cores)
        .map(|core| {
            let id = ids.get(core % ids.len().max(1)).copied();
            thread::spawn(move || {
                if let Some(id) = id {
                    core_affinity::set_for_current(id);
                }
                ticks_missed_by(ticks)
            })
        })
        .collect();
    let mut merged = histogram();
    for thread in threads {
        let one = thread.join().expect("a thread that only reads the clock does not fail");
        add(&mut merged, &one);
    }
    merged
}

/// Adds what another histogram recorded.
pub fn add(all: &mut Histogram<u64>, more: &Histogram<u64>) {
    all.add(more).expect("all histograms have the same bounds");
}

fn ticks_missed_by(ticks: u32) -> Histogram<u64> {
    let mut histogram = histogram();
    let start = Instant::now();
    for tick in 1..=ticks {
        let due = PERIOD * tick;
        let mut elapsed = start.elapsed();
        while elapsed < due {
            hint::spin_loop();
            elapsed = start.elapsed();
        }
        histogram.saturating_record((elapsed - due).as_nanos() as u64);
    }
    histogram
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_tick_of_every_core_is_recorded() {
        let histogram = measure(2, Duration::from_millis(5));
        assert_eq!(histogram.len(), 2 * 500);
    }
}
