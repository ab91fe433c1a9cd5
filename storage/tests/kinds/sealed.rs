//! Every kind in snapshots of the store: sealed with all its tables, and back with other key groups.

use std::{ops::Range, path::PathBuf, sync::Arc};

use tidemill_storage::{
    key::key_group,
    kinds::{
        aggregating::{Aggregate, AggregatingState},
        reducing::ReducingState,
        ttl::TtlConfig,
        ttl_list::TtlListState,
        ttl_map::TtlMapState,
        ttl_value::TtlValueState,
        value::ValueState,
    },
    log::seal::Sealed,
    snapshot::disk::memory::MemoryDisk,
    state::{StateBackend, StateError, memory::MemoryBackend},
    store::{
        Store, StoreOptions,
        files::{FileOptions, WriterKind},
    },
};

use crate::{
    name,
    restored::{States, with_text},
};

const KEYS: u32 = 40;

fn options(disk: &MemoryDisk, directory: &str, key_groups: Range<u32>) -> StoreOptions {
    let files = FileOptions {
        directory: PathBuf::from(directory),
        store: u128::from(key_groups.end),
        disk: Arc::new(disk.clone()),
        notify: None,
        writer: WriterKind::Here,
    };
    StoreOptions { key_groups, files: Some(files), ..StoreOptions::new() }
}

fn snapshot(store: &mut Store, number: u64, seal: impl FnOnce(&mut Sealed)) -> PathBuf {
    let mut sealing = store.begin_seal();
    seal(sealing.sealed());
    store.snapshot(number, sealing).unwrap();
    store.wait_for_snapshot().unwrap().manifest().unwrap()
}

#[test]
fn all_kinds_come_back_from_snapshots_split_and_joined_again() {
    let disk = MemoryDisk::default();
    let mut store = Store::new(options(&disk, "/one", 0..128));
    let mut states = States::open(&mut store, 500);
    for number in 0..KEYS {
        with_text(number, |key| states.fill(&mut store, number, key));
    }
    // What is in the first snapshot and gone in the second.
    with_text(KEYS, |key| states.fill(&mut store, 3, key));
    snapshot(&mut store, 1, |sealed| states.seal(sealed));
    with_text(KEYS, |key| states.clear(key));
    let whole = snapshot(&mut store, 2, |sealed| states.seal(sealed));
    let split = [0..30, 30..31, 31..128].map(|groups| {
        let directory = format!("/split/{}", groups.end);
        let options = options(&disk, &directory, groups.clone());
        let mut store =
            Store::restore(options, Arc::new(disk.clone()), std::slice::from_ref(&whole)).unwrap();
        let mut states = States::open(&mut store, 500);
        for number in 0..KEYS {
            with_text(number, |key| states.check(number, key, groups.contains(&key_group(key.hash, 128))));
        }
        snapshot(&mut store, 3, |sealed| states.seal(sealed))
    });
    let options = options(&disk, "/joined", 0..128);
    let mut store = Store::restore(options, Arc::new(disk.clone()), &split).unwrap();
    let mut states = States::open(&mut store, 500);
    for number in 0..KEYS {
        with_text(number, |key| states.check(number, key, true));
    }
    with_text(KEYS, |key| assert!(states.is_clear(key)));
    let times: Vec<i64> =
        std::iter::from_fn(|| states.timers.pop_until(i64::MAX)).map(|timer| timer.at).collect();
    assert_eq!(times.len() as u32, (0..KEYS).sum::<u32>() + 3);
    assert!(times.is_sorted());
}

struct Sum;

impl Aggregate for Sum {
    type Input = u64;
    type Accumulator = u64;
    type Output = u64;

    fn create(&self) -> u64 {
        0
    }

    fn add(&self, sum: &mut u64, input: &u64) {
        *sum += input;
    }

    fn result(&self, sum: &u64) -> u64 {
        *sum
    }
}

/// One state of each kind that is made of others.
struct Combined<B: StateBackend> {
    reducing: ReducingState<String, u64, B, fn(&u64, &u64) -> u64>,
    aggregating: AggregatingState<String, Sum, B>,
    value: TtlValueState<String, u64, B>,
    list: TtlListState<String, u64, B>,
    map: TtlMapState<String, u16, u64, B>,
}

impl<B: StateBackend> Combined<B> {
    fn open(backend: &mut B) -> Self {
        let name = |state: &str| tidemill_storage::state::StateName::new("combined", state);
        let ttl = TtlConfig::new(100);
        let add: fn(&u64, &u64) -> u64 = |a, b| a + b;
        Self {
            reducing: ReducingState::open(backend, name("reducing"), Vec::new(), add).unwrap(),
            aggregating: AggregatingState::open(backend, name("aggregating"), Vec::new(), Sum).unwrap(),
            value: TtlValueState::open(backend, name("value"), Vec::new(), ttl).unwrap(),
            list: TtlListState::open(backend, name("list"), Vec::new(), ttl).unwrap(),
            map: TtlMapState::open(backend, name("map"), Vec::new(), ttl).unwrap(),
        }
    }

    fn seal(&mut self, sealed: &mut Sealed) {
        self.reducing.seal(sealed);
        self.aggregating.seal(sealed);
        self.value.seal(sealed);
        self.list.seal(sealed);
        self.map.seal(sealed);
    }
}

#[test]
fn kinds_made_of_others_come_back_with_their_stamps() {
    let disk = MemoryDisk::default();
    let mut store = Store::new(options(&disk, "/one", 0..128));
    let mut states = Combined::open(&mut store);
    with_text(1, |key| {
        for number in 1..=3 {
            states.reducing.add(key, number);
            states.aggregating.add(key, &number);
        }
        states.value.set(key, 50, 7);
        states.list.add(key, 10, 8);
        states.list.add(key, 50, 9);
        states.map.put(key, &1, 10, 10);
        states.map.put(key, &2, 50, 11);
    });
    let manifest = snapshot(&mut store, 1, |sealed| states.seal(sealed));
    let options = options(&disk, "/two", 0..128);
    let mut store = Store::restore(options, Arc::new(disk.clone()), &[manifest]).unwrap();
    let mut states = Combined::open(&mut store);
    with_text(1, |key| {
        assert_eq!((states.reducing.get(key), states.aggregating.get(key)), (Some(6), Some(6)));
        assert_eq!(states.value.get(key, 149), Some(7));
        assert_eq!(states.list.get(key, 149), [9]);
        assert_eq!((states.map.get(key, &1, 149), states.map.get(key, &2, 149)), (None, Some(11)));
        assert_eq!(states.value.get(key, 150), None);
    });
}

#[test]
fn state_in_plain_memory_says_that_it_has_no_snapshots() {
    let mut backend = MemoryBackend::default();
    let mut values = ValueState::<u64, u64, _>::open(&mut backend, name(), Vec::new()).unwrap();
    let sealed = std::panic::AssertUnwindSafe(|| values.seal(&mut Sealed::default()));
    let fault = std::panic::catch_unwind(sealed).unwrap_err();
    assert!(matches!(*fault.downcast::<StateError>().unwrap(), StateError::NoSnapshots));
}
