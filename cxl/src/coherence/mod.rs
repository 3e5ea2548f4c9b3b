//! Coherence of memory that a Type 2 device shares with its host (sections 3.2 to 3.4): who holds each line, and what the
//! two sides have to tell each other about it.
//!
//! The engine holds no data. It is told of loads and stores of both sides, and of lines that they give up; it answers with
//! what the protocol does about them, as counters ([`Statistics`]) and, on request, message by message ([`Event`]).
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

mod sets;
mod statistics;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::Error;
use sets::Sets;
pub use statistics::Statistics;

/// Bytes of a line.
pub const LINE: u64 = 64;
/// Bytes of a page, which has one bias.
pub const PAGE: u64 = 4096;

/// The host's copy of a line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Host {
    /// None.
    #[default]
    Invalid,
    /// Readable.
    Shared,
    /// The only copy, as in memory.
    Exclusive,
    /// The only copy, newer than memory.
    Modified,
}

/// The device's copy of a line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Device {
    /// None.
    #[default]
    Invalid,
    /// Readable.
    Shared,
    /// The only copy, as in memory.
    Exclusive,
    /// The only copy, newer than memory.
    Modified,
}

/// Whose accesses to a page need no permission.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Bias {
    /// The host's, which may hold its lines.
    #[default]
    Host,
    /// The device's: the host holds none of them.
    Device,
}

/// A step of the protocol. Those of the CXL.mem channels have the names of section 3.3.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Message {
    /// Host to device: a copy for reading.
    MemRd,
    /// Host to device: the only copy, for writing (`MemRd` with SnpInv and MetaValue Any).
    MemRdOwn,
    /// Host to device: the only copy, without data, since the host has it already.
    MemInv,
    /// Host to device: data that the host has changed.
    MemWr,
    /// Host to device: a clean copy was given up.
    MemClnEvct,
    /// Host to device: the host keeps a copy for reading.
    BiRspS,
    /// Host to device: the host has no copy any more.
    BiRspI,
    /// Device to host: here is a copy for reading.
    CmpS,
    /// Device to host: here is the only copy.
    CmpE,
    /// Device to host: leave at most a copy for reading, and write back what is newer.
    BiSnpData,
    /// Device to host: give the line up, and write back what is newer.
    BiSnpInv,
    /// In the device: its cache takes the line from memory.
    Fill,
    /// In the device: memory takes the line from its cache.
    WriteBack,
    /// In the device: its cache gives the line up, or the right to write it, with no change to memory.
    Yield,
}

/// One step of the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event {
    /// Counts steps since the engine was made.
    pub number: u64,
    /// Device address of the line.
    pub line: u64,
    /// What happens.
    pub message: Message,
}

/// Sizes of an engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    /// Bytes of the memory; a multiple of [`PAGE`].
    pub capacity: u64,
    /// Lines that the device's cache holds, and the ways of its sets.
    pub cache: (usize, usize),
    /// Lines of the host that the snoop filter keeps track of, and the ways of its sets.
    pub filter: (usize, usize),
}

/// The engine.
#[derive(Debug)]
pub struct Engine {
    capacity: u64,
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

#[derive(Debug)]
struct Trace {
    events: VecDeque<Event>,
    most: usize,
}

impl Engine {
    /// An engine of memory that nobody holds a line of, all in host bias.
    ///
    /// # Errors
    /// [`Error::Unaligned`] for a capacity that is not of whole pages, or sizes that are not of whole sets.
    pub fn new(config: Config) -> Result<Self, Error> {
        if !config.capacity.is_multiple_of(PAGE) {
            return Err(Error::Unaligned {
                what: "coherent memory",
                bytes: config.capacity,
                unit: PAGE,
            });
        }
        Ok(Self {
            capacity: config.capacity,
            host: BTreeMap::new(),
            filter: Sets::new("a snoop filter", config.filter)?,
            device: BTreeMap::new(),
            cache: Sets::new("a cache", config.cache)?,
            device_bias: BTreeSet::new(),
            statistics: Statistics::default(),
            steps: 0,
            trace: None,
        })
    }

    /// Keeps the last `most` steps from now on; 0 keeps none.
    pub fn set_trace(&mut self, most: usize) {
        self.trace = (most > 0).then(|| Trace {
            events: VecDeque::new(),
            most,
        });
    }

    /// The steps that were kept, oldest first; they are forgotten.
    pub fn take_trace(&mut self) -> Vec<Event> {
        let events = self.trace.as_mut().map(|trace| trace.events.drain(..));
        events.map(Iterator::collect).unwrap_or_default()
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
        let line = dpa - dpa % LINE;
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
        if dpa >= self.capacity {
            return Err(Error::NoExtent(dpa));
        }
        Ok(dpa - dpa % LINE)
    }

    fn say(&mut self, line: u64, message: Message) {
        let event = Event {
            number: self.steps,
            line,
            message,
        };
        self.steps += 1;
        self.statistics.count(message);
        if let Some(trace) = &mut self.trace {
            if trace.events.len() == trace.most {
                trace.events.pop_front();
            }
            trace.events.push_back(event);
        }
    }

