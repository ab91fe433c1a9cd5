//! The producing side of an edge, at the end of a chain: partitions, archives, batches and sends.
//!
//! **Adaptive batching.** A batch is sent when it is full; when its receiver has nothing else to do (then at
//! the end of the step that filled it, so a lone record never waits for company); and when it is older than
//! `linger_us_max`. Under load receivers are busy and batches fill up.
//!
//! **Backpressure.** What the ring has no room for waits in the target's outbox, and an outbox that is not
//! empty blocks the chain. Its length is bounded by what one record, or one signal, becomes.
//!
//! **A barrier that overtakes** does not wait: it is announced at once, and what is in the outbox and the open batch, which it
//! has overtaken, is added to the checkpoint.
//!
//! **Order.** Per target, batches and signals keep the order of the pushes: a signal sends the open batch first.

use std::{collections::VecDeque, mem};

use tidemill_storage::record::Record;

use super::{
    batch::{Batch, Columns, RecordKey},
    channel::{Parcel, Sender},
    in_flight::{in_flight, write, write_batch},
    partition::{Partition, Route},
};
use crate::{
    model::{
        checkpoint::{Barrier, BarrierKind, ChannelEnd, CheckpointId, InFlight, Part},
        config::JobConfig,
        element::Element,
        item::Ship,
        metrics::{OperatorCounters, OperatorVisitor},
        operator::{OperatorIndex, Push, Signal, StepContext},
        time::Timestamp,
    },
    platform::Nanos,
    runtime::blame::Blame,
};

/// Writes the records of one producing subtask to the subtasks that it reaches.
pub struct EdgeWriter<T, P> {
    operator: OperatorIndex,
    partition: P,
    targets: Vec<Target<T>>,
    counters: OperatorCounters,
}

/// What one edge is made with.
#[derive(Clone, Copy, Debug)]
pub struct BatchSettings {
    /// As [`JobConfig::batch_records_max`].
    pub records_max: usize,
    /// As [`JobConfig::batch_bytes_max`].
    pub bytes_max: usize,
    /// As [`JobConfig::linger_us_max`], in nanoseconds.
    pub linger: Nanos,
    /// Which columns batches carry.
    pub columns: Columns,
}

impl BatchSettings {
    /// The settings of a job's edge with these columns.
    pub fn new(config: &JobConfig, columns: Columns) -> Self {
        Self {
            records_max: config.batch_records_max,
            bytes_max: config.batch_bytes_max,
            linger: config.linger_us_max * 1_000,
            columns,
        }
    }

    fn batch<T: Record>(&self) -> Box<Batch<T>> {
        Box::new(Batch::new(self.records_max, self.bytes_max, self.columns))
    }
}

/// One consumer: the batch being filled for it, and the way there.
struct Target<T> {
    open: Box<Batch<T>>,
    /// The buffer after it, got ready once the last batch was on its way.
    spare: Option<Box<Batch<T>>>,
    sender: Sender<T>,
    outbox: VecDeque<Parcel<T>>,
    settings: BatchSettings,
}

impl<T: Record, P> EdgeWriter<T, P> {
    /// A writer to these consumers; `partition` is already opened. `operator` is the partitioning operator.
    pub fn new(
        operator: OperatorIndex,
        partition: P,
        senders: Vec<Sender<T>>,
        settings: BatchSettings,
    ) -> Self {
        let targets = senders.into_iter().map(|sender| Target {
            open: settings.batch(),
            spare: None,
            sender,
            outbox: VecDeque::new(),
            settings,
        });
        Self { operator, partition, targets: targets.collect(), counters: OperatorCounters::default() }
    }
}

impl<T: Record> Target<T> {
    /// Archives one record; returns whether the batch has to be [sent](Self::ship) now.
    #[inline(always)]
    fn put<I: Ship<Record = T>>(
        &mut self,
        item: &I::Ref<'_>,
        timestamp: Timestamp,
        key: RecordKey<'_>,
        operator: OperatorIndex,
        context: &mut StepContext,
    ) -> bool {
        if self.open.is_empty() {
            self.open.opened = context.now;
            self.open.ingest = context.ingest;
        }
        I::put(item, &mut self.open, timestamp, key).unwrap_or_else(|error| {
            context.fail(operator, Box::new(error));
            false
        })
    }

    /// Sends the open batch and takes another buffer; returns the bytes sent.
    #[cold]
    #[inline(never)]
    fn ship(&mut self, context: &mut StepContext) -> u64 {
        let next = self.spare.take().unwrap_or_else(|| self.settings.batch());
        let full = mem::replace(&mut self.open, next);
        let bytes = full.payload_bytes();
        self.offer(Element::Batch(full), context);
        // Its cache lines are still the receiver's: fetching them must not hold the batch back.
        self.spare = self.sender.recycled().map(|mut batch| {
            batch.clear();
            batch
        });
        bytes
    }

