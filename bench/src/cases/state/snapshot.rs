//! `snapshot-10ms`: updates while a snapshot is taken every 10 ms, against the same updates without.
//!
//! A snapshot begins every 10 ms unless [`UNDER_WAY_MAX`] are not yet durable: then the disk is the limit, and how many
//! there were and what was written is printed. The newest one is kept, those before are released.

use std::{
    path::PathBuf,
    time::{Duration, Instant},
};

use hdrhistogram::Histogram;
use tidemill::storage::store::{StoreOptions, files::SnapshotEvent};

use super::{
    Options,
    bed::{Table, Touched, each, pin},
    counted,
    disk::{self, Probe},
    keys::{BATCH, Deck, Uniform},
    sampled,
};
use crate::{
    cases::scratch::Scratch,
    error::BenchError,
    floor,
    report::{Latencies, Line, Reporter},
    versus::{Rounds, Versus, per_second},
};

const ROW: &str = "snapshot-10ms";
const PERIOD: Duration = Duration::from_millis(10);
/// More than this many under way say that the disk does not keep up.
const UNDER_WAY_MAX: u64 = 3;

pub(super) fn run(options: &Options, reporter: &mut Reporter) -> Result<(), BenchError> {
    let (keys, updates, rounds) = options.pick((10_000_000, 30_000_000, 7), (300_000, 1_000_000, 2));
    let quiet = Duration::from_millis(options.pick(3_000, 200));
    let scratch = Scratch::new(ROW)?;
    let probe = Probe::write(scratch.path(), options.pick(2 << 30, 64 << 20))?;
    let options_of_store = StoreOptions { files: Some(disk::files(&scratch)), ..StoreOptions::new() };
    let mut snapshots = Snapshots::of(Table::with_options(options_of_store, keys)?);
    // The first one starts the writer's thread, which is to have the other core, and writes everything.
    snapshots.begin()?;
    snapshots.finish()?;
    pin();

    let mut uniform = Uniform::new(keys, 5);
    let batches = updates / BATCH;
    let updates = (batches * BATCH) as u64;
    let (mut with, mut without) = (Vec::new(), Vec::new());
    let (mut made, mut written, mut wall) = (0, 0, Duration::ZERO);
    for round in 0..=rounds {
        snapshots.reset();
        let start = Instant::now();
        let elapsed = snapshots.updates(batches, &mut uniform, true)?;
        snapshots.finish()?;
        if round > 0 {
            with.push(per_second(updates, elapsed));
            (made, written) = (made + snapshots.made, written + snapshots.bytes_written);
            wall += start.elapsed();
        }
        // What was sealed is to be gone: the other side is the table that never was.
        each(0..keys, |batch| snapshots.table.update(batch));
        let elapsed = snapshots.updates(batches, &mut uniform, false)?;
        if round > 0 {
            without.push(per_second(updates, elapsed));
        }
    }
    let mut count = keys + (rounds as u64 + 1) * (2 * updates + keys);
    counted::check(ROW, &mut snapshots.table.table, keys, count)?;

    let mut noise = floor::measure(1, quiet);
    let mut recorded = floor::histogram();
    let mut deck = Deck::new(keys as u32, 6);
    snapshots.seals.reset();
    for _ in 0..options.pick(3, 1) {
        deck.shuffle();
        sampled::record(&deck, &mut recorded, |batch| {
            // The one that is timed is not to pay for what its worker does between batches.
            if batch.len() > 1 {
                snapshots.tick()?;
            }
            snapshots.table.update(batch);
            Ok(())
        })?;
        count += keys;
    }
    snapshots.finish()?;
    floor::add(&mut noise, &floor::measure(1, quiet));
    counted::check(ROW, &mut snapshots.table.table, keys, count)?;

    let versus = Versus { ours: Rounds::from(with), peer: Rounds::from(without) };
    let line = Line::new("state", ROW, 1).versus(&versus, "updates/s", "without snapshots");
    reporter.print(&line.over(updates, None).latencies(&recorded, &noise))?;
    let mut line = Line::new("state", "snapshot-10ms-seal", 1);
    line.latencies = Some(Latencies::of_nanos(&snapshots.seals));
    reporter.print(&line)?;
    let seconds = wall.as_secs_f64();
    for (name, value, unit) in [
        ("snapshot-10ms-made", made as f64 / seconds, "snapshots/s"),
        ("snapshot-10ms-written", written as f64 / seconds / 1e6, "MB/s"),
        ("snapshot-10ms-disk", probe.write_rate / 1e6, "MB/s"),
    ] {
        reporter.print(&Line::new("state", name, 1).value(value, unit))?;
    }
    Ok(())
}

