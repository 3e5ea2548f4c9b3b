use super::super::tests::{Bench, device};
use super::*;
use crate::mailbox::tests::config;
use crate::memdev::MemdevConfig;
use crate::memdev::dynamic::MOST_EXTENTS;
use crate::memdev::fabric::Sharing;

const MIB: u64 = 1 << 20;
/// Behind the 3 GiB of other memory.
const BASE: u64 = 3 << 30;
const BLOCK: u64 = 2 * MIB;
const DYNAMIC_LOG: u8 = 4;
const TAG: [u8; 16] = [0xa5; 16];

const GET_INFO: u16 = 0x5600;
const GET_CONFIGURATION: u16 = 0x5601;
const SET_CONFIGURATION: u16 = 0x5602;
const GET_EXTENTS: u16 = 0x5603;
const ADD: u16 = 0x5604;
const RELEASE: u16 = 0x5605;

const FREE: u8 = 0;
const CONTIGUOUS: u8 = 1;
const PRESCRIBED: u8 = 2;
const BY_TAG: u8 = 0;
const AS_LISTED: u8 = 1;
const FORCED: u8 = 1 << 4;

const INVALID_INPUT: u16 = ReturnCode::InvalidInput as u16;
const UNSUPPORTED: u16 = ReturnCode::Unsupported as u16;
const INVALID_LENGTH: u16 = ReturnCode::InvalidPayloadLength as u16;
const INVALID_ADDRESS: u16 = ReturnCode::InvalidPhysicalAddress as u16;
const INVALID_LIST: u16 = ReturnCode::InvalidExtentList as u16;
const EXHAUSTED: u16 = ReturnCode::ResourcesExhausted as u16;

/// Two regions of 256 MiB.
fn bench() -> Bench {
    let region = |base| DynamicRegion {
        base,
        decode_len: 512 * MIB,
        len: 256 * MIB,
        block_size: BLOCK,
        dsmas: 7,
    };
    device(MemdevConfig {
        dynamic: vec![region(BASE), region(BASE + 512 * MIB)],
        ..config()
    })
}

/// `blocks` blocks from block `number` of the first region on.
fn extent(number: u64, blocks: u64) -> Extent {
    Extent {
        dpa: BASE + number * BLOCK,
        len: blocks * BLOCK,
        tag: TAG,
        shared_sequence: 0,
    }
}

fn request(policy: u8, region: u8, len: u64, extents: &[Extent]) -> Vec<u8> {
    let mut payload = vec![0, 0, policy, region];
    payload.extend(len.to_le_bytes());
    payload.extend(TAG);
    payload.extend((extents.len() as u32).to_le_bytes());
    for extent in extents {
        encode_extent(extent, &mut payload);
    }
    payload
}

impl Bench {
    fn offered(&self) -> Vec<(u64, u64)> {
        let offered = self.memdev.offered_extents();
        offered.map(in_blocks).collect()
    }

    fn has(&self) -> Vec<(u64, u64)> {
        self.memdev.extents().iter().map(in_blocks).collect()
    }

    /// The host takes all of its oldest offer, or less.
    fn accept(&mut self, extents: &[Extent]) {
        let mut response = (extents.len() as u32).to_le_bytes().to_vec();
        response.extend([0; 4]);
        for extent in extents {
            response.extend(extent.dpa.to_le_bytes());
            response.extend(extent.len.to_le_bytes());
            response.extend([0; 8]);
        }
        self.run(0x4802, &response).unwrap();
    }

    /// The types of the events that the host finds, each with its region and whether more belong to it; it clears them.
    fn events(&mut self) -> Vec<[u8; 3]> {
        let answer = self.run(0x0100, &[DYNAMIC_LOG]).unwrap();
        let records = || answer[0x20..].chunks(128);
        let mut clear = vec![DYNAMIC_LOG, 0, records().len() as u8, 0, 0, 0];
        clear.extend(records().flat_map(|record| &record[20..22]));
        self.run(0x0101, &clear).unwrap();
        records()
            .map(|record| [record[48], record[52], record[53]])
            .collect()
    }
}

fn in_blocks(extent: &Extent) -> (u64, u64) {
    ((extent.dpa - BASE) / BLOCK, extent.len / BLOCK)
}

#[test]
fn a_device_without_such_capacity_has_no_such_commands() {
    let mut bench = device(config());
    for opcode in GET_INFO..=RELEASE {
        assert_eq!(bench.ask(opcode, &[]), Err(UNSUPPORTED));
    }
}

