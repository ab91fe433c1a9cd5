//! [`Timers`]: points in time at which keys want to be called, at most one per key and time, in the order of time.
//!
//! State: a slice per [`BUCKET_MS`] milliseconds that has timers, with a table (key, time) → nothing. Far timers are there only.
//! The first slice, and others that have been the first before, are in memory too, as an ordered set; it is
//! made again by a scan when a slice comes first, so once per slice and after a restore. A slice that is taken
//! whole is dropped whole, without removing its timers one by one.

use std::{collections::BTreeMap, collections::BTreeSet};

use crate::{
    key::Key,
    record::RecordError,
    state::{KeyView, KeyedTable, Slice, StateBackend, StateError, StateId, StateName, fault},
};

use super::composite::{CompositeBuffer, Within, split};

/// Width of a slice of timers in milliseconds. Stored with the timers and therefore frozen.
pub const BUCKET_MS: i64 = 1024;

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
    /// By slice; none is empty, and the first is in order.
    buckets: BTreeMap<Slice, Bucket<B::Table<Within<K, i64>, ()>>>,
    len: usize,
    composite: CompositeBuffer,
}

/// The timers of one slice.
struct Bucket<T> {
    table: T,
    /// All of them, if the slice has come first.
    order: Option<BTreeSet<Timer>>,
}

impl<K: Key, B: StateBackend> Timers<K, B> {
    /// Opens the state, with the timers that were restored under its name.
    ///
    /// # Errors
    /// As [`StateBackend::open`].
    pub fn open(backend: &mut B, name: StateName) -> Result<Self, StateError> {
        let state = backend.open::<Within<K, i64>, ()>(name, Vec::new())?;
        let mut buckets = BTreeMap::new();
        let mut len = 0;
        for slice in backend.restored(state) {
            let table: B::Table<Within<K, i64>, ()> = backend.table(state, slice);
            if !table.is_empty() {
                len += table.len();
                buckets.insert(slice, Bucket { table, order: None });
            }
        }
        let mut timers = Self { state, buckets, len, composite: CompositeBuffer::default() };
        timers.order_first();
        Ok(timers)
    }

    /// Registers a timer, at a time in milliseconds; a second one for the same key and time changes nothing.
    pub fn register(&mut self, backend: &mut B, at: i64, key: KeyView<'_>) {
        let slice = at.div_euclid(BUCKET_MS);
        let state = self.state;
        let is_first = self.buckets.first_key_value().is_none_or(|(first, _)| slice < *first);
        let bucket = self.buckets.entry(slice).or_insert_with(|| Bucket {
            table: backend.table(state, slice),
            order: is_first.then(BTreeSet::new),
        });
        let before = bucket.table.len();
        bucket.table.put(composite(&mut self.composite, at, key), &());
        if bucket.table.len() == before {
            return;
        }
        self.len += 1;
        if let Some(order) = &mut bucket.order {
            order.insert(Timer::new(at, key));
        }
    }

    /// Deletes the timer for this key and time; whether there was one.
    pub fn delete(&mut self, at: i64, key: KeyView<'_>) -> bool {
        let slice = at.div_euclid(BUCKET_MS);
        let Some(bucket) = self.buckets.get_mut(&slice) else { return false };
        if !bucket.table.remove(composite(&mut self.composite, at, key)) {
            return false;
        }
        self.len -= 1;
        if let Some(order) = &mut bucket.order {
            order.remove(&Timer::new(at, key));
        }
        if bucket.table.is_empty() {
            self.buckets.remove(&slice);
            self.order_first();
        }
        true
    }

    /// When the first timer fires.
    pub fn next(&self) -> Option<i64> {
        let (_, bucket) = self.buckets.first_key_value()?;
        bucket.order.as_ref()?.first().map(|timer| timer.at)
    }

    /// Takes the first timer that fires at or before `until`.
    pub fn pop_until(&mut self, until: i64) -> Option<Timer> {
        let mut first = self.buckets.first_entry()?;
        let bucket = first.get_mut();
        let order = bucket.order.as_mut()?;
        if order.first()?.at > until {
            return None;
        }
        let timer = order.pop_first()?;
        self.len -= 1;
        if order.is_empty() {
            first.remove();
            self.order_first();
        } else {
            bucket.table.remove(composite(&mut self.composite, timer.at, timer.key()));
        }
        Some(timer)
    }

    /// Takes the first timers that fire at or before `until`, at most `count_max` of them, and appends them to `taken` in
    /// order. They are the state's no more: what is not handled before the next seal has to be registered again.
    pub fn pop_batch(&mut self, until: i64, count_max: usize, taken: &mut Vec<Timer>) {
        let mut left = count_max;
        while let Some(mut first) = self.buckets.first_entry() {
            let Bucket { table, order: Some(order) } = first.get_mut() else { return };
            let from = taken.len();
            while left > 0 && order.first().is_some_and(|timer| timer.at <= until) {
                taken.extend(order.pop_first());
                left -= 1;
            }
            self.len -= taken.len() - from;
            if !order.is_empty() {
                for timer in &taken[from..] {
                    table.remove(composite(&mut self.composite, timer.at, timer.key()));
                }
                return;
            }
            // Nothing else is in it: no timer has to be removed by itself.
            first.remove();
            self.order_first();
        }
    }

    /// Number of timers.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is no timer.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Puts the first slice in order.
    fn order_first(&mut self) {
        let Some(mut first) = self.buckets.first_entry() else { return };
        let Bucket { table, order } = first.get_mut();
        if order.is_some() {
            return;
        }
        let mut timers = Vec::with_capacity(table.len());
        table.scan(0, |composite, ()| {
            timers.push(read(composite));
            true
        });
        *order = Some(timers.into_iter().collect());
    }
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
