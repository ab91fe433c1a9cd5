//! The lives of one simulated process: each begins with what the one before has left on the disk.

use std::{collections::BTreeSet, path::PathBuf, sync::Arc};

use tidemill_engine::{
    control::archive,
    model::{checkpoint::CheckpointId, error::Error},
    platform::{
        Platform, Random, SimFaults, SimPlatform,
        remote::{MemoryFaults, MemoryStore},
    },
};
use tidemill_storage::snapshot::disk::memory::MemoryDisk;

use super::{
    SimReport, Simulation,
    damage::{Damage, Dealt},
    outside::{Act, Outside},
    request::Asked,
};
use crate::api::environment::StreamEnvironment;

/// Where a simulated job keeps its checkpoints, at first.
pub(super) const DIRECTORY: &str = "/checkpoints";
/// A seed is given up after so many lives.
const LIVES_MAX: u64 = 32;

/// How long a job takes if nothing goes wrong.
#[derive(Clone, Copy)]
pub(super) struct Calm {
    pub(super) turns: u64,
    pub(super) disk_operations: u64,
    pub(super) disk_bytes: u64,
    pub(super) remote_operations: u64,
}

/// How a life ended in which nothing was wrong.
#[derive(Clone, Debug, Default)]
struct Ended {
    /// What it had gone on from the last time.
    restored_from: Option<CheckpointId>,
    /// What was asked of it was done.
    is_done: bool,
}

/// The lives of the process under one seed.
pub(super) struct Lives<O> {
    /// What the job writes to.
    pub(super) outside: O,
    pub(super) seed: u64,
    pub(super) random: Random,
    pub(super) kills_left: u64,
    /// How often somebody still asks something of the job.
    pub(super) requests_left: u64,
    pub(super) parallelism_max: usize,
    pub(super) operator_failures_max: u64,
    /// Whether the job may be drained.
    pub(super) drains: bool,
    has_damage: bool,
    /// The directory of the job's checkpoints.
    pub(super) directory: PathBuf,
    /// The savepoint that the job has begun with there.
    pub(super) savepoint: Option<PathBuf>,
    pub(super) disk: MemoryDisk,
    /// Outlives the machine.
    pub(super) remote: Option<MemoryStore>,
    /// What is wrong with the newest checkpoint.
    pub(super) damage: Option<Damage>,
    /// Those that were damaged and are not used any more.
    rotten: BTreeSet<CheckpointId>,
    /// Whether checkpoints have little time in this life.
    pub(super) is_hasty: bool,
    trace: String,
    pub(super) report: SimReport,
}

impl<O: Outside> Lives<O> {
    pub(super) fn new(simulation: &Simulation, seed: u64, disk: MemoryDisk, outside: O) -> Self {
        let mut random = Random::from_seed(seed);
        let kills_left = random.below(simulation.kills_max + 1);
        let requests_left = random.below(simulation.requests_max + 1);
        Self {
            outside,
            seed,
            random,
            kills_left,
            requests_left,
            parallelism_max: simulation.parallelism_max,
            operator_failures_max: simulation.operator_failures_max,
            drains: simulation.drains,
            has_damage: simulation.damage,
            directory: DIRECTORY.into(),
            savepoint: None,
            disk,
            remote: simulation.remote.then(MemoryStore::default),
            damage: None,
            rotten: BTreeSet::new(),
            is_hasty: false,
            trace: String::new(),
            report: SimReport { runs: 1, ..SimReport::default() },
        }
    }

    /// What happened last.
    pub(super) fn story(&self) -> String {
        self.trace.clone()
    }

    /// One life in which nothing goes wrong.
    pub(super) fn run_calmly(mut self) -> Calm {
        // Drawn independently: else when a life ends would follow from the settings that this one has.
        self.random = Random::from_seed(!self.seed);
        let platform = self.platform(self.seed, None);
        let turns = platform.clone();
        // What is wrong with the job itself shows again, with its seed.
        let _outcome = self.live(platform, None);
        let remote_operations = self.remote.as_ref().map_or(0, MemoryStore::operations);
        Calm {
            turns: turns.turns().max(16),
            disk_operations: self.disk.operations().max(16),
            disk_bytes: self.disk.used_bytes().max(16),
            remote_operations: remote_operations.max(16),
        }
    }

