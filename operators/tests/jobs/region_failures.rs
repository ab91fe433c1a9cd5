//! Jobs on this machine in which one part fails: it is started again alone, and the others go on undisturbed.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
        mpsc,
    },
};

use rkyv::Archived;
use tidemill_engine::{
    control::handle::JobHandle,
    model::{
        checkpoint_config::{CheckpointConfig, RestartStrategy},
        config::JobConfig,
        error::Error,
        item::Owned,
        metrics::JobMetrics,
        operator::Chain,
        source::BoxError,
        watermark::WatermarkStrategy,
    },
};
use tidemill_operators::{
    api::{environment::StreamEnvironment, stream::Stream},
    keyed::process::{KeyedProcessFunction, ProcessContext, StateRegistry, ValueState},
    sink::{CallbackSink, CollectSink, FileSink},
    source::{channel, from_parallel_iter, from_vec},
};

use super::recovery::Place;

const KEYS: u64 = 11;
/// Longer than any test: what waits for so long is never started again.
const FOR_EVER_MS: u64 = 3_600_000;

fn numbers(count: u64) -> Vec<u64> {
    (0..count).collect()
}

/// Each key with each of its counts.
fn counts(count: u64) -> Vec<(u64, u64)> {
    numbers(count).into_iter().map(|number| (number % KEYS, number / KEYS + 1)).collect()
}

/// Counts how often the operators of a region were opened, and keeps a count per key.
struct Counting {
    count: ValueState<u64>,
}

impl KeyedProcessFunction<u64, u64> for Counting {
    type Output = (u64, u64);

    fn on_record(
        &mut self,
        _number: &Archived<u64>,
        context: &mut ProcessContext<'_, u64, Self::Output>,
    ) -> Result<(), BoxError> {
        let count = context.update(
            self.count,
            || 0,
            |count| {
                *count += 1;
                *count
            },
        );
        let key = context.key();
        context.collect((key, count));
        Ok(())
    }
}

/// What is known from outside of a region.
#[derive(Clone, Default)]
struct Seen {
    opened: Arc<AtomicU64>,
    panics_left: Arc<AtomicU64>,
}

impl Seen {
    fn to_panic(times: u64) -> Self {
        Self { panics_left: Arc::new(AtomicU64::new(times)), ..Self::default() }
    }

    /// Panics, as long as it is to.
    fn look(&self, is_poison: bool) {
        let one_less = |left: u64| left.checked_sub(1);
        let strikes =
            || self.panics_left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_less).is_ok();
        assert!(!is_poison || !strikes(), "expected by the test");
    }

    fn opened(&self) -> u64 {
        self.opened.load(Ordering::Relaxed)
    }
}

/// A stream of numbers, in a region that is seen, counted by key.
fn counting<C>(
    numbers: Stream<C>,
    seen: &Seen,
    poison: u64,
) -> Stream<impl Chain<Out = Owned<(u64, u64)>> + use<C>>
where
    C: Chain<Out = Owned<u64>>,
{
    let (looking, opening) = (seen.clone(), Arc::clone(&seen.opened));
    numbers.inspect(move |number| looking.look(*number == poison)).key_by(|number| number % KEYS).process(
        move |states: &mut StateRegistry<u64>| {
            opening.fetch_add(1, Ordering::Relaxed);
            Counting { count: states.value("count") }
        },
    )
}

fn fixed(attempts_max: u32, delay_ms: u64) -> RestartStrategy {
    RestartStrategy::FixedDelay { attempts_max, delay_ms }
}

/// Waits until the job tells so.
fn until(job: &JobHandle, what: impl Fn(&JobMetrics) -> bool) -> JobMetrics {
    loop {
        let metrics = job.metrics();
        if what(&metrics) {
            return metrics;
        }
        std::thread::yield_now();
    }
}

