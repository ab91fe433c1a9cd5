//! What to do about a record that cannot be decoded: fail, skip and count, or keep in a dead-letter file.

use std::path::PathBuf;

use tidemill_engine::{
    model::source::Output,
    platform::files::{OutputFile, check_output},
};

use super::error::{Place, SourceError};

/// Pending dead letters that are written at once, in bytes.
const PENDING_BYTES_MAX: usize = 1 << 16;

/// What a source does about a record that cannot be decoded.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum BadRecords {
    /// The job fails with an error that names the place, the reason and the first bytes.
    #[default]
    Fail,
    /// The record is passed over and counted.
    Skip,
    /// The record's bytes are appended to this file, as they are, and counted. Every record ends with a line
    /// feed there (the last line of an input may have had none). All subtasks append to the same file, whole
    /// records each; only a line above the source's bound goes in pieces, between which records of other
    /// subtasks may come. They are written before a checkpoint passes them; a job that starts again appends those that it
    /// reads again a second time.
    DeadLetter(PathBuf),
}

impl BadRecords {
    /// Checks that the dead-letter file can be written.
    pub(super) fn prepare(&self) -> Result<(), SourceError> {
        match self {
            Self::DeadLetter(path) => Ok(check_output(path)?),
            Self::Fail | Self::Skip => Ok(()),
        }
    }

    /// What one reader uses.
    pub(super) fn open(&self) -> Result<BadRecordHandler, SourceError> {
        Ok(match self {
            Self::Fail => BadRecordHandler::Fail,
            Self::Skip => BadRecordHandler::Skip,
            Self::DeadLetter(path) => {
                BadRecordHandler::DeadLetter { file: OutputFile::append(path)?, pending: Vec::new() }
            }
        })
    }
}

/// The setting at work in one reader.
pub(super) enum BadRecordHandler {
    Fail,
    Skip,
    DeadLetter { file: OutputFile, pending: Vec<u8> },
}

impl BadRecordHandler {
    /// Deals with a record, or with the first piece of one when `whole` is false.
    #[cold]
    pub(super) fn reject<T>(
        &mut self,
        place: impl FnOnce() -> Place,
        raw: &[u8],
        whole: bool,
        reason: String,
        output: &mut impl Output<T>,
    ) -> Result<(), SourceError> {
        if matches!(self, Self::Fail) {
            return Err(SourceError::bad_record(place(), reason, raw));
        }
        output.skipped(1);
        self.keep(raw, whole)
    }

    /// Keeps a further piece of a rejected record; `last`: it ends here.
    pub(super) fn keep(&mut self, raw: &[u8], last: bool) -> Result<(), SourceError> {
        if let Self::DeadLetter { pending, .. } = self {
            pending.extend_from_slice(raw);
            if last && !pending.ends_with(b"\n") {
                pending.push(b'\n');
            }
            if !last || pending.len() >= PENDING_BYTES_MAX {
                self.flush()?;
            }
        }
        Ok(())
    }

    /// Writes what is kept.
    pub(super) fn flush(&mut self) -> Result<(), SourceError> {
        if let Self::DeadLetter { file, pending } = self
            && !pending.is_empty()
        {
            file.write_whole(pending)?;
            pending.clear();
        }
        Ok(())
    }
}