    fn platform(&self, seed: u64, ask: Option<Act>) -> SimPlatform {
        let mut platform = SimPlatform::new(seed).disk(Arc::new(self.disk.clone()));
        let lookers: Vec<Act> = self.outside.onlooker().into_iter().chain(ask).collect();
        if !lookers.is_empty() {
            platform = platform.onlooker(Arc::new(move || lookers.iter().for_each(|look| look())));
        }
        match &self.remote {
            Some(remote) => platform.remote(Arc::new(remote.clone())),
            None => platform,
        }
    }

    /// Lives until the job has come to its end.
    ///
    /// # Errors
    /// When it does not come to its end though nothing goes wrong any more, or does what it may not. In words.
    pub(super) fn run(&mut self, calm: Calm) -> Result<(), String> {
        for life in 0..LIVES_MAX {
            let is_last_try = life + 1 == LIVES_MAX;
            let request = self.draw_request(calm).filter(|_| !is_last_try);
            // Half of the lives in which something is asked are not killed before it is done.
            let dies = self.kills_left > 0 && !is_last_try && (request.is_none() || self.random.one_in(2));
            self.is_hasty = dies && self.random.one_in(if self.remote.is_some() { 2 } else { 3 });
            let mut faults = if dies { self.draw_faults(calm) } else { SimFaults::default() };
            self.draw_remote_faults(dies.then_some(&mut faults), calm);
            self.draw_operator_failures(&mut faults, calm);
            self.draw_stall(&mut faults, calm);
            let (asked, ask) = request.clone().map(Asked::new).unzip();
            let seed = self.seed.wrapping_mul(1_000).wrapping_add(life);
            let turn_ns_max = [1_000, 20_000, 200_000][self.random.below(3) as usize];
            let platform = self.platform(seed, ask).faults(faults).turn_ns_max(turn_ns_max);
            let (ended, outcome) = self.live(platform, asked);
            self.check_remote().map_err(|error| error.to_string())?;
            let dealt = self.judge(&ended, &outcome)?;
            let savepoint =
                request.as_ref().and_then(|request| request.savepoint.clone()).filter(|_| ended.is_done);
            self.report.savepoints += u64::from(savepoint.is_some());
            let (stops, drains) = request.map_or((false, false), |request| (request.stops, request.drains));
            match outcome {
                Ok(()) if ended.is_done && stops => {
                    self.report.stops += 1;
                    self.report.drained += u64::from(drains);
                    self.rest(savepoint);
                }
                // It has come to its end, and its input may not have: the savepoint has failed behind that, or was asked for too late.
                Ok(()) if drains => self.rest(None),
                Ok(()) => return Ok(()),
                // Somebody has mended it; or what is damaged was read long after the start.
                Err(_) if dealt == Some(Dealt::Refused) || (!dies && self.damage.is_some()) => {
                    self.disk.end_process();
                    self.outside.recover_from_crash(&mut self.random);
                }
                Err(error) if !dies => return Err(format!("the job does not end: {error}")),
                Err(_) => {
                    self.kills_left -= 1;
                    self.report.deaths += 1;
                    self.crash();
                }
            }
        }
        Err("the job does not end, however often it is started".to_owned())
    }

    /// What a death leaves.
    fn crash(&mut self) {
        let random = &mut self.random;
        let what = if random.one_in(3) {
            self.disk.end_process();
            "the machine goes on: nothing that was written is lost"
        } else {
            self.disk.crash(random.next_u64());
            "the power is cut: what was not synced may be lost"
        };
        let is_lost = self.remote.is_some() && !self.outside.is_on_the_machine() && random.one_in(2);
        self.tell(what);
        if is_lost {
            self.report.machines_lost += 1;
            self.disk = MemoryDisk::default();
            self.damage = None;
            self.tell("the machine is lost, with its disk");
        }
        self.rot();
        self.outside.recover_from_crash(&mut self.random);
    }

