//! PCI roots: the ordinary root complex and the CXL host bridges.

use acpi_tables::aml::{
    AddressSpace, AddressSpaceCacheable, Device, EISAName, IO, Name, Package, ResourceTemplate,
};

use super::osc::{self, Grants};
use super::{Raw, refs};
use crate::machine::{PciRoot, PciRootKind, Range};

/// All buses are in segment 0.
const SEGMENT: u8 = 0;

/// Address and data of the configuration mechanism (PCI 3.0 section 3.2.2.3.2).
const CONFIG_PORTS: u16 = 0xCF8;
const CONFIG_PORTS_LEN: u8 = 8;

/// The root in the `index`th place; its ACPI name is made from that.
pub(super) fn root(index: usize, root: &PciRoot) -> Raw {
    let pcie = EISAName::new("PNP0A08");
    let pci = EISAName::new("PNP0A03");
    let (name, mut children) = if root.is_cxl() {
        // CXL 3.1 section 9.18.2. Linux knows PCI roots by PNP0A03 and tells CXL ones by their `_HID`.
        let ids = vec![
            Raw::of(&Name::new("_HID".into(), &"ACPI0016")),
            Raw::of(&Name::new("_CID".into(), &Package::new(vec![&pcie, &pci]))),
        ];
        (format!("CX{index:02X}"), ids)
    } else {
        let ids = vec![
            Raw::of(&Name::new("_HID".into(), &pcie)),
            Raw::of(&Name::new("_CID".into(), &pci)),
        ];
        (format!("PC{index:02X}"), ids)
    };
    children.extend([
        Raw::of(&Name::new("_UID".into(), &root.uid)),
        Raw::of(&Name::new("_SEG".into(), &SEGMENT)),
        Raw::of(&Name::new("_BBN".into(), &root.first_bus)),
        Raw::of(&Name::new("_PXM".into(), &root.proximity_domain)),
        // Accesses of devices are coherent.
        Raw::of(&Name::new("_CCA".into(), &1u8)),
        Raw::of(&Name::new(
            "_CRS".into(),
            &ResourceTemplate::new(refs(&resources(root))),
        )),
        osc::method(Grants {
            hotplug: root.hotplug,
            cxl: root.is_cxl(),
        }),
    ]);
    Raw::of(&Device::new(name.as_str().into(), refs(&children)))
}

/// What the root hands down to the devices below it.
fn resources(root: &PciRoot) -> Vec<Raw> {
    let buses = AddressSpace::new_bus_number(u16::from(root.first_bus), u16::from(root.last_bus));
    let mut resources = vec![Raw::of(&buses)];
    if let PciRootKind::Pcie { io, config_ports } = &root.kind {
        if *config_ports {
            resources.push(Raw::of(&IO::new(
                CONFIG_PORTS,
                CONFIG_PORTS,
                1,
                CONFIG_PORTS_LEN,
            )));
        }
        // 32-bit descriptors: a range of all 65536 ports has a length that 16 bits cannot hold.
        resources.extend(io.iter().map(|&(first, last)| {
            Raw::of(&AddressSpace::new_io(
                u32::from(first),
                u32::from(last),
                None,
            ))
        }));
    }
    resources.extend(root.mmio32.and_then(window32));
    resources.extend(root.mmio64.map(window64));
    resources
}

fn window32(range: Range) -> Option<Raw> {
    let (first, last) = (
        u32::try_from(range.base).ok()?,
        u32::try_from(range.last()).ok()?,
    );
    Some(Raw::of(&AddressSpace::new_memory(
        AddressSpaceCacheable::NotCacheable,
        true,
        first,
        last,
        None,
    )))
}

fn window64(range: Range) -> Raw {
    let (first, last) = (range.base, range.last());
    Raw::of(&AddressSpace::new_memory(
        AddressSpaceCacheable::PreFetchable,
        true,
        first,
        last,
        None,
    ))
}
