use super::*;
use crate::cci::LinkState;
pub(super) use crate::mailbox::tests::Bench;
use crate::mailbox::tests::{bench_of, config};
use crate::memdev::MemdevConfig;

const GIB: u64 = 1 << 30;
/// Heads and logical devices of the devices here, and which of them this host has.
const COUNT: u8 = 4;
const OWN: u8 = 1;

const IDENTITY: Identity = Identity {
    vendor: 0x8086,
    device: 0x0d93,
    subsystem_vendor: 0x1af4,
    subsystem: 0x1100,
    serial: 0x1122_3344_5566_7788,
};
const LINK: LinkState = LinkState {
    max_width: 16,
    max_speed: 5,
    width: 8,
    speed: 4,
    in_reset: false,
    is_present: true,
    is_off: false,
};

pub(super) fn device(config: MemdevConfig) -> Bench {
    bench_of(config)
}

fn sharing_device(sharing: Sharing) -> Bench {
    device(MemdevConfig {
        sharing,
        identity: IDENTITY,
        ..config()
    })
}

/// 4 logical devices of 3 GiB, the second of which is this host's.
fn logical_devices() -> Bench {
    sharing_device(Sharing::LogicalDevices {
        count: COUNT,
        own: OWN,
    })
}

fn heads() -> Bench {
    sharing_device(Sharing::Heads {
        count: COUNT,
        own: OWN,
        link: LINK,
    })
}

impl Bench {
    /// Asks by message.
    pub(super) fn ask(&mut self, opcode: u16, payload: &[u8]) -> Result<Vec<u8>, u16> {
        let request = Message::request(0x5a, opcode, payload).to_bytes();
        let bytes = self.memdev.receive(&request, &mut self.effects).unwrap();
        opened(&bytes, opcode)
    }

    /// Asks by a message in a tunnel.
    fn tunnel(
        &mut self,
        number: u8,
        kind: u8,
        opcode: u16,
        payload: &[u8],
    ) -> Result<Vec<u8>, u16> {
        let reply = self.ask(0x5300, &through_tunnel(number, kind, opcode, payload))?;
        opened(&reply[4..], opcode)
    }
}

fn through_tunnel(number: u8, kind: u8, opcode: u16, payload: &[u8]) -> Vec<u8> {
    let message = Message::request(0x5a, opcode, payload).to_bytes();
    let mut tunnel = vec![number, kind];
    tunnel.extend((message.len() as u16).to_le_bytes());
    tunnel.extend(message);
    tunnel
}

/// The payload of an answer, or its return code.
fn opened(bytes: &[u8], opcode: u16) -> Result<Vec<u8>, u16> {
    let answer = Message::from_bytes(bytes).unwrap();
    assert_eq!((answer.tag, answer.opcode), (0x5a, opcode));
    match answer.return_code {
        0 => Ok(answer.payload),
        code => Err(code),
    }
}

const INVALID_INPUT: u16 = ReturnCode::InvalidInput as u16;
const UNSUPPORTED: u16 = ReturnCode::Unsupported as u16;
const LENGTH: u16 = ReturnCode::InvalidPayloadLength as u16;

/// Opcodes that the interface behind `ask` says it has.
fn commands(mut ask: impl FnMut(u16, &[u8]) -> Result<Vec<u8>, u16>) -> Vec<u16> {
    let supported = ask(0x0400, &[]).unwrap();
    assert_eq!((supported.len(), supported[0]), (28, 1));
    let len = supported[24];
    let request = [&supported[8..24], &[0, 0, 0, 0, len, 0, 0, 0]].concat();
    let log = ask(0x0401, &request).unwrap();
    log.chunks_exact(4)
        .map(|entry| u16::from_le_bytes([entry[0], entry[1]]))
        .collect()
}

#[test]
fn a_device_says_what_it_is() {
    for mut bench in [sharing_device(Sharing::None), logical_devices(), heads()] {
        let identity = bench.ask(0x0001, &[]).unwrap();
        assert_eq!(
            identity[..8],
            [0x86, 0x80, 0x93, 0x0d, 0xf4, 0x1a, 0x00, 0x11]
        );
        assert_eq!(identity[8..16], IDENTITY.serial.to_le_bytes());
        // Messages of at most 2^11 bytes; a Type 3 device.
        assert_eq!(identity[16..], [11, 3]);
    }
}

