//! The consuming side of an edge: takes elements from all channels in turn and merges their progress.
//!
//! **Alignment.** A channel that has brought a barrier is not read again before every other channel has brought the same one
//! or has ended; then the barrier is handed to the task, once. What waits behind it stays in its channel meanwhile.
//!
//! **A barrier that overtakes** is handed to the task as soon as one channel announces it; what the others bring before they
//! announce it is taken as ever, and recorded ([`recorder`](super::recorder)). Barriers in line that are older than one that
//! has overtaken them belong to checkpoints that were given up: alignment for them ends, and they are dropped.

use std::collections::VecDeque;

use tidemill_storage::record::Record;

use super::{
    batch::Batch,
    channel::Receiver,
    recorder::{Overtaken, Recorder},
};
use crate::{
    model::{
        checkpoint::{Barrier, BarrierKind, CheckpointId},
        element::Element,
        operator::Signal,
        time::Timestamp,
    },
    runtime::progress::merge::{Outcome, WatermarkMerge},
};

/// All channels that lead into one task.
pub struct Gate<T> {
    channels: Vec<Receiver<T>>,
    next: usize,
    merge: WatermarkMerge,
    signals: VecDeque<Signal>,
    alignment: Alignment,
    recorder: Recorder,
    owed: Option<Owed<T>>,
}

/// What the sender of the last element has not been given back yet: to hear that there is room, and the buffer once it was
/// emptied.
struct Owed<T> {
    channel: usize,
    buffer: Option<Box<Batch<T>>>,
}

/// What is next.
enum Next<T> {
    Element(usize, Element<Box<Batch<T>>>),
    /// A barrier overtakes what waits.
    Overtaking(Barrier),
    Nothing,
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

    /// Checkpoints before this one were given up.
    fn give_up_before(&mut self, checkpoint: CheckpointId) {
        if self.barrier.is_some_and(|awaited| awaited.checkpoint < checkpoint) {
            self.barrier = None;
            self.arrived.fill(false);
        }
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
        let recorder = Recorder::new(channels.len());
        let signals = VecDeque::with_capacity(4);
        Self { channels, next: 0, merge, signals, alignment, recorder, owed: None }
    }

    /// Whether a barrier overtakes what waits. Signals that wait come from elements before it, and go before it.
    pub fn is_overtaken(&self) -> bool {
        let last = self.recorder.checkpoint();
        let is_new = |channel: &Receiver<T>| channel.news().is_some_and(|news| news.checkpoint > last);
        self.signals.is_empty() && self.channels.iter().any(is_new)
    }

    /// Passes the barrier that [overtakes](Self::is_overtaken) what waits, and the rest of the batch in work: of the channel
    /// that brought it, from a record on.
    pub fn overtake(&mut self, in_work: Option<(usize, &Batch<T>, usize)>) -> Option<Barrier> {
        (0..self.channels.len()).find_map(|channel| self.hear(channel, true, in_work))
    }

    /// Hears what channels have announced of the last barrier that has overtaken.
    #[cold]
    pub fn listen(&mut self) {
        for channel in 0..self.channels.len() {
            self.hear(channel, false, None);
        }
    }

    /// Hears what one channel has announced. Returns the barrier, if it is new to the gate.
    #[cold]
    fn hear(
        &mut self,
        channel: usize,
        may_begin: bool,
        in_work: Option<(usize, &Batch<T>, usize)>,
    ) -> Option<Barrier> {
        let announced = self.channels[channel].news()?;
        let checkpoint = announced.checkpoint;
        let is_new = checkpoint > self.recorder.checkpoint();
        if is_new && !may_begin {
            return None;
        }
        if is_new {
            self.alignment.give_up_before(checkpoint);
            self.recorder.begin(checkpoint, &self.alignment.ended);
            if let Some((channel, batch, first)) = in_work {
                self.recorder.note_rest(channel, batch, first);
            }
        }
        let receiver = &mut self.channels[channel];
        receiver.hear(announced);
        if checkpoint == self.recorder.checkpoint() {
            self.recorder.hear(channel, receiver, announced);
        }
        is_new.then_some(Barrier { checkpoint, kind: BarrierKind::Overtaking })
    }

