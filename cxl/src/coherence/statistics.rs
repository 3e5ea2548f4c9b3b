//! What has happened, in numbers.

use super::Message;

/// Counters since the engine was made or last reset. Each counts something that has happened, and nothing else.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Statistics {
    /// Loads and stores of the host.
    pub host_reads: u64,
    /// As above.
    pub host_writes: u64,
    /// Those that needed no message, since the host held the line.
    pub host_hits: u64,
    /// Stores to a line that the host held for reading.
    pub host_upgrades: u64,
    /// Loads and stores of the device.
    pub device_reads: u64,
    /// As above.
    pub device_writes: u64,
    /// Those to a line that the device held in the way that they need.
    pub device_hits: u64,
    /// Those to a line that the device did not hold.
    pub device_misses: u64,
    /// Stores to a line that the device held for reading.
    pub device_upgrades: u64,
    /// Requests of the host: all of them.
    pub requests: u64,
    /// Snoops that leave the host a copy for reading.
    pub snoops_for_data: u64,
    /// Snoops that leave the host nothing.
    pub snoops_to_invalidate: u64,
    /// Answers to snoops.
    pub snoop_responses: u64,
    /// Lines that the host wrote back.
    pub host_write_backs: u64,
    /// Lines that the host gave up without a change.
    pub host_clean_evictions: u64,
    /// Lines that the device's cache wrote to its memory.
    pub device_write_backs: u64,
    /// Lines that the device's cache took from its memory.
    pub device_fills: u64,
    /// Lines of the host that lost their place in the snoop filter to others.
    pub filter_evictions: u64,
    /// Lines of the device that lost their place in its cache to others.
    pub cache_evictions: u64,
    /// Pages that went into device bias.
    pub flips_to_device: u64,
    /// Pages that went into host bias.
    pub flips_to_host: u64,
    /// Those of them that an access of the host took back.
    pub host_took_back: u64,
    /// Lines that one side had to give up for these.
    pub flipped_lines: u64,
    /// Bytes of lines that went over the link, in both directions.
    pub link_bytes: u64,
}

impl Statistics {
    /// All counters, each with its name.
    #[must_use]
    pub fn by_name(&self) -> [(&'static str, u64); 24] {
        [
            ("host_reads", self.host_reads),
            ("host_writes", self.host_writes),
            ("host_hits", self.host_hits),
            ("host_upgrades", self.host_upgrades),
            ("device_reads", self.device_reads),
            ("device_writes", self.device_writes),
            ("device_hits", self.device_hits),
            ("device_misses", self.device_misses),
            ("device_upgrades", self.device_upgrades),
            ("requests", self.requests),
            ("snoops_for_data", self.snoops_for_data),
            ("snoops_to_invalidate", self.snoops_to_invalidate),
            ("snoop_responses", self.snoop_responses),
            ("host_write_backs", self.host_write_backs),
            ("host_clean_evictions", self.host_clean_evictions),
            ("device_write_backs", self.device_write_backs),
            ("device_fills", self.device_fills),
            ("filter_evictions", self.filter_evictions),
            ("cache_evictions", self.cache_evictions),
            ("flips_to_device", self.flips_to_device),
            ("flips_to_host", self.flips_to_host),
            ("host_took_back", self.host_took_back),
            ("flipped_lines", self.flipped_lines),
            ("link_bytes", self.link_bytes),
        ]
    }

    /// Counts a message about `granule` bytes.
    pub(super) fn count(&mut self, message: Message, granule: u64) {
        match message {
            Message::MemRd | Message::MemRdOwn => {
                self.requests += 1;
                self.link_bytes += granule;
            }
            Message::MemInv => self.requests += 1,
            Message::MemWr => {
                self.host_write_backs += 1;
                self.link_bytes += granule;
            }
            Message::MemClnEvct => self.host_clean_evictions += 1,
            Message::BiSnpData => self.snoops_for_data += 1,
            Message::BiSnpInv => self.snoops_to_invalidate += 1,
            Message::BiRspS | Message::BiRspI => self.snoop_responses += 1,
            Message::Fill => self.device_fills += 1,
            Message::WriteBack => self.device_write_backs += 1,
            Message::CmpS | Message::CmpE | Message::Yield => {}
        }
    }
}
