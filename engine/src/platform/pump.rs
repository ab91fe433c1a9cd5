//! The loop that drives one worker on its own thread: turn, spin, announce, turn once more, park.

use super::park::Parker;
use super::{Clock, Drive, Nanos, Turn};
use std::sync::Arc;

/// Idle turns for which one look at the clock serves: it costs as much as such a turn, and a record waits for both.
const IDLE_TURNS_PER_LOOK: u64 = 4;

/// How long an idle worker stays awake, and how long it sleeps at most.
#[derive(Clone, Copy, Debug)]
pub(super) struct Patience {
    /// Idle turns go on for this long after the last busy one before the worker parks.
    pub(super) spin_ns_max: Nanos,
    /// A bound on every park, whatever the worker waits for.
    pub(super) park_ns_max: Nanos,
}

/// Why a stretch of turns ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stretch {
    /// The executor wants its thread for a moment.
    Yield,
    /// The worker is done.
    Done,
}

/// One worker, its clock and its place to sleep.
pub(super) struct Pump {
    drive: Box<dyn Drive>,
    clock: Arc<dyn Clock>,
    parker: Parker,
    patience: Patience,
    busy_last: Nanos,
}

impl Pump {
    pub(super) fn new(
        drive: Box<dyn Drive>,
        clock: Arc<dyn Clock>,
        parker: Parker,
        patience: Patience,
    ) -> Self {
        Self { drive, clock, parker, patience, busy_last: 0 }
    }

    /// Turns the worker until it is done or `preempted` says that others want the thread.
    pub(super) fn run(&mut self, preempted: impl Fn() -> bool) -> Stretch {
        let mut now = self.clock.now();
        let mut idle_turns = 0u64;
        while !preempted() {
            match self.drive.turn(now) {
                Turn::Done => return Stretch::Done,
                Turn::Busy { until } => {
                    now = if until > now { until } else { self.clock.now() };
                    self.busy_last = now;
                }
                Turn::Idle { wake_at } if self.stays_awake(now, wake_at) => {
                    std::hint::spin_loop();
                    idle_turns += 1;
                    if idle_turns.is_multiple_of(IDLE_TURNS_PER_LOOK) {
                        now = self.clock.now();
                    }
                }
                Turn::Idle { .. } => {
                    if self.park() == Turn::Done {
                        return Stretch::Done;
                    }
                    now = self.clock.now();
                }
            }
        }
        Stretch::Yield
    }

    /// Whether an idle worker goes on looking for work: for a while after the last, and where a timer is near.
    fn stays_awake(&self, now: Nanos, wake_at: Option<Nanos>) -> bool {
        let timer_is_near = wake_at.is_some_and(|at| at <= now + self.patience.spin_ns_max);
        now < self.busy_last + self.patience.spin_ns_max || timer_is_near
    }

    /// Announces, turns once more, and sleeps if there is still nothing to do. Returns what that turn said.
    fn park(&mut self) -> Turn {
        self.parker.announce();
        let now = self.clock.now();
        let turn = self.drive.turn(now);
        match turn {
            Turn::Busy { .. } => {
                self.busy_last = now;
                self.parker.retract();
            }
            Turn::Done => self.parker.retract(),
            Turn::Idle { wake_at } => {
                let bound = now.saturating_add(self.patience.park_ns_max);
                self.parker.park(&*self.clock, wake_at.map_or(bound, |at| at.min(bound)));
            }
        }
        turn
    }
}

#[cfg(test)]
mod tests {
    use super::super::park::{self, Waker};
    use super::super::{Random, Wake};
    use super::*;
    use std::cell::RefCell;
    use std::collections::VecDeque;
    use std::rc::Rc;
    use std::sync::atomic::{AtomicU64, Ordering};

    /// Time goes on by 10 ns whenever it is read.
    struct Steps(AtomicU64);

    impl Clock for Steps {
        fn now(&self) -> Nanos {
            self.0.fetch_add(10, Ordering::Relaxed)
        }

        fn wall_millis(&self) -> i64 {
            0
        }
    }

