//! Copies and fills.

use std::sync::Arc;

use crate::context::Context;
use crate::driver::Driver;
use crate::ffi::Address;
use crate::stream::Stream;
use crate::{Error, Result};

/// One end of a copy.
#[derive(Clone)]
enum Place {
    /// In memory that the device knows, with the context that owns it.
    Device(Arc<Context>, u64),
    /// In the program's own memory.
    Program(Address),
}

impl Place {
    /// Where `bytes` bytes at an address are.
    fn of(driver: &Driver, address: u64, bytes: u64) -> Result<Self> {
        match driver.allocations.find(address) {
            Some(allocation) if !allocation.holds(address, bytes) => Err(Error::INVALID_VALUE),
            Some(allocation) => Ok(Self::Device(allocation.context()?, address)),
            None if bytes > 0 && address == 0 => Err(Error::INVALID_VALUE),
            None => Ok(Self::Program(Address(address))),
        }
    }

    fn plus(&self, offset: u64) -> Self {
        match self {
            Self::Device(context, address) => Self::Device(context.clone(), address + offset),
            Self::Program(address) => Self::Program(Address(address.0 + offset)),
        }
    }
}

/// Bytes that go through a buffer at once, from one context to another.
const BUFFER: u64 = 1 << 20;

fn move_bytes(to: &Place, from: &Place, bytes: u64) -> Result<()> {
    match (to, from) {
        (Place::Device(to, to_address), Place::Device(from, from_address)) => {
            if Arc::ptr_eq(to, from) {
                return to.channel.copy(*to_address, *from_address, bytes);
            }
            let mut buffer = vec![0; bytes.min(BUFFER) as usize];
            let mut done = 0;
            while done < bytes {
                let part = &mut buffer[..(bytes - done).min(BUFFER) as usize];
                from.channel.read(from_address + done, part)?;
                to.channel.write(to_address + done, part)?;
                done += part.len() as u64;
            }
            Ok(())
        }
        (Place::Device(to, address), Place::Program(from)) => {
            to.channel.write(*address, from.bytes(bytes as usize))
        }
        (Place::Program(to), Place::Device(from, address)) => {
            from.channel.read(*address, to.bytes_mut(bytes as usize))
        }
        (Place::Program(to), Place::Program(from)) => {
            to.copy_from(*from, bytes as usize);
            Ok(())
        }
    }
}

/// Rows of a copy: how many, of how many bytes, and how far apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    pub width: u64,
    pub height: u64,
    pub depth: u64,
}

impl Shape {
    pub fn line(bytes: u64) -> Self {
        Self {
            width: bytes,
            height: 1,
            depth: 1,
        }
    }

    fn is_empty(self) -> bool {
        self.width == 0 || self.height == 0 || self.depth == 0
    }
}

/// One side of a copy: where it begins, and the distance of its rows and of its layers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Side {
    pub address: u64,
    pub pitch: u64,
    pub layer: u64,
}

impl Side {
    pub fn line(address: u64) -> Self {
        Self {
            address,
            pitch: 0,
            layer: 0,
        }
    }

    /// From the first byte to the last one.
    fn extent(self, shape: Shape) -> Result<u64> {
        let rows = self.pitch.checked_mul(shape.height - 1);
        let layers = self.layer.checked_mul(shape.depth - 1);
        rows.zip(layers)
            .and_then(|(rows, layers)| rows.checked_add(layers)?.checked_add(shape.width))
            .filter(|extent| self.address.checked_add(*extent).is_some())
            .ok_or(Error::INVALID_VALUE)
    }
}

/// A copy whose ranges have been checked.
#[derive(Clone)]
pub struct Copy {
    to: (Place, Side),
    from: (Place, Side),
    shape: Shape,
}

impl Copy {
    /// # Errors
    /// `INVALID_VALUE` for a range that is not within one allocation, or rows that overlap.
    pub fn new(driver: &Driver, to: Side, from: Side, shape: Shape) -> Result<Self> {
        let place = |side: Side| {
            if shape.is_empty() {
                return Ok(Place::Program(Address(side.address)));
            }
            let overlapping = shape.height > 1 && side.pitch < shape.width;
            if overlapping {
                return Err(Error::INVALID_VALUE);
            }
            Place::of(driver, side.address, side.extent(shape)?)
        };
        Ok(Self {
            to: (place(to)?, to),
            from: (place(from)?, from),
            shape,
        })
    }

    /// A copy of consecutive bytes.
    pub fn line(driver: &Driver, to: u64, from: u64, bytes: u64) -> Result<Self> {
        Self::new(driver, Side::line(to), Side::line(from), Shape::line(bytes))
    }

    pub fn into_device(self) -> Result<Self> {
        match self.to.0 {
            Place::Program(_) if !self.shape.is_empty() => Err(Error::INVALID_VALUE),
            _ => Ok(self),
        }
    }