    /// Sends an element behind everything that waits, or lets it wait and blocks the chain.
    fn offer(&mut self, parcel: Parcel<T>, context: &mut StepContext) {
        let refused = if self.outbox.is_empty() { self.sender.send(parcel).err() } else { Some(parcel) };
        if let Some(parcel) = refused {
            // Of watermarks that wait next to each other only the last one says anything.
            if let (Element::Watermark(_), Some(Element::Watermark(last))) = (&parcel, self.outbox.back_mut())
                && let Element::Watermark(newer) = parcel
            {
                *last = newer;
            } else {
                self.outbox.push_back(parcel);
            }
            context.block();
        }
    }

    /// Announces a barrier before all that was not sent; returns what it has overtaken here. That is sent as ever.
    fn announce(&mut self, checkpoint: CheckpointId) -> Option<InFlight> {
        let mut bytes = Vec::new();
        self.outbox.iter().for_each(|parcel| write(parcel, &mut bytes));
        if !self.open.is_empty() {
            write_batch(&self.open, 0, &mut bytes);
        }
        self.sender.announce(checkpoint);
        in_flight::<T>(self.sender.place(), ChannelEnd::Sender, bytes)
    }

    /// Sends what waits as far as there is room, and the open batch if it has waited long enough.
    fn drain(&mut self, context: &mut StepContext) -> u64 {
        while let Some(parcel) = self.outbox.pop_front() {
            if let Err(refused) = self.sender.send(parcel) {
                self.outbox.push_front(refused);
                if self.sender.is_abandoned() {
                    // The consumer is gone: the job, or its region, is being torn down.
                    self.outbox.clear();
                }
                context.block();
                return 0;
            }
        }
        // Asked before there is a record that would wait for the answer.
        let is_drained = self.sender.is_drained();
        if self.open.is_empty() {
            return 0;
        }
        let due = self.open.opened + self.settings.linger;
        if context.now >= due || is_drained {
            return self.ship(context);
        }
        context.wake_at(due);
        0
    }
}

impl<T: Record, P> EdgeWriter<T, P> {
    /// Archives one item for the targets that its partitioner names.
    #[inline(always)]
    pub fn write<I>(&mut self, item: &I::Ref<'_>, timestamp: Timestamp, context: &mut StepContext)
    where
        I: Ship<Record = T>,
        P: Partition<I::View>,
    {
        let Self { operator, partition, targets, counters } = self;
        let route = Blame::on(*operator, || partition.route(I::view(item)));
        match route {
            Route::One { target, key } => {
                let target = &mut targets[target];
                if target.put::<I>(item, timestamp, key, *operator, context) {
                    counters.bytes_out += target.ship(context);
                }
            }
            Route::All => {
                for target in targets.iter_mut() {
                    if target.put::<I>(item, timestamp, RecordKey::None, *operator, context) {
                        counters.bytes_out += target.ship(context);
                    }
                }
            }
        }
    }
}

impl<I, T, P> Push<I> for EdgeWriter<T, P>
where
    I: Ship<Record = T>,
    T: Record,
    P: Partition<I::View>,
{
    #[inline(always)]
    fn push(&mut self, item: I::Ref<'_>, timestamp: Timestamp, context: &mut StepContext) {
        self.write::<I>(&item, timestamp, context);
    }

    fn signal(&mut self, signal: Signal, context: &mut StepContext) {
        if let Signal::Barrier(Barrier { checkpoint, kind: BarrierKind::Overtaking }) = signal {
            let overtaken = self.targets.iter_mut().filter_map(|target| target.announce(checkpoint));
            context.add_part(self.operator, Part::InFlight(overtaken.collect()));
            return;
        }
        for target in &mut self.targets {
            if !target.open.is_empty() {
                self.counters.bytes_out += target.ship(context);
            }
            target.offer(element_of(signal), context);
        }
    }

    fn drain(&mut self, context: &mut StepContext) {
        for target in &mut self.targets {
            self.counters.bytes_out += target.drain(context);
        }
    }

    fn report(&self, arrived: u64, visitor: &mut dyn OperatorVisitor) {
        let copies = if P::BROADCASTS { self.targets.len() as u64 } else { 1 };
        let counters =
            OperatorCounters { records_in: arrived, records_out: arrived * copies, ..self.counters.clone() };
        visitor.operator(self.operator, &counters);
    }
}

fn element_of<B>(signal: Signal) -> Element<B> {
    match signal {
        Signal::Watermark(watermark) => Element::Watermark(watermark),
        Signal::Idle => Element::Idle,
        Signal::Active => Element::Active,
        Signal::Barrier(barrier) => Element::Barrier(barrier),
        Signal::End => Element::End,
    }
}
