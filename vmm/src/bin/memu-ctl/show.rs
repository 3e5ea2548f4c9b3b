//! A machine's answers, for people.

use vmm::config::{Node, show_size};
use vmm::control::{
    Decoder, Device, Exits, Extent, HostBridge, Media, Memslot, Port, Region, RunState, State,
    Timing, Tree, Type3, Window,
};

/// Columns, each as wide as its widest cell; the first row is the heading, and numbers stand on the right.
fn table(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns)
        .map(|i| {
            rows.iter()
                .filter_map(|row| row.get(i))
                .map(String::len)
                .max()
                .unwrap_or(0)
        })
        .collect();
    let mut out = String::new();
    for row in rows {
        let cells = row.iter().zip(&widths).map(|(cell, &width)| {
            if cell.starts_with(|c: char| c.is_ascii_digit()) {
                format!("{cell:>width$}")
            } else {
                format!("{cell:<width$}")
            }
        });
        let line = cells.collect::<Vec<_>>().join("  ");
        out += line.trim_end();
        out.push('\n');
    }
    out
}

fn row<const N: usize>(cells: [&str; N]) -> Vec<String> {
    cells.map(String::from).to_vec()
}

/// First and last address of a range.
fn range(start: u64, size: u64) -> String {
    format!(
        "[{start:#x}-{:#x}]",
        start.saturating_add(size).saturating_sub(1)
    )
}

pub fn state(state: &State) -> String {
    let running = match state.state {
        RunState::Running => "running",
        RunState::Paused => "paused",
        RunState::Stopped => "stopped",
    };
    let bit = if state.hypervisor_bit {
        "shown"
    } else {
        "hidden"
    };
    table(&[
        row(["state", running]),
        row(["vcpus", &state.vcpus.to_string()]),
        row(["memory", &show_size(state.memory)]),
        row(["hypervisor bit", bit]),
        row(["process", &state.pid.to_string()]),
    ])
}

pub fn tree(tree: &Tree) -> String {
    let functions = tree.functions.iter();
    let mut children: Vec<Node> = functions
        .map(|function| Node::leaf(format!("{} {}", function.bdf, function.name)))
        .collect();
    children.extend(tree.host_bridges.iter().map(host_bridge));
    children.extend(tree.windows.iter().map(window));
    Node::new("machine", children).to_string()
}

fn host_bridge(bridge: &HostBridge) -> Node {
    let line = format!(
        "host bridge {}, UID {}, buses {:02x}-{:02x}, registers at {:#x}",
        bridge.name, bridge.uid, bridge.first_bus, bridge.last_bus, bridge.component_registers
    );
    let mut children: Vec<Node> = bridge.decoders.iter().map(decoder).collect();
    children.extend(bridge.root_ports.iter().map(|p| port("root port", p)));
    Node::new(line, children)
}

fn port(kind: &str, port: &Port) -> Node {
    let mut line = format!(
        "{} {kind} {}, port number {}, {}",
        port.bdf, port.name, port.port_number, port.link
    );
    if let Some(slot) = &port.slot {
        line += &format!(", slot {}", slot.number);
        if !slot.powered {
            line += " switched off";
        }
        for (light, shows) in [("power", &slot.power), ("attention", &slot.attention)] {
            if shows == "blinking" {
                line += &format!(", {light} light blinking");
            }
        }
    }
    let mut children = errors(&port.errors);
    children.extend(port.device.iter().map(device));
    Node::new(line, children)
}

fn device(device: &Device) -> Node {
    match device {
        Device::Type2(device) => {
            let line = format!(
                "{} type2 {}, serial {}, {}",
                device.bdf,
                device.name,
                device.serial,
                show_size(device.memory)
            );
            let mut children = errors(&device.errors);
            children.extend(device.decoders.iter().map(decoder));
            Node::new(line, children)
        }
        Device::Type3(device) => type3(device),
        Device::Switch(switch) => {
            let mut children = errors(&switch.errors);
            children.extend(switch.decoders.iter().map(decoder));
            children.extend(switch.ports.iter().map(|p| port("downstream port", p)));
            Node::new(format!("{} switch {}", switch.bdf, switch.name), children)
        }
    }
}

