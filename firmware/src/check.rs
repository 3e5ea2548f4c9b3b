//! Refuses descriptions that cannot be written down truthfully, so that the writers of tables need not.

use std::collections::BTreeSet;

use crate::Error;
use crate::cedt::{CHBCR_SIZE, encoded_bits, encoded_granularity, encoded_ways};
use crate::e820::HIGH_RAM_START;
use crate::hmat::{megabytes_per_second, picoseconds};
use crate::machine::{Arithmetic, FixedWindow, Machine, PciRoot, PciRootKind, Performance, Range};

/// Windows are described in steps of 256 MiB (CXL 3.1 section 9.18.1.3).
const WINDOW_STEP: u64 = 256 << 20;

/// PCI roots of one sort: their ACPI names count with two hexadecimal digits.
const MAX_ROOTS: usize = 256;
/// Processors, for the same reason with three.
const MAX_CPUS: usize = 4096;
/// Proximity domains count from 0; SLIT is their square.
const MAX_DOMAINS: usize = 128;

/// Bytes of the register page of an APIC.
const APIC_SIZE: u64 = 0x1000;

/// Linux multiplies HMAT's entries with their unit in 32 bits.
const MAX_HMAT_VALUE: u64 = u32::MAX as u64;

pub(crate) fn check(machine: &Machine) -> Result<(), Error> {
    at_most("vCPUs", machine.cpus.len(), MAX_CPUS)?;
    at_most("PCI roots", machine.pci_roots.len(), MAX_ROOTS)?;
    if machine.cpus.is_empty() {
        return Err(Error::Missing { what: "vCPU" });
    }
    if !machine
        .ram
        .iter()
        .any(|ram| ram.range.base == 0 && ram.range.size > HIGH_RAM_START)
    {
        return Err(Error::Missing {
            what: "RAM from address 0 to beyond 1 MiB",
        });
    }
    let highest = machine.proximity_domains().max().unwrap_or(0);
    at_most(
        "proximity domains",
        usize::try_from(highest)
            .unwrap_or(usize::MAX)
            .saturating_add(1),
        MAX_DOMAINS,
    )?;

    for ram in &machine.ram {
        range("RAM", ram.range)?;
    }
    for &soft_reserved in &machine.soft_reserved {
        range("soft-reserved memory", soft_reserved)?;
    }
    forwards(
        "ECAM buses",
        machine.ecam.first_bus.into(),
        machine.ecam.last_bus.into(),
    )?;
    range(
        "ECAM",
        Range {
            base: machine.ecam.base,
            size: machine.ecam.range().size,
        },
    )?;

    let mut uids = BTreeSet::new();
    for root in &machine.pci_roots {
        if !uids.insert(root.uid) {
            return Err(Error::DuplicateUid { uid: root.uid });
        }
        pci_root(root)?;
    }
    for (index, window) in machine.fixed_windows.iter().enumerate() {
        fixed_window(index, window, &machine.pci_roots)?;
        let before = machine.fixed_windows.iter().take(index);
        if !xor_maps_fit(window, before) {
            return Err(Error::XorMaps { window: index });
        }
    }
    buses(machine)?;
    addresses(machine)?;
    performances(machine)
}

fn at_most(what: &'static str, count: usize, limit: usize) -> Result<(), Error> {
    if count <= limit {
        Ok(())
    } else {
        Err(Error::TooMany { what, count, limit })
    }
}

fn forwards(what: &'static str, first: u64, last: u64) -> Result<(), Error> {
    if first <= last {
        Ok(())
    } else {
        Err(Error::Backwards { what, first, last })
    }
}

fn range(what: &'static str, Range { base, size }: Range) -> Result<(), Error> {
    match base.checked_add(size) {
        Some(_) if size > 0 => Ok(()),
        _ => Err(Error::BadRange { what, base, size }),
    }
}

fn pci_root(root: &PciRoot) -> Result<(), Error> {
    forwards(
        "buses of a PCI root",
        root.first_bus.into(),
        root.last_bus.into(),
    )?;
    if let Some(window) = root.mmio32 {
        range("32-bit window of a PCI root", window)?;
        if window.last() > u64::from(u32::MAX) {
            return Err(Error::BadRange {
                what: "32-bit window of a PCI root",
                base: window.base,
                size: window.size,
            });
        }
    }
    if let Some(window) = root.mmio64 {
        range("64-bit window of a PCI root", window)?;
    }
    match &root.kind {
        PciRootKind::Pcie { io, .. } => io.iter().try_for_each(|&(first, last)| {
            forwards("I/O ports of a PCI root", first.into(), last.into())
        }),
        PciRootKind::Cxl { chbcr, .. } => range(
            "host bridge component registers",
            Range {
                base: *chbcr,
                size: CHBCR_SIZE,
            },
        ),
    }
}

