//! Random and hostile accesses to every model of a CXL machine: nothing panics, a write reaches the registers behind its own
//! BAR and no others, what is told stays in range, and a reset brings back what was there, byte for byte.

use pci::{ConfigAddressPort, Ecam, Function, ResetKind};
use proptest::collection::vec;
use proptest::prelude::*;

use crate::hierarchy_test::{Tree, assigned, tree};
use crate::testing::{Image, LABELS, Probe, downstream_port, expander, root_port, upstream_port};
use crate::type2_test::with_memory;
use crate::{Device, Effect, HostBridge};

/// Accesses in each case; with 64 cases, over 16,000 a property.
const ACCESSES: usize = 256;
const CASES: u32 = 64;
/// The expander's BAR with counters, vectors and pending bits.
const MSIX_BAR: u8 = 4;

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
    let lengths =
        prop_oneof![4 => Just(4_usize), 4 => Just(8), 1 => Just(1), 1 => Just(2), 1 => 0..17_usize];
    let extremes = prop_oneof![Just(0_u8), Just(0xff), any::<u8>()];
    lengths.prop_flat_map(move |len| vec(extremes.clone(), len))
}

/// The header and the capabilities more often than the empty rest.
fn register() -> impl Strategy<Value = u16> {
    prop_oneof![
        0..0x100_u16,
        (0..0x400_u16).prop_map(|at| at & !3),
        0..0x1000_u16,
        any::<u16>()
    ]
}

/// Where decoders, mailbox, counters, MSI-X vectors and pending bits are, more often than the rest.
fn bar_offset() -> impl Strategy<Value = u64> {
    prop_oneof![
        (0x1100..0x1300_u64).prop_map(|at| at & !3),
        (0x100..0x140_u64).prop_map(|at| at & !3),
        (0..0x100_u64).prop_map(|at| at & !3),
        (0x200..0x240_u64).prop_map(|at| at & !7),
        (0xc00..0xc40_u64).prop_map(|at| at & !7),
        (0x1800..0x1808_u64),
        any::<u64>()
    ]
}

fn access() -> impl Strategy<Value = Access> {
    let kinds = prop_oneof![
        Just(ResetKind::Conventional),
        Just(ResetKind::SecondaryBus),
        Just(ResetKind::FunctionLevel)
    ];
    prop_oneof![
        16 => (register(), bytes()).prop_map(|(offset, data)| Access::Config { offset, data }),
        16 => (0..6_usize, bar_offset(), bytes()).prop_map(|(bar, offset, data)| Access::Bar { bar, offset, data }),
        1 => kinds.prop_map(Access::Reset),
    ]
}

/// The registers that a write to a BAR has no business with. Counters and pending bits are the device's to change at any time.
fn elsewhere<F: Function<Effect = Effect>>(probe: &mut Probe<F>, bar: u8) -> Image {
    let mut image = probe.registers();
    for own in [bar, MSIX_BAR].map(usize::from) {
        image.bars[own].clear();
    }
    image
}

/// Does to a function what a guest can: a BAR access reaches it if all of it lies inside the BAR.
fn perform<F: Function<Effect = Effect>>(probe: &mut Probe<F>, access: &Access) {
    match access {
        Access::Config { offset, data } => {
            probe.set_config(*offset, data);
            probe.function.config_read(*offset, &mut data.clone());
        }
        Access::Bar { bar, offset, data } => {
            let bars: Vec<_> = probe.function.config().bars().collect();
            let Some((index, bar)) = bars.get(bar % bars.len().max(1)).copied() else {
                return;
            };
            let offset = offset % (bar.size - data.len() as u64 + 1);
            let before = elsewhere(probe, index);
            probe.set_bar(index, offset, data);
            assert_eq!(
                elsewhere(probe, index),
                before,
                "{access:x?} changed other registers"
            );
            probe.bar_read(index, offset, &mut data.clone());
        }
        Access::Reset(kind) => probe.reset(*kind),
    }
}

/// An access has a bounded number of effects: one per vector, twice, and a few more; labels are told where they are.
fn check_effects<'a>(effects: impl Iterator<Item = &'a Effect>) {
    let mut count = 0;
    for effect in effects {
        count += 1;
        if let Effect::LabelsWritten { offset, len } = effect {
            assert!(
                u64::from(*offset) + u64::from(*len) <= LABELS as u64,
                "{effect:?}"
            );
        }
    }
    assert!(count < 100, "{count} effects");
}

fn withstands<F: Function<Effect = Effect>>(function: F, accesses: &[Access]) {
    let mut probe = Probe::new(function);
    let fresh = probe.image();
    for access in accesses {
        perform(&mut probe, access);
        check_effects(probe.take_effects().iter());
    }
    // A reset of the link puts back what is behind the BARs; a whole one puts back sticky configuration bits too.
    for kind in [ResetKind::SecondaryBus, ResetKind::Conventional] {
        probe.reset(kind);
        assert_eq!(
            probe.image().bars,
            fresh.bars,
            "{kind:?} restores reset values"
        );
    }
    assert_eq!(probe.image(), fresh, "reset restores reset values");
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
    /// Near a BAR of a function, or anywhere.
    Memory {
        near: Option<(usize, usize)>,
        address: u64,
        data: Vec<u8>,
    },
    Io {
        port: u16,
        data: Vec<u8>,
    },
}

