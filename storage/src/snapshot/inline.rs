//! The writer without a thread: commands are done by whoever gives them, at once or late.
//!
//! Late is for simulation. A writer on a thread does what it is asked some time after it was asked, and is heard some time after
//! it has spoken; whatever its owner does in between must not matter. Here both times are numbers of polls, drawn from a seed.

use std::collections::VecDeque;

use super::writer::{Command, Event, WriterCore};
use crate::key::hash_bits;

/// What is late waits for less than two to this power of polls, seldom for so many, as the power is drawn first: the greatest
/// power of quick writers, and of one in eight that is slow.
const POLLS_LOG2_MAX: [u64; 8] = [1, 1, 2, 2, 2, 3, 3, 11];

/// A writer on its owner's thread.
pub struct InlineWriter {
    core: WriterCore,
    commands: VecDeque<Command>,
    events: VecDeque<Event>,
    pauses: Option<Pauses>,
}

/// How long the next thing takes.
struct Pauses {
    random: u64,
    polls: u64,
    log2_max: u64,
}

impl Pauses {
    fn new(seed: u64) -> Self {
        Self { random: seed, polls: 0, log2_max: POLLS_LOG2_MAX[(hash_bits(seed) % 8) as usize] }
    }

    /// Whether the next thing has its time now.
    fn are_over(&mut self) -> bool {
        if self.polls > 0 {
            self.polls -= 1;
            return false;
        }
        self.random = hash_bits(self.random.wrapping_add(1));
        let log2 = (self.random & 0xffff) % (self.log2_max + 1);
        self.polls = (self.random >> 16) & ((1 << log2) - 1);
        true
    }
}

impl InlineWriter {
    /// Late by numbers drawn from `late_by`, if there is such a seed.
    pub fn new(core: WriterCore, late_by: Option<u64>) -> Self {
        let pauses = late_by.map(Pauses::new);
        Self { core, commands: VecDeque::new(), events: VecDeque::new(), pauses }
    }

    /// Takes a command, and does it if it is not late.
    pub fn send(&mut self, command: Command) {
        if self.pauses.is_none() {
            self.events.extend(self.core.handle(command));
        } else {
            self.commands.push_back(command);
        }
    }

    /// Whether there is something to do or to be heard.
    pub fn is_busy(&self) -> bool {
        !self.commands.is_empty() || !self.events.is_empty() || self.core.has_garbage()
    }

    /// The next event, if its time has come.
    pub fn poll(&mut self) -> Option<Event> {
        if (!self.commands.is_empty() || self.core.has_garbage()) && self.may_go_on() && !self.do_next() {
            self.core.remove_one();
        }
        if self.events.is_empty() || !self.may_go_on() { None } else { self.events.pop_front() }
    }

    /// The next event, whenever it was to come; `None` when nothing is under way.
    pub fn wait(&mut self) -> Option<Event> {
        while self.events.is_empty() && self.do_next() {}
        self.events.pop_front()
    }

    fn may_go_on(&mut self) -> bool {
        self.pauses.as_mut().is_none_or(Pauses::are_over)
    }

    /// Does the next command; whether there was one.
    fn do_next(&mut self) -> bool {
        let Some(command) = self.commands.pop_front() else { return false };
        self.core.remove_some();
        self.events.extend(self.core.perform(command));
        true
    }
}
