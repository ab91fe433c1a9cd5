//! [`CombinedStream`]: a stream whose subtasks each combine their own records of a key before they cross to the key's subtask.

use std::time::Duration;

use tidemill_engine::{
    model::{item::Ship, operator::Chain},
    runtime::exchange::{
        key_of::{KeyOf, Known},
        partition::KeyBy,
    },
};
use tidemill_storage::record::Record;

use super::{
    stream::{ShippedOf, StreamBase, ViewOf},
    windowed::{Windowed, WindowedStream},
};
use crate::{
    aggregate::AggregateFunction,
    window::{
        accumulator::{Accumulated, WindowAccumulator},
        assigner::EventTimeWindows,
        combine::Combine,
        combined::Combined,
        function::{AggregateWindow, ReduceWindow},
        late::DropLate,
    },
};

/// A window's results behind an exchange of what subtasks combined by `A`.
pub type CombinedWindow<C, X, A> = Windowed<
    <X as KeyOf<ViewOf<C>>>::Key,
    <A as WindowAccumulator<<X as KeyOf<ViewOf<C>>>::Key, ShippedOf<C>>>::Accumulator,
    Accumulated<Combined<A, ShippedOf<C>>>,
    DropLate,
>;

/// A stream that is partitioned by key once every subtask has combined its own records per key and slice of a window: MapReduce's
/// combiner, and the two-phase aggregation of Flink's SQL. The results are those of
/// [`key_by`](super::stream::Stream::key_by), at the same watermarks.
///
/// A subtask holds a few thousand keys. It hands on what a key came to when another key needs the place, when the watermark has
/// passed the slice, and before each checkpoint; so nothing waits longer than it would have waited in the window, and no
/// state is added. Where almost every record has a key of its own it only costs.
///
/// * What is counted as late is what was combined, not the records in it, and is no stream of its own.
/// * Records of a key are combined in another order than they came in: the function must not depend on it.
///
/// ```
/// use std::time::Duration;
/// use tidemill_engine::model::watermark::WatermarkStrategy;
/// use tidemill_operators::{
///     aggregate::Count, api::environment::StreamEnvironment, sink::CollectSink, source::from_vec,
///     window::assigner::TumblingEventTime,
/// };
///
/// let environment = StreamEnvironment::new().parallelism(2);
/// let (sink, rows) = CollectSink::new();
/// let in_order = WatermarkStrategy::for_monotonous_timestamps().with_timestamps(|number: &i64| *number);
/// environment
///     .from_source("numbers", from_vec((0..100).collect()), in_order)
///     .combine_by(|number| number % 2)
///     .window(TumblingEventTime::of(Duration::from_millis(50)))
///     .aggregate(Count)
///     .map(|counted| (counted.window.start, counted.key, counted.value))
///     .sink("counts", sink);
/// environment.execute()?;
/// let mut rows = rows.take();
/// rows.sort_unstable();
/// assert_eq!(rows, [(0, 0, 25), (0, 1, 25), (50, 0, 25), (50, 1, 25)]);
/// # Ok::<(), tidemill_engine::model::error::Error>(())
/// ```
#[must_use = "a stream does nothing until it ends in a sink"]
pub struct CombinedStream<C, X> {
    base: StreamBase,
    chain: C,
    keys: X,
}

impl<C, X> CombinedStream<C, X> {
    pub(super) fn new(base: StreamBase, chain: C, keys: X) -> Self {
        Self { base, chain, keys }
    }

    /// Groups records of one key by event time.
    pub fn window(self, windows: impl Into<EventTimeWindows>) -> CombinedWindows<C, X> {
        CombinedWindows { stream: self, windows: windows.into(), allowed_lateness: Duration::ZERO }
    }
}

/// A combined stream cut into windows.
#[must_use = "windows compute nothing until they get a function such as `aggregate`"]
pub struct CombinedWindows<C, X> {
    stream: CombinedStream<C, X>,
    windows: EventTimeWindows,
    allowed_lateness: Duration,
}

impl<C, X> CombinedWindows<C, X>
where
    C: Chain<Out: Ship>,
    X: KeyOf<ViewOf<C>>,
{
    /// As [`WindowedStream::allowed_lateness`].
    pub fn allowed_lateness(self, lateness: Duration) -> Self {
        Self { allowed_lateness: lateness, ..self }
    }

    fn then<A>(self, name: &str, function: A) -> CombinedWindow<C, X, A>
    where
        A: WindowAccumulator<X::Key, ShippedOf<C>>,
    {
        let Self { stream: CombinedStream { mut base, chain, keys }, windows, allowed_lateness } = self;
        let (operator, workers) = (base.add_operator("combine"), base.workers);
        let chain = Combine::new(chain, operator, windows, keys, function.clone());
        let (base, edge) = base.exchange(chain, "key_by", KeyBy::new(Known::<X::Key>::default()), workers);
        WindowedStream::new(base, edge, windows)
            .allowed_lateness(allowed_lateness)
            .then(name, Accumulated(Combined::new(function)))
    }

    /// As [`WindowedStream::aggregate`]; accumulators are put together with [`AggregateFunction::merge`].
    pub fn aggregate<G>(self, function: G) -> CombinedWindow<C, X, AggregateWindow<G>>
    where
        G: AggregateFunction<ShippedOf<C>>,
    {
        self.then("window aggregate", AggregateWindow(function))
    }

    /// As [`WindowedStream::reduce`].
    pub fn reduce<F>(self, function: F) -> CombinedWindow<C, X, ReduceWindow<ShippedOf<C>, F>>
    where
        ShippedOf<C>: Record + Clone,
        F: Fn(ShippedOf<C>, &ShippedOf<C>) -> ShippedOf<C> + Clone + Send + 'static,
    {
        self.then("window reduce", ReduceWindow::new(function))
    }
}
