//! Processors, the board's own addresses, the serial port and the clock.

use acpi_tables::aml::{
    AddressSpace, AddressSpaceCacheable, Device, EISAName, IO, Interrupt, Memory32Fixed, Name,
    ResourceTemplate,
};

use super::{Raw, refs};
use crate::cedt::CHBCR_SIZE;
use crate::machine::{Machine, PciRootKind, Range};

/// COM1's interrupt.
const COM1_IRQ: u32 = 4;

pub(super) fn devices(machine: &Machine) -> Vec<Raw> {
    let mut devices: Vec<Raw> = (0..machine.cpus.len() as u32).map(processor).collect();
    devices.push(board(machine));
    devices.push(serial_port(machine.chipset.com1));
    devices.push(clock(machine.chipset.rtc));
    devices
}

/// A processor device (ACPI 6.5 section 8.4); the UID is that in MADT.
fn processor(uid: u32) -> Raw {
    Raw::of(&Device::new(
        format!("C{uid:03X}").as_str().into(),
        vec![
            &Name::new("_HID".into(), &"ACPI0007"),
            &Name::new("_UID".into(), &uid),
        ],
    ))
}

/// Motherboard resources: ECAM, which an operating system uses only if some device claims it (PCI Firmware
/// Specification 3.3 section 4.1.2), and the component registers of the CXL host bridges.
fn board(machine: &Machine) -> Raw {
    let mut resources = vec![fixed_memory(machine.ecam.range())];
    resources.extend(machine.pci_roots.iter().filter_map(|root| match root.kind {
        PciRootKind::Cxl { chbcr, .. } => Some(fixed_memory(Range {
            base: chbcr,
            size: CHBCR_SIZE,
        })),
        PciRootKind::Pcie { .. } => None,
    }));
    Raw::of(&Device::new(
        "MBRD".into(),
        vec![
            &Name::new("_HID".into(), &EISAName::new("PNP0C02")),
            &Name::new("_UID".into(), &0u8),
            &Name::new("_CRS".into(), &ResourceTemplate::new(refs(&resources))),
        ],
    ))
}

fn fixed_memory(range: Range) -> Raw {
    match (u32::try_from(range.base), u32::try_from(range.size)) {
        (Ok(base), Ok(size)) => Raw::of(&Memory32Fixed::new(true, base, size)),
        _ => Raw::of(&AddressSpace::new_memory(
            AddressSpaceCacheable::NotCacheable,
            true,
            range.base,
            range.last(),
            None,
        )),
    }
}

/// A 16550A (ACPI's PNP0501).
fn serial_port(port: u16) -> Raw {
    Raw::of(&Device::new(
        "COM1".into(),
        vec![
            &Name::new("_HID".into(), &EISAName::new("PNP0501")),
            &Name::new("_UID".into(), &0u8),
            &Name::new(
                "_CRS".into(),
                &ResourceTemplate::new(vec![
                    &IO::new(port, port, 1, 8),
                    &Interrupt::new(true, true, false, false, COM1_IRQ),
                ]),
            ),
        ],
    ))
}

/// The CMOS clock; its index and data ports. It raises no interrupt.
fn clock(port: u16) -> Raw {
    Raw::of(&Device::new(
        "RTC0".into(),
        vec![
            &Name::new("_HID".into(), &EISAName::new("PNP0B00")),
            &Name::new("_UID".into(), &0u8),
            &Name::new(
                "_CRS".into(),
                &ResourceTemplate::new(vec![&IO::new(port, port, 1, 2)]),
            ),
        ],
    ))
}
