//! Newline-delimited JSON from files: one value per line.

use std::{marker::PhantomData, path::PathBuf};

use serde::de::DeserializeOwned;
use tidemill_engine::{
    model::source::{BoxError, Output, Polled, Reader, Source, SubtaskContext},
    platform::{Nanos, files::Framing},
};

use super::{
    bad_record::BadRecords,
    error::SourceError,
    file_plan::{FilePlan, FileSplit, InputFile},
    file_reader::{FileReader, LINE_BYTES_MAX},
    lines::{Decode, Reject},
};

/// Reads files of one JSON value per line as records of type `T`.
///
/// Plain files are cut by byte ranges over the subtasks, gzip files are read whole by one. Blank lines are
/// passed over; a line that is not UTF-8, not JSON or not a `T` is a bad record.
///
/// ```
/// use serde::Deserialize;
/// use tidemill_operators::source::{BadRecords, JsonLinesSource};
///
/// #[derive(Deserialize)]
/// struct Click { page: String, millis: i64 }
///
/// let clicks = JsonLinesSource::<Click>::new(["clicks.jsonl"])
///     .on_error(BadRecords::DeadLetter("clicks.bad".into()));
/// # drop(clicks);
/// ```
pub struct JsonLinesSource<T> {
    paths: Vec<PathBuf>,
    line_bytes_max: usize,
    on_error: BadRecords,
    plan: Option<FilePlan>,
    record: PhantomData<fn() -> T>,
}

impl<T: DeserializeOwned + 'static> JsonLinesSource<T> {
    /// Reads these files.
    pub fn new<P: Into<PathBuf>>(paths: impl IntoIterator<Item = P>) -> Self {
        Self {
            paths: paths.into_iter().map(Into::into).collect(),
            line_bytes_max: LINE_BYTES_MAX,
            on_error: BadRecords::Fail,
            plan: None,
            record: PhantomData,
        }
    }

    /// The longest line in bytes (16 MiB by default); a longer one is a bad record.
    #[must_use]
    pub fn line_bytes_max(mut self, line_bytes_max: usize) -> Self {
        assert!(line_bytes_max > 0, "a line has at least one byte");
        self.line_bytes_max = line_bytes_max;
        self
    }

    /// What to do about a line that cannot be decoded; fails by default.
    #[must_use]
    pub fn on_error(mut self, on_error: BadRecords) -> Self {
        self.on_error = on_error;
        self
    }
}

impl<T: DeserializeOwned + 'static> Source for JsonLinesSource<T> {
    type Item = T;
    type Split = FileSplit;
    type Reader = JsonLinesReader<T>;

    fn prepare(&mut self, parallelism: usize) -> Result<(), BoxError> {
        self.on_error.prepare()?;
        self.plan = Some(FilePlan::new(&self.paths, parallelism, |info| {
            let whole = info.gzip;
            Ok(InputFile { info, data_start: 0, header_lines: 0, whole })
        })?);
        Ok(())
    }

    fn splits(&self, context: &SubtaskContext) -> Result<Vec<FileSplit>, BoxError> {
        let missing = SourceError::NoShare { source_name: "JsonLinesSource", subtask: context.subtask };
        Ok(self.plan.as_ref().ok_or(missing)?.splits(context.subtask))
    }

    fn open(&self, context: &SubtaskContext, splits: Vec<FileSplit>) -> Result<JsonLinesReader<T>, BoxError> {
        let Some(plan) = &self.plan else {
            let source_name = "JsonLinesSource";
            return Err(SourceError::NoShare { source_name, subtask: context.subtask }.into());
        };
        let decoder = JsonDecoder(PhantomData);
        let (framing, bytes_max) = (Framing::Lines, self.line_bytes_max);
        Ok(JsonLinesReader(FileReader::open(
            plan,
            context,
            splits,
            framing,
            bytes_max,
            &self.on_error,
            decoder,
        )?))
    }
}

/// Reads one subtask's share of a [`JsonLinesSource`].
pub struct JsonLinesReader<T: DeserializeOwned + 'static>(FileReader<JsonDecoder<T>>);

impl<T: DeserializeOwned + 'static> Reader for JsonLinesReader<T> {
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

/// Decodes lines.
struct JsonDecoder<T>(PhantomData<fn() -> T>);

impl<T: DeserializeOwned + 'static> Decode for JsonDecoder<T> {
    type Item = T;

    #[inline]
    fn decode(&mut self, line: &str) -> Result<Option<T>, Reject> {
        // The byte order mark may stand at the front of a file.
        let line = line.strip_prefix('\u{feff}').unwrap_or(line);
        if line.trim_ascii().is_empty() {
            return Ok(None);
        }
        serde_json::from_str(line).map(Some).map_err(|error| {
            // A line is one line of JSON: its number there says nothing.
            Reject::Record(error.to_string().replace(" at line 1 column ", " at column "))
        })
    }
}
