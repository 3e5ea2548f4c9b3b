use super::*;
use crate::interleave::{Granularity, Ways};

const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;
const BASE: u64 = 0x10_0000_0000;

const COMMIT: u32 = 1 << 9;
const COMMITTED: u32 = 1 << 10;
const ERROR: u32 = 1 << 11;
const LOCK: u32 = 1 << 8;
const HOST_ONLY: u32 = 1 << 12;

/// The offset of a register of decoder `n`, as the table in section 8.2.4.20 gives it.
fn at(n: u64, register: u64) -> u64 {
    0x10 + 0x20 * n + register
}

/// Programs decoder `n` as an operating system does, and returns its control register.
fn commit(hdm: &mut HdmDecoders, n: u64, base: u64, size: u64, control: u32, list: u64) -> u32 {
    let effects = &mut Vec::new();
    hdm.write(at(n, 0x00), base as u32, effects);
    hdm.write(at(n, 0x04), (base >> 32) as u32, effects);
    hdm.write(at(n, 0x08), size as u32, effects);
    hdm.write(at(n, 0x0c), (size >> 32) as u32, effects);
    hdm.write(at(n, 0x14), list as u32, effects);
    hdm.write(at(n, 0x18), (list >> 32) as u32, effects);
    hdm.write(at(n, 0x10), control | COMMIT, effects);
    hdm.read(at(n, 0x10))
}

fn release(hdm: &mut HdmDecoders, n: u64) -> u32 {
    hdm.write(at(n, 0x10), 0, &mut Vec::new());
    hdm.read(at(n, 0x10))
}

fn bridge() -> HdmDecoders {
    HdmDecoders::port(4, &[0, 1, 4, 5]).unwrap()
}

fn device() -> HdmDecoders {
    HdmDecoders::endpoint(4, 4 * GIB).unwrap()
}

#[test]
fn capability_tells_counts_and_interleaves() {
    // Count code 2 is four decoders; 8 targets; both granularity groups.
    assert_eq!(bridge().read(0), 0x0000_0382);
    // No targets; 3, 6, 12 and 16 ways as well.
    assert_eq!(device().read(0), 0x0000_1b02);
}

#[test]
fn an_accelerator_keeps_its_memory_coherent_itself() {
    const BACK_INVALIDATE: u32 = 1 << 13;
    let mut hdm = HdmDecoders::accelerator(2, GIB).unwrap();
    // Two decoders, both granularity groups, coherency model 01.
    assert_eq!(hdm.read(0), 0x0020_0301);
    let control = commit(&mut hdm, 0, BASE, 256 * MIB, HOST_ONLY | BACK_INVALIDATE, 0);
    assert_eq!(control & (COMMITTED | HOST_ONLY), COMMITTED);
    assert_ne!(control & BACK_INVALIDATE, 0, "HDM-DB");
    // Two ways.
    let control = commit(&mut hdm, 1, BASE + GIB, 512 * MIB, 1 << 4, 0);
    assert_eq!(control & (COMMITTED | ERROR), ERROR);
}

#[test]
fn decoder_count_codes_follow_the_table() {
    for (count, code) in [(1, 0), (2, 1), (4, 2), (6, 3), (8, 4), (10, 5)] {
        let hdm = HdmDecoders::endpoint(count, GIB).unwrap();
        assert_eq!(hdm.read(0) & 0xf, code);
        assert_eq!(hdm.size(), 0x10 + 0x20 * count as u64);
    }
    assert_eq!(
        HdmDecoders::port(3, &[]).unwrap_err(),
        Error::DecoderCount(3)
    );
}

#[test]
fn base_and_size_keep_bits_63_to_28() {
    let mut hdm = device();
    let effects = &mut Vec::new();
    for register in [0x00, 0x08, 0x14] {
        hdm.write(at(0, register), u32::MAX, effects);
        hdm.write(at(0, register + 4), u32::MAX, effects);
        assert_eq!(hdm.read(at(0, register)), 0xf000_0000);
    }
    assert_eq!(hdm.read(at(0, 0x04)), u32::MAX);
    assert!(effects.is_empty());
}

