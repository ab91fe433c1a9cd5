//! A smoke run of fuzzing: every decoder of bytes from outside, under seeded random mutations of bytes that it accepts.
//!
//! What is done with the bytes is the fuzz targets' own, see `storage/fuzz`. `TIDEMILL_FUZZ_ROUNDS` sets how many there
//! are, `TIDEMILL_SEED` which.
#![allow(clippy::unwrap_used)]

#[path = "../fuzz/src/lib.rs"]
mod decoders;
#[path = "snapshot/random.rs"]
#[allow(dead_code)]
mod random;

use decoders::DECODERS;
use random::Die;

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|value| value.parse().ok()).unwrap_or(default)
}

/// Changes a few bytes, cuts, or repeats a piece.
fn mutate(die: &mut Die, sound: &[u8]) -> Vec<u8> {
    let mut bytes = sound.to_vec();
    // Half of them keep their length, else most would fail by that.
    let kinds = if die.roll(2) == 0 { 4 } else { 7 };
    for _ in 0..=die.roll(4) {
        if bytes.is_empty() {
            bytes.push(0);
        }
        let at = die.roll(bytes.len() as u64) as usize;
        match die.roll(kinds) {
            0 => bytes[at] ^= 1 << die.roll(8),
            1 => bytes[at] = die.roll(256) as u8,
            2 => bytes[at] = [0, 1, 0x7f, 0x80, 0xff][die.roll(5) as usize],
            3 => {
                let end = bytes.len().min(at + 4);
                bytes[at..end].fill([0, 0xff][die.roll(2) as usize]);
            }
            4 => bytes.truncate(at),
            5 => {
                let again = bytes[at..bytes.len().min(at + 40)].to_vec();
                bytes.extend(again);
            }
            _ => drop(bytes.remove(at)),
        }
    }
    bytes
}

/// Runs a decoder over this many mutations.
fn run(name: &str, rounds: u64) {
    let decoder = DECODERS.iter().find(|decoder| decoder.name == name).unwrap();
    let sound = (decoder.sound)();
    for (i, bytes) in sound.iter().enumerate() {
        assert!((decoder.decode)(bytes), "the sound bytes {i} are accepted");
    }
    for len in 0..3 {
        let _ = (decoder.decode)(&vec![0; len]);
    }
    let mut die = Die((setting("TIDEMILL_SEED", 0) + 11) | 1);
    let mut accepted = 0;
    for round in 0..setting("TIDEMILL_FUZZ_ROUNDS", rounds) {
        let bytes = mutate(&mut die, &sound[round as usize % sound.len()]);
        accepted += u32::from((decoder.decode)(&bytes));
    }
    assert!(accepted > 0, "mutations reach behind what is checked first");
}

macro_rules! smoke {
    ($($name:ident: $rounds:literal,)*) => {
        $(
            #[test]
            fn $name() {
                run(stringify!($name), $rounds);
            }
        )*

        #[test]
        fn every_decoder_has_a_target_and_a_smoke_run() {
            let smoked = [$(stringify!($name)),*];
            for decoder in DECODERS {
                assert!(smoked.contains(&decoder.name), "{} is not run here", decoder.name);
                let target = format!("{}/fuzz/targets/{}.rs", env!("CARGO_MANIFEST_DIR"), decoder.name);
                assert!(std::fs::exists(&target).unwrap(), "there is no {target}");
            }
        }
    };
}

smoke! {
    manifest: 20_000,
    segment: 5_000,
    records: 20_000,
    keys: 20_000,
    archives: 20_000,
    pages: 20_000,
    blobs: 20_000,
    loads: 1_000,
    restore: 1_000,
    wal: 5_000,
}
