//! Devices that come and go: what they bring, what they take, and what stays as it was.

use std::thread;

use devices::{Device, DownstreamPort};

use super::mailbox::SET_SHUTDOWN_STATE;
use super::*;
use crate::control::{Failure, FailureKind, Removal};

/// One host bridge with mem0 below rp0, an empty slot rp1, and rp2 without a slot.
const SLOTS: &str = r#"
[machine]
memory = "64MiB"
[boot]
kernel = "kernel"

[[host_bridge]]
name = "hb0"
[[host_bridge.root_port]]
name = "rp0"
hotplug = true
[host_bridge.root_port.device]
type = "type3"
name = "mem0"
serial = 1
volatile = "256MiB"
[[host_bridge.root_port]]
name = "rp1"
hotplug = true
[[host_bridge.root_port]]
name = "rp2"

[[window]]
name = "w0"
size = "1GiB"
targets = ["hb0"]
"#;

/// Slot control, from the start of the PCI Express capability, with the power off (PCIe 6.0 section 7.5.3.10).
const SLOT_CONTROL: u16 = 0x18;
const POWER_OFF: u16 = 1 << 10;

const MEM1: &str = "type = \"type3\"\nname = \"mem1\"\nserial = 2\nvolatile = \"256MiB\"";

const PMEM: &str = "type = \"type3\"\nname = \"pmem\"\nserial = 9\npersistent = \"256MiB\"\nbacking = \"pmem.img\"";

impl Machine {
    fn add(&self, port: &str, device: &str) -> Result<(), Failure> {
        let file = self.files.path().join("device.toml");
        self.slots.add(port, &file, device.parse().unwrap())
    }

    fn surprise_remove(&self, device: &str) -> Result<(), Failure> {
        self.slots.remove(device, Removal::Surprise, || false)
    }

    /// What is known of a port.
    fn port<T>(&self, name: &str, look: impl Fn(NodeId, &DownstreamPort) -> T) -> T {
        let state = self.board.lock();
        let (node, port) = state.port_named(name).unwrap();
        look(node, port)
    }

    /// Switches the slot of a port, as its driver does.
    fn switch(&self, port: &str, off: bool) {
        let node = self.port(port, |node, _| node);
        let mut capability = 0x34;
        loop {
            let at = if capability == 0x34 {
                0x34
            } else {
                capability + 1
            };
            capability = self.config_u16(node, at) & 0xff;
            if self.config_u16(node, capability) & 0xff == 0x10 {
                break;
            }
        }
        let control = if off { POWER_OFF } else { 0 };
        self.config_write(node, capability + SLOT_CONTROL, &control.to_le_bytes());
    }

    fn first_below(&self, port: &str) -> Option<NodeId> {
        let port = self.port(port, |node, _| node);
        self.board.lock().hierarchy.children(port).first().copied()
    }

    /// Places component and device registers of the device at a port in the port's window, as its driver does.
    fn place_below(&self, port: &str) {
        let (port, device) = (
            self.port(port, |node, _| node),
            self.first_below(port).unwrap(),
        );
        let state = self.board.lock();
        let windows = state.hierarchy.get(port).unwrap().config().bridge_windows();
        drop(state);
        let room = windows.memory.unwrap();
        assert!(room.end() - room.start() >= 0x1f_ffff, "{room:x?}");
        let start = *room.start() as u32;
        self.config_write(device, 0x10, &start.to_le_bytes());
        self.config_write(device, 0x18, &(start + 0x10_0000).to_le_bytes());
        self.config_write(device, 0x04, &[6, 0]);
    }
}

fn kind(result: Result<(), Failure>) -> FailureKind {
    result.unwrap_err().kind
}

