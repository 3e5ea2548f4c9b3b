//! Offsets and bits of the configuration header, and capability identifiers.
//!
//! Section numbers are those of the PCI Express Base Specification 6.0. What belongs to one capability only stands at the
//! top of that capability's module.

/// Bytes of configuration space of a PCI Express function (7.2.2).
pub const CONFIG_SPACE_SIZE: u16 = 0x1000;
/// First byte of device-specific space behind the header, where the capability list lives (7.5.1).
pub const CAPABILITIES_START: u16 = 0x40;
/// First byte of extended configuration space; the first extended capability must stand here (7.6.1).
pub const EXTENDED_START: u16 = 0x100;

/// Registers common to both header types (7.5.1.1).
pub mod header {
    /// 16 bits, RO (7.5.1.1.1).
    pub const VENDOR_ID: u16 = 0x00;
    /// 16 bits, RO (7.5.1.1.2).
    pub const DEVICE_ID: u16 = 0x02;
    /// 16 bits, RW (7.5.1.1.3).
    pub const COMMAND: u16 = 0x04;
    /// 16 bits, RO and RW1C (7.5.1.1.4).
    pub const STATUS: u16 = 0x06;
    /// 8 bits, RO (7.5.1.1.5).
    pub const REVISION_ID: u16 = 0x08;
    /// 24 bits, RO (7.5.1.1.6).
    pub const CLASS_CODE: u16 = 0x09;
    /// 8 bits, RW without effect (7.5.1.1.7).
    pub const CACHE_LINE_SIZE: u16 = 0x0c;
    /// 8 bits, RO; bit 7 = multi-function (7.5.1.1.9).
    pub const HEADER_TYPE: u16 = 0x0e;
    /// First base address register (7.5.1.2.1).
    pub const BAR0: u16 = 0x10;
    /// 8 bits, RO (7.5.1.1.11).
    pub const CAPABILITIES_POINTER: u16 = 0x34;
    /// 8 bits, RW without effect (7.5.1.1.12).
    pub const INTERRUPT_LINE: u16 = 0x3c;
    /// 8 bits, RO (7.5.1.1.13).
    pub const INTERRUPT_PIN: u16 = 0x3d;
    /// 16 bits, RO, type 0 only (7.5.1.2.3).
    pub const SUBSYSTEM_VENDOR_ID: u16 = 0x2c;
    /// 16 bits, RO, type 0 only (7.5.1.2.3).
    pub const SUBSYSTEM_ID: u16 = 0x2e;

    /// Value of the layout field of `HEADER_TYPE` for a bridge (7.5.1.1.9).
    pub const TYPE_1: u8 = 1;
    /// Multi-function bit of `HEADER_TYPE`.
    pub const MULTI_FUNCTION: u8 = 1 << 7;
}

/// Command register (7.5.1.1.3).
pub mod command {
    pub const IO_SPACE: u16 = 1 << 0;
    pub const MEMORY_SPACE: u16 = 1 << 1;
    pub const BUS_MASTER: u16 = 1 << 2;
    pub const PARITY_ERROR_RESPONSE: u16 = 1 << 6;
    pub const SERR_ENABLE: u16 = 1 << 8;
    pub const INTERRUPT_DISABLE: u16 = 1 << 10;
}

/// Status register (7.5.1.1.4); the secondary status register of a bridge has the same error bits (7.5.1.3.7).
pub mod status {
    pub const CAPABILITIES_LIST: u16 = 1 << 4;
    /// Master data parity error, signalled and received target abort, received master abort, signalled system error,
    /// detected parity error: all RW1C.
    pub const ERRORS: u16 = 1 << 8 | 0x1f << 11;
}

