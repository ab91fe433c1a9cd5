//! The handle of a running job: wait, cancel, look.

use std::sync::Arc;

use crate::{
    model::{
        error::Error,
        metrics::{JobMetrics, OperatorInfo},
        shared::JobShared,
    },
    platform::Running,
};

/// A running job.
///
/// Dropping the handle cancels the job and waits until its workers have left; nothing of a job outlives it.
pub struct JobHandle {
    running: Option<Box<dyn Running>>,
    monitor: JobMonitor,
}

/// Watches or cancels a running job from any thread; clones watch the same job.
#[derive(Clone)]
pub struct JobMonitor {
    shared: Arc<JobShared>,
    operators: Arc<[OperatorInfo]>,
}

impl JobHandle {
    /// The handle of a job that was just started.
    pub(crate) fn new(
        running: Box<dyn Running>,
        shared: Arc<JobShared>,
        operators: Arc<[OperatorInfo]>,
    ) -> Self {
        Self { running: Some(running), monitor: JobMonitor { shared, operators } }
    }

    /// Waits for the end of the job and returns its last metrics.
    ///
    /// # Errors
    /// Why the job stopped before the end of its input.
    pub fn wait(mut self) -> Result<JobMetrics, Error> {
        self.join()?;
        Ok(self.metrics())
    }

    /// Stops the job: records under way are dropped. [`wait`](Self::wait) then returns [`Error::Cancelled`],
    /// unless the job had already failed.
    pub fn cancel(&self) {
        self.monitor.cancel();
    }

    /// The job's metrics now. Waits until every worker has answered, which takes one turn of its loop.
    pub fn metrics(&self) -> JobMetrics {
        self.monitor.metrics()
    }

    /// What watches the job from another thread while this handle waits.
    pub fn monitor(&self) -> JobMonitor {
        self.monitor.clone()
    }

    fn join(&mut self) -> Result<(), Error> {
        let joined = self.running.take().map_or(Ok(()), Running::join);
        match self.monitor.shared.failure() {
            Some(failure) => Err(failure),
            None => Ok(joined?),
        }
    }
}

impl JobMonitor {
    /// As [`JobHandle::cancel`].
    pub fn cancel(&self) {
        self.shared.fail(Error::Cancelled);
    }

    /// As [`JobHandle::metrics`]; after the end, the last metrics.
    pub fn metrics(&self) -> JobMetrics {
        JobMetrics::merge(&self.operators, self.shared.collect_reports())
    }
}

impl Drop for JobHandle {
    fn drop(&mut self) {
        if self.running.is_some() {
            self.cancel();
            // The outcome of a job that nobody waits for is nobody's business.
            let _outcome = self.join();
        }
    }
}
