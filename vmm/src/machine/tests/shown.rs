//! What appears in the windows when decoders commit, and what takes it away again.

use std::sync::Arc;

use super::*;

/// Committed, in a decoder's control register.
const COMMITTED: u64 = 1 << 10;
/// Device Control of the PCI Express capability, and the bit that resets the function.
const DEVICE_CONTROL: u16 = 0x08;
const INITIATE_FLR: u16 = 1 << 15;

#[test]
fn a_committed_chain_shows_the_devices_bytes_in_its_window() {
    let Some(machine) = Machine::new(THREE_EXPANDERS) else {
        return;
    };
    assert_eq!(machine.mapped(), []);
    let range = machine.commit_mem0();
    assert_eq!(machine.mapped(), [(range.start, CAPACITY, 0)]);
    assert!(machine.is_reachable(range.start) && machine.is_reachable(range.end() - 1));
    assert!(!machine.is_reachable(range.end()));
    machine.store(range.start + 0x1234, b"by address");
    assert_eq!(machine.media(0, 0x1234, 10), b"by address");
    assert_eq!(
        machine.media(1, 0x1234, 10),
        [0; 10],
        "the other device's bytes are its own"
    );
}

#[test]
fn nothing_is_shown_until_the_chain_is_whole() {
    let Some(machine) = Machine::new(THREE_EXPANDERS) else {
        return;
    };
    let range = AddressRange {
        start: machine.window(0),
        size: CAPACITY,
    };
    machine.commit_device(0, range, interleaved(1, 256));
    assert_eq!(machine.mapped(), [], "no decoder of the host bridge");
    machine.enable_memory(0, false);
    machine.commit_bridge(0, range, interleaved(1, 256), 0);
    assert_eq!(machine.mapped(), [], "the device does not answer");
    machine.enable_memory(0, true);
    assert_eq!(machine.mapped(), [(range.start, CAPACITY, 0)]);
}

#[test]
fn the_second_decoder_shows_what_follows_in_device_addresses() {
    let Some(machine) = Machine::new(&THREE_EXPANDERS.replacen("256MiB", "512MiB", 1)) else {
        return;
    };
    let window = machine.window(0);
    let range = |start, size| AddressRange { start, size };
    machine.commit_bridge(0, range(window, 4 * CAPACITY), interleaved(1, 256), 0);
    machine.commit_device(0, range(window, CAPACITY), interleaved(1, 256));
    // Decoder 1 of the device, behind decoder 0, elsewhere in the window.
    let second = machine.device_registers(0) + 0x20;
    machine.commit(
        second,
        range(window + 3 * CAPACITY, CAPACITY),
        interleaved(1, 256),
        0,
    );
    assert_eq!(
        machine.mapped(),
        [
            (window, CAPACITY, 0),
            (window + 3 * CAPACITY, CAPACITY, CAPACITY)
        ]
    );
}

/// Takes mem0 out of the address space in one way.
type Breaker = fn(&Machine);

fn release_device(machine: &Machine) {
    machine.write_u32(machine.device_registers(0) + CONTROL, 0);
}

fn release_bridge(machine: &Machine) {
    machine.write_u32(machine.bridge_registers(0) + CONTROL, 0);
}

fn disable_decoders(machine: &Machine) {
    machine.write_u32(machine.device_registers(0) + GLOBAL_CONTROL, 0);
}

fn disable_memory(machine: &Machine) {
    machine.enable_memory(0, false);
}

fn reset_function(machine: &Machine) {
    let node = machine.expander(0);
    let mut express = 0x34;
    while machine.config_u16(node, express) & 0xff != 0x10 {
        express = machine.config_u16(
            node,
            if express == 0x34 {
                express
            } else {
                express + 1
            },
        ) & 0xff;
        assert_ne!(express, 0, "an endpoint has the PCI Express capability");
    }
    let control = machine.config_u16(node, express + DEVICE_CONTROL);
    machine.config_write(
        node,
        express + DEVICE_CONTROL,
        &(control | INITIATE_FLR).to_le_bytes(),
    );
}

fn reset_secondary_bus(machine: &Machine) {
    let port = {
        let device = machine.expander(0);
        *machine.board.lock().hierarchy.path(device).first().unwrap()
    };
    machine.config_write(port, pci::spec::bridge::BRIDGE_CONTROL, &[1 << 6, 0]);
}

