//! `snapshot-10ms-count`: a count per key under a snapshot every 10 ms, by a store that changes such small records where they lie
//! and logs what they become, against one that copies each to the tail at its first change; and how long each takes to come back
//! from its files.

use std::{
    fs,
    sync::Arc,
    time::{Duration, Instant},
};

use tidemill::storage::{
    log::table::LogTable,
    record::restore,
    snapshot::disk::os::OsDisk,
    state::{KeyedTable, StateBackend, WHOLE},
    store::{JOURNALED_BYTES_MAX, Store, StoreOptions},
};

use super::{
    Options,
    bed::{Table, name, pin},
    disk,
    keys::{BATCH, Uniform},
    snapshot::Snapshots,
};
use crate::{
    cases::scratch::Scratch,
    error::BenchError,
    report::{Line, Reporter},
    versus::{Versus, per_second},
};

const ROW: &str = "snapshot-10ms-count";

pub(super) fn run(options: &Options, reporter: &mut Reporter) -> Result<(), BenchError> {
    let (keys, updates, rounds) = options.pick((10_000_000, 60_000_000, 5), (300_000, 1_000_000, 1));
    let batches = updates / BATCH;
    let (mut in_place, mut copied) = (Side::new(keys, JOURNALED_BYTES_MAX)?, Side::new(keys, 0)?);
    pin();
    let versus = Versus::alternate(rounds, || in_place.round(batches), || copied.round(batches))?;
    let count = keys + (rounds as u64 + 1) * (batches * BATCH) as u64;
    check(&mut in_place.snapshots.table.table, count)?;
    check(&mut copied.snapshots.table.table, count)?;
    let line = Line::new("state", ROW, 1).versus(&versus, "updates/s", "copied first");
    reporter.print(&line.over((batches * BATCH) as u64, None))?;
    let [restored, restored_copied] = [in_place.restored(count)?, copied.restored(count)?];
    for (name, value, unit) in [
        ("made", in_place.per_second(in_place.made), "snapshots/s"),
        ("made-copied", copied.per_second(copied.made), "snapshots/s"),
        ("written", in_place.written as f64 / count as f64, "bytes/update"),
        ("written-copied", copied.written as f64 / count as f64, "bytes/update"),
        ("files", in_place.files_most as f64 / keys as f64, "bytes/key"),
        ("files-copied", copied.files_most as f64 / keys as f64, "bytes/key"),
        ("restored", restored.as_secs_f64(), "s"),
        ("restored-copied", restored_copied.as_secs_f64(), "s"),
    ] {
        reporter.print(&Line::new("state", &format!("{ROW}-{name}"), 1).value(value, unit))?;
    }
    Ok(())
}

/// One of the stores.
struct Side {
    snapshots: Snapshots<u64>,
    uniform: Uniform,
    made: u64,
    written: u64,
    took: Duration,
    files: Scratch,
    /// The most bytes that they had after a round.
    files_most: u64,
}

impl Side {
    fn new(keys: u64, journaled_bytes_max: usize) -> Result<Self, BenchError> {
        let files = Scratch::new(&format!("{ROW}-{journaled_bytes_max}"))?;
        let options =
            StoreOptions { files: Some(disk::files(&files)), journaled_bytes_max, ..StoreOptions::new() };
        let mut snapshots = Snapshots::of(Table::of(options, keys)?);
        // The first one starts the writer's thread, which is to have the other core, and writes everything.
        snapshots.begin()?;
        snapshots.finish()?;
        let uniform = Uniform::new(keys, 5);
        Ok(Self { snapshots, uniform, made: 0, written: 0, took: Duration::ZERO, files, files_most: 0 })
    }

    /// Updates per second.
    fn round(&mut self, batches: usize) -> Result<f64, BenchError> {
        self.snapshots.reset();
        let took = self.snapshots.updates(batches, &mut self.uniform, true)?;
        self.snapshots.finish()?;
        self.made += self.snapshots.made;
        self.written += self.snapshots.bytes_written;
        self.took += took;
        let files = fs::read_dir(self.files.path().join("store"))?;
        // One that is gone meanwhile was needed no more.
        let bytes = files.filter_map(|file| Some(file.ok()?.metadata().ok()?.len())).sum();
        self.files_most = self.files_most.max(bytes);
        Ok(per_second((batches * BATCH) as u64, took))
    }

    fn per_second(&self, number: u64) -> f64 {
        number as f64 / self.took.as_secs_f64()
    }

    /// How long a restore from a last snapshot takes.
    fn restored(&mut self, expected: u64) -> Result<Duration, BenchError> {
        self.snapshots.begin()?;
        self.snapshots.finish()?;
        let files = Scratch::new(&format!("{ROW}-restored"))?;
        let options = StoreOptions { files: Some(disk::files(&files)), ..StoreOptions::new() };
        let disk = Arc::new(OsDisk::default());
        let start = Instant::now();
        let mut store = Store::restore(options, disk, std::slice::from_ref(&self.snapshots.manifest))?;
        let state = store.open::<u64, u64>(name(), Vec::new())?;
        let mut table = store.table::<u64, u64>(state, WHOLE);
        let took = start.elapsed();
        check(&mut table, expected)?;
        Ok(took)
    }
}

/// Fails unless so many updates were counted.
fn check(table: &mut LogTable<u64, u64>, expected: u64) -> Result<(), BenchError> {
    let mut counted = 0;
    table.scan(0, |_, count| {
        counted += restore::<u64>(count);
        true
    });
    if counted == expected {
        return Ok(());
    }
    let difference = format!("{counted} updates were counted instead of {expected}");
    Err(BenchError::WrongAnswer { side: "the log".to_owned(), query: ROW.to_owned(), difference })
}
