//! Which subtask reads which bytes of which files.
//!
//! Files that can be cut are laid end to end and cut into one contiguous piece per subtask. Files that cannot
//! (gzip, or records with line feeds in them) go whole to the subtask with the least to do, the largest
//! first; the pieces then even the loads out. The plan depends on nothing but sizes and parallelism.

use std::path::PathBuf;

use tidemill_engine::platform::files::{FileError, FileInfo, FileSpan, IoThreads, probe};
use tidemill_storage::Record;

use super::error::SourceError;

/// How much larger text is than its gzip form, for balancing only.
const GZIP_RATIO: u64 = 4;

/// An input file and where its records begin.
#[derive(Clone, Debug)]
pub(super) struct InputFile {
    pub(super) info: FileInfo,
    /// Offset of the first record: behind the header and a byte order mark.
    pub(super) data_start: u64,
    /// Lines before the first record.
    pub(super) header_lines: u64,
    /// It must not be cut.
    pub(super) whole: bool,
}

/// A part of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Part {
    /// Index of the file.
    file: usize,
    start: u64,
    end: Option<u64>,
    at_line_start: bool,
}

/// A part of a file, from the first record on that was not emitted.
#[derive(Record, Clone, Debug, PartialEq, Eq)]
#[record(crate = tidemill_storage)]
pub struct FileSplit {
    /// The file, as it was named to the source.
    path: String,
    /// Offset of the first byte to read; in the unpacked bytes when the file is compressed.
    pub(super) start: u64,
    /// Records that begin at or after this offset belong to another split; `None`: read to the end.
    end: Option<u64>,
    /// Whether a record begins at `start`; otherwise the split begins with the first one after it.
    pub(super) at_line_start: bool,
    /// Whether the file is compressed.
    gzip: bool,
    /// Line ends between the file's first record and `start`, as far as they are counted.
    pub(super) lines: u64,
}

impl FileSplit {
    fn new(part: Part, files: &[InputFile]) -> Self {
        let Part { file, start, end, at_line_start } = part;
        let info = &files[file].info;
        Self { path: name_of(info), start, end, at_line_start, gzip: info.gzip, lines: 0 }
    }

    /// Which file it is of.
    pub(super) fn file(&self, files: &[InputFile]) -> Result<usize, SourceError> {
        let unknown = || SourceError::UnknownFile { path: self.path.clone(), offset: self.start };
        files.iter().position(|file| name_of(&file.info) == self.path).ok_or_else(unknown)
    }

    /// The bytes to read.
    pub(super) fn span(&self, file: &InputFile) -> Result<FileSpan, SourceError> {
        let info = &file.info;
        if info.gzip != self.gzip {
            let (path, offset) = (info.path.clone(), self.start);
            return Err(FileError::Changed { path, offset, how: "it is packed now, or was before" }.into());
        }
        Ok(FileSpan {
            path: info.path.clone(),
            start: self.start,
            end: self.end,
            at_line_start: self.at_line_start,
            gzip: self.gzip,
        })
    }
}

/// By what a file is found again.
fn name_of(info: &FileInfo) -> String {
    info.path.display().to_string()
}

/// A prepared file source.
pub(super) struct FilePlan {
    pub(super) files: std::sync::Arc<[InputFile]>,
    shares: Vec<Vec<Part>>,
    pub(super) threads: IoThreads,
}

impl FilePlan {
    /// Examines the files and shares them out. `begin` says where the records of a file begin.
    pub(super) fn new(
        paths: &[PathBuf],
        parallelism: usize,
        mut begin: impl FnMut(FileInfo) -> Result<InputFile, SourceError>,
    ) -> Result<Self, SourceError> {
        if paths.is_empty() {
            return Err(SourceError::NoFiles);
        }
        let files = paths.iter().map(|path| begin(probe(path)?)).collect::<Result<Vec<_>, SourceError>>()?;
        let threads = IoThreads::new().map_err(|cause| SourceError::Threads { cause })?;
        Ok(Self { shares: share_out(&files, parallelism), files: files.into(), threads })
    }

    /// What a subtask reads in a fresh start.
    pub(super) fn splits(&self, subtask: usize) -> Vec<FileSplit> {
        self.shares[subtask].iter().map(|part| FileSplit::new(*part, &self.files)).collect()
    }
}

