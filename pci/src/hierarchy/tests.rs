use super::*;
use crate::spec::{bridge, header};
use crate::testing::{Model, ModelEffect, Tree, assigned_tree, tree};
use crate::{DevicePortType, Effect};

type Effects = Vec<(NodeId, ModelEffect)>;

fn read(hierarchy: &Hierarchy<Model>, bdf: Bdf, register: u16) -> u32 {
    let mut data = [0; 4];
    hierarchy.config_read(bdf, register, &mut data);
    u32::from_le_bytes(data)
}

fn write(hierarchy: &mut Hierarchy<Model>, bdf: Bdf, register: u16, data: &[u8]) -> Effects {
    let mut out = Vec::new();
    hierarchy.config_write(bdf, register, data, &mut out);
    out
}

fn base(hierarchy: &Hierarchy<Model>, node: NodeId, bar: u8) -> Option<u64> {
    Some(hierarchy.get(node)?.config.bar(bar)?.base)
}

fn resets(effects: &Effects) -> Vec<NodeId> {
    let is_reset = |(_, effect): &&(NodeId, ModelEffect)| matches!(effect, ModelEffect::Reset(_));
    let mut nodes: Vec<NodeId> = effects
        .iter()
        .filter(is_reset)
        .map(|(node, _)| *node)
        .collect();
    nodes.sort();
    nodes
}

#[test]
fn roots_own_their_buses() {
    let mut hierarchy = Hierarchy::<Model>::new();
    hierarchy.add_root(0..=0x1f).unwrap();
    hierarchy.add_root(0x20..=0x4f).unwrap();
    let overlap = Error::BusesOverlap {
        new: 0x4f..=0x60,
        taken: 0x20..=0x4f,
    };
    assert_eq!(hierarchy.add_root(0x4f..=0x60), Err(overlap));
    assert_eq!(
        hierarchy
            .roots()
            .map(|(_, buses)| buses)
            .collect::<Vec<_>>(),
        [0..=0x1f, 0x20..=0x4f]
    );
}

#[test]
fn a_place_holds_one_function_and_only_bridges_have_places() {
    let Tree {
        mut hierarchy,
        on_root,
        port0,
        ..
    } = tree();
    let taken = Err(Error::SlotTaken {
        device: 0,
        function: 0,
    });
    assert_eq!(hierarchy.add(port0, 0, 0, Model::endpoint()), taken);
    assert_eq!(
        hierarchy.add(on_root, 0, 0, Model::endpoint()),
        Err(Error::NotABridge)
    );
    assert_eq!(
        hierarchy.add(NodeId(99), 0, 0, Model::endpoint()),
        Err(Error::NoSuchNode)
    );
    assert_eq!(
        hierarchy.add(RootId(9), 0, 0, Model::endpoint()),
        Err(Error::NoSuchRoot)
    );
    assert!(hierarchy.add(port0, 32, 0, Model::endpoint()).is_err());
    assert!(hierarchy.add(port0, 0, 8, Model::endpoint()).is_err());
    assert!(
        hierarchy.add(port0, 0, 1, Model::endpoint()).is_ok(),
        "functions share a device"
    );
}

#[test]
fn paths_lead_from_the_root_bus_down() {
    let tree = tree();
    let path = tree.hierarchy.path(tree.below_switch);
    assert_eq!(
        path,
        [
            tree.port1,
            tree.upstream,
            tree.downstream,
            tree.below_switch
        ]
    );
    assert_eq!(tree.hierarchy.path(tree.on_root), [tree.on_root]);
    assert_eq!(tree.hierarchy.path(NodeId(99)), []);
    assert_eq!(tree.hierarchy.children(tree.port1), [tree.upstream]);
    assert_eq!(
        tree.hierarchy.parent(tree.upstream),
        Some(Parent::Bridge(tree.port1))
    );
    assert_eq!(tree.hierarchy.iter().count(), 8);
}

