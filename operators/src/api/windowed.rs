//! [`WindowedStream`]: records of one key and one window together.

use std::{marker::PhantomData, time::Duration};

use tidemill_engine::{
    model::{error::Error, graph::EdgeNode},
    runtime::exchange::{edge::Edge, partition::Pattern},
};
use tidemill_storage::{key::Key, record::Record};

use super::stream::{ExchangedStream, Stream, StreamBase};
use crate::{
    aggregate::AggregateFunction,
    exchange::{Exchanged, Unpack},
    window::{
        accumulator::Accumulated,
        apply::ApplyWindow,
        assigner::{EventTimeWindows, TimeWindow},
        function::{AggregateWindow, ReduceWindow},
        late::{DropLate, LateBuilder, LateEdge},
        operator::Window,
        pane::WindowFunction,
    },
};

/// A windowed stream behind its operator.
pub type Windowed<K, T, W, L> = Stream<Exchanged<Window<K, T, W, L>>>;

/// A keyed stream cut into windows. `L` says where late records go.
#[must_use = "windows compute nothing until they get a function such as `aggregate`"]
pub struct WindowedStream<K, T, L = DropLate> {
    base: StreamBase,
    edge: Edge<T>,
    windows: EventTimeWindows,
    allowed_lateness: i64,
    late: L,
    key: PhantomData<fn() -> K>,
}

impl<K: Key, T: Record> WindowedStream<K, T> {
    pub(crate) fn new(base: StreamBase, edge: Edge<T>, windows: EventTimeWindows) -> Self {
        if !base.timestamps {
            base.graph.borrow_mut().problems.push(Error::config(
                "a window of event time stands behind a source without timestamps".to_owned(),
                "it could not tell which window a record belongs to".to_owned(),
                "give the source a WatermarkStrategy with `.with_timestamps(…)`".to_owned(),
            ));
        }
        if let Some(problem) = windows.problem() {
            base.graph.borrow_mut().problems.push(Error::config(
                "these windows cannot be".to_owned(),
                problem.to_owned(),
                "choose another size or slide".to_owned(),
            ));
        }
        Self { base, edge, windows, allowed_lateness: 0, late: DropLate, key: PhantomData }
    }

    /// Takes late records as a stream of their own, beside the windows.
    pub fn split_late(self) -> (WindowedStream<K, T, LateEdge<T>>, ExchangedStream<T>) {
        let Self { mut base, edge, windows, allowed_lateness, key, .. } = self;
        let operator = base.add_operator("late records");
        let late = Edge::default();
        let index = base.graph.borrow_mut().add_edge(EdgeNode {
            edge: Box::new(late.clone()),
            pattern: Pattern::OneToOne,
            broadcasts: false,
            producers: base.parallelism,
            consumers: base.parallelism,
            consumed: false,
            operator,
        });
        let late_base = base.clone().behind(base.parallelism, index);
        let late_stream = Stream::new(late_base, Exchanged::new(vec![late.clone()], Unpack::default()));
        let late = LateEdge { operator, edge: late };
        (WindowedStream { base, edge, windows, allowed_lateness, late, key }, late_stream)
    }
}

impl<K: Key, T: Record, L: LateBuilder<T>> WindowedStream<K, T, L> {
    /// Keeps windows for this long after the watermark has passed their end. A record that comes in this time
    /// makes its windows fire again, with their new results.
    pub fn allowed_lateness(mut self, lateness: Duration) -> Self {
        self.allowed_lateness = i64::try_from(lateness.as_millis()).unwrap_or(i64::MAX);
        self
    }

    pub(super) fn then<W: WindowFunction<K, T>>(self, name: &str, function: W) -> Windowed<K, T, W, L> {
        let Self { mut base, edge, windows, allowed_lateness, late, .. } = self;
        let operator = base.add_operator(name);
        let builder = Window::new(operator, windows, allowed_lateness, function, late);
        Stream::new(base, Exchanged::new(vec![edge], builder))
    }

    /// Sums up each window with an [`AggregateFunction`]; only the accumulator is kept.
    pub fn aggregate<G>(self, function: G) -> Windowed<K, T, Accumulated<AggregateWindow<G>>, L>
    where
        G: AggregateFunction<T>,
    {
        self.then("window aggregate", Accumulated(AggregateWindow(function)))
    }

    /// Combines the records of each window two by two; only the result so far is kept.
    pub fn reduce<F>(self, function: F) -> Windowed<K, T, Accumulated<ReduceWindow<T, F>>, L>
    where
        T: Clone,
        F: Fn(T, &T) -> T + Clone + Send + 'static,
    {
        self.then("window reduce", Accumulated(ReduceWindow::new(function)))
    }

    /// Calls `function(key, window, records)` for each window; all its records are kept until it fires.
    pub fn apply<F, O>(self, function: F) -> Windowed<K, T, ApplyWindow<T, F, O>, L>
    where
        T: Clone,
        F: Fn(K, TimeWindow, &[T]) -> O + Clone + Send + 'static,
        O: IntoIterator<Item: 'static> + 'static,
    {
        self.then("window apply", ApplyWindow::new(function))
    }
}
