//! The tree as one string: what it stands for, and what is wrong with it.

use super::*;
use crate::config::model::{Device, HostBridge, Port};

fn bridges(tree: &str) -> Vec<HostBridge> {
    let source = format!("tree = \"{tree}\"\n[boot]\nkernel = \"kernel\"\n");
    let config = Files::new().parse(&source);
    config
        .unwrap_or_else(|error| panic!("{error}"))
        .host_bridges
}

/// A hierarchy as names: `port:device` and, of a switch, what is below it.
fn names(ports: &[Port]) -> String {
    let name = |port: &Port| match port.device.as_ref().unwrap() {
        Device::Type3(device) => format!("{}:{}", port.name, device.name),
        Device::Switch(switch) => {
            format!("{}:{}({})", port.name, switch.name, names(&switch.ports))
        }
        other => panic!("no tree has {other:?}"),
    };
    ports.iter().map(name).collect::<Vec<_>>().join(" ")
}

#[test]
fn a_tree_is_a_host_bridge_with_switches_and_expanders() {
    let [bridge] = &bridges("(mem0,(mem1,mem2)sw0)")[..] else {
        panic!("one bridge");
    };
    assert_eq!(bridge.name, "hb0");
    assert_eq!(
        names(&bridge.root_ports),
        "hb0.0:mem0 hb0.1:sw0(sw0.0:mem1 sw0.1:mem2)"
    );
}

#[test]
fn the_strings_of_cxlmemsim_are_trees() {
    let [bridge] = &bridges("(1,(2,3));")[..] else {
        panic!("one bridge");
    };
    assert_eq!(
        names(&bridge.root_ports),
        "hb0.0:mem1 hb0.1:sw0(sw0.0:mem2 sw0.1:mem3)"
    );
}

#[test]
fn several_trees_are_several_bridges_and_serial_numbers_go_on() {
    let found = bridges("a=(x,y);b=(z)");
    assert_eq!([found[0].name.as_str(), found[1].name.as_str()], ["a", "b"]);
    let Some(Device::Type3(z)) = &found[1].root_ports[0].device else {
        panic!("z is an expander");
    };
    assert_eq!((z.name.as_str(), z.serial, z.volatile), ("z", 3, 1 << 30));
}

#[test]
fn lengths_and_attributes_say_what_a_node_costs_and_has() {
    let found = bridges("(x:50[&bw=12.5,volatile=256MiB],(y)s:30)");
    let Some(Device::Type3(x)) = &found[0].root_ports[0].device else {
        panic!("x is an expander");
    };
    assert_eq!((x.volatile, x.performance.read_latency), (256 << 20, 200));
    assert_eq!(x.performance.write_bandwidth, 12.5);
    let Some(Device::Switch(s)) = &found[0].root_ports[1].device else {
        panic!("s is a switch");
    };
    assert_eq!(s.performance.read_latency, 100);
}

#[test]
fn mistakes_are_pointed_at() {
    for (tree, reason) in [
        ("(a,(b)", "topology: "),
        ("(a[&color=red])", "there is no attribute color"),
        ("(a[&volatile=big])", "the capacity is no size"),
        ("(a:1e9)", "a branch has 0 to 1000000 ns"),
        ("(a[&bw=-1])", "no number of GB/s above 0"),
    ] {
        let source = format!("tree = \"{tree}\"\n[boot]\nkernel = \"kernel\"\n");
        let messages = Files::new().messages(&source);
        assert!(messages[0].contains(reason), "{tree}: {messages:?}");
        assert!(messages[0].contains('^'), "{tree}: {messages:?}");
    }
    let both = format!("tree = \"(a)\"\n{}", messages::TREE);
    let said = Files::new().messages(&both);
    assert!(
        said[0].contains("[[host_bridge]] tables as well"),
        "{said:?}"
    );
}
