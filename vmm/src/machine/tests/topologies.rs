//! Regions that the firmware commits over bridges and switches: every byte is where the specification's formulas put it,
//! worked out here (CXL 3.1 sections 8.2.4.20.13, 9.18.1.3 and 9.18.1.4), and what a guest destroys it can make again.

use std::fmt::Write;

use super::*;

/// What is behind a port.
#[derive(Clone)]
enum Behind {
    Expander,
    Switch(Vec<Behind>),
}

use Behind::Expander;

fn switch(ports: usize) -> Behind {
    Behind::Switch(vec![Expander; ports])
}

/// A machine with one region over all its expanders.
struct Set {
    /// What is behind the root ports of each host bridge.
    bridges: Vec<Vec<Behind>>,
    granularity: u64,
    arithmetic: &'static str,
}

impl Set {
    fn new(bridges: usize, behind: &[Behind], granularity: u64) -> Self {
        Self {
            bridges: vec![behind.to_vec(); bridges],
            granularity,
            arithmetic: "modulo",
        }
    }

    fn by_xor(self) -> Self {
        Self {
            arithmetic: "xor",
            ..self
        }
    }

    /// The expanders below each host bridge, as the numbers of their names, in an order in which ports take turns.
    fn turns(behind: &[Behind], next: &mut usize) -> Vec<usize> {
        let below: Vec<Vec<usize>> = behind
            .iter()
            .map(|behind| match behind {
                Expander => {
                    *next += 1;
                    vec![*next - 1]
                }
                Behind::Switch(ports) => Self::turns(ports, next),
            })
            .collect();
        let rounds = below.first().map_or(0, Vec::len);
        (0..rounds)
            .flat_map(|round| below.iter().map(move |port| port[round]))
            .collect()
    }

    /// The expander at each position of the region.
    fn positions(&self) -> Vec<usize> {
        let mut next = 0;
        let below: Vec<Vec<usize>> = self
            .bridges
            .iter()
            .map(|behind| Self::turns(behind, &mut next))
            .collect();
        let (bridges, ports) = (below.len(), below[0].len());
        // With three bridges an address bit, and not the round, chooses the port: position p takes port p % ports.
        let port = |p: usize| if bridges == 3 { p % ports } else { p / bridges };
        (0..bridges * ports)
            .map(|p| below[p % bridges][port(p)])
            .collect()
    }

    fn size(&self) -> u64 {
        CAPACITY * self.positions().len() as u64
    }

    fn source(&self) -> String {
        let mut source = "[machine]\nmemory = \"64MiB\"\n[boot]\nkernel = \"kernel\"\n".to_string();
        let mut names = 0;
        for (i, behind) in self.bridges.iter().enumerate() {
            writeln!(source, "[[host_bridge]]\nname = \"hb{i}\"").unwrap();
            ports("host_bridge.root_port", behind, &mut names, &mut source);
        }
        let targets: Vec<String> = (0..self.bridges.len()).map(|i| format!("hb{i}")).collect();
        let devices: Vec<String> = self.positions().iter().map(|n| format!("mem{n}")).collect();
        let size = self.size() / MIB;
        let Self {
            granularity,
            arithmetic,
            ..
        } = self;
        write!(
            source,
            "[[window]]\nname = \"w0\"\nsize = \"{size}MiB\"\ntargets = {targets:?}\n\
             granularity = \"{granularity}B\"\narithmetic = \"{arithmetic}\"\n\
             [[region]]\nname = \"r0\"\nwindow = \"w0\"\nsize = \"{size}MiB\"\ntype = \"volatile\"\ndevices = {devices:?}\n"
        )
        .unwrap();
        source
    }

