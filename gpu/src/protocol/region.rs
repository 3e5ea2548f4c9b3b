//! Regions: the guest memory that a session's commands may name.

use vm_memory::{Address, Bytes, GuestAddress, GuestMemoryBackend, GuestMemoryMmap, VolatileSlice};

use super::spec::{REGION_SEGMENTS, Segment};
use crate::Error;

const SEGMENT_SIZE: usize = size_of::<Segment>();
/// Segments that are read from the guest at a time.
const BATCH: usize = 256;

/// A list of guest memory. It is checked when it is made and again whenever it is used: a CXL window may go meanwhile.
#[derive(Debug, PartialEq, Eq)]
pub struct Region {
    /// Each segment with the offset of its end in the region.
    segments: Vec<(Segment, u64)>,
    writable: bool,
}

impl Region {
    /// Reads `count` segments from guest memory.
    ///
    /// # Errors
    /// [`Error::InvalidValue`] for a list or a segment that is not in guest memory, an empty segment, or too many.
    pub fn read(
        memory: &GuestMemoryMmap,
        list: u64,
        count: u64,
        writable: bool,
    ) -> Result<Self, Error> {
        if !(1..=REGION_SEGMENTS).contains(&count) {
            return Err(Error::InvalidValue("a region of no or too many segments"));
        }
        let mut segments = Vec::new();
        let mut end = 0u64;
        let mut buffer = [0; BATCH * SEGMENT_SIZE];
        let mut left = count as usize;
        let mut at = GuestAddress(list);
        while left > 0 {
            let batch = left.min(BATCH);
            let Some(bytes) = buffer.get_mut(..batch * SEGMENT_SIZE) else {
                break;
            };
            memory
                .read_slice(bytes, at)
                .map_err(|_| Error::InvalidValue("a list of segments outside guest memory"))?;
            for entry in bytes.chunks_exact(SEGMENT_SIZE) {
                let segment = Segment {
                    address: number(entry, 0),
                    bytes: number(entry, 8),
                };
                let there = usize::try_from(segment.bytes).is_ok_and(|bytes| {
                    bytes > 0 && memory.check_range(GuestAddress(segment.address), bytes)
                });
                end = end
                    .checked_add(segment.bytes)
                    .filter(|_| there)
                    .ok_or(Error::InvalidValue("a segment outside guest memory"))?;
                segments.push((segment, end));
            }
            at = at
                .checked_add(bytes.len() as u64)
                .ok_or(Error::InvalidValue(
                    "a list of segments outside guest memory",
                ))?;
            left -= batch;
        }
        Ok(Self { segments, writable })
    }

    /// Number of segments.
    pub fn segments(&self) -> u64 {
        self.segments.len() as u64
    }

    /// Bytes.
    pub fn size(&self) -> u64 {
        self.segments.last().map_or(0, |&(_, end)| end)
    }

    /// Calls `visit` with the pieces of host memory that make up a span, in order.
    ///
    /// # Errors
    /// [`Error::InvalidValue`] if the span leaves the region, or is to be written and the region is not; those of `visit`.
    pub fn visit(
        &self,
        memory: &GuestMemoryMmap,
        span: Span,
        write: bool,
        mut visit: impl FnMut(VolatileSlice<'_>) -> Result<(), Error>,
    ) -> Result<(), Error> {
        if write && !self.writable {
            return Err(Error::InvalidValue("the region is not writable"));
        }
        let end = span
            .offset
            .checked_add(span.bytes)
            .filter(|&end| end <= self.size())
            .ok_or(Error::InvalidValue("a span beyond its region"))?;
        let first = self
            .segments
            .partition_point(|&(_, end)| end <= span.offset);
        let mut offset = span.offset;
        for (segment, segment_end) in self.segments.iter().skip(first) {
            if offset >= end {
                break;
            }
            let skip = offset - (segment_end - segment.bytes);
            let bytes = (*segment_end).min(end) - offset;
            let address = GuestAddress(segment.address)
                .checked_add(skip)
                .ok_or(Error::InvalidValue("a segment outside guest memory"))?;
            let gone = || Error::InvalidValue("a segment is no longer in guest memory");
            let count = usize::try_from(bytes).map_err(|_| gone())?;
            for slice in memory.get_slices(address, count) {
                visit(slice.map_err(|_| gone())?)?;
            }
            offset += bytes;
        }
        Ok(())
    }

    /// Copies a span into a buffer of its length.
    ///
    /// # Errors
    /// Those of [`Self::visit`].
    pub fn copy_out(&self, memory: &GuestMemoryMmap, span: Span) -> Result<Vec<u8>, Error> {
        let mut bytes = Vec::new();
        self.visit(memory, span, false, |slice| {
            let start = bytes.len();
            bytes.resize(start + slice.len(), 0);
            slice.copy_to(bytes.get_mut(start..).unwrap_or_default());
            Ok(())
        })?;
        Ok(bytes)
    }

    /// Copies as much of `bytes` to the span as it has room for, and returns how much that is.
    ///
    /// # Errors
    /// Those of [`Self::visit`].
    pub fn copy_in(
        &self,
        memory: &GuestMemoryMmap,
        span: Span,
        bytes: &[u8],
    ) -> Result<u64, Error> {
        let mut rest = bytes;
        self.visit(memory, span, true, |slice| {
            let (now, later) = rest.split_at(rest.len().min(slice.len()));
            slice.copy_from(now);
            rest = later;
            Ok(())
        })?;
        Ok((bytes.len() - rest.len()) as u64)
    }
}

/// A part of a region.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    pub offset: u64,
    pub bytes: u64,
}

