//! Puts the tables below 1 MiB, where a kernel that was given no pointer looks too, and ties them together.

use acpi_tables::Aml;
use acpi_tables::facs::FACS;
use acpi_tables::mcfg::MCFG;
use acpi_tables::rsdp::Rsdp;
use acpi_tables::xsdt::XSDT;

use crate::e820::{ACPI_START, HIGH_RAM_START};
use crate::machine::{Ecam, Machine};
use crate::table::{OEM_ID, OEM_REVISION, OEM_TABLE_ID};
use crate::{Error, cedt, check, dsdt, fadt, hmat, madt, slit, srat};

/// FACS asks for 64 bytes (ACPI 6.5 section 5.2.10), the rest for less.
const ALIGNMENT: u64 = 64;

/// The ACPI tables of one machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tables {
    /// Address of the RSDP, for the boot parameters (`acpi_rsdp_addr`).
    pub rsdp: u64,
    /// Each table with the guest-physical address where its bytes belong, ascending, without overlap, in
    /// [`ACPI_START`]`..`[`HIGH_RAM_START`].
    pub blobs: Vec<(u64, Vec<u8>)>,
}

/// Writes the tables of a machine.
///
/// # Errors
/// [`Error`] if the description contradicts itself or cannot be expressed.
pub fn build(machine: &Machine) -> Result<Tables, Error> {
    check::check(machine)?;

    let mut area = Area::default();
    let rsdp = area.reserve(Rsdp::len());
    let facs = area.place(bytes(&FACS::new()))?;
    let dsdt = area.place(dsdt::dsdt(machine))?;
    // Everything is below 1 MiB.
    let fadt = fadt::fadt(&machine.chipset, facs, dsdt as u32);

    let mut tables = vec![
        bytes(&fadt),
        bytes(&madt::madt(&machine.chipset, &machine.cpus)),
        bytes(&mcfg(machine.ecam)),
        bytes(&srat::srat(machine)),
        bytes(&slit::slit(machine)),
    ];
    tables.extend(hmat::hmat(machine).map(|hmat| bytes(&hmat)));
    if machine.pci_roots.iter().any(|root| root.is_cxl()) {
        tables.push(bytes(&cedt::cedt(
            &machine.pci_roots,
            &machine.fixed_windows,
        )));
    }

    let mut xsdt = XSDT::new(OEM_ID, OEM_TABLE_ID, OEM_REVISION);
    for table in tables {
        xsdt.add_entry(area.place(table)?);
    }
    let xsdt = area.place(bytes(&xsdt))?;

    let mut blobs = area.blobs;
    blobs.insert(0, (rsdp, bytes(&Rsdp::new(OEM_ID, xsdt))));
    Ok(Tables { rsdp, blobs })
}

fn mcfg(ecam: Ecam) -> MCFG {
    const SEGMENT: u16 = 0;
    let mut mcfg = MCFG::new(OEM_ID, OEM_TABLE_ID, OEM_REVISION);
    // The base is that of bus 0, whichever bus is the first (PCI Firmware Specification 3.3 table 4-3).
    mcfg.add_ecam(ecam.base, SEGMENT, ecam.first_bus, ecam.last_bus);
    mcfg
}

fn bytes(table: &dyn Aml) -> Vec<u8> {
    let mut bytes = Vec::new();
    table.to_aml_bytes(&mut bytes);
    bytes
}

/// The area below 1 MiB, filled from its start.
#[derive(Default)]
struct Area {
    used: u64,
    blobs: Vec<(u64, Vec<u8>)>,
}

impl Area {
    /// The address of the next `size` bytes.
    fn reserve(&mut self, size: usize) -> u64 {
        let address = ACPI_START + self.used;
        self.used += (size as u64).next_multiple_of(ALIGNMENT);
        address
    }

    fn place(&mut self, bytes: Vec<u8>) -> Result<u64, Error> {
        const LIMIT: u64 = HIGH_RAM_START - ACPI_START;
        let address = self.reserve(bytes.len());
        if self.used > LIMIT {
            return Err(Error::TooLarge {
                size: self.used,
                limit: LIMIT,
            });
        }
        self.blobs.push((address, bytes));
        Ok(address)
    }
}
