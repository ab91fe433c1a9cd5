//! `filter_map`: makes one record of each, or none. Stateless; keeps timestamps.

use std::marker::PhantomData;

use tidemill_engine::{
    model::{
        graph::BuildContext,
        item::{Item, Owned},
        operator::{Chain, OpenError, OperatorIndex, Push, StepContext},
        time::Timestamp,
    },
    runtime::blame::Blame,
};

use crate::stage::{hand_on, report_dropped};

/// A chain with a `filter_map` at its end.
pub struct FilterMap<C, F, U> {
    up: C,
    operator: OperatorIndex,
    function: F,
    output: PhantomData<fn() -> U>,
}

impl<C, F, U> FilterMap<C, F, U> {
    /// Puts a `filter_map` behind `up`.
    pub fn new(up: C, operator: OperatorIndex, function: F) -> Self {
        Self { up, operator, function, output: PhantomData }
    }
}

impl<C: Clone, F: Clone, U> Clone for FilterMap<C, F, U> {
    fn clone(&self) -> Self {
        Self::new(self.up.clone(), self.operator, self.function.clone())
    }
}

impl<C, F, U> Chain for FilterMap<C, F, U>
where
    C: Chain,
    F: FnMut(<C::Out as Item>::Ref<'_>) -> Option<U> + Clone + Send + 'static,
    U: 'static,
{
    type Out = Owned<U>;
    type Task<D: Push<Owned<U>>> = C::Task<FilterMapPush<F, U, D>>;

    fn build<D: Push<Owned<U>>>(self, context: &BuildContext, down: D) -> Result<Self::Task<D>, OpenError> {
        let push = FilterMapPush {
            operator: self.operator,
            function: self.function,
            dropped: 0,
            down,
            output: PhantomData,
        };
        self.up.build(context, push)
    }
}

/// The running operator.
pub struct FilterMapPush<F, U, D> {
    operator: OperatorIndex,
    function: F,
    dropped: u64,
    down: D,
    output: PhantomData<fn() -> U>,
}

impl<I, F, U, D> Push<I> for FilterMapPush<F, U, D>
where
    I: Item,
    F: FnMut(I::Ref<'_>) -> Option<U> + 'static,
    U: 'static,
    D: Push<Owned<U>>,
{
    #[inline(always)]
    fn push(&mut self, item: I::Ref<'_>, timestamp: Timestamp, context: &mut StepContext) {
        if let Some(output) = Blame::on(self.operator, || (self.function)(item)) {
            self.down.push(output, timestamp, context);
        } else {
            self.dropped += 1;
        }
    }

    hand_on!();
    report_dropped!(dropped);
}
