//! What goes to the remote store of a job before a checkpoint is complete: the checkpoint itself.

use super::super::{Coordinator, Underway};
use crate::{
    control::{archive::Copied, commits::Prepared, manifest::JobManifest},
    model::checkpoint_error::CheckpointError,
    platform::Nanos,
};

/// A checkpoint that all tasks have passed, and that is made durable.
pub(in super::super) struct Securing {
    pub(in super::super) own: Underway,
    pub(super) prepared: Prepared,
    pub(super) manifest: JobManifest,
}

impl Coordinator {
    /// Brings a checkpoint to the remote store of the job, if there is one, and to its end.
    pub(super) fn keep(&mut self, securing: Securing) {
        match &mut self.plan.copier {
            Some(copier) => {
                copier.begin(securing.manifest.clone());
                self.copying = Some(Box::new(securing));
            }
            None => self.write_manifest(securing),
        }
    }

    /// Writes the manifest to the job's directory.
    fn write_manifest(&mut self, securing: Securing) {
        let Securing { own, prepared, manifest } = securing;
        let written = self.vault.lock().library.as_mut().map(|library| library.add(&manifest)).transpose();
        self.finish(own, &prepared, written.map(|file| file.map(|file| (manifest, file))));
    }

    /// Gets on with what is on its way to the remote store; when to look again.
    pub(in super::super) fn copy(&mut self, now: Nanos) -> Option<Nanos> {
        let copier = self.plan.copier.as_mut()?;
        let wake_at = copier.advance(now);
        if let Some(outcome) = copier.outcome()
            && let Some(securing) = self.copying.take()
        {
            self.note_copied(*securing, outcome);
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
                let Securing { own, prepared, manifest } = securing;
                let written = self.vault.lock().library.as_mut().map(|library| library.add(&manifest));
                match written.transpose() {
                    Ok(file) => self.finish(own, &prepared, Ok(file.map(|file| (manifest, file)))),
                    // It is complete all the same: the next attempt finds it in the store, and commits.
                    Err(CheckpointError::Unknown { cause, .. }) => self.stop_with(own.request, *cause),
                    Err(error) => self.stop_with(own.request, error),
                }
            }
        }
    }
}
