//! Switches: how they are written, what regions below them need, and which decoders the firmware programs.

use devices::Part;

use super::messages::expect;
use super::*;

const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

/// A tree in TOML, a line at a time: what a port is below is in the length of its path.
struct Tree {
    source: String,
    devices: u64,
}

impl Tree {
    fn new() -> Self {
        Self {
            source: BOOT.into(),
            devices: 0,
        }
    }

    fn bridge(mut self, name: &str) -> Self {
        self.source += &format!("[[host_bridge]]\nname = \"{name}\"\n");
        self
    }

    /// A port at `depth` (a root port at 0) with what the closure puts into it.
    fn port(mut self, depth: usize, device: impl FnOnce(&str, u64) -> String) -> Self {
        let path = format!("host_bridge.root_port{}", ".device.port".repeat(depth));
        let number = self.devices;
        self.source += &format!("[[{path}]]\nname = \"p{number}\"\n");
        self.source += &device(&format!("[{path}.device]\n"), number);
        self.devices += 1;
        self
    }

    fn switch(self, depth: usize, name: &str) -> Self {
        self.port(depth, |header, _| {
            format!("{header}type = \"switch\"\nname = \"{name}\"\n")
        })
    }

    fn expander(self, depth: usize, name: &str) -> Self {
        self.port(depth, |header, number| {
            format!(
                "{header}type = \"type3\"\nname = \"{name}\"\nserial = {}\nvolatile = \"1GiB\"\n",
                number + 1
            )
        })
    }

    fn window(mut self, targets: &[&str], granularity: &str) -> Self {
        self.source += &format!(
            "[[window]]\nname = \"w0\"\nsize = \"12GiB\"\ntargets = {targets:?}\ngranularity = \"{granularity}\"\n"
        );
        self
    }

    fn region(mut self, size: &str, devices: &[&str]) -> Self {
        self.source += &format!(
            "[[region]]\nname = \"r0\"\nwindow = \"w0\"\nsize = \"{size}\"\ntype = \"volatile\"\ndevices = {devices:?}\n"
        );
        self
    }

    fn parse(&self) -> Config {
        let parsed = Files::new().parse(&self.source);
        parsed.unwrap_or_else(|error| panic!("{error}"))
    }
}

/// Two levels: a switch below each of two root ports, and below the first a switch on either downstream port.
fn two_levels() -> Tree {
    Tree::new()
        .bridge("hb0")
        .switch(0, "a")
        .switch(1, "aa")
        .expander(2, "m0")
        .expander(2, "m1")
        .switch(1, "ab")
        .expander(2, "m2")
        .expander(2, "m3")
        .switch(0, "b")
        .expander(1, "m4")
        .expander(1, "m5")
        .expander(1, "m6")
        .expander(1, "m7")
}

/// The decoders of host bridges and switches as `(place, granularity, targets)`.
fn ports(config: &Config) -> Vec<(Vec<usize>, u64, Vec<u8>)> {
    let plan = &config.plan_regions(&[16 * GIB])[0];
    let decoders = plan.ports.iter();
    decoders
        .map(|d| (d.component.ports.clone(), d.granularity, d.targets.clone()))
        .collect()
}

#[test]
fn the_tree_in_the_file_is_the_tree() {
    let config = two_levels().parse();
    let devices: Vec<(Vec<usize>, &str)> = config
        .devices()
        .map(|(place, device)| (place.ports, device.name.as_str()))
        .collect();
    assert_eq!(devices[0], (vec![0, 0, 0], "m0"));
    assert_eq!(devices[3], (vec![0, 1, 1], "m3"));
    assert_eq!(devices[7], (vec![1, 3], "m7"));
    let switches: Vec<(Vec<usize>, &str)> = config
        .switches()
        .map(|(place, switch)| (place.ports, switch.name.as_str()))
        .collect();
    let expected = [
        (vec![0], "a"),
        (vec![0, 0], "aa"),
        (vec![0, 1], "ab"),
        (vec![1], "b"),
    ];
    assert_eq!(switches, expected);
    let (_, switch) = config.switches().next().unwrap();
    assert_eq!((switch.serial, switch.decoders), (None, 10));
    let cost = switch.performance;
    assert_eq!((cost.read_latency, cost.read_bandwidth), (70, 64.0));
}

