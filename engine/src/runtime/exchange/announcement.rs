//! How a barrier overtakes: it is announced beside the ring, with its place among the elements that are in the ring.
//!
//! ```text
//!  sender                    announcement                receiver
//!    │ pushes a, b, c              │                        │
//!    │ announces 7 behind c ──────▶│ 7, behind 3 elements   │
//!    │ pushes d                    │◀───────────── looks ───│ has taken a: b and c belong to 7, d does not
//! ```
//!
//! A receiver that looks *after* it has seen an element in the ring and finds nothing new knows that the element came
//! before any announcement that it has not heard: what the sender did in this order is seen in this order.
//!
//! The next checkpoint is announced only when the one before is over, complete or failed: one place is enough.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use crate::model::checkpoint::CheckpointId;

/// A barrier that overtakes, as the receiver hears of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Announced {
    /// Which checkpoint.
    pub checkpoint: CheckpointId,
    /// How many elements were pushed into the ring before it, since the channel was made.
    pub position: u64,
}

#[derive(Debug, Default)]
struct Place {
    checkpoint: AtomicU64,
    position: AtomicU64,
}

/// The sender's side.
#[derive(Debug)]
pub struct Announcer(Arc<Place>);

/// The receiver's side.
#[derive(Debug)]
pub struct Listener {
    place: Arc<Place>,
    heard: CheckpointId,
}

/// The two sides of one channel.
pub fn announcement() -> (Announcer, Listener) {
    let place = Arc::new(Place::default());
    (Announcer(Arc::clone(&place)), Listener { place, heard: 0 })
}

impl Announcer {
    /// Announces the barrier of a checkpoint behind the first `position` elements.
    pub fn announce(&self, checkpoint: CheckpointId, position: u64) {
        self.0.position.store(position, Ordering::Release);
        self.0.checkpoint.store(checkpoint, Ordering::Release);
    }
}

impl Listener {
    /// What was announced and not [heard](Self::hear) yet.
    #[inline(always)]
    pub fn news(&self) -> Option<Announced> {
        let checkpoint = self.place.checkpoint.load(Ordering::Acquire);
        if checkpoint == self.heard { None } else { Some(self.read(checkpoint)) }
    }

    #[cold]
    fn read(&self, mut checkpoint: CheckpointId) -> Announced {
        loop {
            let position = self.place.position.load(Ordering::Acquire);
            let again = self.place.checkpoint.load(Ordering::Acquire);
            if again == checkpoint {
                return Announced { checkpoint, position };
            }
            checkpoint = again;
        }
    }

    /// Notes that an announcement was heard.
    pub fn hear(&mut self, announced: Announced) {
        self.heard = announced.checkpoint;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_announcement_is_news_once_and_the_last_one_counts() {
        let (announcer, mut listener) = announcement();
        assert_eq!(listener.news(), None);
        announcer.announce(3, 10);
        let announced = Announced { checkpoint: 3, position: 10 };
        assert_eq!(listener.news(), Some(announced));
        listener.hear(announced);
        assert_eq!(listener.news(), None);
        announcer.announce(4, 10);
        announcer.announce(6, 12);
        assert_eq!(listener.news(), Some(Announced { checkpoint: 6, position: 12 }));
    }
}
