use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::*;
use crate::event::{Event, EventFlags, EventKind, GeneralMedia, LOG_CAPACITY, Severity};
use crate::memdev::{MemdevConfig, NonVolatile};

const GIB: u64 = 1 << 30;

pub(crate) fn config() -> MemdevConfig {
    MemdevConfig {
        volatile: GIB,
        persistent: 2 * GIB,
        lsa: vec![0xa5; 4096],
        firmware_revision: "MEMU 1".to_owned(),
        mailbox_vector: 1,
        event_vectors: [2, 3, 4, 5],
        dynamic_vector: 6,
        ..MemdevConfig::default()
    }
}

/// A device and the clock that it goes by.
pub(crate) fn device_with_clock(config: MemdevConfig) -> (Memdev, Arc<AtomicU64>) {
    let time = Arc::new(AtomicU64::new(1000));
    let clock = Arc::clone(&time);
    let memdev = Memdev::new(config, Box::new(move || clock.load(Ordering::Relaxed)));
    (memdev.unwrap(), time)
}

pub(crate) fn device() -> Memdev {
    device_with_clock(config()).0
}

/// A device with 1 GiB that can be either kind.
fn partitionable() -> Memdev {
    let config = MemdevConfig {
        partitionable: GIB,
        ..config()
    };
    device_with_clock(config).0
}

pub(crate) fn run(memdev: &mut Memdev, opcode: u16, input: &[u8]) -> Result<Vec<u8>, ReturnCode> {
    dispatch(memdev, opcode, input, &mut Vec::new())
}

/// A device, and its time.
pub(crate) struct Bench {
    pub memdev: Memdev,
    pub time: Arc<AtomicU64>,
    pub effects: Vec<Effect>,
}

pub(crate) fn bench() -> Bench {
    bench_of(config())
}

pub(crate) fn bench_of(config: MemdevConfig) -> Bench {
    let (memdev, time) = device_with_clock(config);
    Bench {
        memdev,
        time,
        effects: Vec::new(),
    }
}

impl Bench {
    pub fn run(&mut self, opcode: u16, input: &[u8]) -> Result<Vec<u8>, ReturnCode> {
        dispatch(&mut self.memdev, opcode, input, &mut self.effects)
    }

    pub fn pass(&mut self, ns: u64) {
        self.time.fetch_add(ns, Ordering::Relaxed);
    }

    /// Runs a command that goes on in the background for so many ns.
    pub fn start(&mut self, opcode: u16, input: &[u8], duration: u64) {
        let result = self.run(opcode, input);
        assert_eq!(result, Err(ReturnCode::BackgroundStarted));
        let alarm = Effect::Alarm { after: duration };
        assert_eq!(self.effects.pop(), Some(alarm));
        assert!(self.memdev.is_background_running());
    }

    /// Lets the time pass that the operation takes; it ends with this code.
    pub fn finish(&mut self, duration: u64, code: ReturnCode) {
        self.pass(duration - 1);
        assert!(!self.memdev.advance(&mut self.effects));
        self.pass(1);
        assert!(self.memdev.advance(&mut self.effects));
        let status = self.memdev.background_status();
        assert_eq!((status.percent, status.return_code), (100, code as u16));
    }
}

fn qwords(bytes: &[u8]) -> Vec<u64> {
    bytes
        .chunks_exact(8)
        .map(|qword| u64::from_le_bytes(qword.try_into().unwrap()))
        .collect()
}

fn log(memdev: &mut Memdev, severity: Severity, effects: &mut Vec<Effect>) {
    let event = Event {
        severity,
        flags: EventFlags::default(),
        related: 0,
        maintenance_class: 0,
        kind: EventKind::GeneralMedia(GeneralMedia::default()),
    };
    memdev.log_event(&event, effects);
}

#[test]
fn opcodes_increase() {
    assert!(COMMANDS.is_sorted_by(|a, b| a.opcode < b.opcode));
}

