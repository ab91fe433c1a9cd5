//! `fork`: ends a chain in two forward edges that both carry every record.

use tidemill_engine::{
    model::{
        graph::{BuildContext, TaskBuilder},
        item::Ship,
        metrics::OperatorVisitor,
        operator::{Chain, OperatorIndex, Push, Signal, StepContext},
        task::Task,
        time::Timestamp,
    },
    runtime::exchange::{batch::Columns, edge::Edge, partition::Forward, writer::EdgeWriter},
};
use tidemill_storage::record::Record;

use crate::exchange::open_writer;

/// Ends `chain` in both edges: gives what builds each subtask.
pub fn into_edges<C, T>(
    chain: C,
    operators: [OperatorIndex; 2],
    columns: Columns,
    edges: [Edge<T>; 2],
) -> impl Fn() -> TaskBuilder + Send
where
    C: Chain<Out: Ship<Record = T>>,
    T: Record,
{
    move || {
        let (chain, edges) = (chain.clone(), edges.clone());
        Box::new(move |context: &BuildContext| {
            let [first, second] = [0, 1].map(|side| {
                open_writer::<T, T, Forward>(operators[side], Forward, columns, &edges[side], context)
            });
            Ok(Box::new(chain.build(context, ForkPush { first, second })?) as Box<dyn Task>)
        })
    }
}

/// The running operator: two writers.
pub struct ForkPush<T> {
    first: EdgeWriter<T, Forward>,
    second: EdgeWriter<T, Forward>,
}

impl<I, T> Push<I> for ForkPush<T>
where
    I: Ship<Record = T>,
    T: Record,
{
    #[inline(always)]
    fn push(&mut self, item: I::Ref<'_>, timestamp: Timestamp, context: &mut StepContext) {
        self.first.write::<I>(&item, timestamp, context);
        self.second.write::<I>(&item, timestamp, context);
    }

    fn signal(&mut self, signal: Signal, context: &mut StepContext) {
        Push::<I>::signal(&mut self.first, signal, context);
        Push::<I>::signal(&mut self.second, signal, context);
    }

    fn drain(&mut self, context: &mut StepContext) {
        Push::<I>::drain(&mut self.first, context);
        Push::<I>::drain(&mut self.second, context);
    }

    fn report(&self, arrived: u64, visitor: &mut dyn OperatorVisitor) {
        Push::<I>::report(&self.first, arrived, visitor);
        Push::<I>::report(&self.second, arrived, visitor);
    }
}
