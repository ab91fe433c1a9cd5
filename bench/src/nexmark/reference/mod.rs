//! The queries once more, slow and obvious: what every engine's answer is held against.
//!
//! Each reads the events in order, keeps everything in plain maps, and knows nothing of watermarks: at
//! the end of a bounded input every window has closed and holds all its events.

mod q0;
mod q1;
mod q2;
mod q5;
mod q8;

use super::{Answer, Config, EventRef, Generator, Query, Split, fields};

/// The answer of `query` over events `0..events` of the stream.
pub fn answer(query: Query, config: Config, events: u64) -> Answer {
    let stream = Generator::<{ fields::ALL }>::new(config, Split::whole(0..events));
    answer_over(query, stream)
}

/// The answer of `query` over any events, in any order.
pub fn answer_over<'a>(query: Query, events: impl Iterator<Item = EventRef<'a>>) -> Answer {
    match query {
        Query::Q0 => q0::answer(events),
        Query::Q1 => q1::answer(events),
        Query::Q2 => q2::answer(events),
        Query::Q5 => q5::answer(events),
        Query::Q8 => q8::answer(events),
    }
}

#[cfg(test)]
mod samples {
    //! Events made by hand.

    use crate::nexmark::{AuctionRef, BidRef, EventRef, PersonRef};

    pub(super) fn bid(auction: i64, price: i64, date_time: i64) -> EventRef<'static> {
        let (channel, url, extra) = ("Apple", "https://www.nexmark.com/a/b/c/item.htm?query=1", "padding");
        EventRef::Bid(BidRef { auction, bidder: 7, price, channel, url, date_time, extra })
    }

    pub(super) fn person(id: i64, name: &'static str, date_time: i64) -> EventRef<'static> {
        EventRef::Person(PersonRef {
            id,
            name,
            email_address: "",
            credit_card: "",
            city: "",
            state: "",
            date_time,
            extra: "",
        })
    }

    pub(super) fn auction(seller: i64, date_time: i64) -> EventRef<'static> {
        EventRef::Auction(AuctionRef {
            id: 1,
            item_name: "",
            description: "",
            initial_bid: 1,
            reserve: 2,
            date_time,
            expires: date_time + 1,
            seller,
            category: 10,
            extra: "",
        })
    }
}