#[test]
fn an_unknown_opcode_is_unsupported() {
    let memdev = &mut device();
    for opcode in [0x0000, 0x0104, 0x0503, 0x4403, 0x4800, 0xc000, 0xffff] {
        assert_eq!(run(memdev, opcode, &[]), Err(ReturnCode::Unsupported));
    }
}

#[test]
fn a_payload_of_the_wrong_length_is_refused_and_does_nothing() {
    // Each command with the length of its input; those that take more have no limit to test.
    let lengths = [
        (0x0005, 0),
        (0x0100, 1),
        (0x0102, 0),
        (0x0103, 4),
        (0x0200, 0),
        (0x0202, 2),
        (0x0300, 0),
        (0x0301, 8),
        (0x0400, 0),
        (0x0401, 24),
        (0x0500, 8),
        (0x0501, 21),
        (0x4000, 0),
        (0x4100, 0),
        (0x4102, 8),
        (0x4200, 0),
        (0x4201, 0),
        (0x4202, 12),
        (0x4203, 0),
        (0x4204, 1),
        (0x4300, 16),
        (0x4301, 8),
        (0x4302, 72),
        (0x4303, 16),
        (0x4304, 17),
        (0x4305, 0),
        (0x4400, 0),
        (0x4401, 0),
        (0x4500, 0),
        (0x4501, 0x60),
        (0x4502, 0x40),
        (0x4503, 0x20),
        (0x4504, 0),
        (0x4505, 0x40),
    ];
    let memdev = &mut partitionable();
    let mut effects = Vec::new();
    for (opcode, len) in lengths {
        for wrong in (0..128).filter(|wrong| *wrong != len) {
            assert_eq!(
                dispatch(memdev, opcode, &vec![0; wrong], &mut effects),
                Err(ReturnCode::InvalidPayloadLength),
                "{opcode:#06x} with {wrong} bytes"
            );
        }
    }
    for (opcode, too_short) in [
        (0x0101, 5),
        (0x0201, 127),
        (0x0502, 31),
        (0x0600, 1),
        (0x4101, 8),
        (0x4103, 7),
        (0x4402, 7),
    ] {
        let result = dispatch(memdev, opcode, &vec![0; too_short], &mut effects);
        assert_eq!(result, Err(ReturnCode::InvalidPayloadLength));
    }
    assert!(effects.is_empty());
}

#[test]
fn identify_reports_capacity_in_units_of_256_mib() {
    let identity = run(&mut device(), 0x4000, &[]).unwrap();
    assert_eq!(identity.len(), 0x45);
    assert_eq!(identity[..8], *b"MEMU 1\0\0");
    assert_eq!(qwords(&identity[0x10..0x30]), [12, 4, 8, 0]);
    let log_size = LOG_CAPACITY as u8;
    assert_eq!(
        identity[0x30..0x38],
        [log_size, 0, log_size, 0, log_size, 0, log_size, 0]
    );
    assert_eq!(identity[0x38..0x3c], 4096_u32.to_le_bytes());
    let identity = run(&mut partitionable(), 0x4000, &[]).unwrap();
    assert_eq!(qwords(&identity[0x10..0x30]), [16, 4, 8, 1]);
    // 256 lines of poison list, 128 of them injected, which stay where the memory is persistent.
    assert_eq!(identity[0x3c..0x42], [0, 1, 0, 128, 0, 1]);
}

#[test]
fn the_command_effects_log_lists_what_works() {
    let memdev = &mut device();
    let logs = run(memdev, 0x0400, &[]).unwrap();
    assert_eq!(logs[..2], [3, 0]);
    assert_eq!(logs[8..12], [0x0d, 0xa9, 0xc0, 0xb5]);
    let size: [u8; 4] = logs[24..28].try_into().unwrap();

    let request = [&logs[8..24], &[0; 4], &size].concat();
    let log = run(memdev, 0x0401, &request).unwrap();
    let opcodes: Vec<u16> = log
        .chunks_exact(4)
        .map(|entry| u16::from_le_bytes([entry[0], entry[1]]))
        .collect();
    assert_eq!(log.len(), u32::from_le_bytes(size) as usize);
    assert!(!opcodes.contains(&0x4101), "nothing to partition");
    for opcode in opcodes {
        let result = run(memdev, opcode, &[]);
        assert_ne!(result, Err(ReturnCode::Unsupported), "{opcode:#06x}");
    }
}

