//! What `tidemill state verify` says of checkpoints, wherever they are.

use serde_json::{Value, json};
use tidemill_engine::model::checkpoint::CheckpointId;

/// A line for each.
pub fn text_of(
    whole: &[CheckpointId],
    broken: &[(CheckpointId, String)],
    unreadable: &[String],
    savepoint: Option<&Result<CheckpointId, String>>,
) -> String {
    let mut text = String::new();
    whole.iter().for_each(|checkpoint| text += &format!("sound: checkpoint {checkpoint}\n"));
    for (checkpoint, what) in broken {
        text += &format!("damaged: checkpoint {checkpoint}: {what}\n");
    }
    unreadable.iter().for_each(|what| text += &format!("damaged: {what}\n"));
    match savepoint {
        Some(Ok(checkpoint)) => text += &format!("sound: savepoint {checkpoint}\n"),
        Some(Err(what)) => text += &format!("damaged: savepoint: {what}\n"),
        None => {}
    }
    text
}

/// All of them in one object.
pub fn json_of(
    whole: &[CheckpointId],
    broken: &[(CheckpointId, String)],
    unreadable: &[String],
    savepoint: Option<&Result<CheckpointId, String>>,
) -> Value {
    let damaged =
        |(checkpoint, error): &(CheckpointId, String)| json!({ "checkpoint": checkpoint, "error": error });
    let damaged: Vec<_> = broken.iter().map(damaged).collect();
    let savepoint = savepoint.map(|savepoint| match savepoint {
        Ok(checkpoint) => json!({ "checkpoint": checkpoint }),
        Err(error) => json!({ "error": error }),
    });
    json!({ "checkpoints": whole, "damaged": damaged, "unreadable": unreadable, "savepoint": savepoint })
}
