//! What all stateless operators of a chain have in common.

/// The parts of [`Push`](tidemill_engine::model::operator::Push) that a stateless operator only hands on to `self.down`.
macro_rules! hand_on {
    () => {
        fn signal(
            &mut self,
            signal: tidemill_engine::model::operator::Signal,
            context: &mut tidemill_engine::model::operator::StepContext,
        ) {
            self.down.signal(signal, context);
        }

        fn drain(&mut self, context: &mut tidemill_engine::model::operator::StepContext) {
            self.down.drain(context);
        }
    };
}

/// Shows an operator's records in and out, then the operators behind it.
macro_rules! report_records {
    ($records_in:ident, $records_out:ident) => {
        fn report(&self, visitor: &mut dyn tidemill_engine::model::metrics::OperatorVisitor) {
            let counters = tidemill_engine::model::metrics::OperatorCounters {
                records_in: self.$records_in,
                records_out: self.$records_out,
                ..Default::default()
            };
            visitor.operator(self.operator, &counters);
            self.down.report(visitor);
        }
    };
}

pub(crate) use {hand_on, report_records};
