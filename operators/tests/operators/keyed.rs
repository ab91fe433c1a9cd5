//! Operators with state per key.

use std::collections::{BTreeMap, BTreeSet};

use rkyv::Archived;
use tidemill_engine::model::{
    operator::Signal,
    source::BoxError,
    time::{NO_TIMESTAMP, WATERMARK_MAX, WATERMARK_MIN},
};
use tidemill_operators::{
    aggregate::Count,
    keyed::{
        aggregate::Aggregate,
        fold::Fold,
        process::{
            FiredTimer, KeyedProcessFunction, ListState, MapState, Process, ProcessContext, ReducingState,
            StateRegistry, ValueState,
        },
        reduce::Reduce,
        rolling::Roll,
    },
    testkit::operator::{Given, OperatorTest, Seen},
};
use tidemill_storage::kinds::{descriptor::ValueStateDescriptor, ttl::TtlConfig};

fn given() -> Vec<Given<u64>> {
    let mut given: Vec<Given<u64>> = (0..40).map(|number| Given::Record(number, number as i64)).collect();
    given.insert(20, Given::Signal(Signal::Watermark(15)));
    given.insert(30, Given::Signal(Signal::Idle));
    given
}

fn key(number: &u64) -> String {
    format!("{}", number % 3)
}

/// What comes out when `add` rolls a value per key.
fn rolling<A: Clone + Default, U>(
    mut add: impl FnMut(&mut A, u64),
    out: impl Fn(u64, A) -> U,
) -> Vec<Seen<U>> {
    let mut values: BTreeMap<String, A> = BTreeMap::new();
    let one = |one: Given<u64>| match one {
        Given::Record(number, at) => {
            let value = values.entry(key(&number)).or_default();
            add(value, number);
            Some(Seen::Record(out(number, value.clone()), at))
        }
        Given::Signal(signal) => Some(Seen::Signal(signal)),
        Given::WallClock(_) => None,
    };
    given().into_iter().filter_map(one).collect()
}

#[test]
fn reduce() {
    let test = OperatorTest::new(given()).expect(rolling(|sum: &mut u64, n| *sum += n, |_, sum| sum));
    test.in_order().check_head(
        key,
        Roll::<String, _, _>::new(0, Reduce(|sum: u64, number: &Archived<u64>| sum + number.to_native())),
    );
}

#[test]
fn fold_with_wide_and_narrow_keys() {
    let function = |text: &mut String, number: &Archived<u64>| *text += &number.to_native().to_string();
    let add = |text: &mut String, number: u64| *text += &number.to_string();
    OperatorTest::new(given())
        .expect(rolling(add, |number, text| (key(&number), text)))
        .in_order()
        .check_head(key, Roll::<String, _, _>::new(0, Fold::new(String::new(), function)));
    OperatorTest::new(given())
        .expect(rolling(add, |number, text| ((number % 3) as u8, text)))
        .in_order()
        .check_head(
            |number| (number % 3) as u8,
            Roll::<u8, _, _>::new(0, Fold::new(String::new(), function)),
        );
}

#[test]
fn aggregate() {
    OperatorTest::new(given())
        .expect(rolling(|count: &mut u64, _| *count += 1, |number, count| (key(&number), count)))
        .in_order()
        .check_head(key, Roll::<String, _, _>::new(0, Aggregate(Count)));
}

/// Tells every record, event-time timer and processing-time timer.
#[derive(Clone)]
struct Teller(ValueState<u64>);

impl KeyedProcessFunction<String, u64> for Teller {
    type Output = String;

    fn on_record(
        &mut self,
        record: &Archived<u64>,
        context: &mut ProcessContext<'_, String, String>,
    ) -> Result<(), BoxError> {
        let number = record.to_native();
        let count = context.update(
            self.0,
            || 0,
            |count| {
                *count += 1;
                *count
            },
        );
        context.register_event_timer(100 - number as i64);
        context.register_processing_timer(1000 + number as i64);
        let key = context.key();
        context.collect(format!("record {number} of {key}, number {count}"));
        Ok(())
    }

    fn on_timer(
        &mut self,
        timer: FiredTimer,
        context: &mut ProcessContext<'_, String, String>,
    ) -> Result<(), BoxError> {
        let key = context.key();
        context.collect(format!("{timer:?} of {key}"));
        if timer == FiredTimer::ProcessingTime(1001) {
            // One from within a timer that is due at once.
            context.register_processing_timer(1000);
        }
        if timer == FiredTimer::EventTime(99) {
            context.delete_event_timer(100);
        }
        Ok(())
    }
}

