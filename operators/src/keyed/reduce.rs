//! Rolling `reduce`: combines each record with the result for its key so far and hands on the new result.
//!
//! State: the last result per key.

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
    record::{Record, restore},
    state::{KeyColumn, KeyedTable, StateBackend, memory::MemoryBackend},
};

use crate::exchange::HeadBuilder;

/// Builds a rolling `reduce`.
pub struct Reduce<T, F> {
    operator: OperatorIndex,
    function: F,
    records: PhantomData<fn() -> T>,
}

impl<T, F> Reduce<T, F> {
    /// With `function(result so far, record)`.
    pub fn new(operator: OperatorIndex, function: F) -> Self {
        Self { operator, function, records: PhantomData }
    }
}

impl<T, F: Clone> Clone for Reduce<T, F> {
    fn clone(&self) -> Self {
        Self::new(self.operator, self.function.clone())
    }
}

impl<T, F> HeadBuilder for Reduce<T, F>
where
    T: Record + Clone,
    F: FnMut(T, &Archived<T>) -> T + Clone + Send + 'static,
{
    type In = T;
    type Out = Owned<T>;
    type Head<D: Push<Owned<T>>> = ReduceHead<T, F, D, MemoryBackend>;

    fn build<D: Push<Owned<T>>>(self, _context: &BuildContext, down: D) -> Result<Self::Head<D>, OpenError> {
        let Self { operator, function, .. } = self;
        let results = MemoryBackend.table();
        Ok(ReduceHead { operator, function, results, records: 0, down })
    }
}

/// The running operator.
pub struct ReduceHead<T: Record, F, D, B: StateBackend> {
    operator: OperatorIndex,
    function: F,
    results: B::Table<Option<T>>,
    records: u64,
    down: D,
}

impl<T, F, D, B> Head<T> for ReduceHead<T, F, D, B>
where
    T: Record + Clone,
    F: FnMut(T, &Archived<T>) -> T + 'static,
    D: Push<Owned<T>>,
    B: StateBackend,
{
    fn batch(&mut self, batch: &Batch<T>, from: usize, context: &mut StepContext) -> usize {
        let Self { operator, function, results, records, down } = self;
        for i in from..batch.len() {
            let record = &batch.records()[i];
            let result = Blame::on(*operator, || {
                results.update(
                    batch.key(i),
                    || None,
                    |slot| {
                        let result = match slot.take() {
                            Some(result) => function(result, record),
                            None => restore(record),
                        };
                        *slot = Some(result.clone());
                        result
                    },
                )
            });
            down.push(result, batch.timestamp(i), context);
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
