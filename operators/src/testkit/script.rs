//! A source that follows a script: records and pauses, split by split.

use std::{collections::VecDeque, time::Duration};

use tidemill_engine::{
    model::source::{BoxError, Flow, Output, Polled, Reader, Source, SubtaskContext},
    platform::Nanos,
};

/// What a split does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event<T> {
    /// Gives a record.
    Record(T),
    /// Is silent for this long, on the platform's clock.
    Wait(Duration),
}

/// Emits what its script says. Split i belongs to subtask i modulo the parallelism; the splits of a subtask take turns,
/// record by record. The input ends when every split has come to the end of its script.
#[derive(Clone, Debug)]
pub struct ScriptSource<T> {
    splits: Vec<Vec<Event<T>>>,
}

impl<T> ScriptSource<T> {
    /// Splits of records without pauses.
    pub fn new(splits: impl IntoIterator<Item = Vec<T>>) -> Self {
        let events = |records: Vec<T>| records.into_iter().map(Event::Record).collect();
        Self { splits: splits.into_iter().map(events).collect() }
    }

    /// Splits of records and pauses.
    pub fn of_events(splits: impl IntoIterator<Item = Vec<Event<T>>>) -> Self {
        Self { splits: splits.into_iter().collect() }
    }

    /// Deals records over `splits` splits in turn.
    pub fn dealt(records: impl IntoIterator<Item = T>, splits: usize) -> Self {
        let mut dealt: Vec<Vec<T>> = (0..splits).map(|_| Vec::new()).collect();
        for (index, record) in records.into_iter().enumerate() {
            dealt[index % splits].push(record);
        }
        Self::new(dealt)
    }
}

impl<T: Clone + Send + Sync + 'static> Source for ScriptSource<T> {
    type Item = T;
    type Split = (u64, u64);
    type Reader = ScriptReader<T>;

    fn prepare(&mut self, _parallelism: usize) -> Result<(), BoxError> {
        Ok(())
    }

    /// The number of a split and of its events that are behind it.
    fn splits(&self, context: &SubtaskContext) -> Result<Vec<(u64, u64)>, BoxError> {
        let own = (context.subtask..self.splits.len()).step_by(context.parallelism);
        Ok(own.map(|split| (split as u64, 0)).collect())
    }

    fn open(&self, _context: &SubtaskContext, splits: Vec<(u64, u64)>) -> Result<ScriptReader<T>, BoxError> {
        let split = |(split, passed): (u64, u64)| Split {
            number: split,
            passed,
            events: self.splits[split as usize].iter().skip(passed as usize).cloned().collect(),
            silent_until: None,
            finished: false,
        };
        Ok(ScriptReader { splits: splits.into_iter().map(split).collect(), next: 0 })
    }
}

/// Reads the splits of one subtask of a [`ScriptSource`].
pub struct ScriptReader<T> {
    splits: Vec<Split<T>>,
    next: usize,
}

struct Split<T> {
    number: u64,
    /// Events that are behind it.
    passed: u64,
    events: VecDeque<Event<T>>,
    silent_until: Option<Nanos>,
    finished: bool,
}

impl<T> Split<T> {
    /// The split's next record, if it has one at `now`.
    fn record(&mut self, now: Nanos) -> Option<T> {
        loop {
            if self.silent_until.is_some_and(|until| now < until) {
                return None;
            }
            self.silent_until = None;
            let event = self.events.pop_front()?;
            self.passed += 1;
            match event {
                Event::Record(record) => return Some(record),
                Event::Wait(pause) => {
                    let pause = u64::try_from(pause.as_nanos()).unwrap_or(u64::MAX);
                    self.silent_until = Some(now.saturating_add(pause));
                }
            }
        }
    }
}

impl<T: 'static> Reader for ScriptReader<T> {
    type Item = T;
    type Split = (u64, u64);

    fn splits(&self) -> usize {
        self.splits.len()
    }

    fn position(&self, split: usize) -> (u64, u64) {
        let Split { number, passed, .. } = self.splits[split];
        (number, passed)
    }

    fn poll<O: Output<T>>(&mut self, output: &mut O, now: Nanos) -> Result<Polled, BoxError> {
        let mut without_record = 0;
        while without_record < self.splits.len() {
            let index = self.next;
            self.next = (index + 1) % self.splits.len();
            let split = &mut self.splits[index];
            without_record += 1;
            if split.finished {
                continue;
            }
            if let Some(record) = split.record(now) {
                without_record = 0;
                if output.emit(index, record) == Flow::Yield {
                    return Ok(Polled::More);
                }
            } else if split.silent_until.is_none() {
                split.finished = true;
                output.finish_split(index);
            }
        }
        let silent = self.splits.iter().filter(|split| !split.finished);
        match silent.filter_map(|split| split.silent_until).min() {
            Some(until) => Ok(Polled::Pending(Some(until))),
            None => Ok(Polled::End),
        }
    }
}