#[test]
fn the_fabric_manager_is_told_of_regions_block_sizes_and_policies() {
    let info = bench().ask(GET_INFO, &[]).unwrap();
    assert_eq!(info.len(), 84);
    // One host, two regions; free, contiguous and prescribed; by tag and as listed; both regions are sanitized.
    assert_eq!(info[..12], [1, 2, 0, 0, 0b111, 0, 0, 0, 0b11, 0, 0b11, 0]);
    let words: Vec<u64> = info[12..]
        .chunks(8)
        .map(|word| u64::from_le_bytes(word.try_into().unwrap()))
        .collect();
    // In units of 256 MiB; blocks of 2 to 256 MiB.
    let sizes = (21..=28).map(|bit| 1 << bit).sum();
    assert_eq!(words, [2, sizes, sizes, 0, 0, 0, 0, 0, 0]);
}

#[test]
fn the_regions_of_a_host_are_listed_with_what_can_be_kept() {
    let mut bench = bench();
    let reply = bench.ask(GET_CONFIGURATION, &[0, 0, 8, 1]).unwrap();
    assert_eq!(reply.len(), 4 + 40 + 16);
    assert_eq!(reply[..4], [0, 0, 2, 1]);
    assert_eq!(reply[4..12], (BASE + 512 * MIB).to_le_bytes());
    assert_eq!(reply[12..20], 2_u64.to_le_bytes());
    assert_eq!(reply[20..28], (256 * MIB).to_le_bytes());
    assert_eq!(reply[28..36], BLOCK.to_le_bytes());
    assert_eq!(reply[36..44], [0, 0, 0, 0, 1, 0, 0, 0]);
    assert_eq!(reply[44..48], (MOST_EXTENTS as u32).to_le_bytes());
    for payload in [[0, 0, 1, 2], [1, 0, 1, 0]] {
        let refused = bench.ask(GET_CONFIGURATION, &payload);
        assert_eq!(refused, Err(INVALID_INPUT), "no such region, no such host");
    }
}

#[test]
fn a_prescribed_offer_becomes_the_hosts_when_it_accepts() {
    let mut bench = bench();
    let extents = [extent(0, 1), extent(4, 2)];
    let add = request(PRESCRIBED, 0, 0, &extents);
    assert_eq!(bench.ask(ADD, &add), Ok(vec![]));
    assert_eq!(bench.events(), [[0, 0, 1], [0, 0, 0]], "add capacity");
    assert_eq!(
        (bench.has(), bench.offered()),
        (vec![], vec![(0, 1), (4, 2)])
    );
    bench.accept(&extents);
    assert_eq!(bench.has(), [(0, 1), (4, 2)]);

    let list = bench.ask(GET_EXTENTS, &[0, 0, 0, 0, 9, 0, 0, 0, 1, 0, 0, 0]);
    let list = list.unwrap();
    assert_eq!(list.len(), 24 + 40);
    let words: Vec<u32> = list[..24]
        .chunks(4)
        .map(|word| u32::from_le_bytes(word.try_into().unwrap()))
        .collect();
    assert_eq!(words, [0, 1, 1, 2, 1, 0], "from 1 on, 1 of 2, generation 1");
    assert_eq!(list[24..32], (BASE + 4 * BLOCK).to_le_bytes());
    assert_eq!(list[40..56], TAG);
    for (host, start) in [(0, 3), (1, 0)] {
        let payload = [host, 0, 0, 0, 1, 0, 0, 0, start, 0, 0, 0];
        assert_eq!(bench.ask(GET_EXTENTS, &payload), Err(INVALID_INPUT));
    }
}

