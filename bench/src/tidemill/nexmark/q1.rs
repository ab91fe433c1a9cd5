//! q1: every bid, its price in another currency, in exact thousandths.

use super::{Job, q0::BidView};
use crate::{
    error::BenchError,
    nexmark::{Answer, fields, q1_row},
    peers::QueryRun,
    tidemill::{environment, sums::ChecksumSink, timed},
};

pub(super) fn run(job: Job) -> Result<QueryRun, BenchError> {
    let env = environment(job.cores);
    let (sink, total) = ChecksumSink::new(|bid: &BidView| {
        q1_row(bid.auction, bid.bidder, bid.price, bid.date_time, bid.extra)
    });
    job.numbered::<{ fields::Q1 }, _, _>(&env, BidView::from_event)
        .map(|bid| BidView { price: bid.price * 908, ..bid })
        .sink("bids", sink);
    let elapsed = timed(env)?;
    Ok(QueryRun { answer: Answer::Rows(total.get()), elapsed })
}