/// The little-endian quadword at `offset` of an entry.
fn number(entry: &[u8], offset: usize) -> u64 {
    let bytes = entry.iter().skip(offset).take(8);
    bytes
        .rev()
        .fold(0, |value, &byte| value << 8 | u64::from(byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn memory() -> GuestMemoryMmap {
        let ranges = [(GuestAddress(0), 0x4000), (GuestAddress(0x1_0000), 0x1000)];
        GuestMemoryMmap::from_ranges(&ranges).unwrap()
    }

    fn region(
        memory: &GuestMemoryMmap,
        segments: &[(u64, u64)],
        writable: bool,
    ) -> Result<Region, Error> {
        for (index, (address, bytes)) in (0..).zip(segments) {
            memory
                .write_obj([*address, *bytes], GuestAddress(16 * index))
                .unwrap();
        }
        Region::read(memory, 0, segments.len() as u64, writable)
    }

    fn span(offset: u64, bytes: u64) -> Span {
        Span { offset, bytes }
    }

    #[test]
    fn a_span_may_begin_and_end_anywhere() {
        let memory = memory();
        let region = region(
            &memory,
            &[(0x1_0ff0, 16), (0x1000, 3), (0x2000, 0x1000)],
            true,
        )
        .unwrap();
        assert_eq!((region.size(), region.segments()), (0x1013, 3));
        let bytes: Vec<u8> = (0..=255).cycle().take(0x1013).collect();
        assert_eq!(region.copy_in(&memory, span(0, 0x1013), &bytes), Ok(0x1013));
        for (offset, len) in [(0, 0x1013), (15, 2), (16, 3), (18, 2), (0x1012, 1), (5, 0)] {
            let part = bytes[offset..offset + len].to_vec();
            let span = span(offset as u64, len as u64);
            assert_eq!(region.copy_out(&memory, span), Ok(part), "{offset} {len}");
        }
        assert_eq!(memory.read_obj::<u8>(GuestAddress(0x1002)).unwrap(), 18);
    }

    #[test]
    fn no_more_is_copied_in_than_the_span_holds() {
        let memory = memory();
        let region = region(&memory, &[(0x1000, 8)], true).unwrap();
        assert_eq!(region.copy_in(&memory, span(2, 3), &[9; 5]), Ok(3));
        assert_eq!(region.copy_in(&memory, span(0, 1), &[]), Ok(0));
        assert_eq!(
            region.copy_out(&memory, span(0, 8)),
            Ok(vec![0, 0, 9, 9, 9, 0, 0, 0])
        );
    }

    #[test]
    fn spans_beyond_the_region_are_refused() {
        let memory = memory();
        let region = region(&memory, &[(0x1000, 8)], false).unwrap();
        for (offset, bytes) in [(0, 9), (8, 1), (9, 0), (u64::MAX, 1), (1, u64::MAX)] {
            assert!(region.copy_out(&memory, span(offset, bytes)).is_err());
        }
        assert!(
            region.copy_in(&memory, span(0, 1), &[1]).is_err(),
            "not writable"
        );
    }

    #[test]
    fn segments_lie_in_guest_memory() {
        let memory = memory();
        for segments in [
            &[(0x4000, 1)][..],
            &[(0x3fff, 2)],
            &[(0x1000, 0)],
            &[(0x1000, u64::MAX)],
            &[(u64::MAX, 2)],
            &[(0x1000, 8), (0x1_0fff, 2)],
        ] {
            assert!(region(&memory, segments, true).is_err(), "{segments:x?}");
        }
    }

    #[test]
    fn lists_lie_in_guest_memory() {
        let memory = memory();
        for (list, count) in [
            (0, 0),
            (0x3ff8, 1),
            (0x8000, 1),
            (u64::MAX, 1),
            (0, REGION_SEGMENTS + 1),
        ] {
            assert!(Region::read(&memory, list, count, true).is_err());
        }
    }

    #[test]
    fn memory_that_has_gone_is_not_touched() {
        let memory = memory();
        let region = region(&memory, &[(0x1000, 8), (0x1_0000, 8)], true).unwrap();
        let (smaller, _) = memory
            .remove_region(GuestAddress(0x1_0000), 0x1000)
            .unwrap();
        assert!(region.copy_out(&smaller, span(0, 8)).is_ok());
        assert!(region.copy_out(&smaller, span(0, 9)).is_err());
    }
}
