//! Where records go that come after all their windows are gone: nowhere, or into a stream of their own.

use tidemill_engine::{
    model::{
        graph::BuildContext,
        item::{InPlace, Item},
        metrics::OperatorVisitor,
        operator::{OperatorIndex, Push, Signal, StepContext},
        time::Timestamp,
    },
    runtime::exchange::{batch::Columns, edge::Edge, partition::Forward, writer::EdgeWriter},
};
use tidemill_storage::record::Record;

use crate::exchange::open_writer;

/// Makes what takes the late records of one subtask.
pub trait LateBuilder<T: Record>: Clone + Send + 'static {
    /// What takes them.
    type Push: Push<InPlace<T>>;

    /// Opens it.
    fn build(self, context: &BuildContext) -> Self::Push;
}

/// Drops late records; the window operator counts them.
#[derive(Clone, Copy, Debug, Default)]
pub struct DropLate;

impl<T: Record> LateBuilder<T> for DropLate {
    type Push = Self;

    fn build(self, _context: &BuildContext) -> Self {
        self
    }
}

impl<I: Item> Push<I> for DropLate {
    fn push(&mut self, _item: I::Ref<'_>, _timestamp: Timestamp, _context: &mut StepContext) {}

    fn signal(&mut self, _signal: Signal, _context: &mut StepContext) {}

    fn drain(&mut self, _context: &mut StepContext) {}

    fn report(&self, _arrived: u64, _visitor: &mut dyn OperatorVisitor) {}
}

/// Hands late records to a stream of their own.
pub struct LateEdge<T> {
    /// The operator that stands for the side output in metrics.
    pub operator: OperatorIndex,
    /// The edge to the stream.
    pub edge: Edge<T>,
}

impl<T> Clone for LateEdge<T> {
    fn clone(&self) -> Self {
        Self { operator: self.operator, edge: self.edge.clone() }
    }
}

impl<T: Record> LateBuilder<T> for LateEdge<T> {
    type Push = EdgeWriter<T, Forward>;

    fn build(self, context: &BuildContext) -> Self::Push {
        let columns = Columns { timestamps: true, ..Columns::default() };
        open_writer::<T, T, Forward>(self.operator, Forward, columns, &self.edge, context)
    }
}
