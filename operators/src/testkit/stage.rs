//! What stands before an operator under test and feeds it: as a source would, or as an exchange would.

use std::{cell::Cell, marker::PhantomData, sync::Arc};

use tidemill_engine::{
    model::{
        graph::BuildContext,
        item::Owned,
        metrics::{LatencyHistogram, OperatorVisitor},
        operator::{Chain, Head, OpenError, Push, Signal, StepContext},
        source::Flow,
        task::{Step, Task},
        time::{Timestamp, WATERMARK_MIN},
    },
    runtime::exchange::batch::{Batch, Columns, RecordKey},
};
use tidemill_storage::{key::Key, record::Record};

use super::operator::Given;
use crate::exchange::HeadBuilder;

/// A chain that gives items by value, one by one.
pub struct Items<T> {
    pub(super) given: Arc<Vec<Given<T>>>,
    pub(super) per_step: usize,
}

impl<T> Clone for Items<T> {
    fn clone(&self) -> Self {
        Self { given: Arc::clone(&self.given), per_step: self.per_step }
    }
}

impl<T: Clone + Send + Sync + 'static> Chain for Items<T> {
    type Out = Owned<T>;
    type Task<D: Push<Owned<T>>> = ItemsTask<T, D>;

    fn build<D: Push<Owned<T>>>(
        self,
        _context: &BuildContext,
        down: D,
    ) -> Result<ItemsTask<T, D>, OpenError> {
        Ok(ItemsTask {
            items: self,
            next: 0,
            records: 0,
            wall_millis: 0,
            down,
            latency: LatencyHistogram::default(),
        })
    }
}

/// Gives the items.
pub struct ItemsTask<T, D> {
    items: Items<T>,
    next: usize,
    records: u64,
    wall_millis: i64,
    down: D,
    latency: LatencyHistogram,
}

impl<T: Clone + Send + Sync + 'static, D: Push<Owned<T>>> Task for ItemsTask<T, D> {
    fn step(&mut self, context: &mut StepContext) -> Step {
        context.wall_millis = self.wall_millis;
        self.down.drain(context);
        if context.is_blocked() {
            return Step::Blocked;
        }
        let until = self.items.given.len().min(self.next.saturating_add(self.items.per_step));
        while self.next < until && !context.is_blocked() {
            match &self.items.given[self.next] {
                Given::Record(record, timestamp) => {
                    self.records += 1;
                    self.down.push(record.clone(), *timestamp, context);
                }
                Given::Signal(signal) => {
                    self.down.signal(*signal, context);
                    if let Signal::Barrier(barrier) = signal {
                        context.pass(*barrier);
                    }
                }
                Given::WallClock(millis) => self.wall_millis = *millis,
            }
            self.next += 1;
        }
        let done = self.next == self.items.given.len();
        context.note_pushed(true);
        context.set_dry(done || self.items.per_step == 1);
        self.down.drain(context);
        if done && !context.is_blocked() { Step::Done } else { Step::Progress }
    }

    fn report(&self, visitor: &mut dyn OperatorVisitor) {
        self.down.report(self.records, visitor);
    }

    fn watermark(&self) -> Timestamp {
        WATERMARK_MIN
    }

    fn queue(&self) -> (usize, usize) {
        (0, 0)
    }

    fn latency(&self) -> &LatencyHistogram {
        &self.latency
    }
}

/// A chain that gives batches to a head.
pub(super) struct Batches<B: HeadBuilder, K, F> {
    pub(super) given: Arc<Vec<Given<B::In>>>,
    pub(super) batch_records_max: usize,
    pub(super) builder: B,
    pub(super) key: F,
    pub(super) key_type: PhantomData<fn() -> K>,
}

impl<B: HeadBuilder, K, F: Clone> Clone for Batches<B, K, F> {
    fn clone(&self) -> Self {
        Self {
            given: Arc::clone(&self.given),
            batch_records_max: self.batch_records_max,
            builder: self.builder.clone(),
            key: self.key.clone(),
            key_type: PhantomData,
        }
    }
}

