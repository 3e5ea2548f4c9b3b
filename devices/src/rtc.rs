//! The PC's real-time clock, an MC146818 with CMOS RAM behind ports 0x70 and 0x71.
//!
//! Time is an argument, in UTC since the Unix epoch; what the guest sets is kept as a difference to
//! it. The registers count in BCD and 24 hours unless the guest asks for binary. There is no alarm
//! and no periodic interrupt: interrupt flags never rise.

use std::time::Duration;

/// Ports and registers (Motorola MC146818A data sheet; the century byte is the PC's).
pub mod spec {
    /// Selects a register; write-only, bit 7 masks the NMI.
    pub const INDEX_PORT: u16 = 0x70;
    /// Reads or writes the selected register.
    pub const DATA_PORT: u16 = 0x71;
    /// Bits of the index.
    pub const INDEX_MASK: u8 = 0x7f;

    /// 0 to 59.
    pub const SECONDS: u8 = 0x00;
    /// 0 to 59.
    pub const MINUTES: u8 = 0x02;
    /// 0 to 23.
    pub const HOURS: u8 = 0x04;
    /// 1 to 7, Sunday is 1.
    pub const WEEKDAY: u8 = 0x06;
    /// 1 to 31.
    pub const DAY: u8 = 0x07;
    /// 1 to 12.
    pub const MONTH: u8 = 0x08;
    /// 0 to 99.
    pub const YEAR: u8 = 0x09;
    /// Divider, rate, and whether an update is under way (never here).
    pub const STATUS_A: u8 = 0x0a;
    /// How the clock counts.
    pub const STATUS_B: u8 = 0x0b;
    /// Interrupt flags.
    pub const STATUS_C: u8 = 0x0c;
    /// Whether the battery is good.
    pub const STATUS_D: u8 = 0x0d;
    /// 19, 20 and so on; the FADT must name this register.
    pub const CENTURY: u8 = 0x32;

    /// Status A after reset: 32.768 kHz time base, 1024 Hz rate.
    pub const A_RESET: u8 = 0x26;
    /// Status A bit 7, read-only: update in progress.
    pub const A_UPDATING: u8 = 1 << 7;
    /// Status B bit 1: hours run from 0 to 23.
    pub const B_24_HOURS: u8 = 1 << 1;
    /// Status B bit 2: registers are binary, not BCD.
    pub const B_BINARY: u8 = 1 << 2;
    /// Status B bit 7: the clock stands so that it can be set.
    pub const B_SET: u8 = 1 << 7;
    /// Status D bit 7: the clock kept its time.
    pub const D_VALID: u8 = 1 << 7;
}

use spec::*;

const SECONDS_PER_DAY: i64 = 86_400;
/// Hours bit 7 in 12-hour mode: afternoon.
const PM: u8 = 1 << 7;
const CMOS_SIZE: usize = 128;

/// The clock and its RAM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rtc {
    index: u8,
    /// Bytes that the clock does not keep itself; while it is being set, those too.
    cmos: [u8; CMOS_SIZE],
    /// Seconds that the guest's clock is ahead of `now`.
    ahead: i64,
}

impl Default for Rtc {
    fn default() -> Self {
        let mut rtc = Self {
            index: 0,
            cmos: [0; CMOS_SIZE],
            ahead: 0,
        };
        rtc.set(STATUS_A, A_RESET);
        rtc.set(STATUS_B, B_24_HOURS);
        rtc.set(STATUS_D, D_VALID);
        rtc
    }
}

impl Rtc {
    /// A clock that shows `now`.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Reads a byte from one of the two ports. `now` is the time since the Unix epoch.
    #[must_use]
    pub fn read(&self, port: u16, now: Duration) -> u8 {
        if port != DATA_PORT {
            return 0xff;
        }
        if self.get(STATUS_B) & B_SET != 0 {
            return self.get(self.index);
        }
        self.time_register(self.index, &self.calendar(now))
            .unwrap_or(self.get(self.index))
    }

    /// Writes a byte to one of the two ports.
    pub fn write(&mut self, port: u16, value: u8, now: Duration) {
        match port {
            INDEX_PORT => self.index = value & INDEX_MASK,
            DATA_PORT => self.write_register(value, now),
            _ => {}
        }
    }

