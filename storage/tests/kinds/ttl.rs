//! State with a time to live against models that keep time stamps.

use std::collections::{BTreeMap, HashMap};

use proptest::prelude::*;
use tidemill_storage::{
    key::hash_bits,
    kinds::{
        ttl::{TtlConfig, TtlUpdate, TtlVisibility},
        ttl_list::TtlListState,
        ttl_map::TtlMapState,
        ttl_value::TtlValueState,
    },
    state::{KeyView, StateBackend, StateName},
    store::{Store, StoreOptions},
};

use crate::{name, with_key};

const TTL: i64 = 20;

#[derive(Clone, Debug)]
enum Operation {
    Write(u8, u8, u32),
    Update(u8, u8),
    Read(u8, u8),
    Remove(u8, u8),
    CleanUp(usize),
}

/// Operations on an entry of a key, and how much time passes before each.
fn operations() -> impl Strategy<Value = Vec<(i64, Operation)>> {
    let (key, entry) = (0..4_u8, 0..4_u8);
    let operation = prop_oneof![
        4 => (key.clone(), entry.clone(), any::<u32>()).prop_map(|(k, e, v)| Operation::Write(k, e, v)),
        3 => (key.clone(), entry.clone()).prop_map(|(k, e)| Operation::Update(k, e)),
        5 => (key.clone(), entry.clone()).prop_map(|(k, e)| Operation::Read(k, e)),
        1 => (key, entry).prop_map(|(k, e)| Operation::Remove(k, e)),
        2 => (0..5_usize).prop_map(Operation::CleanUp),
    ];
    prop::collection::vec((0..9_i64, operation), 0..100)
}

fn config(on_read: bool, shows: bool) -> TtlConfig {
    let ttl = TtlConfig::new(TTL as u64);
    let ttl = if on_read { ttl.update(TtlUpdate::OnReadAndWrite) } else { ttl };
    if shows { ttl.visibility(TtlVisibility::ReturnExpiredIfNotCleanedUp) } else { ttl }
}

fn is_live(stamp: i64, now: i64) -> bool {
    now < stamp + TTL
}

/// What a model keeps per value.
type Stamped = (u32, i64);

/// Reads a value of a model as the state should. An expired one that may still be there is given second.
fn read(slot: &mut Option<Stamped>, now: i64, on_read: bool) -> (Option<u32>, Option<u32>) {
    match slot {
        Some((value, stamp)) if is_live(*stamp, now) => {
            if on_read {
                *stamp = now;
            }
            (Some(*value), None)
        }
        _ => (None, slot.take().map(|(value, _)| value)),
    }
}

pub fn values_expire<B: StateBackend>(make: impl Fn() -> B) {
    proptest!(|(operations in operations(), on_read: bool, shows: bool)| {
        let mut backend = make();
        let mut state =
            TtlValueState::<String, u32, B>::open(&mut backend, name(), Vec::new(), config(on_read, shows)).unwrap();
        let mut model = HashMap::<u8, Option<Stamped>>::new();
        let mut now = 0;
        for (passed, operation) in operations {
            now += passed;
            match operation {
                Operation::Write(key, _, value) => {
                    with_key(key, true, |key| state.set(key, now, value));
                    model.insert(key, Some((value, now)));
                }
                Operation::Update(key, _) => {
                    let updated = with_key(key, true, |key| state.update(key, now, || 7, |value| {
                        *value = value.wrapping_add(1);
                        *value
                    }));
                    let slot = model.entry(key).or_default();
                    let (live, expired) = read(slot, now, false);
                    let fresh = live.unwrap_or(7).wrapping_add(1);
                    let revived = expired.filter(|_| shows).map(|value| value.wrapping_add(1));
                    prop_assert!(updated == fresh || Some(updated) == revived);
                    *slot = Some((updated, now));
                }
                Operation::Read(key, _) => {
                    let seen = with_key(key, true, |key| state.get(key, now));
                    let (live, expired) = read(model.entry(key).or_default(), now, on_read);
                    prop_assert!(seen == live || (shows && seen == expired), "{seen:?} {live:?} {expired:?}");
                    let again = with_key(key, true, |key| state.contains(key, now));
                    prop_assert_eq!(again, live.is_some(), "what has expired is there no longer than one read");
                }
                Operation::Remove(key, _) => {
                    let live = model.remove(&key).flatten().is_some_and(|(_, stamp)| is_live(stamp, now));
                    prop_assert!(with_key(key, true, |key| state.clear(key)) || !live);
                }
                Operation::CleanUp(keys) => {
                    state.clean_up(now, keys);
                }
            }
        }
        for _ in 0..20 {
            state.clean_up(now + TTL, 5);
        }
        prop_assert!(state.is_empty(), "{} left", state.len());
    });
}

