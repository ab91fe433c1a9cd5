//! One channel: a bounded ring from one subtask to another, and a second ring by which buffers come back.
//!
//! Both rings are wait-free for one producer and one consumer (`rtrb`); a batch crosses as a pointer. A
//! worker that may be parked is woken after each element, which costs a fence and a load when it is awake.
//! Both ends may live on one worker: then the rings are plain queues that nobody contends for.
//!
//! **Cache lines.** A line that the other core has written takes some 0.1 µs to come, and a lone record takes as long as the lines
//! that it waits for, one after the other. So a batch and its first records, which are found by two pointers, are fetched together
//! ([`Batch::fetch`]), what the receiver has taken is asked before there is something to send ([`Sender::is_drained`]), and
//! the sender is woken and has its buffer back once what came of the element is under way.

use std::{collections::VecDeque, sync::Arc};

use rtrb::{Consumer, Producer, PushError, RingBuffer};
use tidemill_storage::record::Record;

use super::{
    announcement::{Announced, Announcer, Listener, announcement},
    batch::Batch,
};
use crate::{
    model::{
        checkpoint::CheckpointId,
        element::{Element, Grammar},
        operator::OperatorIndex,
    },
    platform::Wake,
};

/// What a channel of records of type `T` carries.
pub type Parcel<T> = Element<Box<Batch<T>>>;

/// What lies in the ring.
struct Sent<T> {
    parcel: Parcel<T>,
    /// Where the records of a batch lie, so that they are fetched together with the batch.
    place: usize,
}

impl<T: Record> Sent<T> {
    fn new(parcel: Parcel<T>) -> Self {
        let place = if let Element::Batch(batch) = &parcel { batch.place() } else { 0 };
        Self { parcel, place }
    }
}

/// Where a channel is in its job.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ChannelPlace {
    /// The partitioning operator of its edge.
    pub edge: OperatorIndex,
    /// Whether every record goes to every consumer of the edge.
    pub broadcasts: bool,
    /// Index of the producing subtask.
    pub from: usize,
    /// Index of the consuming subtask.
    pub to: usize,
    /// Number of producing subtasks of the edge.
    pub producers: usize,
    /// Number of consuming subtasks of the edge.
    pub consumers: usize,
}

/// The producing end.
pub struct Sender<T> {
    place: ChannelPlace,
    parcels: Producer<Sent<T>>,
    empties: Consumer<Box<Batch<T>>>,
    receiver: Option<Arc<dyn Wake>>,
    announcer: Announcer,
    /// Elements that were pushed into the ring.
    sent: u64,
}

/// The consuming end.
pub struct Receiver<T> {
    place: ChannelPlace,
    /// What an earlier attempt had under way here, which comes before all else.
    replay: VecDeque<Parcel<T>>,
    parcels: Consumer<Sent<T>>,
    empties: Producer<Box<Batch<T>>>,
    sender: Option<Arc<dyn Wake>>,
    grammar: Grammar,
    listener: Listener,
    /// Elements that were taken from the ring.
    taken: u64,
}

/// A channel for `capacity` elements. The wakers are those of the workers at either end, `None` where both
/// ends live on one worker.
pub fn channel<T: Record>(
    place: ChannelPlace,
    capacity: usize,
    sender: Option<Arc<dyn Wake>>,
    receiver: Option<Arc<dyn Wake>>,
) -> (Sender<T>, Receiver<T>) {
    let (parcels_in, parcels_out) = RingBuffer::new(capacity);
    // Every buffer of the channel may be on its way back at once, with one in the hands of each end.
    let (empties_in, empties_out) = RingBuffer::new(capacity + 2);
    let (announcer, listener) = announcement();
    (
        Sender { place, parcels: parcels_in, empties: empties_out, receiver, announcer, sent: 0 },
        Receiver {
            place,
            replay: VecDeque::new(),
            parcels: parcels_out,
            empties: empties_in,
            sender,
            grammar: Grammar::default(),
            listener,
            taken: 0,
        },
    )
}

