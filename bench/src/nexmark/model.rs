//! The three events of the auction, owned: what a program would declare for itself.

use ::tidemill::Record;

/// Someone who joined the auction.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Person {
    /// Number of the person, from 1000.
    pub id: i64,
    /// First and last name.
    pub name: String,
    /// Where to write to.
    pub email_address: String,
    /// Four groups of four digits.
    pub credit_card: String,
    /// One of ten cities.
    pub city: String,
    /// One of six states, two upper-case letters.
    pub state: String,
    /// Event time, milliseconds since 1970.
    pub date_time: i64,
    /// Padding to the mean size.
    pub extra: String,
}

/// An item put up for sale.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Auction {
    /// Number of the auction, from 1000.
    pub id: i64,
    /// At most 20 bytes.
    pub item_name: String,
    /// At most 100 bytes.
    pub description: String,
    /// Lowest first bid.
    pub initial_bid: i64,
    /// Lowest price at which the item is sold.
    pub reserve: i64,
    /// Event time, milliseconds since 1970.
    pub date_time: i64,
    /// When bidding ends, milliseconds since 1970.
    pub expires: i64,
    /// The person who sells.
    pub seller: i64,
    /// One of five categories, from 10.
    pub category: i64,
    /// Padding to the mean size.
    pub extra: String,
}

/// A price offered in an auction.
#[derive(Record, Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Bid {
    /// The auction that is bid in; it may lie a little ahead of the newest one.
    pub auction: i64,
    /// The person who bids; may lie a little ahead of the newest one.
    pub bidder: i64,
    /// The price, in cents.
    pub price: i64,
    /// Where the bidder came from.
    pub channel: String,
    /// The channel's address.
    pub url: String,
    /// Event time, milliseconds since 1970.
    pub date_time: i64,
    /// Padding to the mean size.
    pub extra: String,
}

/// One event of the auction.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Event {
    /// A person joined.
    Person(Person),
    /// An auction opened.
    Auction(Auction),
    /// A bid was made.
    Bid(Bid),
}
