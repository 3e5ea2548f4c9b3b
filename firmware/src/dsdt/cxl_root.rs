//! ACPI0017, the root of all CXL (CXL 3.1 section 9.18.3), and its `_DSM` that tells which QoS throttling groups suit
//! a memory.

use std::collections::BTreeSet;

use acpi_tables::aml::{
    Arg, BufferData, DeRefOf, Device, Equal, GreaterEqual, If, Index, LessEqual, LessThan, Local,
    Method, Multiply, Name, NotEqual, PackageBuilder, Return, Store, Uuid, ZERO,
};

use super::{Raw, refs};
use crate::hmat::{megabytes_per_second, picoseconds};
use crate::machine::{Machine, Performance};

const DSM_UUID: &str = "F365F9A6-A7DE-4071-A66A-B40C0B4F8E52";
const DSM_REVISION: u8 = 1;
/// Functions: which there are, and retrieve QTG ids (CXL 3.1 section 9.18.3.1).
const DSM_QUERY: u8 = 0;
const DSM_RETRIEVE_QTG: u8 = 1;
const DSM_FUNCTIONS: u8 = 1 << DSM_QUERY | 1 << DSM_RETRIEVE_QTG;

/// Present and working, not shown to people (ACPI 6.5 section 6.3.7: bits 0, 1 and 3).
const STATUS: u8 = 0x0B;

/// The specification asks with picoseconds; Linux passes on its access coordinates, which are
/// nanoseconds. No CXL memory answers within 10 ns and none takes 10 µs, so a number below this is
/// nanoseconds.
const LOWEST_PICOSECONDS: u16 = 10_000;
const PICOSECONDS_PER_NANOSECOND: u16 = 1000;

/// The device, if the machine has CXL.
pub(super) fn device(machine: &Machine) -> Option<Raw> {
    if !machine.pci_roots.iter().any(|root| root.is_cxl()) {
        return None;
    }
    let mut children = vec![
        Raw::of(&Name::new("_HID".into(), &"ACPI0017")),
        Raw::of(&Name::new("_UID".into(), &0u8)),
        Raw::of(&Name::new("_STA".into(), &STATUS)),
    ];
    children.extend(recommendations(machine).map(|code| dsm(&code)));
    Some(Raw::of(&Device::new("CXLM".into(), refs(&children))))
}

/// `_DSM`, with the code that answers the retrieval of QTG ids.
fn dsm(retrieve: &[Raw]) -> Raw {
    let nothing = BufferData::new(vec![0]);
    let functions = BufferData::new(vec![DSM_FUNCTIONS]);
    Raw::of(&Method::new(
        "_DSM".into(),
        4,
        false,
        vec![
            &If::new(
                &NotEqual::new(&Arg(0), &Uuid::new(DSM_UUID)),
                vec![&Return::new(&nothing)],
            ),
            &If::new(
                &NotEqual::new(&Arg(1), &DSM_REVISION),
                vec![&Return::new(&nothing)],
            ),
            &If::new(
                &Equal::new(&Arg(2), &DSM_QUERY),
                vec![&Return::new(&functions)],
            ),
            &If::new(&Equal::new(&Arg(2), &DSM_RETRIEVE_QTG), refs(retrieve)),
            &Return::new(&nothing),
        ],
    ))
}

/// AML that returns the groups for the access described in Arg3, the best first; `None` if there are no groups.
fn recommendations(machine: &Machine) -> Option<Vec<Raw>> {
    if machine.qos_classes.is_empty() {
        let groups: BTreeSet<u16> = machine
            .fixed_windows
            .iter()
            .map(|window| window.qtg)
            .collect();
        let groups: Vec<u16> = groups.into_iter().collect();
        let highest = *groups.last()?;
        return Some(vec![reply(highest, &groups)]);
    }

    let groups: Vec<u16> = machine.qos_classes.iter().map(|class| class.qtg).collect();
    let highest = groups.iter().copied().max()?;
    // The operating system passes read latency, write latency, read bandwidth, write bandwidth.
    let mut code: Vec<Raw> = (0..4u8)
        .map(|n| {
            Raw::of(&Store::new(
                &Local(n),
                &DeRefOf::new(&Index::new(&ZERO, &Arg(3), &n)),
            ))
        })
        .collect();
    code.extend([0, 1].map(|latency| {
        Raw::of(&If::new(
            &LessThan::new(&Local(latency), &LOWEST_PICOSECONDS),
            vec![&Multiply::new(
                &Local(latency),
                &Local(latency),
                &PICOSECONDS_PER_NANOSECOND,
            )],
        ))
    }));
    for (first, class) in machine.qos_classes.iter().enumerate() {
        code.push(if_within(
            &class.slowest,
            reply(highest, &preferring(first, &groups)),
        ));
    }
    // Slower than every class: the last is the least wrong.
    code.push(reply(highest, &preferring(groups.len() - 1, &groups)));
    Some(code)
}

/// Runs `then` if Local0 to Local3 are within the bounds.
fn if_within(slowest: &Performance, then: Raw) -> Raw {
    let read_latency = picoseconds(slowest.read_latency);
    let write_latency = picoseconds(slowest.write_latency);
    let read_bandwidth = megabytes_per_second(slowest.read_bandwidth);
    let write_bandwidth = megabytes_per_second(slowest.write_bandwidth);
    let then = Raw::of(&If::new(
        &GreaterEqual::new(&Local(3), &write_bandwidth),
        vec![&then],
    ));
    let then = Raw::of(&If::new(
        &GreaterEqual::new(&Local(2), &read_bandwidth),
        vec![&then],
    ));
    let then = Raw::of(&If::new(
        &LessEqual::new(&Local(1), &write_latency),
        vec![&then],
    ));
    Raw::of(&If::new(
        &LessEqual::new(&Local(0), &read_latency),
        vec![&then],
    ))
}

/// The groups with the one at `first` in front.
fn preferring(first: usize, groups: &[u16]) -> Vec<u16> {
    let others = groups
        .iter()
        .enumerate()
        .filter(|&(index, _)| index != first)
        .map(|(_, &group)| group);
    groups
        .get(first)
        .copied()
        .into_iter()
        .chain(others)
        .collect()
}

/// Returns the highest group there is and the package of those recommended.
fn reply(highest: u16, groups: &[u16]) -> Raw {
    let mut recommended = PackageBuilder::new();
    groups
        .iter()
        .for_each(|group| recommended.add_element(group));
    let mut answer = PackageBuilder::new();
    answer.add_element(&highest);
    answer.add_element(&recommended);
    Raw::of(&Return::new(&answer))
}
