//! [`Held`]: a value that can be lent out by move and given back.

use std::ops::{Deref, DerefMut};

/// Holds a value, except while it is lent.
pub(super) struct Held<D>(Option<D>);

impl<D> Held<D> {
    /// Holds `value`.
    pub(super) fn new(value: D) -> Self {
        Self(Some(value))
    }

    /// Moves the value out. Until it is given back nothing may ask for it; if it never is, because user code
    /// panicked with it, its task is not stepped again.
    #[inline(always)]
    pub(super) fn lend(&mut self) -> D {
        match self.0.take() {
            Some(value) => value,
            None => lent(),
        }
    }

    /// The value, unless it is lent or was lost to a panic.
    pub(super) fn get(&self) -> Option<&D> {
        self.0.as_ref()
    }

    /// Takes the value back.
    #[inline(always)]
    pub(super) fn give_back(&mut self, value: D) {
        self.0 = Some(value);
    }
}

impl<D> Deref for Held<D> {
    type Target = D;

    #[inline(always)]
    fn deref(&self) -> &D {
        match &self.0 {
            Some(value) => value,
            None => lent(),
        }
    }
}

impl<D> DerefMut for Held<D> {
    #[inline(always)]
    fn deref_mut(&mut self) -> &mut D {
        match &mut self.0 {
            Some(value) => value,
            None => lent(),
        }
    }
}

#[cold]
fn lent() -> ! {
    unreachable!("a task is used after its user code panicked")
}
