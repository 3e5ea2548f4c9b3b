//! Random and hostile accesses: no panic, no access outside a BAR (the model would panic on one), and a reset brings back
//! what was there.

use proptest::prelude::*;

use crate::testing::{Model, ModelEffect, Tree, assigned_tree, tree};
use crate::{Bdf, ConfigAddressPort, DevicePortType, Ecam, Function, NodeId, ResetKind};

/// Accesses in each case; with 64 cases, over 10,000 a property.
const ACCESSES: usize = 256;

#[derive(Clone, Debug)]
enum Access {
    Config {
        offset: u16,
        data: Vec<u8>,
    },
    Bar {
        bar: usize,
        offset: u64,
        data: Vec<u8>,
    },
    Reset(ResetKind),
}

fn bytes() -> impl Strategy<Value = Vec<u8>> {
    let lengths = prop_oneof![Just(1usize), Just(2), Just(4), Just(8), 0usize..17];
    let extremes = prop_oneof![Just(0u8), Just(0xff), any::<u8>()];
    lengths.prop_flat_map(move |len| prop::collection::vec(extremes.clone(), len))
}

fn offset() -> impl Strategy<Value = u16> {
    // The header and the capabilities more often than the empty rest.
    prop_oneof![
        0u16..0x100,
        (0u16..0x400).prop_map(|at| at & !3),
        0u16..0x1000,
        any::<u16>()
    ]
}

fn access() -> impl Strategy<Value = Access> {
    prop_oneof![
        8 => (offset(), bytes()).prop_map(|(offset, data)| Access::Config { offset, data }),
        4 => (0usize..6, any::<u64>(), bytes()).prop_map(|(bar, offset, data)| Access::Bar { bar, offset, data }),
        1 => prop_oneof![
            Just(ResetKind::Conventional),
            Just(ResetKind::SecondaryBus),
            Just(ResetKind::FunctionLevel)
        ]
        .prop_map(Access::Reset),
    ]
}

fn accesses() -> impl Strategy<Value = Vec<Access>> {
    prop::collection::vec(access(), ACCESSES)
}

/// Does to a function what a guest can: BAR accesses of any length that lie inside the BAR.
fn perform(model: &mut Model, access: &Access, out: &mut Vec<ModelEffect>) {
    match access {
        Access::Config { offset, data } => {
            model.config_write(*offset, data, out);
            model.config_read(*offset, &mut data.clone());
        }
        Access::Bar { bar, offset, data } => {
            let bars: Vec<_> = model.config.bars().collect();
            let (index, bar) = bars[bar % bars.len()];
            let offset = offset % (bar.size - data.len() as u64 + 1);
            model.bar_write(index, offset, data, out);
            model.bar_read(index, offset, &mut data.clone(), out);
        }
        Access::Reset(kind) => model.reset(*kind, out),
    }
}

/// The bits of a function that must never change, whatever a guest does.
fn identity(model: &Model) -> Vec<u8> {
    [0, 2, 8, 10, 0x0e, 0x34]
        .into_iter()
        .flat_map(|at| model.config.u16(at).to_le_bytes())
        .collect()
}

fn withstands(mut model: Model, accesses: &[Access]) {
    let fresh = model.image();
    let identity_before = identity(&model);
    let mut out = Vec::new();
    for access in accesses {
        perform(&mut model, access, &mut out);
        // An access has a bounded number of effects: one per vector, twice, and a few more.
        assert!(out.len() < 100, "{access:?} had {} effects", out.len());
        out.clear();
    }
    assert_eq!(identity(&model), identity_before);
    model.reset(ResetKind::Conventional, &mut out);
    assert_eq!(model.image(), fresh, "reset restores reset values");
}

#[derive(Clone, Debug)]
enum BusAccess {
    Ecam {
        offset: u64,
        data: Vec<u8>,
    },
    Port {
        address: u32,
        port: u16,
        data: Vec<u8>,
    },
    Memory {
        near: Option<usize>,
        address: u64,
        data: Vec<u8>,
    },
    Io {
        port: u16,
        data: Vec<u8>,
    },
}

/// Configuration offsets that mostly meet one of the tree's functions.
fn ecam_offset() -> impl Strategy<Value = u64> {
    let bus = prop_oneof![Just(0u64), 0x20u64..0x26, any::<u8>().prop_map(u64::from)];
    let devfn = prop_oneof![Just(0u64), Just(8), Just(16), 0u64..256];
    (bus, devfn, offset())
        .prop_map(|(bus, devfn, offset)| bus << 20 | devfn << 12 | u64::from(offset & 0xfff))
}

