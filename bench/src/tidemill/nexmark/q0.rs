//! q0: every bid.

use super::Job;
use crate::{
    error::BenchError,
    nexmark::{Answer, EventRef, fields, q0_row},
    peers::QueryRun,
    tidemill::{environment, sums::ChecksumSink, timed},
};

/// A bid, as far as q0 and q1 read it.
pub(super) struct BidView {
    pub(super) auction: i64,
    pub(super) bidder: i64,
    pub(super) price: i64,
    pub(super) date_time: i64,
    pub(super) extra: &'static str,
}

impl BidView {
    #[inline(always)]
    pub(super) fn from_event(event: EventRef<'static>) -> Option<Self> {
        let EventRef::Bid(bid) = event else { return None };
        Some(Self {
            auction: bid.auction,
            bidder: bid.bidder,
            price: bid.price,
            date_time: bid.date_time,
            extra: bid.extra,
        })
    }
}

pub(super) fn run(job: Job) -> Result<QueryRun, BenchError> {
    let env = environment(job.cores);
    let (sink, total) = ChecksumSink::new(|bid: &BidView| {
        q0_row(bid.auction, bid.bidder, bid.price, bid.date_time, bid.extra)
    });
    job.numbered::<{ fields::Q0 }, _, _>(&env, BidView::from_event).sink("bids", sink);
    let elapsed = timed(env)?;
    Ok(QueryRun { answer: Answer::Rows(total.get()), elapsed })
}
