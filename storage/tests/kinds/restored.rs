//! What comes back: every kind after a restore, with other key groups, as other types.

use tidemill_storage::{
    Record,
    key::{Key, hash_bytes, key_group},
    kinds::{
        descriptor::{ListStateDescriptor, MapStateDescriptor, ValueStateDescriptor},
        list::ListState,
        map::MapState,
        time_buffer::TimeBuffer,
        timers::{BUCKET_MS, Timers},
        ttl::TtlConfig,
        value::ValueState,
    },
    log::seal::Sealed,
    state::{KeyView, StateBackend, StateError, StateName},
};

use crate::kept::{Kept, Snapshot};

const KEYS: u32 = 40;

/// One state of each kind.
pub struct States<B: StateBackend> {
    value: ValueState<String, u64, B>,
    list: ListState<String, String, B>,
    map: MapState<String, u16, u64, B>,
    pub timers: Timers<String, B>,
    buffer: TimeBuffer<String, u64, B>,
}

impl<B: StateBackend> States<B> {
    pub fn open(backend: &mut B, width_ms: u64) -> Self {
        let name = |state| StateName::new("operator", state);
        Self {
            value: ValueStateDescriptor::new("value").open(backend, "operator").unwrap(),
            list: ListStateDescriptor::new("list").open(backend, "operator").unwrap(),
            map: MapStateDescriptor::new("map").open(backend, "operator").unwrap(),
            timers: Timers::open(backend, name("timers")).unwrap(),
            buffer: TimeBuffer::open(backend, name("buffer"), Vec::new(), width_ms).unwrap(),
        }
    }

    /// Gives key `number` as much of everything.
    pub fn fill(&mut self, backend: &mut B, number: u32, key: KeyView<'_>) {
        self.value.set(key, &u64::from(number));
        for i in 0..number {
            self.list.add(key, &format!("{number} {i} {}", "x".repeat(i as usize)));
            self.map.put(key, &(i as u16), u64::from(i * number));
            let at = i64::from(i) * BUCKET_MS / 3;
            self.timers.register(backend, at, key);
            self.buffer.insert(backend, key, at, u64::from(i));
        }
    }

    /// Takes everything away from a key but its timers.
    pub fn clear(&mut self, key: KeyView<'_>) {
        self.value.clear(key);
        self.list.clear(key);
        self.map.clear(key);
    }

    /// Whether nothing but timers and what is sorted by time is left of a key.
    pub fn is_clear(&mut self, key: KeyView<'_>) -> bool {
        self.value.get(key).is_none() && self.list.is_empty(key) && self.map.is_empty(key)
    }

    /// Hands over everything.
    pub fn seal(&mut self, sealed: &mut Sealed) {
        self.value.seal(sealed);
        self.list.seal(sealed);
        self.map.seal(sealed);
        self.timers.seal(sealed);
        self.buffer.seal(sealed);
    }

    /// Whether it is all there, in `0..number`, or nothing if it should not be.
    pub fn check(&mut self, number: u32, key: KeyView<'_>, is_here: bool) {
        let number_here = if is_here { number } else { 0 };
        assert_eq!(self.value.get(key), is_here.then_some(u64::from(number)));
        let expected: Vec<String> =
            (0..number_here).map(|i| format!("{number} {i} {}", "x".repeat(i as usize))).collect();
        assert_eq!(self.list.get(key), expected);
        assert_eq!(self.map.len(key), number_here);
        let mut sum = 0;
        self.map.for_each(key, |map_key, value| {
            assert_eq!(value.to_native(), u64::from(map_key) * u64::from(number));
            sum += u32::from(map_key);
        });
        assert_eq!(sum, (0..number_here).sum::<u32>());
        let mut seen = Vec::new();
        self.buffer.visit(key, i64::MIN..=i64::MAX, |_, value| seen.push(value.to_native()));
        assert_eq!(seen, (0..u64::from(number_here)).collect::<Vec<_>>());
    }
}

