//! A snapshot whose seal is still owed copies of what the tables were: it goes to the writer when it has them.

use crate::{
    log::{seal::Sealed, shared::Shared},
    state::StateError,
};

/// A snapshot that waits.
#[derive(Debug)]
pub struct Held {
    pub(super) snapshot: u64,
    pub(super) seal: u64,
    pub(super) sealed: Sealed,
    /// Whether it was released already. It is made all the same: the next ones build on it.
    pub(super) is_released: bool,
}

impl Shared {
    /// Goes on with the snapshot that waits, if one does, by so many bytes; whether there was one.
    ///
    /// # Errors
    /// When the writer is gone.
    pub(super) fn go_on(&self, bytes: usize) -> Result<bool, StateError> {
        let Some(mut held) = self.held.take() else { return Ok(false) };
        let mut files = self.files.borrow_mut();
        if self.give_owed(bytes, &mut held.sealed) {
            let Held { snapshot, seal, sealed, is_released } = held;
            files.snapshot(snapshot, seal, sealed)?;
            if is_released {
                files.release(snapshot)?;
            }
        } else {
            *self.held.borrow_mut() = Some(held);
            files.ask_for_poll();
        }
        Ok(true)
    }

    /// Releases a snapshot; one that waits when it is made.
    ///
    /// # Errors
    /// When the directory cannot be taken, or the writer is gone.
    pub(super) fn release(&self, snapshot: u64) -> Result<(), StateError> {
        let mut held = self.held.borrow_mut();
        match held.as_mut().filter(|held| held.snapshot == snapshot) {
            Some(held) => held.is_released = true,
            None => self.files.borrow_mut().release(snapshot)?,
        }
        Ok(())
    }

    /// Brings the snapshot that waits on its way, as the next seal is to begin.
    pub(crate) fn finish_held(&self) {
        if let Err(error) = self.go_on(usize::MAX) {
            // Whoever follows the snapshots hears of it.
            self.files.borrow_mut().fail(error);
        }
    }
}

#[cfg(test)]
impl super::Store {
    /// Whether a snapshot waits.
    pub(crate) fn is_snapshot_held(&self) -> bool {
        self.shared.held.borrow().is_some()
    }
}