#[test]
fn the_fabric_manager_reads_what_the_host_reads() {
    let mut bench = sharing_device(Sharing::None);
    for (opcode, effect) in [(0x4000, 0x45), (0x4100, 0x20), (0x4200, 0x12), (0x0300, 8)] {
        let theirs = bench.ask(opcode, &[]).unwrap();
        assert_eq!(theirs.len(), effect);
        assert_eq!(Ok(theirs), bench.run(opcode, &[]));
    }
    // What changes something, or keeps a place, is the host's alone.
    for opcode in [
        0x0100, 0x0301, 0x4101, 0x4300, 0x4400, 0x5300, 0x5400, 0x5500,
    ] {
        assert_eq!(bench.ask(opcode, &[]), Err(UNSUPPORTED));
    }
}

#[test]
fn each_interface_lists_its_commands_and_has_them() {
    let single = commands(|opcode, input| sharing_device(Sharing::None).ask(opcode, input));
    let shared = [
        0x0200, 0x0300, 0x4000, 0x4100, 0x4200, 0x4201, 0x4203, 0x4500,
    ];
    assert_eq!(single[..4], [0x0001, 0x0002, 0x0400, 0x0401]);
    assert_eq!(single[4..], shared);
    let with_heads = commands(|opcode, input| heads().ask(opcode, input));
    assert_eq!(with_heads[4..5], [0x5300]);
    assert_eq!(with_heads.len(), single.len() + 1);
    let manager = commands(|opcode, input| logical_devices().ask(opcode, input));
    let expected = [
        &single[..4],
        &[0x5300],
        &(0x5400..=0x5409).collect::<Vec<_>>(),
    ]
    .concat();
    assert_eq!(manager, expected);
    let own = commands(|opcode, input| logical_devices().tunnel(OWN, 0, opcode, input));
    assert_eq!(own, single);
    let pool = commands(|opcode, input| heads().tunnel(0, 1, opcode, input));
    assert_eq!(pool, [0x0001, 0x0400, 0x0401, 0x5500, 0x5501]);
    let other = [&[9; 16][..], &[0; 8]].concat();
    let log = sharing_device(Sharing::None).ask(0x0401, &other);
    assert_eq!(log, Err(ReturnCode::InvalidLog as u16));
}

#[test]
fn the_background_operation_of_the_host_shows() {
    const SANITIZE: u16 = 0x4400;
    let mut bench = sharing_device(Sharing::None);
    assert_eq!(bench.ask(0x0002, &[]), Ok(vec![0; 8]));
    let started = bench.run(SANITIZE, &[]);
    assert_eq!(started, Err(ReturnCode::BackgroundStarted));
    assert_eq!(bench.ask(0x0002, &[]), Ok(vec![1, 0, 0, 0x44, 0, 0, 0, 0]));
    bench.pass(u64::MAX / 2);
    bench.memdev.advance(&mut Vec::new());
    let ended = bench.ask(0x0002, &[]).unwrap();
    assert_eq!(ended, [100 << 1, 0, 0, 0x44, 0, 0, 0, 0]);
}

#[test]
fn logical_devices_are_listed_with_their_parts() {
    let mut bench = logical_devices();
    let info = bench.ask(0x5400, &[]).unwrap();
    assert_eq!(info[..8], (u64::from(COUNT) * 3 * GIB).to_le_bytes());
    assert_eq!(info[8..], [COUNT, 0, 1]);
    let part = [12_u64.to_le_bytes(), 0_u64.to_le_bytes()].concat();
    let all = bench.ask(0x5401, &[0, 0xff]).unwrap();
    assert_eq!(all[..4], [COUNT, 0, 0, COUNT]);
    assert_eq!(all[4..], part.repeat(COUNT.into()));
    let some = bench.ask(0x5401, &[2, 1]).unwrap();
    assert_eq!(some, [&[COUNT, 0, 2, 1][..], &part].concat());
    for nothing in [[COUNT, 1], [0, 0], [0xff, 0xff]] {
        assert_eq!(bench.ask(0x5401, &nothing), Err(INVALID_INPUT));
    }
}

