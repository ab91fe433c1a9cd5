//! Exchanges: how records pass from the tasks of one chain to those of the next, on this core or another.
//!
//! A [`writer`] stands at the end of a chain, partitions ([`partition`], [`key_of`]) and archives records into one
//! [`batch`] per target; a [`channel`] hands full batches over; a [`gate`] takes them in on the other
//! side and merges the watermarks of all its channels. [`edge`] wires them up before the job starts.
//!
//! A barrier waits in line with the records, or overtakes them: then it is announced ([`announcement`]), and what it has
//! overtaken goes into the checkpoint ([`recorder`], [`in_flight`]).

pub mod announcement;
pub mod batch;
pub mod channel;
pub mod edge;
pub mod gate;
pub mod in_flight;
pub mod key_of;
pub mod partition;
mod recorder;
pub mod writer;
