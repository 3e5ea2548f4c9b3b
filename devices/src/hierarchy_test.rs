//! Devices in their places: a host bridge function, and a memory expander below a root port, numbered and placed as a
//! firmware does it.

use pci::{BarWindow, Bdf, Function, Hierarchy, NodeId, Pools, PortReserve, spec};

use crate::testing::{Asked, MIB, Probe, expander, root_port};
use crate::{Device, Effect, HostBridge, Type3};

/// A small machine's hierarchy.
pub struct Tree {
    pub hierarchy: Hierarchy<Device>,
    pub port: NodeId,
    pub device: NodeId,
}

/// Where the functions are after [`assigned`].
pub const HOST: Bdf = Bdf::new(0, 0, 0);
pub const PORT: Bdf = Bdf::new(0x20, 0, 0);
pub const DEVICE: Bdf = Bdf::new(0x21, 0, 0);

/// The hierarchy at power-on.
pub fn tree() -> Tree {
    let mut hierarchy = Hierarchy::new();
    let plain = hierarchy.add_root(0..=0x1f).unwrap();
    let cxl = hierarchy.add_root(0x20..=0x4f).unwrap();
    hierarchy
        .add(plain, 0, 0, Device::Host(HostBridge::new()))
        .unwrap();
    let port = hierarchy
        .add(cxl, 0, 0, Device::DownstreamPort(Box::new(root_port())))
        .unwrap();
    let device = hierarchy
        .add(port, 0, 0, Device::Type3(Box::new(expander())))
        .unwrap();
    Tree {
        hierarchy,
        port,
        device,
    }
}

/// The hierarchy as a firmware leaves it.
pub fn assigned() -> Tree {
    let mut tree = tree();
    let pools = Pools {
        io: 0x1000..0x1_0000,
        memory32: 0xc000_0000..0xe000_0000,
        memory64: 0x1_4000_0000..0x11_4000_0000,
    };
    pci::assign(
        &mut tree.hierarchy,
        &pools,
        &PortReserve::default(),
        &mut Vec::new(),
    )
    .unwrap();
    tree
}

impl Tree {
    fn bar(&self, node: NodeId, index: u8) -> Option<BarWindow> {
        self.hierarchy.get(node)?.config().bar(index)
    }

    fn expander(&self) -> &Type3 {
        match self.hierarchy.get(self.device) {
            Some(Device::Type3(device)) => device,
            _ => panic!("the expander is gone"),
        }
    }

    fn config_write(&mut self, bdf: Bdf, register: u16, data: &[u8]) -> Vec<(NodeId, Effect)> {
        let mut effects = Vec::new();
        self.hierarchy
            .config_write(bdf, register, data, &mut effects);
        effects
    }

    fn memory_write(&mut self, address: u64, data: &[u8]) -> Vec<(NodeId, Effect)> {
        let mut effects = Vec::new();
        self.hierarchy.memory_write(address, data, &mut effects);
        effects
    }

    /// Commits decoder 0 of the expander through its BAR.
    fn commit(&mut self) -> Vec<(NodeId, Effect)> {
        let registers = self.bar(self.device, 0).unwrap().base + 0x1200;
        self.memory_write(registers + 0x04, &2_u32.to_le_bytes());
        self.memory_write(registers + 0x10, &(64_u64 << 30).to_le_bytes());
        self.memory_write(registers + 0x18, &(256 * MIB).to_le_bytes());
        self.memory_write(registers + 0x20, &(1_u32 << 9).to_le_bytes())
    }

    fn is_committed(&self) -> bool {
        !self.expander().component().endpoint_decoders().is_empty()
    }
}

/// What one function asked for.
fn asked_by(node: NodeId, effects: Vec<(NodeId, Effect)>) -> Asked {
    Asked::of(
        effects
            .into_iter()
            .filter(|(by, _)| *by == node)
            .map(|(_, effect)| effect),
    )
}

