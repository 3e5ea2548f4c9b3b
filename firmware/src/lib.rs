//! What a machine's firmware tells its operating system: ACPI tables and the e820 map, from a plain
//! description of the machine.
//!
//! [`build`] checks a [`Machine`] and returns every table at the address where it belongs;
//! [`e820`] returns the memory map that goes with them. Nothing here touches guest memory.
//!
//! References are to the ACPI specification 6.5, the PCI Firmware Specification 3.3 and the CXL
//! specification 3.1. Bytes are made by the `acpi_tables` crate where it is right (AML, RSDP, XSDT, MCFG,
//! FACS, table headers); FADT, MADT, SRAT, SLIT, HMAT and CEDT are written here.

mod cedt;
mod check;
mod dsdt;
mod e820;
mod error;
mod fadt;
mod hmat;
mod machine;
mod madt;
mod placement;
mod slit;
mod srat;
mod table;

pub use dsdt::S5_SLEEP_TYPE;
pub use e820::{ACPI_START, E820Entry, E820Type, EBDA_START, HIGH_RAM_START, e820};
pub use error::Error;
pub use fadt::RESET_VALUE;
pub use machine::{
    Arithmetic, Chipset, Cpu, Ecam, FixedWindow, Locality, Machine, PciRoot, PciRootKind,
    Performance, QosClass, Ram, Range, WindowRestrictions,
};
pub use placement::{Tables, build};
