//! The three events as views: numbers by value, text borrowed.
//!
//! The generator hands these out, and allocates nothing. An engine that needs an owned record takes
//! [`EventRef::to_owned`] or picks the fields that it wants.

use ::tidemill::WriteAs;

use super::model::{Auction, Bid, Event, Person};

/// A [`Person`] whose text is borrowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PersonRef<'a> {
    /// See [`Person::id`].
    pub id: i64,
    /// See [`Person::name`].
    pub name: &'a str,
    /// See [`Person::email_address`].
    pub email_address: &'a str,
    /// See [`Person::credit_card`].
    pub credit_card: &'a str,
    /// See [`Person::city`].
    pub city: &'a str,
    /// See [`Person::state`].
    pub state: &'a str,
    /// See [`Person::date_time`].
    pub date_time: i64,
    /// See [`Person::extra`].
    pub extra: &'a str,
}

/// An [`Auction`] whose text is borrowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AuctionRef<'a> {
    /// See [`Auction::id`].
    pub id: i64,
    /// See [`Auction::item_name`].
    pub item_name: &'a str,
    /// See [`Auction::description`].
    pub description: &'a str,
    /// See [`Auction::initial_bid`].
    pub initial_bid: i64,
    /// See [`Auction::reserve`].
    pub reserve: i64,
    /// See [`Auction::date_time`].
    pub date_time: i64,
    /// See [`Auction::expires`].
    pub expires: i64,
    /// See [`Auction::seller`].
    pub seller: i64,
    /// See [`Auction::category`].
    pub category: i64,
    /// See [`Auction::extra`].
    pub extra: &'a str,
}

/// A [`Bid`] whose text is borrowed.
#[derive(WriteAs, Clone, Copy, Debug, PartialEq, Eq)]
#[write_as(Bid)]
pub struct BidRef<'a> {
    /// See [`Bid::auction`].
    pub auction: i64,
    /// See [`Bid::bidder`].
    pub bidder: i64,
    /// See [`Bid::price`].
    pub price: i64,
    /// See [`Bid::channel`].
    pub channel: &'a str,
    /// See [`Bid::url`].
    pub url: &'a str,
    /// See [`Bid::date_time`].
    pub date_time: i64,
    /// See [`Bid::extra`].
    pub extra: &'a str,
}

/// An [`Event`] whose text is borrowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventRef<'a> {
    /// A person joined.
    Person(PersonRef<'a>),
    /// An auction opened.
    Auction(AuctionRef<'a>),
    /// A bid was made.
    Bid(BidRef<'a>),
}

impl PersonRef<'_> {
    /// The same person, owning its text.
    #[inline]
    pub fn to_owned(&self) -> Person {
        Person {
            id: self.id,
            name: self.name.into(),
            email_address: self.email_address.into(),
            credit_card: self.credit_card.into(),
            city: self.city.into(),
            state: self.state.into(),
            date_time: self.date_time,
            extra: self.extra.into(),
        }
    }

    /// The text fields in the order of their declaration.
    #[inline]
    pub fn texts(&self) -> [&str; 6] {
        [self.name, self.email_address, self.credit_card, self.city, self.state, self.extra]
    }
}

impl AuctionRef<'_> {
    /// The same auction, owning its text.
    #[inline]
    pub fn to_owned(&self) -> Auction {
        Auction {
            id: self.id,
            item_name: self.item_name.into(),
            description: self.description.into(),
            initial_bid: self.initial_bid,
            reserve: self.reserve,
            date_time: self.date_time,
            expires: self.expires,
            seller: self.seller,
            category: self.category,
            extra: self.extra.into(),
        }
    }

    /// The text fields in the order of their declaration.
    #[inline]
    pub fn texts(&self) -> [&str; 3] {
        [self.item_name, self.description, self.extra]
    }
}

impl BidRef<'_> {
    /// The same bid, owning its text.
    #[inline]
    pub fn to_owned(&self) -> Bid {
        Bid {
            auction: self.auction,
            bidder: self.bidder,
            price: self.price,
            channel: self.channel.into(),
            url: self.url.into(),
            date_time: self.date_time,
            extra: self.extra.into(),
        }
    }

    /// The text fields in the order of their declaration.
    #[inline]
    pub fn texts(&self) -> [&str; 3] {
        [self.channel, self.url, self.extra]
    }
}

impl EventRef<'_> {
    /// The same event, owning its text.
    #[inline]
    pub fn to_owned(&self) -> Event {
        match self {
            Self::Person(person) => Event::Person(person.to_owned()),
            Self::Auction(auction) => Event::Auction(auction.to_owned()),
            Self::Bid(bid) => Event::Bid(bid.to_owned()),
        }
    }

    /// Event time, milliseconds since 1970.
    #[inline]
    pub fn date_time(&self) -> i64 {
        match self {
            Self::Person(person) => person.date_time,
            Self::Auction(auction) => auction.date_time,
            Self::Bid(bid) => bid.date_time,
        }
    }
}