#[test]
fn the_device_finds_room_in_one_piece_or_in_several() {
    let mut bench = bench();
    let beside = [extent(1, 1), extent(4, 124)];
    bench.ask(ADD, &request(PRESCRIBED, 0, 0, &beside)).unwrap();
    bench.accept(&[beside[0]]);
    bench
        .ask(ADD, &request(PRESCRIBED, 0, 0, &[beside[1]]))
        .unwrap();
    // Blocks 0, 2 and 3 are free.
    let whole = request(CONTIGUOUS, 0, 3 * BLOCK, &[]);
    assert_eq!(bench.ask(ADD, &whole), Err(EXHAUSTED));
    let whole = request(CONTIGUOUS, 0, 2 * BLOCK, &[]);
    assert_eq!(bench.ask(ADD, &whole), Ok(vec![]));
    assert_eq!(bench.offered(), [(4, 124), (2, 2)]);
    bench.accept(&[]);
    bench.accept(&[]);
    let parts = request(FREE, 0, 5 * BLOCK, &[]);
    assert_eq!(bench.ask(ADD, &parts), Ok(vec![]));
    assert_eq!(bench.offered(), [(0, 1), (2, 4)]);
    let tags = bench.memdev.offered_extents().map(|extent| extent.tag);
    assert!(tags.eq([TAG; 2]));
    let too_much = request(FREE, 0, 124 * BLOCK, &[]);
    assert_eq!(bench.ask(ADD, &too_much), Err(EXHAUSTED));
    // The other region is empty.
    let all = request(CONTIGUOUS, 1, 128 * BLOCK, &[]);
    assert_eq!(bench.ask(ADD, &all), Ok(vec![]));
}

#[test]
fn an_offer_that_cannot_be_is_refused_and_nothing_happens() {
    let mut bench = bench();
    bench
        .ask(ADD, &request(PRESCRIBED, 0, 0, &[extent(0, 2)]))
        .unwrap();
    let mut small = extent(4, 1);
    small.len = BLOCK / 2;
    let many: Vec<Extent> = (0..40).map(|n| extent(10 + n, 1)).collect();
    for (payload, code) in [
        (request(PRESCRIBED, 0, 0, &[extent(1, 1)]), INVALID_LIST),
        (request(PRESCRIBED, 0, 0, &[]), INVALID_LIST),
        (request(PRESCRIBED, 0, 0, &[small]), INVALID_ADDRESS),
        (
            request(PRESCRIBED, 0, 0, &[extent(127, 2)]),
            INVALID_ADDRESS,
        ),
        (request(FREE, 2, BLOCK, &[]), INVALID_INPUT),
        (request(FREE, 0, 0, &[]), INVALID_INPUT),
        (request(FREE, 0, BLOCK + 64, &[]), INVALID_INPUT),
        // Shared access, which nothing here has, and what is no policy.
        (request(3, 0, BLOCK, &[]), INVALID_INPUT),
        (request(9, 0, BLOCK, &[]), INVALID_INPUT),
        (request(FREE, 0, BLOCK, &[])[1..].to_vec(), INVALID_LENGTH),
    ] {
        assert_eq!(bench.ask(ADD, &payload), Err(code), "{payload:?}");
    }
    assert_eq!(bench.offered(), [(0, 2)]);
    bench.ask(ADD, &request(PRESCRIBED, 0, 0, &many)).unwrap();
    let more: Vec<Extent> = (0..24).map(|n| extent(60 + n, 1)).collect();
    let refused = bench.ask(ADD, &request(PRESCRIBED, 0, 0, &more));
    assert_eq!(refused, Err(EXHAUSTED));
    let mut elsewhere = request(FREE, 0, BLOCK, &[]);
    elsewhere[0] = 1;
    assert_eq!(
        bench.ask(ADD, &elsewhere),
        Err(INVALID_INPUT),
        "another host"
    );
    let mut beyond = request(PRESCRIBED, 0, 0, &[extent(90, 1)]);
    beyond[28] = 2;
    assert_eq!(bench.ask(ADD, &beyond), Err(INVALID_LENGTH));
}

#[test]
fn the_host_is_asked_for_what_it_has_or_loses_it() {
    let mut bench = bench();
    let mine = [extent(0, 4), extent(8, 2)];
    bench.ask(ADD, &request(PRESCRIBED, 0, 0, &mine)).unwrap();
    bench.accept(&mine);
    bench.events();
    let listed = [extent(1, 1), extent(8, 2)];
    let ask = request(AS_LISTED, 0, 0, &listed);
    assert_eq!(bench.ask(RELEASE, &ask), Ok(vec![]));
    assert_eq!(bench.events(), [[1, 0, 1], [1, 0, 0]], "release capacity");
    assert_eq!(bench.has().len(), 2, "it has only been asked");
    bench.effects.clear();
    let take = request(AS_LISTED | FORCED | 1 << 5, 0, 0, &listed);
    assert_eq!(bench.ask(RELEASE, &take), Ok(vec![]));
    assert_eq!(bench.has(), [(0, 1), (2, 2)]);
    assert_eq!(bench.events(), [[2, 0, 1], [2, 0, 0]], "forced release");
    let emptied = |extent: &Extent| Effect::MediaZeroed {
        dpa: extent.dpa,
        len: extent.len,
    };
    let [first, second] = [0, 1].map(|n| emptied(&listed[n]));
    assert!(
        bench
            .effects
            .starts_with(&[Effect::AccessChanged, first, second])
    );
    for (payload, code) in [
        (request(AS_LISTED, 0, 0, &[extent(1, 1)]), INVALID_ADDRESS),
        (request(AS_LISTED, 0, 0, &[]), INVALID_LIST),
        (
            request(AS_LISTED, 0, 0, &[extent(2, 2), extent(3, 1)]),
            INVALID_LIST,
        ),
        (request(2, 0, 0, &[extent(0, 1)]), INVALID_INPUT),
        (
            request(AS_LISTED | 1 << 6, 0, 0, &[extent(0, 1)]),
            INVALID_INPUT,
        ),
    ] {
        assert_eq!(bench.ask(RELEASE, &payload), Err(code), "{payload:?}");
    }
    assert_eq!(bench.has(), [(0, 1), (2, 2)]);
}

