use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

const VECTOR: u8 = 5;
const VENDOR: u16 = 0x8086;

/// Registers, as section 8.2.7 has them.
const OVERFLOW: u64 = 0x10;
const FREEZE: u64 = 0x18;
const EVENTS: u64 = 0x100;
const CONFIGURATION: u64 = 0x200;
const DATA: u64 = 0xc00;
/// Bits of a Counter Configuration register.
const ENABLE: u64 = 1 << 8;
const INTERRUPT: u64 = 1 << 9;
const GLOBAL_FREEZE: u64 = 1 << 10;
const EDGE: u64 = 1 << 11;
const INVERT: u64 = 1 << 12;

/// Counters of a unit that is told of reads: ticks, MemRd, MemData, then configurable ones.
const TICKS: u64 = 0;
const READS: u64 = 1;
const RESPONSES: u64 = 2;
const FREE: u64 = 3;
const COUNTERS: u64 = 7;

struct Unit {
    cpmu: Cpmu,
    now: u64,
    effects: Vec<Effect>,
}

impl Unit {
    fn new() -> Self {
        Self::with(true)
    }

    fn with(counts_reads: bool) -> Self {
        let config = CpmuConfig {
            vector: VECTOR,
            vendor: VENDOR,
            counts_reads,
        };
        Self {
            cpmu: Cpmu::new(config, 1000),
            now: 1000,
            effects: Vec::new(),
        }
    }

    fn get(&mut self, offset: u64) -> u64 {
        let mut data = [0; 8];
        self.cpmu
            .read(offset, &mut data, self.now, &mut self.effects);
        u64::from_le_bytes(data)
    }

    fn set(&mut self, offset: u64, value: u64) {
        let data = value.to_le_bytes();
        self.cpmu.write(offset, &data, self.now, &mut self.effects);
    }

    /// Starts a counter as it is.
    fn enable(&mut self, counter: u64, more: u64) {
        let at = CONFIGURATION + 8 * counter;
        let configuration = self.get(at);
        self.set(at, configuration | ENABLE | more);
    }

    /// Starts a configurable counter of these events.
    fn choose(&mut self, counter: u64, events: &[VendorEvent], threshold: u64, more: u64) {
        let mask: u64 = events.iter().map(|event| 1 << *event as u64).sum();
        let at = CONFIGURATION + 8 * counter;
        self.set(at, mask << 24 | threshold << 16 | ENABLE | more);
    }

    fn happens(&mut self, events: &[VendorEvent]) {
        let mut happened = Happened::default();
        for event in events {
            happened.add(*event, 1);
        }
        self.cpmu.happened(&happened, self.now, &mut self.effects);
    }

    fn data(&mut self, counter: u64) -> u64 {
        self.get(DATA + 8 * counter)
    }

    fn image(&mut self) -> Vec<u64> {
        (0..Cpmu::SIZE)
            .step_by(8)
            .map(|offset| self.get(offset))
            .collect()
    }
}

#[test]
fn the_capability_says_what_a_driver_needs_to_know() {
    let mut unit = Unit::new();
    let capability = unit.get(0);
    assert_eq!(capability & 0x3f, COUNTERS - 1);
    assert_eq!(capability >> 8 & 0xff, 48, "bits of a counter");
    assert_eq!(capability >> 20 & 0x1f, 3, "event groups, less one");
    assert_eq!(capability >> 32 & 0xff, 0, "filters");
    assert_eq!(capability >> 44 & 0xf, u64::from(VECTOR));
    assert_eq!(
        capability >> 48 & 7,
        7,
        "writable while frozen, freeze, interrupt"
    );
    assert_eq!(capability >> 60, 1, "version");
    assert_eq!(
        capability & 0x0ff8_0f00_fe0f_00c0,
        0,
        "what is reserved is zero"
    );
}

#[test]
fn every_group_is_counted_by_one_kind_of_counter() {
    let mut unit = Unit::new();
    let groups: Vec<u64> = (0..5).map(|index| unit.get(EVENTS + 8 * index)).collect();
    assert_eq!(
        groups,
        [
            0x8086_0000_0000_003f,
            0x1e98_0000_0000_0001,
            0x1e98_0020_0000_0002,
            0x1e98_0025_0000_0001,
            0
        ]
    );
    for counter in 0..COUNTERS {
        let configuration = unit.get(CONFIGURATION + 8 * counter);
        let (kind, group) = (configuration & 3, configuration >> 59);
        let events = configuration >> 24 & 0xffff_ffff;
        if counter < FREE {
            assert_eq!((kind, group), (1, counter + 1), "fixed function");
            assert_eq!(events, groups[counter as usize + 1] & 0xffff_ffff);
        } else {
            assert_eq!((kind, group, events), (2, 0, 0), "configurable");
            assert_eq!(configuration >> 16 & 0xff, 1, "threshold");
        }
    }
    assert_eq!(unit.get(CONFIGURATION + 8 * COUNTERS), 0);
}

