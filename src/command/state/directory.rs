//! `tidemill state verify` of a job's directory, or of a savepoint: reads every file that its checkpoints need.

use serde_json::json;
use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;
use tidemill_engine::control::verify::{VerifiedDirectory, verify_directory};

use super::super::{failed, nothing_in};
use super::{size, verdict};

/// Reads and prints.
pub fn run(directory: &Path, as_json: bool) -> ExitCode {
    let (text, is_sound) = match verify_directory(directory) {
        Ok(verified) if as_json => (json_of(&verified), verified.is_sound()),
        Ok(verified) if verified.is_empty() => {
            return failed(&nothing_in(&directory.into()));
        }
        Ok(verified) => (text_of(&verified), verified.is_sound()),
        Err(error) => return refuse(&error.to_string(), as_json),
    };
    // A reader that closes its pipe early has seen enough: the verdict stands.
    let _ = io::stdout().lock().write_all(text.as_bytes());
    if is_sound { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Says why nothing was read.
pub fn refuse(why: &str, as_json: bool) -> ExitCode {
    if !as_json {
        return failed(why);
    }
    let text = format!("{}\n", json!({ "sound": false, "error": why }));
    let _ = io::stdout().lock().write_all(text.as_bytes());
    ExitCode::FAILURE
}

fn text_of(verified: &VerifiedDirectory) -> String {
    let VerifiedDirectory { whole, broken, unreadable, savepoint, state, .. } = verified;
    let (parts, segments) = (state.manifests, state.segments);
    verdict::text_of(whole, broken, unreadable, savepoint.as_ref())
        + &format!(
            "{parts} parts of state with {segments} segments, {}, {} records and {} removed keys are as they were written\n",
            size(state.bytes),
            state.records,
            state.removed_keys
        )
}

fn json_of(verified: &VerifiedDirectory) -> String {
    let VerifiedDirectory { whole, broken, unreadable, savepoint, state, .. } = verified;
    let mut all = verdict::json_of(whole, broken, unreadable, savepoint.as_ref());
    all["sound"] = verified.is_sound().into();
    all["manifests"] = state.manifests.into();
    all["segments"] = state.segments.into();
    all["bytes"] = state.bytes.into();
    all["records"] = state.records.into();
    all["removed_keys"] = state.removed_keys.into();
    format!("{all}\n")
}
