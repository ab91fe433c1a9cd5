//! Which windows a record belongs to: tumbling and sliding windows of event time, cut into slices.
//!
//! All windows have one size and begin every `slide` milliseconds. A *slice* is the longest stretch of time that no
//! window's border cuts: `gcd(size, slide)` long. Records are summed up per slice and windows put together
//! from slices, so a record is added once however many windows overlap.
//!
//! At both ends of time windows are cut off: of those that reach beyond `Timestamp::MAX` there is only the first, and it
//! ends there.

use std::time::Duration;

use tidemill_engine::model::time::Timestamp;

/// A window: from `start` to before `end`, in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TimeWindow {
    /// First timestamp in it.
    pub start: Timestamp,
    /// First timestamp behind it.
    pub end: Timestamp,
}

impl TimeWindow {
    /// The last timestamp in it: that of its results, and the watermark at which it fires.
    pub fn max_timestamp(&self) -> Timestamp {
        self.end - 1
    }
}

/// Windows that follow each other without gap or overlap.
///
/// ```
/// use std::time::Duration;
/// use tidemill_operators::window::assigner::TumblingEventTime;
///
/// let hourly = TumblingEventTime::of(Duration::from_secs(3600));
/// # let _ = hourly;
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TumblingEventTime(EventTimeWindows);

impl TumblingEventTime {
    /// Windows of this size, aligned to the Unix epoch.
    pub fn of(size: Duration) -> Self {
        Self(EventTimeWindows::new(size, size))
    }

    /// Shifts all windows: hours that begin at half past have an offset of 30 minutes.
    pub fn with_offset(self, offset: Duration) -> Self {
        Self(self.0.with_offset(offset))
    }
}

/// Windows that begin every `slide` and overlap when they are longer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SlidingEventTime(EventTimeWindows);

impl SlidingEventTime {
    /// Windows of this size that begin every `slide`, aligned to the Unix epoch.
    pub fn of(size: Duration, slide: Duration) -> Self {
        Self(EventTimeWindows::new(size, slide))
    }

    /// Shifts all windows.
    pub fn with_offset(self, offset: Duration) -> Self {
        Self(self.0.with_offset(offset))
    }
}

impl From<TumblingEventTime> for EventTimeWindows {
    fn from(windows: TumblingEventTime) -> Self {
        windows.0
    }
}

impl From<SlidingEventTime> for EventTimeWindows {
    fn from(windows: SlidingEventTime) -> Self {
        windows.0
    }
}

/// All windows of a size, a slide and an offset, in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EventTimeWindows {
    size: i64,
    slide: i64,
    offset: i64,
    slice: i64,
}

impl EventTimeWindows {
    fn new(size: Duration, slide: Duration) -> Self {
        let millis = |duration: Duration| i64::try_from(duration.as_millis()).unwrap_or(i64::MAX);
        let (size, slide) = (millis(size), millis(slide));
        Self { size, slide, offset: 0, slice: gcd(size, slide) }
    }

    fn with_offset(self, offset: Duration) -> Self {
        // Below the slide, so that subtracting it overflows at the end of time only.
        let offset = offset.as_millis() % u128::try_from(self.slide.max(1)).unwrap_or(1);
        Self { offset: i64::try_from(offset).unwrap_or(0), ..self }
    }

