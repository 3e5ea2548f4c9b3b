//! A guest that means harm, at the board: whatever it writes, what is mapped lies in the windows, without overlap, and is
//! what the windows show.

use super::*;

/// As [`THREE_EXPANDERS`], with mem0 and mem1 below a switch.
const BELOW_A_SWITCH: &str = r#"
[machine]
memory = "64MiB"
[boot]
kernel = "kernel"

[[host_bridge]]
name = "hb0"
[[host_bridge.root_port]]
name = "rp0"
[host_bridge.root_port.device]
type = "switch"
name = "sw0"
[[host_bridge.root_port.device.port]]
name = "dsp0"
[host_bridge.root_port.device.port.device]
type = "type3"
name = "mem0"
serial = 1
volatile = "256MiB"
[[host_bridge.root_port.device.port]]
name = "dsp1"
[host_bridge.root_port.device.port.device]
type = "type3"
name = "mem1"
serial = 2
volatile = "256MiB"

[[host_bridge]]
name = "hb1"
[[host_bridge.root_port]]
name = "rp2"
[host_bridge.root_port.device]
type = "type3"
name = "mem2"
serial = 3
volatile = "256MiB"

[[window]]
name = "w0"
size = "1GiB"
targets = ["hb0"]
[[window]]
name = "w1"
size = "512MiB"
targets = ["hb0", "hb1"]
granularity = "256B"
"#;

/// As [`THREE_EXPANDERS`], with an accelerator for the last of them.
const BESIDE_AN_ACCELERATOR: &str = r#"
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
volatile = "256MiB"
[[host_bridge.root_port]]
name = "rp1"
[host_bridge.root_port.device]
type = "type2"
name = "gpu0"
serial = 3
memory = "256MiB"

[[host_bridge]]
name = "hb1"
[[host_bridge.root_port]]
name = "rp2"
[host_bridge.root_port.device]
type = "type3"
name = "mem1"
serial = 2
volatile = "256MiB"

[[window]]
name = "w0"
size = "1GiB"
targets = ["hb0"]
[[window]]
name = "w1"
size = "512MiB"
targets = ["hb0", "hb1"]
granularity = "256B"
"#;

/// Accesses of each run.
const ACCESSES: usize = 10_000;

/// Marsaglia's xorshift: the same numbers in every run.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    /// A number that registers are likely to react to.
    fn value(&mut self) -> u64 {
        match self.below(4) {
            0 => 0,
            1 => u64::MAX,
            2 => 1 << self.below(64),
            _ => self.next(),
        }
    }

    fn bytes(&mut self) -> Vec<u8> {
        let len = [1, 2, 4, 4, 4, 8, 8, 8][self.below(8) as usize];
        self.value().to_le_bytes()[..len].to_vec()
    }

    /// Ranges of multiples of 256 MiB in and around the windows.
    fn range(&mut self, machine: &Machine) -> AddressRange {
        let window = machine.window(self.below(2) as usize);
        let start = window + self.below(5) * CAPACITY;
        AddressRange {
            start: start - self.below(2) * CAPACITY,
            size: (1 + self.below(4)) * CAPACITY,
        }
    }

    /// One or two ways, of 16 KiB mostly: a new layout moves bytes chunk by chunk.
    fn interleave(&mut self) -> u32 {
        interleaved(1 + self.below(2), 16384)
    }
}

/// One access, or a short run of them that might well do something.
fn act(machine: &Machine, random: &mut Random) {
    let number = random.below(3) as u32;
    let bridge = random.below(2) as usize;
    let device = machine.expander(number);
    match random.below(18) {
        0 => {
            let targets = [0, 1, 0x0100][random.below(3) as usize];
            machine.commit_bridge(bridge, random.range(machine), random.interleave(), targets);
        }
        1 if machine.answers(device) => {
            machine.commit_device(number, random.range(machine), random.interleave());
        }
        2 => machine.write_u32(machine.bridge_registers(bridge) + CONTROL, 0),
        3 if machine.answers(machine.expander(0)) => {
            machine.commit_mem0();
        }
        4 | 5 => {
            let address = machine.bridge_registers(bridge) + 0x1000 + random.below(0x400);
            machine.board.mmio_write(address & !3, &random.bytes());
        }
        6..9 => {
            let near = machine.bar(device, [0, 2, 4][random.below(3) as usize]);
            let offset = random.below(0x1400) & !3;
            let address = near.map_or(random.next(), |bar| bar + offset);
            machine.board.mmio_write(address, &random.bytes());
            machine.board.mmio_read(address, &mut random.bytes());
        }
        9..12 => {
            let bus = [0, 0x20, 0x21, 0x22, 0x23, 0x24, 0x50, 0x51][random.below(8) as usize];
            let place = bus << 20 | random.below(2) << 15 | random.below(0x1000) & !3;
            machine.board.mmio_write(ECAM_BASE + place, &random.bytes());
            machine
                .board
                .mmio_read(ECAM_BASE + place, &mut random.bytes());
        }
        12 => {
            let port = [
                0x70,
                0x3f8,
                0x600,
                0xcf8,
                0xcfc,
                random.below(0x1_0000) as u16,
            ][random.below(6) as usize];
            machine
                .board
                .pio_write(port.saturating_add(random.below(8) as u16), &random.bytes());
            machine.board.pio_read(port, &mut random.bytes());
        }
        13 => {
            let address = machine.window(bridge) + random.below(1 << 30);
            machine.board.mmio_write(address, &random.bytes());
            machine.board.mmio_read(address, &mut random.bytes());
        }
        14 => {
            machine.board.mmio_write(random.next(), &random.bytes());
        }
        15 | 16 => {
            for registers in machine.switch_registers() {
                let ports = [0, 1, 0x0100][random.below(3) as usize];
                machine.commit(registers, random.range(machine), random.interleave(), ports);
                let address = registers + 0x1000 + random.below(0x400);
                machine.board.mmio_write(address & !3, &random.bytes());
            }
        }
        // The machine is not taken down for good: what was reset and lost its place gets one again.
        _ => machine.place_again(),
    }
}

