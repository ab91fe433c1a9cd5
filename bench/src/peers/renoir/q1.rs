//! q1: every bid, its price times 0.908.

use super::{
    Job,
    q0::{Bid, total},
    source,
};
use crate::{
    error::BenchError,
    nexmark::{Answer, Checksum, fields, q1_row},
    peers::QueryRun,
};

pub(super) fn run(job: Job) -> Result<QueryRun, BenchError> {
    let (sums, elapsed) = job.execute(|context| {
        source::events::<{ fields::Q1 }, _, _>(context, job, Bid::from_event)
            .map(|bid| Bid { price: bid.price * 908, ..bid })
            .fold_assoc(
                Checksum::default(),
                |sum, bid| sum.add(q1_row(bid.auction, bid.bidder, bid.price, bid.date_time, &bid.extra)),
                Checksum::merge,
            )
            .collect_vec()
    })?;
    Ok(QueryRun { answer: Answer::Rows(total(sums)), elapsed })
}