    /// What a job leaves that was asked to stop; it may begin again with the savepoint behind which it did.
    fn rest(&mut self, savepoint: Option<PathBuf>) {
        self.disk.end_process();
        self.tell("the job was asked to stop, and has");
        // A remote store has checkpoints of the job, from which it goes on.
        if let Some(savepoint) = savepoint.filter(|_| self.remote.is_none() && self.random.one_in(2)) {
            self.tell(&format!("it is to begin with {}", savepoint.display()));
            self.report.begun_with_savepoint += 1;
            self.directory = PathBuf::from(format!("{DIRECTORY}-{}", self.report.begun_with_savepoint));
            self.savepoint = Some(savepoint);
            self.damage = None;
        }
        self.rot();
        self.outside.recover_from_crash(&mut self.random);
    }

    /// Damages the newest checkpoint now and then.
    fn rot(&mut self) {
        let is_allowed = self.has_damage
            && self.damage.is_none()
            // Behind a savepoint there may be nothing but that to go back to.
            && self.savepoint.is_none()
            && (self.remote.is_some() || self.outside.can_take_back());
        if is_allowed && !self.random.one_in(4) {
            let has_copy = self.remote.is_some();
            self.damage = Damage::draw(&self.disk, &self.directory, &self.rotten, has_copy, &mut self.random);
            if let Some(damage) = &self.damage {
                self.report.damaged += 1;
                let story = damage.story();
                self.tell(&story);
            }
        }
    }

    /// What a life did about a damaged checkpoint, if there was one.
    fn judge(&mut self, ended: &Ended, outcome: &Result<(), Error>) -> Result<Option<Dealt>, String> {
        let Some(damage) = &self.damage else { return Ok(None) };
        let dealt = damage.judge(ended.restored_from, outcome)?;
        match dealt {
            Dealt::WentBack(to) => {
                self.outside.take_back(to);
                self.report.went_back += 1;
                self.rotten.insert(damage.newest);
                self.damage = None;
            }
            Dealt::Refused => {
                damage.mend(&self.disk);
                self.report.refused += 1;
                self.damage = None;
                self.tell("the byte is as it was");
            }
            Dealt::BroughtBack => self.damage = None,
            Dealt::NotSeen | Dealt::Unknown => {}
        }
        Ok(Some(dealt))
    }

    fn tell(&mut self, what: &str) {
        self.trace += &format!("                    {what}\n");
    }

    /// Fails unless the newest checkpoint in the remote store is whole.
    fn check_remote(&self) -> Result<(), Error> {
        let Some(remote) = &self.remote else { return Ok(()) };
        remote.set_faults(MemoryFaults::default());
        let verified = archive::verify(remote, &SimPlatform::new(0))?;
        match verified.broken.first().filter(|(broken, _)| verified.whole.iter().all(|whole| whole < broken))
        {
            Some((checkpoint, what)) => Err(Error::config(
                format!("the newest checkpoint {checkpoint} in the remote store is not whole"),
                what.clone(),
                "find out who took it away".to_owned(),
            )),
            None => Ok(()),
        }
    }

    /// One life of the process.
    fn live(&mut self, platform: SimPlatform, mut asked: Option<Asked>) -> (Ended, Result<(), Error>) {
        let trace = platform.trace();
        let config = self.draw_config();
        let parallelism = config.parallelism;
        platform.note(&|| format!("a process begins with {parallelism} workers"));
        let environment = StreamEnvironment::on(Arc::new(platform), config);
        self.outside.describe(&environment);
        let started = environment.start();
        let has_begun = started.is_ok();
        let mut ended = Ended::default();
        match (&mut asked, &started) {
            (Some(asked), Ok(handle)) => asked.has_started(handle.monitor()),
            (Some(asked), Err(_)) => asked.has_not_started(),
            (None, _) => {}
        }
        let outcome = started.and_then(|handle| {
            let monitor = handle.monitor();
            let waited = handle.wait();
            let stats = monitor.metrics().checkpoints;
            self.report.checkpoints += stats.completed;
            self.report.checkpoints_failed += stats.failed;
            self.report.in_flight_bytes += stats.in_flight_bytes;
            self.report.restarts += stats.restarts;
            self.report.region_restarts += stats.region_restarts;
            self.report.recoveries += u64::from(stats.restored_from.is_some());
            ended.restored_from = stats.restored_from;
            waited.map(drop)
        });
        ended.is_done = asked.is_some_and(Asked::end);
        self.outside.life_is_over(has_begun);
        self.trace += &trace.to_string();
        if let Err(error) = &outcome {
            self.tell(&format!("the process ends: {error}"));
        }
        (ended, outcome)
    }
}