    /// Says what the script says, then that it is done. Wakes itself where told, as another thread would.
    struct Script {
        says: VecDeque<(Turn, bool)>,
        turns: Rc<RefCell<Vec<Nanos>>>,
        waker: Waker,
    }

    impl Drive for Script {
        fn turn(&mut self, now: Nanos) -> Turn {
            self.turns.borrow_mut().push(now);
            let (turn, wakes) = self.says.pop_front().unwrap_or((Turn::Done, false));
            if wakes {
                self.waker.wake();
            }
            turn
        }
    }

    const IDLE: Turn = Turn::Idle { wake_at: None };
    /// Without a look at the clock.
    const BUSY: Turn = Turn::Busy { until: 0 };

    /// Runs the script; returns the times of its turns.
    fn run(spin_ns_max: Nanos, park_ns_max: Nanos, says: &[(Turn, bool)]) -> Vec<Nanos> {
        let (parker, waker) = park::pair();
        parker.attach();
        let turns = Rc::new(RefCell::new(Vec::new()));
        let script = Script { says: says.iter().copied().collect(), turns: Rc::clone(&turns), waker };
        let clock = Arc::new(Steps(AtomicU64::new(1_000)));
        let mut pump = Pump::new(Box::new(script), clock, parker, Patience { spin_ns_max, park_ns_max });
        assert_eq!(pump.run(|| false), Stretch::Done);
        turns.take()
    }

    #[test]
    fn idle_turns_go_on_while_it_spins() {
        let turns = run(100, Nanos::MAX, &[(BUSY, false), (IDLE, false), (IDLE, false)]);
        assert_eq!(turns, [1_000, 1_010, 1_010, 1_010]);
    }

    #[test]
    fn the_clock_is_read_once_in_some_idle_turns_and_not_where_the_worker_has_read_it() {
        let idle = [(IDLE, false); 5];
        let turns = run(100, Nanos::MAX, &[&[(Turn::Busy { until: 1_007 }, false)], &idle[..]].concat());
        assert_eq!(turns, [1_000, 1_007, 1_007, 1_007, 1_007, 1_010, 1_010]);
    }

    #[test]
    fn work_that_comes_with_the_announcement_is_found_by_the_last_look() {
        // The bound would end the test by hanging if the worker slept.
        let turns = run(0, Nanos::MAX, &[(IDLE, false), (BUSY, false)]);
        assert_eq!(turns, [1_000, 1_010, 1_020]);
    }

    #[test]
    fn a_wake_during_the_last_look_ends_the_sleep_before_it_begins() {
        let turns = run(0, Nanos::MAX, &[(IDLE, false), (IDLE, true)]);
        assert_eq!(turns.len(), 3);
    }

    #[test]
    fn a_sleep_ends_at_the_timer_or_at_the_bound() {
        let timer = Turn::Idle { wake_at: Some(1_500) };
        assert!(run(0, Nanos::MAX, &[(timer, false), (timer, false)])[2] >= 1_500);
        assert!(run(0, 300, &[(IDLE, false), (IDLE, false)])[2] >= 1_310);
    }

    #[test]
    fn a_timer_within_the_spin_is_waited_for_awake() {
        let timer = Turn::Idle { wake_at: Some(1_050) };
        assert_eq!(run(100, Nanos::MAX, &[(timer, false), (timer, false)]), [1_000; 3]);
    }

    #[test]
    fn it_yields_when_asked_between_two_turns() {
        let (parker, waker) = park::pair();
        parker.attach();
        let turns = Rc::new(RefCell::new(Vec::new()));
        let says = std::iter::repeat_n((BUSY, false), 5).collect();
        let script = Script { says, turns: Rc::clone(&turns), waker };
        let clock = Arc::new(Steps(AtomicU64::new(0)));
        let patience = Patience { spin_ns_max: 0, park_ns_max: 1 };
        let mut pump = Pump::new(Box::new(script), clock, parker, patience);
        let random = RefCell::new(Random::from_seed(1));
        let mut stretches = 1;
        while pump.run(|| random.borrow_mut().one_in(2)) == Stretch::Yield {
            stretches += 1;
        }
        assert!(stretches > 1);
        assert_eq!(turns.borrow().len(), 6);
    }
}
