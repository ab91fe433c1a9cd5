//! What is asked of a job: checkpoints, savepoints, and to be stopped behind one.

use std::path::Path;

use super::Coordinator;
use crate::{
    control::{board::Request, savepoint::Target},
    model::{
        checkpoint::{BarrierKind, ToWorker},
        checkpoint_error::CheckpointError,
        error::Error,
    },
    platform::Nanos,
};

impl Coordinator {
    /// Does what is asked for, or says why not.
    pub(super) fn serve(&mut self, now: Nanos) {
        while let Some(request) = self.board.next_request() {
            let is_stopping = self.closing || self.draining.is_some();
            if is_stopping && request.is_plain_stop() {
                self.following.push(request);
            } else if let Some((why, fix)) = self.refusal(&request) {
                let what = "cannot take a savepoint".to_owned();
                request.answer(Err(Error::config(what, why.to_owned(), fix.to_owned())));
            } else if request.drains {
                self.draining = Some(request);
                self.shared.tell_workers(ToWorker::Drain);
            } else {
                let kind = match &request {
                    request if request.stops => BarrierKind::Suspending,
                    // A savepoint is to be of use to other programs: it has no records under way.
                    request if request.target.is_some() => BarrierKind::Running,
                    _ => self.kind_at_first(),
                };
                self.trigger(kind, Some(request), now);
            }
        }
    }

    /// Stops the job while a region waits to be started again, if that is wanted: it would go on from the newest checkpoint, and so it
    /// does another time. What the other regions have done since is done again.
    pub(super) fn stop_while_down(&mut self) {
        if !self.failover.is_one_down() {
            return;
        }
        let place = || self.vault.lock().library.as_ref().map(|library| library.newest_place());
        if self.plan.config.is_some() && self.board.stop_at(|| place().unwrap_or_default()) {
            self.suspend();
        }
    }

    /// Answers those who want more than that and whom a region that is not up keeps waiting for longer than a checkpoint may take; when to look
    /// again. A drain that has begun goes on in any case.
    pub(super) fn refuse_while_down(&mut self, now: Nanos) -> Option<Nanos> {
        // Served once more when all are up.
        self.draining.take().into_iter().for_each(|request| self.board.hand_on(request));
        let at_most = self.plan.config.as_ref().map_or(0, |_| self.timeout());
        let why = || CheckpointError::Down { outages: self.outages(now) }.into();
        self.board.refuse_late(now, at_most, self.failover.last_rise(), why)
    }

    /// Why a request is refused, and what to do.
    fn refusal(&self, request: &Request) -> Option<(&'static str, &'static str)> {
        let Some(config) = &self.plan.config else {
            return Some(("checkpoints are off", "set `checkpoints` in the job's settings"));
        };
        if self.closing || self.draining.is_some() {
            return Some(("the job is being stopped", "start it again and ask it then"));
        }
        let Some(Target::Directory(target)) = &request.target else { return None };
        if target.starts_with(&config.directory) {
            return Some((
                "the directory is the job's own, or in it",
                "name one that has nothing to do with the job's",
            ));
        }
        self.is_being_saved_to(target)
            .then_some(("another savepoint is being written to the directory", "name another one"))
    }

    fn is_being_saved_to(&self, directory: &Path) -> bool {
        let copying = self.copying.iter().map(|securing| &securing.own);
        let requests = self.underway.iter().chain(copying).filter_map(|own| own.request.as_ref());
        let is_to =
            |request: &Request| matches!(&request.target, Some(Target::Directory(to)) if to == directory);
        let is_begun = self.savings.iter().any(|saving| saving.is_to(directory));
        is_begun || requests.chain(&self.draining).any(is_to)
    }
}