#[test]
fn whatever_breaks_the_chain_takes_the_range_away() {
    let breakers: [(&str, Breaker); 5] = [
        ("release of the device's decoder", release_device),
        ("release of the bridge's decoder", release_bridge),
        ("HDM Decoder Enable off", disable_decoders),
        ("Mem_Enable off", disable_memory),
        ("secondary bus reset", reset_secondary_bus),
    ];
    for (name, breaks) in breakers {
        let Some(machine) = Machine::new(THREE_EXPANDERS) else {
            return;
        };
        let range = machine.commit_mem0();
        machine.store(range.start, b"kept");
        assert_eq!(machine.mapped().len(), 1, "{name}");
        breaks(&machine);
        assert_eq!(machine.mapped(), [], "{name}");
        assert!(machine.windows.shown().is_empty(), "{name}");
        assert!(!machine.is_reachable(range.start), "{name}");
        assert_eq!(machine.read_u64(range.start), u64::MAX, "{name}");
        assert_eq!(machine.media(0, 0, 4), b"kept", "{name}");
    }
}

#[test]
fn a_function_level_reset_leaves_the_range() {
    let Some(machine) = Machine::new(THREE_EXPANDERS) else {
        return;
    };
    let range = machine.commit_mem0();
    reset_function(&machine);
    assert_eq!(machine.mapped(), [(range.start, CAPACITY, 0)]);
}

#[test]
fn a_released_range_comes_back_with_its_bytes() {
    let Some(machine) = Machine::new(THREE_EXPANDERS) else {
        return;
    };
    let range = machine.commit_mem0();
    machine.store(range.start, b"kept");
    release_device(&machine);
    // Now at another address.
    release_bridge(&machine);
    let moved = AddressRange {
        start: range.start + CAPACITY,
        ..range
    };
    machine.commit_bridge(0, moved, interleaved(1, 256), 0);
    machine.commit_device(0, moved, interleaved(1, 256));
    assert_eq!(machine.mapped(), [(moved.start, CAPACITY, 0)]);
    assert_eq!(machine.media(0, 0, 4), b"kept");
}

#[test]
fn an_uncommitted_window_reads_ones_drops_writes_and_is_counted() {
    let Some(machine) = Machine::new(THREE_EXPANDERS) else {
        return;
    };
    let address = machine.window(0) + 0x1000;
    assert_eq!(machine.read_u64(address), u64::MAX);
    machine.write_u64(address, 0);
    assert_eq!(machine.read_u64(address), u64::MAX);
    assert_eq!(machine.count(Responder::UnmappedWindow(0)), 3);
    assert_eq!(machine.count(Responder::UnmappedWindow(1)), 0);
    machine.read_u64(machine.window(1) + 512 * MIB - 8);
    assert_eq!(machine.count(Responder::UnmappedWindow(1)), 1);
    machine.commit_mem0();
    assert_eq!(
        machine.media(0, 0x1000, 8),
        [0; 8],
        "nothing was kept for later"
    );
}

/// Stores a number into each chunk of a set and finds it where the CXL specification's decode puts it.
fn assert_alternates(
    machine: &Machine,
    range: AddressRange,
    granularity: u64,
    devices: [usize; 2],
) {
    let last = range.size / granularity - 1;
    for chunk in [0, 1, 2, 3, 0x1001, last - 1, last] {
        let text = format!("chunk {chunk:#x}");
        machine.store(range.start + chunk * granularity + 8, text.as_bytes());
        let device = devices[(chunk % 2) as usize];
        let dpa = chunk / 2 * granularity + 8;
        assert_eq!(machine.media(device, dpa, text.len()), text.as_bytes());
    }
}

#[test]
fn a_two_way_set_over_two_bridges_is_mapped_once_and_linear() {
    let Some(machine) = Machine::new(THREE_EXPANDERS) else {
        return;
    };
    let range = AddressRange {
        start: machine.window(1),
        size: 2 * CAPACITY,
    };
    // The window's 256 bytes alternate between the bridges; each has one port to send them to.
    machine.commit_bridge(0, range, interleaved(1, 256), 0);
    machine.commit_bridge(1, range, interleaved(1, 256), 0);
    machine.commit_device(0, range, interleaved(2, 256));
    assert_eq!(machine.mapped(), [], "half of a set");
    machine.commit_device(2, range, interleaved(2, 256));
    assert_eq!(machine.mapped(), [(range.start, 2 * CAPACITY, 0)]);
    assert_alternates(&machine, range, 256, [0, 2]);
}

