//! What goes to remote stores before a checkpoint is complete: its savepoint, if one was asked for there, and then itself.
//!
//! ```text
//! all tasks have passed ─▶ save: Copier<Saver> ─▶ keep: Copier<Keeper> ─▶ manifest
//!                            │ fails                │ fails
//!                            └──▶ failed ¹          └──▶ failed
//! ```
//!
//! ¹ While a region is down, which has to wait for this, the savepoint alone is given up and asked for again; the checkpoint goes on.

use std::{path::PathBuf, sync::Arc};

use super::super::{Coordinator, Underway};
use crate::{
    control::{
        archive::{Copied, Copier, Keeper, Saver},
        commits::Prepared,
        manifest::JobManifest,
        savepoint::Target,
    },
    model::checkpoint_error::CheckpointError,
    platform::{
        Nanos,
        remote::{RemoteError, RemoteStore},
    },
};

/// A checkpoint that all tasks have passed, and that is made durable.
pub(in super::super) struct Securing {
    pub(in super::super) own: Underway,
    prepared: Prepared,
    manifest: JobManifest,
    /// The directory of its savepoint, if one was asked for.
    saved: Option<PathBuf>,
    /// What brings its savepoint to a remote store; before the checkpoint itself goes anywhere.
    saving: Option<Copier<Saver>>,
}

impl Securing {
    pub(super) fn new(
        own: Underway,
        prepared: Prepared,
        manifest: JobManifest,
        saved: Option<PathBuf>,
    ) -> Self {
        Self { own, prepared, manifest, saved, saving: None }
    }

    /// Gives up what is being brought to a store; `copier` is that of checkpoints.
    pub(in super::super) fn cancel(&mut self, copier: Option<&mut Copier<Keeper>>) {
        match (&mut self.saving, copier) {
            (Some(saving), _) => saving.cancel(),
            (None, Some(copier)) => copier.cancel(),
            (None, None) => {}
        }
    }

    /// The checkpoint; nobody brings it anywhere any more.
    pub(in super::super) fn give_up(self) -> Underway {
        self.own
    }

    /// The store that its savepoint is to be written to, if it is one.
    fn store(&self) -> Option<Arc<dyn RemoteStore>> {
        match self.own.request.as_ref()?.target.as_ref()? {
            Target::Remote(store) => Some(Arc::clone(store)),
            Target::Directory(_) => None,
        }
    }
}

impl Coordinator {
    /// Brings the savepoint to its store, if it was asked for in one.
    pub(super) fn save(&mut self, mut securing: Box<Securing>) {
        let Some(store) = securing.store() else { return self.keep(securing) };
        match self.saver(store) {
            Ok(mut saving) => {
                saving.begin(securing.manifest.clone());
                securing.saving = Some(saving);
                self.copying = Some(securing);
            }
            Err(error) => self.finish(securing.own, &securing.prepared, Err(error)),
        }
    }

    /// What writes a savepoint to a store.
    fn saver(&self, store: Arc<dyn RemoteStore>) -> Result<Copier<Saver>, CheckpointError> {
        let place = store.place();
        let root = self.plan.config.as_ref().map(|config| config.directory.clone()).unwrap_or_default();
        let saver = Saver::new(store, self.platform.disk(), root);
        if self.platform.inline_io() {
            return Ok(Copier::here(saver));
        }
        Copier::start(saver, Arc::clone(&self.plan.wake)).map_err(|error| {
            let source = RemoteError::Failed { why: error.to_string() };
            CheckpointError::Remote { doing: "put a savepoint", place, source }
        })
    }

    /// Brings the checkpoint to the remote store of the job, if there is one, and to its end.
    fn keep(&mut self, securing: Box<Securing>) {
        match &mut self.plan.copier {
            Some(copier) => {
                copier.begin(securing.manifest.clone());
                self.copying = Some(securing);
            }
            None => self.write_manifest(*securing),
        }
    }

    /// Writes the manifest to the job's directory.
    fn write_manifest(&mut self, securing: Securing) {
        let Securing { own, prepared, manifest, saved, .. } = securing;
        let written = self.vault.lock().library.as_mut().map(|library| library.add(&manifest)).transpose();
        self.finish(own, &prepared, written.map(|file| saved.or(file)));
    }

    /// Gets on with what is on its way to a remote store; when to look again.
    pub(in super::super) fn copy(&mut self, now: Nanos) -> Option<Nanos> {
        let copier = self.plan.copier.as_mut();
        let saving = self.copying.as_mut().and_then(|securing| securing.saving.as_mut());
        let (is_saving, mut outcome, mut wake_at) = (saving.is_some(), None, None);
        if let Some(saving) = saving {
            wake_at = saving.advance(now);
            outcome = saving.outcome();
        }
        if let Some(copier) = copier {
            let copies_at = copier.advance(now);
            wake_at = [wake_at, copies_at].into_iter().flatten().min();
            // While a savepoint is written, nothing but old objects keeps it busy.
            outcome = outcome.or_else(|| if is_saving { None } else { copier.outcome() });
        }
        if let Some(outcome) = outcome
            && let Some(securing) = self.copying.take()
        {
            if is_saving {
                self.note_saved(securing, outcome);
            } else {
                self.note_copied(*securing, outcome);
            }
            self.complete_passed();
        }
        wake_at
    }

    fn note_saved(&mut self, mut securing: Box<Securing>, saved: Copied) {
        let checkpoint = securing.own.checkpoint;
        securing.saving = None;
        match saved {
            Ok(()) => {
                self.platform.note(&|| format!("checkpoint {checkpoint}: its savepoint is in its store"));
                self.keep(securing);
            }
            Err(_) if !self.failover.all_up() => {
                self.platform.note(&|| format!("checkpoint {checkpoint}: its savepoint waits for a region"));
                let request = securing.own.request.take();
                request.into_iter().for_each(|request| self.board.hand_on(request));
                self.keep(securing);
            }
            Err(error) => self.finish(securing.own, &securing.prepared, Err(error)),
        }
    }

    /// A region waits until nothing is on its way to a remote store: it need not wait for a savepoint.
    pub(in super::super) fn hurry(&mut self) {
        let saving = self.copying.as_mut().and_then(|securing| securing.saving.as_mut());
        saving.into_iter().for_each(|saving| saving.cancel());
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
}
