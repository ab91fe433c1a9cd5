//! Tidemill: a stream processing engine. Flink's model on a thread-per-core, shared-nothing machine.
//!
//! A job is described with a [`StreamEnvironment`](prelude::StreamEnvironment): streams come from sources, pass through
//! operators and end in sinks. Then it runs, on one pinned worker per core.
//!
//! ```
//! use std::time::Duration;
//! use tidemill::prelude::*;
//!
//! #[derive(Record, Clone)]
//! struct Reading { sensor: u32, at_ms: i64, celsius: f64 }
//!
//! let readings = (0..100).map(|n| Reading { sensor: n % 2, at_ms: i64::from(n) * 100, celsius: f64::from(n) });
//! let env = StreamEnvironment::new().parallelism(2);
//! let (hottest, results) = CollectSink::new();
//! env.from_source(
//!     "readings",
//!     from_vec(readings.collect()),
//!     WatermarkStrategy::for_monotonous_timestamps().with_timestamps(|reading: &Reading| reading.at_ms),
//! )
//! .key_by(|reading| reading.sensor)
//! .window(TumblingEventTime::of(Duration::from_secs(1)))
//! .reduce(|hottest, reading| if reading.celsius > hottest.celsius { reading.clone() } else { hottest })
//! .map(|hottest| (hottest.key, hottest.window.start, hottest.value.celsius))
//! .sink("hottest", hottest);
//! env.execute()?;
//! # let mut results = results.take();
//! # results.sort_by(|a, b| a.partial_cmp(b).unwrap());
//! # assert_eq!(results.len(), 20);
//! # assert_eq!(results[0], (0, 0, 8.0));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Functions behind an exchange (`key_by`, `rebalance`, …) get `&Archived<T>`: the record as it lies in the batch that
//! brought it, read in place.
//!
//! This crate only re-exports: see [`model`](mod@model) for contracts, [`operators`] for all operators, [`platform`] for
//! the seam to the machine.

#[cfg(doctest)]
mod book;

pub use tidemill_engine::{control, launch, model, platform, runtime};
pub use tidemill_operators as operators;
pub use tidemill_operators::{sim, sink, source};
pub use tidemill_storage as storage;
#[doc(hidden)]
pub use tidemill_storage::__private;
pub use tidemill_storage::{Record, WriteAs};

/// The archived form of a record type: what functions behind an exchange read in place.
pub type Archived<T> = <T as __private::rkyv::Archive>::Archived;

/// What most jobs need.
pub mod prelude {
    pub use crate::Archived;
    pub use tidemill_engine::{
        control::handle::{JobHandle, JobMonitor},
        model::{
            checkpoint_config::{CheckpointConfig, RestartStrategy},
            config::{JobConfig, StateBackendKind},
            error::Error,
            item::{InPlace, Owned},
            metrics::JobMetrics,
            operator::Chain,
            source::BoxError,
            time::Timestamp,
            watermark::WatermarkStrategy,
        },
    };
    pub use tidemill_operators::{
        aggregate::{AggregateFunction, Count},
        api::{
            combined::CombinedStream,
            data_stream_sink::DataStreamSink,
            environment::StreamEnvironment,
            keyed::KeyedStream,
            stream::{ExchangedStream, Stream},
            windowed::WindowedStream,
        },
        keyed::process::{
            AggregatingState, FiredTimer, KeyedProcessFunction, ListState, MapState, ProcessContext,
            ReducingState, StateRegistry, ValueState,
        },
        sink::*,
        source::*,
        window::{
            assigner::{SlidingEventTime, TimeWindow, TumblingEventTime},
            function::WindowResult,
        },
    };
    pub use tidemill_storage::{
        Record, WriteAs,
        key::{BytesKey, Key},
        kinds::{
            aggregating::Aggregate,
            descriptor::{ListStateDescriptor, MapStateDescriptor, ValueStateDescriptor},
            ttl::{TtlConfig, TtlUpdate, TtlVisibility},
        },
    };
}
