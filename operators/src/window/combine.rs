//! Combines records per key and slice before they cross an exchange, so that what crosses is one accumulator for many records.
//!
//! What is held back is handed on before the signals that speak of it: a watermark at the end of its slice, a barrier, a pause, the
//! end. So the operator has no state of its own, and a window behind it fires when it would have without.

use tidemill_engine::{
    model::{
        graph::BuildContext,
        item::{Keyed, Ship, WithKey},
        metrics::{OperatorCounters, OperatorVisitor},
        operator::{Chain, OpenError, OperatorIndex, Push, Signal, StepContext},
        time::{NO_TIMESTAMP, Timestamp},
    },
    runtime::{blame::Blame, exchange::key_of::KeyOf},
};
use tidemill_storage::{record::Record, writer::RecordWriter};

use super::{
    NO_EVENT_TIME,
    accumulator::WindowAccumulator,
    assigner::EventTimeWindows,
    partials::{Partial, Partials},
};
use crate::api::stream::{ShippedOf, ViewOf};

/// A chain that combines its records at its end.
pub struct Combine<C, X, A> {
    up: C,
    operator: OperatorIndex,
    windows: EventTimeWindows,
    keys: X,
    function: A,
}

impl<C, X, A> Combine<C, X, A> {
    /// Combines, by `function`, what comes from `up` for the keys that `keys` finds and the slices of `windows`.
    pub fn new(up: C, operator: OperatorIndex, windows: EventTimeWindows, keys: X, function: A) -> Self {
        Self { up, operator, windows, keys, function }
    }
}

impl<C: Clone, X: Clone, A: Clone> Clone for Combine<C, X, A> {
    fn clone(&self) -> Self {
        let Self { up, operator, windows, keys, function } = self;
        Self::new(up.clone(), *operator, *windows, keys.clone(), function.clone())
    }
}

/// What `A` keeps of the records of a chain per key.
type AccumulatorOf<C, X, A> =
    <A as WindowAccumulator<<X as KeyOf<ViewOf<C>>>::Key, ShippedOf<C>>>::Accumulator;

impl<C, X, A> Chain for Combine<C, X, A>
where
    C: Chain<Out: Ship>,
    X: KeyOf<ViewOf<C>>,
    A: WindowAccumulator<X::Key, ShippedOf<C>>,
{
    type Out = WithKey<AccumulatorOf<C, X, A>>;
    type Task<D: Push<Self::Out>> = C::Task<CombinePush<X, A, AccumulatorOf<C, X, A>, D>>;

    fn build<D: Push<Self::Out>>(self, context: &BuildContext, down: D) -> Result<Self::Task<D>, OpenError> {
        let push = CombinePush {
            operator: self.operator,
            windows: self.windows,
            keys: self.keys,
            function: self.function,
            current: Slice::NONE,
            scratch: RecordWriter::default(),
            held: Held { partials: Partials::new(), records_out: 0, down },
        };
        self.up.build(context, push)
    }
}

/// The slice of the last record.
#[derive(Clone, Copy)]
struct Slice {
    first: Timestamp,
    last: Timestamp,
    /// Tells it from its neighbours in the table.
    spread: u64,
}

impl Slice {
    const NONE: Self = Self { first: Timestamp::MAX, last: Timestamp::MIN, spread: 0 };

    fn of(timestamp: Timestamp, windows: &EventTimeWindows) -> Self {
        let first = windows.slice_of(timestamp);
        let spread = (first.cast_unsigned()).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        Self { first, last: windows.slice_last(first), spread }
    }

    #[inline(always)]
    fn holds(&self, timestamp: Timestamp) -> bool {
        self.first <= timestamp && timestamp <= self.last
    }
}

/// The running operator.
pub struct CombinePush<X, A, P, D> {
    operator: OperatorIndex,
    windows: EventTimeWindows,
    keys: X,
    function: A,
    current: Slice,
    scratch: RecordWriter,
    held: Held<P, D>,
}

