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
    /// Extents begin and end at multiples of this power of two, at least 64; the fabric manager can make it larger.
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
    /// The block size that each region had before the fabric manager changed any.
    block_sizes: Option<Vec<u64>>,
}

impl Memdev {
    /// The regions with dynamic capacity.
    pub fn dynamic_regions(&self) -> &[DynamicRegion] {
        &self.config.dynamic
    }

    /// The regions from number `start` on, `count` at most.
    ///
    /// # Errors
    /// [`ReturnCode::InvalidInput`] if there are not so many.
    pub(crate) fn list_regions(
        &self,
        start: u8,
        count: u8,
    ) -> Result<Vec<DynamicRegion>, ReturnCode> {
        let rest = self.config.dynamic.get(usize::from(start)..);
        let rest = rest
            .filter(|rest| !rest.is_empty())
            .ok_or(ReturnCode::InvalidInput)?;
        Ok(rest.iter().copied().take(count.into()).collect())
    }

    /// The host's extents from number `start` on, `count` and `most` at most.
    ///
    /// # Errors
    /// [`ReturnCode::InvalidInput`] beyond the last.
    pub(crate) fn list_extents(
        &self,
        start: u32,
        count: u32,
        most: usize,
    ) -> Result<Vec<Extent>, ReturnCode> {
        let [start, count] =
            [start, count].map(|number| usize::try_from(number).unwrap_or(usize::MAX));
        let rest = self.extents.accepted.get(start..);
        let rest = rest.ok_or(ReturnCode::InvalidInput)?;
        Ok(rest.iter().copied().take(count.min(most)).collect())
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
        self.reclaim_extents(&[*extent], force, effects)
    }

    /// The same for several, all or none of them.
    ///
    /// # Errors
    /// [`ReturnCode::InvalidPhysicalAddress`] if the host does not have all of that, [`ReturnCode::InvalidExtentList`] if there
    /// are none or they overlap, [`ReturnCode::ResourcesExhausted`] if more parts would be left than the device keeps.
    pub(crate) fn reclaim_extents(
        &mut self,
        extents: &[Extent],
        force: bool,
        effects: &mut Vec<Effect>,
    ) -> Result<(), ReturnCode> {
        if extents.is_empty() || overlap(extents) {
            return Err(ReturnCode::InvalidExtentList);
        }
        let is_owned = |extent: &Extent| {
            let mut accepted = self.extents.accepted.iter();
            accepted.any(|have| have.contains(extent)) && self.region_of(extent).is_some()
        };
        if !extents.iter().all(is_owned) {
            return Err(ReturnCode::InvalidPhysicalAddress);
        }
        let event = match force {
            true => DynamicCapacityEvent::ForcedRelease,
            false => DynamicCapacityEvent::Release,
        };
        if force {
            self.remove_extents(extents, effects)?;
        }
        for (left, extent) in (0..extents.len()).rev().zip(extents) {
            self.log_extent(event, extent, left > 0, effects);
        }
        Ok(())
    }

    /// Extents in what is left of a region, lowest addresses first, that have `len` bytes together, or in one.
    ///
    /// # Errors
    /// [`ReturnCode::InvalidInput`] without such a region or for bytes that are not whole blocks,
    /// [`ReturnCode::ResourcesExhausted`] if there is no room for them.
    pub(crate) fn free_extents(
        &self,
        region: u8,
        len: u64,
        tag: [u8; 16],
        in_one: bool,
    ) -> Result<Vec<Extent>, ReturnCode> {
        let region = self.config.dynamic.get(usize::from(region));
        let region = region
            .filter(|region| len > 0 && len.is_multiple_of(region.block_size))
            .ok_or(ReturnCode::InvalidInput)?;
        let kept = self.extents.offers.iter().flatten();
        let kept = kept.chain(&self.extents.accepted);
        let mut taken: Vec<Range<u64>> = kept.map(|extent| extent.dpa..extent.end()).collect();
        let end = region.base.saturating_add(region.len);
        // What is behind the region ends the last gap in it.
        taken.push(end..u64::MAX);
        taken.sort_by_key(|range| range.start);
        let (mut extents, mut left, mut from) = (Vec::new(), len, region.base);
        for range in taken {
            let gap = range.start.min(end).saturating_sub(from);
            let part = match in_one {
                true if gap < len => 0,
                _ => gap.min(left),
            };
            if part > 0 {
                left -= part;
                extents.push(Extent {
                    dpa: from,
                    len: part,
                    tag,
                    shared_sequence: 0,
                });
            }
            from = from.max(range.end);
        }
        match left {
            0 => Ok(extents),
            _ => Err(ReturnCode::ResourcesExhausted),
        }
    }

    /// `len` bytes of the host's extents with a tag.
    ///
    /// # Errors
    /// [`ReturnCode::InvalidInput`] if the host has less with it, or if that is nothing or not in whole blocks.
    pub(crate) fn tagged_extents(
        &self,
        tag: [u8; 16],
        len: u64,
    ) -> Result<Vec<Extent>, ReturnCode> {
        let mut left = len;
        let mut extents = Vec::new();
        for have in &self.extents.accepted {
            if have.tag != tag || left == 0 {
                continue;
            }
            let part = Extent {
                len: have.len.min(left),
                ..*have
            };
            left -= part.len;
            extents.push(part);
        }
        let whole = extents
            .iter()
            .all(|extent| self.region_of(extent).is_some());
        match left {
            0 if len > 0 && whole => Ok(extents),
            _ => Err(ReturnCode::InvalidInput),
        }
    }

    /// The sizes that blocks of a region can have: bit n for 2^n bytes.
    pub(crate) fn block_sizes(&self, region: usize) -> u64 {
        let Some(now) = self.config.dynamic.get(region) else {
            return 0;
        };
        let first = self.extents.block_sizes.as_ref();
        let least = first.and_then(|sizes| sizes.get(region));
        let least = least.copied().unwrap_or(now.block_size);
        (0..u64::BITS)
            .map(|bit| 1_u64 << bit)
            .filter(|size| *size >= least && now.len.is_multiple_of(*size))
            .sum()
    }

    /// Gives the blocks of a region another size.
    ///
    /// # Errors
    /// [`ReturnCode::InvalidInput`] without such a region or for a size that they cannot have, [`ReturnCode::Unsupported`] while
    /// there are extents in it.
    pub(crate) fn set_block_size(
        &mut self,
        index: u8,
        size: u64,
        effects: &mut Vec<Effect>,
    ) -> Result<(), ReturnCode> {
        let sizes = self.block_sizes(usize::from(index));
        if !size.is_power_of_two() || sizes & size == 0 {
            return Err(ReturnCode::InvalidInput);
        }
        let kept = self.extents.offers.iter().flatten();
        let mut kept = kept.chain(&self.extents.accepted);
        if kept.any(|extent| self.region_of(extent).is_some_and(|(at, _)| at == index)) {
            return Err(ReturnCode::Unsupported);
        }
        let regions = &mut self.config.dynamic;
        let first = regions.iter().map(|region| region.block_size);
        self.extents.block_sizes.get_or_insert(first.collect());
        if let Some(region) = regions.get_mut(usize::from(index)) {
            region.block_size = size;
        }
        self.log_capacity(
            DynamicCapacityEvent::RegionConfigurationUpdated,
            index,
            &Extent::default(),
            false,
            effects,
        );
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
        self.log_capacity(event, region, extent, more, effects);
    }

    fn log_capacity(
        &mut self,
        event: DynamicCapacityEvent,
        region: u8,
        extent: &Extent,
        more: bool,
        effects: &mut Vec<Effect>,
    ) {
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
