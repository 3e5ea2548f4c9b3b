//! System Locality Information Table (ACPI 6.5 section 5.2.17).

use acpi_tables::sdt::Sdt;

use crate::machine::Machine;
use crate::table::{Fields, HEADER_LEN, table};

const REVISION: u8 = 1;
/// A domain to itself; the specification fixes it.
const LOCAL: u8 = 10;
/// One domain to another. HMAT carries the real numbers.
const REMOTE: u8 = 20;

/// Distances between the domains from 0 to the highest that SRAT names.
pub(crate) fn slit(machine: &Machine) -> Sdt {
    let count = machine
        .proximity_domains()
        .max()
        .map_or(1, |highest| highest + 1);
    let mut fields = Fields::new().u64(u64::from(count));
    for from in 0..count {
        for to in 0..count {
            fields = fields.u8(if from == to { LOCAL } else { REMOTE });
        }
    }
    let mut slit = table(b"SLIT", REVISION, HEADER_LEN);
    slit.append_slice(fields.as_slice());
    slit
}