#[test]
fn every_key_of_a_switch_is_read() {
    let tree = Tree::new().bridge("hb0").port(0, |header, _| {
        format!(
            "{header}type = \"switch\"\nname = \"sw0\"\nserial = 9\ndecoders = 4\nread_latency = 25\n\
             write_latency = 26\nread_bandwidth = 27\nwrite_bandwidth = 28\n\
             [[host_bridge.root_port.device.port]]\nname = \"dsp0\"\nspeed = \"16GT/s\"\nwidth = 8\n"
        )
    });
    let config = tree.parse();
    let (_, switch) = config.switches().next().unwrap();
    assert_eq!((switch.serial, switch.decoders), (Some(9), 4));
    let expected = Performance {
        read_latency: 25,
        write_latency: 26,
        read_bandwidth: 27.0,
        write_bandwidth: 28.0,
    };
    assert_eq!(switch.performance, expected);
    let port = &switch.ports[0];
    assert_eq!(
        (port.speed, port.width.lanes(), &port.device),
        (pci::LinkSpeed::Gt16, 8, &None)
    );
}

#[test]
fn each_level_works_at_the_granularity_and_the_ways_of_the_level_above() {
    // Root ports take turns, then the ports of each switch, and the ports of the second level last.
    let order = ["m0", "m4", "m2", "m5", "m1", "m6", "m3", "m7"];
    let config = two_levels()
        .window(&["hb0"], "256B")
        .region("2GiB", &order)
        .parse();
    let expected = [
        (vec![], 256, vec![0, 1]),
        (vec![0], 512, vec![0, 1]),
        (vec![0, 0], 1024, vec![0, 1]),
        (vec![0, 1], 1024, vec![0, 1]),
        (vec![1], 512, vec![0, 1, 2, 3]),
    ];
    assert_eq!(ports(&config), expected);
}

#[test]
fn a_switch_of_which_one_port_takes_part_passes_its_granularity_on() {
    let config = two_levels()
        .window(&["hb0"], "16KiB")
        .region("1GiB", &["m3", "m2"])
        .parse();
    let expected = [
        (vec![], 16384, vec![0]),
        (vec![0], 16384, vec![1]),
        (vec![0, 1], 16384, vec![1, 0]),
    ];
    assert_eq!(ports(&config), expected);
}

/// Three bridges with a switch of two expanders on each.
fn three_bridges() -> Tree {
    ["0", "1", "2"].into_iter().fold(Tree::new(), |tree, i| {
        tree.bridge(&format!("hb{i}"))
            .switch(0, &format!("sw{i}"))
            .expander(1, &format!("a{i}"))
            .expander(1, &format!("b{i}"))
    })
}

#[test]
fn below_three_bridges_an_address_bit_chooses_the_port_not_the_round() {
    // Position p goes to bridge p % 3, and there to the port that bit 8 of the address, p % 2, names: at position 1 that
    // is the second one, though it is the first position of its bridge.
    let config = three_bridges()
        .window(&["hb0", "hb1", "hb2"], "256B")
        .region("1536MiB", &["a0", "a1", "a2", "b0", "b1", "b2"])
        .parse();
    let switches: Vec<_> = ports(&config)
        .into_iter()
        .filter(|(place, ..)| !place.is_empty())
        .collect();
    let expected = [
        (vec![0], 256, vec![0, 1]),
        (vec![0], 256, vec![1, 0]),
        (vec![0], 256, vec![0, 1]),
    ];
    assert_eq!(switches, expected);
}

#[test]
fn devices_in_an_order_that_switches_do_not_reach() {
    let tree = two_levels()
        .window(&["hb0"], "256B")
        .region("1GiB", &["m0", "m1", "m4", "m5"]);
    let messages = Files::new().messages(&tree.source);
    assert_eq!(
        messages,
        [
            "host0.toml:91: region[0].devices: positions do not follow the targets of window w0 and of the ports below it, which take turns; write [\"m0\", \"m4\", \"m1\", \"m5\"]"
        ]
    );
}

