//! [`Stream`]: records on their way, and what can be done with them.

use std::sync::{Arc, Mutex, PoisonError};

use tidemill_engine::{
    model::{
        graph::{EdgeNode, Node, TaskMaker},
        item::{Item, Owned, Ship},
        operator::{Chain, OperatorIndex},
        sink::{CommitContext, Sink},
        watermark::{AssignTimestamps, WatermarkStrategy},
    },
    runtime::exchange::{
        batch::Columns,
        edge::Edge,
        key_of::{Borrowed, Extracted},
        partition::{Broadcast, Custom, Forward, Global, KeyBy, Partition, Pattern, Rebalance, Rescale},
    },
};
use tidemill_storage::{
    key::{Key, KeyRef},
    record::{Record, WriteAs},
};

use super::{
    combined::CombinedStream, data_stream_sink::DataStreamSink, environment::SharedGraph, keyed::KeyedStream,
};
use crate::{
    assign_timestamps::Timestamped,
    ends,
    exchange::{EdgeEnd, Exchanged, Unpack},
    filter::Filter,
    filter_map::FilterMap,
    flat_map::FlatMap,
    fork,
    inspect::Inspect,
    map::Map,
    ship_as::ShipAs,
};

/// A stream behind an exchange: its records are read in place, as `&Archived<T>`.
pub type ExchangedStream<T> = Stream<Exchanged<Unpack<T>>>;

/// What the functions of a stream see of its records: `T` before an exchange, `Archived<T>` behind one.
pub type ViewOf<C> = <<C as Chain>::Out as Item>::View;
/// The record type of a stream.
pub type RecordOf<C> = <<C as Chain>::Out as Item>::Native;
/// The record type of a stream on the other side of an exchange.
pub type ShippedOf<C> = <<C as Chain>::Out as Ship>::Record;
/// What `map` and its like take: a record by value before an exchange, `&Archived<T>` behind one.
pub type ItemOf<'a, C> = <<C as Chain>::Out as Item>::Ref<'a>;

/// What all kinds of streams know of their place in the job.
#[derive(Clone)]
pub(crate) struct StreamBase {
    pub(crate) graph: SharedGraph,
    /// Number of workers of the job.
    pub(crate) workers: usize,
    /// Number of subtasks of the chain under construction.
    pub(crate) parallelism: usize,
    /// Whether records carry event time.
    pub(crate) timestamps: bool,
    /// The operator that was added last: the one that `name` names.
    pub(crate) last: OperatorIndex,
    /// Edges that the chain reads from, by index in the graph.
    pub(crate) reads: Vec<usize>,
    /// The operators of the chain so far.
    pub(crate) operators: Vec<OperatorIndex>,
}

impl StreamBase {
    pub(crate) fn add_operator(&mut self, name: &str) -> OperatorIndex {
        let operator = self.graph.borrow_mut().add_operator(name);
        self.added(operator)
    }

    /// As [`add_operator`](Self::add_operator), of one that the user has named.
    fn add_named_operator(&mut self, name: &str) -> OperatorIndex {
        let operator = self.graph.borrow_mut().add_named_operator(name);
        self.added(operator)
    }

    fn added(&mut self, operator: OperatorIndex) -> OperatorIndex {
        self.last = operator;
        self.operators.push(operator);
        operator
    }

    /// Adds a finished chain, which takes over what it reads from. One that reads from no edge begins with a source.
    pub(crate) fn add_node(&self, instance: TaskMaker) {
        let mut graph = self.graph.borrow_mut();
        graph.nodes.push(Node {
            parallelism: self.parallelism,
            is_source: self.reads.is_empty(),
            operators: self.operators.clone(),
            reads: self.reads.clone(),
            instance,
        });
        for edge in &self.reads {
            graph.edges[*edge].consumed = true;
        }
    }

    /// The base of a chain that begins behind an edge.
    pub(crate) fn behind(self, parallelism: usize, edge: usize) -> Self {
        Self { parallelism, reads: vec![edge], operators: Vec::new(), ..self }
    }

