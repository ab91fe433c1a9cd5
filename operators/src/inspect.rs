//! `inspect`: looks at every record that passes. Stateless; changes nothing.

use tidemill_engine::{
    model::{
        graph::BuildContext,
        item::Item,
        operator::{Chain, OpenError, OperatorIndex, Push, StepContext},
        time::Timestamp,
    },
    runtime::blame::Blame,
};

use crate::stage::{hand_on, report_one_for_one};

/// A chain with an `inspect` at its end.
#[derive(Clone)]
pub struct Inspect<C, F> {
    up: C,
    operator: OperatorIndex,
    look: F,
}

impl<C, F> Inspect<C, F> {
    /// Puts an `inspect` behind `up`.
    pub fn new(up: C, operator: OperatorIndex, look: F) -> Self {
        Self { up, operator, look }
    }
}

impl<C, F> Chain for Inspect<C, F>
where
    C: Chain,
    F: FnMut(&<C::Out as Item>::View) + Clone + Send + 'static,
{
    type Out = C::Out;
    type Task<D: Push<C::Out>> = C::Task<InspectPush<F, D>>;

    fn build<D: Push<C::Out>>(self, context: &BuildContext, down: D) -> Result<Self::Task<D>, OpenError> {
        let Self { up, operator, look } = self;
        up.build(context, InspectPush { operator, look, down })
    }
}

/// The running operator.
pub struct InspectPush<F, D> {
    operator: OperatorIndex,
    look: F,
    down: D,
}

impl<I, F, D> Push<I> for InspectPush<F, D>
where
    I: Item,
    F: FnMut(&I::View) + 'static,
    D: Push<I>,
{
    #[inline(always)]
    fn push(&mut self, item: I::Ref<'_>, timestamp: Timestamp, context: &mut StepContext) {
        Blame::on(self.operator, || (self.look)(I::view(&item)));
        self.down.push(item, timestamp, context);
    }

    hand_on!();
    report_one_for_one!();
}
