//! State as a job's settings choose it: every kind on every backend, over its memory's bound, and what becomes of faults.

use std::{collections::BTreeMap, sync::Arc};

use rkyv::Archived;
use tidemill_engine::{
    model::{
        checkpoint_config::CheckpointConfig,
        config::{JobConfig, StateBackendKind},
        error::Error,
        source::BoxError,
        watermark::WatermarkStrategy,
    },
    platform::SimPlatform,
};
use tidemill_operators::{
    api::environment::StreamEnvironment,
    keyed::process::{
        AggregatingState, KeyedProcessFunction, ListState, MapState, Process, ProcessContext, ReducingState,
        StateRegistry, ValueState,
    },
    testkit::{
        job::{Setting, on_all_backends, run, same_everywhere},
        operator::{Given, OperatorTest, Seen},
        record::RecordSink,
        script::ScriptSource,
    },
};
use tidemill_storage::{
    kinds::{
        aggregating::Aggregate,
        descriptor::{ListStateDescriptor, MapStateDescriptor, ValueStateDescriptor},
        ttl::TtlConfig,
    },
    snapshot::disk::memory::MemoryDisk,
    state::{StateError, fault},
};

use crate::records::{Trade, splits_by_account, trades};

/// Keeps the amounts of an account and their sums by sign, and forgets both after each third trade of the account.
struct Ledger {
    amounts: ListState<i64>,
    sums: MapState<bool, i64>,
    trades: ValueState<u64>,
}

impl Ledger {
    fn open(states: &mut StateRegistry<u32>) -> Self {
        Self { amounts: states.list("amounts"), sums: states.map("sums"), trades: states.value("trades") }
    }
}

type Page = (u32, Vec<i64>, Vec<(bool, i64)>);

impl KeyedProcessFunction<u32, Trade> for Ledger {
    type Output = Page;

    fn on_record(
        &mut self,
        trade: &Archived<Trade>,
        context: &mut ProcessContext<'_, u32, Page>,
    ) -> Result<(), BoxError> {
        let amount = trade.amount.to_native();
        context.list(self.amounts).add(amount);
        context.map(self.sums).update(&(amount > 0), || 0, |sum| *sum += amount);
        let amounts = context.list(self.amounts).get();
        let mut sums = Vec::new();
        context.map(self.sums).for_each(|is_gain, sum| sums.push((is_gain, sum.to_native())));
        sums.sort_unstable();
        let account = context.key();
        context.collect((account, amounts, sums));
        let count = context.read(self.trades, |count| count.to_native()).unwrap_or_default() + 1;
        context.set(self.trades, count);
        if count.is_multiple_of(3) {
            assert!(context.list(self.amounts).clear());
            assert!(context.map(self.sums).clear());
            assert!(context.clear(self.trades));
        }
        Ok(())
    }
}

#[test]
fn lists_and_maps_per_key() {
    let mut ledgers: BTreeMap<u32, Vec<i64>> = BTreeMap::new();
    let expected: Vec<Page> = trades(150)
        .into_iter()
        .map(|trade| {
            let amounts = ledgers.entry(trade.account).or_default();
            if amounts.len() == 3 {
                amounts.clear();
            }
            amounts.push(trade.amount);
            let mut sums: BTreeMap<bool, i64> = BTreeMap::new();
            amounts.iter().for_each(|amount| *sums.entry(*amount > 0).or_default() += amount);
            (trade.account, amounts.clone(), sums.into_iter().collect())
        })
        .collect();
    same_everywhere(expected, |environment, results| {
        environment
            .from_source(
                "trades",
                ScriptSource::new(splits_by_account(&trades(150), 5)),
                WatermarkStrategy::none(),
            )
            .key_by(|trade| trade.account)
            .process(Ledger::open)
            .sink("results", results);
    });
}

/// Sums of amounts, by a reducing and by an aggregating state; both forget after a loss.
struct Summed {
    sum: ReducingState<i64>,
    mean: AggregatingState<Mean>,
}

