//! Copies.

use crate::context;
use crate::driver::Driver;
use crate::ffi::{In, driver_api};
use crate::graph::Action;
use crate::registry::Handle;
use crate::transfer::{Copy, Shape, Side};
use crate::{Error, Result};

/// `CUmemorytype`.
const HOST: u32 = 1;
const ARRAY: u32 = 3;

/// One side of `CUDA_MEMCPY2D` after its position.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Pointers {
    kind: u32,
    host: u64,
    device: u64,
    array: u64,
}

impl Pointers {
    /// Where the memory begins. Of the unified kind it is the device's pointer that counts.
    fn base(self) -> Result<u64> {
        match self.kind {
            HOST => Ok(self.host),
            ARRAY => Err(Error::NOT_SUPPORTED),
            _ => Ok(self.device),
        }
    }
}

#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Side2d {
    x: u64,
    y: u64,
    pointers: Pointers,
    pitch: u64,
}

/// `CUDA_MEMCPY2D`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Copy2d {
    from: Side2d,
    to: Side2d,
    width: u64,
    height: u64,
}

#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Side3d {
    x: u64,
    y: u64,
    z: u64,
    level: u64,
    pointers: Pointers,
    reserved: u64,
    pitch: u64,
    height: u64,
}

/// `CUDA_MEMCPY3D`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Copy3d {
    from: Side3d,
    to: Side3d,
    width: u64,
    height: u64,
    depth: u64,
}

impl Copy2d {
    fn check(&self, driver: &Driver) -> Result<Copy> {
        let flat = |side: &Side2d| Side3d {
            x: side.x,
            y: side.y,
            z: 0,
            level: 0,
            pointers: side.pointers,
            reserved: 0,
            pitch: side.pitch,
            height: self.height,
        };
        Copy3d {
            from: flat(&self.from),
            to: flat(&self.to),
            width: self.width,
            height: self.height,
            depth: 1,
        }
        .check(driver)
    }
}

impl Copy3d {
    /// Checks the copy; a pitch or height of 0 means that of the copied part.
    pub fn check(&self, driver: &Driver) -> Result<Copy> {
        let side = |side: &Side3d| -> Result<Side> {
            let or = |given: u64, otherwise| if given == 0 { otherwise } else { given };
            let pitch = or(side.pitch, self.width);
            let layer = pitch.checked_mul(or(side.height, self.height));
            let layer = layer.ok_or(Error::INVALID_VALUE)?;
            let offset = || {
                let rows = side.y.checked_mul(pitch)?;
                let layers = side.z.checked_mul(layer)?;
                side.x.checked_add(rows)?.checked_add(layers)
            };
            let base = side.pointers.base()?;
            let address = offset().and_then(|offset| base.checked_add(offset));
            Ok(Side {
                address: address.ok_or(Error::INVALID_VALUE)?,
                pitch,
                layer,
            })
        };
        let shape = Shape {
            width: self.width,
            height: self.height,
            depth: self.depth,
        };
        Copy::new(driver, side(&self.to)?, side(&self.from)?, shape)
    }
}

/// Copies in the default stream and waits.
fn now(copy: impl FnOnce(&Driver) -> Result<Copy>) -> Result<()> {
    let driver = Driver::get()?;
    let context = context::current()?;
    copy(driver)?.run(&context.default_stream)
}

fn in_stream(stream: Handle, copy: impl FnOnce(&Driver) -> Result<Copy>) -> Result<()> {
    let driver = Driver::get()?;
    let stream = driver.stream(stream)?;
    stream.perform(Action::Copy(copy(driver)?))
}

driver_api! {
    4000 fn cuMemcpy(to: u64, from: u64, bytes: usize) | 7000 cuMemcpy_ptds {
        now(|driver| Copy::line(driver, to, from, bytes as u64))
    }

    4000 fn cuMemcpyAsync(to: u64, from: u64, bytes: usize, stream: Handle) | 7000 cuMemcpyAsync_ptsz {
        in_stream(stream, |driver| Copy::line(driver, to, from, bytes as u64))
    }

    3020 fn cuMemcpyHtoD_v2(to: u64, from: u64, bytes: usize) | 7000 cuMemcpyHtoD_v2_ptds {
        now(|driver| Copy::line(driver, to, from, bytes as u64)?.into_device())
    }

    3020 fn cuMemcpyHtoDAsync_v2(to: u64, from: u64, bytes: usize, stream: Handle) | 7000 cuMemcpyHtoDAsync_v2_ptsz {
        in_stream(stream, |driver| Copy::line(driver, to, from, bytes as u64)?.into_device())
    }

    3020 fn cuMemcpyDtoH_v2(to: u64, from: u64, bytes: usize) | 7000 cuMemcpyDtoH_v2_ptds {
        now(|driver| Copy::line(driver, to, from, bytes as u64)?.out_of_device())
    }

    3020 fn cuMemcpyDtoHAsync_v2(to: u64, from: u64, bytes: usize, stream: Handle) | 7000 cuMemcpyDtoHAsync_v2_ptsz {
        in_stream(stream, |driver| Copy::line(driver, to, from, bytes as u64)?.out_of_device())
    }

    3020 fn cuMemcpyDtoD_v2(to: u64, from: u64, bytes: usize) | 7000 cuMemcpyDtoD_v2_ptds {
        now(|driver| Copy::line(driver, to, from, bytes as u64)?.into_device()?.out_of_device())
    }

    3020 fn cuMemcpyDtoDAsync_v2(to: u64, from: u64, bytes: usize, stream: Handle) | 7000 cuMemcpyDtoDAsync_v2_ptsz {
        in_stream(stream, |driver| Copy::line(driver, to, from, bytes as u64)?.into_device()?.out_of_device())
    }

    // An address tells its context by itself.
    4000 fn cuMemcpyPeer(
        to: u64,
        _to_context: Handle,
        from: u64,
        _from_context: Handle,
        bytes: usize,
    ) | 7000 cuMemcpyPeer_ptds {
        now(|driver| Copy::line(driver, to, from, bytes as u64)?.into_device()?.out_of_device())
    }

    4000 fn cuMemcpyPeerAsync(
        to: u64,
        _to_context: Handle,
        from: u64,
        _from_context: Handle,
        bytes: usize,
        stream: Handle,
    ) | 7000 cuMemcpyPeerAsync_ptsz {
        in_stream(stream, |driver| Copy::line(driver, to, from, bytes as u64)?.into_device()?.out_of_device())
    }

    3020 fn cuMemcpy2D_v2(copy: In<Copy2d>) | 7000 cuMemcpy2D_v2_ptds {
        now(|driver| copy.get()?.check(driver))
    }

    3020 fn cuMemcpy2DUnaligned_v2(copy: In<Copy2d>) | 7000 cuMemcpy2DUnaligned_v2_ptds {
        now(|driver| copy.get()?.check(driver))
    }

    3020 fn cuMemcpy2DAsync_v2(copy: In<Copy2d>, stream: Handle) | 7000 cuMemcpy2DAsync_v2_ptsz {
        in_stream(stream, |driver| copy.get()?.check(driver))
    }

    3020 fn cuMemcpy3D_v2(copy: In<Copy3d>) | 7000 cuMemcpy3D_v2_ptds {
        now(|driver| copy.get()?.check(driver))
    }

    3020 fn cuMemcpy3DAsync_v2(copy: In<Copy3d>, stream: Handle) | 7000 cuMemcpy3DAsync_v2_ptsz {
        in_stream(stream, |driver| copy.get()?.check(driver))
    }
}