#[test]
fn a_target_list_keeps_every_bit() {
    let mut hdm = bridge();
    hdm.write(at(0, 0x14), 0x0403_0201, &mut Vec::new());
    hdm.write(at(0, 0x18), 0x0807_0605, &mut Vec::new());
    assert_eq!(hdm.read(at(0, 0x14)), 0x0403_0201);
    assert_eq!(hdm.read(at(0, 0x18)), 0x0807_0605);
}

#[test]
fn control_and_reserved_registers_ignore_what_is_not_writable() {
    let (mut bridge, mut device) = (bridge(), device());
    let effects = &mut Vec::new();
    for (hdm, global) in [(&mut bridge, 0), (&mut device, 2)] {
        hdm.write(0x00, u32::MAX, effects);
        hdm.write(0x04, u32::MAX, effects);
        hdm.write(0x08, u32::MAX, effects);
        hdm.write(at(0, 0x1c), u32::MAX, effects);
        hdm.write(at(0, 0x10), !COMMIT, effects);
        assert_eq!(
            [hdm.read(4), hdm.read(8), hdm.read(at(0, 0x1c))],
            [global, 0, 0]
        );
        assert_eq!(hdm.read(at(0, 0x10)), 0x11ff);
        hdm.write(at(0, 0x10), 0, effects);
    }
    assert_eq!(bridge.read(at(0, 0x10)), 0);
    assert_eq!(device.read(at(0, 0x10)), HOST_ONLY);
}

#[test]
fn a_good_commit_is_answered_and_reported() {
    let mut hdm = bridge();
    hdm.write(at(0, 0x14), 0x0000_0104, &mut Vec::new());
    hdm.write(at(0, 0x04), 0x10, &mut Vec::new());
    hdm.write(at(0, 0x08), 0x4000_0000, &mut Vec::new());
    let mut effects = Vec::new();
    hdm.write(at(0, 0x10), COMMIT | HOST_ONLY | 0x10, &mut effects);
    assert_eq!(hdm.read(at(0, 0x10)), COMMITTED | COMMIT | HOST_ONLY | 0x10);
    assert_eq!(effects, [Effect::DecoderCommitted { decoder: 0 }]);

    let expected = PortDecoder {
        base: BASE,
        size: GIB,
        interleave: Interleave::new(Ways::new(2).unwrap(), Granularity::MIN),
        targets: vec![4, 1],
    };
    assert_eq!(hdm.port_decoders(), [expected]);
}

#[test]
fn only_a_device_has_an_enable_bit() {
    let (mut bridge, mut device) = (bridge(), device());
    let mut effects = Vec::new();
    bridge.write(4, 2, &mut effects);
    assert_eq!(
        (bridge.read(4), bridge.is_enabled(), effects.len()),
        (0, true, 0)
    );

    commit(&mut device, 0, BASE, GIB, 0, 0);
    assert_eq!(device.endpoint_decoders(), []);
    device.write(4, 2, &mut effects);
    assert_eq!(effects, [Effect::DecodersEnabled(true)]);
    assert_eq!(device.endpoint_decoders().len(), 1);
    device.reset(&mut effects);
    assert_eq!(effects.pop(), Some(Effect::DecodersEnabled(false)));
}

