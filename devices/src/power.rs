//! ACPI fixed hardware: the PM1a event and control registers and the PM timer, and the PC's reset
//! control register.
//!
//! Time is an argument and the SCI a level to ask for, so that the block needs no clock and no
//! interrupt controller. The system is always in ACPI mode: the FADT names no SMI command port, and
//! SCI_EN reads 1.

use std::time::Duration;

/// Register offsets within the block, and its length in bytes.
pub mod spec {
    /// PM1 status (ACPI 6.5, 4.8.3.1.1), 2 bytes, RW1C.
    pub const PM1_STATUS: u16 = 0;
    /// PM1 enable (4.8.3.1.2), 2 bytes, RW.
    pub const PM1_ENABLE: u16 = 2;
    /// PM1 control (4.8.3.2.1), 2 bytes, RW.
    pub const PM1_CONTROL: u16 = 4;
    /// PM timer (4.8.3.3), 4 bytes, RO; 24 bits count, as the FADT says by TMR_VAL_EXT = 0.
    pub const PM_TIMER: u16 = 8;
    /// Length of the block in bytes.
    pub const LENGTH: u16 = 12;

    /// Status and enable bit 0: the timer's highest bit has changed.
    pub const TIMER: u16 = 1 << 0;
    /// Status and enable bit 5: the firmware wants the global lock back.
    pub const GLOBAL_LOCK: u16 = 1 << 5;
    /// Status and enable bit 8: the power button was pressed.
    pub const POWER_BUTTON: u16 = 1 << 8;
    /// Status and enable bit 9: the sleep button was pressed. There is none.
    pub const SLEEP_BUTTON: u16 = 1 << 9;
    /// Status and enable bit 10: the real-time clock's alarm. There is none.
    pub const RTC: u16 = 1 << 10;
    /// Status bit 15: the system woke up.
    pub const WAKE: u16 = 1 << 15;

    /// Control bit 0: events raise the SCI, not an SMI. Always set.
    pub const SCI_ENABLE: u16 = 1 << 0;
    /// Control bit 1: bus masters wake the processor.
    pub const BUS_MASTER_RELOAD: u16 = 1 << 1;
    /// Control bits 12:10: the sleep type.
    pub const SLEEP_TYPE: u16 = 0b111 << 10;
    /// Position of [`SLEEP_TYPE`].
    pub const SLEEP_TYPE_SHIFT: u32 = 10;
    /// Control bit 13, write-only: go to sleep.
    pub const SLEEP_ENABLE: u16 = 1 << 13;

    /// The timer's rate in Hz.
    pub const TIMER_HZ: u64 = 3_579_545;

    /// The reset control register's port, which the FADT names as reset register.
    pub const RESET_PORT: u16 = 0xcf9;
    /// Reset control bit 1: the next reset is a hard one.
    pub const RESET_SYSTEM: u8 = 1 << 1;
    /// Reset control bit 2: its rise resets.
    pub const RESET_CPU: u8 = 1 << 2;
    /// Reset control bit 3: the next reset cycles the power.
    pub const RESET_FULL: u8 = 1 << 3;
    /// What the FADT has to say is written to [`RESET_PORT`].
    pub const RESET_VALUE: u8 = RESET_SYSTEM | RESET_CPU;
}

use spec::*;

/// The sleep type that means soft-off; the DSDT's `\_S5` must give it.
pub const SOFT_OFF_SLEEP_TYPE: u8 = 5;

/// Status and enable bits that exist.
const EVENTS: u16 = TIMER | GLOBAL_LOCK | POWER_BUTTON | SLEEP_BUTTON | RTC;

/// What a write asks of the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PowerRequest {
    /// Switch off.
    PowerOff,
    /// Start anew.
    Reset,
}

/// PM1a event block, PM1a control block and PM timer, side by side.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PowerBlock {
    status: u16,
    enable: u16,
    control: u16,
    /// The timer's highest bit when it was last looked at.
    timer_high: bool,
}

impl PowerBlock {
    /// A block in its reset state.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Reads `data.len()` bytes from `offset` on; bytes outside the registers read 0. `now` is the
    /// time since the machine's start.
    pub fn read(&mut self, offset: u16, data: &mut [u8], now: Duration) {
        let timer = self.timer(now);
        for (byte, at) in data.iter_mut().zip(offset..=u16::MAX) {
            let [status, enable, control] =
                [self.status, self.enable, self.control | SCI_ENABLE].map(u16::to_le_bytes);
            let registers: [(u16, &[u8]); 4] = [
                (PM1_STATUS, &status),
                (PM1_ENABLE, &enable),
                (PM1_CONTROL, &control),
                (PM_TIMER, &timer),
            ];
            *byte = registers
                .iter()
                .find_map(|(start, bytes)| bytes.get(usize::from(at.checked_sub(*start)?)))
                .copied()
                .unwrap_or(0);
        }
    }

