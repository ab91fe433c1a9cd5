//! q5: the auctions with most bids in windows of 10 s that start each 2 s.
//!
//! Every replica counts its own bids per auction and slide; these counts are exchanged by auction and summed
//! per window, so that far fewer records cross than if the bids did. Of each window every replica keeps
//! only its best auctions, and one last replica takes the best of these, as in Renoir's own q7.

use renoir::operator::StreamElement;
use serde::{Deserialize, Serialize};

use super::{Job, aligned_window::AlignedWindow, source};
use crate::{
    error::BenchError,
    nexmark::{Answer, EventRef, HOT_ITEMS_SIZE_MS, HOT_ITEMS_SLIDE_MS, HotItem, fields},
    peers::QueryRun,
};

/// A bid, as far as q5 reads it.
#[derive(Clone)]
struct Bid {
    auction: i64,
    date_time: i64,
}

impl Bid {
    fn from_event(event: EventRef<'static>) -> Option<Self> {
        match event {
            EventRef::Bid(bid) => Some(Self { auction: bid.auction, date_time: bid.date_time }),
            _ => None,
        }
    }
}

/// The best auctions of one window so far.
#[derive(Clone, Default, Serialize, Deserialize)]
struct Best {
    window_end: i64,
    bids: u64,
    auctions: Vec<i64>,
}

impl Best {
    fn offer(&mut self, window_end: i64, bids: u64, auctions: &[i64]) {
        if bids > self.bids {
            *self = Self { window_end, bids, auctions: Vec::new() };
        }
        if bids == self.bids {
            self.auctions.extend_from_slice(auctions);
        }
    }

    fn rows(self) -> impl Iterator<Item = HotItem> {
        let Self { window_end, bids, auctions } = self;
        let window_start = window_end - HOT_ITEMS_SIZE_MS;
        auctions.into_iter().map(move |auction| HotItem { window_start, auction, bids })
    }
}

pub(super) fn run(job: Job) -> Result<QueryRun, BenchError> {
    // Results of one window share one time, its end, which no other window of this size contains.
    let one_result_time = AlignedWindow::tumbling(HOT_ITEMS_SLIDE_MS);
    let (rows, elapsed) = job.execute(|context| {
        source::events::<{ fields::Q5 }, _, _>(context, job, Bid::from_event)
            .add_timestamps(|bid| bid.date_time, source::watermarks(HOT_ITEMS_SLIDE_MS))
            .map(|bid| bid.auction)
            .key_by(|&auction| auction)
            .window(AlignedWindow::tumbling(HOT_ITEMS_SLIDE_MS))
            .count()
            .unkey()
            .group_by(|&(auction, _)| auction)
            .window(AlignedWindow::sliding(HOT_ITEMS_SIZE_MS, HOT_ITEMS_SLIDE_MS))
            .fold(0, |sum, &(_, bids): &(i64, usize)| *sum += bids as u64)
            .unkey()
            .rich_map_custom(|mut counts| match counts.next() {
                // A slide's count has the time of the slide's end, so all windows close one slide late.
                StreamElement::Timestamped((auction, bids), end) => {
                    StreamElement::Timestamped((end - HOT_ITEMS_SLIDE_MS, auction, bids), end)
                }
                other => other.map(|_| unreachable!("a window's result has a time")),
            })
            .key_by(|_| ())
            .window(one_result_time)
            .fold(Best::default(), |best, &(end, auction, bids)| best.offer(end, bids, &[auction]))
            .drop_key()
            .window_all(one_result_time)
            .fold(Best::default(), |best, part: &Best| best.offer(part.window_end, part.bids, &part.auctions))
            .drop_key()
            .flat_map(|best| best.rows().collect::<Vec<_>>())
            .collect_vec()
    })?;
    Ok(QueryRun { answer: Answer::hot_items(rows), elapsed })
}
