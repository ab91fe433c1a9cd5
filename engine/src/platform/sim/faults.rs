//! What goes wrong in a simulation, and when.

use std::{fmt, sync::Arc};

/// What goes wrong, each at a turn; turns are counted from 0 over all attempts of a job.
#[derive(Clone, Default)]
pub struct SimFaults {
    /// The whole process is killed: [`PlatformError::Killed`](crate::platform::PlatformError::Killed).
    pub kill_at_turn: Option<u64>,
    /// A worker is lost, or the coordinator, whose index is the number of workers: the turn, and the index (modulo their number).
    pub lose_worker_at_turn: Option<(u64, usize)>,
    /// The wall clock is set by so many milliseconds.
    pub jump_at_turn: Option<(u64, i64)>,
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
            .finish_non_exhaustive()
    }
}
