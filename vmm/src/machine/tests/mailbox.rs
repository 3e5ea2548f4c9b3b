//! Mailbox commands whose work is the machine's: bytes of media, and what has to outlive the machine.

use std::time::{Duration, Instant};

use cxl::device::Fault;
use devices::Device;

use super::*;

/// BAR of the device registers, and the mailbox in them (CXL 3.1 section 8.2.8.4).
const DEVICE_BAR: u8 = 2;
const CONTROL: u64 = 0x104;
const COMMAND: u64 = 0x108;
const STATUS: u64 = 0x110;
const BACKGROUND_STATUS: u64 = 0x118;
const PAYLOAD: u64 = 0x120;

const SET_PARTITION_INFO: u16 = 0x4101;
pub(super) const SET_SHUTDOWN_STATE: u16 = 0x4204;
const SCAN_MEDIA: u16 = 0x4304;
pub(super) const INJECT_POISON: u16 = 0x4301;
pub(super) const CLEAR_POISON: u16 = 0x4302;
const SANITIZE: u16 = 0x4400;
const MEDIA_OPERATIONS: u16 = 0x4402;
const SET_PASSPHRASE: u16 = 0x4501;
const UNLOCK: u16 = 0x4503;

/// Return codes.
const BACKGROUND_STARTED: u64 = 1;

impl Machine {
    /// Runs a mailbox command of expander `number`; gives its return code.
    pub(super) fn command(&self, number: u32, opcode: u16, input: &[u8]) -> u64 {
        let registers = self.bar(self.expander(number), DEVICE_BAR).unwrap();
        for (at, part) in (0..).step_by(8).zip(input.chunks(8)) {
            assert!(
                self.board
                    .mmio_write(registers + PAYLOAD + at, part)
                    .is_none()
            );
        }
        let command = u64::from(opcode) | (input.len() as u64) << 16;
        self.write_u64(registers + COMMAND, command);
        self.write_u32(registers + CONTROL, 1);
        self.read_u64(registers + STATUS) >> 32 & 0xffff
    }
}

#[test]
fn clear_poison_puts_its_data_into_the_media() {
    let Some(machine) = Machine::new(THREE_EXPANDERS) else {
        return;
    };
    let range = machine.commit_mem0();
    machine.store(range.start + 0x1000, &[0xee; 192]);
    let input = [&0x1040_u64.to_le_bytes()[..], &[0x5a; 64]].concat();
    assert_eq!(machine.command(0, CLEAR_POISON, &input), 0);
    let line = machine.media(0, 0x1000, 192);
    assert_eq!(line[..64], [0xee; 64]);
    assert_eq!(line[64..128], [0x5a; 64]);
    assert_eq!(line[128..], [0xee; 64]);
}

#[test]
fn a_device_that_is_sanitized_is_empty_and_out_of_reach() {
    let Some(machine) = Machine::new(THREE_EXPANDERS) else {
        return;
    };
    let range = machine.commit_mem0();
    for dpa in [0, 0x1000, CAPACITY - 8] {
        machine.store(range.start + dpa, b"a secret");
    }
    assert_eq!(machine.command(0, SANITIZE, &[]), BACKGROUND_STARTED);
    assert_eq!(machine.mapped(), []);
    assert_eq!(machine.read_u64(range.start), u64::MAX);
    for dpa in [0, 0x1000, CAPACITY - 8] {
        assert_eq!(machine.media(0, dpa, 8), [0; 8]);
    }
}

#[test]
fn a_range_of_one_member_of_a_set_is_zeroed() {
    let Some(machine) = Machine::new(THREE_EXPANDERS) else {
        return;
    };
    // mem0 and mem2 in window 1, 256 bytes each in turn.
    let range = AddressRange {
        start: machine.window(1),
        size: 2 * CAPACITY,
    };
    let interleave = interleaved(2, 256);
    machine.commit_bridge(0, range, interleaved(1, 512), 0);
    machine.commit_bridge(1, range, interleaved(1, 512), 0);
    machine.commit_device(0, range, interleave);
    machine.commit_device(2, range, interleave);
    machine.store(range.start, &[0xee; 2048]);
    // Sanitize, zero: one range of mem2, 512 bytes from 256 on.
    let mut input = vec![1, 1, 0, 0, 1, 0, 0, 0];
    input.extend([256_u64, 512].into_iter().flat_map(u64::to_le_bytes));
    let code = machine.command(2, MEDIA_OPERATIONS, &input);
    assert_eq!(code, BACKGROUND_STARTED);
    let zeroed = |number| {
        let bytes = machine.media(number, 0, 1024);
        bytes
            .chunks(256)
            .map(|chunk| chunk == [0; 256])
            .collect::<Vec<_>>()
    };
    assert_eq!(zeroed(2), [false, true, true, false]);
    assert_eq!(zeroed(0), [false; 4]);
    assert_eq!(machine.mapped().len(), 1, "the rest can be used meanwhile");
}

/// mem0 with 256 MiB of persistent memory behind its volatile memory, in a file under `directory`.
fn persistent_mem0(directory: &TempDir) -> String {
    let backing = directory.path().join("mem0.img");
    let persistent =
        format!("volatile = \"256MiB\"\npersistent = \"256MiB\"\nbacking = {backing:?}");
    THREE_EXPANDERS.replacen("volatile = \"256MiB\"", &persistent, 1)
}

