//! The lives of one simulated process: each begins with what the one before has left on the disk.

use std::{path::Path, sync::Arc};

use tidemill_engine::{
    control::archive,
    model::{
        checkpoint_config::{CheckpointConfig, RestartStrategy},
        config::JobConfig,
        error::Error,
    },
    platform::{
        Platform, Random, SimFaults, SimPlatform,
        remote::{MemoryFaults, MemoryStore, RemoteConfig},
    },
};
use tidemill_storage::snapshot::disk::memory::{Faults, MemoryDisk};

use super::{Simulation, outside::Outside};
use crate::api::environment::StreamEnvironment;

/// Where a simulated job keeps its checkpoints.
const DIRECTORY: &str = "/checkpoints";
/// Number of key groups: more than any number of workers.
const MAX_PARALLELISM: u32 = 32;
/// A seed is given up after so many lives.
const LIVES_MAX: u64 = 32;

/// How long a job takes if nothing goes wrong.
#[derive(Clone, Copy)]
pub(super) struct Calm {
    turns: u64,
    disk_operations: u64,
    disk_bytes: u64,
    remote_operations: u64,
}

/// The lives of the process under one seed.
pub(super) struct Lives<O> {
    /// What the job writes to.
    pub(super) outside: O,
    seed: u64,
    random: Random,
    kills_left: u64,
    parallelism_max: usize,
    operator_failures_max: u64,
    disk: MemoryDisk,
    /// Outlives the machine.
    remote: Option<MemoryStore>,
    /// Whether checkpoints have little time to get there in this life.
    is_hasty: bool,
    trace: String,
    pub(super) deaths: u64,
    pub(super) recoveries: u64,
    pub(super) restarts: u64,
    pub(super) region_restarts: u64,
    pub(super) checkpoints: u64,
    pub(super) in_flight_bytes: u64,
    pub(super) machines_lost: u64,
}

