//! Both sides of an exchange as the stream API builds them: the end of one chain, the beginning of the next.

use std::ops::Range;

use tidemill_engine::{
    model::{
        graph::{BuildContext, EdgeNode, TaskBuilder, TaskMaker},
        item::{InPlace, Item, Ship},
        metrics::OperatorVisitor,
        operator::{Chain, Head, OpenError, OperatorIndex, Push, Signal, StepContext},
        source::Flow,
        task::Task,
    },
    runtime::{
        exchange::{
            batch::{Batch, Columns},
            edge::Edge,
            gate::Gate,
            in_flight::replay,
            partition::Partition,
            writer::{BatchSettings, EdgeWriter},
        },
        exchange_task::ExchangeTask,
    },
};
use tidemill_storage::record::Record;

/// Makes the operator at the head of a task behind an exchange.
pub trait HeadBuilder: Clone + Send + 'static {
    /// The records that it takes.
    type In: Record;
    /// What it hands on.
    type Out: Item;
    /// The running operator.
    type Head<D: Push<Self::Out>>: Head<Self::In>;

    /// Makes the instance of one subtask.
    ///
    /// # Errors
    /// Whatever keeps it from opening.
    fn build<D: Push<Self::Out>>(self, context: &BuildContext, down: D) -> Result<Self::Head<D>, OpenError>;
}

/// A chain that begins behind one exchange, or several whose streams are united.
pub struct Exchanged<B: HeadBuilder> {
    edges: Vec<Edge<B::In>>,
    builder: B,
}

impl<B: HeadBuilder> Exchanged<B> {
    /// A chain that takes what comes over `edges`.
    pub fn new(edges: Vec<Edge<B::In>>, builder: B) -> Self {
        Self { edges, builder }
    }
}

impl<B: HeadBuilder> Clone for Exchanged<B> {
    fn clone(&self) -> Self {
        Self { edges: self.edges.clone(), builder: self.builder.clone() }
    }
}

impl<B: HeadBuilder> Chain for Exchanged<B> {
    type Out = B::Out;
    type Task<D: Push<B::Out>> = ExchangeTask<B::In, B::Head<D>>;

    fn build<D: Push<B::Out>>(self, context: &BuildContext, down: D) -> Result<Self::Task<D>, OpenError> {
        let subtask = context.subtask.subtask;
        let mut channels: Vec<_> = self.edges.iter().flat_map(|edge| edge.take_receivers(subtask)).collect();
        let groups = context.config.key_groups();
        replay(&mut channels, groups, context.subtask.clock.now(), |edge| context.restored(edge)).map_err(
            |error| {
                let operator = channels.first().map_or(0, |channel| channel.place().edge);
                OpenError { operator, cause: error.into() }
            },
        )?;
        let head = self.builder.build(context, down)?;
        Ok(ExchangeTask::new(Gate::new(channels), head, context))
    }
}

/// The head that only hands on each record as it lies in its batch.
pub struct Unpack<T>(std::marker::PhantomData<fn() -> T>);

impl<T> Default for Unpack<T> {
    fn default() -> Self {
        Self(std::marker::PhantomData)
    }
}

impl<T> Clone for Unpack<T> {
    fn clone(&self) -> Self {
        Self::default()
    }
}

impl<T: Record> HeadBuilder for Unpack<T> {
    type In = T;
    type Out = InPlace<T>;
    type Head<D: Push<InPlace<T>>> = UnpackHead<D>;

    fn build<D: Push<InPlace<T>>>(
        self,
        _context: &BuildContext,
        down: D,
    ) -> Result<UnpackHead<D>, OpenError> {
        Ok(UnpackHead { down, records: 0 })
    }
}

/// The running head of [`Unpack`].
pub struct UnpackHead<D> {
    down: D,
    records: u64,
}

impl<T: Record, D: Push<InPlace<T>>> Head<T> for UnpackHead<D> {
    fn batch(&mut self, batch: &Batch<T>, records: Range<usize>, context: &mut StepContext) -> usize {
        let Range { start, end } = records;
        for (i, record) in (start..end).zip(&batch.records()[start..end]) {
            self.down.push(record, batch.timestamp(i), context);
            if context.is_blocked() {
                self.records += (i + 1 - start) as u64;
                return i + 1;
            }
        }
        self.records += (end - start) as u64;
        end
    }

    fn signal(&mut self, signal: Signal, context: &mut StepContext) -> Flow {
        self.down.signal(signal, context);
        Flow::Continue
    }

    fn drain(&mut self, context: &mut StepContext) {
        self.down.drain(context);
    }

    fn report(&self, visitor: &mut dyn OperatorVisitor) {
        self.down.report(self.records, visitor);
    }
}

/// The chain that ends in an exchange, and the edge behind it.
pub struct EdgeEnd<P> {
    /// The partitioning operator.
    pub operator: OperatorIndex,
    /// Chooses each record's target.
    pub partition: P,
    /// Which columns its batches carry.
    pub columns: Columns,
    /// Number of producing subtasks.
    pub producers: usize,
    /// Number of consuming subtasks.
    pub consumers: usize,
}

impl<P> EdgeEnd<P> {
    /// Ends `chain` here: gives what makes its tasks, the edge for the graph, and the edge for what reads from it.
    pub fn close<C, T>(self, chain: C) -> (TaskMaker, EdgeNode, Edge<T>)
    where
        C: Chain<Out: Ship<Record = T>>,
        T: Record,
        P: Partition<<C::Out as Item>::View>,
    {
        let edge = Edge::<T>::default();
        let (operator, partition, columns) = (self.operator, self.partition, self.columns);
        let writers = edge.clone();
        let instance = move || -> TaskBuilder {
            let (chain, partition, edge) = (chain.clone(), partition.clone(), writers.clone());
            Box::new(move |context| {
                let writer = open_writer(operator, partition, columns, &edge, context);
                Ok(Box::new(chain.build(context, writer)?) as Box<dyn Task>)
            })
        };
        let edge_node = EdgeNode {
            edge: Box::new(edge.clone()),
            pattern: P::PATTERN,
            broadcasts: P::BROADCASTS,
            producers: self.producers,
            consumers: self.consumers,
            consumed: false,
            operator,
        };
        (Box::new(instance), edge_node, edge)
    }
}

/// Takes the senders of one subtask and opens its partitioner.
pub(crate) fn open_writer<T: Record, V: ?Sized, P: Partition<V>>(
    operator: OperatorIndex,
    mut partition: P,
    columns: Columns,
    edge: &Edge<T>,
    context: &BuildContext,
) -> EdgeWriter<T, P> {
    let subtask = context.subtask.subtask;
    let senders = edge.take_senders(subtask);
    partition.open(subtask, senders.len(), context.config.key_groups());
    EdgeWriter::new(operator, partition, senders, BatchSettings::new(&context.config, columns))
}
