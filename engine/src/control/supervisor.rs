//! The supervisor of a job: runs one attempt after the other until the job has ended, was stopped, or is given up.
//!
//! ```text
//!   with a remote store: it is claimed, so that nobody else completes a checkpoint of the job
//!        ▼
//!   restore point: newest checkpoint that can be used, else the savepoint, else the beginning
//!        │ committers recover
//!        ▼
//!     attempt ── all input read, last checkpoint complete ──▶ finished
//!        │ ├──── stopped behind a checkpoint ───────────────▶ suspended; without the savepoint that was asked for: another attempt
//!        │ └──── cancelled, or left to go on another time ──▶ failed with that
//!        │ failed
//!        ├── in what it was restored from: that checkpoint is not used again, the one before is tried
//!        └── otherwise: the restart strategy says when to try again, or that it is over; a job that is to be stopped meanwhile is suspended
//! ```

mod restore_point;

use std::{path::PathBuf, sync::Arc, time::Duration};

use self::restore_point::RestorePoint;
use super::{
    archive::{Archive, Claim, Copier},
    board::Board,
    commits::Commits,
    coordinator::{Coordinator, Plan},
    library::Library,
    restart::{NANOS_PER_MILLI, Outage, SharedPolicy, is_damage, is_refusal},
    savepoint::{Origin, Stores},
    vault::Vault,
    works::{Berth, Works},
};
use crate::{
    model::{
        checkpoint::{CheckpointContext, CheckpointId, Restored},
        checkpoint_config::{CheckpointConfig, RestartStrategy},
        checkpoint_error::CheckpointError,
        config::JobConfig,
        connections::Connections,
        error::Error,
        graph::JobGraph,
        metrics::OperatorInfo,
        regions::Regions,
        shared::JobShared,
        sink::CommitContext,
    },
    platform::{Drive, DriveFactory, Platform, PlatformError, Running, Wake},
};

/// Makes the workers of an attempt. Given by [`launch`](crate::launch), which alone knows both planes.
pub(crate) type MakeWorkers = Box<dyn Fn(Seating<'_>) -> Vec<DriveFactory> + Send>;

/// What the workers of an attempt are made with.
pub(crate) struct Seating<'a> {
    /// The settings in force: with the number of key groups of what the attempt goes on from.
    pub(crate) config: &'a Arc<JobConfig>,
    /// What they share with the control plane.
    pub(crate) shared: &'a Arc<JobShared>,
    /// By what they are woken.
    pub(crate) wakers: &'a [Arc<dyn Wake>],
    /// Which parts of the job fail apart.
    pub(crate) regions: Arc<Regions>,
    /// The tasks of each.
    pub(crate) berths: Vec<Berth>,
}

/// A job, checked and about to run.
pub(crate) struct Supervisor {
    works: Arc<Works>,
    config: Arc<JobConfig>,
    platform: Arc<dyn Platform>,
    operators: Arc<[OperatorInfo]>,
    connections: Arc<[Arc<Connections>]>,
    make_workers: MakeWorkers,
    vault: Arc<Vault>,
    archive: Option<Archive>,
    stores: Arc<Stores>,
    /// The savepoint that the job begins with.
    origin: Option<Origin>,
    board: Arc<Board>,
    policy: SharedPolicy,
}

/// An attempt that runs.
pub(crate) struct Attempt {
    running: Box<dyn Running>,
    shared: Arc<JobShared>,
    restored_from: Option<CheckpointId>,
    coordinated: bool,
}

/// How an attempt has ended that has not failed.
enum Joined {
    /// With the job.
    Ended,
    /// Behind a checkpoint from which another one goes on.
    GoesOn,
}

/// What follows an attempt that has failed.
enum Next {
    /// Another one.
    Attempt,
    /// Nothing, as the job was to be stopped: it goes on another time from where the next attempt would have begun.
    Stopped,
    /// Nothing.
    Nothing,
}

