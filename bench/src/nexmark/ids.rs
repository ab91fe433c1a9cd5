//! Which kind event `n` is, and whom events refer to: the benchmark's proportions and skew.
//!
//! Of every 50 consecutive event numbers the first is a person, the next 3 are auctions, the rest bids.
//! Numbers of persons and auctions count from 1000 in the stream and from 0 in here.

use std::hint::select_unpredictable;

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

/// The id of the person that event `n` brings.
#[inline]
pub(super) fn person_id(n: u64) -> i64 {
    FIRST_ID + newest_person(n) as i64
}

/// The id of the auction that event `n` opens.
#[inline]
pub(super) fn auction_id(n: u64) -> i64 {
    FIRST_ID + (n / EPOCH_EVENTS * AUCTIONS_PER_EPOCH + n % EPOCH_EVENTS - PERSONS_PER_EPOCH) as i64
}

/// Whom the bids of one epoch may refer to: the same for all of them, for no person joins and no auction
/// opens between them.
#[derive(Clone, Copy, Debug)]
pub(super) struct BidEpoch {
    hot_auction: i64,
    oldest_auction: i64,
    auctions: u64,
    hot_bidder: i64,
    oldest_bidder: i64,
    bidders: u64,
}

impl BidEpoch {
    /// What bids of epoch `epoch` refer to.
    #[inline]
    pub(super) fn new(epoch: u64) -> Self {
        let newest = epoch * AUCTIONS_PER_EPOCH + AUCTIONS_PER_EPOCH - 1;
        let oldest = newest.saturating_sub(AUCTIONS_IN_FLIGHT);
        let (oldest_bidder, bidders) = active_persons(epoch);
        Self {
            hot_auction: FIRST_ID + (newest / HOT_STRIDE * HOT_STRIDE) as i64,
            oldest_auction: FIRST_ID + oldest as i64,
            auctions: newest - oldest + 1 + LEAD,
            hot_bidder: FIRST_ID + (epoch / HOT_STRIDE * HOT_STRIDE) as i64 + 1,
            oldest_bidder: FIRST_ID + oldest_bidder as i64,
            bidders,
        }
    }

    /// The auction that a bid goes to. What is hot is a toss, so neither choice is worth a guess.
    #[inline]
    pub(super) fn auction(&self, hot: bool, random: u32) -> i64 {
        let cold = self.oldest_auction + below(random, self.auctions) as i64;
        select_unpredictable(hot, self.hot_auction, cold)
    }

    /// The person who makes a bid.
    #[inline]
    pub(super) fn bidder(&self, hot: bool, random: u32) -> i64 {
        let cold = self.oldest_bidder + below(random, self.bidders) as i64;
        select_unpredictable(hot, self.hot_bidder, cold)
    }
}

/// The person who opens auction `n`.
#[inline]
pub(super) fn auction_seller(n: u64, hot: bool, random: u32) -> i64 {
    let (oldest, sellers) = active_persons(newest_person(n));
    let hot_seller = newest_person(n) / HOT_STRIDE * HOT_STRIDE;
    FIRST_ID + select_unpredictable(hot, hot_seller, oldest + below(random, sellers)) as i64
}

/// The oldest person who is still active, and how many are, those who are about to join included.
#[inline]
fn active_persons(newest: u64) -> (u64, u64) {
    let persons = newest + 1;
    let active = persons.min(PERSONS_ACTIVE);
    (persons - active, active + LEAD)
}
