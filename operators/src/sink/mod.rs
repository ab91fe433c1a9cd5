//! Sinks: where records go.
//!
//! | sink | writes | at parallelism n |
//! |---|---|---|
//! | [`StdoutSink`] | lines to standard output | whole lines, in any order |
//! | [`CsvSink`], [`JsonLinesSink`] | one file, or a directory of files | one file needs `.global()`; a directory gets `part-N` per subtask |
//! | [`FileSink`] | rolling files of whole rows, exactly or at least once | files of its own per subtask |
//! | [`CollectSink`] | into memory | in the order of subtasks |
//! | [`CallbackSink`] | calls a function | one clone of it per subtask |
//! | [`BlackholeSink`] | nothing, and counts | one count |

mod blackhole;
mod callback;
mod collect;
mod csv;
mod delivery_guarantee;
mod error;
mod file;
mod json;
mod length_committer;
mod lengths;
#[cfg(feature = "postgres")]
mod postgres;
mod rolling;
mod stdout;

use std::{io, path::Path};

use tidemill_engine::platform::files::FileError;

pub use blackhole::{BlackholeSink, BlackholeWriter, RecordCount};
pub use callback::{CallbackSink, CallbackWriter};
pub use collect::{CollectSink, CollectWriter, Collected};
pub use csv::{CsvSink, CsvSinkWriter};
pub use delivery_guarantee::DeliveryGuarantee;
pub use error::SinkError;
pub use json::{JsonLinesSink, JsonLinesWriter};
#[cfg(feature = "postgres")]
pub use postgres::{PostgresError, PostgresSink, PostgresSinkWriter, PostgresValue, sql_value};
pub use rolling::{FileSink, FileSinkWriter};
pub use stdout::{StdoutSink, StdoutWriter};

pub(crate) use lengths::known_bytes;

/// The error of the disk at `path`.
fn failed(path: &Path) -> impl FnOnce(io::Error) -> SinkError + use<'_> {
    move |cause| FileError::write(path, cause).into()
}
