//! Every table decoded again, field by field, by the offsets in the specifications.

use crate::acpi::{self, Bytes};
use crate::machines::{GIB, MIB, TYPE3, cxl_machine, performance, plain_machine};
use firmware::{
    Arithmetic, Cpu, Error, Locality, Machine, PciRootKind, Range, WindowRestrictions, build,
};

fn table(machine: &Machine, signature: &str) -> Bytes {
    acpi::tables(&build(machine).unwrap())[signature].clone()
}

#[test]
fn every_table_has_its_length_and_checksum() {
    for (signature, table) in acpi::tables(&build(&cxl_machine()).unwrap()) {
        assert_eq!(table.u32(4) as usize, table.0.len(), "{signature}");
        if signature != "FACS" {
            assert!(table.checksum_holds(), "{signature}");
            assert_eq!(table.at(10, 14), b"MEMU  MEMU-VMM", "{signature}");
        }
    }
}

#[test]
fn tables_lie_apart_in_the_reserved_area_below_1_mib() {
    let tables = build(&cxl_machine()).unwrap();
    assert_eq!(tables.rsdp, 0xE_0000);
    let mut free = 0xE_0000;
    for (address, bytes) in &tables.blobs {
        assert!(
            *address >= free && address.is_multiple_of(64),
            "{address:#x}"
        );
        free = address + bytes.len() as u64;
    }
    assert!(free <= MIB);
}

#[test]
fn fadt_describes_fixed_hardware_with_a_power_button_and_a_reset_port() {
    let fadt = table(&plain_machine(), "FACP");
    assert_eq!((fadt.u8(8), fadt.u8(131), fadt.0.len()), (6, 5, 276));
    assert_eq!(fadt.u16(46), 9, "SCI_INT");
    assert_eq!(fadt.u32(48), 0, "SMI_CMD: always in ACPI mode");
    assert_eq!(
        (fadt.u32(56), fadt.u32(64), fadt.u32(76)),
        (0x600, 0x604, 0x608)
    );
    assert_eq!(
        (fadt.u8(88), fadt.u8(89), fadt.u8(90), fadt.u8(91)),
        (4, 2, 0, 4),
        "block lengths"
    );
    assert_eq!((fadt.u32(80), fadt.u8(92)), (0, 0), "no GPE block");
    assert!(fadt.u16(96) > 100 && fadt.u16(98) > 1000, "no C2, no C3");
    // Legacy devices, no 8042, no VGA; the CMOS clock is there.
    assert_eq!(fadt.u16(109), 1 << 0 | 1 << 2);
    let flags = fadt.u32(112);
    assert_eq!(flags & (1 << 4), 0, "the power button is a fixed feature");
    assert_ne!(flags & (1 << 10), 0, "the reset register is supported");
    assert_eq!(flags & (1 << 20), 0, "not hardware-reduced");
    assert_eq!(flags & (1 << 8), 0, "the PM timer has 24 bits");
    assert_eq!(fadt.at(116, 12), gas(8, 1, 0xCF9));
    assert_eq!(fadt.u8(128), firmware::RESET_VALUE);
    assert_eq!(fadt.at(148, 12), gas(32, 3, 0x600));
    assert_eq!(fadt.at(172, 12), gas(16, 2, 0x604));
    assert_eq!(fadt.at(208, 12), gas(32, 3, 0x608));
}

/// A generic address structure in I/O space (ACPI 6.5 section 5.2.3.2).
fn gas(bits: u8, access: u8, port: u64) -> Vec<u8> {
    [&[1, bits, 0, access][..], &port.to_le_bytes()].concat()
}

#[test]
fn facs_is_empty_and_aligned() {
    let tables = build(&plain_machine()).unwrap();
    let (address, _) = tables
        .blobs
        .iter()
        .find(|(_, bytes)| bytes.starts_with(b"FACS"))
        .unwrap();
    assert!(address.is_multiple_of(64));
    assert_eq!(table(&plain_machine(), "FACS").u32(4), 64);
}

