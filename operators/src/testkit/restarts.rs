//! An operator that is stopped at barriers: other instances go on from what it added to the checkpoint.
//!
//! A run is cut into *legs*. Each ends in a barrier; what comes out behind that is lost, as it is when a job goes back to
//! its checkpoint, and what the operator added is all that the next leg knows of those before it. A leg may have several
//! subtasks, of which each gets the records of its key groups and all signals, and any number of barriers that nobody goes
//! back to. It begins with a watermark below the last one, which nobody may take for news.

use std::{path::PathBuf, sync::Arc};

use tidemill_engine::model::{
    checkpoint::{
        Barrier, BarrierKind, CheckpointContext, CheckpointId, OperatorState, Restored, SubtaskState,
    },
    config::JobConfig,
    item::Item,
    operator::{Chain, OperatorIndex, Signal},
    time::{Timestamp, WATERMARK_MIN},
};
use tidemill_storage::{
    key::{hash_bits, key_group, key_group_range},
    snapshot::disk::memory::MemoryDisk,
};

use super::{
    drive::{Driven, Place, context, drive, id},
    operator::{Given, Seen},
};

/// Number of key groups.
const KEY_GROUPS: u32 = 128;
/// Places at which a run is cut once, at most.
const CUTS_MAX: usize = 48;
/// Plans that are drawn for a random test.
const DRAWN: u64 = 3;

/// A part of a run.
#[derive(Clone, Debug)]
pub(super) struct Leg {
    /// The first item that it is not given.
    pub(super) until: usize,
    /// By how many subtasks it is run.
    pub(super) subtasks: usize,
    /// Whether there is a barrier between any two items, too, that nobody goes back to.
    pub(super) often: bool,
}

/// Ways to cut the run of `items` items, with their names.
pub(super) fn plans(items: usize, rescales: bool) -> Vec<(String, Vec<Leg>)> {
    let leg = |until, subtasks| Leg { until, subtasks, often: false };
    // Nothing is stopped behind the end.
    let cuts = 0..items;
    let stride = items.div_ceil(CUTS_MAX).max(1);
    let mut plans = Vec::new();
    for cut in cuts.clone().step_by(stride) {
        plans.push((format!("stopped at {cut}"), vec![leg(cut, 1), leg(items, 1)]));
    }
    let everywhere = cuts.clone().chain([items]).map(|cut| leg(cut, 1)).collect();
    plans.push(("stopped everywhere".to_owned(), everywhere));
    let thirds = cuts.clone().step_by(3).chain([items]);
    let often = thirds.map(|until| Leg { until, subtasks: 1, often: true }).collect();
    plans.push(("stopped at every third barrier".to_owned(), often));
    if rescales {
        for (from, to, back) in [(1, 2, 1), (1, 3, 2), (3, 2, 3), (2, 5, 1)] {
            for cut in cuts.clone().step_by(3 * stride) {
                let middle = cut + (items - cut) / 2;
                let legs = vec![leg(cut, from), leg(middle, to), leg(items, back)];
                plans.push((format!("{from} subtasks, {to} from {cut}, {back} from {middle}"), legs));
            }
        }
        let subtasks = [1, 2, 3, 1, 4].into_iter().cycle();
        let changing = cuts.step_by(2).chain([items]).zip(subtasks).map(|(cut, subtasks)| leg(cut, subtasks));
        plans.push(("another number of subtasks everywhere".to_owned(), changing.collect()));
    }
    plans
}

/// Some of the plans.
pub(super) fn drawn(plans: Vec<(String, Vec<Leg>)>, seed: u64) -> Vec<(String, Vec<Leg>)> {
    let count = plans.len() as u64;
    let drawn = (0..DRAWN).map(|number| hash_bits(seed ^ hash_bits(number)) % count);
    drawn.map(|at| plans[at as usize].clone()).collect()
}

