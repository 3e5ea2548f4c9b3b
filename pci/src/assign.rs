//! Second half of a firmware's PCI work: place BARs and bridge windows, turn decoding on.
//!
//! Sizes are found bottom up and bases given top down. What is on one bus is packed by falling alignment, which leaves no
//! holes between powers of two.

use std::ops::{Range, RangeInclusive};

use crate::scan::{Access, Found, FoundBar, Pool, scan_root};
use crate::spec::{bridge, command, header};
use crate::{Error, Function, Hierarchy, NodeId};

/// Address space that the roots share. Ranges in bytes; `memory32` lies below 4 GiB.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pools {
    pub io: Range<u64>,
    pub memory32: Range<u64>,
    pub memory64: Range<u64>,
}

/// What each port with no bridge behind it gets at least, for devices that come later.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PortReserve {
    /// Bus numbers besides the one of the link.
    pub buses: u8,
    /// Bytes below 4 GiB.
    pub memory32: u64,
    /// Bytes of 64-bit prefetchable memory.
    pub memory64: u64,
}

/// What a root was given: the resources that its ACPI `_CRS` must name. Empty ranges where it needs none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RootWindows {
    pub buses: RangeInclusive<u8>,
    pub io: Range<u64>,
    pub memory32: Range<u64>,
    pub memory64: Range<u64>,
}

/// Does what a BIOS does before it starts an operating system: through configuration accesses alone it finds all
/// functions, numbers buses, places BARs and windows, and enables their decode; bridges may also pass on requests.
///
/// 64-bit prefetchable BARs, and any 64-bit BAR on a root bus, come from `memory64`; the rest from `memory32`, as a bridge
/// has no other way above 4 GiB. Roots get their windows in order, each aligned to its largest BAR.
///
/// # Errors
/// [`Error::OutOfBuses`] or [`Error::OutOfSpace`], naming what does not fit. The hierarchy is then half programmed.
pub fn assign<F: Function>(
    hierarchy: &mut Hierarchy<F>,
    pools: &Pools,
    reserve: &PortReserve,
    out: &mut Vec<(NodeId, F::Effect)>,
) -> Result<Vec<RootWindows>, Error> {
    let roots: Vec<_> = hierarchy.roots().map(|(_, buses)| buses).collect();
    let mut assigner = Assigner {
        access: Access { hierarchy, out },
        reserve,
    };
    let mut left = pools.clone();
    let mut windows = Vec::new();
    for buses in roots {
        let found = scan_root(&mut assigner.access, buses.clone(), reserve)?;
        windows.push(RootWindows {
            io: assigner.root(&buses, &found, Pool::Io, &mut left.io)?,
            memory32: assigner.root(&buses, &found, Pool::Memory32, &mut left.memory32)?,
            memory64: assigner.root(&buses, &found, Pool::Memory64, &mut left.memory64)?,
            buses,
        });
        assigner.enable(&found);
    }
    Ok(windows)
}

/// Something to place on a bus: a BAR, or the window of a bridge.
enum Item<'f> {
    Bar(&'f Found, FoundBar),
    Window(&'f Found, &'f [Found]),
}

/// A placement relative to an aligned base. Sums of guest-sized powers of two may exceed 64 bits on paper.
struct Layout<'f> {
    size: u128,
    align: u128,
    items: Vec<(u128, u128, Item<'f>)>,
}

struct Assigner<'h, F: Function> {
    access: Access<'h, F>,
    reserve: &'h PortReserve,
}

