//! An edge of the job graph: made while the job is described, wired up when it starts.
//!
//! The graph holds edges without their record type ([`Connect`]); the chains on both sides hold the typed
//! [`Edge`] and take their ends from it on the workers' threads.

use std::sync::{Arc, Mutex, PoisonError};

use tidemill_storage::record::Record;

use super::{
    channel::{ChannelPlace, Receiver, Sender, channel},
    partition::Pattern,
};
use crate::{model::operator::OperatorIndex, platform::Wake};

/// The ends of an edge, by producer and consumer, until the workers take them.
struct Ends<T> {
    senders: Vec<Vec<Sender<T>>>,
    receivers: Vec<Vec<Receiver<T>>>,
}

/// A typed edge. Clones are the same edge.
pub struct Edge<T> {
    ends: Arc<Mutex<Ends<T>>>,
}

impl<T> Clone for Edge<T> {
    fn clone(&self) -> Self {
        Self { ends: Arc::clone(&self.ends) }
    }
}

impl<T: Record> Default for Edge<T> {
    fn default() -> Self {
        Self { ends: Arc::new(Mutex::new(Ends { senders: Vec::new(), receivers: Vec::new() })) }
    }
}

/// What the graph needs to wire up an edge.
#[derive(Clone, Copy, Debug)]
pub struct Wiring<'a> {
    /// The partitioning operator.
    pub operator: OperatorIndex,
    /// Whether every record goes to every consumer.
    pub broadcasts: bool,
    /// Which subtasks are connected.
    pub pattern: Pattern,
    /// Number of producing subtasks.
    pub producers: usize,
    /// Number of consuming subtasks.
    pub consumers: usize,
    /// Capacity of each channel.
    pub capacity: usize,
    /// The wakers of all workers; subtask i lives on worker i.
    pub wakers: &'a [Arc<dyn Wake>],
}

impl std::fmt::Debug for dyn Wake {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Wake")
    }
}

/// An edge without its record type.
pub trait Connect: Send {
    /// Makes all channels.
    fn connect(&self, wiring: Wiring<'_>);
}

impl<T: Record> Connect for Edge<T> {
    fn connect(&self, wiring: Wiring<'_>) {
        let Wiring { operator: edge, broadcasts, pattern, producers, consumers, capacity, wakers } = wiring;
        let mut ends = self.ends.lock().unwrap_or_else(PoisonError::into_inner);
        ends.senders.clear();
        ends.receivers = (0..consumers).map(|_| Vec::new()).collect();
        for from in 0..producers {
            let mut row = Vec::new();
            for to in pattern.targets(from, producers, consumers) {
                let far = |worker: usize| (from != to).then(|| Arc::clone(&wakers[worker]));
                let place = ChannelPlace { edge, broadcasts, from, to, producers, consumers };
                let (sender, receiver) = channel(place, capacity, far(from), far(to));
                row.push(sender);
                ends.receivers[to].push(receiver);
            }
            ends.senders.push(row);
        }
    }
}

impl<T: Record> Edge<T> {
    /// The channels out of one producing subtask, in the order of targets. Each is taken once.
    pub fn take_senders(&self, subtask: usize) -> Vec<Sender<T>> {
        let mut ends = self.ends.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut ends.senders[subtask])
    }

    /// The channels into one consuming subtask. Each is taken once.
    pub fn take_receivers(&self, subtask: usize) -> Vec<Receiver<T>> {
        let mut ends = self.ends.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut ends.receivers[subtask])
    }
}
