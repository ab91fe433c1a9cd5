//! Writes a savepoint to a directory, some megabytes at a time.
//!
//! **Invariants.** The manifest is written last, so that the savepoint is there whole or not at all. What fails is taken away again: the
//! room that it takes may be what the job's own checkpoints lack.

use std::{
    collections::VecDeque,
    path::{Path, PathBuf},
    sync::Arc,
};

use tidemill_storage::snapshot::{
    disk::Disk,
    export::{Export, ExportForm},
};

use super::{MANIFEST, is_in, place_of, sync_names, taken};
use crate::{
    control::{
        archive::{Carrier, Step},
        library::{remove_tree, write_manifest},
        manifest::{JobManifest, ManifestKind},
    },
    model::{checkpoint::CheckpointId, checkpoint_error::CheckpointError},
    platform::Nanos,
};

/// What has begun.
struct Writing {
    checkpoint: CheckpointId,
    /// Its manifest, of which the first parts are those of the savepoint.
    manifest: JobManifest,
    /// Parts that are not there, each with its operator and subtask.
    missing: VecDeque<(String, usize, PathBuf)>,
    export: Option<Export>,
    /// Directories in which something may be.
    made: Vec<PathBuf>,
}

/// Writes one savepoint. See the [module](self).
pub(in crate::control) struct Writer {
    disk: Arc<dyn Disk>,
    target: PathBuf,
    writing: Option<Writing>,
    /// How long the last step took in virtual time.
    took: Nanos,
}

impl Writer {
    /// To a directory in which there is none.
    pub(in crate::control) fn new(disk: Arc<dyn Disk>, target: PathBuf) -> Self {
        Self { disk, target, writing: None, took: 0 }
    }

    /// Writes some of it; whether that was all.
    fn advance(&mut self, writing: &mut Writing) -> Result<bool, CheckpointError> {
        if let Some(export) = &mut writing.export {
            let before = export.bytes_copied();
            let exported = export.step(&*self.disk)?;
            // A disk that copies a gigabyte in a second.
            self.took = export.bytes_copied() - before;
            if let Some(exported) = exported
                && let Some((id, subtask, _)) = writing.missing.pop_front()
            {
                writing.export = None;
                let operator = writing.manifest.operators.get_mut(&id);
                let subtask = operator.and_then(|operator| operator.subtasks.get_mut(subtask));
                subtask.into_iter().for_each(|subtask| subtask.manifest = Some(exported.manifest.clone()));
            }
            return Ok(false);
        }
        if let Some((_, _, part)) = writing.missing.front() {
            let store = part.parent().unwrap_or(Path::new(""));
            let own = self.target.join(place_of(part));
            writing.made.push(own.clone());
            let (disk, number) = (&*self.disk, writing.checkpoint);
            writing.export = Some(Export::begin(disk, store, number, &own, ExportForm::Copy)?);
            return Ok(false);
        }
        if is_in(&*self.disk, &self.target) {
            return Err(taken(&self.target));
        }
        sync_names(&*self.disk, &writing.manifest, &self.target)?;
        let file = self.target.join(MANIFEST);
        write_manifest(&*self.disk, &file, &writing.manifest.encode(&self.target)).inspect_err(|_| {
            let _unfinished = self.disk.remove(&file.with_extension("unfinished"));
        })?;
        Ok(true)
    }

    /// Takes away what was written.
    fn undo(&self, writing: Writing) {
        // Whoever finds its manifest, which may have got its name, is not to find a part of the rest.
        let file = self.target.join(MANIFEST);
        if is_in(&*self.disk, &self.target) {
            let found = JobManifest::read(&*self.disk, &file, &self.target);
            let is_ours = found.is_ok_and(|found| found == writing.manifest);
            if !is_ours || self.disk.remove(&file).is_err() {
                return;
            }
        }
        for directory in writing.made {
            remove_tree(&*self.disk, &directory);
            // They stay if there is anything else in them.
            for above in directory.ancestors().skip(1).take_while(|above| **above != self.target) {
                let _left = self.disk.remove_directory(above);
            }
        }
    }
}

impl Carrier for Writer {
    /// A checkpoint whose files are durable on disk, and stay there meanwhile.
    type Load = JobManifest;

    fn begin(&mut self, mut manifest: JobManifest) {
        debug_assert!(self.writing.is_none(), "one savepoint");
        manifest.kind = ManifestKind::Savepoint;
        let parts = manifest.operators.iter().flat_map(|(id, operator)| {
            let part =
                |(subtask, part): (usize, &Option<PathBuf>)| Some((id.clone(), subtask, part.clone()?));
            operator.subtasks.iter().map(|subtask| &subtask.manifest).enumerate().filter_map(part)
        });
        let missing = parts.collect();
        let checkpoint = manifest.checkpoint;
        self.writing = Some(Writing { checkpoint, manifest, missing, export: None, made: Vec::new() });
    }

    fn step(&mut self, cancelled: bool) -> Step {
        let Some(mut writing) = self.writing.take() else { return Step::Idle };
        self.took = 0;
        let error = if cancelled {
            let (checkpoint, place) = (writing.checkpoint, self.target.display().to_string());
            CheckpointError::RemoteLate { checkpoint, place }
        } else {
            match self.advance(&mut writing) {
                Ok(true) => return Step::Done(Ok(())),
                Ok(false) => {
                    self.writing = Some(writing);
                    return Step::Again;
                }
                Err(error) => error,
            }
        };
        self.undo(writing);
        Step::Done(Err(error))
    }

    fn took(&self) -> Nanos {
        self.took
    }

    fn is_busy(&self) -> bool {
        self.writing.is_some()
    }

    fn end(&mut self) {
        self.writing.take().into_iter().for_each(|writing| self.undo(writing));
    }
}
