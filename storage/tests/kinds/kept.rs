//! A slow backend that can be restored: archived bytes in ordered maps, taken away and given back with other
//! types, or in parts.

use std::{
    cell::RefCell,
    collections::BTreeMap,
    rc::{Rc, Weak},
};

use rkyv::Archived;
use tidemill_storage::{
    key::{Key, key_group},
    log::seal::Sealed,
    record::{Record, access, last_root, restore, to_bytes},
    state::{KeyView, KeyedTable, Migration, Slice, StateBackend, StateError, StateId, StateName},
    writer::RecordWriter,
};

/// Archived values by hash and bytes of their keys.
type Rows = BTreeMap<(u64, Vec<u8>), Vec<u8>>;

/// What is stored of a state.
#[derive(Clone, Debug, Default)]
struct Stored {
    keys: String,
    values: String,
    slices: BTreeMap<Slice, Rows>,
}

/// Everything that a backend holds.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    states: BTreeMap<StateName, Stored>,
}

impl Snapshot {
    /// Only the key groups in `groups`, of 128.
    pub fn part(&self, groups: std::ops::Range<u32>) -> Self {
        let mut part = self.clone();
        for rows in part.states.values_mut().flat_map(|state| state.slices.values_mut()) {
            rows.retain(|(hash, _), _| groups.contains(&key_group(*hash, 128)));
        }
        part
    }

    /// The rows of both.
    pub fn and(mut self, other: Self) -> Self {
        for (name, state) in other.states {
            let own = self.states.entry(name).or_default();
            (own.keys, own.values) = (state.keys, state.values);
            for (slice, rows) in state.slices {
                own.slices.entry(slice).or_default().extend(rows);
            }
        }
        self
    }

    /// Number of rows of all states.
    pub fn rows(&self) -> usize {
        self.states.values().flat_map(|state| state.slices.values()).map(BTreeMap::len).sum()
    }
}

#[derive(Default)]
struct Open {
    name: Option<StateName>,
    stored: Stored,
    live: Vec<(Slice, Weak<RefCell<Rows>>)>,
}

/// The backend.
#[derive(Default)]
pub struct Kept {
    restored: Snapshot,
    open: Vec<Open>,
}

impl Kept {
    /// With what was restored.
    pub fn restore(restored: Snapshot) -> Self {
        Self { restored, open: Vec::new() }
    }

    /// Everything that is in tables that were not dropped, or was not taken.
    pub fn snapshot(&self) -> Snapshot {
        let mut snapshot = self.restored.clone();
        for open in &self.open {
            let mut stored = open.stored.clone();
            for (slice, rows) in &open.live {
                if let Some(rows) = rows.upgrade() {
                    stored.slices.insert(*slice, rows.borrow().clone());
                }
            }
            snapshot.states.insert(open.name.clone().unwrap(), stored);
        }
        snapshot
    }
}

impl StateBackend for Kept {
    type Table<K: Key, V: Record> = KeptTable<V>;

    fn open<K: Key, V: Record>(
        &mut self,
        name: StateName,
        migrations: Vec<Migration<V>>,
    ) -> Result<StateId, StateError> {
        let (keys, values) = (K::stored_name().into_owned(), V::schema().into_owned());
        let mut stored = self.restored.states.remove(&name).unwrap_or_else(|| Stored {
            keys: keys.clone(),
            values: values.clone(),
            slices: BTreeMap::new(),
        });
        let schema = |what, stored: &str, wanted: String| StateError::Schema {
            operator: name.operator.clone(),
            state: name.state.clone(),
            what,
            stored: stored.to_owned(),
            wanted,
        };
        if stored.keys != keys {
            return Err(schema("keys", &stored.keys, keys));
        }
        if stored.values != values {
            let Some(migration) = migrations.iter().find(|migration| migration.from == stored.values) else {
                return Err(schema("values", &stored.values, values));
            };
            for row in stored.slices.values_mut().flat_map(BTreeMap::values_mut) {
                let migrated = (migration.migrate)(aligned(row).bytes())?;
                *row = to_bytes(&migrated)?.bytes().to_vec();
            }
            stored.values = values;
        }
        self.open.push(Open { name: Some(name), stored, live: Vec::new() });
        Ok(StateId(self.open.len() as u32 - 1))
    }

    fn restored(&self, state: StateId) -> Vec<Slice> {
        self.open[state.0 as usize].stored.slices.keys().copied().collect()
    }

    fn table<K: Key, V: Record>(&mut self, state: StateId, slice: Slice) -> KeptTable<V> {
        let open = &mut self.open[state.0 as usize];
        assert_eq!(open.stored.values, V::schema(), "a table is asked for with the types that were opened");
        let rows = Rc::new(RefCell::new(open.stored.slices.remove(&slice).unwrap_or_default()));
        open.live.retain(|(_, rows)| rows.strong_count() > 0);
        assert!(open.live.iter().all(|(other, _)| *other != slice), "slice {slice} is there twice");
        open.live.push((slice, Rc::downgrade(&rows)));
        KeptTable { rows, value: std::marker::PhantomData }
    }
}

fn aligned(bytes: &[u8]) -> RecordWriter {
    let mut aligned = RecordWriter::default();
    aligned.append_bytes(bytes);
    aligned
}

/// A table of the backend.
pub struct KeptTable<V> {
    rows: Rc<RefCell<Rows>>,
    value: std::marker::PhantomData<V>,
}

fn lend<V: Record, R>(bytes: &[u8], lend: impl FnOnce(&Archived<V>) -> R) -> R {
    let aligned = aligned(bytes);
    lend(access::<V>(aligned.bytes(), last_root::<V>(bytes.len()).unwrap()).unwrap())
}

fn row(key: KeyView<'_>) -> (u64, Vec<u8>) {
    (key.hash, key.bytes.to_vec())
}

impl<K: Key, V: Record> KeyedTable<K, V> for KeptTable<V> {
    fn len(&self) -> usize {
        self.rows.borrow().len()
    }

    fn read<R>(&mut self, key: KeyView<'_>, read: impl FnOnce(&Archived<V>) -> R) -> Option<R> {
        self.rows.borrow().get(&row(key)).map(|bytes| lend::<V, R>(bytes, read))
    }

    fn update<R>(
        &mut self,
        key: KeyView<'_>,
        create: impl FnOnce() -> V,
        update: impl FnOnce(&mut V) -> R,
    ) -> R {
        let old = self.rows.borrow().get(&row(key)).map(|bytes| lend::<V, V>(bytes, |v| restore::<V>(v)));
        let mut value = old.unwrap_or_else(create);
        let result = update(&mut value);
        KeyedTable::<K, V>::put(self, key, &value);
        result
    }

    fn put(&mut self, key: KeyView<'_>, value: &V) {
        self.rows.borrow_mut().insert(row(key), to_bytes(value).unwrap().bytes().to_vec());
    }

    fn remove(&mut self, key: KeyView<'_>) -> bool {
        self.rows.borrow_mut().remove(&row(key)).is_some()
    }

    fn scan(
        &mut self,
        cursor: usize,
        mut visit: impl FnMut(KeyView<'_>, &Archived<V>) -> bool,
    ) -> Option<usize> {
        for (at, ((hash, bytes), value)) in self.rows.borrow().iter().enumerate().skip(cursor) {
            if !lend::<V, bool>(value, |value| visit(KeyView { hash: *hash, bytes }, value)) {
                return Some(at + 1);
            }
        }
        None
    }

    fn seal(&mut self, _sealed: &mut Sealed) {
        unreachable!("its rows are copied whole");
    }
}