impl<F: Function> Assigner<'_, F> {
    /// Takes what one root needs from a pool and programs it.
    fn root(
        &mut self,
        buses: &RangeInclusive<u8>,
        found: &[Found],
        pool: Pool,
        left: &mut Range<u64>,
    ) -> Result<Range<u64>, Error> {
        let layout = layout(found, pool, self.reserve);
        if layout.size == 0 {
            return self
                .program(found, pool, None)
                .map(|()| left.start..left.start);
        }
        let align = layout.align.max(granularity(pool));
        let start = u128::from(left.start).next_multiple_of(align);
        let end = start + layout.size.next_multiple_of(granularity(pool));
        if end > u128::from(left.end) {
            return Err(Error::OutOfSpace {
                what: describe(buses, found, pool),
                space: name(pool),
                needed: u64::try_from(end - u128::from(left.start)).unwrap_or(u64::MAX),
                left: left.end.saturating_sub(left.start),
            });
        }
        // Both are at most `left.end`.
        let window = start as u64..end as u64;
        left.start = window.end;
        self.program(found, pool, Some(window.start))
            .map(|()| window)
    }

    /// Writes the registers of one kind for all on a bus and below. Without a base all windows are closed.
    fn program(&mut self, found: &[Found], pool: Pool, base: Option<u64>) -> Result<(), Error> {
        for (offset, size, item) in layout(found, pool, self.reserve).items {
            // Relative to a base whose window was found to end within 64 bits.
            let at = base.map(|base| base + offset as u64);
            match (item, at) {
                (Item::Bar(function, bar), Some(at)) => {
                    let register = header::BAR0 + 4 * u16::from(bar.index);
                    self.access.write_u32(function.bdf, register, at as u32);
                    if bar.is_64_bit {
                        self.access
                            .write_u32(function.bdf, register + 4, (at >> 32) as u32);
                    }
                }
                (Item::Bar(..), None) => {}
                (Item::Window(port, below), at) => {
                    let window = at
                        .filter(|_| size != 0)
                        .map(|at| at..=at + (size as u64 - 1));
                    self.open(port, pool, window.as_ref())?;
                    self.program(below, pool, window.map(|window| *window.start()))?;
                }
            }
        }
        Ok(())
    }

    /// Programs a bridge window; a closed one has its base above its limit (7.5.1.3.8).
    fn open(
        &mut self,
        port: &Found,
        pool: Pool,
        window: Option<&RangeInclusive<u64>>,
    ) -> Result<(), Error> {
        let bdf = port.bdf;
        let (base, limit) = window.map_or((u64::from(u32::MAX), 0), |window| {
            (*window.start(), *window.end())
        });
        let megabytes = |address: u64| (address >> 16) as u16 & 0xfff0;
        match pool {
            Pool::Memory32 => {
                self.access
                    .write_u16(bdf, bridge::MEMORY_BASE, megabytes(base));
                self.access
                    .write_u16(bdf, bridge::MEMORY_LIMIT, megabytes(limit));
            }
            Pool::Memory64 => {
                self.access
                    .write_u16(bdf, bridge::PREFETCHABLE_BASE, megabytes(base));
                self.access
                    .write_u16(bdf, bridge::PREFETCHABLE_LIMIT, megabytes(limit));
                self.access
                    .write_u32(bdf, bridge::PREFETCHABLE_BASE_UPPER, (base >> 32) as u32);
                self.access
                    .write_u32(bdf, bridge::PREFETCHABLE_LIMIT_UPPER, (limit >> 32) as u32);
            }
            Pool::Io => {
                self.access
                    .write_u8(bdf, bridge::IO_BASE, (base >> 8) as u8 & 0xf0);
                self.access
                    .write_u8(bdf, bridge::IO_LIMIT, (limit >> 8) as u8 & 0xf0);
                self.access
                    .write_u16(bdf, bridge::IO_BASE_UPPER, (base >> 16) as u16);
                self.access
                    .write_u16(bdf, bridge::IO_LIMIT_UPPER, (limit >> 16) as u16);
                let wide =
                    self.access.read_u8(bdf, bridge::IO_BASE) & 0xf == bridge::ADDRESSING_WIDE;
                if let (Some(window), false) = (window, wide) {
                    return Err(Error::OutOfSpace {
                        what: format!("I/O below bridge {bdf}, which has no I/O window"),
                        space: name(pool),
                        needed: window.end() - window.start() + 1,
                        left: 0,
                    });
                }
            }
        }
        Ok(())
    }

    /// Turns on what has been placed.
    fn enable(&mut self, found: &[Found]) {
        for function in found {
            let uses = |io: bool| function.bars.iter().any(|bar| (bar.pool == Pool::Io) == io);
            let mut enabled = 0;
            if uses(true) || function.below.is_some() {
                enabled |= command::IO_SPACE;
            }
            if uses(false) || function.below.is_some() {
                enabled |= command::MEMORY_SPACE;
            }
            if let Some(below) = &function.below {
                enabled |= command::BUS_MASTER;
                self.enable(below);
            }
            self.access
                .write_u16(function.bdf, header::COMMAND, enabled);
        }
    }
}

