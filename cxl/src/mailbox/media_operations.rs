//! Media Operations (section 8.2.9.9.5.3), opcode 0x4402: sanitizes or zeroes ranges of the media.

use super::poison::DpaRange;
use super::{
    BackgroundCommand, CommandEffects, Input, PAYLOAD_SIZE, Reply, Request, ReturnCode, Start,
};
use crate::Effect;
use crate::memdev::Memdev;
use crate::memdev::background::{Operation, Work};
use crate::memdev::poison::LINE;

pub(super) struct MediaOperations;

/// Class and subclass of an operation.
type Code = (u8, u8);

/// Tells which operations there are.
const DISCOVERY: Code = (0, 0);
/// Every operation there is; the sanitized and the zeroed bytes of this media are the same.
const OPERATIONS: [Code; 3] = [DISCOVERY, SANITIZE, ZERO];
const SANITIZE: Code = (1, 0);
const ZERO: Code = (1, 1);

pub(super) struct MediaOperationsRequest {
    code: Code,
    ranges: Vec<DpaRange>,
    /// First operation and number of operations that discovery asks for.
    discovery: Option<(u16, u16)>,
}

impl Request for MediaOperationsRequest {
    fn decode(input: &mut Input<'_>) -> Option<Self> {
        let [class, subclass, _, _] = input.array()?;
        let range = |input: &mut Input<'_>| {
            Some(DpaRange {
                dpa: input.u64()?,
                len: input.u64()?,
            })
        };
        // A count beyond the payload ends with its first missing range.
        let ranges = (0..input.u32()?)
            .map(|_| range(input))
            .collect::<Option<_>>()?;
        let code = (class, subclass);
        let discovery = match code {
            DISCOVERY => Some((input.u16()?, input.u16()?)),
            _ => None,
        };
        Some(Self {
            code,
            ranges,
            discovery,
        })
    }
}

pub(super) struct Discovery(Vec<Code>);

impl Discovery {
    const HEADER_LEN: usize = 12;
    /// So many operations would fit a payload.
    const MAX: usize = (PAYLOAD_SIZE - Self::HEADER_LEN) / 2;
}

impl Reply for Discovery {
    fn encode(&self, output: &mut Vec<u8>) {
        output.extend(LINE.to_le_bytes());
        output.extend((OPERATIONS.len() as u16).to_le_bytes());
        output.extend((self.0.len() as u16).to_le_bytes());
        output.extend(
            self.0
                .iter()
                .flat_map(|(class, subclass)| [*class, *subclass]),
        );
    }
}

impl BackgroundCommand for MediaOperations {
    const OPCODE: u16 = 0x4402;
    const EFFECTS: CommandEffects = CommandEffects::IMMEDIATE_DATA
        .and(CommandEffects::SECURITY_STATE)
        .and(CommandEffects::ABORTABLE);
    const NEEDS_MEDIA: bool = true;
    type Request = MediaOperationsRequest;
    type Reply = Discovery;

    fn start(
        memdev: &mut Memdev,
        request: MediaOperationsRequest,
        _: &mut Vec<Effect>,
    ) -> Result<Start<Discovery>, ReturnCode> {
        match (request.code, request.discovery) {
            (DISCOVERY, Some((first, count))) if request.ranges.is_empty() => {
                if usize::from(first) >= OPERATIONS.len() {
                    return Err(ReturnCode::InvalidInput);
                }
                let operations = OPERATIONS.into_iter().skip(first.into());
                let count = usize::from(count).min(Discovery::MAX);
                Ok(Start::Done(Discovery(operations.take(count).collect())))
            }
            (SANITIZE | ZERO, _) if !request.ranges.is_empty() => {
                let mut bytes: u64 = 0;
                for range in &request.ranges {
                    memdev.check_lines(range.dpa, range.len)?;
                    memdev.check_unlocked(range.dpa, range.len)?;
                    bytes = bytes.saturating_add(range.len);
                }
                let ranges = request.ranges.iter().map(|range| (range.dpa, range.len));
                Ok(Start::Background(Operation {
                    duration: Memdev::sanitize_time(bytes),
                    work: Work::ZeroMedia {
                        ranges: ranges.collect(),
                    },
                }))
            }
            (DISCOVERY | SANITIZE | ZERO, _) => Err(ReturnCode::InvalidInput),
            _ => Err(ReturnCode::Unsupported),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::bench;
    use super::*;

    fn request(class: u8, subclass: u8, ranges: &[(u64, u64)]) -> Vec<u8> {
        let mut request = vec![class, subclass, 0, 0];
        request.extend((ranges.len() as u32).to_le_bytes());
        for (dpa, len) in ranges {
            request.extend(dpa.to_le_bytes());
            request.extend(len.to_le_bytes());
        }
        request
    }

    #[test]
    fn discovery_lists_the_operations() {
        let mut bench = bench();
        let ask = |first: u8, count: u8| [request(0, 0, &[]), vec![first, 0, count, 0]].concat();
        // Granularity 64, three operations, three of them here.
        let all = [64, 0, 0, 0, 0, 0, 0, 0, 3, 0, 3, 0, 0, 0, 1, 0, 1, 1];
        assert_eq!(bench.run(0x4402, &ask(0, 9)).unwrap(), all);
        let last = [64, 0, 0, 0, 0, 0, 0, 0, 3, 0, 1, 0, 1, 1];
        assert_eq!(bench.run(0x4402, &ask(2, 1)).unwrap(), last);
        assert_eq!(bench.run(0x4402, &ask(3, 1)), Err(ReturnCode::InvalidInput));
    }

    #[test]
    fn ranges_are_zeroed_and_no_longer_poisoned() {
        let mut bench = bench();
        bench.run(0x4301, &0x1000_u64.to_le_bytes()).unwrap();
        for subclass in [0, 1] {
            bench.effects.clear();
            let ranges = [(0x1000, 64), (0x4000_0000, 4096)];
            let time = Memdev::sanitize_time(64 + 4096);
            bench.start(0x4402, &request(1, subclass, &ranges), time);
            let zeroed = ranges.map(|(dpa, len)| Effect::MediaZeroed { dpa, len });
            assert_eq!(bench.effects.first(), zeroed.first());
            assert_eq!(bench.effects.last(), zeroed.last());
            assert!(!bench.memdev.poison().is_poisoned(0x1000, 64));
            assert!(!bench.memdev.is_media_disabled());
            bench.finish(time, ReturnCode::Success);
        }
    }

    #[test]
    fn bad_operations_are_refused() {
        let mut bench = bench();
        let end = bench.memdev.capacity();
        for (request, code) in [
            (request(1, 0, &[]), ReturnCode::InvalidInput),
            (request(1, 1, &[(1, 64)]), ReturnCode::InvalidInput),
            (request(1, 1, &[(0, 0)]), ReturnCode::InvalidInput),
            (
                request(1, 1, &[(end, 64)]),
                ReturnCode::InvalidPhysicalAddress,
            ),
            (request(1, 2, &[(0, 64)]), ReturnCode::Unsupported),
            (request(2, 0, &[(0, 64)]), ReturnCode::Unsupported),
            (request(0, 0, &[]), ReturnCode::InvalidPayloadLength),
            (
                vec![1, 0, 0, 0, 0xff, 0xff, 0xff, 0xff],
                ReturnCode::InvalidPayloadLength,
            ),
        ] {
            assert_eq!(bench.run(0x4402, &request), Err(code), "{request:?}");
        }
        assert_eq!(bench.effects, []);
    }
}