#[test]
fn a_passphrase_outlives_the_machine_and_hides_persistent_memory_until_it_is_unlocked() {
    let directory = TempDir::new().unwrap();
    let source = persistent_mem0(&directory);
    let passphrase = [7; 32];
    let Some(machine) = Machine::new(&source) else {
        return;
    };
    // Type user, no old passphrase.
    let set = [&[1][..], &[0; 0x3f], &passphrase].concat();
    assert_eq!(machine.command(0, SET_PASSPHRASE, &set), 0);
    drop(machine);

    let Some(machine) = Machine::new(&source) else {
        return;
    };
    let window = machine.window(0);
    let range = |start, size| AddressRange { start, size };
    machine.commit_bridge(0, range(window, 2 * CAPACITY), interleaved(1, 256), 0);
    machine.commit_device(0, range(window, CAPACITY), interleaved(1, 256));
    let persistent = range(window + CAPACITY, CAPACITY);
    let second = machine.device_registers(0) + 0x20;
    machine.commit(second, persistent, interleaved(1, 256), 0);
    let volatile = (window, CAPACITY, 0);
    assert_eq!(machine.mapped(), [volatile]);
    assert_eq!(machine.command(0, UNLOCK, &passphrase), 0);
    assert_eq!(
        machine.mapped(),
        [volatile, (persistent.start, CAPACITY, CAPACITY)]
    );
}

#[test]
fn a_machine_that_dies_with_a_dirty_device_leaves_a_dirty_shutdown() {
    let directory = TempDir::new().unwrap();
    let source = persistent_mem0(&directory);
    let dirty_shutdowns = |machine: &Machine| {
        let node = machine.expander(0);
        match machine.board.lock().hierarchy.get(node) {
            Some(devices::Device::Type3(device)) => device.memdev().health().dirty_shutdowns,
            _ => panic!("mem0 is an expander"),
        }
    };
    for (in_order, count) in [(true, 0), (false, 0), (true, 1), (true, 1)] {
        let Some(machine) = Machine::new(&source) else {
            return;
        };
        assert_eq!(dirty_shutdowns(&machine), count);
        assert_eq!(machine.command(0, SET_SHUTDOWN_STATE, &[1]), 0);
        if in_order {
            machine.board.power_off(|| machine.windows.sync()).unwrap();
        }
    }
}

#[test]
fn a_flush_that_fails_or_does_not_end_in_time_is_a_dirty_shutdown() {
    // The device says that it takes 1 s.
    const ENOUGH: u16 = 0x0601;
    const TOO_LITTLE: u16 = 0x0509;
    let directory = TempDir::new().unwrap();
    let source = persistent_mem0(&directory);
    let mut expected = 0;
    for (fault, timeout, written, is_dirty) in [
        (None, ENOUGH, true, false),
        (None, TOO_LITTLE, true, true),
        (None, ENOUGH, false, true),
        (Some(Fault::FlushFails), ENOUGH, true, true),
        (None, ENOUGH, true, false),
    ] {
        let Some(machine) = Machine::new(&source) else {
            return;
        };
        let node = machine.expander(0);
        machine.set_gpf_timeouts(machine.root_port(node), ENOUGH, timeout);
        match machine.board.lock().hierarchy.get_mut(node) {
            Some(Device::Type3(device)) => {
                assert_eq!(device.memdev().health().dirty_shutdowns, expected);
                device.set_fault(fault, &mut Vec::new());
            }
            _ => panic!("mem0 is an expander"),
        }
        assert_eq!(machine.command(0, SET_SHUTDOWN_STATE, &[1]), 0);
        let end = machine.board.power_off(|| written.then_some(()).ok_or(()));
        assert_eq!(end.is_ok(), written);
        expected += u32::from(is_dirty);
    }
}

#[test]
fn a_new_partition_is_there_after_the_next_power_on() {
    let directory = TempDir::new().unwrap();
    let source = persistent_mem0(&directory).replacen("persistent", "partitionable", 1);
    for volatile in [CAPACITY, 2 * CAPACITY] {
        let Some(machine) = Machine::new(&source) else {
            return;
        };
        let node = machine.expander(0);
        let capacity = match machine.board.lock().hierarchy.get(node) {
            Some(devices::Device::Type3(device)) => device.capacity(),
            _ => panic!("mem0 is an expander"),
        };
        assert_eq!(capacity, (volatile, 2 * CAPACITY - volatile));
        // One unit of 256 MiB, and flags.
        let input = [1, 0, 0, 0, 0, 0, 0, 0, 0];
        assert_eq!(machine.command(0, SET_PARTITION_INFO, &input), 0);
    }
}

#[test]
fn a_background_command_ends_by_itself_when_its_alarm_rings() {
    let Some(machine) = Machine::new(THREE_EXPANDERS) else {
        return;
    };
    let registers = machine.bar(machine.expander(1), DEVICE_BAR).unwrap();
    // One line, no events: some milliseconds.
    let mut input = [0; 17];
    input[8] = 1;
    input[16] = 1;
    assert_eq!(machine.command(1, SCAN_MEDIA, &input), BACKGROUND_STARTED);
    let deadline = Instant::now() + Duration::from_secs(60);
    let percent = || machine.read_u64(registers + BACKGROUND_STATUS) >> 16 & 0x7f;
    while percent() < 100 {
        assert!(Instant::now() < deadline, "it has not ended");
        std::thread::yield_now();
    }
    assert_eq!(machine.read_u64(registers + STATUS) & 1, 0);
}