fn bus_access() -> impl Strategy<Value = BusAccess> {
    prop_oneof![
        6 => (ecam_offset(), bytes()).prop_map(|(offset, data)| BusAccess::Ecam { offset, data }),
        1 => (any::<u32>(), 0xcf6u16..0xd02, bytes())
            .prop_map(|(address, port, data)| BusAccess::Port { address: address | 1 << 31, port, data }),
        4 => (prop::option::of(0usize..8), any::<u64>(), bytes())
            .prop_map(|(near, address, data)| BusAccess::Memory { near, address, data }),
        1 => (any::<u16>(), bytes()).prop_map(|(port, data)| BusAccess::Io { port, data }),
    ]
}

fn perform_on_bus(tree: &mut Tree, port_register: &mut ConfigAddressPort, access: BusAccess) {
    let hierarchy = &mut tree.hierarchy;
    let mut out: Vec<(NodeId, ModelEffect)> = Vec::new();
    match access {
        BusAccess::Ecam { offset, mut data } => {
            if let Some((bdf, register)) = Ecam::decode(offset) {
                hierarchy.config_write(bdf, register, &data, &mut out);
                hierarchy.config_read(bdf, register, &mut data);
            }
        }
        BusAccess::Port {
            address,
            port,
            mut data,
        } => {
            port_register.write(&address.to_le_bytes());
            if let Some((bdf, register)) = port_register.target(port) {
                hierarchy.config_write(bdf, register, &data, &mut out);
                hierarchy.config_read(bdf, register, &mut data);
            }
            port_register.write(&data);
            port_register.read(&mut data);
        }
        BusAccess::Memory {
            near,
            address,
            mut data,
        } => {
            // Around the edges of a BAR, or anywhere.
            let bar = near.and_then(|index| hierarchy.iter().nth(index)?.1.config.bar(0));
            let address = bar.map_or(address, |bar| {
                bar.base
                    .wrapping_add(address % (bar.size + 32))
                    .wrapping_sub(16)
            });
            hierarchy.memory_write(address, &data, &mut out);
            hierarchy.memory_read(address, &mut data, &mut out);
        }
        BusAccess::Io { port, mut data } => {
            hierarchy.io_write(u64::from(port), &data, &mut out);
            hierarchy.io_read(u64::from(port), &mut data, &mut out);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn an_endpoint_withstands_any_access(accesses in accesses()) {
        withstands(Model::endpoint(), &accesses);
    }

    #[test]
    fn a_root_port_withstands_any_access(accesses in accesses()) {
        withstands(Model::root_port(3), &accesses);
    }

    #[test]
    fn a_switch_port_withstands_any_access(accesses in accesses(), upstream in any::<bool>()) {
        let port_type = if upstream { DevicePortType::UpstreamPort } else { DevicePortType::DownstreamPort };
        withstands(Model::port(port_type, 1), &accesses);
    }

    #[test]
    fn a_hierarchy_withstands_any_access(accesses in prop::collection::vec(bus_access(), ACCESSES)) {
        let mut tree = assigned_tree();
        let mut port = ConfigAddressPort::default();
        for access in accesses {
            perform_on_bus(&mut tree, &mut port, access);
        }
        tree.hierarchy.reset(&mut Vec::new());
        let fresh = self::tree();
        for ((_, used), (_, fresh)) in tree.hierarchy.iter().zip(fresh.hierarchy.iter()) {
            assert_eq!(used.image(), fresh.image(), "reset restores reset values");
        }
    }

    #[test]
    fn read_only_bits_never_change(offset in 0u16..0x1000, data in bytes()) {
        let mut model = Model::endpoint();
        let mut ones = Model::endpoint();
        let mut zeros = Model::endpoint();
        let at = offset & !3;
        let mut out: Vec<ModelEffect> = Vec::new();
        ones.config.write(at, &[0xff; 4], &mut out);
        zeros.config.write(at, &[0; 4], &mut out);
        let writable = ones.config.u32(at) ^ zeros.config.u32(at);
        let before = model.config.u32(at);
        model.config.write(offset, &data, &mut out);
        prop_assert_eq!((model.config.u32(at) ^ before) & !writable, 0);
    }

    #[test]
    fn a_bdf_survives_ecam(bits in any::<u16>(), register in 0u16..0x1000) {
        let bdf = Bdf::from_bits(bits);
        let offset = u64::from(bdf.bus()) << 20 | u64::from(bdf.device()) << 15 | u64::from(bdf.function()) << 12;
        prop_assert_eq!(Ecam::decode(offset | u64::from(register)), Some((bdf, register)));
    }
}
