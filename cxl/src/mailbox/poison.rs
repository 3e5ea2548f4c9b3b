//! Poison list, injection and clearing (section 8.2.9.9.4), opcodes 0x4300 to 0x4302.

use super::{Command, CommandEffects, Input, PAYLOAD_SIZE, Reply, Request, ReturnCode};
use crate::Effect;
use crate::memdev::Memdev;
use crate::memdev::background::Work;
use crate::memdev::poison::{LINE, PoisonRecord};

/// Bytes of one record of the poison list, and of a media scan's result.
pub(super) const RECORD_LEN: usize = 16;

/// A range of device addresses: whole lines, at least one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct DpaRange {
    pub dpa: u64,
    /// Bytes; what the host asks for beyond 2^64 is more than any device has all the same.
    pub len: u64,
}

impl DpaRange {
    /// An address, and a length in lines.
    pub(super) fn decode(input: &mut Input<'_>) -> Option<Self> {
        Some(Self {
            dpa: input.u64()?,
            len: input.u64()?.saturating_mul(LINE) & !(LINE - 1),
        })
    }

    /// An address, and a length in lines.
    pub(super) fn encode(self, output: &mut Vec<u8>) {
        output.extend(self.dpa.to_le_bytes());
        output.extend((self.len / LINE).to_le_bytes());
    }
}

/// A record as the poison list has it: source in bits 2:0 of the address, length in lines.
pub(super) fn encode_record(record: &PoisonRecord, output: &mut Vec<u8>) {
    output.extend((record.dpa | record.source as u64).to_le_bytes());
    output.extend(((record.len / LINE) as u32).to_le_bytes());
    output.extend([0; 4]);
}

/// Get Poison List (section 8.2.9.9.4.1).
pub(super) struct GetPoisonList;

pub(super) struct PoisonListRequest(DpaRange);

impl Request for PoisonListRequest {
    fn decode(input: &mut Input<'_>) -> Option<Self> {
        Some(Self(DpaRange::decode(input)?))
    }
}

pub(super) struct PoisonListReply {
    /// There are more than these; the same request gets the next ones.
    more: bool,
    /// When a line did not fit the list.
    overflow: Option<u64>,
    scanning: bool,
    records: Vec<PoisonRecord>,
}

impl PoisonListReply {
    const HEADER_LEN: usize = 0x20;
    /// So many records fit a payload.
    const MAX: usize = (PAYLOAD_SIZE - Self::HEADER_LEN) / RECORD_LEN;
}

impl Reply for PoisonListReply {
    fn encode(&self, output: &mut Vec<u8>) {
        let flags = u8::from(self.more)
            | u8::from(self.overflow.is_some()) << 1
            | u8::from(self.scanning) << 2;
        output.extend([flags, 0]);
        output.extend(self.overflow.unwrap_or(0).to_le_bytes());
        output.extend((self.records.len() as u16).to_le_bytes());
        output.extend([0; 0x14]);
        for record in &self.records {
            encode_record(record, output);
        }
    }
}

impl Command for GetPoisonList {
    const OPCODE: u16 = 0x4300;
    const EFFECTS: CommandEffects = CommandEffects::NONE;
    const NEEDS_MEDIA: bool = true;
    type Request = PoisonListRequest;
    type Reply = PoisonListReply;

    fn run(
        memdev: &mut Memdev,
        PoisonListRequest(DpaRange { dpa, len }): PoisonListRequest,
        _: &mut Vec<Effect>,
    ) -> Result<PoisonListReply, ReturnCode> {
        memdev.check_lines(dpa, len)?;
        // After a reply with more to come, the same request goes on behind it.
        let from = memdev.poison_cursor(dpa, len).unwrap_or(dpa);
        let mut records = memdev.poison().records(from, dpa + len - from);
        let more = records.len() > PoisonListReply::MAX;
        records.truncate(PoisonListReply::MAX);
        let next = records.last().filter(|_| more);
        let next = next.map(|last| last.dpa + last.len);
        memdev.set_poison_cursor(dpa, len, next);
        Ok(PoisonListReply {
            more,
            overflow: memdev.poison().overflow(),
            scanning: matches!(memdev.background_work(), Some(Work::ScanMedia { .. })),
            records,
        })
    }
}