pub fn with_text<R>(number: u32, run: impl FnOnce(KeyView<'_>) -> R) -> R {
    let text = format!("key {number}");
    run(KeyView { hash: hash_bytes(text.as_bytes()), bytes: text.as_bytes() })
}

fn filled() -> Snapshot {
    let mut backend = Kept::default();
    let mut states = States::open(&mut backend, 500);
    for number in 0..KEYS {
        with_text(number, |key| states.fill(&mut backend, number, key));
    }
    backend.snapshot()
}

#[test]
fn all_kinds_come_back_with_their_key_groups_split_and_joined_again() {
    let all = filled();
    let parts = [0..30, 30..31, 31..128].map(|groups| {
        let part = all.part(groups.clone());
        let mut backend = Kept::restore(part);
        let mut states = States::open(&mut backend, 500);
        let mut timers = 0;
        for number in 0..KEYS {
            with_text(number, |key| {
                let is_here = groups.contains(&key_group(key.hash, 128));
                states.check(number, key, is_here);
                timers += if is_here { number as usize } else { 0 };
            });
        }
        assert_eq!(states.timers.len(), timers);
        backend.snapshot()
    });
    let [first, second, third] = parts;
    let joined = third.and(first).and(second);
    assert_eq!(joined.rows(), all.rows());
    let mut backend = Kept::restore(joined);
    let mut states = States::open(&mut backend, 500);
    for number in 0..KEYS {
        with_text(number, |key| states.check(number, key, true));
    }
    let times: Vec<i64> =
        std::iter::from_fn(|| states.timers.pop_until(i64::MAX)).map(|timer| timer.at).collect();
    assert_eq!(times.len() as u32, (0..KEYS).sum::<u32>());
    assert!(times.is_sorted());
}

#[test]
fn popped_timers_do_not_come_back_and_a_slice_that_is_done_is_gone() {
    let mut backend = Kept::restore(filled());
    let mut states = States::open(&mut backend, 500);
    let mut left = states.timers.len();
    let mut taken = Vec::new();
    states.timers.pop_batch(2 * BUCKET_MS + 400, 30, &mut taken);
    states.timers.pop_batch(2 * BUCKET_MS + 400, usize::MAX, &mut taken);
    left -= taken.len();
    left -= usize::from(states.timers.pop_until(i64::MAX).is_some());
    let snapshot = backend.snapshot();
    drop(states);
    let mut backend = Kept::restore(snapshot);
    let states = States::open(&mut backend, 500);
    assert_eq!(states.timers.len(), left);
    assert!(states.timers.next() > Some(2 * BUCKET_MS + 400));
}

#[test]
fn a_time_buffer_goes_on_with_buckets_of_another_width() {
    let mut backend = Kept::restore(filled());
    let mut states = States::open(&mut backend, 5000);
    with_text(20, |key| {
        for at in [1, 0, 2000, -7] {
            states.buffer.insert(&mut backend, key, at, 1000 + at.unsigned_abs());
        }
        let mut times = Vec::new();
        states.buffer.visit(key, -10..=2000, |at, _| times.push(at));
        let mut expected: Vec<i64> = (0..20).map(|i| i * BUCKET_MS / 3).filter(|at| *at <= 2000).collect();
        expected.extend([1, 0, 2000, -7]);
        expected.sort_unstable();
        assert_eq!(times, expected);
        states.buffer.expire_before(1 << 13);
        let mut left = Vec::new();
        states.buffer.visit(key, i64::MIN..=i64::MAX, |at, _| left.push(at));
        assert!(left.iter().all(|at| *at >= 1 << 13), "{left:?}");
    });
}

#[derive(Record, Clone, Debug, PartialEq)]
#[record(name = "Bid")]
struct OldBid {
    price: u32,
}

#[derive(Record, Clone, Debug, PartialEq)]
#[record(version = 2)]
struct Bid {
    price: u64,
    currency: String,
}

fn migrate(old: OldBid) -> Bid {
    Bid { price: old.price.into(), currency: "EUR".to_owned() }
}

fn bid(price: u64) -> Bid {
    Bid { price, currency: "EUR".to_owned() }
}

/// Bids of the old type in each kind, with a time to live and without.
fn old_bids(key: KeyView<'_>) -> Snapshot {
    let mut backend = Kept::default();
    let ttl = TtlConfig::new(100);
    let value = ValueStateDescriptor::<OldBid>::new;
    let list = ListStateDescriptor::<OldBid>::new;
    let map = MapStateDescriptor::<String, OldBid>::new;
    let old = |price| OldBid { price };
    value("value").open::<u64, _>(&mut backend, "op").unwrap().set(key, &old(1));
    let mut value_state = value("value").open::<u64, _>(&mut backend, "op2").unwrap();
    value_state.set(key, &old(1));
    let mut ttl_value = value("ttl value").with_ttl(ttl).open::<u64, _>(&mut backend, "op").unwrap();
    ttl_value.set(key, 5, old(2));
    let mut list_state = list("list").open::<u64, _>(&mut backend, "op").unwrap();
    (0..300).for_each(|price| list_state.add(key, &old(price)));
    let mut ttl_list = list("ttl list").with_ttl(ttl).open::<u64, _>(&mut backend, "op").unwrap();
    (0..300).for_each(|price| ttl_list.add(key, 5, old(price)));
    let mut map_state = map("map").open::<u64, _>(&mut backend, "op").unwrap();
    map_state.put(key, &"one".to_owned(), old(1));
    let mut ttl_map = map("ttl map").with_ttl(ttl).open::<u64, _>(&mut backend, "op").unwrap();
    ttl_map.put(key, &"two".to_owned(), 5, old(2));
    backend.snapshot()
}

#[test]
fn every_kind_migrates() {
    let hash = 9_u64.key_hash(&mut Vec::new());
    let key = KeyView { hash, bytes: &[] };
    let mut backend = Kept::restore(old_bids(key));
    let ttl = TtlConfig::new(100);
    let value = |name| ValueStateDescriptor::<Bid>::new(name).migrate_from(migrate);
    let list =
        |name| ListStateDescriptor::<Bid>::new(name).migrate_from(|_: u8| bid(0)).migrate_from(migrate);
    let map = |name| MapStateDescriptor::<String, Bid>::new(name).migrate_from(migrate);
    let bids: Vec<Bid> = (0..300).map(bid).collect();
    assert_eq!(value("value").open::<u64, _>(&mut backend, "op2").unwrap().get(key), Some(bid(1)));
    let mut state = value("ttl value").with_ttl(ttl).open::<u64, _>(&mut backend, "op").unwrap();
    assert_eq!((state.get(key, 104), state.get(key, 105)), (Some(bid(2)), None));
    let mut state = list("list").open::<u64, _>(&mut backend, "op").unwrap();
    assert_eq!(state.get(key), bids);
    state.add(key, &bid(300));
    assert_eq!((state.len(key), state.get(key).last()), (301, Some(&bid(300))));
    let mut state = list("ttl list").with_ttl(ttl).open::<u64, _>(&mut backend, "op").unwrap();
    assert_eq!((state.get(key, 104), state.get(key, 105)), (bids, Vec::new()));
    let mut state = map("map").open::<u64, _>(&mut backend, "op").unwrap();
    assert_eq!(state.get(key, &"one".to_owned()), Some(bid(1)));
    let mut state = map("ttl map").with_ttl(ttl).open::<u64, _>(&mut backend, "op").unwrap();
    assert_eq!(state.get(key, &"two".to_owned(), 104), Some(bid(2)));
    assert_eq!(state.get(key, &"two".to_owned(), 105), None);
}

#[test]
fn another_type_is_refused_with_all_that_is_needed_to_find_it() {
    let key = KeyView { hash: 1, bytes: &[] };
    let old = old_bids(key);
    let text = |result: Result<(), StateError>| result.unwrap_err().to_string();
    let backend = || Kept::restore(old.clone());
    let value = ValueStateDescriptor::<Bid>::new("value").open::<u64, _>(&mut backend(), "op2");
    assert!(text(value.map(drop)).starts_with(
        "state `value` of operator `op2` was stored with values `Bid` and is opened with `Bid.v2`"
    ));
    let value = ValueStateDescriptor::<OldBid>::new("value").open::<u32, _>(&mut backend(), "op2");
    assert!(text(value.map(drop)).contains("stored with keys `u64` and is opened with `u32`"));
    let list = ListStateDescriptor::<Bid>::new("list").open::<u64, _>(&mut backend(), "op");
    assert!(text(list.map(drop)).contains("values `List<Bid>` and is opened with `List<Bid.v2>`"));
    let map = MapStateDescriptor::<u8, OldBid>::new("map").open::<u64, _>(&mut backend(), "op");
    assert!(text(map.map(drop)).contains("keys `u64 / String` and is opened with `u64 / u8`"));
    let other_kind = ValueStateDescriptor::<OldBid>::new("list").open::<u64, _>(&mut backend(), "op");
    assert!(text(other_kind.map(drop)).contains("keys `u64 / u32` and is opened with `u64`"));
    let no_ttl = ValueStateDescriptor::<OldBid>::new("ttl value").open::<u64, _>(&mut backend(), "op");
    assert!(text(no_ttl.map(drop)).contains("values `(Bid, TtlStamp)` and is opened with `Bid`"));
}
