//! Sources: where records come from.
//!
//! | source | reads | at parallelism n |
//! |---|---|---|
//! | [`VecSource`] | a vector | n contiguous shares |
//! | [`IteratorSource`] | one iterator | subtask 0 reads it |
//! | [`ParallelIteratorSource`] | one iterator per subtask | each reads its own |
//! | [`GeneratorSource`] | numbers, and makes a record of each | every n-th block of numbers |
//! | [`CsvSource`], [`JsonLinesSource`] | files, plain or gzip | byte ranges; a gzip file is one range |
//! | [`TcpLinesSource`] | lines of TCP connections | connections in turn |
//! | [`ChannelSource`] | what other threads feed | records in turn |
//! | [`WriteAheadSource`] | what other threads feed, by way of a log on the disk | one subtask reads it |
//!
//! All but [`TcpLinesSource`] and [`ChannelSource`] can be read on from a checkpoint, also at another parallelism. What
//! those two gave since the last checkpoint is lost when the job fails.
//!
//! Decoding happens on the data core, waiting for input never does. What to do about a record that cannot
//! be decoded is one setting, [`BadRecords`], for all sources that read bytes.

mod bad_record;
mod channel;
mod csv;
pub(crate) mod error;
mod file_plan;
mod file_reader;
mod generator;
mod iterator;
mod json;
mod lines;
mod tcp;
mod vec;
mod write_ahead;

pub use bad_record::BadRecords;
pub use channel::{ChannelReader, ChannelSource, Feeder, SendError, TrySendError, channel};
pub use csv::{CsvReader, CsvSource};
pub use error::{Place, SourceError};
pub use file_plan::FileSplit;
pub use generator::{GeneratorReader, GeneratorSource, GeneratorSplit, from_generator};
pub use iterator::{
    Counted, IteratorReader, IteratorSource, IteratorSplit, ParallelIteratorSource, from_iter,
    from_parallel_iter,
};
pub use json::{JsonLinesReader, JsonLinesSource};
pub use tcp::{TcpLinesHandle, TcpLinesReader, TcpLinesSource};
pub use vec::{VecItems, VecSource, VecSplit, from_vec};
pub use write_ahead::{
    Acknowledgement, WriteAheadChannel, WriteAheadError, WriteAheadFeeder, WriteAheadReader,
    WriteAheadSource, WriteAheadSplit, WriteAheadStats,
};
