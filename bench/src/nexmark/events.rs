//! The events themselves: each a pure function of its number.

use super::{
    config::Config,
    fields,
    ids::{self, BidEpoch, EPOCH_EVENTS, EVENTS_PER_AUCTION_LIFE, Kind, kind_of},
    random::{Draw, below, high, low},
    text::{CITIES, STATES, Tables},
    view::{AuctionRef, BidRef, EventRef, PersonRef},
};

const NUMBER_BYTES: usize = 8;
const PERSON_BYTES: usize = 200;
const AUCTION_BYTES: usize = 500;
/// A bid's numbers and padding. As in the public generator, its channel and url come on top.
const BID_BYTES: usize = 100;

/// All events of one stream, by number; `FIELDS` says which of their texts are wanted.
#[derive(Clone, Copy)]
pub struct Events<const FIELDS: u32> {
    config: Config,
    tables: &'static Tables,
}

impl<const FIELDS: u32> Events<FIELDS> {
    /// The events of the stream that `config` describes.
    pub fn new(config: Config) -> Self {
        Self { config, tables: Tables::get() }
    }

    /// The stream's parameters.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Event `n`.
    #[inline]
    pub fn event(&self, n: u64) -> EventRef<'static> {
        match kind_of(n) {
            Kind::Person => EventRef::Person(self.person(n)),
            Kind::Auction => EventRef::Auction(self.auction(n)),
            Kind::Bid => EventRef::Bid(self.bid(n)),
        }
    }

    /// Event `n`, which must be a person.
    #[inline]
    pub fn person(&self, n: u64) -> PersonRef<'static> {
        debug_assert_eq!(kind_of(n), Kind::Person);
        let draw = Draw::new(self.config.seed, n);
        let (names, places, padding) = (draw.word(0), draw.word(1), draw.word(2));
        // What the padding's length depends on is made for it, too, and then left out again.
        let person = PersonRef {
            id: ids::person_id(n),
            name: text(wants(FIELDS, fields::PERSON_NAME | fields::PERSON_EXTRA), || {
                self.tables.name(high(names))
            }),
            email_address: text(wants(FIELDS, fields::PERSON_EMAIL | fields::PERSON_EXTRA), || {
                self.tables.email(low(names))
            }),
            credit_card: text(wants(FIELDS, fields::PERSON_CARD | fields::PERSON_EXTRA), || {
                self.tables.credit_card(low(padding) >> 15)
            }),
            city: text(wants(FIELDS, fields::PERSON_PLACE | fields::PERSON_EXTRA), || {
                CITIES[below(high(places), CITIES.len() as u64) as usize]
            }),
            state: text(wants(FIELDS, fields::PERSON_PLACE | fields::PERSON_EXTRA), || {
                STATES[below(low(places), STATES.len() as u64) as usize]
            }),
            date_time: self.config.time_ms(n),
            extra: "",
        };
        let size = 2 * NUMBER_BYTES + person.texts().map(str::len).iter().sum::<usize>();
        PersonRef {
            name: keep(FIELDS, fields::PERSON_NAME, person.name),
            email_address: keep(FIELDS, fields::PERSON_EMAIL, person.email_address),
            credit_card: keep(FIELDS, fields::PERSON_CARD, person.credit_card),
            city: keep(FIELDS, fields::PERSON_PLACE, person.city),
            state: keep(FIELDS, fields::PERSON_PLACE, person.state),
            extra: text(wants(FIELDS, fields::PERSON_EXTRA), || self.padding(PERSON_BYTES, size, padding)),
            ..person
        }
    }

    /// Event `n`, which must be an auction.
    #[inline]
    pub fn auction(&self, n: u64) -> AuctionRef<'static> {
        debug_assert_eq!(kind_of(n), Kind::Auction);
        let draw = Draw::new(self.config.seed, n);
        let (choices, people, padding) = (draw.word(0), draw.word(1), draw.word(2));
        let date_time = self.config.time_ms(n);
        let initial_bid = self.tables.prices.price(draw.word(3));
        let life_ms = self.config.time_ms(n + EVENTS_PER_AUCTION_LIFE) - date_time;
        let item_name = text(wants(FIELDS, fields::AUCTION_ITEM | fields::AUCTION_EXTRA), || {
            let random = draw.word(4);
            self.tables.words(low(random), 3 + below(high(random), 18) as usize)
        });
        let description = text(wants(FIELDS, fields::AUCTION_DESCRIPTION | fields::AUCTION_EXTRA), || {
            let random = draw.word(5);
            self.tables.words(low(random), 3 + below(high(random), 98) as usize)
        });
        let size = 7 * NUMBER_BYTES + item_name.len() + description.len();
        AuctionRef {
            id: ids::auction_id(n),
            item_name: keep(FIELDS, fields::AUCTION_ITEM, item_name),
            description: keep(FIELDS, fields::AUCTION_DESCRIPTION, description),
            initial_bid,
            reserve: initial_bid + self.tables.prices.price(draw.word(6)),
            date_time,
            expires: date_time + 1 + below(high(choices), (2 * life_ms as u64).max(1)) as i64,
            seller: ids::auction_seller(n, low(choices) & 3 != 0, high(people)),
            category: 10 + below(low(people), 5) as i64,
            extra: text(wants(FIELDS, fields::AUCTION_EXTRA), || self.padding(AUCTION_BYTES, size, padding)),
        }
    }

    /// Event `n`, which must be a bid.
    #[inline]
    pub fn bid(&self, n: u64) -> BidRef<'static> {
        self.bid_of(&BidEpoch::new(n / EPOCH_EVENTS), n)
    }

    /// Event `n`, which must be a bid of that epoch.
    #[inline(always)]
    pub(super) fn bid_of(&self, epoch: &BidEpoch, n: u64) -> BidRef<'static> {
        debug_assert_eq!(kind_of(n), Kind::Bid);
        let draw = Draw::new(self.config.seed, n);
        let (choices, people) = (draw.word(0), draw.word(1));
        let bits = low(choices);
        let channel = self.tables.channel(bits & 8 != 0, bits >> 4, high(choices));
        BidRef {
            auction: epoch.auction(bits & 1 != 0, high(people)),
            bidder: epoch.bidder(bits & 6 != 0, low(people)),
            price: self.tables.prices.price(draw.word(2)),
            channel: text(wants(FIELDS, fields::BID_CHANNEL), || self.tables.channel_name(channel)),
            url: text(wants(FIELDS, fields::BID_URL), || self.tables.channel_url(channel)),
            date_time: self.config.time_ms(n),
            extra: text(wants(FIELDS, fields::BID_EXTRA), || {
                self.padding(BID_BYTES, 4 * NUMBER_BYTES, draw.word(3))
            }),
        }
    }

    /// Letters that bring an event of `size` bytes to `mean` bytes, give or take a fifth of what is missing.
    #[inline]
    fn padding(&self, mean: usize, size: usize, random: u64) -> &'static str {
        let missing = mean.saturating_sub(size);
        let fifth = (missing + 2) / 5;
        let len = missing - fifth + below(high(random), 2 * fifth as u64 + 1) as usize;
        self.tables.letters(low(random), len)
    }
}

