//! The last events of a simulation, in words.

use std::{
    collections::VecDeque,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use crate::platform::Nanos;

/// Events that are kept.
const EVENTS_MAX: usize = 64;

/// The last events of a simulation. Clones show the same.
#[derive(Clone, Debug, Default)]
pub struct SimTrace(Arc<Mutex<VecDeque<(Nanos, String)>>>);

impl SimTrace {
    fn lock(&self) -> MutexGuard<'_, VecDeque<(Nanos, String)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds an event, in place of the oldest if there are many.
    pub fn add(&self, now: Nanos, event: String) {
        let mut events = self.lock();
        if events.len() == EVENTS_MAX {
            events.pop_front();
        }
        events.push_back((now, event));
    }
}

impl fmt::Display for SimTrace {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (now, event) in &*self.lock() {
            writeln!(formatter, "  {:>12.3} ms  {event}", *now as f64 / 1e6)?;
        }
        Ok(())
    }
}
