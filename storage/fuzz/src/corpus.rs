//! Writes sound bytes for every decoder, from which a fuzzer gets further than from none: `corpus DIRECTORY`.

use std::{fs, io, path::PathBuf};

fn main() -> io::Result<()> {
    let root = PathBuf::from(std::env::args_os().nth(1).unwrap_or_else(|| "corpus".into()));
    for decoder in tidemill_storage_fuzz::DECODERS {
        let directory = root.join(decoder.name);
        fs::create_dir_all(&directory)?;
        for (i, bytes) in (decoder.sound)().iter().enumerate() {
            fs::write(directory.join(format!("sound-{i}")), bytes)?;
        }
    }
    Ok(())
}
