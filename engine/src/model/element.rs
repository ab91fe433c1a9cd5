//! What travels over a channel between two subtasks.
//!
//! The legal sequence per channel, which debug builds assert on the receiving side ([`Grammar`]):
//!
//! ```text
//! channel := element* End
//! element := Batch | Watermark(w)   (w never falls)
//!          | Idle | Active          (Idle and Active may repeat; Active, Batch or Watermark make an idle channel active)
//! ```
//!
//! After `End` nothing follows. Barriers join the alternatives when checkpoints do; they travel in band, too.

use super::time::{Timestamp, WATERMARK_MIN};

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
    /// Nothing follows.
    End,
}

/// Follows a channel and asserts that its sequence is legal (in debug builds).
#[derive(Debug)]
pub struct Grammar {
    ended: bool,
    watermark: Timestamp,
}

impl Default for Grammar {
    fn default() -> Self {
        Self { ended: false, watermark: WATERMARK_MIN }
    }
}

impl Grammar {
    /// Takes note of the next element.
    #[inline]
    pub fn follow<B>(&mut self, element: &Element<B>) {
        if cfg!(debug_assertions) {
            assert!(!self.ended, "an element follows End");
            match element {
                Element::Watermark(watermark) => {
                    assert!(
                        *watermark >= self.watermark,
                        "the watermark falls from {} to {watermark}",
                        self.watermark
                    );
                    self.watermark = *watermark;
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
    #[should_panic(expected = "follows End")]
    fn nothing_follows_the_end() {
        let mut grammar = Grammar::default();
        grammar.follow::<()>(&Element::End);
        grammar.follow::<()>(&Element::Idle);
    }
}
