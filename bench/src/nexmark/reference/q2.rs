//! q2: auction and price of bids in every 123rd auction.

use crate::nexmark::{Answer, Checksum, EventRef, q2_row};

pub(super) fn answer<'a>(events: impl Iterator<Item = EventRef<'a>>) -> Answer {
    let mut rows = Checksum::default();
    for event in events {
        if let EventRef::Bid(bid) = event
            && bid.auction % 123 == 0
        {
            rows.add(q2_row(bid.auction, bid.price));
        }
    }
    Answer::Rows(rows)
}

#[cfg(test)]
mod tests {
    use super::{super::samples::*, *};

    #[test]
    fn only_multiples_of_123_are_kept() {
        let mut expected = Checksum::default();
        expected.add(q2_row(1230, 5));
        expected.add(q2_row(123, 6));
        let events = [bid(1230, 5, 0), bid(1231, 5, 0), bid(122, 5, 0), bid(123, 6, 1)];
        assert_eq!(answer(events.into_iter()), Answer::Rows(expected));
    }
}
