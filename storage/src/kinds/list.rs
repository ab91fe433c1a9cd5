//! [`ListState`]: elements in order, per key.
//!
//! State: per key a [`ListHead`], and [pages](super::page) of elements, numbered from the head's first to its last. Appending touches
//! the head and the last page. Both are bounded, so what an append writes is, too, however long the list: a page of at
//! most [`PAGE_BYTES_MAX`](super::page::PAGE_BYTES_MAX) bytes, or of the one element that is longer.

use std::ops::Range;

use crate::{
    Record,
    key::Key,
    log::seal::Sealed,
    record::{Record as IsRecord, RecordError, restore},
    state::{
        KeyColumn, KeyView, KeyedTable, Migration, Slice, StateBackend, StateError, StateId, StateName,
        WHOLE, fault,
    },
    writer::RecordWriter,
};

use super::{
    composite::{CompositeBuffer, CompositeColumn, Within, split},
    page::{self, Page},
};

/// What is known of one list. Stored.
#[derive(Record, Clone, Copy, Debug, Default, PartialEq, Eq)]
#[record(crate = crate)]
pub struct ListHead {
    /// Number of elements.
    pub len: u64,
    /// Number of the first page.
    pub first: u32,
    /// Number of the last page.
    pub last: u32,
}

/// The states of the tables of lists, opened.
#[derive(Clone, Copy, Debug)]
pub struct ListStates {
    heads: StateId,
    pages: StateId,
}

impl ListStates {
    /// Opens them.
    ///
    /// # Errors
    /// As [`StateBackend::open`].
    pub fn open<K: Key, T: IsRecord, B: StateBackend>(
        backend: &mut B,
        name: StateName,
        migrations: Vec<Migration<Page<T>>>,
    ) -> Result<Self, StateError> {
        let heads = StateName::new(name.operator.as_str(), format!("{}/heads", name.state));
        Ok(Self {
            pages: backend.open::<Within<K, u32>, Page<T>>(name, migrations)?,
            heads: backend.open::<K, ListHead>(heads, Vec::new())?,
        })
    }

    /// The slices that were restored and not yet taken, ascending.
    pub fn restored<B: StateBackend>(&self, backend: &B) -> Vec<Slice> {
        backend.restored(self.heads)
    }

    /// The lists of one slice: those that were restored, or none.
    pub fn lists<K: Key, T: IsRecord, B: StateBackend>(
        &self,
        backend: &mut B,
        slice: Slice,
    ) -> ListState<K, T, B> {
        ListState {
            heads: backend.table(self.heads, slice),
            pages: backend.table(self.pages, slice),
            composite: CompositeBuffer::default(),
            scratch: RecordWriter::default(),
        }
    }
}

/// Elements in order, per key.
///
/// ```
/// use tidemill_storage::{
///     key::Key,
///     kinds::list::ListState,
///     state::{KeyView, StateName, memory::MemoryBackend},
/// };
///
/// let mut backend = MemoryBackend::default();
/// let name = StateName::new("baskets", "items");
/// let mut items = ListState::<u32, String, _>::open(&mut backend, name, Vec::new())?;
/// let user = KeyView { hash: 7_u32.key_hash(&mut Vec::new()), bytes: &[] };
/// items.add(user, &"bread".to_owned());
/// items.add(user, &"wine".to_owned());
/// let mut letters = 0;
/// items.for_each(user, |item| letters += item.len());
/// assert_eq!((letters, items.len(user)), (9, 2));
/// # Ok::<(), tidemill_storage::state::StateError>(())
/// ```
pub struct ListState<K: Key, T: IsRecord, B: StateBackend> {
    heads: B::Table<K, ListHead>,
    pages: B::Table<Within<K, u32>, Page<T>>,
    composite: CompositeBuffer,
    scratch: RecordWriter,
}

