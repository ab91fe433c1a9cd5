//! [`Timers`]: points in time at which keys want to be called, at most one per key and time, in the order of time.
//!
//! State: a slice per [`BUCKET_MS`] milliseconds that has timers, with a table (key, time) → nothing. The first slices,
//! those with the next [`NEAR_MIN`] timers or so, are *near*: their timers are in memory too, as an ordered set. All
//! behind them are *far* and in their tables only, in no order, where a budget of memory can reach them.
//!
//! A far slice becomes near by a scan of its table and a set that is made of it, which for many timers takes far longer
//! than a step may. So it is done ahead and in parts: while fewer than [`NEAR_MIN`] timers are near, every operation
//! brings some of the next slice over, as many as it takes for the slice to be whole before those that are near are used
//! up: 2 per operation for each [`NEAR_MIN`] timers in the slice. After a restore, the first slices are read
//! at once.
//!
//! A slice that is taken whole is dropped whole, without removing its last timer by itself.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    key::Key,
    log::seal::Sealed,
    record::RecordError,
    state::{KeyView, KeyedTable, Slice, StateBackend, StateError, StateId, StateName, fault},
};

use super::composite::{CompositeBuffer, Within, split};

/// Width of a slice of timers in milliseconds. Stored with the timers and therefore frozen.
pub const BUCKET_MS: i64 = 1024;

/// With fewer near timers than this, the next slice is made near.
pub const NEAR_MIN: usize = 1 << 14;
/// Timers brought over by one operation at least.
const AHEAD_MIN: usize = 8;
/// Timers that are no longer wanted in memory and forgotten by one operation.
const FORGOTTEN: usize = 16;

/// One timer. Ordered by time, then hash, then the key's bytes: they fire in an order that does not depend on that of
/// their registration.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Timer {
    /// When it fires, in milliseconds.
    pub at: i64,
    /// Hash of its key.
    pub hash: u64,
    /// Bytes of its key, if that is wide.
    pub bytes: Box<[u8]>,
}

impl Timer {
    fn new(at: i64, key: KeyView<'_>) -> Self {
        Self { at, hash: key.hash, bytes: key.bytes.into() }
    }

    /// Its key.
    pub fn key(&self) -> KeyView<'_> {
        KeyView { hash: self.hash, bytes: &self.bytes }
    }
}

/// The timers of one subtask and one kind of time (event or processing).
///
/// ```
/// use tidemill_storage::{
///     key::Key,
///     kinds::timers::Timers,
///     state::{KeyView, StateName, memory::MemoryBackend},
/// };
///
/// let mut backend = MemoryBackend::default();
/// let mut timers = Timers::<u32, _>::open(&mut backend, StateName::new("sessions", "event-timers"))?;
/// let user = KeyView { hash: 7_u32.key_hash(&mut Vec::new()), bytes: &[] };
/// timers.register(&mut backend, 30_000, user);
/// timers.register(&mut backend, 10_000, user);
/// timers.register(&mut backend, 10_000, user);
/// assert_eq!(timers.next(), Some(10_000));
/// assert_eq!(timers.pop_until(20_000).map(|timer| timer.at), Some(10_000));
/// assert_eq!(timers.pop_until(20_000), None);
/// # Ok::<(), tidemill_storage::state::StateError>(())
/// ```
pub struct Timers<K: Key, B: StateBackend> {
    state: StateId,
    /// Slices in order, none empty. There is one if there is any timer, and each comes before all that are far.
    near: BTreeMap<Slice, Bucket<Table<K, B>>>,
    /// Slices without order, none empty.
    far: BTreeMap<Slice, Table<K, B>>,
    /// How much of the first far slice is in order.
    ahead: Ahead,
    /// Timers in near slices.
    near_len: usize,
    /// What was in order and is not any more; forgotten bit by bit.
    forgotten: BTreeSet<Timer>,
    len: usize,
    /// [`NEAR_MIN`], less in tests.
    near_min: usize,
    composite: CompositeBuffer,
}

type Table<K, B> = <B as StateBackend>::Table<Within<K, i64>, ()>;

/// The timers of one near slice.
struct Bucket<T> {
    table: T,
    /// All of them.
    order: BTreeSet<Timer>,
}

/// The first far slice on its way to be near.
#[derive(Default)]
struct Ahead {
    /// Timers that were brought over; all are in the table.
    order: BTreeSet<Timer>,
    /// Where the scan of the table goes on, and how many timers it has passed.
    cursor: usize,
    passed: usize,
}

