//! q1: every bid, its price times 0.908, in thousandths so that it is exact.

use crate::nexmark::{Answer, Checksum, EventRef, q1_row};

pub(super) fn answer<'a>(events: impl Iterator<Item = EventRef<'a>>) -> Answer {
    let mut rows = Checksum::default();
    for event in events {
        if let EventRef::Bid(bid) = event {
            rows.add(q1_row(bid.auction, bid.bidder, bid.price * 908, bid.date_time, bid.extra));
        }
    }
    Answer::Rows(rows)
}

#[cfg(test)]
mod tests {
    use super::{super::samples::*, *};

    #[test]
    fn a_price_of_1000_becomes_908() {
        let mut expected = Checksum::default();
        expected.add(q1_row(6, 7, 908_000, 9, "padding"));
        assert_eq!(answer([bid(6, 1000, 9)].into_iter()), Answer::Rows(expected));
    }
}
