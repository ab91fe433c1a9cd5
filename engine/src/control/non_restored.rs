//! What a checkpoint holds of operators that a job does not have, in words.

use crate::model::checkpoint::{OperatorState, Restored, SubtaskState};

/// What an operator of the job can take up.
#[derive(Clone, Copy)]
pub(super) struct Takes {
    /// What a sink has prepared.
    pub(super) prepared: bool,
    /// What was under way behind it.
    pub(super) under_way: bool,
}

/// Ids and names of the operators of whose part nobody would get all, and what would be lost. Whether an operator that is there takes up its
/// state, it shows itself when it is built.
pub(super) fn non_restored(restored: &Restored, takes: impl Fn(&str) -> Option<Takes>) -> Vec<String> {
    restored.iter().filter_map(|(id, state)| words(id, state, takes(id))).collect()
}

fn words(id: &str, state: &OperatorState, takes: Option<Takes>) -> Option<String> {
    let nothing = Takes { prepared: false, under_way: false };
    let Takes { prepared: commits, under_way: hands_on } = takes.unwrap_or(nothing);
    let sum = |count: fn(&SubtaskState) -> usize| state.subtasks.iter().map(count).sum::<usize>();
    let mut lost = Vec::new();
    let prepared = sum(|subtask| subtask.committables.len());
    if prepared > 0 && !commits {
        lost.push(format!(
            "a sink that has prepared {prepared} transactions or files, the rows of which would be lost if they were not committed before, \
             or writes in place and says how far"
        ));
    }
    if !hands_on && sum(|subtask| subtask.in_flight.len()) > 0 {
        lost.push("records that were under way behind it would be lost".to_owned());
    }
    if takes.is_some() && lost.is_empty() {
        return None;
    }
    let lost: String = lost.into_iter().map(|lost| format!("; {lost}")).collect();
    Some(format!("`{id}` ({name}{lost})", name = state.name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::checkpoint::{ChannelEnd, InFlight};

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
            ("d", operator("no sink any more", &[1])),
        ];
        let restored = restored.map(|(id, state)| (id.to_owned(), state)).into_iter().collect();
        let takes = |id: &str| match id {
            "c" => Some(Takes { prepared: true, under_way: false }),
            "d" => Some(Takes { prepared: false, under_way: true }),
            _ => None,
        };
        let words = non_restored(&restored, takes);
        assert_eq!(words.len(), 3, "{words:?}");
        assert!(words[2].starts_with("`d` (no sink any more; a sink that has prepared 1 "), "{words:?}");
        assert_eq!(words[0], "`a` (sums)");
        assert!(words[1].starts_with("`b` (rows; a sink that has prepared 3 "), "{words:?}");
    }

    #[test]
    fn records_under_way_to_nowhere_are_told() {
        let in_flight = InFlight {
            from: 0,
            to: 1,
            producers: 2,
            consumers: 2,
            end: ChannelEnd::Sender,
            schema: "u64".into(),
            bytes: vec![0],
        };
        let subtask = SubtaskState { in_flight: vec![in_flight], ..SubtaskState::default() };
        let state = OperatorState { name: "keys".to_owned(), subtasks: vec![subtask] };
        let restored = Restored::from([("a".to_owned(), state)]);
        let words = |under_way| non_restored(&restored, |_| Some(Takes { prepared: false, under_way }));
        assert!(words(true).is_empty());
        assert!(words(false)[0].contains("`a` (keys; records that were under way behind it"));
    }
}