/// Registers of the type 1 header, a PCI-to-PCI bridge (7.5.1.3).
pub mod bridge {
    /// 8 bits, RW (7.5.1.3.2).
    pub const PRIMARY_BUS: u16 = 0x18;
    /// 8 bits, RW (7.5.1.3.3).
    pub const SECONDARY_BUS: u16 = 0x19;
    /// 8 bits, RW (7.5.1.3.4).
    pub const SUBORDINATE_BUS: u16 = 0x1a;
    /// 8 bits: address bits 15:12 in 7:4, addressing capability in 3:0 (7.5.1.3.6).
    pub const IO_BASE: u16 = 0x1c;
    /// As `IO_BASE`.
    pub const IO_LIMIT: u16 = 0x1d;
    /// 16 bits, RW1C (7.5.1.3.7).
    pub const SECONDARY_STATUS: u16 = 0x1e;
    /// 16 bits: address bits 31:20 in 15:4 (7.5.1.3.8).
    pub const MEMORY_BASE: u16 = 0x20;
    /// As `MEMORY_BASE`.
    pub const MEMORY_LIMIT: u16 = 0x22;
    /// 16 bits: address bits 31:20 in 15:4, 1 in 3:0 = 64-bit addresses (7.5.1.3.9).
    pub const PREFETCHABLE_BASE: u16 = 0x24;
    /// As `PREFETCHABLE_BASE`.
    pub const PREFETCHABLE_LIMIT: u16 = 0x26;
    /// 32 bits: address bits 63:32 (7.5.1.3.10).
    pub const PREFETCHABLE_BASE_UPPER: u16 = 0x28;
    /// 32 bits: address bits 63:32 (7.5.1.3.10).
    pub const PREFETCHABLE_LIMIT_UPPER: u16 = 0x2c;
    /// 16 bits: address bits 31:16 (7.5.1.3.11).
    pub const IO_BASE_UPPER: u16 = 0x30;
    /// 16 bits: address bits 31:16 (7.5.1.3.11).
    pub const IO_LIMIT_UPPER: u16 = 0x32;
    /// 16 bits, RW (7.5.1.3.13).
    pub const BRIDGE_CONTROL: u16 = 0x3e;

    /// Addressing capability field of the I/O and prefetchable windows: 32-bit I/O, 64-bit memory.
    pub const ADDRESSING_WIDE: u8 = 1;
    /// Granularity of the memory windows in bytes.
    pub const MEMORY_GRANULARITY: u64 = 1 << 20;
    /// Granularity of the I/O window in bytes.
    pub const IO_GRANULARITY: u64 = 1 << 12;

    /// Bits of `BRIDGE_CONTROL`.
    pub const CONTROL_PARITY_ERROR_RESPONSE: u16 = 1 << 0;
    pub const CONTROL_SERR_ENABLE: u16 = 1 << 1;
    pub const CONTROL_SECONDARY_BUS_RESET: u16 = 1 << 6;
}

/// Low bits of a base address register (7.5.1.2.1).
pub mod bar {
    pub const IO: u32 = 1 << 0;
    pub const MEMORY_64: u32 = 2 << 1;
    pub const PREFETCHABLE: u32 = 1 << 3;
    /// Mask of the bits that do not belong to a memory address.
    pub const MEMORY_FLAGS: u32 = 0xf;
    /// Mask of the bits that do not belong to an I/O address.
    pub const IO_FLAGS: u32 = 0x3;
}

/// Capability identifiers (PCI Code and ID Assignment Specification).
pub mod capability {
    pub const POWER_MANAGEMENT: u8 = 0x01;
    pub const MSI: u8 = 0x05;
    pub const VENDOR_SPECIFIC: u8 = 0x09;
    pub const PCI_EXPRESS: u8 = 0x10;
    pub const MSIX: u8 = 0x11;
}

/// Extended capability identifiers (PCI Code and ID Assignment Specification).
pub mod extended {
    pub const AER: u16 = 0x0001;
    pub const DEVICE_SERIAL_NUMBER: u16 = 0x0003;
    pub const ACS: u16 = 0x000d;
    pub const ARI: u16 = 0x000e;
    pub const SECONDARY_PCI_EXPRESS: u16 = 0x0019;
    pub const DVSEC: u16 = 0x0023;
    pub const DOE: u16 = 0x002e;
}
