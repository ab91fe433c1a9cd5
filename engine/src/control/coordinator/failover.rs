//! Regions that fail apart: one is dropped on all workers, laid down until the restart strategy lets it rise, and built anew from the
//! newest complete checkpoint. The others go on.
//!
//! ```text
//!        a task fails: workers are told to drop the region,
//!        checkpoints that it has not passed are given up      all have dropped it, and nothing is under way
//!  Up ──────────────────────────────────────────────▶ Falling ──────────────────────────────────────────▶ Down
//!   ▲                                                                                                      │ its time has come
//!   └── its sinks recover, its channels and tasks are made anew ◀──────────────────────────────────────────┘
//! ```
//!
//! * What comes from a region's tasks came before the worker said that it has dropped them, so that behind `Falling` nothing is heard of
//!   those that were there before.
//! * While a region is not up, no checkpoint begins. One that all tasks have passed already is completed first, so that the newest complete
//!   one is known, and what sinks of the region have prepared besides can be given up. Who asks for one meanwhile waits as long as a checkpoint may
//!   take, and not at all if all regions cannot be up by then.
//! * The whole attempt fails where one region is not enough: when the last barrier is under way, behind which the other regions say nothing
//!   more; when state is damaged, since then another checkpoint has to be found, or of another kind, which stays so; when it is not known
//!   whether the remote store has taken a checkpoint, which would be newer than the one to go on from; when more checkpoints in a row were
//!   given up, for whatever reason, than may fail, and more than one, since what the other regions' sinks have prepared for them piles up;
//!   and when the restart strategy says that it is over.

use std::sync::Arc;

use super::Coordinator;
use crate::{
    control::restart::{Outage, is_damage, is_refusal},
    model::{
        checkpoint::{CheckpointContext, CheckpointId, Restored, ToWorker},
        error::Error,
        regions::RegionIndex,
    },
    platform::Nanos,
};

/// The regions of an attempt.
pub(super) struct Failover {
    regions: Vec<Region>,
    workers: usize,
    /// Workers were told that they may leave.
    is_over: bool,
}

struct Region {
    stage: Stage,
    /// Tasks that begin with a source, and those of them that have read their input.
    sources: usize,
    at_end: usize,
    /// Workers on which all its tasks have come to their end.
    done: usize,
    restored_from: Option<CheckpointId>,
}

enum Stage {
    Up,
    /// Some workers have not said that they have dropped it.
    Falling {
        left: usize,
        outage: Outage,
    },
    /// It waits for its time.
    Down {
        until: Nanos,
        outage: Outage,
    },
}

impl Stage {
    fn outage(&self) -> Option<&Outage> {
        match self {
            Self::Up => None,
            Self::Falling { outage, .. } | Self::Down { outage, .. } => Some(outage),
        }
    }
}

impl Failover {
    /// All regions are up. `sources` are the tasks of each that begin with a source.
    pub(super) fn new(sources: Vec<usize>, workers: usize, restored_from: Option<CheckpointId>) -> Self {
        let up = |sources| Region { stage: Stage::Up, sources, at_end: 0, done: 0, restored_from };
        Self { regions: sources.into_iter().map(up).collect(), workers, is_over: false }
    }

    /// Whether checkpoints may begin.
    pub(super) fn all_up(&self) -> bool {
        self.regions.iter().all(|region| matches!(region.stage, Stage::Up))
    }

    /// Whether one waits for its time to rise.
    pub(super) fn is_one_down(&self) -> bool {
        self.next_rise().is_some()
    }

    /// Whether all sources have read their input.
    pub(super) fn all_at_end(&self) -> bool {
        self.regions.iter().all(|region| region.at_end == region.sources)
    }

    pub(super) fn note_at_end(&mut self, region: RegionIndex) {
        self.regions[region].at_end += 1;
    }

    pub(super) fn note_done(&mut self, region: RegionIndex) {
        self.regions[region].done += 1;
    }

    pub(super) fn note_dropped(&mut self, region: RegionIndex) {
        if let Stage::Falling { left, .. } = &mut self.regions[region].stage {
            *left -= 1;
        }
    }

    fn has_ended(&self) -> bool {
        self.regions.iter().all(|region| region.done == self.workers)
    }

    /// When regions that are down may rise.
    fn rises(&self) -> impl Iterator<Item = Nanos> {
        self.regions.iter().filter_map(|region| match region.stage {
            Stage::Down { until, .. } => Some(until),
            Stage::Up | Stage::Falling { .. } => None,
        })
    }

    /// When the next region that is down may rise.
    fn next_rise(&self) -> Option<Nanos> {
        self.rises().min()
    }

    /// When all are up, at the earliest, as far as that is known.
    pub(super) fn last_rise(&self) -> Option<Nanos> {
        self.rises().max()
    }
}

