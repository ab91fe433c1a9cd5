//! Writes by io_uring: a few buffers in flight, so that the disk has work while the next one is being filled.
//!
//! Unsafe leaf: the kernel reads a buffer after the call that submitted it has returned.
#![allow(unsafe_code)]

use std::{fmt, fs::File, io, mem, os::fd::AsRawFd};

use io_uring::{IoUring, opcode, types};

use super::STAGING_BYTES;
use crate::snapshot::buffer::PageBuffer;

/// Buffers, and so writes in flight.
const DEPTH: usize = 4;

/// A ring and its buffers.
pub(super) struct Ring {
    ring: IoUring,
    free: Vec<PageBuffer>,
    made: usize,
    /// What the kernel may be reading. A slot is emptied only by its completion.
    flying: [Option<Write>; DEPTH],
    /// First failure since the last [`settle`](Ring::settle).
    failure: Option<io::Error>,
}

struct Write {
    file: i32,
    pages: PageBuffer,
    offset: u64,
    /// Bytes written so far: a write may be cut short.
    done: usize,
}

impl fmt::Debug for Ring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ring").field("flying", &self.flying()).finish_non_exhaustive()
    }
}

impl Ring {
    /// Sets up a ring.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub(super) fn new() -> io::Result<Self> {
        let ring = IoUring::new(DEPTH as u32)?;
        Ok(Self { ring, free: Vec::new(), made: 0, flying: [const { None }; DEPTH], failure: None })
    }

    /// An empty buffer; waits for one.
    pub(super) fn buffer(&mut self) -> io::Result<PageBuffer> {
        if self.free.is_empty() && self.made < DEPTH {
            self.made += 1;
            return Ok(PageBuffer::new(STAGING_BYTES));
        }
        while self.free.is_empty() && self.flying() > 0 {
            self.reap(1)?;
        }
        self.failed()?;
        // A buffer that its taker dropped is replaced.
        Ok(self.free.pop().unwrap_or_else(|| PageBuffer::new(STAGING_BYTES)))
    }

    /// Begins to write. The file must stay open until [`settle`](Self::settle).
    pub(super) fn write(&mut self, file: &File, offset: u64, pages: PageBuffer) -> io::Result<()> {
        while self.flying() == DEPTH {
            self.reap(1)?;
        }
        self.failed()?;
        let write = Write { file: file.as_raw_fd(), pages, offset, done: 0 };
        let Some(slot) = self.flying.iter().position(Option::is_none) else {
            unreachable!("one was reaped");
        };
        self.submit(slot, write);
        Ok(())
    }

    /// Waits for all writes; fails as the first of them did.
    pub(super) fn wait_for_all(&mut self) -> io::Result<()> {
        while self.flying() > 0 {
            self.reap(1)?;
        }
        self.failed()
    }

    /// Waits for all writes whatever becomes of them, and forgets failures; whether the ring may be used again.
    pub(super) fn settle(&mut self) -> bool {
        while self.flying() > 0 {
            if self.reap(1).is_err() {
                return false;
            }
        }
        self.failure = None;
        true
    }

    fn flying(&self) -> usize {
        self.flying.iter().flatten().count()
    }

    fn failed(&mut self) -> io::Result<()> {
        match &self.failure {
            None => Ok(()),
            // It stays: the file is lost.
            Some(error) => Err(match error.raw_os_error() {
                Some(code) => io::Error::from_raw_os_error(code),
                None => error.kind().into(),
            }),
        }
    }

    /// Hands a write to the kernel, now or with the next call that waits.
    fn submit(&mut self, slot: usize, write: Write) {
        let rest = &write.pages.bytes()[write.done..];
        let entry = opcode::Write::new(types::Fd(write.file), rest.as_ptr(), rest.len() as u32)
            .offset(write.offset + write.done as u64)
            .build()
            .user_data(slot as u64);
        // From here on the buffer stays where it is until its completion: the slot owns it.
        self.flying[slot] = Some(write);
        // SAFETY: the bytes live in `flying[slot]`, whose heap memory does not move; they are neither written nor
        // freed before the completion was reaped (see `drop`). The queue has as many entries as there are slots.
        let pushed = unsafe { self.ring.submission().push(&entry) };
        if pushed.is_err() {
            self.flying[slot] = None;
            self.note(io::ErrorKind::WouldBlock.into());
        }
        // What cannot be submitted now stays queued, and the next wait says why if it cannot be for good.
        let _ = self.ring.submit();
    }

    /// Waits for this many completions at least.
    fn reap(&mut self, wanted: usize) -> io::Result<()> {
        match self.ring.submit_and_wait(wanted) {
            Ok(_) => {}
            Err(error)
                if matches!(error.kind(), io::ErrorKind::Interrupted | io::ErrorKind::ResourceBusy) => {}
            Err(error) => return Err(error),
        }
        let done: Vec<_> =
            self.ring.completion().map(|entry| (entry.user_data() as usize, entry.result())).collect();
        for (slot, result) in done {
            let Some(mut write) = self.flying[slot].take() else { continue };
            let length = write.pages.bytes().len();
            match usize::try_from(result) {
                Ok(count) if count > 0 && write.done + count < length => {
                    write.done += count;
                    self.submit(slot, write);
                    continue;
                }
                Ok(count) if count > 0 => {}
                Ok(_) => self.note(io::ErrorKind::WriteZero.into()),
                Err(_) if result == -libc::EINTR || result == -libc::EAGAIN => {
                    self.submit(slot, write);
                    continue;
                }
                Err(_) => self.note(io::Error::from_raw_os_error(-result)),
            }
            write.pages.clear();
            self.free.push(write.pages);
        }
        Ok(())
    }

    fn note(&mut self, error: io::Error) {
        self.failure.get_or_insert(error);
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        if !self.settle() {
            // The kernel may still read them: better lost than used again.
            self.flying.iter_mut().for_each(|write| mem::forget(write.take()));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt;

    use super::*;

    #[test]
    fn many_writes_through_few_buffers_arrive() {
        // Where the kernel forbids rings the plain writer is used, and there is nothing to test.
        let Ok(mut ring) = Ring::new() else { return };
        let file = tempfile::tempfile().unwrap();
        for i in 0..11_u8 {
            let mut pages = ring.buffer().unwrap();
            pages.extend(&[i + 1; 8192]);
            ring.write(&file, u64::from(i) * 8192, pages).unwrap();
        }
        ring.wait_for_all().unwrap();
        let mut bytes = vec![0; 11 * 8192];
        file.read_exact_at(&mut bytes, 0).unwrap();
        assert!(bytes.chunks(8192).zip(1..).all(|(part, i)| part.iter().all(|byte| *byte == i)));
    }

    #[test]
    fn a_failed_write_is_told_until_it_is_settled() {
        let Ok(mut ring) = Ring::new() else { return };
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        std::fs::write(&path, b"").unwrap();
        let read_only = File::open(&path).unwrap();
        let mut pages = ring.buffer().unwrap();
        pages.extend(&[0; 4096]);
        ring.write(&read_only, 0, pages).unwrap();
        assert_eq!(ring.wait_for_all().unwrap_err().raw_os_error(), Some(libc::EBADF));
        assert!(ring.wait_for_all().is_err());
        assert!(ring.settle());
        assert!(ring.wait_for_all().is_ok());
    }
}