    pub fn out_of_device(self) -> Result<Self> {
        match self.from.0 {
            Place::Program(_) if !self.shape.is_empty() => Err(Error::INVALID_VALUE),
            _ => Ok(self),
        }
    }

    pub fn perform(&self) -> Result<()> {
        if self.shape.is_empty() {
            return Ok(());
        }
        for layer in 0..self.shape.depth {
            for row in 0..self.shape.height {
                let end = |(place, side): &(Place, Side)| {
                    place.plus(layer * side.layer + row * side.pitch)
                };
                move_bytes(&end(&self.to), &end(&self.from), self.shape.width)?;
            }
        }
        Ok(())
    }

    /// Copies in a stream and waits for it.
    pub fn run(self, stream: &Stream) -> Result<()> {
        stream.run(|| self.perform())
    }

    /// Copies in a stream. Of the program's pageable memory, what is read is read before this returns, and what is
    /// written is written: the program may use it for something else at once, as CUDA lets it.
    pub fn submit(self, stream: &Stream) -> Result<()> {
        const STAGED: u64 = 1 << 20;
        match (&self.to.0, &self.from.0) {
            (Place::Device(..), Place::Device(..)) => stream.submit(move || self.perform()),
            (Place::Device(to, address), Place::Program(from))
                if self.shape == Shape::line(self.shape.width) && self.shape.width <= STAGED =>
            {
                let bytes = from.read(self.shape.width as usize);
                let (to, address) = (to.clone(), *address);
                stream.submit(move || to.channel.write(address, &bytes))
            }
            _ => self.run(stream),
        }
    }
}

/// A fill whose range has been checked: rows of a repeated value.
#[derive(Clone)]
pub struct Fill {
    context: Arc<Context>,
    to: Side,
    /// Elements of a row.
    columns: u64,
    rows: u64,
    value: [u8; 4],
    /// Bytes of an element.
    element: u64,
}

impl Fill {
    /// Fills `rows` rows of `columns` elements of 1, 2 or 4 bytes.
    pub fn new(
        driver: &Driver,
        to: Side,
        value: u32,
        element: u64,
        columns: u64,
        rows: u64,
    ) -> Result<Option<Self>> {
        if columns == 0 || rows == 0 {
            return Ok(None);
        }
        let width = columns.checked_mul(element).ok_or(Error::INVALID_VALUE)?;
        let shape = Shape {
            width,
            height: rows,
            depth: 1,
        };
        let overlapping = rows > 1 && to.pitch < width;
        if overlapping || !matches!(element, 1 | 2 | 4) || !to.address.is_multiple_of(element) {
            return Err(Error::INVALID_VALUE);
        }
        match Place::of(driver, to.address, to.extent(shape)?)? {
            Place::Device(context, _) => Ok(Some(Self {
                context,
                to,
                columns,
                rows,
                value: value.to_le_bytes(),
                element,
            })),
            Place::Program(_) => Err(Error::INVALID_VALUE),
        }
    }

    pub fn perform(&self) -> Result<()> {
        let pattern = &self.value[..self.element as usize];
        for row in 0..self.rows {
            let address = self.to.address + row * self.to.pitch;
            self.context.channel.fill(address, pattern, self.columns)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_extent_ends_with_the_last_row() {
        let side = Side {
            address: 0x1000,
            pitch: 64,
            layer: 640,
        };
        let shape = Shape {
            width: 16,
            height: 3,
            depth: 2,
        };
        assert_eq!(side.extent(shape), Ok(640 + 128 + 16));
    }

    #[test]
    fn an_extent_that_cannot_be_counted_is_invalid() {
        let side = Side {
            address: 1,
            pitch: u64::MAX / 2,
            layer: 0,
        };
        let shape = Shape {
            width: 16,
            height: 4,
            depth: 1,
        };
        assert_eq!(side.extent(shape), Err(Error::INVALID_VALUE));
    }

    #[test]
    fn the_programs_own_memory_is_copied_by_rows() {
        let driver = Driver::default();
        let from: Vec<u8> = (0..24).collect();
        let mut to = [0u8; 9];
        let side = |address: u64, pitch| Side {
            address,
            pitch,
            layer: 0,
        };
        let shape = Shape {
            width: 3,
            height: 3,
            depth: 1,
        };
        let (to_side, from_side) = (
            side(to.as_mut_ptr() as u64, 3),
            side(from.as_ptr() as u64, 8),
        );
        let copy = Copy::new(&driver, to_side, from_side, shape).unwrap();
        copy.perform().unwrap();
        assert_eq!(to, [0, 1, 2, 8, 9, 10, 16, 17, 18]);
        assert!(Copy::new(&driver, to_side, side(from.as_ptr() as u64, 2), shape).is_err());
    }
}
