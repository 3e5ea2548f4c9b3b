//! Fills (`cuMemset`).

use crate::context;
use crate::driver::Driver;
use crate::ffi::driver_api;
use crate::graph::Action;
use crate::registry::Handle;
use crate::transfer::{Fill, Side};
use crate::{Error, Result};

/// Rows of elements.
struct Rows {
    address: u64,
    pitch: usize,
    /// Bytes of an element.
    element: u64,
    columns: usize,
    rows: usize,
}

impl Rows {
    fn line(address: u64, element: u64, count: usize) -> Self {
        Self {
            address,
            pitch: 0,
            element,
            columns: count,
            rows: 1,
        }
    }

    fn check(&self, driver: &Driver, value: u32) -> Result<Option<Fill>> {
        let to = Side {
            address: self.address,
            pitch: self.pitch as u64,
            layer: 0,
        };
        let (columns, rows) = (self.columns as u64, self.rows as u64);
        Fill::new(driver, to, value, self.element, columns, rows)
    }

    /// Fills in the default stream and waits.
    fn now(&self, value: u32) -> Result<()> {
        let driver = Driver::get()?;
        let context = context::current()?;
        match self.check(driver, value)? {
            Some(fill) => context.default_stream.run(|| fill.perform()),
            None => Ok(()),
        }
    }

    fn in_stream(&self, value: u32, stream: Handle) -> Result<()> {
        let driver = Driver::get()?;
        let stream = driver.stream(stream)?;
        stream.perform(Action::Fill(self.check(driver, value)?))
    }
}

/// Rows of `columns` elements, `pitch` bytes apart.
fn rows(address: u64, pitch: usize, element: u64, columns: usize, rows: usize) -> Result<Rows> {
    if !(pitch as u64).is_multiple_of(element) {
        return Err(Error::INVALID_VALUE);
    }
    Ok(Rows {
        address,
        pitch,
        element,
        columns,
        rows,
    })
}

driver_api! {
    3020 fn cuMemsetD8_v2(to: u64, value: u8, count: usize) | 7000 cuMemsetD8_v2_ptds {
        Rows::line(to, 1, count).now(value.into())
    }

    3020 fn cuMemsetD16_v2(to: u64, value: u16, count: usize) | 7000 cuMemsetD16_v2_ptds {
        Rows::line(to, 2, count).now(value.into())
    }

    3020 fn cuMemsetD32_v2(to: u64, value: u32, count: usize) | 7000 cuMemsetD32_v2_ptds {
        Rows::line(to, 4, count).now(value)
    }

    3020 fn cuMemsetD2D8_v2(to: u64, pitch: usize, value: u8, width: usize, height: usize) | 7000 cuMemsetD2D8_v2_ptds {
        rows(to, pitch, 1, width, height)?.now(value.into())
    }

    3020 fn cuMemsetD2D16_v2(to: u64, pitch: usize, value: u16, width: usize, height: usize) | 7000 cuMemsetD2D16_v2_ptds {
        rows(to, pitch, 2, width, height)?.now(value.into())
    }

    3020 fn cuMemsetD2D32_v2(to: u64, pitch: usize, value: u32, width: usize, height: usize) | 7000 cuMemsetD2D32_v2_ptds {
        rows(to, pitch, 4, width, height)?.now(value)
    }

    3020 fn cuMemsetD8Async(to: u64, value: u8, count: usize, stream: Handle) | 7000 cuMemsetD8Async_ptsz {
        Rows::line(to, 1, count).in_stream(value.into(), stream)
    }

    3020 fn cuMemsetD16Async(to: u64, value: u16, count: usize, stream: Handle) | 7000 cuMemsetD16Async_ptsz {
        Rows::line(to, 2, count).in_stream(value.into(), stream)
    }

    3020 fn cuMemsetD32Async(to: u64, value: u32, count: usize, stream: Handle) | 7000 cuMemsetD32Async_ptsz {
        Rows::line(to, 4, count).in_stream(value, stream)
    }

    3020 fn cuMemsetD2D8Async(
        to: u64,
        pitch: usize,
        value: u8,
        width: usize,
        height: usize,
        stream: Handle,
    ) | 7000 cuMemsetD2D8Async_ptsz {
        rows(to, pitch, 1, width, height)?.in_stream(value.into(), stream)
    }

    3020 fn cuMemsetD2D16Async(
        to: u64,
        pitch: usize,
        value: u16,
        width: usize,
        height: usize,
        stream: Handle,
    ) | 7000 cuMemsetD2D16Async_ptsz {
        rows(to, pitch, 2, width, height)?.in_stream(value.into(), stream)
    }

    3020 fn cuMemsetD2D32Async(
        to: u64,
        pitch: usize,
        value: u32,
        width: usize,
        height: usize,
        stream: Handle,
    ) | 7000 cuMemsetD2D32Async_ptsz {
        rows(to, pitch, 4, width, height)?.in_stream(value, stream)
    }
}
