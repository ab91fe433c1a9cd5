//! `string-keys`: keys of 40 bytes and values of 100, against maps that own both: inline in their slots, and boxed as
//! strings of any length would be.

use std::time::{Duration, Instant};

use tidemill::{
    platform::Random,
    storage::{
        key::hash_bytes,
        log::table::LogTable,
        record::restore,
        state::{KeyColumn, KeyView, KeyedTable, StateBackend, WHOLE},
        store::StoreOptions,
    },
};

use super::{
    Options,
    bed::{Bed, hasher, pin},
    keys::{BATCH, key},
};
use crate::{
    error::BenchError,
    report::{Line, Reporter},
    versus::{Versus, per_second},
};

type Text = [u8; 40];
type Value = [u8; 100];
type Table = LogTable<Text, Value>;

/// A map as the peer.
trait Peer {
    const NAME: &'static str;
    fn new() -> Self;
    fn update(&mut self, keys: &[Text]);
    fn get(&self, key: &[u8]) -> Option<&Value>;
    fn len(&self) -> usize;
}

struct Inline(hashbrown::HashMap<Text, Value, ahash::RandomState>);

impl Peer for Inline {
    const NAME: &'static str = "hashbrown, inline";

    fn new() -> Self {
        Self(hashbrown::HashMap::with_hasher(hasher()))
    }

    #[inline(never)]
    fn update(&mut self, keys: &[Text]) {
        for key in keys {
            touch(self.0.entry(*key).or_insert([0; 100]), key);
        }
    }

    fn get(&self, key: &[u8]) -> Option<&Value> {
        self.0.get(<&Text>::try_from(key).ok()?)
    }

    fn len(&self) -> usize {
        self.0.len()
    }
}

struct Boxed(hashbrown::HashMap<Box<[u8]>, Box<Value>, ahash::RandomState>);

impl Peer for Boxed {
    const NAME: &'static str = "hashbrown, boxed";

    fn new() -> Self {
        Self(hashbrown::HashMap::with_hasher(hasher()))
    }

    #[inline(never)]
    fn update(&mut self, keys: &[Text]) {
        for key in keys {
            match self.0.get_mut(&key[..]) {
                Some(value) => touch(value, key),
                None => {
                    let mut value = Box::new([0; 100]);
                    touch(&mut value, key);
                    self.0.insert(Box::from(&key[..]), value);
                }
            }
        }
    }

    fn get(&self, key: &[u8]) -> Option<&Value> {
        self.0.get(key).map(|value| &**value)
    }

    fn len(&self) -> usize {
        self.0.len()
    }
}

pub(super) fn run(options: &Options, reporter: &mut Reporter) -> Result<(), BenchError> {
    pin();
    let mut table = Loaded::new(options)?;
    against::<Inline>("string-keys", &mut table, options, reporter)?;
    let mut table = Loaded::new(options)?;
    against::<Boxed>("string-keys-boxed", &mut table, options, reporter)
}

/// The table with all keys, each once touched.
struct Loaded {
    table: Table,
    keys: u64,
    hashes: Vec<u64>,
}

impl Loaded {
    fn new(options: &Options) -> Result<Self, BenchError> {
        let mut bed = Bed::new::<Text, Value>(StoreOptions::new())?;
        let keys = options.pick(10_000_000, 200_000);
        let table = bed.store.table(bed.state, WHOLE);
        let mut loaded = Self { table, keys, hashes: Vec::with_capacity(BATCH) };
        each(keys, |batch| loaded.update(batch));
        Ok(loaded)
    }

    #[inline(never)]
    fn update(&mut self, keys: &[Text]) {
        self.hashes.clear();
        self.hashes.extend(keys.iter().map(|key| hash_bytes(key)));
        let column = Texts { hashes: &self.hashes, texts: keys };
        self.table.update_batch(&column, 0..keys.len(), |_| [0; 100], |i, value| touch(value, &keys[i]));
    }
}

struct Texts<'a> {
    hashes: &'a [u64],
    texts: &'a [Text],
}

impl KeyColumn for Texts<'_> {
    #[inline(always)]
    fn key(&self, i: usize) -> KeyView<'_> {
        KeyView { hash: self.hashes[i], bytes: &self.texts[i] }
    }
}

fn against<P: Peer>(
    row: &str,
    table: &mut Loaded,
    options: &Options,
    reporter: &mut Reporter,
) -> Result<(), BenchError> {
    let (updates, rounds) = options.pick((5_000_000, 7), (200_000, 3));
    let keys = table.keys;
    let mut map = P::new();
    each(keys, |batch| map.update(batch));
    let batches = updates / BATCH;
    let updates = (batches * BATCH) as u64;
    // Both sides draw the same keys.
    let (mut ours, mut theirs) = (Random::from_seed(3), Random::from_seed(3));
    let versus = Versus::alternate(
        rounds,
        || {
            let elapsed = timed(batches, keys, &mut ours, |batch| table.update(batch));
            Ok::<_, BenchError>(per_second(updates, elapsed))
        },
        || Ok(per_second(updates, timed(batches, keys, &mut theirs, |batch| map.update(batch)))),
    )?;
    check(row, &mut table.table, &map)?;
    let line = Line::new("state", row, 1).versus(&versus, "updates/s", P::NAME);
    reporter.print(&line.over(updates, None))
}

/// The text of the key with this number: like names of things, alike in front and different behind.
fn text(number: u64) -> Text {
    let mut text = *b"customer/eu-central-1/________________##";
    let digits = key(number);
    for (at, byte) in text[22..38].iter_mut().enumerate() {
        *byte = b'a' + (digits >> (4 * at) & 15) as u8;
    }
    text
}

/// Reads and writes all of a value.
#[inline(always)]
fn touch(value: &mut Value, key: &Text) {
    let (front, back) = value.split_at_mut(key.len());
    front.iter_mut().zip(key).for_each(|(byte, key)| *byte ^= key);
    back.iter_mut().for_each(|byte| *byte = byte.wrapping_add(1));
}

fn each(keys: u64, mut update: impl FnMut(&[Text])) {
    let mut batch = Vec::with_capacity(BATCH);
    for number in 0..keys {
        batch.push(text(number));
        if batch.len() == BATCH || number + 1 == keys {
            update(&batch);
            batch.clear();
        }
    }
}

fn timed(batches: usize, keys: u64, random: &mut Random, mut update: impl FnMut(&[Text])) -> Duration {
    let (mut batch, mut elapsed) = (vec![[0; 40]; BATCH], Duration::ZERO);
    for _ in 0..batches {
        batch.iter_mut().for_each(|next| *next = text(random.below(keys)));
        let start = Instant::now();
        update(&batch);
        elapsed += start.elapsed();
    }
    elapsed
}

fn check(row: &str, table: &mut Table, map: &impl Peer) -> Result<(), BenchError> {
    let (mut seen, mut difference) = (0, None);
    table.scan(0, |key, value| {
        if map.get(key.bytes) != Some(&restore::<Value>(value)) {
            difference = Some(format!("another value of {}", String::from_utf8_lossy(key.bytes)));
        }
        seen += 1;
        difference.is_none()
    });
    if difference.is_none() && (seen != map.len() || table.len() != seen) {
        difference = Some(format!("{seen} of {} keys, the map has {}", table.len(), map.len()));
    }
    match difference {
        None => Ok(()),
        Some(difference) => {
            Err(BenchError::WrongAnswer { side: "the log".to_owned(), query: row.to_owned(), difference })
        }
    }
}