#[test]
fn config_accesses_follow_the_bus_numbers_of_the_moment() {
    let Tree {
        mut hierarchy,
        port0,
        below_port0,
        ..
    } = tree();
    let port = Bdf::new(0x20, 0, 0);
    assert_eq!(hierarchy.route_config(port), Some(port0));
    assert_eq!(hierarchy.bdf(below_port0), None, "not numbered yet");
    assert_eq!(
        hierarchy.route_config(Bdf::new(0, 0, 0)),
        None,
        "an unnumbered bridge claims nothing"
    );
    for secondary in [0x21, 0x45] {
        write(&mut hierarchy, port, bridge::PRIMARY_BUS, &[0x20]);
        write(&mut hierarchy, port, bridge::SECONDARY_BUS, &[secondary]);
        write(&mut hierarchy, port, bridge::SUBORDINATE_BUS, &[secondary]);
        let bdf = Bdf::new(secondary, 0, 0);
        assert_eq!(hierarchy.bdf(below_port0), Some(bdf));
        assert_eq!(hierarchy.route_config(bdf), Some(below_port0));
        assert_eq!(read(&hierarchy, bdf, 0), 0x0d93_8086);
    }
    assert_eq!(
        hierarchy.route_config(Bdf::new(0x21, 0, 0)),
        None,
        "the old number"
    );
    assert_eq!(
        hierarchy.route_config(Bdf::new(0x45, 1, 0)),
        None,
        "one device on a link"
    );
    assert_eq!(
        hierarchy.route_config(Bdf::new(0x45, 0, 1)),
        None,
        "one function"
    );
    assert_eq!(
        hierarchy.route_config(Bdf::new(0x60, 0, 0)),
        None,
        "no root's bus"
    );
}

#[test]
fn nobody_answers_with_all_ones() {
    let Tree { mut hierarchy, .. } = assigned_tree();
    assert_eq!(read(&hierarchy, Bdf::new(0, 9, 0), 0), u32::MAX);
    assert_eq!(write(&mut hierarchy, Bdf::new(0, 9, 0), 4, &[6, 0]), []);
    let mut data = [0; 8];
    let mut out = Vec::new();
    hierarchy.memory_read(0xdfff_fff8, &mut data, &mut out);
    assert_eq!(data, [0xff; 8]);
    data = [0; 8];
    hierarchy.io_read(0xcf00, &mut data, &mut out);
    assert_eq!(data, [0xff; 8]);
    hierarchy.memory_write(0xdfff_fff8, &data, &mut out);
    hierarchy.io_write(0xcf00, &data, &mut out);
    assert_eq!(out, []);
}

#[test]
fn memory_accesses_go_down_through_the_windows() {
    let Tree {
        mut hierarchy,
        on_root,
        below_port0,
        below_switch,
        downstream,
        ..
    } = assigned_tree();
    let mut out = Vec::new();
    for (byte, node) in [
        (1, on_root),
        (2, below_port0),
        (3, below_switch),
        (4, downstream),
    ] {
        let address = base(&hierarchy, node, 0).expect("assigned");
        let target = Target {
            node,
            bar: 0,
            offset: 0xfff8,
        };
        assert_eq!(hierarchy.route_memory(address + 0xfff8, 8), Some(target));
        assert_eq!(
            hierarchy.route_memory(address + 0xfff8, 9),
            None,
            "not wholly inside"
        );
        hierarchy.memory_write(address + 0x100, &[byte; 4], &mut out);
        let mut data = [0; 4];
        hierarchy.memory_read(address + 0x100, &mut data, &mut out);
        assert_eq!(data, [byte; 4]);
    }
    assert_eq!(out, []);
}

#[test]
fn every_bridge_on_the_way_must_let_an_access_through() {
    let gates = [bridge::PREFETCHABLE_BASE, header::COMMAND];
    for gate in gates {
        for at in 0..3 {
            let Tree {
                mut hierarchy,
                below_switch,
                ..
            } = assigned_tree();
            let address = base(&hierarchy, below_switch, 0).expect("assigned");
            let bridge = hierarchy.path(below_switch)[at];
            let bdf = hierarchy.bdf(bridge).expect("numbered");
            let shut: &[u8] = if gate == header::COMMAND {
                &[4, 0]
            } else {
                &[0xf0, 0xff]
            };
            let out = write(&mut hierarchy, bdf, gate, shut);
            assert_eq!(out, [(bridge, ModelEffect::Pci(Effect::BarsChanged))]);
            assert_eq!(
                hierarchy.route_memory(address, 4),
                None,
                "{gate:#x} at {at}"
            );
            assert_eq!(
                hierarchy.route_config(hierarchy.bdf(below_switch).unwrap()),
                Some(below_switch)
            );
        }
    }
}

