//! What a job tells about itself: plain counters kept by each worker, copied out when somebody asks.
//!
//! Nothing here is shared while the job runs: operators count in their own fields, a worker copies them into its
//! [`WorkerReport`] on request, and [`JobMetrics`] merges the reports.

use std::fmt;

use hdrhistogram::Histogram;

use super::{
    checkpoint::CheckpointId, connections::ConnectionStats, operator::OperatorIndex, time::Timestamp,
};
use crate::platform::Nanos;

/// What one operator instance has counted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OperatorCounters {
    /// Records taken.
    pub records_in: u64,
    /// Records handed on.
    pub records_out: u64,
    /// Bytes read from outside (a source) or taken from an exchange.
    pub bytes_in: u64,
    /// Bytes handed to an exchange: archived records with their columns.
    pub bytes_out: u64,
    /// Records that came after their window was closed.
    pub late: u64,
    /// Records that could not be decoded and were skipped, as the source's settings say.
    pub skipped: u64,
}

impl OperatorCounters {
    /// Adds another instance's counts.
    pub fn merge(&mut self, other: &Self) {
        self.records_in += other.records_in;
        self.records_out += other.records_out;
        self.bytes_in += other.bytes_in;
        self.bytes_out += other.bytes_out;
        self.late += other.late;
        self.skipped += other.skipped;
    }
}

/// Is shown every operator of a task with its counters.
pub trait OperatorVisitor {
    /// One operator.
    fn operator(&mut self, operator: OperatorIndex, counters: &OperatorCounters);
}

/// How long a task was busy, and what keeps it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TaskTimes {
    /// Time spent in steps that handled something.
    pub busy: Nanos,
    /// Time during which an output had no room.
    pub blocked: Nanos,
    /// Time without input.
    pub idle: Nanos,
}

/// How far one subtask of a source has come in event time, and what holds it back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceTime {
    /// Index of the instance.
    pub subtask: usize,
    /// The watermark that it has given out, or is about to.
    pub watermark: Timestamp,
    /// Since when it has been that one, as wall-clock time in milliseconds.
    pub since_millis: i64,
    /// The split that holds it back: of those that are being read and are not idle, the one that is furthest behind. `None` when there is
    /// none: all are idle, or have ended.
    pub held_back_by: Option<usize>,
    /// Whether all splits are idle, so that nobody waits for this subtask.
    pub is_idle: bool,
}

/// What became of a job's checkpoints, over all its attempts.
#[derive(Clone, Debug, Default)]
pub struct CheckpointStats {
    /// Complete ones.
    pub completed: u64,
    /// Those that were given up.
    pub failed: u64,
    /// The newest complete one.
    pub last: Option<CheckpointId>,
    /// Bytes of state written for all complete ones.
    pub bytes_written: u64,
    /// Bytes of records that barriers have overtaken and that became part of complete ones.
    pub in_flight_bytes: u64,
    /// Bytes of state written for the newest.
    pub last_bytes_written: u64,
    /// Why the last one that failed did.
    pub last_failure: Option<String>,
    /// The checkpoint that was gone on from the last time: by the job, or by the region that was started again.
    pub restored_from: Option<CheckpointId>,
    /// Times the job was started again, or a region of it.
    pub restarts: u64,
    /// Times it was a region, while the others went on.
    pub region_restarts: u64,
    /// Why it was started again the last time.
    pub last_restart: Option<String>,
    /// Names of the operators that were started again the last time: all, or those of one region.
    pub last_restart_operators: Vec<String>,
    /// From the trigger to the commit, of complete ones.
    pub durations: LatencyHistogram,
    /// How long tasks handled no record because one of them passed a barrier, or some of what a table was at the barrier was copied;
    /// of the present attempt.
    pub stalls: LatencyHistogram,
}

/// A histogram of latencies in nanoseconds with two significant digits. `Debug` shows how many there are and some quantiles.
#[derive(Clone)]
pub struct LatencyHistogram(Histogram<u64>);