    /// The host loads from a line.
    ///
    /// # Errors
    /// [`Error::NoExtent`] beyond the memory; so do all that take an address.
    pub fn host_read(&mut self, dpa: u64) -> Result<(), Error> {
        let line = self.line(dpa)?;
        self.statistics.host_reads += 1;
        self.take_back(line);
        if self.host_state(line) != Host::Invalid {
            self.statistics.host_hits += 1;
            self.filter.touch(line);
            return Ok(());
        }
        self.say(line, Message::MemRd);
        self.make_room_in_filter(line);
        match self.device_state(line) {
            Device::Invalid => {
                self.say(line, Message::CmpE);
                self.set_host(line, Host::Exclusive);
                return Ok(());
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
        Ok(())
    }

    /// The host stores to a line.
    ///
    /// # Errors
    /// As [`Self::host_read`].
    pub fn host_write(&mut self, dpa: u64) -> Result<(), Error> {
        let line = self.line(dpa)?;
        self.statistics.host_writes += 1;
        self.take_back(line);
        match self.host_state(line) {
            Host::Exclusive | Host::Modified => {
                self.statistics.host_hits += 1;
                self.filter.touch(line);
                self.host.insert(line, Host::Modified);
                return Ok(());
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
        Ok(())
    }

    /// The host gives a line up, if it has it.
    ///
    /// # Errors
    /// As [`Self::host_read`].
    pub fn host_evict(&mut self, dpa: u64) -> Result<(), Error> {
        let line = self.line(dpa)?;
        match self.host_state(line) {
            Host::Invalid => return Ok(()),
            Host::Modified => self.say(line, Message::MemWr),
            Host::Shared | Host::Exclusive => self.say(line, Message::MemClnEvct),
        }
        self.forget_host(line);
        Ok(())
    }

    /// The device loads from a line.
    ///
    /// # Errors
    /// As [`Self::host_read`].
    pub fn device_read(&mut self, dpa: u64) -> Result<(), Error> {
        let line = self.line(dpa)?;
        self.statistics.device_reads += 1;
        if self.device_state(line) != Device::Invalid {
            self.statistics.device_hits += 1;
            self.cache.touch(line);
            return Ok(());
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
        Ok(())
    }

    /// The device stores to a line.
    ///
    /// # Errors
    /// As [`Self::host_read`].
    pub fn device_write(&mut self, dpa: u64) -> Result<(), Error> {
        let line = self.line(dpa)?;
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
        Ok(())
    }

    /// The device gives a line up, if it has it.
    ///
    /// # Errors
    /// As [`Self::host_read`].
    pub fn device_evict(&mut self, dpa: u64) -> Result<(), Error> {
        let line = self.line(dpa)?;
        self.drop_from_device(line);
        Ok(())
    }

    /// Puts the pages of a range into a bias; how many were in the other one.
    ///
    /// # Errors
    /// [`Error::NoExtent`] unless all of the range is in the memory.
    pub fn set_bias(&mut self, dpa: u64, bytes: u64, bias: Bias) -> Result<u64, Error> {
        let pages = self.pages(dpa, bytes)?;
        let mut flips = 0;
        for page in pages {
            let is = self.bias(page * PAGE);
            if is != bias {
                self.flip(page, bias);
                flips += 1;
            }
        }
        Ok(flips)
    }

    /// Puts each page of a range into the bias that it is not in; how many.
    ///
    /// # Errors
    /// As [`Self::set_bias`].
    pub fn flip_bias(&mut self, dpa: u64, bytes: u64) -> Result<u64, Error> {
        let pages = self.pages(dpa, bytes)?;
        let flips = pages.end - pages.start;
        for page in pages {
            let bias = match self.bias(page * PAGE) {
                Bias::Host => Bias::Device,
                Bias::Device => Bias::Host,
            };
            self.flip(page, bias);
        }
        Ok(flips)
    }

    /// Forgets what is held of a range, whose memory begins anew: nobody's data are written back. Pages that are all in it
    /// go into host bias.
    ///
    /// # Errors
    /// As [`Self::set_bias`].
    pub fn discard(&mut self, dpa: u64, bytes: u64) -> Result<(), Error> {
        let end = dpa.checked_add(bytes).filter(|end| *end <= self.capacity);
        let end = end.ok_or(Error::NoExtent(dpa))?;
        let lines = dpa - dpa % LINE..end;
        for line in held(&self.host, lines.clone()) {
            self.forget_host(line);
        }
        for line in held(&self.device, lines) {
            self.forget_device(line);
        }
        let pages = dpa.div_ceil(PAGE)..(end / PAGE).max(dpa.div_ceil(PAGE));
        let pages: Vec<u64> = self.device_bias.range(pages).copied().collect();
        for page in pages {
            self.device_bias.remove(&page);
        }
        Ok(())
    }

    fn pages(&self, dpa: u64, bytes: u64) -> Result<std::ops::Range<u64>, Error> {
        let end = dpa.checked_add(bytes).filter(|end| *end <= self.capacity);
        let end = end.ok_or(Error::NoExtent(dpa))?;
        Ok(dpa / PAGE..if bytes == 0 {
            dpa / PAGE
        } else {
            end.div_ceil(PAGE)
        })
    }

    fn flip(&mut self, page: u64, bias: Bias) {
        let lines = page * PAGE..(page + 1) * PAGE;
        match bias {
            Bias::Device => {
                self.statistics.flips_to_device += 1;
                for line in held(&self.host, lines) {
                    self.statistics.flipped_lines += 1;
                    self.snoop(line, Message::BiSnpInv);
                }
                self.device_bias.insert(page);
            }
            Bias::Host => {
                self.statistics.flips_to_host += 1;
                for line in held(&self.device, lines) {
                    self.statistics.flipped_lines += 1;
                    self.drop_from_device(line);
                }
                self.device_bias.remove(&page);
            }
        }
    }

    /// An access of the host ends the device bias of its page.
    fn take_back(&mut self, line: u64) {
        let page = line / PAGE;
        if self.device_bias.contains(&page) {
            self.statistics.host_took_back += 1;
            self.flip(page, Bias::Host);
        }
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
fn held<T>(lines: &BTreeMap<u64, T>, range: std::ops::Range<u64>) -> Vec<u64> {
    lines.range(range).map(|(line, _)| *line).collect()
}
