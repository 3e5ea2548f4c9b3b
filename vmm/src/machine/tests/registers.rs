//! Who answers which address and port, and what becomes of what the models ask for.

use devices::power::SOFT_OFF_SLEEP_TYPE;

use super::*;
use crate::kvm::SystemRequest;
use crate::layout::CHBCR_SIZE;

/// Mailbox registers in the device registers (CXL 3.1 section 8.2.8.4).
const MAILBOX_CONTROL: u64 = 0x104;
const MAILBOX_COMMAND: u64 = 0x108;
const MAILBOX_STATUS: u64 = 0x110;
const MAILBOX_PAYLOAD: u64 = 0x120;
const SET_LSA: u64 = 0x4103;

#[test]
fn component_registers_of_each_bridge_are_where_the_layout_puts_them() {
    let Some(machine) = Machine::new(THREE_EXPANDERS) else {
        return;
    };
    for index in 0..2 {
        let registers = machine.bridge_registers(index);
        // The CXL capability header, with three structures.
        assert_eq!(machine.read_u64(registers + 0x1000) as u32, 0x0311_0001);
        assert_eq!(machine.count(Responder::HostBridge(index)), 1);
    }
    let behind = machine.bridge_registers(1) + CHBCR_SIZE;
    assert_eq!(machine.read_u64(behind), u64::MAX);
    assert_eq!(
        machine.read_u64(behind - 4),
        u64::MAX,
        "half behind the end"
    );
    assert_eq!(machine.count(Responder::Nobody), 2);
}

#[test]
fn ecam_and_the_configuration_ports_reach_the_same_functions() {
    let Some(machine) = Machine::new(THREE_EXPANDERS) else {
        return;
    };
    let node = machine.expander(2);
    let id = 0x0d93_8086_u32;
    let mut data = [0; 4];
    machine.board.mmio_read(machine.ecam(node, 0), &mut data);
    assert_eq!(u32::from_le_bytes(data), id);
    let address = 1 << 31 | u32::from(machine.bdf(node).bits()) << 8;
    assert!(
        machine
            .board
            .pio_write(0xcf8, &address.to_le_bytes())
            .is_none()
    );
    machine.board.pio_read(0xcfc, &mut data);
    assert_eq!(u32::from_le_bytes(data), id);
    let mut device = [0; 2];
    machine.board.pio_read(0xcfe, &mut device);
    assert_eq!(u16::from_le_bytes(device), 0x0d93);
}

#[test]
fn an_ecam_access_of_eight_bytes_is_two_of_four() {
    let Some(machine) = Machine::new(THREE_EXPANDERS) else {
        return;
    };
    let address = machine.ecam(machine.expander(0), 0);
    assert_eq!(machine.read_u64(address) as u32, 0x0d93_8086);
    assert_ne!(machine.read_u64(address) >> 32, u64::from(u32::MAX));
}

#[test]
fn nobody_answers_for_a_bus_without_functions() {
    let Some(machine) = Machine::new(THREE_EXPANDERS) else {
        return;
    };
    assert_eq!(machine.read_u64(ECAM_BASE + (0xff << 20)), u64::MAX);
    assert_eq!(machine.read_u64(0xfedc_0000), u64::MAX);
    let mut port = [0];
    machine.board.pio_read(0x80, &mut port);
    assert_eq!(port, [0xff]);
}

#[test]
fn the_reset_port_and_pm1_control_end_the_run() {
    let Some(machine) = Machine::new(THREE_EXPANDERS) else {
        return;
    };
    assert_eq!(machine.board.pio_write(0xcf9, &[2]), None);
    assert_eq!(
        machine.board.pio_write(0xcf9, &[6]),
        Some(SystemRequest::Reset)
    );
    // Sleep enable, with the sleep type that the DSDT gives for S5.
    let off = 1 << 13 | u16::from(SOFT_OFF_SLEEP_TYPE) << 10;
    assert_eq!(
        machine.board.pio_write(0x604, &off.to_le_bytes()),
        Some(SystemRequest::PowerOff)
    );
    assert_eq!(machine.count(Responder::Power), 3);
}

#[test]
fn label_writes_are_in_their_file_when_the_mailbox_answers() {
    let source = THREE_EXPANDERS.replacen(
        "volatile = \"256MiB\"",
        "persistent = \"256MiB\"\nbacking = \"mem0.img\"\nlsa = \"mem0.lsa\"\nlsa_size = \"128KiB\"",
        1,
    );
    let Some(machine) = Machine::new(&source) else {
        return;
    };
    let registers = machine.bar(machine.expander(0), 2).unwrap();
    // Offset 0x1000, reserved, eight bytes.
    machine.write_u64(registers + MAILBOX_PAYLOAD, 0x1000);
    machine.write_u64(
        registers + MAILBOX_PAYLOAD + 8,
        u64::from_le_bytes(*b"my label"),
    );
    machine.write_u64(registers + MAILBOX_COMMAND, SET_LSA | 16 << 16);
    machine.write_u32(registers + MAILBOX_CONTROL, 1);
    assert_eq!(
        machine.read_u64(registers + MAILBOX_STATUS) >> 32,
        0,
        "success"
    );
    let labels = std::fs::read(machine.files.path().join("mem0.lsa")).unwrap();
    assert_eq!(labels.len(), 128 << 10);
    assert_eq!(&labels[0x1000..0x1008], b"my label");
    assert!(labels[..0x1000].iter().all(|byte| *byte == 0));
}

#[test]
fn an_interrupt_to_nowhere_does_no_harm() {
    let Some(machine) = Machine::new(THREE_EXPANDERS) else {
        return;
    };
    let node = machine.expander(0);
    // Behind the CPMU.
    let vectors = machine.bar(node, 4).unwrap() + 0x1000;
    // An address that is no local APIC's, a vector below 16.
    machine.write_u64(vectors, 0x1234_5678_9abc_def0);
    machine.write_u64(vectors + 8, 3);
    machine.config_write(node, 4, &[6, 0]);
    let mut msix = 0x34;
    while machine.config_u16(node, msix) & 0xff != 0x11 {
        msix = machine.config_u16(node, if msix == 0x34 { msix } else { msix + 1 }) & 0xff;
        assert_ne!(msix, 0, "the expander has MSI-X");
    }
    machine.config_write(node, msix + 2, &[0, 0x80]);
    let registers = machine.bar(node, 2).unwrap();
    machine.write_u64(registers + MAILBOX_COMMAND, 0x4000);
    machine.write_u32(registers + MAILBOX_CONTROL, 3);
    assert_eq!(
        machine.read_u64(registers + MAILBOX_STATUS) >> 32,
        0,
        "the command has run"
    );
}
