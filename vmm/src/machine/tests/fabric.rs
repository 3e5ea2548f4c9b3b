//! What a fabric manager does through a switch's mailbox, as far as it is the machine's work.

use std::time::{Duration, Instant};

use super::*;

/// A switch with a mailbox above mem0 and mem1, over which there is a region.
const SWITCH: &str = r#"
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
mailbox_cci = true
[[host_bridge.root_port.device.port]]
name = "p0"
[host_bridge.root_port.device.port.device]
type = "type3"
name = "mem0"
serial = 1
volatile = "256MiB"
logical_devices = 2
[[host_bridge.root_port.device.port]]
name = "p1"
hotplug = true
[host_bridge.root_port.device.port.device]
type = "type3"
name = "mem1"
serial = 2
volatile = "256MiB"
[[window]]
name = "w0"
size = "512MiB"
targets = ["hb0"]
[[region]]
name = "r0"
window = "w0"
size = "512MiB"
type = "volatile"
devices = ["mem0", "mem1"]
"#;

/// Registers of the mailbox (CXL 3.1 section 8.2.8.4).
const MAILBOX_CONTROL: u64 = 0x104;
const COMMAND: u64 = 0x108;
const STATUS: u64 = 0x110;
const PAYLOAD: u64 = 0x120;

const PHYSICAL_PORT_CONTROL: u16 = 0x5102;
const BIND: u16 = 0x5201;
const UNBIND: u16 = 0x5202;
const TUNNEL: u16 = 0x5300;
const BACKGROUND_STARTED: u64 = 1;

impl Machine {
    /// Where the registers of the only switch with a mailbox are.
    fn fabric_registers(&self) -> u64 {
        let cci = {
            let state = self.board.lock();
            let is_cci = |device: &devices::Device| matches!(device, devices::Device::SwitchCci(_));
            let mut found = state.hierarchy.iter();
            found.find(|(_, device)| is_cci(device)).unwrap().0
        };
        self.bar(cci, 0).unwrap()
    }

    /// Runs a command in its mailbox; gives the return code.
    fn fabric(&self, opcode: u16, input: &[u8]) -> u64 {
        let registers = self.fabric_registers();
        for (at, part) in (0..).step_by(8).zip(input.chunks(8)) {
            self.board.mmio_write(registers + PAYLOAD + at, part);
        }
        let command = u64::from(opcode) | (input.len() as u64) << 16;
        self.write_u64(registers + COMMAND, command);
        self.write_u32(registers + MAILBOX_CONTROL, 1);
        assert_eq!(self.read_u64(registers + MAILBOX_CONTROL) & 1, 0);
        self.read_u64(registers + STATUS) >> 32 & 0xffff
    }
}

#[test]
fn a_device_that_is_held_in_reset_takes_its_region_away() {
    let Some(machine) = Machine::new(SWITCH) else {
        return;
    };
    assert_eq!(machine.map.list().len(), 1);
    assert_eq!(machine.fabric(PHYSICAL_PORT_CONTROL, &[1, 0]), 0);
    assert_eq!(machine.map.list().len(), 0);
    assert_eq!(machine.fabric(PHYSICAL_PORT_CONTROL, &[1, 1]), 0);
    let identify = [1, 0, 12, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0];
    assert_eq!(machine.fabric(TUNNEL, &identify), 0);
}

#[test]
fn a_device_that_is_unbound_takes_its_region_away_and_its_switch_knows_when() {
    let Some(machine) = Machine::new(SWITCH) else {
        return;
    };
    let is_busy = || machine.read_u64(machine.fabric_registers() + STATUS) & 1 != 0;
    let code = machine.fabric(UNBIND, &[0, 1, 2]);
    assert_eq!((code, is_busy()), (BACKGROUND_STARTED, false));
    assert_eq!(machine.map.list().len(), 0);
    let code = machine.fabric(BIND, &[0, 1, 1, 0, 0xff, 0xff]);
    assert_eq!((code, is_busy()), (BACKGROUND_STARTED, false));
}

#[test]
fn a_device_that_is_bound_comes_by_itself_to_a_slot_that_is_off() {
    /// Slot control: power off, and the indicator too (PCI Express 7.5.3.10).
    const SLOT_CONTROL: u16 = 0x18;
    const OFF: u16 = 1 << 10 | 3 << 8;
    /// Slot status: the attention button has been pressed.
    const SLOT_STATUS: u16 = 0x1a;
    const PRESSED: u16 = 1 << 0;
    let Some(machine) = Machine::new(SWITCH) else {
        return;
    };
    assert_eq!(machine.fabric(UNBIND, &[0, 1, 2]), BACKGROUND_STARTED);
    let (port, express) = {
        let state = machine.board.lock();
        let has_slot = |device: &devices::Device| match device {
            devices::Device::DownstreamPort(port) => port.slot().is_some(),
            _ => false,
        };
        let mut found = state.hierarchy.iter();
        let (port, device) = found.find(|(_, device)| has_slot(device)).unwrap();
        let capability = pci::spec::capability::PCI_EXPRESS;
        (port, device.config().find_capability(capability).unwrap())
    };
    machine.config_write(port, express + SLOT_CONTROL, &OFF.to_le_bytes());
    let code = machine.fabric(BIND, &[0, 1, 1, 0, 0xff, 0xff]);
    assert_eq!(code, BACKGROUND_STARTED);
    let deadline = Instant::now() + Duration::from_secs(60);
    while machine.read_u64(machine.fabric_registers() + STATUS) & 1 != 0 {
        assert!(Instant::now() < deadline, "it has not come");
        std::thread::yield_now();
    }
    assert_ne!(machine.config_u16(port, express + SLOT_STATUS) & PRESSED, 0);
}
