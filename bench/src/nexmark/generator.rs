//! The generator: an iterator over the events of one split, jumping over kinds that are not wanted.

use super::{
    config::Config,
    events::Events,
    fields,
    ids::{BidEpoch, EPOCH_EVENTS, Kind, kind_of},
    split::Split,
    view::{BidRef, EventRef},
};

/// The events of one split in the order of their numbers, and so of their times.
///
/// `FIELDS` is made of the bits in [`fields`].
#[derive(Clone)]
pub struct Generator<const FIELDS: u32> {
    events: Events<FIELDS>,
    split: Split,
    epoch: u64,
    /// What the bids of `epoch` share.
    bid_epoch: BidEpoch,
}

impl<const FIELDS: u32> Generator<FIELDS> {
    /// How far the next wanted event lies from each place of an epoch.
    const SKIP: [u8; EPOCH_EVENTS as usize] = skips(FIELDS);

    /// The wanted events of `split`.
    pub fn new(config: Config, split: Split) -> Self {
        Self { events: Events::new(config), split, epoch: 0, bid_epoch: BidEpoch::new(0) }
    }

    /// The number of the event to be read next, to be stored with a checkpoint.
    #[inline]
    pub fn position(&self) -> u64 {
        self.split.position()
    }

    /// Continues at a position that [`Generator::position`] gave.
    pub fn seek(&mut self, position: u64) {
        self.split.seek(position);
    }

    /// Event `n`, if its kind is wanted, whatever the split.
    #[inline(always)]
    pub fn event(&mut self, n: u64) -> Option<EventRef<'static>> {
        let kind = kind_of(n);
        if !is_wanted(FIELDS, kind) {
            return None;
        }
        Some(match kind {
            Kind::Person => EventRef::Person(self.events.person(n)),
            Kind::Auction => EventRef::Auction(self.events.auction(n)),
            Kind::Bid => EventRef::Bid(self.bid(n)),
        })
    }

    #[inline(always)]
    fn bid(&mut self, n: u64) -> BidRef<'static> {
        let epoch = n / EPOCH_EVENTS;
        if epoch != self.epoch {
            (self.epoch, self.bid_epoch) = (epoch, BidEpoch::new(epoch));
        }
        self.events.bid_of(&self.bid_epoch, n)
    }
}

impl<const FIELDS: u32> Iterator for Generator<FIELDS> {
    type Item = EventRef<'static>;

    #[inline(always)]
    fn next(&mut self) -> Option<EventRef<'static>> {
        let n = self.split.take(&Self::SKIP)?;
        // With only bids wanted, the other arms are dead and so is the branch.
        if only(FIELDS, Kind::Bid) {
            return Some(EventRef::Bid(self.bid(n)));
        }
        Some(match kind_of(n) {
            Kind::Person => EventRef::Person(self.events.person(n)),
            Kind::Auction => EventRef::Auction(self.events.auction(n)),
            Kind::Bid => EventRef::Bid(self.bid(n)),
        })
    }
}

const fn bit_of(kind: Kind) -> u32 {
    match kind {
        Kind::Person => fields::PERSON,
        Kind::Auction => fields::AUCTION,
        Kind::Bid => fields::BID,
    }
}

const fn is_wanted(selection: u32, kind: Kind) -> bool {
    selection & bit_of(kind) != 0
}

const fn only(selection: u32, kind: Kind) -> bool {
    selection & (fields::PERSON | fields::AUCTION | fields::BID) == bit_of(kind)
}

const fn skips(selection: u32) -> [u8; EPOCH_EVENTS as usize] {
    assert!(
        selection & (fields::PERSON | fields::AUCTION | fields::BID) != 0,
        "a selection names at least one kind of event"
    );
    let mut skips = [0; EPOCH_EVENTS as usize];
    let mut place = 0;
    while place < EPOCH_EVENTS {
        let mut distance = 0;
        while !is_wanted(selection, kind_of(place + distance)) {
            distance += 1;
        }
        skips[place as usize] = distance as u8;
        place += 1;
    }
    skips
}

#[cfg(test)]
mod tests;
