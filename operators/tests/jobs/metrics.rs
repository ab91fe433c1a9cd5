//! What a job tells about itself is exactly right once it has ended.

use std::time::Duration;

use tidemill_engine::model::{
    source::{BoxError, Flow, Output, Polled, Reader, Source, SubtaskContext},
    time::Timestamp,
    watermark::WatermarkStrategy,
};
use tidemill_operators::{
    aggregate::Count,
    api::environment::StreamEnvironment,
    testkit::{
        job::settings,
        record::RecordSink,
        script::{Event, ScriptSource},
    },
    window::assigner::TumblingEventTime,
};

use crate::records::{Trade, trades};

#[test]
fn every_operator_counts_what_it_takes_and_hands_on() {
    for setting in settings(2) {
        let (sink, recorded) = RecordSink::new();
        let environment = setting.environment();
        environment
            .from_source("trades", ScriptSource::dealt(trades(150), 4), WatermarkStrategy::none())
            .uid("the origin")
            .flat_map(|trade| [trade, trade])
            .filter(|trade| trade.id < 100)
            .key_by(|trade| trade.account)
            .aggregate(Count)
            .name("counts")
            .map(|(_key, count)| count)
            .broadcast()
            .filter_map(|count| (count.to_native() == 1).then(|| count.to_native()))
            .sink("results", sink);
        let metrics = environment.execute().unwrap();
        let copies = setting.config.parallelism as u64;
        for (name, records_in, records_out) in [
            ("the origin", 150, 150),
            ("trades", 150, 150),
            ("flat_map", 150, 300),
            ("filter", 300, 200),
            ("key_by", 200, 200),
            ("counts", 200, 200),
            ("map", 200, 200),
            ("broadcast", 200, 200 * copies),
            ("filter_map", 200 * copies, 7 * copies),
            ("results", 7 * copies, 0),
        ] {
            let found = metrics.operator(name).unwrap();
            let counted = (found.counters.records_in, found.counters.records_out);
            assert_eq!(counted, (records_in, records_out), "{name} under {}", setting.name);
            assert_eq!(found.instances, setting.config.parallelism, "{name} under {}", setting.name);
            assert_eq!(found.watermark, Timestamp::MAX, "{name} under {}", setting.name);
            assert_eq!(found.watermark_lag_millis, None);
            assert_eq!(found.queue.0, 0, "nothing waits behind the end");
        }
        assert_eq!(recorded.len() as u64, 7 * copies);
        // A trade has 32 bytes, its timestamp none here, its hash 8.
        let key_by = &metrics.operator("key_by").unwrap().counters;
        assert_eq!(key_by.bytes_out, 200 * (size_of::<Trade>() as u64 + 8), "under {}", setting.name);
        // Operators of one task share its latency.
        for (name, records) in
            [("trades", 150), ("flat_map", 150), ("counts", 200), ("filter_map", 200 * copies)]
        {
            assert_eq!(
                metrics.operator(name).unwrap().latency.count(),
                records,
                "{name} under {}",
                setting.name
            );
        }
    }
}

#[test]
fn late_records_are_counted() {
    for setting in settings(2) {
        let environment = setting.environment();
        let ((sink, recorded), (late_sink, late)) = (RecordSink::new(), RecordSink::new());
        let strategy = WatermarkStrategy::for_monotonous_timestamps().with_timestamps(|at: &i64| *at);
        let (windows, late_records) = environment
            .from_source("times", ScriptSource::new([vec![5, 15, 3, 25, 24, 14, 35]]), strategy)
            .key_by(|_at| 0_u8)
            .window(TumblingEventTime::of(Duration::from_millis(10)))
            .split_late();
        windows.aggregate(Count).map(|result| result.value).sink("results", sink);
        late_records.map(|at| at.to_native()).sink("late", late_sink);
        let metrics = environment.execute().unwrap();
        let windows = &metrics.operator("window aggregate").unwrap().counters;
        let late = late.take_records();
        assert_eq!(windows.records_in, 7, "under {}", setting.name);
        assert_eq!(windows.late, late.len() as u64, "under {}", setting.name);
        assert_eq!(metrics.operator("late records").unwrap().counters.records_out, windows.late);
        let in_windows = recorded.take_records();
        assert_eq!(windows.records_out, in_windows.len() as u64);
        assert_eq!(in_windows.iter().sum::<u64>() + windows.late, 7, "under {}", setting.name);
        if setting.config.parallelism == 1 {
            // With more subtasks the others may end behind these records, and hold the watermark back until then.
            assert_eq!(late, [3, 14], "under {}", setting.name);
        }
    }
}

/// Skips every third of nine lines.
struct Skipping;

struct SkippingReader(bool);

impl Source for Skipping {
    type Item = u64;
    type Split = ();
    type Reader = SkippingReader;

    fn prepare(&mut self, _parallelism: usize) -> Result<(), BoxError> {
        Ok(())
    }

    fn splits(&self, _context: &SubtaskContext) -> Result<Vec<()>, BoxError> {
        Ok(vec![()])
    }

    fn open(&self, context: &SubtaskContext, _splits: Vec<()>) -> Result<SkippingReader, BoxError> {
        Ok(SkippingReader(context.subtask == 0))
    }
}

impl Reader for SkippingReader {
    type Item = u64;
    type Split = ();

    fn position(&self, _split: usize) {}

    fn poll<O: Output<u64>>(&mut self, output: &mut O, _now: u64) -> Result<Polled, BoxError> {
        if std::mem::take(&mut self.0) {
            output.skipped(3);
            output.bytes_read(90);
            if output.emit(0, 1) == Flow::Yield {
                return Ok(Polled::More);
            }
        }
        Ok(Polled::End)
    }
}

#[test]
fn skipped_records_and_bytes_read_are_counted() {
    for setting in settings(1) {
        let environment = setting.environment();
        let (sink, _recorded) = RecordSink::new();
        environment.from_source("lines", Skipping, WatermarkStrategy::none()).sink("results", sink);
        let metrics = environment.execute().unwrap();
        let lines = &metrics.operator("lines").unwrap().counters;
        assert_eq!((lines.skipped, lines.bytes_in, lines.records_out), (3, 90, 1), "under {}", setting.name);
    }
}

#[test]
fn a_source_whose_watermark_stands_still_names_the_split_that_holds_it() {
    let silent = [Event::Record(10_i64), Event::Wait(Duration::from_secs(3_600))];
    let busy = [Event::Record(1_000), Event::Wait(Duration::from_secs(3_600))];
    let source = ScriptSource::of_events([busy.to_vec(), silent.to_vec()]);
    let environment = StreamEnvironment::new().parallelism(1);
    let strategy = WatermarkStrategy::for_monotonous_timestamps().with_timestamps(|at: &i64| *at);
    let (sink, _recorded) = RecordSink::new();
    environment.from_source("clicks", source, strategy).name("clicks").sink("out", sink);
    let job = environment.start().unwrap();
    let held = loop {
        let metrics = job.metrics();
        let clicks = metrics.operator("clicks").map(|clicks| clicks.sources.clone()).unwrap_or_default();
        if let Some(time) = clicks.into_iter().find(|time| time.watermark == 9) {
            assert!(metrics.operator("out").is_some_and(|out| out.sources.is_empty()));
            break time;
        }
        std::thread::yield_now();
    };
    assert_eq!((held.subtask, held.held_back_by, held.is_idle), (0, Some(1), false));
    job.cancel();
}