fn errors(errors: &[String]) -> Vec<Node> {
    let leaf = |error: &String| Node::leaf(format!("error: {error}"));
    errors.iter().map(leaf).collect()
}

fn type3(device: &Type3) -> Node {
    let line = format!(
        "{} type3 {}, serial {}, {} volatile, {} persistent",
        device.bdf,
        device.name,
        device.serial,
        show_size(device.volatile),
        show_size(device.persistent)
    );
    let mut children = errors(&device.errors);
    children.extend(device.decoders.iter().map(decoder));
    children.extend(device.dynamic.iter().map(|region| {
        Node::leaf(format!(
            "dynamic capacity {}: {} in blocks of {}",
            range(region.dpa, region.size),
            show_size(region.size),
            show_size(region.block_size)
        ))
    }));
    children.extend(device.extents.iter().map(|e| extent("extent", e)));
    children.extend(device.offered.iter().map(|e| extent("offered", e)));
    Node::new(line, children)
}

fn extent(what: &str, extent: &Extent) -> Node {
    let mut line = format!(
        "{what} {}: {}",
        range(extent.dpa, extent.length),
        show_size(extent.length)
    );
    if !extent.tag.is_empty() {
        line += &format!(", tag {}", extent.tag);
    }
    Node::leaf(line)
}

fn decoder(decoder: &Decoder) -> Node {
    let mut line = format!(
        "decoder {} {}: {}, {}-way at {}",
        decoder.index,
        range(decoder.hpa, decoder.size),
        show_size(decoder.size),
        decoder.ways,
        show_size(decoder.granularity)
    );
    if !decoder.targets.is_empty() {
        let ports: Vec<String> = decoder.targets.iter().map(u8::to_string).collect();
        line += &format!(", to ports {}", ports.join(", "));
    }
    if let Some(dpa) = decoder.dpa {
        line += &format!(", DPA {dpa:#x}");
    }
    Node::leaf(line)
}

fn window(window: &Window) -> Node {
    let line = format!(
        "window {} {}: {} over {} at {}, {} mapped, {} accesses without memory",
        window.name,
        range(window.hpa, window.size),
        show_size(window.size),
        window.targets.join(", "),
        show_size(window.granularity),
        show_size(window.mapped),
        window.uncommitted_accesses
    );
    Node::new(line, window.regions.iter().map(region).collect())
}

fn region(region: &Region) -> Node {
    Node::leaf(format!(
        "region {}: {} over {} at {}",
        range(region.hpa, region.size),
        show_size(region.size),
        region.devices.join(", "),
        show_size(region.granularity)
    ))
}

pub fn memslots(slots: &[Memslot]) -> String {
    let heading = row(["slot", "name", "address", "size", "offset", "access"]);
    let rows = slots.iter().map(|slot| {
        let access = if slot.read_only {
            "read-only"
        } else {
            "read-write"
        };
        row([
            &slot.slot.to_string(),
            &slot.name,
            &format!("{:#x}", slot.hpa),
            &show_size(slot.size),
            &format!("{:#x}", slot.offset),
            access,
        ])
    });
    table(&std::iter::once(heading).chain(rows).collect::<Vec<_>>())
}

pub fn exits(exits: &Exits) -> String {
    let mut rows = vec![row(["cause", "exits"])];
    let counts = |(name, count): (&String, &u64)| vec![name.clone(), count.to_string()];
    rows.extend(exits.causes.iter().map(counts));
    rows.push(row(["all", &exits.total.to_string()]));
    rows.push(Vec::new());
    rows.push(row(["device", "exits"]));
    rows.extend(exits.devices.iter().map(counts));
    table(&rows)
}