    /// Ends `chain` in an exchange to `consumers` subtasks; returns the base of what comes behind it.
    pub(crate) fn exchange<C, P>(
        mut self,
        chain: C,
        name: &str,
        partition: P,
        consumers: usize,
    ) -> (Self, Edge<ShippedOf<C>>)
    where
        C: Chain<Out: Ship>,
        P: Partition<ViewOf<C>>,
    {
        let operator = self.add_operator(name);
        let columns = Columns { timestamps: self.timestamps, hashes: P::HASHED, keys: P::WIDE };
        let end = EdgeEnd { operator, partition, columns, producers: self.parallelism, consumers };
        let (instance, edge_node, edge) = end.close(chain);
        self.add_node(instance);
        let index = self.graph.borrow_mut().add_edge(edge_node);
        (self.behind(consumers, index), edge)
    }
}

/// A stream of records. `C` is the chain of operators built so far, which the compiler fuses into one function;
/// a function that takes any stream of bids says `Stream<impl Chain<Out = Owned<Bid>>>`.
#[must_use = "a stream does nothing until it ends in a sink"]
pub struct Stream<C> {
    base: StreamBase,
    chain: C,
}

impl<C> Stream<C> {
    pub(crate) fn new(base: StreamBase, chain: C) -> Self {
        Self { base, chain }
    }

    /// Names the last operator, for messages and metrics.
    pub fn name(self, name: &str) -> Self {
        self.base.graph.borrow_mut().operator_mut(self.base.last).name = name.to_owned();
        self
    }

    /// Gives the last operator a stable id, by which its state is found again when the job has changed.
    pub fn uid(self, id: &str) -> Self {
        self.base.graph.borrow_mut().set_id(self.base.last, id);
        self
    }
}

impl<C: Chain> Stream<C> {
    fn then<N>(self, name: &str, next: impl FnOnce(C, OperatorIndex) -> N) -> Stream<N> {
        let Self { mut base, chain } = self;
        let operator = base.add_operator(name);
        Stream::new(base, next(chain, operator))
    }

