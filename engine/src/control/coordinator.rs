//! The coordinator of one attempt: begins checkpoints, gathers what tasks say, completes them, and lets sinks commit.
//!
//! ```text
//!            due, or asked for                all tasks have passed
//!  (none) ─────────────────────▶ Underway ───────────────────────────▶ secured ─▶ manifest ─▶ committed ─▶ older retired
//!                                   │ a task declines, the time is up            │ fails        │ fails
//!                                   ▼                                            ▼              ▼
//!                                 failed: what sinks have prepared            failed ¹       the job fails
//!                                 goes with the next checkpoint ²
//! ```
//!
//! With a remote store, the checkpoint goes there before its manifest is written here: it is complete when it is there. That happens
//! beside all else ([`Copier`]), one checkpoint after the other; a checkpoint whose time is up, or that the store does not take, has failed.
//! A savepoint is written in the same way, of a checkpoint that is complete ([`saving`]).
//!
//! ¹ If a manifest that could not be made durable cannot be taken away either, the job stops for good: a crash decides whether that
//! checkpoint is complete, and the next process sees it.
//!
//! ² With the next that began later: one that is under way since before has earlier positions, and the records would come again.
//!
//! It also hears of regions that have failed, and has them started again ([`failover`]). Where nothing is checkpointed and regions fail
//! apart, that is all it does.
//!
//! It is driven like a worker, on a thread that is no worker's: under simulation in the same seeded order. It may block: on
//! the disk, and on what a sink commits to.

mod completion;
mod failover;
mod requests;
mod saving;
mod timing;

use std::{collections::BTreeMap, sync::Arc};

use completion::{Securing, merged};
use failover::Failover;
use saving::Saving;

use super::{
    archive::{Copier, Keeper},
    board::{Board, Request},
    commits::Prepared,
    manifest::Beginning,
    restart::SharedPolicy,
    savepoint::Source,
    vault::Vault,
    works::Works,
};
use crate::{
    model::{
        checkpoint::{Barrier, BarrierKind, CheckpointId, FromWorker, OperatorState, Passed, ToWorker},
        checkpoint_config::CheckpointConfig,
        checkpoint_error::CheckpointError,
        error::Error,
        metrics::OperatorInfo,
        operator::OperatorIndex,
        shared::JobShared,
    },
    platform::{Clock, Drive, Nanos, Platform, Turn, Wake},
};

const NANOS_PER_MILLI: Nanos = 1_000_000;

/// What a coordinator is made with.
pub(super) struct Plan {
    /// Where tasks come from.
    pub(super) works: Arc<Works>,
    /// Whether what failed is started again.
    pub(super) policy: SharedPolicy,
    /// The checkpoint that the attempt went on from.
    pub(super) restored_from: Option<CheckpointId>,
    /// The savepoint that it went on from, if it was one.
    pub(super) savepoint: Option<Source>,
    /// What the job began with, as far as that is known.
    pub(super) beginning: Option<Beginning>,
    /// Number of key groups.
    pub(super) max_parallelism: u32,
    /// Name of the job.
    pub(super) job: String,
    /// How often, if at all.
    pub(super) config: Option<CheckpointConfig>,
    /// All operators, by index.
    pub(super) operators: Arc<[OperatorInfo]>,
    /// What brings checkpoints to the remote store, if there is one.
    pub(super) copier: Option<Copier<Keeper>>,
    /// Wakes the coordinator.
    pub(super) wake: Arc<dyn Wake>,
}

/// A checkpoint that is not complete.
struct Underway {
    checkpoint: CheckpointId,
    kind: BarrierKind,
    began: Nanos,
    /// Tasks that have not passed its barrier.
    missing: usize,
    operators: BTreeMap<OperatorIndex, OperatorState>,
    /// What sinks have prepared and made sure of already.
    secured: Prepared,
    bytes_written: u64,
    /// Who has asked for it, if it was asked for.
    request: Option<Request>,
}

impl Underway {
    /// Whether its time is up at some time. What comes before the end of the input takes as long as it takes.
    fn is_bounded(&self) -> bool {
        self.kind != BarrierKind::Final
    }
}

/// Coordinates the checkpoints of one attempt.
pub(super) struct Coordinator {
    plan: Plan,
    shared: Arc<JobShared>,
    board: Arc<Board>,
    vault: Arc<Vault>,
    clock: Arc<dyn Clock>,
    platform: Arc<dyn Platform>,
    underway: Vec<Underway>,
    /// The checkpoint that is on its way to the remote store; those that all tasks have passed meanwhile wait for it.
    copying: Option<Box<Securing>>,
    /// Savepoints that are being written.
    savings: Vec<Saving>,
    /// What sinks have prepared for checkpoints that failed. It is behind the positions of those before, and goes with a later one.
    carried: BTreeMap<CheckpointId, Prepared>,
    last_begun: Nanos,
    last_ended: Nanos,
    failures: u32,
    /// Number of tasks: subtasks of all chains.
    tasks: usize,
    failover: Failover,
    /// A request that waits until everything was drained.
    draining: Option<Request>,
    /// Whoever else wants the job stopped, while it is being stopped or comes to its end.
    following: Vec<Request>,
    /// The job has come, or is being brought, to its last checkpoint.
    closing: bool,
    /// Workers were told to leave.
    is_stopped: bool,
    done: bool,
}

