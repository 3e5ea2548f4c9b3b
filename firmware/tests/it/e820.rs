//! The memory map.

use crate::machines::{GIB, MIB, cxl_machine, plain_machine};
use firmware::{E820Type, Range, e820};

#[test]
fn the_map_is_that_of_a_pc_with_a_hole_below_4_gib() {
    let map: Vec<_> = e820(&plain_machine())
        .iter()
        .map(|entry| (entry.range.base, entry.range.size, entry.kind as u32))
        .collect();
    assert_eq!(
        map,
        [
            (0, 0x9_FC00, 1),
            (0x9_FC00, 0x400, 2),
            (0xE_0000, 0x2_0000, 2),
            (MIB, 3 * GIB - MIB, 1),
            (0xE000_0000, 256 * MIB, 2),
            (4 * GIB, GIB, 1),
        ]
    );
}

#[test]
fn committed_regions_are_soft_reserved_and_windows_are_not_listed() {
    let map = e820(&cxl_machine());
    let last = map.last().unwrap();
    assert_eq!(
        last.range,
        Range {
            base: 0x100_0000_0000,
            size: 512 * MIB
        }
    );
    assert_eq!(
        (last.kind, last.kind as u32),
        (E820Type::SoftReserved, 0xEFFF_FFFF)
    );
    assert!(map.iter().all(|entry| entry.range.base != 0x100_4000_0000));
}

#[test]
fn ranges_ascend_and_do_not_overlap() {
    let mut machine = cxl_machine();
    machine.ram.reverse();
    let map = e820(&machine);
    assert!(
        map.windows(2)
            .all(|pair| pair[0].range.base + pair[0].range.size <= pair[1].range.base)
    );
}
