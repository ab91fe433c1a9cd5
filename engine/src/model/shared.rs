//! What a job's handle and its workers share: a flag to stop, the first failure, reports on request, and the mail between
//! the workers and the control plane.
//!
//! On the data path a worker reads two atomics that hardly ever change, once per turn.

use std::sync::{
    Arc, Condvar, Mutex, PoisonError,
    atomic::{AtomicBool, AtomicU64, Ordering},
};

use super::{
    checkpoint::{FromWorker, ToWorker},
    error::Error,
    graph::Crew,
    mailbox::Mailbox,
    metrics::WorkerReport,
};
use crate::platform::Wake;

/// Shared between the control plane and the workers of one job.
pub struct JobShared {
    stop: AtomicBool,
    report_wanted: AtomicU64,
    state: Mutex<State>,
    changed: Condvar,
    wakers: Vec<Arc<dyn Wake>>,
    to_workers: Vec<Mailbox<ToWorker>>,
    crews: Vec<Mailbox<Crew>>,
    from_workers: Mailbox<FromWorker>,
    control: Option<Arc<dyn Wake>>,
}

struct State {
    failure: Option<Error>,
    reports: Vec<Reported>,
}

#[derive(Clone, Default)]
struct Reported {
    epoch: u64,
    done: bool,
    report: WorkerReport,
}

impl JobShared {
    /// For a job with these workers.
    pub fn new(wakers: Vec<Arc<dyn Wake>>) -> Self {
        let reports = vec![Reported::default(); wakers.len()];
        Self {
            stop: AtomicBool::new(false),
            report_wanted: AtomicU64::new(0),
            state: Mutex::new(State { failure: None, reports }),
            changed: Condvar::new(),
            to_workers: wakers.iter().map(|_| Mailbox::default()).collect(),
            crews: wakers.iter().map(|_| Mailbox::default()).collect(),
            from_workers: Mailbox::default(),
            control: None,
            wakers,
        }
    }

    /// What wakes each worker.
    pub fn wakers(&self) -> &[Arc<dyn Wake>] {
        &self.wakers
    }

    /// With a control plane that hears what workers say; it is woken by `control`.
    pub fn with_control(mut self, control: Arc<dyn Wake>) -> Self {
        self.control = Some(control);
        self
    }

    /// Says something to every worker.
    pub fn tell_workers(&self, message: ToWorker) {
        for (mailbox, waker) in self.to_workers.iter().zip(&self.wakers) {
            mailbox.put(message);
            waker.wake();
        }
    }

    /// Has a worker build tasks, behind all else that it was told.
    pub fn send_crew(&self, worker: usize, crew: Crew) {
        self.crews[worker].put(crew);
        self.to_workers[worker].put(ToWorker::Build);
        self.wakers[worker].wake();
    }

    /// The tasks that a worker is to build.
    pub fn next_crew(&self, worker: usize) -> Option<Crew> {
        self.crews[worker].take()
    }

    /// The next thing that was said to a worker.
    #[inline]
    pub fn next_for_worker(&self, worker: usize) -> Option<ToWorker> {
        self.to_workers[worker].take()
    }

    /// Says something to the control plane, if there is one that listens.
    pub fn tell_control(&self, message: FromWorker) {
        self.leave_for_control(message);
        self.wake_control();
    }

    /// As [`tell_control`](Self::tell_control), to be heard when it is [woken](Self::wake_control) next.
    pub fn leave_for_control(&self, message: FromWorker) {
        if self.control.is_some() {
            self.from_workers.put(message);
        }
    }

    /// Wakes the control plane.
    pub fn wake_control(&self) {
        self.control.iter().for_each(|control| control.wake());
    }

    /// The next thing that a worker has said.
    pub fn next_for_control(&self) -> Option<FromWorker> {
        self.from_workers.take()
    }

    /// Stops the job without a failure: everything that is to be kept is in a checkpoint.
    pub fn suspend(&self) {
        self.stop.store(true, Ordering::Release);
        self.wake_all();
    }

    /// Whether every worker has left.
    pub fn all_left(&self) -> bool {
        self.state().reports.iter().all(|reported| reported.done)
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        // Nothing that could panic runs under this lock, so the state behind a poisoned one is whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wake_all(&self) {
        for waker in &self.wakers {
            waker.wake();
        }
    }

    /// Stops the job with `failure`, unless it already failed, or every worker has left: then nothing is left to stop, and
    /// a job that has come to its end stays what it is.
    pub fn fail(&self, failure: Error) {
        let mut state = self.state();
        if state.reports.iter().all(|reported| reported.done) {
            return;
        }
        state.failure.get_or_insert(failure);
        drop(state);
        self.stop.store(true, Ordering::Release);
        self.wake_all();
        self.wake_control();
    }

    /// Whether workers are to drop everything and leave.
    #[inline]
    pub fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::Acquire)
    }

    /// Why the job failed, if it did.
    pub fn failure(&self) -> Option<Error> {
        self.state().failure.clone()
    }

    /// Raised whenever somebody wants a report from every worker.
    #[inline]
    pub fn report_wanted(&self) -> u64 {
        self.report_wanted.load(Ordering::Acquire)
    }

    /// A worker's report for request `epoch`; its last one if `done`.
    pub fn report(&self, worker: usize, epoch: u64, done: bool, report: WorkerReport) {
        self.state().reports[worker] = Reported { epoch, done, report };
        self.changed.notify_all();
    }

    /// A worker is gone; what it reported last stands.
    pub fn leave(&self, worker: usize) {
        self.state().reports[worker].done = true;
        self.changed.notify_all();
        self.wake_control();
    }

    /// Asks every worker for a report and waits for it.
    pub fn collect_reports(&self) -> Vec<WorkerReport> {
        let epoch = self.report_wanted.fetch_add(1, Ordering::AcqRel) + 1;
        self.wake_all();
        let waited = self.changed.wait_while(self.state(), |state| {
            state.reports.iter().any(|reported| !reported.done && reported.epoch < epoch)
        });
        let state = waited.unwrap_or_else(PoisonError::into_inner);
        state.reports.iter().map(|reported| reported.report.clone()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Nobody;

    impl Wake for Nobody {
        fn wake(&self) {}
    }

    #[test]
    fn a_job_that_has_ended_cannot_be_cancelled() {
        let shared = JobShared::new(vec![Arc::new(Nobody), Arc::new(Nobody)]);
        shared.leave(0);
        shared.leave(1);
        shared.fail(Error::Cancelled);
        assert!(shared.failure().is_none() && !shared.is_stopped());
        let shared = JobShared::new(vec![Arc::new(Nobody), Arc::new(Nobody)]);
        shared.leave(0);
        shared.fail(Error::Cancelled);
        assert!(matches!(shared.failure(), Some(Error::Cancelled)) && shared.is_stopped());
    }
}
