//! Allocation: of the device, page-locked on the host, and managed.

use crate::context;
use crate::driver::Driver;
use crate::ffi::{Address, Out, driver_api};
use crate::memory::Kind;
use crate::registry::Handle;
use crate::{Error, Result};

/// Rows of a pitched allocation begin at multiples of this many bytes.
const PITCH: usize = 512;
/// `CU_MEMHOSTALLOC_PORTABLE`, `_DEVICEMAP` and `_WRITECOMBINED`.
const HOST_FLAGS: u32 = 7;
/// `CU_MEM_ATTACH_GLOBAL` and `CU_MEM_ATTACH_HOST`.
const ATTACH_GLOBAL: u32 = 1;
const ATTACH_HOST: u32 = 2;

fn allocate(bytes: usize, kind: Kind) -> Result<u64> {
    let context = context::current()?;
    Driver::get()?
        .allocations
        .allocate(&context, bytes as u64, kind, Handle::NULL)
}

/// Frees memory once all work that may use it has ended.
fn free(address: u64, wanted: impl Fn(Kind) -> bool) -> Result<()> {
    if address == 0 {
        return Ok(());
    }
    let driver = Driver::get()?;
    let allocation = driver.allocations.take(address, wanted)?;
    let context = allocation.context()?;
    let ended = context.synchronize();
    context.check()?;
    context.channel.free(allocation.base)?;
    ended
}

/// The address of host memory, with its flags.
fn host(address: Address) -> Result<u32> {
    let allocation = Driver::get()?.allocations.find(address.0);
    match allocation.map(|allocation| allocation.kind) {
        Some(Kind::Host(flags)) => Ok(flags),
        _ => Err(Error::INVALID_VALUE),
    }
}

driver_api! {
    3020 fn cuMemGetInfo_v2(free: Out<usize>, total: Out<usize>) {
        let (free_bytes, total_bytes) = context::current()?.channel.memory()?;
        free.set_if_wanted(free_bytes as usize);
        total.set_if_wanted(total_bytes as usize);
        Ok(())
    }

    3020 fn cuMemAlloc_v2(address: Out<u64>, bytes: usize) {
        address.set(allocate(bytes, Kind::Device)?)
    }

    3020 fn cuMemAllocPitch_v2(
        address: Out<u64>,
        pitch: Out<usize>,
        width: usize,
        height: usize,
        element: u32,
    ) {
        if !matches!(element, 4 | 8 | 16) {
            return Err(Error::INVALID_VALUE);
        }
        let row = width.checked_next_multiple_of(PITCH).ok_or(Error::INVALID_VALUE)?;
        let bytes = row.checked_mul(height).ok_or(Error::INVALID_VALUE)?;
        address.set(allocate(bytes, Kind::Device)?)?;
        pitch.set(row)
    }

    3020 fn cuMemFree_v2(address: u64) {
        Driver::get()?;
        free(address, |kind| matches!(kind, Kind::Device | Kind::Managed))
    }

    3020 fn cuMemGetAddressRange_v2(base: Out<u64>, bytes: Out<usize>, address: u64) {
        context::current()?;
        let found = Driver::get()?.allocations.find(address).ok_or(Error::NOT_FOUND)?;
        base.set_if_wanted(found.base);
        bytes.set_if_wanted(found.bytes as usize);
        Ok(())
    }

    3020 fn cuMemAllocHost_v2(address: Out<u64>, bytes: usize) {
        address.set(allocate(bytes, Kind::Host(0))?)
    }

    2020 fn cuMemHostAlloc(address: Out<u64>, bytes: usize, flags: u32) {
        if flags & !HOST_FLAGS != 0 {
            return Err(Error::INVALID_VALUE);
        }
        address.set(allocate(bytes, Kind::Host(flags))?)
    }

    2000 fn cuMemFreeHost(address: Address) {
        Driver::get()?;
        free(address.0, |kind| matches!(kind, Kind::Host(_)))
    }

    3020 fn cuMemHostGetDevicePointer_v2(device: Out<u64>, address: Address, flags: u32) {
        host(address)?;
        if flags != 0 {
            return Err(Error::INVALID_VALUE);
        }
        device.set(address.0)
    }

    2030 fn cuMemHostGetFlags(flags: Out<u32>, address: Address) {
        flags.set(host(address)?)
    }

    6000 fn cuMemAllocManaged(address: Out<u64>, bytes: usize, flags: u32) {
        if !matches!(flags, ATTACH_GLOBAL | ATTACH_HOST) {
            return Err(Error::INVALID_VALUE);
        }
        address.set(allocate(bytes, Kind::Managed)?)
    }
}