impl<T: Record> Sender<T> {
    /// Hands an element over, or gives it back when the ring is full.
    ///
    /// # Errors
    /// The element, when there is no room.
    pub fn send(&mut self, parcel: Parcel<T>) -> Result<(), Parcel<T>> {
        match self.parcels.push(Sent::new(parcel)) {
            Ok(()) => {
                self.sent += 1;
                if let Some(receiver) = &self.receiver {
                    receiver.wake();
                }
                Ok(())
            }
            Err(PushError::Full(sent)) => Err(sent.parcel),
        }
    }

    /// Announces a barrier behind all that was sent, and before all that was not.
    pub fn announce(&self, checkpoint: CheckpointId) {
        self.announcer.announce(checkpoint, self.sent);
        if let Some(receiver) = &self.receiver {
            receiver.wake();
        }
    }

    /// Where the channel is.
    pub fn place(&self) -> ChannelPlace {
        self.place
    }

    /// A buffer that came back, if one did.
    pub fn recycled(&mut self) -> Option<Box<Batch<T>>> {
        self.empties.pop().ok()
    }

    /// Whether the receiver has taken everything that was sent. Once it is known, the line that the receiver writes is not
    /// fetched again until something else is sent.
    #[inline]
    pub fn is_drained(&self) -> bool {
        let capacity = self.parcels.buffer().capacity();
        self.parcels.cached_slots() == capacity || self.parcels.slots() == capacity
    }

    /// Whether the other end is gone: its worker stopped.
    pub fn is_abandoned(&self) -> bool {
        self.parcels.is_abandoned()
    }
}

impl<T: Record> Receiver<T> {
    /// Lets these elements come before all that is sent.
    pub fn replay(&mut self, parcels: VecDeque<Parcel<T>>) {
        self.replay = parcels;
    }

    /// Where the channel is.
    pub fn place(&self) -> ChannelPlace {
        self.place
    }

    /// Whether an element is there.
    #[inline(always)]
    pub fn is_ready(&self) -> bool {
        !self.replay.is_empty() || !self.parcels.is_empty()
    }

    /// A barrier that overtakes and that was not heard yet. What [was there](Self::is_ready) before the call came before it.
    #[inline(always)]
    pub fn news(&self) -> Option<Announced> {
        self.listener.news()
    }

    /// Notes that a barrier was heard.
    pub fn hear(&mut self, announced: Announced) {
        self.listener.hear(announced);
    }

    /// Shows the elements that wait and that an announced barrier has overtaken, in their order.
    pub fn show_overtaken(&mut self, announced: Announced, show: &mut dyn FnMut(&Parcel<T>)) {
        self.replay.iter().for_each(&mut *show);
        let overtaken = announced.position.saturating_sub(self.taken) as usize;
        // Elements are pushed before the barrier is announced behind them: as many are there.
        if let Ok(waiting) = self.parcels.read_chunk(overtaken) {
            let (first, second) = waiting.as_slices();
            first.iter().chain(second).map(|sent| &sent.parcel).for_each(show);
        }
    }

    /// The next element, if one is there.
    #[inline]
    pub fn receive(&mut self) -> Option<Parcel<T>> {
        if let Some(parcel) = self.replay.pop_front() {
            return Some(parcel);
        }
        let Sent { parcel, place } = self.parcels.pop().ok()?;
        if let Element::Batch(batch) = &parcel {
            batch.fetch(place);
        }
        self.taken += 1;
        self.grammar.follow(&parcel);
        Some(parcel)
    }

    /// Gives an emptied buffer back to the sender, who frees it if it is not needed.
    pub fn recycle(&mut self, batch: Box<Batch<T>>) {
        // Room for every buffer of the channel was made: the push can only fail when the sender let some
        // of them go to a third place, and then this one is simply freed.
        let _freed = self.empties.push(batch);
    }

    /// Wakes the sender, who may wait for the room of what was [received](Self::receive).
    pub fn wake_sender(&self) {
        if let Some(sender) = &self.sender {
            sender.wake();
        }
    }

    /// Elements that wait.
    pub fn waiting(&self) -> usize {
        self.replay.len() + self.parcels.slots()
    }

    /// Elements that fit.
    pub fn capacity(&self) -> usize {
        self.parcels.buffer().capacity()
    }
}