#[test]
fn a_log_is_read_in_parts_but_not_beyond_its_end() {
    let memdev = &mut device();
    let get = |memdev: &mut Memdev, uuid: [u8; 16], offset: u32, len: u32| {
        let request = [&uuid[..], &offset.to_le_bytes(), &len.to_le_bytes()].concat();
        run(memdev, 0x0401, &request)
    };
    let uuid = logs::COMMAND_EFFECTS_LOG;
    assert_eq!(get(memdev, uuid, 8, 4).unwrap()[..2], [0x01, 0x01]);
    assert_eq!(get(memdev, uuid, 4, 4096), Err(ReturnCode::InvalidInput));
    assert_eq!(
        get(memdev, uuid, u32::MAX, u32::MAX),
        Err(ReturnCode::InvalidInput)
    );
    assert_eq!(get(memdev, [0; 16], 0, 4), Err(ReturnCode::InvalidLog));
}

#[test]
fn the_timestamp_goes_on_from_where_it_was_set() {
    let (mut memdev, time) = device_with_clock(config());
    assert_eq!(run(&mut memdev, 0x0300, &[]), Ok(vec![0; 8]), "never set");
    run(&mut memdev, 0x0301, &5_000_000_u64.to_le_bytes()).unwrap();
    time.fetch_add(234, Ordering::Relaxed);
    let expected = 5_000_234_u64.to_le_bytes().to_vec();
    assert_eq!(run(&mut memdev, 0x0300, &[]), Ok(expected));
    memdev.reset();
    assert_eq!(run(&mut memdev, 0x0300, &[]), Ok(vec![0; 8]));
}

#[test]
fn a_new_partition_waits_for_the_power_cycle() {
    let mut memdev = partitionable();
    let info = |memdev: &mut Memdev| qwords(&run(memdev, 0x4100, &[]).unwrap());
    assert_eq!(info(&mut memdev), [4, 12, 0, 0]);
    let mut effects = Vec::new();
    dispatch(
        &mut memdev,
        0x4101,
        &[3, 0, 0, 0, 0, 0, 0, 0, 0],
        &mut effects,
    )
    .unwrap();
    assert_eq!(effects, [Effect::NonVolatileChanged]);
    assert_eq!(memdev.nonvolatile().partition_volatile, 3 * GIB / 4);
    assert_eq!(info(&mut memdev), [4, 12, 7, 9]);
    memdev.reset();
    assert_eq!(info(&mut memdev), [4, 12, 7, 9]);
    memdev.power_cycle();
    assert_eq!(info(&mut memdev), [7, 9, 0, 0]);
}

#[test]
fn an_impossible_partition_is_refused() {
    let memdev = &mut partitionable();
    for (volatile, flags) in [(5_u64, 0_u8), (1 << 60, 0), (u64::MAX, 0), (1, 1)] {
        let request = [&volatile.to_le_bytes()[..], &[flags]].concat();
        assert_eq!(run(memdev, 0x4101, &request), Err(ReturnCode::InvalidInput));
    }
    assert_eq!(
        run(&mut device(), 0x4101, &[0; 9]),
        Err(ReturnCode::Unsupported)
    );
}

#[test]
fn labels_are_written_read_back_and_reported() {
    let memdev = &mut device();
    let mut effects = Vec::new();
    let set = [&16_u32.to_le_bytes()[..], &[0; 4], b"label"].concat();
    assert_eq!(dispatch(memdev, 0x4103, &set, &mut effects), Ok(vec![]));
    assert_eq!(effects, [Effect::LsaWritten { offset: 16, len: 5 }]);
    let get = [15_u32.to_le_bytes(), 7_u32.to_le_bytes()].concat();
    assert_eq!(run(memdev, 0x4102, &get).unwrap(), *b"\xa5label\xa5");
    assert_eq!(memdev.lsa()[16..21], *b"label");
    memdev.power_cycle();
    assert_eq!(memdev.lsa()[16..21], *b"label");
}