/// Runs the operator leg by leg; returns what came out.
pub(super) fn run<T: Clone, C: Chain>(
    given: &[Given<T>],
    legs: &[Leg],
    often_full: bool,
    setting: &str,
    hash: impl Fn(&T) -> u64,
    chain: impl Fn(Arc<Vec<Given<T>>>) -> C,
) -> Vec<Seen<<C::Out as Item>::Native>> {
    let config = JobConfig { max_parallelism: Some(KEY_GROUPS), ..JobConfig::default() };
    let disk = MemoryDisk::default();
    let (mut from, mut checkpoint) = (0, 0);
    let mut restored = Arc::new(Restored::new());
    let mut seen = Vec::new();
    for (number, leg) in legs.iter().enumerate() {
        let barrier = (number + 1 < legs.len()).then_some(());
        let before = checkpoint;
        let mut next = Restored::new();
        let mut outputs = Vec::new();
        for subtask in 0..leg.subtasks {
            checkpoint = before;
            let groups = key_group_range(subtask as u32, KEY_GROUPS, leg.subtasks as u32);
            let behind = behind(&given[..from]);
            let mut items = wall_clock(&given[..from]);
            items.extend(behind.map(Given::Signal));
            for item in &given[from..leg.until] {
                let is_here = match item {
                    Given::Record(record, _) => groups.contains(&key_group(hash(record), KEY_GROUPS)),
                    Given::Signal(_) | Given::WallClock(_) => true,
                };
                items.extend(is_here.then(|| item.clone()));
                if leg.often && barrier.is_some() {
                    items.push(next_barrier(&mut checkpoint));
                }
            }
            items.extend(barrier.map(|()| next_barrier(&mut checkpoint)));
            let checkpoints = CheckpointContext {
                ends_with_checkpoint: true,
                restored: Arc::clone(&restored),
                state_dir: Some(PathBuf::from(format!("/state/{number}")).into()),
                before,
            };
            let now = number as u64;
            let place = Place { subtask, parallelism: leg.subtasks, now, disk: disk.clone(), checkpoints };
            let context = context(config.clone(), place);
            let Driven { seen, passed, .. } = drive(chain(Arc::new(items)), &context, often_full, setting);
            assert_eq!(passed.len() as u64, checkpoint - before, "barriers are missing; under {setting}");
            let mut seen = until_barrier(seen, barrier.map(|()| checkpoint), setting);
            // Who keeps no watermark hands it on.
            let handed_on =
                seen.iter().position(|one| matches!(one, Seen::Signal(signal) if behind == Some(*signal)));
            handed_on.map(|at| seen.remove(at));
            outputs.push(seen);
            let states = passed.into_iter().last().map(|(_, states)| states).unwrap_or_default();
            add(&mut next, subtask, leg.subtasks, states);
        }
        seen.extend(merge(outputs, setting));
        restored = Arc::new(next);
        from = leg.until;
    }
    check_watermarks(&seen, setting);
    seen
}

fn next_barrier<T>(checkpoint: &mut CheckpointId) -> Given<T> {
    *checkpoint += 1;
    Given::Signal(Signal::Barrier(Barrier { checkpoint: *checkpoint, kind: BarrierKind::Running }))
}

/// A watermark below the last one: behind a restart senders reach again where they were. Without records before it, so that
/// it is the first of its leg that comes out, if it does.
fn behind<T>(given: &[Given<T>]) -> Option<Signal> {
    let last = given.iter().rev().find_map(|item| match item {
        Given::Signal(Signal::Watermark(watermark)) => Some(*watermark),
        Given::Record(..) | Given::Signal(_) | Given::WallClock(_) => None,
    });
    last.map(|watermark| Signal::Watermark(watermark.saturating_sub(1)))
}

/// The wall clock as it was last set.
fn wall_clock<T>(given: &[Given<T>]) -> Vec<Given<T>> {
    let last = given.iter().rev().find_map(|item| match item {
        Given::WallClock(millis) => Some(*millis),
        Given::Record(..) | Given::Signal(_) => None,
    });
    last.map(Given::WallClock).into_iter().collect()
}

/// What came out before a barrier, without barriers; all of it where there is none.
fn until_barrier<U>(seen: Vec<Seen<U>>, checkpoint: Option<CheckpointId>, setting: &str) -> Vec<Seen<U>> {
    let mut last = 0;
    let mut kept = Vec::new();
    for one in seen {
        if let Seen::Signal(Signal::Barrier(barrier)) = one {
            assert!(barrier.checkpoint > last, "a barrier comes out of turn; under {setting}");
            last = barrier.checkpoint;
            if checkpoint == Some(last) {
                return kept;
            }
        } else {
            kept.push(one);
        }
    }
    assert_eq!(checkpoint, None, "the barrier does not come out; under {setting}");
    kept
}

/// Adds what a subtask has in a checkpoint.
fn add(
    checkpoint: &mut Restored,
    subtask: usize,
    subtasks: usize,
    states: Vec<(OperatorIndex, SubtaskState)>,
) {
    for (operator, state) in states {
        let all = checkpoint.entry(id(operator)).or_insert_with(|| OperatorState {
            name: id(operator),
            subtasks: vec![SubtaskState::default(); subtasks],
        });
        all.subtasks[subtask] = state;
    }
}

/// The output of all subtasks as one: all say the same signals, between which their records come in no order.
fn merge<U>(outputs: Vec<Vec<Seen<U>>>, setting: &str) -> Vec<Seen<U>> {
    let mut outputs: Vec<_> = outputs.into_iter().map(|output| output.into_iter().peekable()).collect();
    let mut merged = Vec::new();
    loop {
        for output in &mut outputs {
            while let Some(record) = output.next_if(|one| matches!(one, Seen::Record(..))) {
                merged.push(record);
            }
        }
        let signals = outputs.iter_mut().map(|output| match output.next() {
            Some(Seen::Signal(signal)) => Some(signal),
            _ => None,
        });
        let signals: Vec<Option<Signal>> = signals.collect();
        let first = signals.first().copied().flatten();
        assert!(
            signals.iter().all(|signal| *signal == first),
            "subtasks say different signals: {signals:?}; under {setting}"
        );
        let Some(signal) = first else { return merged };
        merged.push(Seen::Signal(signal));
    }
}

/// The watermark does not fall behind a restart either.
fn check_watermarks<U>(seen: &[Seen<U>], setting: &str) {
    let mut watermark: Timestamp = WATERMARK_MIN;
    for one in seen {
        if let Seen::Signal(Signal::Watermark(next)) = one {
            assert!(*next >= watermark, "the watermark falls: {watermark} {next}; under {setting}");
            watermark = *next;
        }
    }
}
