//! [`AggregatingState`]: one accumulator per key, to which inputs of another type are added.

use std::ops::Range;

use crate::{
    key::Key,
    log::seal::Sealed,
    record::{Record, with_value},
    state::{KeyColumn, KeyView, KeyedTable, Migration, StateBackend, StateError, StateName},
};

use super::value::ValueState;

/// How inputs become an accumulator and that a result. All functions are pure.
pub trait Aggregate: 'static {
    /// What is added; the archived form of a record, for example.
    type Input: ?Sized;
    /// What is stored.
    type Accumulator: Record;
    /// What comes out.
    type Output;

    /// The accumulator of no input.
    fn create(&self) -> Self::Accumulator;

    /// Adds an input.
    fn add(&self, accumulator: &mut Self::Accumulator, input: &Self::Input);

    /// The result so far.
    fn result(&self, accumulator: &Self::Accumulator) -> Self::Output;
}

/// One accumulator per key.
///
/// ```
/// use tidemill_storage::{
///     key::Key,
///     kinds::aggregating::{Aggregate, AggregatingState},
///     state::{KeyView, StateName, memory::MemoryBackend},
/// };
///
/// struct Mean;
///
/// impl Aggregate for Mean {
///     type Input = f64;
///     type Accumulator = (f64, u64);
///     type Output = f64;
///     fn create(&self) -> (f64, u64) { (0.0, 0) }
///     fn add(&self, (sum, count): &mut (f64, u64), input: &f64) { *sum += input; *count += 1; }
///     fn result(&self, (sum, count): &(f64, u64)) -> f64 { sum / *count as f64 }
/// }
///
/// let mut backend = MemoryBackend::default();
/// let name = StateName::new("sensors", "mean");
/// let mut means = AggregatingState::<u32, _, _>::open(&mut backend, name, Vec::new(), Mean)?;
/// let sensor = KeyView { hash: 7_u32.key_hash(&mut Vec::new()), bytes: &[] };
/// means.add(sensor, &1.0);
/// means.add(sensor, &4.0);
/// assert_eq!(means.get(sensor), Some(2.5));
/// # Ok::<(), tidemill_storage::state::StateError>(())
/// ```
pub struct AggregatingState<K: Key, A: Aggregate, B: StateBackend> {
    values: ValueState<K, A::Accumulator, B>,
    aggregate: A,
}

impl<K: Key, A: Aggregate, B: StateBackend> AggregatingState<K, A, B> {
    /// Opens the state, with what was restored under its name.
    ///
    /// # Errors
    /// As [`StateBackend::open`].
    pub fn open(
        backend: &mut B,
        name: StateName,
        migrations: Vec<Migration<A::Accumulator>>,
        aggregate: A,
    ) -> Result<Self, StateError> {
        Ok(Self { values: ValueState::open(backend, name, migrations)?, aggregate })
    }

    /// Adds an input to the accumulator of a key.
    #[inline]
    pub fn add(&mut self, key: KeyView<'_>, input: &A::Input) {
        let aggregate = &self.aggregate;
        let create = || aggregate.create();
        self.values.update(key, create, |accumulator| aggregate.add(accumulator, input));
    }

    /// Adds an input for each record in `range`, in this order: what `input` lends for the record's index.
    pub fn add_batch<'i, C: KeyColumn>(
        &mut self,
        keys: &C,
        range: Range<usize>,
        input: impl Fn(usize) -> &'i A::Input,
    ) where
        A::Input: 'i,
    {
        let aggregate = &self.aggregate;
        let create = |_| aggregate.create();
        self.values.update_batch(keys, range, create, |i, accumulator| aggregate.add(accumulator, input(i)));
    }

    /// The result of a key, if anything was added.
    pub fn get(&mut self, key: KeyView<'_>) -> Option<A::Output> {
        let aggregate = &self.aggregate;
        self.values.read(key, |accumulator| {
            with_value::<A::Accumulator, _>(accumulator, |accumulator| aggregate.result(accumulator))
        })
    }

    /// Removes the accumulator of a key; whether there was one.
    pub fn clear(&mut self, key: KeyView<'_>) -> bool {
        self.values.clear(key)
    }

    /// Number of keys that have an accumulator.
    pub fn len(&self) -> usize {
        self.values.len()
    }

    /// Whether no key has an accumulator.
    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    /// Hands over what changed since the last seal, as [`KeyedTable::seal`].
    pub fn seal(&mut self, sealed: &mut Sealed) {
        self.values.seal(sealed);
    }

    /// Gives memory back if the backend's budget is used up, as [`KeyedTable::relieve`].
    pub fn relieve(&mut self) {
        self.values.table().relieve();
    }
}
