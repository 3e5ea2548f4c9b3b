//! Bringing the bytes of an interleave set into the order in which a host sees them.
//!
//! Before a set's window can be mapped, its bytes have to lie in one store in HPA order. Often they do:
//! the set was committed before, or it has a single member. If not, [`relayout`] says what to copy;
//! when that is done (and made durable), each member's map takes its new extent.

use super::{Extent, Layout, Location, MediaMap, StoreId};
use crate::Error;
use crate::interleave::Interleave;

/// One way of a set: a device's map, and the part of its addresses that belongs to the set.
#[derive(Clone, Copy, Debug)]
pub struct SetMember<'a> {
    /// The device's extents.
    pub media: &'a MediaMap,
    /// First device address of the part.
    pub dpa: u64,
}

/// Where the set's bytes are in HPA order already, if they are.
///
/// `members` are in position order, one per way, with `member_size` bytes each.
pub fn current(
    members: &[SetMember<'_>],
    member_size: u64,
    interleave: Interleave,
) -> Option<Location> {
    let mut common = None;
    for (way, member) in (0..).zip(members) {
        let extents = member.media.cut(member.dpa, member_size).ok()?;
        let [extent] = extents.as_slice() else {
            return None;
        };
        if extent.layout != layout(way, interleave) {
            return None;
        }
        match common {
            None => common = Some(extent.start),
            Some(start) if start == extent.start => {}
            Some(_) => return None,
        }
    }
    common
}

/// A copy that moves a range of device addresses from one place to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExtentCopy {
    /// Position of the member in the set.
    pub way: usize,
    /// Where the bytes are.
    pub source: Extent,
    /// Where they go: the same device addresses.
    pub target: Extent,
}

/// Bytes that can be copied in one go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    /// From here.
    pub source: Location,
    /// To here.
    pub target: Location,
    /// So many bytes.
    pub len: u64,
}

impl ExtentCopy {
    /// What can be copied in one go from `dpa` on; `None` outside the extents.
    pub fn run(&self, dpa: u64) -> Option<Run> {
        let from = self.source.locate(dpa)?;
        let to = self.target.locate(dpa)?;
        Some(Run {
            source: from.location,
            target: to.location,
            len: from.len.min(to.len),
        })
    }
}

/// What has to happen before a set can be mapped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Relayout {
    /// Copies, in any order: no target is a source, as the target is a place of its own.
    pub copies: Vec<ExtentCopy>,
    /// The new extent of each member, in position order, for [`MediaMap::replace`].
    pub extents: Vec<Extent>,
}

/// Plans to lay the set out in HPA order from `target` on, a place that no extent uses yet.
///
/// `members` are in position order, one per way, with `member_size` bytes each.
pub fn relayout(
    members: &[SetMember<'_>],
    member_size: u64,
    interleave: Interleave,
    target: Location,
) -> Result<Relayout, Error> {
    let mut plan = Relayout {
        copies: Vec::new(),
        extents: Vec::new(),
    };
    for (way, member) in (0..).zip(members) {
        let extent = Extent {
            dpa: member.dpa,
            len: member_size,
            start: target,
            layout: layout(way, interleave),
        };
        for source in member.media.cut(member.dpa, member_size)? {
            let target = extent
                .part(source.dpa, source.end())
                .ok_or(Error::BadExtent(source.dpa))?;
            plan.copies.push(ExtentCopy {
                way: way as usize,
                source,
                target,
            });
        }
        plan.extents.push(extent);
    }
    Ok(plan)
}

/// The stores that a member's part lies in, each once, in address order.
pub fn stores(member: SetMember<'_>, member_size: u64) -> Result<Vec<StoreId>, Error> {
    let mut stores: Vec<StoreId> = Vec::new();
    for extent in member.media.cut(member.dpa, member_size)? {
        if !stores.contains(&extent.start.store) {
            stores.push(extent.start.store);
        }
    }
    Ok(stores)
}

/// A set of one lies as a device alone does.
fn layout(way: u64, interleave: Interleave) -> Layout {
    if interleave.ways.count() == 1 {
        Layout::Linear
    } else {
        Layout::Interleaved { way, interleave }
    }
}
