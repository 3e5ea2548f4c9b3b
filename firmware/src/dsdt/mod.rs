//! Differentiated System Description Table: the devices that cannot be discovered, in AML.

mod cxl_root;
mod osc;
mod pci;
mod platform;

use acpi_tables::aml::{Name, Package, Scope, ZERO};
use acpi_tables::{Aml, AmlSink};

use crate::machine::Machine;
use crate::table::{HEADER_LEN, table};

/// The value of SLP_TYP in PM1 control that, written with SLP_EN, powers the machine off.
pub const S5_SLEEP_TYPE: u8 = 5;

/// Revision 2: integers have 64 bits.
const REVISION: u8 = 2;

/// AML that has been written already.
struct Raw(Vec<u8>);

impl Raw {
    fn of(term: &dyn Aml) -> Self {
        let mut bytes = Vec::new();
        term.to_aml_bytes(&mut bytes);
        Self(bytes)
    }
}

impl Aml for Raw {
    fn to_aml_bytes(&self, sink: &mut dyn AmlSink) {
        sink.vec(&self.0);
    }
}

/// The terms as references, the way the `aml` module wants them.
fn refs(terms: &[Raw]) -> Vec<&dyn Aml> {
    terms.iter().map(|term| term as &dyn Aml).collect()
}

/// The DSDT of the machine, header included.
pub(crate) fn dsdt(machine: &Machine) -> Vec<u8> {
    let mut devices = platform::devices(machine);
    devices.extend(
        machine
            .pci_roots
            .iter()
            .enumerate()
            .map(|(index, root)| pci::root(index, root)),
    );
    devices.extend(cxl_root::device(machine));

    let system_bus = Raw::of(&Scope::new("\\_SB_".into(), refs(&devices)));
    let soft_off = Raw::of(&Name::new(
        "\\_S5_".into(),
        &Package::new(vec![&S5_SLEEP_TYPE, &S5_SLEEP_TYPE, &ZERO, &ZERO]),
    ));

    let mut dsdt = table(b"DSDT", REVISION, HEADER_LEN);
    dsdt.append_slice(&soft_off.0);
    dsdt.append_slice(&system_bus.0);
    dsdt.as_slice().to_vec()
}