impl<K: Key, T: IsRecord, B: StateBackend> ListState<K, T, B> {
    /// Opens the state, with what was restored under its name.
    ///
    /// # Errors
    /// As [`StateBackend::open`].
    pub fn open(
        backend: &mut B,
        name: StateName,
        migrations: Vec<Migration<Page<T>>>,
    ) -> Result<Self, StateError> {
        let states = ListStates::open::<K, T, B>(backend, name, migrations)?;
        Ok(states.lists(backend, WHOLE))
    }

    /// Number of keys that have elements.
    pub fn keys(&self) -> usize {
        self.heads.len()
    }

    /// Number of elements of a key.
    pub fn len(&mut self, key: KeyView<'_>) -> u64 {
        self.heads.read(key, |head| head.len.to_native()).unwrap_or(0)
    }

    /// Whether a key has no element.
    pub fn is_empty(&mut self, key: KeyView<'_>) -> bool {
        !self.heads.contains(key)
    }

    /// Appends an element.
    pub fn add(&mut self, key: KeyView<'_>, element: &T) {
        let last = self.heads.update(key, ListHead::default, |head| {
            head.len += 1;
            head.last
        });
        let (pages, scratch) = (&mut self.pages, &mut self.scratch);
        let at = self.composite.with_number(key, last);
        if !pages.update(at, Page::default, |page| page.push(element, scratch)) {
            self.add_page(key, element);
        }
    }

    /// Appends an element that the last page has refused; it is counted already.
    #[cold]
    fn add_page(&mut self, key: KeyView<'_>, element: &T) {
        let next = self.heads.update(key, ListHead::default, |head| {
            head.last += 1;
            head.last
        });
        let mut page = Page::default();
        let fits = page.push(element, &mut self.scratch);
        debug_assert!(fits, "an empty page takes any element");
        self.pages.put(self.composite.with_number(key, next), &page);
    }

