//! The memory map that the boot protocol hands to the kernel (ACPI 6.5 section 15).

use crate::machine::{Machine, Range};

/// First byte of the extended BIOS data area: low RAM ends here.
pub const EBDA_START: u64 = 0x9_FC00;
/// Where the display's memory and option ROMs begin: no RAM from here to 1 MiB.
pub(crate) const LEGACY_START: u64 = 0xA_0000;
/// First byte of the area with the ACPI tables.
pub const ACPI_START: u64 = 0xE_0000;
/// The first byte after it, 1 MiB; RAM goes on here.
pub const HIGH_RAM_START: u64 = 0x10_0000;

/// What a range is (ACPI 6.5 table 15.6). The value is the type number in the boot parameters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum E820Type {
    /// Ordinary RAM.
    Ram = 1,
    /// Never to be used.
    Reserved = 2,
    /// RAM with a purpose, left to drivers (`EFI_MEMORY_SP`; Linux's number for it).
    SoftReserved = 0xEFFF_FFFF,
}

/// A line of the map.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct E820Entry {
    /// Where it is.
    pub range: Range,
    /// What it is.
    pub kind: E820Type,
}

/// The map, ascending and without overlap for a machine that [`crate::build`] accepts.
///
/// Low RAM from 0 to [`EBDA_START`] is the kernel's, and so is whatever a loader puts there (boot
/// parameters, command line, page tables): the kernel takes over what it needs before it allocates.
/// Windows of devices and of CXL are not in the map, ECAM is.
pub fn e820(machine: &Machine) -> Vec<E820Entry> {
    let entry = |base, end, kind| E820Entry {
        range: Range {
            base,
            size: end - base,
        },
        kind,
    };
    let mut map = vec![
        entry(EBDA_START, LEGACY_START, E820Type::Reserved),
        entry(ACPI_START, HIGH_RAM_START, E820Type::Reserved),
        E820Entry {
            range: machine.ecam.range(),
            kind: E820Type::Reserved,
        },
    ];
    for ram in &machine.ram {
        let (base, end) = (ram.range.base, ram.range.end());
        for (base, end) in [(base, end.min(EBDA_START)), (base.max(HIGH_RAM_START), end)] {
            if base < end {
                map.push(entry(base, end, E820Type::Ram));
            }
        }
    }
    map.extend(machine.soft_reserved.iter().map(|&range| E820Entry {
        range,
        kind: E820Type::SoftReserved,
    }));
    map.sort_by_key(|entry| entry.range.base);
    map
}
