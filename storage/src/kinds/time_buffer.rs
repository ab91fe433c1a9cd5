//! [`TimeBuffer`]: records per key in the order of time, for joins of intervals.
//!
//! State: a slice per bucket of time, each with the [lists](super::list) of its keys, elements in the order in which they
//! came. A visit sorts what it finds, bucket by bucket; what is too old goes bucket by bucket, each at once.
//!
//! **A slice's number** is frozen: the number of the bucket since the epoch, times 64, plus the binary logarithm of its width in
//! milliseconds. So buckets say how wide they are, and a buffer may be opened with another width than it was
//! stored with.

use std::{collections::BTreeMap, ops::RangeInclusive};

use rkyv::Archived;

use crate::{
    Record,
    key::Key,
    log::seal::Sealed,
    record::Record as IsRecord,
    state::{KeyView, Migration, Slice, StateBackend, StateError, StateName, fault},
    writer::RecordWriter,
};

use super::{
    list::{ListState, ListStates},
    page::{self, Page},
};

/// The time of a record in a buffer. Stored.
#[derive(Record, Clone, Copy, Debug, PartialEq, Eq)]
#[record(crate = crate)]
pub struct BufferTime {
    /// Milliseconds.
    pub at: i64,
}

/// What is stored per record.
pub type Timed<T> = (T, BufferTime);

/// Bits of a slice's number that say how wide its bucket is.
const WIDTH_BITS: u32 = 6;

/// A part of time: which, and how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Bucket {
    /// Milliseconds.
    start: i64,
    /// Binary logarithm of the width in milliseconds. At least [`WIDTH_BITS`], so that a slice's number is no
    /// larger than a time.
    width_log2: u32,
}

impl Bucket {
    fn of(at: i64, width_log2: u32) -> Self {
        Self { start: at >> width_log2 << width_log2, width_log2 }
    }

    fn slice(self) -> Slice {
        self.start >> self.width_log2 << WIDTH_BITS | i64::from(self.width_log2)
    }

    fn of_slice(slice: Slice) -> Self {
        let width_log2 = (slice & ((1 << WIDTH_BITS) - 1)) as u32;
        Self { start: slice >> WIDTH_BITS << width_log2, width_log2 }
    }

    /// The last time in it.
    fn last(self) -> i64 {
        self.start | ((1 << self.width_log2) - 1)
    }
}

/// Records per key in the order of time. Times are milliseconds.
///
/// ```
/// use tidemill_storage::{
///     key::Key,
///     kinds::time_buffer::TimeBuffer,
///     state::{KeyView, StateName, memory::MemoryBackend},
/// };
///
/// let mut backend = MemoryBackend::default();
/// let name = StateName::new("join", "left");
/// let mut buffer = TimeBuffer::<u32, u64, _>::open(&mut backend, name, Vec::new(), 1_000)?;
/// let item = KeyView { hash: 7_u32.key_hash(&mut Vec::new()), bytes: &[] };
/// for at in [30, 5_000, 10, 20] {
///     buffer.insert(&mut backend, item, at, at as u64);
/// }
/// let mut times = Vec::new();
/// buffer.visit(item, 15..=5_000, |at, _record| times.push(at));
/// assert_eq!(times, [20, 30, 5_000]);
/// buffer.expire_before(3_000);
/// assert_eq!(buffer.buckets(), 1);
/// # Ok::<(), tidemill_storage::state::StateError>(())
/// ```
pub struct TimeBuffer<K: Key, T: IsRecord, B: StateBackend> {
    states: ListStates,
    buckets: BTreeMap<Bucket, ListState<K, Timed<T>, B>>,
    width_log2: u32,
    /// Of all buckets that there are or were.
    width_log2_max: u32,
    /// Pages, one after another, each a multiple of 16 bytes long.
    pages: RecordWriter,
    /// Time, page and number of each record that was found; the page by its range in `pages`.
    found: Vec<(i64, (usize, usize), usize)>,
}

impl<K: Key, T: IsRecord, B: StateBackend> TimeBuffer<K, T, B> {
    /// Opens the state, with what was restored under its name. Buckets are `width_ms` milliseconds wide or somewhat more: the
    /// next power of two, at least 64. A good width is a tenth of the time for which records are kept.
    ///
    /// # Errors
    /// As [`StateBackend::open`].
    pub fn open(
        backend: &mut B,
        name: StateName,
        migrations: Vec<Migration<Page<Timed<T>>>>,
        width_ms: u64,
    ) -> Result<Self, StateError> {
        let width_log2 = width_ms.clamp(1, 1 << 61).next_power_of_two().trailing_zeros().max(WIDTH_BITS);
        let states = ListStates::open::<K, Timed<T>, B>(backend, name, migrations)?;
        let restored = states.restored(backend).into_iter();
        let buckets: BTreeMap<_, _> =
            restored.map(|slice| (Bucket::of_slice(slice), states.lists(backend, slice))).collect();
        let widest = buckets.keys().map(|bucket: &Bucket| bucket.width_log2).max();
        Ok(Self {
            states,
            buckets,
            width_log2,
            width_log2_max: widest.unwrap_or(0).max(width_log2),
            pages: RecordWriter::default(),
            found: Vec::new(),
        })
    }

