//! What a checkpoint holds of operators that a job does not have, in words.

use crate::model::{
    checkpoint::{OperatorState, Restored},
    metrics::OperatorInfo,
};

/// Ids and names of the operators whose state nobody would get. Of a sink it is said what would be given up.
pub(super) fn non_restored(restored: &Restored, operators: &[OperatorInfo]) -> Vec<String> {
    let is_there = |id: &String| operators.iter().any(|operator| operator.id == *id);
    restored.iter().filter(|(id, _)| !is_there(id)).map(|(id, state)| words(id, state)).collect()
}

fn words(id: &str, state: &OperatorState) -> String {
    let prepared: usize = state.subtasks.iter().map(|subtask| subtask.committables.len()).sum();
    let name = &state.name;
    if prepared == 0 {
        return format!("`{id}` ({name})");
    }
    format!(
        "`{id}` ({name}; a sink that has prepared {prepared} transactions or files: the rows of those that were not committed \
         before would be lost)"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::checkpoint::SubtaskState;

    #[test]
    fn a_sink_whose_rows_would_be_lost_is_told_from_others() {
        let operator = |name: &str, committables: &[usize]| {
            let subtask = |count: &usize| SubtaskState {
                committables: vec![vec![0]; *count],
                ..SubtaskState::default()
            };
            let subtasks = committables.iter().map(subtask).collect();
            OperatorState { name: name.to_owned(), subtasks }
        };
        let restored = [
            ("a", operator("sums", &[0])),
            ("b", operator("rows", &[2, 0, 1])),
            ("c", operator("here", &[4])),
        ];
        let restored = restored.map(|(id, state)| (id.to_owned(), state)).into_iter().collect();
        let here = [OperatorInfo { id: "c".to_owned(), name: "here".to_owned() }];
        let words = non_restored(&restored, &here);
        assert_eq!(words.len(), 2, "{words:?}");
        assert_eq!(words[0], "`a` (sums)");
        assert!(words[1].starts_with("`b` (rows; a sink that has prepared 3 "), "{words:?}");
    }
}