/// Packs what is on one bus, by falling alignment. Every bridge is in it, with size 0 if it needs nothing.
fn layout<'f>(found: &'f [Found], pool: Pool, reserve: &PortReserve) -> Layout<'f> {
    let mut wanted = Vec::new();
    for function in found {
        for bar in function.bars.iter().filter(|bar| bar.pool == pool) {
            let size = u128::from(bar.size);
            wanted.push((size, size, Item::Bar(function, *bar)));
        }
        if let Some(below) = &function.below {
            let inner = layout(below, pool, reserve);
            let reserved = if function.is_leaf_port() {
                reserved(pool, reserve)
            } else {
                0
            };
            let size = inner
                .size
                .max(u128::from(reserved))
                .next_multiple_of(granularity(pool));
            // A device that comes later has BARs that are aligned, too.
            let align = if reserved == 0 {
                1
            } else {
                1 << reserved.ilog2()
            };
            let align = inner.align.max(align).max(granularity(pool));
            wanted.push((size, align, Item::Window(function, below)));
        }
    }
    wanted.sort_by_key(|(_, align, _)| std::cmp::Reverse(*align));
    let align = wanted
        .iter()
        .filter(|(size, ..)| *size != 0)
        .map(|(_, align, _)| *align)
        .max()
        .unwrap_or(1);
    let mut end = 0u128;
    let mut items = Vec::new();
    for (size, align, item) in wanted {
        let offset = if size == 0 {
            end
        } else {
            end.next_multiple_of(align)
        };
        end = offset + size;
        items.push((offset, size, item));
    }
    Layout {
        size: end,
        align,
        items,
    }
}

fn reserved(pool: Pool, reserve: &PortReserve) -> u64 {
    match pool {
        Pool::Io => 0,
        Pool::Memory32 => reserve.memory32,
        Pool::Memory64 => reserve.memory64,
    }
}

fn granularity(pool: Pool) -> u128 {
    match pool {
        Pool::Io => u128::from(bridge::IO_GRANULARITY),
        Pool::Memory32 | Pool::Memory64 => u128::from(bridge::MEMORY_GRANULARITY),
    }
}

fn name(pool: Pool) -> &'static str {
    match pool {
        Pool::Io => "I/O space",
        Pool::Memory32 => "32-bit memory space",
        Pool::Memory64 => "64-bit memory space",
    }
}

/// A root by its buses and by the largest of its BARs in a pool, for an error message.
fn describe(buses: &RangeInclusive<u8>, found: &[Found], pool: Pool) -> String {
    let root = format!("root {:02x}-{:02x}", buses.start(), buses.end());
    let mut largest: Option<(u64, &Found, u8)> = None;
    let mut rest: Vec<&Found> = found.iter().collect();
    while let Some(function) = rest.pop() {
        for bar in function.bars.iter().filter(|bar| bar.pool == pool) {
            if largest.is_none_or(|(size, ..)| bar.size > size) {
                largest = Some((bar.size, function, bar.index));
            }
        }
        rest.extend(function.below.iter().flatten());
    }
    match largest {
        Some((size, function, index)) => {
            format!(
                "{root} (largest: BAR {index} of {}, {size:#x} bytes)",
                function.bdf
            )
        }
        None => format!("{root} (only what is reserved for its ports)"),
    }
}

#[cfg(test)]
mod tests;
