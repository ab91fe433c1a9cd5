//! The window operator: sums records up per slice, and fires windows when the watermark has passed their end.
//!
//! State: one table per slice. A window fires once, when the watermark reaches its last timestamp, in the order of
//! window ends. A slice is dropped whole when no window needs it any more, `allowed_lateness` after the end of its
//! last window. A record of a slice that was dropped is late: counted, and handed to the side output. A record that
//! comes within the allowed lateness updates windows that have fired; they fire again at the next watermark, once
//! for all such records.
//!
//! Firing is done in bounded steps and resumed, so that a window of a million keys neither blocks the core nor
//! overruns its outputs.

use std::{
    collections::{BTreeMap, VecDeque},
    marker::PhantomData,
    ops::Range,
};

use tidemill_engine::{
    model::{
        checkpoint::Barrier,
        graph::BuildContext,
        item::{InPlace, Owned},
        metrics::{OperatorCounters, OperatorVisitor},
        operator::{Head, OpenError, OperatorIndex, Push, Signal, StepContext},
        source::Flow,
        time::{NO_TIMESTAMP, Timestamp},
    },
    runtime::{blame::Blame, exchange::batch::Batch},
};
use tidemill_storage::{
    key::{Key, key_group_range},
    record::Record,
    state::StateName,
};

use super::{
    NO_EVENT_TIME,
    assigner::{EventTimeWindows, TimeWindow},
    late::LateBuilder,
    pane::{Outlet, WindowFunction},
    timeline::{Due, SkippedGroups, Timeline},
};
use crate::{
    backend::{self, JobBackend},
    exchange::HeadBuilder,
    kept,
};

/// Name of the state of records by slice.
const SLICES: &str = "slices";
/// Name of the state that windows are put together in; empty between two of them.
const FIRING: &str = "firing";
/// Keys whose results are handed on in one step at most.
const FIRED_PER_STEP_MAX: usize = 4096;
/// Records after which all panes give memory back if need be. A pane that gets records does so by itself, so this is for those
/// that get none; asking them for each small batch would cost more than the batch.
const RELIEVE_RECORDS: usize = 1024;

/// Builds the window operator.
pub struct Window<K, T, W, L> {
    operator: OperatorIndex,
    windows: EventTimeWindows,
    allowed_lateness: i64,
    function: W,
    late: L,
    types: PhantomData<fn() -> (K, T)>,
}

impl<K, T, W, L> Window<K, T, W, L> {
    /// Computes `function` in these windows, which are kept for `allowed_lateness` milliseconds behind their end;
    /// later records go to `late`.
    pub fn new(
        operator: OperatorIndex,
        windows: EventTimeWindows,
        allowed_lateness: i64,
        function: W,
        late: L,
    ) -> Self {
        Self { operator, windows, allowed_lateness, function, late, types: PhantomData }
    }
}

impl<K, T, W: Clone, L: Clone> Clone for Window<K, T, W, L> {
    fn clone(&self) -> Self {
        Self { function: self.function.clone(), late: self.late.clone(), ..*self }
    }
}

impl<K, T, W, L> HeadBuilder for Window<K, T, W, L>
where
    K: Key,
    T: Record,
    W: WindowFunction<K, T>,
    L: LateBuilder<T>,
{
    type In = T;
    type Out = Owned<W::Output>;
    type Head<D: Push<Self::Out>> = WindowHead<K, T, W, L::Push, D>;

    fn build<D: Push<Self::Out>>(self, context: &BuildContext, down: D) -> Result<Self::Head<D>, OpenError> {
        let (operator, function) = (self.operator, self.function);
        let mut backend = backend::open(operator, context)?;
        let mut open = |state| {
            let name = StateName::new(context.operator_id(operator), state);
            function.open(&mut backend, name).map_err(backend::refused(operator))
        };
        let (slices_state, firing_state) = (open(SLICES)?, open(FIRING)?);
        let restored = function.restored(&backend, slices_state);
        let slices = restored
            .into_iter()
            .map(|slice| (slice, function.pane(&mut backend, slices_state, slice)))
            .collect();
        let kept = kept::restored(operator, context)?;
        let (subtask, max_parallelism) = (&context.subtask, context.config.key_groups());
        let groups = key_group_range(subtask.subtask as u32, max_parallelism, subtask.parallelism as u32);
        let timeline = Timeline::new(self.windows, self.allowed_lateness, groups, max_parallelism, kept);
        Ok(WindowHead {
            operator,
            function,
            backend,
            slices_state,
            firing_state,
            slices,
            timeline,
            firing: None,
            waiting: None,
            unrelieved: 0,
            late: self.late.build(context),
            counters: OperatorCounters::default(),
            down,
            types: PhantomData,
        })
    }
}