#[test]
fn capacity_moves_between_the_other_hosts_logical_devices() {
    let mut bench = logical_devices();
    let set = |start: u8, parts: &[(u64, u64)]| {
        let mut request = vec![parts.len() as u8, start, 0, 0];
        for (range1, range2) in parts {
            request.extend(range1.to_le_bytes());
            request.extend(range2.to_le_bytes());
        }
        request
    };
    let moved = set(2, &[(20, 3), (1, 0)]);
    assert_eq!(bench.ask(0x5402, &moved), Ok(moved.clone()));
    let told = bench.ask(0x5401, &[2, 2]).unwrap();
    assert_eq!(told[4..], moved[4..]);
    for (why, refused) in [
        ("more than there is", set(2, &[(20, 3), (2, 0)])),
        ("a sum that would wrap", set(2, &[(u64::MAX, u64::MAX)])),
        ("this host's", set(OWN, &[(11, 0)])),
        ("no such logical device", set(3, &[(0, 0), (0, 0)])),
        ("none", set(0, &[])),
    ] {
        assert_eq!(bench.ask(0x5402, &refused), Err(INVALID_INPUT), "{why}");
    }
    let short = &moved[..moved.len() - 1];
    assert_eq!(bench.ask(0x5402, short), Err(LENGTH));
    assert_eq!(bench.ask(0x5401, &[2, 2]), Ok(told));
    assert_eq!(bench.memdev.capacity(), 3 * GIB);
}

#[test]
fn how_load_is_told_is_set_within_the_ranges() {
    let mut bench = logical_devices();
    let defaults = [0, 10, 25, 8, 0, 0, 64];
    assert_eq!(bench.ask(0x5403, &[]).unwrap(), defaults);
    let control = [3, 1, 100, 15, 0x34, 0x12, 255];
    assert_eq!(bench.ask(0x5404, &control).unwrap(), control);
    for (at, value) in [(0, 4), (1, 0), (1, 101), (2, 0), (2, 101), (3, 16)] {
        let mut wrong = control;
        wrong[at] = value;
        assert_eq!(bench.ask(0x5404, &wrong), Err(INVALID_INPUT));
    }
    assert_eq!(bench.ask(0x5404, &control[1..]), Err(LENGTH));
    assert_eq!(bench.ask(0x5403, &[]).unwrap(), control);
    assert_eq!(bench.ask(0x5405, &[]).unwrap(), [0]);
}

#[test]
fn all_parts_of_the_bandwidth_are_no_more_than_the_whole() {
    let mut bench = logical_devices();
    assert_eq!(bench.ask(0x5406, &[4, 0]).unwrap(), [4, 0, 64, 64, 64, 64]);
    assert_eq!(bench.ask(0x5408, &[2, 1]).unwrap(), [2, 1, 255, 255]);
    let parts = [3, 1, 0, 0, 192];
    assert_eq!(bench.ask(0x5407, &parts).unwrap(), parts);
    assert_eq!(bench.ask(0x5407, &[1, 0, 65]), Err(INVALID_INPUT));
    assert_eq!(bench.ask(0x5409, &[1, 0, 65]).unwrap(), [1, 0, 65]);
    assert_eq!(bench.ask(0x5408, &[1, 0]).unwrap(), [1, 0, 65]);
    for opcode in [0x5406, 0x5408] {
        for nothing in [[0, 0], [1, 4], [4, 1]] {
            assert_eq!(bench.ask(opcode, &nothing), Err(INVALID_INPUT));
        }
    }
    for opcode in [0x5407, 0x5409] {
        assert_eq!(bench.ask(opcode, &[2, 3, 0, 0]), Err(INVALID_INPUT));
        assert_eq!(bench.ask(opcode, &[2, 0, 0]), Err(LENGTH));
    }
}

#[test]
fn the_fabric_managers_settings_outlive_a_reset_by_the_host() {
    let mut bench = logical_devices();
    bench.ask(0x5407, &[1, 0, 1]).unwrap();
    bench.memdev.reset();
    assert_eq!(bench.ask(0x5406, &[1, 0]).unwrap(), [1, 0, 1]);
}