impl Default for LatencyHistogram {
    fn default() -> Self {
        let histogram = Histogram::new(2).unwrap_or_else(|_| unreachable!("two digits are allowed"));
        Self(histogram)
    }
}

impl fmt::Debug for LatencyHistogram {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("LatencyHistogram");
        shown
            .field("count", &self.count())
            .field("p50", &self.quantile(0.5))
            .field("p99", &self.quantile(0.99));
        shown.field("max", &self.max()).finish()
    }
}

impl LatencyHistogram {
    /// Notes that `records` records took `nanos`.
    #[inline]
    pub fn record(&mut self, nanos: Nanos, records: u64) {
        // The histogram grows as needed: there is no value that it refuses.
        let _always_fits = self.0.record_n(nanos.max(1), records);
    }

    /// Adds another histogram's counts.
    pub fn merge(&mut self, other: &Self) {
        let _always_fits = self.0.add(&other.0);
    }

    /// Number of records noted.
    pub fn count(&self) -> u64 {
        self.0.len()
    }

    /// The latency in nanoseconds that the given share (0 to 1) of records does not exceed.
    pub fn quantile(&self, share: f64) -> Nanos {
        self.0.value_at_quantile(share)
    }

    /// The longest latency in nanoseconds.
    pub fn max(&self) -> Nanos {
        self.0.max()
    }
}

/// What one task told.
#[derive(Clone, Debug, Default)]
pub struct TaskReport {
    /// Index of the instance.
    pub subtask: usize,
    /// Its operators with their counters, in the order of flow.
    pub operators: Vec<(OperatorIndex, OperatorCounters)>,
    /// Busy, blocked and idle time.
    pub times: TaskTimes,
    /// Watermark seen on its inputs.
    pub watermark: Timestamp,
    /// How far it has come in event time, if it begins with a source whose records have timestamps.
    pub source: Option<SourceTime>,
    /// Elements that wait in its input channels.
    pub queued: usize,
    /// Elements that its input channels hold at most.
    pub queue_max: usize,
    /// Time from a record's entry into the job until this task had handled it: the oldest record of each batch
    /// stands for all of its records, so the figure is an upper bound.
    pub latency: LatencyHistogram,
}

/// What one worker told.
#[derive(Clone, Debug, Default)]
pub struct WorkerReport {
    /// Its tasks.
    pub tasks: Vec<TaskReport>,
    /// Wall-clock time of the report in milliseconds.
    pub wall_millis: i64,
    /// How long tasks handled no record because one of them passed a barrier, or some of what a table was at the barrier was copied.
    pub stalls: LatencyHistogram,
}

/// What the engine knows of an operator from construction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OperatorInfo {
    /// Stable id: the user's, the name that the user gave a source or sink, or made from the operator's place in the job.
    pub id: String,
    /// Name for people.
    pub name: String,
}

impl OperatorInfo {
    /// What messages call it: its name, and its id behind that where the user has given it one, as others may have the same name.
    pub fn label(&self) -> String {
        let Self { id, name } = self;
        let is_of_its_place = id.split_once('-').is_some_and(|(place, _)| place.parse::<usize>().is_ok());
        if id == name || is_of_its_place { name.clone() } else { format!("{name} ({id})") }
    }
}

/// The metrics of one operator, over all its instances.
#[derive(Clone, Debug)]
pub struct OperatorMetrics {
    /// Id and name.
    pub info: OperatorInfo,
    /// Number of instances that reported.
    pub instances: usize,
    /// Counts over all instances.
    pub counters: OperatorCounters,
    /// Times of the tasks that it is fused into, added up: operators of one chain share them.
    pub times: TaskTimes,
    /// The least watermark of its instances.
    pub watermark: Timestamp,
    /// How far that is behind the wall clock, in milliseconds; `None` before the first watermark and after the last.
    pub watermark_lag_millis: Option<i64>,
    /// Of a source whose records have timestamps: how far each of its subtasks has come in event time, and what holds it back.
    pub sources: Vec<SourceTime>,
    /// Elements in its task's input channels, and how many fit.
    pub queue: (usize, usize),
    /// Latency of records from their entry into the job through this operator's task.
    pub latency: LatencyHistogram,
    /// Its connections to the other side, if it is a sink that tells of them.
    pub connections: ConnectionStats,
}

