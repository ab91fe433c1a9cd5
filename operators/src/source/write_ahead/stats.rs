//! What there is to know of a write-ahead channel while it runs.

/// How a write-ahead channel stands: from [`WriteAheadFeeder::stats`](super::WriteAheadFeeder::stats). Records are numbered from 0 on,
/// over all starts of the job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct WriteAheadStats {
    /// Number of the oldest record that is kept: a checkpoint that is kept may need it.
    pub first: u64,
    /// Number of the record behind the last that is durable, and so acknowledged.
    pub durable: u64,
    /// Number of the record behind the last that is on its way to the job; what is from there to `durable` it has to catch up with.
    pub read: u64,
    /// Bytes that the log takes on the disk. Near `log_bytes_max`, checkpoints do not keep up with the senders.
    pub log_bytes: u64,
    /// The most that it may take; senders wait then.
    pub log_bytes_max: u64,
    /// Bytes that wait for their sync. Near `pending_bytes_max`, the disk does not keep up with the senders.
    pub pending_bytes: usize,
    /// The most that may wait; senders wait then.
    pub pending_bytes_max: usize,
}
