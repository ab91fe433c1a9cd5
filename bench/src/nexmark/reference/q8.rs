//! q8: persons who joined and opened an auction in the same window of 10 s, once per person and window.

use std::collections::BTreeSet;

use crate::nexmark::{Answer, EventRef, NEW_USERS_SIZE_MS, NewUser};

pub(super) fn answer<'a>(events: impl Iterator<Item = EventRef<'a>>) -> Answer {
    let window = |time: i64| time - time.rem_euclid(NEW_USERS_SIZE_MS);
    let mut joined = BTreeSet::new();
    let mut sellers = BTreeSet::new();
    for event in events {
        match event {
            EventRef::Person(person) => {
                joined.insert((person.id, person.name.to_owned(), window(person.date_time)));
            }
            EventRef::Auction(auction) => {
                sellers.insert((auction.seller, window(auction.date_time)));
            }
            EventRef::Bid(_) => {}
        }
    }
    joined.retain(|&(id, _, window_start)| sellers.contains(&(id, window_start)));
    let row = |(id, name, window_start)| NewUser { id, name, window_start };
    Answer::new_users(joined.into_iter().map(row).collect())
}

#[cfg(test)]
mod tests {
    use super::{super::samples::*, *};

    #[test]
    fn joining_and_selling_must_share_a_window() {
        let events = [
            person(1, "one", 100),
            person(2, "two", 9_999),
            person(3, "three", 500),
            person(4, "four", 25_000),
            auction(4, 20_000),
            auction(1, 9_000),
            auction(1, 9_001),
            auction(2, 10_000),
            auction(9, 600),
        ];
        let row = |id, name: &str, window_start| NewUser { id, name: name.into(), window_start };
        let expected = vec![row(1, "one", 0), row(4, "four", 20_000)];
        assert_eq!(answer(events.into_iter()), Answer::NewUsers(expected));
    }
}
