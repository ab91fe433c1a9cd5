//! `restore`: a store comes back from a snapshot, as a job's does: from opening its files to a table that is whole. Then a
//! thousand keys change, and `restore-first-snapshot` is what the first snapshot writes.
//!
//! The other side reads as many bytes of a file into memory that was never touched, and does nothing with them: that is
//! the disk and the kernel, which fills new pages with zeros first. Both sides begin just after as much memory as they need
//! was touched and given back: a virtual machine's host may take free memory away within seconds, and give it back at a
//! tenth of the speed.

use std::{path::PathBuf, sync::Arc, time::Instant};

use tidemill::storage::{
    key::hash_bits,
    log::table::LogTable,
    snapshot::disk::os::OsDisk,
    state::{KeyView, KeyedTable, StateBackend, WHOLE},
    store::{
        Store, StoreOptions,
        files::{FileOptions, SnapshotEvent},
    },
};

use super::{
    Options,
    bed::{Table, Value, name},
    counted,
    disk::{self, Probe},
};
use crate::{
    cases::scratch::Scratch,
    error::BenchError,
    memory,
    report::{Line, Reporter},
    versus::{Rounds, Versus},
};

const RECORD_BYTES: u64 = 40;
/// Keys that change before the first snapshot.
const CHANGED: u64 = 1_000;

pub(super) fn run(options: &Options, reporter: &mut Reporter) -> Result<(), BenchError> {
    let bytes = options.pick(4 << 30, 32 << 20);
    let keys = bytes / RECORD_BYTES;
    let scratch = Scratch::new("restore")?;
    let manifest = write(&scratch, keys)?;
    let probe = Probe::write(scratch.path(), options.pick(2 << 30, 32 << 20))?;
    let gib = f64::from(1 << 30);
    let (mut ours, mut peer, mut disk) = (Vec::new(), Vec::new(), Vec::new());
    let mut written = 0;
    for round in 0..options.pick(3, 1) {
        // Records, and index.
        drop(memory::touch((bytes + bytes / 2) as usize)?);
        let start = Instant::now();
        let directory = scratch.path().join(format!("restored-{round}"));
        let files = FileOptions { directory: directory.clone(), store: 2, ..disk::files(&scratch) };
        let mut store = Store::restore(
            StoreOptions { files: Some(files), ..StoreOptions::new() },
            Arc::new(OsDisk::default()),
            std::slice::from_ref(&manifest),
        )?;
        let state = store.open::<u64, Value>(name(), Vec::new())?;
        let mut table = store.table::<u64, Value>(state, WHOLE);
        ours.push((keys * RECORD_BYTES) as f64 / start.elapsed().as_secs_f64() / gib);
        counted::check("restore", &mut table, keys, keys)?;
        for key in 0..CHANGED.min(keys) {
            table.put(KeyView { hash: hash_bits(key), bytes: &[] }, &[key; 4]);
        }
        written = snapshot(&mut store, &mut table)?.1;
        drop((table, store));
        std::fs::remove_dir_all(directory)?;
        drop(memory::touch(probe.bytes() as usize)?);
        peer.push(probe.read_rate_into_new_memory()? / gib);
        disk.push(probe.read_rate()? / gib);
    }
    let versus = Versus { ours: Rounds::from(ours), peer: Rounds::from(peer) };
    let line =
        Line::new("state", "restore", options.cores).versus(&versus, "GiB/s", "a file into new memory");
    reporter.print(&line.over(keys, None))?;
    let line = |row, value, unit| Line::new("state", row, options.cores).rounds(&Rounds::from(value), unit);
    reporter.print(&line("restore-disk", disk, "GiB/s"))?;
    let first = vec![written as f64 / f64::from(1 << 20)];
    reporter.print(&line("restore-first-snapshot", first, "MiB").over(CHANGED, None))
}

/// Makes the snapshot; nothing of it stays in memory.
fn write(scratch: &Scratch, keys: u64) -> Result<PathBuf, BenchError> {
    let mut table =
        Table::with_options(StoreOptions { files: Some(disk::files(scratch)), ..StoreOptions::new() }, keys)?;
    Ok(snapshot(&mut table.bed.store, &mut table.table)?.0)
}

/// Takes a snapshot: its manifest, and how many bytes were written.
fn snapshot(store: &mut Store, table: &mut LogTable<u64, Value>) -> Result<(PathBuf, u64), BenchError> {
    let mut sealing = store.begin_seal();
    table.seal(sealing.sealed());
    store.snapshot(1, sealing)?;
    match store.wait_for_snapshot()? {
        SnapshotEvent::Done { manifest, bytes_written, .. } => Ok((manifest, bytes_written)),
        SnapshotEvent::Failed { error, .. } => Err(error.into()),
        SnapshotEvent::Exported { .. } => unreachable!("nothing is exported"),
    }
}