/// Shares files out over subtasks.
fn share_out(files: &[InputFile], parallelism: usize) -> Vec<Vec<Part>> {
    let mut shares = vec![Vec::new(); parallelism];
    let mut loads = vec![0_u64; parallelism];
    let weight = |file: &InputFile| file.info.bytes * if file.info.gzip { GZIP_RATIO } else { 1 };
    let mut whole: Vec<usize> = (0..files.len()).filter(|&index| files[index].whole).collect();
    whole.sort_by_key(|&index| (std::cmp::Reverse(weight(&files[index])), index));
    for index in whole {
        let Some(subtask) = (0..parallelism).min_by_key(|&subtask| (loads[subtask], subtask)) else { break };
        loads[subtask] += weight(&files[index]);
        let start = files[index].data_start;
        shares[subtask].push(Part { file: index, start, end: None, at_line_start: true });
    }
    let cut: Vec<usize> = (0..files.len()).filter(|&index| !files[index].whole).collect();
    let size = |index: usize| files[index].info.bytes.saturating_sub(files[index].data_start);
    let mut pieces = even_out(&loads, cut.iter().map(|&index| size(index)).sum()).into_iter().enumerate();
    let mut piece = pieces.next();
    for index in cut {
        let (mut start, end) = (files[index].data_start, files[index].info.bytes);
        while start < end
            && let Some((subtask, room)) = piece
        {
            let taken = room.min(end - start);
            if taken > 0 {
                let at_line_start = start == files[index].data_start;
                let split = Part { file: index, start, end: Some(start + taken), at_line_start };
                shares[subtask].push(split);
                start += taken;
            }
            piece = if room > taken { Some((subtask, room - taken)) } else { pieces.next() };
        }
    }
    shares
}

/// How much of `total` each subtask takes so that the loads come out even.
fn even_out(loads: &[u64], total: u64) -> Vec<u64> {
    let room = |level: u64| loads.iter().map(|load| level.saturating_sub(*load)).sum::<u64>();
    let (mut low, mut high) = (0, loads.iter().max().map_or(0, |most| most + total));
    while low < high {
        let level = low + (high - low) / 2;
        if room(level) < total {
            low = level + 1;
        } else {
            high = level;
        }
    }
    let mut left = total;
    loads
        .iter()
        .map(|load| {
            let taken = low.saturating_sub(*load).min(left);
            left -= taken;
            taken
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(bytes: u64, whole: bool) -> InputFile {
        let info = FileInfo { path: std::path::Path::new("x").into(), bytes, gzip: whole };
        InputFile { info, data_start: 10.min(bytes), header_lines: 1, whole }
    }

    fn sizes(shares: &[Vec<Part>], files: &[InputFile]) -> Vec<u64> {
        let size = |split: &Part| match split.end {
            Some(end) => end - split.start,
            None => files[split.file].info.bytes * GZIP_RATIO,
        };
        shares.iter().map(|share| share.iter().map(size).sum()).collect()
    }

    #[test]
    fn plain_files_are_cut_evenly_and_completely() {
        for parallelism in 1..9 {
            let files = [file(1010, false), file(5, false), file(11, false), file(5010, false)];
            let shares = share_out(&files, parallelism);
            let sizes = sizes(&shares, &files);
            assert_eq!(sizes.iter().sum::<u64>(), 1000 + 1 + 5000);
            assert!(sizes.iter().max().unwrap() - sizes.last().unwrap() <= parallelism as u64, "{sizes:?}");
            let mut places = vec![10, 5, 10, 10];
            for split in shares.iter().flatten() {
                assert_eq!(split.start, places[split.file]);
                assert_eq!(split.at_line_start, split.start == files[split.file].data_start);
                places[split.file] = split.end.unwrap();
            }
            assert_eq!(places, [1010, 5, 11, 5010]);
        }
    }

    #[test]
    fn whole_files_go_to_the_least_loaded_and_plain_ones_even_out() {
        let files = [file(100, true), file(60, true), file(50, true), file(450, false)];
        let shares = share_out(&files, 3);
        // 400, 240, 200 whole; 440 plain: the level is 426 and two thirds.
        assert_eq!(sizes(&shares, &files), [427, 427, 426]);
        assert_eq!(shares[0][0].file, 0);
        assert_eq!(shares[2][0].file, 2);
    }

    #[test]
    fn more_subtasks_than_bytes_leave_some_without_work() {
        let files = [file(12, false)];
        assert_eq!(share_out(&files, 4).iter().map(Vec::len).collect::<Vec<_>>(), [1, 1, 0, 0]);
    }
}
