//! q2: the bids in every 123rd auction.

use super::Job;
use crate::{
    error::BenchError,
    nexmark::{Answer, EventRef, fields, q2_row},
    peers::QueryRun,
    tidemill::{environment, sums::ChecksumSink, timed},
};

/// A bid, as far as q2 reads it.
struct Bid {
    auction: i64,
    price: i64,
}

#[inline(always)]
fn bid(event: EventRef<'static>) -> Option<Bid> {
    let EventRef::Bid(bid) = event else { return None };
    Some(Bid { auction: bid.auction, price: bid.price })
}

pub(super) fn run(job: Job) -> Result<QueryRun, BenchError> {
    let env = environment(job.cores);
    let (sink, total) = ChecksumSink::new(|bid: &Bid| q2_row(bid.auction, bid.price));
    job.numbered::<{ fields::Q2 }, _, _>(&env, bid).filter(|bid| bid.auction % 123 == 0).sink("bids", sink);
    let elapsed = timed(env)?;
    Ok(QueryRun { answer: Answer::Rows(total.get()), elapsed })
}
