//! A guest that means harm: whatever it writes, the device lives, and another session's bytes stay unread and unchanged.

use std::time::Duration;

use vm_memory::{Bytes, GuestAddress};

use super::testing::*;
use super::*;
use crate::memory::BASE;
use crate::protocol::registers::{Registers, Request};
use crate::protocol::spec::{REGISTERS_SIZE, Submission, flags, reg, ring};

const CASES: u32 = 10_000;
/// Found nowhere by chance.
const SECRET: &[u8; 16] = b"\xc3another's bytes";

/// A small generator with a fixed seed, so that a failure comes again (SplitMix64).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len() as u64) as usize]
    }
}

/// A session with a secret in device memory and in guest memory.
struct Victim<'a> {
    client: Client<'a>,
    address: u64,
}

impl<'a> Victim<'a> {
    const BYTES: u64 = 4096;

    fn new(machine: &'a Machine) -> Self {
        let client = machine.client(1);
        let [address, ..] = client.ok(command(op::MEM_ALLOC, [Self::BYTES, 0, 0, 0]));
        let secret = SECRET.repeat(Self::BYTES as usize / SECRET.len());
        let copy = command(op::MEM_COPY_HTOD, [address, 0, 0, 0]);
        client.ok(client.with(0, &secret, copy));
        Self { client, address }
    }

    fn check(&self, attacker: u64) {
        let secret = SECRET.repeat(Self::BYTES as usize / SECRET.len());
        let client = &self.client;
        assert_eq!(client.at(0, secret.len()), secret, "guest memory changed");
        let copy = command(op::MEM_COPY_DTOH, [self.address, 0, 0, 0]);
        client.ok(client.with(0x8000, &vec![0; secret.len()], copy));
        assert_eq!(
            client.at(0x8000, secret.len()),
            secret,
            "device memory changed"
        );
        let memory = client.machine.memory.memory();
        let mut seen = vec![0; DATA_SIZE as usize];
        memory
            .read_slice(&mut seen, GuestAddress(attacker))
            .unwrap();
        let leaked = seen.windows(SECRET.len()).any(|bytes| bytes == SECRET);
        assert!(!leaked, "the secret was read");
    }
}

const OPCODES: [u16; 23] = [
    op::NOP,
    op::MEM_ALLOC,
    op::MEM_ALLOC,
    op::MEM_FREE,
    op::MEM_COPY_HTOD,
    op::MEM_COPY_DTOH,
    op::MEM_COPY_DTOH,
    op::MEM_COPY_DTOD,
    op::MEM_SET,
    op::MEM_INFO,
    op::MEM_RANGE,
    op::MODULE_UNLOAD,
    op::FUNC_GET,
    op::GLOBAL_GET,
    op::FUNC_PARAMS,
    op::FUNC_ATTRIBUTES,
    op::LAUNCH_KERNEL,
    op::TAKE_OUTPUT,
    op::MODULE_LOAD,
    op::BIAS_SET,
    op::BIAS_GET,
    op::BIAS_FLIP,
    op::COHERENCE_STATISTICS,
];

/// What an attacker knows.
struct Known {
    module: u64,
    kernel: u64,
    own: u64,
    foreign: u64,
}

/// Arguments that the command could have been meant to have.
fn sensible(random: &mut Random, opcode: u16, known: &Known) -> [u64; 4] {
    let mut pointer = || {
        let base = random.pick(&[known.own, known.own, known.own + 4096, known.foreign, BASE]);
        base + random.below(3) * 64
    };
    let (to, from) = (pointer(), pointer());
    let bytes = random.below(9000);
    match opcode {
        op::MEM_ALLOC => [bytes, 0, 0, 0],
        op::BIAS_SET | op::BIAS_FLIP => [to, random.below(4) * 4096, random.below(3), 0],
        op::MEM_COPY_DTOD => [to, from, bytes, 0],
        op::MEM_SET => [to, random.next(), random.pick(&[1, 2, 4, 3, 8]), bytes],
        op::MODULE_UNLOAD | op::FUNC_GET | op::GLOBAL_GET => [known.module, 0, 0, 0],
        op::FUNC_PARAMS | op::FUNC_ATTRIBUTES => [known.kernel, 0, 0, 0],
        op::LAUNCH_KERNEL => {
            let dim = random.pick(&[1, 2, 33, 1025, u64::MAX]);
            [known.kernel, 1 << 32 | 1, 32 << 32 | 1, dim << 32 | 1]
        }
        _ => [to, 0, 0, 0],
    }
}

/// A command with fields that are right, nearly right, or anything.
fn damaged(random: &mut Random, client: &Client<'_>, known: &Known) -> Submission {
    let opcode = match random.below(50) {
        0 => random.next() as u16,
        _ => random.pick(&OPCODES),
    };
    let mut args = sensible(random, opcode, known);
    let pool = [
        0,
        1,
        known.module,
        known.kernel,
        known.own,
        known.foreign,
        BASE + MEMORY - 8,
    ];
    let number = |random: &mut Random| match random.below(4) {
        0 => random.next(),
        1 => random.next() >> random.below(64),
        2 => random.pick(&pool).wrapping_add(random.below(8192)),
        _ => random.pick(&pool).wrapping_sub(random.below(16)),
    };
    if random.below(3) == 0 {
        args[random.below(4) as usize] = number(random);
    }
    // The parameters of a launch, the name of a symbol, a text.
    let memory = client.machine.memory.memory();
    let place = random.below(64) * 64;
    let at = GuestAddress(client.data + place);
    let text = random.pick(&[VECTOR_ADD, "vector_add", "\u{1f}"]);
    if opcode == op::LAUNCH_KERNEL {
        let params = [known.own, known.own, number(random), random.below(2000)];
        memory.write_obj(params, at).unwrap();
    } else {
        memory.write_slice(text.as_bytes(), at).unwrap();
    }
    let bytes = match opcode {
        op::LAUNCH_KERNEL => 32,
        op::FUNC_GET | op::GLOBAL_GET | op::MODULE_LOAD => text.len() as u64,
        _ => random.below(9000),
    };
    let wild = random.below(8) == 0;
    Submission {
        opcode,
        flags: match random.below(20) {
            0 => random.next() as u16,
            1 => flags::MAPPABLE,
            _ => 0,
        },
        region: match random.below(20) {
            0 => random.next() as u32,
            1 => 0,
            _ => client.region,
        },
        offset: if wild { number(random) } else { place },
        bytes: if wild {
            number(random) as u32
        } else {
            bytes as u32
        },
        reserved: u32::from(random.below(50) == 0),
        tag: random.next(),
        args,
    }
}

