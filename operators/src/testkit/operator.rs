//! One operator, driven by hand: the same input in many ways must give the same output.
//!
//! The operator is given its items one at a time and all at once, in batches of one and of all records, and hands its
//! results to an output that always has room or to one that is full every other call, with every state backend. It is
//! held to its contract:
//! it stops only where its output is full, goes on where it stopped, never lets the watermark fall, and is silent after
//! the end.

use std::{cell::RefCell, fmt::Debug, marker::PhantomData, rc::Rc, sync::Arc};

use tidemill_engine::{
    model::{
        checkpoint::CheckpointContext,
        config::JobConfig,
        graph::{BuildContext, StoreRegistry},
        item::Item,
        metrics::{OperatorCounters, OperatorInfo, OperatorVisitor},
        operator::{Chain, OperatorIndex, Signal, StepContext},
        source::SubtaskContext,
        task::{Step, Task},
        time::{Timestamp, WATERMARK_MAX},
    },
    platform::{Clock, Nanos, Wake},
};
use tidemill_storage::{key::Key, log::pool::BlockPool, record::Record, snapshot::disk::memory::MemoryDisk};

pub use super::stage::Items;
use super::{job::on_all_backends, probe::Probe, stage::Batches};
use crate::exchange::HeadBuilder;

/// What an operator under test is given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Given<T> {
    /// A record with its event time.
    Record(T, Timestamp),
    /// A signal.
    Signal(Signal),
    /// From here on the wall clock says this, in milliseconds.
    WallClock(i64),
}

/// What comes out of an operator under test.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seen<T> {
    /// A record with its event time.
    Record(T, Timestamp),
    /// A signal.
    Signal(Signal),
}

/// The input of an operator and the output that it must have.
///
/// The end of the input is given and expected without being named. Between two signals the order of records does
/// not matter, unless [`in_order`](Self::in_order) says so.
///
/// ```
/// use tidemill_operators::{map::Map, testkit::operator::{Given, OperatorTest, Seen}};
///
/// OperatorTest::new(vec![Given::Record(1, 10), Given::Record(2, 20)])
///     .expect(vec![Seen::Record("1".to_owned(), 10), Seen::Record("2".to_owned(), 20)])
///     .in_order()
///     .check(|input| Map::new(input, 0, |number: u32| number.to_string()));
/// ```
#[derive(Clone, Debug)]
#[must_use = "nothing is tested before `check` or `check_head`"]
pub struct OperatorTest<T, U> {
    given: Vec<Given<T>>,
    expected: Vec<Seen<U>>,
    in_order: bool,
    records_only: bool,
}

impl<T, U> OperatorTest<T, U> {
    /// With this input; nothing is expected yet.
    pub fn new(given: impl IntoIterator<Item = Given<T>>) -> Self {
        let end = [Signal::Watermark(WATERMARK_MAX), Signal::End].map(Given::Signal);
        let given = given.into_iter().chain(end).collect();
        Self { given, expected: Vec::new(), in_order: false, records_only: false }
    }

    /// With this output.
    pub fn expect(mut self, expected: impl IntoIterator<Item = Seen<U>>) -> Self {
        self.expected = expected.into_iter().collect();
        self
    }

    /// The order of records matters, too.
    pub fn in_order(mut self) -> Self {
        self.in_order = true;
        self
    }

    /// Signals may differ from run to run: only records are compared, and the end.
    pub fn records_only(mut self) -> Self {
        self.records_only = true;
        self
    }
}

impl<T: Clone + Send + Sync + 'static, U: Clone + Debug + 'static> OperatorTest<T, U> {
    /// Tests what `attach` puts behind a chain that gives the items by value.
    ///
    /// # Panics
    /// When the output is another one, or the operator breaks its contract.
    pub fn check<C>(self, attach: impl Fn(Items<T>) -> C)
    where
        C: Chain<Out: Item<Native = U>>,
    {
        let given = Arc::new(self.given.clone());
        for per_step in [1, usize::MAX] {
            self.run(&format!("{per_step} items per step"), JobConfig::default(), || {
                attach(Items { given: Arc::clone(&given), per_step })
            });
        }
    }
}

impl<T: Record + Clone + Sync, U: Clone + Debug + 'static> OperatorTest<T, U> {
    /// Tests what `builder` builds, with batches of records keyed by `key`.
    ///
    /// # Panics
    /// When the output is another one, or the operator breaks its contract.
    pub fn check_head<B, K, F>(self, key: F, builder: B)
    where
        B: HeadBuilder<In = T, Out: Item<Native = U>>,
        K: Key,
        F: Fn(&T) -> K + Clone + Send + 'static,
    {
        let given = Arc::new(self.given.clone());
        for config in on_all_backends(JobConfig::default()) {
            for batch_records_max in [1, 3, 1024] {
                let input = format!("batches of {batch_records_max}, state in {:?}", config.state_backend);
                self.run(&input, config.clone(), || Batches {
                    given: Arc::clone(&given),
                    batch_records_max,
                    builder: builder.clone(),
                    key: key.clone(),
                    key_type: PhantomData,
                });
            }
        }
    }
}