#[test]
fn what_has_a_tag_is_released_by_it() {
    let mut bench = bench();
    let other = Extent {
        tag: [1; 16],
        ..extent(2, 1)
    };
    let mine = [extent(0, 1), other, extent(8, 4)];
    bench.ask(ADD, &request(PRESCRIBED, 0, 0, &mine)).unwrap();
    bench.accept(&mine);
    for len in [0, 6 * BLOCK, BLOCK + 64] {
        let refused = bench.ask(RELEASE, &request(BY_TAG | FORCED, 0, len, &[]));
        assert_eq!(refused, Err(INVALID_INPUT), "{len}");
    }
    let take = request(BY_TAG | FORCED, 0, 3 * BLOCK, &[]);
    assert_eq!(bench.ask(RELEASE, &take), Ok(vec![]));
    assert_eq!(bench.has(), [(2, 1), (10, 2)]);
}

#[test]
fn the_blocks_of_an_empty_region_get_another_size() {
    let mut bench = bench();
    let set = |region: u8, size: u64, sanitizes: u8| {
        let mut payload = vec![region, 0, 0, 0];
        payload.extend(size.to_le_bytes());
        payload.extend([sanitizes, 0, 0, 0]);
        payload
    };
    assert_eq!(
        bench.ask(SET_CONFIGURATION, &set(1, 8 * MIB, 1)),
        Ok(vec![])
    );
    assert_eq!(bench.events(), [[3, 1, 0]], "region configuration updated");
    assert_eq!(bench.memdev.dynamic_regions()[1].block_size, 8 * MIB);
    let small = request(CONTIGUOUS, 1, BLOCK, &[]);
    assert_eq!(bench.ask(ADD, &small), Err(INVALID_INPUT));
    // And back again, but no smaller than before.
    assert_eq!(bench.ask(SET_CONFIGURATION, &set(1, BLOCK, 1)), Ok(vec![]));
    assert_eq!(bench.ask(ADD, &small), Ok(vec![]));
    for (payload, code) in [
        (set(1, 8 * MIB, 1), UNSUPPORTED),
        (set(0, BLOCK / 2, 1), INVALID_INPUT),
        (set(0, 512 * MIB, 1), INVALID_INPUT),
        (set(0, 3 * BLOCK, 1), INVALID_INPUT),
        (set(2, BLOCK, 1), INVALID_INPUT),
        // What is released is emptied, whoever wants it otherwise.
        (set(0, BLOCK, 0), INVALID_INPUT),
        (set(0, BLOCK, 1)[..15].to_vec(), INVALID_LENGTH),
    ] {
        assert_eq!(
            bench.ask(SET_CONFIGURATION, &payload),
            Err(code),
            "{payload:?}"
        );
    }
}

#[test]
fn the_fabric_managers_logical_device_has_the_commands_for_this_hosts() {
    let mut bench = device(MemdevConfig {
        sharing: Sharing::LogicalDevices { count: 4, own: 1 },
        ..bench().memdev.config().clone()
    });
    let mut add = request(FREE, 0, BLOCK, &[]);
    assert_eq!(bench.ask(ADD, &add), Err(INVALID_INPUT), "another host's");
    add[0] = 1;
    assert_eq!(bench.ask(ADD, &add), Ok(vec![]));
    assert_eq!(bench.offered(), [(0, 1)]);
}
