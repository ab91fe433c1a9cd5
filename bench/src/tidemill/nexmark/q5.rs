//! q5: the auctions with most bids in windows of 10 s that start each 2 s.

use std::time::Duration;

use ::tidemill::prelude::*;

use super::Job;
use crate::{
    error::BenchError,
    nexmark::{Answer, EventRef, HOT_ITEMS_SIZE_MS, HOT_ITEMS_SLIDE_MS, HotItem, WATERMARK_DELAY_MS, fields},
    peers::QueryRun,
    tidemill::{environment_with, timed_with_metrics},
};

/// A bid, as far as q5 reads it.
#[derive(Record, Clone)]
struct Bid {
    auction: i64,
    date_time: i64,
}

#[inline(always)]
fn bid(event: EventRef<'static>) -> Option<Bid> {
    let EventRef::Bid(bid) = event else { return None };
    Some(Bid { auction: bid.auction, date_time: bid.date_time })
}

/// The bids of one auction in one window.
#[derive(Record, Clone)]
struct Bids {
    window_start: i64,
    auction: i64,
    bids: u64,
}

impl From<WindowResult<i64, u64>> for Bids {
    fn from(counted: WindowResult<i64, u64>) -> Self {
        Self { window_start: counted.window.start, auction: counted.key, bids: counted.value }
    }
}

/// Keeps the auctions with most bids, all of them when there are several.
#[derive(Clone)]
struct MostBids;

impl AggregateFunction<Bids> for MostBids {
    /// The most bids, and the auctions that have as many.
    type Accumulator = (u64, Vec<i64>);
    type Output = (u64, Vec<i64>);

    fn create(&self) -> (u64, Vec<i64>) {
        (0, Vec::new())
    }

    fn add(&self, best: &mut (u64, Vec<i64>), counted: &Archived<Bids>) {
        let bids = counted.bids.to_native();
        if bids > best.0 {
            best.0 = bids;
            best.1.clear();
        }
        if bids == best.0 {
            best.1.push(counted.auction.to_native());
        }
    }

    fn merge(&self, into: &mut (u64, Vec<i64>), other: &(u64, Vec<i64>)) {
        if other.0 > into.0 {
            *into = other.clone();
        } else if other.0 == into.0 {
            into.1.extend_from_slice(&other.1);
        }
    }

    fn result(&self, best: &(u64, Vec<i64>)) -> (u64, Vec<i64>) {
        best.clone()
    }
}

/// Runs it; how many checkpoints were completed.
pub(super) fn run(job: Job, checkpoints: Option<CheckpointConfig>) -> Result<(QueryRun, u64), BenchError> {
    let env = environment_with(job.cores, checkpoints);
    let (sink, rows) = CollectSink::new();
    let size = Duration::from_millis(HOT_ITEMS_SIZE_MS as u64);
    let slide = Duration::from_millis(HOT_ITEMS_SLIDE_MS as u64);
    let delay = Duration::from_millis(WATERMARK_DELAY_MS as u64);
    let strategy =
        WatermarkStrategy::for_bounded_out_of_orderness(delay).with_timestamps(|bid: &Bid| bid.date_time);
    job.source::<{ fields::Q5 }, _, _, _>(&env, bid, strategy)
        .combine_by(|bid| bid.auction)
        .window(SlidingEventTime::of(size, slide))
        .aggregate(Count)
        .map(Bids::from)
        // The results of one window have one time, its last millisecond: a tumbling window of the slide's size holds
        // them and nothing else.
        .combine_by(|counted| counted.window_start)
        .window(TumblingEventTime::of(slide))
        .aggregate(MostBids)
        .flat_map(|best| {
            let (window_start, (bids, auctions)) = (best.key, best.value);
            auctions.into_iter().map(move |auction| HotItem { window_start, auction, bids })
        })
        .sink("hot items", sink);
    let (elapsed, metrics) = timed_with_metrics(env)?;
    Ok((QueryRun { answer: Answer::hot_items(rows.take()), elapsed }, metrics.checkpoints.completed))
}
