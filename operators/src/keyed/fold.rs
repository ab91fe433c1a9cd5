//! Rolling `fold` and `aggregate`: adds each record to the accumulator of its key and hands on the key with the new result.
//!
//! State: one accumulator per key.

use std::marker::PhantomData;

use rkyv::Archived;
use tidemill_engine::{
    model::{
        graph::BuildContext,
        item::Owned,
        metrics::{OperatorCounters, OperatorVisitor},
        operator::{Head, OpenError, OperatorIndex, Push, Signal, StepContext},
        source::Flow,
    },
    runtime::{blame::Blame, exchange::batch::Batch},
};
use tidemill_storage::{
    key::Key,
    record::Record,
    state::{KeyColumn, KeyedTable, StateBackend, memory::MemoryBackend},
};

use super::key::restore_key;
use crate::{aggregate::AggregateFunction, exchange::HeadBuilder};

/// What a rolling operator does with the records of a key.
pub trait Rolling<T: Record>: Clone + Send + 'static {
    /// What is kept per key.
    type Accumulator: Record;
    /// What is handed on after each record.
    type Output: 'static;

    /// The accumulator before the first record.
    fn create(&self) -> Self::Accumulator;
    /// Adds a record.
    fn add(&self, accumulator: &mut Self::Accumulator, record: &Archived<T>);
    /// The result so far.
    fn output(&self, accumulator: &Self::Accumulator) -> Self::Output;
}

/// `fold`: an initial value and a function.
#[derive(Clone)]
pub struct FoldWith<A, F> {
    /// The accumulator before the first record.
    pub initial: A,
    /// Adds a record.
    pub function: F,
}

impl<T, A, F> Rolling<T> for FoldWith<A, F>
where
    T: Record,
    A: Record + Clone,
    F: Fn(&mut A, &Archived<T>) + Clone + Send + 'static,
{
    type Accumulator = A;
    type Output = A;

    fn create(&self) -> A {
        self.initial.clone()
    }

    #[inline(always)]
    fn add(&self, accumulator: &mut A, record: &Archived<T>) {
        (self.function)(accumulator, record);
    }

    #[inline(always)]
    fn output(&self, accumulator: &A) -> A {
        accumulator.clone()
    }
}

/// `aggregate`: an [`AggregateFunction`] without a window.
#[derive(Clone)]
pub struct AggregateWith<G>(pub G);

impl<T: Record, G: AggregateFunction<T>> Rolling<T> for AggregateWith<G> {
    type Accumulator = G::Accumulator;
    type Output = G::Output;

    fn create(&self) -> G::Accumulator {
        self.0.create()
    }

    #[inline(always)]
    fn add(&self, accumulator: &mut G::Accumulator, record: &Archived<T>) {
        self.0.add(accumulator, record);
    }

    #[inline(always)]
    fn output(&self, accumulator: &G::Accumulator) -> G::Output {
        self.0.result(accumulator)
    }
}

/// Builds a rolling operator.
pub struct Fold<K, T, R> {
    operator: OperatorIndex,
    rolling: R,
    types: PhantomData<fn() -> (K, T)>,
}

impl<K, T, R> Fold<K, T, R> {
    /// That does `rolling`.
    pub fn new(operator: OperatorIndex, rolling: R) -> Self {
        Self { operator, rolling, types: PhantomData }
    }
}

impl<K, T, R: Clone> Clone for Fold<K, T, R> {
    fn clone(&self) -> Self {
        Self::new(self.operator, self.rolling.clone())
    }
}

impl<K: Key, T: Record, R: Rolling<T>> HeadBuilder for Fold<K, T, R> {
    type In = T;
    type Out = Owned<(K, R::Output)>;
    type Head<D: Push<Self::Out>> = FoldHead<K, T, R, D, MemoryBackend>;

    fn build<D: Push<Self::Out>>(self, _context: &BuildContext, down: D) -> Result<Self::Head<D>, OpenError> {
        let Self { operator, rolling, .. } = self;
        let state = MemoryBackend.table();
        Ok(FoldHead { operator, rolling, state, records: 0, down, types: PhantomData })
    }
}

/// The running operator.
pub struct FoldHead<K, T: Record, R: Rolling<T>, D, B: StateBackend> {
    operator: OperatorIndex,
    rolling: R,
    state: B::Table<R::Accumulator>,
    records: u64,
    down: D,
    types: PhantomData<fn() -> (K, T)>,
}

impl<K, T, R, D, B> Head<T> for FoldHead<K, T, R, D, B>
where
    K: Key,
    T: Record,
    R: Rolling<T>,
    D: Push<Owned<(K, R::Output)>>,
    B: StateBackend,
{
    fn batch(&mut self, batch: &Batch<T>, from: usize, context: &mut StepContext) -> usize {
        let Self { operator, rolling, state, records, down, .. } = self;
        for i in from..batch.len() {
            let key = batch.key(i);
            let output = Blame::on(*operator, || {
                state.update(
                    key,
                    || rolling.create(),
                    |accumulator| {
                        rolling.add(accumulator, &batch.records()[i]);
                        rolling.output(accumulator)
                    },
                )
            });
            match restore_key(key) {
                Ok(key) => down.push((key, output), batch.timestamp(i), context),
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
