//! Reading many pages from many places at once.
//!
//! Unsafe leaf: the kernel writes to memory after the call that submitted a read has returned.
#![allow(unsafe_code)]

use std::{fmt, io, os::fd::RawFd};

use io_uring::{IoUring, opcode, types};

use super::OldFile;

/// Reads in flight at once.
const IN_FLIGHT: usize = 128;
/// How often in a row the kernel may refuse to take reads before it is not asked any more.
const REFUSALS_MAX: u32 = 16;

/// One of many reads: whole pages into memory aligned to pages.
pub struct PageRead<'a> {
    /// From which file.
    pub file: &'a dyn OldFile,
    /// From where in it.
    pub offset: u64,
    /// Into what; all of it.
    pub into: &'a mut [u8],
}

/// Reads many pages at once: by io_uring where the kernel allows it, else one after another.
#[derive(Default)]
pub struct Reader {
    ring: Option<Box<IoUring>>,
    /// The kernel said no: not asked again.
    refused: bool,
}

impl fmt::Debug for Reader {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Reader").field("refused", &self.refused).finish_non_exhaustive()
    }
}

impl Reader {
    /// Does all reads.
    ///
    /// # Errors
    /// Which read failed first, and why; the others were done or not.
    pub fn read_all(&mut self, reads: &mut [PageRead<'_>]) -> Result<(), (usize, io::Error)> {
        let by_ring = reads.len() > 1 && reads.iter().all(|read| read.file.descriptor().is_some());
        if by_ring && self.ring.is_none() && !self.refused {
            match IoUring::new(IN_FLIGHT as u32) {
                Ok(ring) => self.ring = Some(Box::new(ring)),
                Err(_) => self.refused = true,
            }
        }
        match self.ring.as_deref_mut().filter(|_| by_ring) {
            Some(ring) => match by_io_uring(ring, reads) {
                Ok(()) => Ok(()),
                Err(Failed::Read(at, error)) => Err((at, error)),
                Err(Failed::Ring) => {
                    // Closed, and with it what it was given and the kernel never took.
                    self.ring = None;
                    self.refused = true;
                    one_by_one(reads, 0)
                }
            },
            None => one_by_one(reads, 0),
        }
    }
}

fn one_by_one(reads: &mut [PageRead<'_>], first: usize) -> Result<(), (usize, io::Error)> {
    for (at, read) in reads.iter_mut().enumerate() {
        read.file.read_at(read.offset, read.into).map_err(|error| (first + at, error))?;
    }
    Ok(())
}

/// Why reads by a ring have failed.
enum Failed {
    /// A read did.
    Read(usize, io::Error),
    /// The kernel takes none; some of them may still stand in the ring's queue.
    Ring,
}

/// Keeps up to [`IN_FLIGHT`] reads going until all are done. When it returns the kernel has none of them any more.
fn by_io_uring(ring: &mut IoUring, reads: &mut [PageRead<'_>]) -> Result<(), Failed> {
    // How many are with the ring: in its queue, or the kernel's already.
    let (mut next, mut flying) = (0, 0);
    let mut short = Vec::new();
    let mut failure: Option<(usize, io::Error)> = None;
    let mut refusals = 0;
    while flying > 0 || (next < reads.len() && failure.is_none()) {
        while flying < IN_FLIGHT && next < reads.len() && failure.is_none() && refusals == 0 {
            let read = &mut reads[next];
            // Asked before: every file has one.
            let descriptor: RawFd = read.file.descriptor().unwrap_or(-1);
            let entry =
                opcode::Read::new(types::Fd(descriptor), read.into.as_mut_ptr(), read.into.len() as u32)
                    .offset(read.offset)
                    .build()
                    .user_data(next as u64);
            // SAFETY: the memory is borrowed mutably until this function returns, the file is borrowed too, and the
            // function does not return before every read that the kernel took has ended. Those that it did not take
            // end with the ring, which its owner closes.
            if unsafe { ring.submission().push(&entry) }.is_err() {
                break;
            }
            next += 1;
            flying += 1;
        }
        match ring.submit_and_wait(1) {
            Ok(_) => refusals = 0,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            // Short of memory, or for good. What the kernel took ends all the same, and is waited for.
            Err(_) => refusals += 1,
        }
        for done in ring.completion() {
            flying -= 1;
            let at = done.user_data() as usize;
            match usize::try_from(done.result()) {
                Ok(bytes) if bytes == reads[at].into.len() => {}
                Ok(_) => short.push(at),
                Err(_) => {
                    failure.get_or_insert((at, io::Error::from_raw_os_error(-done.result())));
                }
            }
        }
        if refusals >= REFUSALS_MAX && ring.submission().len() == flying {
            return Err(Failed::Ring);
        }
    }
    match failure {
        Some((at, error)) => Err(Failed::Read(at, error)),
        // A read that was cut short is done over: that tells the end of the file from a whim of the kernel.
        None => short
            .into_iter()
            .try_for_each(|at| one_by_one(&mut reads[at..=at], at))
            .map_err(|(at, error)| Failed::Read(at, error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::snapshot::{
        buffer::PageBuffer,
        disk::{Disk, os::OsDisk},
        format::PAGE_BYTES,
    };

    #[test]
    fn many_reads_give_what_single_ones_do() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("pages");
        let pages = 500;
        let bytes: Vec<u8> =
            (0..pages * PAGE_BYTES).map(|at| (at / PAGE_BYTES * 7 + at % 251) as u8).collect();
        std::fs::write(&path, &bytes).unwrap();
        let file = OsDisk::default().open_direct(&path).unwrap();
        let mut memory = PageBuffer::new(bytes.len());
        memory.set_length(bytes.len());
        let order: Vec<usize> = (0..pages).map(|at| at * 173 % pages).collect();
        let mut reads: Vec<PageRead<'_>> = memory
            .bytes_mut()
            .chunks_mut(PAGE_BYTES)
            .zip(&order)
            .map(|(into, at)| PageRead { file: &*file, offset: (at * PAGE_BYTES) as u64, into })
            .collect();
        let mut reader = Reader::default();
        reader.read_all(&mut reads).unwrap();
        for (page, at) in memory.bytes().chunks(PAGE_BYTES).zip(&order) {
            assert_eq!(page, &bytes[at * PAGE_BYTES..][..PAGE_BYTES]);
        }
    }

    #[test]
    fn a_ring_that_the_kernel_refuses_is_given_up_and_the_reads_are_done() {
        // Where the kernel forbids rings, there is nothing to refuse.
        let Ok(disabled) = IoUring::builder().setup_r_disabled().build(IN_FLIGHT as u32) else { return };
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("pages");
        std::fs::write(&path, [[1; PAGE_BYTES], [2; PAGE_BYTES]].concat()).unwrap();
        let file = OsDisk::default().open_direct(&path).unwrap();
        let mut memory = PageBuffer::new(2 * PAGE_BYTES);
        memory.set_length(2 * PAGE_BYTES);
        let mut reads: Vec<PageRead<'_>> = memory
            .bytes_mut()
            .chunks_mut(PAGE_BYTES)
            .zip([1, 0])
            .map(|(into, at)| PageRead { file: &*file, offset: at * PAGE_BYTES as u64, into })
            .collect();
        let mut reader = Reader { ring: Some(Box::new(disabled)), refused: false };
        reader.read_all(&mut reads).unwrap();
        assert!(reader.ring.is_none() && reader.refused);
        assert!(memory.bytes()[..PAGE_BYTES].iter().all(|byte| *byte == 2));
        assert!(memory.bytes()[PAGE_BYTES..].iter().all(|byte| *byte == 1));
    }

    #[test]
    fn a_read_behind_the_end_fails_and_names_itself() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("pages");
        std::fs::write(&path, vec![1; 3 * PAGE_BYTES]).unwrap();
        let file = OsDisk::default().open_direct(&path).unwrap();
        let mut memory = PageBuffer::new(3 * PAGE_BYTES);
        memory.set_length(3 * PAGE_BYTES);
        let mut reads: Vec<PageRead<'_>> = memory
            .bytes_mut()
            .chunks_mut(PAGE_BYTES)
            .zip([0, 9, 1])
            .map(|(into, at)| PageRead { file: &*file, offset: at * PAGE_BYTES as u64, into })
            .collect();
        let mut reader = Reader::default();
        assert_eq!(reader.read_all(&mut reads).unwrap_err().0, 1);
    }
}
