//! Contexts: one client's memory, output and fault.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard};

use vm_memory::VolatileSlice;

use super::options::Options;
use crate::memory::{BASE, GRANULE, PAGE};
use crate::{DeviceMemory, Error};

/// One client's part of the device: its memory, its output, and its first fault, after which it can only be dropped.
#[derive(Debug)]
pub struct Context {
    pub(super) memory: Arc<DeviceMemory>,
    pub(super) options: Options,
    /// Bytes of each allocation by device address.
    allocations: Mutex<BTreeMap<u64, u64>>,
    /// Held shared by kernels and copies; memory is given back only when none runs.
    kernels: RwLock<()>,
    /// Whoever the context belongs to is gone.
    pub(super) cancelled: AtomicBool,
    fault: Mutex<Option<Error>>,
    pub(super) output: Mutex<Vec<u8>>,
    launches: AtomicU64,
}

impl Context {
    pub fn new(memory: Arc<DeviceMemory>, options: Options) -> Arc<Self> {
        Arc::new(Self {
            memory,
            options,
            allocations: Mutex::default(),
            kernels: RwLock::default(),
            cancelled: AtomicBool::new(false),
            fault: Mutex::default(),
            output: Mutex::default(),
            launches: AtomicU64::new(0),
        })
    }

    /// The fault that has ended the context, as every later call reports it.
    pub fn check(&self) -> Result<(), Error> {
        lock(&self.fault).clone().map_or(Ok(()), Err)
    }

    /// Ends the context by a fault; the one that has ended it, if another was first.
    pub(super) fn fail(&self, fault: Error) -> Error {
        lock(&self.fault).get_or_insert(fault).clone()
    }

    /// Ends kernels that run, and any to come, with error 702.
    pub fn cancel(&self) {
        self.cancelled.store(true, Ordering::Relaxed);
    }

    /// Allocates `bytes` bytes of zeros and returns their device address, a multiple of 256.
    pub fn alloc(&self, bytes: u64) -> Result<u64, Error> {
        self.alloc_aligned(bytes, GRANULE)
    }

    /// Allocates whole pages, which nobody else has a part of.
    pub fn alloc_pages(&self, bytes: u64) -> Result<u64, Error> {
        let pages = bytes
            .checked_next_multiple_of(PAGE)
            .ok_or(Error::OutOfMemory(bytes))?;
        self.alloc_aligned(pages, PAGE)
    }

    fn alloc_aligned(&self, bytes: u64, align: u64) -> Result<u64, Error> {
        self.check()?;
        if bytes == 0 {
            return Err(Error::InvalidValue("an allocation of no bytes"));
        }
        let address = BASE + self.memory.allocate_aligned(bytes, align)?;
        lock(&self.allocations).insert(address, bytes);
        Ok(address)
    }

    /// Frees what [`Self::alloc`] has returned, once no kernel of the context runs.
    pub fn free(&self, address: u64) -> Result<(), Error> {
        self.check()?;
        self.release(address)
    }

    /// Keeps memory from being given back.
    pub(super) fn hold(&self) -> RwLockReadGuard<'_, ()> {
        self.kernels.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn release(&self, address: u64) -> Result<(), Error> {
        let _idle = self.kernels.write().unwrap_or_else(PoisonError::into_inner);
        let bytes = lock(&self.allocations)
            .remove(&address)
            .ok_or(Error::InvalidValue("no allocation begins at this address"))?;
        self.memory.release(address - BASE, bytes);
        Ok(())
    }

    /// The base address and size of the allocation that an address lies in.
    pub fn address_range(&self, address: u64) -> Result<Range<u64>, Error> {
        lock(&self.allocations)
            .range(..=address)
            .next_back()
            .map(|(&base, &bytes)| base..base + bytes)
            .filter(|range| range.contains(&address))
            .ok_or(Error::InvalidValue(
                "an address outside the context's memory",
            ))
    }

    /// Bytes of all allocations.
    pub fn used(&self) -> u64 {
        lock(&self.allocations).values().sum()
    }

    /// All allocations, by address.
    pub(super) fn allocations(&self) -> Vec<Range<u64>> {
        lock(&self.allocations)
            .iter()
            .map(|(&base, &bytes)| base..base + bytes)
            .collect()
    }