#[test]
fn process_tells_records_and_timers_in_the_order_of_time() {
    let record = |number: u64, of: u64, count: u64| {
        Seen::Record(format!("record {number} of {of}, number {count}"), number as i64)
    };
    let event = |at: i64, of: u64| Seen::Record(format!("EventTime({at}) of {of}"), at);
    let processing = |at: i64, of: u64| Seen::Record(format!("ProcessingTime({at}) of {of}"), NO_TIMESTAMP);
    let records = |numbers: std::ops::Range<u64>| numbers.map(|number| Given::Record(number, number as i64));
    let given = records(0..4)
        .chain([Given::WallClock(999)])
        .chain(records(4..5))
        .chain([Given::WallClock(1002), Given::Signal(Signal::Watermark(97)), Given::WallClock(2000)])
        .chain(records(5..6));
    let expected = [
        record(0, 0, 1),
        record(1, 1, 1),
        record(2, 2, 1),
        record(3, 0, 2),
        record(4, 1, 2),
        processing(1000, 0),
        processing(1001, 1),
        processing(1000, 1),
        processing(1002, 2),
        event(96, 1),
        event(97, 0),
        Seen::Signal(Signal::Watermark(97)),
        processing(1003, 0),
        processing(1004, 1),
        record(5, 2, 2),
        // Due since the clock said so.
        processing(1005, 2),
        event(95, 2),
        event(98, 2),
        event(99, 1),
        event(100, 0),
    ];
    OperatorTest::new(given).expect(expected).in_order().check_head(
        key,
        Process::<String, u64, _>::new(0, |states: &mut StateRegistry<String>| Teller(states.value("count"))),
    );
}

/// Keeps each number in every kind of state and tells all of them at each timer.
#[derive(Clone)]
struct Hoarder {
    value: ValueState<u64>,
    list: ListState<u64>,
    map: MapState<u64, u64>,
    reducing: ReducingState<u64>,
    expiring: ValueState<u64>,
}

const DELAY_MS: i64 = 25;

impl KeyedProcessFunction<String, u64> for Hoarder {
    type Output = String;

    fn on_record(
        &mut self,
        record: &Archived<u64>,
        context: &mut ProcessContext<'_, String, String>,
    ) -> Result<(), BoxError> {
        let number = record.to_native();
        context.set(self.value, number);
        context.list(self.list).add(number);
        context.map(self.map).update(&(number % 4), || 0, |count| *count += 1);
        context.reducing(self.reducing).add(number);
        context.set(self.expiring, number);
        context.register_event_timer(context.timestamp() + DELAY_MS);
        context.register_processing_timer(context.processing_time() + DELAY_MS);
        Ok(())
    }

    fn on_timer(
        &mut self,
        timer: FiredTimer,
        context: &mut ProcessContext<'_, String, String>,
    ) -> Result<(), BoxError> {
        let (key, value, list) = (context.key(), context.get(self.value), context.list(self.list).get());
        let mut counts = BTreeMap::new();
        context.map(self.map).for_each(|rest, count| counts.extend([(rest, count.to_native())]));
        let (sum, expiring) = (context.reducing(self.reducing).get(), context.get(self.expiring));
        let watermark = context.watermark();
        context.collect(format!(
            "{timer:?} of {key} at {watermark}: {value:?} {list:?} {counts:?} {sum:?} {expiring:?}"
        ));
        if let FiredTimer::ProcessingTime(_) = timer {
            context.list(self.list).clear();
            context.map(self.map).remove(&0);
        }
        Ok(())
    }
}

/// What [`Hoarder`] has of one key.
#[derive(Default)]
struct Hoard {
    numbers: Vec<u64>,
    counts: BTreeMap<u64, u64>,
    sum: u64,
    last: u64,
    last_at: i64,
}

