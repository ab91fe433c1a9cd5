//! What every platform must do, checked on the real one and on the simulated one.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use tidemill_engine::platform::{
    Drive, DriveFactory, GlommioPlatform, Nanos, Platform, PlatformError, SimPlatform, Turn, Wake,
};

fn platforms() -> Vec<(String, Box<dyn Platform>)> {
    let mut all: Vec<(String, Box<dyn Platform>)> =
        vec![("glommio".into(), Box::new(GlommioPlatform::new().pin(false)))];
    for seed in 0..20 {
        all.push((format!("sim {seed}"), Box::new(SimPlatform::new(seed))));
    }
    all
}

/// Runs one drive per worker; each gets its index and all wake handles.
fn run(
    platform: &dyn Platform,
    workers: usize,
    make: impl Fn(usize, Vec<Arc<dyn Wake>>) -> Box<dyn Drive> + Send + Sync + 'static,
) -> Result<(), PlatformError> {
    let fleet = platform.prepare(workers)?;
    let wakers = fleet.wakers();
    assert_eq!(wakers.len(), workers);
    let make = Arc::new(make);
    let factories = (0..workers)
        .map(|worker| {
            let (make, wakers) = (Arc::clone(&make), wakers.clone());
            Box::new(move || make(worker, wakers)) as DriveFactory
        })
        .collect();
    fleet.start(factories, None)?.join()
}

/// Passes a token round the ring of workers, waking the next one, `laps` times.
struct Relay {
    worker: usize,
    tokens: Arc<Vec<AtomicU64>>,
    wakers: Vec<Arc<dyn Wake>>,
    lap: u64,
    laps: u64,
}

impl Drive for Relay {
    fn turn(&mut self, now: Nanos) -> Turn {
        if self.tokens[self.worker].load(Ordering::Acquire) <= self.lap {
            return Turn::Idle { wake_at: None };
        }
        self.lap += 1;
        let next = (self.worker + 1) % self.tokens.len();
        self.tokens[next].fetch_add(1, Ordering::Release);
        self.wakers[next].wake();
        if self.lap == self.laps { Turn::Done } else { Turn::Busy { until: now } }
    }
}

#[test]
fn a_token_goes_round_any_number_of_workers() {
    for (name, platform) in platforms() {
        for workers in [1, 2, 3, 8] {
            let tokens: Arc<Vec<AtomicU64>> =
                Arc::new((0..workers).map(|worker| AtomicU64::new(u64::from(worker == 0))).collect());
            run(&*platform, workers, move |worker, wakers| {
                Box::new(Relay { worker, tokens: Arc::clone(&tokens), wakers, lap: 0, laps: 200 })
            })
            .unwrap_or_else(|error| panic!("{name}, {workers} workers: {error}"));
        }
    }
}

/// Waits for timers at the given intervals and notes when it was turned.
struct Timers {
    due: VecDeque<Nanos>,
    next: Option<Nanos>,
}

impl Drive for Timers {
    fn turn(&mut self, now: Nanos) -> Turn {
        let at = *self.next.get_or_insert_with(|| now + self.due.pop_front().expect("a timer is left"));
        if now < at {
            return Turn::Idle { wake_at: Some(at) };
        }
        self.next = None;
        if self.due.is_empty() { Turn::Done } else { Turn::Busy { until: now } }
    }
}

#[test]
fn timers_near_and_far_come_due_without_a_wake() {
    for (name, platform) in platforms() {
        let clock = platform.clock();
        let start = clock.now();
        run(&*platform, 2, |_, _| Box::new(Timers { due: [1_000, 60_000, 3_000_000, 0].into(), next: None }))
            .unwrap_or_else(|error| panic!("{name}: {error}"));
        assert!(clock.now() - start >= 3_061_000, "{name}");
    }
}

struct Panics;

impl Drive for Panics {
    fn turn(&mut self, _now: Nanos) -> Turn {
        panic!("the operator is broken")
    }
}

#[test]
fn a_panic_ends_its_worker_only_and_is_told() {
    for (name, platform) in platforms() {
        let finished = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&finished);
        let outcome = run(&*platform, 3, move |worker, _| {
            if worker == 1 {
                return Box::new(Panics);
            }
            let seen = Arc::clone(&seen);
            let mut turns_left = 100;
            Box::new(Closure(move |now| {
                turns_left -= 1;
                if turns_left > 0 {
                    return Turn::Busy { until: now };
                }
                seen.lock().unwrap().push(worker);
                Turn::Done
            }))
        });
        let Err(PlatformError::WorkerLost { worker: 1, cause }) = outcome else {
            panic!("{name}: {outcome:?}");
        };
        assert_eq!(cause, "the operator is broken");
        finished.lock().unwrap().sort_unstable();
        assert_eq!(*finished.lock().unwrap(), [0, 2], "{name}");
    }
}

struct Closure<F>(F);

impl<F: FnMut(Nanos) -> Turn> Drive for Closure<F> {
    fn turn(&mut self, now: Nanos) -> Turn {
        (self.0)(now)
    }
}

#[test]
fn a_factory_that_panics_is_a_lost_worker() {
    for (name, platform) in platforms() {
        let outcome = run(&*platform, 1, |_, _| panic!("no state directory"));
        assert!(
            matches!(&outcome, Err(PlatformError::WorkerLost { worker: 0, cause }) if cause == "no state directory"),
            "{name}: {outcome:?}"
        );
    }
}

#[test]
fn zero_workers_are_refused() {
    for (name, platform) in platforms() {
        assert!(matches!(platform.prepare(0), Err(PlatformError::Unfit { .. })), "{name}");
    }
}
