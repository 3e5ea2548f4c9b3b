//! The performance monitoring unit (sections 8.2.7 and 13.2).
//!
//! Loads and stores of mapped memory reach no model, so what a unit advertises is what can be known without a trap:
//!
//! | event group | events | counted by |
//! |---|---|---|
//! | clock ticks (CXL, group 0) | ns of the device's clock | a fixed-function counter |
//! | requests without data (CXL, group 20h) | MemRd: lines that the host read | a fixed-function counter |
//! | responses with data (CXL, group 25h) | MemData: lines that it got | a fixed-function counter |
//! | the function's vendor's, group 0 | [`VendorEvent`] | configurable counters |
//!
//! The two groups of messages are there only if somebody tells how many lines the host reads
//! ([`CpmuConfig::counts_reads`]): an estimate by samples, told once per epoch, as good as its source. A store that misses the
//! host's caches reads its line too. When the line is written back is not known, so there is no counter of MemWr.
//!
//! A tick is a ns, and an access of the guest's is an event of a tick of its own. The configurable counters stand for the first
//! Event Capabilities register, so that the index of their group is also what it is after a reset.

mod spec;
#[cfg(test)]
mod tests;

pub use spec::{CounterConfiguration, CpmuCapability, EventCapabilities};

use crate::access::{self, high, low, set_high, set_low};
use crate::{CXL_VENDOR_ID, Effect};
use spec::group;

/// Counters that software can configure.
const CONFIGURABLE: usize = 4;
/// Greatest value of a counter.
const MAX: u64 = (1 << spec::COUNTER_WIDTH) - 1;
/// Longest time until the next look at when a counter will overflow. It bounds how many alarms are under way, however often
/// software sets counters anew.
const LONGEST_ALARM: u64 = 1_000_000_000;

/// Where a unit is, and what it can know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CpmuConfig {
    /// MSI message number of overflows, 0 to 15.
    pub vector: u8,
    /// PCI vendor id of the function, whose [`VendorEvent`]s are counted.
    pub vendor: u16,
    /// [`Cpmu::count_reads`] is called.
    pub counts_reads: bool,
}

/// What a guest does to the device, or the device to it, by event number in the vendor's group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VendorEvent {
    /// The mailbox has run a command.
    MailboxCommand,
    /// A read of a register behind a BAR, but for the unit's own.
    RegisterRead,
    /// A write of a register behind a BAR, but for the unit's own.
    RegisterWrite,
    /// A write to configuration space.
    ConfigurationWrite,
    /// The CDAT mailbox has answered a request.
    DataObject,
    /// An interrupt of the mailbox or of an event log.
    Interrupt,
}

impl VendorEvent {
    /// How many there are.
    pub const COUNT: usize = 6;
}

/// What happened in one access.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Happened([u64; VendorEvent::COUNT]);

impl Happened {
    /// Something happened `times` times.
    pub fn add(&mut self, event: VendorEvent, times: u64) {
        if let Some(count) = self.0.get_mut(event as usize) {
            *count = count.saturating_add(times);
        }
    }

    /// Nothing happened.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// How many of the events in `mask` happened.
    fn count(&self, mask: u32) -> u64 {
        let chosen = self.0.iter().enumerate();
        chosen
            .filter(|(event, _)| mask >> event & 1 != 0)
            .fold(0, |sum, (_, count)| sum.saturating_add(*count))
    }
}

/// A counter unit.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Counter {
    configuration: CounterConfiguration,
    data: u64,
    /// Ticks to come that do not count: those of events, for a counter of ticks with few events.
    skipped: u64,
}

impl Counter {
    fn fixed(group: u8, events: u32) -> Self {
        let configuration = CounterConfiguration::new()
            .with_kind(CounterConfiguration::FIXED_FUNCTION)
            .with_group(group)
            .with_events(events);
        Self::of(configuration)
    }

    fn configurable() -> Self {
        let configuration = CounterConfiguration::new()
            .with_kind(CounterConfiguration::CONFIGURABLE)
            .with_threshold(1);
        Self::of(configuration)
    }