fn fixed_window(index: usize, described: &FixedWindow, roots: &[PciRoot]) -> Result<(), Error> {
    let Range { base, size } = described.range;
    let ways = described.targets.len();
    if encoded_ways(ways).is_none() {
        return Err(Error::InterleaveWays {
            window: index,
            ways,
        });
    }
    if encoded_granularity(described.granularity).is_none() {
        return Err(Error::InterleaveGranularity {
            window: index,
            granularity: described.granularity,
        });
    }
    range("fixed memory window", described.range)?;
    if !base.is_multiple_of(WINDOW_STEP) || !size.is_multiple_of(WINDOW_STEP * ways as u64) {
        return Err(Error::WindowAlignment {
            window: index,
            base,
            size,
        });
    }
    let bridge = |uid: u32| roots.iter().any(|root| root.is_cxl() && root.uid == uid);
    match described.targets.iter().find(|&&uid| !bridge(uid)) {
        Some(&uid) => Err(Error::UnknownTarget { window: index, uid }),
        None => Ok(()),
    }
}

/// Whether a window has as many maps as address bits that choose, and the same as the windows before of its granularity.
fn xor_maps_fit<'m>(
    window: &FixedWindow,
    mut before: impl Iterator<Item = &'m FixedWindow>,
) -> bool {
    let Arithmetic::Xor(maps) = &window.arithmetic else {
        return true;
    };
    let same = |other: &FixedWindow| match &other.arithmetic {
        Arithmetic::Xor(others) if other.granularity == window.granularity => {
            maps.iter().zip(others).all(|(map, other)| map == other)
        }
        _ => true,
    };
    maps.len() == encoded_bits(window.targets.len()) && before.all(same)
}

/// Every bus belongs to one root at most, and configuration accesses reach it.
fn buses(machine: &Machine) -> Result<(), Error> {
    let mut taken = BTreeSet::new();
    let reached = machine.ecam.first_bus..=machine.ecam.last_bus;
    for root in &machine.pci_roots {
        for bus in root.first_bus..=root.last_bus {
            if !reached.contains(&bus) || !taken.insert(bus) {
                return Err(Error::Bus { uid: root.uid, bus });
            }
        }
    }
    Ok(())
}

/// Nothing lies upon anything else; soft-reserved memory lies within windows.
fn addresses(machine: &Machine) -> Result<(), Error> {
    let apic = |base: u32| Range {
        base: base.into(),
        size: APIC_SIZE,
    };
    let mut taken = vec![
        ("ECAM", machine.ecam.range()),
        ("the I/O APIC", apic(machine.chipset.ioapic)),
        ("the local APICs", apic(machine.chipset.local_apic)),
    ];
    taken.extend(machine.ram.iter().map(|ram| ("RAM", ram.range)));
    taken.extend(
        machine
            .fixed_windows
            .iter()
            .map(|window| ("a fixed memory window", window.range)),
    );
    for root in &machine.pci_roots {
        let windows = root.mmio32.into_iter().chain(root.mmio64);
        taken.extend(windows.map(|range| ("the window of a PCI root", range)));
        if let PciRootKind::Cxl { chbcr, .. } = root.kind {
            taken.push((
                "host bridge component registers",
                Range {
                    base: chbcr,
                    size: CHBCR_SIZE,
                },
            ));
        }
    }
    disjoint(taken)?;

    disjoint(
        machine
            .soft_reserved
            .iter()
            .map(|&range| ("soft-reserved memory", range))
            .collect(),
    )?;
    let held = |range: &Range| {
        machine
            .fixed_windows
            .iter()
            .any(|window| window.range.contains(*range))
    };
    match machine.soft_reserved.iter().find(|range| !held(range)) {
        Some(&Range { base, size }) => Err(Error::OutsideWindows { base, size }),
        None => Ok(()),
    }
}

fn disjoint(mut taken: Vec<(&'static str, Range)>) -> Result<(), Error> {
    taken.sort_by_key(|(_, range)| range.base);
    for pair in taken.windows(2) {
        if let [(first, below), (second, above)] = pair
            && below.end() > above.base
        {
            return Err(Error::Overlap {
                first,
                second,
                address: above.base,
            });
        }
    }
    Ok(())
}

fn performances(machine: &Machine) -> Result<(), Error> {
    let mut pairs = BTreeSet::new();
    for line in &machine.localities {
        if !pairs.insert((line.initiator, line.target)) {
            return Err(Error::DuplicateLocality {
                initiator: line.initiator,
                target: line.target,
            });
        }
        performance(&line.performance).map_err(|(what, value)| Error::Performance {
            initiator: line.initiator,
            target: line.target,
            what,
            value,
        })?;
    }
    for class in &machine.qos_classes {
        performance(&class.slowest).map_err(|(what, value)| Error::QosClass {
            qtg: class.qtg,
            what,
            value,
        })?;
    }
    Ok(())
}

/// Every number is positive and can be stated in 32 bits of picoseconds or MB/s.
fn performance(stated: &Performance) -> Result<(), (&'static str, String)> {
    let latency = |ns: f64| (picoseconds(ns), format!("{ns} ns"));
    let bandwidth = |gb_s: f64| (megabytes_per_second(gb_s), format!("{gb_s} GB/s"));
    let numbers = [
        ("read latency", latency(stated.read_latency)),
        ("write latency", latency(stated.write_latency)),
        ("read bandwidth", bandwidth(stated.read_bandwidth)),
        ("write bandwidth", bandwidth(stated.write_bandwidth)),
    ];
    for (what, (value, shown)) in numbers {
        if !(1..=MAX_HMAT_VALUE).contains(&value) {
            return Err((what, shown));
        }
    }
    Ok(())
}