#[test]
fn settings_that_break_a_rule_set_the_error_bit() {
    use CommitFault::*;
    // Base, size, IW and IG, target list, and the rule which is broken.
    let faults = [
        (BASE, 0, 0x00, 0, SizeZero),
        (0xffff_ffff_f000_0000, GIB, 0x00, 0, Wraps),
        (BASE, 16 * GIB, 0x40, 0x0504_0100, Ways),
        (BASE, GIB, 0x50, 0x0504_0100, Ways),
        (BASE, 768 * MIB, 0x80, 0x0504_0100, Ways),
        (BASE, GIB, 0x07, 0, Granularity),
        (BASE, 256 * MIB, 0x10, 0x0100, Alignment),
        (BASE, GIB, 0x10, 0x0200, UnknownTarget(2)),
        (BASE, GIB, 0x20, 0x0404_0100, RepeatedTarget(4)),
    ];
    for (base, size, control, list, fault) in faults {
        let mut hdm = bridge();
        assert_eq!(
            commit(&mut hdm, 0, base, size, control, list),
            control | COMMIT | ERROR
        );
        let decoder = Decoder {
            base,
            size,
            control: DecoderControl::from_bits(control),
            destination: list,
        };
        assert_eq!(hdm.check(0, &decoder), Err(fault));
    }
}

#[test]
fn the_error_bit_clears_when_the_mended_settings_commit() {
    let mut hdm = bridge();
    assert_eq!(commit(&mut hdm, 0, BASE, 0, 0, 0) & ERROR, ERROR);
    assert_eq!(release(&mut hdm, 0), 0);
    assert_eq!(commit(&mut hdm, 0, BASE, GIB, 0, 0), COMMIT | COMMITTED);
}

#[test]
fn decoders_commit_in_increasing_order_and_address_order() {
    let mut hdm = bridge();
    assert_eq!(
        commit(&mut hdm, 1, BASE, GIB, 0, 0) & ERROR,
        ERROR,
        "decoder 0 is not committed"
    );
    assert_eq!(commit(&mut hdm, 0, BASE, GIB, 0, 0) & ERROR, 0);
    assert_eq!(
        commit(&mut hdm, 1, BASE + GIB / 2, GIB, 0, 0) & ERROR,
        ERROR,
        "overlap"
    );
    assert_eq!(commit(&mut hdm, 1, 0, GIB, 0, 0) & ERROR, ERROR, "below");
    assert_eq!(
        commit(&mut hdm, 1, BASE + GIB, GIB, 0, 0) & ERROR,
        0,
        "adjacent"
    );
}

#[test]
fn decoders_are_released_in_decreasing_order() {
    let mut hdm = bridge();
    commit(&mut hdm, 0, BASE, GIB, 0, 0);
    commit(&mut hdm, 1, BASE + GIB, GIB, 0, 0);
    assert_eq!(release(&mut hdm, 0), COMMIT | COMMITTED);
    assert_eq!(release(&mut hdm, 1), 0);
    let mut effects = Vec::new();
    hdm.write(at(0, 0x10), 0, &mut effects);
    assert_eq!(effects, [Effect::DecoderReleased { decoder: 0 }]);
}

#[test]
fn a_committed_decoder_drops_writes_to_its_settings() {
    let mut hdm = bridge();
    commit(&mut hdm, 0, BASE, GIB, 0x10, 0x0100);
    let effects = &mut Vec::new();
    let before: Vec<u32> = (0..0x30)
        .step_by(4)
        .map(|offset| hdm.read(offset))
        .collect();
    for register in [0x00, 0x04, 0x08, 0x0c, 0x14, 0x18] {
        hdm.write(at(0, register), 0x5555_5555, effects);
    }
    hdm.write(at(0, 0x10), COMMIT | 0x26, effects);
    let after: Vec<u32> = (0..0x30)
        .step_by(4)
        .map(|offset| hdm.read(offset))
        .collect();
    assert_eq!(before, after);
    assert!(effects.is_empty());
}

#[test]
fn a_locked_decoder_stays_until_reset() {
    let mut hdm = bridge();
    let control = commit(&mut hdm, 0, BASE, GIB, LOCK, 0);
    assert_eq!(release(&mut hdm, 0), control);
    let mut effects = Vec::new();
    hdm.reset(&mut effects);
    assert_eq!(effects, [Effect::DecoderReleased { decoder: 0 }]);
    assert_eq!(hdm.read(at(0, 0x10)), 0);
    assert_eq!(hdm.read(at(0, 0x04)), 0);
}

