//! What a pointer points to, and hints about it.

use crate::context;
use crate::driver::Driver;
use crate::ffi::{Address, In, Out, driver_api};
use crate::memory::{Allocation, Kind};
use crate::registry::Handle;
use crate::{Error, Result};

/// `CUpointer_attribute`.
mod attribute {
    pub const CONTEXT: u32 = 1;
    pub const MEMORY_TYPE: u32 = 2;
    pub const DEVICE_POINTER: u32 = 3;
    pub const HOST_POINTER: u32 = 4;
    pub const SYNC_MEMOPS: u32 = 6;
    pub const BUFFER_ID: u32 = 7;
    pub const IS_MANAGED: u32 = 8;
    pub const DEVICE_ORDINAL: u32 = 9;
    pub const IS_LEGACY_CUDA_IPC_CAPABLE: u32 = 10;
    pub const RANGE_START_ADDR: u32 = 11;
    pub const RANGE_SIZE: u32 = 12;
    pub const MAPPED: u32 = 13;
    pub const ALLOWED_HANDLE_TYPES: u32 = 14;
    pub const IS_GPU_DIRECT_RDMA_CAPABLE: u32 = 15;
    pub const ACCESS_FLAGS: u32 = 16;
    pub const MEMPOOL_HANDLE: u32 = 17;
}

/// `CUmemorytype`.
const MEMORY_HOST: u32 = 1;
const MEMORY_DEVICE: u32 = 2;
/// `CU_POINTER_ATTRIBUTE_ACCESS_FLAG_READWRITE`.
const READ_WRITE: u32 = 3;

/// Writes an attribute of an address in an allocation with the width that it has in C.
fn write(data: Address, which: u32, address: u64, allocation: &Allocation) -> Result<()> {
    let host = matches!(allocation.kind, Kind::Host(_));
    match which {
        attribute::CONTEXT => data.out().set(allocation.context()?.handle),
        attribute::MEMORY_TYPE => data
            .out()
            .set(if host { MEMORY_HOST } else { MEMORY_DEVICE }),
        attribute::DEVICE_POINTER => data.out().set(address),
        attribute::HOST_POINTER => match allocation.kind {
            Kind::Host(_) | Kind::Managed => data.out().set(address),
            Kind::Device | Kind::Variable => Err(Error::INVALID_VALUE),
        },
        attribute::SYNC_MEMOPS | attribute::IS_LEGACY_CUDA_IPC_CAPABLE => data.out().set(0u8),
        attribute::BUFFER_ID => data.out().set(allocation.id),
        attribute::IS_MANAGED => data.out().set(u8::from(allocation.kind == Kind::Managed)),
        attribute::DEVICE_ORDINAL => data.out().set(allocation.context()?.device.ordinal),
        attribute::RANGE_START_ADDR => data.out().set(allocation.base),
        attribute::RANGE_SIZE => data.out().set(allocation.bytes as usize),
        attribute::MAPPED => data.out().set(1u8),
        attribute::ALLOWED_HANDLE_TYPES => data.out().set(0u64),
        attribute::IS_GPU_DIRECT_RDMA_CAPABLE => data.out().set(0u8),
        attribute::ACCESS_FLAGS => data.out().set(READ_WRITE),
        attribute::MEMPOOL_HANDLE => data.out().set(allocation.pool),
        _ => Err(Error::INVALID_VALUE),
    }
}

/// What an attribute is for memory that CUDA does not know.
fn write_unknown(data: Address, which: u32) -> Result<()> {
    match which {
        attribute::CONTEXT | attribute::MEMPOOL_HANDLE => data.out().set(Handle::NULL),
        attribute::MEMORY_TYPE => data.out().set(0u32),
        attribute::DEVICE_ORDINAL => data.out().set(-2i32),
        attribute::IS_MANAGED | attribute::MAPPED => data.out().set(0u8),
        attribute::DEVICE_POINTER | attribute::HOST_POINTER => data.out().set(0u64),
        _ => Ok(()),
    }
}

driver_api! {
    4000 fn cuPointerGetAttribute(data: Address, which: u32, address: u64) {
        let found = Driver::get()?.allocations.find(address);
        write(data, which, address, &found.ok_or(Error::INVALID_VALUE)?)
    }

    7000 fn cuPointerGetAttributes(count: u32, which: In<u32>, data: In<Address>, address: u64) {
        let found = Driver::get()?.allocations.find(address);
        for index in 0..count as usize {
            let (which, data) = (which.get_at(index)?, data.get_at(index)?);
            let written = match &found {
                Some(allocation) => write(data, which, address, allocation),
                None => Err(Error::INVALID_VALUE),
            };
            if written.is_err() {
                write_unknown(data, which)?;
            }
        }
        Ok(())
    }

    6000 fn cuPointerSetAttribute(_value: Address, which: u32, address: u64) {
        let found = Driver::get()?.allocations.find(address);
        found.ok_or(Error::INVALID_VALUE)?;
        if which == attribute::SYNC_MEMOPS { Ok(()) } else { Err(Error::INVALID_VALUE) }
    }

    // The memory is where it is, for the host and for the device: these hints change nothing.
    8000 fn cuMemAdvise(address: u64, bytes: usize, _advice: u32, _device: i32) {
        within_one(address, bytes)
    }

    12020 fn cuMemAdvise_v2(address: u64, bytes: usize, _advice: u32, _location: u64) {
        within_one(address, bytes)
    }

    8000 fn cuMemPrefetchAsync(address: u64, bytes: usize, _device: i32, stream: Handle) | 8000 cuMemPrefetchAsync_ptsz {
        Driver::get()?.stream(stream)?;
        within_one(address, bytes)
    }

    12020 fn cuMemPrefetchAsync_v2(
        address: u64,
        bytes: usize,
        _location: u64,
        _flags: u32,
        stream: Handle,
    ) | 12020 cuMemPrefetchAsync_v2_ptsz {
        Driver::get()?.stream(stream)?;
        within_one(address, bytes)
    }

    6000 fn cuStreamAttachMemAsync(
        stream: Handle,
        address: u64,
        _bytes: usize,
        _flags: Out<u8>,
    ) | 7000 cuStreamAttachMemAsync_ptsz {
        Driver::get()?.stream(stream)?;
        within_one(address, 0)
    }
}

fn within_one(address: u64, bytes: usize) -> Result<()> {
    context::current()?;
    match Driver::get()?.allocations.find(address) {
        Some(allocation) if allocation.holds(address, bytes as u64) => Ok(()),
        _ => Err(Error::INVALID_VALUE),
    }
}