impl<K: Key, B: StateBackend> Timers<K, B> {
    /// Opens the state, with the timers that were restored under its name.
    ///
    /// # Errors
    /// As [`StateBackend::open`].
    pub fn open(backend: &mut B, name: StateName) -> Result<Self, StateError> {
        let state = backend.open::<Within<K, i64>, ()>(name, Vec::new())?;
        let mut far = BTreeMap::new();
        let mut len = 0;
        for slice in backend.restored(state) {
            let table: Table<K, B> = backend.table(state, slice);
            if !table.is_empty() {
                len += table.len();
                far.insert(slice, table);
            }
        }
        let mut timers = Self {
            state,
            near: BTreeMap::new(),
            far,
            ahead: Ahead::default(),
            near_len: 0,
            forgotten: BTreeSet::new(),
            len,
            near_min: NEAR_MIN,
            composite: CompositeBuffer::default(),
        };
        // Restoring takes its time anyway.
        while timers.near_len < NEAR_MIN && !timers.far.is_empty() {
            timers.bring_over(usize::MAX);
        }
        Ok(timers)
    }

    /// Sets how many timers are near at least, for tests: with few of them everything happens that else many bring about.
    #[doc(hidden)]
    pub fn set_near_min(&mut self, near_min: usize) {
        self.near_min = near_min;
    }

    /// Registers a timer, at a time in milliseconds; a second one for the same key and time changes nothing.
    pub fn register(&mut self, backend: &mut B, at: i64, key: KeyView<'_>) {
        let slice = at.div_euclid(BUCKET_MS);
        let composite = composite(&mut self.composite, at, key);
        if let Some(bucket) = self.near.get_mut(&slice) {
            if !put(&mut bucket.table, composite) {
                return;
            }
            bucket.order.insert(Timer::new(at, key));
            self.near_len += 1;
        } else if let Some(table) = self.far.get_mut(&slice) {
            if !put(table, composite) {
                return;
            }
            let first = self.far.first_key_value().map(|(first, _)| *first);
            if first == Some(slice) && self.ahead.is_under_way() {
                self.ahead.order.insert(Timer::new(at, key));
            }
        } else {
            let mut table: Table<K, B> = backend.table(self.state, slice);
            put(&mut table, composite);
            if self.is_near(slice) {
                let order = BTreeSet::from([Timer::new(at, key)]);
                self.near.insert(slice, Bucket { table, order });
                self.near_len += 1;
            } else {
                self.far.insert(slice, table);
            }
        }
        self.len += 1;
        self.look_ahead(1);
    }

    /// Whether a slice that is not there yet will be near.
    fn is_near(&self, slice: Slice) -> bool {
        let Some((last, _)) = self.near.last_key_value() else { return true };
        let is_next = self.far.first_key_value().is_none_or(|(first, _)| slice < *first);
        // One that would push aside what is under way is near, too.
        slice < *last || (is_next && (self.near_len < self.near_min || self.ahead.is_under_way()))
    }

    /// Deletes the timer for this key and time; whether there was one.
    pub fn delete(&mut self, at: i64, key: KeyView<'_>) -> bool {
        let slice = at.div_euclid(BUCKET_MS);
        let composite = composite(&mut self.composite, at, key);
        if let Some(bucket) = self.near.get_mut(&slice) {
            if !bucket.table.remove(composite) {
                return false;
            }
            bucket.order.remove(&Timer::new(at, key));
            self.near_len -= 1;
            if bucket.order.is_empty() {
                self.near.remove(&slice);
            }
        } else if let Some(table) = self.far.get_mut(&slice) {
            if !table.remove(composite) {
                return false;
            }
            let is_empty = table.is_empty();
            if self.ahead.is_under_way()
                && self.far.first_key_value().is_some_and(|(first, _)| *first == slice)
            {
                self.ahead.order.remove(&Timer::new(at, key));
                if is_empty {
                    self.ahead = Ahead::default();
                }
            }
            if is_empty {
                self.far.remove(&slice);
            }
        } else {
            return false;
        }
        self.len -= 1;
        self.look_ahead(1);
        true
    }

    /// When the first timer fires.
    pub fn next(&self) -> Option<i64> {
        let (_, bucket) = self.near.first_key_value()?;
        bucket.order.first().map(|timer| timer.at)
    }

    /// Takes the first timer that fires at or before `until`.
    pub fn pop_until(&mut self, until: i64) -> Option<Timer> {
        let mut first = self.near.first_entry()?;
        let Bucket { table, order } = first.get_mut();
        if order.first()?.at > until {
            return None;
        }
        let timer = order.pop_first()?;
        self.len -= 1;
        self.near_len -= 1;
        if order.is_empty() {
            first.remove();
        } else {
            table.remove(composite(&mut self.composite, timer.at, timer.key()));
        }
        self.look_ahead(1);
        Some(timer)
    }

