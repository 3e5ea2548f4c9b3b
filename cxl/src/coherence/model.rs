//! The engine's rules, written down a second time: slower, and sharing nothing with it but the names of counters.
//!
//! Lines are kept with the time of their last use, and everything is found by looking at all of them. It is what tests hold
//! the engine against: random accesses, and the trace of a device at work ([`Model::follow`]).

use std::collections::{BTreeMap, BTreeSet};

use super::{Access, Config, Event, PAGE, Side, Statistics, What};

/// A line: how much each side holds of it (0 to 3: I, S, E, M), and when it last used it.
#[derive(Clone, Copy, Debug, Default)]
struct Line {
    host: u8,
    host_used: u64,
    device: u8,
    device_used: u64,
}

/// The rules.
#[derive(Debug)]
pub struct Model {
    config: Config,
    /// Lines that somebody has had, by number.
    lines: BTreeMap<u64, Line>,
    device_bias: BTreeSet<u64>,
    clock: u64,
    counts: Statistics,
}

impl Model {
    /// Memory that nobody holds anything of.
    #[must_use]
    pub fn new(config: Config) -> Self {
        Self {
            config,
            lines: BTreeMap::new(),
            device_bias: BTreeSet::new(),
            clock: 0,
            counts: Statistics::default(),
        }
    }

    /// What has happened so far.
    #[must_use]
    pub fn statistics(&self) -> &Statistics {
        &self.counts
    }

    /// How much the host and the device hold of the line of an address, 0 to 3.
    #[must_use]
    pub fn ranks(&self, dpa: u64) -> (u8, u8) {
        let line = self.line(dpa / self.config.granule);
        (line.host, line.device)
    }

    /// Does what a trace's accesses say; its messages are nothing to it.
    pub fn follow(&mut self, events: &[Event]) {
        for event in events {
            if let What::Access(access) = event.what {
                self.access(event.by, access, event.line);
            }
        }
    }

    /// An access to the line, or the page, of an address.
    pub fn access(&mut self, by: Side, access: Access, dpa: u64) {
        let line = dpa / self.config.granule;
        let page = dpa / PAGE;
        let is_device_biased = self.device_bias.contains(&page);
        match (by, access) {
            (Side::Host, Access::Read) => self.host(line, false),
            (Side::Host, Access::Write) => self.host(line, true),
            (Side::Device, Access::Read) => self.device(line, false),
            (Side::Device, Access::Write) => self.device(line, true),
            (Side::Host, Access::Evict) => self.host_evict(line),
            (Side::Device, Access::Evict) => self.flush_device(line),
            (_, Access::DeviceBias) if !is_device_biased => self.flip_to_device(page),
            (_, Access::HostBias) if is_device_biased => self.flip_to_host(page),
            (_, Access::DeviceBias | Access::HostBias) => {}
            (_, Access::Discard(bytes)) => self.discard(dpa, dpa + bytes),
        }
    }

    fn line(&self, line: u64) -> Line {
        self.lines.get(&line).copied().unwrap_or_default()
    }

    fn edit(&mut self, line: u64) -> &mut Line {
        self.lines.entry(line).or_default()
    }

    fn flush_device(&mut self, line: u64) {
        if self.line(line).device == 3 {
            self.counts.device_write_backs += 1;
        }
        self.edit(line).device = 0;
    }

    fn host_evict(&mut self, line: u64) {
        match self.line(line).host {
            0 => return,
            3 => {
                self.counts.host_write_backs += 1;
                self.counts.link_bytes += self.config.granule;
            }
            _ => self.counts.host_clean_evictions += 1,
        }
        self.edit(line).host = 0;
    }

    /// The host is left with a copy of at most this rank.
    fn snoop(&mut self, line: u64, rank: u8) {
        match rank {
            0 => self.counts.snoops_to_invalidate += 1,
            _ => self.counts.snoops_for_data += 1,
        }
        self.counts.snoop_responses += 1;
        if self.line(line).host == 3 {
            self.counts.host_write_backs += 1;
            self.counts.link_bytes += self.config.granule;
        }
        self.edit(line).host = rank;
    }