pub fn timing(timing: &Timing) -> String {
    let ms = |ns: f64| format!("{:.3} ms", ns / 1e6);
    let measured = if timing.local_latency_measured {
        "measured"
    } else {
        "given"
    };
    let mut out = table(&[
        row(["clock", &timing.clock]),
        row(["ran", &ms(timing.ran)]),
        row(["delay", &ms(timing.added)]),
        row(["of it paid", &ms(timing.paid)]),
        row(["and owed", &ms(timing.owed)]),
        row(["overhead", &ms(timing.overhead)]),
        row(["epochs", &timing.epochs.to_string()]),
        row([
            "faster than the host",
            &timing.not_representable.to_string(),
        ]),
        row([
            "local latency",
            &format!("{:.1} ns, {measured}", timing.local_latency),
        ]),
        row(["misses at once", &format!("{:.1}", timing.parallelism)]),
    ]);
    let mut rows = vec![row([
        "device", "idle ns", "now ns", "GB/s", "others", "lines",
    ])];
    rows.extend(timing.devices.iter().map(|device| {
        row([
            &device.device,
            &format!("{:.1}", device.idle_latency),
            &format!("{:.1}", device.latency),
            &format!("{:.3}", device.bandwidth),
            &format!("{:.3}", device.others),
            &format!("{:.0}", device.lines),
        ])
    }));
    out += &format!("\n{}\n", table(&rows));
    out + &format!(
        "topology: {}\nsource: {}\nerror: {}\n",
        timing.topology, timing.source, timing.error
    )
}

