use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use proptest::prelude::*;

use super::*;
use crate::event::{EventFlags, EventKind, GeneralMedia, Severity};
use crate::mailbox::tests::config;

/// Offsets of the mailbox registers from the mailbox's start (section 8.2.8.4).
const CONTROL: u64 = 0x04;
const COMMAND: u64 = 0x08;
const STATUS: u64 = 0x10;
const PAYLOAD: u64 = 0x20;

fn device() -> DeviceRegisters {
    DeviceRegisters::new(config(), Box::new(|| 0)).unwrap()
}

fn dword(device: &DeviceRegisters, offset: u64) -> u32 {
    let mut data = [0; 4];
    device.read(offset, &mut data);
    u32::from_le_bytes(data)
}

fn qword(device: &DeviceRegisters, offset: u64) -> u64 {
    let mut data = [0; 8];
    device.read(offset, &mut data);
    u64::from_le_bytes(data)
}

/// Offset and length of a capability's registers, found as software finds them.
fn capability(device: &DeviceRegisters, id: u32) -> (u64, u64) {
    let count = qword(device, 0) >> 32 & 0xffff;
    let header = (1..=count)
        .map(|n| n * 0x10)
        .find(|header| dword(device, *header) & 0xffff == id)
        .unwrap();
    (
        dword(device, header + 4).into(),
        dword(device, header + 8).into(),
    )
}

fn mailbox(device: &DeviceRegisters) -> u64 {
    capability(device, 2).0
}

fn ring(device: &mut DeviceRegisters, opcode: u16, input: &[u8], control: u32) -> Vec<Effect> {
    let mailbox = mailbox(device);
    let mut effects = Vec::new();
    device.write(mailbox + PAYLOAD, input, &mut effects);
    let command = u64::from(opcode) | (input.len() as u64) << 16;
    device.write(mailbox + COMMAND, &command.to_le_bytes(), &mut effects);
    assert_eq!(effects, []);
    device.write(mailbox + CONTROL, &control.to_le_bytes(), &mut effects);
    effects
}

fn return_code(device: &DeviceRegisters) -> u64 {
    qword(device, mailbox(device) + STATUS) >> 32 & 0xffff
}

fn snapshot(device: &DeviceRegisters) -> Vec<u8> {
    let mut data = vec![0; DeviceRegisters::SIZE as usize];
    device.read(0, &mut data);
    data
}

#[test]
fn a_fault_shows_in_the_status_and_goes_when_it_is_mended() {
    for (name, fault) in Fault::NAMES {
        let mut device = device();
        let (status, _) = capability(&device, 0x4000);
        device.set_fault(Some(fault), &mut Vec::new());
        let shown = match fault {
            Fault::StuckDoorbell => 0x14,
            Fault::MailboxNotReady => 0x04,
            Fault::MediaNotReady => 0x10,
            Fault::Fatal => 0x15,
            Fault::FirmwareHalt => 0x16,
            Fault::FlushFails => 0x14,
        };
        assert_eq!(qword(&device, status), shown, "{name}");
        device.reset();
        assert_eq!(qword(&device, status), shown, "{name} outlives a reset");
        device.set_fault(None, &mut Vec::new());
        assert_eq!(qword(&device, status), 0x14, "{name}");
    }
}

#[test]
fn a_stuck_doorbell_stays_set_until_the_fault_is_mended() {
    const IDENTIFY: u16 = 0x4000;
    let mut device = device();
    device.set_fault(Some(Fault::StuckDoorbell), &mut Vec::new());
    assert_eq!(ring(&mut device, IDENTIFY, &[], 0b11), []);
    let mailbox = mailbox(&device);
    assert_eq!(dword(&device, mailbox + CONTROL), 0b11);
    device.write(mailbox + CONTROL, &0_u32.to_le_bytes(), &mut Vec::new());
    assert_eq!(
        dword(&device, mailbox + CONTROL),
        1,
        "software cannot clear it"
    );
    let mut effects = Vec::new();
    device.set_fault(None, &mut effects);
    assert_eq!(dword(&device, mailbox + CONTROL), 0);
    assert_eq!(return_code(&device), 0);
    assert_ne!(qword(&device, mailbox + PAYLOAD), 0, "the command has run");
    device.set_fault(Some(Fault::StuckDoorbell), &mut effects);
    ring(&mut device, IDENTIFY, &[], 1);
    device.reset();
    assert_eq!(dword(&device, mailbox + CONTROL), 0, "a reset clears it");
}

#[test]
fn a_device_without_media_runs_commands_all_the_same() {
    let mut device = device();
    device.set_fault(Some(Fault::MediaNotReady), &mut Vec::new());
    ring(&mut device, 0x4000, &[], 1);
    assert_eq!(dword(&device, mailbox(&device) + CONTROL), 0);
}