    /// What a barrier has overtaken here, once that is known; of one before that of checkpoint `next`, if that is about to be
    /// passed.
    #[inline(always)]
    pub fn take_overtaken(&mut self, next: Option<CheckpointId>) -> Option<Overtaken> {
        self.recorder.take(next)
    }

    /// The next arrival; channels take turns, element by element.
    #[inline]
    pub fn poll(&mut self) -> Option<Arrival<T>> {
        if let Some(signal) = self.signals.pop_front() {
            return Some(Arrival::Signal(signal));
        }
        let (channel, element) = match self.next_element() {
            Next::Element(channel, element) => (channel, element),
            Next::Overtaking(barrier) => return Some(Arrival::Signal(Signal::Barrier(barrier))),
            Next::Nothing => return None,
        };
        self.recorder.note(channel, &element);
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
            Element::Barrier(barrier) if barrier.checkpoint < self.recorder.checkpoint() => {
                return Some(Arrival::Nothing);
            }
            Element::Barrier(barrier) => {
                let complete = self.alignment.arrive(channel, barrier);
                let arrival = complete.map(|barrier| Arrival::Signal(Signal::Barrier(barrier)));
                return Some(arrival.unwrap_or(Arrival::Nothing));
            }
            Element::End => {
                let complete = self.alignment.end(channel);
                self.recorder.close::<T>(channel, self.channels[channel].place());
                self.signals.extend(complete.map(Signal::Barrier));
                self.merge.end(channel)
            }
        };
        self.queue(outcome);
        Some(self.signals.pop_front().map_or(Arrival::Nothing, Arrival::Signal))
    }

    #[inline]
    fn next_element(&mut self) -> Next<T> {
        for _ in 0..self.channels.len() {
            let channel = self.next;
            self.next = if channel + 1 == self.channels.len() { 0 } else { channel + 1 };
            // In this order: an element that is there, and no news, means that it came before any that come later.
            let is_ready = self.channels[channel].is_ready();
            if self.channels[channel].news().is_some()
                && let Some(barrier) = self.hear(channel, true, None)
            {
                return Next::Overtaking(barrier);
            }
            if is_ready
                && self.alignment.lets_through(channel)
                && let Some(element) = self.channels[channel].receive()
            {
                self.give_back();
                self.owed = Some(Owed { channel, buffer: None });
                return Next::Element(channel, element);
            }
        }
        Next::Nothing
    }

    fn queue(&mut self, outcome: Outcome) {
        self.signals.extend(outcome.activity);
        self.signals.extend(outcome.watermark.map(Signal::Watermark));
        self.signals.extend(outcome.rest);
    }

    /// Takes an emptied batch, to be [given back](Self::give_back) to the channel that it came through.
    pub fn recycle(&mut self, batch: Box<Batch<T>>, channel: usize) {
        self.owed = Some(Owed { channel, buffer: Some(batch) });
    }

    /// Gives the sender of the last element its room and its buffer back. Before the next element or in the next step, when what
    /// came of this one has been sent: these are lines of the sender's core, and a lone record would wait for them.
    #[inline]
    pub fn give_back(&mut self) {
        if let Some(Owed { channel, buffer }) = self.owed.take() {
            let channel = &mut self.channels[channel];
            // First, so that its fence does not wait for the lines of the other ring.
            channel.wake_sender();
            if let Some(buffer) = buffer {
                channel.recycle(buffer);
            }
        }
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::{
        model::checkpoint::{ChannelEnd, InFlight},
        platform::{Wake, wakes::Wakes},
        runtime::exchange::{
            batch::{Columns, RecordKey},
            channel::{ChannelPlace, Sender, channel},
        },
    };

    /// A gate for numbers with so many channels, from subtasks 0, 1 and so on.
    fn gate(channels: usize) -> (Vec<Sender<u64>>, Gate<u64>) {
        let ends = (0..channels).map(|from| {
            let place = ChannelPlace { from, producers: channels, consumers: 1, ..ChannelPlace::default() };
            channel(place, 8, None, None)
        });
        let (senders, receivers) = ends.unzip();
        (senders, Gate::new(receivers))
    }

    #[test]
    fn room_and_buffer_are_given_back_once_before_the_next_element_or_when_told() {
        let wakes = Arc::new(Wakes::default());
        let waker = Arc::clone(&wakes) as Arc<dyn Wake>;
        let (mut sender, receiver) = channel(ChannelPlace::default(), 8, Some(waker), None);
        let mut gate = Gate::new(vec![receiver]);
        (1..=2).for_each(|number| send(&mut sender, batch(number)));
        send(&mut sender, Element::Watermark(3));
        for elements_before in 0..2 {
            let Some(Arrival::Batch(batch, channel)) = gate.poll() else { panic!("a batch was sent") };
            assert_eq!((wakes.take(), sender.recycled().is_some()), (elements_before, elements_before == 1));
            gate.recycle(batch, channel);
            assert_eq!(
                (wakes.take(), sender.recycled().is_some()),
                (0, false),
                "what came of it is not sent yet"
            );
        }
        gate.give_back();
        assert_eq!((wakes.take(), sender.recycled().is_some()), (1, true));
        assert!(matches!(gate.poll(), Some(Arrival::Signal(Signal::Watermark(3)))));
        gate.give_back();
        assert_eq!(wakes.take(), 1, "the watermark had room, too");
        gate.give_back();
        assert_eq!(wakes.take(), 0);
    }

    fn batch(number: u64) -> Element<Box<Batch<u64>>> {
        let mut batch = Batch::new(1, 1, Columns::default());
        batch.put(&number, 0, RecordKey::None).unwrap();
        Element::Batch(Box::new(batch))
    }

    fn send(sender: &mut Sender<u64>, element: Element<Box<Batch<u64>>>) {
        assert!(sender.send(element).is_ok(), "the channel is full");
    }

    /// What comes through the gate until nothing does.
    fn arrivals(gate: &mut Gate<u64>) -> Vec<String> {
        let mut seen = Vec::new();
        while let Some(arrival) = gate.poll() {
            match arrival {
                Arrival::Batch(batch, channel) => seen.push(format!("{} over {channel}", batch.records()[0])),
                Arrival::Signal(Signal::Barrier(barrier)) => {
                    seen.push(format!("{:?} {}", barrier.kind, barrier.checkpoint));
                }
                Arrival::Signal(signal) => seen.push(format!("{signal:?}")),
                Arrival::Nothing => {}
            }
        }
        seen
    }

    fn in_line(checkpoint: CheckpointId) -> Element<Box<Batch<u64>>> {
        Element::Barrier(Barrier { checkpoint, kind: BarrierKind::Running })
    }

    /// The numbers that a checkpoint has overtaken, by channel.
    fn overtaken(gate: &mut Gate<u64>, checkpoint: CheckpointId) -> Vec<(usize, Vec<u64>)> {
        let (of, overtaken) = gate.take_overtaken(None).unwrap();
        assert_eq!(of, checkpoint);
        let mut overtaken: Vec<(usize, Vec<u64>)> =
            overtaken.unwrap().into_iter().map(|(_, in_flight)| numbers(&in_flight)).collect();
        overtaken.sort();
        overtaken
    }

    fn numbers(in_flight: &InFlight) -> (usize, Vec<u64>) {
        assert_eq!(in_flight.end, ChannelEnd::Receiver);
        let mut numbers = Vec::new();
        let mut bytes = &in_flight.bytes[..];
        while let Some(rest) = bytes.strip_prefix(&[1]) {
            let (batch, rest) = Batch::<u64>::read_from(rest).unwrap();
            numbers.push(batch.records()[0].to_native());
            bytes = rest;
        }
        assert!(bytes.is_empty(), "something else than a batch");
        (in_flight.from, numbers)
    }

    #[test]
    fn a_barrier_overtakes_what_waits_and_that_is_recorded() {
        let (mut senders, mut gate) = gate(2);
        send(&mut senders[0], batch(1));
        send(&mut senders[0], batch(2));
        senders[0].announce(7);
        send(&mut senders[0], batch(3));
        send(&mut senders[1], batch(4));
        // What the second channel brings before it announces the barrier belongs to the checkpoint, too.
        assert_eq!(arrivals(&mut gate), ["Overtaking 7", "4 over 1", "1 over 0", "2 over 0", "3 over 0"]);
        assert!(gate.take_overtaken(None).is_none());
        send(&mut senders[1], batch(5));
        senders[1].announce(7);
        send(&mut senders[1], batch(6));
        assert_eq!(arrivals(&mut gate), ["5 over 1", "6 over 1"]);
        assert_eq!(overtaken(&mut gate, 7), [(0, vec![1, 2]), (1, vec![4, 5])]);
        assert!(gate.take_overtaken(None).is_none());
    }

    #[test]
    fn a_barrier_overtakes_the_rest_of_the_batch_in_work() {
        let (mut senders, mut gate) = gate(1);
        let mut in_work = Batch::new(3, 1, Columns::default());
        (0..3).for_each(|number: u64| in_work.put(&number, 0, RecordKey::None).map(drop).unwrap());
        send(&mut senders[0], batch(7));
        assert!(!gate.is_overtaken() && gate.overtake(None).is_none());
        senders[0].announce(3);
        // What cannot be passed now stays announced.
        gate.listen();
        assert!(gate.is_overtaken());
        let barrier = Barrier { checkpoint: 3, kind: BarrierKind::Overtaking };
        assert_eq!(gate.overtake(Some((0, &in_work, 2))), Some(barrier));
        assert!(!gate.is_overtaken());
        assert_eq!(overtaken(&mut gate, 3), [(0, vec![2, 7])]);
        assert_eq!(arrivals(&mut gate), ["7 over 0"]);
    }

    #[test]
    fn barriers_in_line_that_were_overtaken_are_given_up() {
        let (mut senders, mut gate) = gate(2);
        send(&mut senders[0], in_line(4));
        send(&mut senders[0], batch(1));
        assert!(arrivals(&mut gate).is_empty());
        // The first channel waits for the second, which never brings that barrier.
        senders[1].announce(5);
        assert_eq!(arrivals(&mut gate), ["Overtaking 5", "1 over 0"]);
        senders[0].announce(5);
        send(&mut senders[1], in_line(4));
        send(&mut senders[1], batch(2));
        assert_eq!(arrivals(&mut gate), ["2 over 1"]);
        assert_eq!(overtaken(&mut gate, 5), [(0, vec![1])]);
        // The next one waits in line as ever.
        senders.iter_mut().for_each(|sender| send(sender, in_line(6)));
        assert_eq!(arrivals(&mut gate), ["Running 6"]);
    }

    #[test]
    fn a_checkpoint_that_is_not_announced_everywhere_gives_way_to_the_next() {
        let (mut senders, mut gate) = gate(2);
        senders[0].announce(1);
        assert_eq!(arrivals(&mut gate), ["Overtaking 1"]);
        send(&mut senders[1], batch(1));
        senders.iter().for_each(|sender| sender.announce(2));
        assert_eq!(arrivals(&mut gate), ["Overtaking 2", "1 over 1"]);
        assert_eq!(overtaken(&mut gate, 1), []);
        assert_eq!(overtaken(&mut gate, 2), [(1, vec![1])]);
    }

    #[test]
    fn a_channel_that_ends_needs_no_announcement() {
        let (mut senders, mut gate) = gate(2);
        send(&mut senders[1], Element::End);
        senders[0].announce(1);
        arrivals(&mut gate);
        assert_eq!(overtaken(&mut gate, 1), []);
        senders[0].announce(2);
        assert_eq!(arrivals(&mut gate), ["Overtaking 2"]);
        assert_eq!(overtaken(&mut gate, 2), []);
    }
}