#[test]
fn devices_that_lie_unevenly_below_their_ports() {
    let message = |devices: &[&str]| {
        let tree = two_levels()
            .window(&["hb0"], "256B")
            .region("1GiB", devices);
        Files::new().messages(&tree.source).remove(0)
    };
    assert_eq!(
        message(&["m0", "m4", "m5", "m6"]),
        "host0.toml:91: region[0].devices: 3 ports of b lead to them; choose devices behind 1, 2, 4 or 8 ports of each host bridge and switch"
    );
    assert_eq!(
        message(&["m0", "m2", "m1", "m4"]),
        "host0.toml:91: region[0].devices: no order of them can be reached: the ports of a host bridge or switch take turns; choose as many devices behind each port as behind the others of its host bridge or switch"
    );
}

#[test]
fn a_granularity_that_the_last_level_cannot_have() {
    let tree = two_levels()
        .window(&["hb0"], "8KiB")
        .region("2GiB", &["m0", "m4", "m2", "m5", "m1", "m6", "m3", "m7"]);
    let messages = Files::new().messages(&tree.source);
    assert_eq!(
        messages,
        [
            "host0.toml:91: region[0].devices: aa would interleave at 32KiB, and 16KiB is the most; give the region a granularity of at most 4KiB"
        ]
    );
}

#[test]
fn a_switch_takes_part_in_as_many_regions_as_it_has_decoders() {
    let tree = Tree::new().bridge("hb0").port(0, |header, _| {
        format!(
            "{header}type = \"switch\"\nname = \"sw0\"\ndecoders = 1\n\
             [[host_bridge.root_port.device.port]]\nname = \"dsp0\"\n\
             [host_bridge.root_port.device.port.device]\ntype = \"type3\"\nname = \"m0\"\nserial = 1\nvolatile = \"1GiB\"\n"
        )
    });
    let tree = tree.window(&["hb0"], "256B").region("256MiB", &["m0"]);
    tree.parse();
    let second = tree.source.find("[[region]]").unwrap();
    let second = tree.source[second..].replace("r0", "r1");
    expect(
        &(tree.source + &second),
        &[
            "host0.toml:7: host_bridge[0].root_port[0].device: sw0 takes part in 2 regions; have at most 1: one for each of its decoders",
        ],
    );
}

#[test]
fn a_switch_without_ports() {
    expect(
        &Tree::new().bridge("hb0").switch(0, "sw0").source,
        &[
            "host0.toml:7: host_bridge[0].root_port[0].device: sw0 has no downstream port; add a port below it, such as [[host_bridge.root_port.device.port]]",
        ],
    );
}

#[test]
fn more_ports_than_a_switch_has_device_numbers_and_a_bridge_buses() {
    let tree = (0..49).fold(Tree::new().bridge("hb0").switch(0, "sw0"), |tree, i| {
        tree.expander(1, &format!("m{i}"))
    });
    expect(
        &tree.source,
        &[
            "host0.toml:3: host_bridge[0]: hb0 needs 52 buses, and has 48; move ports or switches to another host bridge",
            "host0.toml:234: host_bridge[0].root_port[0].device.port[32]: 49 downstream ports are too many; have at most 32 in a switch",
        ],
    );
}

#[test]
fn names_and_serial_numbers_are_unique_across_the_tree() {
    let tree = Tree::new().bridge("hb0").port(0, |header, _| {
        format!(
            "{header}type = \"switch\"\nname = \"x\"\nserial = 1\n\
             [[host_bridge.root_port.device.port]]\nname = \"p0\"\n\
             [host_bridge.root_port.device.port.device]\ntype = \"type3\"\nname = \"x\"\nserial = 1\nvolatile = \"256MiB\"\n"
        )
    });
    expect(
        &tree.source,
        &[
            "host0.toml:12: host_bridge[0].root_port[0].device.port[0].name: p0 is the name of host_bridge[0].root_port[0].name too; choose another",
            "host0.toml:15: host_bridge[0].root_port[0].device.port[0].device.name: x is the name of host_bridge[0].root_port[0].device.name too; choose another",
            "host0.toml:16: host_bridge[0].root_port[0].device.port[0].device.serial: 0x1 is the serial number of host_bridge[0].root_port[0].device.serial too; choose another",
        ],
    );
}

/// An expander below a root port, with these lines more.
fn expander_with(lines: &str) -> Tree {
    let mut tree = Tree::new().bridge("hb0").expander(0, "m0");
    tree.source += lines;
    tree
}

