//! The ends of chains that hand nothing on: sinks, and functions called for each record.

use std::{
    marker::PhantomData,
    sync::{Arc, Mutex, PoisonError},
};

use tidemill_engine::{
    model::{
        checkpoint::Part,
        graph::{BuildContext, TaskBuilder},
        item::Item,
        metrics::{OperatorCounters, OperatorVisitor},
        operator::{Chain, OpenError, OperatorIndex, Push, Signal, StepContext},
        sink::{Sink, SinkWriter},
        task::Task,
        time::Timestamp,
    },
    runtime::blame::Blame,
};

/// Ends `chain` in a sink: gives what builds each subtask.
pub fn into_sink<C, S>(
    chain: C,
    operator: OperatorIndex,
    sink: Arc<Mutex<S>>,
) -> impl Fn() -> TaskBuilder + Send
where
    C: Chain,
    S: Sink<<C::Out as Item>::Native>,
{
    move || {
        let (chain, sink) = (chain.clone(), Arc::clone(&sink));
        Box::new(move |context: &BuildContext| {
            let opened = Blame::on(operator, || {
                sink.lock().unwrap_or_else(PoisonError::into_inner).open(&context.subtask)
            });
            let writer = opened.map_err(|cause| OpenError { operator, cause })?;
            let end = SinkPush { operator, writer, unflushed: false, item: PhantomData };
            Ok(Box::new(chain.build::<SinkPush<C::Out, S::Writer>>(context, end)?) as Box<dyn Task>)
        })
    }
}

/// A running sink.
pub struct SinkPush<I, W> {
    operator: OperatorIndex,
    writer: W,
    unflushed: bool,
    item: PhantomData<fn() -> I>,
}

impl<I: Item, W: SinkWriter<I::Native>> Push<I> for SinkPush<I, W> {
    #[inline(always)]
    fn push(&mut self, item: I::Ref<'_>, timestamp: Timestamp, context: &mut StepContext) {
        let written = Blame::on(self.operator, || {
            self.writer.write(I::into_native(item), timestamp)?;
            self.writer.ready()
        });
        match written {
            Ok(true) => {}
            Ok(false) => context.block(),
            Err(error) => context.fail(self.operator, error),
        }
    }

    fn signal(&mut self, signal: Signal, context: &mut StepContext) {
        let done = match signal {
            Signal::Barrier(barrier) => {
                Blame::on(self.operator, || self.writer.pre_commit(barrier.checkpoint)).map(|committables| {
                    if !committables.is_empty() {
                        context.add_part(self.operator, Part::Committables(committables));
                    }
                })
            }
            Signal::End => Blame::on(self.operator, || self.writer.finish()),
            Signal::Watermark(_) | Signal::Idle | Signal::Active => return,
        };
        self.unflushed = false;
        if let Err(error) = done {
            context.fail(self.operator, error);
        }
    }

    fn drain(&mut self, context: &mut StepContext) {
        self.unflushed |= context.has_pushed();
        if self.unflushed && context.is_dry() {
            self.unflushed = false;
            if let Err(error) = Blame::on(self.operator, || self.writer.flush()) {
                context.fail(self.operator, error);
            }
        }
        match Blame::on(self.operator, || self.writer.ready()) {
            Ok(true) => {}
            Ok(false) => context.block(),
            Err(error) => context.fail(self.operator, error),
        }
    }

    fn report(&self, arrived: u64, visitor: &mut dyn OperatorVisitor) {
        let counters = OperatorCounters { records_in: arrived, ..OperatorCounters::default() };
        visitor.operator(self.operator, &counters);
    }
}

/// Ends `chain` in a function: gives what builds each subtask.
pub fn into_function<C, F>(chain: C, operator: OperatorIndex, function: F) -> impl Fn() -> TaskBuilder + Send
where
    C: Chain,
    F: FnMut(<C::Out as Item>::Ref<'_>) + Clone + Send + 'static,
{
    move || {
        let (chain, function) = (chain.clone(), function.clone());
        Box::new(move |context: &BuildContext| {
            let end = ForEachPush { operator, function };
            Ok(Box::new(chain.build(context, end)?) as Box<dyn Task>)
        })
    }
}

/// A running function at the end of a chain.
pub struct ForEachPush<F> {
    operator: OperatorIndex,
    function: F,
}

impl<I: Item, F: FnMut(I::Ref<'_>) + 'static> Push<I> for ForEachPush<F> {
    #[inline(always)]
    fn push(&mut self, item: I::Ref<'_>, _timestamp: Timestamp, _context: &mut StepContext) {
        Blame::on(self.operator, || (self.function)(item));
    }

    fn signal(&mut self, _signal: Signal, _context: &mut StepContext) {}

    fn drain(&mut self, _context: &mut StepContext) {}

    fn report(&self, arrived: u64, visitor: &mut dyn OperatorVisitor) {
        let counters = OperatorCounters { records_in: arrived, ..OperatorCounters::default() };
        visitor.operator(self.operator, &counters);
    }
}
