//! What all rolling operators have in common: an accumulator per key, and a result after each record.
//!
//! State: one accumulator per key. [`reduce`](super::reduce), [`fold`](super::fold) and [`aggregate`](super::aggregate) only
//! say what an accumulator is.

use std::{cell::Cell, collections::VecDeque, marker::PhantomData, ops::Range};

use rkyv::Archived;
use tidemill_engine::{
    model::{
        graph::BuildContext,
        item::Owned,
        metrics::{OperatorCounters, OperatorVisitor},
        operator::{Head, OpenError, OperatorIndex, Push, Signal, StepContext},
        source::{BoxError, Flow},
    },
    runtime::{blame::Blame, exchange::batch::Batch},
};
use tidemill_storage::{
    key::Key,
    record::Record,
    state::{KeyColumn, KeyView, KeyedTable, StateBackend, StateName, WHOLE},
};

use crate::{
    backend::{self, JobBackend, JobTable},
    exchange::HeadBuilder,
};

/// Name of the state.
const ACCUMULATORS: &str = "accumulators";
/// Records whose accumulators are updated together, before their results are handed on: enough for a backend to
/// fetch what they need from memory at once, and few enough for the results to stay in the nearest cache.
const TOGETHER_MAX: usize = 256;

/// What a rolling operator does with the records of a key.
pub trait Rolling<K: Key, T: Record>: Clone + Send + 'static {
    /// What is kept per key.
    type Accumulator: Record;
    /// What an accumulator comes to.
    type Value;
    /// What is handed on after each record.
    type Output: 'static;

    /// The accumulator of a key's first record.
    fn first(&self, record: &Archived<T>) -> Self::Accumulator;
    /// Adds a later record.
    fn add(&self, accumulator: &mut Self::Accumulator, record: &Archived<T>);
    /// The result so far.
    fn value(&self, accumulator: &Self::Accumulator) -> Self::Value;
    /// The result as it is handed on.
    ///
    /// # Errors
    /// When the key cannot be read back: the batch was damaged.
    fn output(&self, key: KeyView<'_>, value: Self::Value) -> Result<Self::Output, BoxError>;
}

/// Builds a rolling operator.
pub struct Roll<K, T, R> {
    operator: OperatorIndex,
    rolling: R,
    types: PhantomData<fn() -> (K, T)>,
}

impl<K, T, R> Roll<K, T, R> {
    /// That does `rolling`.
    pub fn new(operator: OperatorIndex, rolling: R) -> Self {
        Self { operator, rolling, types: PhantomData }
    }
}

impl<K, T, R: Clone> Clone for Roll<K, T, R> {
    fn clone(&self) -> Self {
        Self::new(self.operator, self.rolling.clone())
    }
}

impl<K: Key, T: Record, R: Rolling<K, T>> HeadBuilder for Roll<K, T, R> {
    type In = T;
    type Out = Owned<R::Output>;
    type Head<D: Push<Self::Out>> = RollHead<K, T, R, D>;

    fn build<D: Push<Self::Out>>(self, context: &BuildContext, down: D) -> Result<Self::Head<D>, OpenError> {
        let Self { operator, rolling, .. } = self;
        let mut backend = backend::open(operator, context)?;
        let name = StateName::new(context.operator_id(operator), ACCUMULATORS);
        let state =
            backend.open::<K, R::Accumulator>(name, Vec::new()).map_err(backend::refused(operator))?;
        let state = backend.table::<K, _>(state, WHOLE);
        let results = Vec::with_capacity(TOGETHER_MAX);
        Ok(RollHead { operator, rolling, backend, state, results, held: VecDeque::new(), records: 0, down })
    }
}

/// The running operator.
pub struct RollHead<K: Key, T: Record, R: Rolling<K, T>, D> {
    operator: OperatorIndex,
    rolling: R,
    backend: JobBackend,
    state: JobTable<K, R::Accumulator>,
    /// Results of records that were updated together. Empty between two calls.
    results: Vec<R::Value>,
    /// Results for which no room was left, of records of the batch in work. The head has said how many it handed on, so it
    /// is given the same batch again before anything else, from the first of these on.
    held: VecDeque<R::Value>,
    records: u64,
    down: D,
}

impl<K, T, R, D> RollHead<K, T, R, D>
where
    K: Key,
    T: Record,
    R: Rolling<K, T>,
    D: Push<Owned<R::Output>>,
{
    /// Hands on the result of record `i`.
    #[inline(always)]
    fn hand_on(&mut self, batch: &Batch<T>, i: usize, value: R::Value, context: &mut StepContext) {
        match self.rolling.output(batch.key(i), value) {
            Ok(output) => self.down.push(output, batch.timestamp(i), context),
            Err(error) => context.fail(self.operator, error),
        }
    }

    /// Updates the accumulators of the records in `range` and keeps their results.
    #[inline(always)]
    fn update(&mut self, batch: &Batch<T>, range: Range<usize>) {
        let Self { operator, rolling, state, results, .. } = self;
        let (records, first) = (batch.records(), Cell::new(usize::MAX));
        Blame::on(*operator, || {
            state.update_batch(
                batch,
                range,
                |i| {
                    first.set(i);
                    rolling.first(&records[i])
                },
                |i, accumulator| {
                    if first.get() != i {
                        rolling.add(accumulator, &records[i]);
                    }
                    results.push(rolling.value(accumulator));
                },
            );
        });
    }
}

impl<K, T, R, D> Head<T> for RollHead<K, T, R, D>
where
    K: Key,
    T: Record,
    R: Rolling<K, T>,
    D: Push<Owned<R::Output>>,
{
    fn batch(&mut self, batch: &Batch<T>, records: Range<usize>, context: &mut StepContext) -> usize {
        let Range { start: from, end } = records;
        let mut next = from;
        while next < end
            && !context.is_blocked()
            && let Some(value) = self.held.pop_front()
        {
            self.hand_on(batch, next, value, context);
            next += 1;
        }
        while next < end && !context.is_blocked() {
            self.update(batch, next..end.min(next + TOGETHER_MAX));
            let mut results = std::mem::take(&mut self.results);
            let mut rest = results.drain(..);
            for value in rest.by_ref() {
                self.hand_on(batch, next, value, context);
                next += 1;
                if context.is_blocked() {
                    break;
                }
            }
            self.held.extend(rest);
            self.results = results;
        }
        self.records += (next - from) as u64;
        next
    }

    fn catch_up(&mut self, batch: &Batch<T>, from: usize, context: &mut StepContext) -> usize {
        let mut next = from;
        while let Some(value) = self.held.pop_front() {
            self.hand_on(batch, next, value, context);
            next += 1;
        }
        self.records += (next - from) as u64;
        next
    }

    fn signal(&mut self, signal: Signal, context: &mut StepContext) -> Flow {
        if let Signal::Barrier(barrier) = signal {
            debug_assert!(self.held.is_empty(), "a barrier came before results of records before it");
            let Self { operator, backend, state, .. } = self;
            backend.snapshot(*operator, barrier, context, |sealed| state.seal(sealed));
        }
        self.down.signal(signal, context);
        Flow::Continue
    }

    fn drain(&mut self, context: &mut StepContext) {
        self.down.drain(context);
    }

    fn report(&self, visitor: &mut dyn OperatorVisitor) {
        let (records_in, records_out) = (self.records, self.records);
        visitor.operator(
            self.operator,
            &OperatorCounters { records_in, records_out, ..OperatorCounters::default() },
        );
        self.down.report(self.records, visitor);
    }
}