#[test]
fn damaged_commands_reach_nobody_elses_memory() {
    let machine = Machine::with_watchdog(Some(Duration::from_millis(5)));
    let victim = Victim::new(&machine);
    let mut random = Random(1);
    let mut left = CASES;
    while left > 0 {
        let client = machine.client(0);
        let kernel = client.kernel(VECTOR_ADD, "vector_add");
        let [own, ..] = client.ok(command(op::MEM_ALLOC, [8192, 0, 0, 0]));
        let known = Known {
            module: 1,
            kernel,
            own,
            foreign: victim.address,
        };
        // Not for long: a fault ends a session, and what it has freed or unloaded is gone.
        for _ in 0..20 {
            left -= 1;
            client.run(damaged(&mut random, &client, &known));
        }
        if left.is_multiple_of(1000) {
            victim.check(client.data);
        }
        assert_eq!(client.close(), 0);
    }
}

#[test]
fn damaged_rings_stop_their_queue_and_nothing_else() {
    let machine = Machine::new();
    let victim = Victim::new(&machine);
    let mut random = Random(2);
    for _ in 0..500 {
        let client = machine.client(0);
        let (base, bytes) = (client.queues[0].base, ring::ENTRIES + 64 * 64);
        let memory = machine.memory.memory();
        for _ in 0..random.below(20) {
            let at = base + random.below(bytes / 4) * 4;
            let value = random.next() as u32 >> random.below(32);
            memory.write_obj(value, GuestAddress(at)).unwrap();
        }
        let tail = [1, 64, 65, random.next() as u32];
        client.set_index(0, ring::SQ_TAIL, random.pick(&tail));
        client.doorbell(0);
        assert_eq!(client.close(), 0);
    }
    victim.check(DATA);
}

#[test]
fn wild_register_accesses_leave_a_device_that_works() {
    let machine = Machine::with_watchdog(Some(Duration::from_millis(5)));
    let mut registers = Registers::new(machine.device.backend().properties().clone());
    let mut data = vec![0; 0xf000];
    let mut random = Random(3);
    let session = machine.ask(control::SESSION_OPEN, [0; 4]);
    let victim = Victim::new(&machine);
    let pool = [
        0,
        1,
        session,
        DATA,
        RINGS,
        GUEST,
        GUEST - 8,
        64,
        4096,
        BASE,
        victim.address,
        spec_high(1, 1),
        spec_high(32, 1),
    ];
    for _ in 0..CASES {
        let offset = match random.below(6) {
            0 => random.next(),
            1 => random.pick(&[reg::CMD, reg::CONTROL, reg::VERSION_SELECT]),
            2 => reg::PARAM0 + 8 * random.below(8),
            3 => reg::CONTROL_ARG0 + 8 * random.below(4),
            _ => random.below(REGISTERS_SIZE / 4) * 4,
        };
        let value = match (offset, random.below(4)) {
            (reg::CMD, 0..3) => random.pick(&[
                1, 2, 0x10, 0x11, 0x12, 0x20, 0x21, 0x22, 0x23, 0x30, 0x32, 0x40,
            ]),
            (reg::CONTROL, 0..3) => random.below(10),
            (reg::VERSION_SELECT, _) => 0x2_0000,
            (_, 0) => random.next(),
            (_, 1) => random.next() >> random.below(64),
            _ => random.pick(&pool),
        };
        let len = random.pick(&[1, 2, 4, 4, 4, 8, 8, 8]);
        if random.below(3) == 0 {
            let mut read = vec![0; len];
            registers.read(offset, &mut read, || 0);
            continue;
        }
        if random.below(20) == 0 {
            let text = random.pick(&[VECTOR_ADD, "vector_add", "", "\u{1f}"]);
            data[..text.len()].copy_from_slice(text.as_bytes());
            data[text.len()] = 0;
        }
        match registers.write(offset, &value.to_le_bytes()[..len]) {
            Some(Request::Command(command)) => {
                let data = VolatileSlice::from(&mut data[..]);
                let outcome = machine.device.command(&command, data);
                registers.complete(command.serial, outcome);
            }
            Some(Request::Control(control)) => registers.reply(machine.device.control(&control)),
            Some(Request::CloseSessions | Request::Reset) | None => {}
        }
    }
    assert_eq!(victim.client.at(0, 16), SECRET);
    machine.device.reset();
    assert!(machine.client(0).run(command(op::NOP, [0; 4])).result == 0);
}

fn spec_high(high: u64, low: u64) -> u64 {
    high << 32 | low
}
