//! The exchange of a bid with three strings: archived once and read in place, against owned structs over the same ring.

use std::{
    hint,
    ops::Range,
    thread,
    time::{Duration, Instant},
};

use ::tidemill::prelude::*;
use rtrb::{Consumer, Producer, PushError, RingBuffer};

use super::{environment, sums::ChecksumSink, timed};
use crate::{
    error::BenchError,
    nexmark::{Bid, BidRef, Checksum, Config, Events, fields},
};

/// What the other side is called in reports.
pub const OWNED: &str = "owned structs over the same ring";

/// Bids that are made beforehand and sent again and again: making them is not what is measured.
const DIFFERENT_BIDS: usize = 4_096;

/// Records that move together between two cores, on the owned side.
const BATCH: usize = 1_024;

/// Batches under way between two cores, on the owned side: as many as in a channel of ours.
const RING_BATCHES: usize = 8;

/// The bids that both sides send, as views of text that lives for ever.
fn bids() -> Vec<BidRef<'static>> {
    let events = Events::<{ fields::ALL }>::new(Config::default());
    (0..).filter(|n| n % 50 >= 4).take(DIFFERENT_BIDS).map(|n| events.bid(n)).collect()
}

/// Sends `records` bids between `cores` workers by auction, and counts them where they arrive.
///
/// # Errors
/// [`BenchError::Peer`] when the job fails, [`BenchError::WrongAnswer`] when bids or bytes of them are missing.
pub fn archived(records: u64, cores: usize) -> Result<Duration, BenchError> {
    let env = environment(cores);
    let (sink, total) = ChecksumSink::new(|bytes: &u64| *bytes);
    env.from_source(
        "bids",
        from_parallel_iter(move |subtask, parallelism| {
            let bids = bids();
            share(records, subtask as u64, parallelism as u64).map(move |n| bids[n as usize % DIFFERENT_BIDS])
        }),
        WatermarkStrategy::none(),
    )
    .ship_as::<Bid>()
    .partition_custom(|bid, cores| bid.auction as usize % cores)
    .map(|bid| text_bytes(&bid.channel, &bid.url, &bid.extra))
    .sink("bytes", sink);
    let elapsed = timed(env)?;
    check(records, cores as u64, total.get())?;
    Ok(elapsed)
}

/// The same with owned bids, moved in batches over the same kind of ring and dropped where they arrive: each core
/// makes bids for all, and takes what is for it.
///
/// # Errors
/// [`BenchError::WrongAnswer`] when bids or bytes of them are missing.
pub fn owned(records: u64, cores: usize) -> Result<Duration, BenchError> {
    let mut producers: Vec<Vec<Producer<Vec<Bid>>>> = Vec::new();
    let mut consumers: Vec<Vec<Consumer<Vec<Bid>>>> = (0..cores).map(|_| Vec::new()).collect();
    for _ in 0..cores {
        let rings = consumers.iter_mut().map(|to| {
            let (producer, consumer) = RingBuffer::new(RING_BATCHES);
            to.push(consumer);
            producer
        });
        producers.push(rings.collect());
    }
    let start = Instant::now();
    let sums: Vec<Checksum> = thread::scope(|scope| {
        let workers: Vec<_> = producers
            .into_iter()
            .zip(consumers)
            .enumerate()
            .map(|(index, (to, from))| {
                scope.spawn(move || OwnedWorker::new(records, index, cores, to, from).run())
            })
            .collect();
        workers
            .into_iter()
            .map(|worker| match worker.join() {
                Ok(sum) => sum,
                Err(panic) => std::panic::resume_unwind(panic),
            })
            .collect()
    });
    let elapsed = start.elapsed();
    let mut total = Checksum::default();
    sums.into_iter().for_each(|sum| total.merge(sum));
    check(records, cores as u64, total)?;
    Ok(elapsed)
}

/// One core of the owned side.
struct OwnedWorker {
    bids: Vec<BidRef<'static>>,
    numbers: Range<u64>,
    to: Vec<Producer<Vec<Bid>>>,
    from: Vec<Consumer<Vec<Bid>>>,
    open: Vec<Vec<Bid>>,
    sum: Checksum,
}

impl OwnedWorker {
    fn new(
        records: u64,
        index: usize,
        cores: usize,
        to: Vec<Producer<Vec<Bid>>>,
        from: Vec<Consumer<Vec<Bid>>>,
    ) -> Self {
        // Pinned as our own workers are.
        if let Some(core) =
            core_affinity::get_core_ids().and_then(|ids| ids.get(index % ids.len().max(1)).copied())
        {
            core_affinity::set_for_current(core);
        }
        let open = (0..cores).map(|_| Vec::with_capacity(BATCH)).collect();
        let numbers = share(records, index as u64, cores as u64);
        Self { bids: bids(), numbers, to, from, open, sum: Checksum::default() }
    }

    fn run(mut self) -> Checksum {
        while let Some(n) = self.numbers.next() {
            let bid = self.bids[n as usize % DIFFERENT_BIDS].to_owned();
            let target = bid.auction as usize % self.open.len();
            self.open[target].push(bid);
            if self.open[target].len() == BATCH {
                self.send(target);
            }
        }
        (0..self.open.len()).for_each(|target| self.send(target));
        self.to.clear();
        while self.from.iter().any(|from| !from.is_abandoned() || !from.is_empty()) {
            self.receive();
        }
        self.sum
    }

    fn send(&mut self, target: usize) {
        let mut batch = std::mem::replace(&mut self.open[target], Vec::with_capacity(BATCH));
        while let Err(PushError::Full(refused)) = self.to[target].push(batch) {
            batch = refused;
            self.receive();
        }
    }

    fn receive(&mut self) {
        for from in &mut self.from {
            while let Ok(batch) = from.pop() {
                for bid in batch {
                    self.sum.add(text_bytes(&bid.channel, &bid.url, &bid.extra));
                }
            }
        }
        hint::spin_loop();
    }
}

fn share(records: u64, index: u64, of: u64) -> Range<u64> {
    records * index / of..records * (index + 1) / of
}

/// Reads all three strings, as far as to know how long they are.
#[inline(always)]
fn text_bytes(channel: &str, url: &str, extra: &str) -> u64 {
    (channel.len() + url.len() + extra.len()) as u64
}

fn check(records: u64, cores: u64, total: Checksum) -> Result<(), BenchError> {
    let lengths: Vec<u64> = bids().iter().map(|bid| text_bytes(bid.channel, bid.url, bid.extra)).collect();
    let sum = (0..cores)
        .flat_map(|index| share(records, index, cores))
        .fold(0_u64, |sum, n| sum.wrapping_add(lengths[n as usize % DIFFERENT_BIDS]));
    let expected = Checksum { rows: records, sum };
    if total == expected {
        return Ok(());
    }
    Err(BenchError::WrongAnswer {
        side: "one side".to_owned(),
        query: "bid exchange".to_owned(),
        difference: format!("{total:?} instead of {expected:?}"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_sides_count_every_bid_and_byte() {
        for cores in [1, 2, 3] {
            archived(50_000, cores).unwrap();
            owned(50_000, cores).unwrap();
        }
    }
}
