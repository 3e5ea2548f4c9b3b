//! Where the bytes of a device's address space live.
//!
//! A device's media is a list of extents: ranges of device addresses, each in some store (a file or a
//! memfd, which this crate knows by number). A device alone has its bytes in DPA order. The members of
//! an interleave set have theirs together in one store, in HPA order, so that the set's window is one
//! linear mapping; each member's extent then says which way of how many it is. Changing from one to
//! the other copies bytes: see [`layout`].

pub mod layout;
#[cfg(test)]
mod tests;

use crate::interleave::{Interleave, XorMaps};
use crate::{CAPACITY_UNIT, Error};

/// Names a store of bytes; the caller chooses the numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StoreId(pub u32);

/// A place in a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Location {
    /// The store.
    pub store: StoreId,
    /// Offset in it, in bytes.
    pub offset: u64,
}

/// How an extent's bytes lie in its store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// One after the other.
    Linear,
    /// Chunk by chunk, between the chunks of the other ways of a set.
    Interleaved {
        /// Position in the set.
        way: u64,
        /// The set's ways and granularity.
        interleave: Interleave,
    },
}

/// A range of device addresses and where its bytes are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// First device address.
    pub dpa: u64,
    /// Bytes of this device.
    pub len: u64,
    /// Where the first byte of the extent is or, if interleaved, the first byte of the whole set.
    pub start: Location,
    /// How the bytes follow.
    pub layout: Layout,
}

/// Bytes of a device that lie together in a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// Where they begin.
    pub location: Location,
    /// How many there are, at least one.
    pub len: u64,
}

impl Extent {
    /// First device address after the extent.
    pub fn end(&self) -> u64 {
        self.dpa.saturating_add(self.len)
    }

    /// The device address up to which all of the extent's bytes lie before `offset` of the store, in whole rounds of the
    /// ways: within a round any of them may come first.
    pub fn before(&self, offset: u64) -> u64 {
        let passed = offset.saturating_sub(self.start.offset);
        let passed = match self.layout {
            Layout::Linear => passed,
            Layout::Interleaved { interleave, .. } => {
                let granularity = interleave.granularity.bytes();
                passed / (interleave.ways.count() * granularity) * granularity
            }
        };
        self.dpa.saturating_add(passed.min(self.len))
    }

    /// The place of `dpa` and how many bytes follow it there; `None` outside the extent.
    pub fn locate(&self, dpa: u64) -> Option<Span> {
        let offset = dpa
            .checked_sub(self.dpa)
            .filter(|offset| *offset < self.len)?;
        let rest = self.len - offset;
        let (in_store, len) = match self.layout {
            Layout::Linear => (offset, rest),
            Layout::Interleaved { way, interleave } => {
                let granularity = interleave.granularity.bytes();
                let chunk = granularity - offset % granularity;
                (interleave.hpa_offset(way, offset)?, rest.min(chunk))
            }
        };
        let location = Location {
            store: self.start.store,
            offset: self.start.offset.checked_add(in_store)?,
        };
        Some(Span { location, len })
    }

    /// The part of the extent in `dpa..end`, which has to lie in it and begin with a whole chunk.
    fn part(&self, dpa: u64, end: u64) -> Option<Self> {
        let skipped = dpa.checked_sub(self.dpa)?;
        let len = end.checked_sub(dpa)?;
        if len == 0 || end > self.end() {
            return None;
        }
        let offset = match self.layout {
            Layout::Linear => skipped,
            Layout::Interleaved { interleave, .. } => {
                if !skipped.is_multiple_of(interleave.granularity.bytes()) {
                    return None;
                }
                let offset = interleave.hpa_offset(0, skipped)?;
                // Maps of XOR arithmetic count from a multiple of 256 MiB.
                if interleave.xor != XorMaps::NONE && !offset.is_multiple_of(CAPACITY_UNIT) {
                    return None;
                }
                offset
            }
        };
        let start = Location {
            store: self.start.store,
            offset: self.start.offset.checked_add(offset)?,
        };
        Some(Self {
            dpa,
            len,
            start,
            layout: self.layout,
        })
    }

    /// True if the extent is not empty, does not wrap and is made of whole chunks.
    fn is_sound(&self) -> bool {
        let chunks = match self.layout {
            Layout::Linear => true,
            Layout::Interleaved { way, interleave } => {
                way < interleave.ways.count()
                    && self.len.is_multiple_of(interleave.granularity.bytes())
            }
        };
        let last = self
            .len
            .checked_sub(1)
            .and_then(|last| self.dpa.checked_add(last));
        chunks && last.is_some_and(|last| self.locate(last).is_some())
    }