impl Supervisor {
    /// Takes the directory of the job's checkpoints, and opens what commits for its sinks. The graph is prepared.
    ///
    /// # Errors
    /// Whatever is wrong with the directory, or with where a sink commits to.
    pub(crate) fn new(
        graph: JobGraph,
        config: Arc<JobConfig>,
        platform: Arc<dyn Platform>,
        operators: Arc<[OperatorInfo]>,
        make_workers: MakeWorkers,
    ) -> Result<Self, Error> {
        let connections: Arc<[Arc<Connections>]> = operators.iter().map(|_| Arc::default()).collect();
        let mut committers = Vec::new();
        for (operator, make) in &graph.committers {
            let info = operators[*operator as usize].clone();
            let context = CommitContext {
                job: config.name.clone(),
                operator: info.id.clone(),
                disk: platform.disk(),
                connections: Arc::clone(&connections[*operator as usize]),
            };
            let made = make(&context)
                .map_err(|cause| Error::Prepare { operator: info.name.clone(), cause: Arc::new(cause) })?;
            committers.extend(made.map(|committer| (*operator, info, committer)));
        }
        let open = |checkpoints: &CheckpointConfig| {
            Library::open(platform.disk(), &checkpoints.directory, &config.name)
        };
        let library = config.checkpoints.as_ref().map(open).transpose()?;
        let vault = Arc::new(Vault::new(library, Commits::new(committers)));
        let archive = config.checkpoints.as_ref().map(|own| archive_of(own, &config.name, &platform));
        let archive = archive.transpose()?.flatten();
        let own = config.checkpoints.as_ref().and_then(|checkpoints| checkpoints.remote.clone());
        let stores = Arc::new(Stores::new(Arc::clone(&platform), own));
        let savepoint = config.checkpoints.as_ref().and_then(|checkpoints| checkpoints.savepoint.clone());
        let origin = savepoint.map(|place| Origin::new(place, Arc::clone(&stores)));
        let policy = SharedPolicy::new(config.restart.clone());
        let works = Arc::new(Works::new(graph, Arc::clone(&config)));
        let board = Arc::default();
        Ok(Self {
            works,
            config,
            platform,
            operators,
            connections,
            make_workers,
            vault,
            archive,
            stores,
            origin,
            board,
            policy,
        })
    }

    /// What the job's handle looks at.
    pub(super) fn board(&self) -> Arc<Board> {
        Arc::clone(&self.board)
    }

    /// The directory in which other processes may ask something of the job.
    pub(super) fn listens_in(&self) -> Option<PathBuf> {
        let outside = self.platform.has_outside();
        self.config.checkpoints.as_ref().filter(|_| outside).map(|checkpoints| checkpoints.directory.clone())
    }

    /// All operators, by index.
    pub(super) fn operators(&self) -> Arc<[OperatorInfo]> {
        Arc::clone(&self.operators)
    }

    /// What operators tell of their connections, by index.
    pub(super) fn connections(&self) -> Arc<[Arc<Connections>]> {
        Arc::clone(&self.connections)
    }

    /// How long the job may take to stop behind a checkpoint.
    pub(super) fn stops_within(&self) -> Duration {
        Duration::from_millis(self.config.checkpoints.as_ref().map_or(u64::MAX, |config| config.timeout_ms))
    }

    /// What opens the stores of savepoints.
    pub(super) fn stores(&self) -> Arc<Stores> {
        Arc::clone(&self.stores)
    }

