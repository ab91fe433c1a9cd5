//! What a life of a simulated process is like, and what goes wrong in it: drawn from the seed.

use std::sync::Arc;

use tidemill_engine::{
    model::{
        checkpoint_config::{CheckpointConfig, RestartStrategy},
        config::JobConfig,
    },
    platform::{
        Random, SimFaults,
        remote::{MemoryFaults, RemoteConfig},
    },
};
use tidemill_storage::snapshot::disk::memory::Faults;

use super::{
    life::{Calm, Lives},
    outside::Outside,
    request::Request,
};

/// Number of key groups: more than any number of workers.
const MAX_PARALLELISM: u32 = 32;
/// Of so many reads of a life one fails, at most.
const READS: u64 = 64;
/// How long a core stands still: up to two seconds.
const STALL_NS_MAX: u64 = 1 << 31;

/// When something happens. Some of it is early: while the process recovers, or before it has done anything.
fn spread(random: &mut Random, most: u64) -> u64 {
    let most = most + most / 4;
    let most = if random.one_in(3) { (most >> random.below(8)).max(1) } else { most };
    random.below(most)
}

impl<O: Outside> Lives<O> {
    /// Something for a life to die of.
    pub(super) fn draw_faults(&mut self, calm: Calm) -> SimFaults {
        let random = &mut self.random;
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
        match random.below(6) {
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
            3 => {
                // A life that begins with a checkpoint reads it.
                let at = random.below(READS);
                self.disk.set_faults(Faults { fail_read_at: Some(at), ..Faults::default() });
                faults.kill_at_turn = Some(spread(random, calm.turns));
            }
            _ => faults.kill_at_turn = Some(spread(random, calm.turns)),
        }
        faults
    }

    /// Operators that fail in a life, also in one that is to come to its end.
    pub(super) fn draw_operator_failures(&mut self, faults: &mut SimFaults, calm: Calm) {
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
    pub(super) fn draw_remote_faults(&mut self, deadly: Option<&mut SimFaults>, calm: Calm) {
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

    /// A core that stands still for a while, also in a life that is to come to its end.
    pub(super) fn draw_stall(&mut self, faults: &mut SimFaults, calm: Calm) {
        let random = &mut self.random;
        if random.one_in(3) {
            let (turn, worker) = (spread(random, calm.turns), random.below(5) as usize);
            let nanos_max = STALL_NS_MAX >> random.below(12);
            faults.stall_at_turn = Some((turn, worker, random.below(nanos_max)));
        }
    }

    /// What somebody asks of the job in a life: half of it is to stop.
    pub(super) fn draw_request(&mut self, calm: Calm) -> Option<Request> {
        let random = &mut self.random;
        let asks = self.requests_left > 0 && random.one_in(2);
        if !asks {
            return None;
        }
        self.requests_left -= 1;
        let turn = spread(random, calm.turns);
        let (stops, saves) =
            [(true, false), (true, true), (true, true), (false, true)][random.below(4) as usize];
        let savepoint = saves.then(|| format!("/savepoints/{}", self.requests_left).into());
        let drains = self.drains && stops && saves && random.one_in(2);
        Some(Request { turn, savepoint, stops, drains })
    }

    pub(super) fn draw_config(&mut self) -> JobConfig {
        let is_hasty = self.is_hasty;
        // With a damaged checkpoint, what an attempt goes on from is what the life goes on from.
        let is_restarted = self.damage.is_none();
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
            savepoint: self.savepoint.as_ref().map(Into::into),
            ..CheckpointConfig::new(self.directory.clone())
        };
        let restart =
            RestartStrategy::FixedDelay { attempts_max: 2 + self.operator_failures_max as u32, delay_ms };
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
            restart: if is_restarted { restart } else { RestartStrategy::None },
            ..JobConfig::default()
        }
    }
}
