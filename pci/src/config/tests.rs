use super::*;
use crate::spec::bridge;
use crate::testing::{ids, read_u16, read_u32, rule, walk, write, write_u16, write_u32};
use crate::{BarKind, add_power_management};

fn endpoint() -> ConfigSpace {
    ConfigSpace::endpoint(ids(0x0d93, 0x05_02_10))
}

fn with_bars() -> ConfigSpace {
    let mut config = endpoint();
    config.add_bar(0, Bar::memory64(0x1_0000));
    config.add_bar(
        2,
        Bar {
            size: 8 << 30,
            kind: BarKind::Memory64 {
                prefetchable: false,
            },
        },
    );
    config.add_bar(4, Bar::memory32(0x1000));
    config.add_bar(
        5,
        Bar {
            size: 0x20,
            kind: BarKind::Io,
        },
    );
    config
}

#[test]
fn type_0_header_follows_its_access_rules() {
    walk(
        &mut endpoint(),
        0,
        &[
            rule("vendor and device", 0x00, 0x0d93_8086, 0, 0),
            rule("command and status", 0x04, 0, 0x0544, 0xf900_0000),
            rule("revision and class", 0x08, 0x0502_1001, 0, 0),
            rule("cache line, latency, header type, BIST", 0x0c, 0, 0xff, 0),
            rule("BAR 0, not there", 0x10, 0, 0, 0),
            rule("CardBus CIS", 0x28, 0, 0, 0),
            rule("subsystem", 0x2c, 0x1100_1af4, 0, 0),
            rule("expansion ROM, not there", 0x30, 0, 0, 0),
            rule("capabilities pointer", 0x34, 0, 0, 0),
            rule("interrupt line and pin", 0x3c, 0, 0xff, 0),
        ],
    );
}

#[test]
fn type_1_header_follows_its_access_rules() {
    let mut config = ConfigSpace::bridge(ids(0x7075, 0x06_04_00));
    let common = [
        rule("command and status", 0x04, 0, 0x0546, 0xf900_0000),
        rule("header type", 0x0c, 0x0001_0000, 0xff, 0),
        rule("bus numbers", 0x18, 0, 0x00ff_ffff, 0),
        rule("memory window", 0x20, 0, 0xfff0_fff0, 0),
        rule("prefetchable window", 0x24, 0x0001_0001, 0xfff0_fff0, 0),
        rule("prefetchable base, upper", 0x28, 0, u32::MAX, 0),
        rule("prefetchable limit, upper", 0x2c, 0, u32::MAX, 0),
        rule("expansion ROM, not there", 0x38, 0, 0, 0),
        rule("interrupt and bridge control", 0x3c, 0, 0x0043_00ff, 0),
    ];
    walk(&mut config, 0, &common);
    walk(
        &mut config,
        0,
        &[
            rule("no I/O window, secondary status", 0x1c, 0, 0, 0xf900_0000),
            rule("no I/O window, upper", 0x30, 0, 0, 0),
        ],
    );
    config.add_io_window();
    walk(
        &mut config,
        0,
        &[
            rule("command, I/O too", 0x04, 0, 0x0547, 0xf900_0000),
            rule(
                "I/O window, secondary status",
                0x1c,
                0x0101,
                0xf0f0,
                0xf900_0000,
            ),
            rule("I/O window, upper", 0x30, 0, u32::MAX, 0),
        ],
    );
}

#[test]
fn bars_are_sized_by_writing_ones() {
    let mut config = with_bars();
    let size = |config: &mut ConfigSpace, register| {
        write_u32(config, register, u32::MAX);
        read_u32(config, register)
    };
    assert_eq!(size(&mut config, 0x10), 0xffff_000c);
    assert_eq!(size(&mut config, 0x14), 0xffff_ffff);
    assert_eq!(
        size(&mut config, 0x18),
        0x0000_0004,
        "8 GiB: no address bit in the lower half"
    );
    assert_eq!(size(&mut config, 0x1c), 0xffff_fffe);
    assert_eq!(size(&mut config, 0x20), 0xffff_f000);
    assert_eq!(size(&mut config, 0x24), 0xffff_ffe1);
}

#[test]
fn bars_decode_where_they_were_put_and_only_while_enabled() {
    let mut config = with_bars();
    assert!(
        !write_u32(&mut config, 0x10, 0x8765_4321),
        "moving a BAR that is off changes nothing"
    );
    write_u32(&mut config, 0x14, 0x12);
    write_u32(&mut config, 0x24, 0x3f8);
    assert_eq!(config.bar(0), None);
    assert!(write_u16(
        &mut config,
        header::COMMAND,
        command::MEMORY_SPACE
    ));
    assert_eq!(
        config.bar(0),
        Some(BarWindow {
            base: 0x12_8765_0000,
            size: 0x1_0000
        })
    );
    assert_eq!(config.bar(1), None, "the upper half of BAR 0");
    assert_eq!(config.bar(5), None, "I/O is another enable");
    assert!(write_u16(&mut config, header::COMMAND, command::IO_SPACE));
    assert_eq!(config.bar(0), None);
    assert_eq!(
        config.bar(5),
        Some(BarWindow {
            base: 0x3e0,
            size: 0x20
        })
    );
    assert_eq!(config.bar(6), None);
    assert!(
        write_u32(&mut config, 0x24, 0x400),
        "moving a BAR that is on"
    );
    assert!(
        !write_u32(&mut config, 0x24, 0x400),
        "moving it to where it is"
    );
}

