//! The library's requests to the models themselves, and to models that do not do what they should.

use super::{fabric, memory_device};
use crate::interface::{Interface, SUCCESS};
use anyhow::Result;
use cxl::cci::{
    Action, Attached, Binding, Identity, LinkState, Port, PortControl, PortRegisters, SwitchConfig,
    SwitchRegisters,
};
use cxl::mailbox::{ReturnCode, dispatch};
use cxl::memdev::dynamic::DynamicRegion;
use cxl::memdev::fabric::Sharing;
use cxl::memdev::{Memdev, MemdevConfig};
use std::cell::RefCell;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

const GIB: u64 = 1 << 30;
const MS: u64 = 1_000_000;

/// Models, and their time.
#[derive(Clone, Default)]
struct Time(Arc<AtomicU64>);

impl Time {
    fn pass(&self, ns: u64) {
        self.0.fetch_add(ns, Ordering::Relaxed);
    }

    fn clock(&self) -> Box<dyn Fn() -> u64 + Send> {
        let time = Arc::clone(&self.0);
        Box::new(move || time.load(Ordering::Relaxed))
    }
}

fn memdev(config: MemdevConfig, time: &Time) -> Memdev {
    let config = MemdevConfig {
        volatile: GIB,
        firmware_revision: "MEMU 1".to_owned(),
        ..config
    };
    Memdev::new(config, time.clock()).unwrap()
}

/// The mailbox of a memory device, a command of which takes some time.
struct Mailbox {
    memdev: RefCell<Memdev>,
    time: Time,
    command: u64,
}

impl Mailbox {
    fn new(config: MemdevConfig, command: u64) -> Self {
        let time = Time::default();
        let mut memdev = memdev(config, &time);
        // The driver has begun: an interrupt for each log.
        dispatch(&mut memdev, 0x0103, &[1; 4], &mut Vec::new()).unwrap();
        Self {
            memdev: RefCell::new(memdev),
            time,
            command,
        }
    }

    /// With persistent memory, part of which can be made volatile, and labels.
    fn persistent(command: u64) -> Self {
        let config = MemdevConfig {
            persistent: GIB,
            partitionable: GIB,
            lsa: vec![0xa5; 4096],
            ..MemdevConfig::default()
        };
        Self::new(config, command)
    }
}

impl Interface for Mailbox {
    fn send(&self, opcode: u16, input: &[u8]) -> Result<(u16, Vec<u8>)> {
        let mut memdev = self.memdev.borrow_mut();
        self.time.pass(self.command);
        memdev.advance(&mut Vec::new());
        Ok(
            match dispatch(&mut memdev, opcode, input, &mut Vec::new()) {
                Ok(output) => (SUCCESS, output),
                Err(code) => (code as u16, Vec::new()),
            },
        )
    }

    fn pause(&self) {
        self.time.pass(20 * MS);
    }
}

/// Says that a command has succeeded, and does nothing.
struct Deaf<'a> {
    interface: &'a dyn Interface,
    to: u16,
}

impl Interface for Deaf<'_> {
    fn send(&self, opcode: u16, input: &[u8]) -> Result<(u16, Vec<u8>)> {
        match opcode == self.to {
            true => Ok((SUCCESS, Vec::new())),
            false => self.interface.send(opcode, input),
        }
    }

    fn pause(&self) {
        self.interface.pause();
    }
}

#[test]
fn a_memory_device_does_all_that_the_library_asks_for() {
    memory_device::mailbox(&Mailbox::persistent(MS)).unwrap();
    memory_device::mailbox(&Mailbox::new(MemdevConfig::default(), MS)).unwrap();
}

#[test]
fn an_operation_that_ends_before_it_is_aborted_is_begun_again() {
    /// Half of the commands take longer than any operation.
    struct Jumps(Mailbox, RefCell<u32>);
    impl Interface for Jumps {
        fn send(&self, opcode: u16, input: &[u8]) -> Result<(u16, Vec<u8>)> {
            const REQUEST_ABORT: u16 = 0x0005;
            if opcode == REQUEST_ABORT {
                let late = *self.1.borrow() % 4 < 2;
                *self.1.borrow_mut() += 1;
                self.0.time.pass(if late { 1000 * MS } else { 0 });
            }
            self.0.send(opcode, input)
        }
        fn pause(&self) {
            self.0.pause();
        }
    }
    let jumps = Jumps(Mailbox::persistent(MS), RefCell::new(0));
    memory_device::mailbox(&jumps).unwrap();
    assert!(*jumps.1.borrow() > 4, "some came too late");
}

#[test]
fn an_operation_that_is_never_aborted_is_told() {
    // A whole operation within each command.
    let slow = Mailbox::persistent(1000 * MS);
    let error = memory_device::mailbox(&slow).unwrap_err().to_string();
    assert!(error.contains("has always ended before"), "{error}");
}

#[test]
fn a_memory_device_that_does_not_do_what_it_says_is_told() {
    for opcode in [
        0x0005, 0x0100, 0x0101, 0x0102, 0x0103, 0x0200, 0x0201, 0x0202, 0x0300, 0x0301, 0x0400,
        0x0401, 0x0402, 0x0403, 0x0404, 0x0405, 0x4000, 0x4100, 0x4101, 0x4102, 0x4103, 0x4200,
        0x4201, 0x4202, 0x4203, 0x4204, 0x4300, 0x4301, 0x4302, 0x4303, 0x4304, 0x4305, 0x4400,
        0x4401, 0x4500, 0x4501, 0x4502, 0x4503, 0x4504, 0x4505, 0x4700, 0x4800,
    ] {
        let mailbox = Mailbox::persistent(MS);
        let deaf = Deaf {
            interface: &mailbox,
            to: opcode,
        };
        assert!(memory_device::mailbox(&deaf).is_err(), "{opcode:#06x}");
    }
}