    /// The line that has been used least lately of those in the set of another one, if the set is full.
    fn victim(&self, line: u64, of_host: bool) -> Option<u64> {
        let size = match of_host {
            true => self.config.filter,
            false => self.config.cache,
        };
        let (lines, ways) = size?;
        let sets = (lines / ways) as u64;
        let used = |line: &Line| match of_host {
            true => (line.host, line.host_used),
            false => (line.device, line.device_used),
        };
        let rivals = self.lines.iter();
        let rivals =
            rivals.filter(|(at, line_at)| **at % sets == line % sets && used(line_at).0 > 0);
        let rivals: Vec<(u64, u64)> = rivals.map(|(at, line)| (used(line).1, *at)).collect();
        let oldest = rivals.iter().min().map(|(_, at)| *at);
        oldest.filter(|_| rivals.len() == ways)
    }

    fn host(&mut self, line: u64, write: bool) {
        self.clock += 1;
        match write {
            true => self.counts.host_writes += 1,
            false => self.counts.host_reads += 1,
        }
        let page = line * self.config.granule / PAGE;
        if self.device_bias.contains(&page) {
            self.counts.host_took_back += 1;
            self.flip_to_host(page);
        }
        let rank = self.line(line).host;
        if rank >= 2 || (rank == 1 && !write) {
            self.counts.host_hits += 1;
            self.edit(line).host = if write { 3 } else { rank };
        } else {
            self.counts.requests += 1;
            if rank == 1 {
                self.counts.host_upgrades += 1;
            } else {
                self.counts.link_bytes += self.config.granule;
                if let Some(victim) = self.victim(line, true) {
                    self.counts.filter_evictions += 1;
                    self.snoop(victim, 0);
                }
            }
            let device = self.line(line).device;
            if write {
                self.flush_device(line);
            } else if device > 0 {
                self.counts.device_write_backs += u64::from(device == 3);
                self.edit(line).device = 1;
            }
            self.edit(line).host = match (write, device) {
                (true, _) => 3,
                (false, 0) => 2,
                (false, _) => 1,
            };
        }
        self.edit(line).host_used = self.clock;
    }

    fn device(&mut self, line: u64, write: bool) {
        self.clock += 1;
        match write {
            true => self.counts.device_writes += 1,
            false => self.counts.device_reads += 1,
        }
        let Line {
            host, device: rank, ..
        } = self.line(line);
        match (rank, write) {
            (0, _) => self.counts.device_misses += 1,
            (1, true) => self.counts.device_upgrades += 1,
            _ => self.counts.device_hits += 1,
        }
        if write && host > 0 {
            self.snoop(line, 0);
        } else if !write && host > 1 {
            self.snoop(line, 1);
        }
        if rank == 0 {
            if let Some(victim) = self.victim(line, false) {
                self.counts.cache_evictions += 1;
                self.flush_device(victim);
            }
            self.counts.device_fills += 1;
        }
        let clock = self.clock;
        let line = self.edit(line);
        line.device = match (write, rank, host) {
            (true, ..) => 3,
            (false, 0, 0) => 2,
            (false, 0, _) => 1,
            (false, ..) => rank,
        };
        line.device_used = clock;
    }

    /// The lines of a page that somebody has had.
    fn lines_of(&self, page: u64) -> Vec<(u64, Line)> {
        let of_page = |line: u64| line * self.config.granule / PAGE == page;
        let lines = self.lines.iter().filter(|(at, _)| of_page(**at));
        lines.map(|(at, line)| (*at, *line)).collect()
    }

    fn flip_to_host(&mut self, page: u64) {
        self.counts.flips_to_host += 1;
        for (at, line) in self.lines_of(page) {
            if line.device > 0 {
                self.counts.flipped_lines += 1;
                self.flush_device(at);
            }
        }
        self.device_bias.remove(&page);
    }

    fn flip_to_device(&mut self, page: u64) {
        self.counts.flips_to_device += 1;
        for (at, line) in self.lines_of(page) {
            if line.host > 0 {
                self.counts.flipped_lines += 1;
                self.snoop(at, 0);
            }
        }
        self.device_bias.insert(page);
    }

    fn discard(&mut self, start: u64, end: u64) {
        let granule = self.config.granule;
        self.lines
            .retain(|line, _| line * granule < start || line * granule + granule > end);
        self.device_bias
            .retain(|page| page * PAGE < start || page * PAGE + PAGE > end);
    }
}
