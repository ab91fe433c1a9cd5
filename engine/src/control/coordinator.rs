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
//!
//! ¹ If a manifest that could not be made durable cannot be taken away either, the job stops for good: a crash decides whether that
//! checkpoint is complete, and the next process sees it.
//!
//! ² With the next that began later: one that is under way since before has earlier positions, and the records would come again.
//!
//! It is driven like a worker, on a thread that is no worker's: under simulation in the same seeded order. It may block: on
//! the disk, and on what a sink commits to.

use std::{collections::BTreeMap, path::PathBuf, sync::Arc};

use super::{
    archive::{Copied, Copier},
    board::{Board, Request},
    commits::Prepared,
    manifest::{JobManifest, ManifestKind},
    savepoint,
    vault::Vault,
};
use crate::{
    model::{
        checkpoint::{
            Barrier, BarrierKind, CheckpointId, FromWorker, OperatorState, Passed, Restored, ToWorker,
        },
        checkpoint_config::CheckpointConfig,
        checkpoint_error::CheckpointError,
        error::Error,
        metrics::OperatorInfo,
        operator::OperatorIndex,
        shared::JobShared,
    },
    platform::{Clock, Drive, Nanos, Platform, Turn},
};

const NANOS_PER_MILLI: Nanos = 1_000_000;

/// What a coordinator is made with.
pub(super) struct Plan {
    /// Number of tasks: subtasks of all chains.
    pub(super) tasks: usize,
    /// Those that begin with a source.
    pub(super) sources: usize,
    /// Number of key groups.
    pub(super) max_parallelism: u32,
    /// Name of the job.
    pub(super) job: String,
    /// How often, if at all.
    pub(super) config: Option<CheckpointConfig>,
    /// All operators, by index.
    pub(super) operators: Arc<[OperatorInfo]>,
    /// What brings checkpoints to the remote store, if there is one.
    pub(super) copier: Option<Copier>,
}

/// A checkpoint that is not complete.
struct Underway {
    checkpoint: CheckpointId,
    kind: BarrierKind,
    began: Nanos,
    /// Tasks that have not passed its barrier.
    missing: usize,
    operators: BTreeMap<OperatorIndex, OperatorState>,
    bytes_written: u64,
    /// Who has asked for it, if it was asked for.
    request: Option<Request>,
}

