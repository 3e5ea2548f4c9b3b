//! Coherence of memory that a Type 2 device shares with its host (sections 3.2 to 3.4): who holds each line, and what the
//! two sides have to tell each other about it.
//!
//! The engine holds no data. It is told of loads and stores of both sides, and of lines that they give up; it answers with
//! what the protocol does about them, as counters ([`Statistics`]) and, on request, step by step ([`Event`]).
//!
//! Where single accesses are not known, but which pages a side has come for, a page takes the place of a line
//! ([`Config::granule`]): states and counters are then those of whole pages.
//!
//! | state | the host's copy ([`Host`]) | the device's copy ([`Device`]) |
//! |---|---|---|
//! | invalid | none, or one that may not be used | the same |
//! | shared | readable, and the other side may have one too | the same |
//! | exclusive | the only one, as in memory | the same |
//! | modified | the only one, and memory is stale | the same |
//!
//! Memory is the device's own, so it knows what its host has from what the host has asked for: that is the *snoop filter*, a
//! set-associative directory of the lines that the host holds. A line that finds no room there takes the place of another,
//! which the host must give up first. The device's own copies are in its *cache*, likewise.
//!
//! A page is in *host bias* at first: the device asks the host (a back-invalidate snoop) before it uses a line in a way
//! that does not go with the host's copy. In *device bias* the host has no line of the page, and the device uses it without
//! a word; an access of the host puts the page back into host bias.

mod bias;
pub mod model;
mod protocol;
mod sets;
mod statistics;
#[cfg(test)]
mod tests;
mod trace;

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use crate::Error;
pub use protocol::{Access, Bias, Device, Host, Message, Side};
use sets::Sets;
pub use statistics::Statistics;
use trace::Trace;
pub use trace::{Event, What};

/// Bytes of a line.
pub const LINE: u64 = 64;
/// Bytes of a page, which has one bias.
pub const PAGE: u64 = 4096;

/// Sizes of an engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    /// Bytes of the memory; a multiple of [`PAGE`].
    pub capacity: u64,
    /// Bytes that have one state: [`LINE`], or [`PAGE`] where only pages are known.
    pub granule: u64,
    /// Lines that the device's cache holds, and the ways of its sets; `None` for all.
    pub cache: Option<(usize, usize)>,
    /// Lines of the host that the snoop filter keeps track of, and the ways of its sets; `None` for all.
    pub filter: Option<(usize, usize)>,
}

impl Config {
    /// The first address of what the byte at an address has its state with.
    fn start(&self, dpa: u64) -> u64 {
        dpa - dpa % self.granule
    }
}

/// The engine.
#[derive(Debug)]
pub struct Engine {
    config: Config,
    /// What the host holds, as the device knows it; in lockstep with `filter`.
    host: BTreeMap<u64, Host>,
    filter: Sets,
    /// What the device holds; in lockstep with `cache`.
    device: BTreeMap<u64, Device>,
    cache: Sets,
    /// Pages in device bias, by number.
    device_bias: BTreeSet<u64>,
    statistics: Statistics,
    steps: u64,
    trace: Option<Trace>,
}

impl Engine {
    /// An engine of memory that nobody holds a line of, all in host bias.
    ///
    /// # Errors
    /// [`Error::Unaligned`] for a capacity that is not of whole pages, sizes that are not of whole sets, or another
    /// granule than the two.
    pub fn new(config: Config) -> Result<Self, Error> {
        if !config.capacity.is_multiple_of(PAGE) {
            return Err(Error::Unaligned {
                what: "coherent memory",
                bytes: config.capacity,
                unit: PAGE,
            });
        }
        if ![LINE, PAGE].contains(&config.granule) {
            return Err(Error::Unaligned {
                what: "a granule of coherence",
                bytes: config.granule,
                unit: LINE,
            });
        }
        Ok(Self {
            config,
            host: BTreeMap::new(),
            filter: Sets::new("a snoop filter", config.filter, config.granule)?,
            device: BTreeMap::new(),
            cache: Sets::new("a cache", config.cache, config.granule)?,
            device_bias: BTreeSet::new(),
            statistics: Statistics::default(),
            steps: 0,
            trace: None,
        })
    }

