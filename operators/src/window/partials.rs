//! [`Partials`]: what a subtask has combined and not handed on yet, in a table of fixed size.

use tidemill_engine::model::{item::Keyed, time::Timestamp};

/// Places of a table at most; a power of two.
const PLACES_MAX: usize = 4096;
/// Places of a table at least.
const PLACES_MIN: usize = 64;
/// Bytes of a table, but for what accumulators hold elsewhere: it has to stay in the core's own cache.
const BYTES: usize = 512 << 10;

/// What the records of one key and slice came to.
pub(super) struct Partial<A> {
    /// The slice, by its first timestamp.
    pub(super) slice: Timestamp,
    /// The latest timestamp of its records.
    pub(super) timestamp: Timestamp,
    /// Key and accumulator.
    pub(super) keyed: Keyed<A>,
}

impl<A> Partial<A> {
    /// Whether it is of this key and slice. `wide` holds the key's bytes if it is wide.
    #[inline(always)]
    pub(super) fn is_of(&self, slice: Timestamp, hash: u64, wide: Option<&[u8]>) -> bool {
        self.keyed.hash == hash && self.slice == slice && wide.is_none_or(|key| key == self.keyed.key)
    }
}

/// A table in which each key and slice has one place, which it may have to leave to another.
pub(super) struct Partials<A> {
    places: Vec<Option<Partial<A>>>,
    /// No partial is of an earlier slice; `Timestamp::MAX` when there is none.
    earliest: Timestamp,
}

impl<A> Partials<A> {
    /// An empty table.
    pub(super) fn new() -> Self {
        let places = (BYTES / size_of::<Option<Partial<A>>>()).clamp(PLACES_MIN, PLACES_MAX);
        let places = (0..places.next_power_of_two()).map(|_| None).collect();
        Self { places, earliest: Timestamp::MAX }
    }

    /// The place of a key and slice. `spread` differs between slices that come next to each other.
    #[inline(always)]
    pub(super) fn place(&mut self, hash: u64, spread: u64) -> &mut Option<Partial<A>> {
        let at = (hash.wrapping_add(spread) >> 20) as usize & (self.places.len() - 1);
        &mut self.places[at]
    }

    /// Puts a partial in its place; returns the one that was there.
    pub(super) fn put(&mut self, partial: Partial<A>, spread: u64) -> Option<Partial<A>> {
        self.earliest = self.earliest.min(partial.slice);
        self.place(partial.keyed.hash, spread).replace(partial)
    }

    /// Takes out all partials of slices up to the one that begins at `slice`.
    pub(super) fn take_through(&mut self, slice: Timestamp, mut take: impl FnMut(Partial<A>)) {
        if self.earliest > slice {
            return;
        }
        let mut earliest = Timestamp::MAX;
        for place in &mut self.places {
            match place.take_if(|partial| partial.slice <= slice) {
                Some(partial) => take(partial),
                None => earliest = place.as_ref().map_or(earliest, |kept| earliest.min(kept.slice)),
            }
        }
        self.earliest = earliest;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn partial(hash: u64, slice: Timestamp, value: u64) -> Partial<u64> {
        Partial { slice, timestamp: slice, keyed: Keyed { hash, key: Vec::new(), value } }
    }

    fn taken(partials: &mut Partials<u64>, slice: Timestamp) -> Vec<u64> {
        let mut values = Vec::new();
        partials.take_through(slice, |partial| values.push(partial.keyed.value));
        values.sort_unstable();
        values
    }

    #[test]
    fn what_is_put_is_taken_once_when_its_slice_is_over() {
        let mut partials = Partials::new();
        for (i, slice) in (0_u64..).zip([10, 0, 20, 0, 10]) {
            assert!(partials.put(partial(i << 20, slice, i), 0).is_none());
        }
        assert!(taken(&mut partials, -1).is_empty());
        assert_eq!(taken(&mut partials, 9), [1, 3]);
        assert!(taken(&mut partials, 9).is_empty());
        assert!(partials.put(partial(9 << 20, 0, 9), 0).is_none());
        assert_eq!(taken(&mut partials, 10), [0, 4, 9]);
        assert_eq!(taken(&mut partials, Timestamp::MAX), [2]);
        assert_eq!(partials.earliest, Timestamp::MAX);
    }

    #[test]
    fn a_place_is_left_to_the_next() {
        let mut partials = Partials::new();
        assert!(partials.put(partial(1, 0, 1), 0).is_none());
        let left = partials.put(partial(2, 10, 2), 0);
        assert_eq!(left.map(|left| left.keyed.value), Some(1));
        assert_eq!(taken(&mut partials, Timestamp::MAX), [2]);
    }

    #[test]
    fn a_table_of_large_accumulators_has_few_places() {
        assert_eq!(Partials::<u64>::new().places.len(), PLACES_MAX);
        assert_eq!(Partials::<[u64; 4096]>::new().places.len(), PLACES_MIN);
    }
}
