//! q0: every bid.

use super::{Job, source};
use crate::{
    error::BenchError,
    nexmark::{Answer, Checksum, EventRef, fields, q0_row},
    peers::QueryRun,
};

/// A bid, as far as q0 and q1 read it.
#[derive(Clone)]
pub(super) struct Bid {
    pub(super) auction: i64,
    pub(super) bidder: i64,
    pub(super) price: i64,
    pub(super) date_time: i64,
    pub(super) extra: String,
}

impl Bid {
    pub(super) fn from_event(event: EventRef<'static>) -> Option<Self> {
        let EventRef::Bid(bid) = event else { return None };
        let extra = bid.extra.to_owned();
        Some(Self {
            auction: bid.auction,
            bidder: bid.bidder,
            price: bid.price,
            date_time: bid.date_time,
            extra,
        })
    }
}

pub(super) fn run(job: Job) -> Result<QueryRun, BenchError> {
    let (sums, elapsed) = job.execute(|context| {
        source::events::<{ fields::Q0 }, _, _>(context, job, Bid::from_event)
            .fold_assoc(
                Checksum::default(),
                |sum, bid| sum.add(q0_row(bid.auction, bid.bidder, bid.price, bid.date_time, &bid.extra)),
                Checksum::merge,
            )
            .collect_vec()
    })?;
    Ok(QueryRun { answer: Answer::Rows(total(sums)), elapsed })
}

/// The sum of all parts; there are none when there were no events.
pub(super) fn total(sums: Vec<Checksum>) -> Checksum {
    let mut total = Checksum::default();
    sums.into_iter().for_each(|sum| total.merge(sum));
    total
}