    fn of(configuration: CounterConfiguration) -> Self {
        Self {
            configuration,
            data: 0,
            skipped: 0,
        }
    }

    fn counts_vendor_events(&self) -> bool {
        self.configuration.kind() == CounterConfiguration::CONFIGURABLE
            && self.configuration.group() == 0
    }

    /// It counts ticks in which little happens, of which time is full.
    fn counts_quiet_ticks(&self) -> bool {
        let configuration = self.configuration;
        self.counts_vendor_events()
            && configuration.invert()
            && configuration.threshold() != 0
            && !configuration.edge()
    }

    /// Ticks until it overflows.
    fn ticks_left(&self) -> u64 {
        (MAX - self.data)
            .saturating_add(1)
            .saturating_add(self.skipped)
    }
}

/// A CPMU and its registers. All its functions take the time now, in ns of the device's clock.
#[derive(Debug)]
pub struct Cpmu {
    vector: u8,
    groups: Vec<EventCapabilities>,
    counters: Vec<Counter>,
    /// Index of the counter of clock ticks.
    clock: usize,
    /// Indices of the counters of messages.
    messages: std::ops::Range<usize>,
    overflowed: u64,
    frozen: u64,
    /// The time up to which ticks are counted.
    counted: u64,
    /// When the alarm that was asked for last is due.
    alarm: Option<u64>,
}

impl Cpmu {
    /// Bytes of the block.
    pub const SIZE: u64 = 0x1000;

    /// A unit in its reset state.
    pub fn new(config: CpmuConfig, now: u64) -> Self {
        let cxl = |group, events| {
            EventCapabilities::new()
                .with_vendor(CXL_VENDOR_ID)
                .with_group(group)
                .with_events(events)
        };
        let vendor = EventCapabilities::new()
            .with_vendor(config.vendor)
            .with_group(group::VENDOR)
            .with_events((1 << VendorEvent::COUNT) - 1);
        let mut groups = vec![vendor, cxl(group::CLOCK_TICKS, group::CLOCK_TICKS_EVENTS)];
        if config.counts_reads {
            groups.push(cxl(group::M2S_REQ, group::M2S_REQ_EVENTS));
            groups.push(cxl(group::S2M_DRS, group::S2M_DRS_EVENTS));
        }
        let fixed = (0..).zip(&groups).skip(1);
        let mut counters: Vec<Counter> = fixed
            .map(|(index, group)| Counter::fixed(index, group.events()))
            .collect();
        let messages = 1..counters.len();
        counters.extend((0..CONFIGURABLE).map(|_| Counter::configurable()));
        Self {
            vector: config.vector,
            groups,
            counters,
            clock: 0,
            messages,
            overflowed: 0,
            frozen: 0,
            counted: now,
            alarm: None,
        }
    }

    /// Any reset.
    pub fn reset(&mut self, now: u64) {
        for counter in &mut self.counters {
            *counter = match counter.configuration.kind() {
                CounterConfiguration::CONFIGURABLE => Counter::configurable(),
                _ => Counter::fixed(
                    counter.configuration.group(),
                    counter.configuration.events(),
                ),
            };
        }
        self.overflowed = 0;
        self.frozen = 0;
        self.counted = self.counted.max(now);
    }

    /// Reads `data.len()` bytes at `offset` in the block, of any width and alignment; all of a read sees the same moment.
    pub fn read(&mut self, offset: u64, data: &mut [u8], now: u64, effects: &mut Vec<Effect>) {
        self.count_ticks(now, effects);
        access::read(offset, data, |offset| {
            let register = self.register(offset & !4);
            if offset & 4 == 0 {
                low(register)
            } else {
                high(register)
            }
        });
    }

    /// Writes `data` at `offset` in the block: a counter's data as 8 naturally aligned bytes, other registers as 4 or 8;
    /// other writes do nothing.
    pub fn write(&mut self, offset: u64, data: &[u8], now: u64, effects: &mut Vec<Effect>) {
        self.count_ticks(now, effects);
        match <[u8; 8]>::try_from(data) {
            Ok(bytes) if offset.is_multiple_of(8) => {
                self.write_register(offset, u64::from_le_bytes(bytes));
            }
            _ => access::write(offset, data, |offset, value| {
                self.write_half(offset, value);
            }),
        }
        self.set_alarm(now, effects);
    }

