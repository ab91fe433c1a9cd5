//! The elements of a channel as bytes, for a checkpoint whose barrier has overtaken them; and how they come back.
//!
//! ```text
//! element := 1 batch          as it was in the channel: see `Batch::write_to`
//!          | 2 watermark i64
//!          | 3                idle
//!          | 4                active
//! ```
//!
//! Numbers are little-endian. A barrier among the elements is not kept: its checkpoint was given up, or this one would not
//! have begun. No end is, either: the barrier before the end overtakes nothing.
//!
//! **With as many subtasks as before** each channel begins with what it had under way, and the result is what it would have
//! been. **With another number** a record goes to the subtask that owns its key; one without a key to any. Where watermarks
//! stood between the records then means nothing to the new channels: they come again from the sources, behind these records,
//! so that none is late that was not. What went to every subtask at once cannot be dealt out again: that is an error.

use std::collections::VecDeque;

use thiserror::Error;
use tidemill_storage::{
    key::{key_group, key_group_range},
    record::Record,
};

use super::{
    batch::Batch,
    channel::{ChannelPlace, Parcel, Receiver},
};
use crate::{
    model::{
        checkpoint::{ChannelEnd, InFlight, OperatorState},
        element::Element,
        operator::OperatorIndex,
    },
    platform::Nanos,
};

const BATCH: u8 = 1;
const WATERMARK: u8 = 2;
const IDLE: u8 = 3;
const ACTIVE: u8 = 4;

/// What is wrong with records that a checkpoint has under way.
#[derive(Debug, Error)]
pub enum InFlightError {
    /// Another record type.
    #[error(
        "the checkpoint has records of type `{stored}` on the way to this operator, which takes `{wanted}`: go on with the former \
         program, or stop it with a savepoint, which has no records on the way"
    )]
    Schema {
        /// What the checkpoint has.
        stored: String,
        /// What the operator takes.
        wanted: String,
    },
    /// Broadcast records, and another number of subtasks.
    #[error(
        "the checkpoint has broadcast records on the way from {producers} to {consumers} subtasks, and there are others now: go on \
         with the former parallelism, or stop the job with a savepoint, which has no records on the way"
    )]
    Broadcast {
        /// Number of producing subtasks.
        producers: usize,
        /// Number of consuming subtasks.
        consumers: usize,
    },
    /// Bytes that mean nothing.
    #[error("the records that the checkpoint has on the way to this operator cannot be read: {0}")]
    Damaged(String),
}

/// Appends an element, unless it is one that is not kept.
pub(super) fn write<T: Record>(parcel: &Parcel<T>, bytes: &mut Vec<u8>) {
    match parcel {
        Element::Batch(batch) => write_batch(batch, 0, bytes),
        Element::Watermark(watermark) => {
            bytes.push(WATERMARK);
            bytes.extend_from_slice(&watermark.to_le_bytes());
        }
        Element::Idle => bytes.push(IDLE),
        Element::Active => bytes.push(ACTIVE),
        Element::Barrier(_) | Element::End => {}
    }
}

/// Appends a batch from its record `first` on.
pub(super) fn write_batch<T: Record>(batch: &Batch<T>, first: usize, bytes: &mut Vec<u8>) {
    bytes.push(BATCH);
    batch.write_to(first, bytes);
}

/// What one end of a channel has seen, if that is anything.
pub(super) fn in_flight<T: Record>(place: ChannelPlace, end: ChannelEnd, bytes: Vec<u8>) -> Option<InFlight> {
    let ChannelPlace { from, to, producers, consumers, .. } = place;
    let schema = T::schema();
    (!bytes.is_empty()).then_some(InFlight { from, to, producers, consumers, end, schema, bytes })
}