#[test]
fn labels_end_with_their_area() {
    let memdev = &mut device();
    for (offset, len) in [(4096_u32, 1_u32), (4000, 97), (u32::MAX, 2), (0, 2049)] {
        let get = [offset.to_le_bytes(), len.to_le_bytes()].concat();
        assert_eq!(run(memdev, 0x4102, &get), Err(ReturnCode::InvalidInput));
    }
    let set = [&4095_u32.to_le_bytes()[..], &[0; 4], b"ab"].concat();
    assert_eq!(run(memdev, 0x4103, &set), Err(ReturnCode::InvalidInput));
    assert_eq!(memdev.lsa(), [0xa5; 4096]);

    let without = MemdevConfig {
        lsa: Vec::new(),
        ..config()
    };
    let memdev = &mut device_with_clock(without).0;
    assert_eq!(run(memdev, 0x4102, &[0; 8]), Err(ReturnCode::Unsupported));
    assert_eq!(run(memdev, 0x4103, &[0; 8]), Err(ReturnCode::Unsupported));
}

#[test]
fn event_records_come_in_payloads_until_cleared() {
    let memdev = &mut device();
    for _ in 0..16 {
        log(memdev, Severity::Warning, &mut Vec::new());
    }
    let records = run(memdev, 0x0100, &[1]).unwrap();
    assert_eq!(records.len(), 0x20 + 15 * 128);
    assert_eq!(records[0], 0b10, "there is more");
    assert_eq!(records[0x14..0x16], [15, 0]);
    assert_eq!(
        run(memdev, 0x0100, &[0]).unwrap(),
        [0; 0x20],
        "the other log is empty"
    );

    let mut clear = vec![1, 0, 15, 0, 0, 0];
    clear.extend((1..=15_u16).flat_map(u16::to_le_bytes));
    run(memdev, 0x0101, &clear).unwrap();
    let records = run(memdev, 0x0100, &[1]).unwrap();
    assert_eq!([records[0], records[0x14]], [0, 1]);
    // The handle is in the header after the UUID, length and flags.
    assert_eq!(records[0x20 + 20..0x20 + 22], [16, 0]);
}

#[test]
fn an_overflow_is_reported_and_can_be_cleared_at_once() {
    let (mut memdev, time) = device_with_clock(config());
    run(&mut memdev, 0x0301, &0x1111_u64.to_le_bytes()).unwrap();
    for _ in 0..LOG_CAPACITY + 2 {
        time.fetch_add(1, Ordering::Relaxed);
        log(&mut memdev, Severity::Fatal, &mut Vec::new());
    }
    let records = run(&mut memdev, 0x0100, &[3]).unwrap();
    let dropped = 0x1111 + LOG_CAPACITY as u64;
    assert_eq!(records[..4], [0b11, 0, 2, 0]);
    assert_eq!(qwords(&records[4..20]), [dropped + 1, dropped + 2]);
    run(&mut memdev, 0x0101, &[3, 1, 0, 0, 0, 0]).unwrap();
    assert_eq!(run(&mut memdev, 0x0100, &[3]).unwrap(), [0; 0x20]);
}