#[test]
fn the_array_names_status_mailbox_and_memory_device_status() {
    let device = device();
    assert_eq!(qword(&device, 0), 0x0000_0003_0101_0000);
    assert_eq!(capability(&device, 1).1, 8);
    assert_eq!(capability(&device, 2).1, 0x20 + 2048);
    assert_eq!(capability(&device, 0x4000).1, 8);
    for id in [1, 2, 0x4000] {
        let (offset, len) = capability(&device, id);
        assert!(offset >= 0x40 && offset + len <= DeviceRegisters::SIZE);
    }
}

#[test]
fn media_and_mailbox_are_ready() {
    let device = device();
    let (status, _) = capability(&device, 0x4000);
    assert_eq!(qword(&device, status), 0x14);
}

#[test]
fn mailbox_capabilities_tell_payload_size_and_message_number() {
    let device = device();
    // 2^11 bytes, doorbell and background interrupt, message 1, memory device.
    assert_eq!(
        dword(&device, mailbox(&device)),
        11 | 1 << 5 | 1 << 6 | 1 << 7 | 1 << 19
    );
}

#[test]
fn only_control_and_command_registers_are_writable() {
    let mut device = device();
    let before = snapshot(&device);
    let mailbox = mailbox(&device);
    for offset in (0..mailbox + PAYLOAD).step_by(4) {
        if offset != mailbox + CONTROL {
            device.write(offset, &[0xff; 4], &mut Vec::new());
        }
    }
    assert_eq!(qword(&device, mailbox + COMMAND), 0x1f_ffff_ffff);
    device.write(mailbox + COMMAND, &[0; 8], &mut Vec::new());
    device.write(
        mailbox + CONTROL,
        &0xffff_fffe_u32.to_le_bytes(),
        &mut Vec::new(),
    );
    assert_eq!(dword(&device, mailbox + CONTROL), 6);
    device.write(mailbox + CONTROL, &[0; 4], &mut Vec::new());
    assert_eq!(snapshot(&device), before);
}

#[test]
fn a_command_has_completed_when_the_doorbell_write_returns() {
    let mut device = device();
    assert_eq!(ring(&mut device, 0x4000, &[], 1), []);
    let mailbox = mailbox(&device);
    assert_eq!(
        dword(&device, mailbox + CONTROL),
        0,
        "the doorbell is clear"
    );
    assert_eq!(return_code(&device), 0);
    assert_eq!(
        qword(&device, mailbox + COMMAND),
        0x45_4000,
        "length of the reply"
    );
    assert_eq!(qword(&device, mailbox + PAYLOAD + 0x10), 12, "3 GiB");
}

#[test]
fn the_doorbell_interrupt_is_sent_if_enabled() {
    let mut device = device();
    assert_eq!(
        ring(&mut device, 0x0300, &[], 3),
        [Effect::Interrupt { vector: 1 }]
    );
    assert_eq!(
        ring(&mut device, 0x0300, &[], 2),
        [],
        "no doorbell, no command"
    );
}

#[test]
fn a_background_command_shows_its_progress_and_interrupts_when_it_ends() {
    const BACKGROUND: u64 = 0x18;
    let time = Arc::new(AtomicU64::new(0));
    let clock = Arc::clone(&time);
    let clock = Box::new(move || clock.load(Ordering::Relaxed));
    let mut device = DeviceRegisters::new(config(), clock).unwrap();
    // Scan Media of 1 GiB, which takes 100 ms; the background interrupt enabled.
    let scan = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1];
    let alarm = Effect::Alarm { after: 100_000_000 };
    assert_eq!(ring(&mut device, 0x4304, &scan, 0b101), [alarm]);
    let mailbox = mailbox(&device);
    assert_eq!(qword(&device, mailbox + STATUS), 1 << 32 | 1);
    time.store(40_000_000, Ordering::Relaxed);
    assert_eq!(qword(&device, mailbox + BACKGROUND), 40 << 16 | 0x4304);
    let mut effects = Vec::new();
    device.advance(&mut effects);
    assert_eq!(effects, []);
    time.store(100_000_000, Ordering::Relaxed);
    device.advance(&mut effects);
    assert_eq!(effects, [Effect::Interrupt { vector: 1 }]);
    assert_eq!(qword(&device, mailbox + STATUS), 1 << 32);
    assert_eq!(qword(&device, mailbox + BACKGROUND), 100 << 16 | 0x4304);
    // An abort ends it early, and interrupts as well.
    assert_eq!(ring(&mut device, 0x4304, &scan, 0b101), [alarm]);
    let interrupt = [Effect::Interrupt { vector: 1 }];
    assert_eq!(ring(&mut device, 0x0005, &[], 0b101), interrupt);
    let aborted = 0x12 << 32 | 100 << 16 | 0x4304;
    assert_eq!(qword(&device, mailbox + BACKGROUND), aborted);
}

