//! Device memory: one arena for all contexts, and who owns which part of it.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU8, AtomicU16, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use vm_memory::{Bytes, MmapRegion, VolatileMemory, VolatileSlice};

use crate::Error;
use crate::coherence::Coherence;

/// Device address of the arena's first byte. No host address is ever seen by a guest.
pub const BASE: u64 = 0x7000_0000_0000;

/// Every allocation begins at a multiple of this many bytes, as CUDA promises.
pub const GRANULE: u64 = 256;

/// Granule of memory that a guest may map.
pub const PAGE: u64 = 4096;

/// The arena. It may be shared with other processes and with a guest, so each access is atomic for itself.
#[derive(Debug)]
pub struct DeviceMemory {
    region: Arc<MmapRegion>,
    coherence: Option<Arc<dyn Coherence>>,
    /// Each access is told.
    exact: bool,
    /// Free ranges: length by offset; neighbours are merged.
    free: Mutex<BTreeMap<u64, u64>>,
}

impl DeviceMemory {
    /// Anonymous memory of `size` bytes, rounded up to pages by the host.
    pub fn new(size: u64) -> Result<Arc<Self>, Error> {
        let size = usize::try_from(size).map_err(|_| Error::OutOfMemory(size))?;
        MmapRegion::new(size)
            .map(Self::from_region)
            .map_err(|error| Error::HostMemory(error.to_string()))
    }

    /// Memory that is mapped already, such as a guest's window.
    pub fn from_region(region: MmapRegion) -> Arc<Self> {
        Self::coherent(Arc::new(region), None, false)
    }

    /// As [`Self::from_region`], for memory whose lines somebody keeps account of. Where that is to be `exact`, copies, fills
    /// and every access of a kernel that the interpreter runs are told; kernels are not to be compiled then.
    pub fn coherent(
        region: Arc<MmapRegion>,
        coherence: Option<Arc<dyn Coherence>>,
        exact: bool,
    ) -> Arc<Self> {
        let usable = region.size() as u64 / GRANULE * GRANULE;
        Arc::new(Self {
            region,
            coherence,
            exact,
            free: Mutex::new(BTreeMap::from([(0, usable)])),
        })
    }

    /// Who keeps account of accesses.
    pub fn coherence(&self) -> Option<&Arc<dyn Coherence>> {
        self.coherence.as_ref()
    }

    /// Tells of an access of the device, where all are told.
    pub(crate) fn tell(&self, offset: u64, bytes: u64, write: bool) {
        if self.exact
            && bytes > 0
            && let Some(coherence) = &self.coherence
        {
            coherence.access(offset, bytes, write);
        }
    }

    /// Bytes of the arena.
    pub fn size(&self) -> u64 {
        self.region.size() as u64
    }

    /// Where the arena begins in the host's address space.
    pub(crate) fn host_address(&self) -> u64 {
        self.region.as_ptr() as u64
    }