    fn write_register(&mut self, value: u8, now: Duration) {
        let setting = self.get(STATUS_B) & B_SET != 0;
        match self.index {
            STATUS_C | STATUS_D => {}
            STATUS_A => self.set(STATUS_A, value & !A_UPDATING),
            STATUS_B => {
                let will_set = value & B_SET != 0;
                if setting && !will_set {
                    self.take_time(now);
                } else if !setting && will_set {
                    self.freeze(now);
                }
                self.set(STATUS_B, value);
            }
            // A running clock would overwrite them at its next tick.
            SECONDS | MINUTES | HOURS | WEEKDAY..=YEAR | CENTURY if !setting => {}
            index => self.set(index, value),
        }
    }

    /// Copies the time into the registers, where it stands.
    fn freeze(&mut self, now: Duration) {
        let calendar = self.calendar(now);
        for index in [SECONDS, MINUTES, HOURS, WEEKDAY, DAY, MONTH, YEAR, CENTURY] {
            if let Some(value) = self.time_register(index, &calendar) {
                self.set(index, value);
            }
        }
    }

    /// Lets the clock go on from what the registers say.
    fn take_time(&mut self, now: Duration) {
        let field = |index| i64::from(self.decode(self.get(index)));
        let calendar = Calendar {
            second: field(SECONDS),
            minute: field(MINUTES),
            hour: self.decode_hour(self.get(HOURS)),
            day: field(DAY),
            month: field(MONTH),
            year: field(CENTURY) * 100 + field(YEAR),
        };
        if let Some(seconds) = calendar.seconds() {
            self.ahead = seconds - unix_seconds(now);
        }
    }

    fn calendar(&self, now: Duration) -> Calendar {
        Calendar::at(unix_seconds(now).saturating_add(self.ahead))
    }

    fn time_register(&self, index: u8, calendar: &Calendar) -> Option<u8> {
        Some(match index {
            SECONDS => self.encode(calendar.second),
            MINUTES => self.encode(calendar.minute),
            HOURS => self.encode_hour(calendar.hour),
            WEEKDAY => self.encode(calendar.weekday()),
            DAY => self.encode(calendar.day),
            MONTH => self.encode(calendar.month),
            YEAR => self.encode(calendar.year.rem_euclid(100)),
            CENTURY => self.encode(calendar.year.div_euclid(100)),
            _ => return None,
        })
    }

    fn encode(&self, value: i64) -> u8 {
        let value = u8::try_from(value.rem_euclid(100)).unwrap_or(0);
        if self.get(STATUS_B) & B_BINARY != 0 {
            value
        } else {
            ((value / 10) << 4) | (value % 10)
        }
    }

    fn decode(&self, value: u8) -> u8 {
        if self.get(STATUS_B) & B_BINARY != 0 {
            value
        } else {
            (value >> 4).saturating_mul(10).saturating_add(value & 0xf)
        }
    }

    fn encode_hour(&self, hour: i64) -> u8 {
        if self.get(STATUS_B) & B_24_HOURS != 0 {
            return self.encode(hour);
        }
        let twelve = self.encode((hour + 11) % 12 + 1);
        if hour >= 12 { twelve | PM } else { twelve }
    }

    fn decode_hour(&self, value: u8) -> i64 {
        if self.get(STATUS_B) & B_24_HOURS != 0 {
            return self.decode(value).into();
        }
        let hour = i64::from(self.decode(value & !PM)) % 12;
        if value & PM != 0 { hour + 12 } else { hour }
    }

    fn get(&self, index: u8) -> u8 {
        self.cmos.get(usize::from(index)).copied().unwrap_or(0)
    }

    fn set(&mut self, index: u8, value: u8) {
        if let Some(byte) = self.cmos.get_mut(usize::from(index)) {
            *byte = value;
        }
    }
}

fn unix_seconds(now: Duration) -> i64 {
    i64::try_from(now.as_secs()).unwrap_or(i64::MAX)
}

/// A moment in the Gregorian calendar, in UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Calendar {
    year: i64,
    month: i64,
    day: i64,
    hour: i64,
    minute: i64,
    second: i64,
}

/// Days in 400 years, after which the calendar repeats.
const DAYS_PER_ERA: i64 = 146_097;
/// Days from 1 March 0000 to 1 January 1970.
const EPOCH: i64 = 719_468;
/// Years that an `i64` of seconds cannot overflow.
const LAST_SECOND: i64 = 253_402_300_799; // the end of 9999

