//! First half of a firmware's PCI work: find every function, number the buses, size the BARs.

use std::ops::RangeInclusive;

use crate::assign::PortReserve;
use crate::spec::{bar, bridge, header};
use crate::{Bdf, Error, Function, Hierarchy, NodeId};

/// The three kinds of window that BARs are placed in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pool {
    Io,
    Memory32,
    Memory64,
}

/// A BAR by what its register answered.
#[derive(Clone, Copy, Debug)]
pub(crate) struct FoundBar {
    pub index: u8,
    pub size: u64,
    pub pool: Pool,
    pub is_64_bit: bool,
}

/// A function that answered.
#[derive(Debug)]
pub(crate) struct Found {
    pub bdf: Bdf,
    pub bars: Vec<FoundBar>,
    /// What is behind it, if it is a bridge.
    pub below: Option<Vec<Found>>,
}

impl Found {
    /// A bridge with no bridge behind it: the port of a slot, where devices may come later.
    pub fn is_leaf_port(&self) -> bool {
        self.below
            .as_ref()
            .is_some_and(|below| below.iter().all(|found| found.below.is_none()))
    }
}

/// Configuration accesses as firmware makes them.
pub(crate) struct Access<'h, F: Function> {
    pub hierarchy: &'h mut Hierarchy<F>,
    pub out: &'h mut Vec<(NodeId, F::Effect)>,
}

impl<F: Function> Access<'_, F> {
    fn read<const N: usize>(&self, bdf: Bdf, register: u16) -> [u8; N] {
        let mut data = [0; N];
        self.hierarchy.config_read(bdf, register, &mut data);
        data
    }

    pub fn read_u8(&self, bdf: Bdf, register: u16) -> u8 {
        u8::from_le_bytes(self.read(bdf, register))
    }

    pub fn read_u16(&self, bdf: Bdf, register: u16) -> u16 {
        u16::from_le_bytes(self.read(bdf, register))
    }

    pub fn read_u32(&self, bdf: Bdf, register: u16) -> u32 {
        u32::from_le_bytes(self.read(bdf, register))
    }

    pub fn write_u8(&mut self, bdf: Bdf, register: u16, value: u8) {
        self.hierarchy
            .config_write(bdf, register, &[value], self.out);
    }

    pub fn write_u16(&mut self, bdf: Bdf, register: u16, value: u16) {
        self.hierarchy
            .config_write(bdf, register, &value.to_le_bytes(), self.out);
    }

    pub fn write_u32(&mut self, bdf: Bdf, register: u16, value: u32) {
        self.hierarchy
            .config_write(bdf, register, &value.to_le_bytes(), self.out);
    }
}

/// Numbers the buses of one root depth first and returns what is on its root bus.
pub(crate) fn scan_root<F: Function>(
    access: &mut Access<'_, F>,
    buses: RangeInclusive<u8>,
    reserve: &PortReserve,
) -> Result<Vec<Found>, Error> {
    let mut last = *buses.start();
    Scan {
        access,
        root: buses.clone(),
        reserve,
    }
    .bus(*buses.start(), &mut last)
}

struct Scan<'s, 'h, F: Function> {
    access: &'s mut Access<'h, F>,
    root: RangeInclusive<u8>,
    reserve: &'s PortReserve,
}

impl<F: Function> Scan<'_, '_, F> {
    /// Scans one bus and all behind it. `last` is the highest bus number given out.
    fn bus(&mut self, bus: u8, last: &mut u8) -> Result<Vec<Found>, Error> {
        let mut found = Vec::new();
        for device in 0..32 {
            for function in 0..8 {
                let bdf = Bdf::new(bus, device, function);
                if self.access.read_u16(bdf, header::VENDOR_ID) != 0xffff {
                    found.push(self.function(bdf, last)?);
                }
                let kind = self
                    .access
                    .read_u8(Bdf::new(bus, device, 0), header::HEADER_TYPE);
                if kind == 0xff || kind & header::MULTI_FUNCTION == 0 {
                    break;
                }
            }
        }
        Ok(found)
    }

    fn function(&mut self, bdf: Bdf, last: &mut u8) -> Result<Found, Error> {
        self.access.write_u16(bdf, header::COMMAND, 0);
        let kind = self.access.read_u8(bdf, header::HEADER_TYPE) & !header::MULTI_FUNCTION;
        let is_bridge = kind == header::TYPE_1;
        let below = if is_bridge {
            Some(self.bridge(bdf, last)?)
        } else {
            None
        };
        let bars = self.bars(bdf, if is_bridge { 2 } else { 6 });
        Ok(Found { bdf, bars, below })
    }

    /// Gives a bridge its bus numbers, those behind it included.
    fn bridge(&mut self, bdf: Bdf, last: &mut u8) -> Result<Vec<Found>, Error> {
        let end = *self.root.end();
        let secondary = self.take_buses(bdf, last, 1)?;
        self.access.write_u8(bdf, bridge::PRIMARY_BUS, bdf.bus());
        self.access.write_u8(bdf, bridge::SECONDARY_BUS, secondary);
        // Open to the end while what is behind is not known yet.
        self.access.write_u8(bdf, bridge::SUBORDINATE_BUS, end);
        let below = self.bus(secondary, last)?;
        if below.iter().all(|found| found.below.is_none()) {
            self.take_buses(bdf, last, self.reserve.buses)?;
        }
        self.access.write_u8(bdf, bridge::SUBORDINATE_BUS, *last);
        Ok(below)
    }

    fn take_buses(&self, bridge: Bdf, last: &mut u8, count: u8) -> Result<u8, Error> {
        let left = self.root.end().saturating_sub(*last);
        if count > left {
            let (root, needed, left) = (self.root.clone(), u16::from(count), u16::from(left));
            return Err(Error::OutOfBuses {
                root,
                bridge,
                needed,
                left,
            });
        }
        *last += count;
        Ok(*last)
    }

    /// Sizes BARs by writing ones (7.5.1.2.1).
    fn bars(&mut self, bdf: Bdf, registers: u8) -> Vec<FoundBar> {
        let on_root_bus = bdf.bus() == *self.root.start();
        let mut found = Vec::new();
        let mut index = 0;
        while index < registers {
            let register = header::BAR0 + 4 * u16::from(index);
            self.access.write_u32(bdf, register, u32::MAX);
            let low = self.access.read_u32(bdf, register);
            let is_io = low & bar::IO != 0;
            let is_64_bit =
                !is_io && low & bar::MEMORY_FLAGS & !bar::PREFETCHABLE == bar::MEMORY_64;
            let flags = if is_io {
                bar::IO_FLAGS
            } else {
                bar::MEMORY_FLAGS
            };
            let mut mask = u64::from(low & !flags) | u64::from(u32::MAX) << 32;
            if is_64_bit {
                self.access.write_u32(bdf, register + 4, u32::MAX);
                let high = self.access.read_u32(bdf, register + 4);
                mask = u64::from(low & !flags) | u64::from(high) << 32;
            }
            if low != 0 {
                // Behind a bridge only the prefetchable window reaches above 4 GiB (7.5.1.3.9).
                let pool = match low & bar::PREFETCHABLE != 0 || on_root_bus {
                    _ if is_io => Pool::Io,
                    true if is_64_bit => Pool::Memory64,
                    _ => Pool::Memory32,
                };
                found.push(FoundBar {
                    index,
                    size: mask.wrapping_neg(),
                    pool,
                    is_64_bit,
                });
            }
            index += if is_64_bit { 2 } else { 1 };
        }
        found
    }
}
