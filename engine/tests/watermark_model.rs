//! The merge of watermarks against a slow model that remembers everything.
#![allow(clippy::unwrap_used)]

use proptest::{
    prelude::*,
    test_runner::{Config, RngSeed},
};
use tidemill_engine::{
    model::{
        operator::Signal,
        time::{Timestamp, WATERMARK_MAX, WATERMARK_MIN},
    },
    runtime::progress::merge::{Outcome, WatermarkMerge},
};

/// What happens to one input.
#[derive(Clone, Copy, Debug)]
enum Change {
    Watermark(Timestamp),
    LastWatermark,
    Idle,
    Active,
    End,
}

/// One input as the model sees it.
#[derive(Clone, Copy, Debug)]
struct Input {
    reached: Timestamp,
    idle: bool,
    complete: bool,
    ended: bool,
    /// Came back behind the merged watermark and has not caught up.
    behind: bool,
}

/// The rules of the merge, one after the other, from the state of all inputs.
struct Model {
    inputs: Vec<Input>,
    merged: Timestamp,
    idle: bool,
}

impl Model {
    fn apply(&mut self, index: usize, change: Change) -> Outcome {
        let merged = self.merged;
        let input = &mut self.inputs[index];
        match change {
            Change::Watermark(at) if !input.complete => {
                let falls = at <= input.reached && !input.idle && !input.behind;
                if !falls {
                    input.reached = input.reached.max(at);
                    input.idle = false;
                    input.behind = input.reached < merged;
                }
            }
            Change::LastWatermark => input.complete = true,
            Change::Idle if !input.complete => input.idle = true,
            Change::Active if !input.complete && input.idle => {
                input.idle = false;
                input.behind = input.reached < merged;
            }
            Change::End => {
                input.complete = true;
                input.ended = true;
            }
            Change::Watermark(_) | Change::Idle | Change::Active => {}
        }
        let open: Vec<&Input> = self.inputs.iter().filter(|input| !input.complete).collect();
        let active: Vec<&&Input> = open.iter().filter(|input| !input.idle).collect();
        let target = if open.is_empty() {
            WATERMARK_MAX
        } else if active.is_empty() {
            self.inputs.iter().map(|input| input.reached).max().unwrap()
        } else {
            active
                .iter()
                .filter(|input| !input.behind)
                .map(|input| input.reached)
                .min()
                .unwrap_or(WATERMARK_MIN)
        };
        let mut outcome = Outcome::default();
        if self.idle && !active.is_empty() {
            self.idle = false;
            outcome.activity = Some(Signal::Active);
        }
        if target > self.merged {
            self.merged = target;
            outcome.watermark = Some(target);
        }
        if self.inputs.iter().all(|input| input.ended) {
            outcome.rest = Some(Signal::End);
        } else if !open.is_empty() && active.is_empty() && !self.idle {
            self.idle = true;
            outcome.rest = Some(Signal::Idle);
        }
        outcome
    }
}

fn change() -> impl Strategy<Value = Change> {
    prop_oneof![
        8 => (0..50_i64).prop_map(Change::Watermark),
        1 => Just(Change::LastWatermark),
        3 => Just(Change::Idle),
        3 => Just(Change::Active),
        1 => Just(Change::End),
    ]
}

proptest! {
    #![proptest_config(Config {
        cases: 2000, failure_persistence: None, rng_seed: RngSeed::Fixed(1), ..Config::default()
    })]

    #[test]
    fn the_merge_does_what_its_rules_say(
        inputs in 1..5_usize,
        changes in prop::collection::vec((0..5_usize, change()), 1..60),
    ) {
        let input =
            Input { reached: WATERMARK_MIN, idle: false, complete: false, ended: false, behind: false };
        let mut model = Model { inputs: vec![input; inputs], merged: WATERMARK_MIN, idle: false };
        let mut merge = WatermarkMerge::new(inputs);
        for (index, change) in changes {
            let index = index % inputs;
            // Nothing follows an end.
            if model.inputs[index].ended {
                continue;
            }
            let before = merge.merged();
            let outcome = match change {
                Change::Watermark(at) => merge.watermark(index, at),
                Change::LastWatermark => merge.watermark(index, WATERMARK_MAX),
                Change::Idle => merge.idle(index),
                Change::Active => merge.active(index),
                Change::End => merge.end(index),
            };
            let expected = model.apply(index, change);
            // A change that does nothing may say nothing, also where it would repeat the end.
            prop_assert_eq!(outcome.watermark, expected.watermark, "{:?}", model.inputs);
            prop_assert_eq!(outcome.activity, expected.activity, "{:?}", model.inputs);
            prop_assert_eq!(outcome.rest, expected.rest, "{:?}", model.inputs);
            prop_assert!(merge.merged() >= before, "the watermark falls");
            prop_assert_eq!(merge.merged(), model.merged);
            prop_assert_eq!(merge.is_ended(), model.inputs.iter().all(|input| input.ended));
        }
    }
}
