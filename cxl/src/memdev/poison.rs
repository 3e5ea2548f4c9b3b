//! Poison: lines of media whose data is known to be bad, and the list that tells of them (section 8.2.9.9.4).
//!
//! Poison is kept by cache line. The list that the host reads holds the first [`POISON_LIST_CAPACITY`] lines; what did
//! not fit is bad all the same, and a media scan finds it once there is room.

use std::collections::BTreeMap;
use std::ops::Range;

use serde::{Deserialize, Serialize};

use super::Memdev;
use crate::event::{
    Event, EventFlags, EventKind, GeneralMedia, MediaAddress, Severity, Transaction,
};
use crate::mailbox::ReturnCode;
use crate::{Effect, Error};

/// Bytes of a line, the unit of poison.
pub const LINE: u64 = 64;
/// Lines that the poison list holds, as Identify tells.
pub const POISON_LIST_CAPACITY: usize = 256;
/// Lines that Inject Poison can poison at a time, as Identify tells.
pub const INJECT_LIMIT: usize = 128;
/// Lines that can be bad at a time; a device with more has failed.
pub const MOST_POISON: usize = 4096;

/// Where poison comes from (table 8-107), with its code in a poison list record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[repr(u8)]
pub enum PoisonSource {
    /// Not known.
    Unknown = 0,
    /// The host, or a peer, wrote poisoned data.
    External = 1,
    /// The device found an error that it cannot correct.
    Internal = 2,
    /// Inject Poison.
    Injected = 3,
}

/// Adjacent lines of poison from one source.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PoisonRecord {
    /// First device address.
    pub dpa: u64,
    /// Bytes.
    pub len: u64,
    /// Where it comes from.
    pub source: PoisonSource,
}

#[derive(Clone, Copy, Debug)]
struct Line {
    source: PoisonSource,
    /// It is in the list.
    listed: bool,
}

/// The bad lines of a device.
#[derive(Debug, Default)]
pub struct PoisonList {
    lines: BTreeMap<u64, Line>,
    /// When a line did not fit the list, in ns.
    overflow: Option<u64>,
}

impl PoisonList {
    /// True if a line in `dpa..dpa + len` is bad, in the list or not.
    pub fn is_poisoned(&self, dpa: u64, len: u64) -> bool {
        let first = dpa - dpa % LINE;
        self.lines
            .range(first..dpa.saturating_add(len))
            .next()
            .is_some()
    }

    /// Bad lines in the list.
    pub fn listed(&self) -> usize {
        self.lines.values().filter(|line| line.listed).count()
    }

    /// What the list says of `dpa..dpa + len`.
    pub fn records(&self, dpa: u64, len: u64) -> Vec<PoisonRecord> {
        joined(self.within(dpa, len).filter(|(_, line)| line.listed))
    }

    /// What is bad in `dpa..dpa + len`, listed or not.
    pub fn found(&self, dpa: u64, len: u64) -> Vec<PoisonRecord> {
        joined(self.within(dpa, len))
    }

    /// When a line did not fit the list, in ns, if that was so.
    pub fn overflow(&self) -> Option<u64> {
        self.overflow
    }

    fn within(&self, dpa: u64, len: u64) -> impl Iterator<Item = (u64, Line)> {
        self.lines
            .range(dpa..dpa.saturating_add(len))
            .map(|(dpa, line)| (*dpa, *line))
    }

    fn injected(&self) -> usize {
        let injected = |line: &&Line| line.source == PoisonSource::Injected;
        self.lines.values().filter(injected).count()
    }

    /// Makes a line bad. Gives whether it was good, and whether it is in the list.
    fn add(&mut self, dpa: u64, source: PoisonSource, timestamp: u64) -> (bool, bool) {
        if let Some(line) = self.lines.get(&dpa) {
            return (false, line.listed);
        }
        let listed = self.listed() < POISON_LIST_CAPACITY;
        if !listed {
            self.overflow.get_or_insert(timestamp);
        }
        self.lines.insert(dpa, Line { source, listed });
        (true, listed)
    }

    /// Puts what lies in `dpa..dpa + len` and is not in the list into it, as far as there is room. With all of the
    /// media's poison in the list there is no overflow any more.
    pub(crate) fn list(&mut self, dpa: u64, len: u64) {
        let mut room = POISON_LIST_CAPACITY.saturating_sub(self.listed());
        for (_, line) in self.lines.range_mut(dpa..dpa.saturating_add(len)) {
            if !line.listed && room > 0 {
                line.listed = true;
                room -= 1;
            }
        }
        if self.lines.values().all(|line| line.listed) {
            self.overflow = None;
        }
    }

