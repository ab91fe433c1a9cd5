//! `ship_as`: changes nothing but what records become when they cross an exchange.

use std::marker::PhantomData;

use tidemill_engine::model::{
    graph::BuildContext,
    item::{Owned, ViewAs},
    metrics::OperatorVisitor,
    operator::{Chain, OpenError, Push, Signal, StepContext},
    time::Timestamp,
};
use tidemill_storage::record::{Record, WriteAs};

/// A chain whose values cross exchanges as records `T`.
pub struct ShipAs<C, T> {
    up: C,
    record: PhantomData<fn() -> T>,
}

impl<C, T> ShipAs<C, T> {
    /// Puts it behind `up`.
    pub fn new(up: C) -> Self {
        Self { up, record: PhantomData }
    }
}

impl<C: Clone, T> Clone for ShipAs<C, T> {
    fn clone(&self) -> Self {
        Self::new(self.up.clone())
    }
}

impl<V, C, T> Chain for ShipAs<C, T>
where
    V: WriteAs<T> + 'static,
    C: Chain<Out = Owned<V>>,
    T: Record,
{
    type Out = ViewAs<V, T>;
    type Task<D: Push<ViewAs<V, T>>> = C::Task<ShipAsPush<T, D>>;

    fn build<D: Push<ViewAs<V, T>>>(
        self,
        context: &BuildContext,
        down: D,
    ) -> Result<Self::Task<D>, OpenError> {
        self.up.build(context, ShipAsPush { down, record: PhantomData })
    }
}

/// The running adapter: of no operator's metrics, since it does nothing.
pub struct ShipAsPush<T, D> {
    down: D,
    record: PhantomData<fn() -> T>,
}

impl<V, T, D> Push<Owned<V>> for ShipAsPush<T, D>
where
    V: WriteAs<T> + 'static,
    T: Record,
    D: Push<ViewAs<V, T>>,
{
    #[inline(always)]
    fn push(&mut self, view: V, timestamp: Timestamp, context: &mut StepContext) {
        self.down.push(view, timestamp, context);
    }

    fn signal(&mut self, signal: Signal, context: &mut StepContext) {
        self.down.signal(signal, context);
    }

    fn drain(&mut self, context: &mut StepContext) {
        self.down.drain(context);
    }

    fn report(&self, arrived: u64, visitor: &mut dyn OperatorVisitor) {
        self.down.report(arrived, visitor);
    }
}
