//! Jobs that are stopped: what they keep when that fails, and whom they answer.

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};

use rkyv::Archived;
use tidemill_engine::{
    control::handle::{JobHandle, JobMonitor},
    model::{
        checkpoint_config::{CheckpointConfig, RestartStrategy},
        config::JobConfig,
        error::Error,
        source::BoxError,
        watermark::WatermarkStrategy,
    },
    platform::{
        Platform, SimPlatform,
        remote::{MemoryStore, RemoteConfig},
    },
};
use tidemill_operators::{
    api::environment::StreamEnvironment,
    keyed::process::{KeyedProcessFunction, ProcessContext, StateRegistry, ValueState},
    sink::FileSink,
    source::from_parallel_iter,
};
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
        // A savepoint would have to wait for an hour.
        let told = job.monitor().stop_with_savepoint(place.0.path().join("savepoint"), false).unwrap_err();
        let told = told.to_string();
        assert!(told.contains("operators are down") && told.contains("started again in 35"), "{told}");
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

/// Makes the operators of one region fail when they are opened, as long as it is set.
type Poison = Arc<AtomicBool>;

/// A simulated job on this clock, of two regions of which one can be poisoned, whose checkpoints have a tenth of a second.
fn with_poison(platform: SimPlatform, poison: &Poison, delay_ms: u64) -> JobHandle {
    let checkpoints = CheckpointConfig {
        interval_ms: FOR_EVER_MS,
        timeout_ms: TIMEOUT_MS,
        failures_max: u32::MAX,
        ..CheckpointConfig::new(DIRECTORY)
    };
    let config = JobConfig {
        parallelism: 2,
        max_parallelism: Some(128),
        step_records_max: 2,
        restart: RestartStrategy::FixedDelay { attempts_max: u32::MAX, delay_ms },
        checkpoints: Some(checkpoints),
        ..JobConfig::default()
    };
    let environment = StreamEnvironment::on(Arc::new(platform), config);
    let numbers = || from_parallel_iter(|subtask, parallelism| (subtask as u64..).step_by(parallelism));
    environment.from_source("others", numbers(), WatermarkStrategy::none()).uid("others").for_each(drop);
    let (poisoned, poison) = (Arc::clone(poison), Arc::clone(poison));
    environment
        .from_source("numbers", numbers(), WatermarkStrategy::none())
        .uid("numbers")
        .inspect(move |_| assert!(!poisoned.load(Ordering::Relaxed), "expected by the test"))
        .key_by(|number| number % 7)
        .process(move |states: &mut StateRegistry<u64>| {
            assert!(!poison.load(Ordering::Relaxed), "expected by the test");
            Last(states.value("last"))
        })
        .uid("counts")
        .for_each(drop);
    environment.start().unwrap()
}

const TIMEOUT_MS: u64 = 100;
const NANOS_PER_MILLI: u64 = 1_000_000;

/// Keeps the last number of each key.
struct Last(ValueState<u64>);

impl KeyedProcessFunction<u64, u64> for Last {
    type Output = u64;

    fn on_record(
        &mut self,
        number: &Archived<u64>,
        context: &mut ProcessContext<'_, u64, u64>,
    ) -> Result<(), BoxError> {
        context.set(self.0, number.to_native());
        Ok(())
    }
}

/// All that may be asked of a job but to stop it and nothing else: for a checkpoint, a savepoint, to stop behind one, to drain.
fn ask(monitor: &JobMonitor, what: usize, savepoint: &str) -> Result<(), Error> {
    match what {
        0 => monitor.checkpoint().map(drop),
        1 => monitor.savepoint(savepoint).map(drop),
        _ => monitor.stop_with_savepoint(savepoint, what == 3).map(drop),
    }
}

#[test]
fn what_is_asked_of_a_job_while_a_region_is_down_is_done_when_it_is_up_or_refused_in_time() {
    // One that is never started again, one that never comes up, one that comes up in time.
    for (delay_ms, is_mended) in [(FOR_EVER_MS, false), (30, false), (30, true)] {
        for what in 0..4 {
            let disk = MemoryDisk::default();
            let platform = SimPlatform::new(what as u64).disk(Arc::new(disk.clone())).open_world();
            let platform = platform.turn_ns_max(20_000);
            let clock = platform.clock();
            let poison = Poison::default();
            let job = with_poison(platform, &poison, delay_ms);
            job.monitor().checkpoint().unwrap();
            poison.store(true, Ordering::Relaxed);
            while job.metrics().checkpoints.restarts == 0 {}
            let case = format!("delay {delay_ms} ms, request {what}, mended: {is_mended}");
            poison.store(!is_mended, Ordering::Relaxed);
            let asked_at = clock.now();
            let answer = ask(&job.monitor(), what, "/savepoint");
            let waited_ms = (clock.now() - asked_at) / NANOS_PER_MILLI;
            if is_mended {
                answer.unwrap_or_else(|error| panic!("{case}: {error}"));
            } else {
                let told = answer.unwrap_err().to_string();
                let parts = ["operators are down", "counts", "expected by the test", "started again", "stop"];
                assert!(parts.iter().all(|part| told.contains(part)), "{case}: {told}");
                // A barrier behind which the others say nothing more takes them down, too.
                assert!(!told.contains("others") || (delay_ms == 30 && what >= 2), "{case}: {told}");
                assert!(disk.list("/savepoint".as_ref()).unwrap_or_default().is_empty());
            }
            // The answer is heard a little later than it is given.
            assert!(waited_ms < 2 * TIMEOUT_MS, "{case}: after {waited_ms} ms");
            // What was asked for is over: a plain stop is one.
            if !(is_mended && what >= 2) {
                job.monitor().suspend().unwrap_or_else(|error| panic!("{case}: {error}"));
            }
            job.wait().unwrap_or_else(|error| panic!("{case}: {error}"));
        }
    }
}