#[test]
fn bad_clears_are_refused() {
    let memdev = &mut device();
    log(memdev, Severity::Failure, &mut Vec::new());
    let refused = [
        (vec![4, 0, 1, 0, 0, 0, 1, 0], ReturnCode::InvalidInput),
        (vec![2, 0, 0, 0, 0, 0], ReturnCode::InvalidInput),
        (vec![2, 1, 0, 0, 0, 0], ReturnCode::InvalidInput),
        (vec![2, 1, 1, 0, 0, 0, 1, 0], ReturnCode::InvalidInput),
        (vec![2, 0, 1, 0, 0, 0, 2, 0], ReturnCode::InvalidHandle),
        (
            vec![2, 0, 2, 0, 0, 0, 1, 0],
            ReturnCode::InvalidPayloadLength,
        ),
        (
            vec![2, 0, 1, 0, 0, 0, 1, 0, 0],
            ReturnCode::InvalidPayloadLength,
        ),
    ];
    for (request, code) in refused {
        assert_eq!(run(memdev, 0x0101, &request), Err(code), "{request:?}");
    }
    assert_eq!(run(memdev, 0x0100, &[4]), Err(ReturnCode::InvalidInput));
    assert_eq!(memdev.events().status(), 0b100);
}

#[test]
fn the_interrupt_policy_decides_who_is_notified() {
    let memdev = &mut device();
    assert_eq!(run(memdev, 0x0102, &[]).unwrap(), [0; 4]);
    run(memdev, 0x0103, &[1, 0, 1, 0]).unwrap();
    assert_eq!(run(memdev, 0x0102, &[]).unwrap(), [0x21, 0, 0x41, 0]);
    let mut effects = Vec::new();
    log(memdev, Severity::Warning, &mut effects);
    log(memdev, Severity::Failure, &mut effects);
    assert_eq!(effects, [Effect::Interrupt { vector: 4 }]);
    for mode in [2, 3] {
        assert_eq!(
            run(memdev, 0x0103, &[0, 0, 0, mode]),
            Err(ReturnCode::InvalidInput)
        );
    }
    assert_eq!(run(memdev, 0x0102, &[]).unwrap(), [0x21, 0, 0x41, 0]);
}

