//! Event time per split of a source: what each has reached, which are silent, and what that comes to.
//!
//! A split that has not ended holds the watermark back, unless it has been silent for the idleness timeout. Time during
//! which the task waits for room, or the split for its turn, is not silence.

use super::merge::{Outcome, WatermarkMerge};
use crate::{
    model::{
        item::Owned,
        operator::{Push, Signal, StepContext},
        time::{Timestamp, WATERMARK_MAX, WATERMARK_MIN},
        watermark::WatermarkBounds,
    },
    platform::Nanos,
};

/// Event time per split.
pub(in crate::runtime) struct SplitProgress {
    bounds: WatermarkBounds,
    splits: Vec<Split>,
    merge: WatermarkMerge,
    /// The merged watermark as it was found last, and since when it has been that.
    known: (Timestamp, Nanos),
    emitted_at: Nanos,
    unsent: Outcome,
    /// Since when the task has been waiting for room: no split is silent meanwhile.
    held_up_since: Option<Nanos>,
}

#[derive(Clone)]
pub(in crate::runtime) struct Split {
    newest: Timestamp,
    /// The watermark that `newest` stands for, until a late record has made it be sent.
    unsent_watermark: Timestamp,
    ended: bool,
    idle: bool,
    heard: bool,
    heard_at: Nanos,
    /// Waits for its turn: silence does not make it idle.
    waits: bool,
}

impl SplitProgress {
    pub(in crate::runtime) fn new(splits: usize, in_turn: bool, bounds: WatermarkBounds, now: Nanos) -> Self {
        let split = Split {
            newest: WATERMARK_MIN,
            unsent_watermark: WATERMARK_MIN,
            ended: false,
            idle: false,
            heard: false,
            heard_at: now,
            waits: in_turn,
        };
        // Without a split there is nothing that the watermark could wait for.
        let rest = (splits == 0).then_some(Signal::Idle);
        Self {
            bounds,
            splits: vec![split; splits],
            merge: WatermarkMerge::new(splits),
            known: (WATERMARK_MIN, now),
            emitted_at: now,
            unsent: Outcome { rest, ..Outcome::default() },
            held_up_since: None,
        }
    }

    /// Goes on with a split in which `newest` was the greatest timestamp.
    pub(in crate::runtime) fn resume(&mut self, split: usize, newest: Timestamp) {
        let seen = &mut self.splits[split];
        seen.newest = newest;
        let watermark = self.bounds.watermark(newest);
        // Not sent yet: it goes out before a record that it has passed.
        seen.unsent_watermark = watermark;
        let risen = self.merge.watermark(split, watermark);
        self.keep(risen);
    }

    /// The splits that have not ended, with the greatest timestamp seen in each.
    pub(in crate::runtime) fn unfinished(&self) -> impl Iterator<Item = (usize, Timestamp)> {
        let open = self.splits.iter().enumerate().filter(|(_, split)| !split.ended);
        open.map(|(index, split)| (index, split.newest))
    }

    /// Notes the timestamp of a record of `split`. True when the watermark has passed it and has to go out first.
    #[inline(always)]
    pub(in crate::runtime) fn note(&mut self, split: usize, timestamp: Timestamp) -> bool {
        let seen = &mut self.splits[split];
        seen.heard = true;
        if timestamp <= seen.unsent_watermark {
            seen.unsent_watermark = WATERMARK_MIN;
            return true;
        }
        if timestamp > seen.newest {
            seen.newest = timestamp;
            seen.unsent_watermark = self.bounds.watermark(timestamp);
        }
        false
    }

    /// The merged watermark.
    pub(in crate::runtime) fn merged(&self) -> Timestamp {
        self.merge.merged()
    }

    /// Since when the merged watermark has been what it is.
    pub(in crate::runtime) fn unchanged_since(&self) -> Nanos {
        self.known.1
    }

    /// The split that holds the merged watermark back.
    pub(in crate::runtime) fn held_back_by(&self) -> Option<usize> {
        self.merge.held_back_by()
    }

    /// Whether all splits that have not ended are idle.
    pub(in crate::runtime) fn is_idle(&self) -> bool {
        self.merge.is_idle()
    }

    /// Whether `interval` has passed since something was sent.
    pub(in crate::runtime) fn is_due(&self, now: Nanos, interval: Nanos) -> bool {
        now.saturating_sub(self.emitted_at) >= interval
    }

