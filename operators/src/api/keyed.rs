//! [`KeyedStream`]: a stream partitioned by key, where state lives.

use std::marker::PhantomData;

use rkyv::Archived;
use tidemill_engine::runtime::exchange::edge::Edge;
use tidemill_storage::{key::Key, record::Record};

use super::{
    stream::{Stream, StreamBase},
    windowed::WindowedStream,
};
use crate::{
    aggregate::AggregateFunction,
    exchange::{Exchanged, HeadBuilder},
    keyed::{
        aggregate::Aggregate,
        fold::Fold,
        process::{KeyedProcessFunction, Process, StateRegistry},
        reduce::Reduce,
        rolling::Roll,
    },
    window::assigner::EventTimeWindows,
};

/// A stream of `T` partitioned by keys `K`.
#[must_use = "a stream does nothing until it ends in a sink"]
pub struct KeyedStream<K, T> {
    base: StreamBase,
    edge: Edge<T>,
    key: PhantomData<fn() -> K>,
}

impl<K: Key, T: Record> KeyedStream<K, T> {
    pub(crate) fn new(base: StreamBase, edge: Edge<T>) -> Self {
        Self { base, edge, key: PhantomData }
    }

    fn then<B: HeadBuilder<In = T>>(self, name: &str, build: impl FnOnce(u32) -> B) -> Stream<Exchanged<B>> {
        let Self { mut base, edge, .. } = self;
        let builder = build(base.add_operator(name));
        Stream::new(base, Exchanged::new(vec![edge], builder))
    }

    /// Combines each record with the result for its key so far, and hands on the new result.
    pub fn reduce<F>(self, function: F) -> Stream<Exchanged<Roll<K, T, Reduce<F>>>>
    where
        T: Clone,
        F: Fn(T, &Archived<T>) -> T + Clone + Send + 'static,
    {
        self.then("reduce", |operator| Roll::new(operator, Reduce(function)))
    }

    /// Adds each record to the value of its key, which is `initial` at first, and hands on the key and the new value.
    pub fn fold<A, F>(self, initial: A, function: F) -> Stream<Exchanged<Roll<K, T, Fold<A, F>>>>
    where
        A: Record + Clone,
        F: Fn(&mut A, &Archived<T>) + Clone + Send + 'static,
    {
        self.then("fold", |operator| Roll::new(operator, Fold::new(initial, function)))
    }

    /// Adds each record to the accumulator of its key and hands on the key and the new result.
    pub fn aggregate<G>(self, function: G) -> Stream<Exchanged<Roll<K, T, Aggregate<G>>>>
    where
        G: AggregateFunction<T>,
    {
        self.then("aggregate", |operator| Roll::new(operator, Aggregate(function)))
    }

    /// Hands records and timers to a function of your own. `make` opens the function's states and makes it,
    /// once per subtask.
    pub fn process<M, P>(self, make: M) -> Stream<Exchanged<Process<K, T, M>>>
    where
        M: FnOnce(&mut StateRegistry<K>) -> P + Clone + Send + 'static,
        P: KeyedProcessFunction<K, T>,
    {
        self.then("process", |operator| Process::new(operator, make))
    }

    /// Groups records of one key by event time.
    pub fn window(self, windows: impl Into<EventTimeWindows>) -> WindowedStream<K, T> {
        WindowedStream::new(self.base, self.edge, windows.into())
    }
}