pub fn maps_expire<B: StateBackend>(make: impl Fn() -> B) {
    proptest!(|(operations in operations(), on_read: bool, shows: bool, all: bool)| {
        let mut backend = make();
        let mut state =
            TtlMapState::<String, u8, u32, B>::open(&mut backend, name(), Vec::new(), config(on_read, shows))
                .unwrap();
        let mut model = HashMap::<(u8, u8), Option<Stamped>>::new();
        let mut now = 0;
        for (passed, operation) in operations {
            now += passed;
            match operation {
                Operation::Write(key, entry, value) => {
                    with_key(key, true, |key| state.put(key, &entry, now, value));
                    model.insert((key, entry), Some((value, now)));
                }
                Operation::Update(key, entry) => {
                    let updated = with_key(key, true, |key| state.update(key, &entry, now, || 7, |value| {
                        *value = value.wrapping_add(1);
                        *value
                    }));
                    let slot = model.entry((key, entry)).or_default();
                    let (live, expired) = read(slot, now, false);
                    let fresh = live.unwrap_or(7).wrapping_add(1);
                    let revived = expired.filter(|_| shows).map(|value| value.wrapping_add(1));
                    prop_assert!(updated == fresh || Some(updated) == revived);
                    *slot = Some((updated, now));
                }
                Operation::Read(key, _) if all => {
                    let mut seen = BTreeMap::new();
                    with_key(key, true, |key| state.for_each(key, now, |entry, value| {
                        assert!(seen.insert(entry, value.to_native()).is_none());
                    }));
                    for entry in 0..4 {
                        let (live, expired) = read(model.entry((key, entry)).or_default(), now, on_read);
                        let seen = seen.get(&entry).copied();
                        prop_assert!(seen == live || (shows && seen == expired));
                    }
                    let live = (0..4).filter(|entry| model[&(key, *entry)].is_some()).count();
                    prop_assert_eq!(with_key(key, true, |key| state.len(key)) as usize, live);
                }
                Operation::Read(key, entry) => {
                    let seen = with_key(key, true, |key| state.get(key, &entry, now));
                    let (live, expired) = read(model.entry((key, entry)).or_default(), now, on_read);
                    prop_assert!(seen == live || (shows && seen == expired));
                }
                Operation::Remove(key, entry) => {
                    let live = model.remove(&(key, entry)).flatten().is_some_and(|(_, stamp)| is_live(stamp, now));
                    prop_assert!(with_key(key, true, |key| state.remove(key, &entry)) || !live);
                }
                Operation::CleanUp(entries) => {
                    state.clean_up(now, entries);
                }
            }
        }
        for _ in 0..40 {
            state.clean_up(now + TTL, 5);
        }
        prop_assert_eq!(state.keys(), 0);
    });
}