    /// Its sizes.
    #[must_use]
    pub fn config(&self) -> Config {
        self.config
    }

    /// Keeps the last `most` steps from now on; 0 keeps none.
    pub fn set_trace(&mut self, most: usize) {
        self.trace = (most > 0).then(|| Trace::new(most));
    }

    /// The steps that were kept, oldest first; they are forgotten.
    pub fn take_trace(&mut self) -> Vec<Event> {
        self.trace.as_mut().map(Trace::take).unwrap_or_default()
    }

    /// At most `most` of the steps that are kept, oldest first, from a number on.
    #[must_use]
    pub fn trace(&self, from: u64, most: usize) -> Vec<Event> {
        let trace = self.trace.as_ref();
        trace
            .map(|trace| trace.from(from, most))
            .unwrap_or_default()
    }

    /// The numbers of the steps that are kept; it ends with that of the next one.
    #[must_use]
    pub fn traced(&self) -> Range<u64> {
        let trace = self.trace.as_ref();
        trace.map_or(self.steps..self.steps, |trace| trace.numbers(self.steps))
    }

    /// What has happened so far.
    #[must_use]
    pub fn statistics(&self) -> &Statistics {
        &self.statistics
    }

    /// Counts from 0 again.
    pub fn reset_statistics(&mut self) {
        self.statistics = Statistics::default();
    }

    /// Lines that the host holds, and that the device holds.
    #[must_use]
    pub fn lines(&self) -> (usize, usize) {
        (self.host.len(), self.device.len())
    }

    /// Pages in device bias.
    #[must_use]
    pub fn pages_in_device_bias(&self) -> usize {
        self.device_bias.len()
    }

    /// Who holds the line of an address.
    #[must_use]
    pub fn state(&self, dpa: u64) -> (Host, Device) {
        self.states(self.config.start(dpa))
    }

    fn states(&self, line: u64) -> (Host, Device) {
        (self.host_state(line), self.device_state(line))
    }

    /// The bias of the page of an address.
    #[must_use]
    pub fn bias(&self, dpa: u64) -> Bias {
        if self.device_bias.contains(&(dpa / PAGE)) {
            Bias::Device
        } else {
            Bias::Host
        }
    }

    fn host_state(&self, line: u64) -> Host {
        self.host.get(&line).copied().unwrap_or_default()
    }

    fn device_state(&self, line: u64) -> Device {
        self.device.get(&line).copied().unwrap_or_default()
    }

    fn line(&self, dpa: u64) -> Result<u64, Error> {
        if dpa >= self.config.capacity {
            return Err(Error::NoExtent(dpa));
        }
        Ok(self.config.start(dpa))
    }

    fn say(&mut self, line: u64, message: Message) {
        self.statistics.count(message, self.config.granule);
        self.record(line, message.by(), What::Message(message));
    }

    /// Begins an access, which [`Self::end`] ends.
    fn begin(&mut self, line: u64, by: Side, access: Access) -> u64 {
        let number = self.steps;
        self.record(line, by, What::Access(access));
        number
    }

    fn end(&mut self, number: u64) {
        self.settle();
        let line = self.trace.as_mut().and_then(|trace| trace.get(number));
        if let Some(line) = line.map(|event| event.line) {
            let after = self.states(line);
            if let Some(event) = self.trace.as_mut().and_then(|trace| trace.get(number)) {
                event.after = after;
            }
        }
    }

    fn record(&mut self, line: u64, by: Side, what: What) {
        self.settle();
        let number = self.steps;
        self.steps += 1;
        let before = self.states(line);
        if let Some(trace) = &mut self.trace {
            trace.push(Event {
                number,
                by,
                what,
                line,
                before,
                after: before,
            });
        }
    }

