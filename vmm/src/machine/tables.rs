//! What the firmware is told of the machine, and what it puts into guest memory.

use firmware::{
    Chipset, Cpu, Ecam, FixedWindow, Locality, PciRoot, PciRootKind, Performance, QosClass, Ram,
    Range, WindowRestrictions,
};
use pci::RootWindows;
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

use super::build::window_interleave;
use crate::board::POWER_PORT;
use crate::boot::{MemoryKind, MemoryMapEntry};
use crate::config::{Arithmetic, Config, Place, RegionPlan, Type3, Window};
use crate::error::{Error, Result};
use crate::layout::{AddressRange, ECAM_BASE, Layout};
use crate::performance::{HOST_BRIDGE, RAM};

/// Proximity domain of the processors and RAM.
const LOCAL: u32 = 0;
/// I/O ports that the ordinary root complex hands down: all but the configuration ports.
const IO_PORTS: [(u16, u16); 2] = [(0, 0xcf7), (0xd00, 0xffff)];
/// What the kernel adds for the link between the two, at most, in ns.
const LINK_LATENCY: f64 = 10.0;

/// ACPI `_UID` of CXL host bridge `index`; 0 is the ordinary root complex.
pub fn host_bridge_uid(index: usize) -> u32 {
    u32::try_from(index + 1).unwrap_or(u32::MAX)
}

/// Everything that the tables are made from. `windows` are those of the PCI roots, the ordinary one first; `plans` are the
/// regions that the firmware commits.
pub fn describe(
    config: &Config,
    layout: &Layout,
    windows: &[RootWindows],
    plans: &[RegionPlan],
) -> Result<firmware::Machine> {
    let soft_reserved: Vec<Range> = plans
        .iter()
        .filter(|plan| config.regions[plan.region].soft_reserved)
        .map(|plan| Range {
            base: plan.hpa,
            size: plan.size,
        })
        .collect();
    let ports = config.ports();
    let mut pci_roots: Vec<PciRoot> = Vec::new();
    for (index, root) in windows.iter().enumerate() {
        let bridge = index
            .checked_sub(1)
            .and_then(|index| Some((index, layout.host_bridges.get(index)?)));
        let kind = match bridge {
            None => PciRootKind::Pcie {
                io: IO_PORTS.to_vec(),
                config_ports: true,
            },
            Some((_, ranges)) => PciRootKind::Cxl {
                chbcr: ranges.component_registers.start,
                generic_port_domain: LOCAL + host_bridge_uid(index - 1),
            },
        };
        pci_roots.push(PciRoot {
            uid: u32::try_from(index).unwrap_or(u32::MAX),
            first_bus: *root.buses.start(),
            last_bus: *root.buses.end(),
            proximity_domain: LOCAL,
            mmio32: between(&root.memory32),
            mmio64: between(&root.memory64),
            hotplug: bridge.is_some_and(|(bridge, _)| {
                let mut ports = ports.iter();
                ports.any(|(place, port)| place.host_bridge == bridge && port.hot_plug)
            }),
            kind,
        });
    }
    let mut localities = vec![Locality {
        initiator: LOCAL,
        target: LOCAL,
        performance: RAM,
    }];
    localities.extend((0..config.host_bridges.len()).map(|index| Locality {
        initiator: LOCAL,
        target: LOCAL + host_bridge_uid(index),
        performance: HOST_BRIDGE,
    }));
    let mut fixed_windows = Vec::new();
    // Memory that is there from the start has a proximity domain; to the rest of the windows Linux gives one each.
    let mut domains = LOCAL + host_bridge_uid(config.host_bridges.len())..;
    for (window, at) in config.windows.iter().zip(&layout.windows) {
        let mut soft_reserved = soft_reserved.iter();
        let has_some = soft_reserved.any(|range| at.contains(range.base));
        let domain = has_some.then(|| domains.next()).flatten();
        if let Some((target, performance)) = domain.zip(slowest_of(config, window)) {
            localities.push(Locality {
                initiator: LOCAL,
                target,
                performance,
            });
        }
        fixed_windows.push(fixed(config, window, at, domain)?);
    }
    Ok(firmware::Machine {
        cpus: (0..u32::from(config.machine.vcpus))
            .map(|apic_id| Cpu {
                apic_id,
                proximity_domain: LOCAL,
            })
            .collect(),
        ram: layout
            .ram
            .iter()
            .map(|ram| Ram {
                range: range(ram),
                proximity_domain: LOCAL,
            })
            .collect(),
        ecam: Ecam {
            base: ECAM_BASE,
            first_bus: 0,
            last_bus: 0xff,
        },
        pci_roots,
        fixed_windows,
        localities,
        qos_classes: qos_classes(config),
        soft_reserved,
        chipset: Chipset {
            pm1a_event: POWER_PORT,
            ..Chipset::default()
        },
    })
}

