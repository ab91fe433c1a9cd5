//! The beginning of a chain that reads from a source.

use std::sync::{Arc, Mutex, PoisonError};

use tidemill_engine::{
    model::{
        checkpoint::SplitPart,
        graph::{BuildContext, Share},
        item::Owned,
        operator::{Chain, OpenError, OperatorIndex, Push},
        source::{BoxError, Source},
        time::Timestamp,
        watermark::{AssignTimestamps, WatermarkStrategy},
    },
    runtime::{
        blame::Blame,
        source_task::{SourceConfig, SourceTask},
    },
};
use tidemill_storage::record::{Record, from_bytes};

use crate::source::error::SourceError;

/// A chain that begins with a source.
pub struct FromSource<S, A> {
    operator: OperatorIndex,
    source: Arc<Mutex<S>>,
    strategy: WatermarkStrategy<A>,
}

impl<S: Source, A> FromSource<S, A> {
    /// Begins a chain.
    pub fn new(operator: OperatorIndex, source: S, strategy: WatermarkStrategy<A>) -> Self {
        Self { operator, source: Arc::new(Mutex::new(source)), strategy }
    }

    /// What checks the source before the job starts.
    pub fn preparation(&self, parallelism: usize) -> impl FnMut() -> Result<(), BoxError> + Send + use<S, A> {
        let source = Arc::clone(&self.source);
        move || source.lock().unwrap_or_else(PoisonError::into_inner).prepare(parallelism)
    }
}

impl<S, A: Clone> Clone for FromSource<S, A> {
    fn clone(&self) -> Self {
        Self { operator: self.operator, source: Arc::clone(&self.source), strategy: self.strategy.clone() }
    }
}

impl<S: Source, A: AssignTimestamps<S::Item>> Chain for FromSource<S, A> {
    type Out = Owned<S::Item>;
    type Task<D: Push<Owned<S::Item>>> = SourceTask<S::Reader, A, D>;

    fn build<D: Push<Owned<S::Item>>>(
        self,
        context: &BuildContext,
        down: D,
    ) -> Result<Self::Task<D>, OpenError> {
        let Self { operator, source, strategy } = self;
        let (reader, newest) = Blame::on(operator, || {
            let source = source.lock().unwrap_or_else(PoisonError::into_inner);
            open(&*source, operator, context)
        })
        .map_err(|cause| OpenError { operator, cause })?;
        let config = SourceConfig::new(operator, context);
        Ok(SourceTask::new(reader, &newest, strategy.assign, strategy.bounds, down, config))
    }
}

/// Opens the reader of one subtask: with the splits that a checkpoint has for it and the greatest timestamp seen in each, or
/// from the beginning.
fn open<S: Source>(
    source: &S,
    operator: OperatorIndex,
    context: &BuildContext,
) -> Result<(S::Reader, Vec<Timestamp>), BoxError> {
    let subtask = &context.subtask;
    let restored = context.take(operator, Share::Splits);
    let Some(parts) = restored.and_then(|state| state.splits(subtask.subtask, subtask.parallelism)) else {
        return Ok((source.open(subtask, source.splits(subtask)?)?, Vec::new()));
    };
    let splits = parts.iter().map(|part| restore::<S::Split>(part)).collect::<Result<_, _>>()?;
    let newest = parts.iter().map(|part| part.newest).collect();
    Ok((source.open(subtask, splits)?, newest))
}

fn restore<T: Record>(part: &SplitPart) -> Result<T, BoxError> {
    if part.schema != T::schema() {
        let (stored, wanted) = (part.schema.to_string(), T::schema().into_owned());
        return Err(SourceError::OtherSplits { stored, wanted }.into());
    }
    Ok(from_bytes(&part.bytes)?)
}
