//! Which kind event `n` is, and whom events refer to: the benchmark's proportions and skew.
//!
//! Of every 50 consecutive event numbers the first is a person, the next 3 are auctions, the rest bids.
//! Numbers of persons and auctions count from 1000 in the stream and from 0 in here.

use super::random::below;

/// Events after which the pattern of kinds repeats.
pub const EPOCH_EVENTS: u64 = 50;
const PERSONS_PER_EPOCH: u64 = 1;
const AUCTIONS_PER_EPOCH: u64 = 3;
const FIRST_ID: i64 = 1000;
/// Every so many persons or auctions another one is hot.
const HOT_STRIDE: u64 = 100;
/// How many of the newest auctions are bid in.
const AUCTIONS_IN_FLIGHT: u64 = 100;
/// How many of the newest persons bid and sell.
const PERSONS_ACTIVE: u64 = 1000;
/// How many that do not exist yet may be referred to.
const LEAD: u64 = 10;

/// Events between the openings of two auctions that are [`AUCTIONS_IN_FLIGHT`] apart.
pub(super) const EVENTS_PER_AUCTION_LIFE: u64 = AUCTIONS_IN_FLIGHT * EPOCH_EVENTS / AUCTIONS_PER_EPOCH;

/// The kind of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// A person joins.
    Person,
    /// An auction opens.
    Auction,
    /// A bid is made.
    Bid,
}

/// The kind of event `n`.
#[inline]
pub const fn kind_of(n: u64) -> Kind {
    match n % EPOCH_EVENTS {
        0 => Kind::Person,
        1..=3 => Kind::Auction,
        _ => Kind::Bid,
    }
}

/// The newest person when event `n` happens, `n` included.
#[inline]
fn newest_person(n: u64) -> u64 {
    n / EPOCH_EVENTS
}

/// The newest auction when event `n`, an auction or a bid, happens, `n` included.
#[inline]
fn newest_auction(n: u64) -> u64 {
    let in_epoch = n % EPOCH_EVENTS;
    debug_assert!(in_epoch >= PERSONS_PER_EPOCH);
    n / EPOCH_EVENTS * AUCTIONS_PER_EPOCH + (in_epoch - PERSONS_PER_EPOCH).min(AUCTIONS_PER_EPOCH - 1)
}

/// The id of the person that event `n` brings.
#[inline]
pub(super) fn person_id(n: u64) -> i64 {
    FIRST_ID + newest_person(n) as i64
}

/// The id of the auction that event `n` opens.
#[inline]
pub(super) fn auction_id(n: u64) -> i64 {
    FIRST_ID + newest_auction(n) as i64
}

/// The auction that bid `n` goes to.
#[inline]
pub(super) fn bid_auction(n: u64, hot: bool, random: u32) -> i64 {
    let newest = newest_auction(n);
    let oldest = newest.saturating_sub(AUCTIONS_IN_FLIGHT);
    let cold = oldest + below(random, newest - oldest + 1 + LEAD);
    FIRST_ID + if hot { newest / HOT_STRIDE * HOT_STRIDE } else { cold } as i64
}

/// The person who makes bid `n`.
#[inline]
pub(super) fn bid_bidder(n: u64, hot: bool, random: u32) -> i64 {
    let hot_bidder = newest_person(n) / HOT_STRIDE * HOT_STRIDE + 1;
    FIRST_ID + if hot { hot_bidder } else { active_person(n, random) } as i64
}

/// The person who opens auction `n`.
#[inline]
pub(super) fn auction_seller(n: u64, hot: bool, random: u32) -> i64 {
    let hot_seller = newest_person(n) / HOT_STRIDE * HOT_STRIDE;
    FIRST_ID + if hot { hot_seller } else { active_person(n, random) } as i64
}

#[inline]
fn active_person(n: u64, random: u32) -> u64 {
    let persons = newest_person(n) + 1;
    let active = persons.min(PERSONS_ACTIVE);
    persons - active + below(random, active + LEAD)
}