/// The metrics of a job at one moment.
#[derive(Clone, Debug, Default)]
pub struct JobMetrics {
    /// All operators, in the order of construction.
    pub operators: Vec<OperatorMetrics>,
    /// Each worker's own report.
    pub workers: Vec<WorkerReport>,
    /// What became of checkpoints.
    pub checkpoints: CheckpointStats,
}

impl JobMetrics {
    /// Merges the workers' reports.
    pub fn merge(infos: &[OperatorInfo], workers: Vec<WorkerReport>) -> Self {
        let operators = infos.iter().enumerate();
        let operators = operators.filter_map(|(index, info)| merge_operator(index, info, &workers)).collect();
        let mut checkpoints = CheckpointStats::default();
        workers.iter().for_each(|worker| checkpoints.stalls.merge(&worker.stalls));
        Self { operators, workers, checkpoints }
    }

    /// The operator with this name or id, the first in the order of construction.
    pub fn operator(&self, name: &str) -> Option<&OperatorMetrics> {
        self.operators.iter().find(|operator| operator.info.name == name || operator.info.id == name)
    }
}

fn merge_operator(index: usize, info: &OperatorInfo, workers: &[WorkerReport]) -> Option<OperatorMetrics> {
    let mut merged: Option<OperatorMetrics> = None;
    for worker in workers {
        for task in &worker.tasks {
            let own = task.operators.iter().find(|(operator, _)| *operator as usize == index);
            let Some((_, counters)) = own else { continue };
            let merged = merged.get_or_insert_with(|| OperatorMetrics {
                info: info.clone(),
                instances: 0,
                counters: OperatorCounters::default(),
                times: TaskTimes::default(),
                watermark: Timestamp::MAX,
                watermark_lag_millis: None,
                sources: Vec::new(),
                queue: (0, 0),
                latency: LatencyHistogram::default(),
                connections: ConnectionStats::default(),
            });
            merged.instances += 1;
            merged.counters.merge(counters);
            merged.times.busy += task.times.busy;
            merged.times.blocked += task.times.blocked;
            merged.times.idle += task.times.idle;
            merged.watermark = merged.watermark.min(task.watermark);
            let is_first = task.operators.first().is_some_and(|(operator, _)| *operator as usize == index);
            merged.sources.extend(task.source.iter().filter(|_| is_first).cloned());
            merged.queue.0 += task.queued;
            merged.queue.1 += task.queue_max;
            merged.latency.merge(&task.latency);
            let known = merged.watermark > Timestamp::MIN && merged.watermark < Timestamp::MAX;
            merged.watermark_lag_millis = known.then(|| worker.wall_millis.saturating_sub(merged.watermark));
        }
    }
    merged
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_operator_is_told_from_others_of_its_name_by_the_id_that_it_was_given() {
        let label = |id: &str, name: &str| OperatorInfo { id: id.to_owned(), name: name.to_owned() }.label();
        assert_eq!(label("3-process", "process"), "process");
        assert_eq!(label("3-process", "sums"), "sums");
        assert_eq!(label("rows", "rows"), "rows");
        assert_eq!(label("totals", "process"), "process (totals)");
        assert_eq!(label("pre-process", "process"), "process (pre-process)");
    }

    #[test]
    fn a_histogram_is_shown_by_its_quantiles() {
        let mut latencies = LatencyHistogram::default();
        latencies.record(100, 99);
        assert_eq!(format!("{latencies:?}"), "LatencyHistogram { count: 99, p50: 100, p99: 100, max: 100 }");
    }
}