    /// Takes the first timers that fire at or before `until`, at most `count_max` of them, and appends them to `taken` in
    /// order. They are the state's no more: what is not handled before the next seal has to be registered again.
    pub fn pop_batch(&mut self, until: i64, count_max: usize, taken: &mut Vec<Timer>) {
        let mut left = count_max;
        while let Some(mut first) = self.near.first_entry() {
            let Bucket { table, order } = first.get_mut();
            let from = taken.len();
            while left > 0 && order.first().is_some_and(|timer| timer.at <= until) {
                taken.extend(order.pop_first());
                left -= 1;
            }
            let count = taken.len() - from;
            self.len -= count;
            self.near_len -= count;
            let is_done = !order.is_empty();
            if is_done {
                for timer in &taken[from..] {
                    table.remove(composite(&mut self.composite, timer.at, timer.key()));
                }
            } else {
                // Nothing else is in it: no timer has to be removed by itself.
                first.remove();
            }
            self.look_ahead(count);
            if is_done {
                return;
            }
        }
    }

    /// Hands over what changed since the last seal, as [`KeyedTable::seal`].
    pub fn seal(&mut self, sealed: &mut Sealed) {
        self.near.values_mut().for_each(|bucket| bucket.table.seal(sealed));
        self.far.values_mut().for_each(|table| table.seal(sealed));
    }

    /// Number of timers.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is no timer.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Does what `operations` owe to those that come: see the module.
    #[inline]
    fn look_ahead(&mut self, operations: usize) {
        if self.near_len < self.near_min {
            if !self.far.is_empty() {
                self.approach(operations);
            }
        } else if self.near_len > 2 * self.near_min {
            self.retreat();
        }
        for _ in 0..FORGOTTEN * operations {
            if self.forgotten.pop_first().is_none() {
                break;
            }
        }
    }

    /// Brings a part of the next far slice over, or all of it when no other is left.
    fn approach(&mut self, operations: usize) {
        while self.near.is_empty() && !self.far.is_empty() {
            self.bring_over(usize::MAX);
        }
        let Some((_, table)) = self.far.first_key_value() else { return };
        // Twice as many as would just be in time.
        let each = 2 * table.len().saturating_sub(self.ahead.passed).div_ceil(self.near_len.max(1));
        self.bring_over(operations.saturating_mul(each.max(AHEAD_MIN.min(self.near_min))));
    }

    /// Brings this many timers of the first far slice over; makes it near if these were the last.
    fn bring_over(&mut self, count_max: usize) {
        let Some(mut first) = self.far.first_entry() else { return };
        let (table, Ahead { order, cursor, passed }) = (first.get_mut(), &mut self.ahead);
        let end = passed.saturating_add(count_max);
        if *passed == end {
            return;
        }
        let next = table.scan(*cursor, |composite, ()| {
            order.insert(read(composite));
            *passed += 1;
            *passed < end
        });
        if let Some(next) = next {
            *cursor = next;
            return;
        }
        if order.len() < table.len() {
            // What changed between the calls has moved some to where the scan had been: once more.
            (*cursor, *passed) = (0, 0);
            return;
        }
        let (slice, table) = first.remove_entry();
        let order = std::mem::take(&mut self.ahead).order;
        self.near_len += order.len();
        self.near.insert(slice, Bucket { table, order });
    }

    /// Makes the last near slice far if the others have timers enough.
    fn retreat(&mut self) {
        let Some(last) = self.near.last_entry() else { return };
        let len = last.get().order.len();
        if !self.forgotten.is_empty() || self.near_len - len < self.near_min {
            return;
        }
        if self.ahead.is_under_way() {
            self.forgotten = std::mem::take(&mut self.ahead).order;
            return;
        }
        let (slice, Bucket { table, order }) = last.remove_entry();
        self.forgotten = order;
        self.near_len -= len;
        self.far.insert(slice, table);
    }
}

impl Ahead {
    fn is_under_way(&self) -> bool {
        self.passed > 0 || !self.order.is_empty()
    }
}

/// Puts a timer into a table; whether it was not there.
fn put<K: Key>(table: &mut impl KeyedTable<Within<K, i64>, ()>, composite: KeyView<'_>) -> bool {
    let before = table.len();
    table.put(composite, &());
    table.len() > before
}

/// The key under which a timer is stored.
#[inline]
fn composite<'b>(buffer: &'b mut CompositeBuffer, at: i64, key: KeyView<'_>) -> KeyView<'b> {
    buffer.with(key, |out| at.encode(out))
}

/// The timer that is stored under a key.
fn read(composite: KeyView<'_>) -> Timer {
    #[derive(Debug, thiserror::Error)]
    #[error("{0:?} is no timer; restore from an older snapshot")]
    struct NoTimer(Vec<u8>);
    let timer = split(composite).and_then(|(key, at)| Some(Timer::new(i64::decode(at).ok()?, key)));
    match timer {
        Some(timer) => timer,
        None => {
            let source = rkyv::rancor::Source::new(NoTimer(composite.bytes.to_vec()));
            fault(RecordError::Invalid { record: "timer".into(), source }.into())
        }
    }
}