    /// Makes `dpa..dpa + len` good. True if any of it was bad.
    pub(super) fn remove(&mut self, dpa: u64, len: u64) -> bool {
        let before = self.lines.len();
        let end = dpa.saturating_add(len);
        self.lines.retain(|line, _| !(dpa..end).contains(line));
        if self.lines.values().all(|line| line.listed) {
            self.overflow = None;
        }
        self.lines.len() < before
    }
}

/// Records of lines by increasing address.
fn joined(lines: impl Iterator<Item = (u64, Line)>) -> Vec<PoisonRecord> {
    let mut records: Vec<PoisonRecord> = Vec::new();
    for (dpa, Line { source, .. }) in lines {
        match records.last_mut() {
            Some(last) if last.source == source && last.dpa + last.len == dpa => last.len += LINE,
            _ => records.push(PoisonRecord {
                dpa,
                len: LINE,
                source,
            }),
        }
    }
    records
}

impl Memdev {
    /// The bad lines.
    pub fn poison(&self) -> &PoisonList {
        &self.poison
    }

    /// Makes the lines of `dpa..dpa + len` bad, as an error of the media or a host's poisoned write does, and logs it.
    ///
    /// # Errors
    /// [`ReturnCode::InvalidPhysicalAddress`] if the device has no such lines, [`ReturnCode::InvalidInput`] if they are not
    /// whole, [`ReturnCode::ResourcesExhausted`] if more than [`MOST_POISON`] would be bad. Nothing has changed then.
    pub fn add_poison(
        &mut self,
        dpa: u64,
        len: u64,
        source: PoisonSource,
        effects: &mut Vec<Effect>,
    ) -> Result<(), ReturnCode> {
        self.check_lines(dpa, len)?;
        let lines = usize::try_from(len / LINE).unwrap_or(usize::MAX);
        if self.poison.lines.len().saturating_add(lines) > MOST_POISON {
            return Err(ReturnCode::ResourcesExhausted);
        }
        let timestamp = self.timestamp();
        let (mut any_new, mut all_listed) = (false, true);
        for line in (dpa..dpa + len).step_by(LINE as usize) {
            let (new, listed) = self.poison.add(line, source, timestamp);
            any_new |= new;
            all_listed &= listed;
        }
        if any_new {
            self.tell_poison(dpa, len, effects);
            self.log_poison(dpa, source, all_listed, effects);
        }
        Ok(())
    }

    /// Inject Poison (section 8.2.9.9.4.2): one line, within the limit.
    pub(crate) fn inject_poison(
        &mut self,
        dpa: u64,
        effects: &mut Vec<Effect>,
    ) -> Result<(), ReturnCode> {
        self.check_lines(dpa, LINE)?;
        self.check_unlocked(dpa, LINE)?;
        if self.poison.is_poisoned(dpa, LINE) {
            return Ok(());
        }
        if self.poison.injected() >= INJECT_LIMIT {
            return Err(ReturnCode::InjectPoisonLimitReached);
        }
        self.add_poison(dpa, LINE, PoisonSource::Injected, effects)
    }

    /// Clear Poison (section 8.2.9.9.4.3): the line is `data` then, and good.
    pub(crate) fn clear_poison(
        &mut self,
        dpa: u64,
        data: [u8; LINE as usize],
        effects: &mut Vec<Effect>,
    ) -> Result<(), ReturnCode> {
        self.check_lines(dpa, LINE)?;
        self.check_unlocked(dpa, LINE)?;
        effects.push(Effect::MediaWritten { dpa, data });
        self.forget_poison(dpa, LINE, effects);
        Ok(())
    }

    /// The host's load of the bad line at `dpa` has failed: logs it.
    pub fn poison_read(&mut self, dpa: u64, effects: &mut Vec<Effect>) {
        self.log_uncorrectable(
            dpa,
            Severity::Failure,
            Transaction::HostRead,
            MediaAddress::UNCORRECTABLE,
            effects,
        );
    }

    /// The lines of `dpa..dpa + len` are good again, with the bytes that they had, as if they had never been bad.
    ///
    /// # Errors
    /// As for [`Memdev::add_poison`], but for the limit.
    pub fn mend_poison(
        &mut self,
        dpa: u64,
        len: u64,
        effects: &mut Vec<Effect>,
    ) -> Result<(), ReturnCode> {
        self.check_lines(dpa, len)?;
        self.forget_poison(dpa, len, effects);
        Ok(())
    }

