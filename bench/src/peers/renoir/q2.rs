//! q2: auction and price of bids in every 123rd auction.

use super::{Job, q0::total, source};
use crate::{
    error::BenchError,
    nexmark::{Answer, Checksum, EventRef, fields, q2_row},
    peers::QueryRun,
};

/// A bid, as far as q2 reads it.
#[derive(Clone)]
struct Bid {
    auction: i64,
    price: i64,
}

impl Bid {
    fn from_event(event: EventRef<'static>) -> Option<Self> {
        match event {
            EventRef::Bid(bid) => Some(Self { auction: bid.auction, price: bid.price }),
            _ => None,
        }
    }
}

pub(super) fn run(job: Job) -> Result<QueryRun, BenchError> {
    let (sums, elapsed) = job.execute(|context| {
        source::events::<{ fields::Q2 }, _, _>(context, job, Bid::from_event)
            .filter(|bid| bid.auction % 123 == 0)
            .fold_assoc(
                Checksum::default(),
                |sum, bid| sum.add(q2_row(bid.auction, bid.price)),
                Checksum::merge,
            )
            .collect_vec()
    })?;
    Ok(QueryRun { answer: Answer::Rows(total(sums)), elapsed })
}
