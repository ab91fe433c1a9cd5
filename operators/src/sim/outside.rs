//! What is outside of the simulated process, and outlives it.

use std::sync::{Arc, Mutex, PoisonError};

use tidemill_engine::{model::checkpoint::CheckpointId, platform::Random};
use tidemill_storage::snapshot::disk::memory::MemoryDisk;

use crate::api::environment::StreamEnvironment;

/// Something to be called from the thread of the simulation.
pub(super) type Act = Arc<dyn Fn() + Send + Sync>;

/// What a job writes to under one seed, over all lives of its process, and the job that does.
pub(super) trait Outside {
    /// Describes the job, for one more life of the process.
    fn describe(&self, environment: &StreamEnvironment);

    /// Takes nothing of the process any more, which is dead, whatever of it still runs. What is on the disk does so by itself.
    fn when_killed(&self) -> Act {
        Arc::new(|| {})
    }

    /// Looks at what readers see, before each turn.
    fn onlooker(&self) -> Option<Act> {
        None
    }

    /// Whether a machine that is lost takes this with it. Then no machine is lost.
    fn is_on_the_machine(&self) -> bool {
        false
    }

    /// A life is over, and nothing of it is there any more but what it wrote. `has_begun` says whether it had recovered.
    fn life_is_over(&self, has_begun: bool);

    /// Another process is there. What the former one had not made sure of may be gone.
    fn recover_from_crash(&self, random: &mut Random);

    /// Whether [`take_back`](Self::take_back) can be done.
    fn can_take_back(&self) -> bool {
        false
    }

    /// Takes back what was committed behind a checkpoint before the job last began to go on. It has gone on from that one, since
    /// those behind it are lost.
    fn take_back(&self, behind: CheckpointId) {
        let _ = behind;
    }

    /// What is wrong with all that was written, if anything.
    fn wrong(&self) -> Option<String>;

    /// How many files a reader has taken.
    fn files(&self) -> u64 {
        0
    }
}

/// Looks at the disk whenever it was changed, with what was seen of it before.
pub(super) fn when_changed<S: Send + 'static>(
    disk: &MemoryDisk,
    seen: &Arc<Mutex<S>>,
    look: impl Fn(&mut S, &MemoryDisk) + Send + Sync + 'static,
) -> Act {
    let (disk, seen, looked_at) = (disk.clone(), Arc::clone(seen), Mutex::new(None));
    Arc::new(move || {
        let mut looked_at = looked_at.lock().unwrap_or_else(PoisonError::into_inner);
        let operations = Some(disk.operations());
        if *looked_at != operations {
            *looked_at = operations;
            look(&mut seen.lock().unwrap_or_else(PoisonError::into_inner), &disk);
        }
    })
}