#[test]
fn an_error_has_a_code_and_no_payload() {
    let mut device = device();
    ring(&mut device, 0xbeef, &[1, 2, 3], 1);
    assert_eq!(return_code(&device), 3);
    assert_eq!(qword(&device, mailbox(&device) + COMMAND), 0xbeef);
}

#[test]
fn a_length_beyond_the_payload_is_refused() {
    let mut device = device();
    let mailbox = mailbox(&device);
    for len in [2049, 0x1f_ffff_u64] {
        let command = 0x4103 | len << 16;
        device.write(mailbox + COMMAND, &command.to_le_bytes(), &mut Vec::new());
        device.write(mailbox + CONTROL, &[1, 0, 0, 0], &mut Vec::new());
        assert_eq!(return_code(&device), 0x16);
    }
}

#[test]
fn the_payload_takes_bytes_of_any_width_and_ends_with_its_register() {
    let mut device = device();
    let payload = mailbox(&device) + PAYLOAD;
    device.write(payload + 1, &[0xab], &mut Vec::new());
    device.write(payload + 3, &[1, 2, 3], &mut Vec::new());
    assert_eq!(qword(&device, payload), 0x0000_0302_0100_ab00);
    device.write(payload + 2046, &[0xcd; 8], &mut Vec::new());
    assert_eq!(qword(&device, payload + 2044), 0xcdcd_0000);
    device.write(u64::MAX, &[0xff; 8], &mut Vec::new());
}

#[test]
fn the_event_status_register_shows_logs_with_records() {
    let mut device = device();
    let (status, _) = capability(&device, 1);
    assert_eq!(dword(&device, status), 0);
    ring(&mut device, 0x0103, &[1, 1, 1, 1], 1);
    let event = Event {
        severity: Severity::Failure,
        flags: EventFlags::default(),
        related: 0,
        maintenance_class: 0,
        kind: EventKind::GeneralMedia(GeneralMedia::default()),
    };
    let mut effects = Vec::new();
    device.log_event(&event, &mut effects);
    assert_eq!(effects, [Effect::Interrupt { vector: 4 }]);
    assert_eq!(dword(&device, status), 0b100);
    ring(&mut device, 0x0101, &[2, 0, 1, 0, 0, 0, 1, 0], 1);
    assert_eq!(dword(&device, status), 0);
}

#[test]
fn labels_survive_reset_and_power_cycle() {
    let mut device = device();
    ring(&mut device, 0x4103, &[0, 0, 0, 0, 0, 0, 0, 0, 0x77], 1);
    device.reset();
    device.power_cycle();
    assert_eq!(device.memdev().lsa()[0], 0x77);
}

/// Opcodes that exist, their neighbours, and any other.
fn opcodes() -> impl Strategy<Value = u16> {
    prop_oneof![
        0x0004..0x0006_u16,
        0x00ff..0x0105_u16,
        0x0200..0x0205_u16,
        0x0300..0x0303_u16,
        0x0400..0x0403_u16,
        0x0500..0x0504_u16,
        0x0600..0x0602_u16,
        0x4000..0x4002_u16,
        0x4100..0x4105_u16,
        0x4200..0x4206_u16,
        0x4300..0x4306_u16,
        0x4400..0x4403_u16,
        0x4500..0x4506_u16,
        any::<u16>()
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// 64 cases of 256 accesses: more than 16,000.
    #[test]
    fn no_access_panics_and_reset_restores_reset_values(
        accesses in prop::collection::vec(
            (any::<bool>(), prop_oneof![0..0x140_u64, 0..0x1000_u64, any::<u64>()],
             any::<[u8; 8]>(), prop_oneof![Just(4_usize), Just(8), 0..9_usize], any::<bool>()),
            256,
        ),
    ) {
        let mut device = device();
        let fresh = snapshot(&device);
        for (write, offset, mut data, len, align) in accesses {
            let offset = if align { offset & !7 } else { offset };
            if write {
                device.write(offset, &data[..len], &mut Vec::new());
            } else {
                device.read(offset, &mut data[..len]);
            }
        }
        device.reset();
        prop_assert_eq!(snapshot(&device), fresh);
    }

    /// 64 cases of 256 commands: more than 16,000.
    #[test]
    fn no_command_panics_and_every_code_is_in_the_table(
        commands in prop::collection::vec(
            (opcodes(), prop::collection::vec(prop_oneof![0..4_u8, any::<u8>()], 0..40)), 256,
        ),
    ) {
        let mut device = device();
        for (opcode, input) in commands {
            let effects = ring(&mut device, opcode, &input, 1);
            prop_assert!(return_code(&device) <= 0x1e);
            for effect in effects {
                if let Effect::LsaWritten { offset, len } = effect {
                    prop_assert!(u64::from(offset) + u64::from(len) <= 4096);
                }
            }
        }
        device.power_cycle();
        prop_assert_eq!(snapshot(&device), snapshot(&self::device()));
    }
}
