//! Where everything lies in the guest's physical address space.
//!
//! A pure function of the configuration: what the host offers is checked afterwards ([`Layout::check_physical_bits`]), so that
//! one configuration gives one map on every machine.
//!
//! ```text
//! 0            RAM, at most 3 GiB
//! 0xC000_0000  32-bit windows of the root complexes
//! 0xE000_0000  ECAM, 256 buses
//! 0xF000_0000  CXL host bridge component registers, 64 KiB each
//! 0xFEC0_0000  IOAPIC
//! 0xFEE0_0000  local APICs
//! 0xFFFB_C000  pages that KVM wants for real mode on old Intel hosts
//! 4 GiB        the rest of RAM
//!              64-bit windows of the root complexes
//!              CXL fixed memory windows
//! ```

use std::ops::Range;

use crate::error::{Error, Result};

const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

/// First address of the hole below 4 GiB; RAM goes on above 4 GiB.
pub const HOLE_START: u64 = 0xC000_0000;
/// First address behind the hole.
pub const HOLE_END: u64 = 4 * GIB;
/// Where the 32-bit windows of the root complexes begin.
pub const MMIO32_START: u64 = HOLE_START;
/// First address behind the 32-bit windows.
pub const MMIO32_END: u64 = ECAM_BASE;
/// Base of the enhanced configuration access mechanism (PCIe 6.2, 7.2.2).
pub const ECAM_BASE: u64 = 0xE000_0000;
/// Size of the ECAM: 256 buses of 1 MiB.
pub const ECAM_SIZE: u64 = 256 * MIB;
/// Where the CXL host bridges' component registers begin (CXL 3.1, 9.17.1.2, CHBS).
pub const CHBCR_BASE: u64 = 0xF000_0000;
/// Size of one host bridge's component register block in bytes (CXL 3.1, 8.2.3).
pub const CHBCR_SIZE: u64 = 0x1_0000;
/// First bus of the first CXL host bridge.
pub const CXL_FIRST_BUS: u8 = 0x20;
/// Buses of each CXL host bridge.
pub const CXL_BUSES: u8 = 0x30;
/// The IOAPIC that KVM emulates.
pub const IOAPIC_BASE: u64 = 0xFEC0_0000;
/// The local APICs that KVM emulates.
pub const LAPIC_BASE: u64 = 0xFEE0_0000;
/// The page with the identity map that KVM uses for real mode where the processor cannot run it.
pub const KVM_IDENTITY_MAP: u64 = 0xFFFB_C000;
/// The three pages behind it, for the task state segment of the same trick.
pub const KVM_TSS: u64 = KVM_IDENTITY_MAP + 0x1000;
/// Least alignment of 64-bit windows and unit of CXL windows (CXL 3.1, 9.18.1.3: 256 MiB).
pub const WINDOW_UNIT: u64 = 256 * MIB;

/// Bytes from `start` to before `start + size`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AddressRange {
    /// First address.
    pub start: u64,
    /// Length in bytes.
    pub size: u64,
}

impl AddressRange {
    /// First address behind the range; ranges of a [`Layout`] never wrap.
    #[must_use]
    pub fn end(&self) -> u64 {
        self.start.saturating_add(self.size)
    }

    /// Whether `address` lies in the range.
    #[must_use]
    pub fn contains(&self, address: u64) -> bool {
        address >= self.start && address - self.start < self.size
    }

    /// Whether the two ranges share a byte.
    #[must_use]
    pub fn overlaps(&self, other: &Self) -> bool {
        self.start < other.end() && other.start < self.end()
    }
}

/// How much memory-mapped I/O space one root complex wants, in bytes. Zero means none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ApertureRequest {
    /// Below 4 GiB; rounded up to 1 MiB, the unit of a bridge window.
    pub mmio32: u64,
    /// Above 4 GiB; rounded up to [`WINDOW_UNIT`].
    pub mmio64: u64,
}

