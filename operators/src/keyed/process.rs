//! `process`: a function of the user's own with state per key and timers.
//!
//! State: whatever the function opens ([`states`]), timers of event and of processing time, and the watermark. A record is
//! handled with its key current; an event-time timer fires when the watermark reaches it, a processing-time timer when the wall
//! clock does, both with their key current and in the order of time. Processing-time timers that became due while the job was
//! down fire as soon as it is up.

mod context;
mod describe;
mod expiring;
mod states;

use std::{marker::PhantomData, ops::Range};

use rkyv::Archived;
use tidemill_engine::{
    model::{
        checkpoint::Barrier,
        graph::BuildContext,
        item::Owned,
        metrics::{OperatorCounters, OperatorVisitor},
        operator::{Head, OpenError, OperatorIndex, Push, Signal, StepContext},
        source::{BoxError, Flow},
        time::{NO_TIMESTAMP, Timestamp, WATERMARK_MAX, WATERMARK_MIN},
    },
    runtime::{blame::Blame, exchange::batch::Batch},
};
use tidemill_storage::{
    Record,
    key::Key,
    kinds::timers::Timer,
    record::Record as IsRecord,
    state::{KeyColumn, KeyView},
};

pub use context::{AggregatedOfKey, ListOfKey, MapOfKey, ProcessContext, ReducedOfKey};
pub use describe::Describe;
pub use expiring::{Lists, Maps, Values};
pub use states::{AggregatingState, ListState, MapState, ReducingState, StateRegistry, ValueState};

use context::Shared;

use crate::{backend, exchange::HeadBuilder, kept};

/// Names of the states of timers.
const EVENT_TIMERS: &str = "event-timers";
const PROCESSING_TIMERS: &str = "processing-timers";
/// Timers fired in one step at most.
const TIMERS_PER_STEP_MAX: usize = 4096;
/// Records after which all states give memory back if need be, and as many keys of each are looked at for what has
/// expired: about one key for each record, so that what nobody reads again goes, too.
const TIDY_RECORDS: u64 = 1024;

/// A function with state per key and timers. One instance per subtask, made by the closure given to
/// [`KeyedStream::process`](crate::api::keyed::KeyedStream::process).
pub trait KeyedProcessFunction<K: Key, T: IsRecord>: 'static {
    /// What it hands on.
    type Output: 'static;

    /// Takes one record.
    ///
    /// # Errors
    /// An error stops the job.
    fn on_record(
        &mut self,
        record: &Archived<T>,
        context: &mut ProcessContext<'_, K, Self::Output>,
    ) -> Result<(), BoxError>;

    /// Takes a timer that has fired.
    ///
    /// # Errors
    /// An error stops the job.
    fn on_timer(
        &mut self,
        timer: FiredTimer,
        context: &mut ProcessContext<'_, K, Self::Output>,
    ) -> Result<(), BoxError> {
        let _ = (timer, context);
        Ok(())
    }
}

/// A timer that has fired.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FiredTimer {
    /// The watermark has reached this event time (milliseconds).
    EventTime(Timestamp),
    /// The wall clock has reached this time (milliseconds since the Unix epoch).
    ProcessingTime(i64),
}

/// Builds a `process` operator.
pub struct Process<K, T, M> {
    operator: OperatorIndex,
    make: M,
    types: PhantomData<fn() -> (K, T)>,
}

impl<K, T, M> Process<K, T, M> {
    /// With the function that `make` makes.
    pub fn new(operator: OperatorIndex, make: M) -> Self {
        Self { operator, make, types: PhantomData }
    }
}

impl<K, T, M: Clone> Clone for Process<K, T, M> {
    fn clone(&self) -> Self {
        Self::new(self.operator, self.make.clone())
    }
}

impl<K, T, M, P> HeadBuilder for Process<K, T, M>
where
    K: Key,
    T: IsRecord,
    M: FnOnce(&mut StateRegistry<K>) -> P + Clone + Send + 'static,
    P: KeyedProcessFunction<K, T>,
{
    type In = T;
    type Out = Owned<P::Output>;
    type Head<D: Push<Self::Out>> = ProcessHead<K, T, P, D>;

    fn build<D: Push<Self::Out>>(self, context: &BuildContext, down: D) -> Result<Self::Head<D>, OpenError> {
        let operator = self.operator;
        let refused = backend::refused(operator);
        let mut states = StateRegistry::new(context.operator_id(operator), backend::open(operator, context)?);
        let event_timers = states.timers(EVENT_TIMERS).map_err(&refused)?;
        let processing_timers = states.timers(PROCESSING_TIMERS).map_err(&refused)?;
        let function = Blame::on(operator, || (self.make)(&mut states));
        if let Some(error) = states.take_refused() {
            return Err(refused(error));
        }
        // The least of several: no timer is overdue that was not.
        let kept = kept::restored::<Reached>(operator, context)?;
        let watermark = kept.iter().map(|kept| kept.watermark).min().unwrap_or(WATERMARK_MIN);
        // All timers have fired. Should there be more input now, as behind a drain, it is not late for ever.
        let watermark = if watermark == WATERMARK_MAX { WATERMARK_MIN } else { watermark };
        Ok(ProcessHead {
            operator,
            function,
            shared: Shared { states, event_timers, processing_timers, outputs: Vec::new() },
            watermark,
            waiting: None,
            records: 0,
            outputs: 0,
            down,
            types: PhantomData,
        })
    }
}

/// What a checkpoint keeps besides state and timers. Stored.
#[derive(Record, Clone, Copy, Debug, PartialEq, Eq)]
#[record(crate = tidemill_storage)]
struct Reached {
    /// The watermark.
    watermark: i64,
}