#[test]
fn madt_lists_processors_io_apic_overrides_and_nmi() {
    let madt = table(&plain_machine(), "APIC");
    assert_eq!((madt.u32(36), madt.u32(40)), (0xFEE0_0000, 1));
    let structures = madt.short_structures(44);
    let structures: Vec<&[u8]> = structures
        .iter()
        .map(|structure| structure.0.as_slice())
        .collect();
    assert_eq!(
        structures,
        [
            &[0, 8, 0, 0, 1, 0, 0, 0][..],
            &[0, 8, 1, 1, 1, 0, 0, 0],
            &[1, 12, 0, 0, 0x00, 0x00, 0xC0, 0xFE, 0, 0, 0, 0],
            &[2, 10, 0, 0, 2, 0, 0, 0, 0, 0],
            &[2, 10, 0, 9, 9, 0, 0, 0, 0x0D, 0],
            &[4, 6, 0xFF, 0, 0, 1],
        ]
    );
}

#[test]
fn apic_ids_from_255_take_x2apic_structures() {
    let mut machine = plain_machine();
    machine.cpus = [254, 255, 0x1_0000]
        .map(|apic_id| Cpu {
            apic_id,
            proximity_domain: 0,
        })
        .to_vec();
    let madt = table(&machine, "APIC").short_structures(44);
    assert_eq!((madt[0].u8(0), madt[0].u8(2), madt[0].u8(3)), (0, 0, 254));
    for (structure, uid, apic_id) in [(&madt[1], 1, 255), (&madt[2], 2, 0x1_0000)] {
        assert_eq!((structure.u8(0), structure.u8(1)), (9, 16));
        assert_eq!(
            (structure.u32(4), structure.u32(8), structure.u32(12)),
            (apic_id, 1, uid)
        );
    }
    assert!(madt.iter().any(|structure| structure.u8(0) == 10
        && structure.u32(4) == u32::MAX
        && structure.u8(8) == 1));

    let srat = table(&machine, "SRAT").short_structures(48);
    assert_eq!((srat[0].u8(0), srat[0].u8(3)), (0, 254));
    assert_eq!(
        (
            srat[1].u8(0),
            srat[1].u8(1),
            srat[1].u32(8),
            srat[1].u32(12)
        ),
        (2, 24, 255, 1)
    );
}

#[test]
fn mcfg_gives_the_configuration_window() {
    let mcfg = table(&plain_machine(), "MCFG");
    assert_eq!(
        (mcfg.u64(44), mcfg.u16(52), mcfg.u8(54), mcfg.u8(55)),
        (0xE000_0000, 0, 0, 0xFF)
    );
    assert_eq!(mcfg.0.len(), 60);
}

#[test]
fn srat_places_processors_memory_windows_and_generic_ports() {
    let mut machine = cxl_machine();
    machine.cpus[1].proximity_domain = 0x0403_0005;
    let high_domain = build(&machine);
    assert!(matches!(
        high_domain,
        Err(Error::TooMany {
            what: "proximity domains",
            ..
        })
    ));
    machine.cpus[1].proximity_domain = 5;

    let srat = table(&machine, "SRAT");
    assert_eq!(srat.u32(36), 1);
    let of_type = |kind| {
        srat.short_structures(48)
            .into_iter()
            .filter(move |s| s.u8(0) == kind)
            .collect::<Vec<_>>()
    };

    let cpus: Vec<_> = of_type(0)
        .iter()
        .map(|s| (s.u8(1), s.u8(2), s.u8(3), s.u32(4)))
        .collect();
    assert_eq!(
        cpus,
        [(16, 0, 0, 1), (16, 5, 1, 1)],
        "length, domain, APIC id, flags"
    );

    let memory: Vec<_> = of_type(1)
        .iter()
        .map(|s| (s.u8(1), s.u32(2), s.u64(8), s.u64(16), s.u32(28)))
        .collect();
    assert_eq!(
        memory,
        [
            (40, 0, 0, 3 * GIB, 1),
            (40, 0, 4 * GIB, GIB, 1),
            (40, 3, 0x100_4000_0000, GIB, 3),
        ],
        "length, domain, base, size, flags"
    );

    let ports = of_type(6);
    assert_eq!(ports.len(), 2);
    for (port, uid) in ports.iter().zip(1..) {
        assert_eq!(
            (port.u8(1), port.u8(3), port.u32(4)),
            (32, 0, uid),
            "length, handle type, domain"
        );
        assert_eq!(
            (port.at(8, 8), port.u32(16), port.u32(24)),
            (&b"ACPI0016"[..], uid, 1),
            "HID, UID, flags"
        );
    }
}