#[test]
fn health_has_the_length_and_fields_of_the_table() {
    let config = MemdevConfig {
        nonvolatile: NonVolatile {
            dirty_shutdowns: 0x0102,
            ..NonVolatile::default()
        },
        ..config()
    };
    let health = run(&mut device_with_clock(config).0, 0x4200, &[]).unwrap();
    let expected = [0, 0, 0, 0, 25, 0, 2, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    assert_eq!(health, expected);
}

#[test]
fn an_alert_can_be_enabled_with_a_threshold_and_disabled_again() {
    let memdev = &mut device();
    let initial = [
        0, 0x1f, 95, 75, 95, 0, 0xec, 0xff, 85, 0, 0xf6, 0xff, 0xe8, 0x03, 0xe8, 0x03,
    ];
    assert_eq!(run(memdev, 0x4201, &[]).unwrap(), initial);
    // Life used at 60 %, over-temperature at 70 degrees; the rest is not touched.
    run(
        memdev,
        0x4202,
        &[0b11, 0b11, 60, 0, 70, 0, 9, 9, 9, 9, 9, 9],
    )
    .unwrap();
    let alerts = run(memdev, 0x4201, &[]).unwrap();
    assert_eq!([alerts[0], alerts[3], alerts[8]], [0b11, 60, 70]);
    assert_eq!(alerts[10..], initial[10..]);
    run(memdev, 0x4202, &[0b01, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]).unwrap();
    let alerts = run(memdev, 0x4201, &[]).unwrap();
    assert_eq!([alerts[0], alerts[3]], [0b10, 60]);
}

#[test]
fn a_warning_after_the_critical_threshold_is_refused() {
    let memdev = &mut device();
    for request in [
        [0b1, 0b1, 96, 0, 0, 0, 0, 0, 0, 0, 0, 0],
        [0b10, 0b10, 0, 0, 96, 0, 0, 0, 0, 0, 0, 0],
        [0b100, 0b100, 0, 0, 0, 0, 0xeb, 0xff, 0, 0, 0, 0],
        [0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
    ] {
        assert_eq!(run(memdev, 0x4202, &request), Err(ReturnCode::InvalidInput));
    }
    assert_eq!(memdev.alerts(), crate::memdev::health::Alerts::default());
}

#[test]
fn the_shutdown_state_is_kept_and_reported() {
    let memdev = &mut device();
    assert_eq!(run(memdev, 0x4203, &[]), Ok(vec![0]));
    let mut effects = Vec::new();
    dispatch(memdev, 0x4204, &[1], &mut effects).unwrap();
    assert_eq!(effects, [Effect::NonVolatileChanged]);
    assert_eq!(run(memdev, 0x4203, &[]), Ok(vec![1]));
}

#[test]
fn only_a_power_cycle_without_a_flush_is_a_dirty_shutdown() {
    let memdev = &mut device();
    let count = |memdev: &mut Memdev| run(memdev, 0x4200, &[]).unwrap()[6];
    run(memdev, 0x4204, &[1]).unwrap();
    memdev.reset();
    assert_eq!((count(memdev), memdev.shutdown_dirty()), (0, true));
    let mut effects = Vec::new();
    memdev.power_off(true, &mut effects);
    assert_eq!(effects, [Effect::NonVolatileChanged]);
    memdev.power_cycle();
    assert_eq!((count(memdev), memdev.shutdown_dirty()), (0, false));
    // A flush that fails counts, whether the host has declared the state dirty or not.
    for (declared, counted) in [(0, 1), (1, 2)] {
        run(memdev, 0x4204, &[declared]).unwrap();
        memdev.power_off(false, &mut effects);
        memdev.power_cycle();
        assert_eq!((count(memdev), memdev.shutdown_dirty()), (counted, false));
    }
    run(memdev, 0x4204, &[1]).unwrap();
    memdev.power_cycle();
    assert_eq!((count(memdev), memdev.shutdown_dirty()), (3, false));
}

#[test]
fn a_device_comes_up_with_what_it_remembers() {
    let memdev = &mut partitionable();
    // 3 units of volatile partition, poison in volatile and in persistent memory, a passphrase, a dirty shutdown state.
    run(memdev, 0x4101, &[3, 0, 0, 0, 0, 0, 0, 0, 0]).unwrap();
    for dpa in [0x1000, 3 * GIB] {
        run(memdev, 0x4301, &dpa.to_le_bytes()).unwrap();
    }
    let mut passphrase = [0; 0x60];
    passphrase[0] = 1;
    run(memdev, 0x4501, &passphrase).unwrap();
    run(memdev, 0x4204, &[1]).unwrap();
    let config = MemdevConfig {
        partitionable: GIB,
        nonvolatile: memdev.nonvolatile(),
        ..config()
    };
    let mut again = device_with_clock(config).0;
    memdev.power_cycle();
    assert_eq!(again.nonvolatile(), memdev.nonvolatile());
    for memdev in [memdev, &mut again] {
        assert_eq!(memdev.partition().volatile, 7 * GIB / 4);
        assert!(memdev.is_locked());
        assert_eq!(memdev.health().dirty_shutdowns, 1);
        let poison = memdev.poison().records(0, u64::MAX);
        assert_eq!(
            poison.iter().map(|record| record.dpa).collect::<Vec<_>>(),
            [3 * GIB]
        );
        assert_eq!(memdev.events().status(), 0);
    }
}

#[test]
fn no_reply_exceeds_the_payload() {
    let memdev = &mut partitionable();
    for severity in Severity::ALL {
        for _ in 0..2 * LOG_CAPACITY {
            log(memdev, severity, &mut Vec::new());
        }
    }
    let lsa = [0_u32.to_le_bytes(), 2048_u32.to_le_bytes()].concat();
    assert_eq!(run(memdev, 0x4102, &lsa).unwrap().len(), PAYLOAD_SIZE);
    for entry in &COMMANDS {
        for len in 0..32 {
            if let Ok(reply) = run(memdev, entry.opcode, &vec![1; len]) {
                assert!(reply.len() <= PAYLOAD_SIZE, "{:#06x}", entry.opcode);
            }
        }
    }
}