impl Calendar {
    /// The moment `seconds` after the Unix epoch; moments after 9999 show as its end.
    fn at(seconds: i64) -> Self {
        let seconds = seconds.clamp(0, LAST_SECOND);
        let (days, rest) = (seconds / SECONDS_PER_DAY + EPOCH, seconds % SECONDS_PER_DAY);
        // Years begin in March, so that the leap day is the last of its year and months have the
        // same lengths every year: five months take 153 days.
        let (era, day_of_era) = (days / DAYS_PER_ERA, days % DAYS_PER_ERA);
        // The last day of 4, of 100 and of 400 years belongs to the year before it.
        let leap_days = day_of_era / 1_460 - day_of_era / 36_524 + day_of_era / 146_096;
        let year_of_era = (day_of_era - leap_days) / 365;
        let day_of_year = day_of_era - first_day(year_of_era);
        let month_from_march = (5 * day_of_year + 2) / 153;
        let month = (month_from_march + 2) % 12 + 1;
        Self {
            year: era * 400 + year_of_era + i64::from(month <= 2),
            month,
            day: day_of_year - (153 * month_from_march + 2) / 5 + 1,
            hour: rest / 3600,
            minute: rest / 60 % 60,
            second: rest % 60,
        }
    }

    /// Seconds since the Unix epoch; `None` if a field is out of its range.
    fn seconds(&self) -> Option<i64> {
        let fields = [
            (self.month, 1..=12),
            (self.day, 1..=31),
            (self.hour, 0..=23),
            (self.minute, 0..=59),
            (self.second, 0..=59),
            (self.year, 1970..=9999),
        ];
        if !fields.iter().all(|(value, range)| range.contains(value)) {
            return None;
        }
        let year = self.year - i64::from(self.month <= 2);
        let month_from_march = (self.month + 9) % 12;
        let day_of_year = (153 * month_from_march + 2) / 5 + self.day - 1;
        let days = year / 400 * DAYS_PER_ERA + first_day(year % 400) + day_of_year - EPOCH;
        Some(days * SECONDS_PER_DAY + self.hour * 3600 + self.minute * 60 + self.second)
    }

    /// 1 to 7, Sunday is 1.
    fn weekday(&self) -> i64 {
        // 1 January 1970 was a Thursday.
        self.seconds()
            .map_or(1, |seconds| (seconds / SECONDS_PER_DAY + 4) % 7 + 1)
    }
}