/// What is held back, and where it goes.
struct Held<P, D> {
    partials: Partials<P>,
    records_out: u64,
    down: D,
}

impl<P: Record, D: Push<WithKey<P>>> Held<P, D> {
    /// Holds the first record of a key and slice, and hands on what had its place.
    #[inline(never)]
    fn hold(&mut self, partial: Partial<P>, spread: u64, context: &mut StepContext) {
        if let Some(left) = self.partials.put(partial, spread) {
            self.records_out += 1;
            self.down.push(left.keyed, left.timestamp, context);
        }
    }

    /// Hands on all of slices up to the one that begins at `slice`.
    #[inline(never)]
    fn release_through(&mut self, slice: Timestamp, context: &mut StepContext) {
        let Self { partials, records_out, down } = self;
        partials.take_through(slice, |partial| {
            *records_out += 1;
            down.push(partial.keyed, partial.timestamp, context);
        });
    }
}

impl<I, X, A, D> Push<I> for CombinePush<X, A, A::Accumulator, D>
where
    I: Ship,
    X: KeyOf<I::View>,
    A: WindowAccumulator<X::Key, I::Record>,
    D: Push<WithKey<A::Accumulator>>,
{
    #[inline(always)]
    fn push(&mut self, item: I::Ref<'_>, timestamp: Timestamp, context: &mut StepContext) {
        let Self { operator, windows, keys, function, current, scratch, held } = self;
        if !current.holds(timestamp) {
            if timestamp == NO_TIMESTAMP {
                return context.fail(*operator, NO_EVENT_TIME.into());
            }
            *current = Slice::of(timestamp, windows);
        }
        let key = Blame::on(*operator, || keys.key_of(I::view(&item)));
        let (hash, wide) = (key.hash(), key.wide());
        let place = held.partials.place(hash, current.spread);
        let outcome = match place {
            Some(partial) if partial.is_of(current.first, hash, wide) => {
                partial.timestamp = partial.timestamp.max(timestamp);
                let value = &mut partial.keyed.value;
                Blame::on(*operator, || I::lend(&item, scratch, |record| function.add(value, record)))
            }
            _ => Blame::on(*operator, || I::lend(&item, scratch, |record| function.first(record))).map(
                |value| {
                    let keyed = Keyed { hash, key: wide.unwrap_or_default().to_vec(), value };
                    held.hold(Partial { slice: current.first, timestamp, keyed }, current.spread, context);
                },
            ),
        };
        if let Err(error) = outcome {
            context.fail(*operator, Box::new(error));
        }
    }

    fn signal(&mut self, signal: Signal, context: &mut StepContext) {
        let over = match signal {
            Signal::Watermark(watermark) => last_slice_over(watermark, &self.windows),
            Signal::Barrier(_) | Signal::Idle | Signal::End => Some(Timestamp::MAX),
            Signal::Active => None,
        };
        if let Some(over) = over {
            self.held.release_through(over, context);
        }
        self.held.down.signal(signal, context);
    }

    fn drain(&mut self, context: &mut StepContext) {
        self.held.down.drain(context);
    }

    fn report(&self, arrived: u64, visitor: &mut dyn OperatorVisitor) {
        let records_out = self.held.records_out;
        let counters = OperatorCounters { records_in: arrived, records_out, ..Default::default() };
        visitor.operator(self.operator, &counters);
        self.held.down.report(records_out, visitor);
    }
}

/// Where slices begin, at the latest, of which nothing follows but late records; `None` if there are none.
fn last_slice_over(watermark: Timestamp, windows: &EventTimeWindows) -> Option<Timestamp> {
    // The last window of all ends at the end of time, though records may have that timestamp too.
    if watermark >= Timestamp::MAX - 1 {
        return Some(Timestamp::MAX);
    }
    windows.slice_of(watermark + 1).checked_sub(1)
}
