//! What the firmware is told of machines with switches, windows by XOR and soft-reserved regions.

use firmware::{Arithmetic, Machine, Performance};

use super::super::tables::describe;
use super::*;

/// mem0 directly below the first bridge, mem1 below a switch on the second; a window on each of them, and one over both.
const SOURCE: &str = r#"
[machine]
memory = "64MiB"
[boot]
kernel = "kernel"

[[host_bridge]]
name = "hb0"
[[host_bridge.root_port]]
name = "rp0"
[host_bridge.root_port.device]
type = "type3"
name = "mem0"
serial = 1
volatile = "512MiB"

[[host_bridge]]
name = "hb1"
[[host_bridge.root_port]]
name = "rp1"
[host_bridge.root_port.device]
type = "switch"
name = "sw0"
read_latency = 25
write_latency = 35
read_bandwidth = 16
write_bandwidth = 48
[[host_bridge.root_port.device.port]]
name = "dsp0"
[host_bridge.root_port.device.port.device]
type = "type3"
name = "mem1"
serial = 2
volatile = "512MiB"

[[window]]
name = "w0"
size = "256MiB"
targets = ["hb0"]
[[window]]
name = "w1"
size = "256MiB"
targets = ["hb1"]
qtg = 1
[[window]]
name = "w2"
size = "512MiB"
targets = ["hb0", "hb1"]
granularity = "1KiB"
arithmetic = "xor"
[[region]]
name = "r0"
window = "w1"
size = "256MiB"
type = "volatile"
devices = ["mem1"]
soft_reserved = true
[[region]]
name = "r1"
window = "w2"
size = "512MiB"
type = "volatile"
devices = ["mem0", "mem1"]
"#;

fn described(source: &str) -> Machine {
    let files = TempDir::new().unwrap();
    std::fs::write(files.path().join("kernel"), "").unwrap();
    let file = files.path().join("host0.toml");
    let config = Config::parse(&file, source, &Overrides::default()).unwrap();
    let layout = Layout::new(&config.layout_request()).unwrap();
    let starts: Vec<u64> = layout.windows.iter().map(|window| window.start).collect();
    let mut state = hardware(&config, &layout, &Arc::default()).unwrap();
    let (roots, _) = place(&mut state, &layout).unwrap();
    describe(&config, &layout, &roots, &config.plan_regions(&starts)).unwrap()
}

#[test]
fn a_soft_reserved_region_is_memory_with_a_proximity_domain_and_a_distance() {
    let machine = described(SOURCE);
    assert_eq!(machine.soft_reserved, [machine.fixed_windows[1].range]);
    let domains: Vec<Option<u32>> = machine
        .fixed_windows
        .iter()
        .map(|window| window.proximity_domain)
        .collect();
    // 0 is the processors', 1 and 2 are the generic ports of the host bridges.
    assert_eq!(domains, [None, Some(3), None]);
    let distance = machine.localities.iter().find(|line| line.target == 3);
    // Host bridge 51, two links of 10, the switch 25 or 35, the medium 150.
    let expected = Performance {
        read_latency: 246.0,
        write_latency: 256.0,
        read_bandwidth: 16.0,
        write_bandwidth: 32.0,
    };
    assert_eq!(distance.unwrap().performance, expected);
}

#[test]
fn a_window_takes_an_accelerators_memory_where_it_leads_to_one() {
    let accelerator = r#"
[[host_bridge]]
name = "hb2"
[[host_bridge.root_port]]
name = "rp2"
[host_bridge.root_port.device]
type = "type2"
name = "gpu0"
serial = 3
memory = "256MiB"
[[window]]
name = "w3"
size = "256MiB"
targets = ["hb2"]
"#;
    let machine = described(&format!("{SOURCE}{accelerator}"));
    let allowed: Vec<[bool; 3]> = machine
        .fixed_windows
        .iter()
        .map(|window| window.restrictions)
        .map(|it| {
            [
                it.device_coherent,
                it.back_invalidate,
                it.host_only_coherent,
            ]
        })
        .collect();
    let expanders_only = [false, false, true];
    let both = [true; 3];
    assert_eq!(
        allowed,
        [expanders_only, expanders_only, expanders_only, both]
    );
}

#[test]
fn a_throttling_group_ends_at_the_slowest_device_behind_switches() {
    let machine = described(SOURCE);
    let groups: Vec<(u16, f64)> = machine
        .qos_classes
        .iter()
        .map(|class| (class.qtg, class.slowest.read_latency))
        .collect();
    // Group 0 has a window over both bridges, group 1 one on the second.
    assert_eq!(groups, [(0, 246.0), (1, 246.0)]);
}

#[test]
fn a_window_by_xor_has_the_maps_that_its_decoder_uses() {
    let machine = described(SOURCE);
    let arithmetics: Vec<&Arithmetic> = machine
        .fixed_windows
        .iter()
        .map(|window| &window.arithmetic)
        .collect();
    // Bit 10 chooses, with bits 16 and 20.
    let xor = Arithmetic::Xor(vec![1 << 10 | 1 << 16 | 1 << 20]);
    assert_eq!(
        arithmetics,
        [&Arithmetic::Modulo, &Arithmetic::Modulo, &xor]
    );
    firmware::build(&machine).unwrap();
}