    /// The expander and device address behind an offset in the region.
    fn oracle(&self, offset: u64) -> (usize, u64) {
        let positions = self.positions();
        let (ways, granularity) = (positions.len() as u64, self.granularity);
        let chunk = offset / granularity;
        let mut position = chunk % ways;
        if self.arithmetic == "xor" {
            // The window's bits become parities with the bits six and ten above.
            let bits = self.bridges.len().trailing_zeros();
            for bit in 0..bits {
                let parity = (chunk >> bit ^ chunk >> (bit + 6) ^ chunk >> (bit + 10)) & 1;
                position = position & !(1 << bit) | parity << bit;
            }
        }
        let dpa = chunk / ways * granularity + offset % granularity;
        (positions[usize::try_from(position).unwrap()], dpa)
    }

    /// Starts of chunks: all of the first two stripes, one around every power of two, and the last stripe.
    fn chunks(&self) -> Vec<u64> {
        let stripe = self.granularity * self.positions().len() as u64;
        let within = |start: u64| (start..start + stripe).step_by(self.granularity as usize);
        let mut chunks: Vec<u64> = within(0).chain(within(stripe)).collect();
        chunks.extend(within(self.size() - stripe));
        for bit in stripe.ilog2() + 1..self.size().ilog2() {
            chunks.extend([(1 << bit) - self.granularity, 1 << bit]);
        }
        chunks.retain(|chunk| {
            chunk % self.granularity == 0 && *chunk <= self.size() - self.granularity
        });
        chunks
    }

    /// Stores through the window, and looks for every byte in the devices.
    fn check(&self, machine: &Machine, salt: u64) {
        let window = machine.window(0);
        let bytes = |chunk: u64| -> Vec<u8> {
            let words = (chunk / 8..(chunk + self.granularity) / 8)
                .map(|word| (word + salt).wrapping_mul(0x9e37_79b9_7f4a_7c15));
            words.flat_map(u64::to_le_bytes).collect()
        };
        for chunk in self.chunks() {
            machine.store(window + chunk, &bytes(chunk));
        }
        for chunk in self.chunks() {
            let (device, dpa) = self.oracle(chunk);
            let found = machine.media(device, dpa, self.granularity as usize);
            assert!(
                found == bytes(chunk),
                "{} at {}: offset {chunk:#x} is not at {dpa:#x} of mem{device}",
                self.arithmetic,
                self.granularity
            );
        }
    }
}

fn ports(path: &str, behind: &[Behind], names: &mut usize, source: &mut String) {
    for behind in behind {
        let number = source.len();
        writeln!(source, "[[{path}]]\nname = \"p{number}\"\n[{path}.device]").unwrap();
        match behind {
            Expander => {
                writeln!(
                    source,
                    "type = \"type3\"\nname = \"mem{names}\"\nserial = {}\nvolatile = \"256MiB\"",
                    *names + 1
                )
                .unwrap();
                *names += 1;
            }
            Behind::Switch(below) => {
                writeln!(source, "type = \"switch\"\nname = \"sw{number}\"").unwrap();
                ports(&format!("{path}.device.port"), below, names, source);
            }
        }
    }
}

#[test]
fn every_byte_of_every_set_is_where_the_formulas_put_it() {
    let two_levels = Behind::Switch(vec![switch(2), switch(2)]);
    let sets = [
        Set::new(1, &[Expander, Expander], 16384),
        Set::new(1, &vec![Expander; 8], 256),
        Set::new(1, &[switch(8)], 16384),
        Set::new(1, &[switch(4), switch(4)], 256),
        Set::new(1, &[two_levels.clone(), two_levels.clone()], 256),
        Set::new(1, &[two_levels.clone(), two_levels], 4096),
        Set::new(2, &[switch(8)], 256),
        Set::new(2, &[switch(8)], 8192).by_xor(),
        Set::new(2, &[Expander, Expander], 1024).by_xor(),
        Set::new(4, &[switch(2), switch(2)], 2048),
        Set::new(4, &vec![Expander; 4], 256).by_xor(),
        Set::new(4, &[Expander], 4096).by_xor(),
        Set::new(3, &[Expander], 16384),
        Set::new(3, &[switch(2)], 256),
        Set::new(3, &[Expander, Expander], 16384),
        Set::new(3, &[switch(2), switch(2)], 256).by_xor(),
        Set::new(3, &[switch(4)], 16384),
    ];
    for set in sets {
        let Some(machine) = Machine::new(&set.source()) else {
            return;
        };
        assert_eq!(machine.mapped(), [(machine.window(0), set.size(), 0)]);
        set.check(&machine, 1);
    }
}

