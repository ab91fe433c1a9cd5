//! What proves operators and jobs, for Tidemill's own tests and for yours.
//!
//! * [`OperatorTest`](operator::OperatorTest) drives one operator by hand: one item at a time and all at once, with an
//!   output that always has room and with one that is full every other call, stopped at barriers and gone on from the
//!   checkpoint, by as many subtasks or by others. What comes out has to be the same.
//! * [`same_everywhere`](job::same_everywhere) runs a whole job on both platforms, at several parallelisms and with
//!   several batch sizes, and compares the results with those that you worked out.
//! * [`ScriptSource`](script::ScriptSource) gives what you wrote down, split by split;
//!   [`RecordSink`](record::RecordSink) keeps what arrives, with timestamps.
//!
//! ```
//! use tidemill_engine::model::watermark::WatermarkStrategy;
//! use tidemill_operators::testkit::{job::same_everywhere, script::ScriptSource};
//!
//! same_everywhere(vec![2, 4, 6], |environment, results| {
//!     environment
//!         .from_source("numbers", ScriptSource::new([vec![1, 2], vec![3]]), WatermarkStrategy::none())
//!         .map(|number: i32| number * 2)
//!         .sink("results", results);
//! });
//! ```

mod drive;
pub mod job;
pub mod operator;
mod probe;
pub mod record;
mod restarts;
pub mod script;
mod stage;
