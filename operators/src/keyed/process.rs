//! `process`: a function of the user's own with state per key and timers.
//!
//! State: whatever the function opens, one table each, and two queues of timers. A record is handled with its key
//! current; an event-time timer fires when the watermark reaches it, a processing-time timer when the wall
//! clock does, both with their key current and in the order of time.

use std::{any::Any, marker::PhantomData};

use rkyv::Archived;
use tidemill_engine::{
    model::{
        graph::BuildContext,
        item::Owned,
        metrics::{OperatorCounters, OperatorVisitor},
        operator::{Head, OpenError, OperatorIndex, Push, Signal, StepContext},
        source::{BoxError, Flow},
        time::{Timestamp, WATERMARK_MIN},
    },
    runtime::{blame::Blame, exchange::batch::Batch},
};
use tidemill_storage::{
    key::Key,
    record::Record,
    state::{
        KeyColumn, KeyView, KeyedTable, StateBackend, StateError, StateName, WHOLE,
        memory::{MemoryBackend, MemoryTable},
        timers::{Timer, TimerQueue},
    },
};

use super::key::restore_key;
use crate::exchange::HeadBuilder;

/// Timers fired in one step at most.
const TIMERS_PER_STEP_MAX: usize = 4096;

/// A function with state per key and timers. One instance per subtask, made by the closure given to
/// [`KeyedStream::process`](crate::api::keyed::KeyedStream::process).
pub trait KeyedProcessFunction<K: Key, T: Record>: 'static {
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

/// A state of one value per key, by its place among the function's states.
#[derive(Debug)]
pub struct ValueState<V> {
    index: usize,
    value: PhantomData<fn() -> V>,
}

impl<V> Clone for ValueState<V> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<V> Copy for ValueState<V> {}

/// Opens the states of a process function.
pub struct StateRegistry<K> {
    /// The operator's stable id.
    operator: String,
    backend: MemoryBackend,
    tables: Vec<Box<dyn Any>>,
    /// Why the first state that could not be opened could not.
    refused: Option<StateError>,
    key: PhantomData<fn() -> K>,
}

impl<K: Key> StateRegistry<K> {
    fn new(operator: &str) -> Self {
        Self {
            operator: operator.to_owned(),
            backend: MemoryBackend::default(),
            tables: Vec::new(),
            refused: None,
            key: PhantomData,
        }
    }

    /// Opens a state of one value per key under a stable name. A name that is taken, and a state that was stored with
    /// another type, keep the job from starting.
    pub fn value<V: Record>(&mut self, name: &str) -> ValueState<V> {
        let opened = self.backend.open::<K, V>(StateName::new(self.operator.as_str(), name), Vec::new());
        match opened {
            Ok(state) => self.tables.push(Box::new(self.backend.table::<K, V>(state, WHOLE))),
            Err(error) => {
                self.refused.get_or_insert(error);
            }
        }
        ValueState { index: self.tables.len().saturating_sub(1), value: PhantomData }
    }

    #[inline]
    fn table<V: Record>(&mut self, state: ValueState<V>) -> &mut MemoryTable<V> {
        // A handle is only made by `value`, with its table's type; it can be wrong only in another function.
        match self.tables.get_mut(state.index).and_then(|table| table.downcast_mut()) {
            Some(table) => table,
            None => unreachable!("a state handle was used in another function than the one that opened it"),
        }
    }
}

/// What a process function works with while it handles one record or timer.
pub struct ProcessContext<'a, K, O> {
    key: KeyView<'a>,
    timestamp: Timestamp,
    watermark: Timestamp,
    processing_time: i64,
    shared: &'a mut Shared<K, O>,
}

/// What outlives the handling of one record.
struct Shared<K, O> {
    states: StateRegistry<K>,
    event_timers: TimerQueue,
    processing_timers: TimerQueue,
    outputs: Vec<(O, Timestamp)>,
}

