//! Which windows have fired and which are to, and how a checkpoint keeps that.

use std::collections::{BTreeMap, BTreeSet};

use tidemill_engine::model::time::{Timestamp, WATERMARK_MIN};
use tidemill_storage::Record;

use super::assigner::{EventTimeWindows, TimeWindow};

/// Which windows have fired, and which are to.
pub(super) struct Timeline {
    pub(super) windows: EventTimeWindows,
    pub(super) allowed_lateness: i64,
    pub(super) watermark: Timestamp,
    /// Every window whose last timestamp is at or below this has fired.
    pub(super) fired: Timestamp,
    /// Ends of windows that have fired and were updated since.
    again: BTreeSet<Timestamp>,
}

/// A timeline as a checkpoint keeps it. Stored.
#[derive(Record, Clone, Debug, PartialEq, Eq)]
#[record(crate = tidemill_storage)]
pub(super) struct KeptTimeline {
    pub(super) watermark: i64,
    pub(super) fired: i64,
    pub(super) again: Vec<i64>,
}

impl Timeline {
    /// Goes on from what was kept; from the beginning of time if nothing was. Of several it is the least: what one of
    /// them had not fired has to be. What is to be fired again in one of them is fired again.
    pub(super) fn new(windows: EventTimeWindows, allowed_lateness: i64, kept: Vec<KeptTimeline>) -> Self {
        let least = |of: fn(&KeptTimeline) -> i64| kept.iter().map(of).min().unwrap_or(WATERMARK_MIN);
        let (watermark, fired) = (least(|kept| kept.watermark), least(|kept| kept.fired));
        // What none but others had fired is fired for the first time here.
        let again =
            kept.iter().flat_map(|kept| &kept.again).copied().filter(|end| end.saturating_sub(1) <= fired);
        Self { windows, allowed_lateness, watermark, fired, again: again.collect() }
    }

    /// What a checkpoint keeps of it.
    pub(super) fn kept(&self) -> KeptTimeline {
        let again = self.again.iter().copied().collect();
        KeptTimeline { watermark: self.watermark, fired: self.fired, again }
    }

    /// Whether the slice beginning at `slice` is gone.
    pub(super) fn is_gone(&self, slice: Timestamp) -> bool {
        let last = self.windows.last_end(slice).saturating_sub(1);
        last.saturating_add(self.allowed_lateness) <= self.watermark
    }

    /// Notes that a slice was updated: its windows that have fired fire again.
    pub(super) fn touched(&mut self, slice: Timestamp) {
        let mut after = Timestamp::MIN;
        while let Some(end) = self.windows.next_end(slice, after)
            && end - 1 <= self.fired
        {
            if (end - 1).saturating_add(self.allowed_lateness) > self.watermark {
                self.again.insert(end);
            }
            after = end;
        }
    }

    /// The next window to fire among those that hold one of `slices`.
    pub(super) fn next<V>(&mut self, slices: &BTreeMap<Timestamp, V>) -> Option<TimeWindow> {
        if let Some(end) = self.again.pop_first() {
            return Some(self.windows.window_ending(end));
        }
        let from = self.fired.saturating_sub(self.windows.size());
        let mut ends = slices
            .range(from..)
            .filter_map(|(slice, _)| self.windows.next_end(*slice, self.fired.saturating_add(1)));
        let end = ends.next()?;
        if end - 1 > self.watermark {
            return None;
        }
        self.fired = end - 1;
        Some(self.windows.window_ending(end))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::window::assigner::TumblingEventTime;

    fn restored(kept: Vec<KeptTimeline>) -> KeptTimeline {
        Timeline::new(TumblingEventTime::of(Duration::from_millis(10)).into(), 100, kept).kept()
    }

    fn kept(watermark: i64, again: &[i64]) -> KeptTimeline {
        KeptTimeline { watermark, fired: watermark, again: again.to_vec() }
    }

    #[test]
    fn a_timeline_goes_on_where_it_was() {
        assert_eq!(restored(vec![kept(39, &[10, 30])]), kept(39, &[10, 30]));
        assert_eq!(restored(Vec::new()), kept(WATERMARK_MIN, &[]));
    }

    #[test]
    fn of_several_timelines_the_least_counts_and_no_window_is_due_twice() {
        let several = vec![kept(59, &[20, 60]), kept(39, &[10, 40])];
        assert_eq!(restored(several), kept(39, &[10, 20, 40]));
    }
}
