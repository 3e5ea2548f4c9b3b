//! Multiple APIC Description Table (ACPI 6.5 section 5.2.12).

use acpi_tables::sdt::Sdt;

use crate::machine::{Chipset, Cpu};
use crate::table::{Fields, HEADER_LEN, table};

const REVISION: u8 = 5;
/// 8259 interrupt controllers are present too.
const PCAT_COMPAT: u32 = 1 << 0;

/// Interrupt controller structure types (ACPI 6.5 table 5.21) and their lengths.
mod kind {
    pub const LOCAL_APIC: (u8, u8) = (0, 8);
    pub const IO_APIC: (u8, u8) = (1, 12);
    pub const INTERRUPT_SOURCE_OVERRIDE: (u8, u8) = (2, 10);
    pub const LOCAL_APIC_NMI: (u8, u8) = (4, 6);
    pub const LOCAL_X2APIC: (u8, u8) = (9, 16);
    pub const LOCAL_X2APIC_NMI: (u8, u8) = (10, 12);
}

/// Highest id that a local APIC structure can state; 255 is the broadcast id.
pub(crate) const MAX_XAPIC_ID: u32 = 254;
const ENABLED: u32 = 1 << 0;

/// KVM's I/O APIC.
const IO_APIC_ID: u8 = 0;
const GSI_BASE: u32 = 0;

/// MPS INTI flags (ACPI 6.5 table 5.26).
const CONFORMS: u16 = 0;
const ACTIVE_HIGH_LEVEL: u16 = 0b1101;
const ISA: u8 = 0;
const TIMER_IRQ: u8 = 0;
/// The timer is wired to pin 2 of the I/O APIC, as on every PC.
const TIMER_GSI: u32 = 2;

/// Every processor's NMI comes in at LINT1.
const ALL_PROCESSORS: u8 = 0xFF;
const ALL_X2APIC_PROCESSORS: u32 = 0xFFFF_FFFF;
const NMI_LINT: u8 = 1;

/// The MADT of a machine with these processors.
pub(crate) fn madt(chipset: &Chipset, cpus: &[Cpu]) -> Sdt {
    let mut madt = table(b"APIC", REVISION, HEADER_LEN);
    madt.append_slice(
        Fields::new()
            .u32(chipset.local_apic)
            .u32(PCAT_COMPAT)
            .as_slice(),
    );
    for (uid, cpu) in (0u32..).zip(cpus) {
        madt.append_slice(processor(uid, cpu.apic_id).as_slice());
    }
    madt.append_slice(
        structure(kind::IO_APIC)
            .u8(IO_APIC_ID)
            .reserved(1)
            .u32(chipset.ioapic)
            .u32(GSI_BASE)
            .as_slice(),
    );
    madt.append_slice(source_override(TIMER_IRQ, TIMER_GSI, CONFORMS).as_slice());
    madt.append_slice(
        source_override(chipset.sci, u32::from(chipset.sci), ACTIVE_HIGH_LEVEL).as_slice(),
    );
    madt.append_slice(
        structure(kind::LOCAL_APIC_NMI)
            .u8(ALL_PROCESSORS)
            .u16(CONFORMS)
            .u8(NMI_LINT)
            .as_slice(),
    );
    if cpus.iter().any(|cpu| cpu.apic_id > MAX_XAPIC_ID) {
        madt.append_slice(
            structure(kind::LOCAL_X2APIC_NMI)
                .u16(CONFORMS)
                .u32(ALL_X2APIC_PROCESSORS)
                .u8(NMI_LINT)
                .reserved(3)
                .as_slice(),
        );
    }
    madt
}

fn structure((kind, length): (u8, u8)) -> Fields {
    Fields::new().u8(kind).u8(length)
}

fn processor(uid: u32, apic_id: u32) -> Fields {
    match (u8::try_from(uid), u8::try_from(apic_id)) {
        (Ok(uid), Ok(id)) if apic_id <= MAX_XAPIC_ID => {
            structure(kind::LOCAL_APIC).u8(uid).u8(id).u32(ENABLED)
        }
        _ => structure(kind::LOCAL_X2APIC)
            .reserved(2)
            .u32(apic_id)
            .u32(ENABLED)
            .u32(uid),
    }
}

fn source_override(irq: u8, gsi: u32, flags: u16) -> Fields {
    structure(kind::INTERRUPT_SOURCE_OVERRIDE)
        .u8(ISA)
        .u8(irq)
        .u32(gsi)
        .u16(flags)
}
