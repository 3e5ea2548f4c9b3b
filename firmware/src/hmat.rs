//! Heterogeneous Memory Attribute Table (ACPI 6.5 section 5.2.28), revision 2: what an access costs from each
//! initiator to each memory and each generic port.

use std::collections::BTreeSet;

use acpi_tables::sdt::Sdt;

use crate::machine::{Locality, Machine};
use crate::table::{Fields, HEADER_LEN, table};

/// Revision 2: base units are picoseconds and MB/s.
const REVISION: u8 = 2;

/// Structure types.
const MEMORY_PROXIMITY_DOMAIN_ATTRIBUTES: u16 = 0;
const SYSTEM_LOCALITY_LATENCY_AND_BANDWIDTH: u16 = 1;

/// Bytes of a memory proximity domain attributes structure.
const ATTRIBUTES_LEN: u32 = 40;
/// The field "attached initiator" is valid.
const INITIATOR_VALID: u16 = 1 << 0;

/// Bytes of a latency and bandwidth structure before its lists.
const LOCALITY_LEN: u32 = 32;
/// Flags: the structure is about memory, not about a cache before it.
const MEMORY_HIERARCHY: u8 = 0;

/// What the numbers of a structure are (ACPI 6.5 table 5.146), read from a line of the description.
struct DataType {
    code: u8,
    value: fn(&Locality) -> u64,
}

const DATA_TYPES: [DataType; 4] = [
    DataType {
        code: 1,
        value: |line| picoseconds(line.performance.read_latency),
    },
    DataType {
        code: 2,
        value: |line| picoseconds(line.performance.write_latency),
    },
    DataType {
        code: 4,
        value: |line| megabytes_per_second(line.performance.read_bandwidth),
    },
    DataType {
        code: 5,
        value: |line| megabytes_per_second(line.performance.write_bandwidth),
    },
];

/// An entry of 0 gives no information; 0xFFFF would say "unreachable".
const NOT_PROVIDED: u16 = 0;
const MAX_ENTRY: u64 = 0xFFFE;

/// Nanoseconds as HMAT counts them. The machine's check has bounded the value.
pub(crate) fn picoseconds(nanoseconds: f64) -> u64 {
    (nanoseconds * 1000.0).round() as u64
}

/// GB/s as HMAT counts them. The machine's check has bounded the value.
pub(crate) fn megabytes_per_second(gigabytes_per_second: f64) -> u64 {
    (gigabytes_per_second * 1000.0).round() as u64
}

/// The HMAT of the machine; `None` if nothing is known about any access.
pub(crate) fn hmat(machine: &Machine) -> Option<Sdt> {
    if machine.localities.is_empty() {
        return None;
    }
    let mut hmat = table(b"HMAT", REVISION, HEADER_LEN);
    hmat.append_slice(Fields::new().reserved(4).as_slice());

    let initiators: BTreeSet<u32> = machine
        .cpus
        .iter()
        .map(|cpu| cpu.proximity_domain)
        .collect();
    let memories: BTreeSet<u32> = machine.ram.iter().map(|ram| ram.proximity_domain).collect();
    for domain in memories {
        hmat.append_slice(attributes(domain, initiators.contains(&domain)).as_slice());
    }

    let initiators: Vec<u32> = machine
        .localities
        .iter()
        .map(|line| line.initiator)
        .collect::<BTreeSet<_>>()
        .into_iter()
        .collect();
    let targets: Vec<u32> = machine
        .localities
        .iter()
        .map(|line| line.target)
        .collect::<BTreeSet<_>>()
        .into_iter()
        .collect();
    for data_type in &DATA_TYPES {
        hmat.append_slice(
            locality(data_type, &machine.localities, &initiators, &targets).as_slice(),
        );
    }
    Some(hmat)
}

/// Memory Proximity Domain Attributes (ACPI 6.5 section 5.2.28.3). Memory with processors beside it is attached to them.
fn attributes(domain: u32, has_processors: bool) -> Fields {
    let (flags, initiator) = if has_processors {
        (INITIATOR_VALID, domain)
    } else {
        (0, 0)
    };
    Fields::new()
        .u16(MEMORY_PROXIMITY_DOMAIN_ATTRIBUTES)
        .reserved(2)
        .u32(ATTRIBUTES_LEN)
        .u16(flags)
        .reserved(2)
        .u32(initiator)
        .u32(domain)
        .reserved(20)
}

/// System Locality Latency and Bandwidth Information (ACPI 6.5 section 5.2.28.4): one row for each initiator.
fn locality(
    data_type: &DataType,
    lines: &[Locality],
    initiators: &[u32],
    targets: &[u32],
) -> Fields {
    let unit = base_unit(lines.iter().map(data_type.value).max().unwrap_or(0));
    let (rows, columns) = (initiators.len() as u32, targets.len() as u32);
    let length = LOCALITY_LEN + 4 * rows + 4 * columns + 2 * rows * columns;
    let mut fields = Fields::new()
        .u16(SYSTEM_LOCALITY_LATENCY_AND_BANDWIDTH)
        .reserved(2)
        .u32(length)
        .u8(MEMORY_HIERARCHY)
        .u8(data_type.code)
        .reserved(2)
        .u32(rows)
        .u32(columns)
        .reserved(4)
        .u64(unit);
    fields = initiators
        .iter()
        .chain(targets)
        .fold(fields, |fields, &domain| fields.u32(domain));
    for &initiator in initiators {
        for &target in targets {
            let line = lines
                .iter()
                .find(|line| (line.initiator, line.target) == (initiator, target));
            let entry = line.map_or(NOT_PROVIDED, |line| entry((data_type.value)(line), unit));
            fields = fields.u16(entry);
        }
    }
    fields
}

/// The smallest power of ten in which every value fits an entry.
fn base_unit(largest: u64) -> u64 {
    let mut unit = 1;
    while largest.div_ceil(unit) > MAX_ENTRY {
        unit *= 10;
    }
    unit
}

/// Never 0, which would say that nothing is known.
fn entry(value: u64, unit: u64) -> u16 {
    let units = ((value + unit / 2) / unit).clamp(1, MAX_ENTRY);
    units as u16
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_base_unit_is_the_finest_that_holds_the_largest_value() {
        assert_eq!(base_unit(0xFFFE), 1);
        assert_eq!(base_unit(0xFFFF), 10);
        assert_eq!(base_unit(4_000_000_000), 100_000);
    }

    #[test]
    fn an_entry_is_rounded_and_never_says_unknown_or_unreachable() {
        assert_eq!(entry(104, 10), 10);
        assert_eq!(entry(105, 10), 11);
        assert_eq!(entry(1, 1000), 1);
        assert_eq!(entry(655_349, 10), 0xFFFE);
    }
}