#[test]
fn slit_is_10_on_the_diagonal_and_symmetric() {
    let slit = table(&cxl_machine(), "SLIT");
    let count = slit.u64(36) as usize;
    assert_eq!(count, 4);
    assert_eq!(slit.0.len(), 44 + count * count);
    for from in 0..count {
        for to in 0..count {
            let distance = slit.u8(44 + from * count + to);
            assert_eq!(distance, if from == to { 10 } else { 20 });
        }
    }
}

#[test]
fn hmat_states_what_every_pair_costs() {
    let hmat = table(&cxl_machine(), "HMAT");
    assert_eq!(hmat.u8(8), 2, "revision: picoseconds and MB/s");
    let structures = hmat.hmat_structures(40);

    let attributes: Vec<_> = structures.iter().filter(|s| s.u16(0) == 0).collect();
    assert_eq!(attributes.len(), 1);
    assert_eq!(
        (
            attributes[0].u32(4),
            attributes[0].u16(8),
            attributes[0].u32(12),
            attributes[0].u32(16)
        ),
        (40, 1, 0, 0)
    );

    let stated: Vec<_> = structures
        .iter()
        .filter(|s| s.u16(0) == 1)
        .map(locality_values)
        .collect();
    assert_eq!(
        stated,
        [
            (1, vec![90_000, 25_500, 26_500]),
            (2, vec![100_000, 35_500, 36_500]),
            (4, vec![100_000, 64_000, 64_000]),
            (5, vec![50_000, 32_000, 32_000]),
        ]
    );
}

/// Data type, and the values in picoseconds or MB/s, of a structure with initiator 0 and targets 0, 1, 2.
fn locality_values(structure: &Bytes) -> (u8, Vec<u64>) {
    assert_eq!(structure.u8(8), 0, "memory, not a cache");
    let (initiators, targets) = (structure.u32(12) as usize, structure.u32(16) as usize);
    assert_eq!((initiators, targets), (1, 3));
    assert_eq!(
        [32, 36, 40, 44].map(|offset| structure.u32(offset)),
        [0, 0, 1, 2]
    );
    let matrix = 32 + 4 * (initiators + targets);
    assert_eq!(structure.0.len(), matrix + 2 * initiators * targets);
    let unit = structure.u64(24);
    let entries = (0..targets).map(|target| u64::from(structure.u16(matrix + 2 * target)) * unit);
    (structure.u8(9), entries.collect())
}

#[test]
fn hmat_matrices_that_are_not_square_keep_their_rows() {
    let mut machine = cxl_machine();
    machine.cpus[1].proximity_domain = 4;
    machine.localities.push(Locality {
        initiator: 4,
        target: 2,
        performance: performance(77.0, 10.0),
    });
    let hmat = table(&machine, "HMAT");
    let structure = hmat
        .hmat_structures(40)
        .into_iter()
        .find(|s| s.u16(0) == 1)
        .unwrap();
    assert_eq!((structure.u32(12), structure.u32(16)), (2, 3));
    let matrix = 32 + 4 * (2 + 3);
    let row = |n: usize| {
        [0, 1, 2].map(|target| {
            u64::from(structure.u16(matrix + 2 * (3 * n + target))) * structure.u64(24)
        })
    };
    assert_eq!(row(0), [90_000, 25_500, 26_500]);
    assert_eq!(row(1), [0, 0, 77_000], "0 says that nothing is known");
}

#[test]
fn a_machine_without_known_costs_has_no_hmat_and_one_without_cxl_no_cedt() {
    let mut machine = plain_machine();
    machine.localities.clear();
    let tables = acpi::tables(&build(&machine).unwrap());
    assert!(!tables.contains_key("HMAT") && !tables.contains_key("CEDT"));
}