#[test]
fn messages_are_not_offered_where_nobody_counts_them() {
    let mut unit = Unit::with(false);
    assert_eq!(unit.get(0) & 0x3f, 4, "ticks and four configurable ones");
    assert_eq!(unit.get(0) >> 20 & 0x1f, 1);
    assert_eq!(unit.get(EVENTS + 0x10), 0);
    unit.enable(1, 0);
    let before = unit.image();
    unit.cpmu.count_reads(100, unit.now, &mut unit.effects);
    assert_eq!(unit.image(), before);
}

#[test]
fn ticks_are_counted_while_the_counter_is_enabled_and_not_frozen() {
    let mut unit = Unit::new();
    unit.now += 10;
    assert_eq!(unit.data(TICKS), 0, "not enabled");
    unit.enable(TICKS, 0);
    unit.now += 70;
    assert_eq!(unit.data(TICKS), 70);
    unit.set(FREEZE, u64::MAX);
    assert_eq!(unit.get(FREEZE), (1 << COUNTERS) - 1);
    unit.now += 1000;
    assert_eq!(unit.data(TICKS), 70);
    unit.set(DATA, 5);
    unit.set(FREEZE, 0);
    unit.now += 1;
    assert_eq!(unit.data(TICKS), 6, "written while it was frozen");
    unit.set(CONFIGURATION, 0);
    unit.now += 1;
    assert_eq!(unit.data(TICKS), 6, "disabled");
    assert_eq!(unit.effects, []);
}

#[test]
fn a_fixed_function_keeps_its_events() {
    let mut unit = Unit::new();
    let before = unit.get(CONFIGURATION);
    unit.set(CONFIGURATION, u64::MAX);
    assert_eq!(
        unit.get(CONFIGURATION),
        before | ENABLE | INTERRUPT | GLOBAL_FREEZE
    );
    unit.set(CONFIGURATION + 8 * FREE, u64::MAX);
    assert_eq!(unit.get(CONFIGURATION + 8 * FREE), 0xf8ff_ffff_ffff_1f02);
}

#[test]
fn lines_that_the_host_read_are_requests_and_responses() {
    let mut unit = Unit::new();
    unit.enable(READS, 0);
    unit.enable(RESPONSES, 0);
    unit.cpmu.count_reads(3, unit.now, &mut unit.effects);
    unit.cpmu.count_reads(4, unit.now, &mut unit.effects);
    assert_eq!([unit.data(READS), unit.data(RESPONSES)], [7, 7]);
    assert_eq!(unit.data(TICKS), 0);
}

#[test]
fn a_configurable_counter_counts_the_events_it_is_told_to() {
    use VendorEvent::{ConfigurationWrite, MailboxCommand, RegisterRead, RegisterWrite};
    let mut unit = Unit::new();
    unit.choose(FREE, &[RegisterRead], 0, 0);
    unit.choose(FREE + 1, &[RegisterRead, RegisterWrite], 0, 0);
    unit.choose(FREE + 2, &[MailboxCommand, RegisterWrite], 2, 0);
    unit.choose(FREE + 3, &[MailboxCommand, RegisterWrite], 0, EDGE);
    unit.happens(&[RegisterRead]);
    unit.happens(&[RegisterWrite]);
    unit.happens(&[RegisterWrite, MailboxCommand]);
    unit.happens(&[ConfigurationWrite]);
    let counted: Vec<u64> = (FREE..COUNTERS).map(|counter| unit.data(counter)).collect();
    assert_eq!(
        counted,
        [1, 3, 1, 2],
        "one kind, either kind, both at once, accesses with either"
    );
}

#[test]
fn inverted_a_counter_counts_the_ticks_with_few_events() {
    use VendorEvent::{MailboxCommand, RegisterWrite};
    let mut unit = Unit::new();
    unit.choose(FREE, &[MailboxCommand, RegisterWrite], 1, INVERT);
    unit.now += 10;
    unit.happens(&[RegisterWrite]);
    unit.happens(&[RegisterWrite, MailboxCommand]);
    unit.now += 10;
    assert_eq!(unit.data(FREE), 19, "all but the tick with two");
}