/// The first day (1 March) of a year within its era.
fn first_day(year_of_era: i64) -> i64 {
    year_of_era * 365 + year_of_era / 4 - year_of_era / 100
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Saturday, 29 February 2020, 23:59:58 UTC.
    const LEAP_DAY: Duration = Duration::from_secs(1_583_020_798);

    fn read(rtc: &mut Rtc, index: u8, now: Duration) -> u8 {
        rtc.write(INDEX_PORT, index, now);
        rtc.read(DATA_PORT, now)
    }

    fn write(rtc: &mut Rtc, index: u8, value: u8, now: Duration) {
        rtc.write(INDEX_PORT, index, now);
        rtc.write(DATA_PORT, value, now);
    }

    fn date(rtc: &mut Rtc, now: Duration) -> [u8; 8] {
        [CENTURY, YEAR, MONTH, DAY, WEEKDAY, HOURS, MINUTES, SECONDS].map(|i| read(rtc, i, now))
    }

    #[test]
    fn the_time_reads_as_bcd_in_24_hours() {
        let mut rtc = Rtc::new();
        let expected = [0x20, 0x20, 0x02, 0x29, 7, 0x23, 0x59, 0x58];
        assert_eq!(date(&mut rtc, LEAP_DAY), expected);
        let tomorrow = LEAP_DAY + Duration::from_secs(2);
        assert_eq!(
            date(&mut rtc, tomorrow),
            [0x20, 0x20, 0x03, 0x01, 1, 0, 0, 0]
        );
    }

    #[test]
    fn the_time_reads_as_binary_in_12_hours_if_asked() {
        let mut rtc = Rtc::new();
        write(&mut rtc, STATUS_B, B_BINARY, LEAP_DAY);
        assert_eq!(
            date(&mut rtc, LEAP_DAY),
            [20, 20, 2, 29, 7, 11 | PM, 59, 58]
        );
        let midnight = LEAP_DAY + Duration::from_secs(2);
        assert_eq!(read(&mut rtc, HOURS, midnight), 12);
    }

    #[test]
    fn every_day_of_a_century_converts_there_and_back() {
        let mut before = Calendar::at(0);
        for day in 1..47_482 {
            let calendar = Calendar::at(day * SECONDS_PER_DAY);
            assert_eq!(calendar.seconds(), Some(day * SECONDS_PER_DAY));
            let next_day = calendar.day == before.day + 1 && calendar.month == before.month;
            assert!(next_day || calendar.day == 1, "{before:?} {calendar:?}");
            before = calendar;
        }
        assert_eq!((before.year, before.month, before.day), (2099, 12, 31));
    }

    #[test]
    fn the_status_registers_have_their_reset_values() {
        let mut rtc = Rtc::new();
        let status = [STATUS_A, STATUS_B, STATUS_C, STATUS_D].map(|i| read(&mut rtc, i, LEAP_DAY));
        assert_eq!(status, [0x26, 0x02, 0, 0x80]);
        for index in [STATUS_A, STATUS_C, STATUS_D] {
            write(&mut rtc, index, 0xff, LEAP_DAY);
        }
        assert_eq!(read(&mut rtc, STATUS_A, LEAP_DAY) & A_UPDATING, 0);
        assert_eq!(read(&mut rtc, STATUS_C, LEAP_DAY), 0);
        assert_eq!(read(&mut rtc, STATUS_D, LEAP_DAY), D_VALID);
    }

    #[test]
    fn the_guest_can_set_the_clock() {
        let mut rtc = Rtc::new();
        write(&mut rtc, STATUS_B, B_24_HOURS | B_SET, LEAP_DAY);
        let registers = [CENTURY, YEAR, MONTH, DAY, HOURS, MINUTES, SECONDS];
        for (index, value) in registers
            .into_iter()
            .zip([0x19, 0x99, 0x12, 0x31, 0x23, 0x59, 0x59])
        {
            write(&mut rtc, index, value, LEAP_DAY);
        }
        let later = LEAP_DAY + Duration::from_secs(100);
        assert_eq!(
            read(&mut rtc, SECONDS, later),
            0x59,
            "it stands while it is set"
        );
        write(&mut rtc, STATUS_B, B_24_HOURS, later);
        let second = later + Duration::from_secs(1);
        assert_eq!(date(&mut rtc, second), [0x20, 0, 1, 1, 7, 0, 0, 0]);
    }

    #[test]
    fn a_running_clock_and_a_nonsense_date_cannot_be_set() {
        let mut rtc = Rtc::new();
        let before = date(&mut rtc, LEAP_DAY);
        write(&mut rtc, YEAR, 0x30, LEAP_DAY);
        assert_eq!(date(&mut rtc, LEAP_DAY), before);
        write(&mut rtc, STATUS_B, B_24_HOURS | B_SET, LEAP_DAY);
        write(&mut rtc, MONTH, 0xff, LEAP_DAY);
        write(&mut rtc, STATUS_B, B_24_HOURS, LEAP_DAY);
        assert_eq!(date(&mut rtc, LEAP_DAY), before);
    }

    #[test]
    fn the_rest_is_ram() {
        let mut rtc = Rtc::new();
        write(&mut rtc, 0x7f, 0xab, LEAP_DAY);
        assert_eq!(read(&mut rtc, 0x7f, LEAP_DAY), 0xab);
        assert_eq!(
            read(&mut rtc, 0x80 | 0x7f, LEAP_DAY),
            0xab,
            "bit 7 is not part of the index"
        );
        assert_eq!(
            rtc.read(INDEX_PORT, LEAP_DAY),
            0xff,
            "the index cannot be read"
        );
    }

    #[test]
    fn any_time_and_any_bytes_are_survived() {
        for now in [Duration::ZERO, LEAP_DAY, Duration::MAX] {
            for status in [0, B_BINARY, B_24_HOURS, B_SET, 0xff] {
                for value in 0..=u8::MAX {
                    let mut rtc = Rtc::new();
                    write(&mut rtc, STATUS_B, status | B_SET, now);
                    for index in 0..=u8::MAX {
                        write(&mut rtc, index, value, now);
                    }
                    write(&mut rtc, STATUS_B, status & !B_SET, Duration::MAX);
                    date(&mut rtc, now);
                }
            }
        }
    }
}