#[test]
fn a_device_that_comes_answers_and_shows_its_memory_like_any_other() {
    let Some(machine) = Machine::new(SLOTS) else {
        return;
    };
    machine.add("rp1", MEM1).unwrap();
    assert!(machine.port("rp1", |_, port| port.link()).is_some());
    let node = machine.first_below("rp1").unwrap();
    let mut id = [0; 4];
    machine.board.mmio_read(machine.ecam(node, 0), &mut id);
    assert_eq!(u32::from_le_bytes(id), 0x0d93_8086);

    machine.place_below("rp1");
    let range = AddressRange {
        start: machine.window(0),
        size: CAPACITY,
    };
    machine.commit_bridge(0, range, interleaved(1, 256), 1);
    machine.commit_device(1, range, interleaved(1, 256));
    assert_eq!(machine.mapped(), [(range.start, range.size, 0)]);
    machine.store(range.start + 0x1000, b"here");
    assert_eq!(machine.media(1, 0x1000, 4), b"here");
}

#[test]
fn a_surprise_removal_takes_registers_and_memory_at_once() {
    let Some(machine) = Machine::new(SLOTS) else {
        return;
    };
    let range = machine.commit_mem0();
    assert_eq!(machine.mapped().len(), 1);
    let node = machine.expander(0);
    let (ecam, registers) = (machine.ecam(node, 0), machine.device_registers(0));

    machine.surprise_remove("mem0").unwrap();
    assert_eq!(machine.mapped(), []);
    assert!(!machine.is_reachable(range.start));
    for address in [ecam, registers, range.start] {
        assert_eq!(machine.read_u64(address), u64::MAX, "{address:#x}");
        machine.write_u64(address, 0);
    }
    assert_eq!(machine.port("rp0", |_, port| port.link()), None);
    assert_eq!(kind(machine.surprise_remove("mem0")), FailureKind::NotFound);
}

#[test]
fn one_member_that_goes_takes_the_whole_set_with_it() {
    let Some(machine) = Machine::new(SLOTS) else {
        return;
    };
    machine.add("rp1", MEM1).unwrap();
    machine.place_below("rp1");
    let range = AddressRange {
        start: machine.window(0),
        size: 2 * CAPACITY,
    };
    machine.commit_bridge(0, range, interleaved(2, 256), 0x0100);
    machine.commit_device(0, range, interleaved(2, 256));
    machine.commit_device(1, range, interleaved(2, 256));
    assert_eq!(machine.mapped().len(), 1);
    machine.store(range.start, &[7; 256]);
    machine.surprise_remove("mem1").unwrap();
    assert_eq!(machine.mapped(), []);
    assert_eq!(machine.media(0, 0, 256), [7; 256], "the other's bytes stay");
}

#[test]
fn an_orderly_removal_waits_until_the_guest_switches_the_slot_off() {
    let Some(machine) = Machine::new(SLOTS) else {
        return;
    };
    thread::scope(|scope| {
        let remover = scope.spawn(|| machine.slots.remove("mem0", Removal::Orderly, || false));
        // Whenever the guest does it: before the button is pressed counts as well.
        machine.switch("rp0", true);
        assert_eq!(remover.join().unwrap(), Ok(()));
    });
    assert_eq!(machine.first_below("rp0"), None);
    machine.add("rp0", MEM1).unwrap();
    assert_eq!(
        machine.port("rp0", |_, port| port.link()),
        None,
        "no power yet"
    );
    machine.switch("rp0", false);
    assert!(machine.port("rp0", |_, port| port.link()).is_some());
}

#[test]
fn who_waits_for_a_guest_that_has_ended_gives_up() {
    let Some(machine) = Machine::new(SLOTS) else {
        return;
    };
    let waited = machine.slots.remove("mem0", Removal::Orderly, || true);
    assert_eq!(kind(waited), FailureKind::Conflict);
    assert!(machine.first_below("rp0").is_some(), "it stays");
}