impl Machine {
    /// Resets every function and does the firmware's part again.
    fn place_again(&self) {
        let mut effects = Vec::new();
        let mut state = self.board.lock();
        state.hierarchy.reset(&mut effects);
        state
            .host_bridges
            .iter_mut()
            .for_each(|bridge| bridge.component.reset(&mut Vec::new()));
        let (_, placed) = place(&mut state, &self.layout).unwrap();
        effects.extend(placed);
        self.board.perform(state, effects);
    }

    /// Whether a driver finds the function: its registers have a place, and its bus has the number it should have.
    fn answers(&self, node: NodeId) -> bool {
        let bdf = self.board.lock().hierarchy.bdf(node);
        let found = bdf.and_then(|bdf| self.board.lock().hierarchy.route_config(bdf));
        self.bar(node, 0).is_some() && found == Some(node)
    }

    fn assert_sound(&self) {
        let mapped = self.mapped();
        let mut shown: Vec<_> = self
            .windows
            .shown()
            .iter()
            .map(|shown| (shown.piece.hpa, shown.piece.len, shown.piece.offset))
            .collect();
        shown.sort_unstable();
        assert_eq!(mapped, shown);
        let mut end = 0;
        for (hpa, len, _) in mapped {
            let inside = |window: &AddressRange| window.start <= hpa && hpa + len <= window.end();
            assert!(
                self.layout.windows.iter().any(inside),
                "{len:#x} bytes at {hpa:#x} are in no window"
            );
            assert!(hpa >= end, "{hpa:#x} is mapped twice");
            end = hpa + len;
        }
    }
}

/// Fails if a run of accesses leaves anything unsound, or never shows memory.
fn withstands(machine: &Machine) {
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let mut appeared = 0;
    for _ in 0..ACCESSES {
        act(machine, &mut random);
        machine.assert_sound();
        appeared += machine.mapped().len();
    }
    assert!(
        appeared > 100,
        "hostile guests still get memory now and then"
    );
    machine.place_again();
    assert_eq!(machine.mapped(), []);
}

#[test]
fn the_board_withstands_ten_thousand_hostile_accesses() {
    let Some(machine) = Machine::new(THREE_EXPANDERS) else {
        return;
    };
    withstands(&machine);
    // After all that, a guest that follows the rules gets what it asks for.
    let range = machine.commit_mem0();
    assert_eq!(machine.mapped(), [(range.start, CAPACITY, 0)]);
}

#[test]
fn a_board_with_an_accelerator_withstands_ten_thousand_hostile_accesses() {
    let Some(machine) = Machine::new(BESIDE_AN_ACCELERATOR) else {
        return;
    };
    withstands(&machine);
    let range = AddressRange {
        start: machine.window(0),
        size: CAPACITY,
    };
    machine.commit_bridge(0, range, interleaved(1, 256), 1);
    machine.commit_device(2, range, interleaved(1, 256));
    assert_eq!(machine.mapped(), [(range.start, CAPACITY, 0)]);
}

#[test]
fn a_board_with_a_switch_withstands_ten_thousand_hostile_accesses() {
    let Some(machine) = Machine::new(BELOW_A_SWITCH) else {
        return;
    };
    withstands(&machine);
    let range = AddressRange {
        start: machine.window(0),
        size: 2 * CAPACITY,
    };
    machine.commit_bridge(0, range, interleaved(1, 16384), 0);
    machine.commit(
        machine.switch_registers()[0],
        range,
        interleaved(2, 16384),
        0x0100,
    );
    machine.commit_device(0, range, interleaved(2, 16384));
    machine.commit_device(1, range, interleaved(2, 16384));
    assert_eq!(machine.mapped(), [(range.start, range.size, 0)]);
}
