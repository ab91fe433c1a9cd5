//! When a split of a source counts as idle: when it was silent, not when its task was held up.
#![allow(clippy::unwrap_used)]

use std::{cell::RefCell, rc::Rc, sync::Arc};

use tidemill_engine::{
    model::{
        item::Owned,
        metrics::OperatorVisitor,
        operator::{Push, Signal, StepContext},
        source::{BoxError, Output, Polled, Reader},
        task::{Step, Task},
        time::{Timestamp, WATERMARK_MIN},
        watermark::{AssignTimestamps, NoTimestamps, TimestampFn, WatermarkBounds},
    },
    platform::{Clock, Nanos},
    runtime::source_task::{SourceConfig, SourceTask},
};

const SECOND: Nanos = 1_000_000_000;

struct StillClock;

impl Clock for StillClock {
    fn now(&self) -> Nanos {
        0
    }

    fn wall_millis(&self) -> i64 {
        0
    }
}

/// What comes out, and whether there is room.
#[derive(Default)]
struct Seen {
    signals: Vec<Signal>,
    records: Vec<Timestamp>,
    full: bool,
}

struct Probe(Rc<RefCell<Seen>>);

impl Push<Owned<(usize, Timestamp)>> for Probe {
    fn push(&mut self, item: (usize, Timestamp), _timestamp: Timestamp, _context: &mut StepContext) {
        self.0.borrow_mut().records.push(item.1);
    }

    fn signal(&mut self, signal: Signal, _context: &mut StepContext) {
        self.0.borrow_mut().signals.push(signal);
    }

    fn drain(&mut self, context: &mut StepContext) {
        if self.0.borrow().full {
            context.block();
        }
    }

    fn report(&self, _arrived: u64, _visitor: &mut dyn OperatorVisitor) {}
}

/// Splits take turns, one record per poll; then nothing comes for now.
struct Turns {
    records: Vec<(usize, Timestamp)>,
    splits: usize,
    in_turn: bool,
}

impl Reader for Turns {
    type Item = (usize, Timestamp);
    type Split = ();

    fn position(&self, _split: usize) {}

    fn splits(&self) -> usize {
        self.splits
    }

    fn reads_in_turn(&self) -> bool {
        self.in_turn
    }

    fn poll<O: Output<Self::Item>>(&mut self, output: &mut O, _now: Nanos) -> Result<Polled, BoxError> {
        let Some(record) = self.records.pop() else { return Ok(Polled::Pending(None)) };
        let _flow = output.emit(record.0, record);
        Ok(Polled::More)
    }
}

/// A task whose splits are idle after a second, and what comes out of it.
fn task<A: AssignTimestamps<(usize, Timestamp)>>(
    splits: usize,
    records: &[(usize, Timestamp)],
    assign: A,
    idle_after: Nanos,
) -> (impl Task, Rc<RefCell<Seen>>) {
    let reader = Turns { records: records.iter().rev().copied().collect(), splits, in_turn: false };
    task_of(reader, assign, idle_after)
}

fn task_of<A: AssignTimestamps<(usize, Timestamp)>>(
    reader: Turns,
    assign: A,
    idle_after: Nanos,
) -> (impl Task, Rc<RefCell<Seen>>) {
    let seen = Rc::new(RefCell::new(Seen::default()));
    let bounds = WatermarkBounds { out_of_orderness_ms: 0, idle_after: Some(idle_after) };
    let config = SourceConfig {
        operator: 0,
        step_records_max: 4096,
        step_time_max: SECOND,
        watermark_interval: 0,
        clock: Arc::new(StillClock),
        ends_with_checkpoint: false,
        before: 0,
    };
    (SourceTask::new(reader, &[], assign, bounds, Probe(Rc::clone(&seen)), config), seen)
}

fn step(task: &mut impl Task, at: Nanos) -> (Step, Option<Nanos>) {
    let mut context = StepContext::new(at, 0);
    context.begin(at, 0);
    (task.step(&mut context), context.take_wake_at())
}

fn own_time() -> TimestampFn<fn(&(usize, Timestamp)) -> Timestamp> {
    TimestampFn(|record| record.1)
}

