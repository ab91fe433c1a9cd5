//! Comma-separated values from files.
//!
//! Rows become records by serde: with a header, a struct's fields are matched to columns by name, and
//! only those columns are decoded; without, by position. Lines without quote marks (nearly all, in most
//! files) are cut by a loop over eight bytes at a time; the others by `csv-core`.

mod field;
mod record;
mod row;

use std::{marker::PhantomData, path::PathBuf, sync::Arc};

use serde::de::DeserializeOwned;
use tidemill_engine::{
    model::source::{BoxError, Output, Polled, Reader, Source, SubtaskContext},
    platform::{
        Nanos,
        files::{FileInfo, Framing, first_record},
    },
};

use self::{
    record::{RowContext, Table},
    row::RowCutter,
};
use super::{
    bad_record::BadRecords,
    error::SourceError,
    file_plan::{FilePlan, FileSplit, InputFile},
    file_reader::{FileReader, LINE_BYTES_MAX},
    lines::{Decode, Reject},
};

/// The byte order mark of UTF-8.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// Reads CSV files as records of type `T`.
///
/// Plain files are cut by byte ranges over the subtasks, gzip files (known by their first bytes) are read
/// whole by one. Files may order their columns differently. A row with more or fewer fields than the header
/// (the first row, without one) is a bad record; so is one that is not UTF-8. Empty lines are passed over.
/// An empty field is null: `None` of an `Option`, and an error for a number. A field that the header
/// lacks fails the job whatever [`BadRecords`] says, unless it is an `Option` or has a default.
///
/// ```
/// # use std::io::Write;
/// use serde::Deserialize;
/// use tidemill_operators::source::{BadRecords, CsvSource};
///
/// #[derive(Deserialize)]
/// struct Flight {
///     origin: String,
///     dep_delay: Option<i32>,
/// }
///
/// let flights = CsvSource::<Flight>::new(["flights.csv", "more.csv.gz"])
///     .null_text("NA")
///     .on_error(BadRecords::Skip);
/// # drop(flights);
/// ```
pub struct CsvSource<T> {
    paths: Vec<PathBuf>,
    header: bool,
    delimiter: u8,
    nulls: Vec<Box<str>>,
    multiline: bool,
    line_bytes_max: usize,
    on_error: BadRecords,
    plan: Option<(FilePlan, Arc<[Table]>)>,
    record: PhantomData<fn() -> T>,
}

impl<T: DeserializeOwned + 'static> CsvSource<T> {
    /// Reads these files, which have a header line and commas.
    pub fn new<P: Into<PathBuf>>(paths: impl IntoIterator<Item = P>) -> Self {
        Self {
            paths: paths.into_iter().map(Into::into).collect(),
            header: true,
            delimiter: b',',
            nulls: vec!["".into()],
            multiline: false,
            line_bytes_max: LINE_BYTES_MAX,
            on_error: BadRecords::Fail,
            plan: None,
            record: PhantomData,
        }
    }

    /// Whether the first line names the columns (the default). Otherwise a struct or tuple takes the
    /// columns in their order.
    #[must_use]
    pub fn header(mut self, header: bool) -> Self {
        self.header = header;
        self
    }

    /// The byte between fields, such as `b'\t'`; a comma by default.
    ///
    /// # Panics
    /// When it is a quote mark, a line end, NUL or not ASCII.
    #[must_use]
    pub fn delimiter(mut self, delimiter: u8) -> Self {
        let usable = delimiter.is_ascii() && !matches!(delimiter, b'"' | b'\n' | b'\r' | 0);
        assert!(usable, "{delimiter:?} cannot stand between fields");
        self.delimiter = delimiter;
        self
    }

    /// Another text that means null, such as `NA`; the empty field always does.
    #[must_use]
    pub fn null_text(mut self, text: impl Into<Box<str>>) -> Self {
        self.nulls.push(text.into());
        self
    }

    /// Whether quoted fields may hold line feeds. Such a file cannot be cut: each file is read whole by one
    /// subtask, and every quote mark must be balanced. Off by default: every line feed then ends a row.
    #[must_use]
    pub fn multiline(mut self, multiline: bool) -> Self {
        self.multiline = multiline;
        self
    }

    /// The longest row in bytes (16 MiB by default); a longer one is a bad record.
    #[must_use]
    pub fn line_bytes_max(mut self, line_bytes_max: usize) -> Self {
        assert!(line_bytes_max > 0, "a row has at least one byte");
        self.line_bytes_max = line_bytes_max;
        self
    }

    /// What to do about a row that cannot be decoded; fails by default.
    #[must_use]
    pub fn on_error(mut self, on_error: BadRecords) -> Self {
        self.on_error = on_error;
        self
    }

    fn framing(&self) -> Framing {
        if self.multiline { Framing::QuotedLines(b'"') } else { Framing::Lines }
    }

    /// Reads the header of a file.
    fn begin(&self, info: FileInfo) -> Result<(InputFile, Table), SourceError> {
        let first = first_record(&info, self.framing(), self.line_bytes_max)?;
        let mark = if first.starts_with(BYTE_ORDER_MARK) { BYTE_ORDER_MARK.len() } else { 0 };
        let origin = info.path.display().to_string();
        let failed = |reason: String| SourceError::Header { origin: origin.clone(), reason };
        let line = std::str::from_utf8(&first[mark..])
            .map_err(|_| failed("it is not valid UTF-8".into()))?
            .trim_end_matches(['\n', '\r']);
        let mut cutter = RowCutter::new(self.delimiter);
        let names = if !line.is_empty() {
            cutter.cut_all(line).map_err(failed)?
        } else if first.is_empty() {
            // An empty file has no records, and needs no header to say so.
            Vec::new()
        } else {
            return Err(failed("it is an empty line".into()));
        };
        let (data_start, header_lines) = if self.header {
            (first.len(), memchr::memchr_iter(b'\n', &first).count() as u64)
        } else {
            (mark, 0)
        };
        let whole = info.gzip || self.multiline;
        let file = InputFile { info, data_start: data_start as u64, header_lines, whole };
        Ok((file, Table::new(origin, names, self.header)))
    }
}