impl<K: Key, O> ProcessContext<'_, K, O> {
    /// The current key.
    pub fn key(&self) -> K {
        match restore_key(self.key) {
            Ok(key) => key,
            Err(error) => panic!("the current key cannot be read back: {error}"),
        }
    }

    /// Event time of the record (`NO_TIMESTAMP` if it has none) or of the timer.
    pub fn timestamp(&self) -> Timestamp {
        self.timestamp
    }

    /// The watermark that this subtask has reached.
    pub fn watermark(&self) -> Timestamp {
        self.watermark
    }

    /// Wall-clock time in milliseconds since the Unix epoch, as of this step.
    pub fn processing_time(&self) -> i64 {
        self.processing_time
    }

    /// Hands a record on, with the event time of the record or timer at hand.
    pub fn collect(&mut self, output: O) {
        self.shared.outputs.push((output, self.timestamp));
    }

    /// The value of a state for the current key.
    pub fn get<V: Record>(&mut self, state: ValueState<V>) -> Option<V> {
        let key = self.key;
        self.table(state).get(key)
    }

    /// Reads the value of a state for the current key in place.
    pub fn read<V: Record, R>(
        &mut self,
        state: ValueState<V>,
        read: impl FnOnce(&Archived<V>) -> R,
    ) -> Option<R> {
        let key = self.key;
        self.table(state).read(key, read)
    }

    /// Sets the value of a state for the current key.
    pub fn set<V: Record>(&mut self, state: ValueState<V>, value: V) {
        let key = self.key;
        self.table(state).put(key, &value);
    }

    /// Updates the value of a state for the current key in place, after `create` where there is none.
    pub fn update<V: Record, R>(
        &mut self,
        state: ValueState<V>,
        create: impl FnOnce() -> V,
        update: impl FnOnce(&mut V) -> R,
    ) -> R {
        let key = self.key;
        self.table(state).update(key, create, update)
    }

    /// Removes the value of a state for the current key; whether there was one.
    pub fn clear<V: Record>(&mut self, state: ValueState<V>) -> bool {
        let key = self.key;
        self.table(state).remove(key)
    }

    #[inline]
    fn table<V: Record>(&mut self, state: ValueState<V>) -> &mut impl KeyedTable<K, V> {
        self.shared.states.table(state)
    }

    /// Registers a timer for the current key that fires when the watermark reaches `at`. One for a time that the
    /// watermark has passed fires at the next watermark.
    pub fn register_event_timer(&mut self, at: Timestamp) {
        self.shared.event_timers.register(at, self.key);
    }

    /// Deletes an event-time timer of the current key.
    pub fn delete_event_timer(&mut self, at: Timestamp) {
        self.shared.event_timers.delete(at, self.key);
    }

    /// Registers a timer for the current key that fires when the wall clock reaches `at`, in milliseconds.
    pub fn register_processing_timer(&mut self, at: i64) {
        self.shared.processing_timers.register(at, self.key);
    }

    /// Deletes a processing-time timer of the current key.
    pub fn delete_processing_timer(&mut self, at: i64) {
        self.shared.processing_timers.delete(at, self.key);
    }
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
    T: Record,
    M: FnOnce(&mut StateRegistry<K>) -> P + Clone + Send + 'static,
    P: KeyedProcessFunction<K, T>,
{
    type In = T;
    type Out = Owned<P::Output>;
    type Head<D: Push<Self::Out>> = ProcessHead<K, T, P, D>;

    fn build<D: Push<Self::Out>>(self, context: &BuildContext, down: D) -> Result<Self::Head<D>, OpenError> {
        let mut states = StateRegistry::new(context.operator_id(self.operator));
        let function = Blame::on(self.operator, || (self.make)(&mut states));
        if let Some(error) = states.refused.take() {
            return Err(OpenError { operator: self.operator, cause: error.into() });
        }
        Ok(ProcessHead {
            operator: self.operator,
            function,
            shared: Shared {
                states,
                event_timers: TimerQueue::default(),
                processing_timers: TimerQueue::default(),
                outputs: Vec::new(),
            },
            watermark: WATERMARK_MIN,
            waiting: None,
            records: 0,
            outputs: 0,
            down,
            types: PhantomData,
        })
    }
}

/// The running operator.
pub struct ProcessHead<K, T: Record, P: KeyedProcessFunction<K, T>, D>
where
    K: Key,
{
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
    T: Record,
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
            let Some((timer, fired)) = next(&mut self.shared) else { return Flow::Continue };
            let timestamp = match fired {
                FiredTimer::EventTime(at) => at,
                FiredTimer::ProcessingTime(_) => tidemill_engine::model::time::NO_TIMESTAMP,
            };
            self.handle(timer.key(), timestamp, context, |function, own| function.on_timer(fired, own));
        }
        Flow::Yield
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
    T: Record,
    P: KeyedProcessFunction<K, T>,
    D: Push<Owned<P::Output>>,
{
    fn batch(&mut self, batch: &Batch<T>, from: usize, context: &mut StepContext) -> usize {
        for i in from..batch.len() {
            self.records += 1;
            let record = &batch.records()[i];
            self.handle(batch.key(i), batch.timestamp(i), context, |function, own| {
                function.on_record(record, own)
            });
            if context.is_blocked() {
                return i + 1;
            }
        }
        batch.len()
    }

    fn signal(&mut self, signal: Signal, context: &mut StepContext) -> Flow {
        if let Signal::Watermark(watermark) = signal {
            self.watermark = watermark;
            self.waiting = Some(signal);
            return self.resume(context);
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
