//! The second phase of the sinks' commits: what is prepared, carried over from checkpoints that failed, and committed.

use std::{collections::BTreeMap, sync::Arc};

use super::manifest::JobManifest;
use crate::model::{
    checkpoint::Committable, checkpoint_error::CheckpointError, error::Error, metrics::OperatorInfo,
    operator::OperatorIndex, sink::Committer, source::BoxError,
};

/// How often a commit is tried by a sink that does not do so by itself, before the job fails and goes on from the checkpoint, which tries it again.
const COMMIT_TRIES: usize = 3;

/// What sinks have prepared, by operator.
pub(super) type Prepared = BTreeMap<OperatorIndex, Vec<Committable>>;

/// The committers of a job, with the operators that they are for.
pub(super) struct Commits {
    committers: BTreeMap<OperatorIndex, (OperatorInfo, Box<dyn Committer>)>,
}

impl Commits {
    pub(super) fn new(
        committers: impl IntoIterator<Item = (OperatorIndex, OperatorInfo, Box<dyn Committer>)>,
    ) -> Self {
        let committers = committers.into_iter().map(|(operator, info, own)| (operator, (info, own)));
        Self { committers: committers.collect() }
    }

    /// Whether no sink has transactions.
    pub(super) fn is_empty(&self) -> bool {
        self.committers.is_empty()
    }

    /// Whether an operator is a sink that has transactions.
    pub(super) fn has(&self, operator: OperatorIndex) -> bool {
        self.committers.contains_key(&operator)
    }

    fn each(
        &mut self,
        prepared: &Prepared,
        mut act: impl FnMut(&mut dyn Committer, &[Committable]) -> Result<(), BoxError>,
    ) -> Result<(), CheckpointError> {
        for (operator, committables) in prepared {
            let Some((info, committer)) = self.committers.get_mut(operator) else { continue };
            act(&mut **committer, committables).map_err(|cause| CheckpointError::Commit {
                sink: info.name.clone(),
                cause: cause.to_string(),
            })?;
        }
        Ok(())
    }

    /// As [`Committer::secure`], of all sinks.
    pub(super) fn secure(&mut self, prepared: &Prepared) -> Result<(), CheckpointError> {
        self.each(prepared, |committer, committables| committer.secure(committables))
    }

    /// As [`Committer::commit`], of all sinks; what fails is tried again at once, as it may be the other side that hiccups, unless the sink
    /// has done that for long enough.
    pub(super) fn commit(&mut self, prepared: &Prepared) -> Result<(), CheckpointError> {
        self.each(prepared, |committer, committables| {
            let mut committed = committer.commit(committables);
            for _ in 1..COMMIT_TRIES {
                if committed.is_ok() || committer.is_patient() {
                    break;
                }
                committed = committer.commit(committables);
            }
            committed
        })
    }

    /// As [`Committer::abort`], of all sinks. What cannot be given up now is given up at the next recovery.
    pub(super) fn abort(&mut self, prepared: &Prepared) {
        for (operator, committables) in prepared {
            let Some((info, committer)) = self.committers.get_mut(operator) else { continue };
            if let Err(error) = committer.abort(committables) {
                tracing::warn!(sink = info.name, %error, "cannot give up what a sink has prepared");
            }
        }
    }

    /// As [`Committer::leave`], of all sinks: each gets what `prepared_by` says of its operator's stable id.
    pub(super) fn leave(&mut self, prepared_by: impl Fn(&str) -> Vec<Committable>) {
        for (info, committer) in self.committers.values_mut() {
            if let Err(error) = committer.leave(&prepared_by(&info.id)) {
                let sink = &info.name;
                tracing::warn!(sink, %error, "what a sink has prepared may stay as it is until the job is started again");
            }
        }
    }

    /// As [`Committer::positions`], of the sink with this stable id.
    pub(super) fn positions(&self, id: &str, committables: &[Committable]) -> Vec<Committable> {
        let own = self.committers.values().find(|(info, _)| info.id == id);
        own.map(|(_, committer)| committer.positions(committables)).unwrap_or_default()
    }

    /// As [`Committer::recover`], of those sinks of which `is_it` says so: each gets what the checkpoint or savepoint has of its operator's
    /// stable id. Without one they [begin anew](Committer::begin_anew). What others have prepared stays.
    pub(super) fn recover(
        &mut self,
        is_it: impl Fn(OperatorIndex) -> bool,
        point: Option<&JobManifest>,
    ) -> Result<(), Error> {
        let own = self.committers.iter_mut().filter(|(operator, _)| is_it(**operator));
        let mut own: Vec<_> = own.map(|(_, (info, committer))| (info, committer)).collect();
        if point.is_none() {
            for (info, committer) in &mut own {
                committer.begin_anew().map_err(|cause| Error::Prepare {
                    operator: info.name.clone(),
                    cause: Arc::new(cause),
                })?;
            }
        }
        for (info, committer) in own {
            let committables = point.map(|point| point.committables(&info.id)).unwrap_or_default();
            committer.recover(&committables).map_err(|cause| CheckpointError::Recover {
                sink: info.name.clone(),
                cause: cause.to_string(),
            })?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    };

    use super::*;

    /// Never commits, and counts how often it was to.
    struct Failing {
        tries: Arc<AtomicUsize>,
        is_patient: bool,
    }

    impl Committer for Failing {
        fn secure(&mut self, _: &[Committable]) -> Result<(), BoxError> {
            Ok(())
        }

        fn commit(&mut self, _: &[Committable]) -> Result<(), BoxError> {
            self.tries.fetch_add(1, Ordering::Relaxed);
            Err("away".into())
        }

        fn is_patient(&self) -> bool {
            self.is_patient
        }

        fn abort(&mut self, _: &[Committable]) -> Result<(), BoxError> {
            Ok(())
        }

        fn recover(&mut self, _: &[Committable]) -> Result<(), BoxError> {
            Ok(())
        }
    }

    #[test]
    fn a_sink_that_has_tried_for_long_enough_is_not_asked_again() {
        for (is_patient, expected) in [(false, COMMIT_TRIES), (true, 1)] {
            let tries = Arc::<AtomicUsize>::default();
            let committer = Box::new(Failing { tries: Arc::clone(&tries), is_patient });
            let info = OperatorInfo { id: "rows".into(), name: "rows".into() };
            let mut commits = Commits::new([(0, info, committer as Box<dyn Committer>)]);
            assert!(commits.commit(&Prepared::from([(0, vec![vec![1]])])).is_err());
            assert_eq!(tries.load(Ordering::Relaxed), expected);
        }
    }
}
