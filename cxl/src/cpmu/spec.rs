//! Layout of the CPMU register block (section 8.2.7, table 8-180).

use bitfield_struct::bitfield;

/// CPMU Capability (section 8.2.7.1.1).
pub(super) const CAPABILITY: u64 = 0x00;
/// CPMU Overflow Status (section 8.2.7.1.2).
pub(super) const OVERFLOW_STATUS: u64 = 0x10;
/// CPMU Freeze (section 8.2.7.1.3).
pub(super) const FREEZE: u64 = 0x18;
/// CPMU Event Capabilities, 8 bytes per event group (section 8.2.7.1.4).
pub(super) const EVENT_CAPABILITIES: u64 = 0x100;
/// Counter Configuration, 8 bytes per counter unit (section 8.2.7.2.1).
pub(super) const CONFIGURATION: u64 = 0x200;
/// Filter Configuration (section 8.2.7.2.2): none here, since no filter is supported.
pub(super) const FILTERS: u64 = 0x400;
/// Counter Data, 8 bytes per counter unit (section 8.2.7.2.3).
pub(super) const DATA: u64 = 0xc00;
/// End of the block, with room for 64 counter units.
pub(super) const END: u64 = 0xe00;

/// Version of this layout.
pub(super) const VERSION: u8 = 1;
/// Bits of a counter: at one count per ns, it overflows after three days; an hour is the least that is allowed.
pub(super) const COUNTER_WIDTH: u8 = 48;

/// Event groups of the CXL Consortium (table 13-5), and the events of each that are counted here.
pub(super) mod group {
    /// Clock ticks: one event of that name.
    pub const CLOCK_TICKS: u16 = 0x0000;
    pub const CLOCK_TICKS_EVENTS: u32 = 1 << 0;
    /// Requests from host to memory without data; MemRd has opcode 1.
    pub const M2S_REQ: u16 = 0x0020;
    pub const M2S_REQ_EVENTS: u32 = 1 << 1;
    /// Responses from memory to host with data; MemData has opcode 0.
    pub const S2M_DRS: u16 = 0x0025;
    pub const S2M_DRS_EVENTS: u32 = 1 << 0;
    /// The group of the function's vendor.
    pub const VENDOR: u16 = 0x0000;
}

/// CPMU Capability register (section 8.2.7.1.1).
#[bitfield(u64)]
#[derive(PartialEq, Eq)]
pub struct CpmuCapability {
    /// Counter units, less one.
    #[bits(6)]
    pub last_counter: u8,
    #[bits(2)]
    __: u8,
    /// Bits of a counter.
    pub counter_width: u8,
    #[bits(4)]
    __: u8,
    /// Event Capabilities registers, less one.
    #[bits(5)]
    pub last_event_group: u8,
    #[bits(7)]
    __: u8,
    /// A bit per filter.
    pub filters: u8,
    #[bits(4)]
    __: u8,
    /// MSI message number of overflows.
    #[bits(4)]
    pub message_number: u8,
    /// A frozen counter can be written.
    pub writable_while_frozen: bool,
    /// There is a Freeze register.
    pub freeze: bool,
    /// An interrupt can tell of an overflow.
    pub interrupt: bool,
    #[bits(9)]
    __: u16,
    /// 1.
    #[bits(4)]
    pub version: u8,
}

/// CPMU Event Capabilities register (section 8.2.7.1.4).
#[bitfield(u64)]
#[derive(PartialEq, Eq)]
pub struct EventCapabilities {
    /// A bit per event of the group that is counted.
    pub events: u32,
    /// Number of the group, by its vendor.
    pub group: u16,
    /// PCI vendor id of who defined the group.
    pub vendor: u16,
}

/// Counter Configuration register (section 8.2.7.2.1).
#[bitfield(u64)]
#[derive(PartialEq, Eq)]
pub struct CounterConfiguration {
    /// See [`FIXED_FUNCTION`](Self::FIXED_FUNCTION) and [`CONFIGURABLE`](Self::CONFIGURABLE).
    #[bits(2)]
    pub kind: u8,
    #[bits(6)]
    __: u8,
    /// It counts, unless it is frozen.
    pub enable: bool,
    /// An overflow sends an interrupt.
    pub interrupt_on_overflow: bool,
    /// An overflow freezes all counters.
    pub freeze_on_overflow: bool,
    /// Count only when events begin to happen.
    pub edge: bool,
    /// Count ticks with at most as many events as the threshold, not with at least as many.
    pub invert: bool,
    #[bits(3)]
    __: u8,
    /// 0: count events. Else: count ticks, by how many events there are in one.
    pub threshold: u8,
    /// A bit per event of the group that is counted.
    pub events: u32,
    #[bits(3)]
    __: u8,
    /// Index of the group's Event Capabilities register.
    #[bits(5)]
    pub group: u8,
}

impl CounterConfiguration {
    /// A counter of certain events.
    pub const FIXED_FUNCTION: u8 = 1;
    /// A counter of whatever events software chooses.
    pub const CONFIGURABLE: u8 = 2;

    /// What software may write: everything of a configurable counter, and how a counter of any kind runs and overflows.
    pub(super) fn writable(self) -> u64 {
        let any = Self::new()
            .with_enable(true)
            .with_interrupt_on_overflow(true)
            .with_freeze_on_overflow(true);
        if self.kind() != Self::CONFIGURABLE {
            return any.into_bits();
        }
        any.with_edge(true)
            .with_invert(true)
            .with_threshold(u8::MAX)
            .with_events(u32::MAX)
            .with_group(0x1f)
            .into_bits()
    }
}