#[test]
fn device_addresses_follow_the_decoders_before_and_their_skips() {
    let mut hdm = device();
    hdm.write(4, 2, &mut Vec::new());
    // 1 GiB alone, then 256 MiB of a 2-way set after a skip of 512 MiB.
    commit(&mut hdm, 0, BASE, GIB, 0, 0);
    commit(&mut hdm, 1, BASE + GIB, 512 * MIB, 0x12, 512 * MIB);
    let dpas: Vec<u64> = hdm
        .endpoint_decoders()
        .iter()
        .map(|decoder| decoder.dpa)
        .collect();
    assert_eq!(dpas, [0, GIB + 512 * MIB]);
    commit(&mut hdm, 2, BASE + 2 * GIB, GIB, 0, 0);
    assert_eq!(hdm.endpoint_decoders()[2].dpa, GIB + 768 * MIB);
}

#[test]
fn a_range_past_the_capacity_does_not_commit() {
    let mut hdm = device();
    assert_eq!(commit(&mut hdm, 0, BASE, 8 * GIB, 0, 0) & ERROR, ERROR);
    assert_eq!(
        commit(&mut hdm, 0, BASE, 4 * GIB, 0, 256 * MIB) & ERROR,
        ERROR
    );
    assert_eq!(
        commit(&mut hdm, 0, BASE, GIB, 0, 0xffff_ffff_f000_0000) & ERROR,
        ERROR
    );
    assert_eq!(
        commit(&mut hdm, 0, BASE, 8 * GIB, 0x10, 0) & ERROR,
        0,
        "half of it each"
    );
}

#[test]
fn an_endpoint_takes_three_six_twelve_and_sixteen_ways() {
    for (code, ways) in [(0x80, 3), (0x90, 6), (0xa0, 12), (0x40, 16)] {
        let mut hdm = device();
        let control = commit(&mut hdm, 0, BASE, ways * 256 * MIB, code, 0);
        assert_eq!(control & (ERROR | COMMITTED), COMMITTED, "{ways} ways");
    }
}

#[test]
fn firmware_commits_through_the_same_rules() {
    let mut hdm = device();
    let mut settings = DecoderSettings {
        base: BASE,
        size: GIB,
        interleave: Interleave::NONE,
        coherency: Coherency::Host,
        lock: false,
        destination: Destination::DpaSkip(0),
    };
    let mut effects = Vec::new();
    hdm.program(0, &settings, &mut effects).unwrap();
    assert_eq!(effects, [Effect::DecoderCommitted { decoder: 0 }]);
    assert_eq!(hdm.read(at(0, 0x10)), COMMIT | COMMITTED | HOST_ONLY);
    assert_eq!(
        hdm.program(0, &settings, &mut effects),
        Err(Error::DecoderCommitted(0))
    );
    let fault = CommitFault::Overlap;
    assert_eq!(
        hdm.program(1, &settings, &mut effects),
        Err(Error::Commit { decoder: 1, fault })
    );
    assert_eq!(
        hdm.read(at(1, 0x10)),
        HOST_ONLY,
        "a refused program leaves no trace"
    );
    assert_eq!(
        hdm.program(4, &settings, &mut effects),
        Err(Error::NoSuchDecoder(4))
    );
    settings.base += 1;
    assert!(matches!(
        hdm.program(1, &settings, &mut effects),
        Err(Error::Unaligned { .. })
    ));
    settings.base += GIB - 1;
    settings.destination = Destination::Targets(vec![0]);
    assert!(matches!(
        hdm.program(1, &settings, &mut effects),
        Err(Error::TooLarge { .. })
    ));
}