/// Two regions that are fed from here, of which one waits for ever when it has failed.
#[test]
fn a_region_goes_on_while_another_one_is_down() {
    let place = Place::new();
    for kept in [true, false] {
        let mut config = JobConfig { restart: fixed(1, FOR_EVER_MS), ..place.config() };
        config.checkpoints = config.checkpoints.filter(|_| kept);
        let environment = StreamEnvironment::with_config(config);
        let (fails, goes_on) = (Seen::to_panic(u64::MAX), Seen::default());
        let (feed_failing, failing) = channel::<u64>(16);
        let (feed, fed) = channel::<u64>(16);
        let (tell, told) = mpsc::channel();
        let failing = environment.from_source("failing", failing, WatermarkStrategy::none());
        counting(failing, &fails, 13).name("failing counts").for_each(drop);
        let fed = environment.from_source("fed", fed, WatermarkStrategy::none());
        counting(fed, &goes_on, u64::MAX).sink(
            "answers",
            CallbackSink::new(move |answer: (u64, u64)| {
                let _ = tell.send(answer);
            }),
        );
        let job = environment.start().unwrap();
        feed.send(3).unwrap();
        assert_eq!(told.recv().unwrap(), (3, 1));
        feed_failing.send(13).unwrap();
        let metrics = until(&job, |metrics| metrics.checkpoints.region_restarts == 1);
        assert_eq!(metrics.checkpoints.restarts, 1);
        let operators = metrics.checkpoints.last_restart_operators;
        assert_eq!(operators, ["failing", "inspect", "key_by", "failing counts", "for_each"]);
        assert!(metrics.checkpoints.last_restart.unwrap().contains("expected by the test"));
        // Its state is there, and nothing of it was built again.
        feed.send(3).unwrap();
        assert_eq!(told.recv().unwrap(), (3, 2));
        assert_eq!((fails.opened(), goes_on.opened()), (2, 2));
        let metrics = job.metrics();
        assert!(metrics.operator("fed").is_some() && metrics.operator("failing counts").is_none());
        job.cancel();
        assert!(matches!(job.wait(), Err(Error::Cancelled)));
    }
}

/// Counts numbers in two regions, each of which commits to files; returns the rows of both.
fn run_twice(
    place: &Place,
    config: JobConfig,
    seen: [&Seen; 2],
    records: [u64; 2],
) -> Result<JobMetrics, Error> {
    let environment = StreamEnvironment::with_config(config);
    for (region, (seen, records)) in ["one", "other"].into_iter().zip(seen.into_iter().zip(records)) {
        let numbers = environment.from_source(region, from_vec(numbers(records)), WatermarkStrategy::none());
        counting(numbers, seen, records - 1)
            .uid(&format!("{region}-counts"))
            .sink(region, FileSink::csv(place.0.path().join(region)).header(false));
    }
    environment.execute()
}

/// Fails unless each count is in a region's files once.
fn check_rows(place: &Place, region: &str, records: u64) {
    let mut rows = super::recovery::rows(&place.0.path().join(region));
    rows.sort_unstable();
    let mut expected = counts(records);
    expected.sort_unstable();
    assert!(rows == expected, "{} rows instead of {}", rows.len(), expected.len());
}

#[test]
fn a_region_that_panics_is_started_again_alone_and_its_files_have_each_row_once() {
    for kept in [true, false] {
        let place = Place::new();
        let mut config = JobConfig { restart: fixed(3, 1), ..place.config() };
        config.checkpoints = config.checkpoints.filter(|_| kept);
        // Where state is that no checkpoint keeps: the same place for whoever is built anew.
        config.state_dir = Some(place.0.path().join("state")).filter(|_| !kept);
        let workers = config.parallelism as u64;
        let (fails, goes_on) = (Seen::to_panic(3), Seen::default());
        let metrics = run_twice(&place, config, [&fails, &goes_on], [20_000, 150_000]).unwrap();
        let stats = metrics.checkpoints;
        assert_eq!((stats.restarts, stats.region_restarts), (3, 3), "{:?}", stats.last_restart);
        assert_eq!((fails.opened(), goes_on.opened()), (4 * workers, workers));
        check_rows(&place, "one", 20_000);
        check_rows(&place, "other", 150_000);
    }
}

#[test]
fn two_regions_that_fail_at_once_are_both_started_again() {
    for kept in [true, false] {
        let place = Place::new();
        let mut config = JobConfig { restart: fixed(6, 1), ..place.config() };
        config.checkpoints = config.checkpoints.filter(|_| kept);
        let [one, other] = [Seen::to_panic(3), Seen::to_panic(3)];
        let metrics = run_twice(&place, config, [&one, &other], [50_000, 50_000]).unwrap();
        assert_eq!(metrics.checkpoints.region_restarts, 6);
        check_rows(&place, "one", 50_000);
        check_rows(&place, "other", 50_000);
    }
}

