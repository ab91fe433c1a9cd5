//! Which events and which of their texts a query reads, as bits of one constant.
//!
//! A generator takes the selection as a const parameter, so what is left out costs nothing: text is empty,
//! numbers that nobody reads are not computed, and events of other kinds are jumped over. A selected
//! field has the same value under every selection.

/// Persons, with their numbers.
pub const PERSON: u32 = 1 << 0;
/// A person's name.
pub const PERSON_NAME: u32 = 1 << 1;
/// A person's email address.
pub const PERSON_EMAIL: u32 = 1 << 2;
/// A person's credit card.
pub const PERSON_CARD: u32 = 1 << 3;
/// A person's city and state.
pub const PERSON_PLACE: u32 = 1 << 4;
/// A person's padding.
pub const PERSON_EXTRA: u32 = 1 << 5;
/// Auctions, with their numbers.
pub const AUCTION: u32 = 1 << 8;
/// An auction's item name.
pub const AUCTION_ITEM: u32 = 1 << 9;
/// An auction's description.
pub const AUCTION_DESCRIPTION: u32 = 1 << 10;
/// An auction's padding.
pub const AUCTION_EXTRA: u32 = 1 << 11;
/// Bids, with their numbers.
pub const BID: u32 = 1 << 16;
/// A bid's channel.
pub const BID_CHANNEL: u32 = 1 << 17;
/// A bid's url.
pub const BID_URL: u32 = 1 << 18;
/// A bid's padding.
pub const BID_EXTRA: u32 = 1 << 19;

/// All that a person has.
pub const WHOLE_PERSON: u32 = PERSON | PERSON_NAME | PERSON_EMAIL | PERSON_CARD | PERSON_PLACE | PERSON_EXTRA;
/// All that an auction has.
pub const WHOLE_AUCTION: u32 = AUCTION | AUCTION_ITEM | AUCTION_DESCRIPTION | AUCTION_EXTRA;
/// All that a bid has.
pub const WHOLE_BID: u32 = BID | BID_CHANNEL | BID_URL | BID_EXTRA;
/// Every field of every event.
pub const ALL: u32 = WHOLE_PERSON | WHOLE_AUCTION | WHOLE_BID;

/// What q0 reads.
pub const Q0: u32 = BID | BID_EXTRA;
/// What q1 reads.
pub const Q1: u32 = BID | BID_EXTRA;
/// What q2 reads.
pub const Q2: u32 = BID;
/// What q5 reads.
pub const Q5: u32 = BID;
/// What q8 reads.
pub const Q8: u32 = PERSON | PERSON_NAME | AUCTION;
