//! Which windows have fired and which are to, and how a checkpoint keeps that.
//!
//! All key groups of a subtask move on together, on one *track*. Behind a restart with another number of subtasks their former
//! subtasks may have come to different watermarks: when a barrier overtakes records, or inputs are idle. Then each former subtask's
//! groups have a track of their own until the slowest has caught up, so that no window fires twice for a key and no record is late
//! that was not.
//!
//! A job that has come to the end of time has fired all that it had. If it goes on all the same, since it was drained and there is more to
//! read, it goes on as from the beginning of time: a window that has fired fires again, with what is new.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Range,
};

use tidemill_engine::model::time::{Timestamp, WATERMARK_MAX, WATERMARK_MIN};
use tidemill_storage::{Record, key::key_group};

use super::assigner::{EventTimeWindows, TimeWindow};

/// Which windows have fired, and which are to.
pub(super) struct Timeline {
    pub(super) windows: EventTimeWindows,
    pub(super) allowed_lateness: i64,
    max_parallelism: u32,
    /// The least of all tracks.
    pub(super) watermark: Timestamp,
    /// Every window whose last timestamp is at or below this has fired on all tracks.
    pub(super) fired: Timestamp,
    tracks: Vec<Track>,
}

/// How far some key groups have come.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Track {
    groups: Range<u32>,
    watermark: Timestamp,
    /// Every window whose last timestamp is at or below this has fired.
    fired: Timestamp,
    /// Ends of windows that have fired and were updated since.
    again: BTreeSet<Timestamp>,
}

/// A timeline as a checkpoint keeps it. Stored.
#[derive(Record, Clone, Debug, PartialEq, Eq)]
#[record(crate = tidemill_storage)]
pub(super) struct KeptTimeline {
    tracks: Vec<KeptTrack>,
}

/// A track as a checkpoint keeps it. Stored.
#[derive(Record, Clone, Debug, PartialEq, Eq)]
#[record(crate = tidemill_storage)]
pub(super) struct KeptTrack {
    first_group: u32,
    /// The first group behind it.
    end_group: u32,
    watermark: i64,
    fired: i64,
    again: Vec<i64>,
}

/// A window to fire, and for which keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Due {
    pub(super) window: TimeWindow,
    pub(super) skipped: SkippedGroups,
}

/// Key groups for which a window is not fired: it was already.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct SkippedGroups {
    ranges: Vec<Range<u32>>,
    max_parallelism: u32,
}

impl SkippedGroups {
    /// Whether the key with this hash is in one of them.
    #[inline(always)]
    pub(super) fn contain(&self, hash: u64) -> bool {
        !self.ranges.is_empty() && {
            let group = key_group(hash, self.max_parallelism);
            self.ranges.iter().any(|range| range.contains(&group))
        }
    }
}

impl Timeline {
    /// For these key groups. Goes on from what was kept; from the beginning of time where nothing was.
    pub(super) fn new(
        windows: EventTimeWindows,
        allowed_lateness: i64,
        groups: Range<u32>,
        max_parallelism: u32,
        kept: Vec<KeptTimeline>,
    ) -> Self {
        let kept = kept.into_iter().flat_map(|kept| kept.tracks).map(|kept| Track {
            groups: kept.first_group.max(groups.start)..kept.end_group.min(groups.end),
            watermark: kept.watermark,
            fired: kept.fired,
            again: kept.again.into_iter().collect(),
        });
        let mut tracks: Vec<Track> = kept.filter(|track| !track.groups.is_empty()).collect();
        if tracks.iter().all(|track| track.watermark == WATERMARK_MAX) {
            tracks.clear();
            let (watermark, fired) = (WATERMARK_MIN, WATERMARK_MIN);
            tracks.push(Track { groups, watermark, fired, again: BTreeSet::new() });
        }
        let (watermark, fired) = (WATERMARK_MIN, WATERMARK_MIN);
        let mut timeline = Self { windows, allowed_lateness, max_parallelism, watermark, fired, tracks };
        timeline.settle();
        timeline
    }

    /// What a checkpoint keeps of it.
    pub(super) fn kept(&self) -> KeptTimeline {
        let tracks = self.tracks.iter().map(|track| KeptTrack {
            first_group: track.groups.start,
            end_group: track.groups.end,
            watermark: track.watermark,
            fired: track.fired,
            again: track.again.iter().copied().collect(),
        });
        KeptTimeline { tracks: tracks.collect() }
    }

