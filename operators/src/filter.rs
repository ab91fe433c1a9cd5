//! `filter`: lets the records through for which a predicate holds. Stateless; keeps timestamps.

use tidemill_engine::{
    model::{
        graph::BuildContext,
        item::Item,
        operator::{Chain, OpenError, OperatorIndex, Push, StepContext},
        time::Timestamp,
    },
    runtime::blame::Blame,
};

use crate::stage::{hand_on, report_dropped};

/// A chain with a `filter` at its end.
#[derive(Clone)]
pub struct Filter<C, F> {
    up: C,
    operator: OperatorIndex,
    predicate: F,
}

impl<C, F> Filter<C, F> {
    /// Puts a `filter` behind `up`.
    pub fn new(up: C, operator: OperatorIndex, predicate: F) -> Self {
        Self { up, operator, predicate }
    }
}

impl<C, F> Chain for Filter<C, F>
where
    C: Chain,
    F: FnMut(&<C::Out as Item>::View) -> bool + Clone + Send + 'static,
{
    type Out = C::Out;
    type Task<D: Push<C::Out>> = C::Task<FilterPush<F, D>>;

    fn build<D: Push<C::Out>>(self, context: &BuildContext, down: D) -> Result<Self::Task<D>, OpenError> {
        let Self { up, operator, predicate } = self;
        up.build(context, FilterPush { operator, predicate, dropped: 0, down })
    }
}

/// The running operator.
pub struct FilterPush<F, D> {
    operator: OperatorIndex,
    predicate: F,
    dropped: u64,
    down: D,
}

impl<I, F, D> Push<I> for FilterPush<F, D>
where
    I: Item,
    F: FnMut(&I::View) -> bool + 'static,
    D: Push<I>,
{
    #[inline(always)]
    fn push(&mut self, item: I::Ref<'_>, timestamp: Timestamp, context: &mut StepContext) {
        if Blame::on(self.operator, || (self.predicate)(I::view(&item))) {
            self.down.push(item, timestamp, context);
        } else {
            self.dropped += 1;
        }
    }

    hand_on!();
    report_dropped!(dropped);
}
