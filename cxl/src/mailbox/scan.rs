//! Media scan (sections 8.2.9.9.4.4 to 8.2.9.9.4.6), opcodes 0x4303 to 0x4305.

use super::poison::{DpaRange, RECORD_LEN, encode_record};
use super::{
    BackgroundCommand, Command, CommandEffects, Input, PAYLOAD_SIZE, Reply, Request, ReturnCode,
    Start,
};
use crate::Effect;
use crate::memdev::Memdev;
use crate::memdev::background::{Operation, Work};
use crate::memdev::scan::ScanResult;

/// Get Scan Media Capabilities.
pub(super) struct GetScanMediaCapabilities;

pub(super) struct ScanCapabilitiesRequest(DpaRange);

impl Request for ScanCapabilitiesRequest {
    fn decode(input: &mut Input<'_>) -> Option<Self> {
        Some(Self(DpaRange::decode(input)?))
    }
}

pub(super) struct ScanCapabilities {
    estimated_ms: u32,
}

impl Reply for ScanCapabilities {
    fn encode(&self, output: &mut Vec<u8>) {
        output.extend(self.estimated_ms.to_le_bytes());
    }
}

impl Command for GetScanMediaCapabilities {
    const OPCODE: u16 = 0x4303;
    const EFFECTS: CommandEffects = CommandEffects::NONE;
    const NEEDS_MEDIA: bool = true;
    type Request = ScanCapabilitiesRequest;
    type Reply = ScanCapabilities;

    fn run(
        memdev: &mut Memdev,
        ScanCapabilitiesRequest(DpaRange { dpa, len }): ScanCapabilitiesRequest,
        _: &mut Vec<Effect>,
    ) -> Result<ScanCapabilities, ReturnCode> {
        memdev.check_lines(dpa, len)?;
        let ms = Memdev::scan_time(len) / 1_000_000;
        Ok(ScanCapabilities {
            estimated_ms: u32::try_from(ms).unwrap_or(u32::MAX),
        })
    }
}

/// Scan Media.
pub(super) struct ScanMedia;

pub(super) struct ScanRequest {
    range: DpaRange,
    flags: u8,
}

impl ScanRequest {
    /// Log no events for what is found.
    const NO_EVENT_LOG: u8 = 1 << 0;
}

impl Request for ScanRequest {
    fn decode(input: &mut Input<'_>) -> Option<Self> {
        Some(Self {
            range: DpaRange::decode(input)?,
            flags: input.u8()?,
        })
    }
}

impl BackgroundCommand for ScanMedia {
    const OPCODE: u16 = 0x4304;
    const EFFECTS: CommandEffects = CommandEffects::IMMEDIATE_LOG.and(CommandEffects::ABORTABLE);
    const NEEDS_MEDIA: bool = true;
    type Request = ScanRequest;
    type Reply = ();

    fn start(
        memdev: &mut Memdev,
        ScanRequest { range, flags }: ScanRequest,
        _: &mut Vec<Effect>,
    ) -> Result<Start<()>, ReturnCode> {
        let DpaRange { dpa, len } = range;
        memdev.check_lines(dpa, len)?;
        Ok(Start::Background(Operation {
            duration: Memdev::scan_time(len),
            work: Work::ScanMedia {
                dpa,
                len,
                log: flags & ScanRequest::NO_EVENT_LOG == 0,
            },
        }))
    }
}

/// Get Scan Media Results: each record once.
pub(super) struct GetScanMediaResults;

pub(super) struct ScanResults {
    result: ScanResult,
    more: bool,
}

impl ScanResults {
    const HEADER_LEN: usize = 0x20;
    /// So many records fit a payload.
    const MAX: usize = (PAYLOAD_SIZE - Self::HEADER_LEN) / RECORD_LEN;
}

impl Reply for ScanResults {
    fn encode(&self, output: &mut Vec<u8>) {
        let rest = self.result.rest.map(|(dpa, len)| DpaRange { dpa, len });
        rest.unwrap_or_default().encode(output);
        output.extend([u8::from(self.more) | u8::from(rest.is_some()) << 1, 0]);
        output.extend((self.result.records.len() as u16).to_le_bytes());
        output.extend([0; 12]);
        for record in &self.result.records {
            encode_record(record, output);
        }
    }
}

impl Command for GetScanMediaResults {
    const OPCODE: u16 = 0x4305;
    const EFFECTS: CommandEffects = CommandEffects::NONE;
    const NEEDS_MEDIA: bool = true;
    type Request = ();
    type Reply = ScanResults;

