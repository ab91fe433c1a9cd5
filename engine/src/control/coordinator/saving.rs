//! Savepoints: each is written of a complete checkpoint, beside the job, which goes on.
//!
//! ```text
//! checkpoint complete, sinks have committed ─▶ Copier<Writer> to a directory  ─▶ answered; a job that is to stop behind it is stopped
//!     its files are kept meanwhile             Copier<Saver> to a store
//!                                                │ fails, or its time is up
//!                                                ▼
//!                                              answered with that; a job that was to stop goes on from the checkpoint
//! ```
//!
//! What sinks had prepared for the checkpoint is committed by then, so a savepoint names none of it: a job that begins with it owes nothing
//! to where the first one writes. It has only [how far they had come](crate::model::sink::Committer::positions).

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{Coordinator, Underway};
use crate::{
    control::{
        archive::{Carrier, Copier, Saver},
        board::Request,
        manifest::JobManifest,
        savepoint::{Target, Writer},
    },
    model::{
        checkpoint::{BarrierKind, CheckpointId},
        checkpoint_error::CheckpointError,
        error::Error,
    },
    platform::Nanos,
};

/// A savepoint that is being written.
pub(super) struct Saving {
    pub(super) checkpoint: CheckpointId,
    kind: BarrierKind,
    began: Nanos,
    request: Request,
    /// The manifest of its checkpoint.
    at: PathBuf,
    copier: Copier<Box<dyn Carrier<Load = JobManifest>>>,
}

impl Saving {
    /// Whether it is written to this directory.
    pub(super) fn is_to(&self, directory: &Path) -> bool {
        matches!(&self.request.target, Some(Target::Directory(target)) if target == directory)
    }

    /// Nobody writes it any more, and what was written is taken away; who has asked for it.
    pub(super) fn give_up(self) -> Request {
        drop(self.copier);
        self.request
    }
}

impl Coordinator {
    /// Begins to write the savepoint that was asked for, of a checkpoint that is complete and committed. `at` is its manifest.
    pub(super) fn save(&mut self, own: Underway, request: Request, mut manifest: JobManifest, at: PathBuf) {
        let vault = self.vault.lock();
        for (id, operator) in &mut manifest.operators {
            for subtask in &mut operator.subtasks {
                subtask.committables = vault.commits.positions(id, &subtask.committables);
            }
        }
        drop(vault);
        let carrier: Box<dyn Carrier<Load = JobManifest>> = match &request.target {
            Some(Target::Directory(target)) => Box::new(Writer::new(self.platform.disk(), target.clone())),
            Some(Target::Remote(store)) => {
                let root = self.plan.config.as_ref().map(|config| config.directory.clone());
                Box::new(Saver::new(Arc::clone(store), &*self.platform, root.unwrap_or_default()))
            }
            None => return request.answer(Ok(at)),
        };
        let copier = if self.platform.inline_io() {
            Ok(Copier::here(carrier))
        } else {
            Copier::start(carrier, Arc::clone(&self.plan.wake))
        };
        match copier {
            Ok(mut copier) => {
                copier.begin(manifest);
                let Underway { checkpoint, kind, began, .. } = own;
                self.savings.push(Saving { checkpoint, kind, began, request, at, copier });
            }
            Err(error) => self.note_unsaved(own.checkpoint, own.kind, request, at, error.into()),
        }
    }

    /// The checkpoints that savepoints are being written of.
    pub(super) fn saved_from(&self) -> BTreeSet<CheckpointId> {
        self.savings.iter().map(|saving| saving.checkpoint).collect()
    }

    /// Gets on with savepoints; when to look again.
    pub(super) fn get_on_with_savings(&mut self, now: Nanos) -> Option<Nanos> {
        let timeout = self.timeout();
        let mut wake_at = None;
        for mut saving in std::mem::take(&mut self.savings) {
            // Where the job stands still behind it, it takes as long as it takes.
            let ends_at = saving.kind.goes_on().then(|| saving.began.saturating_add(timeout));
            if ends_at.is_some_and(|end| end <= now) {
                saving.copier.cancel();
            }
            let advances_at = saving.copier.advance(now);
            match saving.copier.outcome() {
                Some(outcome) => self.note_saved(saving, outcome),
                None => {
                    // What is late already is being given up, which is told.
                    let ends_at = ends_at.filter(|end| *end > now);
                    wake_at = [wake_at, advances_at, ends_at].into_iter().flatten().min();
                    self.savings.push(saving);
                }
            }
        }
        wake_at
    }

    fn note_saved(&mut self, saving: Saving, outcome: Result<(), CheckpointError>) {
        let Saving { checkpoint, kind, request, at, .. } = saving;
        match outcome {
            Ok(()) => {
                self.platform.note(&|| format!("the savepoint of checkpoint {checkpoint} is written"));
                let target = match &request.target {
                    Some(Target::Directory(target)) => target.clone(),
                    Some(Target::Remote(_)) | None => at.clone(),
                };
                request.answer(Ok(target));
                self.end_behind(kind, &at);
            }
            Err(error) => self.note_unsaved(checkpoint, kind, request, at, error.into()),
        }
    }

    /// A savepoint has failed; its checkpoint has not.
    fn note_unsaved(
        &mut self,
        checkpoint: CheckpointId,
        kind: BarrierKind,
        request: Request,
        at: PathBuf,
        error: Error,
    ) {
        self.platform.note(&|| format!("the savepoint of checkpoint {checkpoint} failed: {error}"));
        tracing::warn!(checkpoint, %error, "a savepoint failed; the checkpoint that it is of is complete");
        request.answer(Err(error.clone()));
        if kind == BarrierKind::Suspending && self.following.is_empty() {
            // Sources are silent: an attempt that begins with the checkpoint reads on.
            self.is_stopped = true;
            self.board.go_on_after(error);
            self.shared.suspend();
        } else {
            self.end_behind(kind, &at);
        }
    }

    /// All that was to be written behind a checkpoint is there: the job ends, if it was the last one. `at` is its manifest.
    pub(super) fn end_behind(&mut self, kind: BarrierKind, at: &Path) {
        if kind.goes_on() {
            return;
        }
        for request in std::mem::take(&mut self.following) {
            request.answer(Ok(at.to_owned()));
        }
        if kind == BarrierKind::Suspending {
            self.suspend();
        }
    }

    /// Stops the job, to go on another time.
    pub(super) fn suspend(&mut self) {
        self.is_stopped = true;
        self.board.note_suspended();
        self.shared.suspend();
    }
}
