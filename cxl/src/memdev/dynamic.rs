//! Dynamic capacity (section 9.13.3): regions of device addresses in which extents of memory come and go.
//!
//! Who owns the memory offers extents, the host accepts what it wants of an offer, and uses it until it releases it. Offers
//! are answered in the order in which they were made. What is released is empty when it is accepted again.

use std::collections::VecDeque;
use std::ops::Range;

use super::Memdev;
use crate::Effect;
use crate::event::{
    DynamicCapacity as Record, DynamicCapacityEvent, Event, EventFlags, EventKind, Severity,
};
use crate::mailbox::ReturnCode;

/// Most regions of a device.
pub const MOST_REGIONS: usize = 8;
/// Extents that a device keeps: those of the host, and those that it is offered.
pub const MOST_EXTENTS: usize = 64;

/// A region: section 8.2.9.9.9.1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DynamicRegion {
    /// First device address, a multiple of 256 MiB.
    pub base: u64,
    /// Bytes of address space that decoders have to cover, a multiple of 256 MiB.
    pub decode_len: u64,
    /// Bytes that extents can lie in, from `base` on; at most `decode_len`, whole blocks.
    pub len: u64,
    /// Extents begin and end at multiples of this power of two, at least 64.
    pub block_size: u64,
    /// The handle of its DSMAS in the CDAT.
    pub dsmas: u8,
}

impl DynamicRegion {
    /// True if all of `extent` lies in it, in whole blocks.
    fn holds(&self, extent: &Extent) -> bool {
        let block = self.block_size;
        let inside = extent
            .dpa
            .checked_sub(self.base)
            .and_then(|offset| offset.checked_add(extent.len));
        inside.is_some_and(|end| end <= self.len)
            && extent.len > 0
            && (extent.dpa - self.base).is_multiple_of(block)
            && extent.len.is_multiple_of(block)
    }
}

/// A range of memory with an owner's tag.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Extent {
    /// First device address.
    pub dpa: u64,
    /// Bytes.
    pub len: u64,
    /// What the owner calls it.
    pub tag: [u8; 16],
    /// Its place among the extents of a tag that several hosts share, from 1 on; 0 if it is not shared.
    pub shared_sequence: u16,
}

impl Extent {
    fn end(&self) -> u64 {
        self.dpa.saturating_add(self.len)
    }

    fn overlaps(&self, other: &Self) -> bool {
        self.dpa < other.end() && other.dpa < self.end()
    }

    fn contains(&self, other: &Self) -> bool {
        self.dpa <= other.dpa && other.end() <= self.end()
    }

    /// This extent's tag on another range.
    fn part(&self, dpa: u64, end: u64) -> Option<Self> {
        let len = end.checked_sub(dpa).filter(|len| *len > 0)?;
        Some(Self { dpa, len, ..*self })
    }
}

/// True if two of them share an address.
fn overlap(extents: &[Extent]) -> bool {
    extents.iter().enumerate().any(|(index, one)| {
        extents
            .iter()
            .skip(index + 1)
            .any(|other| one.overlaps(other))
    })
}

/// The extents of a device.
#[derive(Debug, Default)]
pub(super) struct Extents {
    /// Those of the host.
    accepted: Vec<Extent>,
    /// Counts the changes of them.
    generation: u32,
    /// What the host has not answered yet.
    offers: VecDeque<Vec<Extent>>,
    /// The parts of an answer, or of a release, that has more to come.
    begun: Vec<Extent>,
}

impl Memdev {
    /// The regions with dynamic capacity.
    pub fn dynamic_regions(&self) -> &[DynamicRegion] {
        &self.config.dynamic
    }

    /// Bytes of device address space: the capacity, and the regions with dynamic capacity behind it.
    pub fn address_space(&self) -> u64 {
        let last = self.config.dynamic.last();
        last.map_or(self.capacity(), |last| last.base + last.decode_len)
    }

