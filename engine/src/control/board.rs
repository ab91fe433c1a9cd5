//! What a job's handle sees of all its attempts, and what it may ask for.

use std::{
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc},
};

use super::savepoint::Target;
use crate::{
    model::{
        checkpoint::CheckpointId,
        error::Error,
        mailbox::Mailbox,
        metrics::{CheckpointStats, WorkerReport},
        shared::JobShared,
    },
    platform::{Nanos, Wake},
};

/// A checkpoint that somebody has asked for.
pub(super) struct Request {
    /// Where a savepoint is to be written; `None` for a checkpoint like others.
    pub(super) target: Option<Target>,
    /// Whether the job stops behind it.
    pub(super) stops: bool,
    /// Whether everything is brought to its end first, as if the input had ended.
    pub(super) drains: bool,
    /// Since when it waits for operators that are down.
    waits_since: Option<Nanos>,
    answer: mpsc::Sender<Result<PathBuf, Error>>,
}

impl Request {
    /// Whether the job is to be stopped behind a checkpoint, and nothing else.
    pub(super) fn is_plain_stop(&self) -> bool {
        self.stops && !self.drains && self.target.is_none()
    }

    /// Says what became of it.
    pub(super) fn answer(self, answer: Result<PathBuf, Error>) {
        // Whoever has asked may not wait for it.
        let _ = self.answer.send(answer);
    }
}

/// Shared between the handle, the supervisor and the coordinators of a job.
#[derive(Default)]
pub(super) struct Board {
    state: Mutex<State>,
    requests: Mailbox<Request>,
}

/// Why a job is brought down before its time.
#[derive(Clone)]
enum Ending {
    /// Its user does not want it any more.
    Cancelled,
    /// Nobody waits for it, or it could not be stopped behind a last checkpoint, for this reason. It is to go on another time.
    Left(Error),
}

impl Ending {
    /// What the job ends with.
    fn error(&self) -> Error {
        match self {
            Self::Cancelled => Error::Cancelled,
            Self::Left(why) => why.clone(),
        }
    }
}

#[derive(Default)]
struct State {
    attempt: Option<Arc<JobShared>>,
    control: Option<Arc<dyn Wake>>,
    ending: Option<Ending>,
    /// No further attempt follows.
    over: bool,
    /// Why the attempt failed, where its workers could not hear of it any more.
    failure: Option<Error>,
    /// The restart strategy has said that it is over.
    given_up: bool,
    /// What a region went on from whose state turned out to be damaged.
    suspect: Option<CheckpointId>,
    finished: bool,
    suspended: bool,
    /// The attempt has stopped behind a checkpoint and another one is to go on from it, for this reason.
    goes_on_after: Option<Error>,
    stats: CheckpointStats,
}

impl Board {
    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing that could panic runs under this lock.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A new attempt begins, unless the job was brought down meanwhile.
    pub(super) fn begin(&self, attempt: &Arc<JobShared>, control: Option<Arc<dyn Wake>>) {
        let mut state = self.state();
        (state.attempt, state.control) = (Some(Arc::clone(attempt)), control);
        let ending = state.ending.clone();
        drop(state);
        ending.iter().for_each(|ending| attempt.fail(ending.error()));
    }

    /// Brings the job down because its user does not want it any more.
    pub(super) fn cancel(&self) {
        self.bring_down(self.state(), Ending::Cancelled);
    }

    /// Brings the job down for this reason, to go on another time from the checkpoint that it has. A job that was cancelled stays so.
    pub(super) fn leave(&self, why: Error) {
        let state = self.state();
        if state.ending.is_none() {
            self.bring_down(state, Ending::Left(why));
        }
    }

    fn bring_down(&self, mut state: MutexGuard<'_, State>, ending: Ending) {
        let error = ending.error();
        state.ending = Some(ending);
        let (attempt, control) = (state.attempt.clone(), state.control.clone());
        drop(state);
        attempt.iter().for_each(|attempt| attempt.fail(error.clone()));
        // Its workers may have left, and a savepoint be waited for.
        control.iter().for_each(|control| control.wake());
    }

    /// With what the job ends, if it was brought down: no attempt follows.
    pub(super) fn ending(&self) -> Option<Error> {
        self.state().ending.as_ref().map(Ending::error)
    }

    /// Whether the job is brought down.
    pub(super) fn is_ending(&self) -> bool {
        self.state().ending.is_some()
    }

    /// Whether its user does not want the job any more.
    pub(super) fn is_cancelled(&self) -> bool {
        matches!(self.state().ending, Some(Ending::Cancelled))
    }

    /// The workers' reports of the present or the last attempt.
    pub(super) fn collect_reports(&self) -> Vec<WorkerReport> {
        let attempt = self.state().attempt.clone();
        attempt.map(|attempt| attempt.collect_reports()).unwrap_or_default()
    }

    /// Asks for a checkpoint and waits for it.
    pub(super) fn ask(&self, target: Option<Target>, stops: bool, drains: bool) -> Result<PathBuf, Error> {
        self.post(target, stops, drains)?.recv().unwrap_or(Err(Error::Over))
    }

    /// Asks for a checkpoint; what becomes of it is heard later.
    pub(super) fn post(
        &self,
        target: Option<Target>,
        stops: bool,
        drains: bool,
    ) -> Result<mpsc::Receiver<Result<PathBuf, Error>>, Error> {
        let (answer, answered) = mpsc::channel();
        let state = self.state();
        if state.over {
            return Err(Error::Over);
        }
        self.requests.put(Request { target, stops, drains, waits_since: None, answer });
        let control = state.control.clone();
        drop(state);
        control.iter().for_each(|control| control.wake());
        Ok(answered)
    }

