//! The consuming side of an edge: takes elements from all channels in turn and merges their progress.
//!
//! **Alignment.** A channel that has brought a barrier is not read again before every other channel has brought the same one
//! or has ended; then the barrier is handed to the task, once. What waits behind it stays in its channel meanwhile.

use std::collections::VecDeque;

use tidemill_storage::record::Record;

use super::{batch::Batch, channel::Receiver};
use crate::{
    model::{checkpoint::Barrier, element::Element, operator::Signal, time::Timestamp},
    runtime::progress::merge::{Outcome, WatermarkMerge},
};

/// All channels that lead into one task.
pub struct Gate<T> {
    channels: Vec<Receiver<T>>,
    next: usize,
    merge: WatermarkMerge,
    signals: VecDeque<Signal>,
    alignment: Alignment,
}

/// Which channels have brought the barrier that the others have not.
struct Alignment {
    barrier: Option<Barrier>,
    arrived: Vec<bool>,
    ended: Vec<bool>,
}

impl Alignment {
    fn new(channels: usize) -> Self {
        Self { barrier: None, arrived: vec![false; channels], ended: vec![false; channels] }
    }

    /// Whether a channel may be read.
    #[inline(always)]
    fn lets_through(&self, channel: usize) -> bool {
        self.barrier.is_none() || !self.arrived[channel]
    }

    fn arrive(&mut self, channel: usize, barrier: Barrier) -> Option<Barrier> {
        let awaited = *self.barrier.get_or_insert(barrier);
        debug_assert_eq!(awaited, barrier, "two channels disagree on the next checkpoint");
        self.arrived[channel] = true;
        self.complete()
    }

    fn end(&mut self, channel: usize) -> Option<Barrier> {
        self.ended[channel] = true;
        self.complete()
    }

    /// The barrier, if every channel has brought it or has ended.
    fn complete(&mut self) -> Option<Barrier> {
        let mut channels = self.arrived.iter().zip(&self.ended);
        if !channels.all(|(arrived, ended)| *arrived || *ended) {
            return None;
        }
        self.arrived.fill(false);
        self.barrier.take()
    }
}

/// What came through the gate.
pub enum Arrival<T> {
    /// A batch, and the channel to give it back to.
    Batch(Box<Batch<T>>, usize),
    /// A signal for the whole task.
    Signal(Signal),
    /// An element that says nothing to the task. Its room is free all the same, which its sender has to notice.
    Nothing,
}

impl<T: Record> Gate<T> {
    /// A gate with these channels.
    pub fn new(channels: Vec<Receiver<T>>) -> Self {
        let merge = WatermarkMerge::new(channels.len());
        let alignment = Alignment::new(channels.len());
        Self { channels, next: 0, merge, signals: VecDeque::with_capacity(4), alignment }
    }

    /// The next arrival; channels take turns, element by element.
    #[inline]
    pub fn poll(&mut self) -> Option<Arrival<T>> {
        if let Some(signal) = self.signals.pop_front() {
            return Some(Arrival::Signal(signal));
        }
        let (channel, element) = self.next_element()?;
        let outcome = match element {
            Element::Batch(batch) => {
                // Records make an idle channel active before they are handled.
                let outcome = self.merge.active(channel);
                self.queue(outcome);
                return Some(Arrival::Batch(batch, channel));
            }
            Element::Watermark(watermark) => self.merge.watermark(channel, watermark),
            Element::Idle => self.merge.idle(channel),
            Element::Active => self.merge.active(channel),
            Element::Barrier(barrier) => {
                let complete = self.alignment.arrive(channel, barrier);
                let arrival = complete.map(|barrier| Arrival::Signal(Signal::Barrier(barrier)));
                return Some(arrival.unwrap_or(Arrival::Nothing));
            }
            Element::End => {
                let complete = self.alignment.end(channel);
                self.signals.extend(complete.map(Signal::Barrier));
                self.merge.end(channel)
            }
        };
        self.queue(outcome);
        Some(self.signals.pop_front().map_or(Arrival::Nothing, Arrival::Signal))
    }

    #[inline]
    fn next_element(&mut self) -> Option<(usize, Element<Box<Batch<T>>>)> {
        for _ in 0..self.channels.len() {
            let channel = self.next;
            self.next = if channel + 1 == self.channels.len() { 0 } else { channel + 1 };
            if self.alignment.lets_through(channel)
                && let Some(element) = self.channels[channel].receive()
            {
                return Some((channel, element));
            }
        }
        None
    }

    fn queue(&mut self, outcome: Outcome) {
        self.signals.extend(outcome.activity);
        self.signals.extend(outcome.watermark.map(Signal::Watermark));
        self.signals.extend(outcome.rest);
    }

    /// Gives an emptied batch back to the channel that it came through.
    pub fn recycle(&mut self, batch: Box<Batch<T>>, channel: usize) {
        self.channels[channel].recycle(batch);
    }

    /// The merged watermark.
    pub fn watermark(&self) -> Timestamp {
        self.merge.merged()
    }

    /// Whether no channel is active for now.
    pub fn is_idle(&self) -> bool {
        self.merge.is_idle()
    }

    /// Elements that wait, and that fit.
    pub fn fill(&self) -> (usize, usize) {
        self.channels
            .iter()
            .fold((0, 0), |(waiting, room), channel| (waiting + channel.waiting(), room + channel.capacity()))
    }
}
