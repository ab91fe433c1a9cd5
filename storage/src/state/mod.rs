//! Keyed state: what operators keep per key, behind an interface that does not say how.
//!
//! A [`StateBackend`] holds the states of one subtask. A *state* has a stable name under a stable operator
//! id ([`StateName`]) and is opened once, with its types. A [`KeyedTable`] is one slice of a state and holds one value
//! per key; a state without slices has the one slice [`WHOLE`]. A window keeps one table per slice and drops it
//! whole.
//!
//! Operators work on *columns* of keys ([`KeyColumn`]) so that a backend can look many keys up together.
//! Everything here is used by one thread.
//!
//! What cannot be done because the disk or a file fails is a [`StateError`]. Opening returns it. A table's
//! operations do not: such a failure leaves nothing that the operator could do, so they unwind with the error as
//! the payload ([`fault`]), which stops the job with its text; nothing that was sealed is harmed.
//!
//! [`memory`] is the reference implementation: short, obvious and the yardstick of every other.

pub mod error;
pub mod memory;

use std::ops::Range;

pub use error::StateError;
use rkyv::Archived;

use crate::{key::Key, log::seal::Sealed, record::Record};

/// A key as a table sees it: its hash, and its bytes if it is wide.
///
/// For a narrow key the hash is the key and `bytes` is empty; see [`key`](crate::key).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyView<'a> {
    /// The key's stable hash.
    pub hash: u64,
    /// The canonical bytes of a wide key.
    pub bytes: &'a [u8],
}

/// The keys of consecutive records.
pub trait KeyColumn {
    /// The key of record `i`.
    fn key(&self, i: usize) -> KeyView<'_>;

    /// The hash of the key of record `i`: of a narrow one all there is.
    #[inline(always)]
    fn hash(&self, i: usize) -> u64 {
        self.key(i).hash
    }
}

/// Under which name a state is stored: both parts stay the same for the life of the job's state.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StateName {
    /// The operator's stable id.
    pub operator: String,
    /// The state's name within the operator.
    pub state: String,
}

impl StateName {
    /// The name of a state of an operator.
    pub fn new(operator: impl Into<String>, state: impl Into<String>) -> Self {
        Self { operator: operator.into(), state: state.into() }
    }
}

/// A state that was opened, by its place in its backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StateId(pub u32);

/// Which slice of a state a table is: the first timestamp of a window's slice, for example.
pub type Slice = i64;

/// The one slice of a state without slices.
pub const WHOLE: Slice = 0;

/// Reads what was stored as an older type. Several may be given; the first whose schema is the stored one is used.
pub struct Migration<V> {
    /// Schema of the old type, as [`Record::schema`] gives it.
    pub from: String,
    /// Turns the archived bytes of an old value into a new one; fails when they are no such value.
    pub migrate: Box<dyn Fn(&[u8]) -> Result<V, crate::record::RecordError>>,
}

impl<V: Record> Migration<V> {
    /// From the type `Old`, by `migrate`.
    pub fn new<Old: Record>(migrate: impl Fn(Old) -> V + 'static) -> Self {
        Self {
            from: Old::schema().into_owned(),
            migrate: Box::new(move |bytes| {
                let root = crate::record::last_root::<Old>(bytes.len()).unwrap_or(usize::MAX);
                let old = crate::record::access::<Old>(bytes, root)?;
                Ok(migrate(crate::record::from_archived::<Old>(old)?))
            }),
        }
    }
}