#[test]
fn a_region_that_has_read_its_input_is_not_read_again_when_another_one_fails() {
    for kept in [true, false] {
        let place = Place::new();
        let mut config = JobConfig { restart: fixed(2, 0), ..place.config() };
        config.checkpoints = config.checkpoints.filter(|_| kept);
        let environment = StreamEnvironment::with_config(config);
        let (fails, ends) = (Seen::to_panic(2), Seen::default());
        let (feed, fed) = channel::<u64>(16);
        let failing = environment.from_source("failing", fed, WatermarkStrategy::none());
        counting(failing, &fails, 13).for_each(drop);
        let (sink, results) = CollectSink::new();
        let ending = environment.from_source("ending", from_vec(numbers(100)), WatermarkStrategy::none());
        counting(ending, &ends, u64::MAX).name("ended counts").sink("results", sink);
        let job = environment.start().unwrap();
        let has_ended = |metrics: &JobMetrics| {
            metrics.operator("ended counts").is_some_and(|own| own.watermark == i64::MAX)
        };
        until(&job, has_ended);
        for restarts in 1..=2 {
            feed.send(13).unwrap();
            until(&job, |metrics| metrics.checkpoints.region_restarts == restarts);
        }
        feed.close();
        let metrics = job.wait().unwrap();
        assert_eq!((metrics.checkpoints.restarts, ends.opened()), (2, 2));
        let results: BTreeSet<(u64, u64)> = results.take().into_iter().collect();
        assert_eq!(results, counts(100).into_iter().collect());
        assert!(metrics.operator("ended counts").unwrap().counters.records_in == 100);
    }
}

#[test]
fn a_region_that_fails_too_often_fails_the_job_with_its_own_error() {
    let place = Place::new();
    let config = JobConfig { restart: fixed(2, 1), ..place.config() };
    let (fails, goes_on) = (Seen::to_panic(u64::MAX), Seen::default());
    let error = run_twice(&place, config, [&fails, &goes_on], [20_000, 4_000_000]).unwrap_err();
    assert!(matches!(&error, Error::Operator { operator, .. } if operator == "inspect"), "{error}");
    assert_eq!((fails.opened(), goes_on.opened()), (6, 2));
    // What is wrong with the region was mended: both go on.
    let sound = Seen::default();
    run_twice(&place, place.config(), [&sound, &sound], [20_000, 4_000_000]).unwrap();
    check_rows(&place, "one", 20_000);
}

#[test]
fn without_a_restart_strategy_a_region_takes_the_job_with_it() {
    let place = Place::new();
    let fails = Seen::to_panic(1);
    let error =
        run_twice(&place, place.config(), [&fails, &Seen::default()], [2_000, 4_000_000]).unwrap_err();
    assert!(matches!(&error, Error::Operator { operator, .. } if operator == "inspect"), "{error}");
    assert_eq!(fails.opened(), 2);
}

/// A savepoint is asked for while a region is down: it is taken when the region is up again.
#[test]
fn what_is_asked_of_a_job_with_a_region_that_is_down_waits_for_the_region() {
    let place = Place::new();
    let settings =
        CheckpointConfig { interval_ms: FOR_EVER_MS, ..CheckpointConfig::new(place.checkpoints()) };
    let config = JobConfig { restart: fixed(1, 20), checkpoints: Some(settings), ..place.config() };
    let environment = StreamEnvironment::with_config(config);
    let (fails, goes_on) = (Seen::to_panic(1), Seen::default());
    let (feed, fed) = channel::<u64>(16);
    let failing = environment.from_source("failing", fed, WatermarkStrategy::none());
    counting(failing, &fails, 13).for_each(drop);
    let endless = from_parallel_iter(|subtask, _| subtask as u64..);
    let endless = environment.from_source("endless", endless, WatermarkStrategy::none());
    counting(endless, &goes_on, u64::MAX).for_each(drop);
    let job = environment.start().unwrap();
    let is_up = AtomicBool::new(false);
    feed.send(13).unwrap();
    until(&job, |metrics| metrics.checkpoints.region_restarts == 1);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let asked = job.monitor().savepoint(place.0.path().join("savepoint")).unwrap();
            is_up.store(fails.opened() == 4, Ordering::Relaxed);
            assert!(asked.as_directory().unwrap().exists());
        });
    });
    assert!(is_up.load(Ordering::Relaxed), "the savepoint lacks a region");
    assert!(job.monitor().suspend().is_ok());
    assert_eq!(job.wait().unwrap().checkpoints.restarts, 1);
    assert_eq!(goes_on.opened(), 2);
}

