//! The records that the kernel writes into a sampling event's ring, as `perf_event_open(2)` lays them out.

/// Record types.
const LOST: u32 = 2;
const SAMPLE: u32 = 9;
/// Bytes of a record's header: type, misc, size.
const HEADER: usize = 8;
/// `PERF_MEM_LVL_NUM` of a data source: bits 36:33, and the number that means memory.
const LEVEL_NUMBER: u64 = 0xf << 33;
const MEMORY_NUMBER: u64 = 0xd << 33;
/// `PERF_MEM_LVL` of a data source, bits 18:5: local memory, and memory one and two hops away.
const MEMORY_LEVELS: u64 = (0x80 | 0x100 | 0x200) << 5;
/// `PERF_MEM_LVL` says nothing.
const LEVEL_UNKNOWN: u64 = 1 << 5;

/// What a record tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Record {
    /// An access.
    Sample(Sample),
    /// So many samples found no room in the ring.
    Lost(u64),
}

/// A sampled access, of an event that asks for TID, ADDR, PERIOD and DATA_SRC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sample {
    /// The process.
    pub process: u32,
    /// Address that was accessed; 0 where the hardware does not know.
    pub address: u64,
    /// Events that this one stands for.
    pub period: u64,
    /// `union perf_mem_data_src`.
    pub data_source: u64,
}

impl Sample {
    /// Whether memory answered. `trusted`: the event counts nothing else, so that silence means yes.
    pub fn is_from_memory(&self, trusted: bool) -> bool {
        let (number, levels) = (
            self.data_source & LEVEL_NUMBER,
            self.data_source & (0x3fff << 5),
        );
        if number == 0 && (levels == 0 || levels == LEVEL_UNKNOWN) {
            return trusted;
        }
        number == MEMORY_NUMBER || levels & MEMORY_LEVELS != 0
    }
}

/// Reads the records between `tail` and `head`, which count bytes since the beginning, in a ring of a power of two of
/// bytes. Ends early at a record that makes no sense.
pub fn records(ring: &[u8], tail: u64, head: u64) -> Vec<Record> {
    let mut found = Vec::new();
    let mut at = tail;
    while let Some(left) = head.checked_sub(at).filter(|left| *left >= HEADER as u64) {
        let mut header = [0; HEADER];
        copy(ring, at, &mut header);
        let kind = u32::from_ne_bytes([header[0], header[1], header[2], header[3]]);
        let size = usize::from(u16::from_ne_bytes([header[6], header[7]]));
        if size < HEADER || size as u64 > left {
            break;
        }
        let mut body = vec![0; size - HEADER];
        copy(ring, at + HEADER as u64, &mut body);
        found.extend(decode(kind, &body));
        at += size as u64;
    }
    found
}

/// Copies bytes out of the ring, over its end if need be.
fn copy(ring: &[u8], from: u64, to: &mut [u8]) {
    for (offset, byte) in (from..).zip(to) {
        let place = offset.checked_rem(ring.len() as u64).unwrap_or(0);
        *byte = ring.get(place as usize).copied().unwrap_or(0);
    }
}

fn decode(kind: u32, body: &[u8]) -> Option<Record> {
    let (words, _) = body.as_chunks::<8>();
    let words: Vec<u64> = words.iter().map(|word| u64::from_ne_bytes(*word)).collect();
    match (kind, &words[..]) {
        // process and thread, address, period, data source
        (SAMPLE, &[ids, address, period, data_source, ..]) => {
            let [a, b, c, d, ..] = ids.to_ne_bytes();
            Some(Record::Sample(Sample {
                process: u32::from_ne_bytes([a, b, c, d]),
                address,
                period,
                data_source,
            }))
        }
        // id, number
        (LOST, &[_, lost, ..]) => Some(Record::Lost(lost)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A ring with what is written to it, from byte `start` of its life on.
    struct Ring {
        bytes: Vec<u8>,
        tail: u64,
        head: u64,
    }

    impl Ring {
        fn new(start: u64) -> Self {
            Self {
                bytes: vec![0xa5; 256],
                tail: start,
                head: start,
            }
        }

        fn write(mut self, kind: u32, words: &[u64]) -> Self {
            let size = (HEADER + 8 * words.len()) as u16;
            let mut record = kind.to_ne_bytes().to_vec();
            record.extend([0, 0]);
            record.extend(size.to_ne_bytes());
            record.extend(words.iter().flat_map(|word| word.to_ne_bytes()));
            for byte in record {
                let place = self.head as usize % self.bytes.len();
                self.bytes[place] = byte;
                self.head += 1;
            }
            self
        }

        fn records(&self) -> Vec<Record> {
            records(&self.bytes, self.tail, self.head)
        }
    }

    fn ids(process: u32, thread: u32) -> u64 {
        let mut bytes = [0; 8];
        bytes[..4].copy_from_slice(&process.to_ne_bytes());
        bytes[4..].copy_from_slice(&thread.to_ne_bytes());
        u64::from_ne_bytes(bytes)
    }

    fn sample(address: u64, data_source: u64) -> Sample {
        Sample {
            process: 7,
            address,
            period: 1000,
            data_source,
        }
    }

    #[test]
    fn samples_are_read_in_order_also_over_the_end_of_the_ring() {
        for start in [0, 200, 251, 256 * 9 + 240] {
            let ring = Ring::new(start)
                .write(SAMPLE, &[ids(7, 9), 0x1000, 1000, 0])
                .write(SAMPLE, &[ids(7, 8), 0x2000, 1000, MEMORY_NUMBER]);
            let expected = [sample(0x1000, 0), sample(0x2000, MEMORY_NUMBER)];
            assert_eq!(ring.records(), expected.map(Record::Sample), "{start}");
        }
    }

    #[test]
    fn lost_samples_are_told_and_other_records_are_passed_over() {
        const THROTTLE: u32 = 5;
        let ring = Ring::new(0)
            .write(THROTTLE, &[1, 2, 3])
            .write(LOST, &[1, 42])
            .write(SAMPLE, &[ids(7, 7), 0x1000, 1000, 0]);
        let expected = [Record::Lost(42), Record::Sample(sample(0x1000, 0))];
        assert_eq!(ring.records(), expected);
    }

    #[test]
    fn a_record_that_is_not_all_there_ends_the_reading() {
        let mut ring = Ring::new(0)
            .write(LOST, &[1, 1])
            .write(SAMPLE, &[ids(7, 7), 0x1000, 1000, 0]);
        ring.head -= 1;
        assert_eq!(ring.records(), [Record::Lost(1)]);
        // A size of zero would never end.
        assert_eq!(records(&[0; 64], 0, 64), []);
        assert_eq!(records(&[], 0, 64), []);
        // The head never lies behind the tail, but it is shared memory.
        assert_eq!(records(&[0; 64], 32, 8), []);
    }

    #[test]
    fn a_sample_too_short_for_its_fields_is_none() {
        assert_eq!(Ring::new(0).write(SAMPLE, &[ids(7, 7), 1]).records(), []);
    }

    #[test]
    fn the_data_source_says_whether_memory_answered() {
        let third_level_hit = (0x2 | 0x20) << 5;
        assert!(!sample(1, third_level_hit).is_from_memory(true));
        assert!(!sample(1, 0x3 << 33).is_from_memory(true));
        assert!(sample(1, 0x80 << 5).is_from_memory(false));
        assert!(sample(1, MEMORY_NUMBER).is_from_memory(false));
        assert!(sample(1, 0).is_from_memory(true));
        assert!(!sample(1, LEVEL_UNKNOWN).is_from_memory(false));
    }
}
