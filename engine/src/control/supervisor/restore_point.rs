//! What an attempt goes on from:
//!
//! | the job's own checkpoints are | and a savepoint is named | then it goes on from |
//! |---|---|---|
//! | there | no, or the one that they began with | the newest that is whole |
//! | there | and they began with another, or with none | nothing: it is refused |
//! | there, none of them whole, or lost | no, or the one that they began with, or that is not known | nothing: it is refused |
//! | there, none of them whole, or lost | and they began with another, or with none | the savepoint, with a warning |
//! | not there | yes | the savepoint |
//! | not there | no | the beginning |
//!
//! So a service that is started again and again with the same settings begins with its savepoint once, and nothing that a job has come to
//! is taken back without a word.

use std::path::Path;

use super::Supervisor;
use crate::{
    control::{
        archive::Claim,
        commits::Commits,
        manifest::{Beginning, JobManifest},
        non_restored::{Takes, non_restored},
        savepoint::Source,
    },
    model::{
        checkpoint_config::CheckpointConfig, checkpoint_error::CheckpointError, error::Error,
        operator::OperatorIndex,
    },
};

/// What an attempt goes on from.
pub(super) struct RestorePoint {
    /// What was stored; `None` is the beginning.
    pub(super) manifest: Option<JobManifest>,
    /// Where it is read again until the job has a checkpoint of its own, if it is a savepoint.
    pub(super) savepoint: Option<Source>,
    /// What the job began with, now or long ago; `None` when that was not noted.
    pub(super) beginning: Option<Beginning>,
}

impl RestorePoint {
    /// What the job has at its first start.
    fn beginning() -> Self {
        Self { manifest: None, savepoint: None, beginning: Some(Beginning::Nothing) }
    }
}

impl Supervisor {
    /// What the next attempt goes on from.
    ///
    /// # Errors
    /// When what is there cannot be used, or is not what the settings ask for.
    pub(super) fn restore_point(&mut self, claim: Option<&Claim>) -> Result<RestorePoint, Error> {
        let mut vault = self.vault.lock();
        let vault = &mut *vault;
        let (Some(library), Some(config)) = (&mut vault.library, &self.config.checkpoints) else {
            return Ok(RestorePoint::beginning());
        };
        let enough = || self.board.is_ending();
        let newest = match (&self.archive, claim) {
            (Some(archive), Some(claim)) => archive.newest(claim, library, &enough),
            _ => library.newest(),
        };
        let named = self.origin.as_ref().map(|origin| origin.place());
        let is_named = |beginning: Option<&Beginning>| matches!((beginning, &named), (Some(Beginning::Savepoint(place)), Some(named)) if place == named);
        let newest = match newest {
            Err(error @ (CheckpointError::NoneWhole { .. } | CheckpointError::Lost { .. })) => {
                match (&named, library.beginning()) {
                    (None, _) => return Err(error.into()),
                    (Some(savepoint), None) => {
                        let (savepoint, cause) = (savepoint.clone(), Box::new(error));
                        return Err(CheckpointError::BeginningUnknown { savepoint, cause }.into());
                    }
                    (Some(_), beginning) if is_named(beginning) => return Err(error.into()),
                    (Some(savepoint), Some(_)) => {
                        tracing::warn!(%error, savepoint, "the job begins with the savepoint instead, and what sinks have committed since it was taken can come twice");
                        None
                    }
                }
            }
            newest => newest?,
        };
        let Some(point) = newest else {
            let Some(origin) = &mut self.origin else {
                library.retain_fetched(None);
                return Ok(RestorePoint::beginning());
            };
            let (point, source) = origin.open(library, &enough)?;
            let place = origin.place();
            self.check(&point, config, Path::new(&place), &vault.commits)?;
            let (manifest, savepoint) = (Some(point), Some(source));
            return Ok(RestorePoint { manifest, savepoint, beginning: Some(Beginning::Savepoint(place)) });
        };
        if let (Some(savepoint), Some(beginning)) = (&named, &point.beginning)
            && !is_named(Some(beginning))
        {
            return Err(CheckpointError::OtherBeginning {
                directory: library.root().to_owned(),
                checkpoint: point.checkpoint,
                savepoint: savepoint.clone(),
                beginning: beginning.to_string(),
            }
            .into());
        }
        library.retain_fetched(None);
        self.check(&point, config, library.root(), &vault.commits)?;
        let beginning = point.beginning.clone();
        Ok(RestorePoint { manifest: Some(point), savepoint: None, beginning })
    }

    /// Whether the job can go on from a checkpoint or savepoint.
    fn check(
        &self,
        point: &JobManifest,
        config: &CheckpointConfig,
        place: &Path,
        commits: &Commits,
    ) -> Result<(), CheckpointError> {
        let checkpoint = place.to_owned();
        let (stored, parallelism) = (point.max_parallelism, self.config.parallelism);
        if let Some(wanted) = self.config.max_parallelism.filter(|wanted| *wanted != stored) {
            return Err(CheckpointError::MaxParallelism { checkpoint, stored, wanted });
        }
        if parallelism as u64 > u64::from(stored) {
            return Err(CheckpointError::Parallelism { checkpoint, stored, parallelism });
        }
        let takes = |id: &str| {
            let operator = self.operators.iter().position(|operator| operator.id == id)? as OperatorIndex;
            Some(Takes { prepared: commits.has(operator), under_way: self.works.has_edge(operator) })
        };
        let unknown = non_restored(&point.operators, takes).join(", ");
        if unknown.is_empty() {
            return Ok(());
        }
        if !config.allow_non_restored_state {
            return Err(CheckpointError::NonRestored { checkpoint, operators: unknown });
        }
        tracing::warn!(operators = unknown, "what the checkpoint holds that no operator takes up is dropped");
        Ok(())
    }

    /// Says what an attempt goes on from, in the log.
    pub(super) fn announce(&self, point: &RestorePoint) {
        let Some(config) = &self.config.checkpoints else { return };
        let (job, parallelism, directory) =
            (&self.config.name, self.config.parallelism, config.directory.display());
        let place = self.origin.as_ref().map(|origin| origin.place());
        match (&point.manifest, place) {
            (None, _) => tracing::info!(job, parallelism, "begins anew: no checkpoint in {directory}"),
            (Some(from), Some(place)) if point.savepoint.is_some() => {
                tracing::info!(
                    job,
                    parallelism,
                    "begins with the savepoint {place}, {}",
                    self.description(from)
                );
            }
            (Some(from), Some(place)) => tracing::info!(
                job,
                parallelism,
                "goes on from {} in {directory}, and not from the savepoint {place}, which it began with before",
                self.description(from)
            ),
            (Some(from), None) => {
                tracing::info!(job, parallelism, "goes on from {} in {directory}", self.description(from));
            }
        }
    }

    /// A checkpoint, in words.
    fn description(&self, from: &JobManifest) -> String {
        let age_ms = self.platform.clock().wall_millis().saturating_sub(from.wall_millis).max(0);
        format!("checkpoint {}, complete {} s ago", from.checkpoint, age_ms / 1000)
    }
}
