//! Standard output.

use std::{
    fmt::{Debug, Display},
    io::{self, Write},
    sync::Arc,
};

use tidemill_engine::model::{
    sink::{Sink, SinkWriter},
    source::{BoxError, SubtaskContext},
    time::Timestamp,
};

use super::error::SinkError;

/// Bytes that are gathered before they are written.
const BUFFER_BYTES: usize = 64 << 10;

/// Makes the writer that a subtask writes to.
type MakeOutput = Arc<dyn Fn() -> Box<dyn Write> + Send + Sync>;

/// Writes each record as a line to standard output. Lines of several subtasks come in any order, but whole.
///
/// When the reader of a pipe has gone (`job | head`), writing fails with [`SinkError::StdoutClosed`]: a
/// program that is used in pipes ends quietly on it.
///
/// ```
/// use tidemill_operators::sink::StdoutSink;
///
/// let plain = StdoutSink::display::<u64>();
/// let rows = StdoutSink::formatted(|(word, count): &(String, u64)| format!("{word:>12} {count}"));
/// # drop((plain, rows));
/// ```
#[derive(Clone)]
pub struct StdoutSink<F> {
    format: F,
    output: MakeOutput,
}

impl StdoutSink<()> {
    /// Writes records as [`Display`] shows them.
    pub fn display<T: Display + 'static>() -> StdoutSink<impl Fn(&T) -> String + Clone + Send + Sync + 'static>
    {
        StdoutSink::formatted(T::to_string)
    }

    /// Writes records as [`Debug`] shows them.
    pub fn debug<T: Debug + 'static>() -> StdoutSink<impl Fn(&T) -> String + Clone + Send + Sync + 'static> {
        StdoutSink::formatted(|record: &T| format!("{record:?}"))
    }
}

impl<F> StdoutSink<F> {
    /// Writes records as `format` makes lines of them.
    pub fn formatted<T>(format: F) -> Self
    where
        F: Fn(&T) -> String + Clone + Send + Sync + 'static,
    {
        Self { format, output: Arc::new(|| Box::new(io::stdout())) }
    }

    /// Writes to what `output` makes per subtask instead; every write holds whole lines.
    #[must_use]
    pub fn to(mut self, output: impl Fn() -> Box<dyn Write> + Send + Sync + 'static) -> Self {
        self.output = Arc::new(output);
        self
    }
}

impl<T: 'static, F> Sink<T> for StdoutSink<F>
where
    F: Fn(&T) -> String + Clone + Send + Sync + 'static,
{
    type Writer = StdoutWriter<F>;

    fn prepare(&mut self, _parallelism: usize) -> Result<(), BoxError> {
        Ok(())
    }

    fn open(&self, _context: &SubtaskContext) -> Result<StdoutWriter<F>, BoxError> {
        Ok(StdoutWriter { format: self.format.clone(), output: (self.output)(), lines: String::new() })
    }
}

/// Writes one subtask's lines of a [`StdoutSink`].
pub struct StdoutWriter<F> {
    format: F,
    output: Box<dyn Write>,
    lines: String,
}

impl<F> StdoutWriter<F> {
    fn flush_lines(&mut self) -> Result<(), SinkError> {
        let written = self.output.write_all(self.lines.as_bytes()).and_then(|()| self.output.flush());
        self.lines.clear();
        written.map_err(|cause| match cause.kind() {
            io::ErrorKind::BrokenPipe => SinkError::StdoutClosed,
            _ => SinkError::Stdout { cause },
        })
    }
}

impl<T: 'static, F> SinkWriter<T> for StdoutWriter<F>
where
    F: Fn(&T) -> String + Clone + Send + Sync + 'static,
{
    fn write(&mut self, record: T, _timestamp: Timestamp) -> Result<(), BoxError> {
        self.lines.push_str(&(self.format)(&record));
        self.lines.push('\n');
        if self.lines.len() >= BUFFER_BYTES {
            self.flush_lines()?;
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<(), BoxError> {
        Ok(self.flush_lines()?)
    }

    fn finish(&mut self) -> Result<(), BoxError> {
        Ok(self.flush_lines()?)
    }
}