struct Mean;

impl Aggregate for Mean {
    type Input = i64;
    type Accumulator = (i64, i64);
    type Output = i64;

    fn create(&self) -> (i64, i64) {
        (0, 0)
    }

    fn add(&self, (sum, count): &mut (i64, i64), amount: &i64) {
        *sum += amount;
        *count += 1;
    }

    fn result(&self, (sum, count): &(i64, i64)) -> i64 {
        sum / count
    }
}

impl KeyedProcessFunction<u32, Trade> for Summed {
    type Output = (u32, i64, i64);

    fn on_record(
        &mut self,
        trade: &Archived<Trade>,
        context: &mut ProcessContext<'_, u32, Self::Output>,
    ) -> Result<(), BoxError> {
        let amount = trade.amount.to_native();
        context.reducing(self.sum).add(amount);
        context.aggregating(self.mean).add(&amount);
        let (sum, mean) = (context.reducing(self.sum).get(), context.aggregating(self.mean).get());
        if amount <= 0 {
            assert!(context.reducing(self.sum).clear() && context.aggregating(self.mean).clear());
        }
        let account = context.key();
        context.collect((account, sum.unwrap_or_default(), mean.unwrap_or_default()));
        Ok(())
    }
}

#[test]
fn reduced_and_aggregated_values_per_key() {
    let mut accounts: BTreeMap<u32, Vec<i64>> = BTreeMap::new();
    let expected: Vec<(u32, i64, i64)> = trades(150)
        .into_iter()
        .map(|trade| {
            let amounts = accounts.entry(trade.account).or_default();
            amounts.push(trade.amount);
            let sum: i64 = amounts.iter().sum();
            let mean = sum / amounts.len() as i64;
            if trade.amount <= 0 {
                amounts.clear();
            }
            (trade.account, sum, mean)
        })
        .collect();
    same_everywhere(expected, |environment, results| {
        environment
            .from_source(
                "trades",
                ScriptSource::new(splits_by_account(&trades(150), 5)),
                WatermarkStrategy::none(),
            )
            .key_by(|trade| trade.account)
            .process(|states| Summed {
                sum: states.reducing("sum", |a, b| a + b),
                mean: states.aggregating("mean", Mean),
            })
            .sink("results", results);
    });
}

/// Counts the records of a key in each kind of state that expires after ten milliseconds, and hands on the three counts.
#[derive(Clone)]
struct Forgetful {
    value: ValueState<u64>,
    list: ListState<u64>,
    map: MapState<String, u64>,
}

impl Forgetful {
    fn open(states: &mut StateRegistry<u64>) -> Self {
        let ttl = TtlConfig::new(10);
        Self {
            value: states.value(ValueStateDescriptor::new("value").with_ttl(ttl)),
            list: states.list(ListStateDescriptor::new("list").with_ttl(ttl)),
            map: states.map(MapStateDescriptor::new("map").with_ttl(ttl)),
        }
    }
}

impl KeyedProcessFunction<u64, u64> for Forgetful {
    type Output = (u64, usize, u64);

    fn on_record(
        &mut self,
        record: &Archived<u64>,
        context: &mut ProcessContext<'_, u64, Self::Output>,
    ) -> Result<(), BoxError> {
        let number = record.to_native();
        let count = context.get(self.value).unwrap_or_default() + 1;
        context.set(self.value, count);
        context.list(self.list).add(number);
        let elements = context.list(self.list).get().len();
        context.map(self.map).put(&format!("entry {number}"), number);
        let mut entries = 0;
        context.map(self.map).for_each(|_name, _number| entries += 1);
        context.collect((count, elements, entries));
        Ok(())
    }
}

