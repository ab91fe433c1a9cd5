//! What the simulated platform promises beyond the common contract: replay, unfairness, virtual time, deadlocks found.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use tidemill_engine::platform::{
    Drive, DriveFactory, Nanos, Platform, PlatformError, SIM_EPOCH_MILLIS, SimFaults, SimPlatform, Turn, Wake,
};

struct Closure<F>(F);

impl<F: FnMut(Nanos) -> Turn> Drive for Closure<F> {
    fn turn(&mut self, now: Nanos) -> Turn {
        (self.0)(now)
    }
}

const IDLE: Turn = Turn::Idle { wake_at: None };

fn run<F>(
    platform: &SimPlatform,
    workers: usize,
    make: impl Fn(usize, &[Arc<dyn Wake>]) -> F,
) -> Result<(), PlatformError>
where
    F: FnMut(Nanos) -> Turn + Send + 'static,
{
    let fleet = platform.prepare(workers)?;
    let wakers = fleet.wakers();
    let factories = (0..workers)
        .map(|worker| {
            let turn = make(worker, &wakers);
            Box::new(move || Box::new(Closure(turn)) as Box<dyn Drive>) as DriveFactory
        })
        .collect();
    fleet.start(factories, None)?.join()
}

type Trace = Vec<(usize, Nanos)>;

/// Workers that are busy, idle and woken in turn; the order in which they were turned.
fn trace(seed: u64) -> Trace {
    let turned = Arc::new(Mutex::new(Vec::new()));
    run(&SimPlatform::new(seed), 4, |worker, wakers| {
        let (turned, next) = (Arc::clone(&turned), Arc::clone(&wakers[(worker + 1) % 4]));
        let mut left = 300;
        move |now| {
            turned.lock().unwrap().push((worker, now));
            left -= 1;
            next.wake();
            match left {
                0 => Turn::Done,
                n if n % 7 == 0 => Turn::Idle { wake_at: Some(now + 5_000) },
                _ => Turn::Busy { until: now },
            }
        }
    })
    .unwrap();
    Arc::try_unwrap(turned).unwrap().into_inner().unwrap()
}

#[test]
fn a_seed_replays_its_run_exactly() {
    for seed in 0..10 {
        assert_eq!(trace(seed), trace(seed), "seed {seed}");
    }
    assert_ne!(trace(1), trace(2));
}

#[test]
fn time_never_goes_back_and_every_turn_has_its_own() {
    let turned = trace(5);
    assert!(turned.is_sorted_by(|a, b| a.1 < b.1));
}

#[test]
fn workers_repeat_and_starve() {
    let (mut longest_run, mut longest_starvation) = (0, 0);
    for seed in 0..20 {
        let turned = trace(seed);
        for worker in 0..4 {
            let (mut run, mut starved) = (0, 0);
            // Only until the first is done: later gaps would be no starvation.
            for (turned, _) in &turned[..300] {
                (run, starved) = if *turned == worker { (run + 1, 0) } else { (0, starved + 1) };
                longest_run = longest_run.max(run);
                longest_starvation = longest_starvation.max(starved);
            }
        }
    }
    // These workers wait after seven turns, so a longer run means that they were woken in time as well.
    assert!(longest_run >= 10, "longest run of turns: {longest_run}");
    assert!(longest_starvation >= 100, "longest starvation: {longest_starvation}");
}

#[test]
fn time_jumps_to_the_earliest_timer_when_all_wait() {
    const DAY: Nanos = 86_400_000_000_000;
    for seed in 0..10 {
        let platform = SimPlatform::new(seed);
        let clock = platform.clock();
        assert_eq!(clock.wall_millis(), SIM_EPOCH_MILLIS);
        run(&platform, 3, |worker, _| {
            let mut due = None;
            move |now| {
                let due = *due.get_or_insert(now + DAY * (worker as u64 + 1));
                if now >= due { Turn::Done } else { Turn::Idle { wake_at: Some(due) } }
            }
        })
        .unwrap();
        assert!((3 * DAY..3 * DAY + 1_000_000_000).contains(&clock.now()), "{}", clock.now());
        assert_eq!(clock.wall_millis(), SIM_EPOCH_MILLIS + (clock.now() / 1_000_000) as i64);
    }
}

