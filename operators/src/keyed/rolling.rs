//! What all rolling operators have in common: an accumulator per key, and a result after each record.
//!
//! State: one accumulator per key. [`reduce`](super::reduce), [`fold`](super::fold) and [`aggregate`](super::aggregate) only
//! say what an accumulator is.

use std::{cell::Cell, marker::PhantomData};

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
    state::{KeyColumn, KeyView, KeyedTable, StateBackend, StateName, WHOLE, memory::MemoryBackend},
};

use crate::exchange::HeadBuilder;

/// Name of the state.
const ACCUMULATORS: &str = "accumulators";

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
    type Head<D: Push<Self::Out>> = RollHead<K, T, R, D, MemoryBackend>;

    fn build<D: Push<Self::Out>>(self, context: &BuildContext, down: D) -> Result<Self::Head<D>, OpenError> {
        let Self { operator, rolling, .. } = self;
        let mut backend = MemoryBackend::default();
        let name = StateName::new(context.operator_id(operator), ACCUMULATORS);
        let state = backend
            .open::<K, R::Accumulator>(name, Vec::new())
            .map_err(|error| OpenError { operator, cause: error.into() })?;
        Ok(RollHead { operator, rolling, state: backend.table::<K, _>(state, WHOLE), records: 0, down })
    }
}

/// The running operator.
pub struct RollHead<K: Key, T: Record, R: Rolling<K, T>, D, B: StateBackend> {
    operator: OperatorIndex,
    rolling: R,
    state: B::Table<K, R::Accumulator>,
    records: u64,
    down: D,
}

impl<K, T, R, D, B> Head<T> for RollHead<K, T, R, D, B>
where
    K: Key,
    T: Record,
    R: Rolling<K, T>,
    D: Push<Owned<R::Output>>,
    B: StateBackend,
{
    fn batch(&mut self, batch: &Batch<T>, from: usize, context: &mut StepContext) -> usize {
        let Self { operator, rolling, state, records, down } = self;
        for i in from..batch.len() {
            let key = batch.key(i);
            let (record, is_first) = (&batch.records()[i], Cell::new(false));
            let value = Blame::on(*operator, || {
                state.update(
                    key,
                    || {
                        is_first.set(true);
                        rolling.first(record)
                    },
                    |accumulator| {
                        if !is_first.get() {
                            rolling.add(accumulator, record);
                        }
                        rolling.value(accumulator)
                    },
                )
            });
            match rolling.output(key, value) {
                Ok(output) => down.push(output, batch.timestamp(i), context),
                Err(error) => context.fail(*operator, error),
            }
            if context.is_blocked() {
                *records += (i + 1 - from) as u64;
                return i + 1;
            }
        }
        *records += (batch.len() - from) as u64;
        batch.len()
    }

    fn signal(&mut self, signal: Signal, context: &mut StepContext) -> Flow {
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
