//! Jobs that are stopped: what they keep when that fails, and whom they answer.

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};

use tidemill_engine::{
    control::handle::JobHandle,
    model::{
        checkpoint_config::{CheckpointConfig, RestartStrategy},
        config::JobConfig,
        error::Error,
        watermark::WatermarkStrategy,
    },
    platform::{
        SimPlatform,
        remote::{MemoryStore, RemoteConfig},
    },
};
use tidemill_operators::{api::environment::StreamEnvironment, sink::FileSink, source::from_parallel_iter};
use tidemill_storage::snapshot::disk::{
    Disk,
    memory::{Faults, MemoryDisk},
};

use super::{checkpoint_settings::environment, pressure::ShutUntil, recovery::Place};

/// Longer than any simulation, by the clock of the job.
const FOR_EVER_MS: u64 = 1_000_000_000;
const DIRECTORY: &str = "/job";

/// Where a simulated job keeps its checkpoints: on a disk, and in a store.
#[derive(Default)]
struct World {
    disk: MemoryDisk,
    store: MemoryStore,
}

impl World {
    /// A job that counts for ever, takes no checkpoint by itself, and forgets all when it is cancelled.
    fn start(&self, seed: u64, restart: RestartStrategy) -> Result<JobHandle, Error> {
        let checkpoints = CheckpointConfig {
            interval_ms: FOR_EVER_MS,
            retain_on_cancel: false,
            remote: Some(RemoteConfig::new("s3://simulated/job")),
            ..CheckpointConfig::new(DIRECTORY)
        };
        let config = JobConfig {
            parallelism: 2,
            max_parallelism: Some(128),
            step_records_max: 2,
            restart,
            checkpoints: Some(checkpoints),
            ..JobConfig::default()
        };
        let platform = SimPlatform::new(seed).disk(Arc::new(self.disk.clone()));
        let platform = platform.remote(Arc::new(self.store.clone())).open_world().turn_ns_max(20_000);
        let environment = StreamEnvironment::on(Arc::new(platform), config);
        let numbers = from_parallel_iter(|subtask, parallelism| (subtask as u64..).step_by(parallelism));
        environment
            .from_source("numbers", numbers, WatermarkStrategy::none())
            .uid("numbers")
            .key_by(|number| number % 7)
            .fold(0_u64, |count: &mut u64, _| *count += 1)
            .uid("counts")
            .for_each(drop);
        environment.start()
    }

    /// Nothing more fits on the disk.
    fn fill_disk(&self) {
        self.disk.set_faults(Faults { capacity_bytes: Some(0), ..Faults::default() });
    }

    fn mend_disk(&self) {
        self.disk.set_faults(Faults::default());
    }

    /// Numbers of checkpoints in the job's directory.
    fn checkpoints(&self) -> Vec<u64> {
        let manifests = self.disk.list(&Path::new(DIRECTORY).join("checkpoints")).unwrap();
        manifests.iter().filter_map(|file| file.file_name()?.to_str()?.parse().ok()).collect()
    }

    /// Whether the store holds what a checkpoint needs.
    fn store_has_blocks(&self) -> bool {
        self.store.keys().iter().any(|key| key.starts_with("blocks/"))
    }

    /// A job that is started again goes on from this checkpoint.
    fn goes_on_from(&self, checkpoint: Option<u64>) {
        let job = self.start(1, RestartStrategy::None).unwrap();
        assert_eq!(job.metrics().checkpoints.restored_from, checkpoint);
        job.monitor().stop().unwrap();
        job.wait().unwrap();
    }
}

#[test]
fn a_stop_on_a_full_disk_fails_with_that_and_destroys_nothing() {
    let restarts =
        [RestartStrategy::None, RestartStrategy::FixedDelay { attempts_max: u32::MAX, delay_ms: 1 }];
    for (seed, restart) in (0..).zip(restarts) {
        let world = World::default();
        let job = world.start(seed, restart).unwrap();
        job.monitor().checkpoint().unwrap();
        world.fill_disk();
        let told = job.monitor().stop().unwrap_err().to_string();
        let ended = job.wait().unwrap_err().to_string();
        assert!(
            told.contains("the last checkpoint of the job failed: ") && told.contains("no storage space"),
            "{told}"
        );
        assert_eq!(told, ended, "the job ends with what has failed");
        assert_eq!(world.checkpoints(), [1]);
        assert!(world.store_has_blocks());
        world.mend_disk();
        world.goes_on_from(Some(1));
    }
}

#[test]
fn a_suspension_on_a_full_disk_fails_and_a_job_that_is_started_again_is_suspended_later() {
    let world = World::default();
    let restart = RestartStrategy::FixedDelay { attempts_max: u32::MAX, delay_ms: 1 };
    let job = world.start(1, restart).unwrap();
    job.monitor().checkpoint().unwrap();
    world.fill_disk();
    let told = job.monitor().suspend().unwrap_err().to_string();
    assert!(told.contains("the last checkpoint of the job failed: "), "{told}");
    world.mend_disk();
    job.monitor().checkpoint().unwrap();
    job.monitor().suspend().unwrap();
    assert!(job.wait().unwrap().checkpoints.restarts >= 1);
    world.goes_on_from(world.checkpoints().last().copied());
}

#[test]
fn a_dropped_handle_leaves_the_checkpoints_that_a_cancellation_takes_away() {
    for is_cancelled in [false, true] {
        let world = World::default();
        let job = world.start(1, RestartStrategy::None).unwrap();
        job.monitor().checkpoint().unwrap();
        if is_cancelled {
            job.cancel();
        }
        drop(job);
        assert_eq!((world.checkpoints().is_empty(), world.store_has_blocks()), (is_cancelled, !is_cancelled));
        world.goes_on_from((!is_cancelled).then_some(1));
    }
}