impl<B, K, F> Chain for Batches<B, K, F>
where
    B: HeadBuilder<In: Sync>,
    K: Key,
    F: Fn(&B::In) -> K + Clone + Send + 'static,
{
    type Out = B::Out;
    type Task<D: Push<B::Out>> = BatchesTask<B::In, B::Head<D>>;

    fn build<D: Push<B::Out>>(self, context: &BuildContext, down: D) -> Result<Self::Task<D>, OpenError> {
        let columns = Columns { timestamps: true, hashes: true, keys: !K::WIDTH.is_narrow() };
        let mut work: Vec<Work<B::In>> = Vec::new();
        let mut bytes = Vec::new();
        for given in self.given.iter() {
            let (record, timestamp) = match given {
                Given::Record(record, timestamp) => (record, *timestamp),
                Given::Signal(signal) => {
                    work.push(Work::Signal(*signal));
                    continue;
                }
                Given::WallClock(millis) => {
                    work.push(Work::WallClock(*millis));
                    continue;
                }
            };
            let room = matches!(work.last(), Some(Work::Batch(batch)) if !batch.is_full());
            if !room {
                work.push(Work::Batch(Box::new(Batch::new(
                    self.batch_records_max,
                    usize::MAX >> 8,
                    columns,
                ))));
            }
            let key = (self.key)(record);
            let hash = key.key_hash(&mut bytes);
            bytes.clear();
            key.encode(&mut bytes);
            let key = if columns.keys { RecordKey::Wide(hash, &bytes) } else { RecordKey::Narrow(hash) };
            if let Some(Work::Batch(batch)) = work.last_mut()
                && let Err(error) = batch.put(record, timestamp, key)
            {
                panic!("a record cannot be archived: {error}");
            }
        }
        let head = self.builder.build(context, down)?;
        let latency = LatencyHistogram::default();
        work.reverse();
        Ok(BatchesTask { work, position: 0, wall_millis: 0, resuming: Cell::new(false), head, latency })
    }
}

enum Work<T> {
    Batch(Box<Batch<T>>),
    Signal(Signal),
    WallClock(i64),
}

/// Gives the batches, and holds the head to its contract.
pub struct BatchesTask<T, H> {
    /// What is to be given, the next one last.
    work: Vec<Work<T>>,
    /// First record of the next batch that the head has not taken.
    position: usize,
    wall_millis: i64,
    resuming: Cell<bool>,
    head: H,
    latency: LatencyHistogram,
}

impl<T: Record, H: Head<T>> BatchesTask<T, H> {
    fn note(&self, flow: Flow) {
        self.resuming.set(flow == Flow::Yield);
    }

    /// Gives one thing.
    fn give(&mut self, context: &mut StepContext) {
        if self.resuming.get() {
            let flow = self.head.resume(context);
            return self.note(flow);
        }
        if self.head.next_timer().is_some_and(|at| at <= context.wall_millis) {
            let flow = self.head.on_processing_time(context);
            return self.note(flow);
        }
        match self.work.last() {
            Some(Work::Batch(batch)) => {
                // Tasks take a part of a batch where records are dear.
                let some = 1 + (7 * self.position + 3) % batch.len();
                let end = batch.len().min(self.position + some);
                let next = self.head.batch(batch, self.position..end, context);
                assert!(next > self.position && next <= end, "{next} is no position to go on from");
                assert!(next == end || context.is_blocked(), "the head stops though there is room");
                self.position = next;
                if next == batch.len() {
                    self.position = 0;
                    self.work.pop();
                }
            }
            Some(Work::Signal(signal)) => {
                let flow = self.head.signal(*signal, context);
                if let Signal::Barrier(barrier) = signal {
                    assert_eq!(flow, Flow::Continue, "the head has work left behind a barrier");
                    context.pass(*barrier);
                }
                self.note(flow);
                self.work.pop();
            }
            Some(Work::WallClock(millis)) => {
                self.wall_millis = *millis;
                context.wall_millis = *millis;
                self.work.pop();
            }
            None => {}
        }
    }
}

impl<T: Record, H: Head<T>> Task for BatchesTask<T, H> {
    fn step(&mut self, context: &mut StepContext) -> Step {
        context.wall_millis = self.wall_millis;
        self.head.drain(context);
        if context.is_blocked() {
            return Step::Blocked;
        }
        while !context.is_blocked() && (self.resuming.get() || !self.work.is_empty()) {
            self.give(context);
        }
        let done = self.work.is_empty() && !self.resuming.get();
        context.note_pushed(true);
        context.set_dry(done);
        self.head.drain(context);
        if done && !context.is_blocked() { Step::Done } else { Step::Progress }
    }

    fn report(&self, visitor: &mut dyn OperatorVisitor) {
        self.head.report(visitor);
    }

    fn watermark(&self) -> Timestamp {
        WATERMARK_MIN
    }

    fn queue(&self) -> (usize, usize) {
        (0, 0)
    }

    fn latency(&self) -> &LatencyHistogram {
        &self.latency
    }
}
