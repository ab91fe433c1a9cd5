//! Timestamps and watermarks as the user declares them: where event time is in a record, and how far out of
//! order records may be.

use std::time::Duration;

use super::time::{Timestamp, WATERMARK_MIN};
use crate::platform::Nanos;

/// Gives records their event timestamps.
pub trait AssignTimestamps<T: ?Sized>: Clone + Send + 'static {
    /// Whether records get timestamps at all.
    const ENABLED: bool = true;

    /// The event time of one record, in milliseconds since the Unix epoch.
    fn timestamp(&mut self, record: &T) -> Timestamp;
}

/// No event time: records carry none and no watermark is made before the end.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoTimestamps;

impl<T: ?Sized> AssignTimestamps<T> for NoTimestamps {
    const ENABLED: bool = false;

    fn timestamp(&mut self, _record: &T) -> Timestamp {
        super::time::NO_TIMESTAMP
    }
}

/// Timestamps by a function of the record.
#[derive(Clone, Copy, Debug)]
pub struct TimestampFn<F>(pub F);

impl<T: ?Sized, F: FnMut(&T) -> Timestamp + Clone + Send + 'static> AssignTimestamps<T> for TimestampFn<F> {
    #[inline(always)]
    fn timestamp(&mut self, record: &T) -> Timestamp {
        (self.0)(record)
    }
}

/// How watermarks follow from timestamps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WatermarkBounds {
    /// How far a record may be behind the newest one before it, in milliseconds.
    pub out_of_orderness_ms: i64,
    /// How long a split may be silent before it no longer holds the watermark back.
    pub idle_after: Option<Nanos>,
}

impl WatermarkBounds {
    /// The watermark once `newest` was seen: everything older than the bound allows has come.
    #[inline]
    pub fn watermark(&self, newest: Timestamp) -> Timestamp {
        if newest == WATERMARK_MIN {
            return WATERMARK_MIN;
        }
        newest.saturating_sub(self.out_of_orderness_ms).saturating_sub(1)
    }
}

/// Timestamps and watermarks of a source, in the manner of Flink's `WatermarkStrategy`.
///
/// ```
/// # use std::time::Duration;
/// # use tidemill_engine::model::watermark::WatermarkStrategy;
/// # struct Reading { at_ms: i64 }
/// let strategy = WatermarkStrategy::for_bounded_out_of_orderness(Duration::from_secs(5))
///     .with_timestamps(|reading: &Reading| reading.at_ms)
///     .with_idleness(Duration::from_secs(60));
/// # let _ = strategy;
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct WatermarkStrategy<A = NoTimestamps> {
    /// Gives records their timestamps.
    pub assign: A,
    /// How watermarks follow from them.
    pub bounds: WatermarkBounds,
}

impl WatermarkStrategy {
    /// No event time: windows of event time would all fire at the end of the input.
    pub fn none() -> Self {
        Self::default()
    }

    /// Records of a split come in the order of their timestamps.
    pub fn for_monotonous_timestamps() -> Self {
        Self::default()
    }

    /// A record of a split is at most `bound` (rounded down to milliseconds) older than the newest before it.
    pub fn for_bounded_out_of_orderness(bound: Duration) -> Self {
        let out_of_orderness_ms = i64::try_from(bound.as_millis()).unwrap_or(i64::MAX);
        Self { bounds: WatermarkBounds { out_of_orderness_ms, idle_after: None }, assign: NoTimestamps }
    }
}

impl<A> WatermarkStrategy<A> {
    /// Takes event time from the record: milliseconds since the Unix epoch.
    pub fn with_timestamps<T: ?Sized, F>(self, timestamp: F) -> WatermarkStrategy<TimestampFn<F>>
    where
        F: FnMut(&T) -> Timestamp + Clone + Send + 'static,
    {
        WatermarkStrategy { assign: TimestampFn(timestamp), bounds: self.bounds }
    }

    /// A split that is silent for this long no longer holds the watermark back.
    pub fn with_idleness(mut self, timeout: Duration) -> Self {
        self.bounds.idle_after = Some(u64::try_from(timeout.as_nanos()).unwrap_or(u64::MAX));
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn watermarks_follow_the_newest_timestamp_and_do_not_overflow() {
        let bounds = WatermarkBounds { out_of_orderness_ms: 10, idle_after: None };
        assert_eq!(bounds.watermark(100), 89);
        assert_eq!(bounds.watermark(WATERMARK_MIN), WATERMARK_MIN);
        assert_eq!(bounds.watermark(WATERMARK_MIN + 3), WATERMARK_MIN);
    }
}