#[test]
fn state_with_a_time_to_live_expires_by_the_wall_clock() {
    let given = [
        Given::WallClock(1_000),
        Given::Record(0, 0),
        Given::WallClock(1_005),
        Given::Record(3, 1),
        Given::WallClock(1_012),
        Given::Record(6, 2),
        Given::WallClock(1_030),
        Given::Record(9, 3),
    ];
    let expected = [
        Seen::Record((1, 1, 1), 0),
        Seen::Record((2, 2, 2), 1),
        // The value was written again in time, the first element and entry were not.
        Seen::Record((3, 2, 2), 2),
        Seen::Record((1, 1, 1), 3),
    ];
    OperatorTest::new(given)
        .expect(expected)
        .in_order()
        .check_head(|number| number % 3, Process::<u64, u64, _>::new(0, Forgetful::open));
}

/// Fails as a damaged state would.
struct Damaged;

impl KeyedProcessFunction<u64, u64> for Damaged {
    type Output = u64;

    fn on_record(
        &mut self,
        _record: &Archived<u64>,
        _context: &mut ProcessContext<'_, u64, u64>,
    ) -> Result<(), BoxError> {
        fault(StateError::TooLong { what: "key", bytes: 7, bytes_max: 6 })
    }
}

/// The error of a job that reads two numbers and processes them.
fn error_of<P, M>(config: JobConfig, make: M) -> (String, String)
where
    M: FnOnce(&mut StateRegistry<u64>) -> P + Clone + Send + 'static,
    P: KeyedProcessFunction<u64, u64, Output: Send>,
{
    let environment = Setting::simulated(1, config).environment();
    let (sink, _recorded) = RecordSink::new();
    environment
        .from_source("numbers", ScriptSource::new([vec![1_u64, 2]]), WatermarkStrategy::none())
        .key_by(|number| *number)
        .process(make)
        .name("keeper")
        .uid("keeper-1")
        .sink("results", sink);
    match environment.execute() {
        Err(Error::Operator { operator, cause, .. }) => (operator, cause.to_string()),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_fault_of_the_state_ends_the_job_with_its_own_words() {
    for config in on_all_backends(JobConfig::default()) {
        let (operator, cause) = error_of(config, |_states| Damaged);
        assert_eq!(operator, "keeper (keeper-1)");
        assert_eq!(cause, "a key of 7 bytes is over the limit of 6 bytes per key; split it up");
    }
}

#[test]
fn a_name_that_is_taken_is_refused_before_the_first_record() {
    for name in ["sum", "event-timers"] {
        for config in on_all_backends(JobConfig::default()) {
            let (operator, cause) = error_of(config, move |states| {
                let _sum: ValueState<u64> = states.value("sum");
                let _again: ValueState<u64> = states.value(name);
                Damaged
            });
            assert_eq!(operator, "keeper (keeper-1)");
            let expected =
                format!("operator `keeper-1` opens its state `{name}` twice; give each state its own name");
            assert_eq!(cause, expected);
        }
    }
}

/// Texts per key that are longer together than the bound on memory.
fn outgrow(environment: &StreamEnvironment, results: RecordSink<(u64, String)>) {
    let rounds = (0..3_u64).flat_map(|round| (0..KEYS).map(move |key| (key, round)));
    environment
        .from_source("records", ScriptSource::new([rounds.collect()]), WatermarkStrategy::none())
        .key_by(|record: &(u64, u64)| record.0)
        .fold(String::new(), |text, record| {
            text.push_str(&format!("{:0>200}", record.1.to_native()));
        })
        .filter(|(_, text)| text.len() == 600)
        .sink("results", results);
}

const KEYS: u64 = 10_000;

#[test]
fn state_outgrows_its_memory_and_gives_the_same_results() {
    let expected = ["0", "1", "2"].map(|round| format!("{round:0>200}")).concat();
    for parallelism in [1, 2] {
        let directory = tempfile::tempdir().unwrap();
        let config = JobConfig {
            parallelism,
            state_backend: StateBackendKind::Log,
            state_dir: Some(directory.path().to_path_buf()),
            state_memory_bytes_max: Some(1 << 20),
            ..JobConfig::default()
        };
        for setting in [Setting::simulated(1, config.clone()), Setting::on_cores(config)] {
            let mut results = run(&setting, outgrow);
            results.sort_unstable();
            assert!(results.iter().map(|(key, _)| *key).eq(0..KEYS), "under {}", setting.name);
            assert!(results.iter().all(|(_, text)| *text == expected), "under {}", setting.name);
        }
        let spilled = std::fs::read_dir(directory.path()).unwrap().count();
        assert!(spilled > 0, "nothing left memory: the bound was not felt");
    }
}

const TEXT_BYTES: u64 = 200;

/// Keeps a text per key, and never asks for it.
enum Unasked {
    Value(ValueState<String>),
    List(ListState<String>),
    Map(MapState<u64, String>),
}

impl KeyedProcessFunction<u64, u64> for Unasked {
    type Output = u64;

    fn on_record(
        &mut self,
        number: &Archived<u64>,
        context: &mut ProcessContext<'_, u64, u64>,
    ) -> Result<(), BoxError> {
        let text = "x".repeat(TEXT_BYTES as usize);
        match self {
            Self::Value(state) => context.set(*state, text),
            Self::List(state) => context.list(*state).add(text),
            Self::Map(state) => context.map(*state).put(&number.to_native(), text),
        }
        context.collect(number.to_native());
        Ok(())
    }
}

/// Bytes on the disk of a job that has come to its end, whose keys are all different; with a time to live or without.
fn bytes_of_keys_that_never_come_again(kind: &'static str, keys: u64, ttl_ms: Option<u64>) -> u64 {
    let disk = MemoryDisk::default();
    let platform = SimPlatform::new(1).disk(Arc::new(disk.clone())).turn_ns_max(200_000);
    let checkpoints =
        CheckpointConfig { interval_ms: 2, retained_max: 1, ..CheckpointConfig::new("/checkpoints") };
    let config = JobConfig {
        step_records_max: 64,
        batch_records_max: 64,
        state_memory_bytes_max: Some(1 << 20),
        checkpoints: Some(checkpoints),
        max_parallelism: Some(128),
        ..JobConfig::default()
    };
    let environment = StreamEnvironment::on(Arc::new(platform), config);
    let (sink, recorded) = RecordSink::new();
    environment
        .from_source("numbers", ScriptSource::new([(0..keys).collect()]), WatermarkStrategy::none())
        .key_by(|number| *number)
        .process(move |states: &mut StateRegistry<u64>| {
            let (value, list, map) = (
                ValueStateDescriptor::new("text"),
                ListStateDescriptor::new("text"),
                MapStateDescriptor::new("text"),
            );
            match (kind, ttl_ms.map(TtlConfig::new)) {
                ("value", None) => Unasked::Value(states.value(value)),
                ("value", Some(ttl)) => Unasked::Value(states.value(value.with_ttl(ttl))),
                ("list", None) => Unasked::List(states.list(list)),
                ("list", Some(ttl)) => Unasked::List(states.list(list.with_ttl(ttl))),
                (_, None) => Unasked::Map(states.map(map)),
                (_, Some(ttl)) => Unasked::Map(states.map(map.with_ttl(ttl))),
            }
        })
        .sink("results", sink);
    environment.execute().unwrap();
    assert_eq!(recorded.len() as u64, keys);
    disk.used_bytes()
}

#[test]
fn state_with_a_time_to_live_goes_though_all_keys_are_new_and_nobody_asks_for_it_again() {
    let keys = 30_000;
    for kind in ["value", "list", "map"] {
        let lasting = bytes_of_keys_that_never_come_again(kind, keys, None);
        assert!(lasting > TEXT_BYTES * keys, "{kind}: {lasting}");
        // However many come: a block is only given back as a whole, and files are kept of which it has a part.
        let expiring = bytes_of_keys_that_never_come_again(kind, 8 * keys, Some(1));
        assert!(
            expiring < 2 * lasting,
            "{kind}: {expiring}, and {lasting} of an eighth of the keys for ever"
        );
    }
}