/// Holds the states of one subtask.
pub trait StateBackend: 'static {
    /// A table of values `V` by keys `K`.
    type Table<K: Key, V: Record>: KeyedTable<K, V>;

    /// Opens a state: finds what was restored under this name, and checks that it was written with these types or
    /// that one of `migrations` reads it.
    ///
    /// # Errors
    /// When it was written with other types, when it is damaged, and when the name is open already.
    fn open<K: Key, V: Record>(
        &mut self,
        name: StateName,
        migrations: Vec<Migration<V>>,
    ) -> Result<StateId, StateError>;

    /// The slices of an open state that were restored and not yet taken by [`table`](Self::table), ascending.
    fn restored(&self, state: StateId) -> Vec<Slice>;

    /// A table of a state that was opened with the same types: with what was restored for this slice, which it takes,
    /// else empty.
    fn table<K: Key, V: Record>(&mut self, state: StateId, slice: Slice) -> Self::Table<K, V>;
}

/// One value per key. Dropping a table frees and forgets everything in it, at once.
pub trait KeyedTable<K: Key, V: Record>: 'static {
    /// Number of keys.
    fn len(&self) -> usize;

    /// Whether there is no key.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Lends the value of a key in place.
    fn read<R>(&mut self, key: KeyView<'_>, lend: impl FnOnce(&Archived<V>) -> R) -> Option<R>;

    /// The value of a key, copied.
    fn get(&mut self, key: KeyView<'_>) -> Option<V> {
        self.read(key, |value| crate::record::restore::<V>(value))
    }

    /// Whether there is a value.
    fn contains(&mut self, key: KeyView<'_>) -> bool {
        self.read(key, |_| ()).is_some()
    }

    /// Updates the value of a key, first creating it where there is none. In place where the archived value has one
    /// size ([`Record::FIXED`]), without any copy where it is [`PLAIN`](Record::PLAIN).
    fn update<R>(
        &mut self,
        key: KeyView<'_>,
        create: impl FnOnce() -> V,
        update: impl FnOnce(&mut V) -> R,
    ) -> R;

    /// Updates the values of the keys of all records in `range`, in this order; both functions get the record's index.
    fn update_batch<C: KeyColumn>(
        &mut self,
        keys: &C,
        range: Range<usize>,
        mut create: impl FnMut(usize) -> V,
        mut update: impl FnMut(usize, &mut V),
    ) {
        for i in range {
            self.update(keys.key(i), || create(i), |value| update(i, value));
        }
    }

    /// Sets the value of a key.
    fn put(&mut self, key: KeyView<'_>, value: &V);

    /// Removes a key; whether it was there.
    fn remove(&mut self, key: KeyView<'_>) -> bool;

    /// Visits keys and values from `cursor` on (0 to begin) until `visit` returns false; returns the cursor to go on
    /// from, or `None` at the end. No order. Where the table changes between the calls, keys may be missed or come
    /// twice, and nothing worse.
    fn scan(&mut self, cursor: usize, visit: impl FnMut(KeyView<'_>, &Archived<V>) -> bool) -> Option<usize>;

    /// Makes room for about so many keys at once, if the table is empty: it need not grow step by step then.
    fn reserve(&mut self, keys: usize) {
        let _ = keys;
    }

    /// Gives memory back if the backend's budget is used up; cheap when it is not. Operators with many tables call it
    /// for each of them now and then: a table that is not used cannot do it by itself.
    fn relieve(&mut self) {}

    /// Hands over what changed since the last seal, for a snapshot. To be done with every table of a backend at once.
    ///
    /// # Panics
    /// Unwinds with [`StateError::NoSnapshots`] where the backend has none.
    fn seal(&mut self, sealed: &mut Sealed);

    /// Lets the backend forget values that have expired where it would otherwise have to copy them. It may keep them for
    /// any time all the same: whoever reads has to look.
    fn expire_with(&mut self, expired: Expired<V>) {
        drop(expired);
    }
}

/// Whether the value stored under a key has expired and may go.
pub type Expired<V> = Box<dyn Fn(KeyView<'_>, &Archived<V>) -> bool>;

/// Unwinds with an error that leaves nothing to do but to stop the job. The panic hook does not see it.
#[cold]
pub fn fault(error: StateError) -> ! {
    std::panic::resume_unwind(Box::new(error))
}
