//! A task that fails when the platform says so: how a simulation has operators fail that are sound.

use std::sync::Arc;

use super::slot::first_operator;
use crate::{
    model::{
        metrics::{LatencyHistogram, OperatorVisitor, SourceTime},
        operator::StepContext,
        task::{Step, Task},
        time::Timestamp,
    },
    platform::{Mishap, Mishaps, Nanos},
};

/// A task that fails when it is to.
pub(super) struct Brittle {
    task: Box<dyn Task>,
    mishaps: Arc<dyn Mishaps>,
}

impl Brittle {
    pub(super) fn new(task: Box<dyn Task>, mishaps: Arc<dyn Mishaps>) -> Self {
        Self { task, mishaps }
    }
}

impl Task for Brittle {
    fn step(&mut self, context: &mut StepContext) -> Step {
        let before = self.mishaps.next();
        // Half of them strike behind a step: then what the task has done and said in it is lost, too.
        let step = if before == Some(Mishap::Panic) { Step::Blocked } else { self.task.step(context) };
        match before {
            None => {}
            Some(Mishap::Panic) => strike(),
            Some(Mishap::Error) => {
                let operator = first_operator(&*self.task).unwrap_or_default();
                context.fail(operator, "it fails, as the simulation wants".into());
            }
        }
        step
    }

    fn settle(&mut self, now: Nanos) {
        self.task.settle(now);
    }

    fn report(&self, visitor: &mut dyn OperatorVisitor) {
        self.task.report(visitor);
    }

    fn watermark(&self) -> Timestamp {
        self.task.watermark()
    }

    fn source_time(&self, subtask: usize, now: Nanos, wall_millis: i64) -> Option<SourceTime> {
        self.task.source_time(subtask, now, wall_millis)
    }

    fn queue(&self) -> (usize, usize) {
        self.task.queue()
    }

    fn latency(&self) -> &LatencyHistogram {
        self.task.latency()
    }
}

fn strike() {
    // Without the message of a panic that nobody expects.
    std::panic::resume_unwind(Box::new("it panics, as the simulation wants"));
}