impl Coordinator {
    /// A task of a region has failed.
    pub(super) fn note_failed(&mut self, region: RegionIndex, failure: Error) {
        let workers = self.failover.workers;
        let own = &mut self.failover.regions[region];
        // Behind the first failure others of the same tasks follow.
        if !matches!(own.stage, Stage::Up) {
            return;
        }
        let outage = Outage { since: self.clock.now(), failure: failure.clone(), until: None };
        own.stage = Stage::Falling { left: workers, outage };
        let restored_from = own.restored_from;
        self.platform.note(&|| format!("region {region} failed: {failure}"));
        if is_damage(&failure) {
            self.board.suspect(restored_from);
            return self.shared.fail(failure);
        }
        if self.closing || is_refusal(&failure) {
            return self.shared.fail(failure);
        }
        self.shared.tell_workers(ToWorker::Drop(region));
        let unfinished = self.underway.extract_if(.., |own| own.missing > 0);
        for own in unfinished.collect::<Vec<_>>() {
            let checkpoint = own.checkpoint;
            self.platform.note(&|| format!("checkpoint {checkpoint} is given up with the region"));
            // Whoever has asked for it gets another one.
            let request = self.give_up(own);
            request.into_iter().for_each(|request| self.board.hand_on(request));
            self.last_ended = self.clock.now();
            self.failures += 1;
            self.board.note_failed(&failure.to_string());
        }
        // Others' sinks keep what they have prepared until a checkpoint is complete: that is bounded. One may always be given up.
        if self.failures > self.plan.config.as_ref().map_or(0, |config| config.failures_max).max(1) {
            self.shared.fail(failure);
        }
    }

    /// Gets on with regions that are not up, and lets workers leave when all have ended; when to look again.
    pub(super) fn mend(&mut self, now: Nanos) -> Option<Nanos> {
        if !self.plan.works.regions().are_many() || self.shared.failure().is_some() {
            return None;
        }
        for region in 0..self.failover.regions.len() {
            let is_settled = self.underway.is_empty() && self.copying.is_none();
            match &self.failover.regions[region].stage {
                Stage::Falling { left: 0, outage } if is_settled => {
                    let outage = outage.clone();
                    self.lay_down(region, outage, now);
                }
                Stage::Down { until, .. } if *until <= now => match self.raise(region) {
                    Ok(()) => self.failover.regions[region].stage = Stage::Up,
                    Err(failure) => self.shared.fail(failure),
                },
                Stage::Up | Stage::Falling { .. } | Stage::Down { .. } => {}
            }
        }
        if !self.failover.is_over && self.failover.has_ended() {
            self.failover.is_over = true;
            self.shared.tell_workers(ToWorker::Leave);
        }
        self.failover.next_rise()
    }

    /// Nothing of the region is there any more: what its sinks have prepared for no checkpoint is forgotten, and the restart strategy is
    /// asked.
    fn lay_down(&mut self, region: RegionIndex, outage: Outage, now: Nanos) {
        let failure = &outage.failure;
        let is_unsure = self.plan.copier.as_ref().is_some_and(|copier| copier.is_unsure());
        if self.shared.failure().is_some() || is_unsure {
            return self.shared.fail(failure.clone());
        }
        let regions = Arc::clone(self.plan.works.regions());
        for prepared in self.carried.values_mut() {
            prepared.retain(|operator, _| regions.of_operator(*operator) != region);
        }
        let Some(delay) = self.plan.policy.fail(now) else {
            self.board.give_up();
            return self.shared.fail(failure.clone());
        };
        let names = regions.names(region, &self.plan.operators);
        let (operators, delay_ms) = (names.join(", "), delay / super::NANOS_PER_MILLI);
        tracing::warn!(%failure, operators, delay_ms, "a region of the job failed and is started again");
        self.board.note_restart(failure, names, true);
        let own = &mut self.failover.regions[region];
        (own.at_end, own.done) = (0, 0);
        let until = now.saturating_add(delay);
        own.stage = Stage::Down { until, outage: Outage { until: Some(until), ..outage } };
    }

    /// What is down, in words.
    pub(super) fn outages(&self, now: Nanos) -> String {
        let regions = self.failover.regions.iter().enumerate();
        let outages = regions.filter_map(|(region, own)| {
            let names = self.plan.works.regions().names(region, &self.plan.operators);
            Some(own.stage.outage()?.told(&names, now))
        });
        outages.collect::<Vec<_>>().join("; ")
    }

    /// Builds a region anew, from the newest complete checkpoint.
    fn raise(&mut self, region: RegionIndex) -> Result<(), Error> {
        let regions = Arc::clone(self.plan.works.regions());
        let mut contents = self.vault.lock();
        let vault = &mut *contents;
        let newest = vault.library.as_ref().map(|library| library.newest_complete()).transpose()?.flatten();
        let point = match (newest, &self.plan.savepoint) {
            (None, Some(savepoint)) => Some(savepoint.read(&*self.platform.disk())?),
            (newest, _) => newest,
        };
        let restored_from = point.as_ref().map(|point| point.checkpoint);
        vault.commits.recover(|operator| regions.of_operator(operator) == region, point.as_ref())?;
        let state_dir = vault.library.as_mut().map(|library| library.begin_region(region)).transpose()?;
        let context = CheckpointContext {
            ends_with_checkpoint: vault.is_coordinated(),
            restored: Arc::new(point.map_or_else(Restored::new, |point| point.operators)),
            state_dir: state_dir.map(Into::into),
            before: vault.last_checkpoint(),
        };
        drop(contents);
        self.platform.note(&|| match restored_from {
            Some(checkpoint) => format!("region {region} is started again from checkpoint {checkpoint}"),
            None => format!("region {region} is started again from the beginning"),
        });
        self.board.note_restored(restored_from);
        self.failover.regions[region].restored_from = restored_from;
        for (worker, crew) in
            self.plan.works.crews(region, self.shared.wakers(), &context).into_iter().enumerate()
        {
            self.shared.send_crew(worker, crew);
        }
        Ok(())
    }
}
