use proptest::prelude::*;

use super::*;
use crate::testing::{Model, Tree, ids, pools, tree};
use crate::{Bar, BarKind, Bdf, ConfigSpace, DevicePortType, Space};

/// Runs the assignment without reserve.
fn run(hierarchy: &mut Hierarchy<Model>) -> Result<Vec<RootWindows>, Error> {
    assign(
        hierarchy,
        &pools(),
        &PortReserve::default(),
        &mut Vec::new(),
    )
}

/// An endpoint with these BARs and nothing else.
fn endpoint(bars: &[(u8, u64, BarKind)]) -> Model {
    let mut model = Model::endpoint();
    model.config = ConfigSpace::endpoint(ids(1, 0x02_00_00));
    for &(index, size, kind) in bars {
        model.config.add_bar(index, Bar { size, kind });
    }
    model
}

const MEMORY64: BarKind = BarKind::Memory64 { prefetchable: true };
const PLAIN64: BarKind = BarKind::Memory64 {
    prefetchable: false,
};
const MEMORY32: BarKind = BarKind::Memory32 {
    prefetchable: false,
};

/// Every BAR decodes inside its root's windows, is aligned, is reached from the root, and overlaps no other.
fn check(hierarchy: &Hierarchy<Model>, windows: &[RootWindows]) {
    let mut taken: Vec<(Space, Range<u64>)> = Vec::new();
    for (node, model) in hierarchy.iter() {
        let bus = hierarchy.bdf(node).expect("numbered").bus();
        let root = windows
            .iter()
            .find(|root| root.buses.contains(&bus))
            .expect("a root");
        for (index, bar) in model.config.bars() {
            let window = model.config.bar(index).expect("decode is on");
            let range = window.base..window.base + window.size;
            assert_eq!(window.base % window.size, 0);
            let inside = |outer: &Range<u64>| outer.start <= range.start && range.end <= outer.end;
            match bar.space() {
                Space::Io => assert!(inside(&root.io)),
                Space::Memory => assert!(inside(&root.memory32) || inside(&root.memory64)),
            }
            assert!(bar.is_64_bit() || range.end <= 1 << 32);
            let target = match bar.space() {
                Space::Memory => hierarchy.route_memory(range.start, 4),
                Space::Io => hierarchy.route_io(range.start, 4),
            };
            assert_eq!(
                target.map(|target| (target.node, target.bar)),
                Some((node, index))
            );
            for (space, other) in &taken {
                let apart = range.end <= other.start || other.end <= range.start;
                assert!(
                    *space != bar.space() || apart,
                    "{range:x?} overlaps {other:x?}"
                );
            }
            taken.push((bar.space(), range));
        }
    }
}

#[test]
fn buses_are_numbered_depth_first() {
    let Tree {
        mut hierarchy,
        on_root,
        port0,
        below_port0,
        port1,
        upstream,
        downstream,
        below_switch,
    } = tree();
    run(&mut hierarchy).unwrap();
    let bdf = |node| hierarchy.bdf(node).map(|bdf| bdf.to_string());
    let buses = |node| {
        hierarchy
            .get(node)
            .and_then(|model: &Model| model.config.buses_below())
    };
    assert_eq!(bdf(on_root).as_deref(), Some("00:01.0"));
    assert_eq!(bdf(below_port0).as_deref(), Some("21:00.0"));
    assert_eq!(bdf(upstream).as_deref(), Some("22:00.0"));
    assert_eq!(bdf(downstream).as_deref(), Some("23:00.0"));
    assert_eq!(bdf(below_switch).as_deref(), Some("24:00.0"));
    assert_eq!(buses(port0), Some(0x21..=0x21));
    assert_eq!(buses(port1), Some(0x22..=0x25));
    assert_eq!(buses(upstream), Some(0x23..=0x25));
    let primary = |node| {
        hierarchy
            .get(node)
            .map(|model: &Model| model.config.u8(bridge::PRIMARY_BUS))
    };
    assert_eq!(
        (primary(port1), primary(downstream)),
        (Some(0x20), Some(0x23))
    );
}

#[test]
fn everything_is_placed_inside_what_is_above_it() {
    let Tree { mut hierarchy, .. } = tree();
    let windows = run(&mut hierarchy).unwrap();
    check(&hierarchy, &windows);
    assert_eq!(
        windows[0].memory32,
        0xc000_0000..0xc000_0000,
        "64-bit BARs on a root bus go above 4 GiB"
    );
    assert!(windows[1].memory32.start >= windows[0].memory32.end);
    assert!(windows[1].memory64.start >= windows[0].memory64.end);
}

