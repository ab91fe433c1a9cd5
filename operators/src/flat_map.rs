//! `flat_map`: makes any number of records of each, as an iterator gives them. Stateless; keeps timestamps.

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

use crate::stage::{hand_on, report_records};

/// A chain with a `flat_map` at its end.
pub struct FlatMap<C, F, U> {
    up: C,
    operator: OperatorIndex,
    function: F,
    output: PhantomData<fn() -> U>,
}

impl<C, F, U> FlatMap<C, F, U> {
    /// Puts a `flat_map` behind `up`.
    pub fn new(up: C, operator: OperatorIndex, function: F) -> Self {
        Self { up, operator, function, output: PhantomData }
    }
}

impl<C: Clone, F: Clone, U> Clone for FlatMap<C, F, U> {
    fn clone(&self) -> Self {
        Self::new(self.up.clone(), self.operator, self.function.clone())
    }
}

impl<C, F, U> Chain for FlatMap<C, F, U>
where
    C: Chain,
    F: FnMut(<C::Out as Item>::Ref<'_>) -> U + Clone + Send + 'static,
    U: IntoIterator<Item: 'static> + 'static,
{
    type Out = Owned<U::Item>;
    type Task<D: Push<Owned<U::Item>>> = C::Task<FlatMapPush<F, U, D>>;

    fn build<D: Push<Owned<U::Item>>>(
        self,
        context: &BuildContext,
        down: D,
    ) -> Result<Self::Task<D>, OpenError> {
        let push = FlatMapPush {
            operator: self.operator,
            function: self.function,
            records_out: 0,
            down,
            output: PhantomData,
        };
        self.up.build(context, push)
    }
}

/// The running operator.
pub struct FlatMapPush<F, U, D> {
    operator: OperatorIndex,
    function: F,
    records_out: u64,
    down: D,
    output: PhantomData<fn() -> U>,
}

impl<I, F, U, D> Push<I> for FlatMapPush<F, U, D>
where
    I: Item,
    F: FnMut(I::Ref<'_>) -> U + 'static,
    U: IntoIterator<Item: 'static> + 'static,
    D: Push<Owned<U::Item>>,
{
    #[inline(always)]
    fn push(&mut self, item: I::Ref<'_>, timestamp: Timestamp, context: &mut StepContext) {
        let mut outputs = Blame::on(self.operator, || (self.function)(item).into_iter());
        while let Some(output) = Blame::on(self.operator, || outputs.next()) {
            self.records_out += 1;
            self.down.push(output, timestamp, context);
        }
    }

    hand_on!();
    report_records!(records_out);
}