    fn run(memdev: &mut Memdev, _: (), _: &mut Vec<Effect>) -> Result<ScanResults, ReturnCode> {
        let (result, more) = memdev.take_scan_result(ScanResults::MAX)?;
        Ok(ScanResults { result, more })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering;

    use super::super::tests::{Bench, bench, run};
    use super::*;
    use crate::event::Severity;
    use crate::memdev::poison::PoisonSource;
    use crate::memdev::scan::SCAN_CAPACITY;

    fn range(dpa: u64, lines: u64) -> Vec<u8> {
        [dpa.to_le_bytes(), lines.to_le_bytes()].concat()
    }

    fn scan(flags: u8) -> Vec<u8> {
        [&range(0, 1 << 24)[..], &[flags]].concat()
    }

    fn add(bench: &mut Bench, dpa: u64) {
        let source = PoisonSource::Internal;
        bench
            .memdev
            .add_poison(dpa, 64, source, &mut Vec::new())
            .unwrap();
    }

    #[test]
    fn a_scan_takes_the_time_it_said_and_then_has_found_what_is_bad() {
        let mut bench = bench();
        add(&mut bench, 0x1000);
        let capabilities = run(&mut bench.memdev, 0x4303, &range(0, 1 << 24));
        assert_eq!(capabilities, Ok(100_u32.to_le_bytes().to_vec()), "1 GiB");
        bench.start(0x4304, &scan(0), 100_000_000);
        let list = run(&mut bench.memdev, 0x4300, &range(0, 64)).unwrap();
        assert_eq!(list[0], 0b100, "a scan is in progress");
        bench.finish(100_000_000, ReturnCode::Success);

        let results = run(&mut bench.memdev, 0x4305, &[]).unwrap();
        assert_eq!(results[..0x10], [0; 16]);
        assert_eq!(results[0x10..0x14], [0, 0, 1, 0]);
        assert_eq!(results[0x20..0x29], [0x02, 0x10, 0, 0, 0, 0, 0, 0, 1]);
        let again = run(&mut bench.memdev, 0x4305, &[]);
        assert_eq!(again, Err(ReturnCode::InvalidInput), "fetched already");
    }

    #[test]
    fn what_a_scan_finds_is_logged_unless_the_host_does_not_want_it() {
        let mut bench = bench();
        add(&mut bench, 0x1000);
        let scans = |bench: &Bench| {
            let log = bench.memdev.events().log(Severity::Failure);
            log.records().filter(|record| record[58] == 3).count()
        };
        for (flags, logged) in [(1, 0), (0, 1)] {
            bench.start(0x4304, &scan(flags), 100_000_000);
            bench.finish(100_000_000, ReturnCode::Success);
            assert_eq!(scans(&bench), logged);
        }
    }

    #[test]
    fn a_scan_that_finds_too_much_says_where_to_go_on() {
        let mut bench = bench();
        for line in 0..SCAN_CAPACITY as u64 + 10 {
            add(&mut bench, line * 128);
        }
        bench.start(0x4304, &scan(1), 100_000_000);
        bench.finish(100_000_000, ReturnCode::Success);
        let mut found = 0;
        for (flags, count) in [(0b11, 126), (0b11, 126), (0b10, 4)] {
            let results = run(&mut bench.memdev, 0x4305, &[]).unwrap();
            let restart = SCAN_CAPACITY as u64 * 128;
            let rest = range(restart, (1 << 24) - restart / 64);
            assert_eq!(results[..0x10], rest);
            assert_eq!(results[0x10..0x14], [flags, 0, count, 0]);
            found += usize::from(count);
        }
        assert_eq!(found, SCAN_CAPACITY);
    }

    #[test]
    fn poison_that_did_not_fit_the_list_is_listed_by_a_scan() {
        let mut bench = bench();
        for line in 0..257 {
            add(&mut bench, line * 64);
        }
        let listed =
            |bench: &mut Bench| run(&mut bench.memdev, 0x4300, &range(256 * 64, 1)).unwrap();
        assert_eq!(listed(&mut bench)[0xa], 0);
        let clear = [0; 72];
        run(&mut bench.memdev, 0x4302, &clear).unwrap();
        bench.start(0x4304, &scan(1), 100_000_000);
        bench.finish(100_000_000, ReturnCode::Success);
        assert_eq!(listed(&mut bench)[0xa], 1);
        assert_eq!(bench.memdev.poison().overflow(), None);
    }

    #[test]
    fn an_aborted_scan_has_no_results() {
        let mut bench = bench();
        bench.start(0x4304, &scan(0), 100_000_000);
        assert_eq!(bench.run(0x0005, &[]), Ok(vec![]));
        let status = bench.memdev.background_status();
        assert_eq!((status.opcode, status.percent), (0x4304, 100));
        assert_eq!(status.return_code, ReturnCode::Aborted as u16);
        let results = run(&mut bench.memdev, 0x4305, &[]);
        assert_eq!(results, Err(ReturnCode::InvalidInput));
        bench.time.fetch_add(100_000_000, Ordering::Relaxed);
        assert!(!bench.memdev.advance(&mut Vec::new()), "nothing ends twice");
    }
}