    /// The number of a launch that begins now.
    pub(super) fn count_launch(&self) -> u64 {
        self.launches.fetch_add(1, Ordering::Relaxed)
    }

    /// The arena's offset of a range that must lie in one allocation.
    fn range(&self, address: u64, bytes: u64) -> Result<u64, Error> {
        self.check()?;
        let range = self.address_range(address)?;
        if bytes > range.end - address {
            return Err(Error::InvalidValue("a range beyond its allocation"));
        }
        Ok(address - BASE)
    }

    pub fn write(&self, address: u64, bytes: &[u8]) -> Result<(), Error> {
        let _held = self.hold();
        let offset = self.range(address, bytes.len() as u64)?;
        self.memory.write(offset, bytes)
    }

    /// Copies from memory that others change meanwhile, such as a guest's.
    pub fn write_from(&self, address: u64, from: VolatileSlice<'_>) -> Result<(), Error> {
        let _held = self.hold();
        let bytes = from.len() as u64;
        let offset = self.range(address, bytes)?;
        let to = self.memory.slice(offset, bytes)?;
        self.memory.tell(offset, bytes, true);
        from.copy_to_volatile_slice(to);
        Ok(())
    }

    /// The counterpart of [`Self::write_from`].
    pub fn read_to(&self, address: u64, to: VolatileSlice<'_>) -> Result<(), Error> {
        let _held = self.hold();
        let bytes = to.len() as u64;
        let offset = self.range(address, bytes)?;
        let from = self.memory.slice(offset, bytes)?;
        self.memory.tell(offset, bytes, false);
        from.copy_to_volatile_slice(to);
        Ok(())
    }

    pub fn read(&self, address: u64, bytes: &mut [u8]) -> Result<(), Error> {
        let _held = self.hold();
        let offset = self.range(address, bytes.len() as u64)?;
        self.memory.read(offset, bytes)
    }

    /// Copies within the device; the ranges may overlap.
    pub fn copy(&self, to: u64, from: u64, bytes: u64) -> Result<(), Error> {
        let _held = self.hold();
        let from = self.range(from, bytes)?;
        let to = self.range(to, bytes)?;
        self.memory.tell(from, bytes, false);
        self.memory.tell(to, bytes, true);
        const CHUNK: u64 = 64 << 10;
        let mut buffer = vec![0; bytes.min(CHUNK) as usize];
        let mut done = 0;
        while done < bytes {
            let part = (bytes - done).min(CHUNK);
            // From the end if the target lies behind the source.
            let at = if to > from { bytes - done - part } else { done };
            let buffer = &mut buffer[..part as usize];
            self.memory.read(from + at, buffer)?;
            self.memory.write(to + at, buffer)?;
            done += part;
        }
        Ok(())
    }

    /// Repeats a pattern of 1, 2 or 4 bytes `count` times.
    pub fn set(&self, address: u64, pattern: &[u8], count: u64) -> Result<(), Error> {
        let width = pattern.len() as u64;
        if !matches!(width, 1 | 2 | 4) || !address.is_multiple_of(width) {
            return Err(Error::InvalidValue(
                "a pattern has 1, 2 or 4 bytes, at a multiple of them",
            ));
        }
        let bytes = count
            .checked_mul(width)
            .ok_or(Error::InvalidValue("a range beyond its allocation"))?;
        let _held = self.hold();
        let offset = self.range(address, bytes)?;
        self.memory.tell(offset, bytes, true);
        self.memory.fill(offset, pattern, bytes)
    }

    /// Bytes that kernels have printed and nobody has taken.
    pub fn output_waiting(&self) -> u64 {
        lock(&self.output).len() as u64
    }

    /// Takes what kernels have printed so far.
    pub fn take_output(&self) -> Vec<u8> {
        std::mem::take(&mut lock(&self.output))
    }

    /// Bytes free and in all.
    pub fn memory_info(&self) -> (u64, u64) {
        (self.memory.available(), self.memory.size())
    }
}

impl Drop for Context {
    fn drop(&mut self) {
        for (address, bytes) in std::mem::take(&mut *lock(&self.allocations)) {
            self.memory.release(address - BASE, bytes);
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
