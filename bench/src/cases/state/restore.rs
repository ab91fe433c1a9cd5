//! `restore`: a store comes back from a snapshot: from opening its files to a table that is whole.
//!
//! The other side reads as many bytes of a file into memory that was never touched, and does nothing with them: that is
//! the disk and the kernel, which fills new pages with zeros first.

use std::{sync::Arc, time::Instant};

use tidemill::storage::{
    snapshot::disk::os::OsDisk,
    state::{StateBackend, StateName, WHOLE},
    store::{Store, StoreOptions, files::SnapshotEvent},
};

use super::{
    Options,
    bed::{Table, Value},
    counted,
    disk::{self, Probe},
};
use crate::{
    cases::scratch::Scratch,
    error::BenchError,
    report::{Line, Reporter},
    versus::{Rounds, Versus},
};

const RECORD_BYTES: u64 = 40;

pub(super) fn run(options: &Options, reporter: &mut Reporter) -> Result<(), BenchError> {
    let bytes = options.pick(4 << 30, 32 << 20);
    let keys = bytes / RECORD_BYTES;
    let scratch = Scratch::new("restore")?;
    let manifest = write(&scratch, keys)?;
    let probe = Probe::write(scratch.path(), options.pick(2 << 30, 32 << 20))?;
    let gib = f64::from(1 << 30);
    let (mut ours, mut peer, mut disk) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..options.pick(3, 1) {
        let start = Instant::now();
        let mut store = Store::restore(
            StoreOptions::new(),
            Arc::new(OsDisk::default()),
            std::slice::from_ref(&manifest),
        )?;
        let state = store.open::<u64, Value>(StateName::new("bench", "state"), Vec::new())?;
        let mut table = store.table::<u64, Value>(state, WHOLE);
        ours.push((keys * RECORD_BYTES) as f64 / start.elapsed().as_secs_f64() / gib);
        counted::check("restore", &mut table, keys, keys)?;
        drop((table, store));
        peer.push(probe.read_rate_into_new_memory()? / gib);
        disk.push(probe.read_rate()? / gib);
    }
    let versus = Versus { ours: Rounds::from(ours), peer: Rounds::from(peer) };
    let line =
        Line::new("state", "restore", options.cores).versus(&versus, "GiB/s", "a file into new memory");
    reporter.print(&line.over(keys, None))?;
    let line = Line::new("state", "restore-disk", options.cores).rounds(&Rounds::from(disk), "GiB/s");
    reporter.print(&line)
}

/// Makes the snapshot; nothing of it stays in memory.
fn write(scratch: &Scratch, keys: u64) -> Result<std::path::PathBuf, BenchError> {
    let mut table =
        Table::with_options(StoreOptions { files: Some(disk::files(scratch)), ..StoreOptions::new() }, keys)?;
    let mut sealing = table.bed.store.begin_seal();
    table.table.seal(sealing.sealed());
    table.bed.store.snapshot(1, sealing)?;
    match table.bed.store.wait_for_snapshot()? {
        SnapshotEvent::Done { manifest, .. } => Ok(manifest),
        SnapshotEvent::Failed { error, .. } => Err(error.into()),
        SnapshotEvent::Exported { .. } => unreachable!("nothing is exported"),
    }
}
