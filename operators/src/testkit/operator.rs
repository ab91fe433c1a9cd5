//! One operator, driven by hand: the same input in many ways must give the same output.
//!
//! The operator is given its items one at a time and all at once, in batches of one and of all records, and hands its
//! results to an output that always has room or to one that is full every other call, with every state backend. It is
//! stopped at barriers between any two items, and other instances go on from the checkpoint; behind an exchange it may be
//! any number of them. It is held to its contract: it stops only where its output is full, goes on where it stopped, never
//! lets the watermark fall, and is silent after the end.

use std::{fmt::Debug, marker::PhantomData, sync::Arc};

use tidemill_engine::model::{
    config::JobConfig,
    item::Item,
    metrics::OperatorCounters,
    operator::{Chain, OperatorIndex, Signal},
    time::{Timestamp, WATERMARK_MAX},
};
use tidemill_storage::{key::Key, record::Record};

pub use super::stage::Items;
use super::{
    drive::{Driven, Place, context, drive},
    job::on_all_backends,
    restarts,
    stage::Batches,
};
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
    rescales: bool,
    /// Draws the ways to stop and go on; `None` for all.
    drawn_by: Option<u64>,
}

impl<T, U> OperatorTest<T, U> {
    /// With this input; nothing is expected yet.
    pub fn new(given: impl IntoIterator<Item = Given<T>>) -> Self {
        let end = [Signal::Watermark(WATERMARK_MAX), Signal::End].map(Given::Signal);
        let given = given.into_iter().chain(end).collect();
        Self {
            given,
            expected: Vec::new(),
            in_order: false,
            records_only: false,
            rescales: true,
            drawn_by: None,
        }
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

    /// What comes out depends on how many subtasks there are, so their number stays one.
    pub fn alone(mut self) -> Self {
        self.rescales = false;
        self
    }

    /// Stops and goes on in a few ways only, drawn by `seed`: for random tests with many inputs.
    pub fn restarted_by(mut self, seed: u64) -> Self {
        self.drawn_by = Some(seed);
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
            let unkeyed = |_: &T| 0;
            self.run_with_restarts(&format!("{per_step} items per step"), false, unkeyed, |given| {
                attach(Items { given, per_step })
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
        for batch_records_max in [1, 1024] {
            let hash = |record: &T| key(record).key_hash(&mut Vec::new());
            self.run_with_restarts(&format!("batches of {batch_records_max}"), true, hash, |given| Batches {
                given,
                batch_records_max,
                builder: builder.clone(),
                key: key.clone(),
                key_type: PhantomData,
            });
        }
    }
}

impl<T, U: Clone + Debug + 'static> OperatorTest<T, U> {
    fn run<C: Chain<Out: Item<Native = U>>>(&self, input: &str, config: JobConfig, chain: impl Fn() -> C) {
        let context = context(config, Place::default());
        let mut counted: Option<Vec<(OperatorIndex, OperatorCounters)>> = None;
        for often_full in [false, true] {
            let setting = format!("{input}, output often full: {often_full}");
            let Driven { seen, counters, .. } = drive(chain(), &context, often_full, &setting);
            self.compare(seen, self.in_order, &setting);
            let first = counted.get_or_insert_with(|| counters.clone());
            assert_eq!(*first, counters, "the counters depend on the output; under {setting}");
        }
    }

    /// Stops at barriers and goes on from checkpoints, in many ways.
    fn run_with_restarts<C: Chain<Out: Item<Native = U>>>(
        &self,
        input: &str,
        rescales: bool,
        hash: impl Fn(&T) -> u64,
        chain: impl Fn(Arc<Vec<Given<T>>>) -> C,
    ) where
        T: Clone,
    {
        let plans = restarts::plans(self.given.len(), rescales && self.rescales);
        let plans = match self.drawn_by {
            None => plans,
            Some(seed) => restarts::drawn(plans, seed),
        };
        for (name, legs) in plans {
            for often_full in [false, true] {
                let setting = format!("{input}, {name}, output often full: {often_full}");
                let seen = restarts::run(&self.given, &legs, often_full, &setting, &hash, &chain);
                // Subtasks do not say in which order their records were.
                let in_order = self.in_order && legs.iter().all(|leg| leg.subtasks == 1);
                self.compare(seen, in_order, &setting);
            }
        }
    }

    fn compare(&self, mut seen: Vec<Seen<U>>, in_order: bool, setting: &str) {
        let end = seen.pop();
        assert!(matches!(end, Some(Seen::Signal(Signal::End))), "the end is missing; under {setting}");
        let expected = self.shape(&self.expected, in_order);
        let found = match seen.last() {
            Some(Seen::Signal(Signal::Watermark(WATERMARK_MAX))) => &seen[..seen.len() - 1],
            _ => panic!("the last watermark is missing; under {setting}"),
        };
        assert_eq!(self.shape(found, in_order), expected, "under {setting}");
    }

    /// Text that is equal exactly when outputs are, as far as this test looks at them.
    fn shape(&self, seen: &[Seen<U>], in_order: bool) -> Vec<String> {
        let mut shape = Vec::new();
        let mut records: Vec<String> = Vec::new();
        let settle = |records: &mut Vec<String>, shape: &mut Vec<String>| {
            if !in_order {
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