const UP: LinkState = LinkState {
    max_width: 16,
    max_speed: 5,
    width: 16,
    speed: 5,
    in_reset: false,
    is_present: true,
    is_off: false,
};

/// A switch above a device, which the host does not have, one of several logical devices, one of several heads, and nothing.
struct Switch {
    registers: RefCell<SwitchRegisters>,
    links: RefCell<Vec<LinkState>>,
    devices: Vec<RefCell<Memdev>>,
}

/// Registers of the mailbox.
const CONTROL: u64 = 0x104;
const COMMAND: u64 = 0x108;
const STATUS: u64 = 0x110;
const PAYLOAD: u64 = 0x120;
const UPSTREAM: u8 = 0xff;
const LOGICAL_DEVICES: (u8, u8) = (3, 1);

impl Switch {
    fn new() -> Self {
        let time = Time::default();
        time.pass(MS);
        let (count, own) = LOGICAL_DEVICES;
        let sharing = [
            Sharing::None,
            Sharing::LogicalDevices { count, own },
            Sharing::Heads {
                count: 2,
                own: 0,
                link: UP,
            },
        ];
        let device = |sharing| {
            let dynamic = DynamicRegion {
                base: GIB,
                decode_len: GIB,
                len: GIB,
                block_size: 2 << 20,
                dsmas: 1,
            };
            let config = MemdevConfig {
                sharing,
                // Of a device with heads its pool has it.
                dynamic: match sharing {
                    Sharing::Heads { .. } => Vec::new(),
                    _ => vec![dynamic],
                },
                ..MemdevConfig::default()
            };
            RefCell::new(memdev(config, &time))
        };
        let registers = SwitchRegisters::new(SwitchConfig {
            identity: Identity::default(),
            upstream: UPSTREAM,
            decoders: 10,
            mailbox_vector: 0,
            event_vector: 1,
            clock: time.clock(),
        });
        Self {
            registers: RefCell::new(registers),
            links: RefCell::new(vec![UP; 4]),
            devices: sharing.map(device).into(),
        }
    }

    fn ports(&self) -> Vec<Port> {
        let (count, own) = LOGICAL_DEVICES;
        let attached = [
            Attached::SingleLogicalDevice,
            Attached::LogicalDevices { count, own },
            Attached::SingleLogicalDevice,
            Attached::Nothing,
        ];
        let port = |(id, (link, attached)): (u8, (&LinkState, Attached))| Port {
            id,
            link: *link,
            attached: Some(attached),
            binding: match id {
                0 => Binding::Unbound,
                _ => Binding::Bound,
            },
            registers: PortRegisters::default(),
        };
        let links = self.links.borrow();
        let upstream = Port {
            id: UPSTREAM,
            link: UP,
            attached: None,
            binding: Binding::Bound,
            registers: PortRegisters::default(),
        };
        let downstream = (0..).zip(links.iter().zip(attached)).map(port);
        [upstream].into_iter().chain(downstream).collect()
    }

    fn perform(&self, action: Action) -> Result<Vec<u8>, ReturnCode> {
        match action {
            Action::Control { port, control } => {
                let link = &mut self.links.borrow_mut()[usize::from(port)];
                *link = match control {
                    PortControl::AssertPerst => LinkState {
                        in_reset: true,
                        width: 0,
                        speed: 0,
                        ..UP
                    },
                    PortControl::DeassertPerst | PortControl::Reset => UP,
                };
                Ok(Vec::new())
            }
            Action::Tunnel { port, message } => {
                let mut device = self.devices[usize::from(port)].borrow_mut();
                device.receive(&message, &mut Vec::new())
            }
            action => panic!("nobody has asked for {action:?}"),
        }
    }
}

impl Interface for Switch {
    fn send(&self, opcode: u16, input: &[u8]) -> Result<(u16, Vec<u8>)> {
        let mut registers = self.registers.borrow_mut();
        registers.write(PAYLOAD, input);
        let command = u64::from(opcode) | (input.len() as u64) << 16;
        registers.write(COMMAND, &command.to_le_bytes());
        registers.write(CONTROL, &1_u32.to_le_bytes());
        if let Some(action) = registers.execute(self.ports(), &mut Vec::new()) {
            let result = self.perform(action);
            registers.complete(result, &mut Vec::new());
        }
        let qword = |offset| {
            let mut data = [0; 8];
            registers.read(offset, &mut data);
            u64::from_le_bytes(data)
        };
        let mut output = vec![0; (qword(COMMAND) >> 16) as usize];
        registers.read(PAYLOAD, &mut output);
        Ok(((qword(STATUS) >> 32) as u16, output))
    }

    fn pause(&self) {}
}

#[test]
fn a_switch_and_what_is_behind_it_do_all_that_the_library_asks_for() {
    fabric::switch(&Switch::new(), 0).unwrap();
}

#[test]
fn a_switch_that_does_not_do_what_it_says_is_told() {
    for opcode in [
        0x0001, 0x0002, 0x0003, 0x0004, 0x0100, 0x0101, 0x0102, 0x0103, 0x0300, 0x0301, 0x0400,
        0x0401, 0x5100, 0x5101, 0x5102, 0x5104, 0x5201, 0x5202, 0x5300, 0x5600, 0x5601, 0x5602,
        0x5603, 0x5604, 0x5605,
    ] {
        let deaf = Deaf {
            interface: &Switch::new(),
            to: opcode,
        };
        assert!(fabric::switch(&deaf, 0).is_err(), "{opcode:#06x}");
    }
}