impl<T: DeserializeOwned + 'static> Source for CsvSource<T> {
    type Item = T;
    type Split = FileSplit;
    type Reader = CsvReader<T>;

    fn prepare(&mut self, parallelism: usize) -> Result<(), BoxError> {
        self.on_error.prepare()?;
        let mut tables = Vec::new();
        let plan = FilePlan::new(&self.paths, parallelism, |info| {
            let (file, table) = self.begin(info)?;
            tables.push(table);
            Ok(file)
        })?;
        self.plan = Some((plan, tables.into()));
        Ok(())
    }

    fn splits(&self, context: &SubtaskContext) -> Result<Vec<FileSplit>, BoxError> {
        let missing = SourceError::NoShare { source_name: "CsvSource", subtask: context.subtask };
        let (plan, _) = self.plan.as_ref().ok_or(missing)?;
        Ok(plan.splits(context.subtask))
    }

    fn open(&self, context: &SubtaskContext, splits: Vec<FileSplit>) -> Result<CsvReader<T>, BoxError> {
        let Some((plan, tables)) = &self.plan else {
            return Err(SourceError::NoShare { source_name: "CsvSource", subtask: context.subtask }.into());
        };
        let decoder = CsvDecoder {
            tables: tables.clone(),
            file: 0,
            cutter: RowCutter::new(self.delimiter),
            context: RowContext::new(self.nulls.clone()),
            quotes: true,
            record: PhantomData,
        };
        Ok(CsvReader(FileReader::open(
            plan,
            context,
            splits,
            self.framing(),
            self.line_bytes_max,
            &self.on_error,
            decoder,
        )?))
    }
}

/// Reads one subtask's share of a [`CsvSource`].
pub struct CsvReader<T: DeserializeOwned + 'static>(FileReader<CsvDecoder<T>>);

impl<T: DeserializeOwned + 'static> Reader for CsvReader<T> {
    type Item = T;
    type Split = FileSplit;

    fn position(&self, split: usize) -> FileSplit {
        self.0.position(split)
    }

    fn splits(&self) -> usize {
        self.0.splits()
    }

    fn reads_in_turn(&self) -> bool {
        self.0.reads_in_turn()
    }

    fn poll<O: Output<T>>(&mut self, output: &mut O, now: Nanos) -> Result<Polled, BoxError> {
        self.0.poll(output, now)
    }
}

/// Decodes rows.
struct CsvDecoder<T> {
    tables: Arc<[Table]>,
    /// The present file.
    file: usize,
    cutter: RowCutter,
    context: RowContext,
    /// Whether the present chunk holds a quote mark.
    quotes: bool,
    record: PhantomData<fn() -> T>,
}

impl<T: DeserializeOwned + 'static> Decode for CsvDecoder<T> {
    type Item = T;

    fn begin_origin(&mut self, origin: usize) {
        self.file = origin;
        self.context.forget_columns();
    }

    fn begin_chunk(&mut self, bytes: &[u8]) {
        self.quotes = memchr::memchr(b'"', bytes).is_some();
    }

    #[inline]
    fn decode(&mut self, line: &str) -> Result<Option<T>, Reject> {
        if line.is_empty() {
            return Ok(None);
        }
        let table = &self.tables[self.file];
        let row = if self.quotes && memchr::memchr(b'"', line.as_bytes()).is_some() {
            self.cutter.cut_quoted(line, table.columns())
        } else {
            self.cutter.cut_plain(line, table.columns())
        };
        let row = row.map_err(Reject::Record)?;
        self.context.decode(row, table).map(Some)
    }
}
