//! What travels over a channel between two subtasks.
//!
//! The legal sequence per channel, which debug builds assert on the receiving side ([`Grammar`]):
//!
//! ```text
//! channel := element* End
//! element := Batch | Watermark(w)   (w never falls)
//!          | Idle | Active          (Idle and Active may repeat; Active, Batch or Watermark make an idle channel active)
//!          | Barrier(b)             (the checkpoint rises; behind a final barrier comes End, behind a suspending one nothing)
//! ```
//!
//! After `End` nothing follows.

use super::{
    checkpoint::{Barrier, BarrierKind, CheckpointId},
    time::{Timestamp, WATERMARK_MIN},
};

/// One element on a channel that carries batches of type `B`.
#[derive(Debug)]
pub enum Element<B> {
    /// Records, with their columns.
    Batch(B),
    /// No record with a timestamp at or below this one follows, except late ones.
    Watermark(Timestamp),
    /// The sender has nothing for now and must not hold the receiver's watermark back.
    Idle,
    /// The sender is back.
    Active,
    /// What came before belongs to this checkpoint.
    Barrier(Barrier),
    /// Nothing follows.
    End,
}

/// Follows a channel and asserts that its sequence is legal (in debug builds).
#[derive(Debug)]
pub struct Grammar {
    ended: bool,
    watermark: Timestamp,
    checkpoint: CheckpointId,
    /// What follows the last barrier.
    follows: BarrierKind,
}

impl Default for Grammar {
    fn default() -> Self {
        Self { ended: false, watermark: WATERMARK_MIN, checkpoint: 0, follows: BarrierKind::Running }
    }
}

impl Grammar {
    /// Takes note of the next element.
    #[inline]
    pub fn follow<B>(&mut self, element: &Element<B>) {
        if cfg!(debug_assertions) {
            assert!(!self.ended, "an element follows End");
            match self.follows {
                BarrierKind::Running | BarrierKind::Overtaking => {}
                BarrierKind::Suspending => panic!("an element follows a suspending barrier"),
                BarrierKind::Final => {
                    assert!(matches!(element, Element::End), "not the end follows a final barrier");
                }
            }
            match element {
                Element::Watermark(watermark) => {
                    assert!(
                        *watermark >= self.watermark,
                        "the watermark falls from {} to {watermark}",
                        self.watermark
                    );
                    self.watermark = *watermark;
                }
                Element::Barrier(barrier) => {
                    let (last, next) = (self.checkpoint, barrier.checkpoint);
                    assert!(
                        barrier.kind != BarrierKind::Overtaking,
                        "a barrier that overtakes stands in line"
                    );
                    assert!(next > last, "the barrier of checkpoint {next} follows that of {last}");
                    (self.checkpoint, self.follows) = (next, barrier.kind);
                }
                Element::End => self.ended = true,
                Element::Batch(_) | Element::Idle | Element::Active => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[should_panic(expected = "the watermark falls")]
    fn a_falling_watermark_is_caught() {
        let mut grammar = Grammar::default();
        grammar.follow::<()>(&Element::Watermark(5));
        grammar.follow::<()>(&Element::Watermark(4));
    }

    #[test]
    #[should_panic(expected = "the barrier of checkpoint 3 follows that of 3")]
    fn a_barrier_comes_once() {
        let barrier = Barrier { checkpoint: 3, kind: BarrierKind::Running };
        let mut grammar = Grammar::default();
        grammar.follow::<()>(&Element::Barrier(barrier));
        grammar.follow::<()>(&Element::Barrier(barrier));
    }

    #[test]
    #[should_panic(expected = "follows a suspending barrier")]
    fn nothing_follows_a_suspending_barrier() {
        let mut grammar = Grammar::default();
        let barrier = Barrier { checkpoint: 1, kind: BarrierKind::Suspending };
        grammar.follow::<()>(&Element::Barrier(barrier));
        grammar.follow::<()>(&Element::Idle);
    }

    #[test]
    #[should_panic(expected = "follows End")]
    fn nothing_follows_the_end() {
        let mut grammar = Grammar::default();
        grammar.follow::<()>(&Element::End);
        grammar.follow::<()>(&Element::Idle);
    }
}
