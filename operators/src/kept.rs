//! What an operator keeps in a checkpoint besides keyed state: one small record per subtask.
//!
//! Where an operator has as many subtasks as it had, each gets its own record back; else each gets all of them, and the
//! operator says how they become one.

use tidemill_engine::model::{
    checkpoint::Part,
    graph::{BuildContext, Share},
    operator::{OpenError, OperatorIndex, StepContext},
};
use tidemill_storage::{
    record::{Record, from_bytes, to_bytes},
    state::StateError,
};

/// Adds a record to the checkpoint whose barrier the operator was handed. What fails stops the job.
pub fn keep<T: Record>(operator: OperatorIndex, record: &T, context: &mut StepContext) {
    match to_bytes(record) {
        Ok(bytes) => context.add_part(operator, Part::Bytes(bytes.bytes().to_vec())),
        Err(error) => context.fail(operator, error.into()),
    }
}

/// What was kept that concerns this subtask: nothing in a fresh start; its own record where the parallelism is what it
/// was; else those of all subtasks.
///
/// # Errors
/// When the bytes are no such record, in the name of the operator.
pub fn restored<T: Record>(operator: OperatorIndex, context: &BuildContext) -> Result<Vec<T>, OpenError> {
    let Some(state) = context.take(operator, Share::Record) else { return Ok(Vec::new()) };
    let subtask = &context.subtask;
    let subtasks = match state.subtasks.len() == subtask.parallelism {
        true => &state.subtasks[subtask.subtask..=subtask.subtask],
        false => &state.subtasks[..],
    };
    let bytes = subtasks.iter().filter_map(|subtask| subtask.bytes.as_deref());
    bytes
        .map(|bytes| from_bytes::<T>(bytes))
        .collect::<Result<_, _>>()
        // The checkpoint is whole, by its checksum: they are those of something else.
        .map_err(|source| OpenError { operator, cause: StateError::OtherOperator { source }.into() })
}
