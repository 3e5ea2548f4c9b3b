//! Event logs (section 8.2.9.2): what a device tells its host about itself.
//!
//! Four logs, one per severity. A record stays until the host clears it; records are cleared oldest
//! first. A full log counts what it drops.

mod record;

use std::collections::VecDeque;

pub use record::{
    Dram, DynamicCapacity, DynamicCapacityEvent, Event, EventFlags, EventKind, GeneralMedia,
    MediaAddress, MemoryModule, ModuleEventType, RECORD_LEN, Transaction,
};

use crate::Effect;
use crate::mailbox::ReturnCode;

/// Severity of an event, and number of its log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Severity {
    /// Informational.
    Informational = 0,
    /// Warning.
    Warning = 1,
    /// Failure.
    Failure = 2,
    /// Fatal.
    Fatal = 3,
}

impl Severity {
    /// All of them, by log number.
    pub const ALL: [Self; 4] = [
        Self::Informational,
        Self::Warning,
        Self::Failure,
        Self::Fatal,
    ];

    /// The severity with this log number.
    pub fn from_log(log: u8) -> Option<Self> {
        Self::ALL.get(usize::from(log)).copied()
    }
}

/// Records a log can hold, as Identify tells.
pub const LOG_CAPACITY: usize = 64;

/// How one log notifies the host (section 8.2.9.2.4).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum InterruptMode {
    /// Not at all.
    #[default]
    None,
    /// By MSI or MSI-X.
    Msi,
}

/// One event log.
#[derive(Debug)]
pub struct EventLog {
    records: VecDeque<Record>,
    next_handle: u16,
    overflow: Overflow,
    mode: InterruptMode,
    vector: u8,
}

#[derive(Debug)]
struct Record {
    handle: u16,
    bytes: [u8; RECORD_LEN],
}

/// What a log dropped because it was full.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Overflow {
    /// Records dropped since the last clear, at most 65535; no overflow if zero.
    pub count: u16,
    /// When the first one was dropped, in ns.
    pub first: u64,
    /// When the last one was dropped, in ns.
    pub last: u64,
}

impl EventLog {
    /// An empty log that notifies with `vector` once the host asks for it.
    fn new(vector: u8) -> Self {
        Self {
            records: VecDeque::new(),
            next_handle: 1,
            overflow: Overflow::default(),
            mode: InterruptMode::None,
            vector,
        }
    }

    /// True if there is no record to read.
    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// Number of records.
    pub fn len(&self) -> usize {
        self.records.len()
    }

    /// The oldest records, oldest first.
    pub fn records(&self) -> impl Iterator<Item = &[u8; RECORD_LEN]> {
        self.records.iter().map(|record| &record.bytes)
    }

    /// What was dropped.
    pub fn overflow(&self) -> Overflow {
        self.overflow
    }

    /// How the log notifies.
    pub fn mode(&self) -> InterruptMode {
        self.mode
    }

    /// Sets how the log notifies.
    pub fn set_mode(&mut self, mode: InterruptMode) {
        self.mode = mode;
    }

    /// The MSI message number with which the log notifies.
    pub fn vector(&self) -> u8 {
        self.vector
    }

    /// Adds a record. The host is notified when the log stops being empty.
    fn push(&mut self, event: &Event, timestamp: u64, effects: &mut Vec<Effect>) {
        if self.records.len() >= LOG_CAPACITY {
            if self.overflow.count == 0 {
                self.overflow.first = timestamp;
            }
            self.overflow.last = timestamp;
            self.overflow.count = self.overflow.count.saturating_add(1);
            return;
        }
        let handle = self.next_handle;
        // Handle 0 means "none". 64 live records cannot catch up with 65535 handles.
        self.next_handle = handle.checked_add(1).unwrap_or(1);
        let bytes = event.encode(handle, timestamp);
        self.records.push_back(Record { handle, bytes });
        if self.records.len() == 1 && self.mode == InterruptMode::Msi {
            effects.push(Effect::Interrupt {
                vector: self.vector,
            });
        }
    }

    /// Clears the records with these handles, which have to be the oldest ones, in order.
    ///
    /// If they are not, nothing is cleared.
    pub fn clear(&mut self, handles: &[u16]) -> Result<(), ReturnCode> {
        let oldest = self.records.iter().map(|record| record.handle);
        if handles.len() > self.records.len() || !oldest.zip(handles).all(|(a, b)| a == *b) {
            return Err(ReturnCode::InvalidHandle);
        }
        self.records.drain(..handles.len());
        self.overflow = Overflow::default();
        Ok(())
    }

    /// Clears the log, which a host may do only after an overflow (section 8.2.9.2.3).
    pub fn clear_all(&mut self) -> Result<(), ReturnCode> {
        if self.overflow.count == 0 {
            return Err(ReturnCode::InvalidInput);
        }
        self.records.clear();
        self.overflow = Overflow::default();
        Ok(())
    }
}

/// The logs of a device: four by severity, and one of dynamic capacity if it has any.
#[derive(Debug)]
pub struct EventLogs {
    logs: [EventLog; 4],
    dynamic: Option<EventLog>,
}

impl EventLogs {
    /// Empty logs that notify with these MSI message numbers: by severity, and the one of dynamic capacity.
    pub fn new(vectors: [u8; 4], dynamic: Option<u8>) -> Self {
        Self {
            logs: vectors.map(EventLog::new),
            dynamic: dynamic.map(EventLog::new),
        }
    }

    /// The logs in the order of their numbers.
    pub fn all(&self) -> impl Iterator<Item = &EventLog> {
        self.logs.iter().chain(&self.dynamic)
    }

