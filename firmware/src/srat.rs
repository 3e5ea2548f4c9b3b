//! System Resource Affinity Table (ACPI 6.5 section 5.2.16): which processor, which memory and which
//! generic port belongs to which proximity domain.

use acpi_tables::sdt::Sdt;

use crate::machine::{Cpu, Machine, PciRootKind, Range};
use crate::madt::MAX_XAPIC_ID;
use crate::table::{Fields, HEADER_LEN, table};

const REVISION: u8 = 3;
/// "Reserved to be 1 for backward compatibility."
const TABLE_REVISION: u32 = 1;

/// Affinity structure types and their lengths.
mod kind {
    pub const LOCAL_APIC: (u8, u8) = (0, 16);
    pub const MEMORY: (u8, u8) = (1, 40);
    pub const LOCAL_X2APIC: (u8, u8) = (2, 24);
    pub const GENERIC_PORT: (u8, u8) = (6, 32);
}

const ENABLED: u32 = 1 << 0;
/// Memory that may appear after boot.
const HOT_PLUGGABLE: u32 = 1 << 1;

/// The generic port's handle is an ACPI one: `_HID`, `_UID` (ACPI 6.5 table 5.67).
const ACPI_DEVICE_HANDLE: u8 = 0;
const CXL_HOST_BRIDGE_HID: &[u8; 8] = b"ACPI0016";

/// The SRAT of the machine.
pub(crate) fn srat(machine: &Machine) -> Sdt {
    let mut srat = table(b"SRAT", REVISION, HEADER_LEN);
    srat.append_slice(Fields::new().u32(TABLE_REVISION).reserved(8).as_slice());
    for cpu in &machine.cpus {
        srat.append_slice(processor(cpu).as_slice());
    }
    for ram in &machine.ram {
        srat.append_slice(memory(ram.proximity_domain, ram.range, ENABLED).as_slice());
    }
    for window in &machine.fixed_windows {
        if let Some(domain) = window.proximity_domain {
            srat.append_slice(memory(domain, window.range, ENABLED | HOT_PLUGGABLE).as_slice());
        }
    }
    for root in &machine.pci_roots {
        if let PciRootKind::Cxl {
            generic_port_domain,
            ..
        } = root.kind
        {
            srat.append_slice(generic_port(generic_port_domain, root.uid).as_slice());
        }
    }
    srat
}

fn structure((kind, length): (u8, u8)) -> Fields {
    Fields::new().u8(kind).u8(length)
}

fn processor(cpu: &Cpu) -> Fields {
    let domain = cpu.proximity_domain.to_le_bytes();
    match u8::try_from(cpu.apic_id) {
        Ok(id) if cpu.apic_id <= MAX_XAPIC_ID => {
            // The domain's low byte and its three high bytes lie apart.
            let (low, high) = domain.split_at(1);
            structure(kind::LOCAL_APIC)
                .bytes(low)
                .u8(id)
                .u32(ENABLED)
                .reserved(1)
                .bytes(high)
                .reserved(4)
        }
        _ => structure(kind::LOCAL_X2APIC)
            .reserved(2)
            .bytes(&domain)
            .u32(cpu.apic_id)
            .u32(ENABLED)
            .reserved(8),
    }
}

fn memory(domain: u32, range: Range, flags: u32) -> Fields {
    structure(kind::MEMORY)
        .u32(domain)
        .reserved(2)
        .u64(range.base)
        .u64(range.size)
        .reserved(4)
        .u32(flags)
        .reserved(8)
}

fn generic_port(domain: u32, uid: u32) -> Fields {
    structure(kind::GENERIC_PORT)
        .reserved(1)
        .u8(ACPI_DEVICE_HANDLE)
        .u32(domain)
        .bytes(CXL_HOST_BRIDGE_HID)
        .u32(uid)
        .reserved(4)
        .u32(ENABLED)
        .reserved(4)
}
