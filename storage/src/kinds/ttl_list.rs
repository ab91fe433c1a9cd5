//! [`TtlListState`]: elements in order, per key, each of which expires by itself.
//!
//! Elements are appended in the order of time, so those that have expired are in front: whole pages of them are removed,
//! the rest of the first page is passed over until its turn comes.

use std::cell::RefCell;

use rkyv::Archived;

use crate::{
    key::Key,
    log::seal::Sealed,
    record::{Record, restore},
    state::{KeyView, Migration, StateBackend, StateError, StateName},
    writer::RecordWriter,
};

use super::{
    list::ListState,
    page::{self, Page},
    ttl::{Cleanup, Noted, Stamped, TtlConfig, TtlStamp},
};

/// Elements in order, per key, with a time to live each. Times are milliseconds.
pub struct TtlListState<K: Key, T: Record, B: StateBackend> {
    list: ListState<K, Stamped<T>, B>,
    ttl: TtlConfig,
    cleanup: Cleanup,
    noted: Noted,
}

impl<K: Key, T: Record, B: StateBackend> TtlListState<K, T, B> {
    /// Opens the state, with what was restored under its name.
    ///
    /// # Errors
    /// As [`StateBackend::open`]; a state that was stored without a time to live is another type.
    pub fn open(
        backend: &mut B,
        name: StateName,
        migrations: Vec<Migration<Page<Stamped<T>>>>,
        ttl: TtlConfig,
    ) -> Result<Self, StateError> {
        let (mut list, noted) =
            (ListState::<K, Stamped<T>, B>::open(backend, name, migrations)?, Noted::new());
        let (notes, scratch) = (noted.notes(), RefCell::new(RecordWriter::default()));
        list.watch_copies(move |key, page| {
            let expired =
                |element: &Archived<Stamped<T>>| ttl.is_expired(element.1.at.to_native(), notes.now());
            // A page that is damaged is not noted: whoever reads it says so.
            if matches!(page::visit::<Stamped<T>>(page, &mut scratch.borrow_mut(), expired), Ok(true)) {
                notes.note(key);
            }
        });
        Ok(Self { list, ttl, cleanup: Cleanup::default(), noted })
    }

    /// Begins a use: removes some of what compaction has found expired.
    #[inline]
    fn begin(&mut self, now: i64) {
        let (list, ttl) = (&mut self.list, self.ttl);
        self.noted.at(now, |key| {
            list.drop_front(key, |element| ttl.is_expired(element.1.at.to_native(), now));
        });
    }

    /// Number of keys that have elements, be they expired.
    pub fn keys(&self) -> usize {
        self.list.keys()
    }

    /// Number of elements of a key that are there, expired ones included.
    pub fn len(&mut self, key: KeyView<'_>) -> u64 {
        self.list.len(key)
    }

    /// Whether a key has no element, not even an expired one.
    pub fn is_empty(&mut self, key: KeyView<'_>) -> bool {
        self.list.is_empty(key)
    }

    /// Appends an element.
    pub fn add(&mut self, key: KeyView<'_>, now: i64, element: T) {
        self.begin(now);
        self.list.add(key, &(element, TtlStamp { at: now }));
    }

    /// Appends elements.
    pub fn add_all(&mut self, key: KeyView<'_>, now: i64, elements: impl IntoIterator<Item = T>) {
        for element in elements {
            self.add(key, now, element);
        }
    }

    /// Replaces all elements of a key.
    pub fn replace(&mut self, key: KeyView<'_>, now: i64, elements: impl IntoIterator<Item = T>) {
        self.list.clear(key);
        self.add_all(key, now, elements);
    }

    /// Visits the elements of a key that are shown, in order and in place. Where reading renews time stamps the whole list
    /// is written again, as in Flink.
    pub fn for_each(&mut self, key: KeyView<'_>, now: i64, mut visit: impl FnMut(&Archived<T>)) {
        self.begin(now);
        let ttl = self.ttl;
        let (mut some_expired, mut some_older) = (false, false);
        self.list.for_each(key, |element| {
            let stamp = element.1.at.to_native();
            let expired = ttl.is_expired(stamp, now);
            some_expired |= expired;
            some_older |= stamp != now;
            if !expired || ttl.shows_expired() {
                visit(&element.0);
            }
        });
        if ttl.renews_on_read() && some_older {
            self.renew(key, now);
        } else if some_expired {
            self.drop_expired(key, now);
        }
    }

    /// The elements of a key that are shown, copied.
    pub fn get(&mut self, key: KeyView<'_>, now: i64) -> Vec<T> {
        let mut elements = Vec::new();
        self.for_each(key, now, |element| elements.push(restore::<T>(element)));
        elements
    }

    /// Writes the list again with what has not expired.
    fn renew(&mut self, key: KeyView<'_>, now: i64) {
        let ttl = self.ttl;
        let mut live = Vec::new();
        self.list.for_each(key, |element| {
            if !ttl.is_expired(element.1.at.to_native(), now) {
                live.push((restore::<T>(&element.0), TtlStamp { at: now }));
            }
        });
        self.list.replace(key, &live);
    }

    fn drop_expired(&mut self, key: KeyView<'_>, now: i64) -> u64 {
        let ttl = self.ttl;
        self.list.drop_front(key, |element| ttl.is_expired(element.1.at.to_native(), now))
    }

    /// Removes all elements of a key; whether there were any, be they expired.
    pub fn clear(&mut self, key: KeyView<'_>) -> bool {
        self.list.clear(key)
    }

    /// Looks at the lists of `keys_max` keys more, or of twice as many as have come since the last call, and removes the pages in
    /// front whose elements have all expired; returns how many elements went. Takes time by that and by the pages that go.
    pub fn clean_up(&mut self, now: i64, keys_max: usize) -> u64 {
        self.begin(now);
        let ttl = self.ttl;
        let mut removed = 0;
        self.cleanup.step::<_, u64>(
            &mut self.list,
            keys_max,
            |list| list.keys(),
            |list, cursor, visit| list.scan_keys(cursor, |key, len| visit(key, &len)),
            |_| true,
            |list, key| {
                removed += list.drop_front(key, |element| ttl.is_expired(element.1.at.to_native(), now))
            },
        );
        removed
    }

    /// Hands over what changed since the last seal, as [`KeyedTable::seal`](crate::state::KeyedTable::seal).
    pub fn seal(&mut self, sealed: &mut Sealed) {
        self.list.seal(sealed);
    }

    /// Gives memory back if the backend's budget is used up.
    pub fn relieve(&mut self) {
        self.list.relieve();
    }
}
