//! Base address registers.

use crate::header::BridgeWindows;
use crate::spec::{bar, command};

/// What kind of space a BAR asks for (7.5.1.2.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BarKind {
    Memory32 { prefetchable: bool },
    Memory64 { prefetchable: bool },
    Io,
}

/// A base address register: a power of two of bytes in one kind of space.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bar {
    /// Bytes.
    pub size: u64,
    pub kind: BarKind,
}

impl Bar {
    /// 64-bit and prefetchable: what belongs above 4 GiB when behind a bridge.
    pub const fn memory64(size: u64) -> Self {
        Self {
            size,
            kind: BarKind::Memory64 { prefetchable: true },
        }
    }

    /// 32-bit and not prefetchable.
    pub const fn memory32(size: u64) -> Self {
        Self {
            size,
            kind: BarKind::Memory32 {
                prefetchable: false,
            },
        }
    }

    pub const fn is_64_bit(self) -> bool {
        matches!(self.kind, BarKind::Memory64 { .. })
    }

    pub(crate) const fn is_valid(self) -> bool {
        let (least, most) = match self.kind {
            BarKind::Memory64 { .. } => (16, 1 << 63),
            BarKind::Memory32 { .. } => (16, 1 << 31),
            BarKind::Io => (4, 256),
        };
        self.size.is_power_of_two() && self.size >= least && self.size <= most
    }

    /// The read-only low bits of the register.
    pub(crate) const fn flags(self) -> u32 {
        match self.kind {
            BarKind::Memory32 {
                prefetchable: false,
            } => 0,
            BarKind::Memory32 { prefetchable: true } => bar::PREFETCHABLE,
            BarKind::Memory64 {
                prefetchable: false,
            } => bar::MEMORY_64,
            BarKind::Memory64 { prefetchable: true } => bar::MEMORY_64 | bar::PREFETCHABLE,
            BarKind::Io => bar::IO,
        }
    }

    pub(crate) const fn flags_mask(self) -> u32 {
        match self.kind {
            BarKind::Io => bar::IO_FLAGS,
            _ => bar::MEMORY_FLAGS,
        }
    }

    /// The bit of the command register that turns its decode on.
    pub(crate) const fn command_bit(self) -> u16 {
        match self.kind {
            BarKind::Io => command::IO_SPACE,
            _ => command::MEMORY_SPACE,
        }
    }

    /// The address space it decodes.
    pub const fn space(self) -> Space {
        match self.kind {
            BarKind::Io => Space::Io,
            _ => Space::Memory,
        }
    }
}

/// One of the two address spaces that BARs and bridge windows decode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Space {
    Memory,
    Io,
}

/// Where a BAR decodes. `base` is aligned to `size`, so that `base + (size - 1)` never overflows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BarWindow {
    pub base: u64,
    /// Bytes.
    pub size: u64,
}

impl BarWindow {
    /// Offset of an access of `len` bytes at `address` that lies wholly inside.
    pub fn offset_of(&self, address: u64, len: u64) -> Option<u64> {
        let offset = address.checked_sub(self.base)?;
        (offset.checked_add(len)? <= self.size).then_some(offset)
    }
}

/// All that a function decodes, to tell whether a write changed it.
#[derive(PartialEq, Eq)]
pub(crate) struct Decode {
    pub bars: [Option<BarWindow>; 6],
    pub windows: BridgeWindows,
}