    /// Starts an attempt.
    ///
    /// # Errors
    /// Whatever keeps it from starting.
    pub(crate) fn begin(&mut self) -> Result<Attempt, Error> {
        let fleet = self.platform.prepare(self.config.parallelism)?;
        let claim = self.claim()?;
        let from = self.restore_point(claim.as_ref())?;
        self.announce(&from);
        let RestorePoint { manifest: restore_point, savepoint, beginning } = from;
        let restored_from = restore_point.as_ref().map(|point| point.checkpoint);
        self.platform.note(&|| match restored_from {
            Some(checkpoint) => format!("an attempt begins from checkpoint {checkpoint}"),
            None => "an attempt begins from the beginning".to_owned(),
        });
        let mut vault = self.vault.lock();
        vault.commits.recover(|_| true, restore_point.as_ref())?;
        let regions = Arc::clone(self.works.regions());
        if let Some(library) = &mut vault.library {
            library.begin_attempt(claim.as_ref().map_or(0, |claim| claim.attempt))?;
        }
        let config = Arc::new(
            self.config.with_key_groups_of(restore_point.as_ref().map(|point| point.max_parallelism)),
        );
        let (coordinated, before) = (vault.is_coordinated(), vault.last_checkpoint());
        let committed = restore_point.map(|point| point.operators).unwrap_or_else(Restored::new);
        let restored = Arc::new(committed);
        let mut contexts = Vec::with_capacity(regions.count());
        for region in 0..regions.count() {
            let state_dir = vault.library.as_mut().map(|library| library.begin_region(region)).transpose()?;
            contexts.push(CheckpointContext {
                ends_with_checkpoint: coordinated,
                restored: Arc::clone(&restored),
                state_dir: state_dir.map(Into::into),
                before,
            });
        }
        drop(vault);
        self.board.note_restored(restored_from);
        let wakers = fleet.wakers();
        let berths = self.works.berths(&wakers, contexts);
        let mut shared = JobShared::new(wakers.clone());
        let control = (coordinated || regions.are_many()).then(|| fleet.control_waker());
        let copier = match (claim, &self.archive, &control) {
            (Some(claim), Some(archive), Some(control)) => {
                let keeper = archive.keeper(claim);
                Some(if self.platform.inline_io() {
                    Copier::here(keeper)
                } else {
                    Copier::start(keeper, Arc::clone(control))?
                })
            }
            _ => None,
        };
        if let Some(control) = &control {
            shared = shared.with_control(Arc::clone(control));
        }
        let shared = Arc::new(shared);
        let seating = Seating { config: &config, shared: &shared, wakers: &wakers, regions, berths };
        let factories = (self.make_workers)(seating);
        let coordinator = control.clone().map(|wake| {
            let plan = Plan { copier, restored_from, savepoint, beginning, ..self.plan(wake, &config) };
            self.coordinator(plan, &shared)
        });
        self.board.begin(&shared, control);
        let running = fleet.start(factories, coordinator)?;
        Ok(Attempt { running, shared, restored_from, coordinated })
    }

    /// What a coordinator is made with of an attempt with these settings, which is woken by `wake`.
    fn plan(&self, wake: Arc<dyn Wake>, config: &JobConfig) -> Plan {
        Plan {
            works: Arc::clone(&self.works),
            policy: self.policy.clone(),
            restored_from: None,
            savepoint: None,
            beginning: None,
            max_parallelism: config.key_groups(),
            job: config.name.clone(),
            config: config.checkpoints.clone(),
            operators: Arc::clone(&self.operators),
            copier: None,
            wake,
        }
    }

    fn coordinator(&self, plan: Plan, shared: &Arc<JobShared>) -> DriveFactory {
        let (shared, board, vault) = (Arc::clone(shared), Arc::clone(&self.board), Arc::clone(&self.vault));
        let platform = Arc::clone(&self.platform);
        Box::new(move || Box::new(Coordinator::new(plan, shared, board, vault, platform)) as Box<dyn Drive>)
    }

    /// Takes the remote store for the next attempt, if there is one.
    fn claim(&mut self) -> Result<Option<Claim>, Error> {
        let Some(archive) = &mut self.archive else { return Ok(None) };
        let last = self.vault.lock().library.as_ref().map(Library::last_attempt).transpose()?;
        Ok(Some(archive.claim(last.unwrap_or(0), &|| self.board.is_ending())?))
    }

    /// Runs the job to its end, from its first attempt on.
    ///
    /// # Errors
    /// Why it did not come to its end.
    pub(crate) fn run(mut self, first: Attempt) -> Result<(), Error> {
        let mut attempt = Ok(first);
        // Whether it is known what the next process goes on from.
        let mut is_certain = true;
        let outcome = loop {
            let (failure, was_damage) = match attempt {
                Err(error) => (error, false),
                Ok(begun) => {
                    let restored_from = begun.restored_from;
                    match self.join(begun) {
                        Ok(Joined::Ended) => break Ok(()),
                        Ok(Joined::GoesOn) => {
                            attempt = self.begin();
                            continue;
                        }
                        Err(failure) => {
                            // It may have been that of a region that was started again.
                            let restored_from = self.board.take_suspect().or(restored_from);
                            let was_damage = self.reject_if_damaged(restored_from, &failure);
                            (failure, was_damage)
                        }
                    }
                }
            };
            self.platform.note(&|| format!("the attempt failed: {failure}"));
            is_certain = matches!(failure, Error::Cancelled) || !is_lasting(&failure);
            // With one checkpoint less to go on from, that is not the same attempt again.
            let next = if was_damage { Next::Attempt } else { self.wait_for_next_attempt(&failure) };
            match next {
                Next::Attempt => {}
                Next::Stopped => break Ok(()),
                Next::Nothing => break Err(self.board.ending().unwrap_or(failure)),
            }
            attempt = self.begin();
        };
        self.board.close(&outcome);
        self.tidy_up(&outcome);
        if is_certain && !(outcome.is_ok() && self.board.is_finished()) {
            self.settle(&outcome);
        }
        outcome
    }