#[test]
fn a_bridge_in_d3hot_passes_nothing_on() {
    let Tree {
        mut hierarchy,
        port0,
        below_port0,
        ..
    } = assigned_tree();
    let address = base(&hierarchy, below_port0, 0).expect("assigned");
    let bdf = hierarchy.bdf(below_port0).expect("numbered");
    let power = hierarchy
        .get(port0)
        .unwrap()
        .config
        .find_capability(0x01)
        .unwrap();
    write(&mut hierarchy, Bdf::new(0x20, 0, 0), power + 4, &[3]);
    assert_eq!(hierarchy.route_memory(address, 4), None);
    assert_eq!(hierarchy.route_config(bdf), None);
    write(&mut hierarchy, Bdf::new(0x20, 0, 0), power + 4, &[0]);
    assert!(hierarchy.route_memory(address, 4).is_some());
    assert_eq!(hierarchy.route_config(bdf), Some(below_port0));
}

#[test]
fn secondary_bus_reset_resets_all_below_and_nothing_else() {
    let Tree {
        mut hierarchy,
        port1,
        upstream,
        below_switch,
        ..
    } = assigned_tree();
    let bdf = hierarchy.bdf(port1).expect("numbered");
    let out = write(&mut hierarchy, bdf, bridge::BRIDGE_CONTROL, &[0x40]);
    assert_eq!(
        resets(&out).len(),
        4,
        "the switch's three ports and the endpoint"
    );
    assert!(resets(&out).contains(&below_switch) && !resets(&out).contains(&port1));
    assert_eq!(
        hierarchy.route_config(Bdf::new(*hierarchy_bus(&hierarchy, port1).start(), 0, 0)),
        None,
        "held"
    );
    let out = write(&mut hierarchy, bdf, bridge::BRIDGE_CONTROL, &[0x41]);
    assert_eq!(resets(&out), [], "once");
    write(&mut hierarchy, bdf, bridge::BRIDGE_CONTROL, &[0]);
    let bus = *hierarchy_bus(&hierarchy, port1).start();
    assert_eq!(hierarchy.route_config(Bdf::new(bus, 0, 0)), Some(upstream));
    assert_eq!(
        hierarchy.bdf(below_switch),
        None,
        "the switch lost its numbers"
    );
    assert_eq!(base(&hierarchy, below_switch, 0), None);
}

fn hierarchy_bus(hierarchy: &Hierarchy<Model>, bridge: NodeId) -> RangeInclusive<u8> {
    hierarchy
        .get(bridge)
        .and_then(|model| model.config.buses_below())
        .expect("numbered")
}

#[test]
fn link_disable_resets_what_is_below() {
    let Tree {
        mut hierarchy,
        port0,
        below_port0,
        ..
    } = assigned_tree();
    let control = hierarchy.get(port0).unwrap().express.offset() + 0x10;
    let bdf = hierarchy.bdf(below_port0).expect("numbered");
    let out = write(&mut hierarchy, Bdf::new(0x20, 0, 0), control, &[0x10]);
    assert_eq!(resets(&out), [below_port0]);
    assert_eq!(hierarchy.route_config(bdf), None);
    let out = write(&mut hierarchy, Bdf::new(0x20, 0, 0), control, &[0]);
    assert_eq!(resets(&out), []);
    assert_eq!(hierarchy.route_config(bdf), Some(below_port0));
}

#[test]
fn a_machine_reset_reaches_every_function() {
    let Tree { mut hierarchy, .. } = assigned_tree();
    let mut out = Vec::new();
    hierarchy.reset(&mut out);
    assert_eq!(resets(&out).len(), 8);
    assert!(
        hierarchy
            .iter()
            .all(|(_, model)| model.config.bar(0).is_none())
    );
}