    /// Keeps the newest of several outcomes until it is sent.
    fn keep(&mut self, outcome: Outcome) {
        self.unsent.activity = outcome.activity.or(self.unsent.activity);
        self.unsent.watermark = outcome.watermark.or(self.unsent.watermark);
        self.unsent.rest = if outcome.activity.is_some() { None } else { outcome.rest.or(self.unsent.rest) };
    }

    /// Folds what the splits have seen in this step into the merged watermark.
    pub(in crate::runtime) fn settle(&mut self, now: Nanos) {
        for index in 0..self.splits.len() {
            let split = &mut self.splits[index];
            if split.ended {
                continue;
            }
            if split.heard {
                (split.heard, split.waits) = (false, false);
                split.idle = false;
                split.heard_at = now;
                let watermark = self.bounds.watermark(split.newest);
                let active = self.merge.active(index);
                self.keep(active);
                let risen = self.merge.watermark(index, watermark);
                self.keep(risen);
            } else if let Some(timeout) = self.bounds.idle_after
                && !split.idle
                && !split.waits
                && now.saturating_sub(split.heard_at) >= timeout
            {
                split.idle = true;
                let idle = self.merge.idle(index);
                self.keep(idle);
            }
        }
        if self.merge.merged() != self.known.0 {
            self.known = (self.merge.merged(), now);
        }
    }

    /// The outputs are full from now on, if they were not before.
    pub(in crate::runtime) fn hold_up(&mut self, now: Nanos) {
        self.held_up_since.get_or_insert(now);
    }

    /// There is room again: the time without counts for no split's idleness.
    pub(in crate::runtime) fn go_on(&mut self, now: Nanos) {
        if let Some(since) = self.held_up_since.take() {
            let held_up = now.saturating_sub(since);
            for split in &mut self.splits {
                split.heard_at = split.heard_at.saturating_add(held_up);
            }
        }
    }

    /// When the next split becomes idle if nothing is heard from it.
    pub(in crate::runtime) fn next_idle_at(&self) -> Option<Nanos> {
        let timeout = self.bounds.idle_after?;
        let waiting = self.splits.iter().filter(|split| !split.ended && !split.idle && !split.waits);
        waiting.map(|split| split.heard_at.saturating_add(timeout)).min()
    }

    /// Sends what has become of event time since the last time. The end is not sent here.
    pub(in crate::runtime) fn send<T: 'static>(
        &mut self,
        down: &mut impl Push<Owned<T>>,
        context: &mut StepContext,
    ) {
        let unsent = std::mem::take(&mut self.unsent);
        let rest = unsent.rest.filter(|signal| *signal == Signal::Idle);
        let watermark = unsent.watermark.map(Signal::Watermark);
        for signal in unsent.activity.into_iter().chain(watermark).chain(rest) {
            self.emitted_at = context.now;
            down.signal(signal, context);
        }
    }

    /// The greatest watermark of any split, unless none has one or the last word was said.
    pub(in crate::runtime) fn reached(&self) -> Option<Timestamp> {
        let newest = self.splits.iter().map(|split| split.newest).max()?;
        let sent = self.merge.merged() == WATERMARK_MAX && self.unsent.watermark.is_none();
        (newest > WATERMARK_MIN && !sent).then(|| self.bounds.watermark(newest))
    }

    pub(in crate::runtime) fn end(&mut self, index: usize) {
        if !std::mem::replace(&mut self.splits[index].ended, true) {
            let outcome = self.merge.end(index);
            self.keep(outcome);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_seen_before_a_restart_makes_records_late_behind_it_and_takes_no_watermark_back() {
        let bounds = WatermarkBounds { out_of_orderness_ms: 10, idle_after: None };
        let mut progress = SplitProgress::new(2, false, bounds, 0);
        progress.resume(0, 1_000);
        progress.resume(1, 500);
        assert_eq!(progress.merged(), 489, "the watermark is there before any record");
        // A record that the watermark had passed before: it goes out first, so that the record is late, as it would have been.
        assert!(progress.note(1, 300));
        progress.settle(1);
        assert_eq!(progress.merged(), 489);
        // The next checkpoint is no further back either.
        assert_eq!(progress.unfinished().collect::<Vec<_>>(), [(0, 1_000), (1, 500)]);
        assert!(!progress.note(1, 600));
        progress.settle(2);
        assert_eq!(progress.merged(), 589);
    }
}
