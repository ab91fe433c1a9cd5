//! q5: in every window of 10 s that starts each 2 s, the auctions with most bids; ties are kept.

use std::collections::{BTreeMap, HashMap};

use crate::nexmark::{Answer, EventRef, HOT_ITEMS_SIZE_MS, HOT_ITEMS_SLIDE_MS, HotItem};

pub(super) fn answer<'a>(events: impl Iterator<Item = EventRef<'a>>) -> Answer {
    let mut windows: BTreeMap<i64, HashMap<i64, u64>> = BTreeMap::new();
    for event in events {
        if let EventRef::Bid(bid) = event {
            let mut start = bid.date_time - bid.date_time.rem_euclid(HOT_ITEMS_SLIDE_MS);
            while start + HOT_ITEMS_SIZE_MS > bid.date_time {
                *windows.entry(start).or_default().entry(bid.auction).or_default() += 1;
                start -= HOT_ITEMS_SLIDE_MS;
            }
        }
    }
    let mut rows = Vec::new();
    for (window_start, auctions) in windows {
        let most = auctions.values().copied().max().unwrap_or_default();
        let winners = auctions.into_iter().filter(|&(_, bids)| bids == most);
        rows.extend(winners.map(|(auction, bids)| HotItem { window_start, auction, bids }));
    }
    Answer::hot_items(rows)
}

#[cfg(test)]
mod tests {
    use super::{super::samples::*, *};

    #[test]
    fn windows_hop_and_ties_are_kept() {
        // Auction 1 twice at 0..2 s, auction 2 twice around 3 s, auction 3 once at 12 s.
        let events = [bid(1, 9, 0), bid(1, 9, 1_999), bid(2, 9, 3_000), bid(2, 9, 3_999), bid(3, 9, 12_000)];
        let row = |window_start, auction, bids| HotItem { window_start, auction, bids };
        let expected = vec![
            row(-8_000, 1, 2),
            row(-6_000, 1, 2),
            row(-6_000, 2, 2),
            row(-4_000, 1, 2),
            row(-4_000, 2, 2),
            row(-2_000, 1, 2),
            row(-2_000, 2, 2),
            row(0, 1, 2),
            row(0, 2, 2),
            row(2_000, 2, 2),
            row(4_000, 3, 1),
            row(6_000, 3, 1),
            row(8_000, 3, 1),
            row(10_000, 3, 1),
            row(12_000, 3, 1),
        ];
        assert_eq!(answer(events.into_iter()), Answer::HotItems(expected));
    }
}