#[test]
fn a_64_bit_bar_that_is_not_prefetchable_goes_below_4_gib_behind_a_bridge() {
    let mut hierarchy = Hierarchy::new();
    let root = hierarchy.add_root(0..=0xff).unwrap();
    let port = hierarchy.add(root, 0, 0, Model::root_port(0)).unwrap();
    let plain = &[(0, 0x1_0000, PLAIN64)];
    let behind = hierarchy.add(port, 0, 0, endpoint(plain)).unwrap();
    let on_root = hierarchy.add(root, 1, 0, endpoint(plain)).unwrap();
    let windows = run(&mut hierarchy).unwrap();
    check(&hierarchy, &windows);
    let base = |node| {
        hierarchy
            .get(node)
            .and_then(|model: &Model| model.config.bar(0))
            .map(|bar| bar.base)
    };
    assert!(base(behind) < Some(1 << 32));
    assert!(base(on_root) > Some(1 << 32));
}

#[test]
fn large_and_small_bars_pack_without_holes() {
    let mut hierarchy = Hierarchy::new();
    let root = hierarchy.add_root(0..=0xff).unwrap();
    let port = hierarchy.add(root, 0, 0, Model::root_port(0)).unwrap();
    let bars = [
        (0, 0x1000, MEMORY64),
        (2, 4 << 30, MEMORY64),
        (4, 1 << 20, MEMORY32),
        (5, 1 << 16, MEMORY32),
    ];
    hierarchy.add(port, 0, 0, endpoint(&bars)).unwrap();
    let windows = run(&mut hierarchy).unwrap();
    check(&hierarchy, &windows);
    assert_eq!(
        windows[0].memory64.start % (4 << 30),
        0,
        "aligned for the largest"
    );
    assert_eq!(
        windows[0].memory64.end - windows[0].memory64.start,
        (4 << 30) + (2 << 20)
    );
    assert_eq!(windows[0].memory32, 0xc000_0000..0xc020_0000);
}

#[test]
fn io_bars_need_an_io_window_on_the_way() {
    let build = |with_window: bool| {
        let mut hierarchy = Hierarchy::new();
        let root = hierarchy.add_root(0..=0xff).unwrap();
        let mut port = Model::root_port(0);
        if with_window {
            port.config.add_io_window();
        }
        let port = hierarchy.add(root, 0, 0, port).unwrap();
        let bars = [(0, 0x20, BarKind::Io)];
        hierarchy.add(port, 0, 0, endpoint(&bars)).unwrap();
        hierarchy.add(root, 1, 0, endpoint(&bars)).unwrap();
        hierarchy
    };
    let mut hierarchy = build(true);
    let windows = run(&mut hierarchy).unwrap();
    check(&hierarchy, &windows);
    let error = run(&mut build(false)).unwrap_err().to_string();
    assert!(
        error.starts_with("I/O below bridge 00:00.0, which has no I/O window"),
        "{error}"
    );
}

#[test]
fn reserve_leaves_room_at_every_leaf_port() {
    let Tree {
        mut hierarchy,
        port0,
        port1,
        upstream,
        downstream,
        ..
    } = tree();
    let reserve = PortReserve {
        buses: 2,
        memory32: 2 << 20,
        memory64: 256 << 20,
    };
    let windows = assign(&mut hierarchy, &pools(), &reserve, &mut Vec::new()).unwrap();
    check(&hierarchy, &windows);
    let config = |node| &hierarchy.get(node).expect("a node").config;
    assert_eq!(config(port0).buses_below(), Some(0x21..=0x23));
    assert_eq!(config(port1).buses_below(), Some(0x24..=0x2b));
    assert_eq!(config(upstream).buses_below(), Some(0x25..=0x2b));
    for port in [port0, downstream] {
        let windows = config(port).bridge_windows();
        let memory = windows.memory.expect("a window");
        let prefetchable = windows.prefetchable.expect("a window");
        assert_eq!(memory.end() - memory.start() + 1, 2 << 20);
        assert_eq!(prefetchable.end() - prefetchable.start() + 1, 256 << 20);
        assert_eq!(prefetchable.start() % (256 << 20), 0);
    }
}

#[test]
fn decode_is_on_and_only_bridges_may_pass_on_requests() {
    let Tree { mut hierarchy, .. } = tree();
    run(&mut hierarchy).unwrap();
    for (_, model) in hierarchy.iter() {
        let expected = if model.config.is_bridge() { 6 } else { 2 };
        assert_eq!(model.config.u16(header::COMMAND), expected);
    }
}

#[test]
fn windows_that_nobody_needs_are_closed() {
    let mut hierarchy = Hierarchy::new();
    let root = hierarchy.add_root(0..=0xff).unwrap();
    let port = hierarchy.add(root, 0, 0, Model::root_port(0)).unwrap();
    run(&mut hierarchy).unwrap();
    let windows = hierarchy.get(port).unwrap().config.bridge_windows();
    assert_eq!(windows, crate::BridgeWindows::default());
}

