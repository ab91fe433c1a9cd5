//! For tests: somebody who counts how often they are woken.

use std::sync::atomic::{AtomicU64, Ordering};

use super::Wake;

/// Wake-ups since the last look.
#[derive(Default)]
pub(crate) struct Wakes(AtomicU64);

impl Wakes {
    /// How many there were, and begins anew.
    pub(crate) fn take(&self) -> u64 {
        self.0.swap(0, Ordering::Relaxed)
    }
}

impl Wake for Wakes {
    fn wake(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}
