//! [`DataStreamSink`]: the end of a stream, to be named.

use tidemill_engine::model::operator::OperatorIndex;

use super::environment::SharedGraph;

/// The end of a stream: a sink, or a function that is called for each record. Nothing has to be done with it.
///
/// ```
/// use tidemill_engine::model::{config::JobConfig, watermark::WatermarkStrategy};
/// use tidemill_operators::{api::environment::StreamEnvironment, sink::FileSink, source::from_vec};
///
/// let environment = StreamEnvironment::with_config(JobConfig::default());
/// environment
///     .from_source("numbers", from_vec(vec![1_u64, 2, 3]), WatermarkStrategy::none())
///     .sink("rows", FileSink::csv("rows").columns(["number"]))
///     .uid("rows of numbers");
/// ```
pub struct DataStreamSink {
    graph: SharedGraph,
    operator: OperatorIndex,
}

impl DataStreamSink {
    pub(crate) fn new(graph: SharedGraph, operator: OperatorIndex) -> Self {
        Self { graph, operator }
    }

    /// Names the sink, for messages and metrics. Its id stays what it is.
    pub fn name(self, name: &str) -> Self {
        self.graph.borrow_mut().operator_mut(self.operator).name = name.to_owned();
        self
    }

    /// Gives the sink a stable id, by which what it has prepared is found again when the job has changed. Without one, the name
    /// that was given to [`Stream::sink`](super::stream::Stream::sink) is its id, if no other operator of the job has it.
    pub fn uid(self, id: &str) -> Self {
        self.graph.borrow_mut().set_id(self.operator, id);
        self
    }
}