#[test]
fn a_job_that_was_cancelled_is_not_stopped_in_another_way() {
    let world = World::default();
    let job = world.start(1, RestartStrategy::None).unwrap();
    job.monitor().checkpoint().unwrap();
    job.cancel();
    drop(job.monitor().stop());
    assert!(matches!(job.wait(), Err(Error::Cancelled)));
    assert!(world.checkpoints().is_empty());
}

#[test]
fn whoever_stops_a_job_that_is_being_stopped_waits_for_that() {
    for seed in 0..20 {
        let world = World::default();
        let job = world.start(seed, RestartStrategy::None).unwrap();
        job.monitor().checkpoint().unwrap();
        let monitors = [job.monitor(), job.monitor(), job.monitor()];
        let stops = monitors.map(|monitor| thread::spawn(move || monitor.stop()));
        stops.into_iter().for_each(|stop| stop.join().unwrap().unwrap());
        job.wait().unwrap();
        assert_eq!(world.checkpoints(), [1, 2]);
    }
}

/// A job on this machine that commits counts to files, and if it is to have two regions, another one that does nothing. `poison` has a region
/// panic, that one or the first.
fn with_regions(place: &Place, are_two: bool, interval_ms: u64, poison: &[Arc<AtomicBool>; 2]) -> JobHandle {
    let mut config = place.config();
    // As good as for ever.
    config.restart = RestartStrategy::FixedDelay { attempts_max: u32::MAX, delay_ms: 3_600_000 };
    config.checkpoints.as_mut().unwrap().interval_ms = interval_ms;
    let environment = StreamEnvironment::with_config(config);
    let look = |poison: &Arc<AtomicBool>| {
        let poison = Arc::clone(poison);
        move || assert!(!poison.load(Ordering::Relaxed), "expected by the test")
    };
    let numbers = || from_parallel_iter(|subtask, parallelism| (subtask as u64..).step_by(parallelism));
    let [first, second] = [look(&poison[0]), look(&poison[1])];
    if are_two {
        let others = environment.from_source("others", numbers(), WatermarkStrategy::none()).uid("others");
        others.inspect(move |_| first()).for_each(drop);
    }
    environment
        .from_source("numbers", numbers(), WatermarkStrategy::none())
        .uid("numbers")
        .inspect(move |_| second())
        .key_by(|number| number % 7)
        .fold(0_u64, |count: &mut u64, _| *count += 1)
        .uid("counts")
        .sink("rows", FileSink::csv(place.0.path().join("rows")).header(false));
    environment.start().unwrap()
}

#[test]
fn a_job_or_a_region_that_waits_to_be_started_again_is_stopped_at_once_and_goes_on_from_its_newest_checkpoint()
 {
    // A region, the other one, both; a whole job; and jobs that have no checkpoint yet.
    for (are_two, poisoned, has_checkpoint) in [
        (true, vec![0], true),
        (true, vec![1], true),
        (true, vec![0, 1], true),
        (false, vec![1], true),
        (true, vec![1], false),
        (false, vec![1], false),
    ] {
        let place = Place::new();
        let poison = [Arc::default(), Arc::default()];
        let job = with_regions(&place, are_two, 3_600_000, &poison);
        if has_checkpoint {
            job.monitor().checkpoint().unwrap();
        }
        let newest = if has_checkpoint {
            place.checkpoints().join("checkpoints/00000000000000000001")
        } else {
            place.checkpoints()
        };
        for at in poisoned {
            poison[at].store(true, Ordering::Relaxed);
        }
        while job.metrics().checkpoints.restarts == 0 {}
        assert_eq!(job.monitor().suspend().unwrap(), newest);
        job.wait().unwrap();
        poison.iter().for_each(|poison| poison.store(false, Ordering::Relaxed));
        let job = with_regions(&place, are_two, 5, &poison);
        assert_eq!(job.metrics().checkpoints.restored_from, has_checkpoint.then_some(1));
        job.monitor().checkpoint().unwrap();
        job.monitor().stop().unwrap();
        job.wait().unwrap();
        place.check_endless();
    }
}

#[test]
fn a_stop_behind_a_sink_that_takes_nothing_is_over_when_its_time_is_up() {
    let disk = MemoryDisk::default();
    let checkpoints = CheckpointConfig {
        interval_ms: FOR_EVER_MS,
        timeout_ms: 50,
        unaligned_after_ms: Some(0),
        retain_on_cancel: false,
        ..CheckpointConfig::new(DIRECTORY)
    };
    let environment = environment(&disk, 1, checkpoints);
    let numbers = from_parallel_iter(|subtask, parallelism| (subtask as u64..).step_by(parallelism));
    environment
        .from_source("numbers", numbers, WatermarkStrategy::none())
        .rebalance()
        .map(|number| number.to_native())
        .sink("shut", ShutUntil { opens_at: u64::MAX, taken: Arc::default() });
    let job = environment.start().unwrap();
    // This one overtakes what waits for the sink.
    job.monitor().checkpoint().unwrap();
    let told = job.monitor().stop().unwrap_err().to_string();
    assert!(told.contains("had not passed its barrier after 50 ms"), "{told}");
    assert_eq!(told, job.wait().unwrap_err().to_string());
    assert_eq!(disk.list(&Path::new(DIRECTORY).join("checkpoints")).unwrap().len(), 1);
}