#[test]
fn a_two_way_set_over_two_root_ports_follows_the_target_list() {
    let Some(machine) = Machine::new(THREE_EXPANDERS) else {
        return;
    };
    let range = AddressRange {
        start: machine.window(0),
        size: 2 * CAPACITY,
    };
    // Position 0 is port 1.
    machine.commit_bridge(0, range, interleaved(2, 16384), 0x0001);
    machine.commit_device(0, range, interleaved(2, 16384));
    machine.commit_device(1, range, interleaved(2, 16384));
    assert_eq!(machine.mapped(), [(range.start, 2 * CAPACITY, 0)]);
    assert_alternates(&machine, range, 16384, [1, 0]);
}

#[test]
fn nonsense_that_commits_is_not_shown() {
    let Some(machine) = Machine::new(THREE_EXPANDERS) else {
        return;
    };
    let window = machine.window(0);
    let one_way = interleaved(1, 256);
    let whole = AddressRange {
        start: window,
        size: CAPACITY,
    };
    let both = AddressRange {
        start: window,
        size: 2 * CAPACITY,
    };
    let behind = AddressRange {
        start: window + CAPACITY,
        ..whole
    };
    let outside = AddressRange {
        start: 0,
        size: CAPACITY,
    };
    let across = AddressRange {
        start: machine.window(1) + CAPACITY,
        size: 2 * CAPACITY,
    };
    type Attempt = (&'static str, AddressRange, u32, u64, AddressRange, u32);
    let attempts: [Attempt; 5] = [
        ("over RAM", outside, one_way, 0, outside, one_way),
        (
            "to a port with another device",
            whole,
            one_way,
            1,
            whole,
            one_way,
        ),
        (
            "across the end of a window",
            across,
            one_way,
            0,
            across,
            interleaved(2, 256),
        ),
        (
            "one way of two",
            both,
            one_way,
            0,
            both,
            interleaved(2, 256),
        ),
        (
            "where the bridge decodes nothing",
            whole,
            one_way,
            0,
            behind,
            one_way,
        ),
    ];
    for (name, bridge, bridge_interleave, targets, device, interleave) in attempts {
        machine.commit_bridge(0, bridge, bridge_interleave, targets);
        machine.commit_device(0, device, interleave);
        for registers in [machine.bridge_registers(0), machine.device_registers(0)] {
            assert_ne!(
                machine.read_u64(registers + CONTROL) & COMMITTED,
                0,
                "{name}"
            );
        }
        assert_eq!(machine.mapped(), [], "{name}");
        release_device(&machine);
        release_bridge(&machine);
    }
    machine.commit_mem0();
    assert_eq!(machine.mapped().len(), 1, "and sense is still shown");
}

#[test]
fn two_devices_that_claim_one_range_do_not_both_appear() {
    let Some(machine) = Machine::new(THREE_EXPANDERS) else {
        return;
    };
    let range = machine.commit_mem0();
    machine.commit_device(1, range, interleaved(1, 256));
    assert_eq!(machine.mapped(), [(range.start, CAPACITY, 0)]);
    machine.store(range.start, b"mem0");
    assert_eq!(machine.media(0, 0, 4), b"mem0");
}

/// A two-way region over both bridges that the firmware commits.
const REGION: &str = r#"
[[region]]
name = "fast"
window = "w1"
size = "512MiB"
type = "volatile"
devices = ["mem0", "mem2"]
"#;

#[test]
fn a_region_of_the_configuration_is_there_before_the_guest_runs() {
    let Some(machine) = Machine::new(&format!("{THREE_EXPANDERS}{REGION}")) else {
        return;
    };
    let range = AddressRange {
        start: machine.window(1),
        size: 2 * CAPACITY,
    };
    assert_eq!(machine.mapped(), [(range.start, range.size, 0)]);
    assert_alternates(&machine, range, 256, [0, 2]);
}

#[test]
fn kvm_has_a_slot_for_each_range_that_is_shown() {
    let choose = |vm: &Vm| -> Arc<dyn MemoryMap> { vm.memslots().clone() };
    let Some(machine) = Machine::with_map(THREE_EXPANDERS, Arc::default(), choose) else {
        return;
    };
    let slots = || -> Vec<_> {
        machine
            .vm
            .memslots()
            .list()
            .iter()
            .map(|slot| (slot.hpa, slot.len, slot.offset))
            .collect()
    };
    assert_eq!(slots(), []);
    let range = machine.commit_mem0();
    assert_eq!(slots(), [(range.start, CAPACITY, 0)]);
    reset_secondary_bus(&machine);
    assert_eq!(slots(), []);
}