#[test]
fn what_cannot_be_added_or_removed_is_refused_with_the_reason() {
    let Some(machine) = Machine::new(SLOTS) else {
        return;
    };
    let refused = |port: &str, device: &str| {
        let failure = machine.add(port, device).unwrap_err();
        (failure.kind, failure.to_string())
    };
    let names = |(kind, text): (FailureKind, String), expected, part: &str| {
        assert!(kind == expected && text.contains(part), "{kind:?}: {text}");
    };
    names(refused("rp9", MEM1), FailureKind::NotFound, "no port rp9");
    names(
        refused("rp0", MEM1),
        FailureKind::Conflict,
        "the slot of rp0 is not empty",
    );
    names(
        refused("rp2", MEM1),
        FailureKind::Conflict,
        "rp2 has no slot",
    );
    let same_name = MEM1.replace("mem1", "mem0");
    names(
        refused("rp1", &same_name),
        FailureKind::BadRequest,
        "mem0 is the name of",
    );
    let wrong_size = MEM1.replace("256MiB", "1MiB");
    names(
        refused("rp1", &wrong_size),
        FailureKind::BadRequest,
        "multiple of 256MiB",
    );
    let wrong_key = format!("{MEM1}\ncolour = \"red\"");
    names(
        refused("rp1", &wrong_key),
        FailureKind::BadRequest,
        "colour: is not a key",
    );
    assert_eq!(machine.first_below("rp1"), None, "nothing was added");
    assert_eq!(kind(machine.surprise_remove("mem9")), FailureKind::NotFound);
}

#[test]
fn a_file_is_free_once_its_device_has_gone_and_keeps_its_bytes() {
    let Some(machine) = Machine::new(SLOTS) else {
        return;
    };
    machine.add("rp1", PMEM).unwrap();
    machine.surprise_remove("mem0").unwrap();
    let taken = PMEM.replace("pmem\"", "other\"").replace("= 9", "= 10");
    let refused = machine.add("rp0", &taken).unwrap_err().to_string();
    assert!(refused.contains("is the backing of other too"), "{refused}");
    machine.windows.write_media(1, 0x100, b"kept").unwrap();
    machine.surprise_remove("pmem").unwrap();
    machine.add("rp0", &taken).unwrap();
    assert_eq!(machine.media(2, 0x100, 4), b"kept");
}

#[test]
fn a_device_pulled_out_while_dirty_counts_it_and_one_that_was_switched_off_does_not() {
    let Some(machine) = Machine::new(SLOTS) else {
        return;
    };
    let dirty_shutdowns = || {
        let state = machine.board.lock();
        let (node, _) = state.expander_named("pmem").unwrap();
        match state.hierarchy.get(node) {
            Some(Device::Type3(device)) => device.memdev().health().dirty_shutdowns,
            _ => panic!("no expander"),
        }
    };
    for (endpoint, removal, counted) in [(1, Removal::Orderly, 0), (3, Removal::Surprise, 1)] {
        machine.switch("rp1", false);
        machine.add("rp1", PMEM).unwrap();
        assert_eq!(dirty_shutdowns(), 0);
        machine.place_below("rp1");
        assert_eq!(machine.command(endpoint, SET_SHUTDOWN_STATE, &[1]), 0);
        if removal == Removal::Orderly {
            machine.switch("rp1", true);
        }
        machine.slots.remove("pmem", removal, || false).unwrap();
        machine.add("rp1", PMEM).unwrap();
        assert_eq!(dirty_shutdowns(), counted, "{removal:?}");
        machine.surprise_remove("pmem").unwrap();
    }
}

#[test]
fn fifty_rounds_of_coming_and_going_leave_nothing_behind() {
    let Some(machine) = Machine::new(SLOTS) else {
        return;
    };
    let functions = || -> Vec<NodeId> {
        let state = machine.board.lock();
        state.hierarchy.iter().map(|(node, _)| node).collect()
    };
    machine.commit_mem0();
    let (before, mapped) = (functions(), machine.mapped());
    let config = Arc::clone(&machine.slots.inventory());
    for round in 0..50 {
        machine.add("rp1", MEM1).unwrap();
        let node = machine.first_below("rp1").unwrap();
        assert!(matches!(
            machine.board.lock().hierarchy.get(node),
            Some(Device::Type3(_))
        ));
        machine.switch("rp1", round % 2 == 0);
        machine.surprise_remove("mem1").unwrap();
    }
    assert_eq!(functions(), before);
    assert_eq!(machine.mapped(), mapped);
    assert_eq!(machine.board.lock().expanders.len(), 1);
    assert_eq!(*machine.slots.inventory(), config);
}