/// A region fails before there is a checkpoint, when the remote store with the savepoint cannot be reached any more: what was fetched is
/// read again, and goes with the first checkpoint.
#[test]
fn a_region_goes_on_from_a_fetched_savepoint_until_there_is_a_checkpoint() {
    let place = Place::new();
    let remote = place.0.path().join("remote");
    fs::create_dir(&remote).unwrap();
    let url = format!("file://{}", remote.display());
    let settings =
        CheckpointConfig { interval_ms: FOR_EVER_MS, ..CheckpointConfig::new(place.checkpoints()) };
    let run = |settings: CheckpointConfig, seen: [&Seen; 2]| {
        let config = JobConfig { restart: fixed(1, 1), checkpoints: Some(settings), ..place.config() };
        let environment = StreamEnvironment::with_config(config);
        let (tell, told) = mpsc::channel();
        let feeds = [("one", seen[0]), ("other", seen[1])].map(|(region, seen)| {
            let (feed, fed) = channel::<u64>(16);
            let fed = environment.from_source(region, fed, WatermarkStrategy::none()).uid(region);
            let tell = tell.clone();
            let answer = CallbackSink::new(move |answer: (u64, u64)| {
                let _ = tell.send((region, answer));
            });
            counting(fed, seen, 13).uid(&format!("{region}-counts")).sink(region, answer);
            feed
        });
        (environment.start().unwrap(), feeds, told)
    };
    let sound = Seen::default();
    let (job, mut feeds, told) = run(settings.clone(), [&sound, &sound]);
    for (feed, region) in feeds.iter_mut().zip(["one", "other"]) {
        feed.send(3).unwrap();
        assert_eq!(told.recv().unwrap(), (region, (3, 1)));
    }
    job.monitor().stop_with_savepoint(&url, false).unwrap();
    job.wait().unwrap();
    fs::remove_dir_all(place.checkpoints()).unwrap();
    let fails = Seen::to_panic(1);
    let settings = CheckpointConfig { savepoint: Some(url.into()), ..settings };
    let (job, mut feeds, told) = run(settings, [&fails, &sound]);
    fs::rename(&remote, place.0.path().join("away")).unwrap();
    feeds[0].send(13).unwrap();
    until(&job, |metrics| metrics.checkpoints.region_restarts == 1);
    for (feed, region) in feeds.iter_mut().zip(["one", "other"]) {
        feed.send(3).unwrap();
        assert_eq!(told.recv().unwrap(), (region, (3, 2)), "as after the savepoint");
    }
    let fetched = place.checkpoints().join("fetched");
    assert!(fetched.exists());
    job.monitor().checkpoint().unwrap();
    assert!(!fetched.exists());
    job.cancel();
}

/// Changes one byte of a file, behind its first page if it has more.
fn damage(file: &Path) {
    let mut bytes = fs::read(file).unwrap();
    let at = if bytes.len() > 4_200 { 4_096 + 20 } else { bytes.len() / 2 };
    bytes[at] ^= 1;
    fs::write(file, bytes).unwrap();
}

fn newest_in(directory: PathBuf, is_it: impl Fn(&Path) -> bool) -> PathBuf {
    let files = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    files.filter(|path| is_it(path)).max().unwrap()
}

#[test]
fn a_region_whose_checkpoint_is_damaged_takes_the_job_back_to_the_one_before() {
    for in_manifest in [true, false] {
        let place = Place::new();
        let settings =
            CheckpointConfig { interval_ms: FOR_EVER_MS, ..CheckpointConfig::new(place.checkpoints()) };
        let config =
            JobConfig { parallelism: 1, restart: fixed(2, 1), checkpoints: Some(settings), ..place.config() };
        let environment = StreamEnvironment::with_config(config);
        let (fails, other) = (Seen::to_panic(1), Seen::default());
        let (tell, told) = mpsc::channel();
        let mut feeds = [("failing", &fails), ("other", &other)].map(|(region, seen)| {
            let (feed, fed) = channel::<u64>(16);
            let fed = environment.from_source(region, fed, WatermarkStrategy::none());
            let tell = tell.clone();
            counting(fed, seen, 13).uid(&format!("{region}-counts")).sink(
                region,
                CallbackSink::new(move |answer: (u64, u64)| {
                    let _ = tell.send((region, answer));
                }),
            );
            feed
        });
        let job = environment.start().unwrap();
        for count in 1..=2 {
            for (feed, region) in feeds.iter_mut().zip(["failing", "other"]) {
                feed.send(3).unwrap();
                assert_eq!(told.recv().unwrap(), (region, (3, count)));
            }
            job.monitor().checkpoint().unwrap();
        }
        damage(&if in_manifest {
            newest_in(place.checkpoints().join("checkpoints"), |_| true)
        } else {
            let is_segment = |path: &Path| path.extension().is_some_and(|extension| extension == "tms");
            newest_in(place.checkpoints().join("state/1/failing-counts/0"), is_segment)
        });
        feeds[0].send(13).unwrap();
        for (feed, region) in feeds.iter_mut().zip(["failing", "other"]) {
            feed.send(3).unwrap();
            assert_eq!(told.recv().unwrap(), (region, (3, 2)), "as after the first checkpoint");
        }
        let stats = job.metrics().checkpoints;
        assert_eq!((stats.restored_from, stats.region_restarts), (Some(1), 1));
        assert!(other.opened() > 1);
        job.cancel();
    }
}