    /// The states that the last step has led to are known now.
    fn settle(&mut self) {
        let last = self.trace.as_mut().and_then(Trace::last);
        if let Some(line) = last.map(|event| event.line) {
            let after = self.states(line);
            if let Some(event) = self.trace.as_mut().and_then(Trace::last) {
                event.after = after;
            }
        }
    }

    /// The host loads from a line.
    ///
    /// # Errors
    /// [`Error::NoExtent`] beyond the memory; so do all that take an address.
    pub fn host_read(&mut self, dpa: u64) -> Result<(), Error> {
        let line = self.line(dpa)?;
        let access = self.begin(line, Side::Host, Access::Read);
        self.read_by_host(line);
        self.end(access);
        Ok(())
    }

    fn read_by_host(&mut self, line: u64) {
        self.statistics.host_reads += 1;
        self.take_back(line);
        if self.host_state(line) != Host::Invalid {
            self.statistics.host_hits += 1;
            self.filter.touch(line);
            return;
        }
        self.say(line, Message::MemRd);
        self.make_room_in_filter(line);
        match self.device_state(line) {
            Device::Invalid => {
                self.say(line, Message::CmpE);
                self.set_host(line, Host::Exclusive);
                return;
            }
            Device::Shared => {}
            Device::Exclusive => {
                self.say(line, Message::Yield);
                self.device.insert(line, Device::Shared);
            }
            Device::Modified => {
                self.say(line, Message::WriteBack);
                self.device.insert(line, Device::Shared);
            }
        }
        self.say(line, Message::CmpS);
        self.set_host(line, Host::Shared);
    }

    /// The host stores to a line.
    ///
    /// # Errors
    /// As [`Self::host_read`].
    pub fn host_write(&mut self, dpa: u64) -> Result<(), Error> {
        let line = self.line(dpa)?;
        let access = self.begin(line, Side::Host, Access::Write);
        self.write_by_host(line);
        self.end(access);
        Ok(())
    }

    fn write_by_host(&mut self, line: u64) {
        self.statistics.host_writes += 1;
        self.take_back(line);
        match self.host_state(line) {
            Host::Exclusive | Host::Modified => {
                self.statistics.host_hits += 1;
                self.filter.touch(line);
                self.host.insert(line, Host::Modified);
                return;
            }
            Host::Shared => {
                self.statistics.host_upgrades += 1;
                self.say(line, Message::MemInv);
                self.filter.touch(line);
            }
            Host::Invalid => {
                self.say(line, Message::MemRdOwn);
                self.make_room_in_filter(line);
            }
        }
        self.drop_from_device(line);
        self.say(line, Message::CmpE);
        self.set_host(line, Host::Modified);
    }

    /// The host gives a line up, if it has it.
    ///
    /// # Errors
    /// As [`Self::host_read`].
    pub fn host_evict(&mut self, dpa: u64) -> Result<(), Error> {
        let line = self.line(dpa)?;
        let access = self.begin(line, Side::Host, Access::Evict);
        self.evict_by_host(line);
        self.end(access);
        Ok(())
    }

    fn evict_by_host(&mut self, line: u64) {
        match self.host_state(line) {
            Host::Invalid => return,
            Host::Modified => self.say(line, Message::MemWr),
            Host::Shared | Host::Exclusive => self.say(line, Message::MemClnEvct),
        }
        self.forget_host(line);
    }

    /// The device loads from a line.
    ///
    /// # Errors
    /// As [`Self::host_read`].
    pub fn device_read(&mut self, dpa: u64) -> Result<(), Error> {
        let line = self.line(dpa)?;
        let access = self.begin(line, Side::Device, Access::Read);
        self.read_by_device(line);
        self.end(access);
        Ok(())
    }