    /// Takes the least of all tracks, and makes one of them when they have met.
    fn settle(&mut self) {
        let least = |of: fn(&Track) -> Timestamp| self.tracks.iter().map(of).min().unwrap_or(WATERMARK_MIN);
        (self.watermark, self.fired) = (least(|track| track.watermark), least(|track| track.fired));
        if self.tracks.len() > 1 {
            let first = &self.tracks[0];
            let alike = |track: &Track| {
                (track.watermark, track.fired, &track.again) == (first.watermark, first.fired, &first.again)
            };
            if self.tracks.iter().all(alike) {
                let start = self.tracks.iter().map(|track| track.groups.start).min().unwrap_or(0);
                let end = self.tracks.iter().map(|track| track.groups.end).max().unwrap_or(0);
                self.tracks.truncate(1);
                self.tracks[0].groups = start..end;
            }
        }
    }

    /// The watermark has come so far.
    pub(super) fn advance(&mut self, watermark: Timestamp) {
        for track in &mut self.tracks {
            track.watermark = track.watermark.max(watermark);
        }
        self.settle();
    }

    /// All windows up to the watermark were fired.
    pub(super) fn fired_all(&mut self) {
        for track in &mut self.tracks {
            track.fired = track.fired.max(self.watermark);
        }
        self.settle();
    }

    /// Whether all keys have come equally far.
    #[inline(always)]
    pub(super) fn is_even(&self) -> bool {
        self.tracks.len() == 1
    }

    /// The index of the track of the key with this hash.
    fn track_of(&self, hash: u64) -> usize {
        let group = key_group(hash, self.max_parallelism);
        self.tracks.iter().position(|track| track.groups.contains(&group)).unwrap_or(0)
    }

    /// Whether the slice beginning at `slice` is gone for every key.
    pub(super) fn is_gone(&self, slice: Timestamp) -> bool {
        self.last_needed(slice) <= self.watermark
    }

    /// Whether the slice is gone for the key with this hash.
    pub(super) fn is_gone_for(&self, slice: Timestamp, hash: u64) -> bool {
        self.last_needed(slice) <= self.tracks[self.track_of(hash)].watermark
    }

    /// The watermark from which on no window needs a slice.
    fn last_needed(&self, slice: Timestamp) -> Timestamp {
        let last = self.windows.last_end(slice).saturating_sub(1);
        last.saturating_add(self.allowed_lateness)
    }

    /// Notes that a slice was updated for keys with these hashes: its windows that have fired for them fire again.
    pub(super) fn touched(&mut self, slice: Timestamp, hashes: &[u64]) {
        if self.is_even() {
            return self.touch(0, slice);
        }
        for hash in hashes {
            self.touch(self.track_of(*hash), slice);
        }
    }

    fn touch(&mut self, track: usize, slice: Timestamp) {
        let Self { windows, allowed_lateness, tracks, .. } = self;
        let track = &mut tracks[track];
        let mut after = Timestamp::MIN;
        while let Some(end) = windows.next_end(slice, after)
            && end - 1 <= track.fired
        {
            if (end - 1).saturating_add(*allowed_lateness) > track.watermark {
                track.again.insert(end);
            }
            after = end;
        }
    }

    /// The next window to fire among those that hold one of `slices`.
    pub(super) fn next<V>(&mut self, slices: &BTreeMap<Timestamp, V>) -> Option<Due> {
        let again = self.tracks.iter().filter_map(|track| track.again.first().copied()).min();
        if let Some(end) = again.filter(|end| end - 1 <= self.fired) {
            return Some(self.fire(end));
        }
        let from = self.fired.saturating_sub(self.windows.size());
        let mut ends = slices
            .range(from..)
            .filter_map(|(slice, _)| self.windows.next_end(*slice, self.fired.saturating_add(1)));
        let end = ends.next()?;
        if end - 1 > self.watermark {
            return None;
        }
        Some(self.fire(end))
    }