fn read<T: Record>(mut bytes: &[u8], now: Nanos) -> Result<VecDeque<Parcel<T>>, InFlightError> {
    let mut parcels = VecDeque::new();
    while let Some((kind, rest)) = bytes.split_first() {
        bytes = rest;
        parcels.push_back(match *kind {
            BATCH => {
                let (mut batch, rest) = Batch::read_from(bytes).map_err(InFlightError::Damaged)?;
                bytes = rest;
                // What it waited before the restart is not this job's latency.
                batch.ingest = now;
                Element::Batch(Box::new(batch))
            }
            WATERMARK => {
                let (watermark, rest) = bytes
                    .split_first_chunk()
                    .ok_or_else(|| InFlightError::Damaged("a watermark is cut off".to_owned()))?;
                bytes = rest;
                Element::Watermark(i64::from_le_bytes(*watermark))
            }
            IDLE => Element::Idle,
            ACTIVE => Element::Active,
            other => return Err(InFlightError::Damaged(format!("there is no element of kind {other}"))),
        });
    }
    Ok(parcels)
}

/// Lets the channels of one task begin with what they had under way in the checkpoint that the job goes on from.
///
/// # Errors
/// When that cannot be read, or not be dealt out to so many subtasks.
pub fn replay<'r, T: Record>(
    receivers: &mut [Receiver<T>],
    max_parallelism: u32,
    now: Nanos,
    restored: impl Fn(OperatorIndex) -> Option<&'r OperatorState>,
) -> Result<(), InFlightError> {
    let mut edges: Vec<OperatorIndex> = receivers.iter().map(|receiver| receiver.place().edge).collect();
    edges.dedup();
    for edge in edges {
        let Some(state) = restored(edge) else { continue };
        let mut parts: Vec<&InFlight> =
            state.subtasks.iter().flat_map(|subtask| &subtask.in_flight).collect();
        // What the receiver had before it comes before what the sender had no room for.
        parts.sort_by_key(|part| (part.from, part.to, part.end));
        if let Some(other) = parts.iter().find(|part| part.schema != T::schema()) {
            let (stored, wanted) = (other.schema.to_string(), T::schema().to_string());
            return Err(InFlightError::Schema { stored, wanted });
        }
        let receivers = receivers.iter_mut().filter(|receiver| receiver.place().edge == edge);
        deal(&mut receivers.collect::<Vec<_>>(), &parts, max_parallelism, now)?;
    }
    Ok(())
}

/// Deals the parts of one edge out to those of its channels that lead to one task.
fn deal<T: Record>(
    receivers: &mut [&mut Receiver<T>],
    parts: &[&InFlight],
    max_parallelism: u32,
    now: Nanos,
) -> Result<(), InFlightError> {
    let mut replays: Vec<VecDeque<Parcel<T>>> = receivers.iter().map(|_| VecDeque::new()).collect();
    for part in parts {
        let ChannelPlace { producers, consumers, broadcasts, to, .. } = receivers[0].place();
        if (part.producers, part.consumers) == (producers, consumers) {
            let mut same = receivers.iter().map(|receiver| receiver.place());
            if let Some(at) = same.position(|place| (place.from, place.to) == (part.from, part.to)) {
                replays[at].extend(read::<T>(&part.bytes, now)?);
            }
            continue;
        }
        if broadcasts {
            let InFlight { producers, consumers, .. } = **part;
            return Err(InFlightError::Broadcast { producers, consumers });
        }
        let groups = key_group_range(to as u32, max_parallelism, consumers as u32);
        let is_here = part.to % consumers == to;
        let at = part.from % receivers.len();
        for parcel in read::<T>(&part.bytes, now)? {
            let Element::Batch(batch) = parcel else { continue };
            let own = if batch.hashes().is_empty() {
                is_here.then_some(batch)
            } else {
                let own = |hash| groups.contains(&key_group(hash, max_parallelism));
                batch.of_keys(own).map_err(|error| InFlightError::Damaged(error.to_string()))?
            };
            replays[at].extend(own.map(Element::Batch));
        }
    }
    receivers.iter_mut().zip(replays).for_each(|(receiver, replay)| receiver.replay(replay));
    Ok(())
}