/// One CXL fixed memory window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WindowRequest {
    /// Size in bytes, a multiple of 256 MiB times `ways`.
    pub size: u64,
    /// Number of host bridges that the window interleaves over.
    pub ways: u64,
}

/// What the configuration asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LayoutRequest {
    /// RAM in bytes, a multiple of 2 MiB.
    pub ram: u64,
    /// The ordinary root complex.
    pub root: ApertureRequest,
    /// The CXL host bridges in the order of the file.
    pub host_bridges: Vec<ApertureRequest>,
    /// The CXL windows in the order of the file.
    pub windows: Vec<WindowRequest>,
}

/// The windows of one root complex. An aperture that was not asked for has size 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Aperture {
    /// Below 4 GiB.
    pub mmio32: AddressRange,
    /// Above 4 GiB.
    pub mmio64: AddressRange,
}

/// A CXL host bridge: its windows and its component registers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HostBridgeRanges {
    /// Windows for the functions below it.
    pub aperture: Aperture,
    /// The block that the CHBS of the CEDT names.
    pub component_registers: AddressRange,
}

/// The finished map.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    /// RAM: one range, or two around the hole.
    pub ram: Vec<AddressRange>,
    /// Configuration space.
    pub ecam: AddressRange,
    /// The ordinary root complex.
    pub root: Aperture,
    /// The CXL host bridges in the order of the request.
    pub host_bridges: Vec<HostBridgeRanges>,
    /// The CXL windows in the order of the request.
    pub windows: Vec<AddressRange>,
    /// First address behind everything.
    pub end: u64,
}

impl Layout {
    /// Lays out `request`.
    ///
    /// # Errors
    /// [`Error::Layout`] if a size breaks its unit, the 32-bit windows or the component registers do not fit, or the map
    /// runs out of 64-bit addresses.
    pub fn new(request: &LayoutRequest) -> Result<Self> {
        let ram = ram_ranges(request.ram)?;
        let mut low = Cursor::new(MMIO32_START);
        let mut registers = Cursor::new(CHBCR_BASE);
        let mut high = Cursor::new(ram.last().map_or(HOLE_END, AddressRange::end).max(HOLE_END));
        high.align(GIB)?;

        let root = aperture(&request.root, &mut low, &mut high)?;
        let mut host_bridges = Vec::with_capacity(request.host_bridges.len());
        for wanted in &request.host_bridges {
            host_bridges.push(HostBridgeRanges {
                aperture: aperture(wanted, &mut low, &mut high)?,
                component_registers: registers.take(CHBCR_SIZE, CHBCR_SIZE)?,
            });
        }
        if low.next > MMIO32_END {
            return Err(Error::Layout(format!(
                "the 32-bit PCI windows need {} MiB and there are {}: ask for less, or have fewer host bridges",
                (low.next - MMIO32_START) / MIB,
                (MMIO32_END - MMIO32_START) / MIB,
            )));
        }
        if registers.next > IOAPIC_BASE {
            return Err(Error::Layout(
                "too many host bridges for the space below the IOAPIC".into(),
            ));
        }

        let mut windows = Vec::with_capacity(request.windows.len());
        for wanted in &request.windows {
            windows.push(window(wanted, &mut high)?);
        }
        Ok(Self {
            ram,
            ecam: AddressRange {
                start: ECAM_BASE,
                size: ECAM_SIZE,
            },
            root,
            host_bridges,
            windows,
            end: high.next,
        })
    }

    /// The windows of all root complexes below 4 GiB: they lie side by side, and firmware deals them out.
    #[must_use]
    pub fn mmio32(&self) -> Range<u64> {
        self.span(|aperture| aperture.mmio32)
    }

    /// The windows of all root complexes above 4 GiB.
    #[must_use]
    pub fn mmio64(&self) -> Range<u64> {
        self.span(|aperture| aperture.mmio64)
    }