    /// Has sinks give up what they have prepared that no checkpoint names: who knows whether the job is ever started again. Behind
    /// [`tidy_up`](Self::tidy_up), so that no checkpoint names what is not there any more.
    fn settle(&self, outcome: &Result<(), Error>) {
        let mut vault = self.vault.lock();
        if vault.commits.is_empty() {
            return;
        }
        // Of those that wait for the other side, nobody waits.
        self.connections.iter().for_each(|connections| connections.give_up());
        let named = match &vault.library {
            // A checkpoint may be complete in the remote store that is not here.
            Some(_) if self.archive.is_some() => return,
            Some(library) => library.next_restored(),
            // What is committed in part is nothing to give up the rest of.
            None if matches!(outcome, Err(failure) if is_of_commit(failure)) => return,
            None => Ok(None),
        };
        match named {
            Ok(point) => {
                let named = |id: &str| point.as_ref().map(|point| point.committables(id)).unwrap_or_default();
                vault.commits.leave(named);
            }
            Err(error) => {
                tracing::warn!(%error, "what sinks have prepared stays as it is until the job is started again");
            }
        }
    }

    /// Waits for the end of an attempt.
    fn join(&mut self, attempt: Attempt) -> Result<Joined, Error> {
        let joined = attempt.running.join();
        let failure = self.board.take_failure().or_else(|| attempt.shared.failure());
        let goes_on_after = self.board.take_going_on();
        // Of a process that was killed nothing else is to be told.
        if let Err(error @ PlatformError::Killed { .. }) = joined {
            return Err(error.into());
        }
        match failure {
            Some(failure) => return Err(failure),
            None => joined?,
        }
        if let Some(why) = goes_on_after {
            tracing::warn!(%why, "the job was not stopped, and goes on from its newest checkpoint");
            self.board.note_restart(&why, self.names(), false);
            return Ok(Joined::GoesOn);
        }
        if !attempt.coordinated || self.board.is_finished() || self.board.is_suspended() {
            return Ok(Joined::Ended);
        }
        let cause = "the job ended without its last checkpoint".to_owned();
        Err(crate::platform::PlatformError::WorkerLost { worker: 0, cause }.into())
    }

    /// The names of all operators.
    fn names(&self) -> Vec<String> {
        self.operators.iter().map(OperatorInfo::label).collect()
    }

    /// A checkpoint whose state turns out to be damaged is not used again; whether that is so.
    fn reject_if_damaged(&mut self, restored_from: Option<CheckpointId>, failure: &Error) -> bool {
        let mut vault = self.vault.lock();
        let (Some(id), Some(library)) = (restored_from, &mut vault.library) else { return false };
        let is_damaged = is_damage(failure) && library.newest_kept() == Some(id);
        // What is damaged here may be whole in the remote store.
        let is_news = self.archive.as_mut().is_some_and(|archive| is_damaged && archive.distrust(id));
        if is_damaged && !is_news {
            library.reject(id, format!("checkpoint {id}: {failure}"));
        }
        is_damaged
    }