impl<O: Outside> Lives<O> {
    pub(super) fn new(simulation: &Simulation, seed: u64, disk: MemoryDisk, outside: O) -> Self {
        let mut random = Random::from_seed(seed);
        let kills_left = random.below(simulation.kills_max + 1);
        Self {
            outside,
            seed,
            random,
            kills_left,
            parallelism_max: simulation.parallelism_max,
            operator_failures_max: simulation.operator_failures_max,
            disk,
            remote: simulation.remote.then(MemoryStore::default),
            is_hasty: false,
            trace: String::new(),
            deaths: 0,
            recoveries: 0,
            restarts: 0,
            region_restarts: 0,
            checkpoints: 0,
            in_flight_bytes: 0,
            machines_lost: 0,
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
        let platform = self.platform(self.seed);
        let turns = platform.clone();
        // What is wrong with the job itself shows again, with its seed.
        let _outcome = self.live(platform);
        let remote_operations = self.remote.as_ref().map_or(0, MemoryStore::operations);
        Calm {
            turns: turns.turns().max(16),
            disk_operations: self.disk.operations().max(16),
            disk_bytes: self.disk.used_bytes().max(16),
            remote_operations: remote_operations.max(16),
        }
    }

    fn platform(&self, seed: u64) -> SimPlatform {
        let mut platform = SimPlatform::new(seed).disk(Arc::new(self.disk.clone()));
        if let Some(onlooker) = self.outside.onlooker() {
            platform = platform.onlooker(onlooker);
        }
        match &self.remote {
            Some(remote) => platform.remote(Arc::new(remote.clone())),
            None => platform,
        }
    }

    /// Lives until the job has come to its end.
    ///
    /// # Errors
    /// When it does not come to its end though nothing goes wrong any more.
    pub(super) fn run(&mut self, calm: Calm) -> Result<(), Error> {
        for life in 0..LIVES_MAX {
            let is_last_try = life + 1 == LIVES_MAX;
            let dies = self.kills_left > 0 && !is_last_try;
            self.is_hasty = dies && self.remote.is_some() && self.random.one_in(2);
            let mut faults = if dies { self.draw_faults(calm) } else { SimFaults::default() };
            self.draw_remote_faults(dies.then_some(&mut faults), calm);
            self.draw_operator_failures(&mut faults, calm);
            let seed = self.seed.wrapping_mul(1_000).wrapping_add(life);
            let turn_ns_max = [1_000, 20_000, 200_000][self.random.below(3) as usize];
            let platform = self.platform(seed).faults(faults).turn_ns_max(turn_ns_max);
            let ended = self.live(platform);
            self.check_remote()?;
            match ended {
                Ok(()) => return Ok(()),
                Err(error) if !dies => return Err(error),
                Err(_) => {
                    self.kills_left -= 1;
                    self.deaths += 1;
                    self.crash();
                }
            }
        }
        Err(Error::Over)
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
        self.trace += &format!("                    {what}\n");
        if self.remote.is_some() && !self.outside.is_on_the_machine() && random.one_in(2) {
            self.machines_lost += 1;
            self.disk = MemoryDisk::default();
            self.trace += "                    the machine is lost, with its disk\n";
        }
        self.outside.recover_from_crash(random);
    }

    /// Something for a life to die of.
    fn draw_faults(&mut self, calm: Calm) -> SimFaults {
        let random = &mut self.random;
        // Some of the deaths are early: while the process recovers, or before it has done anything.
        let spread = |random: &mut Random, most: u64| {
            let most = most + most / 4;
            let most = if random.one_in(3) { (most >> random.below(8)).max(1) } else { most };
            random.below(most)
        };
        let (disk, cut_off) = (self.disk.clone(), self.outside.when_killed());
        let mut faults = SimFaults {
            on_kill: Some(Arc::new(move || {
                cut_off();
                disk.set_faults(Faults { dead_from: Some(0), ..Faults::default() });
            })),
            ..SimFaults::default()
        };
        if random.one_in(4) {
            let (turn, worker) = (spread(random, calm.turns), random.below(5) as usize);
            faults.lose_worker_at_turn = Some((turn, worker));
        }
        if random.one_in(4) {
            let millis = random.below(7_200_000) as i64 - 3_600_000;
            faults.jump_at_turn = Some((spread(random, calm.turns), millis));
        }
        match random.below(5) {
            0 => {
                let at = spread(random, calm.disk_operations);
                self.disk.set_faults(Faults { dead_from: Some(at), ..Faults::default() });
            }
            1 => {
                let at = spread(random, calm.disk_operations);
                self.disk.set_faults(Faults { fail_at: Some(at), ..Faults::default() });
                faults.kill_at_turn = Some(spread(random, calm.turns));
            }
            2 => {
                let full_at = self.disk.used_bytes() + spread(random, calm.disk_bytes);
                self.disk.set_faults(Faults { capacity_bytes: Some(full_at), ..Faults::default() });
                faults.kill_at_turn = Some(spread(random, calm.turns));
            }
            _ => faults.kill_at_turn = Some(spread(random, calm.turns)),
        }
        faults
    }

    /// Operators that fail in a life, also in one that is to come to its end.
    fn draw_operator_failures(&mut self, faults: &mut SimFaults, calm: Calm) {
        let random = &mut self.random;
        if self.operator_failures_max == 0 {
            return;
        }
        let mut turn = random.below(calm.turns) >> random.below(3);
        for _ in 0..random.below(self.operator_failures_max + 1) {
            faults.fail_steps.push((turn, random.below(12)));
            // Some soon after another: while what has failed is being started again.
            turn += if random.one_in(2) { random.below(64) } else { random.below(calm.turns) };
        }
    }

    /// How the remote store behaves in a life; `deadly` are the faults of one that ends early.
    fn draw_remote_faults(&mut self, deadly: Option<&mut SimFaults>, calm: Calm) {
        let Some(remote) = &self.remote else { return };
        let random = &mut self.random;
        // A process that is to come to its end has requests fail that a few more tries mend.
        let fail_one_in = if deadly.is_some() { [0, 40, 10] } else { [0, 400, 200] };
        let mut store_faults = MemoryFaults {
            fail_one_in: fail_one_in[random.below(3) as usize],
            took_ns_max: [1, 100_000, 3_000_000][random.below(3) as usize],
            seed: random.next_u64(),
            ..MemoryFaults::default()
        };
        if let Some(faults) = deadly {
            if random.one_in(3) {
                store_faults.dead_from = Some(random.below(calm.remote_operations));
            }
            // Nothing of a process that was killed gets there, but what was on its way.
            let (store, before) = (remote.clone(), faults.on_kill.take());
            faults.on_kill = Some(Arc::new(move || {
                store.set_faults(MemoryFaults { dead_from: Some(0), ..MemoryFaults::default() });
                before.iter().for_each(|before| before());
            }));
        }
        remote.set_faults(store_faults);
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
    fn live(&mut self, platform: SimPlatform) -> Result<(), Error> {
        let trace = platform.trace();
        let config = self.draw_config();
        let parallelism = config.parallelism;
        platform.note(&|| format!("a process begins with {parallelism} workers"));
        let environment = StreamEnvironment::on(Arc::new(platform), config);
        self.outside.describe(&environment);
        let started = environment.start();
        let has_begun = started.is_ok();
        let outcome = started.and_then(|handle| {
            let monitor = handle.monitor();
            let waited = handle.wait();
            let stats = monitor.metrics().checkpoints;
            self.checkpoints += stats.completed;
            self.in_flight_bytes += stats.in_flight_bytes;
            self.restarts += stats.restarts;
            self.region_restarts += stats.region_restarts;
            self.recoveries += u64::from(stats.restored_from.is_some());
            waited.map(drop)
        });
        self.outside.life_is_over(has_begun);
        self.trace += &trace.to_string();
        if let Err(error) = &outcome {
            self.trace += &format!("                    the process ends: {error}\n");
        }
        outcome
    }

    fn draw_config(&mut self) -> JobConfig {
        let is_hasty = self.is_hasty;
        let random = &mut self.random;
        let of =
            |random: &mut Random, choices: &[usize]| choices[random.below(choices.len() as u64) as usize];
        let unaligned_after_ms = [None, None, Some(0), Some(1)][random.below(4) as usize];
        let delay_ms = if self.operator_failures_max == 0 { 1 } else { random.below(4) };
        let timeout_ms = if is_hasty { 2 + random.below(10) } else { 600_000 };
        let checkpoints = CheckpointConfig {
            timeout_ms,
            interval_ms: 1 + random.below(3),
            unaligned_after_ms,
            concurrent_max: if unaligned_after_ms.is_some() { 1 } else { of(random, &[1, 1, 2, 3]) },
            retained_max: of(random, &[1, 2, 3]),
            failures_max: of(random, &[0, 1, 10]) as u32,
            remote: self.remote.as_ref().map(|_| RemoteConfig::new("s3://simulated/job")),
            ..CheckpointConfig::new(Path::new(DIRECTORY))
        };
        JobConfig {
            name: "simulated".to_owned(),
            parallelism: 1 + random.below(self.parallelism_max as u64) as usize,
            max_parallelism: Some(MAX_PARALLELISM),
            batch_records_max: of(random, &[1, 2, 7, 64, 1024]),
            channel_batches_max: of(random, &[1, 2, 8]),
            step_records_max: of(random, &[1, 3, 64, 4096]),
            linger_us_max: of(random, &[0, 100]) as u64,
            watermark_interval_us: of(random, &[0, 500]) as u64,
            checkpoints: Some(checkpoints),
            restart: RestartStrategy::FixedDelay {
                attempts_max: 2 + self.operator_failures_max as u32,
                delay_ms,
            },
            ..JobConfig::default()
        }
    }
}