#[test]
fn a_region_below_switches_is_destroyed_and_made_again_with_another_order() {
    let set = Set::new(1, &[switch(2), switch(2)], 256);
    let Some(machine) = Machine::new(&set.source()) else {
        return;
    };
    set.check(&machine, 1);
    let range = AddressRange {
        start: machine.window(0),
        size: set.size(),
    };
    let (chunk, (device, dpa)) = (256, set.oracle(256));
    let before = machine.media(device, dpa, 256);
    let switches = machine.switch_registers();
    // As Linux does: from the devices up to the host bridge.
    for number in 0..4 {
        machine.write_u32(machine.device_registers(number) + CONTROL, 0);
        assert_eq!(machine.mapped(), [], "one device is enough");
    }
    for registers in &switches {
        machine.write_u32(registers + CONTROL, 0);
    }
    machine.write_u32(machine.bridge_registers(0) + CONTROL, 0);
    assert_eq!(machine.read_u64(range.start), u64::MAX);

    // The ports of the host bridge and of both switches the other way round, at a larger granularity.
    machine.commit_bridge(0, range, interleaved(2, 4096), 0x0001);
    for registers in &switches {
        machine.commit(*registers, range, interleaved(2, 8192), 0x0001);
    }
    for number in 0..4 {
        assert_eq!(machine.mapped(), [], "{number} of 4 devices");
        machine.commit_device(number, range, interleaved(4, 4096));
    }
    assert_eq!(machine.mapped(), [(range.start, range.size, 0)]);
    assert_eq!(machine.media(device, dpa, 256), before, "{chunk:#x}");
    for (position, device) in [(0, 3), (1, 1), (2, 2), (3, 0)] {
        let token = format!("position {position}");
        machine.store(range.start + position * 4096, token.as_bytes());
        assert_eq!(machine.media(device, 0, token.len()), token.as_bytes());
    }
}

#[test]
fn a_secondary_bus_reset_above_a_switch_takes_its_regions_away() {
    let set = Set::new(1, &[switch(2)], 256);
    let Some(machine) = Machine::new(&set.source()) else {
        return;
    };
    let switch = machine.upstream_ports()[0];
    let port = *machine.board.lock().hierarchy.path(switch).first().unwrap();
    assert_eq!(machine.mapped().len(), 1);
    machine.config_write(port, pci::spec::bridge::BRIDGE_CONTROL, &[1 << 6, 0]);
    assert_eq!(machine.mapped(), []);
}

#[test]
fn locked_decoders_outlast_whatever_a_guest_writes_to_them() {
    let set = Set::new(1, &[switch(2)], 256);
    let source = set.source() + "lock = true\n";
    let Some(machine) = Machine::new(&source) else {
        return;
    };
    let switch = machine.switch_registers()[0];
    for registers in [
        machine.bridge_registers(0),
        switch,
        machine.device_registers(0),
        machine.device_registers(1),
    ] {
        for register in [CONTROL, BASE, SIZE, TARGETS] {
            machine.write_u32(registers + register, 0);
        }
    }
    assert_eq!(machine.mapped(), [(machine.window(0), set.size(), 0)]);
    set.check(&machine, 3);
}

#[test]
fn kvm_takes_the_memory_of_a_set_below_switches_as_one_slot() {
    let set = Set::new(1, &[switch(2), switch(2)], 256);
    let machine = Machine::with_map(&set.source(), Arc::default(), |vm| vm.memslots().clone());
    let Some(machine) = machine else { return };
    let slots = machine.vm.memslots();
    let shown: Vec<(u64, u64)> = slots
        .list()
        .iter()
        .map(|slot| (slot.hpa, slot.len))
        .collect();
    assert_eq!(shown, [(machine.window(0), set.size())]);
    set.check(&machine, 5);
}
