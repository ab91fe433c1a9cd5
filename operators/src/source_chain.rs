//! The beginning of a chain that reads from a source.

use std::sync::{Arc, Mutex, PoisonError};

use tidemill_engine::{
    model::{
        graph::BuildContext,
        item::Owned,
        operator::{Chain, OpenError, OperatorIndex, Push},
        source::{BoxError, Source},
        watermark::{AssignTimestamps, WatermarkStrategy},
    },
    runtime::{
        blame::Blame,
        source_task::{SourceConfig, SourceTask},
    },
};

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
        let opened = Blame::on(operator, || {
            source.lock().unwrap_or_else(PoisonError::into_inner).open(&context.subtask)
        });
        let reader = opened.map_err(|cause| OpenError { operator, cause })?;
        let config = SourceConfig::new(operator, &context.config, Arc::clone(&context.subtask.clock));
        Ok(SourceTask::new(reader, strategy.assign, strategy.bounds, down, config))
    }
}