#[test]
fn cedt_lists_host_bridges_and_windows() {
    let cedt = table(&cxl_machine(), "CEDT");
    assert_eq!(cedt.u8(8), 1, "revision");
    let structures = cedt.cedt_structures(36);
    assert_eq!(structures.len(), 4);

    for (chbs, index) in structures[..2].iter().zip(0u32..) {
        assert_eq!((chbs.u8(0), chbs.u16(2)), (0, 32));
        assert_eq!(
            (chbs.u32(4), chbs.u32(8)),
            (index + 1, 1),
            "UID, component registers"
        );
        assert_eq!(
            (chbs.u64(16), chbs.u64(24)),
            (0xF000_0000 + u64::from(index) * 0x1_0000, 0x1_0000)
        );
    }

    let plain = &structures[2];
    assert_eq!((plain.u8(0), plain.u16(2)), (1, 40));
    assert_eq!((plain.u64(8), plain.u64(16)), (0x100_0000_0000, GIB));
    assert_eq!(
        (plain.u8(24), plain.u8(25), plain.u32(28)),
        (0, 0, 2),
        "1 way, modulo, 1024 bytes"
    );
    assert_eq!(
        (plain.u16(32), plain.u16(34)),
        (0b0_1110, 3),
        "Type 3, volatile and persistent; QTG"
    );
    assert_eq!(plain.u32(36), 1);

    let interleaved = &structures[3];
    assert_eq!(
        (interleaved.u8(24), interleaved.u32(28)),
        (1, 0),
        "2 ways, 256 bytes"
    );
    assert_eq!(
        (interleaved.u16(32), interleaved.u16(34)),
        (0b1_1110, 7),
        "the same, fixed; QTG"
    );
    assert_eq!(
        (interleaved.u16(2), interleaved.u32(36), interleaved.u32(40)),
        (44, 2, 1)
    );
}

#[test]
fn windows_by_xor_share_the_maps_of_their_granularity() {
    let mut machine = cxl_machine();
    let [one_way, two_ways] = &mut machine.fixed_windows[..] else {
        panic!("two windows")
    };
    one_way.arithmetic = Arithmetic::Xor(vec![]);
    two_ways.arithmetic = Arithmetic::Xor(vec![0x4_4100]);
    let structures = table(&machine, "CEDT").cedt_structures(36);
    assert_eq!(structures.len(), 5);
    assert_eq!([structures[2].u8(25), structures[3].u8(25)], [1, 1], "XOR");
    let cxims = &structures[4];
    assert_eq!((cxims.u8(0), cxims.u16(2)), (2, 16));
    assert_eq!((cxims.u8(6), cxims.u8(7)), (0, 1), "256 bytes, one map");
    assert_eq!(cxims.u64(8), 0x4_4100);
}

#[test]
fn each_restriction_has_its_bit() {
    let bit = |restrictions| {
        let mut machine = cxl_machine();
        machine.fixed_windows.truncate(1);
        machine.fixed_windows[0].restrictions = restrictions;
        table(&machine, "CEDT").cedt_structures(36)[2].u16(32)
    };
    let none = WindowRestrictions::default();
    assert_eq!(
        bit(WindowRestrictions {
            device_coherent: true,
            ..none
        }),
        1 << 0
    );
    assert_eq!(
        bit(WindowRestrictions {
            host_only_coherent: true,
            ..none
        }),
        1 << 1
    );
    assert_eq!(
        bit(WindowRestrictions {
            volatile: true,
            ..none
        }),
        1 << 2
    );
    assert_eq!(
        bit(WindowRestrictions {
            persistent: true,
            ..none
        }),
        1 << 3
    );
    assert_eq!(
        bit(WindowRestrictions {
            fixed: true,
            ..none
        }),
        1 << 4
    );
    assert_eq!(
        bit(WindowRestrictions {
            back_invalidate: true,
            ..none
        }),
        1 << 5
    );
}

#[test]
fn the_largest_machine_fits_below_1_mib() {
    let mut machine = cxl_machine();
    machine.cpus = (0..64)
        .map(|apic_id| Cpu {
            apic_id,
            proximity_domain: 0,
        })
        .collect();
    let bridge = machine.pci_roots[1].clone();
    machine.pci_roots.truncate(1);
    for index in 0..16u32 {
        let mut bridge = bridge.clone();
        bridge.uid = index + 1;
        bridge.first_bus = 0x20 + 8 * index as u8;
        bridge.last_bus = bridge.first_bus + 7;
        bridge.mmio32 = Some(Range {
            base: 0xC800_0000 + u64::from(index) * MIB,
            size: MIB,
        });
        bridge.mmio64 = Some(Range {
            base: 0x41_0000_0000 + u64::from(index) * GIB,
            size: GIB,
        });
        bridge.kind = PciRootKind::Cxl {
            chbcr: 0xF000_0000 + u64::from(index) * 0x1_0000,
            generic_port_domain: index + 1,
        };
        machine.pci_roots.push(bridge);
    }
    machine.fixed_windows.truncate(1);
    machine.fixed_windows[0].targets = (1..=16).collect();
    machine.fixed_windows[0].range.size = 16 * 256 * MIB;
    machine.fixed_windows[0].restrictions = TYPE3;
    build(&machine).unwrap();
}