    /// Adds a record.
    pub fn insert(&mut self, backend: &mut B, key: KeyView<'_>, at: i64, record: T) {
        let bucket = Bucket::of(at, self.width_log2);
        let states = self.states;
        let lists = self.buckets.entry(bucket).or_insert_with(|| states.lists(backend, bucket.slice()));
        lists.add(key, &(record, BufferTime { at }));
    }

    /// Visits the records of a key whose time is in `range`, in the order of time; those of one time in the order in which
    /// they came.
    pub fn visit(
        &mut self,
        key: KeyView<'_>,
        range: RangeInclusive<i64>,
        mut visit: impl FnMut(i64, &Archived<T>),
    ) {
        let (from, to) = (*range.start(), *range.end());
        // The earliest bucket that may reach into the range.
        let earliest = Bucket::of(from, self.width_log2_max);
        let latest = Bucket { start: to, width_log2: u32::MAX };
        if from > to {
            return;
        }
        let mut last = None;
        let (pages, found) = (&mut self.pages, &mut self.found);
        for (bucket, lists) in self.buckets.range_mut(Bucket { width_log2: 0, ..earliest }..=latest) {
            if bucket.last() < from {
                continue;
            }
            // Buckets of another width may overlap: those are sorted together.
            if last.is_some_and(|last| bucket.start > last) {
                lend::<T>(pages, found, &mut visit);
            }
            last = last.max(Some(bucket.last()));
            gather(lists, key, from..=to, pages, found);
        }
        lend::<T>(pages, found, &mut visit);
    }

    /// Forgets the buckets whose times are all before `time`; returns how many. Records before it that share a bucket with
    /// later ones stay until their bucket goes.
    pub fn expire_before(&mut self, time: i64) -> usize {
        let before = self.buckets.len();
        let old: Vec<Bucket> = self.buckets.keys().take_while(|b| b.start < time).copied().collect();
        for bucket in old.into_iter().filter(|bucket| bucket.last() < time) {
            self.buckets.remove(&bucket);
        }
        before - self.buckets.len()
    }

    /// Number of buckets that have had records since they were made.
    pub fn buckets(&self) -> usize {
        self.buckets.len()
    }

    /// Hands over what changed since the last seal, as [`KeyedTable::seal`](crate::state::KeyedTable::seal).
    pub fn seal(&mut self, sealed: &mut Sealed) {
        self.buckets.values_mut().for_each(|lists| lists.seal(sealed));
    }

    /// Gives memory back if the backend's budget is used up.
    pub fn relieve(&mut self) {
        self.buckets.values_mut().for_each(ListState::relieve);
    }
}

/// Copies the pages of a list and notes the records in `range`.
fn gather<K: Key, T: IsRecord, B: StateBackend>(
    lists: &mut ListState<K, Timed<T>, B>,
    key: KeyView<'_>,
    range: RangeInclusive<i64>,
    pages: &mut RecordWriter,
    found: &mut Vec<(i64, (usize, usize), usize)>,
) {
    lists.for_each_page(key, |page, scratch| {
        let before = found.len();
        let (from, end) = (pages.len(), pages.len() + page.len());
        let mut number = 0;
        page::visit::<Timed<T>>(page, scratch, |record| {
            let at = record.1.at.to_native();
            if range.contains(&at) {
                found.push((at, (from, end), number));
            }
            number += 1;
            true
        })?;
        if found.len() > before {
            pages.append_bytes(page);
        }
        Ok(())
    });
}

/// Lends what was found, in the order of time, and forgets it.
fn lend<T: IsRecord>(
    pages: &mut RecordWriter,
    found: &mut Vec<(i64, (usize, usize), usize)>,
    visit: &mut impl FnMut(i64, &Archived<T>),
) {
    found.sort_by_key(|(at, ..)| *at);
    for (at, (from, end), number) in found.drain(..) {
        match page::get::<Timed<T>>(&pages.bytes()[from..end], number) {
            Ok(record) => visit(at, &record.0),
            Err(error) => fault(StateError::Record(error)),
        }
    }
    pages.reset(0);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slices_are_frozen_and_say_their_bucket() {
        assert_eq!(Bucket::of(5000, 10).slice(), 4 * 64 + 10);
        assert_eq!(Bucket::of(-1, 10).slice(), -64 + 10);
        for at in [0, 1, -1, 123_456_789, i64::MIN, i64::MAX] {
            for width_log2 in WIDTH_BITS..62 {
                let bucket = Bucket::of(at, width_log2);
                assert!(bucket.start <= at && at <= bucket.last());
                assert_eq!(Bucket::of_slice(bucket.slice()), bucket);
            }
        }
    }
}
