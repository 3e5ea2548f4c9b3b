//! What has happened, step by step.

use std::collections::VecDeque;
use std::ops::Range;

use serde::{Deserialize, Serialize};

use super::{Access, Device, Host, Message, Side};

/// An access or a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum What {
    /// An access; the messages behind it, up to the next access, are because of it.
    Access(Access),
    /// A step of the protocol.
    Message(Message),
}

/// One step. As JSON it is `{"number":7,"by":"host","what":"read","line":4096,"before":["I","M"],"after":["S","S"]}`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// Counts steps since the engine was made.
    pub number: u64,
    /// Who does or says it.
    pub by: Side,
    /// What happens.
    pub what: What,
    /// Device address of the line.
    pub line: u64,
    /// The host's and the device's copy of the line before this step.
    pub before: (Host, Device),
    /// And behind it; behind an access, when all its messages are said.
    pub after: (Host, Device),
}

/// The last steps, so many as find room.
#[derive(Debug)]
pub(super) struct Trace {
    events: VecDeque<Event>,
    most: usize,
}

impl Trace {
    pub fn new(most: usize) -> Self {
        Self {
            events: VecDeque::new(),
            most,
        }
    }

    /// Adds a step; the oldest one goes where there is no room.
    pub fn push(&mut self, event: Event) {
        if self.events.len() == self.most {
            self.events.pop_front();
        }
        self.events.push_back(event);
    }

    pub fn last(&mut self) -> Option<&mut Event> {
        self.events.back_mut()
    }

    /// The step with this number, if it is still there.
    pub fn get(&mut self, number: u64) -> Option<&mut Event> {
        let first = self.events.front()?.number;
        let index = usize::try_from(number.checked_sub(first)?).ok()?;
        self.events.get_mut(index)
    }

    /// Numbers of those that are there.
    pub fn numbers(&self, next: u64) -> Range<u64> {
        self.events.front().map_or(next, |event| event.number)..next
    }

    /// At most `most` of them, from a number on.
    pub fn from(&self, number: u64, most: usize) -> Vec<Event> {
        let first = self.events.front().map_or(0, |event| event.number);
        let skipped = usize::try_from(number.saturating_sub(first)).unwrap_or(usize::MAX);
        self.events
            .iter()
            .skip(skipped)
            .take(most)
            .copied()
            .collect()
    }

    pub fn take(&mut self) -> Vec<Event> {
        self.events.drain(..).collect()
    }
}