    fn span(&self, part: impl Fn(&Aperture) -> AddressRange) -> Range<u64> {
        let last = self
            .host_bridges
            .last()
            .map_or(&self.root, |bridge| &bridge.aperture);
        part(&self.root).start..part(last).end()
    }

    /// The number of physical address bits that reach every byte of the map.
    #[must_use]
    pub fn physical_bits(&self) -> u32 {
        u64::BITS - self.end.saturating_sub(1).leading_zeros()
    }

    /// Checks the map against the processor's physical address width (CPUID leaf 0x8000_0008, EAX 7:0).
    ///
    /// # Errors
    /// [`Error::Layout`] if part of the map cannot be reached.
    pub fn check_physical_bits(&self, available: u32) -> Result<()> {
        let needed = self.physical_bits();
        if needed > available {
            return Err(Error::Layout(format!(
                "the map ends at {:#x} and needs {needed} physical address bits, this processor has {available}: \
                 make memory or windows smaller",
                self.end
            )));
        }
        Ok(())
    }
}

/// Takes addresses upwards.
struct Cursor {
    next: u64,
}

impl Cursor {
    fn new(next: u64) -> Self {
        Self { next }
    }

    /// Moves up to a multiple of `unit`, which need not be a power of two (a 3-way window is not).
    fn align(&mut self, unit: u64) -> Result<()> {
        self.next = self
            .next
            .checked_next_multiple_of(unit)
            .ok_or_else(out_of_addresses)?;
        Ok(())
    }

    fn take(&mut self, size: u64, unit: u64) -> Result<AddressRange> {
        self.align(unit)?;
        let start = self.next;
        self.next = start.checked_add(size).ok_or_else(out_of_addresses)?;
        Ok(AddressRange { start, size })
    }
}

fn out_of_addresses() -> Error {
    Error::Layout("the sizes exceed a 64-bit address space".into())
}

fn ram_ranges(size: u64) -> Result<Vec<AddressRange>> {
    if size == 0 || !size.is_multiple_of(2 * MIB) {
        return Err(Error::Layout(format!(
            "memory must be a multiple of 2 MiB, not {size} bytes"
        )));
    }
    let low = size.min(HOLE_START);
    let mut ranges = vec![AddressRange {
        start: 0,
        size: low,
    }];
    if size > low {
        HOLE_END
            .checked_add(size - low)
            .ok_or_else(out_of_addresses)?;
        ranges.push(AddressRange {
            start: HOLE_END,
            size: size - low,
        });
    }
    Ok(ranges)
}

fn aperture(wanted: &ApertureRequest, low: &mut Cursor, high: &mut Cursor) -> Result<Aperture> {
    let round = |size: u64, unit: u64| {
        size.checked_next_multiple_of(unit)
            .ok_or_else(out_of_addresses)
    };
    let size32 = round(wanted.mmio32, MIB)?;
    let size64 = round(wanted.mmio64, WINDOW_UNIT)?;
    Ok(Aperture {
        mmio32: low.take(size32, MIB)?,
        // BARs are naturally aligned, so a window begins where its largest possible BAR may begin.
        mmio64: high.take(
            size64,
            (size64 / 2 + 1).next_power_of_two().max(WINDOW_UNIT),
        )?,
    })
}

fn window(wanted: &WindowRequest, high: &mut Cursor) -> Result<AddressRange> {
    let unit = WINDOW_UNIT
        .checked_mul(wanted.ways)
        .filter(|&unit| unit != 0)
        .ok_or_else(out_of_addresses)?;
    if wanted.size == 0 || !wanted.size.is_multiple_of(unit) {
        return Err(Error::Layout(format!(
            "a window over {} host bridges must be a multiple of {} MiB, not {} MiB",
            wanted.ways,
            unit / MIB,
            wanted.size / MIB
        )));
    }
    high.take(wanted.size, unit)
}

#[cfg(test)]
mod tests;