/// The running operator.
pub struct ProcessHead<K: Key, T: IsRecord, P: KeyedProcessFunction<K, T>, D> {
    operator: OperatorIndex,
    function: P,
    shared: Shared<K, P::Output>,
    watermark: Timestamp,
    /// The signal that waits for the timers before it.
    waiting: Option<Signal>,
    records: u64,
    outputs: u64,
    down: D,
    types: PhantomData<fn() -> (K, T)>,
}

impl<K, T, P, D> ProcessHead<K, T, P, D>
where
    K: Key,
    T: IsRecord,
    P: KeyedProcessFunction<K, T>,
    D: Push<Owned<P::Output>>,
{
    fn handle(
        &mut self,
        key: KeyView<'_>,
        timestamp: Timestamp,
        context: &mut StepContext,
        run: impl FnOnce(&mut P, &mut ProcessContext<'_, K, P::Output>) -> Result<(), BoxError>,
    ) {
        let mut own = ProcessContext {
            key,
            timestamp,
            watermark: self.watermark,
            processing_time: context.wall_millis,
            shared: &mut self.shared,
        };
        let function = &mut self.function;
        if let Err(error) = Blame::on(self.operator, || run(function, &mut own)) {
            context.fail(self.operator, error);
        }
        for (output, timestamp) in self.shared.outputs.drain(..) {
            self.outputs += 1;
            self.down.push(output, timestamp, context);
        }
    }

    /// Fires what `next` gives until nothing is left, the outputs are full, or it was much for one step: a timer may
    /// register another one, without end.
    fn fire(
        &mut self,
        context: &mut StepContext,
        mut next: impl FnMut(&mut Shared<K, P::Output>) -> Option<(Timer, FiredTimer)>,
    ) -> Flow {
        for _ in 0..TIMERS_PER_STEP_MAX {
            if context.is_blocked() {
                break;
            }
            let due = Blame::on(self.operator, || next(&mut self.shared));
            let Some((timer, fired)) = due else { return Flow::Continue };
            let timestamp = match fired {
                FiredTimer::EventTime(at) => at,
                FiredTimer::ProcessingTime(_) => NO_TIMESTAMP,
            };
            self.handle(timer.key(), timestamp, context, |function, own| function.on_timer(fired, own));
        }
        Flow::Yield
    }

    /// Adds states, timers and the watermark to a checkpoint.
    #[cold]
    fn snapshot(&mut self, barrier: Barrier, context: &mut StepContext) {
        debug_assert!(self.waiting.is_none(), "a barrier overtakes a watermark");
        let Shared { states, event_timers, processing_timers, .. } = &mut self.shared;
        states.snapshot(self.operator, barrier, context, |sealed| {
            event_timers.seal(sealed);
            processing_timers.seal(sealed);
        });
        kept::keep(self.operator, &Reached { watermark: self.watermark }, context);
    }

    fn fire_processing(&mut self, context: &mut StepContext) -> Flow {
        let until = context.wall_millis;
        self.fire(context, |shared| {
            let timer = shared.processing_timers.pop_until(until)?;
            let fired = FiredTimer::ProcessingTime(timer.at);
            Some((timer, fired))
        })
    }
}

impl<K, T, P, D> Head<T> for ProcessHead<K, T, P, D>
where
    K: Key,
    T: IsRecord,
    P: KeyedProcessFunction<K, T>,
    D: Push<Owned<P::Output>>,
{
    fn batch(&mut self, batch: &Batch<T>, records: Range<usize>, context: &mut StepContext) -> usize {
        let end = records.end;
        for i in records {
            self.records += 1;
            if self.records.is_multiple_of(TIDY_RECORDS) {
                let now = context.wall_millis;
                Blame::on(self.operator, || self.shared.states.tidy(now, TIDY_RECORDS as usize));
            }
            let record = &batch.records()[i];
            self.handle(batch.key(i), batch.timestamp(i), context, |function, own| {
                function.on_record(record, own)
            });
            if context.is_blocked() {
                return i + 1;
            }
        }
        end
    }

    fn signal(&mut self, signal: Signal, context: &mut StepContext) -> Flow {
        match signal {
            // Behind a restore others may have to reach again where this subtask was.
            Signal::Watermark(watermark) if watermark < self.watermark => return Flow::Continue,
            Signal::Watermark(watermark) => {
                self.watermark = watermark;
                self.waiting = Some(signal);
                return self.resume(context);
            }
            Signal::Barrier(barrier) => self.snapshot(barrier, context),
            Signal::Idle | Signal::Active | Signal::End => {}
        }
        self.down.signal(signal, context);
        Flow::Continue
    }

    fn resume(&mut self, context: &mut StepContext) -> Flow {
        let watermark = self.watermark;
        let Some(signal) = self.waiting else { return self.fire_processing(context) };
        let flow = self.fire(context, |shared| {
            let timer = shared.event_timers.pop_until(watermark)?;
            let fired = FiredTimer::EventTime(timer.at);
            Some((timer, fired))
        });
        if flow == Flow::Continue {
            self.waiting = None;
            self.down.signal(signal, context);
        }
        flow
    }

    fn next_timer(&self) -> Option<i64> {
        self.shared.processing_timers.next()
    }

    fn on_processing_time(&mut self, context: &mut StepContext) -> Flow {
        self.fire_processing(context)
    }

    fn drain(&mut self, context: &mut StepContext) {
        self.down.drain(context);
    }

    fn report(&self, visitor: &mut dyn OperatorVisitor) {
        let (records_in, records_out) = (self.records, self.outputs);
        visitor.operator(
            self.operator,
            &OperatorCounters { records_in, records_out, ..OperatorCounters::default() },
        );
        self.down.report(self.outputs, visitor);
    }
}