    /// The logs in the order of their numbers.
    pub fn all_mut(&mut self) -> impl Iterator<Item = &mut EventLog> {
        self.logs.iter_mut().chain(&mut self.dynamic)
    }

    /// The log with this number.
    pub fn numbered(&self, log: u8) -> Option<&EventLog> {
        self.all().nth(log.into())
    }

    /// The log with this number.
    pub fn numbered_mut(&mut self, log: u8) -> Option<&mut EventLog> {
        self.all_mut().nth(log.into())
    }

    /// The log of a severity.
    pub fn log(&self, severity: Severity) -> &EventLog {
        let [informational, warning, failure, fatal] = &self.logs;
        match severity {
            Severity::Informational => informational,
            Severity::Warning => warning,
            Severity::Failure => failure,
            Severity::Fatal => fatal,
        }
    }

    /// The log of a severity.
    pub fn log_mut(&mut self, severity: Severity) -> &mut EventLog {
        let [informational, warning, failure, fatal] = &mut self.logs;
        match severity {
            Severity::Informational => informational,
            Severity::Warning => warning,
            Severity::Failure => failure,
            Severity::Fatal => fatal,
        }
    }

    /// Adds a record to the log of the event's severity, or to that of dynamic capacity, with a timestamp in ns.
    pub fn push(&mut self, event: &Event, timestamp: u64, effects: &mut Vec<Effect>) {
        let log = match (&event.kind, &mut self.dynamic) {
            (EventKind::DynamicCapacity(_), Some(dynamic)) => dynamic,
            _ => self.log_mut(event.severity),
        };
        log.push(event, timestamp, effects);
    }

    /// The Event Status register (section 8.2.8.3.1): a bit per log that is not empty.
    pub fn status(&self) -> u32 {
        (0..)
            .zip(self.all())
            .filter(|(_, log)| !log.is_empty())
            .fold(0, |status, (bit, _)| status | 1 << bit)
    }

    /// Turns notification off, as a reset does; records stay until the host clears them.
    pub fn reset(&mut self) {
        for log in self.all_mut() {
            log.mode = InterruptMode::None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(severity: Severity) -> Event {
        Event {
            severity,
            flags: EventFlags::default(),
            related: 0,
            maintenance_class: 0,
            kind: EventKind::GeneralMedia(GeneralMedia::default()),
        }
    }

    fn logs(warnings: usize) -> EventLogs {
        let mut logs = EventLogs::new([2, 3, 4, 5], None);
        for n in 0..warnings {
            logs.push(&event(Severity::Warning), n as u64, &mut Vec::new());
        }
        logs
    }

    #[test]
    fn a_status_bit_shows_a_log_with_records() {
        let mut logs = logs(1);
        assert_eq!(logs.status(), 0b0010);
        logs.push(&event(Severity::Fatal), 0, &mut Vec::new());
        assert_eq!(logs.status(), 0b1010);
        logs.log_mut(Severity::Warning).clear(&[1]).unwrap();
        assert_eq!(logs.status(), 0b1000);
    }

    #[test]
    fn the_first_record_of_a_log_notifies() {
        let mut logs = logs(0);
        logs.log_mut(Severity::Failure).set_mode(InterruptMode::Msi);
        let mut effects = Vec::new();
        for severity in [Severity::Failure, Severity::Failure, Severity::Warning] {
            logs.push(&event(severity), 0, &mut effects);
        }
        assert_eq!(effects, [Effect::Interrupt { vector: 4 }]);
        logs.log_mut(Severity::Failure).clear(&[1, 2]).unwrap();
        logs.push(&event(Severity::Failure), 0, &mut effects);
        assert_eq!(effects.len(), 2);
    }

    #[test]
    fn records_are_cleared_oldest_first() {
        let mut logs = logs(3);
        let log = logs.log_mut(Severity::Warning);
        assert_eq!(log.clear(&[2]), Err(ReturnCode::InvalidHandle));
        assert_eq!(log.clear(&[1, 3]), Err(ReturnCode::InvalidHandle));
        assert_eq!(log.clear(&[1, 2, 3, 4]), Err(ReturnCode::InvalidHandle));
        assert_eq!(log.len(), 3);
        assert_eq!(log.clear(&[1, 2]), Ok(()));
        assert_eq!(log.clear(&[3]), Ok(()));
        assert!(log.is_empty());
    }

    #[test]
    fn a_full_log_counts_what_it_drops() {
        let mut logs = logs(LOG_CAPACITY + 3);
        let log = logs.log_mut(Severity::Warning);
        assert_eq!(log.len(), LOG_CAPACITY);
        let first = LOG_CAPACITY as u64;
        assert_eq!(
            log.overflow(),
            Overflow {
                count: 3,
                first,
                last: first + 2
            }
        );
        log.clear(&[1]).unwrap();
        assert_eq!(log.overflow(), Overflow::default());
    }

    #[test]
    fn clearing_everything_takes_an_overflow() {
        let mut full = logs(LOG_CAPACITY + 1);
        assert_eq!(full.log_mut(Severity::Warning).clear_all(), Ok(()));
        assert_eq!(full.status(), 0);
        let mut one = logs(1);
        assert_eq!(
            one.log_mut(Severity::Warning).clear_all(),
            Err(ReturnCode::InvalidInput)
        );
    }

    #[test]
    fn handles_are_never_zero() {
        let mut logs = logs(0);
        let log = logs.log_mut(Severity::Informational);
        log.next_handle = u16::MAX;
        for _ in 0..2 {
            logs.push(&event(Severity::Informational), 0, &mut Vec::new());
        }
        let log = logs.log_mut(Severity::Informational);
        assert_eq!(log.clear(&[u16::MAX, 1]), Ok(()));
    }
}
