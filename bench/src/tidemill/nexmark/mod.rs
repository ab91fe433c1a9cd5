//! The Nexmark queries on the typed API, from the same generated events as the peers' and with fields of the same
//! selection. Our natural record type is a view whose text is borrowed: it crosses an exchange as the
//! record that owns the text, written once.

mod q0;
mod q1;
mod q2;
mod q5;
mod q8;

use ::tidemill::{model::watermark::AssignTimestamps, prelude::*};

use crate::{
    error::BenchError,
    nexmark::{Config, EventRef, Generator, Query, Split},
    peers::QueryRun,
};

/// Answers `query` over events `0..events` on `cores` cores.
///
/// # Errors
/// [`BenchError::Peer`] when the job fails.
pub fn run(query: Query, config: Config, events: u64, cores: usize) -> Result<QueryRun, BenchError> {
    let job = Job { config, events, cores };
    match query {
        Query::Q0 => q0::run(job),
        Query::Q1 => q1::run(job),
        Query::Q2 => q2::run(job),
        Query::Q5 => q5::run(job, None).map(|(run, _)| run),
        Query::Q8 => q8::run(job),
    }
}

/// As [`run`] of q5, with checkpoints; how many were completed.
///
/// # Errors
/// As [`run`].
pub fn run_q5(
    config: Config,
    events: u64,
    cores: usize,
    checkpoints: Option<CheckpointConfig>,
) -> Result<(QueryRun, u64), BenchError> {
    q5::run(Job { config, events, cores }, checkpoints)
}

/// What every query needs to know.
#[derive(Clone, Copy)]
struct Job {
    config: Config,
    events: u64,
    cores: usize,
}

impl Job {
    /// The records that `record` makes of the events that `FIELDS` selects.
    fn source<const FIELDS: u32, T, F, A>(
        self,
        env: &StreamEnvironment,
        record: F,
        strategy: WatermarkStrategy<A>,
    ) -> Stream<impl Chain<Out = Owned<T>> + use<FIELDS, T, F, A>>
    where
        T: 'static,
        F: Fn(EventRef<'static>) -> Option<T> + Copy + Send + Sync + 'static,
        A: AssignTimestamps<T>,
    {
        let Self { config, events, .. } = self;
        let events = from_parallel_iter(move |subtask, parallelism| {
            let split = Split::interleaved(0..events, subtask as u64, parallelism as u64);
            Records { events: Generator::<FIELDS>::new(config, split), record }
        });
        env.from_source("events", events, strategy)
    }
}

impl Job {
    /// The same, made by number, for queries that read nearly all events: one by one, and those that are not selected left out.
    fn numbered<const FIELDS: u32, T, F>(
        self,
        env: &StreamEnvironment,
        record: F,
    ) -> Stream<impl Chain<Out = Owned<T>> + use<FIELDS, T, F>>
    where
        T: 'static,
        F: Fn(EventRef<'static>) -> Option<T> + Copy + Send + Sync + 'static,
    {
        let mut events = Generator::<FIELDS>::new(self.config, Split::whole(0..self.events));
        let records = from_generator(0..self.events, move |n| events.event(n).and_then(record));
        env.from_source("events", records, WatermarkStrategy::none()).filter_map(|record| record)
    }
}

/// Events as the records of a query: what `filter_map` does, inlined into whoever asks for the next one, so that the compiler leaves out what
/// the query does not read. `FilterMap::next` is so or not as the compiler likes: q2 had 332 or 255 M events/s by that alone.
struct Records<const FIELDS: u32, F> {
    events: Generator<FIELDS>,
    record: F,
}

impl<const FIELDS: u32, T, F: Fn(EventRef<'static>) -> Option<T>> Iterator for Records<FIELDS, F> {
    type Item = T;

    #[inline(always)]
    fn next(&mut self) -> Option<T> {
        loop {
            if let Some(record) = (self.record)(self.events.next()?) {
                return Some(record);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{nexmark::reference, tidemill::NAME};

    #[test]
    fn answers_equal_the_reference_on_any_number_of_cores() {
        // Slow enough that windows close while events still come: 30 s of event time.
        let (config, events) = (Config::with_rate(2_000), 60_000);
        for query in Query::ALL {
            let expected = reference::answer(query, config, events);
            for cores in [1, 2, 3, 8] {
                let run = run(query, config, events, cores).unwrap();
                run.answer.check(NAME, query, &expected).unwrap();
            }
        }
    }
}
