//! Builds tasks on their worker's thread.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

use super::{blame::Blame, brittle::Brittle};
use crate::{
    model::{
        checkpoint::CheckpointContext,
        graph::{BuildContext, TaskBuilder, TaskPlan, unwound},
        operator::{OpenError, OperatorIndex},
        source::{BoxError, SubtaskContext},
        task::Task,
    },
    platform::{Mishap, Mishaps},
};

/// Builds the tasks of one worker.
pub struct Builder {
    /// What all tasks of the worker are built with, but for what each is told.
    template: BuildContext,
    mishaps: Option<Arc<dyn Mishaps>>,
}

impl Builder {
    /// Builds with this, but for the parallelism and what tasks are told about checkpoints.
    pub fn new(template: BuildContext, mishaps: Option<Arc<dyn Mishaps>>) -> Self {
        Self { template, mishaps }
    }

    /// What tasks are built with.
    pub(super) fn template(&self) -> &BuildContext {
        &self.template
    }

    /// Builds one task; a panic in user code that opens is an error like any other.
    ///
    /// # Errors
    /// The operator that did not open, and why.
    pub(super) fn build(
        &self,
        plan: TaskPlan,
        checkpoints: &CheckpointContext,
    ) -> Result<Box<dyn Task>, (Option<OperatorIndex>, BoxError)> {
        let TaskPlan { parallelism, build, .. } = plan;
        let context = BuildContext {
            subtask: SubtaskContext { parallelism, ..self.template.subtask.clone() },
            checkpoints: checkpoints.clone(),
            ..self.template.clone()
        };
        let task = open(build, &context)?;
        let Some(mishaps) = &self.mishaps else { return Ok(task) };
        match mishaps.next() {
            None => Ok(Box::new(Brittle::new(task, Arc::clone(mishaps)))),
            Some(Mishap::Panic | Mishap::Error) => {
                Err((None, "it does not open, as the simulation wants".into()))
            }
        }
    }
}

fn open(
    build: TaskBuilder,
    context: &BuildContext,
) -> Result<Box<dyn Task>, (Option<OperatorIndex>, BoxError)> {
    match catch_unwind(AssertUnwindSafe(|| build(context))) {
        Ok(Ok(task)) => Ok(task),
        Ok(Err(OpenError { operator, cause })) => Err((Some(operator), cause)),
        Err(panic) => Err((Blame::take(), unwound(panic))),
    }
}
