//! Sources: one generator per core, each turning views into the query's own records.

use renoir::{
    BatchMode, Stream, StreamContext,
    operator::{Operator, Timestamp},
};

use super::Job;
use crate::nexmark::{EventRef, Generator, Split, WATERMARK_DELAY_MS};

/// Renoir's own default size, without the look at the clock that its default mode takes for every record.
const BATCH_RECORDS: usize = 1024;

/// The events of `job` that `FIELDS` selects, as records that `record` makes.
pub(super) fn events<const FIELDS: u32, T: Clone + Send + 'static, F>(
    context: &StreamContext,
    job: Job,
    record: F,
) -> Stream<impl Operator<Out = T> + use<FIELDS, T, F>>
where
    F: Fn(EventRef<'static>) -> Option<T> + Clone + Send + 'static,
{
    context
        .stream_par_iter(move |index, peers| {
            let split = Split::interleaved(0..job.events, index, peers);
            Generator::<FIELDS>::new(job.config, split).filter_map(record)
        })
        .batch_mode(BatchMode::fixed(BATCH_RECORDS))
}

/// Watermarks that trail the events by the benchmark's delay. Every one of them makes Renoir visit the
/// windows of all keys, so there is one each time it passes a multiple of `slide_ms` and may close a window.
pub(super) fn watermarks<T>(slide_ms: i64) -> impl FnMut(&T, &Timestamp) -> Option<Timestamp> + Clone + Send {
    let mut passed = i64::MIN;
    move |_, time| {
        let multiple = (time - WATERMARK_DELAY_MS).div_euclid(slide_ms);
        (multiple > passed).then(|| {
            passed = multiple;
            multiple * slide_ms
        })
    }
}