    /// The device addresses behind which the host has memory.
    pub fn memory(&self) -> Vec<Range<u64>> {
        let extents = self.extents.accepted.iter();
        std::iter::once(0..self.capacity())
            .chain(extents.map(|extent| extent.dpa..extent.end()))
            .collect()
    }

    /// The extents that the host has.
    pub fn extents(&self) -> &[Extent] {
        &self.extents.accepted
    }

    /// What the host was offered and has not answered, oldest first.
    pub fn offered_extents(&self) -> impl Iterator<Item = &Extent> {
        self.extents.offers.iter().flatten()
    }

    /// How often the list of them has changed.
    pub(crate) fn extents_generation(&self) -> u32 {
        self.extents.generation
    }

    /// So many more extents can be kept.
    pub(crate) fn extents_left(&self) -> usize {
        let offered: usize = self.extents.offers.iter().map(Vec::len).sum();
        MOST_EXTENTS.saturating_sub(self.extents.accepted.len() + offered)
    }

    fn region_of(&self, extent: &Extent) -> Option<(u8, &DynamicRegion)> {
        (0..)
            .zip(&self.config.dynamic)
            .find(|(_, region)| region.holds(extent))
    }

    /// Offers extents to the host, all of which it answers at once.
    ///
    /// # Errors
    /// [`ReturnCode::InvalidPhysicalAddress`] outside the regions or not in whole blocks,
    /// [`ReturnCode::InvalidExtentList`] where one overlaps another or what the host has,
    /// [`ReturnCode::ResourcesExhausted`] if there are too many. Nothing is offered then.
    pub fn offer_extents(
        &mut self,
        extents: &[Extent],
        effects: &mut Vec<Effect>,
    ) -> Result<(), ReturnCode> {
        if extents.len() > self.extents_left() {
            return Err(ReturnCode::ResourcesExhausted);
        }
        let kept = self.extents.offers.iter().flatten();
        let kept = kept.chain(&self.extents.accepted);
        let all: Vec<Extent> = kept.chain(extents).copied().collect();
        if extents.is_empty() || overlap(&all) {
            return Err(ReturnCode::InvalidExtentList);
        }
        if extents
            .iter()
            .any(|extent| self.region_of(extent).is_none())
        {
            return Err(ReturnCode::InvalidPhysicalAddress);
        }
        self.extents.offers.push_back(extents.to_vec());
        for (left, extent) in (0..extents.len()).rev().zip(extents) {
            self.log_extent(DynamicCapacityEvent::Add, extent, left > 0, effects);
        }
        Ok(())
    }

    /// Asks the host to release an extent; with `force` takes it away.
    ///
    /// # Errors
    /// [`ReturnCode::InvalidPhysicalAddress`] if the host does not have all of it.
    pub fn reclaim_extent(
        &mut self,
        extent: &Extent,
        force: bool,
        effects: &mut Vec<Effect>,
    ) -> Result<(), ReturnCode> {
        let owned = self
            .extents
            .accepted
            .iter()
            .any(|have| have.contains(extent));
        if !owned || self.region_of(extent).is_none() {
            return Err(ReturnCode::InvalidPhysicalAddress);
        }
        let event = match force {
            true => DynamicCapacityEvent::ForcedRelease,
            false => DynamicCapacityEvent::Release,
        };
        if force {
            self.remove_extents(&[*extent], effects)?;
        }
        self.log_extent(event, extent, false, effects);
        Ok(())
    }

    fn log_extent(
        &mut self,
        event: DynamicCapacityEvent,
        extent: &Extent,
        more: bool,
        effects: &mut Vec<Effect>,
    ) {
        let region = self.region_of(extent).map_or(0, |(index, _)| index);
        let record = Record {
            event,
            region,
            more,
            extent: *extent,
            extents_left: self.extents_left() as u32,
        };
        let event = Event {
            severity: Severity::Informational,
            flags: EventFlags::default(),
            related: 0,
            maintenance_class: 0,
            kind: EventKind::DynamicCapacity(record),
        };
        self.log_event(&event, effects);
    }