    /// What happened in an access.
    pub fn happened(&mut self, what: &Happened, now: u64, effects: &mut Vec<Effect>) {
        self.count_ticks(now, effects);
        let supported = self.groups.first().map_or(0, |group| group.events());
        let mut counts = Vec::new();
        for index in self.running() {
            let Some(counter) = self.counters.get_mut(index) else {
                continue;
            };
            let configuration = counter.configuration;
            if !counter.counts_vendor_events() {
                continue;
            }
            let raw = what.count(configuration.events() & supported);
            let threshold = u64::from(configuration.threshold());
            if counter.counts_quiet_ticks() {
                counter.skipped = counter.skipped.saturating_add(u64::from(raw > threshold));
            } else if configuration.edge() {
                counts.push((index, u64::from(raw > 0)));
            } else if threshold == 0 {
                counts.push((index, raw));
            } else {
                counts.push((index, u64::from(raw >= threshold)));
            }
        }
        self.add(&counts, effects);
    }

    /// The host has read so many lines of the device's memory since the last call.
    pub fn count_reads(&mut self, lines: u64, now: u64, effects: &mut Vec<Effect>) {
        self.count_ticks(now, effects);
        let running = self.running().into_iter();
        let counts: Vec<_> = running
            .filter(|index| self.messages.contains(index))
            .map(|index| (index, lines))
            .collect();
        self.add(&counts, effects);
    }

    /// Looks after counters of time: see [`Effect::Alarm`].
    pub fn advance(&mut self, now: u64, effects: &mut Vec<Effect>) {
        self.count_ticks(now, effects);
        self.set_alarm(now, effects);
    }

    /// The counters that are enabled and not frozen.
    fn running(&self) -> Vec<usize> {
        let counters = self.counters.iter().enumerate();
        counters
            .filter(|(index, counter)| {
                counter.configuration.enable() && self.frozen >> index & 1 == 0
            })
            .map(|(index, _)| index)
            .collect()
    }

    /// Those of them that count time.
    fn ticking(&self) -> Vec<usize> {
        let mut running = self.running();
        running.retain(|index| {
            let counter = self.counters.get(*index);
            *index == self.clock || counter.is_some_and(Counter::counts_quiet_ticks)
        });
        running
    }

    /// Ticks until the first counter overflows of those that `concern` chooses.
    fn first_overflow(&self, concern: impl Fn(CounterConfiguration) -> bool) -> Option<u64> {
        let ticking = self.ticking().into_iter();
        ticking
            .filter_map(|index| self.counters.get(index))
            .filter(|counter| concern(counter.configuration))
            .map(Counter::ticks_left)
            .min()
    }

    /// Counts the time that has passed; no counter runs on behind the overflow that freezes it.
    fn count_ticks(&mut self, now: u64, effects: &mut Vec<Effect>) {
        let passed = now.saturating_sub(self.counted);
        if passed == 0 {
            return;
        }
        self.counted = now;
        let freeze = self.first_overflow(|configuration| configuration.freeze_on_overflow());
        let ran = freeze.map_or(passed, |ticks| ticks.min(passed));
        let mut counts = Vec::new();
        for index in self.ticking() {
            if let Some(counter) = self.counters.get_mut(index) {
                let skipped = counter.skipped.min(ran);
                counter.skipped -= skipped;
                counts.push((index, ran - skipped));
            }
        }
        self.add(&counts, effects);
    }

    /// Counters that go on by so many at the same time, and what comes of those that overflow.
    fn add(&mut self, counts: &[(usize, u64)], effects: &mut Vec<Effect>) {
        let mut interrupt = false;
        for &(index, count) in counts {
            let Some(counter) = self.counters.get_mut(index) else {
                continue;
            };
            let room = MAX - counter.data;
            let overflows = count > room;
            counter.data = counter.data.wrapping_add(count) & MAX;
            if !overflows {
                continue;
            }
            let configuration = counter.configuration;
            let was_set = self.overflowed >> index & 1 != 0;
            self.overflowed |= 1 << index;
            interrupt |= !was_set && configuration.interrupt_on_overflow();
            if configuration.freeze_on_overflow() {
                self.frozen = self.every_counter();
            }
        }
        if interrupt {
            effects.push(Effect::Interrupt {
                vector: self.vector,
            });
        }
    }

