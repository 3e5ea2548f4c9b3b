//! An accelerator beside an expander: its memory in a window, and copies between the two.

use std::sync::atomic::Ordering;

use devices::gpu::memory::BASE as DEVICE_BASE;
use devices::gpu::protocol::spec::{Submission, completions_offset, control, flags, op, reg, ring};
use vm_memory::Bytes;

use super::mailbox::SET_SHUTDOWN_STATE;
use super::*;

/// gpu0 and mem0 below one host bridge, and a window that leads there.
const WITH_ACCELERATOR: &str = r#"
[machine]
memory = "64MiB"
[boot]
kernel = "kernel"

[[host_bridge]]
name = "hb0"
[[host_bridge.root_port]]
name = "rp0"
[host_bridge.root_port.device]
type = "type2"
name = "gpu0"
serial = 1
memory = "256MiB"
[[host_bridge.root_port]]
name = "rp1"
[host_bridge.root_port.device]
type = "type3"
name = "mem0"
serial = 2
volatile = "256MiB"

[[window]]
name = "w0"
size = "1GiB"
targets = ["hb0"]
"#;

/// Endpoint numbers: expanders come first.
const MEM0: u32 = 0;
const GPU0: u32 = 1;
/// Registers of decoder 1, from those of decoder 0 on.
const SECOND: u64 = 0x20;
/// Where the guest has its ring and its list of segments.
const RING: u64 = 0x10_0000;
const LIST: u64 = 0x20_0000;
const DEPTH: u32 = 64;

impl Machine {
    /// Lets a function decode its BARs, as a driver does.
    fn enable(&self, node: NodeId) {
        self.config_write(node, 0x04, &6_u16.to_le_bytes());
    }

    /// A control command of the accelerator's: its first output.
    fn control(&self, code: u32, args: [u64; 4]) -> u64 {
        let window = self.bar(self.expander(GPU0), 2).unwrap();
        for (register, arg) in (reg::CONTROL_ARG0..).step_by(8).zip(args) {
            self.write_u64(window + register, arg);
        }
        self.write_u32(window + reg::CONTROL, code);
        let result = self.read_u64(window + reg::CONTROL) >> 32;
        assert_eq!(result, 0, "control command {code}");
        self.read_u64(window + reg::CONTROL_OUT0)
    }

    /// Submits the command with this index to queue 0.
    fn submit(&self, index: u32, command: Submission) {
        let memory = self.reachable.memory();
        let at = |offset: u64| GuestAddress(RING + offset);
        let slot = ring::ENTRIES + u64::from(index) * 64;
        let fixed = u64::from(command.opcode)
            | u64::from(command.flags) << 16
            | u64::from(command.region) << 32;
        let [a, b, c, d] = command.args;
        let words = [fixed, command.offset, command.bytes.into(), 0, a, b, c, d];
        memory.write_obj(words, at(slot)).unwrap();
        let tail = at(ring::SQ_TAIL);
        memory.store(index + 1, tail, Ordering::SeqCst).unwrap();
        self.board
            .lock()
            .accelerators
            .values()
            .for_each(crate::accelerator::Handle::resume);
    }

    /// Executes the command with this index of queue 0, and gives its first value.
    fn execute(&self, index: u32, command: Submission) -> u64 {
        self.submit(index, command);
        let memory = self.reachable.memory();
        let at = |offset: u64| GuestAddress(RING + offset);
        let order = Ordering::SeqCst;
        while memory.load::<u32>(at(ring::CQ_TAIL), order).unwrap() != index + 1 {
            std::thread::yield_now();
        }
        let completion = completions_offset(DEPTH) + u64::from(index) * 64;
        let words: [u64; 5] = memory.read_obj(at(completion)).unwrap();
        assert_eq!(words[1] as u32, 0, "command {:#x}", command.opcode);
        words[4]
    }
}

#[test]
fn the_firmware_leaves_an_accelerators_memory_in_its_window_as_device_coherent() {
    let region = r#"
[[region]]
name = "r0"
window = "w0"
size = "256MiB"
type = "volatile"
devices = ["gpu0"]
"#;
    let Some(machine) = Machine::new(&format!("{WITH_ACCELERATOR}{region}")) else {
        return;
    };
    let shown: Vec<u64> = machine.map.list().iter().map(|slot| slot.hpa).collect();
    assert_eq!(shown, [machine.window(0)]);
    // Committed, and the target range type is clear.
    machine.enable(machine.expander(GPU0));
    for registers in [machine.bridge_registers(0), machine.device_registers(GPU0)] {
        let control = machine.read_u64(registers + CONTROL);
        assert_eq!(control & 0x1600, 0x0600, "{control:#x}");
    }
}