pub fn lists_expire<B: StateBackend>(make: impl Fn() -> B) {
    proptest!(|(operations in operations(), on_read: bool, shows: bool, long in 1..60_usize)| {
        let mut backend = make();
        let mut state =
            TtlListState::<String, String, B>::open(&mut backend, name(), Vec::new(), config(on_read, shows)).unwrap();
        let mut model = HashMap::<u8, Vec<(String, i64)>>::new();
        let mut now = 0;
        for (passed, operation) in operations {
            now += passed;
            match operation {
                Operation::Write(key, count, value) => for number in 0..count {
                    let element = format!("{value} {number} ").repeat(long);
                    with_key(key, true, |key| state.add(key, now, element.clone()));
                    model.entry(key).or_default().push((element, now));
                },
                Operation::Read(key, _) | Operation::Update(key, _) => {
                    let seen = with_key(key, true, |key| state.get(key, now));
                    let list = model.entry(key).or_default();
                    let live: Vec<String> =
                        list.iter().filter(|(_, stamp)| is_live(*stamp, now)).map(|(e, _)| e.clone()).collect();
                    let all: Vec<String> = list.iter().map(|(element, _)| element.clone()).collect();
                    if shows {
                        prop_assert!(seen.ends_with(&live) && all.ends_with(&seen));
                    } else {
                        prop_assert_eq!(seen, live);
                    }
                    if on_read {
                        list.retain(|(_, stamp)| is_live(*stamp, now));
                        list.iter_mut().for_each(|(_, stamp)| *stamp = now);
                        prop_assert_eq!(with_key(key, true, |key| state.len(key)) as usize, list.len());
                    }
                }
                Operation::Remove(key, _) => {
                    with_key(key, true, |key| state.clear(key));
                    model.remove(&key);
                }
                Operation::CleanUp(keys) => {
                    state.clean_up(now, keys);
                }
            }
        }
        for _ in 0..20 {
            state.clean_up(now + TTL, 5);
        }
        prop_assert_eq!(state.keys(), 0);
    });
}

/// What has expired goes while a store compacts: without being read, and without a cleanup.
#[test]
fn compaction_finds_expired_entries_and_elements() {
    let mut store = Store::new(StoreOptions::new());
    let ttl = TtlConfig::new(TTL as u64);
    let name = |state| StateName::new("operator", state);
    let mut map =
        TtlMapState::<u64, u64, [u64; 8], _>::open(&mut store, name("map"), Vec::new(), ttl).unwrap();
    let mut list = TtlListState::<u64, [u64; 8], _>::open(&mut store, name("list"), Vec::new(), ttl).unwrap();
    let key = |number: u64| KeyView { hash: hash_bits(number), bytes: &[] };
    for number in 0..20_000 {
        map.put(key(number), &number, 0, [number; 8]);
        list.add(key(number), 0, [number; 8]);
    }
    // Two of three go, so that the store compacts: it would have to copy the third.
    for number in (0..20_000).filter(|number| number % 3 != 0) {
        map.remove(key(number), &number);
        list.clear(key(number));
    }
    let now = TTL;
    for number in (0..20_000).map(|number| 20_000 + number % 1_000) {
        map.put(key(number), &number, now, [number; 8]);
        list.replace(key(number), now, [[number; 8]]);
    }
    assert!(map.keys() < 3_000 && list.keys() < 3_000, "{} and {} keys", map.keys(), list.keys());
    assert!((20_000..21_000).all(|number| map.get(key(number), &number, now) == Some([number; 8])));
    assert!((20_000..21_000).all(|number| list.get(key(number), now) == [[number; 8]]));
}

/// All keys are new, and nobody asks for one again: the cleanup has to come back to the old ones all the same.
#[test]
fn a_cleanup_keeps_up_with_keys_that_never_come_again() {
    const CALL: u64 = 512;
    let mut store = Store::new(StoreOptions::new());
    let ttl = TtlConfig::new(1_000);
    let name = |state| StateName::new("operator", state);
    let mut value = TtlValueState::<u64, u64, _>::open(&mut store, name("value"), Vec::new(), ttl).unwrap();
    let mut map = TtlMapState::<u64, u64, u64, _>::open(&mut store, name("map"), Vec::new(), ttl).unwrap();
    let mut list = TtlListState::<u64, u64, _>::open(&mut store, name("list"), Vec::new(), ttl).unwrap();
    let key = |number: u64| KeyView { hash: hash_bits(number), bytes: &[] };
    let (mut values, mut maps, mut lists) = (0, 0, 0);
    for number in 0..30_000 {
        let now = number as i64;
        value.set(key(number), now, number);
        // More entries than a call looks at anyway.
        (0..3).for_each(|entry| map.put(key(number), &entry, now, number));
        list.add(key(number), now, number);
        if number % CALL == 0 {
            value.clean_up(now, CALL as usize);
            map.clean_up(now, CALL as usize);
            list.clean_up(now, CALL as usize);
            values = values.max(value.len());
            maps = maps.max(map.keys());
            lists = lists.max(list.keys());
        }
    }
    assert!([values, maps, lists].iter().all(|keys| *keys < 5_000), "{values}, {maps} and {lists} keys");
}
