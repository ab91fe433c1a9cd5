//! Completing a checkpoint that all tasks have passed: sinks make sure of what they prepared, the checkpoint goes to the remote store
//! ([`copying`]), its manifest is written, sinks commit, older ones are retired, and the savepoint that was asked for begins to be written.

mod copying;

use std::{collections::BTreeMap, path::PathBuf};

pub(super) use copying::Securing;

use super::{Coordinator, Underway};
use crate::{
    control::{
        commits::Prepared,
        manifest::{JobManifest, ManifestKind},
    },
    model::{
        checkpoint::{BarrierKind, CheckpointId, Restored, ToWorker},
        checkpoint_error::CheckpointError,
    },
};

impl Coordinator {
    /// Completes what all tasks have passed, unless another one is on its way to the remote store. In their order: what sinks have
    /// prepared for an earlier one has to be in a checkpoint before anything goes on from a later one.
    pub(super) fn complete_passed(&mut self) {
        while self.copying.is_none()
            && let Some(at) = (0..self.underway.len()).min_by_key(|at| self.underway[*at].checkpoint)
            && self.underway[at].missing == 0
        {
            let own = self.underway.remove(at);
            self.complete(own);
        }
    }

    /// Has sinks make sure of what a task has prepared, while its state is made durable.
    pub(super) fn secure_early(&mut self, checkpoint: CheckpointId, prepared: Prepared) {
        let Some(own) = self.underway.iter_mut().find(|own| own.checkpoint == checkpoint) else { return };
        let secured = self.vault.lock().commits.secure(&prepared);
        match secured {
            Ok(()) => {
                self.platform
                    .note(&|| format!("checkpoint {checkpoint}: a task's sinks are ahead of its state"));
                for (operator, committables) in prepared {
                    own.secured.entry(operator).or_default().extend(committables);
                }
            }
            // What it has prepared comes with the rest of what the task has, and is carried over.
            Err(error) => self.fail_checkpoint(checkpoint, error.to_string()),
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
            Ok(Some(manifest)) => self.keep(Securing { own, prepared, manifest }),
            Err(error) => self.finish(own, &prepared, Err(error)),
        }
    }

    /// What was to be made durable is so, or failed: the manifest, and where it is, if there are to be any.
    fn finish(
        &mut self,
        own: Underway,
        prepared: &Prepared,
        durable: Result<Option<(JobManifest, PathBuf)>, CheckpointError>,
    ) {
        match durable {
            Ok(manifest) => {
                let committed = self.vault.lock().commits.commit(prepared);
                match committed {
                    Ok(()) => self.succeed(own, manifest),
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

    /// Makes sure of what sinks have prepared; returns the manifest, if there are to be any.
    fn secure(
        &mut self,
        own: &Underway,
        prepared: &Prepared,
    ) -> Result<Option<JobManifest>, CheckpointError> {
        let mut vault = self.vault.lock();
        vault.commits.secure(&without(prepared, &own.secured))?;
        if vault.library.is_none() {
            return Ok(None);
        }
        let operators = own.operators.iter().map(|(operator, state)| {
            let id = self.plan.operators[*operator as usize].id.clone();
            (id, state.clone())
        });
        Ok(Some(JobManifest {
            job: self.plan.job.clone(),
            checkpoint: own.checkpoint,
            kind: ManifestKind::Checkpoint,
            wall_millis: self.clock.wall_millis(),
            max_parallelism: self.plan.max_parallelism,
            beginning: self.plan.beginning.clone(),
            operators: operators.collect::<Restored>(),
        }))
    }

    fn succeed(&mut self, mut own: Underway, manifest: Option<(JobManifest, PathBuf)>) {
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
        let needed = self.saved_from();
        let retired = vault.library.as_mut().map(|library| library.retire(retained_max, &needed));
        let retired = retired.unwrap_or_default();
        let oldest = vault.library.as_ref().and_then(|library| library.oldest_kept());
        // What the job has begun with is needed no more.
        vault.library.iter_mut().for_each(|library| library.retain_fetched(None));
        drop(vault);
        for checkpoint in retired {
            self.shared.tell_workers(ToWorker::Retire(checkpoint));
        }
        if let Some(oldest) = oldest {
            self.shared.tell_workers(ToWorker::Kept(oldest));
        }
        if own.kind == BarrierKind::Final {
            self.board.note_finished();
        }
        let (request, kind) = (own.request.take(), own.kind);
        let at = manifest.as_ref().map(|(_, at)| at.clone()).unwrap_or_default();
        match (request, manifest) {
            (Some(request), Some((manifest, at))) if request.target.is_some() => {
                return self.save(own, request, manifest, at);
            }
            (Some(request), _) => request.answer(Ok(at.clone())),
            (None, _) => {}
        }
        self.end_behind(kind, &at);
    }
}

/// What sinks have prepared and not made sure of yet.
fn without(prepared: &Prepared, secured: &Prepared) -> Prepared {
    let left = prepared.iter().map(|(operator, committables)| {
        let secured = secured.get(operator).map(Vec::as_slice).unwrap_or_default();
        let left = committables.iter().filter(|committable| !secured.contains(committable));
        (*operator, left.cloned().collect::<Vec<_>>())
    });
    left.filter(|(_, left)| !left.is_empty()).collect()
}

/// What sinks have prepared for any of these checkpoints.
pub(super) fn merged(checkpoints: BTreeMap<CheckpointId, Prepared>) -> Prepared {
    let mut all = Prepared::new();
    for (operator, committables) in checkpoints.into_values().flatten() {
        all.entry(operator).or_default().extend(committables);
    }
    all
}