impl Coordinator {
    pub(super) fn new(
        plan: Plan,
        shared: Arc<JobShared>,
        board: Arc<Board>,
        vault: Arc<Vault>,
        platform: Arc<dyn Platform>,
    ) -> Self {
        let clock = platform.clock();
        let now = clock.now();
        let failover = Failover::new(plan.works.sources(), shared.wakers().len(), plan.restored_from);
        Self {
            tasks: plan.works.tasks(),
            failover,
            plan,
            shared,
            board,
            vault,
            clock,
            platform,
            underway: Vec::new(),
            copying: None,
            savings: Vec::new(),
            carried: BTreeMap::new(),
            last_begun: now,
            last_ended: now,
            failures: 0,
            draining: None,
            following: Vec::new(),
            closing: false,
            is_stopped: false,
            done: false,
        }
    }

    /// Sends a barrier to all sources.
    fn trigger(&mut self, kind: BarrierKind, request: Option<Request>, now: Nanos) {
        let checkpoint = self.vault.lock().next_checkpoint();
        self.closing |= !kind.goes_on();
        self.last_begun = now;
        self.underway.push(Underway {
            checkpoint,
            kind,
            began: now,
            missing: self.tasks,
            operators: BTreeMap::new(),
            secured: Prepared::new(),
            bytes_written: 0,
            request,
        });
        self.platform.note(&|| format!("checkpoint {checkpoint} begins ({kind:?})"));
        self.shared.tell_workers(ToWorker::Trigger(Barrier { checkpoint, kind }));
    }

    fn hear(&mut self) {
        while let Some(message) = self.shared.next_for_control() {
            match message {
                FromWorker::Prepared { checkpoint, committables } => {
                    self.secure_early(checkpoint, committables.into_iter().collect());
                }
                FromWorker::Passed(passed) => self.note(*passed),
                FromWorker::Declined { checkpoint, operator, subtask, cause } => {
                    let name = &self.plan.operators[operator as usize].name;
                    self.fail_checkpoint(
                        checkpoint,
                        format!("operator `{name}`, subtask {subtask}: {cause}"),
                    );
                }
                FromWorker::AtEnd(region) => self.failover.note_at_end(region),
                FromWorker::Failed(region, failure) => self.note_failed(region, failure),
                FromWorker::Dropped(region) => self.failover.note_dropped(region),
                FromWorker::Done(region) => self.failover.note_done(region),
            }
        }
    }

    fn note(&mut self, passed: Passed) {
        let Some(at) = self.underway.iter().position(|own| own.checkpoint == passed.checkpoint) else {
            // It has failed, and what was prepared for it is only safe with the next one.
            let carried = self.carried.entry(passed.checkpoint).or_default();
            for (operator, state) in passed.operators {
                carried.entry(operator).or_default().extend(state.committables);
            }
            return;
        };
        let own = &mut self.underway[at];
        own.missing -= 1;
        own.bytes_written += passed.bytes_written;
        for (operator, state) in passed.operators {
            let name = || self.plan.operators[operator as usize].name.clone();
            let of_operator = own
                .operators
                .entry(operator)
                .or_insert_with(|| OperatorState { name: name(), subtasks: Vec::new() });
            if of_operator.subtasks.len() <= passed.subtask {
                of_operator.subtasks.resize_with(passed.subtask + 1, Default::default);
            }
            of_operator.subtasks[passed.subtask].merge(state);
        }
        self.complete_passed();
    }

    /// Gives a checkpoint up. Too many in a row fail the job; so does the last one, behind which nothing comes.
    fn fail_checkpoint(&mut self, checkpoint: CheckpointId, cause: String) {
        let Some(at) = self.underway.iter().position(|own| own.checkpoint == checkpoint) else { return };
        let own = self.underway.remove(at);
        self.platform.note(&|| format!("checkpoint {checkpoint} failed: {cause}"));
        tracing::warn!(checkpoint, cause, "a checkpoint failed");
        let kind = own.kind;
        let request = self.give_up(own);
        self.last_ended = self.clock.now();
        self.failures += 1;
        self.board.note_failed(&cause);
        let failures_max = self.plan.config.as_ref().map_or(0, |config| config.failures_max);
        if !kind.goes_on() {
            self.stop_with(request, CheckpointError::LastFailed { cause });
        } else if self.failures > failures_max {
            let error = CheckpointError::TooManyFailures { failures: self.failures, failures_max, cause };
            self.stop_with(request, error);
        } else if let Some(request) = request {
            request.answer(Err(CheckpointError::Failed { cause }.into()));
        }
    }