    fn read_by_device(&mut self, line: u64) {
        self.statistics.device_reads += 1;
        if self.device_state(line) != Device::Invalid {
            self.statistics.device_hits += 1;
            self.cache.touch(line);
            return;
        }
        self.statistics.device_misses += 1;
        let shared = match self.host_state(line) {
            Host::Invalid => false,
            Host::Shared => true,
            Host::Exclusive | Host::Modified => {
                self.snoop(line, Message::BiSnpData);
                true
            }
        };
        self.make_room_in_cache(line);
        self.say(line, Message::Fill);
        self.cache.insert(line);
        let state = if shared {
            Device::Shared
        } else {
            Device::Exclusive
        };
        self.device.insert(line, state);
    }

    /// The device stores to a line.
    ///
    /// # Errors
    /// As [`Self::host_read`].
    pub fn device_write(&mut self, dpa: u64) -> Result<(), Error> {
        let line = self.line(dpa)?;
        let access = self.begin(line, Side::Device, Access::Write);
        self.write_by_device(line);
        self.end(access);
        Ok(())
    }

    fn write_by_device(&mut self, line: u64) {
        self.statistics.device_writes += 1;
        let state = self.device_state(line);
        match state {
            Device::Exclusive | Device::Modified => self.statistics.device_hits += 1,
            Device::Shared => self.statistics.device_upgrades += 1,
            Device::Invalid => self.statistics.device_misses += 1,
        }
        if self.host_state(line) != Host::Invalid {
            self.snoop(line, Message::BiSnpInv);
        }
        if state == Device::Invalid {
            self.make_room_in_cache(line);
            self.say(line, Message::Fill);
            self.cache.insert(line);
        } else {
            self.cache.touch(line);
        }
        self.device.insert(line, Device::Modified);
    }

    /// The device gives a line up, if it has it.
    ///
    /// # Errors
    /// As [`Self::host_read`].
    pub fn device_evict(&mut self, dpa: u64) -> Result<(), Error> {
        let line = self.line(dpa)?;
        let access = self.begin(line, Side::Device, Access::Evict);
        self.drop_from_device(line);
        self.end(access);
        Ok(())
    }

    /// Asks the host for a line that it holds, and hears its answer.
    fn snoop(&mut self, line: u64, message: Message) {
        self.say(line, message);
        if self.host_state(line) == Host::Modified {
            self.say(line, Message::MemWr);
        }
        if message == Message::BiSnpData {
            self.say(line, Message::BiRspS);
            self.host.insert(line, Host::Shared);
        } else {
            self.say(line, Message::BiRspI);
            self.forget_host(line);
        }
    }

    fn set_host(&mut self, line: u64, state: Host) {
        self.host.insert(line, state);
        self.filter.insert(line);
    }

    fn forget_host(&mut self, line: u64) {
        self.host.remove(&line);
        self.filter.remove(line);
    }

    fn forget_device(&mut self, line: u64) {
        self.device.remove(&line);
        self.cache.remove(line);
    }

    fn drop_from_device(&mut self, line: u64) {
        match self.device_state(line) {
            Device::Invalid => return,
            Device::Modified => self.say(line, Message::WriteBack),
            Device::Shared | Device::Exclusive => self.say(line, Message::Yield),
        }
        self.forget_device(line);
    }

    fn make_room_in_filter(&mut self, line: u64) {
        if let Some(victim) = self.filter.victim(line) {
            self.statistics.filter_evictions += 1;
            self.snoop(victim, Message::BiSnpInv);
        }
    }

    fn make_room_in_cache(&mut self, line: u64) {
        if let Some(victim) = self.cache.victim(line) {
            self.statistics.cache_evictions += 1;
            self.drop_from_device(victim);
        }
    }
}

/// The lines of a range that somebody holds.
fn held<T>(lines: &BTreeMap<u64, T>, range: Range<u64>) -> Vec<u64> {
    lines.range(range).map(|(line, _)| *line).collect()
}