#[test]
fn a_counter_of_a_fixed_functions_group_counts_nothing() {
    let mut unit = Unit::new();
    unit.set(CONFIGURATION + 8 * FREE, 1 << 59 | 0xff << 24 | ENABLE);
    unit.happens(&[VendorEvent::RegisterRead]);
    unit.now += 10;
    assert_eq!(unit.data(FREE), 0);
}

#[test]
fn an_overflow_is_told_once_until_it_is_cleared() {
    let mut unit = Unit::new();
    unit.choose(FREE, &[VendorEvent::RegisterRead], 0, INTERRUPT);
    let told = [Effect::Interrupt { vector: VECTOR }];
    for round in 0..2 {
        unit.set(DATA + 8 * FREE, MAX);
        unit.happens(&[VendorEvent::RegisterRead]);
        assert_eq!(unit.data(FREE), 0, "it wraps around");
        assert_eq!(unit.get(OVERFLOW), 1 << FREE);
        assert_eq!(unit.effects, told, "round {round}");
        unit.set(DATA + 8 * FREE, MAX);
        unit.happens(&[VendorEvent::RegisterRead]);
        assert_eq!(unit.effects, told, "the status was set already");
        unit.set(OVERFLOW, !(1 << FREE));
        assert_eq!(unit.get(OVERFLOW), 1 << FREE, "a zero leaves it");
        unit.set(OVERFLOW, 1 << FREE);
        assert_eq!(unit.get(OVERFLOW), 0);
        unit.effects.clear();
    }
}

#[test]
fn an_overflow_freezes_all_counters_at_that_moment() {
    let mut unit = Unit::new();
    unit.enable(TICKS, INTERRUPT | GLOBAL_FREEZE);
    unit.choose(FREE, &[], 1, INVERT);
    unit.set(DATA, MAX - 9);
    assert_eq!(
        unit.effects.last(),
        Some(&Effect::Alarm { after: 10 }),
        "somebody has to come for it"
    );
    unit.effects.clear();
    unit.now += 9;
    unit.cpmu.advance(unit.now, &mut unit.effects);
    assert_eq!((unit.get(OVERFLOW), unit.get(FREEZE)), (0, 0));
    unit.now += 500;
    unit.cpmu.advance(unit.now, &mut unit.effects);
    assert_eq!(
        unit.effects.last(),
        Some(&Effect::Interrupt { vector: VECTOR })
    );
    assert_eq!(unit.get(OVERFLOW), 1 << TICKS);
    assert_eq!(unit.get(FREEZE), (1 << COUNTERS) - 1);
    assert_eq!(
        [unit.data(TICKS), unit.data(FREE)],
        [0, 10],
        "not a tick too many"
    );
}

#[test]
fn counters_that_nobody_watches_need_no_alarm() {
    let mut unit = Unit::new();
    unit.enable(TICKS, 0);
    unit.set(DATA, MAX);
    assert_eq!(unit.effects, []);
    unit.now += 1;
    assert_eq!(unit.get(OVERFLOW), 1, "but the overflow is there");
}

#[test]
fn alarms_do_not_pile_up() {
    let mut unit = Unit::new();
    unit.enable(TICKS, INTERRUPT);
    for _ in 0..1000 {
        unit.set(DATA, 0);
    }
    assert_eq!(
        unit.effects,
        [Effect::Alarm {
            after: LONGEST_ALARM
        }]
    );
    unit.now += LONGEST_ALARM;
    unit.cpmu.advance(unit.now, &mut unit.effects);
    assert_eq!(unit.effects.len(), 2, "and so on until it overflows");
}

#[test]
fn a_register_is_written_whole_or_by_halves_but_data_only_whole() {
    let mut unit = Unit::new();
    let now = unit.now;
    let half = |unit: &mut Unit, offset, value: u32| {
        let data = value.to_le_bytes();
        unit.cpmu.write(offset, &data, now, &mut Vec::new());
    };
    let at = CONFIGURATION + 8 * FREE;
    half(&mut unit, at, 0x0300_0000);
    half(&mut unit, at + 4, 0x0800_0001);
    assert_eq!(unit.get(at), 0x0800_0001_0300_0002);
    unit.set(DATA + 8 * FREE, 0x1_0000_0001);
    half(&mut unit, DATA + 8 * FREE, 7);
    half(&mut unit, DATA + 8 * FREE + 4, 7);
    assert_eq!(unit.data(FREE), 0x1_0000_0001);
    half(&mut unit, FREEZE, 3);
    half(&mut unit, FREEZE + 4, u32::MAX);
    assert_eq!(unit.get(FREEZE), 3);
    unit.set(DATA + 8 * FREE, u64::MAX);
    assert_eq!(unit.data(FREE), MAX, "48 bits");
}