#[test]
fn a_core_that_stands_still_gets_no_turn_while_the_others_go_on() {
    const STALL: Nanos = 5_000_000;
    for seed in 0..20 {
        let turned = Arc::new(Mutex::new(Trace::new()));
        let faults = SimFaults { stall_at_turn: Some((100, 1, STALL)), ..SimFaults::default() };
        run(&SimPlatform::new(seed).faults(faults), 3, |worker, wakers| {
            let (turned, own) = (Arc::clone(&turned), Arc::clone(&wakers[worker]));
            // To be woken does not help it.
            move |now| {
                turned.lock().unwrap().push((worker, now));
                own.wake();
                if now > 3 * STALL { Turn::Done } else { Turn::Idle { wake_at: Some(now + 20_000) } }
            }
        })
        .unwrap();
        let turned = turned.lock().unwrap();
        let of = |worker: usize| turned.iter().filter(move |(of, _)| *of == worker).map(|(_, now)| *now);
        // It may not have had a turn before.
        let gap =
            |worker| [0].into_iter().chain(of(worker)).zip(of(worker)).map(|(one, next)| next - one).max();
        let gap = |worker| gap(worker).unwrap();
        // A slow turn takes up to a millisecond from all of them.
        assert!(gap(1) >= STALL && gap(0) < STALL && gap(2) < STALL, "seed {seed}: {:?}", [0, 1, 2].map(gap));
    }
}

#[test]
fn numbers_that_tell_processes_apart_follow_from_the_seed() {
    let drawn = |seed| {
        let platform = SimPlatform::new(seed);
        [platform.unique(), platform.clone().unique()]
    };
    assert_eq!(drawn(1), drawn(1));
    let all: BTreeSet<u64> = (0..100).flat_map(drawn).collect();
    assert_eq!(all.len(), 200);
}

#[test]
fn a_deadlock_is_told_with_its_seed() {
    for seed in 0..20 {
        let outcome = run(&SimPlatform::new(seed), 3, |worker, _| {
            let mut turns = 0;
            move |now| {
                turns += 1;
                if worker == 0 && turns == 5 {
                    return Turn::Done;
                }
                if worker == 0 { Turn::Busy { until: now } } else { IDLE }
            }
        });
        assert!(matches!(outcome, Err(PlatformError::Stalled { seed: told }) if told == seed), "{outcome:?}");
    }
}

#[test]
fn a_lost_worker_is_told_rather_than_the_deadlock_that_follows() {
    let outcome = run(&SimPlatform::new(1), 2, |worker, _| {
        move |_| {
            assert!(worker == 0, "broken");
            IDLE
        }
    });
    assert!(matches!(outcome, Err(PlatformError::WorkerLost { worker: 1, .. })), "{outcome:?}");
}

#[test]
fn a_wake_during_its_own_turn_leads_to_another_turn() {
    for seed in 0..20 {
        run(&SimPlatform::new(seed), 2, |worker, wakers| {
            let own = Arc::clone(&wakers[worker]);
            let mut turns = 0;
            move |_| {
                turns += 1;
                own.wake();
                if turns == 10 { Turn::Done } else { IDLE }
            }
        })
        .unwrap();
    }
}

#[test]
fn a_run_ends_when_all_are_done_though_wakes_are_pending() {
    run(&SimPlatform::new(9), 2, |_, wakers| {
        let all = wakers.to_vec();
        move |_| {
            all.iter().for_each(|waker| waker.wake());
            Turn::Done
        }
    })
    .unwrap();
}
