//! The least watermark over several inputs (channels of a task, or splits of a source), with idleness.
//!
//! Follows Flink's `StatusWatermarkValve`:
//! * the merged watermark is the least over inputs that are active and *aligned*; it never falls;
//! * an input that comes back from idleness behind the merged watermark is unaligned: it does not hold the others
//!   back (its records may be late) until its own watermark has caught up;
//! * when no open input is active, the merged watermark is the greatest that any input reached;
//! * an ended input is left out, and so is one whose watermark is `WATERMARK_MAX`, the last word before its end: it must
//!   not carry the merged watermark past the records of those that are only idle. The merged one is `WATERMARK_MAX` when
//!   that of every input was.

use crate::model::{
    operator::Signal,
    time::{Timestamp, WATERMARK_MAX, WATERMARK_MIN},
};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Status {
    Active,
    Unaligned,
    Idle,
    /// Nothing follows but the end.
    Complete,
    Ended,
}

#[derive(Clone, Copy, Debug)]
struct Input {
    /// The greatest but `WATERMARK_MAX`, which is a status.
    watermark: Timestamp,
    status: Status,
}

/// Merges the watermarks of a fixed number of inputs.
#[derive(Debug)]
pub struct WatermarkMerge {
    inputs: Vec<Input>,
    merged: Timestamp,
    idle: bool,
}

/// What a change of one input means for the merged stream: up to two signals, in this order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// `Active`, when the stream was idle and is no longer.
    pub activity: Option<Signal>,
    /// The merged watermark, when it rose.
    pub watermark: Option<Timestamp>,
    /// `Idle` or `End`, when every input is.
    pub rest: Option<Signal>,
}

impl WatermarkMerge {
    /// All inputs active, with no watermark yet.
    pub fn new(inputs: usize) -> Self {
        let input = Input { watermark: WATERMARK_MIN, status: Status::Active };
        Self { inputs: vec![input; inputs], merged: WATERMARK_MIN, idle: false }
    }

    /// The merged watermark.
    pub fn merged(&self) -> Timestamp {
        self.merged
    }

    /// The input that holds the merged watermark back: of those that are active and aligned the one furthest behind.
    pub fn held_back_by(&self) -> Option<usize> {
        let active = self.inputs.iter().enumerate().filter(|(_, input)| input.status == Status::Active);
        active.min_by_key(|(_, input)| input.watermark).map(|(index, _)| index)
    }

    /// Whether every input has ended.
    pub fn is_ended(&self) -> bool {
        self.inputs.iter().all(|input| input.status == Status::Ended)
    }

    /// Whether no input is active and one may be again.
    pub fn is_idle(&self) -> bool {
        self.idle && self.merged < WATERMARK_MAX
    }

    /// A watermark of one input. One that is lower than before is ignored.
    pub fn watermark(&mut self, input: usize, watermark: Timestamp) -> Outcome {
        let merged = self.merged;
        let state = &mut self.inputs[input];
        match state.status {
            Status::Active if watermark <= state.watermark => return Outcome::default(),
            Status::Complete | Status::Ended => return Outcome::default(),
            Status::Active | Status::Unaligned | Status::Idle => {}
        }
        if watermark == WATERMARK_MAX {
            state.status = Status::Complete;
        } else {
            state.watermark = state.watermark.max(watermark);
            state.status = if state.watermark >= merged { Status::Active } else { Status::Unaligned };
        }
        self.settle()
    }

    /// One input is idle from now on.
    pub fn idle(&mut self, input: usize) -> Outcome {
        if !matches!(self.inputs[input].status, Status::Complete | Status::Ended) {
            self.inputs[input].status = Status::Idle;
        }
        self.settle()
    }

    /// One input has records again.
    #[inline]
    pub fn active(&mut self, input: usize) -> Outcome {
        if self.inputs[input].status != Status::Idle {
            return Outcome::default();
        }
        let behind = self.inputs[input].watermark < self.merged;
        self.inputs[input].status = if behind { Status::Unaligned } else { Status::Active };
        self.settle()
    }

    /// Nothing follows on one input.
    pub fn end(&mut self, input: usize) -> Outcome {
        self.inputs[input].status = Status::Ended;
        self.settle()
    }