#[test]
fn several_functions_of_a_device_are_found() {
    let mut hierarchy = Hierarchy::new();
    let root = hierarchy.add_root(0..=0xff).unwrap();
    for function in [0, 3] {
        let mut model = endpoint(&[(0, 0x1000, MEMORY32)]);
        model.config.set_multi_function();
        hierarchy.add(root, 2, function, model).unwrap();
    }
    let windows = run(&mut hierarchy).unwrap();
    check(&hierarchy, &windows);
    assert_eq!(
        hierarchy
            .iter()
            .filter(|(_, model)| model.config.bar(0).is_some())
            .count(),
        2
    );
}

#[test]
fn assignment_can_be_done_again() {
    let Tree { mut hierarchy, .. } = tree();
    let first = run(&mut hierarchy).unwrap();
    assert_eq!(
        run(&mut hierarchy).unwrap(),
        first,
        "over what it did before"
    );
    hierarchy.reset(&mut Vec::new());
    assert_eq!(run(&mut hierarchy).unwrap(), first, "after a reset");
    check(&hierarchy, &first);
}

#[test]
fn a_bar_that_does_not_fit_is_named() {
    let mut hierarchy = Hierarchy::new();
    let root = hierarchy.add_root(0x20..=0x4f).unwrap();
    let port = hierarchy.add(root, 0, 0, Model::root_port(0)).unwrap();
    hierarchy
        .add(port, 0, 0, endpoint(&[(2, 1 << 30, MEMORY32)]))
        .unwrap();
    let error = run(&mut hierarchy).unwrap_err().to_string();
    assert_eq!(
        error,
        "root 20-4f (largest: BAR 2 of 21:00.0, 0x40000000 bytes) does not fit in 32-bit memory space: \
         it needs 0x40000000 bytes and 0x20000000 are left"
    );
}

#[test]
fn sizes_beyond_64_bits_in_sum_do_not_fit_either() {
    let mut hierarchy = Hierarchy::new();
    let root = hierarchy.add_root(0..=0xff).unwrap();
    for device in 0..3 {
        hierarchy
            .add(root, device, 0, endpoint(&[(0, 1 << 63, MEMORY64)]))
            .unwrap();
    }
    assert!(matches!(
        run(&mut hierarchy),
        Err(Error::OutOfSpace {
            needed: u64::MAX,
            ..
        })
    ));
}

#[test]
fn a_root_without_enough_buses_is_named() {
    let mut hierarchy = Hierarchy::new();
    let root = hierarchy.add_root(0x20..=0x22).unwrap();
    for device in 0..3 {
        hierarchy
            .add(
                root,
                device,
                0,
                Model::port(DevicePortType::RootPort, device),
            )
            .unwrap();
    }
    let bridge = Bdf::new(0x20, 2, 0);
    let error = Error::OutOfBuses {
        root: 0x20..=0x22,
        bridge,
        needed: 1,
        left: 0,
    };
    assert_eq!(run(&mut hierarchy), Err(error));
}

/// BARs that fit in one header: at most one in each pair of registers.
fn bars() -> impl Strategy<Value = Vec<(u8, u64, BarKind)>> {
    let kind = prop_oneof![
        Just(MEMORY64),
        Just(PLAIN64),
        Just(MEMORY32),
        Just(BarKind::Memory32 { prefetchable: true }),
    ];
    let bar = (4u32..27, kind).prop_map(|(log2, kind)| (1u64 << log2, kind));
    prop::collection::vec(prop::option::of(bar), 3).prop_map(|bars| {
        let pairs = (0u8..).step_by(2).zip(bars);
        pairs
            .filter_map(|(index, bar)| bar.map(|(size, kind)| (index, size, kind)))
            .collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_tree_is_placed_or_named(
        functions in prop::collection::vec((any::<prop::sample::Index>(), prop::option::of(bars())), 1..24),
        buses in 0u8..8,
        memory32 in 0u64..4 << 20,
        memory64 in 0u64..64 << 20,
    ) {
        let mut hierarchy = Hierarchy::new();
        let roots = [0..=0x1f, 0x20..=0x2f].map(|buses| hierarchy.add_root(buses).unwrap());
        let mut parents: Vec<crate::Parent> = roots.map(crate::Parent::from).to_vec();
        for (index, bars) in functions {
            let parent = *index.get(&parents);
            let device = hierarchy.children(parent).len() as u8;
            match bars {
                Some(bars) => {
                    hierarchy.add(parent, device, 0, endpoint(&bars)).unwrap();
                }
                None => {
                    let port = Model::port(DevicePortType::DownstreamPort, device);
                    parents.push(hierarchy.add(parent, device, 0, port).unwrap().into());
                }
            }
        }
        let reserve = PortReserve { buses, memory32, memory64 };
        match assign(&mut hierarchy, &pools(), &reserve, &mut Vec::new()) {
            Ok(windows) => check(&hierarchy, &windows),
            Err(Error::OutOfBuses { needed, left, .. }) => prop_assert!(needed > left),
            Err(Error::OutOfSpace { needed, left, .. }) => prop_assert!(needed > left),
            Err(error) => prop_assert!(false, "{error}"),
        }
    }
}