    /// Writes `data` from `offset` on; bytes outside the registers and read-only ones are dropped.
    pub fn write(&mut self, offset: u16, data: &[u8]) -> Option<PowerRequest> {
        for (&byte, at) in data.iter().zip(offset..=u16::MAX) {
            let (register, shift) = (at & !1, u32::from(at & 1) * 8);
            let value = u16::from(byte) << shift;
            let mask = 0xff << shift;
            match register {
                PM1_STATUS => self.status &= !value,
                PM1_ENABLE => self.enable = self.enable & !mask | value & EVENTS,
                PM1_CONTROL => {
                    let kept = SLEEP_TYPE | BUS_MASTER_RELOAD;
                    self.control = self.control & !mask | value & kept;
                    if value & SLEEP_ENABLE != 0 && self.sleep_type() == SOFT_OFF_SLEEP_TYPE {
                        return Some(PowerRequest::PowerOff);
                    }
                }
                _ => {}
            }
        }
        None
    }

    /// Presses the power button.
    pub fn press_power_button(&mut self) {
        self.status |= POWER_BUTTON;
    }

    /// The level of the system control interrupt. It can change with every call of this type.
    #[must_use]
    pub fn sci(&self) -> bool {
        self.status & self.enable != 0
    }

    fn sleep_type(&self) -> u8 {
        ((self.control & SLEEP_TYPE) >> SLEEP_TYPE_SHIFT).to_le_bytes()[0]
    }

    /// The 24-bit timer. Its status bit is brought up to date when somebody looks, which is all that
    /// an operating system without the timer event enabled can tell.
    fn timer(&mut self, now: Duration) -> [u8; 4] {
        let ticks = now.as_nanos() * u128::from(TIMER_HZ) / 1_000_000_000;
        let [a, b, c, ..] = ticks.to_le_bytes();
        let high = c & 0x80 != 0;
        if high != self.timer_high {
            self.timer_high = high;
            self.status |= TIMER;
        }
        [a, b, c, 0]
    }
}

/// The reset control register at port 0xCF9 of a PC's south bridge.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ResetControl(u8);

impl ResetControl {
    /// A register in its reset state.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Reads the register.
    #[must_use]
    pub fn read(self) -> u8 {
        self.0
    }

