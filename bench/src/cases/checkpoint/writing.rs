//! `count-writing`: what writing alone takes from a count that leaves its cores no time: the count without checkpoints, beside a
//! thread per core that writes segments as a store's writer does, as fast as it is let, against the count alone.
//!
//! Whatever a store does, what its keys have become has to be written. So no count with checkpoints that keep these writers busy
//! comes nearer to one without than this row.

use std::{
    sync::{
        Arc, Barrier,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Instant,
};

use tidemill::storage::{
    background::stand_far_back,
    log::seal::{BlockId, TableId},
    snapshot::{
        disk::{Disk, os::OsDisk},
        format::segment::{Contents, SegmentId},
        segment::{self, Extent},
    },
};

use super::count::Count;
use crate::{
    cases::{Options, scratch::Scratch},
    error::BenchError,
    report::{Line, Reporter},
    versus::Rounds,
};

/// Bytes of one segment.
const SEGMENT_BYTES: usize = 8 << 20;
/// Bytes of one extent: about a block.
const EXTENT_BYTES: usize = 256 << 10;

pub(super) fn run(options: &Options, reporter: &mut Reporter) -> Result<(), BenchError> {
    let (count, rounds) = Count::<1>::of_cost(options);
    // Of each thread; far more than the caches hold, as state is.
    let segments = options.pick(32, 2);
    let mut written = Vec::new();
    let beside_writers = || {
        let writers = Writers::start(options.cores, segments)?;
        let (took, _) = count.run(None)?;
        written.push(writers.stop()?);
        Ok(took)
    };
    count.compare("count-writing", rounds, beside_writers, "writing nothing", reporter)?;
    let rate = Rounds::from(written).median();
    reporter.print(&Line::new("checkpoint", "count-writing-rate", options.cores).value(rate / 1e6, "MB/s"))
}

/// The threads that write.
struct Writers {
    enough: Arc<AtomicBool>,
    began: Instant,
    threads: Vec<JoinHandle<Result<u64, BenchError>>>,
}

impl Writers {
    /// Starts so many, and waits until each has its data in memory.
    fn start(threads: usize, segments: usize) -> Result<Self, BenchError> {
        let (enough, ready) = (Arc::new(AtomicBool::new(false)), Arc::new(Barrier::new(threads + 1)));
        let scratches: Vec<_> = (0..threads)
            .map(|at| Scratch::new(&format!("count-writing-{at}")))
            .collect::<Result<_, BenchError>>()?;
        let threads = scratches
            .into_iter()
            .map(|scratch| {
                let (enough, ready) = (Arc::clone(&enough), Arc::clone(&ready));
                thread::spawn(move || {
                    stand_far_back();
                    let data = vec![1; segments * SEGMENT_BYTES];
                    ready.wait();
                    write(&scratch, &data, &enough)
                })
            })
            .collect();
        ready.wait();
        Ok(Self { enough, began: Instant::now(), threads })
    }

    /// Stops them; the bytes that all of them have written in a second.
    fn stop(self) -> Result<f64, BenchError> {
        let seconds = self.began.elapsed().as_secs_f64();
        self.enough.store(true, Ordering::Relaxed);
        let mut bytes = 0;
        for thread in self.threads {
            bytes += thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        }
        Ok(bytes as f64 / seconds)
    }
}

/// Writes one segment after another until it is enough; how many bytes they were.
fn write(scratch: &Scratch, data: &[u8], enough: &AtomicBool) -> Result<u64, BenchError> {
    let disk = OsDisk::default();
    let (mut bytes, mut number) = (0, 0);
    let mut segments = data.chunks(SEGMENT_BYTES).cycle();
    while let Some(segment) = segments.next()
        && !enough.load(Ordering::Relaxed)
    {
        let contents = Contents::Records { block: BlockId(1), from: 0 };
        let extent = |bytes| Extent { seal: 1, table: TableId(1), contents, bytes };
        let extents: Vec<_> = segment.chunks(EXTENT_BYTES).map(extent).collect();
        let written = segment::write(&disk, scratch.path(), SegmentId { store: 1, number }, &extents)?;
        disk.remove(&written.file)?;
        bytes += segment.len() as u64;
        number += 1;
    }
    Ok(bytes)
}