    /// Appends elements.
    pub fn add_all<'t>(&mut self, key: KeyView<'_>, elements: impl IntoIterator<Item = &'t T>) {
        for element in elements {
            self.add(key, element);
        }
    }

    /// Appends an element to the list of each record in `range`, in this order: what `element` makes of the record's index.
    pub fn add_batch<C: KeyColumn>(
        &mut self,
        keys: &C,
        range: Range<usize>,
        mut element: impl FnMut(usize) -> T,
    ) {
        let from = range.start;
        let mut column = CompositeColumn::default();
        self.heads.update_batch(
            keys,
            range,
            |_| ListHead::default(),
            |i, head| {
                head.len += 1;
                column.push_number(keys.key(i), head.last);
            },
        );
        // What a full page has refused comes after all that pages took: a closed page takes no later element of its list.
        let mut refused = Vec::new();
        let scratch = &mut self.scratch;
        let create = |_| Page::default();
        self.pages.update_batch(&column, column.range(), create, |i, page| {
            let element = element(from + i);
            if !page.push(&element, scratch) {
                refused.push((from + i, element));
            }
        });
        for (i, element) in refused {
            // The first of a list has made a page, in which the next may find room.
            let key = keys.key(i);
            let last = self.heads.read(key, |head| head.last.to_native()).unwrap_or_default();
            let (pages, scratch) = (&mut self.pages, &mut self.scratch);
            let at = self.composite.with_number(key, last);
            if !pages.update(at, Page::default, |page| page.push(&element, scratch)) {
                self.add_page(key, &element);
            }
        }
    }

    /// Visits the elements of a key in order, in place, until `visit` returns false; whether it never did.
    pub fn visit(&mut self, key: KeyView<'_>, mut visit: impl FnMut(&T::Archived) -> bool) -> bool {
        let Some(head) = self.heads.get(key) else { return true };
        (head.first..=head.last)
            .all(|number| self.page(key, number, |page, scratch| page::visit::<T>(page, scratch, &mut visit)))
    }

    /// Lends the pages of a key in order, each with a buffer to be overwritten.
    pub(super) fn for_each_page(
        &mut self,
        key: KeyView<'_>,
        mut visit: impl FnMut(&[u8], &mut RecordWriter) -> Result<(), RecordError>,
    ) {
        let Some(head) = self.heads.get(key) else { return };
        for number in head.first..=head.last {
            self.page(key, number, &mut visit);
        }
    }

    /// Lends a page. Where there is none the state is damaged, as its head says that there is.
    fn page<R>(
        &mut self,
        key: KeyView<'_>,
        number: u32,
        read: impl FnOnce(&[u8], &mut RecordWriter) -> Result<R, RecordError>,
    ) -> R {
        let (pages, scratch) = (&mut self.pages, &mut self.scratch);
        let read = pages.read(self.composite.with_number(key, number), |page| read(page, scratch));
        match read {
            Some(Ok(read)) => read,
            Some(Err(error)) => fault(StateError::Record(error)),
            None => fault(StateError::Record(page::missing::<T>(number))),
        }
    }

    /// Visits all elements of a key in order, in place.
    pub fn for_each(&mut self, key: KeyView<'_>, mut visit: impl FnMut(&T::Archived)) {
        self.visit(key, |element| {
            visit(element);
            true
        });
    }

    /// The elements of a key, copied.
    pub fn get(&mut self, key: KeyView<'_>) -> Vec<T> {
        let mut elements = Vec::new();
        self.for_each(key, |element| elements.push(restore::<T>(element)));
        elements
    }

    /// Replaces all elements of a key.
    pub fn replace<'t>(&mut self, key: KeyView<'_>, elements: impl IntoIterator<Item = &'t T>) {
        self.clear(key);
        self.add_all(key, elements);
    }

    /// Removes pages from the front as long as `drop` says so of all their elements: cheap, because no other page is
    /// touched. Returns how many elements went.
    pub fn drop_front(&mut self, key: KeyView<'_>, mut drop: impl FnMut(&T::Archived) -> bool) -> u64 {
        let Some(mut head) = self.heads.get(key) else { return 0 };
        let before = head.len;
        loop {
            let count = self.page(key, head.first, |page, scratch| {
                let whole = page::visit::<T>(page, scratch, &mut drop)?;
                Ok(if whole { Some(page::count::<T>(page)? as u64) } else { None })
            });
            let Some(count) = count else { break };
            self.pages.remove(self.composite.with_number(key, head.first));
            head.len -= count;
            if head.first == head.last {
                debug_assert_eq!(head.len, 0, "a list has as many elements as its pages");
                self.heads.remove(key);
                return before;
            }
            head.first += 1;
        }
        if head.len != before {
            self.heads.put(key, &head);
        }
        before - head.len
    }

    /// Removes all elements of a key; whether there were any. Takes time by the number of pages.
    pub fn clear(&mut self, key: KeyView<'_>) -> bool {
        let Some(head) = self.heads.get(key) else { return false };
        for number in head.first..=head.last {
            self.pages.remove(self.composite.with_number(key, number));
        }
        self.heads.remove(key)
    }

    /// Visits keys and the numbers of their elements, as [`KeyedTable::scan`] does.
    pub fn scan_keys(
        &mut self,
        cursor: usize,
        mut visit: impl FnMut(KeyView<'_>, u64) -> bool,
    ) -> Option<usize> {
        self.heads.scan(cursor, |key, head| visit(key, head.len.to_native()))
    }

    /// Has the backend show pages that it would have to copy, with the keys of their lists. None may go by itself.
    pub(super) fn watch_copies(&mut self, seen: impl Fn(KeyView<'_>, &[u8]) + 'static) {
        self.pages.expire_with(Box::new(move |composite, page| {
            if let Some((key, _)) = split(composite) {
                seen(key, page);
            }
            false
        }));
    }

    /// Hands over what changed since the last seal, as [`KeyedTable::seal`].
    pub fn seal(&mut self, sealed: &mut Sealed) {
        self.heads.seal(sealed);
        self.pages.seal(sealed);
    }

    /// Gives memory back if the backend's budget is used up, as [`KeyedTable::relieve`].
    pub fn relieve(&mut self) {
        self.heads.relieve();
        self.pages.relieve();
    }
}