    /// The parts of a list that has come so far, with these; `None` if there are more to come.
    fn extend_list(
        &mut self,
        part: &[Extent],
        more: bool,
    ) -> Result<Option<Vec<Extent>>, ReturnCode> {
        let mut list = std::mem::take(&mut self.extents.begun);
        list.extend(part);
        if list.len() > MOST_EXTENTS {
            return Err(ReturnCode::ResourcesExhausted);
        }
        if overlap(&list) {
            return Err(ReturnCode::InvalidExtentList);
        }
        if more {
            self.extents.begun = list;
            return Ok(None);
        }
        Ok(Some(list))
    }

    /// Add Dynamic Capacity Response (section 8.2.9.9.9.3): what the host takes of the oldest offer; the rest is gone.
    pub(crate) fn accept_extents(
        &mut self,
        part: &[Extent],
        more: bool,
        effects: &mut Vec<Effect>,
    ) -> Result<(), ReturnCode> {
        let offer = self.extents.offers.front();
        let offer = offer.ok_or(ReturnCode::InvalidInput)?.clone();
        let within = |wanted: &Extent| offer.iter().find(|extent| extent.contains(wanted));
        if part
            .iter()
            .any(|wanted| within(wanted).is_none() || self.region_of(wanted).is_none())
        {
            return Err(ReturnCode::InvalidPhysicalAddress);
        }
        let Some(wanted) = self.extend_list(part, more)? else {
            return Ok(());
        };
        self.extents.offers.pop_front();
        let tagged = wanted.iter().filter_map(|wanted| {
            let offered = within(wanted)?;
            offered.part(wanted.dpa, wanted.end())
        });
        self.extents.accepted.extend(tagged);
        self.changed_extents(effects);
        Ok(())
    }

    /// Release Dynamic Capacity (section 8.2.9.9.9.4): what the host gives back, perhaps parts of extents.
    pub(crate) fn release_extents(
        &mut self,
        part: &[Extent],
        more: bool,
        effects: &mut Vec<Effect>,
    ) -> Result<(), ReturnCode> {
        let owned = |wanted: &Extent| {
            self.extents
                .accepted
                .iter()
                .any(|have| have.contains(wanted))
        };
        if part
            .iter()
            .any(|wanted| !owned(wanted) || self.region_of(wanted).is_none())
        {
            return Err(ReturnCode::InvalidPhysicalAddress);
        }
        match self.extend_list(part, more)? {
            Some(list) if list.is_empty() => Err(ReturnCode::InvalidInput),
            Some(list) => self.remove_extents(&list, effects),
            None => Ok(()),
        }
    }

    fn remove_extents(
        &mut self,
        gone: &[Extent],
        effects: &mut Vec<Effect>,
    ) -> Result<(), ReturnCode> {
        let mut left = self.extents.accepted.clone();
        let ranges = gone;
        for gone in ranges {
            left = left
                .iter()
                .flat_map(|have| match have.overlaps(gone) {
                    true => [
                        have.part(have.dpa, gone.dpa),
                        have.part(gone.end(), have.end()),
                    ],
                    false => [Some(*have), None],
                })
                .flatten()
                .collect();
        }
        let offered: usize = self.extents.offers.iter().map(Vec::len).sum();
        if left.len() + offered > MOST_EXTENTS {
            return Err(ReturnCode::ResourcesExhausted);
        }
        self.extents.accepted = left;
        self.changed_extents(effects);
        for Extent { dpa, len, .. } in ranges {
            self.zero_media(*dpa, *len, effects);
        }
        Ok(())
    }

    fn changed_extents(&mut self, effects: &mut Vec<Effect>) {
        self.extents.generation = self.extents.generation.wrapping_add(1);
        effects.push(Effect::AccessChanged);
    }
}