/// Inject Poison (section 8.2.9.9.4.2).
pub(super) struct InjectPoison;

pub(super) struct InjectRequest {
    dpa: u64,
}

impl Request for InjectRequest {
    fn decode(input: &mut Input<'_>) -> Option<Self> {
        Some(Self { dpa: input.u64()? })
    }
}

impl Command for InjectPoison {
    const OPCODE: u16 = 0x4301;
    const EFFECTS: CommandEffects = CommandEffects::IMMEDIATE_DATA;
    const NEEDS_MEDIA: bool = true;
    type Request = InjectRequest;
    type Reply = ();

    fn run(
        memdev: &mut Memdev,
        request: InjectRequest,
        effects: &mut Vec<Effect>,
    ) -> Result<(), ReturnCode> {
        memdev.inject_poison(request.dpa, effects)
    }
}

/// Clear Poison (section 8.2.9.9.4.3).
pub(super) struct ClearPoison;

pub(super) struct ClearPoisonRequest {
    dpa: u64,
    /// What the line holds then.
    data: [u8; LINE as usize],
}

impl Request for ClearPoisonRequest {
    fn decode(input: &mut Input<'_>) -> Option<Self> {
        Some(Self {
            dpa: input.u64()?,
            data: input.array()?,
        })
    }
}

impl Command for ClearPoison {
    const OPCODE: u16 = 0x4302;
    const EFFECTS: CommandEffects = CommandEffects::IMMEDIATE_DATA;
    const NEEDS_MEDIA: bool = true;
    type Request = ClearPoisonRequest;
    type Reply = ();