#[test]
fn an_accelerators_memory_shows_in_a_window_and_copies_reach_an_expander() {
    let Some(machine) = Machine::new(WITH_ACCELERATOR) else {
        return;
    };
    let (gpu, mem) = (machine.expander(GPU0), machine.expander(MEM0));
    machine.enable(gpu);
    machine.enable(mem);
    let half = |index: u64| AddressRange {
        start: machine.window(0) + index * CAPACITY,
        size: CAPACITY,
    };
    let ports = machine.bridge_registers(0);
    machine.commit(ports, half(0), 0, 0);
    machine.commit(ports + SECOND, half(1), 0, 1);
    machine.commit_device(GPU0, half(0), 0);
    machine.commit_device(MEM0, half(1), 0);
    let shown: Vec<u64> = machine.map.list().iter().map(|slot| slot.hpa).collect();
    assert_eq!(shown, [half(0).start, half(1).start]);

    let window = machine.bar(gpu, 2).unwrap();
    machine.write_u32(window + reg::VERSION_SELECT, 0x2_0000);
    let session = machine.control(control::SESSION_OPEN, [0; 4]);
    machine.control(control::QUEUE_CREATE, [session, RING, DEPTH.into(), 0]);
    // The expander's memory, by its address.
    let memory = machine.reachable.memory();
    memory
        .write_obj([half(1).start, 0x1000], GuestAddress(LIST))
        .unwrap();
    let region = machine.control(control::REGION_REGISTER, [session, LIST, 1, 1]) as u32;

    let mappable = Submission {
        opcode: op::MEM_ALLOC,
        flags: flags::MAPPABLE,
        args: [0x1000, 0, 0, 0],
        ..Submission::default()
    };
    let address = machine.execute(0, mappable);
    let offset = machine.control(control::PIN, [session, address, 0x1000, 0]);
    assert_eq!(offset, address - DEVICE_BASE);
    let seen_by_host = GuestAddress(half(0).start + offset);

    let secret = *b"from the expander to the GPU....";
    memory
        .write_obj(secret, GuestAddress(half(1).start + 0x100))
        .unwrap();
    let copy = |opcode, offset| Submission {
        opcode,
        region,
        offset,
        bytes: 32,
        args: [address, 0, 0, 0],
        ..Submission::default()
    };
    machine.execute(1, copy(op::MEM_COPY_HTOD, 0x100));
    assert_eq!(memory.read_obj::<[u8; 32]>(seen_by_host).unwrap(), secret);

    // What the host stores to the device's memory is what the device has.
    let answer = *b"and from the GPU to the expander";
    memory.write_obj(answer, seen_by_host).unwrap();
    machine.execute(2, copy(op::MEM_COPY_DTOH, 0x800));
    let mut media = [0; 32];
    machine.windows.read_media(0, 0x800, &mut media).unwrap();
    assert_eq!(media, answer);
}

#[test]
fn an_accelerators_decoders_take_no_interleave() {
    let Some(machine) = Machine::new(WITH_ACCELERATOR) else {
        return;
    };
    machine.enable(machine.expander(GPU0));
    let range = AddressRange {
        start: machine.window(0),
        size: 2 * CAPACITY,
    };
    machine.commit_device(GPU0, range, interleaved(2, 256));
    let control = machine.read_u64(machine.device_registers(GPU0) + CONTROL) as u32;
    assert_eq!(control >> 10 & 3, 2, "an error and not committed");
}

#[test]
fn an_accelerator_that_does_not_stop_in_time_leaves_expanders_as_dirty_as_they_are() {
    for stops in [true, false] {
        let Some(machine) = Machine::new(WITH_ACCELERATOR) else {
            return;
        };
        let (gpu, mem) = (machine.expander(GPU0), machine.expander(MEM0));
        machine.enable(gpu);
        machine.enable(mem);
        let window = machine.bar(gpu, 2).unwrap();
        machine.write_u32(window + reg::VERSION_SELECT, 0x2_0000);
        let session = machine.control(control::SESSION_OPEN, [0; 4]);
        let queue = machine.control(control::QUEUE_CREATE, [session, RING, DEPTH.into(), 0]);
        // A command that waits for one that never comes, or for none.
        let never = Submission {
            opcode: op::WAIT,
            args: [queue, if stops { 0 } else { 100 }, 0, 0],
            ..Submission::default()
        };
        if stops {
            machine.execute(0, never);
        } else {
            machine.submit(0, never);
            let is_idle = || {
                let state = machine.board.lock();
                state.accelerators.values().all(|handle| handle.is_idle())
            };
            while is_idle() {
                std::thread::yield_now();
            }
        }
        assert_eq!(machine.command(MEM0, SET_SHUTDOWN_STATE, &[1]), 0);
        // 1 ms for phase 1, 1 s for phase 2.
        machine.set_gpf_timeouts(machine.root_port(gpu), 0x0301, 0x0601);
        let flushed: Result<(), ()> = machine.board.power_off(|| Ok(()));
        assert_eq!(flushed, Ok(()));
        let state = machine.board.lock();
        let Some(devices::Device::Type3(device)) = state.hierarchy.get(mem) else {
            panic!("mem0 is an expander");
        };
        assert_eq!(device.memdev().shutdown_dirty(), !stops);
    }
}
