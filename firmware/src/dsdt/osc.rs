//! `_OSC`: which features of a PCI root the operating system may drive itself (ACPI 6.5 section 6.2.11, PCI
//! Firmware Specification 3.3 section 4.5.1, CXL 3.1 section 9.18.2.2).
//!
//! The answer depends on nothing but the request, so a query and a request are answered alike.

use acpi_tables::aml::{
    And, Arg, CreateDWordField, Equal, If, LessThan, Local, Method, Name, NotEqual, Or, Return,
    SizeOf, Store, Uuid, ZERO,
};

use super::{Raw, refs};

const PCI_UUID: &str = "33DB4D5B-1FF7-401C-9657-7441C03DD766";
const CXL_UUID: &str = "68F2D50B-C469-4D8A-BD3D-941A103FD3FC";
const REVISION: u8 = 1;

/// Bytes of the capabilities buffer: status, PCI support, PCI control; then CXL support, CXL control.
const PCI_LEN: u8 = 12;
const CXL_LEN: u8 = 20;
/// Where the dwords that we answer are.
const STATUS_AT: u8 = 0;
const PCI_CONTROL_AT: u8 = 8;
const CXL_CONTROL_AT: u8 = 16;

/// Status bits (ACPI 6.5 table 6.15).
mod status {
    pub const FAILURE: u8 = 1 << 1;
    pub const UNRECOGNIZED_UUID: u8 = 1 << 2;
    pub const UNRECOGNIZED_REVISION: u8 = 1 << 3;
    pub const CAPABILITIES_MASKED: u8 = 1 << 4;
}

/// PCI control (PCI Firmware Specification 3.3 table 4-7).
mod pci_control {
    pub const HOTPLUG: u8 = 1 << 0;
    pub const PME: u8 = 1 << 2;
    pub const AER: u8 = 1 << 3;
    pub const CAPABILITY_STRUCTURE: u8 = 1 << 4;
}

/// CXL control (CXL 3.1 table 9-27).
const CXL_MEMORY_ERROR_REPORTING: u8 = 1 << 0;

/// What the operating system is given if it asks. PME, AER and the PCI Express capability always are.
#[derive(Debug, Clone, Copy)]
pub(super) struct Grants {
    /// Native PCI Express hot-plug.
    pub hotplug: bool,
    /// The CXL interface is understood too, and CXL memory error reporting given.
    pub cxl: bool,
}

pub(super) fn method(grants: Grants) -> Raw {
    use pci_control::{AER, CAPABILITY_STRUCTURE, HOTPLUG, PME};

    let (uuid, revision, buffer) = (Arg(0), Arg(1), Arg(3));
    let (status, pci_control, cxl_control) = (field("STAT"), field("PCTL"), field("CCTL"));
    let (length, granted) = (Local(0), Local(1));
    let pci_grants = PME | AER | CAPABILITY_STRUCTURE | if grants.hotplug { HOTPLUG } else { 0 };

    let fail = |bit: u8| {
        [
            Raw::of(&Store::new(&status, &bit)),
            Raw::of(&Return::new(&buffer)),
        ]
    };
    // Answers a dword of control bits with those of them in Local1, and says so if some are missing.
    let answer = |control: &Name| {
        [
            Raw::of(&If::new(
                &NotEqual::new(&granted, control),
                vec![&Or::new(&status, &status, &status::CAPABILITIES_MASKED)],
            )),
            Raw::of(&Store::new(control, &granted)),
        ]
    };

    let mut body = vec![
        Raw::of(&CreateDWordField::new(&status, &buffer, &STATUS_AT)),
        Raw::of(&Store::new(&status, &ZERO)),
        Raw::of(&Store::new(&length, &ZERO)),
        Raw::of(&If::new(
            &Equal::new(&uuid, &Uuid::new(PCI_UUID)),
            vec![&Store::new(&length, &PCI_LEN)],
        )),
    ];
    if grants.cxl {
        body.push(Raw::of(&If::new(
            &Equal::new(&uuid, &Uuid::new(CXL_UUID)),
            vec![&Store::new(&length, &CXL_LEN)],
        )));
    }
    body.extend([
        Raw::of(&If::new(
            &Equal::new(&length, &ZERO),
            refs(&fail(status::UNRECOGNIZED_UUID)),
        )),
        Raw::of(&If::new(
            &NotEqual::new(&revision, &REVISION),
            refs(&fail(status::UNRECOGNIZED_REVISION)),
        )),
        Raw::of(&If::new(
            &LessThan::new(&SizeOf::new(&buffer), &length),
            refs(&fail(status::FAILURE)),
        )),
        Raw::of(&CreateDWordField::new(
            &pci_control,
            &buffer,
            &PCI_CONTROL_AT,
        )),
        Raw::of(&And::new(&granted, &pci_control, &pci_grants)),
        // Who does not take the PCI Express capability structure gets none of what is in it.
        Raw::of(&If::new(
            &Equal::new(&And::new(&ZERO, &granted, &CAPABILITY_STRUCTURE), &ZERO),
            vec![&Store::new(&granted, &ZERO)],
        )),
    ]);
    body.extend(answer(&pci_control));
    if grants.cxl {
        let mut cxl = vec![
            Raw::of(&CreateDWordField::new(
                &cxl_control,
                &buffer,
                &CXL_CONTROL_AT,
            )),
            Raw::of(&And::new(
                &granted,
                &cxl_control,
                &CXL_MEMORY_ERROR_REPORTING,
            )),
        ];
        cxl.extend(answer(&cxl_control));
        body.push(Raw::of(&If::new(
            &Equal::new(&length, &CXL_LEN),
            refs(&cxl),
        )));
    }
    body.push(Raw::of(&Return::new(&buffer)));

    // Serialized, because it makes named fields.
    Raw::of(&Method::new("_OSC".into(), 4, true, refs(&body)))
}

fn field(name: &str) -> Name {
    Name::new_field_name(name)
}