    fn run(
        memdev: &mut Memdev,
        request: ClearPoisonRequest,
        effects: &mut Vec<Effect>,
    ) -> Result<(), ReturnCode> {
        memdev.clear_poison(request.dpa, request.data, effects)
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{config, device, device_with_clock, run};
    use super::*;
    use crate::event::Severity;
    use crate::memdev::poison::{INJECT_LIMIT, PoisonSource};
    use std::sync::atomic::Ordering;

    fn range(dpa: u64, lines: u64) -> Vec<u8> {
        [dpa.to_le_bytes(), lines.to_le_bytes()].concat()
    }

    fn count(list: &[u8]) -> u16 {
        u16::from_le_bytes([list[0xa], list[0xb]])
    }

    #[test]
    fn injected_poison_is_listed_with_its_source_and_cleared_with_data() {
        let memdev = &mut device();
        run(memdev, 0x4301, &0x4000_1000_u64.to_le_bytes()).unwrap();
        let list = run(memdev, 0x4300, &range(0x4000_0000, 0x100)).unwrap();
        assert_eq!(list.len(), 0x30);
        assert_eq!([list[0].into(), count(&list)], [0, 1]);
        // Injected (3) at that address, one line.
        let record = [0x03, 0x10, 0, 0x40, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0];
        assert_eq!(list[0x20..], record);
        assert_eq!(count(&run(memdev, 0x4300, &range(0, 0x100)).unwrap()), 0);

        let mut effects = Vec::new();
        let request = [&0x4000_1000_u64.to_le_bytes()[..], &[7; 64]].concat();
        super::super::dispatch(memdev, 0x4302, &request, &mut effects).unwrap();
        let dpa = 0x4000_1000;
        assert_eq!(
            effects,
            [
                Effect::MediaWritten { dpa, data: [7; 64] },
                Effect::PoisonChanged { dpa, len: 64 },
                Effect::NonVolatileChanged,
            ]
        );
        let list = run(memdev, 0x4300, &range(0x4000_0000, 0x100)).unwrap();
        assert_eq!(count(&list), 0);
    }

    #[test]
    fn an_injection_is_logged_once_as_an_inject_of_the_host() {
        let memdev = &mut device();
        for _ in 0..2 {
            run(memdev, 0x4301, &0x1000_u64.to_le_bytes()).unwrap();
        }
        let log = memdev.events().log(Severity::Informational);
        let transactions: Vec<u8> = log.records().map(|record| record[58]).collect();
        assert_eq!(transactions, [4]);
    }

    #[test]
    fn no_more_lines_than_the_limit_are_injected() {
        let memdev = &mut device();
        let identity = run(memdev, 0x4000, &[]).unwrap();
        let limit = u16::from_le_bytes([identity[0x3f], identity[0x40]]);
        assert_eq!(usize::from(limit), INJECT_LIMIT);
        for line in 0..u64::from(limit) {
            run(memdev, 0x4301, &(line * 128).to_le_bytes()).unwrap();
        }
        let one_more = (1_u64 << 20).to_le_bytes();
        let refused = Err(ReturnCode::InjectPoisonLimitReached);
        assert_eq!(run(memdev, 0x4301, &one_more), refused);
        assert_eq!(run(memdev, 0x4301, &[0; 8]), Ok(vec![]), "it is there");
        run(memdev, 0x4302, &[0; 72]).unwrap();
        assert_eq!(run(memdev, 0x4301, &one_more), Ok(vec![]));
    }

    #[test]
    fn a_long_list_comes_in_payloads() {
        let memdev = &mut device();
        for line in 0..200 {
            let source = PoisonSource::Internal;
            memdev
                .add_poison(line * 128, 64, source, &mut Vec::new())
                .unwrap();
        }
        let all = range(0, 1 << 20);
        let mut lines = Vec::new();
        for (more, records) in [(1, 126), (0, 74), (1, 126)] {
            let list = run(memdev, 0x4300, &all).unwrap();
            assert!(list.len() <= PAYLOAD_SIZE);
            assert_eq!((list[0], count(&list)), (more, records));
            let records = list[0x20..].chunks_exact(16);
            lines.extend(records.map(|record| u16::from_le_bytes([record[0], record[1]]) / 128));
        }
        assert!(lines[..200].iter().copied().eq(0..200));
        assert_eq!(lines[200], 0, "behind the last one it begins anew");
        // Another range in between begins anew, too.
        assert_eq!(count(&run(memdev, 0x4300, &range(0, 4)).unwrap()), 2);
        let list = run(memdev, 0x4300, &all).unwrap();
        assert_eq!(list[0x20], 2);
    }

    #[test]
    fn an_overflow_of_the_list_has_a_time() {
        let (mut memdev, time) = device_with_clock(config());
        run(&mut memdev, 0x0301, &5_u64.to_le_bytes()).unwrap();
        time.fetch_add(2, Ordering::Relaxed);
        let source = PoisonSource::Internal;
        memdev
            .add_poison(0, 257 * 64, source, &mut Vec::new())
            .unwrap();
        let list = run(&mut memdev, 0x4300, &range(0, 1 << 20)).unwrap();
        assert_eq!(list[..0xc], [0b10, 0, 7, 0, 0, 0, 0, 0, 0, 0, 1, 0]);
        assert_eq!(list[0x28..0x2a], [0, 1], "one record of 256 lines");
    }

    #[test]
    fn ranges_outside_the_device_are_refused() {
        let memdev = &mut device();
        let end = memdev.capacity();
        for (dpa, lines, code) in [
            (0, 0, ReturnCode::InvalidInput),
            (1, 1, ReturnCode::InvalidInput),
            (end, 1, ReturnCode::InvalidPhysicalAddress),
            (0, end / 64 + 1, ReturnCode::InvalidPhysicalAddress),
            (64, u64::MAX, ReturnCode::InvalidPhysicalAddress),
        ] {
            assert_eq!(run(memdev, 0x4300, &range(dpa, lines)), Err(code));
        }
        let refused = Err(ReturnCode::InvalidPhysicalAddress);
        assert_eq!(run(memdev, 0x4301, &end.to_le_bytes()), refused);
        let clear = [&end.to_le_bytes()[..], &[0; 64]].concat();
        assert_eq!(run(memdev, 0x4302, &clear), refused);
    }
}
