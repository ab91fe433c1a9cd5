//! A queue from any threads to one, for the few messages between control plane and workers.

use std::{
    collections::VecDeque,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

/// A queue whose emptiness is seen by one load, so that a worker may look once per turn.
pub struct Mailbox<T> {
    messages: Mutex<VecDeque<T>>,
    waiting: AtomicUsize,
}

impl<T> Default for Mailbox<T> {
    fn default() -> Self {
        Self { messages: Mutex::default(), waiting: AtomicUsize::new(0) }
    }
}

impl<T> Mailbox<T> {
    fn lock(&self) -> MutexGuard<'_, VecDeque<T>> {
        // Nothing that could panic runs under this lock.
        self.messages.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a message behind those that wait.
    pub fn put(&self, message: T) {
        let mut messages = self.lock();
        messages.push_back(message);
        self.waiting.store(messages.len(), Ordering::Release);
    }

    /// The oldest message.
    #[inline]
    pub fn take(&self) -> Option<T> {
        if self.waiting.load(Ordering::Acquire) == 0 { None } else { self.take_waiting() }
    }

    /// Whether a message of which `is_it` says so waits.
    pub fn has(&self, is_it: impl Fn(&T) -> bool) -> bool {
        self.lock().iter().any(is_it)
    }

    /// All messages of which `is_it` says so, the oldest first; the others stay, as it leaves them.
    pub fn take_those(&self, mut is_it: impl FnMut(&mut T) -> bool) -> Vec<T> {
        let mut messages = self.lock();
        let (mut taken, mut left) = (Vec::new(), VecDeque::new());
        for mut message in messages.drain(..) {
            if is_it(&mut message) {
                taken.push(message);
            } else {
                left.push_back(message);
            }
        }
        *messages = left;
        self.waiting.store(messages.len(), Ordering::Release);
        taken
    }

    #[cold]
    fn take_waiting(&self) -> Option<T> {
        let mut messages = self.lock();
        let message = messages.pop_front();
        self.waiting.store(messages.len(), Ordering::Release);
        message
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_come_out_in_the_order_in_which_they_went_in() {
        let mailbox = Mailbox::default();
        assert_eq!(mailbox.take(), None);
        (0..3).for_each(|message| mailbox.put(message));
        assert_eq!((mailbox.take(), mailbox.take()), (Some(0), Some(1)));
        mailbox.put(3);
        assert!(mailbox.has(|message| *message == 3) && !mailbox.has(|message| *message == 1));
        assert_eq!(mailbox.take_those(|message| *message > 2), [3]);
        assert!(mailbox.take_those(|message| std::mem::replace(message, 5) > 2).is_empty());
        mailbox.put(4);
        assert_eq!((mailbox.take(), mailbox.take(), mailbox.take()), (Some(5), Some(4), None));
    }
}
