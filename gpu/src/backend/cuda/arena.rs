//! Host memory that a guest and a GPU both reach, at one address.

#![allow(unsafe_code)]

use std::fs::File;
use std::os::fd::AsRawFd;
use std::sync::Arc;

use vm_memory::MmapRegion;

use super::driver::Driver;
use crate::memory::{BASE, PAGE};
use crate::{DeviceMemory, Error};

/// The device's memory window, mapped in this process where the device has it.
pub struct Arena {
    memory: Arc<DeviceMemory>,
    bytes: usize,
}

impl Arena {
    /// Maps all of a file from [`BASE`] on. A process has room for one.
    pub fn map(file: &Arc<File>, bytes: u64) -> Result<Self, Error> {
        let refused = |why: &dyn std::fmt::Display| Error::HostMemory(why.to_string());
        let bytes = usize::try_from(bytes).map_err(|error| refused(&error))?;
        let (protection, flags) = (
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_SHARED | libc::MAP_NORESERVE | libc::MAP_FIXED_NOREPLACE,
        );
        // SAFETY: nothing that is mapped is replaced, so no memory of ours is touched.
        let address = unsafe {
            libc::mmap(
                BASE as *mut libc::c_void,
                bytes,
                protection,
                flags,
                file.as_raw_fd(),
                0,
            )
        };
        if address == libc::MAP_FAILED {
            return Err(refused(&std::io::Error::last_os_error()));
        }
        // SAFETY: the mapping has just been made with this size and protection, and lives as long as this.
        let region = unsafe { MmapRegion::build_raw(address.cast(), bytes, protection, flags) };
        Ok(Self {
            memory: DeviceMemory::from_region(region.map_err(|error| refused(&error))?),
            bytes,
        })
    }

    /// Whole pages of zeros.
    pub fn allocate(&self, bytes: u64) -> Result<u64, Error> {
        Ok(BASE + self.memory.allocate_aligned(bytes, PAGE)?)
    }

    pub fn release(&self, address: u64, bytes: u64) {
        self.memory.release(address - BASE, bytes);
    }

    /// Lets the device of the thread's context reach what was allocated.
    pub fn register(&self, driver: &Driver, address: u64, bytes: u64) -> Result<(), Error> {
        // SAFETY: the arena outlives its registrations: contexts hold it, and unregister before they go.
        unsafe { driver.register(address, bytes) }
    }
}

impl Drop for Arena {
    fn drop(&mut self) {
        // SAFETY: mapped by `map` with this address and length; `DeviceMemory` does not unmap what it did not map, and is
        // not used any more.
        unsafe { libc::munmap(BASE as *mut libc::c_void, self.bytes) };
    }
}
