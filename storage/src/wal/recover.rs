//! Opens a log: finds its segments, its end, and what is wrong with it.
//!
//! Whatever a crash can leave is mended in silence: a segment that was never durable, a last group that is torn. Nobody was
//! told of either. What no crash can leave is an error.

use std::{
    collections::VecDeque,
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{
    LogError, LogOptions, Segment, WriteAheadLog,
    cursor::{Window, decode_frame},
    failed,
    format::{
        GROUP_ALIGN, GROUP_HEADER_BYTES, GroupHeader, HEADER_BYTES_MAX, NoHeader, SegmentHeader, VERSION,
        segment_number,
    },
};
use crate::{snapshot::disk::Disk, state::StateError};

/// Takes the log in a directory. See [`WriteAheadLog::open`].
pub(super) fn open(
    disk: Arc<dyn Disk>,
    directory: &Path,
    options: LogOptions,
) -> Result<WriteAheadLog, LogError> {
    make_directory(&*disk, directory)?;
    let lock = disk.lock(directory).map_err(|error| match error {
        StateError::Io { source, doing, file } if source.kind() != io::ErrorKind::ResourceBusy => {
            LogError::Io { doing, file, source }
        }
        source => LogError::Taken { directory: directory.to_owned(), source: Box::new(source) },
    })?;
    let files = disk.list(directory).map_err(failed("list", directory))?;
    let mut numbered: Vec<(u64, PathBuf)> =
        files.into_iter().filter_map(|path| Some((segment_number(&path)?, path))).collect();
    numbered.sort_unstable();
    let next_segment = numbered.last().map_or(0, |(number, _)| number + 1);
    let mut log = WriteAheadLog {
        number: options.number,
        disk,
        directory: directory.to_owned(),
        _lock: lock,
        options,
        segments: VecDeque::new(),
        active: None,
        next_segment,
        next: 0,
        is_ended: false,
        is_unsure_of_names: false,
        strays: Vec::new(),
    };
    for (number, path) in numbered {
        log.add(number, path)?;
    }
    if log.segments.is_empty() {
        log.make_own_name_durable()?;
    }
    log.find_end()?;
    Ok(log)
}

/// Makes the directory, but none above it: a disk that is not mounted is no log in which nothing was acknowledged.
fn make_directory(disk: &dyn Disk, directory: &Path) -> Result<(), LogError> {
    disk.make_directory(directory).map_err(|source| match (source.kind(), directory.parent()) {
        (io::ErrorKind::NotFound, Some(parent)) => {
            LogError::NoParent { directory: directory.to_owned(), parent: parent.to_owned() }
        }
        _ => failed("create", directory)(source),
    })
}

impl WriteAheadLog {
    /// Takes the next segment, if it is one.
    fn add(&mut self, number: u64, path: PathBuf) -> Result<(), LogError> {
        let file = self.disk.open(&path).map_err(failed("open", &path))?;
        let bytes = file.length().map_err(failed("read", &path))?;
        let mut head = vec![0; bytes.min(HEADER_BYTES_MAX) as usize];
        file.read_at(0, &mut head).map_err(failed("read", &path))?;
        let damaged = |what: String| LogError::Damaged { file: path.clone(), offset: 0, what };
        let (header, groups_at) = match SegmentHeader::decode(&head) {
            Ok(decoded) => decoded,
            Err(NoHeader::Newer(found)) => {
                return Err(LogError::NewerVersion { file: path, found, known: VERSION });
            }
            Err(NoHeader::Bad(what)) => {
                // A crash can only leave one in which nothing was durable.
                let mut window = Window::new(file, 0);
                let found = find_group(&mut window, |_| true).map_err(failed("read", &path))?;
                return match found {
                    Some((at, _)) => Err(damaged(format!("{what}, and there are records at byte {at}"))),
                    None => {
                        self.discard(path);
                        Ok(())
                    }
                };
            }
        };
        if header.segment != number {
            return Err(damaged(format!("this is segment {:016x}, under another name", header.segment)));
        }
        if header.schema != self.options.schema {
            let (directory, wanted) = (self.directory.clone(), self.options.schema.clone());
            return Err(LogError::Schema { directory, stored: header.schema, wanted });
        }
        match self.segments.back() {
            None => self.number = header.log,
            Some(_) if header.log != self.number => {
                return Err(damaged(format!(
                    "a segment of log {:016x}, among those of {:016x}",
                    header.log, self.number
                )));
            }
            Some(last) if header.base < last.base => {
                return Err(damaged(format!(
                    "it begins with record {}, and the one before with {}",
                    header.base, last.base
                )));
            }
            Some(_) => {}
        }
        // What the one before has does not count, all of it.
        if let Some(empty) = self.segments.pop_back_if(|last| last.base == header.base) {
            self.discard(empty.path);
        }
        self.segments.push_back(Segment { number, path, base: header.base, groups_at, end: None, bytes });
        Ok(())
    }

    /// Finds where the log ends, and makes sure that it stays so.
    fn find_end(&mut self) -> Result<(), LogError> {
        let mut least = 0;
        while let Some(last) = self.segments.back() {
            least = least.max(last.base);
            let scan = scan(self, last)?;
            if scan.next < least {
                return Err(LogError::Damaged {
                    file: last.path.clone(),
                    offset: scan.end,
                    what: format!("{}, where record {} should be", scan.stopped_by, scan.next),
                });
            }
            let is_empty = scan.next == last.base && !scan.is_ended;
            if is_empty && self.segments.len() > 1 {
                // It has nothing yet, and a segment cannot be gone on with.
                if let Some(empty) = self.segments.pop_back() {
                    self.discard(empty.path);
                }
                continue;
            }
            // What the process before has written, and died before it was durable, is made so before anyone sees it.
            self.disk.sync_file(&last.path).map_err(failed("sync", &last.path))?;
            self.disk.sync_directory(&self.directory).map_err(failed("sync", &self.directory))?;
            (self.next, self.is_ended) = (scan.next, scan.is_ended);
            if let Some(last) = self.segments.back_mut() {
                last.end = Some(scan.end);
            }
            break;
        }
        Ok(())
    }

    /// A new log's directory may be new itself.
    fn make_own_name_durable(&self) -> Result<(), LogError> {
        let Some(parent) = self.directory.parent().filter(|parent| !parent.as_os_str().is_empty()) else {
            return Ok(());
        };
        match self.disk.sync_directory(parent) {
            // One that this user may pass through and not look into was not made by it.
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Ok(()),
            synced => synced.map_err(failed("sync", parent)),
        }
    }
}

/// What the last segment holds.
struct Scan {
    /// Number of the record that comes next.
    next: u64,
    /// Where the groups that count end, in bytes.
    end: u64,
    is_ended: bool,
    stopped_by: &'static str,
}

/// Reads the last segment to its end.
fn scan(log: &WriteAheadLog, segment: &Segment) -> Result<Scan, LogError> {
    let cannot_read = || failed("read", &segment.path);
    let file = log.disk.open(&segment.path).map_err(failed("open", &segment.path))?;
    let mut window = Window::new(file, segment.groups_at);
    let (mut next, mut is_ended) = (segment.base, false);
    let stopped_by = loop {
        match window.group(log.number, next, None).map_err(cannot_read())? {
            Ok(chunk) => {
                next += chunk.remaining();
                is_ended = chunk.is_end();
            }
            Err(what) => break what,
        }
    };
    let end = window.at;
    // Behind a torn group there is nothing sound: it was the last that was written.
    let is_later = |header: &GroupHeader| header.log == log.number && header.first >= next;
    let found = find_group(&mut window, is_later).map_err(cannot_read())?;
    if let Some((at, header)) = found {
        let what = format!(
            "{stopped_by}, where record {next} should be, and record {} is at byte {at}",
            header.first
        );
        return Err(LogError::Damaged { file: segment.path.clone(), offset: end, what });
    }
    Ok(Scan { next, end, is_ended, stopped_by })
}

/// The next sound group that `is_wanted`, at or behind where the window stands, and where it is.
fn find_group(
    window: &mut Window,
    is_wanted: impl Fn(&GroupHeader) -> bool,
) -> io::Result<Option<(u64, GroupHeader)>> {
    window.at = window.at.next_multiple_of(GROUP_ALIGN as u64);
    loop {
        let bytes = window.peek(GROUP_HEADER_BYTES as u64, None)?;
        let Some(head) = bytes.first_chunk() else { return Ok(None) };
        if let Ok(header) = GroupHeader::decode(head)
            && is_wanted(&header)
        {
            let length = GROUP_HEADER_BYTES + header.length;
            if let Some(frame) = window.peek(length as u64, None)?.get(..length)
                && decode_frame(frame).is_ok()
            {
                return Ok(Some((window.at, header)));
            }
        }
        window.at += GROUP_ALIGN as u64;
    }
}