#[test]
fn nothing_decodes_in_d3hot() {
    let mut config = with_bars();
    let power = add_power_management(&mut config);
    write_u16(&mut config, header::COMMAND, command::MEMORY_SPACE);
    assert!(config.bar(0).is_some());
    assert!(write_u16(&mut config, power + 4, 3));
    assert_eq!(config.bar(0), None);
    assert!(write_u16(&mut config, power + 4, 0));
    assert!(config.bar(0).is_some());
}

#[test]
fn power_management_follows_its_access_rules() {
    let mut config = endpoint();
    let base = add_power_management(&mut config);
    walk(
        &mut config,
        base,
        &[
            rule("capabilities", 0, 0x0003_0001, 0, 0),
            rule("control", 4, 8, 3, 0),
        ],
    );
    let mut config = ConfigSpace::bridge(ids(0x7075, 0x06_04_00));
    let base = add_power_management(&mut config);
    walk(
        &mut config,
        base,
        &[
            rule("capabilities", 0, 0xc803_0001, 0, 0),
            rule("control", 4, 8, 0x103, 0x8000),
        ],
    );
}

#[test]
#[should_panic(expected = "BAR 1 is taken")]
fn a_bar_cannot_take_the_upper_half_of_another() {
    with_bars().add_bar(1, Bar::memory32(0x1000));
}

#[test]
#[should_panic(expected = "bad size 0x3000")]
fn a_bar_is_a_power_of_two() {
    endpoint().add_bar(0, Bar::memory32(0x3000));
}

#[test]
#[should_panic(expected = "no BAR 1 in this header")]
fn a_bridge_has_room_for_one_64_bit_bar() {
    ConfigSpace::bridge(ids(0x7075, 0x06_04_00)).add_bar(1, Bar::memory64(0x1000));
}

#[test]
fn accesses_stay_within_a_dword() {
    let mut config = endpoint();
    let mut out: Vec<Effect> = Vec::new();
    let good = [
        (0u16, 4),
        (0, 2),
        (1, 2),
        (2, 2),
        (0, 1),
        (3, 1),
        (0xffc, 4),
        (0xfff, 1),
    ];
    let bad = [
        (1u16, 4),
        (3, 2),
        (0, 3),
        (0, 8),
        (0, 0),
        (0xffe, 4),
        (0xfff, 2),
        (0x1000, 1),
        (0xffff, 4),
    ];
    for (offset, len) in good {
        assert!(
            config.write(offset, &vec![0; len], &mut out).is_some(),
            "{offset:#x} {len}"
        );
    }
    for (offset, len) in bad {
        let mut data = vec![0; len];
        config.read(offset, &mut data);
        assert_eq!(data, vec![0xff; len], "{offset:#x} {len}");
        assert!(
            config.write(offset, &data, &mut out).is_none(),
            "{offset:#x} {len}"
        );
    }
    let mut data = [0; 2];
    config.read(1, &mut data);
    assert_eq!(data, [0x80, 0x93]);
    let mut data = [0];
    config.read(3, &mut data);
    assert_eq!(data, [0x0d]);
}

#[test]
fn capabilities_chain_in_order() {
    let mut config = endpoint();
    assert_eq!(
        read_u16(&config, header::STATUS) & status::CAPABILITIES_LIST,
        0
    );
    let first = config.add_capability(0x09, &[0; 7], &[], &[]);
    let second = config.add_capability(0x11, &[0, 0, 1, 2], &[0, 0, 0xf0], &[0, 0, 0x0f]);
    assert_eq!((first, second), (0x40, 0x48));
    assert_ne!(
        read_u16(&config, header::STATUS) & status::CAPABILITIES_LIST,
        0
    );
    assert_eq!(read_u32(&config, header::CAPABILITIES_POINTER), 0x40);
    assert_eq!(read_u32(&config, first), 0x4809);
    assert_eq!(read_u32(&config, second), 0x0201_0011);
    write_u32(&mut config, second, 0xffff_ffff);
    assert_eq!(
        read_u32(&config, second),
        0x02f0_0011,
        "one mask each: RW in 7:4, RW1C in 3:0"
    );
    assert_eq!(config.find_capability(0x11), Some(second));
    assert_eq!(config.find_capability(0x10), None);
    config.reset(ResetKind::Conventional);
    assert_eq!(
        read_u32(&config, header::CAPABILITIES_POINTER),
        0x40,
        "a reset keeps the list"
    );
}

