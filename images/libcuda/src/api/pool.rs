//! Memory in the order of streams, and pools of it.

use std::sync::Arc;

use crate::context;
use crate::driver::Driver;
use crate::ffi::{Address, In, Out, driver_api};
use crate::memory::{Kind, Pool};
use crate::registry::Handle;
use crate::{Error, Result};

/// `CUmemLocation`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Location {
    kind: u32,
    id: i32,
}

/// `CUmemPoolProps`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct PoolProperties {
    allocation: u32,
    handles: u32,
    location: Location,
    security: Address,
    most_bytes: usize,
    usage: u16,
    reserved: [u8; 54],
}

/// `CUmemAccessDesc`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Access {
    location: Location,
    flags: u32,
}

/// `CU_MEM_LOCATION_TYPE_DEVICE`.
const LOCATION_DEVICE: u32 = 1;
/// `CU_MEM_ALLOCATION_TYPE_PINNED`.
const PINNED: u32 = 1;
/// `CU_MEM_ACCESS_FLAGS_PROT_READWRITE`.
const READ_WRITE: u32 = 3;

/// The memory is there at once: what the stream has to do first cannot be using it.
fn allocate(out: Out<u64>, bytes: usize, pool: Handle, stream: Handle) -> Result<()> {
    let driver = Driver::get()?;
    let stream = driver.stream(stream)?;
    stream.refuse_if_captured()?;
    let context = stream.context()?;
    let state = driver.pools.get(pool)?;
    let allocations = &driver.allocations;
    let address = allocations.allocate(&context, bytes as u64, Kind::Device, pool)?;
    state.note_use(allocations.used_of(pool));
    out.set(address)
}

driver_api! {
    11020 fn cuDeviceGetDefaultMemPool(pool: Out<Handle>, device: i32) {
        pool.set(Driver::get()?.device(device)?.default_pool)
    }

    11020 fn cuDeviceGetMemPool(pool: Out<Handle>, device: i32) {
        pool.set(Driver::get()?.device(device)?.pool())
    }

    11020 fn cuDeviceSetMemPool(device: i32, pool: Handle) {
        let driver = Driver::get()?;
        driver.pools.get(pool)?;
        driver.device(device)?.set_pool(pool);
        Ok(())
    }

    11020 fn cuMemAllocAsync(address: Out<u64>, bytes: usize, stream: Handle) | 11020 cuMemAllocAsync_ptsz {
        let pool = Driver::get()?.stream(stream)?.context()?.device.pool();
        allocate(address, bytes, pool, stream)
    }

    11020 fn cuMemAllocFromPoolAsync(
        address: Out<u64>,
        bytes: usize,
        pool: Handle,
        stream: Handle,
    ) | 11020 cuMemAllocFromPoolAsync_ptsz {
        allocate(address, bytes, pool, stream)
    }

    11020 fn cuMemFreeAsync(address: u64, stream: Handle) | 11020 cuMemFreeAsync_ptsz {
        let driver = Driver::get()?;
        let stream = driver.stream(stream)?;
        stream.refuse_if_captured()?;
        let allocation = driver.allocations.take(address, |kind| kind == Kind::Device)?;
        let owner = allocation.context()?;
        stream.submit(move || owner.channel.free(allocation.base))
    }

    11020 fn cuMemPoolCreate(pool: Out<Handle>, properties: In<PoolProperties>) {
        let driver = Driver::get()?;
        let properties = properties.get()?;
        if properties.allocation != PINNED || properties.location.kind != LOCATION_DEVICE {
            return Err(Error::INVALID_VALUE);
        }
        if properties.handles != 0 {
            return Err(Error::NOT_SUPPORTED);
        }
        let device = driver.device(properties.location.id)?.ordinal;
        pool.set(driver.pools.add(Arc::new(Pool::new(device))))
    }

    11020 fn cuMemPoolDestroy(pool: Handle) {
        let driver = Driver::get()?;
        if driver.devices.iter().any(|device| device.default_pool == pool) {
            return Err(Error::INVALID_VALUE);
        }
        driver.pools.remove(pool)?;
        for device in driver.devices.iter().filter(|device| device.pool() == pool) {
            device.set_pool(device.default_pool);
        }
        Ok(())
    }

    11020 fn cuMemPoolTrimTo(pool: Handle, _keep: usize) {
        // Nothing is held back.
        Driver::get()?.pools.get(pool).map(|_| ())
    }

    11020 fn cuMemPoolGetAttribute(pool: Handle, attribute: u32, value: Address) {
        let driver = Driver::get()?;
        let used = driver.allocations.used_of(pool);
        let number = driver.pools.get(pool)?.attribute(attribute, used)?;
        if Pool::is_int(attribute) { value.out().set(number as i32) } else { value.out().set(number) }
    }

    11020 fn cuMemPoolSetAttribute(pool: Handle, attribute: u32, value: Address) {
        let driver = Driver::get()?;
        if value.is_null() {
            return Err(Error::INVALID_VALUE);
        }
        let number = if Pool::is_int(attribute) { value.value::<u32>(0).into() } else { value.value(0) };
        let used = driver.allocations.used_of(pool);
        driver.pools.get(pool)?.set_attribute(attribute, number, used)
    }

    11020 fn cuMemPoolGetAccess(flags: Out<u32>, pool: Handle, location: In<Location>) {
        let pool = Driver::get()?.pools.get(pool)?;
        let location = location.get()?;
        let own = location.kind == LOCATION_DEVICE && location.id == pool.device;
        flags.set(if own { READ_WRITE } else { 0 })
    }

    11020 fn cuMemPoolSetAccess(pool: Handle, accesses: In<Access>, count: usize) {
        let pool = Driver::get()?.pools.get(pool)?;
        let own = |access: &Access| {
            access.location.kind == LOCATION_DEVICE
                && access.location.id == pool.device
                && access.flags == READ_WRITE
        };
        if accesses.array(count)?.iter().all(own) { Ok(()) } else { Err(Error::INVALID_DEVICE) }
    }

    10020 fn cuMemGetAccess(flags: Out<u64>, location: In<Location>, address: u64) {
        let driver = Driver::get()?;
        let found = driver.allocations.find(address).ok_or(Error::INVALID_VALUE)?;
        let location = location.get()?;
        let own = location.kind == LOCATION_DEVICE && location.id == found.context()?.device.ordinal;
        context::current()?;
        flags.set(if own { READ_WRITE.into() } else { 0 })
    }
}
