//! `map`: makes one record of each. Stateless.

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

use crate::stage::{hand_on, report_one_for_one};

/// A chain with a `map` at its end.
pub struct Map<C, F, U> {
    up: C,
    operator: OperatorIndex,
    function: F,
    output: PhantomData<fn() -> U>,
}

impl<C, F, U> Map<C, F, U> {
    /// Puts a `map` behind `up`.
    pub fn new(up: C, operator: OperatorIndex, function: F) -> Self {
        Self { up, operator, function, output: PhantomData }
    }
}

impl<C: Clone, F: Clone, U> Clone for Map<C, F, U> {
    fn clone(&self) -> Self {
        Self::new(self.up.clone(), self.operator, self.function.clone())
    }
}

impl<C, F, U> Chain for Map<C, F, U>
where
    C: Chain,
    F: FnMut(<C::Out as Item>::Ref<'_>) -> U + Clone + Send + 'static,
    U: 'static,
{
    type Out = Owned<U>;
    type Task<D: Push<Owned<U>>> = C::Task<MapPush<F, U, D>>;

    fn build<D: Push<Owned<U>>>(self, context: &BuildContext, down: D) -> Result<Self::Task<D>, OpenError> {
        let push = MapPush { operator: self.operator, function: self.function, down, output: PhantomData };
        self.up.build(context, push)
    }
}

/// The running operator.
pub struct MapPush<F, U, D> {
    operator: OperatorIndex,
    function: F,
    down: D,
    output: PhantomData<fn() -> U>,
}

impl<I, F, U, D> Push<I> for MapPush<F, U, D>
where
    I: Item,
    F: FnMut(I::Ref<'_>) -> U + 'static,
    U: 'static,
    D: Push<Owned<U>>,
{
    #[inline(always)]
    fn push(&mut self, item: I::Ref<'_>, timestamp: Timestamp, context: &mut StepContext) {
        let output = Blame::on(self.operator, || (self.function)(item));
        self.down.push(output, timestamp, context);
    }

    hand_on!();
    report_one_for_one!();
}