    fn settle(&mut self) -> Outcome {
        let mut outcome = Outcome::default();
        let with = |wanted: Status| self.inputs.iter().filter(move |input| input.status == wanted);
        let open = self.inputs.iter().any(|input| input.status != Status::Ended);
        let live = self.inputs.iter().any(|i| matches!(i.status, Status::Active | Status::Unaligned));
        let incomplete = live || with(Status::Idle).next().is_some();
        let candidate = if !incomplete {
            Some(WATERMARK_MAX)
        } else if live {
            with(Status::Active).map(|input| input.watermark).min()
        } else {
            self.inputs.iter().map(|input| input.watermark).max()
        };
        if live && self.idle {
            self.idle = false;
            outcome.activity = Some(Signal::Active);
        }
        if let Some(watermark) = candidate
            && watermark > self.merged
        {
            self.merged = watermark;
            outcome.watermark = Some(watermark);
        }
        if !open {
            outcome.rest = Some(Signal::End);
        } else if incomplete && !live && !self.idle {
            self.idle = true;
            outcome.rest = Some(Signal::Idle);
        }
        outcome
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raised(watermark: Timestamp) -> Outcome {
        Outcome { watermark: Some(watermark), ..Outcome::default() }
    }

    #[test]
    fn the_slowest_input_decides_and_an_idle_one_does_not() {
        let mut merge = WatermarkMerge::new(3);
        assert_eq!(merge.watermark(0, 10), Outcome::default());
        assert_eq!(merge.watermark(1, 7), Outcome::default());
        assert_eq!(merge.idle(2), raised(7));
        assert_eq!(merge.watermark(1, 9), raised(9));
        assert_eq!(merge.watermark(1, 8), Outcome::default(), "a falling watermark is ignored");
    }

    #[test]
    fn an_input_that_returns_late_does_not_hold_the_others_back_until_it_catches_up() {
        let mut merge = WatermarkMerge::new(2);
        merge.idle(1);
        assert_eq!(merge.watermark(0, 100), raised(100));
        assert_eq!(merge.active(1), Outcome::default());
        assert_eq!(merge.watermark(1, 50), Outcome::default());
        assert_eq!(merge.watermark(0, 200), raised(200));
        assert_eq!(merge.watermark(1, 250), Outcome::default(), "aligned again");
        assert_eq!(merge.watermark(0, 300), raised(250));
    }

    #[test]
    fn an_input_that_has_said_everything_does_not_carry_the_others_past_their_records() {
        let mut merge = WatermarkMerge::new(2);
        merge.watermark(1, 5);
        merge.idle(1);
        assert_eq!(merge.watermark(0, 100), raised(100));
        let idle = Outcome { rest: Some(Signal::Idle), ..Outcome::default() };
        assert_eq!(merge.watermark(0, WATERMARK_MAX), idle);
        assert_eq!(merge.end(0), Outcome::default());
        assert_eq!(merge.active(1).activity, Some(Signal::Active));
        assert_eq!(merge.watermark(1, 120), raised(120));
        assert_eq!(merge.watermark(1, WATERMARK_MAX), raised(WATERMARK_MAX));
        assert_eq!(merge.end(1), Outcome { rest: Some(Signal::End), ..Outcome::default() });
    }

    #[test]
    fn what_an_ended_input_has_reached_counts_once_the_others_are_idle() {
        let mut merge = WatermarkMerge::new(2);
        merge.watermark(0, 100);
        assert_eq!(merge.end(0), Outcome::default());
        assert_eq!(merge.idle(1), Outcome { rest: Some(Signal::Idle), ..raised(100) });
    }

    #[test]
    fn all_idle_takes_the_greatest_and_ends_are_left_out() {
        let mut merge = WatermarkMerge::new(3);
        merge.watermark(0, 5);
        merge.watermark(1, 9);
        assert_eq!(merge.end(2), raised(5));
        merge.idle(0);
        let outcome = merge.idle(1);
        assert_eq!(outcome.rest, Some(Signal::Idle));
        assert_eq!(merge.merged(), 9);
        assert_eq!(merge.active(1).activity, Some(Signal::Active));
        merge.end(1);
        let outcome = merge.end(0);
        assert_eq!((outcome.watermark, outcome.rest), (Some(WATERMARK_MAX), Some(Signal::End)));
        assert!(merge.is_ended());
    }
}