#[test]
fn extended_capabilities_chain_in_order() {
    let mut config = endpoint();
    assert_eq!(read_u32(&config, 0x100), 0, "an empty list");
    let first = config.add_extended_capability(0x0003, 1, &[0; 12], &[], &[]);
    let second = config.add_extended_capability(0x0023, 2, &[0; 9], &[0xff; 9], &[]);
    assert_eq!((first, second), (0x100, 0x10c));
    assert_eq!(read_u32(&config, first), 0x10c1_0003);
    assert_eq!(read_u32(&config, second), 0x0002_0023);
    write_u32(&mut config, second, 0xffff_ffff);
    assert_eq!(
        read_u32(&config, second),
        0x0002_0023,
        "headers are read-only whatever the masks say"
    );
    assert_eq!(config.find_extended_capability(0x0023), Some(second));
}

#[test]
fn resets_reach_as_far_as_retention_allows() {
    let mut config = endpoint();
    let at = config.add_extended_capability(0x000b, 1, &[0; 16], &[0xff; 16], &[]);
    config.retain(at + 4, 4, Retention::Sticky);
    config.retain(at + 8, 4, Retention::FunctionLevel);
    for (kind, kept) in [
        (ResetKind::FunctionLevel, [true, true, false]),
        (ResetKind::SecondaryBus, [true, false, false]),
        (ResetKind::Conventional, [false, false, false]),
    ] {
        for register in [4, 8, 12] {
            write_u32(&mut config, at + register, 0x1234_5678);
        }
        config.reset(kind);
        let have = [4, 8, 12].map(|register| read_u32(&config, at + register) == 0x1234_5678);
        assert_eq!(have, kept, "{kind:?}");
    }
}

#[test]
fn a_locked_register_takes_no_writes() {
    let mut config = endpoint();
    let at = config.add_extended_capability(0x0023, 1, &[0; 8], &[0xff; 8], &[]);
    write_u32(&mut config, at + 4, 1);
    config.set_writable(at + 5, &[0, 0]);
    write_u32(&mut config, at + 4, 0xaabb_ccdd);
    assert_eq!(read_u32(&config, at + 4), 0xaa00_00dd);
}

#[test]
fn a_write_tells_what_it_did() {
    let mut config = endpoint();
    let mut out: Vec<Effect> = Vec::new();
    config.set_u16(header::STATUS, 0x0100);
    let written = config.write(header::COMMAND, &[0x44, 0, 0, 0x01], &mut out);
    let written = written.expect("a whole dword");
    assert!(written.touches(header::COMMAND, 2) && written.touches(header::STATUS, 2));
    assert!(!written.touches(0, 4) && !written.touches(8, 4));
    assert!(written.raised(header::COMMAND, 4) && !written.raised(header::COMMAND, 1));
    assert!(written.cleared(header::STATUS, 0x100));
    assert_eq!(written.data(header::STATUS), 0x0100);
    assert_eq!(written.data(0x0c), 0, "another dword");
    let written = config
        .write(header::STATUS, &[0, 1], &mut out)
        .expect("half a dword");
    assert!(!written.touches(header::COMMAND, 2));
    assert_eq!(
        written.data(header::COMMAND) & 0xffff,
        0,
        "bytes that were not written"
    );
}

#[test]
fn bridge_windows_open_with_memory_decode() {
    let mut config = ConfigSpace::bridge(ids(0x7075, 0x06_04_00));
    config.add_io_window();
    write_u32(&mut config, bridge::MEMORY_BASE, 0xc01f_c000);
    write_u32(&mut config, bridge::PREFETCHABLE_BASE, 0x1000_0001);
    write_u32(&mut config, bridge::PREFETCHABLE_BASE_UPPER, 4);
    write_u32(&mut config, bridge::PREFETCHABLE_LIMIT_UPPER, 4);
    write_u16(&mut config, bridge::IO_BASE, 0x2010);
    assert_eq!(config.bridge_windows(), crate::BridgeWindows::default());
    assert!(write_u16(
        &mut config,
        header::COMMAND,
        command::MEMORY_SPACE | command::IO_SPACE
    ));
    let windows = config.bridge_windows();
    assert_eq!(windows.memory, Some(0xc000_0000..=0xc01f_ffff));
    assert_eq!(windows.prefetchable, Some(0x4_0000_0000..=0x4_100f_ffff));
    assert_eq!(windows.io, Some(0x1000..=0x2fff));
    assert!(
        write_u16(&mut config, bridge::MEMORY_BASE, 0xc020),
        "base above limit"
    );
    assert_eq!(config.bridge_windows().memory, None);
}

#[test]
fn a_bridge_has_buses_below_once_numbered() {
    let mut config = ConfigSpace::bridge(ids(0x7075, 0x06_04_00));
    assert_eq!(config.buses_below(), None);
    write(&mut config, bridge::SECONDARY_BUS, &[0x21]);
    assert_eq!(config.buses_below(), None, "subordinate below secondary");
    write(&mut config, bridge::SUBORDINATE_BUS, &[0x23]);
    assert_eq!(config.buses_below(), Some(0x21..=0x23));
    assert_eq!(endpoint().buses_below(), None);
}

#[test]
fn multi_function_shows_in_the_header_type() {
    let mut config = ConfigSpace::bridge(ids(0x7075, 0x06_04_00));
    config.set_multi_function();
    assert_eq!(config.u8(header::HEADER_TYPE), 0x81);
    assert!(config.is_bridge());
}