/// A window that is being fired.
struct Firing<P> {
    window: TimeWindow,
    skipped: SkippedGroups,
    /// The slices that are still to be put together.
    parts: VecDeque<Timestamp>,
    results: Results<P>,
    /// Where to go on: in the first of `parts`, or in the results when there is none.
    cursor: usize,
}

/// Where a firing window's records are.
enum Results<P> {
    /// Put together from several slices, or taken out of a slice that nothing needs any more.
    Own(P),
    /// In the slice that begins here, which is kept.
    Slice(Timestamp),
}

/// The running operator.
pub struct WindowHead<K, T, W, L, D>
where
    K: Key,
    T: Record,
    W: WindowFunction<K, T>,
{
    operator: OperatorIndex,
    function: W,
    backend: JobBackend,
    slices_state: W::States,
    firing_state: W::States,
    slices: BTreeMap<Timestamp, W::Pane<JobBackend>>,
    timeline: Timeline,
    firing: Option<Firing<W::Pane<JobBackend>>>,
    /// The watermark that waits for its windows to be fired.
    waiting: Option<Signal>,
    /// Records since all panes were last asked to give memory back.
    unrelieved: usize,
    late: L,
    counters: OperatorCounters,
    down: D,
    types: PhantomData<fn() -> (K, T)>,
}

impl<K, T, W, L, D> WindowHead<K, T, W, L, D>
where
    K: Key,
    T: Record,
    W: WindowFunction<K, T>,
    L: Push<InPlace<T>>,
    D: Push<Owned<W::Output>>,
{
    /// Adds the records `from..to`, all of one slice.
    #[inline]
    fn add(&mut self, batch: &Batch<T>, slice: Timestamp, from: usize, to: usize) {
        let Self { operator, function, backend, slices_state, slices, .. } = self;
        Blame::on(*operator, || {
            if !slices.contains_key(&slice) {
                let mut pane = function.pane(backend, *slices_state, slice);
                if let Some((_, before)) = slices.range(..slice).next_back() {
                    function.prepare(&mut pane, before);
                }
                slices.insert(slice, pane);
            }
            let Some(pane) = slices.get_mut(&slice) else { return };
            function.add(pane, batch, from..to);
        });
        if slice <= self.timeline.fired {
            self.timeline.touched(slice, &batch.hashes()[from..to]);
        }
    }

    /// Hands on the late records `from..to` and returns the first one not taken: the late stream may have no room.
    #[cold]
    fn add_late(&mut self, batch: &Batch<T>, from: usize, to: usize, context: &mut StepContext) -> usize {
        for i in from..to {
            self.counters.late += 1;
            self.late.push(&batch.records()[i], batch.timestamp(i), context);
            if context.is_blocked() {
                return i + 1;
            }
        }
        to
    }

    /// Takes the records `from..to`, all of one slice, while keys have come to different watermarks. Returns the first one not
    /// taken.
    #[cold]
    fn add_unevenly(
        &mut self,
        batch: &Batch<T>,
        slice: Timestamp,
        from: usize,
        to: usize,
        context: &mut StepContext,
    ) -> usize {
        for i in from..to {
            if self.timeline.is_gone_for(slice, batch.hashes()[i]) {
                self.add_late(batch, i, i + 1, context);
                if context.is_blocked() {
                    return i + 1;
                }
            } else {
                self.add(batch, slice, i, i + 1);
            }
        }
        to
    }

    /// Begins to fire a window.
    fn begin(&mut self, Due { window, skipped }: Due) {
        let last = if window.end == Timestamp::MAX { window.end } else { window.max_timestamp() };
        let slices = self.slices.range(window.start..=last).map(|(start, _)| *start);
        let mut parts: VecDeque<Timestamp> = slices.collect();
        let Self { function, backend, firing_state, slices, .. } = self;
        let mut empty = || Results::Own(function.pane(backend, *firing_state, window.start));
        let results = match (parts.len(), self.timeline.windows.is_tumbling()) {
            (1, true) if self.timeline.allowed_lateness == 0 => {
                let slice = parts.pop_front().and_then(|slice| slices.remove(&slice));
                slice.map_or_else(empty, Results::Own)
            }
            (1, _) => Results::Slice(parts.pop_front().unwrap_or(window.start)),
            _ => empty(),
        };
        self.firing = Some(Firing { window, skipped, parts, results, cursor: 0 });
    }

    /// Goes on with the window that is being fired: puts some of a slice in, or hands on some results.
    fn go_on(&mut self, mut firing: Firing<W::Pane<JobBackend>>, context: &mut StepContext) {
        let Self { operator, function, slices, counters, down, .. } = self;
        if let (Some(slice), Results::Own(results)) = (firing.parts.front(), &mut firing.results) {
            let slice = slices.get_mut(slice);
            let cursor = Blame::on(*operator, || function.merge(results, slice?, firing.cursor));
            if cursor.is_none() {
                firing.parts.pop_front();
            }
            firing.cursor = cursor.unwrap_or(0);
            self.firing = Some(firing);
            return;
        }
        let pane = match &mut firing.results {
            Results::Own(pane) => pane,
            Results::Slice(slice) => match slices.get_mut(slice) {
                Some(pane) => pane,
                None => return,
            },
        };
        let (window, operator) = (firing.window, *operator);
        let (skipped, keys_left) = (&firing.skipped, FIRED_PER_STEP_MAX);
        let mut outlet = Outlet { window, skipped, operator, keys_left, counters, down, context };
        let cursor = Blame::on(operator, || function.emit(pane, firing.cursor, &mut outlet));
        if let Some(cursor) = cursor {
            self.firing = Some(Firing { cursor, ..firing });
        }
    }

    /// Lets all panes give memory back now and then.
    fn relieve(&mut self, records: usize) {
        self.unrelieved += records;
        if self.unrelieved >= RELIEVE_RECORDS {
            self.unrelieved = 0;
            let Self { operator, function, slices, .. } = self;
            Blame::on(*operator, || slices.values_mut().for_each(|pane| function.relieve(pane)));
        }
    }

    /// Adds the slices to a checkpoint, and how far firing has come. No window is being fired between two signals.
    #[cold]
    fn snapshot(&mut self, barrier: Barrier, context: &mut StepContext) {
        debug_assert!(self.firing.is_none() && self.waiting.is_none(), "a barrier overtakes a watermark");
        let Self { operator, function, backend, slices, timeline, .. } = self;
        backend.snapshot(*operator, barrier, context, |sealed| {
            slices.values_mut().for_each(|pane| function.seal(pane, sealed));
        });
        kept::keep(*operator, &timeline.kept(), context);
    }

    /// Drops the slices that no window needs any more.
    fn expire(&mut self) {
        while let Some((slice, _)) = self.slices.first_key_value()
            && self.timeline.is_gone(*slice)
        {
            self.slices.pop_first();
        }
    }
}

