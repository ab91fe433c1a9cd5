//! `tidemill state verify` of a remote store: reads every block in it.

use serde_json::json;
use std::io::{self, Write};
use std::process::ExitCode;
use tidemill_engine::control::archive::{Verified, verify};
use tidemill_engine::platform::GlommioPlatform;
use tidemill_engine::platform::remote::RemoteConfig;

use super::super::{failed, open};
use super::{size, verdict};

/// Reads and prints.
pub fn run(remote: &RemoteConfig, as_json: bool) -> ExitCode {
    let verified = open(remote)
        .and_then(|store| verify(&*store, &GlommioPlatform::new()).map_err(|error| error.to_string()));
    let (text, is_sound) = match verified {
        Ok(verified) if as_json => (json_of(&verified), verified.is_sound()),
        Ok(verified) if is_empty(&verified) => {
            return failed(&format!("there are no checkpoints in {}", remote.url()));
        }
        Ok(verified) => (text_of(&verified), verified.is_sound()),
        Err(why) if as_json => (format!("{}\n", json!({ "sound": false, "error": why })), false),
        Err(why) => return failed(&why),
    };
    // A reader that closes its pipe early has seen enough: the verdict stands.
    let _ = io::stdout().lock().write_all(text.as_bytes());
    if is_sound { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn is_empty(verified: &Verified) -> bool {
    let Verified { whole, broken, unreadable, savepoint, .. } = verified;
    whole.is_empty() && broken.is_empty() && unreadable.is_empty() && savepoint.is_none()
}

fn text_of(verified: &Verified) -> String {
    let Verified { whole, broken, unreadable, unneeded, savepoint, blocks, bytes, .. } = verified;
    let mut text = verdict::text_of(whole, broken, unreadable, savepoint.as_ref());
    text += &format!("{blocks} blocks are as they were put, {}", size(*bytes));
    if *unneeded > 0 {
        text += &format!("; {unneeded} more are needed by nothing");
    }
    text + "\n"
}

fn json_of(verified: &Verified) -> String {
    let Verified { whole, broken, unreadable, unneeded, savepoint, blocks, bytes, .. } = verified;
    let mut all = verdict::json_of(whole, broken, unreadable, savepoint.as_ref());
    all["sound"] = verified.is_sound().into();
    all["blocks"] = (*blocks).into();
    all["bytes"] = (*bytes).into();
    all["unneeded"] = (*unneeded).into();
    format!("{all}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_sound_and_what_is_damaged_is_told_line_by_line() {
        let mut verified = Verified::default();
        assert!(is_empty(&verified));
        (verified.whole, verified.blocks, verified.bytes) = (vec![8], 3, 2048);
        assert_eq!(text_of(&verified), "sound: checkpoint 8\n3 blocks are as they were put, 2.0 KiB\n");
        verified.broken.push((7, "gone".to_owned()));
        verified.savepoint = Some(Err("cut".to_owned()));
        verified.unneeded = 2;
        let text = text_of(&verified);
        for line in
            ["damaged: checkpoint 7: gone\n", "damaged: savepoint: cut\n", "2 more are needed by nothing\n"]
        {
            assert!(text.contains(line), "{text}");
        }
        let json: serde_json::Value = serde_json::from_str(&json_of(&verified)).unwrap();
        assert_eq!((&json["sound"], &json["damaged"][0]["checkpoint"]), (&false.into(), &7.into()));
        assert_eq!(json["savepoint"]["error"], "cut");
    }
}
