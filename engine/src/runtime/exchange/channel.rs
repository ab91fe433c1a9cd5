//! One channel: a bounded ring from one subtask to another, and a second ring by which buffers come back.
//!
//! Both rings are wait-free for one producer and one consumer (`rtrb`); a batch crosses as a pointer. A
//! worker that may be parked is woken after each element, which costs a fence and a load when it is awake.
//! Both ends may live on one worker: then the rings are plain queues that nobody contends for.

use std::sync::Arc;

use rtrb::{Consumer, Producer, PushError, RingBuffer};
use tidemill_storage::record::Record;

use super::batch::Batch;
use crate::{
    model::element::{Element, Grammar},
    platform::Wake,
};

/// What a channel of records of type `T` carries.
pub type Parcel<T> = Element<Box<Batch<T>>>;

/// The producing end.
pub struct Sender<T> {
    parcels: Producer<Parcel<T>>,
    empties: Consumer<Box<Batch<T>>>,
    receiver: Option<Arc<dyn Wake>>,
}

/// The consuming end.
pub struct Receiver<T> {
    parcels: Consumer<Parcel<T>>,
    empties: Producer<Box<Batch<T>>>,
    sender: Option<Arc<dyn Wake>>,
    grammar: Grammar,
}

/// A channel for `capacity` elements. The wakers are those of the workers at either end, `None` where both
/// ends live on one worker.
pub fn channel<T: Record>(
    capacity: usize,
    sender: Option<Arc<dyn Wake>>,
    receiver: Option<Arc<dyn Wake>>,
) -> (Sender<T>, Receiver<T>) {
    let (parcels_in, parcels_out) = RingBuffer::new(capacity);
    // Every buffer of the channel may be on its way back at once, with one in the hands of each end.
    let (empties_in, empties_out) = RingBuffer::new(capacity + 2);
    (
        Sender { parcels: parcels_in, empties: empties_out, receiver },
        Receiver { parcels: parcels_out, empties: empties_in, sender, grammar: Grammar::default() },
    )
}

impl<T: Record> Sender<T> {
    /// Hands an element over, or gives it back when the ring is full.
    ///
    /// # Errors
    /// The element, when there is no room.
    pub fn send(&mut self, parcel: Parcel<T>) -> Result<(), Parcel<T>> {
        match self.parcels.push(parcel) {
            Ok(()) => {
                if let Some(receiver) = &self.receiver {
                    receiver.wake();
                }
                Ok(())
            }
            Err(PushError::Full(parcel)) => Err(parcel),
        }
    }

    /// A buffer that came back, if one did.
    pub fn recycled(&mut self) -> Option<Box<Batch<T>>> {
        self.empties.pop().ok()
    }

    /// Whether the receiver has taken everything that was sent.
    pub fn is_drained(&self) -> bool {
        self.parcels.slots() == self.parcels.buffer().capacity()
    }

    /// Whether the other end is gone: its worker stopped.
    pub fn is_abandoned(&self) -> bool {
        self.parcels.is_abandoned()
    }
}

impl<T: Record> Receiver<T> {
    /// The next element, if one is there.
    #[inline]
    pub fn receive(&mut self) -> Option<Parcel<T>> {
        let parcel = self.parcels.pop().ok()?;
        self.grammar.follow(&parcel);
        if let Some(sender) = &self.sender {
            sender.wake();
        }
        Some(parcel)
    }

    /// Gives an emptied buffer back to the sender, who frees it if it is not needed.
    pub fn recycle(&mut self, batch: Box<Batch<T>>) {
        // Room for every buffer of the channel was made: the push can only fail when the sender let some
        // of them go to a third place, and then this one is simply freed.
        let _freed = self.empties.push(batch);
    }

    /// Elements that wait.
    pub fn waiting(&self) -> usize {
        self.parcels.slots()
    }

    /// Elements that fit.
    pub fn capacity(&self) -> usize {
        self.parcels.buffer().capacity()
    }
}