/// Configuration offsets that mostly meet one of the functions.
fn ecam_offset() -> impl Strategy<Value = u64> {
    let bus = prop_oneof![
        Just(0_u64),
        Just(0x20),
        Just(0x21),
        any::<u8>().prop_map(u64::from)
    ];
    let devfn = prop_oneof![4 => Just(0_u64), 1 => 0..256_u64];
    (bus, devfn, register())
        .prop_map(|(bus, devfn, register)| bus << 20 | devfn << 12 | u64::from(register & 0xfff))
}

fn bus_access() -> impl Strategy<Value = BusAccess> {
    let near = prop::option::weighted(0.9, (1..3_usize, 0..3_usize));
    prop_oneof![
        4 => (ecam_offset(), bytes()).prop_map(|(offset, data)| BusAccess::Ecam { offset, data }),
        1 => (any::<u32>(), 0xcf6..0xd02_u16, bytes())
            .prop_map(|(address, port, data)| BusAccess::Port { address: address | 1 << 31, port, data }),
        8 => (near, bar_offset(), bytes())
            .prop_map(|(near, address, data)| BusAccess::Memory { near, address, data }),
        1 => (any::<u16>(), bytes()).prop_map(|(port, data)| BusAccess::Io { port, data }),
    ]
}

fn perform_on_bus(tree: &mut Tree, port_register: &mut ConfigAddressPort, access: BusAccess) {
    let hierarchy = &mut tree.hierarchy;
    let mut effects = Vec::new();
    match access {
        BusAccess::Ecam { offset, mut data } => {
            if let Some((bdf, register)) = Ecam::decode(offset) {
                hierarchy.config_write(bdf, register, &data, &mut effects);
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
                hierarchy.config_write(bdf, register, &data, &mut effects);
                hierarchy.config_read(bdf, register, &mut data);
            }
        }
        BusAccess::Memory {
            near,
            address,
            mut data,
        } => {
            let bar = near.and_then(|(function, bar)| {
                let config = hierarchy.iter().nth(function)?.1.config();
                let (index, _) = config.bars().nth(bar)?;
                config.bar(index)
            });
            // Over both ends too.
            let address = bar.map_or(address, |bar| {
                bar.base
                    .wrapping_add(address % (bar.size + 32))
                    .wrapping_sub(16)
            });
            let target = hierarchy.route_memory(address, data.len() as u64);
            hierarchy.memory_write(address, &data, &mut effects);
            hierarchy.memory_read(address, &mut data, &mut effects);
            if target.is_none() {
                assert!(
                    effects.is_empty() && data.iter().all(|byte| *byte == 0xff),
                    "{address:#x}"
                );
            }
        }
        BusAccess::Io { port, mut data } => {
            hierarchy.io_write(u64::from(port), &data, &mut effects);
            hierarchy.io_read(u64::from(port), &mut data, &mut effects);
            assert!(
                data.iter().all(|byte| *byte == 0xff),
                "no function here has an I/O BAR"
            );
        }
    }
    check_effects(effects.iter().map(|(_, effect)| effect));
}

/// Everything that a guest can see of all functions.
fn images(tree: Tree) -> Vec<Image> {
    let Tree { mut hierarchy, .. } = tree;
    let nodes: Vec<_> = hierarchy.iter().map(|(node, _)| node).collect();
    let mut image = |node| {
        hierarchy
            .get_mut(node)
            .map(|device| Probe::new(Borrowed(device)).image())
    };
    nodes.into_iter().filter_map(&mut image).collect()
}

/// A function that stays in its hierarchy.
struct Borrowed<'a>(&'a mut Device);

impl Function for Borrowed<'_> {
    type Effect = Effect;

    fn config(&self) -> &pci::ConfigSpace {
        self.0.config()
    }

    fn config_write(&mut self, offset: u16, data: &[u8], out: &mut Vec<Effect>) {
        self.0.config_write(offset, data, out);
    }

    fn bar_read(&mut self, bar: u8, offset: u64, data: &mut [u8], out: &mut Vec<Effect>) {
        self.0.bar_read(bar, offset, data, out);
    }

    fn bar_write(&mut self, bar: u8, offset: u64, data: &[u8], out: &mut Vec<Effect>) {
        self.0.bar_write(bar, offset, data, out);
    }

    fn reset(&mut self, kind: ResetKind, out: &mut Vec<Effect>) {
        self.0.reset(kind, out);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: CASES, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn an_expander_withstands_any_access(accesses in vec(access(), ACCESSES)) {
        withstands(expander(), &accesses);
    }

    #[test]
    fn an_accelerator_withstands_any_access(accesses in vec(access(), ACCESSES)) {
        withstands(with_memory(None).function, &accesses);
    }

    #[test]
    fn a_root_port_withstands_any_access(accesses in vec(access(), ACCESSES)) {
        withstands(root_port(), &accesses);
    }

    #[test]
    fn a_switchs_upstream_port_withstands_any_access(accesses in vec(access(), ACCESSES)) {
        withstands(upstream_port(), &accesses);
    }

    #[test]
    fn a_switchs_downstream_port_withstands_any_access(accesses in vec(access(), ACCESSES)) {
        withstands(downstream_port(), &accesses);
    }

    #[test]
    fn a_host_bridge_withstands_any_access(accesses in vec(access(), ACCESSES)) {
        withstands(HostBridge::new(), &accesses);
    }

    #[test]
    fn a_hierarchy_withstands_any_access(accesses in vec(bus_access(), ACCESSES)) {
        let mut used = assigned();
        let mut port = ConfigAddressPort::default();
        for access in accesses {
            perform_on_bus(&mut used, &mut port, access);
        }
        used.hierarchy.reset(&mut Vec::new());
        assert_eq!(images(used), images(tree()), "reset restores reset values");
    }
}
