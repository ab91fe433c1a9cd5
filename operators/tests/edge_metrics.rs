//! What an edge carries is counted on both sides alike.

use tidemill_engine::model::{config::JobConfig, watermark::WatermarkStrategy};
use tidemill_operators::{
    aggregate::Count, api::environment::StreamEnvironment, sink::BlackholeSink, source::from_vec,
};

#[test]
fn bytes_handed_to_an_exchange_are_bytes_taken_from_it() {
    let env = StreamEnvironment::with_config(JobConfig { parallelism: 3, ..JobConfig::default() });
    let words: Vec<String> =
        (0..10_000).map(|n| format!("a word that lies out of line, {}", n % 77)).collect();
    env.from_source("words", from_vec(words), WatermarkStrategy::none())
        .key_by_ref(|word| word.as_str())
        .aggregate(Count)
        .sink("counts", BlackholeSink::new());
    let metrics = env.execute().unwrap();
    let [sent, taken] = ["key_by", "aggregate"].map(|name| metrics.operator(name).unwrap().counters.clone());
    assert_eq!((sent.records_out, taken.records_in), (10_000, 10_000));
    assert!(sent.bytes_out > 10_000 * 30, "{sent:?}");
    assert_eq!(sent.bytes_out, taken.bytes_in);
}