    /// Lines that were written anew as a whole are good again.
    pub(crate) fn forget_poison(&mut self, dpa: u64, len: u64, effects: &mut Vec<Effect>) {
        if self.poison.remove(dpa, len) {
            self.tell_poison(dpa, len, effects);
        }
    }

    /// Tells that lines went bad or good; what is persistent about them is remembered.
    fn tell_poison(&self, dpa: u64, len: u64, effects: &mut Vec<Effect>) {
        effects.push(Effect::PoisonChanged { dpa, len });
        if dpa.saturating_add(len) > self.partition().volatile {
            effects.push(Effect::NonVolatileChanged);
        }
    }

    /// Makes the lines bad that were bad when the device was last on.
    pub(super) fn restore_poison(&mut self) -> Result<(), Error> {
        for PoisonRecord { dpa, len, source } in std::mem::take(&mut self.nonvolatile.poison) {
            self.add_poison(dpa, len, source, &mut Vec::new())
                .map_err(|_| Error::RememberedPoison { dpa, len })?;
        }
        self.events = self.config.empty_logs();
        Ok(())
    }

    /// Where a Get Poison List for this very range goes on, if the last one was for it and had more to tell.
    pub(crate) fn poison_cursor(&self, dpa: u64, len: u64) -> Option<u64> {
        let (_, next) = self
            .poison_cursor
            .filter(|(range, _)| *range == (dpa, len))?;
        Some(next)
    }

    pub(crate) fn set_poison_cursor(&mut self, dpa: u64, len: u64, next: Option<u64>) {
        self.poison_cursor = next.map(|next| ((dpa, len), next));
    }

    /// Whole lines that the device has, at least one.
    pub(crate) fn check_lines(&self, dpa: u64, len: u64) -> Result<(), ReturnCode> {
        if len == 0 || !(dpa | len).is_multiple_of(LINE) {
            return Err(ReturnCode::InvalidInput);
        }
        let end = dpa.checked_add(len);
        let end = end.ok_or(ReturnCode::InvalidPhysicalAddress)?;
        let within = |piece: &Range<u64>| piece.start <= dpa && end <= piece.end;
        match self.memory().iter().any(within) {
            true => Ok(()),
            false => Err(ReturnCode::InvalidPhysicalAddress),
        }
    }

    fn log_poison(
        &mut self,
        dpa: u64,
        source: PoisonSource,
        all_listed: bool,
        effects: &mut Vec<Effect>,
    ) {
        let (severity, transaction) = match source {
            PoisonSource::Injected => (Severity::Informational, Transaction::HostInjectPoison),
            PoisonSource::External => (Severity::Failure, Transaction::HostWrite),
            PoisonSource::Internal => (Severity::Failure, Transaction::InternalMediaScrub),
            PoisonSource::Unknown => (Severity::Failure, Transaction::Unknown),
        };
        let mut descriptor = MediaAddress::UNCORRECTABLE;
        if !all_listed {
            descriptor |= MediaAddress::POISON_LIST_OVERFLOW;
        }
        self.log_uncorrectable(dpa, severity, transaction, descriptor, effects);
    }