#[test]
fn a_switch_has_a_mailbox_and_an_expander_is_part_of_another_if_the_file_says_so() {
    let part = |lines: &str| {
        let config = expander_with(lines).parse();
        let (_, device) = config.devices().next().unwrap();
        device.part
    };
    assert_eq!(part(""), Part::Whole);
    let logical = |count, own| Part::LogicalDevice { count, own };
    assert_eq!(part("logical_devices = 16\n"), logical(16, 0));
    let lines = "logical_devices = 2\nlogical_device = 1\n";
    assert_eq!(part(lines), logical(2, 1));
    let head = |count, own| Part::Head { count, own };
    assert_eq!(part("heads = 4\n"), head(4, 0));
    assert_eq!(part("heads = 4\nhead = 3\n"), head(4, 3));

    let mailbox = |line: &str| {
        let tree = Tree::new().bridge("hb0").port(0, |header, _| {
            format!("{header}type = \"switch\"\nname = \"a\"\n{line}")
        });
        let config = tree.expander(1, "m0").parse();
        let (_, switch) = config.switches().next().unwrap();
        switch.mailbox_cci
    };
    assert!(!mailbox(""));
    assert!(mailbox("mailbox_cci = true\n"));
}

#[test]
fn a_part_that_there_is_not() {
    for (lines, message) in [
        (
            "logical_devices = 4\nlogical_device = 4\n",
            "host0.toml:13: host_bridge[0].root_port[0].device.logical_device: the device has no logical_device 4; they are numbered from 0",
        ),
        (
            "head = 1\n",
            "host0.toml:12: host_bridge[0].root_port[0].device.head: the device has one head; remove it, or say how many there are with heads",
        ),
        (
            "heads = 1\n",
            "host0.toml:12: host_bridge[0].root_port[0].device.heads: 1 is out of range; write a number from 2 to 16",
        ),
        (
            "heads = 2\nlogical_devices = 2\n",
            "host0.toml:12: host_bridge[0].root_port[0].device.heads: a device with several heads has one logical device at each; remove heads or logical_devices",
        ),
    ] {
        expect(&expander_with(lines).source, &[message]);
    }
}

#[test]
fn a_number_of_decoders_that_no_register_says() {
    expect(
        &Tree::new()
            .bridge("hb0")
            .expander(0, "m0")
            .source
            .replace("name = \"hb0\"", "name = \"hb0\"\ndecoders = 7"),
        &[
            "host0.toml:5: host_bridge[0].decoders: no register says 7 decoders; write 1, 2, 4, 6, 8 or 10",
        ],
    );
}

#[test]
fn check_draws_the_switches() {
    let files = Files::new();
    let config = files.example("switches.toml");
    let drawn = config.topology().unwrap().to_string();
    let start = drawn.find("├── host bridge").unwrap();
    assert_eq!(
        drawn[start..],
        *"\
├── host bridge hb0, ACPI0016 UID 1
│   ├── root port rp0, port number 0, 32GT/s x16
│   │   └── switch sw0, serial 0x100, with a mailbox
│   │       ├── downstream port dsp00, port number 0, 32GT/s x8
│   │       │   └── type 3 mem0, serial 0x1: 512MiB volatile
│   │       └── downstream port dsp01, port number 1, 32GT/s x8
│   │           └── type 3 mem1, serial 0x2: 512MiB volatile, logical device 1 of 4
│   └── root port rp1, port number 1, 32GT/s x16
│       └── switch sw1
│           └── downstream port dsp10, port number 0, 32GT/s x16
│               └── switch sw10
│                   ├── downstream port dsp100, port number 0, 32GT/s x16
│                   │   └── type 3 mem2, serial 0x3: 512MiB volatile
│                   └── downstream port dsp101, port number 1, 32GT/s x16
│                       └── type 3 mem3, serial 0x4: 512MiB volatile
└── window w0 [0x160000000-0x1dfffffff]: 2GiB over hb0 at 256B, for volatile and persistent, QTG 0
    └── region all [0x160000000-0x1dfffffff]: 2GiB volatile, 4-way at 1KiB
        ├── position 0: mem0, DPA [0x0-0x1fffffff]
        ├── position 1: mem2, DPA [0x0-0x1fffffff]
        ├── position 2: mem1, DPA [0x0-0x1fffffff]
        └── position 3: mem3, DPA [0x0-0x1fffffff]
"
    );
    let plan = &config.plan_regions(&[16 * GIB])[0];
    assert!(plan.endpoints.iter().all(|d| d.dpa_size == 512 * MIB));
}