    /// What sinks have prepared for a checkpoint that is no more goes with a later one; returns who has asked for it.
    fn give_up(&mut self, own: Underway) -> Option<Request> {
        self.shared.tell_workers(ToWorker::Retire(own.checkpoint));
        carry(self.carried.entry(own.checkpoint).or_default(), own.operators);
        own.request
    }

    fn stop_with(&mut self, request: Option<Request>, error: CheckpointError) {
        let error = Error::from(error);
        let following = if self.closing { std::mem::take(&mut self.following) } else { Vec::new() };
        for request in request.into_iter().chain(following) {
            request.answer(Err(error.clone()));
        }
        // The workers may have left already.
        self.board.fail(error.clone());
        self.shared.fail(error);
    }

    /// Whether the attempt is over before its time.
    fn has_failed(&self) -> bool {
        self.shared.failure().is_some() || self.board.has_failed()
    }

    /// The attempt is over: what was prepared and not committed is given up. What a checkpoint holds that is complete after
    /// all will be found there.
    fn leave(&mut self) {
        self.done = true;
        // Ends what is under way; whether it came through, the next attempt sees.
        self.plan.copier = None;
        self.underway.extend(self.copying.take().map(|securing| securing.own));
        let mut prepared = merged(std::mem::take(&mut self.carried));
        let mut requests: Vec<Request> = self.draining.take().into_iter().collect();
        requests.append(&mut self.following);
        requests.extend(std::mem::take(&mut self.savings).into_iter().map(Saving::give_up));
        for own in std::mem::take(&mut self.underway) {
            carry(&mut prepared, own.operators);
            requests.extend(own.request);
        }
        if self.plan.config.is_none() {
            self.vault.lock().commits.abort(&prepared);
        }
        let stopped = self.shared.failure().unwrap_or(Error::Over);
        for request in requests {
            // Whoever wants the job stopped wants that of the attempt that may follow too.
            if request.stops {
                self.board.hand_on(request);
            } else {
                request.answer(Err(stopped.clone()));
            }
        }
    }
}

/// Adds what sinks have prepared for a checkpoint.
fn carry(carried: &mut Prepared, operators: BTreeMap<OperatorIndex, OperatorState>) {
    for (operator, state) in operators {
        let committables = state.subtasks.into_iter().flat_map(|subtask| subtask.committables);
        carried.entry(operator).or_default().extend(committables);
    }
}

impl Drive for Coordinator {
    fn turn(&mut self, now: Nanos) -> Turn {
        if self.has_failed() {
            self.leave();
            return Turn::Done;
        }
        let left = self.shared.all_left();
        self.hear();
        if !left {
            // First, so that what is given up is got on with at once.
            self.expire(now);
        }
        let copies_at = [self.copy(now), self.get_on_with_savings(now)].into_iter().flatten().min();
        if left {
            // The last checkpoint may be on its way yet, and older ones are to be taken away. A savepoint is waited for at the end of the
            // input, and not where the job is wanted to stop.
            let is_saving = !self.savings.is_empty() && !self.is_stopped;
            let is_copying = self.copying.is_some() || self.plan.copier.as_ref().is_some_and(Copier::is_busy);
            if (is_saving || is_copying) && !self.board.has_failed() && !self.board.is_ending() {
                return Turn::Idle { wake_at: copies_at };
            }
            self.leave();
            return Turn::Done;
        }
        if self.is_stopped {
            return Turn::Idle { wake_at: copies_at };
        }
        if !self.board.has_failed() {
            // One that was given up may have kept later ones waiting.
            self.complete_passed();
        }
        // Behind all that may have settled what was under way.
        let rises_at = self.mend(now);
        if !self.failover.all_up() {
            self.stop_while_down();
            let refused_at = self.refuse_while_down(now);
            return Turn::Idle { wake_at: [copies_at, rises_at, refused_at].into_iter().flatten().min() };
        }
        if self.has_failed() {
            // What is asked for now is for the attempt that may follow.
            return Turn::Busy { until: now };
        }
        self.serve(now);
        let hastened_at = self.hasten(now);
        let due_at = self.trigger_due(now);
        Turn::Idle { wake_at: [copies_at, hastened_at, due_at].into_iter().flatten().min() }
    }
}

impl Drop for Coordinator {
    fn drop(&mut self) {
        if !self.done {
            // It was unwound: nobody would commit what the workers prepare.
            let cause = "the coordinator of checkpoints panicked".to_owned();
            let worker = usize::MAX;
            self.shared.fail(crate::platform::PlatformError::WorkerLost { worker, cause }.into());
        }
    }
}