#[test]
fn a_tunnel_leads_to_this_hosts_logical_device_alone() {
    let mut bench = logical_devices();
    let ours = bench.tunnel(OWN, 0, 0x4000, &[]).unwrap();
    assert_eq!(Ok(ours), bench.run(0x4000, &[]));
    assert_eq!(bench.tunnel(OWN, 0, 0x5400, &[]), Err(UNSUPPORTED));
    for (number, kind) in [(0, 0), (COUNT, 0), (0xff, 0), (OWN, 1), (OWN, 2)] {
        let result = bench.tunnel(number, kind, 0x4000, &[]);
        assert_eq!(result, Err(INVALID_INPUT));
    }
}

#[test]
fn a_tunnel_takes_exactly_one_request() {
    let mut bench = logical_devices();
    let whole = through_tunnel(OWN, 0, 0x0001, &[]);
    for len in 0..whole.len() {
        let code = if len < 4 { LENGTH } else { INVALID_INPUT };
        assert_eq!(bench.ask(0x5300, &whole[..len]), Err(code));
    }
    let longer = [&whole[..], &[0]].concat();
    assert_eq!(bench.ask(0x5300, &longer), Err(INVALID_INPUT));
    let no_message = bench.memdev.receive(&[1; 12], &mut Vec::new());
    assert_eq!(no_message, Err(ReturnCode::InvalidInput));
}

#[test]
fn a_head_asks_the_pool_through_its_mailbox_too() {
    let mut bench = heads();
    let request = through_tunnel(0, 1, 0x5500, &[0, 0xff]);
    let reply = bench.run(0x5300, &request).unwrap();
    assert_eq!(usize::from(reply[0]), reply.len() - 4);
    let expected = [COUNT, COUNT, 0, 0, 0, COUNT, 0, 0, 0, 1, 2, 3];
    assert_eq!(opened(&reply[4..], 0x5500), Ok(expected.to_vec()));
    assert_eq!(
        bench.tunnel(0, 1, 0x5500, &[0, 0xff]),
        Ok(expected.to_vec())
    );
    let to_a_head = through_tunnel(0, 0, 0x5500, &[0, 0xff]);
    assert_eq!(bench.run(0x5300, &to_a_head), Err(ReturnCode::InvalidInput));
    let without = sharing_device(Sharing::None).run(0x5300, &request);
    assert_eq!(without, Err(ReturnCode::Unsupported));
}

#[test]
fn the_pool_tells_of_its_heads_and_of_this_hosts_link() {
    let mut bench = heads();
    let mut ask = |opcode, input: &[u8]| bench.tunnel(0, 1, opcode, input);
    assert_eq!(ask(0x5500, &[2, 1]).unwrap(), [4, 4, 0, 0, 2, 1, 0, 0, 2]);
    let own = ask(0x5501, &[OWN, 1]).unwrap();
    // Lanes, speeds up to 32 GT/s, at 16 GT/s now, L0; present.
    assert_eq!(own, [1, 0, 0, 0, OWN, 16, 8, 0x1f, 5, 4, 4, 0, 4]);
    let all = ask(0x5501, &[0, 0xff]).unwrap();
    assert_eq!((all.len(), all[0]), (4 + 4 * 9, COUNT));
    assert_eq!(all[4..13], [0, 16, 0, 0x1f, 5, 0, 0, 0, 0], "down");
    for opcode in [0x5500, 0x5501] {
        assert_eq!(ask(opcode, &[COUNT, 1]), Err(INVALID_INPUT));
        assert_eq!(ask(opcode, &[0]), Err(LENGTH));
    }
}

#[test]
fn impossible_parts_are_refused() {
    for sharing in [
        Sharing::LogicalDevices { count: 17, own: 0 },
        Sharing::LogicalDevices { count: 4, own: 4 },
        Sharing::LogicalDevices { count: 0, own: 1 },
    ] {
        let config = MemdevConfig {
            sharing,
            ..config()
        };
        assert!(Memdev::new(config, Box::new(|| 0)).is_err());
    }
}
