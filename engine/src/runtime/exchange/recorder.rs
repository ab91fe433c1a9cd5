//! What a barrier overtakes at the inputs of one task.
//!
//! A task passes a barrier that overtakes as soon as the first of its channels announces it. From then on, what comes over a
//! channel that has not announced it belongs to the checkpoint, and is copied as it is taken; when the channel announces it,
//! what waits in its ring before the announced place is copied at once. With the last channel the record is complete.

use tidemill_storage::record::Record;

use super::{
    announcement::Announced,
    batch::Batch,
    channel::{ChannelPlace, Parcel, Receiver},
    in_flight::{in_flight, write, write_batch},
};
use crate::model::{
    checkpoint::{ChannelEnd, CheckpointId, InFlight},
    operator::OperatorIndex,
    source::BoxError,
};

/// Bytes that the inputs of one task may add to a checkpoint. More comes together only where senders do not get round to
/// their barrier for long, and is not worth to be kept.
const BYTES_MAX: usize = 256 << 20;

/// What a checkpoint has overtaken at the inputs of one task.
pub type Overtaken = (CheckpointId, Result<Vec<(OperatorIndex, InFlight)>, BoxError>);

/// Records what barriers overtake.
pub(super) struct Recorder {
    /// The last checkpoint whose barrier has overtaken.
    checkpoint: CheckpointId,
    /// What each channel has had; `None` when it has announced the barrier, or no barrier is under way.
    open: Vec<Option<Vec<u8>>>,
    overtaken: Vec<(OperatorIndex, InFlight)>,
    bytes: usize,
    complete: Vec<Overtaken>,
}

impl Recorder {
    pub(super) fn new(channels: usize) -> Self {
        let open = (0..channels).map(|_| None).collect();
        Self { checkpoint: 0, open, overtaken: Vec::new(), bytes: 0, complete: Vec::new() }
    }

    /// The last checkpoint whose barrier has overtaken; 0 before the first.
    #[inline(always)]
    pub(super) fn checkpoint(&self) -> CheckpointId {
        self.checkpoint
    }

    /// A barrier overtakes what comes over all channels that have not ended. What was recorded for the one before is of no use
    /// any more: it has failed.
    pub(super) fn begin(&mut self, checkpoint: CheckpointId, ended: &[bool]) {
        if self.is_recording() {
            self.finish(Ok(()));
        }
        self.checkpoint = checkpoint;
        for (open, ended) in self.open.iter_mut().zip(ended) {
            *open = (!ended).then(Vec::new);
        }
    }

    /// Whether a channel has not announced the barrier.
    #[inline(always)]
    fn is_recording(&self) -> bool {
        self.open.iter().any(Option::is_some)
    }

    /// Copies what was taken from a channel, if it belongs to the checkpoint.
    #[inline(always)]
    pub(super) fn note<T: Record>(&mut self, channel: usize, parcel: &Parcel<T>) {
        if self.open[channel].is_some() {
            self.copy(channel, parcel);
        }
    }

    #[cold]
    fn copy<T: Record>(&mut self, channel: usize, parcel: &Parcel<T>) {
        let Some(bytes) = &mut self.open[channel] else { return };
        let before = bytes.len();
        write(parcel, bytes);
        self.bytes += bytes.len() - before;
        if self.bytes > BYTES_MAX {
            let mib = BYTES_MAX >> 20;
            self.finish(Err(format!("more than {mib} MiB were on the way to this operator").into()));
        }
    }

    /// Copies the rest of the batch in work, from its record `first` on.
    pub(super) fn note_rest<T: Record>(&mut self, channel: usize, batch: &Batch<T>, first: usize) {
        if let Some(bytes) = &mut self.open[channel] {
            write_batch(batch, first, bytes);
            self.bytes += bytes.len();
        }
    }

    /// A channel announces the barrier: what it has overtaken there is copied.
    pub(super) fn hear<T: Record>(
        &mut self,
        channel: usize,
        receiver: &mut Receiver<T>,
        announced: Announced,
    ) {
        receiver.show_overtaken(announced, &mut |parcel| self.note(channel, parcel));
        self.close::<T>(channel, receiver.place());
    }

    /// Nothing more comes over a channel that belongs to the checkpoint.
    pub(super) fn close<T: Record>(&mut self, channel: usize, place: ChannelPlace) {
        let Some(bytes) = self.open[channel].take() else { return };
        let seen = in_flight::<T>(place, ChannelEnd::Receiver, bytes);
        self.overtaken.extend(seen.map(|seen| (place.edge, seen)));
        if !self.is_recording() {
            self.finish(Ok(()));
        }
    }

    fn finish(&mut self, outcome: Result<(), BoxError>) {
        self.open.fill_with(|| None);
        self.bytes = 0;
        let overtaken = std::mem::take(&mut self.overtaken);
        self.complete.push((self.checkpoint, outcome.map(|()| overtaken)));
    }

    /// What is complete, of checkpoints before `next`.
    #[inline(always)]
    pub(super) fn take(&mut self, next: Option<CheckpointId>) -> Option<Overtaken> {
        let (checkpoint, _) = self.complete.first()?;
        next.is_none_or(|next| *checkpoint < next).then(|| self.complete.remove(0))
    }
}