impl<K, T, W, L, D> Head<T> for WindowHead<K, T, W, L, D>
where
    K: Key,
    T: Record,
    W: WindowFunction<K, T>,
    L: Push<InPlace<T>>,
    D: Push<Owned<W::Output>>,
{
    fn batch(&mut self, batch: &Batch<T>, records: Range<usize>, context: &mut StepContext) -> usize {
        let timestamps = batch.timestamps().get(..records.end).unwrap_or_default();
        let mut start = records.start;
        while start < records.end && !context.is_blocked() {
            let timestamp = timestamps.get(start).copied().unwrap_or(NO_TIMESTAMP);
            if timestamp == NO_TIMESTAMP {
                context.fail(self.operator, NO_EVENT_TIME.into());
                break;
            }
            let slice = self.timeline.windows.slice_of(timestamp);
            let last = self.timeline.windows.slice_last(slice);
            let same = |at: &&Timestamp| **at >= slice && **at <= last;
            let end = start + timestamps[start..].iter().take_while(same).count();
            if !self.timeline.is_even() {
                start = self.add_unevenly(batch, slice, start, end, context);
            } else if self.timeline.is_gone(slice) {
                start = self.add_late(batch, start, end, context);
            } else {
                self.add(batch, slice, start, end);
                start = end;
            }
        }
        let handled = start - records.start;
        self.counters.records_in += handled as u64;
        self.relieve(handled);
        start
    }

    fn signal(&mut self, signal: Signal, context: &mut StepContext) -> Flow {
        match signal {
            // Behind a restore others may have to reach again where this subtask was.
            Signal::Watermark(watermark) if watermark < self.timeline.watermark => return Flow::Continue,
            Signal::Watermark(watermark) => {
                self.timeline.advance(watermark);
                self.waiting = Some(signal);
                return self.resume(context);
            }
            Signal::Barrier(barrier) => self.snapshot(barrier, context),
            Signal::Idle | Signal::Active | Signal::End => {}
        }
        self.late.signal(signal, context);
        self.down.signal(signal, context);
        Flow::Continue
    }

    fn resume(&mut self, context: &mut StepContext) -> Flow {
        if let Some(firing) = self.firing.take() {
            self.go_on(firing, context);
            return Flow::Yield;
        }
        if let Some(due) = self.timeline.next(&self.slices) {
            self.begin(due);
            return Flow::Yield;
        }
        self.timeline.fired_all();
        self.expire();
        if let Some(signal) = self.waiting.take() {
            self.late.signal(signal, context);
            self.down.signal(signal, context);
        }
        Flow::Continue
    }

    fn drain(&mut self, context: &mut StepContext) {
        self.late.drain(context);
        self.down.drain(context);
    }

    fn report(&self, visitor: &mut dyn OperatorVisitor) {
        visitor.operator(self.operator, &self.counters);
        self.late.report(self.counters.late, visitor);
        self.down.report(self.counters.records_out, visitor);
    }
}
