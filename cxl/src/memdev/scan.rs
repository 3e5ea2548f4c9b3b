//! Media scan (sections 8.2.9.9.4.4 to 8.2.9.9.4.6): looks for poison that the list does not have.

use super::Memdev;
use super::background::time_for;
use super::poison::PoisonRecord;
use crate::Effect;
use crate::event::{
    Event, EventFlags, EventKind, GeneralMedia, MediaAddress, Severity, Transaction,
};
use crate::mailbox::ReturnCode;

/// Records that the result of a scan holds; a scan that finds more stops.
pub const SCAN_CAPACITY: usize = 256;
/// A scan takes at least this long, in ns.
const LEAST_TIME: u64 = 10_000_000;
/// ns to scan a GiB.
const TIME_PER_GIB: u64 = 100_000_000;

/// What a scan found and the host has not fetched yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ScanResult {
    pub records: Vec<PoisonRecord>,
    /// Where the scan stopped because it found too much, and how many bytes it left out.
    pub rest: Option<(u64, u64)>,
}

impl Memdev {
    /// How long a scan of so many bytes takes, in ns.
    pub(crate) fn scan_time(len: u64) -> u64 {
        time_for(len, TIME_PER_GIB).max(LEAST_TIME)
    }

    pub(super) fn finish_scan(&mut self, dpa: u64, len: u64, log: bool, effects: &mut Vec<Effect>) {
        let mut records = self.poison.found(dpa, len);
        let left_out = records.get(SCAN_CAPACITY).map(|first| first.dpa);
        let rest = left_out.map(|first| (first, dpa + len - first));
        records.truncate(SCAN_CAPACITY);
        self.poison
            .list(dpa, rest.map_or(len, |(first, _)| first - dpa));
        if log {
            for record in &records {
                self.log_found(record.dpa, effects);
            }
        }
        self.scan_result = Some(ScanResult { records, rest });
    }

    fn log_found(&mut self, dpa: u64, effects: &mut Vec<Effect>) {
        let media = MediaAddress {
            dpa,
            volatile: dpa < self.partition().volatile,
            descriptor: MediaAddress::UNCORRECTABLE,
            transaction: Transaction::HostScanMedia as u8,
            ..MediaAddress::default()
        };
        let event = Event {
            severity: Severity::Failure,
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

    /// The next `most` records of the last scan, and the whole range that it left out; true if there are more records.
    /// The last of them take the result along.
    pub(crate) fn take_scan_result(
        &mut self,
        most: usize,
    ) -> Result<(ScanResult, bool), ReturnCode> {
        let mut result = self.scan_result.take().ok_or(ReturnCode::InvalidInput)?;
        let rest = result.rest;
        let later = result.records.split_off(most.min(result.records.len()));
        let more = !later.is_empty();
        if more {
            self.scan_result = Some(ScanResult {
                records: later,
                rest,
            });
        }
        Ok((result, more))
    }
}