    /// What is wrong with the size or slide, if anything.
    pub fn problem(&self) -> Option<&'static str> {
        if self.size <= 0 || self.slide <= 0 {
            Some("a window's size and slide must be at least one millisecond")
        } else if self.slide > self.size {
            Some(
                "a window's slide must not be longer than its size, or records between windows would be lost",
            )
        } else {
            None
        }
    }

    /// Whether every window is one slice.
    pub fn is_tumbling(&self) -> bool {
        self.size == self.slice
    }

    /// Length of a slice.
    #[inline(always)]
    pub fn slice_length(&self) -> i64 {
        self.slice
    }

    /// Length of a window.
    pub fn size(&self) -> i64 {
        self.size
    }

    /// How far `at` is behind the last multiple of `step` (a slice or a slide), counted from the offset.
    #[inline(always)]
    fn phase(&self, at: Timestamp, step: i64) -> i64 {
        match at.checked_sub(self.offset) {
            Some(at) => at.rem_euclid(step),
            // At the beginning of time; the offset is less than a slide.
            None => (at + (step - self.offset % step)).rem_euclid(step),
        }
    }

    /// Start of the slice that holds a timestamp.
    #[inline(always)]
    pub fn slice_of(&self, timestamp: Timestamp) -> Timestamp {
        timestamp.saturating_sub(self.phase(timestamp, self.slice))
    }

    /// The last timestamp in the slice that begins at `slice`.
    #[inline(always)]
    pub fn slice_last(&self, slice: Timestamp) -> Timestamp {
        // The first slice of all may be cut off.
        slice.saturating_add(self.slice - 1 - self.phase(slice, self.slice))
    }

    /// The window with this end.
    pub fn window_ending(&self, end: Timestamp) -> TimeWindow {
        // Only a window that is cut off ends in another phase.
        let past = (self.phase(end, self.slide) - self.size % self.slide).rem_euclid(self.slide);
        let cut = if past == 0 { 0 } else { self.slide - past };
        TimeWindow { start: end.saturating_sub(self.size - cut), end }
    }

    /// End of the last window that holds the slice beginning at `slice`.
    #[inline]
    pub fn last_end(&self, slice: Timestamp) -> Timestamp {
        slice.saturating_add(self.size - self.phase(slice, self.slide))
    }

    /// End of the first window that holds the slice and ends after `after`; `None` if none does.
    pub fn next_end(&self, slice: Timestamp, after: Timestamp) -> Option<Timestamp> {
        let least = self.slice_last(slice).saturating_add(1).max(after.checked_add(1)?);
        // Ends are congruent to offset + size modulo the slide.
        let past = (self.phase(least, self.slide) - self.size % self.slide).rem_euclid(self.slide);
        let end = if past == 0 { least } else { least.saturating_add(self.slide - past) };
        (end <= self.last_end(slice)).then_some(end)
    }
}

fn gcd(a: i64, b: i64) -> i64 {
    if b <= 0 { a.max(1) } else { gcd(b, a % b) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sliding(size: u64, slide: u64, offset: u64) -> EventTimeWindows {
        SlidingEventTime::of(Duration::from_millis(size), Duration::from_millis(slide))
            .with_offset(Duration::from_millis(offset))
            .into()
    }

    #[test]
    fn the_windows_of_a_slice_are_those_that_hold_each_of_its_timestamps() {
        for (size, slide, offset) in [(10, 10, 0), (10, 2, 0), (10, 3, 1), (7, 7, 3), (12, 8, 5)] {
            let windows = sliding(size, slide, offset);
            for timestamp in -40..40_i64 {
                let slice = windows.slice_of(timestamp);
                assert!(slice <= timestamp && timestamp < slice + windows.slice_length());
                let mut ends = Vec::new();
                let mut after = Timestamp::MIN;
                while let Some(end) = windows.next_end(slice, after) {
                    ends.push(end);
                    after = end;
                }
                let (size, slide, offset) = (size as i64, slide as i64, offset as i64);
                let expected: Vec<i64> = (-60..60)
                    .filter(|start| (start - offset).rem_euclid(slide) == 0)
                    .filter(|start| *start <= timestamp && timestamp < start + size)
                    .map(|start| start + size)
                    .collect();
                assert_eq!(ends, expected, "size {size} slide {slide} offset {offset} at {timestamp}");
                assert_eq!(Some(&windows.last_end(slice)), ends.last());
            }
        }
    }

    #[test]
    fn extreme_timestamps_do_not_overflow() {
        let windows = sliding(10, 2, 0);
        for timestamp in [Timestamp::MIN + 1, Timestamp::MAX - 1, Timestamp::MAX] {
            let slice = windows.slice_of(timestamp);
            let _end = (windows.next_end(slice, Timestamp::MIN), windows.last_end(slice));
        }
    }

    #[test]
    fn impossible_windows_are_named() {
        assert!(sliding(0, 0, 0).problem().is_some());
        assert!(sliding(5, 6, 0).problem().is_some());
        assert_eq!(sliding(6, 5, 0).problem(), None);
    }
}