    /// Asks to be called when a counter of time overflows, if anybody is to notice.
    fn set_alarm(&mut self, now: u64, effects: &mut Vec<Effect>) {
        let noticed = |configuration: CounterConfiguration| {
            configuration.interrupt_on_overflow() || configuration.freeze_on_overflow()
        };
        let Some(ticks) = self.first_overflow(noticed) else {
            return;
        };
        let after = ticks.min(LONGEST_ALARM);
        let due = now.saturating_add(after);
        // One that comes earlier will ask for the next.
        if self.alarm.is_none_or(|alarm| alarm <= now || due < alarm) {
            self.alarm = Some(due);
            effects.push(Effect::Alarm { after });
        }
    }

    fn every_counter(&self) -> u64 {
        (1 << self.counters.len()) - 1
    }

    fn capability(&self) -> CpmuCapability {
        CpmuCapability::new()
            .with_last_counter((self.counters.len() - 1) as u8)
            .with_counter_width(spec::COUNTER_WIDTH)
            .with_last_event_group((self.groups.len() - 1) as u8)
            .with_message_number(self.vector)
            .with_writable_while_frozen(true)
            .with_freeze(true)
            .with_interrupt(true)
            .with_version(spec::VERSION)
    }

    fn register(&self, offset: u64) -> u64 {
        use spec::{
            CAPABILITY, CONFIGURATION, DATA, END, EVENT_CAPABILITIES, FILTERS, FREEZE,
            OVERFLOW_STATUS,
        };
        let counter = |base| self.counters.get(index(offset, base));
        match offset {
            CAPABILITY => self.capability().into_bits(),
            OVERFLOW_STATUS => self.overflowed,
            FREEZE => self.frozen,
            EVENT_CAPABILITIES..CONFIGURATION => {
                let group = self.groups.get(index(offset, EVENT_CAPABILITIES));
                group.map_or(0, |group| group.into_bits())
            }
            CONFIGURATION..FILTERS => {
                counter(CONFIGURATION).map_or(0, |counter| counter.configuration.into_bits())
            }
            DATA..END => counter(DATA).map_or(0, |counter| counter.data),
            _ => 0,
        }
    }

    fn write_register(&mut self, offset: u64, value: u64) {
        use spec::{CONFIGURATION, DATA, END, FILTERS, FREEZE, OVERFLOW_STATUS};
        match offset {
            OVERFLOW_STATUS => self.overflowed &= !value,
            FREEZE => self.frozen = value & self.every_counter(),
            CONFIGURATION..FILTERS => {
                if let Some(counter) = self.counters.get_mut(index(offset, CONFIGURATION)) {
                    let writable = counter.configuration.writable();
                    let kept = counter.configuration.into_bits() & !writable;
                    counter.configuration =
                        CounterConfiguration::from_bits(kept | value & writable);
                    counter.skipped = 0;
                }
            }
            DATA..END => {
                if let Some(counter) = self.counters.get_mut(index(offset, DATA)) {
                    counter.data = value & MAX;
                }
            }
            _ => {}
        }
    }

    /// Half a register; a counter's data has none.
    fn write_half(&mut self, offset: u64, value: u32) {
        let register = offset & !4;
        if (spec::DATA..spec::END).contains(&register) {
            return;
        }
        let mut whole = match register {
            // A zero leaves the other half alone.
            spec::OVERFLOW_STATUS => 0,
            _ => self.register(register),
        };
        if offset & 4 == 0 {
            set_low(&mut whole, value);
        } else {
            set_high(&mut whole, value);
        }
        self.write_register(register, whole);
    }
}

/// Index of a register in a row of them that begins at `base`.
fn index(offset: u64, base: u64) -> usize {
    usize::try_from((offset - base) / 8).unwrap_or(usize::MAX)
}
