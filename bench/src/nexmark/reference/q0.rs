//! q0: every bid.

use crate::nexmark::{Answer, Checksum, EventRef, q0_row};

pub(super) fn answer<'a>(events: impl Iterator<Item = EventRef<'a>>) -> Answer {
    let mut rows = Checksum::default();
    for event in events {
        if let EventRef::Bid(bid) = event {
            rows.add(q0_row(bid.auction, bid.bidder, bid.price, bid.date_time, bid.extra));
        }
    }
    Answer::Rows(rows)
}

#[cfg(test)]
mod tests {
    use super::{super::samples::*, *};

    #[test]
    fn every_bid_is_a_row() {
        let mut expected = Checksum::default();
        expected.add(q0_row(6, 7, 8, 9, "padding"));
        let events = [person(1, "x", 0), bid(6, 8, 9), auction(1, 0)];
        assert_eq!(answer(events.into_iter()), Answer::Rows(expected));
    }
}
