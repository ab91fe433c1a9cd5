//! The loop that drives one worker on its own thread: turn, spin, announce, turn once more, park.

use super::park::Parker;
use super::{Clock, Drive, Nanos, Turn};
use std::sync::Arc;

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
        while !preempted() {
            let now = self.clock.now();
            match self.drive.turn(now) {
                Turn::Busy => self.busy_last = now,
                Turn::Done => return Stretch::Done,
                Turn::Idle { wake_at } => {
                    let timer_is_near = wake_at.is_some_and(|at| at <= now + self.patience.spin_ns_max);
                    if now < self.busy_last + self.patience.spin_ns_max || timer_is_near {
                        std::hint::spin_loop();
                    } else if self.park() == Turn::Done {
                        return Stretch::Done;
                    }
                }
            }
        }
        Stretch::Yield
    }

    /// Announces, turns once more, and sleeps if there is still nothing to do. Returns what that turn said.
    fn park(&mut self) -> Turn {
        self.parker.announce();
        let now = self.clock.now();
        let turn = self.drive.turn(now);
        match turn {
            Turn::Busy => {
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