    /// The extent of this one and `next` together, if `next` goes on where this one ends.
    fn joined(&self, next: &Self) -> Option<Self> {
        let both = Self {
            len: self.len.checked_add(next.len)?,
            ..*self
        };
        (both.part(next.dpa, next.end()) == Some(*next)).then_some(both)
    }
}

/// The extents of one device: they cover all its addresses from 0 on, each once, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MediaMap {
    extents: Vec<Extent>,
}

impl MediaMap {
    /// The map of a device of `capacity` bytes made of `extents`, in any order.
    ///
    /// Fails if two overlap, if an address is in none, or if one is not sound in itself.
    pub fn new(capacity: u64, mut extents: Vec<Extent>) -> Result<Self, Error> {
        extents.sort_by_key(|extent| extent.dpa);
        let mut next = 0;
        for extent in &extents {
            if !extent.is_sound() {
                return Err(Error::BadExtent(extent.dpa));
            }
            if extent.dpa < next {
                return Err(Error::ExtentsOverlap(extent.dpa));
            }
            if extent.dpa > next {
                return Err(Error::NoExtent(next));
            }
            next = extent.end();
        }
        match next {
            next if next < capacity => Err(Error::NoExtent(next)),
            next if next > capacity => Err(Error::BadExtent(capacity)),
            _ => Ok(Self { extents }),
        }
    }

    /// Bytes of device address space.
    pub fn capacity(&self) -> u64 {
        self.extents.last().map_or(0, Extent::end)
    }

    /// The extents by increasing device address.
    pub fn extents(&self) -> &[Extent] {
        &self.extents
    }

    /// The place of `dpa` and how many bytes follow it there; `None` past the capacity.
    pub fn locate(&self, dpa: u64) -> Option<Span> {
        let index = self.extents.partition_point(|extent| extent.end() <= dpa);
        self.extents.get(index)?.locate(dpa)
    }

    /// Walks `len` bytes from `dpa` on, span by span; ends early at the end of the device.
    pub fn spans(&self, dpa: u64, len: u64) -> impl Iterator<Item = Span> + '_ {
        let end = dpa.saturating_add(len);
        let mut next = dpa;
        std::iter::from_fn(move || {
            let rest = end.checked_sub(next).filter(|rest| *rest > 0)?;
            let mut span = self.locate(next)?;
            span.len = span.len.min(rest);
            next = next.checked_add(span.len)?;
            Some(span)
        })
    }

    /// The extents, cut to size, that hold `dpa..dpa + len`.
    ///
    /// Fails if an address is in none, or if a cut would go through an interleave chunk.
    pub fn cut(&self, dpa: u64, len: u64) -> Result<Vec<Extent>, Error> {
        let end = dpa.checked_add(len).ok_or(Error::BadExtent(dpa))?;
        if end > self.capacity() {
            return Err(Error::NoExtent(self.capacity().max(dpa)));
        }
        self.extents
            .iter()
            .filter(|extent| extent.dpa < end && extent.end() > dpa)
            .map(|extent| {
                let part = extent.part(extent.dpa.max(dpa), extent.end().min(end));
                part.filter(Extent::is_sound).ok_or(Error::BadExtent(dpa))
            })
            .collect()
    }

    /// Puts `new` in the place of whatever held its addresses, splitting what reaches beyond.
    ///
    /// Neighbours that go on in the same place become one extent. After an error the map is as before.
    pub fn replace(&mut self, new: Extent) -> Result<(), Error> {
        if !new.is_sound() {
            return Err(Error::BadExtent(new.dpa));
        }
        let after = self
            .capacity()
            .checked_sub(new.end())
            .ok_or(Error::NoExtent(self.capacity()))?;
        let mut parts = self.cut(0, new.dpa)?;
        parts.push(new);
        parts.extend(self.cut(new.end(), after)?);

        let mut extents: Vec<Extent> = Vec::with_capacity(parts.len());
        for part in parts {
            match extents
                .last_mut()
                .and_then(|last| Some((last.joined(&part)?, last)))
            {
                Some((both, last)) => *last = both,
                None => extents.push(part),
            }
        }
        self.extents = extents;
        Ok(())
    }
}