#[test]
fn the_host_bridge_is_an_identity_and_nothing_else() {
    let mut host = Probe::new(HostBridge::new());
    assert_eq!(host.config_u32(spec::header::VENDOR_ID), 0x0008_1b36);
    assert_eq!(
        host.config_u32(spec::header::REVISION_ID) >> 8,
        0x06_0000,
        "host bridge"
    );
    assert_eq!(host.config_u8(spec::header::HEADER_TYPE), 0);
    assert_eq!(
        host.config_u8(spec::header::CAPABILITIES_POINTER),
        0,
        "no capabilities"
    );
    assert_eq!(host.function.config().bars().count(), 0);
    let fresh = host.image();
    host.set_config_u16(spec::header::COMMAND, spec::command::BUS_MASTER);
    assert_ne!(host.image(), fresh);
    host.reset(pci::ResetKind::Conventional);
    assert_eq!(host.image(), fresh);
    assert_eq!(host.asked(), Asked::default());
}

#[test]
fn each_function_answers_at_its_address() {
    let tree = assigned();
    for (bdf, id) in [
        (HOST, 0x0008_1b36),
        (PORT, 0x7075_8086),
        (DEVICE, 0x0d93_8086_u32),
    ] {
        let mut data = [0; 4];
        tree.hierarchy.config_read(bdf, 0, &mut data);
        assert_eq!(u32::from_le_bytes(data), id, "{bdf}");
    }
    let kinds: Vec<_> = tree
        .hierarchy
        .iter()
        .map(|(_, device)| device.kind())
        .collect();
    assert_eq!(kinds, ["host_bridge", "root_port", "type3"]);
}

#[test]
fn a_commit_through_the_bar_is_told_as_the_expanders() {
    let mut tree = assigned();
    let effects = tree.commit();
    assert!(tree.is_committed());
    assert_eq!(
        asked_by(tree.device, effects),
        Asked {
            decoders_changed: true,
            ..Asked::default()
        }
    );
}

#[test]
fn a_secondary_bus_reset_releases_the_decoders_below() {
    let mut tree = assigned();
    tree.commit();
    let reset = spec::bridge::CONTROL_SECONDARY_BUS_RESET.to_le_bytes();
    let effects = tree.config_write(PORT, spec::bridge::BRIDGE_CONTROL, &reset);
    let asked = asked_by(tree.device, effects);
    assert!(asked.decoders_changed && asked.bars_changed, "{asked:?}");
    assert!(!tree.is_committed());
    assert_eq!(
        tree.bar(tree.device, 0),
        None,
        "nothing decodes until it is placed again"
    );
    assert!(
        tree.bar(tree.port, 0).is_some(),
        "the port itself is not reset"
    );
}

#[test]
fn a_disabled_link_releases_the_decoders_below() {
    const LINK_CONTROL: u16 = 0x10;
    const LINK_DISABLE: u16 = 1 << 4;
    let mut tree = assigned();
    tree.commit();
    let express = Probe::new(root_port())
        .capability(spec::capability::PCI_EXPRESS)
        .unwrap();
    let effects = tree.config_write(PORT, express + LINK_CONTROL, &LINK_DISABLE.to_le_bytes());
    assert!(asked_by(tree.device, effects).decoders_changed);
    assert!(!tree.is_committed());
    let mut id = [0; 4];
    tree.hierarchy.config_read(DEVICE, 0, &mut id);
    assert_eq!(id, [0xff; 4], "nobody answers behind a dead link");
}

#[test]
fn an_access_across_the_end_of_a_bar_reaches_nobody() {
    let mut tree = assigned();
    let bar = tree.bar(tree.device, 2).unwrap();
    assert_eq!(
        tree.hierarchy.route_memory(bar.base + bar.size - 4, 8),
        None
    );
    let mut data = [0; 8];
    tree.hierarchy
        .memory_read(bar.base + bar.size - 4, &mut data, &mut Vec::new());
    assert_eq!(data, [0xff; 8]);
}