    /// Waits as long as the restart strategy says, or until the job is to be stopped: it is as good as stopped then.
    fn wait_for_next_attempt(&mut self, failure: &Error) -> Next {
        // Without checkpoints, what was committed of the last one would be committed again by a replay.
        let is_committed = is_of_commit(failure) || self.board.is_finished();
        let is_lost = is_committed && self.config.checkpoints.is_none();
        if self.board.is_ending() || self.board.has_given_up() || is_lost || is_lasting(failure) {
            return Next::Nothing;
        }
        let clock = self.platform.clock();
        let since = clock.now();
        let Some(delay) = self.policy.fail(since) else {
            if self.config.restart != RestartStrategy::None {
                let strategy = &self.config.restart;
                tracing::warn!(%failure, ?strategy, "the job failed and is not started again: its restart strategy allows no more");
            }
            return Next::Nothing;
        };
        tracing::warn!(%failure, delay_ms = delay / NANOS_PER_MILLI, "the job failed and is started again");
        self.board.note_restart(failure, self.names(), false);
        let outage = Outage { since, failure: failure.clone(), until: Some(since.saturating_add(delay)) };
        let timeout_ms = self.config.checkpoints.as_ref().map_or(0, |checkpoints| checkpoints.timeout_ms);
        let at_most = timeout_ms.saturating_mul(NANOS_PER_MILLI);
        self.platform.pause(delay, &|| {
            let now = clock.now();
            let why = || CheckpointError::Down { outages: outage.told(&self.names(), now) }.into();
            self.board.refuse_late(now, at_most, outage.until, why);
            self.board.is_ending() || self.board.is_to_stop()
        });
        if self.board.is_ending() {
            return Next::Nothing;
        }
        match &self.vault.lock().library {
            Some(library) if self.board.stop_at(|| library.newest_place()) => Next::Stopped,
            _ => Next::Attempt,
        }
    }

    /// Checkpoints that nothing will go on from are removed: those of a job that its user has cancelled, if the settings say so.
    fn tidy_up(&self, outcome: &Result<(), Error>) {
        let retained = match (outcome, &self.config.checkpoints) {
            (Err(Error::Cancelled), Some(config)) if self.board.is_cancelled() => config.retain_on_cancel,
            _ => true,
        };
        if !retained && let Some(library) = &mut self.vault.lock().library {
            library.clear();
            self.archive.iter().for_each(Archive::clear);
        }
    }
}

/// Whether a sink's second phase has failed.
fn is_of_commit(failure: &Error) -> bool {
    use CheckpointError::{Commit, Recover};
    matches!(failure, Error::Checkpoint(error) if matches!(**error, Commit { .. } | Recover { .. }))
}

/// Whether the next attempt would fail with the same: what is wrong with the settings or the checkpoints stays wrong.
fn is_lasting(failure: &Error) -> bool {
    match failure {
        Error::Cancelled | Error::Config { .. } => true,
        Error::Platform(error) => {
            matches!(**error, PlatformError::Killed { .. } | PlatformError::Stalled { .. })
        }
        Error::Checkpoint(error) => {
            use CheckpointError::{
                BeginningUnknown, Lost, MaxParallelism, NewerVersion, NoSavepoint, NonRestored,
                NonRestoredStates, NoneWhole, OtherBeginning, OtherJob, Overtaken, Parallelism, Unknown,
            };
            matches!(
                **error,
                NoneWhole { .. }
                    | Lost { .. }
                    | BeginningUnknown { .. }
                    | OtherBeginning { .. }
                    | NewerVersion { .. }
                    | NoSavepoint { .. }
                    | NonRestored { .. }
                    | NonRestoredStates { .. }
                    | MaxParallelism { .. }
                    | Parallelism { .. }
                    | OtherJob { .. }
                    | Overtaken { .. }
                    | Unknown { .. }
            )
        }
        _ => is_refusal(failure),
    }
}

/// What keeps a job's checkpoints on other machines, if the settings say so.
fn archive_of(
    checkpoints: &CheckpointConfig,
    job: &str,
    platform: &Arc<dyn Platform>,
) -> Result<Option<Archive>, CheckpointError> {
    let Some(remote) = &checkpoints.remote else { return Ok(None) };
    let failed = |source| CheckpointError::Remote {
        doing: "keep checkpoints",
        place: remote.url().to_owned(),
        source,
    };
    let store = platform.remote(remote).map_err(failed)?;
    let (root, retained_max) = (checkpoints.directory.clone(), checkpoints.retained_max);
    Ok(Some(Archive::new(store, Arc::clone(platform), root, job.to_owned(), retained_max)))
}
