//! How fast snapshots are written and read: `cargo run --release -p tidemill-storage --example snapshot_speed -- DIR MiB`.
//!
//! Writes one snapshot of this many MiB of 40-byte records, with and without io_uring; a hundred small ones of 100 KiB
//! each; reads the large one back, past the page cache, and verifies it; and says what the checksum alone takes.
#![allow(clippy::unwrap_used)]

use std::{path::PathBuf, sync::Arc, time::Instant};

use tidemill_storage::{
    log::{
        block::Block,
        seal::{BlockId, Layout, Sealed, SealedRange, StateDeclaration, TableDeclaration, TableId},
    },
    snapshot::{
        clean::WASTE_BYTES_MAX,
        disk::{Disk, os::OsDisk},
        format::{PAGE_BYTES, checksum},
        restore::{Parts, Piece},
        verify::verify,
        writer::{Command, Event, StoreSettings, WriterCore},
    },
    state::{StateId, StateName},
};

const BLOCK_BYTES: usize = 256 << 10;
const TABLE: TableId = TableId(1);

fn ranges(first: u64, count: usize, bytes: usize) -> Vec<SealedRange> {
    let block = |i: usize| {
        let records = (0..bytes as u64 / 40).flat_map(|record| [first + i as u64, record, 1, 2, 3]);
        let content: Vec<u8> = records.flat_map(u64::to_le_bytes).collect();
        let to = content.len() as u32;
        let memory = Arc::new(Block::holding(&content));
        SealedRange { table: TABLE, block: BlockId(first + i as u64), memory, from: 0, to }
    };
    (0..count).map(block).collect()
}

fn checksums() {
    let pages = vec![7; 64 << 20];
    let start = Instant::now();
    let sums =
        pages.chunks(PAGE_BYTES).fold(0, |all, page| all ^ u64::from(checksum(page)) << (page[0] & 31));
    let seconds = start.elapsed().as_secs_f64();
    println!("checksums of pages: {:.1} GB/s ({sums:x})", pages.len() as f64 / seconds / 1e9);
}

fn main() {
    checksums();
    checksums();
    let mut arguments = std::env::args().skip(1);
    let root = PathBuf::from(arguments.next().expect("a directory"));
    let mebibytes: usize = arguments.next().map_or(1024, |text| text.parse().unwrap());
    for (name, disk) in [("plain", OsDisk::plain()), ("ring", OsDisk::default())] {
        let directory = root.join(name);
        let disk: Arc<dyn Disk> = Arc::new(disk);
        let settings = StoreSettings {
            directory,
            store: 1,
            key_groups: 0..128,
            max_parallelism: 128,
            waste_bytes_max: WASTE_BYTES_MAX,
        };
        let mut core = WriterCore::open(Arc::clone(&disk), settings).unwrap();
        let state = StateDeclaration {
            id: StateId(0),
            name: StateName::new("speed", "values"),
            keys: "u64".into(),
            values: "[u64; 4]".into(),
            layout: Layout::Stride { stride: 40, value_at: 8, value_len: 32 },
        };
        let sealed = Sealed {
            states: vec![state.clone()],
            tables: vec![TableDeclaration { table: TABLE, state: StateId(0), slice: 0 }],
            ranges: ranges(0, mebibytes * 4, BLOCK_BYTES),
            ..Sealed::default()
        };
        let start = Instant::now();
        let events = core.handle(Command::Snapshot { snapshot: 1, seal: 1, sealed });
        let seconds = start.elapsed().as_secs_f64();
        let Some(Event::SnapshotDone { manifest, bytes_written, .. }) = events.last() else {
            panic!("{events:?}")
        };
        println!("{name}: wrote {:.0} MB/s", *bytes_written as f64 / seconds / 1e6);
        let mut times = Vec::new();
        for snapshot in 2..102 {
            let sealed = Sealed { ranges: ranges(snapshot << 32, 1, 100 << 10), ..Sealed::default() };
            let start = Instant::now();
            core.handle(Command::Snapshot { snapshot, seal: snapshot, sealed });
            times.push(start.elapsed());
        }
        times.sort_unstable();
        println!("{name}: a snapshot of 100 KiB takes {:?} (median), {:?} (worst)", times[50], times[99]);
        for pass in ["first", "second"] {
            let start = Instant::now();
            let parts = Parts::open(Arc::clone(&disk), std::slice::from_ref(manifest), 0..128).unwrap();
            let mut reader = parts.reader(&state.name, 0);
            let mut bytes = 0;
            while let Some(piece) = reader.next_piece().unwrap() {
                let (Piece::Records(piece) | Piece::Removed(piece)) = piece;
                bytes += piece.len();
            }
            let seconds = start.elapsed().as_secs_f64();
            println!("{name}: read and checked {:.0} MB/s, {pass} time", bytes as f64 / seconds / 1e6);
        }
        let start = Instant::now();
        let verified = verify(&*disk, manifest).unwrap();
        println!("{name}: verified {:.0} MB/s", verified.bytes as f64 / start.elapsed().as_secs_f64() / 1e6);
    }
}