fn fixed(
    config: &Config,
    window: &Window,
    at: &AddressRange,
    proximity_domain: Option<u32>,
) -> Result<FixedWindow> {
    let interleave = window_interleave(window)?;
    // An accelerator takes HDM-D as well as HDM-DB. Expanders may come to any bridge while the machine runs.
    let leads_to_accelerator = config
        .accelerators()
        .any(|(place, _)| window.targets.contains(&place.host_bridge));
    Ok(FixedWindow {
        range: range(at),
        targets: window
            .targets
            .iter()
            .map(|bridge| host_bridge_uid(*bridge))
            .collect(),
        granularity: window.granularity,
        arithmetic: match window.arithmetic {
            Arithmetic::Modulo => firmware::Arithmetic::Modulo,
            Arithmetic::Xor => firmware::Arithmetic::Xor(interleave.xor.maps().collect()),
        },
        restrictions: WindowRestrictions {
            device_coherent: leads_to_accelerator,
            host_only_coherent: true,
            back_invalidate: leads_to_accelerator,
            volatile: window.volatile,
            persistent: window.persistent,
            ..WindowRestrictions::default()
        },
        qtg: window.qtg,
        proximity_domain,
    })
}

/// With several throttling groups, each ends at the slowest device that its windows lead to.
fn qos_classes(config: &Config) -> Vec<QosClass> {
    let mut classes: Vec<QosClass> = Vec::new();
    for window in &config.windows {
        let Some(slowest) = slowest_of(config, window) else {
            continue;
        };
        match classes.iter_mut().find(|class| class.qtg == window.qtg) {
            Some(class) => class.slowest = slower(class.slowest, slowest),
            None => classes.push(QosClass {
                qtg: window.qtg,
                slowest,
            }),
        }
    }
    if classes.len() < 2 {
        return Vec::new();
    }
    classes.sort_by(|a, b| a.slowest.read_latency.total_cmp(&b.slowest.read_latency));
    classes
}

/// The slowest device that a window leads to, as seen from the processors; `None` if it leads to none.
fn slowest_of(config: &Config, window: &Window) -> Option<Performance> {
    config
        .devices()
        .filter(|(place, _)| window.targets.contains(&place.host_bridge))
        .map(|(place, device)| from_processors(config, &place, device))
        .reduce(slower)
}

/// What an access to a device costs: host bridge, links, switches and medium.
fn from_processors(config: &Config, place: &Place, device: &Type3) -> Performance {
    let switches = place
        .way()
        .filter_map(|(above, _)| Some(config.switch(&above)?.performance));
    let start = Performance {
        read_latency: HOST_BRIDGE.read_latency + LINK_LATENCY,
        write_latency: HOST_BRIDGE.write_latency + LINK_LATENCY,
        ..HOST_BRIDGE
    };
    let behind_switches = switches.fold(start, |so_far, switch| {
        let link = Performance {
            read_latency: so_far.read_latency + LINK_LATENCY,
            write_latency: so_far.write_latency + LINK_LATENCY,
            ..so_far
        };
        behind(link, &switch)
    });
    behind(behind_switches, &device.performance)
}

/// One part of the way behind another.
fn behind(way: Performance, next: &crate::config::Performance) -> Performance {
    Performance {
        read_latency: way.read_latency + f64::from(next.read_latency),
        write_latency: way.write_latency + f64::from(next.write_latency),
        read_bandwidth: way.read_bandwidth.min(next.read_bandwidth),
        write_bandwidth: way.write_bandwidth.min(next.write_bandwidth),
    }
}

fn slower(a: Performance, b: Performance) -> Performance {
    Performance {
        read_latency: a.read_latency.max(b.read_latency),
        write_latency: a.write_latency.max(b.write_latency),
        read_bandwidth: a.read_bandwidth.min(b.read_bandwidth),
        write_bandwidth: a.write_bandwidth.min(b.write_bandwidth),
    }
}

fn range(range: &AddressRange) -> Range {
    Range {
        base: range.start,
        size: range.size,
    }
}

fn between(range: &std::ops::Range<u64>) -> Option<Range> {
    (!range.is_empty()).then(|| Range {
        base: range.start,
        size: range.end - range.start,
    })
}

/// Writes the tables into guest memory and gives the address of the root pointer.
pub fn install(machine: &firmware::Machine, memory: &GuestMemoryMmap) -> Result<u64> {
    let tables = firmware::build(machine).map_err(|error| Error::Layout(error.to_string()))?;
    for (address, bytes) in &tables.blobs {
        memory
            .write_slice(bytes, GuestAddress(*address))
            .map_err(|error| Error::Memory(format!("cannot place the ACPI tables: {error}")))?;
    }
    Ok(tables.rsdp)
}

/// The memory map that the kernel is started with.
pub fn memory_map(machine: &firmware::Machine) -> Vec<MemoryMapEntry> {
    let kind = |kind| match kind {
        firmware::E820Type::Ram => MemoryKind::Usable,
        firmware::E820Type::Reserved => MemoryKind::Reserved,
        firmware::E820Type::SoftReserved => MemoryKind::SoftReserved,
    };
    firmware::e820(machine)
        .into_iter()
        .map(|entry| MemoryMapEntry {
            range: AddressRange {
                start: entry.range.base,
                size: entry.range.size,
            },
            kind: kind(entry.kind),
        })
        .collect()
}
