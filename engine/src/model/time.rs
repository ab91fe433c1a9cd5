//! Event time: milliseconds since the Unix epoch, as in Flink.

/// Event time in milliseconds since the Unix epoch.
pub type Timestamp = i64;

/// The timestamp of a record that has none.
pub const NO_TIMESTAMP: Timestamp = i64::MIN;

/// The watermark before any was seen.
pub const WATERMARK_MIN: Timestamp = i64::MIN;

/// The watermark after the last record: every window fires.
pub const WATERMARK_MAX: Timestamp = i64::MAX;