    /// Makes one record of each.
    pub fn map<U, F>(self, function: F) -> Stream<Map<C, F, U>>
    where
        F: FnMut(ItemOf<'_, C>) -> U + Clone + Send + 'static,
        U: 'static,
    {
        self.then("map", |chain, operator| Map::new(chain, operator, function))
    }

    /// Lets records through for which `predicate` holds.
    pub fn filter<F>(self, predicate: F) -> Stream<Filter<C, F>>
    where
        F: FnMut(&ViewOf<C>) -> bool + Clone + Send + 'static,
    {
        self.then("filter", |chain, operator| Filter::new(chain, operator, predicate))
    }

    /// Makes one record of each, or none.
    pub fn filter_map<U, F>(self, function: F) -> Stream<FilterMap<C, F, U>>
    where
        F: FnMut(ItemOf<'_, C>) -> Option<U> + Clone + Send + 'static,
        U: 'static,
    {
        self.then("filter_map", |chain, operator| FilterMap::new(chain, operator, function))
    }

    /// Makes any number of records of each.
    pub fn flat_map<U, F>(self, function: F) -> Stream<FlatMap<C, F, U>>
    where
        F: FnMut(ItemOf<'_, C>) -> U + Clone + Send + 'static,
        U: IntoIterator<Item: 'static> + 'static,
    {
        self.then("flat_map", |chain, operator| FlatMap::new(chain, operator, function))
    }

    /// Looks at each record.
    pub fn inspect<F>(self, look: F) -> Stream<Inspect<C, F>>
    where
        F: FnMut(&ViewOf<C>) + Clone + Send + 'static,
    {
        self.then("inspect", |chain, operator| Inspect::new(chain, operator, look))
    }

    /// Gives records event time here instead of at the source. Timestamps they had are replaced.
    pub fn assign_timestamps_and_watermarks<A>(
        mut self,
        strategy: WatermarkStrategy<A>,
    ) -> Stream<Timestamped<C, A>>
    where
        A: AssignTimestamps<ViewOf<C>>,
    {
        self.base.timestamps = A::ENABLED;
        self.then("assign_timestamps", |chain, operator| Timestamped::new(chain, operator, strategy))
    }

    /// Ends the stream in a sink. `name` is for messages and metrics, and the sink's id too if no other operator of the job has
    /// it; [`DataStreamSink::uid`] gives it another.
    pub fn sink<S>(self, name: &str, sink: S) -> DataStreamSink
    where
        S: Sink<RecordOf<C>>,
    {
        let Self { mut base, chain } = self;
        let operator = base.add_named_operator(name);
        let (sink, parallelism) = (Arc::new(Mutex::new(sink)), base.parallelism);
        let prepared = Arc::clone(&sink);
        let prepare = move || prepared.lock().unwrap_or_else(PoisonError::into_inner).prepare(parallelism);
        base.graph.borrow_mut().preparations.push((operator, Box::new(prepare)));
        let committing = Arc::clone(&sink);
        let committer = move |context: &CommitContext| {
            committing.lock().unwrap_or_else(PoisonError::into_inner).committer(context)
        };
        base.graph.borrow_mut().committers.push((operator, Box::new(committer)));
        let instance = Box::new(ends::into_sink(chain, operator, sink));
        base.add_node(instance);
        DataStreamSink::new(base.graph, operator)
    }

    /// Ends the stream in a function that is called for each record on the record's core: by value before an
    /// exchange, `&Archived<T>` behind one. Each subtask has its own clone.
    pub fn for_each<F>(self, function: F) -> DataStreamSink
    where
        F: FnMut(ItemOf<'_, C>) + Clone + Send + 'static,
    {
        let Self { mut base, chain } = self;
        let operator = base.add_operator("for_each");
        let instance = Box::new(ends::into_function(chain, operator, function));
        base.add_node(instance);
        DataStreamSink::new(base.graph, operator)
    }
}

impl<V: 'static, C: Chain<Out = Owned<V>>> Stream<C> {
    /// Lets records cross exchanges as `T`, which they can be written as: a view whose text is borrowed becomes a record
    /// that owns it without a copy in between. See [`WriteAs`].
    pub fn ship_as<T>(self) -> Stream<ShipAs<C, T>>
    where
        V: WriteAs<T>,
        T: Record,
    {
        let Self { base, chain } = self;
        Stream::new(base, ShipAs::new(chain))
    }
}

impl<C> Stream<C>
where
    C: Chain<Out: Ship>,
{
    fn exchanged<P>(self, name: &str, partition: P, consumers: usize) -> ExchangedStream<ShippedOf<C>>
    where
        P: Partition<ViewOf<C>>,
    {
        let (base, edge) = self.base.exchange(self.chain, name, partition, consumers);
        Stream::new(base, Exchanged::new(vec![edge], Unpack::default()))
    }

    /// Partitions the stream: all records for which `key` gives the same key go to one subtask, which keeps their state.
    pub fn key_by<K, F>(self, key: F) -> KeyedStream<K, ShippedOf<C>>
    where
        K: Key,
        F: FnMut(&ViewOf<C>) -> K + Clone + Send + 'static,
    {
        let workers = self.base.workers;
        let (base, edge) = self.base.exchange(self.chain, "key_by", KeyBy::new(Extracted::new(key)), workers);
        KeyedStream::new(base, edge)
    }

    /// As [`key_by`](Self::key_by), with a key borrowed from the record, such as `|flight| &flight.origin`: nothing
    /// is allocated per record.
    pub fn key_by_ref<Q, F>(self, key: F) -> KeyedStream<Q::Owned, ShippedOf<C>>
    where
        Q: KeyRef + ?Sized + 'static,
        F: FnMut(&ViewOf<C>) -> &Q + Clone + Send + 'static,
    {
        let workers = self.base.workers;
        let (base, edge) = self.base.exchange(self.chain, "key_by", KeyBy::new(Borrowed::new(key)), workers);
        KeyedStream::new(base, edge)
    }

    /// As [`key_by`](Self::key_by), for windows that sum up: every subtask first combines its own records of a key, and what
    /// crosses to the key's subtask is what they came to. Worth it where a key has several records per subtask and slice
    /// of a window, or few keys have most records, which one core would otherwise have to take in alone.
    ///
    /// See [`CombinedStream`] for what it costs.
    pub fn combine_by<K, F>(self, key: F) -> CombinedStream<C, Extracted<K, F>>
    where
        K: Key,
        F: FnMut(&ViewOf<C>) -> K + Clone + Send + 'static,
    {
        CombinedStream::new(self.base, self.chain, Extracted::new(key))
    }

    /// As [`combine_by`](Self::combine_by), with a key borrowed from the record, as in [`key_by_ref`](Self::key_by_ref).
    pub fn combine_by_ref<Q, F>(self, key: F) -> CombinedStream<C, Borrowed<Q, F>>
    where
        Q: KeyRef + ?Sized + 'static,
        F: FnMut(&ViewOf<C>) -> &Q + Clone + Send + 'static,
    {
        CombinedStream::new(self.base, self.chain, Borrowed::new(key))
    }

    /// Spreads records evenly, one after the other over all subtasks.
    pub fn rebalance(self) -> ExchangedStream<ShippedOf<C>> {
        let workers = self.base.workers;
        self.exchanged("rebalance", Rebalance::default(), workers)
    }

    /// Spreads records evenly over the nearest subtasks only.
    pub fn rescale(self) -> ExchangedStream<ShippedOf<C>> {
        let workers = self.base.workers;
        self.exchanged("rescale", Rescale::default(), workers)
    }

    /// Gives every subtask every record.
    pub fn broadcast(self) -> ExchangedStream<ShippedOf<C>> {
        let workers = self.base.workers;
        self.exchanged("broadcast", Broadcast, workers)
    }

    /// Brings all records to one subtask; what follows runs there only.
    pub fn global(self) -> ExchangedStream<ShippedOf<C>> {
        self.exchanged("global", Global, 1)
    }

    /// Sends each record to the subtask that `choose(record, number of subtasks)` names, modulo their number.
    pub fn partition_custom<F>(self, choose: F) -> ExchangedStream<ShippedOf<C>>
    where
        F: FnMut(&ViewOf<C>, usize) -> usize + Clone + Send + 'static,
    {
        let workers = self.base.workers;
        self.exchanged("partition_custom", Custom::new(choose), workers)
    }

    /// Hands each record to the subtask with the same index: begins a new task without moving records between cores.
    pub fn forward(self) -> ExchangedStream<ShippedOf<C>> {
        let consumers = self.base.parallelism;
        self.exchanged("forward", Forward, consumers)
    }

    /// Unites this stream with another of the same record type, in no particular order. Event time is that of the slower one.
    pub fn union<C2>(self, other: Stream<C2>) -> ExchangedStream<ShippedOf<C>>
    where
        C2: Chain<Out: Ship<Record = ShippedOf<C>>>,
    {
        let timestamps = self.base.timestamps && other.base.timestamps;
        let consumers = self.base.workers;
        let (mut base, mine) = self.into_union(consumers);
        let (theirs_base, theirs) = other.into_union(consumers);
        base.reads.extend(theirs_base.reads);
        base.timestamps = timestamps;
        base.last = theirs_base.last;
        Stream::new(base, Exchanged::new(vec![mine, theirs], Unpack::default()))
    }

    /// One input of a union: forwarded where both sides have as many subtasks.
    fn into_union(self, consumers: usize) -> (StreamBase, Edge<ShippedOf<C>>) {
        if self.base.parallelism == consumers {
            self.base.exchange(self.chain, "union", Forward, consumers)
        } else {
            self.base.exchange(self.chain, "union", Rebalance::default(), consumers)
        }
    }

    /// Splits the stream in two that both carry every record.
    pub fn fork(self) -> (ExchangedStream<ShippedOf<C>>, ExchangedStream<ShippedOf<C>>) {
        let Self { mut base, chain } = self;
        let columns = Columns { timestamps: base.timestamps, ..Columns::default() };
        let operators = [base.add_operator("fork"), base.add_operator("fork")];
        let edges = [Edge::<ShippedOf<C>>::default(), Edge::default()];
        let instance = Box::new(fork::into_edges(chain, operators, columns, edges.clone()));
        base.add_node(instance);
        let [first, second] = [0, 1].map(|side| {
            let index = base.graph.borrow_mut().add_edge(EdgeNode {
                edge: Box::new(edges[side].clone()),
                pattern: Pattern::OneToOne,
                broadcasts: false,
                producers: base.parallelism,
                consumers: base.parallelism,
                consumed: false,
                operator: operators[side],
            });
            let base = StreamBase { last: operators[side], ..base.clone().behind(base.parallelism, index) };
            Stream::new(base, Exchanged::new(vec![edges[side].clone()], Unpack::default()))
        });
        (first, second)
    }
}