/// A checkpoint that all tasks have passed, and that is made durable.
struct Securing {
    own: Underway,
    prepared: Prepared,
    manifest: JobManifest,
    /// Where its savepoint is, if one was asked for.
    saved: Option<PathBuf>,
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
    /// What sinks have prepared for checkpoints that failed. It is behind the positions of those before, and goes with a later one.
    carried: BTreeMap<CheckpointId, Prepared>,
    last_begun: Nanos,
    last_ended: Nanos,
    failures: u32,
    sources_at_end: usize,
    /// A request that waits until everything was drained.
    draining: Option<Request>,
    /// The job has come, or is being brought, to its last checkpoint.
    closing: bool,
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
        Self {
            plan,
            shared,
            board,
            vault,
            clock,
            platform,
            underway: Vec::new(),
            copying: None,
            carried: BTreeMap::new(),
            last_begun: now,
            last_ended: now,
            failures: 0,
            sources_at_end: 0,
            draining: None,
            closing: false,
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
            missing: self.plan.tasks,
            operators: BTreeMap::new(),
            bytes_written: 0,
            request,
        });
        self.platform.note(&|| format!("checkpoint {checkpoint} begins ({kind:?})"));
        self.shared.tell_workers(ToWorker::Trigger(Barrier { checkpoint, kind }));
    }

    fn hear(&mut self) {
        while let Some(message) = self.shared.next_for_control() {
            match message {
                FromWorker::Passed(passed) => self.note(*passed),
                FromWorker::Declined { checkpoint, operator, subtask, cause } => {
                    let name = &self.plan.operators[operator as usize].name;
                    self.fail_checkpoint(
                        checkpoint,
                        format!("operator `{name}`, subtask {subtask}: {cause}"),
                    );
                }
                FromWorker::AtEnd => self.sources_at_end += 1,
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

    /// Completes what all tasks have passed, unless another one is on its way to the remote store. In their order: what sinks have
    /// prepared for an earlier one has to be in a checkpoint before anything goes on from a later one.
    fn complete_passed(&mut self) {
        while self.copying.is_none()
            && let Some(at) = (0..self.underway.len()).min_by_key(|at| self.underway[*at].checkpoint)
            && self.underway[at].missing == 0
        {
            let own = self.underway.remove(at);
            self.complete(own);
        }
    }

    /// All tasks have passed the barrier, and their state is durable.
    fn complete(&mut self, mut own: Underway) {
        let later = self.carried.split_off(&own.checkpoint);
        let mut prepared = merged(std::mem::replace(&mut self.carried, later));
        for (operator, carried) in &prepared {
            let state = own.operators.entry(*operator).or_default();
            state.name.clone_from(&self.plan.operators[*operator as usize].name);
            if state.subtasks.is_empty() {
                state.subtasks.resize_with(1, Default::default);
            }
            let of_operator: Vec<_> = state
                .subtasks
                .iter_mut()
                .flat_map(|subtask| std::mem::take(&mut subtask.committables))
                .collect();
            state.subtasks[0].committables = carried.iter().cloned().chain(of_operator).collect();
        }
        for (operator, state) in &own.operators {
            let committables: Vec<_> =
                state.subtasks.iter().flat_map(|subtask| subtask.committables.clone()).collect();
            if !committables.is_empty() {
                prepared.insert(*operator, committables);
            }
        }
        match self.secure(&own, &prepared) {
            Ok(None) => self.finish(own, &prepared, Ok(None)),
            Ok(Some((manifest, saved))) => {
                let securing = Box::new(Securing { own, prepared, manifest, saved });
                match &mut self.plan.copier {
                    Some(copier) => {
                        copier.begin(securing.manifest.clone());
                        self.copying = Some(securing);
                    }
                    None => self.write_manifest(*securing),
                }
            }
            Err(error) => self.finish(own, &prepared, Err(error)),
        }
    }

    /// Writes the manifest to the job's directory.
    fn write_manifest(&mut self, securing: Securing) {
        let Securing { own, prepared, manifest, saved } = securing;
        let written = self.vault.lock().library.as_mut().map(|library| library.add(&manifest)).transpose();
        self.finish(own, &prepared, written.map(|file| saved.or(file)));
    }

    /// Gets on with the checkpoint that is on its way to the remote store; when to look again.
    fn copy(&mut self, now: Nanos) -> Option<Nanos> {
        let copier = self.plan.copier.as_mut()?;
        let wake_at = copier.advance(now);
        if let Some(copied) = copier.outcome()
            && let Some(securing) = self.copying.take()
        {
            self.note_copied(*securing, copied);
            self.complete_passed();
        }
        wake_at
    }

    fn note_copied(&mut self, securing: Securing, copied: Copied) {
        let checkpoint = securing.own.checkpoint;
        match copied {
            Err(error @ CheckpointError::Overtaken { .. }) => self.stop_with(securing.own.request, error),
            Err(error) => self.finish(securing.own, &securing.prepared, Err(error)),
            Ok(()) => {
                self.platform.note(&|| format!("checkpoint {checkpoint} is in the remote store"));
                let written =
                    self.vault.lock().library.as_mut().map(|library| library.add(&securing.manifest));
                match written.transpose() {
                    Ok(file) => {
                        let at = securing.saved.or(file);
                        self.finish(securing.own, &securing.prepared, Ok(at));
                    }
                    // It is complete all the same: the next attempt finds it in the store, and commits.
                    Err(CheckpointError::Unknown { cause, .. }) => {
                        self.stop_with(securing.own.request, *cause)
                    }
                    Err(error) => self.stop_with(securing.own.request, error),
                }
            }
        }
    }

    /// What was to be made durable is so, or failed.
    fn finish(
        &mut self,
        own: Underway,
        prepared: &Prepared,
        durable: Result<Option<PathBuf>, CheckpointError>,
    ) {
        match durable {
            Ok(at) => {
                let committed = self.vault.lock().commits.commit(prepared);
                match committed {
                    Ok(()) => self.succeed(own, at),
                    Err(error) => self.stop_with(own.request, error),
                }
            }
            // Whether it is complete shows when the directory is read again: until then nothing may be given up.
            Err(error @ CheckpointError::Unknown { .. }) => self.stop_with(own.request, error),
            Err(error) => {
                let checkpoint = own.checkpoint;
                self.underway.push(own);
                self.fail_checkpoint(checkpoint, error.to_string());
            }
        }
    }

    /// Makes sure of what sinks have prepared, and writes the savepoint if one was asked for; returns the manifest, if there are to
    /// be any, and where the savepoint is.
    fn secure(
        &mut self,
        own: &Underway,
        prepared: &Prepared,
    ) -> Result<Option<(JobManifest, Option<PathBuf>)>, CheckpointError> {
        let mut vault = self.vault.lock();
        vault.commits.secure(prepared)?;
        let Some(library) = &mut vault.library else { return Ok(None) };
        let operators = own.operators.iter().map(|(operator, state)| {
            let id = self.plan.operators[*operator as usize].id.clone();
            (id, state.clone())
        });
        let manifest = JobManifest {
            job: self.plan.job.clone(),
            checkpoint: own.checkpoint,
            kind: ManifestKind::Checkpoint,
            wall_millis: self.clock.wall_millis(),
            max_parallelism: self.plan.max_parallelism,
            operators: operators.collect::<Restored>(),
        };
        let target = own.request.as_ref().and_then(|request| request.directory.clone());
        let saved = target
            .map(|target| savepoint::write(&**library.disk(), manifest.clone(), &target))
            .transpose()?;
        Ok(Some((manifest, saved)))
    }

    fn succeed(&mut self, own: Underway, at: Option<PathBuf>) {
        let now = self.clock.now();
        self.platform.note(&|| format!("checkpoint {} is complete and committed", own.checkpoint));
        self.failures = 0;
        self.last_ended = now;
        let states = own.operators.values().flat_map(|state| &state.subtasks);
        let in_flight_bytes =
            states.flat_map(|state| &state.in_flight).map(|part| part.bytes.len() as u64).sum();
        let took = now.saturating_sub(own.began);
        self.board.note_completed(own.checkpoint, took, own.bytes_written, in_flight_bytes);
        let retained_max = self.plan.config.as_ref().map_or(1, |config| config.retained_max);
        let mut vault = self.vault.lock();
        let retired = vault.library.as_mut().map(|library| library.retire(retained_max)).unwrap_or_default();
        let oldest = vault.library.as_ref().and_then(|library| library.oldest_kept());
        drop(vault);
        for checkpoint in retired {
            self.shared.tell_workers(ToWorker::Retire(checkpoint));
        }
        if let Some(oldest) = oldest {
            self.shared.tell_workers(ToWorker::Kept(oldest));
        }
        if let Some(request) = own.request {
            request.answer(Ok(at.unwrap_or_default()));
        }
        match own.kind {
            BarrierKind::Running | BarrierKind::Overtaking => {}
            BarrierKind::Suspending => {
                self.board.note_suspended();
                self.shared.suspend();
            }
            BarrierKind::Final => self.board.note_finished(),
        }
    }

    /// Gives a checkpoint up. Too many in a row fail the job; so does the last one, behind which nothing comes.
    fn fail_checkpoint(&mut self, checkpoint: CheckpointId, cause: String) {
        let Some(at) = self.underway.iter().position(|own| own.checkpoint == checkpoint) else { return };
        let own = self.underway.remove(at);
        self.platform.note(&|| format!("checkpoint {checkpoint} failed: {cause}"));
        tracing::warn!(checkpoint, cause, "a checkpoint failed");
        carry(self.carried.entry(checkpoint).or_default(), own.operators);
        self.shared.tell_workers(ToWorker::Retire(checkpoint));
        self.last_ended = self.clock.now();
        self.failures += 1;
        self.board.note_failed(&cause);
        let failures_max = self.plan.config.as_ref().map_or(0, |config| config.failures_max);
        if !own.kind.goes_on() || self.failures > failures_max {
            let error = CheckpointError::TooManyFailures { failures: self.failures, failures_max, cause };
            self.stop_with(own.request, error);
        } else if let Some(request) = own.request {
            let error = CheckpointError::TooManyFailures { failures: 1, failures_max: 0, cause };
            request.answer(Err(error.into()));
        }
    }

    fn stop_with(&mut self, request: Option<Request>, error: CheckpointError) {
        let error = Error::from(error);
        if let Some(request) = request {
            request.answer(Err(error.clone()));
        }
        // The workers may have left already.
        self.board.fail(error.clone());
        self.shared.fail(error);
    }

    /// Gives up checkpoints whose time is up.
    fn expire(&mut self, now: Nanos) {
        let Some(config) = &self.plan.config else { return };
        let timeout = config.timeout_ms.saturating_mul(NANOS_PER_MILLI);
        let late = |own: &&Underway| own.kind.goes_on() && now.saturating_sub(own.began) >= timeout;
        if self.copying.as_ref().is_some_and(|securing| late(&&securing.own))
            && let Some(copier) = &mut self.plan.copier
        {
            copier.cancel();
        }
        let expired: Vec<_> =
            self.underway.iter().filter(late).map(|own| (own.checkpoint, own.missing)).collect();
        for (checkpoint, missing) in expired {
            let ms = timeout / NANOS_PER_MILLI;
            let cause = match missing {
                0 => format!("the one before was not in the remote store after {ms} ms"),
                _ => format!("{missing} tasks had not passed its barrier after {ms} ms"),
            };
            self.fail_checkpoint(checkpoint, cause);
        }
    }

    fn serve(&mut self, now: Nanos) {
        while let Some(request) = self.board.next_request() {
            let refused = if self.plan.config.is_none() {
                Some(("checkpoints are off", "set `checkpoints` in the job's settings"))
            } else if self.closing || self.draining.is_some() {
                Some(("the job is being stopped", "start it again and ask it then"))
            } else if request
                .directory
                .as_ref()
                .is_some_and(|target| savepoint::is_in(&*self.platform.disk(), target))
            {
                // Found out behind the barrier, it would stop a job that cannot be stopped in this way.
                Some(("the directory holds a savepoint already", "name another one"))
            } else {
                None
            };
            if let Some((why, fix)) = refused {
                let what = "cannot take a savepoint".to_owned();
                request.answer(Err(Error::config(what, why.to_owned(), fix.to_owned())));
            } else if request.drains {
                self.draining = Some(request);
                self.shared.tell_workers(ToWorker::Drain);
            } else {
                let kind = match &request {
                    request if request.stops => BarrierKind::Suspending,
                    // A savepoint is to be of use to other programs: it has no records under way.
                    request if request.directory.is_some() => BarrierKind::Running,
                    _ => self.kind_at_first(),
                };
                self.trigger(kind, Some(request), now);
            }
        }
    }

    /// Begins the checkpoint that is due; returns when the next one is.
    fn trigger_due(&mut self, now: Nanos) -> Option<Nanos> {
        if self.closing {
            return None;
        }
        if self.sources_at_end == self.plan.sources {
            let request = self.draining.take();
            self.trigger(BarrierKind::Final, request, now);
            return None;
        }
        let config = self.plan.config.as_ref()?;
        let interval = config.interval_ms.saturating_mul(NANOS_PER_MILLI);
        let pause = config.pause_ms_min.saturating_mul(NANOS_PER_MILLI);
        let due = self.last_begun.saturating_add(interval).max(self.last_ended.saturating_add(pause));
        let copying = self.copying.iter().map(|securing| &securing.own);
        if self.underway.len() + copying.len() >= config.concurrent_max {
            let timeout = config.timeout_ms.saturating_mul(NANOS_PER_MILLI);
            let ends = self.underway.iter().chain(copying).map(|own| own.began.saturating_add(timeout));
            // What is late already is being given up, which is told.
            return ends.filter(|end| *end > now).min();
        }
        if now < due {
            return Some(due);
        }
        self.trigger(self.kind_at_first(), None, now);
        Some(now.saturating_add(interval))
    }

    /// How a checkpoint begins. A barrier that overtakes may not overtake another one.
    fn kind_at_first(&self) -> BarrierKind {
        let unaligned_after = self.plan.config.as_ref().and_then(|config| config.unaligned_after_ms);
        if unaligned_after == Some(0) && self.underway.is_empty() {
            BarrierKind::Overtaking
        } else {
            BarrierKind::Running
        }
    }

    /// Gives up the checkpoint that waits for records for too long, in favour of one that does not; returns when that is to be
    /// looked at again. It does not count as a failure.
    fn hasten(&mut self, now: Nanos) -> Option<Nanos> {
        let after = self.plan.config.as_ref()?.unaligned_after_ms?.saturating_mul(NANOS_PER_MILLI);
        let [own] = &self.underway[..] else { return None };
        let is_savepoint = own.request.as_ref().is_some_and(|request| request.directory.is_some());
        if own.kind != BarrierKind::Running || own.missing == 0 || is_savepoint || self.closing {
            return None;
        }
        let due = own.began.saturating_add(after);
        if now < due {
            return Some(due);
        }
        let own = self.underway.remove(0);
        self.platform.note(&|| format!("checkpoint {} has waited for records for too long", own.checkpoint));
        self.shared.tell_workers(ToWorker::Retire(own.checkpoint));
        carry(self.carried.entry(own.checkpoint).or_default(), own.operators);
        self.trigger(BarrierKind::Overtaking, own.request, now);
        if let Some(hastened) = self.underway.last_mut() {
            // For whoever waits, and for the timeout, it is the same checkpoint.
            hastened.began = own.began;
            hastened.bytes_written = own.bytes_written;
        }
        None
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
        for own in std::mem::take(&mut self.underway) {
            carry(&mut prepared, own.operators);
            requests.extend(own.request);
        }
        if self.plan.config.is_none() {
            self.vault.lock().commits.abort(&prepared);
        }
        let stopped = self.shared.failure().unwrap_or(Error::Cancelled);
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

/// What sinks have prepared for any of these checkpoints.
fn merged(checkpoints: BTreeMap<CheckpointId, Prepared>) -> Prepared {
    let mut all = Prepared::new();
    for (operator, committables) in checkpoints.into_values().flatten() {
        all.entry(operator).or_default().extend(committables);
    }
    all
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
        if self.shared.failure().is_some() || self.board.has_failed() {
            self.leave();
            return Turn::Done;
        }
        let left = self.shared.all_left();
        self.hear();
        let copies_at = self.copy(now);
        if left {
            // The last checkpoint may be on its way yet, and older ones are to be taken away.
            let is_busy = self.copying.is_some() || self.plan.copier.as_ref().is_some_and(Copier::is_busy);
            if is_busy && !self.board.has_failed() {
                return Turn::Idle { wake_at: copies_at };
            }
            self.leave();
            return Turn::Done;
        }
        self.serve(now);
        self.expire(now);
        if !self.board.has_failed() {
            // One that was given up may have kept later ones waiting.
            self.complete_passed();
        }
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