    /// Whether the job has ended, and nothing can be asked of it.
    pub(super) fn is_over(&self) -> bool {
        self.state().over
    }

    /// Leaves a request to the next attempt.
    pub(super) fn hand_on(&self, request: Request) {
        self.requests.put(request);
    }

    pub(super) fn next_request(&self) -> Option<Request> {
        self.requests.take()
    }

    /// Whether somebody wants the job stopped, and nothing else, and was not heard yet.
    pub(super) fn is_to_stop(&self) -> bool {
        self.requests.has(Request::is_plain_stop)
    }

    /// Answers those who want the job stopped, and nothing else, while it is down: it goes on from `place` when it is started again. Whether there
    /// are any; no checkpoint is taken then.
    pub(super) fn stop_at(&self, place: impl FnOnce() -> PathBuf) -> bool {
        let stops = self.requests.take_those(|request| request.is_plain_stop());
        if stops.is_empty() {
            return false;
        }
        let place = place();
        tracing::warn!(
            from = %place.display(),
            "the job was down when it was asked to stop, and is stopped without another checkpoint; started again, it goes on from the \
             newest that it has"
        );
        self.note_suspended();
        stops.into_iter().for_each(|stop| stop.answer(Ok(place.clone())));
        true
    }

    /// Answers those whom operators that are down keep waiting: they wait for `at_most`, and not at all if nothing can be up before that. `up_at` is
    /// when all are, at the earliest. Those who want the job stopped, and nothing else, are [answered otherwise](Self::stop_at). When to
    /// look again.
    pub(super) fn refuse_late(
        &self,
        now: Nanos,
        at_most: Nanos,
        up_at: Option<Nanos>,
        why: impl Fn() -> Error,
    ) -> Option<Nanos> {
        let mut next = None;
        let late = self.requests.take_those(|request| {
            if request.is_plain_stop() {
                return false;
            }
            let end = request.waits_since.get_or_insert(now).saturating_add(at_most);
            let is_late = end <= now || up_at.is_some_and(|up_at| end < up_at);
            if !is_late {
                next = next.into_iter().chain([end]).min();
            }
            is_late
        });
        late.into_iter().for_each(|request| request.answer(Err(why())));
        next
    }

    /// No attempt follows: whoever still waits is told with what the job has ended.
    pub(super) fn close(&self, outcome: &Result<(), Error>) {
        self.state().over = true;
        let why = outcome.as_ref().err().cloned().unwrap_or(Error::Over);
        while let Some(request) = self.requests.take() {
            request.answer(Err(why.clone()));
        }
    }

    /// Why the attempt failed, where its workers may have left already.
    pub(super) fn fail(&self, error: Error) {
        self.state().failure.get_or_insert(error);
    }

    pub(super) fn has_failed(&self) -> bool {
        self.state().failure.is_some()
    }

    pub(super) fn take_failure(&self) -> Option<Error> {
        self.state().failure.take()
    }

    pub(super) fn note_finished(&self) {
        self.state().finished = true;
    }

    pub(super) fn note_suspended(&self) {
        self.state().suspended = true;
    }

    /// The attempt stops behind a checkpoint, and another one is to go on from it: what was to be done there has failed.
    pub(super) fn go_on_after(&self, why: Error) {
        self.state().goes_on_after = Some(why);
    }

    pub(super) fn take_going_on(&self) -> Option<Error> {
        self.state().goes_on_after.take()
    }

    /// Whether the job has come to its end with its last checkpoint.
    pub(super) fn is_finished(&self) -> bool {
        self.state().finished
    }

    /// Whether the job was stopped, to go on another time.
    pub(super) fn is_suspended(&self) -> bool {
        self.state().suspended
    }

    pub(super) fn note_completed(
        &self,
        checkpoint: CheckpointId,
        took: Nanos,
        bytes_written: u64,
        in_flight_bytes: u64,
    ) {
        let stats = &mut self.state().stats;
        stats.in_flight_bytes += in_flight_bytes;
        stats.completed += 1;
        stats.last = Some(checkpoint);
        stats.bytes_written += bytes_written;
        stats.last_bytes_written = bytes_written;
        stats.durations.record(took, 1);
    }

    pub(super) fn note_failed(&self, cause: &str) {
        let stats = &mut self.state().stats;
        stats.failed += 1;
        stats.last_failure = Some(cause.to_owned());
    }

    pub(super) fn note_restored(&self, checkpoint: Option<CheckpointId>) {
        self.state().stats.restored_from = checkpoint;
    }

    /// Operators are started again: all of them, or those of one region.
    pub(super) fn note_restart(&self, cause: &Error, operators: Vec<String>, is_region: bool) {
        let stats = &mut self.state().stats;
        stats.restarts += 1;
        stats.region_restarts += u64::from(is_region);
        stats.last_restart = Some(cause.to_string());
        stats.last_restart_operators = operators;
    }

    /// No restart follows: the restart strategy has said so.
    pub(super) fn give_up(&self) {
        self.state().given_up = true;
    }

    pub(super) fn has_given_up(&self) -> bool {
        self.state().given_up
    }

    /// The attempt fails because of what is in the checkpoint that one of its regions went on from.
    pub(super) fn suspect(&self, checkpoint: Option<CheckpointId>) {
        self.state().suspect = checkpoint;
    }

    pub(super) fn take_suspect(&self) -> Option<CheckpointId> {
        self.state().suspect.take()
    }

    pub(super) fn stats(&self) -> CheckpointStats {
        self.state().stats.clone()
    }
}
