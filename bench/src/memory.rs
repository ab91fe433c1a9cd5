//! Memory before a measurement.

use std::io;

use memmap2::{Advice, MmapMut};

/// The smallest piece that the kernel gives.
const PAGE_BYTES: usize = 4096;

/// Memory that was touched; dropped, it is there to be had.
#[derive(Debug)]
#[must_use = "memory that is given back at once may be gone when it is needed"]
pub struct Spare {
    _memory: MmapMut,
}

/// Touches so much new memory, in huge pages, to be given back when it will be needed: a virtual machine's host may take free
/// memory away within seconds, and give it back at a tenth of the speed.
pub fn touch(bytes: usize) -> io::Result<Spare> {
    let mut memory = MmapMut::map_anon(bytes)?;
    // Where there are no huge pages, it is small ones.
    let _ = memory.advise(Advice::HugePage);
    for at in (0..bytes).step_by(PAGE_BYTES) {
        memory[at] = 1;
    }
    Ok(Spare { _memory: memory })
}