/// Sixteen bytes on a line, behind their address.
pub fn media(media: &Media) -> String {
    const LINE: usize = 32;
    let mut out = String::new();
    for (i, digits) in media.data.as_bytes().chunks(LINE).enumerate() {
        let dpa = media.dpa.saturating_add((i * LINE / 2) as u64);
        let bytes = digits
            .chunks(2)
            .map(String::from_utf8_lossy)
            .collect::<Vec<_>>();
        out += &format!("{dpa:#014x}  {}\n", bytes.join(" "));
    }
    out
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use vmm::control::{DynamicRegion, Function, Slot, Switch};

    use super::*;

    #[test]
    fn a_state_is_a_list() {
        let shown = state(&State {
            state: RunState::Paused,
            vcpus: 2,
            memory: 2 << 30,
            hypervisor_bit: false,
            pid: 4711,
        });
        assert_eq!(
            shown,
            "state           paused\nvcpus                2\nmemory            2GiB\nhypervisor bit  hidden\nprocess           4711\n"
        );
    }

    #[test]
    fn a_tree_shows_decoders_where_they_are() {
        let decoder = |targets: &[u8], dpa| Decoder {
            index: 0,
            hpa: 0x1_5000_0000,
            size: 512 << 20,
            ways: 2,
            granularity: 512,
            targets: targets.to_vec(),
            dpa,
        };
        let shown = tree(&Tree {
            functions: vec![Function {
                bdf: "00:01.0".to_string(),
                name: "virtio-rng".to_string(),
            }],
            host_bridges: vec![HostBridge {
                name: "hb0".to_string(),
                uid: 1,
                first_bus: 0x20,
                last_bus: 0x4f,
                component_registers: 0xf000_0000,
                decoders: vec![decoder(&[0, 1], None)],
                root_ports: vec![Port {
                    name: "rp0".to_string(),
                    bdf: "20:00.0".to_string(),
                    port_number: 0,
                    link: "32GT/s x16".to_string(),
                    slot: Some(Slot {
                        number: 1,
                        powered: true,
                        attention: "off".to_string(),
                        power: "blinking".to_string(),
                    }),
                    errors: vec!["correctable physical".to_string()],
                    device: Some(Device::Switch(Switch {
                        name: "sw0".to_string(),
                        bdf: "21:00.0".to_string(),
                        errors: Vec::new(),
                        decoders: vec![decoder(&[0], None)],
                        ports: vec![Port {
                            name: "dsp0".to_string(),
                            bdf: "22:00.0".to_string(),
                            port_number: 0,
                            link: "32GT/s x16".to_string(),
                            slot: None,
                            errors: Vec::new(),
                            device: Some(Device::Type3(Type3 {
                                name: "mem0".to_string(),
                                bdf: "23:00.0".to_string(),
                                serial: "0x1".to_string(),
                                volatile: 256 << 20,
                                persistent: 0,
                                errors: vec!["poison 0x1000, 64 bytes".to_string()],
                                dynamic: vec![DynamicRegion {
                                    dpa: 256 << 20,
                                    size: 512 << 20,
                                    block_size: 2 << 20,
                                }],
                                extents: vec![Extent {
                                    dpa: 256 << 20,
                                    length: 4 << 20,
                                    tag: "c0ffee00".to_string(),
                                }],
                                offered: Vec::new(),
                                decoders: vec![decoder(&[], Some(0))],
                            })),
                        }],
                    })),
                }],
            }],
            windows: vec![Window {
                name: "w0".to_string(),
                hpa: 0x1_5000_0000,
                size: 1 << 30,
                targets: vec!["hb0".to_string()],
                granularity: 256,
                mapped: 512 << 20,
                regions: vec![Region {
                    hpa: 0x1_5000_0000,
                    size: 512 << 20,
                    granularity: 512,
                    devices: vec!["mem0".to_string(), "mem1".to_string()],
                }],
                uncommitted_accesses: 3,
            }],
        });
        assert_eq!(
            shown,
            "\
machine
├── 00:01.0 virtio-rng
├── host bridge hb0, UID 1, buses 20-4f, registers at 0xf0000000
│   ├── decoder 0 [0x150000000-0x16fffffff]: 512MiB, 2-way at 512B, to ports 0, 1
│   └── 20:00.0 root port rp0, port number 0, 32GT/s x16, slot 1, power light blinking
│       ├── error: correctable physical
│       └── 21:00.0 switch sw0
│           ├── decoder 0 [0x150000000-0x16fffffff]: 512MiB, 2-way at 512B, to ports 0
│           └── 22:00.0 downstream port dsp0, port number 0, 32GT/s x16
│               └── 23:00.0 type3 mem0, serial 0x1, 256MiB volatile, 0B persistent
│                   ├── error: poison 0x1000, 64 bytes
│                   ├── decoder 0 [0x150000000-0x16fffffff]: 512MiB, 2-way at 512B, DPA 0x0
│                   ├── dynamic capacity [0x10000000-0x2fffffff]: 512MiB in blocks of 2MiB
│                   └── extent [0x10000000-0x103fffff]: 4MiB, tag c0ffee00
└── window w0 [0x150000000-0x18fffffff]: 1GiB over hb0 at 256B, 512MiB mapped, 3 accesses without memory
    └── region [0x150000000-0x16fffffff]: 512MiB over mem0, mem1 at 512B
"
        );
    }

    #[test]
    fn memslots_are_a_table() {
        let slot = |slot, name: &str, hpa, read_only| Memslot {
            slot,
            name: name.to_string(),
            hpa,
            size: 1 << 30,
            offset: 0,
            read_only,
        };
        let shown = memslots(&[
            slot(0, "ram", 0, false),
            slot(12, "mem0, mem1", 1 << 32, true),
        ]);
        assert_eq!(
            shown,
            "\
slot  name        address      size  offset  access
   0  ram                 0x0  1GiB     0x0  read-write
  12  mem0, mem1  0x100000000  1GiB     0x0  read-only
"
        );
    }

    #[test]
    fn exits_are_two_tables() {
        let shown = exits(&Exits {
            total: 12,
            causes: BTreeMap::from([("mmio_read".to_string(), 10), ("port_write".to_string(), 2)]),
            devices: BTreeMap::from([("mem0".to_string(), 10)]),
        });
        assert_eq!(
            shown,
            "\
cause       exits
mmio_read      10
port_write      2
all            12

device      exits
mem0           10
"
        );
    }

    #[test]
    fn timing_is_a_list_and_a_table_of_devices() {
        let shown = timing(&Timing {
            clock: "real".to_string(),
            added: 2.5e6,
            paid: 2e6,
            owed: 0.5e6,
            local_latency: 100.0,
            devices: vec![vmm::control::TimedDevice {
                device: "mem0".to_string(),
                idle_latency: 250.0,
                latency: 251.5,
                lines: 1e6,
                bandwidth: 1.25,
                others: 0.5,
            }],
            ..Timing::default()
        });
        for line in [
            "delay                        2.500 ms",
            "and owed                     0.500 ms",
            "local latency         100.0 ns, given",
            "mem0      250.0   251.5  1.250   0.500  1000000",
        ] {
            assert!(shown.lines().any(|shown| shown == line), "{shown}");
        }
    }

    #[test]
    fn media_is_a_dump() {
        let shown = media(&Media {
            device: "mem0".to_string(),
            dpa: 0x100,
            data: "00".repeat(16) + "fe01",
        });
        let zeros = ["00"; 16].join(" ");
        assert_eq!(
            shown,
            format!("0x000000000100  {zeros}\n0x000000000110  fe 01\n")
        );
    }
}
