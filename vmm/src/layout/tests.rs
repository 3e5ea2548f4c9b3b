use super::*;

fn request() -> LayoutRequest {
    LayoutRequest {
        ram: 2 * GIB,
        root: ApertureRequest {
            mmio32: 64 * MIB,
            mmio64: GIB,
        },
        host_bridges: vec![
            ApertureRequest {
                mmio32: 32 * MIB,
                mmio64: 4 * GIB
            };
            2
        ],
        windows: vec![
            WindowRequest { size: GIB, ways: 2 },
            WindowRequest {
                size: 3 * WINDOW_UNIT,
                ways: 3,
            },
            WindowRequest {
                size: WINDOW_UNIT,
                ways: 1,
            },
        ],
    }
}

fn all_ranges(layout: &Layout) -> Vec<AddressRange> {
    let mut ranges = layout.ram.clone();
    ranges.extend([layout.ecam, layout.root.mmio32, layout.root.mmio64]);
    for bridge in &layout.host_bridges {
        ranges.extend([
            bridge.aperture.mmio32,
            bridge.aperture.mmio64,
            bridge.component_registers,
        ]);
    }
    ranges.extend(&layout.windows);
    ranges
}

#[test]
fn small_ram_lies_below_the_hole() {
    let layout = Layout::new(&request()).unwrap();
    assert_eq!(
        layout.ram,
        [AddressRange {
            start: 0,
            size: 2 * GIB
        }]
    );
}

#[test]
fn large_ram_continues_above_four_gib() {
    let layout = Layout::new(&LayoutRequest {
        ram: 8 * GIB,
        ..request()
    })
    .unwrap();
    assert_eq!(
        layout.ram,
        [
            AddressRange {
                start: 0,
                size: 3 * GIB
            },
            AddressRange {
                start: 4 * GIB,
                size: 5 * GIB
            }
        ]
    );
    assert!(layout.root.mmio64.start >= 9 * GIB);
}

#[test]
fn no_two_ranges_overlap() {
    for ram in [2 * MIB, 3 * GIB, 3 * GIB + 2 * MIB, 64 * GIB] {
        let ranges = all_ranges(&Layout::new(&LayoutRequest { ram, ..request() }).unwrap());
        for (i, a) in ranges.iter().enumerate() {
            for b in &ranges[i + 1..] {
                assert!(
                    !a.overlaps(b),
                    "{a:x?} and {b:x?} with {ram:#x} bytes of RAM"
                );
            }
        }
    }
}

#[test]
fn windows_are_aligned_to_256_mib_times_their_ways() {
    let layout = Layout::new(&request()).unwrap();
    for (window, wanted) in layout.windows.iter().zip(request().windows) {
        assert_eq!(window.start % (WINDOW_UNIT * wanted.ways), 0);
        assert_eq!(window.size, wanted.size);
        assert!(window.start >= layout.host_bridges[1].aperture.mmio64.end());
    }
}

#[test]
fn a_64_bit_window_can_hold_one_bar_of_its_own_size() {
    let layout = Layout::new(&request()).unwrap();
    for bridge in &layout.host_bridges {
        assert_eq!(
            bridge.aperture.mmio64.start % bridge.aperture.mmio64.size,
            0
        );
    }
}

#[test]
fn component_register_blocks_follow_each_other() {
    let layout = Layout::new(&request()).unwrap();
    let starts: Vec<u64> = layout
        .host_bridges
        .iter()
        .map(|b| b.component_registers.start)
        .collect();
    assert_eq!(starts, [0xF000_0000, 0xF001_0000]);
}

#[test]
fn a_window_of_a_broken_size_is_refused() {
    for (size, ways) in [
        (0, 1),
        (128 * MIB, 1),
        (256 * MIB, 2),
        (GIB, 0),
        (u64::MAX, u64::MAX),
    ] {
        let wanted = LayoutRequest {
            windows: vec![WindowRequest { size, ways }],
            ..request()
        };
        assert!(
            matches!(Layout::new(&wanted), Err(Error::Layout(_))),
            "{size:#x} {ways}"
        );
    }
}

#[test]
fn too_much_32_bit_space_is_refused() {
    let wanted = LayoutRequest {
        root: ApertureRequest {
            mmio32: 512 * MIB,
            mmio64: 0,
        },
        ..request()
    };
    assert!(matches!(Layout::new(&wanted), Err(Error::Layout(_))));
}

#[test]
fn sizes_beyond_64_bits_are_refused() {
    let huge = u64::MAX - (2 * MIB - 1);
    for wanted in [
        LayoutRequest {
            ram: huge,
            ..request()
        },
        LayoutRequest {
            root: ApertureRequest {
                mmio32: 0,
                mmio64: u64::MAX,
            },
            ..request()
        },
        LayoutRequest {
            root: ApertureRequest {
                mmio32: u64::MAX,
                mmio64: 0,
            },
            ..request()
        },
    ] {
        assert!(matches!(Layout::new(&wanted), Err(Error::Layout(_))));
    }
}

#[test]
fn the_map_is_checked_against_the_processors_address_width() {
    let layout = Layout::new(&request()).unwrap();
    let bits = layout.physical_bits();
    assert!(layout.end <= 1 << bits && layout.end > 1 << (bits - 1));
    layout.check_physical_bits(bits).unwrap();
    assert!(matches!(
        layout.check_physical_bits(bits - 1),
        Err(Error::Layout(_))
    ));
}
