//! Machines to make tables of.

use firmware::{
    Arithmetic, Chipset, Cpu, Ecam, FixedWindow, Locality, Machine, PciRoot, PciRootKind,
    Performance, QosClass, Ram, Range, WindowRestrictions,
};

pub const MIB: u64 = 1 << 20;
pub const GIB: u64 = 1 << 30;

pub const TYPE3: WindowRestrictions = WindowRestrictions {
    device_coherent: false,
    host_only_coherent: true,
    volatile: true,
    persistent: true,
    fixed: false,
    back_invalidate: false,
};

pub fn performance(latency: f64, bandwidth: f64) -> Performance {
    Performance {
        read_latency: latency,
        write_latency: latency + 10.0,
        read_bandwidth: bandwidth,
        write_bandwidth: bandwidth / 2.0,
    }
}

/// Two processors, 4 GiB around the 32-bit hole, an ordinary root complex, no CXL.
pub fn plain_machine() -> Machine {
    Machine {
        cpus: (0..2)
            .map(|apic_id| Cpu {
                apic_id,
                proximity_domain: 0,
            })
            .collect(),
        ram: [(0, 3 * GIB), (4 * GIB, GIB)]
            .map(|(base, size)| Ram {
                range: Range { base, size },
                proximity_domain: 0,
            })
            .to_vec(),
        ecam: Ecam {
            base: 0xE000_0000,
            first_bus: 0,
            last_bus: 0xFF,
        },
        pci_roots: vec![PciRoot {
            uid: 0,
            first_bus: 0,
            last_bus: 0x1F,
            proximity_domain: 0,
            mmio32: Some(Range {
                base: 0xC000_0000,
                size: 128 * MIB,
            }),
            mmio64: Some(Range {
                base: 0x40_0000_0000,
                size: 4 * GIB,
            }),
            hotplug: false,
            kind: PciRootKind::Pcie {
                io: vec![(0, 0xCF7), (0xD00, 0xFFFF)],
                config_ports: true,
            },
        }],
        fixed_windows: vec![],
        localities: vec![Locality {
            initiator: 0,
            target: 0,
            performance: performance(90.0, 100.0),
        }],
        qos_classes: vec![],
        soft_reserved: vec![],
        chipset: Chipset::default(),
    }
}

/// The same with two CXL host bridges, a window on the first and one interleaved over both.
pub fn cxl_machine() -> Machine {
    let mut machine = plain_machine();
    for index in 0..2u8 {
        machine.pci_roots.push(PciRoot {
            uid: u32::from(index) + 1,
            first_bus: 0x20 + index * 0x30,
            last_bus: 0x4F + index * 0x30,
            proximity_domain: 0,
            mmio32: Some(Range {
                base: 0xC800_0000 + u64::from(index) * 64 * MIB,
                size: 64 * MIB,
            }),
            mmio64: Some(Range {
                base: 0x41_0000_0000 + u64::from(index) * GIB,
                size: GIB,
            }),
            hotplug: true,
            kind: PciRootKind::Cxl {
                chbcr: 0xF000_0000 + u64::from(index) * 0x1_0000,
                generic_port_domain: u32::from(index) + 1,
            },
        });
        machine.localities.push(Locality {
            initiator: 0,
            target: u32::from(index) + 1,
            performance: performance(25.5 + f64::from(index), 64.0),
        });
    }
    machine.fixed_windows = vec![
        FixedWindow {
            range: Range {
                base: 0x100_0000_0000,
                size: GIB,
            },
            targets: vec![1],
            granularity: 1024,
            arithmetic: Arithmetic::Modulo,
            restrictions: TYPE3,
            qtg: 3,
            proximity_domain: None,
        },
        FixedWindow {
            range: Range {
                base: 0x100_4000_0000,
                size: GIB,
            },
            targets: vec![2, 1],
            granularity: 256,
            arithmetic: Arithmetic::Modulo,
            restrictions: WindowRestrictions {
                fixed: true,
                ..TYPE3
            },
            qtg: 7,
            proximity_domain: Some(3),
        },
    ];
    machine.qos_classes = vec![
        QosClass {
            qtg: 3,
            slowest: performance(200.0, 10.0),
        },
        QosClass {
            qtg: 7,
            slowest: performance(500.0, 1.0),
        },
    ];
    machine.soft_reserved = vec![Range {
        base: 0x100_0000_0000,
        size: 512 * MIB,
    }];
    machine
}