#[test]
fn a_split_that_waits_for_its_turn_behind_a_full_output_is_not_idle() {
    // Split 0 is far ahead; each split is silent only because there is no room.
    let records = [(0, 1000), (1, 10), (0, 1001), (1, 11), (0, 1002), (1, 12)];
    let (mut task, seen) = task(2, &records, own_time(), SECOND);
    let mut now = 0;
    for _ in 0..records.len() {
        seen.borrow_mut().full = false;
        now += 1_000;
        assert_eq!(step(&mut task, now).0, Step::Progress);
        seen.borrow_mut().full = true;
        for pause in [1_000, 700_000_000, 700_000_000] {
            now += pause;
            assert_eq!(step(&mut task, now).0, Step::Blocked);
        }
    }
    assert_eq!(seen.borrow().records.len(), 6);
    let watermarks = seen.borrow().signals.clone();
    assert_eq!(watermarks, [9, 10, 11].map(Signal::Watermark), "split 1 is never left behind");
    // Then both are silent, which is idleness.
    seen.borrow_mut().full = false;
    let (idle, wake_at) = step(&mut task, now);
    assert_eq!((idle, wake_at.is_some_and(|at| at > now && at <= now + SECOND)), (Step::Idle, true));
    step(&mut task, now + SECOND);
    assert_eq!(seen.borrow().signals[3..], [Signal::Watermark(1001), Signal::Idle]);
}

#[test]
fn a_silent_split_counts_as_idle_while_the_other_is_now_and_then_held_up() {
    let records: Vec<(usize, Timestamp)> = (0..100).map(|at| (0, at)).collect();
    let (mut task, seen) = task(2, &records, own_time(), SECOND);
    let mut now = 0;
    for _ in 0..40 {
        seen.borrow_mut().full = false;
        now += 50_000_000;
        step(&mut task, now);
        seen.borrow_mut().full = true;
        now += 50_000_000;
        step(&mut task, now);
    }
    let watermark = seen.borrow().signals.iter().rev().find_map(|signal| match signal {
        Signal::Watermark(at) => Some(*at),
        _ => None,
    });
    assert!(watermark.is_some_and(|at| at > 30), "{:?}", seen.borrow().signals);
}

#[test]
fn without_timestamps_no_split_is_waited_for() {
    let (mut task, seen) = task(2, &[], NoTimestamps, SECOND);
    assert_eq!(step(&mut task, 5 * SECOND), (Step::Idle, None), "no wake-up in the past, again and again");
    assert!(seen.borrow().signals.is_empty());
}

#[test]
fn a_timeout_without_end_does_not_overflow() {
    let (mut task, seen) = task(1, &[(0, 5)], own_time(), Nanos::MAX);
    step(&mut task, SECOND);
    let (idle, wake_at) = step(&mut task, 2 * SECOND);
    assert_eq!((idle, wake_at), (Step::Idle, Some(Nanos::MAX)));
    assert_eq!(seen.borrow().signals, [Signal::Watermark(4)]);
    assert!(task.watermark() > WATERMARK_MIN);
}

#[test]
fn a_file_that_was_not_begun_is_not_idle_while_another_is_read() {
    let reader = Turns { records: (0..9).rev().map(|at| (0, 1000 + at)).collect(), splits: 2, in_turn: true };
    let (mut task, seen) = task_of(reader, own_time(), SECOND);
    for seconds in 1..20 {
        step(&mut task, seconds * SECOND);
    }
    assert_eq!(seen.borrow().records.len(), 9);
    assert!(seen.borrow().signals.is_empty(), "its records would be late: {:?}", seen.borrow().signals);
}

#[test]
fn a_watermark_that_stands_still_says_which_split_holds_it_and_since_when() {
    // Split 1 is slow and then silent; split 0 goes on.
    let records = [(0, 1000), (1, 10), (0, 1001), (1, 20), (0, 1002)];
    let (mut task, _) = task(2, &records, own_time(), 10 * SECOND);
    let wall_millis = 1_000_000;
    let mut step_at = |seconds: u64| {
        step(&mut task, seconds * SECOND);
        let time = task.source_time(3, seconds * SECOND, wall_millis).unwrap();
        assert_eq!(time.subtask, 3);
        let stands_for = (wall_millis - time.since_millis) / 1_000;
        (time.watermark, time.held_back_by, time.is_idle, stands_for)
    };
    // Nothing was heard of split 1: there is no watermark at all.
    assert_eq!(step_at(1), (WATERMARK_MIN, Some(1), false, 1));
    assert_eq!(step_at(2), (9, Some(1), false, 0));
    assert_eq!(step_at(3), (9, Some(1), false, 1));
    assert_eq!(step_at(4), (19, Some(1), false, 0));
    assert_eq!(step_at(5), (19, Some(1), false, 1));
    assert_eq!(step_at(13), (19, Some(1), false, 9));
    // Then it counts as idle, and split 0 is waited for, until that is idle too.
    assert_eq!(step_at(14), (1001, Some(0), false, 0));
    assert_eq!(step_at(15), (1001, None, true, 1));
}

#[test]
fn without_timestamps_there_is_no_event_time_to_tell_of() {
    let (task, _) = task(2, &[], NoTimestamps, SECOND);
    assert_eq!(task.source_time(0, SECOND, 0), None);
}