    /// Writes the register; a rise of [`RESET_CPU`] resets.
    pub fn write(&mut self, value: u8) -> Option<PowerRequest> {
        let rises = value & !self.0 & RESET_CPU != 0;
        self.0 = value & (RESET_SYSTEM | RESET_CPU | RESET_FULL);
        rises.then_some(PowerRequest::Reset)
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    const START: Duration = Duration::ZERO;

    fn read16(block: &mut PowerBlock, offset: u16) -> u16 {
        let mut data = [0; 2];
        block.read(offset, &mut data, START);
        u16::from_le_bytes(data)
    }

    fn timer(block: &mut PowerBlock, now: Duration) -> u32 {
        let mut data = [0; 4];
        block.read(PM_TIMER, &mut data, now);
        u32::from_le_bytes(data)
    }

    #[test]
    fn reset_leaves_acpi_mode_without_events() {
        let mut block = PowerBlock::new();
        assert_eq!(read16(&mut block, PM1_STATUS), 0);
        assert_eq!(read16(&mut block, PM1_ENABLE), 0);
        assert_eq!(read16(&mut block, PM1_CONTROL), SCI_ENABLE);
        assert!(!block.sci());
    }

    #[test]
    fn the_power_button_raises_the_sci_until_its_status_is_cleared() {
        let mut block = PowerBlock::new();
        block.press_power_button();
        assert!(!block.sci(), "not enabled yet");
        block.write(PM1_ENABLE, &POWER_BUTTON.to_le_bytes());
        assert!(block.sci());
        block.write(PM1_STATUS, &TIMER.to_le_bytes());
        assert!(block.sci(), "another bit was cleared");
        block.write(PM1_STATUS, &POWER_BUTTON.to_le_bytes());
        assert!(!block.sci());
        assert_eq!(read16(&mut block, PM1_STATUS), 0);
    }

    #[test]
    fn registers_can_be_reached_by_bytes_and_as_one_dword() {
        let mut block = PowerBlock::new();
        block.press_power_button();
        block.write(PM1_ENABLE + 1, &[1]);
        assert!(block.sci());
        let mut both = [0; 4];
        block.read(PM1_STATUS, &mut both, START);
        assert_eq!(both, [0, 1, 0, 1]);
        block.write(PM1_STATUS, &[0xff, 0xff, 0, 0]);
        block.read(PM1_STATUS, &mut both, START);
        assert_eq!(both, [0; 4]);
    }

    #[test]
    fn only_events_that_exist_can_be_enabled() {
        let mut block = PowerBlock::new();
        block.write(PM1_ENABLE, &[0xff, 0xff]);
        assert_eq!(read16(&mut block, PM1_ENABLE), EVENTS);
    }

    #[test]
    fn sleep_type_five_switches_off() {
        let mut block = PowerBlock::new();
        let s5 = u16::from(SOFT_OFF_SLEEP_TYPE) << SLEEP_TYPE_SHIFT;
        assert_eq!(block.write(PM1_CONTROL, &s5.to_le_bytes()), None);
        assert_eq!(read16(&mut block, PM1_CONTROL), s5 | SCI_ENABLE);
        let sleep = (s5 | SLEEP_ENABLE).to_le_bytes();
        assert_eq!(
            block.write(PM1_CONTROL, &sleep),
            Some(PowerRequest::PowerOff)
        );
    }

    #[test]
    fn other_sleep_types_do_nothing() {
        for sleep_type in (0..8).filter(|&t| t != u16::from(SOFT_OFF_SLEEP_TYPE)) {
            let value = sleep_type << SLEEP_TYPE_SHIFT | SLEEP_ENABLE;
            assert_eq!(
                PowerBlock::new().write(PM1_CONTROL, &value.to_le_bytes()),
                None
            );
        }
    }

    #[test]
    fn the_timer_counts_at_its_rate_and_wraps_at_24_bits() {
        let mut block = PowerBlock::new();
        assert_eq!(timer(&mut block, START), 0);
        assert_eq!(timer(&mut block, Duration::from_secs(1)), 3_579_545);
        // 2^24 ticks are 4.687 s.
        assert_eq!(
            timer(&mut block, Duration::from_secs(5)),
            5 * 3_579_545 - (1 << 24)
        );
        assert!(timer(&mut block, Duration::MAX) < 1 << 24);
    }

    #[test]
    fn a_change_of_the_timers_highest_bit_is_an_event() {
        let mut block = PowerBlock::new();
        // 2^23 ticks are 2.343 s.
        timer(&mut block, Duration::from_millis(2343));
        assert_eq!(read16(&mut block.clone(), PM1_STATUS), 0);
        block.write(PM1_ENABLE, &TIMER.to_le_bytes());
        timer(&mut block, Duration::from_millis(2344));
        assert!(block.sci());
    }

    #[test]
    fn offsets_outside_the_registers_read_zero_and_drop_writes() {
        let mut block = PowerBlock::new();
        for offset in (PM1_CONTROL + 2..PM_TIMER).chain([LENGTH, u16::MAX]) {
            let mut data = [0xff; 8];
            block.read(offset, &mut data[..1], START);
            assert_eq!(data[0], 0);
            assert_eq!(block.write(offset, &[0xff; 8]), None);
        }
        assert_eq!(block, PowerBlock::new());
    }

    #[test]
    fn only_the_rise_of_reset_cpu_resets() {
        let mut register = ResetControl::new();
        assert_eq!(register.write(RESET_SYSTEM), None);
        assert_eq!(register.write(RESET_VALUE), Some(PowerRequest::Reset));
        assert_eq!(register.read(), RESET_VALUE);
        assert_eq!(register.write(RESET_VALUE), None);
        assert_eq!(register.write(0xf0), None);
        assert_eq!(register.read(), 0);
    }

    #[test]
    fn any_value_after_any_other_resets_on_the_rise_alone() {
        for (before, value) in (0..=u8::MAX).flat_map(|a| (0..=u8::MAX).map(move |b| (a, b))) {
            let mut register = ResetControl::new();
            register.write(before);
            let rises = before & RESET_CPU == 0 && value & RESET_CPU != 0;
            assert_eq!(register.write(value), rises.then_some(PowerRequest::Reset));
            assert_eq!(register.read() & !(RESET_VALUE | RESET_FULL), 0);
        }
    }

    /// A write or a read, where, the bytes, and the time.
    fn access() -> impl Strategy<Value = (bool, u16, Vec<u8>, u64)> {
        let offset = prop_oneof![8 => 0..LENGTH, 1 => any::<u16>()];
        (any::<bool>(), offset, vec(any::<u8>(), 0..9), any::<u64>())
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

        /// 64 cases of 256 accesses: more than 16,000.
        #[test]
        fn hostile_accesses_set_no_bit_that_does_not_exist(accesses in vec(access(), 256)) {
            let mut block = PowerBlock::new();
            for (write, offset, mut data, ns) in accesses {
                if write {
                    let high = usize::from(PM1_CONTROL + 1).checked_sub(usize::from(offset));
                    let slept = high.and_then(|at| data.get(at)).map(|byte| byte >> 2);
                    let off = slept.is_some_and(|bits| bits & 0xf == 8 | SOFT_OFF_SLEEP_TYPE);
                    let request = block.write(offset, &data);
                    prop_assert_eq!(request, off.then_some(PowerRequest::PowerOff));
                } else {
                    block.read(offset, &mut data, Duration::from_nanos(ns));
                }
                prop_assert_eq!(block.status & !TIMER, 0);
                prop_assert_eq!(block.enable & !EVENTS, 0);
                prop_assert_eq!(block.control & !(SLEEP_TYPE | BUS_MASTER_RELOAD), 0);
            }
        }
    }
}