/// What [`Hoarder`] tells, in the most obvious way.
fn hoarded(given: &[Given<u64>]) -> Vec<Seen<String>> {
    let mut hoards: BTreeMap<String, Hoard> = BTreeMap::new();
    let (mut event, mut processing): (BTreeSet<(i64, String)>, BTreeSet<(i64, String)>) = Default::default();
    let (mut wall, mut reached, mut seen) = (0, WATERMARK_MIN, Vec::new());
    let tell =
        |timer: FiredTimer, key: &str, hoards: &mut BTreeMap<String, Hoard>, wall: i64, watermark: i64| {
            let hoard = hoards.get_mut(key).unwrap();
            let Hoard { numbers, counts, sum, last, last_at } = &mut *hoard;
            let expiring = (*last_at + TTL_MS > wall).then_some(*last);
            let text = format!(
                "{timer:?} of {key} at {watermark}: {:?} {numbers:?} {counts:?} {:?} {expiring:?}",
                Some(*last),
                Some(*sum)
            );
            let at = match timer {
                FiredTimer::EventTime(at) => at,
                FiredTimer::ProcessingTime(_) => {
                    numbers.clear();
                    counts.remove(&0);
                    NO_TIMESTAMP
                }
            };
            Seen::Record(text, at)
        };
    for one in given.iter().copied().chain([Given::Signal(Signal::Watermark(WATERMARK_MAX))]) {
        match one {
            Given::Record(number, at) => {
                let hoard = hoards.entry(key(&number)).or_default();
                hoard.numbers.push(number);
                *hoard.counts.entry(number % 4).or_default() += 1;
                hoard.sum += number;
                (hoard.last, hoard.last_at) = (number, wall);
                event.insert((at + DELAY_MS, key(&number)));
                processing.insert((wall + DELAY_MS, key(&number)));
            }
            Given::Signal(Signal::Watermark(watermark)) => {
                reached = watermark;
                while let Some((at, key)) = event.first().filter(|(at, _)| *at <= watermark).cloned() {
                    event.pop_first();
                    seen.push(tell(FiredTimer::EventTime(at), &key, &mut hoards, wall, reached));
                }
                seen.extend(
                    (watermark < WATERMARK_MAX).then_some(Seen::Signal(Signal::Watermark(watermark))),
                );
            }
            Given::WallClock(millis) => {
                wall = millis;
                while let Some((at, key)) = processing.first().filter(|(at, _)| *at <= wall).cloned() {
                    processing.pop_first();
                    seen.push(tell(FiredTimer::ProcessingTime(at), &key, &mut hoards, wall, reached));
                }
            }
            Given::Signal(_) => {}
        }
    }
    seen
}

const TTL_MS: i64 = 40;

#[test]
fn every_kind_of_state_and_of_timer_comes_back_in_any_number_of_subtasks() {
    let mut given = Vec::new();
    for number in 0..48_u64 {
        given.push(Given::Record(number, number as i64 * 3));
        match number % 8 {
            3 => given.push(Given::Signal(Signal::Watermark(number as i64 * 3))),
            5 => given.push(Given::WallClock(number as i64 * 2)),
            _ => {}
        }
    }
    // Whose timers have no slice in common with the others'.
    given.push(Given::Record(50, 100_000));
    given.push(Given::WallClock(200_000));
    let make = |states: &mut StateRegistry<String>| Hoarder {
        value: states.value("value"),
        list: states.list("list"),
        map: states.map("map"),
        reducing: states.reducing("reducing", |a: &u64, b: &u64| a + b),
        expiring: states.value(ValueStateDescriptor::new("expiring").with_ttl(TtlConfig::new(TTL_MS as u64))),
    };
    let expected = hoarded(&given);
    OperatorTest::new(given).expect(expected).check_head(key, Process::<String, u64, _>::new(0, make));
}

/// Registers timers at a key's first record and deletes them at its second, but for every third key; tells those that fire.
#[derive(Clone)]
struct Canceller;

const EVENT_AT: i64 = 1_000;
const PROCESSING_AT: i64 = 500;

impl KeyedProcessFunction<u64, u64> for Canceller {
    type Output = (u64, bool);

    fn on_record(
        &mut self,
        record: &Archived<u64>,
        context: &mut ProcessContext<'_, u64, Self::Output>,
    ) -> Result<(), BoxError> {
        let (key, is_first) = (context.key(), record.to_native().is_multiple_of(2));
        let (event, processing) = (EVENT_AT + key as i64, PROCESSING_AT + key as i64);
        if is_first {
            context.register_event_timer(event);
            context.register_processing_timer(processing);
        } else if !key.is_multiple_of(3) {
            context.delete_event_timer(event);
            context.delete_processing_timer(processing);
        }
        Ok(())
    }

    fn on_timer(
        &mut self,
        timer: FiredTimer,
        context: &mut ProcessContext<'_, u64, Self::Output>,
    ) -> Result<(), BoxError> {
        context.collect((context.key(), matches!(timer, FiredTimer::EventTime(_))));
        Ok(())
    }
}

#[test]
fn a_timer_that_is_deleted_by_another_subtask_than_has_registered_it_does_not_fire() {
    const KEYS: u64 = 18;
    // First all keys register, then all delete: so they are stopped in between, and go on in another number of subtasks.
    let first = (0..KEYS).map(|key| 2 * key);
    let second = (0..KEYS).map(|key| 2 * key + 1);
    let mut given: Vec<Given<u64>> =
        first.chain(second).enumerate().map(|(at, record)| Given::Record(record, at as i64)).collect();
    given.push(Given::WallClock(2 * PROCESSING_AT));
    let kept = || (0..KEYS).filter(|key| key.is_multiple_of(3));
    let processing = kept().map(|key| Seen::Record((key, false), NO_TIMESTAMP));
    let event = kept().map(|key| Seen::Record((key, true), EVENT_AT + key as i64));
    OperatorTest::new(given).expect(processing.chain(event).collect::<Vec<_>>()).check_head(
        |record| record / 2,
        Process::<u64, u64, _>::new(0, |_: &mut StateRegistry<u64>| Canceller),
    );
}