impl<T, U: Clone + Debug + 'static> OperatorTest<T, U> {
    fn run<C: Chain<Out: Item<Native = U>>>(&self, input: &str, config: JobConfig, chain: impl Fn() -> C) {
        let context = context(config);
        let mut counted: Option<Vec<(OperatorIndex, OperatorCounters)>> = None;
        for often_full in [false, true] {
            let setting = format!("{input}, output often full: {often_full}");
            let (seen, counters) = drive(chain(), &context, often_full, &setting);
            self.compare(seen, &setting);
            let first = counted.get_or_insert_with(|| counters.clone());
            assert_eq!(*first, counters, "the counters depend on the output; under {setting}");
        }
    }

    fn compare(&self, mut seen: Vec<Seen<U>>, setting: &str) {
        let end = seen.pop();
        assert!(matches!(end, Some(Seen::Signal(Signal::End))), "the end is missing; under {setting}");
        let expected = self.shape(&self.expected);
        let found = self.shape(match seen.last() {
            Some(Seen::Signal(Signal::Watermark(WATERMARK_MAX))) => &seen[..seen.len() - 1],
            _ => panic!("the last watermark is missing; under {setting}"),
        });
        assert_eq!(found, expected, "under {setting}");
    }

    /// Text that is equal exactly when outputs are, as far as this test looks at them.
    fn shape(&self, seen: &[Seen<U>]) -> Vec<String> {
        let mut shape = Vec::new();
        let mut records: Vec<String> = Vec::new();
        let settle = |records: &mut Vec<String>, shape: &mut Vec<String>| {
            if !self.in_order {
                records.sort_unstable();
            }
            shape.append(records);
        };
        for one in seen {
            match one {
                Seen::Record(..) => records.push(format!("{one:?}")),
                Seen::Signal(_) if self.records_only => {}
                Seen::Signal(_) => {
                    settle(&mut records, &mut shape);
                    shape.push(format!("{one:?}"));
                }
            }
        }
        settle(&mut records, &mut shape);
        shape
    }
}

/// Steps the chain to its end; returns what came out and what it counted.
fn drive<C: Chain>(
    chain: C,
    context: &BuildContext,
    often_full: bool,
    setting: &str,
) -> (Vec<Seen<<C::Out as Item>::Native>>, Vec<(OperatorIndex, OperatorCounters)>) {
    let log = Rc::new(RefCell::new(Vec::new()));
    let built = chain.build(context, Probe::<C::Out>::new(Rc::clone(&log), often_full));
    let mut task = match built {
        Ok(task) => task,
        Err(error) => panic!("the operator does not open: {}; under {setting}", error.cause),
    };
    let mut step = StepContext::new(0, 0);
    let mut steps: u64 = 0;
    loop {
        steps += 1;
        assert!(steps < STEPS_MAX, "the operator does not come to its end; under {setting}");
        step.begin(steps * STEP_NANOS, 0);
        let done = task.step(&mut step) == Step::Done;
        if let Some(failed) = step.take_failure() {
            panic!("the operator fails: {}; under {setting}", failed.cause);
        }
        if done {
            let mut counters = Counters::default();
            task.report(&mut counters);
            drop(task);
            return (log.take(), counters.0);
        }
    }
}

/// Steps after which an operator is taken to be stuck.
const STEPS_MAX: u64 = 1_000_000;
/// Operators that a chain under test may have.
const OPERATORS_MAX: OperatorIndex = 16;
/// How far apart steps are.
const STEP_NANOS: Nanos = 1_000;

#[derive(Default)]
struct Counters(Vec<(OperatorIndex, OperatorCounters)>);

impl OperatorVisitor for Counters {
    fn operator(&mut self, operator: OperatorIndex, counters: &OperatorCounters) {
        self.0.push((operator, counters.clone()));
    }
}

struct StillClock;

impl Clock for StillClock {
    fn now(&self) -> Nanos {
        0
    }

    fn wall_millis(&self) -> i64 {
        0
    }
}

struct Nobody;

impl Wake for Nobody {
    fn wake(&self) {}
}

fn context(config: JobConfig) -> BuildContext {
    let subtask = SubtaskContext {
        subtask: 0,
        parallelism: 1,
        clock: Arc::new(StillClock),
        waker: Arc::new(Nobody),
        inline_io: true,
    };
    let operators = (0..OPERATORS_MAX).map(|index| {
        let name = format!("operator {index}");
        OperatorInfo { id: name.clone(), name }
    });
    BuildContext {
        subtask,
        config: Arc::new(config),
        operators: operators.collect(),
        state_pool: BlockPool::new(false),
        disk: Arc::new(MemoryDisk::default()),
        checkpoints: CheckpointContext::default(),
        stores: StoreRegistry::default(),
    }
}