#[inline(always)]
const fn wants(selection: u32, any_of: u32) -> bool {
    selection & any_of != 0
}

#[inline(always)]
fn text(wanted: bool, make: impl FnOnce() -> &'static str) -> &'static str {
    if wanted { make() } else { "" }
}

#[inline(always)]
fn keep(selection: u32, field: u32, text: &'static str) -> &'static str {
    if wants(selection, field) { text } else { "" }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_does_not_depend_on_the_selection() {
        let all = Events::<{ fields::ALL }>::new(Config::default());
        let extras = Events::<{ fields::PERSON_EXTRA | fields::AUCTION_EXTRA | fields::BID_EXTRA }>::new(
            Config::default(),
        );
        for n in 0..5_000 {
            match (all.event(n), extras.event(n)) {
                (EventRef::Person(whole), EventRef::Person(part)) => assert_eq!(
                    PersonRef { name: "", email_address: "", credit_card: "", city: "", state: "", ..whole },
                    part
                ),
                (EventRef::Auction(whole), EventRef::Auction(part)) => {
                    assert_eq!(AuctionRef { item_name: "", description: "", ..whole }, part);
                }
                (EventRef::Bid(whole), EventRef::Bid(part)) => {
                    assert_eq!(BidRef { channel: "", url: "", ..whole }, part);
                }
                (whole, part) => panic!("{whole:?} and {part:?} are of different kinds"),
            }
        }
    }
}