#[test]
fn effects_name_the_function_they_come_from() {
    let Tree {
        mut hierarchy,
        below_port0,
        ..
    } = assigned_tree();
    let bdf = hierarchy.bdf(below_port0).expect("numbered");
    let out = write(&mut hierarchy, bdf, header::COMMAND, &[0, 0]);
    assert_eq!(out, [(below_port0, ModelEffect::Pci(Effect::BarsChanged))]);
    let mut out = Vec::new();
    let result = hierarchy.with(below_port0, &mut out, |model, out| {
        out.push(ModelEffect::Pci(Effect::BarsChanged));
        model.config.is_bridge()
    });
    assert_eq!(result, Some(false));
    assert_eq!(out, [(below_port0, ModelEffect::Pci(Effect::BarsChanged))]);
    assert_eq!(hierarchy.with(NodeId(99), &mut out, |_, _| ()), None);
}

#[test]
fn boxed_functions_hang_in_a_hierarchy_too() {
    let mut hierarchy: Hierarchy<Box<dyn Function<Effect = ModelEffect>>> = Hierarchy::new();
    let root = hierarchy.add_root(0..=0xff).unwrap();
    let port = hierarchy
        .add(
            root,
            0,
            0,
            Box::new(Model::port(DevicePortType::RootPort, 0)),
        )
        .unwrap();
    hierarchy
        .add(port, 0, 0, Box::new(Model::endpoint()))
        .unwrap();
    let mut out = Vec::new();
    crate::assign(
        &mut hierarchy,
        &crate::testing::pools(),
        &crate::PortReserve::default(),
        &mut out,
    )
    .unwrap();
    let mut data = [0; 2];
    hierarchy.config_read(Bdf::new(1, 0, 0), 2, &mut data);
    assert_eq!(data, [0x93, 0x0d]);
}

#[test]
fn a_removed_function_is_gone_with_all_below_it() {
    let Tree {
        mut hierarchy,
        port1,
        upstream,
        below_switch,
        ..
    } = assigned_tree();
    let bus = *hierarchy_bus(&hierarchy, port1).start();
    let address = base(&hierarchy, below_switch, 0).expect("placed");
    let removed = hierarchy.remove(upstream);
    assert_eq!(
        removed.len(),
        4,
        "the switch's three ports and the endpoint"
    );
    assert_eq!(removed[0].0, upstream);
    assert_eq!(hierarchy.children(port1), []);
    assert_eq!(read(&hierarchy, Bdf::new(bus, 0, 0), 0), u32::MAX);
    assert_eq!(hierarchy.route_memory(address, 4), None);
    assert!(hierarchy.get(below_switch).is_none() && hierarchy.path(below_switch).is_empty());
    assert!(hierarchy.remove(upstream).is_empty(), "once");
}

#[test]
fn a_new_function_takes_the_place_of_a_removed_one() {
    let Tree {
        mut hierarchy,
        port0,
        below_port0,
        ..
    } = assigned_tree();
    let before = hierarchy.iter().count();
    for _ in 0..3 {
        hierarchy.remove(below_port0);
        let id = hierarchy.add(port0, 0, 0, Model::endpoint());
        assert_eq!(id, Ok(below_port0));
    }
    assert_eq!(hierarchy.iter().count(), before);
    assert_eq!(hierarchy.children(port0), [below_port0]);
}

#[test]
fn a_slot_without_power_power_cycles_what_is_below() {
    const SLOT_CONTROL: u16 = 0x18;
    const POWER_OFF: [u8; 2] = [0, 1 << 2];
    let Tree {
        mut hierarchy,
        port0,
        below_port0,
        ..
    } = assigned_tree();
    let port = hierarchy.bdf(port0).expect("numbered");
    let control = hierarchy.get(port0).unwrap().express.offset() + SLOT_CONTROL;
    let power_cycle = |effects: &Effects| {
        let kind = ModelEffect::Reset(ResetKind::Conventional);
        effects.contains(&(below_port0, kind))
    };
    write(&mut hierarchy, port, bridge::BRIDGE_CONTROL, &[0x40]);
    let out = write(&mut hierarchy, port, control, &POWER_OFF);
    assert!(power_cycle(&out), "even while the bus is held in reset");
    write(&mut hierarchy, port, bridge::BRIDGE_CONTROL, &[0]);
    assert_eq!(hierarchy.route_config(Bdf::new(0x21, 0, 0)), None);
    let out = write(&mut hierarchy, port, control, &[0, 0]);
    assert_eq!(resets(&out), [], "power on resets nothing");
    assert!(hierarchy.bdf(below_port0).is_some());
}
