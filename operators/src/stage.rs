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

/// Shows an operator that hands on one record for each, then those behind it.
macro_rules! report_one_for_one {
    () => {
        fn report(&self, arrived: u64, visitor: &mut dyn tidemill_engine::model::metrics::OperatorVisitor) {
            let counters = tidemill_engine::model::metrics::OperatorCounters {
                records_in: arrived,
                records_out: arrived,
                ..Default::default()
            };
            visitor.operator(self.operator, &counters);
            self.down.report(arrived, visitor);
        }
    };
}

/// Shows an operator that counts in a field what it drops, and hands the rest on one for one; then those behind it. The way
/// of a record that passes stays free of counting.
macro_rules! report_dropped {
    ($dropped:ident) => {
        fn report(&self, arrived: u64, visitor: &mut dyn tidemill_engine::model::metrics::OperatorVisitor) {
            let records_out = arrived.saturating_sub(self.$dropped);
            let counters = tidemill_engine::model::metrics::OperatorCounters {
                records_in: arrived,
                records_out,
                ..Default::default()
            };
            visitor.operator(self.operator, &counters);
            self.down.report(records_out, visitor);
        }
    };
}

/// Shows an operator that counts in a field what it hands on, then those behind it.
macro_rules! report_records {
    ($records_out:ident) => {
        fn report(&self, arrived: u64, visitor: &mut dyn tidemill_engine::model::metrics::OperatorVisitor) {
            let records_out: u64 = self.$records_out;
            let counters = tidemill_engine::model::metrics::OperatorCounters {
                records_in: arrived,
                records_out,
                ..Default::default()
            };
            visitor.operator(self.operator, &counters);
            self.down.report(records_out, visitor);
        }
    };
}

pub(crate) use {hand_on, report_dropped, report_one_for_one, report_records};