#[test]
fn a_clock_that_stands_still_or_runs_back_counts_nothing() {
    let mut unit = Unit::new();
    unit.enable(TICKS, 0);
    unit.now = 0;
    assert_eq!(unit.data(TICKS), 0);
    unit.now = 1001;
    assert_eq!(unit.data(TICKS), 1);
}

#[derive(Clone, Debug)]
enum Step {
    Write { offset: u64, data: Vec<u8> },
    Read { offset: u64, len: usize },
    Wait(u64),
    Happens(Vec<u64>),
    Reads(u64),
    Reset,
}

fn value() -> impl Strategy<Value = u64> {
    prop_oneof![
        any::<u64>(),
        Just(0),
        Just(u64::MAX),
        (0..40_u64).prop_map(|less| MAX - less),
        (any::<u8>(), 0..8_u64, any::<u8>()).prop_map(|(events, how, threshold)| {
            u64::from(events) << 24 | u64::from(threshold % 4) << 16 | how << 10 | 0x3 << 8
        }),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    let register = prop_oneof![
        Just(OVERFLOW),
        Just(FREEZE),
        (0..8_u64).prop_map(|n| CONFIGURATION + 8 * n),
        (0..8_u64).prop_map(|n| DATA + 8 * n),
    ];
    prop_oneof![
        8 => (register, value())
            .prop_map(|(offset, value)| Step::Write { offset, data: value.to_le_bytes().to_vec() }),
        1 => (any::<u64>(), vec(any::<u8>(), 0..17)).prop_map(|(offset, data)| Step::Write { offset, data }),
        1 => (0..Cpmu::SIZE, 0..17_usize).prop_map(|(offset, len)| Step::Read { offset, len }),
        4 => prop_oneof![0..50_u64, any::<u64>()].prop_map(Step::Wait),
        4 => vec(0..3_u64, VendorEvent::COUNT).prop_map(Step::Happens),
        1 => any::<u64>().prop_map(Step::Reads),
        1 => Just(Step::Reset),
    ]
}

fn perform(unit: &mut Unit, step: &Step) {
    let Unit { cpmu, now, effects } = unit;
    match step {
        Step::Write { offset, data } => cpmu.write(*offset, data, *now, effects),
        Step::Read { offset, len } => cpmu.read(*offset, &mut vec![0; *len], *now, effects),
        Step::Wait(ns) => {
            *now = now.saturating_add(*ns);
            cpmu.advance(*now, effects);
        }
        Step::Happens(counts) => {
            let mut happened = Happened::default();
            for (count, times) in happened.0.iter_mut().zip(counts) {
                *count = *times;
            }
            cpmu.happened(&happened, *now, effects);
        }
        Step::Reads(lines) => cpmu.count_reads(*lines, *now, effects),
        Step::Reset => cpmu.reset(*now),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn nothing_that_software_does_breaks_it(steps in vec(step(), 1..60)) {
        let mut unit = Unit::new();
        let fresh = unit.image();
        for step in &steps {
            unit.effects.clear();
            perform(&mut unit, step);
            // An alarm, and an interrupt for what the access found.
            prop_assert!(unit.effects.len() <= 2, "{:?}", unit.effects);
            let image = unit.image();
            for (index, (now, fresh)) in (0_u64..).zip(image.iter().zip(&fresh)) {
                match index * 8 {
                    OVERFLOW | FREEZE => prop_assert!(*now < 1 << COUNTERS),
                    CONFIGURATION..0x400 => prop_assert_eq!(now & 0x0700_0000_0000_e0ff, fresh & 0x0700_0000_0000_e0ff),
                    DATA..0xe00 => prop_assert!(*now <= MAX && (index * 8 < DATA + 8 * COUNTERS || *now == 0)),
                    _ => prop_assert_eq!(now, fresh),
                }
            }
        }
        unit.cpmu.reset(unit.now);
        prop_assert_eq!(unit.image(), fresh);
    }

    #[test]
    fn time_that_passes_at_once_is_time_that_passes_bit_by_bit(steps in vec(step(), 1..20), ticks in 0..60_u64) {
        let mut at_once = Unit::new();
        let mut bit_by_bit = Unit::new();
        for step in &steps {
            perform(&mut at_once, step);
            perform(&mut bit_by_bit, step);
        }
        at_once.now = at_once.now.saturating_add(ticks);
        for _ in 0..ticks {
            bit_by_bit.now = bit_by_bit.now.saturating_add(1);
            bit_by_bit.image();
        }
        prop_assert_eq!(at_once.image(), bit_by_bit.image());
    }
}