    /// Notes that the window that ends at `end` fires, for all keys for which it has to.
    fn fire(&mut self, end: Timestamp) -> Due {
        let mut ranges = Vec::new();
        for track in &mut self.tracks {
            let is_first = end - 1 > track.fired;
            let is_again = track.again.remove(&end);
            track.fired = track.fired.max(end - 1);
            if !is_first && !is_again {
                ranges.push(track.groups.clone());
            }
        }
        self.fired = self.fired.max(end - 1);
        let skipped = SkippedGroups { ranges, max_parallelism: self.max_parallelism };
        Due { window: self.windows.window_ending(end), skipped }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::window::assigner::TumblingEventTime;

    /// Windows of 10 ms that are updated for 100 ms.
    fn restored(groups: Range<u32>, kept: Vec<KeptTimeline>) -> Timeline {
        Timeline::new(TumblingEventTime::of(Duration::from_millis(10)).into(), 100, groups, 4, kept)
    }

    fn kept(groups: Range<u32>, watermark: i64, again: &[i64]) -> KeptTimeline {
        let again = again.to_vec();
        let (first_group, end_group, fired) = (groups.start, groups.end, watermark);
        KeptTimeline { tracks: vec![KeptTrack { first_group, end_group, watermark, fired, again }] }
    }

    /// A hash in this of four key groups.
    fn hash_in(group: u64) -> u64 {
        group << 62
    }

    /// The windows that are due, by their ends, and the groups for which they are.
    fn due(timeline: &mut Timeline, slices: &[i64]) -> Vec<(i64, Vec<u64>)> {
        let slices: BTreeMap<i64, ()> = slices.iter().map(|slice| (*slice, ())).collect();
        let mut all = Vec::new();
        while let Some(Due { window, skipped }) = timeline.next(&slices) {
            all.push((window.end, (0..4).filter(|group| !skipped.contain(hash_in(*group))).collect()));
        }
        timeline.fired_all();
        all
    }

    #[test]
    fn a_timeline_goes_on_where_it_was() {
        let one = kept(0..4, 39, &[10, 30]);
        assert_eq!(restored(0..4, vec![one.clone()]).kept(), one);
        assert_eq!(restored(0..4, Vec::new()).kept(), kept(0..4, WATERMARK_MIN, &[]));
    }

    #[test]
    fn a_timeline_behind_the_end_of_time_begins_anew() {
        let ended = || vec![kept(0..2, WATERMARK_MAX, &[]), kept(2..4, WATERMARK_MAX, &[])];
        assert_eq!(restored(1..3, ended()).kept(), kept(1..3, WATERMARK_MIN, &[]));
        // Where only some have heard of the end, the others may have records under way.
        let [one, other] = [kept(0..2, WATERMARK_MAX, &[]), kept(2..4, 39, &[30])];
        let mut timeline = restored(0..4, vec![one, other]);
        assert_eq!((timeline.watermark, timeline.is_even()), (39, false));
        timeline.advance(WATERMARK_MAX);
        timeline.fired_all();
        assert_eq!(timeline.watermark, WATERMARK_MAX);
    }

    #[test]
    fn equal_timelines_become_one_and_a_part_keeps_its_place() {
        let halves = vec![kept(0..2, 39, &[10]), kept(2..4, 39, &[10])];
        assert_eq!(restored(0..4, halves).kept(), kept(0..4, 39, &[10]));
        assert_eq!(restored(1..2, vec![kept(0..4, 39, &[10])]).kept(), kept(1..2, 39, &[10]));
    }

    #[test]
    fn keys_that_were_ahead_fire_no_window_twice() {
        let mut timeline = restored(0..4, vec![kept(0..2, 39, &[40]), kept(2..4, 19, &[20])]);
        assert_eq!((timeline.watermark, timeline.is_even()), (19, false));
        assert!(timeline.is_gone_for(-80, hash_in(0)) && !timeline.is_gone_for(-80, hash_in(2)));
        timeline.touched(20, &[hash_in(1), hash_in(2)]);
        timeline.advance(29);
        // The window of 20 to 30 was updated where it had fired, and fires for the first time elsewhere.
        let slices = [10, 20, 30, 40];
        assert_eq!(due(&mut timeline, &slices), [(20, vec![2, 3]), (30, vec![0, 1, 2, 3])]);
        timeline.advance(49);
        assert_eq!(due(&mut timeline, &slices), [(40, vec![0, 1, 2, 3]), (50, vec![0, 1, 2, 3])]);
        assert!(timeline.is_even());
    }

    #[test]
    fn a_window_that_has_fired_for_some_keys_is_skipped_for_them() {
        let mut timeline = restored(0..4, vec![kept(0..1, 39, &[]), kept(1..4, 19, &[])]);
        timeline.advance(39);
        assert_eq!(due(&mut timeline, &[20, 30]), [(30, vec![1, 2, 3]), (40, vec![1, 2, 3])]);
        assert!(timeline.is_even());
    }
}
