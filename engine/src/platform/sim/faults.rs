//! What goes wrong in a simulation, and when.

use std::{
    collections::VecDeque,
    fmt,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use crate::platform::{Mishap, Mishaps, Nanos};

/// What goes wrong, each at a turn; turns are counted from 0 over all attempts of a job.
#[derive(Clone, Default)]
pub struct SimFaults {
    /// The whole process is killed: [`PlatformError::Killed`](crate::platform::PlatformError::Killed).
    pub kill_at_turn: Option<u64>,
    /// A worker is lost, or the coordinator, whose index is the number of workers: the turn, and the index (modulo their number).
    pub lose_worker_at_turn: Option<(u64, usize)>,
    /// The wall clock is set by so many milliseconds.
    pub jump_at_turn: Option<(u64, i64)>,
    /// The core of a worker, or of the coordinator, stands still while the others go on: the turn, the index as above, and for how long.
    pub stall_at_turn: Option<(u64, usize, Nanos)>,
    /// Tasks that fail, in the order of turns: a turn, and how many steps of tasks behind its beginning. A task that is built then
    /// does not open.
    pub fail_steps: Vec<(u64, u64)>,
    /// Called when the process is killed, before anything of it is dropped: what outlives a process (its disk, the systems that it
    /// writes to) must take nothing from it any more.
    pub on_kill: Option<Arc<dyn Fn() + Send + Sync>>,
}

impl fmt::Debug for SimFaults {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("SimFaults")
            .field("kill_at_turn", &self.kill_at_turn)
            .field("lose_worker_at_turn", &self.lose_worker_at_turn)
            .field("jump_at_turn", &self.jump_at_turn)
            .field("stall_at_turn", &self.stall_at_turn)
            .field("fail_steps", &self.fail_steps)
            .finish_non_exhaustive()
    }
}

/// The tasks that are still to fail.
pub(super) struct SimMishaps {
    turns: Arc<AtomicU64>,
    due: Mutex<VecDeque<(u64, u64)>>,
}

impl SimMishaps {
    pub(super) fn new(turns: Arc<AtomicU64>, mut steps: Vec<(u64, u64)>) -> Self {
        steps.sort_unstable();
        Self { turns, due: Mutex::new(steps.into()) }
    }
}

impl Mishaps for SimMishaps {
    fn next(&self) -> Option<Mishap> {
        let mut due = self.due.lock().unwrap_or_else(PoisonError::into_inner);
        let (turn, steps) = due.front_mut()?;
        if self.turns.load(Ordering::Relaxed) <= *turn {
            return None;
        }
        if *steps > 0 {
            *steps -= 1;
            return None;
        }
        let (turn, _) = due.pop_front()?;
        Some(if turn % 2 == 0 { Mishap::Panic } else { Mishap::Error })
    }
}