/// A table of which snapshots are taken.
pub(super) struct Snapshots<V: Touched> {
    pub(super) table: Table<V>,
    /// The next one's number.
    next: u64,
    under_way: u64,
    last: Instant,
    /// The newest one that is durable.
    pub(super) manifest: PathBuf,
    pub(super) made: u64,
    pub(super) bytes_written: u64,
    seals: Histogram<u64>,
}

impl<V: Touched> Snapshots<V> {
    pub(super) fn of(table: Table<V>) -> Self {
        Self {
            table,
            next: 1,
            under_way: 0,
            last: Instant::now(),
            manifest: PathBuf::new(),
            made: 0,
            bytes_written: 0,
            seals: floor::histogram(),
        }
    }

    pub(super) fn reset(&mut self) {
        (self.made, self.bytes_written, self.last) = (0, 0, Instant::now());
    }

    /// Begins a snapshot.
    pub(super) fn begin(&mut self) -> Result<(), BenchError> {
        let start = Instant::now();
        let mut sealing = self.table.bed.store.begin_seal();
        self.table.table.seal(sealing.sealed());
        self.table.bed.store.snapshot(self.next, sealing)?;
        self.seals.saturating_record(start.elapsed().as_nanos() as u64);
        (self.next, self.under_way) = (self.next + 1, self.under_way + 1);
        Ok(())
    }

    fn note(&mut self, event: SnapshotEvent) -> Result<(), BenchError> {
        match event {
            SnapshotEvent::Done { snapshot, bytes_written, manifest } => {
                self.manifest = manifest;
                self.under_way -= 1;
                self.made += 1;
                self.bytes_written += bytes_written;
                if snapshot > 1 {
                    self.table.bed.store.release(snapshot - 1)?;
                }
                Ok(())
            }
            SnapshotEvent::Failed { error, .. } => Err(error.into()),
            _ => Ok(()),
        }
    }

    /// What a worker does between two batches: begins a snapshot when it is time, and listens to the writer.
    fn tick(&mut self) -> Result<(), BenchError> {
        if self.last.elapsed() < PERIOD {
            return Ok(());
        }
        self.last = Instant::now();
        while let Some(event) = self.table.bed.store.next_snapshot_event()? {
            self.note(event)?;
        }
        if self.under_way < UNDER_WAY_MAX { self.begin() } else { Ok(()) }
    }

    pub(super) fn finish(&mut self) -> Result<(), BenchError> {
        while self.under_way > 0 {
            let event = self.table.bed.store.wait_for_snapshot()?;
            self.note(event)?;
        }
        Ok(())
    }

    /// Time of so many batches, snapshots included.
    pub(super) fn updates(
        &mut self,
        batches: usize,
        uniform: &mut Uniform,
        snapshots: bool,
    ) -> Result<Duration, BenchError> {
        let (mut batch, mut elapsed) = ([0; BATCH], Duration::ZERO);
        for _ in 0..batches {
            uniform.fill(&mut batch);
            let start = Instant::now();
            if snapshots {
                self.tick()?;
            }
            self.table.update(&batch);
            elapsed += start.elapsed();
        }
        Ok(elapsed)
    }
}