    /// Bytes that nobody owns.
    pub fn available(&self) -> u64 {
        self.lock().values().sum()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<u64, u64>> {
        self.free.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The offset of `bytes` bytes, which are zero: what another context has left there is not shown.
    pub fn allocate(&self, bytes: u64) -> Result<u64, Error> {
        self.allocate_aligned(bytes, GRANULE)
    }

    /// Memory from a multiple of `align` bytes on, a power of two not below [`GRANULE`].
    pub fn allocate_aligned(&self, bytes: u64, align: u64) -> Result<u64, Error> {
        let length = bytes
            .checked_next_multiple_of(GRANULE)
            .filter(|&length| length > 0)
            .ok_or(Error::OutOfMemory(bytes))?;
        let offset = {
            let mut free = self.lock();
            let (hole, room, offset) = free
                .iter()
                .map(|(&hole, &room)| (hole, room, hole.next_multiple_of(align)))
                .find(|&(hole, room, offset)| {
                    room.checked_sub(offset - hole)
                        .is_some_and(|room| room >= length)
                })
                .ok_or(Error::OutOfMemory(bytes))?;
            free.remove(&hole);
            if offset > hole {
                free.insert(hole, offset - hole);
            }
            let (end, hole_end) = (offset + length, hole + room);
            if hole_end > end {
                free.insert(end, hole_end - end);
            }
            offset
        };
        let mut zeroed = Ok(());
        let mut zero = || zeroed = self.fill(offset, &[0], length);
        match &self.coherence {
            Some(coherence) => coherence.renew(offset, length, &mut zero),
            None => zero(),
        }
        zeroed.map(|()| offset)
    }

    /// Gives `bytes` bytes back that [`Self::allocate`] has returned.
    pub fn release(&self, offset: u64, bytes: u64) {
        let mut free = self.lock();
        let (mut start, mut length) = (offset, bytes.next_multiple_of(GRANULE));
        if let Some((&before, &room)) = free.range(..offset).next_back()
            && before + room == offset
        {
            free.remove(&before);
            (start, length) = (before, length + room);
        }
        if let Some(room) = free.remove(&(start + length)) {
            length += room;
        }
        free.insert(start, length);
    }

    /// A range of the arena, for copies that need no buffer between.
    pub fn slice(&self, offset: u64, bytes: u64) -> Result<VolatileSlice<'_>, Error> {
        self.region
            .get_slice(offset as usize, bytes as usize)
            .map_err(|_| Error::InvalidValue("a copy beyond the end of device memory"))
    }

    /// Copies to the device. The range must lie in the arena.
    pub fn write(&self, offset: u64, bytes: &[u8]) -> Result<(), Error> {
        let slice = self.region.as_volatile_slice();
        slice
            .write_slice(bytes, offset as usize)
            .map_err(|_| Error::InvalidValue("a copy beyond the end of device memory"))
    }

    /// Copies from the device.
    pub fn read(&self, offset: u64, bytes: &mut [u8]) -> Result<(), Error> {
        let slice = self.region.as_volatile_slice();
        slice
            .read_slice(bytes, offset as usize)
            .map_err(|_| Error::InvalidValue("a copy beyond the end of device memory"))
    }

    /// Repeats `pattern` over `length` bytes.
    pub fn fill(&self, offset: u64, pattern: &[u8], length: u64) -> Result<(), Error> {
        const CHUNK: usize = 64 << 10;
        let chunk: Vec<u8> = pattern.iter().copied().cycle().take(CHUNK).collect();
        let mut done = 0;
        while done < length {
            let part = (length - done).min(CHUNK as u64);
            self.write(offset + done, &chunk[..part as usize])?;
            done += part;
        }
        Ok(())
    }

    /// One access of 1, 2, 4 or 8 bytes at a multiple of them; `None` outside the arena.
    pub fn load(&self, offset: u64, bytes: u64) -> Option<u64> {
        self.tell(offset, bytes, false);
        let offset = offset as usize;
        let relaxed = Ordering::Relaxed;
        Some(match bytes {
            1 => self
                .region
                .get_atomic_ref::<AtomicU8>(offset)
                .ok()?
                .load(relaxed)
                .into(),
            2 => self
                .region
                .get_atomic_ref::<AtomicU16>(offset)
                .ok()?
                .load(relaxed)
                .into(),
            4 => self
                .region
                .get_atomic_ref::<AtomicU32>(offset)
                .ok()?
                .load(relaxed)
                .into(),
            _ => self
                .region
                .get_atomic_ref::<AtomicU64>(offset)
                .ok()?
                .load(relaxed),
        })
    }

    /// The counterpart of [`Self::load`].
    pub fn store(&self, offset: u64, bytes: u64, value: u64) -> Option<()> {
        self.tell(offset, bytes, true);
        let offset = offset as usize;
        let relaxed = Ordering::Relaxed;
        match bytes {
            1 => {
                let cell = self.region.get_atomic_ref::<AtomicU8>(offset).ok()?;
                cell.store(value as u8, relaxed);
            }
            2 => {
                let cell = self.region.get_atomic_ref::<AtomicU16>(offset).ok()?;
                cell.store(value as u16, relaxed);
            }
            4 => {
                let cell = self.region.get_atomic_ref::<AtomicU32>(offset).ok()?;
                cell.store(value as u32, relaxed);
            }
            _ => {
                let cell = self.region.get_atomic_ref::<AtomicU64>(offset).ok()?;
                cell.store(value, relaxed);
            }
        }
        Some(())
    }

    /// Replaces a value of 2, 4 or 8 bytes by `f` of it and returns the old one, sequentially consistent.
    pub fn update(&self, offset: u64, bytes: u64, f: impl Fn(u64) -> u64) -> Option<u64> {
        self.tell(offset, bytes, true);
        const ORDER: Ordering = Ordering::SeqCst;
        let offset = offset as usize;
        // The closures never refuse, so both results hold the old value.
        Some(match bytes {
            2 => {
                let cell = self.region.get_atomic_ref::<AtomicU16>(offset).ok()?;
                let update = |old: u16| Some(f(old.into()) as u16);
                let (Ok(old) | Err(old)) = cell.fetch_update(ORDER, ORDER, update);
                old.into()
            }
            4 => {
                let cell = self.region.get_atomic_ref::<AtomicU32>(offset).ok()?;
                let update = |old: u32| Some(f(old.into()) as u32);
                let (Ok(old) | Err(old)) = cell.fetch_update(ORDER, ORDER, update);
                old.into()
            }
            _ => {
                let cell = self.region.get_atomic_ref::<AtomicU64>(offset).ok()?;
                let (Ok(old) | Err(old)) = cell.fetch_update(ORDER, ORDER, |old| Some(f(old)));
                old
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn released_neighbours_become_one_range_again() {
        let memory = DeviceMemory::new(1 << 16).unwrap();
        let offsets: Vec<u64> = (0..3).map(|_| memory.allocate(300).unwrap()).collect();
        assert_eq!(offsets, [0, 512, 1024]);
        memory.release(offsets[0], 300);
        memory.release(offsets[2], 300);
        memory.release(offsets[1], 300);
        assert_eq!(memory.available(), 1 << 16);
        assert_eq!(memory.allocate(1 << 16), Ok(0));
        assert_eq!(memory.allocate(1), Err(Error::OutOfMemory(1)));
    }

    #[test]
    fn aligned_memory_leaves_the_room_before_it_free() {
        let memory = DeviceMemory::new(1 << 14).unwrap();
        assert_eq!(memory.allocate(256), Ok(0));
        assert_eq!(memory.allocate_aligned(PAGE, PAGE), Ok(PAGE));
        assert_eq!(memory.allocate(PAGE - 256), Ok(256));
        assert_eq!(memory.available(), 2 * PAGE);
        memory.release(PAGE, PAGE);
        assert_eq!(memory.allocate_aligned(3 * PAGE, PAGE), Ok(PAGE));
        assert!(memory.allocate_aligned(256, 2 * PAGE).is_err());
    }

    #[test]
    fn memory_is_zero_for_its_next_owner() {
        let memory = DeviceMemory::new(4096).unwrap();
        let offset = memory.allocate(64).unwrap();
        memory.write(offset, &[7; 64]).unwrap();
        memory.release(offset, 64);
        assert_eq!(memory.allocate(64), Ok(offset));
        let mut bytes = [1; 64];
        memory.read(offset, &mut bytes).unwrap();
        assert_eq!(bytes, [0; 64]);
    }

    #[test]
    fn accesses_outside_the_arena_are_refused() {
        let memory = DeviceMemory::new(4096).unwrap();
        assert_eq!(memory.load(4096, 1), None);
        assert_eq!(memory.store(4092, 8, 0), None);
        assert_eq!(memory.load(u64::MAX, 8), None);
        assert!(memory.write(4095, &[0; 2]).is_err());
        assert_eq!(memory.update(8, 4, |old| old + 5), Some(0));
        assert_eq!(memory.load(8, 4), Some(5));
    }
}