    fn log_uncorrectable(
        &mut self,
        dpa: u64,
        severity: Severity,
        transaction: Transaction,
        descriptor: u8,
        effects: &mut Vec<Effect>,
    ) {
        let media = MediaAddress {
            dpa,
            volatile: dpa < self.partition().volatile,
            descriptor,
            transaction: transaction as u8,
            ..MediaAddress::default()
        };
        let event = Event {
            severity,
            flags: EventFlags::default(),
            related: 0,
            maintenance_class: 0,
            kind: EventKind::GeneralMedia(GeneralMedia {
                media,
                ..GeneralMedia::default()
            }),
        };
        self.log_event(&event, effects);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mailbox::tests::device;

    fn add(memdev: &mut Memdev, dpa: u64, len: u64) -> Result<(), ReturnCode> {
        memdev.add_poison(dpa, len, PoisonSource::Internal, &mut Vec::new())
    }

    #[test]
    fn a_load_of_poison_is_logged_as_a_failed_read_of_the_host() {
        let mut memdev = device();
        add(&mut memdev, 0x1000, 64).unwrap();
        let log = |memdev: &Memdev| memdev.events().log(Severity::Failure).len();
        assert_eq!(log(&memdev), 1);
        memdev.poison_read(0x1000, &mut Vec::new());
        assert_eq!(log(&memdev), 2);
        let failures = memdev.events().log(Severity::Failure);
        let record = failures.records().last().unwrap();
        let uncorrectable_host_read = [0x01, 0x10, 0, 0, 0, 0, 0, 0, 1, 0, 1];
        assert_eq!(record[48..59], uncorrectable_host_read);
        assert!(memdev.poison().is_poisoned(0x1000, 64), "it stays bad");
    }

    #[test]
    fn adjacent_lines_of_one_source_are_one_record() {
        let mut memdev = device();
        add(&mut memdev, 0x1000, 128).unwrap();
        add(&mut memdev, 0x1080, 64).unwrap();
        memdev.inject_poison(0x10c0, &mut Vec::new()).unwrap();
        let record = |dpa, len, source| PoisonRecord { dpa, len, source };
        assert_eq!(
            memdev.poison().records(0, u64::MAX),
            [
                record(0x1000, 192, PoisonSource::Internal),
                record(0x10c0, 64, PoisonSource::Injected)
            ]
        );
        assert_eq!(
            memdev.poison().records(0x1040, 64),
            [record(0x1040, 64, PoisonSource::Internal)]
        );
    }

    #[test]
    fn a_byte_of_a_bad_line_is_poisoned() {
        let mut memdev = device();
        add(&mut memdev, 0x1000, 64).unwrap();
        let poisoned = [
            (0xfff, 1),
            (0xfff, 2),
            (0x1000, 1),
            (0x103f, 1),
            (0x1040, 1),
        ]
        .map(|(dpa, len)| memdev.poison().is_poisoned(dpa, len));
        assert_eq!(poisoned, [false, true, true, true, false]);
    }

    #[test]
    fn poison_is_told_and_logged_with_its_source() {
        let mut memdev = device();
        let mut effects = Vec::new();
        memdev
            .add_poison(0x1000, 128, PoisonSource::External, &mut effects)
            .unwrap();
        let told = Effect::PoisonChanged {
            dpa: 0x1000,
            len: 128,
        };
        assert_eq!(effects, [told]);
        let log = memdev.events().log(Severity::Failure);
        let record = log.records().next().unwrap();
        // Volatile address, uncorrectable, host write.
        assert_eq!(record[48..59], [0x01, 0x10, 0, 0, 0, 0, 0, 0, 1, 0, 2]);
        // The same lines again are no news.
        memdev
            .add_poison(0x1000, 128, PoisonSource::External, &mut effects)
            .unwrap();
        assert_eq!(effects.len(), 1);
        assert_eq!(memdev.events().log(Severity::Failure).len(), 1);
    }

    #[test]
    fn a_full_list_overflows_until_what_it_lacks_is_gone() {
        let mut memdev = device();
        let capacity = POISON_LIST_CAPACITY as u64 * LINE;
        add(&mut memdev, 0, capacity).unwrap();
        assert_eq!(memdev.poison().overflow(), None);
        add(&mut memdev, 1 << 20, LINE).unwrap();
        assert!(memdev.poison().overflow().is_some());
        assert_eq!(memdev.poison().records(1 << 20, LINE), []);
        assert_eq!(memdev.poison().found(1 << 20, LINE).len(), 1);
        assert!(memdev.poison().is_poisoned(1 << 20, 1));
        let log = memdev.events().log(Severity::Failure);
        let descriptors: Vec<u8> = log.records().map(|record| record[56]).collect();
        assert_eq!(descriptors, [0b001, 0b101]);

        memdev
            .clear_poison(1 << 20, [0; 64], &mut Vec::new())
            .unwrap();
        assert_eq!(memdev.poison().overflow(), None);
    }

    #[test]
    fn lines_that_are_not_there_or_not_whole_are_refused() {
        let mut memdev = device();
        let end = memdev.capacity();
        for (dpa, len) in [(0, 0), (1, 64), (0, 63), (32, 64)] {
            assert_eq!(add(&mut memdev, dpa, len), Err(ReturnCode::InvalidInput));
        }
        for (dpa, len) in [(end, 64), (end - 64, 128), (u64::MAX - 63, 64)] {
            let refused = Err(ReturnCode::InvalidPhysicalAddress);
            assert_eq!(add(&mut memdev, dpa, len), refused);
        }
        let most = MOST_POISON as u64 * LINE;
        let refused = Err(ReturnCode::ResourcesExhausted);
        assert_eq!(add(&mut memdev, 0, most + LINE), refused);
        assert_eq!(add(&mut memdev, 0, most), Ok(()));
        assert_eq!(add(&mut memdev, most, LINE), refused);
    }
}
